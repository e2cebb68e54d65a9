"""RACK, RFC 8985: what was sent well before something that has arrived, and has not arrived itself, is lost.

The clock of a loss is time, not a count of ACKs, so a retransmission that is lost again is found as well. This file
knows the rule and its window; the send space is searched in `scoreboard`, timers are the connection's.
"""

from __future__ import annotations

from dataclasses import dataclass

from layers.tcp.recovery.state import CaState

DUP_THRESH = 3  # RFC 8985 6.2 step 4, RFC 6675 2
PERSIST = 16  # recoveries for which a wider window stays: RFC 8985 6.2 step 4
MAX_REORDERING = 300  # packets: Linux tcp_max_reordering
NEVER = -1


@dataclass(slots=True)
class Rack:
    """Times in ns, stream offsets. RFC 8985 5.2 calls `sent_at` RACK.xmit_ts and `end` RACK.end_seq."""

    sent_at: int = NEVER
    end: int = -1
    rtt: int = 0
    fack: int = -1  # highest offset that was acknowledged or named by SACK
    reordering_seen: bool = False
    reordering: int = DUP_THRESH  # packets: the longest way that one was overtaken (TCP_INFO)
    reorders: int = 0  # how often that was seen
    mult: int = 1  # reo_wnd_mult
    persist: int = 0  # reo_wnd_persist
    dsack_round: int = -1
    dsacks: int = 0

    def update(self, sent_at: int, end: int, now: int) -> bool:
        """RFC 8985 6.2 step 2: the segment sent last of those of which an ACK tells. True if it is later than what was
        known; RACK.rtt is its round trip also if it is not, as it was overtaken (Linux tcp_rack_advance)."""
        self.rtt = now - sent_at
        if sent_at < self.sent_at or (sent_at == self.sent_at and end <= self.end):
            return False
        self.sent_at = sent_at
        self.end = end
        return True

    def overtaken(self, packets: int) -> None:
        """RFC 8985 6.2 step 3: something never sent again arrived after what was sent `packets` later."""
        self.reordering_seen = True
        self.reorders += 1
        self.reordering = min(max(self.reordering, packets), MAX_REORDERING)

    def dsack(self, una: int, nxt: int) -> None:
        """RFC 8985 6.2 step 4: a retransmission was for nothing: widen the window, once a round trip."""
        if 0 <= self.dsack_round <= una:
            self.dsack_round = -1
        if self.dsack_round < 0:
            self.dsack_round = nxt
            self.mult += 1
            self.persist = PERSIST

    def recovered(self) -> None:
        """A recovery has ended: after 16 without a D-SACK the window is narrow again."""
        self.persist -= 1
        if self.persist <= 0:
            self.persist = 0
            self.mult = 1

    def window(self, state: CaState, sacked_packets: int, min_rtt: int, srtt: int) -> int:
        """RACK.reo_wnd: none while reordering was never seen and three packets came beyond the hole (RFC 6675's
        DupThresh) or recovery is under way; else a part of the smallest RTT, no more than SRTT."""
        if not self.reordering_seen and (state >= CaState.RECOVERY or sacked_packets >= DUP_THRESH):
            return 0
        return min(self.mult * min_rtt // 4, srtt)
