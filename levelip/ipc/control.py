"""The control socket of a process: requests with answers, for `lvlip` and other tools.

request: [version, number, name, {argument: value}]     answer: [version, number, ok, {..} or "message"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import zmq

from levelip.frames.core import DEFERRED, ControlError
from levelip.ipc.patience import ANSWER_S
from levelip.ipc.rundir import RunDirectory
from levelip.rpc.codec import WIRE_VERSION

__all__ = ["ControlClient", "ControlError", "ControlServer", "NotRunning", "ask_all"]

_MAX_REQUEST = 1 << 20  # bytes
_MAX_PARTS = 16


class NotRunning(ControlError):
    """The process does not answer."""


class _Request(msgspec.Struct, array_like=True):
    version: int
    number: int
    name: str
    args: dict[str, Any]


class _Answer(msgspec.Struct, array_like=True):
    version: int
    number: int
    ok: bool
    data: Any


Handler = Callable[[int, str, dict[str, Any]], dict[str, Any]]
Answers = dict[str, dict[str, Any]]
"""By process."""


class ControlServer:
    """The process's side. `handle(token, name, args)` answers at once, or returns DEFERRED and calls `answer` later."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, handle: Handler) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 100
        self.socket.maxmsgsize = _MAX_REQUEST
        self.socket.bind(endpoint)
        self._handle = handle
        self._decoder = msgspec.msgpack.Decoder(_Request)
        self._waiting: dict[int, tuple[list[bytes], int]] = {}
        self._token = 0
        self.refused = 0

    def serve(self, limit: int = 16) -> None:
        """Answer what has come."""
        for _ in range(limit):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                request = self._decoder.decode(parts[-1])
                if len(parts) > _MAX_PARTS or request.version != WIRE_VERSION:
                    raise ValueError(f"version {request.version}")
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                self.refused += 1
                self._send(parts[:1], 0, False, f"no request of this version: {error}")
                continue
            self._token += 1
            token, peer = self._token, parts[:-1]
            self._waiting[token] = (peer, request.number)
            try:
                data = self._handle(token, request.name, request.args)
            except ControlError as error:
                del self._waiting[token]
                self._send(peer, request.number, False, str(error))
                continue
            if data is not DEFERRED:
                self.answer(token, data)

    def answer(self, token: int, data: dict[str, Any]) -> None:
        """Answer the request that `handle` was given with this token; nothing if nobody waits any more."""
        waiting = self._waiting.pop(token, None)
        if waiting is not None:
            self._send(*waiting, True, data)

    def _send(self, peer: list[bytes], number: int, ok: bool, data: Any) -> None:
        try:
            body = msgspec.msgpack.encode(_Answer(WIRE_VERSION, number, ok, data))
            self.socket.send_multipart([*peer, body], zmq.NOBLOCK)
        except zmq.ZMQError:
            self.refused += 1  # the asker is gone

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class ControlClient:
    """A tool's side. Each request waits at most `timeout` seconds, then NotRunning says so."""

    def __init__(self, run: RunDirectory, layer: str, *, timeout: float = ANSWER_S) -> None:
        self.layer = layer
        self._run = run
        self._timeout = timeout
        self._context: zmq.Context[Any] = zmq.Context.instance()
        self._socket: zmq.Socket[bytes] | None = None
        self._number = 0
        self._decoder = msgspec.msgpack.Decoder(_Answer)

    def request(self, name: str, *, timeout: float | None = None, **args: Any) -> dict[str, Any]:
        """Ask, and return the answer. ControlError if it is refused, NotRunning if there is none in time."""
        number = self.start(name, **args)
        answer = self.wait_for(number, time.monotonic() + (self._timeout if timeout is None else timeout))
        if answer is None:
            raise NotRunning(f"{self.layer} of stack {self._run.name!r} does not answer; see: lvlip status")
        return answer

    def wait_for(self, number: int, deadline: float) -> dict[str, Any] | None:
        """The answer to what was started under a number, None if there is none until then. ControlError if it was
        refused."""
        while True:
            answer = self.collect(max(0.0, deadline - time.monotonic()))
            if answer is not None and answer[0] == number:
                if isinstance(answer[1], ControlError):
                    raise answer[1]
                return answer[1]
            if answer is None and time.monotonic() >= deadline:
                self.close()
                return None

    def start(self, name: str, **args: Any) -> int:
        """Ask without waiting; the number under which `collect` gives the answer."""
        if self._socket is None:
            if not self._run.control(self.layer).exists():
                raise NotRunning(f"{self.layer} of stack {self._run.name!r} is not running; start it with: lvlip up")
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.linger = 0
            self._socket.connect(f"ipc://{self._run.control(self.layer)}")
        self._number += 1
        self._socket.send(msgspec.msgpack.encode(_Request(WIRE_VERSION, self._number, name, args)))
        return self._number

    def collect(self, timeout: float) -> tuple[int, dict[str, Any] | ControlError] | None:
        """The next answer to something that was started, or None after `timeout` seconds."""
        if self._socket is None or not self._socket.poll(max(0, int(timeout * 1000)) + 1):
            return None
        answer = self._decoder.decode(self._socket.recv())
        return answer.number, answer.data if answer.ok else ControlError(str(answer.data))

    def close(self) -> None:
        """Close the socket; the next request opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def ask_all(
    clients: Mapping[str, ControlClient], request: str, patience: Callable[[str], float], **args: Any
) -> tuple[Answers, list[str]]:
    """Ask several processes at once: (what each answered, those that did not). ControlError if one refuses.

    `patience`: how many seconds each of them has, counted for all from the same instant.
    """
    answers: Answers = {}
    silent: list[str] = []
    asked: dict[str, int] = {}
    for name, client in clients.items():
        try:
            asked[name] = client.start(request, **args)
        except NotRunning:
            silent.append(name)
    begun = time.monotonic()
    for name, number in asked.items():
        answer = clients[name].wait_for(number, begun + patience(name))
        if answer is None:
            silent.append(name)
        else:
            answers[name] = answer
    return answers, silent
