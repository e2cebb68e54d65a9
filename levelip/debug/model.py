"""What the debugger tells of a stack: who holds it, which frames are held, what a step did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from levelip.debug.tap import ID, TYPE, Record
from levelip.ipc.breakpoints import Breakpoint, Stop
from levelip.ipc.clock import Holder
from levelip.ipc.control import ControlError
from levelip.tracing.events import Event

__all__ = [
    "Breakpoint", "DebugError", "Fed", "HeldByAnother", "HeldFrame", "Misused", "NothingHeld", "Queue", "State", "Stop",
]  # fmt: skip


class DebugError(ControlError):
    """What the debugger was asked for cannot be done; the text says why and what can."""


class Misused(DebugError):
    """The words that it was asked with mean nothing, whatever the stack does: no place, no kind of event, no name that
    a frame can have."""


class HeldByAnother(DebugError):
    """A debugger that lives holds the stack."""


class NothingHeld(DebugError):
    """There is no frame to step."""


@dataclass(frozen=True, slots=True)
class Queue:
    """One point's queue in numbers. `full`: nothing more is read for it, so losses happen in the device's queue."""

    process: str
    point: str
    held: int
    delayed: int
    full: bool


@dataclass(frozen=True, slots=True)
class State:
    """How a stack stands. `now`: stack time, ns. While it runs, `holder`, `since` (s since 1970) and `stop` are None.

    `at`: points that are held, empty for all. `alive`: the holder's process has not ended. `stop`: the breakpoint that
    stopped it. `silent`: layers that run and did not answer. `elsewhere`: layers on another host that go on, `behind`:
    those that are held, too.
    """

    held: bool
    now: int
    holder: Holder | None = None
    since: float | None = None
    alive: bool = False
    mine: bool = False
    at: list[str] = field(default_factory=list)
    stop: Stop | None = None
    queues: list[Queue] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    behind: list[str] = field(default_factory=list)
    took_ns: int = 0
    """After `hold`: how long it took until every layer had said that it stands."""


@dataclass(frozen=True, slots=True)
class HeldFrame:
    """One held frame. `name` ("t5": tcp's fifth) is what commands take; `place` in its queue, from 0; `entered`
    CLOCK_MONOTONIC ns; `due` the stack time before which it is not to go, or 0; `record` as on the tap bus
    (levelip.debug.tap), with the first 128 bytes of payload."""

    name: str
    process: str
    seam: str
    way: str
    place: int
    entered: int
    due: int
    record: Record

    @property
    def id(self) -> int:
        """Its frame id; 0 of a message that has none."""
        number: int = self.record[ID]
        return number

    @property
    def kind(self) -> str:
        """Name of its type: "Packet", "Segment", "Data", ..."""
        name: str = self.record[TYPE]
        return name

    @classmethod
    def of(cls, process: str, row: dict[str, Any]) -> HeldFrame:
        """From a row of "debug.held"."""
        return cls(
            row["held"], process, row["seam"], row["way"], row["place"], row["entered"], row["due"], row["record"]
        )


@dataclass(frozen=True, slots=True)
class Fed:
    """What one step did. `frame` went to the core of `process` (None: a timer ran), or, `left`, out of the stack;
    `events` are what the core decided; `output` are the frames that it put out and that are held now; `passed` those
    that went on, to where nothing is held."""

    process: str
    frame: HeldFrame | None
    left: bool
    events: list[Event]
    output: list[HeldFrame]
    passed: list[tuple[str, str]]
    """(kind, point) of each."""


def events_of(rows: list[Any]) -> list[Event]:
    """Events as a control command tells them."""
    return [msgspec.convert(row, Event) for row in rows]
