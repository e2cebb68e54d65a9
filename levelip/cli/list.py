"""`lvlip list`: the stacks of this user."""

from __future__ import annotations

import click

from levelip.cli import supervise
from levelip.cli.common import Stack, StackCommand, columns
from levelip.cli.status import collect
from levelip.configfile import ConfigError, load


@click.command(cls=StackCommand)
@click.pass_obj
def command(stack: Stack) -> None:
    """List the stacks of this user: those whose run directories lie in one directory (--run)."""
    rows = []
    for one in find(stack):
        data = collect(one)
        running = [layer["layer"] for layer in data["layers"] if layer["pid"]]
        state = "ready" if data["ready"] else "partly" if running else "stopped"
        rows.append(
            {"name": data["name"], "state": state, "layers": running, "address": _address(one), "run": data["run"]}
        )
    if stack.json:
        for row in rows:
            stack.emit(row)
        return
    if not rows:
        click.echo(f"no stacks in {stack.run.root}; start one with: lvlip up", err=True)
        return
    table = [(row["name"], row["state"], row["address"], " ".join(row["layers"]), row["run"]) for row in rows]
    click.echo(columns(table, ("name", "state", "address", "running", "run directory")))


def find(stack: Stack) -> list[Stack]:
    """A Stack for each run directory below the root."""
    root = stack.run.root
    if not root.is_dir():
        return []
    found = []
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink() and (root / f"{path.name}.door").is_dir():
            found.append(Stack(name=path.name, root=str(root)))
    return found


def _address(stack: Stack) -> str:
    try:
        return load(supervise.Paths.of(stack.run).config, environ={}).ip.address
    except ConfigError:
        return ""
