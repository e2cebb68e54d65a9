"""Records of the tap bus as lines: text in tcpdump's habit, or JSON; and which events a filter leaves over."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from levelip.cli.common import plain
from levelip.debug.filtering import RecordFilter
from levelip.debug.tap import (
    CAUSES,
    CHECKSUM,
    DIRECTION,
    EVENT_MONO,
    FIELDS,
    GSO,
    HEAD,
    ID,
    KIND,
    LENGTH,
    MONO,
    PAYLOAD,
    PROCESS,
    SEAM,
    STACK,
    TYPE,
    Notice,
    Record,
    event_of,
    goes_up,
)
from levelip.frames.packet import Checksum, format_frame_id
from levelip.tracing.dissect import Describer
from levelip.tracing.events import Event
from levelip.tracing.formatting import event_line, sentence
from levelip.tracing.reasons import Severity, lookup
from levelip.wire.addr import format_address

_NS = 1_000_000_000
_INDENT = " " * 35
_REMEMBERED = 100_000
"""Ids of frames that passed the filter, kept to let the events about them pass."""


class Lines(Protocol):
    """Makes the text of a record, without the final newline."""

    def line(self, record: Record | Notice) -> str: ...


class Chooser:
    """Which records to show. Frames were filtered where they were published, but for an expression; events are here:
    one passes if it is about a frame that passed, or its connection is what was asked for. With an expression about
    events it has to be true of them as well."""

    def __init__(
        self, filter_: Mapping[str, Any], kinds: Iterable[str] = (), expression: RecordFilter | None = None
    ) -> None:  # fmt: skip
        self._expression = expression
        self._about_events = about_events = expression is not None and expression.expression.about_events
        self._host = format_address(filter_["host"]) if filter_.get("host") else ""
        self._port = str(filter_["port"]) if filter_.get("port") else ""
        self._needs_frame = "flags" in filter_ or "proto" in filter_ or (expression is not None and not about_events)
        self._filtered = bool(filter_) or (expression is not None and not about_events)
        self._kinds = frozenset(kinds)
        self._passed: dict[int, None] = {}

    def wants(self, record: Record | Notice) -> bool:
        """Whether to show it."""
        if isinstance(record, Notice):
            return True
        if record[KIND] == "f":
            if self._expression is not None and not self._expression.frame(record):
                return False
            if self._filtered:
                self._passed[record[ID]] = None
                if len(self._passed) > _REMEMBERED:
                    self._passed = dict.fromkeys(list(self._passed)[_REMEMBERED // 2 :])
            return True
        event = event_of(record)
        if self._kinds and event.kind not in self._kinds:
            return False
        if self._about_events and self._expression is not None and not self._expression.event(record):
            return False
        if not self._filtered or event.frame in self._passed:
            return True
        if self._needs_frame or not event.conn:
            return False
        return self._concerns(event.conn)

    def _concerns(self, conn: str) -> bool:
        ends = [end.rpartition(":") for end in conn.split(">")]
        if self._host and self._host not in [host for host, _, _ in ends]:
            return False
        return not self._port or self._port in [port for _, _, port in ends]


class WallClock:
    """Monotonic time to the time of day; what a second has in common is made once."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()
        self._second = -1
        self._text = ""

    def text(self, mono: int) -> str:
        """ "12:34:56.123456"."""
        second, ns = divmod(mono + self._offset, _NS)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%H:%M:%S", time.localtime(second))
        return f"{self._text}.{ns // 1000:06d}"

    def ns(self, mono: int) -> int:
        """Nanoseconds since 1970."""
        return mono + self._offset


class TextLines:
    """Lines for people. `colour` with terminal escapes."""

    def __init__(
        self, *, absolute: bool = False, verbose: bool = False, hexdump: bool = False, colour: bool = False,
        clock: WallClock | None = None,
    ) -> None:  # fmt: skip
        self._describer = Describer(absolute=absolute, verbose=verbose)
        self._describe = self._describer.describe
        self._clock = clock or WallClock()
        self._verbose = verbose
        self._hexdump = hexdump
        self._paint = _Paint() if colour else None
        self._ways: dict[tuple[str, str, str], str] = {}

    def line(self, record: Record | Notice) -> str:
        if isinstance(record, Notice):
            text = f"{self._clock.text(record.mono)} -- {record.text}"
            return self._paint.notice(text) if self._paint else text
        if record[KIND] == "e":
            return self._event(record)
        process, seam, direction, _, mono, id_, causes, type_, fields, head, payload, length, checksum, gso = record[2:]
        way = self._ways.get((process, seam, direction))
        if way is None:
            arrow = "↑" if goes_up(process, seam, direction) else "↓"
            way = self._ways[process, seam, direction] = f" {seam:<14} {arrow} "
        text = self._clock.text(mono) + way + self._describe(seam, type_, fields, head, payload, length, gso)
        if self._verbose:
            text += f"\n{_INDENT}{process} {direction}, {_identity(id_, causes, checksum)}"
        if self._paint:
            text = self._paint.packet(text, type_, head)
        if self._hexdump:
            text += "\n" + hexdump(head + payload, _INDENT)
        return text

    def _event(self, record: Record) -> str:
        event = event_of(record)
        text = f"{self._clock.text(record[EVENT_MONO])} {'':<14}   {event_line(record[PROCESS], event)}"
        if self._verbose and event.frame:
            text += f" {{{format_frame_id(event.frame)}}}"
        return self._paint.event(text, event) if self._paint else text


def _identity(id_: int, causes: list[int], checksum: int) -> str:
    because = f" because of {', '.join(map(format_frame_id, causes))}" if causes else ""
    state = Checksum(checksum).name.lower() if checksum in Checksum._value2member_map_ else str(checksum)
    return f"frame {format_frame_id(id_)}{because}, checksum {state}"


def hexdump(data: bytes, indent: str = "") -> str:
    """Sixteen bytes a line: offset, hex, text."""
    lines = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{indent}0x{at:04x}  {row.hex(' ', 2):<39}  {text}")
    return "\n".join(lines)


class _Paint:
    """Colours for a terminal, made by rich's styles once."""

    def __init__(self) -> None:
        from rich.style import Style

        def codes(style: str) -> tuple[str, str]:
            before, _, after = Style.parse(style).render("\0").partition("\0")
            return before, after

        self._dim = codes("dim")
        self._event = codes("cyan")
        self._state = codes("bold green")
        self._bad = codes("bold red")
        self._normal_drop = codes("yellow")
        self._control = codes("bold")

    @staticmethod
    def _wrap(text: str, codes: tuple[str, str]) -> str:
        return f"{codes[0]}{text}{codes[1]}"

    def notice(self, text: str) -> str:
        return self._wrap(text, self._normal_drop)

    def packet(self, text: str, _type: str, _head: bytes) -> str:
        """Bold where a connection begins or ends; the time dimmed."""
        time_, rest = text[:15], text[15:]
        if "Flags [S" in rest or "Flags [F" in rest or "Flags [R" in rest:
            rest = self._wrap(rest, self._control)
        return self._wrap(time_, self._dim) + rest

    def event(self, text: str, event: Event) -> str:
        time_, rest = text[:15], text[15:]
        style = self._event
        if event.kind == "drop":
            reason = lookup(event.reason)
            style = self._bad if reason is None or reason.severity is Severity.ERROR else self._normal_drop
        elif event.kind == "state":
            style = self._state
        return self._wrap(time_, self._dim) + self._wrap(rest, style)


class JsonLines:
    """One object a line, with everything that the record holds."""

    def __init__(self, *, hexdump: bool = False, clock: WallClock | None = None) -> None:
        self._describe = Describer().describe
        self._clock = clock or WallClock()
        self._encode = msgspec.json.encode
        self._payload = hexdump

    def line(self, record: Record | Notice) -> str:
        if isinstance(record, Notice):
            data: dict[str, Any] = {"time": self._clock.ns(record.mono), "mono_ns": record.mono, "notice": record.text}
        elif record[KIND] == "e":
            data = self._event(record)
        else:
            data = self._frame(record)
        return self._encode(data).decode()

    def _frame(self, record: Record) -> dict[str, Any]:
        data = {
            "time": self._clock.ns(record[MONO]),
            "stack_ns": record[STACK],
            "mono_ns": record[MONO],
            "process": record[PROCESS],
            "seam": record[SEAM],
            "direction": record[DIRECTION],
            "way": "up" if goes_up(record[PROCESS], record[SEAM], record[DIRECTION]) else "down",
            "frame": format_frame_id(record[ID]),
            "causes": [format_frame_id(cause) for cause in record[CAUSES]],
            "type": record[TYPE],
            "text": self._describe(
                record[SEAM], record[TYPE], record[FIELDS], record[HEAD], record[PAYLOAD], record[LENGTH], record[GSO]
            ),
            "length": len(record[HEAD]) + record[LENGTH],
            "gso_size": record[GSO],
            "checksum": Checksum(record[CHECKSUM]).name.lower(),
            "fields": plain(record[FIELDS]),
            "head": record[HEAD].hex(),
        }
        if self._payload:
            data["payload"] = record[PAYLOAD].hex()
        return data

    def _event(self, record: Record) -> dict[str, Any]:
        event = event_of(record)
        reason = lookup(event.reason) if event.reason else None
        return {
            "time": self._clock.ns(record[EVENT_MONO]),
            "stack_ns": event.at,
            "mono_ns": record[EVENT_MONO],
            "process": record[PROCESS],
            "event": event.kind,
            "text": sentence(event),
            "conn": event.conn,
            "frame": format_frame_id(event.frame) if event.frame else None,
            "reason": event.reason or None,
            "rule": reason.rule if reason else None,
            "severity": reason.severity.value if reason else None,
            "data": plain(event.data),
        }
