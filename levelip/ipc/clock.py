"""Stack time: CLOCK_MONOTONIC less the time that the stack was held, from one page that all processes of a stack map.

 0  generation   u64   odd while a writer is at work; a reader that saw it change reads again
 8  held since   u64   CLOCK_MONOTONIC ns, or 0 when time runs
16  offset       i64   ns held so far, in all, less those that a debugger skipped (`advance`)
64  length       u32   of the text that follows: who holds the stack and why, JSON of a Hold

The page outlives processes and debuggers: who is gone leaves the stack as it is, and whoever comes finds it so.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

_PAGE = struct.Struct("=QQq")
_LENGTH = struct.Struct("=I")
_TEXT_AT = 64
_SIZE = mmap.PAGESIZE
_MOST = _SIZE - _TEXT_AT - _LENGTH.size
Change = Callable[[int, int], tuple[int, int] | None]  # (held since, offset) → the new ones, or None to leave them
_READS = 1000  # a writer is done within microseconds; a dead one leaves an odd generation behind


class Holder(msgspec.Struct, forbid_unknown_fields=True):
    """A process that holds a stack. `start` (ticks since boot, proc_pid_stat(5)) tells it from a later one of its pid.
    On another host than the page is: `page`, that of its own, and `host`, the name for people."""

    pid: int
    start: int
    user: str
    tool: str  # "lvlip hold", "lvlip debug", ...
    page: str = ""
    host: str = ""


class Hold(msgspec.Struct):
    """Why stack time stands. `at`: the points whose frames are held, "SEAM up" or "SEAM down"; none: all."""

    holder: Holder
    since: float  # seconds since 1970
    at: list[str] = []
    stop: dict[str, Any] = {}  # what a breakpoint found (levelip.ipc.breakpoints.Stop), or empty
    hand: list[str] = []  # names of held frames that the next step takes first: what the last one put out


class StackClock:
    """Reads and, for a debugger, stops stack time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size < _SIZE:
            os.ftruncate(self._fd, _SIZE)
        self._page = mmap.mmap(self._fd, _SIZE)
        facts = os.fstat(self._fd)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        self.page = f"{boot}/{facts.st_dev}/{facts.st_ino}"
        """Names the page, and so the processes that share it, among all hosts."""

    def read(self) -> tuple[int, int]:
        """(held since, or 0; ns held so far)."""
        for _ in range(_READS):
            generation, held, offset = _PAGE.unpack_from(self._page)
            if not generation & 1 and _PAGE.unpack_from(self._page)[0] == generation:
                return held, offset
        return held, offset

    def now(self) -> int:
        """Stack time in ns."""
        _, held, offset = _PAGE.unpack_from(self._page)
        return int(held or time.monotonic_ns()) - int(offset)

    def wall_offset(self) -> int:
        """What makes stack time the time of day, ns: since the last hold began, or the page if there was none."""
        return time.time_ns() - time.monotonic_ns() + int(_PAGE.unpack_from(self._page)[2])

    def held_ns(self) -> int:
        """How far stack time lags behind the monotonic clock: another number once a hold has ended."""
        return int(_PAGE.unpack_from(self._page)[2])

    def running(self) -> int | None:
        """Stack time in ns, None while it stands: `now` and `held` in one look."""
        page = self._page
        generation, held, offset = _PAGE.unpack_from(page)
        if generation & 1 or _PAGE.unpack_from(page)[0] != generation:
            held, offset = self.read()
        return None if held else time.monotonic_ns() - int(offset)

    @property
    def held(self) -> bool:
        """Whether stack time stands."""
        return bool(_PAGE.unpack_from(self._page)[1])

    @property
    def generation(self) -> int:
        """Another one after each change of anything on the page."""
        return int(_PAGE.unpack_from(self._page)[0])

    @property
    def lost(self) -> bool:
        """Whether the page was removed: the stack that it belonged to is down, and another one has another page."""
        return os.fstat(self._fd).st_nlink == 0

    def why(self) -> Hold | None:
        """Who holds the stack, and why; None while it runs, or where a broken page does not say."""
        for _ in range(_READS):
            generation, held, _ = _PAGE.unpack_from(self._page)
            (length,) = _LENGTH.unpack_from(self._page, _TEXT_AT)
            text = self._page[_TEXT_AT + _LENGTH.size : _TEXT_AT + _LENGTH.size + min(length, _MOST)]
            if not generation & 1 and _PAGE.unpack_from(self._page)[0] == generation:
                break
        if not held or not length:
            return None
        try:
            return msgspec.json.decode(text, type=Hold)
        except msgspec.DecodeError:
            return None

    def hold(self, why: Hold | None = None) -> bool:
        """Stop stack time; False if it stood already (then it is left as it was)."""
        return self._write(lambda held, offset: None if held else (time.monotonic_ns(), offset), why)

    def resume(self) -> bool:
        """Let stack time run on from where it stood; False if it ran."""
        return self._write(lambda held, offset: (0, offset + time.monotonic_ns() - held) if held else None, None)

    def advance(self, to: int) -> bool:
        """Let stack time, which stands, jump to a later instant; False if it runs, or stands there or later already."""
        return self._write(
            lambda held, offset: (held, held - to) if held and held - offset < to else None, None, keep=True
        )

    def explain(self, why: Hold) -> bool:
        """Put another account of the hold in place of the one there is; False if stack time runs."""
        return self._write(lambda held, offset: (held, offset) if held else None, why)

    def _write(self, change: Change, why: Hold | None, *, keep: bool = False) -> bool:
        text = b"" if why is None else msgspec.json.encode(why)
        if why is not None and len(text) > _MOST:
            text = msgspec.json.encode(Hold(why.holder, why.since, why.at))
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            generation, held, offset = _PAGE.unpack_from(self._page)
            new = change(held, offset)
            if new is None:
                return False
            generation |= 1
            struct.pack_into("=Q", self._page, 0, generation)
            struct.pack_into("=Qq", self._page, 8, *new)
            if not keep:
                _LENGTH.pack_into(self._page, _TEXT_AT, len(text))
                self._page[_TEXT_AT + _LENGTH.size : _TEXT_AT + _LENGTH.size + len(text)] = text
            struct.pack_into("=Q", self._page, 0, generation + 1)
            return True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()
        os.close(self._fd)
