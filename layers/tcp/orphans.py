"""Connections that the application has closed and TCP still finishes: how many there may be. Linux tcp_max_orphans.

"This is direct violation of TCP specs, but it is required to prevent DoS attacks" (Linux tcp_out_of_resources): beyond
the limit a connection that is closed is reset instead of finished, and so is one whose peer has been silent for a
timeout.
"""

from __future__ import annotations

from layers.tcp.closing import abort, gone
from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.output import send_reset
from levelip.tracing import reasons


def adopt(ctx: Context, conn: Connection, now: int) -> bool:
    """The application closes `conn`, which goes on alone. False: there are too many, it was reset."""
    if len(ctx.orphans) >= ctx.tcp.max_orphans:
        ctx.drop(reasons.TCP_TOO_MANY_ORPHANS, 0, conn)
        abort(ctx, conn, now)
        return False
    ctx.orphans[conn.id] = True
    return True


def too_many(ctx: Context, conn: Connection, now: int) -> bool:
    """A timer of an orphan fired. If there are too many, it is reset; sooner where ICMP spoke of it (Linux' shift)."""
    if not conn.orphan:
        return False
    limit = ctx.tcp.max_orphans >> (1 if conn.soft_error else 0)
    if len(ctx.orphans) <= limit:
        return False
    ctx.drop(reasons.TCP_TOO_MANY_ORPHANS, 0, conn)
    send_reset(ctx, conn, now)
    gone(ctx, conn, 0)
    return True
