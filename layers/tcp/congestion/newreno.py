"""Reno's windows: slow start, congestion avoidance, halving on loss (RFC 5681), counted in bytes (RFC 3465).

Deviates from RFC 3465's limit L of 2 segments an ACK in slow start as Linux does (tcp_slow_start): our peers
acknowledge up to 64 KB at once behind segmentation offload, and with a limit slow start would stall.
"""

from __future__ import annotations

from dataclasses import dataclass

from layers.tcp.congestion.base import INFINITE_SSTHRESH


@dataclass(slots=True)
class NewReno:
    """The strategy "newreno"."""

    mss: int = 536
    cwnd: int = 536
    ssthresh: int = INFINITE_SSTHRESH
    bytes_acked: int = 0  # since cwnd grew last, in congestion avoidance

    def start(self, mss: int, segments: int) -> None:
        """RFC 6928 2: ten segments (the configuration's initial_window); one after a lost SYN (RFC 5681 3.1)."""
        self.mss = mss
        self.cwnd = mss * segments

    def set_mss(self, mss: int) -> None:
        """Keep cwnd at no less than two segments of the new size."""
        self.mss = mss
        self.cwnd = max(self.cwnd, 2 * mss)

    def acked(self, acked: int, limited: bool) -> None:
        """RFC 5681 3.1; cwnd grows only while it is what limits us (RFC 7661, Linux tcp_is_cwnd_limited)."""
        if not limited:
            return
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

    def enter_recovery(self, flight: int) -> None:
        """RFC 6582 3.2 step 2, RFC 5681 3.2 steps 2 and 3."""
        self.ssthresh = max(flight // 2, 2 * self.mss)
        self.cwnd = self.ssthresh + 3 * self.mss
        self.bytes_acked = 0

    def duplicate_ack(self) -> None:
        """RFC 5681 3.2 step 4."""
        self.cwnd += self.mss

    def partial_ack(self, acked: int) -> None:
        """RFC 6582 3.2 step 3, partial acknowledgment: deflate by what was acknowledged, add back one segment."""
        self.cwnd = max(self.cwnd - acked, self.mss)
        if acked >= self.mss:
            self.cwnd += self.mss

    def exit_recovery(self, flight: int) -> None:
        """RFC 6582 3.2 step 3, full acknowledgment, option 1, so that no burst follows."""
        self.cwnd = min(self.ssthresh, max(flight, self.mss) + self.mss)

    def timeout(self, flight: int, first: bool) -> None:
        """RFC 5681 3.1 equation 4 and the loss window; ssthresh stays on repeated timeouts of the same data."""
        if first:
            self.ssthresh = max(flight // 2, 2 * self.mss)
        self.cwnd = self.mss
        self.bytes_acked = 0

    def idle(self, segments: int) -> None:
        """RFC 5681 4.1: no more than the restart window."""
        self.cwnd = min(self.cwnd, self.mss * segments)
