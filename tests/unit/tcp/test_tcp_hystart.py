"""HyStart++ (RFC 9406): rounds, samples, conservative slow start, and the way out. MSS 1000; windows in segments."""

from __future__ import annotations

import pytest

from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample
from layers.tcp.congestion.hystart import CSS_ROUNDS
from layers.tcp.congestion.newreno import NewReno

MSS = 1000
MS = 1_000_000


class Flow:
    """A sender in slow start whose window is always full, and the ACKs that it gets: `segments` an ACK."""

    def __init__(self, segments: int = 2, enabled: bool = True) -> None:
        self.cc = NewReno()
        self.cc.start(MSS, 10, 0)
        self.cc.hystart.enabled = enabled
        self.per_ack = segments * MSS
        self.una = 0
        self.nxt = self.cc.cwnd

    def ack(self, rtt_ms: float, size: int = 0, *, limited: bool = True) -> None:
        """One ACK, and what it lets go."""
        size = size or self.per_ack
        self.una += size
        rtt = int(rtt_ms * MS)
        flight = self.nxt - self.una + size
        self.cc.acked(AckSample(size, self.una, self.nxt, flight, limited, rtt, rtt, rtt, 0))
        self.nxt = max(self.nxt, self.una + self.cc.cwnd)

    def round(self, rtt_ms: float) -> None:
        """One round: what was sent when it began is acknowledged. What its last ACK lets go belongs to the next."""
        end = self.cc.hystart.window_end if self.cc.hystart.window_end > self.una else self.nxt
        while self.una < end:
            self.ack(rtt_ms, min(self.per_ack, end - self.una))

    @property
    def conservative(self) -> bool:
        return self.cc.hystart.baseline >= 0

    @property
    def over(self) -> bool:
        return self.cc.ssthresh < INFINITE_SSTHRESH


@pytest.mark.rfc("RFC 9406 4.2-1")
def test_a_steady_rtt_is_plain_slow_start() -> None:
    """Doubling every round, but for the four segments that the last ACK of a round let go: they are the next one's.

    10 + 10 = 20; of 20 the first 16 belong to the second round: 36; 36 - 4 = 32: 68; 64: 132."""
    f = Flow()
    seen = []
    for _ in range(4):
        f.round(40)
        seen.append(f.cc.cwnd // MSS)
    assert seen == [20, 36, 68, 132] and not f.conservative and not f.over


@pytest.mark.rfc("RFC 9406 4.2-3", "RFC 9406 4.3-3")
@pytest.mark.parametrize(
    ("before", "threshold"),
    [(8, 4), (40, 5), (120, 15), (400, 16)],  # lastRoundMinRTT / 8, no less than 4 ms and no more than 16
)
def test_the_threshold(before: int, threshold: int) -> None:
    """A round is slower if its minimum is at least max(4, min(RTT / 8, 16)) ms above that of the last."""
    for added, slower in ((threshold - 0.1, False), (threshold, True)):
        f = Flow()
        f.round(before)
        f.round(before)
        f.round(before + added)
        assert f.conservative is slower, added


@pytest.mark.rfc("RFC 9406 4.2-2", "RFC 9406 4.3-3")
def test_seven_samples_do_not_decide() -> None:
    """N_RTT_SAMPLE is 8: seven ACKs of two segments are too few, the eighth decides."""
    f = Flow()
    f.round(40)
    f.round(40)
    for _ in range(7):
        f.ack(60)
    assert not f.conservative
    f.ack(60)
    assert f.conservative


@pytest.mark.rfc("RFC 9406 4.2-2")
def test_the_minimum_of_the_round_counts() -> None:
    """One short RTT among long ones: no queue."""
    f = Flow()
    f.round(40)
    f.round(40)
    f.ack(41)
    for _ in range(15):
        f.ack(60)
    assert not f.conservative


@pytest.mark.rfc("RFC 9406 4.2-4", "RFC 9406 4.3-3", "RFC 9406 4.3-4")
def test_conservative_slow_start_grows_by_a_quarter() -> None:
    """CSS_GROWTH_DIVISOR 4: a round of W bytes adds W / 4."""
    f = Flow()
    f.round(40)  # 20
    f.round(40)  # 36
    f.round(60)  # 32 segments; eight ACKs decide, and the eighth counts a quarter: 36 + 14 + 18 / 4 = 54.5
    assert f.conservative and f.cc.cwnd == 54_500
    under_way = f.cc.hystart.window_end - f.una
    f.round(60)
    assert f.cc.cwnd == 54_500 + under_way // 4


@pytest.mark.rfc("RFC 9406 4.2-6", "RFC 9406 4.3-3")
def test_five_rounds_end_slow_start() -> None:
    """CSS_ROUNDS 5, of which the one that it began in is the first; then ssthresh = cwnd."""
    f = Flow()
    f.round(40)
    f.round(40)
    for number in range(CSS_ROUNDS):
        assert not f.over, number
        f.round(60)
    assert f.over and f.cc.cwnd >= f.cc.ssthresh
    grown = f.cc.cwnd
    f.round(60)
    assert f.cc.cwnd - grown == MSS  # congestion avoidance


@pytest.mark.rfc("RFC 9406 4.2-5")
def test_a_false_alarm_resumes_slow_start() -> None:
    """The RTT of a CSS round falls below the baseline: doubling again, and CSS starts from none the next time."""
    f = Flow()
    f.round(40)
    f.round(40)
    f.round(60)
    f.round(60)
    f.round(59)
    assert not f.conservative and f.cc.hystart.rounds == 0
    cwnd, under_way = f.cc.cwnd, f.cc.hystart.window_end - f.una
    f.round(59)
    assert f.cc.cwnd == cwnd + under_way


@pytest.mark.rfc("RFC 9406 4.2-7")
def test_a_loss_ends_it() -> None:
    """Loss in slow start or CSS: congestion avoidance, with the ssthresh of the loss."""
    f = Flow()
    f.round(40)
    f.cc.enter_recovery(20_000, 0)
    f.cc.exit_recovery(0)
    assert (f.cc.ssthresh, f.cc.cwnd) == (10_000, 10_000) and f.over


@pytest.mark.rfc("RFC 9406 4.3-1")
def test_only_in_the_initial_slow_start() -> None:
    """After a timeout ssthresh says where to stop; delays do not."""
    f = Flow()
    f.round(40)
    f.round(40)
    f.cc.timeout(36_000, True, 0)
    assert (f.cc.cwnd, f.cc.ssthresh) == (1000, 18_000)
    for number in range(17):
        f.ack(40 + 10 * number, MSS)
    assert f.cc.cwnd == 18_000 and not f.conservative


@pytest.mark.rfc("RFC 9406 4.2")
@pytest.mark.parametrize("segments", [1, 2, 8, 44])
def test_large_acks_find_the_queue_too(segments: int) -> None:
    """The growing queue of a filling pipe ends slow start in the same round whether an ACK covers 1 or 44 segments.

    RTT 40 ms as far as 100 segments are under way, then 0.4 ms more for each: 100 segments fill the pipe."""
    f = Flow(segments)
    for _ in range(12):
        f.round(max(40.0, 0.4 * f.cc.cwnd / MSS))
        if f.conservative:
            break
    assert f.conservative and 150 <= f.cc.cwnd // MSS <= 320


def test_off() -> None:
    """`enabled` false: nothing but loss ends slow start."""
    f = Flow(enabled=False)
    for number in range(8):
        f.round(40 + 40 * number)
    assert f.cc.cwnd == 2560 * MSS


def test_while_the_application_limits_nothing_happens() -> None:
    """No growth, and no round that could end slow start."""
    f = Flow()
    f.round(40)
    cwnd = f.cc.cwnd
    for _ in range(100):
        f.nxt += MSS
        f.ack(90, MSS, limited=False)
    assert f.cc.cwnd == cwnd and not f.conservative and not f.over
