"""Loss recovery without the peer's SACK: fast retransmit (RFC 5681 3.2) and NewReno's partial ACKs (RFC 6582).

It counts and decides; marking segments lost is done by the connection in the send space, and cwnd is the strategy's.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

DUP_THRESH = 3  # duplicate ACKs: RFC 5681 3.2


class Decision(IntEnum):
    """What an ACK means to loss recovery."""

    NOTHING = 0
    LIMITED_TRANSMIT = 1  # RFC 3042: one new segment may go out beyond cwnd
    FAST_RETRANSMIT = 2  # the third duplicate: resend the first unacknowledged segment, halve
    INFLATE = 3  # a further duplicate in recovery
    PARTIAL = 4  # resend the next hole
    EXIT = 5  # all is acknowledged that was outstanding when recovery began


@dataclass(slots=True)
class NewRenoRecovery:
    """`recover` is the offset of SND.NXT when the last loss was found (RFC 6582 3.2 step 1)."""

    duplicates: int = 0
    active: bool = False
    recover: int = -1
    partials: int = 0  # in this recovery

    def duplicate_ack(self, una: int, nxt: int, highest_sacked: int) -> Decision:
        """A duplicate ACK at `una` while all below `nxt` was sent.

        `highest_sacked` is the end of the highest SACK block on it (0: none): data sent after the last recovery that
        came while `una` did not proves a new loss where RFC 6582 3.2 step 2 alone could not tell (its 4.1 uses
        timestamps for that).
        """
        self.duplicates += 1
        if self.active:
            return Decision.INFLATE
        if self.duplicates < DUP_THRESH:
            return Decision.LIMITED_TRANSMIT
        # RFC 6582 3.2 step 2: after a timeout, duplicates of segments sent before it prove nothing.
        if self.duplicates >= DUP_THRESH and (una > self.recover or highest_sacked > self.recover):
            self.active = True
            self.recover = nxt
            self.partials = 0
            return Decision.FAST_RETRANSMIT
        return Decision.NOTHING

    def new_ack(self, una: int) -> Decision:
        """SND.UNA moved to `una`."""
        self.duplicates = 0
        if not self.active:
            return Decision.NOTHING
        if una >= self.recover:
            self.active = False
            return Decision.EXIT
        self.partials += 1
        return Decision.PARTIAL

    def timeout(self, nxt: int) -> None:
        """RFC 6582 4: leave recovery and remember what was sent."""
        self.duplicates = 0
        self.active = False
        self.recover = nxt

    def allowance(self, mss: int) -> int:
        """Bytes beyond cwnd that limited transmit grants now (RFC 3042 2)."""
        return 0 if self.active or self.duplicates >= DUP_THRESH else self.duplicates * mss

    def window(self, decision: Decision, cwnd: int, ssthresh: int, acked: int, flight: int, mss: int) -> int:
        """cwnd after `decision`, which `acked` bytes led to, with `flight` in flight."""
        if decision == Decision.FAST_RETRANSMIT:  # RFC 5681 3.2 step 3
            return ssthresh + DUP_THRESH * mss
        if decision == Decision.INFLATE:  # RFC 5681 3.2 step 4
            return cwnd + mss
        if decision == Decision.PARTIAL:  # RFC 6582 3.2 step 3: deflate by what was acknowledged, add a segment back
            return max(cwnd - acked, mss) + (mss if acked >= mss else 0)
        if decision == Decision.EXIT:  # RFC 6582 3.2 step 3, full acknowledgment, option 1: no burst follows
            return min(ssthresh, max(flight, mss) + mss)
        return cwnd
