"""Blocks of a recording on their way to a file: written by a thread, so that no loop waits for a disk.

A disk that is full, or slower than what comes, ends the recording with a reason; the process goes on.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from levelip.tracing.recording import Calls, file_start, pieces

WAITING: Final = 64 << 20  # bytes that may wait for the disk
GATHERED: Final = 1 << 20  # bytes for which the thread is woken, which costs both threads more than to write them
GATHERING_S: Final = 0.25  # what is less is written so late
_PIECES: Final = 1024  # in one system call (IOV_MAX)
_WAIT_S: Final = 5.0


def open_file(path: Path, *, overwrite: bool) -> int:
    """A descriptor of a new file of mode 0600: it holds secrets (RFC 6528's), and what people sent. OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | (0 if overwrite else os.O_EXCL)
    try:
        fd = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise FileExistsError(error.errno, "is there already; --force writes over it", str(path)) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not an ordinary file", str(path))
        os.fchmod(fd, 0o600)  # also of one that was there
        os.ftruncate(fd, 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def write_whole(path: Path, blocks: Iterable[bytes | Calls]) -> None:
    """A recording at once, without a thread. OSError."""
    with os.fdopen(open_file(path, overwrite=True), "wb") as file:
        file.write(file_start())
        for block in blocks:
            file.writelines(pieces(block))


class FileSink:
    """A file that a thread of its own writes. `error` is empty while all is well."""

    def __init__(self, path: Path, *, overwrite: bool = False, unbounded: bool = False) -> None:
        """Raises OSError. `unbounded`: what is put is in memory anyway."""
        self.path = path
        self.error = ""
        self.written = 0
        self._fd = open_file(path, overwrite=overwrite)
        self._limit = 0 if unbounded else WAITING
        self._blocks: deque[bytes | Calls] = deque([file_start()])
        self._waiting = 0
        self._ended = False
        self._hurry = False  # without what waits the file cannot be read
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"record {path.name}", daemon=True)
        self._thread.start()

    def put(self, block: bytes | Calls) -> bool:
        """Have a block written; False, and `error` says why, if no more can be."""
        with self._wake:
            if not self.error and self._limit and self._waiting > self._limit:
                self.error = f"the disk is too slow: {self._waiting >> 20} MiB wait"
            if self.error:
                return False
            self._blocks.append(block)
            self._waiting += len(block)
            self._hurry = self._hurry or type(block) is bytes
            if self._hurry or self._waiting >= GATHERED:
                self._wake.notify()
        return True

    def finish(self) -> None:
        """No more will come."""
        with self._wake:
            self._ended = True
            self._wake.notify()

    @property
    def busy(self) -> bool:
        """Whether something is still to be written."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Until all is written, some seconds at most."""
        self._thread.join(_WAIT_S)

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    if self._waiting < GATHERED and not self._ended and not self._hurry:
                        self._wake.wait(GATHERING_S)
                    self._hurry = False
                    blocks, self._blocks = self._blocks, deque()
                    if self._ended and not blocks:
                        return
                self._write(blocks)
        except OSError as error:
            with self._wake:
                self.error = f"{self.path}: {error.strerror}"
                self._blocks.clear()
        finally:
            os.close(self._fd)

    def _write(self, blocks: Iterable[bytes | Calls]) -> None:
        waiting = [piece for block in blocks for piece in pieces(block)]
        while waiting:
            some, waiting = waiting[:_PIECES], waiting[_PIECES:]
            done = os.writev(self._fd, some)
            self.written += done
            with self._wake:
                self._waiting -= done
            for place, piece in enumerate(some):
                if done < len(piece):  # no room for all of it: the next call says why
                    waiting = [piece[done:], *some[place + 1 :], *waiting]
                    break
                done -= len(piece)
