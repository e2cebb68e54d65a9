"""SEGMENT ARRIVES for what has no TCB of its own: CLOSED (RFC 9293 3.10.7.1), LISTEN (3.10.7.2), TIME-WAIT records."""

from __future__ import annotations

import struct

from layers.tcp.challenges import answer_allowed
from layers.tcp.closing import arm_time_wait, end_time_wait
from layers.tcp.connection import connection_key
from layers.tcp.context import MS, Context
from layers.tcp.half_open import child_of_cookie, new_child, send_cookie, settle
from layers.tcp.listener import Listener, Room
from layers.tcp.output import PARTIAL, PROTO_TCP, TO_IP_MOST, send_reset_for
from layers.tcp.segment_arrives import segment_for_connection
from layers.tcp.time_wait_reuse import next_isn
from layers.tcp.timewait import TimeWait, TimeWaitVerdict, judge
from levelip.frames.packet import BROADCAST, Segment
from levelip.rpc.place import Payload
from levelip.tracing import reasons
from levelip.wire.options import pack_timestamps, parse_options
from levelip.wire.tcp import ACK, FIN, RST, SYN

_PLAIN = struct.Struct(">HHIIHHHH")
ALWAYS = 2  # tcp.syncookies: a cookie for every SYN


def segment_elsewhere(
    ctx: Context, segment: Segment, seq: int, ack: int, flags: int, window: int, payload: Payload, now: int
) -> None:
    """A segment for no connection: for a TIME-WAIT record, a listener, or nobody."""
    remote_port, local_port = struct.unpack_from(">HH", segment.head)
    length = len(payload) + (1 if flags & SYN else 0) + (1 if flags & FIN else 0)
    key = connection_key(segment.dst, segment.src, remote_port, local_port)
    record = ctx.timewaits.get(key)
    iss = -1
    if record is not None:
        if not _time_wait(ctx, record, segment, seq, flags, length, now):
            return
        iss = next_isn(ctx, record)
    listener = ctx.find_listener(segment.dst, local_port, remote_port)
    if listener is not None:
        _listen(ctx, listener, segment, seq, ack, flags, window, payload, local_port, remote_port, iss, now)
        return
    # CLOSED
    if flags & RST:
        ctx.drop(reasons.TCP_RST_NOWHERE, segment.id)
        return
    if segment.flags & BROADCAST:
        ctx.drop(reasons.TCP_BROADCAST, segment.id)
        return
    ctx.drop(reasons.TCP_NO_CONNECTION, segment.id, port=local_port)
    send_reset_for(ctx, segment, seq, ack, flags, length)


# LISTEN


def _listen(
    ctx: Context, listener: Listener, segment: Segment, seq: int, ack: int, flags: int, window: int, payload: Payload,
    local_port: int, remote_port: int, iss: int, now: int,
) -> None:  # fmt: skip
    """RFC 9293 3.10.7.2; `iss` is the ISN of what comes after a TIME-WAIT record, else -1."""
    # first: check for an RST; second: check for an ACK
    if flags & RST:
        ctx.drop(reasons.TCP_RST_NOWHERE, segment.id)
        return
    ports = (local_port, remote_port)
    if flags & ACK:
        options = parse_options(segment.head[20:], strict=False)
        conn = None
        if not flags & SYN and not segment.flags & BROADCAST:
            conn = child_of_cookie(ctx, listener, segment, ports, seq, ack, window, options, now)
        if conn is not None:
            conn.segments_in += 1  # beside its SYN
            segment_for_connection(ctx, conn, segment, seq, ack, flags, window, payload, now)
            settle(ctx, conn, segment.id)
            return
        ctx.drop(reasons.TCP_ACK_TO_LISTENER, segment.id)
        if not segment.flags & BROADCAST:
            send_reset_for(ctx, segment, seq, ack, flags, 0)
        return
    # third: check for a SYN
    if not flags & SYN:
        ctx.drop(reasons.TCP_NO_SYN, segment.id)
        return
    if flags & FIN:
        ctx.drop(reasons.TCP_SYN_FIN, segment.id)  # Linux tcp_rcv_state_process, LISTEN
        return
    if segment.flags & BROADCAST or (segment.src == segment.dst and remote_port == local_port):
        ctx.drop(reasons.TCP_BROADCAST if segment.flags & BROADCAST else reasons.TCP_LAND, segment.id)
        return
    tcp = ctx.tcp
    room = listener.room(tcp.max_syn_backlog if not tcp.syncookies else 0)
    if room == Room.ACCEPT_QUEUE_FULL or (room == Room.SYN_QUEUE_FULL and not tcp.syncookies):
        listener.overflows += 1
        full = room == Room.ACCEPT_QUEUE_FULL
        ctx.drop(reasons.ACCEPT_QUEUE_FULL if full else reasons.SYN_QUEUE_FULL, segment.id, port=local_port)
        return
    route = ctx.routes.lookup(segment.src)
    if route is None or route.errno:
        ctx.drop(reasons.TCP_NO_ROUTE, segment.id)
        return
    if payload:
        # RFC 9293 3.10.7.2 lets us queue it; like Linux without Fast Open we leave it for the peer to send again
        ctx.drop(reasons.TCP_SYN_PAYLOAD, segment.id)
    options = parse_options(segment.head[20:], strict=False)
    if room == Room.SYN_QUEUE_FULL or tcp.syncookies == ALWAYS:
        send_cookie(ctx, listener, segment, ports, seq, options, route, now)
        return
    if not ctx.slots.available(listener.region):
        ctx.drop(reasons.TCP_NO_SLOT, segment.id, port=local_port)
        return
    conn = new_child(ctx, listener, segment, ports, seq, window, options, route, now, iss)
    conn.ecn.asked(flags, segment.tos, tcp.ecn)
    ctx.want_output(conn)


# TIME-WAIT


def _time_wait(
    ctx: Context, record: TimeWait, segment: Segment, seq: int, flags: int, length: int, now: int
) -> bool:
    """RFC 9293 3.10.7.4 for TIME-WAIT. True if the record gave way and the segment is for the listener."""
    stamps = parse_options(segment.head[20:], strict=False).timestamps
    value = None if stamps is None else stamps[0]
    verdict = judge(
        record, seq, length, syn=bool(flags & SYN), fin=bool(flags & FIN), rst=bool(flags & RST),
        ack=bool(flags & ACK), value=value, protect=ctx.tcp.rfc1337, idle=now - record.ts_recent_at,
    )  # fmt: skip
    if verdict == TimeWaitVerdict.NEW_CONNECTION:
        if ctx.find_listener(record.local, record.local_port, record.remote_port) is None:
            verdict = TimeWaitVerdict.ACKNOWLEDGE
        else:
            ctx.counters["time_wait_reused"] += 1
            end_time_wait(ctx, record)
            return True
    if verdict == TimeWaitVerdict.RESET:
        ctx.counters["resets_in"] += 1
        end_time_wait(ctx, record)
        return False
    ctx.drop(reasons.TCP_PAWS if verdict == TimeWaitVerdict.PAWS else reasons.TCP_IN_TIME_WAIT, segment.id)
    if verdict == TimeWaitVerdict.IGNORE:
        return False
    if verdict == TimeWaitVerdict.RESTART:
        if value is not None and record.timestamps:
            record.ts_recent = value
            record.ts_recent_at = now
        arm_time_wait(ctx, record, now + ctx.tcp.time_wait_ms * MS)
    if answer_allowed(ctx, record):
        _acknowledge(ctx, record, segment, now)
    return False


def _acknowledge(ctx: Context, record: TimeWait, segment: Segment, now: int) -> None:
    if len(ctx.to_ip) >= TO_IP_MOST:
        ctx.drop(reasons.TCP_QUEUE_FULL, segment.id)
        return
    options = b""
    if record.timestamps:
        options = pack_timestamps((now // MS + record.ts_offset) & 0xFFFF_FFFF, record.ts_recent)
    head = _PLAIN.pack(
        record.local_port, record.remote_port, record.snd_nxt, record.rcv_nxt, (20 + len(options)) << 10 | ACK,
        record.rcv_wnd, 0, 0,
    )  # fmt: skip
    ctx.counters["segments_out"] += 1
    ctx.to_ip.append(
        Segment(
            ctx.ids.next(), [segment.id], segment.traced, now, 0, record.local, record.remote, PROTO_TCP, record.ttl,
            record.tos, head + options, b"", PARTIAL, 0,
        )
    )  # fmt: skip
