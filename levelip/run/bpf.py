"""The seccomp filter: which calls of the program are trapped, refused at once, or left to the kernel.

another ABI         its socket calls: EAFNOSUPPORT; all else: the kernel's
x32                 ENOSYS
io_uring_setup      ENOSYS: what is submitted there passes no filter
socket              trapped, unless its family is the kernel's own (of AF_NETLINK: all but what tells of the network)
sendto, recvfrom    trapped where an address is given; send and recv, which give none, are the kernel's, but a send
                    with MSG_MORE, and a recv of one byte without flags: the question of Python's SSLSocket whether
                    there is a connection
ioctl               trapped where it asks for interfaces, or for what has not gone (SIOCOUTQ, SIOCOUTQNSD)
open, openat        trapped where the flags are O_RDONLY alone (`all_opens`: or with O_CLOEXEC): files that tell of
                    the network are opened so
the other calls     trapped, whatever the descriptor is: the supervisor sees whose it is
all else            the kernel's
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from levelip.run.syscalls import INTERFACE_REQUESTS, SIOCOUTQ, SIOCOUTQNSD, Machine

ALLOW, ERRNO, USER_NOTIF = 0x7FFF0000, 0x00050000, 0x7FC00000  # SECCOMP_RET_*, linux/seccomp.h
LOAD, EQUAL, AT_LEAST, HAS = 0x20, 0x15, 0x35, 0x45  # linux/filter.h: LD|W|ABS, JMP|JEQ|K, JMP|JGE|K, JMP|JSET|K
RETURN = 0x06  # RET|K
NUMBER, ARCH, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; of an argument the low half comes first
REQUEST, PROTOCOL, ADDRESS = 1, 2, 4  # which argument of ioctl, of socket, of sendto and recvfrom
LENGTH, FLAGS = 2, 3  # of sendto and recvfrom
X32 = 0x40000000  # __X32_SYSCALL_BIT
AF_ALG = 38  # the kernel's cryptography
LOCAL = (socket.AF_UNIX, AF_ALG)  # families that lead nowhere by a wire: the kernel's
NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4  # netlink protocols that tell of addresses, interfaces and routes; of sockets
OPEN_FLAGS = {"open": 1, "openat": 2}  # which argument they are
INSTRUCTION = struct.Struct("=HBBI")


def program(machine: Machine, *, all_opens: bool = False) -> bytes:
    """The filter's instructions (struct sock_filter). `all_opens`: O_CLOEXEC makes no difference to an open."""
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
    special = ("socket", "sendto", "recvfrom", "ioctl", *OPEN_FLAGS)
    for name, number in machine.calls.items():
        if name not in special:
            when(EQUAL, number, USER_NOTIF)

    def block(name: str, rows: list[tuple[int, int, int, int]]) -> None:
        """Instructions for one call; each path through them returns."""
        out.append((EQUAL, 0, len(rows), machine.calls[name]))
        out.extend(rows)

    for name in ("sendto", "recvfrom"):
        low, high = (ARGUMENTS + 8 * ADDRESS + half for half in (0, 4))
        length, flags = (ARGUMENTS + 8 * index for index in (LENGTH, FLAGS))
        rows = [(LOAD, 0, 0, flags), (HAS, 1, 0, socket.MSG_MORE), (RETURN, 0, 0, ALLOW)]
        if name == "recvfrom":
            rows = [(LOAD, 0, 0, length), (EQUAL, 0, 2, 1), (LOAD, 0, 0, flags), (EQUAL, 1, 0, 0), rows[-1]]
        block(name, [
            (LOAD, 0, 0, low), (EQUAL, 0, len(rows) + 2, 0), (LOAD, 0, 0, high), (EQUAL, 0, len(rows), 0), *rows,
            (RETURN, 0, 0, USER_NOTIF),
        ])  # fmt: skip
    rows = [(LOAD, 0, 0, ARGUMENTS + 8 * REQUEST)]
    for request in (*INTERFACE_REQUESTS.values(), SIOCOUTQ, SIOCOUTQNSD):
        rows += [(EQUAL, 0, 1, request), (RETURN, 0, 0, USER_NOTIF)]
    block("ioctl", [*rows, (RETURN, 0, 0, ALLOW)])
    trapped = [os.O_RDONLY, machine.large_file]
    if all_opens:
        trapped += [flags | os.O_CLOEXEC for flags in trapped]
    for name, flags in OPEN_FLAGS.items():
        if name in machine.calls:
            rows = [(EQUAL, len(trapped) - place, 0, value) for place, value in enumerate(trapped)]
            block(name, [
                (LOAD, 0, 0, ARGUMENTS + 8 * flags), *rows, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, USER_NOTIF),
            ])  # fmt: skip
    rows = [(LOAD, 0, 0, ARGUMENTS)]
    for family in LOCAL:
        rows += [(EQUAL, 0, 1, family), (RETURN, 0, 0, ALLOW)]
    rows += [(EQUAL, 0, 4, socket.AF_NETLINK), (LOAD, 0, 0, ARGUMENTS + 8 * PROTOCOL)]
    rows += [(EQUAL, 2, 0, NETLINK_ROUTE), (EQUAL, 1, 0, NETLINK_SOCK_DIAG)]
    rows += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, USER_NOTIF)]
    block("socket", rows)
    out.append((RETURN, 0, 0, ALLOW))
    return b"".join(INSTRUCTION.pack(*row) for row in out)
