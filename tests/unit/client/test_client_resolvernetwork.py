"""How a resolver's messages lie on sockets: datagrams as they are, streams with two bytes of length before each."""

from __future__ import annotations

import errno
import socket as std
from typing import Any

import pytest

from levelip.client.resolvernetwork import StackNetwork


class Sockets:
    """Makes sockets whose other end the test holds; `refuse`: what connect() raises."""

    def __init__(self, refuse: OSError | None = None) -> None:
        self.refuse = refuse
        self.asked: list[Any] = []
        self.ends: list[std.socket] = []

    def make(self, family: int, kind: int) -> Any:
        ours, theirs = std.socketpair(std.AF_UNIX, kind)
        theirs.settimeout(5)
        self.ends.append(theirs)
        world = self

        class Made:
            def __getattr__(self, name: str) -> Any:
                return getattr(ours, name)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                ours.close()

            def connect(self, address: Any) -> None:
                world.asked.append((kind, address))
                if world.refuse is not None:
                    raise world.refuse

            def getsockname(self) -> Any:
                return ("10.0.0.2", 40_000)

        self.made = ours
        return Made()


def test_a_datagram_each() -> None:
    """Sent and received whole, on a socket that is connected to port 53 of the server."""
    sockets = Sockets()
    channel = StackNetwork(sockets.make).udp("192.0.2.53")
    assert sockets.asked == [(std.SOCK_DGRAM, ("192.0.2.53", 53))]
    channel.send(b"query")
    (server,) = sockets.ends
    assert server.recv(100) == b"query"
    server.send(b"answer")
    assert channel.receive(5) == b"answer"
    with pytest.raises(TimeoutError):
        channel.receive(0)
    channel.close()


def test_a_stream_has_lengths() -> None:
    """RFC 1035 4.2.2: messages that come in pieces, or two at once; a server that closes in the middle."""
    sockets = Sockets()
    channel = StackNetwork(sockets.make).tcp("192.0.2.53", 3)
    (server,) = sockets.ends
    channel.send(b"query")
    assert server.recv(100) == b"\0\5query"
    server.sendall(b"\0\6ans")
    server.sendall(b"wer\0\4more\0\7half")
    assert (channel.receive(5), channel.receive(5)) == (b"answer", b"more")
    server.close()
    with pytest.raises(ConnectionResetError):
        channel.receive(5)
    channel.close()


@pytest.mark.parametrize("refusal", [ConnectionRefusedError(errno.ECONNREFUSED, "no"), TimeoutError("late")])
def test_a_server_that_cannot_be_reached(refusal: OSError) -> None:
    """What connect() raises, and the socket is closed."""
    sockets = Sockets(refusal)
    network = StackNetwork(sockets.make)
    for reach in (network.udp, lambda server: network.tcp(server, 3)):
        with pytest.raises(type(refusal)):
            reach("192.0.2.53")
        assert sockets.made.fileno() == -1
    assert network.source("192.0.2.1") is None


def test_our_address_toward_another() -> None:
    """What a connected datagram socket is bound to (RFC 6724 4); it is closed again."""
    sockets = Sockets()
    assert StackNetwork(sockets.make).source("192.0.2.1") == bytes([10, 0, 0, 2])
    assert sockets.made.fileno() == -1
