"""Where journeys and `why` take records from: a live tap for a while, or a file that `lvlip trace --json` wrote.

A source is an iterable of records and notices in the order of their times, so that a recording can stand in for either.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from levelip.debug.tap import Notice, Record, TapReader
from levelip.tracing.capturefile import BEGINNINGS
from levelip.tracing.tracefile import parse_frame_id, read_line

Source = Iterable[Record | Notice]


class TraceError(ValueError):
    """A file that is no trace; the text says where and why."""


def live(
    reader: TapReader,
    seconds: float | None,
    over: Callable[[], bool],
    quiet: Callable[[], bool] = lambda: False,
) -> Iterator[Record | Notice]:
    """What an open reader hears, for so long (None: without end) or until it is `over`; what has come by then in any
    case. `quiet` is called when nothing has come for a while, and says whether to end."""
    deadline = time.monotonic() + seconds if seconds is not None else None
    while not over() and (deadline is None or time.monotonic() < deadline):
        left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
        heard = reader.read(max(0.0, left))
        yield from heard
        if not heard and quiet():
            break
    yield from reader.drain()


def read_trace(path: str | Path) -> Iterator[Record | Notice]:
    """The records of a file of `lvlip trace --json`. TraceError, with the line, for one that is none."""
    good = 0
    with Path(path).open("rb") as file:
        start = file.read(4)
        if start in BEGINNINGS:
            raise TraceError(
                f"{path} is a capture, no trace of lvlip trace --json: lvlip why, paths, graph and qlog read those, "
                "and levelip.debug.captured.read_capture does"
            )
        file.seek(0)
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = read_line(line)
            except ValueError as error:
                if good and not line.endswith(b"\n"):
                    yield Notice(0, f"the last line of {path} is torn")
                    return
                raise TraceError(f"{path}, line {number}: not a line of lvlip trace --json ({error})") from None
            good += 1
            yield found.record if found.record is not None else Notice(found.mono, found.notice)


def frame_ids(text: str) -> int | None:
    """The id that a text is, or None if it looks like no id at all."""
    try:
        return parse_frame_id(text)
    except ValueError:
        return None


__all__ = ["Source", "TraceError", "frame_ids", "live", "parse_frame_id", "read_trace"]
