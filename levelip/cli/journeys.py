"""`lvlip trace --journey`: one packet after the other, through all processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from levelip.cli.common import Stack, interruptible
from levelip.cli.sources import noted, records
from levelip.debug.tap import PROCESSES, TapReader, time_of

if TYPE_CHECKING:
    from levelip.debug.filtering import RecordFilter
    from levelip.debug.journeys import Journey

SETTLE_NS = 300_000_000
"""So long after its first record a packet is told of: a delayed ACK (40 ms and more) should be part of it."""


def show_journeys(
    stack: Stack, file: Path | None, filter_: dict[str, Any], chosen: RecordFilter | None, count: int | None,
    seconds: float | None = None,
) -> None:  # fmt: skip
    """Until Ctrl-C, for `seconds`, until the end of the file, or `count` packets. `chosen`: of which some record or
    event is true."""
    from levelip.debug.collection import Collection
    from levelip.debug.journeys import Journeys, journey_data, journey_lines

    readers: list[TapReader] = []
    stream = Journeys(Collection(), whole=file is None, heard=lambda: readers[0].heard if readers else PROCESSES)
    left = count if count is not None else -1

    def tell(until: int) -> bool:
        nonlocal left
        if not left:
            return True
        for one in stream.ready(until):
            if chosen is not None and not _wanted(one, chosen):
                continue
            if stack.json:
                stack.emit(journey_data(one))
            else:
                click.echo("\n".join(journey_lines(stream.collection, one)))
            left -= 1
            if not left:
                return True
        return False

    looked = time.monotonic()
    silent: list[str] = []

    def quiet() -> bool:
        return tell(time.monotonic_ns() - SETTLE_NS)

    source = records(stack, file, seconds, filter_, whole=True, silent=silent, opened=readers.append, quiet=quiet)
    try:
        with interruptible():
            for record in noted(source):
                stream.add(record)
                if file is None and time.monotonic() - looked > 0.1:
                    looked = time.monotonic()
                    if tell(time_of(record) - SETTLE_NS):  # records come in the order of their times, perhaps late
                        break
        if left:
            tell(1 << 63)
        if file is not None and left == (count if count is not None else -1):
            click.echo("no packets were seen", err=True)
    finally:
        source.close()
    stack.need_answers(silent)


def _wanted(one: Journey, chosen: RecordFilter) -> bool:
    for hop in one.hops:
        if any(fact is not None and chosen.frame(fact.record) for fact in (hop.came, hop.gone)):
            return True
        if any(chosen.expression.matches_event(told.event) for told in hop.decisions):
            return True
    return False
