"""Every reason that tcp has for a drop: provoked, counted, and told as an event that names the frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tcp_host import PORT, Host, close_wait, established, listening, syn_received, syn_sent, time_wait

from levelip.frames.packet import BROADCAST, Checksum
from levelip.frames.seam import Close, Connect, SetOption, StoreFailed
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Eof, Send
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
