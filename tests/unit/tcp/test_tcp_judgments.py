"""Judgments about single segments, and small tables, alone and at their limits: TIME-WAIT, PAWS, slots, timers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tcp_host import MS, MSS, established, far

from layers.tcp.acceptance import (
    PAWS_IDLE,
    AckVerdict,
    Verdict,
    judge_ack,
    judge_reset,
    judge_sequence,
    judge_timestamp,
)
from layers.tcp.challenges import answer_allowed, challenge_allowed
from layers.tcp.delayed_acks import all_read, owe_ack
from layers.tcp.ecn import Ecn
from layers.tcp.mtu_probe import headers
from layers.tcp.slots import Slots
from layers.tcp.telling import GRANT_STEP, grant_due
from layers.tcp.time_wait_reuse import next_isn, reusable
from layers.tcp.timers import DELAYED_ACK, KINDS, OFF, PERSIST, RETRANSMIT, Timers
from layers.tcp.timewait import TimeWait, TimeWaitVerdict, judge
from levelip.wire.tcp import ACK, CWR, ECE, FIN, SYN

HALF = 2**31
RECORD = TimeWait(
    id=1, local=b"\x0a\0\0\2", local_port=80, remote=b"\x0a\0\0\1", remote_port=4711, snd_nxt=500, rcv_nxt=1000,
    rcv_wnd=100, timestamps=True, ts_offset=0, ts_recent=50, ts_recent_at=0, ttl=64, tos=0, deadline=0,
)  # fmt: skip
NEW, ACKNOWLEDGE, RESTART, RESET, IGNORE, PAWS = TimeWaitVerdict


def segment(flags: int = ACK, seq: int = 1000, data: int = 0, value: int | None = 50, **how: Any) -> TimeWaitVerdict:
    """What a segment means for the record, RCV.NXT = 1000 and TS.Recent = 50."""
    record = how.pop("record", RECORD)
    length = data + bool(flags & SYN) + bool(flags & FIN)
    bits = {"syn": bool(flags & SYN), "fin": bool(flags & FIN), "rst": bool(flags & 4), "ack": bool(flags & ACK)}
    return judge(record, seq % 2**32, length, value=value, **bits, **how)


# TIME-WAIT


def test_an_rst_in_time_wait() -> None:
    """The exact number ends it, unless it is protected (RFC 1337); a timestamp says nothing of an RST."""
    assert segment(4) == RESET and segment(4, value=0) == RESET
    assert segment(4, protect=True) == segment(4, seq=1001) == segment(4, seq=999) == IGNORE


@pytest.mark.parametrize(
    ("seq", "value", "verdict"),
    [
        (1001, 50, NEW),  # RFC 6191 2: a higher number
        (1000 + HALF - 1, 50, NEW),
        (1000 + HALF, 50, ACKNOWLEDGE),
        (1000, 50, ACKNOWLEDGE),
        (999, 51, NEW),  # a higher timestamp
        (999, 50 + HALF - 1, NEW),
        (999, 50 + HALF, PAWS),
        (1001, 49, PAWS),
        (999, None, ACKNOWLEDGE),
        (1001, None, NEW),
    ],
)
def test_a_syn_in_time_wait(seq: int, value: int | None, verdict: TimeWaitVerdict) -> None:
    """New, if it is later in time or in sequence; with ACK it is none."""
    assert segment(SYN, seq=seq, value=value) == verdict
    if verdict != PAWS:
        assert segment(SYN | ACK, seq=seq, value=value) == ACKNOWLEDGE


def test_timestamps_in_time_wait_grow_old() -> None:
    """After 24 days TS.Recent says nothing; nor to a connection that agreed on none."""
    assert segment(SYN, seq=1001, value=49, idle=PAWS_IDLE) == PAWS
    assert segment(SYN, seq=1001, value=49, idle=PAWS_IDLE + 1) == NEW
    plain = replace(RECORD, timestamps=False)
    assert segment(SYN, seq=1001, value=49, record=plain) == NEW
    assert segment(SYN, seq=999, value=51, record=plain) == ACKNOWLEDGE


def test_what_else_comes_in_time_wait() -> None:
    """The FIN again starts 2 MSL anew, any other data or FIN is acknowledged, an ACK at its place is nothing."""
    assert segment(ACK | FIN, seq=999) == segment(ACK | FIN, seq=990, data=9) == RESTART
    assert segment(ACK | FIN, seq=1000) == segment(ACK | FIN, seq=998) == ACKNOWLEDGE
    assert segment(ACK, seq=999, data=1) == ACKNOWLEDGE  # it ends where the FIN did, but is none
    assert segment(ACK) == IGNORE and segment(ACK, seq=999) == segment(ACK, seq=1001) == ACKNOWLEDGE
    assert segment(ACK, value=49) == PAWS


LOOPBACK = {"local": b"\x7f\0\0\1", "remote": b"\x7f\0\0\2"}
SIX = {"local": bytes(15) + b"\1", "remote": bytes(15) + b"\1"}


@pytest.mark.parametrize(
    ("mode", "how", "reuse"),
    [
        (0, LOOPBACK, False),
        (1, {}, True),
        (2, {}, False),
        (2, LOOPBACK, True),
        (2, {"local": b"\x7f\0\0\1"}, True),
        (2, {"remote": b"\x7f\1\2\3"}, True),
        (2, {"local": b"\x80\0\0\1"}, False),
        (2, SIX, True),
        (2, {"local": bytes(15) + b"\2", "remote": b"\x7f" + bytes(15)}, False),
        (1, {"timestamps": False}, False),
    ],
)
def test_whether_connect_may_take_a_record(mode: int, how: dict[str, Any], reuse: bool) -> None:
    """tcp.tw_reuse: 1 always, 2 (Linux's default) on loopback; with timestamps, more than a second after."""
    c = established(tw_reuse=mode, tw_reuse_delay_ms=1000)
    ctx, _ = c.parts()
    record = replace(RECORD, ts_recent_at=7, **how)
    assert reusable(ctx, record, 7 + 1000 * MS + 1) is reuse
    assert not reusable(ctx, record, 7 + 1000 * MS)
    ctx.tcp.timestamps = False
    assert not reusable(ctx, record, 7 + 1000 * MS + 1)


def test_the_isn_after_time_wait() -> None:
    """65,537 beyond all that was used, as Linux; -1 where the configuration has fixed ISNs."""
    ctx, _ = established().parts()
    assert next_isn(ctx, RECORD) == -1
    ctx.config.fixed_isn = -1
    assert next_isn(ctx, RECORD) == 500 + 65_537
    assert next_isn(ctx, replace(RECORD, snd_nxt=2**32 - 1)) == 65_536
    ctx.config.fixed_isn = 0
    assert next_isn(ctx, RECORD) == -1


# acceptable?


def test_paws_at_its_limits() -> None:
    """RFC 7323 5.3: less than half the space behind, or no word for more than 24 days."""
    for value, good in ((50, True), (49, False), (50 + HALF - 1, True), (50 + HALF, False)):
        assert judge_timestamp(50, 0, value, 0) is good
    assert not judge_timestamp(50, 5, 49, 5 + PAWS_IDLE) and judge_timestamp(50, 5, 49, 6 + PAWS_IDLE)


@pytest.mark.parametrize(
    ("window", "offset", "length", "verdict"),
    [
        (10, 100, 0, Verdict.ACCEPTABLE), (10, 99, 0, Verdict.BELOW_WINDOW), (10, 99, 1, Verdict.BELOW_WINDOW),
        (10, 99, 2, Verdict.ACCEPTABLE), (10, 110, 0, Verdict.ACCEPTABLE), (10, 111, 0, Verdict.BEYOND_WINDOW),
        (10, 109, 1, Verdict.ACCEPTABLE), (10, 110, 1, Verdict.BEYOND_WINDOW), (10, 111, 1, Verdict.BEYOND_WINDOW),
        (0, 100, 0, Verdict.ACCEPTABLE), (0, 100, 1, Verdict.ZERO_WINDOW), (0, 101, 0, Verdict.BEYOND_WINDOW),
        (0, 101, 1, Verdict.BEYOND_WINDOW), (0, 99, 5, Verdict.ACCEPTABLE),
    ],
)  # fmt: skip
def test_the_four_cases_of_the_first_step(window: int, offset: int, length: int, verdict: Verdict) -> None:
    """RFC 9293 3.10.7.4, RCV.NXT = 100."""
    assert judge_sequence(100, window, offset, length) == verdict


@pytest.mark.parametrize(
    ("ack", "verdict"),
    [
        (61, AckVerdict.UNSENT), (60, AckVerdict.NEW), (51, AckVerdict.NEW), (50, AckVerdict.DUPLICATE),
        (49, AckVerdict.OLD), (30, AckVerdict.OLD), (29, AckVerdict.ANCIENT),
    ],
)  # fmt: skip
def test_acknowledgments(ack: int, verdict: AckVerdict) -> None:
    """RFC 5961 5.2: 50 to 60 are under way, the largest window was 20. None is older than the first byte."""
    assert judge_ack(50, 60, 20, ack) == verdict
    assert judge_ack(5, 60, 20, 0) == AckVerdict.OLD and judge_ack(5, 60, 20, -1) == AckVerdict.ANCIENT
    assert [judge_reset(100, offset).name for offset in (99, 100, 101)] == ["CHALLENGE", "RESET", "CHALLENGE"]


# how often


def test_answers_to_what_is_out_of_window() -> None:
    """One in invalid_ratelimit_ms; the first at any instant, 0 too."""
    c = established(invalid_ratelimit_ms=500)
    ctx, conn = c.parts()
    ctx.now = 0
    assert answer_allowed(ctx, conn) and conn.invalid_answered_at == 0
    for now, allowed in ((1, False), (500 * MS - 1, False), (500 * MS, True), (999 * MS, False), (1000 * MS, True)):
        ctx.now = now
        assert answer_allowed(ctx, conn) is allowed
    assert ctx.counters["answers_withheld"] == 3


def test_challenges_of_a_second() -> None:
    """Between half and one and a half of the limit, drawn anew each second; 0 is none at all."""
    c = established(invalid_ratelimit_ms=0, challenge_acks_per_s=10)
    ctx, conn = c.parts()
    counts = set()
    for second in range(60):
        ctx.now = second * 1000 * MS
        counts.add(sum(challenge_allowed(ctx, conn) for _ in range(40)))
    assert min(counts) == 5 and max(counts) == 14 and len(counts) > 5
    ctx.tcp.challenge_acks_per_s = 0
    ctx.now = 99_000 * MS
    assert not challenge_allowed(ctx, conn)
    ctx.tcp.challenge_acks_per_s = 1
    ctx.now = 100_000 * MS
    assert [challenge_allowed(ctx, conn) for _ in range(2)] == [True, False]


# ECN, RFC 3168 6.1


@pytest.mark.parametrize(
    ("asking", "flags", "on"),
    [
        (True, SYN | ACK | ECE, True), (True, SYN | ACK | ECE | CWR, False), (True, SYN | ECE | CWR, True),
        (True, SYN | ACK, False), (True, SYN | ACK | CWR, False), (False, SYN | ACK | ECE, False),
        (True, SYN | FIN | ECE | CWR, True),
    ],
)  # fmt: skip
def test_an_answer_to_our_syn(asking: bool, flags: int, on: bool) -> None:
    """A SYN-ACK says yes by ECE alone, a crossing SYN by both; reflected flags are no answer."""
    ecn = Ecn(asking=asking)
    ecn.answered(flags)
    assert ecn.on is on


def test_marks_and_their_echo() -> None:
    """CWR ends the echo, a mark begins it, both at once begin it anew; news is told at once, CWR always."""
    ecn = Ecn(on=True)
    assert not ecn.received(2, ACK, 1) and not ecn.echo
    assert ecn.received(3, ACK, 2) and ecn.echo and ecn.marks_in == 2
    assert not ecn.received(3, ACK, 1) and ecn.marks_in == 3
    assert ecn.received(3, ACK | CWR, 1) and ecn.echo
    assert ecn.received(2, ACK | CWR, 1) and not ecn.echo
    assert ecn.received(2, ACK | CWR, 1) and not ecn.echo
    assert not ecn.received(1, ACK, 1)


def test_one_reduction_a_window() -> None:
    """ECE on what was sent before the last reduction is old news: at SND.NXT of then, no; beyond it, yes."""
    ecn = Ecn(on=True)
    assert ecn.must_reduce(0)
    ecn.reduced(1000)
    assert ecn.cwr and [ecn.must_reduce(ack) for ack in (999, 1000, 1001)] == [False, False, True]
    assert ecn.echoes_in == 4
    off = Ecn()
    off.reduced(5)
    assert not off.cwr and off.until == 5


# ACKs that wait


def test_quick_acks_run_out() -> None:
    """Each ACK of data that goes at once costs one, however many segments it is for."""
    c = established()
    ctx, conn = c.parts()
    conn.quick_acks, conn.interactive, conn.ack_now = 3, False, False
    conn.last_data_received_at = c.now
    conn.rx.mss = 1000
    conn.rx.advance(100)
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now)
    assert conn.ack_now and conn.quick_acks == 2
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now)
    assert conn.quick_acks == 2  # it goes already
    conn.ack_now = False
    conn.rx.advance(2000)  # two segments: at once in any case, and counted
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now)
    assert conn.ack_now and conn.quick_acks == 1
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now)
    assert conn.quick_acks == 1
    assert list(ctx.work).count(conn) == 1  # asked once at the flush


def test_an_ack_that_waits() -> None:
    """The timer starts once; what is short or pushed is remembered; an answer to what was read goes by that."""
    c = established()
    ctx, conn = c.parts()
    conn.quick_acks, conn.interactive = 0, False
    conn.last_data_received_at = c.now - conn.rto.rto  # not longer than the RTO: no silence yet
    conn.rx.mss = 1000
    conn.rx.advance(999)
    conn.pushed = 7
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now)
    assert not conn.ack_now and conn.deadlines[DELAYED_ACK] == c.now + ctx.tcp.delayed_ack_ms * MS
    assert conn.pushed == 1
    conn.rx.advance(1000)
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now + 5)
    assert conn.pushed == 1 and conn.deadlines[DELAYED_ACK] == c.now + ctx.tcp.delayed_ack_ms * MS
    assert not all_read(conn)
    conn.rx.consumed = 1000
    assert all_read(conn)
    conn.interactive = True
    assert not all_read(conn)
    owe_ack(ctx, conn, c.segment("PA", seq=1, ack=1), c.now + 6)
    assert conn.pushed == 2 and all_read(conn)
    conn.deadlines[DELAYED_ACK] = OFF
    assert not all_read(conn)


def test_silence_makes_acks_quick() -> None:
    """Longer than the RTO: the peer's window has shrunk (RFC 5681 4.1)."""
    c = established()
    ctx, conn = c.parts()
    conn.quick_acks, conn.interactive = 0, False
    conn.last_data_received_at = c.now - conn.rto.rto - 1
    conn.rx.mss = 1000
    conn.rx.advance(999)
    owe_ack(ctx, conn, c.segment("A", seq=1, ack=1), c.now)
    assert conn.ack_now and conn.quick_acks == 15  # 16, less this one


# what the gateway is told


@pytest.mark.parametrize(
    ("una", "limit", "end", "due"),
    [
        (0, 80_000, 0, False),  # nothing new
        (1, 80_000, 9999, False),
        (9999, 80_000, 20_000, False),
        (10_000, 80_000, 20_000, True),  # an eighth of the buffer
        (1, 80_000, 1, True),  # all is acknowledged
        (0, 80_001, 0, False),
    ],
)
def test_how_far_may_be_written_is_told_in_steps(una: int, limit: int, end: int, due: bool) -> None:
    """A buffer of 80,000: grown by an eighth, or nothing is left to acknowledge."""
    _, conn = established().parts()
    conn.tx.buffer, conn.tx.snd_una, conn.tx.limit, conn.tx.snd_end = 80_000, una, limit, end
    assert grant_due(conn) is due


def test_large_buffers_are_told_by_128_kb() -> None:
    """An eighth of 8 MB would be too much to wait for."""
    _, conn = established().parts()
    conn.tx.buffer, conn.tx.limit, conn.tx.snd_end = 8 << 20, 8 << 20, 1 << 22
    conn.tx.snd_una = GRANT_STEP - 1
    assert not grant_due(conn)
    conn.tx.snd_una = GRANT_STEP
    assert grant_due(conn)


# slots and timers


def test_slots_of_memory() -> None:
    """Side by side, a send ring and a receive ring each; those freed last are used first; all free: forgotten."""
    slots = Slots(100, 50, 2)
    assert slots.available("a") and slots.in_use() == 0
    first, second = slots.take("a"), slots.take("a")
    assert first is not None and second is not None
    assert (first.region, first.send_base, first.receive_base) == ("a", 0, 100)
    assert (first.send_size, first.receive_size) == (100, 50)
    assert (second.send_base, second.receive_base) == (150, 250)
    assert slots.take("a") is None and not slots.available("a") and slots.take("b") is not None
    assert slots.in_use() == 3 and slots.available("b")
    slots.give_back(second)
    assert slots.available("a") and slots.in_use() == 2
    assert slots.take("a") == second
    slots.give_back(first)
    slots.give_back(second)
    assert "a" not in slots.regions and slots.in_use() == 1
    assert slots.take("a") == first


@dataclass
class Owner:
    """Something with timers."""

    id: int = 7
    deadlines: list[int] = field(default_factory=lambda: [OFF] * KINDS)
    scheduled: list[int] = field(default_factory=lambda: [OFF] * KINDS)


def test_a_timer_that_moves() -> None:
    """Later costs nothing: the early entry goes back when it comes up. Earlier is a new entry, and the old one is void.
    The same instant again is no second entry. Instant 0 is an instant."""
    timers, owner = Timers(), Owner()
    timers.arm(owner, RETRANSMIT, 0)
    timers.arm(owner, RETRANSMIT, 0)
    assert timers.heap == [(0, RETRANSMIT, 7)]
    timers.arm(owner, RETRANSMIT, 10)
    assert timers.heap == [(0, RETRANSMIT, 7)] and timers.next() == 0 and timers.pop(-1) is None
    assert timers.pop(0) == (0, RETRANSMIT, 7)
    assert not timers.expired(owner, RETRANSMIT, 0) and timers.heap == [(10, RETRANSMIT, 7)]
    timers.arm(owner, RETRANSMIT, 5)
    assert timers.next() == 5 and len(timers.heap) == 2
    assert timers.pop(9) == (5, RETRANSMIT, 7) and timers.expired(owner, RETRANSMIT, 5)
    assert owner.deadlines[RETRANSMIT] == owner.scheduled[RETRANSMIT] == OFF
    assert timers.pop(10) == (10, RETRANSMIT, 7) and not timers.expired(owner, RETRANSMIT, 10)
    assert timers.next() is None and timers.pop(99) is None
    timers.arm(owner, PERSIST, 0)
    assert timers.pop(0) and timers.expired(owner, PERSIST, 0)  # at 0 it is due, not off
    timers.arm(owner, PERSIST, 3)
    owner.deadlines[PERSIST] = OFF
    assert timers.pop(3) and not timers.expired(owner, PERSIST, 3) and owner.scheduled[PERSIST] == OFF


def test_timers_that_are_due_together_fire_by_kind_and_id() -> None:
    """Their order is always the same."""
    timers = Timers()
    for kind, ident in ((PERSIST, 1), (RETRANSMIT, 2), (RETRANSMIT, 1)):
        timers.push(5, kind, ident)
    assert [timers.pop(5) for _ in range(3)] == [(5, RETRANSMIT, 1), (5, RETRANSMIT, 2), (5, PERSIST, 1)]


# what fits into a packet


@pytest.mark.parametrize(
    ("mtu", "ts", "mss"), [(1500, True, 1448), (1500, False, 1460), (68, True, 16), (68, False, 28)]
)
def test_the_size_of_packets(mtu: int, ts: bool, mss: int) -> None:
    """The path's MTU less headers, and less the timestamps that every segment carries."""
    c = established(mtu=mtu, ts=ts)
    _, conn = c.parts()
    assert (conn.tx.mss, conn.tx.most) == (mss, mss) and headers(conn) == mtu - mss


def test_super_segments_are_whole_packets() -> None:
    """As many as link takes at once, headers included; one while an urgent mark is out."""
    c = far(gso_max=10_000)
    _, conn = c.parts()
    assert conn.tx.most == 6 * MSS  # 10,000 - 52 = 9948
    conn.snd_up = 0
    conn.set_mss(40)
    assert conn.tx.most == MSS
    conn.snd_up = -1
    conn.gso_max = 52 + MSS
    conn.set_mss(40)
    assert conn.tx.most == MSS


