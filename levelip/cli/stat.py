"""`lvlip stat`: counters of all layers with what they mean, in the habit of nstat."""

from __future__ import annotations

import time
from collections.abc import Iterable

import click

from levelip.cli.common import LAYERS, Failure, Seconds, Stack, StackCommand, columns, elsewhere
from levelip.tracing.reasons import lookup


@click.command(cls=StackCommand)
@click.option("--layer", "layers", multiple=True, type=click.Choice(LAYERS), help="Only this layer. May be repeated.")
@click.option("-z", "--zeros", is_flag=True, help="Those that are zero too.")
@click.option("--nonzero", is_flag=True, help="Only those that are not zero (the default).")
@click.option("--drops", is_flag=True, help="Only what was discarded.")
@click.option("-d", "--delta", metavar="SECONDS", type=Seconds(min=0.01),
              help="What was added within this time, instead of since the start.")  # fmt: skip
@click.pass_obj
def command(
    stack: Stack, layers: tuple[str, ...], zeros: bool, nonzero: bool, drops: bool, delta: float | None
) -> None:
    """Show counters by layer; discards with their reason and its rule.

    \b
    lvlip stat
    lvlip stat --drops --delta 5
    lvlip stat --layer tcp --zeros
    """
    del nonzero
    there = stack.need_running()
    running = [layer for layer in there if not layers or layer in layers]
    before, silent = _counters(stack, running)
    counters = before
    if delta is not None:
        time.sleep(delta)
        counters, fallen_silent = _counters(stack, before)
        silent += fallen_silent
    rows = []
    for layer, now in counters.items():
        old = before[layer] if delta is not None else {}
        for name in sorted(now):
            value = now[name] - old.get(name, 0)
            if (value or zeros) and (not drops or name.startswith("drop.")):
                rows.append((layer, name, value))
    if stack.json:
        for layer, name, value in rows:
            stack.emit({"layer": layer, "counter": name, "value": value, "means": means(name)})
    elif counters and not rows:
        what = f"was {'discarded' if drops else 'counted'}{f' in {delta:g} s' if delta is not None else ''}"
        click.echo(f"nothing {what}{elsewhere(silent)}{'' if zeros else '; with -z zeros are shown'}")
    elif counters:
        table = [(layer, value, name, means(name)) for layer, name, value in rows]
        click.echo(columns(table, ("layer", "value", "counter", "means"), right={1}))
    stack.need_answers(silent)
    if missing := [layer for layer in layers if layer not in there]:
        raise Failure(f"not running: {', '.join(missing)}; see: lvlip status{stack.name_flag()}")


def _counters(stack: Stack, layers: Iterable[str]) -> tuple[dict[str, dict[str, int]], list[str]]:
    answers, silent = stack.ask_all("counters", layers)
    return {layer: answer["counters"] for layer, answer in answers.items()}, silent


def means(name: str) -> str:
    """The sentence of a drop's reason, with its rule; empty for others, whose names say it."""
    reason = lookup(name.removeprefix("drop.")) if name.startswith("drop.") else None
    return str(reason) if reason is not None else ""
