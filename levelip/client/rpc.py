"""A thin client of the gateway, in process, without descriptors or helper: the RPC as docs/rpc.md describes it.

Payloads travel inline. It is for programs that want to speak to the stack directly, for tests, and as the example to
port to another language. One thread at a time.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections import deque
from typing import Any

import zmq

from levelip.rpc.codec import Codec, RefusedMessage
from levelip.rpc.messages import VERSION, Hello, Pending, Refused, Reply, Request, ToClient, Welcome
from levelip.rpc.paths import door_endpoint
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send

CHUNK = 65_536  # bytes of one Send
Address = tuple[bytes, int]  # packed address, port


class Stream:
    """Where a connected socket's streams stand."""

    def __init__(self, limit: int) -> None:
        self.sent = 0
        self.accepted = 0
        self.limit = limit
        self.received = 0
        self.consumed = 0
        self.chunks: deque[bytes] = deque()
        self.eof = False
        self.error = 0


class GatewayClient:
    """A session with the gateway at `endpoint` (default: the stack that LEVELIP_NAME names).

    Sockets are the gateway's numbers. Calls raise OSError with Linux's errno, TimeoutError after `timeout` seconds,
    and ENETDOWN if no gateway answers.
    """

    def __init__(
        self, endpoint: str | None = None, *, timeout: float = 5.0, software: str = "rpc.GatewayClient"
    ) -> None:
        self.endpoint = endpoint or door_endpoint()
        self.timeout = timeout
        self._codec: Codec[Any] = Codec(ToClient)
        self._epoch = secrets.randbits(63) | 1
        self._gateway = 0
        self._number = 0
        self._replies: dict[int, Reply] = {}
        self._streams: dict[int, Stream] = {}
        self._early: dict[int, list[Any]] = {}  # stream messages that came before the reply that makes their stream
        self._pending: dict[int, int] = {}
        self._context = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(self.endpoint)
        try:
            self._post(Hello(VERSION, software))
            self._wait(lambda: self._gateway != 0, timeout)
        except TimeoutError:
            self.end()
            raise OSError(errno.ENETDOWN, f"Network is down: no gateway answers at {self.endpoint}") from None
        except OSError:
            self.end()
            raise

    def end(self) -> None:
        """End the session; the gateway closes what is still open."""
        self._socket.close(1000)
        self._context.term()

    def __enter__(self) -> GatewayClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # -- calls

    def call(
        self, op: str, sock: int, args: dict[str, Any] | None = None, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Any request of docs/rpc.md; the reply's data."""
        self._number += 1
        number = self._number
        self._post(Request(number, op, sock, args or {}))
        self._wait(lambda: number in self._replies, self.timeout if timeout is None else timeout)
        reply = self._replies.pop(number)
        if reply.errno:
            raise OSError(reply.errno, reply.message or os.strerror(reply.errno))
        return reply.data

    def socket(self, family: int = 2, kind: int = 1, proto: int = 0) -> int:
        """A new socket's number."""
        return int(self.call("socket", 0, {"family": family, "type": kind, "proto": proto})["sock"])

    def bind(self, sock: int, address: Address) -> Address:
        """Bind; the address as bound."""
        data = self.call("bind", sock, {"address": address[0], "port": address[1]})
        return data["address"], data["port"]

    def listen(self, sock: int, backlog: int = 128) -> Address:
        """Listen; the local address."""
        data = self.call("listen", sock, {"backlog": backlog})
        return data["address"], data["port"]

    def accept(self, sock: int, *, timeout: float | None = None) -> tuple[int, Address]:
        """Wait for a connection; its socket and peer."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while True:
            try:
                data = self.call("accept", sock, timeout=deadline - time.monotonic())
            except BlockingIOError:
                self._pending[sock] = 0
                self._wait(lambda: self._pending[sock] > 0, deadline - time.monotonic())
                continue
            self._open(data["sock"], data["limit"])
            return data["sock"], (data["remote_address"], data["remote_port"])

    def connect(self, sock: int, address: Address, *, timeout: float | None = None) -> Address:
        """Connect; our address."""
        data = self.call("connect", sock, {"address": address[0], "port": address[1]}, timeout=timeout)
        self._open(sock, data["limit"])
        return data["local_address"], data["local_port"]

    def shutdown(self, sock: int) -> None:
        """Send FIN after all that was sent."""
        self.call("shutdown", sock, {"how": 1})
        self._post(Eof(sock, self._streams[sock].sent))

    def close(self, sock: int, *, abort: bool = False) -> None:
        """Close; `abort` resets."""
        stream = self._streams.pop(sock, None)
        args: dict[str, Any] = {"abort": True} if abort else {}
        if stream is not None and stream.chunks:
            args["unread"] = True
        self.call("close", sock, args)

    # -- bytes

    def send(self, sock: int, data: bytes, *, timeout: float | None = None) -> None:
        """Send all of `data`, as the grants allow."""
        stream = self._streams[sock]
        view = memoryview(data)
        while view:
            self._wait(lambda: stream.limit > stream.sent or stream.error != 0, timeout)
            self._check(stream)
            part = bytes(view[: min(CHUNK, stream.limit - stream.sent)])
            self._post(Send(sock, stream.sent, len(part), part))
            stream.sent += len(part)
            view = view[len(part) :]

    def flush(self, sock: int, *, timeout: float | None = None) -> None:
        """Wait until the network has taken all that was sent."""
        stream = self._streams[sock]
        self._wait(lambda: stream.accepted >= stream.sent or stream.error != 0, timeout)
        self._check(stream)

    def recv(self, sock: int, size: int = CHUNK, *, timeout: float | None = None) -> bytes:
        """At most `size` bytes; empty at the peer's FIN."""
        stream = self._streams[sock]
        self._wait(lambda: bool(stream.chunks) or stream.eof or stream.error != 0, timeout)
        if not stream.chunks:
            self._check(stream)
            return b""
        chunk = stream.chunks.popleft()
        if len(chunk) > size:
            stream.chunks.appendleft(chunk[size:])
            chunk = chunk[:size]
        stream.consumed += len(chunk)
        self._post(Consumed(sock, stream.consumed))
        return chunk

    @staticmethod
    def _check(stream: Stream) -> None:
        if stream.error:
            raise OSError(stream.error, os.strerror(stream.error))

    def _open(self, sock: int, limit: int) -> None:
        self._streams[sock] = Stream(limit)
        for message in self._early.pop(sock, ()):
            self._take(message)

    # -- the wire

    def _post(self, message: Any) -> None:
        self._socket.send_multipart(self._codec.encode([message], self._epoch, self._gateway))

    def _wait(self, ready: Any, timeout: float | None) -> None:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not ready():
            left = deadline - time.monotonic()
            if left <= 0 or not self._socket.poll(int(left * 1000) + 1):
                if ready():
                    return
                raise TimeoutError("timed out")
            try:
                epoch, _, messages = self._codec.decode(self._socket.recv_multipart())
            except RefusedMessage:
                continue
            for message in messages:
                if type(message) is Welcome:
                    self._gateway = epoch
                elif epoch == self._gateway or type(message) is Refused:
                    self._take(message)

    def _take(self, message: Any) -> None:
        kind = type(message)
        if kind is Reply:
            self._replies[message.request] = message
            return
        if kind is Refused:
            raise OSError(message.errno, message.message)
        if kind is Pending:
            self._pending[message.sock] = message.count
            return
        stream = self._streams.get(message.sock)
        if stream is None:
            self._early.setdefault(message.sock, []).append(message)
        elif kind is Accepted:
            stream.accepted = max(stream.accepted, message.upto)
            stream.limit = max(stream.limit, message.limit)
        elif kind is Data and message.offset + len(message.payload) > stream.received:
            payload = message.payload[stream.received - message.offset :]
            stream.chunks.append(bytes(payload))
            stream.received += len(payload)
        elif kind is Eof:
            stream.eof = True
        elif kind is Reset:
            stream.error = message.errno or errno.ECONNRESET
