"""The door of Python programs: the control connections of their threads, over which `levelip.client.socket` calls."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterable

from levelip.client import control
from levelip.client.calls import Calls
from levelip.client.control import Answer


class Connection:
    """A control connection of one thread of the program."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pid = 0
        with contextlib.suppress(OSError):
            self.pid = int.from_bytes(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> bool:
        """Send an answer; False if nobody is there any more or nobody reads."""
        try:
            control.send(self.channel, control.encode(answer), fds)
        except OSError:
            return False
        return True


class Door:
    """A front (loop.py): new connections come through `door`, calls over them, until no process has either.

    Who was given a descriptor, over exec or in a message, comes by the helper's address instead.
    """

    def __init__(self, door: socket.socket) -> None:
        door.setblocking(False)
        self._door: socket.socket | None = door
        self._gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._gate.bind(control.address(os.getpid()))
        self._gate.listen()
        self._connections: dict[int, Connection] = {}
        self._calls: Calls
        self._epoll: select.epoll

    def open(self, calls: Calls, epoll: select.epoll) -> None:
        """Watch the door."""
        assert self._door is not None
        self._calls = calls
        self._epoll = epoll
        epoll.register(self._door.fileno(), select.EPOLLIN)
        epoll.register(self._gate.fileno(), select.EPOLLIN)

    def owns(self, fd: int) -> bool:
        """A connection's descriptor, or where they come from."""
        doors = (self._gate.fileno(), -1 if self._door is None else self._door.fileno())
        return fd in self._connections or fd in doors

    def processes(self) -> Iterable[int]:
        """Those that have a connection."""
        return list(self._calls.pids)

    def sweep(self, now: float) -> float | None:
        """Nothing here has a time limit: the program's side keeps them."""
        return None

    @property
    def over(self) -> bool:
        """No process of the program is left."""
        return self._door is None and not self._connections

    def event(self, fd: int, mask: int) -> None:
        """Take the calls of one thread, or new connections from the door."""
        if self._door is not None and fd == self._door.fileno():
            self._door_event(self._door)
            return
        connection = self._connections.get(fd)
        if connection is None:
            if fd == self._gate.fileno():
                self._gate_event()
            return
        while (came := _next(connection.channel)) is not None:
            message, fds = came
            if not message:
                control.close_all(fds)
                del self._connections[fd]
                self._epoll.unregister(fd)
                connection.channel.close()
                self._calls.leave(connection.pid)
                return
            try:
                call = control.decode_call(message)
            except (ValueError, RecursionError):  # msgspec's DecodeError is one; text that is no UTF-8 another
                control.close_all(fds)
                continue
            self._calls.call(connection, call, fds)

    def close(self) -> None:
        """Nobody finds us any more."""
        self._gate.close()

    def _gate_event(self) -> None:
        """Who comes by our address must be of the same user, or root."""
        while True:
            try:
                channel = self._gate.accept()[0]
            except OSError:
                return
            _, user, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            if user in (0, os.geteuid()):
                self._welcome(channel)
            else:
                channel.close()

    def _welcome(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        connection = self._connections[channel.fileno()] = Connection(channel)
        self._calls.pids[connection.pid] += 1
        self._epoll.register(channel.fileno(), select.EPOLLIN)

    def _door_event(self, door: socket.socket) -> None:
        """A thread or a forked child sends the far end of its connection; the end: no process has the door."""
        while (came := _next(door)) is not None:
            message, fds = came
            if not message:
                control.close_all(fds)
                self._epoll.unregister(door.fileno())
                door.close()
                self._door = None
                let_go_of_stderr()
                return
            for fd in fds:
                self._welcome(socket.socket(fileno=fd))


def _next(channel: socket.socket) -> tuple[bytes, list[int]] | None:
    """The next message and its descriptors, empty at the end; None: nothing waits."""
    try:
        return control.receive(channel, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b"", []


def let_go_of_stderr() -> None:
    """The program is gone: whoever reads its standard error must see its end."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 2)
    os.close(null)
