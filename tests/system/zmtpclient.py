"""A client of the gateway without ZeroMQ, by docs/rpc.md, "Transport": for what no ZeroMQ library would send, and for
thousands of clients at once. `python -m tests.system.zmtpclient` has no use; tests import it."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Any, Self

import msgspec

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
MORE, LONG, COMMAND = 1, 2, 4
PATIENCE_S = 60.0


class ZmtpClient:
    """One connection; `epoch` is ours. With `greet` it is ready for messages."""

    def __init__(self, endpoint: str, *, greet: bool = True, epoch: int = 5) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(endpoint.removeprefix("ipc://"))
        self._file = self.socket.makefile("rb")
        self.epoch = epoch
        self.gateway = 0
        self.token = b""
        self._number = 0
        self._waiting: list[Any] = []
        if greet:
            self.socket.sendall(GREETING + READY)
            assert self._file.read(64)[:12] == b"\xff" + bytes(8) + b"\x7f\x03\x01"
            assert self._part()[0] & COMMAND

    def send(self, *parts: bytes, end: bool = True) -> None:
        """One message; with `end` False more parts are to follow."""
        for number, part in enumerate(parts):
            more = 0 if end and number == len(parts) - 1 else MORE
            size = bytes((more, len(part))) if len(part) < 256 else bytes((more | LONG,)) + len(part).to_bytes(8, "big")
            self.socket.sendall(size + part)

    def say(self, *messages: Any) -> None:
        """Messages of docs/rpc.md, as lists."""
        self.send(msgspec.msgpack.encode([1, self.epoch, self.gateway, messages]))

    def _part(self) -> tuple[int, bytes]:
        flags = self._file.read(1)
        if not flags:
            raise EOFError
        size = int.from_bytes(self._file.read(8 if flags[0] & LONG else 1), "big")
        return flags[0], self._file.read(size)

    def hear(self) -> list[Any]:
        """The next message; EOFError at the end of the connection, whatever it looks like."""
        try:
            while not self._waiting:
                flags, head = self._part()
                parts = [head]
                while flags & MORE:
                    flags, part = self._part()
                    parts.append(part)
                for message in msgspec.msgpack.decode(parts[0])[3]:
                    if message[0] == 3 and isinstance(message[3], list):
                        message[3] = parts[message[3][1]]
                    self._waiting.append(message)
        except ConnectionError:
            raise EOFError from None
        message_: list[Any] = self._waiting.pop(0)
        return message_

    def hello(self, token: bytes = b"") -> list[Any]:
        """Welcome, or Refused."""
        self.say([20, 1, "zmtp", token])
        answer = self.hear()
        if answer[0] == 21:
            self.gateway, self.token = answer[2], answer[3]
        return answer

    def call(self, op: str, sock: int = 0, **args: Any) -> list[Any]:
        """The Reply."""
        self._number += 1
        self.say([23, self._number, op, sock, args])
        while (answer := self.hear())[:2] != [24, self._number]:
            pass
        return answer

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
