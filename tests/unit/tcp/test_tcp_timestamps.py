"""Timestamps and PAWS: RFC 7323 3, 4, 5."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, established

from layers.tcp.acceptance import PAWS_IDLE, Verdict, judge_sequence, judge_timestamp

ISN = dict[str, Any]


@pytest.mark.rfc("RFC 7323 3.2-1", "RFC 7323 5.4-1")
def test_every_segment_carries_both(isn: ISN) -> None:
    """TSval by our clock of 1 ms, TSecr the peer's last. RFC 7323 3.2."""
    c = established(**isn)
    c.stamp = 500
    c.inject("PA", seq=1, ack=1, data=b"x")
    first = c.expect("A").options.timestamps
    c.advance(25)
    c.inject("PA", seq=2, ack=1, data=b"y")
    second = c.expect("A").options.timestamps
    assert first is not None and second is not None
    assert first[1] == 500 and second[1] == 525
    assert (second[0] - first[0]) & 0xFFFFFFFF == 25


def test_the_clock_keeps_its_pace(isn: ISN) -> None:
    """A tick a millisecond, also after days: what the peer makes of it counts on that (RFC 7323 5.4)."""
    _, conn = established(**isn).parts()
    for hours in (1, 24, 500):
        elapsed = conn.ts_now(hours * 3_600_000 * MS) - conn.ts_now(0)
        assert elapsed & 0xFFFFFFFF == hours * 3_600_000


@pytest.mark.rfc("RFC 7323 5.3-1")
def test_an_old_timestamp_is_refused(isn: ISN) -> None:
    """An ACK in answer; the text is not taken. RFC 7323 5.3 R1."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"new", ts=1000)
    c.quiet()
    c.inject("PA", seq=4, ack=1, data=b"old", ts=999)
    c.expect("A", ack=4)
    assert c.dropped("tcp_paws") == 1
    c.inject("PA", seq=4, ack=1, data=b"ok", ts=1000)
    c.expect("A", ack=6)


@pytest.mark.rfc("RFC 7323 5.2")
def test_timestamps_wrap(isn: ISN) -> None:
    """2^32 - 1 comes before 0."""
    c = established(**isn)
    c.stamp = 2**31 - 10
    c.inject("PA", seq=1, ack=1, data=b"a", ts=2**31 - 10)
    c.inject("PA", seq=2, ack=1, data=b"b", ts=2**32 - 20)
    c.inject("PA", seq=3, ack=1, data=b"c", ts=5)
    assert c.tcb()["rx"]["rcv_nxt"] == 3 and not c.dropped("tcp_paws")


@pytest.mark.rfc("RFC 7323 5.2-1")
def test_a_reset_needs_no_fresh_timestamp(isn: ISN) -> None:
    """RFC 7323 5.2: PAWS does not apply to RST."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"new", ts=1000)
    c.inject("R", seq=4, ts=1)
    assert c.state == "CLOSED"


@pytest.mark.rfc("RFC 7323 3.2-5")
def test_a_segment_without_timestamp_is_dropped(isn: ISN) -> None:
    """Silently, once both sides agreed. RFC 7323 3.2."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"bare", no_ts=True)
    c.expect_nothing()
    assert c.dropped("tcp_no_timestamp") == 1


@pytest.mark.rfc("RFC 7323 4.3-1")
def test_ts_recent_is_that_of_what_was_acknowledged(isn: ISN) -> None:
    """A segment beyond a hole does not set it: its echo would hide the delay of the missing one. RFC 7323 4.3."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, data=b"a", ts=1000)
    c.quiet()
    c.inject("A", seq=10, ack=1, data=b"z", ts=2000)
    stamps = c.expect("A", ack=2).options.timestamps
    assert stamps is not None and stamps[1] == 1000


@pytest.mark.rfc("RFC 7323 5.5-1")
def test_ts_recent_expires() -> None:
    """After 24 days without a word any timestamp is good. RFC 7323 5.5."""
    assert PAWS_IDLE == 24 * 24 * 3600 * 10**9
    assert not judge_timestamp(1000, 0, 999, 100 * MS)
    assert judge_timestamp(1000, 0, 999, PAWS_IDLE + 1)
    assert judge_timestamp(2**32 - 1, 0, 3, 100 * MS)


@pytest.mark.rfc("RFC 7323 7.1-1", "RFC 6191 3-1")
def test_offsets_differ_by_peer_not_by_connection() -> None:
    """So that a TIME-WAIT can be reused and nobody reads our uptime. RFC 7323 7.1, RFC 6191."""
    from layers.tcp.isn import timestamp_offset

    secret = b"s" * 32
    assert timestamp_offset(secret, b"\1\1\1\1", b"\2\2\2\2") == timestamp_offset(secret, b"\1\1\1\1", b"\2\2\2\2")
    assert timestamp_offset(secret, b"\1\1\1\1", b"\2\2\2\2") != timestamp_offset(secret, b"\1\1\1\1", b"\2\2\2\3")


@pytest.mark.rfc("RFC 9293 3.10.7.4")
def test_acceptability() -> None:
    """The four cases of RFC 9293 3.10.7.4: window 0 or not, length 0 or not; RCV.NXT = 100."""
    judge = judge_sequence
    assert judge(100, 0, 100, 0) == Verdict.ACCEPTABLE
    assert judge(100, 0, 100, 1) == Verdict.ZERO_WINDOW
    assert judge(100, 0, 99, 1) == Verdict.BELOW_WINDOW
    assert judge(100, 10, 100, 0) == Verdict.ACCEPTABLE
    assert judge(100, 10, 99, 0) == Verdict.BELOW_WINDOW
    assert judge(100, 10, 110, 0) == Verdict.ACCEPTABLE  # at the edge: our deviation
    assert judge(100, 10, 111, 0) == Verdict.BEYOND_WINDOW
    assert judge(100, 10, 109, 5) == Verdict.ACCEPTABLE
    assert judge(100, 10, 110, 5) == Verdict.BEYOND_WINDOW
    assert judge(100, 10, 95, 5) == Verdict.BELOW_WINDOW
    assert judge(100, 10, 95, 6) == Verdict.ACCEPTABLE
    assert judge(100, 10, 50, 500) == Verdict.ACCEPTABLE
