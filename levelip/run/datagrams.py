"""Trapped calls on datagram sockets: those that name an address, or take a struct msghdr.

The payload lies bare in the program's end (tags.py). A receiving call takes it from there, with what belongs to it, and
waits where there is none until the helper has put something in; a sending one hands it to the helper. As in
levelip.client the first datagram to each destination waits for the gateway's verdict, and those after it do not.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from levelip.client.ancillary import rows, wish
from levelip.client.control import Answer
from levelip.client.datagramformat import MAX_ECHO, MAX_OPTIONS, MAX_PAYLOAD, UP, told
from levelip.client.datagrams import MARKS, DatagramPair, Pending
from levelip.client.errorqueue import MSG_ERRQUEUE, QueuedHeader, describe
from levelip.run import raw, target
from levelip.run.messages import MMSGHDR_SIZE, MSGHDR, Message
from levelip.run.tags import Tags, clear, shows, take
from levelip.run.trapped import Trapped
from levelip.run.values import INT, TIMESPEC, parse_sockaddr, sockaddr

if TYPE_CHECKING:
    from levelip.run.trap import Trap

KNOWN = 256  # destinations of one socket whose first datagram went well that are remembered
MAX_MESSAGES = 1024  # UIO_MAXIOV: of one sendmmsg or recvmmsg
MSG_WAITFORONE = 0x10000
UDP_CORK = (socket.IPPROTO_UDP, 1)  # linux/udp.h
SEND_BUFFER = 32_770  # SO_SNDBUF of the program's end; the kernel's EMSGSIZE begins at twice this less 32

Deliver = Callable[[int, bytes, bytes], int]  # number, header, payload: write it; what the call returns for it
Fetch = Callable[[int], tuple[bytes, bytes, list[tuple[int, int, bytes]]]]  # number: msg_name, payload, ancillary data


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class DatagramCalls:
    """Part of Trap, which has the calls that sockets of both kinds share."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap
        self.tags = Tags(self._lend, self._drain)
        self.table: dict[str, Callable[[Trapped], None]] = {
            "connect": self._connect,
            "listen": lambda call: trap.ask(call, "listen", backlog=0),
            "accept": lambda call: trap.ask(call, "accept"),
            "accept4": lambda call: trap.ask(call, "accept"),
            "getsockopt": self._getsockopt,
            "setsockopt": self._setsockopt,
            "shutdown": self._shutdown,
            "sendto": self._sendto,
            "sendmsg": self._sendmsg,
            "sendmmsg": self._sendmmsg,
            "recvfrom": self._recvfrom,
            "recvmsg": self._recvmsg,
            "recvmmsg": self._recvmmsg,
        }

    @staticmethod
    def pair(call: Trapped) -> DatagramPair:
        """The call's socket."""
        assert call.datagrams is not None
        return call.datagrams

    def _lend(self, pair: DatagramPair) -> socket.socket | None:
        seen = {pair.inode: pair.seen} if pair.seen is not None else {}
        fd = self._trap.calls.endings.ends.borrow({pair.inode}, self._trap.processes, seen).get(pair.inode)
        return socket.socket(fileno=fd) if fd is not None else None

    def _drain(self, pair: DatagramPair) -> bool:
        return self._trap.calls.datagrams.drain(pair)

    # -- names and options

    def _connect(self, call: Trapped) -> None:
        pair = self.pair(call)
        address, port = self._trap.address(call, dissolve=True)
        pair.known.clear()
        pair.aliases.clear()
        where = self._trap.instead((address, port), pair) if address else (address, port)
        self._trap.ask(call, "connect", address=where[0], port=where[1])

    def _setsockopt(self, call: Trapped) -> None:
        if self.pair(call).dress is not None and (call.number(1), call.number(2)) == (raw.SOL_RAW, raw.ICMP_FILTER):
            call.settle()  # nothing but echo replies comes anyway
            return
        if (call.number(1), call.number(2)) == UDP_CORK and self.pair(call).kind[2] != socket.IPPROTO_ICMP:
            self._cork(call)
            return
        self.pair(call).known.clear()  # SO_BROADCAST and others decide on what may be sent
        self._trap.setsockopt(call)

    def _cork(self, call: Trapped) -> None:
        """UDP_CORK: what is sent while it is on is one datagram, which goes when it is taken out."""
        pair = self.pair(call)
        if call.number(4) < INT.size:
            raise _refuse(errno.EINVAL)
        on = bool(INT.unpack(call.read(call.args[3], INT.size))[0])
        self._trap.calls.datagrams.catch_up(pair)
        pair.corks = on
        if not on:
            self._trap.calls.datagrams.flush(pair)
        call.settle()

    def _getsockopt(self, call: Trapped) -> None:
        pair = self.pair(call)
        if (call.number(1), call.number(2)) == UDP_CORK and pair.kind[2] != socket.IPPROTO_ICMP:
            room = INT.unpack(call.read(call.args[4], INT.size))[0]
            call.write_sized(call.args[3], call.args[4], INT.pack(pair.corks)[: max(room, 0)])
            call.settle()
            return
        if (call.number(1), call.number(2)) == (socket.SOL_SOCKET, socket.SO_ERROR) and pair.error:
            if self._is_told(call):
                self._trap.calls.datagrams.told(pair)  # before this call asks the gateway
            pair.error = 0
            self.show_errors(call)
        self._trap.getsockopt(call)

    def _shutdown(self, call: Trapped) -> None:
        """Of the program's end, too, to which all that is let through comes."""
        pair = self.pair(call)
        how = call.number(1)

        def finish(call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
            if not answer.errno:
                self._trap.at_end(call, lambda theirs: theirs.shutdown(how))
            done = call.plain(answer)
            self._trap.calls.datagrams.wake(pair)
            return done

        call.finish = finish
        self._trap.ask(call, "shutdown", how=how)

    def take_error(self, call: Trapped) -> int:
        """What an ICMP error left for the next call (Linux: sk_err); 0: nothing. It is told once."""
        pair = self.pair(call)
        if not pair.error:
            return 0
        code = 0 if self._is_told(call) else pair.error
        if pair.aliases:
            self._trap.nameservers.failed()
        self._trap.calls.datagrams.told(pair)
        self.show_errors(call)
        return code

    def _is_told(self, call: Trapped) -> bool:
        """Whether a read, write, send or recv, which are the kernel's, has failed for the socket's error."""
        fd = self._trap.borrow(call) if self.pair(call).shown else None
        if fd is None:
            return False
        with socket.socket(fileno=fd) as theirs:
            return not shows(theirs)

    def show_errors(self, call: Trapped) -> None:
        """POLLERR as long as an error has not been told, or waits in the error queue."""
        pair = self.pair(call)
        due = bool(pair.error or pair.errors)
        fd = self._trap.borrow(call) if due or pair.shown else None
        if fd is None:
            return
        with socket.socket(fileno=fd) as theirs:
            if due:
                self.tags.show(pair, theirs)
            else:
                clear(theirs)
                pair.shown = False

    def shown(self, call: Trapped) -> bool:
        """Whether the program's end may show an error."""
        return self.pair(call).shown

    def ended(self, call: Trapped) -> bool:
        """Whether nothing is waited for, as the program has shut the socket."""
        return bool(self.pair(call).shut & 1)

    # -- sending

    def _sendto(self, call: Trapped) -> None:
        length = call.args[2]
        if length > longest(self.pair(call)):
            raise _refuse(errno.EMSGSIZE)

        def fetch(_: int) -> tuple[bytes, bytes, list[tuple[int, int, bytes]]]:
            return call.read_name(call.args[4], call.number(5)), call.read(call.args[1], length), []

        Sender(self._trap, self, call, fetch, flags=call.number(3)).go_on()

    def _sendmsg(self, call: Trapped) -> None:
        Sender(self._trap, self, call, lambda _: self._fetch(call, call.args[1]), flags=call.number(2)).go_on()

    def _sendmmsg(self, call: Trapped) -> None:
        count = min(call.args[2] & 0xFFFFFFFF, MAX_MESSAGES)
        vector = call.args[1]

        def tell(number: int, size: int) -> None:
            at = vector + number * MMSGHDR_SIZE + MSGHDR.size
            target.write(call.tid, at, size.to_bytes(4, "little"))

        def fetch(number: int) -> tuple[bytes, bytes, list[tuple[int, int, bytes]]]:
            return self._fetch(call, vector + number * MMSGHDR_SIZE)

        Sender(self._trap, self, call, fetch, flags=call.number(3), count=count, tell=tell).go_on()

    def _fetch(self, call: Trapped, address: int) -> tuple[bytes, bytes, list[tuple[int, int, bytes]]]:
        message = Message(call.tid, address)
        if message.size > longest(self.pair(call)):
            raise _refuse(errno.EMSGSIZE)
        return message.destination(), message.gather(), message.control()

    # -- receiving

    def _recvfrom(self, call: Trapped) -> None:
        _, buffer, length, _, address, size_address = call.args
        flags = call.number(3)

        def deliver(_: int, header: bytes, payload: bytes) -> int:
            call.write(buffer, payload[:length])
            call.write_sized(address, size_address, self.sender(call, header))
            return len(payload) if flags & socket.MSG_TRUNC else min(len(payload), length)

        Receiver(self._trap, self, call, deliver, flags=flags).go_on()

    def _recvmsg(self, call: Trapped) -> None:
        message, flags = Message(call.tid, call.args[1]), call.number(2)
        Receiver(self._trap, self, call, lambda _, *got: self._put(call, message, flags, *got), flags=flags).go_on()

    def _recvmmsg(self, call: Trapped) -> None:
        vector, flags = call.args[1], call.number(3)
        count = min(call.args[2] & 0xFFFFFFFF, MAX_MESSAGES)
        limit = None
        if call.args[4]:
            whole, nanos = TIMESPEC.unpack(call.read(call.args[4], TIMESPEC.size))
            if whole < 0 or not 0 <= nanos < 1_000_000_000:
                raise _refuse(errno.EINVAL)
            limit = time.monotonic() + whole + nanos / 1e9

        def deliver(number: int, header: bytes, payload: bytes) -> int:
            at = vector + number * MMSGHDR_SIZE
            size = self._put(call, Message(call.tid, at), flags, header, payload)
            call.write(at + MSGHDR.size, size.to_bytes(4, "little"))
            return number + 1

        Receiver(self._trap, self, call, deliver, flags=flags, count=count, limit=limit).go_on()

    def _put(self, call: Trapped, message: Message, flags: int, header: bytes, payload: bytes) -> int:
        done = message.scatter(payload)
        told = int(socket.MSG_TRUNC) if done < len(payload) else 0
        told |= MSG_ERRQUEUE if isinstance(header, QueuedHeader) else 0
        message.answer(self.sender(call, header), self.ancillary(call, header), told)
        return len(payload) if flags & socket.MSG_TRUNC else done

    def waiters(self, call: Trapped) -> deque[Callable[[], None]]:
        """Those who wait to receive from the call's socket."""
        return self.pair(call).waiters

    def sender(self, call: Trapped, header: bytes) -> bytes:
        """Where a message came from, as msg_name."""
        one = told(header)
        where = one.address, one.port
        if not one.port and not any(one.address):
            return b""  # there was none: the end was shut
        return sockaddr(*self.pair(call).aliases.get(where, where))

    def ancillary(self, call: Trapped, header: bytes) -> list[tuple[int, int, bytes]]:
        """What belongs to it and was asked for."""
        if isinstance(header, QueuedHeader):
            return header.rows
        return rows(told(header), self.pair(call).wants)


class Sender:
    """One sending call: `count` datagrams, one after the other."""

    def __init__(
        self, trap: Trap, calls: DatagramCalls, call: Trapped, fetch: Fetch, *, flags: int, count: int = 1,
        tell: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        self._trap = trap
        self._calls = calls
        self._call = call
        self._fetch = fetch
        self._flags = flags
        self._count = count
        self._tell = tell
        self._done = 0
        self._size = 0  # of the last one
        self._asked: tuple[bytes, int] | None = None  # where the one under way goes

    def go_on(self) -> None:
        """Send as many as can be sent now."""
        call, pair = self._call, self._calls.pair(self._call)
        if call.over:
            return
        try:
            while self._done < self._count:
                if pair.marks >= MARKS:
                    self._wait()
                    return
                try:
                    sent = self._send(pair)
                finally:
                    self._trap.calls.datagrams.admit(pair)  # a datagram was begun, or is whole
                if not sent:
                    return  # its answer is awaited
            self._reply()
        except OSError as error:
            self._stop(error.errno or errno.EIO)

    def _wait(self) -> None:
        if self._flags & socket.MSG_DONTWAIT or not self._trap.waits(self._call):
            self._stop(errno.EAGAIN)
            return
        if self._call.deadline is None:
            self._trap.limit(self._call, socket.SO_SNDTIMEO)
            self._call.late = lambda: self._stop(errno.EAGAIN)
        self._calls.pair(self._call).senders.append(self.go_on)

    def _send(self, pair: DatagramPair) -> bool:
        if self._flags & socket.MSG_OOB:
            raise _refuse(errno.EOPNOTSUPP)
        code = self._calls.take_error(self._call)
        if code:
            raise _refuse(code)
        if pair.shut & 2:
            raise _refuse(errno.EPIPE)
        name, payload, control = self._fetch(self._done)
        self._size = len(payload)
        if pair.pending is not None or pair.corks or self._flags & socket.MSG_MORE:
            self._trap.calls.datagrams.catch_up(pair)
        begun, pair.pending = pair.pending, None
        if begun is not None:
            where, asked, payload = begun.where, begun.asked, begun.payload + payload
        else:
            where, asked = self._destination(pair, name), wish(control)
        if len(payload) > longest(pair):
            raise _refuse(errno.EMSGSIZE)
        if pair.kind[2] != socket.IPPROTO_ICMP and (pair.corks or self._flags & socket.MSG_MORE):
            if not where[0] and pair.peer is None:
                raise _refuse(errno.EDESTADDRREQ)
            pair.pending = Pending(where, asked, payload)
            self._sent()
            return True
        if (number := raw.identifier(pair, payload)) is not None:
            self._call.finish = self._named
            self._trap.ask(self._call, "bind", address=bytes(4), port=number)
            return False
        if where in pair.known and not asked.asks and len(payload) <= MAX_PAYLOAD - MAX_OPTIONS:
            self._trap.calls.datagrams.post(pair, *where, asked.tos, asked.ttl, payload)
            self._sent()
            return True
        self._asked = where
        self._call.finish = self._answered
        self._trap.ask(self._call, "sendto", address=where[0], port=where[1], payload=payload, **asked._asdict())
        return False

    def _destination(self, pair: DatagramPair, name: bytes) -> tuple[bytes, int]:
        if not name:
            return b"", 0
        where = parse_sockaddr(name, unspecified=True, any_address=True)
        return self._trap.instead(where, pair)

    def _answered(self, call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
        if answer.errno:
            return call.plain(answer) if not self._done else call.reply(self._done)
        pair = self._calls.pair(call)
        if len(pair.known) >= KNOWN:
            pair.known.clear()
        assert self._asked is not None
        pair.known.add(self._asked)
        if self._count == 1 and self._tell is None:
            return call.reply(self._size)
        self._sent()
        self.go_on()
        return True

    def _named(self, call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
        """A raw socket has got its identifier."""
        if answer.errno:
            return call.plain(answer)
        self.go_on()
        return True

    def _sent(self) -> None:
        if self._tell is not None:
            self._tell(self._done, self._size)
        self._done += 1

    def _reply(self) -> None:
        self._call.settle(self._size if self._tell is None else self._done)

    def _stop(self, code: int) -> None:
        """No further: what was sent is told, else why nothing was."""
        if self._done:
            self._reply()
        else:
            self._call.settle(code=code)


def longest(pair: DatagramPair) -> int:
    """Bytes that one sending call may have."""
    return MAX_ECHO if pair.kind[2] == socket.IPPROTO_ICMP else MAX_PAYLOAD


class Receiver:
    """One receiving call: up to `count` datagrams. While it waits it stands among its socket's waiters."""

    def __init__(
        self, trap: Trap, calls: DatagramCalls, call: Trapped, deliver: Deliver, *, flags: int, count: int = 1,
        limit: float | None = None,
    ) -> None:  # fmt: skip
        self._trap = trap
        self._calls = calls
        self._call = call
        self._deliver = deliver
        self._peek = bool(flags & socket.MSG_PEEK)
        self._flags = flags
        self._count = count
        self._limit = limit  # recvmmsg's: looked at after each datagram (Linux)
        self._done = 0
        self._result = 0
        self._waiting = False

    def go_on(self) -> None:
        """Take what there is; wait where that is not enough."""
        call = self._call
        if call.over or (self._waiting and not call.valid()):
            self._leave()  # a signal has taken the thread away; it may come back
            self._waiting = False
            return
        call.resume = self.go_on
        if self._flags & MSG_ERRQUEUE:
            call.finish = self._queued
            self._trap.ask(call, "errqueue")
            return
        try:
            while self._done < self._count:
                if not self._done and (code := self._calls.take_error(call)):
                    self._stop(code)
                    return
                if not self._take():
                    break
                if self._limit is not None and time.monotonic() >= self._limit:
                    self._finish()
                    return
            else:
                self._finish()
                return
            if self._done and self._flags & MSG_WAITFORONE:
                self._finish()
            elif self._flags & socket.MSG_DONTWAIT or not self._trap.waits(call):
                self._stop(errno.EAGAIN)
            elif self._calls.ended(call):
                self._result = self._deliver(0, bytes(UP.size), b"")
                self._finish()
            else:
                self._wait()
        except OSError as error:
            self._stop(error.errno or errno.EIO)

    def _queued(self, call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
        """The oldest error of the queue, or EAGAIN: it is never waited for."""
        if answer.errno:
            return call.plain(answer)
        result = self._deliver(0, describe(answer.data), answer.data["payload"])
        self._calls.show_errors(call)
        return call.reply(result)

    def _wait(self) -> None:
        if self._waiting:
            return
        self._waiting = True
        self._trap.limit(self._call, socket.SO_RCVTIMEO)
        self._call.late = lambda: self._stop(errno.EAGAIN)
        self._calls.waiters(self._call).append(self.go_on)

    def _leave(self) -> None:
        waiters = self._calls.waiters(self._call)
        if self.go_on in waiters:
            waiters.remove(self.go_on)

    def _take(self) -> bool:
        """One datagram, if there is one."""
        fd = self._trap.borrow(self._call)
        if fd is None:
            raise _refuse(errno.EACCES if self._call.valid() else errno.EINTR)
        shown = self._calls.shown(self._call)  # for the sake of the error queue
        with socket.socket(fileno=fd) as end:
            if shown:
                clear(end)
            try:
                found = take(end, peek=self._peek)
            except BlockingIOError:
                return False
            finally:
                if shown:
                    self._calls.show_errors(self._call)
        header, payload = found if found is not None else (bytes(UP.size), b"")
        self._result = self._deliver(self._done, header, payload)
        self._done += 1
        return True

    def _finish(self) -> None:
        self._leave()
        self._call.settle(self._result)

    def _stop(self, code: int) -> None:
        if self._done:
            self._finish()
        else:
            self._leave()
            self._call.settle(code=code)
