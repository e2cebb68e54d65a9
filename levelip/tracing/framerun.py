"""Frames of one type as one run of a recording, long payloads cut, without looking at each in Python.

The packets of a bulk transfer are encoded to the same layout: the same fields at the same bytes. So all are encoded by
one call, payloads and all; `struct` takes the pieces that stay; and every column of bytes that the cut depends on
(where a frame begins, where its long field does, that it is TCP's) is compared with the first frame's by one slice.
That is a third of what it costs to cut and encode each. Frames of different layouts are parted where their lengths
change (`parts`); what is alike in length and nothing else goes one by one. Of payloads less stays than of single
frames: the cost of a run is what is copied, hashed and written of it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec
from msgspec import Raw

from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.frames.seam import Store
from levelip.rpc.place import Place
from levelip.rpc.stream import Data, Send
from levelip.tracing.recordedcalls import CODES, KEEP_IN, KEEP_STREAM, RIGHT, is_plain_tcp

SHORTEST: Final = 8
"""Frames below which a run costs more than it saves."""

_encode: Final = msgspec.msgpack.Encoder().encode
_encode_into: Final = msgspec.msgpack.Encoder().encode_into
_buffer = bytearray()
"""Where runs are encoded, one after the other, in one thread: a new place for each would cost more than encoding it."""
_PARTIAL, _VERIFIED = int(Checksum.PARTIAL), int(Checksum.VERIFIED)
_TCP = 6
_IPV4: Final = b"\x08\x00"
KEEP: Final = 92
"""Bytes of a segment that stay: a TCP header of full length and 32 of payload, 60 behind one with timestamps."""
KEEP_PAYLOAD: Final = 60
"""Bytes of a payload that stay where it is a field of its own. Both are even: see `recordedcalls.lengthen`."""
_LEAST, _MOST = 256, 65_535  # bytes of a field whose length takes two (msgpack's bin 16), as `Run` has it
_HEADER = 3  # bytes of that length and its mark
_BEGINNING: Final = (0, 1, 2, 3)
"""Columns where frames begin: length of the array, kind, and what frame ids begin with, which nobody outside knows."""
_SHAPES: Final = 512  # that are kept

Shape = tuple[Any, ...]
Pieces = Callable[[bytearray | memoryview], tuple[bytes, ...]]
Cutting = tuple[slice, bytes, list[slice], Pieces, tuple[int, int, int, str, int]]
"""Where the first frame's long field begins and with what; of the pieces that stay, columns that are to be the same in
all frames; what takes these pieces; and the figures of the `Run`."""

_cuttings: dict[Shape, Cutting | None] = {}


def make_run(
    port: str, frames: Sequence[Any], keep: int, encoded: Raw | bytearray | None = None
) -> Sequence[Any] | None:
    """Frames of one type as `recordedcalls.Run`, payloads of TCP cut that are longer than `keep`, which one alone would
    be cut to; None if they have to go one by one. They stay as they are. `encoded`: their msgpack, an array, if it is
    known."""
    first = frames[0]
    kind = type(first)
    code, clip = CODES[kind]
    if clip is None:
        return port, code, encoded or frames
    look = _LOOKS.get(kind)
    if look is None:
        return None
    count = len(frames)
    data: bytearray | memoryview
    if isinstance(encoded, bytearray):
        data = encoded
    elif encoded is not None:
        data = memoryview(encoded)
    else:
        data = _buffer
        _encode_into(frames, data)
    facts = look(first, keep)
    if facts is None:
        return (port, code, Raw(bytes(data))) if _short(data, count, keep) or _nothing_long(frames, keep) else None
    shape = (kind, keep, count, len(data), facts)
    try:
        cutting = _cuttings[shape]
    except KeyError:
        cutting = _cutting(first, shape)
    if cutting is None:
        return None
    where, header, columns, take, figures = cutting
    if bytes(data[where]) != header:
        return None
    pieces = b"".join(take(data))
    for column in columns:
        there = pieces[column]
        if there.count(there[0]) != count:
            return None
    return port, code, pieces, (), *figures


def parts(frames: Sequence[Any]) -> Iterator[list[Any]]:
    """Frames of one type, one behind the other, parted where their lengths change."""
    return (list(part) for _, part in groupby(frames, _lengths))


def _lengths(frame: Any) -> tuple[int, int]:
    head, payload = getattr(frame, "head", b""), getattr(frame, "payload", None)
    return len(head), len(payload) if type(payload) is bytes else -1


# what is seen of the first frame: None if nothing of it is long; else lengths, and whatever else decides on its cut


def _look_packet(frame: Any, keep: int, at: int = 0) -> Shape | None:
    head, payload = frame.head, frame.payload
    size = len(payload) if type(payload) is bytes else 0
    if len(head) <= keep + 2 and size <= keep + 2:
        return None
    return len(head), size, at, is_plain_tcp(head, at) and (head[at] & 0xF) * 4


def _look_device(frame: Any, keep: int) -> Shape | None:
    return _look_packet(frame, keep, 14 if frame.head[12:14] == _IPV4 else 0)


def _look_segment(frame: Any, keep: int) -> Shape | None:
    head, payload = frame.head, frame.payload
    size = len(payload) if type(payload) is bytes else 0
    if len(head) <= keep + 2 and size <= keep + 2:
        return None
    return len(head), size, frame.proto == _TCP, frame.checksum, frame.dont_fragment


def _look_stream(frame: Any, _keep: int) -> Shape | None:
    payload = frame.payload
    return (0, len(payload)) if type(payload) is bytes and len(payload) > KEEP_STREAM + 2 else None


_LOOKS: Final[dict[type, Callable[[Any, int], Shape | None]]] = {
    Packet: _look_packet,
    DeviceFrame: _look_device,
    Segment: _look_segment,
    Store: _look_stream,
    Send: _look_stream,
    Data: _look_stream,
}


def _short(data: bytearray | memoryview, count: int, keep: int) -> bool:
    """Whether these are encoded frames of one size, which is too small for anything long."""
    front = 1 if count < 16 else 3
    size, odd = divmod(len(data) - front, count)
    if odd or size > keep:
        return False
    for begin in range(front, front + len(_BEGINNING)):
        column = bytes(data[begin::size])
        if column != column[:1] * count:
            return False
    return True


def _nothing_long(frames: Sequence[Any], keep: int) -> bool:
    payloads = [frame.payload for frame in frames]
    if set(map(type, payloads)) != {Place}:
        if type(frames[0]) in (Store, Send, Data):
            keep = KEEP_STREAM
        if any(type(payload) is bytes and len(payload) > keep + 2 for payload in payloads):
            return False
    return not hasattr(frames[0], "head") or max([len(frame.head) for frame in frames]) <= keep + 2


# a shape that is new


def _behind(frame: Any, first: str) -> int:
    """Bytes that the fields from `first` to the last take."""
    names = frame.__struct_fields__
    values = [getattr(frame, name) for name in names[names.index(first) :]]
    return len(_encode(values)) - 1


def _cutting(frame: Any, shape: Shape) -> Cutting | None:
    """How frames like this one are cut; None if they cannot be, all alike."""
    kind, keep, count, length, facts = shape
    front = 1 if count < 16 else 3
    size, odd = divmod(length - front, count)
    field = "head" if facts[0] > keep + 2 else "payload"
    whole = len(getattr(frame, field))
    kept, total = KEEP_PAYLOAD, 0
    more: tuple[int, ...] = ()
    if kind is Segment:
        _, _, tcp, state, whole_only = facts
        if not tcp or (keep == KEEP_IN and state == _PARTIAL and not whole_only):
            whole = 0
        total = RIGHT if keep == KEEP_IN and state not in (_PARTIAL, _VERIFIED) else 0
        more = tuple(size - _behind(frame, name) for name in ("proto", "checksum", "dont_fragment"))
        kept = max(kept, KEEP - (0 if field == "head" else facts[0] & ~1))
    elif facts[0]:
        _, _, at, length_of_ip = facts
        if not length_of_ip:
            whole = 0
        kept = max(kept, at + length_of_ip + KEEP - (0 if field == "head" else facts[0]))
        begin = size - _behind(frame, "head") + len(_encode(frame.head)) - facts[0] + at  # of the IP header
        more = (begin, begin + 6, begin + 7, begin + 9, *((begin - 2, begin - 1) if at else ()))
    found: Cutting | None = None
    at = size - _behind(frame, field)
    upto, skip = at + _HEADER + kept, whole - kept
    behind = size - upto - skip
    fits = max(_LEAST, kept + 3) <= whole <= _MOST and min(facts[:2]) <= keep + 2
    fits = fits and not any(upto <= place < upto + skip for place in more)
    if fits and not odd and min(at, behind, *more) >= 0:
        layout = f"{front}x{upto}s{f'{skip}x{behind + upto}s' * (count - 1)}{skip}x{behind}s"
        begins = slice(front + at, front + at + _HEADER)
        places = (*_BEGINNING, at, at + 1, at + 2, *more)
        columns = [slice(place if place < upto else place - skip, None, size - skip) for place in places]
        take = struct.Struct(layout).unpack
        found = begins, _encode(bytes(whole))[:_HEADER], columns, take, (size - skip, at, kept, field, total)
    if len(_cuttings) >= _SHAPES:
        _cuttings.clear()
    _cuttings[shape] = found
    return found
