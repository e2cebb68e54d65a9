"""A gateway core in virtual time with scripted neighbours: clients that call, and a tcp that answers as told.

bench = Bench()
app = bench.client()
sock = app.socket()
app.call("bind", sock, address=LOCAL, port=80)      # the Reply, or None while it is not answered
bench.to_tcp()                                      # what tcp was told since the last look
"""

from __future__ import annotations

import random
from typing import Any

from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from levelip.config import GatewayConfig, TcpConfig
from levelip.frames.seam import (
    Bind,
    ClientLost,
    Close,
    Connect,
    Connected,
    ForClient,
    FromClient,
    GetInfo,
    Incoming,
    Listen,
    NeighbourDown,
    NeighbourUp,
    Released,
    Result,
)
from levelip.rpc.messages import VERSION, Hello, Reply, Request, Welcome
from levelip.rpc.place import Rings
from levelip.rpc.stream import Reset

MS = 1_000_000  # ns
LOCAL = bytes([10, 0, 0, 2])
REMOTE = bytes([10, 0, 0, 1])
OPEN, REFUSED, SILENT = 80, 81, 82  # ports of the remote host: it accepts, refuses, says nothing
RING = 1 << 20
LIMIT = 100_000  # send credit that tcp grants
CHILD = 1 << 62


class Client:
    """One application's client; `said` holds what it was told and nobody has looked at yet."""

    def __init__(self, bench: Bench, peer: bytes, uid: int, pid: int) -> None:
        self.bench = bench
        self.peer = peer
        self.uid = uid
        self.pid = pid
        self.said: list[Any] = []
        self.replies: dict[int, Reply] = {}
        self.requests = 0
        self.token = b""
        self.memory = ""

    def send(self, message: Any, *, memory_errno: int = 0) -> None:
        """Say something to the gateway."""
        self.bench.feed(FromClient(self.peer, self.uid, self.pid, message, memory_errno))

    def hello(self, *, token: bytes = b"", memory: str = "", version: int = VERSION, memory_errno: int = 0) -> Any:
        """Say Hello; the first answer."""
        self.said.clear()
        self.send(Hello(version, "test", token, memory), memory_errno=memory_errno)
        answer = self.said[0]
        if isinstance(answer, Welcome):
            self.token = answer.token
        return answer

    def ask(self, op: str, sock: int = 0, **args: Any) -> int:
        """Send a request; its number."""
        self.requests += 1
        self.send(Request(self.requests, op, sock, args))
        return self.requests

    def call(self, op: str, sock: int = 0, **args: Any) -> Reply | None:
        """Send a request; its Reply if it has been answered."""
        return self.reply(self.ask(op, sock, **args))

    def reply(self, number: int) -> Reply | None:
        """Take the Reply to a request."""
        return self.replies.pop(number, None)

    def errno(self, op: str, sock: int = 0, **args: Any) -> int:
        """The errno of a call that is answered at once."""
        reply = self.call(op, sock, **args)
        assert reply is not None, f"{op} was not answered"
        return reply.errno

    def ok(self, op: str, sock: int = 0, **args: Any) -> dict[str, Any]:
        """The data of a call that succeeds at once."""
        reply = self.call(op, sock, **args)
        assert reply is not None and reply.errno == 0, reply
        return reply.data

    def socket(self) -> int:
        """A new socket."""
        number: int = self.ok("socket")["sock"]
        return number

    def connected(self, **args: Any) -> int:
        """A connected socket."""
        sock = self.socket()
        self.ok("connect", sock, address=REMOTE, port=OPEN, **args)
        self.bench.to_tcp()
        return sock

    def listening(self, port: int = 8080) -> int:
        """A listening socket."""
        sock = self.socket()
        self.ok("bind", sock, address=LOCAL, port=port)
        self.ok("listen", sock, backlog=8)
        self.bench.to_tcp()
        self.said.clear()
        return sock

    def take(self) -> list[Any]:
        """What it was told, besides Replies, since the last look."""
        said, self.said = self.said, []
        return said


class Bench:
    """The core, its clock, its clients, and tcp. With `answering`, tcp does at once what it is asked."""

    def __init__(self, *, tcp_up: bool = True, epoch: int = 7, **gateway: Any) -> None:
        self.config = GatewayCoreConfig(
            gateway=GatewayConfig(**gateway), tcp=TcpConfig(), epoch=epoch, owner=1000, memory_dir="/mem",
            device="lvl0",
        )  # fmt: skip
        self.now = 1_000 * MS
        self.core = GatewayCore(self.config, random.Random(5), self.now)
        self.core.interest = True
        self.clients: dict[bytes, Client] = {}
        self.door: list[Any] = []  # what the shell was told besides ForClient
        self.told: list[Any] = []
        self.answering = True
        self.children = 0
        self.ports: dict[int, tuple[bytes, int]] = {}  # by socket
        self.next_port = 40_000
        self.info: dict[str, Any] = {"state": "ESTABLISHED", "snd_mss": 1448, "rtt": 1234}
        self.tcp_epoch = 100
        if tcp_up:
            self.tcp_up(settled=True)

    def client(self, *, uid: int = 1000, pid: int = 0, hello: bool = True) -> Client:
        """A new client, with a session."""
        number = len(self.clients) + 1
        client = Client(self, b"peer%d" % number, uid, pid or 500 + number)
        self.clients[client.peer] = client
        if hello:
            assert isinstance(client.hello(), Welcome)
        return client

    # time and frames

    def feed(self, frame: Any) -> None:
        """Give the core one frame, and deliver what it says."""
        self.core.receive(frame, self.now)
        self.flush()

    def flush(self) -> None:
        """Deliver all that the core says; tcp's answers included."""
        for _ in range(1000):
            output = self.core.outgoing({})
            if not output:
                return
            for port, message in output:
                if port == "tcp":
                    self.told.append(message)
                    if self.answering:
                        self._answer(message)
                elif isinstance(message, ForClient):
                    self._deliver(message)
                else:
                    self.door.append(message)
        raise AssertionError("the core never stops talking")

    def _deliver(self, frame: ForClient) -> None:
        client = self.clients[frame.peer]
        if isinstance(frame.message, Reply):
            assert frame.message.request not in client.replies, "answered twice"
            client.replies[frame.message.request] = frame.message
        else:
            client.said.append(frame.message)

    def advance(self, ms: float) -> None:
        """Let time pass, running each timer at its instant."""
        end = self.now + int(ms * MS)
        while (due := self.core.next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.core.handle_timer(self.now)
            self.flush()
        self.now = end

    def to_tcp(self) -> list[Any]:
        """What tcp was told since the last look."""
        told, self.told = self.told, []
        return told

    def drops(self, reason: str) -> int:
        """How often something was discarded for this reason."""
        return self.core.counters.get(f"drop.{reason}", 0)

    # tcp

    def tcp_up(self, *, same: bool = False, settled: bool = False) -> None:
        """tcp says hello; a new one, unless `same`."""
        if not same:
            self.tcp_epoch += 1
            self.ports.clear()
        self.feed(NeighbourUp("tcp", self.tcp_epoch))
        if settled:
            self.advance(1000)  # tcp has heard of routes long since

    def tcp_down(self) -> None:
        """tcp is killed."""
        self.feed(NeighbourDown("tcp"))

    def _answer(self, message: Any) -> None:
        """A tcp that works: ports, listeners and connections as the constants above say."""
        match message:
            case Bind():
                taken = [port for port in self.ports.values() if message.port and port[1] == message.port]
                if message.sock in self.ports or (taken and not message.reuse_address):
                    self.feed(Result(message.request, 22 if message.sock in self.ports else 98))
                    return
                self.next_port += 1
                port = message.port or self.next_port
                self.ports[message.sock] = (message.address, port)
                self.feed(Result(message.request, 0, {"address": message.address, "port": port}))
            case Listen():
                self.feed(Result(message.request, 0))
            case Connect():
                if message.port == OPEN:
                    self.connect(message)
                elif message.port == REFUSED:
                    self.feed(Reset(message.sock, 111))
            case GetInfo():
                self.feed(Result(message.request, 0, dict(self.info)))
            case Close():
                self.ports.pop(message.sock, None)
                self.feed(Released(message.sock))

    def rings(self, region: str, number: int) -> Rings:
        """Rings number `number` of a region."""
        return Rings(region or "own-1", number * 2 * RING, RING, number * 2 * RING + RING, RING)

    def connect(self, message: Connect) -> None:
        """tcp reports success."""
        address, port = self.ports.get(message.sock, (b"", 0))
        self.next_port += 1
        rings = self.rings(message.region, self.next_port)
        local = address or LOCAL
        frame = Connected(message.sock, local, port or self.next_port, message.address, message.port, rings, LIMIT)
        self.feed(frame)

    def incoming(self, listener: int, *, region: str = "") -> int:
        """A connection arrives on a listener; its id."""
        self.children += 1
        child = CHILD | self.children
        rings = self.rings(region, self.children)
        self.feed(Incoming(listener, child, LOCAL, 8080, REMOTE, 50_000 + self.children, rings, LIMIT))
        return child

    def lose(self, client: Client, *, dead: bool = True) -> None:
        """A client dies, or its connection breaks."""
        self.feed(ClientLost(client.peer, dead))
