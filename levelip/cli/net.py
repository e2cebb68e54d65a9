"""`lvlip net`: connect the stack's network to the host's, show how, and take it back."""

from __future__ import annotations

import os
import pwd
from typing import Any

import click

from levelip.cli.common import Failure, Stack, StackGroup
from levelip.config import Config


@click.group(cls=StackGroup)
def command() -> None:
    """Connect the stack's network to the host's.

    `up` makes the device, gives the host its address there, switches forwarding on and lets the packet filter pass
    the stack's packets; with --nat the stack reaches the world outside. `down` takes back exactly that.

    \b
    lvlip net up --nat auto
    lvlip net show
    lvlip net down
    """


def _config_options(function: Any) -> Any:
    function = click.option(
        "--set", "settings", metavar="KEY=VALUE", multiple=True, help="Override one setting. May be repeated."
    )(function)
    return click.option(
        "--config", "config_file", metavar="FILE",
        help="Configuration (default: what the stack runs with, else as `lvlip up` chooses it).",
    )(function)  # fmt: skip


@command.command("up")
@click.option("--nat", metavar="IFACE", default="", help="Masquerade the stack's network out of IFACE ('auto': the "
              "interface of the default route).")  # fmt: skip
@click.option("--user", metavar="USER", help="Who will run the stack (default: who called sudo, else this user).")
@_config_options
@click.pass_obj
def up(stack: Stack, nat: str, user: str | None, config_file: str | None, settings: tuple[str, ...]) -> None:
    """Prepare the host; what is there already is left alone."""
    from levelip.host import network

    config = _config(stack, config_file, settings)
    wanted = _wanted(stack, config, nat, _owner(user))
    _tell(stack, network.up(stack.run, wanted), "everything was set up already")


@command.command("down")
@click.pass_obj
def down(stack: Stack) -> None:
    """Take back exactly what `up` did."""
    from levelip.cli.list import find
    from levelip.host import network

    running = stack.run.holder("link") is not None
    others = [other.run for other in find(stack) if other.run.name != stack.run.name]
    _tell(stack, network.down(stack.run, running=running, others=others), "there was nothing to take back")


@command.command("show")
@_config_options
@click.pass_obj
def show(stack: Stack, config_file: str | None, settings: tuple[str, ...]) -> None:
    """Show the host's side of the stack's network, and what `up` made of it."""
    from levelip.host import network

    config = _config(stack, config_file, settings)
    name = stack.run.name
    data = network.show(stack.run, config.device.interface(name), name)
    if stack.json:
        stack.emit(data)
        return
    click.echo("\n".join(_lines(data, config)))


def _config(stack: Stack, config_file: str | None, settings: tuple[str, ...]) -> Config:
    """What the stack runs with, unless a file is named."""
    from levelip.cli import supervise
    from levelip.cli.up import choose_file
    from levelip.configfile import load

    path = choose_file(config_file)
    running = supervise.Paths.of(stack.run).config
    if config_file is None and stack.run.holder("link") is not None and running.is_file():
        path = running
    config = load(path, settings=settings)
    if config.device.kind == "wire":
        raise Failure("device.kind is wire, which the host has no side of; there is nothing to set up")
    return config


def _owner(user: str | None) -> int:
    """The uid that shall be allowed to open the device."""
    if user is None:
        return int(os.environ.get("SUDO_UID") or os.geteuid())
    if user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.UsageError(f"there is no user {user!r}") from None


def _wanted(stack: Stack, config: Config, nat: str, owner: int) -> Any:
    from levelip.addressing import BadSetting, addressing
    from levelip.host import network

    try:
        meant = addressing(config.ip)
    except BadSetting as error:
        raise Failure(str(error)) from None
    name, device = stack.run.name, config.device
    return network.Wanted(
        stack=name,
        device=device.interface(name),
        kind="tap" if device.kind == "tap" else "tun",
        mac=device.host_mac(name),
        mtu=device.mtu,
        host_address=device.host_address,
        network=meant.network,
        nat=nat,
        owner=owner,
    )


def _tell(stack: Stack, done: list[str], nothing: str) -> None:
    if stack.json:
        stack.emit({"changed": done})
        return
    for sentence in done or [nothing]:
        click.echo(sentence)


def _lines(data: dict[str, Any], config: Config) -> list[str]:
    """For people: one fact a line."""
    device, made = data["device"], data["made"]
    if device is None:
        lines = [f"device       {data['name']} is not there"]
    else:
        state = "up" if device["up"] else "down"
        facts = [device["kind"] or "no tun/tap device", state, f"mtu {device['mtu']}", device["mac"]]
        lines = [
            f"device       {device['name']}: {', '.join(fact for fact in facts if fact)}",
            f"host side    {', '.join(device['addresses']) or 'no address'}",
        ]
    lines.append(f"stack side   {config.ip.address}")
    lines.append(f"forwarding   {'on' if data['forwarding'] else 'off'}")
    lines += [f"nftables     {data['table']} {rule}" for rule in data["rules"]]
    lines += [f"drops        {chain} drops what is forwarded; cure: lvlip net up" for chain in data["closed_chains"]]
    lines.append(f"lvlip net    {'up' if made else 'down'}")
    return lines
