"""Frames of one type as one run of a recording, long payloads cut, without looking at each in Python.

The packets of a bulk transfer are encoded to the same layout: the same fields at the same bytes. So all are encoded by
one call, payloads and all; `struct` takes the pieces that stay; and every column of bytes that the cut depends on
(where a frame begins, where its long field does, that it is TCP's) is compared with the first frame's by one slice.
That is a third of what it costs to cut and encode each. Frames of different layouts are parted where their lengths
change (`parts`); what is alike in length and nothing else goes one by one. What stays of a frame is what would stay of
it alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import msgspec
from msgspec import Raw

from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.frames.seam import Store
from levelip.rpc.place import Place
from levelip.rpc.stream import Data, Send
from levelip.tracing.recordedcalls import (
    CODES,
    KEEP,
    LONG,
    LONG_HEAD,
    OFFSET_AT,
    RIGHT,
    ip_begins,
    tcp_begins,
    tcp_cut,
)

SHORTEST: Final = 5
"""Frames below which a run costs more than it saves."""

_encode: Final = msgspec.msgpack.Encoder().encode
_encode_into: Final = msgspec.msgpack.Encoder().encode_into
_buffer = bytearray()
"""Where runs are encoded, one after the other, in one thread: a new place for each would cost more than encoding it."""
_PARTIAL, _VERIFIED = int(Checksum.PARTIAL), int(Checksum.VERIFIED)
_TCP = 6
_payload: Final = attrgetter("payload")
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
    port: str, frames: Sequence[Any], encoded: Raw | bytearray | None = None, *, incoming: bool = False
) -> Sequence[Any] | None:
    """Frames of one type as `recordedcalls.Run`, long payloads of TCP cut as of one alone; None if they have to go one
    by one, as those do of whose payloads in shared memory something is kept. They stay as they are. `encoded`: their
    msgpack, an array, if it is known."""
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
    facts = look(first, incoming)
    if facts is None:
        return (port, code, Raw(bytes(data))) if _short(data, count) or _nothing_long(frames) else None
    shape = (kind, count, len(data), facts)
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


def has_places(frames: Sequence[Any]) -> bool:
    """Whether any of these, which have payloads, lies in shared memory."""
    return Place in set(map(type, map(_payload, frames)))


def parts(frames: Sequence[Any]) -> Iterator[list[Any]]:
    """Frames of one type, one behind the other, parted where their lengths change."""
    return (list(part) for _, part in groupby(frames, _lengths))


def _lengths(frame: Any) -> tuple[int, int]:
    head, payload = getattr(frame, "head", b""), getattr(frame, "payload", None)
    return len(head), len(payload) if type(payload) is bytes else -1


# what is seen of the first frame: None if nothing of it is long; else what is cut (None: nothing can be), and whatever
# else of it decides on that: lengths, where headers begin, fields


def _look_packet(frame: Any, _incoming: bool, at: int = 0) -> Shape | None:
    head, payload = frame.head, frame.payload
    size = len(payload) if type(payload) is bytes else 0
    if len(head) <= LONG_HEAD and size <= LONG:
        return None
    begin = tcp_begins(head, at)
    if not begin:
        return (None,)
    return tcp_cut(head, payload, begin), len(head), size, at, begin


def _look_device(frame: Any, incoming: bool) -> Shape | None:
    return _look_packet(frame, incoming, ip_begins(frame.head))


def _look_segment(frame: Any, incoming: bool) -> Shape | None:
    head, payload = frame.head, frame.payload
    size = len(payload) if type(payload) is bytes else 0
    if len(head) <= LONG_HEAD and size <= LONG:
        return None
    state = frame.checksum
    if frame.proto != _TCP or (incoming and state == _PARTIAL and not frame.dont_fragment):
        return (None,)
    total = RIGHT if incoming and state not in (_PARTIAL, _VERIFIED) else 0
    return tcp_cut(head, payload, 0), len(head), size, total, state, frame.dont_fragment


def _look_stream(frame: Any, _incoming: bool) -> Shape | None:
    payload = frame.payload
    return (("payload", KEEP), 0, len(payload)) if type(payload) is bytes and len(payload) > LONG else None


_LOOKS: Final[dict[type, Callable[[Any, bool], Shape | None]]] = {
    Packet: _look_packet,
    DeviceFrame: _look_device,
    Segment: _look_segment,
    Store: _look_stream,
    Send: _look_stream,
    Data: _look_stream,
}


def _short(data: bytearray | memoryview, count: int) -> bool:
    """Whether these are encoded frames of one size, which is too small for anything long."""
    front = 1 if count < 16 else 3
    size, odd = divmod(len(data) - front, count)
    if odd or size > LONG:
        return False
    for begin in range(front, front + len(_BEGINNING)):
        column = bytes(data[begin::size])
        if column != column[:1] * count:
            return False
    return True


def _nothing_long(frames: Sequence[Any]) -> bool:
    """A Place is short."""
    payloads = list(map(_payload, frames))
    kinds = set(map(type, payloads))
    if kinds != {Place} and any(type(one) is bytes and len(one) > LONG for one in payloads):
        return False
    return not hasattr(frames[0], "head") or max([len(frame.head) for frame in frames]) <= LONG_HEAD


# a shape that is new


def _behind(frame: Any, first: str) -> int:
    """Bytes that the fields from `first` to the last take."""
    names = frame.__struct_fields__
    values = [getattr(frame, name) for name in names[names.index(first) :]]
    return len(_encode(values)) - 1


def _cutting(frame: Any, shape: Shape) -> Cutting | None:
    """How frames like this one are cut; None if they cannot be, all alike."""
    kind, count, length, (cut, *facts) = shape
    found = _layout(frame, kind, count, length, cut, facts) if cut is not None else None
    if len(_cuttings) >= _SHAPES:
        _cuttings.clear()
    _cuttings[shape] = found
    return found


def _layout(
    frame: Any, kind: type, count: int, length: int, cut: tuple[str, int], facts: Sequence[Any]
) -> Cutting | None:
    front = 1 if count < 16 else 3
    size, odd = divmod(length - front, count)
    field, kept = cut
    whole = len(getattr(frame, field))
    total = 0
    more: list[int] = []
    if hasattr(frame, "head"):
        begin = 0
        data = size - _behind(frame, "head") + len(_encode(frame.head)) - facts[0]  # where the bytes of `head` begin
        if kind is Segment:
            total = facts[2]
            more = [size - _behind(frame, name) for name in ("proto", "checksum", "dont_fragment")]
        else:
            at, begin = facts[2:]
            more = [data + at + place for place in (0, 6, 7, 9, *((-2, -1) if at else ()))]
        if facts[0] <= begin + OFFSET_AT:  # the TCP header is in `payload`
            data = size - _behind(frame, "payload") + _HEADER - facts[0]
        more.append(data + begin + OFFSET_AT)
    at = size - _behind(frame, field)
    upto, skip = at + _HEADER + kept, whole - kept
    behind = size - upto - skip
    fits = max(_LEAST, kept + 3) <= whole <= _MOST and not any(upto <= place < upto + skip for place in more)
    if not fits or odd or min(at, behind, *more) < 0:
        return None
    layout = f"{front}x{upto}s{f'{skip}x{behind + upto}s' * (count - 1)}{skip}x{behind}s"
    begins = slice(front + at, front + at + _HEADER)
    places = (*_BEGINNING, at, at + 1, at + 2, *more)
    columns = [slice(place if place < upto else place - skip, None, size - skip) for place in places]
    take = struct.Struct(layout).unpack
    return begins, _encode(bytes(whole))[:_HEADER], columns, take, (size - skip, at, kept, field, total)
