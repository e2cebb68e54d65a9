"""Completion of what the debugger's commands take: frames that are held, places, fields, kinds of events."""

from __future__ import annotations

from collections.abc import Iterable

import click

from levelip.cli.common import LAYERS, Stack

_SEAMS = ("link-ip", "ip-tcp", "ip-udp", "tcp-gateway", "udp-gateway", "gateway-client")
_WORDS = ("and", "or", "not", "in", "contains", "matches", "event", "reason")


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def place_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Layers and seams."""
    seams = ("device", *_SEAMS)
    return _beginning(incomplete, [*LAYERS, *seams, *(f"{seam}:{way}" for seam in seams for way in ("up", "down"))])


def point_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Where packets can be injected."""
    seams = ("link", "link-ip", "ip-tcp", "ip-udp")
    return _beginning(incomplete, [f"{seam}:{way}" for seam in seams for way in ("up", "down")])


def frame_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of held frames."""
    from levelip.debug.debugger import Debugger
    from levelip.ipc.control import ControlError

    stack: Stack = context.obj or Stack()
    try:
        with Debugger(stack.name, root=stack.root) as debugger:
            return _beginning(incomplete, [one.name for one in debugger.held()])
    except (ControlError, ValueError, OSError):
        return []


def field_changes(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Fields that can be set, with the equals sign."""
    from levelip.tracing.edit import EDITABLE

    return _beginning(incomplete, [f"{name}=" for name in EDITABLE])


def expression_words(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """The last word of an expression: a field or an operator."""
    from levelip.tracing.expression import ALL_FIELDS

    before, space, last = incomplete.rpartition(" ")
    last_word = last.lstrip("(!")
    opened = last[: len(last) - len(last_word)]
    return [f"{before}{space}{opened}{name}" for name in _beginning(last_word, [*ALL_FIELDS, *_WORDS])]


def event_kinds(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Kinds of events."""
    from levelip.ipc.breakpoints import DUE
    from levelip.tracing.eventfields import EVENTS

    return _beginning(incomplete, [*EVENTS, DUE])
