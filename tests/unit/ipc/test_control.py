"""The control socket: answers now and later, refusals, and requests that are none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq

from levelip.frames.core import DEFERRED, ControlError
from levelip.ipc.control import ControlClient, ControlServer, NotRunning
from levelip.ipc.rundir import RunDirectory
from tests.waiting import until


class _Served:
    """A control server in a thread of its own."""

    def __init__(self, run: RunDirectory) -> None:
        self.late: dict[str, int] = {}
        self.context = zmq.Context()
        self.server = ControlServer(self.context, f"ipc://{run.control('ip')}", self.handle)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._turn)
        self._thread.start()

    def handle(self, token: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
        if name == "echo":
            return args
        if name == "late":
            self.late[args["who"]] = token
            return DEFERRED
        if name == "now":
            for waiting in self.late.values():
                self.server.answer(waiting, {"came": "late"})
            return {}
        raise ControlError(f"{name}: no such command")

    def _turn(self) -> None:
        while not self._stop.is_set():
            if self.server.socket.poll(20):
                self.server.serve()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.server.close()
        self.context.term()


@pytest.fixture(autouse=True)
def _patient(patient: None) -> None:
    """The answers come from a thread."""


@pytest.fixture
def served(run: RunDirectory) -> Iterator[_Served]:
    made = _Served(run)
    yield made
    made.close()


def test_answers_and_refusals(run: RunDirectory, served: _Served) -> None:
    """An answer comes back as it was given; a ControlError as its text."""
    client = ControlClient(run, "ip")
    assert client.request("echo", a=1, b=b"\xff", c=[None, "x"]) == {"a": 1, "b": b"\xff", "c": [None, "x"]}
    with pytest.raises(ControlError, match="nonsense: no such command"):
        client.request("nonsense")
    assert client.request("echo") == {}
    client.close()


def test_a_late_answer_reaches_who_asked(run: RunDirectory, served: _Served, impatient: None) -> None:
    """A deferred answer comes when the core has it, and a request that timed out takes nobody else's."""
    client, other = ControlClient(run, "ip", timeout=60), ControlClient(run, "ip", timeout=60)
    with pytest.raises(NotRunning, match="does not answer"):
        client.request("late", timeout=0.1, who="impatient")
    results: list[dict[str, Any]] = []
    waiting = ControlClient(run, "ip", timeout=60)
    waiter = threading.Thread(target=lambda: results.append(waiting.request("late", who="patient")))
    waiter.start()
    until(lambda: "patient" in served.late, "the request is there")
    assert other.request("now") == {}
    waiter.join()
    assert results == [{"came": "late"}]
    assert client.request("echo", x=1) == {"x": 1}


def test_what_is_no_request_is_answered_and_counted(run: RunDirectory, served: _Served) -> None:
    """Garbage on the control socket gets a refusal; the next request works."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(f"ipc://{run.control('ip')}")
    for body in (b"", b"\xc1", msgspec.msgpack.encode([99, 1, "echo", {}]), msgspec.msgpack.encode([1, 1, 5, {}])):
        socket.send(body)
        assert socket.poll(60_000)
        assert msgspec.msgpack.decode(socket.recv())[2] is False
    socket.close()
    context.term()
    assert served.server.refused == 4
    assert ControlClient(run, "ip").request("echo") == {}


def test_a_layer_that_does_not_run_says_how_to_start_it(run: RunDirectory) -> None:
    """No socket: the error names the layer and the command."""
    with pytest.raises(NotRunning, match="tcp of stack 't' is not running; start it with: lvlip up"):
        ControlClient(run, "tcp").request("status")
