"""`lvlip neigh`: the ARP cache, in the habit of ip neigh."""

from __future__ import annotations

from typing import Any

import click

from levelip.cli.common import Stack, StackCommand
from levelip.wire.addr import format_address, parse_ipv4


@click.command(cls=StackCommand)
@click.option("-s", "--statistics", is_flag=True, help="With ages and counts, as ip -s neigh.")
@click.option("--flush", is_flag=True, help="Forget all entries, or that of --address.")
@click.option("--address", metavar="ADDRESS", help="Only this one.")
@click.pass_obj
def command(stack: Stack, statistics: bool, flush: bool, address: str | None) -> None:
    """Show the ARP cache: address, MAC, state.

    REACHABLE answered us not long ago. STALE is used, and will be asked; DELAY is used now and asked in a few seconds;
    PROBE is being asked, alone. INCOMPLETE: everybody is asked. FAILED: nobody answered.

    \b
    lvlip neigh -s
    lvlip neigh --flush --address 10.0.0.1
    """
    if address:
        try:
            address = format_address(parse_ipv4(address))
        except ValueError:
            raise click.UsageError(f"--address {address}: must be an IPv4 address, as 10.0.0.1") from None
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
        if address and row["address"] != address:
            continue
        if stack.json:
            stack.emit({**row, "device": device})
        else:
            click.echo(line(row, device, statistics=statistics))


def line(row: dict[str, Any], device: str, *, statistics: bool = False) -> str:
    """ "10.0.0.1 dev lvl0 lladdr 02:00:00:00:00:01 REACHABLE", as ip neigh prints it.

    With statistics " used USED/CONFIRMED/UPDATED probes N" before the state, seconds ago, "-" for never; and last, what
    ip has no word for: packets that wait.
    """
    text = f"{row['address']} dev {device}"
    if row["mac"]:
        text += f" lladdr {row['mac']}"
    if statistics:
        ages = (row["used_ms"], row["confirmed_ms"], row["updated_ms"])
        text += " used " + "/".join("-" if age < 0 else str(age // 1000) for age in ages)
        text += f" probes {row['asked']}"
    text += f" {row['state'].upper()}"
    if statistics and row["queued"]:
        text += f" ({row['queued']} packets wait)"
    return text
