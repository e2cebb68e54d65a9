"""Numbers of the system calls that are trapped, and of the machines that they are known for."""

from __future__ import annotations

import errno
import platform
from dataclasses import dataclass

NUMBERS: dict[str, tuple[int, int | None]] = {
    "socket": (41, 198), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "connect": (42, 203), "getsockname": (51, 204), "getpeername": (52, 205), "setsockopt": (54, 208),
    "getsockopt": (55, 209), "shutdown": (48, 210), "sendto": (44, 206), "recvfrom": (45, 207), "sendmsg": (46, 211),
    "recvmsg": (47, 212), "sendmmsg": (307, 269), "recvmmsg": (299, 243), "ioctl": (16, 29), "openat": (257, 56),
    "open": (2, None),
}  # fmt: skip
"""What names addresses, options or interfaces, on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl) and aarch64
(include/uapi/asm-generic/unistd.h). `sendto` and `recvfrom` are trapped only where an address is given, `ioctl` only
for the requests below, `open` and `openat` only to read (procfiles.py). read, write, send, recv, poll,
close, dup and the rest are the kernel's."""

INTERFACE_REQUESTS = {
    "SIOCGIFNAME": 0x8910, "SIOCGIFCONF": 0x8912, "SIOCGIFFLAGS": 0x8913, "SIOCGIFADDR": 0x8915,
    "SIOCGIFDSTADDR": 0x8917, "SIOCGIFBRDADDR": 0x8919, "SIOCGIFNETMASK": 0x891B, "SIOCGIFMETRIC": 0x891D,
    "SIOCGIFMTU": 0x8921, "SIOCGIFHWADDR": 0x8927, "SIOCGIFINDEX": 0x8933, "SIOCGIFTXQLEN": 0x8942,
}  # fmt: skip
"""The requests of ioctl(2) that are trapped (linux/sockios.h): what asks for interfaces, which are the stack's."""
SIOCOUTQ, SIOCOUTQNSD = 0x5411, 0x894B
"""Trapped, too (asm-generic/ioctls.h, where the first is TIOCOUTQ as well; linux/sockios.h): how much of what was
written has not been acknowledged, or not been sent."""


@dataclass(frozen=True)
class Machine:
    """A processor's numbers. `audit` is its AUDIT_ARCH (linux/audit.h); `foreign` the calls by which a program of its
    other ABIs (i386, 32-bit ARM) gets sockets, which are refused."""

    audit: int
    seccomp: int
    io_uring_setup: int
    calls: dict[str, int]
    foreign: tuple[int, ...]
    large_file: int  # O_LARGEFILE, which musl adds to all that is opened


def _calls(column: int) -> dict[str, int]:
    found = {name: numbers[column] for name, numbers in NUMBERS.items()}
    return {name: number for name, number in found.items() if number is not None}


MACHINES = {
    # i386: socketcall, socket; 32-bit ARM: socket, and socketcall, which is only a stub there
    "x86_64": Machine(0xC000003E, 317, 425, _calls(0), (102, 359), 0o100000),
    "aarch64": Machine(0xC00000B7, 277, 425, _calls(1), (281, 102), 0o400000),
}


def machine() -> Machine:
    """This machine's numbers; OSError(ENOSYS) where they are not known."""
    name = platform.machine()
    if name not in MACHINES:
        raise OSError(errno.ENOSYS, f"lvlip run knows the system calls of {', '.join(MACHINES)}, not of {name}")
    return MACHINES[name]
