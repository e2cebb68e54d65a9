"""The helper's part of datagram sockets: datagrams between pairs and the gateway, and the calls on them.

Downward a socket has at most MARKS × EVERY datagrams on their way to the gateway: each EVERY-th asks for an answer, and
without answers the pair is not read, so that a program that sends fast waits in send(). Upward what does not fit into
the pair waits here, and the gateway is told only of what went in; its bound is SO_RCVBUF. Datagrams for a gateway that
is away are lost.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from levelip.client import ancillary, control
from levelip.client.closes import Closes
from levelip.client.connecting import Caller
from levelip.client.control import Answer, Call
from levelip.client.datagramformat import (
    DATAGRAM,
    DOWN,
    ERROR,
    MAX_ECHO,
    MAX_PAYLOAD,
    PAIR_BUFFER,
    Framing,
    Headers,
    Told,
)
from levelip.client.ends import Ends
from levelip.client.session import Bare, Session, ignore
from levelip.rpc.messages import DatagramError, DatagramIn, SendDatagram, TookDatagrams

SOL_SOCKET, SO_ERROR = socket.SOL_SOCKET, socket.SO_ERROR
MEMBERSHIPS = {socket.IP_ADD_MEMBERSHIP: True, socket.IP_DROP_MEMBERSHIP: False}
BATCH = 64  # datagrams of one pair in one turn of the loop
EVERY = 32  # each so-manieth asks for an answer
MARKS = 4  # answers that may be missing
_RECVERR = (socket.IPPROTO_IP, ancillary.IP_RECVERR)
_JITTER_NS = 1_000_000_000  # more is a clock that was set
_WATCH = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
BOTH = 3  # directions that are shut
_GONE = select.EPOLLHUP | select.EPOLLERR
_MESSAGE = DOWN.size + MAX_ECHO + 1
UNSENT_MOST = 256  # datagrams of one socket that were taken from the pair before their turn
SWEEP_S = 0.5  # how often the ends of sockets are looked for that Closes could not watch
DOUBT_S = 10.0  # so long after a close that went untold any of those may be seen yet that are watched
QUEUED_ERRORS = 64  # of one socket; more are left out, as what SO_RCVBUF has no room for on Linux
_ERROR_MESSAGE = Told(ERROR).pack()
_FORWARDED = frozenset(
    {"bind", "connect", "listen", "accept", "shutdown", "getsockname", "getpeername", "setsockopt", "getsockopt"}
)


class Pending(NamedTuple):
    """A datagram to which the program still adds: what the first part was sent with is that of the whole (Linux)."""

    where: tuple[bytes, int]
    asked: ancillary.Wish
    payload: bytes


class DatagramPair:
    """One datagram socket of the program."""

    def __init__(self, end: socket.socket, inode: int, kind: tuple[int, int, int], gid: int) -> None:
        self.end: socket.socket = end
        self.fd = end.fileno()
        self.inode = inode
        self.kind = kind
        self.gid = gid  # the gateway's id; 0 while it has none
        self.error = 0  # what the program has not been told
        self.errors: deque[DatagramError] = deque()  # for MSG_ERRQUEUE, where IP_RECVERR is on
        self.unsent: deque[bytes] = deque()  # messages taken from the pair before their turn
        self.aside: deque[tuple[bytes, Any, int]] = deque()  # header, payload, upto: did not fit into the pair
        self.upto = 0  # of the last one that did
        self.stamped = 0  # the last one's time
        self.sent = 0
        self.marks = 0  # answers that are missing
        self.readable = False
        self.hung_up = False
        self.watch: int | None = None  # by which Closes knows it
        # of trapped calls (levelip.run)
        self.name = b""  # of the program's end
        self.admits = True  # what is written there without a destination is taken (Framing.admit)
        self.shown = False  # that end was made to show an error
        self.pending: Pending | None = None  # with MSG_MORE, or under UDP_CORK
        self.corks = False  # UDP_CORK is on
        self.seen: tuple[int, int] | None = None  # thread and descriptor of the last one
        self.times: dict[int, float | None] = {}  # SO_RCVTIMEO, SO_SNDTIMEO in seconds
        self.waiters: deque[Callable[[], None]] = deque()  # called when something has come, each as long as it stays
        self.senders: deque[Callable[[], None]] = deque()  # called, each once, when there is room to send
        self.known: set[tuple[bytes, int]] = set()  # where a datagram went without complaint
        self.aliases: dict[tuple[bytes, int], tuple[bytes, int]] = {}  # peers that the program calls otherwise
        self.shut = 0  # 1: the program said SHUT_RD, 2: SHUT_WR, BOTH
        self.dress: Callable[[DatagramIn], bytes] | None = None  # of a datagram: what is read, if not its payload
        # what a new gateway must be told
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.groups: dict[bytes, bytes] = {}  # group → the membership that was asked for
        self.bound: tuple[bytes, int] | None = None
        self.peer: tuple[bytes, int] | None = None

    @property
    def queues_errors(self) -> bool:
        """IP_RECVERR is on."""
        return self.wants(*_RECVERR)

    def wants(self, level: int, option: int) -> bool:
        """The option is on."""
        value = self.options.get((level, option), 0)
        return any(value[:4]) if isinstance(value, bytes) else bool(value)


class Datagrams:
    """All datagram sockets of the program."""

    def __init__(self, session: Session, epoll: select.epoll, ends: Ends) -> None:
        self.framing: Framing = Headers()
        self.closes: Closes[DatagramPair] = Closes(epoll)
        self.pairs: dict[int, DatagramPair] = {}  # by inode of the program's end
        self.by_fd: dict[int, DatagramPair] = {}
        self.by_gid: dict[int, DatagramPair] = {}
        self.busy: set[DatagramPair] = set()  # more to read, without a new edge
        self._owing: set[DatagramPair] = set()  # took some that the gateway has not been told of
        self._closing = 0  # closes that the gateway has not answered
        self._session = session
        self._epoll = epoll
        self._ends = ends
        self._unwatched: set[DatagramPair] = set()  # whose last close is found by looking, as it is never told
        self._doubtful: set[DatagramPair] = set()  # of which it may have gone untold just now
        self._doubt_until: float | None = None  # None: from the next sweep on
        self._sweep_at = 0.0

    @property
    def idle(self) -> bool:
        """No socket is left."""
        return not self.pairs and not self._closing

    # -- calls

    def open(self, caller: Caller, call: Call) -> None:
        """socket(AF_INET, SOCK_DGRAM): the gateway makes one, the program gets an end."""
        kind = (int(call.args["family"]), int(call.args["type"]), int(call.args["proto"]))

        def done(code: int, data: dict[str, Any], message: str) -> None:
            if code:
                caller.answer(Answer(call.number, code, {}, message))
                return
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, self.framing.kind)
            except OSError as error:
                self._close_gid(data["sock"])
                caller.answer(Answer(call.number, error.errno or errno.EMFILE, {}))
                return
            ours.setblocking(False)
            for end in (ours, theirs):
                end.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, PAIR_BUFFER)
            pair = DatagramPair(ours, os.fstat(theirs.fileno()).st_ino, kind, data["sock"])
            self.pairs[pair.inode] = self.by_fd[pair.fd] = self.by_gid[pair.gid] = pair
            self._epoll.register(pair.fd, _WATCH)
            if self.framing.kind == socket.SOCK_DGRAM:
                theirs.bind("")  # a name that the kernel chooses, by which ours finds it again (unix(7), autobind)
                pair.name = theirs.getsockname()
                pair.watch = self.closes.watch(theirs.fileno(), pair)
                if pair.watch is None:
                    self._unwatched.add(pair)
                self.admit(pair)
            with theirs:
                caller.answer(Answer(call.number, 0, {}), (theirs.fileno(),))

        self._session.request("socket", None, call.args, done)

    def call(self, caller: Caller, call: Call, pair: DatagramPair) -> None:
        """Any other call. KeyError, TypeError and ValueError for arguments that cannot be."""
        pair.readable = True
        if call.op == "connect":
            self.catch_up(pair)  # to the peer that there was, whatever answers are missing
        self.pull(pair)  # what was written before the call goes before it
        if call.op == "sendto":
            self._send_to(caller, call, pair)
        elif call.op == "error":
            code = pair.error
            caller.answer(Answer(call.number, 0, {"errno": code}))
            if code:
                self.told(pair)
        elif call.op == "errqueue":
            self._next_error(caller, call, pair)
        elif call.op == "state":
            state = {"kind": list(pair.kind), "listening": False, "connected": pair.peer is not None, "fresh": False,
                     "options": [[*key, value] for key, value in pair.options.items()]}  # fmt: skip
            caller.answer(Answer(call.number, 0, state))
        elif call.op in _FORWARDED:
            self._forward(caller, call, pair)
        else:
            caller.answer(Answer(call.number, errno.ENOSYS, {}))

    def told(self, pair: DatagramPair) -> None:
        """The program was told of the socket's error: the gateway's SO_ERROR is read with it, which clears it."""
        pair.error = 0
        self._session.request("getsockopt", pair, {"level": SOL_SOCKET, "option": SO_ERROR}, ignore)

    def _next_error(self, caller: Caller, call: Call, pair: DatagramPair) -> None:
        """The oldest of the error queue, for recvmsg with MSG_ERRQUEUE. SO_ERROR is then that of the next one
        (net/core/skbuff.c sock_dequeue_err_skb)."""
        if not pair.errors:
            caller.answer(Answer(call.number, errno.EAGAIN, {}))
            return
        error = pair.errors.popleft()
        told = ("errno", "icmp_type", "icmp_code", "reporter", "address", "port", "mtu", "payload")
        if error.icmp_type >= 0:
            pair.error = next((one.errno for one in pair.errors if one.icmp_type >= 0), 0)
            if not pair.error:
                self.told(pair)
        caller.answer(Answer(call.number, 0, {name: getattr(error, name) for name in told}))

    def _forward(self, caller: Caller, call: Call, pair: DatagramPair) -> None:
        args = dict(call.args)
        if call.op == "connect":
            args.pop("wait", None)

        def done(code: int, data: dict[str, Any], message: str) -> None:
            if not code:
                self._note(pair, call.op, args, data)
            caller.answer(Answer(call.number, code, data, message))

        self._session.request(call.op, pair, args, done)

    def _note(self, pair: DatagramPair, op: str, args: dict[str, Any], data: dict[str, Any]) -> None:
        """What a later gateway will have to be told, too."""
        if op == "bind":
            pair.bound = (data["address"], data["port"])
        elif op == "connect":
            pair.peer = (args["address"], args["port"]) if args["address"] else None
            self.admit(pair)
        elif op == "shutdown":
            pair.shut |= args["how"] + 1
        elif op == "getsockopt" and (args["level"], args["option"]) == (SOL_SOCKET, SO_ERROR):
            pair.error = 0
        elif op == "setsockopt":
            value = args["value"]
            if args["level"] != socket.IPPROTO_IP or args["option"] not in MEMBERSHIPS:
                for other in ancillary.instead_of(args["level"], args["option"]):
                    pair.options.pop(other, None)
                pair.options[args["level"], args["option"]] = value
                if not pair.queues_errors:
                    pair.errors.clear()  # Linux ip_setsockopt
            elif isinstance(value, bytes) and MEMBERSHIPS[args["option"]]:
                pair.groups[value[:4]] = value
            elif isinstance(value, bytes):
                pair.groups.pop(value[:4], None)

    def _send_to(self, caller: Caller, call: Call, pair: DatagramPair) -> None:
        """A datagram whose outcome the program waits for."""
        args = call.args
        if pair.shut & 2:
            caller.answer(Answer(call.number, errno.EPIPE, {}))
            return

        def done(code: int, _: dict[str, Any], message: str) -> None:
            caller.answer(Answer(call.number, code, {}, message))

        self._session.ask(
            lambda number: SendDatagram(
                sock=pair.gid,
                address=args["address"],
                port=args["port"],
                payload=args["payload"],
                request=number,
                tos=args["tos"],
                ttl=args["ttl"],
                source=args.get("source", b""),
                ip_options=args.get("ip_options"),
            ),
            done,
        )

    # -- program → network

    def event(self, pair: DatagramPair, mask: int) -> None:
        """What epoll says of a pair."""
        if mask & select.EPOLLOUT:
            self._push(pair)
        if mask & ~select.EPOLLOUT:
            pair.readable = True
            if mask & _GONE and self.framing.kind == socket.SOCK_SEQPACKET:
                # both directions shut look the same, yet somebody holds the socket; the last close will wake us again
                pair.hung_up = pair.shut != BOTH or pair.inode not in self._ends.alive([pair.inode])
            self.pull(pair)

    def closed(self) -> None:
        """Sockets without a hang-up of their own were closed: what the program has sent before goes yet."""
        for pair in self.closes.take():
            self._last_close(pair)
        if doubtful := self.closes.doubtful():
            self._doubtful.update(doubtful)
            self._doubt_until = None
            self._sweep_at = 0.0

    def _last_close(self, pair: DatagramPair) -> None:
        pair.hung_up = pair.readable = True
        self.pull(pair)

    def sweep(self, now: float) -> float | None:
        """Look for the ends of sockets whose close may go untold; when to be called next at the latest. A close that
        went untold is seen soon after, so what is open then is left to Closes again."""
        looked_for = self._unwatched | self._doubtful if self._doubtful else self._unwatched
        if not looked_for:
            return None
        if now >= self._sweep_at:
            if self._doubt_until is None:
                self._doubt_until = now + DOUBT_S
            held = self._ends.alive([pair.inode for pair in looked_for])
            for pair in [pair for pair in looked_for if pair.inode not in held]:
                self._unwatched.discard(pair)
                self._doubtful.discard(pair)
                self._last_close(pair)
            if now >= self._doubt_until:
                self._doubtful.clear()
            self._sweep_at = now + SWEEP_S
        return self._sweep_at if self._unwatched or self._doubtful else None

    def pull(self, pair: DatagramPair) -> None:
        """Take datagrams from the program; after its last close, close."""
        if pair.fd not in self.by_fd:
            return
        for _ in range(BATCH):
            if pair.marks >= MARKS:
                break
            message = pair.unsent.popleft() if pair.unsent else self._read(pair)
            if message is None:
                break
            self._send(pair, message)
        self.admit(pair)
        more = pair.readable or bool(pair.unsent)
        if not more and pair.hung_up:
            self._close(pair)
        elif more and pair.marks < MARKS:
            self.busy.add(pair)

    def _read(self, pair: DatagramPair) -> bytes | None:
        """The next message of the program; None if there is none now."""
        while pair.readable:
            try:
                message = pair.end.recv(_MESSAGE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                pair.readable = False
            except ConnectionResetError:
                pass  # it closed with datagrams unread; what it sent comes after this
            else:
                if message or self.framing.kind == socket.SOCK_DGRAM:
                    return message
                pair.readable = False
        return None

    def drain(self, pair: DatagramPair) -> bool:
        """Take out of the pair all that the program has written, for later; False: there is too much of it."""
        pair.readable = True
        while len(pair.unsent) < UNSENT_MOST:
            message = self._read(pair)
            if message is None:
                if pair.unsent:
                    self.busy.add(pair)
                return True
            pair.unsent.append(message)
        self.busy.add(pair)
        return False

    def catch_up(self, pair: DatagramPair) -> None:
        """Send what the program has written, whatever answers are missing: what it says now is of what comes now (a
        datagram in parts). No more than a pair holds, if it goes on writing meanwhile."""
        while pair.unsent:
            self._send(pair, pair.unsent.popleft())
        pair.readable = True
        for _ in range(UNSENT_MOST):
            message = self._read(pair)
            if message is None:
                return
            self._send(pair, message)
        self.busy.add(pair)

    def _send(self, pair: DatagramPair, message: bytes) -> None:
        one = self.framing.read(message)
        if one is None:
            self._fail(pair, errno.EBADMSG)  # written by other code than ours: too late to refuse it
            return
        if not pair.gid:  # the gateway is away
            return
        if not one[0] and pair.peer is None and pair.pending is None:
            self._fail(pair, errno.EDESTADDRREQ)  # written before it could be refused
            return
        if pair.pending is None and not pair.corks:
            self.post(pair, *one)
            return
        address, port, tos, ttl, payload = one
        where, asked, begun = pair.pending or Pending((address, port), ancillary.Wish(tos, ttl), b"")
        pair.pending = Pending(where, asked, begun + payload)
        if len(pair.pending.payload) > MAX_PAYLOAD:
            pair.pending = None  # as Linux: udp_flush_pending_frames
        elif not pair.corks:
            self.flush(pair)

    def flush(self, pair: DatagramPair) -> None:
        """Nothing more is added to the datagram that is pending."""
        if pair.pending is not None:
            (where, asked, payload), pair.pending = pair.pending, None
            self.post(pair, *where, asked.tos, asked.ttl, payload, asked.source, asked.ip_options)
        self.admit(pair)

    def admit(self, pair: DatagramPair) -> None:
        """A write or send, which names no destination, is refused unless there is one: the peer, or that of the
        datagram to which it adds. To be called before the program hears of a change."""
        if self.by_fd.get(pair.fd) is not pair:
            return  # it was closed meanwhile
        on = pair.peer is not None or pair.pending is not None
        if on != pair.admits and (on or self.drain(pair)):
            pair.admits = on
            self.framing.admit(pair, on)

    def post(
        self, pair: DatagramPair, address: bytes, port: int, tos: int, ttl: int, payload: bytes, source: bytes = b"",
        ip_options: bytes | None = None,
    ) -> None:  # fmt: skip
        """A datagram whose outcome nobody waits for; the caller looks at `marks` first."""
        rest = tos, ttl, source, ip_options
        pair.sent += 1
        if pair.sent % EVERY:
            self._session.tell(SendDatagram(pair.gid, address, port, payload, 0, *rest))
            return

        def answered(_: int, __: dict[str, Any], ___: str) -> None:
            pair.marks -= 1
            while pair.senders and pair.marks < MARKS:
                pair.senders.popleft()()
            if pair.readable or pair.unsent:
                self.busy.add(pair)

        pair.marks += 1
        self._session.ask(lambda number: SendDatagram(pair.gid, address, port, payload, number, *rest), answered)

    # -- network → program

    def deliver(self, pair: DatagramPair, message: Any) -> None:
        """A datagram or an error."""
        if type(message) is DatagramIn:
            drops = message.drops & 0xFFFF_FFFF if pair.wants(SOL_SOCKET, ancillary.SO_RXQ_OVFL) else 0
            header = Told(
                DATAGRAM, message.tos & 0xFF, message.ttl & 0xFF, message.port, message.address,
                message.local_address, message.iface & 0xFFFF_FFFF, drops, _stamp(pair, message.age),
                message.ip_options,
            ).pack()  # fmt: skip
            payload = message.payload if pair.dress is None else pair.dress(message)
            pair.aside.append((header, payload, message.upto))
        elif type(message) is DatagramError:
            if message.icmp_type >= 0:
                pair.error = message.errno
            if pair.queues_errors and len(pair.errors) < QUEUED_ERRORS:
                pair.errors.append(message)
            if self.framing.error(pair):
                self.wake(pair)
                return
            if pair.aside and pair.aside[-1][0] is _ERROR_MESSAGE:
                return  # that one stands for this one, too: a program that does not read is not told without end
            pair.aside.append((_ERROR_MESSAGE, b"", pair.aside[-1][2] if pair.aside else pair.upto))
        if len(pair.aside) == 1:
            self._push(pair)

    def _push(self, pair: DatagramPair) -> None:
        """Write what waits into the pair, as far as there is room."""
        while pair.aside:
            header, payload, upto = pair.aside[0]
            try:
                self.framing.write(pair, header, payload)
            except BlockingIOError:
                break
            except (OSError, TypeError):
                pass  # the program reads no more (SHUT_RD, or it has closed); or no bytes: gone
            pair.aside.popleft()
            pair.upto = upto
            self._owing.add(pair)
        self.wake(pair)

    @staticmethod
    def wake(pair: DatagramPair) -> None:
        """Those who wait to receive look again."""
        for wake in list(pair.waiters):
            wake()

    def turn(self) -> None:
        """Once a turn of the loop: what is left to read, and what was taken."""
        for pair in list(self.busy):
            self.busy.discard(pair)
            self.pull(pair)
        if self._owing:
            for pair in self._owing:
                if pair.gid:
                    self._session.tell(TookDatagrams(pair.gid, pair.upto))
            self._owing.clear()

    # -- the end

    def _close(self, pair: DatagramPair) -> None:
        """The program's last close, and all that it wrote is sent."""
        self._epoll.unregister(pair.fd)
        self.closes.forget(pair.watch)
        self._unwatched.discard(pair)
        self._doubtful.discard(pair)
        del self.by_fd[pair.fd], self.pairs[pair.inode]
        self.by_gid.pop(pair.gid, None)
        self.busy.discard(pair)
        self._owing.discard(pair)
        pair.end.close()
        if pair.gid:
            self._close_gid(pair.gid)

    def _close_gid(self, gid: int) -> None:
        def done(_: int, __: dict[str, Any], ___: str) -> None:
            self._closing -= 1

        self._closing += 1
        self._session.request("close", Bare(gid), {}, done)

    # -- the gateway is new

    def renew_all(self) -> None:
        """A new gateway knows none of our sockets: each is made again, as it was."""
        self.by_gid.clear()
        for pair in list(self.pairs.values()):
            pair.gid = 0
            pair.upto = pair.marks = 0
            pair.aside = deque((header, payload, 0) for header, payload, _ in pair.aside)
            if pair.readable or pair.unsent:
                self.busy.add(pair)
            self._again(pair)

    def _again(self, pair: DatagramPair) -> None:
        def done(code: int, data: dict[str, Any], _: str) -> None:
            if pair.fd not in self.by_fd:
                if not code:
                    self._close_gid(data["sock"])
                return
            if code:
                self._fail(pair, code)
                return
            pair.gid = data["sock"]
            self.by_gid[pair.gid] = pair
            ask = self._session.request
            for (level, option), value in pair.options.items():
                ask("setsockopt", pair, {"level": level, "option": option, "value": value}, ignore, internal=True)
            if pair.bound is not None:
                args: dict[str, Any] = {"address": pair.bound[0], "port": pair.bound[1]}
                ask("bind", pair, args, lambda code, _, __: self._fail(pair, code), internal=True)
            for value in pair.groups.values():
                args = {"level": socket.IPPROTO_IP, "option": socket.IP_ADD_MEMBERSHIP, "value": value}
                ask("setsockopt", pair, args, ignore, internal=True)
            if pair.peer is not None:
                args = {"address": pair.peer[0], "port": pair.peer[1]}
                ask("connect", pair, args, lambda code, _, __: self._fail(pair, code), internal=True)
            self._session.release()

        family, kind, proto = pair.kind
        self._session.request("socket", None, {"family": family, "type": kind, "proto": proto}, done, internal=True)

    def _fail(self, pair: DatagramPair, code: int) -> None:
        """What could not be made again is an error of the socket."""
        if code and pair.fd in self.by_fd:
            self.deliver(pair, DatagramError(pair.gid, code, 0, 0, b"", b"", 0))

    def shut(self) -> None:
        """Give the descriptors back."""
        for pair in self.pairs.values():
            with contextlib.suppress(OSError):
                pair.end.close()
        self.closes.close()


def _stamp(pair: DatagramPair, age: int) -> int:
    """When a datagram came that has been `age` ns in the stack, by the clock of this process; 0: nobody wants it."""
    if not any(pair.wants(SOL_SOCKET, option) for option in ancillary.STAMPS):
        return 0
    stamp = time.time_ns() - age
    if pair.stamped - _JITTER_NS < stamp < pair.stamped:  # the one before was on its way to us for longer
        stamp = pair.stamped
    pair.stamped = stamp
    return stamp


def is_datagram(call: Call) -> bool:
    """Whether a call to socket() is for here."""
    kind = call.args.get("type")
    return isinstance(kind, int) and kind & 0xF == socket.SOCK_DGRAM


assert control.MAX_MESSAGE > _MESSAGE + 200, "a datagram fits into a call"
