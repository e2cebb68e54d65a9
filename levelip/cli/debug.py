"""`lvlip debug`: the debugger at a prompt, or from a file."""

from __future__ import annotations

from pathlib import Path

import click

from levelip.cli.common import EXIT_FAILED, Stack, StackCommand


@click.command(cls=StackCommand)
@click.option(
    "-x",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Carry out the commands of FILE first. May be repeated.",
)
@click.option(
    "-ex", "commands", multiple=True, metavar="COMMAND", help="Carry out COMMAND after them. May be repeated."
)
@click.option("--batch", is_flag=True, help="End then, without a prompt.")
@click.pass_context
def command(context: click.Context, files: tuple[Path, ...], commands: tuple[str, ...], batch: bool) -> None:
    """Debug a running stack at a prompt, in gdb's habit.

    Every lvlip command can be typed there without `lvlip`, and gdb's short forms: b, tb, c, s, d, info, p. Tab
    completes, the arrow keys bring back what was typed, an empty line does the last again, Ctrl-C holds the stack.
    `help` lists the commands. A file has one command a line, # begins a comment; it ends at the first that fails.

    Input that comes from a pipe is carried out as a file is.

    \b
    lvlip debug -ex 'tb tcp.flags.syn' -ex 'c 10' -ex 'info held'
    lvlip debug --batch -x handshake.lvlip
    """  # fmt: skip
    from levelip.cli.prompt import Prompt

    stack: Stack = context.obj
    stack.need_running()
    prompt = Prompt(stack)
    try:
        good = all(prompt.source(file) for file in files) and all(prompt.carry_out(one, echo=True) for one in commands)
        if good and not batch and not prompt.over:
            good = prompt.talk()
    finally:
        prompt.close()
    if not good:
        context.exit(EXIT_FAILED)
