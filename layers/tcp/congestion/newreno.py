"""Reno's windows: slow start, congestion avoidance, halving on loss (RFC 5681), counted in bytes (RFC 3465).

Deviates from RFC 3465's limit L of 2 segments an ACK in slow start as Linux does (tcp_slow_start): our peers
acknowledge up to 64 KB at once behind segmentation offload, and with a limit slow start would stall.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample


@dataclass(slots=True)
class NewReno:
    """The strategy "newreno"."""

    name: ClassVar[str] = "newreno"

    mss: int = 536
    cwnd: int = 536
    ssthresh: int = INFINITE_SSTHRESH
    initial: int = 10  # segments: the initial window, and the restart window (RFC 5681 4.1)
    bytes_acked: int = 0  # since cwnd grew last, in congestion avoidance
    prior_cwnd: int = 0  # before the last reduction; 0: nothing to undo
    prior_ssthresh: int = 0

    def start(self, mss: int, segments: int, now: int) -> None:
        """RFC 6928 2: ten segments (the configuration's initial_window); one after a lost SYN (RFC 5681 3.1)."""
        self.mss = mss
        self.initial = segments
        self.cwnd = mss * segments

    def set_mss(self, mss: int) -> None:
        """Keep cwnd at no less than two segments of the new size."""
        self.mss = mss
        self.cwnd = max(self.cwnd, 2 * mss)

    def acked(self, sample: AckSample) -> None:
        """RFC 5681 3.1; cwnd grows only while it is what limits us (RFC 7661, Linux tcp_is_cwnd_limited)."""
        if not sample.limited:
            return
        acked = sample.acked
        cwnd = self.cwnd
        if cwnd < self.ssthresh:  # slow start
            grown = cwnd + acked
            if grown <= self.ssthresh:
                self.cwnd = grown
                return
            acked = grown - self.ssthresh
            self.cwnd = cwnd = self.ssthresh
        self.bytes_acked += acked  # RFC 3465 2.1
        while self.bytes_acked >= cwnd:
            self.bytes_acked -= cwnd
            cwnd += self.mss
        self.cwnd = cwnd

    def _reduce(self, flight: int) -> None:
        """RFC 5681 3.1 equation 4: ssthresh = max(FlightSize / 2, 2 SMSS).

        What limited transmit sent beyond cwnd does not count (3.2 step 2), nor what SACK has delivered, so flight
        counts up to cwnd. Linux (tcp_reno_ssthresh) halves cwnd, which is more where the application was slower.
        """
        self.prior_cwnd = self.cwnd
        self.prior_ssthresh = self.ssthresh
        self.ssthresh = max(min(flight, self.cwnd) // 2, 2 * self.mss)
        self.bytes_acked = 0

    def enter_recovery(self, flight: int, now: int) -> None:
        """RFC 5681 3.2 step 2, RFC 6675 5 step 4.2."""
        self._reduce(flight)

    def congestion_experienced(self, flight: int, now: int) -> None:
        """RFC 3168 6.1.2: as for a lost packet."""
        self._reduce(flight)

    def set_window(self, cwnd: int) -> None:
        """As recovery says."""
        self.cwnd = cwnd

    def exit_recovery(self, now: int) -> None:
        """RFC 6582 3.2 step 3, full acknowledgment; RFC 9937 5."""
        self.cwnd = self.ssthresh

    def timeout(self, flight: int, first: bool, now: int) -> None:
        """RFC 5681 3.1 equation 4 and the loss window; ssthresh stays on repeated timeouts of the same data."""
        if first:
            self._reduce(flight)
        self.cwnd = self.mss
        self.bytes_acked = 0

    def undo(self, now: int) -> None:
        """RFC 4015 3.2, as Linux tcp_undo_cwnd_reduction: neither falls below what it is now."""
        if self.prior_cwnd:
            self.cwnd = max(self.cwnd, self.prior_cwnd)
            self.ssthresh = max(self.ssthresh, self.prior_ssthresh)
            self.prior_cwnd = 0

    def idle(self, idle_for: int, rto: int, now: int) -> None:
        """RFC 5681 4.1: no more than the restart window."""
        self.cwnd = min(self.cwnd, self.mss * self.initial)
