"""A SYN for a listener becomes a connection in SYN-RECEIVED, or nothing but a cookie: RFC 9293 3.10.7.2, RFC 4987.

A half-open connection costs a TCB and no ring: its slot is taken when the handshake is complete (`opening.admitted`).
Beyond the backlog nothing is remembered: the SYN-ACK bears a cookie, and the ACK that brings it back makes the
connection. ACKs are looked through for cookies only while some of a listener's can be under way (Linux
tcp_synq_no_recent_overflow), so that at other times nobody can guess one.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from layers.tcp.closing import gone
from layers.tcp.connection import Connection, connection_key
from layers.tcp.context import MS, Context
from layers.tcp.ecn import OFF, Ecn
from layers.tcp.isn import timestamp_offset
from layers.tcp.listener import Listener
from layers.tcp.opening import agree, new_connection, receive_sizes
from layers.tcp.output import PARTIAL, PROTO_TCP, TCP_HEADER, TO_IP_MOST
from layers.tcp.ports import Binding
from layers.tcp.receive_space import scale_for, whole_segments
from layers.tcp.routes import mss_of
from layers.tcp.send_space import Sent
from layers.tcp.states import Input, State
from layers.tcp.syn_cookies import PERIOD, PERIODS, make_cookie, make_stamp, read_cookie, read_stamp
from levelip.frames.packet import Route, Segment
from levelip.rpc.place import Rings
from levelip.tracing import reasons
from levelip.wire.ipoptions import echoed, to_send
from levelip.wire.options import TcpOptions
from levelip.wire.tcp import ACK, SYN

MASK = 0xFFFF_FFFF
DEFAULT_MSS = 536  # bytes, RFC 9293 3.7.1 (MUST-15)
FLAGS_BYTE = 13  # offset in the TCP header

_PLAIN = struct.Struct(">HHIIHHHH")


def answer_options(segment: Segment) -> bytes:
    """IP options of a connection that this SYN (or ACK with a cookie) makes: record route and timestamps come back
    (RFC 9293 3.9.2.1, Linux tcp_v4_save_options), whatever the listener's own are."""
    return (to_send(echoed(segment.options), privileged=False) or b"") if segment.options else b""


def new_child(
    ctx: Context, listener: Listener, segment: Segment, ports: tuple[int, int], irs: int, window: int,
    options: TcpOptions, route: Route, now: int, iss: int = -1,
) -> Connection:  # fmt: skip
    """A connection in SYN-RECEIVED whose SYN had `irs` and `options`; `ports`: ours, theirs; `iss` -1: by RFC 6528."""
    tcp = ctx.tcp
    local_port, remote_port = ports
    own = listener.options
    conn = new_connection(
        ctx, ctx.child_id(), segment.dst, local_port, segment.src, remote_port, route=route,
        rings=Rings(listener.region, 0, tcp.send_ring, 0, tcp.receive_ring),
        options=replace(own, ip_options=answer_options(segment)), now=now,
    )  # fmt: skip
    conn.rings_held = False
    conn.listener = listener.id
    conn.ack_causes = segment.id
    conn.traced = segment.traced
    conn.segments_in = 1
    conn.last_received_at = now
    if iss >= 0:
        conn.tx.iss = iss
    conn.rx.start(irs)
    agree(conn, options, now)
    conn.tx.update_window(-1, -1, window)
    listener.half_open[conn.id] = True
    binding = ctx.ports.by_socket[listener.id]
    ctx.ports.hold(conn.id, Binding(segment.dst, local_port, binding.reuse_address, binding.reuse_port))
    ctx.change_state(conn, Input.SYN, segment.id)
    return conn


def send_cookie(
    ctx: Context, listener: Listener, segment: Segment, ports: tuple[int, int], irs: int, options: TcpOptions,
    route: Route, now: int,
) -> None:  # fmt: skip
    """The SYN-ACK that holds all of it. Without timestamps there is room for the MSS alone."""
    tcp, secret = ctx.tcp, ctx.config.isn_secret
    if len(ctx.to_ip) >= TO_IP_MOST:
        ctx.drop(reasons.TCP_QUEUE_FULL, segment.id)
        return
    listener.cookie_at = now
    ctx.counters["syn_cookies_sent"] += 1
    if ctx.interest:
        ctx.emit("syn_cookie", frame=segment.id, port=ports[0], half_open=len(listener.half_open))
    local, remote = segment.dst, segment.src
    who = connection_key(local, remote, ports[1], ports[0])
    cookie = make_cookie(secret, who, irs, options.mss or DEFAULT_MSS, now)
    own = listener.options
    mss = mss_of(route.mtu, remote)
    buffer, most = receive_sizes(tcp, own, tcp.receive_ring)
    stamps = scale = None
    sack = False
    ecn = Ecn()
    if tcp.timestamps and options.timestamps is not None:
        sack = tcp.sack and options.sack_permitted
        theirs = options.wscale if tcp.window_scaling else None
        scale = None if theirs is None else scale_for(most)
        ecn.asked(segment.head[FLAGS_BYTE], segment.tos, tcp.ecn)
        ticks = make_stamp(now // MS, scale=None if theirs is None else min(theirs, 14), sack=sack, ecn=ecn.on)
        stamps = ((ticks + timestamp_offset(secret, local, remote)) & MASK, options.timestamps[0])
    mss = min(mss, own.maxseg) if own.maxseg else mss
    packed = TcpOptions(mss=mss, wscale=scale, sack_permitted=sack, timestamps=stamps).serialize()
    window = whole_segments(min(buffer, 0xFFFF), mss - (12 if stamps else 0))
    head = _PLAIN.pack(
        *ports, cookie, (irs + 1) & MASK, (TCP_HEADER + len(packed)) << 10 | SYN | ACK | ecn.syn_ack_flags(), window,
        0, 0,
    )  # fmt: skip
    ctx.counters["segments_out"] += 1
    ctx.to_ip.append(
        Segment(
            ctx.ids.next(), [segment.id], segment.traced, now, 0, local, remote, PROTO_TCP, own.ttl, own.tos,
            head + packed, b"", PARTIAL, 0, True, 0, b"", answer_options(segment),
        )
    )  # fmt: skip


def child_of_cookie(
    ctx: Context, listener: Listener, segment: Segment, ports: tuple[int, int], seq: int, ack: int, window: int,
    options: TcpOptions, now: int,
) -> Connection | None:  # fmt: skip
    """The connection in SYN-RECEIVED that an ACK with a cookie of ours brings back; None if it has none that is good.

    The segment itself is still to be taken, and then `settle` called.
    """
    tcp, secret = ctx.tcp, ctx.config.isn_secret
    if not 0 <= now - listener.cookie_at <= PERIODS * PERIOD or listener.cookie_at < 0:
        return None
    irs, iss = (seq - 1) & MASK, (ack - 1) & MASK
    local, remote = segment.dst, segment.src
    mss = read_cookie(secret, connection_key(local, remote, ports[1], ports[0]), irs, iss, now)
    if not mss:
        ctx.counters["syn_cookies_bad"] += 1
        return None
    scale, sack, ecn = None, False, False
    if options.timestamps is not None:
        scale, sack, ecn = read_stamp((options.timestamps[1] - timestamp_offset(secret, local, remote)) & MASK)
        if not tcp.timestamps or (sack and not tcp.sack) or (scale is not None and not tcp.window_scaling):
            ctx.counters["syn_cookies_bad"] += 1  # we never offered that
            return None
    route = ctx.routes.lookup(remote)
    if route is None:
        return None
    ctx.counters["syn_cookies_good"] += 1
    agreed = TcpOptions(mss=mss, wscale=scale, sack_permitted=sack, timestamps=options.timestamps)
    conn = new_child(ctx, listener, segment, ports, irs, window, agreed, route, now, iss)
    conn.ecn.on = ecn and tcp.ecn != OFF
    conn.rx.syn_window_field(conn.advertised_mss - (12 if conn.timestamps else 0))
    conn.rx.last_ack_sent = 0
    conn.tx.queue.append(Sent(-1, 0, now, conn.tx.mss, times=0))  # never sent as far as its RTT goes: nobody knows when
    conn.tx.rate.sent = 1
    conn.tx.snd_nxt = 0
    return conn


def settle(ctx: Context, conn: Connection, frame: int) -> None:
    """What a cookie made and its ACK did not open (no room to accept it) is forgotten: the next ACK brings it again."""
    if conn.state == State.SYN_RECEIVED:
        gone(ctx, conn, 0, frame)
