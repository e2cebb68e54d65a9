"""Every reason that tcp has for a drop: provoked, counted, and told as an event that names the frame."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

import pytest
from tcp_host import (
    OURS,
    PORT,
    THEIRS,
    Got,
    Host,
    close_wait,
    established,
    listening,
    syn_received,
    syn_sent,
    time_wait,
)

from levelip.frames.packet import BROADCAST, Checksum, IcmpError
from levelip.frames.seam import Close, Connect, SetOption, StoreFailed
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Eof, Send, Urgent
from levelip.tracing.reasons import all_reasons, lookup

Case = Callable[[], Host]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    """Register the function that provokes a reason."""

    def keep(function: Case) -> Case:
        CASES[name] = function
        return function

    return keep


def heard(c: Host) -> Host:
    """With somebody listening."""
    c.quiet()
    c.core.interest = True
    return c


@case("tcp_malformed")
def _() -> Host:
    c = heard(established())
    segment = c.segment("A", seq=1, ack=1)
    segment.head = segment.head[:12] + b"\xf0" + segment.head[13:]  # 60 bytes of header, 32 there
    c.core.receive(segment, c.now)
    return c


@case("tcp_checksum")
def _() -> Host:
    c = heard(established())
    segment = c.segment("PA", seq=1, ack=1, data=b"x")
    segment.checksum = int(Checksum.UNVERIFIED)
    c.core.receive(segment, c.now)
    return c


@case("tcp_no_connection")
def _() -> Host:
    c = heard(Host())
    c.inject("S", seq=0)
    return c


@case("tcp_rst_nowhere")
def _() -> Host:
    c = heard(Host())
    c.inject("R", seq=0)
    return c


@case("tcp_broadcast")
def _() -> Host:
    c = heard(listening())
    c.inject("S", seq=0, flags_frame=BROADCAST)
    c.expect_nothing()
    return c


@case("tcp_land")
def _() -> Host:
    c = heard(listening())
    segment = c.segment("S", seq=0, src_port=PORT)
    segment.src = segment.dst
    c.core.receive(segment, c.now)
    return c


@case("tcp_ack_to_listener")
def _() -> Host:
    c = heard(listening())
    c.inject("A", seq=0, ack=0)
    return c


@case("tcp_no_syn")
def _() -> Host:
    c = heard(listening())
    c.inject("P", seq=0, data=b"x")
    c.expect_nothing()
    return c


@case("tcp_syn_fin")
def _() -> Host:
    c = heard(listening())
    c.inject("FS", seq=0)
    return c


@case("tcp_syn_payload")
def _() -> Host:
    c = heard(listening())
    c.inject("S", seq=0, data=b"early")
    c.expect("SA", ack=1)
    return c


@case("syn_queue_full")
def _() -> Host:
    c = heard(Host(syncookies=0))
    c.listen(backlog=1)
    for port in (1, 2):
        c.inject("S", seq=0, src_port=port)
    return c


@case("accept_queue_full")
def _() -> Host:
    c = heard(Host())
    c.listen(backlog=0)
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    c.inject("S", seq=0, src_port=9)
    return c


@case("tcp_no_slot")
def _() -> Host:
    c = heard(Host(connections=1))
    c.listen()
    c.inject("S", seq=0, src_port=1)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1, src_port=1)
    c.inject("S", seq=0, src_port=2)
    return c


@case("tcp_no_route")
def _() -> Host:
    c = heard(listening())
    segment = c.segment("S", seq=0)
    segment.src = b"\xc0\0\2\1"
    c.core.receive(segment, c.now)
    return c


@case("tcp_below_window")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=-5, ack=1, data=b"old")
    return c


@case("tcp_beyond_window")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=1_000_000, ack=1, data=b"far")
    return c


@case("tcp_zero_window")
def _() -> Host:
    c = heard(established())
    for _ in range(100):
        rx = c.tcb()["rx"]
        size = min(rx["rcv_acc"] - rx["rcv_nxt"], 1448)
        if not size:
            break
        c.inject("A", seq=1 + rx["rcv_nxt"], ack=1, data=b"z" * size)
    c.inject("A", seq=1 + c.tcb()["rx"]["rcv_nxt"], ack=1, data=b"!")
    return c


@case("tcp_trimmed")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=60_000, ack=1, data=b"t" * 9000)
    return c


@case("tcp_paws")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=1, ack=1, data=b"x", ts=c.stamp - 50)
    return c


@case("tcp_paws_echo")
def _() -> Host:
    c = heard(syn_sent())
    c.last_tsval -= 5000
    c.inject("SA", seq=0, ack=1)
    c.expect("R", seq=1)
    return c


@case("tcp_no_timestamp")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=1, ack=1, data=b"x", no_ts=True)
    return c


@case("tcp_rst_outside")
def _() -> Host:
    c = heard(established())
    c.inject("R", seq=1_000_000)
    return c


@case("tcp_rst_guessed")
def _() -> Host:
    c = heard(established())
    c.inject("R", seq=2)
    return c


@case("tcp_syn_inside")
def _() -> Host:
    c = heard(established())
    c.inject("S", seq=1)
    return c


@case("tcp_syn_again")
def _() -> Host:
    c = heard(syn_received())
    c.inject("S", seq=0)
    return c


@case("tcp_no_ack")
def _() -> Host:
    c = heard(established())
    c.inject("P", seq=1, data=b"x")
    return c


@case("tcp_ack_bad")
def _() -> Host:
    c = heard(syn_sent())
    c.inject("A", seq=0, ack=99)
    return c


@case("tcp_deferred")
def _() -> Host:
    c = listening(ts=False)
    c.call(SetOption(50, "defer_accept", 1))
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    c = heard(c)
    c.inject("A", seq=1, ack=1)
    return c


@case("tcp_ack_unsent")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=1, ack=99)
    return c


@case("tcp_ack_ancient")
def _() -> Host:
    c = heard(established())
    c.inject("A", seq=1, ack=-20_000_000)
    return c


@case("tcp_sack_invalid")
def _() -> Host:
    c = established()
    c.write(b"x" * 3000)
    heard(c)
    c.inject("A", seq=1, ack=1, sack=[(1449, 9000)])
    return c


@case("tcp_after_fin")
def _() -> Host:
    c = heard(close_wait())
    c.inject("A", seq=2, ack=1, data=b"x")
    return c


@case("tcp_data_after_close")
def _() -> Host:
    c = heard(established())
    c.close()
    c.inject("A", seq=1, ack=2, data=b"x")
    return c


@case("tcp_too_many_holes")
def _() -> Host:
    c = heard(established())
    for hole in range(513):
        c.inject("A", seq=3 + 2 * hole, ack=1, data=b"x")
    return c


@case("tcp_in_time_wait")
def _() -> Host:
    c = heard(time_wait())
    c.inject("A", seq=1, ack=2, data=b"x")
    return c


@case("tcp_queue_full")
def _() -> Host:
    c = heard(Host())
    for port in range(1, 8195):
        c.inject("S", seq=0, src_port=port, flush=False)
    c.flush({"ip": 0})
    return c


@case("time_wait_full")
def _() -> Host:
    from layers.tcp import closing  # the limit is 32,768 records: too many to make in a test

    c = heard(time_wait())
    most, closing.TIME_WAITS_MOST = closing.TIME_WAITS_MOST, 1
    try:
        c.agreed_ts = False
        c.inject("S", seq=0, src_port=9)
        c.expect("SA")
        c.agreed_ts = True
        c.inject("A", seq=1, ack=1, src_port=9)
        child = c.messages.popleft().sock
        c.call(Close(child))
        c.inject("FA", seq=1, ack=2, src_port=9)
    finally:
        closing.TIME_WAITS_MOST = most
    assert c.row(child) is None
    return c


@case("tcp_icmp_stray")
def _() -> Host:
    c = heard(Host())
    c.icmp(3, 1, seq=0)
    return c


@case("tcp_too_many_orphans")
def _() -> Host:
    c = heard(established(max_orphans=0))
    c.close()
    c.expect("RA", seq=1)
    return c


@case("tcp_icmp_fits")
def _() -> Host:
    c = heard(established())
    c.write(b"small")
    c.icmp(3, 4, seq=1, mtu=1000)
    return c


@case("tcp_icmp_not_in_flight")
def _() -> Host:
    c = heard(established())
    c.icmp(3, 1, seq=500)
    return c


@case("tcp_unknown_socket")
def _() -> Host:
    c = heard(Host())
    c.call(Consumed(7, 1))
    return c


@case("tcp_not_connected")
def _() -> Host:
    c = heard(syn_sent())
    c.call(Send(60, 0, 1, b"x"))
    return c


@case("tcp_repeated_call")
def _() -> Host:
    c = heard(syn_sent())
    c.call(Connect(60, "", b"\x0a\0\0\1", 1))
    return c


@case("tcp_send_gap")
def _() -> Host:
    c = heard(established())
    c.call(Send(c.sock, 5, 1, b"x"))
    return c


@case("tcp_send_beyond")
def _() -> Host:
    c = heard(established())
    c.call(Send(c.sock, 0, 1 << 30))
    return c


@case("tcp_send_after_eof")
def _() -> Host:
    c = heard(established())
    c.call(Eof(c.sock, 0))
    c.call(Send(c.sock, 0, 1, b"x"))
    return c


@case("tcp_consumed_ahead")
def _() -> Host:
    c = heard(established())
    c.call(Consumed(c.sock, 1))
    return c


@case("tcp_unknown_option")
def _() -> Host:
    c = heard(established())
    c.call(SetOption(c.sock, "colour", 1))
    return c


@case("tcp_unread")
def _() -> Host:
    c = heard(established())
    c.inject("PA", seq=1, ack=1, data=b"x")
    c.close()
    return c


@case("tcp_memory_lost")
def _() -> Host:
    c = heard(established())
    assert c.rings is not None
    c.call(StoreFailed(Place(c.rings.region, c.rings.receive_base, c.rings.receive_size, 0, 1)))
    c.expect("RA")
    return c


ANONYMOUS = {
    "accept_queue_full", "syn_queue_full", "tcp_ack_to_listener", "tcp_broadcast", "tcp_checksum", "tcp_icmp_stray",
    "tcp_in_time_wait", "tcp_land", "tcp_malformed", "tcp_no_connection", "tcp_no_route", "tcp_no_slot", "tcp_no_syn",
    "tcp_queue_full", "tcp_rst_nowhere", "tcp_syn_fin", "tcp_syn_payload", "tcp_unknown_socket",
}  # fmt: skip
"""Where there is no connection, or none yet."""
CALLED = {
    "tcp_consumed_ahead", "tcp_memory_lost", "tcp_not_connected", "tcp_repeated_call", "tcp_send_after_eof",
    "tcp_send_beyond", "tcp_send_gap", "tcp_too_many_orphans", "tcp_unknown_option", "tcp_unknown_socket", "tcp_unread",
}  # fmt: skip
"""What a call of the application led to, and no frame."""
WINDOW = 65_160  # 45 segments of 1448, what fits a ring of 65,536
DETAILS: dict[str, dict[str, Any]] = {
    "accept_queue_full": {"port": PORT},
    "syn_queue_full": {"port": PORT},
    "tcp_ack_ancient": {"ack": -20_000_001, "snd_una": 0},
    "tcp_ack_bad": {"ack": 98},
    "tcp_ack_unsent": {"ack": 98, "snd_nxt": 0},
    "tcp_below_window": {"offset": -6, "length": 3, "rcv_nxt": 0, "window": WINDOW},
    "tcp_beyond_window": {"offset": 999_999, "length": 3, "rcv_nxt": 0, "window": WINDOW},
    "tcp_consumed_ahead": {"upto": 1, "told": 0},
    "tcp_icmp_fits": {"mtu": 1000, "size": 20 + 20 + 12 + 5},  # headers, timestamps, "small"
    "tcp_icmp_not_in_flight": {"offset": 499},
    "tcp_malformed": {"why": "data offset"},
    "tcp_no_connection": {"port": PORT},
    "tcp_no_slot": {"port": PORT},
    "tcp_paws": {"tsval": 50, "recent": 100},
    "tcp_rst_guessed": {"offset": 1, "rcv_nxt": 0},
    "tcp_sack_invalid": {"left": 1448, "right": 8999},
    "tcp_send_after_eof": {"offset": 0},
    "tcp_send_beyond": {"offset": 0, "length": 1 << 30, "limit": 65_536},
    "tcp_send_gap": {"offset": 5, "known": 0},
    "tcp_syn_inside": {"offset": 0},
    "tcp_trimmed": {"beyond": 59_999 + 9000 - WINDOW},
    "tcp_unknown_option": {"name": "colour"},
    "tcp_unread": {"bytes": 1},
    "tcp_zero_window": {"offset": WINDOW, "length": 1, "rcv_nxt": WINDOW, "window": 0},
}
"""What is told beside reason, frame and connection. Offsets count from the first byte of the stream."""

CLAUSES = {"tcp_checksum": "RFC 9293 MUST-3", "tcp_broadcast": "RFC 9293 MUST-57"}
"""What a case alone proves."""


def cases() -> list[Any]:
    """The name of each reason, with the mark of what its case proves."""
    names = [reason.name for reason in all_reasons() if reason.layer == "tcp"]
    return [pytest.param(name, marks=[pytest.mark.rfc(CLAUSES[name])] if name in CLAUSES else []) for name in names]


@pytest.mark.parametrize("name", cases())
def test_reason(name: str) -> None:
    """It is provoked by its case, counted once or more, and told: of which frame and connection, with what figures."""
    c = CASES[name]()
    assert c.dropped(name) >= 1
    told = [event for event in c.core.events() if event.kind == "drop" and event.reason == name]
    assert len(told) == c.dropped(name)
    reason = lookup(name)
    assert reason is not None and reason.sentence
    event = told[-1]
    assert event.at == c.now
    if name.startswith("tcp_icmp"):
        assert event.frame == 1  # of the ICMP error
    else:
        assert event.frame == (0 if name in CALLED else c.frame)
    assert bool(event.conn) == (name not in ANONYMOUS)
    assert not event.conn or (event.conn.startswith("10.0.0.2:") and ">10.0.0.1:" in event.conn)
    if name == "tcp_paws_echo":  # the random start of our timestamps is in it
        assert event.data == {"tsecr": c.last_tsval}
    else:
        assert event.data == DETAILS.get(name, {})


def test_no_event_when_nobody_listens() -> None:
    """Counters run all the same."""
    c = established()
    c.inject("A", seq=1, ack=99)
    assert c.dropped("tcp_ack_unsent") == 1 and c.core.events() == []


@pytest.mark.rfc("RFC 9293 MUST-57")
def test_no_connection_with_broadcast_gets_no_reset() -> None:
    """RFC 9293 3.9.2.3."""
    c = Host()
    c.inject("S", seq=0, flags_frame=BROADCAST)
    c.expect_nothing()


def test_reset_for_a_segment_with_and_without_ack(isn: dict[str, Any]) -> None:
    """RFC 9293 3.10.7.1: SEQ = SEG.ACK; or SEQ = 0, ACK = SEG.SEQ + SEG.LEN."""
    c = Host(**isn)
    c.inject("PA", seq=10, ack=77, data=b"abc")
    got = c.expect("R", seq=77)
    assert got.raw_ack == 0
    c.inject("FS", seq=10, data=b"abc")
    got = c.expect("RA", ack=15)
    assert got.raw_seq == 0


def test_a_place_with_a_torn_header_is_malformed() -> None:
    """A payload in memory cannot be looked at."""
    c = established()
    segment = c.segment("A", seq=1, ack=1)
    segment.head = segment.head[:24]
    segment.payload = Place("pool", 0, 65_536, 0, 3000)
    c.core.receive(segment, c.now)
    assert c.dropped("tcp_malformed") == 1


# the same reasons at other places


def last_drop(c: Host) -> tuple[str, int, str, dict[str, Any]]:
    """What the last event of a drop tells: reason, frame, connection, figures."""
    event = [event for event in c.core.events() if event.kind == "drop"][-1]
    return event.reason, event.frame, event.conn, event.data


CONN = "10.0.0.2:80>10.0.0.1:4711"


@pytest.mark.parametrize(
    ("call", "reason", "data"),
    [
        (lambda c: Urgent(c.sock, 1 << 40), "tcp_send_beyond", {"offset": 1 << 40, "length": 0, "limit": 65_536}),
        (lambda c: Eof(c.sock, 4), "tcp_send_gap", {"offset": 4, "known": 3}),
        (lambda c: Eof(c.sock, 2), "tcp_send_after_eof", {"at": 2, "known": 3}),
        (lambda c: Send(c.sock, 4, 1), "tcp_send_gap", {"offset": 4, "known": 3}),
    ],
)
def test_calls_on_a_connection(call: Callable[[Host], Any], reason: str, data: dict[str, Any]) -> None:
    """Three bytes are known."""
    c = heard(established())
    c.write(b"abc")
    c.call(call(c))
    assert last_drop(c) == (reason, 0, CONN, data)


@pytest.mark.parametrize("call", [Urgent(7, 1), Send(7, 0, 1), Eof(7, 0), Consumed(7, 1), SetOption(7, "nodelay", 1)])
def test_calls_on_nothing(call: Any) -> None:
    """A socket that nobody knows."""
    c = heard(Host())
    c.call(call)
    assert last_drop(c) == ("tcp_unknown_socket", 0, "", {})


def test_urgent_data_before_there_is_a_connection() -> None:
    """It cannot be marked yet."""
    c = heard(syn_sent())
    c.call(Urgent(60, 1))
    assert last_drop(c) == ("tcp_not_connected", 0, f"10.0.0.2:{c.local_port}>10.0.0.1:4711", {})


def test_what_is_left_unread_is_counted_in_bytes() -> None:
    """Five came, two were read."""
    c = heard(established())
    c.inject("PA", seq=1, ack=1, data=b"hello")
    c.consume(2)
    c.close()
    assert last_drop(c) == ("tcp_unread", 0, CONN, {"bytes": 3})


def test_an_orphan_that_is_one_too_many() -> None:
    """At its timeout, after the limit was lowered."""
    c = heard(established())
    c.write(b"x")
    c.close()
    c.core.set("max_orphans", 0, c.now)
    c.core.events()
    c.advance(1000)
    assert last_drop(c) == ("tcp_too_many_orphans", 0, CONN, {})


@pytest.mark.parametrize("abort", [False, True])
def test_an_accept_queue_that_is_full_at_the_end_of_a_handshake(abort: bool) -> None:
    """The ACK is dropped, or, with tcp.abort_on_overflow, the connection reset."""
    c = Host(abort_on_overflow=abort)
    c.listen(backlog=2)
    c.agreed_ts = True
    for opened, completed in (((1,), 1), ((2,), 2), ((3, 9), 3)):
        for port in opened:
            c.inject("S", seq=0, src_port=port)
        c.inject("A", seq=1, ack=1, src_port=completed)
    heard(c)
    c.inject("A", seq=1, ack=1, src_port=9)
    assert last_drop(c) == ("accept_queue_full", c.frame, "10.0.0.2:80>10.0.0.1:9", {})
    assert [Got(c, segment).flags for segment in c.segments] == (["AR"] if abort else [])


def test_no_slot_at_the_end_of_a_handshake() -> None:
    """The memory went to another connection meanwhile."""
    c = Host(connections=1)
    c.listen()
    c.inject("S", seq=0)
    c.agreed_ts = True
    c.inject("S", seq=0, src_port=9)
    c.inject("A", seq=1, ack=1, src_port=9)
    heard(c)
    c.inject("A", seq=1, ack=1)
    assert last_drop(c) == ("tcp_no_slot", c.frame, CONN, {})


@pytest.mark.parametrize(
    ("size", "why"),
    [(12, "truncated"), (19, "truncated"), (20, "data offset")],
)
def test_what_is_malformed_about_it(size: int, why: str) -> None:
    """Cut short: no whole header, or less than its data offset says."""
    c = heard(established())
    segment = c.segment("A", seq=1, ack=1)
    segment.head = segment.head[:size]
    c.core.receive(segment, c.now)
    assert last_drop(c) == ("tcp_malformed", c.frame, "", {"why": why})


def test_a_torn_header_before_a_place() -> None:
    """Nobody reads on in shared memory."""
    c = heard(established())
    segment = c.segment("A", seq=1, ack=1)
    segment.head = segment.head[:24]
    segment.payload = Place("pool", 0, 65_536, 0, 3000)
    c.core.receive(segment, c.now)
    why = "a header that is not whole before a payload in memory"
    assert last_drop(c) == ("tcp_malformed", c.frame, "", {"why": why})


@pytest.mark.parametrize(("proto", "size"), [(17, 8), (6, 7)])
def test_icmp_errors_that_say_too_little(proto: int, size: int) -> None:
    """Not about TCP, or without a sequence number."""
    c = heard(established())
    c.write(b"x")
    c.core.receive(IcmpError(7, [], 3, 1, 0, b"\x0a\0\0\xfe", OURS, THEIRS, proto, bytes(size)), c.now)
    assert last_drop(c) == ("tcp_icmp_stray", 7, "", {})


def test_icmp_errors_about_a_connection_that_mean_nothing() -> None:
    """A type that is no error of TCP's; an MTU that is no smaller."""
    c = heard(established())
    c.write(b"x")
    c.icmp(5, 0, seq=1)
    assert last_drop(c) == ("tcp_icmp_stray", 1, CONN, {})
    c.icmp(3, 4, seq=1, mtu=1500)
    assert last_drop(c) == ("tcp_icmp_stray", 1, CONN, {"mtu": 1500})
    c.icmp(3, 4, seq=1, mtu=67)
    assert last_drop(c) == ("tcp_icmp_stray", 1, CONN, {"mtu": 67})


@pytest.mark.parametrize(
    ("code", "number"),
    [
        (0, errno.ENETUNREACH), (1, errno.EHOSTUNREACH), (2, errno.ENOPROTOOPT), (3, errno.ECONNREFUSED),
        (5, errno.EOPNOTSUPP), (9, errno.ENETUNREACH), (10, errno.EHOSTUNREACH), (13, errno.EHOSTUNREACH),
        (15, errno.EHOSTUNREACH), (16, errno.EHOSTUNREACH), (255, errno.EHOSTUNREACH),
    ],
)  # fmt: skip
def test_errnos_of_unreachable(code: int, number: int) -> None:
    """Linux icmp_err_convert; codes that it does not know mean host unreachable."""
    c = heard(established())
    c.write(b"x")
    c.icmp(3, code, seq=1)
    [event] = [event for event in c.core.events() if event.kind == "icmp"]
    assert event.data == {"type": 3, "code": code, "errno": number}
