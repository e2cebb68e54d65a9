"""`lvlip fault`: packets lost, repeated, delayed or corrupted on purpose, at a seam."""

from __future__ import annotations

from typing import Any

import click

from levelip.cli.common import Failure, Stack, StackCommand, StackGroup, columns, elsewhere, means_something
from levelip.debug.faultspec import BadFault, describe, parse

SEAMS = ("link", "link-ip", "ip-tcp", "ip-udp")
_SIDES = {"link": ("link",), "link-ip": ("link", "ip"), "ip-tcp": ("ip", "tcp"), "ip-udp": ("ip", "udp")}
"""Which processes see a seam: each applies the faults to what it takes in."""
_COUNTS = ("packets", "lost", "duplicated", "reordered", "corrupted", "overflowed")


@click.group(cls=StackGroup)
def command() -> None:
    """Lose, delay, repeat or corrupt packets on purpose.

    Faults act on a seam: link (the device), link-ip, ip-tcp or ip-udp; with the same seed the same packets meet
    the same fate. Super-segments are cut to wire size first.

    \b
    lvlip fault set link loss=5% delay=20ms±5ms seed=7
    lvlip fault show
    lvlip fault clear
    """


@command.command("set", cls=StackCommand)
@click.argument("seam", type=click.Choice(SEAMS))
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.pass_obj
def set_(stack: Stack, seam: str, words: tuple[str, ...]) -> None:
    """Set the faults of a seam, in place of those that it had.

    \b
    loss=5%  dup=1%  reorder=3%  corrupt=0.1%
    delay=20ms±5ms (or +-)  rate=10mbit  seed=7
    dir=up|down|both (default both; up is toward the applications)
    frames=wire|whole (default wire)

    \b
    lvlip fault set link loss=5% delay=20ms±5ms seed=7
    lvlip fault set link-ip loss=1% dir=up
    """
    with means_something(BadFault):
        fault = parse(words)
    running = stack.need_running()
    missing = [layer for layer in _SIDES[seam] if layer not in running]
    if missing:
        raise Failure(f"{' and '.join(missing)} must run for a fault on {seam}; see: lvlip status{stack.name_flag()}")
    sides = []
    for layer in _SIDES[seam]:
        sides += stack.ask(layer, "fault.set", seam=seam, **fault)["sides"]
    if stack.json:
        stack.emit({"seam": seam, **fault, "sides": sides})
        return
    click.echo(f"{seam} {fault['direction']}: {describe(fault)}")


@command.command(cls=StackCommand)
@click.pass_obj
def show(stack: Stack) -> None:
    """Show the faults that are set, and what they have done."""
    answers, silent = stack.ask_all("fault.show", stack.need_running())
    rows = [{"process": layer, **fault} for layer, answer in answers.items() for fault in answer["faults"]]
    if stack.json:
        for row in rows:
            stack.emit(row)
    elif rows:
        table = [(row["seam"], row["direction"], *(row[name] for name in _COUNTS), describe(row)) for row in rows]
        click.echo(columns(table, ("seam", "way", *_COUNTS, "fault"), right=range(2, 2 + len(_COUNTS))))
    elif answers:
        click.echo(f"no faults are set{elsewhere(silent)}")
    stack.need_answers(silent)


@command.command(cls=StackCommand)
@click.argument("seam", type=click.Choice(SEAMS), required=False)
@click.pass_obj
def clear(stack: Stack, seam: str | None) -> None:
    """Take away the faults of SEAM, or all."""
    cleared: list[str] = []
    arguments: dict[str, Any] = {"seam": seam} if seam else {}
    answers, silent = stack.ask_all("fault.clear", stack.need_running(), **arguments)
    for answer in answers.values():
        cleared += answer["cleared"]
    names = list(dict.fromkeys(cleared))
    if stack.json:
        stack.emit({"cleared": cleared})
    elif names or answers:
        click.echo(f"cleared: {', '.join(names)}" if names else f"no faults were set{elsewhere(silent)}")
    stack.need_answers(silent)
