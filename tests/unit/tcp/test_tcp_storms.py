"""Storms of forged or useless segments at an established connection: bounded work and memory, and it goes on.

RFC 5961 7, RFC 9293 3.10.7.4. Each storm is 5000 segments in 2 s of virtual time, 25 between
two flushes; what is bounded is counted, not timed, so that a busy machine changes nothing.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from tcp_host import MS, Host, established

from levelip.frames.packet import Segment
from levelip.rpc.stream import Data

ISN = dict[str, Any]
COUNT = 5000
BURST = 25  # between two flushes, 10 ms

Storm = Callable[[Host, int], Segment]


def out_of_window(c: Host, number: int) -> Segment:
    """Empty ACKs far beyond the window."""
    return c.segment("A", seq=10_000_000 + number, ack=1)


def blind_rst(c: Host, number: int) -> Segment:
    """RSTs all over the window, none at RCV.NXT."""
    return c.segment("R", seq=2 + number % 30_000)


def blind_syn(c: Host, number: int) -> Segment:
    """SYNs with any number."""
    return c.segment("S", seq=number * 7919)


def ack_of_nothing(c: Host, number: int) -> Segment:
    """ACKs of what was never sent."""
    return c.segment("A", seq=1, ack=1000 + number)


def ancient_ack(c: Host, number: int) -> Segment:
    """ACKs of long ago (RFC 5961 5.2)."""
    return c.segment("A", seq=1, ack=-100_000 - number)


def old_stamp(c: Host, number: int) -> Segment:
    """Old duplicates by PAWS."""
    return c.segment("A", seq=1, ack=1, ts=50)


def optimistic(c: Host, number: int) -> Segment:
    """Duplicate ACKs (an ACK flood), nothing under way."""
    return c.segment("A", seq=1, ack=1)


STORMS: list[tuple[Storm, int]] = [
    (out_of_window, 4),
    (blind_rst, 4),
    (blind_syn, 4),
    (ack_of_nothing, 4),
    (ancient_ack, 4),
    (old_stamp, 4),
    (optimistic, 0),
]
"""And how many answers 2 s allow: one each 500 ms (at 0, 0.5, 1, 1.5 s)."""


@pytest.mark.rfc("RFC 5961 7", "RFC 9293 3.10.7.4")
@pytest.mark.parametrize(("storm", "answers"), STORMS, ids=[storm.__name__ for storm, _ in STORMS])
def test_a_storm(isn: ISN, storm: Storm, answers: int) -> None:
    """Answered four times in 2 s or not at all, nothing is kept, and the next good segment is delivered."""
    c = established(invalid_ratelimit_ms=500, **isn)
    c.quiet()
    tracemalloc.start()
    base = 0
    for number in range(COUNT):
        c.core.receive(storm(c, number), c.now)
        if number % BURST == BURST - 1:
            c.flush()
            c.now += 10 * MS
            c.stamp += 10
            c.core.handle_timer(c.now)
        if number == BURST * 10:
            base = tracemalloc.get_traced_memory()[0]
    c.flush()
    grown = tracemalloc.get_traced_memory()[0] - base
    tracemalloc.stop()
    assert len(c.segments) == answers
    assert grown < 100_000, f"{grown} bytes"
    assert c.state == "ESTABLISHED"
    c.quiet()
    c.inject("PA", seq=1, ack=1, data=b"alive")
    assert c.message(Data).offset == 0 and c.received(0, 5) == b"alive"


@pytest.mark.rfc("RFC 9293 SHLD-31")
def test_a_storm_of_single_bytes_out_of_order(isn: ISN) -> None:
    """Every second byte of the window: 512 ranges are kept (MAX_RANGES), the rest is dropped and counted; the bytes
    that are missing still go in, and free them."""
    c = established(**isn).quiet()
    for number in range(COUNT):
        c.core.receive(c.segment("A", seq=3 + 2 * number % 30_000, ack=1, data=b"x"), c.now)
        if number % BURST == BURST - 1:
            c.flush()
            c.segments.clear()
    assert len(c.tcb()["rx"]["ranges"]) == 512
    assert c.dropped("tcp_too_many_holes") > COUNT // 2
    c.quiet()
    c.inject("A", seq=1, ack=1, data=b"y" * 1024)
    assert c.tcb()["rx"]["ranges"] == [] and c.tcb()["rx"]["rcv_nxt"] >= 1024


def test_what_waits_for_ip_is_bounded(isn: ISN) -> None:
    """No room toward ip for 10,000 segments that want an answer at once (data out of order): 8192 ACKs wait."""
    c = established(**isn).quiet()
    for number in range(2 * COUNT):
        c.core.receive(c.segment("A", seq=5 + number % 100, ack=1, data=b"x"), c.now)
    assert c.dropped("tcp_queue_full") >= 2 * COUNT - 8192
    c.flush()
    assert len(c.segments) <= 8193
