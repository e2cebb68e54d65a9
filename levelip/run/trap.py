"""The front of an unmodified program (client.loop.Front): takes its trapped socket calls and has Calls carry them out.

    trap.py         all sockets, and those of TCP
    streams.py      sends on these that name an address
    epolls.py       epoll sets that watch one whose connect is tried anew
    datagrams.py    datagram sockets
    netlink.py      sockets that tell of interfaces and routes
    interfaces.py   ioctl(2) for interfaces
    procfiles.py    files that tell of them

The program holds one end of a pair for each of its sockets, which is named by its inode, found through
/proc/THREAD/fd. A call on a descriptor that is none of these is the kernel's. One notification is taken a turn of the
loop, so that a close before it is seen before it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from levelip.client import halfclose
from levelip.client.calls import Calls
from levelip.client.connecting import Caller, widen
from levelip.client.control import Answer, Call
from levelip.client.datagrams import DatagramPair
from levelip.client.ends import borrow_fd
from levelip.client.epolls import watches
from levelip.client.pump import Pair
from levelip.run import epolls, raw, target
from levelip.run.bpf import NETLINK_ROUTE, NETLINK_SOCK_DIAG
from levelip.run.datagrams import SEND_BUFFER, DatagramCalls
from levelip.run.interfaces import IFNAMSIZ, Ioctls
from levelip.run.nameservers import DAEMONS, Nameservers
from levelip.run.netlink import NetlinkCalls
from levelip.run.notify import Listener, Notification
from levelip.run.procfiles import PATHS, ProcFiles, which
from levelip.run.streams import StreamCalls, is_outq, unconnected
from levelip.run.syscalls import machine
from levelip.run.tags import clear, shows
from levelip.run.trapped import Trapped, refusing
from levelip.run.values import MAX_SOCKADDR, dissolves, parse_sockaddr, seconds, sockaddr

AF_UNIX = socket.AF_UNIX.to_bytes(2, "little")
_FLAGS = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
SOCK_MAX = 11  # linux/net.h
_TIMES = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)  # kept by the gateway, but acted on by the program's end
KEPT_CALLS = 4096  # threads whose last call is remembered, before those of dead ones are looked for
RENEWING = 8  # descriptors that `_renew` has open at once, at most, in its thread's table, too, and some to spare
MAX_OPTION = 4096  # bytes of an option's value
_SILENT = (socket.AF_UNSPEC, socket.AF_INET6)  # refused without a word: programs try it and go on with AF_INET


class Watched(Protocol):
    """The program's processes, as their parent sees them."""

    fd: int
    ended: bool

    def event(self) -> None:
        """Something happened to one of them."""


class Trap:
    """Trapped calls come through `listener`; `program` tells when its processes are gone; `nameservers`: whom it asks
    for names, if that was said."""

    def __init__(self, listener: int, program: Watched, nameservers: Sequence[str] = ()) -> None:
        self._listener = Listener(listener)
        self._program = program
        self._hung_up = False
        self.calls: Calls
        self._epoll: select.epoll
        self.nameservers = Nameservers(nameservers)
        self._chosen = bool(nameservers)
        self._datagrams = DatagramCalls(self)
        self._netlink = NetlinkCalls(self)
        self._ioctls = Ioctls(self)
        self._threads: dict[int, Trapped] = {}  # the last call of each, while it may still be of use
        self._limited: list[Trapped] = []  # calls with a deadline
        self._said: set[str] = set()
        table: dict[str, Callable[[Trapped], None]] = {
            "socket": self._socket,
            "bind": self._bind,
            "listen": self._listen,
            "accept": self._accept,
            "accept4": self._accept,
            "connect": self._connect,
            "getsockname": self._name,
            "getpeername": self._name,
            "setsockopt": self.setsockopt,
            "getsockopt": self.getsockopt,
            "shutdown": self._shutdown,
        }
        streams = StreamCalls(self)
        table |= {"sendto": streams.sendto, "sendmsg": streams.sendmsg}
        let_through = ("sendmmsg", "recvfrom", "recvmsg", "recvmmsg")
        table["ioctl"] = lambda call: (streams.outq if is_outq(call) else self._ioctls.ioctl)(call)
        table |= dict.fromkeys(PATHS, ProcFiles(self).open)
        table.update({name: lambda call: call.pass_on() for name in let_through})
        self._table = {number: (name, table[name]) for name, number in machine().calls.items()}

    # -- the loop's front

    def open(self, calls: Calls, epoll: select.epoll) -> None:
        """Watch for notifications."""
        self.calls = calls
        calls.datagrams.framing = self._datagrams.tags
        calls.singles = True
        if not self._chosen:
            calls.ask("resolver", {}, self._configured)
        self._epoll = epoll
        self._netlink.open(epoll)
        epoll.register(self._listener.fd, select.EPOLLIN)
        epoll.register(self._program.fd, select.EPOLLIN)

    def owns(self, fd: int) -> bool:
        """The listener, or news of the program's processes."""
        return fd in (self._listener.fd, self._program.fd) or fd in self._netlink.by_fd

    def event(self, fd: int, mask: int) -> None:
        """Take one call; the hang-up means that nobody is left who could make one."""
        if fd == self._program.fd:
            self._program.event()
        elif fd in self._netlink.by_fd:
            self._netlink.event(fd, mask)
        elif mask & select.EPOLLIN:
            self._take()
        elif mask & (select.EPOLLHUP | select.EPOLLERR):
            self._hung_up = True
            self._epoll.unregister(fd)

    @property
    def over(self) -> bool:
        """No process of the program is left."""
        return self._hung_up and self._program.ended

    def processes(self) -> Iterable[int]:
        """All that the program has started, and itself."""
        return target.descendants()

    def sweep(self, now: float) -> float | None:
        """Answer what has waited as long as SO_RCVTIMEO or SO_SNDTIMEO allow."""
        if not self._limited:
            return None
        late = [call for call in self._limited if call.deadline is not None and call.deadline <= now and not call.over]
        self._limited = [call for call in self._limited if not call.over and call not in late]
        for call in late:
            if call.late is not None:
                call.late()
                continue
            assert call.pair is not None
            if call.name == "connect":
                if self.calls.connecting.give_up(call, 0, call.pair):
                    call.fail(errno.EINPROGRESS)
            else:
                self._stop_waiting(call)
                call.fail(errno.EAGAIN)
        return min((call.deadline for call in self._limited if call.deadline is not None), default=None)

    def close(self) -> None:
        """Give descriptors back."""
        os.close(self._listener.fd)
        self._datagrams.tags.close()
        self._netlink.close()

    def say(self, key: str, text: str) -> None:
        """Tell on standard error why something fails, once."""
        if key in self._said:
            return
        self._said.add(key)
        poll = select.poll()
        poll.register(2, select.POLLOUT)
        with contextlib.suppress(OSError):
            if poll.poll(0):
                os.write(2, f"lvlip run: {text}\n".encode(errors="backslashreplace"))  # a file's name is any bytes

    # -- notifications

    def _take(self) -> None:
        note = self._listener.receive()
        if note is None:
            return
        name, action = self._table[note.number]
        inode, pair, datagrams, netlink = 0, None, None, None
        if name in PATHS:
            if not which(note.tid, name, note.args):
                self._listener.let_through(note.id)
                return
        elif name != "socket":
            try:
                inode = target.socket_inode(note.tid, note.args[0] & 0xFFFFFFFF)
            except PermissionError:
                self.say("hidden", f"process {note.tid} may not be looked into: its sockets cannot be carried")
                self._listener.answer(note.id, 0, errno.EACCES)
                return
            except OSError:
                inode = 0  # not open: the kernel says so
            pair = self.calls.pairs.get(inode)
            datagrams = self.calls.datagrams.pairs.get(inode) if pair is None else None
            netlink = self._netlink.sockets.get(inode) if pair is None and datagrams is None else None
            sock = pair or datagrams or netlink
            if sock is not None:
                sock.seen = (note.tid, note.args[0] & 0xFFFFFFFF)
            elif name == "connect" and inode and self._asks_a_daemon(note):
                self._listener.answer(note.id, 0, errno.ECONNREFUSED)
                return
            elif name != "ioctl" or not inode:
                self._listener.let_through(note.id)
                return
            if name == "recvfrom" and not note.args[4]:
                if pair is not None and unconnected(pair):
                    self._listener.answer(note.id, 0, errno.ENOTCONN)
                else:
                    self._listener.let_through(note.id)
                return
            if datagrams is not None:
                action = self._datagrams.table.get(name, action)
            elif netlink is not None:
                action = self._netlink.table.get(name, action)
        call = Trapped(self._listener, note, name, inode, pair, datagrams, netlink)
        if len(self._threads) >= KEPT_CALLS:
            self._threads = {tid: kept for tid, kept in self._threads.items() if not kept.over and kept.valid()}
        last = self._threads.pop(note.tid, None)
        if last is not None and last.same(call) and not last.over and last.blocks in (None, self.waits(call)):
            last.id = note.id
            self._threads[note.tid] = last
            if last.kept is not None:
                kept, last.kept = last.kept, None
                last.answer(kept)
            elif last.resume is not None:
                last.resume()
            return
        if last is not None:
            last.over = True  # the thread has gone on without it
        self._threads[note.tid] = call
        with refusing(call):
            action(call)
        if call.over:
            self._forget(call)

    @staticmethod
    def _asks_a_daemon(note: Notification) -> bool:
        """Whether a connect is one to a daemon that would look names up over the host's network."""
        try:
            data = target.read(note.tid, note.args[1], min(note.args[2] & 0xFFFFFFFF, MAX_SOCKADDR))
        except OSError:
            return False  # the kernel says so
        return data[:2] == AF_UNIX and data[2:].split(b"\0")[0] in DAEMONS

    def _forget(self, call: Trapped) -> None:
        if self._threads.get(call.tid) is call:
            del self._threads[call.tid]

    def ask(self, call: Trapped, op: str, **args: object) -> None:
        """Have Calls carry it out; the answer comes to `call`."""
        self.calls.call(call, Call(0, op, call.inode, args), [])

    # -- calls

    def _socket(self, call: Trapped) -> None:
        family, kind, proto = (call.number(index) for index in range(3))
        flags, kind = kind & _FLAGS, kind & ~_FLAGS
        if (family, proto) == (socket.AF_NETLINK, NETLINK_ROUTE):
            self._netlink.socket(call, kind, flags)
            return
        if (family, proto) == (socket.AF_NETLINK, NETLINK_SOCK_DIAG):
            self.say("sock_diag", "the kernel would tell of the host's sockets: EPROTONOSUPPORT; see lvlip ss")
            call.fail(errno.EPROTONOSUPPORT)
            return
        if family != socket.AF_INET:
            if family not in _SILENT:
                self.say(f"family {family}", f"sockets of family {family} are not carried by the stack: EAFNOSUPPORT")
            call.fail(errno.EAFNOSUPPORT)
            return
        is_raw = kind == socket.SOCK_RAW
        if is_raw and not raw.is_carried(call, proto):
            if proto != socket.IPPROTO_ICMP:
                self.say("raw", "raw sockets are not carried by the stack, but for ICMP echo: EPERM")
            call.fail(errno.EPERM)  # as of a user who may not: some programs go on with a datagram socket
            return
        if is_raw:
            kind = socket.SOCK_DGRAM
        elif kind == socket.SOCK_DGRAM and any(map(raw.only_listens, self.calls.datagrams.pairs.values())):
            self.say("raw ICMP", "a raw ICMP socket gets the replies to its own echo requests, and no ICMP errors")
        if kind not in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            call.fail(errno.ESOCKTNOSUPPORT if 0 <= kind < SOCK_MAX else errno.EINVAL)
            return

        def finish(call: Trapped, answer: Answer, fds: tuple[int, ...]) -> bool:
            if answer.errno:
                if answer.errno == errno.ENETDOWN:
                    self.say("down", answer.message)
                return call.plain(answer)
            os.set_blocking(fds[0], not flags & socket.SOCK_NONBLOCK)
            if kind == socket.SOCK_DGRAM:
                with socket.socket(fileno=os.dup(fds[0])) as theirs:
                    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                    if is_raw:
                        self.calls.datagrams.pairs[os.fstat(fds[0]).st_ino].dress = raw.with_header
            return call.give(fds[0], cloexec=bool(flags & socket.SOCK_CLOEXEC))

        call.finish = finish
        self.ask(call, "socket", family=family, type=kind, proto=proto)

    def address(self, call: Trapped, *, unspecified: bool = False, dissolve: bool = False) -> tuple[bytes, int]:
        """The socket address that is the call's second argument; OSError if it is none. `dissolve`: AF_UNSPEC may stand
        for no peer, which is told as no address."""
        length = call.number(2)
        if not 0 <= length <= MAX_SOCKADDR:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        data = call.read(call.args[1], length)
        if dissolve and dissolves(data):
            return b"", 0
        return parse_sockaddr(data, unspecified=unspecified)

    def _configured(self, code: int, data: dict[str, Any], _: str) -> None:
        """The stack's configuration of name resolution; a gateway that knows of none has an errno."""
        servers = data.get("servers", []) if not code else []
        self.nameservers.configure([text for text in servers if isinstance(text, str)])

    def instead(self, where: tuple[bytes, int], sock: Pair | DatagramPair) -> tuple[bytes, int]:
        """Where to connect or send to: another one for the host's name servers, which the socket remembers. OSError
        (ECONNREFUSED) where nobody is known to ask instead."""
        if self.nameservers.lost(where):
            resolver = socket.inet_ntoa(where[0])
            self.say("names", f"the resolver at {resolver} is not on the stack; which one is? --nameserver ADDRESS")
            raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        found = self.nameservers.instead(where)
        if isinstance(sock, Pair):
            sock.alias = where if found != where else None
        elif found != where:
            if not sock.aliases:
                sock.waiters.append(self.nameservers.answered)
            sock.aliases[found] = where
        return found

    def _attach(self, call: Trapped) -> None:
        """Before a socket does anything that is seen from outside: its close must be seen at once, too."""
        pair = call.pair
        if pair is None or not pair.single:
            return
        fd = self.borrow(call)
        if fd is None:
            raise OSError(errno.EACCES, "the program's socket may not be borrowed")
        with socket.socket(fileno=fd) as theirs:
            self.calls.connecting.attach(pair, theirs)
            if call.name == "connect":
                self.calls.connecting.stuff(pair, theirs)  # what connects is not writable

    def _bind(self, call: Trapped) -> None:
        address, port = self.address(call, unspecified=True)
        self._attach(call)
        self.ask(call, "bind", address=address, port=port)

    def _listen(self, call: Trapped) -> None:
        backlog = call.number(1)
        self._attach(call)
        pair = call.pair
        assert pair is not None

        def finish(call: Trapped, answer: Answer, fds: tuple[int, ...]) -> bool:
            if answer.data.get("renew"):
                return self._renew(call, fds[0], self._listen)
            if not answer.errno and not pair.junk:
                self.calls.connecting.fill(pair)  # a listener is never writable
            return call.plain(answer)

        call.finish = finish
        self.ask(call, "listen", backlog=backlog if backlog >= 0 else 0x7FFF_FFFF)

    def _name(self, call: Trapped) -> None:
        def finish(call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
            if not answer.errno:
                where = answer.data["address"], answer.data["port"]
                if call.name == "getpeername" and call.pair is not None:
                    where = call.pair.alias or where
                elif call.name == "getpeername" and call.datagrams is not None:
                    where = call.datagrams.aliases.get(where, where)
                call.write_sized(call.args[1], call.args[2], sockaddr(*where))
            return call.plain(answer)

        call.finish = finish
        self.ask(call, call.name)

    def setsockopt(self, call: Trapped) -> None:
        """Of both kinds of sockets, as getsockopt."""
        level, option, length = call.number(1), call.number(2), call.number(4)
        if not 0 <= length <= MAX_OPTION:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        value = call.read(call.args[3], length)

        def finish(call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
            if not answer.errno and (level, option) in [(socket.SOL_SOCKET, number) for number in _TIMES]:
                self.set_time(call, option, value)
            if not answer.errno and (level, option) == (socket.SOL_SOCKET, socket.SO_OOBINLINE):
                self._set_own(call, option, value)
            connected = call.pair is not None and call.pair.connected
            if not answer.errno and (level, option) == (socket.SOL_SOCKET, socket.SO_SNDBUF) and connected:
                self.at_end(call, lambda theirs: widen(theirs, value))  # earlier, it is with the connection
            return call.plain(answer)

        call.finish = finish
        self.ask(call, "setsockopt", level=level, option=option, value=value)

    def set_time(self, call: Trapped, option: int, value: bytes) -> None:
        """A time limit: on the program's end for its reads and writes, with us for accept and connect."""
        call.times[option] = seconds(value)
        self._set_own(call, option, value)

    def _set_own(self, call: Trapped, option: int, value: bytes) -> None:
        """An option of SOL_SOCKET that the program's end acts on."""
        self.at_end(call, lambda theirs: theirs.setsockopt(socket.SOL_SOCKET, option, value))

    def getsockopt(self, call: Trapped) -> None:
        """As Linux: as much of the value as there is room for."""
        error = (call.number(1), call.number(2)) == (socket.SOL_SOCKET, socket.SO_ERROR)
        if error and call.pair is not None and call.pair.error and call.pair.shows:
            self._look_whether_told(call, call.pair)

        def finish(call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
            if not answer.errno:
                room = int.from_bytes(call.read(call.args[4], 4), "little", signed=True)
                name = (call.number(1), call.number(2)) == (socket.SOL_SOCKET, socket.SO_BINDTODEVICE)
                if name and answer.data["value"] and room < IFNAMSIZ:
                    return call.reply(code=errno.EINVAL)  # net/core/sock.c sock_getbindtodevice
                call.write_sized(call.args[3], call.args[4], answer.data["value"][: max(room, 0)])
                if error and call.pair is not None and any(answer.data["value"]):
                    self.at_end(call, clear)  # it is told: neither poll() nor a read shows it any more
            return call.plain(answer)

        call.finish = finish
        self.ask(call, "getsockopt", level=call.number(1), option=call.number(2))

    def _look_whether_told(self, call: Trapped, pair: Pair) -> None:
        """A reset is told once: by SO_ERROR no more where a read or write, which are the kernel's, has failed with
        it."""

        def look(theirs: socket.socket) -> None:
            if not shows(theirs):
                pair.error = 0
                self.calls.connecting.clear_error(pair)

        self.at_end(call, look)

    def _shutdown(self, call: Trapped) -> None:
        pair = call.pair
        assert pair is not None

        def finish(call: Trapped, answer: Answer, _: tuple[int, ...]) -> bool:
            if answer.errno:
                return call.plain(answer)
            self._shut_end(call)
            done = call.let_through()  # of the program's end, too
            self._let_waiters_go(pair)
            return done

        call.finish = finish
        self.ask(call, "shutdown", how=call.number(1))

    def _shut_end(self, call: Trapped) -> None:
        """SHUT_WR of a connection: we shut the program's end, so that a later reset shows. The kernel does it again,
        and alone where it does not lend us that end."""
        pair, how = call.pair, call.number(1)
        assert pair is not None
        if how == socket.SHUT_RD or pair.listening or not (pair.connected or pair.dead):
            return
        self.at_end(call, lambda theirs: halfclose.shut(pair, theirs, how))

    # -- calls that may wait

    def borrow(self, call: Trapped) -> int | None:
        """The program's end, for the caller to close; None if the kernel does not lend it."""
        return borrow_fd(call.tid, call.args[0] & 0xFFFFFFFF, call.inode)

    def at_end(self, call: Trapped, do: Callable[[socket.socket], object]) -> None:
        """Do something to the program's end; nothing if the kernel does not lend it."""
        fd = self.borrow(call)
        if fd is not None:
            with socket.socket(fileno=fd) as theirs:
                do(theirs)

    def waits(self, call: Trapped) -> bool:
        """Whether the program's descriptor is a blocking one."""
        return not target.descriptor_flags(call.tid, call.args[0] & 0xFFFFFFFF) & os.O_NONBLOCK

    def limit(self, call: Trapped, option: int) -> None:
        """The socket's SO_RCVTIMEO or SO_SNDTIMEO begins to run for a call."""
        limit = call.times.get(option)
        if limit is not None:
            call.deadline = time.monotonic() + limit
            self._limited.append(call)

    def at(self, call: Trapped, instant: float, then: Callable[[], None]) -> None:
        """Have `then` happen to a call that waits at an instant of the monotonic clock."""
        call.deadline, call.late = instant, then
        self._limited.append(call)

    def _accept(self, call: Trapped) -> None:
        pair = call.pair
        assert pair is not None
        flags = call.number(3) if call.name == "accept4" else 0
        if flags & ~_FLAGS:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if not pair.listening:
            self.ask(call, "accept", token=False)  # the gateway knows which error it is
            return

        def finish(call: Trapped, answer: Answer, fds: tuple[int, ...]) -> bool:
            if answer.errno == errno.EAGAIN:
                self._accept_or_wait(call)  # that connection went away
                return True
            if answer.errno:
                return call.plain(answer)
            if call.args[1]:
                call.write_sized(call.args[1], call.args[2], sockaddr(answer.data["address"], answer.data["port"]))
            os.set_blocking(fds[0], not flags & socket.SOCK_NONBLOCK)
            given = call.give(fds[0], cloexec=bool(flags & socket.SOCK_CLOEXEC))
            self._forget(call)  # interrupted: the connection waits for whoever accepts next
            return given

        call.finish = finish
        self.limit(call, socket.SO_RCVTIMEO)
        self._accept_or_wait(call)

    def _accept_or_wait(self, call: Trapped) -> None:
        """A connection is accepted for a readiness byte in the program's end, and else waited for."""
        pair = call.pair
        assert pair is not None
        fd = self.borrow(call)
        if fd is None:
            if not call.valid():
                self._forget(call)
                return
            raise OSError(errno.EACCES, "the program's socket may not be borrowed")
        with socket.socket(fileno=fd) as end:
            waits = call.blocks = os.get_blocking(fd)
            try:
                token = end.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                token = None
            except OSError:
                token = b""
        if token:
            self.ask(call, "accept", token=True)
        elif token is not None:
            call.fail(errno.EINVAL)  # the listener was shut down
        elif not waits:
            call.fail(errno.EAGAIN)
        else:
            self._stop_waiting(call)
            pair.waiters.append(Waiter(self, call).accept)
            self.calls.serve(pair)

    def accept_now(self, call: Trapped) -> None:
        """A connection waits: it is for this call, if that still waits."""
        if call.over or not call.valid():
            self._forget(call)
        else:
            self.ask(call, "accept", token=False)

    @staticmethod
    def _stop_waiting(call: Trapped) -> None:
        """Take the thread out of the queue of its listener."""
        assert call.pair is not None
        waiters = call.pair.waiters
        for wake in [wake for wake in waiters if wake.__self__.tid == call.tid]:
            waiters.remove(wake)

    def _connect(self, call: Trapped) -> None:
        waits = call.blocks = self.waits(call)
        pair = call.pair
        assert pair is not None
        where = self.address(call, dissolve=True)
        if not where[0]:
            self._dissolve(call)
            return
        address, port = self.instead(where, pair)
        self._attach(call)

        def finish(call: Trapped, answer: Answer, fds: tuple[int, ...]) -> bool:
            if answer.data.get("renew"):
                return self._renew(call, fds[0], self._connect)
            if answer.errno and pair.failed:
                self.at_end(call, clear)
            done = call.plain(answer)
            self._forget(call)  # interrupted: the next connect() is told (Connecting)
            return done

        call.finish = finish
        if waits:
            self.limit(call, socket.SO_SNDTIMEO)
        self.ask(call, "connect", address=address, port=port, nonblocking=not waits, wait=waits, hide=True)

    def _dissolve(self, call: Trapped) -> None:
        """connect() with AF_UNSPEC: a socket without a peer, which does not listen either."""
        pair = call.pair
        assert pair is not None

        def finish(call: Trapped, answer: Answer, fds: tuple[int, ...]) -> bool:
            if not answer.errno:
                self._let_waiters_go(pair)
            if answer.data.get("renew"):
                return self._renew(call, fds[0], Trapped.settle, connects=False)
            return call.plain(answer)

        call.finish = finish
        self.ask(call, "connect", address=b"", port=0, single=True)

    @staticmethod
    def _let_waiters_go(listener: Pair) -> None:
        """Who waits in accept() is told that nothing comes any more."""
        waiters = list(listener.waiters)
        listener.waiters.clear()
        for wake in waiters:
            wake.__self__.fail(errno.EINVAL)

    def _renew(self, call: Trapped, fd: int, again: Callable[[Trapped], None], *, connects: bool = True) -> bool:
        """Another attempt after a failed connect: a new pair in the descriptor's place, also where epoll sets watch it,
        and the same call again. Without the descriptors that this takes nothing is begun: the program keeps its old
        end, and the call fails. `connects`: or it listens, and so is not writable."""
        try:
            _make_sure_of(RENEWING)
        except OSError as error:
            call.fail(error.errno or errno.EMFILE)
            return False
        number = call.args[0] & 0xFFFFFFFF
        flags = target.descriptor_flags(call.tid, number)
        os.set_blocking(fd, not flags & os.O_NONBLOCK)
        assert call.pair is not None
        if connects:
            with socket.socket(fileno=os.dup(fd)) as theirs:
                self.calls.connecting.stuff(call.pair, theirs)  # before anybody sees it
        entries = watches(call.tid, number, call.inode)
        old = self.borrow(call)
        try:
            if not call.replace(fd, number, cloexec=bool(flags & os.O_CLOEXEC)):
                return False
            if old is not None:
                epolls.move(call.tid, number, entries, old, fd)
        finally:
            if old is not None:
                os.close(old)
        call.inode = os.fstat(fd).st_ino
        again(call)
        return True


def _make_sure_of(count: int) -> None:
    """OSError unless so many descriptors can be opened."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(os.eventfd(0, os.EFD_CLOEXEC))
    finally:
        for fd in opened:
            os.close(fd)


class Waiter:
    """A thread in the queue of a listener."""

    def __init__(self, trap: Trap, call: Trapped) -> None:
        self._trap = trap
        self._call = call
        self.tid = call.tid

    def accept(self) -> None:
        """A connection waits."""
        self._trap.accept_now(self._call)

    def fail(self, code: int) -> None:
        """The listener is shut down."""
        self._call.fail(code)


_: type[Caller] = Trapped  # the protocol that Calls answers to
