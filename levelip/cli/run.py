"""`lvlip run`: a program as it is, on the stack."""

from __future__ import annotations

from pathlib import Path

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.unmodified import ALL_OPENS, CAPTURE, NAMESERVERS, TRACE, run_program


@click.command(cls=StackCommand, context_settings={"allow_interspersed_args": False})
@TRACE
@CAPTURE
@click.option("--pid-file", metavar="FILE", type=click.Path(path_type=Path), help="Gets the program's process id.")
@NAMESERVERS
@ALL_OPENS
@click.argument("argv", metavar="PROGRAM [ARGS]...", nargs=-1, type=click.UNPROCESSED, required=True)
@click.pass_obj
def command(
    stack: Stack, trace: Path | None, capture: Path | None, pid_file: Path | None, nameservers: tuple[str, ...],
    all_opens: bool, argv: tuple[str, ...],
) -> int:  # fmt: skip
    """Run a program on the stack, as it is: its TCP and UDP sockets, and those of all that it starts, are the stack's.

    Its terminal, standard streams, signals and exit status are as without lvlip; 126 and 127 mean, as in a shell, that
    it could not be run or found. What the stack cannot carry fails, and is told on standard error, once.

    \b
    lvlip run curl http://10.0.0.1:8000/
    lvlip run --trace tcp.txt --capture tcp.pcapng -- wget http://10.0.0.1:8000/big
    lvlip run -- python3 -m http.server 8000
    """
    return run_program(
        stack, argv, trace=trace, capture=capture, pid_file=pid_file, nameservers=nameservers, all_opens=all_opens
    )
