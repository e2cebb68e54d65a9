"""Receive and send space alone: against sets of bytes, by hand at their limits, and what holds after any sequence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.tcp.receive_space import MAX_RANGES, ReceiveSpace, scale_for, whole_segments
from layers.tcp.send_space import SendSpace

MS = 1_000_000
ISN = pytest.mark.parametrize("irs", [1000, 2**32 - 3])


# what has come


def runs(offsets: set[int]) -> list[tuple[int, int]]:
    """A set as ranges [start, end), in order."""
    found: list[tuple[int, int]] = []
    for offset in sorted(offsets):
        if found and found[-1][1] == offset:
            found[-1] = (found[-1][0], offset + 1)
        else:
            found.append((offset, offset + 1))
    return found


PIECES = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=25)


@settings(max_examples=150, deadline=None)
@given(PIECES)
def test_what_has_come_is_a_set_of_bytes(pieces: list[tuple[int, int]]) -> None:
    """In whatever order: ranges never touch, how many bytes are new is right, so is what had come before, and SACK
    blocks begin with the range that changed last (RFC 2018 4)."""
    rx = ReceiveSpace(1 << 16, 1 << 16)
    rx.start(2**32 - 3)
    have: set[int] = set()
    for start, size in pieces:
        wanted = set(range(start, start + size))
        known = sorted(wanted & (have | set(range(rx.rcv_nxt))))
        first = (known[0], known[0] + 1) if known else None
        while first and first[1] in wanted and (first[1] in have or first[1] < rx.rcv_nxt):
            first = (first[0], first[1] + 1)
        if start >= rx.rcv_nxt or start + size <= rx.rcv_nxt:
            assert rx.repeated(start, start + size) == first
        if start <= rx.rcv_nxt:
            rx.advance(start + size)
            have |= wanted
            assert not rx.rcv_nxt or rx.rcv_nxt - 1 in have or start + size <= rx.rcv_nxt
            have = {offset for offset in have if offset >= rx.rcv_nxt}
            assert rx.rcv_nxt not in have
        else:
            assert rx.insert(start, start + size) == len(wanted - have)
            have |= wanted
            touched = next(run for run in runs(have) if run[0] <= start < run[1])
            assert rx.sack_blocks(1) == [(rx.seq(touched[0]), rx.seq(touched[1]))]
        assert [(row.start, row.end) for row in rx.ranges] == runs(have)
        stamps = [row.stamp for row in rx.ranges]
        assert len(set(stamps)) == len(stamps)
    blocks = rx.sack_blocks(3)
    assert len(blocks) == min(3, len(rx.ranges))
    latest = sorted(rx.ranges, key=lambda row: row.stamp, reverse=True)[:3]
    assert blocks == [(rx.seq(row.start), rx.seq(row.end)) for row in latest]


def test_repeated_takes_the_first_run_only() -> None:
    """RFC 2883 4: below RCV.NXT, in a range from its middle, from its start, up to its end; touching is not having."""
    rx = ReceiveSpace(1 << 16, 1 << 16)
    rx.start(0)
    rx.advance(10)
    rx.insert(20, 30)
    rx.insert(40, 50)
    for start, end, found in (
        (5, 9, (5, 9)), (5, 15, (5, 10)), (9, 10, (9, 10)), (10, 20, None), (10, 21, (20, 21)), (15, 45, (20, 30)),
        (25, 28, (25, 28)), (25, 45, (25, 30)), (29, 31, (29, 30)), (30, 40, None), (30, 41, (40, 41)), (50, 60, None),
    ):  # fmt: skip
        assert rx.repeated(start, end) == found, (start, end)


def test_no_more_ranges_than_can_be_kept() -> None:
    """512; one that touches a range is still taken, one that makes another is not."""
    rx = ReceiveSpace(1 << 16, 1 << 16)
    rx.start(0)
    for number in range(MAX_RANGES):
        assert rx.insert(10 + 2 * number, 11 + 2 * number) == 1
    stamp = rx.stamp
    assert rx.insert(5, 6) == -1 and rx.stamp == stamp and len(rx.ranges) == MAX_RANGES == 512
    assert rx.insert(9, 10) == 1 and len(rx.ranges) == MAX_RANGES
    assert rx.insert(11, 12) == 1 and len(rx.ranges) == MAX_RANGES - 1
    assert rx.insert(5, 6) == 1


@ISN
def test_offsets_and_sequence_numbers(irs: int) -> None:
    """The nearest to RCV.NXT: half the space ahead at most."""
    rx = ReceiveSpace(1 << 16, 1 << 16)
    rx.start(irs)
    assert rx.rcv_nxt == 0 and rx.offset_of(irs) == -1 and rx.seq(-1) == irs
    rx.advance(100)
    for offset in (0, 99, 100, 101, 100 + 2**31 - 1, 100 - 2**31):
        assert rx.offset_of(rx.seq(offset)) == offset
    assert rx.offset_of(rx.seq(100 + 2**31)) == 100 - 2**31


# windows


@pytest.mark.parametrize(
    ("buffer", "shift"), [(1, 0), (65_535, 0), (65_536, 1), (131_071, 1), (131_072, 2), (1 << 29, 14), (1 << 40, 14)]
)
def test_the_smallest_scale(buffer: int, shift: int) -> None:
    """RFC 7323 2.3: no more than 14."""
    assert scale_for(buffer) == shift


def test_whole_segments() -> None:
    """64,240 of 1460 and 65,160 of 1448 bytes, as Linux; less than one segment stays as it is."""
    assert [whole_segments(65_535, unit) for unit in (1460, 1448)] == [64_240, 65_160]
    assert (whole_segments(1460, 1460), whole_segments(1459, 1460), whole_segments(2921, 1460)) == (1460, 1459, 2920)


def test_the_window_moves_by_segments_or_halves() -> None:
    """RFC 9293 3.8.6.2.2: the right edge moves by a segment (1000) or half of the buffer, the lesser, never back."""
    rx = ReceiveSpace(1 << 16, 10_000, mss=1000)
    rx.start(0)
    assert rx.window_field() == 10_000 and (rx.rcv_adv, rx.rcv_acc) == (10_000, 10_000)
    rx.advance(5000)
    assert rx.window_field() == 5000 and rx.window() == 5000
    rx.consumed = 999
    assert rx.window_field() == 5000
    rx.consumed = 1000
    assert rx.window_field() == 6000 and rx.rcv_adv == 11_000
    rx.buffer = 500  # shrunk: what was offered stays
    assert rx.window_field() == 6000 and rx.window() == 6000
    small = ReceiveSpace(1 << 16, 1000, mss=1448)
    small.start(0)
    small.window_field()
    small.advance(1000)
    assert small.window_field() == 0 == small.window()
    small.consumed = 499
    assert small.window_field() == 0
    small.consumed = 500
    assert small.window_field() == 500


def test_the_window_field_is_scaled_and_rounded_up_within_the_ring() -> None:
    """Shift 3: units of 8 bytes. A ring of 4096 can take 4089 more at most, so that rounding stays inside it."""
    rx = ReceiveSpace(4096, 4096, shift=3, mss=100)
    rx.start(0)
    assert rx.capacity() == 4089
    assert rx.window_field() == 512 and rx.rcv_acc == 4096  # 4089 rounded up
    rx.advance(5)
    assert rx.window_field() == 511 and rx.rcv_acc == 4096  # 4084 rounded up to 4088
    assert replace(rx, buffer=4088).capacity() == 4088
    large = ReceiveSpace(1 << 20, 1 << 20, shift=2, mss=100)
    large.start(0)
    assert large.window_field() == 0xFFFF and large.window() == 0xFFFF << 2
    closed = ReceiveSpace(4096, 4096, mss=100)
    closed.start(0)
    closed.rcv_nxt = 9999  # beyond the edge
    closed.rcv_adv = 4096
    closed.buffer = 0
    assert closed.window_field() == 0 and closed.window() == 0


def test_the_window_of_a_syn() -> None:
    """Never scaled, whole segments, 65,535 at most; and it is an edge like any other."""
    rx = ReceiveSpace(1 << 20, 1 << 20, shift=7)
    rx.start(0)
    assert rx.syn_window_field(1448) == 65_160 and (rx.rcv_adv, rx.rcv_acc) == (65_160, 65_160)
    assert replace(rx, rcv_adv=0).syn_window_field(16) == 65_520  # of 65,535, not of 65,536
    rx.rcv_adv = 70_000
    assert rx.syn_window_field(1448) == 65_160 and (rx.rcv_adv, rx.rcv_acc) == (70_000, 70_000)


@pytest.mark.parametrize(
    ("consumed", "due"),
    [(0, False), (999, False), (1000, False), (1999, False), (2000, True), (4000, True)],
)
def test_an_update_is_due_when_the_window_doubles(consumed: int, due: bool) -> None:
    """Linux tcp_cleanup_rbuf: 10,000 offered, 8000 come, so 2000 are left: with 2000 taken it is twice as much."""
    rx = ReceiveSpace(1 << 16, 10_000, mss=1000)
    rx.start(0)
    rx.window_field()
    rx.advance(8000)
    rx.consumed = consumed
    assert rx.update_due() is due


def test_no_update_for_what_the_field_cannot_say() -> None:
    """Without scaling 65,535 is all; nor below a segment or half of the buffer."""
    rx = ReceiveSpace(1 << 20, 1 << 20, mss=1000)
    rx.start(0)
    rx.window_field()
    rx.rcv_adv = 0xFFFF
    assert not rx.update_due()
    rx = ReceiveSpace(1 << 16, 1000, mss=1448)
    rx.start(0)
    rx.window_field()
    rx.advance(1000)
    rx.consumed = 499
    assert not rx.update_due()
    rx.consumed = 500
    assert rx.update_due()


def test_the_buffer_follows_what_is_taken_in_a_round_trip() -> None:
    """A buffer of 10,000 in a first turn of 100 ms: 10,000 taken are more than half of it. Wanted: twice that and 16
    segments, 36,000, and for slow start twice the share by which it rose: 36,000 * 5000 / 5000 * 2 more."""
    rx = ReceiveSpace(1 << 20, 10_000, mss=1000, most=1 << 20)
    rx.start(0)
    assert not rx.tune(5, 100 * MS)
    assert (rx.turn_from, rx.turn_at, rx.turn_end) == (0, 5, 10_000)
    rx.consumed = 9999
    assert not rx.tune(100 * MS, 100 * MS) and rx.rtt == 0
    rx.consumed = 10_000
    assert rx.tune(5 + 100 * MS, 100 * MS)
    assert (rx.rtt, rx.space, rx.buffer) == (100 * MS, 10_000, 36_000 + 72_000)
    assert (rx.turn_from, rx.turn_at, rx.turn_end) == (10_000, 5 + 100 * MS, 118_000)
    rx.consumed = 118_000  # 108,000 in 400 ms: 27,000 in an RTT of 100
    assert rx.tune(5 + 500 * MS, 100 * MS)
    assert (rx.rtt, rx.space) == (100 * MS, 27_000)
    wanted = 2 * 27_000 + 16_000
    assert rx.buffer == wanted + 2 * (wanted * 17_000 // 10_000)
    before = rx.buffer
    rx.consumed += before
    assert not rx.tune(5 + 500 * MS + 10_000 * MS, 100 * MS) and rx.buffer == before  # slow: never less


def test_a_slow_application_is_no_round_trip() -> None:
    """A turn that took longer than four SRTTs counts as four; 10 ms are what our processes may add. And a limit."""
    for srtt, rtt in ((100 * MS, 400 * MS), (MS, 10 * MS), (0, 10 * MS)):
        rx = ReceiveSpace(1 << 20, 1 << 19, mss=1000, most=1 << 20)
        rx.start(0)
        rx.tune(0, srtt)
        rx.consumed = 1 << 19
        rx.tune(1000 * MS, srtt)
        copied = (1 << 19) * rtt // (1000 * MS)
        assert rx.rtt == 1000 * MS and rx.space == (copied if copied > 1 << 18 else 0)
    rx = ReceiveSpace(1 << 20, 10_000, mss=1000, most=12_345)
    rx.start(0)
    rx.tune(0, MS)
    rx.consumed = 10_000
    assert rx.tune(0, MS) and rx.buffer == 12_345 and rx.rtt == 1  # at once: a nanosecond


# what was sent

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 60)),
        st.tuples(st.just("ack"), st.integers(0, 100)),
        st.tuples(st.just("timeout"), st.just(0)),
        st.tuples(st.just("undo"), st.just(0)),
        st.tuples(st.just("head"), st.integers(1, 30)),
        st.tuples(st.just("again"), st.integers(5, 20)),
        st.tuples(st.just("split"), st.integers(0, 1000)),
    ),
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.booleans())
def test_what_is_counted_is_what_is_in_the_queue(steps: list[tuple[str, int]], fin: bool) -> None:
    """After any sequence of sends, acknowledgments, losses and repeats: bytes lost, sent again and in flight are sums
    over the queue, which covers SND.UNA to SND.NXT without holes; packets arrive once each."""
    tx = SendSpace(1 << 16, mss=10, snd_una=0, snd_nxt=0)
    for now, (step, number) in enumerate(steps):
        packets = tx.delivered + sum(row.packets for row in tx.queue)
        if step == "send" and tx.fin_at < 0:
            if fin and number == 1:
                tx.fin_at = tx.snd_nxt
            tx.record(tx.snd_nxt + number, now, 10)
            last = tx.queue[-1]
            assert last.packets == max(-(-(number - (tx.fin_at >= 0)) // 10), 1) and last.times == 1
        elif step == "ack":
            una = tx.snd_una + number * (tx.snd_nxt - tx.snd_una) // 100
            before = [replace(row) for row in tx.queue]
            rtt = tx.acknowledge(una, now)
            whole = [row for row in before if row.end <= una]
            if any(row.times > 1 for row in whole):
                assert rtt == -1
            elif whole:
                assert rtt == now - whole[0].sent_at
            if whole:
                assert (tx.newest_at, tx.newest_end) == (whole[-1].sent_at, whole[-1].end)
                assert tx.newest_times == whole[-1].times
        elif step == "timeout":
            tx.lose_all()
            assert tx.in_flight() == 0
        elif step == "undo":
            tx.lose_none()
            assert tx.lost_bytes == 0
        elif step == "head" and tx.queue:
            was = tx.queue[0].lost
            tx.lose_head(number)
            assert tx.queue[0].lost and (was or tx.queue[0].end - tx.queue[0].start <= number)
        elif step == "again" and (index := tx.next_lost()) >= 0:
            assert tx.queue[index].lost and not any(row.lost for row in tx.queue[:index])
            times, repeats = tx.queue[index].times, tx.retransmits
            tx.resend(index, now, number)
            row = tx.queue[index]
            assert (row.times, row.sent_at, row.size, row.lost) == (times + 1, now, number, False)
            assert tx.retransmits == repeats + row.packets
        elif step == "split" and tx.queue:
            index = number % len(tx.queue)
            row = tx.queue[index]
            at = row.start + row.size
            if at < row.end:
                tx.split(index, at)
                assert (tx.queue[index].end, tx.queue[index + 1].start) == (at, at)
        edges = [tx.snd_una, *[row.end for row in tx.queue]]
        assert [row.start for row in tx.queue] == edges[:-1] and edges[-1] == tx.snd_nxt
        assert tx.lost_bytes == sum(row.end - row.start for row in tx.queue if row.lost)
        waiting = [row for row in tx.queue if row.times > 1 and not row.lost]
        assert tx.retrans_out == sum(row.end - row.start for row in waiting)
        assert tx.in_flight() == tx.snd_nxt - tx.snd_una - tx.lost_bytes
        assert not any(row.lost for row in tx.queue[: tx.first_lost])
        if step in ("ack", "timeout", "undo"):
            assert tx.delivered + sum(row.packets for row in tx.queue) == packets


def test_a_partly_acknowledged_super_segment() -> None:
    """30 bytes in packets of 10: at 5 nothing whole arrived, at 10 one, at 25 two; the RTT is of the first whole."""
    tx = SendSpace(1 << 16, snd_una=0, snd_nxt=0)
    tx.record(30, 100, 10)
    assert tx.acknowledge(5, 150) == -1 and (tx.delivered, tx.queue[0].packets) == (0, 3)
    assert tx.acknowledge(10, 160) == 60 and (tx.delivered, tx.queue[0].packets) == (1, 2)
    assert tx.acknowledge(25, 170) == 70 and (tx.delivered, tx.queue[0].packets) == (2, 1)
    assert tx.acknowledge(30, 180) == 80 and (tx.delivered, tx.queue) == (3, [])
    tx.record(60, 200, 10)
    tx.lose_all()
    tx.resend(0, 300, 10)
    assert tx.acknowledge(45, 350) == -1 and tx.retrans_out == 15  # Karn
    tx.lose_all()
    assert tx.acknowledge(50, 360) == -1 and tx.lost_bytes == 10


def test_windows_come_from_the_newest_segment() -> None:
    """RFC 9293 3.10.7.4: later in the peer's stream, or as late and acknowledging no less."""
    tx = SendSpace(1 << 16)
    assert tx.update_window(10, 5, 700) and (tx.snd_wl1, tx.snd_wl2, tx.max_wnd) == (10, 5, 700)
    assert not tx.update_window(10, 4, 1) and not tx.update_window(9, 99, 1) and tx.snd_wnd == 700
    assert not tx.update_window(10, 5, 700)  # no change
    assert tx.update_window(10, 5, 600) and (tx.snd_wnd, tx.max_wnd) == (600, 700)
    assert tx.update_window(11, 0, 0) and (tx.snd_wnd, tx.snd_wl1, tx.snd_wl2) == (0, 11, 0)


@pytest.mark.parametrize(("window", "offset"), [(100, 50), (50, 50), (49, 48), (1, 0), (0, 0)])
def test_where_an_ack_is_taken(window: int, offset: int) -> None:
    """50 bytes are out: SND.NXT within the window; the last offset inside one that shrank; its edge if it is closed."""
    assert SendSpace(1 << 16, snd_una=0, snd_nxt=50, snd_wnd=window).acceptable() == offset


def test_buffers_grow_with_the_window_up_to_their_limit() -> None:
    """Twice cwnd; what was granted once stays granted."""
    tx = SendSpace(1000, buffer_most=5000)
    tx.tune(500)
    assert tx.buffer == 1000
    tx.tune(501)
    assert tx.buffer == 1002
    tx.tune(9999)
    assert tx.buffer == 5000
    assert (tx.grant(), replace(tx, snd_una=7).grant(), replace(tx, limit=6000).grant()) == (5000, 5007, 6000)
