"""Unmodified UDP programs under `lvlip run`, each as client or server against the kernel in the stack's namespace."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.harness import Stack
from tests.system.namespace import end
from tests.system.test_run_more import iperf
from tests.system.test_run_programs import HOST, OURS, World, need
from tests.system.test_udp import listening

CLOSED = 9  # a port that nobody has
pytestmark = pytest.mark.timeout(400)
either = pytest.mark.parametrize("ours", [False, True], ids=["client", "server"])


@pytest.fixture
def place(shared_stack: Stack, tmp_path: Path) -> World:
    """The stack; no web server."""
    return World(shared_stack, tmp_path, "")


@contextlib.contextmanager
def server(place: World, *argv: str, port: int, ours: bool, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """A program, on the stack or the kernel, that is bound to a UDP port now; it gets SIGTERM in the end."""
    command = place.command(argv) if ours else list(argv)
    child = place.namespace.popen(command, env=place.variables, cwd=place.directory, **options)

    def bound() -> bool:
        if ours:
            return listening(place.stack, port)
        return f":{port:04X} " in place.namespace.run(["cat", "/proc/net/udp"]).stdout

    try:
        place.stack.wait_until(bound, f"{argv[0]} is bound")
        yield child
    finally:
        end(child, wait=60.0)


def ask(place: World, *argv: str, ours: bool, text: str) -> str:
    """The line that a program prints after it was given one; nothing tells its input's end before."""
    command = place.command(argv) if ours else list(argv)
    child = place.namespace.popen(
        command, env=place.variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(text)
        child.stdin.flush()
        return str(child.stdout.readline())
    finally:
        end(child)


@either
@pytest.mark.parametrize("way", ["UDP-RECVFROM", "UDP-LISTEN"])
def test_socat(place: World, ours: bool, way: str) -> None:
    """One socket that answers each datagram by its sender's address, and one for each sender, connected to it."""
    socat = need("socat", "socat")
    host = OURS if ours else HOST
    argv = socat, "-T3", f"{way}:8120,reuseaddr,fork", "PIPE"  # its children, who hear of no end, end after 3 s
    with server(place, *argv, port=8120, ours=ours):
        for word in ("abc\n", "defg\n"):
            assert ask(place, socat, "-", f"UDP:{host}:8120", ours=not ours, text=word) == word


def test_socat_reads_of_a_closed_port(place: World) -> None:
    """What is at the end of its input, and so said SHUT_WR, reads the error that an ICMP message leaves; but where the
    kernel says ECONNREFUSED, read(2) says ECONNRESET here, which socat takes for an end (docs/run.md)."""
    socat = need("socat", "socat")
    said = place.run(socat, "-d", "-d", "-t60", "-", f"UDP:{HOST}:{CLOSED}", text="x")
    assert "Connection reset by peer" in said
    place.kernel(socat, "-t60", "-", f"UDP:{OURS}:{CLOSED}", text="x", code=1)


@either
def test_nc(place: World, ours: bool) -> None:
    """It waits for the first datagram, connects to its sender, and then only reads and writes."""
    nc = need("nc", "netcat-openbsd")
    host = OURS if ours else HOST
    with server(
        place, nc, "-u", "-l", "8122", port=8122, ours=ours, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:  # fmt: skip
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"back\n")
        child.stdin.flush()
        assert ask(place, nc, "-u", host, "8122", ours=not ours, text="there\n") == "back\n"
        assert child.stdout.readline() == b"there\n"


@either
def test_iperf3(place: World, ours: bool) -> None:
    """Both ways, so few that all have room where they wait; what arrives is what was sent, but for what a busy machine
    loses."""
    host, run = (OURS, place.kernel) if ours else (HOST, place.run)
    with place.server(
        need("iperf3", "iperf3"), "-s", "-p", "5211", port=5211, ours=ours, stdout=subprocess.DEVNULL
    ):  # fmt: skip
        for flags in ([], ["-R"]):
            sums = iperf(["-u", "-c", host, "-p", "5211", "-b", "400K", "-t", "2", "-l", "1200", *flags], run)["sum"]
            assert sums["packets"] > 40 and sums["lost_percent"] < 20, (flags, sums)
