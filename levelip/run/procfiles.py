"""Files by which the kernel tells of interfaces, routes and sockets (proc_pid_net(5), /sys/class/net): to a program on
the stack they would tell of the host's.

The kernel's filter cannot see a path, and open is too frequent to be trapped each time. So those are whose flags are
exactly O_RDONLY: of fopen(3) with "r", by which net-tools, iproute2 and busybox read these files, of Java, of `cat` and
of a shell's `<`. Most programs have a handful of such opens, and those of other files go on to the kernel. ld.so,
Python, Go and Rust say O_CLOEXEC: theirs are trapped, too, where the user wants that (`lvlip run --all-opens`).
/proc/net/route is the stack's; what is about no network is the kernel's; all else is not there (ENOENT).
"""

from __future__ import annotations

import errno
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from levelip.client.control import Answer
from levelip.run import target
from levelip.run.interfaces import Interface, Way, interfaces_of, netmask, ways_of
from levelip.run.trapped import Trapped

if TYPE_CHECKING:
    from levelip.run.trap import Trap

PATHS = {"openat": 1, "open": 0}  # which argument of the call is the path; its flags are the next one
AT_FDCWD = 0xFFFF_FF9C  # -100, linux/fcntl.h
PATH_MOST = 128  # bytes: these files have shorter ones
PAGE = 4096
OF_NO_NETWORK = frozenset({"unix", "netlink", "packet", "protocols"})  # below /proc/net: the kernel's
OF_IPV6 = frozenset({"if_inet6", "ipv6_route", "tcp6", "udp6", "raw6", "icmp6", "igmp6", "snmp6", "sockstat6"})
RTF_UP, RTF_GATEWAY, RTF_HOST, RTF_REJECT = 1, 2, 4, 0x200  # linux/route.h
ROUTE_WIDTH = 127  # net/ipv4/fib_trie.c fib_route_seq_show
ROUTE_HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
_NET = re.compile(r"/proc/(?:(?:self|thread-self|\d+)/(?:task/\d+/)?)?net/(.+)")
_CLASS = "/sys/class/net/"


class ProcFiles:
    """Part of Trap."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def open(self, call: Trapped) -> None:
        """open(2) or openat(2) of one of these files."""
        name = which(call.tid, call.name, call.args)
        if not name:  # another thread has written another path there since it was trapped
            call.pass_on()
            return
        if name != "route":
            if name not in OF_IPV6:  # there is none: programs ask, and go on
                self._trap.say("facts", f"{name} would tell of the host's network: ENOENT; see lvlip address, ss, stat")
            call.fail(errno.ENOENT)
            return

        def done(code: int, data: dict[str, Any], _: str) -> None:
            if code:
                call.fail(code)
                return
            text = route_table(interfaces_of(data), ways_of(data))

            def give(call: Trapped, _: Answer, __: tuple[int, ...]) -> bool:
                fd = readable(text)
                try:
                    return call.give(fd, cloexec=bool(call.args[PATHS[call.name] + 1] & os.O_CLOEXEC))
                finally:
                    os.close(fd)

            call.finish = give
            call.answer(Answer(0, 0, {}))

        self._trap.calls.ask("interfaces", {}, done)


def which(tid: int, call: str, args: tuple[int, ...]) -> str:
    """The file that a thread's call opens: "route" or another below /proc/net, "/sys/class/net/...". Empty where it is
    none of these, or not to be seen: the kernel's."""
    where = PATHS[call]
    try:
        path = _text(tid, args[where])
        if path[:1] != "/" and path:
            directory = args[0] & 0xFFFFFFFF if where else AT_FDCWD
            link = "cwd" if directory == AT_FDCWD else f"fd/{directory}"
            path = os.readlink(f"/proc/{tid}/{link}") + "/" + path  # noqa: PTH115 - it is a hot path
    except OSError:
        return ""  # the kernel says so
    path = "/" + os.path.normpath(path).lstrip("/")  # it leaves two slashes, as below "/"
    if path.startswith(_CLASS):
        return path
    found = _NET.fullmatch(path)
    return "" if found is None or found[1] in OF_NO_NETWORK else found[1]


def _text(tid: int, address: int) -> str:
    """A path in a thread's memory; empty where it is longer than these files' are."""
    data = target.read(tid, address, min(PATH_MOST, PAGE - address % PAGE))
    if b"\0" not in data and len(data) < PATH_MOST:
        data += target.read(tid, address + len(data), PATH_MOST - len(data))
    return os.fsdecode(data[: data.find(b"\0")]) if b"\0" in data else ""


def route_table(interfaces: list[Interface], ways: list[Way]) -> str:
    """/proc/net/route (net/ipv4/fib_trie.c fib_route_seq_show), the lowest prefix first."""
    names = {one.index: one.name for one in interfaces}
    lines = [ROUTE_HEAD]
    for way in sorted(ways, key=lambda way: (way.prefix, -way.length)):
        if way.kind in ("local", "broadcast", "multicast"):  # not of the main table
            continue
        flags = RTF_UP | (RTF_GATEWAY if any(way.via) else 0) | (RTF_HOST if way.length == 32 else 0)
        flags |= RTF_REJECT if way.kind in ("unreachable", "prohibit") else 0
        where, via, mask = (int.from_bytes(part, sys.byteorder) for part in (way.prefix, way.via, netmask(way.length)))
        lines.append(
            f"{names.get(way.iface, '*')}\t{where:08X}\t{via:08X}\t{flags:04X}\t0\t0\t{way.metric}\t{mask:08X}\t0\t0\t0"
        )
    return "".join(line.ljust(ROUTE_WIDTH) + "\n" for line in lines)


def readable(text: str) -> int:
    """A descriptor from which a program reads `text`, and cannot write; the caller closes it."""
    memory = os.memfd_create("lvlip-run", os.MFD_CLOEXEC)
    try:
        os.write(memory, text.encode())
        return os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(memory)
