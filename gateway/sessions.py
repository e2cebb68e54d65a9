"""Clients: who may enter, who comes back, who has memory, and what happens when one is gone."""

from __future__ import annotations

import errno
import re

from gateway.calls import MS, Calls
from gateway.datagrams import Datagrams
from gateway.relay import Relay
from gateway.state import Session
from gateway.table import State
from gateway.work import Work
from levelip.frames.seam import ClientLost, ForClient, ForgetClient, FromClient, Probe
from levelip.rpc.messages import VERSION, Hello, Pending, Refused, Welcome
from levelip.tracing.reasons import BAD_MEMORY, CLIENT_GONE, CLIENT_LIMIT, CLIENT_VERSION, DOOR_CLOSED, Reason

TOKEN_BYTES = 16
SOFTWARE_KEPT = 80  # characters of what a client calls itself
MEMORY_NAME = re.compile(r"[0-9a-f]{32}")


class Sessions:
    """The table of clients. `by_peer` is only an index of the state."""

    def __init__(self, work: Work, calls: Calls, relay: Relay, datagrams: Datagrams) -> None:
        self._work = work
        self._state = work.state
        self._calls = calls
        self._relay = relay
        self._datagrams = datagrams
        self.by_peer: dict[bytes, Session] = {s.known_as: s for s in work.state.sessions.values()}

    def hello(self, frame: FromClient, message: Hello) -> None:
        """A client says who it is: a new one, one that comes back, or one that has made its memory."""
        config = self._work.config.gateway
        if message.version != VERSION:
            text = f"this gateway speaks version {VERSION} of the protocol, not {message.version}"
            self._turn_away(frame, errno.EPROTONOSUPPORT, CLIENT_VERSION, text)
            return
        if config.door_mode == "owner" and frame.uid not in (0, self._work.config.owner):
            self._turn_away(frame, errno.EACCES, DOOR_CLOSED, "only the stack's owner may open sockets here")
            return
        session = self._known(frame, message)
        if session is None:
            if len(self._state.sessions) >= config.clients and not self._give_up_one(frame.uid):
                text = f"{config.clients} clients are here (gateway.clients)"
                self._turn_away(frame, errno.EUSERS, CLIENT_LIMIT, text)
                return
            full = frame.uid != self._work.config.owner and self._clients_of(frame.uid) >= config.clients_per_user
            if full and not self._give_up_one(frame.uid):
                text = f"{config.clients_per_user} clients of user {frame.uid} are here (gateway.clients_per_user)"
                self._turn_away(frame, errno.EUSERS, CLIENT_LIMIT, text)
                return
            session = self._open(frame)
        session.software = message.software[:SOFTWARE_KEPT]
        session.knows = message.knows
        if message.memory and not self._take_memory(session, message.memory, frame.memory_errno):
            return
        self._welcome(session)

    def _clients_of(self, uid: int) -> int:
        return sum(session.uid == uid for session in self._state.sessions.values())

    def _give_up_one(self, uid: int) -> bool:
        """End the session of this user whose connection has been gone for longest, if there is one."""
        gone = [session for session in self._state.sessions.values() if session.uid == uid and not session.peer]
        if gone:
            self.end(min(gone, key=lambda session: (session.deadline, session.number)))
        return bool(gone)

    def _known(self, frame: FromClient, message: Hello) -> Session | None:
        """The session that the client has already."""
        here = self.by_peer.get(frame.peer)
        if here is not None:
            fresh = not message.token and not here.sockets and not here.memory
            if fresh or message.token == here.token:
                here.peer, here.deadline = frame.peer, 0
                return here
            self.end(here, forget=False)  # it does not know what it had
        if not message.token:
            return None
        for session in self._state.sessions.values():
            if session.token == message.token and session.uid == frame.uid:
                self._move(session, frame)
                return session
        return None

    def _open(self, frame: FromClient) -> Session:
        self._state.sessions_made += 1
        number = self._state.sessions_made
        session = Session(
            number=number, token=self._work.rng.randbytes(TOKEN_BYTES), peer=frame.peer, known_as=frame.peer,
            uid=frame.uid, pid=frame.pid, since=self._work.now,
        )  # fmt: skip
        if not self._state.sessions:
            self._arm_probe()
        self._state.sessions[number] = session
        self.by_peer[frame.peer] = session
        if self._work.interest:
            self._work.emit("client", what="opened", pid=frame.pid, uid=frame.uid)
        return session

    def _move(self, session: Session, frame: FromClient) -> None:
        """The client is on a new connection: everything that it has not consumed is said again."""
        del self.by_peer[session.known_as]
        self._work.to_door.append(ForgetClient(session.known_as))
        session.peer = session.known_as = frame.peer
        session.pid, session.deadline = frame.pid, 0
        self.by_peer[frame.peer] = session
        self._work.counters["rejoined"] += 1

    def _welcome(self, session: Session) -> None:
        config = self._work.config
        welcome = Welcome(
            VERSION, config.epoch, session.token, config.memory_dir, config.memory_slot, config.tcp.connections
        )
        self._work.tell(session, welcome)
        replies, session.replies = session.replies, []
        for reply in replies:
            self._work.tell(session, reply)
        for number in session.sockets:
            sock = self._state.sockets.get(number)
            if sock is None:
                continue  # a datagram socket has nothing to say again
            self._relay.resume(sock)
            if sock.state is State.LISTENING:
                self._work.tell(session, Pending(sock.id, len(sock.queue)))

    def _take_memory(self, session: Session, name: str, found: int) -> bool:
        """Whether the client's file will hold the rings of its sockets from now on."""
        if name == session.memory:
            return True
        error = found
        if not self._work.config.memory_dir:
            error = errno.EOPNOTSUPP
        elif not MEMORY_NAME.fullmatch(name):
            error = errno.EINVAL
        elif session.memory:
            error = errno.EALREADY
        elif name in self._state.ended_regions or any(s.memory == name for s in self._state.sessions.values()):
            error = errno.EEXIST
        if error:
            self._work.refuse(session, error, BAD_MEMORY, "memory: not a file of yours that can be used")
            return False
        session.memory = name
        return True

    def _turn_away(self, frame: FromClient, error: int, reason: Reason, text: str) -> None:
        """Refuse a client that gets no session (one that it had is over)."""
        here = self.by_peer.get(frame.peer)
        if here is not None:
            self.end(here)
        self._work.drop(reason, client=frame.pid, uid=frame.uid)
        self._work.to_door.append(ForClient(frame.peer, Refused(error, text)))
        self._work.to_door.append(ForgetClient(frame.peer))

    def lost(self, frame: ClientLost) -> None:
        """A client is gone; if only its connection is, it may come back for a while."""
        session = self.by_peer.get(frame.peer)
        if session is None:
            return
        self._work.drop(CLIENT_GONE, client=session.pid, dead=frame.dead)
        if frame.dead:
            self.end(session)
            return
        session.peer = b""
        session.deadline = self._work.now + self._work.config.gateway.rejoin_ms * MS
        self._work.arm(session.deadline, "rejoin", session.number)

    def end(self, session: Session, *, forget: bool = True) -> None:
        """Close all that a client had. Not `forget`: its connection serves on.

        Linux ends a killed program's streams by FIN. A client stands between a program and us: what the program had
        written and the client not sent is gone with it, so a stream whose end was not told (Eof) has none but RST."""
        session.peer = b""
        del self.by_peer[session.known_as]
        if forget:
            self._work.to_door.append(ForgetClient(session.known_as))
        for number in list(session.sockets):
            datagrams = self._state.datagrams.get(number)
            if datagrams is not None:
                self._datagrams.end(session, datagrams)
                continue
            sock = self._state.sockets[number]
            self._calls.end(session, sock, abort=not sock.ended, unread=sock.received > sock.consumed)
        del self._state.sessions[session.number]
        if session.memory:
            self._calls.end_region(session.memory)
        if self._work.interest:
            self._work.emit("client", what="ended", pid=session.pid, uid=session.uid)

    def timer(self, deadline: int, kind: str, number: int) -> None:
        """A client that did not come back is given up; the connections of the others are looked at."""
        if kind == "rejoin":
            session = self._state.sessions.get(number)
            if session is not None and session.deadline == deadline:
                self.end(session)
        elif self._state.sessions:
            for session in self._state.sessions.values():
                if session.peer:
                    self._work.to_door.append(Probe(session.peer))
            self._arm_probe()

    def _arm_probe(self) -> None:
        deadline = self._work.now + self._work.config.gateway.probe_ms * MS
        if not any(kind == "probe" for _, kind, _ in self._state.timers):
            self._work.arm(deadline, "probe", 0)
