"""What the debugger's commands print: held frames, steps, stops, breakpoints. `lvlip debug` prints the same."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from levelip.cli.common import Failure, Stack, columns, means_something
from levelip.debug import holding
from levelip.debug.points import EXITS
from levelip.debug.tap import CAUSES, FIELDS, GSO, HEAD, LENGTH, PAYLOAD, TYPE
from levelip.ipc.clock import Hold
from levelip.tracing.dissect import Describer
from levelip.tracing.formatting import event_line

if TYPE_CHECKING:
    from levelip.debug.debugger import Debugger
    from levelip.debug.model import Breakpoint, Fed, HeldFrame, State, Stop

PEERS = "Their peers' timers go on: they send again what is not acknowledged, and give up in the end."
_UP, _DOWN = "↑", "↓"
_SHOWN_BYTES = 32


@contextlib.contextmanager
def debugging(stack: Stack, *, tool: str, force: bool = False) -> Iterator[Debugger]:
    """The debugger of the stack that a command is for; what it cannot understand is wrong usage, a capture that cannot
    be read a failure."""
    from levelip.debug.debugger import Debugger
    from levelip.tracing.capturefile import CaptureError

    stack.need_running()
    with Debugger(stack.run.name, root=stack.run.root, tool=stack.tool or tool, force=force) as debugger:
        try:
            with means_something(*misunderstood()):
                yield debugger
        except CaptureError as error:
            raise Failure(str(error)) from None


def need_all(unreached: str) -> None:
    """Failure if there is something to tell of layers that were not reached (Debugger.unreached)."""
    if unreached:
        raise Failure(unreached)


def misunderstood() -> tuple[type[Exception], ...]:
    """What expressions, places, changes and packets raise that mean nothing."""
    from levelip.debug.model import Misused
    from levelip.tracing.build import BuildError
    from levelip.tracing.expressionparser import ExpressionError
    from levelip.tracing.fieldvalues import EditError
    from levelip.tracing.packetline.values import ScriptError

    return (BuildError, EditError, ExpressionError, Misused, ScriptError)


def arrow(way: str) -> str:
    """↑ is toward the applications."""
    return _UP if way == "up" else _DOWN


def frame_text(frame: HeldFrame, describer: Describer | None = None) -> str:
    """One line of what a held frame is, in tcpdump's habit."""
    one = frame.record
    describer = describer or Describer(absolute=True)
    return describer.describe(frame.seam, one[TYPE], one[FIELDS], one[HEAD], one[PAYLOAD], one[LENGTH], one[GSO])


def held_table(frames: Sequence[HeldFrame], now: int) -> str:
    """Held frames under a header, in the order in which their queues go."""
    describer = Describer(absolute=True)
    mono = time.monotonic_ns()
    rows = [
        (
            one.name,
            f"{one.seam} {arrow(one.way)}",
            "delayed" if one.due else one.place,
            f"{(one.due - now) / 1e6:.1f} ms left" if one.due else f"{(mono - one.entered) / 1e9:.3f} s",
            frame_text(one, describer),
        )
        for one in frames
    ]
    return columns(rows, ("frame", "seam", "place", "held for", ""), right={2, 3})


def fed_lines(fed: Fed) -> list[str]:
    """What a step did: the frame, what was decided, what came out."""
    if fed.frame is None:
        lines = [f"timer of {fed.process}"]
    else:
        one = fed.frame
        where = "out of the stack" if fed.left else f"to {fed.process}"
        lines = [f"{one.name} {one.seam} {arrow(one.way)} {where}: {frame_text(one)}"]
    lines += [f"    {event_line(fed.process, event)}" for event in fed.events]
    for one in fed.output:
        lines.append(f"  → {one.name} held at {one.seam} {arrow(one.way)}: {frame_text(one)}")
    for kind, point in fed.passed:
        seam, _, way = point.partition(" ")
        lines.append(f"  → {kind} went on at {seam} {arrow(way)}")
    if not fed.output and not fed.passed and not fed.left:
        lines.append("  nothing came out")
    return lines


def stop_lines(stop: Stop) -> list[str]:
    """Which breakpoint stopped the stack, and at what."""
    lines = [f"breakpoint {stop.breakpoint} in {stop.process}: {stop.text}"]
    if stop.event is not None:
        lines.append(f"  {event_line(stop.process, stop.event)}")
    return lines


def state_lines(state: State, run_name: str) -> list[str]:
    """How the stack stands."""
    if not state.held:
        held = sum(queue.held + queue.delayed for queue in state.queues)
        return [f"stack {run_name!r} runs" + (f"; {held} frames are still to go" if held else "")]
    lines = [f"stack {run_name!r} is held {who(state)}"]
    if state.at:
        lines.append(f"  only at {', '.join(state.at)}; elsewhere frames pass")
    if state.stop is not None:
        lines += [f"  {line}" for line in stop_lines(state.stop)]
    lines.append(f"  {queues_text(state)}")
    if state.behind:
        lines.append(f"  {holding.behind_text(state.behind)}")
    if state.elsewhere:
        lines.append(f"  {holding.elsewhere_text(state.elsewhere)}")
    if state.silent:
        lines.append(f"  {', '.join(state.silent)} did not answer")
    return lines


def who(state: State) -> str:
    """Since when, and by whom."""
    if state.holder is None or state.since is None:
        return holding.describe(None)
    return holding.describe(Hold(state.holder, state.since))


def queues_text(state: State) -> str:
    """How much is held where, in a sentence."""
    queues = [queue for queue in state.queues if queue.held or queue.delayed]
    total = sum(queue.held + queue.delayed for queue in queues)
    if not total:
        return "no frames are held"
    each = []
    for queue in queues:
        seam, _, way = queue.point.partition(" ")
        full = ", full: the device is not read" if queue.full and seam == "link" else ", full" if queue.full else ""
        each.append(f"{seam} {arrow(way)} {queue.held + queue.delayed}{full}")
    return f"{total} frame{'s' if total > 1 else ''} held: {'; '.join(each)}"


def breakpoint_table(rows: Sequence[tuple[Breakpoint, int, int]]) -> str:
    """Breakpoints under a header."""
    table = [
        (one.number, "event" if one.about_events else "packet", "on" if one.enabled else "off", met, stops, one.text())
        for one, met, stops in rows
    ]
    return columns(table, ("number", "at", "", "met", "stops", "breakpoint"), right={0, 3, 4})


def show_lines(row: HeldFrame, frame: Any) -> list[str]:
    """A held frame in full: what it is, its fields, its bytes."""
    from levelip.cli.tracelines import hexdump
    from levelip.frames.packet import format_frame_id

    one = row.record
    causes = ", ".join(format_frame_id(cause) for cause in one[CAUSES])
    identity = f", frame {format_frame_id(row.id)}" if row.id else ""
    lines = [
        f"{row.name}: {row.kind} at {row.seam} {arrow(row.way)}, place {row.place} before "
        f"{'the way out' if f'{row.seam} {row.way}' in EXITS else row.process}"
        f"{identity}{f', because of {causes}' if causes else ''}",
        f"  {frame_text(row)}",
    ]
    values = _fields(row, frame)
    width = max((len(name) for name in values), default=0)
    lines += [f"  {name:<{width}}  {_value(value)}" for name, value in values.items()]
    data = bytes(one[HEAD]) + bytes(one[PAYLOAD])
    if data:
        lines.append(hexdump(data, "  "))
    return lines


def show_json(row: HeldFrame, frame: Any) -> dict[str, Any]:
    """The same as data."""
    return {**frame_json(row), "fields": _fields(row, frame)}


def _fields(row: HeldFrame, frame: Any) -> dict[str, Any]:
    """Every field by its name; of a message that is no packet what the tap bus tells."""
    from levelip.tracing.fields import fields

    if frame is None:
        return dict(row.record[FIELDS])
    return fields(frame, seam=row.seam, direction=row.way)


def _value(value: Any) -> str:
    if isinstance(value, bytes):
        short = value[:_SHOWN_BYTES].hex(":")
        return short if len(value) <= _SHOWN_BYTES else f"{short}... ({len(value)} bytes)"
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value)
    return str(value)


def as_json(data: Any) -> Any:
    """A state, step, frame or breakpoint as plain data."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return {field.name: as_json(getattr(data, field.name)) for field in dataclasses.fields(data)}
    if isinstance(data, msgspec.Struct):
        return {name: as_json(getattr(data, name)) for name in data.__struct_fields__}
    if isinstance(data, (list, tuple)):
        return [as_json(one) for one in data]
    return data


def frame_json(frame: HeldFrame) -> dict[str, Any]:
    """A held frame with its text."""
    return {**as_json(frame), "id": frame.id, "kind": frame.kind, "text": frame_text(frame)}


def say(stack: Stack, lines: Sequence[str], data: Any) -> None:
    """Lines for people, or one JSON value."""
    if stack.json:
        stack.emit(as_json(data))
    else:
        click.echo("\n".join(lines))
