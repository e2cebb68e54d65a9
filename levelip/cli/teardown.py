"""Stopping a stack: supervisor and layers ended, what they left removed. Used by `down` and by an `up` that fails."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from levelip.cli import supervise
from levelip.cli.common import LAYERS, Stack
from levelip.ipc.addonkeep import PATTERNS as ADDON_PATTERNS
from levelip.ipc.breakpoints import BREAKPOINTS
from levelip.ipc.rundir import RunDirectory

DEVICE_FILE = "device.json"
"""Written by `up`: {"name", "created"}; a device that link made, and did not find, `down` removes."""
NET_FILE = "net.json"
"""Written by `lvlip net up`, which wants the device to stay until `lvlip net down`."""
_SUPERVISORD = "supervisord"
_BEFORE_KILL_S = 0.25
"""So long before supervisord sends SIGKILL we look whom it will have to, where no log of it says: it began to count
before us."""
_SIGKILL = re.compile(rb"killing '(\w+)' \((\d+)\) with SIGKILL")
_TRANSIENT = (
    "supervisord.conf", "supervisord.pid", "supervisor.sock", "config.toml", "settings.json", "clock", BREAKPOINTS,
    f"{BREAKPOINTS}.lock", "wire.sock",
)  # fmt: skip


def bring_down(stack: Stack) -> list[str]:
    """Stop everything of the stack and clean up; what was done, a sentence each. Empty: nothing was there.

    Layers that do not end by themselves take STOP_WAIT_S and a second or two more, however many they are, and a
    supervisord that hangs SUPERVISORD_S besides; whoever waits is told for what.
    """
    run = stack.run
    running = supervise.find(run)
    ours = running is None or running[0].socket == supervise.Paths.of(run).socket
    held = _holders(run)
    by_hand = {layer: pid for layer, pid in held.items() if not supervise.was_supervised(pid)}
    ending = {layer: pid for layer, pid in held.items() if layer not in by_hand}
    killed: set[str] = set()
    if running is not None:
        supervisor, pid = running
        log = supervise.Paths.of(run).log if ours else supervisor.socket.with_name("supervisord.log")
        before = log.stat().st_size if log.exists() else 0
        supervisor.shutdown()
        ending = {_SUPERVISORD: pid, **ending}
        late = supervise.wait_for_end(ending, supervise.STOP_WAIT_S - _BEFORE_KILL_S, stack.tell)
        left_over = supervise.wait_for_end(late, supervise.KILL_WAIT_S)  # told above
        killed = _killed(log, before, ending) if log.exists() else set(late) - {_SUPERVISORD}
        if _SUPERVISORD in left_over:
            killed |= supervise.end({_SUPERVISORD: pid}, stack.tell)
    elif (silent := supervise.silent(run)) is not None:
        stack.tell(f"{supervise.named({_SUPERVISORD: silent})} does not answer")
        ending = {_SUPERVISORD: silent, **ending}
        killed = supervise.end({_SUPERVISORD: silent}, stack.tell)
    left = {layer: pid for layer, pid in _holders(run).items() if by_hand.get(layer) != pid}
    killed |= supervise.end(left, stack.tell)
    done = [f"{supervise.named({name: pid})} {_outcome(name in killed)}" for name, pid in {**ending, **left}.items()]
    done += [f"{supervise.named({name: pid})} was started by hand and goes on running" for name, pid in by_hand.items()]
    if _holders(run):
        return done
    done += _remove_device(run)
    if ours:
        _clean(run)
    return done


def _killed(log: Path, start: int, ending: dict[str, int]) -> set[str]:
    """Those of the layers that supervisord had to kill, by its log from byte `start` on."""
    with log.open("rb") as file:
        file.seek(start)
        return {name.decode() for name, pid in _SIGKILL.findall(file.read()) if ending.get(name.decode()) == int(pid)}


def _holders(run: RunDirectory) -> dict[str, int]:
    """The layers that run, however they were started: pid by layer."""
    return {layer: pid for layer in LAYERS if (pid := run.holder(layer)) is not None}


def _outcome(killed: bool) -> str:
    return f"killed: it did not end within {supervise.STOP_WAIT_S} s" if killed else "stopped"


def _remove_device(run: RunDirectory) -> list[str]:
    facts = read_note(run.path / DEVICE_FILE)
    name = facts.get("name")
    if not isinstance(name, str) or not name:
        return []
    if (run.path / NET_FILE).exists():
        return [f"device {name} stays, as `lvlip net up` asked; `lvlip net down` removes it"]
    (run.path / DEVICE_FILE).unlink(missing_ok=True)
    if not facts.get("created"):
        return [f"device {name} stays, as it was there before"]
    return _delete_link(name)


def _delete_link(name: str) -> list[str]:
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ipr:
            found = ipr.link_lookup(ifname=name)
            if not found:
                return []
            ipr.link("del", index=found[0])
    except (NetlinkError, OSError) as error:
        return [f"device {name} stays: {error}; remove it with: ip link del {name}"]
    return [f"device {name} removed"]


def _clean(run: RunDirectory) -> None:
    """Sockets, pid files and shared memory; the logs and secrets stay."""
    for name in _TRANSIENT:
        (run.path / name).unlink(missing_ok=True)
    for pattern in ("*.ctl", "*.tap", *ADDON_PATTERNS):  # locks stay: to remove one could let two processes hold "it"
        for path in run.path.glob(pattern):
            path.unlink(missing_ok=True)
    for first in LAYERS:
        for second in LAYERS:
            run.pipe(first, second).unlink(missing_ok=True)
    (run.door / "gateway").unlink(missing_ok=True)
    if run.memory.is_dir() and run.memory.stat().st_uid == os.geteuid():
        shutil.rmtree(run.memory, ignore_errors=True)


def read_note(path: Path) -> dict[str, Any]:
    """A small JSON object in a file; empty if there is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
