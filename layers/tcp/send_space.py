"""The send sequence space: what was written, sent, acknowledged, lost; and how much may go out now.

       snd_una                 snd_nxt               snd_una + snd_wnd
         |                       |                     |
    -----+======[lost]===========+---------------------+----------
     acked|  queue: sent, in the order of offsets      |
                                 |      snd_end: end of what the application wrote; fin_at: where its FIN stands

All positions are stream offsets: -1 is our SYN, 0 the first byte after it, `fin_at` the FIN; 64 bits, so that plain
`<` is right. The queue holds one entry a segment as it was sent (a super-segment is one), split where only a piece of
it arrived or is lost; what SACK says of it is `scoreboard`'s. In flight: what was sent, has not arrived, is not lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from layers.tcp.rate import Mark, Rate

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF


@dataclass(slots=True)
class Sent:
    """Offsets [start, end), sent `times` times, last at `sent_at` (ns) in packets of `size` bytes.

    `lost`: to be sent again, not in flight. `sacked`: the peer has it, out of order. Never both. `mark`: see `rate`;
    None once it was used.
    """

    start: int
    end: int
    sent_at: int
    size: int
    packets: int = 1
    times: int = 1
    lost: bool = False
    sacked: bool = False
    mark: Mark | None = None


@dataclass(slots=True)
class SendSpace:
    """Sizes in bytes. `mss` is what fits into one packet beside the usual options, `most` into one segment."""

    buffer: int
    buffer_most: int = 0  # it may grow up to this
    iss: int = 0
    snd_una: int = -1
    snd_nxt: int = -1
    snd_end: int = 0
    fin_at: int = -1
    snd_wnd: int = 0
    snd_wl1: int = -1  # offset in the peer's stream of the segment that set snd_wnd
    snd_wl2: int = -1  # its acknowledgment
    max_wnd: int = 0
    shift: int = 0
    mss: int = 536
    most: int = 536
    queue: list[Sent] = field(default_factory=list)
    lost_bytes: int = 0
    sacked_bytes: int = 0
    sacked_packets: int = 0
    retrans_out: int = 0  # bytes sent again that are in flight
    first_lost: int = 0  # no entry before this index is lost
    small_end: int = -1  # end of the last segment below MSS (Minshall's variant of Nagle)
    limit: int = 0  # the application was told that it may write up to here
    promised: int = 0  # it was told so before it set the next, and may have done it
    lowat: int = 0  # TCP_NOTSENT_LOWAT: so much may wait to be sent; 0: as much as the buffer holds
    told: int = 0  # and that all up to here was taken
    records: list[int] = field(default_factory=list)  # ends that MSG_EOR marked, of what was not sent yet
    eof: int = -1  # the application said that its stream ends here
    retransmitted: int = 0  # bytes
    retransmits: int = 0  # segments sent again
    sent_bytes: int = 0  # all payload sent, repeats included
    delivered: int = 0  # packets that have arrived, in order or not
    newest_at: int = -1  # when the last entry that `acknowledge` removed was sent; its end; how often
    newest_end: int = -1
    newest_times: int = 1
    last_at: int = -1  # no entry was sent later, and of those sent then none ends later than this:
    last_end: int = -1
    rate: Rate = field(default_factory=Rate)

    def seq(self, offset: int) -> int:
        """The sequence number of an offset."""
        return (self.iss + 1 + offset) & MASK

    def offset_of(self, seq: int) -> int:
        """The offset nearest to SND.UNA that has this sequence number."""
        ahead = (seq - self.iss - 1 - self.snd_una) & MASK
        return self.snd_una + (ahead if ahead < HALF else ahead - MASK - 1)

    def acceptable(self) -> int:
        """The offset for a segment without text that the peer takes: SND.NXT, or, where it shrank its window to below
        that, the last one inside (RFC 9293 3.10.7.4, first step; Linux tcp_acceptable_seq)."""
        edge = self.snd_una + self.snd_wnd
        if self.snd_nxt <= edge:
            return self.snd_nxt
        return edge - 1 if self.snd_wnd else edge

    def in_flight(self) -> int:
        """Sent, and neither arrived nor lost: RFC 6675 4 SetPipe, RFC 9937's inflight."""
        return self.snd_nxt - self.snd_una - self.lost_bytes - self.sacked_bytes

    def grant(self) -> int:
        """Up to which offset the application may write."""
        limit = self.room()
        return limit if limit > self.limit else self.limit

    def room(self) -> int:
        """Up to which offset there is room now: for all that is not acknowledged, and for what is not sent."""
        limit = (self.snd_una if self.snd_una > 0 else 0) + self.buffer
        return limit if not self.lowat else min(limit, max(self.snd_nxt, 0) + self.lowat)

    def tune(self, cwnd: int) -> None:
        """Let the buffer grow with cwnd: twice as much, so that there is something to send when a whole window is
        acknowledged at once (Linux tcp_sndbuf_expand)."""
        if self.buffer < self.buffer_most and 2 * cwnd > self.buffer:
            self.buffer = min(2 * cwnd, self.buffer_most)

    def record(self, end: int, now: int, size: int) -> None:
        """New offsets up to `end` are sent in packets of `size` bytes; a FIN takes no room."""
        length = end - self.snd_nxt
        packets = 1 if length <= size else -(-(length - (end > self.fin_at >= 0)) // size)
        at = self._instant(end, now)
        rate = self.rate
        rate.sent += packets
        if not self.queue and self.snd_nxt >= 0:  # a SYN is no sample
            rate.begin(at, self.delivered)
        self.queue.append(Sent(self.snd_nxt, end, at, size, packets, 1, False, False, rate.mark))
        self.snd_nxt = end

    def write_due(self, cwnd: int) -> None:
        """The application is about to write: was it the limit, with less than a packet waiting and cwnd not full? Then
        it is until all that is under way has arrived (Linux tcp_rate_check_app_limited, which sees also what the device
        has not sent yet; we do not)."""
        flight = self.snd_nxt - self.snd_una - self.sacked_bytes
        if self.snd_end - self.snd_nxt < self.mss and flight < cwnd and not self.lost_bytes:
            rate = self.rate
            rate.limited = rate.sent
            mark = rate.mark
            if mark is not None and not mark[3]:
                rate.mark = (mark[0], mark[1], mark[2], True)

    def _instant(self, end: int, now: int) -> int:
        """When the segment up to `end` goes out.

        What one round of the loop sends has one `now`, and RFC 8985 6.2 tells segments of one instant apart by their
        ends, as if all went in the order of the stream. What goes again behind something new is a ns later: else the
        arrival of the new would prove that the repeat is lost.
        """
        at = max(now, self.last_at)
        if at == self.last_at and end <= self.last_end:
            at += 1
        self.last_at = at
        self.last_end = end
        return at

    def acknowledge(self, una: int, now: int) -> int:
        """SND.UNA moves to `una`, while nothing is named by SACK (else it is `scoreboard`'s to do).

        Returns an RTT in ns, of the oldest packet acknowledged whole, a super-segment's first ones included (Linux
        tcp_clean_rtx_queue); -1 where something sent more than once is acknowledged, or nothing whole (Karn's rule,
        RFC 6298 3).
        """
        queue = self.queue
        self.snd_una = una
        rtt = -1
        done = 0
        again = False
        part = None  # of which only the first packets are acknowledged
        for row in queue:
            if row.end > una:
                if row.start < una:
                    if row.lost:
                        self.lost_bytes -= una - row.start
                    elif row.times > 1:
                        self.retrans_out -= una - row.start
                    row.start = una
                    packets = -(-(row.end - una) // row.size)
                    if packets < row.packets:
                        self.delivered += row.packets - packets
                        row.packets = packets
                        part = row
                        again |= row.times > 1
                        if rtt < 0 and row.times == 1:
                            rtt = now - row.sent_at
                break
            if row.times > 1:
                again = True
                if not row.lost:
                    self.retrans_out -= row.end - row.start
            elif rtt < 0 and row.times:
                rtt = now - row.sent_at
            if row.lost:
                self.lost_bytes -= row.end - row.start
            self.delivered += row.packets
            done += 1
        if again:
            for row in queue[:done]:
                self.rate.arrived(row.mark, row.sent_at, row.end)
        if part is not None:
            self.rate.arrived(part.mark, part.sent_at, part.end)
        if done:
            last = queue[done - 1]
            if part is None and not again:  # then it was sent last
                rate = self.rate
                rate.newest = last.mark
                rate.newest_at = last.sent_at
            self.newest_at = last.sent_at
            self.newest_end = last.end
            self.newest_times = last.times
            del queue[:done]
            self.first_lost = self.first_lost - done if self.first_lost > done else 0
        return -1 if again else rtt

    def lose_all(self) -> None:
        """Nothing is in flight any more, and what has not arrived is to be sent again (RFC 5681 3.1)."""
        for row in self.queue:
            row.lost = not row.sacked
        self.lost_bytes = self.snd_nxt - self.snd_una - self.sacked_bytes
        self.retrans_out = 0
        self.first_lost = 0

    def lose_none(self) -> None:
        """What was held to be lost is in flight after all."""
        for row in self.queue:
            row.lost = False
        self.count_again()

    def count_again(self) -> None:
        """`lost_bytes` and `retrans_out` anew, from the queue."""
        self.lost_bytes = sum(row.end - row.start for row in self.queue if row.lost)
        waiting = (row for row in self.queue if row.times > 1 and not row.lost and not row.sacked)
        self.retrans_out = sum(row.end - row.start for row in waiting)
        self.first_lost = 0

    def mark_lost(self, index: int) -> None:
        """The entry at `index`, in flight until now, is lost."""
        row = self.queue[index]
        size = row.end - row.start
        row.lost = True
        self.lost_bytes += size
        if row.times > 1:
            self.retrans_out -= size
        self.first_lost = min(self.first_lost, index)

    def lose_head(self, size: int) -> None:
        """The first `size` bytes from SND.UNA on are lost, no more than the first segment."""
        if not self.queue:
            return
        head = self.queue[0]
        if head.lost or head.sacked:
            return
        if head.end - head.start > size:
            self.split(0, head.start + size)
        self.mark_lost(0)

    def split(self, index: int, at: int) -> None:
        """Cut the entry at `index` in two at offset `at`."""
        row = self.queue[index]
        before = -(-(at - row.start) // row.size)
        after = max(row.packets - before, -(-(row.end - at - (row.end > self.fin_at >= 0)) // row.size), 1)
        if row.sacked:
            self.sacked_packets += before + after - row.packets
        else:
            self.rate.sent += before + after - row.packets
        self.queue.insert(
            index + 1, Sent(at, row.end, row.sent_at, row.size, after, row.times, row.lost, row.sacked, row.mark)
        )
        row.end = at
        row.packets = before
        if index < self.first_lost:
            self.first_lost += 1

    def next_lost(self) -> int:
        """Index of the first entry that waits to be sent again; -1 if none does."""
        if not self.lost_bytes:
            return -1
        queue = self.queue
        index = self.first_lost
        while not queue[index].lost:
            index += 1
        self.first_lost = index
        return index

    def resend(self, index: int, now: int, size: int) -> None:
        """The entry at `index`, lost or (as a probe) not, goes out again in packets of `size` bytes."""
        row = self.queue[index]
        length = row.end - row.start
        if row.lost:
            row.lost = False
            self.lost_bytes -= length
            self.retrans_out += length
        elif row.times == 1:
            self.retrans_out += length
        row.sent_at = self._instant(row.end, now)
        row.times += 1
        row.size = size
        packets = -(-(length - (row.end > self.fin_at >= 0)) // size) or 1
        self.rate.sent += packets - row.packets
        row.packets = packets
        row.mark = self.rate.mark
        self.retransmitted += length
        self.retransmits += row.packets

    def unsent(self) -> bool:
        """Whether there is something that was never sent: data or FIN."""
        return self.snd_nxt < self.snd_end or self.snd_nxt == self.fin_at

    def update_window(self, offset: int, ack: int, window: int) -> bool:
        """Take the window of an acceptable segment at `offset` of the peer's stream; RFC 9293 3.10.7.4, fifth step.

        Returns whether SND.WND changed."""
        if self.snd_wl1 < offset or (self.snd_wl1 == offset and self.snd_wl2 <= ack):
            changed = window != self.snd_wnd
            self.snd_wnd = window
            self.snd_wl1 = offset
            self.snd_wl2 = ack
            self.max_wnd = max(self.max_wnd, window)
            return changed
        return False
