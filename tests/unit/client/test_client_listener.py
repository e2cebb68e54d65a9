"""Readiness bytes of listeners: one for each connection that waits, also when a process dies that took one."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from levelip.client.calls import REDEEMED_S, Calls
from levelip.client.control import Call
from levelip.client.ends import unread
from levelip.client.pump import Pair, Pump
from tests.unit.client.test_client_early import Session
from tests.unit.client.test_client_renew import Caller


class World:
    """A listener, whose end at the program is `theirs`, with one connection that waits; two processes have it."""

    def __init__(self, epoll: select.epoll) -> None:
        self.session: Any = Session()
        pump = Pump(self.session, epoll)
        self.calls = Calls(self.session, pump, epoll, lambda: ())
        ours, self.theirs = socket.socketpair()
        self.theirs.setblocking(False)
        self.pair = Pair(ours, os.fstat(self.theirs.fileno()).st_ino, (2, 1, 6), 7)
        self.pair.listening = True
        self.calls.pairs[self.pair.inode] = self.calls.by_fd[self.pair.fd] = self.calls.by_gid[7] = self.pair
        self.calls.pids[1] = self.calls.pids[2] = 1
        self.calls.pending(self.pair, 1)
        assert self.theirs.recv(9) == b"\0"

    def accept(self) -> None:
        """The call that redeems a byte."""
        self.calls.call(Caller(there=True), Call(1, "accept", self.pair.inode, {}), [])

    def sweep(self, after: float) -> float | None:
        """What is due so many seconds later."""
        return self.calls.sweep(time.monotonic() + after)

    @property
    def readable(self) -> bool:
        """Whether the program's end has a byte."""
        assert self.pair.end is not None
        return unread(self.pair.end)


@pytest.fixture
def world() -> Iterator[World]:
    with select.epoll() as epoll:
        made = World(epoll)
        yield made
        made.theirs.close()
        made.calls.shut()


def test_who_took_it_is_dead(world: World) -> None:
    """Nobody redeems it for a second: the others are told anew."""
    world.calls.leave(2)
    assert world.sweep(0) is not None and not world.readable
    assert world.sweep(REDEEMED_S + 0.1) is None
    assert world.theirs.recv(9) == b"\0" and world.pair.tokens == 1


def test_who_took_it_is_alive(world: World) -> None:
    """Another process ends while the accept() is on its way: there is no byte too many, for which the next accept()
    would wait."""
    world.calls.leave(2)
    world.accept()
    assert world.sweep(REDEEMED_S + 0.1) is None
    assert not world.readable and world.pair.tokens == 0


def test_accepts_go_on(world: World) -> None:
    """As long as bytes are redeemed one more may be on its way; a second without puts it right."""
    world.calls.pending(world.pair, 2)
    assert world.theirs.recv(9) == b"\0"
    world.calls.leave(2)
    world.accept()
    assert world.sweep(REDEEMED_S + 0.1) is not None and not world.readable
    assert world.pair.tokens == 1
    assert world.sweep(2 * REDEEMED_S + 0.2) is None
    assert world.readable


def test_a_byte_that_is_there_is_in_no_doubt(world: World) -> None:
    """Nor is a listener that is closed."""
    world.calls.pending(world.pair, 2)
    world.calls.leave(2)
    assert world.sweep(0) is None
    assert world.theirs.recv(9) == b"\0"
    world.calls.leave(1)
    world.pair.listening = False
    assert world.sweep(0) is None
