"""What was learned about single destinations: a smaller path MTU (RFC 1191), another first hop (RFC 1122 3.2.2.2).

As Linux's next hop exceptions: beside the routing table, each with its own end, bounded, the oldest given up first.
"""

from __future__ import annotations

from msgspec import Struct

ENTRIES_LIMIT = 1024
"""Destinations remembered at most."""
PLATEAUS = (32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)
"""Likely MTUs below 65,535, for routers that do not tell theirs (RFC 1191 7.1)."""


class PathException(Struct):
    """About one destination; 0 and empty: nothing is known."""

    dst: bytes
    mtu: int = 0
    mtu_until: int = 0
    gateway: bytes = b""
    gateway_until: int = 0


def plateau_below(mtu: int) -> int:
    """The next smaller likely MTU (RFC 1191 5, 7.1)."""
    return next((plateau for plateau in PLATEAUS if plateau < mtu), PLATEAUS[-1])


def guess_mtu(quoted_total: int, quoted_header: int, current: int) -> int:
    """What a router's MTU may be that said 0: the plateau below the packet's length (RFC 1191 5).

    Some routers quote the total length with the header's length added; that shows where it says more than was sent.
    """
    total = quoted_total
    if total > current:
        total -= quoted_header
    return plateau_below(min(total, current))


class PathExceptions:
    """All that are known, oldest change first."""

    def __init__(self, entries: list[PathException] | None = None) -> None:
        self._entries: dict[bytes, PathException] = {entry.dst: entry for entry in entries or []}
        self._next: int | None = None
        self._reckon()

    def entries(self) -> list[PathException]:
        return list(self._entries.values())

    def find(self, dst: bytes) -> PathException | None:
        return self._entries.get(dst)

    def lower_mtu(self, dst: bytes, mtu: int, until: int) -> list[bytes]:
        """The path to `dst` takes no more than `mtu` bytes; the destinations about which something changed."""
        entry, changed = self._entry(dst)
        entry.mtu, entry.mtu_until = mtu, until
        self._reckon()
        return changed

    def redirect(self, dst: bytes, gateway: bytes, until: int) -> list[bytes]:
        """`gateway` is the better first hop to `dst`; returns as `lower_mtu`."""
        entry, changed = self._entry(dst)
        entry.gateway, entry.gateway_until = gateway, until
        self._reckon()
        return changed

    def _entry(self, dst: bytes) -> tuple[PathException, list[bytes]]:
        entry = self._entries.pop(dst, None) or PathException(dst)
        changed = [dst]
        if len(self._entries) >= ENTRIES_LIMIT:
            oldest = next(iter(self._entries))
            del self._entries[oldest]
            changed.append(oldest)
        self._entries[dst] = entry
        return entry, changed

    def forget_gateway(self, gateway: bytes) -> list[bytes]:
        """A first hop does not answer: whoever was redirected to it goes the old way again (RFC 1122 3.3.1.4)."""
        changed = [entry.dst for entry in self._entries.values() if entry.gateway == gateway]
        for dst in changed:
            self._entries[dst].gateway = b""
            self._drop_empty(self._entries[dst])
        self._reckon()
        return changed

    def forget_redirect(self, dst: bytes) -> list[bytes]:
        """Nothing comes back from `dst`: it goes the old way again (RFC 1122 3.3.1.4); returns as `lower_mtu`."""
        entry = self._entries.get(dst)
        if entry is None or not entry.gateway:
            return []
        entry.gateway = b""
        self._drop_empty(entry)
        self._reckon()
        return [dst]

    def clear(self) -> list[bytes]:
        """Forget all."""
        changed = list(self._entries)
        self._entries.clear()
        self._next = None
        return changed

    def next_timer(self) -> int | None:
        return self._next

    def expire(self, now: int) -> list[bytes]:
        """End what is over: the MTU may rise again (RFC 1191 6.3), the redirect is asked for anew."""
        changed = []
        for entry in list(self._entries.values()):
            over = False
            if entry.mtu and entry.mtu_until <= now:
                entry.mtu, over = 0, True
            if entry.gateway and entry.gateway_until <= now:
                entry.gateway, over = b"", True
            if over:
                changed.append(entry.dst)
                self._drop_empty(entry)
        self._reckon()
        return changed

    def _drop_empty(self, entry: PathException) -> None:
        if not entry.mtu and not entry.gateway:
            del self._entries[entry.dst]

    def _reckon(self) -> None:
        """The earliest end, kept so that asking for it costs nothing."""
        ends = [entry.mtu_until for entry in self._entries.values() if entry.mtu]
        ends += [entry.gateway_until for entry in self._entries.values() if entry.gateway]
        self._next = min(ends, default=None)
