"""How datagrams lie in the pair between a program's socket and its helper: one message each, a header first.

    program → helper   DOWN: flags (HAS_ADDRESS), address, port, tos, ttl (-1: the socket's)
    helper → program   UP: kind (DATAGRAM, ERROR), tos, ttl, and what else Told has

ERROR has no payload and only says that there is one to be asked for (the call "error").
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from levelip.client.datagrams import DatagramPair

DOWN = struct.Struct("=Bx4sHhh")
UP = struct.Struct("=BBBBH2x4s4sIIq40s")
HAS_ADDRESS = 1
_FLAGS = (bytes(2), bytes([HAS_ADDRESS, 0]))  # how a message begins; what else is written is no datagram's header
DATAGRAM, ERROR = 1, 2
MAX_PAYLOAD = 65_507  # bytes of a UDP datagram over IPv4
MAX_OPTIONS = 40  # bytes of options in an IPv4 header
MAX_ECHO = 65_515  # bytes of an ICMP message over IPv4
PAIR_BUFFER = 1 << 16  # SO_SNDBUF asked for at each end, of which the kernel makes twice: the longest datagram must fit


class Told(NamedTuple):
    """What an UP header says."""

    kind: int
    tos: int = 0
    ttl: int = 0
    port: int = 0
    address: bytes = bytes(4)
    local: bytes = bytes(4)
    iface: int = 0
    drops: int = 0  # SO_RXQ_OVFL, where that is on
    stamp: int = 0  # SO_TIMESTAMP, where that is on: ns since 1970
    options: bytes = b""  # of the IP header

    def pack(self) -> bytes:
        """The header."""
        return UP.pack(
            self.kind, self.tos, self.ttl, len(self.options), self.port, self.address, self.local, self.iface,
            self.drops, self.stamp, self.options,
        )  # fmt: skip


def told(header: bytes) -> Told:
    """An UP header, read."""
    kind, tos, ttl, length, port, address, local, iface, drops, stamp, options = UP.unpack(header)
    return Told(kind, tos, ttl, port, address, local, iface, drops, stamp, options[:length])


class Framing(Protocol):
    """How the helper writes messages into a pair, and reads those of the program. `kind` of the pair: SOCK_SEQPACKET,
    where an empty message is its end, or SOCK_DGRAM, where it is an empty datagram."""

    kind: socket.SocketKind

    def write(self, pair: DatagramPair, header: bytes, payload: Any) -> None:
        """One message upward, UP and payload, without waiting; OSError as sendmsg(2)."""

    def admit(self, pair: DatagramPair, on: bool) -> None:
        """Whether what the program writes without naming a destination is taken, or refused. The pair holds nothing of
        it."""

    def read(self, message: bytes) -> tuple[bytes, int, int, int, bytes] | None:
        """Address (none: the peer's), port, tos, ttl and payload of one message; None if it is no such message."""

    def error(self, pair: DatagramPair) -> bool:
        """The socket has an error that the program is to be shown. False: as a message, an ERROR, in its turn."""


class Headers:
    """As above: each message begins with its header."""

    kind = socket.SOCK_SEQPACKET

    def write(self, pair: DatagramPair, header: bytes, payload: Any) -> None:
        """See Framing."""
        pair.end.sendmsg([header, payload], (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def admit(self, pair: DatagramPair, on: bool) -> None:
        """Nothing: the program asks the gateway first, and what it writes goes without saying."""

    def read(self, message: bytes) -> tuple[bytes, int, int, int, bytes] | None:
        """See Framing."""
        if len(message) < DOWN.size or message[:2] not in _FLAGS:
            return None
        flags, address, port, tos, ttl = DOWN.unpack_from(message)
        tos, ttl = max(-1, min(tos, 255)), max(-1, min(ttl, 255))
        where = (address, port) if flags & HAS_ADDRESS else (b"", 0)
        return *where, tos, ttl, message[DOWN.size :]

    def error(self, pair: DatagramPair) -> bool:
        """See Framing."""
        return False
