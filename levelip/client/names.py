"""Names of hosts, as `levelip.client.socket` looks them up: over the stack (resolver.py)."""

from __future__ import annotations

import socket as std
from typing import Any

from levelip.client import resolver
from levelip.client.kernel import ORIGINAL, rebound


def getaddrinfo(
    host: bytes | str | None, port: bytes | str | int | None, family: int = 0, type: int = 0, proto: int = 0,
    flags: int = 0,
) -> list[tuple[Any, ...]]:  # fmt: skip
    """As the standard library's, over the stack; where no family is asked for, IPv4 alone if there is any."""
    found: list[tuple[Any, ...]] = resolver.getaddrinfo(host, port, family, type, proto, flags)
    return [row for row in found if row[0] != std.AF_INET6] or found if not family else found


gethostbyname = resolver.gethostbyname
gethostbyname_ex = resolver.gethostbyname_ex
gethostbyaddr = resolver.gethostbyaddr
getnameinfo = resolver.getnameinfo
getfqdn = rebound(ORIGINAL["getfqdn"], gethostbyaddr=gethostbyaddr)

LOOKUPS = ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getfqdn", "getnameinfo")
"""The functions above: what patch() puts into the standard module besides sockets."""
