"""How many connections are in which state, and what waits: for whoever asks often; `ss` with its figures costs more."""

from __future__ import annotations

from typing import Any

from layers.tcp.context import Context
from layers.tcp.states import State


def totals(ctx: Context) -> dict[str, Any]:
    """`states`: a state's name → connections, every state; of all listeners together `half_open` and `untaken`
    (complete, not accepted yet); `orphans`; `waiting`: frames for the neighbours."""
    states = dict.fromkeys((state.name for state in State), 0)
    states["LISTEN"] = len(ctx.listeners)
    states["TIME_WAIT"] = len(ctx.timewaits)
    for conn in ctx.sockets.values():
        if conn.id not in ctx.timewait_ids:
            states[conn.state.name] += 1
    listeners = ctx.listeners.values()
    return {
        "states": states,
        "half_open": sum(len(one.half_open) for one in listeners),
        "untaken": sum(len(one.untaken) for one in listeners),
        "orphans": len(ctx.orphans),
        "waiting": {"ip": len(ctx.to_ip), "gateway": len(ctx.to_gateway)},
    }
