"""The helper's loop: one epoll over the ends of all pairs, the control connections, the door and ZeroMQ.

A turn: what happened to the pairs (so that a close is told before the call that follows it), what the gateway sent,
the programs' calls, then one flush. The loop sleeps only when ZeroMQ has nothing left after the flush.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import Any

from levelip.client import control
from levelip.client.calls import Calls
from levelip.client.control import Answer
from levelip.client.pump import Pair, Pump
from levelip.client.session import Outstanding, Session, State
from levelip.rpc.messages import Pending
from levelip.rpc.stream import Accepted, Data, Eof, Reset

MAX_EVENTS = 16_384  # of one epoll call: all of them, so that a close is never seen after the call that follows it
LONELY_S = 30.0  # the program is gone and no gateway came back: how long undelivered bytes are kept
_GONE = select.EPOLLHUP | select.EPOLLERR


class Connection:
    """A control connection of one thread of the program."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.pid = 0
        with contextlib.suppress(OSError):
            self.pid = int.from_bytes(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> None:
        """Send an answer; nobody is there any more or nobody reads: it is dropped."""
        with contextlib.suppress(OSError):
            control.send(self.channel, control.encode(answer), fds)


class Loop:
    """Serves one program until its last socket and its last control connection are gone."""

    def __init__(self, endpoint: str, door: socket.socket, software: str, *, share: bool = True) -> None:
        self._epoll = select.epoll()
        self._session = Session(endpoint, software, self, share=share)
        self._pump = Pump(self._session, self._epoll)
        self._calls = Calls(self._session, self._pump, self._epoll)
        self._door: socket.socket | None = door
        self._connections: dict[int, Connection] = {}
        self._lonely_since = 0.0
        door.setblocking(False)
        self._epoll.register(door.fileno(), select.EPOLLIN)
        for fd in self._session.fds:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)

    # -- what the session tells

    def deliver(self, message: Any) -> None:
        """A stream message, or news of a listener."""
        pair = self._calls.by_gid.get(message.sock)
        if pair is None:
            datagrams = self._calls.datagrams
            if message.sock in datagrams.by_gid:
                datagrams.deliver(datagrams.by_gid[message.sock], message)
            return  # or closed a moment ago
        kind = type(message)
        if kind is Data:
            if pair.closing:
                self._calls.endings.data_for_closed(pair)
            elif pair.connected:
                self._pump.data(pair, message)
                if pair.hung_up:
                    self._calls.endings.check(pair)
        elif kind is Accepted:
            self._calls.endings.accepted(pair, message.upto, message.limit)
        elif kind is Eof:
            if pair.connected:
                self._pump.eof(pair, message.at)
        elif kind is Reset:
            self._calls.endings.reset(pair, message.errno)
        elif kind is Pending:
            self._calls.pending(pair, message.count)

    def deserted(self) -> None:
        """The gateway is dead: nobody has to wait for the next one to learn that the connections are gone."""
        self._calls.reset_all()

    def opened(self, fresh: bool) -> None:
        """The session is open."""
        if fresh:
            self._calls.renew_all()
        else:
            for pair in self._calls.pairs.values():
                if pair.connected:
                    self._pump.resend(pair)

    def settle_stale(self, request: Outstanding) -> None:
        """The gateway died with a request unanswered."""
        self._calls.settle_stale(request)

    # -- the loop

    def run(self) -> None:
        """Until nobody is left to serve."""
        timeout = 0.0
        monitor = self._session.fds[1]
        datagrams = self._calls.datagrams
        self._session.watch()
        while True:
            try:
                events = self._epoll.poll(timeout, MAX_EVENTS)
            except InterruptedError:
                continue
            callers = []
            for fd, mask in events:
                pair = self._calls.by_fd.get(fd)
                if pair is not None:
                    self._pair_event(pair, mask)
                elif fd in datagrams.by_fd:
                    datagrams.event(datagrams.by_fd[fd], mask)
                elif fd == monitor:
                    self._session.watch()
                elif fd in self._connections or (self._door is not None and fd == self._door.fileno()):
                    callers.append(fd)
            for pair in list(self._pump.busy):
                self._pump.busy.discard(pair)
                self._pump.pull(pair)
                self._calls.endings.check(pair)
            self._session.turn()
            for fd in callers:
                self._call_event(fd)
            now = time.monotonic()
            self._session.expire(now)
            self._broken()
            datagrams.turn()
            deadlines = [self._calls.endings.sweep(now), self._pump.settle(now), self._session.next_deadline()]
            self._session.flush()
            if self._over(now):
                return
            timeout = 0.0 if self._session.waiting() or self._pump.busy or datagrams.busy else self._sleep(deadlines)

    def _sleep(self, deadlines: list[float | None]) -> float:
        """Seconds to sleep, -1 for ever."""
        if self._session.outbox and self._session.state is State.OPEN:
            return 0.0
        if self._lonely_since:
            deadlines.append(self._lonely_since + LONELY_S)
        soonest = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return -1.0 if soonest is None else max(0.0, soonest - time.monotonic())

    def _pair_event(self, pair: Pair, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._pump.writable(pair)
            self._calls.endings.snap(pair)
        if mask & ~select.EPOLLOUT:
            pair.readable = True
            pair.hung_up = pair.hung_up or bool(mask & _GONE)
            self._pump.pull(pair)
            if pair.hung_up:
                self._calls.endings.check(pair)

    def _broken(self) -> None:
        for pair in self._pump.failed:
            self._calls.endings.reset(pair, pair.error)
        self._pump.failed.clear()

    # -- control connections

    def _call_event(self, fd: int) -> None:
        if self._door is not None and fd == self._door.fileno():
            self._door_event(self._door)
            return
        connection = self._connections.get(fd)
        if connection is None:
            return
        while True:
            try:
                message, fds = control.receive(connection.channel, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
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

    def _door_event(self, door: socket.socket) -> None:
        """A thread or a forked child sends the far end of its connection; the end: no process has the door."""
        while True:
            try:
                message, fds = control.receive(door, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
            if not message:
                control.close_all(fds)
                self._epoll.unregister(door.fileno())
                door.close()
                self._door = None
                self._let_go()
                return
            for fd in fds:
                channel = socket.socket(fileno=fd)
                channel.setblocking(False)
                connection = self._connections[fd] = Connection(channel)
                self._calls.pids[connection.pid] += 1
                self._epoll.register(fd, select.EPOLLIN)

    @staticmethod
    def _let_go() -> None:
        """The program is gone: whoever reads its standard error must see its end."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 2)
        os.close(null)

    # -- the end

    def _over(self, now: float) -> bool:
        if self._door is not None or self._connections:
            return False
        if self._calls.idle and not (self._session.outbox and self._session.state is State.OPEN):
            return True  # every close was answered; nobody waits for other answers
        if self._session.state is State.OPEN:
            self._lonely_since = 0.0
            return False
        self._lonely_since = self._lonely_since or now
        return now >= self._lonely_since + LONELY_S

    def close(self) -> None:
        """Flush and give everything back."""
        self._calls.shut()
        self._session.close()
        self._epoll.close()
