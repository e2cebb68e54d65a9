"""Commands that run the cores, which this package never imports: `python -m simulation.X` is started, as `lvlip up`
starts the layers, with the same arguments, output and exit status. (An entry point would import them into this
process.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import click

from levelip.cli.common import EXIT_FAILED, Stack, StackCommand
from levelip.debug.programs import environment, python


def passed_on(function: Any) -> click.Command:
    """A command that takes whatever words there are; its own --help is that of what is started."""
    command = click.command(
        cls=StackCommand,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    )
    made: click.Command = command(click.argument("arguments", nargs=-1, type=click.UNPROCESSED)(function))
    return made


def run(stack: Stack, module: str, words: Sequence[str]) -> None:
    """Become `python -m MODULE WORDS`, whose terminal, signals and exit status are then its own. Where this process
    goes on afterwards (the prompt of `lvlip debug`, tests) it is a child; Ctrl-C is for the child then."""
    command = python(module, *words)
    if stack.alone:
        sys.stdout.flush()
        os.execve(command[0], command, environment())
    child = subprocess.Popen(command, env=environment())
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        code = child.wait()
    finally:
        signal.signal(signal.SIGINT, before)
    if code:
        raise click.exceptions.Exit(code if code > 0 else EXIT_FAILED)
