"""Downward: packets without DF that are larger than the path's MTU are cut (RFC 791 3.2)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ip_host import OWN, PEER, Host, packet, segment

from layers.ip.fragments import copied_options
from layers.ip.header import Idents
from levelip.frames.packet import Checksum, Packet
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, Ipv4Header, Proto

UDP_HEAD = bytes.fromhex("1388 1389 0000 0000".replace(" ", ""))
RING = Place("session", 0, 1 << 20, 5000, 4000)


def fragments(host: Host, frame: object) -> list[tuple[Ipv4Header, Packet]]:
    """All that goes to link, each with a right header."""
    out = []
    for port, frame_out in host.feed(frame):
        assert port == "link" and isinstance(frame_out, Packet)
        header = Ipv4Header.parse(frame_out.head)
        assert header.serialize(fill_checksum=True) == frame_out.head[: header.length]
        assert header.total_length == len(frame_out.head) + len(frame_out.payload)
        out.append((header, frame_out))
    return out


def udp(payload: bytes | Place, **fields: object) -> object:
    return segment(payload, **{"head": UDP_HEAD, "proto": Proto.UDP, "dont_fragment": False, "checksum": 0, **fields})  # type: ignore[arg-type]


@pytest.mark.rfc("RFC 791 3.2-3", "RFC 1122 3.3.3-2")
def test_cut_at_the_mtu(host: Host) -> None:
    """3,008 bytes at an MTU of 1500: 1480, 1480 and 48 behind headers that are alike but for offset, length and MF."""
    got = fragments(host, udp(random.Random(1).randbytes(3000), tos=0x2E, ttl=7))
    assert [(h.frag_offset * 8, h.total_length, h.flags) for h, _ in got] == [
        (0, 1500, FLAG_MF), (1480, 1500, FLAG_MF), (2960, 68, 0),
    ]  # fmt: skip
    assert len({(h.ident, h.tos, h.ttl, h.proto, h.src, h.dst) for h, _ in got}) == 1
    assert (got[0][0].tos, got[0][0].ttl) == (0x2E, 7)
    for _, out in got:
        assert (out.causes, out.traced, out.ingress, out.next_hop, out.checksum) == (
            [99],
            True,
            555,
            PEER,
            Checksum.NONE,
        )
    assert host.core.counters["fragment.datagrams_cut"] == 1 and host.core.counters["fragment.sent"] == 3


@pytest.mark.rfc("RFC 791 3.2-1", "RFC 791 3.2-8")
@settings(max_examples=200, deadline=None)
@given(size=st.integers(0, 5000), mtu=st.integers(68, 1500), head=st.integers(8, 60))
def test_what_is_cut_is_reassembled(size: int, mtu: int, head: int) -> None:
    """For any size, MTU and place where head and payload part, another host gets the datagram; none exceeds the MTU."""
    data = random.Random(size).randbytes(head + size)
    sender, receiver = Host(mtu=mtu), Host(address="10.0.0.1/24", gateway="", transports={17: "udp"})
    got = fragments(sender, udp(data[head:], head=data[:head]))
    assert all(h.total_length <= mtu for h, _ in got)
    assert all((h.total_length - 20) % 8 == 0 for h, _ in got[:-1])
    assert len(got) == 1 or len(got) == -(-len(data) // ((mtu - 20) & ~7))
    out = []
    for _, frame in got:
        out = receiver.feed(Packet(1, [], False, 0, 1, frame.head, frame.payload, 3, 0))
    [(_, whole)] = out
    assert whole.head + whole.payload == data


@pytest.mark.rfc("RFC 791 3.2")
def test_payload_in_shared_memory_is_cut_and_not_read(host: Host) -> None:
    """Pieces of a Place are Places: bytes 0 to 1472 of the ring beside 8 bytes of header, then 1480, then the rest."""
    got = [out for _, out in fragments(host, udp(RING))]
    assert [out.payload for out in got] == [RING.slice(0, 1472), RING.slice(1472, 2952), RING.slice(2952, 4000)]
    assert [out.head[20:] for out in got] == [UDP_HEAD, b"", b""]


@pytest.mark.rfc("RFC 791 3.2", "RFC 6864 5.2-1")
@pytest.mark.parametrize(("proto", "at"), [(Proto.UDP, 6), (Proto.TCP, 16)])
def test_a_checksum_is_completed_before_the_cut(host: Host, proto: int, at: int) -> None:
    """No device can complete the checksum of a fragment, so it is done here where the bytes are at hand."""
    head = bytes(range(20))
    data = random.Random(2).randbytes(3000)
    frame = udp(data, head=head, proto=proto, checksum=Checksum.PARTIAL)
    sent = b"".join(out.head[20:] + out.payload for _, out in fragments(host, frame))  # type: ignore[operator]
    assert internet_checksum(sent, pseudo_header_sum(OWN, PEER, proto, len(sent))) == 0
    assert sent[:at] + sent[at + 2 :] == (head + data)[:at] + (head + data)[at + 2 :]


@pytest.mark.rfc("RFC 768 checksum-1")
def test_a_sum_of_zero_is_sent_as_ones() -> None:
    """RFC 768: a UDP checksum that comes to 0 is sent as all ones."""
    host = Host(mtu=68)
    known = pseudo_header_sum(OWN, PEER, Proto.UDP, 208)
    rest = (65535 - internet_checksum(b"", 0) + 65535 - known % 65535) % 65535
    payload = rest.to_bytes(2, "big") + bytes(198)
    frame = udp(payload, head=bytes(8), checksum=Checksum.PARTIAL)
    first = fragments(host, frame)[0][1]
    value = first.head[26:28]
    total = bytes(8) + payload
    expected = internet_checksum(total, known)
    assert value == (expected or 0xFFFF).to_bytes(2, "big") and expected == 0


def test_a_checksum_that_nobody_can_complete(host: Host) -> None:
    """A payload out of reach with an open checksum is refused, and its sender told the MTU: it has to make it fit."""
    frame = segment(RING, dont_fragment=False, checksum=Checksum.PARTIAL)
    [(port, error)] = host.dropped(frame, reasons.NEEDS_CHECKSUM, silent=False)
    assert port == "tcp" and (error.icmp_code, error.mtu) == (icmp.FRAG_NEEDED, 1500)


@pytest.mark.rfc("RFC 1191 3")
def test_super_segments_are_never_fragmented(host: Host) -> None:
    """TSO frames are cut by the device into segments; where those do not fit, the sender is told, DF or not."""
    frame = segment(RING, gso_size=1461, dont_fragment=False)
    [(_, error)] = host.dropped(frame, reasons.EXCEEDS_MTU, silent=False)
    assert error.mtu == 1500
    [(header, out)] = fragments(host, segment(RING, gso_size=1460, dont_fragment=False))
    assert out.payload == RING and header.flags == 0


def test_all_or_none() -> None:
    """Where the queue has no room for all fragments none is sent: a part would be of no use. An empty one takes any."""
    host = Host(queue=4)
    host.core.receive(segment(b"x"), host.now)
    host.core.receive(segment(b"x"), host.now)
    host.core.receive(udp(bytes(3000)), host.now)
    assert host.core.counters[reasons.IP_QUEUE_FULL.counter] == 1
    assert len(host.flush()) == 2
    assert len(fragments(host, udp(bytes(9000)))) == 7


@pytest.mark.rfc("RFC 6864 4.1", "RFC 791 3.2-7", "RFC 6864 4.3-1")
def test_idents() -> None:
    """RFC 6864 4.2: the 65,536 idents to one host for one protocol come in turn; other hosts' do not use them up."""
    idents = Idents(b"secret")
    other = [idents.take(OWN, bytes((10, 0, 1, i)), Proto.UDP) for i in range(250)]
    mine = [idents.take(OWN, PEER, Proto.UDP) for _ in range(65_536)]
    assert len(set(mine)) == 65_536
    assert len(set(other)) > 200  # they start anywhere
    assert Idents(b"secret").take(OWN, PEER, Proto.UDP) == Idents(b"secret").take(OWN, PEER, Proto.UDP)
    assert Idents(b"other").take(OWN, PEER, Proto.UDP) != Idents(b"secret").take(OWN, PEER, Proto.UDP)


@pytest.mark.rfc("RFC 6864 4.3-1")
def test_packets_with_df_use_up_no_ident_of_others(host: Host) -> None:
    """However many atomic packets go out between them, datagrams without DF are numbered one by one."""
    [(first, _)] = fragments(host, udp(b"x"))
    for _ in range(100):
        host.feed(segment(b"x"))
    [(second, _)] = fragments(host, udp(b"x"))
    assert second.ident == (first.ident + 1) & 0xFFFF and first.flags == 0


@pytest.mark.rfc("RFC 791 3.1", "RFC 791 3.2-2")
def test_options_in_fragments() -> None:
    """RFC 791 3.1: fragment zero has all options, the others those with the copied bit."""
    assert copied_options(bytes((7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 0))) == bytes((148, 4, 0, 0))
    assert copied_options(bytes((1, 1, 0, 0))) == b"" and copied_options(b"") == b""
    assert copied_options(bytes((130, 3, 9, 0))) == bytes((130, 3, 9, 0))
    host = Host(mtu=576)
    request = IcmpMessage.echo_request(ident=1, sequence=1, payload=bytes(1000))
    route = bytes((7, 11, 4)) + bytes(9)
    data = request.serialize(fill_checksum=True)
    got = fragments(host, packet(data, proto=Proto.ICMP, options=route))
    # 576 - 32 = 544 bytes in the first, 1008 - 544 = 464 in the second, which has no options
    assert [(h.length, h.total_length, h.frag_offset * 8) for h, _ in got] == [(32, 576, 0), (20, 484, 544)]
    assert got[0][0].options[:7] == bytes((7, 11, 8)) + OWN


@pytest.mark.rfc("RFC 1191 3", "RFC 791 3.1-5", "RFC 1122 3.3.3-1", "RFC 1122 3.3.3-3")
def test_with_df_it_is_told(host: Host) -> None:
    """With DF nothing is cut: the sender learns the MTU at once (EMSGSIZE)."""
    [(_, error)] = host.dropped(segment(b"x" * 1461), reasons.EXCEEDS_MTU, silent=False)
    assert error.mtu == 1500
    out = host.sent(segment(b"x" * 1460))
    assert Ipv4Header.parse(out.head).flags == FLAG_DF


def test_pings_larger_than_the_mtu(host: Host) -> None:
    """`lvlip ping -s 20000`: fragments; with -M do an error."""
    host.ping(size=20_000)
    assert len(host.flush()) == 14  # 20,008 bytes in pieces of 1480
    assert host.ping(size=1473, dont_fragment=True)["error"] == "message too long, mtu: 1500"
