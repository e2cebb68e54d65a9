"""Paths that take only small packets: told by ICMP (RFC 1191), or by nobody (RFC 4821). Every byte arrives."""

from __future__ import annotations

from typing import Any

import pytest

from levelip.frames.packet import IcmpError, Segment
from tests.netsim.net import MS, SECOND, Impairment, Link
from tests.netsim.tcp_apps import pair, pattern, small_config

IP = 20  # bytes


class NarrowLink(Link):
    """Drops what is larger than `mtu` from instant `since` on; with `tell`, the sender hears of it."""

    mtu = 65_535
    since = 0
    tell: Any = None
    dropped = 0

    def _packet(self, packet: Segment, at: int) -> None:
        size = IP + len(packet.head) + len(packet.payload)
        if size > self.mtu and at >= self.since:
            self.dropped += 1
            if self.tell is not None:
                error = IcmpError(1, [], 3, 4, self.mtu, b"\x0a\0\0\xfe", packet.src, packet.dst, 6, packet.head[:8])
                self.net.later(at + self.how.delay, self.tell, error)
            return
        super()._packet(packet, at)


def narrow(mtu: int, *, tell: bool = False, since: int = 0, size: int = 1_000_000, **how: Any) -> tuple[Any, ...]:
    """`size` bytes from a to b over a link that narrows to `mtu`; 10 ms each way."""
    net, a, b, _to_b, _ = pair(Impairment(delay=10 * MS), seed=5, **how)
    link = NarrowLink(net, b.core.receive, Impairment(delay=10 * MS), 3)
    link.mtu, link.since = mtu, net.now + since
    link.tell = a.core.receive if tell else None
    a.node.wire("tcp", "ip", link.send)
    b.listen(80)
    sock = a.connect(b.address, 80, pattern(7, size), eof=True)
    start = net.now
    assert net.run(lambda: bool(b.accepted) and b.accepted[0].eof, seconds=900), "no end"
    assert bytes(b.accepted[0].received) == sock.to_send
    return net, a, b, link, (net.now - start) / SECOND


@pytest.mark.rfc("RFC 4821 7.7-1", "RFC 4821 7.2-1", "RFC 4821 7.6.1-1", "RFC 4821 7.3-1")
@pytest.mark.parametrize("gso_max", [0, 65_535])
def test_a_black_hole(gso_max: int) -> None:
    """Packets above 1000 bytes vanish. RTO 220 ms (RTT 20): timeouts at 0.2, 0.7, 1.5, 3.3 s after the data; the fourth
    is past R1 (3 s), segments go to 1024 bytes (1076 with headers), too large; the next timeout, at 6.8 s, to 512.
    Probes bring it up to within 8 bytes of 1000."""
    _net, a, _, link, took = narrow(1000, gso_max=gso_max)
    assert a.core.counters["mtu_black_holes"] == 2
    (conn,) = a.core.snapshot()["connections"]
    assert 993 <= conn["mtu"]["low"] <= 1000 <= conn["mtu"]["high"] <= 1007
    assert link.dropped > 0 and a.core.counters["mtu_probes_arrived"] >= 3
    assert took < 10


@pytest.mark.rfc("RFC 4821 7.7")
def test_a_black_hole_that_opens_in_mid_transfer() -> None:
    """After 100 ms the path takes no more than 600 bytes."""
    _, a, _, link, took = narrow(600, since=100 * MS)
    assert link.dropped and a.core.counters["mtu_black_holes"] >= 2 and took < 10


@pytest.mark.rfc("RFC 4821 7.7")
def test_without_probing_it_ends_in_a_timeout() -> None:
    """mtu_probing 0, as Linux by default: nothing large ever arrives, and the connection times out."""
    net, a, b, _to_b, _ = pair(Impairment(delay=10 * MS), seed=5, a=small_config(mtu_probing=0, retries=5))
    link = NarrowLink(net, b.core.receive, Impairment(delay=10 * MS), 3)
    link.mtu = 1000
    a.node.wire("tcp", "ip", link.send)
    b.listen(80)
    sock = a.connect(b.address, 80, pattern(7, 100_000), eof=True)
    net.run(lambda: sock.error is not None, seconds=200)
    assert sock.error is not None


@pytest.mark.rfc("RFC 1191 3-4", "RFC 1191 3-2", "RFC 1191 3-3", "RFC 1191 6.4-1", "RFC 4821 3-1")
@pytest.mark.parametrize("mtu", [1400, 1000, 600])
@pytest.mark.parametrize("gso_max", [0, 65_535])
def test_the_mtu_falls_in_mid_transfer_and_icmp_tells(mtu: int, gso_max: int) -> None:
    """No timeout is needed: what was too large goes again at once, smaller."""
    _, a, _, link, took = narrow(mtu, tell=True, since=100 * MS, gso_max=gso_max)
    assert link.dropped and a.core.counters["path_mtu_lowered"] == 1
    assert not a.core.counters["mtu_black_holes"] and took < 5


@pytest.mark.rfc("RFC 4821 7.3-1", "RFC 4821 7.1-1", "RFC 4821 7.5-1", "RFC 4821 7.6.1-1")
def test_probing_upward_always() -> None:
    """mtu_probing 2: from 1024 up to the 1500 of the link; no probe is lost, no segment sent again."""
    _, a, _, _link, _ = narrow(65_535, a=small_config(mtu_probing=2))
    assert a.core.counters["mtu_probes_arrived"] >= 5 and not a.core.counters["mtu_probes_lost"]
    assert not a.core.counters["retransmissions"]


@pytest.mark.rfc("RFC 4821 7.5", "RFC 4821 4-1", "RFC 4821 7.6.2-3", "RFC 4821 7.6.2-1", "RFC 4821 7.6.2-2")
def test_a_lost_probe_is_no_congestion() -> None:
    """mtu_probing 2 over a path of 1200: probes above are lost, each is repaired by duplicates, cwnd never shrinks."""
    _, a, _, link, took = narrow(1200, a=small_config(mtu_probing=2))
    assert a.core.counters["mtu_probes_lost"] >= 1 and link.dropped == a.core.counters["mtu_probes_lost"]
    assert not a.core.counters["fast_retransmits"] and not a.core.counters["rto_timeouts"]
    assert took < 5
