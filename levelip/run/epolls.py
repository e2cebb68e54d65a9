"""Epoll sets of the program that watch a descriptor whose socket is replaced: they go on with the new one.

An epoll set knows what it watches by the open file and its number, and who adds something must have both in its own
table of descriptors (epoll_ctl(2)). So a thread with a table of its own puts the sockets where the program has them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import threading

from levelip.client.ends import borrow_fd
from levelip.client.epolls import EPOLL_CTL_ADD, EPOLL_CTL_DEL, Watch, control

CLONE_FILES = 0x400  # linux/sched.h

_libc = ctypes.CDLL(None, use_errno=True)


def move(tid: int, number: int, entries: list[Watch], old: int, new: int) -> None:
    """Have the thread's epoll sets watch our descriptor `new` where they watched `old`; it has `new` as `number`. What
    the kernel refuses stays undone."""
    if not entries:
        return
    # in that thread no signal may be handled and nothing collected: that would use its table of descriptors
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    collects = gc.isenabled()
    gc.disable()
    try:
        worker = threading.Thread(target=_move, args=(tid, number, entries, old, new))
        with contextlib.suppress(RuntimeError):  # the user has too many threads already (RLIMIT_NPROC)
            worker.start()
            worker.join()
    finally:
        if collects:
            gc.enable()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _move(tid: int, number: int, entries: list[Watch], old: int, new: int) -> None:
    if _libc.unshare(CLONE_FILES) < 0:
        return
    with contextlib.suppress(OSError):
        kept = os.dup(new)  # `number` may be any of ours
        if kept == number:
            kept = os.dup(new)
        for end, operation in ((old, EPOLL_CTL_DEL), (kept, EPOLL_CTL_ADD)):
            os.dup2(end, number)
            for entry in entries:
                _control(tid, entry, operation, number)


def _control(tid: int, entry: Watch, operation: int, number: int) -> None:
    """epoll_ctl(2) on the thread's epoll set, unless that was closed meanwhile."""
    with contextlib.suppress(OSError):
        epoll = borrow_fd(tid, entry.epoll, os.stat(f"/proc/{tid}/fd/{entry.epoll}").st_ino)  # noqa: PTH116
        if epoll is not None:
            control(epoll, operation, number, entry)
            os.close(epoll)
