"""Reno's windows: slow start, congestion avoidance by one segment a round trip, halving on loss (RFC 5681), counted in
bytes (RFC 3465). Linux calls it "reno"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from layers.tcp.congestion.base import AckSample
from layers.tcp.congestion.window import Window


@dataclass(slots=True)
class NewReno(Window):
    """The strategy "newreno"."""

    name: ClassVar[str] = "newreno"

    bytes_acked: int = 0  # since cwnd grew last, in congestion avoidance
    undo_bytes_acked: int = 0

    def reduced(self, flight: int) -> int:
        """RFC 5681 3.1 equation 4."""
        return flight // 2

    def avoid(self, acked: int, sample: AckSample) -> None:
        """RFC 3465 2.1: a segment for each window's worth of bytes, however many ACKs brought them. Only whole segments
        of the window are ever under way, so a round trip acknowledges no more than those; to wait for the part of a
        segment that a halving leaves would slow the growth at small windows (Linux counts segments)."""
        cwnd, mss = self.cwnd, self.mss
        self.bytes_acked += acked
        while self.bytes_acked >= (whole := cwnd - cwnd % mss or mss):
            self.bytes_acked -= whole
            cwnd += mss
        self.cwnd = cwnd

    def reset_avoidance(self) -> None:
        """RFC 3465 2.1: counting begins anew."""
        self.bytes_acked = 0

    def remember(self) -> None:
        """And how far the next segment had come."""
        Window.remember(self)
        self.undo_bytes_acked = self.bytes_acked

    def bring_back(self) -> None:
        """As `remember` kept it."""
        Window.bring_back(self)
        self.bytes_acked = self.undo_bytes_acked
