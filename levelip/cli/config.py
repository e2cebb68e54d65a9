"""`lvlip config`: the configuration as a file, every key explained."""

from __future__ import annotations

from pathlib import Path

import click

from levelip.cli.common import Failure, Stack, StackCommand
from levelip.cli.strategies import check_strategy
from levelip.cli.up import choose_file
from levelip.configfile import ConfigError, flatten, keys, load, to_toml


@click.command(cls=StackCommand)
@click.option("--write", "target", metavar="FILE", help="Write it there instead; an existing file is left alone.")
@click.option("--defaults", is_flag=True, help="The defaults, whatever file, environment and --set say.")
@click.option("--config", "config_file", metavar="FILE", help="As for `lvlip up`.")
@click.option("--set", "settings", metavar="KEY=VALUE", multiple=True, help="As for `lvlip up`. May be repeated.")
@click.option("--check", is_flag=True, help="Only check it.")
@click.pass_obj
def command(
    stack: Stack,
    target: str | None,
    defaults: bool,
    config_file: str | None,
    settings: tuple[str, ...],
    check: bool,
) -> None:
    """Print the configuration that `lvlip up` would use, every key explained.

    With --check nothing is printed but that it is fine, or, with exit code 1, every mistake in it; a congestion control
    of your own (tcp.congestion) is imported for that, as tcp does when it starts.

    \b
    lvlip config --defaults --write level-ip.toml
    lvlip config --check --config lab.toml
    """
    path = None if defaults else choose_file(config_file)
    try:
        config = load(path, environ={} if defaults else None, settings=settings)
    except ConfigError as error:
        if check:  # what is asked is whether there is a mistake
            raise Failure(str(error)) from None
        raise
    if check:
        check_strategy(config)
        click.echo(f"{path or 'defaults'}: fine")
        return
    if stack.json:
        for dotted, value in flatten(config).items():
            key = keys()[dotted]
            stack.emit(
                {
                    "key": dotted,
                    "value": value,
                    "default": key.default,
                    "allowed": key.allowed.removeprefix("must be "),
                    "description": key.description,
                    "variable": key.variable,
                    "runtime": key.runtime,
                }
            )
        return
    text = to_toml(config)
    if target is None:
        click.echo(text, nl=False)
        return
    try:
        with Path(target).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Failure(f"{target} exists already; remove it first, or choose another name") from None
    click.echo(f"{target} written", err=True)
