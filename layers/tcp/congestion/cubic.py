"""CUBIC (RFC 9438): after a loss the window returns fast to where it was, lingers there, and then probes beyond.

    cwnd                                          ___/   convex: beyond W_max (4.5)
     |   W_max ............................---'''
     |       \\                     __--'''              concave: back to W_max (4.4)
     |        \\             __--'
     |         |cwnd_epoch_/                             Reno-friendly where that would be larger (4.3)
     |_________|_____________________|____________ time
               t_epoch                t_epoch + K

The curve is a function of the time since the last congestion event alone, so flows with long round trips grow as fast
as others. Integers throughout, but for the two sums of fractions, which use +, *, / of doubles alone: the same
figures on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from layers.tcp.congestion.base import AckSample
from layers.tcp.congestion.window import Window

BETA = (7, 10)  # RFC 9438 4.6
C = (4, 10)  # segments / s³: RFC 9438 5.1
ALPHA = 9 / 17  # 3 (1 - β) / (1 + β): RFC 9438 4.3, as fair as Reno with β = 0.7
FAST_CONVERGENCE = (17, 20)  # (1 + β) / 2: RFC 9438 4.7
SECOND_CUBED = 10**27  # ns³


def cube_root(value: int) -> int:
    """The largest integer whose cube is not above `value` (not negative), by Newton's method."""
    if value < 8:
        return 1 if value else 0
    root = 1 << -(-value.bit_length() // 3)  # not below the root, from where the iteration only falls
    while True:
        better = (2 * root + value // (root * root)) // 3
        if better >= root:
            return root
        root = better


@dataclass(slots=True)
class Cubic(Window):
    """The strategy "cubic". Sizes in bytes where the RFC has segments, instants and `k` in ns."""

    name: ClassVar[str] = "cubic"

    w_max: int = 0  # 0: none is known, so the curve starts at its plateau (RFC 9438 4.8, 4.10)
    cwnd_prior: int = 0  # cwnd before the last reduction
    epoch_at: int = -1  # when this congestion avoidance began; -1: with the next ACK
    origin: int = 0  # the plateau of the curve
    k: int = 0
    w_est: float = 0.0  # what Reno would have
    fraction: float = 0.0  # of a byte, that cwnd has not yet grown
    unused_since: int = -1  # since when cwnd is not what limits us; that time does not count
    undo_w_max: int = 0
    undo_cwnd_prior: int = 0
    undo_epoch_at: int = -1
    undo_origin: int = 0
    undo_k: int = 0
    undo_w_est: float = 0.0
    undo_fraction: float = 0.0
    undo_unused_since: int = -1

    def acked(self, sample: AckSample) -> None:
        """As every window's; but while the application or the peer limits us the curve's time stands still.

        RFC 9438 4.2, 5.8; Linux cubictcp_cwnd_event moves its epoch likewise, lest cwnd leaps afterwards.
        """
        if not sample.limited:
            if self.epoch_at >= 0 and self.unused_since < 0:
                self.unused_since = sample.now
            return
        if self.unused_since >= 0:
            self.epoch_at += sample.now - self.unused_since
            self.unused_since = -1
        Window.acked(self, sample)

    def reduced(self, flight: int) -> int:
        """RFC 9438 4.6. W_max and fast convergence (4.7), so that a flow whose window shrinks makes room for others."""
        return flight * BETA[0] // BETA[1]

    def reduce(self, flight: int) -> None:
        """RFC 9438 4.6, 4.7."""
        cwnd = self.cwnd
        if cwnd < self.w_max:
            self.w_max = cwnd * FAST_CONVERGENCE[0] // FAST_CONVERGENCE[1]
        else:
            self.w_max = cwnd
        self.cwnd_prior = cwnd
        Window.reduce(self, flight)

    def reduce_to(self, window: int) -> None:
        """RFC 7661 4.4.1. What was used, not what cwnd would have allowed, is where the curve has its plateau."""
        Window.reduce_to(self, window)
        self.w_max = min(self.w_max, 2 * window)
        self.cwnd_prior = min(self.cwnd_prior, 2 * window)

    def reset_avoidance(self) -> None:
        """The next ACK in congestion avoidance begins a stage."""
        self.epoch_at = -1
        self.unused_since = -1
        self.fraction = 0.0

    def timeout(self, flight: int, first: bool, now: int) -> None:
        """RFC 9438 4.8: the stage after the slow start that follows begins at its plateau, K = 0."""
        Window.timeout(self, flight, first, now)
        self.w_max = 0
        self.reset_avoidance()

    def avoid(self, acked: int, sample: AckSample) -> None:
        """RFC 9438 4.2 to 4.5. In proportion to the bytes acknowledged, so that it is the same for few ACKs as for
        many."""
        mss = self.mss
        if self.epoch_at < 0:
            self._begin(sample.now)
        elapsed = sample.now - self.epoch_at
        cwnd = self.cwnd
        # 4.3: α is 1 once the window before the last reduction is reached again
        alpha = ALPHA if self.w_est < self.cwnd_prior else 1.0
        self.w_est += alpha * mss * acked / cwnd
        if self._curve(elapsed) < self.w_est:
            if self.w_est > cwnd:
                self.cwnd = int(self.w_est)
                self.fraction = 0.0
            return
        # 4.2: the target is the curve's value a round trip ahead, within [cwnd, 1.5 cwnd]
        target = min(self._curve(elapsed + max(sample.srtt, 0)), cwnd + cwnd // 2)
        if target > cwnd:
            # 4.4, 4.5: (target - cwnd) / cwnd a segment; of many in one ACK each finds cwnd nearer to the target than
            # the one before, so that the sum is (target - cwnd) (1 - exp(-x)) for x windows, here by 2x / (2 + x)
            acked = min(acked, cwnd)
            self.fraction += (target - cwnd) * (2 * acked / (2 * cwnd + acked))
            whole = int(self.fraction)
            self.fraction -= whole
            self.cwnd = cwnd + whole

    def _begin(self, now: int) -> None:
        """A stage of congestion avoidance begins: RFC 9438 4.2, equation 2."""
        cwnd = self.cwnd
        self.epoch_at = now
        self.w_est = float(cwnd)
        self.fraction = 0.0
        if cwnd >= self.w_max:
            self.origin = cwnd
            self.k = 0
        else:
            self.origin = self.w_max
            self.k = cube_root((self.w_max - cwnd) * C[1] * SECOND_CUBED // (C[0] * self.mss))

    def _curve(self, elapsed: int) -> int:
        """W_cubic(t), RFC 9438 4.2, equation 1."""
        beyond = elapsed - self.k
        return self.origin + C[0] * self.mss * beyond * beyond * beyond // (C[1] * SECOND_CUBED)

    def remember(self) -> None:
        """RFC 9438 4.9.2."""
        Window.remember(self)
        self.undo_w_max = self.w_max
        self.undo_cwnd_prior = self.cwnd_prior
        self.undo_epoch_at = self.epoch_at
        self.undo_origin = self.origin
        self.undo_k = self.k
        self.undo_w_est = self.w_est
        self.undo_fraction = self.fraction
        self.undo_unused_since = self.unused_since

    def bring_back(self) -> None:
        """RFC 9438 4.9.2."""
        Window.bring_back(self)
        self.w_max = self.undo_w_max
        self.cwnd_prior = self.undo_cwnd_prior
        self.epoch_at = self.undo_epoch_at
        self.origin = self.undo_origin
        self.k = self.undo_k
        self.w_est = self.undo_w_est
        self.fraction = self.undo_fraction
        self.unused_since = self.undo_unused_since

    def idle(self, idle_for: int, rto: int, now: int) -> None:
        """Time without anything to send does not count either (RFC 9438 5.8). An epoch that began within it, with the
        ACK of what was sent before, begins now and not later (Linux cubictcp_cwnd_event)."""
        Window.idle(self, idle_for, rto, now)
        if self.epoch_at >= 0 and self.unused_since < 0:
            self.epoch_at = min(self.epoch_at + idle_for, now)
