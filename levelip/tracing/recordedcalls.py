"""Calls of a core as a recording holds them: what was asked, with which arguments, and what came out.

An entry is a msgpack array whose first element is its kind. Frames are arrays as on the pipes, with a code of this
module's list before them, since the kinds of different seams share numbers. A long payload may be cut (`shorten`): its
first bytes stay, and the ones' complement sum of the rest, so that `lengthen` makes a payload of the same length and
checksum. That is all that a core reads of a payload: TCP's bytes are verified, and stored or passed on unread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from levelip.frames import packet, seam
from levelip.rpc import stream
from levelip.tracing.events import Event
from levelip.wire.checksum import ones_sum

KEEP_IN: Final = 264  # bytes of a packet that a cut leaves: link, IP and TCP headers of full length, 128 and some
KEEP_OUT: Final = 200  # of one that came out: a layer takes up to 60 bytes away in front
KEEP_STREAM: Final = 128  # bytes of a stream's payload

FRAMES: Final[tuple[type, ...]] = (
    packet.Packet, packet.Segment, packet.LinkState, packet.Unreachable, packet.Local, packet.PathMtu, packet.Doubt,
    packet.Routes, packet.IcmpError, packet.DeviceFrame, packet.DeviceState,
    seam.Bind, seam.Listen, seam.Connect, seam.Taken, seam.SetOption, seam.GetInfo, seam.Close, seam.Urgent,
    seam.Result, seam.Connected, seam.Incoming, seam.Released,
    seam.NeighbourUp, seam.NeighbourDown, seam.Store, seam.StoreFailed, seam.Answer, seam.FromClient, seam.ClientLost,
    seam.ForClient, seam.ForgetClient, seam.ForgetMemory, seam.Probe,
    stream.Send, stream.Accepted, stream.Data, stream.Consumed, stream.Eof, stream.Reset,
)  # fmt: skip
"""A frame's code is its place here plus one: part of the format, so new ones go to the end."""

Cut = tuple[str, int, int]  # field ("head", "payload", "message.payload"), whole length, sum of what was cut


class Received(Struct, array_like=True, tag=1):
    """receive(frame, now)."""

    now: int
    code: int
    frame: Raw
    cuts: list[Cut] = []


class TimerRan(Struct, array_like=True, tag=2):
    """handle_timer(now)."""

    now: int


class Flushed(Struct, array_like=True, tag=3):
    """outgoing(room), which ends a batch: [port, code, frame, cuts] of each frame that came out."""

    room: dict[str, int]
    out: list[tuple[str, int, Raw, list[Cut]]]


class Told(Struct, array_like=True, tag=4):
    """events(): what the core told since the last time, if anything."""

    events: list[Event]


class Asked(Struct, array_like=True, tag=5):
    """control(token, name, args, now); `error` is empty where there was an answer, which is not kept."""

    now: int
    token: int
    name: str
    args: dict[str, Any]
    error: str = ""


class SetTo(Struct, array_like=True, tag=6):
    """set(key, value, now)."""

    now: int
    key: str
    value: Any
    error: str = ""


class Interest(Struct, array_like=True, tag=7):
    """Somebody listens to events from here on, or nobody any more."""

    on: bool


Entry = Received | TimerRan | Flushed | Told | Asked | SetTo | Interest

_DECODER: Final = msgspec.msgpack.Decoder(list[Entry])
_FRAME_DECODERS: Final[list[msgspec.msgpack.Decoder[Any]]] = [msgspec.msgpack.Decoder(kind) for kind in FRAMES]
_ENCODER: Final = msgspec.msgpack.Encoder()


def decode_entries(body: bytes) -> list[Entry]:
    """The entries of a block. Raises msgspec.DecodeError (a ValueError) for anything else."""
    return _DECODER.decode(body)


def decode_frame(code: int, raw: Raw | bytes, cuts: list[Cut]) -> Any:
    """A frame that a core can be given: payloads that were cut are as long as they were. ValueError if it is none."""
    if not 1 <= code <= len(FRAMES):
        raise ValueError(f"a frame of code {code}, of a newer Level-IP")
    frame = _FRAME_DECODERS[code - 1].decode(raw)
    return lengthen(frame, cuts) if cuts else frame


# cutting

Shorten = Callable[[Any, int], tuple[Any, list[Cut]] | None]


def _cut(data: bytes, keep: int, name: str) -> tuple[bytes, Cut]:
    return data[:keep], (name, len(data), ones_sum(memoryview(data)[keep:]))


def _long(data: Any, keep: int) -> bool:
    return len(data) > keep + 2 and type(data) is bytes  # the sum takes two bytes


def _is_plain_tcp(ip: bytes) -> bool:
    """Whether this is an IPv4 packet that TCP will read: not ICMP or IGMP, which ip reads whole, and no fragment."""
    return len(ip) >= 20 and ip[0] >> 4 == 4 and ip[9] == 6 and not (ip[6] & 0x3F or ip[7])


def _shorten_packet(frame: Any, ip: bytes | None, keep: int) -> tuple[Any, list[Cut]] | None:
    """`ip`: where the IP header begins, to look whether it is TCP; None: it is known to be."""
    head, payload = frame.head, frame.payload
    long_head, long_payload = _long(head, keep), _long(payload, keep)
    if not (long_head or long_payload) or (ip is not None and not _is_plain_tcp(ip)):
        return None
    changes: dict[str, bytes] = {}
    cuts: list[Cut] = []
    if long_head:
        changes["head"], cut = _cut(head, keep, "head")
        cuts.append(cut)
    if long_payload:
        changes["payload"], cut = _cut(payload, keep, "payload")
        cuts.append(cut)
    return msgspec.structs.replace(frame, **changes), cuts


def _packet(frame: Any, keep: int) -> tuple[Any, list[Cut]] | None:
    return _shorten_packet(frame, frame.head[:20], keep)


def _segment(frame: Any, keep: int) -> tuple[Any, list[Cut]] | None:
    return _shorten_packet(frame, None, keep) if frame.proto == 6 else None


def _device(frame: Any, keep: int) -> tuple[Any, list[Cut]] | None:
    head = frame.head
    return _shorten_packet(frame, head[14:34] if head[12:14] == b"\x08\x00" else head[:20], keep)


def _stream(frame: Any, _keep: int = 0) -> tuple[Any, list[Cut]] | None:
    if not _long(frame.payload, KEEP_STREAM):
        return None
    payload, cut = _cut(frame.payload, KEEP_STREAM, "payload")
    return msgspec.structs.replace(frame, payload=payload), [cut]


def _wrapped(frame: Any, _keep: int) -> tuple[Any, list[Cut]] | None:
    if type(frame.message) not in (stream.Send, stream.Data):
        return None
    inner = _stream(frame.message)
    if inner is None:
        return None
    message, ((_, length, total),) = inner
    return msgspec.structs.replace(frame, message=message), [("message.payload", length, total)]


_SHORTEN: Final[dict[type, Shorten]] = {
    packet.Packet: _packet,
    packet.Segment: _segment,
    packet.DeviceFrame: _device,
    stream.Send: _stream,
    stream.Data: _stream,
    seam.Store: _stream,
    seam.FromClient: _wrapped,
    seam.ForClient: _wrapped,
}
CODES: Final[dict[type, tuple[int, Shorten | None]]] = {
    kind: (place, _SHORTEN.get(kind)) for place, kind in enumerate(FRAMES, 1)
}
"""Type of frame → its code, and what cuts its payload to some length (None as a result: there is nothing to cut)."""


def lengthen(frame: Any, cuts: list[Cut]) -> Any:
    """A frame with payloads of the length and ones' complement sum that they had before `shorten`."""
    changes: dict[str, Any] = {}
    for name, length, total in cuts:
        outer, _, inner = name.rpartition(".")
        holder = getattr(frame, outer) if outer else frame
        kept: bytes = getattr(holder, inner)
        whole = kept + total.to_bytes(2, "big") + bytes(max(0, length - len(kept) - 2))
        if outer:
            changes[outer] = msgspec.structs.replace(holder, **{inner: whole})
        else:
            changes[inner] = whole
    return msgspec.structs.replace(frame, **changes)


def encode_frame(frame: Any, *, whole: bool = False) -> tuple[int, bytes, list[Cut]]:
    """(code, bytes, cuts) of a frame that came out, as a recording holds it. KeyError for a type that none can hold."""
    code, shorten = CODES[type(frame)]
    cuts: list[Cut] = []
    if shorten is not None and not whole and (short := shorten(frame, KEEP_OUT)) is not None:
        frame, cuts = short
    return code, _ENCODER.encode(frame), cuts
