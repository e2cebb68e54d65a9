"""Names of hosts and interfaces, as `levelip.client.socket` looks them up: the stack's (resolver.py, interfaces.py)."""

from __future__ import annotations

from levelip.client import interfaces, resolver
from levelip.client.kernel import ORIGINAL, rebound

getaddrinfo = resolver.usable
gethostbyname = resolver.gethostbyname
gethostbyname_ex = resolver.gethostbyname_ex
gethostbyaddr = resolver.gethostbyaddr
getnameinfo = resolver.getnameinfo
getfqdn = rebound(ORIGINAL["getfqdn"], gethostbyaddr=gethostbyaddr)
if_nameindex = interfaces.if_nameindex
if_nametoindex = interfaces.if_nametoindex
if_indextoname = interfaces.if_indextoname

LOOKUPS = (
    "getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getfqdn", "getnameinfo",
    "if_indextoname", "if_nameindex", "if_nametoindex",
)  # fmt: skip
"""The functions above: what patch() puts into the standard module besides sockets."""
