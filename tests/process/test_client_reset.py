"""Resets in both directions: what the program sees of the peer's, and what the peer sees when the program's bytes or
unread bytes are lost."""

from __future__ import annotations

import errno
import os
import select
import socket as std
import struct
import threading

import pytest
from clienttools import PATIENCE_S, Peer, Stack, pattern, read_all
from fakegateway import RING

from levelip.client import socket
from tests.waiting import until

ABORT = struct.pack("=ii", 1, 0)  # struct linger: on, 0 seconds: close() resets


class Resetter:
    """A peer that sends `data` and resets once told."""

    def __init__(self, data: bytes = b"") -> None:
        self.go = threading.Event()
        self.data = data

    def __call__(self, connection: std.socket) -> None:
        connection.sendall(self.data)
        assert self.go.wait(PATIENCE_S)
        connection.setsockopt(std.SOL_SOCKET, std.SO_LINGER, ABORT)


def readable(sock: std.socket) -> None:
    """Wait until there is something to read, be it the end."""
    assert select.select([sock], [], [], PATIENCE_S)[0]


def how_it_ends(connection: std.socket) -> str:
    """Read to the end, which is a FIN or a RST."""
    try:
        read_all(connection)
    except ConnectionResetError:
        return "RST"
    return "FIN"


def test_reset_is_read_after_the_data(stack: Stack) -> None:
    """What came before the RST is read first, then ECONNRESET once, then the end (Linux)."""
    serve = Resetter(b"before")
    with Peer(serve) as peer, socket.create_connection(peer.address) as sock:
        readable(sock)
        serve.go.set()
        peer.wait()
        until(lambda: _hung_up(sock), "hang-up")
        assert sock.recv(100) == b"before"
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
        assert sock.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            sock.send(b"x")
        with pytest.raises(OSError) as caught:
            sock.getpeername()
        assert caught.value.errno == errno.ENOTCONN
    until(lambda: stack.gateway.open_sockets == 0, "the socket closed")


def _hung_up(sock: std.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))


def test_reset_while_much_waits(memory_stack: Stack) -> None:
    """Bytes that the program had not read when the RST came, in the pair and in the ring, stay readable."""
    data = pattern(3_000_000)
    serve = Resetter(data)
    with Peer(serve) as peer, socket.create_connection(peer.address) as sock:
        until(lambda: memory_stack.gateway.received >= RING, "the ring is full")
        serve.go.set()
        peer.wait()
        until(lambda: memory_stack.gateway.broken, "the gateway has heard of the reset")
        got = b""
        with pytest.raises(ConnectionResetError):
            while True:
                part = sock.recv(65_536)
                assert part, "a FIN where there was a reset"
                got += part
        # the kernel's own receive buffer is lost with the RST; what was handed over is in order
        assert data.startswith(got)
        assert len(got) >= 1_000_000


def test_blocked_reader_and_writer_wake(stack: Stack) -> None:
    """A thread in recv() and one in sendall() get ECONNRESET or EPIPE when the peer resets."""
    serve = Resetter()
    seen = []

    def reader() -> None:
        try:
            sock.recv(1)
        except OSError as error:
            seen.append(error.errno)

    with Peer(serve) as peer, socket.create_connection(peer.address) as sock:
        thread = threading.Thread(target=reader)
        thread.start()
        timer = threading.Timer(0.2, serve.go.set)
        timer.start()
        with pytest.raises((ConnectionResetError, BrokenPipeError)) as caught:
            sock.sendall(bytes(100_000_000))
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert errno.ECONNRESET in (*seen, caught.value.errno)


def test_so_error(stack: Stack) -> None:
    """SO_ERROR tells of the reset and clears it; then reading is at the end."""
    serve = Resetter()
    with Peer(serve) as peer, socket.create_connection(peer.address) as sock:
        serve.go.set()
        readable(sock)
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == errno.ECONNRESET
        assert sock.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="lending descriptors needs ptrace rights")
def test_native_reader_sees_the_reset(stack: Stack) -> None:
    """Code that reads the descriptor itself gets ECONNRESET too, where the kernel lends the helper its end."""
    serve = Resetter(b"abc")
    with Peer(serve) as peer, socket.create_connection(peer.address) as sock:
        readable(sock)
        serve.go.set()
        until(lambda: _hung_up(sock), "hang-up")
        assert os.read(sock.fileno(), 100) == b"abc"
        with pytest.raises(ConnectionResetError):
            os.read(sock.fileno(), 100)
        assert os.read(sock.fileno(), 100) == b""


def test_closing_with_unread_bytes_resets(stack: Stack) -> None:
    """RFC 2525 2.17: the program closes with bytes unread, the peer gets a reset, not a FIN."""
    caught = []

    def serve(connection: std.socket) -> None:
        connection.sendall(b"never read")
        try:
            caught.append(connection.recv(1))
        except OSError as error:
            caught.append(error.errno)

    with Peer(serve) as peer:
        sock = socket.create_connection(peer.address)
        readable(sock)
        sock.close()
        peer.wait()
    assert caught == [errno.ECONNRESET]
    assert stack.gateway.aborted


def test_closing_without_credit_and_unread_bytes_resets(stack: Stack) -> None:
    """Likewise when the peer does not read either, so that nothing more can be handed over."""
    resume = threading.Event()
    ended = []

    def serve(connection: std.socket) -> None:
        connection.sendall(b"never read")
        assert resume.wait(PATIENCE_S)
        ended.append(how_it_ends(connection))

    with Peer(serve) as peer:
        sock = socket.create_connection(peer.address)
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(100_000_000))
        sock.close()
        until(lambda: stack.gateway.open_sockets == 0, "closed at once")
        resume.set()
        peer.wait()
    assert ended == ["RST"]


def test_linger_zero_resets(stack: Stack) -> None:
    """SO_LINGER with 0 seconds: close() resets."""
    ended = []

    with Peer(lambda connection: ended.append(how_it_ends(connection))) as peer:
        with socket.create_connection(peer.address) as sock:
            sock.setsockopt(std.SOL_SOCKET, std.SO_LINGER, ABORT)
        peer.wait()
        with socket.create_connection(peer.address) as sock:
            sock.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("=ii", 1, 5))
        peer.wait()
    assert ended == ["RST", "FIN"]


def test_many_resets_at_once(stack: Stack) -> None:
    """100 connections reset together: each program socket gets its ECONNRESET."""
    serve = Resetter()
    with Peer(serve) as peer:
        socks = [socket.create_connection(peer.address, timeout=PATIENCE_S) for _ in range(100)]
        serve.go.set()
        for sock in socks:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        for sock in socks:
            sock.close()
    until(lambda: stack.gateway.open_sockets == 0, "all sockets closed")
