"""What is done about marks of congestion (RFC 3168 6.1.2, 6.1.3): the crossing of `ecn` with window and ACKs."""

from __future__ import annotations

from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.delayed_acks import QUICK_ACKS_MARK, hurry
from layers.tcp.ecn import CE, FIELD
from layers.tcp.loss import enter_cwr, settle
from layers.tcp.recovery.state import CaState
from levelip.frames.packet import Segment
from levelip.wire.tcp import CWR


def take_echo(ctx: Context, conn: Connection, ack: int, now: int) -> None:
    """A segment with ECE and this acknowledgment, which is looked at next: the window comes down, by what this ACK
    says too, as one may cover much of it. RFC 3168 6.1.2: as for a loss, but nothing is sent again."""
    ecn, tx, recovery = conn.ecn, conn.tx, conn.recovery
    if not tx.snd_una <= ack <= tx.snd_nxt:
        return
    ecn.ece = True
    ctx.counters["ecn_echoes_in"] += 1
    new = ecn.must_reduce(ack)
    if new and recovery.state == CaState.CWR and ack > recovery.recover:
        # it ends the reduction before, so the mark is a new window's (Linux tcp_fastretrans_alert, step D before E)
        conn.congestion.exit_recovery(now)
        settle(ctx, conn, "acknowledged")
    if new and tx.snd_nxt > tx.snd_una and recovery.state < CaState.CWR:
        enter_cwr(ctx, conn, now)
        ecn.reduced(tx.snd_nxt)
        ecn.reductions += 1
        ctx.counters["ecn_reductions"] += 1


def take_marks(ctx: Context, conn: Connection, segment: Segment, flags: int) -> None:
    """An acceptable segment whose ACK was taken: has it a mark to echo, or CWR? RFC 3168 6.1.3."""
    size = len(segment.payload)
    if not size or not (flags & CWR or segment.tos & FIELD == CE):
        return
    packets = -(-size // segment.gso_size) if segment.gso_size else 1
    if segment.tos & FIELD == CE:
        ctx.counters["ecn_marks_in"] += packets
    told = conn.ecn.echo
    if conn.ecn.received(segment.tos, flags, packets):
        conn.ack_now = True
        if conn.ecn.echo and not told:
            hurry(conn, QUICK_ACKS_MARK)
        if ctx.interest:
            ctx.emit("ecn", conn, frame=segment.id, echo=conn.ecn.echo, packets=packets)
