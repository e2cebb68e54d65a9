"""`lvlip explain`: what a drop reason means."""

from __future__ import annotations

import difflib

import click

from levelip.cli.common import Failure, Stack, StackCommand, columns
from levelip.tracing.reasons import all_reasons, lookup


@click.command(cls=StackCommand)
@click.argument("reason", required=False)
@click.pass_obj
def command(stack: Stack, reason: str | None) -> None:
    """Explain a drop reason.

    REASON is the name as in `lvlip stat` ("drop.below_window" or "below_window"); without one all are listed.
    """
    if reason is None:
        found = all_reasons()
    else:
        one = lookup(reason.removeprefix("drop."))
        if one is None:
            near = difflib.get_close_matches(reason, [row.name for row in all_reasons()], n=1, cutoff=0.5)
            raise Failure(f"there is no reason {reason!r}" + (f"; did you mean {near[0]}?" if near else ""))
        found = [one]
    if stack.json:
        for row in found:
            stack.emit(
                {
                    "reason": row.name,
                    "layer": row.layer,
                    "severity": row.severity.value,
                    "sentence": row.sentence,
                    "rule": row.rule,
                    "counter": row.counter,
                }
            )
    elif reason is not None:
        row = found[0]
        click.echo(f"{row.layer}: {row.sentence}")
        click.echo(f"rule      {row.rule or 'ours'}")
        click.echo(f"severity  {row.severity.value}")
        click.echo(f"counter   {row.counter}")
    else:
        click.echo(
            columns(
                [(row.layer, row.name, row.severity.value, row.sentence, row.rule) for row in found],
                ("layer", "reason", "severity", "means", "rule"),
            )
        )
