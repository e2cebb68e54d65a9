"""`lvlip route`: the routing table, in the habit of ip route."""

from __future__ import annotations

from typing import Any

import click

from levelip.addressing import REFUSING, BadSetting, Kind, parse_route
from levelip.cli.common import Failure, Stack, StackCommand, means_something
from levelip.wire.addr import parse_ipv4


@click.command(cls=StackCommand)
@click.argument("words", nargs=-1, metavar="[ADDRESS | add ROUTE | del ROUTE | cache | flush]")
@click.option("-a", "--all", "everything", is_flag=True, help="The stack's own addresses and broadcasts too.")
@click.pass_obj
def command(stack: Stack, words: tuple[str, ...], everything: bool) -> None:
    """Show the routing table, or by which route a packet to ADDRESS goes; add and delete routes while the stack runs.

    ROUTE is "PREFIX via GATEWAY" or "PREFIX dev", with "metric N" and "src ADDRESS" behind it if wanted, or "blackhole
    PREFIX", "unreachable PREFIX", "prohibit PREFIX"; to delete one, its beginning will do. `cache` shows what was
    learned about single destinations (path MTUs, redirects), `flush` forgets it.

    \b
    lvlip route
    lvlip route 192.0.2.7
    lvlip route add 192.0.2.0/24 via 10.0.0.1 metric 10
    lvlip route del 192.0.2.0/24
    """
    match words:
        case () | ("show",):
            _show(stack, everything)
        case ("add" | "del" as verb, *route) if route:
            text = " ".join(route)
            if verb == "add":  # to delete one, a beginning will do
                with means_something(BadSetting):
                    parse_route(text, "route")
            answer = stack.ask("ip", f"route.{verb}", route=text)
            if stack.json:
                stack.emit(answer)
        case ("cache",):
            for row in stack.ask("ip", "route.cache")["cache"]:
                if stack.json:
                    stack.emit(row)
                else:
                    click.echo(cache_line(row))
        case ("flush",):
            answer = stack.ask("ip", "route.flush")
            if stack.json:
                stack.emit(answer)
            else:
                click.echo(f"{answer['flushed']} entries forgotten")
        case ("add" | "del" | "get",):
            raise click.UsageError(f"{words[0]} what? See lvlip route --help")
        case (destination,) | ("get", destination):
            _get(stack, destination)
        case _:
            raise click.UsageError("an address, add ROUTE, del ROUTE, cache or flush is expected")


def _show(stack: Stack, everything: bool) -> None:
    for row in stack.ask("ip", "route")["routes"]:
        if stack.json:
            stack.emit(row)
        elif everything or row["kind"] not in (Kind.LOCAL, Kind.BROADCAST, Kind.MULTICAST):  # as ip: another table's
            click.echo(line(row))


def _get(stack: Stack, destination: str) -> None:
    try:
        parse_ipv4(destination)
    except ValueError:
        raise click.UsageError(
            f"{destination!r} is no IPv4 address; an address, add ROUTE, del ROUTE, cache or flush is expected"
        ) from None
    row = stack.ask("ip", "route.get", dst=destination)
    if stack.json:
        stack.emit(row)
    elif row.get("error"):
        raise Failure(f"{row['dst']}: {row['error']}")
    else:
        via = f" via {row['next_hop']}" if row.get("next_hop") and row["next_hop"] != row["dst"] else ""
        mtu = f" mtu {row['mtu']}" if "mtu" in row else ""
        click.echo(f"{row['dst']}{via} dev {row['device']} src {row['source']}{mtu}, by {row['prefix']}")


def line(row: dict[str, Any]) -> str:
    """ "default via 10.0.0.1 dev lvlip0 src 10.0.0.2 mtu 1500"; "blackhole 10.9.0.0/16"."""
    kind = row["kind"]
    text = row["prefix"] if kind == Kind.UNICAST else f"{kind} {row['prefix']}"
    if row["via"]:
        text += f" via {row['via']}"
    if row["device"]:
        text += f" dev {row['device']}"
    if row.get("metric"):
        text += f" metric {row['metric']}"
    if kind in REFUSING:
        return str(text)
    text += f" src {row['source']} mtu {row['mtu']}"
    return text if row["up"] else f"{text} down"


def cache_line(row: dict[str, Any]) -> str:
    """ "192.0.2.7 mtu 1280 expires 512 s via 10.0.0.9 redirected expires 12 s"."""
    text = str(row["dst"])
    if "mtu" in row:
        text += f" mtu {row['mtu']} expires {row['mtu_expires_ms'] // 1000} s"
    if "via" in row:
        text += f" via {row['via']} redirected expires {row['redirect_expires_ms'] // 1000} s"
    return text
