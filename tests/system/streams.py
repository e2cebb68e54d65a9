"""Byte streams that system tests send and compare, and the two ends of them: programs on the stack, and the kernel.

A stream is known by its seed and size; every byte depends on its position, so bytes that are lost, repeated or out
of place change the digest. Functions whose name starts with `app_` run in a process that is an application of the
stack (`Stack.submit`); the `Kernel...` classes are the other side, threads of the test on the namespace's sockets.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import random
import select
import socket as std
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from levelip.client import socket as levelip_socket
from tests.system.namespace import Namespace

CHUNK = 65_536
PATIENCE_S = 60.0
"""How long one call on a socket of a test may take on a busy machine."""


@functools.lru_cache(maxsize=4)
def stream(seed: int, size: int) -> bytes:
    """The bytes of a stream."""
    return random.Random(seed).randbytes(size)


def digest(data: bytes) -> str:
    """Its sha256."""
    return hashlib.sha256(data).hexdigest()


def chunks(data: bytes, size: int = CHUNK) -> Iterator[memoryview]:
    """The data in pieces, as programs send it."""
    view = memoryview(data)
    for start in range(0, len(data), size):
        yield view[start : start + size]


def read_all(sock: std.socket) -> str:
    """The sha256 of everything up to the peer's FIN."""
    found = hashlib.sha256()
    buffer = bytearray(CHUNK)
    while got := sock.recv_into(buffer):
        found.update(memoryview(buffer)[:got])
    return found.hexdigest()


def read_exactly(sock: std.socket, size: int) -> bytes:
    """`size` bytes; fewer if the peer ends before."""
    parts = []
    while size and (part := sock.recv(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


# programs on the stack


def app_download(host: str, port: int) -> str:
    """Connect and read to the end; the sha256."""
    with levelip_socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        return read_all(sock)


def app_upload(host: str, port: int, seed: int, size: int) -> str:
    """Connect, send, end our direction, and wait for the peer's end; what it answered."""
    with levelip_socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        for chunk in chunks(stream(seed, size)):
            sock.sendall(chunk)
        sock.shutdown(std.SHUT_WR)
        return read_exactly(sock, CHUNK).decode()


def app_both_ways(host: str, port: int, seed: int, size: int) -> str:
    """Send and receive at the same time; the sha256 of what came."""
    with levelip_socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        return both_ways(sock, seed, size)


def both_ways(sock: std.socket, seed: int, size: int) -> str:
    """Send a stream from another thread while this one reads to the end; the sha256 of what came."""
    failed: list[BaseException] = []

    def send() -> None:
        try:
            for chunk in chunks(stream(seed, size)):
                sock.sendall(chunk)
            sock.shutdown(std.SHUT_WR)
        except BaseException as error:
            failed.append(error)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    found = read_all(sock)
    sender.join(PATIENCE_S)
    if failed:
        raise failed[0]
    return found


def app_serve(port: int, count: int, seed: int, size: int) -> list[str]:
    """Listen, and with each of `count` connections send a stream while reading theirs; the sha256s of theirs."""
    with levelip_socket.create_server(("", port)) as server:
        server.settimeout(PATIENCE_S)
        found = []
        for _ in range(count):
            sock, _ = server.accept()
            with sock:
                sock.settimeout(PATIENCE_S)
                found.append(both_ways(sock, seed, size))
        return found


# the kernel's side


class KernelServer:
    """Listens in the namespace and hands each connection to `handle`, each in a thread; leave joins them all."""

    def __init__(self, namespace: Namespace, address: str, handle: Callable[[std.socket], None], *, backlog: int = 128):
        self._sock = namespace.socket()
        self._sock.setsockopt(std.SOL_SOCKET, std.SO_REUSEADDR, 1)
        self._sock.bind((address, 0))
        self._sock.listen(backlog)
        self.address, self.port = self._sock.getsockname()
        self._handle = handle
        self._threads: list[threading.Thread] = []
        self.failed: list[BaseException] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._sock.accept()
            except OSError:
                return
            sock.settimeout(PATIENCE_S)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: std.socket) -> None:
        with sock:
            try:
                self._handle(sock)
            except BaseException as error:
                self.failed.append(error)

    def close(self) -> None:
        """No more connections; those that are stay, also those that have only just come."""
        deadline = time.monotonic() + PATIENCE_S
        while select.select([self._sock], [], [], 0)[0] and time.monotonic() < deadline:
            time.sleep(0.001)
        self._sock.shutdown(std.SHUT_RDWR)
        self._acceptor.join(PATIENCE_S)
        self._sock.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
        for thread in self._threads:
            thread.join(PATIENCE_S if error is None else 0.1)
            assert error is not None or not thread.is_alive(), "a connection of the kernel's server does not end"
        if error is None and self.failed:
            raise self.failed[0]


def sends(seed: int, size: int) -> Callable[[std.socket], None]:
    """A handler that sends a stream and closes."""

    def handle(sock: std.socket) -> None:
        for chunk in chunks(stream(seed, size)):
            sock.sendall(chunk)

    return handle


def answers_digest(sock: std.socket) -> None:
    """A handler that reads to the end and answers with the sha256."""
    sock.sendall(read_all(sock).encode())


def kernel_connect(namespace: Namespace, address: str, port: int, *, timeout: float = PATIENCE_S) -> std.socket:
    """A kernel connection to a server on the stack, which may still be starting."""
    return connect(namespace.socket, (address, port), timeout=timeout)


def connect(
    make: Callable[[], std.socket],
    address: tuple[str, int],
    *,
    timeout: float = PATIENCE_S,
    prepare: Callable[[std.socket], None] = lambda _sock: None,
) -> std.socket:
    """A connection to a server that may still be starting: refused, it is tried again with another socket."""
    deadline = time.monotonic() + timeout
    while True:
        sock = make()
        try:
            sock.settimeout(timeout)
            prepare(sock)
            sock.connect(address)
            return sock
        except ConnectionRefusedError:
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        except BaseException:
            sock.close()
            raise


def echo_datagrams(sock: std.socket) -> None:
    """Send back what comes, until the socket is shut or closed."""
    with contextlib.suppress(OSError):
        while True:
            data, where = sock.recvfrom(70_000)
            if where is None:  # shut
                return
            sock.sendto(data, where)
