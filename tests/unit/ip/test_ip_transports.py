"""What udp says to ip besides datagrams: nobody takes one; the groups that its sockets are in."""

from __future__ import annotations

import pytest
from ip_host import DIRECTED, OWN, PEER, Host, icmp_packet, packet, quote_of, segment

from layers.ip.membership import GROUPS_LIMIT
from levelip.frames.packet import BROADCAST, Groups, IcmpError, Local, Packet, Refused, Segment
from levelip.frames.seam import NeighbourDown
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header, Proto

GROUP, OTHER = bytes((239, 1, 2, 3)), bytes((239, 1, 2, 4))
DATA = bytes.fromhex("0fa00035000d0000") + b"hello"


@pytest.fixture
def host() -> Host:
    return Host(transports={6: "tcp", 17: "udp"})


def up(host: Host, frame: Packet) -> Segment:
    [(port, out)] = host.feed(frame)
    assert port == "udp" and isinstance(out, Segment)
    return out


def test_a_datagram_goes_up_with_the_header_that_it_came_with(host: Host) -> None:
    """Options and ident too, so that a refusal can quote it; TCP's needs none, as it answers with RST."""
    out = up(host, packet(DATA, proto=Proto.UDP, ident=4711, options=bytes.fromhex("94040000")))
    header = Ipv4Header.parse(out.network)
    assert (header.ident, header.options, header.src) == (4711, bytes.fromhex("94040000"), PEER)
    assert host.delivered(packet()).network == b""


@pytest.mark.rfc("RFC 1122 4.1.3.1-1", "RFC 792 3-2", "RFC 1122 3.4-4")
def test_refused_it_is_quoted_as_it_came(host: Host) -> None:
    """Port unreachable with the original header, ident and all, and the datagram behind it."""
    came = packet(DATA, proto=Proto.UDP, ident=4711)
    out = up(host, came)
    header, message = host.replied(Refused(out.id, 3, 3, out.network, DATA, out.flags))
    assert (header.src, header.dst) == (OWN, PEER)
    assert (message.type, message.code) == (icmp.DEST_UNREACH, icmp.PORT_UNREACH)
    assert message.payload == came.head + came.payload  # type: ignore[operator]


def test_of_fragments_the_whole_is_quoted(host: Host) -> None:
    """As if it had come in one piece."""
    first = packet(bytes(DATA[:8]), proto=Proto.UDP, ident=9, flags=1)
    host.feed(first)
    out = up(host, packet(DATA[8:], proto=Proto.UDP, ident=9, frag_offset=1))
    _, message = host.replied(Refused(out.id, 3, 3, out.network, DATA, out.flags))
    assert message.payload[20:] == DATA
    assert Ipv4Header.parse(message.payload).total_length == 20 + len(DATA)


@pytest.mark.rfc("RFC 1122 3.2.2-5")
def test_never_about_a_broadcast(host: Host) -> None:
    """Neither by its address nor by its frame."""
    quiet = quote_of(proto=Proto.UDP, src=PEER, dst=DIRECTED, body=DATA)[:20]
    host.dropped(Refused(5, 3, 3, quiet, DATA, BROADCAST), reasons.ICMP_NOT_ALLOWED)
    host.dropped(Refused(5, 3, 3, b"E", DATA), reasons.ICMP_QUOTE)


@pytest.mark.parametrize(("src", "dst"), [(OWN, OWN), (bytes((127, 0, 0, 1)), bytes((127, 0, 0, 1)))])
def test_refused_by_ourselves_our_own_socket_is_told(host: Host, src: bytes, dst: bytes) -> None:
    """A datagram to a port of our own where nobody receives: the error goes straight to udp, also from 127.0.0.1,
    whence none may go out (RFC 1122 3.2.2), and beside the limits, as by Linux's lo."""
    for _ in range(100):
        [(port, out)] = host.feed(segment(src=src, dst=dst, proto=Proto.UDP, head=DATA))
        assert port == "udp" and isinstance(out, Segment)
        [(port, error)] = host.feed(Refused(out.id, 3, 3, out.network, DATA))
        assert port == "udp" and isinstance(error, IcmpError)
        assert (error.src, error.dst, error.reporter, error.head[:8]) == (src, dst, dst, DATA[:8])
    assert host.core.counters["icmp.out"] == 0


def test_an_error_about_a_datagram_goes_to_udp(host: Host) -> None:
    """By the protocol that it quotes."""
    message = IcmpMessage.dest_unreachable(icmp.PORT_UNREACH, quote_of(proto=Proto.UDP, dst=PEER, body=DATA))
    [(port, out)] = host.feed(icmp_packet(message))
    assert port == "udp" and isinstance(out, IcmpError) and out.head == DATA


def test_groups_are_joined_and_left_as_udp_says(host: Host) -> None:
    """link hears of them, IGMP speaks; what others joined stays; the same once more says nothing."""
    host.core.control(1, "group.join", {"group": "239.1.2.4"}, host.now)
    host.flush()
    out = host.feed(Groups([GROUP, OTHER]))
    assert next(one for _, one in out if isinstance(one, Local)).groups[-2:] == [GROUP, OTHER]
    assert host.feed(Groups([GROUP, OTHER])) == []
    out = host.feed(Groups([]))
    assert OTHER in next(one for _, one in out if isinstance(one, Local)).groups
    assert GROUP not in host.core._ctx.members.accepted


def test_a_udp_that_is_gone_is_in_no_group(host: Host) -> None:
    """Its sockets are gone with it."""
    host.feed(Groups([GROUP]))
    host.feed(NeighbourDown("tcp"))
    assert GROUP in host.core._ctx.members.accepted
    host.feed(NeighbourDown("udp"))
    assert GROUP not in host.core._ctx.members.accepted


def test_too_many_groups(host: Host) -> None:
    """Beyond the limit they are counted, and the others stand."""
    many = [bytes((239, 9, number >> 8, number & 255)) for number in range(GROUPS_LIMIT + 2)]
    host.feed(Groups(many))
    assert host.core.counters[reasons.TOO_MANY_GROUPS.counter] == 2
    assert many[0] in host.core._ctx.members.accepted


def test_without_a_udp_process_the_protocol_is_unreachable() -> None:
    """RFC 1122 3.2.2.1, as for any protocol that nobody speaks."""
    _, message = Host().replied(packet(DATA, proto=Proto.UDP))
    assert (message.type, message.code) == (icmp.DEST_UNREACH, icmp.PROT_UNREACH)


def test_looped_back_to_udp(host: Host) -> None:
    """A datagram to ourselves comes straight back."""
    out = segment(b"", head=DATA, dst=OWN, proto=Proto.UDP)
    [(port, back)] = host.feed(out)
    assert port == "udp" and back.head == DATA
