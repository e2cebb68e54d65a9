"""`lvlip shell`: a shell in which everything runs over the stack."""

from __future__ import annotations

import os
from pathlib import Path

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.unmodified import run_program


@click.command(cls=StackCommand)
@click.option("--trace", "trace", metavar="FILE", type=click.Path(path_type=Path), help="Gets lvlip trace's lines.")
@click.option("--capture", "capture", metavar="FILE", type=click.Path(path_type=Path), help="Its packets, as pcapng.")
@click.option("-c", "line", metavar="COMMAND", help="Run this command line and end.")
@click.option(
    "--nameserver", "nameservers", metavar="ADDRESS", multiple=True, help="Ask it for names. May be repeated."
)
@click.option(
    "--all-opens", is_flag=True,
    help="Let /proc/net tell of the stack also to who says O_CLOEXEC (Python, Go, Rust), at 30 to 60 µs an open.",
)  # fmt: skip
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
