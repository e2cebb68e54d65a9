"""Datagram sockets: calls, datagrams both ways, errors; udp holds ports and peers, here is what Linux's sockets say.

A call that udp has to settle (bind, connect, a membership) is one at a time; calls on the same socket that come
meanwhile wait behind it, while datagrams go on: both pipes keep their order. After a restart of udp every socket is
made anew there, with its port, peer, options and groups; datagrams that were under way are lost, as they may be. A call
that comes while udp is not there waits for it, up to `gateway.tcp_wait_ms`.
"""

from __future__ import annotations

import errno
import struct
from typing import Any

from gateway import options
from gateway.arguments import (
    AF_INET,
    IPPROTO_ICMP,
    IPPROTO_IP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    SOCK_DGRAM,
    SOCK_FLAGS,
    SOCK_TYPE_MASK,
    SocketArguments,
    parse,
)
from gateway.calls import MS
from gateway.errors import CallError
from gateway.options import DATAGRAM_OPTIONS, Kind
from gateway.state import Asked, DatagramSocket, Session
from gateway.work import ANY, LOOPBACK, Work, ipv4, owner_and_ends, text_address
from levelip.frames.seam import (
    Associate,
    Bind,
    Close,
    Datagram,
    Failed,
    GetInfo,
    Member,
    OpenDatagram,
    Result,
    SendTo,
    SetOption,
    Took,
)
from levelip.rpc.messages import DatagramError, DatagramIn, Request, SendDatagram, TookDatagrams
from levelip.rpc.place import Place
from levelip.tracing.reasons import BAD_MESSAGE, UDP_DOWN, UDP_UNKNOWN
from levelip.wire.ipoptions import to_send

QUEUE = 4096  # datagrams that wait for udp; more are dropped
IP_MTU, IP_MULTICAST_IF, ADD_MEMBERSHIP, DROP_MEMBERSHIP = 14, 32, 35, 36
KINDS = ("datagram", "sendto", "restored", "interfaces")  # of what udp is asked
_DEFAULTS = {"IP_MULTICAST_TTL": 1, "IP_MULTICAST_LOOP": 1, "IP_MULTICAST_ALL": 1, "IP_MTU_DISCOVER": 1}
_NAMES = {"join": "setsockopt", "leave": "setsockopt", "mtu": "getsockopt"}  # of the calls that these belong to


class Datagrams:
    """Part of the core; see the module's text."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._state = work.state
        self._sockets = work.state.datagrams

    # calls

    def _open(self, session: Session, args: SocketArguments) -> dict[str, Any]:
        """socket(AF_INET, SOCK_DGRAM, proto)."""
        if args.type & ~SOCK_TYPE_MASK & ~SOCK_FLAGS:
            raise CallError(errno.EINVAL)
        if args.family != AF_INET:
            raise CallError(errno.EAFNOSUPPORT, "IPv4 (2) only")
        if args.proto not in (0, IPPROTO_ICMP, IPPROTO_UDP):
            raise CallError(errno.EPROTONOSUPPORT, "UDP (17) and ICMP (1) only")
        self._work.make_room(session)
        number = self._state.next_socket()
        proto = args.proto or IPPROTO_UDP
        sock = DatagramSocket(id=number, session=session.number, proto=proto)
        if proto == IPPROTO_ICMP:  # which may share identifiers unless told otherwise (Linux INET_PROTOSW_REUSE)
            sock.options["SO_REUSEADDR"] = 1
        self._sockets[number] = sock
        session.sockets[number] = True
        self._tell(OpenDatagram(number, proto, self._known_to_udp(sock)))
        return {"sock": number}

    def take(self, session: Session, request: Request) -> None:
        """A call on a datagram socket: answered at once, or when udp has."""
        self._work.attempt(session, request, self._carry_out)

    def _carry_out(self, session: Session, request: Request) -> dict[str, Any] | None:
        op = request.op
        args = parse(op, request.args)
        if op == "socket":
            return self._open(session, args)
        if op == "interfaces":
            if not self._state.udp_up:
                raise CallError(errno.ENETDOWN)
            self._tell(GetInfo(self._work.ask(Asked("interfaces", 0, session.number, request.request)), 0))
            return None
        sock = self._sockets[request.sock]
        if sock.session != session.number:
            raise CallError(errno.EBADF)
        if sock.call and op != "close":
            self._work.wait_behind(sock, request)
            return None
        match op:
            case "bind":
                self._ask(sock, request, "bind", ipv4(args.address), args.port)
                return None
            case "connect":
                peer = ipv4(args.address) if args.address else b""
                if peer == ANY:
                    peer = sock.chosen_address or LOOPBACK
                self._ask(sock, request, "connect", peer, args.port)
                return None
            case "close":
                self.end(session, sock)
                return {}
            case "getsockname":
                return {"address": sock.local_address or ANY, "port": sock.local_port}
            case "getpeername":
                if not sock.remote_port:
                    raise CallError(errno.ENOTCONN)
                return {"address": sock.remote_address, "port": sock.remote_port}
            case "shutdown":
                if not sock.remote_port:
                    raise CallError(errno.ENOTCONN)
                return {}  # the client ends its half: a datagram has no FIN
            case "setsockopt":
                return self._set(sock, request, args)
            case "getsockopt" if (args.level, args.option) == (IPPROTO_IP, IP_MTU):
                if not sock.remote_address:
                    raise CallError(errno.ENOTCONN)
                self._ask(sock, request, "mtu", b"")
                return None
            case "getsockopt":
                return {"value": self._get(sock, args.level, args.option)}
        raise CallError(errno.EOPNOTSUPP)  # listen, accept

    def _ask(self, sock: DatagramSocket, request: Request, op: str, address: bytes, port: int = 0) -> None:
        sock.call, sock.request, sock.args = op, request.request, [address, port]
        if self._state.udp_up:
            self._put(sock)
        else:
            sock.deadline = self._work.now + self._work.config.gateway.tcp_wait_ms * MS
            self._work.arm(sock.deadline, "udp", sock.id)

    def _put(self, sock: DatagramSocket) -> None:
        """Put the socket's call to udp."""
        address, port = sock.args
        assert isinstance(address, bytes) and isinstance(port, int)
        sock.deadline = 0
        number = self._work.ask(Asked("datagram", sock.id, sock.session, sock.request))
        kept = sock.options
        match sock.call:
            case "bind":
                reuse = bool(kept.get("SO_REUSEADDR")), bool(kept.get("SO_REUSEPORT"))
                self._tell(Bind(number, sock.id, address, port, *reuse))
            case "connect":
                self._tell(Associate(number, sock.id, address, port))
            case "mtu":
                self._tell(GetInfo(number, sock.id))
            case _:
                self._tell(Member(number, sock.id, address, sock.call == "join"))

    def timer(self, deadline: int, number: int) -> None:
        """udp did not come up for a call in time."""
        sock = self._sockets.get(number)
        if sock is not None and sock.deadline == deadline:
            sock.deadline = 0
            self.answered(Asked("datagram", sock.id, sock.session, sock.request), Result(0, errno.ENETDOWN))

    def answered(self, asked: Asked, frame: Result) -> None:
        """udp answers a call, or a datagram that somebody wanted to know of."""
        session = self._state.sessions.get(asked.session)
        sock = self._sockets.get(asked.sock)
        if asked.kind == "restored":
            return
        if asked.kind == "interfaces":
            self._work.note(session, "interfaces", 0, frame.errno)
            self._work.reply(session, asked.request, frame.errno, frame.data)
            return
        if asked.kind == "sendto":
            if sock is not None:
                self._learn(sock, frame.data)
            if asked.request:
                self._work.reply(session, asked.request, frame.errno)
            return
        if sock is None:
            return  # closed meanwhile
        op, request = sock.call, sock.request
        sock.call, sock.request = "", 0
        data: dict[str, Any] = {}
        if not frame.errno:
            self._settled(sock, op, frame.data)
            data = {"address": sock.local_address or ANY, "port": sock.local_port}
            if op == "mtu":
                data = {"value": options.number(frame.data["mtu"])}
            elif op == "connect":
                data = {"local_address": data["address"], "local_port": data["port"],
                        "remote_address": sock.remote_address, "remote_port": sock.remote_port}  # fmt: skip
        self._work.note(session, _NAMES.get(op, op), sock.id, frame.errno)
        self._work.reply(session, request, frame.errno, {} if op in ("join", "leave") or frame.errno else data)
        waiting, sock.waiting = sock.waiting, []
        if session is not None:
            for one in waiting:
                self.take(session, one)

    def _settled(self, sock: DatagramSocket, op: str, data: dict[str, Any]) -> None:
        address, port = (sock.args or [b"", 0])[:2]
        assert isinstance(address, bytes) and isinstance(port, int)
        if op in ("bind", "connect"):
            self._learn(sock, data)
        if op == "bind":
            sock.chosen_address, sock.chosen_port = b"" if address == ANY else address, bool(port)
        elif op == "connect":
            sock.remote_address, sock.remote_port = (address, port) if address else (b"", 0)
        elif op == "join":
            sock.groups.append(address)
        elif op == "leave":
            sock.groups.remove(address)

    @staticmethod
    def _learn(sock: DatagramSocket, data: dict[str, Any]) -> None:
        address, port = data.get("address"), data.get("port")
        if isinstance(address, bytes) and isinstance(port, int):
            sock.local_address, sock.local_port = address, port

    # options

    def _set(self, sock: DatagramSocket, request: Request, args: Any) -> dict[str, Any] | None:
        level, number, value = args.level, args.option, args.value
        if level != IPPROTO_TCP:  # which is no level of these sockets
            options.check_length(level, number, value)
        uid = self._work.state.sessions[sock.session].uid
        number, value = options.unforced(level, number, value, uid=uid)
        if level == IPPROTO_IP and number in (ADD_MEMBERSHIP, DROP_MEMBERSHIP):
            self._ask(sock, request, "join" if number == ADD_MEMBERSHIP else "leave", _group(value))
            return None
        if level == IPPROTO_IP and number == IP_MULTICAST_IF:
            return {}  # there is one interface
        option = options.find(level, number, reading=False, table=DATAGRAM_OPTIONS)
        if option.kind is Kind.BUFFER:
            asked = options.integer(value)
            most = self._work.config.udp.receive_buffer_max
            least = options.MIN_RCVBUF if option.name == "SO_RCVBUF" else options.MIN_SNDBUF
            kept = {option.name: max(2 * (most if asked < 0 else min(asked, most)), least)}
        elif option.kind is Kind.OPTIONS:
            sock.ip_options = options.ip_options(value, uid=uid)
            return {}
        else:
            kept = options.parse(option, value, self._work.config)
            if option.name in options.STAMPS:  # Linux sock_set_timestamp
                kept = {**dict.fromkeys(options.STAMPS, 0), **kept}
            options.check_allowed(option, kept, sock.options, uid=uid)
        sock.options.update(kept)
        if option.tcp and option.name in kept:
            self._tell(SetOption(sock.id, option.tcp, kept[option.name]))
        return {}

    def _get(self, sock: DatagramSocket, level: int, number: int) -> bytes:
        if level == IPPROTO_IP and number == IP_MULTICAST_IF:
            return ANY
        option = options.find(level, number, reading=True, table=DATAGRAM_OPTIONS)
        match option.name:
            case "IP_OPTIONS":
                return sock.ip_options
            case "SO_RCVBUF" | "SO_SNDBUF":
                return options.number(sock.options.get(option.name, self._work.config.udp.receive_buffer))
        if option.kind is Kind.READ:
            return options.computed(option.name, sock, kind=SOCK_DGRAM, proto=sock.proto)
        if option.name not in sock.options and option.name in _DEFAULTS:
            return options.number(_DEFAULTS[option.name])
        return options.show(option, sock.options, self._work.config)

    # datagrams

    def send(self, session: Session, message: SendDatagram) -> None:
        """From the client to udp. A failure is answered if the client asked, and counted if it did not."""
        sock = self._sockets.get(message.sock)
        error = 0
        own = message.ip_options
        ip_options = None if own is None else to_send(own, privileged=session.uid == 0)
        if sock is None or sock.session != session.number:
            error = errno.EBADF
        elif isinstance(message.payload, Place) or (own is not None and ip_options is None):
            error = errno.EINVAL
        elif len(message.address) not in (0, 4) or len(message.source) not in (0, 4):
            error = errno.EAFNOSUPPORT
        elif not self._state.udp_up:
            error = errno.ENETDOWN
        elif len(self._work.to_udp) >= QUEUE:
            error = errno.ENOBUFS
        if error:
            reason = UDP_DOWN if error in (errno.ENETDOWN, errno.ENOBUFS) else BAD_MESSAGE
            self._work.drop(reason, sock=message.sock, errno=error)
            if message.request:
                self._work.reply(session, message.request, error)
            return
        assert sock is not None and isinstance(message.payload, bytes)
        number = 0
        if message.request or not sock.local_port:  # the port that it is about to get is to be known here, too
            number = self._work.ask(Asked("sendto", sock.id, session.number, message.request))
        self._tell(
            SendTo(
                number, sock.id, message.address, message.port, message.payload, message.tos, message.ttl,
                message.source, self._state.ids.next(), sock.ip_options if ip_options is None else ip_options,
            )
        )  # fmt: skip

    def arrived(self, frame: Datagram) -> None:
        """From udp to the client."""
        sock = self._sockets.get(frame.sock)
        session = self._state.sessions.get(sock.session) if sock is not None else None
        if sock is None or session is None:
            self._work.drop(UDP_UNKNOWN, frame=frame.id, sock=frame.sock)
            return
        if not session.peer:  # its connection is gone: as if the buffer were full
            self._work.drop(UDP_UNKNOWN, frame=frame.id, sock=frame.sock)
            self._tell(Took(sock.id, frame.upto))
            return
        sock.upto = frame.upto
        self._work.tell(
            session,
            DatagramIn(
                frame.sock, frame.upto, frame.address, frame.port, frame.local_address, frame.tos, frame.ttl,
                frame.iface, frame.payload, frame.ip_options, max(0, self._work.now - frame.arrived), frame.drops,
            ),
        )  # fmt: skip

    def took(self, session: Session, message: TookDatagrams) -> None:
        """The application has taken some."""
        sock = self._sockets.get(message.sock)
        if sock is None or sock.session != session.number:
            self._work.drop(UDP_UNKNOWN, sock=message.sock)
            return
        upto = min(message.upto, sock.upto)
        if upto > sock.taken:
            sock.taken = upto
            self._tell(Took(sock.id, upto))

    def failed(self, frame: Failed) -> None:
        """An ICMP error: SO_ERROR of a connected socket if it is a hard one, or of any that said IP_RECVERR."""
        sock = self._sockets.get(frame.sock)
        if sock is None:
            self._work.drop(UDP_UNKNOWN, frame=frame.id, sock=frame.sock)
            return
        wanted = bool(sock.options.get("IP_RECVERR"))
        if not wanted and not (sock.remote_address and frame.hard):
            return  # net/ipv4/udp.c __udp4_lib_err
        if frame.icmp_type >= 0:  # else our own verdict, which the call has told (ip_local_error)
            sock.so_error = frame.errno
        session = self._state.sessions.get(sock.session)
        if session is not None and session.peer:
            error = DatagramError(
                frame.sock, frame.errno, frame.icmp_type, frame.icmp_code, frame.reporter, frame.address, frame.port,
                frame.mtu, frame.payload if wanted else b"",
            )  # fmt: skip
            self._work.tell(session, error)

    # ends and beginnings

    def end(self, session: Session, sock: DatagramSocket) -> None:
        """close(2): at once."""
        del self._sockets[sock.id]
        session.sockets.pop(sock.id, None)
        if sock.call:
            self._work.reply(session, sock.request, errno.EBADF, message="closed meanwhile")
        for request in sock.waiting:
            self._work.reply(session, request.request, errno.EBADF, message="closed meanwhile")
        if self._state.udp_up:
            self._tell(Close(sock.id))

    def udp_up(self, epoch: int) -> None:
        """udp is there: it is told of every socket, which changes nothing if it is the one of before."""
        if self._state.udp_epoch != epoch:
            for sock in self._sockets.values():
                sock.upto = sock.taken = 0
        self._state.udp_up, self._state.udp_epoch = True, epoch
        for sock in self._sockets.values():
            self._restore(sock)
            if sock.deadline:
                self._put(sock)

    def _restore(self, sock: DatagramSocket) -> None:
        self._tell(OpenDatagram(sock.id, sock.proto, self._known_to_udp(sock)))
        for group in sock.groups:
            self._tell(Member(self._quiet(sock), sock.id, group, True))
        if not sock.local_port:
            return
        reuse = bool(sock.options.get("SO_REUSEADDR")), bool(sock.options.get("SO_REUSEPORT"))
        last = self._quiet(sock)
        address = sock.chosen_address if not sock.remote_address else sock.local_address
        self._tell(Bind(last, sock.id, address or ANY, sock.local_port, *reuse))
        if sock.remote_address:
            last = self._quiet(sock)
            self._tell(Associate(last, sock.id, sock.remote_address, sock.remote_port))

    @staticmethod
    def _known_to_udp(sock: DatagramSocket) -> dict[str, int]:
        """The options that udp acts on."""
        return {
            option.tcp: sock.options[option.name]
            for option in DATAGRAM_OPTIONS.values()
            if option.tcp and option.name in sock.options
        }

    def _quiet(self, sock: DatagramSocket) -> int:
        """The number of a question whose answer changes nothing."""
        return self._work.ask(Asked("restored", sock.id))

    def udp_down(self) -> None:
        """Calls under way fail; sockets stay."""
        state, work = self._state, self._work
        if not state.udp_up:
            return
        state.udp_up = False
        work.to_udp.clear()
        for number, asked in [*state.asked.items()]:
            if asked.kind in KINDS:
                del state.asked[number]
                if asked.kind != "restored":
                    self.answered(asked, Result(number, errno.ENETDOWN))

    def row(self, sock: DatagramSocket) -> dict[str, Any]:
        """For `lvlip ss`."""
        session = self._state.sessions[sock.session]
        return {
            "sock": sock.id,
            "proto": "icmp" if sock.proto == IPPROTO_ICMP else "udp",
            "state": "connected" if sock.remote_address else "unconnected",
            **owner_and_ends(session, sock),
            "recv_q": max(0, sock.upto - sock.taken),
            "so_error": sock.so_error,
            "groups": [text_address(group) for group in sock.groups],
            "options": dict(sock.options),
        }

    def _tell(self, frame: Any) -> None:
        self._work.to_udp.append(frame)


def _group(value: int | bytes) -> bytes:
    """The group of a struct ip_mreq (8 bytes) or ip_mreqn (12)."""
    if isinstance(value, int) or len(value) < 8:
        raise CallError(errno.EINVAL, "a struct ip_mreq is needed")
    group: bytes = struct.unpack_from("4s", value)[0]
    return group
