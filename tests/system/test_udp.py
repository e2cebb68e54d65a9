"""Datagrams between programs on the stack and the kernel: sizes, errors, groups, slow readers, restarts, asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import os
import select
import socket as std
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from levelip.client import socket
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import PATIENCE_S
from tests.waiting import until

SIZES = (0, 1, 100, 1472, 1473, 2048, 2049, 9000, 40_000, 65_507)
GROUP = "239.77.1.2"
ECHO, CLOSED = 7000, 7999
IP_PKTINFO, IP_RECVTTL, IP_RECVTOS = 8, 12, 13
SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@pytest.fixture
def kernel(host: Namespace, shared_stack: Stack) -> Iterator[std.socket]:
    """A kernel's socket at the host's address."""
    with host.socket(kind=std.SOCK_DGRAM) as sock:
        sock.setsockopt(std.SOL_SOCKET, std.SO_RCVBUF, 4 << 20)
        sock.bind((shared_stack.host, 0))
        sock.settimeout(PATIENCE_S)
        yield sock


@pytest.fixture
def echo(kernel: std.socket) -> Iterator[int]:
    """The port of a kernel's socket that sends back what comes, until an empty datagram after "stop"."""
    over = threading.Event()

    def serve() -> None:
        kernel.settimeout(0.1)
        while not over.is_set():
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                data, sender = kernel.recvfrom(70_000)
                kernel.sendto(data, sender)

    thread = threading.Thread(target=serve)
    thread.start()
    yield kernel.getsockname()[1]
    over.set()
    thread.join(60)


def udp(timeout: float = PATIENCE_S) -> Any:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(timeout)
    return sock


def all_sizes(host: str, port: int) -> list[int]:
    wrong = []
    with udp() as sock:
        for size in SIZES:
            data = os.urandom(size)
            assert sock.sendto(data, (host, port)) == size
            back, sender = sock.recvfrom(70_000)
            if back != data or sender != (host, port):
                wrong.append(size)
    return wrong


def test_every_size_both_ways(shared_stack: Stack, echo: int) -> None:
    """From nothing to 65,507 bytes, in fragments where the MTU wants it, and back from the kernel."""
    before = shared_stack.counters("ip").get("fragment.sent", 0)
    assert shared_stack.submit(all_sizes, shared_stack.host, echo).result(60) == []
    assert shared_stack.counters("ip")["fragment.sent"] > before


def some(host: str, port: int) -> int:
    with udp() as sock:
        for number in range(20):
            sock.sendto(b"x" * number, (host, port))
            assert len(sock.recv(100)) == number
    return 20


def test_journeys_reach_the_client(shared_stack: Stack, echo: int) -> None:
    """Live: a datagram's way through all processes both ways, with the time in each."""
    argv = ["-m", "levelip.cli", "trace", "--journey", "--json", "--count", "40", "--proto", "udp"]
    listening = shared_stack.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert listening.stderr is not None and listening.stderr.readline().startswith("listening")
    assert shared_stack.submit(some, shared_stack.host, echo).result(60) == 20
    output, _ = listening.communicate(timeout=60)
    found = [json.loads(line) for line in output.splitlines()]
    ways = [one["path"] for one in found]
    assert ways.count("client ↓ gateway ↓ udp ↓ ip ↓ link") == 20, ways
    assert ways.count("link ↑ ip ↑ udp ↑ gateway ↑ client") == 20, ways
    for one in found:
        assert all(hop["stay_ns"] is not None for hop in one["hops"] if hop["process"] != "client"), one
        assert one["outcome"] == ("taken" if one["way"] == "up" else "sent")


def what_calls_say(host: str, port: int) -> dict[str, Any]:
    said: dict[str, Any] = {}

    def attempt(name: str, call: Any, *args: Any) -> None:
        try:
            said[name] = call(*args)
        except OSError as error:
            said[name] = errno.errorcode[error.errno] if error.errno else type(error).__name__

    with udp() as sock:
        attempt("too long", sock.sendto, bytes(65_508), (host, port))
        attempt("no peer", sock.send, b"x")
        attempt("port 0", sock.sendto, b"x", (host, 0))
        attempt("broadcast", sock.sendto, b"x", ("10.0.0.255", port))
        attempt("no peer's name", sock.getpeername)
        attempt("listen", sock.listen)
        attempt("accept", sock.accept)
        sock.settimeout(None)
        attempt("nothing there", sock.recv, 10, socket.MSG_DONTWAIT)
        sock.settimeout(0.05)
        attempt("in time", sock.recv, 10)
        sock.settimeout(PATIENCE_S)
        said["family"], said["type"], said["proto"] = sock.family, sock.type, sock.proto
        sock.connect((host, port))
        said["peer"] = sock.getpeername()
        assert sock.send(b"longer than five") == 16
        select.select([sock], [], [], PATIENCE_S)
        said["peek"] = sock.recv(6, socket.MSG_PEEK)
        said["trunc"] = sock.recv(6, socket.MSG_PEEK | socket.MSG_TRUNC).__len__()
        said["recvmsg"] = sock.recvmsg(6)[2] & socket.MSG_TRUNC
        here = socket.inet_aton(sock.getsockname()[0])
        from_here = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, here, bytes(4)))
        sock.sendmsg([b"in ", b"pieces"], [from_here])
        buffer = bytearray(20)
        said["into"] = sock.recvfrom_into(buffer)[0], bytes(buffer[:9])
        with sock.dup() as other:
            other.send(b"dup")
            said["dup"] = sock.recv(10)
        not_ours = (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 0, bytes([198, 51, 100, 1]), bytes(4)))
        attempt("not our address", sock.sendmsg, [b"x"], [not_ours])
        sock.shutdown(socket.SHUT_WR)
        attempt("after SHUT_WR", sock.send, b"x")
        sock.disconnect()
        attempt("dissolved", sock.getpeername)
    return said


def test_what_calls_say(shared_stack: Stack, echo: int) -> None:
    """Errnos, flags and names, as Linux's sockets have them."""
    said = shared_stack.submit(what_calls_say, shared_stack.host, echo).result(60)
    assert said == {
        "too long": "EMSGSIZE", "no peer": "EDESTADDRREQ", "port 0": "EINVAL", "broadcast": "EACCES",
        "no peer's name": "ENOTCONN", "listen": "ENOTSUP", "accept": "ENOTSUP", "nothing there": "EAGAIN",
        "in time": "TimeoutError", "family": std.AF_INET, "type": std.SOCK_DGRAM, "proto": 0,
        "peer": (shared_stack.host, echo), "peek": b"longer", "trunc": 6, "recvmsg": std.MSG_TRUNC,
        "into": (9, b"in pieces"), "dup": b"dup", "not our address": "EINVAL",
        "after SHUT_WR": "EPIPE", "dissolved": "ENOTCONN",
    }  # fmt: skip


def refused(host: str) -> list[str]:
    said = []
    with udp() as sock:
        sock.connect((host, CLOSED))
        send = lambda: sock.send(b"x")  # noqa: E731
        for call in (lambda: sock.recv(10), send, lambda: sock.getsockopt(1, 4), send):
            sock.send(b"x")  # each brings an ICMP error
            select.select([sock], [], [], PATIENCE_S)
            try:
                said.append(str(call()))
            except OSError as error:
                said.append(errno.errorcode[error.errno or 0])
            with contextlib.suppress(OSError):  # whatever is left of it
                time.sleep(0.2)
                sock.getsockopt(1, 4)
    with udp() as loose:
        loose.sendto(b"x", (host, CLOSED))
        time.sleep(0.2)
        said.append(str(loose.sendto(b"x", (host, CLOSED))))  # not connected: nobody is told (Linux)
    return said


def test_the_kernel_refuses(shared_stack: Stack) -> None:
    """ICMP port unreachable ends the next call of a connected socket, whichever that is, and is SO_ERROR once."""
    assert shared_stack.submit(refused, shared_stack.host).result(60) == [
        "ECONNREFUSED", "ECONNREFUSED", str(errno.ECONNREFUSED), "ECONNREFUSED", "1",
    ]  # fmt: skip


def test_we_refuse(shared_stack: Stack, kernel: std.socket) -> None:
    """A datagram for a port where nobody receives is answered with port unreachable (RFC 1122 4.1.3.1)."""
    kernel.connect((shared_stack.address, CLOSED))
    kernel.send(b"x")
    with pytest.raises(ConnectionRefusedError):
        kernel.recv(10)
    assert shared_stack.counters("udp")["drop.udp_no_port"] >= 1


def receive_on(port: int, count: int, options: list[int]) -> list[Any]:
    with udp() as sock:
        for option in options:
            sock.setsockopt(socket.IPPROTO_IP, option, 1)
        sock.bind(("", port))
        return [sock.recvmsg(2048, 256) for _ in range(count)]


def listening(stack: Stack, port: int) -> bool:
    return any(row["local_port"] == port for row in stack.ask("udp", "ss")["sockets"])


def waiting(stack: Stack, port: int) -> int:
    """What udp holds for the socket of a port."""
    return sum(row["recv_q"] for row in stack.ask("udp", "ss")["sockets"] if row["local_port"] == port)


def test_what_recvmsg_tells(shared_stack: Stack, kernel: std.socket) -> None:
    """IP_PKTINFO, IP_RECVTTL and IP_RECVTOS: where to, how far, how urgent."""
    told = shared_stack.submit(receive_on, 7001, 1, [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS])
    shared_stack.wait_until(lambda: listening(shared_stack, 7001), "it listens")
    kernel.setsockopt(std.IPPROTO_IP, std.IP_TTL, 33)
    kernel.setsockopt(std.IPPROTO_IP, std.IP_TOS, 0x28)
    kernel.sendto(b"hello", (shared_stack.address, 7001))
    ((data, ancillary, flags, sender),) = told.result(60)
    local = std.inet_aton(shared_stack.address)
    assert (data, flags, sender) == (b"hello", 0, kernel.getsockname())
    ((_, kind, info), ttl, tos) = ancillary
    assert kind == IP_PKTINFO and info[4:] == local + local
    assert ttl == (0, std.IP_TTL, struct.pack("=i", 33)) and tos == (0, std.IP_TOS, b"\x28")


def test_checksums(shared_stack: Stack, host: Namespace) -> None:
    """A datagram without a checksum is taken, a wrong one is dropped in silence (RFC 768, RFC 1122 4.1.3.4)."""
    told = shared_stack.submit(receive_on, 7002, 2, [])
    shared_stack.wait_until(lambda: listening(shared_stack, 7002), "it listens")
    before = shared_stack.counters("udp").get("drop.udp_checksum", 0)
    src, dst = std.inet_aton(shared_stack.host), std.inet_aton(shared_stack.address)

    def datagram(payload: bytes, checksum: int | None) -> bytes:
        head = struct.pack("!HHHH", 1234, 7002, 8 + len(payload), 0)
        if checksum is None:
            checksum = internet_checksum(head + payload, pseudo_header_sum(src, dst, 17, 8 + len(payload)))
        return head[:6] + struct.pack("!H", checksum) + payload

    with host.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_UDP) as raw:
        for payload, checksum in ((b"none", 0), (b"wrong", 0x1234), (b"right", None)):
            raw.sendto(datagram(payload, checksum), (shared_stack.address, 0))
    assert [one[0] for one in told.result(60)] == [b"none", b"right"]
    assert shared_stack.counters("udp")["drop.udp_checksum"] == before + 1


def join_and_answer(port: int, host: str) -> list[bytes]:
    got = []
    with udp() as sock, udp() as other:
        for one in (sock, other):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("", port))
        membership = socket.inet_aton(GROUP) + bytes(4)
        other.setsockopt(socket.IPPROTO_IP, 49, 0)  # IP_MULTICAST_ALL
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        for _ in range(2):
            data, sender = sock.recvfrom(100)
            got.append(data)
        got.append(other.recv(100))  # the broadcast, but not the group's
        other.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            got.append(other.recv(100))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(b"to the group", (GROUP, sender[1]))
        sock.sendto(b"to all", (host.rpartition(".")[0] + ".255", sender[1]))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, membership)
    return got


def test_groups_and_broadcasts(shared_stack: Stack, host: Namespace) -> None:
    """A group is heard by who is in it, a broadcast by all that are bound; both go out to the kernel's sockets."""
    told = shared_stack.submit(join_and_answer, 7003, shared_stack.host)
    group = std.inet_aton(GROUP)
    shared_stack.wait_until(lambda: group in shared_stack.snapshot("link")["groups"], "link lets the group pass")
    with host.socket(kind=std.SOCK_DGRAM) as kernel, host.socket(kind=std.SOCK_DGRAM) as hearing:
        kernel.settimeout(PATIENCE_S)
        hearing.settimeout(PATIENCE_S)
        ours = std.inet_aton(shared_stack.host)
        for one in (kernel, hearing):
            one.setsockopt(std.SOL_SOCKET, std.SO_REUSEADDR, 1)
        hearing.bind(("", 7103))
        hearing.setsockopt(std.IPPROTO_IP, std.IP_ADD_MEMBERSHIP, group + ours)
        kernel.bind((shared_stack.host, 7103))
        kernel.setsockopt(std.IPPROTO_IP, std.IP_MULTICAST_IF, ours)
        kernel.setsockopt(std.SOL_SOCKET, std.SO_BROADCAST, 1)
        kernel.sendto(b"group", (GROUP, 7003))
        kernel.sendto(b"all", ("10.0.0.255", 7003))
        assert told.result(60) == [b"group", b"all", b"all"]
        assert {hearing.recvfrom(100)[0] for _ in range(2)} == {b"to the group", b"to all"}


def slow(port: int, go: str) -> int:
    """How many datagrams are there once the file `go` is, up to one that says "end"."""
    with udp() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        sock.bind(("", port))
        until(Path(go).exists, "all are sent")
        count = 0
        while sock.recv(2000) != b"end":
            count += 1
        return count


def test_a_slow_reader_loses_and_it_is_counted(shared_stack: Stack, kernel: std.socket, tmp_path: Path) -> None:
    """What no buffer holds is dropped by udp, with its reason; not one is lost uncounted."""
    before = shared_stack.counters("udp")
    reader = shared_stack.submit(slow, 7004, str(tmp_path / "go"))
    shared_stack.wait_until(lambda: listening(shared_stack, 7004), "it listens")
    sent = 600
    for number in range(sent):
        kernel.sendto(struct.pack("!I", number) + bytes(1000), (shared_stack.address, 7004))
        if number % 100 == 99:  # a tap's queue holds 500
            came = before.get("datagrams_in", 0) + number + 1
            shared_stack.wait_until(lambda: shared_stack.counters("udp")["datagrams_in"] >= came, "they have come")  # noqa: B023
    (tmp_path / "go").touch()
    shared_stack.wait_until(lambda: waiting(shared_stack, 7004) == 0, "they are read: there is room for one more")
    kernel.sendto(b"end", (shared_stack.address, 7004))
    got = reader.result(60)
    after = shared_stack.counters("udp")
    dropped = after["drop.udp_buffer_full"] - before.get("drop.udp_buffer_full", 0)
    assert 0 < got < sent and got + dropped == sent


def fast(host: str, port: int, count: int) -> tuple[int, float]:
    with udp() as sock:
        start = time.monotonic()
        for number in range(count):
            sock.sendto(struct.pack("!I", number) + bytes(1000), (host, port))
        took = time.monotonic() - start
        name: tuple[str, int] = sock.getsockname()
    return name[1], took


def test_a_fast_sender_waits(shared_stack: Stack, host: Namespace, kernel: std.socket) -> None:
    """It is held back by its descriptor, and every datagram comes, in order. (Where this process was not quick enough
    for the kernel's buffer, the kernel says how many it has dropped.)"""
    count = 3000
    port = kernel.getsockname()[1]
    with contextlib.suppress(PermissionError):
        kernel.setsockopt(std.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
    sending = shared_stack.submit(fast, shared_stack.host, port, count)
    kernel.settimeout(1.0)
    got: list[int] = []

    def all_came() -> bool:
        with contextlib.suppress(TimeoutError):
            while len(got) < count:
                got.append(struct.unpack("!I", kernel.recv(2000)[:4])[0])
        return len(got) + dropped_by(host, port) >= count

    until(all_came, "every datagram")
    sending.result(60)
    dropped = dropped_by(host, port)
    assert len(got) + dropped == count and got == sorted(set(got))
    assert got[:100] == list(range(100))


def dropped_by(host: Namespace, port: int) -> int:
    """What the kernel has dropped because a socket's buffer was full: proc(5), /proc/net/udp, drops."""
    rows = host.run(["cat", "/proc/net/udp"]).stdout.splitlines()[1:]
    return sum(int(row.split()[-1]) for row in rows if int(row.split()[1].rpartition(":")[2], 16) == port)


async def _talk(host: str, port: int) -> list[bytes]:
    loop = asyncio.get_running_loop()
    got: asyncio.Queue[bytes] = asyncio.Queue()

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            got.put_nowait(data)

        def error_received(self, exc: Exception) -> None:
            got.put_nowait(type(exc).__name__.encode())

    said = []
    for where in ((host, port), (host, CLOSED)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        sock.connect(where)
        transport, _ = await loop.create_datagram_endpoint(Protocol, sock=sock)
        transport.sendto(b"to an endpoint")
        said.append(await asyncio.wait_for(got.get(), PATIENCE_S))
        transport.close()
    return said


def talk(host: str, port: int) -> list[bytes]:
    return asyncio.run(_talk(host, port))


def test_asyncio(shared_stack: Stack, echo: int) -> None:
    """create_datagram_endpoint with our socket: datagrams and errors."""
    said = shared_stack.submit(talk, shared_stack.host, echo).result(60)
    assert said == [b"to an endpoint", b"ConnectionRefusedError"]


def readiness(host: str, port: int) -> list[Any]:
    said: list[Any] = []
    with udp() as sock, select.epoll() as epoll:
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLOUT)
        epoll.register(sock, select.EPOLLIN)
        said.append((poll.poll(0)[0][1], epoll.poll(0)))
        sock.sendto(b"x", (host, port))
        said.append([mask for _, mask in epoll.poll(PATIENCE_S)])
        said.append(poll.poll(0)[0][1])
        sock.recv(10)
        said.append(epoll.poll(0))
    return said


def test_readiness(shared_stack: Stack, echo: int) -> None:
    """Writable at once, readable while a datagram waits."""
    said = shared_stack.submit(readiness, shared_stack.host, echo).result(60)
    assert said == [(select.POLLOUT, []), [select.EPOLLIN], select.POLLIN | select.POLLOUT, []]


def fork_and_exit(host: str, port: int) -> tuple[bytes, int]:
    with udp() as sock:
        sock.connect((host, port))
        child = os.fork()
        if not child:
            try:
                sock.send(b"from the child")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        return sock.recv(100), sock.getsockname()[1]


def test_fork_close_and_exit(shared_stack: Stack, echo: int, kernel: std.socket) -> None:
    """A child uses its parent's socket; the port is free when the last holder has closed; what was sent before an exit
    is sent."""
    data, port = shared_stack.submit(fork_and_exit, shared_stack.host, echo).result(60)
    assert data == b"from the child"
    shared_stack.wait_until(lambda: not listening(shared_stack, port), "the port is free")
    source = (
        "from levelip.client import socket; import sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for n in range(100): s.sendto(b'%d' % n, (sys.argv[1], int(sys.argv[2])))\n"
    )
    with shared_stack.namespace.socket(kind=std.SOCK_DGRAM) as other:  # type: ignore[union-attr]
        other.bind((shared_stack.host, 0))
        other.settimeout(PATIENCE_S)
        shared_stack.python("-c", source, shared_stack.host, str(other.getsockname()[1]))
        assert [int(other.recv(100)) for _ in range(100)] == list(range(100))


def answer(port: int) -> int:
    """Echo until "end" comes; how many. An echo that cannot be sent while a process is away is lost (ENETDOWN)."""
    with udp() as sock:
        sock.bind(("", port))
        for count in itertools.count():
            data, sender = sock.recvfrom(100)
            if data == b"end":
                return count
            try:
                sock.sendto(data, sender)
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
    raise AssertionError


@pytest.mark.parametrize("layer", ["udp", "ip", "gateway"])
def test_restarts(shared_stack: Stack, kernel: std.socket, layer: str) -> None:
    """A killed process comes back and finds the socket as it was: bound, and heard."""
    port = {"udp": 7010, "ip": 7011, "gateway": 7012}[layer]
    answering = shared_stack.submit(answer, port)
    kernel.settimeout(0.2)
    for restarted in (False, True):
        if restarted:
            shared_stack.restart(layer)
            shared_stack.wait_ready()
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                kernel.sendto(b"still there?", (shared_stack.address, port))
                assert kernel.recv(100) == b"still there?"
                break
        else:
            program = repr(answering.exception(0)) if answering.done() else "runs"
            raise AssertionError(f"no answer, {layer} restarted: {restarted}; the program: {program}")
    kernel.sendto(b"end", (shared_stack.address, port))
    assert answering.result(60) >= 2


def test_ss_shows_them(shared_stack: Stack) -> None:
    """lvlip ss -u and -tu, in ss's habit."""
    told = shared_stack.submit(receive_on, 7020, 1, [])
    shared_stack.wait_until(lambda: listening(shared_stack, 7020), "it listens")
    shown = shared_stack.lvlip("ss", "-ul").stdout
    assert shown.splitlines()[0].split()[0] == "State" and "*:7020" in shown and "UNCONN" in shown
    assert "udp" in shared_stack.lvlip("ss", "-tua").stdout
    with shared_stack.namespace.socket(kind=std.SOCK_DGRAM) as sock:  # type: ignore[union-attr]
        sock.sendto(b"end", (shared_stack.address, 7020))
    assert told.result(60)[0][0] == b"end"
