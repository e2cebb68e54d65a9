"""Windows that close, shrink and tune themselves; silly windows; Nagle and cork. RFC 9293 3.8.6, 3.7.4."""

from __future__ import annotations

import errno
from itertools import pairwise
from typing import Any

import pytest
from tcp_host import MSS, Host, connected, established

from levelip.frames.seam import SetOption
from levelip.rpc.stream import Accepted, Consumed, Eof, Reset, Send

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 4096  # 1 MB
MS = 1_000_000
FOUR_MB = 1 << 22
LARGE: dict[str, Any] = {
    "send_ring": FOUR_MB, "receive_ring": FOUR_MB, "send_buffer": FOUR_MB, "receive_buffer": FOUR_MB,
}  # fmt: skip


def take(c: Host) -> list[Any]:
    """All segments that came out."""
    return [c.expect("PA" if c.segments[0].head[13] & 8 else "A") for _ in range(len(c.segments))]


# the peer takes its window back


@pytest.mark.rfc("RFC 9293 MUST-34", "RFC 9293 SHLD-15", "RFC 7323 2.4-1")
def test_no_new_data_beyond_a_shrunken_window(isn: ISN) -> None:
    """Ten segments are under way, then the right edge moves to the left: nothing new goes, nothing breaks."""
    c = established(win=30_000, wscale=0, **isn)
    c.write(BYTES[: 12 * MSS])
    assert len(take(c)) == 10
    c.inject("A", seq=1, ack=1 + 2 * MSS, win=3 * MSS)  # cwnd would let four go; SND.UNA + SND.WND is 5 * MSS
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 10 * MSS, win=30_000)
    assert [got.seq for got in take(c)] == [1 + 10 * MSS, 1 + 11 * MSS]


@pytest.mark.rfc("RFC 9293 SHLD-16", "RFC 9293 MUST-34")
def test_what_lies_in_a_shrunken_window_goes_again(isn: ISN) -> None:
    """After a timeout only what lies below the new right edge is sent again, and the rest once the window opens.

    RTT 0: RTO 200 ms. cwnd 1 after it; each ACK of one segment lets two go (slow start).
    """
    c = established(win=30_000, wscale=0, **isn)
    c.write(BYTES[: 6 * MSS])
    assert len(take(c)) == 6
    c.inject("A", seq=1, ack=1 + MSS, win=2 * MSS)
    c.advance(201)
    assert [(got.seq, got.len) for got in take(c)] == [(1 + MSS, MSS)]
    c.inject("A", seq=1, ack=1 + 2 * MSS, win=MSS + 100)
    assert [(got.seq, got.len) for got in take(c)] == [(1 + 2 * MSS, MSS), (1 + 3 * MSS, 100)]
    c.inject("A", seq=1, ack=101 + 3 * MSS, win=30_000)
    again = take(c)
    assert again[0].seq == 101 + 3 * MSS
    c.inject("A", seq=1, ack=again[-1].seq + again[-1].len, win=30_000)
    again += take(c)
    assert b"".join(got.data for got in again) == BYTES[100 + 3 * MSS : 6 * MSS]


@pytest.mark.rfc("RFC 9293 SHLD-17", "RFC 9293 MAY-7", "RFC 9293 MUST-37")
def test_a_window_closed_over_data_under_way_does_not_end_the_connection() -> None:
    """The first segment, beyond the window, serves as a probe; as long as it is answered nobody gives up."""
    c = established(retries=3, win=30_000, wscale=0)
    c.write(BYTES[: 4 * MSS])
    c.quiet()
    c.inject("A", seq=1, ack=1, win=0)
    probes = 0
    for _ in range(600):
        c.advance(1000)
        if c.segments:
            assert {(got.seq, got.len) for got in take(c)} == {(1, MSS)}
            probes += 1
            c.inject("A", seq=1, ack=1, win=0)
    assert probes > 8 and c.state == "ESTABLISHED"
    c.inject("A", seq=1, ack=1, win=30_000)
    c.expect("A", seq=1, len=MSS)  # at once


def test_a_window_closed_over_data_under_way_and_silence_do() -> None:
    """Nothing has come for twice the largest RTO: the retransmissions count."""
    c = established(retries=3, win=30_000, wscale=0, rto_max_ms=1000)
    c.write(BYTES[:MSS])
    c.quiet()
    c.inject("A", seq=1, ack=1, win=0)
    c.advance(20_000)
    assert c.find_message(Reset).errno == errno.ETIMEDOUT


# silly windows


@pytest.mark.rfc("RFC 9293 MUST-39", "RFC 9293 SHLD-14", "RFC 9293 MAY-8")
def test_the_receiver_offers_no_silly_windows(isn: ISN) -> None:
    """The right edge moves by a segment or half the buffer at least, and never to the left. RFC 9293 3.8.6.2.2."""
    c = established(**isn)
    edges = []
    sent = 0
    for step in range(400):
        room = c.tcb()["rx"]["rcv_acc"] - sent
        size = min(room, MSS)
        if size > 0:
            c.inject("PA", seq=1 + sent, ack=1, data=b"s" * size)
            sent += size
        c.consume(min(c.tcb()["told_data"], (step + 1) * 100))  # a slow application, 100 bytes at a time
        c.advance(41)
        edges += [got.ack + (got.win << 1) for got in take(c)]
    steps = [after - before for before, after in pairwise(edges)]
    assert min(steps) >= -1  # the field is rounded up to units of 2
    assert all(step >= MSS - 2 or step <= 2 for step in steps) and max(steps) >= MSS - 2


@pytest.mark.rfc("RFC 9293 MUST-38")
@pytest.mark.parametrize(("window", "goes"), [(1000, 0), (5_000, 3), (30_000, 10)])
def test_the_sender_uses_no_silly_windows(isn: ISN, window: int, goes: int) -> None:
    """With 60,000 as the largest window seen, 1,000 bytes (less than a segment and than half of it) are not used:
    rules 1 and 3 of RFC 9293 3.8.6.2.1; of 5,000 three whole segments, not the rest."""
    c = established(win=60_000, wscale=0, **isn)
    c.inject("A", seq=1, ack=1, win=window)
    c.write(BYTES[:50_000])
    assert [got.len for got in take(c)] == [MSS] * goes


@pytest.mark.rfc("RFC 9293 MUST-38")
def test_the_override_timeout_is_not_put_off(isn: ISN) -> None:
    """By a peer that goes on sending, with the same window."""
    c = established(win=60_000, wscale=0, **isn)
    c.inject("A", seq=1, ack=1, win=1000)
    c.write(BYTES[:50_000])
    for step in range(19):
        c.advance(10)
        c.inject("PA", seq=1 + step, ack=1, data=b".", win=1000)
        assert all(got.len == 0 for got in take(c))
    c.advance(11)
    assert [got.len for got in take(c) if got.len] == [1000]


@pytest.mark.rfc("RFC 9293 MUST-38", "RFC 9293 MUST-60")
def test_the_override_timeout_ends_the_wait(isn: ISN) -> None:
    """Rule 4: after 0.1 to 1 s (ours: an RTO, 200 ms at least) what the window takes goes."""
    c = established(win=60_000, wscale=0, **isn)
    c.inject("A", seq=1, ack=1, win=1000)
    c.write(BYTES[:50_000])
    c.advance(190)
    c.expect_nothing()
    c.advance(11)
    c.expect("A", seq=1, len=1000)


@pytest.mark.rfc("RFC 9293 MUST-35", "RFC 9293 MUST-36", "RFC 9293 SHLD-29", "RFC 9293 SHLD-30", "RFC 9293 MUST-37")
def test_zero_window_probes_back_off_to_the_largest_rto() -> None:
    """RTO 200 ms: 200, 400, 800 ... up to rto_max (2 s here), for as long as they are answered."""
    c = established(rto_max_ms=2000, retries=4)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"stuck")
    times = []
    start = c.now
    c.advance(1)
    for _ in range(150):
        c.advance(100)
        if c.segments:
            take(c)
            times.append((c.now - start) // (100 * MS) * 100)
            c.inject("A", seq=1, ack=1, win=0)
    assert times[:7] == [200, 600, 1400, 3000, 5000, 7000, 9000]


# Nagle, TCP_CORK


@pytest.mark.rfc("RFC 9293 SHLD-7", "RFC 9293 MUST-17")
def test_nagle_and_its_end(isn: ISN) -> None:
    """One small segment under way with Nagle; TCP_NODELAY flushes what waits."""
    c = established(**isn)
    for letter in (b"a", b"b", b"c"):
        c.write(letter)
    c.expect("PA", data=b"a")
    c.expect_nothing()
    c.call(SetOption(c.sock, "nodelay", 1))
    c.expect("PA", data=b"bc")
    c.write(b"d")
    c.expect("PA", data=b"d")


def test_cork_holds_the_last_piece(isn: ISN) -> None:
    """Full segments go, the rest waits, with TCP_NODELAY too; to uncork sends it."""
    c = established(**isn)
    c.call(SetOption(c.sock, "nodelay", 1))
    c.call(SetOption(c.sock, "cork", 1))
    c.write(BYTES[: 2 * MSS + 5])
    assert [got.len for got in take(c)] == [MSS, MSS]
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    c.expect_nothing()
    c.call(SetOption(c.sock, "cork", 0))
    c.expect("PA", seq=1 + 2 * MSS, len=5)


def test_cork_cuts_a_super_segment() -> None:
    """Of ten segments and a bit the ten go as one."""
    c = established(gso_max=65_535, initial_window=20)
    c.call(SetOption(c.sock, "cork", 1))
    c.write(BYTES[: 10 * MSS + 7])
    c.expect("PA", len=10 * MSS, gso=MSS)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    c.expect_nothing()
    c.advance(201)
    c.expect("PA", len=7)


@pytest.mark.rfc("RFC 9293 MUST-60")
def test_cork_has_a_ceiling_of_200_ms(isn: ISN) -> None:
    """Whatever the peer sends meanwhile; and each piece has its own 200 ms."""
    c = established(**isn)
    c.call(SetOption(c.sock, "cork", 1))
    c.write(b"first")
    for step in range(19):
        c.advance(10)
        c.inject("PA", seq=1 + step, ack=1, data=b".")
        assert all(got.len == 0 for got in take(c))
    c.advance(9)
    assert all(got.len == 0 for got in take(c))
    c.advance(2)
    c.expect("PA", data=b"first")
    c.inject("A", seq=20, ack=6)
    c.write(b"second")
    c.advance(199)
    c.expect_nothing()
    c.advance(2)
    c.expect("PA", data=b"second")


def test_nodelay_flushes_a_corked_socket(isn: ISN) -> None:
    """Once: Linux's TCP_NAGLE_PUSH."""
    c = established(**isn)
    c.call(SetOption(c.sock, "cork", 1))
    c.write(b"now")
    c.expect_nothing()
    c.call(SetOption(c.sock, "nodelay", 1))
    c.expect("PA", data=b"now")
    c.write(b"later")
    c.expect_nothing()


def test_the_fin_ends_a_cork(isn: ISN) -> None:
    """shutdown(SHUT_WR) sends what is corked, and FIN."""
    c = established(**isn)
    c.call(SetOption(c.sock, "cork", 1))
    c.write(b"rest")
    c.shut()
    c.expect("FPA", data=b"rest")


# delayed ACKs


@pytest.mark.rfc("RFC 9293 SHLD-18", "RFC 9293 MUST-40", "RFC 9293 SHLD-19")
def test_delayed_and_every_second(isn: ISN) -> None:
    """Past the quick ACKs of the start: 40 ms, or at once with the second full-sized segment."""
    c = established(**isn)
    seq = 1
    for _ in range(16):
        c.inject("A", seq=seq, ack=1, data=b"x" * MSS)
        seq += MSS
    c.consume(seq - 1)
    c.advance(41)
    c.quiet()
    c.inject("A", seq=seq, ack=1, data=b"x" * MSS)
    c.expect_nothing()
    c.advance(39)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", ack=seq + MSS)
    seq += MSS
    c.inject("A", seq=seq, ack=1, data=b"x" * MSS)
    c.expect_nothing()
    c.inject("A", seq=seq + MSS, ack=1, data=b"x" * MSS)
    c.expect("A", ack=seq + 2 * MSS)


def test_quickack_off_and_on(isn: ISN) -> None:
    """0: ACKs are delayed at once; 1: the one that waits goes, and the next come quickly; 2: that one alone."""
    c = established(**isn)
    c.call(SetOption(c.sock, "quickack", 0))
    assert c.row()["info"]["quickack"] == 0  # type: ignore[index]
    c.inject("PA", seq=1, ack=1, data=b"a")
    c.expect_nothing()
    c.call(SetOption(c.sock, "quickack", 1))
    c.expect("A", ack=2)
    c.inject("PA", seq=2, ack=1, data=b"b")
    c.expect("A", ack=3)
    assert c.row()["info"]["quickack"] == 1  # type: ignore[index]
    c.call(SetOption(c.sock, "quickack", 0))
    c.inject("PA", seq=3, ack=1, data=b"c")
    c.expect_nothing()
    c.call(SetOption(c.sock, "quickack", 2))
    c.expect("A", ack=4)
    assert c.row()["info"]["quickack"] == 0  # type: ignore[index]


def test_quickack_off_lets_data_carry_the_handshakes_ack() -> None:
    """Set before connect(): the third segment of the handshake waits for data, up to 200 ms (Linux)."""
    for option in ({"quickack": 0}, {"defer_accept": 3}):
        c = Host(ts=False)
        c.connect(options=option)
        c.learn_port()
        c.expect("S")
        c.inject("SA", seq=0, ack=1)
        c.expect_nothing()
        c.advance(199)
        c.expect_nothing()
        c.advance(2)
        c.expect("A", seq=1, ack=1)


# buffers that tune themselves


def feed(c: Host, sent: int, *, rounds: int, rtt_ms: float, at_once: bool = True) -> tuple[int, list[int]]:
    """The peer fills the window once an RTT, the application takes all of it; the window at each round's end."""
    windows = []
    for _ in range(rounds):
        end = c.tcb()["rx"]["rcv_acc"]
        while sent < end:
            size = min(end - sent, 44 * MSS)
            c.inject("A", seq=1 + sent, ack=1, data=bytes(size), gso=MSS)
            sent += size
        c.advance(rtt_ms)
        if at_once:
            c.consume(sent)
        windows.append(c.tcb()["rx"]["rcv_acc"] - sent)
        c.quiet()
    return sent, windows


def test_the_receive_buffer_doubles_with_the_rate(isn: ISN) -> None:
    """A peer that uses all of the window gets a larger one each RTT, up to the limit: 256 KB, then 6 times (three
    times what the window already allows, of twice the rate), then 4 MB."""
    c = connected(**{**LARGE, **isn})
    assert c.tcb()["rx"]["buffer"] == 262_144
    _, windows = feed(c, 0, rounds=5, rtt_ms=1)
    assert windows[0] in range(262_000, 262_300)
    assert windows[1:] == sorted(windows[1:]) and windows[-1] > 4_190_000
    info = c.row()["info"]  # type: ignore[index]
    assert info["rcvbuf"] == 2 << 22 and 900 <= info["rcv_rtt"] <= 2100


def test_a_slow_peer_gets_no_larger_buffer() -> None:
    """256 KB in two seconds on a path of 1 ms are no reason to grow: at most 1.3 KB are taken in 10 ms."""
    c = connected(**LARGE)
    sent = 0
    for _ in range(1000):
        c.inject("A", seq=1 + sent, ack=1, data=bytes(1000))
        sent += 1000
        c.consume(sent)
        c.advance(8)
        c.quiet()
    assert c.tcb()["rx"]["buffer"] == 262_144


def test_a_slow_application_gets_no_larger_buffer() -> None:
    """The window follows what is taken, not what could come."""
    c = connected(**LARGE)
    feed(c, 0, rounds=20, rtt_ms=100, at_once=False)
    assert c.tcb()["rx"]["buffer"] == 262_144


def test_news_that_come_late_and_together_are_no_fast_turn() -> None:
    """All of a window is told as taken by several messages of one instant, before anything could be announced: that
    measures nothing, and the buffer grows by the round trips as ever."""
    c = connected(**LARGE)
    sent = 0
    for _ in range(6):
        end = c.tcb()["rx"]["rcv_acc"]
        while sent < end:
            size = min(end - sent, 44 * MSS)
            c.inject("A", seq=1 + sent, ack=1, data=bytes(size), gso=MSS)
            sent += size
        c.advance(1)
        for upto in (sent - 100_000, sent - 50_000, sent):
            c.core.receive(Consumed(c.sock, upto), c.now)
        c.flush()
        c.quiet()
    rx = c.tcb()["rx"]
    assert rx["rtt"] >= MS and rx["buffer"] > 2_000_000


def test_the_fin_needs_a_place_in_the_window(isn: ISN) -> None:
    """It is counted as an octet (RFC 9293 3.4, SEG.LEN): where data fills the window it waits for the next."""
    for window, flags in ((1000, "PA"), (1001, "FPA")):
        c = established(wscale=None, **isn)
        c.inject("A", seq=1, ack=1, win=window)
        c.core.receive(Send(c.sock, 0, 1000, bytes(1000)), c.now)
        c.call(Eof(c.sock, 1000))
        c.expect(flags, seq=1, len=1000)
        c.expect_nothing()
        c.inject("A", seq=1, ack=1001, win=1)
        if "F" not in flags:
            c.expect("FA", seq=1001, len=0)
        c.expect_nothing()


@pytest.mark.parametrize(
    ("options", "config", "most"),
    [
        ({"rcvbuf": 300_000}, {}, 300_000),
        ({"window_clamp": 270_000}, {}, 270_000),
        ({}, {"moderate_rcvbuf": False}, 262_144),
        ({}, {"receive_buffer": 500_000}, 500_000),
        ({"rcvlowat": 400_000}, {"moderate_rcvbuf": False}, 800_000),
    ],
    ids=["SO_RCVBUF", "TCP_WINDOW_CLAMP", "moderate_rcvbuf", "receive_buffer", "SO_RCVLOWAT"],
)
def test_what_bounds_the_receive_buffer(options: dict[str, int], config: dict[str, Any], most: int) -> None:
    """Set by the application: fixed; by the configuration: the limit."""
    c = connected(connect=options, **{**LARGE, **config})
    feed(c, 0, rounds=8, rtt_ms=1)
    rx = c.tcb()["rx"]
    assert rx["buffer"] == most and rx["rcv_acc"] - rx["rcv_nxt"] <= most + 128


def test_options_of_buffers_on_a_live_connection() -> None:
    """TCP_WINDOW_CLAMP takes nothing back, then bounds; SO_RCVBUF that grows opens the window at once."""
    c = established(**LARGE)
    before = c.tcb()["rx"]["rcv_acc"]
    c.call(SetOption(c.sock, "window_clamp", 20_000))
    assert c.tcb()["rx"]["rcv_acc"] == before
    sent, windows = feed(c, 0, rounds=4, rtt_ms=1)
    assert windows[-1] <= 20_128
    c.quiet()
    c.call(SetOption(c.sock, "window_clamp", 1 << 22))
    c.call(SetOption(c.sock, "rcvbuf", 1 << 20))
    assert take(c)[-1].win << 7 > 1_000_000
    assert c.row()["info"]["rcvbuf"] == 2 << 20  # type: ignore[index]
    assert sent > before


def test_the_send_buffer_grows_with_cwnd(isn: ISN) -> None:
    """Credit starts at 256 KB; with cwnd at N it is 2 N, so that a whole window acknowledged at once leaves another."""
    c = established(win=65_535, wscale=10, gso_max=65_535, **{**LARGE, **isn})
    c.inject("A", seq=1, ack=1)
    assert c.limit == 262_144
    limit = c.limit
    for _ in range(10):
        while c.sent < limit:
            c.write(bytes(min(65_536, limit - c.sent)))
        sent = c.tcb()["tx"]["snd_nxt"]
        c.segments.clear()
        c.messages.clear()
        c.inject("A", seq=1, ack=1 + sent)
        c.segments.clear()
        limit = max([limit, *(told.limit for told in c.messages if type(told) is Accepted)])
    tcb = c.tcb()
    assert tcb["tx"]["buffer"] == min(2 * tcb["congestion"]["cwnd"], 1 << 22) > 1_000_000


def test_so_sndbuf_fixes_the_send_buffer() -> None:
    """Larger on a live connection: the credit is told; it never grows by itself then."""
    c = established(wscale=10, **LARGE)
    c.quiet()
    c.call(SetOption(c.sock, "sndbuf", 500_000))
    assert c.message(Accepted).limit == 500_000
    tx = c.tcb()["tx"]
    assert (tx["buffer"], tx["buffer_most"]) == (500_000, 500_000)


def test_tuning_survives_a_snapshot() -> None:
    """In mid-turn: the restored core grows its window at the same moment."""
    from layers.tcp.core import TcpCore

    ends = []
    for restore in (False, True):
        c = connected(**LARGE)
        sent, _ = feed(c, 0, rounds=1, rtt_ms=1)
        c.call(SetOption(c.sock, "cork", 1))
        c.write(b"held")
        c.advance(1)
        if restore:
            c.core = TcpCore.restore(c.config, c.core.snapshot())
        _, windows = feed(c, sent, rounds=3, rtt_ms=1)
        c.advance(300)
        ends.append((windows, [got.len for got in take(c)], c.tcb()))
    assert ends[0] == ends[1]
