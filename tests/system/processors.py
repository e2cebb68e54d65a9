"""How long processes have waited for a processor: what a limit on time leaves out, since others use the machine too."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

_PROC = Path("/proc")
_NS = 1e9


class Queued:
    """From now on: this process and all that descend from it, those that are started meanwhile included.

    began = time.monotonic()
    queued = Queued()
    ...
    assert time.monotonic() - began < 1.0 + queued.seconds()

    What happens in one process after another takes no longer than on a machine that does nothing else, and for what all
    of them together have waited. Where the kernel keeps no such figures, all time counts as waited for.
    """

    def __init__(self) -> None:
        self._before = _waits()
        self._stolen = _stolen()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Of all threads together, and what the machine, if it is a virtual one, has waited for its own processors."""
        if not (_PROC / "self" / "schedstat").exists():
            return time.monotonic() - self._began
        waited = sum(max(0, each - self._before.get(thread, 0)) for thread, each in _waits().items())
        return waited / _NS + _stolen() - self._stolen


def _family() -> set[int]:
    """This process and its descendants."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended
                parent = int((entry / "stat").read_text("ascii", "replace").rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    more = [os.getpid()]
    while more:
        pid = more.pop()
        found.add(pid)
        more += children.get(pid, [])
    return found


def _waits() -> dict[tuple[int, str], int]:
    """ns in the run queue by process and thread: the second figure of schedstat (kernel, scheduler/sched-stats.rst)."""
    found = {}
    for pid in _family():
        with contextlib.suppress(OSError):
            for thread in (_PROC / str(pid) / "task").iterdir():
                with contextlib.suppress(OSError, IndexError):
                    found[pid, thread.name] = int((thread / "schedstat").read_text("ascii").split()[1])
    return found


def _stolen() -> float:
    """s that all processors together were not given by a hypervisor: proc(5), /proc/stat, steal."""
    figures = (_PROC / "stat").read_text("ascii").partition("\n")[0].split()
    return int(figures[8]) / os.sysconf("SC_CLK_TCK") if len(figures) > 8 else 0.0
