"""Another stack as the peer: lwIP, from Debian's liblwip-dev, in a program that is built here (tests/system/lwip)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path as FilePath

import pytest

from tests.system import matrix, paths
from tests.system.harness import ROOT
from tests.system.impair import Impairment
from tests.system.namespace import end, lack
from tests.system.paths import LEFT, PREFIX, RIGHT, StackPath
from tests.system.streams import digest, stream

pytestmark = pytest.mark.timeout(300)

SIZE = 1_000_000
LIMIT_S = 120.0
TAP = "lwip0"
SOURCE = ROOT / "tests" / "system" / "lwip" / "peer.c"
INCLUDE = "/usr/include/lwip"
PATHS = {"clean": Impairment(rate_bps=100_000_000), "loss": Impairment(rate_bps=100_000_000, loss=0.01, seed=307)}
"""This seed loses the seventh packet of each direction, and so one in any case: of ACKs there may be few."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    """The built peer."""
    if not FilePath(INCLUDE, "lwip", "tcpip.h").exists() or shutil.which("gcc") is None:
        pytest.skip("not to be had here: lwIP and a compiler (as root: apt-get install -y liblwip-dev gcc libc6-dev)")
    built = tmp_path_factory.mktemp("lwip") / "peer"
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O1", f"-I{INCLUDE}", str(SOURCE), "-o", str(built), "-llwip"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return built


@pytest.fixture(scope="module")
def path() -> Iterator[StackPath]:
    """The stack on the left, lwIP's tap on the right."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    with StackPath() as made:
        paths.bridge(made.right, made.mtu)
        paths.tap(made.right, TAP, made.mtu)
        yield made


class Lwip:
    """The peer, running in the right namespace."""

    def __init__(self, path: StackPath, program: FilePath, *, listens: bool, port: int, sends: bool, file: FilePath):
        argv = [program, TAP, RIGHT, str(PREFIX), "listen" if listens else "connect", LEFT, str(port),
                "send" if sends else "take", file]  # fmt: skip
        self.process: subprocess.Popen[str] = path.right.popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", (line, *self.process.communicate(timeout=60))

    def done(self) -> str:
        """Its last line; AssertionError with what it says if it failed."""
        output, errors = self.process.communicate(timeout=LIMIT_S)
        assert self.process.returncode == 0, errors
        return output


@pytest.mark.parametrize("sender", ["lwip", "stack"])
@pytest.mark.parametrize("opens", ["lwip", "stack"])
@pytest.mark.parametrize("trouble", PATHS)
def test_lwip(path: StackPath, program: FilePath, tmp_path: FilePath, trouble: str, opens: str, sender: str) -> None:
    """1 MB crosses, every byte as it was sent, without loss and with 1 % of the packets lost both ways, whoever opens
    the connection; both see its end."""
    path.impair(right=PATHS[trouble], left=PATHS[trouble])
    data, wanted = stream(9, SIZE), digest(stream(9, SIZE))
    file = tmp_path / "data"
    if sender == "lwip":
        file.write_bytes(data)
    port = next(PORTS)
    task = {"address": (LEFT if opens == "lwip" else RIGHT, port), "seed": 9, "size": SIZE, "limit": LIMIT_S,
            "connects": opens == "stack", "sends": sender == "stack", "buffer": 0, "source": ""}  # fmt: skip
    ours: Future[str]
    lwip = None
    try:
        if opens == "stack":
            lwip = Lwip(path, program, listens=True, port=port, sends=sender == "lwip", file=file)
            ours = path.stack.submit(app, task)
        else:
            ours = path.stack.submit(app, task)
            path.stack.wait_until(lambda: port in listening(path), "our program listens")
            lwip = Lwip(path, program, listens=False, port=port, sends=sender == "lwip", file=file)
        said = lwip.done()
        found = ours.result(LIMIT_S)
    finally:
        if lwip is not None:
            end(lwip.process)
    assert said == f"done {SIZE}\n"
    assert (digest(file.read_bytes()) if sender == "stack" else found) == wanted
    stats = path.stats()
    lost = stats["right"]["lost"], stats["left"]["lost"]
    assert all(lost) if trouble == "loss" else not any(lost), stats


PORTS = iter(range(7000, 7100))


def listening(path: StackPath) -> set[int]:
    """Ports of our stack on which somebody listens."""
    return {sock["local_port"] for sock in path.stack.ask("tcp", "ss")["sockets"] if sock["state"] == "LISTEN"}


def app(task: dict[str, object]) -> str:
    """Our end: sends and waits for the peer's end, or takes all and says what."""
    from levelip.client import socket

    return matrix.one_end(socket.socket, task, answers=False)
