"""IP options between the transports and the wire: filled in on the way down and on the way up (RFC 1122 3.2.1.8)."""

from __future__ import annotations

from typing import Any

import pytest
from ip_host import OWN, PEER, Host, icmp_packet, packet, segment

from layers.ip.icmp import stack_milliseconds
from levelip.frames.packet import BROADCAST, Segment
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire.checksum import internet_checksum
from levelip.wire.icmp import ECHO_REPLY, IcmpMessage
from levelip.wire.ipv4 import FLAG_MF, Ipv4Header, Proto
from levelip.wire.udp import UdpHeader

ROUTE = bytes.fromhex("01070b04") + bytes(8)
TIMES = bytes.fromhex("440c0500") + bytes(8)
UDP_HEAD = UdpHeader(4000, 4001, 12).serialize()


@pytest.fixture
def host() -> Host:
    return Host(transports={Proto.TCP: "tcp", Proto.UDP: "udp"})


def datagram(options: bytes, **fields: Any) -> Segment:
    made = segment(b"data", head=UDP_HEAD, proto=Proto.UDP, **fields)
    made.options = options
    return made


def up(host: Host, frame: Any) -> Segment:
    """What a transport gets of it."""
    (got,) = [one for _, one in host.feed(frame) if isinstance(one, Segment)]
    return got


@pytest.mark.rfc("RFC 1122 3.2.1.8-1")
@pytest.mark.rfc("RFC 1122 3.2.1.8d-1")
@pytest.mark.rfc("RFC 1122 3.2.1.8e-1")
@pytest.mark.rfc("RFC 1122 3.4-1")
def test_a_transport_has_options_sent(host: Host) -> None:
    """They are in the header, with our address and time as the first entries."""
    header = Ipv4Header.parse(host.sent(datagram(ROUTE + TIMES)).head)
    now = stack_milliseconds(host.now).to_bytes(4, "big")
    assert header.options == bytes.fromhex("01070b08") + OWN + bytes(4) + bytes.fromhex("440c0900") + now + bytes(4)
    assert header.total_length == 20 + 24 + 12


@pytest.mark.rfc("RFC 1122 3.2.1.8-2")
@pytest.mark.rfc("RFC 1122 3.4-3")
def test_a_transport_is_given_those_that_came(host: Host) -> None:
    """All of them, ours being the last entry of a record route; TCP, too."""
    options = bytes.fromhex("01070b08") + PEER + bytes(4)
    for proto in (Proto.UDP, Proto.TCP):
        got = up(host, packet(UDP_HEAD + bytes(12), proto=proto, options=options))
        assert got.options == bytes.fromhex("01070b0c") + PEER + OWN
    assert up(host, packet(UDP_HEAD + b"data", proto=Proto.UDP)).options == b""


def test_to_a_group_we_are_known_by_the_address_we_would_answer_from(host: Host) -> None:
    """A broadcast address is none of ours."""
    limited = packet(UDP_HEAD + b"data", proto=Proto.UDP, dst=b"\xff" * 4, link_flags=BROADCAST, options=ROUTE)
    got = up(host, limited)
    assert got.options == bytes.fromhex("01070b08") + OWN + bytes(4)


def test_an_echo_reply_brings_them_to_its_socket(host: Host) -> None:
    """A ping that no `lvlip ping` waits for."""
    reply = icmp_packet(IcmpMessage(ECHO_REPLY, 0, b"\0\7\0\1", b"x"), options=ROUTE)
    got = up(host, reply)
    assert got.options == bytes.fromhex("01070b08") + OWN + bytes(4)


def test_an_echo_reply_brings_its_socket_the_time_it_came(host: Host) -> None:
    """Ours is the last of a timestamp option, as on the way down (RFC 1122 3.2.1.8 e)."""
    reply = icmp_packet(IcmpMessage(ECHO_REPLY, 0, b"\0\7\0\1", b"x"), options=TIMES)
    now = stack_milliseconds(host.now).to_bytes(4, "big")
    assert up(host, reply).options == bytes.fromhex("440c0900") + now + bytes(4)


def test_of_several_addresses_the_one_that_was_asked_is_recorded() -> None:
    """Not the one that we would send from (RFC 1122 3.2.1.8 d)."""
    host = Host(addresses=["10.0.0.3/24"], transports={Proto.UDP: "udp"})
    other = bytes((10, 0, 0, 3))
    got = up(host, packet(UDP_HEAD + b"data", proto=Proto.UDP, dst=other, options=ROUTE))
    assert got.options == bytes.fromhex("01070b08") + other + bytes(4)


def test_what_came_in_pieces_has_the_options_of_the_first(host: Host) -> None:
    """A record route is in fragment zero alone (RFC 791 3.1), and ours is its last entry as in what came whole."""
    data = UDP_HEAD + b"data" + bytes(4)
    assert host.feed(packet(data[8:], proto=Proto.UDP, ident=5, frag_offset=1)) == []
    got = up(host, packet(data[:8], proto=Proto.UDP, ident=5, flags=FLAG_MF, options=ROUTE))
    assert got.options == bytes.fromhex("01070b08") + OWN + bytes(4)
    host.feed(packet(data[8:], proto=Proto.UDP, ident=6, frag_offset=1))
    assert up(host, packet(data[:8], proto=Proto.UDP, ident=6, flags=FLAG_MF)).options == b""


def test_over_loopback_both_ends_are_recorded(host: Host) -> None:
    """Once as its sender, once as its receiver; what a refusal quotes is the header as it was sent."""
    got = up(host, datagram(ROUTE, dst=OWN))
    assert got.options == bytes.fromhex("01070b0c") + OWN + OWN
    assert Ipv4Header.parse(got.network).options == bytes.fromhex("01070b08") + OWN + bytes(4)


@pytest.mark.parametrize("options", [b"", ROUTE])
def test_what_loops_back_is_as_from_outside(host: Host, options: bytes) -> None:
    """No options where none were sent; the header that a refusal quotes has a right checksum either way."""
    got = up(host, datagram(options, dst=OWN))
    assert len(got.options) == len(options)
    assert internet_checksum(got.network) == 0


def test_the_header_of_what_loops_back(host: Host) -> None:
    """Without options it is made as headers on the wire are, to the byte as Ipv4Header would."""
    got = up(host, datagram(b"", dst=OWN, ttl=9, tos=4))
    made = Ipv4Header.build(OWN, OWN, proto=Proto.UDP, payload_length=12, ttl=9, tos=4)
    assert got.network == made.serialize(fill_checksum=True)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("8307040000000000", reasons.IP_SOURCE_ROUTED),
        ("07ff0400", reasons.IP_OPTION),
        ("440c0300" + "00" * 8, reasons.IP_OPTION),
    ],
)
def test_what_may_not_go_out(host: Host, options: str, reason: Reason) -> None:
    """A source route, or what is malformed, is dropped with its reason though a transport asked for it."""
    host.dropped(datagram(bytes.fromhex(options)), reason)
