"""Unmodified programs on the stack: `lvlip run` and `lvlip shell`."""

from __future__ import annotations

import contextlib
import difflib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import streams
from tests.system.harness import ROOT, Stack
from tests.system.programs import semantics
from tests.waiting import until

pytestmark = pytest.mark.timeout(500)

PROGRAMS = Path(semantics.__file__).parent
PATIENCE_S = 200.0


class Peers:
    """The kernel's side of programs/semantics.py, at 10.0.0.1 in the namespace."""

    def __init__(self, stack: Stack) -> None:
        assert stack.namespace is not None
        self._namespace = stack.namespace
        self._open: list[socket.socket] = []
        self.unread: list[str] = []
        self._may_reset = threading.Semaphore(0)
        for port, serve in (
            (semantics.ECHO, self._echo),
            (semantics.RESET, self._reset),
            (semantics.COUNT, self._count),
            (semantics.UNREAD, self._unread),
        ):
            self._serve(self._listen(port, 128), serve)
        full = self._listen(semantics.HANGING, 0)
        filler = self._namespace.socket()
        filler.connect(full.getsockname())
        self._open.append(filler)

    def _listen(self, port: int, backlog: int) -> socket.socket:
        listener = self._namespace.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("10.0.0.1", port))
        listener.listen(backlog)
        self._open.append(listener)
        return listener

    def _serve(self, listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.settimeout(PATIENCE_S)
                serve(connection)

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        threading.Thread(target=run, daemon=True).start()

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            connection.sendall(data)

    @staticmethod
    def _count(connection: socket.socket) -> None:
        total = 0
        while data := connection.recv(65_536):
            total += len(data)
        connection.sendall(b"%d" % total)

    def _reset(self, connection: socket.socket) -> None:
        connection.recv(2)
        connection.sendall(b"bytes")
        self._may_reset.acquire(timeout=PATIENCE_S)
        time.sleep(0.1)  # who waits for it in a call is there by then
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))

    def _unread(self, connection: socket.socket) -> None:
        connection.sendall(b"not to be read")
        try:
            self.unread.append(f"end {connection.recv(1)!r}")
        except ConnectionResetError:
            self.unread.append("reset")

    def visit(self, host: str, port: int) -> None:
        """A client of the program: "ping", then nothing until the end."""

        def run() -> None:
            client = self._namespace.socket()
            with client, contextlib.suppress(OSError):
                client.settimeout(PATIENCE_S)
                client.connect((host, port))
                client.sendall(b"ping")
                while client.recv(100):
                    pass

        threading.Timer(0.2, run).start()

    def close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def talk(self, program: subprocess.Popen[str], host: str) -> str:
        """What the program says until its end; it is visited and reset where it asks for it."""
        assert program.stdout is not None
        said = []
        for line in program.stdout:
            if line.startswith("listen "):
                self.visit(host, int(line.split()[1]))
            elif line == "reset\n":
                self._may_reset.release()
            else:
                said.append(line)
        code = program.wait(PATIENCE_S)
        return "".join(said) + f"exit {code}\n"


@pytest.fixture
def peers(shared_stack: Stack) -> Iterator[Peers]:
    """Servers of the kernel."""
    found = Peers(shared_stack)
    yield found
    found.close()


def run(*argv: str) -> list[str]:
    """The command line of a program on the stack."""
    return [sys.executable, "-m", "levelip.cli", "run", "--", *argv]


TALKER = """
import os, socket, sys, time
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
sock.sendall(b"half of it")
print(os.getpid(), os.getppid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("who", ["program on the kernel", "program", "supervisor"])
def test_a_stream_whose_end_is_unknown_is_reset(shared_stack: Stack, who: str) -> None:
    """Linux ends a killed program's streams by FIN, and so do we. If it is the helper that is killed, the peer must not
    take what came for the whole: RST; and the program goes with it, as it could not tell either."""
    assert shared_stack.namespace is not None
    command = ["setsid"] if who == "program on the kernel" else run()
    with shared_stack.namespace.socket() as listener:
        listener.bind(("10.0.0.1", 0))
        listener.listen()
        program = shared_stack.namespace.popen(
            [*command, sys.executable, "-P", "-c", TALKER, "10.0.0.1", str(listener.getsockname()[1])],
            env=_variables(shared_stack), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            listener.settimeout(PATIENCE_S)
            with listener.accept()[0] as connection:
                connection.settimeout(PATIENCE_S)
                assert program.stdout is not None
                pid, parent = map(int, program.stdout.readline().split())
                assert connection.recv(100) == b"half of it"
                os.kill(parent if who == "supervisor" else pid, signal.SIGKILL)
                if who == "supervisor":
                    with pytest.raises(ConnectionResetError):
                        connection.recv(100)
                    shared_stack.wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the program has ended, too")
                    assert "the supervisor died" in program.communicate(timeout=PATIENCE_S)[1]
                else:
                    assert connection.recv(100) == b""
        finally:
            program.kill()
            program.communicate(timeout=PATIENCE_S)


def test_datagram_calls_answer_as_the_kernels(shared_stack: Stack) -> None:
    """Likewise of datagram sockets, in all situations, on both at the same time."""
    namespace = shared_stack.namespace
    assert namespace is not None
    namespace.run(["sysctl", "-w", "net.ipv4.icmp_ratelimit=0"])  # there is none among the kernel's own sockets
    with namespace.socket(kind=socket.SOCK_DGRAM) as echo:
        echo.bind(("10.0.0.1", semantics.ECHO))
        threading.Thread(target=streams.echo_datagrams, args=(echo,), daemon=True).start()
        programs = [
            namespace.popen(
                [*command, sys.executable, str(PROGRAMS / "datagrams.py"), "10.0.0.1"],
                env=_variables(shared_stack), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for command in (["setsid"], run())
        ]  # fmt: skip
        killers = [threading.Timer(PATIENCE_S, program.kill) for program in programs]
        for killer in killers:
            killer.start()
        said = [program.communicate()[0].splitlines() for program in programs]
        for killer in killers:
            killer.cancel()
        with contextlib.suppress(OSError):  # ENOTCONN; it wakes the thread all the same
            echo.shutdown(socket.SHUT_RDWR)
    assert said[0] == said[1], "\n".join(difflib.unified_diff(*said, "kernel", "lvlip run", lineterm="", n=3))
    assert said[0][-1].startswith("back: "), "it came to its end"


def _variables(stack: Stack) -> dict[str, str]:
    return {**stack.env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize("case", [case.__name__ for case in semantics.CASES])
def test_calls_answer_as_the_kernels(shared_stack: Stack, peers: Peers, case: str) -> None:
    """A program that tries what socket calls answer in each situation says the same on both."""
    assert shared_stack.namespace is not None
    said = []
    for command, host in ((["setsid"], "10.0.0.1"), (run(), "10.0.0.2")):
        program = shared_stack.namespace.popen(
            [*command, sys.executable, "-P", str(PROGRAMS / "semantics.py"), "10.0.0.1", case],
            env=_variables(shared_stack), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        killer = threading.Timer(PATIENCE_S, program.kill)
        killer.start()
        said.append(peers.talk(program, host).splitlines())
        killer.cancel()
    assert said[0] == said[1], "\n".join(difflib.unified_diff(*said, "kernel", "lvlip run", lineterm="", n=1))
    if case == "endings":
        until(lambda: len(peers.unread) == 2, "the peers of both have heard")
        assert peers.unread == ["reset", "reset"]
