"""Datagrams as an unmodified program reads and writes them: bare, so that read(2) and write(2) need no trap.

What recvfrom(2) and recvmsg(2) tell beside the payload (UP of client.datagramformat) lies in a file without a name,
whose descriptor travels with the message (SCM_RIGHTS). Only trapped calls see it; a read leaves it to the kernel, which
closes it. An error has no payload: a read of it returns nothing.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from typing import Any

from levelip.client.datagramformat import ERROR, MAX_ECHO, UP, Told

LONGEST = 1 << 16  # bytes of a message: an IP packet, of a raw socket
KEPT = 64  # headers whose file is kept for the next datagram like it
_INT = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(_INT)
NO_HEADER = Told(0).pack()


class Tags:
    """A framing (client.datagramformat.Framing)."""

    empty = True

    def __init__(self) -> None:
        self._files: dict[bytes, int] = {}

    def write(self, end: socket.socket, header: bytes, payload: Any) -> None:
        """See Framing."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._file(header)]))]
        end.sendmsg([payload], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _file(self, header: bytes) -> int:
        fd = self._files.pop(header, -1)
        if fd < 0:
            fd = os.memfd_create("datagram")
            os.pwrite(fd, header, 0)
            if len(self._files) >= KEPT:
                os.close(self._files.pop(next(iter(self._files))))
        self._files[header] = fd  # the last one used is the last one
        return fd

    def read(self, message: bytes) -> tuple[bytes, int, int, int, bytes] | None:
        """See Framing."""
        return (b"", 0, -1, -1, message) if len(message) <= MAX_ECHO else None

    def close(self) -> None:
        """Give the files back."""
        while self._files:
            os.close(self._files.popitem()[1])


def take(end: socket.socket, *, peek: bool) -> tuple[bytes, bytes] | None:
    """(header, payload) at the head of the program's end; None where the end is shut. BlockingIOError where there is
    nothing, OSError as recvmsg(2)."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC | (socket.MSG_PEEK if peek else 0)
    payload, rights, _, _ = end.recvmsg(LONGEST, _ROOM, flags)
    files = array.array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            files.frombytes(data[: len(data) - len(data) % _INT])
    header = NO_HEADER
    for fd in files:
        header = os.pread(fd, UP.size, 0)
        os.close(fd)
    if not files and not payload:
        return None
    return header, payload


def drop_error(end: socket.socket) -> None:
    """An error was told: if its notice is at the head of the program's end, that is not readable for it any more."""
    with contextlib.suppress(OSError):
        found = take(end, peek=True)
        if found is not None and found[0][0] == ERROR:
            take(end, peek=False)
