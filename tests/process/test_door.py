"""The gateway's process and its door, spoken to with raw ZeroMQ sockets, and with a tcp that the test plays."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from gateway.connection import MAX_PART
from gateway.door import Door
from levelip.config import Config, GatewayConfig
from levelip.frames.seam import Bind, Close, Connect, Connected, ForClient, GatewayToTcp, Listen, Released, Result
from levelip.ipc.control import ControlClient
from levelip.ipc.pipe import Pipe
from levelip.ipc.rundir import RunDirectory
from levelip.ipc.runtime import Runtime
from levelip.rpc.codec import MAX_PARTS, Codec
from levelip.rpc.messages import Hello, Refused, Reply, Request, ToClient, Welcome
from levelip.rpc.place import Place, Rings
from levelip.rpc.stream import Data, Eof, Reset, Send
from tests.waiting import until

LIMIT_S = 60.0
LOCAL, REMOTE = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])
RING = 65_536
CONFIG = f"""
[tcp]
send_ring = {RING}
receive_ring = {RING}
send_buffer = {RING}
receive_buffer = {RING}
connections = 16
[gateway]
clients = 8
probe_ms = 100
rejoin_ms = 300
"""
CLIENT = """
import os, sys, time, zmq
from levelip.rpc.codec import Codec
from levelip.rpc.messages import Hello, Request, ToClient
codec = Codec(ToClient)
dealer = zmq.Context().socket(zmq.DEALER)
dealer.connect(sys.argv[1])
def say(messages, to=0):
    dealer.send_multipart(codec.encode(messages, 5, to))
def hear():
    return codec.decode(dealer.recv_multipart())
"""


class Raw:
    """A client of bare ZeroMQ."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dealer = world.context.socket(zmq.DEALER)
        self.dealer.set_hwm(0)
        self.dealer.linger = 0
        self.dealer.connect(world.endpoint)
        self.codec: Codec[Any] = Codec(ToClient)
        self.epoch = secrets.randbits(62)
        self.gateway = 0
        self.token = b""
        self.number = 0
        self.heard: list[Any] = []

    def say(self, *messages: Any) -> None:
        self.dealer.send_multipart(self.codec.encode(messages, self.epoch, self.gateway))

    def hear(self) -> Any:
        """The next message."""
        deadline = time.monotonic() + LIMIT_S
        while not self.heard:  # an envelope without messages is a probe
            assert self.dealer.poll(LIMIT_S * 1000) and time.monotonic() < deadline, "the gateway says nothing"
            epoch, to_epoch, messages = self.codec.decode(self.dealer.recv_multipart())
            assert to_epoch in (0, self.epoch)
            self.gateway = self.gateway or epoch
            self.heard += messages
        return self.heard.pop(0)

    def hello(self, memory: str = "") -> Any:
        self.say(Hello(1, "raw", self.token, memory))
        answer = self.hear()
        if isinstance(answer, Welcome):
            self.token = answer.token
        return answer

    def call(self, op: str, sock: int = 0, **args: Any) -> Reply:
        self.number += 1
        self.say(Request(self.number, op, sock, args))
        while True:
            answer = self.hear()
            if isinstance(answer, Reply) and answer.request == self.number:
                return answer

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """Within, the connection ends; and ZeroMQ has seen it, lest what is sent next goes into the old one."""
        monitor = self.dealer.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        yield
        assert monitor.poll(LIMIT_S * 1000), "the connection goes on"
        self.dealer.disable_monitor()

    def close(self) -> None:
        self.dealer.close()


class ScriptedTcp:
    """A tcp of the test: it binds, listens, accepts every connect, and lets everything go."""

    def __init__(self, run: RunDirectory) -> None:
        self.runtime = Runtime("tcp", Config(), run)
        self.region = "own-1"
        self.runtime.memory.create_own(self.region, 64 * RING)
        self.pipe = Pipe(self.runtime, "gateway", "tcp-gateway", GatewayToTcp, lossless=True)
        self.heard: list[Any] = []
        self.made = 0

    def turn(self) -> None:
        """Read, answer."""
        self.pipe.tick()
        for message in self.pipe.receive(100, 0):
            self.heard.append(message)
            match message:
                case Bind():
                    self.say(Result(message.request, 0, {"address": message.address, "port": message.port or 999}))
                case Listen():
                    self.say(Result(message.request, 0))
                case Connect():
                    self.made += 1
                    base = self.made * 2 * RING
                    rings = Rings(message.region or self.region, base, RING, base + RING, RING)
                    self.say(Connected(message.sock, LOCAL, 40_000, message.address, message.port, rings, RING))
                case Close():
                    self.say(Released(message.sock))

    def say(self, *frames: Any) -> None:
        self.pipe.send(list(frames), 0)

    def wait(self, kind: type) -> Any:
        """The next message of a kind."""

        def found() -> Any:
            self.turn()
            return next((message for message in self.heard if isinstance(message, kind)), None)

        message = until(found, f"tcp hears {kind.__name__}")
        self.heard.remove(message)
        return message


class World:
    """A gateway process in a run directory of its own."""

    def __init__(self, root: str) -> None:
        self.run = RunDirectory("t", root)
        self.context = zmq.Context()
        self.endpoint = f"ipc://{self.run.door}/gateway"
        self.config = Path(root) / "c.toml"
        self.config.write_text(CONFIG)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.raws: list[Raw] = []
        self.gateway = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "gateway", "--run", str(self.run.root), "--name", "t"]
        process = subprocess.Popen([*command, "--config", str(self.config)], stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def client(self, *, hello: bool = True) -> Raw:
        raw = Raw(self)
        self.raws.append(raw)
        if hello:
            assert isinstance(raw.hello(), Welcome)
        return raw

    def program(self, text: str) -> subprocess.Popen[bytes]:
        """A client process of its own."""
        command = [sys.executable, "-c", CLIENT + text, self.endpoint]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.processes.append(process)
        return process

    def control(self, name: str) -> dict[str, Any]:
        until(self.run.control("gateway").exists, "the gateway's control socket")
        client = ControlClient(self.run, "gateway", timeout=LIMIT_S)
        try:
            return client.request(name)
        finally:
            client.close()

    def set(self, key: str, value: int) -> None:
        """Change a setting of [gateway] while it runs."""
        client = ControlClient(self.run, "gateway", timeout=LIMIT_S)
        try:
            client.request("set", section="gateway", key=key, value=value)
        finally:
            client.close()

    def count(self, name: str) -> int:
        number: int = self.control("counters")["counters"].get(name, 0)
        return number

    def has_tcp(self) -> bool:
        """Its neighbour tcp is up; udp is nobody here."""
        up: bool = self.control("status")["neighbours"]["tcp"]["up"]
        return up

    def pids(self) -> list[int]:
        return [client["pid"] for client in self.control("clients")["clients"]]

    def close(self) -> None:
        for raw in self.raws:
            raw.close()
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(LIMIT_S)
            for stream in (process.stderr, process.stdout):
                if stream is not None:
                    stream.close()
        self.context.destroy(linger=0)
        shutil.rmtree(self.run.memory, ignore_errors=True)


@pytest.fixture
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="lg", dir="/tmp") as root:
        made = World(root)
        yield made
        made.close()


@pytest.fixture
def tcp(world: World) -> Iterator[ScriptedTcp]:
    until(world.run.path.is_dir, "the run directory")
    made = ScriptedTcp(world.run)
    yield made
    made.pipe.close()
    made.runtime.close()


def test_a_client_is_known_by_its_process(world: World) -> None:
    """Who a client is comes from the kernel: pid and uid of the process that connected."""
    app = world.client()
    sock = app.call("socket").data["sock"]
    rows = world.control("ss")["sockets"]
    assert [(row["sock"], row["pid"], row["uid"]) for row in rows] == [(sock, os.getpid(), os.getuid())]


def test_garbage(world: World) -> None:
    """Bytes that are no message, of another version, or of unknown shape are refused one by one; the client that sent
    them, and all others, can go on."""
    app, other = world.client(), world.client()
    encoder = app.codec._encoder
    cases = {
        b"": "garbage",
        b"\xff" * 100: "garbage",
        secrets.token_bytes(200): "",
        encoder.encode((99, 1, 0, [])): "unknown_version",
        encoder.encode((1, 1, 0, [[20]])): "bad_message",
        encoder.encode((1, 1, 0, [[77, 1, 2]])): "bad_message",
        encoder.encode((1, 1, 0, [[1, -1, 0, 0, b""]])): "bad_message",
        encoder.encode((1, 1, 0, [[1, 1, 0, 5, ["", 7, 1, 0, 1, 0]]])): "bad_part",
        encoder.encode((1, 1, 0, [[25, 1, 1]])): "bad_message",  # a message of the other direction
        b"\x91" * 5000: "garbage",
    }
    for number, (part, reason) in enumerate(cases.items()):
        app.dealer.send(part)
        answer = app.hear()
        assert isinstance(answer, Refused), number
        assert reason in answer.message
    assert world.count("drop.bad_message") == 4
    for client in (app, other):
        assert client.call("socket").errno == 0


def test_requests_before_hello(world: World) -> None:
    """Whoever has not said Hello is refused."""
    app = world.client(hello=False)
    app.say(Request(1, "socket", 0, {}))
    assert isinstance(app.hear(), Refused)
    assert isinstance(app.hello(), Welcome)


def test_another_epoch(world: World) -> None:
    """What was meant for an earlier gateway is dropped and counted."""
    app = world.client()
    good, app.gateway = app.gateway, app.gateway ^ 2
    app.say(Request(1, "socket", 0, {}))
    app.gateway = good
    assert app.call("socket").errno == 0
    assert world.count("drop.stale_epoch") == 1 and len(world.control("ss")["sockets"]) == 1


def test_forged_sockets(world: World) -> None:
    """Another client's socket ids serve nobody else."""
    app, thief = world.client(), world.client()
    sock = app.call("socket").data["sock"]
    for forged in (sock, 0, (1 << 63) - 1):
        assert thief.call("getsockname", forged).errno == errno.EBADF
    thief.say(Send(sock, 0, 3, b"abc"), Reset(sock, 0))
    thief.call("socket")
    assert world.count("drop.unknown_socket") == 2
    assert app.call("getsockname", sock).errno == 0


def test_too_many_parts(world: World) -> None:
    """Of a message with too many parts the rest is thrown away; it is refused once, and life goes on."""
    app = world.client()
    app.dealer.send_multipart([b"x"] * (MAX_PARTS + 500))
    answer = app.hear()
    assert isinstance(answer, Refused) and "bad_parts" in answer.message
    assert app.call("socket").errno == 0


def test_too_large_a_part(world: World) -> None:
    """A part beyond the limit ends the connection, with a reason, not the gateway; the client may come back."""
    app, other = world.client(), world.client()
    with app.cut():
        app.dealer.send(b"x" * (MAX_PART + 1))
        assert app.hear() == Refused(errno.EPROTO, f"the connection is cut: a part of {MAX_PART + 1} bytes")
    assert other.call("socket").errno == 0
    app.gateway = 0
    app.dealer.send_multipart(app.codec.encode([Hello(1, "again", app.token)], app.epoch))
    assert isinstance(app.hear(), Welcome)


@pytest.mark.parametrize("last", ["dealer.send(b'half', zmq.SNDMORE)", "say([Hello(1, 'x')])", "dealer.send(b'')"])
def test_half_a_hello_then_death(world: World, last: str) -> None:
    """A client that dies in the middle of anything leaves nothing."""
    program = world.program(last + "; print('said', flush=True); time.sleep(0.05); os.kill(os.getpid(), 9)")
    program.wait(LIMIT_S)
    app = world.client()
    assert app.call("socket").errno == 0
    until(lambda: world.pids() == [os.getpid()], "only we are left")


def test_death_is_seen(world: World) -> None:
    """When a client is killed its sockets are gone, and not by a time limit."""
    until(world.run.control("gateway").exists, "the gateway's control socket")
    world.set("rejoin_ms", 86_400_000)
    program = world.program(
        "say([Hello(1, 'x')]); epoch, _, _ = hear()\n"
        "say([Request(n, 'socket', 0, {}) for n in range(50)], epoch); hear()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    assert program.stdout is not None and program.stdout.readline() == b"ready\n"
    until(lambda: len(world.control("ss")["sockets"]) == 50, "its sockets")
    program.kill()
    until(lambda: not world.control("clients")["clients"], "nobody is left")


def test_last_words_count(world: World) -> None:
    """What a client sent before it ended is carried out before its end is."""
    program = world.program(
        "say([Hello(1, 'x')]); epoch, _, _ = hear()\n"
        "for n in range(500): say([Request(n, 'socket', 0, {})], epoch)\n"
        "dealer.close(60_000); zmq.Context.instance().term(); dealer.context.term(); os._exit(0)"
    )
    assert program.wait(LIMIT_S) == 0
    until(lambda: not world.control("clients")["clients"], "nobody is left")
    assert world.count("calls") == 500


def test_a_broken_connection_comes_back_or_is_given_up(world: World) -> None:
    """A connection that ends while its process lives is noticed by a probe; with the token its session goes on, and
    without anybody it ends after rejoin_ms."""
    app = world.client()
    sock = app.call("socket").data["sock"]
    world.set("rejoin_ms", 86_400_000)
    app.close()
    until(lambda: not world.control("clients")["clients"][0]["connected"], "the broken connection is seen")
    again = world.client(hello=False)
    again.token = app.token
    assert again.hello().token == app.token
    assert again.call("getsockname", sock).errno == 0
    world.set("rejoin_ms", 300)
    again.close()
    until(lambda: not world.control("clients")["clients"], "the session is given up")


def make_memory(welcome: Welcome, *, size: int | None = None, name: str = "") -> str:
    """A file as clients make it."""
    name = name or secrets.token_hex(16)
    path = Path(welcome.memory_dir) / name
    with open(path, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.truncate(welcome.memory_slot * welcome.memory_slots if size is None else size)
    path.chmod(0o666)
    return name


def test_memory_is_checked(world: World) -> None:
    """A file of the wrong size or kind, a symbolic link, a foreign file, or none: refused; a right one is welcome and
    goes with its client."""
    app = world.client()
    welcome = app.hello()
    directory = Path(welcome.memory_dir)
    bad = [make_memory(welcome, size=100), secrets.token_hex(16), secrets.token_hex(16), "..", secrets.token_hex(16)]
    (directory / bad[1]).symlink_to(directory / make_memory(welcome))
    os.mkfifo(directory / bad[2])
    for name in bad:
        assert isinstance(app.hello(name), Refused), name
    if os.getuid() == 0:
        foreign = make_memory(welcome)
        os.chown(directory / foreign, 12345, -1)
        assert isinstance(app.hello(foreign), Refused)
    good = make_memory(welcome)
    assert isinstance(app.hello(good), Welcome)
    app.close()
    until(lambda: not (directory / good).exists(), "the memory is removed")


def connect(world: World, app: Raw, tcp: ScriptedTcp) -> tuple[int, Any, Connect]:
    """A connected socket: its id, the answer, and what tcp was told."""
    until(lambda: (tcp.turn(), world.has_tcp())[1], "tcp is up")
    sock = app.call("socket").data["sock"]
    app.say(Request(9999, "connect", sock, {"address": REMOTE, "port": 80}))
    told = tcp.wait(Connect)
    answer = app.hear()
    assert answer.errno == 0
    return sock, answer.data, told


def test_bytes_of_a_client_with_memory_stay_where_they_are(world: World, tcp: ScriptedTcp) -> None:
    """With memory, long payloads travel as Places only, both ways; short ones inline."""
    app = world.client()
    name = make_memory(app.hello())
    app.hello(name)
    sock, data, told = connect(world, app, tcp)
    assert told.region == name == data["rings"][0]
    app.say(Send(sock, 0, 5000))
    assert tcp.wait(Send) == Send(sock, 0, 5000)
    rings = Rings(*data["rings"])
    tcp.runtime.memory.store(rings.receive(0, 50_100), bytes(50_000) + b"x" * 100)
    tcp.say(Data(sock, 0, rings.receive(0, 50_000)), Data(sock, 50_000, rings.receive(50_000, 100)))
    assert app.hear() == Data(sock, 0, rings.receive(0, 50_000))
    assert app.hear() == Data(sock, 50_000, b"x" * 100)


def test_bytes_of_a_client_without_memory_travel_along(world: World, tcp: ScriptedTcp) -> None:
    """Without memory, payloads of any length arrive as bytes, both ways."""
    app = world.client()
    sock, data, told = connect(world, app, tcp)
    assert told.region == "" and data["rings"] == ["", 0, 0, 0, 0]
    payload = secrets.token_bytes(30_000)
    app.say(Send(sock, 0, len(payload), payload))
    assert tcp.wait(Send) == Send(sock, 0, len(payload), payload)
    ring = Place(tcp.region, 0, RING, 0, len(payload))
    tcp.runtime.memory.store(ring, payload)
    tcp.say(Data(sock, 0, ring))
    assert app.hear() == Data(sock, 0, payload)


def test_a_client_cannot_name_memory_of_others(world: World, tcp: ScriptedTcp) -> None:
    """A Place in a Send, forged by hand, is refused: it could name any region, or be longer than Python can count."""
    app = world.client()
    sock, _, _ = connect(world, app, tcp)
    for place in (Place(tcp.region, 0, RING, 0, 5000), Place(tcp.region, 0, (1 << 64) - 1, 0, (1 << 64) - 1)):
        app.dealer.send(msgspec.msgpack.encode((1, app.epoch, app.gateway, [Send(sock, 0, 5000, place)])))
        heard = app.hear()
        assert isinstance(heard, Refused) and heard.errno == errno.EBADMSG
    assert world.count("drop.bad_place") == 2
    assert app.call("socket").errno == 0
    assert not any(isinstance(message, Send) for message in tcp.heard)


def test_memory_cut_short(world: World, tcp: ScriptedTcp) -> None:
    """A client that truncates its file loses its own connection, nothing else."""
    app, other = world.client(), world.client()
    welcome = app.hello()
    name = make_memory(welcome)
    app.hello(name)
    sock, data, _ = connect(world, app, tcp)
    os.truncate(Path(welcome.memory_dir) / name, 0)
    rings = Rings(*data["rings"])
    tcp.say(Data(sock, 0, rings.receive(0, 3000)))
    tcp.say(Data(sock, 3000, b"what follows"))
    assert app.hear() == Reset(sock, errno.ECONNRESET)
    assert tcp.wait(Reset) == Reset(sock, 0)
    assert other.call("socket").errno == 0


def test_a_gateway_that_was_killed(world: World, tcp: ScriptedTcp) -> None:
    """After SIGKILL the next gateway has a new epoch and removes the memory of the old sessions; clients come back by
    themselves, with nothing."""
    app = world.client()
    welcome = app.hello()
    name = make_memory(welcome)
    app.hello(name)
    app.call("socket")
    with app.cut():
        world.gateway.send_signal(signal.SIGKILL)
        world.gateway.wait(LIMIT_S)
    world.gateway = world.start()
    old, app.gateway = app.gateway, 0
    answer = app.hello()
    assert isinstance(answer, Welcome) and answer.epoch != old and answer.token != welcome.token
    assert not (Path(welcome.memory_dir) / name).exists()
    assert world.control("ss") == {"sockets": []}


def test_second_gateway(world: World) -> None:
    """A second gateway of the same stack is refused with the holder's pid."""
    world.client()
    second = world.start()
    assert second.wait(LIMIT_S) == 1
    assert second.stderr is not None and f"pid {world.gateway.pid}".encode() in second.stderr.read()


class _NoMemory:
    """A stack without regions."""

    def read(self, place: Place) -> bytes:
        raise AssertionError(place)


class _Runtime:
    """As much of a Runtime as the door needs."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.epoch = 77
        self.log = logging.getLogger("door")
        self.memory = _NoMemory()
        self.counters: dict[str, int] = {}
        self.config = Config(gateway=GatewayConfig(client_unread=2_500_000))

    def count(self, name: str, n: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + n


def test_a_client_that_does_not_read() -> None:
    """What a client leaves unread is bounded: beyond, it counts as deaf and its session ends."""
    with tempfile.TemporaryDirectory(dir="/tmp") as root:
        runtime = _Runtime()
        door = Door(runtime, f"ipc://{root}/gateway", Path(root), 1)  # type: ignore[arg-type]
        dealer = runtime.context.socket(zmq.DEALER)
        dealer.set_hwm(1)
        dealer.connect(f"ipc://{root}/gateway")
        codec: Codec[Any] = Codec(ToClient)
        dealer.send_multipart(codec.encode([Hello(1, "deaf")], 5))
        frames = until(lambda: door.receive(10, 0), "its hello")
        peer = frames[0].peer
        sent = 0
        while not runtime.counters:
            door.send([ForClient(peer, Reply(sent, 0, {"filler": b"x" * 1000}))], 0)
            sent += 1
            assert sent < 10_000
        assert sent > 2000 and runtime.counters == {"drop.client_deaf": 1}
        lost = until(lambda: door.receive(10, 0), "the news")
        assert (lost[0].peer, lost[0].dead) == (peer, True)
        door.close()
        runtime.context.destroy(linger=0)


def test_the_documented_client(world: World, tcp: ScriptedTcp) -> None:
    """The client of docs/rpc.md, run as it stands there, talks to a gateway, long payloads included."""
    text = (Path(__file__).parents[2] / "docs" / "rpc.md").read_text()
    program = text.partition("```python\n")[2].partition("```")[0]
    until(lambda: (tcp.turn(), world.has_tcp())[1], "tcp is up")
    command = [sys.executable, "-c", program, world.endpoint, "10.0.0.1", "80"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    world.processes.append(process)
    sock = tcp.wait(Connect).sock
    assert tcp.wait(Send) == Send(sock, 0, 7, b"hello\r\n")
    assert tcp.wait(Eof) == Eof(sock, 7)
    answer = secrets.token_bytes(20_000)
    tcp.say(Data(sock, 0, b"short"), Data(sock, 5, answer), Eof(sock, 20_005))
    assert tcp.wait(Close).sock == sock
    assert process.stdout is not None and process.stdout.read() == b"short" + answer
    assert process.wait(LIMIT_S) == 0
