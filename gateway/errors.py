"""What a call of an application may fail with: an errno, as Linux would answer."""

from __future__ import annotations

import os


class CallError(Exception):
    """A call that cannot be carried out. `errno` goes back to the caller, the text to people."""

    def __init__(self, errno: int, message: str = "") -> None:
        super().__init__(message or os.strerror(errno))
        self.errno = errno
