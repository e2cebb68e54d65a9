"""Programs as they are: many at once, short-lived, killed, forked, waiting by select, poll, epoll and asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import select
import signal
import socket as std
import subprocess
import threading
import time
from typing import Any

import pytest

from levelip.client import socket as levelip_socket
from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import (
    CHUNK,
    PATIENCE_S,
    KernelServer,
    chunks,
    digest,
    kernel_connect,
    read_all,
    read_exactly,
    stream,
)

pytestmark = pytest.mark.timeout(400)

LIMIT_S = 200.0
PROGRAMS = 20
IMPORT = "import hashlib, os, sys, time; from levelip.client import socket\n"


def echoes(sock: std.socket) -> None:
    """A handler that sends back what comes."""
    while data := sock.recv(CHUNK):
        sock.sendall(data)


# how programs start and end


def test_many_programs_at_once(shared_stack: Stack, host: Namespace) -> None:
    """20 processes, each with its own connection and its own bytes, at the same time."""
    stack = shared_stack
    kept = len(stack.snapshot("gateway")["state"]["sessions"])
    program = IMPORT + (
        "from tests.system.streams import app_both_ways\n"
        "print(app_both_ways(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 500_000))"
    )
    with KernelServer(host, stack.host, echoes) as server:
        apps = [
            stack.popen(["-c", program, stack.host, str(server.port), str(n)], stdout=subprocess.PIPE, text=True)
            for n in range(PROGRAMS)
        ]
        found = [app.communicate(timeout=LIMIT_S)[0].strip() for app in apps]
    assert found == [digest(stream(n, 500_000)) for n in range(PROGRAMS)]
    stack.wait_until(lambda: len(stack.snapshot("gateway")["state"]["sessions"]) <= kept, "all sessions have ended")


@pytest.mark.parametrize(
    "end", ["return", "os._exit(0)", "os.kill(os.getpid(), 9)"], ids=["return", "_exit", "SIGKILL"]
)
def test_what_was_written_is_delivered(shared_stack: Stack, host: Namespace, end: str) -> None:
    """A program writes 150,000 bytes and ends at once, without close, in one of three ways: all of it arrives,
    followed by FIN, as Linux does it."""
    stack = shared_stack
    program = IMPORT + (
        "from tests.system.streams import stream\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "s.sendall(stream(5, 150_000))\n" + ("" if end == "return" else end)
    )
    got: list[str] = []
    with KernelServer(host, stack.host, lambda sock: got.append(read_all(sock))) as server:
        app = stack.popen(["-c", program, stack.host, str(server.port)])
        assert app.wait(LIMIT_S) == (-signal.SIGKILL if "kill" in end else 0)
        stack.wait_until(lambda: bool(got), "the end of the stream")  # the server may not have accepted it yet
    assert got == [digest(stream(5, 150_000))]


def test_a_slow_reader_gets_what_a_dead_program_wrote(shared_stack: Stack, host: Namespace) -> None:
    """More than the peer's window is written before the end: the helper stays until the peer has taken all."""
    stack = shared_stack
    size, left_over = 4_000_000, 150_000  # more than the peer's window, less than the send buffer and a part of it
    program = IMPORT + (
        "from tests.system.streams import stream, chunks\n"
        "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 131_072)\n"
        "s.connect((sys.argv[1], int(sys.argv[2])))\n"
        f"for chunk in chunks(stream(6, {size})): s.sendall(chunk)\n"
        "os._exit(0)"
    )
    with host.socket() as listener:
        listener.bind((stack.host, 0))
        listener.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 65_536)  # its window is no larger
        listener.listen()
        app = stack.popen(["-c", program, stack.host, str(listener.getsockname()[1])])
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE_S)
            found = hashlib.sha256()
            left = size
            while left > left_over:
                part = sock.recv(min(left - left_over, CHUNK))
                found.update(part)
                left -= len(part)
            assert app.wait(LIMIT_S) == 0
            time.sleep(0.5)
            while part := sock.recv(CHUNK):
                found.update(part)
            assert found.hexdigest() == digest(stream(6, size))


def app_fork_server(port: int) -> list[bytes]:
    """Accept in the parent, serve in a child, as inetd does: parent and child close what they do not need."""
    seen = []
    with levelip_socket.create_server(("", port)) as server:
        for number in range(3):
            sock, _ = server.accept()
            pid = os.fork()
            if not pid:
                server.close()
                sock.sendall(b"child %d" % number)
                sock.close()
                os._exit(0)
            sock.close()
            seen.append(b"%d" % os.waitpid(pid, 0)[1])
    return seen


def test_a_child_serves_what_its_parent_accepted(shared_stack: Stack, host: Namespace) -> None:
    """Sockets survive fork(): the child writes, and the peer sees the end when the last of both has closed."""
    served = shared_stack.submit(app_fork_server, 8100)
    for number in range(3):
        with kernel_connect(host, shared_stack.address, 8100) as sock:
            assert read_all(sock) == digest(b"child %d" % number)
    assert served.result(LIMIT_S) == [b"0"] * 3


def test_a_socket_inherited_by_another_program(shared_stack: Stack, host: Namespace) -> None:
    """Over exec(): a plain program writes to descriptor 1, which is a socket of the stack."""
    stack = shared_stack
    program = IMPORT + (
        "import subprocess\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "subprocess.run(['/bin/sh', '-c', 'echo from a shell; seq 1 20000'], stdout=s.fileno(), check=True)"
    )
    got: list[str] = []
    with KernelServer(host, stack.host, lambda sock: got.append(read_all(sock))) as server:
        assert stack.popen(["-c", program, stack.host, str(server.port)]).wait(LIMIT_S) == 0
        stack.wait_until(lambda: bool(got), "the end of the stream")
    text = "from a shell\n" + "".join(f"{n}\n" for n in range(1, 20_001))
    assert got == [digest(text.encode())]


def test_ctrl_c_in_a_program_delivers_what_it_wrote(shared_stack: Stack, host: Namespace) -> None:
    """SIGINT to the whole process group, as a terminal sends it, ends the program but not its helper."""
    stack = shared_stack
    program = IMPORT + (
        "from tests.system.streams import stream\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "s.sendall(stream(7, 150_000)); print('written', flush=True); time.sleep(60)"
    )
    got: list[str] = []
    with KernelServer(host, stack.host, lambda sock: got.append(read_all(sock))) as server:
        app = stack.popen(
            ["-c", program, stack.host, str(server.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        assert app.stdout is not None and app.stdout.readline() == b"written\n"
        os.killpg(app.pid, signal.SIGINT)
        assert app.wait(LIMIT_S) != 0
        stack.wait_until(lambda: bool(got), "the end of the stream")
    assert got == [digest(stream(7, 150_000))]


# how programs wait


def app_multiplex(how: str, host: str, port: int, count: int, size: int) -> list[str]:
    """`count` connections of one thread, non-blocking from connect() on, by select, poll or epoll; the sha256s of
    what came back on each, which is what was sent."""
    socks = {}
    for number in range(count):
        sock = levelip_socket.socket()
        sock.setblocking(False)
        assert sock.connect_ex((host, port)) in (0, 115)
        socks[sock.fileno()] = (number, sock)
    unsent = {fd: memoryview(stream(number, size)) for fd, (number, _) in socks.items()}
    found = {fd: hashlib.sha256() for fd in socks}
    got = dict.fromkeys(socks, 0)
    ready = _waiter(how, list(socks))
    deadline = time.monotonic() + LIMIT_S
    while min(got.values()) < size:
        assert time.monotonic() < deadline, f"{how} hangs: {got}"
        for fd, readable, writable in ready({fd for fd in socks if unsent[fd]}):
            sock = socks[fd][1]
            if writable and unsent[fd]:
                assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0
                with contextlib.suppress(BlockingIOError):
                    unsent[fd] = unsent[fd][sock.send(unsent[fd][:CHUNK]) :]
            if readable:
                try:
                    part = sock.recv(CHUNK)
                except BlockingIOError:
                    continue
                found[fd].update(part)
                got[fd] += len(part)
    for _, sock in socks.values():
        sock.close()
    return [found[fd].hexdigest() for fd in socks]


def _waiter(how: str, fds: list[int]) -> Any:
    """Gives (fd, readable, writable) for those that are ready; asked for writing only where there is something."""
    if how == "select":

        def by_select(writing: set[int]) -> list[tuple[int, bool, bool]]:
            readable, writable, _ = select.select(fds, writing, [], PATIENCE_S)
            return [(fd, fd in readable, fd in writable) for fd in {*readable, *writable}]

        return by_select
    poller: Any = select.poll() if how == "poll" else select.epoll()
    read, write = (select.POLLIN, select.POLLOUT) if how == "poll" else (select.EPOLLIN, select.EPOLLOUT)
    for fd in fds:
        poller.register(fd, read | write)
    patience = PATIENCE_S * 1000 if how == "poll" else PATIENCE_S

    def by_poll(writing: set[int]) -> list[tuple[int, bool, bool]]:
        for fd in fds:
            poller.modify(fd, read | (write if fd in writing else 0))
        return [(fd, bool(mask & ~write), bool(mask & write)) for fd, mask in poller.poll(patience)]

    return by_poll


@pytest.mark.parametrize("how", ["select", "poll", "epoll"])
def test_waiting_for_many(shared_stack: Stack, host: Namespace, how: str) -> None:
    """30 connections in one thread, each echoing 100 KB, all non-blocking."""
    stack = shared_stack
    with KernelServer(host, stack.host, echoes) as server:
        found = stack.submit(app_multiplex, how, stack.host, server.port, 30, 100_000).result(LIMIT_S)
    assert found == [digest(stream(number, 100_000)) for number in range(30)]


def app_asyncio(host: str, port: int, listen: int, count: int, size: int) -> tuple[list[str], list[str]]:
    """An asyncio server and clients in one loop; the sha256s of what came back to the clients, and to the server."""

    async def client(number: int) -> str:
        loop = asyncio.get_running_loop()
        sock = levelip_socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, port))
        reader, writer = await asyncio.open_connection(sock=sock)

        async def send() -> None:
            for chunk in chunks(stream(number, size)):
                writer.write(chunk)
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        found = hashlib.sha256()
        while data := await reader.read(CHUNK):
            found.update(data)
        await sending
        writer.close()
        await writer.wait_closed()
        return found.hexdigest()

    async def main() -> tuple[list[str], list[str]]:
        seen: list[str] = []
        closed: list[asyncio.StreamWriter] = []
        done = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            data = await reader.read()
            seen.append(digest(data))
            writer.write(data)
            await writer.drain()
            writer.close()
            await writer.wait_closed()  # as nothing is written once the loop is over
            closed.append(writer)
            if len(closed) == count:
                done.set()

        listener = levelip_socket.create_server(("", listen))
        server = await asyncio.start_server(serve, sock=listener)
        answers = await asyncio.gather(*(client(number) for number in range(count)))
        await asyncio.wait_for(done.wait(), LIMIT_S)
        server.close()
        return answers, seen

    return asyncio.run(main())


def test_asyncio(shared_stack: Stack, host: Namespace) -> None:
    """asyncio's own streams on our sockets (sock=), ten clients and a server in one loop, 200 KB on each."""
    stack = shared_stack
    with KernelServer(host, stack.host, echoes) as server:
        ours = stack.submit(app_asyncio, stack.host, server.port, 8200, 10, 200_000)
        answers = []
        for number in range(100, 110):
            with kernel_connect(host, stack.address, 8200) as sock:
                answers.append(streams.both_ways(sock, number, 200_000))
        clients, seen = ours.result(LIMIT_S)
    assert clients == [digest(stream(number, 200_000)) for number in range(10)]
    assert answers == seen == [digest(stream(number, 200_000)) for number in range(100, 110)]


# what programs ask


def app_options(host: str, port: int) -> dict[str, Any]:
    """Set what can be set, and read it back before and after connect."""
    with levelip_socket.socket() as sock:
        sock.setsockopt(std.IPPROTO_TCP, std.TCP_NODELAY, 1)
        sock.setsockopt(std.IPPROTO_TCP, std.TCP_MAXSEG, 800)
        sock.setsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE, 1)
        sock.connect((host, port))
        sock.sendall(bytes(100_000))
        sock.shutdown(std.SHUT_WR)
        assert read_exactly(sock, 1) == b"."
        info = sock.getsockopt(std.IPPROTO_TCP, std.TCP_INFO, 232)
        return {
            "nodelay": sock.getsockopt(std.IPPROTO_TCP, std.TCP_NODELAY),
            "maxseg": sock.getsockopt(std.IPPROTO_TCP, std.TCP_MAXSEG),
            "keepalive": sock.getsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE),
            "peer": sock.getpeername(),
            "name": sock.getsockname(),
            "state": info[0],
            "mss": int.from_bytes(info[16:20], "little"),  # tcpi_snd_mss
        }


def test_options_reach_tcp(shared_stack: Stack, host: Namespace) -> None:
    """TCP_MAXSEG bounds the segments that the kernel sees and sends; TCP_INFO tells of this connection."""
    stack = shared_stack
    seen: list[Any] = []
    asked = threading.Event()

    def handle(sock: std.socket) -> None:
        seen.append((sock.getpeername(), sock.getsockopt(std.IPPROTO_TCP, std.TCP_MAXSEG)))
        read_all(sock)
        sock.sendall(b".")
        asked.wait(PATIENCE_S)  # no FIN before

    with KernelServer(host, stack.host, handle) as server:
        found = stack.submit(app_options, stack.host, server.port).result(LIMIT_S)
        asked.set()
        assert found["peer"] == (stack.host, server.port)
    (name, kernels_mss), *_ = seen
    assert found["name"] == name
    assert (found["nodelay"], found["keepalive"]) == (1, 1)
    assert found["maxseg"] == found["mss"] <= 800
    assert kernels_mss <= 800
    assert found["state"] == 5  # TCP_FIN_WAIT2 (linux/tcp_states.h)
