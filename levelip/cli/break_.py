"""`lvlip break`: what stops the stack by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from levelip.cli.common import Number, Stack, StackCommand, StackGroup
from levelip.cli.debugcomplete import event_kinds, expression_words, place_names

if TYPE_CHECKING:
    from levelip.debug.debugger import Debugger


@click.group(cls=StackGroup)
def command() -> None:
    """Stop the stack at a packet, a state change, a timer, a reason.

    \b
    lvlip break add 'tcp.flags.syn and tcp.dstport == 80' --once
    lvlip break add 'event retransmit and conn.cwnd < 4'
    lvlip break add --on drop
    lvlip break list
    lvlip break disable 2
    lvlip break enable all
    lvlip break remove all
    """


@command.command(cls=StackCommand)
@click.argument("words", nargs=-1, metavar="[EXPR]", shell_complete=expression_words)
@click.option(
    "--at",
    metavar="SEAM",
    shell_complete=place_names,
    default="",
    help="Only packets of this seam, also as SEAM:up or SEAM:down.",
)
@click.option(
    "--on",
    metavar="EVENT",
    shell_complete=event_kinds,
    default="",
    help="At events of this kind: state, retransmit, drop, due, ...",
)
@click.option("--once", is_flag=True, help="Gone after its first stop.")
@click.option("--after", metavar="N", type=Number(min=0), default=0, help="Let N of them pass first.")
@click.pass_obj
def add(stack: Stack, words: tuple[str, ...], at: str, on: str, once: bool, after: int) -> None:
    """Stop the stack at a packet or event that EXPR matches (docs/debugging.md).

    The packet waits as the first of its queue. An event stops the stack after the call to the layer that it came
    from; what that call put out is held at the next layer. Each layer counts for itself what --after lets pass. The
    kind `due` is any deadline of a layer that came up.

    \b
    lvlip break add 'tcp.flags.fin and ip.src == 10.0.0.1' --at ip-tcp:up
    lvlip break add --on rto --after 2
    """
    from levelip.cli.debugtext import as_json, debugging, need_all

    with debugging(stack, tool="lvlip break") as debugger:
        made = debugger.add_breakpoint(" ".join(words), on=on, at=at, once=once, after=after)
        unreached = debugger.unreached
    if stack.json:
        stack.emit(as_json(made))
    else:
        click.echo(f"breakpoint {made.number}: {made.text()}")
    need_all(unreached)


@command.command("list", cls=StackCommand)
@click.pass_obj
def list_(stack: Stack) -> None:
    """Show the breakpoints, how often each was met and how often it stopped the stack."""
    from levelip.cli.debugtext import as_json, breakpoint_table, debugging, need_all

    with debugging(stack, tool="lvlip break") as debugger:
        rows = debugger.breakpoints()
        unreached = debugger.unreached
    if stack.json:
        for one, met, stops in rows:
            stack.emit({**as_json(one), "met": met, "stops": stops})
    else:
        click.echo(breakpoint_table(rows) if rows else "no breakpoints are set")
    need_all(unreached)


@command.command(cls=StackCommand)
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...|all")
@click.pass_obj
def remove(stack: Stack, numbers: tuple[str, ...]) -> None:
    """Take breakpoints away."""
    from levelip.cli.debugtext import debugging, need_all

    with debugging(stack, tool="lvlip break") as debugger:
        chosen = _chosen(debugger, numbers)
        for number in chosen:
            debugger.remove_breakpoint(number)
        unreached = debugger.unreached
    _tell(stack, "removed", chosen)
    need_all(unreached)


@command.command(cls=StackCommand)
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...|all")
@click.pass_obj
def enable(stack: Stack, numbers: tuple[str, ...]) -> None:
    """Let breakpoints stop the stack again."""
    _switch(stack, numbers, True)


@command.command(cls=StackCommand)
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...|all")
@click.pass_obj
def disable(stack: Stack, numbers: tuple[str, ...]) -> None:
    """Keep breakpoints, but let them stop nothing."""
    _switch(stack, numbers, False)


def _switch(stack: Stack, numbers: tuple[str, ...], enabled: bool) -> None:
    from levelip.cli.debugtext import debugging, need_all

    with debugging(stack, tool="lvlip break") as debugger:
        chosen = _chosen(debugger, numbers)
        for number in chosen:
            debugger.enable_breakpoint(number, enabled)
        unreached = debugger.unreached
    _tell(stack, "enabled" if enabled else "disabled", chosen)
    need_all(unreached)


def _chosen(debugger: Debugger, words: tuple[str, ...]) -> list[int]:
    """The breakpoints that these words name, of which "all" is one."""
    if words == ("all",):
        return [one.number for one, _, _ in debugger.breakpoints()]
    return _numbers(words)


def _numbers(words: tuple[str, ...]) -> list[int]:
    wrong = [word for word in words if not word.isdigit()]
    if wrong:
        raise click.UsageError(f"{wrong[0]!r} is no number of a breakpoint; see: lvlip break list")
    return [int(word) for word in words]


def _tell(stack: Stack, done: str, numbers: list[int]) -> None:
    if stack.json:
        stack.emit({done: numbers})
    else:
        click.echo(f"{done}: {', '.join(map(str, numbers)) or 'none'}")
