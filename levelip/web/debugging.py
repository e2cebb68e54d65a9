"""Stopping and changing the stack from a page: levelip.debug's Debugger, its answers as plain data for the page.

The server is one debugger, whichever page commands it; another that lives (`lvlip debug`) is asked before it is
overruled: its hold is told, and nothing is done. One thread uses it (live.py's).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from levelip.debug.debugger import Debugger
from levelip.debug.injecting import inject
from levelip.debug.model import Fed, HeldFrame, State
from levelip.debug.tap import FIELDS, GSO, KIND, LENGTH
from levelip.frames.core import ControlError
from levelip.ipc.control import NotRunning
from levelip.ipc.rundir import RunDirectory
from levelip.tracing.capturefile import CaptureError, CaptureFile
from levelip.tracing.dissect import Describer
from levelip.tracing.edit import editable
from levelip.tracing.formatting import sentence
from levelip.web.dissection import dissect
from levelip.web.packets import connection_name, connection_of

MAX_HELD = 500
"""Held frames that a page is told of; how many there are it learns from the queues."""
MAX_INJECTED = 1000
"""Packets of a capture that are injected at once."""
_MAX_STEPS = 1000
_MS = 1_000_000


class Stopping:
    """One debugger, and what it knows as plain data."""

    def __init__(self, run: RunDirectory) -> None:
        self._debugger = Debugger(run.name, root=run.root, tool="lvlip web")
        self._describer = Describer()
        self._queues: list[Any] = []  # as they were when the held frames were asked for last
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def close(self) -> None:
        """The stack stays as it is."""
        self._debugger.close()

    def state(self, anew: bool = False, silent: Iterable[str] = ()) -> dict[str, Any] | None:
        """Held or not, by whom and why, queues, breakpoints, held frames; None while nothing runs. The frames are asked
        for only when the queues have changed, or `anew`. `silent`: layers that did not answer a moment ago."""
        self._debugger.expect_silence(silent)
        try:
            state = self._debugger.state()
            breakpoints = self._debugger.breakpoints()
        except NotRunning:
            return None
        except ControlError as error:
            return {"held": False, "error": str(error), "queues": [], "breakpoints": [], "frames": []}
        if not self._debugger.processes:
            return None
        if anew or state.queues != self._queues:
            frames = self._debugger.held() if state.held else []
            self._queues, self._count = state.queues, len(frames)
            self._rows = [self._row(frame) for frame in frames[:MAX_HELD]]
        return {
            "held": state.held,
            "now": state.now,
            "since": state.since,
            "mine": state.mine,
            "alive": state.alive,
            "holder": _holder(state),
            "at": state.at,
            "stop": _stop(state),
            "queues": [dataclasses.asdict(queue) for queue in state.queues if queue.held],
            "breakpoints": [
                {"number": one.number, "text": one.text(), "enabled": one.enabled, "met": met, "stops": stops}
                for one, met, stops in breakpoints
            ],
            "frames": self._rows,
            "count": self._count,
        }

    def _row(self, frame: HeldFrame) -> dict[str, Any]:
        record = frame.record
        fields, head, payload, length = record[FIELDS : LENGTH + 1]
        text = self._describer.describe(frame.seam, frame.kind, fields, head, payload, length, record[GSO])
        found = connection_of(record, frame.way == "up")
        return {
            "name": frame.name, "process": frame.process, "seam": frame.seam, "way": frame.way, "place": frame.place,
            "kind": frame.kind, "due": frame.due, "length": len(head) + length, "text": text,
            "conn": connection_name(found[0]) if found else "",
        }  # fmt: skip

    # commands; all answer {"said": what to tell}, a frame's also more

    def hold(self, where: str) -> dict[str, Any]:
        state = self._debugger.hold(where or None)
        return {"said": f"held{f' at {where}' if where else ''}, {state.took_ns / _MS:.1f} ms"}

    def resume(self) -> dict[str, Any]:
        self._debugger.resume()
        return {"said": "the stack goes on"}

    def step(self, count: int, frame: str, at: str) -> dict[str, Any]:
        """Hand over held frames; "steps" says what each did."""
        done = self._debugger.step(max(1, min(count, _MAX_STEPS)), frame=frame or None, at=at or None)
        return {"steps": [self._fed(one) for one in done]}

    def step_timer(self) -> dict[str, Any]:
        return {"steps": [self._fed(self._debugger.step_timer())]}

    def _fed(self, fed: Fed) -> dict[str, Any]:
        return {
            "process": fed.process,
            "frame": self._row(fed.frame) if fed.frame else None,
            "left": fed.left,
            "events": [{"kind": one.kind, "text": sentence(one), "conn": one.conn} for one in fed.events],
            "output": [self._row(one) for one in fed.output],
            "passed": [f"{kind} at {point}" for kind, point in fed.passed],
        }

    def frame(self, name: str) -> dict[str, Any]:
        """A held frame's fields and bytes, and which fields can be changed."""
        row, frame = self._debugger.frame(name)
        tree = dissect(row.record, row.way) if row.record[KIND] == "f" else {"layers": [], "bytes": "", "length": 0}
        return {"frame": self._row(row), **tree, "editable": editable(frame) if frame is not None else []}

    def edit(self, name: str, changes: Mapping[str, str], checksums: str) -> dict[str, Any]:
        self._debugger.edit(name, dict(changes), checksums="keep" if checksums == "keep" else "mend")
        return {"said": f"{name}: {', '.join(changes)} changed", **self.frame(name)}

    def drop(self, name: str) -> dict[str, Any]:
        self._debugger.drop(name)
        return {"said": f"{name} is gone"}

    def duplicate(self, name: str) -> dict[str, Any]:
        return {"said": f"{name} stands there twice, as {self._debugger.duplicate(name)}"}

    def delay(self, name: str, milliseconds: float) -> dict[str, Any]:
        self._debugger.delay(name, max(0, int(milliseconds * _MS)))
        return {"said": f"{name} waits for {milliseconds:g} ms of stack time"}

    def move(self, name: str, place: int) -> dict[str, Any]:
        return {"said": f"{name} is at place {self._debugger.move(name, place) + 1}"}

    def inject(
        self, where: str, line: str, fields: Sequence[str], conn: str, absolute: bool, keep: bool
    ) -> dict[str, Any]:
        """Put a packet in at "SEAM:WAY"; where frames are held there it is one of them."""
        (done,) = inject(
            self._debugger, where, line=line or None, words=fields, connection=conn, absolute=absolute,
            keep_checksums=keep,
        )  # fmt: skip
        said = f"{done['text']}; {done['note']}" if done["note"] else done["text"]
        return {"said": said, "held": done["held"]}

    def inject_file(self, where: str, path: Path, numbers: Sequence[int]) -> dict[str, Any]:
        """The same of packets of a capture: all that can go there, or those of these numbers (Wireshark's)."""
        if not numbers and (count := _packets_in(path)) > MAX_INJECTED:
            raise CaptureError(f"it has {count} packets, and {MAX_INJECTED} are injected at once: say which")
        done = inject(self._debugger, where, path=path, numbers=numbers)
        first = done[0]
        held = sum(bool(one["held"]) for one in done)
        if len(done) == 1:
            return {"said": first["text"], "held": first["held"], "count": 1}
        what = f"{len(done)} packets at {first['seam']}:{first['way']}, {f'{held} held' if held else 'passed on'}"
        return {"said": what, "held": first["held"], "count": len(done)}

    def add_breakpoint(self, expression: str, on: str, at: str, once: bool, after: int) -> dict[str, Any]:
        made = self._debugger.add_breakpoint(expression, on=on, at=at, once=once, after=after)
        return {"said": f"breakpoint {made.number}: {made.text()}"}

    def remove_breakpoint(self, number: int) -> dict[str, Any]:
        self._debugger.remove_breakpoint(number)
        return {"said": f"breakpoint {number} is gone"}

    def enable_breakpoint(self, number: int, enabled: bool) -> dict[str, Any]:
        self._debugger.enable_breakpoint(number, enabled)
        return {"said": f"breakpoint {number} is {'on' if enabled else 'off'}"}


def _packets_in(path: Path) -> int:
    """How many a capture has; counted only so far as it matters."""
    with path.open("rb") as stream:
        return sum(1 for _ in itertools.islice(CaptureFile(stream), 100 * MAX_INJECTED))


def _holder(state: State) -> str:
    if state.holder is None:
        return ""
    one = state.holder
    return f"{one.tool} (pid {one.pid}, user {one.user})"


def _stop(state: State) -> dict[str, Any] | None:
    stop = state.stop
    if stop is None:
        return None
    event = sentence(stop.event) if stop.event is not None else ""
    return {"breakpoint": stop.breakpoint, "text": stop.text, "process": stop.process, "held": stop.held,
            "event": event}  # fmt: skip
