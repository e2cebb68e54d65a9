"""The send and the receive space where two things lie close together: packets of a segment, RTTs of what went twice,
ranges that overlap, windows that just suffice."""

from __future__ import annotations

import pytest

from layers.tcp.receive_space import ReceiveSpace
from layers.tcp.send_space import SendSpace

SIZE = 100
MS = 1_000_000


def sent(*lengths: int, una: int = 0) -> SendSpace:
    """Segments of these lengths in flight, in packets of 100 bytes, sent at 0, 1, 2 … ms."""
    tx = SendSpace(65_536)
    tx.snd_una = tx.snd_nxt = una
    for number, length in enumerate(lengths):
        tx.snd_end = tx.snd_nxt + length
        tx.record(tx.snd_end, number * MS, SIZE)
    return tx


def again(tx: SendSpace, index: int, times: int = 1) -> None:
    """That segment is lost and goes again."""
    for _ in range(times):
        tx.mark_lost(index)
        tx.resend(index, 50 * MS, SIZE)


# numbers


def test_the_offset_half_the_space_away_lies_behind() -> None:
    """Of 2^31 ahead and 2^31 behind, as of what we receive."""
    tx = sent(100, una=500)
    for offset in (499, 500, 500 + 2**31 - 1, 500 - 2**31):
        assert tx.offset_of(tx.seq(offset)) == offset
    assert tx.offset_of(tx.seq(500 + 2**31)) == 500 - 2**31


@pytest.mark.parametrize(("una", "until"), [(-1, 65_536), (0, 65_536), (1, 65_537), (2, 65_538)])
def test_the_application_may_write_a_buffer_beyond_what_is_acknowledged(una: int, until: int) -> None:
    """From the first byte on; our SYN takes no room."""
    tx = SendSpace(65_536)
    tx.snd_una = una
    assert tx.grant() == until


@pytest.mark.parametrize(("cwnd", "buffer"), [(400, 1000), (500, 1000), (501, 1002), (1000, 2000), (1001, 2000)])
def test_the_send_buffer_never_shrinks(cwnd: int, buffer: int) -> None:
    """It grows to twice cwnd, and not beyond the most."""
    tx = SendSpace(1000, 2000)
    tx.tune(cwnd)
    assert tx.buffer == buffer


# RTTs: Karn's rule


@pytest.mark.parametrize(("first", "second", "rtt"), [(0, 0, 100), (0, 1, -1), (1, 0, -1), (0, 2, -1), (1, 1, -1)])
def test_no_rtt_where_any_of_it_went_twice(first: int, second: int, rtt: int) -> None:
    """A segment, and the first packet of a super-segment behind it; how often each of them was sent again."""
    tx = sent(100, 200)
    again(tx, 0, first)
    again(tx, 1, second)
    assert tx.acknowledge(200, 100 * MS) == (rtt * MS if rtt > 0 else -1)
    assert tx.delivered == 2 and tx.queue[0].start == 200


def test_what_is_lost_is_looked_for_from_the_first_that_is_left() -> None:
    """After an ACK of less than all."""
    tx = sent(100, 100, 100)
    tx.lose_all()
    tx.acknowledge(100, MS)
    assert tx.next_lost() == 0


def test_what_is_lost_is_found_behind_what_was_told_apart() -> None:
    """The segment before it is in two now."""
    tx = sent(200, 100)
    tx.mark_lost(1)
    assert tx.next_lost() == 1
    tx.split(0, 100)
    assert tx.next_lost() == 2


def test_what_goes_again_in_the_same_instant_goes_later() -> None:
    """By a nanosecond, as segments of one instant are told apart by their ends alone (RFC 8985 6.2)."""
    tx = sent(100)
    first = tx.queue[0].sent_at
    tx.mark_lost(0)
    tx.resend(0, first, SIZE)
    assert tx.queue[0].sent_at == first + 1


# packets of a segment that ends with a FIN, or before it


@pytest.mark.parametrize(
    ("end", "fin_at", "at", "packets"),
    [
        (151, 151, 50, [1, 2]),  # the FIN is not of it yet
        (151, 150, 50, [1, 1]),  # the last byte is the FIN
        (101, 100, 100, [1, 1]),  # a FIN alone is a packet
        (300, -1, 100, [1, 2]),
    ],
)
def test_the_packets_of_both_parts(end: int, fin_at: int, at: int, packets: list[int]) -> None:
    """A FIN takes no room, but a packet if nothing else is in it."""
    tx = SendSpace(65_536)
    tx.snd_una = tx.snd_nxt = 0
    tx.fin_at = fin_at
    tx.record(end, 0, SIZE)
    tx.split(0, at)
    assert [row.packets for row in tx.queue] == packets


def test_packets_do_not_get_fewer_by_being_told_apart() -> None:
    """Three, of the first of which half has arrived: the other half, a whole one, and the rest with the FIN."""
    tx = SendSpace(65_536)
    tx.snd_una = tx.snd_nxt = 0
    tx.fin_at = 250
    tx.record(251, 0, SIZE)
    tx.acknowledge(50, MS)
    tx.split(0, 150)
    assert sum(row.packets for row in tx.queue) == 3


@pytest.mark.parametrize(("length", "fin_at", "packets"), [(101, 101, 2), (101, 100, 1), (101, -1, 2), (100, 100, 1)])
def test_the_packets_that_go_again(length: int, fin_at: int, packets: int) -> None:
    """Likewise."""
    tx = sent(length)
    tx.fin_at = fin_at
    again(tx, 0)
    assert tx.queue[0].packets == tx.retransmits == packets


# what comes


def received(*pieces: tuple[int, int]) -> ReceiveSpace:
    rx = ReceiveSpace(65_536, 65_536)
    rx.start(0)
    for start, end in pieces:
        rx.insert(start, end)
    return rx


@pytest.mark.parametrize(
    ("start", "end", "fresh"),
    [(10, 20, 0), (5, 20, 5), (5, 35, 15), (15, 35, 10), (5, 55, 30), (25, 55, 20), (20, 30, 10), (60, 70, 10)],
)
def test_how_much_of_it_is_new(start: int, end: int, fresh: int) -> None:
    """Beside two ranges of ten bytes, of which it may cover parts of both."""
    assert received((10, 20), (30, 40)).insert(start, end) == fresh


@pytest.mark.parametrize(("taken", "due"), [(999, False), (1000, True), (1001, True)])
def test_a_window_that_opens_by_a_segment_is_told(taken: int, due: bool) -> None:
    """If that doubles it: 400 bytes were left of it (RFC 9293 3.8.6.2.2)."""
    rx = ReceiveSpace(65_536, 32_768)
    rx.start(0)
    rx.mss = 1000
    rx.rcv_adv, rx.rcv_nxt = 32_768, 32_368
    rx.consumed = taken
    assert rx.update_due() is due
