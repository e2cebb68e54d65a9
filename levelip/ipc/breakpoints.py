"""Breakpoints: what stops the stack, as a tool writes it down and as a process looks for it.

They lie in one file of the run directory, which each process reads at its start and when it is told to, so that one
that was restarted stops where the one before it would have. How often each was met is counted by each process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Segment
from levelip.ipc.clock import Holder
from levelip.ipc.memory import MemoryLost
from levelip.ipc.seampoint import SeamPoint
from levelip.rpc.place import Place
from levelip.tracing.events import Event

if TYPE_CHECKING:
    from levelip.tracing.expression import Expression

BREAKPOINTS = "breakpoints.json"
"""The file's name."""
PACKETS = (DeviceFrame, Packet, Segment, IcmpError)
"""What an expression about packets is asked about; other frames pass."""
DUE = "due"
"""Kind of the event that a process itself makes, only for breakpoints: a deadline of its core came up, and was met."""
Figures = Callable[[str], dict[str, Any]]
Read = Callable[[Place], bytes]


class Breakpoint(msgspec.Struct):
    """One breakpoint. `expression` may be empty where `event` is a kind of event; `at`: "SEAM", "SEAM up" or "SEAM
    down", empty: every seam; `after`: how many it lets pass first; `once`: it is gone after its first stop."""

    number: int
    expression: str
    about_events: bool
    owner: Holder
    at: str = ""
    event: str = ""
    once: bool = False
    after: int = 0
    enabled: bool = True

    def text(self) -> str:
        """As it was asked for."""
        words = [self.expression] if self.expression else []
        words += [f"--on {self.event}"] if self.event else []
        words += [f"--at {self.at}"] if self.at else []
        words += [f"--after {self.after}"] if self.after else []
        words += ["--once"] if self.once else []
        return " ".join(words)


class Stop(msgspec.Struct):
    """Where a breakpoint stopped the stack. `held`: name of the frame that it waited for, first in its queue; or
    `event`: the event, whose call has been finished."""

    breakpoint: int
    text: str
    process: str
    held: str = ""
    event: Event | None = None


class _Watch:
    """A breakpoint within a process."""

    def __init__(self, spec: Breakpoint) -> None:
        from levelip.tracing.expression import compile_expression

        self.spec = spec
        self.expression = compile_expression(spec.expression) if spec.expression else None
        self.met = 0
        self.stops = 0
        self.broken = False

    @property
    def over(self) -> bool:
        return self.broken or not self.spec.enabled or (self.spec.once and self.stops > 0)

    def count(self) -> bool:
        """It was met; whether it stops."""
        self.met += 1
        if self.met <= self.spec.after:
            return False
        self.stops += 1
        return True


class Breakpoints:
    """All breakpoints of a stack, within one process of it."""

    def __init__(self, path: Path, figures: Figures, read: Read, log: logging.Logger) -> None:
        self._path = path
        self._log = log
        self._figures = figures
        self._read = read
        self._watches: dict[int, _Watch] = {}
        self.on_packets: list[_Watch] = []
        self.on_events: list[_Watch] = []

    def load(self) -> list[str]:
        """Read the file; what could not be understood of it, a sentence each. Counts go on where nothing changed."""
        refused = []
        watches: dict[int, _Watch] = {}
        try:
            specs = read_breakpoints(self._path)
        except ValueError as error:
            specs, refused = [], [str(error)]
        for spec in specs:
            old = self._watches.get(spec.number)
            if old is not None and old.spec == spec:
                watches[spec.number] = old
                continue
            try:
                made = _Watch(spec)
            except Exception as error:  # whatever a newer tool wrote must not end an older process
                refused.append(f"breakpoint {spec.number}: {error}")
                continue
            if old is not None and msgspec.structs.replace(old.spec, enabled=spec.enabled) == spec:
                made.met, made.stops = old.met, old.stops
            watches[spec.number] = made
        self._watches = watches
        self._sort()
        return refused

    def _sort(self) -> None:
        active = [watch for watch in self._watches.values() if not watch.over]
        self.on_packets = [watch for watch in active if not watch.spec.about_events]
        self.on_events = [watch for watch in active if watch.spec.about_events]

    def wants(self, point: SeamPoint) -> bool:
        """Whether packets that pass there are to be looked at."""
        return any(watch.spec.at in ("", point.seam, f"{point.seam} {point.way}") for watch in self.on_packets)

    def packet(self, point: SeamPoint, frame: Any) -> Breakpoint | None:
        """The breakpoint that stops at this frame."""
        if type(frame) not in PACKETS:
            return None
        for watch in self.on_packets:
            if watch.spec.at in ("", point.seam, f"{point.seam} {point.way}"):
                if self._stops(watch, lambda one: one.matches_frame(
                    frame, point.seam, point.way, figures=self._figures, read=self._read
                )):  # fmt: skip
                    return watch.spec
        return None

    def event(self, event: Event) -> Breakpoint | None:
        """The breakpoint that stops at this event."""
        for watch in self.on_events:
            if watch.spec.event in ("", event.kind):
                if self._stops(watch, lambda one: one.matches_event(event, self._figures)):
                    return watch.spec
        return None

    def _stops(self, watch: _Watch, matches: Callable[[Expression], bool]) -> bool:
        """Whether it is met, and stops. One that cannot be worked out is told and out of use: whatever passes, and
        whatever it asks, must not end a process."""
        try:
            met = watch.expression is None or matches(watch.expression)
        except MemoryLost:  # the payload is gone: whoever reads it next says so
            return False
        except Exception:
            self._log.exception("breakpoint %d failed and is out of use: %s", watch.spec.number, watch.spec.text())
            watch.broken = True
            self._sort()
            return False
        if not met or not watch.count():
            return False
        self._sort()
        return True

    def counts(self) -> dict[str, list[int]]:
        """Number → [how often met, how often it stopped], of this process."""
        return {str(number): [watch.met, watch.stops] for number, watch in self._watches.items()}


def read_breakpoints(path: Path) -> list[Breakpoint]:
    """What the file holds; nothing if there is none. ValueError if it is something else."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        return msgspec.json.decode(data, type=list[Breakpoint])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path} does not hold breakpoints: {error}") from None


def write_breakpoints(path: Path, breakpoints: list[Breakpoint]) -> None:
    """Put others in their place, whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(msgspec.json.encode(breakpoints))
    draft.replace(path)
