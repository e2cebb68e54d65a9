"""ICMP errors about our segments: RFC 1122 4.2.3.9, with RFC 5927's check that the segment really is in flight."""

from __future__ import annotations

import errno
import struct

from layers.tcp.closing import gone
from layers.tcp.connection import Connection, connection_key
from layers.tcp.context import Context
from layers.tcp.path_mtu import too_big
from layers.tcp.states import State
from layers.tcp.timers import RETRANSMIT
from levelip.frames.packet import IcmpError
from levelip.tracing import reasons
from levelip.wire.icmp import unreachable_errno

DEST_UNREACHABLE, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 11, 12  # RFC 792
FRAGMENTATION_NEEDED = 4  # code of DEST_UNREACHABLE, RFC 1191
PROTO_TCP = 6


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
        too_big(ctx, conn, error, offset, now)
        return
    if error.icmp_type == DEST_UNREACHABLE:
        number = unreachable_errno(error.icmp_code)
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
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED) and _ends(ctx, conn, error):
        gone(ctx, conn, number, error.id)
        return
    conn.soft_error = number  # RFC 5927 5.2: in synchronized states all are soft
    if error.icmp_type == DEST_UNREACHABLE:
        _revert_backoff(ctx, conn, offset, error.icmp_code, now)


def _ends(ctx: Context, conn: Connection, error: IcmpError) -> bool:
    """Whether a connection that is opening ends.

    Protocol or port unreachable, and parameter problem, are hard errors (RFC 1122 4.2.3.9). The others it calls soft,
    MUST NOT abort (RFC 9293 MUST-56); Linux (tcp_v4_err) aborts a connect all the same, so that an application need
    not wait two minutes for what is known at once; RFC 5461 4.1 describes it. tcp.icmp_abort_connect chooses.
    A half-open child that nobody has heard of goes by the same list as Linux' request socks (tcp_req_err).
    """
    hard = error.icmp_type == PARAMETER_PROBLEM or (error.icmp_type == DEST_UNREACHABLE and error.icmp_code in (2, 3))
    if conn.state == State.SYN_RECEIVED and conn.listener:
        if error.icmp_type == DEST_UNREACHABLE:
            return error.icmp_code in (0, 1)
        return True
    return hard or ctx.tcp.icmp_abort_connect


def _revert_backoff(ctx: Context, conn: Connection, offset: int, code: int, now: int) -> None:
    """RFC 6069 4 (TCP-LCD), as Linux tcp_ld_RTO_revert: a router that has no way on just now says so about the segment
    that a timeout sent again. Congestion it was not: the backoff of that timeout is taken back."""
    tx, rto = conn.tx, conn.rto
    if code not in (0, 1) or offset != tx.snd_una or not conn.retransmits or not rto.backoffs:
        return
    rto.revert()
    ctx.counters["backoffs_reverted"] += 1
    ctx.timers.arm(conn, RETRANSMIT, max(tx.queue[0].sent_at + rto.rto, now))
