"""`lvlip paths`: packets grouped by the way they took through the processes, with times."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

import click

from levelip.cli.common import Number, Stack, StackCommand, columns, interruptible
from levelip.cli.sources import noted, records, source_options
from levelip.cli.trace import make_filter

if TYPE_CHECKING:
    from levelip.debug.journeys import Path


@click.command(cls=StackCommand)
@source_options
@click.option("--host", metavar="ADDRESS", help="Only packets from or to this address.")
@click.option("--port", metavar="PORT", type=Number(1, 65_535), help="Only packets from or to this port.")
@click.option("--proto", metavar="NAME", help="Only icmp, tcp, udp, or a number.")
@click.option("--flags", metavar="LETTERS", help="Only TCP segments with all these flags: S F R P . U E W.")
@click.option("--parts", is_flag=True, help="The time in each process and each pipe too.")
@click.pass_obj
def command(
    stack: Stack, file: pathlib.Path | None, seconds: float | None, host: str | None, port: int | None,
    proto: str | None, flags: str | None, parts: bool,
) -> None:  # fmt: skip
    """Group packets by the way they took through the layers, with counts and percentiles of the time they took.

    One row for what a packet is, the processes that it passed, and how it ended. Times are from the first seam at
    which it was seen to the last. `lvlip trace --journey` shows single ones.

    \b
    lvlip paths --seconds 5 --port 80 --parts
    """
    from levelip.debug.journeys import journeys, paths
    from levelip.debug.whydata import path_data

    filter_ = make_filter(host, port, proto, flags)
    silent: list[str] = []
    with interruptible():
        taken = list(noted(records(stack, file, seconds, filter_, whole=True, silent=silent)))
    groups = paths(journeys(taken, whole=file is None))
    if stack.json:
        for group in groups:
            stack.emit(path_data(group))
    elif not groups:
        click.echo("no packets were seen")
    else:
        click.echo(_table(groups, parts=parts))
    stack.need_answers(silent)


def _table(groups: list[Path], *, parts: bool) -> str:
    """A row a group, and with `parts` one for each process and pipe."""
    rows: list[tuple[Any, ...]] = []
    for group in groups:
        example = group.example.first.name if group.example is not None else ""
        rows.append((group.count, *_times(group.took), group.what, group.path, group.outcome, example))
        if parts:
            rows += [("", *_times(times), f"  {name}", "", "", "") for name, times in group.parts.items()]
    return columns(rows, ("count", "p50", "p90", "p99", "what", "way", "end", "such as"), right=range(4))


def _times(times: list[int]) -> list[str]:
    from levelip.debug.journeys import percentile
    from levelip.debug.whydata import SHARES

    return [_us(percentile(times, share)) for share in SHARES]


def _us(ns: int) -> str:
    return f"{ns / 1000:.0f} µs" if ns < 1_000_000 else f"{ns / 1e6:.3g} ms"
