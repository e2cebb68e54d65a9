"""What the gateway is told of a stream: data, end of file, and how far it may send. Coalesced: once a flush."""

from __future__ import annotations

from layers.tcp.chronograph import BUSY, IDLE, SNDBUF
from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.states import State
from levelip.rpc.place import Place
from levelip.rpc.stream import Accepted, Data, Eof

GRANT_STEP = 131_072  # bytes: a new limit is worth a message when it grew by this (DESIGN 6)


def tell_progress(ctx: Context, conn: Connection) -> None:
    """Tell what has changed since the last time; nothing to an application that has closed."""
    conn.dirty = False
    if conn.orphan:
        return
    rx, tx = conn.rx, conn.tx
    end = rx.rcv_nxt
    ended = rx.fin_at >= 0 and end > rx.fin_at
    if ended:
        end = rx.fin_at
    told = conn.told_data
    if end > told:
        rings = conn.rings
        place = Place(rings.region, rings.receive_base, rings.receive_size, told, end - told)
        ctx.to_gateway.append(Data(conn.id, told, place))
        conn.told_data = end
    if ended and not conn.told_eof:
        conn.told_eof = True
        ctx.to_gateway.append(Eof(conn.id, end))
    if conn.state != State.CLOSED and grant_due(conn):
        tx.tune(conn.congestion.cwnd)
        tx.limit = tx.grant()
        ctx.to_gateway.append(Accepted(conn.id, tx.snd_end, tx.limit))
        if conn.chrono.kind == SNDBUF:
            conn.chrono.turn(BUSY if tx.snd_end > tx.snd_una else IDLE, ctx.now)


def grant_due(conn: Connection) -> bool:
    """Whether the limit has grown enough to be told: by a step, by an eighth of the buffer, or all is acknowledged; of
    TCP_NOTSENT_LOWAT by half (Linux tcp_stream_memory_free)."""
    tx = conn.tx
    grown = (tx.room() if tx.lowat else tx.snd_una + tx.buffer) - tx.limit
    if grown <= 0:
        return False
    enough = grown >= GRANT_STEP or grown >= tx.buffer >> 3 or tx.snd_una >= tx.snd_end
    return enough or 0 < tx.lowat <= 2 * grown


def tell_accepted(ctx: Context, conn: Connection) -> None:
    """Answer a Send that does not fit to what is known: how far it is known, and how far it may go."""
    tx = conn.tx
    tx.limit = tx.grant()
    ctx.to_gateway.append(Accepted(conn.id, tx.snd_end, tx.limit))
