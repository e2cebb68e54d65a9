"""Calls, frames and events as lines. Sequence numbers are absolute: a line does not depend on the way to it."""

from __future__ import annotations

from typing import Any

from levelip.frames.packet import format_frame_id
from levelip.tracing.dissect import Describer
from levelip.tracing.events import Event
from levelip.tracing.formatting import event_line, sentence
from levelip.tracing.recordedcalls import Asked, Entry, Faulted, Flushed, Interest, Received, SetTo, TimerRan
from simulation.replay.layers import where_in, where_out

_ARROWS = {"up": "↑", "down": "↓", "": " "}
_ASIDE = ("id", "causes", "traced", "ingress", "head", "payload")
_describer = Describer(absolute=True)


def frame_text(frame: Any, seam: str) -> str:
    """One line in tcpdump's habit."""
    inner = getattr(frame, "message", frame)
    fields = {name: getattr(inner, name) for name in inner.__struct_fields__ if name not in _ASIDE}
    head, payload, gso_size = getattr(inner, "head", b""), getattr(inner, "payload", b""), getattr(inner, "gso_size", 0)
    data = payload if isinstance(payload, bytes) else b""
    return _describer.describe(seam, type(inner).__name__, fields, head, data, len(payload), gso_size)


def in_text(process: str, frame: Any) -> str:
    """What a core was given."""
    seam, way = where_in(process, frame)
    return f"in  {seam:<14} {_ARROWS[way]} {frame_text(frame, seam)}{_identity(frame)}"


def out_text(process: str, port: str, frame: Any) -> str:
    """What it put out."""
    seam, way = where_out(process, port)
    return f"out {seam:<14} {_ARROWS[way]} {frame_text(frame, seam)}{_identity(frame)}"


def out_lines(process: str, output: list[tuple[str, Any]]) -> list[str]:
    """What it put out, a line each; what goes to shared memory in one."""
    stores = [frame for port, frame in output if port == "memory"]
    lines = [out_text(process, port, frame) for port, frame in output if port != "memory"]
    if stores:
        size = sum(len(store.payload) for store in stores)
        lines.insert(0, f"out {'memory':<14}   {size} bytes in {len(stores)} piece{'s' * (len(stores) > 1)}")
    return lines


def event_text(process: str, event: Event) -> str:
    """What it decided."""
    return f"{'':>21}{event_line(process, event)}"


def _identity(frame: Any) -> str:
    ident = getattr(frame, "id", 0)
    return f"  {format_frame_id(ident)}" if ident else ""


def call_text(process: str, entry: Entry, frame: Any = None) -> str:
    """What was asked."""
    match entry:
        case Received():
            return in_text(process, frame)
        case TimerRan():
            return "timers run"
        case Flushed():
            return "flush" if all(room for room in entry.room.values()) else f"flush, room {entry.room}"
        case Asked():
            return f"command {entry.name} {entry.args}"
        case SetTo():
            return f"{process}.{entry.key} = {entry.value!r}"
        case Interest():
            return f"events are {'listened to' if entry.on else 'not listened to any more'}"
        case Faulted():
            return "; ".join(sentence(event) for event in entry.events)
    return "events are taken"


def time_text(now: int, since: int) -> str:
    """Seconds since an instant, to the microsecond."""
    return f"{(now - since) / 1e9:.6f}"
