"""Clients that come, come back, offer memory, and die."""

from __future__ import annotations

import errno

import pytest
from gateway_bench import OPEN, REMOTE, Bench

from levelip.frames.seam import Close, ForgetClient, ForgetMemory, FromClient, Probe, Released
from levelip.rpc.messages import Hello, Pending, Refused, Reply, Request, Welcome
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send

MEMORY = "0123456789abcdef" * 2


def test_hello() -> None:
    """Welcome names the epoch, a token, and the memory that a client may make."""
    bench = Bench()
    welcome = bench.client(hello=False).hello()
    slot = bench.config.tcp.send_ring + bench.config.tcp.receive_ring
    assert welcome == Welcome(1, 7, welcome.token, "/mem", slot, bench.config.tcp.connections)
    assert len(welcome.token) == 16


def test_hello_of_another_version() -> None:
    """Another version of the protocol is refused, with our version in the text."""
    bench = Bench()
    answer = bench.client(hello=False).hello(version=2)
    assert isinstance(answer, Refused) and answer.errno == errno.EPROTONOSUPPORT
    assert bench.door == [ForgetClient(b"peer1")] and bench.drops("client_version") == 1


def test_nothing_before_hello() -> None:
    """A request or stream message of a client that has not said Hello is refused."""
    bench = Bench()
    app = bench.client(hello=False)
    for message in (Request(1, "socket", 0, {}), Send(1, 0, 0)):
        app.send(message)
    assert [type(message) for message in app.take()] == [Refused, Refused]
    assert bench.drops("no_session") == 2


@pytest.mark.parametrize(("uid", "welcome"), [(1000, True), (0, True), (1001, False)])
def test_door_for_the_owner_alone(uid: int, welcome: bool) -> None:
    """With door_mode "owner" other users are refused; root is not."""
    bench = Bench(door_mode="owner")
    answer = bench.client(uid=uid, hello=False).hello()
    assert isinstance(answer, Welcome) is welcome
    assert bench.drops("door_closed") == (0 if welcome else 1)


def test_number_of_clients_is_limited() -> None:
    """One client too many is refused; when another has gone, there is room again."""
    bench = Bench(clients=2)
    one = bench.client()
    bench.client()
    late = bench.client(hello=False)
    assert isinstance(late.hello(), Refused) and bench.drops("client_limit") == 1
    bench.lose(one)
    assert isinstance(late.hello(), Welcome)


def test_memory() -> None:
    """A client that has made its file gets its sockets' rings there."""
    bench = Bench()
    app = bench.client()
    assert isinstance(app.hello(token=app.token, memory=MEMORY), Welcome)
    sock = app.socket()
    rings = app.ok("connect", sock, address=REMOTE, port=OPEN)["rings"]
    assert rings[0] == MEMORY and rings[4] > 0
    assert bench.to_tcp()[0].region == MEMORY


@pytest.mark.parametrize(
    ("name", "found"), [("../../etc/passwd", 0), ("x", 0), (MEMORY.upper(), 0), (MEMORY, errno.EACCES)]
)
def test_memory_that_cannot_be(name: str, found: int) -> None:
    """A name that is no name of a file there, or a file that the shell found wanting, is refused; the client stays."""
    bench = Bench()
    app = bench.client()
    assert isinstance(app.hello(token=app.token, memory=name, memory_errno=found), Refused)
    assert bench.drops("bad_memory") == 1
    app.ok("connect", app.socket(), address=REMOTE, port=OPEN)
    assert bench.to_tcp()[0].region == ""


def test_memory_of_another_session() -> None:
    """Two sessions cannot share a file, and a session has one only."""
    bench = Bench()
    one, two = bench.client(), bench.client()
    one.hello(token=one.token, memory=MEMORY)
    assert isinstance(two.hello(token=two.token, memory=MEMORY), Refused)
    assert isinstance(one.hello(token=one.token, memory="f" * 32), Refused)


def test_death_closes_everything() -> None:
    """A client's death closes its sockets: by FIN where it had told the stream's end and had read all, else by RST, as
    what its program wrote last may be lost; listeners end with what waits there."""
    bench = Bench()
    app = bench.client()
    ended, unread, midway, opening = app.connected(), app.connected(), app.connected(), app.socket()
    listener = app.listening()
    child = bench.incoming(listener)
    bench.feed(Data(unread, 0, b"x"))
    bench.feed(Data(ended, 0, b"x"))
    app.send(Consumed(ended, 1))
    for sock in (ended, unread):
        app.send(Eof(sock, 0))
    app.socket()
    bench.answering = False
    app.ask("connect", opening, address=REMOTE, port=OPEN)
    bench.to_tcp()
    bench.lose(app)
    assert bench.to_tcp() == [
        Close(ended, False), Close(unread, True), Close(midway, True), Close(opening, True), Close(child, True),
        Close(listener, True),
    ]  # fmt: skip
    assert bench.core.control(0, "clients", {}, 0) == {"clients": []}
    assert bench.door == [ForgetClient(app.peer)]


def test_memory_outlives_its_client_until_all_is_sent() -> None:
    """The file of a dead client is removed once tcp has released the last socket whose bytes lie in it."""
    bench = Bench()
    app = bench.client()
    app.hello(token=app.token, memory=MEMORY)
    one, two = app.connected(), app.connected()
    bench.answering = False
    app.ok("close", one)
    bench.lose(app)
    assert bench.door == [ForgetClient(app.peer)]
    bench.feed(Released(one))
    assert ForgetMemory(MEMORY) not in bench.door
    bench.feed(Released(two))
    assert bench.door[-1] == ForgetMemory(MEMORY)


def test_a_broken_connection_may_come_back() -> None:
    """A client whose connection broke finds its sockets again with its token, and is told all that it may have missed:
    bytes from where it consumed, the end, its credit, waiting connections, late answers."""
    bench = Bench()
    app = bench.client()
    app.hello(token=app.token, memory=MEMORY)
    sock, listener = app.connected(), app.listening()
    bench.feed(Data(sock, 0, b"x" * 100))
    app.send(Consumed(sock, 40))
    bench.lose(app, dead=False)
    bench.feed(Data(sock, 100, b"y" * 50))
    bench.feed(Eof(sock, 150))
    bench.incoming(listener)
    again = bench.client(hello=False, pid=app.pid)
    assert isinstance(again.hello(token=app.token), Welcome)
    accepted, data, eof, pending = again.take()[1:]
    assert accepted == Accepted(sock, 0, 100_000)
    assert (data.offset, data.payload.start, data.payload.length) == (40, 40, 110)
    assert (eof, pending) == (Eof(sock, 150), Pending(listener, 1))
    again.ok("getpeername", sock)
    bench.advance(60_000)
    again.ok("getpeername", sock)


def test_late_answers_wait_for_the_client() -> None:
    """A connect that is settled while the client is away is answered when it is back."""
    bench = Bench()
    bench.answering = False
    app = bench.client()
    sock = app.socket()
    number = app.ask("connect", sock, address=REMOTE, port=OPEN)
    bench.lose(app, dead=False)
    bench.feed(Reset(sock, errno.ECONNREFUSED))
    again = bench.client(hello=False)
    again.hello(token=app.token)
    assert again.reply(number) == Reply(number, errno.ECONNREFUSED)


def test_who_does_not_come_back_is_given_up() -> None:
    """After rejoin_ms the sockets of a broken connection are closed."""
    bench = Bench(rejoin_ms=3000)
    app = bench.client()
    sock = app.connected()
    bench.lose(app, dead=False)
    bench.advance(2999)
    assert bench.to_tcp() == []
    bench.advance(1)
    assert bench.to_tcp() == [Close(sock, True)]
    late = bench.client(hello=False)
    assert late.hello(token=app.token).token != app.token


def test_a_token_serves_its_user_only() -> None:
    """Another user with somebody's token gets a session of its own."""
    bench = Bench()
    app = bench.client(uid=1000)
    sock = app.socket()
    thief = bench.client(uid=1001, hello=False)
    thief.hello(token=app.token)
    assert thief.errno("getsockname", sock) == errno.EBADF
    app.ok("getsockname", sock)


def test_a_session_moves_to_its_new_connection() -> None:
    """With the token a session moves even if the old connection was not seen to break."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    again = bench.client(hello=False)
    again.hello(token=app.token)
    again.ok("getsockname", sock)
    assert bench.door == [ForgetClient(app.peer)]
    app.send(Request(9, "getsockname", sock, {}))
    assert bench.drops("no_session") == 1


def test_another_process_under_the_same_name() -> None:
    """A routing id that another process uses now is another client: the first one's sockets are closed, none is
    inherited."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    bench.feed(FromClient(app.peer, app.uid, app.pid + 1, Request(1, "getpeername", sock, {})))
    assert bench.to_tcp() == [Close(sock, True)] and bench.drops("no_session") == 1


def test_hello_twice() -> None:
    """A repeated first Hello is answered alike; one that has forgotten its sockets begins anew."""
    bench = Bench()
    app = bench.client()
    token = app.token
    assert app.hello().token == token
    sock = app.connected()
    assert app.hello().token != token
    assert bench.to_tcp() == [Close(sock, True)]


def test_connections_are_probed() -> None:
    """Every probe_ms the shell looks whether the connections of clients still stand; without clients no timer runs."""
    bench = Bench(probe_ms=1000)
    assert bench.core.next_timer() is None
    app = bench.client()
    bench.advance(2500)
    assert bench.door == [Probe(app.peer), Probe(app.peer)]
    bench.lose(app)
    bench.advance(1000)
    assert bench.core.next_timer() is None
    bench.client(hello=False).send(Hello(1, "x"))
    assert bench.core.next_timer() is not None


def test_rows_of_ss_and_clients() -> None:
    """`ss` shows each socket with its owner, names and queues."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    listener = app.listening(port=8080)
    bench.incoming(listener)
    bench.feed(Data(sock, 0, b"abc"))
    app.send(Send(sock, 0, 5, b"hello"))
    rows = {row["sock"]: row for row in bench.core.control(0, "ss", {}, 0)["sockets"]}
    row = rows[sock]
    assert (row["state"], row["pid"], row["uid"], row["recv_q"], row["send_q"]) == ("connected", app.pid, 1000, 3, 5)
    assert (row["local_address"], row["remote_address"], row["remote_port"]) == ("10.0.0.2", "10.0.0.1", OPEN)
    row = rows[listener]
    assert (row["state"], row["local_port"], row["recv_q"], row["send_q"]) == ("listening", 8080, 1, 8)
    client = bench.core.control(0, "clients", {}, 0)["clients"][0]
    assert (client["pid"], client["sockets"], client["software"]) == (app.pid, 2, "test")
