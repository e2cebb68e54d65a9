"""The socket class that applications use (socket.py re-exports it).

A socket is one end of an AF_UNIX pair whose other end the socket helper pumps, so the descriptor works in select,
poll, epoll, asyncio, makefile, fork, dup and sendfile; bytes go straight to the descriptor, without a call. Calls
that name addresses or options go to the helper and on to the gateway, whose errno they raise.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import socket as std
import struct
import sys
from collections.abc import Iterable
from typing import Any

from levelip.client import ancillary, kernel, kinds
from levelip.client.arguments import (
    address_of,
    ancillary_items,
    c_int,
    check_room,
    complain,
    host_and_port,
    option_value,
    os_error,
    sendto_arguments,
    view_of,
    within,
)
from levelip.client.control import SOCKET_BUFFER
from levelip.client.epolls import EPOLL_CTL_ADD, EPOLL_CTL_DEL, control, watches
from levelip.client.program import HelperLost, Program

_FLAGS = std.SOCK_NONBLOCK | std.SOCK_CLOEXEC
_DEFAULT_BACKLOG = 128  # as the standard library's listen(): min(SOMAXCONN, 128)
_NATIVE_OPTIONS = frozenset({std.SO_RCVTIMEO, std.SO_SNDTIMEO})  # of the descriptor itself
_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
_IFNAMSIZ = 16  # linux/if.h
_TIMEVAL = struct.Struct("@ll")
MSG_FASTOPEN = 0x2000_0000
_TOLD_AGAIN = std.MSG_OOB | std.MSG_CMSG_CLOEXEC  # flags of recvmsg() that are in its msg_flags, too


class socket(kernel.socket):  # noqa: N801 - its name in the standard library
    """A TCP socket of the stack. Made for another kind, it is of a class derived from this one (kinds.py), or, where
    the program derived a class of its own, of one derived from both."""

    __slots__ = (
        "_begun", "_connected", "_ended", "_family", "_fresh", "_kind", "_known", "_lingers", "_listening", "_more",
        "_pending", "_program", "_proto", "_state", "_told", "_trying", "_uncut",
    )  # fmt: skip
    __module__ = "levelip.client.socket"
    _made_of: type[socket]  # of a class that kinds.py made: the one that the program knows
    _program: Program
    _state: dict[str, Any]  # of the descriptor that it was made for

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._program, self._state = kinds.settle(self, family, type, fileno)
        self._make(family, type, proto, fileno)

    def _make(self, family: int, type: int, proto: int, fileno: int | None) -> None:
        """Begin, once the class is settled."""
        self._begin()
        if fileno is not None:
            state = self._state
            self._family, self._kind, self._proto = state["kind"]
            if not self._proto and proto == -1:  # the standard library asks for SO_PROTOCOL then
                self._proto = std.IPPROTO_TCP if self._kind & 0xF == std.SOCK_STREAM else std.IPPROTO_UDP
            self._listening = state["listening"]
            self._fresh = state["fresh"] or state["listening"]
            super().__init__(std.AF_UNIX, self._pair_kind(), 0, fileno)
            return
        self._family = int(std.AF_INET) if family == -1 else c_int(family)
        kind = int(std.SOCK_STREAM) if type == -1 else c_int(type)
        self._kind = kind & ~_FLAGS
        self._proto = 0 if proto == -1 else c_int(proto)
        sys.audit("socket.__new__", self, self._family, kind, self._proto)
        fd = self._program.new_socket(self._family, self._kind, self._proto)
        super().__init__(std.AF_UNIX, self._pair_kind(), 0, fd)
        if kind & std.SOCK_NONBLOCK:
            self.setblocking(False)

    def _begin(self) -> None:
        self._ended = False  # the peer's FIN was seen, no error is to be asked for
        self._listening = False
        self._lingers = False  # SO_LINGER is on: close() may have to wait
        self._trying = False  # a connect that nobody waits for
        self._fresh = True  # this object knows of no connection: bytes cannot be meant
        self._more = False  # MSG_MORE has set TCP_CORK

    def _adopt(self, fd: int, kind: type[socket]) -> socket:
        """A socket for a descriptor that a call on this one brought, without asking what it is."""
        new: socket = kernel.socket.__new__(kind)
        new._begin()
        new._program = self._program
        new._fresh = False
        new._family, new._kind, new._proto = self._family, self._kind, self._proto
        new._lingers = self._lingers
        kernel.socket.__init__(new, std.AF_UNIX, new._pair_kind(), 0, fd)
        return new

    def _pair_kind(self) -> int:
        """What the descriptor is: a pair that keeps the borders of datagrams, or one that does not."""
        return std.SOCK_SEQPACKET if self._kind & 0xF == std.SOCK_DGRAM else std.SOCK_STREAM

    # -- what it is

    @property
    def family(self) -> std.AddressFamily:
        """AF_INET, though the descriptor is an AF_UNIX one."""
        return std.AddressFamily(self._family)

    @property
    def type(self) -> std.SocketKind:
        """SOCK_STREAM or SOCK_DGRAM."""
        return std.SocketKind(self._kind)

    @property
    def proto(self) -> int:
        """As given."""
        return int(self._proto)

    def dup(self) -> Any:
        """A duplicate of the same socket, not inheritable."""
        if self.fileno() < 0:
            raise os_error(errno.EBADF)
        fd = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)
        new = self._adopt(fd, type(self))
        self._duplicated(new)
        new.settimeout(self.gettimeout())
        return new

    def _duplicated(self, new: socket) -> None:
        """What a duplicate knows."""
        new._listening, new._fresh, new._trying, new._ended = (
            self._listening,
            self._fresh,
            self._trying,
            self._ended,
        )

    # -- calls

    def _call(self, op: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return self._program.call(op, os.fstat(self.fileno()).st_ino, args, **more)[0]

    def bind(self, address: Any) -> None:
        """Take a local (host, port); host "" is any address, port 0 any port."""
        host, port = address_of(address, "bind")
        sys.audit("socket.bind", self, address)
        self._call("bind", {"address": host, "port": port})

    def listen(self, backlog: int = _DEFAULT_BACKLOG) -> None:
        """Let connections come in."""
        args = {"backlog": max(c_int(backlog), 0)}
        while True:
            inode = os.fstat(self.fileno()).st_ino
            data, fd = self._program.call("listen", inode, args, fds=(self.fileno(),))
            if not data.get("renew"):
                break
            self._replace(fd)
        self._listening = True

    def accept(self) -> tuple[std.socket, Any]:
        """(new socket, (host, port) of the peer). Waits as the socket's timeout says."""
        if not self._listening:
            if not self._call("state")["listening"]:
                raise os_error(errno.EINVAL)
            self._listening = True
        inode = os.fstat(self.fileno()).st_ino
        while True:
            # a byte in the pair for each connection that waits: the kernel blocks, times out and wakes for us
            if not super().recv(1):
                try:
                    code = self._call("error")["errno"]
                except OSError as error:
                    if error.errno != errno.EBADF:
                        raise
                    code = 0  # another thread has dissolved it: this end is nobody's
                raise os_error(code or errno.EINVAL)  # listener shut down, or its stack could not make it again
            try:
                data, fd = self._program.call_for_fd("accept", inode, {})
            except BlockingIOError:
                continue  # that connection went away
            new = self._adopt(fd, socket)
            default = std.getdefaulttimeout()
            if default is None and self.gettimeout():
                new.setblocking(True)  # bpo-7995, as the standard library does
            return new, host_and_port(data)

    def connect(self, address: Any) -> None:
        """Connect to (host, port), within the socket's timeout or SO_SNDTIMEO."""
        self._connect(address)

    def _connect(self, address: Any) -> None:
        host, port = address_of(address, "connect")
        sys.audit("socket.connect", self, address)
        timeout = self.gettimeout()
        patience = timeout or self._send_timeout() or None
        args = {"address": host, "port": port, "nonblocking": timeout is not None, "wait": timeout != 0.0}
        while True:
            fds = (self.fileno(),) if timeout == 0.0 else ()
            inode = os.fstat(self.fileno()).st_ino
            try:
                data, fd = self._program.call("connect", inode, dict(args), fds=fds, timeout=patience)
            except TimeoutError as error:
                if error.errno is None:  # ours, not the stack's ETIMEDOUT: it goes on connecting
                    self._fresh = False
                    self._trying = True
                    self._call("hold", fds=(self.fileno(),))
                    if timeout is None:
                        raise os_error(errno.EINPROGRESS) from None
                raise
            except OSError as error:
                if error.errno in _IN_PROGRESS:
                    self._fresh = False
                    self._trying = True
                else:
                    self._clear_own()
                raise
            if not data.get("renew"):
                break
            self._replace(fd)
        self._fresh = self._trying = False

    def disconnect(self) -> None:
        """As connect(2) with AF_UNSPEC, which the standard library cannot say: it has no peer any more, and does not
        listen; what bind() has chosen stays. A duplicate is at its end."""
        sys.audit("socket.connect", self, None)
        data, fd = self._program.call("connect", os.fstat(self.fileno()).st_ino, {"address": b"", "port": 0})
        if data.get("renew"):
            self._replace(fd)
        self._begin()

    def _clear_own(self) -> None:
        """The error was told: poll() does not show it any more."""
        with contextlib.suppress(OSError):
            super().getsockopt(std.SOL_SOCKET, std.SO_ERROR)

    def _send_timeout(self) -> float:
        """SO_SNDTIMEO in seconds, which bounds connect(), too."""
        value = super().getsockopt(std.SOL_SOCKET, std.SO_SNDTIMEO, _TIMEVAL.size)
        seconds, micros = _TIMEVAL.unpack(value)
        return float(seconds + micros / 1e6)

    def _replace(self, fd: int) -> None:
        """After a failed connect that nobody waited for: put a new pair's end in the place of the old one, also where
        an epoll set of this process watches it."""
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        inheritable = self.get_inheritable()
        with contextlib.ExitStack() as ending:
            ending.callback(os.close, fd)
            with kernel.socket(std.AF_UNIX, std.SOCK_STREAM, 0, os.dup(fd)) as new:
                for option in _NATIVE_OPTIONS:
                    new.setsockopt(std.SOL_SOCKET, option, super().getsockopt(std.SOL_SOCKET, option, _TIMEVAL.size))
            fcntl.fcntl(fd, fcntl.F_SETFL, flags)
            fcntl.fcntl(fd, fcntl.F_SETOWN, fcntl.fcntl(self.fileno(), fcntl.F_GETOWN))
            watched = watches("self", self.fileno(), os.fstat(self.fileno()).st_ino)
            for entry in watched:  # which would go on watching the old one where there is a copy of it
                control(entry.epoll, EPOLL_CTL_DEL, self.fileno(), entry)
            os.dup2(fd, self.fileno(), inheritable)
            for entry in watched:
                control(entry.epoll, EPOLL_CTL_ADD, self.fileno(), entry)

    def connect_ex(self, address: Any) -> int:
        """As connect, but the errno of a failed call is returned (0: connected)."""
        try:
            self._connect(address)  # not what a derived class makes of connect()
        except TimeoutError as error:
            return error.errno or errno.EAGAIN  # as the standard library does when its timeout ran out
        except std.gaierror:
            raise
        except OSError as error:
            if error.errno is None:
                raise
            return error.errno
        return 0

    def shutdown(self, how: int) -> None:
        """End one direction or both (SHUT_RD, SHUT_WR, SHUT_RDWR). Of a listener SHUT_WR means nothing."""
        self._call("shutdown", {"how": c_int(how)})
        if not self._listening:
            super().shutdown(how)
        elif how != std.SHUT_WR:
            super().shutdown(std.SHUT_RD)  # not both: the helper would see the last close

    def getsockname(self) -> Any:
        """Our (host, port)."""
        return host_and_port(self._call("getsockname"))

    def getpeername(self) -> Any:
        """The peer's (host, port)."""
        return host_and_port(self._call("getpeername"))

    def setsockopt(self, level: int, option: int, value: Any, optlen: int | None = None) -> None:
        """Set an option of the stack's socket: an int or bytes."""
        level, option, value = c_int(level), c_int(option), option_value(value, optlen)
        if level == std.SOL_SOCKET and option in _NATIVE_OPTIONS:
            super().setsockopt(level, option, value)
            return
        self._call("setsockopt", {"level": level, "option": option, "value": value})
        if level == std.SOL_SOCKET:
            self._remember(option, value)

    def _remember(self, option: int, value: int | bytes) -> None:
        """What the descriptor has to know of an option of SOL_SOCKET."""
        if option == std.SO_LINGER and isinstance(value, bytes) and len(value) >= 8:
            on, seconds = struct.unpack_from("=ii", value)
            self._lingers = bool(on and seconds)
        if option == std.SO_OOBINLINE:
            super().setsockopt(std.SOL_SOCKET, option, value)
        if option == std.SO_SNDBUF:  # else the pair holds more than the program allows
            number = value if isinstance(value, int) else int.from_bytes(value[:4], "little")
            super().setsockopt(std.SOL_SOCKET, std.SO_SNDBUF, min(max(number, 0), SOCKET_BUFFER))

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> Any:
        """An option's value: an int, or with `buflen` at most that many bytes."""
        if not 0 <= buflen <= 1024:
            raise OSError("getsockopt buflen out of range")
        level, option = c_int(level), c_int(option)
        if level == std.SOL_SOCKET and option in _NATIVE_OPTIONS:
            return super().getsockopt(level, option, buflen) if buflen else super().getsockopt(level, option)
        value: bytes = self._call("getsockopt", {"level": level, "option": option})["value"]
        if level == std.SOL_SOCKET and option == std.SO_ERROR:
            self._trying = False
            self._clear_own()
        if level == std.SOL_SOCKET and option == std.SO_BINDTODEVICE and value and buflen < _IFNAMSIZ:
            raise os_error(errno.EINVAL)  # net/core/sock.c sock_getbindtodevice
        if buflen:
            return value[:buflen]
        return int.from_bytes(value[:4], "little", signed=True)

    # -- bytes: straight to the descriptor; only its end needs a question

    def _end(self, *, reads: bool = True) -> None:
        """The descriptor is at its end: raise what ended the connection, once, unless it was the peer's FIN. `reads`:
        for a call that reads, to which nothing that came after the FIN is told."""
        if self._ended:
            return
        try:
            code = self._call("error", {"reads": reads})["errno"]
        except HelperLost:
            self._ended = True
            raise
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            code = errno.ECONNRESET  # a helper that is not its own: that one died
        self._ended = True
        if code:
            raise os_error(code)

    def _broken(self, error: OSError) -> OSError:
        """What to raise for an EPIPE or ECONNRESET of the descriptor."""
        try:
            self._end(reads=False)
        except OSError as better:
            return better
        return error

    def _never(self, code: int, flags: int = 0) -> None:
        """A call that needs a connection, on a socket that this object never connected. EPIPE comes with SIGPIPE."""
        state = self._call("state")
        if state["fresh"] or state["listening"]:
            if code == errno.EPIPE and not flags & std.MSG_NOSIGNAL:
                signal.raise_signal(signal.SIGPIPE)
            raise os_error(code)
        self._fresh = False

    def _receiving(self, flags: int) -> int:
        """The flags for the pair. Nothing waits for MSG_ERRQUEUE; MSG_TRUNC is the caller's."""
        if flags & std.MSG_ERRQUEUE:
            raise os_error(errno.EAGAIN)
        return flags & ~int(std.MSG_TRUNC)

    def _urgent(self, bufsize: int, flags: int) -> bytes:
        """The peer's urgent byte, which the kernel keeps (levelip/client/urgent.py). EINVAL: there is none, or it is in
        line (SO_OOBINLINE), or was taken; EAGAIN: it was announced and has not come."""
        try:
            return super().recv(bufsize, flags)
        except OSError as error:
            if error.errno != errno.EINVAL or super().getsockopt(std.SOL_SOCKET, std.SO_OOBINLINE):
                raise
        self._call("urgent")
        return b""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """At most `bufsize` bytes; empty at the peer's FIN. MSG_OOB: the urgent byte."""
        if bufsize == 0:
            return b""  # asks nobody, whatever the state (the standard library's)
        if self._fresh:
            complain("recv", bufsize, flags)
            self._never(errno.EINVAL if flags & std.MSG_OOB and not self._listening else errno.ENOTCONN)
        if flags:
            flags = self._receiving(flags)
            if flags & std.MSG_OOB:
                return self._urgent(bufsize, flags)
        try:
            data = super().recv(bufsize, flags)
        except ConnectionError as error:
            data = self._at_reset(error)
        if not data and bufsize:
            self._end()
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As recv, into a buffer; the number of bytes. MSG_TRUNC: they are thrown away (tcp(7))."""
        if self._fresh:
            complain("recv_into", buffer, nbytes, flags)
            if memoryview(buffer).nbytes:
                self._never(errno.ENOTCONN)
        if flags:
            if flags & std.MSG_TRUNC:
                return len(socket.recv(self, nbytes or memoryview(buffer).nbytes, flags))
            flags = self._receiving(flags)
            if flags & std.MSG_OOB:
                return _put(self._urgent(nbytes or memoryview(buffer).nbytes, flags), [buffer])
        try:
            got = super().recv_into(buffer, nbytes, flags)
        except ConnectionError as error:
            self._at_reset(error)
            got = 0
        if not got and (nbytes or memoryview(buffer).nbytes):
            self._end()
        return got

    def _at_reset(self, error: OSError) -> bytes:
        """The descriptor says ECONNRESET: raise what the stack says, or the end of the stream if it was told before,
        by a call or by SO_ERROR."""
        better = self._broken(error)
        if better is not error:
            raise better from None
        return b""

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """As recv, with (empty) ancillary data."""
        if self._fresh:
            complain("recvmsg", bufsize, ancbufsize, flags)
            self._never(errno.ENOTCONN)
        check_room(ancbufsize)
        return socket.recv(self, bufsize, flags), [], int(flags & _TOLD_AGAIN), None

    def recvmsg_into(self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """As recv_into, into several buffers."""
        views = list(buffers)
        if self._fresh:
            complain("recvmsg_into", views, ancbufsize, flags)
            self._never(errno.ENOTCONN)
        check_room(ancbufsize)
        room = sum(memoryview(view).nbytes for view in views)
        if flags:
            if flags & std.MSG_TRUNC:
                return len(socket.recv(self, room, flags)), [], int(flags & _TOLD_AGAIN), None
            flags = self._receiving(flags)
            if flags & std.MSG_OOB:
                return _put(self._urgent(room, flags), views), [], int(flags & _TOLD_AGAIN), None
        try:
            got = super().recvmsg_into(views, 0, flags)[0]
        except ConnectionError as error:
            self._at_reset(error)
            got = 0
        if not got and room:
            self._end()
        return got, [], int(flags & _TOLD_AGAIN), None

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As recv; a stream has no source address to tell. Unlike recv it needs a connection for no bytes, too."""
        if self._fresh:
            complain("recvfrom", bufsize, flags)
            self._never(errno.ENOTCONN)
        return socket.recv(self, bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As recv_into; a stream has no source address to tell."""
        return socket.recv_into(self, buffer, within(buffer, nbytes), flags), None

    def _sending(self, flags: int) -> int:
        """The flags for the pair: MSG_MORE is TCP_CORK until a call without it. MSG_OOB goes along: the last byte is
        urgent."""
        if flags & std.MSG_MORE and not self._more and not socket.getsockopt(self, std.IPPROTO_TCP, std.TCP_CORK):
            socket.setsockopt(self, std.IPPROTO_TCP, std.TCP_CORK, 1)
            self._more = True
        return flags & ~int(std.MSG_MORE)

    def _sent(self) -> None:
        """After a call without MSG_MORE."""
        self._more = False
        socket.setsockopt(self, std.IPPROTO_TCP, std.TCP_CORK, 0)

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Hand over bytes; how many were taken."""
        if self._fresh:
            complain("send", data, flags)
            self._never(errno.EPIPE, flags)
        if flags & std.MSG_OOB and not view_of(data).nbytes:
            flags &= ~std.MSG_OOB  # nothing is urgent
        try:
            sent = super().send(data, self._sending(flags) if flags else 0)
        except ConnectionError as error:
            raise self._broken(error) from None
        if self._more and not flags & std.MSG_MORE:
            self._sent()
        return sent

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Hand over all bytes."""
        if self._fresh:
            complain("sendall", data, flags)
            self._never(errno.EPIPE, flags)
        if flags & std.MSG_OOB and not view_of(data).nbytes:
            flags &= ~std.MSG_OOB
        try:
            super().sendall(data, self._sending(flags) if flags else 0)
        except ConnectionError as error:
            raise self._broken(error) from None
        if self._more and not flags & std.MSG_MORE:
            self._sent()

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """Hand over the bytes of several buffers. A stream carries no ancillary data: it is ignored, but for what is of
        SOL_SOCKET and unknown (EINVAL), as Linux does it."""
        views = list(buffers)
        if self._fresh:
            complain("sendmsg", views, (), flags)
        ancillary.check(ancillary_items(ancdata))
        if address is not None:
            address_of(address, "sendmsg")
        sys.audit("socket.sendmsg", self, address)
        if self._fresh:
            self._never(errno.EPIPE, flags)
        if flags & std.MSG_OOB and not any(memoryview(view).nbytes for view in views):
            flags &= ~std.MSG_OOB
        try:
            sent = super().sendmsg(views, (), self._sending(flags) if flags else 0)
        except ConnectionError as error:
            raise self._broken(error) from None
        if self._more and not flags & std.MSG_MORE:
            self._sent()
        return sent

    def sendto(self, data: Any, *rest: Any) -> int:
        """As send; a connected stream ignores the address. With MSG_FASTOPEN it connects first, without a cookie."""
        flags, address = sendto_arguments(data, rest)
        host_and_port = address_of(address, "sendto")
        sys.audit("socket.sendto", self, address)
        if flags & MSG_FASTOPEN:
            host, port = host_and_port
            self._connect((std.inet_ntoa(host), port))
            flags &= ~MSG_FASTOPEN
        return socket.send(self, data, flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """A file's bytes, by the kernel's sendfile(2) where it is one."""
        if self._fresh:
            self._never(errno.EPIPE)
        try:
            return int(super().sendfile(file, offset, count))
        except ConnectionError as error:
            raise self._broken(error) from None

    # -- the end

    def _real_close(self, *args: Any) -> None:
        fd = self.fileno()
        if fd < 0 or not (self._trying or self._lingers or self._listening):
            super()._real_close(*args)  # type: ignore[misc]
            return
        inode = os.fstat(fd).st_ino
        if self._trying:
            with contextlib.suppress(OSError):
                self._program.call("release", inode)
        super()._real_close(*args)  # type: ignore[misc]
        if self._lingers or self._listening:  # a listener's close is over when close() returns, as on Linux
            with contextlib.suppress(OSError):
                self._program.call("linger", inode)


def _put(data: bytes, buffers: list[Any]) -> int:
    """Put an urgent byte, or none, into the first of the buffers that has room."""
    for buffer in buffers if data else ():
        with memoryview(buffer).cast("B") as view:
            if view.nbytes:
                view[:1] = data
                break
    return len(data)
