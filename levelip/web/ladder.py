"""The ladder of a connection: its segments, state changes and decisions in their order, as a view of positions.

segment   [t, "seg", way, seq, len, flags, ack, win, sack, dsack, again, notes, flight, id, pieces]
state     [t, "state", old, new, input]
decision  [t, "event", process, kind, text, reason, rule]        t: seconds from the source's origin
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from levelip.tracing.flow import Flow
from levelip.tracing.flowrows import DecisionRow, SegmentRow, StateRow

KEEP = 200_000
FREQUENT = frozenset({"rtt", "cwnd", "timer", "rcvbuf", "state", "window"})
"""Decisions of nearly every segment, or that another row tells: left out unless all are wanted."""


class Ladder:
    """Follows a flow; the same questions as a View."""

    scanned = 1.0

    def __init__(self, flow: Flow, begin: int, origin: int, decisions: str) -> None:
        """`begin`: the instant from which the flow's times count; `origin`: from which the page's do. `decisions`:
        "main", "all" or "none"."""
        self.start = 0
        self._flow = flow
        self._begin = begin
        self._shift = begin - origin
        self._decisions = decisions
        self._seen = 0
        self._rows: list[SegmentRow | StateRow | DecisionRow] = []

    @property
    def count(self) -> int:
        return self.start + len(self._rows)

    def scan(self) -> bool:
        """Take what is new."""
        if self._flow.count == self._seen:
            return True
        news = self._flow.since(self._seen)
        self._seen = news["next"]
        rows = [*news["segments"], *news["states"], *(row for row in news["decisions"] if self._wants(row))]
        rows.sort(key=lambda row: row[0])
        self._rows += rows
        if len(self._rows) > KEEP:
            gone = len(self._rows) - KEEP + KEEP // 10
            del self._rows[:gone]
            self.start += gone
        return True

    def _wants(self, row: DecisionRow) -> bool:
        if self._decisions == "none" or row.kind == "state":
            return False
        if self._decisions == "all" or row.reason:
            return True
        delayed = row.kind == "fault" and row.data.get("what") == "delay"  # by a fault that delays all
        return row.kind not in FREQUENT and not delayed

    def rows(self, at: int, count: int) -> list[list[Any]]:
        """The rows at these positions."""
        low = max(0, at - self.start)
        return [self._shown(row) for row in self._rows[low : max(low, at + count - self.start)]]

    def at(self, when: int) -> int:
        """The position of the first row at or after an instant of the source."""
        return self.start + bisect_left(self._rows, when - self._begin, key=lambda row: row.t)

    def _shown(self, row: SegmentRow | StateRow | DecisionRow) -> list[Any]:
        t = round((row.t + self._shift) / 1e9, 9)
        if isinstance(row, SegmentRow):
            flight = row.out_flight if row.way == "out" else row.in_flight
            pieces = -(-row.len // row.gso) if row.gso else 1
            return [
                t, "seg", row.way, row.seq, row.len, row.flags, row.ack, row.win, row.sack, row.dsack, row.again,
                row.notes, flight, row.id, pieces,
            ]  # fmt: skip
        if isinstance(row, StateRow):
            return [t, "state", row.old, row.new, row.input]
        return [t, "event", row.process, row.kind, row.text, row.reason, row.rule]
