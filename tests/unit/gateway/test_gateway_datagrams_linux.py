"""Datagram sockets: each call in each state, and each option, compared with the Linux kernel that runs the test."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Any

import pytest
from datagram_bench import HERE, DatagramBench

from gateway.options import DATAGRAM_OPTIONS
from levelip.rpc.messages import SendDatagram

NAMES = {**errno.errorcode, 0: "ok"}
_LIBC = ctypes.CDLL(None, use_errno=True)
ANY_ADDRESS, PRIVATE = "0.0.0.0", "198.51.100.1"  # the second one is nobody's (RFC 5737)


class Kernel:
    """Linux's socket."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.peer.bind(("127.0.0.1", 0))

    def close(self) -> None:
        self.sock.close()
        self.peer.close()

    def call(self, op: str, *args: Any) -> str:
        try:
            match op:
                case "dissolve":
                    raw = struct.pack("=H14x", socket.AF_UNSPEC)
                    code = _LIBC.connect(self.sock.fileno(), raw, 16)
                    return NAMES[ctypes.get_errno() if code else 0]
                case "connect":
                    self.sock.connect(("127.0.0.1", self.peer.getsockname()[1]))
                case "bind":
                    self.sock.bind((args[0], 0))
                case "accept" | "getsockname" | "getpeername":
                    getattr(self.sock, op)()
                case "listen":
                    self.sock.listen(1)
                case "shutdown":
                    self.sock.shutdown(args[0])
                case "send":
                    self.sock.send(b"x")
                case "sendto":
                    self.sock.sendto(b"x", ("127.0.0.1", args[0] or self.peer.getsockname()[1]))
                case "sendto0":
                    self.sock.sendto(b"x", ("127.0.0.1", 0))
                case "long":
                    self.sock.sendto(bytes(65_508), ("127.0.0.1", self.peer.getsockname()[1]))
                case "so_error":
                    return NAMES[self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)]
        except OSError as error:
            return NAMES[error.errno or -1]
        return "ok"

    def names(self) -> list[str]:
        name, port = self.sock.getsockname()
        return [name, "bound" if port else "unbound"]

    def set(self, level: int, option: int, value: int | bytes) -> str:
        try:
            self.sock.setsockopt(level, option, value)
        except OSError as error:
            return NAMES[error.errno or -1]
        return "ok"

    def get(self, level: int, option: int) -> bytes | str:
        try:
            return self.sock.getsockopt(level, option, 64)
        except OSError as error:
            return NAMES[error.errno or -1]


class Ours:
    """The gateway's, with a udp core beside it."""

    def __init__(self) -> None:
        self.bench = DatagramBench(uid=os.getuid())
        self.app = self.bench.app
        self.sock = self.bench.socket()

    def close(self) -> None:
        """Nothing is held."""

    def call(self, op: str, *args: Any) -> str:
        app, sock = self.app, self.sock
        match op:
            case "dissolve":
                code = app.errno("connect", sock, address=b"", port=0)
            case "connect":
                code = app.errno("connect", sock, address=HERE, port=53)
            case "bind":
                code = app.errno("bind", sock, address=socket.inet_aton(args[0]), port=0)
            case "shutdown":
                code = app.errno("shutdown", sock, how=args[0])
            case "send":
                code = self._send(b"", 0)
            case "sendto" | "sendto0":
                code = self._send(HERE, 53 if op == "sendto" else 0)
            case "long":
                code = self._send(HERE, 53, bytes(65_508))
            case "so_error":
                code = int.from_bytes(app.ok("getsockopt", sock, level=1, option=4)["value"], "little")
            case _:
                code = app.errno(op, sock)
        return NAMES[code]

    def _send(self, address: bytes, port: int, payload: bytes = b"x") -> int:
        self.app.send(SendDatagram(self.sock, address, port, payload, 999))
        return self.bench.answer(999).errno

    def names(self) -> list[str]:
        data = self.app.ok("getsockname", self.sock)
        return [socket.inet_ntoa(data["address"]), "bound" if data["port"] else "unbound"]

    def set(self, level: int, option: int, value: int | bytes) -> str:
        return NAMES[self.app.errno("setsockopt", self.sock, level=level, option=option, value=value)]

    def get(self, level: int, option: int) -> bytes | str:
        reply = self.app.call("getsockopt", self.sock, level=level, option=option)
        assert reply is not None
        value: bytes | str = NAMES[reply.errno] if reply.errno else reply.data["value"]
        return value


STATES: dict[str, list[tuple[Any, ...]]] = {
    "new": [],
    "bound": [("bind", "127.0.0.1")],
    "bound to any": [("bind", ANY_ADDRESS)],
    "sent": [("sendto", 0)],
    "connected": [("connect",)],
    "bound, connected": [("bind", "127.0.0.1"), ("connect",)],
    "bound to any, connected": [("bind", ANY_ADDRESS), ("connect",)],
    "dissolved": [("connect",), ("dissolve",)],
    "bound, dissolved": [("bind", "127.0.0.1"), ("connect",), ("dissolve",)],
    "bound to any, dissolved": [("bind", ANY_ADDRESS), ("connect",), ("dissolve",)],
}
CALLS: list[tuple[Any, ...]] = [
    ("bind", "127.0.0.1"), ("bind", PRIVATE), ("connect",), ("dissolve",), ("listen",), ("accept",), ("getsockname",),
    ("getpeername",), ("shutdown", 0), ("shutdown", 1), ("shutdown", 2), ("shutdown", 3), ("send",), ("sendto", 0),
    ("sendto0",), ("long",), ("so_error",),
]  # fmt: skip


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_errno_is_that_of_linux(state: str, call: tuple[Any, ...]) -> None:
    """A call in a state gives Linux's errno, and leaves the names that Linux leaves."""
    answers = []
    for world in (Kernel(), Ours()):
        try:
            for step in STATES[state]:
                assert world.call(*step) == "ok", step
            answers.append([world.call(*call), world.names(), world.call("getpeername"), world.call("so_error")])
        finally:
            world.close()
    assert answers[1] == answers[0]


VALUES: dict[str, list[int | bytes]] = {
    "SO_LINGER": [1, struct.pack("ii", 1, 5), b"1234567"],
    "SO_RCVTIMEO": [struct.pack("=qq", 2, 0), struct.pack("=qq", 1, 1_000_000), b"short"],
    "SO_SNDTIMEO": [struct.pack("=qq", 2, 0), 1],
    "SO_SNDBUF": [0, 1, 2305, 100_000, b"\1\0\0"],
    "SO_RCVBUF": [0, 1, 1153, 100_000, b""],
    "IP_TOS": [0, 1, 3, 0x10, 0xFF, 0x110, -1, b"\x10"],
    "IP_TTL": [0, 1, 255, 256, -1],
    "IP_MULTICAST_TTL": [0, 1, 255, 256, -1, b"\5"],
    "IP_MTU_DISCOVER": [0, 1, 2, 3, -1, 6],
}
ROUTE, STAMPS = "070b04", "440c05"
VALUES["IP_OPTIONS"] = [
    bytes.fromhex(value)
    for value in (
        "",
        "01",
        "00",
        "0000000000000000",
        "01" + ROUTE + "00" * 8,
        ROUTE + "11" * 8,
        "070b08" + "11" * 8,
        "070b0c" + "11" * 8,
        "070b05" + "00" * 8,
        "070b03" + "00" * 8,
        "070204",
        "0707",
        ROUTE + "00" * 8 + ROUTE + "00" * 8,
        STAMPS + "00" + "11" * 8,
        STAMPS + "01" + "11" * 8,
        STAMPS + "030a000001" + "11" * 4,
        "440404f0",
        "44040500",
        "440405f0",
        "440405f3",
        "94040000",
        "940300",
        "82040000",
        "63040000",
        "01" * 40,
        "01" * 41,
        "83",
        "8300",
        "860601020304",
    )
]
PLAIN: list[int | bytes] = [0, 1, 2, -1, b"\1", b"\1\0\0\0\0"]
OWN_DEFAULT = ("SO_SNDBUF", "SO_RCVBUF")


@pytest.mark.parametrize("numbers", [*DATAGRAM_OPTIONS, (1, 9999), (0, 9999), (99, 1), (6, 1)], ids=str)
def test_options_are_those_of_linux(numbers: tuple[int, int]) -> None:
    """setsockopt and getsockopt answer, byte for byte, what Linux does (defaults of buffers aside)."""
    option = DATAGRAM_OPTIONS.get(numbers)
    name = option.name if option is not None else "unknown"
    for value in [None, *VALUES.get(name, PLAIN)]:
        answers: list[list[Any]] = []
        for world in (Kernel(), Ours()):
            try:
                said = world.set(*numbers, value) if value is not None else ""
                answers.append([said, world.get(*numbers)])
            finally:
                world.close()
        if name in OWN_DEFAULT and answers[0][0] != "ok":
            assert answers[1][0] == answers[0][0], (name, value)
        else:
            assert answers[1] == answers[0], (name, value)


@pytest.mark.parametrize("kind", [2, 2 | 0o4000, 2 | 64])
@pytest.mark.parametrize("proto", [0, 6, 17, 136])
@pytest.mark.parametrize("family", [0, 2, 99])
def test_socket_arguments(family: int, kind: int, proto: int) -> None:
    """socket() refuses what Linux refuses (UDP-Lite, 136, is Linux's alone)."""
    ours = Ours().app.errno("socket", family=family, type=kind, proto=proto)
    fd = _LIBC.socket(family, kind, proto)
    linux = ctypes.get_errno() if fd < 0 else 0
    if fd >= 0:
        socket.socket(fileno=fd).close()
    if proto == 136 and not linux:
        assert ours == errno.EPROTONOSUPPORT
    else:
        assert NAMES[ours] == NAMES[linux]


@pytest.mark.parametrize("first", [(0, 0), (1, 0), (0, 1)], ids=str)
@pytest.mark.parametrize("second", [(0, 0), (1, 0), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize(
    "addresses", [("127.0.0.1", "127.0.0.1"), (ANY_ADDRESS, "127.0.0.1"), ("127.0.0.1", ANY_ADDRESS)]
)
def test_who_may_share_a_port(first: tuple[int, int], second: tuple[int, int], addresses: tuple[str, str]) -> None:
    """SO_REUSEADDR and SO_REUSEPORT of two sockets decide as in Linux."""
    kernel = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    bench = DatagramBench()
    ours = [bench.socket(), bench.socket()]
    port, said = 0, []
    for one, mine, options, address in zip(kernel, ours, (first, second), addresses, strict=True):
        for number, value in zip((2, 15), options, strict=True):
            one.setsockopt(1, number, value)
            bench.app.ok("setsockopt", mine, level=1, option=number, value=value)
        try:
            one.bind((address, port))
            port = one.getsockname()[1]
            linux = 0
        except OSError as error:
            linux = error.errno or -1
        said.append((NAMES[bench.app.errno("bind", mine, address=socket.inet_aton(address), port=7777)], NAMES[linux]))
    for one in kernel:
        one.close()
    assert [here for here, _ in said] == [there for _, there in said]
