"""After the program's own SHUT_WR: a byte of its end stays unread in ours, so that a reset can still show.

The kernel makes ECONNRESET of the close of an end that has bytes unread, and after SHUT_WR nobody can write any. So
the helper carries the shutdown out itself, and a byte of its own (the bait) before it, which is never read: the end of
the program's stream is where it lies. What other threads write at the same time may come behind it; then, and where
the end was too full for it, the last byte of the program's takes its place: it is sent, but read with MSG_PEEK alone.

    program's bytes, bait             the stream ends before the bait
    program's bytes, bait, more       the bait is thrown away, and the last byte of all stays
    program's bytes                   likewise

The bait is known by who wrote it: with SO_PASSCRED at our end each write carries the writer's process (unix(7)), and
no read goes on from bytes of one process to those of another. Once the shutdown is done nothing can be added, so how
much waits is exact.
"""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING

from levelip.client.control import SOCKET_BUFFER

if TYPE_CHECKING:
    from levelip.client.pump import Pair

BAIT = b"\0"
_UCRED = struct.Struct("=iII")  # process, user, group
_PIECE = 65_536  # bytes thrown away at a time


class Kept(Enum):
    """What stays unread in our end."""

    BAIT = "a byte of ours"
    LAST = "the last byte of the program's"


def waiting(end: socket.socket) -> int:
    """Bytes that can be read at our end (FIONREAD)."""
    value = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.FIONREAD, value)
    return value[0]


def shut(pair: Pair, theirs: socket.socket, how: int) -> None:
    """Carry out the program's shutdown(2) of its sending side, and leave a byte unread for a later reset. `theirs`: its
    end. Does nothing where that was shut before."""
    end = pair.end
    if end is None or pair.kept is not None or pair.finished:
        return
    _name_writers(end, on=True)
    kept = Kept.BAIT
    try:
        theirs.send(BAIT, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        _name_writers(end, on=False)
        return
    except OSError:  # EAGAIN: it is full, and nobody but us reads it
        kept = Kept.LAST
        _name_writers(end, on=False)
    theirs.shutdown(how)
    # TCP is writable once it is shut (tcp_poll), whatever waits; that of a byte here may be half of a small buffer
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
    pair.kept = kept


def next_read(pair: Pair, end: socket.socket) -> tuple[int, int]:
    """What to read next of a stream that was shut: at most how many bytes, 0 if it is over, and the flags. With
    MSG_PEEK it is the last one."""
    left = waiting(end)
    if pair.kept is Kept.BAIT:
        if _writer(end) != os.getpid():
            return left - 1, 0
        _name_writers(end, on=False)
        if left == 1:
            return 0, 0
        end.recv(len(BAIT))
        left -= 1
        pair.kept = Kept.LAST
    return (left - 1, 0) if left > 1 else (left, socket.MSG_PEEK)


def unsent(pair: Pair, end: socket.socket) -> int:
    """Bytes of the program's that wait at our end, without what stays there."""
    stays = pair.kept is Kept.BAIT or pair.finished
    return max(waiting(end) - stays, 0)


def thin(pair: Pair) -> None:
    """Throw away what is unread at our end, but for the byte that makes a reset of its close: what waits here keeps the
    program's end from being writable. What is written meanwhile stays."""
    if pair.end is not None:
        with suppress(OSError):
            _discard(pair.end, waiting(pair.end) - 1)


def let_go(pair: Pair) -> None:
    """No reset is to show any more: throw away what is unread, at once so that the program's end is writable before it
    hangs up, and again what was written meanwhile; nothing more can be."""
    end = pair.end
    if end is None:
        return
    pair.kept = None
    with suppress(OSError):
        _discard(end, waiting(end))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RD)
        _discard(end, waiting(end))


def _discard(end: socket.socket, count: int) -> None:
    """Throw away so many bytes."""
    while count > 0 and (piece := end.recv(min(count, _PIECE))):
        count -= len(piece)


def _name_writers(end: socket.socket, *, on: bool) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, on)


def _writer(end: socket.socket) -> int:
    """The process that wrote the next byte; 0 if it is not known."""
    _, ancillary, _, _ = end.recvmsg(1, socket.CMSG_SPACE(_UCRED.size), socket.MSG_PEEK)
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            return int(_UCRED.unpack(value)[0])
    return 0
