"""A four-tuple in TIME-WAIT taken again: the ISN of what comes next, and whether we may connect from it ourselves.

RFC 9293 3.6.1 (MAY-2), RFC 1122 4.2.2.13: only with an ISN larger than the largest sequence number of the one before.
"""

from __future__ import annotations

from layers.tcp.context import MS, Context
from layers.tcp.timewait import TimeWait

MASK = 0xFFFF_FFFF
AHEAD = 65_537  # Linux tcp_timewait_state_process: beyond any window without scaling of the one before
LOOPBACK_ONLY = 2


def next_isn(ctx: Context, record: TimeWait) -> int:
    """Larger than the largest sequence number that we used; -1 where the configuration fixes ISNs."""
    if ctx.config.fixed_isn >= 0:
        return -1
    return (record.snd_nxt + AHEAD) & MASK


def reusable(ctx: Context, record: TimeWait, now: int) -> bool:
    """May connect() take the place of this record? Linux tcp_twsk_unique with tcp_tw_reuse and tcp_tw_reuse_delay.

    Timestamps tell the two connections apart, so the record must have them and at least a second must have passed, so
    that the first TSval of the new one is larger than the last of the old (RFC 6191 2, RFC 7323 appendix B.2).
    """
    mode = ctx.tcp.tw_reuse
    if not mode or not record.timestamps or not ctx.tcp.timestamps:
        return False
    if mode == LOOPBACK_ONLY and not (_loopback(record.local) or _loopback(record.remote)):
        return False
    return now - record.ts_recent_at > ctx.tcp.tw_reuse_delay_ms * MS


def _loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"
