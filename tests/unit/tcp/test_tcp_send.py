"""The send side: what goes out when. RFC 9293 3.7.4 (Nagle), 3.8.6 (windows), DESIGN 6 (credit)."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import MSS, RING, START, THEIRS, Host, connected, established, far

from levelip.frames.packet import Route, Routes
from levelip.frames.seam import Connect, SetOption
from levelip.rpc.stream import Accepted, Eof, Reset, Send

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 600


def test_text_goes_out_of_the_ring(isn: ISN) -> None:
    """A segment names its bytes in the send ring; PSH at the end of what was written."""
    c = established(**isn)
    c.write(BYTES[:2000])
    first = c.expect("A", seq=1, ack=1, data=BYTES[:MSS], gso=0)
    assert first.segment.payload.region == c.rings.region  # type: ignore[union-attr]
    c.expect("PA", seq=1 + MSS, data=BYTES[MSS:2000])
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 SHLD-7", "RFC 9293 MAY-16", "RFC 9293 SHLD-28", "RFC 9293 SHLD-27")
def test_nagle_keeps_one_small_segment_under_way(isn: ISN) -> None:
    """RFC 9293 3.7.4; what was written meanwhile goes in one segment when the first is acknowledged."""
    c = established(**isn)
    c.write(b"a")
    c.expect("PA", seq=1, data=b"a")
    c.write(b"b")
    c.write(b"c")
    c.expect_nothing()
    c.inject("A", seq=1, ack=2)
    c.expect("PA", seq=2, data=b"bc")


@pytest.mark.rfc("RFC 9293 MUST-17")
def test_nodelay_sends_at_once(isn: ISN) -> None:
    """TCP_NODELAY, set while something waits."""
    c = established(**isn)
    c.write(b"a")
    c.write(b"b")
    c.expect("PA", data=b"a")
    c.call(SetOption(c.sock, "nodelay", 1))
    c.expect("PA", seq=2, data=b"b")
    c.write(b"c")
    c.expect("PA", seq=3, data=b"c")


def test_a_full_segment_is_not_held_by_nagle(isn: ISN) -> None:
    """Only what is below MSS waits; a small one under way does not hold a full one (Minshall)."""
    c = established(**isn)
    c.write(b"a")
    c.expect("PA", seq=1)
    c.write(BYTES[:MSS])
    c.expect("PA", seq=2, len=MSS)


@pytest.mark.rfc("RFC 6928 2-1")
def test_initial_window(isn: ISN) -> None:
    """Ten segments, no more. RFC 6928 2."""
    c = established(**isn)
    c.write(BYTES[:30_000])
    for number in range(10):
        c.expect("A", seq=1 + number * MSS, len=MSS)
    c.expect_nothing()


@pytest.mark.rfc("RFC 5681 3.1-9")
def test_slow_start_doubles(isn: ISN) -> None:
    """Each acknowledged byte lets two go: cwnd 10 → 12 segments after an ACK of two. RFC 5681 3.1."""
    c = established(**isn)
    c.write(BYTES[:60_000])
    for _ in range(10):
        c.expect("A", len=MSS)
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    for number in range(10, 14):
        c.expect("A", seq=1 + number * MSS, len=MSS)
    c.expect_nothing()


def test_super_segment(isn: ISN) -> None:
    """With offload one segment holds all that may go, marked with the size of its pieces; counted in packets."""
    c = established(gso_max=65_535, **isn)
    c.write(BYTES[:30_000])
    c.expect("PA", seq=1, len=10 * MSS, gso=MSS)
    c.expect_nothing()
    assert c.core.counters["data_segments_out"] == 10
    assert c.core.counters["segments_out"] == 11  # with the SYN-ACK


def test_a_super_segment_is_pushed_a_lone_packet_is_not(isn: ISN) -> None:
    """PSH on what is more than a packet, sent first or again, though more is to come: the last of its packets may be an
    odd one, whose ACK is not to wait for a second (Linux since 5.5, __tcp_transmit_skb)."""
    c = far(gso_max=65_535, initial_window=3, **isn)
    c.write(BYTES[: 40 * MSS])
    c.expect("PA", seq=1, len=3 * MSS)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + MSS)
    c.expect("PA", seq=1 + 3 * MSS, len=2 * MSS)  # slow start
    c.inject("A", seq=1, ack=1 + MSS, sack=[(1 + 2 * MSS, 1 + 3 * MSS)])
    c.expect("A", seq=1 + 5 * MSS, len=MSS)  # limited transmit: one packet


def test_super_segment_is_at_most_44_pieces() -> None:
    """44 × 1448 with headers stays below 65,535."""
    c = established(gso_max=65_535, initial_window=70, wscale=8, win=65_535, send_ring=1 << 20, send_buffer=1 << 20)
    c.inject("A", seq=1, ack=1)  # the window of the SYN was not scaled
    c.write(BYTES[:150_000])
    c.expect("PA", len=44 * MSS, gso=MSS)
    c.expect("PA", seq=1 + 44 * MSS, len=26 * MSS, gso=MSS)
    c.expect_nothing()


def test_a_small_rest_of_cwnd_waits_for_more() -> None:
    """60 of 64 segments are under way and more is to come: four alone would make a small super-segment.

    Less than a third of the window is not sent while ACKs are to come. Linux tcp_tso_should_defer.
    """
    c = established(gso_max=65_535, initial_window=64, wscale=8, send_ring=1 << 20, send_buffer=1 << 20)
    c.inject("A", seq=1, ack=1)
    c.write(BYTES[: 60 * MSS])
    c.expect("PA", len=44 * MSS)
    c.expect("PA", len=16 * MSS)
    c.write(BYTES[: 30 * MSS])
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 44 * MSS)
    c.expect("PA", len=30 * MSS)


def test_the_device_bounds_a_super_segment() -> None:
    """gso_max 20,000 bytes with headers: (20000 - 100) // 1448 = 13 pieces."""
    c = established(gso_max=20_000, initial_window=20)
    c.write(BYTES[:40_000])
    c.expect("PA", len=13 * MSS)
    c.expect("PA", len=7 * MSS)


@pytest.mark.rfc("RFC 9293 MUST-38", "RFC 9293 SHLD-28")
def test_small_rest_is_not_sent_for_cwnd(isn: ISN) -> None:
    """What cwnd leaves below a segment waits: no silly segments while ACKs are to come. RFC 9293 3.8.6.2.1."""
    c = established(mss=1000, **isn)  # 988 with timestamps
    c.write(BYTES[:20_000])
    for _ in range(10):
        c.expect("A", len=988)
    c.inject("A", seq=1, ack=1 + 500)
    c.inject("A", seq=1, ack=1 + 988)
    assert all(segment.payload.length == 988 for segment in c.segments)  # type: ignore[union-attr]


@pytest.mark.rfc("RFC 9293 MUST-38", "RFC 5681 3.1-2")
def test_peer_window_bounds(isn: ISN) -> None:
    """No byte beyond SND.UNA + SND.WND; a small rest of the window is not used. RFC 9293 3.8.6.2.1."""
    c = established(win=3000, wscale=0, **isn)
    c.write(BYTES[:10_000])
    c.expect("A", seq=1, len=MSS)
    c.expect("A", seq=1 + MSS, len=MSS)
    c.expect_nothing()  # 104 bytes are open, below half of the largest window
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    c.expect("A", len=MSS)
    c.expect("A", len=MSS)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-38")
def test_a_tiny_window_is_used(isn: ISN) -> None:
    """The largest window ever seen is 600: segments of at least half of that go. RFC 9293 3.8.6.2.1 rule 3."""
    c = established(win=600, wscale=0, **isn)
    c.write(BYTES[:2000])
    c.expect("A", seq=1, len=600)
    c.inject("A", seq=1, ack=601, win=300)
    c.expect("A", seq=601, len=300)
    c.inject("A", seq=1, ack=901, win=200)
    c.expect_nothing()
    c.advance(250)  # rule 4: the override timeout
    c.expect("A", seq=901, len=200)


@pytest.mark.rfc("RFC 9293 MUST-35", "RFC 9293 MUST-36", "RFC 9293 SHLD-29", "RFC 9293 SHLD-30", "RFC 9293 MUST-37")
def test_zero_window_probe(isn: ISN) -> None:
    """Probes with exponential backoff while the window is closed; they never give up while answered.

    RTO with RTT 0 (min 1 ns) is 200 ms: probes at 200, 600, 1400, 3000 ms. RFC 9293 3.8.6.1, RFC 1122 4.2.2.17.
    """
    c = established(**isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"stuck")
    c.expect_nothing()
    start, times = c.now, []
    c.advance(1)
    for _ in range(31):
        c.advance(100)
        if c.segments:
            c.expect("A", seq=0, len=0)  # just below SND.UNA: the peer must answer
            times.append((c.now - start) // 100_000_000 * 100)
            c.inject("A", seq=1, ack=1, win=0)
    assert times == [200, 600, 1400, 3000]
    assert c.row()["info"]["probes"] == 0  # type: ignore[index]
    c.inject("A", seq=1, ack=1, win=1000)
    c.expect("PA", seq=1, data=b"stuck")


def test_unanswered_probes_end_the_connection() -> None:
    """After `retries` probes without any answer: ETIMEDOUT."""
    c = established(retries=3)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"stuck")
    c.advance(60_000)
    for _ in range(3):
        c.expect("A", seq=0)
    c.expect_nothing()
    assert c.find_message(Reset).errno == errno.ETIMEDOUT


def test_the_fin_waits_for_the_window(isn: ISN) -> None:
    """A closed window holds the FIN too, which takes a sequence number."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.shut()
    c.expect_nothing()
    c.advance(201)
    c.expect("A", seq=0)
    c.inject("A", seq=1, ack=1, win=10)
    c.expect("FA", seq=1)


def test_the_fin_rides_on_the_last_text(isn: ISN) -> None:
    """One segment with FIN and PSH; Nagle does not hold it."""
    c = established(**isn)
    c.write(b"first")
    c.expect("PA")
    c.write(b"last")
    c.expect_nothing()
    c.shut()
    c.expect("FPA", seq=6, data=b"last")
    assert c.state == "FIN_WAIT_1"


def test_credit_is_told_coalesced(isn: ISN) -> None:
    """A new limit is told when it grew by an eighth of the buffer, or when all is acknowledged."""
    c = established(**isn)
    assert c.limit == RING
    c.write(BYTES[:20_000])
    c.quiet()
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    c.no_message()  # 2,896 bytes are less than 8,192
    c.quiet()
    c.inject("A", seq=1, ack=1 + 6 * MSS)
    assert c.message(Accepted, upto=20_000).limit == 6 * MSS + RING
    c.quiet()
    c.inject("A", seq=1, ack=1 + 7 * MSS)
    c.no_message()
    c.quiet()
    c.inject("A", seq=1, ack=20_001)
    assert c.message(Accepted, upto=20_000).limit == 20_000 + RING


def test_a_repeated_send_changes_nothing(isn: ISN) -> None:
    """And one that overlaps adds only what is new. DESIGN 6: idempotent."""
    c = established(**isn)
    c.call(Send(c.sock, 0, 5, b"hello"))
    c.expect("PA", data=b"hello")
    c.call(Send(c.sock, 0, 5, b"hello"))
    c.expect_nothing()
    c.call(SetOption(c.sock, "nodelay", 1))
    c.call(Send(c.sock, 3, 4, b"lo!!"))
    c.expect("PA", seq=6, data=b"!!")


def test_a_gap_is_asked_for_again(isn: ISN) -> None:
    """Accepted tells how far the stream is known."""
    c = established(**isn)
    c.call(Send(c.sock, 10, 5, b"later"))
    c.expect_nothing()
    assert c.message(Accepted).upto == 0 and c.dropped("tcp_send_gap") == 1


def test_eof_beyond_what_is_known_waits_for_the_rest(isn: ISN) -> None:
    """The FIN stands where the application said, after all bytes before it."""
    c = established(**isn)
    c.call(Eof(c.sock, 5))
    c.message(Accepted, upto=0)
    c.expect_nothing()
    assert c.state == "ESTABLISHED"
    c.call(Send(c.sock, 0, 5, b"hello"))
    c.expect("FPA", data=b"hello")


def test_send_beyond_the_credit(isn: ISN) -> None:
    """Would overwrite bytes that are not acknowledged: refused with a reason."""
    c = established(**isn)
    c.call(Send(c.sock, 0, RING + 1))
    c.expect_nothing()
    assert c.dropped("tcp_send_beyond") == 1


def test_send_after_eof(isn: ISN) -> None:
    """Refused with a reason."""
    c = established(**isn)
    c.shut()
    c.quiet()
    c.call(Send(c.sock, 0, 5, b"hello"))
    c.expect_nothing()
    assert c.dropped("tcp_send_after_eof") == 1


def test_the_send_ring_wraps(isn: ISN) -> None:
    """Twice the ring goes through it and comes out right."""
    c = established(wscale=7, **isn)
    c.inject("A", seq=1, ack=1, win=2000)
    whole = BYTES[: 2 * RING + 777]
    out = bytearray()
    while len(out) < len(whole):
        while c.sent < min(len(whole), len(out) + RING):
            c.write(whole[c.sent : min(c.sent + 5000, len(out) + RING)])
        for _ in range(len(c.segments)):
            got = c.expect("PA" if c.segments[0].head[13] & 8 else "A", seq=1 + len(out))
            out += got.data
        c.inject("A", seq=1, ack=1 + len(out), win=2000)
    assert bytes(out) == whole


def test_sack_blocks_make_room_in_a_data_segment(isn: ISN) -> None:
    """A segment with text and one block is 12 bytes shorter, so that it fits the MTU. RFC 6691 3."""
    c = established(**isn)
    c.inject("A", seq=101, ack=1, data=b"x")
    c.quiet()
    c.write(BYTES[: 2 * MSS])
    got = c.expect("A", seq=1, len=MSS - 12)
    assert got.sack == [(101, 102)]
    assert len(got.segment.head) + got.len == 1480


def test_room_is_shared_in_turn() -> None:
    """With room for six segments, three connections send two each."""
    c = Host(connections=4)
    ports = []
    for number in range(3):
        c.call(Connect(60 + number, "", THEIRS, 80 + number))
        c.learn_port()
        ports.append(c.local_port)
        c.expect("S")
    for number in range(3):
        c.peer_port, c.local_port = 80 + number, ports[number]
        c.inject("SA", seq=0, ack=1)
        c.expect("A")
    for number in range(3):
        c.core.receive(Send(60 + number, 0, 10_000), c.now)
    c.flush({"ip": 6})
    assert [segment.head[2:4] for segment in c.segments] == [bytes([0, 80 + n % 3]) for n in range(6)]
    c.segments.clear()
    c.flush({"ip": 0})
    c.expect_nothing()
    c.flush()
    assert len(c.segments) == 15  # ten thousand bytes are seven segments each


@pytest.mark.rfc("RFC 5681 4.1-1", "RFC 6928 2-3")
def test_idle_connection_starts_slowly_again(isn: ISN) -> None:
    """After more than an RTO without sending cwnd falls to the restart window. RFC 5681 4.1."""
    c = established(**isn)
    c.write(BYTES[: 20 * MSS])
    for ack in range(2, 22, 2):
        c.inject("A", seq=1, ack=1 + ack * MSS)
    assert c.tcb()["congestion"]["cwnd"] > 12 * MSS
    c.quiet()
    c.advance(5000)
    c.write(BYTES[: 30 * MSS])
    assert len(c.segments) == 10


@pytest.mark.rfc("RFC 7661 4.4-1")
def test_cwnd_does_not_grow_while_the_application_is_slow(isn: ISN) -> None:
    """One small segment a round trip never uses cwnd, so cwnd stays. RFC 7661 4.3, Linux tcp_is_cwnd_limited."""
    c = established(**isn)
    for number in range(50):
        c.write(b"x" * 100)
        c.inject("A", seq=1, ack=1 + 100 * (number + 1))
    assert c.tcb()["congestion"]["cwnd"] == 10 * MSS


def test_fragmentation_needed_lowers_the_mss(isn: ISN) -> None:
    """MTU 1000: 1000 - 40 - 12 = 948 a segment, and what was under way goes again. RFC 1191 6.4."""
    c = established(**isn)
    c.write(BYTES[: 2 * MSS])
    c.expect("A", len=MSS)
    c.expect("PA", len=MSS)
    c.icmp(3, 4, seq=1, mtu=1000)
    sizes = []
    while c.segments:
        got = c.expect("PA" if c.segments[0].head[13] & 8 else "A")
        sizes.append(got.len)
    assert sum(sizes) == 2 * MSS and max(sizes) == 948


def test_new_routes_change_the_size_of_segments() -> None:
    """Offload that comes or goes with the device: from the next segment on."""
    c = established(gso_max=65_535)
    c.core.receive(Routes([Route(b"\x0a\0\0\0", 24, b"\x0a\0\0\2", 1500, 0)], [b"\x0a\0\0\2"]), c.now)
    c.write(BYTES[: 3 * MSS])
    for _ in range(2):
        c.expect("A", len=MSS, gso=0)
    c.expect("PA", len=MSS, gso=0)


@pytest.mark.rfc("RFC 9293 MUST-48", "RFC 9293 MUST-49", "RFC 9293 SHLD-22")
def test_ttl_and_tos(isn: ISN) -> None:
    """IP_TTL and IP_TOS reach every segment."""
    c = connected(connect={"ttl": 9, "tos": 16}, **isn)
    c.write(b"x")
    segment = c.expect("PA").segment
    assert (segment.ttl, segment.tos) == (9, 16)


def test_causes_name_the_segment_that_led_to_it(isn: ISN) -> None:
    """Traces follow frames: an ACK names what it acknowledges, data of the application names nothing."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"x")
    assert c.expect("A").segment.causes == [c.frame]
    c.write(b"y")
    assert c.expect("PA").segment.causes == []
    assert c.now == START


@pytest.mark.parametrize("length", [0, -1])
def test_send_of_nothing(length: int) -> None:
    """Changes nothing."""
    c = established()
    c.call(Send(c.sock, 0, max(length, 0)))
    c.expect_nothing()
