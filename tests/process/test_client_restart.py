"""The gateway dies and another one comes: connections are reset at once, listeners and options survive."""

from __future__ import annotations

import errno
import select
import socket as std
import threading
import time

import pytest
from clienttools import PATIENCE_S, Peer, Stack, echo

from levelip.client import socket
from tests.waiting import until


def test_listener_survives(stack: Stack) -> None:
    """A listener, with its options, works again on the same port after the gateway was replaced, several times."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        server.setsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE, 1)
        for round_ in range(3):
            with std.create_connection(address) as peer:
                sock, _ = server.accept()
                with sock:
                    sock.sendall(b"%d" % round_)
                    assert peer.recv(10) == b"%d" % round_
            stack.kill()
            stack.start()
            until(lambda: stack.gateway.open_sockets == 1, "listener made again")
            until(lambda: _listens(address), "listening again")
            sock, _ = server.accept()  # the probe's
            sock.close()
            assert server.getsockopt(std.SOL_SOCKET, std.SO_KEEPALIVE) == 1
        server.settimeout(0.1)
        with pytest.raises(TimeoutError):
            server.accept()


def _listens(address: tuple[str, int]) -> bool:
    try:
        std.create_connection(address).close()
    except ConnectionRefusedError:
        return False
    return True


def test_blocking_accept_goes_on(stack: Stack) -> None:
    """A thread that waits in accept() through the restart gets the next connection."""
    got = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: got.append(server.accept()))
        thread.start()
        time.sleep(0.1)
        stack.kill()
        stack.start()
        until(lambda: _listens(server.getsockname()), "listening again")
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        got[0][0].close()


def test_connections_are_reset_at_once(stack: Stack) -> None:
    """Readers, writers and idle connections get ECONNRESET when the new gateway is there; new connections work."""
    with Peer(echo) as peer:
        reading = socket.create_connection(peer.address, timeout=PATIENCE_S)
        idle = socket.create_connection(peer.address, timeout=PATIENCE_S)
        stack.kill()
        time.sleep(0.1)
        stack.start()
        with pytest.raises(ConnectionResetError):
            reading.recv(1)
        until(lambda: bool(select.select([idle], [], [], 0)[0]), "idle one readable")
        assert idle.getsockopt(std.SOL_SOCKET, std.SO_ERROR) == errno.ECONNRESET
        with pytest.raises(BrokenPipeError):
            idle.sendall(b"x")
        with socket.create_connection(peer.address, timeout=PATIENCE_S) as fresh:
            fresh.sendall(b"fresh")
            assert fresh.recv(10) == b"fresh"
        reading.close()
        idle.close()
    until(lambda: stack.gateway.open_sockets == 0, "all closed")


def test_a_bound_socket_connects_anew_from_its_port(stack: Stack) -> None:
    """Where connect() has not said that the connection was there (it had a timeout), the one after that which tells its
    end begins another, from the port that bind() named (Linux)."""
    with std.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Peer(echo) as peer, socket.socket() as sock, socket.create_connection(peer.address) as known:
        sock.settimeout(PATIENCE_S)
        sock.bind(("127.0.0.1", port))
        sock.connect(peer.address)
        stack.kill()
        stack.start()
        for one in (sock, known):
            with pytest.raises(ConnectionResetError):
                one.recv(1)
        assert [known.connect_ex(peer.address) for _ in range(2)] == [errno.EISCONN] * 2
        assert [sock.connect_ex(peer.address) for _ in range(2)] == [errno.ECONNABORTED, 0]
        assert sock.getsockname() == ("127.0.0.1", port)
        sock.sendall(b"again")
        assert sock.recv(10) == b"again"


def test_calls_wait_for_the_new_gateway(stack: Stack) -> None:
    """A socket made, bound and connected while no gateway is there is served by the next one."""
    with Peer(echo) as peer, socket.socket() as early, socket.create_connection(peer.address) as other:
        early.bind(("127.0.0.1", 0))
        port = early.getsockname()[1]
        stack.kill()
        with pytest.raises(ConnectionResetError):
            other.recv(1)  # now the client knows
        threading.Timer(0.5, stack.start).start()
        early.connect(peer.address)
        assert early.getsockname()[1] == port
        early.sendall(b"kept")
        assert early.recv(10) == b"kept"
    until(lambda: stack.gateway is not None and stack.gateway.open_sockets == 0, "all closed")


def test_connect_under_way_is_reset(memory_stack: Stack) -> None:
    """A connect that the old gateway had begun fails with ECONNRESET."""
    caught = []
    with std.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with std.create_connection(listener.getsockname()), socket.socket() as sock:
            thread = threading.Thread(target=lambda: caught.append(sock.connect_ex(listener.getsockname())))
            thread.start()
            until(lambda: memory_stack.gateway.connecting == 1, "the connect is under way")
            memory_stack.kill()
            memory_stack.start()
            thread.join(PATIENCE_S)
            assert caught == [errno.ECONNRESET]
