"""setsockopt and getsockopt; and the calls whose answer depends on a state that tcp alone knows.

What a socket was told is kept in its `options`. Where tcp has the true value of a live connection (its MSS, the size
that a buffer has grown to, the path's MTU) it is asked, and the call is answered with its Result.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final

from gateway import info, options
from gateway.arguments import IPPROTO_TCP, SOCK_STREAM, GetOptionArguments, SetOptionArguments
from gateway.errors import CallError
from gateway.state import NOT_YET, Asked, Session, Socket
from gateway.table import State
from gateway.work import Work
from levelip.frames.seam import GetInfo, Result, SetOption

LIVE: Final = {
    "TCP_MAXSEG": "snd_mss",
    "TCP_QUICKACK": "quickack",
    "TCP_WINDOW_CLAMP": "window_clamp",
    "SO_SNDBUF": "sndbuf",
    "SO_RCVBUF": "rcvbuf",
    "IP_MTU": "pmtu",
}
"""Option → tcp's figure of it, which is the answer for a live connection."""
ENDED: Final = (info.STATES["TIME_WAIT"], info.TCP_CLOSE)  # to a program both are TCP_CLOSE, as on Linux
BINDING: Final = ("SO_REUSEADDR", "SO_REUSEPORT")  # belong to the port, so that they count once it is bound


class OptionCalls:
    """Part of Calls."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def setsockopt(self, session: Session, sock: Socket, _request: int, args: SetOptionArguments) -> dict[str, Any]:
        """Keep the new value; tell tcp, if it has the socket."""
        options.check_length(args.level, args.option, args.value)
        number, value = options.unforced(args.level, args.option, args.value, uid=session.uid)
        option = options.find(args.level, number, reading=False)
        if option.kind is options.Kind.OPTIONS:
            sock.ip_options = options.ip_options(value, uid=session.uid)
            if _active_in_tcp(sock):
                self._work.to_tcp.append(SetOption(sock.id, "ip_options", 0, sock.ip_options))
            return {}
        kept = options.parse(option, value, self._work.config)
        if option.kind is options.Kind.CLAMP and not kept[option.name] and _has_peer(sock):
            raise CallError(errno.EINVAL, "TCP_WINDOW_CLAMP can be taken back before there is a connection only")
        options.check_allowed(option, kept, sock.options, uid=session.uid)
        if option.name.startswith("TCP_FASTOPEN") and _has_peer(sock, listening=option.name == "TCP_FASTOPEN_CONNECT"):
            raise CallError(errno.EINVAL, f"{option.name} has to be set before there is a connection")
        if option.name == "SO_RCVLOWAT" and "SO_RCVBUF" in sock.options:
            kept[option.name] = min(kept[option.name], sock.options["SO_RCVBUF"] >> 1)
        sock.options.update(kept)
        if option.tcp and (_active_in_tcp(sock) or (option.name in BINDING and sock.in_tcp)):
            told = options.for_tcp(option, kept[option.name])
            self._work.to_tcp.append(SetOption(sock.id, option.tcp, told))
        return {}

    def getsockopt(
        self, session: Session, sock: Socket, request: int, args: GetOptionArguments
    ) -> dict[str, Any] | None:
        """The value; None where tcp has to be asked."""
        option = options.find(args.level, args.option, reading=True)
        live = option.name == "TCP_INFO" or option.name in LIVE
        if live and sock.state in (State.CONNECTED, State.CONNECTING) and _active_in_tcp(sock):
            if option.kind is not options.Kind.BUFFER or option.name not in sock.options:
                self._ask(option.name, session, sock, request)
                return None
        if option.kind is options.Kind.READ:
            return {"value": self._computed(option.name, sock)}
        if option.kind is options.Kind.OPTIONS:
            return {"value": sock.ip_options}
        return {"value": options.show(option, sock.options, self._work.config)}

    def _computed(self, name: str, sock: Socket) -> bytes:
        """The value of an option that cannot be set."""
        match name:
            case "TCP_INFO":
                if sock.state is State.LISTENING:  # Linux: tcpi_unacked is the queue, tcpi_sacked its limit
                    listening = {"state": info.TCP_LISTEN, "unacked": len(sock.queue), "sacked": sock.backlog}
                    return info.pack(listening)
                return info.pack({"state": info.TCP_CLOSE})
            case "SO_ACCEPTCONN":
                return options.number(int(sock.state is State.LISTENING))
            case "IP_MTU":
                raise CallError(errno.ENOTCONN)
        return options.computed(name, sock, kind=SOCK_STREAM, proto=IPPROTO_TCP)

    def over(self, session: Session, sock: Socket, request: int, op: str) -> bool:
        """Both directions of a connection were ended, so that only tcp knows whether it is over (then the call fails
        with ENOTCONN: net/ipv4/af_inet.c inet_getname, inet_shutdown): it is asked, and the answer comes later."""
        if sock.state is State.CONNECTED and sock.in_tcp and sock.ended and sock.eof != NOT_YET:
            self._ask(op, session, sock, request)
            return True
        return False

    def _ask(self, kind: str, session: Session, sock: Socket, request: int) -> None:
        number = self._work.ask(Asked(kind, sock.id, session.number, request))
        self._work.to_tcp.append(GetInfo(number, sock.id))

    def answered(self, asked: Asked, frame: Result) -> None:
        """tcp's figures have come; or it went away, which counts as a connection that is over."""
        figures: Mapping[str, Any] = frame.data if not frame.errno else {"state": info.TCP_CLOSE}
        session = self._work.state.sessions.get(asked.session)
        sock = self._work.state.sockets.get(asked.sock)
        error, data = self._answer(asked.kind, sock, figures)
        op = asked.kind if asked.kind in ("getpeername", "shutdown") else "getsockopt"
        self._work.note(session, op, asked.sock, error)
        self._work.reply(session, asked.request, error, data)

    def _answer(self, kind: str, sock: Socket | None, figures: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        over = info.figure(figures, "state") in ENDED
        if kind == "TCP_INFO":
            return 0, {"value": info.pack({**figures, "state": info.TCP_CLOSE} if over else figures)}
        if sock is None:
            return errno.EBADF, {}
        if kind == "shutdown":
            return (errno.ENOTCONN if over else 0), {}
        if kind == "getpeername":
            return (errno.ENOTCONN, {}) if over else (0, {"address": sock.remote_address, "port": sock.remote_port})
        if LIVE[kind] in figures and not (over and kind == "TCP_MAXSEG"):
            return 0, {"value": options.number(info.figure(figures, LIVE[kind]))}
        try:
            option = options.BY_NAME[kind]
            if option.kind is options.Kind.READ:
                return 0, {"value": self._computed(kind, sock)}
            return 0, {"value": options.show(option, sock.options, self._work.config)}
        except CallError as error:
            return error.errno, {}


def _has_peer(sock: Socket, *, listening: bool = True) -> bool:
    """Whether its state on Linux is another than TCP_CLOSE; `listening`: TCP_LISTEN counts, too."""
    return sock.state in (State.CONNECTING, State.CONNECTED) or (listening and sock.state is State.LISTENING)


def _active_in_tcp(sock: Socket) -> bool:
    """Whether tcp has a listener or a connection for the socket, not only a port."""
    if sock.state is State.CONNECTING:
        return sock.call is not None and sock.call.step == "connect"
    return sock.in_tcp and sock.state in (State.LISTENING, State.CONNECTED)
