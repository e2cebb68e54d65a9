"""Expressions on records of the tap bus: what `--filter` of a tool lets through (docs/expressions.md)."""

from __future__ import annotations

from levelip.debug.tap import DIRECTION, PROCESS, SEAM, Record, event_of, goes_up
from levelip.tracing.expression import compile_expression


class RecordFilter:
    """A compiled expression, for records. ExpressionError for one that means nothing; ValueError for one that asks for
    figures of connections, which records do not have."""

    def __init__(self, text: str) -> None:
        self.expression = compile_expression(text)
        if self.expression.needs_figures:
            names = [name for name in self.expression.fields if name.startswith("conn.")]
            raise ValueError(f"{names[-1]} is known where the stack can be asked, as by a breakpoint, not of a trace")
        self._ways: dict[tuple[str, str, str], str] = {}

    @property
    def detail(self) -> str:
        """How much of the payload the records have to hold for it: a detail of "tap.listen"."""
        return "full" if self.expression.needs_payload else "headers"

    def frame(self, record: Record) -> bool:
        """Whether it is true of a frame's record."""
        way = (record[PROCESS], record[SEAM], record[DIRECTION])
        direction = self._ways.get(way)
        if direction is None:
            direction = self._ways[way] = "up" if goes_up(*way) else "down"
        return self.expression.matches_record(record, direction)

    def event(self, record: Record) -> bool:
        """Whether it is true of an event's record."""
        return self.expression.about_events and self.expression.matches_event(event_of(record))
