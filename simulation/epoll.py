"""epoll for a program in virtual time: levels as `Program.ready` tells them, edges by what has happened since.

Linux puts a descriptor on the ready list whenever its socket wakes those who wait: data, an end, a connection, or room
after there was none. With EPOLLET it leaves the list once it was told of, so it is told again after the next of these,
with all that is true by then (epoll(7), fs/eventpoll.c).
"""

from __future__ import annotations

import errno
import select
from dataclasses import dataclass, field

from simulation.program import Call, Outcome, Program, failed

ADD, DELETE, MODIFY = 1, 2, 3
ALWAYS = select.EPOLLERR | select.EPOLLHUP


@dataclass(slots=True)
class Interest:
    """One descriptor: `told` is the count of its stream's wakings that was told last; -1: never."""

    events: int
    told: int = -1


@dataclass(slots=True)
class Epoll:
    """One epoll instance."""

    interests: dict[int, Interest] = field(default_factory=dict)

    def control(self, program: Program, operation: int, fd: int, events: int) -> Outcome:
        """epoll_ctl."""
        if fd not in program.fds:
            return failed(errno.EBADF)
        known = fd in self.interests
        if operation == ADD and known:
            return failed(errno.EEXIST)
        if operation != ADD and not known:
            return failed(errno.ENOENT)
        if operation == DELETE:
            del self.interests[fd]
        else:
            self.interests[fd] = Interest(events)
        return Outcome(0)

    def wait(self, program: Program, most: int, timeout_ms: int) -> Call:
        """epoll_wait: `data` are (descriptor, events)."""
        deadline = program.deadline(timeout_ms * 1_000_000) if timeout_ms > 0 else 0
        while True:
            found = self._ready(program)[:most]
            if found or timeout_ms == 0 or (deadline and program.host.now >= deadline):
                return Outcome(len(found), data=found)
            yield

    def _ready(self, program: Program) -> list[tuple[int, int]]:
        found = []
        for fd, interest in self.interests.items():
            if fd not in program.fds:
                continue  # closed: it has left the set
            wakings = program.fds[fd].stream.wakings
            if interest.events & select.EPOLLET and interest.told == wakings:
                continue
            events = program.ready(fd) & (interest.events | ALWAYS)
            if not events:
                continue
            interest.told = wakings
            found.append((fd, events))
            if interest.events & select.EPOLLONESHOT:
                interest.events = 0
        return found
