"""Urgent data, RFC 9293 3.8.5 and RFC 6093: a mark in the stream, both ways."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Got, Host, close_wait, established, fin_wait_1, fin_wait_2, syn_sent

from levelip.frames.seam import SetOption
from levelip.rpc.stream import Data, Eof, Send, Urgent
from levelip.wire.tcp import URG

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 512


def with_mark(c: Host, pointer: int, **fields: Any) -> None:
    """A segment of the peer with an urgent pointer."""
    segment = c.segment("PAU", **fields)
    segment.head = segment.head[:18] + pointer.to_bytes(2, "big") + segment.head[20:]
    c.core.receive(segment, c.now)
    c.flush()


def mark(got: Got) -> int | None:
    """The urgent pointer of what came out, None without URG."""
    return int.from_bytes(got.segment.head[18:20], "big") if got.bits & URG else None


# in


@pytest.mark.rfc(
    "RFC 9293 MUST-30", "RFC 9293 MUST-62", "RFC 9293 MUST-32", "RFC 6093 2.2", "RFC 6093 4-1", "RFC 6093 4-2",
    "RFC 6093 6-1",
)  # fmt: skip
def test_a_mark_is_told_ahead_of_the_data_and_the_data_stays_in_line(isn: ISN) -> None:
    """Pointer 3 on "abc": the last urgent octet is "c", the mark stands behind it, at offset 3."""
    c = established(**isn)
    with_mark(c, 3, seq=1, ack=1, data=b"abcd")
    c.message(Urgent, upto=3)
    assert c.message(Data).offset == 0
    assert c.received(0, 4) == b"abcd"
    assert c.core.counters["urgent_in"] == 1


@pytest.mark.rfc("RFC 9293 MUST-31", "RFC 9293 MUST-32", "RFC 9293 MUST-33")
def test_the_mark_moves_up_and_never_back(isn: ISN) -> None:
    """RCV.UP = max(RCV.UP, SEG.UP). It may lie ahead of what has come: at 1000, then, from byte 4 on, at 4 + 2000."""
    c = established(**isn)
    with_mark(c, 1000, seq=1, ack=1, data=b"abcd")
    c.message(Urgent, upto=1000)
    c.message(Data)
    with_mark(c, 2000, seq=5, ack=1, data=b"efgh")
    c.message(Urgent, upto=2004)
    c.message(Data)
    with_mark(c, 100, seq=9, ack=1, data=b"i")
    c.message(Data)
    c.no_message()


@pytest.mark.rfc("RFC 9293 MUST-32")
def test_a_mark_on_what_was_delivered_says_nothing(isn: ISN) -> None:
    """Bytes 0 to 3 are there already. A pointer of 0 is the first octet (Linux tcp_check_urg)."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"abcd")
    c.message(Data)
    with_mark(c, 4, seq=1, ack=1, data=b"abcd")
    c.no_message()
    with_mark(c, 0, seq=5, ack=1, data=b"e")
    c.message(Urgent, upto=5)


@pytest.mark.rfc("RFC 9293 MUST-66")
def test_a_mark_is_heard_with_a_closed_window(isn: ISN) -> None:
    """An empty segment at RCV.NXT is acceptable then, and says how far the urgent data goes."""
    c = established(**isn)
    for _ in range(100):
        rx = c.tcb()["rx"]
        size = min(rx["rcv_acc"] - rx["rcv_nxt"], 1448)
        if not size:
            break
        c.inject("A", seq=1 + rx["rcv_nxt"], ack=1, data=b"z" * size)
    full = c.tcb()["rx"]["rcv_nxt"]
    c.quiet()
    with_mark(c, 9, seq=1 + full, ack=1)
    c.message(Urgent, upto=full + 9)


@pytest.mark.rfc("RFC 9293 3.10.7.4")
@pytest.mark.parametrize(("factory", "heard"), [(fin_wait_1, True), (fin_wait_2, True), (close_wait, False)])
def test_states(isn: ISN, factory: Any, heard: bool) -> None:
    """Sixth step: ESTABLISHED, FIN-WAIT-1, FIN-WAIT-2; after the peer's FIN this should not occur."""
    c = factory(**isn)
    rx, tx = c.tcb()["rx"], c.tcb()["tx"]
    with_mark(c, 1, seq=1 + rx["rcv_nxt"], ack=1 + tx["snd_una"], data=b"!" if heard else b"")
    assert any(type(message) is Urgent for message in c.messages) is heard


# out


@pytest.mark.rfc("RFC 9293 MUST-30", "RFC 9293 MUST-62", "RFC 6093 2.2", "RFC 6093 4-1")
def test_the_mark_goes_out_behind_the_last_urgent_octet(isn: ISN) -> None:
    """send(b"abc", MSG_OOB): the pointer of the segment is 3; what follows has none."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1)
    c.quiet()
    assert c.rings is not None
    c.memory.store(c.rings.send(0, 3), b"abc")
    c.core.receive(Send(c.sock, 0, 3), c.now)
    c.call(Urgent(c.sock, 3))
    c.sent = 3
    assert mark(c.expect("PAU", seq=1, data=b"abc")) == 3
    c.inject("A", seq=1, ack=4)
    c.write(b"def")
    assert mark(c.expect("PA", seq=4, data=b"def")) is None
    assert c.tcb()["snd_up"] == -1


def test_the_mark_may_come_before_its_octet(isn: ISN) -> None:
    """So that no segment can leave without it: the pointer is there from the first one on."""
    c = established(**isn)
    c.call(Urgent(c.sock, 3))
    c.expect_nothing()
    c.write(b"abc")
    assert mark(c.expect("PAU", seq=1, data=b"abc")) == 3


@pytest.mark.parametrize("option", [{}, {"cork": 1}], ids=["nagle", "cork"])
def test_urgent_data_does_not_wait(isn: ISN, option: dict[str, int]) -> None:
    """Neither for the ACK of a small segment before it nor for TCP_CORK (Linux tcp_nagle_test)."""
    c = established(**isn)
    c.write(b"a")
    c.expect("PA", seq=1, data=b"a")
    for name, value in option.items():
        c.call(SetOption(c.sock, name, value))
    c.write(b"b")
    c.expect_nothing()
    c.call(Urgent(c.sock, 3))
    c.write(b"c")
    assert mark(c.expect("PAU", seq=2)) == 2


@pytest.mark.rfc("RFC 9293 MUST-31")
def test_urgent_data_of_many_segments(isn: ISN) -> None:
    """2 MSS and 10 bytes, all urgent: pointers 2906, 1458, 10 (MSS 1448), though offload would have sent one."""
    c = established(gso_max=65_535, win=0, wscale=0, **isn)
    c.write(BYTES[: 2 * MSS + 10])
    c.quiet()
    c.call(Urgent(c.sock, 2 * MSS + 10))
    c.inject("A", seq=1, ack=1, win=65_535)
    first, second, third = c.expect("AU", len=MSS), c.expect("AU", len=MSS), c.expect("PAU", len=10)
    assert [mark(first), mark(second), mark(third)] == [2906, 1458, 10]
    assert first.gso == 0
    c.inject("A", seq=1, ack=1 + 2 * MSS + 10, win=65_535)
    c.write(BYTES[: 3 * MSS])
    c.expect("A", len=MSS, gso=0)  # it finds the mark acknowledged: from the next on offload works again
    c.expect("PA", len=2 * MSS, gso=MSS)


@pytest.mark.rfc("RFC 9293 MUST-31")
def test_a_mark_beyond_the_field_says_as_far_as_it_can() -> None:
    """100,000 urgent bytes: 65,535 first."""
    c = established(send_ring=131_072, send_buffer=131_072)
    c.write(BYTES[:100_000])
    c.quiet()
    c.call(Urgent(c.sock, 100_000))
    c.inject("A", seq=1, ack=1 + MSS)
    got = c.expect("AU")
    assert mark(got) == 65_535 and got.seq > 1


@pytest.mark.rfc("RFC 9293 MUST-66", "RFC 9293 MUST-30")
def test_the_mark_is_told_while_the_peers_window_is_closed(isn: ISN) -> None:
    """With the window probe goes an empty segment at SND.UNA, which the peer may take (Linux tcp_write_wakeup)."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"stuck")
    c.call(Urgent(c.sock, 5))
    c.expect_nothing()
    c.advance(201)
    assert mark(c.expect("AU", seq=1, len=0)) == 5
    c.expect("A", seq=0, len=0)


def test_marks_that_cannot_be(isn: ISN) -> None:
    """Beyond the grant, of a connection that is not open, of none at all, and one below an older mark."""
    c = established(**isn)
    c.call(Urgent(c.sock, c.limit + 1))
    assert c.dropped("tcp_send_beyond") == 1
    c.call(Urgent(99, 5))
    assert c.dropped("tcp_unknown_socket") == 1
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"stuck")
    c.call(Urgent(c.sock, 5))
    c.call(Urgent(c.sock, 3))
    assert c.tcb()["snd_up"] == 5
    d = syn_sent()
    d.call(Urgent(d.sock, 1))
    assert d.dropped("tcp_not_connected") == 1


def test_the_mark_survives_a_snapshot(isn: ISN) -> None:
    """Both ways."""
    c = established(**isn)
    with_mark(c, 1000, seq=1, ack=1, data=b"abcd")
    c.inject("A", seq=5, ack=1, win=0)
    c.write(b"stuck")
    c.call(Urgent(c.sock, 5))
    restored = type(c.core).restore(c.config, c.core.snapshot())
    assert restored.snapshot() == c.core.snapshot()
    (conn,) = restored.snapshot()["connections"]
    assert (conn["snd_up"], conn["rcv_up"]) == (5, 1000)


@pytest.mark.parametrize(("eof", "upto", "taken"), [(-1, 0, True), (-1, 1, False), (100, 100, True), (100, 101, False)])
def test_how_far_a_mark_may_lie(eof: int, upto: int, taken: bool) -> None:
    """At the end of what the application may send, or has said that it will: not a byte beyond."""
    c = established()
    _, conn = c.parts()
    if eof >= 0:
        c.call(Eof(c.sock, eof))
    else:
        upto += conn.tx.grant()
    c.call(Urgent(c.sock, upto))
    assert conn.snd_up == (upto if taken else -1)
    assert c.dropped("tcp_send_beyond") == (not taken)
