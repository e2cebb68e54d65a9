"""The wire: a device port that is an AF_UNIX datagram socket, which connects two stacks, or a stack and a test tool,
without privileges. One frame a datagram, complete: no virtio header, so checksums and segments are done in software.

The peer is configured, or whoever sent last. A datagram queue in the kernel holds ten (net.unix.max_dgram_qlen), so a
full peer is common; poll() tells of its room only on a socket that is connected to it, and a connected socket would
hear of nobody else. So we talk through one socket and, while the peer is full, watch it through another.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from layers.link.device import BATCH, GSO_MAX, Regions
from layers.link.offload import Unfit, finish
from layers.link.tuntap import DeviceError
from levelip.frames.packet import DeviceFrame, DeviceState, FrameIds, Process
from levelip.ipc.memory import SLOT, MemoryLost
from levelip.ipc.port import UNLIMITED, Pollable
from levelip.rpc.paths import MAX_SOCKET_PATH
from levelip.rpc.place import Payload, Place
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire.ethernet import ETHERNET_HEADER_LEN

_NO_PEER = (errno.ECONNREFUSED, errno.ENOENT, errno.ENOTCONN, errno.ECONNRESET)


class WirePort:
    """See the module's text. `peer` empty: whoever sent last. `count(name, n)` adds to the shell's counters."""

    name = "device"
    seam = "link"

    def __init__(
        self,
        path: Path,
        *,
        peer: str = "",
        ethernet: bool,
        mtu: int,
        offload: bool,
        memory: Regions,
        epoch: int,
        queue: int,
        count: Callable[..., None],
        log: logging.Logger,
        gate: Callable[[], bool] = lambda: False,
    ) -> None:
        self.gate = gate
        self.state = DeviceState(path.name, "wire", ethernet, True, mtu, False, GSO_MAX if offload else 0)
        self._path = path
        self._peer: str | bytes = peer
        self._learn = not peer
        self._link_len = ETHERNET_HEADER_LEN if ethernet else 0
        self._memory = memory
        self._ids = FrameIds(Process.DEVICE, epoch)
        self._limit = queue
        self._count = count
        self._log = log
        self._buffer = memoryview(bytearray(SLOT))
        self._queue: deque[bytes] = deque()
        self._watch: socket.socket | None = None  # connected to the peer while it is full
        self._socket = _bind(path)
        self._log.info("wire %s is open, peer %s", path, peer or "whoever sends")

    # Port

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def readable(self) -> list[Pollable]:
        return [] if self.gate() else [self._socket.fileno()]

    def writable(self) -> list[Pollable]:
        if not self._queue:
            return []
        return [(self._watch or self._socket).fileno()]

    def receive(self, limit: int, now: int) -> list[Any]:
        frames: list[Any] = []
        if self._queue:
            self._flush()
        if self.gate():
            return frames
        for _ in range(min(limit, BATCH)):
            try:
                size, sender = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                break
            except OSError as error:
                self._log.debug("%s: %s", self._path, error.strerror)
                self._drop(reasons.DEVICE_ERROR)
                break
            if self._learn and sender and sender != self._peer:
                self._log.info("the wire's peer is %s", os.fsdecode(sender))
                self._peer = sender
                self._unwatch()
            if size == len(self._buffer):
                self._drop(reasons.WIRE_TRUNCATED)
                continue
            frames.append(DeviceFrame(self._ids.next(), [], bytes(self._buffer[:size]), b""))
        return frames

    def room(self) -> int:
        return 0 if self._queue else UNLIMITED

    def send(self, frames: list[Any], now: int) -> None:
        queue = self._queue
        for frame in frames:
            if len(queue) >= self._limit:
                self._drop(reasons.DEVICE_QUEUE)
                continue
            queue.extend(self._finished(frame))
            if not self._watch:
                self._flush()

    def close(self) -> None:
        self._unwatch()
        self._socket.close()
        self._path.unlink(missing_ok=True)

    # sending

    def _finished(self, frame: DeviceFrame) -> list[bytes]:
        """The datagrams that a frame makes."""
        payload: Payload = frame.payload
        try:
            if isinstance(payload, Place):
                payload = self._memory.read(payload)
            return finish(frame.vnet, frame.head, payload, self._link_len)
        except MemoryLost as error:
            self._log.debug("%s", error)
            self._drop(reasons.MEMORY_LOST)
        except Unfit as error:
            self._log.debug("%s", error)
            self._drop(reasons.BAD_OFFLOAD)
        return []

    def _flush(self) -> None:
        while self._queue:
            if not self._peer:
                self._drop(reasons.WIRE_PEER)
            else:
                try:
                    self._socket.sendto(self._queue[0], self._peer)
                except BlockingIOError:
                    self._watch_peer()
                    return
                except OSError as error:
                    self._drop(reasons.WIRE_PEER if error.errno in _NO_PEER else reasons.DEVICE_ERROR)
            self._queue.popleft()
        self._unwatch()

    def _watch_peer(self) -> None:
        """Have poll() tell when the peer takes datagrams again."""
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        watch = self._watch or socket.socket(socket.AF_UNIX, kind)
        try:
            watch.connect(self._peer)  # again, too: there may be another socket at that path by now
            self._watch = watch
        except OSError:
            # EPERM: it is connected to us, then our own socket tells; gone: the next attempt says so.
            watch.close()
            self._watch = None

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _drop(self, reason: Reason) -> None:
        self._count(reason.counter, 1)


def _bind(path: Path) -> socket.socket:
    """The socket at `path`; a file that a dead process left there is replaced. Raises DeviceError."""
    size = len(os.fsencode(path))
    if size > MAX_SOCKET_PATH:
        raise DeviceError(f"device.wire_path {path} has {size} bytes, {MAX_SOCKET_PATH} are allowed")
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        try:
            made.bind(str(path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _stale(path):
                raise
            path.unlink()
            made.bind(str(path))
    except OSError as error:
        made.close()
        why = "another process uses it" if error.errno == errno.EADDRINUSE else error.strerror
        raise DeviceError(f"wire {path}: {why}") from None
    return made


def _stale(path: Path) -> bool:
    """Whether it is a socket's file that nobody is bound to any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return path.is_socket()
        except OSError:
            return False
        return False
