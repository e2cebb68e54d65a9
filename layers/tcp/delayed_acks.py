"""When what came in order is acknowledged: at the flush, or with what is to come. RFC 9293 3.8.6.3, RFC 5681 4.2.

An ACK may wait for the second full-sized segment, for our answer, or for `tcp.delayed_ack_ms`. It does not wait while
the peer can do nothing without it, which Linux's rules guess at (net/ipv4/tcp_input.c, "quickack mode"):

    for a number of ACKs (`quick_acks`)   at the start, after a silence longer than the RTO, after loss or duplicates:
                                          the peer's window is small and grows by ACKs
    when the application has read all     and what came last was short or pushed: the peer has no more for now
    never, if data goes to and fro        (`interactive`, Linux's pingpong): our answer carries the ACK

What differs: Linux also lets the delay follow the distance of segments, from 40 ms up to 200; here it stays the least.
Its kernels since 4.18 send no quick ACKs after out-of-order data, those before did; but they send them while their
window grows (tcp_grow_window), which ours does not do by segments.
"""

from __future__ import annotations

from layers.tcp.connection import QUICK_ACKS, Connection
from layers.tcp.context import MS, Context
from layers.tcp.timers import DELAYED_ACK
from levelip.frames.packet import Segment
from levelip.wire.tcp import PSH

LEAST_QUICK_ACKS = 2  # Linux tcp_incr_quickack, when the window is small
QUICK_ACKS_MARK = 2  # after a mark of congestion (Linux __tcp_ecn_check_ce)
_FLAGS_BYTE = 13  # offset in the TCP header


def owe_ack(ctx: Context, conn: Connection, segment: Segment, now: int) -> None:
    """Data came in order: acknowledge at the flush, or later. `last_data_received_at` is still of the data before."""
    rx = conn.rx
    unacknowledged = rx.rcv_nxt - rx.last_ack_sent
    if unacknowledged > (ctx.tcp.ack_every - 1) * rx.mss or not ctx.tcp.delayed_ack_ms:
        if conn.quick_acks and not conn.ack_now:
            conn.quick_acks -= 1
        conn.ack_now = True
    else:
        _delay(ctx, conn, segment, unacknowledged, now)
    if conn.ack_now and not conn.queued:
        conn.queued = True
        ctx.work.append(conn)


def _delay(ctx: Context, conn: Connection, segment: Segment, unacknowledged: int, now: int) -> None:
    """The ACK may wait, unless it is to be quick."""
    if now - conn.last_data_received_at > conn.rto.rto:
        _more(conn, QUICK_ACKS)  # the peer's window has shrunk meanwhile (RFC 5681 4.1)
    if conn.quick_acks and not conn.interactive:
        if not conn.ack_now:
            conn.quick_acks -= 1
        conn.ack_now = True
        return
    if conn.deadlines[DELAYED_ACK] < 0:
        conn.pushed = 0
        ctx.timers.arm(conn, DELAYED_ACK, now + ctx.tcp.delayed_ack_ms * MS)
    if segment.head[_FLAGS_BYTE] & PSH or unacknowledged < conn.rx.mss:
        conn.pushed += 1


def _more(conn: Connection, most: int) -> None:
    """Linux tcp_incr_quickack: so many that the peer's window can grow to half of ours."""
    share = conn.rx.window() // (2 * conn.rx.mss) or LEAST_QUICK_ACKS
    conn.quick_acks = max(conn.quick_acks, min(share, most))


def hurry(conn: Connection, most: int = QUICK_ACKS) -> None:
    """The peer is in trouble: the next ACKs do not wait (Linux tcp_enter_quickack_mode)."""
    _more(conn, most)
    conn.interactive = False


def all_read(conn: Connection) -> bool:
    """An ACK waits, the application has read all, and by Linux's rule (tcp_cleanup_rbuf) the peer is told so at once:
    what came last was short or pushed, twice if our answers are expected to carry the ACK."""
    return (
        conn.deadlines[DELAYED_ACK] >= 0
        and conn.rx.consumed == conn.rx.rcv_nxt
        and (conn.pushed > 1 or (conn.pushed == 1 and not conn.interactive))
    )


def waited_enough(conn: Connection) -> None:
    """The delay is over: no answer came to carry the ACK (Linux tcp_delack_timer leaves pingpong mode)."""
    conn.ack_now = True
    conn.interactive = False
