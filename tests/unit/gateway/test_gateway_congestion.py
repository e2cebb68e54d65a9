"""TCP_CONGESTION: Linux's names, who may be named, and what tcp is told."""

from __future__ import annotations

import errno
import socket

import pytest
from gateway_bench import Bench

from gateway.config import GatewayCoreConfig
from gateway.errors import CallError
from gateway.options import BY_NAME, parse, show
from levelip.config import CONGESTIONS, TcpConfig
from levelip.frames.seam import SetOption

TCP, CONGESTION = socket.IPPROTO_TCP, socket.TCP_CONGESTION
OPTION = BY_NAME["TCP_CONGESTION"]


def shown(name: str) -> dict[str, bytes]:
    """What getsockopt answers for a name: 16 bytes, as Linux (TCP_CA_NAME_MAX)."""
    return {"value": name.encode().ljust(16, b"\0")}


def test_by_default_the_configured_one() -> None:
    """CUBIC, as on Linux."""
    bench = Bench()
    app = bench.client()
    assert app.ok("getsockopt", app.socket(), level=TCP, option=CONGESTION) == shown("cubic")


@pytest.mark.parametrize(("given", "answer", "strategy"), [("reno", "reno", "newreno"), ("newreno", "reno", "newreno"),
                                                           ("cubic", "cubic", "cubic")])  # fmt: skip
def test_before_and_after_connect(given: str, answer: str, strategy: str) -> None:
    """A name set before goes along with connect and listen, one set later goes at once; Linux's name comes back."""
    place = CONGESTIONS.index(strategy) + 1
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    app.ok("setsockopt", sock, level=TCP, option=CONGESTION, value=given.encode())
    assert app.ok("getsockopt", sock, level=TCP, option=CONGESTION) == shown(answer)
    app.ok("listen", sock, backlog=1)
    assert bench.to_tcp()[-1].options == {"congestion": place}
    bench.incoming(sock)
    child = app.ok("accept", sock)["sock"]
    assert app.ok("getsockopt", child, level=TCP, option=CONGESTION) == shown(answer)
    connected = app.connected()
    bench.to_tcp()
    app.ok("setsockopt", connected, level=TCP, option=CONGESTION, value=given.encode() + b"\0rest")
    assert bench.to_tcp() == [SetOption(connected, "congestion", place)]


@pytest.mark.parametrize(("value", "error"), [(b"vegas", errno.ENOENT), (b"", errno.EINVAL), (1, errno.ENOENT),
                                              (b"os:system", errno.ENOENT), (b"\xff\xfe", errno.ENOENT)])  # fmt: skip
def test_what_linux_refuses(value: bytes | int, error: int) -> None:
    """An unknown name: ENOENT (net/ipv4/tcp_cong.c). A place of a class is none: programs cannot make us import."""
    bench = Bench()
    app = bench.client()
    sock = app.socket()
    assert app.errno("setsockopt", sock, level=TCP, option=CONGESTION, value=value) == error
    assert app.ok("getsockopt", sock, level=TCP, option=CONGESTION) == shown("cubic")


def test_somebodys_own_is_known_by_its_class() -> None:
    """Configured as "package.module:Class", a socket has it by default, and may come back to it."""
    config = GatewayCoreConfig(epoch=1, tcp=TcpConfig(congestion="my.lab:AdditiveIncrease"))
    assert show(OPTION, {}, config) == b"additiveincreas\0"
    kept = parse(OPTION, b"cubic", config)
    assert show(OPTION, kept, config) == shown("cubic")["value"]
    kept = parse(OPTION, b"additiveincreas", config)
    assert kept == {"TCP_CONGESTION": 0}
    with pytest.raises(CallError):
        parse(OPTION, b"my.lab:Other", config)
