"""The search for the path's MTU (RFC 4821), step by step; whole transfers over narrow paths are in tests/netsim.

mtu_probing 2: segments of base_mss (1024) bytes; packets of 1076 (low) pass, 1500 (high) may; a probe is a packet of
(1076 + 1500) / 2 = 1288, which holds 1236 bytes. It wants 1236 + 4 x 1024 = 5332 bytes to send.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import PEER_PORT, THEIRS, Got, Host, far

from layers.tcp.recovery.state import CaState
from levelip.frames.seam import Connect, Connected

ISN = dict[str, Any]
WRAP = pytest.mark.parametrize("isn", [{}, {"isn": 2**32 - 3}])
BASE, PROBE = 1024, 1236


def probing(**how: Any) -> Host:
    return far(mtu_probing=2, **{"initial_window": 20, **how})


def sent(c: Host) -> list[Got]:
    got = [Got(c, segment) for segment in c.segments]
    c.segments.clear()
    return got


def sizes(c: Host) -> list[int]:
    return [got.len for got in sent(c)]


def search(c: Host) -> dict[str, Any]:
    return dict(c.tcb()["mtu"])


def flight(c: Host) -> list[Got]:
    """A probe and what follows it are out; a round trip passes."""
    c.write(bytes(20_000))
    got = sent(c)
    assert [segment.len for segment in got].count(PROBE) == 1
    c.advance(100)
    return got


@WRAP
@pytest.mark.rfc("RFC 4821 7.4-1", "RFC 4821 7.5-1")
def test_a_probe_goes_where_there_is_enough_behind_it(isn: ISN) -> None:
    """One, of the data itself; none with 5,331 bytes to send."""
    c = probing(**isn)
    c.write(bytes(5331))
    assert sizes(c)[:5] == [BASE] * 5 and c.core.counters["mtu_probes"] == 0
    c = probing(**isn)
    c.write(bytes(15_000))
    out = sizes(c)
    assert (out.count(PROBE), max(size for size in out if size != PROBE)) == (1, BASE)
    assert c.core.counters["mtu_probes"] == 1


def test_the_search_begins_at_base_mss_whatever_the_headers() -> None:
    """IP options make the packet larger, not the segment smaller (RFC 4821 4): 1024 bytes of data, 12 of timestamps, 40
    of headers, 12 of options."""
    c = Host(mtu_probing=2)
    c.sock = 60
    c.call(Connect(60, "", THEIRS, PEER_PORT, {}, bytes.fromhex("070b0400000000000000") + bytes(2)))
    c.learn_port()
    c.inject("SA", seq=0, ack=1)
    c.agreed_ts = True
    assert search(c)["low"] == BASE + 12 + 40 + 12
    c.rings = c.find_message(Connected).rings
    c.quiet()
    c.write(bytes(2 * BASE))
    assert sizes(c) == [BASE, BASE]


@pytest.mark.rfc("RFC 4821 7.4-1")
def test_no_probe_that_the_peers_window_could_not_follow_up() -> None:
    """41 x 128 = 5,248 bytes of window."""
    c = probing()
    c.inject("A", seq=1, ack=1, win=41)
    c.write(bytes(15_000))
    assert PROBE not in sizes(c)


@pytest.mark.rfc("RFC 4821 7.4-1")
def test_no_probe_with_a_small_congestion_window() -> None:
    """7 x 1448 are less than the eleven segments of 1024 that it wants (Linux tcp_mtu_probe)."""
    c = probing(initial_window=7)
    c.write(bytes(15_000))
    assert PROBE not in sizes(c)


@WRAP
@pytest.mark.rfc("RFC 4821 7.4-1")
def test_no_probe_in_recovery(isn: ISN) -> None:
    """A hole is being repaired: what is new goes in segments as before."""
    c = probing(**isn)
    c.write(bytes(5 * BASE))
    c.quiet()
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + BASE, 1 + 5 * BASE)])
    assert c.tcb()["recovery"]["state"] == CaState.RECOVERY
    c.write(bytes(20_000))
    assert PROBE not in sizes(c) and c.core.counters["mtu_probes"] == 0


@WRAP
@pytest.mark.rfc("RFC 4821 7.6.1-1")
def test_a_probe_that_arrives_raises_the_size(isn: ISN) -> None:
    """low is 1288 and segments have 1236 bytes from then on; the next probe lies half way to 1500."""
    c = probing(**isn)
    last = flight(c)[-1]
    c.inject("A", seq=1, ack=last.seq + last.len)
    c.write(bytes(20_000))
    out = sizes(c)
    assert search(c)["low"] == 1288 and out.count((1288 + 1500) // 2 - 52) == 1 and out.count(PROBE) == len(out) - 2


@WRAP
@pytest.mark.rfc("RFC 4821 7.6.2-1", "RFC 4821 7.6.2-2", "RFC 4821 7.6.2-3", "RFC 4821 4-1")
def test_a_probe_lost_alone_lowers_what_may_pass(isn: ISN) -> None:
    """All behind it is named: high is 1287, it goes again in two pieces, cwnd and ssthresh stay."""
    c = probing(**isn)
    got = flight(c)
    probe = next(segment for segment in got if segment.len == PROBE)
    assert probe.seq == 1
    before = c.tcb()["congestion"]
    c.inject("A", seq=1, ack=1, sack=[(1 + PROBE, got[-1].seq + got[-1].len)])
    again = sent(c)
    assert [(segment.seq, segment.len) for segment in again[:2]] == [(1, BASE), (1 + BASE, PROBE - BASE)]
    assert search(c)["high"] == 1287
    after = c.tcb()["congestion"]
    assert (after["cwnd"] >= before["cwnd"], after["ssthresh"]) == (True, before["ssthresh"])


@WRAP
@pytest.mark.rfc("RFC 4821 7.6.4-1")
def test_another_loss_beside_the_probe_is_a_loss(isn: ISN) -> None:
    """The segment behind it is missing too: ssthresh comes down."""
    c = probing(**isn)
    got = flight(c)
    before = c.tcb()["congestion"]["ssthresh"]
    end = got[-1].seq + got[-1].len
    c.inject("A", seq=1, ack=1, sack=[(1 + PROBE + BASE, end)])
    assert c.tcb()["congestion"]["ssthresh"] < before and c.core.counters["fast_retransmits"] == 1
    assert search(c)["high"] == 1500


@WRAP
@pytest.mark.rfc("RFC 4821 7.6.3-1")
def test_a_timeout_says_nothing_of_the_probe(isn: ISN) -> None:
    """Nothing came back at all: high stays, and the probe is no longer waited for."""
    c = probing(**isn)
    flight(c)
    c.advance(600)
    assert c.core.counters["rto_timeouts"] >= 1
    assert (search(c)["high"], search(c)["probe_end"]) == (1500, -1)


@WRAP
@pytest.mark.rfc("RFC 4821 7.3-2")
def test_the_search_begins_anew_after_ten_minutes(isn: ISN) -> None:
    """It ended at 1287, within 300 bytes (probe_threshold here) of what passes. 600 s later (probe_interval_s) the path
    may be another: 1500 is tried again."""
    c = probing(probe_threshold=300, keepalive_idle_ms=10_000_000, **isn)
    got = flight(c)
    end = got[-1].seq + got[-1].len
    c.inject("A", seq=1, ack=1, sack=[(1 + PROBE, end)])
    c.advance(100)
    c.inject("A", seq=1, ack=end)
    c.write(bytes(15_000))
    assert PROBE not in sizes(c) and search(c)["high"] == 1287
    c.inject("A", seq=1, ack=end + 15_000)
    c.advance(600_000)
    c.write(bytes(10))
    c.inject("A", seq=1, ack=end + 15_010)
    c.quiet()
    assert search(c)["high"] == 1500
