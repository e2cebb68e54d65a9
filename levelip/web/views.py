"""What of the rows one window of the page shows: those that pass its filter, found a slice at a time.

A view without a filter is the rows themselves. Else it holds the numbers of the rows that passed, extended as rows
come; `scan` works for a few milliseconds and returns, so that a filter over everything that is kept never makes the
server deaf.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from levelip.web.packets import EVENT_ROW, NOTICE, Packets

SLICE_S = 0.004


@dataclass(frozen=True, slots=True)
class Wanted:
    """What passes. `conn` None: all; `seams`: seam numbers, None: all; `matches`: the rest, by record."""

    conn: int | None = None
    seams: frozenset[int] | None = None
    frames: bool = True
    events: bool = True
    matches: Callable[[list[Any], int], bool] | None = None  # (record, number in kinds) → passes

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return (
            self.conn is None and self.seams is None and self.frames and self.events and self.matches is None
        )  # fmt: skip


class View:
    """Positions from `start` to `count` (exclusive) are the rows that pass, oldest first; positions never move."""

    def __init__(self, packets: Packets, wanted: Wanted, origin: int = 0) -> None:
        """`origin`: what the seconds of rows count from."""
        self._packets = packets
        self._origin = origin
        self._wanted = wanted
        self._found = array("Q")
        self._gone = 0  # of what passed, how many are no longer kept (a lower bound, brought up by `scan`)
        self._next = packets.first  # the first row not looked at

    @property
    def start(self) -> int:
        return self._packets.first if self._wanted.everything else self._gone

    @property
    def count(self) -> int:
        return self._packets.end if self._wanted.everything else self._gone + len(self._found)

    @property
    def scanned(self) -> float:
        """How much of what there is was looked at, 0 to 1."""
        packets = self._packets
        kept = packets.end - packets.first
        if self._wanted.everything or not kept:
            return 1.0
        return max(0.0, min(1.0, (self._next - packets.first) / kept))

    def scan(self, seconds: float = SLICE_S) -> bool:
        """Look at more rows, for so long at most; whether all was seen."""
        packets, wanted = self._packets, self._wanted
        if wanted.everything:
            return True
        self._forget()
        deadline = time.perf_counter() + seconds
        n = max(self._next, packets.first)
        offset, end = packets.first, packets.end
        kinds, conns, matches = packets.kinds, packets.conns, wanted.matches
        found = self._found
        while n < end:
            stop = min(end, n + (64 if matches else 4096))
            for n in range(n, stop):  # noqa: B020
                i = n - offset
                kind = kinds[i]
                if wanted.conn is not None and conns[i] != wanted.conn:
                    continue
                if kind >> 5 == EVENT_ROW:
                    if not wanted.events:
                        continue
                elif kind >> 5 == NOTICE:
                    if matches is None:
                        found.append(n)
                    continue
                elif not wanted.frames or (wanted.seams is not None and kind & 15 not in wanted.seams):
                    continue
                if matches is not None and not matches(packets.record(n), kind):
                    continue
                found.append(n)
            n = stop
            if time.perf_counter() > deadline:
                break
        self._next = n
        return n >= end

    def _forget(self) -> None:
        """Drop positions whose rows are gone."""
        first, found = self._packets.first, self._found
        if found and found[0] < first:
            gone = bisect_left(found, first)
            del found[:gone]
            self._gone += gone

    def rows(self, at: int, count: int) -> list[list[Any]]:
        """The rows at these positions, as the page shows them."""
        packets = self._packets
        return [packets.row(n, self._origin) for n in self.numbers(at, count) if n >= packets.first]

    def at(self, when: int) -> int:
        """The position of the first row at or after a time."""
        return self.position(self._packets.at(when))

    def numbers(self, position: int, count: int) -> list[int]:
        """The rows at these positions, as far as they are kept."""
        if self._wanted.everything:
            low, high = max(position, self._packets.first), min(position + count, self._packets.end)
            return list(range(low, high))
        low = max(0, position - self._gone)
        return list(self._found[low : max(low, position + count - self._gone)])

    def position(self, n: int) -> int:
        """Where row `n` stands, or where it would."""
        return n if self._wanted.everything else self._gone + bisect_left(self._found, n)
