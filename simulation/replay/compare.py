"""What was recorded beside what the replay did: frames, events, states; the first difference, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec

from levelip.frames.packet import DeviceFrame, Packet, Segment
from levelip.frames.seam import ForClient, Store
from levelip.rpc.stream import Data, Send
from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import (
    Cut,
    decode_frame,
    encode_frame,
    ip_begins,
    lengthen,
    tcp_begins,
)

_ICMP = 1
_STREAM = (Store, Data, Send)
_SUM = 2  # bytes behind a cut that `lengthen` makes other than zero
_RUN_4 = 92  # bytes of a segment that a run kept at least up to format 4: a TCP header of full length, and 32


@dataclass(slots=True)
class Divergence:
    """Where the replay left what was recorded. `recorded` and `replayed` are a frame, an event, a text or None."""

    call: int
    now: int
    what: str  # "frame", "event", "error", "state"
    port: str
    recorded: Any
    replayed: Any
    differs: list[str] = field(default_factory=list)  # "window: 512 recorded, 501 now"


class Known(Enum):
    """How much of a frame that is the same could be compared."""

    ALL = "all of it"
    PART = "as much of its payload as was recorded"
    LENGTH = "of its payload the length alone"


def compared(code: int, raw: bytes, cuts: list[Cut], frame: Any, *, whole: bool, older: bool = False) -> Known | None:
    """How much of a frame is known to be what was recorded; None if it is another. `older`: it is of a format that cut
    frames differently, in runs and alone, in and out."""
    try:
        mine = encode_frame(frame, whole=whole)
    except KeyError:
        return None
    usual = Known.PART if cuts else Known.ALL
    if mine == (code, raw, cuts):
        return usual
    if whole:
        return None
    if older and cuts and mine[0] == code and _same_as_cut(decode_frame(code, raw, []), cuts, frame):
        return usual
    recorded = decode_frame(code, raw, cuts)
    if recorded == frame:
        return usual
    return _same_but_bytes(recorded, frame) or (Known.PART if older and _same_but_tail(recorded, frame) else None)


def _same_until_unknown(recorded: bytes, mine: bytes) -> int | None:
    """How many bytes of the replay's are what was recorded, if behind them it has zeros only, but for a sum: what was
    cut of that which came in. None if there is more."""
    if len(recorded) != len(mine):
        return None
    pairs = enumerate(zip(recorded, mine, strict=True))
    same = next((place for place, (old, new) in pairs if old != new), len(mine))
    return None if any(mine[same + _SUM :]) else same


def _same_but_tail(recorded: Any, frame: Any) -> bool:
    """Where a frame came in within a run and went out alone, less stayed of what came in."""
    if type(recorded) is not type(frame) or not isinstance(frame, Packet | DeviceFrame | Segment):
        return False
    if type(frame.payload) is not bytes or type(recorded.payload) is not bytes:
        return False
    least = _RUN_4
    if not isinstance(frame, Segment):
        begin = tcp_begins(frame.head, ip_begins(frame.head) if isinstance(frame, DeviceFrame) else 0)
        if not begin:
            return False
        least += begin
    same = _same_until_unknown(recorded.head + recorded.payload, frame.head + frame.payload)
    if same is None or same < least or len(recorded.head) != len(frame.head):
        return False
    return bool(_headless(recorded) == _headless(frame))


def _headless(frame: Any) -> Any:
    return msgspec.structs.replace(frame, head=b"", payload=b"")


def _same_as_cut(recorded: Any, cuts: list[Cut], frame: Any) -> bool:
    """Where fields were cut to another length than `encode_frame` cuts to."""
    changes: dict[str, Any] = {}
    for name, length, _ in cuts:
        mine, kept = getattr(frame, name, None), getattr(recorded, name, None)
        if type(mine) is not bytes or type(kept) is not bytes or len(mine) != length:
            return False
        changes[name] = mine[: len(kept)]
    return bool(msgspec.structs.replace(frame, **changes) == recorded)


def _same_but_bytes(recorded: Any, frame: Any) -> Known | None:
    """Where payloads were cut, bytes behind the cut are zero here: what quotes them is held by its length, what stores
    or passes on a part of them by what is known of it and by its length."""
    if type(recorded) is not type(frame):
        return None
    if isinstance(frame, ForClient):
        return _same_but_bytes(recorded.message, frame.message) if recorded.peer == frame.peer else None
    if isinstance(frame, _STREAM):
        if _payloadless(recorded) != _payloadless(frame) or not type(recorded.payload) is type(frame.payload) is bytes:
            return None
        same = _same_until_unknown(recorded.payload, frame.payload)
        return None if same is None else Known.PART if same else Known.LENGTH
    if isinstance(frame, Packet) and frame.head[9:10] == b"\x01" == recorded.head[9:10]:
        quoted = frame.head[20:21]  # an ICMP error, whose quote and so whose checksum may differ
        if quoted in (b"\x03", b"\x0b", b"\x0c") and frame.head[:22] == recorded.head[:22]:
            same = len(frame.head) + len(frame.payload) == len(recorded.head) + len(recorded.payload)
            return Known.LENGTH if same else None
    return None


def _payloadless(frame: Any) -> Any:
    return msgspec.structs.replace(frame, payload=b"")


def frame_differences(recorded: Any, replayed: Any) -> list[str]:
    """The fields in which two frames differ."""
    if recorded is None or replayed is None:
        return []
    if type(recorded) is not type(replayed):
        return [f"a {type(recorded).__name__} was recorded, now it is a {type(replayed).__name__}"]
    if isinstance(replayed, Event):
        return [
            f"{name}: {getattr(recorded, name)!r} recorded, {getattr(replayed, name)!r} now"
            for name in Event.__struct_fields__
            if getattr(recorded, name) != getattr(replayed, name)
        ]
    found = []
    for name in replayed.__struct_fields__:
        before, after = getattr(recorded, name), getattr(replayed, name)
        if before == after:
            continue
        if isinstance(before, bytes) and isinstance(after, bytes):
            found += _bytes_differ(name, before, after)
        elif isinstance(before, msgspec.Struct) and type(before) is type(after):
            found += [f"{name}.{line}" for line in frame_differences(before, after)]
        else:
            found.append(f"{name}: {before!r} recorded, {after!r} now")
    return found


def _bytes_differ(name: str, before: bytes, after: bytes) -> list[str]:
    if len(before) != len(after):
        return [f"{name}: {len(before)} bytes recorded, {len(after)} now"]
    at = next(place for place, pair in enumerate(zip(before, after, strict=True)) if pair[0] != pair[1])
    return [f"{name}: from byte {at}: {before[at : at + 8].hex(' ')} recorded, {after[at : at + 8].hex(' ')} now"]


def rebuilt(code: int, raw: bytes, cuts: list[Cut]) -> Any:
    """A recorded frame, for people."""
    frame = decode_frame(code, raw, [])
    return lengthen(frame, cuts) if cuts else frame


# states

_UNTOLD = ("events", "interest")  # of a snapshot: what a recording does not hold alike


def plain_state(state: dict[str, Any]) -> dict[str, Any]:
    """A snapshot as a recording has it: through msgpack, without what depends on who listens."""
    data: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(state))
    for name in _UNTOLD:
        data.pop(name, None)
    return data


def flatten(data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of all that is in plain data. Rows with an address pair or an id are named by it."""
    if isinstance(data, dict) and data:
        for key, value in data.items():
            name = key.hex() if isinstance(key, bytes) else str(key)
            yield from flatten(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(data, list) and data and all(isinstance(item, dict) for item in data):
        for place, item in enumerate(data):
            yield from flatten(item, f"{prefix}[{_row_name(item, place)}]")
    else:
        yield prefix, data


def _row_name(row: dict[str, Any], place: int) -> str:
    if isinstance(row.get("local"), bytes) and isinstance(row.get("remote"), bytes) and len(row["local"]) == 4:
        local, remote = (".".join(map(str, row[side])) for side in ("local", "remote"))
        return f"{local}:{row['local_port']}>{remote}:{row['remote_port']}"
    return str(place)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(path, value before, value after) of all that changed; None where it was not there."""
    old, new = dict(flatten(before)), dict(flatten(after))
    names = [*old, *[name for name in new if name not in old]]
    return [(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def change_lines(changes: list[tuple[str, Any, Any]]) -> list[str]:
    """A line a change; rows that are new or gone in one line each."""
    lines: list[str] = []
    whole: dict[str, list[tuple[str, Any, Any]]] = {}
    for change in changes:
        row = change[0].partition("]")[0] + "]" if "]" in change[0] else ""
        whole.setdefault(row, []).append(change)
    for row, those in whole.items():
        if row and len(those) > 3 and (all(one[1] is None for one in those) or all(one[2] is None for one in those)):
            lines.append(f"{row}: {'new' if those[0][1] is None else 'gone'}")
            continue
        for name, old, new in those:
            if (old in ({}, []) and new is None) or (new in ({}, []) and old is None):
                continue  # a table that is no longer, or now, empty: its rows tell
            lines.append(f"{name}: {short(old)} → {short(new)}")
    return lines


def short(value: Any) -> str:
    """A value on a line."""
    if value is None:
        return "-"
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
