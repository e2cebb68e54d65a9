"""A connection's series for the page's graphs, no larger than what its pixels can show.

Up to `EXACT` rows in the range are sent as they are. Beyond that each pixel column gets what the rows in it span: of
segments the lowest and highest byte by kind, of lines the extremes and the last. So a graph costs the same to send and
to draw whether it shows a hundred segments or a hundred thousand; the numbers at the edges stay exact.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from levelip.tracing.flow import Flow

EXACT = 4000
MAX_WIDTH = 4000
DATA, AGAIN, EDGE, PROBE = 0, 1, 2, 3
"""Kinds of segments: new data, sent again, SYN or FIN or RST, keep-alives and window probes."""


def _at(row: Any) -> int:
    time: int = row.t
    return time


def _within(rows: Sequence[Any], low: int, high: int) -> Sequence[Any]:
    return rows[bisect_left(rows, low, key=_at) : bisect_right(rows, high, key=_at)]


def kind_of(row: Any) -> int:
    """Of a segment, for its colour."""
    if "keep_alive" in row.notes or "zero_window_probe" in row.notes:
        return PROBE
    if row.again:
        return AGAIN
    return EDGE if any(letter in row.flags for letter in "SFR") else DATA


def graph(flow: Flow, way: str, low: int, high: int, width: int) -> dict[str, Any]:
    """Series of the data that goes `way` ("out": from the local side), between two instants in ns of the model.

    data    [t, first byte, byte after the last, kind, segments]
    acks    [t, acknowledged, right edge of the window]         of what comes the other way
    sacks   [t, left, right, 1 if it came twice (D-SACK)]
    flight  [t, bytes out]      windows  [t, cwnd, ssthresh, pipe]      rtts  [t, rtt, srtt, rto, 1 if RTO ran out]
    """
    segments = _within(flow.segments.rows, low, high)
    windows = _within(flow.windows.rows, low, high)
    rtts = [row for row in _within(flow.rtts.rows, low, high) if row.way == way]
    sampled = any(row.why == "rtt" for row in rtts)
    if sampled:
        rtts = [row for row in rtts if row.why != "ack"]
    exact = len(segments) <= EXACT
    bins = _Bins(low, high, max(50, min(width, MAX_WIDTH)))
    data: list[list[Any]] = []
    acks: list[list[Any]] = []
    sacks: list[list[Any]] = []
    flight: list[list[Any]] = []
    for row in segments:
        if row.way == way:
            size = row.len + sum(letter in row.flags for letter in "SF")
            if size or "R" in row.flags:
                data.append([row.t, row.seq, row.seq + size, kind_of(row), 1])
        elif row.ack is not None and "beyond_window" not in row.notes:
            acks.append([row.t, row.ack, row.ack + row.win])
            sacks += [[row.t, left, right, 0] for left, right in row.sack]
            if row.dsack is not None:
                sacks.append([row.t, *row.dsack, 1])
        flight.append([row.t, row.out_flight if way == "out" else row.in_flight])
    if not exact:
        data, acks, sacks = bins.spans(data), bins.last(acks), bins.spans([[*one, 1] for one in sacks])
        sacks = [one[:4] for one in sacks]
    return {
        "data": data,
        "acks": acks,
        "sacks": sacks,
        "flight": flight if len(flight) <= EXACT else bins.extremes(flight),
        "windows": bins.last_if_many([[row.t, row.cwnd, row.ssthresh, row.pipe] for row in windows])
        if way == "out" else [],
        "rtts": bins.extremes_if_many([[row.t, row.rtt, row.srtt, row.rto, int(row.why == "rto")] for row in rtts]),
        "exact": exact,
        "segments": len(segments),
    }  # fmt: skip


class _Bins:
    """Columns of a graph."""

    def __init__(self, low: int, high: int, width: int) -> None:
        self._low = low
        self._step = max(1, (high - low) // width)

    def _column(self, row: list[Any]) -> int:
        return int((row[0] - self._low) // self._step)

    def spans(self, rows: list[list[Any]]) -> list[list[Any]]:
        """[t, low, high, kind, n]: one a column and kind, where they touch; holes between them stay."""
        found: dict[tuple[int, int], list[Any]] = {}
        out: list[list[Any]] = []
        for row in rows:
            key = (self._column(row), row[3])
            last = found.get(key)
            if last is not None and row[1] <= last[2] and row[2] >= last[1]:
                last[1], last[2], last[4] = min(last[1], row[1]), max(last[2], row[2]), last[4] + row[4]
            else:
                found[key] = new = list(row)
                out.append(new)
        return out

    def last(self, rows: list[list[Any]]) -> list[list[Any]]:
        """The last row of each column."""
        out: list[list[Any]] = []
        before = None
        for row in rows:
            column = self._column(row)
            if column == before:
                out[-1] = row
            else:
                out.append(row)
                before = column
        return out

    def extremes(self, rows: list[list[Any]]) -> list[list[Any]]:
        """Of each column the rows with the least and the greatest second value, in their order."""
        out: list[list[Any]] = []
        column: list[list[Any]] = []
        before = None
        for row in [*rows, None]:
            now = None if row is None else self._column(row)
            if now != before and column:
                told = [one for one in column if one[1] is not None] or column
                least, most = min(told, key=_second), max(told, key=_second)
                marked = [one for one in column if one[-1] == 1 and len(one) > 2]
                chosen = {id(one): one for one in (least, most, *marked[:1])}
                out += sorted(chosen.values(), key=_first)
                column = []
            before = now
            if row is not None:
                column.append(row)
        return out

    def last_if_many(self, rows: list[list[Any]]) -> list[list[Any]]:
        return rows if len(rows) <= EXACT else self.last(rows)

    def extremes_if_many(self, rows: list[list[Any]]) -> list[list[Any]]:
        return rows if len(rows) <= EXACT else self.extremes(rows)


def _first(row: list[Any]) -> Any:
    return row[0]


def _second(row: list[Any]) -> Any:
    return row[1] if row[1] is not None else 0
