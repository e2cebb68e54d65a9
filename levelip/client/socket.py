"""Stands in for the standard library's `socket` module, on a Level-IP stack: `from levelip.client import socket`.

AF_INET is the stack's; AF_UNIX and other local families are the kernel's, as in the standard module. What makes
sockets is the standard module's own code around our class. docs/socket-api.md lists what differs.
"""

from __future__ import annotations

import socket as _std
from socket import *  # noqa: F403 - all constants, errors and functions of the module we stand in for
from socket import SocketIO
from typing import Any

from levelip.client import names as _names
from levelip.client.kernel import ORIGINAL as _ORIGINAL
from levelip.client.kernel import rebound as _rebound
from levelip.client.streamsocket import socket

__all__ = [*_std.__all__, "SocketIO", "socket"]  # noqa: PLE0604 - strings all, which the linter cannot see


def _has_dualstack_ipv6() -> bool:
    """The stack has no IPv6 yet."""
    return False


def _ours() -> dict[str, Any]:
    """What differs from the standard module."""
    ours: dict[str, Any] = {"socket": socket, "has_ipv6": False, "has_dualstack_ipv6": _has_dualstack_ipv6}
    ours |= {name: getattr(_names, name) for name in _names.LOOKUPS}
    makers = ("fromfd", "socketpair", "create_connection", "create_server", "send_fds", "recv_fds")
    return ours | {name: _rebound(_ORIGINAL[name], **ours) for name in makers}


OURS = _ours()
globals().update({name: value for name, value in _ORIGINAL.items() if not name.startswith("__")} | OURS)
