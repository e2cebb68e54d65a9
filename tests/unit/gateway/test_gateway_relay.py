"""The streams: what is passed on, what is refused, what waits, and that no payload is ever kept."""

from __future__ import annotations

import errno
import struct

import pytest
from gateway_bench import LIMIT, RING, Bench, Client

from gateway.relay import INLINE_PIECE, MAX_UNCONSUMED
from levelip.frames.seam import ForClient
from levelip.rpc.messages import Refused
from levelip.rpc.place import Place
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send

MEMORY = "ab" * 16


def shared_client(bench: Bench) -> Client:
    """A client with memory of its own."""
    app = bench.client()
    app.hello(token=app.token, memory=MEMORY)
    app.take()
    return app


def ring(bench: Bench, sock: int, offset: int, length: int) -> Place:
    """Where tcp put bytes of the incoming stream."""
    rings = bench.core._state.sockets[sock].rings
    assert rings is not None
    return rings.receive(offset, length)


def test_data_passes_as_it_is() -> None:
    """Data of tcp goes to the socket's client, and to nobody else."""
    bench = Bench()
    app, other = bench.client(), bench.client()
    sock = app.connected()
    app.take()
    other.take()
    bench.feed(Data(sock, 0, b"hello"))
    assert app.take() == [Data(sock, 0, b"hello")] and other.take() == []


def test_a_repeat_changes_nothing() -> None:
    """Data that was there already is no news."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    bench.feed(Data(sock, 0, b"hello"))
    app.take()
    bench.feed(Data(sock, 0, b"hello"))
    assert app.take() == []


def test_a_gap_ends_the_connection() -> None:
    """The seam to tcp loses nothing, so a gap is a fault: better a reset than a wrong byte."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.take()
    bench.feed(Data(sock, 5, b"hello"))
    assert app.take() == [Reset(sock, errno.ECONNRESET)]
    assert bench.to_tcp() == [Reset(sock, 0)]
    assert bench.drops("bad_stream") == 1


def test_send_inline() -> None:
    """A client without memory sends its bytes along."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.send(Send(sock, 0, 3, b"abc"))
    app.send(Eof(sock, 3))
    assert bench.to_tcp() == [Send(sock, 0, 3, b"abc"), Eof(sock, 3)]


def test_send_from_memory() -> None:
    """A client with memory only says where its bytes end; with the region of its session tcp knows where they lie."""
    bench = Bench()
    app = shared_client(bench)
    sock = app.connected()
    app.send(Send(sock, 0, LIMIT))
    assert bench.to_tcp() == [Send(sock, 0, LIMIT)]


def test_inline_client_cannot_send_what_it_did_not_bring() -> None:
    """Without memory an empty payload would send bytes of tcp's own region, perhaps another client's: refused."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.take()
    app.send(Send(sock, 0, 1000))
    assert bench.to_tcp() == []
    assert app.take() == [Refused(errno.EINVAL, "Send: payload and length differ")]
    assert bench.drops("bad_stream") == 1


@pytest.mark.parametrize(
    "payload", [b"abcd", Place("own-1", 0, RING, 0, 3), Place("pool-1", 0, RING, 0, 3)], ids=["length", "own", "pool"]
)
def test_send_payload_must_be_bytes_of_that_length(payload: bytes | Place) -> None:
    """A length that is not the payload's, or a Place that names memory of others: refused."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.send(Send(sock, 0, 3, payload))
    assert bench.to_tcp() == [] and bench.drops("bad_stream") == 1


@pytest.mark.parametrize(("offset", "length"), [(1, 1), (0, LIMIT + 1), (LIMIT, 1)], ids=["gap", "long", "both"])
def test_send_beyond_what_is_known_or_granted(offset: int, length: int) -> None:
    """After a gap, or beyond the grant, the client is told where it may go on."""
    bench = Bench()
    app = shared_client(bench)
    sock = app.connected()
    app.take()
    app.send(Send(sock, offset, length))
    assert app.take() == [Accepted(sock, 0, LIMIT)]
    assert bench.to_tcp() == [] and bench.drops("bad_stream") == 1


def test_grants_pass() -> None:
    """Accepted of tcp reaches the client and moves the limit that is checked."""
    bench = Bench()
    app = shared_client(bench)
    sock = app.connected()
    app.send(Send(sock, 0, LIMIT))
    bench.feed(Accepted(sock, LIMIT, 2 * LIMIT))
    assert app.take()[-1] == Accepted(sock, LIMIT, 2 * LIMIT)
    app.send(Send(sock, LIMIT, LIMIT))
    assert bench.to_tcp()[-1] == Send(sock, LIMIT, LIMIT)


def test_nothing_is_sent_after_the_end() -> None:
    """After Eof, and on a socket that is not connected, Send is ignored and counted."""
    bench = Bench()
    app = bench.client()
    sock, new = app.connected(), app.socket()
    app.send(Eof(sock, 0))
    bench.to_tcp()
    for target in (sock, new):
        app.send(Send(target, 0, 1, b"x"))
    app.send(Send(99, 0, 1, b"x"))
    assert bench.to_tcp() == []
    assert (bench.drops("wrong_state"), bench.drops("unknown_socket")) == (2, 1)


def test_eof_must_be_at_the_end() -> None:
    """An Eof elsewhere than at the end of what was sent would cut the stream: refused."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.take()
    app.send(Eof(sock, 5))
    assert isinstance(app.take()[0], Refused) and bench.to_tcp() == []


def test_foreign_sockets_are_out_of_reach() -> None:
    """Stream messages with another client's socket are ignored and counted, all four of them."""
    bench = Bench()
    app, thief = bench.client(), bench.client()
    sock = app.connected()
    bench.feed(Data(sock, 0, b"secret"))
    for message in (Send(sock, 0, 1, b"x"), Consumed(sock, 6), Eof(sock, 0), Reset(sock, 0)):
        thief.send(message)
    assert bench.to_tcp() == [] and bench.drops("unknown_socket") == 4


def test_consumed_passes_and_is_checked() -> None:
    """Consumed moves tcp's window; a repeat is nothing; more than there was is refused."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    bench.feed(Data(sock, 0, b"x" * 100))
    app.send(Consumed(sock, 60))
    app.send(Consumed(sock, 60))
    app.send(Consumed(sock, 50))
    assert bench.to_tcp() == [Consumed(sock, 60)]
    app.send(Consumed(sock, 101))
    assert bench.to_tcp() == [] and bench.drops("bad_stream") == 1


def test_reset_of_the_client() -> None:
    """Reset(sock, 0) aborts the connection at tcp; the socket stays until it is closed, as Linux's TCP_CLOSE."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.send(Reset(sock, 0))
    assert bench.to_tcp() == [Reset(sock, 0)]
    assert app.errno("getpeername", sock) == errno.ENOTCONN


def test_reset_of_the_peer() -> None:
    """A reset reaches the client at once; SO_ERROR shows it once."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.take()
    bench.feed(Reset(sock, errno.ETIMEDOUT))
    assert app.take() == [Reset(sock, errno.ETIMEDOUT)]
    values = [app.ok("getsockopt", sock, level=1, option=4)["value"] for _ in range(2)]
    assert values == [struct.pack("i", errno.ETIMEDOUT), struct.pack("i", 0)]


def test_unread_messages_are_bounded_in_number() -> None:
    """A peer that sends single bytes to an application that does not read makes no more than MAX_UNCONSUMED messages;
    the rest waits in the ring and comes as one."""
    bench = Bench()
    app = shared_client(bench)
    sock = app.connected()
    app.take()
    for offset in range(1000):
        bench.feed(Data(sock, offset, b"x"))
    assert len(app.take()) == MAX_UNCONSUMED
    app.send(Consumed(sock, MAX_UNCONSUMED))
    assert app.take() == [Data(sock, MAX_UNCONSUMED, ring(bench, sock, MAX_UNCONSUMED, 1000 - MAX_UNCONSUMED))]


def test_slow_reader_gets_every_byte_in_order() -> None:
    """Whatever is consumed when, messages follow one another without gap, never more than twice the bound unread."""
    bench = Bench()
    app = shared_client(bench)
    sock = app.connected()
    app.take()
    at = unread = 0
    for offset in range(0, 3000, 3):
        bench.feed(Data(sock, offset, b"xyz"))
        for message in app.take():
            assert message.offset == at
            at += len(message.payload)
            unread += 1
        assert unread <= 2 * MAX_UNCONSUMED
        if offset % 60 == 0 and at:
            app.send(Consumed(sock, at - 2))
            unread = 1
    app.send(Consumed(sock, at))
    for message in app.take():
        assert message.offset == at
        at += len(message.payload)
    assert at == 3000


def test_inline_bytes_are_bounded_by_credit() -> None:
    """A client without memory has at most rpc_inline_credit bytes under way; the rest follows as it consumes."""
    bench = Bench(rpc_inline_credit=100_000)
    app = bench.client()
    sock = app.connected()
    app.take()
    bench.feed(Data(sock, 0, ring(bench, sock, 0, 90_000)))
    bench.feed(Data(sock, 90_000, ring(bench, sock, 90_000, 500_000)))
    bench.feed(Eof(sock, 590_000))
    first = app.take()
    assert first == [Data(sock, 0, ring(bench, sock, 0, 90_000))]
    at = 90_000
    for _ in range(20):
        app.send(Consumed(sock, at))
        for message in app.take():
            if isinstance(message, Eof):
                assert at == 590_000
                return
            assert message.offset == at and len(message.payload) <= INLINE_PIECE
            at += len(message.payload)
    raise AssertionError("the end never came")


def test_reset_lets_everything_out_first() -> None:
    """What was received before a reset stays readable, as on Linux: it is told before the reset."""
    bench = Bench()
    app = shared_client(bench)
    sock = app.connected()
    app.take()
    for offset in range(200):
        bench.feed(Data(sock, offset, b"x"))
    app.take()
    bench.feed(Reset(sock, errno.ECONNRESET))
    data, reset = app.take()
    assert (data.offset, data.payload.length, reset) == (64, 136, Reset(sock, errno.ECONNRESET))


def test_what_tcp_says_of_closed_sockets_is_ignored() -> None:
    """Stream messages for a socket that the application closed meanwhile are counted, nothing else."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.ok("close", sock)
    app.take()
    for message in (Data(sock, 0, b"x"), Accepted(sock, 0, 1), Eof(sock, 0), Reset(sock, 104)):
        bench.feed(message)
    assert app.take() == [] and bench.drops("tcp_unknown") == 4


def test_outgoing_keeps_to_the_room() -> None:
    """No more is taken than a port has room for; the rest follows in order."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    for offset in range(3):
        bench.core.receive(Data(sock, offset, b"x"), bench.now)
    first = bench.core.outgoing({"client": 2})
    rest = bench.core.outgoing({"client": 2})
    offsets = [frame.message.offset for _, frame in first + rest if isinstance(frame, ForClient)]
    assert (len(first), offsets) == (2, [0, 1, 2])
