"""Commands that run the cores, which this package never imports: `python -m simulation.X` is started, as `lvlip up`
starts the layers, with the same arguments, output and exit status. (An entry point would import them into this
process.)
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from levelip.cli.common import EXIT_FAILED, StackCommand


def passed_on(function: Any) -> click.Command:
    """A command that takes whatever words there are; its own --help is that of what is started."""
    command = click.command(
        cls=StackCommand,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    made: click.Command = command(click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(function))
    return made


def run(module: str, words: Sequence[str]) -> None:
    """Run `python -m MODULE WORDS` in our place."""
    code = subprocess.run([sys.executable, "-m", module, *words], check=False).returncode
    if code:
        sys.exit(code if code > 0 else EXIT_FAILED)
