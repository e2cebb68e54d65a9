"""The socket calls as the core carries them out with tcp: what tcp is told, what the client is answered."""

from __future__ import annotations

import errno
import struct

import pytest
from gateway_bench import CHILD, LIMIT, LOCAL, OPEN, REFUSED, REMOTE, SILENT, Bench

from gateway import info
from levelip.frames.seam import Bind, Close, Connect, GetInfo, Listen, Released, Result, SetOption, Taken
from levelip.rpc.messages import Pending
from levelip.rpc.stream import Accepted, Data, Eof, Reset, Send

ANY = b"\0\0\0\0"
LINGER_ON_0 = struct.pack("ii", 1, 0)
LINGER_ON_3 = struct.pack("ii", 1, 3)


def linger(app, sock: int, value: bytes) -> None:  # type: ignore[no-untyped-def]
    app.ok("setsockopt", sock, level=1, option=13, value=value)


def test_ids_are_the_epochs() -> None:
    """A socket's id carries 30 bits of the epoch and leaves bit 62 to tcp, so that no id recurs after a restart."""
    first, second = Bench(epoch=5), Bench(epoch=6)
    one, two = first.client().socket(), second.client().socket()
    assert one != two and one >> 32 == 5 and not one >> 62


def test_bind_tells_tcp_and_answers_its_port() -> None:
    """bind() to port 0 answers the port that tcp chose; the options for reuse go along."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("setsockopt", sock, level=1, option=2, value=1)
    assert app.ok("bind", sock, address=ANY, port=0) == {"address": ANY, "port": 40_001}
    assert bench.to_tcp() == [Bind(1, sock, b"", 0, True, False)]
    assert app.ok("getsockname", sock) == {"address": ANY, "port": 40_001}


@pytest.mark.parametrize("code", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
def test_bind_refused_by_tcp(code: int) -> None:
    """What tcp refuses is the errno of bind(), and the socket is as new as before."""
    bench = Bench()
    bench.answering = False
    app = bench.client()
    sock = app.socket()
    asked = app.ask("bind", sock, address=LOCAL, port=80)
    bench.feed(Result(bench.to_tcp()[0].request, code))
    reply = app.reply(asked)
    assert reply is not None and reply.errno == code
    bench.answering = True
    app.ok("bind", sock, address=LOCAL, port=81)


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("bind", {"address": b"x" * 16, "port": 1}, errno.EAFNOSUPPORT),
        ("bind", {"address": b"xyz", "port": 1}, errno.EINVAL),
        ("bind", {"address": ANY, "port": 65_536}, errno.EINVAL),
        ("bind", {"address": ANY}, errno.EINVAL),
        ("bind", {"address": "10.0.0.1", "port": 1}, errno.EINVAL),
        ("bind", {"address": ANY, "port": 1, "more": 1}, errno.EINVAL),
        ("connect", {"address": b"\xe0\0\0\1", "port": 1}, errno.ENETUNREACH),
        ("connect", {"address": b"\xff" * 4, "port": 1}, errno.ENETUNREACH),
        ("connect", {"address": b"x" * 16, "port": 1}, errno.EAFNOSUPPORT),
        ("shutdown", {"how": 3}, errno.EINVAL),
        ("setsockopt", {"level": 1, "option": 2, "value": 1 << 40}, errno.EINVAL),
        ("setsockopt", {"level": 1, "option": 2, "value": 1.5}, errno.EINVAL),
        ("dance", {}, errno.ENOSYS),
    ],
)
def test_bad_arguments(op: str, args: dict[str, object], code: int) -> None:
    """Arguments that are missing, too many, of a wrong type or out of range: EINVAL and the like, and nothing else."""
    bench = Bench()
    app = bench.client()
    assert app.errno(op, app.socket(), **args) == code
    assert bench.to_tcp() == []


def test_ebadf_for_what_is_not_ones_own() -> None:
    """Every call on an unknown socket, another client's, or a connection not yet accepted, is EBADF."""
    bench = Bench()
    mine, other = bench.client(), bench.client()
    foreign = other.listening()
    child = bench.incoming(foreign)
    calls = {
        "bind": {"address": ANY, "port": 0}, "listen": {}, "accept": {}, "connect": {"address": REMOTE, "port": 1},
        "shutdown": {"how": 0}, "close": {}, "setsockopt": {"level": 1, "option": 2, "value": 1},
        "getsockopt": {"level": 1, "option": 2}, "getsockname": {}, "getpeername": {},
    }  # fmt: skip
    for op, args in calls.items():
        for sock in (foreign, child, 12345, 0):
            assert mine.errno(op, sock, **args) == errno.EBADF
        assert other.errno(op, child, **args) == errno.EBADF


def test_listen_binds_a_socket_that_has_no_port() -> None:
    """listen() on a new socket gets a port first, as Linux does (inet_csk_listen_start)."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    assert app.ok("listen", sock, backlog=5)["port"] == 40_001
    assert bench.to_tcp() == [Bind(1, sock, b"", 0), Listen(2, sock, "", 5)]
    assert app.ok("getsockopt", sock, level=1, option=30) == {"value": struct.pack("i", 1)}


@pytest.mark.parametrize(("asked", "told"), [(-1, 4096), (0, 0), (5, 5), (1 << 30, 4096)])
def test_backlog_is_cut(asked: int, told: int) -> None:
    """The backlog is cut to backlog_max; a negative one is that too (Linux takes it as unsigned)."""
    bench = Bench()
    app = bench.client()
    app.ok("listen", app.socket(), backlog=asked)
    assert bench.to_tcp()[-1].backlog == told


def test_listen_again_changes_the_backlog() -> None:
    """A second listen() only changes the backlog."""
    bench = Bench()
    app = bench.client()
    sock = app.listening()
    app.ok("listen", sock, backlog=3)
    assert bench.to_tcp() == [Listen(3, sock, "", 3)]
    assert bench.core.control(0, "ss", {}, 0)["sockets"][0]["send_q"] == 3


def test_connect_answers_the_connection() -> None:
    """A connect is answered when tcp reports it, with both names, rings ("" without memory) and the send credit."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    data = app.ok("connect", sock, address=REMOTE, port=OPEN)
    assert data == {
        "local_address": LOCAL, "local_port": 40_001, "remote_address": REMOTE, "remote_port": OPEN,
        "rings": ["", 0, 0, 0, 0], "limit": LIMIT,
    }  # fmt: skip
    assert bench.to_tcp() == [Connect(sock, "", REMOTE, OPEN)]
    assert app.ok("getpeername", sock) == {"address": REMOTE, "port": OPEN}
    assert app.ok("getsockname", sock) == {"address": LOCAL, "port": 40_001}


def test_connect_to_any_is_to_this_host() -> None:
    """0.0.0.0 as destination is the address that bind() chose, else loopback, as on Linux."""
    bench = Bench()
    app = bench.client()
    app.ask("connect", app.socket(), address=ANY, port=SILENT)
    assert bench.to_tcp()[0].address == b"\x7f\0\0\1"
    sock = app.socket()
    app.ok("bind", sock, address=LOCAL, port=0)
    bench.to_tcp()
    app.ask("connect", sock, address=ANY, port=SILENT)
    assert bench.to_tcp()[0].address == LOCAL


def test_connect_from_a_bound_socket_keeps_its_port_after_failure() -> None:
    """A port that bind() chose serves the next connect too; tcp, which keeps it, is not asked again."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("bind", sock, address=LOCAL, port=7000)
    bench.to_tcp()
    assert app.errno("connect", sock, address=REMOTE, port=REFUSED) == errno.ECONNREFUSED
    assert app.ok("getsockname", sock) == {"address": LOCAL, "port": 7000}
    app.ok("connect", sock, address=REMOTE, port=OPEN)
    assert [type(message) for message in bench.to_tcp()] == [Connect, Connect]


def test_connect_after_bind_to_any_port_takes_a_new_one() -> None:
    """A port that bind(0) was given is lost with a failed connect, the chosen address stays (SOCK_BINDADDR_LOCK)."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("bind", sock, address=LOCAL, port=0)
    bench.to_tcp()
    assert app.errno("connect", sock, address=REMOTE, port=REFUSED) == errno.ECONNREFUSED
    app.ok("connect", sock, address=REMOTE, port=OPEN)
    told = bench.to_tcp()
    assert [type(message) for message in told] == [Connect, Close, Bind, Connect]
    assert (told[2].address, told[2].port) == (LOCAL, 0)


def test_error_of_a_connect_stays_in_so_error() -> None:
    """Unless the connect was blocking, its error can be read by SO_ERROR, once."""
    for nonblocking, expected in ((None, 111), (True, 111), (False, 0)):
        bench = Bench()
        app = bench.client()
        sock = app.socket()
        args = {} if nonblocking is None else {"nonblocking": nonblocking}
        assert app.errno("connect", sock, address=REMOTE, port=REFUSED, **args) == errno.ECONNREFUSED
        seen = [app.ok("getsockopt", sock, level=1, option=4)["value"] for _ in range(2)]
        assert seen == [struct.pack("i", expected), struct.pack("i", 0)]


def test_connect_tells_of_a_connection_that_is_over() -> None:
    """A non-blocking connect succeeded and was reset before anybody asked: the next connect() says so, as on Linux."""
    for asked_before, expected in ((False, errno.ECONNRESET), (True, errno.ECONNABORTED)):
        bench = Bench()
        app = bench.client()
        sock = app.socket()
        app.ok("connect", sock, address=REMOTE, port=OPEN, nonblocking=True)
        bench.feed(Reset(sock, errno.ECONNRESET))
        if asked_before:
            app.ok("getsockopt", sock, level=1, option=4)
        assert app.errno("connect", sock, address=REMOTE, port=OPEN, nonblocking=True) == expected


def test_shutdown_while_connecting_ends_the_connect() -> None:
    """shutdown() during a connect: ECONNRESET for whoever waits, and the socket can connect anew once tcp let go."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    asked = app.ask("connect", sock, address=REMOTE, port=SILENT)
    bench.answering = False
    app.ok("shutdown", sock, how=2)
    reply = app.reply(asked)
    assert reply is not None and reply.errno == errno.ECONNRESET
    bench.to_tcp()
    again = app.ask("connect", sock, address=REMOTE, port=OPEN)
    assert bench.to_tcp() == [], "the id is still in use there"
    bench.answering = True
    bench.feed(Released(sock))
    assert bench.to_tcp() == [Connect(sock, "", REMOTE, OPEN)]
    reply = app.reply(again)
    assert reply is not None and reply.errno == 0


def test_calls_on_one_socket_keep_their_order() -> None:
    """bind, listen and getsockname sent in one go are answered as if they had been called one after the other."""
    bench = Bench()
    bench.answering = False
    app = bench.client()
    sock = app.socket()
    first = app.ask("bind", sock, address=LOCAL, port=0)
    second = app.ask("listen", sock, backlog=4)
    third = app.ask("getsockname", sock)
    assert [type(message) for message in bench.to_tcp()] == [Bind]
    bench.answering = True
    bench.feed(Result(1, 0, {"address": LOCAL, "port": 999}))
    replies = [app.reply(number) for number in (first, second, third)]
    assert [reply.errno for reply in replies if reply] == [0, 0, 0]
    assert replies[2] is not None and replies[2].data == {"address": LOCAL, "port": 999}


def test_too_many_calls_on_one_socket() -> None:
    """No more than 16 calls wait for another one on the same socket: ENOBUFS."""
    bench = Bench()
    bench.answering = False
    app = bench.client()
    sock = app.socket()
    app.ask("bind", sock, address=LOCAL, port=0)
    numbers = [app.ask("getsockname", sock) for _ in range(17)]
    reply = app.reply(numbers[-1])
    assert reply is not None and reply.errno == errno.ENOBUFS
    assert all(app.reply(number) is None for number in numbers[:-1])


def test_accept() -> None:
    """Connections wait in order; each change of their number is told; tcp hears which was taken."""
    bench = Bench()
    app = bench.client()
    listener = app.listening()
    assert app.errno("accept", listener) == errno.EAGAIN
    one, two = bench.incoming(listener), bench.incoming(listener)
    assert app.take() == [Pending(listener, 1), Pending(listener, 2)]
    data = app.ok("accept", listener)
    assert (data["sock"], data["remote_address"], data["remote_port"]) == (one, REMOTE, 50_001)
    assert bench.to_tcp() == [Taken(listener, one)]
    assert app.take() == [Pending(listener, 1)]
    assert app.ok("accept", listener)["sock"] == two
    assert app.errno("accept", listener) == errno.EAGAIN


def test_accept_hands_over_what_came_before() -> None:
    """Bytes, end and reset that came before accept() follow its Reply; none of them is lost, none is early."""
    bench = Bench()
    app = bench.client()
    listener = app.listening()
    child = bench.incoming(listener)
    bench.feed(Data(child, 0, b"abc"))
    bench.feed(Data(child, 3, b"defg"))
    bench.feed(Eof(child, 7))
    assert app.take() == [Pending(listener, 1)]
    app.ok("accept", listener)
    data, eof = app.take()[1:]
    assert (data.offset, data.payload.start, data.payload.length) == (0, 0, 7)
    assert eof == Eof(child, 7)


def test_accept_of_a_connection_that_was_reset() -> None:
    """A connection reset while it waited is accepted all the same (as on Linux) and then reset."""
    bench = Bench()
    app = bench.client()
    listener = app.listening()
    child = bench.incoming(listener)
    bench.feed(Reset(child, errno.ECONNRESET))
    assert app.ok("accept", listener)["sock"] == child
    assert app.take()[-1] == Reset(child, errno.ECONNRESET)
    assert app.errno("getpeername", child) == errno.ENOTCONN


def test_children_inherit_options() -> None:
    """An accepted socket has the options of its listener (Linux: sk_clone_lock), and tcp got them with Listen."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("setsockopt", sock, level=6, option=1, value=1)
    app.ok("setsockopt", sock, level=6, option=4, value=30)
    app.ok("listen", sock, backlog=1)
    assert bench.to_tcp()[-1].options == {"nodelay": 1, "keepidle_ms": 30_000}
    bench.incoming(sock)
    child = app.ok("accept", sock)["sock"]
    assert app.ok("getsockopt", child, level=6, option=4) == {"value": struct.pack("i", 30)}


def test_options_reach_tcp() -> None:
    """What was set before connect goes along with it; what is set later goes at once; what tcp ignores, never."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("setsockopt", sock, level=1, option=7, value=50_000)
    app.ok("setsockopt", sock, level=1, option=13, value=LINGER_ON_3)
    assert bench.to_tcp() == []
    app.ok("connect", sock, address=REMOTE, port=OPEN)
    assert bench.to_tcp() == [Connect(sock, "", REMOTE, OPEN, {"sndbuf": 50_000})]
    app.ok("setsockopt", sock, level=6, option=1, value=1)
    app.ok("setsockopt", sock, level=1, option=6, value=1)
    assert bench.to_tcp() == [SetOption(sock, "nodelay", 1)]


def test_tcp_info_and_maxseg_of_a_connection_come_from_tcp() -> None:
    """TCP_INFO and TCP_MAXSEG of a connection are answered with tcp's figures."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    figures = info.unpack(app.ok("getsockopt", sock, level=6, option=11)["value"])
    assert (figures["state"], figures["rtt"], figures["snd_mss"]) == (1, 1234, 1448)
    assert app.ok("getsockopt", sock, level=6, option=2) == {"value": struct.pack("i", 1448)}
    assert [type(message) for message in bench.to_tcp()] == [GetInfo, GetInfo]
    assert info.unpack(app.ok("getsockopt", app.socket(), level=6, option=11)["value"])["state"] == info.TCP_CLOSE
    listener = app.listening()
    bench.incoming(listener)
    figures = info.unpack(app.ok("getsockopt", listener, level=6, option=11)["value"])
    assert (figures["state"], figures["unacked"], figures["sacked"]) == (info.TCP_LISTEN, 1, 8)


@pytest.mark.parametrize(
    ("close", "received", "lingers", "aborts"),
    [
        ({}, 0, b"", False),
        ({"abort": True}, 0, b"", True),
        ({"unread": True}, 0, b"", True),
        ({}, 0, LINGER_ON_0, True),
        ({}, 10, b"", False),  # relayed: the client says whether it was read
    ],
)
def test_close_aborts_or_not(close: dict[str, bool], received: int, lingers: bytes, aborts: bool) -> None:
    """close() finishes gracefully, but resets with SO_LINGER 0, `abort`, or unread bytes (RFC 2525 2.17)."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    if lingers:
        linger(app, sock, lingers)
    if received:
        bench.feed(Data(sock, 0, b"x" * received))
    app.ok("close", sock, **close)
    assert bench.to_tcp()[-1] == Close(sock, aborts)
    assert app.errno("getsockname", sock) == errno.EBADF


def test_close_lingers() -> None:
    """With SO_LINGER the answer to close() comes when tcp has released the socket."""
    bench = Bench()
    bench.answering = True
    app = bench.client()
    sock = app.connected()
    linger(app, sock, LINGER_ON_3)
    bench.answering = False
    asked = app.ask("close", sock)
    assert bench.to_tcp() == [Close(sock, False)] and app.reply(asked) is None
    bench.advance(2900)
    assert app.reply(asked) is None
    bench.feed(Released(sock))
    reply = app.reply(asked)
    assert reply is not None and reply.errno == 0
    bench.advance(10_000)  # the timer of the same close does nothing any more


def test_close_lingers_no_longer_than_asked() -> None:
    """... or when the time is over, while tcp goes on in the background."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    linger(app, sock, LINGER_ON_3)
    bench.answering = False
    asked = app.ask("close", sock)
    bench.advance(3000)
    assert app.reply(asked) is not None
    bench.feed(Released(sock))


def test_close_of_a_listener_ends_what_waits_there() -> None:
    """Connections that nobody accepted are reset with their listener."""
    bench = Bench()
    app = bench.client()
    listener = app.listening()
    child = bench.incoming(listener)
    app.ok("close", listener)
    assert bench.to_tcp() == [Close(child, True), Close(listener, True)]
    assert bench.core.control(0, "ss", {}, 0) == {"sockets": []}
    bench.feed(Data(child, 0, b"late"))
    assert bench.drops("tcp_unknown") == 1


def test_close_answers_calls_that_are_under_way() -> None:
    """A call that waits when its socket is closed gets EBADF; tcp, which may have bound it, is told."""
    bench = Bench()
    bench.answering = False
    app = bench.client()
    sock = app.socket()
    bind, name = app.ask("bind", sock, address=LOCAL, port=0), app.ask("getsockname", sock)
    app.ok("close", sock)
    replies = [app.reply(bind), app.reply(name)]
    assert [reply.errno for reply in replies if reply] == [errno.EBADF, errno.EBADF]
    assert bench.to_tcp()[-1] == Close(sock, True)
    bench.feed(Result(1, 0, {"address": LOCAL, "port": 1}))  # too late, and harmless


def test_incoming_for_nobody_is_refused() -> None:
    """A connection for a listener that is gone is reset at tcp."""
    bench = Bench()
    app = bench.client()
    listener = app.listening()
    app.ok("shutdown", listener, how=0)
    bench.to_tcp()
    child = bench.incoming(listener)
    assert bench.to_tcp() == [Close(child, True)]
    assert child & CHILD


def test_limits() -> None:
    """A client has no more sockets than it may: EMFILE for socket() and accept(); a waiting connection stays."""
    bench = Bench(sockets_per_client=2)
    app = bench.client()
    listener = app.listening()
    bench.incoming(listener)
    extra = app.socket()
    assert app.errno("socket") == errno.EMFILE
    assert app.errno("accept", listener) == errno.EMFILE
    app.ok("close", extra)
    app.ok("accept", listener)


def test_released_in_good_order_closes_the_connection() -> None:
    """When both directions have ended and tcp lets go, the socket is as Linux's TCP_CLOSE: ENOTCONN, EISCONN."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    bench.feed(Eof(sock, 0))
    app.send(Eof(sock, 0))
    bench.feed(Released(sock))
    assert app.errno("getpeername", sock) == errno.ENOTCONN
    assert app.errno("connect", sock, address=REMOTE, port=OPEN) == errno.EISCONN
    app.send(Send(sock, 0, 1, b"x"))
    assert bench.drops("wrong_state") == 1


def test_each_call_is_an_event() -> None:
    """Every settled call shows as an event with its errno; failures are counted by errno."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    bench.core.events()
    app.errno("getpeername", sock)
    calls = [event.data for event in bench.core.events() if event.kind == "call"]
    assert calls == [{"op": "getpeername", "sock": sock, "errno": errno.ENOTCONN, "pid": app.pid}]
    assert bench.core.counters["errno.ENOTCONN"] == 1
    bench.core.interest = False
    app.errno("getpeername", sock)
    assert bench.core.events() == []


def test_what_is_configured_of_name_resolution() -> None:
    """`resolver` tells the three settings as they are now: servers, domains, options; it needs no socket."""
    bench = Bench(dns_servers=["192.0.2.53"], dns_search=["example.org"], dns_options=["ndots:2"])
    client = bench.client()
    assert client.ok("resolver") == {"servers": ["192.0.2.53"], "search": ["example.org"], "options": ["ndots:2"]}
    bench.core.set("dns_servers", ["192.0.2.54", "192.0.2.55"], 0)
    assert client.ok("resolver")["servers"] == ["192.0.2.54", "192.0.2.55"]
    assert client.errno("resolver", family=2) == errno.EINVAL


def test_connect_with_no_address_ends_a_connection() -> None:
    """tcp aborts it, and what it says of it afterwards is of no meaning to the connection that follows, which waits
    until the id is free and begins at offset 0."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.send(Send(sock, 0, 5, b"bytes"))
    bench.answering = False
    bench.to_tcp()
    app.ok("connect", sock, address=b"", port=0)
    asked = app.ask("connect", sock, address=REMOTE, port=OPEN)
    app.take()
    for stale in (Accepted(sock, 5, 2 * LIMIT), Data(sock, 0, b"late"), Eof(sock, 4), Reset(sock, 0)):
        bench.feed(stale)
    assert bench.to_tcp() == [Close(sock, True)] and not app.take()
    assert bench.drops("tcp_unknown") == 4
    bench.answering = True
    bench.feed(Released(sock))
    reply = app.reply(asked)
    assert reply is not None and not reply.errno and reply.data["limit"] == LIMIT
    app.send(Send(sock, 0, 3, b"new"))
    assert bench.to_tcp()[-1] == Send(sock, 0, 3, b"new")


def test_connect_with_no_address_ends_a_connect_that_waits() -> None:
    """The caller of the one is told ECONNRESET; a success that crosses it is not that of the next one."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    waiting = app.ask("connect", sock, address=REMOTE, port=SILENT, nonblocking=False)
    connect = bench.to_tcp()[-1]
    bench.answering = False
    app.ok("connect", sock, address=b"", port=0)
    reply = app.reply(waiting)
    assert reply is not None and reply.errno == errno.ECONNRESET
    next_one = app.ask("connect", sock, address=REMOTE, port=OPEN)
    bench.connect(connect)
    assert app.reply(next_one) is None and bench.drops("tcp_unknown") == 1
    bench.answering = True
    bench.feed(Released(sock))
    reply = app.reply(next_one)
    assert reply is not None and not reply.errno


def test_connect_with_no_address_ends_listening() -> None:
    """Connections that wait are reset, as is one that tcp reports meanwhile; the client hears that none waits."""
    bench = Bench()
    app = bench.client()
    sock = app.listening()
    child = bench.incoming(sock)
    app.take()
    app.ok("connect", sock, address=b"", port=0)
    assert app.take() == [Pending(sock, 0)]
    told = bench.to_tcp()
    assert Close(sock, True) in told and Close(child, True) in told
    late = bench.incoming(sock)
    assert Close(late, True) in bench.to_tcp() and app.errno("accept", sock) == errno.EINVAL
    app.ok("listen", sock, backlog=1)
