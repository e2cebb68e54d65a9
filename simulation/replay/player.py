"""One recorded core, run again: a position among its calls, forward by running, back by snapshots.

`step` runs the next call and says what came of it, and whether that is what was recorded. Events are always made here,
whether somebody listened then or not, since they change nothing; they are compared where they were recorded. Besides
the snapshots of the recording the player keeps some of its own, so that going back costs little (`seek`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from levelip.configfile import ConfigError
from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import (
    Asked,
    DamagedFrame,
    Entry,
    Faulted,
    Flushed,
    Interest,
    Received,
    SetTo,
    TimerRan,
    Told,
    decode_frame,
)
from levelip.tracing.recording import KEEPS_ALIKE, Recording, RecordingError, Snapshot
from simulation.replay.compare import (
    Divergence,
    Known,
    compared,
    differences,
    frame_differences,
    plain_state,
    rebuilt,
    short,
)
from simulation.replay.layers import restore
from simulation.replay.trust import check_setting

CHECKPOINT_S: Final = 0.1  # of running between snapshots of our own; more if they take longer than a tenth of it
CHECKPOINTS: Final = 64
STATE_LINES: Final = 12


@dataclass(slots=True)
class Step:
    """One call and what came of it. `frame` is what was received; `error` what the core raised. Of the frames that came
    out and are the same, `parts` are known in part, and of `lengths` nothing of the payload but its length."""

    number: int
    now: int
    entry: Entry
    frame: Any = None
    out: list[tuple[str, Any]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    error: BaseException | None = None
    divergence: Divergence | None = None
    parts: int = 0
    lengths: int = 0


@dataclass(slots=True)
class _Checkpoint:
    """A state that we have been in."""

    snapshot: Snapshot
    now: int
    pending: list[Event]
    listened: bool
    flushed: bool


class Player:
    """`at` is the number of the call that comes next; `core` is in the state before it."""

    def __init__(self, recording: Recording) -> None:
        """At the beginning. Raises RecordingError."""
        self.recording = recording
        self.process = recording.head.process
        self._marks: dict[int, _Checkpoint] = {}
        self._snapshots = {block.first: block for block in recording.snapshots}
        self._to_snapshot(recording.first)

    @property
    def ended(self) -> bool:
        """Whether no call is left."""
        return self.at >= self.recording.stop

    def _to_snapshot(self, number: int) -> None:
        block = self.recording.snapshot_before(number)
        snapshot = self.recording.snapshot(block)
        self._enter(block.first, _Checkpoint(snapshot, block.begin, snapshot.events, snapshot.interest, False))

    def _enter(self, number: int, mark: _Checkpoint) -> None:
        self.core: Any = restore(self.process, mark.snapshot)
        self.core.interest = True
        self.at, self.now = number, mark.now
        self._pending = [*mark.pending, *self.core.events()]  # events made since they were last taken
        self._listened = mark.listened  # somebody listened then
        self._flushed = mark.flushed  # the call before was a flush
        self._marked_at, self._cost = time.perf_counter(), 0.0

    # running

    def step(self) -> Step:
        """Run the next call. Its divergence, if any, is the first since the last snapshot that was entered."""
        number = self.at
        entry = self.recording.entry(number)
        step = Step(number, self.now, entry)
        self.at += 1
        try:
            self._call(step)
        except DamagedFrame as error:
            raise RecordingError(f"{self.recording.path}: call {number}: {error}") from None
        except (RecordingError, ConfigError):
            raise
        except Exception as error:
            step.error = error
            self._raised(step)
        step.now = self.now
        return step

    def _call(self, step: Step) -> None:
        core = self.core
        match step.entry:
            case Received(now, code, raw, cuts):
                self.now = now
                step.frame = decode_frame(code, raw, cuts)
                if self._flushed and type(step.frame).__name__ != "StoreFailed":
                    self._no_more_events(step)
                core.receive(step.frame, now)
            case TimerRan(now):
                self.now = now
                if self._flushed:
                    self._no_more_events(step)
                core.handle_timer(now)
            case Flushed(room, _):
                step.out = core.outgoing(room)
                self._compare_out(step, step.entry)
            case Told(events):
                self._compare_events(step, events)
            case Asked(now, token, name, args, error):
                self.now = now
                self._compare_error(step, error, lambda: core.control(token, name, args, now))
            case SetTo(now, key, value, error):
                self.now = now
                check_setting(self.process, key, value)
                self._compare_error(step, error, lambda: core.set(key, value, now))
            case Interest(on):
                self._listened = on
                self._pending = []
        step.events = core.events()
        self._pending += step.events
        if not isinstance(step.entry, Told | Faulted):
            self._flushed = isinstance(step.entry, Flushed)

    def _no_more_events(self, step: Step) -> None:
        """The shell has taken the events between a flush and the next batch: none were there, or they were recorded."""
        if self._pending and self._listened:
            step.divergence = self._diverged(step, "event", None, self._pending[0])
        self._pending = []

    def _compare_out(self, step: Step, entry: Flushed) -> None:
        whole, older = self.recording.head.whole, self.recording.version < KEEPS_ALIKE
        for (port, code, raw, cuts), (now_port, frame) in zip(entry.out, step.out, strict=False):
            known = compared(code, bytes(raw), cuts, frame, whole=whole, older=older) if port == now_port else None
            if known is not None:
                step.parts += known is Known.PART
                step.lengths += known is Known.LENGTH
            else:
                step.divergence = self._diverged(step, "frame", rebuilt(code, bytes(raw), cuts), frame, now_port)
                return
        if len(entry.out) > len(step.out):
            port, code, raw, cuts = entry.out[len(step.out)]
            step.divergence = self._diverged(step, "frame", rebuilt(code, bytes(raw), cuts), None, port)
        elif len(entry.out) < len(step.out):
            port, frame = step.out[len(entry.out)]
            if not self._crashes_at(step.number):
                step.divergence = self._diverged(step, "frame", None, frame, port)

    def _compare_events(self, step: Step, events: list[Event]) -> None:
        mine, self._pending = self._pending, []
        if mine == events or _plain(mine) == _plain(events):
            return
        for place in range(max(len(mine), len(events))):
            recorded = events[place] if place < len(events) else None
            replayed = mine[place] if place < len(mine) else None
            if recorded is None or replayed is None or _plain(recorded) != _plain(replayed):
                step.divergence = self._diverged(step, "event", recorded, replayed)
                return

    def _compare_error(self, step: Step, recorded: str, call: Callable[[], Any]) -> None:
        error = ""
        try:
            call()
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
        if error != recorded:
            step.divergence = self._diverged(step, "error", recorded or "no error", error or "no error")

    def _crashes_at(self, number: int) -> bool:
        end = self.recording.end
        return end is not None and bool(end.crash) and number == self.recording.stop - 1

    def _raised(self, step: Step) -> None:
        """The core raised: as it did then, if this was the process's last call."""
        text = f"{type(step.error).__name__}: {step.error}"
        end = self.recording.end
        if end is not None and self._crashes_at(step.number) and text in end.crash:
            return
        step.divergence = self._diverged(step, "error", "no error", text)

    def _diverged(self, step: Step, what: str, recorded: Any, replayed: Any, port: str = "") -> Divergence:
        return Divergence(
            step.number, self.now, what, port, recorded, replayed, frame_differences(recorded, replayed)
            if what in ("frame", "event") else [],
        )  # fmt: skip

    # checking

    def check(self, stop: int | None = None, *, told: Callable[[Step], None] | None = None) -> Divergence | None:
        """Run on to call `stop`, or the end; the first divergence. The state is compared at each snapshot on the way,
        and a difference there is the divergence if nothing that came out shows one before the end."""
        stop = self.recording.stop if stop is None else stop
        silent: Divergence | None = None
        while self.at < stop:
            block = self._snapshots.get(self.at)
            if block is not None and silent is None and self.at != self.recording.first:
                silent = self._compare_state(self.recording.snapshot(block))
            step = self.step()
            if told is not None:
                told(step)
            if step.divergence is not None:
                if silent is not None:
                    step.divergence.differs += ["the state differed before:", *silent.differs]
                return step.divergence
        return silent

    def _compare_state(self, snapshot: Snapshot) -> Divergence | None:
        changes = differences(plain_state(snapshot.state), plain_state(self.core.snapshot()))
        if not changes:
            return None
        lines = [f"{path}: {short(old)} recorded, {short(new)} now" for path, old, new in changes[:STATE_LINES]]
        if len(changes) > STATE_LINES:
            lines.append(f"and {len(changes) - STATE_LINES} more")
        return Divergence(self.at, self.now, "state", "", None, None, lines)

    # moving

    def seek(self, number: int) -> None:
        """To the state before call `number`."""
        number = max(self.recording.first, min(number, self.recording.stop))
        block = self.recording.snapshot_before(number)
        best = max((mark for mark in self._marks if mark <= number), default=-1)
        if not (self.at <= number and self.at >= max(best, block.first)):
            if best >= block.first:
                self._enter(best, self._marks[best])
            else:
                self._to_snapshot(number)
        while self.at < number:
            self.step()
            self._mark()

    def _mark(self) -> None:
        """Remember this state, if it is some time since the last one."""
        began = time.perf_counter()
        if began - self._marked_at < max(CHECKPOINT_S, 10 * self._cost) or self.at in self._marks:
            return
        config = msgspec.Raw(msgspec.msgpack.encode(self.config()))
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(self.core.snapshot()))
        snapshot = Snapshot(state=state, config=config, interest=True)
        self._marks[self.at] = _Checkpoint(snapshot, self.now, list(self._pending), self._listened, self._flushed)
        while len(self._marks) > CHECKPOINTS:
            del self._marks[next(iter(self._marks))]
        self._marked_at = time.perf_counter()
        self._cost = self._marked_at - began

    @property
    def pending(self) -> list[Event]:
        """Events that the shell had not taken here."""
        return list(self._pending)

    @property
    def listened(self) -> bool:
        """Whether somebody listened to events here, when it was recorded."""
        return self._listened

    def config(self) -> Any:
        """What the core was made with, as it is now."""
        for holder in (self.core, getattr(self.core, "_ctx", None)):
            for name in ("config", "_config"):
                found = getattr(holder, name, None)
                if found is not None:
                    return found
        raise RecordingError(f"the {self.process} core does not tell its configuration")

    def find_time(self, now: int) -> int:
        """Number of the first call at or after an instant (the end, if there is none)."""
        recording = self.recording
        for number, entry in recording.entries(recording.block_at(now)):
            at = getattr(entry, "now", None)
            if at is not None and at >= now:
                return number
        return recording.stop


def _plain(data: Any) -> Any:
    """As msgpack gives it back: a tuple is a list."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(data))
