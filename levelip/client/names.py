"""Names of hosts, as `levelip.client.socket` looks them up: over the stack (resolver.py)."""

from __future__ import annotations

from levelip.client import resolver
from levelip.client.kernel import ORIGINAL, rebound

getaddrinfo = resolver.usable
gethostbyname = resolver.gethostbyname
gethostbyname_ex = resolver.gethostbyname_ex
gethostbyaddr = resolver.gethostbyaddr
getnameinfo = resolver.getnameinfo
getfqdn = rebound(ORIGINAL["getfqdn"], gethostbyaddr=gethostbyaddr)

LOOKUPS = ("getaddrinfo", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getfqdn", "getnameinfo")
"""The functions above: what patch() puts into the standard module besides sockets."""
