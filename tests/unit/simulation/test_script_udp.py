"""Datagrams in packet scripts: what is sent and expected, what is not as expected, and the calls on their sockets."""

from __future__ import annotations

import pytest

from levelip.config import Config
from simulation.script.parse import parse
from simulation.script.run import Result, run

BOUND = "0 socket(..., SOCK_DGRAM, IPPROTO_UDP) = 3\n+0 bind(3, ..., ...) = 0\n"
CONNECTED = BOUND + "+0 connect(3, ..., ...) = 0\n"


def passed(text: str) -> Result:
    result = run(parse(text), strict=True)
    assert result.status == 0, (result.error, result.failure and (result.failure.message, result.failure.rows))
    return result


def test_a_call_waits_for_its_datagram() -> None:
    """recvfrom blocks until one comes; SO_RCVTIMEO ends the waiting; MSG_PEEK leaves it, MSG_TRUNC tells its length."""
    passed(
        BOUND + "+0...0.5 recvfrom(3, ..., 100, 0, ..., ...) = 7\n+.5 < udp 4000 > 8080 (7)\n"
        "+0 setsockopt(3, SOL_SOCKET, SO_RCVTIMEO, {tv_sec=1, tv_usec=0}, 16) = 0\n"
        "+0...1 recvfrom(3, ..., 100, 0, ..., ...) = -1 EAGAIN\n"
        "+1 < udp 4000 > 8080 (7)\n+0 recvfrom(3, ..., 3, MSG_PEEK, ..., ...) = 3\n"
        "+0 recvfrom(3, ..., 3, MSG_TRUNC, ..., ...) = 7\n+0 recvfrom(3, ..., 3, MSG_DONTWAIT, ..., ...) = -1 EAGAIN\n"
    )


def test_without_ports_it_is_the_last_ones() -> None:
    """An answer needs no ports, as with segments."""
    passed(CONNECTED + "+0 write(3, ..., 5) = 5\n+0 > udp (5)\n+0 < udp (6)\n+0 read(3, ..., 100) = 6\n")


@pytest.mark.parametrize(
    ("expected", "field"),
    [
        ("udp 8080 > 8081 (5)", "ports"), ("udp (6)", "length"), ("[ttl 3] udp (5)", "ttl"), ("[nodf] udp (5)", "df"),
        (". 1:1(0) ack 1", "protocol"), ("icmp echo_request", "protocol"),
    ],
)  # fmt: skip
def test_what_differs_is_told(expected: str, field: str) -> None:
    """The field that is not as expected."""
    result = run(parse(CONNECTED + f"+0 write(3, ..., 5) = 5\n+0 > {expected}\n"))
    assert result.failure is not None
    assert field in [row.name for row in result.failure.rows if row.differs]


def test_instead_of_a_datagram() -> None:
    """A datagram expected where ICMP comes, and where nothing is said that it is sent."""
    result = run(parse("0 < udp 4000 > 9 (5)\n+0 > udp (5)\n"))
    assert result.failure is not None and "protocol" in [row.name for row in result.failure.rows if row.differs]
    result = run(parse(CONNECTED + "+0 write(3, ..., 5) = 5\n"))
    assert "> udp 8080 > 8080 (5)" in result.warnings[0]


def test_an_error_is_told_once() -> None:
    """By poll, then by the next call, whichever it is; SO_ERROR before it takes it away."""
    error = "+0 write(3, ..., 5) = 5\n+0 > udp (5)\n+0 < icmp unreachable port_unreachable [packet(28)]\n"
    passed(
        CONNECTED + error + "+0 poll([{fd=3, events=POLLIN, revents=POLLERR}], 1, 0) = 1\n"
        "+0 recv(3, ..., 9, MSG_DONTWAIT) = -1 ECONNREFUSED\n+0 recv(3, ..., 9, MSG_DONTWAIT) = -1 EAGAIN\n"
        + error + "+0 getsockopt(3, SOL_SOCKET, SO_ERROR, [111], [4]) = 0\n"
        "+0 recv(3, ..., 9, MSG_DONTWAIT) = -1 EAGAIN\n"
    )  # fmt: skip


def test_settings_of_udp() -> None:
    """A script sets those of [udp]."""
    size = Config().udp.receive_buffer
    text = f"--set=udp.receive_buffer=4000\n{BOUND}" + "+0 < udp 4000 > 8080 (3000)\n" * 3
    result = passed(text + '+0 %{ assert dropped("udp_buffer_full") == 2 }%\n')
    assert size > 9000 and result.status == 0
