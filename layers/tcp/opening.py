"""How connections begin: the TCB, what both sides agree on in their SYNs, and the step to ESTABLISHED."""

from __future__ import annotations

from layers.tcp import mtu_probe
from layers.tcp.closing import gone
from layers.tcp.congestion import chosen
from layers.tcp.connection import PROGRESS_EVERY, Connection, Options
from layers.tcp.context import MS, Context
from layers.tcp.isn import initial_sequence, timestamp_offset
from layers.tcp.loss import tell_cwnd, tell_rtt
from layers.tcp.output import fixed_headers, send_reset
from layers.tcp.receive_space import MAX_WSCALE, ReceiveSpace, scale_for
from layers.tcp.routes import mss_of
from layers.tcp.rto import Rto
from layers.tcp.send_space import SendSpace
from layers.tcp.states import Input
from layers.tcp.timers import KEEPALIVE, OFF, PMTU, RETRANSMIT
from levelip.config import TcpConfig
from levelip.frames.packet import Route
from levelip.frames.seam import Connected, Incoming
from levelip.rpc.place import Rings
from levelip.tracing import reasons
from levelip.wire.options import TcpOptions

DEFAULT_MSS = 536  # bytes: what a SYN without the option means, RFC 9293 3.7.1 (MUST-15), IPv4
MIN_MSS = 48  # bytes: Linux tcp_min_snd_mss; 40 of options leave 8. Smaller offers would make us send mostly headers
MIN_BUFFER = 4096  # bytes: smallest send or receive buffer


def new_connection(
    ctx: Context, sock: int, local: bytes, local_port: int, remote: bytes, remote_port: int, *, route: Route,
    rings: Rings, options: Options, now: int,
) -> Connection:  # fmt: skip
    """A TCB in CLOSED, in the tables."""
    config, tcp = ctx.config, ctx.tcp
    rx = ReceiveSpace(rings.receive_size, 0)
    tx = SendSpace(0)
    set_receive_buffer(ctx, rx, options)
    set_send_buffer(ctx, tx, options, rings)
    tx.lowat = options.notsent_lowat
    rx.shift = scale_for(rx.most) if tcp.window_scaling else 0
    if options.nodelay < 0:
        options.nodelay = 0 if tcp.nagle else 1
    conn = Connection(
        id=sock,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        rings=rings,
        rx=rx,
        tx=tx,
        rto=Rto(floor=tcp.rto_min_ms * MS, ceiling=tcp.rto_max_ms * MS, rto=tcp.rto_initial_ms * MS),
        options=options,
        congestion=chosen(tcp, options.congestion),
        opened_at=now,
    )
    conn.interactive = options.quickack == 0
    conn.set_mtu_discover(options.mtu_discover)
    conn.pmtu, until = ctx.routes.path_mtu(route, remote, now)
    if until >= 0:
        ctx.timers.arm(conn, PMTU, until)
    conn.gso_max = route.gso_max
    conn.advertised_mss = mss_of(route.mtu, remote)
    if options.maxseg:
        conn.advertised_mss = min(conn.advertised_mss, options.maxseg)
    conn.scaling = tcp.window_scaling
    conn.timestamps = tcp.timestamps
    conn.sack = tcp.sack
    conn.tx.iss = (
        initial_sequence(config.isn_secret, local, local_port, remote, remote_port, now)
        if config.fixed_isn < 0
        else config.fixed_isn
    )
    conn.ts_offset = timestamp_offset(config.isn_secret, local, remote)
    ctx.connections[conn.key] = conn
    ctx.sockets[sock] = conn
    return conn


def receive_sizes(tcp: TcpConfig, options: Options, ring: int, present: int = 0) -> tuple[int, int]:
    """The receive buffer's size and how far it may grow, by the options: SO_RCVBUF fixes it (Linux SOCK_RCVBUF_LOCK),
    SO_RCVLOWAT wants twice as much (tcp_set_rcvlowat), TCP_WINDOW_CLAMP bounds it in any case. `present`: the size that
    it has grown to."""
    if options.rcvbuf >= 0:
        size = most = options.rcvbuf
    else:
        most = tcp.receive_buffer
        size = max(min(tcp.receive_initial, most), min(2 * options.rcvlowat, most), present)
        if not tcp.moderate_rcvbuf:
            most = size
    largest = min(ring, options.window_clamp) if options.window_clamp else ring
    smallest = min(MIN_BUFFER, largest)
    return min(max(size, smallest), largest), min(max(most, smallest), largest)


def set_receive_buffer(ctx: Context, rx: ReceiveSpace, options: Options) -> None:
    """By the options as they are now."""
    rx.buffer, rx.most = receive_sizes(ctx.tcp, options, rx.ring, rx.buffer)


def set_send_buffer(ctx: Context, tx: SendSpace, options: Options, rings: Rings) -> None:
    """The send buffer's size and how far it may grow: SO_SNDBUF fixes it (Linux SOCK_SNDBUF_LOCK)."""
    tcp = ctx.tcp
    if options.sndbuf >= 0:
        size = most = options.sndbuf
    else:
        most = tcp.send_buffer
        size = max(min(tcp.send_initial, most), tx.buffer)
    tx.buffer = min(max(size, MIN_BUFFER), rings.send_size)
    tx.buffer_most = min(max(most, MIN_BUFFER), rings.send_size)


def agree(conn: Connection, options: TcpOptions, now: int) -> None:
    """Take the options of the peer's SYN; what only one side offers is off (RFC 7323 2.2, 3.2, RFC 2018 2)."""
    if options.mss is not None:
        conn.peer_mss = max(options.mss, MIN_MSS)
    else:
        conn.peer_mss = DEFAULT_MSS
    if conn.options.maxseg:  # TCP_MAXSEG counts in the handshake alone (Linux tcp_parse_options)
        conn.peer_mss = min(conn.peer_mss, conn.options.maxseg)
    if conn.scaling and options.wscale is not None:
        conn.tx.shift = min(options.wscale, MAX_WSCALE)
    else:
        conn.scaling = False
        conn.rx.shift = 0
    if conn.timestamps and options.timestamps is not None:
        conn.ts_recent = options.timestamps[0]
        conn.ts_recent_at = now
    else:
        conn.timestamps = False
    conn.sack = conn.sack and options.sack_permitted
    conn.rx.mss = min(conn.advertised_mss, DEFAULT_MSS)
    conn.set_mss(fixed_headers(conn))


def admitted(ctx: Context, conn: Connection, frame: int, now: int) -> bool:
    """The handshake is complete: is there room for one more to be accepted, and are there rings for it?

    If not, the ACK counts as lost, as in Linux (tcp_v4_syn_recv_sock): the peer's data or our SYN-ACK will bring it
    again; or, with tcp.abort_on_overflow, the connection is reset.
    """
    listener = ctx.listeners.get(conn.listener)
    if listener is None:
        return True
    if listener.accept_queue_full():
        listener.overflows += 1
        ctx.drop(reasons.ACCEPT_QUEUE_FULL, frame, conn)
        if ctx.tcp.abort_on_overflow:
            send_reset(ctx, conn, now)
            gone(ctx, conn, 0, frame)
        return False
    rings = ctx.slots.take(listener.region)
    if rings is None:
        ctx.drop(reasons.TCP_NO_SLOT, frame, conn)
        return False
    conn.rings = rings
    conn.rings_held = True
    return True


def established(ctx: Context, conn: Connection, event: Input, frame: int, options: TcpOptions, now: int) -> None:
    """Our SYN is acknowledged: the RTT is known, the window opens, the application hears of it."""
    tx = conn.tx
    syn = tx.queue[0]
    sent_again = syn.times > 1
    rtt = tx.acknowledge(0, now)
    if rtt >= 0:
        conn.rto.sample(rtt, now)
    elif syn.times and conn.timestamps and options.timestamps is not None and options.timestamps[1]:
        ticks = (conn.ts_now(now) - options.timestamps[1]) & 0xFFFF_FFFF
        if ticks < 0x8000_0000:
            rtt = max(ticks, 1) * MS
            conn.rto.sample(rtt, now)
    if sent_again:
        conn.rto.after_syn_loss()
    conn.retransmits = 0
    conn.timeouts_over(now)
    conn.first_timeout_at = OFF
    conn.deadlines[RETRANSMIT] = OFF
    conn.congestion.start(tx.mss, 1 if sent_again else ctx.tcp.initial_window, now)
    conn.cwnd_full_at = conn.validation.valid_at = conn.established_at = now
    ctx.change_state(conn, event, frame)
    if ctx.interest:
        if rtt >= 0:
            tell_rtt(ctx, conn, rtt)
        tell_cwnd(ctx, conn, None, "start")
    ctx.counters["connections_established"] += 1
    if conn.ecn.on:
        ctx.counters["ecn_connections"] += 1
    conn.progress_at = now + PROGRESS_EVERY
    arm_keepalive(ctx, conn, now)
    mtu_probe.begin(ctx, conn, now)
    tx.limit = tx.grant()
    if conn.listener:
        listener = ctx.listeners[conn.listener]
        listener.half_open.pop(conn.id, None)
        listener.untaken[conn.id] = True
        conn.untaken = True
        ctx.to_gateway.append(
            Incoming(
                conn.listener,
                conn.id,
                conn.local,
                conn.local_port,
                conn.remote,
                conn.remote_port,
                conn.rings,
                tx.limit,
                conn.options.ip_options,
            )
        )
    elif not conn.orphan:
        ctx.to_gateway.append(
            Connected(conn.id, conn.local, conn.local_port, conn.remote, conn.remote_port, conn.rings, tx.limit)
        )
    if tx.eof >= 0 or tx.fin_at >= 0:  # closed while it was opening: RFC 9293 3.10.4, SYN-RECEIVED
        if tx.fin_at < 0 and tx.snd_end == tx.eof:
            tx.fin_at = tx.eof
        if tx.fin_at >= 0:
            ctx.change_state(conn, Input.CLOSE, frame)
    ctx.want_output(conn)


def arm_keepalive(ctx: Context, conn: Connection, now: int) -> None:
    """Start the idle time anew if the application wants keep-alives (RFC 9293 3.8.4: off by default)."""
    if conn.options.keepalive:
        ctx.timers.arm(conn, KEEPALIVE, now + keepalive_idle(ctx, conn))
    else:
        conn.deadlines[KEEPALIVE] = OFF


def keepalive_idle(ctx: Context, conn: Connection) -> int:
    """Idle time in ns before the first keep-alive."""
    ms = conn.options.keepidle_ms
    return (ms if ms >= 0 else ctx.tcp.keepalive_idle_ms) * MS
