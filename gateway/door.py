"""The applications' door: a ROUTER socket in a directory that other users may enter.

Who a client is, is told by the kernel: libzmq attaches SO_PEERCRED of the connection to each message as the metadata
"Peer-Address" ("localhost:UID:GID:PID"). A client's death is seen at its pidfd. A connection that ended while the
process lives is seen when something is sent to it (ROUTER_MANDATORY answers EHOSTUNREACH), at the latest by a Probe.

Bounds. Input: a client that sends faster than we read waits in its own process (RCVHWM, then the kernel's buffers);
a part larger than MAX_PART ends its connection; of a message with too many parts the rest is read and thrown away.
(libzmq collects all parts of a message before it shows the first, so a client that never ends one makes this process
grow: see docs/rpc.md, "Limits".) Output: requests are answered one to one, stream messages are bounded by credit
(gateway/relay.py); a client with SEND_MARK unread envelopes does not read at all, and its session ends.
"""

from __future__ import annotations

import errno
import os
import re
import select
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zmq

from levelip.frames.seam import ClientLost, ForClient, ForgetClient, ForgetMemory, FromClient, Probe
from levelip.ipc.memory import MemoryLost
from levelip.ipc.port import UNLIMITED, Pollable
from levelip.ipc.runtime import Runtime
from levelip.rpc.codec import MAX_PARTS, Codec, RefusedMessage
from levelip.rpc.messages import Hello, Refused, ToClient, ToGateway, Welcome
from levelip.rpc.place import INLINE_LIMIT, Place
from levelip.rpc.stream import Data, Reset
from levelip.tracing import reasons

MAX_PART = 1 << 20  # bytes of one part of a client's message
RECEIVE_MARK = 1000  # messages of one client that wait here, before it is left waiting itself
SEND_MARK = 65_536  # unread envelopes after which a client counts as deaf
BATCH = 64  # messages in one envelope
DEATH_WAIT_NS = 50_000_000  # how long a dead client's last messages are waited for once there is nothing to read
MEMORY_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Peer:
    """One connection that has said Hello."""

    uid: int
    pid: int
    epoch: int
    offered: str = ""  # memory of a Hello that is being answered
    memory: str = ""  # the session's memory, once it was welcomed
    broken: bool = False  # its connection is gone; the process is watched on, until the core says ForgetClient


@dataclass(slots=True)
class Watched:
    """A client process."""

    fd: int
    peers: dict[bytes, None] = field(default_factory=dict)
    died_at: int = 0


class Door:
    """The core's port "client"."""

    name = "client"
    seam = "gateway-client"

    def __init__(
        self, runtime: Runtime, endpoint: str, memory_dir: Path, memory_size: int, *, send_mark: int = SEND_MARK
    ) -> None:
        self._runtime = runtime
        self._memory_dir = memory_dir
        self._memory_size = memory_size
        read = runtime.memory.read
        self._codec: Codec[Any] = Codec(ToGateway, read=read, share=True)
        self._to_inline: Codec[Any] = Codec(ToClient, read=read, share=False)
        self._peers: dict[bytes, Peer] = {}
        self._processes: dict[int, Watched] = {}
        self._by_fd: dict[int, int] = {}
        self._news: list[Any] = []  # frames for the core that did not come by the socket
        self._unreachable: dict[bytes, None] = {}  # their connection is gone; what they sent before may be unread
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        socket = self._socket = runtime.context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_PART)
        socket.setsockopt(zmq.RCVHWM, RECEIVE_MARK)
        socket.setsockopt(zmq.SNDHWM, send_mark)
        socket.setsockopt(zmq.LINGER, 0)
        path = Path(endpoint.removeprefix("ipc://"))
        path.unlink(missing_ok=True)  # we hold the layer's lock, so it is a dead gateway's
        socket.bind(endpoint)
        path.chmod(0o666)  # who may connect is decided by the directory and by gateway.door_mode

    def readable(self) -> list[Pollable]:
        """The socket, and one descriptor for all pidfds and for news."""
        return [self._socket, self._epoll.fileno()]

    def writable(self) -> list[Pollable]:
        """Nothing ever waits here."""
        return []

    def room(self) -> int:
        """As much as there is: credit bounds it."""
        return UNLIMITED

    # in

    def receive(self, limit: int, now: int) -> list[Any]:
        """Up to `limit` messages of clients, as frames; then who died."""
        frames: list[Any] = self._news
        self._news = []
        for _ in range(limit):
            try:
                routing, parts = self._next_message()
            except zmq.Again:
                self._look_for_dead(frames)
                break
            self._take(routing, parts, frames)
        if self._news:
            frames, self._news = frames + self._news, []
        return frames

    def _next_message(self) -> tuple[bytes, list[zmq.Frame]]:
        """The routing id and the parts of one message; of a too long one only what shows that it is too long. Raises
        zmq.Again."""
        routing = self._socket.recv(zmq.NOBLOCK)
        parts: list[zmq.Frame] = []
        while True:
            part = self._socket.recv(zmq.NOBLOCK, copy=False)
            if len(parts) <= MAX_PARTS:
                parts.append(part)
            if not part.more:
                return routing, parts

    def _take(self, routing: bytes, parts: list[zmq.Frame], frames: list[Any]) -> None:
        credentials = _credentials(parts[0])
        if credentials is None:
            self._count(reasons.GARBAGE.name, "a message without Peer-Address")
            return
        uid, pid = credentials
        try:
            epoch, to_epoch, messages = self._codec.decode(parts)
        except RefusedMessage as error:
            self._count(error.reason, f"pid {pid}: {error.detail}")
            number = errno.EPROTONOSUPPORT if error.reason == reasons.UNKNOWN_VERSION.name else errno.EBADMSG
            self._send(routing, [Refused(number, str(error)[:200])], 0)
            return
        if to_epoch not in (0, self._runtime.epoch):
            self._count(reasons.STALE_EPOCH.name, "", len(messages))
            return
        peer = self._peers.get(routing)
        for message in messages:
            if type(message) is Hello:
                peer = self._hello(routing, peer, uid, pid, epoch)
                found = self._check_memory(message.memory, uid) if message.memory else 0
                peer.offered = message.memory if not found else ""
                frames.append(FromClient(routing, uid, pid, message, found))
            elif peer is None or peer.epoch == epoch:
                frames.append(FromClient(routing, uid, pid, message))
            else:
                self._count(reasons.STALE_EPOCH.name, "")

    def _hello(self, routing: bytes, peer: Peer | None, uid: int, pid: int, epoch: int) -> Peer:
        """Know the client from now on, and watch its process."""
        if peer is not None and (peer.uid, peer.pid) == (uid, pid):
            peer.epoch, peer.broken = epoch, False
            return peer
        if peer is not None:
            self._forget(routing)
        peer = self._peers[routing] = Peer(uid, pid, epoch)
        if pid not in self._processes and pid > 0:  # pid 0: of another pid namespace, which only Probes look after
            self._watch(pid, routing)
        watched = self._processes.get(pid)
        if watched is not None:
            watched.peers[routing] = None
        return peer

    def _watch(self, pid: int, routing: bytes) -> None:
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno == errno.ESRCH:  # dead already
                self._tell_core(ClientLost(routing, True))
            else:
                self._runtime.log.warning("cannot watch client %d: %s", pid, error.strerror)
            return
        self._processes[pid] = Watched(fd)
        self._by_fd[fd] = pid
        self._epoll.register(fd, select.EPOLLIN)

    def _look_for_dead(self, frames: list[Any]) -> None:
        """Called when there is nothing to read: who is dead now has said all, once its connection is gone too."""
        for fd, _ in self._epoll.poll(0):
            if fd == self._wake:
                os.eventfd_read(fd)
                continue
            pid = self._by_fd[fd]
            watched = self._processes[pid]
            now = time.monotonic_ns()
            watched.died_at = watched.died_at or now
            overdue = now > watched.died_at + DEATH_WAIT_NS
            for routing in list(watched.peers):
                peer = self._peers[routing]
                if overdue or not self._reaches(routing, [], peer.epoch):
                    frames.append(ClientLost(routing, True))
                    self._forget(routing)
        for routing in self._unreachable:
            if routing in self._peers:
                frames.append(ClientLost(routing, False))
        self._unreachable.clear()

    def _check_memory(self, name: str, uid: int) -> int:
        """0, or what is wrong with the file that a client offers: it must be its own, regular, of the right size."""
        if not MEMORY_NAME.fullmatch(name):
            return errno.EINVAL
        try:
            fd = os.open(self._memory_dir / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            return error.errno or errno.EINVAL
        try:
            facts = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or facts.st_size != self._memory_size:
            return errno.EINVAL
        return 0 if facts.st_uid == uid else errno.EACCES

    # out

    def send(self, frames: list[Any], now: int) -> None:
        """Send to each client what is for it, in order."""
        batches: dict[bytes, list[Any]] = {}
        for frame in frames:
            kind = type(frame)
            if kind is ForClient:
                batches.setdefault(frame.peer, []).append(frame.message)
            elif kind is ForgetMemory:
                self._remove_memory(frame.region)
            elif kind is Probe:
                batches.setdefault(frame.peer, [])
            elif kind is ForgetClient:
                self._deliver(frame.peer, batches.pop(frame.peer, None))
                self._forget(frame.peer)
        for routing, messages in batches.items():
            self._deliver(routing, messages)

    def _deliver(self, routing: bytes, messages: list[Any] | None) -> None:
        if messages is None:
            return
        peer = self._peers.get(routing)
        epoch = peer.epoch if peer is not None else 0
        for start in range(0, len(messages) or 1, BATCH):
            batch = messages[start : start + BATCH]
            if not self._send(routing, self._prepare(routing, peer, batch), epoch):
                return

    def _prepare(self, routing: bytes, peer: Peer | None, messages: list[Any]) -> list[Any]:
        """Welcome makes the offered memory the session's; a Place elsewhere becomes its bytes."""
        for index, message in enumerate(messages):
            kind = type(message)
            if peer is None:
                continue
            if kind is Data:
                place = message.payload
                if type(place) is Place and (place.region != peer.memory or place.length <= INLINE_LIMIT):
                    try:
                        message.payload = self._runtime.memory.read(place)
                    except MemoryLost as error:  # the stream is broken: for the client at once, for tcp by the core
                        self._count(reasons.MEMORY_LOST.name, str(error))
                        messages[index] = Reset(message.sock, errno.ECONNRESET)
                        self._tell_core(FromClient(routing, peer.uid, peer.pid, Reset(message.sock, 0)))
            elif kind is Welcome and peer.offered:
                peer.memory, peer.offered = peer.offered, ""
        return messages

    def _send(self, routing: bytes, messages: Sequence[Any], to_epoch: int) -> bool:
        """Whether the client may get more; if not, the core hears of it."""
        peer = self._peers.get(routing)
        try:
            if self._reaches(routing, messages, to_epoch):
                return True
        except zmq.Again:
            self._count(reasons.CLIENT_DEAF.name, "a client does not read; its session ends")
            if peer is not None:
                self._tell_core(ClientLost(routing, True))
                self._forget(routing)
            return False
        if peer is not None and not peer.broken:  # the core hears of it when all is read that came before the end
            peer.broken = True
            self._unreachable[routing] = None
            os.eventfd_write(self._wake, 1)
        return False

    def _reaches(self, routing: bytes, messages: Sequence[Any], to_epoch: int) -> bool:
        """Send one envelope; False if the connection is gone. Raises zmq.Again if the client does not read."""
        codec = self._codec if routing in self._peers else self._to_inline
        parts = codec.encode(messages, self._runtime.epoch, to_epoch)
        try:
            self._socket.send_multipart([routing, *parts], zmq.NOBLOCK)
        except zmq.Again:
            raise
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            return False
        return True

    # housekeeping

    def _tell_core(self, frame: Any) -> None:
        """A frame for the core that nothing on the socket announces."""
        self._news.append(frame)
        os.eventfd_write(self._wake, 1)

    def _forget(self, routing: bytes) -> None:
        """Watch this connection no longer."""
        peer = self._peers.pop(routing, None)
        watched = self._processes.get(peer.pid) if peer is not None else None
        if peer is None or watched is None:
            return
        watched.peers.pop(routing, None)
        if not watched.peers:
            del self._processes[peer.pid], self._by_fd[watched.fd]
            self._epoll.unregister(watched.fd)
            os.close(watched.fd)

    def _remove_memory(self, region: str) -> None:
        if MEMORY_NAME.fullmatch(region):
            try:
                (self._memory_dir / region).unlink(missing_ok=True)
            except OSError as error:
                self._runtime.log.warning("cannot remove session memory %s: %s", region, error.strerror)

    def _count(self, reason: str, detail: str, n: int = 1) -> None:
        self._runtime.count(f"drop.{reason}", n)
        if detail:
            self._runtime.log.debug("door: %s %s", reason, detail)

    def close(self) -> None:
        """Close the socket and the descriptors; session memory goes with the gateway, as tcp resets what used it."""
        for watched in self._processes.values():
            os.close(watched.fd)
        self._epoll.close()
        os.close(self._wake)
        self._socket.close()


def _credentials(part: zmq.Frame) -> tuple[int, int] | None:
    """(uid, pid) of the process that connected, from the kernel."""
    try:
        _, uid, _, pid = str(part.get("Peer-Address")).rsplit(":", 3)
        return int(uid), int(pid)
    except (zmq.ZMQError, ValueError):
        return None
