"""The gateway's core with the real tcp core behind it, in virtual time; ip is a loop that brings every segment back."""

from __future__ import annotations

import errno
import random
import struct
from typing import Any

import msgspec
import pytest

from gateway import info
from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from gateway.state import Socket
from layers.tcp.config import TcpCoreConfig
from layers.tcp.core import TcpCore
from levelip.config import TcpConfig
from levelip.frames.packet import Checksum, Route, Routes
from levelip.frames.seam import ClientLost, ForClient, ForgetMemory, FromClient, NeighbourUp
from levelip.rpc.messages import Hello, Pending, Reply, Request, Welcome
from levelip.rpc.place import Rings
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send
from tests.netsim.net import FakeMemory

MS = 1_000_000
HERE = b"\x7f\0\0\1"
MEMORY = "ab" * 16
RING = 65_536


class App:
    """A client that keeps what arrives for each socket, and consumes at once unless told not to."""

    def __init__(self, stack: Stack, peer: bytes, memory: str) -> None:
        self.stack = stack
        self.peer = peer
        self.pid = 1 + len(stack.apps)
        self.memory = memory
        self.received: dict[int, bytearray] = {}
        self.ended: dict[int, int] = {}
        self.resets: dict[int, int] = {}
        self.limits: dict[int, int] = {}
        self.rings: dict[int, Rings] = {}
        self.pending: dict[int, int] = {}
        self.replies: dict[int, Reply] = {}
        self.number = 0
        self.reads = True
        stack.apps[peer] = self
        self.token = b""
        self.say(Hello(1, "app"))
        if memory:
            self.say(Hello(1, "app", self.token, memory))

    def say(self, *messages: Any) -> None:
        for message in messages:
            self.stack.gateway.receive(FromClient(self.peer, 0, self.pid, message), self.stack.now)
        self.stack.settle()

    def hear(self, message: Any) -> None:
        match message:
            case Welcome():
                self.token = message.token
            case Reply():
                self.replies[message.request] = message
            case Pending():
                self.pending[message.sock] = message.count
            case Data():
                got = self.received.setdefault(message.sock, bytearray())
                assert message.offset == len(got), "a gap"
                got += self.stack.memory.read(message.payload)
                if self.reads:
                    consumed = FromClient(self.peer, 0, self.pid, Consumed(message.sock, len(got)))
                    self.stack.gateway.receive(consumed, self.stack.now)
            case Eof():
                assert message.at == len(self.received.get(message.sock, b""))
                self.ended[message.sock] = message.at
            case Reset():
                self.resets[message.sock] = message.errno
            case Accepted():
                self.limits[message.sock] = message.limit

    def ask(self, op: str, sock: int = 0, **args: Any) -> int:
        self.number += 1
        self.say(Request(self.number, op, sock, args))
        return self.number

    def call(self, op: str, sock: int = 0, **args: Any) -> Reply:
        reply = self.replies[self.ask(op, sock, **args)]
        if not reply.errno and "rings" in reply.data:
            child = reply.data.get("sock", sock)
            self.rings[child] = Rings(*reply.data["rings"])
            self.limits[child] = max(self.limits.get(child, 0), reply.data["limit"])
        return reply

    def ok(self, op: str, sock: int = 0, **args: Any) -> dict[str, Any]:
        reply = self.call(op, sock, **args)
        assert reply.errno == 0, reply
        return reply.data

    def socket(self) -> int:
        number: int = self.ok("socket")["sock"]
        return number

    def listener(self, port: int, backlog: int = 8) -> int:
        sock = self.socket()
        self.ok("bind", sock, address=HERE, port=port)
        self.ok("listen", sock, backlog=backlog)
        return sock

    def connect(self, port: int) -> int:
        sock = self.socket()
        self.ok("connect", sock, address=HERE, port=port)
        return sock

    def write(self, sock: int, data: bytes) -> None:
        """Send all of it, as credit comes."""
        at = 0
        for _ in range(10_000):
            piece = data[at : min(self.limits[sock], at + 16_384)]
            if piece and self.memory:
                self.stack.memory.store(self.rings[sock].send(at, len(piece)), piece)
                self.say(Send(sock, at, len(piece)))
            elif piece:
                self.say(Send(sock, at, len(piece), piece))
            else:
                self.stack.advance(10)
            at += len(piece)
            if at == len(data):
                self.say(Eof(sock, at))
                return
        raise AssertionError("no credit")


class Stack:
    """Two cores and a clock."""

    def __init__(self) -> None:
        self.now = 1000 * MS
        tcp = TcpConfig(
            send_ring=RING, receive_ring=RING, send_buffer=RING, receive_buffer=RING, connections=8, time_wait_ms=1000
        )
        self.memory = FakeMemory()
        config = GatewayCoreConfig(tcp=tcp, epoch=9, memory_dir="/mem")
        self.gateway = GatewayCore(config, random.Random(1), self.now)
        self.tcp = TcpCore(TcpCoreConfig(tcp=tcp, epoch=3), random.Random(2), self.now)
        self.apps: dict[bytes, App] = {}
        self.forgotten: list[str] = []
        route = Route(prefix=b"\x7f\0\0\0", length=8, source=HERE, mtu=16_384, gso_max=0)
        self.tcp.receive(NeighbourUp("ip", 1), self.now)
        self.tcp.receive(Routes([route], [HERE]), self.now)
        self.tcp.receive(NeighbourUp("gateway", 9), self.now)
        self.gateway.receive(NeighbourUp("tcp", 3), self.now)
        self.settle()
        self.advance(1000)  # errors of a young tcp are not believed

    def settle(self) -> None:
        """Pass everything on until nobody has anything to say."""
        for _ in range(20_000):
            said = False
            for port, frame in self.gateway.outgoing({}):
                said = True
                if port == "tcp":
                    self.tcp.receive(frame, self.now)
                elif isinstance(frame, ForClient) and frame.peer in self.apps:
                    self.apps[frame.peer].hear(frame.message)
                elif isinstance(frame, ForgetMemory):
                    self.forgotten.append(frame.region)
            for port, frame in self.tcp.outgoing({}):
                said = True
                if port == "memory":
                    self.memory.store(frame.place, frame.payload)
                elif port == "gateway":
                    self.gateway.receive(frame, self.now)
                elif port == "ip":
                    payload = self.memory.read(frame.payload)
                    back = msgspec.structs.replace(frame, payload=payload, checksum=Checksum.VERIFIED)
                    self.tcp.receive(back, self.now)
            if not said:
                return
        raise AssertionError("they never stop")

    def advance(self, ms: int) -> None:
        """Let time pass."""
        end = self.now + ms * MS
        while True:
            dues = [due for core in (self.gateway, self.tcp) if (due := core.next_timer()) is not None and due <= end]
            if not dues:
                break
            self.now = max(self.now, min(dues))
            self.gateway.handle_timer(self.now)
            self.tcp.handle_timer(self.now)
            self.settle()
        self.now = end


@pytest.mark.parametrize("memory", ["", MEMORY], ids=["inline", "shared"])
def test_bytes_both_ways(memory: str) -> None:
    """A connection from one application to another of the same stack: every byte both ways, ends, and nothing left."""
    stack = Stack()
    server, client = App(stack, b"s", ""), App(stack, b"c", memory)
    listener = server.listener(80)
    sock = client.connect(80)
    assert server.pending == {listener: 1}
    child = server.ok("accept", listener)["sock"]
    up, down = random.Random(1).randbytes(300_000), random.Random(2).randbytes(250_000)
    client.write(sock, up)
    server.write(child, down)
    stack.advance(5000)
    assert bytes(server.received[child]) == up and bytes(client.received[sock]) == down
    assert (server.ended[child], client.ended[sock]) == (len(up), len(down))
    client.ok("close", sock)
    server.ok("close", child)
    server.ok("close", listener)
    stack.advance(5000)
    assert stack.gateway.control(0, "ss", {}, stack.now) == {"sockets": []}
    assert not stack.gateway._state.orphans


def test_errors_are_told() -> None:
    """Nobody listens: ECONNREFUSED. A port in use: EADDRINUSE. A foreign address: EADDRNOTAVAIL."""
    stack = Stack()
    app = App(stack, b"a", "")
    assert app.call("connect", app.socket(), address=HERE, port=81).errno == errno.ECONNREFUSED
    app.listener(80)
    assert app.call("bind", app.socket(), address=HERE, port=80).errno == errno.EADDRINUSE
    assert app.call("bind", app.socket(), address=b"\1\2\3\4", port=80).errno == errno.EADDRNOTAVAIL
    assert app.call("connect", app.socket(), address=b"\1\2\3\4", port=80).errno == errno.ENETUNREACH


def test_a_bound_socket_tries_again() -> None:
    """A socket bound to a port connects from it, also after it was refused once."""
    stack = Stack()
    app = App(stack, b"a", "")
    sock = app.socket()
    app.ok("bind", sock, address=HERE, port=5000)
    assert app.call("connect", sock, address=HERE, port=80).errno == errno.ECONNREFUSED
    listener = app.listener(80)
    assert app.ok("connect", sock, address=HERE, port=80)["local_port"] == 5000
    assert app.ok("accept", listener)["remote_port"] == 5000


def test_listener_that_was_shut_listens_again() -> None:
    """shutdown(SHUT_RD) ends a listener's connections that wait; it can listen again on its port."""
    stack = Stack()
    app = App(stack, b"a", "")
    listener = app.listener(80)
    sock = app.connect(80)
    app.ok("shutdown", listener, how=0)
    assert app.resets[sock] == errno.ECONNRESET
    app.ok("listen", listener, backlog=3)
    assert app.ok("getsockname", listener)["port"] == 80
    app.connect(80)
    app.ok("accept", listener)


def test_resets() -> None:
    """SO_LINGER 0, unread bytes, and a client's Reset each make the peer see ECONNRESET, once in SO_ERROR."""
    for how in ("linger", "unread", "reset"):
        stack = Stack()
        app = App(stack, b"a", "")
        listener = app.listener(80)
        sock = app.connect(80)
        child = app.ok("accept", listener)["sock"]
        if how == "linger":
            app.ok("setsockopt", child, level=1, option=13, value=struct.pack("ii", 1, 0))
            app.ok("close", child)
        elif how == "unread":
            app.ok("close", child, unread=True)
        else:
            app.say(Reset(child, 0))
            app.ok("close", child)
        assert app.resets[sock] == errno.ECONNRESET, how
        values = [app.ok("getsockopt", sock, level=1, option=4)["value"] for _ in range(2)]
        assert values == [struct.pack("i", errno.ECONNRESET), struct.pack("i", 0)]


def test_tcp_info_of_a_real_connection() -> None:
    """TCP_INFO and TCP_MAXSEG show tcp's figures of the connection."""
    stack = Stack()
    app = App(stack, b"a", "")
    listener = app.listener(80)
    sock = app.connect(80)
    child = app.ok("accept", listener)["sock"]
    app.say(Send(sock, 0, 1000, b"x" * 1000))
    figures = info.unpack(app.ok("getsockopt", sock, level=6, option=11)["value"])
    assert (figures["state"], figures["bytes_sent"]) == (1, 1000)
    assert figures["snd_mss"] == struct.unpack("i", app.ok("getsockopt", sock, level=6, option=2)["value"])[0]
    assert info.unpack(app.ok("getsockopt", child, level=6, option=11)["value"])["bytes_received"] == 1000


def test_linger_waits_for_the_acknowledgement() -> None:
    """close() with SO_LINGER is answered once the peer has acknowledged all."""
    stack = Stack()
    app = App(stack, b"a", "")
    listener = app.listener(80)
    sock = app.connect(80)
    app.ok("accept", listener)
    app.ok("setsockopt", sock, level=1, option=13, value=struct.pack("ii", 1, 5))
    app.say(Send(sock, 0, 5, b"hello"))
    number = app.ask("close", sock)
    stack.advance(1000)
    assert app.replies[number].errno == 0


def test_death_of_a_client_with_memory() -> None:
    """A client says all that it has, and the end, and dies: its peer gets every byte and the end; only then is its
    memory given up."""
    stack = Stack()
    server, client = App(stack, b"s", ""), App(stack, b"c", MEMORY)
    listener = server.listener(80)
    sock = client.connect(80)
    child = server.ok("accept", listener)["sock"]
    server.reads = False
    data = random.Random(3).randbytes(RING)
    stack.memory.store(client.rings[sock].send(0, RING), data)
    for message in (Send(sock, 0, RING), Eof(sock, RING)):
        stack.gateway.receive(FromClient(b"c", 0, client.pid, message), stack.now)
    stack.gateway.receive(ClientLost(b"c"), stack.now)
    assert stack.forgotten == []
    stack.settle()
    server.reads = True
    server.say(Consumed(child, len(server.received.get(child, b""))))
    stack.advance(10_000)
    assert bytes(server.received[child]) == data and server.ended[child] == RING
    assert stack.forgotten == [MEMORY]


def test_slots_run_out() -> None:
    """A session has as many connections as its memory has slots; then ENOBUFS, and room again after a close."""
    stack = Stack()
    server, client = App(stack, b"s", ""), App(stack, b"c", MEMORY)
    listener = server.listener(80)
    made = [client.connect(80) for _ in range(8)]
    extra = client.socket()
    assert client.call("connect", extra, address=HERE, port=80).errno == errno.ENOBUFS
    client.ok("close", made[0], abort=True)
    child = server.ok("accept", listener)["sock"]
    assert server.resets[child] == errno.ECONNRESET
    server.ok("close", child)
    client.ok("connect", extra, address=HERE, port=80)
    assert server.pending[listener] == 8


@pytest.mark.parametrize("memory", ["", MEMORY], ids=["inline", "memory"])
@pytest.mark.parametrize("port", [0, 5000], ids=["unbound", "bound"])
@pytest.mark.parametrize("reads", [True, False], ids=["read", "unread"])
def test_a_connection_after_one_that_ended_untold(memory: str, port: int, *, reads: bool) -> None:
    """connect() tells of the reset, and the same socket connects anew: its stream begins at 0, with a grant, rings and
    credit of its own; what was not read is gone, for tcp and for the account of inline bytes, too."""
    stack = Stack()
    server, client = App(stack, b"s", ""), App(stack, b"c", memory)
    listener = server.listener(80)
    sock = client.socket()
    if port:
        client.ok("bind", sock, address=HERE, port=port)
    for text in (b"one", b"another"):
        client.ask("connect", sock, address=HERE, port=80, nonblocking=True)
        client.received.pop(sock, None)
        client.reads = reads
        child = server.ok("accept", listener)["sock"]
        server.say(Send(child, 0, len(text), text))
        assert bytes(client.received[sock]) == text
        name = client.ok("getsockname", sock)
        assert name["port"] == (port or name["port"]) > 0
        server.ok("close", child, abort=True)
        assert client.resets.pop(sock) == errno.ECONNRESET
        assert client.call("connect", sock, address=HERE, port=80, nonblocking=True).errno == errno.ECONNRESET
        (session,) = [one for one in stack.gateway._state.sessions.values() if one.peer == b"c"]
        assert session.inline == 0 and not session.starved
    row, fresh = stack.gateway._state.sockets[sock], Socket(id=sock, session=session.number)
    kept = {name for name in Socket.__struct_fields__ if getattr(row, name) != getattr(fresh, name)}
    bound = {"state", "chosen_address", "chosen_port", "bound_port", "in_tcp"} if port else set()
    assert kept - {"region"} == {"local_address", "local_port", *bound}
    assert client.call("getpeername", sock).errno == errno.ENOTCONN
    client.ok("close", sock)
    assert not stack.gateway._state.sockets.keys() - {listener}
