"""Where tcp decides between two things that lie close together: which segments it takes, and what it says to others."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import (
    MS,
    MSS,
    OURS,
    PORT,
    THEIRS,
    Got,
    Host,
    established,
    far,
    fin_wait_2,
    listening,
    syn_received,
    syn_sent,
    time_wait,
)
from test_tcp_segment_edges import BAD_OPTIONS, full, heard, malformed
from test_tcp_syn_cookies import cookie_syn
from test_tcp_syn_cookies import full as full_backlog

from layers.tcp.segment_arrives import _echo_plausible
from levelip.frames.packet import BROADCAST
from levelip.frames.seam import Incoming, SetOption
from levelip.wire.options import TcpOptions


def drops(c: Host) -> list[tuple[str, int, str, dict[str, Any]]]:
    """The drops since the last look: reason, frame, connection, figures."""
    return [
        (str(event.reason), event.frame, str(event.conn), event.data)
        for event in c.core.events()
        if event.kind == "drop"
    ]


def name(c: Host) -> str:
    """The connection, as events have it."""
    return f"10.0.0.2:{c.local_port}>10.0.0.1:{c.peer_port}"


def stamped_first(c: Host, flags: str, **fields: Any) -> None:
    """A segment whose timestamps stand before the two NOPs: order and alignment of options are free (RFC 9293 3.2)."""
    segment = c.segment(flags, **fields)
    assert segment.head[20:24] == b"\1\1\x08\x0a" and len(segment.head) == 32
    segment.head = segment.head[:20] + segment.head[22:] + b"\1\1"
    c.core.receive(segment, c.now)
    c.flush()


# what is not acceptable


@pytest.mark.parametrize(
    ("flags", "data", "length"), [("A", b"ab", 2), ("FA", b"", 1), ("S", b"", 1), ("SA", b"", 1), ("FA", b"abc", 4)]
)
def test_syn_and_fin_count_in_what_is_told_of_a_segment(flags: str, data: bytes, length: int) -> None:
    """Each is one in the sequence space (RFC 9293 3.4): a segment that ends just at RCV.NXT is told with its length."""
    c = heard(established())
    c.inject("PA", seq=1, ack=1, data=b"12345678")
    c.core.events()
    c.inject(flags, seq=9 - length, ack=1 if "A" in flags else None, data=data)
    [(reason, _, _, figures)] = drops(c)
    assert (reason, figures["length"]) == ("tcp_below_window", length)


def test_a_closed_window_takes_no_ack_that_is_none() -> None:
    """Without ACK the field says nothing, whatever stands in it (RFC 9293 3.1)."""
    c = established()
    at = full(c)
    c.write(b"x" * 100)
    c.inject("P", seq=at, ack=101, data=b"more")
    assert c.parts()[1].tx.snd_una == 0
    c.inject("PA", seq=at, ack=101, data=b"more")
    assert c.parts()[1].tx.snd_una == 100


@pytest.mark.parametrize(("flags", "data"), [("A", b"more"), ("FA", b"")])
def test_what_finds_the_window_closed_is_no_duplicate_ack(flags: str, data: bytes) -> None:
    """RFC 5681 2: a duplicate has no data and no FIN. It is answered without a D-SACK: it was not taken before."""
    c = established()
    at = full(c)
    c.write(b"x" * 100)
    c.quiet()
    c.inject(flags, seq=at, ack=1, data=data)
    assert c.core.counters["duplicate_acks_in"] == 0
    assert c.expect("A", ack=at).sack == []


def test_a_segment_at_a_closed_window_may_end_the_connection() -> None:
    """It acknowledges our FIN in LAST-ACK: nothing is left that could answer its data."""
    c = established(receive_initial=4096, receive_buffer=4096)
    _, conn = c.parts()
    at = 1
    while (space := conn.rx.window()) > 1:
        size = min(space - 1, MSS)
        c.inject("A", seq=at, ack=1, data=bytes(size))
        at += size
    c.inject("FA", seq=at, ack=1)
    assert c.state == "CLOSE_WAIT" and conn.rx.window() == 0
    c.shut()
    c.quiet()
    c.inject("A", seq=at + 1, ack=2, data=b"beyond")
    c.expect_nothing()
    assert c.state == "CLOSED" and c.dropped("tcp_after_fin") == 0


def test_what_comes_too_late_tells_of_no_second_copy() -> None:
    """PAWS discards it whole, so that nothing of it came twice: the ACK names what lies beyond the hole, once."""
    c = established()
    c.inject("A", seq=101, ack=1, data=bytes(100))
    c.quiet()
    c.inject("A", seq=1, ack=1, data=bytes(300), ts=c.stamp - 1)
    assert c.dropped("tcp_paws") == 1
    c.expect("A", ack=1, sack=[(101, 201)])


@pytest.mark.rfc("RFC 5961 5.2-1")
def test_an_ack_that_nobody_honest_would_send_tells_no_time() -> None:
    """Older than all that we ever sent: its stamp may be guessed as well, and is not kept."""
    c = established()
    _, conn = c.parts()
    before = conn.ts_recent
    c.inject("A", seq=1, ack=0, ts=c.stamp + 1000)
    assert c.dropped("tcp_ack_ancient") == 1
    assert conn.ts_recent == before


def test_data_with_options_that_are_none_is_data() -> None:
    """RFC 9293 MUST-7, as Linux: what can be read of them counts, and the text is taken."""
    c = established(ts=False)
    for options in BAD_OPTIONS.values():
        at = 1 + c.parts()[1].rx.rcv_nxt
        malformed(c, "PA", options, seq=at, ack=1, data=b"abc")
        assert c.parts()[1].rx.rcv_nxt == at + 2


# data


def nearly_full(left: int) -> tuple[Host, int]:
    """So many bytes of the receive window are left; the relative number of the next one. Quick ACKs are over."""
    c = heard(far(receive_initial=4096, receive_buffer=4096))
    _, conn = c.parts()
    at = 1
    while (space := conn.rx.window()) > left:
        size = min(space - left, MSS)
        c.inject("A", seq=at, ack=1, data=bytes(size))
        at += size
    c.advance(300)
    c.quiet()
    c.core.events()
    conn.quick_acks = 0
    return c, at


def test_a_window_that_is_filled_to_the_byte_is_not_overrun() -> None:
    """Nothing is cut off, and the FIN just behind is the FIN."""
    c, at = nearly_full(100)
    c.inject("FA", seq=at, ack=1, data=bytes(100))
    assert drops(c) == []
    assert c.state == "CLOSE_WAIT"


def test_what_is_cut_off_is_answered_at_once() -> None:
    """The ACK of a little data may wait (RFC 5681 4.2); but the peer is to know where our window ends."""
    c, at = nearly_full(1000)
    c.inject("A", seq=at, ack=1, data=bytes(10))
    c.expect_nothing()
    c.inject("A", seq=at + 10, ack=1, data=bytes(991))
    c.expect("A", ack=at + 1000)
    assert [(reason, figures["beyond"]) for reason, _, _, figures in drops(c)] == [("tcp_trimmed", 1)]


def test_data_that_came_before_is_counted_each_time() -> None:
    """A FIN is new, and its segment's text is not."""
    c = established()
    c.core._ctx.counters["duplicate_segments_in"] = 1
    c.inject("A", seq=1, ack=1, data=bytes(100))
    c.inject("FA", seq=1, ack=1, data=bytes(100))
    assert c.state == "CLOSE_WAIT"
    assert c.core.counters["duplicate_segments_in"] == 2


# duplicate ACKs


@pytest.mark.rfc("RFC 5681 2", "RFC 6675 2")
@pytest.mark.parametrize(
    ("agreed", "blocks", "win", "count"),
    [
        (True, False, 65_535, 1),
        (True, False, 60_000, 0),  # a window update
        (True, True, 60_000, 1),  # with blocks whatever the window says
        (False, True, 60_000, 0),  # blocks that we did not agree upon say nothing
        (False, False, 65_535, 1),
    ],
)
def test_what_a_duplicate_ack_is(agreed: bool, blocks: bool, win: int, count: int) -> None:
    """The same number, nothing else in it, and data under way."""
    c = far(sack=agreed)
    c.write(bytes(4 * MSS))
    sack = [(1 + MSS, 1 + 2 * MSS)] if blocks else []
    c.inject("A", seq=1, ack=1, win=win, sack=sack)
    assert c.core.counters["duplicate_acks_in"] == count


# opening


def test_a_syn_ack_that_crosses_ours_tells_the_time() -> None:
    """Simultaneous open, RFC 9293 3.5: its TSval is what our next segment echoes (RFC 7323 4.3)."""
    c = syn_sent()
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    c.advance(20)
    c.inject("SA", seq=0, ack=1)
    _, conn = c.parts()
    assert c.state == "ESTABLISHED"
    assert conn.ts_recent == c.stamp


@pytest.mark.rfc("RFC 5961 4.2-1")
def test_a_syn_ack_of_something_else_is_no_answer_to_ours() -> None:
    """Both opened at once, and it acknowledges more than our SYN: a challenge ACK, and no reset."""
    c = syn_sent()
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    heard(c)
    c.inject("SA", seq=0, ack=2)
    c.expect("A", seq=1, ack=1)
    c.expect_nothing()
    assert [reason for reason, *_ in drops(c)] == ["tcp_syn_inside"]
    assert c.state == "SYN_RECEIVED"


def test_a_syn_again_may_have_anything_where_an_ack_would_stand() -> None:
    """The peer did not get our SYN-ACK: it goes once more, whatever the field of the SYN says without ACK."""
    c = syn_received()
    c.inject("S", seq=0, ack=1)
    c.expect("SA", seq=0, ack=1)
    assert c.dropped("tcp_syn_again") == 1


@pytest.mark.parametrize("ack", [0, 2])
def test_what_does_not_complete_a_handshake_does_nothing_else(ack: int) -> None:
    """An ACK of nothing, or of more than our SYN, with data: one drop says what, of which connection and frame; and it
    is no sign of life."""
    c = heard(syn_received())
    _, conn = c.parts()
    before = conn.last_received_at
    c.advance(50)
    c.inject("A", seq=1, ack=ack, data=b"data")
    c.expect("R", seq=ack)
    assert drops(c) == [("tcp_ack_bad", c.frame, name(c), {"ack": ack - 1})]
    assert conn.last_received_at == before


def test_a_bare_ack_that_is_put_off_is_as_if_it_had_not_come() -> None:
    """TCP_DEFER_ACCEPT: the peer's data will show that it lives."""
    c = listening()
    c.call(SetOption(50, "defer_accept", 2))
    c.inject("S", seq=0)
    c.agreed_ts = c.expect("SA").options.timestamps is not None
    c.sock = next(row["sock"] for row in c.core.control(1, "ss", {}, 0)["sockets"] if row["state"] != "LISTEN")
    _, conn = c.parts()
    before = conn.last_received_at
    c.advance(50)
    c.inject("A", seq=1, ack=1)
    assert c.dropped("tcp_deferred") == 1
    assert conn.last_received_at == before
    c.inject("A", seq=1, ack=1, data=b"data")
    assert conn.last_received_at == c.now


def test_an_ack_that_finds_no_room_is_dropped_once() -> None:
    """The queue of accept() has filled meanwhile: its data is not looked at."""
    c = Host()
    c.listen(backlog=2)
    for flags, port in (("S", 1), ("A", 1), ("S", 2), ("A", 2), ("S", 3), ("S", 4), ("A", 3)):
        c.agreed_ts = flags == "A"
        c.inject(flags, seq=int(flags == "A"), ack=1 if flags == "A" else None, src_port=port)
    heard(c)
    c.inject("A", seq=1, ack=1, src_port=4, data=b"data")
    assert [reason for reason, *_ in drops(c)] == ["accept_queue_full"]


def test_data_in_the_answer_to_our_syn_is_told_of_its_connection() -> None:
    """It comes again (Linux without TFO)."""
    c = heard(syn_sent())
    c.inject("SA", seq=0, ack=1, data=b"early")
    assert drops(c) == [("tcp_syn_payload", c.frame, name(c), {})]


@pytest.mark.parametrize(("age", "plausible"), [(0, True), (51, True), (52, False), (-1, False)])
def test_an_answer_echoes_a_stamp_that_our_syn_had(age: int, plausible: bool) -> None:
    """From its first transmission, 50 ms ago, until now, and one tick more as the clock may have turned between."""
    c = syn_sent()
    c.advance(50)
    _, conn = c.parts()
    echo = (conn.ts_now(c.now) - age) & 0xFFFF_FFFF
    assert _echo_plausible(conn, TcpOptions(timestamps=(1, echo)), c.now) is plausible


# LISTEN


def test_from_the_same_port_is_not_from_ourselves() -> None:
    """Two servers talk to each other from port 80 to port 80; and we to ourselves from another port. Only both alike is
    a LAND attack."""
    for src, port, taken in ((THEIRS, PORT, True), (OURS, PORT + 1, True), (OURS, PORT, False)):
        c = listening()
        segment = c.segment("S", seq=0, src_port=port)
        segment.src = src
        c.core.receive(segment, c.now)
        c.flush()
        assert bool(c.segments) is taken
        assert c.dropped("tcp_land") == (not taken)


def test_with_cookies_the_backlog_alone_says_how_many_may_be_half_open() -> None:
    """tcp.max_syn_backlog bounds a listener where no cookie helps (Linux)."""
    for cookies, kept in ((1, 3), (0, 1)):
        c = Host(max_syn_backlog=1, syncookies=cookies)
        c.listen(backlog=16)
        for port in (1, 2, 3):
            c.inject("S", seq=0, src_port=port)
        rows = c.core.control(1, "ss", {}, c.now)["sockets"]
        assert sum(row["state"] == "SYN_RECEIVED" for row in rows) == kept
        assert c.core.counters["syn_cookies_sent"] == 0


def test_a_cookie_comes_back_with_its_options_in_any_order() -> None:
    """What the SYN had agreed upon stands in the stamp (RFC 4987 3.6), wherever that is."""
    c = full_backlog()
    cookie_syn(c, 2)
    c.quiet()
    stamped_first(c, "A", seq=1, ack=1, src_port=2)
    c.sock = c.message(Incoming).sock
    assert c.tcb()["sack"] and c.tcb()["timestamps"]


def test_a_cookie_that_finds_no_room_is_told_with_its_frame() -> None:
    """The connection that it made is gone again, by that frame (Linux: the next ACK brings it back)."""
    c = Host(syncookies=2)
    c.listen(backlog=1)
    cookies = {port: (cookie_syn(c, port), c.isn)[1] for port in (1, 2, 3)}
    for port, c.isn in cookies.items():
        heard(c)
        c.inject("A", seq=1, ack=1, src_port=port)
    assert c.dropped("accept_queue_full") == 1
    last = [event for event in c.core.events() if event.kind == "state"][-1]
    assert (last.data["new"], last.frame) == ("CLOSED", c.frame)


@pytest.mark.parametrize(("flags", "everybody"), [("A", True), ("SA", False)])
def test_a_cookie_alone_opens_nothing(flags: str, everybody: bool) -> None:
    """Not sent to all of a network, and not by a SYN-ACK: a reset for the one that is for us."""
    c = full_backlog()
    cookie_syn(c, 2)
    c.quiet()
    before = len(c.core.control(1, "ss", {}, c.now)["sockets"])
    segment = c.segment(flags, seq=1, ack=1, src_port=2, flags_frame=BROADCAST if everybody else 0)
    c.core.receive(segment, c.now)
    c.flush()
    assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == before
    assert c.core.counters["syn_cookies_good"] == 0
    assert [Got(c, one).flags for one in c.segments] == ([] if everybody else ["R"])


# CLOSED and TIME-WAIT


def test_what_everybody_got_is_told_and_not_answered() -> None:
    """RFC 1122 4.2.3.10; the drop names its frame."""
    c = heard(Host())
    c.inject("S", seq=0, flags_frame=BROADCAST)
    c.expect_nothing()
    assert [(reason, frame) for reason, frame, *_ in drops(c)] == [("tcp_broadcast", c.frame)]


def test_an_old_ack_in_time_wait_starts_no_second_wait() -> None:
    """RFC 9293 3.10.7.4: 2 MSL begin anew by the peer's FIN alone, not by data that ends where that did."""
    for flags, restarted in (("A", False), ("FA", True)):
        c = time_wait()
        [record] = c.core._ctx.timewaits.values()
        before = record.deadline
        c.advance(1000)
        c.inject(flags, seq=1, ack=2, data=b"" if flags == "FA" else b"x")
        assert record.deadline - before == (1000 * MS if restarted else 0)


def test_in_time_wait_options_may_stand_in_any_order() -> None:
    """PAWS finds the stamp: an old duplicate of the FIN does not make TIME-WAIT longer."""
    c = time_wait()
    [record] = c.core._ctx.timewaits.values()
    before = record.deadline
    c.advance(1000)
    stamped_first(c, "FA", seq=1, ack=2, ts=record.ts_recent - 1)
    assert record.deadline == before
    assert c.dropped("tcp_paws") == 1


def test_a_syn_ack_in_time_wait_opens_nothing() -> None:
    """RFC 9293 3.10.7.4, RFC 6191 2: a new connection begins with a SYN alone."""
    c = time_wait()
    c.inject("SA", seq=100_000, ack=2)
    assert c.core.counters["time_wait_reused"] == 0
    assert c.dropped("tcp_in_time_wait") == 1


def test_after_24_days_a_stamp_in_time_wait_says_nothing() -> None:
    """RFC 7323 5.5, for a time that somebody has set so long, on a machine that runs for weeks. Before, a SYN with an
    older one is not new."""
    day = 24 * 3600 * 1000
    for days, reused in ((1, 0), (25, 1)):
        c = fin_wait_2(time_wait_ms=40 * day)
        c.advance(20 * day)
        c.inject("FA", seq=1, ack=2)
        [record] = c.core._ctx.timewaits.values()
        c.advance(days * day)
        c.inject("S", seq=100_000, ts=(record.ts_recent - 5) & 0xFFFF_FFFF)
        assert c.core.counters["time_wait_reused"] == reused


def test_the_ack_of_time_wait_has_no_bit_that_is_reserved() -> None:
    """RFC 9293 3.1: "Must be zero in generated segments"; with timestamps and without."""
    for ts in (True, False):
        c = time_wait(ts=ts)
        c.inject("FA", seq=1, ack=2)
        got = c.expect("A", seq=2, ack=2)
        assert got.segment.head[12] == len(got.segment.head) // 4 << 4


def test_resets_that_end_time_wait_are_counted() -> None:
    """Each of two, beside one that came before."""
    c = time_wait(rfc1337=False)
    c.core._ctx.counters["resets_in"] = 1
    c.inject("R", seq=2)
    assert c.core.counters["resets_in"] == 2
