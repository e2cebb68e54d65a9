"""What is done about marks of congestion (RFC 3168 6.1.2, 6.1.3): the crossing of `ecn` with window and ACKs."""

from __future__ import annotations

from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.ecn import CE, FIELD
from layers.tcp.loss import enter_cwr
from layers.tcp.recovery.state import CaState
from levelip.frames.packet import Segment
from levelip.wire.tcp import CWR, ECE


def take_marks(ctx: Context, conn: Connection, segment: Segment, flags: int, flight: int, now: int) -> None:
    """An acceptable segment whose ACK was taken while `flight` was under way, on a connection with ECN."""
    ecn = conn.ecn
    if flags & ECE:
        ctx.counters["ecn_echoes_in"] += 1
        if ecn.must_reduce(conn.tx.snd_una) and flight and conn.recovery.state < CaState.CWR:
            _reduce(ctx, conn, flight, now)
    size = len(segment.payload)
    if size and (flags & CWR or segment.tos & FIELD == CE):
        packets = -(-size // segment.gso_size) if segment.gso_size else 1
        if segment.tos & FIELD == CE:
            ctx.counters["ecn_marks_in"] += packets
        if ecn.received(segment.tos, flags, packets):
            conn.ack_now = True
            if ctx.interest:
                ctx.emit("ecn", conn, frame=segment.id, echo=ecn.echo, packets=packets)


def _reduce(ctx: Context, conn: Connection, flight: int, now: int) -> None:
    """RFC 3168 6.1.2: as for a loss, but nothing is sent again."""
    enter_cwr(ctx, conn, now, flight=flight)
    conn.ecn.reduced(conn.tx.snd_nxt)
    conn.ecn.reductions += 1
    ctx.counters["ecn_reductions"] += 1
