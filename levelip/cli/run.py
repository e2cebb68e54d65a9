"""`lvlip run`: a program as it is, on the stack."""

from __future__ import annotations

from pathlib import Path

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.unmodified import run_program


@click.command(cls=StackCommand, context_settings={"allow_interspersed_args": False})
@click.option("--trace", "trace", metavar="FILE", type=click.Path(path_type=Path), help="Gets lvlip trace's lines.")
@click.option("--capture", "capture", metavar="FILE", type=click.Path(path_type=Path), help="Its packets, as pcapng.")
@click.option("--pid-file", metavar="FILE", type=click.Path(path_type=Path), help="Gets the program's process id.")
@click.option(
    "--nameserver", "nameservers", metavar="ADDRESS", multiple=True, help="Ask it for names. May be repeated."
)
@click.option(
    "--all-opens", is_flag=True,
    help="Let /proc/net tell of the stack also to who says O_CLOEXEC (Python, Go, Rust), at 30 to 60 µs an open.",
)  # fmt: skip
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
