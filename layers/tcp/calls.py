"""What the gateway asks for: the user calls of RFC 9293 3.10.1 to 3.10.6, as messages."""

from __future__ import annotations

import errno

from layers.tcp.chronograph import BUSY
from layers.tcp.closing import abort, end_time_wait, forget, gone, release, wait_for_fin
from layers.tcp.connection import Connection, Options, connection_key
from layers.tcp.context import Context
from layers.tcp.delayed_acks import all_read
from layers.tcp.ecn import ON as ASK
from layers.tcp.info import tcp_info
from layers.tcp.listener import Listener
from layers.tcp.opening import new_connection
from layers.tcp.orphans import adopt
from layers.tcp.output import send_reset
from layers.tcp.ports import Binding
from layers.tcp.rate import UNLIMITED
from layers.tcp.routes import ip_header, mss_of
from layers.tcp.socket_options import take_options
from layers.tcp.states import Input, State
from layers.tcp.telling import tell_accepted
from layers.tcp.time_wait_reuse import next_isn, reusable
from levelip.frames.packet import Route
from levelip.frames.seam import (
    Bind,
    Close,
    Connect,
    GetInfo,
    Listen,
    Released,
    Result,
    Store,
    StoreFailed,
    Taken,
)
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Eof, Reset, Send
from levelip.tracing import reasons
from levelip.wire.addr import LIMITED_BROADCAST, LOOPBACK, is_multicast

ANY = bytes(4)


# open


def bind(ctx: Context, call: Bind, now: int) -> None:
    """Reserve a local port; RFC 9293 3.10.1 lets the OPEN name it. A group or a broadcast address may be named, as in
    Linux (__inet_bind), though nothing that is sent to it ever reaches a connection."""
    address = call.address or ANY
    want = Binding(address, call.port, call.reuse_address, call.reuse_port)
    error = 0
    if not ctx.routes.is_ours(address) and not ctx.routes.is_many(address):
        error = errno.EADDRNOTAVAIL
    elif call.port == 0:
        first, last = port_range(ctx, call.port_range)
        if not ctx.ports.free_for_bind(call.sock, want, first, last, ctx.rng.randrange(last - first + 1)):
            error = errno.EADDRINUSE
    elif ctx.ports.conflicts(call.sock, want):
        error = errno.EADDRINUSE
    if error:
        ctx.to_gateway.append(Result(call.request, error))
        return
    ctx.ports.hold(call.sock, want)
    ctx.to_gateway.append(Result(call.request, 0, {"address": address, "port": want.port}))


def listen(ctx: Context, call: Listen, now: int) -> None:
    """Passive OPEN, RFC 9293 3.10.1."""
    backlog = min(call.backlog, ctx.tcp.backlog_max)
    known = ctx.listeners.get(call.sock)
    if known is not None:
        known.backlog = backlog
        take_options(known.options, call.options)
        ctx.to_gateway.append(Result(call.request, 0, {"address": known.address, "port": known.port}))
        return
    binding = ctx.ports.by_socket.get(call.sock)
    if call.sock in ctx.sockets:
        ctx.to_gateway.append(Result(call.request, errno.EINVAL))
        return
    if binding is None:
        binding = Binding(ANY, 0)
        first, last = port_range(ctx, call.options.get("port_range", 0))
        if not ctx.ports.free_for_bind(call.sock, binding, first, last, ctx.rng.randrange(last - first + 1)):
            ctx.to_gateway.append(Result(call.request, errno.EADDRINUSE))
            return
        ctx.ports.hold(call.sock, binding)
    binding.listening = True
    if ctx.ports.conflicts(call.sock, binding):  # SO_REUSEADDR let it be bound, but not listen
        binding.listening = False
        ctx.to_gateway.append(Result(call.request, errno.EADDRINUSE))
        return
    options = Options()
    take_options(options, call.options)
    listener = Listener(
        call.sock, binding.address, binding.port, call.region or ctx.config.own_region, backlog, options
    )
    ctx.listeners[call.sock] = listener
    ctx.listening.setdefault(binding.address + binding.port.to_bytes(2, "big"), []).append(call.sock)
    if ctx.interest:
        ctx.emit("listen", sock=call.sock, port=binding.port, backlog=backlog)
    ctx.to_gateway.append(Result(call.request, 0, {"address": binding.address, "port": binding.port}))


def connect(ctx: Context, call: Connect, now: int) -> None:
    """Active OPEN, RFC 9293 3.10.1."""
    if call.sock in ctx.sockets or call.sock in ctx.listeners:
        ctx.drop(reasons.TCP_REPEATED_CALL, 0, ctx.sockets.get(call.sock))
        return
    remote = call.address if any(call.address) else LOOPBACK if len(call.address) == 4 else bytes(15) + b"\x01"
    route = None
    if remote != LIMITED_BROADCAST and not is_multicast(remote):
        route = ctx.routes.lookup(remote)
    if route is None or route.errno:
        ctx.to_gateway.append(Reset(call.sock, route.errno if route is not None else errno.ENETUNREACH))
        return
    binding = ctx.ports.by_socket.get(call.sock)
    many = binding is not None and ctx.routes.is_many(binding.address)  # then the device's: Linux __inet_bind
    local = binding.address if binding is not None and any(binding.address) and not many else route.source
    port = binding.port if binding is not None else _ephemeral(ctx, local, remote, call)
    key = connection_key(local, remote, call.port, port)
    record = ctx.timewaits.get(key)
    if not port or key in ctx.connections or (record is not None and not reusable(ctx, record, now)):
        ctx.to_gateway.append(Reset(call.sock, errno.EADDRNOTAVAIL))
        return
    rings = ctx.slots.take(call.region or ctx.config.own_region)
    if rings is None:
        ctx.drop(reasons.TCP_NO_SLOT, 0)
        ctx.to_gateway.append(Reset(call.sock, errno.ENOBUFS))
        return
    if record is not None:
        end_time_wait(ctx, record)
        ctx.counters["time_wait_reused"] += 1
    if binding is None:
        ctx.ports.hold(call.sock, Binding(local, port, chosen=False))
    elif many:
        binding.address = local  # Linux inet_bhash2_update_saddr
    options = Options(ip_options=call.ip_options)
    take_options(options, call.options)
    conn = new_connection(
        ctx, call.sock, local, port, remote, call.port, route=route, rings=rings, options=options, now=now
    )
    if record is not None and (iss := next_isn(ctx, record)) >= 0:
        conn.tx.iss = iss
    conn.ecn.asking = ctx.tcp.ecn == ASK
    ctx.counters["active_opens"] += 1
    ctx.change_state(conn, Input.ACTIVE_OPEN)
    ctx.want_output(conn)


def port_range(ctx: Context, own: int) -> tuple[int, int]:
    """First and last ephemeral port, whichever way round they were configured; `own`: IP_LOCAL_PORT_RANGE, each end of
    which counts where it lies within (Linux inet_sk_get_local_port_range)."""
    tcp = ctx.tcp
    low, high = min(tcp.port_first, tcp.port_last), max(tcp.port_first, tcp.port_last)
    first, last = own & 0xFFFF, own >> 16
    return (first if low <= first <= high else low), (last if low <= last <= high else high)


def _ephemeral(ctx: Context, local: bytes, remote: bytes, call: Connect) -> int:
    """RFC 6056."""
    first, last = port_range(ctx, call.options.get("port_range", 0))
    remote_port = call.port

    def taken(port: int) -> bool:
        key = connection_key(local, remote, remote_port, port)
        record = ctx.timewaits.get(key)
        return key in ctx.connections or (record is not None and not reusable(ctx, record, ctx.now))

    return ctx.ports.free_for_connect(ctx.config.port_secret, local, remote, remote_port, first, last, taken)


def taken(ctx: Context, call: Taken, now: int) -> None:
    """The application accepted a connection: a place in the backlog is free."""
    listener = ctx.listeners.get(call.listener)
    if listener is not None:
        listener.untaken.pop(call.sock, None)
    conn = ctx.sockets.get(call.sock)
    if conn is not None:
        conn.untaken = False


# the streams


def send(ctx: Context, call: Send, now: int) -> None:
    """SEND, RFC 9293 3.10.2: the stream goes on at `offset`. A repeat changes nothing, a gap is answered."""
    conn = ctx.sockets.get(call.sock)
    if conn is None or conn.orphan:
        ctx.drop(reasons.TCP_UNKNOWN_SOCKET, 0)
        return
    tx = conn.tx
    end = call.offset + call.length
    if conn.state in (State.CLOSED, State.SYN_SENT, State.SYN_RECEIVED):
        ctx.drop(reasons.TCP_NOT_CONNECTED, 0, conn)
        return
    if call.offset > tx.snd_end:
        ctx.drop(reasons.TCP_SEND_GAP, 0, conn, offset=call.offset, known=tx.snd_end)
        tell_accepted(ctx, conn)
        return
    if end <= tx.snd_end:
        return
    if tx.fin_at >= 0 or (0 <= tx.eof < end):
        ctx.drop(reasons.TCP_SEND_AFTER_EOF, 0, conn, offset=call.offset)
        return
    payload = call.payload
    if isinstance(payload, Place) or end > max(tx.grant(), tx.promised) or (payload and len(payload) != call.length):
        ctx.drop(reasons.TCP_SEND_BEYOND, 0, conn, offset=call.offset, length=call.length, limit=tx.grant())
        tell_accepted(ctx, conn)
        return
    if payload:
        known = tx.snd_end
        fresh = payload[known - call.offset :] if known > call.offset else payload
        ctx.stores.append(Store(conn.rings.send(known, end - known), fresh))
    tx.write_due(conn.congestion.cwnd)
    tx.snd_end = end
    if call.record:
        tx.records.append(end)
    if not conn.chrono.kind:
        conn.chrono.turn(BUSY, now)
    if tx.eof == end:
        _close_stream(ctx, conn)
    conn.ack_causes = 0
    if not conn.queued:
        conn.queued = True
        ctx.work.append(conn)


def consumed(ctx: Context, call: Consumed, now: int) -> None:
    """RECEIVE, RFC 9293 3.10.3, after the fact: the application has taken bytes, the window may open."""
    conn = ctx.sockets.get(call.sock)
    if conn is None:
        ctx.drop(reasons.TCP_UNKNOWN_SOCKET, 0)
        return
    rx = conn.rx
    if call.upto > conn.told_data:
        ctx.drop(reasons.TCP_CONSUMED_AHEAD, 0, conn, upto=call.upto, told=conn.told_data)
        return
    if call.upto <= rx.consumed:
        return
    rx.consumed = call.upto
    if rx.buffer < rx.most and rx.tune(now, conn.rto.srtt) and ctx.interest:
        ctx.emit("rcvbuf", conn, size=rx.buffer, most=rx.most, rtt=rx.rtt, space=rx.space)
    if conn.state in (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2) and rx.update_due():
        ctx.counters["window_updates_out"] += 1
        conn.ack_now = True
        conn.ack_causes = 0
        ctx.want_output(conn)
    elif all_read(conn):
        conn.ack_now = True
        ctx.want_output(conn)


def eof(ctx: Context, call: Eof, now: int) -> None:
    """CLOSE of our direction, RFC 9293 3.10.4: the FIN stands at `at`."""
    conn = ctx.sockets.get(call.sock)
    if conn is None or conn.orphan:
        ctx.drop(reasons.TCP_UNKNOWN_SOCKET, 0)
        return
    tx = conn.tx
    if conn.state == State.CLOSED or tx.eof >= 0:
        return
    if call.at < tx.snd_end:
        ctx.drop(reasons.TCP_SEND_AFTER_EOF, 0, conn, at=call.at, known=tx.snd_end)
        return
    tx.eof = call.at
    if call.at > tx.snd_end:
        ctx.drop(reasons.TCP_SEND_GAP, 0, conn, offset=call.at, known=tx.snd_end)
        tell_accepted(ctx, conn)
        return
    _close_stream(ctx, conn)


def _close_stream(ctx: Context, conn: Connection) -> None:
    """All that is to be sent is known: the FIN follows it.

    In SYN-RECEIVED, where only a simultaneous open has an application, RFC 9293 3.10.4 would send the FIN at once if
    nothing else is to be sent. As Linux since 6.10 (tcp_shutdown, CVE-2024-36905: a state that was never set up) we
    wait for the peer's ACK, as in its other case: FIN-WAIT-1 is entered from ESTABLISHED alone.
    """
    if conn.state in (State.SYN_SENT, State.SYN_RECEIVED):
        return  # queued until ESTABLISHED
    conn.tx.fin_at = conn.tx.snd_end
    if conn.state in (State.ESTABLISHED, State.CLOSE_WAIT):
        ctx.change_state(conn, Input.CLOSE)
    conn.ack_causes = 0
    ctx.want_output(conn)


# close


def close(ctx: Context, call: Close, now: int) -> None:
    """The application has closed the socket, both directions: CLOSE or ABORT, RFC 9293 3.10.4, 3.10.5."""
    sock = call.sock
    listener = ctx.listeners.get(sock)
    if listener is not None:
        stop_listening(ctx, listener, now)
        ctx.to_gateway.append(Released(sock))
        return
    conn = ctx.sockets.get(sock)
    if conn is None:
        if sock not in ctx.timewait_ids:
            ctx.ports.release(sock)
        ctx.to_gateway.append(Released(sock))
        return
    if conn.orphan:
        return
    if conn.untaken:
        waiting_on = ctx.listeners.get(conn.listener)
        if waiting_on is not None:
            waiting_on.untaken.pop(sock, None)
        conn.untaken = False
    close_connection(ctx, conn, call.abort, now)


def close_connection(ctx: Context, conn: Connection, aborting: bool, now: int) -> None:
    """Finish what was sent and let go, or reset."""
    state = conn.state
    rx, tx = conn.rx, conn.tx
    conn.ack_causes = 0
    data_end = rx.fin_at if 0 <= rx.fin_at < rx.rcv_nxt else rx.rcv_nxt
    unread = data_end > rx.consumed
    torn = tx.eof > tx.snd_end  # bytes that were promised never came: no FIN may hide that
    if state in (State.CLOSED, State.TIME_WAIT):
        conn.orphan = True
        release(ctx, conn)
        forget(ctx, conn)
        return
    if aborting or unread or torn or state == State.SYN_SENT:
        if unread and not aborting:
            ctx.drop(reasons.TCP_UNREAD, 0, conn, bytes=data_end - rx.consumed)  # RFC 2525 2.17
        abort(ctx, conn, now)
        return
    if not adopt(ctx, conn, now):
        return
    conn.orphan = True
    if tx.fin_at < 0:
        tx.eof = tx.snd_end
        _close_stream(ctx, conn)
        return
    if conn.state == State.FIN_WAIT_2:  # it had shut its direction before, and all of that is acknowledged
        wait_for_fin(ctx, conn, now, closing=True)


def stop_listening(ctx: Context, listener: Listener, now: int) -> None:
    """CLOSE in LISTEN: half-open children are forgotten, those not taken are reset (Linux inet_csk_listen_stop)."""
    where = listener.address + listener.port.to_bytes(2, "big")
    ids = ctx.listening[where]
    ids.remove(listener.id)
    if not ids:
        del ctx.listening[where]
    del ctx.listeners[listener.id]
    for sock in list(listener.half_open):
        child = ctx.sockets[sock]
        gone(ctx, child, errno.ECONNABORTED)
    for sock in list(listener.untaken):
        waiting = ctx.sockets.get(sock)
        if waiting is not None:
            abort(ctx, waiting, now)
    ctx.ports.release(listener.id)


def reset(ctx: Context, call: Reset, now: int) -> None:
    """ABORT, RFC 9293 3.10.5."""
    close(ctx, Close(call.sock, True), now)


def store_failed(ctx: Context, call: StoreFailed, now: int) -> None:
    """The memory behind a connection's rings is gone: what came for it is lost, so the connection is."""
    place = call.place
    for conn in list(ctx.sockets.values()):
        rings = conn.rings
        if conn.rings_held and rings.region == place.region and place.base in (rings.send_base, rings.receive_base):
            ctx.drop(reasons.TCP_MEMORY_LOST, 0, conn)
            if conn.state not in (State.CLOSED, State.TIME_WAIT):
                send_reset(ctx, conn, now)
                conn.rx.consumed = conn.told_data
                gone(ctx, conn, errno.ECONNRESET)


# figures, routes


def get_info(ctx: Context, call: GetInfo, now: int) -> None:
    """The figures of TCP_INFO."""
    conn = ctx.sockets.get(call.sock)
    if conn is not None:
        ctx.to_gateway.append(Result(call.request, 0, tcp_info(ctx, conn, now)))
        return
    listener = ctx.listeners.get(call.sock)
    if listener is not None:
        data = {
            "state": int(State.LISTEN),
            "unacked": len(listener.untaken),
            "sacked": listener.backlog,
            "pacing_rate": UNLIMITED,
        }
        ctx.to_gateway.append(Result(call.request, 0, data))
        return
    ctx.to_gateway.append(Result(call.request, 0, {"state": int(State.CLOSED), "pacing_rate": UNLIMITED}))


def use_routes(ctx: Context) -> None:
    """The routes have changed: what connections may send at once may have too."""
    for conn in ctx.connections.values():
        route: Route | None = ctx.routes.lookup(conn.remote)
        if route is None:
            continue
        conn.gso_max = route.gso_max
        conn.pmtu = min(conn.pmtu, route.mtu)
        if conn.tx.snd_una >= 0:
            conn.set_mss(ip_header(conn.remote) + 20)
        elif conn.tx.snd_nxt < 0:
            conn.advertised_mss = mss_of(route.mtu, conn.remote)
