"""The pump between a pair and the rings: grants, wrap-around, repeats, gaps, coalescing, ends. Instants are given."""

from __future__ import annotations

import errno
import select
import socket
from typing import Any

import pytest

from levelip.client.pump import (
    CONSUMED_DELAY_S,
    CONSUMED_PIECES,
    CONSUMED_STEP,
    CORKED,
    HELD_BYTES,
    READ_CHUNK,
    Pair,
    Pump,
)
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Data, Eof, Reset, Send

RING = 1 << 20
NAME = "a" * 32


class Memory:
    """Session memory without a file."""

    name = NAME

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(2 * RING))

    def ring(self, base: int, size: int) -> memoryview:
        """As SessionMemory.ring."""
        if base + size > len(self.bytes):
            raise ValueError("outside")
        return self.bytes[base : base + size]


class Session:
    """What the pump uses of a session."""

    def __init__(self, memory: Memory | None) -> None:
        self.memory = memory
        self.outbox: list[Any] = []

    def request(self, op: str, target: Any, args: dict[str, Any], done: Any) -> None:
        """A call, as it would go out."""
        self.outbox.append((op, target.gid, args))

    def sent(self) -> list[Any]:
        """What was to be sent since the last call."""
        out, self.outbox = self.outbox, []
        return out


class World:
    """A connected pair with its pump; `program` is the program's end."""

    def __init__(
        self, *, inline: bool = False, limit: int = RING, ends: tuple[socket.socket, socket.socket] | None = None
    ) -> None:
        self.memory = None if inline else Memory()
        self.session = Session(self.memory)
        self.epoll = select.epoll()
        self.pump = Pump(self.session, self.epoll)  # type: ignore[arg-type]
        ours, self.program = ends or socket.socketpair()
        ours.setblocking(False)
        self.program.setblocking(False)
        self.ours = ours
        self.pair = Pair(ours, 1, (2, 1, 6), 7)
        self.pump.watch(self.pair)
        self.answer = {
            "local_address": b"\x0a\0\0\x02",
            "local_port": 1,
            "remote_address": b"\x0a\0\0\x01",
            "remote_port": 2,
            "rings": ["", 0, 0, 0, 0] if inline else [NAME, 0, RING, RING, RING],
            "limit": limit,
        }
        self.pump.establish(self.pair, self.answer)

    def pull(self) -> list[Any]:
        """The program wrote or ended something: what is sent."""
        self.pair.readable = True
        self.pump.pull(self.pair)
        return self.session.sent()

    def come(self, offset: int, payload: bytes) -> list[Any]:
        """Bytes come in the receive ring; what is sent."""
        assert self.memory is not None
        place = Place(NAME, RING, RING, offset, len(payload))
        start = 0
        for at, length in place.spans():
            self.memory.bytes[at : at + length] = payload[start : start + length]
            start += length
        self.pump.data(self.pair, Data(7, offset, place))
        return self.session.sent()

    def close(self) -> None:
        """Both ends, and what watches ours."""
        self.ours.close()
        self.program.close()
        self.epoll.close()


@pytest.fixture
def world():
    """A connection with session memory."""
    made = World()
    yield made
    made.close()


def test_bytes_go_to_the_ring_and_are_announced_once(world: World) -> None:
    """Several writes of the program make one Send, whose bytes lie at their offset of the send ring."""
    world.program.send(b"abc")
    world.program.send(b"def")
    assert world.pull() == [Send(7, 0, 6)]
    assert bytes(world.memory.bytes[:6]) == b"abcdef"
    world.program.send(b"g")
    assert world.pull() == [Send(7, 6, 1)]
    assert world.pull() == []


@pytest.mark.parametrize("unread", [False, True])
def test_a_close_that_is_seen_by_reading(world: World, unread: bool) -> None:
    """The program closes while what it wrote is read, before epoll tells of it: whether that is a FIN or a reset is not
    decided yet (Endings.check)."""
    if unread:
        world.ours.send(b"unread")
    world.program.send(b"abc")
    world.program.close()
    assert world.pull() == [Send(7, 0, 3)]
    assert world.pair.finished and world.pair.hung_up and world.pair.unread is unread


def test_an_end_of_the_program_s_is_told_at_once(world: World) -> None:
    """SHUT_WR is no close."""
    world.program.send(b"abc")
    world.program.shutdown(socket.SHUT_WR)
    assert world.pull() == [Send(7, 0, 3), Eof(7, 3)]


def test_never_beyond_the_grant() -> None:
    """Only what was granted is read; the rest stays in the pair until the limit moves; an old limit changes nothing."""
    world = World(limit=4)
    world.program.send(b"abcdef")
    assert world.pull() == [Send(7, 0, 4)]
    world.pump.accepted(world.pair, 4, 4)
    assert world.session.sent() == []
    world.pump.accepted(world.pair, 4, 5)
    assert world.session.sent() == [Send(7, 4, 1)]
    world.pump.accepted(world.pair, 0, 2)
    assert (world.pair.accepted, world.pair.limit) == (4, 5)


def test_the_ring_wraps() -> None:
    """Bytes across the ring's end are read in two pieces and announced as one."""
    world = World()
    world.pair.sent = world.pair.said = world.pair.accepted = RING - 2
    world.pair.limit = 2 * RING
    world.program.send(b"abcdef")
    assert world.pull() == [Send(7, RING - 2, 6)]
    assert bytes(world.memory.bytes[RING - 2 : RING]) == b"ab"
    assert bytes(world.memory.bytes[:4]) == b"cdef"


def test_a_short_answer_under_a_cork_is_one_send(world: World) -> None:
    """What is written between TCP_CORK on and off is announced at once, and nobody hears of the cork."""
    assert world.pump.cork(world.pair)
    world.program.send(b"head")
    assert world.pull() == []
    world.program.send(b"body")
    assert world.pull() == []
    assert world.pump.uncork(world.pair)
    assert world.session.sent() == [Send(7, 0, 8)]
    assert not world.pump.uncork(world.pair), "the gateway has to be told of that one"


def test_a_cork_that_stays_is_told_before_its_bytes(world: World) -> None:
    """Of more than HELD_BYTES, or after HELD_S, the gateway is told that they are corked; then all goes as ever."""
    for late in (True, False):
        start = world.pair.sent
        world.pair.corked = False
        assert world.pump.cork(world.pair)
        world.program.send(b"x" if late else bytes(HELD_BYTES))
        sent = world.pull()
        if late:
            assert sent == []
            until = world.pump.keep(0.0)
            assert until is not None and world.pump.keep(until) is None
            sent = world.session.sent()
        assert sent == [("setsockopt", 7, CORKED), Send(7, start, world.pair.sent - start)]
        assert not world.pump.cork(world.pair), "known already: it is to be told as ever"


def test_a_corked_stream_ends_whole(world: World) -> None:
    """Its end takes along what a cork held back; what is said again after a reconnect is not said twice."""
    world.pump.cork(world.pair)
    world.program.send(b"abc")
    assert world.pull() == []
    world.pump.resend(world.pair)
    assert world.session.sent() == [Send(7, 0, 3), Consumed(7, 0)]
    world.pump.cork(world.pair)
    world.program.send(b"de")
    world.program.shutdown(socket.SHUT_WR)
    assert world.pull() == [Send(7, 3, 2), Eof(7, 5)]


def test_without_a_ring_a_cork_is_told() -> None:
    """Bytes that travel inline are not kept."""
    assert not World(inline=True).pump.cork(World(inline=True).pair)


def test_a_big_writer_takes_turns() -> None:
    """After READ_CHUNK bytes others are served; the pair counts as busy, as no new edge will come."""
    world = World()
    world.program.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * READ_CHUNK)
    total = world.program.send(bytes(READ_CHUNK + 1000))
    if total <= READ_CHUNK:
        pytest.skip("wmem_max too small here")
    assert world.pull() == [Send(7, 0, READ_CHUNK)]
    assert world.pair in world.pump.busy


def test_end_of_the_program_s_stream(world: World) -> None:
    """EOF follows the bytes before it, once."""
    world.program.send(b"last")
    world.program.shutdown(socket.SHUT_WR)
    assert world.pull() == [Send(7, 0, 4), Eof(7, 4)]
    assert world.pull() == []


def test_a_hang_up_leaves_the_fin_to_the_caller(world: World) -> None:
    """After a hang-up it is not known yet whether the close resets: no Eof on our own."""
    world.program.send(b"last")
    world.program.close()
    world.pair.hung_up = True
    assert world.pull() == [Send(7, 0, 4)]
    world.pump.fin(world.pair)
    assert world.session.sent() == [Eof(7, 4)]


def test_unread_bytes_are_noticed(world: World) -> None:
    """The program closes with bytes unread: the kernel says ECONNRESET, after all that the program wrote."""
    world.come(0, b"never read")
    world.program.send(b"bye")
    world.program.close()
    assert world.pull()[0] == Send(7, 0, 3)
    assert world.pair.unread


def test_inline_sends_carry_their_bytes() -> None:
    """Without session memory the payload travels in the message."""
    world = World(inline=True)
    world.program.send(b"abc")
    assert world.pull() == [Send(7, 0, 3, b"abc")]


def test_received_bytes_reach_the_program(world: World) -> None:
    """From the ring or inline, in order; repeats and overlaps are skipped."""
    world.come(0, b"abcd")
    world.come(0, b"abcd")
    world.pump.data(world.pair, Data(7, 2, b"cdef"))
    world.come(4, b"efgh")
    assert world.program.recv(100) == b"abcdefgh"
    assert world.pair.written == 8


def test_received_bytes_wrap(world: World) -> None:
    """A place across the end of the receive ring is written in order."""
    world.pair.received = world.pair.written = world.pair.consumed = RING - 3
    world.come(RING - 3, b"abcdef")
    assert world.program.recv(100) == b"abcdef"


@pytest.mark.parametrize("message", [Data(7, 1, b"x"), Data(7, 0, Place(NAME, RING, 64, 0, 3000))])
def test_nonsense_breaks_the_connection(world: World, message: Data) -> None:
    """A gap, or a place that is not in our ring: abort, rather than wrong bytes."""
    world.pump.data(world.pair, message)
    assert world.session.sent() == [Reset(7, 0)]
    assert world.pump.failed == [world.pair]
    assert world.pair.error == errno.ECONNRESET
    with pytest.raises(BlockingIOError):
        world.program.recv(1)


@pytest.mark.parametrize(
    ("rings", "error"),
    [(["b" * 32, 0, RING, RING, RING], "not this session"), ([NAME, 0, RING, RING, 2 * RING], "outside")],
)
def test_foreign_rings_are_refused(rings: list[Any], error: str) -> None:
    """Rings that do not lie in the session's own memory are not used."""
    world = World()
    with pytest.raises(ValueError, match=error):
        world.pump.establish(world.pair, {**world.answer, "rings": rings})


def test_consumed_is_told_in_steps(world: World) -> None:
    """CONSUMED_STEP bytes are told at once; less waits for company or for CONSUMED_DELAY_S."""
    world.program.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * CONSUMED_STEP)
    world.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * CONSUMED_STEP)
    assert world.come(0, bytes(CONSUMED_STEP)) == [Consumed(7, CONSUMED_STEP)]
    assert world.come(CONSUMED_STEP, b"abc") == []
    assert world.pump.settle(100.0) == 100.0 + CONSUMED_DELAY_S
    assert world.session.sent() == []
    assert world.pump.settle(100.0 + CONSUMED_DELAY_S) is None
    assert world.session.sent() == [Consumed(7, CONSUMED_STEP + 3)]
    world.come(CONSUMED_STEP + 3, b"d")
    world.session.outbox.append("company")
    assert world.pump.settle(200.0) is None
    assert world.session.sent() == ["company", Consumed(7, CONSUMED_STEP + 4)]


def test_many_small_pieces_are_told_too(world: World) -> None:
    """The gateway lets 64 messages stand: CONSUMED_PIECES of them are told whatever their size."""
    told = []
    for i in range(CONSUMED_PIECES):
        told += world.come(i, b"x")
    assert told == [Consumed(7, CONSUMED_PIECES)]


def test_a_full_pair_waits_for_epollout(world: World) -> None:
    """What the pair does not take stays in the ring, is not Consumed, and follows when the program has read."""
    payload = bytes(i * 7 % 251 for i in range(1000)) * 1000
    told = world.come(0, payload)
    assert world.pair.stuck
    assert world.pair.written < len(payload)
    assert all(message.upto <= world.pair.written for message in told)
    got = b""
    while len(got) < len(payload):
        got += world.program.recv(1 << 20)
        if world.epoll.poll(0):
            world.pump.writable(world.pair)
    assert got == payload
    assert not world.pair.stuck
    assert not world.pair.aside


def test_the_peer_s_fin_comes_after_its_bytes(world: World) -> None:
    """Eof ends the program's reading when all bytes before it are written; the other direction stays."""
    world.pump.eof(world.pair, 3)
    with pytest.raises(BlockingIOError):
        world.program.recv(1)
    world.come(0, b"abc")
    assert world.program.recv(100) == b"abc"
    assert world.program.recv(100) == b""
    world.program.send(b"still")
    assert world.pull()[0] == Send(7, 0, 5)


def test_a_program_that_shut_its_reading_side_is_no_obstacle(world: World) -> None:
    """After SHUT_RD incoming bytes are thrown away, but count as taken."""
    world.program.shutdown(socket.SHUT_RD)
    world.come(0, b"abc")
    assert world.pair.discard
    assert world.pair.written == 3


def test_reset_keeps_what_was_received(world: World) -> None:
    """Bytes that wait in the ring are copied: the ring may serve another connection; nothing more is sent."""
    world.come(0, bytes(1_000_000))
    waiting = sum(len(piece) for piece in world.pair.aside)
    assert waiting
    world.pump.reset(world.pair)
    world.memory.bytes[:] = b"\xff" * (2 * RING)
    assert sum(len(piece) for piece in world.pair.aside) == waiting
    assert not any(any(piece) for piece in world.pair.aside)
    world.program.send(b"x")
    assert world.pull() == []


def test_resend_after_a_reconnect(world: World) -> None:
    """The gateway may have missed what it did not accept: all of it is said again."""
    world.program.send(b"abcdef")
    world.program.shutdown(socket.SHUT_WR)
    world.pull()
    world.come(0, b"xy")
    world.pump.accepted(world.pair, 2, RING)
    world.pump.resend(world.pair)
    assert world.session.sent() == [Send(7, 2, 4), Eof(7, 6), Consumed(7, 2)]


def readable(world: World) -> bool:
    """Whether the program's end would be readable."""
    return bool(select.select([world.program], [], [], 0)[0])


def test_rcvlowat_holds_back_what_is_too_little() -> None:
    """SO_RCVLOWAT 1000: not readable with 999 bytes, readable with 1000; beside unread bytes all goes at once."""
    world = World()
    world.pair.lowat = 1000
    world.come(0, b"a" * 999)
    assert not readable(world)
    world.come(999, b"b")
    assert world.program.recv(5000) == b"a" * 999 + b"b"
    world.come(1000, b"c" * 1000)
    assert len(world.program.recv(400)) == 400
    world.come(2000, b"d")
    assert len(world.program.recv(5000)) == 601


def test_rcvlowat_waits_for_nothing_at_the_end_of_the_stream() -> None:
    """EOF, and a reset, hand over what there is."""
    for end in ("eof", "reset"):
        world = World()
        world.pair.lowat = 1000
        world.come(0, b"last")
        assert not readable(world)
        if end == "eof":
            world.pump.eof(world.pair, 4)
        else:
            world.pump.reset(world.pair)
        assert world.program.recv(100) == b"last"


def test_rcvlowat_does_not_stop_the_stream() -> None:
    """The gateway sends 64 messages at most without Consumed: what is held back is copied and told."""
    world = World()
    world.pair.lowat = 100_000
    told = []
    for number in range(64):
        told += world.come(number, bytes([number]))
    assert not readable(world)
    assert [message.upto for message in told if type(message) is Consumed] == [16, 32, 48, 64]
    world.memory.bytes[RING : RING + 64] = bytes(64)  # type: ignore[union-attr]
    world.pump.eof(world.pair, 64)
    assert world.program.recv(100) == bytes(range(64))


def test_rcvlowat_of_more_than_half_the_ring() -> None:
    """Is no more than that, or the window would close first."""
    world = World()
    world.pair.lowat = RING
    at = 0
    while at < RING // 2:
        assert not readable(world)
        world.come(at, bytes(65_536))
        at += 65_536
    assert readable(world)
