"""What the tcp core costs by itself, in µs of CPU: one connection in ESTABLISHED, no pipes, nobody listening.

    .venv/bin/python -m benchmarks.bench_tcp_core [--json]

in-order: a 64 KB super-segment comes, is stored and told, its ACK goes out. sent: the application hands over 64 KB, one
super-segment goes out. bare ACK: it is acknowledged. small: 64 bytes come and 64 bytes go back.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import struct
import time
from collections.abc import Callable

from layers.tcp.config import TcpCoreConfig
from layers.tcp.core import TcpCore
from levelip.config import TcpConfig
from levelip.frames.packet import Checksum, Route, Routes, Segment
from levelip.frames.seam import Connect, NeighbourUp
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Send
from levelip.wire.options import TcpOptions, parse_options

OURS, THEIRS = b"\x0a\0\0\2", b"\x0a\0\0\1"
MSS = 1448
CHUNK = 44 * MSS
ROUNDS = 7
BATCH = 2000
_HEAD = struct.Struct(">HHIIHHHHIII")


class Bench:
    """A core with one open connection, and the peer's numbers."""

    def __init__(self) -> None:
        config = TcpCoreConfig(tcp=TcpConfig(initial_window=64), epoch=1)
        self.now = 1_000_000_000
        self.core = TcpCore(config, random.Random(1), self.now)
        self.core.receive(Routes([Route(bytes(4), 0, OURS, 1500, 65_535)], [OURS]), self.now)
        self.core.receive(NeighbourUp("gateway", 1), self.now)
        self.core.receive(Connect(5, "", THEIRS, 80), self.now)
        ((_, syn),) = self.core.outgoing({})
        self.port, _, self.iss = struct.unpack_from(">HHI", syn.head)
        stamps = parse_options(syn.head[20:]).timestamps
        assert stamps is not None
        self.clock = stamps[0] - self.now // 1_000_000  # of its timestamps, which we echo
        options = TcpOptions(mss=1460, wscale=10, sack_permitted=True, timestamps=(1, stamps[0])).serialize()
        head = struct.pack(">HHIIHHHH", 80, self.port, 999, self.iss + 1, (20 + len(options)) << 10 | 0x12, 65535, 0, 0)
        self._give(head + options, b"", 0)
        self.core.outgoing({})
        self.seq, self.ack, self.stamp = 1000, self.iss + 1, 2
        self.received = self.sent = 0

    def _give(self, head: bytes, payload: bytes | Place, gso_size: int) -> None:
        self.core.receive(
            Segment(1, [], False, self.now, 0, THEIRS, OURS, 6, 64, 0, head, payload, int(Checksum.VERIFIED), gso_size),
            self.now,
        )

    def _head(self, flags: int) -> bytes:
        self.now += 10_000
        return _HEAD.pack(80, self.port, self.seq & 0xFFFFFFFF, self.ack & 0xFFFFFFFF, 8 << 12 | flags, 60_000, 0, 0,
                          0x0101080A, self.stamp, (self.clock + self.now // 1_000_000) & 0xFFFFFFFF)  # fmt: skip

    def in_order(self) -> float:
        """64 KB come: until the ACK is out; the application's Consumed is counted too."""
        head, place = self._head(0x10), Place("pool", 0, 65_536, 0, CHUNK)
        began = time.process_time()
        self._give(head, place, MSS)
        out = self.core.outgoing({"ip": 1000, "gateway": 1000})
        self.core.receive(Consumed(5, self.received + CHUNK), self.now)
        took = time.process_time() - began
        assert [port for port, _ in out] == ["memory", "gateway", "ip"], out
        self.seq += CHUNK
        self.received += CHUNK
        return took

    def send(self) -> float:
        """64 KB handed over: until the segment is out."""
        began = time.process_time()
        self.core.receive(Send(5, self.sent, CHUNK), self.now)
        out = self.core.outgoing({"ip": 1000, "gateway": 1000})
        took = time.process_time() - began
        assert len(out) == 1 and len(out[0][1].payload) == CHUNK, out
        self.sent += CHUNK
        self.ack += CHUNK
        return took

    def bare_ack(self) -> float:
        """It is acknowledged: the grant for the application is out."""
        head = self._head(0x10)
        began = time.process_time()
        self._give(head, b"", 0)
        self.core.outgoing({"ip": 1000, "gateway": 1000})
        return time.process_time() - began

    def small(self) -> float:
        """64 bytes come, 64 bytes go back, with the ACK of both."""
        head = self._head(0x18)
        began = time.process_time()
        self._give(head, b"x" * 64, 0)
        self.core.outgoing({"ip": 1000, "gateway": 1000})
        self.received += 64
        self.core.receive(Consumed(5, self.received), self.now)
        self.core.receive(Send(5, self.sent, 64), self.now)
        self.core.outgoing({"ip": 1000, "gateway": 1000})
        took = time.process_time() - began
        self.seq += 64
        self.sent += 64
        self.ack += 64
        return took


def measure(one: Callable[[], float], other: Callable[[], float] | None = None) -> tuple[float, float]:
    """Medians over rounds of the mean of a batch, of two steps that alternate; µs."""
    first, second = [], []
    for _ in range(ROUNDS):
        a = b = 0.0
        for _ in range(BATCH):
            a += one()
            if other is not None:
                b += other()
        first.append(a / BATCH * 1e6)
        second.append(b / BATCH * 1e6)
    return statistics.median(first), statistics.median(second)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    in_order, _ = measure(Bench().in_order)
    bench = Bench()
    for _ in range(200):  # warm
        bench.send()
        bench.bare_ack()
    sent, acked = measure(bench.send, bench.bare_ack)
    small, _ = measure(Bench().small)
    figures = {
        "in_order_64k_us": in_order, "sent_64k_us": sent, "bare_ack_us": acked, "small_exchange_us": small,
    }  # fmt: skip
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:20} {value:7.1f}")


if __name__ == "__main__":
    main()
