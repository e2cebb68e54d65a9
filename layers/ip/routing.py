"""Where a packet goes: the routing table with its longest prefix match.

One list of rows, longest prefix first (RFC 1122 3.3.1.1, RFC 1812 5.2.4.3): our own addresses and 127.0.0.0/8 loop
back, broadcast addresses and our network lie on the link, all else goes to a gateway.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from levelip.addressing import Addressing
from levelip.wire.addr import LIMITED_BROADCAST, LOOPBACK, Prefix, format_ipv4, is_multicast

LOOPBACK_NETWORK = Prefix(b"\x7f\x00\x00\x00", 8)
CACHE_LIMIT = 4096
"""Destinations remembered at most; then the cache starts anew."""


class Kind(StrEnum):
    """What a row means, named as `ip route show table all` does."""

    LOCAL = "local"
    BROADCAST = "broadcast"
    UNICAST = "unicast"


@dataclass(frozen=True, slots=True)
class Row:
    """One route. `gateway` is empty where destinations are on the link; `source` is what we send from."""

    prefix: Prefix
    kind: Kind
    source: bytes
    gateway: bytes = b""

    def describe(self) -> dict[str, Any]:
        """For `lvlip route`: addresses as text."""
        return {
            "prefix": "default" if self.prefix.length == 0 else str(self.prefix),
            "kind": str(self.kind),
            "via": format_ipv4(self.gateway) if self.gateway else "",
            "source": format_ipv4(self.source),
        }


@dataclass(frozen=True, slots=True)
class Hop:
    """The answer for one destination: `group` says that it is a broadcast or multicast address."""

    local: bool
    group: bool
    next_hop: bytes
    source: bytes
    row: Row


class RoutingTable:
    """The table made from `addressing`; it never changes, a new configuration makes a new one."""

    def __init__(self, addressing: Addressing) -> None:
        own = addressing.address
        rows = [
            Row(LOOPBACK_NETWORK, Kind.LOCAL, LOOPBACK),
            Row(Prefix(own, 32), Kind.LOCAL, own),
            Row(Prefix(LIMITED_BROADCAST, 32), Kind.BROADCAST, own),
        ]
        rows += [Row(Prefix(address, 32), Kind.BROADCAST, own) for address in sorted(addressing.broadcasts)]
        if addressing.network.length < 32:
            rows.append(Row(addressing.network, Kind.UNICAST, own))
        rows += [Row(route.prefix, Kind.UNICAST, own, route.gateway) for route in addressing.routes]
        # sort() is stable: of equal prefixes the one configured first wins
        rows.sort(key=lambda row: -row.prefix.length)
        self.rows = rows
        self.addresses = [own, LOOPBACK]
        self._cache: dict[bytes, Hop | None] = {}

    def lookup(self, dst: bytes) -> Hop | None:
        """How to reach `dst` (4 bytes); None: not at all."""
        try:
            return self._cache[dst]
        except KeyError:
            if len(self._cache) >= CACHE_LIMIT:
                self._cache.clear()
            hop = self._cache[dst] = self._find(dst)
            return hop

    def _find(self, dst: bytes) -> Hop | None:
        for row in self.rows:
            if row.prefix.contains(dst):
                break
        else:
            return None
        if row.kind is Kind.LOCAL:
            return Hop(True, False, b"", row.source, row)
        if row.kind is Kind.BROADCAST or is_multicast(dst):
            # a group is on the link, whatever gateway lies on the way to single hosts (RFC 1112 6.1)
            return Hop(False, True, dst, row.source, row)
        return Hop(False, False, row.gateway or dst, row.source, row)
