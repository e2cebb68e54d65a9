"""`lvlip status`: which layers run, since when, and for whom they wait."""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from levelip.cli import supervise
from levelip.cli.common import LAYERS, Stack, StackCommand, columns
from levelip.configfile import ConfigError, load
from levelip.debug import holding

EXIT_NOT_READY = 1


@click.command(cls=StackCommand)
@click.pass_context
def command(context: click.Context) -> None:
    """Show which layers run, and for whom they wait.

    The exit code is 0 if all layers of the stack are ready, else 1.

    \b
    lvlip status
    lvlip status --json | jq .layers
    """
    stack: Stack = context.obj
    data = collect(stack)
    if stack.json:
        stack.emit(data)
    else:
        supervisor = f"supervisord pid {data['supervisor']}" if data["supervisor"] else "no supervisord"
        click.echo(f"stack {data['name']!r}, {supervisor}, {data['run']}{', HELD' if data['held'] else ''}")
        if data["hold"]:
            click.echo(_held_text(data["hold"], stack))
        rows = [
            (one["layer"], one["state"], one["pid"] or "", duration(one["uptime_ns"]), _note(one))
            for one in data["layers"]
        ]
        click.echo(columns(rows, ("layer", "state", "pid", "up", ""), right={2}))
    if not data["ready"]:
        context.exit(EXIT_NOT_READY)


def collect(stack: Stack) -> dict[str, Any]:
    """The facts, as --json prints them."""
    run = stack.run
    running = supervise.find(run)
    programs = running[0].programs() if running else {}
    expected = list(programs) or configured(stack)
    elsewhere = set(LAYERS) - set(expected)
    rows = []
    statuses, _ = stack.ask_all("status", stack.running())
    for layer in LAYERS:
        status = statuses.get(layer)
        program = programs.get(layer)
        if layer not in expected and status is None:
            continue
        pid = status["pid"] if status else (program.pid if program else 0) or run.holder(layer) or 0
        rows.append(
            {
                "layer": layer,
                "state": _state(status, pid, elsewhere),
                "pid": pid,
                "uptime_ns": status["uptime_ns"] if status else None,
                "epoch": status["epoch"] if status else None,
                "waiting_for": status["waiting_for"] if status else [],
                "supervised": program is not None,
                "supervisor_state": program.state if program else None,
            }
        )
    hold = held_by(stack)
    if hold is not None:
        hold["elsewhere"], hold["behind"] = holding.elsewhere(stack.running(), statuses.values()), []
        if hold["elsewhere"]:
            hold |= _other_hosts(stack)
    return {
        "name": run.name,
        "run": str(run.path),
        "supervisor": running[1] if running else None,
        "ready": bool(rows) and all(row["state"] == "ready" for row in rows),
        "held": hold is not None,
        "hold": hold,
        "layers": rows,
        "time": time.time(),
    }


def held_by(stack: Stack) -> dict[str, Any] | None:
    """Who holds the stack since when and where; None while it runs."""
    from levelip.ipc.clock import StackClock

    if not stack.run.clock.exists() or not stack.running():
        return None
    clock = StackClock(stack.run.clock)
    try:
        held, why = clock.held, clock.why()
    finally:
        clock.close()
    if not held:
        return None
    facts: dict[str, Any] = {"by": None, "alive": False, "mine": False, "since": None, "at": [], "stop": None}
    if why is not None:
        facts = {
            "by": msgspec.to_builtins(why.holder),
            "alive": holding.alive(why.holder),
            "mine": holding.same(why.holder, holding.holder("")),
            "since": why.since,
            "at": list(why.at),
            "stop": why.stop or None,
        }
    return {**facts, "text": holding.describe(why)}


def _other_hosts(stack: Stack) -> dict[str, list[str]]:
    """Layers on other hosts that go on, and those that are held as well."""
    from levelip.debug.debugger import Debugger

    with Debugger(stack.run.name, root=stack.run.root) as debugger:
        state = debugger.state()
    return {"elsewhere": state.elsewhere, "behind": state.behind}


def _held_text(hold: dict[str, Any], stack: Stack) -> str:
    """Since when, by whom, why, and how to go on."""
    lines = [f"held {hold['text']}"]
    if hold["at"]:
        lines.append(f"only at {', '.join(hold['at'])}")
    if hold["stop"]:
        lines.append(f"by breakpoint {hold['stop']['breakpoint']} in {hold['stop']['process']}: {hold['stop']['text']}")
    if hold.get("behind"):
        lines.append(holding.behind_text(hold["behind"]))
    if hold.get("elsewhere"):
        lines.append(holding.elsewhere_text(hold["elsewhere"]))
    flag = " --force" if hold["alive"] and not hold["mine"] else ""
    lines.append(f"look with lvlip held list{stack.name_flag()}, go on with lvlip continue{stack.name_flag()}{flag}")
    return "\n".join(f"  {line}" for line in lines)


def configured(stack: Stack) -> list[str]:
    """The layers that its configuration puts on this host."""
    try:
        return list(load(supervise.Paths.of(stack.run).config, environ={}).stack.layers)
    except ConfigError:
        return list(LAYERS)


def _state(status: dict[str, Any] | None, pid: int, elsewhere: set[str]) -> str:
    """A layer of another host may come later; its absence is shown, but no lack of ours."""
    if status is not None:
        return "waits" if set(status["waiting_for"]) - elsewhere else "ready"
    return "silent" if pid else "stopped"


def _note(row: dict[str, Any]) -> str:
    if row["waiting_for"]:
        return f"waits for {' and '.join(row['waiting_for'])}"
    if row["state"] == "silent":
        return "does not answer"
    if row["pid"] and not row["supervised"]:
        return "started by hand"
    return ""


def duration(ns: int | None) -> str:
    """ "12.3 s", "4 min", "2 h 5 min", "3 d 4 h"."""
    if ns is None:
        return ""
    seconds = ns / 1e9
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
