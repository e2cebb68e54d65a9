"""The peer acknowledges: RTT, timers, congestion window, loss recovery. RFC 9293 3.10.7.4 fifth step, RFC 5681, 6298.

Whether the acknowledgment is acceptable was decided before.
"""

from __future__ import annotations

from layers.tcp import mtu_probe
from layers.tcp.congestion.base import AckSample
from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.recovery.newreno import Decision
from layers.tcp.telling import grant_due
from layers.tcp.timers import OFF, PERSIST, RETRANSMIT

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF


def new_ack(ctx: Context, conn: Connection, ack: int, echo: int, now: int) -> None:
    """SND.UNA moves up to `ack`; `echo` is TSecr, or -1 without timestamps."""
    tx, rto, congestion = conn.tx, conn.rto, conn.congestion
    before = tx.snd_una
    flight = tx.snd_nxt - before
    rtt = tx.acknowledge(ack, now)
    if rtt >= 0:
        rto.sample(rtt)
        if ctx.interest:
            ctx.emit("rtt", conn, frame=conn.ack_causes, rtt=rtt, srtt=rto.srtt, rttvar=rto.rttvar, rto=rto.rto)
    elif echo > 0:  # RTTM, RFC 7323 4: it tells which transmission is meant, so retransmitted data counts too
        ticks = (conn.ts_now(now) - echo) & MASK
        if ticks < HALF:
            rtt = max(ticks, 1) * MS
            rto.sample(rtt)
    conn.retransmits = 0
    conn.first_timeout_at = OFF
    conn.probes = 0
    old = congestion.cwnd
    decision = conn.recovery.new_ack(ack)
    if decision == Decision.NOTHING:
        limited = old < 2 * flight if old < congestion.ssthresh else conn.cwnd_limited
        sample = AckSample(ack - before, ack, tx.snd_nxt, flight, limited, rtt, rto.srtt, rto.min_rtt, now)
        congestion.acked(sample)
    else:
        if decision == Decision.EXIT:
            congestion.exit_recovery(now)
        acked = ack - before
        congestion.set_window(
            conn.recovery.window(decision, congestion.cwnd, congestion.ssthresh, acked, tx.in_flight(), tx.mss)
        )
        if decision == Decision.PARTIAL:
            tx.lose_head(tx.mss)
    if ctx.interest and congestion.cwnd != old:
        tell_cwnd(ctx, conn, old, decision.name.lower() if decision else "ack")
    if ack == tx.snd_nxt:
        conn.deadlines[RETRANSMIT] = OFF  # RFC 6298 5.2
    elif decision != Decision.PARTIAL or conn.recovery.partials == 1:  # RFC 6582 3.2 step 3: impatient
        ctx.timers.arm(conn, RETRANSMIT, now + rto.rto)  # RFC 6298 5.3
    if not conn.orphan and grant_due(conn) and not conn.dirty:
        ctx.mark_dirty(conn)


def duplicate_ack(ctx: Context, conn: Connection, highest_sacked: int, now: int) -> None:
    """A duplicate in the sense of RFC 5681 2."""
    tx, congestion = conn.tx, conn.congestion
    conn.duplicate_acks_in += 1
    ctx.counters["duplicate_acks_in"] += 1
    old = congestion.cwnd
    decision = conn.recovery.duplicate_ack(tx.snd_una, tx.snd_nxt, highest_sacked)
    if decision == Decision.FAST_RETRANSMIT and mtu_probe.lost(ctx, conn):
        decision = Decision.NOTHING  # its size was to blame, not congestion
    elif decision == Decision.FAST_RETRANSMIT:
        ctx.counters["fast_retransmits"] += 1
        congestion.enter_recovery(tx.snd_nxt - tx.snd_una, now)
        tx.lose_head(tx.mss)
    if decision in (Decision.FAST_RETRANSMIT, Decision.INFLATE):
        congestion.set_window(conn.recovery.window(decision, old, congestion.ssthresh, 0, tx.in_flight(), tx.mss))
    if ctx.interest and congestion.cwnd != old:
        tell_cwnd(ctx, conn, old, decision.name.lower())
    ctx.want_output(conn)


def window_update(ctx: Context, conn: Connection, offset: int, ack: int, window: int) -> bool:
    """SND.WND from an acceptable segment; whether it changed. A window that changes ends the persist state; if it only
    stays small, or TCP_CORK holds data back, the timer goes on, lest a peer that talks puts it off for ever."""
    tx = conn.tx
    old = tx.snd_wnd
    changed = tx.update_window(offset, ack, window)
    if changed and tx.snd_wnd > 0:
        conn.deadlines[PERSIST] = OFF
        if not old and tx.queue and tx.queue[0].times > 1:
            tx.lose_all()  # it was closed over data under way: what we repeated into it was thrown away
    if changed and ctx.interest and (old == 0 or window == 0):
        ctx.emit("window", conn, frame=conn.ack_causes, old=old, new=window)
    return changed


def tell_cwnd(ctx: Context, conn: Connection, old: int, why: str) -> None:
    """The event "cwnd"; callers ask `interest` first."""
    now, mss = conn.congestion, conn.tx.mss
    ctx.emit("cwnd", conn, frame=conn.ack_causes, old=old, new=now.cwnd, mss=mss, ssthresh=now.ssthresh, why=why)
