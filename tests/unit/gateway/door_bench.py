"""The gateway's door in this process, in virtual time: real sockets on one side, frames of the core on the other.

with DoorBench() as bench:
    app = bench.client()                     # greeted, and READY
    app.write(envelope(Hello(VERSION, "x")))
    bench.frames()                           # one round: what the core would be fed
    app.read()                               # what the door has said
"""

from __future__ import annotations

import contextlib
import logging
import socket
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from gateway.door import Door
from gateway.zmtp import GREETING, encode
from levelip.config import Config
from levelip.rpc.codec import Codec
from levelip.rpc.messages import ToGateway

READY = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
EPOCH, OURS = 7, 5  # the gateway's; a client's
ROUND = 256  # messages that the loop asks for at once
MEMORY = 1 << 20
_CODEC: Codec[Any] = Codec(ToGateway)


class Runtime:
    """As much of levelip.ipc.runtime.Runtime as the door uses."""

    def __init__(self) -> None:
        self.epoch = EPOCH
        self.config = Config()
        self.counters: Counter[str] = Counter()
        self.log = logging.getLogger("door bench")
        self.memory = self

    def read(self, _place: Any) -> bytes:
        raise AssertionError("no Place was made")

    def count(self, name: str, n: int = 1) -> None:
        self.counters[name] += n


def message(*parts: bytes) -> bytes:
    """The bytes of one ZeroMQ message."""
    return b"".join(encode(parts))


def envelope(*messages: Any, epoch: int = OURS, to: int = EPOCH) -> bytes:
    """The bytes of one envelope."""
    return message(*_CODEC.encode(messages, epoch, to))


class App:
    """One connection to the door; it never waits."""

    def __init__(self, path: Path, *, greet: bool = True) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        self.socket.connect(str(path))
        if greet:
            self.write(GREETING + READY)

    def write(self, data: bytes) -> int:
        """Bytes that went; none if the door takes no more, or is closed."""
        try:
            return self.socket.send(data)
        except OSError:
            return 0

    def read(self) -> bytes:
        """What is there."""
        heard = b""
        with contextlib.suppress(OSError):
            while data := self.socket.recv(1 << 20):
                heard += data
        return heard

    def is_cut(self) -> bool:
        """Whether the door has closed the connection."""
        try:
            while self.socket.recv(1 << 20):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


class DoorBench:
    """The door, and its clients, which are all this process."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="lv", dir="/tmp")
        self._path = Path(self._directory.name) / "gateway"
        self.runtime = Runtime()
        self.door = Door(self.runtime, f"ipc://{self._path}", Path(self._directory.name), MEMORY)  # type: ignore[arg-type]
        self.apps: list[App] = []

    def client(self, *, greet: bool = True) -> App:
        """A new connection; the door takes it in its next round."""
        self.apps.append(App(self._path, greet=greet))
        return self.apps[-1]

    def frames(self, limit: int = ROUND) -> list[Any]:
        """One round of the loop."""
        return self.door.receive(limit, 0)

    def __enter__(self) -> DoorBench:
        return self

    def __exit__(self, *_: object) -> None:
        for app in self.apps:
            app.socket.close()
        self.door.close()
        self._directory.cleanup()
