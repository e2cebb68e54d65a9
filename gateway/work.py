"""What the parts of the core share: the state, what is to be sent, timers, counters and events."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from errno import EAFNOSUPPORT, EINVAL, EMFILE, ENFILE, ENOBUFS, errorcode
from typing import Any

import msgspec

from gateway.config import GatewayCoreConfig
from gateway.errors import CallError
from gateway.state import Asked, DatagramSocket, GatewayState, Session, Socket
from gateway.table import Input, follow
from levelip.frames.seam import ForClient, ForgetClient, ForgetMemory, GatewayToTcp, GatewayToUdp, Probe
from levelip.rpc.messages import Refused, Reply, Request, ToClient
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason

ToDoor = ForClient | ForgetClient | ForgetMemory | Probe
ANY = b"\0\0\0\0"
LOOPBACK = b"\x7f\0\0\1"  # where 0.0.0.0 leads, unless bind() chose an address (Linux ip_route_output_key)
EVENTS_KEPT = 10_000  # if nobody fetches them
WAITING_CALLS = 16  # calls that wait for another one on the same socket
TIMERS_KEPT = 1024  # beyond this and four a thing that may have timers, stale ones are swept out


class Work:
    """Shared by core, calls, relay and sessions. `now` is the instant of what is being handled."""

    def __init__(self, config: GatewayCoreConfig, state: GatewayState, rng: random.Random) -> None:
        self.config = config
        self.state = state
        self.rng = rng
        self.now = 0
        self.interest = False
        self.counters: Counter[str] = Counter()
        self.events: list[Event] = []
        self.to_tcp: list[GatewayToTcp] = []
        self.to_udp: list[GatewayToUdp] = []
        self.to_door: list[ToDoor] = []

    # out

    def tell(self, session: Session, message: ToClient) -> None:
        """Send to the client. While its connection is gone, answers are kept (as many as it had asked for); the rest
        can be said again when it comes back."""
        if session.peer:
            self.to_door.append(ForClient(session.peer, message))
        elif type(message) is Reply:
            session.replies.append(message)

    def reply(self, session: Session | None, request: int, errno: int, data: dict[str, Any] | None = None,
              message: str = "") -> None:  # fmt: skip
        """Answer a request, if its client is still there."""
        if session is not None:
            session.calls = max(0, session.calls - 1)
            self.tell(session, Reply(request, errno, data or {}, message))

    def may_ask(self, session: Session) -> bool:
        """Count a request, which `reply` will answer; whether it is within `calls_per_client`."""
        session.calls += 1
        return session.calls <= self.config.gateway.calls_per_client

    def make_room(self, session: Session) -> None:
        """See that the client may have another socket; raises CallError."""
        config = self.config.gateway
        if len(session.sockets) >= config.sockets_per_client:
            raise CallError(EMFILE, f"{config.sockets_per_client} sockets a client (gateway.sockets_per_client)")
        if len(self.state.sockets) + len(self.state.datagrams) >= config.sockets:
            raise CallError(ENFILE, f"{config.sockets} sockets of all clients (gateway.sockets)")
        if session.uid != self.config.owner:
            others = self.state.sessions.values()
            if sum(len(one.sockets) for one in others if one.uid == session.uid) >= config.sockets_per_user:
                raise CallError(ENFILE, f"{config.sockets_per_user} sockets a user (gateway.sockets_per_user)")

    @staticmethod
    def wait_behind(sock: Socket | DatagramSocket, request: Request) -> None:
        """Keep a call until the one before it on the same socket is settled; raises CallError."""
        if len(sock.waiting) >= WAITING_CALLS:
            raise CallError(ENOBUFS, "too many calls on one socket")
        sock.waiting.append(request)

    def attempt(
        self, session: Session, request: Request, carry_out: Callable[[Session, Request], dict[str, Any] | None]
    ) -> dict[str, Any] | None:
        """Carry out a call. What it gives back at once is answered, and returned; None: it failed, which is answered as
        well, or its answer comes later."""
        self.counters["calls"] += 1
        error, data, message = 0, None, ""
        try:
            data = carry_out(session, request)
        except CallError as failure:
            error, message = failure.errno, str(failure)
        except msgspec.ValidationError as failure:
            error, message = EINVAL, str(failure)
        if error or data is not None:
            self.note(session, request.op, request.sock, error)
            self.reply(session, request.request, error, data, message)
        return data

    def refuse(self, session: Session, errno: int, reason: Reason, detail: str, **data: Any) -> None:
        """Count what a client got wrong, and tell it."""
        self.drop(reason, client=session.pid, detail=detail, **data)
        self.tell(session, Refused(errno, detail))

    def ask(self, asked: Asked) -> int:
        """Keep a question to tcp until its Result comes; its number."""
        self.state.requests_made += 1
        number = self.state.requests_made
        self.state.asked[number] = asked
        return number

    # counting and events

    def note(self, session: Session | None, op: str, sock: int, error: int) -> None:
        """Count a settled call and show it."""
        if error:
            self.counters[f"errno.{errorcode.get(error, str(error))}"] += 1
        if self.interest:
            pid = session.pid if session is not None else 0
            self.emit("call", op=op[:40], sock=sock, errno=error, pid=pid)

    def drop(self, reason: Reason, /, *, frame: int = 0, **data: Any) -> None:
        """Something is discarded; `frame`: its id, if it has one."""
        self.counters[reason.counter] += 1
        if self.interest:
            self.emit("drop", reason=reason.name, frame=frame, **data)

    def emit(self, kind: str, /, *, reason: str = "", frame: int = 0, conn: str = "", **data: Any) -> None:
        """Add an event; callers look at `interest` first."""
        if len(self.events) < EVENTS_KEPT:
            self.events.append(Event(self.now, kind, reason, frame, conn, data))
        else:
            self.counters["events_left_out"] += 1

    def move(self, sock: Socket, event: Input) -> None:
        """The one place where a socket changes its state."""
        before, sock.state = sock.state, follow(sock.state, event)
        if self.interest and before is not sock.state:
            self.emit("socket", conn=name_of(sock), sock=sock.id, before=before.value, after=sock.state.value)

    # timers

    def arm(self, deadline: int, kind: str, number: int) -> None:
        """Ask for handle_timer; whoever armed it compares the deadline with its own field (a stale one is nothing)."""
        state = self.state
        heapq.heappush(state.timers, (deadline, kind, number))
        things = len(state.sockets) + len(state.datagrams) + len(state.orphans) + len(state.sessions)
        if len(state.timers) > TIMERS_KEPT + 4 * things:
            state.timers = [timer for timer in state.timers if self._wanted(timer)]
            heapq.heapify(state.timers)

    def _wanted(self, timer: tuple[int, str, int]) -> bool:
        """Whether somebody still waits for it (a linger time can be years)."""
        deadline, kind, number = timer
        if kind == "linger":
            orphan = self.state.orphans.get(number)
            return orphan is not None and orphan.deadline == deadline
        if kind == "rejoin":
            session = self.state.sessions.get(number)
            return session is not None and session.deadline == deadline
        if kind == "udp":
            datagrams = self.state.datagrams.get(number)
            return datagrams is not None and datagrams.deadline == deadline
        if kind == "call":
            sock = self.state.sockets.get(number)
            return sock is not None and sock.call is not None and sock.call.deadline == deadline
        return True

    def due(self) -> tuple[int, str, int] | None:
        """Take the next timer that is due."""
        timers = self.state.timers
        if timers and timers[0][0] <= self.now:
            return heapq.heappop(timers)
        return None


def ipv4(address: bytes) -> bytes:
    """Four bytes, as a call named them; empty means any."""
    if not address:
        return ANY
    if len(address) != 4:
        raise CallError(EAFNOSUPPORT if len(address) == 16 else EINVAL)
    return address


def text_address(address: bytes) -> str:
    """Dotted decimal, as people read it."""
    return ".".join(map(str, address or ANY))


def owner_and_ends(session: Session, sock: Socket | DatagramSocket) -> dict[str, Any]:
    """What `lvlip ss` shows of every socket: whose it is, and its names."""
    return {
        "pid": session.pid,
        "uid": session.uid,
        "software": session.software,
        "local_address": text_address(sock.local_address),
        "local_port": sock.local_port,
        "remote_address": text_address(sock.remote_address),
        "remote_port": sock.remote_port,
    }


def name_of(sock: Socket) -> str:
    """The connection as events name it, local first; empty before there is one."""
    if not sock.remote_port:
        return ""
    local, remote = text_address(sock.local_address), text_address(sock.remote_address)
    return f"{local}:{sock.local_port}>{remote}:{sock.remote_port}"
