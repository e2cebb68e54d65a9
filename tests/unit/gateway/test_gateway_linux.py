"""Each call in each state, and each option, compared with the Linux kernel that runs the test (on 127.0.0.1)."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_bench import LOCAL, OPEN, REFUSED, REMOTE, SILENT, Bench, Client

from gateway import info
from gateway.options import OPTIONS, Kind
from levelip.rpc.stream import Eof, Reset
from tests.waiting import until

HERE = "127.0.0.1"
NAMES = {**errno.errorcode, 0: "ok", errno.EINPROGRESS: "ok"}  # a non-blocking connect has begun, in both


PATIENCE_MS = 60_000


def _settle(sock: socket.socket, what: int = select.POLLOUT) -> None:
    """Its connection has come about, or is over; `what` 0: it is over. Loopback delivers within the system call, but
    not always where the machine is busy."""
    poll = select.poll()
    poll.register(sock, what)
    assert poll.poll(PATIENCE_MS)


class Kernel:
    """A socket of Linux brought into a state, and calls on it."""

    def __init__(self) -> None:
        self.kept: list[socket.socket] = []
        self.listener = self._listener(8)
        self.sock = self._keep(socket.socket())

    def _keep(self, sock: socket.socket) -> socket.socket:
        self.kept.append(sock)
        return sock

    def _listener(self, backlog: int) -> socket.socket:
        sock = self._keep(socket.socket())
        sock.bind((HERE, 0))
        sock.listen(backlog)
        return sock

    def close(self) -> None:
        for sock in self.kept:
            sock.close()

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind((HERE, 0))
            port: int = probe.getsockname()[1]
            return port

    def errno(self, op: str, **args: Any) -> int:
        calls: dict[str, Callable[[], object]] = {
            "bind": lambda: self.sock.bind((HERE, args.get("port", 0))),
            "listen": lambda: self.sock.listen(4),
            "accept": self.sock.accept,
            "connect": lambda: self.sock.connect(self.listener.getsockname()),
            "shutdown": lambda: self.sock.shutdown(args["how"]),
            "getsockname": self.sock.getsockname,
            "getpeername": self.sock.getpeername,
            "dissolve": self._dissolve,
        }
        if op in ("accept", "connect"):
            self.sock.setblocking(False)
        try:
            calls[op]()
        except BlockingIOError as error:
            if error.errno == errno.EINPROGRESS:
                _settle(self.sock)
            return error.errno or -1
        except OSError as error:
            return error.errno or -1
        return 0

    def _dissolve(self) -> None:
        """connect() with AF_UNSPEC, which Python cannot say."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.connect(self.sock.fileno(), bytes(16), 16):
            raise OSError(ctypes.get_errno(), "connect")

    def so_error(self) -> int:
        return self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    # states

    def new(self) -> None:
        pass

    def bound(self) -> None:
        for _ in range(100):
            try:
                return self.sock.bind((HERE, self.free_port()))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # else another program was faster
                    raise
        raise AssertionError("no port stays free")

    def bound_any_port(self) -> None:
        self.sock.bind((HERE, 0))

    def listening(self) -> None:
        self.bound()
        self.sock.listen(4)

    def listening_unbound(self) -> None:
        self.sock.listen(4)

    def connecting(self) -> None:
        full = self._listener(0)
        for _ in range(2):
            filler = self._keep(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        until(lambda: info.unpack(full.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1024))["unacked"], "it is full")
        self.sock.setblocking(False)
        self.sock.connect_ex(full.getsockname())

    def connected(self) -> None:
        self.sock.connect(self.listener.getsockname())

    def reset(self) -> None:
        self.connected()
        other, _ = self.listener.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        _settle(self.sock, 0)

    def reset_early(self) -> None:
        self.sock.setblocking(False)
        self.sock.connect_ex(self.listener.getsockname())
        _settle(self.sock)
        other, _ = self.listener.accept()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        other.close()
        _settle(self.sock, 0)

    def bound_reset(self) -> None:
        self.bound()
        self.reset()

    def bound_connected(self) -> None:
        self.bound()
        self.connected()

    def half_closed(self) -> None:
        self.connected()
        self.sock.shutdown(socket.SHUT_WR)

    def both_closed(self) -> None:
        self.half_closed()
        self.listener.accept()[0].close()
        _settle(self.sock, 0)

    def refused(self) -> None:
        nobody = self._keep(socket.socket())
        nobody.bind((HERE, 0))  # and does not listen: until the end no other program does, either
        self.sock.connect_ex(nobody.getsockname())

    def bound_refused(self) -> None:
        self.bound()
        self.refused()

    def bound_any_refused(self) -> None:
        self.bound_any_port()
        self.refused()

    def refused_later(self) -> None:
        self.sock.setblocking(False)
        self.refused()
        _settle(self.sock)

    def refused_later_and_read(self) -> None:
        self.refused_later()
        self.so_error()

    def bound_refused_later(self) -> None:
        self.bound()
        self.refused_later()

    def bound_any_refused_later(self) -> None:
        self.bound_any_port()
        self.refused_later()

    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port


class Ours:
    """The same with the gateway's core and a scripted tcp."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.app: Client = self.bench.client(uid=os.getuid())
        self.sock = self.app.socket()

    def close(self) -> None:
        pass

    def errno(self, op: str, **args: Any) -> int:
        arguments: dict[str, dict[str, Any]] = {
            "bind": {"address": LOCAL, "port": args.get("port", 0)},
            "listen": {"backlog": 4},
            "connect": {"address": REMOTE, "port": OPEN, "nonblocking": True},
            "shutdown": args,
            "dissolve": {"address": b"", "port": 0},
        }
        return self.app.errno("connect" if op == "dissolve" else op, self.sock, **arguments.get(op, {}))

    def so_error(self) -> int:
        value = self.app.ok("getsockopt", self.sock, level=1, option=4)["value"]
        number: int = struct.unpack("=i", value)[0]
        return number

    def new(self) -> None:
        pass

    def bound(self) -> None:
        self.app.ok("bind", self.sock, address=LOCAL, port=7777)

    def bound_any_port(self) -> None:
        self.app.ok("bind", self.sock, address=LOCAL, port=0)

    def listening(self) -> None:
        self.bound()
        self.app.ok("listen", self.sock, backlog=4)

    def listening_unbound(self) -> None:
        self.app.ok("listen", self.sock, backlog=4)

    def connecting(self) -> None:
        assert self.app.call("connect", self.sock, address=REMOTE, port=SILENT, nonblocking=True) is None

    def connected(self) -> None:
        self.app.ok("connect", self.sock, address=REMOTE, port=OPEN, nonblocking=False)

    def reset(self) -> None:
        self.connected()
        self.bench.feed(Reset(self.sock, errno.ECONNRESET))

    def reset_early(self) -> None:
        self.app.ok("connect", self.sock, address=REMOTE, port=OPEN, nonblocking=True)
        self.bench.feed(Reset(self.sock, errno.ECONNRESET))

    def bound_reset(self) -> None:
        self.bound()
        self.reset()

    def bound_connected(self) -> None:
        self.bound()
        self.connected()

    def half_closed(self) -> None:
        self.connected()
        self.app.send(Eof(self.sock, 0))

    def both_closed(self) -> None:
        self.half_closed()
        self.bench.feed(Eof(self.sock, 0))

    def refused(self) -> None:
        assert self.app.errno("connect", self.sock, address=REMOTE, port=REFUSED, nonblocking=False) == 111

    def bound_refused(self) -> None:
        self.bound()
        self.refused()

    def bound_any_refused(self) -> None:
        self.bound_any_port()
        self.refused()

    def refused_later(self) -> None:
        assert self.app.errno("connect", self.sock, address=REMOTE, port=REFUSED, nonblocking=True) == 111

    def refused_later_and_read(self) -> None:
        self.refused_later()
        self.so_error()

    def bound_refused_later(self) -> None:
        self.bound()
        self.refused_later()

    def bound_any_refused_later(self) -> None:
        self.bound_any_port()
        self.refused_later()

    def free_port(self) -> int:
        return 7778

    def port(self) -> int:
        port: int = self.app.ok("getsockname", self.sock)["port"]
        return port


STATES = [
    "new", "bound", "bound_any_port", "listening", "listening_unbound", "connecting", "connected", "reset",
    "bound_reset", "refused", "bound_refused", "bound_any_refused", "refused_later", "refused_later_and_read",
    "bound_refused_later", "bound_any_refused_later",
]  # fmt: skip
CALLS: list[tuple[str, dict[str, int]]] = [
    ("bind", {}), ("listen", {}), ("accept", {}), ("connect", {}), ("getsockname", {}), ("getpeername", {}),
    ("shutdown", {"how": 0}), ("shutdown", {"how": 1}), ("shutdown", {"how": 2}), ("shutdown", {"how": 3}),
]  # fmt: skip
# Linux lets bind() succeed on a socket whose connection is over, though nothing can follow from it
DEVIATIONS = {("reset", "bind")}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize(("op", "args"), CALLS, ids=[f"{op}{args.get('how', '')}" for op, args in CALLS])
def test_errno_is_that_of_linux(state: str, op: str, args: dict[str, int]) -> None:
    """A call in a state fails with the errno that Linux gives, and leaves the SO_ERROR that Linux leaves; so do the
    two calls to connect() that follow."""
    answers = []
    for world in (Kernel(), Ours()):
        try:
            getattr(world, state)()
            seen = [NAMES[world.errno(op, **args)], NAMES[world.so_error()]]
            if op in ("connect", "shutdown"):
                seen += [NAMES[world.errno("getpeername")], NAMES[world.errno("accept")], NAMES[world.errno("listen")]]
            answers.append(seen)
        finally:
            world.close()
    if (state, op) in DEVIATIONS:
        assert answers[1][0] == "EINVAL"
    else:
        assert answers[1] == answers[0]


@pytest.mark.parametrize("state", ["refused", "refused_later", "refused_later_and_read", "connected", "reset"])
def test_connect_again_and_again(state: str) -> None:
    """What connect() says when it is called again after an outcome: the error once, ECONNABORTED once if the error
    was read already, then it begins anew; EISCONN on what was ever connected."""
    answers = []
    for world in (Kernel(), Ours()):
        try:
            getattr(world, state)()
            calls = []
            for _ in range(4):
                calls.append(NAMES[world.errno("connect")])
            answers.append(calls)
        finally:
            world.close()
    assert answers[1] == answers[0]


@pytest.mark.parametrize("state", [state for state in STATES if state.endswith(("refused_later", "and_read"))])
@pytest.mark.parametrize("chooses", [True, False], ids=["a port", "any port"])
def test_bind_after_a_connect_that_failed(state: str, chooses: bool) -> None:
    """Where the failure has taken the port, another may be bound, once. The next connect() tells the failure yet;
    a port that was chosen is still there then, another is not."""
    answers = []
    for world in (Kernel(), Ours()):
        try:
            getattr(world, state)()
            port = world.free_port() if chooses else 0
            seen: list[object] = [NAMES[world.errno("bind", port=port)], NAMES[world.errno("bind", port=port)]]
            first = world.port()
            seen += [first > 0, first == port, NAMES[world.errno("listen")], NAMES[world.errno("connect")]]
            seen += [world.port() == first, NAMES[world.errno("bind", port=port)], NAMES[world.errno("connect")]]
            seen += [not chooses or world.port() == first, world.port() > 0]
            answers.append(seen)
        finally:
            world.close()
    assert answers[1] == answers[0]


@pytest.mark.parametrize("port", [False, True], ids=["unbound", "bound"])
@pytest.mark.parametrize("read", [False, True], ids=["untold", "SO_ERROR"])
@pytest.mark.parametrize("then", ["connect", "bind", "listen", "getpeername"])
def test_a_reset_before_connect_has_told_of_success(port: bool, read: bool, then: str) -> None:
    """connect() tells of it, instead of success, and what comes then is of a socket that was never connected."""
    answers = []
    for world in (Kernel(), Ours()):
        try:
            if port:
                world.bound()
            world.reset_early()
            if read:
                world.so_error()
            seen = [NAMES[world.errno("connect")], NAMES[world.so_error()], NAMES[world.errno(then)]]
            if then != "listen":
                seen += [NAMES[world.errno("connect")], NAMES[world.errno("getpeername")]]
            answers.append(seen)
        finally:
            world.close()
    assert answers[1] == answers[0]


@pytest.mark.parametrize("state", [*STATES, "bound_connected", "half_closed", "both_closed"])
@pytest.mark.parametrize("then", ["connect", "bind", "listen", "dissolve"])
def test_connect_with_no_address(state: str, then: str) -> None:
    """AF_UNSPEC dissolves whatever there is: what the program chose by bind() stays, SO_ERROR is what Linux leaves, and
    the socket can be used as a new one."""
    answers = []
    for world in (Kernel(), Ours()):
        try:
            getattr(world, state)()
            before = world.port()
            seen: list[object] = [NAMES[world.errno("dissolve")], world.port() == before]
            if then == "dissolve":
                seen.append(NAMES[world.so_error()])
            seen += [NAMES[world.errno(op)] for op in ("getpeername", "accept", then)]
            seen += [NAMES[world.so_error()], world.port() == before, NAMES[world.errno("connect")]]
            answers.append(seen)
        finally:
            world.close()
    assert answers[1] == answers[0]


SOCKETS = [
    (family, kind, proto)
    for family in (-1, 0, 2, 99)
    for kind in (-1, 0, 1, 1 | 0o4000, 1 | 64, 5, 4, 11)
    for proto in (-1, 0, 6, 17, 262, 263)
]


@pytest.mark.parametrize("arguments", SOCKETS, ids=str)
def test_socket_arguments(arguments: tuple[int, int, int]) -> None:
    """socket() refuses families, types and protocols as Linux does (of the types Linux has more)."""
    bench = Bench()
    family, kind, proto = arguments
    ours = bench.client().errno("socket", family=family, type=kind, proto=proto)
    linux = _libc_socket(family, kind, proto)
    if proto == 262 and kind in (1, 1 | 0o4000) and family == 2:
        assert ours == errno.EPROTONOSUPPORT  # 262 is Linux's MPTCP, which we do not have
        return
    assert NAMES[ours] == NAMES[linux]


def _libc_socket(family: int, kind: int, proto: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.socket(family, kind, proto)
    if fd < 0:
        return ctypes.get_errno()
    socket.socket(fileno=fd).close()
    return 0


def _timeval(seconds: int, micro: int) -> bytes:
    return struct.pack("=qq", seconds, micro)


VALUES: dict[str, list[int | bytes]] = {
    "IP_OPTIONS": [0, 1, b"", b"\1", bytes.fromhex("070b0411111111000000ff"), bytes.fromhex("440405f0"), bytes(41)],
    "SO_LINGER": [1, struct.pack("ii", 1, 5), struct.pack("ii", 7, 0), struct.pack("ii", 0, 5), b"1234567"],
    "SO_RCVTIMEO": [1, _timeval(2, 0), _timeval(1, 1_000_000), _timeval(-1, 0), _timeval(0, 500_000)],
    "SO_SNDTIMEO": [1, _timeval(2, 0), _timeval(1, 1_000_000), b"short"],
    "SO_BINDTODEVICE": [0, 1, b"", b"\0", b"no-such-device", b"no-such-device, and a longer name than there may be"],
    "SO_SNDBUF": [0, 1, 2304, 2305, 100_000, b"\1\0\0"],
    "SO_RCVBUF": [0, 1, 1152, 1153, 100_000, b""],
    "SO_RCVLOWAT": [0, 1, 5],
    "TCP_MAXSEG": [0, 87, 88, 1000, 32_767, 32_768, -1],
    "TCP_CONGESTION": [b"nope", b"", b"reno"],
    "TCP_LINGER2": [0, 1, 59, 60, 61, 120, 121, 1_000_000, -1, -5, b"\1"],
    "TCP_DEFER_ACCEPT": [0, 1, 2, 3, 4, 7, 8, 60, 127, 128, 200, 1_000_000, -1, b"\1\0\0"],
    "TCP_WINDOW_CLAMP": [0, 1, 1151, 1152, 1153, 5000, 100_000, -1, b""],
    "TCP_QUICKACK": [0, 1, 2, 3, 4, -1, b"\1"],
    "IP_MTU_DISCOVER": [0, 1, 2, 3, 4, 5, 6, -1, b"\2", b"\7", b""],
    "IP_LOCAL_PORT_RANGE": [0, 1, 0x0001_0000, 0x0002_0001, 0x0001_0002, -1, b"\1", bytes(5)],
    "IP_TOS": [0, 1, 3, 0x10, 0x1FF, -1, b"\x10", b"\x10\0", b""],
    "IP_TTL": [0, 1, 255, 256, -1, b"\x10", b""],
}
COUNTS: list[int | bytes] = [0, 1, 2, 127, 128, 32_767, 32_768, -1, b"\1", b"\1\0\0\0\0", b""]
UNKNOWN = [(1, 9999), (6, 99), (6, 9999)]
FORCED = [(1, 32), (1, 33)]


COMPARED = [key for key, option in OPTIONS.items() if option.name != "TCP_INFO"]  # test_tcp_info compares that one


@pytest.mark.parametrize(("level", "number"), [*COMPARED, *UNKNOWN, *FORCED])
def test_options_are_those_of_linux(level: int, number: int) -> None:
    """setsockopt and getsockopt answer, byte for byte, what Linux does (defaults of buffers aside)."""
    option = OPTIONS.get((level, number))
    name = option.name if option is not None else "unknown"
    for value in VALUES.get(name, COUNTS):
        kernel, ours = Kernel(), Ours()
        try:
            before = _get(kernel.sock, level, number)
            expected = _set(kernel.sock, level, number, value), _get(kernel.sock, level, number)
            reply = ours.app.call("setsockopt", ours.sock, level=level, option=number, value=value)
            assert reply is not None
            shown = ours.app.call("getsockopt", ours.sock, level=level, option=number)
            assert shown is not None
            got = NAMES[reply.errno], shown.data.get("value", NAMES[shown.errno])
            own_default = name in ("SO_SNDBUF", "SO_RCVBUF", "TCP_CONGESTION") and before == expected[1]
            if own_default or name == "TCP_CONGESTION":
                assert got[0] == expected[0], (name, value)
            else:
                assert got == expected, (name, value)
        finally:
            kernel.close()


@pytest.mark.parametrize(("forced", "plain"), [(32, 7), (33, 8)])
def test_a_forced_buffer(forced: int, plain: int) -> None:
    """It is the plain one for who may not be limited, and not to be set by others."""
    kernel, ours = Kernel(), Ours()
    for value in (100_000, 1, -1):
        linux = _set(kernel.sock, 1, forced, value)
        assert NAMES[ours.app.errno("setsockopt", ours.sock, level=1, option=forced, value=value)] == linux
        if linux == "ok":
            assert ours.app.ok("getsockopt", ours.sock, level=1, option=plain)["value"] == _get(kernel.sock, 1, plain)
    kernel.close()
    ordinary = ours.bench.client(uid=1000)
    for kind in (1, 2):
        sock = ordinary.ok("socket", type=kind)["sock"]
        assert ordinary.errno("setsockopt", sock, level=1, option=forced, value=5000) == errno.EPERM
    root = ours.bench.client(uid=0)
    sock = root.ok("socket", type=2)["sock"]
    root.ok("setsockopt", sock, level=1, option=forced, value=5000)
    assert root.ok("getsockopt", sock, level=1, option=plain)["value"] == struct.pack("=i", 10_000)


def test_options_with_no_level() -> None:
    """A level that TCP sockets do not have."""
    kernel, ours = Kernel(), Ours()
    expected = _set(kernel.sock, 99, 1, 1), _get(kernel.sock, 99, 1)
    got = (
        NAMES[ours.app.errno("setsockopt", ours.sock, level=99, option=1, value=1)],
        NAMES[ours.app.errno("getsockopt", ours.sock, level=99, option=1)],
    )
    kernel.close()
    assert got == expected


def _set(sock: socket.socket, level: int, number: int, value: int | bytes) -> str:
    try:
        sock.setsockopt(level, number, value)
    except OSError as error:
        return NAMES[error.errno or -1]
    return "ok"


def _get(sock: socket.socket, level: int, number: int) -> bytes | str:
    try:
        return sock.getsockopt(level, number, 512)
    except OSError as error:
        return NAMES[error.errno or -1]


def test_every_kind_of_option_is_compared() -> None:
    """The table of values above has something for each option that can be set."""
    for option in OPTIONS.values():
        assert option.kind in (Kind.READ, Kind.FLAG, Kind.INT) or option.name in VALUES


HEADER = Path("/usr/include/linux/tcp.h")
"""Of Debian's linux-libc-dev; of an older Linux than ours it has a beginning of the struct."""


@pytest.mark.skipif(not HEADER.exists(), reason=f"there is no {HEADER} (linux-libc-dev)")
def test_tcp_info_has_the_fields_of_the_header() -> None:
    """Name, width and order of each, as C programs are compiled against them."""
    body = HEADER.read_text().partition("struct tcp_info {")[2].partition("\n};")[0]
    fields = re.findall(r"^\s*(__u8|__u16|__u32|__u64)\s+(tcpi_\w+[^;]*);", body, re.MULTILINE)
    widths = {"__u8": "B", "__u16": "H", "__u32": "I", "__u64": "Q"}
    bits = {"snd_wscale : 4, tcpi_rcv_wscale : 4": "wscale",
            "delivery_rate_app_limited:1, tcpi_fastopen_client_fail:2": "app_limited"}  # fmt: skip
    names = [(name.removeprefix("tcpi_"), widths[width]) for width, name in fields]
    found = [(bits.get(name, name), code) for name, code in names]
    assert len(found) > 50 and found == list(info.FIELDS[: len(found)])


def test_tcp_info_has_the_layout_of_linux() -> None:
    """Our reading of a struct tcp_info of the kernel gives the figures that must be there, and ours reads back."""
    kernel = Kernel()
    kernel.connected()
    kernel.sock.sendall(b"x" * 1000)

    def told() -> bytes:
        return kernel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1024)

    until(lambda: info.unpack(told())["bytes_acked"] == 1001, "all is acknowledged")
    value = told()
    mss = kernel.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
    kernel.close()
    figures = info.unpack(value)
    assert (figures["state"], figures["bytes_sent"], figures["data_segs_out"]) == (1, 1000, 1)
    assert (figures["snd_mss"], figures["bytes_acked"], figures["segs_in"]) == (mss, 1001, 2)
    assert figures["snd_wnd"] > 1000
    assert info.pack(figures) == info.pack(info.unpack(info.pack(figures)))
    assert len(value) >= info.SIZE or len(value) < 280  # 280 bytes since Linux 6.18
    assert info.SIZE == 280
