"""`lvlip web`: the web view of a stack, and of captures."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from levelip.cli.common import Failure, Number, Stack, StackCommand, interruptible, undisturbed

if TYPE_CHECKING:
    from levelip.web.desk import Desk
    from levelip.web.security import Access

PORT = 8420


@click.command(cls=StackCommand)
@click.argument("files", nargs=-1, type=click.Path(exists=True), metavar="[FILE]...")
@click.option("--port", metavar="PORT", type=Number(0, 65_535), default=PORT, show_default=True,
              help="Where to listen; 0: any that is free.")  # fmt: skip
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1", show_default=True,
              help="On which address. Beyond loopback, whoever has the URL sees all traffic and can act on the stack, "
              "and HTTP hides neither.")  # fmt: skip
@click.option("--host", "names", multiple=True, metavar="NAME",
              help="Accept this host name too (of a proxy, of this machine). May be repeated.")  # fmt: skip
@click.option("--keep", metavar="N", type=Number(1000, 1_500_000), default=150_000, show_default=True,
              help="How many packets and events to keep; some 400 bytes each.")  # fmt: skip
@click.pass_obj
def command(stack: Stack, files: tuple[str, ...], port: int, bind: str, names: tuple[str, ...], keep: int) -> None:
    """Show the stack in a browser: processes, connections, packets, graphs; act on it; open captures, run recordings.

    Prints a URL with a token and serves until Ctrl-C. The stack may start later, or not at all where only a FILE is to
    be looked at: a capture (pcapng, pcap), or a recording (of lvlip record; a directory of them, too).

    \b
    lvlip web
    lvlip web --port 0 capture.pcapng
    """
    from levelip.web.desk import Desk
    from levelip.web.live import Live
    from levelip.web.security import Access, is_loopback
    from levelip.web.server import listen

    try:
        listening = listen(bind, port)
    except OSError as error:
        hint = "; choose another --port (0: any)" if error.errno == errno.EADDRINUSE else ""
        raise Failure(f"{bind} port {port}: {error.strerror}{hint}") from None
    port = listening.getsockname()[1]
    access = Access(port, bind=bind, names=names)
    desk = Desk(Live(stack.run, keep=keep), may_load=is_loopback(bind) and not names)
    shown = "127.0.0.1" if bind in ("0.0.0.0", "::") else f"[{bind}]" if ":" in bind else bind
    url = f"http://{shown}:{port}/?token={access.token}"
    if not is_loopback(bind):
        click.echo(
            f"lvlip: warning: {bind} can be reached from other machines. Whoever has the URL sees all traffic and can "
            "act on the stack, and HTTP does not hide the URL; better: ssh -L", err=True,
        )  # fmt: skip
    with interruptible(), contextlib.ExitStack() as ending:  # uvicorn ends in order, then raises the signal again
        if stack.json:
            stack.emit({"url": url, "port": port})
        else:
            click.echo(url)
            click.echo("Open it in a browser; the token lets you in. Ctrl-C ends.", err=True)
        sys.stdout.flush()
        with undisturbed():  # an event loop is made whole, whenever a signal comes
            runner = ending.enter_context(asyncio.Runner())
        runner.run(_serve(desk, access, listening, [Path(path) for path in files]))


async def _serve(desk: Desk, access: Access, listening: socket.socket, files: list[Path]) -> None:
    from levelip.tracing.capturefile import CaptureError
    from levelip.tracing.recording import RecordingError
    from levelip.web.server import make_server

    for path in files:
        try:
            opened = await desk.open(path.name, path)
        except (CaptureError, RecordingError, ValueError) as error:
            raise Failure(f"{path}: {error}") from None
        if opened.damage:
            click.echo(f"lvlip: {path}: reading ended early: {opened.damage}", err=True)
    await make_server(desk, access).serve(sockets=[listening])
