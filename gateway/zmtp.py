"""ZMTP 3.1, as a ROUTER socket speaks it (RFC 37/ZMTP, mechanism NULL): bytes in, whole messages out, no I/O.

With ZeroMQ's own ROUTER a client can make us hold as much as it likes: libzmq gathers the parts of a message before it
shows the first, and neither MAXMSGSIZE nor a high-water mark counts them. Here a message has bounds while it arrives.

    greeting    signature %xFF 8OCTET %x7F, version 2OCTET, mechanism 20OCTET, as-server OCTET, 31OCTET
    traffic     flags OCTET (1 more, 2 long, 4 command), size OCTET or 8OCTET, body
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MORE, LONG, COMMAND = 1, 2, 4
GREETING_SIZE: Final = 64
GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
COMMAND_MAX: Final = 4096  # bytes of a command; a READY has some 50
PING_CONTEXT_MAX: Final = 16
SERVED: Final = (b"DEALER",)  # types of the other side that we talk to


class Violation(ValueError):
    """The other side does not keep to the protocol: the connection is worth nothing any more."""


class Message(list[bytes]):
    """The parts of one whole message."""


class Answer(bytes):
    """What is to be sent back at once."""


class Overlong:
    """A message has passed its bounds, and the rest of it is thrown away."""


class Busy:
    """There is more to do, but it was enough for once."""


Item = Message | Answer | Overlong | Busy | None


def _command(name: bytes, body: bytes) -> bytes:
    return bytes((COMMAND, 1 + len(name) + len(body), len(name))) + name + body


def _properties(*pairs: tuple[bytes, bytes]) -> bytes:
    return b"".join(bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value for name, value in pairs)


READY: Final = _command(b"READY", _properties((b"Socket-Type", b"ROUTER"), (b"Identity", b"")))


def encode(parts: Sequence[bytes]) -> list[bytes]:
    """The buffers of one message; short parts are joined with their headers."""
    buffers: list[bytes] = []
    last = len(parts) - 1
    for number, part in enumerate(parts):
        more = MORE if number < last else 0
        size = len(part)
        if size <= 255:
            buffers.append(bytes((more, size)) + part)
        elif size <= 4096:
            buffers.append(bytes((more | LONG,)) + size.to_bytes(8, "big") + part)
        else:
            buffers += (bytes((more | LONG,)) + size.to_bytes(8, "big"), part)
    return buffers


class Parser:
    """What one connection has sent. `max_skipped`: bytes of an overlong message that are thrown away before it is taken
    for an endless one, which is a Violation."""

    __slots__ = (
        "_buffer", "_greeted", "_max_bytes", "_max_part", "_max_parts", "_max_skipped", "_part_bytes", "_parts",
        "_skipped", "ready",
    )  # fmt: skip

    def __init__(self, *, max_part: int, max_parts: int, max_bytes: int, max_skipped: int) -> None:
        self._max_part, self._max_parts = max_part, max_parts
        self._max_bytes, self._max_skipped = max_bytes, max_skipped
        self._buffer = bytearray()
        self._greeted = False
        self.ready = False  # messages may pass both ways
        self._parts = Message()
        self._part_bytes = 0
        self._skipped = -1  # bytes thrown away of an overlong message; -1: it is not overlong

    @property
    def held(self) -> int:
        """Bytes of what is not whole yet, its overhead included."""
        return len(self._buffer) + self._part_bytes + 64 * len(self._parts)

    @property
    def partial(self) -> bool:
        """In the midst of a message."""
        return bool(self._buffer or self._parts or self._skipped >= 0)

    def forget(self) -> None:
        """Throw away what is not whole."""
        self._buffer.clear()
        self._parts, self._part_bytes, self._skipped = Message(), 0, -1

    def feed(self, data: bytes) -> None:
        """Bytes that have come."""
        self._buffer += data

    def take(self, budget: int = 256) -> Item:
        """The next item; None if more bytes are needed first. Looks at `budget` parts at most. Raises Violation."""
        if not self._greeted:
            return self._greeting()
        buffer, available, position = self._buffer, len(self._buffer), 0
        item: Item = None
        while item is None and available - position >= 2:
            if not budget:
                item = Busy()
                break
            flags = buffer[position]
            if flags > 7 or flags & (COMMAND | MORE) == COMMAND | MORE:
                raise Violation(f"flags {flags:#x}")
            start = position + 2
            if flags & LONG:
                start = position + 9
                if start > available:
                    break
                size = int.from_bytes(buffer[position + 1 : start], "big")
            else:
                size = buffer[position + 1]
            if size > (COMMAND_MAX if flags & COMMAND else self._max_part):
                raise Violation(f"a part of {size} bytes")
            if not (self.ready or flags & COMMAND):
                raise Violation("a message before READY")
            end = start + size
            if end > available:
                break
            position = end
            budget -= 1
            item = self._command(bytes(buffer[start:end])) if flags & COMMAND else self._part(start, end, flags)
        if position:
            del buffer[:position]
        return item

    def _greeting(self) -> Item:
        buffer = self._buffer
        if (buffer and buffer[0] != 0xFF) or (len(buffer) > 9 and buffer[9] != 0x7F):
            raise Violation("no greeting of ZMTP")
        if len(buffer) > 10 and buffer[10] < 3:
            raise Violation(f"ZMTP {buffer[10]}, not 3")
        if len(buffer) < GREETING_SIZE:
            return None
        mechanism = bytes(buffer[12:32]).rstrip(b"\0")
        if mechanism != b"NULL":
            raise Violation(f"mechanism {mechanism!r}")
        del buffer[:GREETING_SIZE]
        self._greeted = True
        return Answer(READY)

    def _command(self, body: bytes) -> Item:
        length = body[0] if body else 0
        name, rest = body[1 : 1 + length], body[1 + length :]
        if not self.ready:
            if name != b"READY":
                raise Violation(f"{name[:20]!r} instead of READY")
            kind = _property(rest, b"socket-type")
            if kind not in SERVED:
                raise Violation(f"a socket of type {kind[:20]!r}, not DEALER")
            self.ready = True
        elif name == b"PING":  # ttl 2OCTET, context
            return Answer(_command(b"PONG", rest[2 : 2 + PING_CONTEXT_MAX]))
        return None

    def _part(self, start: int, end: int, flags: int) -> Item:
        size = end - start
        if self._skipped < 0 and (len(self._parts) < self._max_parts and self._part_bytes + size <= self._max_bytes):
            with memoryview(self._buffer) as view:
                self._parts.append(bytes(view[start:end]))
            self._part_bytes += size
            return None if flags & MORE else self._whole()
        first = self._skipped < 0
        self._skipped = max(self._skipped, 0) + size + 64
        self._parts, self._part_bytes = Message(), 0
        if self._skipped > self._max_skipped:
            raise Violation("a message without an end")
        if not flags & MORE:
            self._skipped = -1
        return Overlong() if first else None

    def _whole(self) -> Message:
        parts, self._parts, self._part_bytes = self._parts, Message(), 0
        return parts


def _property(metadata: bytes, wanted: bytes) -> bytes:
    """A property of READY, by its name in small letters (names know no case)."""
    position = 0
    while position < len(metadata):
        name_end = position + 1 + metadata[position]
        value_start = name_end + 4
        value_end = value_start + int.from_bytes(metadata[name_end:value_start], "big")
        if value_end > len(metadata) or value_start > len(metadata):
            raise Violation("READY with a property that is cut off")
        if metadata[position + 1 : name_end].lower() == wanted:
            return metadata[value_start:value_end]
        position = value_end
    return b""
