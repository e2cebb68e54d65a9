"""Links for a network in virtual time (simulation/net.py): they lose, repeat, reorder and corrupt.

`Link` carries Segments between two tcp cores; whoever has ip or link cores wires them between and writes a link for
their frames in the same way.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from levelip.frames.packet import Checksum, Segment, TransportToIp
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.tcp import CWR, FIN, PSH
from simulation.net import MS, SECOND, Net, Node
from simulation.net import Memory as FakeMemory

__all__ = [
    "MS",
    "SECOND",
    "FakeMemory",
    "Impairment",
    "Link",
    "Net",
    "Node",
    "check_frame",
    "complete_checksum",
    "corrupt",
    "split_segment",
]


def check_frame(frame: Any) -> None:
    """A frame that a core puts out is of its types, so that it comes out at the other end of a pipe as it went in."""
    plain = msgspec.to_builtins(frame, builtin_types=(bytes,))
    assert msgspec.convert(plain, type(frame), builtin_types=(bytes,)) == frame, frame


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

    def send(self, segment: TransportToIp, now: int) -> None:
        """Take a segment; what becomes of its packets is drawn from the seed. What is said to ip alone ends here."""
        if not isinstance(segment, Segment):
            return
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
