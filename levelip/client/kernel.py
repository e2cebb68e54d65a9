"""The standard library's sockets and lookups, also while patch() has ours in their place.

What is taken from the module here is what it was at import, before any patch.
"""

from __future__ import annotations

import socket as std
from collections.abc import Callable
from socket import getaddrinfo, getnameinfo, socket
from types import FunctionType
from typing import Any

__all__ = ["ORIGINAL", "getaddrinfo", "getnameinfo", "rebound", "socket", "socketpair"]

ORIGINAL: dict[str, Any] = dict(vars(std))


def rebound(function: Callable[..., Any], **names: Any) -> Any:
    """A function of the standard module that sees other objects under some names of that module.

    So ours do what the running version of Python does, and not what we once copied.
    """
    assert isinstance(function, FunctionType)
    new = FunctionType(function.__code__, {**ORIGINAL, **names}, function.__name__, function.__defaults__)
    new.__kwdefaults__ = function.__kwdefaults__
    new.__doc__ = function.__doc__
    new.__qualname__ = function.__qualname__
    return new


socketpair: Callable[..., tuple[socket, socket]] = rebound(std.socketpair)
