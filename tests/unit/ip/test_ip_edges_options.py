"""Options of the IP header where only one more of them tells things apart: none at all, in pieces to a group, over
loopback with their length and the time."""

from __future__ import annotations

from typing import Any

import pytest
from ip_host import OWN, Host, icmp_packet, packet, segment

from layers.ip.config import LOOPBACK_MTU
from layers.ip.icmp import stack_milliseconds
from levelip.frames.packet import BROADCAST, Segment
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire.icmp import ECHO_REPLY, IcmpMessage
from levelip.wire.ipv4 import FLAG_MF, Proto
from levelip.wire.udp import UdpHeader

ROUTE = bytes.fromhex("01070b04") + bytes(8)
TIMES = bytes.fromhex("440c0500") + bytes(8)
UDP_HEAD = UdpHeader(4000, 4001, 16).serialize()


@pytest.fixture
def host() -> Host:
    return Host(transports={Proto.TCP: "tcp", Proto.UDP: "udp"})


def up(host: Host, frame: Any) -> Segment:
    """What a transport gets of it."""
    (got,) = [one for _, one in host.feed(frame) if isinstance(one, Segment)]
    return got


def test_an_echo_reply_without_options_brings_none(host: Host) -> None:
    """To a socket, as `lvlip ping` does not wait for it."""
    assert up(host, icmp_packet(IcmpMessage(ECHO_REPLY, 0, b"\0\7\0\1", b"x"))).options == b""


def test_in_pieces_to_a_group_we_are_known_by_the_address_we_would_answer_from(host: Host) -> None:
    """As in what came whole: a broadcast address is none of ours (RFC 1122 3.2.1.8d)."""
    known: dict[str, Any] = {"proto": Proto.UDP, "dst": b"\xff" * 4, "link_flags": BROADCAST, "ident": 5}
    host.feed(packet(b"datadata", frag_offset=1, **known))
    got = up(host, packet(UDP_HEAD, flags=FLAG_MF, options=ROUTE, **known))
    assert got.options == bytes.fromhex("01070b08") + OWN + bytes(4)


def test_over_loopback_both_ends_write_the_time(host: Host) -> None:
    """Once as its sender, once as its receiver (RFC 1122 3.2.1.8e)."""
    got = up(host, segment(b"datadata", head=UDP_HEAD, proto=Proto.UDP, dst=OWN, options=TIMES))
    now = stack_milliseconds(host.now).to_bytes(4, "big")
    assert got.options == bytes.fromhex("440c0d00") + now + now


@pytest.mark.parametrize("over", [0, 1])
def test_options_count_in_what_loops_back(host: Host, over: int) -> None:
    """In its bytes, and against the largest packet that there is."""
    room = LOOPBACK_MTU - 20 - len(ROUTE) - len(UDP_HEAD)
    place = Place("s", 0, 1 << 20, 0, room + over)
    frame = segment(place, head=UDP_HEAD, proto=Proto.UDP, dst=OWN, options=ROUTE)
    if over:
        host.dropped(frame, reasons.DATAGRAM_TOO_LONG)
    else:
        up(host, frame)
        assert host.core.counters["loopback.bytes"] == LOOPBACK_MTU
