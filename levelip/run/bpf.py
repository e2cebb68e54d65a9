"""The seccomp filter: which calls of the program are trapped, refused at once, or left to the kernel.

    another ABI         its socket calls: EAFNOSUPPORT; all else: the kernel's
    x32                 ENOSYS
    io_uring_setup      ENOSYS: what is submitted there passes no filter
    socket              trapped, unless its family is the kernel's own
    the other calls     trapped, whatever the descriptor is: the supervisor sees whose it is
    all else            the kernel's
"""

from __future__ import annotations

import errno
import socket
import struct

from levelip.run.syscalls import Machine

ALLOW, ERRNO, USER_NOTIF = 0x7FFF0000, 0x00050000, 0x7FC00000  # SECCOMP_RET_*, linux/seccomp.h
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06  # linux/filter.h: LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, RET|K
NUMBER, ARCH, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data; the low half on little-endian machines
X32 = 0x40000000  # __X32_SYSCALL_BIT
AF_ALG = 38  # the kernel's cryptography
LOCAL = (socket.AF_UNIX, socket.AF_NETLINK, AF_ALG)  # families that lead nowhere by a wire: the kernel's
INSTRUCTION = struct.Struct("=HBBI")


def program(machine: Machine) -> bytes:
    """The filter's instructions (struct sock_filter)."""
    out: list[tuple[int, int, int, int]] = []

    def when(test: int, value: int, verdict: int) -> None:
        out.extend([(test, 0, 1, value), (RETURN, 0, 0, verdict)])

    no_family, no_call = ERRNO | errno.EAFNOSUPPORT, ERRNO | errno.ENOSYS
    foreign: list[tuple[int, int, int, int]] = [(LOAD, 0, 0, NUMBER)]
    for number in machine.foreign:
        foreign.extend([(EQUAL, 0, 1, number), (RETURN, 0, 0, no_family)])
    foreign.append((RETURN, 0, 0, ALLOW))
    out.append((LOAD, 0, 0, ARCH))
    out.append((EQUAL, len(foreign), 0, machine.audit))
    out.extend(foreign)
    out.append((LOAD, 0, 0, NUMBER))
    when(AT_LEAST, X32, no_call)
    when(EQUAL, machine.io_uring_setup, no_call)
    for name, number in machine.calls.items():
        if name != "socket":
            when(EQUAL, number, USER_NOTIF)
    when_socket = machine.calls["socket"]
    out.extend([(EQUAL, 1, 0, when_socket), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, FIRST_ARGUMENT)])
    for family in LOCAL:
        when(EQUAL, family, ALLOW)
    out.append((RETURN, 0, 0, USER_NOTIF))
    return b"".join(INSTRUCTION.pack(*row) for row in out)
