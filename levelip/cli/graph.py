"""`lvlip graph`: the graphs of a connection as a picture, or as an xplot file."""

from __future__ import annotations

import io
from pathlib import Path

import click

from levelip.cli.common import Failure, Seconds, Stack, StackCommand
from levelip.cli.flows import source_options, take, write_out

_KINDS = ("sequence", "window", "rtt", "ladder")
_FORMATS = ("svg", "png", "xplot")


@click.command(cls=StackCommand)
@source_options
@click.option("-o", "--output", "output", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option(
    "--kind", "kinds", multiple=True, type=click.Choice(_KINDS),
    help="What to draw; several are put under each other.  [default: sequence]",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="How to write it; else as FILE ends: .svg, .png or .xpl."
)
@click.option("--way", type=click.Choice(["out", "in"]), help="Whose data: what the local side sent, or the peer.  "
              "[default: the busier]")  # fmt: skip
@click.option("--from", "start", metavar="S", type=Seconds(), help="Only from this second on.")
@click.option("--to", "end", metavar="S", type=Seconds(), help="Only up to this second.")
@click.pass_obj
def command(
    stack: Stack,
    target: str,
    conn: str | None,
    seconds: float | None,
    after: bool,
    output: str,
    kinds: tuple[str, ...],
    form: str | None,
    way: str | None,
    start: float | None,
    end: float | None,
) -> None:
    """Draw a connection: of a running stack, while it lasts, or from a capture, trace or recording.

    sequence is tcptrace's time-sequence graph (segments, ACK line, window line, SACK blocks, what was sent again);
    window shows cwnd, ssthresh, flight and the peer's window; rtt round trips and RTO; ladder each segment and
    decision. A capture of any tool will do, but only ours and a trace know windows and decisions.

    \b
    lvlip graph 10.0.0.1:8000 -o transfer.svg --kind sequence --kind window --kind rtt
    lvlip graph 10.0.0.1:8000 --flight -o was.svg
    lvlip graph capture.pcapng -o lost.png --from 1.2 --to 1.5
    lvlip graph trace.jsonl -o out.xpl
    """
    if form is None:
        form = {".xpl": "xplot"}.get(Path(output).suffix, Path(output).suffix[1:])
        if form not in _FORMATS:
            raise click.UsageError(f"{output}: name it .svg, .png or .xpl, or say --format")
    chosen = list(dict.fromkeys(kinds)) or ["sequence"]
    if "ladder" in chosen and len(chosen) > 1:
        raise click.UsageError("a ladder is drawn alone: its time is not to scale")
    if form == "xplot" and chosen != ["sequence"]:
        raise click.UsageError("an xplot file holds the sequence graph alone")
    span = None
    if start is not None or end is not None:
        span = (round((start or 0) * 1e9), round(end * 1e9) if end is not None else 1 << 62)
        if span[0] >= span[1]:
            raise click.UsageError("--from has to lie before --to")
    if form != "xplot":
        _need_matplotlib()  # before anybody waits for a connection to end
    taken = take(stack, target, conn, seconds, after=after)
    rows = taken.flow.segments.rows
    shown = [row for row in rows if span is None or span[0] <= row.t <= span[1]]
    if rows and not shown:
        raise Failure(
            f"{taken.flow.key} has no segment then: they are from {rows[0].t / 1e9:.6f} s to {rows[-1].t / 1e9:.6f} s"
        )
    if form == "xplot":
        from levelip.tracing.flowgraph import busier, sequence
        from levelip.tracing.xplot import XplotWriter

        way = way or busier(taken.flow)
        text = io.StringIO()
        arrow = taken.flow.key.partition("#")[0].split(">")
        title = "_==>_".join(arrow if way == "out" else arrow[::-1])
        XplotWriter(text).graph(sequence(taken.flow, way, span), f"{title} (time sequence graph)")
        data = text.getvalue().encode()
    else:
        from levelip.tracing.pictures import draw

        data = draw(taken.flow, chosen, form=form, way=way or "", span=span)
    write_out(output, data)
    facts = {"file": output, "connection": taken.flow.key, "segments": len(shown),
             "left_out": taken.flow.segments.left_out}  # fmt: skip
    if stack.json and output != "-":
        stack.emit(facts)
    else:
        left = f", {facts['left_out']} left out" if facts["left_out"] else ""
        click.echo(f"{facts['connection']}: {facts['segments']} segments{left}, {', '.join(chosen)}", err=True)


def _need_matplotlib() -> None:
    from levelip.tracing.pictures import NoMatplotlib, prepare

    try:
        prepare()
    except NoMatplotlib as error:
        raise Failure(f"{error}; or write an xplot file: -o FILE.xpl") from None
