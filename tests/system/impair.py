"""What a bad path does to packets, as a calculator: rate, queue, delay, loss, duplication, reordering, corruption, MTU.

A `Line` is one direction of a path. Frames (Ethernet) go in with the instant of their arrival and come out with that
of their departure; time is integer ns and nothing here reads a clock. What happens to an IPv4 packet follows from the
seed and the packet's number on its line alone, so that two runs with the same seed meet the same losses, whoever
sends. ARP passes, delayed alone.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

ETHERNET = 14  # bytes of the header before an IP packet
_IPV4 = b"\x08\x00"
_MF, _DF, _OFFSET = 0x2000, 0x4000, 0x1FFF  # RFC 791 3.1: flags and fragment offset
_NS = 1_000_000_000
_CHUNK = 4096  # fates drawn at once
_LOSE, _DUP, _REORDER, _CORRUPT = 1, 2, 4, 8
_CE, _ECT = 3, (1, 2)  # RFC 3168 5
_ICMP_QUOTE = 548  # bytes of the packet that an error quotes: RFC 1812 4.3.2.3, whole message below 576
_LEAST_QUEUE = 20_000  # bytes: a queue without delay still takes a burst


@dataclass(frozen=True, slots=True)
class Impairment:
    """One direction. Probabilities from 0 to 1; a rate of 0 has no limit; sizes are bytes of Ethernet frames, but
    `mtu`, which is that of IP packets (0: none)."""

    rate_bps: int = 0
    delay_ms: float = 0.0
    queue: int = 0
    """Drop-tail limit of what waits for the line; 0: the product of rate and twice the delay (one BDP of a symmetric
    path), at least 20,000."""
    loss: float = 0.0
    dup: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    reorder_ms: float = 5.0
    """How long a reordered packet is held back, so that later ones overtake it."""
    mtu: int = 0
    mtu_after: int = 0
    """`mtu` holds once so many bytes have come in: a path that changes in mid-transfer."""
    icmp: bool = True
    """Whether a packet that is too long and must not be fragmented is answered (RFC 1191) or vanishes."""
    mark: int = 0
    """Bytes in the queue beyond which ECN-capable packets are marked (RFC 3168); 0: never."""
    skip: int = 0
    """Packets at the start that meet no fate (a handshake whose loss would cost a second)."""
    seed: int = 1

    @property
    def limit(self) -> int:
        """The queue's limit in bytes."""
        return self.queue or max(_LEAST_QUEUE, int(self.rate_bps * 2 * self.delay_ms / 8000))


class Fates:
    """Which packets are lost, doubled, held back or broken, by number. Each kind has a generator of its own, so that a
    rate changes only its own kind, and a packet that is lost at 1 % is also lost at 3 %."""

    def __init__(self, impairment: Impairment, name: str) -> None:
        rates = {_LOSE: "loss", _DUP: "dup", _REORDER: "reorder", _CORRUPT: "corrupt"}
        self._draws = [
            (flag, getattr(impairment, kind), random.Random(f"{impairment.seed}/{name}/{kind}"))
            for flag, kind in rates.items()
            if getattr(impairment, kind) > 0
        ]
        self._skip = impairment.skip
        self._drawn = bytearray()
        self._bits = random.Random(f"{impairment.seed}/{name}/bit")

    def of(self, number: int) -> int:
        """Flags of a packet; the first is number 0."""
        if not self._draws or number < self._skip:
            return 0
        while number >= len(self._drawn):
            more = bytearray(_CHUNK)
            for flag, rate, rng in self._draws:
                draw = rng.random
                for index in range(_CHUNK):
                    if draw() < rate:
                        more[index] |= flag
            self._drawn += more
        return self._drawn[number]

    def broken(self, frame: bytes) -> bytes:
        """The frame with one bit of its IP packet inverted."""
        bit = self._bits.randrange(ETHERNET * 8, len(frame) * 8)
        copy = bytearray(frame)
        copy[bit >> 3] ^= 1 << (bit & 7)
        return bytes(copy)


@dataclass(slots=True)
class Counts:
    """What a line has done so far."""

    packets: int = 0
    octets: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    overflowed: int = 0
    marked: int = 0
    too_long: int = 0
    fragmented: int = 0
    others: int = 0
    """Frames that are not IPv4."""


@dataclass(slots=True)
class Line:
    """One direction of a path. `name` tells its losses from those of the other direction."""

    impairment: Impairment
    name: str
    counts: Counts = field(default_factory=Counts)
    fates: Fates = field(init=False)
    errors: list[bytes] = field(default_factory=list)
    """ICMP errors that the caller sends back to where the frames come from."""
    _free: int = 0  # when the line will have sent what it was given
    _ns_per_byte: float = field(init=False)
    _delay: int = field(init=False)
    _limit_ns: float = field(init=False)

    def __post_init__(self) -> None:
        given = self.impairment
        self.fates = Fates(given, self.name)
        self._ns_per_byte = 8 * _NS / given.rate_bps if given.rate_bps else 0.0
        self._delay = int(given.delay_ms * 1e6)
        self._limit_ns = given.limit * self._ns_per_byte

    def take(self, frame: bytes, arrival: int) -> list[tuple[int, bytes]]:
        """(departure, frame) of what comes of a frame; empty if nothing does."""
        counts = self.counts
        if frame[12:14] != _IPV4:
            counts.others += 1
            return [(arrival + self._delay, frame)]
        number = counts.packets
        counts.packets = number + 1
        counts.octets += len(frame)
        fate = self.fates.of(number)
        if fate & _LOSE:
            counts.lost += 1
            return []
        given = self.impairment
        if given.mtu and len(frame) - ETHERNET > given.mtu and counts.octets >= given.mtu_after:
            pieces = self._too_long(frame)
        else:
            pieces = [frame]
        out: list[tuple[int, bytes]] = []
        for piece in pieces:
            if fate & _CORRUPT:
                counts.corrupted += 1
                piece = self.fates.broken(piece)
            held = 0
            if fate & _REORDER:
                counts.reordered += 1
                held = int(given.reorder_ms * 1e6)
            self._queue(piece, arrival, held, out)
            if fate & _DUP:
                counts.duplicated += 1
                self._queue(piece, arrival, held, out)
        return out

    def _queue(self, frame: bytes, arrival: int, held: int, out: list[tuple[int, bytes]]) -> None:
        """Put a frame on the line, unless its queue is full: drop-tail, counted in bytes."""
        if not self._ns_per_byte:
            out.append((arrival + self._delay + held, frame))
            return
        waits = max(0, self._free - arrival)
        cost = len(frame) * self._ns_per_byte
        if waits + cost > self._limit_ns:
            self.counts.overflowed += 1
            return
        if self.impairment.mark and waits > self.impairment.mark * self._ns_per_byte:
            frame = self._mark(frame)
        self._free = arrival + int(waits + cost)
        out.append((self._free + self._delay + held, frame))

    def _mark(self, frame: bytes) -> bytes:
        """The frame with Congestion Experienced, if it is ECN-capable."""
        if frame[ETHERNET + 1] & 3 not in _ECT:
            return frame
        self.counts.marked += 1
        copy = bytearray(frame)
        copy[ETHERNET + 1] |= _CE
        _complete(copy, ETHERNET)
        return bytes(copy)

    def _too_long(self, frame: bytes) -> list[bytes]:
        """What a router does with a packet beyond its next MTU."""
        given = self.impairment
        if struct.unpack_from("!H", frame, ETHERNET + 6)[0] & _DF:
            self.counts.too_long += 1
            if given.icmp:
                self.errors.append(fragmentation_needed(frame, given.mtu))
            return []
        self.counts.fragmented += 1
        return fragments(frame, given.mtu)


def fragments(frame: bytes, mtu: int) -> list[bytes]:
    """The IP packet of a frame in fragments of at most `mtu` bytes (RFC 791 3.2); options stay in the first alone."""
    header_len = (frame[ETHERNET] & 15) * 4
    total, _, flags = struct.unpack_from("!HHH", frame, ETHERNET + 2)
    payload = frame[ETHERNET + header_len : ETHERNET + total]
    first = frame[: ETHERNET + header_len]
    rest = bytearray(frame[: ETHERNET + 20])
    rest[ETHERNET] = 0x45
    offset, more = flags & _OFFSET, flags & _MF
    out = []
    at = 0
    while at < len(payload):
        head = bytearray(first if at == 0 else rest)
        room = mtu - (len(head) - ETHERNET)
        piece = payload[at : at + room] if len(payload) - at <= room else payload[at : at + (room & ~7)]
        last = at + len(piece) >= len(payload)
        struct.pack_into("!H", head, ETHERNET + 2, len(head) - ETHERNET + len(piece))
        struct.pack_into("!H", head, ETHERNET + 6, (more if last else _MF) | offset + at // 8)
        _complete(head, ETHERNET)
        out.append(bytes(head) + piece)
        at += len(piece)
    return out


def fragmentation_needed(frame: bytes, mtu: int) -> bytes:
    """The frame back to the sender of `frame`: ICMP type 3 code 4 with the next hop's MTU (RFC 1191 4).

    Its source is the packet's destination: the path has no address of its own.
    """
    quote = frame[ETHERNET : ETHERNET + _ICMP_QUOTE]
    icmp = bytearray(struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quote)
    struct.pack_into("!H", icmp, 2, checksum(icmp))
    source, destination = frame[ETHERNET + 12 : ETHERNET + 16], frame[ETHERNET + 16 : ETHERNET + 20]
    ip = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0xC0, 20 + len(icmp), 0, 0, 64, 1, 0, destination, source))
    _complete(ip, 0)
    return frame[6:12] + frame[:6] + _IPV4 + bytes(ip + icmp)


def checksum(data: bytes | bytearray) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", bytes(data) + bytes(len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _complete(frame: bytearray, at: int) -> None:
    """Write the checksum of the IPv4 header that starts at `at`."""
    header_len = (frame[at] & 15) * 4
    struct.pack_into("!H", frame, at + 10, 0)
    struct.pack_into("!H", frame, at + 10, checksum(frame[at : at + header_len]))
