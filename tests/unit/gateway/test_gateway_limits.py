"""No client takes what belongs to all: sockets, sessions, calls under way and bytes inline are bounded, each with an
error that names the setting, and others go on."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from levelip.frames.seam import Connect
from levelip.rpc.messages import Refused, Request, SendDatagram, Welcome
from levelip.rpc.stream import Consumed, Data
from tests.unit.gateway.datagram_bench import DatagramBench
from tests.unit.gateway.gateway_bench import OPEN, REMOTE, SILENT, Bench, Client

OWNER, ALICE, BOB = 1000, 2000, 3000


def told(app: Client, op: str, sock: int = 0, **args: Any) -> tuple[int, str]:
    reply = app.call(op, sock, **args)
    assert reply is not None
    return reply.errno, reply.message


def test_a_million_sockets() -> None:
    """A client has `sockets_per_client`, whatever it asks for; then EMFILE until it closes one. Others go on."""
    bench = Bench(sockets_per_client=100)
    greedy, other = bench.client(), bench.client()
    socks = [greedy.socket() for _ in range(100)]
    for _ in range(1000):
        assert told(greedy, "socket") == (errno.EMFILE, "100 sockets a client (gateway.sockets_per_client)")
    other.socket()
    greedy.ok("close", socks[0])
    greedy.socket()
    assert bench.core.counters["errno.EMFILE"] == 1000


def test_sockets_of_a_user() -> None:
    """A user does not get more by more clients; the stack's own user is bounded by the whole alone."""
    bench = Bench(sockets_per_user=10, sockets=40)
    clients = [bench.client(uid=ALICE) for _ in range(5)]
    for app in clients:
        app.socket()
        app.socket()
    for app in clients:
        assert told(app, "socket") == (errno.ENFILE, "10 sockets a user (gateway.sockets_per_user)")
    bob, owner = bench.client(uid=BOB), bench.client(uid=OWNER)
    bob.socket()
    for _ in range(29):
        owner.socket()
    for app in (bob, owner):
        assert told(app, "socket") == (errno.ENFILE, "40 sockets of all clients (gateway.sockets)")


def test_an_accepted_connection_counts() -> None:
    """accept() is bounded as socket() is, and the connection waits on."""
    bench = Bench(sockets_per_client=1)
    app = bench.client()
    listener = app.listening()
    bench.incoming(listener)
    assert told(app, "accept", listener)[0] == errno.EMFILE
    bench.core.set("sockets_per_client", 2, bench.now)
    app.ok("accept", listener)


def test_datagram_sockets_count() -> None:
    """They are bounded together with the others: a client's, a user's and all; close() makes room."""
    bench = DatagramBench(sockets_per_client=3, sockets_per_user=5, sockets=7)
    owner, alice, other = bench.app, bench.client(uid=ALICE), bench.client(uid=ALICE)
    alice.socket()
    sock = alice.ok("socket", type=2)["sock"]
    alice.ok("socket", type=2)
    for kind in (1, 2):
        assert told(alice, "socket", type=kind) == (errno.EMFILE, "3 sockets a client (gateway.sockets_per_client)")
    other.ok("socket", type=2)
    other.ok("socket", type=2)
    for kind in (1, 2):
        assert told(other, "socket", type=kind) == (errno.ENFILE, "5 sockets a user (gateway.sockets_per_user)")
    owner.ok("socket", type=2)
    owner.socket()
    for kind in (1, 2):
        assert told(owner, "socket", type=kind) == (errno.ENFILE, "7 sockets of all clients (gateway.sockets)")
    alice.ok("close", sock)
    owner.ok("socket", type=2)


def test_datagrams_that_are_to_be_answered_count() -> None:
    """SendDatagram with a request is a call until its Reply; one without is not. Each is answered once."""
    bench = DatagramBench(calls_per_client=3)
    sock = bench.socket("connected")
    bench.hold = True
    for request in (101, 102, 103, 104):
        bench.app.send(SendDatagram(sock, b"", 0, b"x", request))
    for _ in range(10):
        bench.app.send(SendDatagram(sock, b"", 0, b"y"))
    text = "3 calls of one client at once (gateway.calls_per_client)"
    late = bench.answer(104)
    assert (late.errno, late.message) == (errno.ENOBUFS, text)
    assert told(bench.app, "getsockname", sock) == (errno.ENOBUFS, text)
    bench.hold = False
    bench.flush()
    assert [bench.answer(request).errno for request in (101, 102, 103)] == [0, 0, 0]
    assert len(bench.sent()) == 13
    bench.app.send(SendDatagram(1, b"", 0, b"x", 105))
    bench.app.ok("getsockname", sock)
    assert bench.answer(105).errno == errno.EBADF
    (session,) = bench.core._state.sessions.values()
    assert session.calls == 0


def test_calls_on_datagram_sockets_are_all_counted_off() -> None:
    """Those that wait for udp or behind another, and end with it or with their socket: none is counted for ever."""
    bench = DatagramBench()
    first, second = bench.socket(), bench.socket()
    bench.hold = True
    for sock in (first, second):
        bench.app.ask("bind", sock, address=b"", port=0)
        bench.app.ask("getsockname", sock)
        bench.app.send(SendDatagram(sock, REMOTE, 53, b"x", 100 + sock % 100))
    (session,) = bench.core._state.sessions.values()
    assert session.calls == 6
    bench.app.ask("close", first)
    assert session.calls == 4
    bench.udp_down()
    assert session.calls == 0


def test_clients_of_a_user() -> None:
    """A user may not take all sessions; a session that ends makes room."""
    bench = Bench(clients=6, clients_per_user=2)
    first, _ = bench.client(uid=ALICE), bench.client(uid=ALICE)
    third = bench.client(uid=ALICE, hello=False)
    text = "2 clients of user 2000 are here (gateway.clients_per_user)"
    assert third.hello() == Refused(errno.EUSERS, text) and bench.drops("client_limit") == 1
    bench.client(uid=BOB)
    for _ in range(3):
        bench.client(uid=OWNER)
    late = bench.client(uid=OWNER, hello=False)
    assert late.hello() == Refused(errno.EUSERS, "6 clients are here (gateway.clients)")
    bench.lose(first)
    assert isinstance(third.hello(), Welcome)
    assert isinstance(late.hello(), Refused)
    bench.lose(third, dead=False)  # one that may come back goes for one that is here, if it is the same user's
    assert isinstance(late.hello(), Refused)
    assert isinstance(bench.client(uid=ALICE, hello=False).hello(), Welcome)


def test_calls_under_way() -> None:
    """Calls that are not answered yet are bounded, on however many sockets; an answer makes room for the next."""
    bench = Bench(calls_per_client=3)
    app, other = bench.client(), bench.client()
    socks = [app.socket() for _ in range(4)]
    for sock in socks[:3]:
        assert app.call("connect", sock, address=REMOTE, port=SILENT) is None
    text = "3 calls of one client at once (gateway.calls_per_client)"
    for op in ("connect", "socket", "nonsense"):
        assert told(app, op, socks[3], address=REMOTE, port=OPEN) == (errno.ENOBUFS, text)
    app.ok("close", socks[2])  # closing makes room, and is never refused
    asked = [message for message in bench.to_tcp() if isinstance(message, Connect)]
    other.connected()
    app.ok("getsockname", socks[3])
    bench.connect(asked[0])
    app.ok("connect", socks[3], address=REMOTE, port=OPEN)
    rows = {row["pid"]: row["calls"] for row in bench.core.control(0, "clients", {}, bench.now)["clients"]}
    assert rows == {app.pid: 1, other.pid: 0}


def test_every_answer_is_counted() -> None:
    """Calls that wait for tcp, wait behind another, fail, or end with their socket: none is counted for ever."""
    bench = Bench(tcp_up=False)
    app = bench.client()
    first, second = app.socket(), app.socket()
    for sock in (first, second):
        app.send(Request(1, "bind", sock, {"address": b"", "port": 0}))
        app.send(Request(2, "listen", sock, {}))
        app.replies.clear()
    (session,) = bench.core._state.sessions.values()
    assert session.calls == 4
    app.send(Request(9, "close", first, {}))
    assert session.calls == 2
    app.replies.clear()
    bench.tcp_up()
    assert session.calls == 0


@pytest.mark.parametrize("field", ["value", "address"])
def test_long_arguments_are_not_kept(field: str) -> None:
    """An argument may be no longer than any use of it."""
    app = Bench().client()
    sock = app.socket()
    if field == "value":
        assert app.errno("setsockopt", sock, level=6, option=13, value=b"x" * 5000) == errno.EINVAL
    else:
        assert app.errno("bind", sock, address=b"x" * 5000, port=0) == errno.EINVAL


def arrives(bench: Bench, sock: int, size: int, *, piece: int = 50_000) -> None:
    received = bench.core._state.sockets[sock]
    for _ in range(0, size, piece):
        place = received.rings.receive(received.received, piece) if received.rings else b""
        bench.feed(Data(sock, received.received, place))


def under_way(app: Client) -> dict[int, int]:
    """Bytes by socket in the Data it was told."""
    sizes: dict[int, int] = {}
    for message in app.take():
        if isinstance(message, Data):
            sizes[message.sock] = sizes.get(message.sock, 0) + len(message.payload)
    return sizes


def test_a_client_that_never_reads_inline() -> None:
    """All its sockets together have `client_inline` bytes under way; the rest waits in the rings, and comes as it
    reads, every byte once."""
    bench = Bench(client_inline=1_000_000, rpc_inline_credit=400_000)
    app, other = bench.client(), bench.client()
    socks = [app.connected() for _ in range(5)]
    app.take()
    for sock in socks:
        arrives(bench, sock, 600_000)
    got = under_way(app)
    assert sum(got.values()) <= 1_000_000 and max(got.values()) <= 400_000 and len(got) >= 3
    theirs = other.connected()
    arrives(bench, theirs, 300_000)
    assert under_way(other) == {theirs: 300_000}
    for _ in range(100):
        if all(got.get(sock) == 600_000 for sock in socks):
            break
        for sock, size in list(got.items()):
            app.send(Consumed(sock, size))
        for sock, size in under_way(app).items():
            got[sock] = got.get(sock, 0) + size
    assert got == dict.fromkeys(socks, 600_000)


def test_a_closed_socket_makes_room() -> None:
    """What was under way to a socket that is closed unread counts no longer: those that starved for it go on."""
    bench = Bench(client_inline=300_000, rpc_inline_credit=400_000)
    app = bench.client()
    first, second = app.connected(), app.connected()
    app.take()
    arrives(bench, first, 300_000)
    arrives(bench, second, 300_000)
    assert under_way(app) == {first: 300_000}
    app.call("close", first, unread=True)
    assert under_way(app)[second] >= 200_000
