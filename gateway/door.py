"""The applications' door: a socket in a directory that other users may enter, which speaks ZeroMQ's protocol.

Clients are DEALER sockets of any ZeroMQ. On our side stands no ROUTER but gateway/zmtp.py, since ROUTER gathers a
message without bound, reads from whoever sends most, and tells neither whose connection ended nor when; it also costs
two wake-ups a message, of libzmq's thread.

Who a client is, is told by the kernel: SO_PEERCRED of the connection. That a connection ended is seen at once, at its
end of file, after all that came before; that its process is dead, at a pidfd.

Bounds. Each client has its turn, SLICE messages long. A part, a message (in bytes and parts), and what all connections
together have sent of messages that are not whole are bounded (gateway/connection.py, HELD_MAX); a user's connections
without a session are (STRANGERS). A client that does not read what it is sent is not read either from PAUSE bytes on,
so that its requests wait in its own process; streams are bounded by credit (gateway/relay.py); beyond
`gateway.client_unread` bytes it counts as deaf, and its session ends.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import stat
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway import zmtp
from gateway.connection import Connection
from levelip.frames.seam import ClientLost, ForClient, ForgetClient, ForgetMemory, FromClient, Probe
from levelip.ipc.memory import MemoryLost
from levelip.ipc.port import UNLIMITED, Pollable
from levelip.ipc.runtime import Runtime
from levelip.rpc.codec import Codec, RefusedMessage
from levelip.rpc.messages import Hello, Refused, ToClient, ToGateway, Welcome
from levelip.rpc.place import INLINE_LIMIT, Place
from levelip.rpc.stream import Data, Reset
from levelip.tracing import reasons

SLICE = 32  # messages of one client, before it is another one's turn
TURNS = 256  # turns in one round of the loop
ACCEPTS = 64  # connections taken in one round
PAUSE = 1 << 20  # unread bytes from which on a client is not read
HELD_MAX = 64 << 20  # bytes of messages that are not whole or not yet handed on, of all connections together
HELD_SMALL = 65_536  # less of one connection is not counted
STRANGERS = 256  # connections of one user without a session; beyond it the oldest is closed
BATCH = 64  # messages in one envelope
MESSAGE_COST = 256  # bytes of a decoded message besides its payload
MEMORY_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True)
class Peer:
    """One connection that has said Hello."""

    uid: int
    pid: int
    epoch: int
    offered: str = ""  # memory of a Hello that is being answered
    memory: str = ""  # the session's memory, once it was welcomed


@dataclass(slots=True)
class Watched:
    """A client process."""

    fd: int
    peers: dict[bytes, None] = field(default_factory=dict)


class Door:
    """The core's port "client"."""

    name = "client"
    seam = "gateway-client"

    def __init__(self, runtime: Runtime, endpoint: str, memory_dir: Path, memory_size: int) -> None:
        self._runtime = runtime
        self._memory_dir = memory_dir
        self._memory_size = memory_size
        read = runtime.memory.read
        self._codec: Codec[Any] = Codec(ToClient, read=read, share=True)
        self._to_inline: Codec[Any] = Codec(ToClient, read=read, share=False)
        self._from_client: Codec[Any] = Codec(ToGateway, share=False)  # who brings bytes, and names no Place
        self._connections: dict[bytes, Connection] = {}
        self._by_fd: dict[int, Connection] = {}
        self._strangers: dict[int, dict[bytes, None]] = {}  # by user, the oldest first
        self._held: dict[bytes, int] = {}  # bytes that a connection makes us hold, where they are many
        self._held_all = 0
        self._made = 0
        self._busy: deque[Connection] = deque()  # those that may have something to say
        self._peers: dict[bytes, Peer] = {}
        self._processes: dict[int, Watched] = {}
        self._by_pidfd: dict[int, int] = {}
        self._news: list[Any] = []  # frames for the core that came by no connection
        self._woken = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll = select.epoll()
        self._epoll.register(self._wake, select.EPOLLIN)
        path = Path(endpoint.removeprefix("ipc://"))
        path.unlink(missing_ok=True)  # we hold the layer's lock, so it is a dead gateway's
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o666)  # who may connect is decided by the directory and by gateway.door_mode
        self._listener.setblocking(False)
        self._listener.listen(socket.SOMAXCONN)
        self._accepting = False
        self._accept_on(True)

    def readable(self) -> list[Pollable]:
        """One descriptor for all connections, pidfds and news."""
        return [self._epoll.fileno()]

    def writable(self) -> list[Pollable]:
        """The same one sees when a client reads on."""
        return []

    def room(self) -> int:
        """As much as there is: credit bounds it."""
        return UNLIMITED

    @property
    def held(self) -> int:
        """Bytes that clients make it keep of what they said: little ones of one client are not counted."""
        return self._held_all

    @property
    def unread(self) -> int:
        """Bytes that clients have yet to read."""
        return sum(connection.unread for connection in self._connections.values())

    @property
    def connections(self) -> int:
        """How many are open, or have left something that is to be handed on."""
        return len(self._connections)

    # in

    def receive(self, limit: int, now: int) -> list[Any]:
        """Up to about `limit` messages of clients, in turns, as frames; and who is gone."""
        frames: list[Any] = []
        self._look()
        busy, turns = self._busy, TURNS
        while busy and turns and len(frames) < limit:
            turns -= 1
            connection = busy.popleft()
            if self._turn(connection, frames) or (connection.ended and connection.routing in self._connections):
                busy.append(connection)
            else:
                connection.busy = False
        if self._news:
            frames += self._news
            self._news = []
        if busy:
            self._wake_up()
        return frames

    def _look(self) -> None:
        """What the kernel has to tell."""
        for fd, event in self._epoll.poll(0):
            connection = self._by_fd.get(fd)
            if connection is not None:
                if event & select.EPOLLOUT:
                    self._flush(connection)
                if event & (select.EPOLLHUP | select.EPOLLERR):
                    connection.drop_output()
                if event & ~select.EPOLLOUT:
                    self._has_something(connection)
            elif fd == self._wake:
                os.eventfd_read(fd)
                self._woken = False
            elif fd in self._by_pidfd:
                self._process_ended(fd)
            elif self._accepting and fd == self._listener.fileno():
                self._accept()

    def _has_something(self, connection: Connection) -> None:
        if not connection.busy:
            connection.busy = True
            self._busy.append(connection)

    def _turn(self, connection: Connection, frames: list[Any]) -> bool:
        """One client's turn; whether it may have more to say."""
        inbox, parser = connection.inbox, connection.parser
        room, has_read = SLICE, False
        try:
            while True:
                while inbox:
                    if room <= 0:
                        return True
                    frames.append(inbox.popleft())
                    room -= 1
                connection.inbox_bytes = 0
                if connection.ended:
                    self._over(connection, frames)
                    return False
                if connection.paused:
                    return False
                if room <= 0:
                    return True
                item = parser.take()
                kind = type(item)
                if kind is zmtp.Message:
                    self._take(connection, item)  # type: ignore[arg-type]
                    if not inbox:  # a probe, or nothing of ours: it has cost time all the same
                        room -= 1
                elif item is None:
                    if has_read:  # epoll tells if there is more, but not of a process that is dead
                        return connection.dying
                    data = connection.read()
                    has_read = True
                    if data:
                        parser.feed(data)
                    elif data is None:
                        if not connection.dying:
                            return False
                        self._cut(connection, "")
                    else:
                        self._cut(connection, "the end in the midst of a message" if parser.partial else "")
                elif kind is zmtp.Answer:
                    room -= 1
                    connection.send([item])  # type: ignore[list-item]
                    self._bound_unread(connection)
                elif kind is zmtp.Overlong:
                    room -= 1
                    self._count(reasons.BAD_PARTS.name, f"pid {connection.pid}: a message with too many parts or bytes")
                    self._refuse(connection, errno.EMSGSIZE, "bad_parts: a message with too many parts or bytes")
                else:
                    return True
        except zmtp.Violation as error:
            if parser.ready:
                self._refuse(connection, errno.EPROTO, f"the connection is cut: {error}")
            self._cut(connection, str(error))
            return True
        finally:
            if self._held or parser.held > HELD_SMALL or connection.inbox_bytes > HELD_SMALL:
                self._weigh(connection)

    def _cut(self, connection: Connection, garbage: str) -> None:
        """Close a connection; it is over when the core has seen what is in its inbox."""
        if garbage:
            self._count(reasons.GARBAGE.name, f"pid {connection.pid}: {garbage}")
        if not connection.ended:
            del self._by_fd[connection.fd]
            connection.close()
            self._accept_on(True)
            self._has_something(connection)

    def _over(self, connection: Connection, frames: list[Any]) -> None:
        """All that it said was handed on. If its process lives, it may come back."""
        routing = connection.routing
        if self._connections.pop(routing, None) is None:
            return
        self._set_held(routing, 0)
        self._no_stranger(connection)
        peer = self._peers.get(routing)
        if peer is None:
            return
        dead = connection.dying
        frames.append(ClientLost(routing, dead))
        if dead:
            self._forget(routing)

    def _weigh(self, connection: Connection) -> None:
        """Bound what all connections make us hold: whoever has most of it goes."""
        held = 0 if connection.ended else connection.parser.held + connection.inbox_bytes
        self._set_held(connection.routing, held if held > HELD_SMALL else 0)
        if self._held_all > HELD_MAX:
            largest = max(self._held, key=self._held.__getitem__)
            self._set_held(largest, 0)
            loser = self._connections[largest]
            loser.inbox.clear()
            loser.parser.forget()
            self._cut(loser, "too much of messages that are not whole")

    def _set_held(self, routing: bytes, held: int) -> None:
        self._held_all += held - self._held.pop(routing, 0)
        if held:
            self._held[routing] = held

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError as error:  # no descriptor is left: clients wait until one closes
                self._runtime.log.warning("cannot accept a client: %s", error.strerror)
                self._count(reasons.CLIENT_LIMIT.name, "no descriptor")
                self._accept_on(False)
                return
            self._made += 1
            connection = Connection(sock, self._made.to_bytes(8, "big"), self._epoll)
            self._connections[connection.routing] = self._by_fd[connection.fd] = connection
            self._is_stranger(connection)

    def _accept_on(self, wanted: bool) -> None:
        if wanted is not self._accepting:
            self._accepting = wanted
            if wanted:
                self._epoll.register(self._listener.fileno(), select.EPOLLIN)
            else:
                self._epoll.unregister(self._listener.fileno())

    def _is_stranger(self, connection: Connection) -> None:
        """It has no session (any more). Whoever collects such connections loses the oldest."""
        connection.stranger = True
        strangers = self._strangers.setdefault(connection.uid, {})
        strangers[connection.routing] = None
        if len(strangers) > STRANGERS:
            oldest = self._connections[next(iter(strangers))]
            self._no_stranger(oldest)
            self._count(reasons.CLIENT_LIMIT.name, f"uid {oldest.uid}: {STRANGERS} connections without a session")
            self._cut(oldest, "")

    def _no_stranger(self, connection: Connection) -> None:
        strangers = self._strangers.get(connection.uid)
        if strangers is not None:
            strangers.pop(connection.routing, None)
            if not strangers:
                del self._strangers[connection.uid]
        connection.stranger = False

    # messages

    def _take(self, connection: Connection, parts: zmtp.Message) -> None:
        """One whole message, into the connection's inbox."""
        routing, uid, pid = connection.routing, connection.uid, connection.pid
        try:
            epoch, to_epoch, messages = self._from_client.decode(parts)
        except RefusedMessage as error:
            self._count(error.reason, f"pid {pid}: {error.detail}")
            number = errno.EPROTONOSUPPORT if error.reason == reasons.UNKNOWN_VERSION.name else errno.EBADMSG
            self._refuse(connection, number, str(error)[:200])
            return
        if to_epoch not in (0, self._runtime.epoch):
            self._count(reasons.STALE_EPOCH.name, "", len(messages))
            return
        peer = self._peers.get(routing)
        for message in messages:
            if type(message) is Hello:
                peer = self._hello(connection, peer, epoch)
                found = self._check_memory(message.memory, uid) if message.memory else 0
                peer.offered = message.memory if not found else ""
                connection.inbox.append(FromClient(routing, uid, pid, message, found))
            elif peer is None or peer.epoch == epoch:
                connection.inbox.append(FromClient(routing, uid, pid, message))
            else:
                self._count(reasons.STALE_EPOCH.name, "")
        connection.inbox_bytes = sum(map(len, parts)) + MESSAGE_COST * len(connection.inbox)

    def _hello(self, connection: Connection, peer: Peer | None, epoch: int) -> Peer:
        """Know the client from now on, and watch its process."""
        if peer is not None:
            peer.epoch = epoch
            return peer
        routing, pid = connection.routing, connection.pid
        self._no_stranger(connection)
        peer = self._peers[routing] = Peer(connection.uid, pid, epoch)
        if pid not in self._processes and pid > 0:  # pid 0: of another pid namespace
            self._watch(connection)
        watched = self._processes.get(pid)
        if watched is not None:
            watched.peers[routing] = None
        return peer

    def _watch(self, connection: Connection) -> None:
        pid = connection.pid
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            if error.errno == errno.ESRCH:
                connection.dying = True
            else:
                self._runtime.log.warning("cannot watch client %d: %s", pid, error.strerror)
            return
        self._processes[pid] = Watched(fd)
        self._by_pidfd[fd] = pid
        self._epoll.register(fd, select.EPOLLIN)

    def _process_ended(self, pidfd: int) -> None:
        """What it said is still read; then its sessions end."""
        for routing in list(self._processes[self._by_pidfd[pidfd]].peers):
            connection = self._connections.get(routing)
            if connection is None:
                self._tell_core(ClientLost(routing, True))
                self._forget(routing)
            elif not connection.dying:
                connection.dying = True
                if not connection.ended:
                    connection.drop_output()
                self._has_something(connection)
                self._unwatch(routing)

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
        connection = self._connections.get(routing)
        if messages is None or connection is None or connection.ended:
            return  # its end is being told
        peer = self._peers.get(routing)
        epoch = peer.epoch if peer is not None else 0
        for start in range(0, len(messages) or 1, BATCH):
            batch = messages[start : start + BATCH]
            self._say(connection, self._prepare(routing, peer, batch), epoch)

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

    def _refuse(self, connection: Connection, number: int, text: str) -> None:
        """Answer what is no message of this protocol."""
        self._say(connection, [Refused(number, text)], 0)

    def _say(self, connection: Connection, messages: Sequence[Any], to_epoch: int) -> None:
        """Send one envelope."""
        codec = self._codec if connection.routing in self._peers else self._to_inline
        connection.send(zmtp.encode(codec.encode(messages, self._runtime.epoch, to_epoch)))
        self._bound_unread(connection)

    def _bound_unread(self, connection: Connection) -> None:
        """A client that leaves much unread is not read; one that leaves too much is given up."""
        if connection.unread > PAUSE and not connection.paused:
            connection.pause(True)
        if connection.unread > self._runtime.config.gateway.client_unread:
            self._count(reasons.CLIENT_DEAF.name, f"pid {connection.pid} does not read; its session ends")
            connection.inbox.clear()
            connection.dying = True
            self._cut(connection, "")
            self._wake_up()

    def _flush(self, connection: Connection) -> None:
        connection.flush()
        if connection.paused and connection.unread < PAUSE // 2:
            connection.pause(False)
            self._has_something(connection)  # what was read before the pause

    # housekeeping

    def _tell_core(self, frame: Any) -> None:
        """A frame for the core that nothing on a connection announces."""
        self._news.append(frame)
        self._wake_up()

    def _wake_up(self) -> None:
        if not self._woken:
            self._woken = True
            os.eventfd_write(self._wake, 1)

    def _forget(self, routing: bytes) -> None:
        """The session is over; its connection, if it still stands, is anybody's again."""
        self._unwatch(routing)
        if self._peers.pop(routing, None) is not None:
            connection = self._connections.get(routing)
            if connection is not None and not connection.ended:
                self._is_stranger(connection)

    def _unwatch(self, routing: bytes) -> None:
        peer = self._peers.get(routing)
        watched = self._processes.get(peer.pid) if peer is not None else None
        if peer is None or watched is None:
            return
        watched.peers.pop(routing, None)
        if not watched.peers:
            del self._processes[peer.pid], self._by_pidfd[watched.fd]
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
        """Close the sockets and descriptors; session memory goes with the gateway, as tcp resets what used it."""
        for connection in self._connections.values():
            connection.close()
        for watched in self._processes.values():
            os.close(watched.fd)
        self._listener.close()
        self._epoll.close()
        os.close(self._wake)
