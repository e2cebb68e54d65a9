"""A bottleneck in virtual time: a rate, a delay, a drop-tail queue, shared by whoever sends over it; and samples of the
congestion windows of those who do.

A packet's place in the queue is known when it comes, as the queue is served at a constant rate: it waits until all
before it have left. Above `mark_above` bytes of queue a packet that is ECT is marked (CE) in place of what a queue
that is full does to all: drop it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from levelip.config import TcpConfig
from levelip.frames.packet import Segment
from tests.netsim.net import MS, SECOND, Impairment, Link, Net, split_segment
from tests.netsim.tcp_apps import Socket, TcpHost

HEADERS = 20 + 14 + 24  # bytes of a packet beside its segment: IPv4, Ethernet, and what stands between two frames
ECT_0, CE = 2, 3


class Bottleneck:
    """One direction. `routes`: where packets go, by destination address."""

    def __init__(self, net: Net, *, rate: int, delay: int, queue: int, mark_above: int = -1) -> None:
        self.net = net
        self.rate = rate  # bits a second
        self.delay = delay  # ns
        self.queue = queue  # bytes
        self.mark_above = mark_above
        self.routes: dict[bytes, Callable[[Any, int], None]] = {}
        self.free_at = 0
        self.carried = 0
        self.dropped = 0
        self.marked = 0
        self.drops: list[tuple[int, bytes]] = []

    def send(self, segment: Segment, now: int) -> None:
        """Take a segment, cut to packets. What is said to ip alone ends here."""
        if not isinstance(segment, Segment):
            return
        payload = self.net.memory.read(segment.payload)
        for head, data in split_segment(segment, payload):
            self._packet(msgspec.structs.replace(segment, head=head, payload=data, gso_size=0), now)

    def _packet(self, packet: Segment, now: int) -> None:
        assert isinstance(packet.payload, bytes)
        size = len(packet.head) + len(packet.payload) + HEADERS
        waiting = max(self.free_at - now, 0) * self.rate // (8 * SECOND)
        if waiting + size > self.queue:
            self.dropped += 1
            self.drops.append((now, packet.src))
            return
        if 0 <= self.mark_above < waiting and packet.tos & CE == ECT_0:
            self.marked += 1
            packet.tos |= CE
        self.free_at = max(self.free_at, now) + size * 8 * SECOND // self.rate
        self.carried += len(packet.payload)
        packet.payload = self.net.memory.pool(packet.payload)
        self.net.later(self.free_at + self.delay, self.routes[packet.dst], packet)


@dataclass
class Flow:
    """One sender and what was seen of it: instants in seconds since the start, sizes in bytes."""

    host: TcpHost
    sock: Socket
    times: list[float] = field(default_factory=list)
    cwnd: list[int] = field(default_factory=list)
    ssthresh: list[int] = field(default_factory=list)
    acked: list[int] = field(default_factory=list)

    def look(self, now: float) -> None:
        """Take one sample."""
        for conn in self.host.core._ctx.sockets.values():
            self.times.append(now)
            self.cwnd.append(conn.congestion.cwnd)
            self.ssthresh.append(conn.congestion.ssthresh)
            self.acked.append(max(conn.tx.snd_una, 0))


class Path:
    """Senders that share one bottleneck toward one receiver; the way back is wide."""

    def __init__(
        self, configs: list[TcpConfig], *, rate: int, rtt_ms: float, queue: int, mark_above: int = -1, seed: int = 1,
        gso_max: int = 65_535,
    ) -> None:  # fmt: skip
        self.net = Net()
        self.start = self.net.now
        delay = int(rtt_ms * MS) // 2
        self.bottleneck = Bottleneck(self.net, rate=rate, delay=delay, queue=queue, mark_above=mark_above)
        self.receiver = TcpHost(self.net, "r", b"\x0a\0\0\x64", roomy(), seed=seed)
        self.receiver.listen(80)
        self.bottleneck.routes[self.receiver.address] = self.receiver.core.receive
        back: dict[bytes, Link] = {}
        self.flows: list[Flow] = []
        for number, config in enumerate(configs, 1):
            address = bytes([10, 0, 0, number])
            host = TcpHost(self.net, f"s{number}", address, config, seed=seed + number, gso_max=gso_max)
            host.node.wire("tcp", "ip", self.bottleneck.send)
            back[address] = Link(self.net, host.core.receive, Impairment(delay=delay, gap=0), seed * 7 + number)
            self.flows.append(Flow(host, Socket(host, 0)))
        self.receiver.node.wire("tcp", "ip", lambda segment, now: back[segment.dst].send(segment, now))

    def begin(self, number: int, size: int) -> None:
        """Flow `number` sends `size` bytes of nothing in particular."""
        flow = self.flows[number]
        flow.sock = flow.host.connect(self.receiver.address, 80, bytes(size))

    def run(self, seconds: float, *, every_ms: float = 10) -> None:
        """Let time pass; samples at even intervals."""
        end = self.net.now + int(seconds * SECOND)
        while self.net.now < end:
            at = min(self.net.now + int(every_ms * MS), end)
            self.net.run(seconds=(at - self.net.now) / SECOND)
            self.net.now = at
            for flow in self.flows:
                flow.look((at - self.start) / SECOND)

    def acked(self, number: int) -> int:
        """Bytes that the receiver of flow `number` has acknowledged."""
        return self.flows[number].acked[-1]


def roomy(**changes: Any) -> TcpConfig:
    """Buffers beyond any window here."""
    values: dict[str, Any] = {
        "send_ring": 1 << 22, "receive_ring": 1 << 22, "send_buffer": 1 << 22, "receive_buffer": 1 << 22,
        "connections": 8,
    }  # fmt: skip
    values.update(changes)
    return TcpConfig(**values)
