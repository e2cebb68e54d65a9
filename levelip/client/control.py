"""Calls between a program and its socket helper: one msgpack message a datagram of an AF_UNIX SEQPACKET pair.

Each thread of the program holds a connection of its own. The program opens one by sending the far end of a fresh pair
through the *door*, a pair that exists since the helper's start and that forked children inherit. A socket is named by
the inode of the program's end of its pair, so dup, fork and SCM_RIGHTS need no bookkeeping.
"""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Any

import msgspec

MAX_MESSAGE = 66_560  # bytes of one call or answer: a datagram, and what is said of it
MAX_FDS = 1  # descriptors that travel with one message
SOCKET_BUFFER = 1 << 20  # bytes asked for as SO_SNDBUF of both ends of a pair (the kernel caps it at wmem_max)

_INT = array.array("i").itemsize


class Call(msgspec.Struct, array_like=True):
    """A program's call: `inode` names the socket (0: none), `number` comes back in the answer."""

    number: int
    op: str
    inode: int
    args: dict[str, Any]


class Answer(msgspec.Struct, array_like=True):
    """The answer to call `number`: errno 0 and `data`, or an errno with a sentence (empty: the system's)."""

    number: int
    errno: int
    data: dict[str, Any]
    message: str = ""


encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode


def address(helper: int) -> bytes:
    """Where a helper can be reached by who was given one of its descriptors, by its process id (unix(7), abstract)."""
    return b"\0levelip-helper.%d" % helper


def send(channel: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message with the descriptors; raises OSError as sendmsg does."""
    if fds:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        channel.sendmsg([message], rights, socket.MSG_NOSIGNAL)
    else:
        channel.send(message, socket.MSG_NOSIGNAL)


def receive(channel: socket.socket, flags: int = 0) -> tuple[bytes, list[int]]:
    """One message (empty: the other side is gone) and the descriptors that came with it, close-on-exec.

    Raises OSError as recvmsg does. The caller owns the descriptors.
    """
    data, rights, _, _ = channel.recvmsg(
        MAX_MESSAGE, socket.CMSG_SPACE(MAX_FDS * _INT), flags | socket.MSG_CMSG_CLOEXEC
    )
    fds = array.array("i")
    for level, kind, payload in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % _INT])
    return data, list(fds)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that came with a message nobody waits for."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
