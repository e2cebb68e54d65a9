"""How connections end: TIME-WAIT, CLOSED, given up; and what becomes of their id, rings and port.

A connection leaves the table of connections when TCP is done with it. Its id and its rings stay until the application
has closed too, as unread bytes lie there; its port stays with a TIME-WAIT record until that ends.
"""

from __future__ import annotations

from layers.tcp.chronograph import IDLE
from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.output import send_reset
from layers.tcp.states import Input, State
from layers.tcp.telling import tell_progress
from layers.tcp.timers import FIN_WAIT, KINDS, OFF, TIME_WAIT
from layers.tcp.timewait import TimeWait
from levelip.frames.seam import Released
from levelip.rpc.stream import Reset
from levelip.tracing import reasons

TIME_WAITS_MOST = 32_768  # records (Linux tcp_max_tw_buckets): beyond, connections skip TIME-WAIT


def detach(ctx: Context, conn: Connection) -> None:
    """No segment and no timer finds it any more."""
    key = conn.key
    if ctx.connections.get(key) is conn:
        del ctx.connections[key]
    conn.deadlines = [OFF] * KINDS
    conn.chrono.turn(IDLE, ctx.now)


def forget(ctx: Context, conn: Connection) -> None:
    """Its id and its rings are free. A port that bind() chose stays with the id until the application closes it."""
    ctx.sockets.pop(conn.id, None)
    ctx.orphans.pop(conn.id, None)
    free_rings(ctx, conn)
    binding = ctx.ports.by_socket.get(conn.id)
    if binding is None or conn.id in ctx.timewait_ids or (binding.chosen and not conn.orphan and not conn.listener):
        return
    ctx.ports.release(conn.id)


def free_rings(ctx: Context, conn: Connection) -> None:
    """Its slot can serve another connection."""
    if conn.rings_held:
        conn.rings_held = False
        ctx.slots.give_back(conn.rings)


def release(ctx: Context, conn: Connection) -> None:
    """Tell, once, that nothing is owed to an application that has closed."""
    if not conn.released:
        conn.released = True
        ctx.to_gateway.append(Released(conn.id))


def gone(ctx: Context, conn: Connection, errno: int, frame: int = 0) -> None:
    """It ended before its time: RST, timeout, or an error on the way. `errno` is what the application sees."""
    ctx.counters["connections_aborted"] += 1
    conn.ack_causes = frame
    opening = conn.state in (State.SYN_SENT, State.SYN_RECEIVED)
    ctx.change_state(conn, Input.ABORT, frame)
    detach(ctx, conn)
    if opening and conn.listener:  # the application has not heard of it
        leave_listener(ctx, conn)
        conn.orphan = True
        forget(ctx, conn)
        return
    if conn.orphan:
        release(ctx, conn)
        forget(ctx, conn)
        return
    tell_progress(ctx, conn)
    ctx.to_gateway.append(Reset(conn.id, errno))
    if conn.told_data <= conn.rx.consumed:
        forget(ctx, conn)


def abort(ctx: Context, conn: Connection, now: int) -> None:
    """RST, and the end; for an application that has closed. RFC 9293 3.10.5. A TIME-WAIT record stays."""
    conn.orphan = True
    leave_listener(ctx, conn)
    if conn.state not in (State.CLOSED, State.TIME_WAIT):
        send_reset(ctx, conn, now)
        ctx.change_state(conn, Input.ABORT)
        detach(ctx, conn)
    release(ctx, conn)
    forget(ctx, conn)


def ended(ctx: Context, conn: Connection) -> None:
    """CLOSED in good order."""
    detach(ctx, conn)
    if conn.orphan:
        release(ctx, conn)
        forget(ctx, conn)
    else:
        ctx.mark_dirty(conn)


def leave_listener(ctx: Context, conn: Connection) -> None:
    """It counts in no backlog any more."""
    listener = ctx.listeners.get(conn.listener)
    conn.untaken = False
    if listener is not None:
        listener.half_open.pop(conn.id, None)
        listener.untaken.pop(conn.id, None)


def enter_time_wait(ctx: Context, conn: Connection, now: int) -> None:
    """A small record takes over from the connection, which is in TIME-WAIT now; RFC 9293 3.6.1."""
    rx, tx = conn.rx, conn.tx
    ctx.counters["time_waits"] += 1
    full = len(ctx.timewaits) >= TIME_WAITS_MOST
    if full:
        ctx.drop(reasons.TIME_WAIT_FULL, conn.ack_causes, conn)
        ctx.change_state(conn, Input.TIMEOUT)
        ended(ctx, conn)
        return
    deadline = now + ctx.tcp.time_wait_ms * MS
    record = TimeWait(
        conn.id, conn.local, conn.local_port, conn.remote, conn.remote_port, tx.seq(tx.snd_nxt), rx.seq(rx.rcv_nxt),
        rx.window_field(), conn.timestamps, conn.ts_offset, conn.ts_recent, conn.ts_recent_at, conn.options.ttl,
        conn.options.tos, deadline,
    )  # fmt: skip
    key = conn.key
    detach(ctx, conn)
    ctx.timewaits[key] = record
    ctx.timewait_ids[conn.id] = key
    arm_time_wait(ctx, record, deadline)
    if conn.orphan:
        release(ctx, conn)
        forget(ctx, conn)
    else:
        ctx.mark_dirty(conn)


def wait_for_fin(ctx: Context, conn: Connection, now: int, *, closing: bool) -> bool:
    """FIN-WAIT-2 and nobody reads any more: the peer has a while to send its FIN (Linux tcp_fin_timeout, TCP_LINGER2).

    With a negative TCP_LINGER2 it has none: `closing` (the application closes now) resets the connection, else it is
    forgotten (Linux tcp_close, tcp_rcv_state_process). Returns whether it waits.
    """
    release(ctx, conn)
    free_rings(ctx, conn)
    own = conn.options.linger2_ms
    if own >= 0:
        ctx.timers.arm(conn, FIN_WAIT, now + (own or ctx.tcp.fin_timeout_ms) * MS)
        return True
    if closing:
        abort(ctx, conn, now)
    else:
        ctx.change_state(conn, Input.TIMEOUT)
        ended(ctx, conn)
    return False


def arm_time_wait(ctx: Context, record: TimeWait, deadline: int) -> None:
    """2 MSL from now on."""
    record.deadline = deadline
    if record.scheduled < 0:
        record.scheduled = deadline
        ctx.timers.push(deadline, TIME_WAIT, record.id)


def end_time_wait(ctx: Context, record: TimeWait) -> None:
    """The record's time is over, or a new connection takes its place."""
    key = ctx.timewait_ids.pop(record.id, None)
    if key is not None:
        del ctx.timewaits[key]
    conn = ctx.sockets.get(record.id)
    if conn is None:
        ctx.ports.release(record.id)
        return
    if conn.state == State.TIME_WAIT:
        ctx.change_state(conn, Input.TIMEOUT)
