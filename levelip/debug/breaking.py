"""What a breakpoint may be: whether it means something, and whether it can be met at all."""

from __future__ import annotations

from collections.abc import Sequence

from levelip.debug.model import Misused
from levelip.debug.points import PACKET_SEAMS, seam_and_way
from levelip.ipc.breakpoints import DUE
from levelip.tracing.eventfields import EVENTS
from levelip.tracing.expression import ALL_FIELDS, Expression, compile_expression
from levelip.tracing.fields import DIRECTIONS, near
from levelip.tracing.possible import events_of, packets_at

TO_TCP = "ip-tcp up"
_KINDS = (*EVENTS, DUE)
_MOST = 8
"""Kinds of events that a refusal tells; of more it would be no help."""


def check_breakpoint(expression: str, on: str, at: str, after: int) -> tuple[str, bool]:
    """(where, whether it is about events). Misused or ExpressionError for what cannot be, or would never be met."""
    if not expression.strip() and not on:
        raise Misused("a breakpoint needs an expression, or a kind of event (--on)")
    if after < 0:
        raise Misused("--after takes a number from 0")
    if on and on not in _KINDS:
        likely = near(on, _KINDS)
        raise Misused(f"there is no kind of event {on!r}; " + (f"perhaps {', '.join(likely)}" if likely
                      else f"there are {', '.join(_KINDS)}"))  # fmt: skip
    compiled = compile_expression(expression) if expression.strip() else None
    if on or (compiled is not None and not compiled.about_frames):
        if compiled is not None:
            _check_of_events(compiled, on)
        if at:
            raise Misused("an event happens in a layer, at no seam: leave --at away")
        return "", True
    assert compiled is not None
    if at:
        seam, way = seam_and_way(at)
        if seam not in PACKET_SEAMS:
            raise Misused(f"no packets pass at {seam}: there are {', '.join(PACKET_SEAMS)}")
        at = f"{seam} {way}".strip()
    if compiled.needs_figures:  # which tcp alone knows: of the packets that come to it
        if at not in ("", "ip-tcp", TO_TCP):
            raise Misused(f"figures of a connection are known to tcp alone; packets come to it at {TO_TCP}")
        at = TO_TCP
    _check_of_packets(compiled, at)
    return at, False


def _check_of_events(expression: Expression, on: str) -> None:
    """Misused if there are no such events."""
    if on and not expression.about_events:
        raise Misused(f"{expression.text!r} is about packets, which --on {on} never sees")
    if about_packets := _fields(expression, "frame"):
        raise Misused(f"{about_packets[0]} is of packets, which --on {on} never sees; set two breakpoints")
    kinds = [kind for kind in EVENTS if expression.possible(events_of(kind))]
    if not kinds:
        raise Misused(f"{expression.text!r} can be true of no event: each is of one kind, and has the data of that")
    if on and not expression.possible(events_of(on)):
        others = f"; it can be of {_several(kinds)}" if len(kinds) <= _MOST else ""
        raise Misused(f"{expression.text!r} is true of no {on} event, and --on {on} sees no others{others}")


def _check_of_packets(expression: Expression, at: str) -> None:
    """Misused if no such packets pass there."""
    if about_events := _fields(expression, "event"):
        raise Misused(
            f"a breakpoint is about packets or about events: {about_events[0]} is of events, the rest of "
            f"{expression.text!r} of packets; set two"
        )
    points = [
        f"{seam} {way}" for seam in PACKET_SEAMS for way in DIRECTIONS if expression.possible(packets_at(seam, way))
    ]
    if not points:
        raise Misused(f"{expression.text!r} can be true of no packet at any of {', '.join(PACKET_SEAMS)}")
    if at and not any(point == at or point.startswith(f"{at} ") for point in points):
        both = [point.split()[0] for point in points if f"{point.split()[0]} up" in points and "down" in point]
        places = [*both, *(point for point in points if point.split()[0] not in both)]
        raise Misused(f"{expression.text!r} can be true of no packet at {at}; it can at {_several(places)}")


def _fields(expression: Expression, of: str) -> list[str]:
    """The fields that it uses that only packets ("frame") have, or events."""
    return [name for name in expression.fields if ALL_FIELDS[name].of == of]


def _several(names: Sequence[str]) -> str:
    """ "drop", "drop or state", "drop, rto or state"."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
