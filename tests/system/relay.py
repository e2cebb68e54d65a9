"""An impaired path between two network interfaces: `python -m tests.system.relay LEFT RIGHT`, in their namespace.

Stands in for netem, which many kernels lack. Frames are read from each interface's packet ring (TPACKET_V2), where
the kernel has noted when they came, meet what tests/system/impair.py makes of them, and leave at their instant by the
other interface. Since rate and delay count from the kernel's time stamps, a relay that is late to look does not slow
the path down: a frame is late only if the relay is not running when it is due, which `stats` tells.

Super-segments must not reach it: turn segmentation and checksum offload off at the far ends (benchmarks/offload.py).

Requests are lines of JSON on standard input, answers such on standard output:
["set", {"right": {...}, "left": {...}}]  start anew with these Impairments, by the interface that frames leave by
["stats", {}]                             counts of both directions, and how late frames left
It ends with its input.
"""

from __future__ import annotations

import ctypes
import dataclasses
import fcntl
import heapq
import json
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from tests.system.impair import Impairment, Line

# linux/if_packet.h, linux/if_ether.h, linux/socket.h
_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _PACKET_QDISC_BYPASS, _PACKET_IGNORE_OUTGOING = 5, 6, 10, 20, 23
_TPACKET_V2 = 1
_SIOCGIFMTU = 0x8921  # linux/sockios.h
_USER = 1  # TP_STATUS_USER: the frame is ours
_HEADER = struct.Struct("=IIIHHII")  # tpacket2_hdr: status, len, snaplen, mac, net, sec, nsec
_STATUS = struct.Struct("=I")
_SLOTS = 4096
_BLOCK = 1 << 17
_NS = 1_000_000_000
GRAIN_NS = 200_000
"""While frames are under way, how long the relay sleeps at most between two looks at its rings: at 100 Mbit/s two
full packets, which then leave together."""
_REQUESTS_NS = 5_000_000  # how often requests are looked for then
_BATCH = 256  # frames of one look at a ring
_LATENESSES = 100_000  # kept for the percentiles
_SNDBUF = 8 << 20


class Ring:
    """A packet socket on one interface: frames with the instant at which they came, and a way out."""

    def __init__(self, device: str) -> None:
        self.name = device
        mtu = _mtu(device)
        slot = 2048
        while slot < mtu + 256:
            slot *= 2
        self._slot = slot
        count = max(_BLOCK // slot, _SLOTS * 2048 // slot)
        self._count = count // (_BLOCK // slot) * (_BLOCK // slot)
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SNDBUF)
        blocks = self._count * slot // _BLOCK
        request = struct.pack("=IIII", _BLOCK, blocks, slot, self._count)
        self.sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        self._map = mmap.mmap(self.sock.fileno(), blocks * _BLOCK)
        self._view = memoryview(self._map)
        self.sock.bind((device, _ETH_P_ALL))
        self.sock.setblocking(False)
        self._at = 0
        self.refused = 0

    def frames(self) -> list[tuple[int, bytes]]:
        """(CLOCK_REALTIME ns, frame) of what has come, at most _BATCH."""
        out = []
        view, slot, at = self._view, self._slot, self._at
        for _ in range(_BATCH):
            status, length, kept, mac, _, sec, nsec = _HEADER.unpack_from(view, at)
            if not status & _USER:
                break
            if kept == length:
                out.append((sec * _NS + nsec, bytes(view[at + mac : at + mac + length])))
            _STATUS.pack_into(view, at, 0)
            at += slot
            if at == self._count * slot:
                at = 0
        self._at = at
        return out

    def send(self, frame: bytes) -> None:
        """Put a frame out; what the device refuses is counted."""
        try:
            self.sock.send(frame)
        except OSError:
            self.refused += 1

    def dropped(self) -> int:
        """Frames that found the ring full, since this was last asked."""
        _, drops = struct.unpack("=II", self.sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(drops)


class Way:
    """One direction: frames that come by one interface and leave by the other."""

    def __init__(self, source: Ring, target: Ring) -> None:
        self.source = source
        self.target = target
        self.line = Line(Impairment(), target.name)
        self.latest = 0
        """When the last frame came: no later one came before it, whatever is made of the time of day."""

    def start(self, impairment: Impairment, name: str) -> None:
        """Anew: packets are numbered from 0."""
        self.line = Line(impairment, name)


class Relay:
    """Both directions, "right" (left to right) and "left"."""

    def __init__(self, left: str, right: str) -> None:
        rings = Ring(left), Ring(right)
        self.rings = rings
        self.ways = {"right": Way(rings[0], rings[1]), "left": Way(rings[1], rings[0])}
        self._heap: list[tuple[int, int, Ring, bytes]] = []
        self._order = 0
        self._lateness: list[int] = []
        self._latest = 0
        self._sent = 0

    def run(self) -> None:
        """Until the end of standard input."""
        waiting = [*(ring.sock for ring in self.rings), sys.stdin.fileno()]
        clock = time.monotonic_ns
        asked = clock()
        pending = b""
        while True:
            busy = self._take()
            now = clock()
            self._send(now)
            if not self._heap and not busy:
                select.select(waiting, [], [])
            if now - asked > _REQUESTS_NS or not self._heap:
                asked = now
                if select.select([0], [], [], 0)[0]:
                    data = os.read(0, 65_536)
                    if not data:
                        return
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        self._answer(line)
            if self._heap:
                pause = min(self._heap[0][0] - clock(), GRAIN_NS)
                time.sleep(max(pause, GRAIN_NS // 4) / _NS)

    def _take(self) -> bool:
        """Look at both rings; whether one had more than a look takes."""
        busy = False
        for way in self.ways.values():
            frames = way.source.frames()
            if not frames:
                continue
            busy = busy or len(frames) == _BATCH
            ahead = _time_of_day_ahead()
            now = time.monotonic_ns()
            line, target, heap, order = way.line, way.target, self._heap, self._order
            for stamp, frame in frames:
                arrival = way.latest = max(way.latest, min(stamp - ahead, now))
                for departure, piece in line.take(frame, arrival):
                    order += 1
                    heapq.heappush(heap, (departure, order, target, piece))
                while line.errors:
                    order += 1
                    heapq.heappush(heap, (arrival, order, way.source, line.errors.pop()))
            self._order = order
        return busy

    def _send(self, now: int) -> None:
        """What is due."""
        heap, lateness = self._heap, self._lateness
        while heap and heap[0][0] <= now:
            departure, _, target, frame = heapq.heappop(heap)
            target.send(frame)
            late = now - departure
            self._latest = max(self._latest, late)
            if len(lateness) < _LATENESSES:
                lateness.append(late)
            else:
                lateness[self._sent % _LATENESSES] = late
            self._sent += 1

    def _answer(self, line: bytes) -> None:
        try:
            name, args = json.loads(line)
            answer: dict[str, Any] = {"ok": getattr(self, f"do_{name}")(**args)}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        os.write(1, json.dumps(answer).encode() + b"\n")

    def do_set(self, **ways: dict[str, Any]) -> None:
        """Start both directions anew; one that is not named is a plain cable. Frames under way still arrive."""
        for name, way in self.ways.items():
            way.start(Impairment(**ways.get(name, {})), name)
        for ring in self.rings:
            ring.dropped()
            ring.refused = 0
        self._lateness.clear()
        self._latest = self._sent = 0

    def do_stats(self) -> dict[str, Any]:
        """Counts since `set`."""
        late = sorted(self._lateness)
        at = (lambda share: late[min(len(late) - 1, int(share * len(late)))] / 1e6) if late else lambda share: 0.0
        return {
            **{name: dataclasses.asdict(way.line.counts) for name, way in self.ways.items()},
            "ring_full": sum(ring.dropped() for ring in self.rings),
            "refused": sum(ring.refused for ring in self.rings),
            "late_ms": {"p50": at(0.5), "p99": at(0.99), "max": self._latest / 1e6},
            "cpu_s": time.process_time(),
        }


def _time_of_day_ahead() -> int:
    """ns by which CLOCK_REALTIME, of the kernel's time stamps, is ahead of CLOCK_MONOTONIC, which nobody sets; rather
    too few than too many, so that no frame is early."""
    return max(time.time_ns() - time.monotonic_ns() for _ in range(3))


def _mtu(device: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe, _SIOCGIFMTU, struct.pack("16si20x", device.encode(), 0))
    mtu: int = struct.unpack("16si20x", answer)[1]
    return mtu


def be_prompt(priority: int = 1) -> str:
    """Run before others do, and wake when asked to; how far this machine lets us. `priority` is SCHED_RR's: of equals
    one that has much to do keeps the others waiting for 100 ms (sched(7))."""
    pr_set_timerslack = 29  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_timerslack, 1000, 0, 0, 0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
        return "real time"
    except PermissionError:
        try:
            os.nice(-10)
            return "nice -10"
        except PermissionError:
            return "as any process"


def main() -> None:
    """Say that it stands, and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is its starter's, who closes our input
    relay = Relay(sys.argv[1], sys.argv[2])
    # a cable does not wait for the hosts at its ends, who may be in real time too (benchmarks/goodput.py)
    os.write(1, json.dumps({"ok": be_prompt(2)}).encode() + b"\n")
    relay.run()


if __name__ == "__main__":
    main()
