"""What segments may hold toward a destination: MSS and path MTU."""

from __future__ import annotations

from dataclasses import dataclass, field

from levelip.frames.packet import Route
from levelip.frames.routes import RouteLookup

TCP_HEADER = 20  # bytes, RFC 9293 3.1
MAX_PACKET = 65_535  # bytes: the total length field of IPv4 (RFC 791 3.1)
MIN_MTU = 68  # bytes: what every link carries, RFC 791 3.2; less is a mistake of whoever told us
MAX_TCP_HEADER = 60  # bytes: a data offset of 15 words
MAX_PIECES = 44  # MTU-sized pieces of a super-segment: 44 × 1460 and headers stay below 65,535
_CACHE = 4096  # destinations


def ip_header(address: bytes) -> int:
    """Bytes of the IP header without options before a segment to `address`."""
    return 20 if len(address) == 4 else 40


def mss_of(mtu: int, address: bytes) -> int:
    """The MSS that an MTU allows: RFC 9293 3.7.1 (fixed headers only; options are counted by the sender, RFC 6691)."""
    return min(max(mtu, MIN_MTU), MAX_PACKET) - ip_header(address) - TCP_HEADER


@dataclass(slots=True)
class RouteTable(RouteLookup):
    """Routes, and what ICMP told of paths."""

    learned: dict[bytes, tuple[int, int]] = field(default_factory=dict)  # destination → MTU by ICMP, until when (ns)

    def learn(self, address: bytes, mtu: int, until: int, now: int) -> None:
        """ICMP told the MTU of the path to `address`: connections to come know it too (RFC 1191 6.3)."""
        learned = self.learned
        learned.pop(address, None)
        if len(learned) >= _CACHE:
            self.learned = learned = {to: row for to, row in learned.items() if row[1] > now}
            if len(learned) >= _CACHE:
                del learned[next(iter(learned))]
        learned[address] = (mtu, until)

    def path_mtu(self, route: Route, address: bytes, now: int) -> tuple[int, int]:
        """The MTU to `address`, and until when it holds; -1: for ever."""
        row = self.learned.get(address)
        if row is None or row[1] <= now or row[0] >= route.mtu:
            return route.mtu, -1
        return row
