"""A core whose calls are recorded: into memory (the flight recorder), into a file, or not at all.

`Recorded` looks like the core that it is put around. While nothing is recorded its verbs *are* the core's own bound
methods, so that being there costs nothing. While something is, each call is encoded before the core has it (which may
change it), and what comes out behind it. The flight recorder keeps the newest blocks in a ring of chapters, each
beginning with a snapshot; a chapter is dropped whole, so that what is left begins with one, too.

Nothing that goes wrong with a recording ends the process: it ends the recording, and `record.status` says why.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from levelip import __version__
from levelip.frames.core import ControlError, Core, Output, Room
from levelip.ipc.pipe import Came
from levelip.ipc.recordkeep import Keep
from levelip.tracing import reasons
from levelip.tracing.callencoder import (
    Outlet,
    Peek,
    flushed,
    mark_wrong,
    received_few,
    received_run,
    receivers,
    run_begun,
    run_with_wrong,
)
from levelip.tracing.events import Event
from levelip.tracing.framerun import SHORTEST, parts
from levelip.tracing.recordedcalls import SEEN
from levelip.tracing.recording import SNAPSHOT, Head, Snapshot, make_calls, struct_block

BLOCK: Final = 128 << 10  # bytes of calls in a block
FILE_BLOCK_NS: Final = 250_000_000  # a block on its way to a file holds no more than this of stack time
FILE_CHAPTER: Final = 2 << 20  # bytes between snapshots in a file: what `back` and `goto` have to run again at most
RING_CHAPTERS: Final = 8  # a full ring holds so many chapters, if snapshots are quick
SNAPSHOT_SHARE: Final = 50  # snapshots take a 50th of the time at most, but where the ring would not be left with two
SNAPSHOT_MOST_S: Final = 0.2
"""CPU time of a snapshot beyond which the flight recorder ends: peers would notice the pauses (Linux's smallest RTO is
0.2 s). Measured: 30 ms for 1,000 connections, 250 ms for 4,000."""
COMMANDS: Final = ("record.start", "record.stop", "record.dump", "record.status")

_encode: Final = msgspec.msgpack.Encoder().encode
_NO_CUTS: Final[list[Any]] = []


class Recorded:
    """See the module's text; the verbs are those of levelip.frames.core.Core.

    `config` is what the core was made with (a Struct, which the core may change), `head` what all recordings of this
    process share, `flight` the ring's size in bytes (0: no flight recorder), `memory` the directory, on a tmpfs, where
    it outlives the process (None: it does not), `peek` what reads shared memory (None: there is none). `wall_offset`
    answers what makes stack time the time of day, ns, and `held_ns` how much of it are holds: when that changes, the
    other is asked again. `outlet` is what its loop may tell, and have of it.
    """

    def __init__(
        self,
        core: Core,
        config: Any,
        head: Head,
        *,
        flight: int,
        log: logging.Logger,
        now: int,
        wall_offset: Callable[[], int],
        held_ns: Callable[[], int] = lambda: 0,
        peek: Peek | None = None,
        memory: Path | None = None,
    ) -> None:
        self.outlet = Outlet()
        self._process, self._peek = head.process, peek
        self._seen = SEEN.get(head.process) if peek is not None else None
        self._core = core
        self._config = config
        self._log = log
        self._keep = Keep(head, flight=flight, log=log, wall_offset=wall_offset, memory=memory)
        self._held_ns, self._held = held_ns, held_ns()
        self._wanted = core.interest
        self._verdicts = reasons.TCP_CHECKSUM.counter if head.process == "tcp" else ""
        """The counter of segments whose checksum the core has found wrong: part of their entries."""
        self._whole = False  # payloads are not cut
        self._events_on = False  # events are made because they are recorded
        # the block at work
        self._entries: list[bytes] = []  # since the last `_commit`, and where a file is to have them, those before
        self._counted = 0  # of these are from before it
        self._size = self._calls = 0  # bytes and calls up to it
        self._more = 0  # calls beyond one for each entry since
        self._idle: tuple[int, Room] | None = None  # of outgoing() that had nothing to give: calls with it, its room
        self._first = 0  # number of its first call
        self._begin = self._now = now  # stack time of its first call, and of the newest one
        # since the last snapshot
        self._since = 0  # bytes
        self._taken_at = 0.0
        self._took = 0.0  # seconds
        self.next_timer = core.next_timer
        self.snapshot = core.snapshot
        # the verbs, in whichever form is due
        self.receive: Callable[[Any, int], None]
        self.handle_timer: Callable[[int], None]
        self.outgoing: Callable[[Room], Output]
        self.events: Callable[[], list[Event]]
        self._plain()
        if self.recording:
            self._begin_recording()

    # the core's face

    @property
    def counters(self) -> dict[str, int]:
        """The core's."""
        return self._core.counters

    @property
    def interest(self) -> bool:
        """Whether somebody but the recording listens to events."""
        return self._wanted

    @interest.setter
    def interest(self, value: bool) -> None:
        self._wanted = value
        self._set_interest()

    def _set_interest(self) -> None:
        on = self._wanted or self._events_on
        if on is not self._core.interest:
            if self.recording:
                self._note((7, on))
            self._core.interest = on

    @property
    def recording(self) -> bool:
        """Whether calls are kept anywhere."""
        keep = self._keep
        return keep.ring is not None or keep.file is not None

    def _plain(self) -> None:
        core = self._core
        self.outlet.clear()
        self.receive, self.handle_timer = core.receive, core.handle_timer
        self.outgoing, self.events = core.outgoing, core.events

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """The core's commands, and record.start, .stop, .dump and .status."""
        if name in COMMANDS:
            self._time(now)
            return self._command(name, args)
        if not self.recording:
            return self._core.control(token, name, args, now)
        self._time(now)
        error = ""
        try:
            return self._core.control(token, name, args, now)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            self._note((5, now, token, name, args, error))

    def set(self, key: str, value: Any, now: int) -> None:
        """Change a tunable of the core."""
        error = ""
        self._time(now)
        try:
            self._core.set(key, value, now)
        except Exception as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            if self.recording:
                self._note((6, now, key, value, error))

    # the verbs while something is recorded

    def _receiver(self) -> Callable[[Any, int], None]:
        """receive(), with at hand what it needs for each frame."""
        core_receive, append = self._core.receive, self._entries.append
        received = receivers(self._process, self._peek, whole=self._whole)

        def receive(frame: Any, now: int) -> None:
            if now != self._now:
                self._time(now)
            try:
                append(received[type(frame)](frame, now))
            except Exception as error:
                self._lost(error)
            core_receive(frame, now)

        return receive

    def _verifying_receiver(self) -> Callable[[Any, int], None]:
        """That of tcp, whose verdict on a checksum is part of the entry."""
        core_receive, entries, append = self._core.receive, self._entries, self._entries.append
        received = receivers(self._process, self._peek)
        counters, key = self._core.counters, self._verdicts

        def receive(frame: Any, now: int) -> None:
            if now != self._now:
                self._time(now)
            try:
                append(received[type(frame)](frame, now))
            except Exception as error:
                self._lost(error)
            known = counters.get(key, 0)
            core_receive(frame, now)
            if counters.get(key, 0) != known and entries:
                entries[-1] = mark_wrong(entries[-1])

        return receive

    def receive_all(self, frames: list[Any], now: int, came: Came | None = None) -> None:
        """receive() of each. Those that come together share an entry where that can be; where it is known as what they
        came (`Pipe.came`), they need not be encoded again."""
        if came is not None:
            at = 0
            for count, items in came:
                self._receive_batch(frames if count == len(frames) else frames[at : at + count], now, items)
                at += count
        elif len(frames) < SHORTEST:
            receive = self.receive
            for frame in frames:
                receive(frame, now)
        else:
            self._receive_batch(frames, now, None)

    def _receive_batch(self, frames: list[Any], now: int, items: msgspec.Raw | None) -> None:
        entry = None
        if self.recording:
            if now != self._now:
                self._time(now)
            try:
                entry = self._entry(frames, now, items)
            except Exception as error:
                self._lost(error)
        if entry is None:
            self._receive_parts(frames, now)
            return
        place = len(self._entries)
        self._entries.append(entry)
        if len(frames) == 1:  # nothing of it is cut, so that it needs no verdict
            self._core.receive(frames[0], now)
            return
        self._more += len(frames) - 1
        self._give(frames, now, place)

    def _entry(self, frames: list[Any], now: int, items: msgspec.Raw | None) -> bytes | None:
        """One for all of them; None where each has its own."""
        if len(frames) >= SHORTEST:
            return received_run(frames, now, items, whole=self._whole, seen=self._seen)
        if items is None or self._whole:
            return None
        return received_few(frames, now, items, seen=self._seen)

    def _receive_parts(self, frames: list[Any], now: int) -> None:
        """Frames that are no run together; those of one length that lie together may be."""
        receive = self.receive
        if not self.recording or len(frames) <= SHORTEST or len(set(map(type, frames))) > 1:
            for frame in frames:
                receive(frame, now)
            return
        for part in parts(frames):
            if SHORTEST <= len(part) < len(frames):
                self._receive_batch(part, now, None)
            else:
                for frame in part:
                    receive(frame, now)

    def _give(self, frames: list[Any], now: int, place: int) -> None:
        """The frames of a run to the core. What it makes of them may change their entry, which is at `place`."""
        receive, counters, counter = self._core.receive, self._core.counters, self._verdicts
        wrong: list[int] = []
        known = counters.get(counter, 0)
        given = 0
        try:
            for frame in frames:
                given += 1
                receive(frame, now)
                if counter and counters.get(counter, 0) != known:
                    known = counters[counter]
                    wrong.append(given - 1)
        except BaseException:  # what came behind was not given to the core
            entries = self._entries
            if wrong:
                entries[place] = run_with_wrong(entries[place], wrong)
            entries[place:] = run_begun(entries[place], given)
            self._more -= len(frames) - 1
            raise
        if wrong:
            self._entries[place] = run_with_wrong(self._entries[place], wrong)

    def _handle_timer(self, now: int) -> None:
        self._time(now)
        self._note((2, now))
        self._core.handle_timer(now)

    def _outgoing(self, room: Room) -> Output:
        self.outlet.clear()
        try:
            output = self._core.outgoing(room)
        except BaseException:
            self._note((3, room, _NO_CUTS))
            raise
        if not output:
            count = self._calls + self._more + len(self._entries) - self._counted
            if self._idle == (count, room):
                return output  # nothing was asked of the core since it had nothing to give: it is as it was
            self._idle = (count + 1, dict(room))
        try:
            self._entries.append(flushed(room, output, whole=self._whole, outlet=self.outlet))
        except Exception as error:
            self._lost(error)
        return output

    def _events(self) -> list[Event]:
        events = self._core.events()
        if events:
            self._note((4, events))
        size = self._commit()
        keep = self._keep
        if size >= BLOCK or (size and keep.file is not None and self._now - self._begin > FILE_BLOCK_NS):
            self._seal()
            if self._snapshot_due():
                self._take_snapshot()
        elif keep.ring is not None and keep.ring.empty:
            self._take_snapshot()
        return events

    def _commit(self) -> int:
        """The calls since the last time into the flight recorder's ring; bytes in the block at work."""
        entries, keep = self._entries, self._keep
        count = len(entries) - self._counted
        if not count:
            return self._size
        fresh = entries[self._counted :]
        if keep.file is None:
            entries.clear()  # the same memory, still in the cache, is for the next round's
            self._counted = 0
        else:
            self._counted += count
        size, calls = sum(map(len, fresh)), count + self._more
        self._more = 0
        if keep.ring is not None:
            keep.ring.add(fresh, size, calls, self._now if self._size else self._begin, self._now)
        self._size += size
        self._calls += calls
        return self._size

    def faulted(self, events: list[Event]) -> None:
        """What faults and addons did, between two calls of the core."""
        if self.recording:
            self._note((10, events))

    def _empty(self) -> None:
        """Begin a block: the list stays the same, since receive() has it at hand."""
        self._entries.clear()
        self._idle = None
        self._size = self._counted = self._calls = self._more = 0

    def _time(self, now: int) -> None:
        held = self._held_ns()
        if held != self._held:  # the clock stood at the instant of the last call, and went on
            lag, self._held = held - self._held, held
            if problem := self._keep.clock_went_on(self._now, lag):
                self._end_file(problem)
        self._now = now
        if not (self._size or self._entries):
            self._begin = now

    def _note(self, entry: tuple[Any, ...]) -> None:
        try:
            data = _encode(entry)
        except Exception as error:
            self._lost(error)
            return
        self._entries.append(data)

    def _lost(self, error: Exception) -> None:
        """A call cannot be encoded: nothing behind it could be replayed, so all recording ends."""
        reason = f"a call cannot be recorded: {type(error).__name__}: {error}"
        self._log.error("recording ends: %s", reason)
        self._keep.end_flight(reason)
        if self._keep.file is not None:
            self._end_file(reason)
        self._empty()
        self._plain()

    # blocks and snapshots

    def _begin_recording(self) -> None:
        """Record from here on."""
        self._empty()
        self._take_snapshot()
        if not self.recording:
            return
        self._use_receiver()
        self.handle_timer = self._handle_timer
        self.outgoing, self.events = self._outgoing, self._events

    def _use_receiver(self) -> None:
        """The receive() that fits what is recorded."""
        verifying = self._verdicts and not self._whole
        self.receive = self._verifying_receiver() if verifying else self._receiver()

    def _seal(self) -> None:
        """Close the block at work."""
        size, calls, keep = self._commit(), self._calls, self._keep
        if not calls:
            return
        if keep.ring is not None:
            keep.ring.seal()
        problem = ""
        if keep.file is not None:
            problem = keep.put(
                make_calls(self._entries, first=self._first, calls=calls, begin=self._begin, end=self._now)
            )
        self._first += calls
        self._empty()
        self._begin = self._now
        self._since += size
        if problem:
            self._end_file(problem)

    def _snapshot_due(self) -> bool:
        keep = self._keep
        if keep.ring is not None and keep.ring.empty:
            return True
        if self._since >= (FILE_CHAPTER if keep.file is not None else keep.ring_limit // RING_CHAPTERS):
            if time.perf_counter() - self._taken_at >= SNAPSHOT_SHARE * self._took:
                return True
            return keep.ring is not None and self._since >= keep.ring_limit // 2
        return False

    def _take_snapshot(self) -> None:
        """The state between two calls; the block at work is sealed before."""
        self._seal()
        began = time.thread_time()
        try:
            config = msgspec.Raw(_encode(self._config))
            snapshot = Snapshot(state=self._core.snapshot(), config=config, interest=self._core.interest)
            block = struct_block(SNAPSHOT, snapshot, first=self._first, now=self._now)
        except Exception as error:
            self._lost(error)
            return
        self._taken_at, self._took = time.perf_counter(), time.thread_time() - began
        self._since = 0
        if self._keep.ring is not None and self._took > SNAPSHOT_MOST_S:
            self._end_flight(f"a snapshot of this many connections takes {self._took:.1f} s")
        if problem := self._keep.chapter(block, self._first):
            self._end_file(problem)
        if not self.recording:
            self._empty()
            self._plain()

    def _end_flight(self, reason: str) -> None:
        self._log.warning("the flight recorder ends: %s", reason)
        self._keep.end_flight(reason)
        if self._keep.file is None:
            self._empty()
            self._plain()

    # commands

    def _command(self, name: str, args: dict[str, Any]) -> dict[str, Any]:
        if name == "record.status":
            return self._status()
        if name == "record.stop":
            return self._stop()
        file = args.get("file")
        if not isinstance(file, str) or not file.startswith("/"):
            raise ControlError(f"{name}: file is an absolute path, not {file!r}")
        overwrite = bool(args.get("overwrite", False))
        if name == "record.dump":
            return self._dump(Path(file), overwrite)
        whole, events = bool(args.get("whole", False)), bool(args.get("events", True))
        return self._start(Path(file), overwrite, whole=whole, events=events)

    def _start(self, path: Path, overwrite: bool, *, whole: bool, events: bool) -> dict[str, Any]:
        sink = self._keep.open_file(path, overwrite, whole=whole, events=events)
        self._seal()
        begun, self._keep.file = self.recording, sink
        self._whole, self._events_on = whole, events
        self._set_interest()
        if begun:
            self._take_snapshot()
            self._use_receiver()
        else:
            self._begin_recording()
        self._log.info("recording into %s", path)
        return self._status()

    def _stop(self) -> dict[str, Any]:
        self._keep.need_file()
        self._end_sealed("")
        return self._status()

    def _end_sealed(self, reason: str) -> None:
        """End the file behind all calls up to now."""
        self._seal()
        if self._keep.file is not None:  # else that ended it
            self._end_file(reason)

    def _end_file(self, reason: str) -> None:
        """No more of it goes to the file."""
        self._keep.end_file(reason, self._first, self._now)
        self._events_on = self._whole = False
        self._set_interest()
        if self.recording:
            self._use_receiver()
        else:
            self._empty()
            self._plain()

    def _dump(self, path: Path, overwrite: bool) -> dict[str, Any]:
        self._keep.need_ring()
        self._seal()
        if self._keep.ring is not None and self._keep.ring.empty:
            self._take_snapshot()
            self._keep.need_ring()
        self._keep.dump(path, overwrite, self._first, self._now)
        return self._status()

    def _status(self) -> dict[str, Any]:
        return {
            **self._keep.status(),
            "calls": self._first + self._calls + len(self._entries) - self._counted + self._more,
            "snapshot_us": int(self._took * 1e6),
        }

    # the end of the process

    def crash(self, error: BaseException, directory: Path, keep: int) -> Path | None:
        """The process dies of `error`: write the flight recorder into `directory`, of which the newest `keep` files
        of this process stay. None if there is none, or it cannot be written (the log says why)."""
        with contextlib.suppress(Exception):
            self._seal()
        text = "".join(traceback.format_exception(error))
        return self._keep.crash(text, directory, keep, self._first, self._now)

    def close(self) -> None:
        """The process ends in order: finish the file."""
        if self._keep.file is not None:
            self._end_sealed("the process ended")
        self._keep.wait()

    def forget(self) -> None:
        """The process ends by itself: nothing of the flight recorder stays."""
        self._keep.end_flight("the process ended")


def head_of(process: str, *, stack: str, epoch: int, config: Any) -> Head:
    """What all recordings of a process share. `config`: the stack's, a Struct."""
    return Head(
        process=process,
        stack=stack,
        version=__version__,
        python=platform.python_version(),
        epoch=epoch,
        pid=os.getpid(),
        config=msgspec.to_builtins(config),
    )
