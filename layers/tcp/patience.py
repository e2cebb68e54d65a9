"""How long TCP goes on without an answer: R1 and R2 of RFC 9293 3.8.3, the user timeout, and what orphans are granted.

As in Linux (retransmits_timed_out) tcp.retries1, retries2 and orphan_retries count hypothetical retransmissions, those
that a connection with the smallest RTO would make: they mean a time. So a path with a long RTT is given no more time,
and a connection whose backoff ICMP took back (RFC 6069) no less.
"""

from __future__ import annotations

from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context


def model(retries: int, floor: int, ceiling: int) -> int:
    """The time that `retries` retransmissions and the wait after the last take, from `floor` on doubling to `ceiling`.

    Linux tcp_model_timeout: 15 retransmissions from 200 ms on are 924.6 s, 3 are 3 s.
    """
    doublings = (ceiling // floor).bit_length() - 1
    if retries <= doublings:
        return ((2 << retries) - 1) * floor
    return ((2 << doublings) - 1) * floor + (retries - doublings) * ceiling


def exhausted(ctx: Context, conn: Connection, now: int, retries: int) -> bool:
    """Whether unacknowledged data has waited as long as `retries` repeats take, or as the user wants (RFC 5482).

    `first_timeout_at` is when what is oldest was sent; set once its first timeout came.
    """
    if not conn.retransmits:
        return False
    limit = conn.options.user_timeout_ms * MS or model(retries, ctx.tcp.rto_min_ms * MS, ctx.tcp.rto_max_ms * MS)
    return now - conn.first_timeout_at >= limit


def doubted(ctx: Context, conn: Connection, now: int) -> bool:
    """R1: the path may be to blame (RFC 9293 3.8.3 (b), MUST-20)."""
    if conn.retransmits < 1:
        return False
    limit = model(ctx.tcp.retries1, ctx.tcp.rto_min_ms * MS, ctx.tcp.rto_max_ms * MS)
    return now - conn.first_timeout_at >= limit


def granted(ctx: Context, conn: Connection) -> int:
    """Retransmissions of data: tcp.retries, or what an orphan gets (Linux tcp_orphan_retries)."""
    tcp = ctx.tcp
    if not conn.orphan:
        return tcp.retries
    alive = conn.rto.rto < tcp.rto_max_ms * MS
    if conn.soft_error and not alive:
        return 0
    return min(tcp.retries, tcp.orphan_retries)


def clamped(conn: Connection, now: int, wait: int) -> int:
    """`wait`, but no longer than the user timeout leaves (Linux tcp_clamp_rto_to_user_timeout); at least 1 ms."""
    limit = conn.options.user_timeout_ms * MS
    if not limit or conn.first_timeout_at < 0:
        return wait
    return min(wait, max(conn.first_timeout_at + limit - now, MS))
