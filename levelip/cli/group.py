"""`lvlip group`: multicast groups, in the habit of ip maddress."""

from __future__ import annotations

import click

from levelip.addressing import BadSetting, group_address
from levelip.cli.common import Stack, StackCommand, means_something

_WHO = {"always": "every host (RFC 1112 7.2)", "control": "lvlip group join"}


@click.command(cls=StackCommand)
@click.argument("verb", type=click.Choice(["show", "join", "leave"]), default="show", metavar="[join | leave]")
@click.argument("group", required=False)
@click.pass_obj
def command(stack: Stack, verb: str, group: str | None) -> None:
    """Show which multicast groups the stack is in; join or leave GROUP.

    \b
    lvlip group
    lvlip group join 239.1.2.3
    """
    if verb != "show":
        if group is None:
            raise click.UsageError(f"{verb}: a multicast address is expected")
        with means_something(BadSetting):
            group_address("group", group)
        answer = stack.ask("ip", f"group.{verb}", group=group)
        if stack.json:
            stack.emit(answer)
        return
    answer = stack.ask("ip", "groups")
    for row in answer["groups"]:
        if stack.json:
            stack.emit({**row, "igmp_version": answer["version"]})
        else:
            click.echo(f"{row['group']} by {', '.join(_WHO.get(user, user) for user in row['users'])}")
