"""The last close of sockets that have no hang-up, by inotify(7): of AF_UNIX datagram sockets, and of those without a
peer. The event comes before close(2) returns, whoever held the last duplicate, and costs nothing until then."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
from typing import Generic, TypeVar

IN_CLOSE = 0x8 | 0x10  # linux/inotify.h: IN_CLOSE_WRITE, IN_CLOSE_NOWRITE
IN_Q_OVERFLOW = 0x4000  # there was no room for more (fs.inotify.max_queued_events): of no watch, -1
_EVENT = struct.Struct("=iIII")  # struct inotify_event; such sockets have no name that would follow
_ROOM = 65_536

_libc = ctypes.CDLL(None, use_errno=True)
Owner = TypeVar("Owner")


class Closes(Generic[Owner]):
    """`fd` becomes readable in `epoll` when one of the sockets is closed; it is opened at first use, until then -1."""

    def __init__(self, epoll: select.epoll) -> None:
        self.fd = -1
        self._epoll = epoll
        self._owners: dict[int, Owner] = {}
        self._overflowed = False

    def watch(self, fd: int, owner: Owner) -> int | None:
        """Have the last close of the socket of our `fd` tell of `owner`; a number by which it is forgotten. None where
        the user has too many already (fs.inotify.max_user_instances, max_user_watches)."""
        if self.fd < 0:
            self.fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self.fd < 0:
                return None
            self._epoll.register(self.fd, select.EPOLLIN)
        number: int = _libc.inotify_add_watch(self.fd, b"/proc/self/fd/%d" % fd, IN_CLOSE)
        if number < 0:
            return None
        self._owners[number] = owner
        return number

    def forget(self, number: int | None) -> None:
        """It is closed, or its end is told otherwise."""
        if number is not None and self._owners.pop(number, None) is not None:
            _libc.inotify_rm_watch(self.fd, number)

    def take(self) -> list[Owner]:
        """Those whose sockets were closed since the last call."""
        found: list[Owner] = []
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self.fd, _ROOM):
                for number, mask, _, _ in _EVENT.iter_unpack(events):
                    if mask & IN_CLOSE and number in self._owners:
                        found.append(self._owners[number])
                        self.forget(number)
                    elif mask & IN_Q_OVERFLOW:
                        self._overflowed = True
        return found

    def doubtful(self) -> list[Owner]:
        """All that are watched, if what came since the last call was more than the kernel keeps: the close of any of
        them may go untold, also in the next instants, as it is told before the socket is gone. Else none."""
        overflowed, self._overflowed = self._overflowed, False
        return list(self._owners.values()) if overflowed else []

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
