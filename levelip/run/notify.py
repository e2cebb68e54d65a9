"""seccomp's user notification, by ctypes and ioctl: install the filter, take a trapped call, answer it (seccomp(2),
seccomp_unotify(2)).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
from dataclasses import dataclass

from levelip.run.bpf import INSTRUCTION, program
from levelip.run.syscalls import machine

PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
SET_MODE_FILTER = 1  # linux/seccomp.h, as all that follows
FLAG_NEW_LISTENER = 1 << 3
RECV, SEND, ID_VALID, ADDFD, SET_FLAGS = 0xC0502100, 0xC0182101, 0x40082102, 0x40182103, 0x40082104
PIDFD_GETFD = 438  # the same number on every architecture (since Linux 5.6)
FD_SYNC_WAKE_UP = 1  # since Linux 6.6: who answers hands its processor over
RESPOND_CONTINUE = 1
ADDFD_SETFD, ADDFD_SEND = 1, 2
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # struct seccomp_notif
_RESPONSE = struct.Struct("=QqiI")  # struct seccomp_notif_resp
_ADDFD = struct.Struct("=QIIII")  # struct seccomp_notif_addfd

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


@dataclass(slots=True)
class Notification:
    """A trapped call: `tid` made it, and waits. `id` is gone when a signal has interrupted it."""

    id: int
    tid: int
    number: int
    args: tuple[int, ...]


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def install(*, all_opens: bool = False) -> int:
    """Put the filter on this thread and all that it starts; the listener's descriptor. Not to be undone. `all_opens`
    is `bpf.program`'s.

    Raises OSError: EBUSY where a filter with a listener is installed already, ENOSYS or EINVAL where the kernel is
    too old (5.14 is needed).
    """
    here = machine()
    if os.geteuid() != 0:
        _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    code = program(here, all_opens=all_opens)
    filter_ = _Program(len(code) // INSTRUCTION.size, code)
    listener = _libc.syscall(here.seccomp, SET_MODE_FILTER, FLAG_NEW_LISTENER, ctypes.byref(filter_))
    if listener < 0 and ctypes.get_errno() == errno.EACCES:  # root without CAP_SYS_ADMIN
        _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        listener = _libc.syscall(here.seccomp, SET_MODE_FILTER, FLAG_NEW_LISTENER, ctypes.byref(filter_))
    return _check(listener, "seccomp")


def take_listener(pid: int, number: int) -> int:
    """A duplicate of the listener that a child has as its descriptor `number`; OSError where the kernel refuses.

    The child cannot send it: sendmsg(2) is trapped by then, and nobody answers yet."""
    pidfd = os.pidfd_open(pid)
    try:
        return _check(_libc.syscall(PIDFD_GETFD, pidfd, number, 0), "pidfd_getfd")
    finally:
        os.close(pidfd)


def become_subreaper() -> None:
    """Orphans below this process become its children, so that it stays the ancestor whom the kernel lets look."""
    _check(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")


def die_with_parent() -> None:
    """This process, whatever it executes, is killed when its parent dies: without a supervisor it would take its
    connections for ended in order, and every call for ENOSYS. Not inherited by its children."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "parent's death signal")


class Listener:
    """The supervisor's end. Every method but `receive` is False, or None, where the call was interrupted meanwhile."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, SET_FLAGS, FD_SYNC_WAKE_UP)

    def receive(self) -> Notification | None:
        """The next trapped call; None if it was interrupted before it was taken."""
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(self.fd, RECV, buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        id_, tid, _, number, _, _, *args = _NOTIFICATION.unpack(buffer)
        return Notification(id_, tid, number, tuple(args))

    def valid(self, id_: int) -> bool:
        """Whether the call still waits: then what was read of its thread is that thread's."""
        try:
            fcntl.ioctl(self.fd, ID_VALID, struct.pack("=Q", id_))
        except OSError:
            return False
        return True

    def _send(self, id_: int, value: int, code: int, flags: int) -> bool:
        try:
            fcntl.ioctl(self.fd, SEND, bytearray(_RESPONSE.pack(id_, value, -code, flags)))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise
        return True

    def answer(self, id_: int, value: int = 0, code: int = 0) -> bool:
        """The call returns `value`, or -1 with errno `code`."""
        return self._send(id_, value, code, 0)

    def let_through(self, id_: int) -> bool:
        """The kernel carries the call out."""
        return self._send(id_, 0, 0, RESPOND_CONTINUE)

    def give(self, id_: int, fd: int, *, cloexec: bool, number: int | None = None) -> int | None:
        """Put a duplicate of our `fd` into the program, and have the call return its number there. With `number`: in
        that one's place, and the call goes on waiting. Raises OSError (EMFILE) where it has no room."""
        flags = ADDFD_SEND if number is None else ADDFD_SETFD
        request = _ADDFD.pack(id_, flags, fd, number or 0, os.O_CLOEXEC if cloexec else 0)
        try:
            return int(fcntl.ioctl(self.fd, ADDFD, bytearray(request)))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return None
            raise
