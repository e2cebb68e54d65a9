"""What goes down, to the byte: the idents of single packets, super-segments and fragments, what comes straight back,
what waits for room, and what the transports are told of device and routes."""

from __future__ import annotations

from typing import Any

import pytest
from ip_host import LOOPBACK, OWN, PEER, Host, link_state, packet, segment

from layers.ip.config import LOOPBACK_MTU
from layers.ip.messages import ROUTER_ALERT
from layers.ip.sending import send
from levelip.frames.packet import Checksum, Packet, Routes, Segment
from levelip.frames.seam import NeighbourUp
from levelip.tracing import reasons
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import FLAG_MF, IPV4_MAX_TOTAL_LENGTH, Ipv4Header, Proto

ALLOWED = {6: "tcp", 17: "udp"}
RECORD_ROUTE = bytes((7, 7, 4, 0, 0, 0, 0, 0))


def ident_of(out: Packet) -> int:
    return int.from_bytes(out.head[4:6], "big")


def ident_after(host: Host, payload: bytes, gso_size: int) -> int:
    """By how much the ident of the next packet with DF lies beyond that of this one."""
    first, then = host.sent(segment(payload, gso_size=gso_size)), host.sent(segment())
    return (ident_of(then) - ident_of(first)) & 0xFFFF


# idents


@pytest.mark.parametrize(
    ("length", "gso_size", "packets"),
    [(0, 0, 1), (1460, 0, 1), (1460, 1460, 1), (1461, 1460, 2), (4380, 1460, 3), (4381, 1460, 4), (2900, 1448, 3)],
)
def test_a_super_segment_takes_an_ident_for_each_packet_of_it(
    host: Host, length: int, gso_size: int, packets: int
) -> None:
    """Also where its pieces are as long as the MTU to the byte, which most are."""
    assert ident_after(host, bytes(length), gso_size) == packets


@pytest.mark.parametrize(("length", "packets"), [(1000, 1), (1001, 2), (2000, 2), (2001, 3)])
def test_a_super_segment_with_options_takes_as_many(host: Host, length: int, packets: int) -> None:
    """It goes another way through ip."""
    first = host.sent(segment(bytes(length), gso_size=1000, options=RECORD_ROUTE))
    assert (ident_of(host.sent(segment())) - ident_of(first)) & 0xFFFF == packets


def count_up_to(host: Host, ident: int) -> None:
    """Send until the next packet with DF has that ident."""
    missing = (ident - ident_of(host.sent(segment())) - 1) & 0xFFFF
    for part in (missing // 2, missing - missing // 2):
        if part:
            host.sent(segment(bytes(part), gso_size=1))


def test_idents_begin_anew_after_the_last(host: Host) -> None:
    """There are 65,536 of them."""
    count_up_to(host, 0xFFFF)
    assert [ident_of(host.sent(segment())) for _ in range(3)] == [0xFFFF, 0, 1]


def test_reports_of_groups_count_idents_too(host: Host) -> None:
    """They have DF set, and an option."""
    count_up_to(host, 0xFFFF)
    idents = []
    for last in range(2):
        host.core.control(1, "group.join", {"group": f"239.1.2.{last}"}, host.now)
        [report] = [frame for _, frame in host.flush() if isinstance(frame, Packet)]
        idents.append(ident_of(report))
    assert idents == [0xFFFF, 0] and ident_of(host.sent(segment())) == 1


def test_idents_without_df_are_hashed_with_a_secret(host: Host) -> None:
    """Chosen when it is first needed, and once (RFC 6864 4.2; RFC 7739 for the same of IPv6)."""
    secrets = []
    for _ in range(2):
        host.sent(segment(dont_fragment=False))
        secrets.append(host.core.snapshot()["ident_secret"])
    assert len(secrets[0]) == 16 and secrets[0] == secrets[1]


# fragments, options


@pytest.mark.parametrize("proto", [Proto.TCP, Proto.UDP])
def test_fragments_are_checked_as_they_are(proto: int) -> None:
    """No device can fill in a checksum that spans them, and none is asked to; of what fits the device does it."""
    host = Host(transports=ALLOWED)
    head = bytes(20) if proto == Proto.TCP else bytes(8)
    for length in (100, 2000):
        frame = segment(bytes(length), head=head, proto=proto, dont_fragment=False)
        out = [each for _, each in host.feed(frame)]
        assert all(each.flags == 0 and each.iface == 1 for each in out)
        assert {each.checksum for each in out} == {Checksum.PARTIAL if length == 100 else Checksum.NONE}
        if length == 2000:
            data = b"".join(each.head[20:] + each.payload for each in out)
            assert internet_checksum(data, pseudo_header_sum(OWN, PEER, proto, len(data))) == 0


@pytest.mark.parametrize("over", [0, 1])
def test_an_answer_that_its_options_make_too_long_goes_in_fragments(over: int) -> None:
    """The request came in fragments; the recorded route is in the first alone, as it is not to be copied (RFC 791)."""
    host = Host(mtu=576)
    data = IcmpMessage.echo_request(ident=1, sequence=1, payload=bytes(576 - 28 - 8 + over)).serialize(
        fill_checksum=True
    )
    cause: dict[str, Any] = {"proto": Proto.ICMP, "ident": 5}
    host.feed(packet(data[:256], options=RECORD_ROUTE, flags=FLAG_MF, **cause))
    out = [frame for _, frame in host.feed(packet(data[256:], options=RECORD_ROUTE, frag_offset=32, **cause))]
    assert len(out) == 1 + over and all(len(frame.head) + len(frame.payload) <= 576 for frame in out)
    headers = [Ipv4Header.parse(frame.head) for frame in out]
    assert headers[0].options == bytes((7, 7, 8)) + OWN + b"\0" and all(not each.options for each in headers[1:])


def test_the_longest_datagram_counts_its_options(host: Host) -> None:
    """65,535 bytes with them."""
    room = IPV4_MAX_TOTAL_LENGTH - 20 - len(ROUTER_ALERT)
    for length in (room, room + 1):
        frame = segment(bytes(length), head=b"", proto=17, checksum=Checksum.NONE, dont_fragment=False)
        send(host.core._ctx, frame, host.now, ROUTER_ALERT)
        sent = bool(host.flush())
        assert sent == (length == room)
    assert host.core.counters["drop.datagram_too_long"] == 1


# room


def test_each_process_has_room_of_its_own(host: Host) -> None:
    """Two of three segments fit, and the third is lost; for link nobody sets a limit."""
    for _ in range(3):
        host.core.receive(packet(), host.now)
        host.core.receive(segment(), host.now)
    out = host.flush(tcp=2)
    assert [port for port, _ in out].count("tcp") == 2 and [port for port, _ in out].count("link") == 3
    assert host.core.counters["drop.pipe_full"] == 1


# loopback


def test_what_comes_straight_back_is_as_if_from_outside() -> None:
    """With a header that an error can quote, for those that send such; no device, and nothing of the link."""
    host = Host(transports=ALLOWED, ttl=9)
    tcp = host.delivered(segment(dst=LOOPBACK, src=LOOPBACK))
    assert (tcp.network, tcp.iface, tcp.flags) == (b"", 0, 0)
    [(_, udp)] = host.feed(segment(b"data", head=bytes(8), dst=LOOPBACK, src=LOOPBACK, proto=17, tos=0x20))
    assert (udp.iface, udp.flags, udp.ttl) == (0, 0, 9)
    header = Ipv4Header.parse(udp.network)
    assert (header.ttl, header.dscp << 2 | header.ecn, header.total_length) == (9, 0x20, 32)
    assert header.serialize(fill_checksum=True) == udp.network


def test_an_echo_to_ourselves_has_tos_and_ttl() -> None:
    """A socket of udp asks, with a TOS, which the answer has too (RFC 1122 3.2.2.6); the TTL is that of ip.ttl."""
    host = Host(transports=ALLOWED, ttl=9)
    request = IcmpMessage.echo_request(ident=1, sequence=2, payload=b"data").serialize(fill_checksum=True)
    frame = segment(src=LOOPBACK, dst=LOOPBACK, head=request, proto=Proto.ICMP, tos=0x20, checksum=Checksum.NONE)
    [(port, reply)] = host.feed(frame)
    assert port == "udp" and isinstance(reply, Segment)
    assert (reply.tos, reply.ttl, reply.src, reply.dst) == (0x20, 9, LOOPBACK, LOOPBACK)
    assert IcmpMessage.parse(reply.head + reply.payload).payload == b"data"


# before a device is known, and after


def test_without_a_device_packets_name_none(host: Host) -> None:
    """They wait for link, which alone knows its device."""
    for known in (False, True):
        if known:
            host = Host()
            host.feed(link_state(iface=7))
        else:
            host = Host(device=False)
        for dont_fragment in (False, True):
            assert host.sent(segment(dont_fragment=dont_fragment)).iface == (7 if known else 0)


def told(host: Host) -> Routes:
    """What a transport that comes up is told."""
    [(_, routes)] = host.feed(NeighbourUp("tcp", 9))
    assert isinstance(routes, Routes)
    return routes


@pytest.mark.parametrize("known", [False, True])
def test_the_interfaces_that_programs_see(known: bool) -> None:
    """The device, if there is one; lo, up and without a hardware address, by an index of its own."""
    host = Host(address="10.0.0.2/31", gateway="10.0.0.3", routes=["unreachable 10.9.0.0/16"], device=False)
    if known:
        host.feed(link_state(iface=7))
    routes = told(host)
    lo, devices = routes.interfaces[-1], routes.interfaces[:-1]
    assert (lo.index, lo.name, lo.up, lo.mtu, lo.mac) == (8 if known else 1, "lo", True, LOOPBACK_MTU, bytes(6))
    assert [device.index for device in devices] == [7] * known
    assert [[each.broadcast for each in device.addresses] for device in devices] == [[b""]] * known
    ways = {way.kind: way.iface for way in routes.ways}
    device = 7 if known else 0
    assert ways == {"local": lo.index, "broadcast": device, "unicast": device, "unreachable": 0}


def test_a_route_may_refuse_all_groups() -> None:
    """A route of just 224.0.0.0/4 goes before the rule that groups need none; what is a group is told all the same."""
    host = Host(routes=["unreachable 224.0.0.0/4", "prohibit 192.0.2.0/24"])
    host.dropped(segment(dst=bytes((239, 1, 1, 1))), reasons.ROUTE_UNREACHABLE, silent=False)
    for dst, group in (("239.1.1.1", True), ("10.0.0.2", False), ("192.0.2.7", False)):
        assert host.core.control(1, "route.get", {"dst": dst}, host.now)["group"] is group
