"""Urgent data: a mark in the stream, not a channel beside it. RFC 9293 3.8.5, RFC 6093.

The urgent pointer counts from the segment's first octet to the octet after the urgent data (RFC 6093 2.2, MUST-62; as
Linux without tcp_stdurg). Urgent data stays in line (RFC 6093 6): what the application makes of the mark, SIGURG,
MSG_OOB or nothing, is the gateway's; tcp tells it where the mark is, ahead of the data, and marks what it is told to.

    snd_up, rcv_up: offset after the last urgent octet, ours and the peer's; -1: none
"""

from __future__ import annotations

import struct

from layers.tcp.connection import Connection
from layers.tcp.context import Context
from layers.tcp.routes import ip_header
from layers.tcp.states import RECEIVING, State
from layers.tcp.telling import tell_accepted
from levelip.frames.packet import Segment
from levelip.rpc.stream import Urgent
from levelip.tracing import reasons
from levelip.wire.tcp import URG

TCP_HEADER = 20  # bytes
AT_FLAGS, AT_POINTER = 13, 18  # bytes into the header, RFC 9293 3.1
FARTHEST = 0xFFFF


def send_urgent(ctx: Context, call: Urgent, now: int) -> None:
    """SEND with the URGENT flag, RFC 9293 3.10.2: the data below `upto` is urgent, as far as it has come and what
    follows of it.

    A repeat or a mark below an older one changes nothing. While the mark is not acknowledged no super-segment goes
    out: not every device that cuts them moves the pointer along (Linux tcp_urg_mode does the same).
    """
    conn = ctx.sockets.get(call.sock)
    if conn is None or conn.orphan:
        ctx.drop(reasons.TCP_UNKNOWN_SOCKET, 0)
        return
    tx = conn.tx
    if conn.state not in (State.ESTABLISHED, State.CLOSE_WAIT):
        ctx.drop(reasons.TCP_NOT_CONNECTED, 0, conn)
        return
    if call.upto > max(tx.grant(), tx.promised) or (0 <= tx.eof < call.upto):
        ctx.drop(reasons.TCP_SEND_BEYOND, 0, conn, offset=call.upto, length=0, limit=tx.grant())
        tell_accepted(ctx, conn)
        return
    if call.upto <= tx.snd_una or call.upto <= conn.snd_up:
        return
    conn.snd_up = call.upto
    tx.most = tx.mss
    ctx.counters["urgent_out"] += 1
    if ctx.interest:
        ctx.emit("urgent", conn, upto=call.upto, sent=True)
    ctx.want_output(conn)


def marked(conn: Connection, head: bytes, start: int) -> bytes:
    """The header of a segment from offset `start` on, with the pointer if its data comes before the mark.

    Urgent data of any length (MUST-31): where the mark is farther than the field reaches, it says as far as it can.
    """
    ahead = conn.snd_up - start
    if conn.tx.snd_una >= conn.snd_up:
        conn.snd_up = -1
        conn.set_mss(ip_header(conn.remote) + TCP_HEADER)  # super-segments may go again
        return head
    if ahead <= 0:
        return head
    flags = head[AT_FLAGS] | URG
    pointer = struct.pack(">H", min(ahead, FARTHEST))
    return head[:AT_FLAGS] + bytes((flags,)) + head[AT_FLAGS + 1 : AT_POINTER] + pointer + head[AT_POINTER + 2 :]


def take_urgent(ctx: Context, conn: Connection, segment: Segment, offset: int) -> None:
    """RFC 9293 3.10.7.4 sixth step: RCV.UP moves up, and the application hears of it at once (MUST-32).

    A mark on what was delivered already, or no farther than the last, says nothing new; a pointer of 0 means the first
    octet of the segment (both as Linux tcp_check_urg).
    """
    if conn.state not in RECEIVING or conn.orphan:
        return
    (pointer,) = struct.unpack_from(">H", segment.head, AT_POINTER)
    upto = offset + max(pointer, 1)
    if upto <= conn.rx.rcv_nxt or upto <= conn.rcv_up:
        return
    conn.rcv_up = upto
    ctx.counters["urgent_in"] += 1
    if ctx.interest:
        ctx.emit("urgent", conn, frame=segment.id, upto=upto, sent=False)
    ctx.to_gateway.append(Urgent(conn.id, upto))
