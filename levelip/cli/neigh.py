"""`lvlip neigh`: the ARP cache, in the habit of ip neigh."""

from __future__ import annotations

from typing import Any

import click

from levelip.cli.common import Stack, StackCommand


@click.command(cls=StackCommand)
@click.option("--flush", is_flag=True, help="Forget all entries, or that of --address.")
@click.option("--address", metavar="ADDRESS", help="With --flush: only this one.")
@click.pass_obj
def command(stack: Stack, flush: bool, address: str | None) -> None:
    """Show the ARP cache: address, MAC, state, age of the last answer."""
    if flush:
        arguments: dict[str, Any] = {"address": address} if address else {}
        answer = stack.ask("link", "neigh.flush", **arguments)
        if stack.json:
            stack.emit(answer)
        else:
            click.echo(f"{answer['flushed']} entries forgotten")
        return
    device = stack.ask("link", "device")["name"]
    for row in stack.ask("link", "neigh")["neighbours"]:
        if stack.json:
            stack.emit({**row, "device": device})
        else:
            click.echo(line(row, device))


def line(row: dict[str, Any], device: str) -> str:
    """ "10.0.0.1 dev lvlip0 lladdr 02:00:00:00:00:01 REACHABLE, answered 1.2 s ago"."""
    text = f"{row['address']} dev {device}"
    if row["mac"]:
        text += f" lladdr {row['mac']}"
    text += f" {row['state'].upper()}"
    if row["confirmed_ms"] >= 0:
        text += f", answered {row['confirmed_ms'] / 1000:.1f} s ago"
    if row["asked"]:
        text += f", asked {row['asked']} times"
    if row["queued"]:
        text += f", {row['queued']} packets wait"
    return text
