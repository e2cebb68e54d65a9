"""What one packet costs in the ip core, each way, alone in a process: µs a packet.

The best of several runs, as others may use the machine.

    .venv/bin/python -m benchmarks.bench_ip_core [--json]
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable

from layers.ip.config import IpCoreConfig
from layers.ip.core import Core
from levelip.config import IpConfig
from levelip.frames.packet import Checksum, LinkState, Packet, Segment
from levelip.rpc.place import Place
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header, Proto

PACKETS = 20_000
BATCH = 64
RUNS = 5
OWN, PEER = b"\x0a\0\0\2", b"\x0a\0\0\1"
ROOM = {"link": 1 << 30, "tcp": 1 << 30}


def make_core() -> Core:
    core = Core(IpCoreConfig(ip=IpConfig(), epoch=1), random.Random(1), 0)
    core.receive(LinkState(1, "tap0", "tap", True, 1500, 65535, True), 0)
    core.outgoing(ROOM)
    return core


def packet(payload: Place | bytes, tail: bytes, proto: int, checksum: int, gso: int) -> Packet:
    header = Ipv4Header.build(PEER, OWN, proto=proto, payload_length=len(tail) + len(payload))
    return Packet(7, [], False, 0, 1, header.serialize(fill_checksum=True) + tail, payload, checksum, gso)


def segment(payload: Place | bytes, gso: int, dst: bytes = PEER) -> Segment:
    head = b"\x1f\x90" * 16
    return Segment(7, [], False, 0, 0, OWN, dst, Proto.TCP, 64, 0, head, payload, Checksum.PARTIAL, gso)


def run(frame: Packet | Segment) -> float:
    """µs a frame."""
    core = make_core()
    receive, outgoing = core.receive, core.outgoing
    start = time.perf_counter()
    for _ in range(PACKETS // BATCH):
        for _ in range(BATCH):
            receive(frame, 1000)
        made = outgoing(ROOM)
        if len(made) != BATCH:
            raise AssertionError(f"{len(made)} frames came out of {BATCH}")
    return (time.perf_counter() - start) / (PACKETS // BATCH * BATCH) * 1e6


def main() -> None:
    place = Place("region", 0, 1 << 22, 0, 63_712)
    tcp = b"\0\x50\x9c\x40" * 8
    echo = IcmpMessage.echo_request(ident=1, sequence=1, payload=bytes(56)).serialize(fill_checksum=True)
    cases: dict[str, Callable[[], float]] = {
        "up_small_us": lambda: run(packet(b"x" * 64, tcp, Proto.TCP, Checksum.VERIFIED, 0)),
        "up_super_us": lambda: run(packet(place, tcp, Proto.TCP, Checksum.VERIFIED, 1448)),
        "down_small_us": lambda: run(segment(b"x" * 64, 0)),
        "down_super_us": lambda: run(segment(place, 1448)),
        "loopback_us": lambda: run(segment(place, 1448, OWN)),
        "echo_us": lambda: run(packet(b"", echo, Proto.ICMP, Checksum.UNVERIFIED, 0)),
    }
    figures = {name: round(min(case() for _ in range(RUNS)), 2) for name, case in cases.items()}
    if "--json" in sys.argv[1:]:
        print(json.dumps(figures))
    else:
        for name, figure in figures.items():
            print(f"{name:16} {figure:6.2f}")


if __name__ == "__main__":
    main()
