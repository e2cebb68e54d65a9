"""ICMP errors about our segments: RFC 1122 4.2.3.9, with RFC 5927's check that the segment really is in flight."""

from __future__ import annotations

import errno
import struct

from layers.tcp.closing import gone
from layers.tcp.connection import Connection, connection_key
from layers.tcp.context import Context
from layers.tcp.loss import resegment
from layers.tcp.output import fixed_headers
from layers.tcp.states import State
from levelip.frames.packet import IcmpError
from levelip.tracing import reasons

DEST_UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12  # RFC 792
FRAGMENTATION_NEEDED = 4  # code of DEST_UNREACHABLE, RFC 1191
PROTO_TCP = 6
MIN_PMTU = 552  # bytes: below, an error is more likely an attack than a path (Linux ip_rt_min_pmtu; RFC 5927 7)

UNREACHABLE_ERRNO = {
    0: errno.ENETUNREACH,
    1: errno.EHOSTUNREACH,
    2: errno.ENOPROTOOPT,
    3: errno.ECONNREFUSED,
    5: errno.EOPNOTSUPP,
    6: errno.ENETUNREACH,
    7: errno.EHOSTDOWN,
    8: errno.ENONET,
    9: errno.ENETUNREACH,
    10: errno.EHOSTUNREACH,
    11: errno.ENETUNREACH,
    12: errno.EHOSTUNREACH,
    13: errno.EHOSTUNREACH,
    14: errno.EHOSTUNREACH,
    15: errno.EHOSTUNREACH,
}
"""Code of "destination unreachable" → errno, as Linux (net/ipv4/icmp.c, icmp_err_convert)."""


def icmp_error(ctx: Context, error: IcmpError, now: int) -> None:
    """A connection that is opening fails; an open one remembers the error for when it times out."""
    if error.proto != PROTO_TCP or len(error.head) < 8:
        ctx.drop(reasons.TCP_ICMP_STRAY, error.id)
        return
    local_port, remote_port, seq = struct.unpack_from(">HHI", error.head)
    conn = ctx.connections.get(connection_key(error.src, error.dst, remote_port, local_port))
    if conn is None:
        ctx.drop(reasons.TCP_ICMP_STRAY, error.id)
        return
    tx = conn.tx
    offset = tx.offset_of(seq)
    if not tx.snd_una <= offset < tx.snd_nxt:
        ctx.drop(reasons.TCP_ICMP_NOT_IN_FLIGHT, error.id, conn, offset=offset)  # RFC 5927 4.1
        return
    if error.icmp_type == DEST_UNREACHABLE and error.icmp_code == FRAGMENTATION_NEEDED:
        _too_big(ctx, conn, error)
        return
    if error.icmp_type == DEST_UNREACHABLE:
        number = UNREACHABLE_ERRNO.get(error.icmp_code, errno.EHOSTUNREACH)
    elif error.icmp_type == TIME_EXCEEDED:
        number = errno.EHOSTUNREACH
    elif error.icmp_type == PARAMETER_PROBLEM:
        number = errno.EPROTO
    else:
        ctx.drop(reasons.TCP_ICMP_STRAY, error.id, conn)
        return
    ctx.counters["icmp_errors_in"] += 1
    if ctx.interest:
        ctx.emit("icmp", conn, frame=error.id, type=error.icmp_type, code=error.icmp_code, errno=number)
    if conn.state == State.SYN_SENT or (conn.state == State.SYN_RECEIVED and not conn.listener):
        gone(ctx, conn, number, error.id)  # Linux tcp_v4_err: any of them ends a connect
        return
    conn.soft_error = number  # RFC 5927 5.2: in synchronized states all are soft


def _too_big(ctx: Context, conn: Connection, error: IcmpError) -> None:
    """Fragmentation needed and DF set: smaller segments from now on, and again what is under way (RFC 1191 6.5)."""
    mtu = max(error.mtu, MIN_PMTU)
    if mtu >= conn.pmtu:
        ctx.drop(reasons.TCP_ICMP_STRAY, error.id, conn, mtu=error.mtu)
        return
    ctx.counters["path_mtu_lowered"] += 1
    if ctx.interest:
        ctx.emit("pmtu", conn, frame=error.id, old=conn.pmtu, new=mtu)
    conn.pmtu = mtu
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
        return
    conn.set_mss(fixed_headers(conn))
    resegment(ctx, conn)
    ctx.want_output(conn)
