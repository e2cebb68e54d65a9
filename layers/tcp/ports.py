"""Which socket holds which local port: conflicts as in Linux, ephemeral ports by RFC 6056.

Linux's rule (net/ipv4/inet_connection_sock.c, inet_csk_bind_conflict): two sockets may share a port if their
addresses are specific and differ; or if both set SO_REUSEADDR and neither listens; or if both set SO_REUSEPORT. A
connection that came by a listener, and what is left of it in TIME-WAIT, holds the port with the listener's options.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from layers.tcp.isn import connection_hash

TABLE = 256  # counters of the double-hash algorithm, RFC 6056 3.3.4: TABLE_LENGTH


@dataclass(slots=True)
class Binding:
    """One holder of a port. `chosen` by bind() or listen(); else a connect() took it and others may share it."""

    address: bytes
    port: int
    reuse_address: bool = False
    reuse_port: bool = False
    listening: bool = False
    chosen: bool = True


@dataclass(slots=True)
class Ports:
    """Bindings by port and socket id. `table` holds the counters of RFC 6056's algorithm 4."""

    bindings: dict[int, dict[int, Binding]] = field(default_factory=dict)
    by_socket: dict[int, Binding] = field(default_factory=dict)
    table: list[int] = field(default_factory=lambda: [0] * TABLE)

    def conflicts(self, sock: int, want: Binding) -> bool:
        """Whether `want` cannot be bound beside what is there."""
        for other, have in self.bindings.get(want.port, {}).items():
            if other == sock:
                continue
            if any(have.address) and any(want.address) and have.address != want.address:
                continue
            if have.reuse_port and want.reuse_port:
                continue
            if have.reuse_address and want.reuse_address and not have.listening:  # as Linux inet_csk_bind_conflict
                continue
            return True
        return False

    def hold(self, sock: int, binding: Binding) -> None:
        """`sock` holds the port; a socket holds one at a time."""
        self.release(sock)
        self.bindings.setdefault(binding.port, {})[sock] = binding
        self.by_socket[sock] = binding

    def release(self, sock: int) -> None:
        """`sock` holds no port any more."""
        binding = self.by_socket.pop(sock, None)
        if binding is not None:
            row = self.bindings[binding.port]
            del row[sock]
            if not row:
                del self.bindings[binding.port]

    def free_for_bind(self, sock: int, want: Binding, first: int, last: int, start: int) -> int:
        """A port in first..last that `want` can be bound to, looked for from `start` on; 0 if there is none."""
        size = last - first + 1
        for step in range(size):
            want.port = first + (start + step) % size
            if not self.conflicts(sock, want):
                return want.port
        want.port = 0
        return 0

    def free_for_connect(
        self,
        secret: bytes,
        local: bytes,
        remote: bytes,
        remote_port: int,
        first: int,
        last: int,
        taken: Callable[[int], bool],
    ) -> int:
        """An ephemeral port by RFC 6056 3.3.4, the double-hash port selection algorithm; 0 if all are in use.

        `taken` says whether a connection with that local port to the same remote side exists. A port that somebody
        chose by bind() is left alone; one that connect() chose can serve several destinations.
        """
        size = last - first + 1
        where = remote_port.to_bytes(2, "big")
        offset = connection_hash(secret, b"port", local, remote, where)
        index = connection_hash(secret, b"table", local, remote, where) % TABLE
        for _ in range(size):
            port = first + (offset + self.table[index]) % size
            self.table[index] += 1
            if any(row.chosen for row in self.bindings.get(port, {}).values()) or taken(port):
                continue
            return port
        return 0
