"""The common segment in ESTABLISHED, taken at once: in order, nothing unusual, nothing lost (Van Jacobson's header
prediction; RFC 7323 appendix B sketches it with timestamps).

It does what `segment_arrives` would do, in the same order, for the cases where most of that is decided by one look;
whatever it does not like it leaves alone and says so. tests/unit/tcp/test_header_prediction.py compares the two.
"""

from __future__ import annotations

import struct

from layers.tcp.acknowledgment import new_ack
from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.delayed_acks import owe_ack
from layers.tcp.timers import PERSIST
from levelip.frames.packet import Segment
from levelip.frames.seam import Store
from levelip.rpc.place import Payload, Place

HALF = 0x8000_0000
MASK = 0xFFFF_FFFF
TS_WORD = 0x0101080A

_STAMPS = struct.Struct(">III")


def predicted(
    ctx: Context, conn: Connection, segment: Segment, seq: int, ack: int, window: int, payload: Payload, now: int
) -> bool:
    """Take the segment if it is as expected; False: nothing was touched.

    The caller has seen: ESTABLISHED, a header of 8 words, flags ACK or ACK PSH.
    """
    rx, tx, recovery = conn.rx, conn.tx, conn.recovery
    if not conn.timestamps or rx.ranges or rx.fin_at >= 0 or recovery.state or recovery.probe_end >= 0:
        return False
    word, value, echo = _STAMPS.unpack_from(segment.head, 20)
    nxt = rx.rcv_nxt
    if word != TS_WORD or (value - conn.ts_recent) & MASK >= HALF or (seq - rx.irs - 1 - nxt) & MASK:
        return False
    una = tx.snd_una
    acked = (ack - tx.iss - 1 - una) & MASK
    if acked > tx.snd_nxt - una:
        return False
    if segment.tos & 1 and conn.ecn.on:  # CE
        return False
    size = len(payload)
    if size:
        if nxt + size > rx.rcv_acc:
            return False
    elif not acked:
        return False  # a duplicate, or a window update

    conn.ack_causes = segment.id
    conn.traced = segment.traced
    conn.last_received_at = now
    conn.probes = 0
    if nxt <= rx.last_ack_sent:  # RFC 7323 4.3
        conn.ts_recent = value
        conn.ts_recent_at = now
    una += acked
    window <<= tx.shift
    # Nothing that came before can be newer than a segment at RCV.NXT, but one that acknowledges less
    if tx.snd_wl1 < nxt or tx.snd_wl2 <= una:
        tx.snd_wl1 = nxt
        tx.snd_wl2 = una
        if window != tx.snd_wnd:
            if ctx.interest and not (window and tx.snd_wnd):
                ctx.emit("window", conn, frame=segment.id, old=tx.snd_wnd, new=window)
            tx.snd_wnd = window
            tx.max_wnd = max(tx.max_wnd, window)
            if not conn.queued:
                conn.queued = True
                ctx.work.append(conn)
            if window:
                conn.deadlines[PERSIST] = -1
    if acked:
        new_ack(ctx, conn, una, echo, now)
        if not conn.queued and tx.snd_nxt < tx.snd_end:  # no FIN waits in ESTABLISHED
            conn.queued = True
            ctx.work.append(conn)
    if size:
        piece = segment.gso_size or size
        rx.mss = max(rx.mss, piece)
        pieces = -(-size // piece)
        conn.data_segments_in += pieces
        counters = ctx.counters
        counters["data_segments_in"] += pieces
        counters["bytes_in"] += size
        rings = conn.rings
        ctx.stores.append(Store(Place(rings.region, rings.receive_base, rings.receive_size, nxt, size), payload))
        rx.rcv_nxt = nxt + size
        if not conn.dirty:
            conn.dirty = True
            ctx.dirty.append(conn)
        owe_ack(ctx, conn, segment, now)
        conn.last_data_received_at = now
    return True
