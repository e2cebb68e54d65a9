"""Where `why`, `paths` and `trace --journey` take their records from: the running stack for a while, or a file."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import click

from levelip.cli.common import Failure, Stack
from levelip.debug.tap import KIND, MONO, PROCESSES, Notice, Record, Request, TapReader, above, below
from levelip.debug.traces import TraceError, live, read_trace


def source_options(command: Any) -> Any:
    """--from and --seconds."""
    for option in (
        click.option(
            "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="S",
            help="Listen so long.  [default: until Ctrl-C]",
        ),
        click.option(
            "--from", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
            help="Read a file that lvlip trace --json wrote, instead of listening.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def both_sides() -> dict[str, list[str]]:
    """Every seam, as the process on either side sees it: what tells how long pipes take."""
    return {name: [below(name), above(name)] for name in PROCESSES}


def records(
    stack: Stack,
    file: Path | None,
    seconds: float | None,
    filter_: dict[str, Any] | None = None,
    *,
    whole: bool = False,
) -> Generator[Record | Notice, None, None]:
    """Records until the file, or the time, is over. What was left out is said at the end.

    `whole`: not those from before all layers were listened to, which tell of packets half of whose way nobody saw.
    """
    if file is not None:
        try:
            yield from read_trace(file)
        except TraceError as error:
            raise Failure(str(error)) from None
        return
    stack.need_running()
    reader = TapReader(stack.run, Request(both_sides(), list(PROCESSES), "first128", filter_ or {}))
    try:
        heard = reader.open()
        until = f"for {seconds:g} s" if seconds is not None else "end with Ctrl-C"
        click.echo(f"listening to {', '.join(heard)}; {until}", err=True)
        since = time.monotonic_ns() if whole else 0
        for record in live(reader, seconds):
            if isinstance(record, Notice) or record[KIND] == "e" or record[MONO] >= since:
                yield record
    finally:
        reader.close()
        if reader.lost:
            click.echo(f"{sum(reader.lost.values())} left out: they came faster than they could be taken", err=True)
