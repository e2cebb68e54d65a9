"""Numbers of the system calls that are trapped, and of the machines that they are known for."""

from __future__ import annotations

import errno
import platform
from dataclasses import dataclass

TRAPPED = (
    "socket", "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "setsockopt",
    "getsockopt", "shutdown",
)  # fmt: skip
"""What names addresses or options. read, write, send, recv, poll, close, dup and the rest are the kernel's."""


@dataclass(frozen=True)
class Machine:
    """A processor's numbers. `audit` is its AUDIT_ARCH (linux/audit.h); `foreign` the calls by which a program of its
    other ABIs (i386, 32-bit ARM) gets sockets, which are refused."""

    audit: int
    seccomp: int
    io_uring_setup: int
    calls: dict[str, int]
    foreign: tuple[int, ...]


def _calls(numbers: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(TRAPPED, numbers, strict=True))


MACHINES = {
    # arch/x86/entry/syscalls/syscall_64.tbl; i386: socketcall, socket
    "x86_64": Machine(0xC000003E, 317, 425, _calls((41, 49, 50, 43, 288, 42, 51, 52, 54, 55, 48)), (102, 359)),
    # include/uapi/asm-generic/unistd.h; 32-bit ARM: socket, and socketcall, which is only a stub there
    "aarch64": Machine(
        0xC00000B7, 277, 425, _calls((198, 200, 201, 202, 242, 203, 204, 205, 208, 209, 210)), (281, 102)
    ),
}


def machine() -> Machine:
    """This machine's numbers; OSError(ENOSYS) where they are not known."""
    name = platform.machine()
    if name not in MACHINES:
        raise OSError(errno.ENOSYS, f"lvlip run knows the system calls of {', '.join(MACHINES)}, not of {name}")
    return MACHINES[name]
