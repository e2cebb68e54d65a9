"""What the flow model holds of a connection: rows of a few kinds, in rings that say what they left out.

Every row is a tuple with names, of numbers, strings and lists, so that it is JSON as it stands (an array; `COLUMNS` has
the names). All rows of one connection are numbered by one count, `n`, from 1: who has seen all up to n asks for the
rest. `t` is in ns since the model's start. `way` is "out" for what the local side sent, "in" for what came to it.

Sequence numbers are relative to the sender's SYN, which is 0, so that the first byte of data is 1 (as in Wireshark),
and go on beyond 2^32. Acknowledgments and SACK blocks are numbers of the other side's data. Windows are bytes, scaled.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Generic, NamedTuple, TypeVar


class SegmentRow(NamedTuple):
    """One segment, or super-segment of pieces of `gso` bytes (0: it is one packet)."""

    n: int
    t: int
    way: str
    seq: int
    len: int  # bytes of data, without SYN and FIN
    flags: str  # tcpdump's letters: "S.", "P."
    ack: int | None
    win: int  # bytes
    gso: int
    sack: list[list[int]]  # [left, right] of what the sender has beyond `ack`
    dsack: list[int] | None  # what it has twice, RFC 2883
    again: int  # bytes (SYN and FIN count) that lie below what this side had sent already
    notes: list[str]  # findings: NOTES
    out_flight: int  # bytes of the local side that are neither acknowledged nor SACKed, after this segment
    in_flight: int  # the same of the other side's
    id: str  # the frame's id, or the packet's number in its file


NOTES = {
    "retransmission": "holds bytes that were sent before",
    "spurious_retransmission": "holds nothing but bytes that were acknowledged before",
    "out_of_order": "fills a hole so soon that it was overtaken rather than sent again",
    "lost_segment": "bytes before it were not seen",
    "duplicate_ack": "acknowledges the same again while data is out, RFC 5681 2",
    "window_update": "the window alone changed",
    "zero_window": "the window is closed",
    "window_full": "fills the other side's window to its end",
    "keep_alive": "just below what is expected, RFC 9293 3.8.4",
    "zero_window_probe": "the same while the other side's window is closed, RFC 9293 3.8.6.1",
    "dsack": "says that bytes came twice, RFC 2883",
    "beyond_window": "far outside of the window: not counted",
}
"""Findings by the names of Wireshark's tcp.analysis fields, where it has one."""


class WindowRow(NamedTuple):
    """The congestion window changed (events "cwnd" and "undo"; a capture has none)."""

    n: int
    t: int
    cwnd: int  # bytes
    ssthresh: int | None  # None: never lowered
    pipe: int | None  # bytes in flight by the sender's own account (RFC 6675 4); None: it did not say
    why: str


class RttRow(NamedTuple):
    """A round trip was measured, or the retransmission timer changed. ns; None: not told.

    `why`: "rtt" the stack's own sample, "rto" its timer ran out and backed off, "ack" what ACKs show to an onlooker.
    """

    n: int
    t: int
    way: str  # whose data
    rtt: int | None
    srtt: int | None
    rttvar: int | None
    rto: int | None
    why: str


class StateRow(NamedTuple):
    """The local side's state changed."""

    n: int
    t: int
    old: str
    new: str
    input: str  # the stack's reason; "inferred" where a capture was looked at
    id: str


class DecisionRow(NamedTuple):
    """An event: what was decided, and why."""

    n: int
    t: int
    process: str
    kind: str
    reason: str  # name of a row of reasons.py, or empty
    rule: str  # RFC and section of that row
    text: str
    id: str  # the frame that led to it, or empty
    data: dict[str, Any]  # the event's values; empty where a comment of a capture is all that is known


Row = SegmentRow | WindowRow | RttRow | StateRow | DecisionRow
SERIES: dict[str, type[tuple[Any, ...]]] = {
    "segments": SegmentRow,
    "windows": WindowRow,
    "rtts": RttRow,
    "states": StateRow,
    "decisions": DecisionRow,
}
COLUMNS: dict[str, tuple[str, ...]] = {name: kind._fields for name, kind in SERIES.items()}  # type: ignore[attr-defined]

R = TypeVar("R", bound=tuple[Any, ...])


class Ring(Generic[R]):
    """The newest rows, `limit` at least and a quarter more at most; `left_out` counts the older ones."""

    __slots__ = ("left_out", "limit", "rows")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.rows: list[R] = []
        self.left_out = 0

    def append(self, row: R) -> None:
        """Add one."""
        rows = self.rows
        rows.append(row)
        over = len(rows) - self.limit
        if over * 4 > self.limit:
            del rows[:over]
            self.left_out += over

    def since(self, n: int) -> list[R]:
        """Those with a number above `n`."""
        rows = self.rows
        if not n or not rows or rows[0][0] > n:
            return list(rows)
        return rows[bisect_right(rows, n, key=_number) :]


def _number(row: tuple[Any, ...]) -> int:
    number: int = row[0]
    return number
