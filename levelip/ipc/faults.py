"""Loss, duplication, reordering, delay, corruption and rate limits on a seam: seeded, so that a run can be repeated.

A gate stands at a border and looks at packets alone; states, routes and errors pass. Unless "frames" is "whole",
super-segments are first cut to wire size, as they would be on a cable. Each packet draws, in this order: loss, dup,
corrupt, reorder, jitter; so the same seed and the same packets meet the same fate. While somebody listens, each thing
that a gate does is an event: a `drop`, or a `fault` with what was done.
"""

from __future__ import annotations

import random
import struct
from typing import Annotated, Any, Literal

import msgspec

from levelip.frames.core import LONGEST_DELAY_NS, ControlError
from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.ipc.delayed import Delayed
from levelip.ipc.memory import MemoryLost
from levelip.ipc.port import Port
from levelip.ipc.runtime import Runtime
from levelip.ipc.tap import packet_facts
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.view import View, view
from levelip.wire.addr import format_address
from levelip.wire.errors import Malformed
from levelip.wire.ethernet import ETHERNET_HEADER_LEN
from levelip.wire.ipv4 import IPV4_HEADER_LEN, Ipv4Header, Proto
from levelip.wire.segment import complete_tcp_checksum, header_length, split_tcp
from levelip.wire.tcp import TCP_HEADER_LEN, flags_text

_QUEUE = 1000  # packets that wait behind a rate limit, as netem's default
_REORDER_NS = 5_000_000  # how long a packet is held back so that later ones overtake it, without a delay
_NUMBERS = struct.Struct(">II")  # sequence and acknowledgment number
_SEAMS = ("link", "link-ip", "ip-tcp", "ip-udp")

Probability = float
Delay = Annotated[int, msgspec.Meta(ge=0, le=LONGEST_DELAY_NS)]


class FaultSettings(msgspec.Struct, forbid_unknown_fields=True):
    """What one gate does; probabilities from 0 to 1, times in ns, rate in bit/s (0: unlimited)."""

    seam: str
    direction: Literal["up", "down", "both"]
    loss: Probability = 0.0
    dup: Probability = 0.0
    reorder: Probability = 0.0
    corrupt: Probability = 0.0
    delay_ns: Delay = 0
    jitter_ns: Delay = 0
    rate_bps: Annotated[int, msgspec.Meta(ge=0)] = 0
    seed: int = 1
    frames: Literal["wire", "whole"] = "wire"


class Teller:
    """What the gates and addons of a process did, as events, since they were taken; made while somebody has
    `interest`."""

    def __init__(self) -> None:
        self.interest = False
        self._events: list[Event] = []

    def take(self) -> list[Event]:
        """Those since the last call."""
        events, self._events = self._events, []
        return events

    def add(self, event: Event) -> None:
        """Tell of something else that was done."""
        if self.interest:
            self._events.append(event)

    def tell(self, gate: FaultGate, frame: Any, now: int, what: str = "", **data: Any) -> None:
        """Something was done to a frame; without `what` it was lost."""
        if not self.interest:
            return
        conn, facts = packet_place(view(frame, gate.seam, gate.way), gate.seam, gate.way)
        data = {**facts, **data}
        if what:
            event = Event(now, "fault", "", frame.id, conn, {"what": what, **data})
        else:
            event = Event(now, "drop", reasons.FAULT_LOSS.name, lost_as(frame, gate.seam, gate.way), conn, data)
        self._events.append(event)


def lost_as(frame: Any, seam: str, way: str) -> int:
    """The id by which a frame that is lost at a seam is known: on its way out of the device nobody saw it."""
    known: int = frame.causes[0] if seam == "link" and way == "down" and frame.causes else frame.id
    return known


def packet_place(seen: View, seam: str, way: str) -> tuple[str, dict[str, Any]]:
    """The connection of a frame, and where it was, with what tells it from others of that connection; its addresses
    where there is none."""
    conn, facts = _facts(seen)
    return conn, {"seam": seam, "way": way, **facts}


def _facts(seen: View) -> tuple[str, dict[str, Any]]:
    at, data = seen.tcp, seen.data
    length = {"length": seen.end - seen.body} if seen.body >= 0 else {}
    if at >= 0 and len(data) >= at + TCP_HEADER_LEN:
        seq, ack = _NUMBERS.unpack_from(data, at + 4)
        return seen.connection(), {"flags": flags_text(data[at + 13]), "seq": seq, "ack": ack, **length}
    if conn := seen.connection():
        return conn, length
    ends = zip(("src", "dst"), packet_facts(seen.frame)[:2], strict=False)
    return "", {name: format_address(end) for name, end in ends if len(end) in (4, 16)} | length


class Faults:
    """All gates of a process, for showing. `teller`: what they did."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._gates: list[FaultGate] = []
        self.teller = Teller()

    def gate(self, port: Port, way: str, args: dict[str, Any]) -> FaultGate:
        """A gate at a port, replacing the one that was there."""
        try:
            settings = msgspec.convert({**args, "direction": way}, FaultSettings)
        except msgspec.ValidationError as error:
            raise ControlError(f"fault.set: {error}") from None
        for name in ("loss", "dup", "reorder", "corrupt"):
            if not 0 <= getattr(settings, name) <= 1:
                raise ControlError(f"fault.set: {name} lies between 0 and 1")
        if settings.seam not in _SEAMS:
            raise ControlError(f"no faults on {settings.seam}: streams between processes lose nothing")
        self._gates = [gate for gate in self._gates if (gate.port, gate.way) != (port.name, way)]
        made = FaultGate(settings, port.name, way, self._runtime, self.teller)
        self._gates.append(made)
        return made

    def forget(self, port: str, way: str) -> None:
        """The gate there was taken away."""
        self._gates = [gate for gate in self._gates if (gate.port, gate.way) != (port, way)]

    def show(self) -> list[dict[str, Any]]:
        """Settings and counts of every gate."""
        return [{**msgspec.to_builtins(gate.settings), **gate.counts} for gate in self._gates]


class FaultGate:
    """One direction of one seam."""

    def __init__(self, settings: FaultSettings, port: str, way: str, runtime: Runtime, teller: Teller) -> None:
        self.settings = settings
        self.seam = settings.seam
        self.port = port
        self.way = way
        self.counts = dict.fromkeys(("packets", "lost", "duplicated", "reordered", "corrupted", "overflowed"), 0)
        self._runtime = runtime
        self._teller = teller
        self._rng = random.Random(f"{settings.seed}/{settings.seam}/{way}")
        self._queue = Delayed()
        self._line_free = 0  # when the rate-limited line has sent what it was given

    def push(self, frames: list[Any], now: int) -> list[Any]:
        """Take frames; those that pass at once."""
        passed: list[Any] = []
        for frame in frames:
            if type(frame) not in (Packet, Segment, DeviceFrame):
                passed.append(frame)
                continue
            for piece in self._pieces(frame):
                self._meet(piece, now, passed)
        return passed

    def due(self, now: int) -> list[Any]:
        """Frames whose delay is over."""
        return self._queue.due(now)

    def next_timer(self) -> int | None:
        """When `due` has something."""
        return self._queue.next_timer()

    def drain(self) -> list[Any]:
        """Everything that waits, at once (the gate is taken away)."""
        return self._queue.drain()

    def _meet(self, frame: Any, now: int, passed: list[Any]) -> None:
        settings, rng, counts, teller = self.settings, self._rng, self.counts, self._teller
        counts["packets"] += 1
        lost = rng.random() < settings.loss
        copies = 2 if rng.random() < settings.dup else 1
        corrupted = rng.random() < settings.corrupt
        reordered = rng.random() < settings.reorder
        jitter = rng.randint(-settings.jitter_ns, settings.jitter_ns) if settings.jitter_ns else 0
        if lost:
            counts["lost"] += 1
            self._runtime.count(reasons.FAULT_LOSS.counter)
            teller.tell(self, frame, now)
            return
        if copies > 1:
            counts["duplicated"] += 1
            teller.tell(self, frame, now, "dup")
        if corrupted:
            counts["corrupted"] += 1
            teller.tell(self, frame, now, "corrupt")
            frame = _corrupt(frame, rng)
        for number in range(copies):
            at = now + max(0, settings.delay_ns + jitter)
            if reordered:
                counts["reordered"] += 1
                at += max(_REORDER_NS, settings.delay_ns // 4)
            if settings.rate_bps:
                if len(self._queue) >= _QUEUE:
                    counts["overflowed"] += 1
                    self._runtime.count(reasons.FAULT_LOSS.counter)
                    teller.tell(self, frame, now, why=f"{_QUEUE} packets wait for the rate limit")
                    continue
                bits = 8 * (len(frame.head) + len(frame.payload))
                self._line_free = max(now, self._line_free) + bits * 1_000_000_000 // settings.rate_bps
                at += self._line_free - now
            if at <= now and not self._queue:
                passed.append(frame)
            else:
                if at > now and not number:
                    teller.tell(self, frame, now, "reorder" if reordered else "delay", ns=at - now)
                self._queue.add(at, frame)

    def _pieces(self, frame: Any) -> list[Any]:
        """The frame as packets of wire size, their bytes inline (a delayed frame must not keep a pool slot)."""
        if isinstance(frame.payload, Place):
            place = frame.payload
            try:
                frame = msgspec.structs.replace(frame, payload=self._runtime.memory.read(place))
            except MemoryLost:
                self._runtime.count(reasons.MEMORY_LOST.counter)
                return []
            self._runtime.memory.free(place)
        if self.settings.frames == "whole":
            return [frame]
        try:
            return split_frame(frame)
        except Malformed:
            return [frame]


def _whole(frame: Any) -> tuple[bytes, bytes, bytes]:
    """(what stands before the IP header, IP and TCP headers, payload) of a TCP frame; Malformed for another.

    A Segment gets an IP header for the time being, which `_back` takes off again.
    """
    data = frame.head + frame.payload
    prefix = b""
    if isinstance(frame, Segment):
        if frame.proto != Proto.TCP:
            raise Malformed("segment", "not_tcp", 0)
        data = _pseudo_ip(frame, len(data)) + data
    elif isinstance(frame, DeviceFrame) and data[12:14] == b"\x08\x00":
        prefix, data = data[:ETHERNET_HEADER_LEN], data[ETHERNET_HEADER_LEN:]
    length = header_length(data)
    if length is None:
        raise Malformed("segment", "not_ipv4_tcp", 0)
    return prefix, data[:length], data[length:]


def _pseudo_ip(segment: Segment, length: int) -> bytes:
    return Ipv4Header.build(segment.src, segment.dst, proto=Proto.TCP, payload_length=length).serialize()


def _back(frame: Any, prefix: bytes, head: bytes, payload: bytes, **changes: Any) -> Any:
    if isinstance(frame, Segment):
        head = head[IPV4_HEADER_LEN:]
    return msgspec.structs.replace(frame, head=prefix + head, payload=payload, **changes)


def gso_size(frame: Any) -> int:
    """The size of the pieces that a super-segment stands for, or 0."""
    if isinstance(frame, DeviceFrame):
        return int.from_bytes(frame.vnet[4:6], "little") if len(frame.vnet) >= 10 and frame.vnet[1] else 0
    size: int = frame.gso_size
    return size


def split_frame(frame: Any) -> list[Any]:
    """A super-segment as the packets that it stands for; another frame as it is."""
    size = gso_size(frame)
    if not size:
        return [frame]
    prefix, head, payload = _whole(frame)
    if isinstance(frame, DeviceFrame):  # without a virtio header each piece must be whole
        pieces = split_tcp(head, payload, size, complete=True)
        return [_back(frame, prefix, part, bytes(data), vnet=_VNET_VALID) for part, data in pieces]
    pieces = split_tcp(head, payload, size, complete=frame.checksum == Checksum.VERIFIED)
    return [_back(frame, prefix, part, bytes(data), gso_size=0) for part, data in pieces]


_VNET_VALID = bytes([2, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # VIRTIO_NET_HDR_F_DATA_VALID: checksums are complete and good


def _corrupt(frame: Any, rng: random.Random) -> Any:
    """The frame with its checksums completed and then one bit flipped, as a cable would do it."""
    prefix = b""
    try:
        prefix, head, payload = _whole(frame)
        head = complete_tcp_checksum(head, payload)
        frame = _back(frame, prefix, head, payload)
    except Malformed:
        pass
    data = bytearray(frame.head + frame.payload)
    if not data:
        return frame
    bit = rng.randrange(8 * len(data))
    data[bit >> 3] ^= 1 << (bit & 7)
    cut = len(frame.head)
    changed = {"head": bytes(data[:cut]), "payload": bytes(data[cut:])}
    if isinstance(frame, DeviceFrame):
        return msgspec.structs.replace(frame, vnet=bytes(len(frame.vnet)), **changed)
    return msgspec.structs.replace(frame, checksum=int(Checksum.UNVERIFIED), gso_size=0, **changed)
