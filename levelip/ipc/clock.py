"""Stack time: CLOCK_MONOTONIC less the time that the stack was held, from one page that all processes of a stack map.

 0  generation   u64   odd while a writer is at work; a reader that saw it change reads again
 8  held since   u64   CLOCK_MONOTONIC ns, or 0 when time runs
16  offset       u64   ns held so far, in all
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

_PAGE = struct.Struct("=QQQ")
_SIZE = mmap.PAGESIZE
Change = Callable[[int, int], tuple[int, int] | None]  # (held since, offset) → the new ones, or None to leave them
_READS = 1000  # a writer is done within microseconds; a dead one leaves an odd generation behind


class StackClock:
    """Reads and, for a debugger, stops stack time."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._fd).st_size < _SIZE:
            os.ftruncate(self._fd, _SIZE)
        self._page = mmap.mmap(self._fd, _SIZE)

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

    def hold(self) -> bool:
        """Stop stack time; False if it stood already."""
        return self._write(lambda held, offset: None if held else (time.monotonic_ns(), offset))

    def resume(self) -> bool:
        """Let stack time run on from where it stood; False if it ran."""
        return self._write(lambda held, offset: (0, offset + time.monotonic_ns() - held) if held else None)

    def _write(self, change: Change) -> bool:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            generation, held, offset = _PAGE.unpack_from(self._page)
            new = change(held, offset)
            if new is None:
                return False
            generation |= 1
            struct.pack_into("=Q", self._page, 0, generation)
            struct.pack_into("=QQ", self._page, 8, *new)
            struct.pack_into("=Q", self._page, 0, generation + 1)
            return True
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Unmap the page."""
        self._page.close()
        os.close(self._fd)
