"""`lvlip route`: the routing table, in the habit of ip route."""

from __future__ import annotations

from typing import Any

import click

from levelip.cli.common import Failure, Stack, StackCommand


@click.command(cls=StackCommand)
@click.argument("destination", required=False, metavar="[ADDRESS]")
@click.option("-a", "--all", "everything", is_flag=True, help="The stack's own addresses too.")
@click.pass_obj
def command(stack: Stack, destination: str | None, everything: bool) -> None:
    """Show the routing table, or by which route a packet to ADDRESS goes."""
    if destination is not None:
        row = stack.ask("ip", "route.get", dst=destination)
        if stack.json:
            stack.emit(row)
        elif row.get("error"):
            raise Failure(f"{row['dst']}: {row['error']}")
        else:
            via = f" via {row['next_hop']}" if row.get("next_hop") and row["next_hop"] != row["dst"] else ""
            click.echo(f"{row['dst']}{via} dev {row['device']} src {row['source']}, by {row['prefix']}")
        return
    for row in stack.ask("ip", "route")["routes"]:
        if stack.json:
            stack.emit(row)
        elif everything or row["kind"].lower() != "local":
            click.echo(line(row))


def line(row: dict[str, Any]) -> str:
    """ "default via 10.0.0.1 dev lvlip0 src 10.0.0.2 mtu 1500"."""
    local = "local " if row["kind"].lower() == "local" else ""
    text = f"{local}{row['prefix']}"
    if row["via"]:
        text += f" via {row['via']}"
    if row["device"]:
        text += f" dev {row['device']}"
    text += f" src {row['source']} mtu {row['mtu']}"
    return text if row["up"] else f"{text} down"
