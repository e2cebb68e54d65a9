"""Where a stack lives: its run directory (the owner's alone) and its door (for applications of other users too)."""

from __future__ import annotations

import os
import re
from pathlib import Path

DEFAULT_NAME = "level-ip"
MAX_SOCKET_PATH = 107  # bytes: sun_path of AF_UNIX less its final zero
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


def stack_name(name: str | None = None) -> str:
    """The name that was given, or LEVELIP_NAME, or "level-ip"; ValueError for one that cannot be a file name."""
    chosen = name or os.environ.get("LEVELIP_NAME") or DEFAULT_NAME
    if not _NAME.fullmatch(chosen) or chosen.endswith(".door"):
        raise ValueError(f"stack name {chosen!r}: letters, digits, '_', '-', '.' only, 40 at most")
    return chosen


def default_root() -> Path:
    """The directory that holds run directories when neither a flag nor LEVELIP_RUN names one."""
    if os.geteuid() == 0:
        return Path("/run/level-ip")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "level-ip"
    return Path(f"/tmp/level-ip-{os.getuid()}")


def run_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The directory that holds run directories: as given, or LEVELIP_RUN, or the default."""
    chosen = root or os.environ.get("LEVELIP_RUN")
    return Path(chosen).absolute() if chosen else default_root()


def door_dir(name: str | None = None, root: str | os.PathLike[str] | None = None) -> Path:
    """The directory of the gateway's door. An ordinary user also finds a stack that root runs."""
    directory = f"{stack_name(name)}.door"
    found = run_root(root) / directory
    if root is None and "LEVELIP_RUN" not in os.environ and not found.is_dir():
        system = Path("/run/level-ip") / directory
        if system.is_dir():
            return system
    return found


def door_endpoint(name: str | None = None, root: str | os.PathLike[str] | None = None) -> str:
    """The ZeroMQ endpoint of the gateway's door."""
    return f"ipc://{door_dir(name, root)}/gateway"
