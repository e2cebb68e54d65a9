"""What a socket option does to a live connection (SetOption; the gateway knows Linux's numbers and ranges)."""

from __future__ import annotations

from collections.abc import Callable

from layers.tcp.congestion import replaced
from layers.tcp.connection import OPTION_RANGES, Connection, Options
from layers.tcp.context import MS, Context
from layers.tcp.loss import resegment
from layers.tcp.opening import arm_keepalive, keepalive_idle, set_receive_buffer, set_send_buffer
from layers.tcp.output import fixed_headers
from layers.tcp.states import State
from layers.tcp.telling import grant_due, tell_accepted
from layers.tcp.timers import DELAYED_ACK, KEEPALIVE, OFF, PERSIST
from levelip.frames.seam import SetOption
from levelip.tracing import reasons


def take_options(options: Options, given: dict[str, int]) -> None:
    """Values by name; what is out of range counts as the nearest that is in it."""
    for name, value in given.items():
        if name in OPTION_RANGES:
            low, high = OPTION_RANGES[name]
            setattr(options, name, min(max(value, low), high))


def set_option(ctx: Context, call: SetOption, now: int) -> None:
    """A socket option; a listener's is for its children to come."""
    binding = ctx.ports.by_socket.get(call.sock)
    if binding is not None and call.name in ("reuse_address", "reuse_port"):
        setattr(binding, call.name, bool(call.value))
    listener = ctx.listeners.get(call.sock)
    if listener is not None:
        take_options(listener.options, {call.name: call.value})
        return
    conn = ctx.sockets.get(call.sock)
    if conn is None:
        if binding is None:
            ctx.drop(reasons.TCP_UNKNOWN_SOCKET, 0)
        return
    if call.name == "ip_options":
        _set_ip_options(ctx, conn, call.ip_options)
        return
    if call.name not in OPTION_RANGES:
        ctx.drop(reasons.TCP_UNKNOWN_OPTION, 0, conn, name=call.name)
        return
    take_options(conn.options, {call.name: call.value})
    apply = _APPLY.get(call.name)
    if apply is not None and conn.state not in (State.CLOSED, State.TIME_WAIT):
        apply(ctx, conn, now)
        ctx.want_output(conn)


def _set_ip_options(ctx: Context, conn: Connection, ip_options: bytes) -> None:
    """From now on segments have these, and so much less data (Linux do_ip_setsockopt: icsk_ext_hdr_len)."""
    conn.options.ip_options = ip_options
    if conn.tx.snd_una < 0 or conn.state in (State.CLOSED, State.TIME_WAIT):
        return
    conn.set_mss(fixed_headers(conn))
    resegment(ctx, conn)
    ctx.want_output(conn)


def _nodelay(ctx: Context, conn: Connection, now: int) -> None:
    """What waits goes at once, even if it is corked (Linux __tcp_sock_set_nodelay: TCP_NAGLE_PUSH)."""
    if conn.options.nodelay and conn.options.cork and conn.tx.unsent():
        conn.override = True


def _cork(ctx: Context, conn: Connection, now: int) -> None:
    """Uncorked: what waits goes, as Nagle has it (__tcp_sock_set_cork)."""
    if not conn.options.cork and conn.tx.snd_wnd > 0:
        conn.deadlines[PERSIST] = OFF


def _keepalive(ctx: Context, conn: Connection, now: int) -> None:
    """Idle time counts from the last segment that came (Linux tcp_sock_set_keepidle_locked)."""
    if conn.state not in (State.ESTABLISHED, State.CLOSE_WAIT, State.FIN_WAIT_1, State.FIN_WAIT_2):
        return
    arm_keepalive(ctx, conn, now)
    if conn.options.keepalive:
        due = conn.last_received_at + keepalive_idle(ctx, conn)
        ctx.timers.arm(conn, KEEPALIVE, max(due, now))


def _keepintvl(ctx: Context, conn: Connection, now: int) -> None:
    """While probes are under way the next one keeps the new distance from now on."""
    if conn.options.keepalive and conn.probes and conn.deadlines[KEEPALIVE] >= 0:
        ctx.timers.arm(conn, KEEPALIVE, now + conn.options.keepintvl_ms * MS)


def _sndbuf(ctx: Context, conn: Connection, now: int) -> None:
    """SO_SNDBUF; what was granted stays granted."""
    set_send_buffer(ctx, conn.tx, conn.options, conn.rings)
    if not conn.orphan and grant_due(conn):
        ctx.mark_dirty(conn)


def _notsent_lowat(ctx: Context, conn: Connection, now: int) -> None:
    """TCP_NOTSENT_LOWAT counts at once. What was granted is taken back; what was written on it meanwhile is taken."""
    tx = conn.tx
    tx.lowat = conn.options.notsent_lowat
    tx.promised = max(tx.promised, tx.limit)
    tx.limit = tx.snd_end
    if tx.snd_una >= 0 and not conn.orphan:
        tell_accepted(ctx, conn)


def _rcvbuf(ctx: Context, conn: Connection, now: int) -> None:
    """SO_RCVBUF, SO_RCVLOWAT, TCP_WINDOW_CLAMP: the peer hears of a window that opens."""
    rx = conn.rx
    set_receive_buffer(ctx, rx, conn.options)
    if conn.state in (State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2) and rx.update_due():
        ctx.counters["window_updates_out"] += 1
        conn.ack_now = True
        conn.ack_causes = 0


def _quickack(ctx: Context, conn: Connection, now: int) -> None:
    """Odd: ACKs without delay, while Linux would give some (icsk_ack.quick); even: the one that waits; 0: none.

    Linux __tcp_sock_set_quickack: it is no lasting setting, data that goes to and fro changes it again.
    """
    conn.interactive = not conn.options.quickack
    if conn.options.quickack and conn.deadlines[DELAYED_ACK] >= 0:
        conn.ack_now = True
        if conn.options.quickack & 1 == 0:
            conn.interactive = True


def _congestion(ctx: Context, conn: Connection, now: int) -> None:
    """TCP_CONGESTION: another strategy takes over the windows."""
    conn.congestion = replaced(conn.congestion, ctx.tcp, conn.options.congestion, now)


def _mtu_discover(ctx: Context, conn: Connection, now: int) -> None:
    conn.set_mtu_discover(conn.options.mtu_discover)


_APPLY: dict[str, Callable[[Context, Connection, int], None]] = {
    "nodelay": _nodelay,
    "cork": _cork,
    "keepalive": _keepalive,
    "keepidle_ms": _keepalive,
    "keepintvl_ms": _keepintvl,
    "sndbuf": _sndbuf,
    "notsent_lowat": _notsent_lowat,
    "rcvbuf": _rcvbuf,
    "rcvlowat": _rcvbuf,
    "window_clamp": _rcvbuf,
    "quickack": _quickack,
    "mtu_discover": _mtu_discover,
    "congestion": _congestion,
}
"""What a new value does to a live connection; of the others it is looked at when it is needed."""
