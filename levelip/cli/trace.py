"""`lvlip trace`: a line a packet a seam, in tcpdump's habit, and a line an event, with its reason."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from levelip.cli.common import (
    LAYERS,
    Number,
    Seconds,
    Stack,
    StackCommand,
    colourless,
    ended_by_interrupts,
    undisturbed,
    until_text,
)
from levelip.cli.tracelines import Chooser, JsonLines, Lines, TextLines
from levelip.debug.filtering import RecordFilter
from levelip.debug.tap import PROCESSES, SEAMS, Request, TapReader, one_side, seams_of

READ_S = 0.2
BUFFER = 1 << 18
HOLD_S = 0.25
"""Output to a target that is no terminal is held until there is so much of it, or for so long."""
FILTER_HELP = "Only what an expression is true of: Wireshark's fields, and events (docs/expressions.md)."
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}


@click.command(cls=StackCommand)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    type=click.Choice(LAYERS),
    help="Only this process: all that goes in and out of it, and its events. May be repeated.",
)
@click.option(
    "--seam", "--at", "seams", multiple=True, type=click.Choice(SEAMS), help="Only this seam. May be repeated."
)
@click.option("--host", metavar="ADDRESS", help="Only packets from or to this address.")
@click.option("--port", metavar="PORT", type=Number(1, 65_535), help="Only packets from or to this port.")
@click.option("--proto", metavar="NAME", help="Only icmp, tcp, udp, or a number.")
@click.option("--flags", metavar="LETTERS", help="Only TCP segments with all these flags: S F R P . U E W.")
@click.option("--filter", "expression", metavar="EXPR", help=FILTER_HELP)
@click.option("--events/--no-events", "events", default=True, help="Events too.  [default: events]")
@click.option("--packets/--no-packets", "packets", default=True, help="Packets too.  [default: packets]")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="Only events of this kind (drop, state, cwnd, ...). May be repeated.",
)
@click.option("--count", metavar="N", type=Number(min=1), help="Stop after N lines.")
@click.option("--seconds", metavar="S", type=Seconds(min=0.01), help="Stop after S seconds.")
@click.option("--journey", is_flag=True, help="Each packet's whole way: time in each process and pipe, what it caused.")
@click.option(
    "--from",
    "file",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE|DIR",
    help="With --journey: read a file that lvlip trace --json wrote, or recordings.",
)
@click.option("--hex", "hexdump", is_flag=True, help="Dump the bytes of each packet.")
@click.option("-S", "--absolute", is_flag=True, help="Absolute sequence numbers.")
@click.option("-v", "--verbose", is_flag=True, help="The IP header, frame ids and causes too.")
@click.pass_obj
def command(
    stack: Stack,
    layers: tuple[str, ...],
    seams: tuple[str, ...],
    host: str | None,
    port: int | None,
    proto: str | None,
    flags: str | None,
    expression: str | None,
    events: bool,
    packets: bool,
    kinds: tuple[str, ...],
    count: int | None,
    seconds: float | None,
    journey: bool,
    file: Path | None,
    hexdump: bool,
    absolute: bool,
    verbose: bool,
) -> None:
    """Watch packets cross the layers, and why each decision was made.

    One line a packet a seam; ↑ is toward the applications, ↓ toward the network. Filters run in the stack, so what
    they leave out costs nothing here; but --filter runs here, on what the others leave. Ends with Ctrl-C, --count or
    --seconds. What came faster than it could be written is counted, and said.

    \b
    lvlip trace --port 80
    lvlip trace --layer tcp --flags S
    lvlip trace --no-packets --kind drop
    lvlip trace --filter 'tcp.flags.syn or event state'
    lvlip trace --json > trace.jsonl
    lvlip trace --journey --port 80 --count 20
    """
    if journey:
        from levelip.cli.journeys import show_journeys

        if layers or seams or kinds or hexdump:
            raise click.UsageError("--journey follows packets through all layers: no --layer, --seam, --kind or --hex")
        if file is not None and seconds is not None:
            raise click.UsageError("--seconds is for a running stack, --from a file: one of them")
        filter_ = make_filter(host, port, proto, flags)
        show_journeys(stack, file, filter_, make_expression(expression), count, seconds)
        return
    if file is not None:
        raise click.UsageError("--from goes with --journey")
    filter_ = make_filter(host, port, proto, flags)
    chosen = make_expression(expression)
    about_packets = chosen is None or chosen.expression.about_frames
    if chosen is not None:
        _check_filter(chosen, packets, kinds)
    detail = "full" if hexdump else "first128" if stack.json else "headers"
    request = Request(
        choose_seams(layers, seams) if packets and about_packets else {},
        [name for name in PROCESSES if not layers or name in layers] if events else [],
        detail if chosen is None or chosen.detail == "headers" else chosen.detail,
        filter_,
    )
    if not request.processes():
        raise click.UsageError("nothing is left to show")
    stack.need_running()
    warn_of_unknown(kinds)
    chooser = Chooser(filter_, kinds, chosen)
    terminal = sys.stdout.isatty() and not stack.json and not colourless()
    lines: Lines = (
        JsonLines(hexdump=hexdump)
        if stack.json
        else TextLines(absolute=absolute, verbose=verbose, hexdump=hexdump, colour=terminal)
    )
    reader = TapReader(stack.run, request)
    with stack.answers_needed(reader.silent):
        _listen(reader, chooser, lines, count, seconds)


def _check_filter(chosen: RecordFilter, packets: bool, kinds: tuple[str, ...]) -> None:
    """UsageError for an expression that is true of nothing that the other options leave."""
    from levelip.tracing.possible import events_of

    expression = chosen.expression
    if not packets and not expression.about_events:
        raise click.UsageError("--filter is about packets, which --no-packets leaves out")
    if kinds and not (packets and expression.about_frames) and not any(
        expression.possible(events_of(kind)) for kind in kinds
    ):  # fmt: skip
        raise click.UsageError(f"--filter is true of no event of --kind {' or '.join(kinds)}")


def _listen(reader: TapReader, chooser: Chooser, lines: Lines, count: int | None, seconds: float | None = None) -> None:
    """From the start to the end; what was left out is said."""
    try:
        heard = reader.open()
        with ended_by_interrupts() as over:
            click.echo(f"listening to {', '.join(heard)}; {until_text(seconds)}", err=True)
            deadline = time.monotonic() + seconds if seconds is not None else float("inf")

            def ends() -> bool:
                return over() or time.monotonic() >= deadline

            _stream(reader, chooser, lines, count, ends, deadline, buffered=not sys.stdout.isatty())
    finally:
        reader.close()
        if reader.lost:
            total = sum(reader.lost.values())
            each = ", ".join(f"{name} {number}" for name, number in reader.lost.items())
            click.echo(f"{total} left out ({each}): they came faster than they could be written", err=True)


def warn_of_unknown(kinds: Iterable[str]) -> None:
    """Say which of these are no kinds of events of ours: a slip, or an addon's, which may emit kinds of its own."""
    from levelip.tracing.eventfields import EVENTS
    from levelip.tracing.fields import near

    for kind in kinds:
        if kind not in EVENTS:
            close = near(kind, list(EVENTS))
            hint = f"; did you mean {' or '.join(close)}?" if close else ""
            click.echo(f"--kind {kind}: no layer makes such events, only an addon may{hint}", err=True)


def make_expression(text: str | None) -> RecordFilter | None:
    """What --filter says; UsageError, with the place in the text, if it means nothing."""
    if text is None:
        return None
    try:
        return RecordFilter(text)
    except ValueError as error:
        raise click.UsageError(f"--filter: {error}") from None


def make_filter(host: str | None, port: int | None, proto: str | None, flags: str | None) -> dict[str, Any]:
    """The filter that runs in the publishers; UsageError for a value that means nothing."""
    from levelip.wire.addr import parse_address
    from levelip.wire.tcp import flags_from_text

    chosen: dict[str, Any] = {}
    if host:
        try:
            chosen["host"] = parse_address(host)
        except ValueError:
            raise click.UsageError(f"--host {host}: must be an address, as 10.0.0.1") from None
    if port:
        chosen["port"] = port
    if proto:
        number = PROTOCOLS.get(proto.lower(), int(proto) if proto.isdigit() and int(proto) < 256 else None)
        if number is None:
            raise click.UsageError(f"--proto {proto}: must be {', '.join(PROTOCOLS)} or a number from 0 to 255")
        chosen["proto"] = number
    if flags:
        letters = flags.upper().replace("A", ".")
        try:
            flags_from_text(letters)
        except ValueError as error:
            raise click.UsageError(f"--flags {flags}: {error}") from None
        chosen["flags"] = letters
    return chosen


def choose_seams(layers: tuple[str, ...], seams: tuple[str, ...]) -> dict[str, list[str]]:
    """Which process shall tell of which seams: without --layer each seam once; of a layer both of its sides."""
    if not layers:
        chosen = one_side(list(PROCESSES))
    else:
        chosen = {layer: list(seams_of(layer)) for layer in layers}
    if seams:
        chosen = {name: [one for one in own if one.partition(":")[0] in seams] for name, own in chosen.items()}
    return {name: own for name, own in chosen.items() if own}


def _stream(
    reader: TapReader, chooser: Chooser, lines: Lines, count: int | None, over: Callable[[], bool], deadline: float, *,
    buffered: bool,
) -> None:  # fmt: skip
    """Until Ctrl-C, SIGTERM, the deadline (`over`) or `count` lines; what the layers have told by then is written in
    any case."""
    out = sys.stdout
    pending: list[str] = []
    size, written = 0, time.monotonic()
    left = count if count is not None else -1
    try:
        ending = False
        while left and not ending:
            ending = over()
            for record in reader.drain() if ending else reader.read(max(0.0, min(READ_S, deadline - time.monotonic()))):
                if not chooser.wants(record):
                    continue
                line = lines.line(record)
                pending.append(line)
                size += len(line) + 1
                left -= 1
                if not left:
                    break
            now = time.monotonic()
            if pending and (not buffered or size >= BUFFER or now - written > HOLD_S or not left or ending):
                _write(out, pending)
                pending, size, written = [], 0, now
    finally:
        if pending:
            _write(out, pending)


def _write(out: Any, pending: list[str]) -> None:
    with undisturbed():
        out.write("\n".join(pending) + "\n")
        out.flush()
        pending.clear()
