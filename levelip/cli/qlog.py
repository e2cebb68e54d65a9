"""`lvlip qlog`: a connection as qlog (draft-ietf-quic-qlog-main-schema)."""

from __future__ import annotations

import io
from pathlib import Path

import click

from levelip.cli.common import Stack, StackCommand
from levelip.cli.flows import source_options, take, write_out

_CONTAINED = (".json", ".qlog")


@click.command(cls=StackCommand)
@source_options
@click.option("-o", "--output", "output", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option("--format", "form", type=click.Choice(["json", "json-seq"]),
              help="How to write it; else json, and json-seq for a FILE that ends with .sqlog, or for -.")  # fmt: skip
@click.pass_obj
def command(
    stack: Stack, target: str, conn: str | None, seconds: float | None, after: bool, output: str, form: str | None
) -> None:
    """Write a connection as qlog: of a running stack, while it lasts, or from a capture, trace or recording.

    Packets, states, congestion and recovery figures, timers, and every other decision with its sentence. The schema
    is draft-ietf-quic-qlog-main-schema-14; TCP has no event schema, so the events are named after QUIC's, in the
    namespace tcp (docs/exports.md).

    \b
    lvlip qlog 10.0.0.1:8000 -o transfer.qlog
    lvlip qlog capture.pcapng -o - | head
    """
    from levelip.tracing.qlog import QlogWriter

    if form is None:
        form = "json" if Path(output).suffix in _CONTAINED else "json-seq"
    taken = take(stack, target, conn, seconds, after=after)
    out = io.BytesIO()
    writer = QlogWriter(taken.flow, start=taken.start, source=taken.source, capture=taken.capture)
    events = writer.write(out, sequential=form == "json-seq")
    write_out(output, out.getvalue())
    left_out = sum(taken.flow.since(taken.flow.count)["left_out"].values())
    if stack.json and output != "-":
        stack.emit({"file": output, "connection": taken.flow.key, "events": events, "left_out": left_out})
    else:
        left = f", {left_out} rows left out" if left_out else ""
        click.echo(f"{taken.flow.key}: {events} events{left}", err=True)
