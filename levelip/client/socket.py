"""Stands in for the standard library's `socket` module, on a Level-IP stack: `from levelip.client import socket`.

AF_INET is the stack's; AF_UNIX and other local families are the kernel's, as in the standard module. Host names are
looked up over the stack (resolver.py).
docs/socket-api.md lists what differs.
"""

from __future__ import annotations

import socket as _std
from socket import *  # noqa: F403 - all constants, errors and functions of the module we stand in for
from socket import SocketIO

from levelip.client.resolver import (
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    getnameinfo,
)
from levelip.client.streamsocket import (  # type: ignore[assignment]
    create_connection,
    create_server,
    fromfd,
    has_dualstack_ipv6,
    socket,
)

__all__ = [  # noqa: PLE0604 - strings all, which the linter cannot see
    *_std.__all__,
    "SocketIO",
    "create_connection",
    "create_server",
    "fromfd",
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "has_dualstack_ipv6",
    "has_ipv6",
    "socket",
]

has_ipv6 = False
