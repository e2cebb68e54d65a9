"""What the client's process tests share: a stack that is a fake gateway, kernel peers, and programs to run and kill."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

from fakegateway import FakeGateway

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


class Stack:
    """A door directory with a fake gateway behind it."""

    def __init__(self, *, memory: bool, start: bool = True) -> None:
        self.run = Path(tempfile.mkdtemp(prefix="lvl"))
        self.door = self.run / "level-ip.door"
        self.door.mkdir()
        self.memory = Path(tempfile.mkdtemp(prefix="lvl", dir="/dev/shm")) if memory else None
        self.endpoint = f"ipc://{self.door}/gateway"
        self.gateway: FakeGateway | None = None
        if start:
            self.start()

    def start(self) -> FakeGateway:
        """Start the gateway, or another one."""
        self.gateway = FakeGateway(self.endpoint, memory=self.memory)
        return self.gateway

    def kill(self) -> None:
        """End the gateway as SIGKILL would."""
        assert self.gateway is not None
        gateway, self.gateway = self.gateway, None
        gateway.stop()

    def program(self, source: str, *args: str) -> subprocess.Popen[str]:
        """Start a Python program that uses the client, in a process group of its own."""
        environment = {**os.environ, "LEVELIP_RUN": str(self.run), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(source), *args],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def end(self) -> None:
        """Everything away."""
        try:
            if self.gateway is not None:
                self.kill()
        finally:
            shutil.rmtree(self.run)
            if self.memory is not None:
                shutil.rmtree(self.memory)


class Peer:
    """A kernel listener on 127.0.0.1 that runs `serve(connection)` in a thread for each connection."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._serve = serve
        self.failure: BaseException | None = None
        self.done = threading.Semaphore(0)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            with connection:
                connection.settimeout(PATIENCE_S)
                self._serve(connection)
        except BaseException as error:
            self.failure = error
        finally:
            self.done.release()

    def wait(self) -> None:
        """Until one connection was served; raises what went wrong there."""
        assert self.done.acquire(timeout=PATIENCE_S)
        if self.failure is not None:
            raise self.failure

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def echo(connection: socket.socket) -> None:
    """Send back everything until the end."""
    while data := connection.recv(65_536):
        connection.sendall(data)


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    parts = []
    while data := connection.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


def pattern(length: int) -> bytes:
    """Bytes that depend on their position, period far beyond any buffer here."""
    block = b"".join(hashlib.sha256(i.to_bytes(4, "big")).digest() for i in range(4096))  # 128 KiB
    out = bytearray()
    for i in range(length // len(block) + 1):
        out += i.to_bytes(8, "big") + block
    return bytes(out[:length])
