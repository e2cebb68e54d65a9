"""`lvlip shell`: a shell in which everything runs over the stack."""

from __future__ import annotations

import os
from pathlib import Path

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.unmodified import ALL_OPENS, CAPTURE, NAMESERVERS, TRACE, run_program


@click.command(cls=StackCommand)
@TRACE
@CAPTURE
@click.option("-c", "line", metavar="COMMAND", help="Run this command line and end.")
@NAMESERVERS
@ALL_OPENS
@click.pass_obj
def command(
    stack: Stack, trace: Path | None, capture: Path | None, line: str | None, nameservers: tuple[str, ...],
    all_opens: bool,
) -> int:  # fmt: skip
    """A shell (SHELL, else /bin/sh) in which everything that is started runs over the stack; see lvlip run.

    LEVELIP_SHELL holds the stack's name there, for a prompt. Ends with exit.

    \b
    lvlip shell
    lvlip shell -c 'curl http://10.0.0.1:8000/ | wc -c'
    """
    program = os.environ.get("SHELL") or "/bin/sh"
    argv = (program, "-c", line) if line is not None else (program,)
    if line is None:
        click.echo(f"lvlip: {program} over stack {stack.run.name!r}; end with exit", err=True)
    variables = {"LEVELIP_SHELL": stack.run.name}
    return run_program(
        stack, argv, trace=trace, capture=capture, pid_file=None, nameservers=nameservers, all_opens=all_opens,
        variables=variables,
    )  # fmt: skip
