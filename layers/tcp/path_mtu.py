"""What ICMP tells of the path's MTU: whether to believe it, how long, and for whom. RFC 1191, RFC 5927 7."""

from __future__ import annotations

from layers.tcp import mtu_probe
from layers.tcp.connection import PMTUDISC_DO, PMTUDISC_WANT, Connection
from layers.tcp.context import SECOND, Context
from layers.tcp.loss import resegment
from layers.tcp.output import TO_IP_MOST, fixed_headers
from layers.tcp.states import State
from layers.tcp.timers import PMTU
from levelip.frames.packet import IcmpError, PathMtu
from levelip.tracing import reasons

PLATEAUS = (32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)  # bytes: RFC 1191 7.1
SMALLEST = 68  # bytes: RFC 791 3.2, every hop must forward so much
MIN_PMTU = 552  # bytes (Linux ip_rt_min_pmtu): below, packets stay so large and may be fragmented instead


def too_big(ctx: Context, conn: Connection, error: IcmpError, offset: int, now: int) -> None:
    """Fragmentation needed and DF set, about the segment at `offset`, which is in flight.

    RFC 5927 7.1: what is reported must have been too large for what is reported. Its 7.2, to act only when the segment
    is not acknowledged in time, is left out as in Linux: a forger must know a sequence number in flight already, and
    gains segments of 552 bytes for `mtu_expires_s`.
    """
    mtu = error.mtu
    if conn.options.mtu_discover not in (PMTUDISC_WANT, PMTUDISC_DO):  # Linux ip_sk_accept_pmtu; DONT sets no DF
        ctx.drop(reasons.TCP_ICMP_STRAY, error.id, conn, mtu=mtu)
        return
    if not mtu:  # of a router that knows no RFC 1191 (its section 5)
        mtu = next((size for size in PLATEAUS if size < conn.pmtu), SMALLEST)
    if not SMALLEST <= mtu < conn.pmtu:
        ctx.drop(reasons.TCP_ICMP_STRAY, error.id, conn, mtu=mtu)
        return
    size = _packet(conn, offset)
    if size <= mtu:
        ctx.drop(reasons.TCP_ICMP_FITS, error.id, conn, mtu=mtu, size=size)
        return
    if mtu < MIN_PMTU:
        conn.dont_fragment = False
        mtu = min(MIN_PMTU, conn.pmtu)
    ctx.counters["path_mtu_lowered"] += 1
    if ctx.interest:
        ctx.emit("pmtu", conn, frame=error.id, why="icmp", old=conn.pmtu, new=mtu)
    conn.pmtu = mtu
    until = now + ctx.tcp.mtu_expires_s * SECOND
    ctx.routes.learn(conn.remote, mtu, until, now)
    ctx.timers.arm(conn, PMTU, until)
    if len(ctx.to_ip) < TO_IP_MOST:
        # its cache is for all, and ends when ours does; if the error was its own, it knows already
        ctx.to_ip.append(PathMtu(conn.remote, mtu, ctx.tcp.mtu_expires_s * 1000))
    mtu_probe.told(conn, mtu)
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
        return
    conn.set_mss(fixed_headers(conn))
    resegment(ctx, conn)  # again at once, and cwnd stays as it is: no congestion (RFC 1191 6.5)
    ctx.want_output(conn)


def _packet(conn: Connection, offset: int) -> int:
    """Bytes of the packet that began with `offset`, headers included."""
    tx = conn.tx
    row = next((row for row in tx.queue if row.start <= offset < row.end), None)
    if row is None or offset < 0:
        return fixed_headers(conn) + 40
    payload = row.end - offset
    if row.start != conn.mtu.probe_start or row.end != conn.mtu.probe_end:
        payload = min(payload, tx.mss)
    return payload + mtu_probe.headers(conn)


def expired(ctx: Context, conn: Connection, now: int) -> None:
    """What ICMP told is too old: try the route's MTU again (RFC 1191 6.3)."""
    route = ctx.routes.lookup(conn.remote)
    if route is None or conn.state in (State.CLOSED, State.TIME_WAIT):
        return
    if ctx.interest:
        ctx.emit("pmtu", conn, why="expired", old=conn.pmtu, new=route.mtu)
    conn.pmtu = route.mtu
    if conn.tx.snd_una >= 0:
        conn.set_mss(fixed_headers(conn))
