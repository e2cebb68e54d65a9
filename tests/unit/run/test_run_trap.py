"""Trapped calls on datagram sockets, with a gateway that is played; our own process stands for the program."""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from levelip.client.calls import Calls
from levelip.client.datagrams import BATCH, MARKS
from levelip.client.pump import Pump
from levelip.rpc.messages import DatagramError, DatagramIn
from levelip.run.notify import Notification
from levelip.run.syscalls import machine
from levelip.run.trap import Trap
from levelip.run.values import sockaddr
from tests.unit.client.test_client_datagrams import Session

TID = threading.get_native_id()
PEER = sockaddr(b"\x0a\0\0\1", 7)
MSG_ERRQUEUE = 0x2000
RECVERR = (socket.IPPROTO_IP, 11)
UDP_CORK = (socket.IPPROTO_UDP, 1)


class Listener:
    """Notifications of the test; `said` is (value, errno) of the last one answered, None if it was let through."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0)
        self.notes: list[Notification] = []
        self.said: tuple[int, int] | None = None
        self.cloexec = False  # of the descriptor given last

    def receive(self) -> Notification:
        return self.notes.pop(0)

    def valid(self, id_: int) -> bool:
        return True

    def answer(self, id_: int, value: int = 0, code: int = 0) -> bool:
        self.said = (value, code)
        return True

    def let_through(self, id_: int) -> bool:
        self.said = None
        return True

    def give(self, id_: int, fd: int, *, cloexec: bool, number: int | None = None) -> int:
        self.said, self.cloexec = (os.dup(fd), 0), cloexec
        return self.said[0]


class Program:
    """Its processes, none of which ends."""

    fd = -1
    ended = False

    def event(self) -> None:
        """Nothing."""


class World:
    """One datagram socket, `sock`, connected to PEER."""

    def __init__(self) -> None:
        self._kept: list[Any] = []
        self._ids = itertools.count(1)
        self.epoll = select.epoll()
        self.session: Any = Session()
        self.session.is_open = True
        self.session.outbox = []
        self.listener = Listener()
        program = Program()
        program.fd = os.eventfd(0)
        self.trap = Trap(self.listener.fd, program)
        self.trap._listener = self.listener  # type: ignore[assignment]
        self.calls = Calls(self.session, Pump(self.session, self.epoll), self.epoll, lambda: [os.getpid()])
        self.trap.open(self.calls, self.epoll)
        self.gateway: dict[str, dict[str, Any]] = {"resolver": {}, "socket": {"sock": 7}}
        self.call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0)
        self.settle()
        assert self.listener.said is not None
        self.sock = socket.socket(fileno=self.listener.said[0])
        self.sock.setblocking(False)
        self.pair = self.calls.datagrams.by_gid[7]
        assert self.made("connect", self.put(PEER), len(PEER)) == (0, 0)

    def close(self) -> None:
        self.sock.close()
        self.calls.shut()
        self.trap.close()
        os.close(self.trap._program.fd)
        self.epoll.close()

    def put(self, data: bytes) -> int:
        """Memory of the program."""
        self._kept.append(ctypes.create_string_buffer(data, max(len(data), 1)))
        return ctypes.addressof(self._kept[-1])

    def call(self, name: str, *args: int) -> None:
        padded = (*args, *[0] * (6 - len(args)))
        self.listener.notes.append(Notification(next(self._ids), TID, machine().calls[name], padded))
        self.listener.said = (-1, -1)
        self.trap._take()

    def settle(self) -> None:
        """The gateway answers all it was asked."""
        while self.session.requests or self.session.asked:
            while self.session.requests:
                op, _, done = self.session.requests.pop(0)
                done(0, self.gateway.get(op, {"value": bytes(4)}), "")
            while self.session.asked:
                self.session.asked.pop(0)[1](0, {}, "")

    def made(self, name: str, *args: int) -> tuple[int, int] | None:
        """A call on the socket: value and errno."""
        self.call(name, self.sock.fileno(), *args)
        self.settle()
        return self.listener.said

    def set(self, option: tuple[int, int], value: int) -> tuple[int, int] | None:
        return self.made("setsockopt", *option, self.put(struct.pack("=i", value)), 4)

    def receive(self, flags: int = socket.MSG_DONTWAIT) -> tuple[int, int] | None:
        where, size = self.put(bytes(16)), self.put(struct.pack("=i", 16))
        return self.made("recvfrom", self.put(bytes(100)), 100, flags, where, size)

    def next_error(self) -> tuple[int, int] | None:
        """recvmsg(2) with MSG_ERRQUEUE: its bytes are left out."""
        message = struct.pack("=QIxxxxQQQQixxxx", 0, 0, 0, 0, self.put(bytes(200)), 200, 0)
        return self.made("recvmsg", self.put(message), MSG_ERRQUEUE)

    def send(self, data: bytes, flags: int = 0, where: bytes = PEER) -> tuple[int, int] | None:
        address = self.put(where) if where else 0
        return self.made("sendto", self.put(data), len(data), flags, address, len(where))

    def fail(self, code: int = errno.ECONNREFUSED) -> None:
        self.calls.datagrams.deliver(
            self.pair, DatagramError(7, code, 3, 3, b"\x0a\0\0\1", b"\x0a\0\0\1", 7, payload=b"q")
        )

    def come(self, payload: bytes) -> None:
        self.calls.datagrams.deliver(self.pair, DatagramIn(7, 1, b"\x0a\0\0\1", 7, b"\x0a\0\0\2", 0, 64, 1, payload))

    def turn(self) -> list[bytes]:
        """What the gateway was given since the last one."""
        for fd, mask in self.epoll.poll(0):
            if fd in self.calls.datagrams.by_fd:
                self.calls.datagrams.event(self.calls.datagrams.by_fd[fd], mask)
        self.calls.datagrams.turn()
        return [bytes(one.payload) for one in self.session.sent()]

    def mask(self) -> int:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN | select.POLLOUT)
        return sum(bits for _, bits in poll.poll(0))


IN, OUT, ERR = select.POLLIN, select.POLLOUT, select.POLLERR
REFUSED = (0, errno.ECONNREFUSED)
NOTHING = (0, errno.EAGAIN)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_an_error_is_told_once(world: World) -> None:
    """By a trapped call with its errno, or by one of the kernel's, and not by both; until then poll says POLLERR."""
    for tell in (world.receive, lambda: world.send(b"x")):
        world.fail()
        assert world.mask() == OUT | ERR
        assert tell() == REFUSED
        assert (world.mask(), world.receive()) == (OUT, NOTHING)
    for native in (lambda: world.sock.recv(9), lambda: world.sock.send(b"x")):
        world.fail()
        with pytest.raises(ConnectionResetError):
            native()
        assert (world.mask(), world.receive(), world.pair.error) == (OUT, NOTHING, 0)
    world.fail()
    world.gateway["getsockopt"] = {"value": struct.pack("=i", errno.ECONNREFUSED)}
    room = world.put(struct.pack("=i", 4))
    assert world.made("getsockopt", socket.SOL_SOCKET, socket.SO_ERROR, world.put(bytes(4)), room) == (0, 0)
    assert (world.mask(), world.receive()) == (OUT, NOTHING)


def test_a_call_that_waits_is_told(world: World) -> None:
    """A recvfrom that has begun before the error comes ends with it."""
    world.sock.setblocking(True)
    assert world.receive(0) == (-1, -1), "no answer yet"
    world.fail()
    world.settle()
    assert world.listener.said == REFUSED and world.mask() == OUT


def test_the_error_queue_shows(world: World) -> None:
    """With IP_RECVERR poll says POLLERR as long as there is something in the queue; datagrams come beside it."""
    assert world.set(RECVERR, 1) == (0, 0)
    world.fail()
    world.fail(errno.EHOSTUNREACH)
    assert world.receive() == (0, errno.EHOSTUNREACH)
    assert (world.mask(), world.receive(), world.mask()) == (OUT | ERR, NOTHING, OUT | ERR)
    world.come(b"datagram")
    assert world.mask() == IN | OUT | ERR
    assert (world.receive(), world.mask()) == ((8, 0), OUT | ERR)
    assert world.next_error() == (0, 0)
    assert (world.mask(), world.receive()) == (OUT | ERR, (0, errno.EHOSTUNREACH)), "SO_ERROR is the next one's"
    assert (world.next_error(), world.mask()) == ((0, 0), OUT)
    assert (world.next_error(), world.receive()) == (NOTHING, NOTHING)


def test_the_error_queue_alone(world: World) -> None:
    """Who takes the error from there, as traceroute does, is not told it again by what receives."""
    world.set(RECVERR, 1)
    for _ in range(2):
        world.fail()
        assert world.mask() == OUT | ERR
        assert (world.next_error(), world.mask()) == ((0, 0), OUT)
        assert world.receive() == NOTHING
        with pytest.raises(BlockingIOError):
            world.sock.recv(9)


def test_a_datagram_in_parts(world: World) -> None:
    """MSG_MORE and UDP_CORK, by trapped calls and the kernel's."""
    assert world.send(b"first") == (5, 0) and world.turn() == [b"first"]
    more = socket.MSG_MORE
    assert world.send(b"a", more) == (1, 0) and world.send(b"bc", more, where=b"") == (2, 0) and not world.turn()
    assert world.send(b"d", where=sockaddr(b"\x0a\0\0\1", 9)) == (1, 0) and world.turn() == [b"abcd"]
    assert world.send(b"head ", more, where=b"") == (5, 0)
    world.sock.send(b"body")
    assert world.turn() == [b"head body"]
    assert world.send(bytes(60_000), more) == (60_000, 0)
    assert world.send(bytes(6000)) == (0, errno.EMSGSIZE) and world.send(b"x") == (1, 0) and world.turn() == [b"x"]
    assert world.set(UDP_CORK, 5) == (0, 0)
    world.sock.send(b"one ")
    assert not world.turn() and world.send(b"two") == (3, 0) and not world.turn()
    room, value = world.put(struct.pack("=i", 4)), world.put(bytes(4))
    assert world.made("getsockopt", *UDP_CORK, value, room) == (0, 0) and ctypes.string_at(value, 4) == b"\1\0\0\0"
    assert world.set(UDP_CORK, 0) == (0, 0) and world.turn() == [b"one two"]
    assert world.made("setsockopt", *UDP_CORK, value, 3) == (0, errno.EINVAL)


def test_parts_of_a_datagram_behind_many(world: World) -> None:
    """What was written before MSG_MORE or UDP_CORK is no part of it, even if that is more than one turn takes, or
    answers are missing; what was written before UDP_CORK is taken out is."""
    alone = [b"%d" % number for number in range(BATCH + 10)]
    for marks in (0, MARKS - 1):
        world.pair.marks = marks
        for one in alone:
            world.sock.send(one)
        assert world.send(b"head ", socket.MSG_MORE) == (5, 0)
        world.sock.send(b"body")
        assert world.turn() == [*alone, b"head body"]
    world.pair.marks = MARKS
    for one in alone:
        world.sock.send(one)
    assert world.set(UDP_CORK, 1) == (0, 0)
    for one in alone:
        world.sock.send(one)
    assert world.set(UDP_CORK, 0) == (0, 0)
    world.pair.marks = 0
    assert world.turn() == [*alone, b"".join(alone)]


def test_what_is_shut(world: World) -> None:
    """For sending a send of the kernel's fails, too; for receiving nothing is waited for."""
    assert world.made("shutdown", socket.SHUT_WR) == (0, 0)
    assert world.send(b"x") == (0, errno.EPIPE)
    with pytest.raises(BrokenPipeError):
        world.sock.send(b"x", socket.MSG_NOSIGNAL)
    assert world.made("shutdown", socket.SHUT_RD) == (0, 0)
    assert world.receive() == NOTHING
    world.sock.setblocking(True)
    assert world.receive(0) == (0, 0)
