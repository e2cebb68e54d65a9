"""The receive side: order, window, SACK blocks, delayed ACKs. RFC 9293 3.10.7.4 seventh step, 3.8.6; RFC 2018."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, RING, Host, close_wait, established, fin_wait_1

from levelip.frames.seam import Incoming, SetOption
from levelip.rpc.place import Place
from levelip.rpc.stream import Data, Eof

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 600


def late(**how: Any) -> Host:
    """ESTABLISHED, and past the quick ACKs of the start."""
    c = established(**how)
    for number in range(16):
        c.inject("A", seq=1 + number * 10, ack=1, data=b"0123456789")
        c.expect("A", ack=11 + number * 10)
    c.consume(160)
    return c.quiet()


@pytest.mark.rfc("RFC 9293 MUST-58", "RFC 9293 MUST-59")
def test_in_order_text_is_stored_and_told(isn: ISN) -> None:
    """One Store, one Data a flush, one ACK: two segments between two flushes are told as one."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, data=b"hello ", flush=False)
    c.inject("PA", seq=7, ack=1, data=b"world")
    told = c.message(Data, sock=c.sock, offset=0)
    assert isinstance(told.payload, Place) and told.payload.length == 11
    assert c.memory.read(told.payload) == b"hello world"
    c.expect("A", seq=1, ack=12)
    c.expect_nothing()
    c.no_message()


@pytest.mark.rfc(
    "RFC 9293 MAY-13", "RFC 9293 SHLD-31", "RFC 5681 3.2-1", "RFC 5681 4.2-3", "RFC 2018 4-2", "RFC 2018 4-5",
)  # fmt: skip
def test_out_of_order_text_gets_duplicate_acks_with_sack_blocks(isn: ISN) -> None:
    """Each segment its own immediate ACK; the first block is the one that changed last. RFC 5681 4.2, RFC 2018 4."""
    c = established(**isn)
    c.inject("A", seq=101, ack=1, data=BYTES[100:200])
    c.expect("A", ack=1, sack=[(101, 201)])
    c.inject("A", seq=301, ack=1, data=BYTES[300:400])
    c.expect("A", ack=1, sack=[(301, 401), (101, 201)])
    c.inject("A", seq=501, ack=1, data=BYTES[500:600])
    c.expect("A", ack=1, sack=[(501, 601), (301, 401), (101, 201)])
    c.inject("A", seq=201, ack=1, data=BYTES[200:300])
    c.expect("A", ack=1, sack=[(101, 401), (501, 601)])
    c.no_message()
    c.inject("A", seq=1, ack=1, data=BYTES[:100])
    c.expect("A", ack=401, sack=[(501, 601)])
    told = c.message(Data, offset=0)
    assert c.memory.read(told.payload) == BYTES[:400]
    c.inject("A", seq=401, ack=1, data=BYTES[400:500])
    c.expect("A", ack=601, sack=[])
    assert c.memory.read(c.message(Data, offset=400).payload) == BYTES[400:600]


def test_two_out_of_order_segments_in_one_flush_get_two_acks(isn: ISN) -> None:
    """They are not coalesced: the sender counts duplicates. RFC 5681 3.2."""
    c = established(**isn)
    c.inject("A", seq=101, ack=1, data=BYTES[100:200], flush=False)
    c.inject("A", seq=201, ack=1, data=BYTES[200:300])
    c.expect("A", ack=1, sack=[(101, 201)])
    c.expect("A", ack=1, sack=[(101, 301)])
    c.expect_nothing()


@pytest.mark.rfc("RFC 2018 4-3")
def test_three_blocks_with_timestamps_four_without(isn: ISN) -> None:
    """As many as fit into 40 bytes of options. RFC 2018 3."""
    for ts, most in ((True, 3), (False, 4)):
        c = established(ts=ts, **isn)
        for hole in range(6):
            c.inject("A", seq=101 + hole * 100, ack=1, data=b"x" * 50)
        while len(c.segments) > 1:
            c.segments.popleft()
        assert [left for left, _ in c.expect("A").sack] == [601, 501, 401, 301][:most]


@pytest.mark.rfc("RFC 2018 2-2")
def test_no_blocks_without_sack_permitted() -> None:
    """RFC 2018 2."""
    c = established(sack=False)
    c.inject("A", seq=101, ack=1, data=b"x")
    c.expect("A", ack=1, sack=[])


def test_overlapping_segments_lose_nothing(isn: ISN) -> None:
    """Text that was there already is trimmed; the rest is taken. RFC 9293 3.10.7.4."""
    c = established(**isn)
    c.inject("A", seq=51, ack=1, data=BYTES[50:150])
    c.inject("A", seq=1, ack=1, data=BYTES[:100])
    c.inject("A", seq=101, ack=1, data=BYTES[100:300])
    c.inject("A", seq=1, ack=1, data=BYTES[:400])
    assert c.received(0, 400) == BYTES[:400]
    assert c.tcb()["rx"]["rcv_nxt"] == 400


def test_a_repeat_is_acknowledged_at_once(isn: ISN) -> None:
    """Below the window: an ACK, and a reason. RFC 9293 3.10.7.4 first step."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, data=b"once")
    c.expect("A", ack=5)
    c.quiet()
    c.inject("A", seq=1, ack=1, data=b"once")
    c.expect("A", ack=5)
    c.no_message()
    assert c.dropped("tcp_below_window") == 1


def test_beyond_the_window(isn: ISN) -> None:
    """Wholly beyond: dropped, ACK. Partly: the part inside is taken. RFC 9293 3.10.7.4 first step."""
    c = established(**isn)
    edge = c.tcb()["rx"]["rcv_acc"]
    c.inject("A", seq=edge + 2, ack=1, data=b"x")
    c.expect("A", ack=1)
    assert c.dropped("tcp_beyond_window") == 1
    edge = c.tcb()["rx"]["rcv_acc"]
    c.inject("A", seq=edge - 4, ack=1, data=b"1234567890")
    assert c.expect("A", ack=1).sack == [(edge - 4, edge + 1)]
    assert c.dropped("tcp_trimmed") == 1


def test_window_closes_and_opens(isn: ISN) -> None:
    """The window is what the buffer really has left; it opens by an update once it at least doubles.

    RFC 9293 3.8.6.2.2 (SWS avoidance), Linux tcp_cleanup_rbuf. The SYN-ACK granted 45 segments of 1448, 65,160 bytes.
    Capacity is 65,535 (the ring less the rounding of the window field): the 375 more are less than a segment, so the
    edge stays and the window is 0 when they are full.
    """
    c = established(**isn)
    for number in range(45):
        c.inject("A", seq=1 + number * MSS, ack=1, data=BYTES[number * MSS : (number + 1) * MSS])
    c.advance(40)
    got = [c.expect("A") for _ in range(len(c.segments))][-1]
    assert got.ack == 1 + 45 * MSS
    assert got.win == 0
    c.quiet()
    c.consume(300)
    c.expect_nothing()  # 300 bytes are less than a segment
    c.consume(2 * MSS)
    got = c.expect("A", ack=1 + 45 * MSS)
    assert got.win << 1 in (375 + 2 * MSS, 376 + 2 * MSS)
    c.consume(3 * MSS)
    c.expect_nothing()  # not twice of what the peer knows


def test_zero_window_takes_acks_but_no_text(isn: ISN) -> None:
    """RFC 9293 3.10.7.4: special allowance for valid ACKs; the probe's octet is refused and acknowledged."""
    c = established(**isn)
    sent = 0
    while (room := c.tcb()["rx"]["rcv_acc"] - sent) > 0:
        size = min(room, MSS)
        c.inject("A", seq=1 + sent, ack=1, data=b"z" * size)
        sent += size
    c.quiet()
    c.write(b"hello")
    c.expect("PA", seq=1, win=0)
    c.inject("A", seq=1 + sent, ack=6, data=b"!")
    assert c.dropped("tcp_zero_window") == 1
    c.expect("A", seq=6, ack=1 + sent, win=0)
    assert c.tcb()["tx"]["snd_una"] == 5


def test_what_a_probe_into_a_closed_window_acknowledges_lets_data_go(isn: ISN) -> None:
    """RFC 9293 3.10.7.4, first step. Nothing else would send it: no timer runs once all is acknowledged."""
    c = established(**isn)
    sent = 0
    while (room := c.tcb()["rx"]["rcv_acc"] - sent) > 0:
        size = min(room, MSS)
        c.inject("A", seq=1 + sent, ack=1, data=b"z" * size)
        sent += size
    c.quiet()
    c.write(b"h" * 100)
    c.expect("PA", seq=1, len=100, win=0)
    c.write(b"h" * 50)  # waits: Nagle
    c.expect_nothing()
    c.inject("A", seq=1 + sent, ack=101, data=b"!")
    c.expect("A", seq=101, ack=1 + sent, win=0, len=0)
    c.expect("PA", seq=101, ack=1 + sent, win=0, len=50)


@pytest.mark.rfc("RFC 9293 3.8.6.2.2", "RFC 7323 2.3")
def test_no_update_says_what_the_window_field_cannot(isn: ISN) -> None:
    """Without scaling 65,535 bytes are all that can be announced of a buffer of 256 KB: reading makes no ACK. It does
    once that window was closed. With scaling the first read opens what the SYN-ACK could not say."""
    large = {"receive_ring": 1 << 20, "receive_buffer": 1 << 20, "receive_initial": 1 << 18, "moderate_rcvbuf": False}
    c = established(wscale=None, **large, **isn)
    c.call(SetOption(c.sock, "quickack", 0))  # no ACK has moved the edge that the SYN-ACK announced, 64,240 or less
    c.inject("A", seq=1, ack=1, data=b"x" * 100)
    c.consume(50)
    c.consume(100)
    c.expect_nothing()
    c.advance(40)
    assert c.expect("A", ack=101).win == 65_535
    sent = 100
    while (room := c.tcb()["rx"]["rcv_acc"] - sent) > 0:  # never read: 256 KB come, the window falls to nothing
        size = min(room, MSS)
        c.inject("A", seq=1 + sent, ack=1, data=b"z" * size)
        c.advance(41)
        sent += size
    assert [c.expect("A") for _ in range(len(c.segments))][-1].win == 0 and sent == 100 + (1 << 18)
    c.consume(sent)
    c.expect("A", ack=1 + sent, win=65_535)
    c = established(wscale=7, **large, **isn)
    c.inject("A", seq=1, ack=1, data=b"x" * 100, flush=False)
    c.flush({"ip": 0})
    c.consume(100)
    assert c.expect("A", ack=101).win << c.tcb()["rx"]["shift"] >= 1 << 18


@pytest.mark.rfc("RFC 9293 SHLD-14")
def test_right_edge_never_moves_back(isn: ISN) -> None:
    """However segments and reading alternate. RFC 9293 3.8.6."""
    c = established(**isn)
    edge = seq = 0
    for step in range(200):
        size = 1 + step * 37 % 700
        c.inject("PA", seq=1 + seq, ack=1, data=b"e" * size)
        seq += size
        if step % 3 == 0:
            c.consume(seq - step)
        for _ in range(len(c.segments)):
            got = c.expect("A")
            # the field is rounded up to units of 2, so the announced edge may wobble by one byte
            assert got.ack + (got.win << 1) >= edge - 1
            edge = max(edge, got.ack + (got.win << 1))


def test_a_smaller_rcvbuf_takes_no_window_back() -> None:
    """SO_RCVBUF lowered: the edge stays, and moves again when enough was consumed."""
    c = established()
    before = c.tcb()["rx"]["rcv_acc"]
    c.call(SetOption(c.sock, "rcvbuf", 8192))
    c.inject("A", seq=1, ack=1, data=b"x" * 1000)
    got = c.expect("A")
    assert got.ack - 1 + (got.win << 1) in (before, before + 1)


def test_the_ring_wraps(isn: ISN) -> None:
    """Far more than the ring holds goes through it, and every byte is right."""
    c = established(**isn)
    whole = BYTES
    seq = 0
    out = bytearray()
    while seq < len(whole):
        piece = whole[seq : seq + MSS]
        c.inject("A", seq=1 + seq, ack=1, data=piece)
        seq += len(piece)
        while c.messages:
            told = c.message(Data)
            out += c.memory.read(told.payload)
        c.consume(len(out))
        c.segments.clear()
    assert bytes(out) == whole and len(whole) > 2 * RING


@pytest.mark.rfc("RFC 9293 SHLD-18", "RFC 9293 MUST-40", "RFC 5681 4.2-1", "RFC 5681 4.2-2")
def test_delayed_ack(isn: ISN) -> None:
    """A lone segment is acknowledged after 40 ms. RFC 9293 3.8.6.3."""
    c = late(**isn)
    c.inject("PA", seq=161, ack=1, data=b"lone")
    c.expect_nothing()
    c.advance(39)
    c.expect_nothing()
    c.advance(1)
    c.expect("A", seq=1, ack=165)
    c.advance(1000)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 SHLD-19", "RFC 5681 4.2-1")
def test_every_second_full_segment_is_acknowledged_at_once(isn: ISN) -> None:
    """RFC 5681 4.2; the third waits again."""
    c = late(**isn)
    c.inject("A", seq=161, ack=1, data=b"f" * MSS)
    c.expect_nothing()
    c.inject("A", seq=161 + MSS, ack=1, data=b"f" * MSS)
    c.expect("A", ack=161 + 2 * MSS)
    c.inject("A", seq=161 + 2 * MSS, ack=1, data=b"f" * MSS)
    c.expect_nothing()


def test_ack_every_four() -> None:
    """tcp.ack_every = 4: the fourth full-sized segment forces the ACK."""
    c = late(ack_every=4)
    for number in range(3):
        c.inject("A", seq=161 + number * MSS, ack=1, data=b"f" * MSS)
        c.expect_nothing()
    c.inject("A", seq=161 + 3 * MSS, ack=1, data=b"f" * MSS)
    c.expect("A", ack=161 + 4 * MSS)


def test_a_super_segment_is_acknowledged_at_the_flush(isn: ISN) -> None:
    """It stands for many packets; it counts as 20 in the figures."""
    c = late(**isn)
    c.inject("A", seq=161, ack=1, data=b"s" * (20 * MSS), gso=MSS)
    c.expect("A", ack=161 + 20 * MSS)
    assert c.core.counters["data_segments_in"] == 16 + 20


@pytest.mark.rfc("RFC 5681 4.2-4")
def test_the_answer_carries_the_ack(isn: ISN) -> None:
    """Data that goes out within the delay acknowledges, and no bare ACK follows."""
    c = late(**isn)
    c.inject("PA", seq=161, ack=1, data=b"ping")
    c.write(b"pong")
    c.expect("PA", seq=1, ack=165, data=b"pong")
    c.advance(100)
    c.expect_nothing()


def test_quick_acks_at_the_start(isn: ISN) -> None:
    """The first segments are acknowledged at once, so that the peer's slow start is not slowed. Linux quickack."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"one")
    c.expect("A", ack=4)


def test_no_delay_when_configured_so() -> None:
    """tcp.delayed_ack_ms = 0, also at run time."""
    c = late()
    c.core.set("delayed_ack_ms", 0, c.now)
    c.inject("PA", seq=161, ack=1, data=b"x")
    c.expect("A", ack=162)


@pytest.mark.rfc("RFC 5681 3.2-2")
def test_filling_a_hole_is_acknowledged_at_once(isn: ISN) -> None:
    """In part or whole. RFC 5681 4.2."""
    c = late(**isn)
    c.inject("A", seq=171, ack=1, data=b"0123456789")
    c.expect("A", ack=161, sack=[(171, 181)])
    c.inject("A", seq=161, ack=1, data=b"01234")
    c.expect("A", ack=166, sack=[(171, 181)])
    c.inject("A", seq=166, ack=1, data=b"56789")
    c.expect("A", ack=181, sack=[])


def test_fin_out_of_order_waits(isn: ISN) -> None:
    """The FIN is taken when all before it has come. RFC 9293 3.10.7.4 eighth step."""
    c = established(**isn)
    c.inject("FPA", seq=6, ack=1, data=b"world")
    c.expect("A", ack=1, sack=[(6, 11)])
    c.expect("A", ack=1)
    assert c.state == "ESTABLISHED"
    c.inject("A", seq=1, ack=1, data=b"hello")
    assert c.state == "CLOSE_WAIT"
    c.message(Data, offset=0)
    c.message(Eof, at=10)
    c.expect("A", ack=12)


def test_text_beyond_the_fin_is_dropped(isn: ISN) -> None:
    """Nothing can follow the FIN."""
    c = established(**isn)
    c.inject("FA", seq=6, ack=1)
    c.inject("A", seq=6, ack=1, data=b"beyond")
    assert c.dropped("tcp_trimmed") == 1
    c.inject("A", seq=1, ack=1, data=b"hello")
    assert c.state == "CLOSE_WAIT" and c.tcb()["rx"]["rcv_nxt"] == 6


def test_text_after_the_fin_was_taken(isn: ISN) -> None:
    """Ignored, with a reason: no ACK says anything of it, as Linux. RFC 9293 3.10.7.4 seventh step. What is in part a
    repeat of what came before is acknowledged as such."""
    c = close_wait(**isn)
    c.quiet()
    c.inject("A", seq=2, ack=1, data=b"more")
    c.quiet()
    assert c.dropped("tcp_after_fin") == 1
    c.inject("A", seq=1, ack=1, data=b"more")
    c.expect("A", ack=2)
    assert c.dropped("tcp_after_fin") == 2


def test_half_open_stream_still_receives(isn: ISN) -> None:
    """After our FIN the peer's text is taken as before. RFC 9293 3.6."""
    c = fin_wait_1(**isn)
    c.inject("A", seq=1, ack=2, data=b"still here")
    c.message(Data, offset=0)
    c.expect("A", seq=2, ack=11)


def test_ranges_are_bounded(isn: ISN) -> None:
    """512 holes are remembered; a segment that would make one more is dropped with a reason."""
    c = established(**isn)
    for hole in range(515):
        c.inject("A", seq=3 + 2 * hole, ack=1, data=b"x")
    assert c.dropped("tcp_too_many_holes") == 3
    assert len(c.tcb()["rx"]["ranges"]) == 512
    c.inject("A", seq=1, ack=1, data=b"x" * 2000)
    assert c.tcb()["rx"]["ranges"] == []


def test_a_flush_without_room_keeps_what_is_to_be_told(isn: ISN) -> None:
    """outgoing(room) gives no more than fits; nothing is lost."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"kept", flush=False)
    c.flush({"gateway": 0, "ip": 0})
    c.no_message()
    c.expect_nothing()
    c.flush()
    c.message(Data, offset=0)
    c.expect("A", ack=5)


def test_consumed_ahead_is_refused() -> None:
    """More than was delivered: a reason, no window."""
    c = established()
    c.consume(1)
    assert c.dropped("tcp_consumed_ahead") == 1


@pytest.mark.parametrize("split", [0, 7, 20, 31])
def test_any_split_of_head_and_payload(split: int) -> None:
    """With inline payload the head may end anywhere."""
    c = established()
    segment = c.segment("PA", seq=1, ack=1, data=b"hello")
    whole = segment.head + segment.payload  # type: ignore[operator]
    segment.head, segment.payload = whole[:split], whole[split:]
    c.core.receive(segment, c.now)
    c.flush()
    c.expect("A", ack=6)
    assert c.received(0, 5) == b"hello"


def test_inline_children_of_a_listener_use_the_region_asked_for() -> None:
    """Rings lie in the region that Listen named."""
    c = Host()
    from levelip.frames.seam import Bind, Listen

    c.call(Bind(1, 50, b"", 80))
    c.call(Listen(2, 50, "session-1", 5))
    c.quiet()
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    assert c.message(Incoming).rings.region == "session-1"


@pytest.mark.parametrize(("ts", "blocks"), [(True, 1), (False, 3)])
def test_blocks_leave_an_ack_within_a_small_mtu(isn: ISN, ts: bool, blocks: int) -> None:
    """68 bytes less 40 of headers are 28: beside timestamps (12) 4 + 8 fit, without 4 + 24. A larger ACK would be
    refused by IP, and nothing would ever be acknowledged again. So for what came twice."""
    c = established(mtu=68, ts=ts, mss=36, **isn)
    for number in range(1, 6):
        c.inject("A", seq=1 + 20 * number, ack=1, data=b"x" * 8)
        got = c.expect("A", ack=1)
        assert len(got.sack) == min(number, blocks) and 20 + len(got.segment.head) <= 68
    c.inject("A", seq=21, ack=1, data=b"x" * 8)
    got = c.expect("A", ack=1)
    assert got.sack[0] == (21, 29) and len(got.sack) == blocks and 20 + len(got.segment.head) <= 68
