"""The receive sequence space: which bytes have come, which window we offer, which SACK blocks describe the holes.

    irs+1                                                    rcv_acc: right edge as announced (rounded up)
      |                                                      |
      0 ....... consumed ....... rcv_nxt .....[####]..[##]...+
      | taken   | in the ring,   | holes and ranges          |
      |         | in order       |                           |
                <---------------- buffer ----------------->  rcv_adv: right edge that was granted

All positions are stream offsets: 0 is the first byte after the SYN, 64 bits, so that plain `<` is right; the 32-bit
numbers of the wire are unwrapped at the border (`offset_of`). The ring holds byte i at i modulo its size, so nothing
may be accepted beyond `consumed` + ring size; `capacity` keeps the rounding of the window field inside it.

The buffer tunes itself to the path, as Linux's (tcp_rcv_space_adjust, "dynamic right sizing"): it is to hold twice what
the application takes in a round-trip time, so that the peer's window may double in each. `tune` measures in turns: one
turn is over when all that can be granted at its beginning has been taken. The fastest turn so far is the estimate of
the RTT, as Linux's without timestamps (tcp_rcv_rtt_measure: the least of the times in which a window's worth came),
within a few of the SRTT that the send side knows.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from operator import attrgetter

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF
MAX_RANGES = 512  # out-of-order ranges kept: bounds the memory that one-byte segments can take
MAX_WSCALE = 14  # RFC 7323 2.3
MIN_MSS = 88  # bytes: smallest MSS of which we estimate the peer's segments (Linux TCP_MIN_MSS)

TUNE_SEGMENTS = 16  # Linux tcp_rcv_space_adjust: so many segments more, for what is not yet known of losses
TUNE_RTTS = 4  # a turn that took longer than so many SRTTs, and than
TUNE_LEAST = 10_000_000  # ns (what our own processes add), says nothing about the path: the application was slow

_start = attrgetter("start")


@dataclass(slots=True)
class Range:
    """Out-of-order bytes [start, end) that have come; `stamp` rises with the last segment that touched it."""

    start: int
    end: int
    stamp: int


def whole_segments(space: int, unit: int) -> int:
    """`space` rounded down to segments (Linux tcp_select_initial_window): 64,240 of 1460 bytes, 65,160 of 1448."""
    return space - space % unit if space > unit else space


def scale_for(buffer: int) -> int:
    """The smallest window shift with which `buffer` can be announced (RFC 7323 2.3)."""
    shift = 0
    while shift < MAX_WSCALE and buffer >> shift > 0xFFFF:
        shift += 1
    return shift


@dataclass(slots=True)
class ReceiveSpace:
    """Offsets and sizes in bytes. `shift` is our window scale once both sides have offered one."""

    ring: int
    buffer: int
    shift: int = 0
    irs: int = 0
    rcv_nxt: int = -1  # -1: no SYN yet
    rcv_adv: int = 0
    rcv_acc: int = 0
    consumed: int = 0
    last_ack_sent: int = -1
    ranges: list[Range] = field(default_factory=list)
    stamp: int = 0
    fin_at: int = -1  # offset of the peer's FIN once one has come, in order or not
    mss: int = 536  # of the peer's segments, as seen (for delayed ACKs)
    out_of_order: int = 0  # segments that came out of order
    # tuning
    most: int = 0  # the buffer may grow up to this
    turn_from: int = -1  # offset and instant of the beginning of a turn, and where it ends
    turn_at: int = 0
    turn_end: int = 0
    rtt: int = 0  # ns: the fastest turn
    space: int = 0  # most that was taken in an RTT so far

    def start(self, seq: int) -> None:
        """The peer's SYN came with `seq`."""
        self.irs = seq
        self.rcv_nxt = 0

    def seq(self, offset: int) -> int:
        """The sequence number of an offset."""
        return (self.irs + 1 + offset) & MASK

    def offset_of(self, seq: int) -> int:
        """The offset nearest to RCV.NXT that has this sequence number."""
        ahead = (seq - self.irs - 1 - self.rcv_nxt) & MASK
        return self.rcv_nxt + (ahead if ahead < HALF else ahead - MASK - 1)

    def window(self) -> int:
        """RCV.WND: bytes from RCV.NXT that are acceptable."""
        size = self.rcv_acc - self.rcv_nxt
        return size if size > 0 else 0

    def capacity(self) -> int:
        """Bytes that the buffer may hold, rounding of the window field included."""
        room = self.ring - (1 << self.shift) + 1
        return self.buffer if self.buffer < room else room

    def window_field(self) -> int:
        """The window field of a segment sent now; moves the right edge (it never moves back).

        RFC 9293 3.8.6.2.2: the edge moves only by at least a segment or half of the buffer.
        """
        capacity = self.ring - (1 << self.shift) + 1
        capacity = min(capacity, self.buffer)
        edge = self.consumed + capacity
        grown = edge - self.rcv_adv
        if grown >= self.mss or grown >= capacity >> 1:
            self.rcv_adv = edge
        shift = self.shift
        value = (self.rcv_adv - self.rcv_nxt + (1 << shift) - 1) >> shift
        if value > 0xFFFF:
            value = 0xFFFF
        elif value < 0:
            value = 0
        edge = self.rcv_nxt + (value << shift)
        self.rcv_acc = max(self.rcv_acc, edge)
        return value

    def syn_window_field(self, unit: int) -> int:
        """The window field of a SYN, which is never scaled (RFC 7323 2.2): whole segments of `unit` bytes, as Linux."""
        value = whole_segments(min(self.capacity(), 0xFFFF), unit)
        self.rcv_adv = max(self.rcv_adv, value)
        self.rcv_acc = max(self.rcv_acc, self.rcv_adv)
        return value

    def update_due(self) -> bool:
        """Whether the application has taken enough that the peer should be told (Linux tcp_cleanup_rbuf).

        That is when the window would at least double, by a step that SWS avoidance allows. What the window field cannot
        say (65,535 without scaling, RFC 7323 2.3) is no growth.
        """
        capacity = self.capacity()
        edge = min(self.consumed + capacity, self.rcv_nxt + (0xFFFF << self.shift))
        grown = edge - self.rcv_adv
        if grown < self.mss and grown < capacity >> 1:
            return False
        return edge - self.rcv_nxt >= 2 * (self.rcv_adv - self.rcv_nxt)

    def tune(self, now: int, srtt: int) -> bool:
        """The application has taken bytes: does the buffer grow? It never shrinks. `srtt` in ns, 0: not known."""
        consumed = self.consumed
        if self.turn_from < 0:
            self._turn(now)
            return False
        if consumed < self.turn_end:
            return False
        took = max(now - self.turn_at, 1)
        if took < self.rtt or not self.rtt:
            self.rtt = took
        rtt = min(self.rtt, max(TUNE_RTTS * srtt, TUNE_LEAST))
        copied = (consumed - self.turn_from) * rtt // took
        space = self.space or self.buffer >> 1
        grew = False
        if copied > space:
            self.space = copied
            wanted = 2 * copied + TUNE_SEGMENTS * self.mss
            wanted += 2 * (wanted * (copied - space) // space)  # the sender may be in slow start: leave it room
            if wanted > self.buffer:
                self.buffer = min(wanted, self.most)
                grew = True
        self._turn(now)
        return grew

    def _turn(self, now: int) -> None:
        """A turn begins."""
        self.turn_from = self.consumed
        self.turn_at = now
        self.turn_end = self.consumed + self.buffer  # not announced yet: it takes an RTT at least to come

    def insert(self, start: int, end: int) -> int:
        """Bytes [start, end), beyond RCV.NXT, have come. Returns how many were new; -1 if they cannot be kept.

        Ranges that touch become one.
        """
        ranges = self.ranges
        first = bisect_right(ranges, start, key=_start)
        if first and ranges[first - 1].end >= start:
            first -= 1
        last = first
        covered = 0
        low, high = start, end
        while last < len(ranges) and ranges[last].start <= end:
            row = ranges[last]
            covered += min(row.end, end) - max(row.start, start)
            low = min(low, row.start)
            high = max(high, row.end)
            last += 1
        if first == last and len(ranges) >= MAX_RANGES:
            return -1
        self.stamp += 1
        ranges[first:last] = [Range(low, high, self.stamp)]
        return end - start - covered

    def repeated(self, start: int, end: int) -> tuple[int, int] | None:
        """The first of the bytes [start, end) that had come before, as far as they go on (RFC 2883 4); asked before
        `insert` or `advance`."""
        if start < self.rcv_nxt:
            return start, min(end, self.rcv_nxt)
        ranges = self.ranges
        first = bisect_right(ranges, start, key=_start)
        if first and ranges[first - 1].end > start:
            return start, min(end, ranges[first - 1].end)
        if first < len(ranges) and ranges[first].start < end:
            return ranges[first].start, min(end, ranges[first].end)
        return None

    def advance(self, end: int) -> None:
        """Bytes up to `end` have come in order: move RCV.NXT over them and over ranges that now join."""
        ranges = self.ranges
        joined = 0
        while joined < len(ranges) and ranges[joined].start <= end:
            end = max(end, ranges[joined].end)
            joined += 1
        if joined:
            del ranges[:joined]
        self.rcv_nxt = max(self.rcv_nxt, end)

    def sack_blocks(self, most: int) -> list[tuple[int, int]]:
        """Sequence numbers of the ranges, the one that changed last first (RFC 2018 4)."""
        recent = sorted(self.ranges, key=lambda row: -row.stamp)[:most]
        base = self.irs + 1
        return [((base + row.start) & MASK, (base + row.end) & MASK) for row in recent]
