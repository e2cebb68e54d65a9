"""Datagram sockets: which holds which port, and for which of them a datagram is meant.

Conflicts and choice are Linux's (net/ipv4/udp.c: inet_rcv_saddr_equal in udp_lib_lport_inuse, compute_score,
__udp4_lib_mcast_deliver).
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from levelip.wire.addr import ANY, is_multicast
from levelip.wire.ipv4 import Proto

CHARGE = 256  # bytes: what a datagram costs the socket's buffer beside its payload, as Linux counts the sk_buff


class Endpoint(Struct):
    """One socket. Addresses are packed; `port` 0: not bound, `peer_port` 0: not connected. Of an ICMP socket (`proto`
    1) the port is the identifier of its echo requests."""

    id: int
    proto: int
    address: bytes = ANY
    port: int = 0
    peer: bytes = b""
    peer_port: int = 0
    chosen_address: bytes = ANY
    """By bind(): kept when connect() is dissolved (Linux: SOCK_BINDADDR_LOCK)."""
    chosen_port: bool = False
    """bind() named the port: likewise (SOCK_BINDPORT_LOCK)."""
    groups: list[bytes] = []
    # options, by their name on the seam
    reuse_address: int = 0
    reuse_port: int = 0
    broadcast: int = 0
    rcvbuf: int = 0
    tos: int = 0
    ttl: int = 0
    """0: ip's default."""
    multicast_ttl: int = 1
    """RFC 1112 6.1."""
    multicast_loop: int = 1
    multicast_all: int = 1
    """IP_MULTICAST_ALL: groups that others here have joined, too (ip(7)); 0: RFC 3376 3.1."""
    mtu_discover: int = 1
    """Linux's IP_PMTUDISC_*: 0 DONT, 1 WANT, 2 DO, 3 PROBE."""
    no_check: int = 0
    """SO_NO_CHECK: no checksum is sent (RFC 768 allows it)."""
    # what waits for the application
    charged: int = 0
    """Bytes charged since the socket was made."""
    taken: int = 0
    """Of those, given back."""
    drops: int = 0

    @property
    def waiting(self) -> int:
        """Bytes that count against `rcvbuf`."""
        return self.charged - self.taken


OPTIONS = (
    "reuse_address", "reuse_port", "broadcast", "rcvbuf", "tos", "ttl", "multicast_ttl", "multicast_loop",
    "multicast_all", "mtu_discover", "no_check",
)  # fmt: skip


class Endpoints:
    """All sockets, by id, and those with a port by it."""

    def __init__(self, rows: list[Endpoint] | None = None) -> None:
        self.by_id: dict[int, Endpoint] = {}
        self._by_port: dict[tuple[int, int], list[Endpoint]] = {}  # protocol and port
        for row in rows or []:
            self.by_id[row.id] = row
            if row.port:
                self._by_port.setdefault((row.proto, row.port), []).append(row)

    def rows(self) -> list[Endpoint]:
        """In the order in which they were made."""
        return list(self.by_id.values())

    def add(self, endpoint: Endpoint) -> None:
        """A new socket, without a port."""
        self.by_id[endpoint.id] = endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """The socket is closed."""
        self.unbind(endpoint)
        del self.by_id[endpoint.id]

    def bind(self, endpoint: Endpoint, address: bytes, port: int) -> None:
        """Give it an address and a port."""
        self.unbind(endpoint)
        endpoint.address, endpoint.port = address, port
        self._by_port.setdefault((endpoint.proto, port), []).append(endpoint)

    def unbind(self, endpoint: Endpoint) -> None:
        """Take its port away."""
        if endpoint.port:
            key = (endpoint.proto, endpoint.port)
            row = self._by_port[key]
            row.remove(endpoint)
            if not row:
                del self._by_port[key]
            endpoint.port = 0

    def conflict(self, endpoint: Endpoint, address: bytes, port: int) -> bool:
        """Whether another holds the port so that this one may not have it, too."""
        ping = endpoint.proto == Proto.ICMP  # of which identifiers are one's own at all addresses (ping_get_port)
        for other in self._by_port.get((endpoint.proto, port), ()):
            apart = any(address) and any(other.address) and address != other.address
            if other is endpoint or (apart and not ping):
                continue
            if endpoint.reuse_address and other.reuse_address:
                continue
            if not ping and endpoint.reuse_port and other.reuse_port:
                continue
            return True
        return False

    def free_port(self, endpoint: Endpoint, address: bytes, first: int, last: int, start: int) -> int:
        """A port in first..last without a holder that stands in the way, looked for from first + start on; 0: none."""
        size = last - first + 1
        for step in range(size):
            port = first + (start + step) % size
            if not self.conflict(endpoint, address, port):
                return port
        return 0

    def find(self, local: bytes, port: int, remote: bytes, remote_port: int) -> Endpoint | None:
        """For a datagram to one of our own addresses: who knows most of it has it, of equals by SO_REUSEPORT one by
        the four-tuple, else the one that was bound last."""
        best: list[Endpoint] = []
        score = -1
        for one in self._by_port.get((Proto.UDP, port), ()):
            here = _score(one, local, remote, remote_port)
            if here > score:
                best, score = [one], here
            elif here == score >= 0:
                best.append(one)
        if not best:
            return None
        if best[-1].reuse_port:
            return best[(int.from_bytes(local + remote, "big") ^ remote_port) % len(best)]
        return best[-1]

    def find_all(self, group: bytes, port: int, remote: bytes, remote_port: int) -> Iterator[Endpoint]:
        """For a datagram to a group or a broadcast address: all that are bound so and, of a group, are in it."""
        multicast = is_multicast(group)
        for one in self._by_port.get((Proto.UDP, port), ()):
            if any(one.address) and one.address != group:
                continue
            if one.peer_port and (one.peer, one.peer_port) != (remote, remote_port):
                continue
            if multicast and not one.multicast_all and group not in one.groups:
                continue
            yield one

    def find_ping(self, local: bytes, identifier: int) -> Endpoint | None:
        """For an echo reply, or an error about an echo request, from `local`: of several the one that was bound last
        (ping_lookup)."""
        for one in reversed(self._by_port.get((Proto.ICMP, identifier), ())):
            if one.address in (ANY, local):
                return one
        return None


def _score(one: Endpoint, local: bytes, remote: bytes, remote_port: int) -> int:
    """-1: not for this one."""
    score = 0
    if any(one.address):
        if one.address != local:
            return -1
        score += 4
    if one.peer_port:
        if (one.peer, one.peer_port) != (remote, remote_port):
            return -1
        score += 8
    return score
