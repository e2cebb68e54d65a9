"""Where tcp decides between two things that lie close together: loss, the scoreboard, timeouts and their undoing."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import HOSTS, MS, MSS, Got, Host, far
from test_tcp_rack import at, block, flight, sack

from layers.tcp import acknowledgment, loss, mtu_probe, scoreboard
from layers.tcp.acknowledgment import take_ack
from layers.tcp.recovery.rack import Rack
from layers.tcp.recovery.state import CaState
from layers.tcp.rto import Rto
from layers.tcp.scoreboard import News
from layers.tcp.send_space import SendSpace, Sent

OPEN, DISORDER, RECOVERY, LOSS = CaState.OPEN, CaState.DISORDER, CaState.RECOVERY, CaState.LOSS


def probing() -> tuple[Host, Any, Any]:
    """A probe of 1236 bytes may go: cwnd 20 packets of 1024, enough written."""
    c = far(mtu_probing=2, initial_window=20)
    ctx, conn = c.parts()
    conn.tx.snd_end = 30_000
    return c, ctx, conn


def space(*, fin_at: int = -1, size: int = 10) -> SendSpace:
    """Established, nothing sent."""
    tx = SendSpace(1 << 16, snd_una=0, snd_nxt=0, snd_end=1000, snd_wnd=1 << 16, max_wnd=100)
    tx.mss, tx.fin_at = size, fin_at
    return tx


@pytest.mark.rfc("RFC 5682 2.1-2", "RFC 5682 2.1-8")
@pytest.mark.parametrize(
    ("state", "una", "retransmits", "first", "frto"),
    [
        (OPEN, 0, 0, True, True),
        (DISORDER, 0, 0, True, True),
        (RECOVERY, 0, 0, False, False),
        (RECOVERY, 1, 0, True, False),  # all of the last reduction's is acknowledged
        (RECOVERY, 0, 1, False, True),
        (LOSS, 0, 0, True, False),
        (LOSS, 0, 1, False, True),
    ],
)
def test_a_timeout_reduces_once_for_the_same_data(
    state: CaState, una: int, retransmits: int, first: bool, frto: bool
) -> None:
    """RFC 5681 3.1; F-RTO not in an earlier recovery, but for the same segment again (RFC 5682 2.1 step 1, 2.2)."""
    c = far()
    ctx, conn = c.parts()
    c.write(bytes(8 * MSS))
    conn.recovery.state, conn.retransmits = state, retransmits
    conn.recovery.recover = conn.tx.snd_una if una else conn.tx.snd_nxt
    before = conn.congestion.ssthresh
    loss.enter_loss(ctx, conn, c.now)
    assert (conn.congestion.ssthresh != before) is first
    assert conn.recovery.frto is frto
    HOSTS.clear()  # a state made by hand is no state to restore


@pytest.mark.parametrize(
    ("what", "value"),
    [("", 0), ("state", DISORDER), ("state", RECOVERY), ("probe_end", 0), ("sacked", MSS), ("lost", MSS), ("wnd", MSS)],
)
def test_what_forbids_a_loss_probe(what: str, value: int) -> None:
    """Each alone: RFC 8985 7.3, and a window that shrank."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(2 * MSS))
    tx, recovery = conn.tx, conn.recovery
    if what == "state":
        recovery.state = CaState(value)
    elif what == "probe_end":
        recovery.probe_end = value
    elif what == "sacked":
        tx.sacked_bytes = value
    elif what == "lost":
        tx.lost_bytes = value
    elif what == "wnd":
        tx.snd_wnd = value
    assert loss.probe_possible(conn) is (what == "")
    HOSTS.clear()


def test_a_packet_that_was_overtaken_by_one_was_overtaken_by_one() -> None:
    """Also by less than a full one."""
    c = flight(2)
    ctx, conn = c.parts()
    ctx.interest = True
    conn.rack.fack = 100
    loss.overtaken(ctx, conn, 0, "sack")
    [event] = c.told("reordering")
    assert event["packets"] == 1


def test_recovery_that_is_over_forgets_when_it_sent_again() -> None:
    """What an old echo is compared with is of this reduction, not of the last."""
    c = flight(10)
    sack(c, block(2, 5))
    c.advance(100)
    c.inject("A", seq=1, ack=at(11))
    recovery = c.tcb()["recovery"]
    assert (recovery["state"], recovery["resent_at"]) == (0, -1)


def test_dsacks_that_name_all_with_the_last_ack_bring_the_window_back_exactly() -> None:
    """RFC 3708: as it was before the reduction, no more."""
    c = flight(10)
    sack(c, block(2, 5))
    c.expect("A", seq=at(1), len=MSS)
    c.advance(50)
    before = 10 * MSS
    c.inject("A", seq=1, ack=at(11), sack=[(at(1), at(2))])
    assert c.core.counters["undone_dsack"] == 1
    assert c.tcb()["congestion"]["cwnd"] == before


def test_a_spurious_recovery_without_sack_loses_nothing() -> None:
    """RFC 4015 3: what a partial ACK had marked lost, and has not gone again, is in flight after all."""
    c = flight(12, sack=False)
    original = c.last_tsval
    for _ in range(3):
        c.inject("A", seq=1, ack=1)
    c.advance(10)
    c.last_tsval = max(Got(c, segment).options.timestamps[0] for segment in c.segments)  # type: ignore[index]
    c.quiet()
    c.inject("A", seq=1, ack=at(2), flush=False)
    assert c.parts()[1].tx.lost_bytes
    c.last_tsval = original
    c.inject("A", seq=1, ack=at(2) + 100, flush=False)
    assert c.core.counters["undone_timestamp"] == 1
    assert c.parts()[1].tx.lost_bytes == 0
    c.flush()


def test_a_probe_that_repaired_a_loss_reduces_in_disorder_too() -> None:
    """RFC 8985 7.4.2: nobody else will tell of that loss."""
    c = flight(3)
    ctx, conn = c.parts()
    conn.recovery.state = DISORDER
    conn.recovery.probe_again, conn.recovery.probe_end = True, 2 * MSS
    take_ack(ctx, conn, 3 * MSS, -1, (), 1, c.now, duplicate=False)
    assert c.core.counters["loss_probe_recoveries"] == 1
    assert conn.congestion.ssthresh < 1 << 30
    assert acknowledgment.DISORDER == DISORDER


def test_a_backoff_taken_back_leaves_whole_nanoseconds() -> None:
    """Without a sample the RTO is halved."""
    rto = Rto(200 * MS, 60_000 * MS, 1000 * MS)
    rto.back_off()
    rto.revert()
    assert rto.rto == 1000 * MS and type(rto.rto) is int


def test_what_a_sack_block_ends_within() -> None:
    """Whole packets count, the edge is known to the byte; whoever has the last text has the FIN."""
    tx, rack, news = space(fin_at=25), Rack(), News(-1, -1, 0, 0)
    tx.record(20, 0, 10)
    tx.record(26, 0, 10)
    scoreboard.mark_sacked(tx, rack, 0, 15, news)
    assert (tx.sacked_bytes, rack.fack) == (10, 15)
    scoreboard.mark_sacked(tx, rack, 10, 25, news)
    assert tx.sacked_bytes == 26


def test_a_dsack_that_begins_too_far_back_is_none_of_ours() -> None:
    """However far it reaches: older than the largest window (Linux tcp_is_sackblock_valid)."""
    tx = space()
    tx.snd_una = tx.snd_nxt = 1000
    for left, known in ((890, True), (889, False)):
        news = News(-1, -1, 0, 0)
        scoreboard.judge_blocks(tx, ((tx.seq(left), tx.seq(990)),), 1000, news)
        assert (news.dsack is not None) is known


def test_a_nanosecond_before_it_is_lost() -> None:
    """RFC 8985 6.2 step 5: it still may come."""
    for now, lost, wait in ((129, 0, 1), (130, 10, 0)):
        tx, rack = space(), Rack(sent_at=50, end=20, rtt=100)
        tx.record(10, 10, 10)
        tx.record(20, 50, 10)
        tx.queue[1].sacked, tx.sacked_bytes, tx.sacked_packets = True, 10, 1
        assert scoreboard.detect(tx, rack, 20, now) == (lost, wait, False)


def test_an_echo_of_nothing_is_no_round_trip() -> None:
    """TSecr 0 of a peer that never saw a stamp: RFC 7323 3.2. Neither in recovery nor where something went again."""
    for segments in (10, 1):
        c = flight(segments, tlp=False)
        _, conn = c.parts()
        conn.ts_offset = 0
        c.advance(400)
        samples = conn.rto.samples
        c.last_tsval = 0
        c.inject("A", seq=1, ack=at(2))
        assert conn.rto.samples == samples
    c = flight(2)
    ctx, conn = c.parts()
    conn.ts_offset, conn.tx.queue[0].times, conn.tx.retrans_out = 0, 2, MSS
    samples = conn.rto.samples
    acknowledgment.new_ack(ctx, conn, MSS, 0, c.now)
    assert conn.rto.samples == samples


def test_a_dsack_of_something_else_is_none_of_the_probe() -> None:
    """RFC 8985 7.4.2 asks for the probe's own; and a repeat for nothing widens the reordering window (6.2 step 4)."""
    for again, right, mine in ((True, 500, False), (True, MSS, True), (False, MSS, False)):
        c = flight(2)
        ctx, conn = c.parts()
        conn.recovery.probe_again, conn.recovery.probe_end = again, MSS
        news = News(-1, -1, 0, c.now, dsack=(0, right))
        assert acknowledgment._dsack(ctx, conn, news, 0) is mine
        assert conn.rack.mult == (1 if mine else 2)
        HOSTS.clear()


def test_one_timeout_is_taken_back_once() -> None:
    """RFC 6069: a second word of the same hop finds no backoff."""
    c = far(tlp=False)
    c.write(bytes(100))
    c.advance(300)
    c.icmp(3, 0, seq=1)
    c.icmp(3, 0, seq=1)
    assert c.core.counters["backoffs_reverted"] == 1


def test_the_lowest_that_was_overtaken() -> None:
    """Of two the first, also where the stream begins."""
    rack, news = Rack(fack=100), News(-1, -1, 0, 9)
    for start in (0, 10):
        scoreboard._arrived(Sent(start, start + 10, 1, 10), rack, news)
    assert news.low == 0


@pytest.mark.parametrize(("now", "lost"), [(169, 10), (170, 20)])
def test_what_a_timeout_holds_to_be_lost(now: int, lost: int) -> None:
    """The head, and what was sent an RTT and the reordering window ago: 50 + 100 + 20 (RFC 8985 6.3)."""
    tx, rack = space(), Rack(rtt=100)
    tx.record(10, 10, 10)
    tx.record(20, 50, 10)
    scoreboard.lose_on_timeout(tx, rack, 20, now, sack=True)
    assert tx.lost_bytes == lost


def test_a_repeat_found_lost_by_the_timer_begins_no_new_recovery() -> None:
    """It goes again within the one that runs (RFC 8985 6.2 step 5)."""
    c = flight(20)
    _, conn = c.parts()
    sack(c, block(2, 5))
    sack(c, block(2, 9))
    conn.rack.reordering_seen = True  # so that its window is a quarter of the RTT
    c.advance(100)
    sack(c, block(2, 9), block(11, 11))
    assert not c.core.counters["lost_retransmissions"]
    c.advance(30)
    assert c.core.counters["lost_retransmissions"] == c.core.counters["fast_retransmits"] == 1


def test_a_probe_that_is_not_lost_alone() -> None:
    """RFC 4821 7.6.4: then congestion may be to blame, wherever in the stream it is."""
    for lost_bytes, alone in ((1236, True), (1237, False)):
        c, ctx, conn = probing()
        conn.tx.snd_una = conn.mtu.probe_start = 5000
        conn.mtu.probe_end, conn.mtu.probe_size, conn.tx.lost_bytes = 6236, 1288, lost_bytes
        assert mtu_probe.lost(ctx, conn) is alone
        assert (conn.mtu.high, conn.mtu.probe_end) == (1287 if alone else 1500, -1)
        HOSTS.clear()
        assert c.mss == 1460


def test_a_loss_among_what_may_be_reordered_is_told_as_such() -> None:
    """By RACK, not by the number of duplicates: event and recovery say so."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(MSS))
    c.advance(50)
    c.write(bytes(MSS))
    c.advance(100)
    conn.rack.reordering_seen = True
    c.core.interest = True
    sack(c, block(2, 2))
    events = c.core.events()
    assert {event.data["why"] for event in events if event.kind in ("loss", "recovery")} == {"rack"}


@pytest.mark.rfc("RFC 2883 4")
@pytest.mark.parametrize(
    ("blocks", "dsack", "invalid"),
    [
        ([(5, 5), (30, 40)], None, [(5, 5)]),  # of no bytes: no block at all
        ([(5, 9), (30, 40)], (5, 9), []),  # below the acknowledgment
        ([(32, 38), (30, 40)], (32, 38), []),  # within the second
        ([(30, 40), (30, 40)], (30, 40), []),  # all of it
        ([(25, 35), (30, 40)], None, []),  # it begins before that
        ([(35, 45), (30, 40)], None, []),  # it ends behind that
    ],
)
def test_what_the_first_block_is(
    blocks: list[tuple[int, int]], dsack: tuple[int, int] | None, invalid: list[tuple[int, int]]
) -> None:
    """A D-SACK, a block as any, or the peer's mistake."""
    tx, news = space(), News(-1, -1, 0, 0)
    tx.record(100, 0, 10)
    good = scoreboard.judge_blocks(tx, tuple((tx.seq(left), tx.seq(right)) for left, right in blocks), 10, news)
    assert (news.dsack, news.invalid) == (dsack, invalid)
    assert good == sorted(blocks[1:] if dsack or invalid else blocks)


def test_neighbours_that_both_were_named_are_one() -> None:
    """Also at the end of what is in flight, and whichever was named first."""
    for order in ((10, 0), (0, 10)):
        tx, rack, news = space(), Rack(), News(-1, -1, 0, 0)
        tx.record(10, 0, 10)
        tx.record(20, 0, 10)
        for left in order:
            scoreboard.mark_sacked(tx, rack, left, left + 10, news)
        assert [(row.start, row.end) for row in tx.queue] == [(0, 20)]


def test_the_last_byte_in_flight_is_looked_at() -> None:
    """All but one byte was named, and that is lost."""
    tx, rack = space(), Rack(sent_at=50, end=20, rtt=10)
    tx.record(1, 10, 10)
    tx.record(20, 50, 10)
    tx.queue[1].sacked, tx.sacked_bytes, tx.sacked_packets = True, 19, 2
    assert scoreboard.detect(tx, rack, 0, 100) == (1, 0, False)
