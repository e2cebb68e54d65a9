"""The helper's session with the gateway: one DEALER socket, hello, requests and their replies, and coming back.

Messages wait in `outbox` and leave in one envelope a turn of the loop. Requests made while the gateway is away are
held for a while. When the gateway comes back with another epoch it knows nothing of us: the session makes new memory,
settles what was outstanding (`Outstanding`), and tells the helper, which makes its sockets anew.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
import time
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

import zmq
from zmq.utils.monitor import parse_monitor_message

from levelip.client.memory import SessionMemory
from levelip.rpc.codec import MAX_PARTS, Codec, RefusedMessage
from levelip.rpc.messages import KNOWS_URGENT, VERSION, Hello, Refused, Reply, Request, ToClient, Welcome

PATIENCE_S = 5.0  # how long a request waits for an absent gateway before ENETDOWN (a restart takes 1-2 s)
FLUSH_BYTES = 4 << 20  # of payloads in one envelope
RECONNECT_MS = 10  # DESIGN 4
LINGER_MS = 1000  # at exit: what was flushed and not yet taken by the gateway
FLUSH_MESSAGES = MAX_PARTS - 1  # messages in one envelope: each may bring a part
DESERTED_S = 0.01  # between looks at the door of a gateway whose connection broke
RECEIVE_BATCH = 64  # ZeroMQ messages taken in one turn, so that pairs get theirs too
_EVENTS, _POLLIN = int(zmq.EVENTS), int(zmq.POLLIN)  # plain integers: zmq's enums cost more than the call

Done = Callable[[int, dict[str, Any], str], None]  # errno (0: fine), data, message


class Target(Protocol):
    """What a request is about: `gid` is the gateway's id of the socket, 0 while it has none in this epoch."""

    gid: int


class Bare:
    """A gateway's socket that has no pair."""

    def __init__(self, gid: int) -> None:
        self.gid = gid


def ignore(_: int, __: dict[str, Any], ___: str) -> None:
    """An answer that changes nothing."""


class State(Enum):
    """Where the session stands."""

    AWAY = "no gateway"
    HELLO = "said hello"
    MEMORY = "offered memory"
    OPEN = "open"
    REFUSED = "refused"


class Outstanding:
    """A request whose reply has not come, or that waits until it can be sent."""

    __slots__ = ("args", "deadline", "done", "internal", "op", "target")

    def __init__(
        self, op: str, target: Target | None, args: dict[str, Any], done: Done, *, deadline: float, internal: bool
    ) -> None:
        self.internal = internal
        self.op = op
        self.target = target
        self.args = args
        self.done = done
        self.deadline = deadline


class Owner(Protocol):
    """What the session tells the helper."""

    def deliver(self, message: Any) -> None:
        """A stream message or Pending of the current epoch."""

    def deserted(self) -> None:
        """The gateway died: its connections are gone, though no other gateway is there yet."""

    def opened(self, fresh: bool) -> None:
        """The session is open. `fresh`: the gateway knows none of our sockets (first time, or a new epoch)."""

    def settle_stale(self, request: Outstanding) -> None:
        """The gateway died with this request unanswered: answer it, or ask again."""


class Session:
    """Talks to the gateway at `endpoint`. Call `turn` when a descriptor of `fds` is readable, and `flush` each turn."""

    def __init__(self, endpoint: str, software: str, owner: Owner, *, share: bool = True) -> None:
        self.endpoint = endpoint
        self.state = State.AWAY
        self.memory: SessionMemory | None = None
        self.outbox: list[Any] = []
        self.refusal = (0, "")
        self._software = software
        self._owner = owner
        self._share = share
        self._epoch = secrets.randbits(63) | 1
        self._gateway = 0  # the gateway's epoch; 0 before the first Welcome
        self._token = b""
        self._codec: Codec[Any] = Codec(ToClient)
        self._number = 0
        self._sent: dict[int, Outstanding] = {}
        self._held: list[Outstanding] = []
        self._look_at: float | None = None  # when to see whether anybody is behind the door
        self._context = zmq.Context(io_threads=1)
        self._dealer = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.SNDHWM, 0),
            (zmq.RCVHWM, 0),
            (zmq.LINGER, LINGER_MS),
            (zmq.RECONNECT_IVL, RECONNECT_MS),
        ):
            self._dealer.setsockopt(option, value)
        self._monitor = self._dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._dealer.connect(endpoint)
        self.fds = (int(self._dealer.getsockopt(zmq.FD)), int(self._monitor.getsockopt(zmq.FD)))

    # -- requests

    @property
    def is_open(self) -> bool:
        """Whether what is asked now goes out at the end of the turn."""
        return self.state is State.OPEN

    def request(
        self, op: str, target: Target | None, args: dict[str, Any], done: Done, *, internal: bool = False
    ) -> None:
        """Ask the gateway; `done` is called once, with ENETDOWN if it stays away for `PATIENCE_S`.

        `internal` ones, which make a socket anew, are dropped when the gateway dies: they are then made again.
        """
        deadline = time.monotonic() + PATIENCE_S
        self._issue(Outstanding(op, target, args, done, deadline=deadline, internal=internal))

    def ask(self, make: Callable[[int], Any], done: Done) -> None:
        """Send what `make` makes of a request number; `done` at its Reply, or with ENETDOWN if it cannot go."""
        if self.state is not State.OPEN:
            done(errno.ENETDOWN, {}, self.complaint())
            return
        self._number += 1
        self._sent[self._number] = Outstanding("sendto", None, {}, done, deadline=0.0, internal=False)
        self.outbox.append(make(self._number))

    def tell(self, message: Any) -> None:
        """Send a message that nobody answers; it is lost while the session is not open."""
        if self.state is State.OPEN:
            self.outbox.append(message)

    def again(self, request: Outstanding) -> None:
        """Send a request once more, with its old deadline."""
        self._issue(request)

    def _issue(self, request: Outstanding) -> None:
        if self.state is State.REFUSED:
            request.done(self.refusal[0], {}, self.refusal[1])
        elif self.state is not State.OPEN or (request.target is not None and not request.target.gid):
            self._held.append(request)
        else:
            self._number += 1
            self._sent[self._number] = request
            gid = request.target.gid if request.target is not None else 0
            self.outbox.append(Request(self._number, request.op, gid, request.args))

    def release(self) -> None:
        """Send what was held and can go now."""
        if not self._held:
            return
        held, self._held = self._held, []
        for request in held:
            self._issue(request)

    def next_deadline(self) -> float | None:
        """When `expire` has something to do (time.monotonic)."""
        deadlines = [request.deadline for request in self._held]
        if self._look_at is not None:
            deadlines.append(self._look_at)
        return min(deadlines, default=None)

    def expire(self, now: float) -> None:
        """Give up what was held too long; see whether a gateway whose connection broke is dead."""
        if self._look_at is not None and now >= self._look_at:
            self._look_at = now + DESERTED_S if self.state is State.AWAY else None
            if self._look_at is not None and self._is_deserted():
                self._look_at = None
                self._owner.deserted()
        late = [request for request in self._held if request.deadline <= now]
        if late:
            self._held = [request for request in self._held if request.deadline > now]
            for request in late:
                request.done(errno.ENETDOWN, {}, self.complaint())

    def _is_deserted(self) -> bool:
        """Whether nobody listens at the door: the gateway did not only break the connection, it is dead."""
        if not self._gateway or not self.endpoint.startswith("ipc://"):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            return probe.connect_ex(self.endpoint.removeprefix("ipc://")) in (errno.ECONNREFUSED, errno.ENOENT)

    def complaint(self) -> str:
        """The sentence for ENETDOWN."""
        path = self.endpoint.removeprefix("ipc://")
        return f"Network is down: no Level-IP stack answers at {path} (lvlip status says why; start one with: lvlip up)"

    # -- the wire

    def flush(self) -> None:
        """Send the outbox, in envelopes that the codec allows."""
        if not self.outbox or self.state is not State.OPEN:
            return
        box, self.outbox = self.outbox, []
        start = size = 0
        for index, message in enumerate(box):
            length = len(getattr(message, "payload", b""))
            if index - start >= FLUSH_MESSAGES or size + length > FLUSH_BYTES:
                self._post(box[start:index])
                start, size = index, 0
            size += length
        self._post(box[start:])

    def _post(self, messages: list[Any]) -> None:
        to_epoch = 0 if self.state is State.HELLO else self._gateway
        parts = self._codec.encode(messages, self._epoch, to_epoch)
        with contextlib.suppress(zmq.Again):  # no high-water mark, so only a closing context says this
            self._dealer.send_multipart(parts, zmq.DONTWAIT)

    def waiting(self) -> bool:
        """Whether something has come. ZMQ_FD is edge-triggered, and a send may eat its edge: ask before sleeping."""
        return _readable(self._dealer)

    def watch(self) -> None:
        """Take the news of the connection; to be called when the second of `fds` is readable, and once at the start."""
        while _readable(self._monitor):
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.DONTWAIT))["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._hello()
            elif event == zmq.EVENT_DISCONNECTED:
                self.state = State.AWAY
                self._look_at = 0.0

    def turn(self) -> None:
        """Take what has come, at most RECEIVE_BATCH messages."""
        for _ in range(RECEIVE_BATCH):
            if not _readable(self._dealer):
                return
            try:
                epoch, to_epoch, messages = self._codec.decode(self._dealer.recv_multipart(zmq.DONTWAIT))
            except (RefusedMessage, zmq.Again):
                continue  # not of this version: nothing that arrives may end the helper
            if to_epoch not in (0, self._epoch):
                continue
            for message in messages:
                self._take(epoch, message)

    def _take(self, epoch: int, message: Any) -> None:
        kind = type(message)
        if kind is Welcome:
            self._welcome(message)
        elif kind is Refused:
            self._refused(message)
        elif epoch != self._gateway or self.state is not State.OPEN:
            return
        elif kind is Reply:
            request = self._sent.pop(message.request, None)
            if request is not None:
                request.done(message.errno, message.data, message.message)
        else:
            self._owner.deliver(message)

    # -- opening

    def _hello(self) -> None:
        self.state = State.HELLO
        self._post([Hello(VERSION, self._software, self._token, knows=KNOWS_URGENT)])

    def _welcome(self, welcome: Welcome) -> None:
        if self.state is State.MEMORY and welcome.epoch == self._gateway:
            self._open(fresh=True)
            return
        if self.state is not State.HELLO:
            return
        known = welcome.epoch == self._gateway and welcome.token == self._token
        self._gateway = welcome.epoch
        self._token = welcome.token
        if known:
            self._open(fresh=False)
            return
        self.memory = None
        if self._share and welcome.memory_dir and welcome.memory_slot and welcome.memory_slots:
            # without memory (another host, no room, no such directory here) payloads travel inline
            with contextlib.suppress(OSError, ValueError):
                self.memory = SessionMemory(welcome.memory_dir, welcome.memory_slot * welcome.memory_slots)
        if self.memory is None:
            self._open(fresh=True)
            return
        self.state = State.MEMORY
        self._post([Hello(VERSION, self._software, self._token, self.memory.name, KNOWS_URGENT)])

    def _refused(self, refused: Refused) -> None:
        if self.state is State.MEMORY:
            assert self.memory is not None
            self.memory.unlink()
            self.memory = None
            self._open(fresh=True)
        elif self.state is State.HELLO and self._token:
            self._token = b""  # the gateway does not know the session: start another
            self._hello()
        elif self.state is State.HELLO:
            self.state = State.REFUSED
            self.refusal = (refused.errno or errno.EACCES, refused.message)
            self.release()

    def _open(self, *, fresh: bool) -> None:
        self.state = State.OPEN
        if fresh:
            self.outbox.clear()  # it was meant for the old epoch
            stale, self._sent = self._sent, {}
            self._owner.opened(True)
            for request in stale.values():
                if not request.internal:
                    self._owner.settle_stale(request)
        else:
            self._owner.opened(False)
        self.release()

    def close(self) -> None:
        """Flush within LINGER_MS and end."""
        self._dealer.disable_monitor()
        self._monitor.close(0)
        self._dealer.close(LINGER_MS)
        self._context.term()


def _readable(socket: zmq.Socket[bytes]) -> bool:
    return bool(int(socket.get(_EVENTS)) & _POLLIN)
