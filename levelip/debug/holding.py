"""Who holds a stack: processes as holders, and whether one still lives."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Iterable, Mapping
from typing import Any

from levelip.debug.tap import PROCESSES
from levelip.ipc.clock import Hold, Holder
from levelip.ipc.hostdesk import started


def holder(tool: str) -> Holder:
    """This process, as the holder of a stack."""
    uid = os.geteuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return Holder(os.getpid(), started(os.getpid()), user, tool)


def alive(one: Holder) -> bool:
    """Whether the holder's process still runs. One of another host cannot be seen from here, and is not."""
    return not one.page and started(one.pid) == one.start != 0


def same(one: Holder, other: Holder) -> bool:
    """Whether both are the same process."""
    return (one.pid, one.start, one.page) == (other.pid, other.start, other.page)


def elsewhere(here: Iterable[str], statuses: Iterable[Mapping[str, Any]]) -> list[str]:
    """Layers on another host: those that are connected with the ones `here`, by whose answers to "status", or would be
    over a network."""
    found = set()
    for status in statuses:
        found |= {name for name, facts in status.get("neighbours", {}).items() if facts["up"] or facts.get("remote")}
    return [name for name in PROCESSES if name in found - set(here)]


def elsewhere_text(layers: list[str]) -> str:
    """That they go on, and what to do."""
    go_on = "it goes on" if len(layers) == 1 else "they go on"
    return (
        f"NOT HELD: {' and '.join(layers)} on another host, where nobody answers: {go_on}, timers and all, as does "
        "what lies beyond; hold the stack there, too"
    )


def behind_text(layers: list[str]) -> str:
    """That they are held as well."""
    return f"{' and '.join(layers)} on another host {'is' if len(layers) == 1 else 'are'} held, too"


def unreached_text(layers: list[str]) -> str:
    """That what was done was not done there."""
    return f"not reached: {' and '.join(layers)} on another host, where nobody answers; this was done here alone"


def describe(why: Hold | None) -> str:
    """ "since 12:03:04 (2 min) by lvlip debug (pid 123, root)"."""
    if why is None:
        return "by somebody who left no word"
    one = why.holder
    ended = f", on {one.host}" if one.page else "" if alive(one) else ", which has ended"
    clock = time.strftime("%H:%M:%S", time.localtime(why.since))
    return f"since {clock} ({_ago(time.time() - why.since)}) by {one.tool} (pid {one.pid}, user {one.user}{ended})"


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min"
    return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
