"""Urgent data in the pair, both ways, on the running kernel."""

from __future__ import annotations

import array
import errno
import fcntl
import socket

import pytest
from test_client_pump import World

from levelip.client import urgent
from levelip.rpc.stream import Data, Send, Urgent

pytestmark = pytest.mark.skipif(not urgent.carried(), reason="AF_UNIX without urgent data (Linux 5.15)")


@pytest.fixture
def world():
    """A connection with session memory."""
    made = World()
    yield made
    made.close()


def at_mark(sock: socket.socket) -> bool:
    value = array.array("i", [0])
    fcntl.ioctl(sock.fileno(), urgent.SIOCATMARK, value)
    return bool(value[0])


def pull(world: World) -> list[object]:
    world.ours.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # as make_pair does
    return world.pull()


def test_the_program_marks_its_last_byte(world: World) -> None:
    """The mark is told before the bytes, which stay in line."""
    world.program.send(b"abc", socket.MSG_OOB)
    world.program.send(b"def")
    assert pull(world) == [Urgent(7, 3), Send(7, 0, 6)]
    assert bytes(world.memory.bytes[:6]) == b"abcdef"
    world.program.send(b"g")
    assert pull(world) == [Send(7, 6, 1)]


def test_the_first_byte_is_urgent(world: World) -> None:
    """Nothing lies before it in the pair."""
    world.program.send(b"x", socket.MSG_OOB)
    assert pull(world) == [Urgent(7, 1), Send(7, 0, 1)]


def test_without_memory() -> None:
    """Bytes travel inline: the mark goes before the Send that brings it."""
    world = World(inline=True)
    world.program.send(b"abc", socket.MSG_OOB)
    assert pull(world) == [Send(7, 0, 2, b"ab"), Urgent(7, 3), Send(7, 2, 1, b"c")]


def test_a_mark_is_said_again_after_a_reconnect(world: World) -> None:
    """As long as its byte was not taken."""
    world.program.send(b"abc", socket.MSG_OOB)
    pull(world)
    world.pump.resend(world.pair)
    assert world.session.sent()[:2] == [Urgent(7, 3), Send(7, 0, 3)]
    world.pump.accepted(world.pair, 3, 1000)
    world.pump.resend(world.pair)
    assert Urgent(7, 3) not in world.session.sent()


def test_the_peers_mark(world: World) -> None:
    """Announced before its byte comes; the program gets that out of line."""
    world.pump.mark(world.pair, 3)
    world.come(0, b"a")
    assert world.program.recv(9) == b"a" and not at_mark(world.program)
    world.come(1, b"bcdef")
    assert world.program.recv(1, socket.MSG_OOB) == b"c"
    assert world.program.recv(9) == b"b" and at_mark(world.program)
    assert world.program.recv(9) == b"def"


def test_a_later_mark_takes_the_place_of_an_earlier_one(world: World) -> None:
    """Both were announced before the bytes came."""
    world.pump.mark(world.pair, 2)
    world.pump.mark(world.pair, 4)
    world.come(0, b"abcd")
    assert world.program.recv(9) == b"abc" and at_mark(world.program)


def test_bytes_that_came_inline() -> None:
    """As bytes, not in a ring."""
    world = World(inline=True)
    world.pump.mark(world.pair, 2)
    world.pump.data(world.pair, Data(7, 0, b"abc"))
    assert world.program.recv(9) == b"a" and world.program.recv(1, socket.MSG_OOB) == b"b"


def test_the_urgent_byte_does_not_wait_for_so_rcvlowat(world: World) -> None:
    """Too little for SO_RCVLOWAT has come, and the mark with it."""
    world.pair.lowat = 100
    world.come(0, b"ab")
    with pytest.raises(BlockingIOError):
        world.program.recv(9)
    world.pump.mark(world.pair, 3)
    world.come(2, b"c")
    assert world.program.recv(1, socket.MSG_OOB) == b"c"


def test_a_kernel_without_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the peer marked is ordinary data then."""
    monkeypatch.setattr(world.pump, "_urgent", False)
    world.pump.mark(world.pair, 2)
    world.come(0, b"abc")
    assert world.program.recv(9) == b"abc"
    with pytest.raises(OSError) as failed:
        world.program.recv(1, socket.MSG_OOB)
    assert failed.value.errno == errno.EINVAL
