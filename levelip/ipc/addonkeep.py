"""Which addons a process has, in its run directory: its successor has them again, but for one that ended it.

LAYER.addons.json  what is loaded, with options; what was taken out, and for what; when processes began with them
LAYER.addons.now   one byte: the number of the addon whose code runs. It is mapped, so that it tells, whatever ended the
                   process: a crash within C code, or the SIGKILL for one that hung in it
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

PATTERNS = ("*.addons.json", "*.addons.now")
"""What `lvlip down` removes of it."""
MOST_STARTS = 3
"""So many processes that ended by themselves within LOOP_S of each other's start; the next has none of the addons."""
LOOP_S = 30.0
_NUMBERS = 255  # that fit into the byte; further addons are loaded again, too, but not found to have ended a process


class Kept(msgspec.Struct, forbid_unknown_fields=True):
    """One addon. `out`: why it was taken out; `stamp` of its file tells whether it was changed since."""

    path: str
    options: dict[str, str] = {}
    stamp: tuple[int, int, int] | None = None
    out: str = ""


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    addons: list[Kept] = []
    starts: list[float] = []  # CLOCK_MONOTONIC, s


class Keeping:
    """The two files of one process."""

    def __init__(self, run: Path, process: str) -> None:
        self.path = run / f"{process}.addons.json"
        self._now = run / f"{process}.addons.now"
        self._page: mmap.mmap | None = None
        self._stored = _Stored()

    def read(self) -> list[Kept]:
        """What the process before had, in the order in which it was loaded. ValueError for what is no such file."""
        try:
            self._stored = msgspec.json.decode(self.path.read_bytes(), type=_Stored)
        except FileNotFoundError:
            self._stored = _Stored()
        except msgspec.DecodeError as error:
            raise ValueError(f"{self.path}: {error}") from None
        return self._stored.addons

    def culprit(self) -> int:
        """Number (from 1) of the addon whose code ran when the process before ended; 0: none did."""
        try:
            return (self._now.read_bytes() or b"\0")[0]
        except FileNotFoundError:
            return 0

    def begin(self) -> bool:
        """A process begins with what was read; whether too many before it have ended."""
        now = time.monotonic()
        recent = [start for start in self._stored.starts if now - LOOP_S < start <= now]
        loops = len(recent) >= MOST_STARTS
        self._stored.starts = [] if loops else [*recent, now]
        self._write()
        self.leave()
        return loops

    def end(self) -> None:
        """The process ends as it was asked to: that is nobody's fault."""
        if self._stored.starts:
            self._stored.starts.pop()
            self._write()
        if self._page is not None:
            self._page.close()
            self._page = None

    def keep(self, addons: Iterable[Kept]) -> None:
        """What is there from now on; nothing: the files go."""
        self._stored.addons = list(addons)
        if self._stored.addons:
            self._write()
            return
        self._stored = _Stored()
        for path in (self.path, self._now):
            path.unlink(missing_ok=True)
        self._page = None

    def enter(self, number: int) -> None:
        """Code of an addon runs from here on."""
        if self._page is None:
            fd = os.open(self._now, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, 1)
                self._page = mmap.mmap(fd, 1)
            finally:
                os.close(fd)
        self._page[0] = number if number <= _NUMBERS else 0

    def leave(self) -> None:
        """It came back."""
        if self._page is not None:
            self._page[0] = 0
        elif self._now.exists():
            self._now.unlink()

    def _write(self) -> None:
        other = self.path.with_suffix(".new")
        other.write_bytes(msgspec.json.encode(self._stored))
        other.chmod(0o600)
        other.replace(self.path)
