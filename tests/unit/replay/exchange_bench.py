"""Recordings of whole connections for packet scripts: both ends send, packets are lost, the loops are late."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from layers.tcp.core import TcpCore
from levelip.frames.packet import IcmpError
from levelip.rpc.stream import Urgent
from levelip.tracing.recording import Recording
from tests.netsim.net import MS, Impairment, Link, Net
from tests.netsim.tcp_apps import Socket, TcpHost, pair, pattern, small_config
from tests.unit.replay.replay_bench import LoopLike, recorded, stop

CE = 3  # RFC 3168 5
MARKED = 0.05  # part of the packets that may be marked


class LateNet(Net):
    """A clock whose hosts look late at what is due, and then at all that has come meanwhile, as a busy loop does."""

    def __init__(self, late: int, seed: int) -> None:
        """`late`: ns at most."""
        super().__init__()
        self._late = late
        self._rng = random.Random(seed)
        self._drawn = (0, 0)  # for what is due then, so much later

    def next_event(self) -> int | None:
        """When they look."""
        at = super().next_event()
        if at is None or not self._late:
            return at
        if self._drawn[0] != at:
            self._drawn = (at, self._rng.randrange(self._late) if self._rng.random() < 0.7 else 0)
        return max(at, self.now) + self._drawn[1]


class MarkingLink(Link):
    """Congestion experienced by some packets that may say so."""

    def _packet(self, packet: Any, at: int) -> None:
        if packet.tos & CE in (1, 2) and self.rng.random() < MARKED:
            packet.tos |= CE
        super()._packet(packet, at)


@dataclass(frozen=True)
class Shape:
    """What happens. `size`, `reply`: bytes each way; `late` in ns; `server`: the end that is recorded; `ends`: how."""

    how: Impairment
    size: int = 60_000
    reply: int = 60_000
    late: int = 1 * MS
    server: bool = False
    slow: bool = False  # programs read now and then, so that windows close
    urgent: bool = False
    marks: bool = False
    connections: int = 1
    ends: str = "shutdown"  # or "close", "abort", at a time of the seed's choice
    config: dict[str, Any] | None = None
    options: dict[str, int] | None = None
    listening: bool = False  # the recording begins when it listens
    told: bool = False  # in the middle a router says that packets are too long, and a setting is changed


LOSSY = Impairment(loss=0.03, reorder=0.03, duplicate=0.02)
SHAPES = {
    "on time": Shape(LOSSY, late=0),
    "late": Shape(LOSSY, late=3 * MS),
    "server": Shape(LOSSY, late=3 * MS, server=True),
    "listening": Shape(LOSSY, server=True, listening=True, options={"nodelay": 1, "rcvbuf": 40_000}),
    "corrupt": Shape(Impairment(loss=0.02, corrupt=0.04)),
    "slow": Shape(Impairment(loss=0.02), slow=True, size=400_000, reply=400_000),
    "ecn": Shape(Impairment(loss=0.01), marks=True, size=200_000, config={"ecn": 1}),
    "abort": Shape(LOSSY, ends="abort"),
    "abort of a server": Shape(LOSSY, ends="abort", server=True),
    "close": Shape(LOSSY, ends="close"),
    "urgent": Shape(LOSSY, urgent=True),
    "super-segments": Shape(Impairment(loss=0.03, split=False), size=300_000),
    "neither SACK nor timestamps": Shape(LOSSY, config={"sack": False, "timestamps": False}),
    "newreno": Shape(Impairment(loss=0.03, delay=20 * MS, jitter=5 * MS), config={"congestion": "newreno"}),
    "options": Shape(LOSSY, options={"nodelay": 1, "keepalive": 1, "rcvbuf": 30_000, "sndbuf": 50_000, "maxseg": 1000}),
    "too long": Shape(LOSSY, told=True, size=200_000),
    "several": Shape(LOSSY, connections=3, size=20_000, reply=20_000),
}


def exchange(path: Path, seed: int, shape: Shape) -> Recording:
    """tcp's recording of one end, in `path`."""
    cores: list[Any] = []

    def core_type(config: Any, rng: Any, now: int) -> Any:
        core = recorded(TcpCore(config, rng, now), config, now=now)
        cores.append(core)
        return LoopLike(core)

    config = small_config(**(shape.config or {}))
    net, a, b, to_right, _ = pair(
        shape.how, seed=seed, core_type=core_type, a=config, b=config, net=LateNet(shape.late, seed),
        link=MarkingLink if shape.marks else Link,
    )  # fmt: skip
    core = cores[shape.server]
    options = shape.options or {}
    if shape.listening:
        b.listen(80, options=options)
    core.control(0, "record.start", {"file": str(path)}, net.now)
    if not shape.listening:
        b.listen(80, options=options)
    b.reply = pattern(seed, shape.reply)
    clients = [a.connect(b.address, 80, pattern(seed, shape.size), options=options) for _ in range(shape.connections)]
    rng = random.Random(seed)
    if shape.told:
        to_right.log = []
        net.run(lambda: len(to_right.log) > 60, seconds=10)
        last = to_right.log[-1]
        core.receive(IcmpError(1, [], 3, 4, 1000, b.address, last.src, last.dst, 6, last.head[:8]), net.now)
        core.set("delayed_ack_ms", 20, net.now)
    if shape.slow:
        _read_slowly(net, clients, b, rng)
    if shape.urgent:
        _mark(net, clients[0], rng)
    if shape.ends == "shutdown":
        net.run(lambda: all(sock.eof for sock in clients), seconds=300)
        for sock in clients:
            sock.then_eof = True
            sock.pump(net.now)
    else:
        net.run(seconds=0.03 + rng.random() * 0.3)
        first = rng.choice([*clients, *b.accepted])
        first.close(net.now, abort=shape.ends == "abort")
    net.run(seconds=100)
    return stop(core, path)


def _read_slowly(net: Net, clients: list[Socket], server: TcpHost, rng: random.Random) -> None:
    """Programs take what has come a fifth of the times that they look, for 10 s."""
    for sock in clients:
        sock.reading = False
    for _ in range(200):
        net.run(seconds=0.05)
        for sock in [*clients, *server.accepted]:
            sock.reading = False
            if rng.random() < 0.2:
                sock.read(net.now)
    for sock in [*clients, *server.accepted]:
        sock.reading = True
        sock.read(net.now)


def _mark(net: Net, sock: Socket, rng: random.Random) -> None:
    """Up to five urgent bytes, once it is connected."""
    for _ in range(5):
        net.run(seconds=0.02 + rng.random() * 0.1)
        if sock.rings is None:
            continue
        sock.host.core.receive(Urgent(sock.sock, len(sock.to_send) + 1), net.now)
        sock.write(b"!", net.now)
