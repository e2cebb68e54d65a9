"""`lvlip step`: one frame to the next layer while the clock stands."""

from __future__ import annotations

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.debugcomplete import frame_names, place_names


@click.command(cls=StackCommand)
@click.argument("what", required=False, metavar="[N|FRAME]", shell_complete=frame_names)
@click.option(
    "--at", metavar="SEAM", shell_complete=place_names, help="Only frames of this seam, also as SEAM:up or SEAM:down."
)
@click.option("--timer", is_flag=True, help="Let the clock jump to the next deadline of any layer, and run that timer.")
@click.option("--force", is_flag=True, help="Though another debugger holds the stack.")
@click.pass_obj
def command(stack: Stack, what: str | None, at: str | None, timer: bool, force: bool) -> None:
    """Hand one held frame (or N, or FRAME as t5) to the layer before which it waits, at the instant at which the clock
    stands. What the layer puts out travels to the next one, and is held there, so that repeated steps follow a packet
    through the stack.

    First goes what the last step put out, or a breakpoint stopped at, if it is the first of its queue; else what has
    waited longest.

    \b
    lvlip step 4
    lvlip step --at ip-tcp:up
    lvlip step --timer
    """
    from levelip.cli.debugtext import as_json, debugging, fed_lines, need_all

    if timer and (what or at):
        raise click.UsageError("--timer takes no frame, number or seam")
    count, frame = 1, None
    if what is not None:
        if what.isdigit():
            count = int(what)
            if count < 1:
                raise click.UsageError("N is a number from 1")
        else:
            frame = what
    with debugging(stack, tool="lvlip step", force=force) as debugger:
        before = debugger.state()
        done = [debugger.step_timer()] if timer else debugger.step(count, frame=frame, at=at)
        after = debugger.state()
        unreached = debugger.unreached
    for one in done:
        if stack.json:
            stack.emit(as_json(one))
        else:
            click.echo("\n".join(fed_lines(one)))
    if timer and not stack.json:
        click.echo(f"the clock jumped by {(after.now - before.now) / 1e6:.3f} ms")
    if len(done) < count and not stack.json:
        click.echo(f"no more frames are held; {len(done)} of {count} went")
    need_all(unreached)
