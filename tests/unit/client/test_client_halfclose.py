"""A byte that stays unread after SHUT_WR: a reset shows, a clean end does too, and no byte of the program's is lost."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import random
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.client import halfclose
from levelip.client.connecting import make_pair
from levelip.client.endings import Endings
from levelip.client.halfclose import Kept
from levelip.client.pump import Pair
from levelip.rpc.stream import Eof, Send, Urgent
from levelip.run.syscalls import machine
from tests.unit.client.test_client_pump import RING, World
from tests.waiting import until

ROUNDS = 60
WRITER = """
import array, socket, sys, threading
with socket.socket(fileno=int(sys.argv[1])) as control:
    while True:
        told, fds = socket.recv_fds(control, 1, 1)[:2]
        if not told:
            break
        end, took = socket.socket(fileno=fds[0]), [0, 0]
        def write(which):
            size = told[0] * 50 + 1
            try:
                while True:
                    took[which] += end.send(b"ab"[which:which + 1] * size, socket.MSG_NOSIGNAL)
            except BrokenPipeError:
                pass
        threads = [threading.Thread(target=write, args=(which,)) for which in (0, 1)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        end.close()
        control.send(array.array("q", took).tobytes())
"""


class Between:
    """The program's end, into which another process writes before the shutdown."""

    def __init__(self, end: socket.socket, data: str) -> None:
        self._end = end
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._end, name)

    def shutdown(self, how: int) -> None:
        """Somebody is faster."""
        with open(self._end.fileno(), "wb", closefd=False) as out:
            subprocess.run(["/bin/echo", "-n", self._data], stdout=out, check=True)
        self._end.shutdown(how)


@pytest.fixture
def world() -> Iterator[World]:
    """A connection with session memory."""
    made = World()
    yield made
    made.close()


def stream(world: World, messages: list[Any]) -> tuple[bytes, int | None]:
    """What was sent, and where the stream ended."""
    sent, end = b"", None
    for message in messages:
        if isinstance(message, Send):
            assert end is None
            assert world.memory is not None
            ring = world.memory.bytes
            sent += bytes(ring[(message.offset + i) % RING] for i in range(message.length))
        elif isinstance(message, Eof):
            end = message.at
    return sent, end


def outcome(end: socket.socket) -> list[str]:
    """Three reads."""
    said = []
    for _ in range(3):
        try:
            said.append(end.recv(100).decode())
        except OSError as error:
            said.append(errno.errorcode[error.errno or 0])
    return said


def full(end: socket.socket) -> bool:
    """Whether the kernel takes nothing more, not a byte (sock_alloc_send_pskb)."""
    queued = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, queued)
    return queued[0] >= end.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


@pytest.mark.parametrize("how", [socket.SHUT_WR, socket.SHUT_RDWR])
@pytest.mark.parametrize("written", [b"", b"abc"])
def test_a_reset_after_the_end_shows(world: World, written: bytes, how: int) -> None:
    """The bait is not sent; once our end is closed the program reads what has come, then ECONNRESET, then the end."""
    world.program.send(written)
    halfclose.shut(world.pair, world.program, how)
    sent = world.pull()
    if how == socket.SHUT_RDWR:
        world.pump.fin(world.pair)  # it may be closed: the caller finds out (Endings.check)
    assert stream(world, [*sent, *world.session.sent()]) == (written, len(written))
    assert halfclose.unsent(world.pair, world.ours) == 0
    if how == socket.SHUT_WR:
        world.ours.send(b"come")
    world.pump.forget(world.pair)
    come = ["come"] if how == socket.SHUT_WR else []
    assert outcome(world.program) == [*come, "ECONNRESET", "", ""][:3]


def test_the_end_is_writable_once_it_is_shut(world: World) -> None:
    """As TCP's, which poll() says whatever waits."""
    world.program.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    world.program.send(bytes(2000))
    poll = select.poll()
    poll.register(world.program, select.POLLOUT)
    assert not poll.poll(0)
    halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    assert poll.poll(0)


def test_twice(world: World) -> None:
    """The second one changes nothing."""
    world.program.send(b"abc")
    halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    halfclose.shut(world.pair, world.program, socket.SHUT_RDWR)
    assert stream(world, world.pull()) == (b"abc", 3)
    halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    assert stream(world, world.pull()) == (b"", None)


def test_an_end_that_the_program_has_shut_is_left_alone(world: World) -> None:
    """Nothing can be put there; it is read as ever."""
    world.program.send(b"abc")
    world.program.shutdown(socket.SHUT_WR)
    halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    assert world.pair.kept is None
    assert stream(world, world.pull()) == (b"abc", 3)


def test_a_full_end() -> None:
    """The last byte of the program's stays, though it was sent, whatever is granted when."""
    world = World(limit=1000)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += world.program.send(random.Random(written).randbytes(70_000))
    halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    assert world.pair.kept is Kept.LAST
    found = stream(world, world.pull())
    assert found == (found[0], None)
    whole = found[0]
    for limit in (70_000, written - 1, written, written + 1):
        assert halfclose.unsent(world.pair, world.ours) == written - len(whole)
        world.pair.readable = True
        world.pump.accepted(world.pair, len(whole), limit)
        found = stream(world, world.pull())
        whole += found[0]
        assert len(whole) == min(limit, written)
        assert found[1] == (written if limit >= written and len(found[0]) else None)
    assert whole == b"".join(random.Random(at).randbytes(70_000) for at in range(0, written, 70_000))[:written]
    assert halfclose.unsent(world.pair, world.ours) == 0
    world.pump.forget(world.pair)
    assert outcome(world.program) == ["ECONNRESET", "", ""]
    world.close()


@pytest.mark.parametrize("behind", ["d", "defgh"])
@pytest.mark.parametrize("ahead", [b"", b"abc"])
def test_bytes_behind_the_bait(world: World, ahead: bytes, behind: str) -> None:
    """Another thread writes between bait and shutdown: nothing is lost, nothing added, and a reset shows."""
    world.program.send(ahead)
    halfclose.shut(world.pair, Between(world.program, behind), socket.SHUT_WR)  # type: ignore[arg-type]
    assert halfclose.unsent(world.pair, world.ours) == len(ahead) + len(behind)
    assert stream(world, world.pull()) == (ahead + behind.encode(), len(ahead) + len(behind))
    assert world.pair.kept is Kept.LAST
    assert halfclose.unsent(world.pair, world.ours) == 0
    world.pump.forget(world.pair)
    assert outcome(world.program) == ["ECONNRESET", "", ""]


def test_without_a_ring() -> None:
    """Likewise where payloads travel inline."""
    world = World(inline=True)
    world.program.send(b"abc")
    halfclose.shut(world.pair, Between(world.program, "def"), socket.SHUT_WR)  # type: ignore[arg-type]
    sent = world.pull()
    assert b"".join(bytes(message.payload) for message in sent if isinstance(message, Send)) == b"abcdef"
    assert sent[-1] == Eof(7, 6)
    world.close()


def test_an_urgent_byte_at_the_end(world: World) -> None:
    """It is the last one, and marked."""
    world.ours.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    world.program.send(b"ab")
    world.program.send(b"c", socket.MSG_OOB)
    halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    sent = world.pull()
    assert stream(world, sent) == (b"abc", 3)
    assert [message for message in sent if isinstance(message, Urgent)] == [Urgent(7, 3)]


@pytest.mark.parametrize("shut", [False, True])
@pytest.mark.parametrize("ended", [False, True])
def test_a_reset_after_the_peer_s_end_is_none(world: World, ended: bool, shut: bool) -> None:
    """The peer's stream is whole once its FIN has come, also if the stack dies after it: the reader is told the end,
    whether the program has shut its own or not."""
    endings = Endings(
        world.session, world.pump, pairs={1: world.pair}, by_fd={world.pair.fd: world.pair}, by_gid={7: world.pair},
        processes=lambda: [os.getpid()],
    )  # type: ignore[arg-type]  # fmt: skip
    world.pair.inode = os.fstat(world.program.fileno()).st_ino
    if shut:
        halfclose.shut(world.pair, world.program, socket.SHUT_WR)
        world.pull()
    else:
        world.program.send(b"unread")
    world.come(0, b"come")
    if ended:
        world.pump.eof(world.pair, 4)
    endings.reset(world.pair, errno.ECONNRESET)
    endings.sweep(0.0)
    assert world.pair.end is None
    assert outcome(world.program) == (["come", "", ""] if ended else ["come", "ECONNRESET", ""])
    endings.ends.close()


def filled(world: World) -> Endings:
    """The program's end takes nothing more."""
    world.pair.inode = os.fstat(world.program.fileno()).st_ino
    with contextlib.suppress(BlockingIOError):
        while True:
            world.program.send(bytes(70_000))
    return Endings(
        world.session, world.pump, pairs={1: world.pair}, by_fd={world.pair.fd: world.pair}, by_gid={7: world.pair},
        processes=lambda: [os.getpid()],
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("unread", [False, True])
@pytest.mark.parametrize("shut", [False, True])
def test_a_full_end_is_writable_before_the_reset_shows(
    monkeypatch: pytest.MonkeyPatch, shut: bool, unread: bool
) -> None:
    """The kernel tells the program of our close before it frees what was unread there, and TCP is writable as soon as
    the error shows: so that is freed before, but for a byte. Likewise where the program has to read something first."""
    world = World(limit=1000, ends=make_pair())
    endings = filled(world)
    if shut:
        halfclose.shut(world.pair, world.program, socket.SHUT_WR)
    poll = select.poll()
    poll.register(world.program, select.POLLOUT)
    assert not poll.poll(0)
    if unread:
        world.pair.aside.append(b"come")  # not written yet, so that our end stays open
    found: list[Any] = []

    def look(pair: Pair) -> None:
        assert pair.end is not None
        found.append((poll.poll(0), halfclose.waiting(pair.end)))

    monkeypatch.setattr(endings, "part", look)
    endings.reset(world.pair, errno.ECONNRESET)
    endings.sweep(0.0)
    assert bool(found) is not unread
    look(world.pair)
    assert all(one == ([(world.program.fileno(), select.POLLOUT)], 1) for one in found)
    world.pump.forget(world.pair)
    assert outcome(world.program) == ["ECONNRESET", "", ""]
    endings.ends.close()
    world.close()


def test_a_writer_that_waits_is_told_of_the_reset() -> None:
    """Its send fails with ECONNRESET, as TCP's, not with EPIPE and a signal."""
    world = World(limit=1000, ends=make_pair())
    endings = filled(world)
    world.program.setblocking(True)
    said: list[str] = []

    def write() -> None:
        try:
            while True:
                world.program.send(bytes(70_000), socket.MSG_NOSIGNAL)
        except OSError as error:
            said.append(errno.errorcode[error.errno or 0])

    writer = threading.Thread(target=write)
    writer.start()
    until(lambda: in_send(writer), "it waits")
    endings.reset(world.pair, errno.ECONNRESET)
    endings.sweep(0.0)
    writer.join(60)
    assert said == ["ECONNRESET"]
    assert outcome(world.program) == ["", "", ""]
    endings.ends.close()
    world.close()


def in_send(thread: threading.Thread) -> bool:
    """Whether the kernel has it wait in sendto(2) (proc_pid_syscall(5))."""
    where = Path(f"/proc/self/task/{thread.native_id}/syscall").read_bytes()
    return where.split()[0] == b"%d" % machine().calls["sendto"]


def test_what_others_write_meanwhile_is_sent_once() -> None:
    """Two threads of a program write until they are told EPIPE, and its end is shut: the network gets each byte that a
    send took, and no other. In each round from another instant on, with small writes and large ones; in some as soon
    as the end is full, so that no bait has room, however seldom the writers have their turn."""
    rng = random.Random(5)
    ours, theirs = socket.socketpair()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(theirs.fileno())], pass_fds=[theirs.fileno()])
    theirs.close()
    kept: set[tuple[Kept | None, Kept | None]] = set()
    try:
        ours.settimeout(60)
        for number in range(ROUNDS):
            end, program = make_pair()
            program.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, rng.choice((4_608, 1 << 18)))
            got: dict[bytes, int] = {b"a": 0, b"b": 0}
            shut_at = rng.randrange(5_000)
            world = World(inline=True, limit=1 << 40, ends=(end, program))
            program.setblocking(True)
            socket.send_fds(ours, [bytes([rng.randrange(256)])], [program.fileno()])
            pair, first = world.pair, None
            if number % 8 == 0:
                until(lambda: full(program), "the end takes no more")  # noqa: B023 - in this round
                halfclose.shut(pair, program, socket.SHUT_WR)
                first = pair.kept
            late = time.monotonic() + 60
            while not pair.finished:
                assert time.monotonic() < late
                for message in world.pull():
                    payload = bytes(message.payload) if isinstance(message, Send) else b""
                    assert not payload.strip(b"ab")
                    for letter in got:
                        got[letter] += payload.count(letter)
                if pair.sent >= shut_at and pair.kept is None:
                    halfclose.shut(pair, program, socket.SHUT_WR)
                    first = pair.kept
            kept.add((first, pair.kept))
            took = memoryview(ours.recv(16)).cast("q").tolist()
            assert took == list(got.values()), f"round {number}"
            world.close()
    finally:
        ours.close()
        writer.wait(60)
    assert {(Kept.BAIT, Kept.BAIT), (Kept.LAST, Kept.LAST)} <= kept
