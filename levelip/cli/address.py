"""`lvlip address`: the stack's addresses, in the habit of ip address."""

from __future__ import annotations

from typing import Any

import click

from levelip.addressing import BadSetting, host_address, parse_interface_address
from levelip.cli.common import Stack, StackCommand, means_something


@click.command(cls=StackCommand)
@click.argument("verb", type=click.Choice(["show", "add", "del"]), default="show", metavar="[add | del]")
@click.argument("address", required=False)
@click.pass_obj
def command(stack: Stack, verb: str, address: str | None) -> None:
    """Show the stack's addresses; add ADDRESS/LENGTH or delete ADDRESS while it runs.

    The first address (ip.address) stays: connections rest on it.

    \b
    lvlip address add 10.0.0.3/24
    lvlip address del 10.0.0.3
    """
    if verb != "show":
        if address is None:
            raise click.UsageError(f"{verb}: an address is expected")
        with means_something(BadSetting):
            if verb == "add":
                parse_interface_address(address, "address")
            else:
                host_address("address", address.partition("/")[0])
        answer = stack.ask("ip", f"address.{verb}", address=address)
        if stack.json:
            stack.emit(answer)
        return
    for row in stack.ask("ip", "addresses")["addresses"]:
        if stack.json:
            stack.emit(row)
        else:
            click.echo(line(row))


def line(row: dict[str, Any]) -> str:
    """ "10.0.0.2/24 brd 10.0.0.255 dev lvlip0 mtu 1500"."""
    broadcast = f" brd {row['broadcast']}" if row["broadcast"] else ""
    device = f" dev {row['device']}" if row["device"] else ""
    return f"{row['address']}/{row['prefix']}{broadcast}{device} mtu {row['mtu']}{'' if row['up'] else ' down'}"
