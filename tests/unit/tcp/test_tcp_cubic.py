"""CUBIC (RFC 9438) in figures worked out by hand. MSS 1000 bytes, so that a segment is a thousand; RTT as said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample
from layers.tcp.congestion.cubic import Cubic, cube_root

MSS = 1000
MS = 1_000_000
SECOND = 1_000_000_000
K = 4_217_163_326  # ns: the cube root of (100 - 70) / 0.4 = 75 s³


def ack(cc: Cubic, now: int, acked: int, *, rtt: int = 100 * MS, limited: bool = True) -> None:
    """`acked` bytes are acknowledged at `now`."""
    cc.acked(AckSample(acked, 0, cc.cwnd, cc.cwnd, limited, rtt, rtt, rtt, now))


def after_a_loss(segments: int = 100) -> Cubic:
    """A window of this many segments met a loss at 0, and recovery is over."""
    cc = Cubic()
    cc.start(MSS, segments, 0)
    cc.enter_recovery(segments * MSS, 0)
    cc.exit_recovery(0)
    return cc


@given(st.integers(0, 10**40))
def test_cube_root(value: int) -> None:
    """Exact at any size."""
    root = cube_root(value)
    assert root**3 <= value < (root + 1) ** 3


@pytest.mark.rfc("RFC 9438 4.6-1")
def test_multiplicative_decrease() -> None:
    """β = 0.7 of what is in flight; W_max is the window before."""
    cc = Cubic()
    cc.start(MSS, 100, 0)
    cc.enter_recovery(100_000, 0)
    assert (cc.ssthresh, cc.cwnd, cc.w_max, cc.cwnd_prior) == (70_000, 100_000, 100_000, 100_000)
    cc.exit_recovery(0)
    assert cc.cwnd == 70_000


@pytest.mark.rfc("RFC 9438 4.6-2")
def test_ssthresh_is_two_segments_at_least() -> None:
    """0.7 of two segments would be 1.4."""
    cc = Cubic()
    cc.start(MSS, 2, 0)
    cc.enter_recovery(2000, 0)
    assert cc.ssthresh == 2000


@pytest.mark.rfc("RFC 5681 3.2-5", "RFC 9438 4.6-2")
def test_limited_transmit_is_not_counted() -> None:
    """12 segments in flight with a window of 10: two went out beyond it. 0.7 × 10."""
    cc = Cubic()
    cc.start(MSS, 10, 0)
    cc.enter_recovery(12_000, 0)
    assert cc.ssthresh == 7000


@pytest.mark.rfc("RFC 9438 4.7-1")
def test_fast_convergence() -> None:
    """A loss at 90 after one at 100: W_max = 90 × (1 + 0.7) / 2 = 76.5; a loss at 80 then: 80."""
    cc = after_a_loss()
    cc.set_window(90_000)
    cc.enter_recovery(90_000, SECOND)
    assert (cc.w_max, cc.cwnd_prior, cc.ssthresh) == (76_500, 90_000, 63_000)
    cc.exit_recovery(SECOND)
    cc.set_window(80_000)
    cc.enter_recovery(80_000, 2 * SECOND)
    assert cc.w_max == 80_000


@pytest.mark.rfc("RFC 9438 4.2-1", "RFC 9438 4.4-1", "RFC 9438 5.1-1")
def test_concave_growth() -> None:
    """cwnd rises by (target - cwnd) / cwnd a segment; target is W_cubic a round trip ahead.

    t = 1 ms: W_cubic(0.101 s) = 100 - 0.4 × 4.116163³ = 72.1043; an ACK of two segments, the second of which finds
    the window grown by the first: 2.1043 × 2 × 2 / (2 × 70 + 2) = 0.0593 segments."""
    cc = after_a_loss()
    ack(cc, SECOND, 1)
    assert cc.epoch_at == SECOND and cc.k == K and cc.origin == 100_000
    ack(cc, SECOND + MS, 2 * MSS)
    assert cc.cwnd == 70_059


@pytest.mark.rfc("RFC 9438 4.2-1", "RFC 9438 4.4-1")
def test_back_at_w_max_after_k() -> None:
    """A full window acknowledged each 100 ms: at K = 4.2 s the window is W_max, less than half a segment off."""
    cc = after_a_loss()
    now = 0
    while now < K:
        ack(cc, now, cc.cwnd)
        now += 100 * MS
    assert abs(cc.cwnd - 100_000) < 500


@pytest.mark.rfc("RFC 9438 4.5-1")
def test_convex_growth() -> None:
    """2 s beyond K: 100 + 0.4 × 8 = 103.2 segments."""
    cc = after_a_loss()
    now = 0
    while now < K + 2 * SECOND:
        ack(cc, now, cc.cwnd, rtt=200 * MS)
        now += 200 * MS
    assert 103_000 <= cc.cwnd <= 104_300  # the target is up to 0.2 s ahead: 0.4 × 2.2³ = 4.26


@pytest.mark.rfc("RFC 9438 4.3-1")
def test_reno_friendly_region() -> None:
    """RTT 10 ms: W_est = 70 + 9/17 = 70.529 after a window, W_cubic(10 ms) = 100 - 0.4 × 4.207163³ = 70.213."""
    cc = after_a_loss()
    ack(cc, 0, 1, rtt=10 * MS)  # the stage begins
    ack(cc, 10 * MS, cc.cwnd, rtt=10 * MS)
    assert cc.cwnd == 70_529


@pytest.mark.rfc("RFC 9438 4.3-2")
def test_alpha_is_one_beyond_cwnd_prior() -> None:
    """Once W_est has come to the window before the loss it grows by a whole segment a window, as Reno does."""
    cc = after_a_loss()
    now = 0
    ack(cc, now, 1, rtt=MS)
    while cc.w_est < cc.cwnd_prior:
        now += MS
        ack(cc, now, cc.cwnd, rtt=MS)
    assert now // MS == 57  # 30 segments by 9/17 a round trip: 56.7
    before = cc.w_est
    ack(cc, now + MS, cc.cwnd, rtt=MS)
    assert cc.w_est - before == pytest.approx(MSS, rel=0.01)


@pytest.mark.rfc("RFC 9438 4.2-2")
def test_the_target_is_at_most_one_and_a_half_windows() -> None:
    """100 s later W_cubic is far away; a window of ACKs takes 70 to 105 × (1 - 1/e) + 70 / e at most, which is 92, and
    the rule for many segments in one ACK comes to 70 + 35 × 2 / 3."""
    cc = after_a_loss()
    ack(cc, 0, 1)
    ack(cc, 100 * SECOND, cc.cwnd)
    assert cc.cwnd == 93_333


@pytest.mark.rfc("RFC 9438 4.8-1", "RFC 9438 4.8-2")
def test_timeout() -> None:
    """ssthresh 70, one segment, slow start; then K = 0 and W_max = 70: the plateau is where avoidance begins."""
    cc = Cubic()
    cc.start(MSS, 100, 0)
    cc.timeout(100_000, True, 0)
    assert (cc.cwnd, cc.ssthresh) == (MSS, 70_000)
    cc.timeout(1000, False, SECOND)
    assert cc.ssthresh == 70_000
    for _ in range(7):  # 2, 4 ... 64, and 70
        ack(cc, SECOND, cc.cwnd)
    assert (cc.k, cc.origin) == (0, 70_000)
    assert 70_000 <= cc.cwnd < 71_000


@pytest.mark.rfc("RFC 9438 4.10-3")
def test_avoidance_after_slow_start_without_a_loss() -> None:
    """HyStart++ set ssthresh: K = 0, W_max = cwnd. 3 s later 0.4 × 27 = 10.8 segments more."""
    cc = Cubic()
    cc.start(MSS, 200, 0)
    cc.ssthresh = 200_000
    now = 0
    while now < 3 * SECOND:
        ack(cc, now, cc.cwnd)
        now += 100 * MS
    assert (cc.k, cc.origin) == (0, 200_000)
    # W_est has come to 200 + 30 × 1 meanwhile (no reduction before: α = 1), which is more
    assert cc.cwnd == pytest.approx(230_000, rel=0.01)


@pytest.mark.rfc("RFC 9438 4.9.1-1", "RFC 9438 4.9.2-1")
@pytest.mark.parametrize("how", ["loss", "timeout"])
def test_undo(how: str) -> None:
    """A spurious reduction leaves nothing behind."""
    cc = after_a_loss()
    ack(cc, SECOND, 50 * MSS)
    ack(cc, 2 * SECOND, 50 * MSS)
    before = [getattr(cc, name) for name in STATE]
    if how == "loss":
        cc.enter_recovery(cc.cwnd, 3 * SECOND)
        cc.set_window(cc.ssthresh)
    else:
        cc.timeout(cc.cwnd, True, 3 * SECOND)
    cc.undo(3 * SECOND)
    assert [getattr(cc, name) for name in STATE] == before


STATE = ("cwnd", "ssthresh", "w_max", "cwnd_prior", "epoch_at", "origin", "k", "w_est", "fraction")


@pytest.mark.rfc("RFC 9438 4.9.2")
def test_an_undo_that_comes_too_late() -> None:
    """The window has grown beyond what it was: it stays, and there is nothing more to undo."""
    cc = after_a_loss()
    cc.set_window(120_000)
    cc.undo(SECOND)
    assert (cc.cwnd, cc.ssthresh) == (120_000, 70_000)
    cc.set_window(10_000)
    cc.undo(SECOND)
    assert cc.cwnd == 10_000


@pytest.mark.rfc("RFC 7661 4.4", "RFC 9438 5.8-1")
def test_time_without_use_does_not_count() -> None:
    """10 s in which the application limits us: no growth, and the curve goes on as if they had not been."""
    one, two = after_a_loss(), after_a_loss()
    for cc, gap in ((one, 0), (two, 10 * SECOND)):
        ack(cc, 0, 2 * MSS)
        ack(cc, SECOND, 2 * MSS)
        if gap:
            cwnd = cc.cwnd
            ack(cc, SECOND, 2 * MSS, limited=False)
            ack(cc, SECOND + gap // 2, 2 * MSS, limited=False)
            assert cc.cwnd == cwnd
        ack(cc, SECOND + gap, 2 * MSS)
        ack(cc, 2 * SECOND + gap, 2 * MSS)
    assert one.cwnd == two.cwnd


@pytest.mark.rfc("RFC 5681 4.1", "RFC 9438 5.8-1")
def test_idle() -> None:
    """The epoch moves on by the idle time; the window halves for each RTO beyond the first (Linux)."""
    cc = after_a_loss()
    ack(cc, 0, 2 * MSS)
    cwnd = cc.cwnd
    cc.initial = 10
    cc.idle(3 * SECOND, SECOND, 3 * SECOND)
    assert cc.epoch_at == 3 * SECOND
    assert cc.cwnd == cwnd >> 2


@pytest.mark.rfc("RFC 9438 5.8-1")
def test_an_epoch_that_began_within_the_pause() -> None:
    """What was sent last was acknowledged half a second later, and that ACK began the epoch: after the pause it begins
    now, not later (Linux cubictcp_cwnd_event)."""
    cc = after_a_loss()
    ack(cc, SECOND // 2, 2 * MSS)
    assert cc.epoch_at == SECOND // 2
    cc.idle(3 * SECOND, SECOND, 3 * SECOND)
    assert cc.epoch_at == 3 * SECOND


@pytest.mark.rfc("RFC 9438 4.4")
def test_few_large_acks_grow_as_many_small_ones() -> None:
    """44 segments by one ACK, or by 22: 0.6 segments apart (3 without the rule of 2x / (2 + x))."""
    one, many = after_a_loss(), after_a_loss()
    for cc in (one, many):
        ack(cc, 0, 1)
    ack(one, SECOND, 44 * MSS)
    for _ in range(22):
        ack(many, SECOND, 2 * MSS)
    assert one.cwnd > 77_000 and abs(one.cwnd - many.cwnd) < 600


@pytest.mark.rfc("RFC 9438 4.6", "RFC 3168 6.1.2-1")
def test_a_mark_reduces_like_a_loss() -> None:
    """0.7 of it is where recovery takes the window; no undo takes it back."""
    cc = Cubic()
    cc.start(MSS, 100, 0)
    cc.congestion_experienced(100_000, 0)
    assert (cc.cwnd, cc.ssthresh) == (100_000, 70_000)
    cc.exit_recovery(0)
    cc.undo(0)
    assert (cc.cwnd, cc.ssthresh) == (70_000, 70_000)


@pytest.mark.rfc("RFC 9438 4.10-1")
def test_slow_start_is_not_cubic() -> None:
    """RFC 9438 4.10: by what is acknowledged."""
    cc = Cubic()
    cc.start(MSS, 10, 0)
    ack(cc, 0, 10 * MSS)
    assert cc.cwnd == 20_000 and cc.ssthresh == INFINITE_SSTHRESH and cc.epoch_at == -1
