"""Names of hosts, as `levelip.client.socket` looks them up: over the stack (resolver.py)."""

from __future__ import annotations

from levelip.client.resolver import (
    getaddrinfo,
    getfqdn,
    gethostbyaddr,
    gethostbyname,
    gethostbyname_ex,
    getnameinfo,
)

__all__ = ["LOOKUPS", "getaddrinfo", "getfqdn", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"]

LOOKUPS = ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getfqdn", "getnameinfo")
"""What patch() puts into the standard module besides sockets."""
