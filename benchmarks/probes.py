"""What the kernel knows of processes: CPU time, memory, context switches; and who a program's socket helper is."""

from __future__ import annotations

import time
from pathlib import Path

_CPUCLOCK_SCHED = 2  # linux/posix-timers.h
_KB = 1024


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, all threads, so far: seconds, exact (clock_getcpuclockid(3)), not in ticks of 10 ms."""
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def pss_bytes(pid: int) -> int:
    """Proportional set size: private memory plus its share of what is shared, bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * _KB
    return 0


def switches(pid: int) -> int:
    """Context switches of the process's main thread so far, voluntary and not."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return sum(int(line.split()[1]) for line in lines if "_ctxt_switches" in line)


def helper_pid(program: int) -> int | None:
    """The socket helper of a program, found by its command line, which ends with "NAME[PID]"; None if it has none."""
    ending = f"[{program}]"
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        if b"levelip.client.helper" in words and words[-1].decode(errors="replace").endswith(ending):
            return int(entry.name)
    return None


def files_bytes(directory: Path) -> int:
    """Memory that the files below a directory of /dev/shm take: sparse ones only what was written."""
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
