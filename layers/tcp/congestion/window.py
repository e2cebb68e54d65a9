"""What the strategies have in common: the window itself, slow start, reduction, undo, restart after idle.

A strategy derives from `Window` and says two things: how far a congestion event reduces the window (`reduced`), and how
it grows in congestion avoidance (`avoid`). One that counts or times something since the last event says how that begins
anew (`reset_avoidance`).

    cwnd
     |        loss                    timeout
     |      /|                    /|           slow start below ssthresh: `slow_start`
     |     / |  ____---'''      /  |           above it: `avoid`
     |    /  |/ ssthresh       /   |  /        loss: `enter_recovery`, recovery moves cwnd, `exit_recovery`
     |   /                         |_/         timeout: one segment
     |__/____________________________________ time
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample
from layers.tcp.congestion.hystart import HyStart, Phase

MAX_CWND = 1 << 30  # bytes: the largest window that RFC 7323 2.3 can announce; more can never be in flight
LEAST_SSTHRESH = 2  # segments: RFC 5681 3.1 equation 4, RFC 9438 4.6


@dataclass(slots=True)
class Window:
    """Sizes in bytes, instants in ns. `undo_cwnd` is 0 where there is no reduction to take back."""

    name: ClassVar[str] = ""

    mss: int = 536
    cwnd: int = 536
    ssthresh: int = INFINITE_SSTHRESH
    initial: int = 1  # segments: the initial window, to which a restart after idle comes down
    undo_cwnd: int = 0
    undo_ssthresh: int = 0
    hystart: HyStart = field(default_factory=HyStart)

    # what a strategy says

    def reduced(self, flight: int) -> int:
        """The window, in bytes, that a congestion event leaves of `flight`."""
        raise NotImplementedError

    def avoid(self, acked: int, sample: AckSample) -> None:
        """Congestion avoidance: `acked` bytes were delivered while cwnd was what held us back."""
        raise NotImplementedError

    def reset_avoidance(self) -> None:
        """A congestion event: what was counted or timed since the last one begins anew."""

    # the protocol

    def start(self, mss: int, segments: int, now: int) -> None:
        """RFC 6928 2: ten segments (the configuration's initial_window); one after a lost SYN (RFC 5681 3.1)."""
        self.mss = mss
        self.initial = segments
        self.cwnd = mss * segments

    def set_mss(self, mss: int) -> None:
        """The path's MSS has changed: neither threshold falls below what it may be in the new unit."""
        self.mss = mss
        self.cwnd = max(self.cwnd, mss)
        self.ssthresh = max(self.ssthresh, LEAST_SSTHRESH * mss)

    def acked(self, sample: AckSample) -> None:
        """RFC 5681 3.1. Growth only while cwnd is what limits us (RFC 7661 4.4, Linux tcp_is_cwnd_limited)."""
        if not sample.limited:
            return
        left = sample.acked
        if self.cwnd < self.ssthresh:
            left = self.slow_start(sample)
        if left:
            self.avoid(left, sample)
            self.cwnd = min(self.cwnd, MAX_CWND)

    def slow_start(self, sample: AckSample) -> int:
        """Grow by what was acknowledged; returns the bytes beyond ssthresh, which are congestion avoidance's.

        RFC 3465 2.2 with no limit L on an ACK's effect, which deviates from its 2.3 (L = 2 segments) and from RFC 9406
        4.3 (L = 8 without pacing), as Linux does (tcp_slow_start): L is there against bursts, and our unit of sending
        is a super-segment of up to 44 segments anyway, whose ACK comes in one piece; with L = 8 the window would grow
        by a fifth a round trip instead of doubling. After a timeout nothing is counted twice, as `acked` holds what
        was delivered newly and not what SACK blocks told before.
        """
        acked = sample.acked
        if self.ssthresh >= INFINITE_SSTHRESH:  # RFC 9406 4.3: only where no loss has shown where to stop
            phase = self.hystart.acked(sample, self.mss)
            if phase == Phase.CONSERVATIVE:
                acked = self.hystart.share(acked)
            elif phase == Phase.DONE:
                self.ssthresh = self.cwnd  # RFC 9406 4.2
                return sample.acked
        grown = self.cwnd + acked
        if grown <= self.ssthresh:
            self.cwnd = min(grown, MAX_CWND)
            return 0
        self.cwnd = self.ssthresh
        return grown - self.ssthresh

    def enter_recovery(self, flight: int, now: int) -> None:
        """A loss was found: RFC 5681 3.2 step 2, RFC 6675 5 step 4.2. cwnd is recovery's until it ends."""
        self.remember()
        self.reduce(flight)

    def congestion_experienced(self, flight: int, now: int) -> None:
        """The peer echoes a mark: RFC 3168 6.1.2, the reduction that a loss would make; nothing can take it back. cwnd
        comes down within a round trip, as after a loss (RFC 9937)."""
        self.undo_cwnd = 0
        self.reduce(flight)

    def reduce(self, flight: int) -> None:
        """ssthresh from `flight`, of which what limited transmit sent beyond cwnd is no part (RFC 5681 3.2 step 2)."""
        self.ssthresh = max(self.reduced(min(flight, self.cwnd)), LEAST_SSTHRESH * self.mss)
        self.reset_avoidance()

    def reduce_to(self, window: int) -> None:
        """RFC 7661 4.4.1: cwnd was not used, so half of what was is left of it, whatever the strategy's factor is."""
        self.ssthresh = max(window, LEAST_SSTHRESH * self.mss)

    def set_window(self, cwnd: int) -> None:
        """Recovery says how much may be in flight."""
        self.cwnd = min(max(cwnd, self.mss), MAX_CWND)

    def exit_recovery(self, now: int) -> None:
        """RFC 6675 5 step (A), RFC 6582 3.2 step 3."""
        self.cwnd = min(self.ssthresh, MAX_CWND)

    def timeout(self, flight: int, first: bool, now: int) -> None:
        """RFC 5681 3.1 equation 4 and the loss window; ssthresh stays on repeated timeouts of the same data."""
        if first:
            self.remember()
            self.reduce(flight)
        self.cwnd = self.mss

    def remember(self) -> None:
        """Keep what `undo` brings back."""
        self.undo_cwnd = self.cwnd
        self.undo_ssthresh = self.ssthresh

    def undo(self, now: int) -> None:
        """The last reduction was spurious: all is as before it, unless the window has grown beyond that already.

        RFC 9438 4.9.2; Linux tcp_undo_cwnd_reduction.
        """
        if self.undo_cwnd and self.cwnd <= self.undo_cwnd:
            self.bring_back()
        self.undo_cwnd = 0

    def bring_back(self) -> None:
        """What `remember` kept."""
        self.cwnd = max(self.undo_cwnd, self.mss)  # the MSS may be another by now
        self.ssthresh = max(self.undo_ssthresh, LEAST_SSTHRESH * self.mss)

    def idle(self, idle_for: int, rto: int, now: int) -> None:
        """RFC 5681 4.1: not more than the restart window after an idle RTO. As Linux (tcp_cwnd_restart) by halves, one
        for each RTO that has passed, and ssthresh remembers 3/4 of what was reached.

        With 5 minutes in place of the RTO this is RFC 7661 4.4.3: what the caller hands in decides.
        """
        halvings = max(idle_for - 1, 0) // rto
        if halvings:
            self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
            self.cwnd = max(self.cwnd >> min(halvings, 31), min(self.initial * self.mss, self.cwnd))

    def unused(self, used: int, now: int) -> None:
        """For an RTO the application had at most `used` bytes in flight: halfway there, not below the restart window;
        ssthresh remembers 3/4 of what was reached. RFC 2861 3.2 as Linux does it (tcp_cwnd_application_limited)."""
        used = max(used, self.initial * self.mss)
        if used < self.cwnd:
            self.ssthresh = max(self.ssthresh, self.cwnd * 3 // 4)
            self.cwnd = (self.cwnd + used) // 2
