"""One direction of a connection as an onlooker sees it: which bytes were sent, again, acknowledged, SACKed.

     0 = SYN        una                    nxt             edge
    ----|------------|----[sack]---(gap)----|---------------|-----
          acknowledged      outstanding, some of it          the other side's
                            SACKed, some never seen          window ends

All numbers are relative to the SYN and never wrap.
"""

from __future__ import annotations

from collections import deque

from levelip.wire.seq import SEQ_MASK, seq_diff

_MOST_RANGES = 256
"""Gaps, and SACKed ranges, that are remembered; beyond, the oldest or lowest are forgotten."""
_MOST_UNACKED = 4096
"""Segments that wait for their ACK, for the round trip."""
_FAR = 1 << 20
"""Bytes beyond the window from where on a segment is somebody's mistake, and moves nothing."""
_OVERTAKEN_NS = 3_000_000
"""A hole filled within this, or within a round trip of the handshake, was overtaken (as Wireshark judges it)."""


class Side:
    """What one side sent; `una`, `edge` and `sacked` are what the other said of it."""

    __slots__ = (
        "ack", "base", "bytes", "edge", "fin", "gaps", "known", "mss", "nxt", "packets", "repeated", "sack_permitted",
        "sacked", "segments", "shift", "stamps", "syn", "una", "unacked", "win",
    )  # fmt: skip

    def __init__(self) -> None:
        self.base: int | None = None  # the absolute number of relative 0
        self.known = False  # something of it was seen, or acknowledged
        self.nxt = 0
        self.una = 0
        self.edge = -1
        self.syn = False
        self.fin = -1  # relative number of its FIN
        self.mss: int | None = None
        self.shift: int | None = None  # None: not offered, or its SYN was not seen
        self.sack_permitted = False
        self.stamps = False
        self.gaps: list[list[int]] = []  # [left, right, when it opened]
        self.sacked: list[list[int]] = []  # disjoint, ascending
        self.unacked: deque[tuple[int, int, bool]] = deque()  # (end, when, sent again)
        self.ack = -1  # the last acknowledgment it sent, and window, in the other's numbers
        self.win = -1
        self.segments = 0
        self.packets = 0
        self.bytes = 0  # of data, repeated ones too
        self.repeated = 0

    def begin(self, seq: int) -> None:
        """Its SYN was seen."""
        self.base = seq
        self.syn = self.known = True

    def relative(self, seq: int) -> int:
        """An absolute number as ours; the first one seen is the first byte's, if no SYN was seen."""
        if self.base is None:
            self.base = (seq - 1) & SEQ_MASK
            self.nxt = self.una = 1
            self.known = True
            return 1
        reference = max(self.nxt, self.una)
        return reference + seq_diff(seq, (self.base + reference) & SEQ_MASK)

    def absolute(self, number: int) -> int:
        """And back."""
        return ((self.base or 0) + number) & SEQ_MASK

    def far(self, start: int) -> bool:
        """Whether what begins there cannot be meant for the other side's window."""
        return self.edge >= 0 and not -_FAR <= start - self.nxt <= max(self.edge - self.nxt, 0) + _FAR

    def sent(self, start: int, end: int, now: int, rtt: int) -> tuple[int, list[str]]:
        """It sent [start, end): how many of these bytes lie below what it sent before, and what to say of it."""
        nxt = self.nxt
        notes: list[str] = []
        again = min(end, nxt) - start if start < nxt else 0
        if again:
            filled, opened = self._fill(start, min(end, nxt))
            late = filled == again and now - opened <= max(_OVERTAKEN_NS, rtt)
            if late:
                notes.append("out_of_order")
            elif end <= self.una:
                notes.append("spurious_retransmission")
            else:
                notes.append("retransmission")
            if late:
                again = 0
            self.repeated += again
        elif start > nxt:
            self.gaps.append([nxt, start, now])
            del self.gaps[:-_MOST_RANGES]
            notes.append("lost_segment")
        if end > nxt:
            self.nxt = end
            if end == self.edge:
                notes.append("window_full")
        if end > start:
            self.unacked.append((end, now, again > 0))
            if len(self.unacked) > _MOST_UNACKED:
                self.unacked.popleft()
        return again, notes

    def _fill(self, start: int, end: int) -> tuple[int, int]:
        """Take [start, end) out of the gaps; how many bytes of it were missing, and since when."""
        filled = 0
        kept: list[list[int]] = []
        opened = 0
        for left, right, when in self.gaps:
            low, high = max(left, start), min(right, end)
            if low >= high:
                kept.append([left, right, when])
                continue
            filled += high - low
            opened = when
            if left < low:
                kept.append([left, low, when])
            if high < right:
                kept.append([high, right, when])
        self.gaps = kept
        return filled, opened

    def acknowledged(self, ack: int, window: int, blocks: list[list[int]], now: int) -> int | None:
        """The other side said so; a round trip that this shows (Karn: not of what was sent twice), or None."""
        rtt = None
        if ack > self.una:
            self.una = ack
            again = False
            while self.unacked and self.unacked[0][0] <= ack:
                _, when, twice = self.unacked.popleft()
                rtt = now - when
                again = again or twice
            if again:
                rtt = None
            self.nxt = max(self.nxt, ack)  # it may not have been seen sent
            if self.gaps:
                self.gaps = [gap for gap in self.gaps if gap[1] > ack]
        self.edge = max(self.edge, ack + window)
        if blocks:
            self._sack(blocks)
        if self.sacked and self.sacked[0][0] < self.una:
            self.sacked = [[max(left, self.una), right] for left, right in self.sacked if right > self.una]
        return rtt

    def _sack(self, blocks: list[list[int]]) -> None:
        merged: list[list[int]] = []
        for left, right in sorted([*self.sacked, *([left, right] for left, right in blocks if left < right)]):
            if merged and left <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], right)
            else:
                merged.append([left, right])
        self.sacked = merged[-_MOST_RANGES:]

    def flight(self) -> int:
        """Bytes sent and neither acknowledged nor SACKed."""
        return max(self.nxt - self.una - sum(max(min(right, self.nxt) - left, 0) for left, right in self.sacked), 0)

    def delivered(self) -> int:
        """Bytes of its data that the other side acknowledged, each counted once; where nothing of the other side was
        seen, those that were sent."""
        upto = self.una if self.edge >= 0 else self.nxt
        return max(upto - 1 - (0 <= self.fin < upto), 0)

    def summary(self) -> dict[str, object]:
        """Its totals, as plain data."""
        return {
            "isn": self.base if self.syn else None,
            "mss": self.mss,
            "wscale": self.shift,
            "sack_permitted": self.sack_permitted,
            "segments": self.segments,
            "packets": self.packets,
            "bytes": self.bytes,
            "delivered": self.delivered(),
            "retransmitted": self.repeated,
            "sent_to": self.nxt,
            "acked_to": self.una,
            "window": self.win if self.win >= 0 else None,
            "flight": self.flight(),
        }
