"""Options that the helper answers before the gateway has: which, how many, and in what order all goes out."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from levelip.client.calls import CORK, EARLY_MOST, EARLY_OF_ALL, FLAGS, Calls
from levelip.client.control import Answer, Call
from levelip.client.pump import Pair, Pump
from levelip.rpc.stream import Eof, Send

RING = 4096
ON, OFF = struct.pack("=i", 1), struct.pack("=i", 0)


class Session:
    """What goes out, in its order; a request is answered when the test says so."""

    name = "a" * 32
    is_open = True

    def __init__(self) -> None:
        self.memory = self
        self.bytes = memoryview(bytearray(2 * RING))
        self.outbox: list[Any] = []
        self.asked: list[Any] = []

    def ring(self, base: int, size: int) -> memoryview:
        """As SessionMemory.ring."""
        return self.bytes[base : base + size]

    def request(self, op: str, target: Any, args: dict[str, Any], done: Any, *, internal: bool = False) -> None:
        """As Session.request."""
        self.outbox.append((op, args.get("option"), args.get("value")))
        self.asked.append(done)

    def sent(self) -> list[Any]:
        """What has gone out since the last call."""
        out, self.outbox = self.outbox, []
        return out

    def answer(self) -> None:
        """The gateway answers all."""
        asked, self.asked = self.asked, []
        for done in asked:
            done(0, {}, "")


class Program:
    """A caller, and the program's end of one connected pair."""

    pid = 1

    def __init__(self) -> None:
        self.session = Session()
        epoll = select.epoll()
        pump = Pump(self.session, epoll)  # type: ignore[arg-type]
        self.calls = Calls(self.session, pump, epoll, lambda: ())  # type: ignore[arg-type]
        self.answers: list[int] = []
        self.pump = pump
        self.pairs = [self.pair()]
        epoll.close()

    def pair(self) -> tuple[Pair, socket.socket]:
        """One more connection."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pair = Pair(ours, theirs.fileno(), (2, 1, 6), 7)
        rings = [self.session.name, 0, RING, RING, RING]
        names = {"local_address": b"", "local_port": 1, "remote_address": b"", "remote_port": 2}
        self.pump.establish(pair, {**names, "rings": rings, "limit": RING})
        self.calls.pairs[pair.inode] = pair
        return pair, theirs

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> bool:
        """As Caller."""
        self.answers.append(answer.errno)
        return True

    def set(self, key: tuple[int, int], value: bytes, number: int = 0) -> bool:
        """setsockopt; whether it was answered at once."""
        before = len(self.answers)
        args = {"level": key[0], "option": key[1], "value": value}
        self.calls.call(self, Call(1, "setsockopt", self.pairs[number][0].inode, args), [])
        return len(self.answers) > before


@pytest.fixture
def program() -> Iterator[Program]:
    """One connection."""
    made = Program()
    yield made
    for pair, theirs in made.pairs:
        assert pair.end is not None
        pair.end.close()
        theirs.close()


def test_flags_are_answered_and_told(program: Program) -> None:
    """A flag that every socket takes is answered at once; the gateway hears of each, in the order of the calls."""
    for key in sorted(FLAGS - {CORK}):
        assert program.set(key, ON)
    assert program.session.sent() == [("setsockopt", key[1], ON) for key in sorted(FLAGS - {CORK})]
    assert program.answers == [0] * (len(FLAGS) - 1)


def test_what_may_be_refused_is_not(program: Program) -> None:
    """Other options, and values too short, are the gateway's to judge."""
    for key, value in (((6, 4), ON), ((1, 7), ON), ((6, 1), b"\1"), (CORK, b"")):
        assert not program.set(key, value)
    program.session.answer()
    assert program.answers == [0] * 4


def test_not_without_bound(program: Program) -> None:
    """A gateway that does not answer is waited for, of one socket after EARLY_MOST, of all after EARLY_OF_ALL."""
    nodelay = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert [program.set(nodelay, ON) for _ in range(EARLY_MOST + 1)] == [True] * EARLY_MOST + [False]
    program.session.answer()
    assert program.set(nodelay, ON)
    program.session.answer()
    program.pairs += [program.pair() for _ in range(EARLY_OF_ALL // EARLY_MOST)]
    early = [program.set(nodelay, ON, number) for number in range(len(program.pairs)) for _ in range(EARLY_MOST)]
    assert early == [True] * EARLY_OF_ALL + [False] * EARLY_MOST
    program.session.is_open = False
    program.session.answer()
    assert not program.set(nodelay, ON), "nobody is there to be told"


def test_an_answer_under_a_cork(program: Program) -> None:
    """Cork, two writes, cork out: one Send, and no word of the cork; each write goes before what is called after it."""
    (pair, theirs) = program.pairs[0]
    assert program.set(CORK, ON)
    theirs.send(b"head")
    theirs.send(b"body")
    assert program.set(CORK, OFF)
    assert program.session.sent() == [Send(7, 0, 8)]
    assert pair.options[CORK] == OFF
    assert program.set(CORK, OFF), "of one that was not in the gateway is told, as it pushes"
    assert program.session.sent() == [("setsockopt", socket.TCP_CORK, OFF)]


def test_a_question_under_a_cork(program: Program) -> None:
    """What pushes (TCP_NODELAY) comes after the cork and the bytes that it holds back; what asks, after the cork."""
    nodelay = (socket.IPPROTO_TCP, socket.TCP_NODELAY)
    (pair, theirs) = program.pairs[0]
    question = Call(1, "getsockopt", pair.inode, {"level": CORK[0], "option": CORK[1]})
    for call, expected in (
        (lambda: program.set(nodelay, ON), ["setsockopt", Send, "setsockopt"]),
        (lambda: program.calls.call(program, question, []), ["setsockopt", "getsockopt"]),
    ):
        assert program.set(CORK, ON)
        theirs.send(b"word")
        program.session.sent()
        call()
        sent = program.session.sent()
        assert [what[0] if isinstance(what, tuple) else type(what) for what in sent] == expected
        assert sent[0] == ("setsockopt", socket.TCP_CORK, 1) and pair.corked
        assert program.set(CORK, OFF)
        assert program.session.sent()[-1] == ("setsockopt", socket.TCP_CORK, OFF), "the gateway knows of it by then"
        program.session.answer()


def test_what_is_written_with_more(program: Program) -> None:
    """MSG_MORE holds back until something is written without it: here at first, then in the gateway; a TCP_CORK of the
    program's own goes on, and getsockopt tells of that alone."""
    (pair, theirs) = program.pairs[0]
    cork, at = socket.TCP_CORK, 0

    def write(data: bytes, *, more: bool) -> list[Any]:
        nonlocal at
        theirs.send(data)
        if more:
            program.calls.more(pair)
        pair.readable = True
        program.pump.pull(pair)
        at += len(data)
        return program.session.sent()

    assert write(b"head ", more=True) == write(b"and ", more=True) == []
    question = Call(1, "getsockopt", pair.inode, {"level": CORK[0], "option": CORK[1]})
    before = len(program.answers)
    program.calls.call(program, question, [])
    assert len(program.answers) > before and program.session.sent() == []
    assert write(b"body", more=False) == [Send(7, 0, 13)]
    assert write(b"one more", more=False) == [Send(7, 13, 8)], "it was for one time"
    assert write(b"held", more=True) == []
    assert program.pump.keep(float("inf")) is None
    assert program.session.sent() == [("setsockopt", cork, 1), Send(7, 21, 4)]
    assert write(b", ", more=True) == [Send(7, 25, 2)]
    assert write(b"let go", more=False) == [Send(7, 27, 6), ("setsockopt", cork, 0)]
    assert program.set(CORK, ON)
    assert write(b"corked", more=True) == write(b"still", more=False) == []
    assert program.set(CORK, OFF)
    assert program.session.sent() == [Send(7, 33, 11)] and at == 44
    assert write(b"end", more=True) == []
    theirs.shutdown(socket.SHUT_WR)
    pair.readable = True
    program.pump.pull(pair)
    assert program.session.sent() == [Send(7, 44, 3), Eof(7, 47)]
