"""Run a program as an ordinary user of this machine, with a /dev/net/tun of a chosen mode; needs root to set it up.

All of it happens in a mount namespace of its own: the user exists in a private /etc/passwd, the device node in a
private tmpfs, and where the interpreter or the checkout lie in a directory closed to others (a home of mode 0700),
that directory is covered by one that holds nothing but them. The machine itself is not changed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.system.namespace import environment

NAME, UID = "lvordinary", 54321
_MOUNT = ["unshare", "--mount", "--propagation", "private"]


def lack() -> str:
    """Why this cannot be done here; empty if it can."""
    if os.geteuid() != 0:
        return "root, to become another user"
    done = subprocess.run([*_MOUNT, "mount", "-t", "tmpfs", "x", "/mnt"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"mount namespaces ({done.stderr.strip()})"


def closed_above(path: Path) -> Path | None:
    """The topmost directory on the way to `path` that others may not enter; None if all may."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & 0o001:
            return directory
    return None


def script(
    home: Path, command: Sequence[str], *, tun_mode: int, paths: Sequence[Path], variables: Mapping[str, str]
) -> str:
    """The shell script that sets up the mount namespace, made before it, and runs the command as the user."""
    stash, lines = home / ".stash", ["set -e"]
    lines += [
        f"mkdir {stash}; mount -t tmpfs -o mode=755,dev stash {stash}",
        f"sed '$a {NAME}:x:{UID}:{UID}::{home}:/bin/sh' /etc/passwd >{stash}/passwd",
        f"chmod 644 {stash}/passwd; mount --bind {stash}/passwd /etc/passwd",
        f"mknod {stash}/tun c 10 200; chmod {tun_mode:o} {stash}/tun; mount --bind {stash}/tun /dev/net/tun",
    ]
    covered = {path: cover for path in paths if (cover := closed_above(path))}
    for index, path in enumerate(covered):
        lines.append(f"mkdir {stash}/{index}; mount --bind {shlex.quote(str(path))} {stash}/{index}")
    lines += [f"mount -t tmpfs -o mode=755 cover {shlex.quote(str(cover))}" for cover in sorted(set(covered.values()))]
    for index, path in enumerate(covered):
        where = shlex.quote(str(path))
        lines.append(f"mkdir -p {where}; mount --bind {stash}/{index} {where}")
    known = {"HOME": str(home), "USER": NAME, "LOGNAME": NAME, **variables}
    given = [f"{name}={value}" for name, value in known.items()]
    user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all", "--no-new-privs"]
    lines.append(f"exec {shlex.join([*user, 'env', '-u', 'XDG_RUNTIME_DIR', *given, *command])}")
    return "\n".join(lines)


def run_as_user(
    home: Path,
    command: Sequence[str],
    *,
    tun_mode: int,
    checkout: Path,
    timeout: float,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run it with `home` (which becomes the user's) as HOME and working directory; what it printed, both streams."""
    os.chown(home, UID, UID)
    interpreter = Path(os.path.realpath(sys.executable)).parents[1]
    text = script(
        home, command, tun_mode=tun_mode, paths=sorted({interpreter, checkout}), variables=variables or {}
    )
    return subprocess.run(
        [*_MOUNT, "bash", "-c", text],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        cwd=home,
        env=environment(),
        check=False,
    )
