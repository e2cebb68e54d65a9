"""Datagram sockets of an unmodified program: bare pairs, whose last close inotify tells; errors show at its end."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.client.ancillary import Wish
from levelip.client.closes import Closes
from levelip.client.control import Call
from levelip.client.datagramformat import MAX_PAYLOAD
from levelip.client.datagrams import DOUBT_S, EVERY, MARKS, SWEEP_S, UNSENT_MOST, DatagramPair, Datagrams, Pending
from levelip.client.ends import Ends
from levelip.rpc.messages import DatagramError, DatagramIn
from levelip.run.tags import Tags, clear, shows
from tests.unit.client.test_client_closes import overflow
from tests.unit.client.test_client_datagrams import Caller, Session

KIND = {"family": 2, "type": 2, "proto": 17}
REMOTE = b"\x0a\0\0\1"
IN, OUT, ERR = select.POLLIN, select.POLLOUT, select.POLLERR


class World:
    """One connected socket: `end` is the program's, which the helper may borrow."""

    def __init__(self, *, watched: bool = True) -> None:
        self.session = Session()
        self.epoll = select.epoll()
        self.all = Datagrams(self.session, self.epoll, Ends())  # type: ignore[arg-type]
        if not watched:
            self.all.closes = Unwatched(self.epoll)
        self.all.framing = Tags(lambda _: self.end.dup(), self.all.drain)
        caller = Caller()
        self.all.open(caller, Call(1, "socket", 0, dict(KIND)))
        self.session.settle(0, {"sock": 7})
        assert caller.end is not None
        self.end = caller.end
        self.end.setblocking(False)
        (self.pair,) = self.all.pairs.values()
        self.connect(REMOTE)

    def connect(self, address: bytes) -> None:
        """It gets a peer; no address: none any more."""
        call = Call(2, "connect", self.pair.inode, {"address": address, "port": 53 if address else 0})
        self.all.call(Caller(), call, self.pair)
        assert self.session.settle() == "connect"

    def come(self, payload: bytes) -> None:
        """A datagram from the network."""
        self.all.deliver(self.pair, DatagramIn(7, 0, REMOTE, 53, b"\x0a\0\0\2", 0, 64, 1, payload))

    def mask(self) -> int:
        """What poll says of the program's end."""
        poll = select.poll()
        poll.register(self.end, IN | OUT)
        return poll.poll(0)[0][1]

    def turn(self) -> None:
        """A turn of the loop."""
        for fd, mask in self.epoll.poll(0):
            if fd in self.all.by_fd:
                self.all.event(self.all.by_fd[fd], mask)
            elif fd == self.all.closes.fd:
                self.all.closed()
        self.all.turn()

    def fail(self, code: int = errno.ECONNREFUSED) -> None:
        """An ICMP error comes."""
        self.all.deliver(self.pair, DatagramError(7, code, 3, 3, b"", b"", 0))

    def sent(self) -> list[bytes]:
        """Payloads that the gateway was given since the last look."""
        return [bytes(one.payload) for one in self.session.sent()]


class Unwatched(Closes[DatagramPair]):
    """The user has too many watches."""

    def watch(self, fd: int, owner: DatagramPair) -> int | None:
        return None


@pytest.fixture(params=[True, False], ids=["watched", "looked for"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(watched=request.param)
    yield made
    made.end.close()
    made.all.shut()
    made.epoll.close()


def test_the_last_close(world: World) -> None:
    """What was written before goes yet, then the socket is closed, and not before; empty datagrams are no end."""
    copy = world.end.dup()
    world.end.send(b"first")
    world.end.send(b"")
    world.end.close()
    world.turn()
    world.all.sweep(1.0)
    assert world.sent() == [b"first", b""] and not world.session.requests
    copy.send(b"last")
    copy.close()
    world.turn()
    assert world.all.sweep(2.0) is None
    assert world.sent() == [b"last"]
    assert world.session.settle() == "close" and world.all.idle


def test_a_close_behind_a_queue(world: World) -> None:
    """Where the gateway owes answers, all that was written goes before the close."""
    count = EVERY * MARKS + 20
    for number in range(count):
        world.end.send(b"%d" % number)
        world.turn()
    world.end.close()
    world.turn()
    world.all.sweep(1.0)
    assert len(world.sent()) == EVERY * MARKS and not world.session.requests
    for _, done in world.session.asked:
        done(0, {}, "")
    world.turn()
    assert world.sent() == [b"%d" % number for number in range(EVERY * MARKS, count)]
    assert [op for op, _, _ in world.session.requests] == ["close"]


def test_an_error_keeps_what_was_written(world: World) -> None:
    """It shows at once, and datagrams that wait for credit keep their order."""
    for number in range(EVERY * MARKS):
        world.end.send(b"%d" % number)
        world.turn()
    world.end.send(b"before")
    world.turn()
    world.fail()
    assert shows(world.end) and world.pair.error == errno.ECONNREFUSED
    with pytest.raises(ConnectionResetError):
        world.end.send(b"told")
    world.end.send(b"after")
    world.turn()
    assert len(world.sent()) == EVERY * MARKS
    for _, done in world.session.asked:
        done(0, {}, "")
    world.turn()
    assert world.sent() == [b"before", b"after"]


def test_an_error_behind_too_much(world: World) -> None:
    """What a fast sender has written is not thrown away for the sake of showing an error, which calls tell all the
    same."""
    world.pair.marks = MARKS
    for number in range(UNSENT_MOST):
        world.pair.unsent.append(b"%d" % number)
    world.end.send(b"last")
    world.fail()
    assert not shows(world.end) and world.pair.error == errno.ECONNREFUSED
    world.pair.marks = 0
    for _ in range(20):
        world.turn()
        waiting: list[Any] = list(world.session.asked)
        world.session.asked.clear()
        for _, done in waiting:
            done(0, {}, "")
    assert world.sent() == [b"%d" % number for number in range(UNSENT_MOST)] + [b"last"]


def test_a_datagram_in_parts(world: World) -> None:
    """What the program writes is added to what is pending, with the first part's destination and wishes, and goes with
    it; under UDP_CORK nothing goes before that is taken out; what gets too long is thrown away."""
    pending = Pending((REMOTE, 53), Wish(16, 9, b"\x0a\0\0\2"), b"head ")
    world.pair.pending = pending
    world.end.send(b"body")
    world.end.send(b"alone")
    world.turn()
    first, second = world.session.sent()
    assert (first.address, first.port, first.tos, first.ttl, first.source) == (*pending.where, 16, 9, b"\x0a\0\0\2")
    assert (first.payload, second.payload, second.address) == (b"head body", b"alone", b"")
    world.pair.corks = True
    for part in (b"one ", b"", b"two"):
        world.end.send(part)
    world.turn()
    assert not world.sent()
    world.all.flush(world.pair)
    world.all.flush(world.pair)
    assert world.sent() == [b"one two"]
    world.pair.pending = pending._replace(payload=bytes(MAX_PAYLOAD))
    world.end.send(b"x")
    world.turn()
    assert world.pair.pending is None and not world.sent()


def refused(world: World) -> bool:
    """Whether each way to write without a destination is refused, and nothing of it comes."""
    for write in (world.end.send, lambda data: os.write(world.end.fileno(), data), lambda data: os.writev(
        world.end.fileno(), [data, data]
    )):  # fmt: skip
        with contextlib.suppress(PermissionError):
            write(b"nowhere")
            return False
    world.turn()
    return not world.sent() and not world.pair.error


def test_a_write_without_a_destination(world: World) -> None:
    """It is refused and nothing is lost; what comes, comes whatever the socket is connected to, more than
    net.unix.max_dgram_qlen of it, and nobody else can send there. What lay there before and what was written before a
    connect() or its taking back is not lost by that."""
    world.connect(b"")
    assert refused(world) and world.mask() == OUT
    for number in range(50):
        world.come(b"%d" % number)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, pytest.raises(PermissionError):
        stranger.sendto(b"forged", world.pair.name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger, pytest.raises(BrokenPipeError):
        stranger.sendto(b"for nobody", world.pair.end.getpeername())
    assert world.mask() == IN | OUT
    world.connect(REMOTE)
    world.end.send(b"taken")
    world.connect(b"")
    assert world.sent() == [b"taken"]
    assert refused(world) and world.mask() == IN | OUT
    assert [world.end.recv(9) for _ in range(50)] == [b"%d" % number for number in range(50)]
    world.connect(REMOTE)
    world.connect(b"\x0a\0\0\3")
    world.end.send(b"")
    world.turn()
    assert world.sent() == [b""]


def test_a_write_that_adds_to_a_datagram(world: World) -> None:
    """While one is begun there is a destination, and afterwards none; what slips in between is the socket's error."""
    world.connect(b"")
    world.pair.pending = Pending((REMOTE, 53), Wish(), b"head ")
    world.all.admit(world.pair)
    world.end.send(b"body")
    world.end.send(b"too fast")
    world.turn()
    assert world.sent() == [b"head body"]
    assert world.pair.error == errno.EDESTADDRREQ and shows(world.end)
    clear(world.end)
    world.pair.error = 0
    assert refused(world)


def test_an_error_of_one_without_a_peer(world: World) -> None:
    """It shows as of others (IP_RECVERR), and again; what has come stays, and a write is refused as before."""
    world.connect(b"")
    for _ in range(2):
        world.come(b"stays")
        world.fail()
        assert world.mask() == IN | OUT | ERR
        with pytest.raises(ConnectionResetError):
            world.end.send(b"told")
        assert world.end.recv(9) == b"stays" and world.mask() == OUT
        world.pair.error = 0
        assert refused(world)


@pytest.mark.parametrize("peer", [REMOTE, b""], ids=["connected", "unconnected"])
def test_an_error_after_a_shutdown(world: World, peer: bytes) -> None:
    """The program sends no more (socat does so at the end of its input), and hears errors about what it sent."""
    world.connect(peer)
    world.end.shutdown(socket.SHUT_WR)
    for _ in range(2):
        world.come(b"stays")
        world.fail()
        assert world.mask() == IN | OUT | ERR
        with pytest.raises(ConnectionResetError):
            world.end.recv(9)
        assert world.end.recv(9) == b"stays" and world.mask() == OUT


def test_a_verdict_that_comes_too_late(world: World) -> None:
    """The program closes while the gateway takes its connect() back: nothing is left to refuse."""
    call = Call(2, "connect", world.pair.inode, {"address": b"", "port": 0})
    world.all.call(Caller(), call, world.pair)
    world.end.close()
    world.turn()
    world.all.sweep(1.0)
    assert not world.all.pairs
    assert world.session.settle() == "connect"


def test_a_close_that_was_told_amid_too_many(tmp_path: Path) -> None:
    """inotify's queue had no room for it: the socket is looked for, at once and from then on, and does not stay."""
    world = World()
    world.turn()
    overflow(world.all.closes, tmp_path)
    world.end.send(b"last")
    world.end.close()
    world.turn()
    now = time.monotonic()
    assert world.all.closes.fd >= 0 and world.all.sweep(now) is None
    assert world.sent() == [b"last"] and world.all.pairs == {}
    assert [op for op, *_ in world.session.requests] == ["close"]
    world.all.shut()
    world.epoll.close()


def test_one_that_stays_open_amid_too_many(tmp_path: Path) -> None:
    """It is looked for in the next seconds, and told at once all the same when it is closed."""
    world = World()
    overflow(world.all.closes, tmp_path)
    world.turn()
    now = time.monotonic()
    later = world.all.sweep(now)
    assert later is not None and world.all.pairs and not world.pair.hung_up
    world.end.close()
    world.turn()
    assert world.all.pairs == {} and world.all.sweep(later) is None
    world.all.shut()
    world.epoll.close()


def test_doubt_ends(tmp_path: Path) -> None:
    """After an overflow a socket that stays open is looked for in the next seconds and no longer; after another one,
    again. Its close is told."""
    world = World()
    for start in (1000.0, 2000.0):
        overflow(world.all.closes, tmp_path)
        world.turn()
        now, looks = start, 0
        while (later := world.all.sweep(now)) is not None:
            looks += 1
            assert now < later <= start + DOUBT_S + SWEEP_S
            now = later
        assert looks > 2 and world.all.pairs and not world.pair.hung_up
    world.end.close()
    world.turn()
    assert world.all.pairs == {}
    world.all.shut()
    world.epoll.close()


def test_what_cannot_be_watched_is_looked_for_always() -> None:
    """A doubt about others ends nothing of that."""
    world = World(watched=False)
    for now in (0.0, 1000.0, 1_000_000.0):
        assert world.all.sweep(now) == now + SWEEP_S
    world.end.close()
    assert world.all.sweep(2_000_000.0) is None and world.all.pairs == {}
    world.all.shut()
    world.epoll.close()
