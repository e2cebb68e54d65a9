"""`lvlip capture`: packets as pcapng, one interface a seam, with the events that they caused as comments."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import click

from levelip.cli.comments import Commenter
from levelip.cli.common import (
    Failure,
    Number,
    Seconds,
    Stack,
    StackCommand,
    ended_by_interrupts,
    undisturbed,
    until_text,
)
from levelip.cli.trace import FILTER_HELP, make_expression, make_filter
from levelip.debug.filtering import RecordFilter
from levelip.debug.tap import KIND, PACKET_SEAMS, PROCESSES, Notice, Record, Request, TapReader, one_side

READ_S = 0.2
BUFFER = 1 << 20
_SNAP_SMALL = 128
"""The publisher sends no payload, the first 128 bytes, or all; a snap length chooses the least that suffices."""
_HEADERS = 120
_COUNTED = (("packets", "packet", " captured"), ("events", "event", ""))


@click.command(cls=StackCommand)
@click.option("-w", "--write", "target", required=True, metavar="FILE", help="Where to write; - is standard output.")
@click.option(
    "--at",
    "--seam",
    "seams",
    multiple=True,
    type=click.Choice(PACKET_SEAMS),
    help="Only at this seam. May be repeated.",
)
@click.option("--count", metavar="N", type=Number(min=1), help="Stop after N packets.")
@click.option("--seconds", metavar="S", type=Seconds(min=0.01), help="Stop after S seconds.")
@click.option("--snaplen", metavar="BYTES", type=Number(min=64), help="Cut packets to this length.")
@click.option("--host", metavar="ADDRESS", help="Only packets from or to this address.")
@click.option("--port", metavar="PORT", type=Number(1, 65_535), help="Only packets from or to this port.")
@click.option("--proto", metavar="NAME", help="Only icmp, tcp, udp, or a number.")
@click.option("--flags", metavar="LETTERS", help="Only TCP segments with all these flags: S F R P . U E W.")
@click.option("--filter", "expression", metavar="EXPR", help=FILTER_HELP)
@click.option("--events/--no-events", "events", default=True, help="Events as packet comments.  [default: events]")
@click.pass_obj
def command(
    stack: Stack,
    target: str,
    seams: tuple[str, ...],
    count: int | None,
    seconds: float | None,
    snaplen: int | None,
    host: str | None,
    port: int | None,
    proto: str | None,
    flags: str | None,
    expression: str | None,
    events: bool,
) -> None:
    """Capture packets into a pcapng file for Wireshark and tshark.

    Each seam is an interface of the file: link as on the cable; link-ip, ip-tcp and ip-udp as IP packets, their headers
    rebuilt and checksums completed where the stack does that later. Super-segments are kept whole. Events are
    comments on the packet that caused them (Wireshark: frame.comment).

    \b
    lvlip capture -w all.pcapng --seconds 10
    lvlip capture -w - --at link | tshark -r -
    lvlip capture -w resets.pcapng --filter tcp.flags.reset
    """
    chosen = [seam for seam in PACKET_SEAMS if not seams or seam in seams]
    filter_ = make_filter(host, port, proto, flags)
    wanted = make_expression(expression)
    if wanted is not None and not wanted.expression.about_frames:
        raise click.UsageError(
            "--filter: this is about events, and what is captured are packets; lvlip trace shows events"
        )
    stack.need_running()
    ethernet = _device_is_ethernet(stack)
    detail = "full" if snaplen is None or snaplen > _SNAP_SMALL else "first128" if snaplen > _HEADERS else "headers"
    if wanted is not None and wanted.detail == "full":
        detail = "full"
    sides = one_side(list(PROCESSES))
    main = {name: [one for one in own if one.partition(":")[0] in chosen] for name, own in sides.items()}
    readers = [TapReader(stack.run, Request(main, list(PROCESSES) if events else [], detail, filter_))]
    if events and len(chosen) < len(PACKET_SEAMS):  # the way from an event's frame to the packet that was captured
        rest = [seam for seam in PACKET_SEAMS if seam not in chosen]
        others = {name: [one for one in own if one.partition(":")[0] in rest] for name, own in sides.items()}
        readers.append(TapReader(stack.run, Request(others, [], "headers", filter_)))
    stream = _open(target)
    commenter = Commenter(
        cast(BinaryIO, stream), chosen, ethernet=ethernet, snaplen=snaplen, count=count,
        filtered=bool(filter_) or wanted is not None,
    )  # fmt: skip
    with stack.answers_needed(readers[0].silent):
        try:
            heard = readers[0].open()
            for reader in readers[1:]:
                reader.open(may_be_none=True)
            for name in readers[0].silent:
                click.echo(f"{name} did not answer: what it does is left out", err=True)
            with ended_by_interrupts() as over:
                where = f"{', '.join(chosen)} of {', '.join(heard)}"
                click.echo(f"capturing at {where}; {until_text(seconds)}", err=True)
                stream.flush()
                _run(readers, commenter, stream, seconds, wanted, over)
        finally:
            for reader in readers:
                reader.close()
            commenter.finish()
            stream.flush()
            if stream is not sys.stdout.buffer:
                stream.close()
            _say(stack, target, commenter, readers[0].lost)


def _device_is_ethernet(stack: Stack) -> bool:
    """What link's frames start with: link says, or its configuration. Of one that is silent nothing is shown."""
    from levelip.ipc.control import ControlError, NotRunning

    if "link" not in stack.running():
        return True
    try:
        return bool(stack.ask("link", "device")["ethernet"])
    except NotRunning:
        return True
    except (ControlError, KeyError):
        device = stack.ask("link", "get", section="device")["values"]
        return bool(device["kind"] == "tap" or (device["kind"] == "wire" and device["wire_carries"] == "ethernet"))


def _open(target: str) -> IO[bytes]:
    if target == "-":
        if sys.stdout.isatty():
            raise Failure("standard output is a terminal; use -w FILE, or pipe it into tshark -r -")
        return sys.stdout.buffer
    return Path(target).open("wb", buffering=BUFFER)


def _run(
    readers: list[TapReader], commenter: Commenter, stream: IO[bytes], seconds: float | None,
    wanted: RecordFilter | None, over: Callable[[], bool],
) -> None:  # fmt: skip
    """Until Ctrl-C, SIGTERM (`over`), --seconds or --count; what was told before the end is written in any case."""

    def take(records: Iterable[Record | Notice]) -> None:
        if wanted is None:
            commenter.take(records, captured=True)
            return
        for record in records:  # a frame that is left out still tells where others come from
            captured = isinstance(record, Notice) or record[KIND] != "f" or wanted.frame(record)
            commenter.take((record,), captured=captured)

    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    try:
        while not over() and not commenter.full and time.monotonic() < deadline:
            wait = min(READ_S, max(0.0, deadline - time.monotonic()))
            take(readers[0].read(wait if len(readers) == 1 else 0.02))
            for reader in readers[1:]:
                commenter.take(reader.read(0), captured=False)
            with undisturbed():
                if commenter.write(time.monotonic_ns()):
                    stream.flush()
    finally:
        take(readers[0].drain())
        for reader in readers[1:]:
            commenter.take(reader.drain(), captured=False)


def _say(stack: Stack, target: str, commenter: Commenter, lost: dict[str, int]) -> None:
    facts: dict[str, Any] = {"packets": commenter.packets, "events": commenter.events, "left_out": sum(lost.values())}
    if stack.json and target != "-":
        stack.emit({"file": target, **facts})
        return
    text = ", ".join(f"{facts[what]} {name}{'s' * (facts[what] != 1)}{done}" for what, name, done in _COUNTED)
    if lost:
        text += f", {facts['left_out']} left out ({', '.join(f'{name} {n}' for name, n in lost.items())})"
    if commenter.homeless:
        text += f"; {commenter.homeless} events had no packet to be noted on"
    click.echo(text, err=True)
