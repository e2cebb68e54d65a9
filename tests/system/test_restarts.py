"""Layers killed under load: what goes on, what ends at once and with which error, and how soon all is well again."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import select
import socket as std
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from levelip.client import socket as levelip_socket
from levelip.ipc.rundir import LAYERS
from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.processors import Queued
from tests.system.streams import CHUNK, PATIENCE_S, KernelServer, digest, kernel_connect, read_exactly, stream

SIZE = 30_000_000
LIMIT_S = 120.0
RESET_S = 1.0
"""How soon every application hears that its connections are gone; here and below, what processes wait for a processor
that others use comes on top."""
BACK_S = 5.0
"""How soon after the kill new connections work."""
STARTED_S = 1.0
"""The same from the new process's start on."""

supervised = pytest.mark.parametrize("stack", [{"supervised": True}], indirect=True, ids=["supervised"])
pytestmark = pytest.mark.timeout(300)


# link and ip


@supervised
@pytest.mark.parametrize("layer", ["link", "ip"])
def test_a_transfer_outlives_a_packet_layer(stack: Stack, namespace: Namespace, layer: str) -> None:
    """link or ip killed in the middle of a transfer both ways: it ends with the right bytes on both sides."""
    got: list[str] = []
    halfway = threading.Event()

    def serve(sock: std.socket) -> None:
        found = hashlib.sha256()
        sender = threading.Thread(target=lambda: streams.sends(1, SIZE)(sock), daemon=True)
        sender.start()
        taken = 0
        while part := sock.recv(CHUNK):
            found.update(part)
            taken += len(part)
            if taken > SIZE // 4:
                halfway.set()
        sender.join(PATIENCE_S)
        got.append(found.hexdigest())

    others = {name: stack.pid(name) for name in stack.layers if name != layer}
    with KernelServer(namespace, stack.host, serve) as server:
        ours = stack.submit(app_both_ways_then_close, stack.host, server.port, 2, SIZE)
        assert halfway.wait(PATIENCE_S), stack.report()
        stack.restart(layer)
        assert ours.result(LIMIT_S) == digest(stream(1, SIZE))
    assert got == [digest(stream(2, SIZE))]
    assert {name: stack.pid(name) for name in others} == others, "nothing else was restarted"


def app_both_ways_then_close(host: str, port: int, seed: int, size: int) -> str:
    """As streams.app_both_ways, but it ends its direction first: the server waits for that."""
    with levelip_socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        found = hashlib.sha256()
        sender = threading.Thread(target=lambda: streams.sends(seed, size)(sock), daemon=True)
        sender.start()
        left = size
        while left and (part := sock.recv(min(left, CHUNK))):
            found.update(part)
            left -= len(part)
        sender.join(PATIENCE_S)
        return found.hexdigest()


# tcp and gateway


class Applications:
    """Programs with connections in every state that a kill can meet, and a kernel on the other side."""

    def __init__(self, stack: Stack, namespace: Namespace) -> None:
        self.stack = stack
        self.idle: list[std.socket] = []
        self._kept: list[std.socket] = []
        self.listener = namespace.socket()
        self.listener.bind((stack.host, 0))
        self.listener.listen(32)
        self.port = self.listener.getsockname()[1]
        self.deaf = namespace.socket()  # its connections are never read from
        self.deaf.bind((stack.host, 0))
        self.deaf.listen(32)
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while True:
            try:
                self._kept.append(self.listener.accept()[0])
            except OSError:
                return

    def start(self) -> dict[str, Any]:
        """Futures by what each program does when its connection ends; each tells (errno, when). All wait by now."""
        stack, deaf = self.stack, self.deaf.getsockname()[1]
        ports = {"recv": self.port, "poll": self.port, "many": self.port, "send": deaf, "timeout": self.port}
        waiting = {
            how: stack.submit(app_waits, stack.host, port, how, str(stack.directory / f"waits-{how}"))
            for how, port in ports.items()
        }
        stack.wait_until(
            lambda: all((stack.directory / f"waits-{how}").exists() or waiting[how].done() for how in ports),
            "all programs are connected and wait",
        )
        return waiting

    def close(self) -> None:
        self.listener.shutdown(std.SHUT_RDWR)
        for sock in (self.listener, self.deaf, *self._kept):
            sock.close()


def app_waits(host: str, port: int, how: str, waits: str) -> tuple[list[int], float]:
    """Connect, wait in a call until the connection breaks; the errnos (0: none) and the CLOCK_MONOTONIC of it. Makes a
    file `waits` just before."""
    count = 20 if how == "many" else 1
    socks = [levelip_socket.create_connection((host, port)) for _ in range(count)]
    found = []
    if how == "send":
        socks[0].setblocking(False)
        with contextlib.suppress(BlockingIOError):  # every buffer is full
            while True:
                socks[0].send(bytes(CHUNK))
        socks[0].setblocking(True)
    Path(waits).touch()
    for sock in socks:
        try:
            if how == "send":
                while True:
                    sock.send(bytes(CHUNK))
            if how == "poll":
                poll = select.poll()
                poll.register(sock, select.POLLIN)
                assert poll.poll(LIMIT_S * 1000)
            if how == "timeout":
                sock.settimeout(LIMIT_S)
            found.append(0 if sock.recv(1) == b"" else -1)
        except OSError as error:
            found.append(error.errno or -2)
    ended = time.monotonic()
    for sock in socks:
        sock.close()
    return found, ended


def app_listens(port: int) -> list[str]:
    """One listener for all: accept and echo, until a connection says "last"; how those broke that said "before"."""
    with levelip_socket.create_server(("", port)) as server:
        server.settimeout(LIMIT_S)
        bad = []
        while True:
            sock, _ = server.accept()
            said = b""
            with sock:
                sock.settimeout(LIMIT_S)
                try:
                    while data := sock.recv(CHUNK):
                        said += data
                        sock.sendall(data)
                except OSError as error:
                    if said.startswith(b"before"):  # others are attempts that were given up
                        bad.append(errno.errorcode.get(error.errno or 0, repr(error)))
            if said == b"last":
                return bad


def echo_once(namespace: Namespace, stack: Stack, port: int, limit: float) -> None:
    """A new kernel connection to a listener on the stack that works, tried again until `limit` (monotonic)."""
    for attempt in itertools.count():
        try:
            # each attempt is short: a SYN that is lost would be sent again after a second only
            with kernel_connect(namespace, stack.address, port, timeout=0.25 if attempt < 12 else 5.0) as sock:
                sock.sendall(b"again")
                sock.shutdown(std.SHUT_WR)
                if read_exactly(sock, 5) == b"again":
                    return
        except OSError:
            pass
        assert time.monotonic() < limit, f"no new connection works\n{stack.report()}"
        time.sleep(0.01)


@supervised
@pytest.mark.parametrize("layer", ["tcp", "gateway"])
def test_connections_end_at_once_and_listeners_live_on(stack: Stack, namespace: Namespace, layer: str) -> None:
    """tcp or gateway killed: every application hears ECONNRESET within a second, whatever it waits in; a listening
    socket goes on without its program's doing; new connections both ways work within 5 s of the kill, and 1 s of the
    new process's start."""
    served = stack.submit(app_listens, 8000)
    echo_once(namespace, stack, 8000, time.monotonic() + 60)
    with kernel_connect(namespace, stack.address, 8000) as accepted:
        accepted.sendall(b"before")
        assert read_exactly(accepted, 6) == b"before"
        apps = Applications(stack, namespace)
        waiting = apps.start()
        others = {name: stack.pid(name) for name in stack.layers if name != layer}
        queued = Queued()
        killed = time.monotonic()
        stack.kill(layer)
        heard = {name: future.result(PATIENCE_S) for name, future in waiting.items()}
        heard_queued = queued.seconds()
        started = _started(stack, layer, killed + LIMIT_S)
        echo_once(namespace, stack, 8000, killed + LIMIT_S)
        took = time.monotonic()
        for name, (errnos, ended) in heard.items():
            assert set(errnos) == {errno.ECONNRESET}, f"{name}: {[errno.errorcode.get(n, n) for n in errnos]}"
            assert ended - killed < RESET_S + heard_queued, f"{name} hears of it after {ended - killed:.2f} s"
        waited = queued.seconds()
        latest = max(ended for _, ended in heard.values())
        print(f"heard after {latest - killed:.2f} s, queued {heard_queued:.2f} s; {layer} works {took - started:.2f} s")
        print(f"after its start, {took - killed:.2f} s after the kill, queued {waited:.2f} s")
        assert took - killed < BACK_S + waited, f"{took - killed:.2f} s from the kill of {layer}"
        assert took - started < STARTED_S + waited, f"{took - started:.2f} s from the start of the new {layer}"
        with KernelServer(namespace, stack.host, streams.answers_digest) as server:
            again = stack.submit(streams.app_upload, stack.host, server.port, 2, 1_000_000)
            assert again.result(LIMIT_S) == digest(stream(2, 1_000_000))
        with kernel_connect(namespace, stack.address, 8000) as last:
            last.sendall(b"last")
            last.shutdown(std.SHUT_WR)
            assert read_exactly(last, 4) == b"last"
        assert served.result(LIMIT_S) == ["ECONNRESET"]
        assert {name: stack.pid(name) for name in others} == others, "nothing else was restarted"
        accepted.settimeout(PATIENCE_S)
        with pytest.raises(ConnectionResetError):
            accepted.sendall(b"after")
            while accepted.recv(1):
                pass
        apps.close()


def _started(stack: Stack, layer: str, limit: float) -> float:
    """When the layer's new process was made, in s of CLOCK_MONOTONIC: proc(5), starttime."""
    while not (pid := stack.run_directory.holder(layer)):
        assert time.monotonic() < limit, f"{layer} does not come back\n{stack.report()}"
        time.sleep(0.005)
    ticks = int(Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK") - time.clock_gettime(time.CLOCK_BOOTTIME) + time.monotonic()


@supervised
@pytest.mark.matrix(sample=1)
@pytest.mark.parametrize("layers", [LAYERS, *((layer,) for layer in LAYERS)], ids=["all", *LAYERS])
def test_twenty_kills_in_a_row(stack: Stack, namespace: Namespace, layers: tuple[str, ...]) -> None:
    """Layers killed again as soon as their processes are there, twenty times: the supervisor does not give them up,
    and at the end a transfer works."""
    for _ in range(20):
        pids = {layer: stack.kill(layer) for layer in layers}
        deadline = time.monotonic() + 60
        for layer, pid in pids.items():
            while stack.run_directory.holder(layer) in (None, 0, pid):
                assert time.monotonic() < deadline, f"{layer} does not come back\n{stack.report()}"
                time.sleep(0.01)
    stack.wait_ready()
    with KernelServer(namespace, stack.host, streams.answers_digest) as server:
        got = stack.submit(streams.app_upload, stack.host, server.port, 2, 1_000_000)
        assert got.result(LIMIT_S) == digest(stream(2, 1_000_000))


@supervised
def test_the_device_stays_while_link_is_away(stack: Stack, namespace: Namespace) -> None:
    """The host keeps device, address and route while link is killed and comes back; the index is the same."""
    name = namespace.run(["ip", "-json", "link", "show"]).stdout
    stack.restart("link")
    assert namespace.run(["ip", "-json", "link", "show"]).stdout.count("ifindex") == name.count("ifindex")
    assert stack.host in namespace.run(["ip", "address"]).stdout


def test_sigterm_ends_a_layer_with_status_0(make_stack: Callable[..., Stack], namespace: Namespace) -> None:
    """Without a supervisor: each layer ends by SIGTERM and can be started again by hand, and all find each other."""
    stack = make_stack(namespace)
    for layer in stack.layers:
        stack.restart(layer, 15)
    stack.wait_ready()
    with KernelServer(namespace, stack.host, streams.sends(1, 1_000_000)) as server:
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, 1_000_000))
