"""What happens when a timer fires: RFC 9293 3.10.8, RFC 6298 5.4 to 5.7, 3.8.6.1 (zero window), 3.8.4 (keep-alive)."""

from __future__ import annotations

import errno

from layers.tcp.closing import end_time_wait, ended, gone
from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.delayed_acks import waited_enough
from layers.tcp.loss import blame_size, enter_loss, enter_recovery, find_lost, probe_deadline, probe_possible
from layers.tcp.mtu_probe import timed_out
from layers.tcp.opening import keepalive_idle
from layers.tcp.orphans import too_many
from layers.tcp.output import TO_IP_MOST, send_reset
from layers.tcp.path_mtu import expired
from layers.tcp.patience import clamped, doubted, exhausted, granted
from layers.tcp.recovery.state import CaState
from layers.tcp.states import Input, State
from layers.tcp.timers import (
    DELAYED_ACK,
    FIN_WAIT,
    KEEPALIVE,
    LOSS_PROBE,
    OFF,
    PERSIST,
    PMTU,
    REORDER,
    RETRANSMIT,
    TIME_WAIT,
)
from layers.tcp.timewait import TimeWait
from levelip.frames.packet import Doubt


def handle_timers(ctx: Context, now: int) -> None:
    """Fire what is due, in the order (deadline, kind, id)."""
    timers = ctx.timers
    while (entry := timers.pop(now)) is not None:
        at, kind, ident = entry
        if kind == TIME_WAIT:
            key = ctx.timewait_ids.get(ident)
            if key is not None:
                _time_wait_over(ctx, ctx.timewaits[key], at)
            continue
        conn = ctx.sockets.get(ident)
        if conn is not None and timers.expired(conn, kind, at):
            conn.ack_causes = 0
            _HANDLERS[kind](ctx, conn, now)


def _time_wait_over(ctx: Context, record: TimeWait, at: int) -> None:
    if record.scheduled != at:
        return
    if record.deadline > at:
        record.scheduled = record.deadline
        ctx.timers.push(record.deadline, TIME_WAIT, record.id)
        return
    end_time_wait(ctx, record)


def _given_up(ctx: Context, conn: Connection, now: int, *, reset: bool = False) -> None:
    """No answer: ETIMEDOUT, or what ICMP said meanwhile (RFC 1122 4.2.3.9: soft errors)."""
    ctx.counters["timeouts"] += 1
    if reset:
        send_reset(ctx, conn, now)
    gone(ctx, conn, conn.soft_error or errno.ETIMEDOUT)


def _retransmit(ctx: Context, conn: Connection, now: int) -> None:
    """The retransmission timer: RFC 6298 5.4 to 5.6, RFC 5681 3.1."""
    tx, rto, tcp = conn.tx, conn.rto, ctx.tcp
    flight = tx.snd_nxt - tx.snd_una
    if flight <= 0:
        return
    if conn.deadlines[LOSS_PROBE] >= 0:  # a probe is never due later than this: it goes first, and the timer waits
        conn.deadlines[LOSS_PROBE] = OFF
        if _send_probe(ctx, conn, now):
            return
    if conn.deadlines[REORDER] >= 0 and _overtaken(ctx, conn, now):
        return
    opening = conn.state in (State.SYN_SENT, State.SYN_RECEIVED)
    if opening and conn.deferred and conn.retransmits < conn.options.defer_accept - 1:
        conn.retransmits += 1  # TCP_DEFER_ACCEPT: the peer has our SYN-ACK, its data may come (Linux syn_ack_recalc)
        rto.back_off()
        ctx.timers.arm(conn, RETRANSMIT, now + rto.rto)
        return
    if opening:
        if conn.listener:
            most = max(tcp.synack_retries, conn.options.defer_accept if conn.deferred else 0)
        else:
            most = conn.options.syncnt if conn.options.syncnt >= 0 else tcp.syn_retries
    else:
        most = granted(ctx, conn)
    if conn.first_timeout_at < 0:
        conn.first_timeout_at = tx.queue[0].sent_at
    if not opening and too_many(ctx, conn, now):
        return
    # The peer closed its window over what is under way, and lives: then this is a window probe, RFC 9293 SHLD-17
    heard = now - conn.last_received_at <= 2 * tcp.rto_max_ms * MS
    probing = heard and not opening and not tx.snd_wnd and not conn.options.user_timeout_ms and not conn.orphan
    if probing:
        conn.first_timeout_at = now
    elif conn.retransmits >= most if opening else exhausted(ctx, conn, now, most):
        _given_up(ctx, conn, now)
        return
    if opening:
        tx.lose_all()
    else:
        enter_loss(ctx, conn, now, again=probing and rto.backoffs > 0)
    if not probing:
        if not conn.retransmits:  # Linux tcp_update_rto_stats
            conn.rto_recoveries += 1
            conn.rto_began_at = now
        conn.retransmits += 1
        conn.total_rto += 1
    rto.back_off()
    ctx.counters["rto_timeouts"] += 1
    if not opening:
        timed_out(ctx, conn, now)
    if doubted(ctx, conn, now) and len(ctx.to_ip) < TO_IP_MOST:
        ctx.to_ip.append(Doubt(conn.remote))  # R1, RFC 9293 3.8.3 (b): ip is asked whether the way is still good
    if ctx.interest:
        ctx.emit("rto", conn, attempt=conn.retransmits, rto=rto.rto, flight=flight)
    ctx.timers.arm(conn, RETRANSMIT, now + clamped(conn, now, rto.rto))
    ctx.want_output(conn)


def _overtaken(ctx: Context, conn: Connection, now: int) -> bool:
    """RACK still waits for what may have been overtaken only: the retransmission timer waits for that (RFC 8985 8;
    Linux has one timer for both). False: RACK had its time, and found nothing."""
    if conn.deadlines[REORDER] <= now:
        conn.deadlines[REORDER] = OFF
        _reorder(ctx, conn, now)
        if conn.deadlines[RETRANSMIT] >= 0:
            return True
    due = conn.deadlines[REORDER]
    if due >= 0:
        ctx.timers.arm(conn, RETRANSMIT, due)
    return due >= 0


def _reorder(ctx: Context, conn: Connection, now: int) -> None:
    """RACK's timer, RFC 8985 6.2 step 5: what could have been overtaken only has had its time."""
    recovery, tx = conn.recovery, conn.tx
    if tx.snd_nxt <= tx.snd_una:
        return
    outstanding = tx.snd_nxt - tx.snd_una - tx.sacked_bytes
    lost, again = find_lost(ctx, conn, "rack_timer", now)
    if not lost:
        return
    if blame_size(ctx, conn):
        pass
    elif recovery.state < CaState.RECOVERY or (recovery.state == CaState.LOSS and again):
        enter_recovery(ctx, conn, outstanding, "rack_timer", now)
        # no ACK came that would clock a packet out: as Linux (tcp_rack_reo_timeout), as if one had come
        window = recovery.prr.window(tx.mss, False, tx.in_flight(), conn.congestion.ssthresh, tx.mss)
        conn.congestion.set_window(window)
    ctx.timers.arm(conn, RETRANSMIT, now + conn.rto.rto)
    ctx.want_output(conn)


def _loss_probe(ctx: Context, conn: Connection, now: int) -> None:
    """PTO, RFC 8985 7.3: no ACK for two round trips: the end of the flight may be lost, which no ACK would tell."""
    if conn.tx.snd_nxt <= conn.tx.snd_una:
        return
    due = probe_deadline(conn)
    if due > now:
        ctx.timers.arm(conn, LOSS_PROBE, due)
    else:
        _send_probe(ctx, conn, now)


def _send_probe(ctx: Context, conn: Connection, now: int) -> bool:
    """Let a loss probe go, and the retransmission timer count from it (RFC 8985 7.3); whether one may."""
    if not probe_possible(conn):
        return False
    conn.recovery.probe_due = True
    if conn.first_timeout_at < 0:
        conn.first_timeout_at = conn.tx.queue[0].sent_at  # of which the probe may be the repeat
    ctx.timers.arm(conn, RETRANSMIT, now + conn.rto.rto)
    ctx.want_output(conn)
    return True


def _persist(ctx: Context, conn: Connection, now: int) -> None:
    """The peer's window holds us back: probe it, or where it is only small, send what fits (SWS override)."""
    tx, tcp = conn.tx, ctx.tcp
    if tx.snd_nxt > tx.snd_una or not tx.unsent():
        return
    if conn.state in (State.CLOSED, State.TIME_WAIT):
        return
    if tx.snd_wnd > 0:
        conn.override = True
        ctx.want_output(conn)
        return
    if too_many(ctx, conn, now):
        return
    if conn.first_timeout_at < 0 or not conn.probes:
        conn.first_timeout_at = now
    patience = conn.options.user_timeout_ms * MS
    if conn.probes >= granted(ctx, conn) or (patience and conn.probes and now - conn.first_timeout_at >= patience):
        _given_up(ctx, conn, now)
        return
    conn.probes += 1
    conn.probe = True
    conn.urgent_due = conn.snd_up > tx.snd_una
    conn.probe_interval = min(conn.probe_interval * 2, tcp.rto_max_ms * MS)  # RFC 9293 3.8.6.1: exponentially
    ctx.timers.arm(conn, PERSIST, now + clamped(conn, now, conn.probe_interval))
    if ctx.interest:
        ctx.emit("probe", conn, why="window", number=conn.probes, next=conn.probe_interval)
    ctx.want_output(conn)


def _delayed_ack(ctx: Context, conn: Connection, now: int) -> None:
    """RFC 9293 3.8.6.3: an ACK must not wait longer."""
    waited_enough(conn)
    ctx.counters["delayed_acks"] += 1
    ctx.want_output(conn)


def _keepalive(ctx: Context, conn: Connection, now: int) -> None:
    """RFC 9293 3.8.4. While data is under way its own timers watch the peer."""
    tx, options, tcp = conn.tx, conn.options, ctx.tcp
    idle = keepalive_idle(ctx, conn)
    if not options.keepalive or conn.state in (State.CLOSED, State.TIME_WAIT):
        return
    if tx.snd_nxt > tx.snd_una or tx.unsent():
        ctx.timers.arm(conn, KEEPALIVE, now + idle)
        return
    if now - conn.last_received_at < idle:
        ctx.timers.arm(conn, KEEPALIVE, conn.last_received_at + idle)
        return
    most = options.keepcnt if options.keepcnt >= 0 else tcp.keepalive_probes
    patience = options.user_timeout_ms * MS
    if (patience and conn.probes and now - conn.last_received_at >= patience) or (not patience and conn.probes >= most):
        _given_up(ctx, conn, now, reset=True)  # as Linux tcp_keepalive_timer
        return
    conn.probes += 1
    conn.probe = True
    interval = (options.keepintvl_ms if options.keepintvl_ms >= 0 else tcp.keepalive_interval_ms) * MS
    ctx.timers.arm(conn, KEEPALIVE, now + interval)
    if ctx.interest:
        ctx.emit("probe", conn, why="keepalive", number=conn.probes, next=interval)
    ctx.want_output(conn)


def _fin_wait(ctx: Context, conn: Connection, now: int) -> None:
    """The application has closed and the peer does not: Linux tcp_fin_timeout."""
    if conn.state == State.FIN_WAIT_2 and conn.orphan:
        ctx.change_state(conn, Input.TIMEOUT)
        ended(ctx, conn)


_HANDLERS = {
    RETRANSMIT: _retransmit,
    PERSIST: _persist,
    DELAYED_ACK: _delayed_ack,
    KEEPALIVE: _keepalive,
    FIN_WAIT: _fin_wait,
    REORDER: _reorder,
    LOSS_PROBE: _loss_probe,
    PMTU: expired,
}
