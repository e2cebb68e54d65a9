"""Urgent data in the pair: the kernel's own out-of-band byte of AF_UNIX streams (Linux 5.15, CONFIG_AF_UNIX_OOB).

What a program sends with MSG_OOB arrives marked at our end, and a byte that we write so is urgent at its: poll,
SIGURG, SIOCATMARK, SO_OOBINLINE and recv(MSG_OOB) are the kernel's there. At our end it stays in line (SO_OOBINLINE),
and a read stops before it, so only the byte at the head of the pair can be urgent.
"""

from __future__ import annotations

import array
import fcntl
import socket
from functools import cache

SIOCATMARK = 0x8905  # linux/sockios.h
SO_OOBINLINE = socket.SO_OOBINLINE


@cache
def carried() -> bool:
    """Whether this kernel's AF_UNIX sockets know urgent data; without it what was marked goes as ordinary data."""
    one, other = socket.socketpair()
    with one, other:
        try:
            return one.send(b"\0", socket.MSG_OOB) == 1
        except OSError:
            return False


def at_mark(end: socket.socket) -> bool:
    """Whether the next byte to be read at our end is urgent; BlockingIOError if there is none.

    The question is asked once a byte lies there: one that came between question and read would lose its mark.
    """
    if not end.recv(1, socket.MSG_PEEK):
        return False
    value = array.array("i", [0])
    fcntl.ioctl(end.fileno(), SIOCATMARK, value)
    return bool(value[0])
