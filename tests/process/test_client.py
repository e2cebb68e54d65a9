"""The drop-in socket over a real helper process; the gateway is a fake one that bridges to kernel sockets."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import os
import select
import selectors
import socket as std
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from clienttools import PATIENCE_S, Peer, Stack, echo, pattern, read_all

from levelip.client import socket
from levelip.client.epolls import EPOLL_CTL_ADD, Watch, control, watches
from levelip.client.program import PROGRAM
from tests.waiting import until

BULK = 50 * 1000 * 1000


@pytest.fixture
def full_listener():
    """(listener, address) whose backlog is full, so that a connect to it hangs until somebody accepts."""
    with std.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with std.create_connection(listener.getsockname()):
            yield listener, listener.getsockname()


def test_echo_and_names(stack: Stack) -> None:
    """A client connects, sees both addresses, and what it sends comes back."""
    with Peer(echo) as peer, socket.create_connection(peer.address, timeout=PATIENCE_S) as sock:
        assert sock.getpeername() == peer.address
        assert sock.getsockname()[0] == "127.0.0.1"
        assert (sock.family, sock.type, sock.proto) == (std.AF_INET, std.SOCK_STREAM, std.IPPROTO_TCP)
        assert isinstance(sock, std.socket)
        for size in (1, 64, 3000, 70_000):
            data = os.urandom(size)
            sock.sendall(data)
            got = b""
            while len(got) < size:
                got += sock.recv(size)
            assert got == data
        buffer = bytearray(10)
        sock.sendmsg([b"ab", b"cd"])
        until(lambda: sock.recv_into(buffer, 0, std.MSG_PEEK) == 4, "both parts are back")
        assert sock.recv_into(buffer, 3) == 3
        assert bytes(buffer[:3]) == b"abc"
        assert sock.recvfrom(10) == (b"d", None)


def test_server(stack: Stack) -> None:
    """A server of ours accepts kernel clients; the new socket has both names and the listener's type."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        with std.create_connection(address) as peer:
            sock, where = server.accept()
            with sock:
                assert where == peer.getsockname() == sock.getpeername()
                assert sock.getsockname() == address
                assert (sock.family, sock.type) == (std.AF_INET, std.SOCK_STREAM)
                peer.sendall(b"question")
                assert sock.recv(100) == b"question"
                sock.sendall(b"answer")
                assert peer.recv(100) == b"answer"
            assert peer.recv(100) == b""


def test_bulk_sent(stack: Stack) -> None:
    """50 MB arrive whole at the peer, in 64 KB calls, and the FIN after them."""
    data = pattern(BULK)
    digest = []

    def serve(connection: std.socket) -> None:
        whole = hashlib.sha256()
        while part := connection.recv(1 << 20):
            whole.update(part)
        digest.append(whole.hexdigest())

    with Peer(serve) as peer:
        with socket.create_connection(peer.address) as sock:
            view = memoryview(data)
            for start in range(0, BULK, 65_536):
                sock.sendall(view[start : start + 65_536])
        peer.wait()
    assert digest == [hashlib.sha256(data).hexdigest()]


def test_bulk_received(stack: Stack) -> None:
    """50 MB arrive whole at our program."""
    data = pattern(BULK)
    with Peer(lambda connection: connection.sendall(data)) as peer, socket.create_connection(peer.address) as sock:
        whole = hashlib.sha256()
        buffer = bytearray(65_536)
        got = 0
        while count := sock.recv_into(buffer):
            whole.update(memoryview(buffer)[:count])
            got += count
    assert got == BULK
    assert whole.hexdigest() == hashlib.sha256(data).hexdigest()


def test_slow_reader(stack: Stack) -> None:
    """A program that does not read holds the peer back; what it reads in the end is whole."""
    data = pattern(40_000_000)
    with Peer(lambda connection: connection.sendall(data)) as peer, socket.create_connection(peer.address) as sock:
        time.sleep(0.3)
        assert not peer.done.acquire(blocking=False), "40 MB went into the buffers on the way"
        assert read_all(sock) == data


def test_200_sockets_at_once(stack: Stack) -> None:
    """200 connections open at the same time, 20 KB echoed over each."""
    data = pattern(20_000)
    with Peer(echo) as peer, contextlib.ExitStack() as all_of_them:
        socks = [all_of_them.enter_context(socket.create_connection(peer.address)) for _ in range(200)]
        for i, sock in enumerate(socks):
            sock.sendall(data[i:])
        for i, sock in enumerate(socks):
            sock.shutdown(std.SHUT_WR)
            assert read_all(sock) == data[i:]
    until(lambda: stack.gateway.open_sockets == 0, "all sockets closed")


def test_half_close(stack: Stack) -> None:
    """Our FIN leaves the other direction open, and the other way round; a socket shut both ways is still a socket."""

    def count(connection: std.socket) -> None:
        connection.sendall(b"%d" % len(read_all(connection)))

    with Peer(count) as peer, socket.create_connection(peer.address) as sock:
        sock.sendall(bytes(300_000))
        sock.shutdown(std.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")
        assert read_all(sock) == b"300000"
        assert sock.recv(10) == b""
        time.sleep(0.05)
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_TYPE) == std.SOCK_STREAM  # both FINs are through; still there
        assert stack.gateway.open_sockets == 1
    until(lambda: stack.gateway.open_sockets == 0, "the socket closed")

    heard = []

    def shut_first(connection: std.socket) -> None:
        connection.shutdown(std.SHUT_WR)
        heard.append(read_all(connection))

    with Peer(shut_first) as peer:
        with socket.create_connection(peer.address) as sock:
            assert sock.recv(10) == b""
            sock.sendall(b"late")
        peer.wait()
    assert heard == [b"late"]


def test_shutdown_needs_a_connection(stack: Stack) -> None:
    """ENOTCONN and EPIPE as Linux gives them before a connection."""
    with socket.socket() as sock:
        for call, code in (
            (lambda: sock.shutdown(std.SHUT_WR), errno.ENOTCONN),
            (sock.getpeername, errno.ENOTCONN),
            (lambda: sock.recv(1), errno.ENOTCONN),
            (lambda: sock.send(b"x"), errno.EPIPE),
            (sock.accept, errno.EINVAL),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == code


@pytest.fixture
def closed_port() -> Iterator[tuple[str, int]]:
    """An address where nobody listens, nor begins to meanwhile."""
    with std.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


def test_refused(stack: Stack, closed_port: tuple[str, int]) -> None:
    """Nobody listens: ECONNREFUSED from connect and connect_ex, and the same socket can try again."""
    address = closed_port
    with socket.socket() as sock, pytest.raises(ConnectionRefusedError):
        sock.connect(address)
    with socket.socket() as sock:
        assert sock.connect_ex(address) == errno.ECONNREFUSED
        with Peer(echo) as peer:
            sock.connect(peer.address)
            sock.sendall(b"again")
            assert sock.recv(10) == b"again"


def test_bind_errors(stack: Stack) -> None:
    """EADDRINUSE, EADDRNOTAVAIL and Python's own complaints about the address."""
    with std.create_server(("127.0.0.1", 0)) as taken, socket.socket() as sock:
        with pytest.raises(OSError) as caught:
            sock.bind(taken.getsockname())
        assert caught.value.errno == errno.EADDRINUSE
        with pytest.raises(OSError) as caught:
            sock.bind(("192.0.2.1", 0))
        assert caught.value.errno == errno.EADDRNOTAVAIL
        with pytest.raises(OverflowError):
            sock.bind(("127.0.0.1", 70_000))
        with pytest.raises(TypeError):
            sock.bind("127.0.0.1")
        sock.bind(("", 0))
        assert sock.getsockname()[0] == "0.0.0.0"


def test_families(stack: Stack) -> None:
    """AF_UNIX is the kernel's; AF_INET6 is not there yet."""
    with socket.socket(std.AF_UNIX, std.SOCK_DGRAM) as sock:
        assert sock.family == std.AF_UNIX
    with pytest.raises(OSError) as caught:
        socket.socket(std.AF_INET6, std.SOCK_STREAM)
    assert caught.value.errno == errno.EAFNOSUPPORT


def test_options(stack: Stack) -> None:
    """Options go to the gateway as ints or bytes and come back with Linux's bytes."""
    with socket.socket() as sock:
        sock.setsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE, 1)
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE) == 1
        sock.setsockopt(std.IPPROTO_TCP, std.TCP_NODELAY, 1)
        assert sock.getsockopt(std.IPPROTO_TCP, std.TCP_NODELAY) == 1
        sock.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("ii", 1, 3))
        assert struct.unpack("ii", sock.getsockopt(std.SOL_SOCKET, std.SO_LINGER, 8)) == (1, 3)
        assert len(sock.getsockopt(std.IPPROTO_TCP, std.TCP_INFO, 256)) > 100
        with pytest.raises(OSError) as caught:
            sock.setsockopt(std.SOL_SOCKET, 9999, 1)
        assert caught.value.errno == errno.ENOPROTOOPT
        sock.setsockopt(std.SOL_SOCKET, std.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))


def test_select_poll_epoll(stack: Stack) -> None:
    """A connected socket is writable; it gets readable with data and with the FIN, in all three calls."""
    go = threading.Event()

    def serve(connection: std.socket) -> None:
        assert go.wait(PATIENCE_S)
        connection.sendall(b"x")
        read_all(connection)

    with Peer(serve) as peer, socket.create_connection(peer.address) as sock:
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        epoll = select.epoll()
        epoll.register(sock, select.EPOLLIN | select.EPOLLET)
        assert select.select([sock], [sock], [], 0.05) == ([], [sock], [])
        assert poll.poll(0) == [(sock.fileno(), select.POLLOUT)]
        assert epoll.poll(0) == []
        go.set()
        assert epoll.poll(PATIENCE_S) == [(sock.fileno(), select.EPOLLIN)]
        assert select.select([sock], [], [], 0)[0] == [sock]
        assert sock.recv(10) == b"x"
        sock.shutdown(std.SHUT_WR)
        assert epoll.poll(PATIENCE_S)
        assert sock.recv(10) == b""
        epoll.close()


def test_listener_readiness(stack: Stack) -> None:
    """A listener is readable while connections wait, one accept each, and never writable."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        assert select.select([server], [], [], 0.02)[0] == []
        with contextlib.ExitStack() as peers:
            for _ in range(3):
                peers.enter_context(std.create_connection(server.getsockname()))
            for _ in range(3):
                assert select.select([server], [], [], PATIENCE_S)[0] == [server]
                peers.enter_context(server.accept()[0])
            assert select.select([server], [], [], 0.05)[0] == []
            with pytest.raises(BlockingIOError):
                server.accept()
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def test_accepting_threads(stack: Stack) -> None:
    """Threads that wait in accept() on one listener get a connection each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        got = []

        def work() -> None:
            sock, where = server.accept()
            with sock:
                got.append(where)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        names = []
        for _ in range(8):
            with std.create_connection(server.getsockname()) as peer:
                names.append(peer.getsockname())
                assert peer.recv(1) == b""
        for thread in threads:
            thread.join(PATIENCE_S)
        assert sorted(got) == sorted(names)


def test_timeouts(stack: Stack) -> None:
    """recv and sendall keep to the socket's timeout."""
    go = threading.Event()
    with (
        Peer(lambda connection: go.wait(PATIENCE_S) and None) as peer,
        socket.create_connection(peer.address) as sock,
    ):
        sock.settimeout(0.1)
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.recv(1)
        assert time.monotonic() - begin > 0.09
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(40_000_000))
        go.set()


def test_nonblocking_connect(stack: Stack, full_listener) -> None:
    """EINPROGRESS; not writable until connected; then writable, SO_ERROR 0, and bytes flow."""
    listener, address = full_listener
    with socket.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            sock.connect(address)
        assert caught.value.errno == errno.EINPROGRESS
        assert sock.connect_ex(address) == errno.EALREADY
        selector = selectors.DefaultSelector()
        selector.register(sock, selectors.EVENT_WRITE)
        assert selector.select(0.2) == []
        with pytest.raises(BlockingIOError):
            sock.send(b"x")
        listener.accept()[0].close()
        assert selector.select(PATIENCE_S)
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0
        assert sock.getpeername() == address
        peer, _ = listener.accept()
        with peer:
            sock.sendall(b"y" * 70_000)
            got = b""
            while len(got) < 70_000:
                got += peer.recv(70_000)
            assert got == b"y" * 70_000, "no junk, no loss"
        selector.close()


def test_nonblocking_refused(stack: Stack, closed_port: tuple[str, int]) -> None:
    """A refused non-blocking connect looks as it does on Linux, says ECONNREFUSED once, and may be tried again."""
    address = closed_port
    with socket.socket() as sock:
        sock.setblocking(False)
        assert sock.connect_ex(address) == errno.EINPROGRESS
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        ((_, mask),) = poll.poll(PATIENCE_S * 1000)
        assert mask & select.POLLOUT
        assert mask & select.POLLERR
        assert mask & select.POLLHUP
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == errno.ECONNREFUSED
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0
        with Peer(echo) as peer, select.epoll() as epoll:
            word = 0x0123_4567_09AB_CDEF  # of C code that put it there: a pointer, most of the time
            control(epoll.fileno(), EPOLL_CTL_ADD, sock.fileno(), Watch(epoll.fileno(), select.EPOLLOUT, word))
            assert sock.connect_ex(peer.address) == errno.ECONNABORTED  # Linux: connect() has not told it yet
            assert sock.connect_ex(peer.address) == errno.EINPROGRESS
            assert epoll.poll(PATIENCE_S) == [(word & 0xFFFF_FFFF, select.EPOLLOUT)]
            (entry,) = watches("self", sock.fileno(), os.fstat(sock.fileno()).st_ino)
            assert (entry.events & select.EPOLLOUT, entry.data) == (select.EPOLLOUT, word)
            assert select.select([], [sock], [], PATIENCE_S)[1] == [sock]
            sock.setblocking(True)
            sock.sendall(b"second")
            assert sock.recv(10) == b"second"
    until(lambda: stack.gateway.open_sockets == 0, "all sockets closed")


def test_connect_with_timeout(stack: Stack, full_listener) -> None:
    """A connect that runs out of its timeout raises TimeoutError, goes on connecting, and closing it gives it up."""
    listener, address = full_listener
    with socket.socket() as sock:
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.connect(address)
        assert select.select([], [sock], [], 0.05)[1] == []
    until(lambda: stack.gateway.open_sockets == 0, "the connecting socket closed")
    with socket.socket() as sock:
        sock.settimeout(0.1)
        assert sock.connect_ex(address) == errno.EAGAIN
        listener.accept()[0].close()
        assert select.select([], [sock], [], PATIENCE_S)[1] == [sock]
        sock.sendall(b"z")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(10) == b"z"


def test_makefile_and_dup(stack: Stack) -> None:
    """Buffered files over the socket, and a duplicate that keeps the connection when the first is closed."""
    with Peer(echo) as peer:
        sock = socket.create_connection(peer.address)
        with sock.makefile("rw", encoding="utf-8") as file:
            file.write("line\n")
            file.flush()
            assert file.readline() == "line\n"
        other = sock.dup()
        sock.close()
        assert other.getpeername() == peer.address
        other.sendall(b"dup")
        assert other.recv(10) == b"dup"
        third = socket.socket(fileno=other.detach())
        assert third.family == std.AF_INET
        third.sendfile(io.BytesIO(b"file"))
        assert third.recv(10) == b"file"
        third.close()
    until(lambda: stack.gateway.open_sockets == 0, "all holders closed")


def test_asyncio_streams(stack: Stack) -> None:
    """asyncio's streams over connected and listening sockets of ours."""

    async def talk(address: tuple[str, int]) -> bytes:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        await loop.sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock)
        assert writer.get_extra_info("peername") == address
        writer.write(data)
        writer.write_eof()
        whole = await reader.read()
        writer.close()
        await writer.wait_closed()
        return whole

    async def both() -> tuple[bytes, bytes]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read())
            writer.close()

        server = await asyncio.start_server(serve, sock=socket.create_server(("127.0.0.1", 0)))
        with Peer(echo) as peer:
            got = await talk(peer.address), await talk(server.sockets[0].getsockname())
        server.close()
        return got

    data = pattern(1_000_000)
    assert asyncio.run(asyncio.wait_for(both(), PATIENCE_S)) == (data, data)
    until(lambda: stack.gateway.open_sockets == 0, "all sockets closed")


def test_close_then_bind_again(stack: Stack) -> None:
    """A listener's port is free as soon as close() has returned."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            std.create_connection(address)
        with socket.socket() as sock:
            sock.bind(address)
            sock.listen()


def test_no_stack(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Without a stack the error is ENETDOWN, names the door and the command that starts one."""
    monkeypatch.setenv("LEVELIP_RUN", str(tmp_path))
    PROGRAM.leave()
    with pytest.raises(OSError) as caught:
        socket.socket()
    assert caught.value.errno == errno.ENETDOWN
    assert str(tmp_path / "level-ip.door" / "gateway") in str(caught.value)
    assert "lvlip up" in str(caught.value)


def test_dead_gateway(memory_stack: Stack) -> None:
    """A door with nobody behind it: ENETDOWN after PATIENCE_S of the session, and later a stack is found."""
    memory_stack.kill()
    (memory_stack.door / "gateway").touch()
    with pytest.raises(OSError) as caught:
        socket.socket()
    assert caught.value.errno == errno.ENETDOWN
    assert "lvlip up" in str(caught.value)
    memory_stack.start()
    with Peer(echo) as peer, socket.create_connection(peer.address) as sock:
        sock.sendall(b"back")
        assert sock.recv(10) == b"back"
