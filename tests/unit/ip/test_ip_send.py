"""Downward: what becomes of a segment that a transport sends to somebody else."""

from __future__ import annotations

import pytest
from ip_host import DIRECTED, EPOCH, FAR, LIMITED, LOOPBACK, MS, OWN, PEER, TCP_HEAD, Host, link_state, packet, segment

from levelip.frames.packet import BROADCAST, Checksum, Packet, Process, Unreachable
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.ipv4 import FLAG_DF, Ipv4Header, Proto

RING = Place("session", 0, 1 << 20, 5000, 30 * 1448)


def header_of(out: Packet) -> Ipv4Header:
    """The header of a packet to link; its checksum must be right."""
    header = Ipv4Header.parse(out.head)
    assert header.serialize(fill_checksum=True) == out.head[: header.length]
    return header


def test_packet_tells_all_of_the_segment(host: Host) -> None:
    """A header before the segment's bytes; checksum state, trace bit, ingress and cause pass; the next hop is named."""
    out = host.sent(segment(b"hello", tos=0x2E))
    header = header_of(out)
    assert (header.src, header.dst, header.proto, header.tos, header.ttl) == (OWN, PEER, Proto.TCP, 0x2E, 64)
    assert header.total_length == 45 and header.flags == FLAG_DF and not header.options
    assert out.head + out.payload == out.head[:20] + TCP_HEAD + b"hello"  # type: ignore[operator]
    assert (out.checksum, out.traced, out.ingress, out.iface, out.next_hop) == (Checksum.PARTIAL, True, 555, 1, PEER)
    assert out.causes == [99]
    assert out.id >> 60 == Process.IP and out.id >> 40 & 0xFFFFF == EPOCH


def test_super_segment_from_a_ring(host: Host) -> None:
    """All headers are inline, the payload stays in the ring, whatever its size (DESIGN 3 and 5)."""
    out = host.sent(segment(RING, gso_size=1448))
    assert out.payload == RING and out.gso_size == 1448 and out.head[20:] == TCP_HEAD
    assert header_of(out).total_length == 40 + 30 * 1448


@pytest.mark.rfc("RFC 1122 3.2.1.7-3", "RFC 1122 3.2.1.7-4")
def test_ttl_is_the_segments_or_ours() -> None:
    """`ttl` 0 means the default of [ip] (RFC 1122 3.2.1.7: configurable)."""
    host = Host(ttl=33)
    assert header_of(host.sent(segment())).ttl == 33
    assert header_of(host.sent(segment(ttl=5))).ttl == 5


def test_may_be_fragmented(host: Host) -> None:
    """A segment without DF makes a packet without DF."""
    assert header_of(host.sent(segment(dont_fragment=False))).flags == 0


@pytest.mark.rfc("RFC 1122 3.3.1.1-1", "RFC 1122 3.3.1.2-3")
def test_far_away_goes_to_the_gateway(host: Host) -> None:
    """RFC 1122 3.3.1.1: what is not on the network goes to the default gateway."""
    out = host.sent(segment(dst=FAR))
    assert out.next_hop == PEER and header_of(out).dst == FAR


@pytest.mark.rfc("RFC 1122 3.3.4.3")
def test_source_is_chosen_by_route(host: Host) -> None:
    """RFC 1122 3.3.4.3: an empty source becomes the address of the interface that the packet leaves by."""
    assert header_of(host.sent(segment(src=b"", dst=FAR))).src == OWN


def test_idents_differ_on_the_wire(host: Host) -> None:
    """One ident a packet on the wire: a super-segment uses up as many as it will be cut into, and 16 bits wrap."""
    first = header_of(host.sent(segment(b"x"))).ident
    assert header_of(host.sent(segment(RING, gso_size=1448))).ident == (first + 1) & 0xFFFF
    assert header_of(host.sent(segment(b"x"))).ident == (first + 31) & 0xFFFF
    seen = {header_of(host.sent(segment(RING.slice(0, 3000), gso_size=1448))).ident for _ in range(30_000)}
    assert all(0 <= ident <= 0xFFFF for ident in seen)


@pytest.mark.rfc("RFC 1122 3.2.1.3-2")
def test_foreign_source(host: Host) -> None:
    """RFC 1122 3.2.1.3: the source of what we send MUST be one of our addresses."""
    host.dropped(segment(src=FAR), reasons.SOURCE_NOT_OURS)


@pytest.mark.rfc("RFC 1122 3.2.1.3")
def test_loopback_source_never_leaves(host: Host) -> None:
    """RFC 1122 3.2.1.3 g: 127/8 MUST NOT appear outside a host."""
    host.dropped(segment(src=LOOPBACK), reasons.LOOPBACK_OUTSIDE)


@pytest.mark.rfc("RFC 1122 4.2.3.10")
@pytest.mark.parametrize("dst", [LIMITED, DIRECTED, bytes((224, 0, 0, 1))])
def test_groups_only_on_request(host: Host, dst: bytes) -> None:
    """RFC 1122 4.2.3.10: TCP must not send to a broadcast or multicast address; it hears net unreachable."""
    [(port, error)] = host.dropped(segment(dst=dst), reasons.BROADCAST_REFUSED, silent=False)
    assert port == "tcp" and (error.icmp_type, error.icmp_code) == (icmp.DEST_UNREACH, icmp.NET_UNREACH)
    out = host.sent(segment(dst=dst, flags=BROADCAST))
    assert out.next_hop == dst and out.flags == BROADCAST


@pytest.mark.rfc("RFC 1122 3.3.1.1-2")
def test_no_route() -> None:
    """RFC 1122 3.3.1.1: without a route the transport is told net unreachable, about its own segment."""
    host = Host(gateway="")
    [(port, error)] = host.dropped(segment(dst=FAR), reasons.NO_ROUTE, silent=False)
    assert port == "tcp"
    assert (error.icmp_type, error.icmp_code, error.mtu) == (icmp.DEST_UNREACH, icmp.NET_UNREACH, 0)
    assert (error.reporter, error.src, error.dst, error.proto) == (OWN, OWN, FAR, Proto.TCP)
    assert error.head == TCP_HEAD and error.causes == [99]


def test_no_route_while_the_device_is_down(host: Host) -> None:
    """A device that is down has no routes, as in Linux."""
    host.feed(link_state(up=False))
    host.dropped(segment(), reasons.NO_ROUTE, silent=False)
    host.feed(link_state(up=True))
    host.sent(segment())


@pytest.mark.rfc("RFC 1122 3.3.3-3", "RFC 791 3.1-5", "RFC 792 3-3", "RFC 1191 3-3")
def test_larger_than_the_mtu(host: Host) -> None:
    """RFC 1191 3: with DF it is not sent, and the transport learns the MTU as from a router."""
    assert host.sent(segment(b"x" * 1460))
    [(port, error)] = host.dropped(segment(b"x" * 1461), reasons.EXCEEDS_MTU, silent=False)
    assert port == "tcp"
    assert (error.icmp_type, error.icmp_code, error.mtu) == (icmp.DEST_UNREACH, icmp.FRAG_NEEDED, 1500)


def test_pieces_of_a_super_segment_must_fit(host: Host) -> None:
    """Each piece is headers plus gso_size; that is what the MTU is compared with, not the whole."""
    assert host.sent(segment(RING, gso_size=1460))
    error = host.told(segment(RING, gso_size=1461))
    assert error.icmp_code == icmp.FRAG_NEEDED and error.mtu == 1500


@pytest.mark.rfc("RFC 791 3.1")
def test_no_packet_beyond_65535(host: Host) -> None:
    """RFC 791 3.1: the total length has 16 bits, also for super-segments."""
    most = 65_535 - 40
    assert host.sent(segment(Place("s", 0, 1 << 20, 0, most), gso_size=1448))
    host.dropped(segment(Place("s", 0, 1 << 20, 0, most + 1), gso_size=1448), reasons.DATAGRAM_TOO_LONG)


def test_short_heads_are_told_in_full(host: Host) -> None:
    """An error names at least 8 bytes of the segment, also where they were split over head and payload."""
    host.feed(link_state(up=False))
    error = host.told(segment(TCP_HEAD[3:] + b"hi", head=TCP_HEAD[:3]))
    assert error.head[:8] == TCP_HEAD[:8]


def test_without_link_the_configured_mtu_holds() -> None:
    """ip and link start in any order: until link speaks the device counts as up, with the MTU of [device]."""
    host = Host(device=False, mtu=600)
    assert host.sent(segment(b"x" * 560)).iface == 0
    assert host.told(segment(b"x" * 561)).mtu == 600


@pytest.mark.rfc("RFC 1122 2.3.2.2", "RFC 1122 3.3.1.4-1")
def test_next_hop_does_not_answer(host: Host) -> None:
    """link's report becomes host unreachable, from ourselves, to the transport (RFC 1122 2.3.2.2)."""
    lost = host.sent(segment(b"data" * 5))
    host.now += 3000 * MS
    error = host.told(Unreachable(1, PEER, lost.head, [lost.id]))
    assert (error.icmp_type, error.icmp_code) == (icmp.DEST_UNREACH, icmp.HOST_UNREACH)
    assert (error.reporter, error.src, error.dst, error.proto) == (OWN, OWN, PEER, Proto.TCP)
    assert error.head == TCP_HEAD and error.causes == [lost.id]


@pytest.mark.parametrize("head", [b"", b"\x45", bytes(40), b"\x45" + bytes(26)])
def test_a_report_without_a_packet_in_it(host: Host, head: bytes) -> None:
    """A report that does not start with header and 8 bytes cannot be passed on."""
    host.dropped(Unreachable(1, PEER, head, []), reasons.ICMP_QUOTE)


def test_counters_add_up(host: Host) -> None:
    """Packets and bytes, headers included."""
    host.core.interest = False
    for _ in range(4):
        host.feed(segment(b"x" * 60))
    assert (host.core.counters["out.packets"], host.core.counters["out.bytes"]) == (4, 400)


def test_what_link_has_no_room_for_waits() -> None:
    """`outgoing(room)` gives no more than fits; the rest waits in order, up to the queue's limit, then is dropped."""
    host = Host(queue=5)
    for number in range(7):
        host.core.receive(segment(bytes((number,))), host.now)
    assert host.core.counters[reasons.IP_QUEUE_FULL.counter] == 2
    assert host.flush(link=0, tcp=100) == []
    first = host.flush(link=2, tcp=100)
    rest = host.flush(link=100, tcp=100)
    assert [out.payload for _, out in first + rest] == [bytes((n,)) for n in range(5)]
    for number in range(5):
        host.core.receive(segment(bytes((number,))), host.now)
    assert len(host.flush(link=100, tcp=0)) == 5


def test_what_tcp_has_no_room_for_is_lost(host: Host) -> None:
    """A segment on its way up may lie in the pool, which must not be kept beyond the flush; routes and answers wait."""
    place = Place("pool", 0, 65_536, 54, 9000)
    host.core.receive(link_state(mtu=1400), host.now)
    for _ in range(3):
        host.core.receive(packet(place=place), host.now)
    host.core.events()
    assert host.flush(tcp=0, link=9) == []
    assert host.core.counters[reasons.PIPE_FULL.counter] == 3
    [(port, routes)] = host.flush(tcp=5, link=9)
    assert port == "tcp" and routes.routes
