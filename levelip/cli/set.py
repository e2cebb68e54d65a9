"""`lvlip set`: change tunables of running layers."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from levelip.cli import supervise
from levelip.cli.common import Failure, Stack, StackCommand, means_something
from levelip.cli.get import OWNERS, owner_layers
from levelip.configfile import ConfigError, Key, Overlay, keys, literal, load, parse_setting
from levelip.ipc.control import NotRunning


@click.command(cls=StackCommand)
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.pass_obj
def command(stack: Stack, settings: tuple[str, ...]) -> None:
    """Change settings of a running stack.

    What changed holds until `lvlip down`, also when a layer is restarted; for longer put it into the configuration
    file. A setting that a running layer cannot change takes effect when that layer is restarted. So it is mended if
    the layer does not start with it.

    \b
    lvlip set tcp.delayed_ack_ms=0 tcp.nagle=false
    """
    with means_something(ConfigError):
        parsed = [parse_setting(setting, source="") for setting in settings]
    running = stack.need_running()
    overlay, path = supervise.was_set(stack.run), supervise.Paths.of(stack.run).settings
    if overlay is not None:  # all of it, together, must make sense before anything changes
        load(environ={}, settings=settings, overlay={**_live(stack, running), **overlay.settings})
    else:
        for key, _ in parsed:
            if not key.runtime:
                raise Failure(
                    f"{key.dotted} needs a restart, and this stack has no supervisord that could remember it; "
                    "put it into the configuration file"
                )
    for key, value in parsed:
        old = _change(stack, key, value, running) if key.runtime else _current(stack, key, running, overlay)
        waited = overlay.settings.get(key.dotted, old) if overlay is not None else old
        if overlay is not None:
            overlay.settings[key.dotted] = value
            overlay.write(path)
        _say(stack, key, old, value, waited, kept=overlay is not None)


def _live(stack: Stack, running: list[str]) -> dict[str, Any]:
    """What the running layers use now, dotted key → value. One that is silent may not start with what it shall use."""
    found: dict[str, Any] = {}
    for section in dict.fromkeys(key.section for key in keys().values()):
        owner = OWNERS.get(section, running[0])
        if owner in running:
            try:
                values = stack.ask(owner, "get", section=section)["values"]
            except NotRunning:
                continue
            found.update({f"{section}.{name}": value for name, value in values.items()})
    return found


def _change(stack: Stack, key: Key, value: Any, running: list[str]) -> Any:
    """Tell the layers; the value before."""
    layers = owner_layers(key, running) or [OWNERS[key.section]]
    answers = [stack.ask(layer, "set", section=key.section, key=key.name, value=value) for layer in layers]
    return answers[0]["old"]


def _current(stack: Stack, key: Key, running: list[str], overlay: Overlay | None) -> Any:
    """What is used, or, of a layer that does not answer, shall be; None if that is not known."""
    if layers := owner_layers(key, running):
        with contextlib.suppress(NotRunning):
            return stack.ask(layers[0], "get", section=key.section)["values"][key.name]
    return overlay.settings.get(key.dotted) if overlay is not None else None


def _say(stack: Stack, key: Key, old: Any, new: Any, waited: Any, *, kept: bool) -> None:
    """`waited`: what was set before and was to be used after a restart."""
    owner = OWNERS.get(key.section)
    used = key.runtime or new == old
    if stack.json:
        stack.emit({"key": key.dotted, "old": old, "new": new, "now": used, "kept": kept,
                    "restart": None if used else owner or "all"})  # fmt: skip
        return
    if used and not key.runtime:
        instead = f", and so after a restart, where it was to be {literal(waited)}" if waited != new else " already"
        click.echo(f"{key.dotted} is {literal(new)}{instead}")
        return
    line = f"{key.dotted} {literal(old)} → {literal(new)}" if old is not None else f"{key.dotted} = {literal(new)}"
    if not key.runtime:
        line += f", after a restart: lvlip restart {owner or 'all'}{stack.name_flag()}"
    elif not kept:
        line += ", until the layer is restarted (no supervisord)"
    click.echo(line)
