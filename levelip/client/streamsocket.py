"""The socket class that applications use, and the module functions that make one (socket.py re-exports them).

A socket is one end of an AF_UNIX pair whose other end the socket helper pumps, so the descriptor works in select,
poll, epoll, asyncio, makefile, fork, dup and sendfile; bytes go straight to the descriptor, without a call. Calls
that name addresses or options go to the helper and on to the gateway, whose errno they raise.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket as std
import struct
from collections.abc import Iterable
from typing import Any

from levelip.client import resolver
from levelip.client.program import PROGRAM, HelperLost

_OURS = frozenset({std.AF_INET, std.AF_INET6})  # what the stack serves, or will (until then EAFNOSUPPORT)
_FLAGS = std.SOCK_NONBLOCK | std.SOCK_CLOEXEC
_DEFAULT_BACKLOG = 128  # as the standard library's listen(): min(SOMAXCONN, 128)
_NATIVE_OPTIONS = frozenset({std.SO_RCVTIMEO, std.SO_SNDTIMEO})  # of the descriptor itself
_IN_PROGRESS = (errno.EINPROGRESS, errno.EALREADY)
_default_timeout = object()


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class socket(std.socket):  # noqa: N801 - its name in the standard library
    """A TCP socket of the stack (or, for AF_UNIX and other local families, simply the standard library's)."""

    __slots__ = ("_ended", "_family", "_fresh", "_kind", "_lingers", "_listening", "_proto", "_trying")

    def __new__(cls, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> Any:
        """The standard library's own socket for what is not ours."""
        if fileno is None:
            foreign = family not in (-1, *_OURS)
        else:
            foreign = not _is_ours(fileno)
        if foreign:
            return std.socket(family, type, proto, fileno)
        from levelip.client import datagramsocket  # it builds on this module

        datagram = type & 0xF == std.SOCK_DGRAM if fileno is None and type != -1 else False
        if datagram or (fileno is not None and datagramsocket.is_datagram(fileno)):
            return super().__new__(datagramsocket.DatagramSocket)
        return super().__new__(cls)

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        self._ended = False  # the peer's FIN was seen, no error is to be asked for
        self._listening = False
        self._lingers = False  # SO_LINGER is on: close() may have to wait
        self._trying = False  # a connect that nobody waits for
        if fileno is not None:
            state, _ = PROGRAM.call("state", os.fstat(fileno).st_ino)
            self._family, self._kind, self._proto = state["kind"]
            self._listening, self._fresh = state["listening"], state["fresh"]
            super().__init__(std.AF_UNIX, self._pair_kind(), 0, fileno)
            return
        self._family = std.AF_INET if family == -1 else int(family)
        kind = std.SOCK_STREAM if type == -1 else int(type)
        self._kind = kind & ~_FLAGS
        self._proto = 0 if proto == -1 else int(proto)
        self._fresh = True
        fd = PROGRAM.new_socket(self._family, self._kind, self._proto)
        super().__init__(std.AF_UNIX, self._pair_kind(), 0, fd)
        if kind & std.SOCK_NONBLOCK:
            self.setblocking(False)

    @classmethod
    def _adopt(cls, fd: int, like: socket) -> socket:
        """A socket for a descriptor that a call brought, without asking what it is."""
        new: socket = std.socket.__new__(cls)
        new._ended = new._listening = new._trying = new._fresh = False
        new._family, new._kind, new._proto = like._family, like._kind, like._proto
        new._lingers = like._lingers
        std.socket.__init__(new, std.AF_UNIX, new._pair_kind(), 0, fd)
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

    def __repr__(self) -> str:
        state = " [closed]" if self._closed else ""  # type: ignore[attr-defined]
        return f"<levelip.client.socket.socket{state} fd={self.fileno()}, family={self._family}, type={self._kind}>"

    def dup(self) -> Any:
        """A duplicate of the same socket, not inheritable."""
        fd = fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 0)
        new = self._adopt(fd, self)
        new._listening, new._fresh, new._trying, new._ended = (
            self._listening,
            self._fresh,
            self._trying,
            self._ended,
        )
        new.settimeout(self.gettimeout())
        return new

    # -- calls

    def _call(self, op: str, args: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        return PROGRAM.call(op, os.fstat(self.fileno()).st_ino, args, **more)[0]

    def bind(self, address: Any) -> None:
        """Take a local (host, port); host "" is any address, port 0 any port."""
        host, port = _address(address)
        self._call("bind", {"address": host, "port": port})

    def listen(self, backlog: int = _DEFAULT_BACKLOG) -> None:
        """Let connections come in."""
        self._call("listen", {"backlog": min(max(int(backlog), 0), 0x7FFF_FFFF)})
        self._listening = True
        self._fresh = False

    def accept(self) -> tuple[std.socket, Any]:
        """(new socket, (host, port) of the peer). Waits as the socket's timeout says."""
        if not self._listening:
            if not self._call("state")["listening"]:
                raise _error(errno.EINVAL)
            self._listening = True
        inode = os.fstat(self.fileno()).st_ino
        while True:
            # a byte in the pair for each connection that waits: the kernel blocks, times out and wakes for us
            if not super().recv(1):
                code = self._call("error")["errno"]
                raise _error(code or errno.EINVAL)  # listener shut down, or its stack could not make it again
            try:
                data, fd = PROGRAM.call_for_fd("accept", inode, {})
            except BlockingIOError:
                continue  # that connection went away
            new = self._adopt(fd, self)
            default = std.getdefaulttimeout()
            if default is None and self.gettimeout():
                new.setblocking(True)  # bpo-7995, as the standard library does
            return new, _pair(data)

    def connect(self, address: Any) -> None:
        """Connect to (host, port), within the socket's timeout."""
        host, port = _address(address, connect=True)
        timeout = self.gettimeout()
        args = {"address": host, "port": port, "nonblocking": timeout is not None, "wait": timeout != 0.0}
        while True:
            fds = (self.fileno(),) if timeout == 0.0 else ()
            try:
                data, fd = PROGRAM.call(
                    "connect", os.fstat(self.fileno()).st_ino, dict(args), fds=fds, timeout=timeout or None
                )
            except TimeoutError as error:
                if error.errno is None:  # ours, not the stack's ETIMEDOUT: it goes on connecting
                    self._fresh = False
                    self._trying = True
                    self._call("hold", fds=(self.fileno(),))
                raise
            except OSError as error:
                if error.errno in _IN_PROGRESS:
                    self._fresh = False
                    self._trying = True
                raise
            if not data.get("renew"):
                break
            self._replace(fd)
        self._fresh = self._trying = False

    def _replace(self, fd: int) -> None:
        """After a failed connect that nobody waited for: put a new pair's end in the place of the old one."""
        flags = fcntl.fcntl(self.fileno(), fcntl.F_GETFL)
        inheritable = self.get_inheritable()
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        os.dup2(fd, self.fileno(), inheritable)
        os.close(fd)

    def connect_ex(self, address: Any) -> int:
        """As connect, but the errno of a failed call is returned (0: connected)."""
        try:
            self.connect(address)
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
        """End one direction or both (SHUT_RD, SHUT_WR, SHUT_RDWR)."""
        self._call("shutdown", {"how": int(how)})
        super().shutdown(how)

    def getsockname(self) -> Any:
        """Our (host, port)."""
        return _pair(self._call("getsockname"))

    def getpeername(self) -> Any:
        """The peer's (host, port)."""
        return _pair(self._call("getpeername"))

    def setsockopt(self, level: int, option: int, value: Any, optlen: int | None = None) -> None:
        """Set an option of the stack's socket: an int, bytes, or None with a length (zero bytes)."""
        if level == std.SOL_SOCKET and option in _NATIVE_OPTIONS:
            super().setsockopt(level, option, value)
            return
        if value is None:
            value = bytes(optlen or 0)
        elif not isinstance(value, int):
            value = bytes(value)
        self._call("setsockopt", {"level": int(level), "option": int(option), "value": value})
        if level == std.SOL_SOCKET and option == std.SO_LINGER and isinstance(value, bytes) and len(value) >= 8:
            on, seconds = struct.unpack_from("=ii", value)
            self._lingers = bool(on and seconds)

    def getsockopt(self, level: int, option: int, buflen: int = 0) -> Any:
        """An option's value: an int, or with `buflen` at most that many bytes."""
        if level == std.SOL_SOCKET and option in _NATIVE_OPTIONS:
            return super().getsockopt(level, option, buflen) if buflen else super().getsockopt(level, option)
        value: bytes = self._call("getsockopt", {"level": int(level), "option": int(option)})["value"]
        if level == std.SOL_SOCKET and option == std.SO_ERROR:
            self._trying = False
        if buflen:
            return value[:buflen]
        return int.from_bytes(value[:4], "little", signed=True)

    # -- bytes: straight to the descriptor; only its end needs a question

    def _end(self) -> None:
        """The descriptor is at its end: raise what ended the connection, once, unless it was the peer's FIN."""
        if self._ended:
            return
        try:
            code = self._call("error")["errno"]
        except HelperLost:
            self._ended = True
            raise
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            code = errno.ECONNRESET  # a helper that is not its own: that one died
        self._ended = True
        if code:
            raise _error(code)

    def _broken(self, error: OSError) -> OSError:
        """What to raise for an EPIPE or ECONNRESET of the descriptor."""
        try:
            self._end()
        except OSError as better:
            return better
        return error

    def _never(self, code: int) -> None:
        """A call that needs a connection, on a socket that this object never connected."""
        if self._call("state")["fresh"]:
            raise _error(code)
        self._fresh = False

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """At most `bufsize` bytes; empty at the peer's FIN."""
        if self._fresh:
            self._never(errno.ENOTCONN)
        try:
            data = super().recv(bufsize, flags)
        except ConnectionError as error:
            data = self._at_reset(error)
        if not data and bufsize:
            self._end()
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As recv, into a buffer; the number of bytes."""
        if self._fresh:
            self._never(errno.ENOTCONN)
        try:
            got = super().recv_into(buffer, nbytes, flags)
        except ConnectionError as error:
            self._at_reset(error)
            got = 0
        if not got and (nbytes or len(buffer)):
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
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """As recv_into, into several buffers."""
        if self._fresh:
            self._never(errno.ENOTCONN)
        views = list(buffers)
        try:
            got = super().recvmsg_into(views, 0, flags)[0]
        except ConnectionError as error:
            self._at_reset(error)
            got = 0
        if not got and any(len(view) for view in views):
            self._end()
        return got, [], 0, None

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As recv; a stream has no source address to tell."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As recv_into; a stream has no source address to tell."""
        return self.recv_into(buffer, nbytes, flags), None

    def send(self, data: Any, flags: int = 0, /) -> int:
        """Hand over bytes; how many were taken."""
        if self._fresh:
            self._never(errno.EPIPE)
        try:
            return super().send(data, flags)
        except ConnectionError as error:
            raise self._broken(error) from None

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Hand over all bytes."""
        if self._fresh:
            self._never(errno.EPIPE)
        try:
            super().sendall(data, flags)
        except ConnectionError as error:
            raise self._broken(error) from None

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """Hand over the bytes of several buffers. There is no ancillary data on TCP."""
        if ancdata:
            raise _error(errno.EINVAL)
        if self._fresh:
            self._never(errno.EPIPE)
        try:
            return super().sendmsg(buffers, (), flags)
        except ConnectionError as error:
            raise self._broken(error) from None

    def sendto(self, data: Any, *rest: Any) -> int:
        """As send; a connected stream ignores the address (Linux: EISCONN only for other families)."""
        return self.send(data, rest[0] if len(rest) == 2 else 0)

    # -- the end

    def _real_close(self, *args: Any) -> None:
        fd = self.fileno()
        if fd < 0 or not (self._trying or self._lingers or self._listening):
            super()._real_close(*args)  # type: ignore[misc]
            return
        inode = os.fstat(fd).st_ino
        if self._trying:
            with contextlib.suppress(OSError):
                PROGRAM.call("release", inode)
        super()._real_close(*args)  # type: ignore[misc]
        if self._lingers or self._listening:  # a listener's close is over when close() returns, as on Linux
            with contextlib.suppress(OSError):
                PROGRAM.call("linger", inode)


def _is_ours(fd: int) -> bool:
    """Whether a descriptor is a socket of this program's helper."""
    probe = std.socket(fileno=os.dup(fd))
    with probe:
        if probe.family != std.AF_UNIX or probe.type not in (std.SOCK_STREAM, std.SOCK_SEQPACKET):
            return False
    try:
        PROGRAM.call("state", os.fstat(fd).st_ino)
    except OSError:
        return False
    return True


def _pair(data: dict[str, Any]) -> tuple[str, int]:
    address = data["address"] or bytes(4)
    return std.inet_ntop(std.AF_INET if len(address) == 4 else std.AF_INET6, address), data["port"]


def _address(address: Any, *, connect: bool = False) -> tuple[bytes, int]:
    """(packed address, port) of what the standard library takes; TypeError, OverflowError, gaierror as it raises."""
    if not isinstance(address, tuple):
        raise TypeError(f"AF_INET address must be tuple, not {type(address).__name__}")
    if len(address) != 2:
        raise TypeError("AF_INET address must be a pair (host, port)")
    host, port = address
    if not isinstance(port, int):
        raise TypeError(f"'{type(port).__name__}' object cannot be interpreted as an integer")
    if not 0 <= port <= 0xFFFF:
        raise OverflowError("connect(): port must be 0-65535." if connect else "bind(): port must be 0-65535.")
    if isinstance(host, bytes | bytearray):
        host = host.decode("ascii")
    if host == "":
        return bytes(4), port
    if host == "<broadcast>":
        return b"\xff\xff\xff\xff", port
    try:
        return std.inet_aton(host) if host.count(".") == 3 else _look_up(host), port
    except OSError as error:
        if isinstance(error, std.gaierror):
            raise
        return _look_up(host), port


def _look_up(host: str) -> bytes:
    return std.inet_aton(resolver.gethostbyname(host))


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> std.socket:
    """A socket for a duplicate of a descriptor."""
    return socket(family, type, proto, fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))


def create_connection(
    address: tuple[str | None, int],
    timeout: Any = _default_timeout,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> std.socket:
    """Connect to (host, port), trying each IPv4 address of the host in turn; raises the last OSError, or with
    `all_errors` an ExceptionGroup of all."""
    host, port = address
    errors: list[Exception] = []
    for family, kind, proto, _, where in resolver.getaddrinfo(host, port, std.AF_INET, std.SOCK_STREAM):
        new = None
        try:
            new = socket(family, kind, proto)
            if timeout is not _default_timeout:
                new.settimeout(timeout)
            if source_address:
                new.bind(source_address)
            new.connect(where)
            return new
        except OSError as error:
            errors.append(error)
            if new is not None:
                new.close()
    if not errors:
        raise OSError("getaddrinfo returns an empty list")
    if all_errors and len(errors) > 1:
        raise ExceptionGroup("create_connection failed", errors)
    raise errors[-1]


def has_dualstack_ipv6() -> bool:
    """The stack has no IPv6 yet."""
    return False


def create_server(
    address: Any,
    *,
    family: int = std.AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> std.socket:
    """A listening socket on (host, port), with SO_REUSEADDR."""
    if dualstack_ipv6:
        raise ValueError("dualstack_ipv6 not supported on this platform")
    server = socket(family, std.SOCK_STREAM)
    try:
        with contextlib.suppress(std.error):
            server.setsockopt(std.SOL_SOCKET, std.SO_REUSEADDR, 1)
        if reuse_port:
            server.setsockopt(std.SOL_SOCKET, std.SO_REUSEPORT, 1)
        try:
            server.bind(address)
        except OSError as error:
            message = f"{error.strerror} (while attempting to bind on address {address!r})"
            raise OSError(error.errno, message) from None
        server.listen(_DEFAULT_BACKLOG if backlog is None else backlog)
    except BaseException:
        server.close()
        raise
    return server
