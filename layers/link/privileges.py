"""Giving up every privilege for good, once the device is open (capabilities(7), prctl(2)).

Root without capabilities still owns root's files, which is all that link needs from there on.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

# linux/prctl.h
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91, "riscv64": 91}  # where the C library has no capset
_MAX_CAPABILITIES = 64


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_privileges() -> None:
    """Empty the effective, permitted, inheritable, ambient and bounding sets, and set no_new_privs.

    Acts on the calling thread and those it starts later, so it must be called before any other thread exists; this
    is checked. Raises OSError or RuntimeError if any privilege is left: the process must not go on then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _call(libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(_MAX_CAPABILITIES):
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            # EINVAL: past the last capability. EPERM: no CAP_SETPCAP; an ordinary user, whom no_new_privs holds.
            if ctypes.get_errno() not in (errno.EINVAL, errno.EPERM):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            break
    _call(libc.prctl, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header, data = _Header(_CAPABILITY_VERSION_3, 0), (_Data * 2)()
    if hasattr(libc, "capset"):
        _call(libc.capset, ctypes.byref(header), ctypes.byref(data))
    else:
        _call(libc.syscall, _SYS_CAPSET[os.uname().machine], ctypes.byref(header), ctypes.byref(data))
    for thread in Path("/proc/self/task").iterdir():
        kept = held_capabilities(thread / "status")
        if kept:
            raise RuntimeError(f"thread {thread.name} keeps capabilities {kept:#x}")


def _call(function: ctypes._NamedFuncPointer, *args: object) -> None:
    if function(*args) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def held_capabilities(status: Path = Path("/proc/self/status")) -> int:
    """The capabilities that a thread could use: its permitted set, as bits."""
    for line in status.read_text().splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    raise RuntimeError(f"{status} does not tell of capabilities")
