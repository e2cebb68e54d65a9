"""What tcp believes of a path's MTU, ip knows too: the ip and tcp cores together, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from simulation.script.parse import parse
from simulation.script.report import failure_text
from simulation.script.run import Result, Runner, prepare

SCRIPT = """
    0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3
   +0 setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0
   +0 bind(3, ..., ...) = 0
   +0 listen(3, 1) = 0
   +0 < S 0:0(0) win 65535 <mss 1460>
   +0 > S. 0:0(0) ack 1 <mss 1460>
  +.1 < . 1:1(0) ack 1 win 65535
   +0 accept(3, ..., ...) = 4
   +0 write(4, ..., 1460) = 1460
   +0 > [df] P. 1:1461(1460) ack 1
 +.01 < icmp unreachable frag_needed mtu {mtu} [{quoted}]
"""


def played(text: str) -> Any:
    """The host after a script, all of which must come true."""
    script = parse(text, "x.pkt")
    result = Result(script)
    runner = Runner(script, prepare(script, {}, ()), result)
    runner.run()
    assert result.failure is None, failure_text(result)
    return runner.host


def cache(host: Any) -> list[dict[str, Any]]:
    """What `lvlip route cache` shows."""
    rows: list[dict[str, Any]] = host.ip.control(1, "route.cache", {}, host.now)["cache"]
    return rows


def pmtus(host: Any) -> list[int]:
    """What each connection takes for the path's MTU."""
    return [int(row["pmtu"]) for row in host.tcp.snapshot()["connections"]]


@pytest.mark.rfc("RFC 1191 3")
def test_ip_learns_what_tcp_believes() -> None:
    """An error about a segment in flight: the cache of ip has it, and for ten minutes (mtu_expires)."""
    host = played(SCRIPT.format(mtu=1200, quoted="1:1461(1460)"))
    [row] = cache(host)
    assert (row["dst"], row["mtu"]) == ("192.0.2.1", 1200) and 599_900 < row["mtu_expires_ms"] <= 600_000
    assert host.ip.counters["path_mtu_lowered"] == host.tcp.counters["path_mtu_lowered"] == 1
    host.net.advance(host.now + 601_000_000_000)
    assert cache(host) == []


@pytest.mark.rfc("RFC 1191 6.3-1", "RFC 1191 6.3-2")
def test_one_clock_for_both() -> None:
    """tcp says for how long: with a minute there ip's cache ends with it, whatever its own time for pings is."""
    script = SCRIPT.format(mtu=1200, quoted="1:1461(1460)")
    host = played("--set=tcp.mtu_expires_s=60\n--set=ip.mtu_expires_ms=900000\n" + script)
    [row] = cache(host)
    assert 59_900 < row["mtu_expires_ms"] <= 60_000
    at = host.now + row["mtu_expires_ms"] * 1_000_000
    host.net.advance(at - 1_000_000_000)
    assert cache(host) and pmtus(host) == [1200]
    host.net.advance(at + 100_000_000)
    assert cache(host) == [] and pmtus(host) == [1500]


def test_what_a_ping_found_lasts_as_long_as_tcp_goes_by_it() -> None:
    """A ping found 1200 nine minutes ago; a connection that runs into it believes it for ten more, and so does ip."""
    ping = """
   0 `lvlip ping 192.0.2.1 -s 1472 -M do`
  +0 > icmp echo_request id 1
  +0 < icmp unreachable frag_needed mtu 1200 [packet(28)]
"""
    opening = SCRIPT.partition("+0 write")[0].replace("    0 socket", " +540 socket")
    host = played(ping + opening + "+0 write(4, ..., 1460) = 1460\n   +0 > [df] P. 1:1461(1460) ack 1\n")
    [row] = cache(host)
    assert 599_990 < row["mtu_expires_ms"] <= 600_000 and pmtus(host) == [1200]


@pytest.mark.rfc("RFC 5927 4.1")
def test_ip_does_not_learn_what_tcp_does_not_believe() -> None:
    """A number that is not in flight: whoever sent the error guessed."""
    host = played(SCRIPT.format(mtu=1200, quoted="5001:6461(1460)"))
    assert cache(host) == [] and host.tcp.counters["drop.tcp_icmp_not_in_flight"] == 1


def test_a_tiny_mtu_is_552_for_both() -> None:
    """Linux ip_rt_min_pmtu: neither believes less."""
    host = played(SCRIPT.format(mtu=68, quoted="1:1461(1460)"))
    [row] = cache(host)
    assert row["mtu"] == 552
