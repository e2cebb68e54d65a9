"""receive() and outgoing() as bytes of a recording, at the least cost: bulk transfers have a way of their own.

Each of these stands in the path of every packet. Frames that come together are encoded together (`framerun`). Of single
ones what is common (one long field of a TCP packet) is cut and encoded without lists of what was done; everything else
takes the general way (`recordedcalls.CODES`). For readers all of them give the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final

import msgspec

from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.frames.seam import Store
from levelip.rpc.place import INLINE_LIMIT, Place
from levelip.rpc.stream import Data, Send
from levelip.tracing.framerun import SHORTEST, has_places, make_run, parts
from levelip.tracing.recordedcalls import (
    CODES,
    KEEP,
    LONG,
    LONG_HEAD,
    RIGHT,
    SEEN,
    Undo,
    decode_entries,
    ip_begins,
    restore,
    tcp_begins,
    tcp_cut,
)

_encode: Final = msgspec.msgpack.Encoder().encode
_encode_into: Final = msgspec.msgpack.Encoder().encode_into
_BUFFERS: Final = 16  # batches of one outgoing() that are encoded for pipes, too
_PACKET, _SEGMENT, _DEVICE = CODES[Packet][0], CODES[Segment][0], CODES[DeviceFrame][0]
_PARTIAL, _VERIFIED = int(Checksum.PARTIAL), int(Checksum.VERIFIED)
_TCP = 6
_PACKETS: Final = (Packet, Segment)
_FLAT: Final = (*_PACKETS, Data, Send, Store)  # whose payload, which may be cut, is a field of their own

Row = tuple[str, int, Any, Any]


def received_whole(frame: Any, now: int) -> bytes:
    """An entry of receive(), nothing cut. KeyError for a frame that no recording holds."""
    return _encode((1, now, CODES[type(frame)][0], frame))


def received_any(frame: Any, now: int) -> bytes:
    """An entry of receive(), long payloads cut."""
    code, clip = CODES[type(frame)]
    if clip is None or (clipped := clip(frame, True)) is None:
        return _encode((1, now, code, frame))
    cuts, undo = clipped
    try:
        return _encode((1, now, code, frame, cuts))
    finally:
        restore(undo)


def _received_cut(frame: Any, now: int, code: int, begin: int, total: int) -> bytes:
    """Of a TCP packet; `begin` as in `tcp_cut`, `total` as in a Cut."""
    head, payload = frame.head, frame.payload
    cut = tcp_cut(head, payload, begin)
    if cut is None:
        return _encode((1, now, code, frame))
    name, kept = cut
    if name == "head":
        frame.head = head[:kept]
        try:
            return _encode((1, now, code, frame, ((name, len(head), total),)))
        finally:
            frame.head = head
    frame.payload = payload[:kept]
    try:
        return _encode((1, now, code, frame, ((name, len(payload), total),)))
    finally:
        frame.payload = payload


def _received_segment(frame: Any, now: int) -> bytes:
    payload = frame.payload
    short = len(frame.head) <= LONG_HEAD and (type(payload) is not bytes or len(payload) <= LONG)
    if short or frame.proto != _TCP:
        return _encode((1, now, _SEGMENT, frame))
    state = frame.checksum
    if state == _PARTIAL and not frame.dont_fragment:
        return received_any(frame, now)
    # the verdict is the last byte, as `mark_wrong` has to find it
    return _received_cut(frame, now, _SEGMENT, 0, 0 if state in (_PARTIAL, _VERIFIED) else RIGHT)


def _received_packet(frame: Any, now: int) -> bytes:
    head, payload = frame.head, frame.payload
    short = len(head) <= LONG_HEAD and (type(payload) is not bytes or len(payload) <= LONG)
    if short or not (begin := tcp_begins(head, 0)):
        return _encode((1, now, _PACKET, frame))
    return _received_cut(frame, now, _PACKET, begin, 0)


def _received_device(frame: Any, now: int) -> bytes:
    head, payload = frame.head, frame.payload
    short = len(head) <= LONG_HEAD and (type(payload) is not bytes or len(payload) <= LONG)
    if short or not (begin := tcp_begins(head, ip_begins(head))):
        return _encode((1, now, _DEVICE, frame))
    return _received_cut(frame, now, _DEVICE, begin, 0)


RECEIVED: Final[dict[type, Callable[[Any, int], bytes]]] = {
    **dict.fromkeys(CODES, received_any),
    **{kind: received_whole for kind, (_, clip) in CODES.items() if clip is None},
    Packet: _received_packet,
    Segment: _received_segment,
    DeviceFrame: _received_device,
}
"""Type of a frame → what makes an entry of its receive()."""
Peek = Callable[[Place, int], bytes]
"""(place, most) → that many bytes of it, or as many as there are."""


def receivers(process: str, peek: Peek | None, *, whole: bool = False) -> dict[type, Callable[[Any, int], bytes]]:
    """As RECEIVED, with beginnings of payloads in shared memory, which `peek` reads. `whole`: others are not cut."""
    made: dict[type, Callable[[Any, int], bytes]] = dict(RECEIVED)
    if whole:
        made.update(dict.fromkeys(CODES, received_whole))
    kind = SEEN.get(process)
    if peek is not None and kind is not None:
        made[kind] = _seeing(made[kind], CODES[kind][0], peek)
    return made


def _seeing(received: Callable[[Any, int], bytes], code: int, peek: Peek) -> Callable[[Any, int], bytes]:
    def see(frame: Any, now: int) -> bytes:
        payload = frame.payload
        if type(payload) is not Place:
            return received(frame, now)
        return _encode((1, now, code, frame, (), peek(payload, KEEP)))

    return see


def mark_wrong(entry: bytes) -> bytes:
    """The entry of a segment whose payload was cut, once tcp has found its checksum wrong; another is left as it is."""
    return entry[:-1] + b"\xfe" if entry[-1] == 0xFF else entry  # msgpack's -2 and -1: WRONG and RIGHT


def _row_any(port: str, frame: Any, undo: Undo) -> Row:
    code, clip = CODES[type(frame)]
    if clip is None or (clipped := clip(frame, False)) is None:
        return port, code, frame, ()
    undo += clipped[1]
    return port, code, frame, clipped[0]


def _row_cut(port: str, code: int, frame: Any, begin: int, undo: Undo) -> Row:
    """Of a TCP packet; `begin` as in `tcp_cut`."""
    cut = tcp_cut(frame.head, frame.payload, begin)
    if cut is None:
        return port, code, frame, ()
    name, kept = cut
    if name == "head":
        data = frame.head
        frame.head = data[:kept]
    else:
        data = frame.payload
        frame.payload = data[:kept]
    undo.append((frame, name, data))
    return port, code, frame, ((name, len(data), 0),)


def _row_segment(port: str, frame: Any, undo: Undo) -> Row:
    payload = frame.payload
    short = len(frame.head) <= LONG_HEAD and (type(payload) is not bytes or len(payload) <= LONG)
    if short or frame.proto != _TCP:
        return port, _SEGMENT, frame, ()
    return _row_cut(port, _SEGMENT, frame, 0, undo)


def _row_packet(port: str, frame: Any, undo: Undo) -> Row:
    head, payload = frame.head, frame.payload
    short = len(head) <= LONG_HEAD and (type(payload) is not bytes or len(payload) <= LONG)
    if short or not (begin := tcp_begins(head, 0)):
        return port, _PACKET, frame, ()
    return _row_cut(port, _PACKET, frame, begin, undo)


def _row_device(port: str, frame: Any, undo: Undo) -> Row:
    head, payload = frame.head, frame.payload
    short = len(head) <= LONG_HEAD and (type(payload) is not bytes or len(payload) <= LONG)
    if short or not (begin := tcp_begins(head, ip_begins(head))):
        return port, _DEVICE, frame, ()
    return _row_cut(port, _DEVICE, frame, begin, undo)


_ROWS: Final[dict[type, Callable[[str, Any, Undo], Row]]] = {
    **dict.fromkeys(CODES, _row_any),
    Segment: _row_segment,
    Packet: _row_packet,
    DeviceFrame: _row_device,
}


Encoded = list[tuple[int, bytearray]]


@dataclass(slots=True)
class Outlet:
    """What goes out by pipes is encoded once, for the recording and for them.

    `ports` are those of pipes, which put `batch` frames into a message at most; at the other end of those in `shared`
    lies the same shared memory. `made` holds what is known since the
    last outgoing(): of each port the numbers of its frames, in order, and their msgpack, arrays, good until the next
    outgoing(): they lie in `buffers`, which are used again, since new memory costs more than to encode into it.
    """

    ports: frozenset[str] = frozenset()
    batch: int = 64
    shared: frozenset[str] = frozenset()
    made: dict[str, Encoded] = field(default_factory=dict)
    buffers: list[bytearray] = field(default_factory=list)
    used: int = 0

    def clear(self) -> None:
        """What came out before is sent."""
        self.made.clear()
        self.used = 0

    def encode(self, port: str, batch: list[Any]) -> bytearray:
        """The next frames of a port."""
        if self.used == len(self.buffers):
            self.buffers.append(bytearray())
        data = self.buffers[self.used]
        self.used += 1
        _encode_into(batch, data)
        self.made.setdefault(port, []).append((len(batch), data))
        return data

    def take(self, port: str, count: int) -> Encoded | None:
        """Those of a port, if they are all of its `count` frames."""
        made = self.made.pop(port, None)
        return made if made is not None and sum(number for number, _ in made) == count else None


_NOWHERE: Final = Outlet()


def flushed(room: Any, output: list[tuple[str, Any]], *, whole: bool = False, outlet: Outlet = _NOWHERE) -> bytes:
    """An entry of outgoing(room) and what came of it."""
    if len(output) < SHORTEST and not whole:
        if (entry := _flushed_few(room, output, outlet)) is not None:
            return entry
        undo: Undo = []
        try:
            return _encode((3, room, [_ROWS[type(frame)](port, frame, undo) for port, frame in output]))
        finally:
            if undo:
                restore(undo)
    return _flushed_runs(room, output, outlet, whole=whole)


def _flushed_few(room: Any, output: list[tuple[str, Any]], outlet: Outlet) -> bytes | None:
    """A few packets for one pipe, none of which is cut, as the pipe will send them. None for others."""
    if not 0 < len(output) <= outlet.batch:
        return None
    port, first = output[0]
    kind = type(first)
    if port not in outlet.ports or kind not in _PACKETS:
        return None
    frames = []
    for to, frame in output:
        if to != port or type(frame) is not kind or len(frame.head) > LONG_HEAD:
            return None
        payload = frame.payload
        if type(payload) is not Place:
            if len(payload) > LONG:
                return None
        elif payload.length <= INLINE_LIMIT or port not in outlet.shared:
            return None
        frames.append(frame)
    return _encode((9, room, ((port, CODES[kind][0], msgspec.Raw(outlet.encode(port, frames))),)))


def _flushed_runs(room: Any, output: list[tuple[str, Any]], outlet: Outlet, *, whole: bool) -> bytes:
    frames = list(map(_frame, output))
    if len(set(map(type, frames))) == 1 and len(set(map(_port, output))) == 1:
        groups = [(output[0][0], frames)]
    else:
        groups = [(port, list(map(_frame, rows))) for (port, _), rows in groupby(output, _port_and_kind)]
    # before any frame is cut in place: what is sent is whole, even were a frame there twice
    encoded = [None if whole else _encoded(port, frames, outlet) for port, frames in groups]
    undo: Undo = []
    runs: list[Sequence[Any]] = []
    try:
        for (port, frames), known in zip(groups, encoded, strict=True):
            runs += _runs(port, frames, known, undo, whole=whole)
        return _encode((9, room, runs))
    finally:
        if undo:
            restore(undo)


_port, _frame, _payload = itemgetter(0), itemgetter(1), attrgetter("payload")


def _port_and_kind(row: tuple[str, Any]) -> tuple[str, type]:
    return row[0], type(row[1])


def _encoded(port: str, frames: list[Any], outlet: Outlet) -> list[tuple[list[Any], bytearray]] | None:
    """Frames of one type in batches, and what the pipe is to send of each; None if it has to encode them itself."""
    if port not in outlet.ports or len(frames) < SHORTEST or not _as_they_are(frames, port in outlet.shared):
        return None
    batches = [frames[at : at + outlet.batch] for at in range(0, len(frames), outlet.batch)]
    if outlet.used + len(batches) > _BUFFERS:
        return None
    return [(batch, outlet.encode(port, batch)) for batch in batches]


def _runs(
    port: str, frames: list[Any], known: list[tuple[list[Any], bytearray]] | None, undo: Undo, *, whole: bool
) -> list[Sequence[Any]]:
    """Frames of one type, as `recordedcalls.Run`s."""
    kind = type(frames[0])
    if whole or CODES[kind][1] is None:
        return [(port, CODES[kind][0], frames)]
    if len(frames) < SHORTEST:
        return [_one_by_one(port, frames, undo)]
    runs: list[Sequence[Any]] = []
    for batch, encoded in known if known is not None else ((frames, None),):
        run = make_run(port, batch, encoded)
        runs += [run] if run is not None else _parted(port, batch, undo)
    return runs


def _as_they_are(frames: list[Any], shared: bool) -> bool:
    """Whether a pipe encodes frames of one type as they are: no payload becomes a part of its own, and none in shared
    memory is read for it, as short ones are, and all where that is not `shared` with its other end."""
    if type(frames[0]) not in _PACKETS:
        return False
    payloads = list(map(_payload, frames))
    kinds = set(map(type, payloads))
    if kinds == {bytes}:
        return max(map(len, payloads)) <= INLINE_LIMIT
    if not shared:
        return False
    return all(len(one) <= INLINE_LIMIT if type(one) is bytes else one.length > INLINE_LIMIT for one in payloads)


def _parted(port: str, frames: list[Any], undo: Undo) -> list[Sequence[Any]]:
    """Frames that are not of one layout: runs of those that are, and others one by one."""
    runs: list[Sequence[Any]] = []
    odd: list[Any] = []
    for part in parts(frames):
        if len(part) < SHORTEST or len(part) == len(frames) or (run := make_run(port, part)) is None:
            odd += part
            continue
        if odd:
            runs.append(_one_by_one(port, odd, undo))
            odd = []
        runs.append(run)
    if odd:
        runs.append(_one_by_one(port, odd, undo))
    return runs


def _one_by_one(port: str, frames: list[Any], undo: Undo) -> Sequence[Any]:
    code, row = CODES[type(frames[0])][0], _ROWS[type(frames[0])]
    return port, code, frames, [row(port, frame, undo)[3] for frame in frames]


def received_few(frames: Sequence[Any], now: int, encoded: msgspec.Raw, *, seen: type | None = None) -> bytes | None:
    """One entry of receive() for a few frames that came as `encoded`, an array: of one type, and nothing of them cut.
    None for others. `seen`: as of `received_run`."""
    kind = type(frames[0])
    code, clip = CODES[kind]
    if clip is not None and kind not in _FLAT:
        return None
    for frame in frames:
        if type(frame) is not kind:
            return None
        if clip is not None:
            payload = frame.payload
            if type(payload) is Place:
                if kind is seen:
                    return None
            elif len(payload) > LONG:
                return None
            if kind in _PACKETS and len(frame.head) > LONG_HEAD:
                return None
    return _encode((8, now, ("", code, encoded), ()))


def received_run(
    frames: Sequence[Any],
    now: int,
    encoded: msgspec.Raw | None = None,
    *,
    whole: bool = False,
    seen: type | None = None,
) -> bytes | None:
    """One entry of receive() for all frames of a batch, of which `encoded` is the msgpack if it is known; None if they
    have to be recorded one by one, as those do of the type `seen` (of SEEN) with payloads in shared memory, whose
    beginnings are kept."""
    kinds = set(map(type, frames))
    if len(kinds) != 1 or (seen in kinds and has_places(frames)):
        return None
    if whole:
        return _encode((8, now, ("", CODES[kinds.pop()][0], encoded or frames), ()))
    run = make_run("", frames, encoded, incoming=True)
    return _encode((8, now, run, ())) if run is not None else None


def run_with_wrong(entry: bytes, wrong: list[int]) -> bytes:
    """The entry of a run, once tcp has found the checksums of the frames with these numbers wrong."""
    return entry[:-1] + _encode(wrong)  # an empty list is its last byte


def run_begun(entry: bytes, count: int) -> list[bytes]:
    """The entries of the first `count` frames of a run: the core was not given the rest."""
    return [_encode(call) for call in decode_entries(b"\x91" + entry)[:count]]
