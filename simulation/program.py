"""A program in virtual time: descriptors and system calls over the gateway's RPC, blocking ones too.

Each call is a generator that yields while it has to wait and returns an `Outcome`. What a call means is the gateway's
to decide; here is only what client and helper do beside it: bytes in and out of the rings, and waiting.
"""

from __future__ import annotations

import errno
import select
import struct
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from levelip.rpc.messages import (
    VERSION,
    DatagramError,
    DatagramIn,
    Hello,
    Pending,
    Refused,
    Reply,
    Request,
    SendDatagram,
    TookDatagrams,
)
from levelip.rpc.place import Rings
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send, Urgent
from simulation import datagrams
from simulation.datagrams import Datagrams
from simulation.host import Host

PEER = b"program"
REGION = "0" * 32  # the name of a session's memory file: 32 hex digits
CHUNK = 44 * 1460  # bytes of one Send, as the socket helper cuts them
NONBLOCK = 0o4000
SOL_SOCKET, SO_ERROR, SO_RCVLOWAT, SO_RCVTIMEO, SO_SNDTIMEO = 1, 4, 18, 20, 21
IPPROTO_TCP, TCP_CORK, TCP_INFO = 6, 3, 11
MSG_OOB, MSG_PEEK, MSG_TRUNC, MSG_DONTWAIT, MSG_EOR, MSG_WAITALL, MSG_MORE = 1, 2, 0x20, 0x40, 0x80, 0x100, 0x8000
SUPPORTED_FLAGS = MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_WAITALL | 0x4000  # and MSG_NOSIGNAL
SHUT_RD, SHUT_WR, SHUT_RDWR = 0, 1, 2
SOCK_DGRAM, SOCK_TYPE_MASK = 2, 0xF
SIOCINQ, SIOCOUTQ, SIOCOUTQNSD = 0x541B, 0x5411, 0x894B


@dataclass(slots=True)
class Outcome:
    """What a call returned; `value` -1 has an errno. `data`: what it put into the caller's memory."""

    value: int
    errno: int = 0
    data: Any = None


Call = Generator[None, None, Outcome]


def failed(code: int) -> Outcome:
    """-1 and errno."""
    return Outcome(-1, code)


@dataclass(slots=True)
class Stream:
    """One socket of the gateway, as its client knows it. Offsets count from the first byte after the SYN."""

    sock: int
    rings: Rings | None = None
    limit: int = 0
    sent: int = 0
    buffer: bytearray = field(default_factory=bytearray)  # received and not read
    read_to: int = 0
    eof: bool = False
    reset: bool = False
    listening: bool = False
    pending: int = 0  # connections to accept
    connecting: int = 0  # request of a connect that goes on
    awaited: bool = False  # a call waits for its answer
    failed: bool = False  # it came to nothing
    shut_read: bool = False
    shut_write: bool = False
    lowat: int = 1
    read_timeout: int = 0  # ns; 0: none
    write_timeout: int = 0
    more: bool = False  # MSG_MORE has set TCP_CORK
    full: bool = False  # a write found no room
    wakings: int = 0  # how often something happened that wakes who waits: for epoll's edges
    datagrams: Datagrams | None = None  # of a datagram socket, which has no stream


@dataclass(slots=True)
class Descriptor:
    """An open file."""

    stream: Stream
    nonblocking: bool = False


class Program:
    """The program; its descriptors bear the numbers that the caller gives them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.fds: dict[int, Descriptor] = {}
        self.streams: dict[int, Stream] = {}
        self.current: Stream | None = None  # the socket that was used last
        self._replies: dict[int, Reply] = {}
        self._requests = 0
        self._token = b""
        host.on_message = self._hear
        host.client(PEER, Hello(VERSION, "script"))
        host.client(PEER, Hello(VERSION, "script", self._token, REGION))

    # the gateway's side

    def _hear(self, message: Any) -> None:
        self._wake(message)
        match message:
            case Reply():
                self._replies[message.request] = message
                for stream in self.streams.values():
                    if stream.connecting == message.request:
                        stream.connecting = 0
                        stream.wakings += 1
                        if message.errno:
                            stream.failed = True
                        else:
                            self._connected(stream, message.data)
                        if not stream.awaited:
                            del self._replies[message.request]
                if "limit" in message.data and "sock" in message.data:
                    self._connected(self._stream(message.data["sock"]), message.data)
            case Accepted():
                stream = self._stream(message.sock)
                stream.limit = message.limit
            case Data():
                self._stream(message.sock).buffer += self.host.memory.read(message.payload)
            case Eof():
                self._stream(message.sock).eof = True
            case Reset():
                self._stream(message.sock).reset = True
            case Pending():
                self._stream(message.sock).pending = message.count
            case DatagramIn():
                queue = self._stream(message.sock).datagrams
                assert queue is not None
                queue.waiting.append(message)
            case DatagramError():
                queue = self._stream(message.sock).datagrams
                assert queue is not None
                queue.failed = True
            case Refused():
                raise RuntimeError(f"the gateway refused a message of the program: {message.message}")
            case _:
                self._token = message.token

    def _wake(self, message: Any) -> None:
        """What Linux wakes a socket's waiters for: whatever comes; room only where a write had found none."""
        if isinstance(message, Data | Eof | Reset | Pending | DatagramIn | DatagramError):
            self._stream(message.sock).wakings += 1
        elif isinstance(message, Accepted) and (stream := self._stream(message.sock)).full:
            stream.full = message.limit <= stream.limit
            stream.wakings += not stream.full

    @staticmethod
    def _connected(stream: Stream, data: dict[str, Any]) -> None:
        region, *sizes = data["rings"]
        stream.rings = Rings(region, *sizes)
        stream.limit = max(stream.limit, data["limit"])

    def _stream(self, sock: int) -> Stream:
        return self.streams.setdefault(sock, Stream(sock))

    def _ask(self, op: str, sock: int = 0, **arguments: Any) -> int:
        self._requests += 1
        self.host.client(PEER, Request(self._requests, op, sock, arguments))
        return self._requests

    def _rpc(self, op: str, sock: int = 0, **arguments: Any) -> Generator[None, None, Reply]:
        """A request and its answer, however long that takes."""
        number = self._ask(op, sock, **arguments)
        while number not in self._replies:
            yield
        return self._replies.pop(number)

    def deadline(self, timeout: int) -> int:
        """The instant in `timeout` ns, at which the world goes on; 0: never."""
        if not timeout:
            return 0
        at = self.host.now + timeout
        self.host.net.later(at, lambda _frame, _now: None, None)
        return at

    def _use(self, fd: int) -> Stream:
        stream = self.fds[fd].stream
        self.current = stream
        return stream

    # calls that make and name sockets

    def socket(self, family: int, kind: int, proto: int) -> Call:
        """A socket; `data` is its Descriptor, for the caller to give a number."""
        reply = yield from self._rpc("socket", family=family, type=kind, proto=proto)
        if reply.errno:
            return failed(reply.errno)
        stream = self.current = self._stream(reply.data["sock"])
        if kind & SOCK_TYPE_MASK == SOCK_DGRAM:
            stream.datagrams = Datagrams()
        return Outcome(0, data=Descriptor(stream, bool(kind & NONBLOCK)))

    def bind(self, fd: int, address: bytes, port: int) -> Call:
        """bind."""
        reply = yield from self._rpc("bind", self._use(fd).sock, address=address, port=port)
        return failed(reply.errno) if reply.errno else Outcome(0)

    def listen(self, fd: int, backlog: int) -> Call:
        """listen."""
        stream = self._use(fd)
        reply = yield from self._rpc("listen", stream.sock, backlog=backlog)
        if reply.errno:
            return failed(reply.errno)
        stream.listening = True
        return Outcome(0)

    def accept(self, fd: int, flags: int = 0) -> Call:
        """A Descriptor and the peer's address and port."""
        stream = self._use(fd)
        while True:
            reply = yield from self._rpc("accept", stream.sock)
            if reply.errno != errno.EAGAIN or self.fds[fd].nonblocking:
                break
            yield
        if reply.errno:
            return failed(reply.errno)
        child = self._stream(reply.data["sock"])
        self.current = child
        peer = (reply.data["remote_address"], reply.data["remote_port"])
        return Outcome(0, data=(Descriptor(child, bool(flags & NONBLOCK)), peer))

    def connect(self, fd: int, address: bytes, port: int) -> Call:
        """connect; EINPROGRESS where it would wait and may not."""
        stream = self._use(fd)
        nonblocking = self.fds[fd].nonblocking
        number = self._ask("connect", stream.sock, address=address, port=port, nonblocking=nonblocking)
        if number not in self._replies:
            stream.connecting, stream.awaited, stream.failed = number, not nonblocking, False
            if nonblocking:
                return failed(errno.EINPROGRESS)
            while number not in self._replies:
                yield
        reply = self._replies.pop(number)
        if reply.errno:
            return failed(reply.errno)
        if "rings" in reply.data:
            self._connected(stream, reply.data)
        return Outcome(0)

    def name(self, fd: int, *, peer: bool) -> Call:
        """getsockname, getpeername: (address, port)."""
        reply = yield from self._rpc("getpeername" if peer else "getsockname", self._use(fd).sock)
        return failed(reply.errno) if reply.errno else Outcome(0, data=(reply.data["address"], reply.data["port"]))

    # options

    def setsockopt(self, fd: int, level: int, option: int, value: int | bytes) -> Call:
        """setsockopt."""
        stream = self._use(fd)
        reply = yield from self._rpc("setsockopt", stream.sock, level=level, option=option, value=value)
        if reply.errno:
            return failed(reply.errno)
        if level == SOL_SOCKET and option == SO_RCVLOWAT and isinstance(value, int):
            stream.lowat = max(value, 1)
        elif level == SOL_SOCKET and option in (SO_RCVTIMEO, SO_SNDTIMEO) and isinstance(value, bytes):
            seconds, micro = struct.unpack_from("=qq", value)
            timeout = seconds * 1_000_000_000 + micro * 1000
            if option == SO_RCVTIMEO:
                stream.read_timeout = timeout
            else:
                stream.write_timeout = timeout
        return Outcome(0)

    def getsockopt(self, fd: int, level: int, option: int) -> Call:
        """getsockopt: bytes as Linux has them."""
        reply = yield from self._rpc("getsockopt", self._use(fd).sock, level=level, option=option)
        return failed(reply.errno) if reply.errno else Outcome(0, data=reply.data["value"])

    def tcp_info(self, stream: Stream) -> bytes:
        """TCP_INFO of a socket, now."""
        number = self._ask("getsockopt", stream.sock, level=IPPROTO_TCP, option=TCP_INFO)
        reply = self._replies.pop(number)
        if reply.errno:
            raise OSError(reply.errno, reply.message)
        value: bytes = reply.data["value"]
        return value

    def ioctl(self, fd: int, request: int) -> Call:
        """SIOCINQ, SIOCOUTQ, SIOCOUTQNSD: a number of bytes."""
        stream = self._use(fd)
        yield from ()
        if stream.listening:
            return failed(errno.EINVAL)
        if request == SIOCINQ:
            return Outcome(0, data=len(stream.buffer))
        rows = self.host.tcp.control(0, "ss", {}, self.host.now)["sockets"]
        row = next((row for row in rows if row["sock"] == stream.sock), None)
        if row is None:
            return Outcome(0, data=0)
        unsent = row["info"].get("notsent_bytes", 0)
        return Outcome(0, data=unsent if request == SIOCOUTQNSD else row["send_q"])

    # bytes

    def _error(self, stream: Stream) -> int:
        """SO_ERROR, which is told once."""
        number = self._ask("getsockopt", stream.sock, level=SOL_SOCKET, option=SO_ERROR)
        reply = self._replies.pop(number)
        return 0 if reply.errno else int.from_bytes(reply.data["value"][:4], "little", signed=True)

    def send(self, fd: int, data: bytes, flags: int = 0, to: tuple[bytes, int] = (b"", 0)) -> Call:
        """send, write: all of it, unless it may not wait; of a datagram socket one datagram, to a place if one is
        named. MSG_MORE is TCP_CORK until a call without it, as it is in the client (docs/socket-compat.md)."""
        stream = self._use(fd)
        if stream.datagrams is not None:
            return (yield from self._send_datagram(stream, stream.datagrams, data, flags, to))
        if flags & MSG_MORE and not stream.more:
            corked = yield from self.getsockopt(fd, IPPROTO_TCP, TCP_CORK)
            if not any(corked.data or b""):
                yield from self.setsockopt(fd, IPPROTO_TCP, TCP_CORK, 1)
                stream.more = True
        outcome = yield from self._send(fd, stream, data, flags & ~MSG_MORE)
        if stream.more and not flags & MSG_MORE:
            stream.more = False
            yield from self.setsockopt(fd, IPPROTO_TCP, TCP_CORK, 0)
        return outcome

    def _send(self, fd: int, stream: Stream, data: bytes, flags: int) -> Call:
        if flags & ~(SUPPORTED_FLAGS | MSG_EOR | MSG_OOB):
            return failed(errno.EOPNOTSUPP)
        nonblocking = self.fds[fd].nonblocking or bool(flags & MSG_DONTWAIT)
        done = 0
        deadline = self.deadline(stream.write_timeout)
        while True:
            if stream.reset or (stream.rings is None and not stream.connecting):
                code = self._error(stream) or errno.EPIPE
                return Outcome(done) if done else failed(code)
            if stream.shut_write:
                return Outcome(done) if done else failed(errno.EPIPE)
            while stream.rings is not None and done < len(data) and stream.sent < stream.limit:
                size = min(CHUNK, len(data) - done, stream.limit - stream.sent)
                self.host.memory.store(stream.rings.send(stream.sent, size), data[done : done + size])
                offset, stream.sent = stream.sent, stream.sent + size
                done += size
                last = done == len(data)
                if flags & MSG_OOB and last:
                    self.host.client(PEER, Urgent(stream.sock, stream.sent))
                record = bool(flags & MSG_EOR) and last
                self.host.client(PEER, Send(stream.sock, offset, size, b"", record))
            if done == len(data) and stream.rings is not None:
                return Outcome(done)
            stream.full = True
            if nonblocking or (deadline and self.host.now >= deadline):
                return Outcome(done) if done else failed(errno.EAGAIN)
            yield

    def receive(self, fd: int, size: int, flags: int = 0) -> Call:
        """recv, read: what there is, at least one byte unless the stream has ended."""
        stream = self._use(fd)
        if stream.datagrams is not None:
            return (yield from self._receive_datagram(self.fds[fd], stream.datagrams, size, flags))
        if flags & ~SUPPORTED_FLAGS:
            return failed(errno.EINVAL if flags & MSG_OOB else errno.EOPNOTSUPP)
        nonblocking = self.fds[fd].nonblocking or bool(flags & MSG_DONTWAIT)
        taken = bytearray()
        deadline = self.deadline(stream.read_timeout)
        if stream.listening:
            return failed(errno.ENOTCONN)
        while True:
            wanted = size - len(taken)
            while wanted and stream.buffer:
                part = bytes(stream.buffer[:wanted])
                if flags & MSG_PEEK:
                    return Outcome(len(part), data=part)
                self._consume(stream, len(part))
                taken += part
                wanted = size - len(taken)
            enough = size if flags & MSG_WAITALL else min(stream.lowat, size)
            if len(taken) >= enough:
                return Outcome(len(taken), data=bytes(taken))
            if stream.eof or stream.shut_read:
                return Outcome(len(taken), data=bytes(taken))
            if stream.reset:
                code = 0 if taken else self._error(stream)
                return failed(code) if code else Outcome(len(taken), data=bytes(taken))
            if stream.rings is None and not stream.connecting:
                return failed(self._error(stream) or errno.ENOTCONN)
            if nonblocking or (deadline and self.host.now >= deadline):
                return Outcome(len(taken), data=bytes(taken)) if taken else failed(errno.EAGAIN)
            yield

    def _send_datagram(self, stream: Stream, queue: Datagrams, data: bytes, flags: int, to: tuple[bytes, int]) -> Call:
        if flags & ~datagrams.FLAGS:
            return failed(errno.EOPNOTSUPP)
        if code := self._told(stream, queue):
            return failed(code)
        self._requests += 1
        number = self._requests
        self.host.client(PEER, SendDatagram(stream.sock, *to, data, number))
        while number not in self._replies:
            yield
        reply = self._replies.pop(number)
        return failed(reply.errno) if reply.errno else Outcome(len(data))

    def _receive_datagram(self, descriptor: Descriptor, queue: Datagrams, size: int, flags: int) -> Call:
        """One datagram: `data` are its bytes and where it came from."""
        if flags & ~datagrams.FLAGS:
            return failed(errno.EOPNOTSUPP)
        stream = descriptor.stream
        deadline = self.deadline(stream.read_timeout)
        while (found := queue.take(peek=bool(flags & MSG_PEEK))) is None:
            if code := self._told(stream, queue):
                return failed(code)
            nonblocking = descriptor.nonblocking or flags & MSG_DONTWAIT
            if nonblocking or (deadline and self.host.now >= deadline):
                return failed(errno.EAGAIN)
            yield
        if not flags & MSG_PEEK:
            self.host.client(PEER, TookDatagrams(stream.sock, found.upto))
        payload = self.host.memory.read(found.payload)
        length = len(payload) if flags & MSG_TRUNC else min(len(payload), size)
        return Outcome(length, data=(payload[:size], (found.address, found.port)))

    def _told(self, stream: Stream, queue: Datagrams) -> int:
        """What an ICMP error makes of this call; told once."""
        if not queue.failed:
            return 0
        queue.failed = False
        return self._error(stream)

    def _consume(self, stream: Stream, size: int) -> None:
        del stream.buffer[:size]
        stream.read_to += size
        self.host.client(PEER, Consumed(stream.sock, stream.read_to))

    # the end

    def shutdown(self, fd: int, how: int) -> Call:
        """shutdown: for the gateway's errno, and the FIN is the stream's Eof."""
        stream = self._use(fd)
        reply = yield from self._rpc("shutdown", stream.sock, how=how)
        if reply.errno:
            return failed(reply.errno)
        if how in (SHUT_RD, SHUT_RDWR):
            stream.shut_read = True
        if how in (SHUT_WR, SHUT_RDWR) and stream.rings is not None and not stream.shut_write:
            stream.shut_write = True
            self.host.client(PEER, Eof(stream.sock, stream.sent))
        return Outcome(0)

    def close(self, fd: int) -> Call:
        """close; the last descriptor of a socket ends it."""
        stream = self.fds.pop(fd).stream
        if any(other.stream is stream for other in self.fds.values()):
            return Outcome(0)
        reply = yield from self._rpc("close", stream.sock, unread=bool(stream.buffer))
        return failed(reply.errno) if reply.errno else Outcome(0)

    # waiting

    def ready(self, fd: int) -> int:
        """What poll() would say of a descriptor (Linux net/ipv4/tcp.c, tcp_poll)."""
        stream = self.fds[fd].stream
        if stream.listening:
            return select.POLLIN | select.POLLRDNORM if stream.pending else 0
        found = 0
        if stream.datagrams is not None:
            found = select.POLLOUT | select.POLLWRNORM
            found |= select.POLLIN | select.POLLRDNORM if stream.datagrams.waiting else 0
            return found | (select.POLLERR if stream.datagrams.failed else 0)
        readable, writable = select.POLLIN | select.POLLRDNORM, select.POLLOUT | select.POLLWRNORM
        if stream.rings is None and not stream.reset:
            if stream.failed:
                return select.POLLERR | select.POLLHUP | readable | writable | select.POLLRDHUP
            return 0 if stream.connecting else select.POLLOUT | select.POLLWRNORM | select.POLLHUP
        if stream.reset or ((stream.eof or stream.shut_read) and stream.shut_write):
            found |= select.POLLHUP
        if stream.eof or stream.shut_read or stream.reset:
            found |= readable | select.POLLRDHUP
        if len(stream.buffer) >= stream.lowat:
            found |= readable
        if stream.sent < stream.limit or stream.shut_write or stream.reset:
            found |= writable
        if stream.reset:
            found |= select.POLLERR
        return found

    def poll(self, wanted: Sequence[tuple[int, int]], timeout_ms: int) -> Call:
        """poll: `data` is revents of each (fd, events)."""
        yield from ()
        always = select.POLLERR | select.POLLHUP | select.POLLNVAL
        deadline = self.deadline(timeout_ms * 1_000_000) if timeout_ms > 0 else 0
        while True:
            found = []
            for fd, events in wanted:
                known = fd in self.fds
                found.append(self.ready(fd) & (events | always) if known else (select.POLLNVAL if fd >= 0 else 0))
            count = sum(1 for revents in found if revents)
            if count or timeout_ms == 0 or (deadline and self.host.now >= deadline):
                return Outcome(count, data=found)
            yield
