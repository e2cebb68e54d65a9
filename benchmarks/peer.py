"""The other side of every measurement: servers on kernel sockets, and ICMP echo by a raw socket.

One thread serves all ports with epoll, a request at a time. Who asks is a measured program: see programs.py.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from benchmarks.pattern import MAX_CHUNK, Pattern
from levelip.wire.checksum import internet_checksum

SOURCE, SINK, ECHO, ONCE = range(5001, 5005)
"""Ports: sends the pattern; takes and compares it; echoes; answers one byte and waits for the end."""
REQUEST = struct.Struct("!QQ")  # first offset in the pattern, bytes
ANSWER = struct.Struct("!QB")  # bytes taken, 1 if all of them were right
PIECE = 1 << 18  # bytes of one call here
_TIMEOUT_S = 60.0
_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h: the kernel's TCP paces by itself
_BACKLOG = 1024
_ECHO_REQUEST, _ECHO_REPLY = 8, 0  # RFC 792

Handler = Callable[[socket.socket], bool]  # serves one request; False: the connection is over


class Peer:
    """The servers, in a thread of their own, until the process ends."""

    def __init__(self, seed: int) -> None:
        self._pattern = Pattern(seed)
        self._pace = 0
        self._buffer = memoryview(bytearray(MAX_CHUNK))
        self._epoll = select.epoll()
        self._listeners: dict[int, tuple[socket.socket, Handler]] = {}
        self._connections: dict[int, tuple[socket.socket, Handler]] = {}
        handlers = {SOURCE: self._source, SINK: self._sink, ECHO: self._echo, ONCE: self._once}
        for port, handler in handlers.items():
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
            self._listeners[listener.fileno()] = listener, handler
            self._epoll.register(listener, select.EPOLLIN)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd in self._listeners:
                    self._accept(*self._listeners[fd])
                    continue
                connection, handler = self._connections[fd]
                try:
                    goes_on = handler(connection)
                except OSError:  # the measured program sees it too, and fails the run
                    goes_on = False
                if not goes_on:
                    self._epoll.unregister(fd)
                    del self._connections[fd]
                    connection.close()

    def _accept(self, listener: socket.socket, handler: Handler) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            connection.settimeout(_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._pace:
                connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, self._pace)
            self._connections[connection.fileno()] = connection, handler
            self._epoll.register(connection, select.EPOLLIN)

    def pace(self, rate: int) -> None:
        """Connections from now on send no more than `rate` bytes/s (0: as much as they can)."""
        self._pace = rate

    @staticmethod
    def _request(connection: socket.socket) -> tuple[int, int] | None:
        data = connection.recv(REQUEST.size, socket.MSG_WAITALL)
        return REQUEST.unpack(data) if len(data) == REQUEST.size else None

    def _source(self, connection: socket.socket) -> bool:
        request = self._request(connection)
        if request is None:
            return False
        offset, left = request
        while left:
            piece = min(PIECE, left)
            connection.sendall(self._pattern.chunk(offset, piece))
            offset, left = offset + piece, left - piece
        return True

    def _sink(self, connection: socket.socket) -> bool:
        request = self._request(connection)
        if request is None:
            return False
        offset, size = request
        taken, right = 0, True
        while taken < size:
            got = connection.recv_into(self._buffer, min(PIECE, size - taken))
            if not got:
                return False
            right = right and self._pattern.matches(offset + taken, self._buffer[:got])
            taken += got
        connection.sendall(ANSWER.pack(taken, right))
        return True

    def _echo(self, connection: socket.socket) -> bool:
        data = connection.recv(PIECE)
        connection.sendall(data)
        return bool(data)

    def _once(self, connection: socket.socket) -> bool:
        data = connection.recv(1)
        connection.sendall(data)
        return bool(data)


def ping(host: str, count: int, interval: float) -> list[float]:
    """Round trips of `count` ICMP echoes of 56 bytes (as ping's), seconds each. TimeoutError if one is lost."""
    ident = os.getpid() & 0xFFFF
    trips = []
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.settimeout(2.0)
        for sequence in range(count):
            payload = struct.pack("!I", sequence) * 14
            body = struct.pack("!HH", ident, sequence) + payload
            checksum = internet_checksum(struct.pack("!BB", _ECHO_REQUEST, 0) + body)
            request = struct.pack("!BBH", _ECHO_REQUEST, 0, checksum) + body
            start = time.perf_counter()
            raw.sendto(request, (host, 0))
            while True:
                answer = raw.recv(2048)
                end = time.perf_counter()
                icmp = answer[(answer[0] & 15) * 4 :]
                if icmp[0] == _ECHO_REPLY and icmp[4:] == body:
                    break
            trips.append(end - start)
            time.sleep(interval)
    return trips
