"""What programs hand to socket methods, checked and converted as the standard library does it in C; and what comes back
to them. TypeError, ValueError, OverflowError and gaierror come where they come there.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import socket as std
from collections.abc import Iterable
from typing import Any

from levelip.client import kernel, names


def os_error(code: int) -> OSError:
    """The exception of its class, as the kernel's errno makes it."""
    return OSError(code, os.strerror(code))


def complain(method: str, *args: Any) -> None:
    """Raise what the standard library's method raises for its arguments alone: it parses them before it looks at the
    socket, which here is none."""
    none = kernel.socket.__new__(kernel.socket)  # without a descriptor, as it was not begun
    with contextlib.suppress(OSError):  # EBADF
        getattr(none, method)(*args)


def host_and_port(data: dict[str, Any]) -> tuple[str, int]:
    """The address of an answer ("address", packed; "port") as programs see it."""
    address = data["address"] or bytes(4)
    return std.inet_ntop(std.AF_INET if len(address) == 4 else std.AF_INET6, address), data["port"]


def address_of(address: Any, call: str = "bind") -> tuple[bytes, int]:
    """(packed address, port) of what the standard library takes; TypeError, OverflowError, gaierror as it raises."""
    if not isinstance(address, tuple):
        raise TypeError(f"{call}(): AF_INET address must be tuple, not {type(address).__name__}")
    if len(address) != 2:
        raise TypeError("AF_INET address must be a pair (host, port)")
    host, port = address
    port = operator.index(port)
    name = _encoded(host)
    if b"\0" in name:
        raise TypeError("host name must not contain null character")
    if not 0 <= port <= 0xFFFF:
        raise OverflowError(f"{call}(): port must be 0-65535.")
    if name == b"":
        return bytes(4), port
    if name == b"<broadcast>":
        return b"\xff\xff\xff\xff", port
    try:
        return std.inet_pton(std.AF_INET, name.decode("latin-1")), port
    except OSError:
        return _look_up(name), port


def _encoded(host: Any) -> bytes:
    """A host as the bytes that are looked up: IDNA (RFC 3490) of what is not ASCII."""
    if isinstance(host, bytes | bytearray):
        return bytes(host)
    if not isinstance(host, str):
        raise TypeError(f"str, bytes or bytearray expected, not {type(host).__name__}")
    if host.isascii():
        return host.encode()
    try:
        return host.encode("idna")
    except UnicodeError:
        raise TypeError("encoding of hostname failed") from None


def _look_up(name: bytes) -> bytes:
    if name == b"localhost":
        return b"\x7f\0\0\1"
    found = names.getaddrinfo(name, None, std.AF_INET, std.SOCK_STREAM)
    return std.inet_aton(str(found[0][4][0]))


def sendto_arguments(data: Any, rest: tuple[Any, ...]) -> tuple[int, Any]:
    """(flags, address) of sendto(data[, flags], address); TypeError as the standard library says it."""
    if not 1 <= len(rest) <= 2:
        raise TypeError(f"sendto() takes 2 or 3 arguments ({1 + len(rest)} given)")
    view_of(data)
    return c_int(rest[0]) if len(rest) == 2 else 0, rest[-1]


def option_value(value: Any, optlen: int | None) -> int | bytes:
    """What setsockopt() is given: an int, or bytes; with a length None, which is no pointer (EFAULT)."""
    if value is None:
        if optlen is None:
            raise TypeError("setsockopt() takes None with the length of an option")
        if c_int(optlen):
            raise os_error(errno.EFAULT)
        return b""
    if optlen is not None:
        raise TypeError(f"setsockopt() argument 3 must be None, not {type(value).__name__}")
    try:
        return c_int(value)
    except (TypeError, OverflowError):
        return bytes(view_of(value))


def c_int(value: Any) -> int:
    """An argument that is an int in C; TypeError, OverflowError as the standard library raises them."""
    number = int(operator.index(value))
    if not -(1 << 31) <= number < 1 << 31:
        raise OverflowError(f"signed integer is {'greater than maximum' if number > 0 else 'less than minimum'}")
    return number


def view_of(data: Any) -> memoryview:
    """TypeError as the standard library says it for what has no bytes."""
    try:
        return memoryview(data)
    except TypeError:
        raise TypeError(f"a bytes-like object is required, not '{type(data).__name__}'") from None


def check_room(ancbufsize: int) -> None:
    """ValueError as the standard library for recvmsg."""
    if ancbufsize < 0 or ancbufsize > 0x7FFF_FFFF:
        raise ValueError("invalid ancillary data buffer length")


def within(buffer: Any, nbytes: int) -> int:
    """ValueError as the standard library for recvfrom_into."""
    if nbytes < 0:
        raise ValueError("negative buffersize in recvfrom_into")
    if nbytes > memoryview(buffer).nbytes:
        raise ValueError("nbytes is greater than the length of the buffer")
    return nbytes


def ancillary_items(ancdata: Iterable[Any]) -> list[tuple[int, int, bytes]]:
    """The items of ancillary data; TypeError as the standard library raises it."""
    items = []
    for item in ancdata:
        try:
            level, kind, value = item
        except (TypeError, ValueError):
            wanted = "(cmsg_level, cmsg_type, cmsg_data)"
            raise TypeError(f"[sendmsg() ancillary data items must be of the form {wanted}]") from None
        items.append((c_int(level), c_int(kind), bytes(view_of(value))))
    return items
