"""`lvlip script`: packet scripts.

They run the cores, which this package never imports: so `python -m simulation.script` is started, as `lvlip up` starts
the layers, with the same arguments, output and exit status. (An entry point would import them into this process.)
"""

from __future__ import annotations

import subprocess
import sys

import click

from levelip.cli.common import EXIT_FAILED, Stack, StackCommand


@click.command(
    cls=StackCommand,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(stack: Stack, arguments: tuple[str, ...]) -> None:
    """Run, check or record packet scripts (packetdrill's language)."""
    words = list(arguments) or ["--help"]
    if stack.json and words[0] in ("run", "check"):
        words.append("--json")
    if words[0] == "record":
        for flag, value in (("--name", stack.name), ("--run", stack.root)):
            if value is not None and flag not in words:
                words += [flag, value]
    code = subprocess.run([sys.executable, "-m", "simulation.script", *words], check=False).returncode
    if code:
        sys.exit(code if code > 0 else EXIT_FAILED)
