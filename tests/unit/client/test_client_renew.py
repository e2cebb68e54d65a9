"""What follows a connect() that failed unwatched: the program gets another pair, or keeps what it has."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from levelip.client.calls import Calls
from levelip.client.control import Answer, Call
from levelip.client.pump import Pair, Pump
from tests.unit.client.test_client_early import Session


class Caller:
    """Takes what it is given, or was interrupted by a signal."""

    pid = 1

    def __init__(self, *, there: bool) -> None:
        self.there = there
        self.answers: list[Answer] = []
        self.fd = -1

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> bool:
        """As connecting.Caller."""
        self.answers.append(answer)
        if self.there and fds:
            self.fd = os.dup(fds[0])
        return self.there


@dataclass
class World:
    """A socket of a program, whose end is `theirs`, after a connect that failed unwatched and was told: our end is
    closed."""

    calls: Calls
    session: Any
    pair: Pair
    theirs: socket.socket

    def call(self, caller: Caller, op: str, **args: Any) -> None:
        """A call of the program."""
        self.calls.call(caller, Call(1, op, self.pair.inode, args), [])


@pytest.fixture
def world() -> Iterator[World]:
    with select.epoll() as epoll:
        session: Any = Session()
        pump = Pump(session, epoll)
        calls = Calls(session, pump, epoll, lambda: ())
        ours, theirs = socket.socketpair()
        pair = Pair(ours, os.fstat(theirs.fileno()).st_ino, (2, 1, 6), 7)
        calls.pairs[pair.inode] = calls.by_fd[pair.fd] = calls.by_gid[7] = pair
        pump.watch(pair)
        calls.endings.part(pair)
        pair.failed = pair.told = True
        yield World(calls, session, pair, theirs)
        if pair.end is not None:
            pump.forget(pair)
        theirs.close()
        calls.shut()


def test_who_was_interrupted_tries_again(world: World) -> None:
    """Nothing has changed for it: its old end is known, and the next connect() has the new pair."""
    calls, pair, before = world.calls, world.pair, world.pair.inode
    args = {"wait": True, "nonblocking": True, "address": b"\x0a\0\0\1", "port": 1}
    gone, there = Caller(there=False), Caller(there=True)
    world.call(gone, "connect", **args)
    assert gone.answers[0].data == {"renew": True}
    assert calls.pairs == {before: pair} and not calls.by_fd and pair in calls.endings.orphaned
    assert pair.failed and pair.told and pair.end is None
    world.call(there, "connect", **args)
    assert there.answers[0].data == {"renew": True} and not world.session.asked
    assert list(calls.pairs) == [os.fstat(there.fd).st_ino] != [before]
    assert not pair.failed and pair.end is not None and pair not in calls.endings.orphaned
    os.close(there.fd)


def test_a_listener_needs_a_new_pair_too(world: World) -> None:
    """listen() after a failed connect has one first, and then goes to the gateway."""
    caller = Caller(there=True)
    world.call(caller, "listen", backlog=5)
    assert caller.answers[0].data == {"renew": True} and not world.session.asked
    assert list(world.calls.pairs) == [os.fstat(caller.fd).st_ino]
    world.call(caller, "listen", backlog=5)
    assert [op for op, _, _ in world.session.sent()] == ["listen"]
    os.close(caller.fd)


def test_a_close_does_not_wait_for_other_holders(world: World) -> None:
    """Though our end is closed, and tells of no hang-up: whoever closes one of two copies is answered at once, and who
    closes the last one when the gateway has closed the socket."""
    first, last = Caller(there=True), Caller(there=True)
    world.call(first, "linger")
    assert [answer.errno for answer in first.answers] == [0]
    world.theirs.close()
    world.call(last, "linger")
    assert not last.answers
    world.calls.endings.sweep(1e9)
    assert [op for op, _, _ in world.session.sent()] == ["close"]
    world.session.answer()
    assert [answer.errno for answer in last.answers] == [0]


@pytest.mark.parametrize(
    ("code", "over"), [(errno.ECONNRESET, True), (errno.ECONNABORTED, True), (errno.EISCONN, False)]
)
def test_a_connection_whose_end_connect_told(world: World, code: int, over: bool) -> None:
    """It is forgotten, with all that was under way, and the next connect() or listen() has a new pair; where connect()
    had told that it was there, it stays what it was."""
    pair = world.pair
    pair.connected, pair.failed, pair.told = True, False, False
    pair.sent = pair.received = pair.limit = 5
    pair.shut, pair.finished = 2, True
    world.calls.endings.reset(pair, errno.ECONNRESET)
    assert pair.dead
    args = {"wait": False, "nonblocking": True, "address": b"\x0a\0\0\1", "port": 1}
    caller = Caller(there=True)
    world.call(caller, "connect", **args)
    for done in world.session.asked:
        done(code, {}, "")
    world.session.asked.clear()
    assert [answer.errno for answer in caller.answers] == [code]
    assert pair.dead is not over and pair.failed is over
    world.call(caller, "connect", **args)
    if not over:
        assert world.session.asked and len(caller.answers) == 1
        return
    assert caller.answers[1].data == {"renew": True} and not world.session.asked
    assert (pair.sent, pair.received, pair.limit, pair.shut, pair.finished, pair.dead) == (0, 0, 0, 0, False, False)
    assert list(world.calls.pairs) == [os.fstat(caller.fd).st_ino]
    os.close(caller.fd)


def connected(world: World, *, known: bool) -> Pair:
    """A connection that has just been reset; `known`: connect() had said that it was there."""
    pair = world.pair
    pair.connected, pair.failed, pair.told, pair.known = True, False, False, known
    world.calls.endings.reset(pair, errno.ECONNRESET)
    return pair


@pytest.mark.parametrize("failed", [False, True], ids=["a connection that ended", "a connect that failed"])
def test_a_second_thread_waits_for_what_the_first_one_is_told(world: World, failed: bool) -> None:
    """The gateway tells once what ended it, and connects the next time: a connect of another thread that comes
    meanwhile gets a new pair first, so that its connection is known here."""
    pair = world.pair if failed else connected(world, known=False)
    if failed:
        pair.told = False
    args = {"wait": True, "nonblocking": False, "address": b"\x0a\0\0\1", "port": 1}
    first, second, third = (Caller(there=True) for _ in range(3))
    world.call(first, "connect", **args)
    world.call(second, "connect", **args)
    world.call(third, "connect", **args)
    assert world.calls.connecting.give_up(third, 1, pair) and not world.calls.connecting.give_up(third, 1, pair)
    (done,) = world.session.asked
    world.session.asked.clear()
    done(errno.ECONNREFUSED, {}, "")
    assert [answer.errno for answer in first.answers] == [errno.ECONNREFUSED]
    assert second.answers[0].data == {"renew": True} and not third.answers
    assert list(world.calls.pairs) == [os.fstat(second.fd).st_ino]
    world.call(second, "connect", **args)
    assert len(world.session.asked) == 1 and pair.connecting
    os.close(second.fd)


@pytest.mark.parametrize(
    ("known", "read", "told"),
    [
        (False, False, errno.ECONNRESET),
        (False, True, errno.ECONNABORTED),
        (True, False, errno.EISCONN),
    ],
)
def test_a_connection_that_died_with_its_gateway(world: World, known: bool, read: bool, told: int) -> None:
    """What connect() says of it is known here, as a new gateway would connect at once: as on Linux what ended it, if no
    call has said so (`read`), and the next one begins another; EISCONN where connect() had said that it was there."""
    pair = connected(world, known=known)
    world.calls.renew_all()
    world.session.asked.clear()
    if read:
        pair.error = 0
    args = {"wait": True, "nonblocking": True, "address": b"\x0a\0\0\1", "port": 1}
    caller, other = Caller(there=True), Caller(there=True)
    world.call(caller, "connect", **args)
    world.call(other, "connect", **args)
    assert not world.session.asked
    assert [answer.errno for answer in caller.answers] == [told]
    assert [(answer.errno, answer.data) for answer in other.answers] == [
        (told, {}) if known else (0, {"renew": True})
    ]  # fmt: skip
    if not known:
        os.close(other.fd)


@pytest.mark.parametrize(("named", "port"), [(True, 4000), (False, 0)])
def test_what_it_was_bound_to_is_kept(world: World, named: bool, port: int) -> None:
    """By a new gateway, too: address and port, but no port that bind() chose (Linux, inet_put_port in tcp_done), for
    whoever connects anew."""
    world.call(Caller(there=True), "bind", address=b"\x0a\0\0\1", port=4000 if named else 0)
    for done in world.session.asked:
        done(0, {"address": b"\x0a\0\0\1", "port": 4000}, "")
    connected(world, known=False)
    world.session.asked.clear()
    world.calls.renew_all()
    asked: list[tuple[str, Any]] = []
    world.session.request = lambda op, target, args, done, **_: asked.append((op, args))
    world.session.release = lambda: None
    (made,) = world.session.asked
    made(0, {"sock": 8}, "")
    assert asked == [("bind", {"address": b"\x0a\0\0\1", "port": port})]


NOBODY = {"address": b"", "port": 0}


def reconnected(world: World) -> Pair:
    """A connection under way: our end is open again, and what it sends is announced."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    pair = world.pair
    pair.end, pair.fd, pair.failed, pair.told = ours, ours.fileno(), False, False
    del world.calls.pairs[pair.inode]
    world.theirs.close()
    world.theirs = theirs
    pair.inode = os.fstat(theirs.fileno()).st_ino
    world.calls.pairs[pair.inode] = world.calls.by_fd[pair.fd] = pair
    world.calls.endings.orphaned.discard(pair)
    world.calls._pump.watch(pair)
    return pair


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_a_connection_that_is_dissolved(world: World, single: bool, bound: bool) -> None:
    """connect() with AF_UNSPEC: its end is closed at once, and when the gateway has answered the program has another
    one, whose stream begins at 0. It is no pair's if that was asked for and no port is bound."""
    pair = reconnected(world)
    before = pair.inode
    pair.connected, pair.sent, pair.received, pair.limit = True, 5, 5, 9
    pair.bound, pair.chosen = (bytes(4), 80), bound
    caller = Caller(there=True)
    world.call(caller, "connect", **NOBODY, **({"single": True} if single else {}))
    assert not caller.answers and pair.end is None and not pair.connected
    assert world.theirs.recv(1) == b""
    world.calls.endings.reset(pair, errno.ECONNRESET)
    assert not pair.dead, "a reset that crosses it is of no meaning"
    world.session.answer()
    assert [(answer.errno, answer.data) for answer in caller.answers] == [(0, {"renew": True})]
    assert list(world.calls.pairs) == [pair.inode] == [os.fstat(caller.fd).st_ino] != [before]
    assert (pair.sent, pair.received, pair.limit, pair.failed) == (0, 0, 0, False)
    assert pair.single == (pair.end is None) == (single and not bound)
    assert pair.bound == ((bytes(4), 80) if bound else None)
    assert (pair in world.calls.endings.orphaned) == pair.single
    os.close(caller.fd)


def test_nothing_to_dissolve(world: World) -> None:
    """A socket that never had a peer keeps its end; the gateway, which may know of more, is asked all the same."""
    pair = reconnected(world)
    caller = Caller(there=True)
    world.call(caller, "connect", **NOBODY)
    world.session.answer()
    assert [(answer.errno, answer.data) for answer in caller.answers] == [(0, {})] and pair.end is not None


def test_who_was_interrupted_dissolves_again(world: World) -> None:
    """It has its old end still, which is over; the same call once more brings the new one."""
    pair = reconnected(world)
    pair.connected = True
    gone, there = Caller(there=False), Caller(there=True)
    world.call(gone, "connect", **NOBODY, single=True)
    world.session.answer()
    assert list(world.calls.pairs) == [os.fstat(world.theirs.fileno()).st_ino] == [pair.inode]
    assert pair.failed and pair.told and not pair.single
    world.call(there, "connect", **NOBODY, single=True)
    world.session.answer()
    assert list(world.calls.pairs) == [os.fstat(there.fd).st_ino] and pair.single
    os.close(there.fd)


def test_a_listener_that_is_dissolved(world: World) -> None:
    """Who waits for a connection on its old end is told that there is none, not of a reset."""
    pair = reconnected(world)
    caller = Caller(there=True)
    pair.listening, pair.tokens, pair.counted = True, 1, 1
    world.calls.connecting.stuff(pair, world.theirs)
    world.call(caller, "connect", **NOBODY)
    world.session.answer()
    assert world.theirs.recv(1) == b""
    assert (pair.listening, pair.tokens, pair.counted) == (False, 0, 0)
    os.close(caller.fd)


def test_a_dissolved_socket_whose_program_has_ended(world: World) -> None:
    """It is closed, whatever the gateway answers then."""
    pair = reconnected(world)
    pair.connected = True
    caller = Caller(there=False)
    world.call(caller, "connect", **NOBODY)
    world.theirs.close()
    world.calls.endings.sweep(1e9)
    assert pair.closing and not world.calls.pairs
    world.session.answer()
    assert not world.calls.pairs and world.calls.idle


@pytest.mark.parametrize("whole", [False, True])
def test_whom_a_reset_is_told(world: World, whole: bool) -> None:
    """Once; but if the peer's stream had ended before it not those that read, who leave it to the others (Linux)."""
    world.pair.error, world.pair.whole = errno.ECONNRESET, whole
    caller = Caller(there=True)
    for reads in (True, False, False):
        world.call(caller, "error", reads=reads)
    said = [answer.data["errno"] for answer in caller.answers]
    assert said == ([0, errno.ECONNRESET, 0] if whole else [errno.ECONNRESET, 0, 0])
