"""A recording as a source: what entered and left each core, and what it decided, as rows; without replaying it.

Of the files of one stack each seam is taken from one side, as on the tap bus; of one file all that its process saw.
Messages that are no packets are left out. `lvlip replay` runs a recording again.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from levelip.debug.tap import PROCESSES, Notice, Record, above, below
from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Segment
from levelip.rpc.place import Place
from levelip.tracing.flow import FlowModel
from levelip.tracing.recordedcalls import Asked, Flushed, Received, SetTo, TimerRan, Told, decode_frame
from levelip.tracing.recording import MAGIC, Recording, RecordingError
from levelip.web.packets import KEEP
from levelip.web.source import FLOW_ROWS, FLOW_TOTAL, Source

SUFFIX = ".rec"
SLICE_S = 0.02
_PAYLOAD = 128
_SEAM: dict[type, str] = {DeviceFrame: "link", Packet: "link-ip", Segment: "ip-tcp", IcmpError: "ip-tcp"}
_BESIDE = frozenset({"id", "causes", "head", "payload", "checksum", "gso_size", "traced"})
_Timed = tuple[int, int, int, Record | Notice]


def is_recording(start: bytes) -> bool:
    """Whether a file that starts so is one."""
    return start.startswith(MAGIC[:8])


def files_of(path: Path) -> list[Path]:
    """The recordings that a path means: a file, or those in a directory."""
    return sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]


class Recorded(Source):
    """Recordings of one stack that were read whole, up to `keep` rows (the newest)."""

    def __init__(self, name: str, title: str, *, keep: int = KEEP) -> None:
        super().__init__(name, "recording", title, keep=keep)

    async def read(self, paths: Iterable[Path]) -> None:
        """Read them all. RecordingError for what is none, OSError for what cannot be read."""
        with contextlib.ExitStack() as opened:
            recordings: list[Recording] = []
            for path in paths:
                recordings.append(Recording(path))
                opened.callback(recordings[-1].close)
            if not recordings:
                raise RecordingError(f"there is no file *{SUFFIX} in it")
            self.origin = min(one.span[0] for one in recordings)
            self.wall = recordings[0].head.wall_offset
            told = any(one.head.events for one in recordings)
            self.flows = FlowModel(infer=not told, rows=FLOW_ROWS, total=FLOW_TOTAL)
            self.damage = "; ".join(one.torn for one in recordings if one.torn)
            names = {one.head.process for one in recordings}
            rows = heapq.merge(*(_rows(one, names, i) for i, one in enumerate(recordings)))
            await self._store(rows)
        if self.damage:
            self.packets.extend([Notice(0, f"torn: {self.damage}")])
        if not self.packets.end:
            raise RecordingError("nothing was recorded in it")

    async def _store(self, rows: Iterator[_Timed]) -> None:
        batch: list[Record | Notice] = []
        begun = time.perf_counter()
        for _, _, _, record in rows:
            batch.append(record)
            if not isinstance(record, Notice):
                self.flows.add(record)
            if time.perf_counter() - begun > SLICE_S:
                self.packets.extend(batch)
                batch = []
                await asyncio.sleep(0)
                begun = time.perf_counter()
        self.packets.extend(batch)


def _sides(process: str, names: set[str]) -> set[tuple[str, str]]:
    """(seam, direction) that a process's recording is asked for, so that each packet stands there once a seam."""
    lower, upper = below(process), above(process)
    wanted = {(lower, "in"), (lower, "out"), (upper, "in"), (upper, "out")}
    if process == "link" and "ip" in names:
        wanted.discard(("link-ip", "out"))
    if process == "ip":
        if "link" in names:
            wanted.discard(("link-ip", "out"))
        if "tcp" in names:
            wanted -= {("ip-tcp", "in"), ("ip-tcp", "out")}
    return wanted


def _rows(recording: Recording, names: set[str], order: int) -> Iterator[_Timed]:
    """(time, of which file, number, record) in the order of the calls."""
    process = recording.head.process
    if process not in PROCESSES:
        raise RecordingError(f"{recording.path}: a process {process!r} is not known")
    sides = _sides(process, names)
    sides = _sides(process, names)
    now, number = recording.span[0], 0
    try:
        for _, entry in recording.entries(recording.first):
            if isinstance(entry, Received | TimerRan | Asked | SetTo):
                now = max(now, entry.now)
            found: list[Record] = []
            if isinstance(entry, Received):
                found = _frame(process, sides, "in", now, decode_frame(entry.code, entry.frame, entry.cuts))
            elif isinstance(entry, Flushed):
                for _, code, raw, cuts in entry.out:
                    found += _frame(process, sides, "out", now, decode_frame(code, raw, cuts))
            elif isinstance(entry, Told):
                found = [
                    [0, "e", process, now, [one.at, one.kind, one.reason, one.frame, one.conn, one.data]]
                    for one in entry.events
                ]
            for record in found:
                number += 1
                yield now, order, number, record
    except (RecordingError, ValueError) as error:
        yield now, order, number + 1, Notice(now, f"{process}: no further: {error}")


def _frame(process: str, sides: set[tuple[str, str]], direction: str, now: int, frame: Any) -> list[Record]:
    seam = _SEAM.get(type(frame))
    if seam is None or (seam, direction) not in sides:
        return []
    payload = getattr(frame, "payload", b"")
    data = b"" if isinstance(payload, Place) else bytes(payload[:_PAYLOAD])
    fields = {name: getattr(frame, name) for name in frame.__struct_fields__ if name not in _BESIDE}
    return [
        [
            0, "f", process, seam, direction, now, now, frame.id, frame.causes, type(frame).__name__, fields,
            frame.head, data, len(payload), getattr(frame, "checksum", 0), getattr(frame, "gso_size", 0),
        ]
    ]  # fmt: skip
