"""Recordings for tests: tcp cores over a link that loses, and a host of gateway, tcp and ip, in virtual time."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from layers.tcp.core import TcpCore
from levelip.config import Config
from levelip.ipc.recorder import Recorded, head_of
from levelip.rpc.messages import Hello, Request
from levelip.tracing.callencoder import Peek
from levelip.tracing.recording import Recording
from simulation.host import Host
from simulation.program import Program
from tests.netsim.net import Impairment, Net
from tests.netsim.tcp_apps import Socket, pair, pattern

LOG = logging.getLogger("test")
WALL = 1_700_000_000_000_000_000  # ns, at the stack's 0
ALL = {"ip": 0, "tcp": 1, "gateway": 2}


def recorded(
    core: Any, config: Any, *, process: str = "tcp", flight: int = 0, now: int = 0, peek: Peek | None = None,
    held_ns: Callable[[], int] = lambda: 0, memory: Path | None = None,
) -> Recorded:  # fmt: skip
    """A core, recorded into memory or not yet. `held_ns`: how long its stack was held so far."""
    whole = Config(tcp=config.tcp) if process == "tcp" and not isinstance(config, dict) else Config()
    head = head_of(process, stack="t", epoch=1, config=whole)
    return Recorded(
        core, config, head, flight=flight, log=LOG, now=now, wall_offset=lambda: WALL + held_ns(), held_ns=held_ns,
        peek=peek, memory=memory,
    )  # fmt: skip


class LoopLike:
    """What the loop does around `outgoing`: it takes the events after it."""

    def __init__(self, core: Recorded) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def outgoing(self, room: dict[str, int]) -> Any:
        output = self._core.outgoing(room)
        self._core.events()
        return output

    def receive(self, frame: Any, now: int) -> None:
        self._core.receive(frame, now)


def transfer(
    path: Path | None, *, size: int = 300_000, seed: int = 1, how: Impairment | None = None, flight: int = 0,
    whole: bool = False, events: bool = True, pause: bool = False, memory: Path | None = None, **more: Any,
) -> tuple[Recorded, Net, Socket]:  # fmt: skip
    """A client that sends `size` bytes is recorded, into `path` if there is one. `pause`: its FIN comes later.
    `memory`: where its flight recorder lies."""
    made: list[Recorded] = []

    def core_type(config: Any, rng: Any, now: int) -> Any:
        core = recorded(TcpCore(config, rng, now), config, flight=flight, now=now, memory=None if made else memory)
        if not made and path is not None:
            core.control(0, "record.start", {"file": str(path), "whole": whole, "events": events}, now)
        made.append(core)
        return LoopLike(core)

    net, a, b, _, _ = pair(how or Impairment(loss=0.02, reorder=0.02), seed=seed, core_type=core_type, **more)
    b.listen(80)
    b.reply = pattern(seed, 1000)
    sock = a.connect(b.address, 80, pattern(seed + 1, size), eof=not pause)
    if pause:
        assert net.run(lambda: sock.eof, seconds=60)
        net.run(seconds=1)
        sock.then_eof = True
        sock.pump(net.now)
    assert net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=1200)
    assert bytes(b.accepted[0].received) == sock.to_send
    return made[0], net, sock


def stop(core: Recorded, path: Path) -> Recording:
    """End a recording into a file and open it."""
    core.control(0, "record.stop", {}, core._now)
    core.close()
    assert core.control(0, "record.status", {}, 0)["writing"]["error"] == ""
    return Recording(path)


def dump(core: Recorded, path: Path) -> Recording:
    """What the flight recorder holds."""
    core.control(0, "record.dump", {"file": str(path)}, core._now)
    core.close()
    assert core.control(0, "record.status", {}, 0)["writing"]["error"] == ""
    return Recording(path)


def host_recordings(directory: Path, seed: int, steps: int = 120) -> dict[str, Recording]:
    """A host whose client opens sockets, listens, connects, pings, sends; whose network answers with noise. Each of
    its cores is recorded into `directory`."""
    host = Host(address="10.0.0.2/24", gateway="10.0.0.1", seed=seed)
    host.events()
    cores = record_host(host, directory)
    rng = random.Random(seed)
    _live(host, rng, steps)
    return {name: stop(core, directory / f"{name}.rec") for name, core in cores.items()}


def record_host(host: Host, directory: Path) -> dict[str, Recorded]:
    """Its cores, recorded into `directory` from here on."""
    cores = {}
    configs = {"ip": host.ip.config, "tcp": host.tcp._ctx.config, "gateway": host.gateway.config}
    for name in ALL:
        core = recorded(host.cores[name], configs[name], process=name, now=host.now)
        core.control(0, "record.start", {"file": str(directory / f"{name}.rec")}, host.now)
        cores[name] = core
        host.node.cores[name] = host.cores[name] = LoopLike(core)
    host.ip, host.tcp, host.gateway = (LoopLike(cores[name]) for name in ALL)  # type: ignore[assignment]
    host.node.wire("ip", "tcp", cores["tcp"].receive)
    host.node.wire("tcp", "ip", cores["ip"].receive)
    host.node.wire("tcp", "gateway", cores["gateway"].receive)
    host.node.wire("gateway", "tcp", cores["tcp"].receive)
    return cores


def _live(host: Host, rng: random.Random, steps: int) -> None:
    sockets: list[int] = []
    sent: list[Any] = []
    host.on_packet = lambda packet, _now: sent.append(packet)

    def message(message: Any) -> None:
        sock = getattr(message, "data", {}).get("sock") if hasattr(message, "data") else None
        if sock:
            sockets.append(sock)

    host.on_message = message
    peer = b"client"
    host.client(peer, Hello(1, "test"))
    for number in range(1, steps):
        match rng.randrange(8):
            case 7:
                setting = rng.choice(("tcp.delayed_ack_ms", "tcp.syn_retries", "ip.ttl", "ip.icmp_rate_per_s"))
                host.set(setting, rng.randrange(1, 30))
            case 0:
                host.client(peer, Request(number, "socket", 0, {}))
            case 1 if sockets:
                sock = rng.choice(sockets)
                host.client(peer, Request(number, "bind", sock, {"address": b"", "port": rng.choice((0, 80, 81))}))
                host.client(peer, Request(number + 1000, "listen", sock, {"backlog": 4}))
            case 2 if sockets:
                where = {"address": b"\x0a\0\0\1", "port": 80, "nonblocking": True}
                host.client(peer, Request(number, "connect", rng.choice(sockets), where))
            case 3 if sent:
                _noise(host, rng, rng.choice(sent))
            case 4:
                host.ip.control(number, "ping", {"dst": "10.0.0.1"}, host.now)
                host.flush()
            case 5 if sockets:
                host.client(peer, Request(number, "close", rng.choice(sockets), {}))
            case _:
                host.net.advance(host.now + rng.randrange(1, 2_000_000_000))


def _noise(host: Host, rng: random.Random, packet: Any) -> None:
    """A packet of ours turned round, with some bits of its transport header changed: what is right is refused, too."""
    data = bytearray(packet.head + (packet.payload if isinstance(packet.payload, bytes) else b""))
    data[12:16], data[16:20] = data[16:20], data[12:16]
    if len(data) >= 24 and data[9] == 6:
        data[20:22], data[22:24] = data[22:24], data[20:22]
        data[33] = rng.choice((0x02, 0x12, 0x10, 0x14, 0x11))
    data[rng.randrange(20, len(data))] ^= 1 << rng.randrange(8)
    host.send(bytes(data), header=len(data))


DELAY = 10_000_000  # ns each way


def host_upload(directory: Path, size: int) -> dict[str, Recording]:
    """A program of one host sends `size` bytes to one of another, over a path that loses nothing; the first host's
    gateway, tcp and ip are recorded."""
    near, far = Host(address="10.0.0.1/24", seed=3), Host(address="10.0.0.2/24", seed=4)
    far.net.now = near.net.now = max(near.net.now, far.net.now)
    cores = record_host(near, directory)

    def carry(one: Host, other: Host) -> None:
        def arrive(packet: Any, now: int) -> None:
            other.net.now = max(other.net.now, now)
            other.ip.receive(packet, now)

        def take(packet: Any, now: int) -> None:
            payload = one.memory.read(packet.payload)
            copy = msgspec.structs.replace(packet, payload=other.memory.pool(payload), next_hop=b"", checksum=2)
            other.net.later(now + DELAY, arrive, copy)

        one.on_packet = take

    carry(near, far)
    carry(far, near)
    client, server = Program(near), Program(far)
    calls = [_serve(server, size), _send(client, size)]
    for _ in range(100_000):
        for call in list(calls):
            try:
                next(call)
            except StopIteration:
                calls.remove(call)
        times = [at for host in (near, far) if (at := host.net.next_event()) is not None]
        if not calls or not times:
            break
        for host in (near, far):
            host.net.step(max(min(times), host.net.now))
    assert not calls
    return {name: stop(core, directory / f"{name}.rec") for name, core in cores.items()}


def _send(program: Program, size: int) -> Iterator[None]:
    made = yield from program.socket(2, 1, 0)
    program.fds[3] = made.data
    assert (yield from program.connect(3, b"\x0a\0\0\2", 80)).value == 0
    assert (yield from program.send(3, pattern(9, size))).value == size
    assert (yield from program.close(3)).value == 0


def _serve(program: Program, size: int) -> Iterator[None]:
    made = yield from program.socket(2, 1, 0)
    program.fds[3] = made.data
    assert (yield from program.bind(3, b"", 80)).value == 0
    assert (yield from program.listen(3, 5)).value == 0
    made = yield from program.accept(3)
    program.fds[4] = made.data[0]
    got = 0
    while part := (yield from program.receive(4, 65_536)).value:
        got += part
    assert got == size
    assert (yield from program.close(4)).value == 0


def lossy_upload(path: Path) -> Path:
    """A recording of an upload with losses, in `path`."""
    core, _, _ = transfer(path, size=200_000, how=Impairment(loss=0.03), seed=5)
    stop(core, path)
    return path
