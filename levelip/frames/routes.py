"""The routing table as ip shows it to a transport: source address, MTU and offload size for a destination."""

from __future__ import annotations

from dataclasses import dataclass, field

from levelip.frames.packet import Interface, Route, Routes, Way
from levelip.wire.addr import LIMITED_BROADCAST, is_multicast

_CACHE = 4096  # destinations


@dataclass(slots=True)
class RouteLookup:
    """Longest prefix first. `known` says that ip has told us its routes at least once."""

    known: bool = False
    routes: list[Route] = field(default_factory=list)
    addresses: list[bytes] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    ways: list[Way] = field(default_factory=list)
    cache: dict[bytes, Route | None] = field(default_factory=dict)

    def replace(self, told: Routes) -> None:
        """Take the table that ip told; of two prefixes of the same length the one told first wins."""
        self.known = True
        self.routes = sorted(told.routes, key=lambda route: -route.length)
        self.addresses = list(told.addresses)
        self.interfaces, self.ways = told.interfaces, told.ways
        self.cache = {}

    def lookup(self, address: bytes) -> Route | None:
        """The route to `address` with the longest prefix, or None."""
        try:
            return self.cache[address]
        except KeyError:
            pass
        found = None
        bits = len(address) * 8
        number = int.from_bytes(address, "big")
        for route in self.routes:
            shift = bits - route.length
            if len(route.prefix) * 8 == bits and number >> shift == int.from_bytes(route.prefix, "big") >> shift:
                found = route
                break
        if len(self.cache) >= _CACHE:
            self.cache.clear()
        self.cache[address] = found
        return found

    def is_broadcast(self, address: bytes) -> bool:
        """Whether it means every host on a network that one of our addresses lies in (RFC 1122 3.2.1.3)."""
        if address == LIMITED_BROADCAST:
            return True
        number = int.from_bytes(address, "big")
        for route in self.routes:
            host = 32 - route.length
            if 1 < host < 32 and len(route.source) == 4:
                prefix = int.from_bytes(route.prefix, "big") >> host
                own = int.from_bytes(route.source, "big") >> host
                if own == prefix and number == (prefix << host | (1 << host) - 1):
                    return True
        return False

    def is_many(self, address: bytes) -> bool:
        """A group or a broadcast address: sockets may be bound to it, but it is nobody's source (Linux
        inet_addr_valid_or_nonlocal, __inet_bind)."""
        return is_multicast(address) or self.is_broadcast(address)

    def is_ours(self, address: bytes) -> bool:
        """Whether a socket may be bound to `address`: it is one of the stack's own, or any, or loopback.

        Before ip told us its addresses, all are believed: a listener that comes back with us must not fail then.
        """
        if not any(address) or address in self.addresses or not self.known:
            return True
        return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"
