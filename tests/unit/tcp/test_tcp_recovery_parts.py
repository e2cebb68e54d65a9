"""Loss recovery where it is plain arithmetic, at its limits: what may be undone, PRR, RACK, NewReno, HyStart++, cwnd.

Segments are of 1000 bytes; how the parts work together is in test_tcp_rack.py, test_tcp_undo.py and test_tcp_loss.py.
"""

from __future__ import annotations

import pytest

from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample
from layers.tcp.congestion.hystart import CSS_ROUNDS, HyStart, Phase
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.congestion.window import MAX_CWND
from layers.tcp.recovery import newreno
from layers.tcp.recovery.prr import Prr
from layers.tcp.recovery.rack import MAX_REORDERING, PERSIST, Rack
from layers.tcp.recovery.state import CaState, Recovery

MSS = 1000
MS = 1_000_000
OPEN, DISORDER, CWR, RECOVERY, LOSS = CaState


# what a reduction was made for: RFC 3522, 3708


def test_a_reduction_that_begins_with_nothing_sent_again() -> None:
    """The first retransmission after it sets the clock; later ones add bytes only."""
    recovery = Recovery(resent_at=77, resent=True)
    recovery.start_undo(5000, 0)
    assert (recovery.undo_marker, recovery.undo_bytes, recovery.resent, recovery.resent_at) == (5000, 0, False, -1)
    recovery.sent_again(MSS, 0)  # at the clock's very beginning
    recovery.sent_again(500, 60)
    assert (recovery.undo_bytes, recovery.resent, recovery.resent_at) == (1500, True, 0)


@pytest.mark.parametrize("under_way", [1, MSS])
def test_a_reduction_while_something_sent_again_is_under_way(under_way: int) -> None:
    """That counts as sent again, since when it went out."""
    recovery = Recovery(resent_at=77)
    recovery.start_undo(0, under_way)
    assert (recovery.undo_bytes, recovery.resent, recovery.resent_at) == (under_way, True, 77)


@pytest.mark.parametrize(
    ("marker", "echoed", "original"),
    [
        (0, 0, True),  # the clock may begin at 0, the stream too
        (0, 1, True),
        (0, 49, True),
        (0, 50, False),  # as late as the first retransmission: it may be an echo of that
        (0, 51, False),
        (0, -1, False),  # no echo
        (-1, 10, False),  # nothing to undo
    ],
)
def test_an_echo_of_the_original(marker: int, echoed: int, original: bool) -> None:
    """RFC 3522 3.2: older than the first retransmission, which went out at 50 ms."""
    assert Recovery(undo_marker=marker, resent=True, resent_at=50).delayed(echoed) is original


@pytest.mark.parametrize(
    ("marker", "resent", "left", "twice"),
    [(0, True, 0, True), (0, True, -5, True), (0, True, 1, False), (0, False, 0, False), (-1, True, 0, False)],
)
def test_all_of_it_has_arrived_twice(marker: int, resent: bool, left: int, twice: bool) -> None:
    """RFC 3708 3: every byte sent again was named by a D-SACK."""
    assert Recovery(undo_marker=marker, resent=resent, undo_bytes=left).all_twice() is twice


# PRR, RFC 9937


def test_prr_sends_in_proportion_while_more_is_in_flight_than_shall_be() -> None:
    """Ten segments outstanding, down to five: after the first ACK one goes at least, then one for every two that
    arrive, rounded up."""
    prr = Prr()
    prr.delivered = prr.out = 9999
    prr.start(10 * MSS)
    assert (prr.delivered, prr.out, prr.recover_fs) == (0, 0, 10 * MSS)
    assert prr.window(MSS, False, 9 * MSS, 5 * MSS, MSS) == 9 * MSS + MSS  # 500, but the first must go
    prr.out += MSS
    assert prr.window(MSS, False, 9 * MSS, 5 * MSS, MSS) == 9 * MSS  # 2000 * 5 / 10 - 1000
    assert prr.window(MSS, False, 8 * MSS, 5 * MSS, MSS) == 8 * MSS + 500
    assert prr.window(1, False, 8 * MSS, 5 * MSS, MSS) == 8 * MSS + 501  # 500.5 rounded up


def test_prr_below_ssthresh_is_bounded() -> None:
    """As much as is delivered; one segment more where the ACK is safe; never above ssthresh; never a negative count."""
    prr = Prr(delivered=4 * MSS, out=4 * MSS, recover_fs=10 * MSS)
    assert prr.window(MSS, False, 3 * MSS, 5 * MSS, MSS) == 4 * MSS
    assert prr.window(MSS, True, 3 * MSS, 5 * MSS, MSS) == 5 * MSS  # 2 delivered more than out, + 1, but 2 fit
    assert prr.window(MSS, True, 5 * MSS, 5 * MSS, MSS) == 5 * MSS  # equal: no more
    behind = Prr(delivered=0, out=6 * MSS, recover_fs=10 * MSS)
    assert behind.window(MSS, False, 4 * MSS, 5 * MSS, MSS) == 5 * MSS  # what this ACK delivered, though more went out
    assert behind.window(MSS, False, 6 * MSS, 5 * MSS, MSS) == 6 * MSS  # 1000 - 6000: nothing, not less


def test_prr_of_nothing_outstanding() -> None:
    """A byte stands for it, so that nothing is divided by zero."""
    prr = Prr()
    prr.start(0)
    assert prr.recover_fs == 1


# RACK, RFC 8985


def test_rack_remembers_the_latest_that_arrived() -> None:
    """Later sent, or sent at the same time and further on; else nothing changes but the round trip. Instant 0 is an
    instant."""
    rack = Rack()
    assert rack.update(0, 10, 5) and (rack.sent_at, rack.end, rack.rtt) == (0, 10, 5)
    assert not rack.update(0, 10, 9) and not rack.update(0, 9, 8) and rack.rtt == 8
    assert rack.update(0, 11, 9) and (rack.end, rack.rtt) == (11, 9)
    assert rack.update(1, 3, 9) and (rack.sent_at, rack.end, rack.rtt) == (1, 3, 8)
    assert not rack.update(0, 99, 10) and (rack.sent_at, rack.end, rack.rtt) == (1, 3, 10)


def test_rack_reordering_only_grows() -> None:
    """Up to 300 packets, as Linux; and each time is counted."""
    rack = Rack()
    for packets, longest in ((2, 3), (7, 7), (5, 7), (1000, MAX_REORDERING)):
        rack.overtaken(packets)
        assert (rack.reordering_seen, rack.reordering) == (True, longest)
    assert rack.reorders == 4 and MAX_REORDERING == 300


def test_rack_widens_once_a_round_trip() -> None:
    """A D-SACK while SND.NXT is 10, more before that is acknowledged, and one just then. 16 recoveries keep it."""
    rack = Rack()
    rack.dsack(0, 10)
    assert (rack.mult, rack.persist) == (2, PERSIST) and PERSIST == 16
    rack.dsack(9, 20)
    assert rack.mult == 2
    rack.dsack(10, 20)
    assert rack.mult == 3
    for left in range(15, 0, -1):
        rack.recovered()
        assert (rack.persist, rack.mult) == (left, 3)
    rack.recovered()
    assert (rack.persist, rack.mult) == (0, 1)
    rack.recovered()
    assert (rack.persist, rack.mult) == (0, 1)
    begin = Rack()
    begin.dsack(0, 0)  # a round that ends at offset 0 is one, too
    begin.dsack(0, 5)
    assert begin.mult == 3


@pytest.mark.parametrize(
    ("seen", "state", "sacked", "window"),
    [
        (False, OPEN, 0, 10),
        (False, OPEN, 2, 10),
        (False, OPEN, 3, 0),  # RFC 6675's DupThresh
        (False, CWR, 0, 10),
        (False, RECOVERY, 0, 0),
        (False, LOSS, 0, 0),
        (True, OPEN, 3, 10),
        (True, RECOVERY, 9, 10),
    ],
)
def test_rack_window(seen: bool, state: CaState, sacked: int, window: int) -> None:
    """RFC 8985 6.2 step 4: a quarter of the shortest RTT (40), times the multiplier, but no more than SRTT."""
    rack = Rack(reordering_seen=seen)
    assert rack.window(state, sacked, 40, 1000) == window
    rack.mult = 3
    assert rack.window(state, sacked, 40, 1000) == 3 * window
    assert rack.window(state, sacked, 40, 7) == min(7, window)


# NewReno, RFC 5681, 6582, 3042


@pytest.mark.parametrize(
    ("duplicates", "state", "una", "lost"),
    [
        (3, OPEN, 11, True),
        (4, DISORDER, 11, True),
        (3, CWR, 11, True),
        (3, RECOVERY, 11, False),
        (3, LOSS, 11, False),
        (2, OPEN, 11, False),
        (3, OPEN, 10, False),  # of what was sent before the last timeout: RFC 6582 3.2 step 2
    ],
)
def test_a_third_duplicate(duplicates: int, state: CaState, una: int, lost: bool) -> None:
    """`recover` is 10."""
    assert newreno.third_duplicate(Recovery(state=state, recover=10, duplicates=duplicates), una) is lost


def test_newreno_windows() -> None:
    """At the start three segments more; a partial ACK deflates, and gives a whole one back; at the end no burst."""
    assert newreno.at_start(5000, MSS) == 8000
    assert newreno.after_partial(8000, 2000, MSS) == 7000
    assert newreno.after_partial(8000, MSS, MSS) == 8000
    assert newreno.after_partial(8000, 999, MSS) == 7001
    assert newreno.after_partial(1500, 1400, MSS) == 2000  # never below one
    assert newreno.at_exit(5000, 2000, MSS) == 3000
    assert newreno.at_exit(5000, 0, MSS) == 2000
    assert newreno.at_exit(5000, 9000, MSS) == 5000


@pytest.mark.parametrize(
    ("duplicates", "state", "extra"),
    [(0, OPEN, 0), (1, DISORDER, MSS), (2, CWR, 2 * MSS), (3, OPEN, 0), (2, RECOVERY, 0), (1, LOSS, 0)],
)
def test_limited_transmit(duplicates: int, state: CaState, extra: int) -> None:
    """RFC 3042 2: a segment for each of the first two duplicates."""
    assert newreno.allowance(Recovery(state=state, duplicates=duplicates), MSS) == extra


# HyStart++, RFC 9406


def ack(rtt: int, una: int, nxt: int, acked: int = 2 * MSS) -> AckSample:
    return AckSample(acked, una, nxt, acked, True, rtt, rtt, rtt, 0)


def test_an_rtt_of_zero_is_a_round_trip() -> None:
    """-1 says that there is none. Eight samples of 0 ns, then a round of 4 ms, the least threshold: conservative."""
    slow = HyStart()
    for number in range(8):
        assert slow.acked(ack(0, number + 1, 100), MSS) == Phase.STANDARD
    assert (slow.current_min, slow.samples) == (0, 7)  # the first ended a round, of which it was the only sample
    slow.acked(ack(-1, 100, 200), MSS)
    assert slow.last_min == 0
    for number in range(8):
        phase = slow.acked(ack(4 * MS, 101 + number, 200), MSS)
    assert phase == Phase.CONSERVATIVE and (slow.baseline, slow.rounds) == (4 * MS, 0)


def test_samples_count_in_pairs_of_segments() -> None:
    """As a receiver that acknowledges every second segment: 16 segments in one ACK are eight samples, 17 are nine."""
    for segments, samples in ((1, 1), (2, 1), (3, 2), (16, 8), (17, 9)):
        slow = HyStart(window_end=10)
        slow.acked(ack(MS, 1, 100, segments * MSS), MSS)
        assert slow.samples == samples


def test_a_baseline_of_zero_is_one() -> None:
    """Conservative slow start ends after five rounds, the one that it began in included."""
    slow = HyStart(baseline=0, window_end=1)
    for number in range(1, CSS_ROUNDS):
        assert slow.acked(ack(-1, number, number + 1), MSS) == Phase.CONSERVATIVE
        assert slow.rounds == number
    assert slow.acked(ack(-1, CSS_ROUNDS, CSS_ROUNDS + 1), MSS) == Phase.DONE


def test_a_quarter_of_what_is_acknowledged_without_losing_a_byte() -> None:
    """1001 bytes, four times: 4004 / 4 all together."""
    slow = HyStart()
    assert [slow.share(1001) for _ in range(4)] == [250, 250, 250, 251]
    assert slow.remainder == 0


# windows, RFC 3465, 5681


def test_congestion_avoidance_counts_bytes() -> None:
    """A segment for each window's worth; what is over stays for the next, and a reduction forgets it."""
    cc = NewReno()
    cc.start(MSS, 4, 0)
    cc.ssthresh = 4 * MSS
    cc.acked(ack(MS, 0, 0, 5 * MSS))
    assert (cc.cwnd, cc.bytes_acked) == (5 * MSS, MSS)
    cc.acked(ack(MS, 0, 0, 4 * MSS))
    assert (cc.cwnd, cc.bytes_acked) == (6 * MSS, 0)
    cc.acked(ack(MS, 0, 0, 13 * MSS + 5))
    assert (cc.cwnd, cc.bytes_acked) == (8 * MSS, 5)  # 6 and 7 segments' worth
    cc.enter_recovery(8 * MSS, 0)
    assert cc.bytes_acked == 0
    cc.undo(0)
    assert (cc.cwnd, cc.bytes_acked) == (8 * MSS, 5)


def test_a_new_mss_raises_what_is_below_it() -> None:
    """cwnd to one segment, ssthresh to two; what is above stays."""
    cc = NewReno()
    cc.start(MSS, 1, 0)
    cc.ssthresh = 2 * MSS
    cc.set_mss(1400)
    assert (cc.mss, cc.cwnd, cc.ssthresh) == (1400, 1400, 2800)
    cc.cwnd, cc.ssthresh = 9000, 8000
    cc.set_mss(500)
    assert (cc.mss, cc.cwnd, cc.ssthresh) == (500, 9000, 8000)


@pytest.mark.parametrize(
    ("idle", "segments", "ssthresh"),
    [(100, 32, 2), (200, 32, 2), (201, 16, 24), (400, 16, 24), (401, 8, 24), (10_000, 4, 24)],
)
def test_idle_time_halves_the_window_once_an_rto(idle: int, segments: int, ssthresh: int) -> None:
    """RFC 5681 4.1 as Linux: 32 segments, an RTO of 200, an initial window of 4. A whole RTO must have passed."""
    cc = NewReno()
    cc.start(MSS, 4, 0)
    cc.cwnd, cc.ssthresh = 32 * MSS, 2 * MSS
    cc.idle(idle, 200, 0)
    assert (cc.cwnd, cc.ssthresh) == (segments * MSS, ssthresh * MSS)


def test_windows_have_an_end() -> None:
    """No more than RFC 7323 2.3 can announce, in slow start, in avoidance, by recovery's word and at its end."""
    cc = NewReno()
    cc.start(MSS, 10, 0)
    cc.hystart.enabled = False
    cc.acked(ack(MS, 0, 0, 1 << 30))
    assert cc.cwnd == MAX_CWND == 1 << 30
    cc.set_window(MAX_CWND + 1)
    assert cc.cwnd == MAX_CWND
    cc.ssthresh = INFINITE_SSTHRESH
    cc.exit_recovery(0)
    assert cc.cwnd == MAX_CWND
    cc.set_window(1)
    assert cc.cwnd == MSS


def test_undo_and_what_it_does_not_bring_back() -> None:
    """Once; not below what was reached meanwhile; in segments of the size that they have by then."""
    cc = NewReno()
    cc.start(MSS, 10, 0)
    cc.ssthresh = 7 * MSS
    cc.timeout(10 * MSS, True, 0)
    assert (cc.cwnd, cc.ssthresh) == (MSS, 5 * MSS)
    cc.cwnd = 11 * MSS
    cc.undo(0)
    assert (cc.cwnd, cc.ssthresh) == (11 * MSS, 5 * MSS)
    cc.timeout(10 * MSS, True, 0)
    cc.timeout(10 * MSS, False, 0)
    cc.cwnd = 11 * MSS  # as large as what is remembered: that comes back
    cc.undo(0)
    assert (cc.cwnd, cc.ssthresh) == (11 * MSS, 5 * MSS)
    cc.cwnd = MSS
    cc.undo(0)
    assert cc.cwnd == MSS
    cc.timeout(MSS, True, 0)
    cc.set_mss(4000)
    cc.undo(0)
    assert (cc.cwnd, cc.ssthresh) == (4000, 8000)
    cc.enter_recovery(40_000, 0)
    cc.congestion_experienced(40_000, 0)
    cc.cwnd = 1
    cc.undo(0)
    assert cc.cwnd == 1  # ECN's reduction is not taken back
