"""Urgent data between clients and tcp: a mark goes before its bytes, and only to who knows the message."""

from __future__ import annotations

import errno

import pytest
from gateway_bench import LIMIT, Bench, Client

from levelip.rpc.messages import KNOWS_URGENT, VERSION, Hello, Refused
from levelip.rpc.stream import Data, Eof, Reset, Send, Urgent


def knowing(bench: Bench) -> Client:
    """A client that knows the message."""
    app = bench.client(hello=False)
    app.send(Hello(VERSION, "test", knows=KNOWS_URGENT))
    app.token = app.take()[0].token
    return app


@pytest.mark.rfc("RFC 9293 MUST-32")
def test_the_client_hears_of_the_peers_mark_before_its_bytes() -> None:
    """As soon as tcp has it."""
    bench = Bench()
    app = knowing(bench)
    sock = app.connected()
    app.take()
    bench.feed(Urgent(sock, 3))
    bench.feed(Data(sock, 0, b"abc"))
    assert app.take() == [Urgent(sock, 3), Data(sock, 0, b"abc")]
    assert bench.core.counters["urgent_in"] == 1


def test_a_client_that_does_not_know_the_message_is_not_sent_it() -> None:
    """It could not read the envelope."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.take()
    bench.feed(Urgent(sock, 3))
    bench.feed(Data(sock, 0, b"abc"))
    assert app.take() == [Data(sock, 0, b"abc")]


def test_a_mark_waits_for_accept() -> None:
    """The client does not know the socket before."""
    bench = Bench()
    app = knowing(bench)
    listener = app.listening()
    app.take()
    child = bench.incoming(listener)
    bench.feed(Urgent(child, 3))
    bench.feed(Data(child, 0, b"abc"))
    assert not any(type(message) in (Urgent, Data) for message in app.take())
    app.ok("accept", listener)
    told = [message for message in app.take() if type(message) in (Urgent, Data)]
    assert told[0] == Urgent(child, 3) and type(told[1]) is Data


def test_a_mark_is_said_again_to_a_client_that_comes_back() -> None:
    """Unless it has the byte already."""
    bench = Bench()
    app = knowing(bench)
    sock = app.connected()
    bench.feed(Urgent(sock, 3))
    app.take()
    bench.lose(app, dead=False)
    app.send(Hello(VERSION, "test", app.token, knows=KNOWS_URGENT))
    assert Urgent(sock, 3) in app.take()


def test_the_clients_mark_goes_to_tcp_before_its_bytes() -> None:
    """As far as the grant goes."""
    bench = Bench()
    app = knowing(bench)
    sock = app.connected()
    app.send(Urgent(sock, 3))
    app.send(Send(sock, 0, 3, b"abc"))
    assert bench.to_tcp() == [Urgent(sock, 3), Send(sock, 0, 3, b"abc")]
    assert bench.core.counters["urgent_out"] == 1
    app.take()
    app.send(Urgent(sock, LIMIT + 1))
    (refused,) = app.take()
    assert type(refused) is Refused and refused.errno == errno.EINVAL
    assert bench.drops("bad_stream") == 1 and bench.to_tcp() == []


def test_marks_that_belong_to_no_stream() -> None:
    """Of another client's socket, of a stream that has ended, of a connection that is gone."""
    bench = Bench()
    app, other = knowing(bench), knowing(bench)
    sock = app.connected()
    bench.to_tcp()
    other.send(Urgent(sock, 3))
    assert bench.drops("unknown_socket") == 1
    app.send(Eof(sock, 0))
    app.send(Urgent(sock, 3))
    assert bench.drops("wrong_state") == 1
    assert bench.to_tcp() == [Eof(sock, 0)]
    bench.feed(Reset(sock, errno.ECONNRESET))
    app.take()
    bench.feed(Urgent(sock, 3))
    bench.feed(Urgent(99, 3))
    assert bench.drops("tcp_unknown") == 2 and app.take() == []
