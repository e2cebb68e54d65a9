"""A network in virtual time: cores wired to each other, a memory that stores bytes, links that lose them.

A `Node` is one host: cores by name, and where each core's ports lead. Output on "memory" is carried out on the
network's memory, all else goes to the function that `wire` named for (core, port). A `Net` has the clock: it
delivers what is due, runs timers, flushes, until a condition holds or the time is up. `Link` carries Segments between
two tcp cores; whoever has ip or link cores wires them between and writes a link for their frames in the same way.
"""

from __future__ import annotations

import heapq
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from levelip.frames.packet import Checksum, Segment
from levelip.rpc.place import INLINE_LIMIT, Payload, Place
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.tcp import CWR, FIN, PSH

MS = 1_000_000
SECOND = 1_000_000_000


class FakeMemory:
    """Every ring and pool slot is a bytearray of its own, found by region and base."""

    def __init__(self) -> None:
        self.places: dict[tuple[str, int], bytearray] = {}
        self.pool_slots = 0

    def _bytes(self, place: Place) -> bytearray:
        held = self.places.get((place.region, place.base))
        if held is None:
            held = self.places[place.region, place.base] = bytearray(place.size)
        assert len(held) == place.size, "one base, two sizes"
        assert 0 <= place.length <= place.size
        return held

    def read(self, payload: Payload) -> bytes:
        """The bytes of a payload, wherever it lies."""
        if not isinstance(payload, Place):
            return bytes(payload)
        held = self._bytes(payload)
        at = payload.start % payload.size
        first = held[at : at + payload.length]
        return bytes(first + held[: payload.length - len(first)])

    def store(self, place: Place, payload: Payload) -> None:
        """Copy a payload into a place of the same length."""
        data = self.read(payload)
        assert len(data) == place.length, f"{len(data)} bytes into {place}"
        held = self._bytes(place)
        at = place.start % place.size
        first = min(len(data), place.size - at)
        held[at : at + first] = data[:first]
        held[: len(data) - first] = data[first:]

    def pool(self, data: bytes) -> Payload:
        """What link would hand up: short payloads inline, long ones in a slot of the device pool."""
        if len(data) <= INLINE_LIMIT:
            return data
        self.pool_slots += 1
        place = Place("pool", (self.pool_slots % 1024) * 65_536, 65_536, 0, len(data), self.pool_slots)
        self.store(place, data)
        return place


class Node:
    """One host."""

    def __init__(self, name: str, memory: FakeMemory) -> None:
        self.name = name
        self.memory = memory
        self.cores: dict[str, Any] = {}
        self.wires: dict[tuple[str, str], Callable[[Any, int], None]] = {}
        self.room: dict[str, dict[str, int]] = {}

    def add(self, name: str, core: Any) -> None:
        """A core of this host."""
        self.cores[name] = core

    def wire(self, core: str, port: str, to: Callable[[Any, int], None]) -> None:
        """What `core` puts out on `port` is given to `to`."""
        self.wires[core, port] = to

    def flush(self, now: int) -> None:
        """Until no core has anything left to say; bounded."""
        for _ in range(10_000):
            quiet = True
            for name, core in self.cores.items():
                output = core.outgoing(self.room.get(name, {}))
                for port, frame in output:
                    quiet = False
                    if port == "memory":
                        self.memory.store(frame.place, frame.payload)
                for port, frame in output:
                    if port != "memory":
                        self.wires[name, port](frame, now)
            if quiet:
                return
        raise AssertionError(f"{self.name} never comes to rest")


class Net:
    """Clock, nodes and what is under way."""

    def __init__(self) -> None:
        self.now = 10 * SECOND
        self.memory = FakeMemory()
        self.nodes: list[Node] = []
        self._under_way: list[tuple[int, int, Callable[[Any, int], None], Any]] = []
        self._count = 0

    def add(self, name: str) -> Node:
        """A new host."""
        node = Node(name, self.memory)
        self.nodes.append(node)
        return node

    def later(self, at: int, to: Callable[[Any, int], None], frame: Any) -> None:
        """Give `frame` to `to` at instant `at`."""
        self._count += 1
        heapq.heappush(self._under_way, (at, self._count, to, frame))

    def next_event(self) -> int | None:
        """When something happens next."""
        cores = [core for node in self.nodes for core in node.cores.values()]
        times = [timer for core in cores if (timer := core.next_timer()) is not None]
        if self._under_way:
            times.append(self._under_way[0][0])
        return min(times, default=None)

    def run(self, until: Callable[[], bool] | None = None, *, seconds: float = 60, steps: int = 400_000) -> bool:
        """Go on until the condition holds (True), all is quiet, or the time or the steps are used up (False)."""
        deadline = self.now + int(seconds * SECOND)
        for node in self.nodes:
            node.flush(self.now)
        for _ in range(steps):
            if until is not None and until():
                return True
            at = self.next_event()
            if at is None or at > deadline:
                self.now = deadline if at is not None else self.now
                return until is None
            self.now = max(self.now, at)
            while self._under_way and self._under_way[0][0] <= self.now:
                _, _, to, frame = heapq.heappop(self._under_way)
                to(frame, self.now)
            for node in self.nodes:
                for core in node.cores.values():
                    due = core.next_timer()
                    if due is not None and due <= self.now:
                        core.handle_timer(self.now)
                node.flush(self.now)
        raise AssertionError(f"no end after {steps} steps")


@dataclass
class Impairment:
    """What a link does to packets; probabilities from 0 to 1, times in ns."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay: int = 1 * MS
    jitter: int = 0
    split: bool = True  # cut super-segments to packets, as a device without offload would
    gap: int = 1_000  # ns between packets of one super-segment


class Link:
    """One direction between two tcp cores, in place of ip and all below it."""

    def __init__(self, net: Net, to: Callable[[Any, int], None], impairment: Impairment, seed: int) -> None:
        self.net = net
        self.to = to
        self.how = impairment
        self.rng = random.Random(seed)
        self.free_at = 0  # when the last packet put on it has left
        self.carried = 0
        self.lost = 0
        self.corrupted = 0
        self.log: list[Segment] | None = None
        self.lose_next: list[Callable[[Segment], bool]] = []  # each matches, and loses, one packet

    def send(self, segment: Segment, now: int) -> None:
        """Take a segment; what becomes of its packets is drawn from the seed."""
        payload = self.net.memory.read(segment.payload)
        pieces = split_segment(segment, payload) if self.how.split else [(segment.head, payload)]
        self.free_at = max(self.free_at, now)
        for head, data in pieces:
            self.free_at += self.how.gap
            self._packet(msgspec.structs.replace(segment, head=head, payload=data), self.free_at + self.how.delay)

    def _packet(self, packet: Segment, at: int) -> None:
        how, rng = self.how, self.rng
        self.carried += 1
        if self.log is not None:
            self.log.append(packet)
        if self.how.split:
            packet.gso_size = 0
        lost, twice, broken, late = (rng.random() for _ in range(4))
        for match in self.lose_next:
            if match(packet):
                self.lose_next.remove(match)
                self.lost += 1
                return
        if lost < how.loss:
            self.lost += 1
            return
        if how.jitter:
            at += rng.randrange(how.jitter)
        if late < how.reorder:
            at += rng.randrange(3 * MS)
        for _ in range(2 if twice < how.duplicate else 1):
            copy = msgspec.structs.replace(packet)
            if broken < how.corrupt:
                copy = corrupt(copy, rng)
                self.corrupted += 1
            copy.payload = self.net.memory.pool(copy.payload) if copy.checksum != Checksum.UNVERIFIED else copy.payload
            self.net.later(at, self.to, copy)


def split_segment(segment: Segment, payload: bytes) -> list[tuple[bytes, bytes]]:
    """The packets of a super-segment, as `levelip.wire.segment.split_tcp` cuts them, without an IP header."""
    size = segment.gso_size
    if not size or len(payload) <= size:
        return [(segment.head, payload)]
    (seq,) = struct.unpack_from(">I", segment.head, 4)
    (word,) = struct.unpack_from(">H", segment.head, 12)
    pieces = []
    for start in range(0, len(payload), size):
        flags = word if start == 0 else word & ~CWR
        if start + size < len(payload):
            flags &= ~(FIN | PSH)
        head = bytearray(segment.head)
        struct.pack_into(">I", head, 4, (seq + start) & 0xFFFFFFFF)
        struct.pack_into(">H", head, 12, flags)
        pieces.append((bytes(head), payload[start : start + size]))
    return pieces


def complete_checksum(segment: Segment) -> Segment:
    """With the checksum as on the wire, for the receiver to verify; the payload must be bytes."""
    assert isinstance(segment.payload, bytes)
    head = bytearray(segment.head)
    head[16:18] = bytes(2)
    length = len(head) + len(segment.payload)
    total = internet_checksum(bytes(head) + segment.payload, pseudo_header_sum(segment.src, segment.dst, 6, length))
    head[16:18] = total.to_bytes(2, "big")
    return msgspec.structs.replace(segment, head=bytes(head), checksum=int(Checksum.UNVERIFIED))


def corrupt(segment: Segment, rng: random.Random) -> Segment:
    """One bit of it flipped after its checksum was completed, as noise on a cable does."""
    whole = complete_checksum(segment)
    data = bytearray(whole.head + whole.payload)  # type: ignore[operator]
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return msgspec.structs.replace(whole, head=bytes(data[: len(whole.head)]), payload=bytes(data[len(whole.head) :]))
