"""Calls to the helper within calls: by a signal's handler, and by objects that end while a call is under way."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import AF_UNIX, SOCK_SEQPACKET
from typing import Any

import pytest

from levelip.client import control, kernel
from levelip.client.control import Answer, Call
from levelip.client.program import Program, _Connection
from levelip.rpc.paths import door_endpoint

PATIENCE_S = 60.0


class Served(Program):
    """A program whose helper is threads of the test: one a connection, as connections are served independently."""

    def __init__(self) -> None:
        super().__init__()
        self.met = threading.Event()
        self.entered = 0
        self.threads: list[threading.Thread] = []

    def _enter(self) -> kernel.socket:
        self.entered += 1
        ours, theirs = kernel.socketpair(AF_UNIX, SOCK_SEQPACKET)
        self.threads.append(threading.Thread(target=self._serve, args=(theirs,), daemon=True))
        self.threads[-1].start()
        return ours

    def end(self) -> None:
        """Let go of the connections, whose threads end with them."""
        self.leave()
        for thread in self.threads:
            thread.join()

    def _serve(self, channel: kernel.socket) -> None:
        with channel:
            while message := control.receive(channel)[0]:
                call: Call = control.decode_call(message)
                answer = Answer(call.number, 0, {"op": call.op})
                if call.op == "slow":  # answered once the quick one has been
                    os.kill(os.getpid(), signal.SIGUSR1)
                    answer.errno = 0 if self.met.wait(PATIENCE_S) else errno.ETIME
                control.send(channel, control.encode(answer))
                if call.op == "quick":
                    self.met.set()


@pytest.fixture
def program() -> Iterator[Served]:
    made = Served()
    yield made
    made.end()


@pytest.fixture
def handled() -> Iterator[list[Any]]:
    """What is done at SIGUSR1: the functions that the test puts here."""
    todo: list[Any] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: [one() for one in todo])
    yield todo
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_s_handler_may_call(program: Served, handled: list[Any]) -> None:
    """Its answer is its own, and the interrupted call has its own, too."""
    said: list[Any] = []
    handled.append(lambda: said.append(program.call("quick", 0)[0]))
    assert program.call("slow", 0)[0] == {"op": "slow"}
    assert said == [{"op": "quick"}]
    entered = program.entered
    assert program.call("quick", 0)[0] == {"op": "quick"}
    assert program.entered == entered == 2, "a connection is kept for the next call"


def test_who_leaves_meanwhile_has_left(program: Served, handled: list[Any]) -> None:
    """A call that was under way when the helper was left is answered, and the next one enters anew."""
    handled.append(program.leave)
    handled.append(program.met.set)
    assert program.call("slow", 0)[0] == {"op": "slow"}
    assert program.call("quick", 0)[0] == {"op": "quick"}
    assert program.entered == 2


def test_there_is_one_helper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Though a signal's handler makes a socket while the first one is being started: then that one is let go."""
    monkeypatch.setenv("LEVELIP_RUN", str(tmp_path))
    path = Path(door_endpoint().removeprefix("ipc://"))
    path.parent.mkdir(parents=True)
    path.touch()
    program = Program()
    helpers: list[kernel.socket] = []

    def start(_: str) -> kernel.socket:
        ours, theirs = kernel.socketpair(AF_UNIX, SOCK_SEQPACKET)
        theirs.setblocking(False)
        helpers.append(theirs)
        if len(helpers) == 1:
            program._enter().close()
        return ours

    monkeypatch.setattr(program, "_start", start)
    program._enter().close()
    first, second = helpers
    assert first.recv(9) == b"", "nobody came, and nobody will"
    for _ in range(2):
        message, fds = control.receive(second)
        control.close_all(fds)
        assert message == b"+"
    program.leave()
    assert second.recv(9) == b""


@pytest.mark.parametrize("pid", [0, None])
def test_a_connection_s_descriptor_ends_with_it(pid: int | None) -> None:
    """Also in a forked child, to which it is of no use; a number that is another file's by now stays open."""
    ours, theirs = kernel.socketpair(AF_UNIX, SOCK_SEQPACKET)
    theirs.setblocking(False)
    with theirs:
        connection = _Connection(ours)
        if pid is not None:
            connection.pid = pid  # of the parent
        del ours, connection
        assert theirs.recv(1) == b""
        with kernel.socket(AF_UNIX, SOCK_SEQPACKET) as other:
            connection = _Connection(kernel.socket(fileno=os.dup(theirs.fileno())))
            number = connection.channel.fileno()
            os.dup2(other.fileno(), number)
            del connection
            assert os.fstat(number).st_ino == os.fstat(other.fileno()).st_ino
            os.close(number)


def test_a_handler_may_end_a_call(program: Served, handled: list[Any]) -> None:
    """What it raises ends the call; the late answer is nobody's, and the next call has its own."""

    def leave() -> None:
        raise KeyboardInterrupt

    handled.append(leave)
    with contextlib.suppress(KeyboardInterrupt):
        program.call("slow", 0)
    program.met.set()
    assert program.call("quick", 0)[0] == {"op": "quick"}
    assert program.entered == 1
