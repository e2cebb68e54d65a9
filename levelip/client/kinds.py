"""Which class a socket is of: that of the stack's streams, of its datagrams, or of what is the kernel's.

It is settled when the constructor is told what the socket is for. A class of the program's own may say so to
`super().__init__` alone, whatever it was called with itself, so an object changes its class there.
"""

from __future__ import annotations

import socket as std
from typing import TYPE_CHECKING, Any

from levelip.client.program import PROGRAM, Program, program_of

if TYPE_CHECKING:
    from levelip.client.streamsocket import socket

_OURS = frozenset({std.AF_INET, std.AF_INET6})  # what the stack serves, or will (until then EAFNOSUPPORT)
_made: dict[tuple[type[socket], type[socket]], type[socket]] = {}


def settle(sock: Any, family: int, kind: int, fileno: int | None) -> tuple[Program, dict[str, Any]]:
    """Give a socket the class for what the constructor was told. Whose helper serves it, and what that says of the
    descriptor (nothing of a new one)."""
    program, state = PROGRAM, None
    if fileno is None:
        base = _for(family, std.SOCK_STREAM if kind == -1 else kind)
    elif family in (-1, *_OURS):
        base, program, state = _of_descriptor(fileno)
    else:
        base = _for(family, kind)  # it is what it is said to be, as in the standard library
    fitting = _specialised(type(sock), base)
    if type(sock) is not fitting:
        sock.__class__ = fitting
    return program, state or {}


def _for(family: int, kind: int) -> type[socket]:
    """The class for what a program asks for."""
    from levelip.client.datagramsocket import DatagramSocket
    from levelip.client.kernelsocket import KernelSocket
    from levelip.client.streamsocket import socket

    if family not in (-1, *_OURS):
        return KernelSocket
    return DatagramSocket if kind & 0xF == std.SOCK_DGRAM else socket


def _of_descriptor(fd: Any) -> tuple[type[socket], Program, dict[str, Any] | None]:
    """The class for a descriptor, whose helper serves it, and what that says of it."""
    found = program_of(fd) if isinstance(fd, int) and fd >= 0 else None  # else the standard library complains
    if found is None:
        return _for(std.AF_UNIX, std.SOCK_STREAM), PROGRAM, None
    program, state = found
    return _for(*state["kind"][:2]), program, state


def _specialised(cls: type[socket], base: type[socket]) -> type[socket]:
    """The class of `cls` whose calls are those of `base`."""
    cls = cls.__dict__.get("_made_of", cls)
    if issubclass(cls, base):
        return cls
    if base.__dict__.get("_made_of") is cls:
        return base
    if (cls, base) not in _made:
        names = {"__slots__": (), "__module__": cls.__module__, "__qualname__": cls.__qualname__, "_made_of": cls}
        _made[cls, base] = type(cls.__name__, (cls, base), names)
    return _made[cls, base]
