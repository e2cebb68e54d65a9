"""One client's connection at the door: the socket, what came by it, and what the client has yet to read."""

from __future__ import annotations

import select
import socket
import struct
from collections import deque
from itertools import islice
from typing import Any

from gateway.zmtp import GREETING, Parser
from levelip.rpc.codec import MAX_PARTS

MAX_PART = 1 << 20  # bytes of one part of a client's message
MAX_MESSAGE = 8 << 20  # bytes of all parts of a message
MAX_SKIPPED = 64 << 20  # bytes of a longer one that are thrown away before the connection is cut
READ = 131_072  # bytes read at once
BUFFERS = 64  # given to one sendmsg
OVERHEAD = 256  # bytes that a buffer which waits costs besides its own
CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


class Connection:
    """`inbox` holds messages of the client that the core has not seen; `unread` counts bytes in `_out`."""

    __slots__ = (
        "_epoll", "_out", "_socket", "busy", "dying", "ended", "fd", "inbox", "inbox_bytes", "mask", "parser", "paused",
        "pid", "routing", "stranger", "uid", "unread",
    )  # fmt: skip

    def __init__(self, sock: socket.socket, routing: bytes, epoll: select.epoll) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._epoll = epoll
        self.routing = routing
        self.fd = sock.fileno()
        self.pid, self.uid, _ = CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        )
        self.parser = Parser(max_part=MAX_PART, max_parts=MAX_PARTS, max_bytes=MAX_MESSAGE, max_skipped=MAX_SKIPPED)
        self.inbox: deque[Any] = deque()
        self.inbox_bytes = 0  # of the message whose rest lies there
        self._out: deque[memoryview] = deque()
        self.unread = 0
        self.busy = False  # it stands in the door's queue of those that have something to say
        self.paused = False  # it is not read: the client has to read first
        self.dying = False  # its process has ended: once there is nothing to read it is over
        self.ended = False  # it has closed its end, or broke the protocol
        self.stranger = True  # it has no session
        self.mask = select.EPOLLIN
        epoll.register(self.fd, self.mask)
        self.send([GREETING])

    def read(self) -> bytes | None:
        """What has come; empty at the end, None if there is nothing."""
        try:
            return self._socket.recv(READ)
        except BlockingIOError:
            return None
        except OSError:  # ECONNRESET: it left without reading what we sent
            return b""

    def send(self, buffers: list[bytes]) -> None:
        """Send what can be sent now, and keep the rest."""
        if self.ended:
            return
        if not self._out:
            total = sum(map(len, buffers))
            sent = self._write(buffers)
            if sent == total or sent < 0:
                return
            for buffer in buffers:
                if sent >= len(buffer):
                    sent -= len(buffer)
                else:
                    self._keep(memoryview(buffer)[sent:])
                    sent = 0
        else:
            for buffer in buffers:
                self._keep(memoryview(buffer))
        self._look_for(output=True)

    def _keep(self, rest: memoryview) -> None:
        self._out.append(rest)
        self.unread += len(rest) + OVERHEAD

    def flush(self) -> None:
        """Send on, as the client reads."""
        out = self._out
        while out and not self.ended:
            sent = self._write(list(islice(out, BUFFERS)))
            if sent < 0:
                return
            if not sent:
                break
            self.unread -= sent
            while sent:
                if sent < len(out[0]):
                    out[0] = out[0][sent:]
                    break
                sent -= len(out.popleft())
                self.unread -= OVERHEAD
        if not out:
            self._look_for(output=False)

    def _write(self, buffers: Any) -> int:
        """Bytes that went; -1 if nobody is there any more."""
        try:
            return self._socket.sendmsg(buffers[:BUFFERS], (), socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0
        except OSError:  # EPIPE, ECONNRESET: what it has said before its end is still to be read
            self.drop_output()
            return -1

    def drop_output(self) -> None:
        """Nobody will read it."""
        self._out.clear()
        self.unread = 0
        self.pause(False)
        self._look_for(output=False)

    def pause(self, paused: bool) -> None:
        """Read no more of the client, or read on."""
        self.paused = paused
        self._set_mask((self.mask & ~select.EPOLLIN) | (0 if paused else select.EPOLLIN))

    def _look_for(self, *, output: bool) -> None:
        self._set_mask((self.mask & ~select.EPOLLOUT) | (select.EPOLLOUT if output else 0))

    def _set_mask(self, mask: int) -> None:
        if mask != self.mask and not self.ended:
            self.mask = mask
            self._epoll.modify(self.fd, mask)

    def close(self) -> None:
        """Close the socket; what is in the inbox stays there."""
        if not self.ended:
            self.ended = True
            self._out.clear()
            self.unread = 0
            self._epoll.unregister(self.fd)
            self._socket.close()
