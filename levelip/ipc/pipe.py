"""A pipe to a neighbour: one PULL socket that we bind, one PUSH socket that connects to the neighbour's.

Hello. After every (re)connect each side sends [process, epoch, knows], `knows` being the epoch that it has last heard
from the other, and again when the other does not know us yet. A neighbour is up when our PUSH socket is connected and
its hello has come; the core then gets NeighbourUp(name, epoch). Loss is learned from the socket's monitor.

Packet pipes may lose: IMMEDIATE, a high-water mark, `pipe_full` and `neighbour_down` drops. Stream pipes never lose
while the connection lasts: no high-water mark (credits bound what is under way), and a message names the epoch it is
meant for, so that nothing of before a restart is taken for something of after it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import msgspec
import zmq
from zmq.utils.monitor import parse_monitor_message

from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.ipc.keys import read_key_pair
from levelip.ipc.memory import MemoryLost
from levelip.ipc.port import UNLIMITED, Pollable
from levelip.ipc.rundir import RunError
from levelip.ipc.runtime import Runtime
from levelip.rpc.codec import Codec, RefusedMessage
from levelip.rpc.place import Place
from levelip.tracing import reasons

_HELLO_AGAIN_NS = 200_000_000
_MAX_MESSAGE = 64 << 20  # bytes; a batch of inline payloads stays far below
_RECONNECT_MS = 10
_AHEAD = 256  # messages, of up to ipc.batch frames each, that are kept while a debugger's queue before the core is full

# As plain integers: zmq's flags are enums, whose arithmetic costs more than the calls they are for.
_NOBLOCK = int(zmq.NOBLOCK)
_EVENTS = int(zmq.EVENTS)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)


def receive_parts(socket: zmq.Socket[bytes], *, expected: bool = False) -> list[bytes] | None:
    """The parts of the next message, or None if there is none. Asking costs less than zmq's exception, but more than
    to receive what is `expected` to be there."""
    if not expected and not int(socket.get(_EVENTS)) & _POLLIN:
        return None
    try:
        parts = [socket.recv(_NOBLOCK)]
        while socket.get(_RCVMORE):
            parts.append(socket.recv(_NOBLOCK))
    except zmq.Again:
        return None
    return parts


Came = list[tuple[int, msgspec.Raw]]
"""Number of messages, and their msgpack, an array: of each batch."""


class PipeHello(msgspec.Struct, array_like=True, tag=90):
    """First message on a pipe; see the module's text."""

    process: str
    epoch: int
    knows: int


class PipeWord(msgspec.Struct, array_like=True, tag=91):
    """A message beside the frames (levelip.ipc.relay): `what` is "ask" (the command `name` with `args` for `process`),
    "answer" (in `args`) or "error" (`name` is its text). `number`: under which the answer comes back, 0: none is
    wanted. `hops`: over how many pipes it may go."""

    number: int
    process: str
    what: str
    name: str
    args: dict[str, Any]
    hops: int = 1


class Pipe:
    """One neighbour. `lossless` makes it a stream pipe."""

    def __init__(self, runtime: Runtime, neighbour: str, seam: str, kinds: Any, *, lossless: bool) -> None:
        self.name = neighbour
        self.seam = seam
        self._runtime = runtime
        self._lossless = lossless
        self._config = runtime.config.ipc
        self.remote = self._endpoint_is_remote(runtime.name, neighbour)
        """Whether the neighbour runs, or may run, on another host."""
        self._codec: Codec[Any] = Codec(kinds | PipeHello | PipeWord, read=runtime.memory.read, share=not self.remote)
        self._batch = self._config.batch
        self.pull = self._socket(zmq.PULL)
        self._push = self._socket(zmq.PUSH)
        self._bind(neighbour, runtime.name)
        monitored = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        self.monitor = self._push.get_monitor_socket(monitored)
        # set by a loop that sleeps on them: the monitor may have something to tell, the neighbour has probably sent
        self.alarmed = True
        self.expected = False
        self._connect(runtime.name, neighbour)
        # the batch that a packet pipe did not take, as parts and as frames: until it does, there is no room
        self._waiting: tuple[list[bytes], list[Any]] | None = None
        self.came: Came | None = None
        """What `receive` gave last, as it came; None if not all of it is among the frames."""
        self.words: list[PipeWord] = []
        """What has come beside the frames, for the relay to take."""
        self._ahead: deque[list[bytes]] = deque()  # messages that were taken while nobody wanted frames
        self._sources: list[Pollable] = [self.pull, self.monitor]
        self._connected = False
        self._heard: int | None = None  # epoch of the neighbour's last hello
        self.up: int | None = None  # epoch that the core was told of
        self._said_at = 0
        self._status: list[Any] = []  # NeighbourUp/Down for the core

    # sockets

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._runtime.context.socket(kind)
        socket.linger = 100
        socket.maxmsgsize = _MAX_MESSAGE
        socket.reconnect_ivl = _RECONNECT_MS
        socket.immediate = 1
        hwm = 0 if self._lossless else self._config.packet_hwm
        socket.sndhwm = socket.rcvhwm = hwm
        return socket

    def _endpoint(self, sender: str, receiver: str) -> str:
        return self._config.endpoints.get(f"{sender}-{receiver}", f"ipc://{self._runtime.run.pipe(sender, receiver)}")

    def _endpoint_is_remote(self, one: str, other: str) -> bool:
        return any(not self._endpoint(*pair).startswith("ipc://") for pair in ((one, other), (other, one)))

    def _secure(self, socket: zmq.Socket[bytes], endpoint: str) -> bool:
        """CURVE keys and heartbeats for a pipe between hosts; False for one within the run directory."""
        if endpoint.startswith("ipc://"):
            return False
        public, secret = read_key_pair(self._config.secret_key_file)
        socket.curve_publickey, socket.curve_secretkey = public, secret
        socket.heartbeat_ivl = self._config.heartbeat_ms
        socket.heartbeat_timeout = 3 * self._config.heartbeat_ms
        return True

    def _bind(self, sender: str, receiver: str) -> None:
        endpoint = self._endpoint(sender, receiver)
        if self._secure(self.pull, endpoint):
            self._runtime.authenticate()
            self.pull.curve_server = True
        self.pull.bind(endpoint)

    def _connect(self, sender: str, receiver: str) -> None:
        endpoint = self._endpoint(sender, receiver)
        if self._secure(self._push, endpoint):
            key = self._config.server_keys.get(f"{sender}-{receiver}", "")
            if not key:
                raise RunError(
                    f"ipc.server_keys has no key for the pipe {sender}-{receiver} ({endpoint}); see lvlip keygen"
                )
            self._push.curve_serverkey = key.encode("ascii")
        self._push.connect(endpoint)

    # Port

    def readable(self) -> list[Pollable]:
        return self._sources

    def writable(self) -> list[Pollable]:
        return [self._push] if self._waiting is not None else []

    def room(self) -> int:
        if self._lossless:
            return 0 if self.up is None else UNLIMITED
        return 0 if self.full() else UNLIMITED  # packets toward nobody are taken, dropped and counted

    @property
    def waiting(self) -> int:
        """Frames handed over that the neighbour's queue had no room for."""
        return len(self._waiting[1]) if self._waiting is not None else 0

    def full(self) -> bool:
        """Whether the neighbour is up and takes nothing now. (Learned by sending: to ask costs more than to send.)"""
        if self._waiting is not None:
            self._retry()
        return self._waiting is not None

    def receive(self, limit: int, now: int) -> list[Any]:
        if self.alarmed:
            self._watch()
        frames: list[Any] = []
        came: Came | None = []
        pull, decode = self.pull, self._codec.decode
        expected, self.expected = self.expected, False
        ahead = self._ahead
        while len(frames) < limit:
            parts = ahead.popleft() if ahead else receive_parts(pull, expected=expected)
            if parts is None:
                break
            expected = False
            try:
                epoch, to_epoch, messages = decode(parts)
            except RefusedMessage as refusal:
                self._refuse(refusal.reason, str(refusal))
                continue
            if len(messages) == 1 and type(messages[0]) is PipeHello:
                self._hello(messages[0])
                continue
            if epoch != self._heard or (self._lossless and to_epoch != self._runtime.epoch):
                self._refuse(reasons.STALE_EPOCH.name, "", len(messages))
                self._free(messages)
                continue
            if len(messages) == 1 and type(messages[0]) is PipeWord:
                self.words.append(messages[0])
                continue
            before = len(frames)
            for message in messages:
                payload = getattr(message, "payload", None)
                if type(payload) is Place and not self._runtime.memory.check(payload):
                    self._refuse(reasons.MEMORY_LOST.name, payload.region)
                elif type(message) is PipeHello or type(message) is PipeWord:
                    self._refuse(reasons.BAD_MESSAGE.name, f"{type(message).__name__} within a batch")
                else:
                    frames.append(message)
            if came is not None:
                items = self._codec.items
                if items is not None and len(frames) - before == len(messages):
                    came.append((len(messages), items))
                else:
                    came = None
        if self._status:
            frames[:0] = self._status
            self._status = []
            came = None
        self.came = came
        return frames

    def look_ahead(self) -> None:
        """Take words past frames for which there is no room now; those stay in order."""
        while len(self._ahead) < _AHEAD and (parts := receive_parts(self.pull)) is not None:
            try:
                _, _, messages = self._codec.decode(parts)
            except RefusedMessage:
                messages = []
            if len(messages) == 1 and type(messages[0]) is PipeWord:
                self.words.append(messages[0])
            else:
                self._ahead.append(parts)

    def say(self, word: PipeWord) -> bool:
        """Send a word; whether the pipe took it."""
        if self.up is None:
            return False
        parts = self._codec.encode([word], self._runtime.epoch, self.up if self._lossless else 0)
        return self._push_parts(parts)

    def send(self, frames: list[Any], now: int, encoded: list[tuple[int, bytearray]] | None = None) -> None:
        """`encoded`: the frames' msgpack, if it is known, in batches of no more than ipc.batch (`Codec.wrap`)."""
        if self.up is None:
            self._runtime.count(reasons.NEIGHBOUR_DOWN.counter, len(frames))
            return
        to_epoch = self.up if self._lossless else 0
        if encoded is not None:
            start = 0
            for count, items in encoded:
                self._put(self._codec.wrap(items, self._runtime.epoch, to_epoch), frames[start : start + count])
                start += count
            return
        for start in range(0, len(frames), self._batch):
            batch = frames[start : start + self._batch]
            parts = self._encode(batch, to_epoch)
            if parts is not None:
                self._put(parts, batch)

    def _put(self, parts: list[bytes], batch: list[Any]) -> None:
        """Send a message, have it wait, or drop it and count."""
        if self._waiting is None and self._push_parts(parts):
            return
        if self._waiting is None and not self._lossless:
            self._waiting = parts, batch
        else:  # a stream pipe takes nothing only while its connection is being lost
            self._runtime.count(reasons.PIPE_FULL.counter, len(batch))
            self._free(batch)

    def _push_parts(self, parts: list[bytes]) -> bool:
        """Whether the pipe took a message."""
        try:
            if len(parts) == 1:
                self._push.send(parts[0], _NOBLOCK)
            else:
                self._push.send_multipart(parts, _NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _retry(self) -> None:
        """Send what waits, or drop it if the neighbour is gone."""
        assert self._waiting is not None
        parts, batch = self._waiting
        if self.up is None:
            self._runtime.count(reasons.NEIGHBOUR_DOWN.counter, len(batch))
            self._free(batch)
        elif not self._push_parts(parts):
            return
        self._waiting = None

    def _encode(self, batch: list[Any], to_epoch: int) -> list[bytes] | None:
        """The parts of one message; frames whose memory is gone are left out and counted."""
        try:
            return self._codec.encode(batch, self._runtime.epoch, to_epoch)
        except MemoryLost:
            pass
        good = []
        for frame in batch:
            try:
                self._codec.encode([frame], self._runtime.epoch, to_epoch)
            except MemoryLost as error:
                self._refuse(reasons.MEMORY_LOST.name, str(error))
            else:
                good.append(frame)
        return self._codec.encode(good, self._runtime.epoch, to_epoch) if good else None

    def _free(self, frames: list[Any]) -> None:
        """Give back the pool slots of frames that go no further."""
        for frame in frames:
            payload = getattr(frame, "payload", None)
            if type(payload) is Place:
                self._runtime.memory.free(payload)

    def _refuse(self, reason: str, detail: str, n: int = 1) -> None:
        self._runtime.count(f"drop.{reason}", n)
        if detail:
            self._runtime.log.debug("from %s: %s %s", self.name, reason, detail)

    # hello

    def tick(self) -> None:
        """Say hello again while the neighbour has not answered; called in every loop."""
        if self._connected and self.up is None and time.monotonic_ns() - self._said_at > _HELLO_AGAIN_NS:
            self._say_hello()

    def _say_hello(self) -> None:
        self._said_at = time.monotonic_ns()
        hello = PipeHello(self._runtime.name, self._runtime.epoch, self._heard or 0)
        try:
            self._push.send_multipart(self._codec.encode([hello], self._runtime.epoch), _NOBLOCK)
        except zmq.Again:
            self._runtime.log.debug("hello to %s: no room yet", self.name)

    def _hello(self, hello: PipeHello) -> None:
        if hello.process != self.name:
            self._refuse(reasons.BAD_MESSAGE.name, f"hello of {hello.process} on the pipe of {self.name}")
            return
        if hello.epoch != self._heard:
            self._heard = hello.epoch
            self._say_down()
        if hello.knows != self._runtime.epoch and self._connected:
            self._say_hello()
        self._say_up()

    def _watch(self) -> None:
        """Take what the monitor of the outgoing socket tells."""
        while (message := receive_parts(self.monitor)) is not None:
            event = parse_monitor_message(message)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._connected = True
                self._say_hello()
                self._say_up()
            elif event == zmq.EVENT_DISCONNECTED:
                self._connected = False
                if self.up == self._heard:
                    self._heard = None
                self._say_down()

    def _say_up(self) -> None:
        if self._connected and self._heard is not None and self.up is None:
            self.up = self._heard
            self._status.append(NeighbourUp(self.name, self.up))
            self._runtime.log.info("%s is up", self.name)

    def _say_down(self) -> None:
        if self.up is not None:
            self.up = None
            self._status.append(NeighbourDown(self.name))
            self._runtime.log.info("%s is gone, waiting for it", self.name)

    def close(self) -> None:
        self._push.disable_monitor()
        for socket in (self.pull, self._push, self.monitor):
            socket.close()
