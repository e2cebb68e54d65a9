"""`lvlip replay`: recordings run again. That takes the cores: `python -m simulation.replay` is started (script.py)."""

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
    """Run a recording again, call by call, and look around in it."""
    words = list(arguments) or ["--help"]
    if stack.json:
        words.append("--json")
    code = subprocess.run([sys.executable, "-m", "simulation.replay", *words], check=False).returncode
    if code:
        sys.exit(code if code > 0 else EXIT_FAILED)
