"""A strategy that is found by its place, as one that somebody wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from layers.tcp.congestion.base import AckSample
from layers.tcp.congestion.window import Window


@dataclass(slots=True)
class Slow(Window):
    """It never grows beyond slow start."""

    name: ClassVar[str] = "slow"
    seen: int = 0

    def reduced(self, flight: int) -> int:
        """To a quarter."""
        return flight // 4

    def avoid(self, acked: int, sample: AckSample) -> None:
        """Only count."""
        self.seen += acked
