"""The tap bus: every frame in and out and every event of a process, for whoever listens (docs/tracing.md).

A tool asks by the control socket ("tap.listen") and gets a topic of its own; it subscribes to it and asks once more
("tap.confirm") until the bus has seen the subscription. Filters run here. Messages to one listener are numbered, so
that it can say how many it lost. While nobody listens, nothing is made. The records of one round of the loop travel in
one message, an array of records, sent by `flush`: a message each would cost more in wake-ups than it holds.
"""

from __future__ import annotations

import contextlib
import struct
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import zmq

from levelip.frames.core import ControlError
from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Segment, Unreachable
from levelip.ipc.memory import Memory
from levelip.rpc.place import Place
from levelip.tracing.events import Event
from levelip.wire.ipv4 import Proto

DETAIL = {"headers": 0, "first128": 128, "full": 1 << 20}  # bytes of payload that a record holds
_HWM = 20_000  # messages (a round's records) that wait for one slow listener
_FLUSH_BYTES = 1 << 20  # a message of records that reaches this is sent before the round's end
_HEAD_FIELDS = frozenset({"id", "causes", "head", "payload", "checksum", "gso_size", "traced"})
_FIELDS: dict[type, list[str]] = {}  # fields of a type of frame that are told under their names
_ARRAY = struct.Struct(">BI")  # msgpack's array 32
_MESSAGES = ("tcp-gateway", "udp-gateway", "gateway-client")
_UNCONFIRMED_NS = 30_000_000_000


class Filter(msgspec.Struct, forbid_unknown_fields=True):
    """What a listener wants; an empty field admits everything. `host` is a packed address, `proto` a number.
    `messages`: all that pass between tcp, udp, gateway and client, in which there is no such thing, too."""

    host: bytes = b""
    port: int = 0
    proto: int = -1
    flags: str = ""  # letters of tcpdump's, all of which must be set: "S", "F", "R", "P", "A" or ".", "U", "E", "W"
    messages: bool = False


class _Listen(msgspec.Struct, forbid_unknown_fields=True):
    seams: list[str] | None = None  # None: all; "link-ip", or "link-ip:in" for what comes in there alone
    events: bool = True
    frames: bool = True
    detail: str = "headers"
    filter: Filter = msgspec.field(default_factory=Filter)

    def admits(self, seam: str, direction: str) -> bool:
        """Whether frames of this seam and direction are wanted."""
        return self.seams is None or seam in self.seams or f"{seam}:{direction}" in self.seams


class _Listener:
    """One tool."""

    __slots__ = ("confirmed", "limit", "pending", "seq", "since", "size", "topic", "wants")

    def __init__(self, topic: bytes, wants: _Listen) -> None:
        self.topic = topic
        self.wants = wants
        self.limit = DETAIL[wants.detail]
        self.seq = 0
        self.confirmed = False
        self.since = time.monotonic_ns()
        self.pending: list[bytes] = []  # encoded records of this round
        self.size = 0  # their bytes


class Tap:
    """The bus of one process."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, process: str, memory: Memory) -> None:
        self.socket = context.socket(zmq.XPUB)
        self.socket.xpub_verboser = 1
        self.socket.sndhwm = _HWM
        self.socket.linger = 0
        self.socket.bind(endpoint)
        self._endpoint = endpoint
        self._process = process
        self._memory = memory
        self._listeners: dict[bytes, _Listener] = {}
        self._active: list[_Listener] = []
        self._encoder = msgspec.msgpack.Encoder()
        self._next = 0
        self.frames = False  # somebody wants frames
        self.interest = False  # somebody wants events
        self._watcher: Callable[[Event], None] | None = None

    def listen(self, args: dict[str, Any]) -> dict[str, Any]:
        """Control command "tap.listen"."""
        try:
            wants = msgspec.convert(args, _Listen)
        except msgspec.ValidationError as error:
            raise ControlError(f"tap.listen: {error}") from None
        if wants.detail not in DETAIL:
            raise ControlError(f"tap.listen: detail is one of {', '.join(DETAIL)}")
        wants.filter.flags = wants.filter.flags.upper().replace(".", "A")
        for topic in [t for t, one in self._listeners.items() if not one.confirmed and self._expired(one)]:
            del self._listeners[topic]
        self._next += 1
        topic = f"t{self._next}/".encode()
        self._listeners[topic] = _Listener(topic, wants)
        return {"topic": topic, "endpoint": self._endpoint}

    @staticmethod
    def _expired(listener: _Listener) -> bool:
        return time.monotonic_ns() - listener.since > _UNCONFIRMED_NS

    def confirm(self, args: dict[str, Any]) -> dict[str, Any]:
        """Control command "tap.confirm": whether this listener's subscription has come, and the number of the last
        record that it was sent."""
        self.subscriptions()
        topic = args.get("topic")
        listener = self._listeners.get(topic) if isinstance(topic, bytes) else None
        if listener is None:
            raise ControlError("tap.confirm: no such topic; ask with tap.listen first")
        if listener.pending:
            self._flush(listener)
        return {"listening": listener.confirmed, "told": listener.seq}

    def subscriptions(self) -> None:
        """Take subscriptions and their ends."""
        while True:
            try:
                message = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            listener = self._listeners.get(message[1:])
            if listener is None or message[:1] not in (b"\0", b"\1"):
                continue
            if message[0]:
                listener.confirmed = True
            else:
                del self._listeners[message[1:]]
        self._active = [one for one in self._listeners.values() if one.confirmed]
        self.frames = any(one.wants.frames for one in self._active)
        self._see_interest()

    def watch(self, watcher: Callable[[Event], None] | None) -> None:
        """Give every event to a function of this process, too; None: no longer."""
        self._watcher = watcher
        self._see_interest()

    def _see_interest(self) -> None:
        self.interest = self._watcher is not None or any(one.wants.events for one in self._active)

    def publish_frames(self, seam: str, direction: str, frames: Iterable[Any], stack_now: int) -> None:
        """Tell of frames that crossed a seam. Called only while `frames` is True."""
        listeners = [x for x in self._active if x.wants.frames and x.wants.admits(seam, direction)]
        if not listeners:
            return
        mono = time.monotonic_ns()
        for frame in frames:
            facts: tuple[bytes, bytes, int, int, int, int] | None = None
            record: list[Any] | None = None
            for listener in listeners:
                wants = listener.wants.filter
                if (wants.host or wants.port or wants.proto >= 0 or wants.flags) and not (
                    wants.messages and seam in _MESSAGES
                ):
                    facts = facts or packet_facts(frame)
                    if not admits(wants, facts):
                        continue
                if record is None or listener.limit:
                    record = self.record(frame, seam, direction, stack_now, mono, listener.limit)
                self._send(listener, record)

    def publish_events(self, events: Iterable[Event]) -> None:
        """Tell of events. Called only while `interest` is True."""
        for event in events:
            if self._watcher is not None:
                self._watcher(event)
            body = [0, "e", self._process, time.monotonic_ns(), event]
            for listener in self._active:
                if listener.wants.events:
                    self._send(listener, body)

    def record(self, frame: Any, seam: str, direction: str, stack: int, mono: int, limit: int) -> list[Any]:
        """What is told of a frame (docs/tracing.md), with number 0; `limit`: bytes of payload."""
        payload = getattr(getattr(frame, "message", frame), "payload", b"")
        data = b""
        if limit and payload:
            data = self._memory.peek(payload, limit) if isinstance(payload, Place) else payload[:limit]
        return frame_record(self._process, seam, direction, stack, mono, frame, data)

    def _send(self, listener: _Listener, record: list[Any]) -> None:
        listener.seq += 1
        record[0] = listener.seq
        data = self._encoder.encode(record)
        listener.pending.append(data)
        listener.size += len(data)
        if listener.size > _FLUSH_BYTES:
            self._flush(listener)

    def flush(self) -> None:
        """Send what was published since the last call; the loop calls it after each round."""
        for listener in self._active:
            if listener.pending:
                self._flush(listener)

    def _flush(self, listener: _Listener) -> None:
        records, listener.pending, listener.size = listener.pending, [], 0
        body = _ARRAY.pack(0xDD, len(records)) + b"".join(records)
        with contextlib.suppress(zmq.Again):  # the gap in the numbers tells
            self.socket.send_multipart([listener.topic, body], zmq.NOBLOCK)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def frame_record(
    process: str, seam: str, direction: str, stack: int, mono: int, frame: Any, data: bytes = b""
) -> list[Any]:
    """A frame that crossed a seam as listeners get it (docs/tracing.md), not yet numbered. `data`: as much of its
    payload as is told."""
    inner = getattr(frame, "message", frame)  # ForClient and FromClient wrap one
    names = _FIELDS.get(type(inner))
    if names is None:
        names = _FIELDS[type(inner)] = [name for name in inner.__struct_fields__ if name not in _HEAD_FIELDS]
    fields = {name: getattr(inner, name) for name in names}  # the encoder turns Structs into arrays
    if inner is not frame:
        fields["peer"] = frame.peer
    return [
        0, "f", process, seam, direction, stack, mono, getattr(inner, "id", 0), getattr(inner, "causes", []),
        type(inner).__name__, fields, getattr(inner, "head", b""), data, len(getattr(inner, "payload", b"")),
        getattr(inner, "checksum", 0), getattr(inner, "gso_size", 0),
    ]  # fmt: skip


Facts = tuple[bytes, bytes, int, int, int, int]  # src, dst, proto, source port, destination port, TCP flags
_NO_FACTS: Facts = (b"", b"", -1, 0, 0, 0)


def packet_facts(frame: Any) -> Facts:
    """What a filter looks at, as far as the frame's headers tell it."""
    kind = type(frame)
    if kind is Segment:
        return (frame.src, frame.dst, frame.proto, *_ports(frame.proto, frame.head, frame.payload))
    if kind is IcmpError:
        return (frame.src, frame.dst, frame.proto, *_ports(frame.proto, frame.head, b""))
    if kind in (Packet, Unreachable):
        return _ip_facts(frame.head)
    if kind is DeviceFrame:
        head = frame.head
        if head[12:14] == b"\x08\x00":
            return _ip_facts(head[14:])
        if head[12:14] == b"\x08\x06" and len(head) >= 42:
            return (head[28:32], head[38:42], -1, 0, 0, 0)
        return _ip_facts(head) if head[:1] and head[0] >> 4 == 4 else _NO_FACTS
    return _NO_FACTS


def _ip_facts(head: bytes) -> Facts:
    if len(head) < 20:
        return _NO_FACTS
    proto = head[9]
    return (head[12:16], head[16:20], proto, *_ports(proto, head[(head[0] & 15) * 4 :], b""))


def _ports(proto: int, head: bytes, payload: Any) -> tuple[int, int, int]:
    if proto not in (Proto.TCP, Proto.UDP):
        return (0, 0, 0)
    if len(head) < 14 and isinstance(payload, bytes):
        head += payload[:14]
    if len(head) < 4:
        return (0, 0, 0)
    flags = head[13] if proto == Proto.TCP and len(head) > 13 else 0
    return (head[0] << 8 | head[1], head[2] << 8 | head[3], flags)


_FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "W": 128}


def admits(wants: Filter, facts: Facts) -> bool:
    """Whether a frame with these facts passes the filter."""
    src, dst, proto, sport, dport, flags = facts
    if wants.host and wants.host not in (src, dst):
        return False
    if wants.port and wants.port not in (sport, dport):
        return False
    if wants.proto >= 0 and wants.proto != proto:
        return False
    return all(flags & _FLAG_BITS.get(letter, 0) for letter in wants.flags)
