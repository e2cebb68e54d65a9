"""What a process has used, by proc(5)."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")


def usage(pid: int) -> tuple[float, int] | None:
    """(CPU seconds in user and kernel mode, resident bytes) of a process; None if it is gone."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(words[11]) + int(words[12])) / _TICKS, int(words[21]) * _PAGE
