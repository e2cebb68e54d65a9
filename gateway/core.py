"""The gateway's core: socket semantics for applications, decided in one place.

    receive(frame)      FromClient, ClientLost from the door; Result, Connected, Incoming, Released and the stream from
                        tcp; NeighbourUp and NeighbourDown of "tcp"
    outgoing(room)      "tcp": seam messages; "client": ForClient, ForgetClient, ForgetMemory, Probe
    control             "ss": all sockets; "clients": all sessions

It holds a table of sessions and of sockets, and no payload: bytes lie in rings, and only offsets pass through here.
Its parts: table.py (states), calls.py (the calls), options.py, relay.py (the streams), sessions.py (clients).
"""

from __future__ import annotations

import errno
import random
from typing import Any

import msgspec

from gateway.arguments import SOCK_DGRAM, SOCK_TYPE_MASK
from gateway.calls import Calls
from gateway.config import GatewayCoreConfig
from gateway.datagrams import KINDS, Datagrams
from gateway.relay import Relay
from gateway.sessions import Sessions
from gateway.state import GatewayState, Session, Socket
from gateway.table import State
from gateway.work import ToDoor, Work, owner_and_ends
from levelip.frames.core import ControlError, Output, Room, load_rng, save_rng
from levelip.frames.packet import FrameIds, Process
from levelip.frames.seam import (
    ClientLost,
    Connected,
    Datagram,
    Failed,
    ForClient,
    FromClient,
    GatewayToTcp,
    GatewayToUdp,
    Incoming,
    NeighbourDown,
    NeighbourUp,
    Released,
    Result,
    StoreFailed,
)
from levelip.rpc.messages import Hello, Refused, Request, SendDatagram, TookDatagrams
from levelip.rpc.stream import Accepted, Consumed, Data, Eof, Reset, Send, Urgent
from levelip.tracing.events import Event
from levelip.tracing.reasons import BAD_MESSAGE, NO_SESSION, TCP_UNKNOWN

_SETTINGS = (
    "sockets_per_client", "sockets_per_user", "sockets", "calls_per_client", "clients", "clients_per_user",
    "client_unread", "client_inline", "rpc_inline_credit", "tcp_wait_ms", "rejoin_ms", "probe_ms", "door_mode",
    "dns_servers", "dns_search", "dns_options",
)  # fmt: skip
_NO_ROOM = 1 << 62


class GatewayCore:
    """See the module's text; the verbs are those of levelip.frames.core.Core."""

    def __init__(self, config: GatewayCoreConfig, rng: random.Random, now: int) -> None:
        ids = FrameIds(Process.GATEWAY, config.epoch)
        self._set_up(config, rng, GatewayState(epoch=config.epoch, ids=ids), now)

    def _set_up(self, config: GatewayCoreConfig, rng: random.Random, state: GatewayState, now: int) -> None:
        self.config = config
        self._work = Work(config, state, rng)
        self._work.now = now
        self._state = state
        self._relay = Relay(self._work)
        self._calls = Calls(self._work, self._relay.taken, self._relay.forget)
        self._datagrams = Datagrams(self._work)
        self._sessions = Sessions(self._work, self._calls, self._relay, self._datagrams)
        self._by_peer = self._sessions.by_peer
        self.counters: dict[str, int] = self._work.counters
        self._handlers: dict[type, Any] = {
            FromClient: self._from_client,
            Data: self._relay.data,
            Accepted: self._relay.accepted,
            Eof: self._relay.end,
            Reset: self._reset,
            Connected: self._calls.connected,
            Incoming: self._calls.incoming,
            Result: self._result,
            Datagram: self._datagrams.arrived,
            Failed: self._datagrams.failed,
            Urgent: self._relay.marked,
            Released: lambda frame: self._calls.released(frame.sock),
            ClientLost: self._sessions.lost,
            NeighbourUp: self._neighbour_up,
            NeighbourDown: self._neighbour_down,
            StoreFailed: lambda _frame: None,  # we have no Stores
        }
        self._client_handlers: dict[type, Any] = {
            Send: self._relay.send,
            Consumed: self._relay.consumed,
            Request: self._request,
            SendDatagram: self._send_datagram,
            TookDatagrams: self._datagrams.took,
            Eof: self._relay.eof,
            Reset: self._relay.abort,
            Urgent: self._relay.mark,
        }

    def _request(self, session: Session, request: Request) -> None:
        """A call, unless its client has too many under way: to who knows the socket; socket() to who knows the type."""
        if not self._work.may_ask(session) and request.op != "close":
            self._too_many(session, request.op, request.sock, request.request)
            return
        kind = request.args.get("type") if request.op == "socket" else None
        datagram = isinstance(kind, int) and kind & SOCK_TYPE_MASK == SOCK_DGRAM
        if datagram or request.op == "interfaces" or request.sock in self._state.datagrams:
            self._datagrams.take(session, request)
        else:
            self._calls.take(session, request)

    def _send_datagram(self, session: Session, message: SendDatagram) -> None:
        """A datagram; one that is to be answered counts as a call."""
        if not message.request or self._work.may_ask(session):
            self._datagrams.send(session, message)
        else:
            self._too_many(session, "sendto", message.sock, message.request)

    def _too_many(self, session: Session, op: str, sock: int, request: int) -> None:
        most = self.config.gateway.calls_per_client
        self._work.note(session, op, sock, errno.ENOBUFS)
        text = f"{most} calls of one client at once (gateway.calls_per_client)"
        self._work.reply(session, request, errno.ENOBUFS, message=text)

    def _result(self, frame: Result) -> None:
        asked = self._state.asked.get(frame.request)
        if asked is not None and asked.kind in KINDS:
            del self._state.asked[frame.request]
            self._datagrams.answered(asked, frame)
        else:
            self._calls.result(frame)

    # verbs

    @property
    def interest(self) -> bool:
        """Somebody listens to events."""
        return self._work.interest

    @interest.setter
    def interest(self, value: bool) -> None:
        self._work.interest = value

    def receive(self, frame: Any, now: int) -> None:
        """Take one frame."""
        self._work.now = now
        handler = self._handlers.get(type(frame))
        if handler is None:
            self._work.drop(BAD_MESSAGE, kind=type(frame).__name__)
        else:
            handler(frame)

    def handle_timer(self, now: int) -> None:
        """Run what is due."""
        self._work.now = now
        while (timer := self._work.due()) is not None:
            if timer[1] in ("rejoin", "probe"):
                self._sessions.timer(*timer)
            elif timer[1] == "udp":
                self._datagrams.timer(timer[0], timer[2])
            else:
                self._calls.timer(*timer)

    def next_timer(self) -> int | None:
        """When handle_timer wants to be called."""
        timers = self._state.timers
        return timers[0][0] if timers else None

    def outgoing(self, room: Room) -> Output:
        """What is to be sent: first to tcp, then to clients."""
        work = self._work
        output: Output = []
        if work.to_tcp:
            to_tcp, work.to_tcp = _take(work.to_tcp, room.get("tcp", _NO_ROOM))
            output += [("tcp", message) for message in to_tcp]
        if work.to_udp:
            to_udp, work.to_udp = _take(work.to_udp, room.get("udp", _NO_ROOM))
            output += [("udp", message) for message in to_udp]
        if work.to_door:
            to_door, work.to_door = _take(work.to_door, room.get("client", _NO_ROOM))
            output += [("client", message) for message in to_door]
        return output

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        events, self._work.events = self._work.events, []
        return events

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """`ss` and `clients`."""
        self._work.now = now
        if name == "ss":
            return {"sockets": [self._row(sock) for sock in self._state.sockets.values()]}
        if name == "ss.datagrams":
            return {"sockets": [self._datagrams.row(sock) for sock in self._state.datagrams.values()]}
        if name == "clients":
            return {"clients": [self._client_row(session) for session in self._state.sessions.values()]}
        raise ControlError(f"gateway has no command {name!r}; it has ss, ss.datagrams, clients")

    def set(self, key: str, value: Any, now: int) -> None:
        """Change a tunable of [gateway] at run time."""
        if key not in _SETTINGS:
            raise ControlError(f"gateway.{key} cannot be changed while the gateway runs")
        setattr(self.config.gateway, key, value)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data."""
        work = self._work
        whole = {
            "now": work.now,
            "rng": save_rng(work.rng),
            "state": self._state,
            "counters": dict(sorted(work.counters.items())),
            "to_tcp": work.to_tcp,
            "to_udp": work.to_udp,
            "to_door": work.to_door,
        }
        data: dict[str, Any] = msgspec.to_builtins(whole, builtin_types=(bytes,))
        return data

    @classmethod
    def restore(cls, config: GatewayCoreConfig, data: dict[str, Any]) -> GatewayCore:
        """A core that goes on where `snapshot` was taken."""
        core = cls.__new__(cls)
        rng = random.Random()
        load_rng(rng, data["rng"])
        state = msgspec.convert(data["state"], GatewayState, builtin_types=(bytes,), strict=False)
        core._set_up(config, rng, state, data["now"])
        core._work.counters.update(data["counters"])
        core._work.to_tcp = msgspec.convert(data["to_tcp"], list[GatewayToTcp], builtin_types=(bytes,))
        core._work.to_udp = msgspec.convert(data["to_udp"], list[GatewayToUdp], builtin_types=(bytes,))
        core._work.to_door = msgspec.convert(data["to_door"], list[ToDoor], builtin_types=(bytes,))
        return core

    # frames

    def _from_client(self, frame: FromClient) -> None:
        session = self._by_peer.get(frame.peer)
        message = frame.message
        if session is not None and (session.pid != frame.pid or session.uid != frame.uid):
            # another process has taken the name of a connection
            self._sessions.end(session, forget=type(message) is not Hello)
            session = None
        if type(message) is Hello:
            self._sessions.hello(frame, message)
        elif session is None:
            self._work.drop(NO_SESSION, client=frame.pid)
            self._work.to_door.append(ForClient(frame.peer, Refused(errno.EPROTO, "say Hello first")))
        else:
            self._client_handlers[type(message)](session, message)

    def _reset(self, frame: Reset) -> None:
        """A connection is over, or a connect failed."""
        sock = self._state.sockets.get(frame.sock)
        if sock is not None and sock.leaving:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)  # of what it was before
        elif sock is not None and sock.state is State.CONNECTING:
            self._calls.connect_refused(sock, frame.errno or errno.ECONNRESET)
        elif sock is not None and sock.state is State.CONNECTED:
            self._relay.gone(sock, frame.errno or errno.ECONNRESET)
        else:
            self._work.drop(TCP_UNKNOWN, sock=frame.sock)

    # tcp comes and goes

    def _neighbour_up(self, frame: NeighbourUp) -> None:
        if frame.name == "udp":
            self._datagrams.udp_up(frame.epoch)
        if frame.name != "tcp":
            return
        state = self._state
        if state.tcp_up:
            if state.tcp_epoch == frame.epoch:
                return
            self._tcp_lost()
        same = state.tcp_epoch == frame.epoch
        state.tcp_up, state.tcp_epoch = True, frame.epoch
        self._calls.tcp_found(same=same)

    def _neighbour_down(self, frame: NeighbourDown) -> None:
        if frame.name == "udp":
            self._datagrams.udp_down()
        elif frame.name == "tcp" and self._state.tcp_up:
            self._tcp_lost()

    def _tcp_lost(self) -> None:
        """Every connection is over; what is bound or listens is kept and told to the next tcp."""
        self._state.tcp_up = False
        self._work.to_tcp.clear()
        self._calls.tcp_lost()
        sockets = self._state.sockets
        for sock in [*sockets.values()]:
            if sock.state is State.LISTENING and sock.queue:
                self._calls.forget_children(sock)
        for sock in [*sockets.values()]:
            if sock.state is State.CONNECTED:
                self._relay.gone(sock, errno.ECONNRESET)

    # rows of `lvlip ss`

    def _row(self, sock: Socket) -> dict[str, Any]:
        session = self._state.sessions[sock.session]
        listening = sock.state is State.LISTENING
        return {
            "sock": sock.id,
            "state": sock.state.value,
            **owner_and_ends(session, sock),
            "recv_q": len(sock.queue) if listening else sock.received - sock.consumed,
            "send_q": sock.backlog if listening else max(0, sock.sent - sock.accepted),
            "accepted": not sock.listener,
            "shared_memory": bool(sock.region),
            "so_error": sock.so_error,
            "options": dict(sock.options),
        }

    def _client_row(self, session: Session) -> dict[str, Any]:
        return {
            "number": session.number,
            "pid": session.pid,
            "uid": session.uid,
            "software": session.software,
            "connected": bool(session.peer),
            "shared_memory": bool(session.memory),
            "sockets": len(session.sockets),
            "calls": session.calls,
            "since": session.since,
        }


def _take(queue: list[Any], room: int) -> tuple[list[Any], list[Any]]:
    """The first `room` of a queue, and the rest."""
    return (queue, []) if len(queue) <= room else (queue[:room], queue[room:])
