"""Trapped calls on TCP sockets that send with MSG_MORE, or name an address, which is of no use there, and sockets
without a peer; and SIOCOUTQ, SIOCOUTQNSD.

TCP ignores the address (Linux tcp_sendmsg_locked), but the program's end is an AF_UNIX one, which refuses it with
EISCONN, and ignores MSG_MORE. So the helper takes the bytes from the program's memory and writes them into that end
itself; after those with MSG_MORE the stream is corked until something else comes. A call that finds the end full is
tried again every few milliseconds: it is too rare to be worth a descriptor that would keep the end open.

What has not been acknowledged, or sent, is what lies in the pair, what the gateway has not been told of, and what tcp
says of the rest (TCP_INFO); some programs wait for zero before they close or exit.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from levelip.client import halfclose
from levelip.client.control import Answer
from levelip.run import target
from levelip.run.messages import NAME, Message
from levelip.run.syscalls import SIOCOUTQ, SIOCOUTQNSD
from levelip.run.trapped import Trapped, refusing
from levelip.run.values import INT

if TYPE_CHECKING:
    from levelip.client.pump import Pair
    from levelip.run.trap import Trap

MSG_FASTOPEN = 0x2000_0000
MORE_MOST = 1 << 14  # bytes that one call writes with MSG_MORE: of more the last segment alone would be held back
PIECE = 1 << 16  # bytes taken from the program at a time
RETRY_S = 0.005  # between two looks at an end that is full
BYTES_ACKED, NOTSENT_BYTES = struct.Struct("=120xQ"), struct.Struct("=144xI")  # in struct tcp_info (linux/tcp.h)
ESTABLISHED, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT = 1, 5, 6, 7, 8  # its first byte (net/tcp_states.h)


def unconnected(pair: Pair) -> bool:
    """Whether it has never had a peer, nor tried to: what receives says ENOTCONN then, where the pair would wait."""
    if pair.listening or pair.single:
        return True
    return pair.bound is not None and not (pair.connected or pair.connecting or pair.dead or pair.failed or pair.error)


def is_outq(call: Trapped) -> bool:
    """Whether it is ioctl(2) with SIOCOUTQ or SIOCOUTQNSD."""
    return call.name == "ioctl" and call.args[1] & 0xFFFFFFFF in (SIOCOUTQ, SIOCOUTQNSD)


class StreamCalls:
    """Part of Trap."""

    def __init__(self, trap: Trap) -> None:
        self._trap = trap

    def sendto(self, call: Trapped) -> None:
        """sendto(2) with an address or MSG_MORE."""
        much = not call.args[4] and call.args[2] > MORE_MOST
        if call.pair is None or call.number(3) & MSG_FASTOPEN or much:
            call.pass_on()
            return
        call.read_name(call.args[4], call.number(5))
        Writer(self._trap, call, [(call.args[1], call.args[2])], call.number(3)).go_on()

    def sendmsg(self, call: Trapped) -> None:
        """sendmsg(2): with no address and without MSG_MORE it is the kernel's."""
        if call.pair is None or call.number(2) & MSG_FASTOPEN:
            call.pass_on()
            return
        name, length = NAME.unpack(call.read(call.args[1], NAME.size))  # no more than that, as this call is common
        named = name and length
        if not named and not call.number(2) & socket.MSG_MORE:
            call.pass_on()
            return
        message = Message(call.tid, call.args[1])
        if not named and message.size > MORE_MOST:
            call.pass_on()
            return
        Writer(self._trap, call, message.spans, call.number(2)).go_on()

    def outq(self, call: Trapped) -> None:
        """SIOCOUTQ, SIOCOUTQNSD; a FIN that has not been acknowledged, or sent, counts as one (tcp_ioctl)."""
        pair = call.pair
        if pair is None:
            call.pass_on()
            return
        if pair.listening:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        before = pair.sent

        def finish(call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
            left = 0
            if pair.connected and pair.end is not None:
                left = halfclose.unsent(pair, pair.end)
                if answer.errno:
                    left += pair.sent - pair.accepted
                elif call.args[1] & 0xFFFFFFFF == SIOCOUTQ:
                    left += _unacknowledged(pair, answer.data["value"])
                else:
                    left += pair.sent - before + _unsent(pair, answer.data["value"])
            call.write(call.args[2], INT.pack(left))
            return call.reply()

        call.finish = finish
        if pair.connected:
            self._trap.ask(call, "getsockopt", level=socket.IPPROTO_TCP, option=socket.TCP_INFO)
        else:
            call.answer(Answer(0, 0, {}))


def _unacknowledged(pair: Pair, info: bytes) -> int:
    """Bytes taken from the pair that the peer has not acknowledged, by struct tcp_info; and the FIN behind them."""
    if info[0] == CLOSE:
        return 0
    acked = int(BYTES_ACKED.unpack_from(info)[0])
    return max(pair.sent - acked, 0) + (_ends(pair) and info[0] not in (FIN_WAIT2, TIME_WAIT))


def _unsent(pair: Pair, info: bytes) -> int:
    """Likewise those that tcp has not sent."""
    return int(NOTSENT_BYTES.unpack_from(info)[0]) + (_ends(pair) and info[0] in (ESTABLISHED, CLOSE_WAIT))


def _ends(pair: Pair) -> bool:
    """Whether the program has shut its sending side."""
    return pair.finished or bool(pair.shut & 2)


class Writer:
    """One sending call on a stream; spans are (address, length) in the program's memory."""

    def __init__(self, trap: Trap, call: Trapped, spans: Iterable[tuple[int, int]], flags: int) -> None:
        self._trap = trap
        self._call = call
        self._spans = [span for span in spans if span[1]]
        self._flags = flags
        self._done = 0
        self._until: float | None = None
        call.resume = self.go_on

    def go_on(self) -> None:
        """Write what there is room for; wait with the rest if the program's descriptor does."""
        call = self._call
        if call.over or not call.valid():
            return  # a signal has taken the thread away; the call may come back
        pair = call.pair
        assert pair is not None
        with refusing(call):
            if pair.listening or not (pair.connected or pair.connecting or pair.dead):
                self._stop(errno.EPIPE)
                return
            fd = self._trap.borrow(call)
            if fd is None:
                raise OSError(errno.EACCES, "the program's socket may not be borrowed")
            with socket.socket(fileno=fd) as end:
                code = self._write(end)
            if self._flags & socket.MSG_MORE:
                self._trap.calls.more(pair)
            if not code:
                call.settle(self._done)
            elif code != errno.EAGAIN or self._flags & socket.MSG_DONTWAIT or not self._trap.waits(call):
                self._stop(code)
            else:
                self._wait()

    def _write(self, end: socket.socket) -> int:
        """0 when all is written, else what stands against it."""
        flags = self._flags | socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        while self._spans:
            address, length = self._spans[0]
            try:
                sent = end.send(target.read(self._call.tid, address, min(length, PIECE)), flags)
            except OSError as error:
                return error.errno or errno.EIO
            self._done += sent
            self._spans[0] = (address + sent, length - sent)
            if sent == length:
                del self._spans[0]
        return 0

    def _wait(self) -> None:
        now = time.monotonic()
        if self._until is None:
            limit = self._call.times.get(socket.SO_SNDTIMEO)
            self._until = now + limit if limit is not None else float("inf")
        if now >= self._until:
            self._stop(errno.EAGAIN)
            return
        self._trap.at(self._call, min(now + RETRY_S, self._until), self.go_on)

    def _stop(self, code: int) -> None:
        """No further: what was sent is told, else why nothing was."""
        if self._done:
            self._call.settle(self._done)
            return
        if code == errno.EPIPE and not self._flags & socket.MSG_NOSIGNAL:
            with suppress(OSError):
                os.kill(self._call.tid, signal.SIGPIPE)
        self._call.settle(code=code)
