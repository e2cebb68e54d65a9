"""127.0.0.0/8 and our own addresses loop back inside the ip core; link never sees such a packet."""

from __future__ import annotations

import pytest
from ip_host import EPOCH, LOOPBACK, OWN, TCP_HEAD, Host, link_state, segment

from levelip.frames.packet import Checksum, Process
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire.ipv4 import Proto

RING = Place("session", 0, 1 << 20, 5000, 60_000)


@pytest.mark.rfc("RFC 1122 3.2.1.3")
@pytest.mark.parametrize("dst", [LOOPBACK, bytes((127, 200, 3, 4)), OWN])
@pytest.mark.parametrize("src", [LOOPBACK, OWN])
def test_comes_straight_back(host: Host, src: bytes, dst: bytes) -> None:
    """RFC 1122 3.2.1.3 g: the segment arrives as from outside, its payload untouched, its checksum vouched for."""
    back = host.delivered(segment(RING, src=src, dst=dst, gso_size=1448, tos=0x10))
    assert (back.src, back.dst, back.proto, back.tos, back.ttl) == (src, dst, Proto.TCP, 0x10, 64)
    assert (back.head, back.payload, back.gso_size) == (TCP_HEAD, RING, 1448)
    assert back.checksum == Checksum.VERIFIED
    assert back.causes == [99] and back.traced and back.ingress == 555
    assert back.id >> 60 == Process.IP and back.id >> 40 & 0xFFFFF == EPOCH


def test_a_real_checksum_stays_to_be_verified(host: Host) -> None:
    """Only PARTIAL, which nobody could have damaged, is vouched for."""
    assert host.delivered(segment(b"x", dst=OWN, checksum=Checksum.UNVERIFIED)).checksum == Checksum.UNVERIFIED


def test_source_chosen(host: Host) -> None:
    """An empty source is 127.0.0.1 for 127/8 and our address for our address, as in Linux."""
    assert host.delivered(segment(src=b"", dst=bytes((127, 0, 0, 9)))).src == LOOPBACK
    assert host.delivered(segment(src=b"", dst=OWN)).src == OWN


def test_any_loopback_address_may_be_a_source(host: Host) -> None:
    """Who bound 127.0.0.5 sends from it."""
    five = bytes((127, 0, 0, 5))
    assert host.delivered(segment(src=five, dst=LOOPBACK)).src == five


def test_foreign_source_does_not_loop(host: Host) -> None:
    """A source that is not ours is refused here too."""
    host.dropped(segment(src=bytes((10, 0, 0, 9)), dst=LOOPBACK), reasons.SOURCE_NOT_OURS)


def test_works_without_a_device() -> None:
    """Loopback needs no link, and a device that is down does not matter."""
    host = Host(device=False)
    assert host.delivered(segment(dst=LOOPBACK, src=LOOPBACK))
    host.feed(link_state(up=False))
    assert host.delivered(segment(dst=OWN))


def test_up_to_65535_bytes(host: Host) -> None:
    """The MTU of loopback is the largest IPv4 packet."""
    most = 65_535 - 40
    assert host.delivered(segment(Place("s", 0, 1 << 20, 0, most), dst=OWN))
    host.dropped(segment(Place("s", 0, 1 << 20, 0, most + 1), dst=OWN), reasons.DATAGRAM_TOO_LONG)


def test_protocol_that_nobody_speaks(host: Host) -> None:
    """It is dropped with a reason; there is nobody to report to."""
    host.dropped(segment(dst=OWN, proto=132), reasons.NO_PROTOCOL)


def test_counted_apart(host: Host) -> None:
    """Loopback does not count as traffic of the link."""
    host.feed(segment(b"x" * 60, dst=OWN))
    assert host.core.counters["loopback.packets"] == 1
    assert host.core.counters["loopback.bytes"] == 100
    assert host.core.counters.get("out.packets", 0) == 0
