"""`lvlip down`: stop a stack and clean up behind it."""

from __future__ import annotations

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.teardown import bring_down


@click.command(cls=StackCommand)
@click.pass_obj
def command(stack: Stack) -> None:
    """Stop a stack and clean up behind it.

    What does not end by itself within 5 s is killed. Its device goes too, unless it was there before or `lvlip net up`
    asked to keep it. Logs stay. A stack that is not running is no error.

    \b
    lvlip down
    lvlip down --name two
    """
    name = stack.run.name
    done = bring_down(stack)
    if stack.json:
        stack.emit({"name": name, "done": done})
        return
    for line in done:
        click.echo(line)
    click.echo(f"stack {name!r} is down" if done else f"stack {name!r} was not running")
