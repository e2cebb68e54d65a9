"""The peer acknowledges: RTT, timers, congestion window, loss recovery. RFC 9293 3.10.7.4 fifth step, RFC 5681, 6298.

Whether the acknowledgment is acceptable was decided before. `new_ack` is for the common case: nothing is lost, nothing
named by SACK, no recovery under way. All else goes through `take_ack`: what arrived (`scoreboard`), what that means for
the state of recovery (Linux tcp_fastretrans_alert, in its order), then window and timers.
"""

from __future__ import annotations

from layers.tcp import loss, scoreboard
from layers.tcp.chronograph import IDLE
from layers.tcp.congestion.base import AckSample
from layers.tcp.connection import PROGRESS_EVERY, Connection
from layers.tcp.context import MS, Context
from layers.tcp.loss import tell_cwnd, tell_rtt
from layers.tcp.output import TO_IP_MOST, next_segment
from layers.tcp.recovery import newreno
from layers.tcp.recovery.state import CaState
from layers.tcp.scoreboard import News
from layers.tcp.telling import grant_due
from layers.tcp.timers import LOSS_PROBE, OFF, PERSIST, REORDER, RETRANSMIT
from levelip.frames.packet import Progress
from levelip.tracing import reasons

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF
RENEGING_WAIT = 10 * MS  # ns: how long a peer that seems to have reneged may still turn out not to (Linux)

Blocks = tuple[tuple[int, int], ...]
OPEN, DISORDER, CWR, RECOVERY, LOSS = CaState


def new_ack(ctx: Context, conn: Connection, ack: int, echo: int, now: int) -> None:
    """SND.UNA moves up to `ack` in OPEN, with no probe under way; `echo` is TSecr, or -1 without timestamps."""
    tx, rto, congestion = conn.tx, conn.rto, conn.congestion
    before = tx.snd_una
    flight = tx.snd_nxt - before
    rtt = tx.acknowledge(ack, now)
    if rtt >= 0:
        rto.sample_of_ack(rtt, ack, tx.snd_nxt, now)
        if ctx.interest:
            tell_rtt(ctx, conn, rtt)
    elif echo > 0:  # RTTM, RFC 7323 4: it tells which transmission is meant, so retransmitted data counts too
        ticks = (conn.ts_now(now) - echo) & MASK
        if ticks < HALF:
            rtt = max(ticks, 1) * MS
            rto.sample_of_ack(rtt, ack, tx.snd_nxt, now)
            if ctx.interest:
                tell_rtt(ctx, conn, rtt)
    tx.rate.acked(tx.delivered, rto.min_rtt, now)
    conn.retransmits = 0
    conn.first_timeout_at = OFF
    conn.probes = 0
    if now >= conn.progress_at:
        tell_arrival(ctx, conn, now)
    old = congestion.cwnd
    limited = _limited(conn, ctx.tcp.slow_start_after_idle or _validated(conn, before, now))
    congestion.acked(AckSample(ack - before, ack, tx.snd_nxt, flight, limited, rtt, rto.srtt, rto.min_rtt, now))
    if ctx.interest and congestion.cwnd != old:
        tell_cwnd(ctx, conn, old, "ack")
    if conn.sack:
        rack = conn.rack
        newest = tx.newest_at
        if tx.newest_end > before and (tx.newest_times == 1 or now - newest >= rto.min_rtt):
            rack.rtt = now - newest  # RFC 8985 6.2 step 2
            if newest >= rack.sent_at:
                rack.sent_at = newest
                rack.end = tx.newest_end
        if ack == tx.snd_nxt:
            conn.deadlines[LOSS_PROBE] = OFF
    if ack == tx.snd_nxt:
        conn.deadlines[RETRANSMIT] = OFF  # RFC 6298 5.2
        if ack >= tx.snd_end:
            conn.chrono.turn(IDLE, now)
    else:
        ctx.timers.arm(conn, RETRANSMIT, now + rto.rto)  # RFC 6298 5.3
        if conn.sack and conn.deadlines[LOSS_PROBE] < 0:
            loss.arm_probe(ctx, conn)
    if not conn.orphan and grant_due(conn) and not conn.dirty:
        ctx.mark_dirty(conn)


def tell_arrival(ctx: Context, conn: Connection, now: int) -> None:
    """What we send arrives: the neighbour on the way need not be asked whether it is there (RFC 4861 7.3.1, upper-layer
    confirmation; Linux sk_dst_confirm). Once in a while is enough: it is believed for half a minute."""
    conn.progress_at = now + PROGRESS_EVERY
    if len(ctx.to_ip) < TO_IP_MOST:
        ctx.to_ip.append(Progress(conn.remote))


def take_ack(
    ctx: Context, conn: Connection, ack: int, echo: int, blocks: Blocks, frame: int, now: int, *, duplicate: bool
) -> None:
    """An ACK at or beyond SND.UNA with its SACK blocks; `duplicate` in the sense of RFC 5681 2."""
    tx, recovery, rto = conn.tx, conn.recovery, conn.rto
    if not conn.sack:
        blocks = ()
    before = tx.snd_una
    advanced = ack > before
    if not (recovery.state or blocks or tx.lost_bytes or recovery.probe_end >= 0):
        if advanced:
            new_ack(ctx, conn, ack, echo, now)
            return
        if not duplicate:
            return
    if recovery.state <= DISORDER and conn.queued:
        _send_before(ctx, conn, now)
    if duplicate:
        conn.duplicate_acks_in += 1
        ctx.counters["duplicate_acks_in"] += 1
    ticks = (conn.ts_now(now) - echo) & MASK if echo > 0 else HALF
    echoed = now // MS - ticks if ticks < HALF else -1
    news = News(recovery.recover, echoed, rto.min_rtt, now)
    outstanding, flight, sacked, old = tx.snd_nxt - before, tx.in_flight(), tx.sacked_bytes, conn.congestion.cwnd
    if blocks:
        good = scoreboard.judge_blocks(tx, blocks, ack, news)
    if advanced:
        scoreboard.acknowledge(tx, conn.rack, ack, news)
        conn.retransmits = 0
        conn.first_timeout_at = OFF
        conn.probes = 0
        if now >= conn.progress_at:
            tell_arrival(ctx, conn, now)
    if blocks:
        for left, right in good:
            scoreboard.mark_sacked(tx, conn.rack, left, right, news)
        for left, right in news.invalid:
            ctx.drop(reasons.TCP_SACK_INVALID, frame, conn, left=left, right=right)
    rtt = _measure(ctx, conn, news, advanced, now)
    tx.rate.acked(tx.delivered, rto.min_rtt, now)
    _reordering(ctx, conn, news)
    if news.newest_at >= 0:
        conn.rack.update(news.newest_at, news.newest_end, now)
    recovery.frto_new = False
    twice = _dsack(ctx, conn, news, ack) if news.dsack is not None else False
    repaired = recovery.probe_end >= 0 and _probe_answered(ctx, conn, ack, news, advanced, duplicate, twice, now)
    recover_fs = outstanding - sacked
    reducing = recovery.state in (CWR, RECOVERY)
    repairing = recovery.state >= CWR
    fresh = news.acked + news.sacked
    if conn.sack:
        lost = _with_sack(ctx, conn, news, recover_fs, advanced, duplicate, now)
    else:
        lost = 0
        if advanced and recovery.state == DISORDER:
            # each duplicate ACK has told of a segment that arrived: only the rest is new (Linux tcp_remove_reno_sacks)
            fresh = max(fresh - recovery.duplicates * tx.mss, min(fresh, tx.mss))
        _without_sack(ctx, conn, news, ack - before, recover_fs, advanced, duplicate, now)
    validated = True
    if not ctx.tcp.slow_start_after_idle and not repairing and recovery.state <= DISORDER:
        validated = _validated(conn, before, now)
    _window(conn, AckSample(
        fresh, ack, tx.snd_nxt, flight, _limited(conn, validated), rtt, rto.srtt, rto.min_rtt,
        now,
    ), advanced, reducing, lost)  # fmt: skip
    if ctx.interest and conn.congestion.cwnd != old:
        tell_cwnd(ctx, conn, old, recovery.state.name.lower() if recovery.state else "tlp" if repaired else "ack")
    _timers(ctx, conn, advanced, now)
    if advanced and not conn.orphan and grant_due(conn):
        ctx.mark_dirty(conn)
    ctx.want_output(conn)


def _send_before(ctx: Context, conn: Connection, now: int) -> None:
    """What the ACKs before this one let out goes first, as if they had come apart: it counts in the FlightSize from
    which a loss reduces the window (RFC 5681 3.1), and its own ACKs show sooner what else is lost."""
    while len(ctx.to_ip) < TO_IP_MOST and (segment := next_segment(ctx, conn, now)) is not None:
        ctx.to_ip.append(segment)


def _limited(conn: Connection, validated: bool) -> bool:
    """cwnd, as this ACK has left it (an undo may have brought it back), is what holds us back: Linux
    tcp_is_cwnd_limited, RFC 7661 4.4; in slow start also one of which more than half is used, unless it is not
    `validated`. No growth by an ACK with ECN-Echo: RFC 3168 6.1.2."""
    if conn.ecn.ece:
        return False
    cwnd = conn.congestion.cwnd
    return conn.cwnd_limited or (validated and cwnd < conn.congestion.ssthresh and cwnd < 2 * conn.usage)


def _validated(conn: Connection, before: int, now: int) -> bool:
    """SND.UNA was at `before` and no loss is being repaired: RFC 7661 4.2, 4.3."""
    tx, srtt, validation = conn.tx, conn.rto.srtt, conn.validation
    validation.acked(before, tx.snd_una, tx.snd_nxt, srtt, now)
    return validation.validated(conn.congestion.cwnd, srtt, now)


# what the ACK tells


def _measure(ctx: Context, conn: Connection, news: News, advanced: bool, now: int) -> int:
    """An RTT, of what was sent once, else by timestamps (Linux tcp_ack_update_rtt). Not where something sent again
    is acknowledged along: what was sent once may have waited behind that hole for long (Karn, RFC 6298 3)."""
    rto = conn.rto
    if news.first_at >= 0 and not news.again:
        rtt = now - news.first_at
    elif news.sacked_at >= 0:
        rtt = now - news.sacked_at
    elif advanced and news.echoed >= 0:
        rtt = max(now // MS - news.echoed, 1) * MS
    else:
        return -1
    rto.sample_of_ack(rtt, conn.tx.snd_una, conn.tx.snd_nxt, now)
    if ctx.interest:
        tell_rtt(ctx, conn, rtt)
    return rtt


def _reordering(ctx: Context, conn: Connection, news: News) -> None:
    """RFC 8985 6.2 step 3."""
    if news.low >= 0 and conn.sack:
        loss.overtaken(ctx, conn, news.low, "sack")


def _dsack(ctx: Context, conn: Connection, news: News, ack: int) -> bool:
    """The peer has something twice (RFC 2883). True if that is the loss probe."""
    recovery, rack = conn.recovery, conn.rack
    assert news.dsack is not None
    left, right = news.dsack
    rack.dsacks += 1
    ctx.counters["dsacks_in"] += 1
    if ctx.interest:
        ctx.emit("dsack", conn, frame=conn.ack_causes, left=left, right=right)
    if recovery.undo_marker >= 0 and right > recovery.undo_marker:
        recovery.undo_bytes -= right - left
    if recovery.probe_again and right == recovery.probe_end:
        return True
    rack.dsack(ack, conn.tx.snd_nxt)
    return False


def _probe_answered(
    ctx: Context, conn: Connection, ack: int, news: News, advanced: bool, duplicate: bool, twice: bool, now: int
) -> bool:
    """RFC 8985 7.4: did the probe repair a loss that nobody would hear of else? Then the window was reduced for it.
    Linux tcp_process_tlp_ack."""
    recovery, tx, congestion = conn.recovery, conn.tx, conn.congestion
    if ack < recovery.probe_end:
        return False
    if not recovery.probe_again or twice:
        recovery.probe_end = -1  # new data was acknowledged; or both copies arrived: nothing was lost
    elif ack > recovery.probe_end:
        # the probe's own segment was acknowledged without a D-SACK before: it repaired a loss
        ctx.counters["loss_probe_recoveries"] += 1
        recovery.probe_end = -1
        if recovery.state <= DISORDER:
            congestion.enter_recovery(tx.snd_nxt - tx.snd_una, now)
            loss.not_validated(ctx, conn, now)
            conn.validation.again(tx.snd_una - tx.mss, tx.snd_una)
            conn.ecn.reduced(tx.snd_nxt)
            loss.end_reduction(conn, now)
            if ctx.interest:
                loss.tell_loss(ctx, conn, "tlp", tx.mss)
            return True
    elif not advanced and not news.sacked and duplicate:
        recovery.probe_end = -1  # a pure duplicate ACK: both copies arrived
    return False


# state


def _with_sack(
    ctx: Context, conn: Connection, news: News, recover_fs: int, advanced: bool, duplicate: bool, now: int
) -> int:
    """Recovery by RACK (RFC 8985), entered and left as RFC 6675 5 does. Returns the bytes that are newly lost."""
    recovery, tx, rack = conn.recovery, conn.tx, conn.rack
    if advanced and tx.queue and tx.queue[0].sacked:
        # it stops just where the peer said that it has more: has it thrown that away? Linux tcp_check_sack_reneging
        wait = max(conn.rto.srtt // 16, RENEGING_WAIT)
        conn.deadlines[RETRANSMIT] = conn.deadlines[REORDER] = OFF
        ctx.timers.arm(conn, RETRANSMIT, now + wait)
        if ctx.interest:
            ctx.emit("timer", conn, frame=conn.ack_causes, name="reneging", deadline=now + wait)
        return 0
    una = tx.snd_una
    if recovery.state == CWR and una > recovery.recover:
        loss.end_reduction(conn, now)
        loss.settle(ctx, conn, "acknowledged")
    elif recovery.state == RECOVERY and una >= recovery.recover:
        rack.recovered()
        if not _undo_if_spurious(ctx, conn, news, now, advanced=advanced):
            loss.end_reduction(conn, now)
        loss.settle(ctx, conn, "acknowledged")
    if recovery.state == RECOVERY:
        if advanced and recovery.delayed(news.echoed):
            loss.overtaken(ctx, conn, una, "timestamp")
            if tx.retrans_out:
                return 0  # a delayed original filled the hole: wait what becomes of the retransmissions
            loss.undo(ctx, conn, "timestamp", now, found=True)
            loss.settle(ctx, conn, "undo")
        elif recovery.all_twice():
            loss.undo(ctx, conn, "dsack", now)
            loss.settle(ctx, conn, "undo")
    elif recovery.state == LOSS:
        _in_loss(ctx, conn, news, advanced, duplicate, now)
    elif recovery.state <= DISORDER and recovery.all_twice():
        loss.undo(ctx, conn, "dsack", now)
    state = recovery.state
    lost, again = loss.find_lost(ctx, conn, "rack" if rack.reordering_seen else "dupack", now)
    if state == LOSS and not again:
        return lost
    if tx.lost_bytes and state != RECOVERY:
        if loss.blame_size(ctx, conn):
            return 0
        loss.enter_recovery(ctx, conn, recover_fs, "rack" if rack.reordering_seen else "dupack", now)
    elif state <= DISORDER:
        loss.settle(ctx, conn, "sack")
    return lost


def _without_sack(
    ctx: Context, conn: Connection, news: News, acked: int, recover_fs: int, advanced: bool, duplicate: bool, now: int
) -> None:  # fmt: skip
    """NewReno, RFC 6582, with limited transmit, RFC 3042."""
    recovery, tx, congestion = conn.recovery, conn.tx, conn.congestion
    if advanced:
        recovery.duplicates = 0
    elif duplicate:
        recovery.duplicates += 1
    state = recovery.state
    if state == RECOVERY:
        if not advanced:
            if duplicate:
                congestion.set_window(congestion.cwnd + tx.mss)  # RFC 5681 3.2 step 4
        elif tx.snd_una >= recovery.recover:
            if not _undo_if_spurious(ctx, conn, news, now, advanced=True):
                loss.end_reduction(conn, now)
                congestion.set_window(newreno.at_exit(congestion.cwnd, tx.in_flight(), tx.mss))
            loss.settle(ctx, conn, "acknowledged")
        elif recovery.delayed(news.echoed) and not tx.retrans_out:
            loss.undo(ctx, conn, "timestamp", now, found=True)
            loss.settle(ctx, conn, "undo")
        else:
            recovery.partials += 1
            congestion.set_window(newreno.after_partial(congestion.cwnd, acked, tx.mss))
            tx.lose_head(tx.mss)
        return
    if state == CWR and advanced and tx.snd_una > recovery.recover:
        loss.end_reduction(conn, now)
        loss.settle(ctx, conn, "acknowledged")
    elif state == LOSS:
        _in_loss(ctx, conn, news, advanced, duplicate, now)
    if newreno.third_duplicate(recovery, tx.snd_una):
        if loss.blame_size(ctx, conn):
            return
        loss.enter_recovery(ctx, conn, recover_fs, "dupack", now)
    elif recovery.state <= DISORDER:
        loss.settle(ctx, conn, "dupack")


def _undo_if_spurious(ctx: Context, conn: Connection, news: News, now: int, *, advanced: bool) -> bool:
    """Linux tcp_may_undo: by timestamps (RFC 3522) or D-SACK (RFC 3708)."""
    recovery = conn.recovery
    if advanced and recovery.delayed(news.echoed):
        loss.undo(ctx, conn, "timestamp", now, found=True)
        return True
    if recovery.all_twice():
        loss.undo(ctx, conn, "dsack", now, found=True)
        return True
    return False


def _in_loss(ctx: Context, conn: Connection, news: News, advanced: bool, duplicate: bool, now: int) -> None:
    """After a timeout: F-RTO (RFC 5682 2.1; with SACK 3.1), undo, the end; Linux tcp_process_loss."""
    recovery, tx = conn.recovery, conn.tx
    recovered = tx.snd_una >= recovery.recover
    if advanced and _undo_if_spurious(ctx, conn, news, now, advanced=True):
        loss.settle(ctx, conn, "undo")
        return
    if recovery.frto:
        # 3.b: something sent once, before the timeout, arrived. Without SACK nobody knows that of an ACK which also
        # acknowledges a retransmission; and an ACK of everything proves nothing (2.a).
        if news.original and not recovered and (conn.sack or not news.again):
            ctx.counters["spurious_rtos"] += 1
            loss.undo(ctx, conn, "frto", now, found=True)
            loss.settle(ctx, conn, "undo")
            return
        if tx.snd_nxt > recovery.recover:  # 3.a: new data went out, and only it arrives: the loss was real
            if news.sacked or duplicate:
                recovery.frto = False
        elif advanced and not recovered:  # 2.b: new data shall tell
            recovery.recover = tx.snd_nxt
            if tx.unsent() and tx.snd_una + tx.snd_wnd > tx.snd_nxt:
                recovery.frto_new = True
                return
            recovery.frto = False
    if recovered:
        if conn.sack:
            conn.rack.recovered()
        loss.settle(ctx, conn, "acknowledged")


# what follows


def _window(conn: Connection, sample: AckSample, advanced: bool, reducing: bool, lost: int) -> None:
    """cwnd: by PRR while a reduction is under way, by the strategy else (Linux tcp_cong_control), but not by the ACK
    that ends the reduction (`reducing`: it was under way before)."""
    recovery, congestion, tx = conn.recovery, conn.congestion, conn.tx
    state = recovery.state
    if state == CWR or (state == RECOVERY and conn.sack):
        if sample.acked > 0:
            safe = advanced and not lost
            cwnd = recovery.prr.window(sample.acked, safe, tx.in_flight(), congestion.ssthresh, tx.mss)
            congestion.set_window(cwnd)
    elif state != RECOVERY and not reducing and (advanced or (conn.rack.reordering_seen and sample.acked)):
        congestion.acked(sample)  # Linux tcp_may_raise_cwnd


def _timers(ctx: Context, conn: Connection, advanced: bool, now: int) -> None:
    """RFC 6298 5.2, 5.3; RFC 6582 3.2 step 3: in NewReno's recovery the first partial ACK alone (impatient)."""
    tx, recovery, rto = conn.tx, conn.recovery, conn.rto
    if tx.snd_una == tx.snd_nxt:
        conn.deadlines[RETRANSMIT] = conn.deadlines[REORDER] = OFF
        if tx.snd_una >= tx.snd_end and conn.chrono.kind:
            conn.chrono.turn(IDLE, now)
    elif advanced and not (conn.sack and tx.queue[0].sacked):
        if conn.sack or recovery.state != RECOVERY or recovery.partials == 1:
            ctx.timers.arm(conn, RETRANSMIT, now + rto.rto)
    if conn.sack:
        if tx.snd_una == tx.snd_nxt or recovery.state not in loss.PROBING:
            conn.deadlines[LOSS_PROBE] = OFF
        elif advanced and conn.deadlines[LOSS_PROBE] < 0:
            loss.arm_probe(ctx, conn)


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
