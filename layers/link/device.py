"""The device port: frames between a tun or tap interface and the core.

A frame is read straight into a slot of the device pool. A long one whose checksum the device vouches for stays there:
its headers are copied out ("header split", as a NIC does) and the payload goes up as a Place. Everything else goes up
as bytes, and the slot is used again. Frames that come from shared memory are written by the kernel from where they lie.

While ip takes nothing (`gate`) the device is not read, so that losses happen in the device's queue, as with a NIC.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from layers.link.offload import Unfit, finish
from layers.link.tuntap import (
    OFFLOADS,
    DeviceError,
    HostSide,
    Kind,
    configure,
    current_name,
    facts,
    open_interface,
    set_persistent,
)
from levelip.frames.packet import DeviceFrame, DeviceState, FrameIds, Process
from levelip.ipc.memory import SLOT, MemoryLost
from levelip.ipc.port import UNLIMITED, Pollable
from levelip.rpc.place import INLINE_LIMIT, Payload, Place
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire.ethernet import ETHERNET_HEADER_LEN, EtherType
from levelip.wire.segment import header_length
from levelip.wire.vnet import COMPLETE, DATA_VALID, NEEDS_CSUM, VNET_HEADER_LEN

BATCH = 64  # frames read in one round of the loop
GSO_MAX = 65_535  # bytes: what an IPv4 packet can hold (RFC 791 3.1)
_HEADERS = 60 + 60  # bytes: longest IPv4 and TCP headers
_IPV4 = EtherType.IPV4.to_bytes(2, "big")
_KNOWN_GOOD = NEEDS_CSUM | DATA_VALID
_GONE = (errno.EBADFD, errno.EBADF, errno.ENXIO, errno.ENODEV)  # tun.c: the interface was deleted
_DOWN = (errno.EIO, errno.ENETDOWN)  # tun.c: the interface is not up
_RTMGRP_LINK = 1  # linux/rtnetlink.h
_NEWS = 65_536  # bytes of one message of rtnetlink, at most


class Slots(Protocol):
    """The device pool (levelip.ipc.memory.Pool)."""

    def slot(self) -> tuple[int, memoryview] | None: ...
    def place(self, index: int, start: int, length: int) -> Place: ...


class Regions(Protocol):
    """Shared memory (levelip.ipc.memory.Memory)."""

    def read(self, place: Place) -> bytes: ...
    def views(self, place: Place) -> list[memoryview]: ...


class DeviceSetup:
    """What to open, and how."""

    def __init__(
        self,
        name: str,
        kind: Kind,
        *,
        offload: bool = True,
        attach: bool = False,
        persist: bool = True,
        host: HostSide | None = None,
        offloads: int = OFFLOADS,
    ) -> None:
        self.name = name
        self.kind: Kind = kind
        self.offload = offload
        self.attach = attach
        self.persist = persist
        self.host = host  # None: leave the host's side alone
        self.offloads = offloads


class DevicePort:
    """See the module's text. `count(name, n)` adds to the shell's counters; `lost(text)` ends the process: the device
    is gone and cannot be opened again without the privileges that were dropped."""

    name = "device"
    seam = "link"

    def __init__(
        self,
        setup: DeviceSetup,
        *,
        memory: Regions,
        pool: Slots,
        epoch: int,
        queue: int,
        count: Callable[..., None],
        lost: Callable[[str], None],
        log: logging.Logger,
        gate: Callable[[], bool] = lambda: False,
    ) -> None:
        self.gate = gate
        self._setup = setup
        self._memory = memory
        self._pool = pool
        self._ids = FrameIds(Process.DEVICE, epoch)
        self._limit = queue
        self._count = count
        self._lost = lost
        self._log = log
        self._queue: deque[DeviceFrame] = deque()
        self._ethernet = setup.kind == "tap"
        self._link_len = ETHERNET_HEADER_LEN if self._ethernet else 0
        self._vnet = bytearray(VNET_HEADER_LEN)
        self._spare = memoryview(bytearray(SLOT))  # where frames land while every slot is in use
        self._slot: tuple[int, memoryview] | None = None
        self._news = _link_news()
        self._fd = -1
        self._offload = False
        self.state = DeviceState(setup.name, setup.kind, self._ethernet, False, 0, False, 0)
        self._open()
        self.state = self._look()
        self._changes: list[DeviceState] = []  # what the core is still to be told

    # opening

    def _open(self) -> None:
        """Open and set up the interface. Raises DeviceError."""
        setup = self._setup
        fd, self._offload = open_interface(
            setup.name, setup.kind, vnet=setup.offload, attach=setup.attach, offloads=setup.offloads
        )
        self._fd = fd
        try:
            if not setup.attach:
                set_persistent(fd, setup.persist)
                if setup.host is not None:
                    configure(setup.name, setup.host)
        except DeviceError:
            self._close_device()
            raise
        except OSError as error:
            self._close_device()
            raise DeviceError(f"{setup.name}: {error.strerror}") from None
        if setup.offload and not self._offload:
            self._log.warning("%s: the kernel takes no offload; checksums and cutting are done in software", setup.name)
        how = "on" if self._offload else "in software" if setup.offload else "off"
        self._log.info("%s %s is open, offload %s", setup.kind, setup.name, how)

    def _look(self) -> DeviceState:
        """What the device is now."""
        setup = self._setup
        now = facts(setup.name) if self._fd >= 0 else None
        gso_max = GSO_MAX if setup.offload else 0
        up, mtu = (now.up, now.mtu) if now is not None else (False, self.state.mtu)
        return DeviceState(setup.name, setup.kind, self._ethernet, up, mtu, self._offload, gso_max)

    def persist(self, persist: bool) -> None:
        """Whether the interface outlives link; may be changed without privileges. OSError if it is gone."""
        set_persistent(self._fd, persist)

    # Port

    def fileno(self) -> int:
        """The device's descriptor; -1 while it is gone."""
        return self._fd

    def readable(self) -> list[Pollable]:
        if self._fd < 0 or self.gate():
            return [self._news.fileno()]
        return [self._fd, self._news.fileno()]

    def writable(self) -> list[Pollable]:
        return [self._fd] if self._queue and self._fd >= 0 else []

    def receive(self, limit: int, now: int) -> list[Any]:
        frames: list[Any] = []
        if self._queue:
            self._flush()
        self._read_news()
        fd = self._fd
        if fd >= 0 and not self.gate():
            vnet = self._vnet if self._offload else None
            for _ in range(min(limit, BATCH)):
                buffer = self._landing()
                try:
                    size = os.readv(fd, [vnet, buffer] if vnet else [buffer])
                except BlockingIOError:
                    break
                except OSError as error:
                    self._failed(error)
                    break
                if vnet:
                    size -= VNET_HEADER_LEN
                if size > 0:
                    frames.append(self._frame(buffer, size, bytes(vnet) if vnet else b""))
        if self._changes:
            frames[:0] = self._changes
            self._changes = []
        return frames

    def room(self) -> int:
        return 0 if self._queue else UNLIMITED

    def send(self, frames: list[Any], now: int) -> None:
        queue = self._queue
        for frame in frames:
            if not queue:
                queue.extend(self._write(frame))
            elif len(queue) < self._limit:
                queue.append(frame)
            else:
                self._drop(reasons.DEVICE_QUEUE)

    def close(self) -> None:
        self._close_device()
        self._news.close()

    def _close_device(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # reading

    def _landing(self) -> memoryview:
        """Where the next frame is to be read to: a free slot, or ours while there is none."""
        if self._slot is None:
            self._slot = self._pool.slot()
            if self._slot is None:
                self._count("device_pool_empty")
                return self._spare
        return self._slot[1]

    def _frame(self, buffer: memoryview, size: int, vnet: bytes) -> DeviceFrame:
        if size > INLINE_LIMIT and vnet and vnet[0] & _KNOWN_GOOD and self._slot is not None:
            link_len = self._link_len
            top = bytes(buffer[: link_len + _HEADERS])
            if not link_len or top[12:14] == _IPV4:
                ip_len = header_length(top[link_len:])
                if ip_len is not None and size - link_len - ip_len > INLINE_LIMIT:
                    cut = link_len + ip_len
                    place = self._pool.place(self._slot[0], cut, size - cut)
                    self._slot = None
                    return DeviceFrame(self._ids.next(), [], top[:cut], place, vnet)
        return DeviceFrame(self._ids.next(), [], bytes(buffer[:size]), b"", vnet)

    # writing

    def _flush(self) -> None:
        while self._queue:
            if left := self._write(self._queue.popleft()):
                self._queue.extendleft(reversed(left))
                return

    def _write(self, frame: DeviceFrame) -> list[DeviceFrame]:
        """What is still to be written, because the device takes nothing now: nothing, the frame, or pieces of it."""
        if self._fd < 0:
            self._drop(reasons.DEVICE_DOWN)
            return []
        payload: Payload = frame.payload
        try:
            if not self._offload:
                return self._write_finished(frame)
            buffers: list[bytes | memoryview] = [frame.vnet or COMPLETE, frame.head]
            if payload:
                if isinstance(payload, Place):
                    buffers += self._memory.views(payload)
                else:
                    buffers.append(payload)
            os.writev(self._fd, buffers)
        except BlockingIOError:
            return [frame]
        except MemoryLost as error:
            self._log.debug("%s", error)
            self._drop(reasons.MEMORY_LOST)
        except OSError as error:
            self._failed(error)
        return []

    def _write_finished(self, frame: DeviceFrame) -> list[DeviceFrame]:
        """Do in software what this device cannot. Returns as `_write`; OSError as os.write, MemoryLost."""
        payload: Payload = frame.payload
        if isinstance(payload, Place):
            payload = self._memory.read(payload)
        try:
            pieces = finish(frame.vnet, frame.head, payload, self._link_len)
        except Unfit as error:
            self._log.debug("%s", error)
            self._drop(reasons.BAD_OFFLOAD)
            return []
        for number, piece in enumerate(pieces):
            try:
                os.write(self._fd, piece)
            except BlockingIOError:
                left = pieces[number:]
                return [DeviceFrame(frame.id, frame.causes, data, b"", b"", frame.traced) for data in left]
        return []

    # trouble

    def _drop(self, reason: Reason) -> None:
        self._count(reason.counter, 1)

    def _failed(self, error: OSError) -> None:
        """A read or write that the device refused."""
        if error.errno in _GONE:
            self._vanished()
        elif error.errno in _DOWN:
            self._drop(reasons.DEVICE_DOWN)
            self._update()
        elif error.errno == errno.EFAULT:  # a client cut its memory short under us
            self._drop(reasons.MEMORY_LOST)
        else:
            self._log.debug("%s: %s", self._setup.name, error.strerror)
            self._drop(reasons.DEVICE_ERROR)

    def _read_news(self) -> None:
        """Something happened to some interface: look at ours."""
        heard = False
        while True:
            try:
                self._news.recv(_NEWS)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # too much news at once: then look, too
                    raise
            heard = True
        if heard:
            self._update()

    def _update(self) -> None:
        if self._fd < 0:
            self._reopen()
            return
        try:
            name = current_name(self._fd)
        except OSError:
            self._vanished()
            return
        if name != self._setup.name:
            self._log.info("%s is called %s now", self._setup.name, name)
            self._setup.name = name
        self._note()
        if not self.state.up:
            for _ in self._queue:
                self._drop(reasons.DEVICE_DOWN)
            self._queue.clear()

    def _note(self) -> None:
        """Take notice of what the device is now."""
        state = self._look()
        if state != self.state:
            self.state = state
            self._changes.append(state)
            self._log.info("%s is %s, mtu %d", state.name, "up" if state.up else "down", state.mtu)

    def _vanished(self) -> None:
        self._close_device()
        self._note()
        for _ in self._queue:
            self._drop(reasons.DEVICE_DOWN)
        self._queue.clear()
        if self._setup.attach:
            self._log.warning("%s is gone; waiting until somebody makes it again", self._setup.name)
            return
        self._log.warning("%s is gone; opening it again", self._setup.name)
        self._reopen()

    def _reopen(self) -> None:
        if self._setup.attach and facts(self._setup.name) is None:
            return
        try:
            self._open()
        except DeviceError as error:
            self._lost(f"{error}; link has given up its privileges and must be started again")
            return
        self._note()


def _link_news() -> socket.socket:
    """A socket that becomes readable when an interface changes (rtnetlink(7)). Needs no privilege."""
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    news = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    news.bind((0, _RTMGRP_LINK))
    return news
