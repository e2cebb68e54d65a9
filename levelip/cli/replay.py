"""`lvlip replay`: recordings run again."""

from __future__ import annotations

import click

from levelip.cli.common import Stack
from levelip.cli.passedon import passed_on, run


@passed_on
@click.pass_obj
def command(stack: Stack, arguments: tuple[str, ...]) -> None:
    """Run a recording again, call by call, and look around in it."""
    words = list(arguments)
    if stack.json:
        words.append("--json")
    run(stack, "simulation.replay", words)
