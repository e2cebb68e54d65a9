"""Datagrams as an unmodified program reads and writes them: bare, so that read(2) and write(2) need no trap.

What recvfrom(2) and recvmsg(2) tell beside the payload (UP of client.datagramformat) lies in a file without a name,
whose descriptor travels with the message (SCM_RIGHTS). Only trapped calls see it; a read leaves it to the kernel, which
closes it.

A write(2) or send(2) that has nowhere to go is refused by the kernel: while our end is connected to another socket than
the program's, that one may not send to it (EPERM; net/unix/af_unix.c unix_may_send), and ours reaches it by its name.
Were it the program's end that is connected to nothing, the errno would be ENOTCONN, nearer to EDESTADDRREQ; but then
anybody could send there, it would hold net.unix.max_dgram_qlen (10) datagrams, and a connect(2) taken back would throw
away what lies in it.

An error shows at the program's end as POLLERR, until a call has told it: an AF_UNIX datagram socket gets ECONNRESET,
and nothing else happens to it, if its peer lets it go with a message unread (likewise unix_dgram_disconnected). So
ours, whose messages were all read, gets one of no meaning and is connected to that other socket for an instant. The
message comes from there, while ours is connected to nothing: the program may have said SHUT_WR.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import select
import socket
from collections.abc import Callable
from typing import Any

from levelip.client.datagramformat import MAX_ECHO, UP, Told
from levelip.client.datagrams import DatagramPair

LONGEST = 1 << 16  # bytes of a message: an IP packet, of a raw socket
KEPT = 64  # headers whose file is kept for the next datagram like it
_INT = array.array("i").itemsize
_ROOM = socket.CMSG_SPACE(_INT)
NO_HEADER = Told(0).pack()
_NOWHERE = socket.AF_UNSPEC.to_bytes(2, "little") + bytes(14)  # struct sockaddr

_libc = ctypes.CDLL(None, use_errno=True)


class Tags:
    """A framing (client.datagramformat.Framing). `lend`: the program's end, for the caller to close, or None; `drain`
    reads all that the program has written, and says whether that could be done."""

    kind = socket.SOCK_DGRAM

    def __init__(
        self, lend: Callable[[DatagramPair], socket.socket | None], drain: Callable[[DatagramPair], bool]
    ) -> None:
        self._files: dict[bytes, int] = {}
        self._lend = lend
        self._drain = drain
        self._nobody = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)  # to whom our ends are connected otherwise
        self._nobody.bind("")
        self._nobody.shutdown(socket.SHUT_RD)  # it takes nothing from anybody

    def write(self, pair: DatagramPair, header: bytes, payload: Any) -> None:
        """See Framing."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [self._file(header)]))]
        where = () if pair.admits else (pair.name,)
        pair.end.sendmsg([payload], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, *where)

    def admit(self, pair: DatagramPair, on: bool) -> None:
        """See Framing."""
        with contextlib.suppress(OSError):  # the program has closed
            pair.end.connect(pair.name if on else self._nobody.getsockname())

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

    def error(self, pair: DatagramPair) -> bool:
        """See Framing. One that cannot be shown is told by trapped calls all the same."""
        theirs = self._lend(pair)
        if theirs is not None:
            with theirs:
                self.show(pair, theirs)
        return True

    def show(self, pair: DatagramPair, theirs: socket.socket) -> None:
        """Have the program's end show POLLERR, if it does not. What it writes meanwhile, some microseconds, is lost."""
        if shows(theirs):
            pair.shown = True
        elif self._drain(pair):
            with contextlib.suppress(OSError):  # the program has filled it again, which does as well
                pair.end.bind("")  # a name that the kernel chooses, unless it has one
                _libc.connect(pair.fd, _NOWHERE, len(_NOWHERE))
                self._nobody.sendto(b"", socket.MSG_DONTWAIT, pair.end.getsockname())
            self.admit(pair, on=True)
            self.admit(pair, on=False)
            self.admit(pair, on=pair.admits)
            pair.shown = True

    def close(self) -> None:
        """Give the files back, and the socket."""
        self._nobody.close()
        while self._files:
            os.close(self._files.popitem()[1])


def take(end: socket.socket, *, peek: bool) -> tuple[bytes, bytes] | None:
    """(header, payload) at the head of the program's end; None where the end of a SEQPACKET pair is shut.
    BlockingIOError where there is nothing, ConnectionResetError once where an error is shown, OSError as recvmsg(2)."""
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


def shows(end: socket.socket) -> bool:
    """Whether the program's end has an error that no call of the kernel's has told."""
    poll = select.poll()
    poll.register(end, 0)
    return any(mask & select.POLLERR for _, mask in poll.poll(0))


def clear(end: socket.socket) -> None:
    """It shows none any more."""
    end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
