"""receive() and outgoing() as bytes of a recording, at the least cost: bulk transfers have a way of their own.

Each of these stands in the path of every packet. Frames that come together are encoded together (`framerun`). Of single
ones what is common (one long field of a TCP packet) is cut and encoded without lists of what was done; everything else
takes the general way (`recordedcalls.CODES`). For readers all of them give the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.tracing.framerun import SHORTEST, make_run
from levelip.tracing.recordedcalls import (
    CODES,
    KEEP_IN,
    KEEP_OUT,
    RIGHT,
    Undo,
    decode_entries,
    is_plain_tcp,
    restore,
)

_encode: Final = msgspec.msgpack.Encoder().encode
_PACKET, _SEGMENT, _DEVICE = CODES[Packet][0], CODES[Segment][0], CODES[DeviceFrame][0]
_PARTIAL, _VERIFIED = int(Checksum.PARTIAL), int(Checksum.VERIFIED)
_LONG_IN, _LONG_OUT = KEEP_IN + 2, KEEP_OUT + 2
_TCP = 6

Row = tuple[str, int, Any, Any]


def received_whole(frame: Any, now: int) -> bytes:
    """An entry of receive(), nothing cut. KeyError for a frame that no recording holds."""
    return _encode((1, now, CODES[type(frame)][0], frame))


def received_any(frame: Any, now: int) -> bytes:
    """An entry of receive(), long payloads cut."""
    code, clip = CODES[type(frame)]
    if clip is None or (clipped := clip(frame, KEEP_IN)) is None:
        return _encode((1, now, code, frame))
    cuts, undo = clipped
    try:
        return _encode((1, now, code, frame, cuts))
    finally:
        restore(undo)


def _received_segment(frame: Any, now: int) -> bytes:
    head, payload = frame.head, frame.payload
    long = type(payload) is bytes and len(payload) > _LONG_IN
    if len(head) <= _LONG_IN and not long:
        return _encode((1, now, _SEGMENT, frame))
    if frame.proto != _TCP or (frame.checksum == _PARTIAL and not frame.dont_fragment):
        return received_any(frame, now)
    # the verdict is the last byte, as `mark_wrong` has to find it
    total = 0 if frame.checksum in (_PARTIAL, _VERIFIED) else RIGHT
    if not long:
        frame.head = head[:KEEP_IN]
        try:
            return _encode((1, now, _SEGMENT, frame, (("head", len(head), total),)))
        finally:
            frame.head = head
    cut = (("payload", len(payload), total),)
    frame.payload = payload[:KEEP_IN]
    try:
        return _encode((1, now, _SEGMENT, frame, cut))
    finally:
        frame.payload = payload


def _received_packet(frame: Any, now: int) -> bytes:
    head, payload = frame.head, frame.payload
    size = len(head)
    if type(payload) is bytes and len(payload) > _LONG_IN:
        if size > _LONG_IN or not is_plain_tcp(head, 0):
            return received_any(frame, now)
        frame.payload = payload[:KEEP_IN]
        try:
            return _encode((1, now, _PACKET, frame, (("payload", len(payload), 0),)))
        finally:
            frame.payload = payload
    if size <= _LONG_IN:
        return _encode((1, now, _PACKET, frame))
    if not is_plain_tcp(head, 0):
        return received_any(frame, now)
    frame.head = head[:KEEP_IN]
    try:
        return _encode((1, now, _PACKET, frame, (("head", size, 0),)))
    finally:
        frame.head = head


def _received_device(frame: Any, now: int) -> bytes:
    head, payload = frame.head, frame.payload
    size = len(head)
    if type(payload) is bytes and len(payload) > _LONG_IN:
        return received_any(frame, now)
    if size <= _LONG_IN:
        return _encode((1, now, _DEVICE, frame))
    if not is_plain_tcp(head, 14 if head[12] == 8 and head[13] == 0 else 0):
        return received_any(frame, now)
    frame.head = head[:KEEP_IN]
    try:
        return _encode((1, now, _DEVICE, frame, (("head", size, 0),)))
    finally:
        frame.head = head


RECEIVED: Final[dict[type, Callable[[Any, int], bytes]]] = {
    **dict.fromkeys(CODES, received_any),
    **{kind: received_whole for kind, (_, clip) in CODES.items() if clip is None},
    Packet: _received_packet,
    Segment: _received_segment,
    DeviceFrame: _received_device,
}
"""Type of a frame → what makes an entry of its receive()."""


def mark_wrong(entry: bytes) -> bytes:
    """The entry of a segment whose payload was cut, once tcp has found its checksum wrong; another is left as it is."""
    return entry[:-1] + b"\xfe" if entry[-1] == 0xFF else entry  # msgpack's -2 and -1: WRONG and RIGHT


def _row_any(port: str, frame: Any, undo: Undo) -> Row:
    code, clip = CODES[type(frame)]
    if clip is None or (clipped := clip(frame, KEEP_OUT)) is None:
        return port, code, frame, ()
    undo += clipped[1]
    return port, code, frame, clipped[0]


def _row_segment(port: str, frame: Any, undo: Undo) -> Row:
    payload = frame.payload
    if type(payload) is not bytes or len(payload) <= _LONG_OUT:
        return (port, _SEGMENT, frame, ()) if len(frame.head) <= _LONG_OUT else _row_any(port, frame, undo)
    if frame.proto != _TCP:
        return port, _SEGMENT, frame, ()
    undo.append((frame, "payload", payload))
    frame.payload = payload[:KEEP_OUT]
    return port, _SEGMENT, frame, (("payload", len(payload), 0),)


def _row_packet(port: str, frame: Any, undo: Undo) -> Row:
    head, payload = frame.head, frame.payload
    size = len(head)
    if type(payload) is not bytes or len(payload) <= _LONG_OUT:
        if size <= _LONG_OUT:
            return port, _PACKET, frame, ()
        if is_plain_tcp(head, 0):
            undo.append((frame, "head", head))
            frame.head = head[:KEEP_OUT]
            return port, _PACKET, frame, (("head", size, 0),)
    elif size <= _LONG_OUT and is_plain_tcp(head, 0):
        undo.append((frame, "payload", payload))
        frame.payload = payload[:KEEP_OUT]
        return port, _PACKET, frame, (("payload", len(payload), 0),)
    return _row_any(port, frame, undo)


def _row_device(port: str, frame: Any, undo: Undo) -> Row:
    payload = frame.payload
    if len(frame.head) <= _LONG_OUT:
        if type(payload) is not bytes or len(payload) <= _LONG_OUT:
            return port, _DEVICE, frame, ()
        if is_plain_tcp(frame.head, 14 if frame.head[12:14] == b"\x08\x00" else 0):
            undo.append((frame, "payload", payload))
            frame.payload = payload[:KEEP_OUT]
            return port, _DEVICE, frame, (("payload", len(payload), 0),)
    return _row_any(port, frame, undo)


_ROWS: Final[dict[type, Callable[[str, Any, Undo], Row]]] = {
    **dict.fromkeys(CODES, _row_any),
    Segment: _row_segment,
    Packet: _row_packet,
    DeviceFrame: _row_device,
}


def flushed(room: Any, output: list[tuple[str, Any]], *, whole: bool = False) -> bytes:
    """An entry of outgoing(room) and what came of it."""
    if len(output) < SHORTEST and not whole:
        undo: Undo = []
        try:
            return _encode((3, room, [_ROWS[type(frame)](port, frame, undo) for port, frame in output]))
        finally:
            if undo:
                restore(undo)
    return _flushed_runs(room, output, whole=whole)


def _flushed_runs(room: Any, output: list[tuple[str, Any]], *, whole: bool) -> bytes:
    groups: list[tuple[str, list[Any]]] = []
    last_port, last_kind, group = "", object, [object]
    for port, frame in output:
        kind = type(frame)
        if kind is last_kind and port == last_port:
            group.append(frame)
        else:
            last_port, last_kind, group = port, kind, [frame]
            groups.append((port, group))
    undo: Undo = []
    try:
        return _encode((9, room, [_group(port, group, undo, whole=whole) for port, group in groups]))
    finally:
        if undo:
            restore(undo)


def _group(port: str, frames: list[Any], undo: Undo, *, whole: bool) -> Sequence[Any]:
    """Frames of one type, as `recordedcalls.Run`."""
    kind = type(frames[0])
    if whole or CODES[kind][1] is None:
        return port, CODES[kind][0], frames
    if len(frames) >= SHORTEST and (run := make_run(port, frames, KEEP_OUT)) is not None:
        return run
    row = _ROWS[kind]
    return port, CODES[kind][0], frames, [row(port, frame, undo)[3] for frame in frames]


def received_run(
    frames: Sequence[Any], now: int, encoded: msgspec.Raw | None = None, *, whole: bool = False
) -> bytes | None:
    """One entry of receive() for all frames of a batch, of which `encoded` is the msgpack if it is known; None if they
    have to be recorded one by one."""
    kinds = set(map(type, frames))
    if len(kinds) != 1:
        return None
    if whole:
        return _encode((8, now, ("", CODES[kinds.pop()][0], encoded or frames), ()))
    run = make_run("", frames, KEEP_IN, encoded)
    return _encode((8, now, run, ())) if run is not None else None


def run_with_wrong(entry: bytes, wrong: list[int]) -> bytes:
    """The entry of a run, once tcp has found the checksums of the frames with these numbers wrong."""
    return entry[:-1] + _encode(wrong)  # an empty list is its last byte


def run_begun(entry: bytes, count: int) -> list[bytes]:
    """The entries of the first `count` frames of a run: the core was not given the rest."""
    return [_encode(call) for call in decode_entries(b"\x91" + entry)[:count]]
