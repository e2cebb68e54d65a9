"""tcp goes and comes: what applications see, and what the next tcp is told."""

from __future__ import annotations

import errno
import random

import pytest
from gateway_bench import LOCAL, OPEN, REFUSED, REMOTE, SILENT, Bench

from gateway.core import GatewayCore
from levelip.frames.core import ControlError
from levelip.frames.seam import Bind, Close, Connect, Listen, NeighbourUp, Released, Result
from levelip.rpc.messages import Pending
from levelip.rpc.stream import Data, Reset, Send


def test_connections_are_reset_at_once() -> None:
    """When tcp is gone every connection is reset at once; connects under way fail; waiting connections vanish."""
    bench = Bench()
    app = bench.client()
    sock, listener = app.connected(), app.listening()
    bench.incoming(listener)
    connecting = app.socket()
    asked = app.ask("connect", connecting, address=REMOTE, port=SILENT)
    app.take()
    bench.tcp_down()
    assert app.take() == [Pending(listener, 0), Reset(sock, errno.ECONNRESET)]
    reply = app.reply(asked)
    assert reply is not None and reply.errno == errno.ECONNRESET
    assert app.errno("accept", listener) == errno.EAGAIN
    app.send(Send(sock, 0, 1, b"x"))
    assert bench.drops("wrong_state") == 1


def test_ports_and_listeners_are_told_to_the_next_tcp() -> None:
    """Bound and listening sockets get their ports back, before anybody else is served."""
    bench = Bench()
    app = bench.client()
    listener = app.listening(port=80)
    bound = app.socket()
    port = app.ok("bind", bound, address=LOCAL, port=0)["port"]
    app.ok("setsockopt", listener, level=6, option=1, value=1)
    bench.to_tcp()
    bench.tcp_down()
    late = app.socket()
    waits = app.ask("bind", late, address=LOCAL, port=0)
    assert app.reply(waits) is None and bench.to_tcp() == []
    bench.tcp_up()
    told = bench.to_tcp()
    binds = [(message.sock, message.port) for message in told if isinstance(message, Bind)]
    assert binds == [(listener, 80), (bound, port), (late, 0)]
    (listen,) = [message for message in told if isinstance(message, Listen)]
    assert listen == Listen(listen.request, listener, "", 8, {"nodelay": 1})
    reply = app.reply(waits)
    assert reply is not None and reply.errno == 0
    bench.incoming(listener)
    app.ok("accept", listener)


def test_a_port_that_is_taken_for_now_is_tried_again() -> None:
    """If the next tcp does not give a port back at once, it is asked again, quietly."""
    bench = Bench()
    app = bench.client()
    listener = app.listening(port=80)
    bench.tcp_down()
    bench.answering = False
    bench.tcp_up()
    bench.feed(Result(bench.to_tcp()[0].request, errno.EADDRINUSE))
    bench.answering = True
    bench.advance(9)
    assert bench.to_tcp() == []
    bench.advance(1)
    assert [type(message) for message in bench.to_tcp()] == [Bind, Listen]
    assert bench.core.counters["restore_retries"] == 1
    bench.incoming(listener)
    app.ok("accept", listener)


def test_a_port_that_stays_taken_is_tried_more_slowly() -> None:
    """After its first second, tcp is asked for a port five times a second."""
    bench = Bench()
    bench.client().listening(port=80)
    bench.tcp_down()
    bench.answering = False
    bench.tcp_up()
    for _ in range(100):
        bench.feed(Result(bench.to_tcp()[0].request, errno.EADDRINUSE))
        bench.advance(10)
    bench.feed(Result(bench.to_tcp()[0].request, errno.EADDRINUSE))
    bench.advance(199)
    assert bench.to_tcp() == []
    bench.advance(1)
    assert [type(message) for message in bench.to_tcp()] == [Bind]


@pytest.mark.parametrize("seconds", [0, 2])
def test_a_young_tcp_knows_no_routes_yet(seconds: int) -> None:
    """In its first second "unreachable" and "no such address" may only mean that ip has not spoken yet: bind() and
    connect() are tried again for so long; later they are errors at once."""
    bench = Bench(tcp_up=False)
    app = bench.client()
    bench.answering = False
    bench.tcp_up()
    bench.advance(seconds * 1000)
    bound, sock = app.socket(), app.socket()
    bind = app.ask("bind", bound, address=LOCAL, port=80)
    connect = app.ask("connect", sock, address=REMOTE, port=OPEN)
    bench.feed(Result(bench.to_tcp()[0].request, errno.EADDRNOTAVAIL))
    bench.feed(Reset(sock, errno.ENETUNREACH))
    replies = [app.reply(bind), app.reply(connect)]
    if seconds:
        assert [reply.errno for reply in replies if reply] == [errno.EADDRNOTAVAIL, errno.ENETUNREACH]
        return
    assert replies == [None, None]
    bench.answering = True
    bench.advance(10)
    assert [type(message) for message in bench.to_tcp()] == [Bind, Connect]
    assert [reply.errno for reply in (app.reply(bind), app.reply(connect)) if reply] == [0, 0]


def test_calls_wait_for_tcp_but_not_for_ever() -> None:
    """A call that needs tcp while it is down goes on when it is up, or fails with ENETDOWN after tcp_wait_ms."""
    bench = Bench(tcp_up=False, tcp_wait_ms=1000)
    app = bench.client()
    sockets = [app.socket() for _ in range(3)]
    asked = [
        app.ask("bind", sockets[0], address=LOCAL, port=80),
        app.ask("listen", sockets[1]),
        app.ask("connect", sockets[2], address=REMOTE, port=OPEN),
    ]
    assert app.errno("connect", sockets[2], address=REMOTE, port=OPEN) == errno.EALREADY
    bench.advance(999)
    assert [app.reply(number) for number in asked] == [None] * 3
    bench.advance(1)
    assert [reply.errno for number in asked if (reply := app.reply(number))] == [errno.ENETDOWN] * 3
    number = app.ask("connect", sockets[2], address=REMOTE, port=OPEN)
    bench.advance(500)
    bench.tcp_up()
    reply = app.reply(number)
    assert reply is not None and reply.errno == 0
    bench.advance(5000)
    app.ok("getpeername", sockets[2])


def test_calls_behind_a_listener_that_is_restored() -> None:
    """A second listen() on a listener that waits for tcp waits too, as long as calls do; the listener itself stays."""
    bench = Bench(tcp_wait_ms=1000)
    app = bench.client()
    listener = app.listening(port=80)
    bench.tcp_down()
    number = app.ask("listen", listener, backlog=3)
    bench.advance(1000)
    reply = app.reply(number)
    assert reply is not None and reply.errno == errno.ENETDOWN
    bench.tcp_up()
    assert [type(message) for message in bench.to_tcp()][-2:] == [Bind, Listen]


def test_a_bind_that_was_under_way_is_asked_again() -> None:
    """tcp died between the question and its answer: the next one is asked."""
    bench = Bench()
    bench.answering = False
    app = bench.client()
    sock = app.socket()
    asked = app.ask("bind", sock, address=LOCAL, port=80)
    bench.tcp_down()
    bench.answering = True
    bench.tcp_up()
    reply = app.reply(asked)
    assert reply is not None and reply.data == {"address": LOCAL, "port": 80}


def test_questions_under_way_are_answered() -> None:
    """TCP_INFO asked of a tcp that died is answered as of a closed socket; a lingering close() ends."""
    bench = Bench()
    app = bench.client()
    sock, closing = app.connected(), app.connected()
    app.ok("setsockopt", closing, level=1, option=13, value=b"\1\0\0\0\x09\0\0\0")
    bench.answering = False
    info, close = app.ask("getsockopt", sock, level=6, option=11), app.ask("close", closing)
    bench.tcp_down()
    replies = [app.reply(info), app.reply(close)]
    assert [reply.errno for reply in replies if reply] == [0, 0]


def test_the_same_tcp_comes_back() -> None:
    """If only the pipe broke, tcp still holds what we gave up: it is told to drop it, and ports are asked for again
    once it has let go."""
    bench = Bench()
    app = bench.client()
    sock, listener = app.connected(), app.listening(port=80)
    bench.tcp_down()
    bench.answering = False
    bench.to_tcp()
    bench.tcp_up(same=True)
    assert bench.to_tcp() == [Close(sock, True), Close(listener, True)]
    bench.answering = True
    bench.feed(Released(sock))
    bench.ports.clear()
    bench.feed(Released(listener))
    assert [type(message) for message in bench.to_tcp()] == [Bind, Listen]


def test_a_new_tcp_without_the_old_ones_end() -> None:
    """A hello of another epoch means that the old tcp is gone, even if nobody saw it go."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.take()
    bench.feed(NeighbourUp("tcp", bench.tcp_epoch))
    assert app.take() == []
    bench.feed(NeighbourUp("tcp", bench.tcp_epoch + 1))
    assert app.take() == [Reset(sock, errno.ECONNRESET)]


def test_nothing_meant_for_the_old_tcp_reaches_the_new_one() -> None:
    """What was still to be sent when tcp died is thrown away."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    bench.answering = False
    bench.core.receive(Data(sock, 0, b"x"), bench.now)
    bench.tcp_down()
    bench.tcp_up()
    assert bench.to_tcp() == []


def test_bound_socket_connects_after_restart() -> None:
    """A bound socket keeps its port through a restart, and a connect from it begins there."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("bind", sock, address=LOCAL, port=7000)
    bench.tcp_down()
    bench.tcp_up()
    bench.to_tcp()
    app.ok("connect", sock, address=REMOTE, port=OPEN)
    assert bench.to_tcp() == [Connect(sock, "", REMOTE, OPEN)]
    assert app.ok("getsockname", sock) == {"address": LOCAL, "port": 7000}


def test_many_connects_and_closes_leave_nothing() -> None:
    """A client that makes and drops sockets by the thousand, with linger times of years, leaves nothing behind."""
    bench = Bench()
    app = bench.client()
    for _ in range(3000):
        sock = app.socket()
        app.ok("setsockopt", sock, level=1, option=13, value=b"\1\0\0\0\xff\xff\xff\x7f")
        app.ok("connect", sock, address=REMOTE, port=OPEN)
        app.ok("close", sock)
    state = bench.core._state
    assert (len(state.sockets), len(state.orphans), len(state.asked)) == (0, 0, 0)
    assert len(state.timers) < 1100


def test_settings_at_run_time() -> None:
    """Tunables change while it runs; an unknown one is refused."""
    bench = Bench()
    app = bench.client()
    bench.core.set("sockets_per_client", 1, bench.now)
    app.socket()
    assert app.errno("socket") == errno.EMFILE
    with pytest.raises(ControlError):
        bench.core.set("owner", 1, bench.now)
    with pytest.raises(ControlError):
        bench.core.control(0, "reboot", {}, bench.now)


def script(bench: Bench) -> list[object]:
    """Something of everything, from what bench is in to its end; returns all that the core said."""
    said: list[object] = []
    rng = random.Random(3)
    app = next(iter(bench.clients.values()))
    app.said.clear()
    for _ in range(120):
        known = list(bench.core._state.sockets)
        sock = rng.choice(known) if known else 0
        number = rng.randrange(9)
        if number == 0:
            app.ask("socket")
        elif number == 1:
            app.ask("connect", sock, address=REMOTE, port=rng.choice([OPEN, REFUSED, SILENT]), nonblocking=True)
        elif number == 2:
            app.ask("bind", sock, address=LOCAL, port=rng.randrange(3) * 80)
        elif number == 3:
            app.ask("listen", sock)
            bench.incoming(sock)
        elif number == 4:
            app.ask("accept", sock)
        elif number == 5:
            state = bench.core._state.sockets.get(sock)
            bench.feed(Data(sock, state.received if state else 0, b"x" * 10))
        elif number == 6:
            app.ask("close", sock)
        elif number == 7:
            bench.advance(rng.randrange(3000))
        elif rng.randrange(4) == 0:
            bench.tcp_down()
            bench.advance(rng.randrange(2000))
            bench.tcp_up()
        said += [*bench.to_tcp(), *app.take(), *bench.core.events(), *app.replies.values(), *bench.door]
        app.replies.clear()
        bench.door.clear()
    bench.lose(app)
    bench.client()
    return [*said, *bench.to_tcp(), *bench.core.events(), bench.core.snapshot()]


@pytest.mark.parametrize("pending", [False, True])
def test_restore_has_the_same_future(pending: bool) -> None:
    """A core restored from a snapshot in mid-run says and does exactly what the first one does from there on."""
    futures = []
    for restored in (False, True):
        bench = Bench()
        app = bench.client()
        app.connected()
        app.listening()
        app.ask("connect", app.socket(), address=REMOTE, port=SILENT)
        listener = app.listening(port=99)
        bench.incoming(listener)
        bench.core.events()
        app.replies.clear()
        if pending:
            bench.core.receive(Data(next(iter(bench.core._state.sockets)), 0, b"abc"), bench.now)
        data = bench.core.snapshot()
        if restored:
            bench.core = GatewayCore.restore(bench.config, data)
            assert bench.core.snapshot() == data
            bench.core.interest = True
        futures.append(script(bench))
    assert futures[0] == futures[1]
