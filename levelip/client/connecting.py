"""connect(): from the call to a connection or its error, and what the program's end shows meanwhile.

While nobody waits for it the end must not be writable, so it is filled with bytes of no meaning, which are read back
when the connection stands; a refused connect shows by closing our end with them unread, which gives the poll mask of
a refused TCP socket. Which errno a call answers is the gateway's to say.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from levelip.client import control
from levelip.client.control import Answer, Call
from levelip.client.endings import Endings
from levelip.client.pump import Pair, Pump
from levelip.client.session import Done, Session, ignore
from levelip.client.urgent import SO_OOBINLINE
from levelip.rpc.stream import Reset

SOL_SOCKET, SO_ERROR = socket.SOL_SOCKET, socket.SO_ERROR
STRANGERS = 100  # connections of other processes to a name of ours, before we give up
JUNK = b"\0" * 4096  # fills the program's end while it connects, so that it is not writable


class Caller(Protocol):
    """Who made a call: `pid` is its process; `answer` gives it what it waits for."""

    pid: int

    def answer(self, answer: Answer, fds: tuple[int, ...] = ()) -> bool:
        """Answer, with descriptors; False if nobody is there any more to take it."""


_NO_END = (errno.EISCONN, errno.EALREADY, errno.ENETDOWN, errno.EBADF, errno.EINVAL, errno.ENOBUFS)
"""What connect() says of a connection that is over without telling of its end."""


def make_pair() -> tuple[socket.socket, socket.socket]:
    """(our end, the program's end); raises OSError when there are no descriptors."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    for end in (ours, theirs):
        end.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, control.SOCKET_BUFFER)
    ours.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)
    return ours, theirs


class Connecting:
    """The tables are those of Calls: pairs by inode and by our end's descriptor; `processes` are the program's."""

    def __init__(
        self, session: Session, pump: Pump, endings: Endings, *, pairs: dict[int, Pair], by_fd: dict[int, Pair],
        processes: Callable[[], Iterable[int]],
    ) -> None:  # fmt: skip
        self._session = session
        self._pump = pump
        self._endings = endings
        self._pairs = pairs
        self._by_fd = by_fd
        self._processes = processes
        self._door: socket.socket | None = None  # where single ends are connected to

    def connect(self, caller: Caller, call: Call, pair: Pair) -> None:
        """`wait`: the answer comes when the connect is settled; else at once, and the descriptor tells. `hide`: it
        tells though somebody waits, who may be interrupted."""
        if pair.behind is not None:
            pair.behind.append((caller, call))
            return
        if not call.args["address"]:
            self._dissolve(caller, call, pair)
            return
        number = call.number
        wait = bool(call.args.pop("wait"))
        hide = bool(call.args.pop("hide", False))
        if pair.outcome is not None:
            self._tell_outcome(caller, number, pair)
            return
        if pair.failed and not pair.told:
            self._tell_failure(caller, call, pair)
            return
        if pair.failed:
            self.renew(caller, number, pair)
            return
        if pair.connecting and wait and not call.args["nonblocking"]:
            pair.waiting.append((caller, number))
            return
        if pair.dead:
            (self._tell_forgotten if pair.forgotten else self._tell_end)(caller, call, pair)
            return
        if pair.connecting or pair.connected or pair.listening:
            self._forward(caller, call, pair)  # the gateway knows which error it is
            return

        def done(code: int, data: dict[str, Any], message: str) -> None:
            pair.connecting = False
            if not code:
                pair.known = not call.args["nonblocking"]
                self.establish(pair, data)
                code = 0 if pair.connected else errno.ECONNRESET
            self._settle(pair, code, message, nonblocking=bool(call.args["nonblocking"]))

        pair.connecting = True
        pair.held = False
        pair.waiting = [(caller, number)] if wait else []
        if hide or not wait:
            self.fill(pair)
        if not wait:
            caller.answer(Answer(number, errno.EINPROGRESS, {}))
        self._session.request("connect", pair, call.args, done)

    def give_up(self, caller: Caller, number: int, pair: Pair) -> bool:
        """A caller's time is over: the connect goes on without it. False if it is settled already."""
        for one in pair.behind or ():
            if one[0] is caller and one[1].number == number and pair.behind is not None:
                pair.behind.remove(one)
                return True
        if (caller, number) not in pair.waiting:
            return False
        pair.waiting.remove((caller, number))
        return True

    def _settle(self, pair: Pair, code: int, message: str, *, nonblocking: bool) -> None:
        """Tell those who wait, or nobody; the end shows the rest."""
        waiting, pair.waiting = pair.waiting, []
        if pair.held or not waiting:
            self._settle_unwatched(pair, code)
            for caller, number in waiting:
                caller.answer(Answer(number, code, {}, message))
            return
        told = [caller.answer(Answer(number, code, {}, message)) for caller, number in waiting]
        if any(told):
            if code and nonblocking:
                self.clear_error(pair)  # the answer tells it
            if code:
                self._reveal(pair)
            pair.give_back()
            return
        pair.outcome = code
        self._settle_unwatched(pair, code)

    def _tell_outcome(self, caller: Caller, number: int, pair: Pair) -> None:
        """The connect was settled while its caller was interrupted by a signal: the next connect() tells how."""
        code = pair.outcome
        assert code is not None
        if caller.answer(Answer(number, code, {})):
            pair.outcome = None
            pair.error = 0
            pair.told = pair.failed

    def _tell_failure(self, caller: Caller, call: Call, pair: Pair) -> None:
        """The first connect() after one that failed unwatched tells its error, or ECONNABORTED if SO_ERROR has told it
        (Linux); only the one after that tries again. The gateway knows which."""

        def done(code: int, _: dict[str, Any], message: str) -> None:
            pair.told = True
            pair.error = 0
            if not code:  # never: it does not connect in that state
                self._session.outbox.append(Reset(pair.gid, 0))
            caller.answer(Answer(call.number, code or errno.ECONNABORTED, {}, message))

        self._ask_what_ended(call, pair, done)

    def _tell_end(self, caller: Caller, call: Call, pair: Pair) -> None:
        """connect() on a connection that is over: EISCONN, or, where none has said that it was there, what ended it.
        Then the next one begins another (Linux), as after a connect that failed."""

        def done(code: int, _: dict[str, Any], message: str) -> None:
            if pair.dead and code not in _NO_END and not pair.closing:
                if not code:  # a new gateway, which knew of no connection: this end can have none
                    self._session.outbox.append(Reset(pair.gid, 0))
                self._begin_anew(pair)
            caller.answer(Answer(call.number, code or errno.ECONNABORTED, {}, message))

        self._ask_what_ended(call, pair, done)

    def _tell_forgotten(self, caller: Caller, call: Call, pair: Pair) -> None:
        """The same where the gateway that knew the connection is dead: a new one would connect at once."""
        code = errno.EISCONN if pair.known else pair.error or errno.ECONNABORTED
        if not pair.known:
            self._begin_anew(pair)
        caller.answer(Answer(call.number, code, {}))

    def _begin_anew(self, pair: Pair) -> None:
        """The connection is over, and connect() has told so."""
        self._endings.part(pair)
        pair.start_over()
        pair.failed = pair.told = True

    def _ask_what_ended(self, call: Call, pair: Pair, done: Done) -> None:
        """Ask the gateway, which answers so once and connects the next time: other threads' connects wait until it is
        known here that they are the next."""
        behind: list[tuple[Caller, Call]] = []
        pair.behind = behind

        def answered(code: int, data: dict[str, Any], message: str) -> None:
            pair.behind = None
            done(code, data, message)
            for caller, later in behind:
                self.connect(caller, later, pair)

        self._session.request("connect", pair, call.args, answered)

    def _dissolve(self, caller: Caller, call: Call, pair: Pair) -> None:
        """connect() with AF_UNSPEC, told as no address: connection, attempt or listener end, and the program gets
        another end, of a socket that has no peer. `single`: it is no pair's, unless bind() has chosen a port."""
        single = bool(call.args.pop("single", False))
        if not (pair.connected or pair.connecting or pair.dead or pair.failed or pair.listening):
            self._forward(caller, call, pair)
            return
        if pair.connected:
            self._endings.part(pair)  # what was written and is not sent goes with it (tcp_disconnect)
            pair.connected = False  # what the gateway still says of it is of no meaning

        def done(code: int, data: dict[str, Any], message: str) -> None:
            if pair.closing or code not in (0, errno.ECONNRESET):  # ECONNRESET: it died with its gateway
                caller.answer(Answer(call.number, code, data, message))
                return
            if pair.listening:
                _empty(pair)  # else who waits in accept() is told of a reset
                self._endings.abandon(pair)
            self._endings.part(pair)
            pair.start_over()
            pair.listening = False
            pair.tokens = pair.counted = 0
            pair.outcome = None
            pair.failed = pair.told = True  # whoever is interrupted now has its old end still
            if pair.bound is not None and not pair.chosen:
                pair.bound = (pair.bound[0], 0) if any(pair.bound[0]) else None
            self.renew(caller, call.number, pair, single=single and pair.bound is None)

        self._session.request("connect", pair, call.args, done)

    def _forward(self, caller: Caller, call: Call, pair: Pair) -> None:
        def done(code: int, data: dict[str, Any], message: str) -> None:
            pair.known |= pair.connected and not code
            caller.answer(Answer(call.number, code, data, message))

        self._session.request(call.op, pair, call.args, done)

    def clear_error(self, pair: Pair) -> None:
        """The program was told: the gateway's SO_ERROR is read too, which clears it."""
        self._session.request("getsockopt", pair, {"level": SOL_SOCKET, "option": SO_ERROR}, ignore)

    def hold(self, caller: Caller, call: Call, pair: Pair) -> None:
        """A connect with a timeout ran out of it: from now on nobody waits and the end must not be writable."""
        if pair.connecting:
            pair.held = True
            self.fill(pair)
        else:
            pair.give_back()
        caller.answer(Answer(call.number, 0, {}))

    def release(self, caller: Caller, call: Call, pair: Pair) -> None:
        """The program closes a socket that connects: our duplicate must not keep its end open."""
        pair.give_back()
        caller.answer(Answer(call.number, 0, {}))

    def close(self) -> None:
        """Give descriptors back."""
        if self._door is not None:
            self._door.close()

    # -- the program's end

    def attach(self, pair: Pair, theirs: socket.socket) -> None:
        """Make a pair of the program's single end and one of ours; OSError where there are no descriptors."""
        if self._door is None:
            self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._door.bind("")  # a name that the kernel chooses (unix(7), autobind)
            self._door.listen(1)
        for _ in range(STRANGERS):
            with contextlib.suppress(BlockingIOError):  # no room: somebody else has connected to the name
                theirs.connect(self._door.getsockname())
            ours, _ = self._door.accept()
            if ours.getsockopt(SOL_SOCKET, socket.SO_PEERCRED, 4) == os.getpid().to_bytes(4, "little"):
                break
            ours.close()
        else:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        ours.setblocking(False)
        ours.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)
        for end in (ours, theirs):
            end.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, control.SOCKET_BUFFER)
        pair.single = False
        pair.end = ours
        pair.fd = ours.fileno()
        if (size := pair.options.get((SOL_SOCKET, socket.SO_RCVBUF))) is not None:
            bound(pair, size)
        self._endings.orphaned.discard(pair)
        self._by_fd[pair.fd] = pair
        self._pump.watch(pair)

    def lend(self, pair: Pair, fd: int, pid: int) -> None:
        """Keep a duplicate of the program's end that came with a call, of a socket that may begin to listen or to
        connect. Of any other it would hide the program's last close."""
        settled = pair.listening or pair.connected or pair.dead
        if os.fstat(fd).st_ino != pair.inode or pair.lent >= 0 or settled:
            os.close(fd)
        else:
            pair.lent = fd
            pair.lender = pid

    def borrow(self, pair: Pair) -> socket.socket | None:
        """The program's end, for an instant; None if no process lends it."""
        if pair.lent >= 0:
            return socket.socket(fileno=os.dup(pair.lent))
        seen = {pair.inode: pair.seen} if pair.seen is not None else {}
        fd = self._endings.ends.borrow({pair.inode}, self._processes, seen).get(pair.inode, -1)
        return socket.socket(fileno=fd) if fd >= 0 else None

    def fill(self, pair: Pair) -> None:
        """Make the program's end unwritable, if somebody lends it."""
        theirs = self.borrow(pair) if pair.end is not None and not pair.junk else None
        if theirs is not None:
            with theirs:
                self.stuff(pair, theirs)

    @staticmethod
    def stuff(pair: Pair, theirs: socket.socket) -> None:
        """Likewise, with the program's end at hand."""
        theirs.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes it its minimum, some 4.6 KB
        with contextlib.suppress(BlockingIOError):
            while True:
                pair.junk += theirs.send(JUNK, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def _reveal(self, pair: Pair) -> None:
        """Make the end writable again: its buffer as large as it was, and without the junk."""
        if not pair.junk:
            return
        theirs = self.borrow(pair)
        if theirs is not None:
            with theirs:
                widen(theirs, pair.options.get((SOL_SOCKET, socket.SO_SNDBUF), control.SOCKET_BUFFER))
        _empty(pair)

    def _settle_unwatched(self, pair: Pair, code: int) -> None:
        """The connect nobody waits for is settled: a refused one shows by our end's close."""
        if code:
            pair.error = code
            if pair.end is not None:
                pair.failed = True
                self._endings.part(pair)  # with the junk unread
        pair.give_back()

    def establish(self, pair: Pair, data: dict[str, Any]) -> None:
        """A connection stands."""
        if pair.end is None:
            return
        self._reveal(pair)
        pair.readable = True  # what came before we watched for it
        try:
            self._pump.establish(pair, data)
        except (KeyError, TypeError, ValueError):
            self._session.outbox.append(Reset(pair.gid, 0))  # rings that are not ours: no byte would be right
            pair.connected = True
            self._endings.reset(pair, errno.ECONNRESET)
            return
        self._endings.check(pair)

    def renew(self, caller: Caller, number: int, pair: Pair, *, single: bool = False) -> None:
        """After a failed connect that nobody waited for our end is closed: give the program a new pair and let it call
        again, to connect or to listen (errno 0 and a descriptor, which it puts in the old one's place). `single`: its
        end alone."""
        ours: socket.socket | None = None
        try:
            if single:
                theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            else:
                ours, theirs = make_pair()
        except OSError as error:
            caller.answer(Answer(number, error.errno or errno.EMFILE, {}))
            return
        pair.give_back()
        self._endings.orphaned.discard(pair)
        before = pair.inode
        del self._pairs[before]
        pair.junk = 0
        pair.failed = pair.told = False
        pair.error = 0  # the gateway tells it, if nobody has asked
        pair.hung_up = pair.finished = pair.eof_sent = pair.unread = False
        pair.end = ours
        pair.single = single
        pair.inode = os.fstat(theirs.fileno()).st_ino
        self._pairs[pair.inode] = pair
        if ours is None:
            self._endings.watch_single(pair)
        else:
            pair.fd = ours.fileno()
            self._by_fd[pair.fd] = pair
            self._pump.watch(pair)
        with theirs:
            inherit(theirs, pair)
            taken = caller.answer(Answer(number, 0, {"renew": True}), (theirs.fileno(),))
        if not taken:  # a signal was faster: the program has its old end still, and the next connect() tries anew
            del self._pairs[pair.inode]
            pair.inode = before
            self._pairs[before] = pair
            pair.failed = pair.told = True
            pair.single = False
            self._endings.part(pair)


def _empty(pair: Pair) -> None:
    """Take the bytes of no meaning out of the pair, and not a byte more: with the last of them the program may write
    already."""
    while pair.junk and pair.end is not None:
        pair.junk -= len(pair.end.recv(pair.junk, socket.MSG_DONTWAIT))


def inherit(theirs: socket.socket, pair: Pair) -> None:
    """Set what a pair's options say of the program's end itself on a new end, of its own or of a connection to it."""
    value = pair.options.get((SOL_SOCKET, SO_OOBINLINE), 0)
    if any(value) if isinstance(value, bytes) else value:
        theirs.setsockopt(SOL_SOCKET, SO_OOBINLINE, 1)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        value = pair.options.get((SOL_SOCKET, option), 0)
        if value:
            theirs.setsockopt(SOL_SOCKET, option, value)
    size = pair.options.get((SOL_SOCKET, socket.SO_SNDBUF))
    if size is not None:
        widen(theirs, size)


def widen(end: socket.socket, size: int | bytes) -> None:
    """What an end of a pair may write before it is read: SO_SNDBUF of the program's, SO_RCVBUF of ours."""
    number = size if isinstance(size, int) else int.from_bytes(size[:4], "little")
    end.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, min(max(number, 0), control.SOCKET_BUFFER))


def bound(pair: Pair, size: int | bytes) -> None:
    """SO_RCVBUF: the pair holds no more than that, either."""
    if pair.end is not None:
        widen(pair.end, size)
