"""Whatever comes from the network or to the gateway's door: counted with a reason, and a transfer goes on."""

from __future__ import annotations

import errno
import os
import random
import socket as std
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq

from levelip.client import socket as levelip_socket
from levelip.config import DeviceConfig
from levelip.rpc.messages import VERSION
from levelip.rpc.paths import door_endpoint
from levelip.tracing.reasons import lookup
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import CHUNK, PATIENCE_S, KernelServer, digest, stream

COUNT = 20_000
SEED = 4
LIMIT_S = 100.0
SIZE = 10_000_000
EPOCH = 0x1234_5678


class Transfer:
    """Both ways at once, round after round until `stop`, all compared; and no process may be another at the end."""

    def __init__(self, stack: Stack, host: Namespace) -> None:
        self._stack, self._host = stack, host
        self._over = threading.Event()

    def __enter__(self) -> Transfer:
        self._pids = {layer: self._stack.pid(layer) for layer in self._stack.layers}
        self._drops = self._count()
        self._got: list[str] = []
        self._server = KernelServer(self._host, self._stack.host, self._serve)
        self._server.__enter__()
        self._ours = self._stack.submit(app_rounds, self._stack.host, self._server.port, 2, SIZE)
        return self

    def _serve(self, sock: std.socket) -> None:
        """The first byte of each round asks for another one."""
        while sock.recv(1) == b"+":
            for chunk in streams.chunks(stream(1, SIZE)):
                sock.sendall(chunk)
            self._got.append(digest(streams.read_exactly(sock, SIZE)))
            sock.sendall(b"." if self._over.is_set() else b"+")

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._over.set()
        if kind is not None:
            self._server.close()
            return
        rounds = self._ours.result(LIMIT_S)
        self._server.__exit__(None, None, None)
        assert rounds == [digest(stream(1, SIZE))] * len(rounds)
        assert self._got == [digest(stream(2, SIZE))] * len(rounds)
        assert {layer: self._stack.pid(layer) for layer in self._stack.layers} == self._pids, "a process died"

    def _count(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for layer in self._stack.layers:
            for name, number in self._stack.counters(layer).items():
                if name.startswith("drop."):
                    counts[name] = counts.get(name, 0) + number
        return counts

    def drops(self) -> dict[str, int]:
        """What was discarded since the start, by reason."""
        return {name[5:]: n for name, old in self._count().items() if (n := old - self._drops.get(name, 0))}


def app_rounds(host: str, port: int, seed: int, size: int) -> list[str]:
    """Rounds of `size` bytes each way until the peer has had enough; the sha256 of what came in each."""
    found = []
    with levelip_socket.create_connection((host, port), timeout=PATIENCE_S) as sock:
        more = b"+"
        while more == b"+":
            sock.sendall(b"+")
            failed: list[BaseException] = []
            sender = threading.Thread(target=_send, args=(sock, seed, size, failed), daemon=True)
            sender.start()
            found.append(digest(streams.read_exactly(sock, size)))
            sender.join(PATIENCE_S)
            if failed:
                raise failed[0]
            more = sock.recv(1)
    return found


def _send(sock: std.socket, seed: int, size: int, failed: list[BaseException]) -> None:
    try:
        for chunk in streams.chunks(stream(seed, size)):
            sock.sendall(chunk)
    except BaseException as error:
        failed.append(error)


# from the network


class Frames:
    """Valid Ethernet frames to the stack, and mutations of them; the same ones for the same seed."""

    def __init__(self, rng: random.Random, ours: bytes, host: bytes) -> None:
        """`ours` and `host` are the two MAC addresses."""
        self._rng = rng
        self._ours, self._host = ours, host
        self._makers = [self.garbage, self.arp, self.icmp, self.tcp, self.tcp, self.other]

    def make(self) -> bytes:
        """A frame that is valid (one in eight) or is not."""
        rng = self._rng
        frame = bytearray(rng.choice(self._makers)())
        self._complete(frame)
        first = rng.choice((0, 14, 14, 34))
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 8, 30))):
            if len(frame) <= first:
                break
            at = min(rng.randrange(first, len(frame)), rng.randrange(first, len(frame)) + 12)  # headers most often
            match rng.randrange(5):
                case 0:
                    frame[at : at + 1] = rng.randbytes(1)
                case 1:
                    frame[at : at + 1] = bytes([frame[min(at, len(frame) - 1)] ^ 1 << rng.randrange(8)])
                case 2:
                    del frame[at:]
                case 3:
                    del frame[at : at + rng.randrange(1, 8)]
                case 4:
                    frame[at:at] = rng.randbytes(rng.randrange(1, 8))
        if rng.random() < 0.5:
            self._complete(frame, payload=rng.random() < 0.5)
        return bytes(frame[:1514]).ljust(14, b"\0")

    def _complete(self, frame: bytearray, *, payload: bool = True) -> None:
        """Make the checksums fit, so that what was changed is seen by the layers above; `payload`: not IP's alone."""
        if frame[12:14] != b"\x08\0" or len(frame) < 34:
            return
        length = (frame[14] & 15) * 4
        if length < 20 or len(frame) < 14 + length:
            return
        frame[24:26] = b"\0\0"
        frame[24:26] = internet_checksum(bytes(frame[14 : 14 + length])).to_bytes(2, "big")
        if not payload:
            return
        start = 14 + length
        where = {1: 2, 6: 16}.get(frame[23])
        if where is None or len(frame) < start + where + 2:
            return
        total = int.from_bytes(frame[16:18], "big")
        body = frame[start : 14 + total] if total >= length else frame[start:]
        if len(body) < where + 2:
            return
        frame[start + where : start + where + 2] = body[where : where + 2] = b"\0\0"
        initial = 0
        if frame[23] == 6:
            initial = pseudo_header_sum(bytes(frame[26:30]), bytes(frame[30:34]), 6, len(body))
        frame[start + where : start + where + 2] = internet_checksum(bytes(body), initial).to_bytes(2, "big")

    def ethernet(self, kind: int, payload: bytes) -> bytes:
        return self._ours + self._host + kind.to_bytes(2, "big") + payload

    def garbage(self) -> bytes:
        return self._ours + self._rng.randbytes(self._rng.randrange(2, 80))

    def arp(self) -> bytes:
        rng = self._rng
        body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, rng.choice((1, 2)))
        sender = bytes((10, 0, 0, rng.randrange(3, 255)))  # not the host: its own entry shall stay
        return self.ethernet(0x0806, body + self._host + sender + self._ours + b"\x0a\0\0\2")

    def ip(self, proto: int, payload: bytes, options: bytes = b"") -> bytes:
        length = 20 + len(options)
        head = struct.pack("!BBHHHBBH", 0x40 | length // 4, 0, length + len(payload), 1, 0, 64, proto, 0)
        head += b"\x0a\0\0\1\x0a\0\0\2" + options
        return self.ethernet(0x0800, head + payload)

    def icmp(self) -> bytes:
        rng = self._rng
        kind = rng.choice((0, 3, 4, 5, 8, 8, 11, 12, 13, 17))
        quote = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + b"\x0a\0\0\2\x0a\0\0\1" + rng.randbytes(8)
        return self.ip(1, struct.pack("!BBHI", kind, rng.randrange(16), 0, 0) + quote)

    def tcp(self) -> bytes:
        rng = self._rng
        options = b"".join(
            rng.choice((b"\1", b"\2\4\5\xb4", b"\3\3\7", b"\4\2", b"\x08\x0a" + rng.randbytes(8), rng.randbytes(4)))
            for _ in range(rng.randrange(4))
        )[:40]
        options += bytes(-len(options) % 4)
        ports = (rng.randrange(65_536), rng.choice((9, 7300, rng.randrange(65_536))))
        head = struct.pack("!HHIIBBHHH", *ports, rng.getrandbits(32), rng.getrandbits(32),
                           (20 + len(options)) // 4 << 4, rng.randrange(256), rng.randrange(65_536), 0, 0)  # fmt: skip
        return self.ip(6, head + options + rng.randbytes(rng.choice((0, 0, 1, 100, 1000))))

    def other(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.3:
            return self.ethernet(rng.choice((0x86DD, 0x8100, 0x88CC, 0x0005)), rng.randbytes(60))
        return self.ip(
            rng.choice((0, 2, 17, 41, 47, 255)), rng.randbytes(40), options=b"\x07\x04\x04\0"[: rng.choice((0, 4))]
        )


def test_twenty_thousand_bad_frames(shared_stack: Stack, host: Namespace) -> None:
    """Mutated Ethernet, ARP, IPv4, ICMP and TCP frames, half of them with checksums that fit again, beside a transfer
    both ways: it is intact, no process dies, and every reason that was counted has its row in the list."""
    stack = shared_stack
    device = DeviceConfig()
    rng = random.Random(SEED)
    wanted = {"icmp_bad_checksum", "tcp_checksum", "ip_bad_checksum", "wrong_mac", "tcp_no_connection", "arp_malformed"}

    def enough(drops: dict[str, int]) -> tuple[bool, bool, bool]:
        return wanted <= set(drops), sum(drops.values()) >= COUNT // 4, len(drops) >= 30

    served = stack.submit(app_listener, 7300, time.monotonic() + LIMIT_S)
    with host.socket(std.AF_PACKET, std.SOCK_RAW, 0) as sock, Transfer(stack, host) as transfer:
        sock.bind((device.interface(stack.name), 0))
        frames = Frames(rng, device.stack_mac(stack.name), sock.getsockname()[4])
        for _ in range(COUNT):
            while True:
                try:
                    sock.send(frames.make())
                    break
                except OSError as error:  # the device's queue is full: link has not taken them yet
                    assert error.errno == errno.ENOBUFS
                    time.sleep(0.001)
        stack.wait_until(lambda: all(enough(transfer.drops())), "all these reasons have been counted")
        drops = transfer.drops()
    served.cancel()
    assert all(lookup(name) is not None for name in drops), drops


def app_listener(port: int, limit: float) -> int:
    """Accepts whatever gets through and closes it."""
    accepted = 0
    with levelip_socket.create_server(("", port)) as server:
        server.settimeout(0.5)
        while time.monotonic() < limit and os.getppid() != 1:
            try:
                server.accept()[0].close()
                accepted += 1
            except TimeoutError:
                continue
            except OSError:
                break
    return accepted


def test_a_flood_of_syns_leaves_the_transfer_alone(shared_stack: Stack, host: Namespace) -> None:
    """5,000 SYNs from forged addresses to a port where nobody listens, and a tenth to one with a listener."""
    stack = shared_stack
    with Transfer(stack, host), host.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_RAW) as sock:
        for number in range(5000):
            src = bytes((10, 0, number >> 8 & 255, number & 255 or 1))
            head = struct.pack(
                "!HHIIBBHHH", 1024 + number, 7300 if number % 10 == 0 else 9, number, 0, 0x50, 2, 1000, 0, 0
            )
            total = pseudo_header_sum(src, b"\x0a\0\0\2", 6, len(head))
            head = head[:16] + internet_checksum(head, total).to_bytes(2, "big") + head[18:]
            packet = struct.pack("!BBHHHBBH", 0x45, 0, 40, number, 0, 64, 6, 0) + src + b"\x0a\0\0\2" + head
            sock.sendto(packet, (stack.address, 0))


# at the gateway's door


@pytest.fixture
def door(shared_stack: Stack) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    sock = context.socket(zmq.DEALER)
    sock.linger = 1000
    sock.rcvtimeo = int(PATIENCE_S * 1000)
    sock.connect(door_endpoint(shared_stack.name, shared_stack.directory))
    yield sock
    sock.close()
    context.term()


def envelope(*items: Any, to: int = 0) -> bytes:
    return msgspec.msgpack.encode([1, EPOCH, to, list(items)])


def answers(door: zmq.Socket[bytes]) -> list[Any]:
    """The messages in the next envelope from the gateway."""
    items: list[Any] = msgspec.msgpack.decode(door.recv_multipart()[0])[3]
    return items


def test_malformed_rpc(shared_stack: Stack, host: Namespace, door: zmq.Socket[bytes]) -> None:
    """Random bytes, wrong versions, unknown kinds, wrong fields, foreign sockets, gaps and nonsense in every call,
    beside a transfer of another client: counted, answered where there is somebody to answer, and nothing dies."""
    stack = shared_stack
    rng = random.Random(SEED)
    with Transfer(stack, host) as transfer:
        door.send(envelope([20, VERSION, "test", b"", ""]))
        (welcome,) = answers(door)
        assert welcome[0] == 21
        epoch = welcome[2]
        door.send(envelope([23, 1, "socket", 0, {}], to=epoch))
        (reply,) = answers(door)
        assert reply[:3] == [24, 1, 0]
        sock = reply[3]["sock"]
        for number in range(6000):
            door.send_multipart(_bad(rng, epoch, sock, number))
            while door.poll(0):
                door.recv_multipart()
        door.send(envelope([23, 77_777_777, "getsockname", sock, {}], to=epoch))
        deadline = time.monotonic() + PATIENCE_S
        while not any(item[:2] == [24, 77_777_777] for item in answers(door)):
            assert time.monotonic() < deadline, "no answer to a good request after the bad ones"
        drops = transfer.drops()
    assert all(lookup(name) is not None for name in drops), drops
    assert {"garbage", "unknown_version", "bad_message", "stale_epoch"} <= set(drops), drops


OPS = ("socket", "bind", "listen", "accept", "connect", "shutdown", "close", "setsockopt", "getsockopt", "getsockname",
       "getpeername", "nonsense", "")  # fmt: skip


def _bad(rng: random.Random, epoch: int, sock: int, number: int) -> list[bytes]:
    """One bad message; close of our own socket is left out, so that it can be asked for at the end."""

    def value(depth: int = 0) -> Any:
        kinds: list[Any] = [0, -1, 1 << 62, (1 << 64) - 1, b"", b"\0" * 4, "", "x" * 50, None, True, 1.5, sock]
        if depth < 3:
            kinds += [[value(depth + 1) for _ in range(3)], {"a": value(depth + 1)}]
        return rng.choice(kinds)

    match rng.randrange(9):
        case 0:
            return [rng.randbytes(rng.randrange(200)) for _ in range(rng.randrange(1, 5))]
        case 1:
            return [msgspec.msgpack.encode([rng.randrange(2, 99), EPOCH, epoch, []])]
        case 2:
            return [envelope([rng.randrange(100), *(value() for _ in range(rng.randrange(6)))], to=epoch)]
        case 3:
            return [envelope([23, number, rng.choice(OPS), rng.getrandbits(60), {"a": value()}], to=epoch)]
        case 4:
            op = rng.choice([op for op in OPS if op not in ("close", "connect")])
            names = ("address", "port", "backlog", "how", "level", "option", "value", "family", "type", "proto")
            args = {name: value() for name in rng.sample(names, rng.randrange(4))}
            return [envelope([23, number, op, sock, args], to=epoch)]
        case 5:
            stream_message = rng.choice((
                [1, sock, rng.getrandbits(40), 3, b"abc"], [1, sock, 0, 1 << 50, b"abc"], [4, sock, 1 << 50],
                [5, sock, 1 << 50], [6, rng.getrandbits(60), 0], [1, sock, 0, 3, ["x", 0, 10, 0, 3, 0]],
                [1, sock, 0, 3, ["", 7, 3, 0, 3, 0]],
            ))  # fmt: skip
            return [envelope(stream_message, to=epoch)]
        case 6:
            return [envelope([23, number, "getsockname", sock, {}], to=epoch ^ 1)]
        case 7:
            whole = bytearray(envelope([23, number, "getsockname", sock, {}], to=epoch))
            whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
            return [bytes(whole)]
        case _:
            return [envelope(*[[23, number, "getpeername", sock, {}]] * 100, to=epoch), b"x" * CHUNK]
