"""The scoreboard against a naive model that keeps one state for every packet."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layers.tcp import scoreboard
from layers.tcp.recovery.rack import Rack
from layers.tcp.scoreboard import News
from layers.tcp.send_space import SendSpace

SIZE = 10  # bytes a packet


def space(iss: int = 0) -> SendSpace:
    """Established: nothing sent yet."""
    tx = SendSpace(1 << 20, iss=iss, snd_una=0, snd_nxt=0, snd_end=1 << 20, snd_wnd=1 << 20, max_wnd=1 << 20)
    tx.mss, tx.most = SIZE, 10 * SIZE
    return tx


def news(now: int = 0) -> News:
    """Of an ACK that comes at `now`."""
    return News(-1, -1, 0, now)


def recount(tx: SendSpace) -> None:
    """Every sum equals what the queue says; the entries cover what is outstanding, without a gap."""
    rows = tx.queue
    edges = [tx.snd_una, *(row.end for row in rows)]
    assert [row.start for row in rows] == edges[:-1] and edges[-1] == tx.snd_nxt
    assert all(row.start < row.end and not (row.lost and row.sacked) for row in rows)
    assert tx.lost_bytes == sum(row.end - row.start for row in rows if row.lost)
    assert tx.sacked_bytes == sum(row.end - row.start for row in rows if row.sacked)
    assert tx.sacked_packets == sum(row.packets for row in rows if row.sacked)
    again = [row for row in rows if row.times > 1 and not row.lost and not row.sacked]
    assert tx.retrans_out == sum(row.end - row.start for row in again)
    assert not any(row.lost for row in rows[: tx.first_lost])
    assert not any(one.sacked and two.sacked for one, two in pairwise(rows))
    assert tx.in_flight() == sum(row.end - row.start for row in rows if not row.lost and not row.sacked)


class Model:
    """One letter a packet: F in flight, S named by SACK, L lost, A acknowledged."""

    def __init__(self) -> None:
        self.packets: list[str] = []
        self.sent_at: list[int] = []
        self.times: list[int] = []

    def send(self, count: int, now: int) -> None:
        self.packets += "F" * count
        self.sent_at += [now] * count
        self.times += [1] * count

    def count(self, letter: str) -> int:
        return self.packets.count(letter) * SIZE


STEP = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 10)),
    st.tuples(st.just("sack"), st.integers(0, 400), st.integers(1, 150)),
    st.tuples(st.just("ack"), st.integers(1, 12)),
    st.tuples(st.just("lose"), st.integers(0, 40)),
    st.tuples(st.just("timeout")),
    st.tuples(st.just("resend"), st.integers(1, 12)),
    st.tuples(st.just("undo")),
    st.tuples(st.just("detect"), st.integers(0, 5)),
)


@pytest.mark.rfc("RFC 6675 3-1", "RFC 6675 4-2", "RFC 2018 5-1", "RFC 2018 8-1")
@settings(max_examples=400, deadline=None)
@given(steps=st.lists(STEP, max_size=40), iss=st.sampled_from([7, 2**32 - 50]))
def test_against_the_model(steps: list[tuple[Any, ...]], iss: int) -> None:
    """Any order of sending, naming, acknowledging, losing, repeating: the same packets in the same state."""
    tx, rack, model, now = space(iss), Rack(), Model(), 0
    for step in steps:
        now += 10
        una = tx.snd_una // SIZE
        if step[0] == "send":
            tx.record(tx.snd_nxt + step[1] * SIZE, now, SIZE)
            model.send(step[1], now)
        elif step[0] == "sack":
            left = tx.snd_una + 1 + step[1] % max(tx.snd_nxt - tx.snd_una, 1)
            right = min(left + step[2], tx.snd_nxt)
            told = news(now)
            if right > left:
                blocks = ((tx.seq(left), tx.seq(right)),)
                for one, two in scoreboard.judge_blocks(tx, blocks, tx.snd_una, told):
                    scoreboard.mark_sacked(tx, rack, one, two, told)
                fresh = 0
                for index in range(una, len(model.packets)):
                    if left <= index * SIZE and (index + 1) * SIZE <= right and model.packets[index] in "FL":
                        model.packets[index] = "S"
                        fresh += SIZE
                assert told.sacked == fresh
        elif step[0] == "ack":
            upto = min(una + step[1], len(model.packets))
            if upto > una:
                told = news(now)
                scoreboard.acknowledge(tx, rack, upto * SIZE, told)
                assert told.acked == sum(SIZE for index in range(una, upto) if model.packets[index] != "S")
                model.packets[una:upto] = "A" * (upto - una)
        elif step[0] == "lose":
            if tx.queue:
                index = step[1] % len(tx.queue)
                row = tx.queue[index]
                if not row.lost and not row.sacked:
                    tx.mark_lost(index)
                    for number in range(row.start // SIZE, row.end // SIZE):
                        model.packets[number] = "L"
        elif step[0] == "timeout":
            tx.lose_all()
            model.packets = ["L" if letter == "F" else letter for letter in model.packets]
        elif step[0] == "resend":
            index = tx.next_lost()
            assert (index >= 0) == ("L" in model.packets)
            if index >= 0:
                row = tx.queue[index]
                first = row.start // SIZE
                assert model.packets.index("L") == first
                if row.end - row.start > step[1] * SIZE:
                    tx.split(index, row.start + step[1] * SIZE)
                tx.resend(index, now, SIZE)
                for number in range(first, row.end // SIZE):
                    model.packets[number] = "F"
                    model.sent_at[number] = now
                    model.times[number] += 1
        elif step[0] == "undo":
            tx.lose_none()
            model.packets = ["F" if letter == "L" else letter for letter in model.packets]
        elif rack.sent_at >= 0:
            lost, _, _ = scoreboard.detect(tx, rack, step[1], now)
            fresh = 0
            for row in range(una, len(model.packets)):
                before = model.sent_at[row] < rack.sent_at or (
                    model.sent_at[row] == rack.sent_at and (row + 1) * SIZE < rack.end
                )
                if model.packets[row] == "F" and before and model.sent_at[row] + rack.rtt + step[1] <= now:
                    whole = next(entry for entry in tx.queue if entry.start <= row * SIZE < entry.end)
                    if whole.lost:  # an entry is judged by its end: none of it may be later than what arrived
                        model.packets[row] = "L"
                        fresh += SIZE
            assert lost == fresh
        recount(tx)
        assert tx.lost_bytes == model.count("L") and tx.sacked_bytes == model.count("S")
        assert tx.in_flight() == model.count("F")
        assert tx.sacked_packets == model.packets.count("S")


@settings(max_examples=200, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(-50, 450), st.integers(-50, 450)), min_size=1, max_size=4),
    acks=st.lists(st.integers(0, 400), max_size=4),
    iss=st.sampled_from([7, 2**32 - 50]),
)
def test_any_blocks(blocks: list[tuple[int, int]], acks: list[int], iss: int) -> None:
    """Whatever a peer says, the sums hold, and there are no more entries than packets."""
    tx, rack = space(iss), Rack()
    for _ in range(4):
        tx.record(tx.snd_nxt + 10 * SIZE, 1, SIZE)
    for ack in [0, *sorted(acks)]:
        told = news(9)
        wire = tuple((tx.seq(left), tx.seq(right)) for left, right in blocks)
        good = scoreboard.judge_blocks(tx, wire, max(ack, tx.snd_una), told)
        if ack > tx.snd_una:
            scoreboard.acknowledge(tx, rack, ack, told)
        for left, right in good:
            assert tx.snd_una < left < right <= tx.snd_nxt
            scoreboard.mark_sacked(tx, rack, left, right, told)
        recount(tx)
        assert len(tx.queue) <= 40 + 1


@pytest.mark.rfc("RFC 2883 4.1", "RFC 2883 5-1")
@pytest.mark.parametrize("iss", [7, 2**32 - 50])
def test_dsack_blocks(iss: int) -> None:
    """Below the ACK, or within the second block; one that is neither is a SACK block."""
    tx = space(iss)
    tx.record(400, 1, SIZE)
    tx.snd_una = 100
    tx.queue[0].start = 100

    def judged(ack: int, *blocks: tuple[int, int]) -> tuple[Any, list[tuple[int, int]], int]:
        told = news()
        good = scoreboard.judge_blocks(tx, tuple((tx.seq(a), tx.seq(b)) for a, b in blocks), ack, told)
        return told.dsack, good, len(told.invalid)

    assert judged(100, (50, 60)) == ((50, 60), [], 0)
    assert judged(100, (50, 60), (200, 300)) == ((50, 60), [(200, 300)], 0)
    assert judged(100, (210, 220), (200, 300)) == ((210, 220), [(200, 300)], 0)
    assert judged(100, (300, 310), (200, 250)) == (None, [(200, 250), (300, 310)], 0)
    assert judged(100, (200, 250), (50, 60)) == (None, [(200, 250)], 0)  # old, of an ACK that was overtaken
    assert judged(100, (60, 50)) == (None, [], 1)
    assert judged(100, (90, 110)) == (None, [], 1)
    assert judged(100, (350, 410)) == (None, [], 1)


def test_reordering_is_seen_in_the_order_of_offsets() -> None:
    """One ACK that names two ranges, as others were lost on the way, tells of none; a hole filled late does."""
    tx, rack = space(), Rack()
    for number in range(10):
        tx.record(tx.snd_nxt + SIZE, number, SIZE)
    told = news(100)
    for left, right in ((20, 40), (60, 80)):
        scoreboard.mark_sacked(tx, rack, left, right, told)
    assert told.low == -1 and rack.fack == 80
    told = news(100)
    scoreboard.mark_sacked(tx, rack, 40, 50, told)
    assert told.low == 40


@pytest.mark.parametrize("packets", [200, 2000])
def test_the_common_ack_touches_few_entries(packets: int) -> None:
    """A hole at the head, and the rest named packet by packet: two or three entries are left of what was named, and
    RACK looks at no more than at those up to the newest that arrived."""
    tx, rack = space(), Rack()
    for number in range(packets):
        tx.record(tx.snd_nxt + SIZE, number, SIZE)
    for number in range(1, packets):
        scoreboard.mark_sacked(tx, rack, number * SIZE, (number + 1) * SIZE, news(packets + number))
        left = packets - number - 1
        assert len(tx.queue) == 2 + left
        looked = bisect_left([row.sent_at for row in tx.queue], number)
        assert looked <= 2
