"""What the class of datagram sockets asks of its helper, which is played."""

from __future__ import annotations

import errno
import socket as std
from collections.abc import Iterator
from typing import Any

import pytest

from levelip.client import kernel
from levelip.client.ancillary import IP_RECVERR
from levelip.client.datagramformat import DOWN, MAX_PAYLOAD
from levelip.client.datagramsocket import DatagramSocket

ONE, TWO = ("10.0.0.1", 1), ("10.0.0.2", 2)


class Asked:
    """A Program that says yes to all; `calls`: names and arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def call(self, op: str, _: int, args: dict[str, Any]) -> tuple[dict[str, Any], int]:
        self.calls.append((op, args))
        return {}, -1


@pytest.fixture
def made() -> Iterator[tuple[Any, Asked, kernel.socket]]:
    """The socket, what it asks, and the helper's end."""
    ours, theirs = kernel.socketpair(std.AF_UNIX, std.SOCK_SEQPACKET)
    asked: Any = Asked()
    sock: Any = kernel.socket.__new__(DatagramSocket)
    sock._begin()
    sock._program, sock._fresh = asked, False
    sock._family, sock._kind, sock._proto = std.AF_INET, std.SOCK_DGRAM, std.IPPROTO_UDP
    kernel.socket.__init__(sock, std.AF_UNIX, std.SOCK_SEQPACKET, 0, theirs.detach())
    with ours, sock:
        yield sock, asked, ours


def test_a_datagram_in_parts_goes_where_the_first_one_went(made: tuple[Any, Asked, kernel.socket]) -> None:
    """MSG_MORE: destination and ancillary data of the later ones mean nothing, as on Linux (udp_sendmsg), neither where
    the whole is a call nor where it is written; after a part too much the next one begins anew."""
    sock, asked, ours = made
    ttl = [(std.IPPROTO_IP, std.IP_TTL, (9).to_bytes(4, "little"))]
    assert sock.sendmsg([b"a", b"b"], ttl, std.MSG_MORE, ONE) == 2
    assert sock.sendto(b"c", std.MSG_MORE, TWO) == 1 and not asked.calls
    assert sock.sendto(b"d", TWO) == 1
    op, args = asked.calls.pop()
    assert (op, args["address"], args["port"], args["payload"]) == ("sendto", b"\x0a\0\0\1", 1, b"abcd")
    assert args["ttl"] == 9
    assert sock.sendto(b"e", std.MSG_MORE, ONE) == 1 and sock.send(b"f") == 1 and not asked.calls
    message = ours.recv(100)
    assert DOWN.unpack_from(message)[1:3] == (b"\x0a\0\0\1", 1) and message[DOWN.size :] == b"ef"
    sock.sendto(b"g", std.MSG_MORE, ONE)
    with pytest.raises(OSError) as caught:
        sock.send(bytes(MAX_PAYLOAD))
    assert caught.value.errno == errno.EMSGSIZE
    sock.sendto(b"h", TWO)
    assert asked.calls.pop()[1]["port"] == 2


def test_what_can_be_an_int_is_one(made: tuple[Any, Asked, kernel.socket]) -> None:
    """An option's value with __index__ means the same to the helper and to the socket."""
    sock, asked, _ = made

    class Index:
        def __init__(self, value: int) -> None:
            self.value = value

        def __index__(self) -> int:
            return self.value

    for value in (1, 0):
        sock.setsockopt(Index(std.IPPROTO_IP), Index(IP_RECVERR), Index(value))
        said = {"level": std.IPPROTO_IP, "option": IP_RECVERR, "value": value}
        assert asked.calls.pop() == ("setsockopt", said)
        assert ((std.IPPROTO_IP, IP_RECVERR) in sock._told) is bool(value)
