"""Who holds a stack: processes as holders, and whether one still lives."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from levelip.debug.tap import PROCESSES
from levelip.ipc.clock import Hold, Holder


def holder(tool: str) -> Holder:
    """This process, as the holder of a stack."""
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Holder(os.getpid(), started(os.getpid()), user, tool)


def started(pid: int) -> int:
    """When a process started, in ticks since boot; 0 if there is none (or but its remains)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in "ZX" else int(fields[19])


def alive(one: Holder) -> bool:
    """Whether the holder's process still runs."""
    return started(one.pid) == one.start != 0


def same(one: Holder, other: Holder) -> bool:
    """Whether both are the same process."""
    return (one.pid, one.start) == (other.pid, other.start)


def elsewhere(here: Iterable[str], statuses: Iterable[Mapping[str, Any]]) -> list[str]:
    """Layers that are connected with those `here`, by whose answers to "status", and run on another host."""
    up = {name for status in statuses for name, facts in status.get("neighbours", {}).items() if facts["up"]}
    return [name for name in PROCESSES if name in up - set(here)]


def elsewhere_text(layers: list[str]) -> str:
    """That they go on, and what to do."""
    runs = "runs" if len(layers) == 1 else "run"
    go = "goes" if len(layers) == 1 else "go"
    return (
        f"{' and '.join(layers)} {runs} on another host and {go} on, timers and all, as does what lies beyond: to stop "
        "that, hold the stack there too"
    )


def describe(why: Hold | None) -> str:
    """ "since 12:03:04 (2 min) by lvlip debug (pid 123, root)"."""
    if why is None:
        return "by somebody who left no word"
    one = why.holder
    ended = "" if alive(one) else ", which has ended"
    clock = time.strftime("%H:%M:%S", time.localtime(why.since))
    return f"since {clock} ({_ago(time.time() - why.since)}) by {one.tool} (pid {one.pid}, user {one.user}{ended})"


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
