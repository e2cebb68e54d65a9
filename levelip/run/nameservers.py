"""Name servers of the host that a program cannot reach over the stack, and those that it asks instead.

A resolver on the host's loopback (systemd-resolved at 127.0.0.53) would be the stack's own loopback. What the program
sends to port 53 of such an address of /etc/resolv.conf goes to a server that was configured, and comes back as from
where it was sent to. With configured servers all addresses of /etc/resolv.conf are meant; else only those on loopback,
for which the servers are the others there, or those that systemd-resolved asks.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from levelip.client.resolverfiles import RESOLV_CONF, UPLINK, name_servers, remote

PORT = 53
PATIENCE_S = 2.0  # a server that has not answered for so long is not asked first any more
DAEMONS = frozenset({b"/run/systemd/resolve/io.systemd.Resolve", b"/run/nscd/socket", b"/var/run/nscd/socket"})
"""AF_UNIX sockets by which glibc has names looked up for it, by the host's network; without them it asks by itself."""
DEFAULT = "127.0.0.1"  # where nothing is configured (resolv.conf(5))

Where = tuple[bytes, int]


class Nameservers:
    """`chosen`: the servers to ask, if somebody said which; `clock` in seconds."""

    def __init__(
        self, chosen: Sequence[str] = (), *, hosts: Path = RESOLV_CONF, upstream: Path = UPLINK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._clock = clock
        self._named = name_servers(hosts) or [DEFAULT]
        others = remote(self._named) or remote(name_servers(upstream))
        self._meant: dict[bytes, int] = {}
        self._servers: list[bytes] = []
        self._turn = 0
        self._asked: float | None = None  # since when nothing has come back
        self._use(chosen or others, everything=bool(chosen))

    def configure(self, servers: Sequence[str]) -> None:
        """The stack's configuration names servers."""
        if servers:
            self._use(servers, everything=True)

    def _use(self, servers: Sequence[str], *, everything: bool) -> None:
        self._servers = [ipaddress.IPv4Address(text).packed for text in servers]
        far = set() if everything else set(remote(self._named))
        meant = [text for text in self._named if text not in far]
        self._meant = {ipaddress.IPv4Address(text).packed: index for index, text in enumerate(meant)}

    def lost(self, where: Where) -> bool:
        """Whether it is a resolver on the host's loopback, and nobody is known whom to ask instead."""
        return where[1] == PORT and where[0][:1] == b"\x7f" and where[0] in self._meant and not self._servers

    def instead(self, where: Where) -> Where:
        """Where to send what the program sends there."""
        index = self._meant.get(where[0])
        if index is None or where[1] != PORT or not self._servers:
            return where
        now = self._clock()
        if self._asked is not None and now >= self._asked + PATIENCE_S:
            self.failed()
        self._asked = now if self._asked is None else self._asked
        return self._servers[(index + self._turn) % len(self._servers)], PORT

    def answered(self) -> None:
        """Something has come from a server."""
        self._asked = None

    def failed(self) -> None:
        """The server does not answer: the next one is asked first from now on."""
        self._turn += 1
        self._asked = None
