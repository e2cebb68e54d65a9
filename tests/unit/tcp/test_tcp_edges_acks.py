"""Where tcp decides between two things that lie close together: what an acknowledgment tells, and what follows."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import HOSTS, MS, MSS, Got, Host, established, far
from test_tcp_rack import at, block, flight, sack

from layers.tcp import acknowledgment, loss
from layers.tcp.acknowledgment import new_ack, take_ack, tell_arrival
from layers.tcp.congestion.base import AckSample
from layers.tcp.output import TO_IP_MOST
from layers.tcp.recovery.state import CaState
from layers.tcp.scoreboard import News
from layers.tcp.timers import LOSS_PROBE, OFF, PERSIST, RETRANSMIT

OPEN, DISORDER, CWR, RECOVERY, LOSS = CaState
SECOND = 1000 * MS


def samples(conn: Any) -> list[AckSample]:
    """What the strategy of `conn` is told from now on."""
    told: list[AckSample] = []
    cls = type(conn.congestion)

    class Listening(cls):  # type: ignore[misc, valid-type]
        """As before, and all that it is told is kept."""

        __slots__ = ()

        def acked(self, sample: AckSample) -> None:
            told.append(sample)
            super().acked(sample)

    conn.congestion.__class__ = Listening
    return told


# what a strategy is told


def test_a_strategy_is_told_all_of_an_ack() -> None:
    """Of 5 segments in flight, 2 are acknowledged, after 3 were before: SRTT and the least RTT are of the path."""
    c = flight(8)
    c.inject("A", seq=1, ack=at(4))
    _, conn = c.parts()
    told = samples(conn)
    c.inject("A", seq=1, ack=at(6))
    assert told == [AckSample(2 * MSS, 5 * MSS, 8 * MSS, 5 * MSS, True, 100 * MS, 100 * MS, 100 * MS, c.now)]
    HOSTS.clear()  # this strategy is no part of any state


def test_and_so_it_is_where_something_was_lost_before() -> None:
    """After a timeout the ACKs that come are samples, too: 3 segments were in flight, the first two arrived."""
    c = flight(3, tlp=False, frto=False)
    c.advance(250)
    c.quiet()
    _, conn = c.parts()
    assert conn.recovery.state == LOSS
    flying = conn.tx.in_flight()
    told = samples(conn)
    c.inject("A", seq=1, ack=at(3))
    [sample] = told
    assert (sample.acked, sample.una, sample.flight) == (2 * MSS, 2 * MSS, flying)
    assert (sample.srtt, sample.min_rtt, sample.now) == (conn.rto.srtt, 100 * MS, c.now)
    HOSTS.clear()


def test_half_of_cwnd_is_not_all_of_it() -> None:
    """RFC 7661 4.4, in slow start as Linux: it grows while more than half of it was used, and is
    validated."""
    c = flight(1)
    _, conn = c.parts()
    conn.cwnd_limited = False
    conn.usage = conn.congestion.cwnd // 2
    assert not acknowledgment._limited(conn, True)
    conn.usage += 1
    assert acknowledgment._limited(conn, True)
    assert not acknowledgment._limited(conn, False)
    conn.congestion.ssthresh = conn.congestion.cwnd
    assert not acknowledgment._limited(conn, True)
    HOSTS.clear()


# RTT by the stamp that comes back


@pytest.mark.rfc("RFC 7323 4")
@pytest.mark.parametrize(("age", "rtt"), [(70, 70), (2, 2), (1, 1), (0, 1), (-1, None)])
def test_the_rtt_of_what_went_twice_is_that_of_its_stamp(age: int, rtt: int | None) -> None:
    """In OPEN too, at least one ms; the event tells it. A stamp of the future is none."""
    c = flight(2)
    ctx, conn = c.parts()
    conn.tx.queue[0].times, conn.tx.retrans_out = 2, MSS
    before = conn.rto.samples
    ctx.interest = True
    new_ack(ctx, conn, MSS, (conn.ts_now(c.now) - age) & 0xFFFF_FFFF, c.now)
    assert conn.rto.samples - before == (rtt is not None)
    assert [event["rtt"] for event in c.told("rtt")] == ([] if rtt is None else [rtt * MS])
    HOSTS.clear()


@pytest.mark.parametrize("long", [False, True])
def test_the_first_tick_of_a_clock_is_a_stamp(long: bool) -> None:
    """Only 0 says that there is none (RFC 7323 3.2), on either path."""
    c = flight(2)
    ctx, conn = c.parts()
    conn.tx.queue[0].times, conn.tx.retrans_out = 2, MSS
    conn.ts_offset = (1 + 30 - c.now // MS) & 0xFFFF_FFFF  # 30 ms ago it was 1
    before = conn.rto.samples
    if long:
        conn.recovery.state = DISORDER
        take_ack(ctx, conn, MSS, 1, (), 1, c.now, duplicate=False)
    else:
        new_ack(ctx, conn, MSS, 1, c.now)
    assert conn.rto.samples == before + 1
    HOSTS.clear()


def test_no_stamp_is_no_stamp_on_a_machine_that_runs_for_months() -> None:
    """Half of the space of stamps are 24.8 days: what came without one was not sent then."""
    c = far(tlp=False)
    c.advance(40 * 24 * 3600 * 1000)
    c.write(bytes(MSS))
    c.advance(2000)
    c.quiet()
    _, conn = c.parts()
    assert conn.retransmits
    before = conn.rto.samples
    c.last_tsval = 0
    c.inject("A", seq=1, ack=at(2))
    assert conn.rto.samples == before


# RACK in OPEN


@pytest.mark.rfc("RFC 8985 6.2-2")
@pytest.mark.parametrize(
    ("sent", "times", "least", "latest"),
    [
        (10, 1, 9, True),  # sent later than the latest known
        (5, 1, 9, True),  # at the same instant: it ends later
        (4, 1, 9, False),
        (10, 2, 40, True),  # a repeat, 40 ns ago: as long as the least RTT
        (10, 2, 41, False),  # it may be the original
        (10, 1, 41, True),
    ],
)
def test_the_latest_that_arrived_in_open(sent: int, times: int, least: int, latest: bool) -> None:
    """The second of two segments; known before was what was sent at 5 and ended at 77."""
    c = flight(2)
    ctx, conn = c.parts()
    first, second = conn.tx.queue
    first.sent_at, second.sent_at, second.times, conn.rto.min_rtt = 0, sent, times, least
    conn.tx.retrans_out = MSS if times > 1 else 0
    conn.rack.sent_at, conn.rack.end = 5, 77
    new_ack(ctx, conn, 2 * MSS, -1, sent + 40)
    assert (conn.rack.sent_at, conn.rack.end) == ((sent, 2 * MSS) if latest else (5, 77))
    HOSTS.clear()


# what goes on


def test_what_acks_before_let_out_goes_before_what_the_next_one_tells() -> None:
    """Three ACKs with blocks come in one round of the loop: each of the first two lets a new segment go, and recovery
    begins with these in flight (RFC 5681 3.1)."""
    c = flight(14)
    for last in (2, 3, 4):
        c.inject("A", seq=1, ack=1, sack=[block(2, last)], flush=False)
    _, conn = c.parts()
    assert conn.recovery.state == RECOVERY
    assert conn.recovery.recover == 12 * MSS
    c.flush()


@pytest.mark.parametrize("room", [1, 0])
def test_progress_is_not_told_where_there_is_no_room(room: int) -> None:
    """It is no more than a hint."""
    c = flight(1)
    ctx, conn = c.parts()
    ctx.to_ip.extend([None] * (TO_IP_MOST - room))
    tell_arrival(ctx, conn, c.now)
    assert len(ctx.to_ip) == TO_IP_MOST
    ctx.to_ip.clear()


def test_progress_is_told_at_its_instant_in_recovery_too() -> None:
    """Not a nanosecond later."""
    c = flight(10)
    sack(c, block(2, 5))
    _, conn = c.parts()
    conn.progress_at = c.now
    sack(c, block(3, 5), ack=2)
    assert [when for when, _ in c.progress] == [c.now]


def test_an_answer_from_beyond_a_closed_window_counts_as_one() -> None:
    """Our receive window is closed, and the segment that acknowledges has data: that is refused, and still the peer
    lives (RFC 9293 3.10.7.4: valid ACKs are taken)."""
    c = established(receive_initial=4096, receive_buffer=4096)
    for _ in range(20):
        _, conn = c.parts()
        if not conn.rx.window():
            break
        c.inject("A", seq=1 + conn.rx.rcv_nxt, ack=1, data=bytes(min(1000, conn.rx.window())))
    assert not conn.rx.window()
    c.write(bytes(100))
    conn.probes = 3
    conn.recovery.state = DISORDER
    c.inject("A", seq=1 + conn.rx.rcv_nxt, ack=101, data=b"more")
    assert conn.tx.snd_una == 100
    assert conn.probes == 0


# the loss probe, RFC 8985 7.4


def probed() -> Host:
    """Two segments: the last went again as a probe; both are acknowledged, and then another went."""
    c = flight(2)
    c.advance(150)
    assert c.core.counters["loss_probes"] == 1
    c.inject("A", seq=1, ack=at(3))
    c.write(bytes(MSS))
    c.advance(10)
    return c.quiet()


@pytest.mark.rfc("RFC 8985 7.4.2-2")
def test_an_ack_twice_says_that_both_copies_came() -> None:
    """RFC 8985 7.4.2: a peer without D-SACK answers the second copy with the same ACK again. Nothing was lost."""
    c = probed()
    c.inject("A", seq=1, ack=at(3))
    assert c.tcb()["recovery"]["probe_end"] == -1
    c.inject("A", seq=1, ack=at(4))
    assert c.core.counters["loss_probe_recoveries"] == 0


@pytest.mark.rfc("RFC 8985 7.4.2-2")
@pytest.mark.parametrize("what", ["window", "block", "nothing"])
def test_what_says_nothing_of_the_second_copy(what: str) -> None:
    """Another window; or blocks, which are of what came later. Then the probe has repaired a loss, and cwnd is reduced
    for it once what follows is acknowledged."""
    c = probed()
    before = c.tcb()["congestion"]["cwnd"]
    if what == "window":
        c.inject("A", seq=1, ack=at(3), win=60_000)
    elif what == "block":
        c.write(bytes(2 * MSS))
        c.advance(100)
        c.inject("A", seq=1, ack=at(3), sack=[block(4, 4)])
    assert c.tcb()["recovery"]["probe_end"] == 2 * MSS
    c.inject("A", seq=1, ack=at(4))
    assert c.core.counters["loss_probe_recoveries"] == 1
    assert c.tcb()["congestion"]["cwnd"] < before


def test_a_window_that_grows_beside_a_probe_grows_by_its_ack() -> None:
    """The event says "tlp" only where the probe has repaired a loss: not below its end, not where it was new data."""
    c = flight(10)
    c.advance(150)
    c.core.interest = True
    c.inject("A", seq=1, ack=at(2))
    c.inject("A", seq=1, ack=at(11))
    told = [event["why"] for event in c.told("cwnd")]
    assert told and set(told) == {"ack"}


# reneging


def test_a_peer_that_may_have_reneged_is_given_a_sixteenth_of_srtt() -> None:
    """SRTT 400 ms: 25 ms; not below 10 ms (Linux tcp_check_sack_reneging). And cwnd grows by what arrived alone."""
    for rtt, wait in ((400, 25 * MS), (100, 10 * MS)):
        c = far(rtt)
        c.write(bytes(6 * MSS))
        c.advance(rtt)
        c.core.interest = True
        sack(c, block(3, 3), ack=2)
        c.core.events()
        sack(c, block(3, 3), ack=3)
        _, conn = c.parts()
        assert conn.tx.queue[0].sacked
        assert conn.deadlines[RETRANSMIT] == c.now + wait
        [event] = [event for event in c.told("timer") if event["name"] == "reneging"]
        assert event["deadline"] == c.now + wait and type(event["deadline"]) is int


# windows


@pytest.mark.parametrize(
    ("acked", "advanced", "lost", "more"), [(1, True, 0, 1 + MSS), (1, True, 5, 1), (1, False, 0, 1), (0, True, 0, 0)]
)
def test_each_byte_that_arrives_counts_in_a_reduction(acked: int, advanced: bool, lost: int, more: int) -> None:
    """RFC 9937 6: one byte lets one go, and a segment more where it moved SND.UNA and nothing new was lost."""
    c = flight(10)
    _, conn = c.parts()
    conn.recovery.state = CWR
    conn.recovery.prr.start(10 * MSS)
    conn.recovery.prr.out = 1
    conn.recovery.prr.delivered = 1
    conn.congestion.ssthresh, conn.congestion.cwnd = 30 * MSS, 10 * MSS
    sample = AckSample(acked, 0, 10 * MSS, 10 * MSS, True, -1, 0, 0, c.now)
    acknowledgment._window(conn, sample, advanced, True, lost)
    assert conn.congestion.cwnd - 10 * MSS == more
    HOSTS.clear()


# without SACK


@pytest.mark.rfc("RFC 3168 6.1.2")
@pytest.mark.parametrize("sack", [False, True])
def test_a_reduction_without_a_loss_is_over_when_its_window_is_acknowledged(sack: bool) -> None:
    """CWR: what is acknowledged at once lets as much go, and a segment more, as nothing was lost; then OPEN."""
    c = flight(20, sack=sack)
    ctx, conn = c.parts()
    conn.tx.snd_end = conn.tx.snd_nxt  # nothing more goes
    loss.enter_cwr(ctx, conn, c.now)
    conn.recovery.prr.out = MSS
    conn.congestion.ssthresh = 20 * MSS
    c.core.interest = True
    take_ack(ctx, conn, 4 * MSS, -1, (), 1, c.now, duplicate=False)
    assert conn.congestion.cwnd == (6 + 4 + 1) * MSS
    conn.recovery.recover = 5 * MSS
    take_ack(ctx, conn, 6 * MSS, -1, (), 1, c.now, duplicate=False)
    [event] = c.told("recovery")
    assert (event["old"], event["new"], event["why"]) == ("CWR", "OPEN", "acknowledged")
    HOSTS.clear()


def test_a_reduction_is_by_what_is_in_flight() -> None:
    """Wherever in the stream that is."""
    c = flight(10)
    c.inject("A", seq=1, ack=at(7))
    ctx, conn = c.parts()
    loss.enter_cwr(ctx, conn, c.now)
    assert conn.recovery.prr.recover_fs == 4 * MSS
    HOSTS.clear()


def test_a_small_loss_is_told_by_its_size() -> None:
    """Four pieces of 100 bytes, the first of which is lost: no more than these 400 can be."""
    c = far(sack=False)
    c.write(bytes(MSS))
    c.inject("A", seq=1, ack=at(2))
    c.parts()[1].options.nodelay = 1
    for _ in range(4):
        c.write(bytes(100))
    c.core.interest = True
    for _ in range(3):
        c.inject("A", seq=1, ack=at(2))
    assert [event["bytes"] for event in c.told("loss")] == [400]


# after a timeout


@pytest.mark.rfc("RFC 5682 2.1-5")
@pytest.mark.parametrize("sack", [True, False])
def test_a_duplicate_ack_after_new_data_ends_frto(sack: bool) -> None:
    """RFC 5682 2.1 step 3 a, 3.1 step 3 a: only the new data arrives, so the loss was real."""
    c = flight(4, sack=sack)
    ctx, conn = c.parts()
    conn.recovery.state, conn.recovery.frto, conn.recovery.recover = LOSS, True, 3 * MSS
    take_ack(ctx, conn, 0, -1, (), 1, c.now, duplicate=True)
    assert not conn.recovery.frto
    HOSTS.clear()


def test_frto_waits_for_an_ack_that_advances() -> None:
    """RFC 5682 2.1 step 2: what acknowledges nothing new decides nothing, as long as no new data went out."""
    c = flight(14, tlp=False)
    c.advance(250)
    assert c.core.counters["rto_timeouts"] == 1
    _, conn = c.parts()
    before = conn.recovery.recover
    c.write(bytes(MSS))
    c.inject("A", seq=1, ack=1)
    assert conn.recovery.frto and not conn.recovery.frto_new
    assert conn.recovery.recover == before == conn.tx.snd_nxt


def test_timeouts_for_nothing_are_counted() -> None:
    """Twice on one connection: what was sent before the timeout arrives after it."""
    c = far(tlp=False)
    for number, wait in enumerate((1000, 20_000)):
        c.write(bytes(4 * MSS))
        c.advance(wait)
        assert c.parts()[1].recovery.state == LOSS
        first = 1 + 4 * number
        c.inject("A", seq=1, ack=at(first), sack=[block(first + 2, first + 2)])
        c.inject("A", seq=1, ack=at(first + 4))
        c.advance(2000)
    assert c.core.counters["spurious_rtos"] == 2


@pytest.mark.rfc("RFC 3708 3")
def test_a_timeout_whose_repeat_came_twice_lost_nothing() -> None:
    """A D-SACK names all that went again, with an ACK of new data: what was held to be lost is in flight after all, and
    does not go again (RFC 4015 3)."""
    c = flight(6, tlp=False, frto=False)
    before = c.tcb()["congestion"]["cwnd"]
    c.advance(250)
    c.last_tsval = next(Got(c, segment).options.timestamps[0] for segment in c.segments)
    assert c.parts()[1].tx.lost_bytes == 5 * MSS
    c.quiet()
    c.inject("A", seq=1, ack=at(3), sack=[block(1, 1)])
    assert c.core.counters["undone_dsack"] == 1
    assert c.parts()[1].tx.lost_bytes == 0
    assert c.tcb()["congestion"]["cwnd"] == before + 2 * MSS  # slow start goes on
    c.expect_nothing()


@pytest.mark.rfc("RFC 2883 4")
def test_a_dsack_of_what_lies_before_a_reduction_undoes_none_of_it() -> None:
    """It ends where that began."""
    for right, left in ((MSS, 500), (MSS + 1, 499 - MSS)):
        c = flight(3)
        ctx, conn = c.parts()
        conn.recovery.undo_marker, conn.recovery.undo_bytes = MSS, 500
        acknowledgment._dsack(ctx, conn, News(-1, -1, 0, c.now, dsack=(0, right)), MSS)
        assert conn.recovery.undo_bytes == left
        HOSTS.clear()


# the peer's window


@pytest.mark.rfc("RFC 9293 3.8.6")
@pytest.mark.parametrize(("closed", "times", "lost"), [(True, 2, 2), (True, 3, 2), (True, 1, 0), (False, 2, 0)])
def test_what_was_repeated_into_a_closed_window_was_thrown_away(closed: bool, times: int, lost: int) -> None:
    """It goes again as soon as the window opens; not what was sent before it closed, nor where it was only small."""
    c = flight(2)
    ctx, conn = c.parts()
    tx = conn.tx
    tx.snd_wnd = 0 if closed else 1000
    tx.queue[0].times = times
    tx.retrans_out = MSS if times > 1 else 0
    assert acknowledgment.window_update(ctx, conn, 0, 0, 50_000)
    assert tx.lost_bytes == lost * MSS
    HOSTS.clear()


@pytest.mark.rfc("RFC 9293 3.8.6.1")
@pytest.mark.parametrize(("old", "new", "goes_on"), [(0, 1, False), (500, 500, True), (500, 0, True), (0, 5000, False)])
def test_what_ends_the_persist_state(old: int, new: int, goes_on: bool) -> None:
    """A window that changes and is open, be it by a byte; one that closes does not put the next probe off, nor does a
    peer that talks and leaves its window as it is."""
    c = flight(1)
    ctx, conn = c.parts()
    conn.tx.snd_wnd = old
    ctx.timers.arm(conn, PERSIST, c.now + SECOND)
    acknowledgment.window_update(ctx, conn, 0, 0, new)
    assert conn.deadlines[PERSIST] == (c.now + SECOND if goes_on else OFF)
    HOSTS.clear()


# what a loss is blamed on


def searching() -> tuple[Any, Any]:
    """A probe of the MTU of 1236 bytes is under way at 5000, and lost, alone."""
    c = far(mtu_probing=2, initial_window=20)
    ctx, conn = c.parts()
    conn.tx.snd_end = 30_000
    conn.tx.snd_una = conn.mtu.probe_start = 5000
    conn.mtu.probe_end, conn.mtu.probe_size, conn.tx.lost_bytes = 6236, 1288, 1236
    return ctx, conn


@pytest.mark.parametrize(("state", "alone"), [(OPEN, True), (DISORDER, True), (CWR, False), (RECOVERY, False)])
def test_in_a_reduction_a_probe_of_the_mtu_is_lost_as_anything_else(state: CaState, alone: bool) -> None:
    """Then congestion is to blame (RFC 4821 7.5); else the size is, and there is nothing to undo."""
    ctx, conn = searching()
    conn.recovery.state, conn.recovery.undo_marker = state, 4000
    assert loss.blame_size(ctx, conn) is alone
    assert conn.recovery.undo_marker == (-1 if alone else 4000)
    HOSTS.clear()


def test_smaller_packets_end_frto() -> None:
    """All goes again for its size: nothing is to be learned from what arrives."""
    c = flight(4)
    ctx, conn = c.parts()
    conn.recovery.frto = conn.recovery.frto_new = True
    loss.resegment(ctx, conn)
    assert (conn.recovery.frto, conn.recovery.frto_new) == (False, False)
    HOSTS.clear()


# the loss probe's timer, RFC 8985 7.2


@pytest.mark.rfc("RFC 8985 7.2-2", "RFC 8985 7.2-3")
def test_without_an_rtt_a_probe_waits_a_second() -> None:
    """From what was sent last on; never longer than the retransmission timer."""
    for timeout, wait in ((3 * SECOND, SECOND), (SECOND // 2, SECOND // 2)):
        c = flight(2)
        ctx, conn = c.parts()
        conn.rto.srtt, conn.rto.rto = 0, timeout
        conn.last_data_sent_at = ctx.now
        conn.deadlines[RETRANSMIT] = ctx.now + timeout
        assert loss.probe_deadline(conn) == ctx.now + wait
        conn.scheduled[LOSS_PROBE] = OFF
        loss.arm_probe(ctx, conn)
        assert conn.deadlines[LOSS_PROBE] == ctx.now + wait
        HOSTS.clear()


def test_where_nothing_is_under_way_there_is_nothing_to_probe() -> None:
    """All was acknowledged."""
    c = far()
    assert not loss.probe_possible(c.parts()[1])
    c.write(bytes(10))
    assert loss.probe_possible(c.parts()[1])
    c.inject("A", seq=1, ack=11)
    assert not loss.probe_possible(c.parts()[1])


@pytest.mark.rfc("RFC 9937 6.2-3")
@pytest.mark.parametrize(("ack", "more", "cwnd"), [(2, block(2, 4), 20), (5, block(8, 10), 16)])
def test_an_ack_is_safe_that_tells_of_no_further_loss(ack: int, more: tuple[int, int], cwnd: int) -> None:
    """RFC 9937 6, below ssthresh: as much as arrived and has not gone again, and a segment more where it is safe.

    20 segments, 2 to 4 named: the first is lost and went again. Then either that arrives: 16 are in flight, 4 have
    arrived, 1 went. Or all four, and 8 to 10 are named, so that 5 to 7 are lost: 10 are in flight, 7 have arrived.
    """
    c = far(initial_window=20)
    c.write(bytes(20 * MSS))
    c.advance(100)
    sack(c, block(2, 4))
    _, conn = c.parts()
    assert (conn.recovery.state, conn.recovery.prr.out) == (RECOVERY, MSS)
    conn.congestion.ssthresh = 100 * MSS
    repeat = Got(c, c.segments[-1])
    assert repeat.seq == 1 and repeat.options.timestamps is not None
    c.last_tsval = repeat.options.timestamps[0]
    sack(c, more, ack=ack)
    assert conn.congestion.cwnd == cwnd * MSS
    HOSTS.clear()


def test_after_a_timeout_all_that_arrives_is_new() -> None:
    """Without SACK, in LOSS: a duplicate ACK of before is no segment of the ACK that advances; in DISORDER it is."""
    for state, acked in ((LOSS, 3 * MSS), (DISORDER, 2 * MSS)):
        c = flight(8, sack=False)
        ctx, conn = c.parts()
        conn.recovery.state, conn.recovery.duplicates, conn.recovery.recover = state, 1, 8 * MSS
        told = samples(conn)
        take_ack(ctx, conn, 3 * MSS, -1, (), 1, c.now, duplicate=False)
        assert [sample.acked for sample in told] == [acked]
        HOSTS.clear()
