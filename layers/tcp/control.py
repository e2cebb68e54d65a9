"""What the control socket can ask a running tcp: `ss`, `conn`; and which settings can change while it runs."""

from __future__ import annotations

from typing import Any

import msgspec

from layers.tcp.connection import Connection
from layers.tcp.context import MS, Context
from layers.tcp.info import ss_row
from layers.tcp.ports import TABLE
from levelip.config import TcpConfig
from levelip.frames.core import ControlError
from levelip.wire.addr import format_address, parse_address

FIXED = ("send_ring", "receive_ring", "connections", "congestion")
"""Settings that decide where memory lies, or that have one value only: a restart of the layer is needed."""


def run_command(ctx: Context, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
    """Carry out one command; ControlError for one that is unknown or asks for what is not there."""
    if name == "ss":
        return {"now": now, "sockets": list_sockets(ctx, now)}
    if name == "conn":
        return whole_connection(ctx, args, now)
    if name == "figures":
        return figures(ctx, args["conn"], now)
    raise ControlError(f"{name}: tcp knows ss, conn and figures")


def list_sockets(ctx: Context, now: int) -> list[dict[str, Any]]:
    """Every listener, connection and TIME-WAIT record, in this order, each kind by age."""
    rows: list[dict[str, Any]] = []
    for listener in ctx.listeners.values():
        rows.append(
            {
                "sock": listener.id,
                "state": "LISTEN",
                "local": format_address(listener.address),
                "local_port": listener.port,
                "remote": format_address(bytes(len(listener.address))),
                "remote_port": 0,
                "recv_q": len(listener.untaken),
                "send_q": listener.backlog,
                "half_open": len(listener.half_open),
                "overflows": listener.overflows,
                "timers": {},
                "info": {},
            }
        )
    rows += [ss_row(ctx, conn, now) for conn in ctx.sockets.values() if conn.id not in ctx.timewait_ids]
    for record in ctx.timewaits.values():
        rows.append(
            {
                "sock": record.id,
                "state": "TIME_WAIT",
                "local": format_address(record.local),
                "local_port": record.local_port,
                "remote": format_address(record.remote),
                "remote_port": record.remote_port,
                "recv_q": 0,
                "send_q": 0,
                "timers": {"time_wait": record.deadline - now},
                "info": {},
            }
        )
    return rows


def whole_connection(ctx: Context, args: dict[str, Any], now: int) -> dict[str, Any]:
    """The whole TCB of `sock`, or of the connection whose name ("10.0.0.2:80>10.0.0.1:4711") is `conn`."""
    conn: Connection | None = None
    if "sock" in args:
        conn = ctx.sockets.get(args["sock"])
    elif "conn" in args:
        conn = next((candidate for candidate in ctx.sockets.values() if candidate.name == args["conn"]), None)
    else:
        raise ControlError("conn: say which, by sock or by conn")
    if conn is None:
        raise ControlError(f"conn: there is no connection {args.get('sock', args.get('conn'))}")
    tcb: dict[str, Any] = msgspec.to_builtins(conn)
    tcb["local"] = format_address(conn.local)
    tcb["remote"] = format_address(conn.remote)
    tcb["state"] = conn.state.name
    return {"name": conn.name, "tcb": tcb, "ss": ss_row(ctx, conn, now)}


def figures(ctx: Context, name: str, now: int) -> dict[str, Any]:
    """The row of `ss` of the connection of that name ("10.0.0.2:80>10.0.0.1:4711"), found without a search."""
    local, _, remote = name.partition(">")
    ends = [end.rpartition(":") for end in (local, remote)]
    try:
        packed = [parse_address(host) for host, _, _ in ends]
        ports = [int(port).to_bytes(2, "big") for _, _, port in ends]
    except (ValueError, OverflowError):
        raise ControlError(f"figures: {name!r} is no connection's name, as 10.0.0.2:80>10.0.0.1:4711") from None
    conn = ctx.connections.get(packed[0] + packed[1] + ports[1] + ports[0])
    if conn is None:
        raise ControlError(f"figures: there is no connection {name}")
    return ss_row(ctx, conn, now)


def change_setting(ctx: Context, key: str, value: Any) -> None:
    """tcp.`key` is `value` from now on; open connections follow where that is possible."""
    if key not in TcpConfig.__struct_fields__:
        raise ControlError(f"tcp.{key} is no setting; there are {', '.join(TcpConfig.__struct_fields__)}")
    if key in FIXED:
        raise ControlError(f"tcp.{key} cannot change while connections use it; set it in level-ip.toml and restart")
    setattr(ctx.tcp, key, value)
    if key in ("rto_min_ms", "rto_max_ms"):
        for conn in ctx.sockets.values():
            conn.rto.floor = ctx.tcp.rto_min_ms * MS
            conn.rto.ceiling = ctx.tcp.rto_max_ms * MS
    elif key in ("port_first", "port_last"):
        ctx.ports.table = [0] * TABLE
