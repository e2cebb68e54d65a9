"""`lvlip restart`: end a layer, start it again, and wait until it is ready."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from levelip.cli import supervise
from levelip.cli.common import LAYERS, Failure, Seconds, Stack, StackCommand
from levelip.cli.up import layer_status


@click.command(cls=StackCommand)
@click.argument("layer", type=click.Choice([*LAYERS, "all"]))
@click.option("--timeout", metavar="SECONDS", type=Seconds(min=0.1), default=30.0, show_default=True,
              help="How long it may take to get ready.")  # fmt: skip
@click.pass_obj
def command(stack: Stack, layer: str, timeout: float) -> None:
    """Restart one layer, or all.

    What a restart costs: of link or ip some packets; of udp the datagrams under way; of tcp or gateway every
    connection (listening sockets stay).

    \b
    lvlip restart ip
    lvlip restart all
    """
    running = supervise.find(stack.run)
    if running is None:
        stack.need_running()
        raise Failure(f"stack {stack.run.name!r} has no supervisord; restart it with: lvlip down, lvlip up")
    supervisor = running[0]
    programs = supervisor.programs()
    wanted = [name for name in LAYERS if name in programs] if layer == "all" else [layer]
    if wanted[0] not in programs:
        raise Failure(f"{layer} is not run by this supervisord; it runs {', '.join(programs)}")
    started = time.monotonic()
    before = {name: programs[name].pid for name in wanted}
    stop_and_start(supervisor, wanted)
    for name in wanted:
        status = _wait(stack, name, before[name], timeout, set(LAYERS) - set(programs))
        took = time.monotonic() - started
        if stack.json:
            stack.emit({"layer": name, "old_pid": before[name], "pid": status["pid"], "seconds": round(took, 3)})
        else:
            click.echo(f"{name} ready, pid {before[name]} → {status['pid']}, after {took:.1f} s")


def stop_and_start(supervisor: supervise.Supervisor, layers: Sequence[str]) -> None:
    """End layers, and start them again also where Ctrl-C comes in between: else they would stay away."""
    try:
        for name in layers:
            supervisor.stop(name)
    finally:
        for name in layers:
            supervisor.start(name)


def _wait(stack: Stack, layer: str, old: int, timeout: float, elsewhere: set[str]) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while True:
        status = layer_status(stack, layer)
        if status is not None and status["pid"] != old and not set(status["waiting_for"]) - elsewhere:
            return status
        if time.monotonic() > deadline:
            waits = f"it waits for {' and '.join(status['waiting_for'])}" if status else "it does not answer"
            lines = "\n".join(f"  {line}" for line in supervise.tail(stack.run.logs / f"{layer}.log", 10))
            raise Failure(f"{layer} is not ready after {timeout:g} s: {waits}\n{lines}".rstrip())
        time.sleep(0.05)
