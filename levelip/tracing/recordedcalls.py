"""Calls of a core as a recording holds them: what was asked, with which arguments, and what came out.

An entry is a msgpack array whose first element is its kind; frames of one type that come or go together share one,
since they are encoded together in a third of the time (`framerun`). Frames are arrays as on the pipes, with a code of
this module's list before them, since the kinds of different seams share numbers. A long payload may be cut (`CODES`):
its first KEEP bytes stay, and, where a core will verify it, the verdict or the ones' complement sum of the rest, so
that `lengthen` makes a payload of the same length for which the verdict is the same. TCP's bytes are verified, and
stored or passed on unread; no core reads more. What came in and what went out are cut alike, so that a replay has of
each packet what is compared with it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from levelip.frames import packet, seam
from levelip.rpc import stream
from levelip.rpc.place import Payload
from levelip.tracing.events import Event
from levelip.wire.checksum import internet_checksum, ones_sum, pseudo_header_sum

KEEP: Final = 128
"""Bytes of a payload that stay; of up to two more all do, since `lengthen` needs two for a sum."""
LONG: Final = KEEP + 2  # bytes of a payload of its own that are not cut
LONG_HEAD: Final = LONG + 20  # bytes of headers and payload in one that are not cut, however short the headers
_IPV4: Final = b"\x08\x00"  # a tap's type
OFFSET_AT: Final = 12  # where its length is, RFC 9293 3.1
MAX_PAYLOAD: Final = 64 << 20  # bytes: no pipe carries more at once
_CUTTABLE: Final = ("head", "payload", "message.payload")

FRAMES: Final[tuple[type, ...]] = (
    packet.Packet, packet.Segment, packet.LinkState, packet.Unreachable, packet.Local, packet.PathMtu, packet.Doubt,
    packet.Routes, packet.IcmpError, packet.DeviceFrame, packet.DeviceState,
    seam.Bind, seam.Listen, seam.Connect, seam.Taken, seam.SetOption, seam.GetInfo, seam.Close, stream.Urgent,
    seam.Result, seam.Connected, seam.Incoming, seam.Released,
    seam.NeighbourUp, seam.NeighbourDown, seam.Store, seam.StoreFailed, seam.Answer, seam.FromClient, seam.ClientLost,
    seam.ForClient, seam.ForgetClient, seam.ForgetMemory, seam.Probe,
    stream.Send, stream.Accepted, stream.Data, stream.Consumed, stream.Eof, stream.Reset,
    packet.Progress, packet.Confirmed, packet.Refused, packet.Groups,
    seam.OpenDatagram, seam.Associate, seam.SendTo, seam.Took, seam.Member, seam.Datagram, seam.Failed,
)  # fmt: skip
"""A frame's code is its place here plus one: part of the format, so new ones go to the end."""

Cut = tuple[str, int, int]
"""Field ("head", "payload", "message.payload"), whole length, and the ones' complement sum of what was cut or, of a TCP
segment that tcp verified, RIGHT or WRONG (since format 2)."""
RIGHT: Final = -1  # its checksum was right, or nobody asked
WRONG: Final = -2


SEEN: Final[dict[str, type]] = {"link": packet.DeviceFrame, "ip": packet.Segment}
"""Process → frames that bring it payloads in shared memory whose beginnings it records: each payload comes by one of
these, from the network or from a program, and to look again in each process would cost more than all else of it."""


class Received(Struct, array_like=True, tag=1):
    """receive(frame, now). `seen`: of a payload in shared memory the first KEEP bytes, none where it was gone (since
    format 5, see SEEN)."""

    now: int
    code: int
    frame: Raw
    cuts: list[Cut] = []
    seen: bytes = b""


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


class Run(Struct, array_like=True):
    """Frames of one type, one behind the other, as they lie in a file; for readers, `rows`.

    As an array of frames, of which each has its `cuts` if any has. Or as bytes: frames of the same layout, of each of
    which `size` bytes are left. At byte `at` of each begins `field` with its length before it was cut; `kept` bytes of
    it are here, then comes what is behind it. `total` is the third of each cut.
    """

    port: str
    code: int
    frames: list[Raw] | bytes
    cuts: list[list[Cut]] = []
    size: int = 0
    at: int = 0
    kept: int = 0
    field: str = ""
    total: int = 0

    def rows(self) -> list[tuple[str, int, Raw, list[Cut]]]:
        """[port, code, frame, cuts] of each. DamagedFrame if the figures fit no frame."""
        port, code, frames = self.port, self.code, self.frames
        if not isinstance(frames, bytes):
            if not self.cuts:
                return [(port, code, frame, []) for frame in frames]
            if len(self.cuts) != len(frames):
                raise DamagedFrame(f"{len(frames)} frames and {len(self.cuts)} cuts")
            return [(port, code, frame, cuts) for frame, cuts in zip(frames, self.cuts, strict=True)]
        size, at, front = self.size, self.at, self.at + 3
        if size <= 0 or len(frames) % size or self.kept < 0 or not 0 <= at <= size - 3 - self.kept:
            raise DamagedFrame(f"a run of {len(frames)} bytes in pieces of {size}")
        header = msgspec.msgpack.encode(bytes(self.kept))[: -self.kept or None]
        rows: list[tuple[str, int, Raw, list[Cut]]] = []
        for begin in range(0, len(frames), size):
            kind, length = _BIN16.unpack_from(frames, begin + at)
            if kind != 0xC5:
                raise DamagedFrame("a run of frames of different layouts")
            raw = frames[begin : begin + at] + header + frames[begin + front : begin + size]
            rows.append((port, code, Raw(raw), [(self.field, length, self.total)]))
        return rows


class ReceivedRun(Struct, array_like=True, tag=8):
    """receive(frame, now) of a run of frames (since format 3), which `port` says nothing of: for readers a Received
    each. tcp found the checksums of those with the numbers `wrong` to be so."""

    now: int
    run: Run
    wrong: list[int] = []

    def each(self) -> list[Received]:
        """As single calls. DamagedFrame if it makes no sense."""
        calls = [Received(self.now, code, raw, cuts) for _, code, raw, cuts in self.run.rows()]
        for number in self.wrong:
            if not 0 <= number < len(calls):
                raise DamagedFrame(f"a verdict on frame {number} of {len(calls)}")
            calls[number].cuts = [(name, length, WRONG) for name, length, _ in calls[number].cuts]
        return calls


class FlushedRuns(Struct, array_like=True, tag=9):
    """outgoing(room), with what came out in runs of one port and type (since format 3): for readers a Flushed."""

    room: dict[str, int]
    runs: list[Run]

    def whole(self) -> Flushed:
        """Frame by frame. DamagedFrame if it makes no sense."""
        return Flushed(self.room, [row for run in self.runs for row in run.rows()])


class Faulted(Struct, array_like=True, tag=10):
    """What `lvlip fault` and addons did to frames on their way to or from the core, as events (since format 4). The
    core knew nothing of it: what was lost never came to it, or left it."""

    events: list[Event]


Entry = Received | TimerRan | Flushed | Told | Asked | SetTo | Interest | Faulted

_BIN16: Final = struct.Struct(">BH")  # msgpack's bytes of 256 to 65,535
_DECODER: Final = msgspec.msgpack.Decoder(list[Entry | ReceivedRun | FlushedRuns])
_FRAME_DECODERS: Final[list[msgspec.msgpack.Decoder[Any]]] = [msgspec.msgpack.Decoder(kind) for kind in FRAMES]
_ENCODER: Final = msgspec.msgpack.Encoder()


class DamagedFrame(ValueError):
    """What is no frame, or a cut that fits none; the text says why."""


def decode_entries(body: bytes) -> list[Entry]:
    """The calls of a block. Raises msgspec.DecodeError or DamagedFrame (ValueErrors) for anything else."""
    calls: list[Entry] = []
    for entry in _DECODER.decode(body):
        if isinstance(entry, ReceivedRun):
            calls += entry.each()
        elif isinstance(entry, FlushedRuns):
            calls.append(entry.whole())
        else:
            calls.append(entry)
    return calls


def decode_frame(code: int, raw: Raw | bytes, cuts: list[Cut]) -> Any:
    """A frame that a core can be given: payloads that were cut are as long as they were. DamagedFrame if it is none."""
    if not 1 <= code <= len(FRAMES):
        raise DamagedFrame(f"a frame of code {code}, of a newer Level-IP")
    try:
        frame = _FRAME_DECODERS[code - 1].decode(raw)
        return lengthen(frame, cuts) if cuts else frame
    except (ValueError, RecursionError) as error:
        raise DamagedFrame(f"a {FRAMES[code - 1].__name__} that makes no sense: {error}") from None


# cutting: frames are shortened in place and restored once they are encoded, since a copy of one costs three times that

Undo = list[tuple[Any, str, bytes]]  # object, field, what it held
Clip = Callable[[Any, bool], tuple[list[Cut], Undo] | None]
_SUMMED: Final = (int(packet.Checksum.PARTIAL), int(packet.Checksum.UNVERIFIED))


def restore(undo: Undo) -> None:
    """Give frames back what was cut."""
    for holder, name, data in undo:
        setattr(holder, name, data)


def tcp_begins(data: bytes, at: int) -> int:
    """Where the TCP header begins of an IPv4 packet at `at`. 0 for another: ICMP or IGMP, which ip reads whole, or a
    fragment."""
    if len(data) < at + 20 or data[at] >> 4 != 4 or data[at + 9] != 6 or data[at + 6] & 0x3F or data[at + 7]:
        return 0
    return at + (data[at] & 0xF) * 4


def ip_begins(head: bytes) -> int:
    """Where the IPv4 header is in a frame of a tap or tun device, if it is one of IPv4."""
    return 14 if head[12:14] == _IPV4 else 0


def tcp_cut(head: bytes, payload: Payload, begin: int) -> tuple[str, int] | None:
    """The field of a TCP packet that is cut, and how many of its bytes stay: headers, and KEEP behind them. None if
    nothing is too long. `begin`: where the TCP header begins, which may lie in `payload`. In front of a cut is an even
    number of bytes, see `_sum_for`."""
    front, at = len(head), begin + OFFSET_AT
    size = len(payload) if type(payload) is bytes else 0
    if front > at:
        words = head[at] >> 4
    else:
        words = payload[at - front] >> 4 if front + size > at else 0  # type: ignore[index]
    keep = begin + 4 * words + KEEP
    kept = keep - front if front < keep else front & 1
    if size > kept + 2:
        return "payload", kept
    return ("head", keep) if front > keep + 2 else None


def _clip_tcp(frame: Any, begin: int, *, summed: bool) -> tuple[list[Cut], Undo] | None:
    cut = tcp_cut(frame.head, frame.payload, begin)
    if cut is None:
        return None
    name, kept = cut
    data = getattr(frame, name)
    setattr(frame, name, data[:kept])
    return [(name, len(data), ones_sum(memoryview(data)[kept:]) if summed else 0)], [(frame, name, data)]


def _clip_packet(frame: Any, at: int) -> tuple[list[Cut], Undo] | None:
    """`at`: where the IP header begins. Neither link nor ip reads what is cut of a TCP packet: no sum is needed."""
    begin = tcp_begins(frame.head, at)
    return _clip_tcp(frame, begin, summed=False) if begin else None


def _clip_ip(frame: Any, _incoming: bool) -> tuple[list[Cut], Undo] | None:
    return _clip_packet(frame, 0)


def _clip_device(frame: Any, _incoming: bool) -> tuple[list[Cut], Undo] | None:
    return _clip_packet(frame, ip_begins(frame.head))


def _clip_segment(frame: Any, incoming: bool) -> tuple[list[Cut], Undo] | None:
    """tcp verifies what is UNVERIFIED, ip completes what is PARTIAL and has to be fragmented: that takes a sum. (A
    segment whose header travels in `payload` has it there.)"""
    return _clip_tcp(frame, 0, summed=incoming and frame.checksum in _SUMMED) if frame.proto == 6 else None


def _clip_stream(frame: Any, _incoming: bool) -> tuple[list[Cut], Undo] | None:
    payload = frame.payload
    if type(payload) is not bytes or len(payload) <= LONG:
        return None
    frame.payload = payload[:KEEP]
    return [("payload", len(payload), 0)], [(frame, "payload", payload)]


def _clip_wrapped(frame: Any, incoming: bool) -> tuple[list[Cut], Undo] | None:
    if type(frame.message) not in (stream.Send, stream.Data) or not (inner := _clip_stream(frame.message, incoming)):
        return None
    ((_, length, total),), undo = inner
    return [("message.payload", length, total)], undo


_CLIPS: Final[dict[type, Clip]] = {
    packet.Packet: _clip_ip,
    packet.Segment: _clip_segment,
    packet.DeviceFrame: _clip_device,
    stream.Send: _clip_stream,
    stream.Data: _clip_stream,
    seam.Store: _clip_stream,
    seam.FromClient: _clip_wrapped,
    seam.ForClient: _clip_wrapped,
}
CODES: Final[dict[type, tuple[int, Clip | None]]] = {
    kind: (place, _CLIPS.get(kind)) for place, kind in enumerate(FRAMES, 1)
}
"""Type of frame → its code, and what cuts its payload in place, coming in or going out (None: there is nothing to cut);
`restore` undoes it."""


def _sum_for(frame: Any, name: str, zeros: bytes, verdict: int) -> int:
    """What has to stand where a segment was cut, so that its checksum comes out right, or wrong. What lies before a cut
    has an even length where tcp verifies it."""
    if type(frame) is not packet.Segment or type(frame.payload) is not bytes:
        raise DamagedFrame(f"a verdict on a {type(frame).__name__}")
    data = zeros + frame.payload if name == "head" else frame.head + zeros
    right = internet_checksum(data, pseudo_header_sum(frame.src, frame.dst, frame.proto, len(data)))
    return right if verdict == RIGHT else right ^ 1


def _cut_field(frame: Any, cut: Cut) -> tuple[Any, str, bytes]:
    """(object, its field, what is left of that) of what was cut. DamagedFrame if it fits none."""
    name, length, total = cut
    outer, _, inner = name.rpartition(".")
    holder: Any = getattr(frame, outer, None) if outer else frame
    kept = getattr(holder, inner, None) if name in _CUTTABLE else None
    if type(kept) is not bytes or not (len(kept) + 2 <= length <= MAX_PAYLOAD and WRONG <= total <= 0xFFFF):
        raise DamagedFrame(f"{type(frame).__name__}.{name[:40]} cannot be {length} bytes long, of sum {total}")
    return holder, inner, kept


def lengthen(frame: Any, cuts: list[Cut]) -> Any:
    """A frame with payloads of the length and ones' complement sum that they had before they were cut."""
    changes: dict[str, Any] = {}
    for cut in cuts:
        holder, inner, kept = _cut_field(frame, cut)
        name, length, total = cut
        rest = bytes(length - len(kept) - 2)
        if total < 0:
            total = _sum_for(frame, name, kept + bytes(2) + rest, total)
        whole = kept + total.to_bytes(2, "big") + rest
        if holder is frame:
            changes[inner] = whole
        else:
            changes[name.partition(".")[0]] = msgspec.structs.replace(holder, **{inner: whole})
    return msgspec.structs.replace(frame, **changes)


def decode_known(code: int, raw: Raw | bytes, cuts: list[Cut]) -> tuple[Any, int]:
    """A frame with what is known of it alone, and how many bytes behind that were cut. DamagedFrame as `decode_frame`.
    (Of what old formats cut twice the second part is left out, too: it does not lie behind the first.)"""
    frame = decode_frame(code, raw, [])
    missing = sum(length - len(_cut_field(frame, (name, length, total))[2]) for name, length, total in cuts)
    if missing and cuts[0][0] == "head" and type(frame.payload) is bytes:
        missing += len(frame.payload)
        frame.payload = b""
    return frame, missing


def encode_frame(frame: Any, *, whole: bool = False) -> tuple[int, bytes, list[Cut]]:
    """(code, bytes, cuts) of a frame that came out, as a recording holds it. KeyError for a type that none can hold."""
    code, clip = CODES[type(frame)]
    clipped = clip(frame, False) if clip is not None and not whole else None
    if clipped is None:
        return code, _ENCODER.encode(frame), []
    cuts, undo = clipped
    try:
        return code, _ENCODER.encode(frame), cuts
    finally:
        restore(undo)
