"""What the helper does for a program's call: carry it to the gateway, make and hand over pairs, and end sockets.

The gateway decides what a call means (DESIGN 2). What is decided here is only what needs the descriptor: readiness
while connecting and on listeners, the outcome of a connect that nobody waited for, and when the last holder is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from levelip.client import control
from levelip.client.connecting import Caller, Connecting, bound, inherit, make_pair
from levelip.client.control import Answer, Call
from levelip.client.datagrams import Datagrams, is_datagram
from levelip.client.endings import Endings
from levelip.client.ends import unread
from levelip.client.pump import CORK, INT, Pair, Pump, hangs_up, is_on
from levelip.client.session import Bare, Outstanding, Session, ignore

SOL_SOCKET, SO_ERROR, SO_LINGER = socket.SOL_SOCKET, socket.SO_ERROR, socket.SO_LINGER
ALL = (1 << 31) - 1  # SO_RCVLOWAT of everything
FLAGS = frozenset({
    (SOL_SOCKET, socket.SO_REUSEADDR), (SOL_SOCKET, socket.SO_KEEPALIVE), (socket.IPPROTO_TCP, socket.TCP_NODELAY),
    (socket.IPPROTO_TCP, socket.TCP_CORK), (socket.IPPROTO_TCP, socket.TCP_QUICKACK),
})  # fmt: skip
"""Options that every socket of TCP takes in every state, whatever int they are set to."""
EARLY_MOST, EARLY_OF_ALL = 8, 256  # set and not answered yet: of one socket (gateway: 16 may wait), of all (it: 8192)
REDEEMED_S = 1.0
"""From a readiness byte that a thread took to its accept(); after that it is not to be expected."""
OF_THE_STACK = ("resolver", "interfaces")  # calls of docs/rpc.md that are about no socket
_BITS = {socket.SHUT_RD: 1, socket.SHUT_WR: 2, socket.SHUT_RDWR: 3}


class Calls:
    """All sockets of the program and the calls on them. `processes` are the program's, as far as they are known."""

    def __init__(
        self, session: Session, pump: Pump, epoll: select.epoll, processes: Callable[[], Iterable[int]]
    ) -> None:
        self.pairs: dict[int, Pair] = {}  # by inode of the program's end
        self.by_fd: dict[int, Pair] = {}
        self.by_gid: dict[int, Pair] = {}
        self.singles = False  # new sockets are no pair's until they are bound or connect (trapped calls)
        self.pids: Counter[int] = Counter()  # control connections of each process of the program
        self._early = 0  # options set that the gateway has not answered
        self._doubted: dict[Pair, tuple[float, int]] = {}  # listeners: when to look again, what was redeemed by then
        self._spares: dict[tuple[int, int, int], list[int]] = {}  # gateway's sockets made ahead, by kind
        self._session = session
        self._pump = pump
        self._epoll = epoll
        self.endings = Endings(
            session, pump, pairs=self.pairs, by_fd=self.by_fd, by_gid=self.by_gid, processes=processes
        )
        self.connecting = Connecting(
            session, pump, self.endings, pairs=self.pairs, by_fd=self.by_fd, processes=processes
        )
        self.datagrams = Datagrams(session, epoll, self.endings.ends)
        self._table: dict[str, Callable[[Caller, Call, Pair], None]] = {
            "bind": self._bind,
            "listen": self._listen,
            "accept": self._accept,
            "connect": self.connecting.connect,
            "shutdown": self._shutdown,
            "getsockname": self._getsockname,
            "getpeername": self._getpeername,
            "setsockopt": self._setsockopt,
            "getsockopt": self._getsockopt,
            "error": self._error,
            "urgent": self._urgent,
            "state": self._state,
            "hold": self.connecting.hold,
            "release": self.connecting.release,
            "linger": self._linger,
        }

    @property
    def idle(self) -> bool:
        """No socket is left."""
        return not self.pairs and not self.endings.closing and self.datagrams.idle

    # -- calls

    def ask(self, op: str, args: dict[str, Any], done: Callable[[int, dict[str, Any], str], None]) -> None:
        """A question to the gateway that is about no socket."""
        self._session.request(op, None, args, done)

    def call(self, caller: Caller, call: Call, fds: list[int]) -> None:
        """Carry out one call; its answer goes to the caller, now or later. Takes the descriptors."""
        try:
            if call.op == "socket":
                if is_datagram(call):
                    self.datagrams.open(caller, call)
                else:
                    self._socket(caller, call)
                return
            if call.op in OF_THE_STACK:
                self._ask_stack(caller, call)
                return
            datagrams = self.datagrams.pairs.get(call.inode)
            if datagrams is not None:
                self.datagrams.call(caller, call, datagrams)
                return
            pair = self.pairs.get(call.inode)
            if pair is None and call.op == "linger":
                pair = next((pair for pair in self.endings.closing if pair.inode == call.inode), None)
            action = self._table.get(call.op)
            if pair is None or action is None:
                code = errno.EBADF if pair is None else errno.ENOSYS
                caller.answer(Answer(call.number, code, {}))
                return
            if fds:
                self.connecting.lend(pair, fds.pop(), caller.pid)
            action(caller, call, pair)
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            caller.answer(Answer(call.number, errno.EINVAL, {}, str(error)))
        except OSError as error:  # no descriptors, most likely
            caller.answer(Answer(call.number, error.errno or errno.EIO, {}, str(error)))
        finally:
            control.close_all(fds)

    def _forward(
        self, caller: Caller, call: Call, pair: Pair, then: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        """Ask the gateway; on success `then` sees the data before the caller does."""

        def done(code: int, data: dict[str, Any], message: str) -> None:
            if not code and then is not None:
                then(data)
            caller.answer(Answer(call.number, code, data, message))

        self._session.request(call.op, pair, call.args, done)

    def _ask_stack(self, caller: Caller, call: Call) -> None:
        """What has nothing to do with a socket."""

        def done(code: int, data: dict[str, Any], message: str) -> None:
            data.pop("routes", None)  # of an answer to "interfaces": there may be more than a message holds
            caller.answer(Answer(call.number, code, data, message))

        self.ask(call.op, {}, done)

    def _socket(self, caller: Caller, call: Call) -> None:
        """Give out the spare socket of that kind, if there is one, and have another made: the program need not wait."""
        kind = (int(call.args["family"]), int(call.args["type"]), int(call.args["proto"]))
        spares = self._spares.get(kind)
        if spares:
            self._hand_over(caller, call.number, kind, spares.pop(), {})
            self._spare(kind)
            return

        def done(code: int, data: dict[str, Any], message: str) -> None:
            if code:
                caller.answer(Answer(call.number, code, {}, message))
                return
            self._hand_over(caller, call.number, kind, data["sock"], {})
            if kind not in self._spares:
                self._spares[kind] = []
                self._spare(kind)

        self._session.request("socket", None, call.args, done)

    def _spare(self, kind: tuple[int, int, int]) -> None:
        """Have one more socket of that kind made, for later. Refused: the next one to ask will hear why."""

        def done(code: int, data: dict[str, Any], _: str) -> None:
            if not code and kind in self._spares:
                self._spares[kind].append(data["sock"])

        family, type_, proto = kind
        self._session.request("socket", None, {"family": family, "type": type_, "proto": proto}, done, internal=True)

    def _make(self, kind: tuple[int, int, int], gid: int) -> tuple[Pair, socket.socket]:
        """A new pair and the program's end of it; raises OSError when there are no descriptors."""
        ours, theirs = make_pair()
        pair = Pair(ours, os.fstat(theirs.fileno()).st_ino, kind, gid)
        self.pairs[pair.inode] = pair
        self.by_fd[pair.fd] = pair
        self.by_gid[gid] = pair
        self._pump.watch(pair)
        return pair, theirs

    def _make_single(self, kind: tuple[int, int, int], gid: int) -> tuple[Pair, socket.socket]:
        """Likewise, with the program's end alone, which polls and fails as a TCP socket that has not been connected.
        Its close is found by looking, as there is no hang-up."""
        theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        pair = Pair(None, os.fstat(theirs.fileno()).st_ino, kind, gid)
        self.pairs[pair.inode] = pair
        self.by_gid[gid] = pair
        self.endings.watch_single(pair)
        return pair, theirs

    def _hand_over(
        self, caller: Caller, number: int, kind: tuple[int, int, int], gid: int, data: dict[str, Any],
        listener: Pair | None = None,
    ) -> Pair | None:  # fmt: skip
        """Give the program the end of a new pair for the gateway's socket `gid`. One that nobody takes is closed, or
        waits to be accepted once more."""
        try:
            single = self.singles and not data  # accepted ones come with a peer's address
            pair, theirs = self._make_single(kind, gid) if single else self._make(kind, gid)
        except OSError as error:
            self._session.request("close", Bare(gid), {"abort": True}, ignore)
            caller.answer(Answer(number, error.errno or errno.EMFILE, {}))
            return None
        if listener is not None:
            inherit(theirs, listener)
        if not caller.answer(Answer(number, 0, data), (theirs.fileno(),)) and listener is not None:
            listener.returned.append((theirs, data))
        else:
            theirs.close()  # we keep no copy: a hang-up then means the program's last close
        return pair

    def _bind(self, caller: Caller, call: Call, pair: Pair) -> None:
        def bound(data: dict[str, Any]) -> None:
            pair.bound = (data["address"], data["port"])
            pair.chosen = bool(call.args["port"])

        self._forward(caller, call, pair, bound)

    def _listen(self, caller: Caller, call: Call, pair: Pair) -> None:
        if pair.failed and pair.told:
            self.connecting.renew(caller, call.number, pair)
            return

        def done(code: int, data: dict[str, Any], message: str) -> None:
            if not code:
                pair.listening = True
                pair.backlog = call.args["backlog"]
                pair.bound = (data["address"], data["port"])
                if pair.lent >= 0 and not pair.junk:
                    self.connecting.fill(pair)  # a listener is never writable
            if not pair.connecting:
                pair.give_back()
            caller.answer(Answer(call.number, code, data, message))

        self._session.request("listen", pair, call.args, done)

    def _accept(self, caller: Caller, call: Call, pair: Pair) -> None:
        """A connection, or EAGAIN if the one that waited went away. `token`: the program took a readiness byte from its
        end, which is worth one connection."""
        if call.args.get("token", True):
            pair.tokens = max(0, pair.tokens - 1)
            pair.redeemed += 1
        number = call.number
        if pair.returned:
            theirs, remote = pair.returned.popleft()
            if caller.answer(Answer(number, 0, remote), (theirs.fileno(),)):
                theirs.close()
            else:
                pair.returned.appendleft((theirs, remote))
                self.serve(pair)
            return
        pair.inflight += 1

        def done(code: int, data: dict[str, Any], message: str) -> None:
            pair.inflight -= 1
            if code:
                caller.answer(Answer(number, code, {}, message))
                return
            remote = {"address": data["remote_address"], "port": data["remote_port"]}
            new = self._hand_over(caller, number, pair.kind, data["sock"], remote, pair)
            if new is not None:
                new.lowat = pair.lowat
                new.times = dict(pair.times)
                if (size := pair.options.get((SOL_SOCKET, socket.SO_RCVBUF))) is not None:
                    bound(new, size)
                new.corked = pair.corked
                new.lingers = pair.lingers  # the stack's socket inherits the listener's options, as on Linux
                new.known = True
                self.connecting.establish(new, data)
            if pair.closing:
                self.endings.abandon(pair)
            elif pair.returned:
                self.serve(pair)

        self._session.request("accept", pair, {}, done)

    def _shutdown(self, caller: Caller, call: Call, pair: Pair) -> None:
        how = int(call.args["how"])

        def noted(_: dict[str, Any]) -> None:
            if pair.connected or pair.listening:
                pair.shut |= _BITS.get(how, 0)
            elif pair.connecting or pair.failed:
                pair.told = True  # it may be tried anew at once (Linux)

        self._forward(caller, call, pair, noted)

    def _getsockname(self, caller: Caller, call: Call, pair: Pair) -> None:
        if pair.local is not None:
            caller.answer(Answer(call.number, 0, {"address": pair.local[0], "port": pair.local[1]}))
        else:
            self._forward(caller, call, pair)

    def _getpeername(self, caller: Caller, call: Call, pair: Pair) -> None:
        both_ended = pair.eof_sent and pair.fin_done  # then it may be over, which the gateway knows
        if pair.connected and pair.remote is not None and not both_ended:
            caller.answer(Answer(call.number, 0, {"address": pair.remote[0], "port": pair.remote[1]}))
        else:
            self._forward(caller, call, pair)

    def _setsockopt(self, caller: Caller, call: Call, pair: Pair) -> None:
        """A flag that cannot be refused is answered before the gateway has heard of it: the program need not wait, and
        what it does next goes the same way."""
        level, option, value = int(call.args["level"]), int(call.args["option"]), call.args["value"]

        if pair.connected:
            pair.readable = True
            self._pump.pull(pair)  # what was written before the call is sent before it (TCP_CORK, TCP_NODELAY)

        def noted(_: dict[str, Any]) -> None:
            pair.options[level, option] = value
            if (level, option) == CORK:
                pair.corked = is_on(value)
            if (level, option) == (SOL_SOCKET, socket.SO_RCVLOWAT):
                number = value if isinstance(value, int) else int.from_bytes(value[:4], "little", signed=True)
                pair.lowat = number if number >= 0 else ALL
                self._pump.push(pair)
            if (level, option) == (SOL_SOCKET, socket.SO_RCVBUF):
                bound(pair, value)
            if (level, option) == (SOL_SOCKET, SO_LINGER) and isinstance(value, bytes) and len(value) >= 8:
                on, seconds = (int.from_bytes(value[i : i + 4], "little", signed=True) for i in (0, 4))
                pair.lingers = (bool(on), seconds)

        whole = isinstance(value, int) or (isinstance(value, bytes) and len(value) >= INT)
        early = whole and (level, option) in FLAGS and self._may_answer(pair)
        if early and (level, option) == CORK and (self._pump.cork(pair) if is_on(value) else self._pump.uncork(pair)):
            pair.options[CORK] = value
            caller.answer(Answer(call.number, 0, {}))
            return
        self._pump.tell_cork(pair)
        if not early:
            self._forward(caller, call, pair, noted)
            return
        noted({})
        self._tell_early(pair, call.args)
        caller.answer(Answer(call.number, 0, {}))

    def more(self, pair: Pair) -> None:
        """What was just written into the program's end was written with MSG_MORE."""
        self._pump.more(pair)

    def _may_answer(self, pair: Pair) -> bool:
        return pair.gid > 0 and self._session.is_open and pair.early < EARLY_MOST and self._early < EARLY_OF_ALL

    def _tell_early(self, pair: Pair, args: dict[str, Any]) -> None:
        def done(*_: Any) -> None:
            pair.early -= 1
            self._early -= 1

        pair.early += 1
        self._early += 1
        self._session.request("setsockopt", pair, args, done)

    def _getsockopt(self, caller: Caller, call: Call, pair: Pair) -> None:
        if (call.args["level"], call.args["option"]) == CORK and pair.more >= 0:  # a cork, but not the program's
            value = is_on(pair.options.get(CORK, 0)).to_bytes(INT, "little")
            caller.answer(Answer(call.number, 0, {"value": value}))
            return
        if (call.args["level"], call.args["option"]) != (SOL_SOCKET, SO_ERROR) or not pair.error:
            self._pump.tell_cork(pair)
            self._forward(caller, call, pair)
            return
        code, pair.error = pair.error, 0
        if pair.outcome:
            pair.outcome = errno.ECONNABORTED  # as the next connect() tells then (Linux)
        self.connecting.clear_error(pair)
        caller.answer(Answer(call.number, 0, {"value": code.to_bytes(4, "little")}))

    def _error(self, caller: Caller, call: Call, pair: Pair) -> None:
        """The program saw the end of its end: was that a FIN (0) or something worse, which is told once? `reads`: asked
        by what reads, whom a reset behind the FIN does not concern."""
        if call.args.get("reads") and pair.whole:
            caller.answer(Answer(call.number, 0, {"errno": 0}))
            return
        code, pair.error = pair.error, 0
        caller.answer(Answer(call.number, 0, {"errno": code}))
        if code:
            self.connecting.clear_error(pair)

    def _urgent(self, caller: Caller, call: Call, pair: Pair) -> None:
        """The program's end has no urgent byte for recv(MSG_OOB): EAGAIN if one was announced and has not got there."""
        announced = pair.connected and pair.mark >= pair.written and pair.fin_at is None
        caller.answer(Answer(call.number, errno.EAGAIN if announced else errno.EINVAL, {}))

    def _state(self, caller: Caller, call: Call, pair: Pair) -> None:
        state = {
            "kind": list(pair.kind),
            "listening": pair.listening,
            "connected": pair.connected,
            "fresh": not (pair.connected or pair.connecting or pair.dead or pair.listening),
        }
        caller.answer(Answer(call.number, 0, state))

    def _linger(self, caller: Caller, call: Call, pair: Pair) -> None:
        """A listener or SO_LINGER: answer once the gateway has answered the close, unless others hold the socket."""

        def closed() -> None:
            caller.answer(Answer(call.number, 0, {}))

        if self._is_held(pair):
            closed()
        else:
            self.endings.linger(pair, closed)

    def _is_held(self, pair: Pair) -> bool:
        """Whether somebody has the program's end open, without waiting for epoll to say so."""
        if pair.closing:
            return False
        if pair.end is None:  # of a failed connect, or of a listener that is lost: ours tells of no hang-up any more
            return pair.inode in self.endings.ends.alive([pair.inode])
        return not (pair.hung_up or hangs_up(pair.end))

    # -- listeners

    def pending(self, pair: Pair, count: int) -> None:
        """The gateway tells how many connections wait."""
        pair.counted = count
        self.serve(pair)

    def waiting(self, pair: Pair) -> int:
        """Connections that no accept under way and no readiness byte stands for."""
        return pair.counted + len(pair.returned) - pair.tokens - pair.inflight

    def serve(self, pair: Pair) -> None:
        """Let those who wait accept; keep a byte in the pair for each connection that is left."""
        while pair.waiters and self.waiting(pair) > 0:
            pair.waiters.popleft()()
        missing = self.waiting(pair)
        if missing <= 0 or pair.end is None:
            return
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            pair.tokens += pair.end.send(b"\0" * missing)

    def leave(self, pid: int) -> None:
        """A control connection ended. Its thread may have taken a readiness byte and never redeem it: listeners whose
        bytes are all taken are in doubt. With the last one of a process go the ends that it lent."""
        self.pids[pid] -= 1
        gone = self.pids[pid] <= 0
        if gone:
            del self.pids[pid]
        for pair in self.pairs.values():
            if gone and pair.lent >= 0 and pair.lender == pid:
                pair.give_back()
            if pair not in self._doubted and pair.tokens and pair.end is not None and not unread(pair.end):
                self._doubted[pair] = time.monotonic() + REDEEMED_S, pair.redeemed

    def sweep(self, now: float) -> float | None:
        """Write readiness bytes anew that nobody redeems any more. Not before no accept() came for a while: one may be
        on its way, and a byte too many would have the next one wait for nothing. When to ask again; None: no listener
        is in doubt."""
        for pair, (at, redeemed) in list(self._doubted.items()):
            if not (pair.listening and pair.tokens and pair.end is not None):
                del self._doubted[pair]
            elif at <= now:
                if pair.redeemed == redeemed and not unread(pair.end):
                    del self._doubted[pair]
                    pair.tokens = 0
                    self.serve(pair)
                else:
                    self._doubted[pair] = now + REDEEMED_S, pair.redeemed
        return min((at for at, _ in self._doubted.values()), default=None)

    # -- the gateway is new

    def reset_all(self) -> None:
        """The gateway died, and with it every connection."""
        for pair in list(self.pairs.values()):
            self.endings.reset(pair, errno.ECONNRESET)
            pair.forgotten = pair.dead

    def renew_all(self) -> None:
        """A new gateway: connections are gone, everything else is made again (docs/rpc.md, coming back)."""
        self.datagrams.renew_all()
        for pair in list(self.endings.closing):
            self.endings.closing.discard(pair)
            for call in pair.linger_calls:
                call()
        self.by_gid.clear()
        self._spares.clear()
        for pair in list(self.pairs.values()):
            pair.gid = 0
            pair.counted = 0
            pair.told = True  # the new one knows of no failure
            if pair.connected:
                self.endings.reset(pair, errno.ECONNRESET)
            pair.forgotten = pair.dead
            if not pair.closing:
                self._again(pair)

    def _again(self, pair: Pair) -> None:
        def done(code: int, data: dict[str, Any], message: str) -> None:
            if pair.closing:
                if not code:
                    self._session.request("close", Bare(data["sock"]), {}, ignore)
                return
            if code:
                self._lost(pair, code)
                return
            pair.gid = data["sock"]
            self.by_gid[pair.gid] = pair

            def failed_is_lost(code: int, _: dict[str, Any], __: str) -> None:
                if code:
                    self._lost(pair, code)

            ask = self._session.request
            for (level, option), value in pair.options.items():
                args: dict[str, Any] = {"level": level, "option": option, "value": value}
                ask("setsockopt", pair, args, ignore, internal=True)
            if pair.bound is not None:
                address, port = pair.bound
                if pair.dead and not pair.chosen:
                    port = 0  # it was let go when the connection ended; the address is kept (Linux, SOCK_BINDADDR_LOCK)
                args = {"address": address, "port": port}
                ask("bind", pair, args, ignore if pair.dead else failed_is_lost, internal=True)
            if pair.listening:
                ask("listen", pair, {"backlog": pair.backlog}, failed_is_lost, internal=True)
            self._session.release()

        family, kind, proto = pair.kind
        args = {"family": family, "type": kind, "proto": proto}
        self._session.request("socket", None, args, done, internal=True)

    def _lost(self, pair: Pair, code: int) -> None:
        """A socket could not be made again: its program gets the error."""
        pair.error = code
        pair.dead = True
        self.endings.snap(pair)

    def settle_stale(self, request: Outstanding) -> None:
        """The gateway died before it answered."""
        if request.op == "close":
            request.done(0, {}, "")
        elif request.op == "connect":
            request.done(errno.ECONNRESET, {}, "")
        elif request.op == "accept":
            request.done(errno.EAGAIN, {}, "")
        elif request.op == "sendto":
            request.done(errno.ENETDOWN, {}, "")
        else:
            self._session.again(request)

    def shut(self) -> None:
        """Give the helper's own descriptors back."""
        self.endings.ends.close()
        self.connecting.close()
        self.datagrams.shut()
