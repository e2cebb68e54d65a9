"""How a resolver reaches name servers: by datagram and stream sockets of the stack."""

from __future__ import annotations

import errno
import socket as std
import time
from collections.abc import Callable
from typing import Any

from levelip.client.resolverstub import Channel

PORT = 53
LARGEST = 65_535  # bytes of a message (RFC 1035 4.2.2)


class StackNetwork:
    """`make` makes sockets: those of the stack. (The standard library's would do, which is how tests use it.)"""

    def __init__(self, make: Callable[[int, int], Any] | None = None, *, port: int = PORT) -> None:
        self._make = make or _stack_socket
        self._port = port

    def now(self) -> float:
        """Of this machine."""
        return time.monotonic()

    def udp(self, server: str) -> Channel:
        """A connected datagram socket: it hears the server alone, and ICMP errors about what was sent there."""
        sock = self._make(std.AF_INET, std.SOCK_DGRAM)
        try:
            sock.connect((server, self._port))
        except BaseException:
            sock.close()
            raise
        return _Datagrams(sock)

    def tcp(self, server: str, timeout: float) -> Channel:
        """A connection."""
        sock = self._make(std.AF_INET, std.SOCK_STREAM)
        try:
            sock.settimeout(timeout)
            sock.connect((server, self._port))
        except BaseException:
            sock.close()
            raise
        return _Stream(sock)

    def source(self, address: str) -> bytes | None:
        """The packed address that we would send from to this one; None if there is no way (RFC 6724 6, rule 1)."""
        with self._make(std.AF_INET, std.SOCK_DGRAM) as sock:
            try:
                sock.connect((address, self._port))
            except OSError:
                return None
            return std.inet_aton(sock.getsockname()[0])


class _Datagrams:
    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, message: bytes) -> None:
        self._sock.send(message)

    def receive(self, timeout: float) -> bytes:
        _wait(self._sock, timeout)
        data: bytes = self._sock.recv(LARGEST)
        return data

    def close(self) -> None:
        self._sock.close()


class _Stream:
    """Each message has two bytes with its length before it (RFC 1035 4.2.2)."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def send(self, message: bytes) -> None:
        self._sock.sendall(len(message).to_bytes(2, "big") + message)

    def receive(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        length = int.from_bytes(self._exactly(2, deadline), "big")
        return self._exactly(length, deadline)

    def _exactly(self, length: int, deadline: float) -> bytes:
        data = b""
        while len(data) < length:
            _wait(self._sock, deadline - time.monotonic())
            more = self._sock.recv(length - len(data))
            if not more:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            data += more
        return data

    def close(self) -> None:
        self._sock.close()


def _wait(sock: Any, timeout: float) -> None:
    if timeout <= 0:
        raise TimeoutError
    sock.settimeout(timeout)


def _stack_socket(family: int, kind: int) -> Any:
    from levelip.client.streamsocket import socket  # which looks names up by way of this module

    return socket(family, kind)
