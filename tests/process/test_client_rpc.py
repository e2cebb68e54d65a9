"""The thin client without descriptors, against the fake gateway."""

from __future__ import annotations

import errno
import socket as std
import struct
import threading

import pytest
from clienttools import PATIENCE_S, Peer, Stack, echo, pattern, read_all

from levelip.client.rpc import GatewayClient

LOOPBACK = b"\x7f\0\0\x01"


def test_client_and_server(stack: Stack) -> None:
    """Both roles, half-close, names, and bytes beyond one grant."""
    data = pattern(3_000_000)
    with Peer(echo) as peer, GatewayClient(stack.endpoint, timeout=PATIENCE_S) as client:
        sock = client.socket()
        client.connect(sock, (LOOPBACK, peer.address[1]))
        received = b""
        for start in range(0, len(data), 100_000):
            client.send(sock, data[start : start + 100_000])
            while len(received) < start:
                received += client.recv(sock)
        client.flush(sock)
        client.shutdown(sock)
        while part := client.recv(sock):
            received += part
        assert received == data
        client.close(sock)

        listener = client.socket()
        _, port = client.bind(listener, (LOOPBACK, 0))
        client.listen(listener)
        with std.create_connection(("127.0.0.1", port)) as kernel:
            new, where = client.accept(listener)
            assert where == (LOOPBACK, kernel.getsockname()[1])
            client.send(new, b"hello")
            client.close(new)
            assert read_all(kernel) == b"hello"


def test_errors(stack: Stack) -> None:
    """errno of the gateway, timeouts, resets, and no gateway at all."""
    with std.socket() as taken, GatewayClient(stack.endpoint, timeout=PATIENCE_S) as client:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        sock = client.socket()
        with pytest.raises(ConnectionRefusedError):
            client.connect(sock, (LOOPBACK, port))
        with pytest.raises(OSError) as caught:
            client.close(12345)
        assert caught.value.errno == errno.EBADF
        listener = client.socket()
        client.listen(listener)
        with pytest.raises(TimeoutError):
            client.accept(listener, timeout=0.1)
        connected = threading.Event()

        def reset(connection: std.socket) -> None:
            assert connected.wait(PATIENCE_S)
            connection.setsockopt(std.SOL_SOCKET, std.SO_LINGER, struct.pack("=ii", 1, 0))

        with Peer(reset) as peer:
            client.connect(sock, (LOOPBACK, peer.address[1]))
            connected.set()
            with pytest.raises(ConnectionResetError):
                client.recv(sock)
    with pytest.raises(OSError) as caught:
        GatewayClient(f"ipc://{stack.run}/nobody", timeout=0.2)
    assert caught.value.errno == errno.ENETDOWN
