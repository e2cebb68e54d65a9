"""Loss recovery without the peer's SACK: fast retransmit (RFC 5681 3.2), NewReno's partial ACKs (RFC 6582), limited
transmit (RFC 3042). How cwnd moves meanwhile; bytes."""

from __future__ import annotations

from layers.tcp.recovery.state import CaState, Recovery

DUP_THRESH = 3  # duplicate ACKs: RFC 5681 3.2


def third_duplicate(recovery: Recovery, una: int) -> bool:
    """Whether duplicate ACKs at `una` prove a loss now: RFC 5681 3.2 step 2; RFC 6582 3.2 step 2, after a timeout
    those of segments sent before it prove nothing."""
    return recovery.duplicates >= DUP_THRESH and recovery.state <= CaState.CWR and una > recovery.recover


def at_start(ssthresh: int, mss: int) -> int:
    """RFC 5681 3.2 step 3: three packets have left the network."""
    return ssthresh + DUP_THRESH * mss


def after_partial(cwnd: int, acked: int, mss: int) -> int:
    """RFC 6582 3.2 step 3: deflate by what was acknowledged, add a segment back if it was one or more."""
    return max(cwnd - acked, mss) + (mss if acked >= mss else 0)


def at_exit(cwnd: int, flight: int, mss: int) -> int:
    """RFC 6582 3.2 step 3, full acknowledgment, option 1, so that no burst follows; `cwnd` is ssthresh already."""
    return min(cwnd, max(flight, mss) + mss)


def allowance(recovery: Recovery, mss: int) -> int:
    """Bytes beyond cwnd that limited transmit grants now (RFC 3042 2)."""
    if recovery.state >= CaState.RECOVERY or recovery.duplicates >= DUP_THRESH:
        return 0
    return recovery.duplicates * mss
