"""ICMP errors: RFC 1122 4.2.3.9, RFC 9293 3.9.2.2, RFC 5927 (attacks), RFC 6069 (backoff taken back)."""

from __future__ import annotations

import errno
import struct
from typing import Any

import pytest
from tcp_host import MS, MSS, OURS, STATES, THEIRS, Host, established, syn_received, syn_sent

from layers.tcp.core import TcpCore
from levelip.frames.packet import IcmpError
from levelip.rpc.stream import Reset

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 256
NET, HOST, PROTOCOL, PORT_, TOO_BIG, SOURCE_ROUTE, ADMIN = 0, 1, 2, 3, 4, 5, 13


@pytest.mark.rfc(
    "RFC 1122 4.2.3.9", "RFC 9293 MUST-54", "RFC 1122 3.2.2.1-3", "RFC 1122 3.2.2.1-4", "RFC 5927 5.2-1",
    "RFC 9293 MUST-56",
)  # fmt: skip
@pytest.mark.parametrize("code", [NET, HOST, PROTOCOL, PORT_, SOURCE_ROUTE, ADMIN])
@pytest.mark.parametrize("state", ["ESTABLISHED", "FIN_WAIT_1", "CLOSE_WAIT", "LAST_ACK", "CLOSING"])
def test_no_unreachable_ends_a_synchronized_connection(isn: ISN, state: str, code: int) -> None:
    """Not even a hard one: an attacker may have sent it, and if it is true TCP will time out by itself."""
    c = STATES[state](**isn)
    if state in ("ESTABLISHED", "CLOSE_WAIT"):
        c.rings = c.rings or None
        c.write(b"in flight")
    c.quiet()
    c.icmp(3, code, seq=1)
    assert c.state == state
    assert c.core.counters["icmp_errors_in"] == 1
    c.no_message()


@pytest.mark.rfc("RFC 1122 4.2.3.9", "RFC 9293 MUST-56")
@pytest.mark.parametrize(("kind", "code"), [(3, NET), (3, HOST), (3, SOURCE_ROUTE), (11, 0), (11, 1)])
def test_soft_errors_do_not_end_a_connect_where_rfc_1122_is_asked_for(isn: ISN, kind: int, code: int) -> None:
    """icmp_abort_connect false: the SYN goes on, and what ICMP said is the errno in the end (1 + 2 + 4 s)."""
    c = syn_sent(icmp_abort_connect=False, syn_retries=2, **isn)
    c.icmp(kind, code, seq=0)
    assert c.state == "SYN_SENT"
    c.no_message()
    c.advance(7001)
    assert len(c.segments) == 2
    expected = errno.ENETUNREACH if code in (NET, SOURCE_ROUTE) and kind == 3 else errno.EHOSTUNREACH
    if code == SOURCE_ROUTE:
        expected = errno.EOPNOTSUPP
    c.message(Reset, errno=expected)


@pytest.mark.rfc("RFC 1122 4.2.3.9", "RFC 9293 SHLD-26")
@pytest.mark.parametrize(("kind", "code", "error"), [(3, PROTOCOL, errno.ENOPROTOOPT), (3, PORT_, errno.ECONNREFUSED),
                                                     (12, 0, errno.EPROTO)])  # fmt: skip
def test_hard_errors_end_a_connect_in_any_case(isn: ISN, kind: int, code: int, error: int) -> None:
    """Port and protocol unreachable, parameter problem."""
    c = syn_sent(icmp_abort_connect=False, **isn)
    c.icmp(kind, code, seq=0)
    c.message(Reset, errno=error)


@pytest.mark.rfc("RFC 1122 4.2.3.9", "RFC 9293 MUST-55", "RFC 5927 6.1-1")
def test_source_quench_and_redirect_say_nothing(isn: ISN) -> None:
    """RFC 6633 2: source quench is ignored silently; neither counts as an error."""
    c = established(**isn)
    c.write(b"x")
    c.quiet()
    before = c.tcb()["congestion"]
    c.icmp(4, 0, seq=1)
    c.icmp(5, 1, seq=1)
    assert c.tcb()["congestion"] == before and c.tcb()["soft_error"] == 0
    assert c.dropped("tcp_icmp_stray") == 2


@pytest.mark.rfc("RFC 5927 4.2", "RFC 5927 4.1-1", "RFC 1191 6.4-4")
@pytest.mark.parametrize("seq", [0, 1 + 9, 1 + 10_000, -500])
def test_only_what_is_in_flight_can_be_spoken_of(isn: ISN, seq: int) -> None:
    """Nine bytes are: 1 to 9. The SYN is acknowledged, the rest was never sent."""
    c = established(**isn)
    c.write(b"in flight")
    c.quiet()
    c.icmp(3, HOST, seq=seq)
    assert c.dropped("tcp_icmp_not_in_flight") == 1 and c.tcb()["soft_error"] == 0


@pytest.mark.rfc("RFC 5927 4.1")
def test_a_connect_ends_only_by_an_error_about_its_syn(isn: ISN) -> None:
    """The ISN must be known."""
    c = syn_sent(**isn)
    c.icmp(3, PORT_, seq=1)
    assert c.state == "SYN_SENT" and c.dropped("tcp_icmp_not_in_flight") == 1


@pytest.mark.rfc("RFC 5927 5.2")
@pytest.mark.parametrize(("code", "left"), [(NET, False), (HOST, False), (PORT_, True), (PROTOCOL, True)])
def test_half_open_children(isn: ISN, code: int, left: bool) -> None:
    """Nobody waits for them: they go where the way back is said to be none. Linux tcp_req_err."""
    c = syn_received(**isn)
    c.icmp(3, code, seq=0)
    assert (c.state == "SYN_RECEIVED") is left
    c.no_message()


@pytest.mark.rfc("RFC 1122 4.2.3.9", "RFC 9293 SHLD-25", "RFC 9293 MUST-47", "RFC 1122 3.2.2.5-3")
def test_an_error_that_is_over_is_not_what_a_later_timeout_says(isn: ISN) -> None:
    """Linux keeps sk_err_soft until it is read; so do we: the last word counts."""
    c = established(retries=1, **isn)
    c.write(b"x")
    c.icmp(3, HOST, seq=1)
    c.icmp(3, NET, seq=1)
    c.advance(5000)
    assert c.find_message(Reset).errno == errno.ENETUNREACH


# RFC 6069


def stuck(timeouts: int, **how: Any) -> Host:
    """One segment, sent again `timeouts` times."""
    c = established(mtu_probing=0, **how)
    c.advance(10)
    c.write(b"lost")
    c.quiet()
    for _ in range(100_000):
        if c.core.counters["rto_timeouts"] >= timeouts:
            break
        c.advance(1)
    c.quiet()
    return c


@pytest.mark.rfc("RFC 6069 4.1")
def test_a_router_without_a_way_takes_a_backoff_back(isn: ISN) -> None:
    """RTO 200 ms (RTT 0, floor 200). After the third timeout it is 1600; two errors about that retransmission bring it
    to 800, then 400 ms from when it was sent; the backoff counter from 3 to 1."""
    c = stuck(3, **isn)
    sent = c.tcb()["tx"]["queue"][0]["sent_at"]
    assert c.tcb()["rto"]["backoffs"] == 3
    base = c.tcb()["rto"]["rto"] // 8
    c.icmp(3, NET, seq=1)
    assert c.tcb()["rto"]["rto"] == 4 * base
    c.icmp(3, HOST, seq=1)
    assert c.tcb()["rto"]["rto"] == 2 * base and c.tcb()["rto"]["backoffs"] == 1
    assert c.core.counters["backoffs_reverted"] == 2
    c.advance((sent + 2 * base - c.now) / MS - 2)
    c.expect_nothing()
    c.advance(3)
    c.expect("PA", seq=1)


@pytest.mark.rfc("RFC 6069 4.1")
@pytest.mark.parametrize(("code", "seq"), [(PORT_, 1), (ADMIN, 1), (HOST, 2)])
def test_no_other_error_does(isn: ISN, code: int, seq: int) -> None:
    """Only net and host unreachable, and only about SND.UNA."""
    c = stuck(3, **isn)
    before = c.tcb()["rto"]["rto"]
    c.icmp(3, code, seq=seq)
    assert c.tcb()["rto"]["rto"] == before


@pytest.mark.rfc("RFC 6069 4.1")
def test_nothing_to_take_back(isn: ISN) -> None:
    """Before any timeout an error changes no timer."""
    c = stuck(0, **isn)
    before = c.tcb()["deadlines"]
    c.icmp(3, HOST, seq=1)
    assert c.tcb()["deadlines"] == before


# fragmentation needed


@pytest.mark.rfc("RFC 5927 7.1", "RFC 1191 6.4")
def test_a_segment_that_fits_was_not_too_big(isn: ISN) -> None:
    """100 bytes and 52 of headers: 152. An error that says 1000 is forged; one that says 100 may be true."""
    c = established(**isn)
    c.write(b"x" * 100)
    c.quiet()
    c.icmp(3, TOO_BIG, seq=1, mtu=1000)
    assert c.tcb()["pmtu"] == 1500 and c.dropped("tcp_icmp_fits") == 1
    c.icmp(3, TOO_BIG, seq=1, mtu=100)
    assert c.tcb()["pmtu"] == 552


@pytest.mark.rfc("RFC 1191 6.5", "RFC 1191 6.4-3", "RFC 1191 3-9")
def test_smaller_segments_and_no_less_of_them(isn: ISN) -> None:
    """cwnd is not touched: no congestion was seen. Only an MTU below the one we use counts."""
    c = established(**isn)
    c.write(BYTES[: 4 * MSS])
    c.quiet()
    cwnd = c.tcb()["congestion"]["cwnd"]
    c.icmp(3, TOO_BIG, seq=1 + MSS, mtu=1400)
    assert c.tcb()["congestion"]["cwnd"] == cwnd
    sizes = [len(c.memory.read(segment.payload)) for segment in c.segments]
    assert sum(sizes) == 4 * MSS and max(sizes) == 1348
    c.icmp(3, TOO_BIG, seq=1, mtu=1400)
    c.icmp(3, TOO_BIG, seq=1, mtu=1450)
    assert c.dropped("tcp_icmp_stray") == 2


@pytest.mark.rfc("RFC 1191 7.1", "RFC 1191 3-7", "RFC 1191 5-1")
def test_a_router_that_tells_no_mtu(isn: ISN) -> None:
    """The next plateau below 1500 is 1492, then 1006."""
    c = established(**isn)
    c.write(BYTES[: 2 * MSS])
    c.icmp(3, TOO_BIG, seq=1, mtu=0)
    assert c.tcb()["pmtu"] == 1492
    c.icmp(3, TOO_BIG, seq=1, mtu=0)
    assert c.tcb()["pmtu"] == 1006


@pytest.mark.rfc("RFC 5927 7", "RFC 1191 3-8")
def test_below_552_packets_may_be_fragmented_instead(isn: ISN) -> None:
    """As Linux' min_pmtu: DF is off from then on; 67 is no MTU that there can be."""
    c = established(**isn)
    c.write(BYTES[: 2 * MSS])
    assert all(segment.dont_fragment for segment in c.segments)
    c.quiet()
    c.icmp(3, TOO_BIG, seq=1, mtu=67)
    assert c.tcb()["pmtu"] == 1500 and c.dropped("tcp_icmp_stray") == 1
    c.icmp(3, TOO_BIG, seq=1, mtu=296)
    assert c.tcb()["pmtu"] == 552 and c.tcb()["tx"]["mss"] == 500
    assert c.segments and not any(segment.dont_fragment for segment in c.segments)


@pytest.mark.rfc("RFC 1191 6.3-1", "RFC 1191 6.3-2", "RFC 1191 3-5", "RFC 1191 3-6", "RFC 1191 6.2-2")
def test_it_is_forgotten_after_ten_minutes_and_known_to_others_until_then(isn: ISN) -> None:
    """mtu_expires_s 600: a connection that opens meanwhile knows it; then the route's MTU is tried again."""
    c = established(**isn)
    c.write(BYTES[: 2 * MSS])
    c.icmp(3, TOO_BIG, seq=1, mtu=1000)
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    c.advance(300_000)
    assert c.tcb()["pmtu"] == 1000
    c.agreed_ts = False
    c.quiet()
    c.inject("S", seq=0, src_port=9)
    assert c.expect("SA").options.mss == 1460  # what we can take is another matter, RFC 1191 3.1
    other = next(row for row in c.core.control(1, "ss", {}, c.now)["sockets"] if row["state"] == "SYN_RECEIVED")
    assert c.core.control(1, "conn", {"sock": other["sock"]}, c.now)["tcb"]["pmtu"] == 1000
    restored = type(c.core).restore(c.config, c.core.snapshot())
    assert restored.snapshot()["path_mtus"] == c.core.snapshot()["path_mtus"] != {}
    c.advance(301_000)
    assert c.tcb()["pmtu"] == 1500 and c.tcb()["tx"]["mss"] == MSS


def test_the_mtus_learned_are_bounded() -> None:
    """4096 destinations; those that expired go first, then the oldest."""
    from layers.tcp.routes import RouteTable
    from levelip.frames.packet import Route

    table = RouteTable()
    for number in range(5000):
        table.learn(number.to_bytes(4, "big"), 1000, 10**12, 0)
    assert len(table.learned) == 4096
    route = Route(bytes(4), 0, b"", 1500, 0)
    assert table.path_mtu(route, (0).to_bytes(4, "big"), 0) == (1500, -1)
    assert table.path_mtu(route, (4999).to_bytes(4, "big"), 0) == (1000, 10**12)
    assert table.path_mtu(route, (4999).to_bytes(4, "big"), 10**12) == (1500, -1)


def test_ip_is_told_of_what_is_believed(isn: ISN) -> None:
    """Once, with the MTU that we use; also by a core that was made of a snapshot before the flush."""
    c = established(**isn)
    c.write(BYTES[: 4 * MSS])
    c.quiet()
    c.icmp(3, TOO_BIG, seq=100_000, mtu=600)  # not in flight
    c.icmp(3, TOO_BIG, seq=1, mtu=1480)  # 20 + 32 + 1448 are more
    c.icmp(3, TOO_BIG, seq=1, mtu=1490)
    assert c.path_mtus == [(THEIRS, 1480)]
    head = struct.pack(">HHI", c.local_port, c.peer_port, (c.isn + 1) & 0xFFFF_FFFF)
    c.core.receive(IcmpError(1, [], 3, TOO_BIG, 1300, b"\x0a\0\0\xfe", OURS, THEIRS, 6, head), c.now)
    c.core = TcpCore.restore(c.config, c.core.snapshot())
    c.flush()
    assert c.path_mtus == [(THEIRS, 1480), (THEIRS, 1300)]
