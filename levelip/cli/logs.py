"""`lvlip logs`: what a layer wrote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import BinaryIO

import click

from levelip.cli import supervise
from levelip.cli.common import LAYERS, Failure, Number, Stack, StackCommand

POLL_S = 0.2


@click.command(cls=StackCommand)
@click.argument("layer", type=click.Choice([*LAYERS, "supervisord"]))
@click.option("-f", "--follow", is_flag=True, help="Go on printing what is added, until Ctrl-C.")
@click.option("-n", "--lines", metavar="N", type=Number(min=0), default=50, show_default=True,
              help="How many lines from the end.")  # fmt: skip
@click.pass_obj
def command(stack: Stack, layer: str, follow: bool, lines: int) -> None:
    """Show the log of a layer, or of supervisord.

    \b
    lvlip logs tcp
    lvlip logs link -f
    lvlip logs supervisord -n 20
    """
    path = log_file(stack, layer)
    if not path.exists():
        raise Failure(
            f"{path} does not exist: {layer} has not run in stack {stack.run.name!r}; see: "
            f"lvlip status{stack.name_flag()}"
        )
    with path.open("rb") as file:
        for line in supervise.last_lines(file, lines):
            _print(stack, layer, line)
        if follow:
            _follow(stack, layer, path, file)


def log_file(stack: Stack, layer: str) -> Path:
    """Where the supervisor says that it writes it; without one where `lvlip up` puts it."""
    running = supervise.find(stack.run)
    if running is not None:
        program = running[0].programs().get(layer)
        if program is not None and program.log:
            return Path(program.log)
        if layer == "supervisord" and running[0].socket.parent != stack.run.path:
            return running[0].socket.parent / "supervisord.log"
    return stack.run.logs / f"{layer}.log"


def _print(stack: Stack, layer: str, line: str) -> None:
    if stack.json:
        stack.emit({"layer": layer, "line": line})
    else:
        click.echo(line)


def _follow(stack: Stack, layer: str, path: Path, file: BinaryIO) -> None:
    """What is added behind where the file stands, also after supervisord has moved the full file away and begun a new
    one."""
    rest = b""
    while True:
        replaced = _replaced(file, path)  # asked first: what was written before is in what is read now
        data = file.read()
        if data:
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                _print(stack, layer, line.decode(errors="replace"))
            continue
        if replaced:
            file.close()
            file = path.open("rb")
            continue
        time.sleep(POLL_S)


def _replaced(file: BinaryIO, path: Path) -> bool:
    import os

    try:
        return os.fstat(file.fileno()).st_ino != path.stat().st_ino or path.stat().st_size < file.tell()
    except OSError:
        return False
