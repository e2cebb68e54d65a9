"""The path's MTU found by what arrives, where ICMP does not tell: RFC 4821 (packetization layer), as Linux does it.

When segments vanish, timeout after timeout, they may be too large for a hop that says nothing (a black hole): segments
shrink to tcp.base_mss, and by half with every further timeout, until something arrives. From there the search goes up
again: one segment, larger than the others, is a part of the stream like any; it arrives, and `low` rises, or it is
lost alone, and `high` falls. That loss says nothing of congestion (RFC 4821 7.5).

      low        probe_size       high
    ---+------------+-------------+-----  IP packets, bytes
    arrives     under way      may arrive, or not

Linux: tcp_mtu_probing, tcp_mtup_init, tcp_mtu_probe, tcp_mtu_check_reprobe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layers.tcp.context import SECOND, Context
from layers.tcp.patience import doubted
from layers.tcp.routes import ip_header

if TYPE_CHECKING:
    from layers.tcp.connection import Connection

TCP_HEADER = 20  # bytes
STAMPS = 12  # bytes: the timestamps option
ALWAYS = 2  # tcp.mtu_probing
CWND_PACKETS = 11  # Linux tcp_mtu_probe: a loss must be found by duplicates, and cost little
REORDERING = 3  # segments that follow the probe at once, so that its loss is found


def headers(conn: Connection) -> int:
    """Bytes of a packet beside its payload."""
    return ip_header(conn.remote) + len(conn.options.ip_options) + TCP_HEADER + (STAMPS if conn.timestamps else 0)


def begin(ctx: Context, conn: Connection, now: int) -> None:
    """A connection is open: where probing is always on it starts from tcp.base_mss."""
    if ctx.tcp.mtu_probing == ALWAYS:
        _enable(ctx, conn, now)
        _resize(conn)


def _enable(ctx: Context, conn: Connection, now: int) -> None:
    search = conn.mtu
    search.enabled = True
    search.high = largest(conn)
    search.low = min(ctx.tcp.base_mss + headers(conn), search.high)
    search.begun_at = now


def largest(conn: Connection) -> int:
    """The largest packet worth trying."""
    return min(conn.pmtu, conn.peer_mss + ip_header(conn.remote) + TCP_HEADER)


def timed_out(ctx: Context, conn: Connection, now: int) -> None:
    """The retransmission timer fired. A probe that was under way proves nothing; past tcp.retries1 segments shrink."""
    search, tcp = conn.mtu, ctx.tcp
    search.probe_end = -1
    if not tcp.mtu_probing or not doubted(ctx, conn, now):
        return
    old = conn.tx.mss
    if not search.enabled:
        _enable(ctx, conn, now)
    else:
        size = min(tcp.base_mss, (search.low - headers(conn)) // 2)
        search.low = min(max(size, tcp.mtu_probe_floor) + headers(conn), search.high)
    _resize(conn)
    if conn.tx.mss < old:
        ctx.counters["mtu_black_holes"] += 1
        if ctx.interest:
            ctx.emit("pmtu", conn, why="black hole", old=old + headers(conn), new=search.low)


def probe_size(ctx: Context, conn: Connection, now: int) -> int:
    """Bytes of payload of a probe that can go now; 0: none. The caller sends it and calls `sent`."""
    search, tx, tcp = conn.mtu, conn.tx, ctx.tcp
    if search.probe_end >= 0:
        if tx.snd_una < search.probe_end:
            return 0
        _arrived(ctx, conn)
    size = (search.low + search.high) // 2 - headers(conn)
    if search.high - search.low < tcp.probe_threshold or size <= tx.mss:
        if now - search.begun_at >= tcp.probe_interval_s * SECOND:  # the path may have changed: begin anew
            search.high = largest(conn)
            search.begun_at = now
        return 0
    needed = size + (REORDERING + 1) * tx.mss
    if conn.recovery.state or conn.recovery.probe_end >= 0 or conn.retransmits or tx.lost_bytes or conn.rx.ranges:
        return 0
    cwnd = conn.congestion.cwnd
    if cwnd < CWND_PACKETS * tx.mss or tx.snd_end - tx.snd_nxt < needed or tx.in_flight() + size > cwnd:
        return 0
    if tx.snd_nxt + needed > tx.snd_una + tx.snd_wnd:
        return 0
    return size


def sent(ctx: Context, conn: Connection, start: int, end: int) -> None:
    """The probe goes out as the offsets [start, end)."""
    search = conn.mtu
    search.probe_start, search.probe_end = start, end
    search.probe_size = end - start + headers(conn)
    ctx.counters["mtu_probes"] += 1
    if ctx.interest:
        ctx.emit("mtu_probe", conn, size=search.probe_size, low=search.low, high=search.high)


def _arrived(ctx: Context, conn: Connection) -> None:
    search = conn.mtu
    old, search.low = search.low, search.probe_size
    search.probe_end = -1
    ctx.counters["mtu_probes_arrived"] += 1
    _resize(conn)
    if ctx.interest:
        ctx.emit("pmtu", conn, why="probe", old=old, new=search.low)


def lost(ctx: Context, conn: Connection) -> bool:
    """The segment at SND.UNA is found lost: was it the probe? Then that says its size, and nothing of congestion."""
    search, tx = conn.mtu, conn.tx
    if search.probe_end < 0 or tx.snd_una != search.probe_start:
        return False
    if tx.lost_bytes > search.probe_end - search.probe_start:  # not alone: congestion, RFC 4821 7.6.4; ask again later
        search.probe_end = -1
        return False
    search.high = search.probe_size - 1
    search.probe_end = -1
    ctx.counters["mtu_probes_lost"] += 1
    tx.lose_head(search.probe_size)
    if ctx.interest:
        ctx.emit("mtu_probe", conn, size=search.probe_size, low=search.low, high=search.high, lost=True)
    return True


def told(conn: Connection, mtu: int) -> None:
    """ICMP, or the route, says that no more than `mtu` bytes fit."""
    search = conn.mtu
    search.high = min(search.high, mtu)
    search.low = min(search.low, mtu)
    search.probe_end = -1


def _resize(conn: Connection) -> None:
    conn.set_mss(ip_header(conn.remote) + TCP_HEADER)
