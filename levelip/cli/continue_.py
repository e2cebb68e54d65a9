"""`lvlip continue`: let a held stack run."""

from __future__ import annotations

import click

from levelip.cli.common import EXIT_FAILED, Failure, Seconds, Stack, StackCommand, interruptible


@click.command(cls=StackCommand)
@click.option("--wait", metavar="SECONDS", type=Seconds(min=0), help="Wait so long for the next stop.")
@click.option("--force", is_flag=True, help="Though another debugger holds the stack.")
@click.pass_context
def command(context: click.Context, wait: float | None, force: bool) -> None:
    """Let the stack go on: its clock runs on from where it stood, and what was held goes first, in order.

    With --wait it is watched until a breakpoint stops it again; the exit code is 1 if none does in time.

    \b
    lvlip continue
    lvlip continue --wait 30
    """
    from levelip.cli.debugtext import as_json, debugging, need_all, queues_text, state_lines

    stack: Stack = context.obj
    with debugging(stack, tool="lvlip continue", force=force) as debugger, interruptible():
        before = debugger.state()
        debugger.resume()
        unreached = debugger.unreached
        if not stack.json:
            click.echo(f"goes on; {queues_text(before)}".replace(" held:", " let go:"))
        if wait is None:
            if stack.json:
                stack.emit(as_json(debugger.state()))
            need_all(unreached)
            return
        state = debugger.wait_for_stop(wait)
    if state is None:
        raise Failure(f"nothing stopped the stack within {wait:g} s; it runs")
    if stack.json:
        stack.emit(as_json(state))
    else:
        click.echo("\n".join(state_lines(state, stack.run.name)))
    need_all(unreached)
    context.exit(0 if state.held else EXIT_FAILED)
