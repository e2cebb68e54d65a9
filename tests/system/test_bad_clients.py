"""Clients that break every rule of the door, beside a transfer of another client that is compared byte by byte.

Each gets a clear error or is cut; the gateway's memory, descriptors and CPU stay bounded (figures: docs/robustness.md).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import multiprocessing
import os
import signal
import socket as std
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks import probes
from levelip.client import socket as levelip_socket
from levelip.client.rpc import GatewayClient
from levelip.rpc.paths import door_endpoint
from tests.system.harness import ROOT, Stack
from tests.system.namespace import Namespace
from tests.system.streams import PATIENCE_S, KernelServer, chunks, digest, read_all, stream
from tests.system.test_malformed import Transfer
from tests.system.zmtpclient import GREETING, READY, ZmtpClient

pytestmark = pytest.mark.timeout(400)

MB = 1 << 20
ALICE = 54_321  # a user of no account
GROWTH = 48 * MB  # of memory, at most, whatever comes: 32 MiB are the flight recorder's, which fills
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def endpoint(shared_stack: Stack) -> str:
    return door_endpoint(shared_stack.name, shared_stack.directory)


class Gateway:
    """What its process uses, and what tcp's does."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.pid = stack.pid("gateway")
        self.start = (self.memory(), self.descriptors(), self.cpu(), self.memory("tcp"), time.monotonic())

    def memory(self, layer: str = "gateway", *, kind: str = "VmRSS") -> int:
        """In bytes; RssAnon is without the flight recorder, which is in shared memory."""
        status = Path(f"/proc/{self.stack.pid(layer)}/status").read_text()
        return int(status.partition(f"{kind}:")[2].split()[0]) * 1024

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def count(self, name: str) -> int:
        return self.stack.counters("gateway").get(name, 0)

    def bounded(self, what: str, most: int = GROWTH) -> int:
        """Neither has grown beyond `most`, and every descriptor comes back; by how much the gateway has."""
        memory, descriptors, cpu, tcp, began = self.start
        self.stack.wait_until(lambda: self.descriptors() <= descriptors + 4, f"descriptors come back after {what}")
        grown, spent, tcp_grown = self.memory() - memory, self.cpu() - cpu, self.memory("tcp") - tcp
        took = time.monotonic() - began
        print(f"{what}: gateway {grown / MB:+.1f} MB, tcp {tcp_grown / MB:+.1f} MB, {spent:.1f} s CPU in {took:.1f} s")
        assert max(grown, tcp_grown) < most, f"{what}: {grown:,} bytes, tcp {tcp_grown:,}"
        return grown


WIRES = (
    b"GET / HTTP/1.1\r\n\r\n", b"\0" + os.urandom(500), b"\xff" + bytes(8) + b"\x7f\x01" + bytes(60),
    GREETING + b"\0\1x", GREETING + READY.replace(b"DEALER", b"XROUTE"), GREETING + READY + b"\x02" + b"\xff" * 8,
)  # fmt: skip


def sockets(stack: Stack) -> int:
    return len(stack.ask("gateway", "ss")["sockets"])


def until_cut(client: ZmtpClient) -> list[Any]:
    """What it is told before its connection ends."""
    said = []
    with contextlib.suppress(EOFError):
        while True:
            said.append(client.hear())
    return said


def test_garbage_and_endless_messages(shared_stack: Stack, host: Namespace, endpoint: str) -> None:
    """Other protocols, old versions, parts without an end, parts of an exabyte, half a message and death: refused with
    a reason where there is somebody to talk to, cut, and counted."""
    gateway = Gateway(shared_stack)
    with Transfer(shared_stack, host):
        for wire in WIRES:
            with ZmtpClient(endpoint, greet=False) as client:
                client.socket.sendall(wire)
                with contextlib.suppress(ConnectionError):
                    while client.socket.recv(MB):
                        pass
        with ZmtpClient(endpoint) as client:  # another version of the envelope, and of the protocol
            client.send(msgspec.msgpack.encode([99, 1, 0, []]))
            assert client.hear()[:2] == [22, errno.EPROTONOSUPPORT]
            client.say([20, 99, "from the future"])
            text = "this gateway speaks version 1 of the protocol, not 99"
            assert client.hear() == [22, errno.EPROTONOSUPPORT, text]
        for part in (b"", b"x" * 200_000):
            with ZmtpClient(endpoint) as client:
                assert client.hello()[0] == 21
                sent = endless(client, part)
                assert sent < 200 * MB
                said = until_cut(client)
                assert [message[:2] for message in said] == [[22, errno.EMSGSIZE], [22, errno.EPROTO]], said
        grown = []
        for _ in range(3):  # half a message of 7 MB from each of 20: twice what all may hold
            halves = [ZmtpClient(endpoint) for _ in range(20)]
            for client in halves:
                with contextlib.suppress(ConnectionError):
                    client.send(*[b"x" * MB] * 7, end=False)
            grown.append(gateway.memory() - gateway.start[0])
            for client in halves:
                client.close()
        print("half messages:", *(f"{size / MB:+.0f} MB" for size in grown))
        assert max(grown) < 160 * MB and grown[2] < grown[0] + 32 * MB  # bounded, and not more each time
        child = multiprocessing.get_context("fork").Process(target=_half_and_death, args=(endpoint,))
        child.start()
        child.join(60)
        gateway.stack.wait_until(lambda: gateway.count("drop.garbage") >= 8, "all of it is counted")


def endless(client: ZmtpClient, part: bytes) -> int:
    """Parts with "more follows" until the connection is cut; how many bytes went."""
    piece = b"\x03" + len(part).to_bytes(8, "big") + part
    piece *= max(1, 65_536 // len(piece))
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < 400 * MB:
            client.socket.sendall(piece)
            sent += len(piece)
    return sent


def _half_and_death(endpoint: str) -> None:
    client = ZmtpClient(endpoint)
    client.hello()
    client.call("socket")
    client.send(b"half", b"of a message", end=False)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.matrix(ids={"20000"})
@pytest.mark.parametrize("number", [20_000, 1_000_000])
def test_a_million_sockets(shared_stack: Stack, host: Namespace, endpoint: str, number: int) -> None:
    """A client that asks for more sockets than there are has its 4,096, and EMFILE with a sentence for the others."""
    gateway = Gateway(shared_stack)
    with Transfer(shared_stack, host), ZmtpClient(endpoint) as client:
        client.hello()
        made, refused = 0, 0
        for start in range(0, number, 1000):
            client.say(*([23, start + n, "socket", 0, {}] for n in range(1000)))
            for _ in range(1000):
                answer = client.hear()
                made += answer[2] == 0
                refused += answer[2] == errno.EMFILE
        assert answer[4] == "4096 sockets a client (gateway.sockets_per_client)"
        assert (made, refused) == (4096, number - 4096)
    gateway.stack.wait_until(lambda: sockets(shared_stack) < 100, "they go with their client", timeout=60)
    gateway.bounded(f"{number:,} sockets of one client")


def open_many(most: int) -> list[Any]:
    """An application opens sockets until it is told to stop, closes one and opens another."""
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(most):
            try:
                made.append(opened.enter_context(levelip_socket.socket()))
            except OSError as error:
                made[0].close()
                opened.enter_context(levelip_socket.socket())
                return [len(made), error.errno, str(error)]
        return [len(made)]


def enter(endpoint: str, count: int) -> list[Any]:
    """The answers to as many Hellos of one user, each on a connection of its own."""
    with contextlib.ExitStack() as crowd:
        return [crowd.enter_context(ZmtpClient(endpoint)).hello() for _ in range(count)]


def test_limits_are_told(shared_stack: Stack, endpoint: str) -> None:
    """What a program sees at its limits: EMFILE, or EUSERS at the door, with the setting that bounds it; and they may
    be changed while it runs."""

    def pids() -> list[int]:
        return [row["pid"] for row in shared_stack.ask("gateway", "clients")["clients"]]

    shared_stack.wait_until(lambda: os.getpid() not in pids(), "those of tests before have been given up")
    here = len(pids())
    shared_stack.set("gateway.sockets_per_client", 20)
    shared_stack.set("gateway.clients", here + 3)
    try:
        answers = enter(endpoint, 5)
        assert [answer[0] for answer in answers] == [21, 21, 21, 22, 22]
        assert answers[3] == [22, errno.EUSERS, f"{here + 3} clients are here (gateway.clients)"]
        shared_stack.set("gateway.clients", 1024)
        made, number, text = shared_stack.submit(open_many, 30).result(60)
        assert number == errno.EMFILE and 18 <= made <= 20  # its helper has one made, and may have asked for one more
        assert text == f"[Errno {errno.EMFILE}] 20 sockets a client (gateway.sockets_per_client)"
    finally:
        shared_stack.set("gateway.clients", 1024)
        shared_stack.set("gateway.sockets_per_client", 4096)


@pytest.mark.matrix(ids={"10000"})
@pytest.mark.parametrize("number", [10_000, 1_000_000])
def test_sockets_come_and_go(shared_stack: Stack, host: Namespace, endpoint: str, number: int) -> None:
    """A client that opens and closes sockets without end, some with a port that tcp knows: nothing of them stays."""
    gateway = Gateway(shared_stack)
    grown = []
    with Transfer(shared_stack, host), ZmtpClient(endpoint) as client:
        client.hello()
        last = 0
        for start in range(0, number, 500):
            client.say(*([23, start + n, "socket", 0, {}] for n in range(500)))
            made = [client.hear()[3]["sock"] for _ in range(500)]
            assert last < made[0] and made == sorted(set(made)), "ids recur"
            last = made[-1]
            some = made[::50]
            client.say(*([23, 7, "bind", sock, {"address": b"", "port": 0}] for sock in some))
            assert [client.hear()[2] for _ in some] == [0] * len(some)
            client.say(*([23, 8, "close", sock, {}] for sock in made))
            assert [client.hear()[2] for _ in made] == [0] * 500
            if (start + 500) % (number // 4) == 0:
                grown.append(gateway.memory(kind="RssAnon"))
        print(f"{number:,} sockets, by quarters:", *(f"{size / MB:.1f} MB" for size in grown))
        assert grown[3] - grown[1] < 4 * MB, "the second half makes it grow"
    gateway.bounded(f"{number:,} sockets, one after another")


@pytest.mark.matrix(ids=())
@pytest.mark.parametrize("clients", [17])
def test_every_socket_there_is(shared_stack: Stack, host: Namespace, endpoint: str, clients: int) -> None:
    """17 clients of 4,096 sockets each: beyond the 65,536 of all there is ENFILE with a sentence, the transfer beside
    them goes on, and all of it again takes as much memory, once the flight recorder has filled, or ended with a
    snapshot of so many, which may be in any round."""
    gateway = Gateway(shared_stack)
    kept = len(shared_stack.ask("gateway", "ss")["sockets"])
    grown: list[int] = []
    while len(grown) < 3 or (abs(grown[-1] - grown[-2]) >= 8 * MB and len(grown) < 6):
        with Transfer(shared_stack, host), contextlib.ExitStack() as crowd:
            answers = []
            for _ in range(clients):
                client = crowd.enter_context(ZmtpClient(endpoint))
                client.hello()
                for start in range(0, 4096, 512):
                    client.say(*([23, start + n, "socket", 0, {}] for n in range(512)))
                    answers += [client.hear() for _ in range(512)]
            refused = [answer for answer in answers if answer[2]]
            assert {(answer[2], answer[4]) for answer in refused} == {
                (errno.ENFILE, "65536 sockets of all clients (gateway.sockets)")
            }
            assert 4096 <= len(refused) <= 4096 + kept + 10  # the transfer's own among them
            grown.append(gateway.memory() - gateway.start[0])
        gateway.stack.wait_until(lambda: sockets(shared_stack) < 100, "they go with their clients", timeout=60)
    print("65,536 sockets, again and again:", *(f"{size / MB:+.1f} MB" for size in grown))
    assert abs(grown[-1] - grown[-2]) < 8 * MB
    gateway.bounded("65,536 sockets, gone again", 160 * MB)


@pytest.mark.matrix(ids={"1000"})
@pytest.mark.parametrize("number", [1000, 10_000])
def test_clients_come_and_go(shared_stack: Stack, host: Namespace, endpoint: str, number: int) -> None:
    """Clients that open a socket and leave, 100 at a time, most without a goodbye: nothing of them stays."""
    gateway = Gateway(shared_stack)
    with Transfer(shared_stack, host):
        for start in range(0, number, 100):
            crowd = [ZmtpClient(endpoint, epoch=start + n + 1) for n in range(100)]
            for client in crowd:
                client.say([20, 1, "crowd"])
            for client in crowd:
                assert client.hear()[0] == 21
            for n, client in enumerate(crowd):
                if n % 2:
                    client.say([23, 1, "socket", 0, {}], [23, 2, "listen", 0, {}])
                client.close()

        def few() -> bool:
            return len(gateway.stack.ask("gateway", "clients")["clients"]) < 10

        gateway.stack.wait_until(few, "their sessions end, as our process lives: after gateway.rejoin_ms", timeout=60)
    gateway.bounded(f"{number:,} clients coming and going")


class Child:
    """A client in a process of its own: `work(endpoint, pipe, ...)`, as a user of choice."""

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        fork = multiprocessing.get_context("fork")
        self.pipe, theirs = fork.Pipe()
        self.process = fork.Process(target=work, args=(theirs, *args), daemon=True)
        self.process.start()
        theirs.close()

    def hear(self) -> Any:
        assert self.pipe.poll(PATIENCE_S), "the child is silent"
        return self.pipe.recv()

    def end(self) -> None:
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(60)


@pytest.fixture
def children() -> Iterator[list[Child]]:
    made: list[Child] = []
    yield made
    for child in made:
        child.end()


def _takes(pipe: Connection, endpoint: str, address: str, port: int) -> None:
    """Read a stream to its end; its digest."""
    with GatewayClient(endpoint, timeout=60.0) as client:
        sock = client.socket()
        client.connect(sock, (std.inet_aton(address), port))
        found = hashlib.sha256()
        pipe.send("connected")
        while chunk := client.recv(sock):
            found.update(chunk)
        client.close(sock)
        pipe.send(found.hexdigest())


def test_a_stopped_client(shared_stack: Stack, host: Namespace, endpoint: str, children: list[Child]) -> None:
    """A client that is stopped within a stream stands still, and others do not; when it goes on it has every byte."""
    stack = shared_stack
    size = 30_000_000
    stopped = threading.Event()

    def serve(sock: std.socket) -> None:
        for number, chunk in enumerate(chunks(stream(7, size))):
            if number == 100:
                stopped.wait(PATIENCE_S)
            sock.sendall(chunk)

    gateway = Gateway(stack)
    with KernelServer(host, stack.host, serve) as server:
        child = Child(_takes, endpoint, stack.host, server.port)
        children.append(child)
        assert child.hear() == "connected"
        assert child.process.pid is not None
        os.kill(child.process.pid, signal.SIGSTOP)
        stopped.set()
        with Transfer(stack, host):
            time.sleep(1.0)  # the transfer goes on beside it
            rows = stack.ask("gateway", "clients")["clients"]
            assert any(row["pid"] == child.process.pid and row["connected"] for row in rows)
        os.kill(child.process.pid, signal.SIGCONT)
        assert child.hear() == digest(stream(7, size))
    gateway.bounded("a stopped client")


def test_a_client_that_never_reads(shared_stack: Stack, host: Namespace, endpoint: str) -> None:
    """Requests of a client that reads no answer wait in its own process; the gateway does not grow."""
    gateway = Gateway(shared_stack)
    with Transfer(shared_stack, host), ZmtpClient(endpoint) as client:
        client.hello()
        client.socket.settimeout(2.0)
        sent = 0
        with contextlib.suppress(TimeoutError):
            for number in range(1_000_000):
                client.say([23, number, "x" * 1000, 0, {}], [23, number, "socket", 0, {}])
                sent += 1
        assert sent < 100_000
        assert gateway.memory() - gateway.start[0] < GROWTH
    gateway.stack.wait_until(lambda: sockets(shared_stack) < 100, "its sockets are gone", timeout=60)
    gateway.bounded(f"{sent:,} requests of a client that never reads")


def _as_user(pipe: Connection, endpoint: str, uid: int, orders: dict[str, Any]) -> None:
    """Open a socket; then try to use and to enter what is another's."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    with ZmtpClient(endpoint) as client:
        assert client.hello()[0] == 21
        sock = client.call("socket")[3]["sock"]
        pipe.send((sock, client.token))
        foreign, token = pipe.recv()
        errors = [client.call(op, foreign, **args)[2] for op, args in orders.items()]
        client.say([1, foreign, 0, 3, b"abc"], [4, foreign, 0], [5, foreign, 0], [6, foreign, 0])
        own = client.call("getsockname", sock)[2]
        with ZmtpClient(endpoint) as thief:
            other = thief.hello(token)
            pipe.send((errors, own, other[0], other[3] == token, thief.call("getsockname", foreign)[2]))
        pipe.recv()


@pytest.mark.skipif(os.geteuid() != 0, reason="not to be had here: root, to be two users")
def test_two_users(shared_stack: Stack, host: Namespace, endpoint: str, children: list[Child]) -> None:
    """root and an ordinary user at once: each sees its own sockets only, whatever ids and tokens it forges."""
    stack = shared_stack
    stack.directory.chmod(0o711)
    orders: dict[str, Any] = {
        "bind": {"address": b"", "port": 0}, "listen": {}, "accept": {},
        "connect": {"address": b"\x7f\0\0\1", "port": 9},
        "getsockname": {}, "getpeername": {}, "shutdown": {"how": 2}, "close": {},
        "setsockopt": {"level": 6, "option": 1, "value": 1}, "getsockopt": {"level": 6, "option": 11},
    }  # fmt: skip
    with Transfer(stack, host):
        users = [Child(_as_user, endpoint, uid, orders) for uid in (0, ALICE)]
        children += users
        known = [child.hear() for child in users]
        rows = {row["sock"]: (row["uid"], row["state"]) for row in stack.ask("gateway", "ss")["sockets"]}
        assert rows[known[0][0]][0] == 0 and rows[known[1][0]][0] == ALICE
        for child, other in zip(users, reversed(known), strict=True):
            child.pipe.send(other)
        for child in users:
            errors, own, kind, same, through = child.hear()
            assert errors == [errno.EBADF] * len(orders) and own == 0
            assert kind == 21 and not same and through == errno.EBADF  # another's token is worth nothing
        rows = {row["sock"]: row["state"] for row in stack.ask("gateway", "ss")["sockets"]}
        assert [rows[sock] for sock, _ in known] == ["new", "new"]
        for child in users:
            child.pipe.send("end")


@pytest.fixture
def no_limit(shared_stack: Stack) -> Iterator[None]:
    """A client whose connection broke may come back for a day: who is given up before is known to be dead."""
    shared_stack.set("gateway.rejoin_ms", 86_400_000)
    yield
    shared_stack.set("gateway.rejoin_ms", 5_000)


@pytest.mark.usefixtures("no_limit")
def test_a_death_is_seen(shared_stack: Stack, host: Namespace, endpoint: str, children: list[Child]) -> None:
    """The peer of a client that is killed hears of it, and not by a time limit."""
    stack = shared_stack
    heard: list[float] = []

    def serve(sock: std.socket) -> None:
        with contextlib.suppress(ConnectionError):
            read_all(sock)
        heard.append(time.monotonic())

    with KernelServer(host, stack.host, serve) as server:
        child = Child(_takes, endpoint, stack.host, server.port)
        children.append(child)
        assert child.hear() == "connected"
        time.sleep(0.2)
        killed = time.monotonic()
        child.end()
        stack.wait_until(lambda: bool(heard), "the peer hears of it")
    print(f"seen by the peer after {(heard[0] - killed) * 1000:.0f} ms")


TALKER = """
import os, sys, time
if sys.argv[1] == "levelip.client":
    from levelip.client import socket
else:
    import socket
sock = socket.create_connection((sys.argv[2], int(sys.argv[3])))
sock.sendall(b"hello")
time.sleep(600)
"""


@pytest.mark.usefixtures("no_limit")
@pytest.mark.parametrize("killed", ["program", "helper", "program under run", "lvlip run"])
def test_deaths_of_programs(shared_stack: Stack, host: Namespace, killed: str) -> None:
    """SIGKILL for a program or its helper, a program under `lvlip run` or that itself: the peer hears of it, and
    not by a time limit, after all that was sent; and no socket stays."""
    stack = shared_stack
    heard: list[bytes] = []
    over: list[str] = []

    def serve(sock: std.socket) -> None:
        try:
            while data := sock.recv(100):
                heard.append(data)
            over.append("end")
        except ConnectionResetError:
            over.append("reset")

    kept = len(sockets_used(stack))
    with KernelServer(host, stack.host, serve) as server:
        where = [stack.host, str(server.port)]
        if "run" in killed:
            argv = [
                sys.executable,
                "-P",
                "-m",
                "levelip.cli",
                "run",
                "--",
                sys.executable,
                "-c",
                TALKER,
                "socket",
                *where,
            ]
            program = host.popen(argv, env={**stack.env, "PYTHONPATH": str(ROOT)})
        else:
            program = stack.popen(["-c", TALKER, "levelip.client", *where])
        stack.wait_until(lambda: heard == [b"hello"], "it is connected", timeout=60)
        pid: int | None = program.pid
        if killed == "helper":
            pid = probes.helper_pid(program.pid)
        elif killed == "program under run":
            pid = next(row["pid"] for row in stack.ask("gateway", "ss")["sockets"] if row["remote_port"] == server.port)
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        stack.wait_until(lambda: bool(over), f"the peer hears of it: {killed}")
        stack.wait_until(lambda: len(sockets_used(stack)) <= kept, "no socket stays")
        assert over == ["reset" if killed == "helper" else "end"], "what a helper had not sent is lost"
        program.kill()
        program.wait(60)


def sockets_used(stack: Stack) -> list[Any]:
    """Those that are more than made."""
    return [row for row in stack.ask("gateway", "ss")["sockets"] if row["state"] != "new"]
