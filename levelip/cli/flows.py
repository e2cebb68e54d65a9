"""Where graphs, xplot files and qlogs take their connection from: a running stack, a capture, a trace, or recordings.

TARGET of these commands is a file if there is one of that name (or it looks like a path), else a connection: its name
as `lvlip ss` and events show it, an address with port, or a port.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from levelip.cli.common import Failure, Seconds, Stack, noted_interrupts, until_text

if TYPE_CHECKING:
    from levelip.tracing.flow import Flow, FlowModel

READ_S = 0.1
_LINGER_S = 0.3
"""How long a connection that has ended is watched on: the last ACK, the last events."""
_SEVERAL = 8  # names shown where a target means several

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Taken:
    """A connection, and where it came from: `start` is the wall clock, ns since 1970, of the model's start."""

    flow: Flow
    model: FlowModel
    start: int
    source: str
    capture: bool  # of packets alone, an onlooker's


def source_options(function: F) -> F:
    """TARGET, --conn, --seconds and --flight, for a command that calls `take`."""
    for add in (
        click.option("--flight", "after", is_flag=True,
                     help="What has happened until now, as far back as the flight recorders of the stack reach."),
        click.option("--seconds", metavar="S", type=Seconds(min=0.01),
                     help="Watch a running stack for S seconds; else until the connection ends, or Ctrl-C."),
        click.option("--conn", metavar="CONN", help="Which connection of a file; else the one with most data."),
        click.argument("target", metavar="CONN|FILE"),
    ):  # fmt: skip
        function = add(function)
    return function


def take(stack: Stack, target: str, conn: str | None, seconds: float | None, *, after: bool = False) -> Taken:
    """The connection that is meant, with all that is known of it. Failure says what there is instead. `after`: what the
    flight recorders of a running stack hold of it."""
    from levelip.debug.why import is_subject

    path = Path(target)
    file = path.exists() or "/" in target or path.suffix in (".pcapng", ".pcap", ".cap", ".jsonl", ".gz", ".rec")
    if (after or not file) and not is_subject(target):
        raise click.UsageError(
            f"{target!r} is no connection (10.0.0.2:80>10.0.0.1:4711, an end of it, an address, a port)"
            f"{'' if file else ', and there is no such file'}"
        )
    if after:
        from levelip.cli.sources import flight_directory

        if seconds is not None or conn is not None:
            raise click.UsageError("--flight looks back at CONN: it goes without --seconds and --conn")
        silent: list[str] = []
        with flight_directory(stack, silent) as directory:
            for name in silent:
                click.echo(f"left out: what {name} did; it did not answer", err=True)
            return _from_recordings(directory, target, "the flight recorders have")
    if file:
        return _from_file(path, conn)
    if conn is not None:
        raise click.UsageError("--conn chooses from a file; name the connection alone")
    return _from_stack(stack, target, seconds)


def _from_file(path: Path, conn: str | None) -> Taken:
    from levelip.debug.recorded import means_recordings
    from levelip.tracing.capturefile import CaptureError
    from levelip.tracing.flowfile import open_flows

    try:
        if means_recordings(path):
            return _from_recordings(path, conn, f"{path} has")
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    try:
        found = open_flows(path)
    except CaptureError as error:
        raise Failure(f"{path}: {error}; captures (pcapng, pcap) and lvlip trace --json are read") from None
    if found.damage:
        click.echo(f"{path}: {found.damage}; what came before is used", err=True)
    if not found.model.flows:
        raise Failure(f"{path}: no TCP connection among {found.packets} packets")
    flow = choose(found.model, conn, f"{path} has")
    return Taken(flow, found.model, found.start, path.name, found.kind != "trace")


def _from_recordings(path: Path, conn: str | None, where: str) -> Taken:
    from levelip.debug.recorded import files_of, open_all, records
    from levelip.debug.tap import Notice
    from levelip.tracing.flow import FlowModel
    from levelip.tracing.recording import RecordingError

    try:
        without: list[str] = []
        recordings = open_all(files_of(path), without=without)
    except RecordingError as error:
        raise Failure(str(error)) from None
    try:
        for text in without:
            click.echo(f"left out: {text}", err=True)
        told = any(one.head.events for one in recordings)
        model = FlowModel(infer=not told)
        for record in records(recordings):
            if isinstance(record, Notice):
                click.echo(f"{path}: {record.text}; what came before is used", err=True)
            else:
                model.add(record)
        start = model.start or 0
        start += recordings[0].wall_offset(start)
    finally:
        for one in recordings:
            one.close()
    if not model.flows:
        raise Failure(f"{where} no TCP connection (a recording of link or gateway alone has none)")
    flow = choose(model, conn, where)
    return Taken(flow, model, start, path.name, capture=not told)


def choose(model: FlowModel, conn: str | None, where: str) -> Flow:
    """The connection that `conn` means, of several the one with most data; said on standard error."""
    if conn is None:
        several = list(model.flows.values())
    else:
        several = model.find(conn)
        if not several:
            names = ", ".join(list(model.flows)[:_SEVERAL])
            more = f" and {len(model.flows) - _SEVERAL} more" if len(model.flows) > _SEVERAL else ""
            raise Failure(f"{where} no connection {conn!r}; there is {names}{more}")
    chosen = max(several, key=lambda flow: (flow.out.bytes + flow.into.bytes, flow.count))
    if len(several) > 1:
        click.echo(f"{where} {len(several)} connections; this is {chosen.key}, the one with most data", err=True)
    return chosen


def _from_stack(stack: Stack, target: str, seconds: float | None) -> Taken:
    from levelip.debug.tap import EVENT, KIND, Notice, Request, TapReader, time_of
    from levelip.tracing.flow import SEAM, FlowModel

    stack.need_running()
    port = _port(target)
    model = FlowModel()
    begun = 0  # the wall clock at the first record
    filter_ = {"proto": 6, **({"port": port} if port else {})}
    reader = TapReader(stack.run, Request({"tcp": [SEAM]}, ["tcp"], "headers", filter_))
    try:
        reader.open()
        _know(stack, model)
        deadline = time.monotonic() + seconds if seconds is not None else float("inf")
        with noted_interrupts() as over:  # what came until then is what is drawn
            click.echo(f"watching tcp for {target}; {until_text(seconds)}", err=True)
            while not over() and time.monotonic() < deadline:
                touched = set()
                for record in reader.read(min(READ_S, max(deadline - time.monotonic(), 0))):
                    if not begun and not isinstance(record, Notice):
                        begun = time.time_ns() - (time.monotonic_ns() - time_of(record))
                    if isinstance(record, Notice) or (record[KIND] == "e" and not record[EVENT][4]):
                        continue
                    flow = model.add(record)
                    if flow is not None:
                        touched.add(flow.key)
                if seconds is None and any(flow.ended and flow.key in touched for flow in model.find(target)):
                    deadline = min(deadline, time.monotonic() + _LINGER_S)
            for record in reader.drain():
                if not isinstance(record, Notice):
                    model.add(record)
        if reader.lost:
            click.echo(f"{sum(reader.lost.values())} records left out: they came faster than they were read", err=True)
    finally:
        reader.close()
    seen = [flow for flow in model.find(target) if flow.count]
    if not seen:
        others = [flow.key for flow in model.flows.values() if flow.count][:_SEVERAL]
        what = f"; seen: {', '.join(others)}" if others else ""
        verb = click.get_current_context().info_name
        raise Failure(
            f"nothing of a connection {target!r} was seen while it was watched{what}; what happened before, as far as "
            f"it is kept: lvlip {verb} {target} --flight{stack.name_flag()} -o FILE"
        )
    if len(seen) > 1:
        chosen = max(seen, key=lambda flow: (flow.out.bytes + flow.into.bytes, flow.count))
        click.echo(f"{len(seen)} connections of {target!r}; this is {chosen.key}, the one with most data", err=True)
    else:
        chosen = seen[0]
    return Taken(chosen, model, begun, f"stack {stack.run.name}", capture=False)


def _know(stack: Stack, model: FlowModel) -> None:
    """Window scales and states of connections that were there before us."""
    for row in stack.ask("tcp", "ss")["sockets"]:
        info = row.get("info")
        if not info or not row.get("remote_port") or not info.get("options", 0) & 4:
            continue
        name = f"{row['local']}:{row['local_port']}>{row['remote']}:{row['remote_port']}"
        model.know(name, out_wscale=info["rcv_wscale"], in_wscale=info["snd_wscale"], state=row["state"])


def _port(target: str) -> int:
    """The one port that narrows what the publisher sends; 0: none."""
    digits = target.partition(">")[0].rpartition(":")[2]
    return int(digits) if digits.isdigit() and 0 < int(digits) < 65_536 else 0


def write_out(target: str, data: bytes) -> None:
    """To a file, or standard output for "-". Failure for a terminal."""
    import sys

    if target == "-":
        if sys.stdout.isatty():
            raise Failure("standard output is a terminal; use -o FILE")
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    Path(target).write_bytes(data)
