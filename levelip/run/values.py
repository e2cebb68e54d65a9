"""C's values in the program's memory: socket addresses and times."""

from __future__ import annotations

import errno
import os
import socket
import struct

SOCKADDR_IN = struct.Struct("=HH4s8x")  # the port is in network order
INT = struct.Struct("=i")
TIMEVAL = TIMESPEC = struct.Struct("=qq")
MAX_SOCKADDR = 128  # sizeof(struct sockaddr_storage)


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def parse_sockaddr(data: bytes, *, unspecified: bool = False, any_address: bool = False) -> tuple[bytes, int]:
    """(address, port); OSError(EINVAL) if it is too short, EAFNOSUPPORT if it is not AF_INET. `unspecified`: AF_UNSPEC
    with no address is taken for any address, as Linux's bind() does; `any_address`: with any, as its sendto() does."""
    if len(data) < SOCKADDR_IN.size:
        raise _refuse(errno.EINVAL)
    family, port, address = SOCKADDR_IN.unpack_from(data)
    taken = unspecified and family == socket.AF_UNSPEC and (any_address or address == bytes(4))
    if family != socket.AF_INET and not taken:
        raise _refuse(errno.EAFNOSUPPORT)
    return address, socket.ntohs(port)


def dissolves(data: bytes) -> bool:
    """Whether it is AF_UNSPEC, which takes a connect() back; OSError(EINVAL) if it is too short to say."""
    if len(data) < 2:
        raise _refuse(errno.EINVAL)
    return int.from_bytes(data[:2], "little") == socket.AF_UNSPEC


def sockaddr(address: bytes, port: int) -> bytes:
    """struct sockaddr_in; no address is any address."""
    return SOCKADDR_IN.pack(socket.AF_INET, socket.htons(port), address or bytes(4))


def seconds(value: bytes) -> float | None:
    """A struct timeval in seconds; None for none, which waits for ever."""
    whole, micros = TIMEVAL.unpack_from(value)
    return (whole + micros / 1e6) or None if whole >= 0 else None
