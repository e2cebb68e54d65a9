"""Gateways that did not answer: another route to the same prefix goes before them for a while (RFC 1122 3.3.1.5).

link finds out (ARP, RFC 4861 7.3); the routing table passes over them where it has another gateway.
"""

from __future__ import annotations

from msgspec import Struct


class DeadGateway(Struct):
    """Not to be used before `until` (ns of stack time) if there is another."""

    gateway: bytes
    until: int


class DeadGateways:
    """Bounded by the routes: only gateways that the table names get here."""

    def __init__(self, entries: list[DeadGateway] | None = None) -> None:
        self._until: dict[bytes, int] = {entry.gateway: entry.until for entry in entries or []}

    def entries(self) -> list[DeadGateway]:
        return [DeadGateway(gateway, until) for gateway, until in self._until.items()]

    def passed_over(self) -> frozenset[bytes]:
        """For the routing table."""
        return frozenset(self._until)

    def failed(self, gateway: bytes, until: int) -> None:
        """Nobody answered for `gateway`."""
        self._until[gateway] = until

    def next_timer(self) -> int | None:
        return min(self._until.values(), default=None)

    def expire(self, now: int) -> bool:
        """Try those again whose time is over; whether there were any."""
        over = [gateway for gateway, until in self._until.items() if until <= now]
        for gateway in over:
            del self._until[gateway]
        return bool(over)
