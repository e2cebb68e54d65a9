"""Where a packet goes: the routing table with its longest prefix match.

One list of rows, longest prefix first and of equal ones the lowest metric (RFC 1122 3.3.1.1, RFC 1812 5.2.4.3): our own
addresses and 127.0.0.0/8 loop back, broadcast addresses and our networks lie on the link, all else goes to a gateway
or is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from levelip.addressing import REFUSING, Addressing, Kind
from levelip.wire.addr import LIMITED_BROADCAST, LOOPBACK, Prefix, format_ipv4, is_multicast

LOOPBACK_NETWORK = Prefix(b"\x7f\x00\x00\x00", 8)
GROUPS = Prefix(b"\xe0\x00\x00\x00", 4)
CACHE_LIMIT = 4096
"""Destinations remembered at most; then the cache starts anew."""


@dataclass(frozen=True, slots=True)
class Row:
    """One route. `gateway` is empty where destinations are on the link; `source` is what we send from."""

    prefix: Prefix
    kind: Kind
    source: bytes
    gateway: bytes = b""
    metric: int = 0

    def describe(self) -> dict[str, Any]:
        """For `lvlip route`: addresses as text."""
        return {
            "prefix": "default" if self.prefix.length == 0 else str(self.prefix),
            "kind": str(self.kind),
            "via": format_ipv4(self.gateway) if self.gateway else "",
            "source": format_ipv4(self.source),
            "metric": self.metric,
        }


@dataclass(frozen=True, slots=True)
class Hop:
    """The answer for one destination: `group` says that it is a broadcast or multicast address.

    `mtu` is that of the path where it is known to be less than the device's (0: not), see exceptions.py.
    """

    local: bool
    group: bool
    next_hop: bytes
    source: bytes
    row: Row
    refused: bool = False
    mtu: int = 0


class RoutingTable:
    """The table made from `addressing`; it never changes, a new configuration makes a new one."""

    def __init__(self, addressing: Addressing) -> None:
        own = addressing.address
        rows = [Row(LOOPBACK_NETWORK, Kind.LOCAL, LOOPBACK)]
        rows += [Row(Prefix(address, 32), Kind.LOCAL, address) for address in addressing.addresses]
        rows.append(Row(Prefix(LIMITED_BROADCAST, 32), Kind.BROADCAST, own))
        networks: set[Prefix] = set()
        connected = []
        for interface in addressing.interfaces:
            if interface.network.length == 32 or interface.network in networks:
                continue  # a second address in the same network: the first one is what we send from, as Linux
            networks.add(interface.network)
            rows += [
                Row(Prefix(address, 32), Kind.BROADCAST, interface.address) for address in sorted(interface.broadcasts)
            ]
            connected.append(Row(interface.network, Kind.UNICAST, interface.address))
        rows += connected
        for route in addressing.routes:
            source = route.source or addressing.source_for(route.gateway or route.prefix.network)
            rows.append(Row(route.prefix, route.kind, source, route.gateway, route.metric))
        # sort() is stable: of equal ones the one configured first wins
        rows.sort(key=lambda row: (-row.prefix.length, row.metric))
        self.rows = rows
        self.own = frozenset(addressing.addresses)
        self.addresses = [*addressing.addresses, LOOPBACK]
        self.broadcasts = addressing.broadcasts
        self._groups = Row(GROUPS, Kind.MULTICAST, own)
        self._cache: dict[bytes, Hop | None] = {}
        self._overrides: dict[bytes, tuple[bytes, int]] = {}
        self._dead: frozenset[bytes] = frozenset()

    def lookup(self, dst: bytes) -> Hop | None:
        """How to reach `dst` (4 bytes); None: not at all."""
        try:
            return self._cache[dst]
        except KeyError:
            if len(self._cache) >= CACHE_LIMIT:
                self._cache.clear()
            hop = self._cache[dst] = self._find(dst)
            return hop

    def override(self, dst: bytes, gateway: bytes, mtu: int) -> None:
        """What was learned about one destination; empty and 0: nothing any more."""
        if gateway or mtu:
            self._overrides[dst] = (gateway, mtu)
        else:
            self._overrides.pop(dst, None)
        self._cache.pop(dst, None)

    def pass_over(self, gateways: frozenset[bytes]) -> None:
        """These do not answer: another gateway for the same prefix goes before them (RFC 1122 3.3.1.5)."""
        if gateways != self._dead:
            self._dead = gateways
            self._cache.clear()

    def _alive(self, row: Row) -> Row:
        """The row, or the next one for its prefix whose gateway answers, if there is one."""
        if row.gateway not in self._dead:
            return row
        same = (other for other in self.rows if other.prefix == row.prefix and other.gateway)
        return next((other for other in same if other.gateway not in self._dead), row)

    def _find(self, dst: bytes) -> Hop | None:
        group = is_multicast(dst)
        row = next((row for row in self.rows if row.prefix.contains(dst)), None)
        if group and (row is None or row.prefix.length < GROUPS.length):
            # a group needs no route, and no gateway of single hosts leads to it (RFC 1112 6.1)
            row = self._groups
        if row is None:
            return None
        if row.kind is Kind.LOCAL:
            return Hop(True, False, b"", row.source, row)
        if row.kind in REFUSING:
            return Hop(False, group, b"", row.source, row, refused=True)
        if group or row.kind is Kind.BROADCAST:
            return Hop(False, True, dst, row.source, row)
        if row.gateway:
            row = self._alive(row)
        gateway, mtu = self._overrides.get(dst, (b"", 0))
        return Hop(False, False, gateway or row.gateway or dst, row.source, row, mtu=mtu)
