"""The pump: bytes between the helper's ends of the socketpairs and the rings, as byte offsets (DESIGN 6).

    program ──▶ end ──▶ send ring     sent ≤ limit          Send(offset, length), once a turn of the loop
    program ◀── end ◀── receive ring  written ≤ received    Consumed(upto), every 128 KB or after a moment

Outgoing bytes are read from the pair straight into the send ring and never beyond the limit that was granted;
incoming ones are written from the receive ring straight into the pair. Descriptors are watched edge-triggered, so a
pair without credit, or whose program does not read, costs nothing. Urgent bytes are marked in the pair (urgent.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections import deque
from typing import Any

from levelip.client import halfclose, urgent
from levelip.client.ends import unread
from levelip.client.session import Session
from levelip.rpc.place import Place, Rings
from levelip.rpc.stream import Consumed, Data, Eof, Reset, Send, Urgent

READ_CHUNK = 262_144  # bytes read from a pair before others get their turn and what was read is announced
INLINE_CHUNK = 65_536  # bytes of one Send that carries its payload
CONSUMED_STEP = 131_072  # bytes after which the receive ring's space is given back (DESIGN 6: about 128 KB)
CONSUMED_PIECES = 16  # Data messages after which it is told too: the gateway sends 64 at most without an answer
CONSUMED_DELAY_S = 0.002  # how long less than that may wait for a message that it can travel with
HELD_BYTES = 16_384  # so much of a corked stream, or
HELD_S = 0.005  # for so long, is kept here before the network hears of the cork (Linux: what fills no segment, 200 ms)
CORK = (socket.IPPROTO_TCP, socket.TCP_CORK)
CORKED = {"level": socket.IPPROTO_TCP, "option": socket.TCP_CORK, "value": 1}
INT = 4  # bytes of one in C
WATCH = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLET


class Pair:
    """One socket of the program, as the helper sees it: our end of its pair, and where its streams stand."""

    __slots__ = (
        "accepted", "alias", "aside", "backlog", "behind", "bound", "chosen", "close_deadline", "closing", "connected",
        "connecting", "consumed", "corked", "counted", "dead", "discard", "early", "end", "eof_sent", "error", "failed",
        "fd", "fin_at", "fin_done", "finished", "forgotten", "gid", "held", "hung_up", "inflight", "inode", "junk",
        "kept", "kind", "known", "lender", "lent", "limit", "linger_calls", "lingers", "listening", "local", "lowat",
        "mark", "marked", "more", "options", "outcome", "pieces", "readable", "receive_ring", "received", "redeemed",
        "remote", "returned", "said", "seen", "send_ring", "sent", "shows", "shut", "single", "stuck", "times",
        "tokens", "told", "unread", "waiters", "waiting", "whole", "written",
    )  # fmt: skip

    def __init__(self, end: socket.socket | None, inode: int, kind: tuple[int, int, int], gid: int) -> None:
        self.end: socket.socket | None = end
        self.fd = end.fileno() if end is not None else -1
        self.single = end is None  # the program's end is no pair's yet (Connecting.attach)
        self.inode = inode  # of the program's end
        self.kind = kind  # family, type, protocol
        self.gid = gid  # the gateway's id; 0 while it has none
        # what a new gateway must be told
        self.options: dict[tuple[int, int], int | bytes] = {}
        self.corked = False  # so far as the gateway knows
        self.early = 0  # options that the program takes for set, and the gateway has not answered
        self.bound: tuple[bytes, int] | None = None
        self.chosen = False  # bind() named that port
        self.backlog: int = 0
        self.listening = False
        # connection
        self.connecting = False
        self.connected = False
        self.known = False  # connect() has said that it is connected, or accept() brought it
        self.dead = False  # it was connected and was reset
        self.shows = False  # and the program's end shows it, until a call has told it
        self.whole = False  # the peer's stream had ended by then: who reads is told the end alone (Linux, SOCK_DONE)
        self.forgotten = False  # and the gateway that knew of it is dead
        self.local: tuple[bytes, int] | None = None
        self.remote: tuple[bytes, int] | None = None
        self.alias: tuple[bytes, int] | None = None  # what the program calls it, if otherwise (name servers)
        self.error = 0  # errno that the program has not been told
        self.failed = False  # our end was closed after a failed connect: the next attempt needs a new pair
        self.told = False  # that failure was told by connect()
        self.junk = 0  # bytes of no meaning in the pair, which keep it from being writable
        self.lent = -1  # while connecting or about to listen: a duplicate of the program's end
        self.lender = 0  # from this process
        self.seen: tuple[int, int] | None = None  # thread and descriptor of the last trapped call on the program's end
        self.waiting: list[tuple[Any, int]] = []  # who waits for the connect under way: caller, number of its call
        self.behind: list[tuple[Any, Any]] | None = None  # while a connect asks what ended the last: later ones
        self.held = False  # a caller whose time was over has given up waiting
        self.outcome: int | None = None  # errno of a connect whose caller was interrupted, for its next connect()
        self.times: dict[int, float | None] = {}  # SO_RCVTIMEO, SO_SNDTIMEO in seconds, where we must keep them
        self.lingers = (False, 0)  # SO_LINGER: on, seconds
        # program → network
        self.send_ring: memoryview | None = None
        self.sent = 0
        self.said = 0  # what lies in the ring below it was announced
        self.accepted = 0
        self.limit = 0
        self.more = -1  # up to here it was written with MSG_MORE: corked, until something else is written
        self.readable = False
        self.marked = 0  # the network was told that the stream is urgent up to here
        self.finished = False  # the program's EOF was read
        self.kept: halfclose.Kept | None = None  # what stays unread in our end, since the program said SHUT_WR
        self.eof_sent = False
        # network → program
        self.receive_ring: memoryview | None = None
        self.aside: deque[memoryview | bytes] = deque()  # received, not yet written into the pair
        self.received = 0
        self.written = 0
        self.consumed = 0
        self.pieces = 0  # Data messages since the last Consumed
        self.mark = -1  # offset of the peer's last urgent byte; of no meaning once it was written
        self.fin_at: int | None = None
        self.fin_done = False
        self.stuck = False  # the pair is full: EPOLLOUT is watched
        self.discard = False  # the program has shut its reading side
        self.lowat = 1  # SO_RCVLOWAT
        # the end of it
        self.shut = 0  # 1: the program said SHUT_RD, 2: SHUT_WR
        self.hung_up = False
        self.unread = False  # the program closed with bytes unread
        self.closing = False
        self.close_deadline = 0.0
        self.linger_calls: list[Any] = []
        # listening: one byte in the pair for each connection that waits
        self.counted = 0  # connections that wait, as the gateway said last
        self.tokens = 0  # bytes written that no accept has redeemed
        self.redeemed = 0  # bytes that were
        self.inflight = 0  # accepts under way
        self.waiters: deque[Any] = deque()  # called, each once, as soon as a connection waits
        self.returned: deque[tuple[socket.socket, dict[str, Any]]] = deque()  # accepted, but the caller was gone

    def start_over(self) -> None:
        """Its connection is over and forgotten; our end is closed."""
        self.connected = self.connecting = self.dead = self.known = self.forgotten = False
        self.shows = self.whole = False
        self.local = self.remote = self.alias = None
        self.error = self.junk = 0
        self.send_ring = self.receive_ring = self.kept = self.fin_at = None
        self.sent = self.said = self.accepted = self.limit = self.marked = 0
        self.received = self.written = self.consumed = self.pieces = self.shut = 0
        self.more = self.mark = -1
        self.readable = self.finished = self.eof_sent = self.fin_done = self.stuck = self.discard = False
        self.hung_up = self.unread = False
        self.aside.clear()

    def give_back(self) -> None:
        """Close the duplicate of the program's end."""
        if self.lent >= 0:
            os.close(self.lent)
            self.lent = -1


class Pump:
    """Moves the bytes of all pairs. `failed` lists pairs whose connection broke here; the caller empties it."""

    def __init__(self, session: Session, epoll: select.epoll) -> None:
        self._session = session
        self._epoll = epoll
        self._owing: dict[Pair, None] = {}  # pairs with bytes written and not yet told as Consumed
        self._owing_since = 0.0
        self._corked: dict[Pair, float] = {}  # whose cork the gateway has not heard of, and until when
        self.busy: set[Pair] = set()  # more to read, without a new edge
        self.failed: list[Pair] = []
        self._urgent = urgent.carried()

    def watch(self, pair: Pair) -> None:
        """Start to watch a new pair's end."""
        self._epoll.register(pair.fd, WATCH)

    def establish(self, pair: Pair, data: dict[str, Any]) -> None:
        """The connection stands: take its rings and the first grant from the gateway's answer.

        Raises ValueError or TypeError for an answer that cannot be right.
        """
        rings = Rings(*data["rings"])
        memory = self._session.memory
        if rings.region:
            if memory is None or rings.region != memory.name:
                raise ValueError(f"rings in {rings.region!r}, which is not this session's memory")
            pair.send_ring = memory.ring(rings.send_base, rings.send_size)
            pair.receive_ring = memory.ring(rings.receive_base, rings.receive_size)
        pair.local = (data["local_address"], data["local_port"])
        pair.remote = (data["remote_address"], data["remote_port"])
        pair.limit = max(pair.limit, data["limit"])
        pair.connected = True
        pair.connecting = False
        self.pull(pair)
        self.push(pair)

    # -- program → network

    def pull(self, pair: Pair, *, plain: bool = False) -> None:
        """Read what the program wrote, as far as the grant goes, and announce it. `plain`: bytes wait, none urgent."""
        end = pair.end
        if end is None or pair.finished or not pair.connected:
            return
        ring = pair.send_ring
        budget = pair.sent + READ_CHUNK
        while pair.readable:
            room = min(pair.limit, budget) - pair.sent
            if room <= 0:
                if pair.limit > pair.sent:
                    self.busy.add(pair)
                break
            try:
                if self._urgent and not plain and urgent.at_mark(end):
                    pair.marked = pair.sent + 1
                    self._session.outbox.append(Urgent(pair.gid, pair.marked))
                plain = False
                flags = 0
                if pair.kept is not None:
                    most, flags = halfclose.next_read(pair, end)
                    room = min(room, most)
                if ring is not None:
                    at = pair.sent % len(ring)
                    got = end.recv_into(ring[at : at + room], 0, flags)
                else:
                    payload = end.recv(min(room, INLINE_CHUNK), flags)
                    got = len(payload)
                    if got:
                        self._session.outbox.append(Send(pair.gid, pair.sent, got, payload))
            except BlockingIOError:
                pair.readable = False
                break
            except ConnectionResetError:
                pair.unread = True  # the program closed and left bytes unread; its own bytes were all read before
                continue
            pair.sent += got
            if not got or flags & socket.MSG_PEEK:
                pair.finished = True
                pair.readable = False
                pair.hung_up = pair.hung_up or hangs_up(end)  # epoll has not said so yet
                break
        if 0 <= pair.more < pair.sent:
            self._end_more(pair)
        if pair not in self._corked:
            self._announce(pair)
        elif pair.sent >= pair.said + HELD_BYTES:
            self.tell_cork(pair)
        if not pair.hung_up:  # else it may be a close, perhaps one that resets: the caller finds out
            self.fin(pair)

    def fin(self, pair: Pair) -> None:
        """If the program has ended its stream, say so, once."""
        if pair.finished and pair.connected and not pair.eof_sent:
            pair.eof_sent = True
            self.uncork(pair)
            self._session.outbox.append(Eof(pair.gid, pair.sent))

    def _announce(self, pair: Pair) -> None:
        if pair.send_ring is not None and pair.sent > pair.said:
            self._session.outbox.append(Send(pair.gid, pair.said, pair.sent - pair.said))
        pair.said = pair.sent

    # -- TCP_CORK

    def cork(self, pair: Pair) -> bool:
        """The stream is corked: what is written from now on stays here, as most servers take the cork out after one
        answer, of which the gateway then need not hear. False where it must."""
        if not pair.connected or pair.send_ring is None or pair.eof_sent or pair.corked:
            return False
        self._corked.setdefault(pair, time.monotonic() + HELD_S)
        return True

    def more(self, pair: Pair) -> None:
        """What lies in the pair was written with MSG_MORE: TCP_CORK, until something is written without it."""
        if pair.end is None or not pair.connected or pair.eof_sent:
            return
        if not self.cork(pair) and not pair.corked:
            pair.corked = True
            self._session.request("setsockopt", pair, dict(CORKED), _unanswered)
        pair.more = pair.sent + halfclose.waiting(pair.end)

    def _end_more(self, pair: Pair) -> None:
        """It was; unless the program has set TCP_CORK, too."""
        pair.more = -1
        if is_on(pair.options.get(CORK, 0)):
            return
        if not self.uncork(pair) and pair.corked:
            pair.corked = False
            self._session.request("setsockopt", pair, {**CORKED, "value": 0}, _unanswered)

    def uncork(self, pair: Pair) -> bool:
        """What was kept goes. False if there was no cork that the gateway has not heard of."""
        pair.more = -1
        corked = self._corked.pop(pair, None) is not None
        self._announce(pair)
        return corked

    def tell_cork(self, pair: Pair) -> None:
        """If there is one, the gateway is to know of it, before the bytes that it holds back."""
        if self._corked.pop(pair, None) is not None:
            pair.corked = True
            self._session.request("setsockopt", pair, dict(CORKED), _unanswered)
            self._announce(pair)

    def keep(self, now: float) -> float | None:
        """What has been kept for long enough goes, under its cork; when the next will have been."""
        for pair in [pair for pair, until in self._corked.items() if until <= now]:
            self.tell_cork(pair)
        return min(self._corked.values(), default=None)

    def accepted(self, pair: Pair, upto: int, limit: int) -> None:
        """The network took bytes below `upto` and grants those below `limit`; older news changes nothing."""
        pair.accepted = max(pair.accepted, upto)
        if limit > pair.limit:
            pair.limit = limit
            if pair.readable:
                self.pull(pair)

    # -- network → program

    def data(self, pair: Pair, message: Data) -> None:
        """Bytes came. Those that are known already are skipped; a gap breaks the connection."""
        payload = message.payload
        offset = message.offset
        length = len(payload)
        if offset + length <= pair.received:
            return
        if offset > pair.received:
            self._break(pair)
            return
        if offset < pair.received:
            skip = pair.received - offset
            payload = payload.slice(skip) if type(payload) is Place else payload[skip:]  # type: ignore[index]
            length -= skip
        if type(payload) is Place:
            ring = pair.receive_ring
            if ring is None or payload.size != len(ring):
                self._break(pair)
                return
            at = payload.start % payload.size
            first = min(length, payload.size - at)
            pair.aside.append(ring[at : at + first])
            if first < length:
                pair.aside.append(ring[: length - first])
        else:
            pair.aside.append(payload)  # type: ignore[arg-type]
        pair.received += length
        pair.pieces += 1
        if not pair.stuck:
            self.push(pair)

    def mark(self, pair: Pair, upto: int) -> None:
        """The peer has announced urgent data; a newer mark takes an older one's place, as on Linux."""
        pair.mark = upto - 1
        if pair.lowat > 1:
            self.push(pair)

    def eof(self, pair: Pair, at: int) -> None:
        """The peer's stream ends at `at`."""
        pair.fin_at = at
        self.push(pair)

    def push(self, pair: Pair) -> None:
        """Write what waits into the pair, as far as it takes it, then the end of the stream."""
        end = pair.end
        if end is None:
            return
        holds = pair.lowat > 1 and not pair.stuck and bool(pair.aside) and self._holds(pair, end)
        aside = pair.aside
        if aside and not pair.stuck and not holds:
            if pair.discard:
                pair.written = pair.received
                aside.clear()
            while aside:
                piece = aside[0]
                flags = 0
                if pair.mark >= pair.written and self._urgent:
                    piece, flags = _before_mark(piece, pair.mark - pair.written)
                try:
                    done = end.send(piece, flags)
                except BlockingIOError:
                    pair.stuck = True
                    self._epoll.modify(pair.fd, WATCH | select.EPOLLOUT)
                    break
                except (BrokenPipeError, ConnectionResetError) as error:
                    # SHUT_RD or the last close, which the hang-up will tell apart; the bytes have no reader
                    if isinstance(error, ConnectionResetError):
                        pair.unread = True
                        continue
                    pair.discard = True
                    pair.written = pair.received
                    aside.clear()
                    break
                pair.written += done
                if done < len(aside[0]):
                    aside[0] = aside[0][done:]
                else:
                    aside.popleft()
            if pair.connected:
                self._owe(pair)
        if not aside and pair.fin_at is not None and pair.written >= pair.fin_at and not pair.fin_done:
            pair.fin_done = True
            with contextlib.suppress(OSError):  # ENOTCONN: the program has closed already
                end.shutdown(socket.SHUT_WR)

    def _holds(self, pair: Pair, end: socket.socket) -> bool:
        """SO_RCVLOWAT: whether the program's end is to stay unreadable, as too little has come.

        More than half the ring is not waited for, nor anything once the stream has ended. The kernel's window goes on:
        what is held back is copied, so that its place in the ring is free.
        """
        waits = pair.received - pair.written
        most = INLINE_CHUNK if pair.receive_ring is None else len(pair.receive_ring) // 2
        if waits >= min(pair.lowat, most) or self._goes_at_once(pair):
            pair.aside = deque([b"".join(pair.aside)])  # in one write, lest the reader sees a part of it
            return False
        if unread(end):
            return False  # it is readable already
        if pair.pieces >= CONSUMED_PIECES:
            pair.aside = deque(bytes(piece) for piece in pair.aside)
            pair.consumed = pair.received
            pair.pieces = 0
            self._session.outbox.append(Consumed(pair.gid, pair.consumed))
        return True

    @staticmethod
    def _goes_at_once(pair: Pair) -> bool:
        """The stream is over, or its urgent byte has come."""
        over = pair.fin_at is not None or pair.dead or pair.hung_up or pair.discard
        return over or pair.written <= pair.mark < pair.received

    def writable(self, pair: Pair) -> None:
        """The pair takes bytes again."""
        if pair.stuck:
            pair.stuck = False
            self._epoll.modify(pair.fd, WATCH)
            self.push(pair)

    def _owe(self, pair: Pair) -> None:
        ring = pair.receive_ring
        step = CONSUMED_STEP if ring is None else min(CONSUMED_STEP, len(ring) // 4)
        if pair.written - pair.consumed >= step or (pair.pieces >= CONSUMED_PIECES and not pair.aside):
            pair.consumed = pair.written
            pair.pieces = 0
            self._session.outbox.append(Consumed(pair.gid, pair.written))
            self._owing.pop(pair, None)
        elif pair.written > pair.consumed:
            self._owing[pair] = None

    def settle(self, now: float) -> float | None:
        """Tell of small amounts too, if a message leaves anyway or the delay is over; else when it will be over."""
        if not self._owing:
            self._owing_since = 0.0
            return None
        if not self._owing_since:
            self._owing_since = now
        if not self._session.outbox and now < self._owing_since + CONSUMED_DELAY_S:
            return self._owing_since + CONSUMED_DELAY_S
        for pair in self._owing:
            self.tell_consumed(pair)
        self._owing.clear()
        self._owing_since = 0.0
        return None

    def tell_consumed(self, pair: Pair) -> None:
        """Tell of what was written to the program and not told yet."""
        if pair.connected and pair.gid and pair.written > pair.consumed:
            pair.consumed = pair.written
            pair.pieces = 0
            self._session.outbox.append(Consumed(pair.gid, pair.written))

    # -- the end

    def _break(self, pair: Pair) -> None:
        """The gateway's stream makes no sense: abort rather than hand over wrong bytes."""
        self._session.outbox.append(Reset(pair.gid, 0))
        pair.error = errno.ECONNRESET
        self.failed.append(pair)

    def reset(self, pair: Pair) -> None:
        """The connection is gone. What was received before stays readable: it is copied, as its ring will be reused."""
        pair.connected = False
        pair.connecting = False
        pair.dead = True
        pair.aside = deque(bytes(piece) for piece in pair.aside)
        pair.send_ring = pair.receive_ring = None
        pair.fin_at = None
        self._owing.pop(pair, None)
        self._corked.pop(pair, None)
        self.busy.discard(pair)
        if pair.lowat > 1:
            self.push(pair)

    def resend(self, pair: Pair) -> None:
        """After a reconnect to the same gateway: say again what it may have missed. All of it is idempotent."""
        if pair.marked > pair.accepted:
            self._session.outbox.append(Urgent(pair.gid, pair.marked))
        if pair.send_ring is not None and pair.sent > pair.accepted:
            self._corked.pop(pair, None)
            self._session.outbox.append(Send(pair.gid, pair.accepted, pair.sent - pair.accepted))
            pair.said = pair.sent
        if pair.eof_sent:
            self._session.outbox.append(Eof(pair.gid, pair.sent))
        self._session.outbox.append(Consumed(pair.gid, pair.written))

    def forget(self, pair: Pair) -> None:
        """Stop watching the pair and close our end."""
        self._owing.pop(pair, None)
        self.busy.discard(pair)
        if pair.connected:
            self.uncork(pair)
        if pair.end is not None:
            self._epoll.unregister(pair.fd)
            pair.end.close()
            pair.end = None


def hangs_up(end: socket.socket) -> bool:
    """Whether the program's end is closed, or shut both ways: not its sending side alone; without waiting for epoll."""
    poll = select.poll()
    poll.register(end, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))


def _before_mark(piece: memoryview | bytes, ahead: int) -> tuple[memoryview | bytes, int]:
    """What of a piece goes in one write, and its flags: all that lies before the urgent byte, or that byte alone."""
    return (piece[:ahead], 0) if ahead else (piece[:1], socket.MSG_OOB)


def is_on(value: int | bytes) -> bool:
    """A flag's value."""
    return any(value[:INT]) if isinstance(value, bytes) else bool(value)


def _unanswered(_: int, __: dict[str, Any], ___: str) -> None:
    """The program was answered already."""
