"""Stopping a stack: supervisor and layers ended, what they left removed. Used by `down` and by an `up` that fails."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from levelip.cli import supervise
from levelip.cli.common import LAYERS, Failure, Stack, alive
from levelip.ipc.addonkeep import PATTERNS as ADDON_PATTERNS
from levelip.ipc.breakpoints import BREAKPOINTS
from levelip.ipc.rundir import RunDirectory

DEVICE_FILE = "device.json"
"""Written by `up`: {"name", "created"}; a device that link made, and did not find, `down` removes."""
NET_FILE = "net.json"
"""Written by `lvlip net up`, which wants the device to stay until `lvlip net down`."""
_TRANSIENT = (
    "supervisord.conf", "supervisord.pid", "supervisor.sock", "config.toml", "settings.json", "clock", BREAKPOINTS,
    f"{BREAKPOINTS}.lock",
)  # fmt: skip


def bring_down(stack: Stack) -> list[str]:
    """Stop everything of the stack and clean up; what was done, a sentence each. Empty: nothing was there."""
    run = stack.run
    done: list[str] = []
    running = supervise.find(run)
    ours = running is None or running[0].socket == supervise.Paths.of(run).socket
    pids = {layer: pid for layer in LAYERS if (pid := run.holder(layer)) is not None}
    if running is not None:
        supervisor, pid = running
        supervisor.shutdown()
        if not supervise.wait_for(lambda: not alive(pid), supervise.STOP_WAIT_S + 5.0):
            raise Failure(f"supervisord (pid {pid}) does not end; see {supervise.Paths.of(run).log}")
        done.append(f"supervisord (pid {pid}) stopped")
    for layer, pid in pids.items():
        if alive(pid) and run.holder(layer) == pid:
            if not supervise.was_supervised(pid):
                done.append(f"{layer} (pid {pid}) was started by hand and goes on running")
                continue
            supervise.end(pid)
        done.append(f"{layer} (pid {pid}) stopped")
    if any(run.holder(layer) is not None for layer in LAYERS):
        return done
    done += _remove_device(run)
    if ours:
        _clean(run)
    return done


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
