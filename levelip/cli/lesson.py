"""`lvlip lesson`: the guided tour; each lesson in a namespace and with a stack of its own."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from levelip.cli.common import Failure, Stack, StackCommand
from levelip.cli.passedon import run


@click.command(cls=StackCommand)
@click.argument("number", required=False, type=int)
@click.option("--no-pause", is_flag=True, help="Do not wait for Enter (as where the input is no terminal).")
@click.option("--step", is_flag=True, help="Wait for Enter before each command.")
@click.option("--keep", is_flag=True, help="Afterwards a shell in the lesson's world, which goes when the shell ends.")
@click.option("--way", type=click.Choice(["root", "user", "wire"]), help="How the world is made (default: the first "
              "that works here).")  # fmt: skip
@click.option("--markdown", is_flag=True, help="Print the lesson's page, with the outputs of this run.")
@click.option("--inside", hidden=True)
@click.pass_obj
def command(
    stack: Stack,
    number: int | None,
    no_pause: bool,
    step: bool,
    keep: bool,
    way: str | None,
    markdown: bool,
    inside: str | None,
) -> None:
    """Run lesson NUMBER of the guided tour, or list the lessons.

    A lesson starts a stack of its own in a network namespace of its own, with the kernel as the other side, and
    carries out real commands in it. At each pause commands may be typed. Nothing of it is left when it ends. Without
    root it takes a user namespace; where neither is to be had, a second stack is the other side.

    \b
    lvlip lesson
    lvlip lesson 1
    lvlip lesson 6 --keep
    """
    from levelip.lessons.source import lessons

    known = lessons()
    if number is None:
        for lesson in known.values():
            if stack.json:
                stack.emit({"number": lesson.number, "title": lesson.title})
            else:
                click.echo(f"{lesson.number:>3}  {lesson.title}")
        if not stack.json:
            click.echo("run one with: lvlip lesson NUMBER")
        return
    if number not in known:
        raise click.UsageError(f"there is no lesson {number}; see: lvlip lesson")
    if step and no_pause:
        raise click.UsageError("--step waits, --no-pause does not: one of them")
    if stack.json:
        raise click.UsageError("a lesson is text; --json goes with the list of lessons")
    if not stack.alone:  # it goes into a namespace with its process, and the prompt of lvlip debug goes on afterwards
        given = (("--no-pause", no_pause), ("--step", step), ("--keep", keep), ("--markdown", markdown))
        flags = [flag for flag, wanted in given if wanted]
        run(stack, "levelip.cli", ["lesson", str(number), *flags, *(["--way", way] if way else [])])
        return
    _run(number, not no_pause and sys.stdin.isatty(), step, keep, way, markdown, inside)


def _run(
    number: int, pause: bool, step: bool, keep: bool, wanted: str | None, markdown: bool, inside: str | None
) -> None:
    from levelip.lessons.page import Page
    from levelip.lessons.runner import carry_out, try_extras
    from levelip.lessons.source import lessons
    from levelip.lessons.terminal import Terminal
    from levelip.lessons.ways import Way, WorldError, choose, enter
    from levelip.lessons.world import World

    lesson = lessons()[number]
    for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell's background job ignores SIGINT, and
        signal.signal(signal_number, _interrupt)  # so would all that it starts, and becomes
    try:
        way = Way(inside) if inside else choose(wanted or "")
        if not inside and way.name != "wire":
            flags = [flag for flag, given in (("--step", step), ("--keep", keep), ("--markdown", markdown)) if given]
            flags += [] if pause or step else ["--no-pause"]
            enter(way, ["-P", "-m", "levelip.cli", "lesson", str(number), *flags, "--inside", way.name])
    except (WorldError, OSError) as error:
        raise Failure(str(error)) from None
    if way.name == "wire" and lesson.kernel:
        why = "".join(f"; {lack}" for lack in way.lacks)
        raise Failure(f"lesson {number} needs the kernel as its other side: {lesson.kernel}{why}")
    world = World(way, lesson.settings)
    page = Page(lesson)
    try:
        if not markdown:
            click.secho(f"Lesson {lesson.number}: {lesson.title}", bold=True)
            click.echo(f"(a stack starts, {way.sentence})\n")
            for lack in way.lacks:
                click.echo(f"({lack})")
        world.start()
        show = page if markdown else Terminal(world, pause=pause, step=step)
        carry_out(lesson, world, show)
        if markdown:
            try_extras(lesson, world)  # no page where they fail
            click.echo(page.text, nl=False)
        if keep:
            click.echo("a shell in the lesson's world; exit ends it", err=True)
            world.shell()
    except WorldError as error:
        raise Failure(f"lesson {number}: {error}") from None
    finally:
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal_number, signal.SIG_IGN)  # what was started is ended first
        world.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    """The end by a signal as by Ctrl-C: everything is put away."""
    raise KeyboardInterrupt
