"""The envelope: how a list of messages becomes the parts of one ZeroMQ message, and back.

Part 0 is msgpack: [version, sender's epoch, epoch it is meant for (0: any), [message, ...]]; each message is an array
whose first element is its kind. Payloads of more than `INLINE_LIMIT` bytes that do not lie in shared memory are
parts of their own, named by a `Place` with an empty region and the part's number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from levelip.rpc.place import INLINE_LIMIT, PART, Place

WIRE_VERSION = 1
MAX_MESSAGES = 4096  # messages in one envelope
MAX_PARTS = 1024  # parts of one ZeroMQ message
MAX_OFFSET = 1 << 62  # of a stream (rpc.stream.Offset), and of a file, where it is behind all that a Place names
MAX_GENERATION = (1 << 32) - 1

T = TypeVar("T")
Parts = Sequence[Any]  # bytes, memoryview or zmq.Frame buffers
Read = Callable[[Place], bytes]


class RefusedMessage(ValueError):
    """A message that is not ours, or not of this version. `reason` is a short slug that is counted."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Envelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Part 0 of every message; the messages stay undecoded until version and epoch are known to fit."""

    version: int
    epoch: int
    to_epoch: int
    items: msgspec.Raw


class Codec(Generic[T]):
    """Encodes and decodes the messages of one seam.

    `kinds` is the union of message types that may arrive. `read` fetches the bytes of a Place where the receiver
    cannot (short payloads always; all of them when `share` is False, as between hosts). What comes from who shares no
    memory with us names none.
    """

    def __init__(self, kinds: Any, *, read: Read | None = None, share: bool = True) -> None:
        self._decoder = msgspec.msgpack.Decoder(list[kinds])
        self._envelope = msgspec.msgpack.Decoder(Envelope)
        self._encoder = msgspec.msgpack.Encoder()
        self._read = read
        self._share = share
        self.items: msgspec.Raw | None = None
        """The messages that `decode` gave last, as they came; None if payloads came as parts of their own."""

    def encode(self, messages: Sequence[Any], epoch: int, to_epoch: int = 0) -> list[bytes]:
        """The parts of one ZeroMQ message. A short Place in a message is replaced by its bytes, in place."""
        parts: list[bytes] = [b""]
        out: Sequence[Any] = messages
        for index, message in enumerate(messages):
            payload = getattr(message, "payload", b"")
            if not payload:
                continue
            if type(payload) is Place:
                if self._share and payload.length > INLINE_LIMIT:
                    continue
                if self._read is None:
                    raise TypeError("a codec without memory cannot encode a Place")
                payload = self._read(payload)
                message.payload = payload
            if len(payload) > INLINE_LIMIT:
                if out is messages:
                    out = list(messages)
                part = Place(PART, len(parts), len(payload), 0, len(payload))
                out[index] = msgspec.structs.replace(message, payload=part)  # type: ignore[index]
                parts.append(payload)
        parts[0] = self._encoder.encode((WIRE_VERSION, epoch, to_epoch, out))
        return parts

    def wrap(self, items: bytearray, epoch: int, to_epoch: int = 0) -> list[bytes]:
        """As `encode`, of messages that are encoded already: an array of such whose payloads are bytes, and short."""
        front = self._encoder.encode((WIRE_VERSION, epoch, to_epoch))
        return [b"".join((b"\x94", front[1:], items))]  # msgpack's array of four, where `front` is one of three

    def decode(self, parts: Parts) -> tuple[int, int, list[T]]:
        """(sender's epoch, epoch it is meant for, messages); raises RefusedMessage for anything else."""
        if not 1 <= len(parts) <= MAX_PARTS:
            raise RefusedMessage("bad_parts", f"{len(parts)} parts")
        try:
            envelope = self._envelope.decode(parts[0])
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise RefusedMessage("garbage", str(error)) from None
        if envelope.version != WIRE_VERSION:
            raise RefusedMessage("unknown_version", str(envelope.version))
        try:
            messages: list[T] = self._decoder.decode(envelope.items)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise RefusedMessage("bad_message", str(error)) from None
        if len(messages) > MAX_MESSAGES:
            raise RefusedMessage("too_many", f"{len(messages)} messages")
        self.items = envelope.items if len(parts) == 1 else None
        for message in messages:
            payload = getattr(message, "payload", None)
            if type(payload) is not Place:
                continue
            if payload.region == PART:
                if not 1 <= payload.base < len(parts) or len(parts[payload.base]) != payload.length:
                    raise RefusedMessage("bad_part", f"part {payload.base} of {len(parts)}")
                message.payload = bytes(parts[payload.base])  # type: ignore[attr-defined]
            elif not (self._share and _can_be(payload)):
                raise RefusedMessage("bad_place", repr(payload)[:200])
        return envelope.epoch, envelope.to_epoch, messages


def _can_be(place: Place) -> bool:
    """Whether some file may have such a place: whoever reads it counts with 64 bits."""
    return (
        0 <= place.length <= place.size
        and place.size > 0
        and 0 <= place.start <= MAX_OFFSET
        and 0 <= place.base <= MAX_OFFSET - place.size
        and 0 <= place.generation <= MAX_GENERATION
    )
