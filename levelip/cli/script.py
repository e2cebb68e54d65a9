"""`lvlip script`: packet scripts."""

from __future__ import annotations

import click

from levelip.cli.common import Stack
from levelip.cli.passedon import passed_on, run


@passed_on
@click.pass_obj
def command(stack: Stack, arguments: tuple[str, ...]) -> None:
    """Run, check or record packet scripts (packetdrill's language)."""
    words = list(arguments)
    verb = words[0] if words else ""
    if stack.json and verb in ("run", "check"):
        words.append("--json")
    if verb in ("record", "--record"):
        words[0] = "record"
        for flag, value in (("--name", stack.name), ("--run", stack.root)):
            if value is not None and flag not in words:
                words += [flag, value]
    run(stack, "simulation.script", words)
