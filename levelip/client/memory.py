"""The client session's memory: one sparse file, mapped here and in tcp and link, that holds the rings of its sockets.

The helper reads the program's bytes straight into a send ring and writes received bytes straight out of a receive
ring, so no process in between copies a payload.
"""

from __future__ import annotations

import mmap
import os
import secrets
from pathlib import Path

NAME_BYTES = 16  # the file's name is this many random bytes in hex: nobody guesses it (the directory cannot be listed)


class SessionMemory:
    """A file of `size` bytes with a random name in `directory`; raises OSError if it cannot be made or mapped.

    The gateway unlinks the file when the session ends; until it knows of it, `unlink` is ours to call.
    """

    def __init__(self, directory: str, size: int) -> None:
        self.name = secrets.token_hex(NAME_BYTES)
        self.size = size
        self._path = Path(directory) / self.name
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o666)  # tcp and link run as another user; the name is the secret
            os.ftruncate(fd, size)
            self._map = mmap.mmap(fd, size)
        except OSError:
            self.unlink()
            raise
        finally:
            os.close(fd)
        self._view = memoryview(self._map)

    def ring(self, base: int, size: int) -> memoryview:
        """The bytes of one ring; ValueError if it does not lie in the file."""
        if base < 0 or size <= 0 or base + size > self.size:
            raise ValueError(f"ring {base}+{size} outside of {self.size} bytes of session memory")
        return self._view[base : base + size]

    def unlink(self) -> None:
        """Remove the file's name; what is mapped stays usable."""
        self._path.unlink(missing_ok=True)
