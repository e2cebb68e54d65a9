"""`lvlip inject`: packets that nobody sent."""

from __future__ import annotations

from pathlib import Path

import click

from levelip.cli.common import Failure, Number, Stack, StackCommand
from levelip.cli.debugcomplete import point_names


@click.command(cls=StackCommand)
@click.argument("where", metavar="SEAM:WAY", shell_complete=point_names)
@click.argument("line", required=False)
@click.option("--conn", metavar="LOCAL:PORT>REMOTE:PORT", default="", help="Whose packet it is, the stack's end first.")
@click.option("--set", "words", multiple=True, metavar="FIELD=VALUE", help="A packet of these fields. May be repeated.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Packets of a pcap or pcapng file.",
)
@click.option(
    "--packet",
    "numbers",
    metavar="N",
    multiple=True,
    type=Number(min=1),
    help="With --file: only this one, as Wireshark counts. May be repeated.",
)
@click.option(
    "-S",
    "--absolute",
    is_flag=True,
    help="Sequence numbers in LINE stand as on the wire, though tcp knows the connection.",
)
@click.option("--keep-checksums", is_flag=True, help="With --set: checksums that are not set stay wrong.")
@click.option("--force", is_flag=True, help="Though another debugger holds the stack.")
@click.pass_obj
def command(
    stack: Stack,
    where: str,
    line: str | None,
    conn: str,
    words: tuple[str, ...],
    path: Path | None,
    numbers: tuple[int, ...],
    absolute: bool,
    keep_checksums: bool,
    force: bool,
) -> None:
    """Put packets into the stack at a seam, as if they had just come by: link:up from the network, ip-tcp:down from
    tcp to ip, and so on. Faults and addons of the seam do not touch them; breakpoints see them, and where the stack is
    held they wait behind the others.

    LINE is packetdrill's (docs/packet-scripts.md); numbers count from the connection's own if tcp knows it.

    \b
    lvlip inject ip-tcp:up '. 1:1001(1000) ack 1 win 500' --conn '10.0.0.2:80>10.0.0.1:4711'
    lvlip inject link:up --set tcp.flags.reset=1 --set tcp.seq=7 --conn '10.0.0.2:80>10.0.0.1:4711'
    lvlip inject link-ip:up --file weird.pcapng --packet 3
    """  # fmt: skip
    from levelip.cli.debugtext import debugging
    from levelip.debug.injecting import inject
    from levelip.frames.packet import format_frame_id

    if [bool(line), bool(words), bool(path)].count(True) != 1:
        raise click.UsageError("say what to inject: a LINE, fields (--set) or a file (--file)")
    if numbers and path is None:
        raise click.UsageError("--packet goes with --file")
    with debugging(stack, tool="lvlip inject", force=force) as debugger:
        done = inject(
            debugger, where, line=line, words=words, path=path, numbers=numbers, connection=conn, absolute=absolute,
            keep_checksums=keep_checksums,
        )  # fmt: skip
    for one in done:
        if stack.json:
            stack.emit(one)
        else:
            click.echo(one["text"])
        if one["note"]:
            click.echo(f"{format_frame_id(one['id'])}: {one['note']}", err=True)
    if not done:
        raise Failure("there was nothing to inject")
