"""What every layer's core looks like to the shell, and the errors that it may raise at it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from levelip.tracing.events import Event

Room = Mapping[str, int]  # port → how many frames it takes now; a missing port takes any number
UNLIMITED: Final = 1 << 30  # frames; what is meant by any number
LONGEST_DELAY_NS: Final = 3_600 * 1_000_000_000
"""So long a frame may be kept back on its way (faults, addons, debugger); what is longer is a mistake, and instants of
it would not fit into messages, where integers have 64 bits."""
Output = list[tuple[str, Any]]  # (port, frame) in the order in which they were made

DEFERRED: Final[dict[str, Any]] = {}  # answer of `control` (compared by identity): an Answer frame will follow


class ControlError(Exception):
    """A control command that cannot be carried out; the text says what would be right."""


BAD_ARGUMENTS: Final = (AttributeError, KeyError, OverflowError, TypeError, ValueError, msgspec.ValidationError)
"""What a command may raise whose arguments are missing, of another type or too large; whoever asked is told."""


def save_rng(rng: random.Random) -> list[Any]:
    """A generator's state as plain data, for a snapshot."""
    version, internal, gauss = rng.getstate()
    return [version, list(internal), gauss]


def load_rng(rng: random.Random, saved: list[Any]) -> None:
    """Let a generator go on from where `save_rng` was called."""
    version, internal, gauss = saved
    rng.setstate((version, tuple(internal), gauss))


class Core(Protocol):
    """A layer as a calculator: no socket, file, clock, thread, logger, hash order or hidden randomness."""

    interest: bool  # somebody listens to events

    @property
    def counters(self) -> dict[str, int]:
        """What happened how often, by name."""

    def receive(self, frame: Any, now: int, /) -> None:
        """Take one frame; dispatched by its type."""

    def handle_timer(self, now: int, /) -> None:
        """Run what is due at or before `now`, in the order (deadline, kind, id)."""

    def next_timer(self) -> int | None:
        """When handle_timer wants to be called; pure."""

    def outgoing(self, room: Room, /) -> Output:
        """Take what is to be sent, no more than `room` for each port."""

    def events(self) -> list[Event]:
        """Take the events since the last call."""

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """Carry out a command of the control socket; DEFERRED if an Answer(token, ...) will follow."""

    def set(self, key: str, value: Any, now: int) -> None:
        """Change a tunable at run time; `value` has been validated against the configuration's type."""

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data (msgpack can encode it)."""
