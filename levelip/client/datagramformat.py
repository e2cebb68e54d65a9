"""How datagrams lie in the pair between a program's socket and its helper: one message each, a header first.

    program → helper   DOWN: flags (HAS_ADDRESS), address, port, tos, ttl (-1: the socket's)
    helper → program   UP: kind (DATAGRAM, ERROR), tos, ttl, port, address, local address, interface

ERROR has no payload and only says that there is one to be asked for (the call "error").
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Protocol

DOWN = struct.Struct("=Bx4sHhh")
UP = struct.Struct("=BBBxH2x4s4sI")
HAS_ADDRESS = 1
DATAGRAM, ERROR = 1, 2
MAX_PAYLOAD = 65_507  # bytes of a UDP datagram over IPv4
MAX_ECHO = 65_515  # bytes of an ICMP message over IPv4
PAIR_BUFFER = 1 << 16  # SO_SNDBUF asked for at each end, of which the kernel makes twice: the longest datagram must fit


class Framing(Protocol):
    """How the helper writes messages into a pair, and reads those of the program. `empty`: a message may be empty, and
    is not the end."""

    empty: bool

    def write(self, end: socket.socket, header: bytes, payload: Any) -> None:
        """One message upward, UP and payload, without waiting; OSError as sendmsg(2)."""

    def read(self, message: bytes) -> tuple[bytes, int, int, int, bytes] | None:
        """Address (none: the peer's), port, tos, ttl and payload of one message; None if it is no such message."""


class Headers:
    """As above: each message begins with its header."""

    empty = False

    def write(self, end: socket.socket, header: bytes, payload: Any) -> None:
        """See Framing."""
        end.sendmsg([header, payload], (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def read(self, message: bytes) -> tuple[bytes, int, int, int, bytes] | None:
        """See Framing."""
        if len(message) < DOWN.size:
            return None
        flags, address, port, tos, ttl = DOWN.unpack_from(message)
        tos, ttl = max(-1, min(tos, 255)), max(-1, min(ttl, 255))
        where = (address, port) if flags & HAS_ADDRESS else (b"", 0)
        return *where, tos, ttl, message[DOWN.size :]
