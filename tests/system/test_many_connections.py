"""A thousand connections open at once, opened by us and accepted by us, every byte on each compared."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket as std
import threading
from collections.abc import Callable, Iterator

import pytest

from levelip.client import socket as levelip_socket
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import CHUNK, PATIENCE_S, kernel_connect, read_exactly, stream

COUNT = 1000
SIZE = 65_536
LIMIT_S = 150.0
DESCRIPTORS = 4096

pytestmark = pytest.mark.timeout(300)


def allow_descriptors() -> None:
    """A thousand sockets and what else a process holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < DESCRIPTORS:
        pytest.skip(f"not to be had here: {DESCRIPTORS} descriptors a process (ulimit -Hn: {before[1]})")
    allow_descriptors()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Echo:
    """Sends back what comes on any number of connections, in one thread; `most` were open at once."""

    def __init__(self, listener: std.socket) -> None:
        self.most = 0
        self.count = 0
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._stop = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Echo:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(PATIENCE_S)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _run(self) -> None:
        while not self._stop:
            for key, mask in self._selector.select(0.1):
                sock = key.fileobj
                assert isinstance(sock, std.socket)
                if key.data is None:
                    self._accept(sock)
                else:
                    self._serve(sock, key.data, mask)

    def _accept(self, listener: std.socket) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        self.count += 1
        self.most = max(self.most, self.count)
        self._selector.register(sock, selectors.EVENT_READ, bytearray())

    def _serve(self, sock: std.socket, waiting: bytearray, mask: int) -> None:
        if mask & selectors.EVENT_READ:
            data = sock.recv(CHUNK)
            if not data:
                self.count -= 1
                self._selector.unregister(sock)
                sock.close()
                return
            waiting += data
        if waiting:
            with contextlib.suppress(BlockingIOError):
                del waiting[: sock.send(waiting)]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0)
        self._selector.modify(sock, events, waiting)


def exchange(connect: Callable[[], std.socket]) -> int:
    """Open all, send a stream of its own on each, then read each back and compare; how many came back whole."""
    allow_descriptors()
    socks = [connect() for _ in range(COUNT)]
    for number, sock in enumerate(socks):
        sock.sendall(stream(number, SIZE))
    whole = sum(read_exactly(sock, SIZE) == stream(number, SIZE) for number, sock in enumerate(socks))
    for sock in socks:
        sock.close()
    return whole


def app_exchange(host: str, port: int) -> int:
    return exchange(lambda: levelip_socket.create_connection((host, port), timeout=PATIENCE_S))


def app_echo(port: int, done: int) -> int:
    """Serve on the stack until `done` bytes were echoed and all clients are gone; how many were open at once."""
    allow_descriptors()
    with Echo(levelip_socket.create_server(("", port), backlog=COUNT)) as echo:
        deadline = threading.Event()
        for _ in range(int(LIMIT_S * 10)):
            if echo.most == COUNT and echo.count == 0:
                break
            deadline.wait(0.1)
        return echo.most


def test_a_thousand_connections_of_ours(stack: Stack, namespace: Namespace) -> None:
    """One program opens 1,000 connections to the kernel before it uses the first; 64 KB go and come back on each."""
    with namespace.socket() as listener:
        listener.bind((stack.host, 0))
        listener.listen(COUNT)
        with Echo(listener) as echo:
            got = stack.submit(app_exchange, stack.host, listener.getsockname()[1])
            assert got.result(LIMIT_S) == COUNT
            assert echo.most == COUNT


def test_a_thousand_connections_to_our_server(stack: Stack, namespace: Namespace) -> None:
    """The kernel opens 1,000 connections to one server on the stack; 64 KB go and come back on each."""
    served = stack.submit(app_echo, 8000, COUNT)
    assert exchange(lambda: kernel_connect(namespace, stack.address, 8000)) == COUNT
    assert served.result(LIMIT_S) == COUNT
    stack.wait_until(
        lambda: {row["state"] for row in stack.ask("tcp", "ss")["sockets"]} <= {"TIME_WAIT", "LISTEN"},
        "all others are closed",
    )
