"""The demo (`make demo`): a real file crosses link, ip, tcp and gateway, both ways, traced, and with a layer killed.

Everything happens in a network namespace that goes with the demo; without root too, and where no namespace is
allowed, between two stacks. Exit status: 0 if every byte was right, 1 if not, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import os
import random
import select
import shutil
import signal
import socket as kernel
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from surroundings import HOST, PEER, STACK, DemoError, DemoStack, enter

from levelip.ipc.rundir import LAYERS
from levelip.lessons.ways import Way, choose, loopback_up

SIZE = 50_000_000
"""Bytes of the file, unless --size says otherwise."""
KERNEL_PORT, OUR_PORT, TRACED_PORT = 8000, 8080, 8001
KILL_AT = 0.4
"""Share of the file that has arrived when ip is killed."""
PATIENCE_S = 30.0
"""How long a transfer may stand still."""
BACK_S = 30.0
"""How long supervisord may take to start a killed layer again (1-2 s when the machine is idle)."""
LIMIT_S = 240
"""The demo gives up after this."""
HERE = Path(__file__).resolve().parent

console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Transfer:
    """How a download went. `longest_gap`: seconds without a byte."""

    size: int
    digest: str
    seconds: float
    longest_gap: float

    @property
    def rate(self) -> str:
        """For people."""
        mbit = self.size * 8 / self.seconds / 1e6
        return f"{self.size / 1e6:.0f} MB in {self.seconds:.2f} s, {mbit:,.0f} Mbit/s"


class Demo:
    """The four parts of the show, one after the other."""

    def __init__(self, stack: DemoStack, way: Way, directory: Path, size: int) -> None:
        self.stack = stack
        self.way = way
        self.directory = directory
        self.size = size
        content = random.Random(20_000).randbytes(size)  # seeded, and no piece like another
        (directory / "file").write_bytes(content)
        self.digest = hashlib.sha256(content).hexdigest()

    @property
    def on_wire(self) -> bool:
        """Whether the other side is a second stack and not the kernel."""
        return self.way.name == "wire"

    def show(self) -> None:
        """All parts. DemoError if one fails."""
        other = "the second stack" if self.on_wire else "the kernel"
        self._serve_there()
        self._part(1, f"our client downloads {self.size / 1e6:.0f} MB from an HTTP server on {other}'s TCP")
        self._check(self._receive(self._ours()))

        self._serve_here()
        curl = shutil.which("curl")
        program = "our client there" if self.on_wire else "curl" if curl else "urllib"
        self._part(2, f"{program} on {other}'s TCP downloads {self.size / 1e6:.0f} MB from an HTTP server on ours")
        self._check(self._receive(self._theirs(curl)))

        self._part(3, "a handshake, layer by layer: [dim]lvlip trace --port 8001[/]")
        self._trace()

        self._part(4, "ip is killed (SIGKILL) in the middle of a transfer, which goes on")
        self._kill()

    def _part(self, number: int, text: str) -> None:
        console.print(f"\n[bold cyan]{number}[/]  {text}")

    # servers

    def _serve_there(self) -> None:
        """An HTTP server on the other side: the standard library's, or ours on the second stack."""
        if self.on_wire:
            self._start_our_server(PEER, KERNEL_PORT)
            return
        command = [sys.executable, "-P", "-m", "http.server", str(KERNEL_PORT), "--bind", HOST]
        self.stack.popen(
            [*command, "--directory", str(self.directory)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), kernel.create_connection((HOST, KERNEL_PORT), 1):
                return
            if time.monotonic() > deadline:
                raise DemoError(f"the kernel's HTTP server does not listen on {HOST}:{KERNEL_PORT}")
            time.sleep(0.05)

    def _serve_here(self) -> None:
        """An HTTP server on our sockets."""
        self._start_our_server(None, OUR_PORT)

    def _start_our_server(self, name: str | None, port: int) -> None:
        command = [sys.executable, str(HERE / "http_server.py"), "--port", str(port)]
        options = {"name": name} if name else {}
        server = self.stack.popen(
            [*command, "--directory", str(self.directory)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
        )
        assert server.stdout is not None
        ready, _, _ = select.select([server.stdout], [], [], PATIENCE_S)
        said = server.stdout.readline().decode(errors="replace").strip() if ready else "it says nothing"
        if not said.startswith("serving"):
            raise DemoError(f"our HTTP server does not start: {said}")

    # transfers

    def _ours(self) -> Iterator[bytes | memoryview]:
        """The file, downloaded by this very process over Level-IP."""
        from http_download import download

        return download(f"http://{HOST}:{KERNEL_PORT}/file", timeout=PATIENCE_S)

    def _theirs(self, curl: str | None) -> Iterator[bytes]:
        """The file, as a program on the other side downloads it and writes it to its standard output."""
        url = f"http://{STACK}:{OUR_PORT}/file"
        if self.on_wire:
            command = [sys.executable, str(HERE / "http_download.py"), url, "-o", "/dev/stdout"]
        elif curl:
            command = [curl, "--silent", "--show-error", "--noproxy", "*", "--fail", url]
        else:
            program = (
                "import shutil, sys, urllib.request as request\n"
                "opener = request.build_opener(request.ProxyHandler({}))\n"
                "shutil.copyfileobj(opener.open(sys.argv[1]), sys.stdout.buffer)"
            )
            command = [sys.executable, "-c", program, url]
        options = {"name": PEER} if self.on_wire else {}
        child = self.stack.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        assert child.stdout is not None and child.stderr is not None
        while True:
            ready, _, _ = select.select([child.stdout], [], [], PATIENCE_S)
            if not ready:
                raise DemoError(f"{command[0]}: no byte for {PATIENCE_S:.0f} s")
            if not (piece := os.read(child.stdout.fileno(), 1 << 20)):
                break
            yield piece
        if child.wait(PATIENCE_S):
            raise DemoError(f"{command[0]}: {child.stderr.read().decode(errors='replace').strip()}")

    def _receive(self, pieces: Iterator[bytes | memoryview], at: Callable[[int], None] | None = None) -> Transfer:
        """Take the pieces, show how they come, and tell `at` how much has come after each."""
        digest, size, gap = hashlib.sha256(), 0, 0.0
        start = last = time.monotonic()
        columns = (TextColumn(" "), BarColumn(40), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("", total=self.size)
            for piece in pieces:
                now = time.monotonic()
                last, gap = now, max(gap, now - last)
                digest.update(piece)
                size += len(piece)
                progress.update(task, completed=size)
                if at:
                    at(size)
        return Transfer(size, digest.hexdigest(), time.monotonic() - start, gap)

    def _check(self, transfer: Transfer) -> None:
        if transfer.digest != self.digest:
            raise DemoError(f"{transfer.size} bytes with sha256 {transfer.digest}, but {self.digest} was sent")
        console.print(f"   [green]✓[/] {transfer.rate}; sha256 {transfer.digest[:16]}… is the one of what was sent")

    # the trace

    def _trace(self) -> None:
        """Open one connection while `lvlip trace` listens, and show what it says."""
        trace = self.stack.popen(
            self.stack.lvlip("trace", "--port", str(TRACED_PORT)), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert trace.stdout is not None and trace.stderr is not None
        said = trace.stderr.readline().decode(errors="replace") if _readable(trace.stderr, PATIENCE_S) else ""
        if not said.startswith("listening"):
            raise DemoError(f"lvlip trace: {said.strip() or 'it does not get ready'}")
        with self._traced_listener():
            from levelip.client import socket

            with socket.create_connection((HOST, TRACED_PORT), PATIENCE_S):
                time.sleep(0.6)  # the trace is written when nothing more comes for 0.2 s
                trace.terminate()
                output, _ = trace.communicate(timeout=PATIENCE_S)
        lines = output.decode(errors="replace").splitlines()
        console.print("   [dim]↓ toward the network, ↑ toward the application; link-ip: the seam of link and ip[/]")
        for line in lines:
            if console.is_terminal:
                console.print(f"   {line}", markup=False, soft_wrap=False, no_wrap=True, overflow="ellipsis")
            else:
                console.print(f"   {line}", markup=False)
        for seam in ("link-ip", "ip-tcp"):
            if not any(f" {seam}" in line for line in lines):
                raise DemoError(f"the trace shows nothing on the seam {seam}")

    @contextlib.contextmanager
    def _traced_listener(self) -> Iterator[None]:
        """Something to connect to on the other side."""
        if not self.on_wire:
            with kernel.create_server((HOST, TRACED_PORT)):
                yield
            return
        program = (
            "from levelip.client import socket\n"
            f"listener = socket.create_server(('', {TRACED_PORT}))\n"
            "print('listening', flush=True)\n"
            "listener.accept()[0].recv(1)\n"
        )
        child = self.stack.popen([sys.executable, "-P", "-c", program], name=PEER, stdout=subprocess.PIPE)
        assert child.stdout is not None
        if not _readable(child.stdout, PATIENCE_S) or not child.stdout.readline():
            raise DemoError("the second stack does not listen")
        yield

    # the kill

    def _kill(self) -> None:
        """Kill ip when part of the file has come."""
        old, killed = self.stack.pid("ip"), 0

        def at(size: int) -> None:
            nonlocal killed
            if not killed and size >= self.size * KILL_AT:
                os.kill(old, signal.SIGKILL)
                killed = size
                console.print(f"   ip (pid {old}) killed after {size / 1e6:.0f} MB")

        transfer = self._receive(self._ours(), at)
        if not killed or killed >= self.size:
            raise DemoError(f"ip was not killed in the middle, but after {killed} of {self.size} bytes")
        self._check(transfer)
        deadline = time.monotonic() + BACK_S
        while (new := self.stack.pid("ip")) in (0, old):
            if time.monotonic() > deadline:
                raise DemoError(f"ip (pid {old}) was killed and did not come back within {BACK_S:.0f} s")
            time.sleep(0.05)
        still = f"the connection stood still for {transfer.longest_gap:.1f} s"
        console.print(f"   [green]✓[/] supervisord started ip again (pid {new}); {still}")


def _readable(stream: IO[bytes], seconds: float) -> bool:
    return bool(select.select([stream], [], [], seconds)[0])


def _give_up(_number: int, _frame: FrameType | None) -> None:
    raise DemoError(f"not done after {LIMIT_S} s")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def perform(way: Way, size: int, *, keep: bool) -> int:
    """The demo, from here to the end; the exit status."""
    if way.name != "wire":
        loopback_up()
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(LIMIT_S)
    start = time.monotonic()
    stack = None
    directory = Path(tempfile.mkdtemp(prefix="lvdemo"))
    status = 0
    try:
        console.print(f"[bold]Level-IP[/], {way.sentence}")
        for lack in way.lacks:
            console.print(f"   {lack}", style="yellow", markup=False)
        stack = DemoStack(way)
        os.environ.update(stack.environment())
        where = "" if stack.here == HERE.parent else f" [dim](in {stack.here}, which stands in for the checkout)[/]"
        console.print(f"   supervisord -c supervisord.conf{where}")
        with console.status("   starting link, ip, tcp and gateway"):
            seconds = stack.start()
        pids = ", ".join(f"{layer} {stack.pid(layer)}" for layer in LAYERS)
        other = f"second stack {HOST}" if way.name == "wire" else f"kernel {HOST} on a tap"
        console.print(f"   {pids}: ready after {seconds:.1f} s; {other}, our stack {STACK}")
        Demo(stack, way, directory, size).show()
        if keep:
            signal.alarm(0)
            console.print(f"\nIt goes on until Ctrl-C. LEVELIP_RUN={stack.run.root} lvlip status")
            if way.name != "wire":
                console.print(f"   into its namespace: nsenter --net -t {os.getpid()} [dim](without root: -U too)[/]")
            signal.pause()
    except (DemoError, OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        status = 1
        console.print(f"\n[bold red]The demo failed:[/] {type(error).__name__}: {error}")
        if stack is not None:
            for line in stack.logs():
                console.print(f"   {line}", markup=False)
    except KeyboardInterrupt:
        status = 130
        console.print("\ninterrupted; stopping everything")
    finally:
        signal.alarm(0)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        trouble = stack.stop() if stack is not None else []
        shutil.rmtree(directory, ignore_errors=True)
    for line in trouble:
        console.print(f"   {line}", style="yellow")
    if status == 0:
        gone = "" if way.name == "wire" else ", and the namespace goes with them"
        console.print(f"\nAll stopped{gone}. {time.monotonic() - start:.0f} s.")
    return status or (1 if trouble else 0)


def main(argv: list[str] | None = None) -> int:
    """Choose where, go there, and show."""
    arguments = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = ["root", "user", "wire"]
    parser.add_argument("--way", choices=ways, default="", help="where it runs (default: the first that works)")
    parser.add_argument("--size", type=int, default=SIZE, metavar="BYTES", help="of the file (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the stack running at the end, until Ctrl-C")
    parser.add_argument("--inside", choices=["root", "user"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.size < 1_000_000:
        parser.error("--size: at least 1000000, or there is no middle of a transfer")
    if options.inside:
        return perform(Way(options.inside), options.size, keep=options.keep)
    try:
        way = choose(options.way)
    except DemoError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if way.name != "wire":
        enter(way, arguments)
    return perform(way, options.size, keep=options.keep)


if __name__ == "__main__":
    sys.exit(main())
