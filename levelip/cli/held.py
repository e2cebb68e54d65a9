"""`lvlip held`: the frames that wait while a stack is held."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from levelip.cli.common import Stack, StackCommand, StackGroup, means_something
from levelip.cli.debugcomplete import field_changes, frame_names, place_names
from levelip.debug.faultspec import BadFault, parse_time

if TYPE_CHECKING:
    from levelip.debug.debugger import Debugger

_FRAME = click.argument("frame", metavar="FRAME", shell_complete=frame_names)
_FRAMES = click.argument("frames", nargs=-1, required=True, metavar="FRAME...", shell_complete=frame_names)
_FORCE = click.option("--force", is_flag=True, help="Though another debugger holds the stack.")


@contextlib.contextmanager
def _changing(stack: Stack, frame: str, force: bool) -> Iterator[tuple[Debugger, str]]:
    """The debugger, and the name of the frame that is meant."""
    from levelip.cli.debugtext import debugging

    with debugging(stack, tool="lvlip held", force=force) as debugger:
        yield debugger, debugger.name_of(frame)


@click.group(cls=StackGroup)
def command() -> None:
    """List, show and change the frames that wait while the stack is held.

    Frames have names: l1 is the first that link held, i, t, u and g those of ip, tcp, udp and gateway; a dot is the one
    that `lvlip step` would take. Only packets can be changed (at link, link-ip, ip-tcp and ip-udp); between tcp,
    gateway and programs there are streams, which lose nothing.

    \b
    lvlip held list ip-tcp:up
    lvlip held show .
    lvlip held edit t3 tcp.window_size_value=0
    lvlip held drop l1 l2
    lvlip held dup l1
    lvlip held delay l1 300ms
    lvlip held move l3 first
    lvlip held release --all --at ip-tcp
    """


@command.command("list", cls=StackCommand)
@click.argument("where", required=False, metavar="[LAYER|SEAM]", shell_complete=place_names)
@click.pass_obj
def list_(stack: Stack, where: str | None) -> None:
    """List what is held: before one layer, at one seam (also as ip-tcp:up), or everywhere."""
    from levelip.cli.debugtext import debugging, frame_json, held_table, need_all

    with debugging(stack, tool="lvlip held") as debugger:
        frames = debugger.held(where)
        now = debugger.state().now
        unreached = debugger.unreached
    if stack.json:
        for one in frames:
            stack.emit(frame_json(one))
    else:
        click.echo(held_table(frames, now) if frames else "no frames are held")
    need_all(unreached)


@command.command(cls=StackCommand)
@_FRAME
@click.pass_obj
def show(stack: Stack, frame: str) -> None:
    """Show a held frame: every field, and its bytes."""
    from levelip.cli.debugtext import debugging, show_json, show_lines

    with debugging(stack, tool="lvlip held") as debugger:
        row, whole = debugger.frame(frame)
    if stack.json:
        stack.emit(show_json(row, whole))
    else:
        click.echo("\n".join(show_lines(row, whole)))


@command.command(cls=StackCommand)
@_FRAME
@click.argument("changes", nargs=-1, metavar="FIELD=VALUE...", shell_complete=field_changes)
@click.option("--remove", "removed", multiple=True, metavar="OPTION", help="Take a TCP option away. May be repeated.")
@click.option("--keep-checksums", is_flag=True, help="Leave the checksums as they are, wrong on purpose.")
@_FORCE
@click.pass_obj
def edit(
    stack: Stack, frame: str, changes: tuple[str, ...], removed: tuple[str, ...], keep_checksums: bool, force: bool
) -> None:
    """Set fields of a held packet, by the names that `show` prints; checksums are computed anew.

    \b
    lvlip held edit t3 tcp.window_size_value=0
    lvlip held edit l2 ip.ttl=1 --keep-checksums
    lvlip held edit l2 tcp.options.mss_val=536 --remove tcp.options.sack_perm
    """
    from levelip.cli.debugtext import debugging, frame_json, frame_text
    from levelip.tracing.edit import EditError, parse_changes, pointed

    if not changes and not removed:
        raise click.UsageError("nothing is to be changed: name FIELD=VALUE or --remove OPTION")
    words = [*changes, *(f"-{name}" for name in removed)]
    with debugging(stack, tool="lvlip held", force=force) as debugger:
        try:
            changed = debugger.edit(frame, parse_changes(words), checksums="keep" if keep_checksums else "mend")
        except EditError as error:
            raise click.UsageError(pointed(error, words)) from None
    if stack.json:
        stack.emit(frame_json(changed))
    else:
        click.echo(f"{changed.name}: {frame_text(changed)}")


@command.command(cls=StackCommand)
@_FRAMES
@_FORCE
@click.pass_obj
def drop(stack: Stack, frames: tuple[str, ...], force: bool) -> None:
    """Throw held packets away (counted as debug_drop)."""
    names = []
    for frame in frames:
        with _changing(stack, frame, force) as (debugger, name):
            debugger.drop(name)
        names.append(name)
    _tell(stack, {"dropped": names}, f"dropped {', '.join(names)}")


@command.command(cls=StackCommand)
@_FRAME
@_FORCE
@click.pass_obj
def dup(stack: Stack, frame: str, force: bool) -> None:
    """Put a second one of a held packet right behind it."""
    with _changing(stack, frame, force) as (debugger, name):
        copy = debugger.duplicate(name)
    _tell(stack, {"frame": name, "copy": copy}, f"{copy} is a copy of {name}, right behind it")


@command.command(cls=StackCommand)
@_FRAME
@click.argument("time", metavar="TIME")
@_FORCE
@click.pass_obj
def delay(stack: Stack, frame: str, time: str, force: bool) -> None:
    """Let a held packet go only after TIME (20ms, 1s) of the stack's clock, which stands while the stack is held."""
    with means_something(BadFault):
        ns = parse_time(time)
    with _changing(stack, frame, force) as (debugger, name):
        debugger.delay(name, ns)
    _tell(stack, {"frame": name, "delay_ns": ns}, f"{name} goes {time} after the stack goes on")


@command.command(cls=StackCommand)
@_FRAME
@click.argument("place", metavar="PLACE")
@_FORCE
@click.pass_obj
def move(stack: Stack, frame: str, place: str, force: bool) -> None:
    """Let a held packet go at another PLACE of its queue: first, last, or a number from 0."""
    number = {"first": 0, "last": -1}.get(place, int(place) if place.isdigit() else None)
    if number is None:
        raise click.UsageError(f"PLACE is first, last or a number from 0, not {place!r}")
    with _changing(stack, frame, force) as (debugger, name):
        there = debugger.move(name, number)
    _tell(stack, {"frame": name, "place": there}, f"{name} is at place {there} of its queue")


@command.command(cls=StackCommand)
@click.argument("frames", nargs=-1, metavar="FRAME...", shell_complete=frame_names)
@click.option("--all", "everything", is_flag=True, help="All, or with --at all of one seam or layer, in their order.")
@click.option("--at", metavar="LAYER|SEAM", help="With --all: only these.")
@_FORCE
@click.pass_obj
def release(stack: Stack, frames: tuple[str, ...], everything: bool, at: str | None, force: bool) -> None:
    """Let held frames go on to their layer now, before those in front of them; the stack stays held.

    What the layer puts out is held at the next one, as after a step.
    """
    from levelip.cli.debugtext import as_json, debugging, fed_lines

    if everything == bool(frames) or (at and not everything):
        raise click.UsageError("name the frames, or say --all (with --at SEAM for those of one seam)")
    with debugging(stack, tool="lvlip held", force=force) as debugger:
        names = [one.name for one in debugger.held(at)] if everything else list(frames)
        if not names and not stack.json:
            click.echo("no frames are held")
        for name in names:
            fed = debugger.release(name)
            if stack.json:
                stack.emit(as_json(fed))
            else:
                click.echo("\n".join(fed_lines(fed)))


def _tell(stack: Stack, data: dict[str, Any], text: str) -> None:
    if stack.json:
        stack.emit(data)
    else:
        click.echo(text)
