"""What processes leave behind that die: RUN/crash/LAYER-DATE-TIME-PID.rec, written by the process itself where it can,
else, of its flight recorder's memory, by the next process of that layer."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Thread
from typing import Final

import msgspec

from levelip.ipc.recordfile import write_whole
from levelip.ipc.recordring import DamagedRing, left
from levelip.tracing.recording import END, HEAD, HEADER_LEN, Calls, End, Head, struct_block

_PREFIX: Final = "flight"


def ring_path(memory: Path, process: str, pid: int, epoch: int) -> Path:
    """Where the flight recorder of a process lies in the stack's shared memory."""
    return memory / f"{_PREFIX}-{process}-{pid}-{epoch:016x}"


def write_crash(
    directory: Path, process: str, pid: int, blocks: Iterable[bytes | Calls], *, keep: int, log: logging.Logger
) -> Path | None:
    """A recording of a process that died, in `directory`, of which the newest `keep` files of this layer stay. None if
    it cannot be written: the log says why."""
    path = directory / f"{process}-{time.strftime('%Y%m%d-%H%M%S')}-{pid}.rec"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        for old in sorted(directory.glob(f"{process}-*.rec"))[: -(keep - 1) or None]:
            old.unlink(missing_ok=True)
        write_whole(path, blocks)
    except OSError as problem:
        log.error("the flight recorder cannot be written to %s: %s", path, problem.strerror)
        return None
    return path


def until_damaged(blocks: Iterator[bytes | Calls]) -> Iterator[bytes | Calls]:
    """A ring's blocks; where its memory is damaged an END says so. Else there is none, as of a process that was
    killed."""
    try:
        yield from blocks
    except DamagedRing as problem:
        yield struct_block(END, End(reason=f"the flight recorder's memory is damaged: {problem}"))


class LeftBehind:
    """Turns what dead processes of a layer left in `memory` into recordings in `directory`, by a thread. Whoever makes
    it holds the layer's lock, and has no flight recorder of its own yet: so all that lies there is of the dead."""

    def __init__(
        self, memory: Path, directory: Path, process: str, *, keep: int, log: logging.Logger,
        wall_offset: Callable[[], int],
    ) -> None:  # fmt: skip
        self._paths = sorted(memory.glob(f"{_PREFIX}-{process}-*"))
        self._directory, self._process, self._keep, self._log = directory, process, keep, log
        self._wall_offset = wall_offset() if self._paths else 0
        self._thread = Thread(target=self._save_all, name="left behind", daemon=True)
        if self._paths:
            self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until all is written, so long at most."""
        if self._paths:
            self._thread.join(seconds)

    def _save_all(self) -> None:
        for path in self._paths[: -self._keep]:  # of more than would stay the disk need not know
            path.unlink(missing_ok=True)
        for path in self._paths[-self._keep :]:
            self._save(path)
            path.unlink(missing_ok=True)

    def _save(self, path: Path) -> None:
        pid = path.name.split("-")[2]
        try:
            head, blocks = self._read(path)
        except (DamagedRing, OSError, ValueError, RecursionError) as problem:
            self._log.error(
                "the process before (pid %s) died, and its flight recorder cannot be read: %s", pid, problem
            )
            return
        if blocks is None:
            self._log.warning("the process before (pid %s) was killed before it did anything", pid)
            return
        whole = itertools.chain([struct_block(HEAD, head)], until_damaged(blocks))
        made = write_crash(self._directory, self._process, head.pid, whole, keep=self._keep, log=self._log)
        if made is not None:
            self._log.error("the process before (pid %d) was killed; what led to this: lvlip replay %s", head.pid, made)

    def _read(self, path: Path) -> tuple[Head, Iterator[bytes | Calls] | None]:
        """Head and blocks, None where there is nothing but a snapshot. ValueError where the head makes no sense."""
        data, blocks = left(path)
        head = msgspec.msgpack.decode(memoryview(data)[HEADER_LEN:], type=Head)
        if head.process != self._process:
            raise DamagedRing(f"it is of {head.process}")
        first = next(blocks, b"")
        if isinstance(first, Calls) or not first:
            raise DamagedRing("it begins with no snapshot")
        head = msgspec.structs.replace(head, wall_offset=self._wall_offset)
        second = next(blocks, None)
        return head, None if second is None else itertools.chain([first, second], blocks)
