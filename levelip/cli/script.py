"""`lvlip script`: packet scripts."""

from __future__ import annotations

import click

from levelip.cli.common import Stack
from levelip.cli.passedon import passed_on, run


@passed_on
@click.pass_obj
def command(stack: Stack, arguments: tuple[str, ...]) -> None:
    """Run, check or record packet scripts (packetdrill's language)."""
    words = list(arguments) or ["--help"]
    if stack.json and words[0] in ("run", "check"):
        words.append("--json")
    if words[0] in ("record", "--record"):
        words[0] = "record"
        for flag, value in (("--name", stack.name), ("--run", stack.root)):
            if value is not None and flag not in words:
                words += [flag, value]
    run(stack, "simulation.script", words)
