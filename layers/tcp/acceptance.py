"""Is a segment acceptable? Named verdicts, decided before anything is done: RFC 9293 3.10.7.4 first step,
RFC 7323 5 (PAWS), RFC 5961 (RST, SYN and ACK that somebody may have guessed)."""

from __future__ import annotations

from enum import IntEnum

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF
PAWS_IDLE = 24 * 86_400 * 1_000_000_000  # ns: after 24 days without a segment TS.Recent says nothing, RFC 7323 5.5


class Verdict(IntEnum):
    """What is to be thought of a segment's place in the sequence space."""

    ACCEPTABLE = 0
    BELOW_WINDOW = 1  # all of it has come before
    BEYOND_WINDOW = 2
    ZERO_WINDOW = 3  # the window is closed and this is more than an ACK at its edge


class AckVerdict(IntEnum):
    """What is to be thought of its acknowledgment."""

    NEW = 0
    DUPLICATE = 1  # at SND.UNA
    OLD = 2  # below SND.UNA, but no older than the largest window seen
    ANCIENT = 3  # so old that nobody honest would send it: challenge ACK, RFC 5961 5.2
    UNSENT = 4  # of what we have not sent


class ResetVerdict(IntEnum):
    """RFC 5961 3.2."""

    RESET = 0
    CHALLENGE = 1


def judge_sequence(rcv_nxt: int, window: int, offset: int, length: int) -> Verdict:
    """The four cases of RFC 9293 3.10.7.4, first step; `length` counts SYN and FIN.

    A segment whose start lies below RCV.NXT and whose end lies beyond it is acceptable, as its second half is.
    Deviates by admitting an empty segment just at the right edge of the window (Linux tcp_sequence does too):
    a peer that has filled our window acknowledges from there.
    """
    if offset + length < rcv_nxt or (length and offset + length == rcv_nxt):
        return Verdict.BELOW_WINDOW
    if offset > rcv_nxt + window:
        return Verdict.BEYOND_WINDOW
    if length and offset == rcv_nxt + window:
        return Verdict.ZERO_WINDOW if window == 0 else Verdict.BEYOND_WINDOW
    return Verdict.ACCEPTABLE


def judge_timestamp(ts_recent: int, ts_recent_at: int, value: int, now: int) -> bool:
    """PAWS, RFC 7323 5.3 R1: whether the segment may be new. `ts_recent` has been set before."""
    return (value - ts_recent) & MASK < HALF or now - ts_recent_at > PAWS_IDLE


def judge_reset(rcv_nxt: int, offset: int, *, after_fin: bool = False, sack_edge: int = -1) -> ResetVerdict:
    """An RST in the window: only the exact next sequence number resets (RFC 5961 3.2).

    As Linux (tcp_validate_incoming, tcp_reset_check), two more are as exact: RCV.NXT - 1 once the peer's FIN has come
    (`after_fin`), as some send the RST with the FIN's own number and answer no challenge; and the right edge of what
    has come beyond a hole (`sack_edge`, -1: nothing), which is what a peer with loss has sent up to.
    """
    exact = offset == rcv_nxt or (after_fin and offset == rcv_nxt - 1) or (offset == sack_edge and sack_edge >= 0)
    return ResetVerdict.RESET if exact else ResetVerdict.CHALLENGE


def judge_ack(snd_una: int, snd_nxt: int, max_wnd: int, ack: int) -> AckVerdict:
    """RFC 9293 3.10.7.4 fifth step with RFC 5961 5.2: SND.UNA - MAX.SND.WND =< SEG.ACK =< SND.NXT.

    Nothing older than the first byte can be acknowledged either, however large the window (Linux tcp_ack, bytes_acked).
    """
    if ack > snd_nxt:
        return AckVerdict.UNSENT
    if ack > snd_una:
        return AckVerdict.NEW
    if ack == snd_una:
        return AckVerdict.DUPLICATE
    return AckVerdict.OLD if ack >= max(snd_una - max_wnd, 0) else AckVerdict.ANCIENT
