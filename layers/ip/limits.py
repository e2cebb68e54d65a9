"""How often ICMP errors are sent (RFC 1812 4.3.2.8): in all, and to each destination, by stack time, as Linux does."""

from __future__ import annotations

from msgspec import Struct

NANOSECONDS = 1_000_000_000
BURST_PER_DESTINATION = 6
"""Errors at once to one destination (Linux XRLIM_BURST_FACTOR)."""
DESTINATIONS_LIMIT = 4096
"""Destinations remembered at most; the one that was used longest ago is forgotten, and so has a full burst again."""


class TokenBucket(Struct):
    """`burst` at once, then `rate` a second.

    Credit is counted in token-nanoseconds, so that nothing is rounded: a token costs a second's worth.
    """

    rate: int
    burst: int
    at: int
    credit: int = -1
    """Token-nanoseconds; -1: full."""

    def take(self, now: int) -> bool:
        """Whether one more may be sent at `now`, which is then accounted for."""
        full = self.burst * NANOSECONDS
        if self.rate == 0:
            return False
        credit = full if self.credit < 0 else min(full, self.credit + max(0, now - self.at) * self.rate)
        self.at = now
        if credit < NANOSECONDS:
            self.credit = credit
            return False
        self.credit = credit - NANOSECONDS
        return True


class Target(Struct, array_like=True):
    """What one destination has left, ns of waiting."""

    dst: bytes
    at: int
    credit: int


class DestinationLimit:
    """One error each `interval_ns` to a destination, and a few at once (Linux inet_peer_xrlim_allow)."""

    def __init__(self, interval_ns: int, targets: list[Target] | None = None) -> None:
        self.interval_ns = interval_ns
        self._targets: dict[bytes, Target] = {target.dst: target for target in targets or []}

    def targets(self) -> list[Target]:
        return list(self._targets.values())

    def take(self, dst: bytes, now: int) -> bool:
        """Whether one more may be sent to `dst` at `now`, which is then accounted for."""
        interval = self.interval_ns
        if not interval:
            return True
        full = BURST_PER_DESTINATION * interval
        target = self._targets.pop(dst, None)
        if target is None:
            target = Target(dst, now, full)
            if len(self._targets) >= DESTINATIONS_LIMIT:
                del self._targets[next(iter(self._targets))]
        else:
            target.credit = min(full, target.credit + now - target.at)
            target.at = now
        self._targets[dst] = target
        if target.credit < interval:
            return False
        target.credit -= interval
        return True
