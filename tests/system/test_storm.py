"""A storm of connections: eight threads, forks, execs, dups, closes in other threads, SIGALRM every 150 µs.

Each byte comes back, each connection ends in order, and no socket or descriptor stays in program, helper, gateway, tcp.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import probes
from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace, lack
from tests.system.programs import semantics
from tests.system.test_run_programs import need

THREADS = 8
PROGRAMS = Path(semantics.__file__).parent
WORD = 8
PATIENCE_S = 240.0

pytestmark = pytest.mark.timeout(400)


class Peer:
    """Echoes WORD bytes on each connection of the kernel's, and waits for its end. `ends` counts how they ended."""

    def __init__(self, listener: socket.socket) -> None:
        self.ends: Counter[str] = Counter()
        self.words: Counter[bytes] = Counter()
        self.open = 0
        self._listener = listener
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(60)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            self._listener.setblocking(False)
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stop:
                for key, _ in selector.select(0.1):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if key.data is None:
                        with contextlib.suppress(BlockingIOError):
                            accepted, _ = sock.accept()
                            accepted.setblocking(False)
                            self.open += 1
                            selector.register(accepted, selectors.EVENT_READ, bytearray())
                    elif not self._serve(sock, key.data):
                        selector.unregister(sock)
                        sock.close()
                        self.open -= 1

    def _serve(self, sock: socket.socket, word: bytearray) -> bool:
        try:
            data = sock.recv(WORD + 1)
            if data:
                word += data
                if len(word) == WORD:
                    sock.send(word)
                return True
            end = "whole" if len(word) == WORD else f"after {len(word)} bytes"
        except OSError as error:
            end = type(error).__name__
        self.ends[end] += 1
        self.words[bytes(word)] += 1
        return False


def descriptors(pid: int) -> int:
    """Open in a process."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def own_memory(pid: int) -> int:
    """Bytes that a process has written and shares with nobody: what others start or end does not count."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return int(rollup.partition("Private_Dirty:")[2].split()[0]) << 10


@pytest.fixture(scope="module")
def _shared() -> Iterator[Stack]:
    """Without flight recorders: as they fill they would hide what leaks."""
    if missing := lack():
        pytest.skip(f"not to be had here: {missing}")
    with Namespace() as namespace, Stack(namespace, settings={"stack.flight_recorder_mib": 0}) as stack:
        yield stack


def used(stack: Stack) -> list[Any]:
    """Sockets at the gateway, but for the one that each helper has made in advance."""
    rows = stack.ask("gateway", "ss")["sockets"]
    spare = {row["pid"]: row["sock"] for row in rows if row["state"] == "new"}
    return [row for row in rows if row["sock"] not in spare.values()]


def states_of(stack: Stack) -> Counter[str]:
    """How many connections tcp has in each state."""
    return Counter(row["state"] for row in stack.ask("tcp", "ss")["sockets"])


def storm(stack: Stack, program: subprocess.Popen[str], peer: Peer, turns: int, helper: Any) -> None:
    """Have the program do its work, and look at what is left of it on each side."""
    assert program.stdin is not None and program.stdout is not None
    killer = threading.Timer(PATIENCE_S, program.kill)
    killer.start()
    try:
        assert program.stdout.readline() == "ready\n"
        stack.wait_until(lambda: not used(stack), "the first socket is gone")
        watched = {"helper": helper(), "gateway": stack.pid("gateway"), "tcp": stack.pid("tcp")}
        before = {name: descriptors(pid) for name, pid in watched.items()}
        resident = {name: own_memory(pid) for name, pid in watched.items()}
        program.stdin.write("\n")
        program.stdin.flush()
        said = program.stdout.readline().split()
        assert said[:1] == ["done"], f"{said}, exit {program.poll()}"
        assert said[1] == "0", f"{said[1]} descriptors stay in the program"
        assert int(said[2]) > turns, "hardly a signal came"
        count = THREADS * turns
        stack.wait_until(lambda: not used(stack), "no socket stays in the gateway")
        stack.wait_until(lambda: peer.open == 0, f"every connection has ended: {peer.open} have not", timeout=60)
        stack.wait_until(lambda: not set(states_of(stack)) - {"TIME_WAIT"}, "tcp has closed all")
        states = states_of(stack)
        assert peer.ends == {"whole": count + 1}, peer.ends
        assert len(peer.words) == count + 1, "a word came twice"

        def grown() -> dict[str, int]:
            after = {name: descriptors(pid) for name, pid in watched.items()}
            return {name: after[name] - before[name] for name in watched if after[name] > before[name] + 2}

        stack.wait_until(lambda: not grown(), f"no descriptors stay; at first {grown()}")
        memory = {name: (own_memory(pid) - resident[name]) >> 10 for name, pid in watched.items()}
        print(f"{count} connections, {said[2]} signals, {dict(states)}, grown by KB {memory}")
        assert memory["helper"] < 2000 and memory["gateway"] < 2000, memory
        assert memory["tcp"] < 2000 + 5 * states["TIME_WAIT"], memory
        program.stdin.write("\n")
        program.stdin.flush()
        assert program.wait(60) == 0
    finally:
        killer.cancel()
        program.kill()
        program.wait(60)


def supervisor_of(launcher: int) -> int:
    """The socket helper of a program under `lvlip run`: the one child of what was started, and the program's parent."""
    (supervisor,) = map(int, Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="ascii").split())
    assert Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text(encoding="ascii").split()
    return supervisor


@contextlib.contextmanager
def peer_of(stack: Stack) -> Any:
    """The kernel's side, and its port."""
    assert stack.namespace is not None
    with stack.namespace.socket() as listener:
        listener.bind((stack.host, 0))
        listener.listen(1024)
        with Peer(listener) as peer:
            yield peer, str(listener.getsockname()[1])


@pytest.mark.matrix(ids={"25"})
@pytest.mark.parametrize("turns", [25, 1000])
def test_a_storm_on_the_client_library(shared_stack: Stack, turns: int) -> None:
    """A Python program on levelip.client."""
    with peer_of(shared_stack) as (peer, port):
        argv = [str(PROGRAMS / "storm.py"), shared_stack.host, port, str(THREADS), str(turns)]
        program = shared_stack.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        storm(shared_stack, program, peer, turns, lambda: probes.helper_pid(program.pid))


@pytest.mark.matrix(ids={"interrupt-25"})
@pytest.mark.parametrize("turns", [25, 1000])
@pytest.mark.parametrize("signals", ["interrupt", "restart"])
def test_a_storm_under_run(shared_stack: Stack, tmp_path: Path, signals: str, turns: int) -> None:
    """A C program under `lvlip run`, whose calls are interrupted (EINTR) or restarted."""
    assert shared_stack.namespace is not None
    binary = tmp_path / "storm"
    subprocess.run([need("gcc", "gcc"), "-O1", "-pthread", "-o", binary, PROGRAMS / "storm.c"], check=True, timeout=60)
    with peer_of(shared_stack) as (peer, port):
        argv = [sys.executable, "-P", "-m", "levelip.cli", "run", "--", binary, shared_stack.host, port]
        program = shared_stack.namespace.popen(
            [*argv, str(THREADS), str(turns), signals], env={**shared_stack.env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        storm(shared_stack, program, peer, turns, lambda: supervisor_of(program.pid))
