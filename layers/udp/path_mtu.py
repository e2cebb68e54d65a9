"""What ICMP told of the MTU on the way to a destination: RFC 1191, RFC 8085 3.2. Forgotten after udp.mtu_expires_s.

Whoever sends after that by IP_PMTUDISC_WANT has what is longer cut by ip, by IP_PMTUDISC_DO is told EMSGSIZE.
"""

from __future__ import annotations

from msgspec import Struct

KNOWN = 1024
"""Destinations; beyond it what was learned first is forgotten."""
SMALLEST = 68
"""Bytes that every link carries (RFC 791 3.2): less is no MTU."""
MIN_PMTU = 552
"""Bytes (Linux ip_rt_min_pmtu): below, packets stay so large, but may be fragmented on the way."""


class Learned(Struct):
    """One destination's; until when it is believed, ns of stack time."""

    dst: bytes
    mtu: int
    until: int


class PathMtus:
    """All that is known."""

    def __init__(self, rows: list[Learned] | None = None) -> None:
        self._known = {row.dst: row for row in rows or []}

    def rows(self) -> list[Learned]:
        """In the order in which they were learned."""
        return list(self._known.values())

    def learn(self, dst: bytes, mtu: int, until: int) -> None:
        """Believe it until then."""
        self._known.pop(dst, None)
        self._known[dst] = Learned(dst, mtu, until)
        if len(self._known) > KNOWN:
            del self._known[next(iter(self._known))]

    def find(self, dst: bytes, now: int) -> int:
        """The MTU, or 0 where nothing is known (any more)."""
        row = self._known.get(dst)
        if row is None:
            return 0
        if row.until <= now:
            del self._known[dst]
            return 0
        return row.mtu
