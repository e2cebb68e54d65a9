"""The helper's part of datagram sockets, with a session that is played: credit, order, ends, new gateways."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from levelip.client.control import Answer, Call
from levelip.client.datagramformat import DATAGRAM, DOWN, ERROR, HAS_ADDRESS, MAX_PAYLOAD, UP, Told, told
from levelip.client.datagrams import BATCH, EVERY, MARKS, QUEUED_ERRORS, Datagrams, is_datagram
from levelip.client.ends import Ends
from levelip.rpc.messages import DatagramError, DatagramIn, SendDatagram, TookDatagrams

REMOTE, LOCAL = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


class Session:
    """What Datagrams says, and answers when the test wants."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.asked: list[tuple[Any, Callable[..., None]]] = []
        self.requests: list[tuple[str, dict[str, Any], Callable[..., None]]] = []

    def tell(self, message: Any) -> None:
        self.told.append(message)

    def ask(self, make: Callable[[int], Any], done: Callable[..., None]) -> None:
        self.told.append(make(len(self.told) + 1))
        self.asked.append((self.told[-1], done))

    def request(self, op: str, target: Any, args: dict[str, Any], done: Callable[..., None], **_: Any) -> None:
        self.requests.append((op, args, done))

    def release(self) -> None:
        """Nothing is held."""

    def settle(self, code: int = 0, data: dict[str, Any] | None = None) -> str:
        """Answer the oldest request; its name."""
        op, _, done = self.requests.pop(0)
        done(code, data or {}, "")
        return op

    def sent(self) -> list[SendDatagram]:
        """The datagrams since the last look."""
        told, self.told = self.told, []
        return [one for one in told if isinstance(one, SendDatagram)]


class Caller:
    """Keeps answers, and the descriptor that came with one."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.end: socket.socket | None = None

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> None:
        self.answers.append(answer)
        if fds:
            self.end = socket.socket(fileno=socket.dup(fds[0]))


class World:
    """One socket of a program: `end` is the program's."""

    def __init__(self) -> None:
        self.session = Session()
        self.epoll = select.epoll()
        self.all = Datagrams(self.session, self.epoll, Ends())  # type: ignore[arg-type]
        self.caller = Caller()
        self.all.open(self.caller, Call(1, "socket", 0, {"family": 2, "type": 2, "proto": 0}))
        self.session.settle(0, {"sock": 7})
        assert self.caller.end is not None
        self.end = self.caller.end
        self.end.setblocking(False)
        (self.pair,) = self.all.pairs.values()

    def turn(self) -> None:
        """A turn of the loop."""
        for fd, mask in self.epoll.poll(0):
            if fd in self.all.by_fd:
                self.all.event(self.all.by_fd[fd], mask)
        self.all.turn()

    def write(self, payload: bytes, port: int = 53) -> None:
        self.end.send(DOWN.pack(HAS_ADDRESS, REMOTE, port, -1, -1) + payload)

    def come(self, number: int, size: int = 4) -> None:
        """A datagram from the network."""
        payload = number.to_bytes(4, "big") + bytes(size - 4)
        self.all.deliver(self.pair, DatagramIn(7, number, REMOTE, 53, LOCAL, 0, 64, 1, payload))

    def call(self, op: str, **args: Any) -> None:
        self.all.call(self.caller, Call(2, op, self.pair.inode, args), self.pair)

    def connect(self) -> None:
        """It has a peer."""
        self.call("connect", address=REMOTE, port=53)
        self.session.settle()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.end.close()
    made.all.shut()
    made.epoll.close()


def test_datagrams_go_down_in_order(world: World) -> None:
    for number in range(20):
        world.write(b"%d" % number)
    world.turn()
    sent = world.session.sent()
    assert [one.payload for one in sent] == [b"%d" % number for number in range(20)]
    assert {(one.sock, one.address, one.port, one.request) for one in sent} == {(7, REMOTE, 53, 0)}


def test_one_without_an_address_goes_to_the_peer(world: World) -> None:
    world.connect()
    world.end.send(DOWN.pack(0, REMOTE, 53, 3, 9) + b"x")
    world.turn()
    (sent,) = world.session.sent()
    assert (sent.address, sent.port, sent.tos, sent.ttl) == (b"", 0, 3, 9)


@pytest.mark.parametrize("text", [b"short", b"GET / HTTP/1.0", b"\0\7" + bytes(20)])
def test_what_is_no_message_of_ours_is_left_out(world: World, text: bytes) -> None:
    """What other code writes into the descriptor goes nowhere, and is the socket's error; numbers out of range do no
    harm."""
    world.end.send(text)
    world.end.send(DOWN.pack(HAS_ADDRESS, REMOTE, 9, 30_000, -30_000) + b"x")
    world.turn()
    (sent,) = world.session.sent()
    assert (sent.tos, sent.ttl) == (255, -1)
    assert world.pair.error == errno.EBADMSG and world.end.recv(100) == Told(ERROR).pack()


def test_one_that_goes_nowhere_is_an_error(world: World) -> None:
    """A socket that other holders have taken from its peer (fork) is told that what it writes goes nowhere."""
    world.connect()
    world.call("connect", address=b"", port=0)
    world.session.settle()
    world.end.send(DOWN.pack(0, bytes(4), 0, -1, -1) + b"x")
    world.turn()
    assert not world.session.sent()
    assert world.pair.error == errno.EDESTADDRREQ and world.end.recv(100) == Told(ERROR).pack()


def test_what_was_written_before_a_connect_goes_to_the_former_peer(world: World) -> None:
    """However much that is, and whatever answers the gateway owes."""
    world.connect()
    world.pair.marks = MARKS - 1
    for number in range(BATCH + 10):
        world.end.send(DOWN.pack(0, bytes(4), 0, -1, -1) + b"%d" % number)
    world.call("connect", address=REMOTE, port=54)
    assert [one.payload for one in world.session.sent()] == [b"%d" % number for number in range(BATCH + 10)]
    assert [op for op, _, _ in world.session.requests] == ["connect"]


def test_a_fast_sender_is_held_back(world: World) -> None:
    """Each EVERY-th datagram asks for an answer; with MARKS of them missing nothing more is read."""
    written = 0
    try:
        while written < 10_000:
            world.write(b"x")
            written += 1
            for _ in range(4):
                world.turn()
    except BlockingIOError:
        pass
    assert written < 10_000, "the program never had to wait"
    assert len(world.session.sent()) == EVERY * MARKS and len(world.session.asked) == MARKS
    for _, done in world.session.asked[:]:
        done(0, {}, "")
    for _ in range(1 + EVERY * MARKS // BATCH):
        world.turn()
    assert len(world.session.sent()) == EVERY * MARKS


def test_datagrams_come_up(world: World) -> None:
    """With a header; the gateway hears once a turn of what went into the pair."""
    for number in (1, 2, 3):
        world.come(number)
    world.all.turn()
    assert told(world.end.recv(100)[: UP.size]) == Told(DATAGRAM, 0, 64, 53, REMOTE, LOCAL, 1)
    assert world.session.told == [TookDatagrams(7, 3)]


def test_the_longest_datagram_fits(world: World) -> None:
    world.come(1, MAX_PAYLOAD)
    assert len(world.end.recv(100_000)) == UP.size + MAX_PAYLOAD
    world.write(bytes(MAX_PAYLOAD))
    world.turn()
    assert len(world.session.sent()[0].payload) == MAX_PAYLOAD


def test_a_slow_reader_gives_no_credit(world: World) -> None:
    """What the pair does not hold waits, untaken; when the program reads, all of it comes, in order."""
    for number in range(1, 1001):
        world.come(number, 1000)
    world.all.turn()
    taken = world.session.told[-1].upto
    assert 0 < taken < 1000
    got: list[int] = []
    for _ in range(1000):
        try:
            got.append(int.from_bytes(world.end.recv(2000)[UP.size : UP.size + 4], "big"))
        except BlockingIOError:
            break
        world.turn()
    assert got == list(range(1, 1001))
    assert world.session.told[-1] == TookDatagrams(7, 1000)


def test_an_error_is_told_once(world: World) -> None:
    """A notice in the pair; the call "error" has the errno, and clears the gateway's SO_ERROR with it."""
    world.all.deliver(world.pair, DatagramError(7, errno.ECONNREFUSED, 3, 3, REMOTE, REMOTE, 53))
    assert world.end.recv(100)[0] == ERROR
    world.call("error")
    world.call("error")
    assert [one.data for one in world.caller.answers[1:]] == [{"errno": errno.ECONNREFUSED}, {"errno": 0}]
    assert [op for op, _, _ in world.session.requests] == ["getsockopt"]


def test_errors_without_end(world: World) -> None:
    """A program that does not read is told in the pair, and once more behind it, of whatever number of errors; what
    comes after them keeps its place."""
    error = DatagramError(7, errno.ECONNREFUSED, 3, 3, REMOTE, REMOTE, 53)
    for _ in range(5000):
        world.all.deliver(world.pair, error)
    assert len(world.pair.aside) == 1
    world.come(1)
    world.all.deliver(world.pair, error)
    assert len(world.pair.aside) == 3
    kinds = []
    with contextlib.suppress(BlockingIOError):
        for _ in range(5000):
            kinds.append(world.end.recv(100)[0])
            world.turn()
    assert kinds[-3:] == [ERROR, DATAGRAM, ERROR] and set(kinds[:-3]) == {ERROR}


def test_so_error_takes_the_error(world: World) -> None:
    world.all.deliver(world.pair, DatagramError(7, errno.ECONNREFUSED, 3, 3, REMOTE, REMOTE, 53))
    world.call("getsockopt", level=1, option=4)
    world.session.settle(0, {"value": errno.ECONNREFUSED.to_bytes(4, "little")})
    world.call("error")
    assert world.caller.answers[-1].data == {"errno": 0}


def test_a_call_comes_after_what_was_written_before_it(world: World) -> None:
    world.write(b"first")
    world.call("sendto", address=REMOTE, port=9, payload=b"second", tos=-1, ttl=-1)
    assert [one.payload for one in world.session.sent()] == [b"first", b"second"]
    world.session.asked[-1][1](errno.EACCES, {}, "")
    assert world.caller.answers[-1].errno == errno.EACCES


def test_the_last_close_sends_what_was_written(world: World) -> None:
    """Also with datagrams unread, which makes the pair show ECONNRESET first."""
    world.come(1)
    for number in range(EVERY * MARKS + 10):
        world.write(b"%d" % number)
    world.end.close()
    for _ in range(10):
        world.turn()
        for _, done in world.session.asked:
            done(0, {}, "")
        world.session.asked.clear()
    assert len(world.session.sent()) == EVERY * MARKS + 10
    assert not world.all.idle and [op for op, _, _ in world.session.requests] == ["close"]
    world.session.settle()
    assert world.all.idle


def test_a_socket_that_is_shut_both_ways_is_still_one(world: World) -> None:
    """The hang-up of shutdown(SHUT_RDWR) is no close: it has its names, and sends no more. The last close is seen."""
    world.call("shutdown", how=socket.SHUT_RDWR)
    assert world.session.settle() == "shutdown"
    world.end.shutdown(socket.SHUT_RDWR)
    world.turn()
    world.call("getsockname")
    assert world.session.settle(0, {"address": LOCAL, "port": 9}) == "getsockname"
    world.call("sendto", address=REMOTE, port=9, payload=b"late", tos=-1, ttl=-1)
    assert world.caller.answers[-1].errno == errno.EPIPE and not world.session.sent()
    world.end.close()
    world.turn()
    assert world.session.settle() == "close" and world.all.idle


def test_a_new_gateway_is_told_everything(world: World) -> None:
    """Options, port, groups and peer, in that order; what was left is no longer wanted."""
    membership = bytes([239, 1, 1, 1]) + bytes(4)
    for op, args, data in (
        ("setsockopt", {"level": 1, "option": 6, "value": 1}, {}),
        ("bind", {"address": b"", "port": 0}, {"address": bytes(4), "port": 5000}),
        ("setsockopt", {"level": 0, "option": 35, "value": membership}, {}),
        ("setsockopt", {"level": 0, "option": 35, "value": bytes([239, 2, 2, 2, 0, 0, 0, 0])}, {}),
        ("setsockopt", {"level": 0, "option": 36, "value": bytes([239, 2, 2, 2, 0, 0, 0, 0])}, {}),
        ("connect", {"address": REMOTE, "port": 53}, {}),
    ):
        world.call(op, **args)
        world.session.settle(0, data)
    world.all.renew_all()
    world.write(b"lost: nobody is there")
    world.turn()
    assert not world.session.sent()
    assert world.session.settle(0, {"sock": 8}) == "socket"
    assert [(op, args) for op, args, _ in world.session.requests] == [
        ("setsockopt", {"level": 1, "option": 6, "value": 1}),
        ("bind", {"address": bytes(4), "port": 5000}),
        ("setsockopt", {"level": 0, "option": 35, "value": membership}),
        ("connect", {"address": REMOTE, "port": 53}),
    ]
    world.session.settle()
    world.session.settle(errno.EADDRINUSE)
    assert world.end.recv(100)[0] == ERROR
    world.write(b"heard")
    world.turn()
    assert [one.sock for one in world.session.sent()] == [8]


def test_socket_fails(world: World) -> None:
    world.all.open(world.caller, Call(9, "socket", 0, {"family": 2, "type": 2, "proto": 6}))
    world.session.settle(errno.EPROTONOSUPPORT)
    assert world.caller.answers[-1].errno == errno.EPROTONOSUPPORT


@pytest.mark.parametrize(("kind", "ours"), [(2, True), (2 | 0o4000, True), (1, False), ("x", False)])
def test_whose_socket_it_is(kind: Any, ours: bool) -> None:
    assert is_datagram(Call(1, "socket", 0, {"type": kind})) is ours


# the error queue


def failure(code: int, *, kind: int = 3, payload: bytes = b"") -> DatagramError:
    return DatagramError(7, code, kind, 3, REMOTE, REMOTE, 53, 0, payload)


def test_errors_wait_for_who_asks(world: World) -> None:
    """With IP_RECVERR each is kept, oldest first, 64 at most; SO_ERROR is that of the oldest, and nothing when all are
    taken (and the gateway's is cleared then, too); without the option none is."""
    world.all.deliver(world.pair, failure(errno.ECONNREFUSED))
    world.call("errqueue")
    assert world.caller.answers[-1].errno == errno.EAGAIN
    world.call("setsockopt", level=0, option=11, value=1)
    assert world.session.settle() == "setsockopt"
    for number in range(QUEUED_ERRORS + 1):
        world.all.deliver(world.pair, failure(errno.EHOSTUNREACH, payload=b"%d" % number))
    world.all.deliver(world.pair, failure(errno.EMSGSIZE, kind=-1))
    for number in range(QUEUED_ERRORS):
        world.call("errqueue")
        answer = world.caller.answers[-1]
        assert (answer.errno, answer.data["payload"], answer.data["port"]) == (0, b"%d" % number, 53)
        assert world.pair.error == (errno.EHOSTUNREACH if number < QUEUED_ERRORS - 1 else 0)
    assert world.session.settle() == "getsockopt" and world.session.requests == []
    world.call("errqueue")
    assert world.caller.answers[-1].errno == errno.EAGAIN


def test_without_the_option_the_queue_is_emptied(world: World) -> None:
    """As Linux does when IP_RECVERR goes off, given as an int or as bytes."""
    for off in (0, bytes(4)):
        world.call("setsockopt", level=0, option=11, value=b"\1\0\0\0")
        world.session.settle()
        world.all.deliver(world.pair, failure(errno.ECONNREFUSED))
        assert world.pair.errors
        world.call("setsockopt", level=0, option=11, value=off)
        world.session.settle()
        assert not world.pair.errors


def test_all_that_was_written_before_a_connect(world: World) -> None:
    """As much as a pair holds, whatever answers are missing: it goes before the connect, to where there was a way."""
    world.connect()
    world.pair.marks = MARKS
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            world.end.send(DOWN.pack(0, REMOTE, 0, -1, -1))
            count += 1
    assert count > 2 * BATCH
    world.session.requests.clear()
    world.call("connect", address=LOCAL, port=53)
    assert len(world.session.sent()) == count and [op for op, *_ in world.session.requests] == ["connect"]
