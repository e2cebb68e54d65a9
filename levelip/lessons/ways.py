"""How a namespace of one's own is to be had: as root, through a user namespace, or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

_UNSHARE = {"root": ["unshare", "--net"], "user": ["unshare", "--user", "--map-root-user", "--net"]}
# linux/if_tun.h, linux/sockios.h, linux/if.h
_TUN, _TUNSETIFF, _IFF_TAP_NO_PI = "/dev/net/tun", 0x400454CA, 0x1002
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_IFREQ = struct.Struct("16sH22x")


class WorldError(Exception):
    """What was to be shown cannot be; the text says why."""


@dataclass(frozen=True, slots=True)
class Way:
    """How it is shown. `lacks` says why the better ways do not work here."""

    name: str  # "root", "user" or "wire"
    lacks: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """For people."""
        return {
            "root": "in a network namespace of its own",
            "user": "in a network namespace of its own, without root (a user namespace)",
            "wire": "two stacks joined by a wire, as a tap in a namespace is not to be had here",
        }[self.name]


def choose(wanted: str = "") -> Way:
    """The first way that works, or the wanted one; WorldError if that one does not work."""
    lacks: list[str] = []
    for name, command in _UNSHARE.items():
        if wanted not in ("", name):
            continue
        if name == "root" and os.geteuid() != 0:
            if wanted:
                raise WorldError("--way root: this is not root")
            continue
        lack = _try(command)
        if not lack:
            return Way(name)
        lacks.append(f"{'as root' if name == 'root' else 'in a user namespace'}: {lack}")
    if wanted in _UNSHARE:
        raise WorldError(f"--way {wanted}: {'; '.join(lacks)}")
    return Way("wire", tuple(lacks))


def _try(command: Sequence[str]) -> str:
    """Why no tap can be opened in a namespace made so; empty if it can."""
    program = (
        f"import fcntl\n"
        f"try: fcntl.ioctl(open({_TUN!r}, 'r+b', buffering=0), {_TUNSETIFF}, {_IFREQ.pack(b'', _IFF_TAP_NO_PI)!r})\n"
        f"except OSError as error: raise SystemExit(f'{_TUN}: {{error.strerror}}')\n"
    )
    try:
        done = subprocess.run(
            [*command, "--", sys.executable, "-S", "-c", program],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["unshare failed"])[-1]


def enter(way: Way, program: Sequence[str]) -> None:
    """Go on in a new namespace as `python PROGRAM`, in the same process. Does not return."""
    sys.stdout.flush()
    command = [*_UNSHARE[way.name], "--", sys.executable, *program]
    os.execvp(command[0], command)


def loopback_up() -> None:
    """Bring lo up in the new namespace. OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        name, flags = _IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0)))
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(name, flags | _IFF_UP))


def tied(command: Sequence[str], number: str = "KILL") -> list[str]:
    """A command that gets the signal when its parent dies, however that dies."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", number, "--", *command] if setpriv else list(command)
