"""Applications for simulated tcp cores: what gateway and client would do, reduced to bytes in and out."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from layers.tcp.config import TcpCoreConfig
from levelip.config import TcpConfig
from levelip.frames.packet import Route, Routes
from levelip.frames.seam import (
    Bind,
    Close,
    Connect,
    Connected,
    Incoming,
    Listen,
    NeighbourUp,
    Released,
    Result,
    Taken,
)
from levelip.rpc.place import Rings
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send
from tests.netsim.net import Impairment, Link, Net, Node
from tests.netsim.tcp_invariants import CheckedCore

CHUNK = 44 * 1460  # bytes: what a client hands over at once


@dataclass
class Socket:
    """One connection as its application sees it. `to_send` is written as credit allows, then FIN if `then_eof`."""

    host: TcpHost
    sock: int
    rings: Rings | None = None
    limit: int = 0
    sent: int = 0
    to_send: bytes = b""
    then_eof: bool = False
    eof_sent: bool = False
    received: bytearray = field(default_factory=bytearray)
    told: int = 0
    eof: bool = False
    error: int | None = None
    released: bool = False
    reading: bool = True
    inline: bool = False
    chunk: int = CHUNK
    peer: tuple[bytes, int] = (b"", 0)
    port: int = 0  # ours, once connected

    def pump(self, now: int) -> None:
        """Hand over what credit allows."""
        if self.rings is None or self.error is not None:
            return
        while self.sent < len(self.to_send) and self.sent < self.limit:
            n = min(self.chunk, len(self.to_send) - self.sent, self.limit - self.sent)
            data = self.to_send[self.sent : self.sent + n]
            if self.inline:
                self.host.core.receive(Send(self.sock, self.sent, n, data), now)
            else:
                self.host.node.memory.store(self.rings.send(self.sent, n), data)
                self.host.core.receive(Send(self.sock, self.sent, n), now)
            self.sent += n
        if self.then_eof and not self.eof_sent and self.sent == len(self.to_send):
            self.eof_sent = True
            self.host.core.receive(Eof(self.sock, self.sent), now)

    def write(self, data: bytes, now: int) -> None:
        """More to send."""
        self.to_send += data
        self.pump(now)

    def read(self, now: int) -> None:
        """Take what has come, when `reading` is off."""
        self.host.core.receive(Consumed(self.sock, self.told), now)

    def close(self, now: int, *, abort: bool = False) -> None:
        """Close the socket."""
        self.host.core.receive(Close(self.sock, abort), now)


class TcpHost:
    """A node with a tcp core and applications that connect, accept everything, and keep what they receive."""

    def __init__(self, net: Net, name: str, address: bytes, config: TcpConfig, *, seed: int = 1, mtu: int = 1500,
                 gso_max: int = 65_535, fixed_isn: int = -1, inline: bool = False, core_type: Any = CheckedCore,
                 header_prediction: bool = True) -> None:  # fmt: skip
        self.net = net
        self.address = address
        self.inline = inline
        self.node: Node = net.add(name)
        core_config = TcpCoreConfig(
            tcp=config, epoch=seed, own_region=f"own-{name}", isn_secret=bytes([seed] * 32), port_secret=bytes(32),
            fixed_isn=fixed_isn, header_prediction=header_prediction,
        )  # fmt: skip
        self.config = core_config
        self.core = core_type(core_config, random.Random(seed), net.now)
        self.node.add("tcp", self.core)
        self.node.wire("tcp", "gateway", self.message)
        self.sockets: dict[int, Socket] = {}
        self.accepted: list[Socket] = []
        self.results: list[Result] = []
        self.next_id = 1
        self.reply: bytes | None = None  # accepted sockets send this, then EOF
        route = Route(bytes(4), 0, address, mtu, gso_max)
        self.core.receive(Routes([route], [address]), net.now)
        self.core.receive(NeighbourUp("gateway", 77), net.now)

    def message(self, frame: Any, now: int) -> None:
        """What tcp tells."""
        kind = type(frame)
        if kind is Result:
            self.results.append(frame)
            return
        if kind is Incoming:
            made = Socket(self, frame.sock, frame.rings, frame.limit, inline=self.inline,
                          peer=(frame.remote_address, frame.remote_port))  # fmt: skip
            self.sockets[frame.sock] = made
            self.accepted.append(made)
            self.core.receive(Taken(frame.listener, frame.sock), now)
            if self.reply is not None:
                made.to_send, made.then_eof = self.reply, True
                made.pump(now)
            return
        sock = self.sockets.get(frame.sock)
        if sock is None:
            return
        if kind is Connected:
            sock.rings, sock.limit = frame.rings, frame.limit
            sock.port = frame.local_port
            sock.pump(now)
        elif kind is Accepted:
            sock.limit = max(sock.limit, frame.limit)
            sock.pump(now)
        elif kind is Data:
            assert frame.offset == sock.told, "data has a gap"
            sock.received += self.node.memory.read(frame.payload)
            sock.told = len(sock.received)
            if sock.reading:
                self.core.receive(Consumed(frame.sock, sock.told), now)
        elif kind is Eof:
            assert frame.at == sock.told, "end of file is not at the end"
            sock.eof = True
        elif kind is Reset:
            sock.error = frame.errno
        elif kind is Released:
            sock.released = True

    def new_id(self) -> int:
        """A socket id of the gateway."""
        self.next_id += 1
        return self.next_id

    def listen(self, port: int, *, backlog: int = 128, options: dict[str, int] | None = None) -> int:
        """A listening socket."""
        sock = self.new_id()
        self.core.receive(Bind(sock, sock, b"", port, True), self.net.now)
        self.core.receive(Listen(sock, sock, f"own-{self.node.name}", backlog, options or {}), self.net.now)
        return sock

    def connect(self, address: bytes, port: int, data: bytes = b"", *, eof: bool = False,
                options: dict[str, int] | None = None) -> Socket:  # fmt: skip
        """A connection that sends `data`, and then FIN if `eof`."""
        sock = Socket(self, self.new_id(), to_send=data, then_eof=eof, inline=self.inline)
        self.sockets[sock.sock] = sock
        self.core.receive(Connect(sock.sock, f"own-{self.node.name}", address, port, options or {}), self.net.now)
        return sock


def pair(
    one: Impairment, two: Impairment | None = None, *, seed: int = 1, a: TcpConfig | None = None,
    b: TcpConfig | None = None, net: Net | None = None, link: type[Link] = Link, **how: Any,
) -> tuple[Net, TcpHost, TcpHost, Link, Link]:  # fmt: skip
    """Two hosts, 10.0.0.1 and 10.0.0.2, with a link each way."""
    net = net or Net()
    left = TcpHost(net, "a", b"\x0a\0\0\1", a or small_config(), seed=seed, **how)
    right = TcpHost(net, "b", b"\x0a\0\0\2", b or small_config(), seed=seed + 1, **how)
    to_right = link(net, right.core.receive, one, seed * 7 + 1)
    to_left = link(net, left.core.receive, two or one, seed * 7 + 2)
    left.node.wire("tcp", "ip", to_right.send)
    right.node.wire("tcp", "ip", to_left.send)
    return net, left, right, to_right, to_left


def small_config(**changes: Any) -> TcpConfig:
    """Rings of 256 KB, so that they wrap in a short test."""
    values: dict[str, Any] = {
        "send_ring": 262_144, "receive_ring": 262_144, "send_buffer": 262_144, "receive_buffer": 262_144,
        "connections": 64,
    }  # fmt: skip
    values.update(changes)
    return TcpConfig(**values)


def pattern(seed: int, size: int) -> bytes:
    """Bytes that differ with their position."""
    return random.Random(seed).randbytes(size)
