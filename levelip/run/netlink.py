"""Sockets of NETLINK_ROUTE (rtnetlink(7)): dumps of the stack's interfaces, addresses and routes, which getifaddrs(3),
getaddrinfo(3) and ip(8) ask for.

The program holds an end of a SEQPACKET pair, a message a datagram. What would change something is refused: lvlip does
that. News of changes is not told.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from levelip.run.datagrams import DatagramCalls
from levelip.run.interfaces import TX_QUEUE, Interface, Way, interfaces_of, ways_of
from levelip.run.messages import Message
from levelip.run.trapped import Trapped
from levelip.run.values import INT

if TYPE_CHECKING:
    from levelip.run.trap import Trap

SOCKADDR_NL = struct.Struct("=HHII")
NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, pid; linux/netlink.h
RTATTR = struct.Struct("=HH")
IFINFOMSG, IFADDRMSG, RTMSG = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_MULTI, NLM_F_ACK, NLM_F_DUMP = 2, 4, 0x300
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR, RTM_NEWROUTE, RTM_GETROUTE = 16, 18, 20, 22, 24, 26
RTM_BASE = 16  # below it are messages of netlink itself
IFLA_ADDRESS, IFLA_BROADCAST, IFLA_IFNAME, IFLA_MTU, IFLA_QDISC, IFLA_TXQLEN, IFLA_OPERSTATE = 1, 2, 3, 4, 6, 13, 16
IFLA_LINKMODE, IFLA_GROUP = 17, 27
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 3, 4, 6, 8
IFA_F_PERMANENT = 0x80
FOREVER = struct.pack("=IIII", 0xFFFFFFFF, 0xFFFFFFFF, 0, 0)  # struct ifa_cacheinfo: preferred, valid, since, changed
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_TABLE = 1, 4, 5, 6, 7, 15
TABLE_MAIN, TABLE_LOCAL = 254, 255
PROTOCOL_KERNEL, PROTOCOL_STATIC = 2, 4
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
RTM_F_CLONED = 0x200
KINDS = {  # RTN_, by the names of `ip route`
    "unicast": 1, "local": 2, "broadcast": 3, "multicast": 5, "blackhole": 6, "unreachable": 7, "prohibit": 8,
}  # fmt: skip
OPER_UP, OPER_DOWN, OPER_UNKNOWN = 6, 2, 0
DATAGRAM = 3072  # bytes of a part of a dump: getifaddrs(3) reads a page at a time
BUFFER = 212_992  # bytes: what SO_RCVBUF and SO_SNDBUF say (net.core.rmem_default)
_U32 = struct.Struct("=I")
_WATCH = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


def _refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


class NetlinkSocket:
    """One socket: our end of its pair."""

    def __init__(self, end: socket.socket, kind: int) -> None:
        self.end = end
        self.fd = end.fileno()
        self.kind = kind
        self.pid = 0  # its address; 0: none yet
        self.groups = 0
        self.seen: tuple[int, int] | None = None
        self.times: dict[int, float | None] = {}
        self.waiters: deque[Callable[[], None]] = deque()
        self.queue: deque[bytes] = deque()


class NetlinkCalls(DatagramCalls):
    """Part of Trap; `sockets` by inode of the program's end."""

    def __init__(self, trap: Trap) -> None:
        super().__init__(trap)
        self.sockets: dict[int, NetlinkSocket] = {}
        self.by_fd: dict[int, NetlinkSocket] = {}
        self._epoll: select.epoll
        self._next = 0x8000_0000
        self.table |= {
            "bind": self._bind,
            "connect": lambda call: call.settle(),
            "listen": lambda call: call.fail(errno.EOPNOTSUPP),
            "accept": lambda call: call.fail(errno.EOPNOTSUPP),
            "accept4": lambda call: call.fail(errno.EOPNOTSUPP),
            "shutdown": lambda call: call.fail(errno.EOPNOTSUPP),
            "getsockname": self._getsockname,
            "getpeername": lambda call: self._tell(call, SOCKADDR_NL.pack(socket.AF_NETLINK, 0, 0, 0)),
            "setsockopt": self._set_option,
            "getsockopt": self._get_option,
            "sendto": self._send_to,
            "sendmsg": self._send_message,
            "sendmmsg": lambda call: call.fail(errno.EOPNOTSUPP),
        }

    def open(self, epoll: select.epoll) -> None:
        """Watch sockets there."""
        self._epoll = epoll

    @staticmethod
    def sock(call: Trapped) -> NetlinkSocket:
        """The call's socket."""
        assert call.netlink is not None
        return call.netlink

    def socket(self, call: Trapped, kind: int, flags: int) -> None:
        """socket(AF_NETLINK, ..., NETLINK_ROUTE)."""
        if kind not in (socket.SOCK_RAW, socket.SOCK_DGRAM):
            raise _refuse(errno.ESOCKTNOSUPPORT)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(not flags & socket.SOCK_NONBLOCK)
        sock = NetlinkSocket(ours, kind)
        with theirs:
            inode = os.fstat(theirs.fileno()).st_ino
            if call.give(theirs.fileno(), cloexec=bool(flags & socket.SOCK_CLOEXEC)):
                self.sockets[inode] = self.by_fd[sock.fd] = sock
                self._epoll.register(sock.fd, _WATCH)
            else:
                ours.close()

    def event(self, fd: int, mask: int) -> None:
        """What epoll says of our end."""
        sock = self.by_fd[fd]
        self._push(sock)
        while True:
            try:
                request = sock.end.recv(65_536)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # it closed with answers unread
            if not request:
                break
            self._request(sock, request)
        if mask & (select.EPOLLHUP | select.EPOLLERR):
            self._epoll.unregister(fd)
            del self.by_fd[fd]
            self.sockets = {inode: one for inode, one in self.sockets.items() if one is not sock}
            sock.end.close()

    def close(self) -> None:
        """Give descriptors back."""
        for sock in self.by_fd.values():
            sock.end.close()

    # -- as Receiver and recvmsg need it

    def waiters(self, call: Trapped) -> deque[Callable[[], None]]:
        """See DatagramCalls."""
        return self.sock(call).waiters

    def take_error(self, call: Trapped) -> int:
        """None comes here."""
        return 0

    def shown(self, call: Trapped) -> bool:
        """Likewise."""
        return False

    def ended(self, call: Trapped) -> bool:
        """It cannot be shut."""
        return False

    def sender(self, call: Trapped, header: bytes) -> bytes:
        """The kernel."""
        return SOCKADDR_NL.pack(socket.AF_NETLINK, 0, 0, 0)

    def ancillary(self, call: Trapped, header: bytes) -> list[tuple[int, int, bytes]]:
        """None."""
        return []

    # -- names, options

    def _bind(self, call: Trapped) -> None:
        sock = self.sock(call)
        data = call.read_name(call.args[1], call.number(2))
        if len(data) < SOCKADDR_NL.size:
            raise _refuse(errno.EINVAL)
        family, _, pid, sock.groups = SOCKADDR_NL.unpack_from(data)
        if family != socket.AF_NETLINK:
            raise _refuse(errno.EINVAL)
        if sock.groups:
            self._trap.say("groups", "changes of interfaces and routes are not told to programs on the stack")
        if pid and any(one.pid == pid for one in self.sockets.values() if one is not sock):
            raise _refuse(errno.EADDRINUSE)
        self._name(sock, call, pid)
        call.settle()

    def _name(self, sock: NetlinkSocket, call: Trapped, pid: int = 0) -> None:
        """Its address: what it asked for, else the thread's number, else one that nobody has."""
        if sock.pid and not pid:
            return
        taken = {one.pid for one in self.sockets.values()}
        pid = pid or call.tid
        while pid in taken:
            self._next += 1
            pid = self._next
        sock.pid = pid

    def _getsockname(self, call: Trapped) -> None:
        sock = self.sock(call)
        self._tell(call, SOCKADDR_NL.pack(socket.AF_NETLINK, 0, sock.pid, sock.groups))

    @staticmethod
    def _tell(call: Trapped, name: bytes) -> None:
        call.write_sized(call.args[1], call.args[2], name)
        call.settle()

    def _set_option(self, call: Trapped) -> None:
        if call.number(1) == socket.SOL_SOCKET and call.number(2) in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._trap.set_time(call, call.number(2), call.read(call.args[3], 16))
        call.settle()  # buffers, extended acknowledgements, strict checks: nothing follows from them

    def _get_option(self, call: Trapped) -> None:
        values = {
            socket.SO_TYPE: self.sock(call).kind, socket.SO_ERROR: 0, socket.SO_DOMAIN: socket.AF_NETLINK,
            socket.SO_PROTOCOL: 0, socket.SO_RCVBUF: BUFFER, socket.SO_SNDBUF: BUFFER,
        }  # fmt: skip
        if call.number(1) != socket.SOL_SOCKET or call.number(2) not in values:
            raise _refuse(errno.ENOPROTOOPT)
        room = max(INT.unpack(call.read(call.args[4], 4))[0], 0)
        call.write_sized(call.args[3], call.args[4], INT.pack(values[call.number(2)])[:room])
        call.settle()

    # -- requests

    def _send_to(self, call: Trapped) -> None:
        self._take(call, call.read(call.args[1], min(call.args[2], 65_536)))

    def _send_message(self, call: Trapped) -> None:
        self._take(call, Message(call.tid, call.args[1]).gather())

    def _take(self, call: Trapped, data: bytes) -> None:
        sock = self.sock(call)
        self._name(sock, call)
        call.settle(len(data))
        self._request(sock, data)

    def _request(self, sock: NetlinkSocket, data: bytes) -> None:
        """All messages of one datagram, in order."""
        at = 0
        while at + NLMSGHDR.size <= len(data):
            length, kind, flags, sequence, _ = NLMSGHDR.unpack_from(data, at)
            if not NLMSGHDR.size <= length <= len(data) - at:
                break
            self._one(sock, kind, flags, sequence, data[at : at + length])
            at += (length + 3) & ~3

    def _one(self, sock: NetlinkSocket, kind: int, flags: int, sequence: int, message: bytes) -> None:
        body = message[NLMSGHDR.size :]

        def done(code: int, data: dict[str, Any], _: str) -> None:
            if code:
                self._error(sock, code, sequence, message)
                return
            answer = _Answer(interfaces_of(data), ways_of(data), body)
            rows = answer.rows(kind, dump=flags & NLM_F_DUMP == NLM_F_DUMP)
            if rows is None:
                self._error(sock, errno.ENODEV if kind == RTM_GETLINK else errno.ENETUNREACH, sequence, message)
            elif flags & NLM_F_DUMP == NLM_F_DUMP:
                self._dump(sock, sequence, rows)
            else:
                for type_, row in rows:
                    self._write(sock, _message(type_, 0, sequence, sock.pid, row))
                if flags & NLM_F_ACK:
                    self._error(sock, 0, sequence, message)

        if kind in (RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE):
            self._trap.calls.ask("interfaces", {}, done)
        elif kind >= RTM_BASE and kind % 4 == RTM_GETLINK % 4:
            self._error(sock, errno.EOPNOTSUPP, sequence, message)
        elif kind >= RTM_BASE:
            if any(body):  # else it asks whether there is such a message
                self._trap.say("netlink", "interfaces and routes of the stack are changed by lvlip: EPERM")
            self._error(sock, errno.EPERM, sequence, message)
        elif flags & NLM_F_ACK:
            self._error(sock, 0, sequence, message)

    def _error(self, sock: NetlinkSocket, code: int, sequence: int, message: bytes) -> None:
        """An errno, or 0 for an acknowledgement, with the message that it is about."""
        self._write(sock, _message(NLMSG_ERROR, 0, sequence, sock.pid, INT.pack(-code) + message))

    def _dump(self, sock: NetlinkSocket, sequence: int, rows: Iterable[tuple[int, bytes]]) -> None:
        part = b""
        for type_, row in rows:
            one = _message(type_, NLM_F_MULTI, sequence, sock.pid, row)
            if part and len(part) + len(one) > DATAGRAM:
                self._write(sock, part)
                part = b""
            part += one
        if part:
            self._write(sock, part)
        self._write(sock, _message(NLMSG_DONE, NLM_F_MULTI, sequence, sock.pid, INT.pack(0)))

    def _write(self, sock: NetlinkSocket, data: bytes) -> None:
        sock.queue.append(data)
        self._push(sock)

    @staticmethod
    def _push(sock: NetlinkSocket) -> None:
        with contextlib.suppress(BlockingIOError):
            while sock.queue:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has closed
                    sock.end.send(sock.queue[0], socket.MSG_NOSIGNAL)
                sock.queue.popleft()
        for wake in list(sock.waiters):
            wake()


class _Answer:
    """What to tell of the stack, to one request."""

    def __init__(self, interfaces: list[Interface], ways: list[Way], body: bytes) -> None:
        self._interfaces = interfaces
        self._ways = ways
        self._body = body

    def rows(self, kind: int, *, dump: bool) -> list[tuple[int, bytes]] | None:
        """Types and bodies of messages; None if there is no such thing."""
        family = self._body[0] if self._body else 0
        inet = family in (socket.AF_UNSPEC, socket.AF_INET)
        if kind == RTM_GETLINK:
            wanted = self._interfaces if dump else self._named()
            return [(RTM_NEWLINK, _link(one)) for one in wanted] if wanted else None
        if kind == RTM_GETADDR:
            return [(RTM_NEWADDR, row) for one in self._interfaces if inet for row in _addresses(one)]
        if dump:
            return [(RTM_NEWROUTE, _route(way)) for way in self._ways if inet]
        return self._lookup() if inet else None

    def _named(self) -> list[Interface]:
        """The one of RTM_GETLINK, by its index or name."""
        if len(self._body) < IFINFOMSG.size:
            return []
        index = IFINFOMSG.unpack_from(self._body)[2]
        name = _attributes(self._body[IFINFOMSG.size :]).get(IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace")
        return [one for one in self._interfaces if (index and one.index == index) or (name and one.name == name)][:1]

    def _lookup(self) -> list[tuple[int, bytes]] | None:
        """The route to one address: the longest prefix."""
        where = _attributes(self._body[RTMSG.size :]).get(RTA_DST, b"")
        if len(where) != 4:
            return None
        number = int.from_bytes(where, "big")
        fit = [
            way for way in self._ways
            if number >> (32 - way.length) == int.from_bytes(way.prefix, "big") >> (32 - way.length)
        ]  # fmt: skip
        best = max(fit, key=lambda way: (way.length, -way.metric), default=None)
        if best is None or not best.iface:
            return None
        cloned = Way(where, 32, best.kind, best.via, best.source, best.metric, best.iface)
        return [(RTM_NEWROUTE, _route(cloned, flags=RTM_F_CLONED))]


def _message(kind: int, flags: int, sequence: int, pid: int, body: bytes) -> bytes:
    padded = body + bytes(-len(body) % 4)
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), kind, flags, sequence, pid) + padded


def _attribute(kind: int, data: bytes) -> bytes:
    return RTATTR.pack(RTATTR.size + len(data), kind) + data + bytes(-len(data) % 4)


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + RTATTR.size <= len(data):
        length, kind = RTATTR.unpack_from(data, at)
        if length < RTATTR.size:
            break
        found[kind] = data[at + RTATTR.size : at + length]
        at += (length + 3) & ~3
    return found


def _link(one: Interface) -> bytes:
    state = OPER_UNKNOWN if one.kind == "loopback" else OPER_UP if one.up else OPER_DOWN
    rows = _attribute(IFLA_IFNAME, one.name.encode() + b"\0") + _attribute(IFLA_MTU, _U32.pack(one.mtu))
    rows += _attribute(IFLA_TXQLEN, _U32.pack(TX_QUEUE)) + _attribute(IFLA_OPERSTATE, bytes([state]))
    rows += _attribute(IFLA_QDISC, b"noqueue\0") + _attribute(IFLA_LINKMODE, b"\0") + _attribute(IFLA_GROUP, bytes(4))
    if one.mac:
        broadcast = bytes(6) if one.kind == "loopback" else b"\xff" * 6
        rows += _attribute(IFLA_ADDRESS, one.mac) + _attribute(IFLA_BROADCAST, broadcast)
    return IFINFOMSG.pack(socket.AF_UNSPEC, one.hardware, one.index, one.flags, 0) + rows


def _addresses(one: Interface) -> Iterable[bytes]:
    scope = SCOPE_HOST if one.kind == "loopback" else SCOPE_UNIVERSE
    for address, length, broadcast in one.addresses:
        rows = _attribute(IFA_ADDRESS, address) + _attribute(IFA_LOCAL, address)
        rows += _attribute(IFA_BROADCAST, broadcast) if broadcast else b""
        rows += _attribute(IFA_LABEL, one.name.encode() + b"\0") + _attribute(IFA_FLAGS, _U32.pack(IFA_F_PERMANENT))
        rows += _attribute(IFA_CACHEINFO, FOREVER)
        yield IFADDRMSG.pack(socket.AF_INET, length, IFA_F_PERMANENT, scope, one.index) + rows


def _route(way: Way, *, flags: int = 0) -> bytes:
    table = TABLE_LOCAL if way.kind in ("local", "broadcast") else TABLE_MAIN
    scope = SCOPE_HOST if way.kind == "local" else SCOPE_UNIVERSE if way.via or not way.iface else SCOPE_LINK
    protocol = PROTOCOL_STATIC if way.via or not way.iface else PROTOCOL_KERNEL
    rows = _attribute(RTA_TABLE, _U32.pack(table))
    rows += _attribute(RTA_DST, way.prefix) if way.length else b""
    rows += _attribute(RTA_GATEWAY, way.via) if way.via else b""
    rows += _attribute(RTA_OIF, _U32.pack(way.iface)) if way.iface else b""
    rows += _attribute(RTA_PREFSRC, way.source) if any(way.source) else b""
    rows += _attribute(RTA_PRIORITY, _U32.pack(way.metric)) if way.metric else b""
    head = socket.AF_INET, way.length, 0, 0, table, protocol, scope, KINDS.get(way.kind, 1), flags
    return RTMSG.pack(*head) + rows
