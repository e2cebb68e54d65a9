"""`lvlip get`: what the running layers use."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import click

from levelip.cli import supervise
from levelip.cli.common import LAYERS, Failure, Stack, StackCommand
from levelip.configfile import Key, Overlay, keys, literal
from levelip.ipc.control import NotRunning

OWNERS = {"device": "link", "link": "link", "ip": "ip", "tcp": "tcp", "udp": "udp", "gateway": "gateway"}
"""Which layer a section belongs to; those that are missing here concern all."""


@click.command(cls=StackCommand)
@click.argument("names", nargs=-1, metavar="[KEY]...")
@click.pass_obj
def command(stack: Stack, names: tuple[str, ...]) -> None:
    """Show settings of a running stack.

    KEY is a setting ("tcp.delayed_ack_ms") or a section ("tcp"); without one all are shown. The default stands behind
    a value that is another, and what was set and waits for a restart of the layer. What keys mean: `lvlip config`.

    \b
    lvlip get tcp.delayed_ack_ms
    lvlip get ip tcp
    """
    wanted = select(names)
    running = stack.need_running()
    overlay = supervise.was_set(stack.run)
    values: dict[str, dict[str, Any]] = {}
    for key in wanted:
        if key.section not in values:
            owner = OWNERS.get(key.section, running[0])
            if owner not in running and not names:
                values[key.section] = {}
                click.echo(f"lvlip: {owner} is not running; [{key.section}] is left out", err=True)
                continue
            values[key.section] = _values(stack, owner, key.section, overlay)
    for key in wanted:
        if key.name not in values[key.section]:
            continue
        value = values[key.section][key.name]
        pending = overlay.settings.get(key.dotted, value) if overlay is not None else value
        if stack.json:
            facts = {"key": key.dotted, "value": value, "default": key.default, "runtime": key.runtime}
            stack.emit({**facts, "pending": None if pending == value else pending})
            continue
        notes = [] if value == key.default else [f"default {literal(key.default)}"]
        if pending != value:
            restart = f"lvlip restart {OWNERS.get(key.section, 'all')}{stack.name_flag()}"
            notes.append(f"set to {literal(pending)}, after a restart: {restart}")
        click.echo(f"{key.dotted} = {literal(value)}{'  # ' if notes else ''}{'; '.join(notes)}")


def _values(stack: Stack, owner: str, section: str, overlay: Overlay | None) -> dict[str, Any]:
    """What a layer uses. Failure, with what is set, if it does not answer: it may be with that that it does not start.
    """
    try:
        found: dict[str, Any] = stack.ask(owner, "get", section=section)["values"]
    except (Failure, NotRunning) as error:
        waits = [
            f"{dotted} = {literal(value)}"
            for dotted, value in (overlay.settings if overlay is not None else {}).items()
            if dotted.startswith(f"{section}.")
        ]
        said = error.format_message() if isinstance(error, Failure) else str(error)
        raise Failure(f"{said}; set since lvlip up: {', '.join(waits)}" if waits else said) from None
    return found


def select(names: Iterable[str]) -> list[Key]:
    """The keys that these names and sections mean; UsageError for an unknown one."""
    known = keys()
    sections = {key.section for key in known.values()}
    found: dict[str, Key] = {}
    for name in names:
        if name in known:
            found[name] = known[name]
        elif name in sections:
            found.update({dotted: key for dotted, key in known.items() if key.section == name})
        else:
            near = difflib.get_close_matches(name, [*known, *sections], n=1)
            raise click.UsageError(
                f"there is no setting {name!r}; " + (f"did you mean {near[0]}?" if near else "see: lvlip config")
            )
    return list(found.values()) if found else list(known.values())


def owner_layers(key: Key, running: Iterable[str]) -> list[str]:
    """The layers that a key concerns, of those that run."""
    owner = OWNERS.get(key.section)
    return [layer for layer in LAYERS if layer in running and owner in (None, layer)]
