"""RFC 7661 with tcp.slow_start_after_idle = false: pipeACK, what is validated, and congestion where it is not."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, MSS, Got, Host, far

from layers.tcp import output
from layers.tcp.congestion.cubic import Cubic
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.congestion.window import Window
from layers.tcp.connection import Connection
from layers.tcp.recovery.state import CaState
from layers.tcp.validation import UNDEFINED, Validation

SECOND = 1000 * MS
RTT = 100 * MS


# the measure


@pytest.mark.rfc("RFC 7661 4.2-1", "RFC 7661 4.2-2")
def test_a_sample_is_a_round_trip() -> None:
    """Ten packets are out: the sample is taken when all of them are acknowledged, not before. By then 20 more are out,
    which make the next one."""
    v = Validation()
    assert v.pipe_ack(RTT, 0) == UNDEFINED
    for una in range(1, 10):
        v.acked(una - 1, una, 10 + 2 * (una - 1), RTT, 0)
        assert v.pipe_ack(RTT, 0) == UNDEFINED
    v.acked(9, 10, 30, RTT, 0)
    assert v.pipe_ack(RTT, 0) == 10
    v.acked(10, 29, 50, RTT, RTT)
    assert v.pipe_ack(RTT, RTT) == 10
    v.acked(29, 30, 50, RTT, RTT)
    assert v.pipe_ack(RTT, RTT) == 20


@pytest.mark.rfc("RFC 7661 4.2-1")
def test_a_pause_is_no_part_of_a_sample() -> None:
    """Five acknowledged, nothing is out; then five more go, of which the first ACK tells of two: the sample is of all
    five."""
    v = Validation()
    v.acked(0, 5, 5, RTT, 0)
    assert v.pipe_ack(RTT, 0) == 5
    v.acked(5, 7, 10, RTT, 10 * SECOND)
    assert v.pipe_ack(RTT, 10 * SECOND) == 0
    v.acked(7, 10, 10, RTT, 10 * SECOND)
    assert v.pipe_ack(RTT, 10 * SECOND) == 5


@pytest.mark.rfc("RFC 7661 4.2-2", "RFC 7661 4.2-4")
@pytest.mark.parametrize(("rtt", "period"), [(RTT, SECOND), (SECOND // 3, SECOND - 1 + 1), (SECOND, 3 * SECOND)])
def test_the_largest_of_a_sampling_period(rtt: int, period: int) -> None:
    """max(3 RTT, 1 s). The largest sample counts for just so long, whatever smaller ones come after it; then those."""
    v = Validation()
    v.acked(0, 50, 50, rtt, 0)
    una = 50
    for number in range(1, 11):
        v.acked(una, una + 10 - number // 5, una + 10 - number // 5, rtt, period * number // 10)
        una += 10 - number // 5
        assert len(v.samples) <= 6
    assert v.pipe_ack(rtt, period) == 50
    assert v.pipe_ack(rtt, period + 1) == 10
    assert v.pipe_ack(rtt, period * 2) == 8
    assert v.pipe_ack(rtt, period * 2 + 1) == 0


def test_within_a_part_of_the_period_the_largest_stays() -> None:
    """Parts of 200 ms: a larger sample takes the place of the one before, a smaller one does not; one as large is
    newer."""
    v = Validation()
    for at, size, kept in ((0, 5, (0, 0, 5)), (50, 4, (0, 0, 5)), (100, 5, (0, 100, 5)), (199, 6, (0, 199, 6))):
        v._take(size, RTT, at * MS)
        began, taken, most = kept
        assert v.samples == [(began * MS, taken * MS, most)]
    v._take(1, RTT, 200 * MS)
    assert v.samples[1:] == [(200 * MS, 200 * MS, 1)]


@pytest.mark.rfc("RFC 7661 4.3-1", "RFC 7661 4.3-2")
@pytest.mark.parametrize(("cwnd", "valid"), [(20, True), (21, False)])
def test_validated_is_half_of_cwnd(cwnd: int, valid: bool) -> None:
    """A pipeACK of ten; one that is undefined validates any window."""
    v = Validation()
    assert v.validated(1000, RTT, 3) and v.valid_at == 3
    v.acked(0, 10, 10, RTT, 5)
    assert v.validated(cwnd, RTT, 5) is valid
    assert v.valid_at == (5 if valid else 3)


@pytest.mark.rfc("RFC 7661 4.4.1-1", "RFC 7661 4.4.1-2")
def test_what_was_used() -> None:
    """pipeACK 10, cwnd 40. In flight are six: half of ten is left; in flight are 16: half of those. R, four sent again,
    one of them twice, comes off at the end."""
    for flight, first, last in ((6, 5, 3), (16, 8, 6)):
        v = Validation()
        v.acked(0, 10, 10, RTT, 0)
        assert v.congested(40, flight, RTT, 0)
        assert v.window() == first
        v.again(20, 22)
        v.again(24, 26)
        v.again(20, 21)
        assert (v.repaired, v.window()) == (4, last)
        v.again(25, 28)  # of which one was sent again before
        assert v.repaired == 6
        v.again(28, 100)
        assert v.window() == 0
        v.reset(0)
        assert (v.pipe_ack(RTT, 0), v.used) == (UNDEFINED, UNDEFINED)
    v.acked(0, 20, 20, RTT, 0)
    assert not v.congested(40, 6, RTT, 0) and v.used == UNDEFINED


@pytest.mark.rfc("RFC 7661 4.4.1-2")
def test_a_reduction_to_what_was_used() -> None:
    """ssthresh is what the caller worked out, not below two segments; cubic's plateau is what was used."""
    for kind in (NewReno, Cubic):
        cc = kind()
        cc.start(1000, 40, 0)
        cc.enter_recovery(10_000, 0)
        cc.reduce_to(5000)
        assert (cc.cwnd, cc.ssthresh) == (40_000, 5000)
        if isinstance(cc, Cubic):
            assert (cc.w_max, cc.cwnd_prior) == (10_000, 10_000)
        cc.reduce_to(1500)
        assert cc.ssthresh == 2000
        cc.undo(0)
        assert (cc.cwnd, cc.ssthresh) == (40_000, 1 << 31)


# the connection


def used_in_part(segments: int = 4, **how: Any) -> Host:
    """RTT 100 ms, cwnd 40, validated until 1 s ago; since then `segments` a round trip. ssthresh was never lowered."""
    c = far(100, slow_start_after_idle=False, **how)
    for size in (10, 20):
        write(c, size)
        answer(c)
    assert cwnd(c) == (40, None)
    for _ in range(12):
        write(c, segments)
        answer(c)
    _, conn = c.parts()
    assert pipe(c) == segments
    assert conn.validation.valid_at == c.now - 200 * MS
    return c.quiet()


def write(c: Host, segments: int) -> None:
    c.write(bytes(segments * MSS))


def answer(c: Host) -> None:
    """100 ms later all is acknowledged, in one."""
    c.advance(100)
    see(c)
    c.inject("A", seq=1, ack=1 + c.sent)


def see(c: Host) -> None:
    """The peer has seen what came out, and echoes its stamps."""
    while c.segments:
        c.expect(Got(c, c.segments[0]).flags)


def out(c: Host) -> int:
    """Segments that were sent and not acknowledged."""
    tx = conn_of(c).tx
    return (tx.snd_nxt - tx.snd_una) // MSS


def pipe(c: Host) -> int:
    """pipeACK in segments."""
    _, conn = c.parts()
    return conn.validation.pipe_ack(conn.rto.srtt, c.now) // MSS


def cwnd(c: Host) -> tuple[float, float | None]:
    """cwnd and ssthresh in segments; None: never lowered."""
    now = c.parts()[1].congestion
    return now.cwnd / MSS, None if now.ssthresh >= 1 << 31 else now.ssthresh / MSS


def block(first: int, last: int, base: int) -> tuple[int, int]:
    """A SACK block of segments numbered from 1, of what was sent from offset `base` on."""
    return 1 + base + (first - 1) * MSS, 1 + base + last * MSS


def conn_of(c: Host) -> Connection:
    return c.parts()[1]


@pytest.mark.rfc("RFC 7661 4.4-1", "RFC 7661 4.4-2")
def test_not_validated_it_neither_grows_nor_falls() -> None:
    """Four segments a round trip of a cwnd of 40; 21 at once, more than half, are not it either: in slow start a
    validated window would grow by them. They validate it, and then it does."""
    c = used_in_part()
    assert cwnd(c) == (40, None)
    write(c, 21)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + c.sent - 11 * MSS)
    assert cwnd(c) == (40, None)
    c.inject("A", seq=1, ack=1 + c.sent - 5 * MSS)
    assert cwnd(c) == (40, None)
    c.inject("A", seq=1, ack=1 + c.sent)  # 21 in a round trip: pipeACK is above half
    assert cwnd(c) == (45, None)


@pytest.mark.rfc("RFC 7661 4.4-3")
def test_not_validated_but_full() -> None:
    """4.4: who fills cwnd may grow it by the standard method at once."""
    c = used_in_part()
    write(c, 41)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + c.sent - 31 * MSS)
    assert pipe(c) == 4
    assert cwnd(c) == (50, None)


@pytest.mark.rfc("RFC 7661 4.4.1-1", "RFC 7661 4.4.1-2", "RFC 7661 4.4.1-3", "RFC 7661 4.4-4")
@pytest.mark.parametrize("congestion", ["newreno", "cubic"])
def test_a_loss_where_cwnd_is_not_validated(congestion: str) -> None:
    """cwnd 40, pipeACK 4. Ten are under way when the first is found lost: ssthresh is five, not 20 (or 28, cubic); at
    the end, one having been sent again, cwnd and ssthresh are (10 - 1) / 2; and pipeACK is undefined."""
    c = used_in_part(congestion=congestion, hystart=False)
    base = c.sent
    write(c, 10)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 5, base)])
    assert cwnd(c)[1] == 5
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 10, base)])
    answer(c)
    assert conn_of(c).recovery.state == CaState.OPEN
    assert cwnd(c) == (4.5, 4.5)
    assert conn_of(c).validation.pipe_ack(RTT, c.now) == UNDEFINED


@pytest.mark.rfc("RFC 7661 4.4.1-1", "RFC 7661 4.4.1-2")
def test_pipe_ack_counts_where_less_is_in_flight() -> None:
    """pipeACK 12, of which four are under way at a loss: six, and five and a half at the end."""
    c = used_in_part(12)
    base = c.sent
    write(c, 4)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 4, base)])
    assert cwnd(c)[1] == 6
    answer(c)
    assert cwnd(c) == (5.5, 5.5)


@pytest.mark.rfc("RFC 7661 4.4.1-2", "RFC 7661 4.4.1-4")
def test_not_below_a_segment() -> None:
    """Four under way, three of them lost: (4 - 3) / 2 is half a segment, so cwnd is one; ssthresh two, as ever."""
    c = used_in_part(sack=False)
    base = c.sent
    write(c, 4)
    c.advance(100)
    v = conn_of(c).validation
    for _ in range(3):
        c.inject("A", seq=1, ack=1 + base)
    assert cwnd(c)[1] == 2 and v.used == 4 * MSS
    for number in (1, 2):
        c.advance(100)
        see(c)
        c.inject("A", seq=1, ack=1 + base + number * MSS)
    assert v.repaired == 3 * MSS
    answer(c)
    assert conn_of(c).recovery.state == CaState.OPEN
    assert cwnd(c) == (1, 2)


@pytest.mark.rfc("RFC 7661 4.3-1")
def test_a_loss_where_cwnd_is_validated() -> None:
    """As ever: half of what is in flight, 15 of 30 (newreno), with no more taken off."""
    c = far(100, slow_start_after_idle=False)
    for size in (10, 20):
        write(c, size)
        answer(c)
    base = c.sent
    c.quiet()
    write(c, 30)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 30, base)])
    assert cwnd(c)[1] == 15
    answer(c)
    assert cwnd(c) == (15, 15)
    assert conn_of(c).validation.pipe_ack(RTT, c.now) == UNDEFINED


@pytest.mark.rfc("RFC 7661 4.4-5")
def test_a_timeout() -> None:
    """RFC 5681's: half of the six in flight is ssthresh, cwnd one; pipeACK is undefined, also once it is over."""
    c = used_in_part(tlp=False)
    write(c, 6)
    c.advance(400)
    assert conn_of(c).recovery.state == CaState.LOSS
    assert cwnd(c) == (1, 3)
    assert conn_of(c).validation.pipe_ack(RTT, c.now) == UNDEFINED
    c.advance(100)
    see(c)
    c.inject("A", seq=1, ack=1 + c.sent - 3 * MSS)
    assert conn_of(c).recovery.state != CaState.OPEN
    assert conn_of(c).validation.pipe_ack(RTT, c.now) == UNDEFINED
    answer(c)
    assert conn_of(c).recovery.state == CaState.OPEN
    assert conn_of(c).validation.pipe_ack(RTT, c.now) == UNDEFINED


@pytest.mark.rfc("RFC 7661 4.4-4")
def test_a_mark() -> None:
    """ECN's echo is congestion, too: half of the ten in flight, of which nobody tells how many were marked."""
    c = used_in_part()
    conn_of(c).ecn.on = True
    base = c.sent
    write(c, 10)
    c.advance(100)
    c.inject("EA", seq=1, ack=1 + base + 2 * MSS)
    assert cwnd(c)[1] == 5
    c.advance(10)
    c.inject("A", seq=1, ack=1 + c.sent)
    write(c, 1)
    answer(c)
    assert conn_of(c).recovery.state == CaState.OPEN
    assert cwnd(c)[1] == 5


@pytest.mark.rfc("RFC 7661 4.4.1-2")
def test_a_loss_that_the_probe_repaired() -> None:
    """Nothing but the loss probe's ACK tells of it (RFC 8985 7.4): (6 - 1) / 2 at once."""
    c = used_in_part(6)
    write(c, 6)
    c.advance(250)
    assert conn_of(c).recovery.probe_again
    c.inject("A", seq=1, ack=1 + c.sent)
    write(c, 1)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + c.sent)
    assert cwnd(c) == (2.5, 2.5)
    assert conn_of(c).validation.used == UNDEFINED


@pytest.mark.rfc("RFC 7661 4.4.1-1")
def test_a_reduction_for_nothing() -> None:
    """D-SACK takes it back: cwnd and ssthresh are as before."""
    c = used_in_part()
    base = c.sent
    write(c, 10)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 5, base)])
    assert cwnd(c)[1] == 5
    see(c)
    c.advance(1)
    c.inject("A", seq=1, ack=1 + base + 5 * MSS, sack=[block(1, 1, base)])
    assert cwnd(c) == (40, None)
    assert conn_of(c).validation.used == UNDEFINED


@pytest.mark.rfc("RFC 7661 4.2-3")
def test_no_sample_in_recovery() -> None:
    """What is acknowledged while a loss is repaired is no measure."""
    c = used_in_part()
    base = c.sent
    write(c, 10)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 5, base), block(7, 9, base)])
    before = list(conn_of(c).validation.samples)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base + 5 * MSS, sack=[block(7, 9, base)])
    assert conn_of(c).recovery.state == CaState.RECOVERY
    assert conn_of(c).validation.samples == before and before


@pytest.mark.rfc("RFC 7661 4.4-2", "RFC 7661 4.4.3-1", "RFC 7661 4.4.3-2")
def test_five_minutes_of_a_segment_a_second() -> None:
    """Not idle, and never validated: after five minutes half of 40, and ssthresh remembers 30; after ten the initial
    ten."""
    c = used_in_part()
    conn_of(c).congestion.ssthresh = 20 * MSS
    seen = {}
    for second in range(660):
        write(c, 1)
        answer(c)
        seen[second] = cwnd(c)
        c.advance(900)
    assert seen[298] == (40, 20) and seen[301] == (20, 30)
    assert seen[598] == (20, 30) and seen[602] == (10, 30) == seen[659]


@pytest.mark.rfc("RFC 7661 4.4.3-2")
def test_five_minutes_of_use_in_part_and_of_nothing() -> None:
    """Four minutes after it was validated last a segment goes, two minutes later 40 are to go: the six minutes count
    together, before anything is sent, so that 20 go. Half is gone once."""
    c = used_in_part()
    c.advance(240_000)
    write(c, 1)
    answer(c)
    assert cwnd(c) == (40, None)
    c.advance(120_000)
    write(c, 40)
    assert out(c) == 20
    assert cwnd(c) == (20, None)


@pytest.mark.rfc("RFC 7661 4.4.3-2")
def test_the_time_counts_from_the_end_of_a_recovery() -> None:
    """pipeACK is undefined then, which is validated (4.3); but five minutes later it is not any more, though nothing
    was sent by which to find that out."""
    for minutes, left in ((4, 20), (6, 10)):
        c = far(100, slow_start_after_idle=False)
        for size in (10, 20):
            write(c, size)
            answer(c)
        base = c.sent
        write(c, 40)
        conn_of(c).validation.valid_at -= 200 * SECOND  # a recovery of minutes
        c.advance(100)
        c.inject("A", seq=1, ack=1 + base, sack=[block(2, 40, base)])
        answer(c)
        assert cwnd(c) == (20, 20) and conn_of(c).validation.valid_at == c.now
        c.advance(minutes * 60_000)
        write(c, 20)
        assert out(c) == cwnd(c)[0] == left


def test_in_recovery_nothing_expires() -> None:
    """The reduction under way decides."""
    c = used_in_part()
    ctx, conn = c.parts()
    conn.validation.valid_at = 0
    conn.recovery.state = CaState.DISORDER
    output._expire(ctx, conn, c.now)
    assert cwnd(c) == (40, None)
    conn.recovery.state = CaState.OPEN
    ctx.interest = True
    output._expire(ctx, conn, c.now)
    assert [event["why"] for event in c.told("cwnd")] == ["not used"]


def test_by_default_nothing_is_measured() -> None:
    """With slow_start_after_idle = true, Linux's way."""
    c = far(100)
    for size in (10, 20):
        write(c, size)
        answer(c)
    c.quiet()
    base = c.sent
    assert conn_of(c).validation.samples == []
    write(c, 10)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + base, sack=[block(2, 5, base)])
    assert conn_of(c).validation.used == UNDEFINED


def test_window_is_a_strategy_of_the_protocol() -> None:
    """`reduce_to` alone sets a threshold, and bounds it."""
    cc = Window()
    cc.mss = 1000
    cc.reduce_to(0)
    assert cc.ssthresh == 2000


def test_what_is_repaired_counts_from_the_first_byte() -> None:
    """Of a stream whose first thousand bytes were lost R is a thousand."""
    v = Validation(defined=True)
    assert v.congested(10_000, 3_000, RTT, 10 * SECOND)
    v.again(0, 1000)
    assert v.repaired == 1000 and v.window() == 1000
