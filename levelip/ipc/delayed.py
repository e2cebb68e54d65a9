"""Frames that a stage of a seam point keeps back, each until its instant."""

from __future__ import annotations

import heapq
from typing import Any


class Delayed:
    """Of one stage, in the order of their instants (stack time, ns); those of one instant in the order of arrival."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Any]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, at: int, frame: Any) -> None:
        """Keep a frame until `at`."""
        self._order += 1
        heapq.heappush(self._heap, (at, self._order, frame))

    def due(self, now: int) -> list[Any]:
        """Take those that were kept until now."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            taken.append(heapq.heappop(self._heap)[2])
        return taken

    def next_timer(self) -> int | None:
        """When `due` has something; pure."""
        return self._heap[0][0] if self._heap else None

    def drain(self) -> list[Any]:
        """Take all, whatever their instants."""
        return [heapq.heappop(self._heap)[2] for _ in range(len(self._heap))]
