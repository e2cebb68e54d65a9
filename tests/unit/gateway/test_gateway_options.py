"""Options and calls that tcp has to be asked about, and options of a port that is bound already."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from datagram_bench import DatagramBench
from gateway_bench import LOCAL, OPEN, REMOTE, Bench

from gateway import info
from levelip.frames.seam import GetInfo, SetOption
from levelip.rpc.stream import Eof

TCP, IP, SOL = 6, 0, 1
LIVE_OPTIONS = {
    (TCP, 2): ("snd_mss", 1448),
    (TCP, 12): ("quickack", 0),
    (TCP, 10): ("window_clamp", 777_000),
    (SOL, 7): ("sndbuf", 600_000),
    (SOL, 8): ("rcvbuf", 700_000),
    (IP, 14): ("pmtu", 1400),
}


@pytest.mark.parametrize(("level", "option"), LIVE_OPTIONS)
def test_of_a_connection_tcp_is_asked(level: int, option: int) -> None:
    """The answer is tcp's figure; where tcp knows no connection any more, what was set or is the default."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    name, value = LIVE_OPTIONS[level, option]
    bench.info = {"state": 1, name: value}
    assert app.ok("getsockopt", sock, level=level, option=option)["value"] == struct.pack("=i", value)
    assert [type(message) for message in bench.to_tcp()] == [GetInfo]
    bench.info = {"state": 7}
    reply = app.call("getsockopt", sock, level=level, option=option)
    assert reply is not None
    if name == "pmtu":
        assert reply.errno == errno.ENOTCONN
    else:
        fresh = app.ok("getsockopt", app.socket(), level=level, option=option)["value"]
        assert reply.data["value"] == fresh != struct.pack("=i", value)


def test_a_buffer_that_was_set_is_not_asked_for() -> None:
    """SO_RCVBUF answers twice what was set, at once."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.ok("setsockopt", sock, level=SOL, option=8, value=50_000)
    assert app.ok("getsockopt", sock, level=SOL, option=8)["value"] == struct.pack("=i", 100_000)
    assert bench.to_tcp() == [SetOption(sock, "rcvbuf", 50_000)]


def test_ip_mtu_without_a_connection() -> None:
    """ENOTCONN, and it cannot be set."""
    app = Bench().client()
    sock = app.socket()
    assert app.errno("getsockopt", sock, level=IP, option=14) == errno.ENOTCONN
    assert app.errno("setsockopt", sock, level=IP, option=14, value=1400) == errno.ENOPROTOOPT


@pytest.mark.parametrize(("state", "shown"), [(6, 7), (7, 7), (5, 5)])
def test_time_wait_is_closed_to_a_program(state: int, shown: int) -> None:
    """tcpi_state, as Linux, where a socket in TIME-WAIT is no socket any more."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    bench.info = {"state": state}
    assert app.ok("getsockopt", sock, level=TCP, option=11)["value"][0] == shown


@pytest.mark.parametrize(("op", "args", "data"), [
    ("getpeername", {}, {"address": REMOTE, "port": OPEN}), ("shutdown", {"how": 1}, {}),
])  # fmt: skip
def test_both_ends_have_come(op: str, args: dict[str, Any], data: dict[str, Any]) -> None:
    """After both FINs tcp decides whether there is a connection still; before, nobody has to be asked."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    app.send(Eof(sock, 0))
    bench.to_tcp()
    assert app.ok(op, sock, **args) == data and bench.to_tcp() == []
    bench.feed(Eof(sock, 0))
    bench.info = {"state": info.STATES["FIN_WAIT_2"]}
    assert app.ok(op, sock, **args) == data
    for state in ("TIME_WAIT", "CLOSED"):
        bench.info = {"state": info.STATES[state]}
        assert app.errno(op, sock, **args) == errno.ENOTCONN
    bench.answering = False
    assert app.call(op, sock, **args) is None
    bench.tcp_down()
    assert next(iter(app.replies.values())).errno == errno.ENOTCONN


def test_reuse_counts_once_the_port_is_bound() -> None:
    """SO_REUSEADDR and SO_REUSEPORT after bind() are told to tcp; other options wait for connect() or listen()."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("setsockopt", sock, level=SOL, option=2, value=1)
    assert bench.to_tcp() == []
    app.ok("bind", sock, address=LOCAL, port=80)
    assert bench.to_tcp()[0].reuse_address
    app.ok("setsockopt", sock, level=SOL, option=2, value=0)
    app.ok("setsockopt", sock, level=SOL, option=15, value=3)
    app.ok("setsockopt", sock, level=TCP, option=3, value=1)
    assert bench.to_tcp() == [SetOption(sock, "reuse_address", 0), SetOption(sock, "reuse_port", 1)]


@pytest.mark.parametrize("option", [16, 34])
def test_what_is_of_af_unix_alone(option: int) -> None:
    """SO_PASSCRED, SO_PASSSEC: EOPNOTSUPP, on both kinds of socket, to read and to set (Linux 6.16)."""
    bench = Bench()
    app = bench.client()
    for sock in (app.socket(), app.ok("socket", type=2)["sock"]):
        assert app.errno("getsockopt", sock, level=SOL, option=option) == errno.EOPNOTSUPP
        assert app.errno("setsockopt", sock, level=SOL, option=option, value=1) == errno.EOPNOTSUPP


def test_window_clamp_cannot_be_taken_back_from_a_connection() -> None:
    """0 is for sockets in TCP_CLOSE."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    assert app.errno("setsockopt", sock, level=TCP, option=10, value=0) == 0
    for live in (app.connected(), app.listening()):
        assert app.errno("setsockopt", live, level=TCP, option=10, value=0) == errno.EINVAL
        assert app.errno("setsockopt", live, level=TCP, option=10, value=5000) == 0


def test_rcvlowat_is_bounded_by_the_buffer() -> None:
    """Half of it: of the configured one, or of what SO_RCVBUF set (Linux tcp_set_rcvlowat)."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    for value in (-1, 1 << 30):
        app.ok("setsockopt", sock, level=SOL, option=18, value=value)
        half = bench.config.tcp.receive_buffer >> 1
        assert app.ok("getsockopt", sock, level=SOL, option=18)["value"] == struct.pack("=i", half)
    app.ok("setsockopt", sock, level=SOL, option=8, value=5000)
    app.ok("setsockopt", sock, level=SOL, option=18, value=-1)
    assert app.ok("getsockopt", sock, level=SOL, option=18)["value"] == struct.pack("=i", 5000)


def test_what_tcp_is_told_at_connect() -> None:
    """By tcp's names, in its units."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    for level, option, value in [
        (TCP, 3, 1), (TCP, 8, -1), (TCP, 9, 7), (TCP, 10, 5000), (TCP, 12, 2), (IP, 10, 3), (SOL, 18, 9),
    ]:  # fmt: skip
        app.ok("setsockopt", sock, level=level, option=option, value=value)
    app.ok("connect", sock, address=REMOTE, port=OPEN)
    assert bench.to_tcp()[0].options == {
        "cork": 1, "linger2_ms": -1, "defer_accept": 3, "window_clamp": 5000, "quickack": 2, "mtu_discover": 3,
        "rcvlowat": 9,
    }  # fmt: skip


PRIVILEGED = [
    # option, values that a user may set, one that only root may, and what a user gets for it
    (1, [0], 1, errno.EACCES),  # SO_DEBUG
    (12, [0, 6], 7, errno.EPERM),  # SO_PRIORITY
    (36, [], 0, errno.EPERM),  # SO_MARK
    (46, [0], 1, errno.EPERM),  # SO_BUSY_POLL
]


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize(("option", "free", "privileged", "error"), PRIVILEGED)
def test_what_linux_allows_with_cap_net_admin_root_may_set(
    kind: int, option: int, free: list[int], privileged: int, error: int
) -> None:
    """Others get Linux's errno, and the value stays."""
    bench = DatagramBench()
    user, root = bench.client(uid=1000), bench.client(uid=0)
    sock = user.ok("socket", family=2, type=kind, proto=0)["sock"]
    for value in free:
        user.ok("setsockopt", sock, level=SOL, option=option, value=value)
    before = user.ok("getsockopt", sock, level=SOL, option=option)
    assert user.errno("setsockopt", sock, level=SOL, option=option, value=privileged) == error
    assert user.ok("getsockopt", sock, level=SOL, option=option) == before
    sock = root.ok("socket", family=2, type=kind, proto=0)["sock"]
    root.ok("setsockopt", sock, level=SOL, option=option, value=privileged)
    assert root.ok("getsockopt", sock, level=SOL, option=option)["value"] == struct.pack("=i", privileged)


@pytest.mark.parametrize("kind", [1, 2])
def test_bind_to_device(kind: int) -> None:
    """net/core/sock.c sock_setbindtodevice: anybody may choose the one interface, only root give it up; the name may
    lack its NUL and is cut after 15 bytes; of none nothing is told. Loopback, to which nothing here would keep it, is
    refused."""
    bench = DatagramBench()
    user, root = bench.client(uid=1000), bench.client(uid=0)
    for app in (user, root):
        sock = app.ok("socket", family=2, type=kind, proto=0)["sock"]

        def choose(value: bytes | int, app: Any = app, sock: int = sock) -> int:
            return app.errno("setsockopt", sock, level=SOL, option=25, value=value)

        def chosen(app: Any = app, sock: int = sock) -> bytes:
            return app.ok("getsockopt", sock, level=SOL, option=25)["value"]

        assert chosen() == b""
        assert choose(b"eth0") == choose(b"lvl00") == choose(b"x" * 40) == choose(1) == errno.ENODEV
        assert choose(b"lo\0") == errno.EOPNOTSUPP
        assert choose(b"") == choose(b"\0lvl0") == 0 and chosen() == b""
        assert choose(b"lvl0") == 0 and chosen() == b"lvl0\0"
        held = errno.EPERM if app is user else 0
        assert choose(b"lvl0\0and more than sixteen bytes") == held and chosen() == b"lvl0\0"
        assert choose(b"eth0") == errno.ENODEV, "said before"
        assert choose(b"") == held
        assert chosen() == (b"lvl0\0" if held else b"")


@pytest.mark.parametrize(("option", "listening"), [(23, 0), (30, errno.EINVAL)], ids=["FASTOPEN", "FASTOPEN_CONNECT"])
def test_fast_open_is_set_before_there_is_a_connection(option: int, listening: int) -> None:
    """net/ipv4/tcp.c do_tcp_setsockopt: TCP_FASTOPEN of closed sockets and listeners, _CONNECT of closed ones only."""
    bench = Bench()
    app = bench.client()
    sock = app.connected()
    assert app.errno("setsockopt", sock, level=TCP, option=option, value=1) == errno.EINVAL
    assert app.errno("setsockopt", app.listening(), level=TCP, option=option, value=1) == listening
    app.ok("setsockopt", app.socket(), level=TCP, option=option, value=1)
