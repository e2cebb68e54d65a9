"""A connect() after one that failed unwatched: the program gets another pair, or keeps what it has."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

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


def test_who_was_interrupted_tries_again() -> None:
    """Nothing has changed for it: its old end is known, and the next connect() has the new pair."""
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
        before = pair.inode

        def connect(caller: Caller) -> None:
            args = {"wait": True, "nonblocking": True, "address": b"", "port": 1}
            calls.call(caller, Call(1, "connect", pair.inode, args), [])

        gone, there = Caller(there=False), Caller(there=True)
        connect(gone)
        assert gone.answers[0].data == {"renew": True}
        assert calls.pairs == {before: pair} and not calls.by_fd and pair in calls.endings.orphaned
        assert pair.failed and pair.told and pair.end is None
        connect(there)
        assert there.answers[0].data == {"renew": True} and not session.asked
        assert list(calls.pairs) == [os.fstat(there.fd).st_ino] != [before]
        assert not pair.failed and pair.end is not None and pair not in calls.endings.orphaned
        pump.forget(pair)
        os.close(there.fd)
        theirs.close()
        calls.shut()
