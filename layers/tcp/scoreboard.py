"""The scoreboard: what of the send space has arrived out of order, what is lost (RFC 2018 4 and 8, RFC 6675, RFC 8985).

SACK names packets, the queue holds super-segments: entries are split at the packet boundaries with which they were
sent, never within a packet, so no peer can make more entries than there are packets. Neighbours that both were named
become one entry again; a hole of many packets is one entry. So the common ACK looks at a few entries, found by
bisection.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import attrgetter

from layers.tcp.recovery.rack import Rack
from layers.tcp.send_space import SendSpace, Sent

MS = 1_000_000

_start = attrgetter("start")


@dataclass(slots=True)
class News:
    """What one ACK has told. Given: `recover`, `echoed` (ms of the echoed timestamp; -1: none), `min_rtt`, `now`."""

    recover: int
    echoed: int
    min_rtt: int
    now: int
    acked: int = 0  # bytes acknowledged that no SACK had named
    sacked: int = 0  # bytes named by SACK for the first time
    newest_at: int = -1  # of all these, when the last was sent, and its end
    newest_end: int = -1
    first_at: int = -1  # when the first acknowledged one was sent that was sent once (Karn)
    sacked_at: int = -1  # likewise of those named
    original: bool = False  # something sent once, before `recover`, has arrived
    again: bool = False  # something sent again was acknowledged
    low: int = -1  # lowest offset that was overtaken
    dsack: tuple[int, int] | None = None
    invalid: list[tuple[int, int]] = field(default_factory=list)


def _arrived(row: Sent, rack: Rack, news: News) -> None:
    """One entry has arrived: RFC 8985 6.2 steps 2 and 3."""
    if row.times == 1:
        if row.end <= news.recover:
            news.original = True
        if row.end < rack.fack and news.low < 0:
            news.low = row.start
    else:
        news.again = True
        # whether it was this transmission or an earlier one: RFC 8985 6.2 step 2
        if news.now - row.sent_at < news.min_rtt or 0 <= news.echoed < row.sent_at // MS:
            return
    if row.sent_at > news.newest_at or (row.sent_at == news.newest_at and row.end > news.newest_end):
        news.newest_at = row.sent_at
        news.newest_end = row.end


def acknowledge(tx: SendSpace, rack: Rack, una: int, news: News) -> None:
    """SND.UNA moves to `una`."""
    queue = tx.queue
    tx.snd_una = una
    done = 0
    for row in queue:
        if row.start >= una:
            break
        if row.end > una:
            tx.split(done, una)
        size = row.end - row.start
        if row.sacked:
            tx.sacked_bytes -= size
            tx.sacked_packets -= row.packets
        else:
            if row.lost:
                tx.lost_bytes -= size
            elif row.times > 1:
                tx.retrans_out -= size
            if row.times == 1 and news.first_at < 0:
                news.first_at = row.sent_at
            news.acked += size
            tx.delivered += row.packets
            tx.rate.arrived(row.mark, row.sent_at, row.end)
            _arrived(row, rack, news)
        done += 1
    del queue[:done]
    tx.first_lost = tx.first_lost - done if tx.first_lost > done else 0
    rack.fack = max(rack.fack, una)


def judge_blocks(tx: SendSpace, blocks: tuple[tuple[int, int], ...], ack: int, news: News) -> list[tuple[int, int]]:
    """The blocks, as offsets in ascending order, that name what is outstanding beyond `ack`.

    The first may be a D-SACK: below `ack` (RFC 2883 4.1.1), or within the second (4.1.3). Others that lie below are of
    ACKs that were overtaken, and say nothing. What was never sent, or is no range, is the peer's mistake.
    """
    ranges = [(tx.offset_of(left), tx.offset_of(right)) for left, right in blocks]
    first = ranges[0]
    if first[0] < first[1]:
        if first[0] < ack and first[1] <= ack:
            if first[0] >= ack - tx.max_wnd - tx.mss:  # else too old to be ours: Linux tcp_is_sackblock_valid
                news.dsack = first
        elif len(ranges) > 1 and ranges[1][0] <= first[0] and first[1] <= ranges[1][1]:
            news.dsack = first
    good = []
    for block in ranges:
        left, right = block
        if block is first and news.dsack is not None:
            continue
        if left >= right or right > tx.snd_nxt or left <= ack < right:
            news.invalid.append(block)
        elif left > ack:
            good.append(block)
    good.sort()
    return good


def mark_sacked(tx: SendSpace, rack: Rack, left: int, right: int, news: News) -> None:
    """The packets that lie whole in [left, right) have arrived."""
    queue = tx.queue
    index = max(bisect_right(queue, left, key=_start) - 1, 0)
    while index < len(queue):
        row = queue[index]
        if row.start >= right:
            break
        if row.sacked or row.end <= left:
            index += 1
            continue
        low, high, size = row.start, row.end, row.size
        if low < left:
            low += -(-(left - low) // size) * size
        if high > right and not right == tx.fin_at == high - 1:  # who has the text of the last packet has its FIN
            high = row.start + (right - row.start) // size * size
        if high <= low:
            index += 1
            continue
        if low > row.start:
            tx.split(index, low)
            index += 1
            row = queue[index]
        if high < row.end:
            tx.split(index, high)
        index = _sack(tx, index, rack, news) + 1
    rack.fack = max(rack.fack, right)


def _sack(tx: SendSpace, index: int, rack: Rack, news: News) -> int:
    """The entry at `index` has arrived whole. Returns the index of the entry that it is part of then."""
    queue = tx.queue
    row = queue[index]
    size = row.end - row.start
    if row.lost:
        row.lost = False
        tx.lost_bytes -= size
    elif row.times > 1:
        tx.retrans_out -= size
    row.sacked = True
    tx.sacked_bytes += size
    tx.sacked_packets += row.packets
    tx.delivered += row.packets
    tx.rate.arrived(row.mark, row.sent_at, row.end)
    row.mark = None
    news.sacked += size
    if row.times == 1 and news.sacked_at < 0:
        news.sacked_at = row.sent_at
    _arrived(row, rack, news)
    rack.fack = max(rack.fack, row.end)
    if index + 1 < len(queue) and queue[index + 1].sacked:
        _join(row, queue[index + 1])
        del queue[index + 1]
    if index and queue[index - 1].sacked:
        index -= 1
        _join(queue[index], row)
        del queue[index + 1]
    tx.first_lost = min(tx.first_lost, index)
    return index


def _join(row: Sent, following: Sent) -> None:
    row.end = following.end
    row.packets += following.packets
    row.times = max(row.times, following.times)
    row.sent_at = max(row.sent_at, following.sent_at)
    row.size = max(row.size, following.size)


def detect(tx: SendSpace, rack: Rack, reo_wnd: int, now: int) -> tuple[int, int, bool]:
    """RACK_detect_loss, RFC 8985 6.2 step 5: marks what is lost.

    Returns the bytes that are newly so, how long until the last of those in doubt would be (0: none is), and whether a
    retransmission is among the lost. The queue is in the order in which entries were sent first: one sent once, and
    later than what has arrived, ends the search, as all behind it are later too; and so does the last one in flight.
    """
    lost = wait = 0
    flying = tx.in_flight()
    again = False
    newest, end = rack.sent_at, rack.end
    allowed = rack.rtt + reo_wnd - now
    for index, row in enumerate(tx.queue):
        if flying <= 0:
            break
        if row.sacked or row.lost:
            continue
        size = row.end - row.start
        flying -= size
        if row.sent_at > newest or (row.sent_at == newest and row.end >= end):
            if row.times == 1:
                break
            continue
        remaining = row.sent_at + allowed
        if remaining <= 0:
            lost += size
            again |= row.times > 1
            tx.mark_lost(index)
        elif remaining > wait:
            wait = remaining
    return lost, wait, again


def lose_on_timeout(tx: SendSpace, rack: Rack, reo_wnd: int, now: int, *, sack: bool) -> bool:
    """The retransmission timer fired. With SACK the head is lost, and all that was sent long enough ago (RFC 8985 6.3);
    without, everything (RFC 5681 3.1).

    True if the peer reneged: it had named the head and has not acknowledged it. Then nothing that it named counts any
    more (RFC 2018 8; Linux tcp_timeout_mark_lost).
    """
    if not sack or not tx.queue:
        tx.lose_all()
        return False
    reneged = tx.queue[0].sacked
    if reneged:
        for row in tx.queue:
            row.sacked = False
        tx.rate.sent += tx.sacked_packets  # they arrive once more
        tx.rate.reneged = True
        tx.sacked_bytes = tx.sacked_packets = 0
        tx.count_again()
    for index, row in enumerate(tx.queue):
        if row.lost or row.sacked:
            continue
        if reneged or not index or row.sent_at + rack.rtt + reo_wnd - now <= 0:
            tx.mark_lost(index)
    return reneged
