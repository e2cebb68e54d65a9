"""Where `why`, `paths` and `trace --journey` take their records from: the running stack for a while, a trace, or
recordings, also those of the flight recorders, which are written out for that.

A flight recorder keeps no events; the cores make them again, which takes `python -m simulation.replay` (script.py).
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from levelip.cli.common import Failure, Seconds, Stack, noted_interrupts, until_text
from levelip.debug.captured import is_capture, read_capture
from levelip.debug.facts import TALK, fact
from levelip.debug.flight import write_flight
from levelip.debug.programs import environment, python
from levelip.debug.recorded import files_of, means_recordings, open_all
from levelip.debug.recorded import records as recorded_records
from levelip.debug.streams import connection_name, known
from levelip.debug.tap import KIND, MONO, PROCESSES, Notice, Record, Request, TapReader, seams_of
from levelip.debug.traces import TraceError, live, read_trace
from levelip.tracing.capturefile import CaptureError
from levelip.tracing.events import Event
from levelip.tracing.recording import Recording, RecordingError
from levelip.wire.addr import format_address
from levelip.wire.tcp import flags_from_text

_TOO_SLOW = re.compile(r": \d+ left out$")
"""What a listener says that is too slow; `records` has the sum at the end."""


def source_options(command: Any) -> Any:
    """--from and --seconds."""
    for option in (
        click.option(
            "--seconds", type=Seconds(min=0, min_open=True), metavar="S",
            help="Listen so long.  [default: until Ctrl-C]",
        ),
        click.option(
            "--from", "file", type=click.Path(exists=True, path_type=Path), metavar="FILE|DIR",
            help="Read what lvlip trace --json, capture or record wrote, or another's capture, instead of listening.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def both_sides() -> dict[str, list[str]]:
    """Every seam, as the process on either side sees it: what tells how long pipes take."""
    return {name: list(seams_of(name)) for name in PROCESSES}


def records(
    stack: Stack,
    file: Path | None,
    seconds: float | None,
    filter_: dict[str, Any] | None = None,
    *,
    whole: bool = False,
    silent: list[str] | None = None,
    opened: Callable[[TapReader], object] = lambda reader: None,
    quiet: Callable[[], bool] = lambda: False,
) -> Generator[Record | Notice, None, None]:
    """Records until the file, or the time, is over. What was left out is said at the end.

    `silent` takes the layers of a running stack that did not answer. `whole`: not those from before all layers were
    listened to, which tell of packets half of whose way nobody saw. `opened` is given the reader of a running stack
    when it listens; `quiet` is called when nothing has come for a while, and says whether to end.
    """
    if file is not None:
        try:
            for record in _of_file(file):
                if not filter_ or _passes(record, filter_):
                    yield record
        except TraceError as error:
            raise Failure(f"{error}; captures (pcapng, pcap), recordings and lvlip trace --json are read") from None
        except (RecordingError, CaptureError) as error:
            raise Failure(str(error)) from None
        return
    stack.need_running()
    filter_ = {**filter_, "messages": True} if filter_ else {}
    reader = TapReader(stack.run, Request(both_sides(), list(PROCESSES), "first128", filter_))
    try:
        heard = reader.open()
        opened(reader)
        if "tcp" in heard:
            yield from _open_before(stack)
        since = time.monotonic_ns() if whole else 0
        with noted_interrupts() if seconds is None else contextlib.nullcontext(bool) as over:
            click.echo(f"listening to {', '.join(heard)}; {until_text(seconds)}", err=True)
            for record in live(reader, seconds, over, quiet):
                if isinstance(record, Notice) or record[KIND] == "e" or record[MONO] >= since:
                    yield record
    finally:
        reader.close()
        if silent is not None:
            silent += reader.silent
        if reader.lost:
            click.echo(f"{sum(reader.lost.values())} left out: they came faster than they could be taken", err=True)


def noted(source: Iterable[Record | Notice]) -> Iterator[Record]:
    """Its records; what is missing among them, as a torn file or a layer that is silent, is said on standard error."""
    for record in source:
        if not isinstance(record, Notice):
            yield record
        elif not _TOO_SLOW.search(record.text):
            click.echo(record.text, err=True)


def _of_file(path: Path) -> Iterator[Record | Notice]:
    if means_recordings(path):
        return recorded(path)
    return read_capture(path) if is_capture(path) else read_trace(path)


def _passes(record: Record | Notice, filter_: dict[str, Any]) -> bool:
    """The publishers' filter, for a file."""
    if isinstance(record, Notice) or record[KIND] == "e":
        return True
    one = fact(record)
    if one.seam in TALK:
        return True
    wanted = flags_from_text(filter_.get("flags", ""))
    return (
        ("host" not in filter_ or format_address(filter_["host"]) in (one.src, one.dst))
        and ("port" not in filter_ or filter_["port"] in (one.sport, one.dport))
        and filter_.get("proto", one.proto) == one.proto
        and (not wanted or (one.is_tcp and one.flags & wanted == wanted))
    )


def _open_before(stack: Stack) -> Iterator[Record]:
    """Which sockets are whose, of connections that are open already."""
    for row in stack.ask("tcp", "ss")["sockets"]:
        if row.get("remote_port") and "iss" in row and row["state"] not in ("SYN_SENT", "SYN_RECEIVED"):
            name = connection_name(row["local"], row["local_port"], row["remote"], row["remote_port"])
            yield known(time.monotonic_ns(), name, row["sock"], row["iss"], row["irs"])


def recorded(path: Path) -> Iterator[Record | Notice]:
    """Both sides of each seam, from recordings. RecordingError."""
    without: list[str] = []
    recordings = open_all(files_of(path), without=without)
    try:
        yield from (Notice(0, f"left out: {text}") for text in without)
        mute = [one for one in recordings if not one.head.events]
        events, notes = _made_again(mute) if mute else ({}, [])
        yield from notes
        yield from recorded_records(recordings, both_sides=True, messages=True, events=events)
    finally:
        for one in recordings:
            one.close()


def _made_again(recordings: list[Recording]) -> tuple[dict[str, dict[int, list[Event]]], list[Notice]]:
    """The events of recordings that hold none, by a replay, and what it says. Without events if it cannot be run."""
    paths = [str(one.path) for one in recordings]
    command = python("simulation.replay", "--to-events", "-", *paths)
    size = sum(one.path.stat().st_size for one in recordings) / 1e6
    with _working(f"replaying {size:.0f} MB of recordings, for what was decided"):
        done = subprocess.run(command, capture_output=True, env=environment(), check=False)
    begin = min(one.span[0] for one in recordings)
    if done.returncode:
        said = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        return {}, [Notice(begin, f"the decisions are left out, no replay could make them: {said}")]
    found = msgspec.msgpack.decode(done.stdout, type=list[tuple[str, dict[int, list[Event]], str]])
    notes = [Notice(begin, f"{process}: decisions left out: {note}") for process, _, note in found if note]
    return {process: events for process, events, _ in found}, notes


def flight(stack: Stack, silent: list[str]) -> Iterator[Record | Notice]:
    """What the flight recorders of a running stack hold; `silent` takes the layers that did not answer."""
    with flight_directory(stack, silent) as directory:
        yield from (Notice(0, f"left out: what {name} did; it did not answer") for name in silent)
        try:
            yield from recorded(directory)
        except RecordingError as error:
            raise Failure(str(error)) from None


@contextlib.contextmanager
def flight_directory(stack: Stack, silent: list[str]) -> Iterator[Path]:
    """What the flight recorders of a running stack hold, written out and removed again; `silent` takes the layers that
    did not answer."""
    with tempfile.TemporaryDirectory(prefix="lvlip-flight-") as directory:  # 0700
        with _working("writing the flight recorders out"):
            silent += write_flight(stack.ask, stack.need_running(), Path(directory))
        yield Path(directory)


@contextlib.contextmanager
def _working(text: str) -> Iterator[None]:
    """What takes so long, on standard error, as long as it does and if that is a terminal."""
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
