"""Datagram sockets for programs: `socket.socket(AF_INET, SOCK_DGRAM)` of levelip.client.

The descriptor is an end of a SEQPACKET pair, a message a datagram with a header (datagramformat.py), so waiting,
timeouts, MSG_PEEK, MSG_TRUNC and MSG_DONTWAIT are the kernel's. The first datagram to each destination is a call, which
raises what Linux's sendto() would; those after it are written to the descriptor without one.
"""

from __future__ import annotations

import errno
import select
import socket as std
import sys
from collections.abc import Iterable
from typing import Any

from levelip.client import ancillary, errorqueue, kernel
from levelip.client.ancillary import Wish
from levelip.client.arguments import (
    address_of,
    ancillary_items,
    c_int,
    check_room,
    host_and_port,
    option_value,
    os_error,
    sendto_arguments,
    view_of,
    within,
)
from levelip.client.datagramformat import DATAGRAM, DOWN, HAS_ADDRESS, MAX_ECHO, MAX_OPTIONS, MAX_PAYLOAD, UP
from levelip.client.datagramformat import told as read_header
from levelip.client.errorqueue import MSG_ERRQUEUE, QueuedHeader
from levelip.client.streamsocket import socket

KNOWN = 256  # destinations whose first datagram went well that are remembered
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_PMTUDISC_PROBE = 10, 2, 3
ALWAYS_FITS = 524  # bytes: no path MTU below 552 is believed (udp's path_mtu.py)
_DATAGRAM = bytes([DATAGRAM])
_AS_ALWAYS = Wish()
_WAY = frozenset({std.SO_BROADCAST, std.SO_REUSEADDR})


class DatagramSocket(socket):
    """A UDP socket of the stack, or with IPPROTO_ICMP one for echo requests. Made by `socket(AF_INET, SOCK_DGRAM)`."""

    __slots__ = ()
    _made_of = socket

    def _begin(self) -> None:
        super()._begin()
        self._connected = False
        self._known: set[tuple[bytes, int]] = set()  # where a datagram went without complaint
        self._told: set[tuple[int, int]] = set()  # options of ASKED_FOR that are on
        self._uncut = False  # IP_MTU_DISCOVER: what does not fit is EMSGSIZE
        self._pending: list[bytes] = []  # parts of a datagram that MSG_MORE keeps open,
        self._begun: tuple[bytes, int, Wish] = b"", 0, _AS_ALWAYS  # with the first one's destination and wishes (Linux)

    def _make(self, family: int, type: int, proto: int, fileno: int | None) -> None:
        super()._make(family, type, proto, fileno)
        self._fresh = False
        if fileno is not None:
            self._read_state()

    def _read_state(self) -> None:
        state = self._state
        self._connected = state["connected"]
        for level, option, value in state["options"]:
            self._note(level, option, value)

    def _duplicated(self, new: Any) -> None:
        super()._duplicated(new)
        new._connected, new._told = self._connected, set(self._told)
        new._uncut = self._uncut

    # -- names and options

    def _connect(self, address: Any) -> None:
        """Datagrams to and from that (host, port) only. `disconnect` takes it back."""
        host, port = address_of(address, "connect")
        self._known.clear()
        self._call("connect", {"address": host, "port": port})
        self._connected = True

    def disconnect(self) -> None:
        """As connect(2) with AF_UNSPEC, which the standard library cannot say: no peer any more."""
        self._known.clear()
        self._call("connect", {"address": b"", "port": 0})
        self._connected = False

    def listen(self, backlog: int = 0) -> None:
        """There is nothing to listen for: EOPNOTSUPP."""
        self._call("listen", {"backlog": max(c_int(backlog), 0)})

    def accept(self) -> tuple[std.socket, Any]:
        """Likewise."""
        self._call("accept", {})
        raise os_error(errno.EOPNOTSUPP)

    def setsockopt(self, level: int, option: int, value: Any, optlen: int | None = None) -> None:
        """Set an option of the stack's socket: an int or bytes."""
        level, option, value = c_int(level), c_int(option), option_value(value, optlen)
        super().setsockopt(level, option, value)
        self._note(level, option, value)

    def _remember(self, option: int, value: int | bytes) -> None:
        """Nothing: the pair must hold the longest datagram."""

    def _note(self, level: int, option: int, value: Any) -> None:
        if level == std.SOL_SOCKET and option in _WAY:
            self._known.clear()
        if level == std.IPPROTO_IP and option == IP_MTU_DISCOVER:
            number = value if isinstance(value, int) else int.from_bytes(bytes(value or b"")[:4], sys.byteorder)
            self._uncut = number in (IP_PMTUDISC_DO, IP_PMTUDISC_PROBE)
        if (level, option) in ancillary.ASKED_FOR:
            on = value if isinstance(value, int) else any(bytes(value or b"")[:4])
            (self._told.add if on else self._told.discard)((level, option))
            self._told.difference_update(ancillary.instead_of(level, option))

    # -- down

    def _raise_error(self) -> None:
        """An ICMP error that came since the last call ends this one (Linux: sk_err), if nothing lies before it."""
        if not self._connected and (std.IPPROTO_IP, ancillary.IP_RECVERR) not in self._told:
            return
        if not self._readable():
            return
        first = kernel.socket.recv(self, UP.size, std.MSG_PEEK | std.MSG_DONTWAIT)
        if first and first[0] != DATAGRAM:
            self._take_error()

    def _drop_notice(self) -> None:
        """The error that the notice at the head of the queue is about was taken from the error queue."""
        if not self._readable():
            return
        if kernel.socket.recv(self, 1, std.MSG_PEEK | std.MSG_DONTWAIT)[:1] not in (b"", _DATAGRAM):
            kernel.socket.recv(self, UP.size, std.MSG_DONTWAIT)

    def _readable(self) -> bool:
        """Asked of the kernel: with a timeout the standard library waits even where MSG_DONTWAIT is given."""
        poll = select.poll()
        poll.register(self, select.POLLIN)
        return bool(poll.poll(0))

    def _take_error(self) -> None:
        """Take the notice at the head of the queue, and raise what it is about (nothing if SO_ERROR told it before)."""
        if self._readable():  # else another thread was faster
            kernel.socket.recv(self, UP.size, std.MSG_DONTWAIT)
        code = self._call("error")["errno"]
        if code:
            raise os_error(code)

    def _transmit(self, buffers: list[Any], flags: int, address: bytes, port: int, wish: Wish = _AS_ALWAYS) -> int:
        if flags & std.MSG_OOB:
            raise os_error(errno.EOPNOTSUPP)
        taken = size = sum(view_of(one).nbytes for one in buffers)
        if flags & std.MSG_MORE or self._pending:
            size += sum(len(one) for one in self._pending)
        echo = self._proto == std.IPPROTO_ICMP
        # any one may be wrong in itself, so all are calls
        each = echo or size > MAX_PAYLOAD - MAX_OPTIONS or (self._uncut and size > ALWAYS_FITS)
        if size > (MAX_ECHO if echo else MAX_PAYLOAD):
            self._pending.clear()  # as Linux: udp_flush_pending_frames
            raise os_error(errno.EMSGSIZE)
        if flags & std.MSG_MORE:
            if not self._pending:
                self._begun = address, port, wish
            self._pending += [bytes(one) for one in buffers]
            return taken
        if self._pending:
            buffers, self._pending = [*self._pending, *buffers], []
            address, port, wish = self._begun
        self._raise_error()
        where = (address, port)
        if wish.asks or each or where not in self._known:
            self._call("sendto", {"address": address, "port": port, "payload": b"".join(buffers), **wish._asdict()})
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known.add(where)
            return taken
        header = DOWN.pack(HAS_ADDRESS if address else 0, address, port, wish.tos, wish.ttl)
        kernel.socket.sendmsg(self, [header, *buffers], (), flags)
        return taken

    def send(self, data: Any, flags: int = 0, /) -> int:
        """One datagram to the peer."""
        return self._transmit([data], flags, b"", 0)

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """As send."""
        self._transmit([data], flags, b"", 0)

    def sendto(self, data: Any, *rest: Any) -> int:
        """sendto(data, address) or sendto(data, flags, address): one datagram."""
        flags, address = sendto_arguments(data, rest)
        where = address_of(address, "sendto")
        sys.audit("socket.sendto", self, address)
        return self._transmit([data], flags, *where)

    def sendmsg(self, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /) -> int:
        """One datagram of several buffers. Ancillary data: IP_TOS, IP_TTL, IP_PKTINFO, IP_RETOPTS; any other
        is EINVAL."""
        wish = ancillary.wish(ancillary_items(ancdata))
        where = (b"", 0) if address is None else address_of(address, "sendmsg")
        sys.audit("socket.sendmsg", self, address)
        return self._transmit(list(buffers), flags, *where, wish)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Of streams alone: ValueError."""
        return int(kernel.socket.sendfile(self, file, offset, count))

    # -- up

    def _receive(self, views: list[Any], flags: int) -> tuple[int, int, bytes]:
        """(bytes of the datagram as recv says them, msg_flags, header); an empty header: nothing comes any more."""
        if flags & MSG_ERRQUEUE:
            queued = errorqueue.take(self._call, views)
            self._drop_notice()
            return queued
        flags &= ~int(std.MSG_OOB)  # UDP has none, and does not ask (Linux)
        header = bytearray(UP.size)
        while True:
            got, _, told, _ = kernel.socket.recvmsg_into(self, [header, *views], 0, flags)
            if not got:
                self._call("state")  # HelperLost, if that is why; else SHUT_RD
                return 0, 0, b""
            if header[0] == DATAGRAM:
                return got - UP.size, int(told) & ~int(std.MSG_EOR), bytes(header)
            if flags & std.MSG_PEEK:
                self._take_error()
                continue
            code = self._call("error")["errno"]
            if code:
                raise os_error(code)

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """One datagram; what is beyond `bufsize` is lost. None is taken where nothing is asked for, as the standard
        library has it."""
        return b"" if bufsize == 0 else DatagramSocket.recvfrom(self, bufsize, flags)[0]

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As recv, into a buffer; the number of bytes."""
        view = memoryview(buffer)
        return DatagramSocket.recvfrom_into(self, view, nbytes, flags)[0] if view.nbytes else within(view, nbytes)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """One datagram and the (host, port) that it came from."""
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        data = bytearray(bufsize)
        size, _, header = self._receive([data], flags)
        return bytes(memoryview(data)[:size]), _sender(header)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As recvfrom, into a buffer."""
        view = memoryview(buffer).cast("B")
        within(view, nbytes)
        size, _, header = self._receive([view[: nbytes or len(view)]], flags)
        return size, _sender(header)

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """(data, ancillary data, flags, address): of what ancillary.py can tell what was asked for."""
        check_room(ancbufsize)
        if bufsize < 0:
            raise ValueError("negative buffer size in recvmsg()")
        data = bytearray(bufsize)
        size, told, header = self._receive([data], flags)
        return bytes(memoryview(data)[:size]), *self._ancillary(header, ancbufsize, told), _sender(header)

    def recvmsg_into(self, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> Any:
        """As recvmsg, into several buffers."""
        check_room(ancbufsize)
        size, told, header = self._receive(list(buffers), flags)
        return size, *self._ancillary(header, ancbufsize, told), _sender(header)

    def _ancillary(self, header: bytes, room: int, told: int) -> tuple[list[tuple[int, int, bytes]], int]:
        """As far as there is room; MSG_CTRUNC where there is not (put_cmsg)."""
        if not header:
            return [], told
        if isinstance(header, QueuedHeader):
            rows = header.rows
        else:
            rows = ancillary.rows(read_header(header), lambda level, option: (level, option) in self._told)
        fit: list[tuple[int, int, bytes]] = []
        for row in rows:
            left = room - std.CMSG_LEN(0)
            if left < len(row[2]):
                if left >= 0:
                    fit.append((*row[:2], row[2][:left]))
                return fit, told | int(std.MSG_CTRUNC)
            room -= std.CMSG_SPACE(len(row[2]))
            fit.append(row)
        return fit, told


def _sender(header: bytes) -> Any:
    if not header:
        return None
    sender = read_header(header)
    return host_and_port({"address": sender.address, "port": sender.port})
