"""How sockets end: the program's last close, a reset, and what each leaves to be done at the gateway.

A pair goes through these sets: `orphaned` (our end is closed, the program's may be open still), `closing` (gone for
the program, not yet for the gateway), `baiting` (just reset), `snapping` (reset and written out: our end is closed at
the end of the turn, so that its reader sees it).
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from levelip.client import halfclose
from levelip.client.ends import Ends
from levelip.client.pump import Pair, Pump
from levelip.client.session import Session

SOL_SOCKET, SO_ERROR = socket.SOL_SOCKET, socket.SO_ERROR
CLOSE_PATIENCE_S = 2.0  # how long the id of a closed socket waits for its last Accepted
SWEEP_S = 0.5  # how often ends without a hang-up of their own are looked for
SOON_S = 0.02  # the same while there are more than MANY of them
MANY = 64


class Endings:
    """The tables are those of Calls: pairs by inode, by our end's descriptor, by the gateway's id; the
    program's processes."""

    def __init__(
        self, session: Session, pump: Pump, *, pairs: dict[int, Pair], by_fd: dict[int, Pair],
        by_gid: dict[int, Pair], processes: Callable[[], Iterable[int]],
    ) -> None:  # fmt: skip
        self._session = session
        self._pump = pump
        self._pairs = pairs
        self._by_fd = by_fd
        self._by_gid = by_gid
        self._processes = processes
        self.ends = Ends()
        self.orphaned: set[Pair] = set()
        self.closing: set[Pair] = set()
        self.baiting: set[Pair] = set()
        self.snapping: set[Pair] = set()
        self._lingering: list[tuple[float, Callable[[], None]]] = []  # when close() has waited long enough
        self._sweep_at = 0.0
        self._now = 0.0

    def linger(self, pair: Pair, closed: Callable[[], None]) -> None:
        """`closed` once the gateway has closed it, or SO_LINGER's time is over, whichever comes first."""
        waiting = [closed]

        def once() -> None:
            while waiting:
                waiting.pop()()

        pair.linger_calls.append(once)
        on, seconds = pair.lingers
        if on and seconds > 0 and not pair.listening:
            self._lingering.append((time.monotonic() + seconds, once))

    def watch_single(self, pair: Pair) -> None:
        """A program's end that is no pair's: nothing but looking tells of its close."""
        self.orphaned.add(pair)
        if len(self.orphaned) > MANY:
            self._sweep_at = min(self._sweep_at, self._now + SOON_S)

    def check(self, pair: Pair) -> None:
        """After anything that may have ended it: does the program's last holder live, and what follows if not."""
        if pair.closing or pair.end is None or not pair.hung_up:
            return
        if not pair.unread and pair.end.getsockopt(SOL_SOCKET, SO_ERROR) == errno.ECONNRESET:
            pair.unread = True
        if not pair.unread and (pair.shut or pair.dead) and pair.inode in self.ends.alive([pair.inode]):
            self._pump.fin(pair)
            return  # both directions are shut, yet somebody holds the socket; the last close will wake us again
        if pair.connected and not pair.unread and not pair.aside and not pair.finished and not _aborts(pair):
            if pair.received > pair.written:
                pair.unread = True
            else:
                return  # more to read: the grant is not enough yet
        if pair.aside:
            pair.unread = True
        self._end(pair)

    def _end(self, pair: Pair) -> None:
        """Nobody holds the socket any more: close it in the gateway once that has all that was written."""
        pair.closing = True
        self.part(pair)
        pair.give_back()
        self._pairs.pop(pair.inode, None)
        self.orphaned.discard(pair)
        self.closing.add(pair)
        self.abandon(pair)
        if pair.connected and not _aborts(pair):
            if not pair.unread:
                self._pump.fin(pair)
            if pair.accepted < pair.sent:  # also before a reset: the kernel has sent by then what was written
                pair.close_deadline = self._now + CLOSE_PATIENCE_S
                return
        self._close(pair)

    @staticmethod
    def abandon(listener: Pair) -> None:
        """A closed listener's accepted connections that nobody took go with it, by a reset."""
        while listener.returned:
            listener.returned.popleft()[0].close()

    def part(self, pair: Pair) -> None:
        """Close our end."""
        self.snapping.discard(pair)
        self.baiting.discard(pair)
        if pair.end is not None:
            self._by_fd.pop(pair.fd, None)
            self._pump.forget(pair)
            if not pair.closing:
                self.orphaned.add(pair)

    def _close(self, pair: Pair) -> None:
        pair.close_deadline = 0.0

        def closed(*_: Any) -> None:
            self.closing.discard(pair)
            if self._by_gid.get(pair.gid) is pair:
                del self._by_gid[pair.gid]
            for call in pair.linger_calls:
                call()

        args: dict[str, Any] = {}
        if pair.connected and not pair.unread:
            self._pump.tell_consumed(pair)  # else tcp takes what the program has read for unread, and resets
        if pair.connected and pair.unread:
            args["unread"] = True
        if pair.connected and _aborts(pair):
            args["abort"] = True
        if pair.gid:
            self._session.request("close", pair, args, closed)
        else:
            closed()

    def accepted(self, pair: Pair, upto: int, limit: int) -> None:
        """Carry a grant to the pump; a closed socket may have waited for it."""
        self._pump.accepted(pair, upto, limit)
        if pair.closing:
            if pair.close_deadline and pair.accepted >= pair.sent:
                self._close(pair)
        elif pair.hung_up:
            self.check(pair)

    def data_for_closed(self, pair: Pair) -> None:
        """The peer goes on sending to a program that is gone: a reset, as Linux does (RFC 9293 3.10.7.4, RFC 1122
        4.2.2.13)."""
        if pair.unread:
            return  # it comes
        pair.unread = True
        if pair.close_deadline:
            self._close(pair)

    def reset(self, pair: Pair, code: int) -> None:
        """The connection is gone: the program reads what was received, then the error."""
        if pair.closing:
            if pair.close_deadline:
                pair.connected = False
                self._close(pair)
            return
        if not pair.connected:
            return
        pair.whole = pair.fin_at is not None
        self._pump.reset(pair)
        pair.error = code
        if pair.end is None:
            return
        if pair.whole:
            halfclose.let_go(pair)
            self.snap(pair)
        else:
            self.baiting.add(pair)
        self.check(pair)

    def snap(self, pair: Pair) -> None:
        """A reset pair that has been written out is closed at the end of the turn, so that its reader sees it."""
        if pair.dead and pair.end is not None and not pair.aside and pair not in self.baiting:
            self.snapping.add(pair)

    def sweep(self, now: float) -> float | None:
        """End of a turn: close reset pairs, look for orphans, give up waiting; when to be called next at the latest."""
        self._now = now
        if self.baiting:
            self._bait()
        snapping, self.snapping = self.snapping, set()
        self._make_writable(snapping)
        for pair in snapping:
            pair.shows = pair.end is not None and halfclose.waiting(pair.end) > 0
            self.part(pair)
        for pair in [pair for pair in self.closing if pair.close_deadline and pair.close_deadline <= now]:
            self._close(pair)
        if self.orphaned and now >= self._sweep_at:
            held = self.ends.alive([pair.inode for pair in self.orphaned])
            for pair in [pair for pair in self.orphaned if pair.inode not in held]:
                self._end(pair)
            self._sweep_at = now + SWEEP_S
        for call in [call for deadline, call in self._lingering if deadline <= now]:
            call()
        self._lingering = [row for row in self._lingering if row[0] > now]
        times = [pair.close_deadline for pair in self.closing if pair.close_deadline]
        times += [deadline for deadline, _ in self._lingering]
        if self.orphaned:
            times.append(self._sweep_at)
        return min(times, default=None)

    def _bait(self) -> None:
        """Leave a byte of the program's unread in our ends, which makes its ends show ECONNRESET when we close.

        Best effort: whatever the program itself wrote serves, else the kernel must lend us its end. Programs that
        use `levelip.client.socket` are told by a call as well.
        """
        pairs, self.baiting = self.baiting, set()
        bare: dict[int, tuple[int, int] | None] = {}
        for pair in pairs:
            if pair.end is None:
                continue
            with contextlib.suppress(BlockingIOError):
                with contextlib.suppress(ConnectionResetError):
                    pair.end.recv(1, socket.MSG_PEEK)
                continue
            bare[pair.inode] = pair.seen
        if bare:
            seen = {inode: where for inode, where in bare.items() if where is not None}
            for fd in self.ends.borrow(set(bare), self._processes, seen).values():
                with socket.socket(fileno=fd) as theirs, contextlib.suppress(OSError):
                    theirs.send(b"\0", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        for pair in pairs:
            if pair.end is not None and pair.aside:  # the error cannot show yet; the program's sends fail all the same
                with contextlib.suppress(OSError):
                    pair.end.shutdown(socket.SHUT_RD)
                halfclose.thin(pair)
            self.snap(pair)

    def _make_writable(self, pairs: Iterable[Pair]) -> None:
        """Before our ends are closed: close() tells of the error before it frees what is unread, and TCP is writable
        with it (tcp_poll). Not where a write may wait: that is to fail with the error, not to go on and meet EPIPE."""
        much = {pair.inode: pair for pair in pairs if pair.end is not None and halfclose.waiting(pair.end) > 1}
        may_wait = {inode for inode, pair in much.items() if pair.kept is None and not pair.finished}
        if may_wait:
            seen = {inode: pair.seen for inode, pair in much.items() if inode in may_wait and pair.seen is not None}
            for inode, fd in self.ends.borrow(may_wait, self._processes, seen).items():
                with socket.socket(fileno=fd):
                    if os.get_blocking(fd):
                        del much[inode]
        for pair in much.values():
            halfclose.thin(pair)


def _aborts(pair: Pair) -> bool:
    """SO_LINGER of no time: RST."""
    return pair.lingers[0] and pair.lingers[1] == 0
