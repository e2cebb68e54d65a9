"""`lvlip resolve`: looks up a name or an address over the stack, and shows what was asked, of whom, and what came."""

from __future__ import annotations

import os
import socket as std
from typing import Any

import click
import msgspec

from levelip.cli.common import EXIT_FAILED, Failure, Stack, StackCommand
from levelip.client.resolver import Resolver, is_numeric


@click.command(cls=StackCommand)
@click.argument("host")
@click.option("-4", "family", flag_value=int(std.AF_INET), type=int, help="IPv4 addresses only.")
@click.option("-6", "family", flag_value=int(std.AF_INET6), type=int, help="IPv6 addresses only.")
@click.pass_obj
def command(stack: Stack, host: str, family: int | None) -> int:
    """Look up HOST, a name or an address, as a program on the stack does, and show each question and its answer.

    What the hosts file says is asked of nobody. Exit code 0 if something was found, 1 if not.

    \b
    lvlip resolve www.example.org
    lvlip resolve 192.0.2.7
    """
    if stack.name:
        os.environ["LEVELIP_NAME"] = stack.name  # where the client looks for the stack
    if stack.root:
        os.environ["LEVELIP_RUN"] = str(stack.root)
    resolver = Resolver(listen=lambda exchange: _show(stack, exchange))
    try:
        _head(stack, resolver)
        if is_numeric(host):
            name, aliases, _ = resolver.gethostbyaddr(host)
            found = [name, *aliases]
        else:
            rows = resolver.getaddrinfo(host, None, family or 0, std.SOCK_STREAM)
            found = [row[4][0] for row in rows]
    except (std.gaierror, std.herror, UnicodeError) as error:
        return _outcome(stack, host, [], getattr(error, "strerror", None) or str(error))
    except OSError as error:
        raise Failure(error.strerror or str(error)) from None
    return _outcome(stack, host, found, "")


def _head(stack: Stack, resolver: Resolver) -> None:
    """Whom we ask, and how."""
    config = resolver.config()
    if stack.json:
        stack.emit({"kind": "config", **msgspec.to_builtins(config)})
        return
    servers = f"{', '.join(config.servers)} ({config.servers_from})" if config.servers else "none"
    search = f"; search {' '.join(config.search)}" if config.search else ""
    click.echo(f"servers {servers}{search}; ndots {config.ndots}, timeout {config.timeout_s} s × {config.attempts}")


def _show(stack: Stack, exchange: Any) -> None:
    if stack.json:
        stack.emit({"kind": "exchange", **msgspec.to_builtins(exchange)})
        return
    size = f", {exchange.size} bytes" if exchange.size else ""
    click.echo(
        f"{exchange.server:<15} {exchange.transport}  {exchange.name} {exchange.rdtype}  {exchange.outcome}, "
        f"{exchange.seconds * 1000:.1f} ms{size}"
    )
    for record in exchange.records:
        click.echo(f"    {record}")


def _outcome(stack: Stack, host: str, found: list[str], error: str) -> int:
    if stack.json:
        stack.emit({"kind": "found", "host": host, "found": found, "error": error})
    else:
        click.echo(f"{host}: {error or ', '.join(found)}")
    return 0 if found else EXIT_FAILED
