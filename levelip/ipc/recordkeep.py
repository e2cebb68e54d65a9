"""Where the blocks of a process's recording go: the flight recorder's ring, and a file; and how both come to an end."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from levelip.frames.core import ControlError
from levelip.ipc.recordfile import FileSink, write_whole
from levelip.ipc.recordring import Ring
from levelip.tracing.recording import CLOCK, END, HEAD, Calls, Clock, End, Head, struct_block


class Keep:
    """Of one process. `head`: what all its recordings share but `wall_offset`, which they ask for as they begin;
    `flight`: bytes of the ring (0: no flight recorder).

    `first` and `now`, of a method, are the number of the next call and stack time, as a recording's end tells them.
    """

    def __init__(self, head: Head, *, flight: int, log: logging.Logger, wall_offset: Callable[[], int]) -> None:
        self.ring = Ring(flight) if flight else None
        self.ring_limit = flight
        self.file: FileSink | None = None
        self.failure = ""
        """Why the flight recorder ended."""
        self._head = head
        self._log = log
        self._wall_offset = wall_offset
        self._lags: list[tuple[int, int]] = []
        """Of each hold since the ring begins: (stack time at which it ended, how long it was)."""
        self._dump: FileSink | None = None
        self._unfinished: list[FileSink] = []  # files behind which another has come
        self._last_file = ""  # how the last recording ended

    def add(self, block: Calls) -> str:
        """A block of calls. Why the file has to end, or "" where all is well."""
        if self.ring is not None:
            self.ring.add(block)
        return self._put(block)

    def chapter(self, snapshot: bytes) -> str:
        """A snapshot, with which a chapter begins. Answers as `add`."""
        if self.ring is not None:
            self.ring.chapter(snapshot)
        return self._put(snapshot)

    def clock_went_on(self, since: int, lag: int) -> str:
        """Stack time stood at an instant and went on, so many ns behind the monotonic clock. Answers as `add`."""
        if self.ring is not None:
            begin = self.ring.begin
            self._lags = [one for one in self._lags if one[0] >= begin] + [(since, lag)]
        return self._put(struct_block(CLOCK, Clock(wall_offset=self._wall_offset()), now=since))

    def _clocks(self) -> list[bytes]:
        """What made stack time the time of day from the ring's beginning on, before each hold and behind it."""
        offset = self._wall_offset() - sum(lag for _, lag in self._lags)
        blocks = [struct_block(CLOCK, Clock(wall_offset=offset), now=0)] if self._lags else []
        for since, lag in self._lags:
            offset += lag
            blocks.append(struct_block(CLOCK, Clock(wall_offset=offset), now=since))
        return blocks

    def _put(self, block: bytes | Calls) -> str:
        if self.file is None or self.file.put(block):
            return ""
        return self.file.error

    # a file

    def open_file(self, path: Path, overwrite: bool, *, whole: bool, events: bool) -> FileSink:
        """What is to become `file`, with its head. ControlError where another is written, or this cannot be."""
        if self.file is not None:
            raise ControlError(f"it is recorded already, into {self.file.path}; end that with: lvlip record stop")
        sink = _sink(path, overwrite=overwrite)
        sink.put(self._head_block(whole=whole, events=events))
        return sink

    def need_file(self) -> None:
        """ControlError where nothing is recorded into a file."""
        if self.file is None:
            raise ControlError(f"nothing is recorded into a file{f': {self._last_file}' if self._last_file else ''}")

    def end_file(self, reason: str, first: int, now: int) -> None:
        """No more goes to the file; `reason` is empty where that was asked for."""
        sink, self.file = self.file, None
        assert sink is not None
        sink.put(struct_block(END, End(reason=reason), first=first, now=now))
        sink.finish()
        if self._dump is not None and self._dump.busy:
            self._unfinished = [one for one in self._unfinished if one.busy] + [self._dump]
        self._dump = sink  # its thread may still write
        self._last_file = f"the recording into {sink.path} ended: {reason}" if reason else ""
        if reason:
            self._log.error("%s", self._last_file)

    # the flight recorder

    def end_flight(self, reason: str) -> None:
        """What it holds is gone."""
        self.failure = reason
        self.ring = None

    def need_ring(self) -> None:
        """ControlError where there is no flight recorder that could be written to a file now."""
        if self.ring is None:
            raise ControlError(self.failure or "the flight recorder is off (stack.flight_recorder_mib = 0)")
        if self._dump is not None and self._dump.busy:
            raise ControlError(f"{self._dump.path} is being written; wait for it")

    def dump(self, path: Path, overwrite: bool, first: int, now: int) -> None:
        """Have what the flight recorder holds written to this file. ControlError where that cannot be."""
        sink = _sink(path, overwrite=overwrite, unbounded=True)
        for block in self._whole_ring(End(reason="dump"), first, now):
            sink.put(block)
        sink.finish()
        self._dump = sink

    def _whole_ring(self, end: End, first: int, now: int) -> list[bytes | Calls]:
        """The blocks of a file that holds what the ring holds."""
        assert self.ring is not None
        return [self._head_block(), *self._clocks(), *self.ring.blocks(), struct_block(END, end, first=first, now=now)]

    def _head_block(self, **changes: bool) -> bytes:
        """The head of a file that is begun now."""
        head = msgspec.structs.replace(self._head, wall_offset=self._wall_offset(), **changes)
        return struct_block(HEAD, head)

    def status(self, unsealed: int) -> dict[str, Any]:
        """What `record.status` tells of it; `unsealed`: bytes of the block at work."""
        file, dump, ring = self.file, self._dump, self.ring
        return {
            "flight": {
                "on": ring is not None,
                "limit": self.ring_limit,
                "bytes": ring.size + unsealed if ring is not None else 0,
                "failure": self.failure,
            },
            "file": {"path": str(file.path), "bytes": file.written, "error": file.error} if file is not None else None,
            "ended": self._last_file,
            "writing": {"path": str(dump.path), "bytes": dump.written, "busy": dump.busy, "error": dump.error}
            if dump is not None
            else None,
        }

    # the end of the process

    def crash(self, text: str, directory: Path, keep: int, first: int, now: int) -> Path | None:
        """The process dies, of which `text` tells: end the file, and write the flight recorder into `directory`, of
        which the newest `keep` files of this process stay. None if there is none, or it cannot be written (the log says
        why)."""
        end = End(reason="crash", crash=text)
        if self.file is not None:
            self.file.put(struct_block(END, end, first=first, now=now))
            self.file.finish()
            self.file.wait()
        self.wait()
        if self.ring is None:
            return None
        process = self._head.process
        path = directory / f"{process}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.rec"
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            for old in sorted(directory.glob(f"{process}-*.rec"))[: -(keep - 1) or None]:
                old.unlink(missing_ok=True)
            write_whole(path, self._whole_ring(end, first, now))
        except OSError as problem:
            self._log.error("the flight recorder cannot be written to %s: %s", path, problem.strerror)
            return None
        return path

    def wait(self) -> None:
        """Until what is being written is in its files."""
        for sink in (*self._unfinished, self._dump):
            if sink is not None:
                sink.wait()


def _sink(path: Path, *, overwrite: bool, unbounded: bool = False) -> FileSink:
    try:
        return FileSink(path, overwrite=overwrite, unbounded=unbounded)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from None
