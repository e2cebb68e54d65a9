"""What loss does to a connection: into recovery and out of it, undoing a reduction, the timers of RACK-TLP.

Decisions are those of Linux (tcp_enter_recovery, tcp_enter_loss, tcp_enter_cwr, tcp_undo_cwnd_reduction); who decides
is `acknowledgment` (an ACK came) and `timeouts` (a timer fired).
"""

from __future__ import annotations

from layers.tcp import mtu_probe, scoreboard
from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.recovery import newreno
from layers.tcp.recovery.rack import DUP_THRESH
from layers.tcp.recovery.state import CaState
from layers.tcp.timers import LOSS_PROBE, OFF, REORDER, RETRANSMIT

PROBE_SLACK = 2 * MS  # ns: added to 2 SRTT while more than a segment is out; Linux TCP_TIMEOUT_MIN
ACK_DELAY = 200 * MS  # ns: RFC 8985 7.2 TLP.max_ack_delay, as Linux (tcp_rto_min): a lone segment's ACK may be delayed
FIRST_PROBE = 1000 * MS  # ns: RFC 8985 7.2 without an SRTT

OPEN, DISORDER, CWR, RECOVERY, LOSS = CaState
PROBING = (OPEN, CWR)  # states in which loss probes are sent


def change(ctx: Context, conn: Connection, state: CaState, why: str) -> None:
    """Loss recovery is in another state."""
    recovery = conn.recovery
    old = recovery.state
    if state == old:
        return
    recovery.state = state
    if state == OPEN:
        recovery.resent_at = -1
    if state <= DISORDER:
        conn.tx.rate.reneged = False
        if old >= CWR:
            conn.validation.reset(ctx.now)
    if old == LOSS:
        conn.timeouts_over(ctx.now)
    if ctx.interest:
        ctx.emit("recovery", conn, frame=conn.ack_causes, old=old.name, new=state.name, why=why)


def settle(ctx: Context, conn: Connection, why: str) -> None:
    """No reduction is under way: OPEN, or DISORDER while there is something beyond a hole."""
    change(ctx, conn, DISORDER if conn.tx.sacked_bytes or conn.recovery.duplicates else OPEN, why)


def tell_loss(ctx: Context, conn: Connection, why: str, size: int) -> None:
    """The event "loss"; callers ask `interest` first."""
    ctx.emit("loss", conn, frame=conn.ack_causes, why=why, bytes=size, rtt=conn.rack.rtt)


def find_lost(ctx: Context, conn: Connection, why: str, now: int) -> tuple[int, bool]:
    """RACK looks for losses (RFC 8985 6.2 step 5): how many bytes are newly lost, and whether a retransmission is.

    Arms the timer that looks again where time alone will tell."""
    tx, rack, rto = conn.tx, conn.rack, conn.rto
    wnd = rack.window(conn.recovery.state, tx.sacked_packets, rto.min_rtt, rto.srtt)
    lost, wait, again = scoreboard.detect(tx, rack, wnd, now)
    if wait:
        ctx.timers.arm(conn, REORDER, now + wait)
    else:
        conn.deadlines[REORDER] = OFF
    if lost:
        ctx.counters["lost_bytes"] += lost
        if again:
            ctx.counters["lost_retransmissions"] += 1
        if ctx.interest:
            tell_loss(ctx, conn, why, lost)
    return lost, again


def enter_recovery(ctx: Context, conn: Connection, recover_fs: int, why: str, now: int) -> None:
    """A loss was found: RFC 6675 5 step 4, RFC 9937 6, RFC 5681 3.2. `recover_fs`: RFC 9937's RecoverFS."""
    tx, recovery, congestion = conn.tx, conn.recovery, conn.congestion
    ctx.counters["fast_retransmits"] += 1
    reduced = recovery.state == CWR  # once a round trip: RFC 3168 6.1.2
    if reduced:
        recovery.undo_marker = -1  # the reduction was ECN's
    else:
        recovery.start_undo(tx.snd_una, tx.retrans_out)
        congestion.enter_recovery(tx.snd_nxt - tx.snd_una, now)
        not_validated(ctx, conn, now)
        recovery.prr.start(recover_fs)
        conn.ecn.reduced(tx.snd_nxt)
    recovery.recover = tx.snd_nxt
    recovery.partials = 0
    recovery.frto = recovery.frto_new = False
    end_probe(conn)
    change(ctx, conn, RECOVERY, why)
    if not conn.sack:
        congestion.set_window(newreno.at_start(congestion.ssthresh, tx.mss))
        tx.lose_head(tx.mss)
        if ctx.interest:
            tell_loss(ctx, conn, why, min(tx.mss, tx.snd_nxt - tx.snd_una))


def not_validated(ctx: Context, conn: Connection, now: int) -> None:
    """The strategy has reduced its window. If that was not validated, what was used decides (RFC 7661 4.4.1)."""
    if ctx.tcp.slow_start_after_idle:
        return
    tx, congestion = conn.tx, conn.congestion
    if conn.validation.congested(congestion.cwnd, tx.snd_nxt - tx.snd_una, conn.rto.srtt, now):
        congestion.reduce_to(conn.validation.window())


def end_reduction(conn: Connection, now: int) -> None:
    """Recovery is over. Of a window that was not validated what had to be sent again is taken off, too, as the path has
    shown that it could not take that (RFC 7661 4.4.1)."""
    congestion, validation = conn.congestion, conn.validation
    if validation.used >= 0:
        window = validation.window()
        congestion.reduce_to(window)
        congestion.exit_recovery(now)
        congestion.set_window(min(window, congestion.cwnd))
    else:
        congestion.exit_recovery(now)
    validation.reset(now)


def enter_cwr(ctx: Context, conn: Connection, now: int) -> None:
    """Congestion was told of without a loss (RFC 3168 6.1.2): the window comes down by PRR, once a round trip."""
    tx, recovery, congestion = conn.tx, conn.recovery, conn.congestion
    if recovery.state >= CWR:
        return
    recovery.undo_marker = -1
    congestion.congestion_experienced(tx.snd_nxt - tx.snd_una, now)
    not_validated(ctx, conn, now)
    recovery.prr.start(tx.snd_nxt - tx.snd_una - tx.sacked_bytes)
    recovery.recover = tx.snd_nxt
    change(ctx, conn, CWR, "ecn")


def enter_loss(ctx: Context, conn: Connection, now: int, *, again: bool = False) -> None:
    """The retransmission timer fired: RFC 6298 5.4, RFC 5681 3.1, RFC 8985 6.3; Linux tcp_enter_loss.

    `again`: not the first time for what is under way, though `retransmits` does not count it (a closed window).
    """
    tx, rack, recovery, congestion = conn.tx, conn.rack, conn.recovery, conn.congestion
    state, old = recovery.state, congestion.cwnd
    # ssthresh falls once for what was sent before the first reduction
    first = state <= DISORDER or tx.snd_una >= recovery.recover or (state == LOSS and not conn.retransmits)
    first = first and not again
    if first:
        recovery.start_undo(tx.snd_una, tx.retrans_out)
    congestion.timeout(tx.snd_nxt - tx.snd_una, first, now)
    conn.validation.reset(now)  # RFC 7661 4.4: what follows is RFC 5681's
    conn.ecn.reduced(tx.snd_nxt)
    if state <= DISORDER and tx.sacked_packets >= DUP_THRESH:  # the degree of reordering was held to be too high
        rack.reordering = min(rack.reordering, DUP_THRESH)
    before = tx.lost_bytes
    wnd = rack.window(state, tx.sacked_packets, conn.rto.min_rtt, conn.rto.srtt)
    if scoreboard.lose_on_timeout(tx, rack, wnd, now, sack=conn.sack):
        ctx.counters["sack_reneging"] += 1
        if ctx.interest:
            ctx.emit("reneged", conn, una=tx.snd_una)
    congestion.set_window(tx.in_flight() + tx.mss)  # RFC 5681 3.1: the loss window, beside what is in flight still
    recovery.recover = tx.snd_nxt
    recovery.duplicates = 0
    recovery.frto = ctx.tcp.frto and (state < RECOVERY or conn.retransmits > 0)  # RFC 5682 2.1 step 1
    recovery.frto_new = False
    end_probe(conn)
    conn.deadlines[REORDER] = OFF
    change(ctx, conn, LOSS, "rto")
    if ctx.interest:
        tell_loss(ctx, conn, "rto", tx.lost_bytes - before)
        if congestion.cwnd != old:
            tell_cwnd(ctx, conn, old, "rto")


def resegment(ctx: Context, conn: Connection) -> None:
    """The path takes smaller packets only: all under way goes again, and cwnd stays (RFC 1191 6.5; Linux
    tcp_simple_retransmit). Call it once the new sizes are set."""
    recovery, tx = conn.recovery, conn.tx
    tx.lose_all()
    if not tx.lost_bytes:
        return
    recovery.undo_marker = -1
    recovery.recover = tx.snd_nxt
    recovery.frto = recovery.frto_new = False
    end_probe(conn)
    conn.deadlines[REORDER] = OFF
    change(ctx, conn, LOSS, "pmtu")


def blame_size(ctx: Context, conn: Connection) -> bool:
    """What was found lost is the probe of a larger MTU, alone: it goes again in smaller packets, and nothing is reduced
    (RFC 4821 7.5; Linux tcp_fastretrans_alert, "MTU probe failure")."""
    recovery = conn.recovery
    if recovery.state >= CWR or not mtu_probe.lost(ctx, conn):
        return False
    recovery.undo_marker = -1
    recovery.recover = conn.tx.snd_nxt  # further duplicates are of what followed the probe, RFC 6582 3.2 step 2
    recovery.frto = recovery.frto_new = False
    end_probe(conn)
    change(ctx, conn, LOSS, "mtu_probe")
    return True


def undo(ctx: Context, conn: Connection, why: str, now: int, *, found: bool = False) -> None:
    """The last reduction was for nothing: windows as before. `found`: and nothing is lost at all (RFC 4015 3)."""
    recovery, congestion = conn.recovery, conn.congestion
    old = congestion.cwnd
    if found:
        conn.tx.lose_none()
    congestion.undo(now)
    conn.ecn.cwr = False  # Linux tcp_ecn_withdraw_cwr
    recovery.undo_marker = -1
    recovery.frto = recovery.frto_new = False
    ctx.counters["undone"] += 1
    ctx.counters[f"undone_{why}"] += 1
    if ctx.interest:
        ctx.emit("undo", conn, frame=conn.ack_causes, why=why, old=old, new=congestion.cwnd, mss=conn.tx.mss)


def overtaken(ctx: Context, conn: Connection, low: int, why: str) -> None:
    """Reordering was seen: what starts at `low` came after what was sent later."""
    rack, mss = conn.rack, conn.tx.mss
    known = rack.reordering_seen
    packets = max(-(-(rack.fack - low) // mss), 1)
    rack.overtaken(packets)
    ctx.counters["reordering_seen"] += 1
    if ctx.interest:
        ctx.emit("reordering", conn, frame=conn.ack_causes, packets=packets, first=not known, why=why)


def tell_cwnd(ctx: Context, conn: Connection, old: int | None, why: str) -> None:
    """The event "cwnd"; callers ask `interest` first. `old` None: there was none before."""
    now, tx = conn.congestion, conn.tx
    ctx.emit(
        "cwnd", conn, frame=conn.ack_causes, old=old, new=now.cwnd, mss=tx.mss, ssthresh=now.ssthresh,
        flight=tx.in_flight(), why=why,
    )  # fmt: skip


def tell_rtt(ctx: Context, conn: Connection, rtt: int) -> None:
    """The event "rtt", of a sample that was taken; callers ask `interest` first."""
    rto = conn.rto
    ctx.emit("rtt", conn, frame=conn.ack_causes, rtt=rtt, srtt=rto.srtt, rttvar=rto.rttvar, rto=rto.rto)


# tail loss probe, RFC 8985 7


def end_probe(conn: Connection) -> None:
    """No probe is under way or due."""
    recovery = conn.recovery
    recovery.probe_end = -1
    recovery.probe_due = False
    conn.deadlines[LOSS_PROBE] = OFF


def probe_deadline(conn: Connection) -> int:
    """PTO, RFC 8985 7.2, from the last data sent or the last ACK of new data on, which the retransmission timer tells;
    never later than that timer (which then waits)."""
    rto, tx = conn.rto, conn.tx
    timeout = conn.deadlines[RETRANSMIT]
    if rto.srtt:
        pto = 2 * rto.srtt + (ACK_DELAY if tx.snd_nxt - tx.snd_una <= tx.mss else PROBE_SLACK)
    else:
        pto = FIRST_PROBE
    return min(max(conn.last_data_sent_at, timeout - rto.rto) + pto, timeout)


def arm_probe(ctx: Context, conn: Connection) -> None:
    """With SACK, in OPEN or CWR, nothing named by SACK, no probe under way. Callers ask first whether the timer is off:
    it is armed as early as it can be due, and when it fires finds out whether it is to wait longer."""
    recovery = conn.recovery
    if recovery.state in PROBING and recovery.probe_end < 0 and not conn.tx.sacked_bytes and ctx.tcp.tlp:
        srtt, timeout = conn.rto.srtt, conn.deadlines[RETRANSMIT]
        earliest = ctx.now + (2 * srtt + PROBE_SLACK if srtt else FIRST_PROBE)
        ctx.timers.arm(conn, LOSS_PROBE, min(earliest, timeout))


def probe_possible(conn: Connection) -> bool:
    """Whether a probe may go: one at a time, and not before an RTT was measured since the last, lest probes keep SRTT
    from ever following a path that got longer (RFC 8985 7.3; Linux asks for the first alone); also not beyond a window
    that shrank."""
    recovery, tx = conn.recovery, conn.tx
    if recovery.probe_samples == conn.rto.samples:
        return False
    if recovery.state not in PROBING or recovery.probe_end >= 0 or tx.sacked_bytes or tx.lost_bytes:
        return False
    return tx.snd_una < tx.snd_nxt <= tx.snd_una + tx.snd_wnd
