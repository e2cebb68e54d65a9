"""The socket calls: each decided by the table, answered here or once tcp has answered.

A call that tcp has to settle (bind, listen, connect) is kept at the socket while it is under way, and taken step by
step: while tcp is down it waits; a socket that has to have a port gets it first. The same steps, with the op "restore",
give bound and listening sockets to a new tcp.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from gateway import options
from gateway.arguments import (
    AF_INET,
    IPPROTO_TCP,
    SOCK_FLAGS,
    SOCK_STREAM,
    SOCK_TYPE_MASK,
    BindArguments,
    CloseArguments,
    ConnectArguments,
    ListenArguments,
    ShutdownArguments,
    SocketArguments,
    parse,
)
from gateway.errors import CallError
from gateway.optioncalls import OptionCalls
from gateway.state import NOT_YET, Asked, Call, Orphan, Session, Socket
from gateway.table import VERDICTS, Input, State
from gateway.work import ANY, LOOPBACK, Work, ipv4
from levelip.frames.seam import (
    Bind,
    Close,
    Connect,
    Connected,
    ForgetMemory,
    Incoming,
    Listen,
    Result,
    Taken,
)
from levelip.rpc.messages import Pending, Request
from levelip.tracing.reasons import TCP_UNKNOWN

_OF_CONNECTION = (
    "rings", "sent", "accepted", "limit", "ended", "received", "relayed", "consumed", "urgent", "eof", "eof_relayed",
    "reset", "marked", "fresh", "mark",
)  # fmt: skip
"""Of a Socket, what begins anew with each connection."""
SOCK_MAX, AF_MAX, IPPROTO_MAX = 11, 46, 263  # Linux 6.18
MS = 1_000_000  # ns
RETRY_NS = 200 * MS  # between attempts to get a port back from a new tcp
YOUNG_NS = 1000 * MS  # so long a tcp that has just come up may not have heard from ip which addresses are ours
YOUNG_RETRY_NS = 10 * MS  # between attempts in that time
UNROUTED = (errno.ENETUNREACH, errno.EADDRNOTAVAIL)  # what a tcp without routes says


class Calls:
    """Every call of docs/rpc.md."""

    def __init__(
        self, work: Work, on_accept: Callable[[Socket], None], on_end: Callable[[Session, Socket], None]
    ) -> None:
        """`on_accept` hears of each connection once its client knows it, `on_end` of each socket that is closed."""
        self._work = work
        self._on_accept = on_accept
        self._on_end = on_end
        self._state = work.state
        self._sockets = work.state.sockets
        self._options = OptionCalls(work)
        self._handlers = {
            "bind": self._bind,
            "listen": self._listen,
            "accept": self._accept,
            "connect": self._connect,
            "shutdown": self._shutdown,
            "close": self._close,
            "setsockopt": self._options.setsockopt,
            "getsockopt": self._options.getsockopt,
            "getsockname": self._getsockname,
            "getpeername": self._getpeername,
        }

    # a request comes, an answer goes

    def take(self, session: Session, request: Request) -> None:
        """Carry out a call: answer it at once, keep it until tcp has answered, or queue it behind another one."""
        data = self._work.attempt(session, request, self._carry_out)
        if data is not None and request.op == "accept":
            self._on_accept(self._sockets[data["sock"]])

    def _carry_out(self, session: Session, request: Request) -> dict[str, Any] | None:
        op = request.op
        args = parse(op, request.args)
        if op == "socket":
            return self._socket(session, args)
        if op == "resolver":
            return self._resolver()
        sock = self._sockets.get(request.sock)
        if sock is None or sock.session != session.number or sock.listener:
            raise CallError(errno.EBADF)
        if op != "close" and sock.call is not None and self._busy(sock.call, op):
            self._work.wait_behind(sock, request)
            if sock.call.op == "restore" and not sock.call.deadline:
                self._arm_call(sock, sock.call)
            return None
        if op == "connect" and not args.address:
            self._dissolve(session, sock)
            return {}
        if sock.unreported and op == "connect":  # SS_CONNECTING with an established connection: Linux says 0, once
            sock.unreported = False
            if sock.state is State.CLOSED:  # with one that is over by now: what ended it
                error, sock.so_error = sock.so_error or errno.ECONNABORTED, 0
                self._start_over(session, sock)
                raise CallError(error)
            return self._connection(sock)
        verdict = VERDICTS[op, sock.state]
        if verdict:
            raise CallError(verdict)
        handler: Any = self._handlers[op]
        answer: dict[str, Any] | None = handler(session, sock, request.request, args)
        return answer

    @staticmethod
    def _busy(call: Call, op: str) -> bool:
        """Whether `op` has to wait for `call`."""
        if call.op == "connect":
            return False
        return call.op != "restore" or op in ("bind", "listen", "connect")

    def _finish(self, sock: Socket, error: int, data: dict[str, Any] | None = None) -> None:
        """The socket's call is settled: answer it, and take those that waited for it."""
        call, sock.call = sock.call, None
        session = self._state.sessions.get(sock.session)
        if call is not None and call.op != "restore":
            self._work.note(session, call.op, sock.id, error)
            self._work.reply(session, call.request, error, data)
        waiting, sock.waiting = sock.waiting, []
        if session is not None:
            for request in waiting:
                self.take(session, request)

    # calls that need no tcp

    def _socket(self, session: Session, args: SocketArguments) -> dict[str, Any]:
        kind = args.type & SOCK_TYPE_MASK
        if args.type & ~SOCK_TYPE_MASK & ~SOCK_FLAGS:
            raise CallError(errno.EINVAL)
        if not 0 <= args.family < AF_MAX:
            raise CallError(errno.EAFNOSUPPORT)
        if kind >= SOCK_MAX:
            raise CallError(errno.EINVAL)
        if args.family != AF_INET:
            raise CallError(errno.EAFNOSUPPORT, "IPv4 (2) only")
        if not 0 <= args.proto < IPPROTO_MAX:
            raise CallError(errno.EINVAL)
        if kind != SOCK_STREAM:
            raise CallError(errno.ESOCKTNOSUPPORT, "SOCK_STREAM (1) only")
        if args.proto not in (0, IPPROTO_TCP):
            raise CallError(errno.EPROTONOSUPPORT)
        self._work.make_room(session)
        number = self._state.next_socket()
        self._sockets[number] = Socket(id=number, session=session.number)
        session.sockets[number] = True
        return {"sock": number}

    def _resolver(self) -> dict[str, Any]:
        """What was configured of name resolution, which is the clients' affair."""
        gateway = self._work.config.gateway
        return {"servers": gateway.dns_servers, "search": gateway.dns_search, "options": gateway.dns_options}

    def _getsockname(self, _session: Session, sock: Socket, _request: int, _args: Any) -> dict[str, Any]:
        return {"address": sock.local_address or ANY, "port": sock.local_port}

    def _getpeername(self, session: Session, sock: Socket, request: int, _args: Any) -> dict[str, Any] | None:
        if self._options.over(session, sock, request, "getpeername"):
            return None
        return {"address": sock.remote_address, "port": sock.remote_port}

    # bind, listen, connect

    def _bind(self, _session: Session, sock: Socket, request: int, args: BindArguments) -> None:
        address = ipv4(args.address)
        if sock.bound_port:  # after a connect that failed: the port that bind() chose is still there
            raise CallError(errno.EINVAL)
        sock.call = Call(op="bind", request=request, address=address, port=args.port)
        self.advance(sock)

    def _listen(self, session: Session, sock: Socket, request: int, args: ListenArguments) -> None:
        largest = self._work.config.tcp.backlog_max
        backlog = args.backlog if 0 <= args.backlog <= largest else largest  # Linux compares it as unsigned
        sock.region = session.memory
        sock.call = Call(op="listen", request=request, backlog=backlog)
        self.advance(sock)

    def _connect(self, session: Session, sock: Socket, request: int, args: ConnectArguments) -> None:
        if sock.state is State.FAILED:
            error, sock.so_error = sock.so_error or errno.ECONNABORTED, 0
            self._unconnect(sock)
            self._reserve(sock)
            raise CallError(error)
        address = ipv4(args.address)
        if address == ANY:
            address = sock.chosen_address or LOOPBACK
        if address[0] >= 224:
            raise CallError(errno.ENETUNREACH, "no connection to a group or to everybody (RFC 9293 3.9.2.3)")
        sock.so_error = 0
        sock.region = session.memory
        sock.call = Call(op="connect", request=request, address=address, port=args.port, nonblocking=args.nonblocking)
        self._work.move(sock, Input.CONNECT)
        self.advance(sock)

    def advance(self, sock: Socket) -> None:
        """Take the next step of the socket's call, as far as tcp can be asked now."""
        call = sock.call
        if call is None:
            return
        if not self._state.tcp_up or sock.leaving:
            if call.op != "restore" and not call.deadline:
                self._arm_call(sock, call)
            return
        if not sock.in_tcp and (call.op != "connect" or sock.chosen_address or sock.bound_port):
            self._step_bind(sock, call)
        elif call.op == "connect":
            call.step = "connect"
            sock.in_tcp = True
            told = options.all_for_tcp(sock.options)
            self._work.to_tcp.append(Connect(sock.id, sock.region, call.address, call.port, told, sock.ip_options))
        elif call.op == "restore" and sock.state is not State.LISTENING:
            self._finish(sock, 0)
        else:
            call.step = "listen"
            call.asked = self._work.ask(Asked("call", sock.id))
            backlog = sock.backlog if call.op == "restore" else call.backlog
            told = options.all_for_tcp(sock.options)
            self._work.to_tcp.append(Listen(call.asked, sock.id, sock.region, backlog, told))

    def _arm_call(self, sock: Socket, call: Call) -> None:
        call.deadline = self._work.now + self._work.config.gateway.tcp_wait_ms * MS
        self._work.arm(call.deadline, "call", sock.id)

    def _step_bind(self, sock: Socket, call: Call) -> None:
        address, port = sock.chosen_address, sock.bound_port
        if call.op == "bind":
            address, port = call.address, call.port
        call.step = "bind"
        call.asked = self._work.ask(Asked("call", sock.id))
        reuse_address = bool(sock.options.get("SO_REUSEADDR"))
        reuse_port = bool(sock.options.get("SO_REUSEPORT"))
        wanted = b"" if address == ANY else address
        ports = sock.options.get("IP_LOCAL_PORT_RANGE", 0)
        self._work.to_tcp.append(Bind(call.asked, sock.id, wanted, port, reuse_address, reuse_port, ports))

    def result(self, frame: Result) -> None:
        """tcp answers a question."""
        asked = self._state.asked.pop(frame.request, None)
        if asked is None:
            self._work.drop(TCP_UNKNOWN, request=frame.request)
            return
        if asked.kind != "call":
            self._options.answered(asked, frame)
            return
        sock = self._sockets.get(asked.sock)
        if sock is None or sock.call is None or sock.call.asked != frame.request:
            return  # closed meanwhile
        call = sock.call
        if frame.errno:
            self._step_failed(sock, call, frame.errno)
        elif call.step == "bind":
            self._bound(sock, call, frame.data)
        else:
            sock.backlog = call.backlog if call.op == "listen" else sock.backlog
            if call.op == "listen":
                self._work.move(sock, Input.LISTENING)
            self._finish(sock, 0, {"address": sock.local_address or ANY, "port": sock.local_port})

    def _bound(self, sock: Socket, call: Call, data: dict[str, Any]) -> None:
        sock.in_tcp = True
        port = data.get("port", call.port)
        address = data.get("address", call.address)
        sock.local_port = sock.bound_port = port if isinstance(port, int) else call.port
        sock.local_address = (address if isinstance(address, bytes) else call.address) or ANY
        if call.op != "bind":
            self.advance(sock)
            return
        sock.chosen_port = call.port
        sock.chosen_address = b"" if call.address == ANY else call.address
        self._work.move(sock, Input.BOUND)
        self._finish(sock, 0, {"address": sock.local_address, "port": sock.local_port})

    def _step_failed(self, sock: Socket, call: Call, error: int) -> None:
        if call.op == "restore":  # somebody else has the port for now: try again, quietly
            self._work.counters["restore_retries"] += 1
            self._again(sock, call)
        elif self._young() and error in UNROUTED:
            self._again(sock, call)
        elif call.op == "connect":
            self.connect_failed(sock, error)
        else:
            self._finish(sock, error)

    def _young(self) -> bool:
        """Whether tcp came up a moment ago."""
        return self._state.tcp_up and self._work.now < self._state.tcp_since + YOUNG_NS

    def _again(self, sock: Socket, call: Call) -> None:
        """Ask tcp once more in a while."""
        call.step = ""
        self._work.arm(self._work.now + (YOUNG_RETRY_NS if self._young() else RETRY_NS), "again", sock.id)

    # connections

    def connected(self, frame: Connected) -> None:
        """A connect succeeded."""
        sock = self._sockets.get(frame.sock)
        if sock is None or sock.leaving or sock.state is not State.CONNECTING or sock.call is None:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)
            return
        self._learn(sock, frame)
        self._work.move(sock, Input.CONNECTED)
        sock.unreported = sock.call.nonblocking is True
        self._finish(sock, 0, self._connection(sock))

    def connect_refused(self, sock: Socket, error: int) -> None:
        """tcp says that a connect came to nothing."""
        call = sock.call
        if call is not None and call.step == "connect" and self._young() and error in UNROUTED:
            sock.in_tcp = bool(sock.bound_port)
            self._again(sock, call)
        else:
            self.connect_failed(sock, error)

    def connect_failed(self, sock: Socket, error: int, *, shut: bool = False) -> None:
        """A connect came to nothing. `shut`: by shutdown(), after which even a non-blocking one may be tried anew."""
        call = sock.call
        # tcp forgets a connection that failed, but keeps the port that was bound for it
        asked = call is not None and call.step == "connect"
        sock.in_tcp = asked and self._state.tcp_up and not shut and bool(sock.bound_port)
        how = call.nonblocking if call is not None else None
        sock.so_error = 0 if how is False else error  # a blocking connect takes the error along
        if how is True and not shut:
            self._work.move(sock, Input.FAILED)
            if not sock.chosen_port:  # another may be bound now (tcp_set_state, inet_put_port)
                self._leave_tcp(sock)
                sock.bound_port = 0
        else:
            self._unconnect(sock)
        self._finish(sock, error)
        self._reserve(sock)

    def _reserve(self, sock: Socket) -> None:
        """A socket that has gone back to `bound` keeps the port that bind() chose: tcp is asked for it again."""
        if sock.state is State.BOUND and sock.call is None and not sock.in_tcp:
            sock.call = Call(op="restore")
            self.advance(sock)

    def _unconnect(self, sock: Socket) -> None:
        """Back to the start, with what bind() had chosen (net/ipv4/tcp.c tcp_disconnect)."""
        sock.local_address = sock.chosen_address or ANY
        sock.remote_address, sock.remote_port = b"", 0
        if sock.state is not State.FAILED:  # then it has no other port but what was bound since
            if sock.in_tcp and not sock.chosen_port:
                self._leave_tcp(sock)
            sock.bound_port = sock.chosen_port
        self._work.move(sock, Input.UNCONNECT_BOUND if sock.bound_port else Input.UNCONNECT)

    def _start_over(self, session: Session, sock: Socket) -> None:
        """A connection that is over, and of which connect() has told that: the next one begins another (Linux
        __inet_stream_connect: SS_UNCONNECTED). What had come and was not read is gone (tcp_disconnect)."""
        if session.inline or session.starved:
            self._on_end(session, sock)
        self._leave_tcp(sock)
        fresh = Socket(id=sock.id, session=sock.session)
        for name in _OF_CONNECTION:
            setattr(sock, name, getattr(fresh, name))
        self._unconnect(sock)
        self._reserve(sock)

    def _dissolve(self, session: Session, sock: Socket) -> None:
        """connect() with AF_UNSPEC: no peer any more, nor a listener (net/ipv4/tcp.c tcp_disconnect)."""
        match sock.state:
            case State.LISTENING:
                self._end_listening(session, sock)
            case State.CONNECTING:
                self._end_connecting(sock)
                sock.so_error = errno.ECONNRESET
            case State.CONNECTED | State.CLOSED:
                if sock.state is State.CONNECTED and not (sock.ended and sock.eof != NOT_YET):
                    sock.so_error = errno.ECONNRESET  # a FIN of each side leaves nothing to reset (tcp_need_reset)
                sock.unreported = False
                self._start_over(session, sock)
            case State.FAILED:  # its error is still in SO_ERROR
                self._unconnect(sock)
                self._reserve(sock)

    @staticmethod
    def _learn(sock: Socket, frame: Connected | Incoming) -> None:
        sock.local_address, sock.local_port = frame.local_address, frame.local_port
        sock.remote_address, sock.remote_port = frame.remote_address, frame.remote_port
        sock.rings, sock.limit = frame.rings, frame.limit
        if frame.rings.region != sock.region:
            sock.region = ""  # tcp's own: bytes travel inline

    @staticmethod
    def _connection(sock: Socket) -> dict[str, Any]:
        """What accept and connect answer."""
        rings: list[Any] = ["", 0, 0, 0, 0]
        if sock.rings is not None and sock.region:
            ring = sock.rings
            rings = [ring.region, ring.send_base, ring.send_size, ring.receive_base, ring.receive_size]
        return {
            "local_address": sock.local_address,
            "local_port": sock.local_port,
            "remote_address": sock.remote_address,
            "remote_port": sock.remote_port,
            "rings": rings,
            "limit": sock.limit,
        }

    def incoming(self, frame: Incoming) -> None:
        """A connection to be accepted."""
        listener = self._sockets.get(frame.listener)
        if listener is None or listener.state is not State.LISTENING or frame.sock in self._sockets:
            self._work.drop(TCP_UNKNOWN, sock=frame.listener)
            self._work.to_tcp.append(Close(frame.sock, True))
            return
        child = Socket(
            id=frame.sock, session=listener.session, state=State.CONNECTED, listener=listener.id, in_tcp=True,
            options=dict(listener.options), region=listener.region, ip_options=frame.ip_options,
        )  # fmt: skip
        self._learn(child, frame)
        self._sockets[child.id] = child
        listener.queue.append(child.id)
        self._tell_pending(listener)

    def _tell_pending(self, listener: Socket) -> None:
        session = self._state.sessions[listener.session]
        self._work.tell(session, Pending(listener.id, len(listener.queue)))

    def _accept(self, session: Session, sock: Socket, _request: int, _args: Any) -> dict[str, Any]:
        if not sock.queue:
            raise CallError(errno.EAGAIN)
        self._work.make_room(session)
        child = self._sockets[sock.queue.pop(0)]
        child.listener = 0
        session.sockets[child.id] = True
        self._work.to_tcp.append(Taken(sock.id, child.id))
        self._tell_pending(sock)
        return {"sock": child.id, **self._connection(child)}

    # the end

    def _shutdown(self, session: Session, sock: Socket, request: int, args: ShutdownArguments) -> dict[str, Any] | None:
        if sock.state is State.LISTENING:
            if args.how != 1:  # SHUT_RD ends the listening (net/ipv4/af_inet.c inet_shutdown)
                self._end_listening(session, sock)
        elif sock.state is State.CONNECTING:
            self._end_connecting(sock)
        elif self._options.over(session, sock, request, "shutdown"):
            return None
        return {}  # connected: the FIN is the stream's Eof, which the client sends after its last Send

    def _end_listening(self, session: Session, sock: Socket) -> None:
        self._leave_tcp(sock)
        self._drop_children(sock)
        sock.call = None
        self._unconnect(sock)
        self._work.tell(session, Pending(sock.id, 0))
        self._reserve(sock)

    def _end_connecting(self, sock: Socket) -> None:
        sock.in_tcp |= sock.call is not None and bool(sock.call.step)  # tcp may hold it before we hear of it
        self._leave_tcp(sock)
        self.connect_failed(sock, errno.ECONNRESET, shut=True)

    def _leave_tcp(self, sock: Socket) -> None:
        """Give up what tcp holds under this id; the id can be used there again after Released."""
        if sock.in_tcp and self._state.tcp_up:
            self._work.to_tcp.append(Close(sock.id, True))
            sock.leaving = True
        sock.in_tcp = False

    def _drop_children(self, sock: Socket) -> None:
        """Connections that nobody accepted end with their listener (RFC 9293 3.10.4, LISTEN state)."""
        for number in sock.queue:
            child = self._sockets.pop(number)
            if child.in_tcp:
                self._say_close(child, abort=True)
        sock.queue.clear()

    def forget_children(self, sock: Socket) -> None:
        """The connections that waited on a listener went with their tcp."""
        self._drop_children(sock)
        self._tell_pending(sock)

    def _close(self, session: Session, sock: Socket, request: int, args: CloseArguments) -> dict[str, Any] | None:
        return {} if self.end(session, sock, abort=args.abort, unread=args.unread, request=request) else None

    def end(self, session: Session, sock: Socket, *, abort: bool = False, unread: bool = False,
            request: int = 0) -> bool:  # fmt: skip
        """Close a socket, as Linux closes it; False if `request` is to be answered later (SO_LINGER)."""
        self._sockets.pop(sock.id, None)
        session.sockets.pop(sock.id, None)
        if session.inline or session.starved:
            self._on_end(session, sock)
        if sock.call is not None and sock.call.op != "restore":
            self._work.reply(session, sock.call.request, errno.EBADF, message="closed meanwhile")
        for waiting in sock.waiting:
            self._work.reply(session, waiting.request, errno.EBADF, message="closed meanwhile")
        self._drop_children(sock)
        under_way = sock.call is not None and bool(sock.call.step)  # tcp may hold it before we hear of it
        if not (sock.in_tcp or under_way):
            return True
        lingers = bool(sock.options.get("SO_LINGER"))
        seconds = sock.options.get("linger_s", 0)
        connected = sock.state is State.CONNECTED
        # One that connects is tcp's to end (RFC 9293 3.10.4): in SYN-SENT in silence, in SYN-RECEIVED, or if it is open
        # by now, with a FIN
        alive = connected or sock.state is State.CONNECTING
        # RFC 2525 2.17: unread bytes, so the peer has to know that they were not taken
        abort = abort or not alive or unread or sock.received > sock.relayed or (lingers and not seconds)
        orphan = self._say_close(sock, abort=abort)
        if orphan is None or not (request and connected and lingers) or abort:
            return True
        orphan.session, orphan.request = session.number, request
        orphan.deadline = self._work.now + seconds * 1000 * MS
        self._work.arm(orphan.deadline, "linger", sock.id)
        return False

    def _say_close(self, sock: Socket, *, abort: bool) -> Orphan | None:
        """Tell tcp; the orphan that waits for Released, or None if nothing will come."""
        if not self._state.tcp_up:
            return None
        self._work.to_tcp.append(Close(sock.id, abort))
        if sock.state is State.CLOSED:
            return None
        orphan = self._state.orphans[sock.id] = Orphan(region=sock.region)
        if sock.region:
            self._state.pins[sock.region] = self._state.pins.get(sock.region, 0) + 1
        return orphan

    def released(self, number: int) -> None:
        """tcp has forgotten a socket."""
        orphan = self._state.orphans.pop(number, None)
        if orphan is not None:
            self._orphan_ends(orphan)
            return
        sock = self._sockets.get(number)
        if sock is None:
            return
        if sock.leaving:
            sock.leaving = False
            self.advance(sock)
        elif sock.state is State.CONNECTED:  # both directions have ended and were acknowledged
            sock.in_tcp = False
            self._work.move(sock, Input.GONE)

    def _orphan_ends(self, orphan: Orphan) -> None:
        if orphan.request:
            self._work.reply(self._state.sessions.get(orphan.session), orphan.request, 0)
        region = orphan.region
        if not region:
            return
        pins = self._state.pins
        pins[region] -= 1
        if not pins[region]:
            del pins[region]
            self.forget_region(region)

    def end_region(self, region: str) -> None:
        """The session of this memory is over: remove it, as soon as tcp sends nothing from it any more."""
        self._state.ended_regions[region] = True
        self.forget_region(region)

    def forget_region(self, region: str) -> None:
        """Remove the file, if its session is over and nothing pins it."""
        if region in self._state.ended_regions and region not in self._state.pins:
            del self._state.ended_regions[region]
            self._work.to_door.append(ForgetMemory(region))

    # tcp comes and goes; timers

    def tcp_lost(self) -> None:
        """Nothing that tcp knew can be relied on: questions and waits end; ports are asked for again when it is up."""
        state = self._state
        state.zombies = [number for number, sock in self._sockets.items() if sock.in_tcp] + list(state.orphans)
        asked = [*state.asked.values()]
        state.asked.clear()
        for question in asked:
            if question.kind != "call":
                self._options.answered(question, Result(0, errno.ENETDOWN))
        orphans = [*state.orphans.values()]
        state.orphans.clear()
        for orphan in orphans:
            self._orphan_ends(orphan)
        for sock in [*self._sockets.values()]:
            was_connecting = sock.in_tcp and sock.state is State.CONNECTING and sock.call is not None
            in_progress = was_connecting and sock.call is not None and sock.call.step == "connect"
            sock.in_tcp = sock.leaving = False
            if in_progress:
                self.connect_failed(sock, errno.ECONNRESET)
            elif sock.call is not None:
                sock.call.step, sock.call.asked, sock.call.deadline = "", 0, 0
            elif sock.state in (State.BOUND, State.LISTENING):
                sock.call = Call(op="restore")
            self.advance(sock)

    def tcp_found(self, *, same: bool) -> None:
        """tcp is up. `same`: it is the one of before, which still holds what we gave up when its pipe broke."""
        self._state.tcp_since = self._work.now
        if same:
            for number in self._state.zombies:
                self._work.to_tcp.append(Close(number, True))
                sock = self._sockets.get(number)
                if sock is not None and sock.state is not State.CLOSED:
                    sock.leaving = True
        self._state.zombies = []
        with_call = [sock for sock in self._sockets.values() if sock.call is not None]
        with_call.sort(key=lambda sock: sock.call is not None and sock.call.op != "restore")  # old ports first
        for sock in with_call:
            self.advance(sock)

    def timer(self, deadline: int, kind: str, number: int) -> None:
        """A call has waited too long for tcp; a port is tried again; a close() has lingered long enough."""
        if kind == "linger":
            orphan = self._state.orphans.get(number)
            if orphan is not None and orphan.deadline == deadline:
                request, orphan.request, orphan.deadline = orphan.request, 0, 0
                self._work.reply(self._state.sessions.get(orphan.session), request, 0)
            return
        sock = self._sockets.get(number)
        call = sock.call if sock is not None else None
        if sock is None or call is None or call.step:
            return
        if kind == "again":
            self.advance(sock)
        elif kind == "call" and call.deadline == deadline:
            if call.op == "connect":
                self.connect_failed(sock, errno.ENETDOWN)
            elif call.op == "restore":  # that one goes on; those that wait for it do not
                call.deadline = 0
                self._refuse_waiting(sock)
            else:
                self._finish(sock, errno.ENETDOWN)

    def _refuse_waiting(self, sock: Socket) -> None:
        session = self._state.sessions.get(sock.session)
        waiting, sock.waiting = sock.waiting, []
        for request in waiting:
            self._work.reply(session, request.request, errno.ENETDOWN)
