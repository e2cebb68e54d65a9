"""Questions about the program's end of a pair that the helper's end cannot answer.

The helper keeps no copy of the program's end, so that a hang-up means its last close. Two things need more: after
both directions were shut the hang-up is there already, so whether anybody still holds the end is asked of the kernel
(sock_diag, else /proc/net/unix); and for a reset to show as ECONNRESET on the program's end, a byte that came from
it must lie unread in ours when we close, so the end is borrowed for an instant where the kernel allows that.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

NETLINK_SOCK_DIAG = 4  # linux/netlink.h
SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
NLMSG_ERROR = 2  # linux/netlink.h
NLM_F_REQUEST = 1
PIDFD_THREAD = os.O_EXCL  # linux/pidfd.h, since Linux 6.9
SYS_PIDFD_GETFD = 438  # the same number on every architecture (since Linux 5.6)
_NLMSGHDR = struct.Struct("=IHHII")
_UNIX_DIAG_REQ = struct.Struct("=BBHIIIII")  # linux/unix_diag.h
_NO_COOKIE = 0xFFFFFFFF


def unread(end: socket.socket) -> bool:
    """Whether anything that was written into our end still lies in the pair."""
    value = array.array("i", [0])
    fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, value)  # SIOCOUTQ: memory of what the other side has not read
    return bool(value[0])


class Ends:
    """Looks up programs' ends by inode. Holds one netlink socket, opened at first use."""

    def __init__(self) -> None:
        self._netlink: socket.socket | None = None
        self._no_netlink = False
        self._answers: bool | None = None  # whether this kernel's sock_diag knows AF_UNIX; None: not tried

    def alive(self, inodes: Iterable[int]) -> set[int]:
        """Those of `inodes` that are sockets somebody still holds open."""
        wanted = list(inodes)
        try:
            return {inode for inode in wanted if self._diag(inode)}
        except OSError:
            self._no_netlink = True
        found = set()
        with Path("/proc/net/unix").open("rb") as table:
            next(table, None)
            for line in table:
                columns = line.split(None, 7)
                if len(columns) > 6:
                    found.add(int(columns[6]))
        return found.intersection(wanted)

    def _diag(self, inode: int) -> bool:
        """sock_diag's answer for one inode; raises OSError where this kernel has no unix_diag."""
        if self._no_netlink:
            raise OSError(errno.ENOENT, "no unix_diag")
        if self._netlink is None:
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
            netlink.settimeout(1.0)  # seconds; the kernel answers at once or never
            self._netlink = netlink
        body = _UNIX_DIAG_REQ.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, 0, _NO_COOKIE, _NO_COOKIE)
        head = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 1, 0)
        self._netlink.send(head + body)
        reply = self._netlink.recv(8192)
        if _NLMSGHDR.unpack_from(reply)[1] != NLMSG_ERROR:
            return True
        code = -struct.unpack_from("=i", reply, _NLMSGHDR.size)[0]
        if code == errno.ENOENT and inode:
            # a kernel without unix_diag gives ENOENT for everything: ask once about a socket that we know is there
            if not self._known_to_answer():
                raise OSError(errno.ENOENT, "no unix_diag")
            return False
        raise OSError(code, os.strerror(code))

    def _known_to_answer(self) -> bool:
        if self._answers is None:
            self._answers = False  # also ends the recursion
            one, other = socket.socketpair()
            with one, other, contextlib.suppress(OSError):
                self._answers = self._diag(os.fstat(one.fileno()).st_ino)
        return self._answers

    def borrow(
        self, inodes: set[int], processes: Callable[[], Iterable[int]], seen: Mapping[int, tuple[int, int]]
    ) -> dict[int, int]:
        """inode → a descriptor of ours for it, for those that the processes hold and the kernel lends us.

        The caller closes them. `seen`: inode → (thread, its descriptor), where to look first. Then one scan of each
        process, however many inodes are asked for.
        """
        found: dict[int, int] = {}
        for known, (tid, number) in seen.items():
            fd = borrow_fd(tid, number, known)
            if fd is not None:
                found[known] = fd
        if len(found) == len(inodes):
            return found
        wanted = {f"socket:[{inode}]": inode for inode in inodes}
        for pid in processes():
            if len(found) == len(wanted):
                break
            try:
                names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208 - thousands of them
                pidfd = os.pidfd_open(pid)
            except OSError:
                continue
            try:
                for name in names:
                    try:
                        inode = wanted.get(os.readlink(f"/proc/{pid}/fd/{name}"))  # noqa: PTH115 - likewise
                    except OSError:
                        continue
                    if inode is None or inode in found:
                        continue
                    lent = _pidfd_getfd(pidfd, int(name))
                    if lent is None:
                        break
                    if os.fstat(lent).st_ino != inode:
                        os.close(lent)
                        continue
                    found[inode] = lent
            finally:
                os.close(pidfd)
        return found

    def close(self) -> None:
        """Give the netlink socket back."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None


_libc = ctypes.CDLL(None, use_errno=True)


def _pidfd_getfd(pidfd: int, fd: int) -> int | None:
    """A duplicate of another process's descriptor, or None where the kernel refuses (Yama, no such descriptor)."""
    result = int(_libc.syscall(SYS_PIDFD_GETFD, pidfd, fd, 0))
    return result if result >= 0 else None


def borrow_fd(tid: int, number: int, inode: int) -> int | None:
    """A duplicate of the descriptor `number` of a thread's process, if it is the socket `inode`, for the caller to
    close."""
    try:
        pidfd = os.pidfd_open(tid, PIDFD_THREAD)
    except OSError as error:
        if error.errno != errno.EINVAL:
            return None
        try:
            pidfd = os.pidfd_open(_process(tid))
        except OSError:
            return None
    try:
        fd = _pidfd_getfd(pidfd, number)
    finally:
        os.close(pidfd)
    if fd is not None and os.fstat(fd).st_ino != inode:
        os.close(fd)
        return None
    return fd


def _process(tid: int) -> int:
    """The process of a thread; OSError if it is gone."""
    for line in Path(f"/proc/{tid}/status").read_bytes().splitlines():
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
