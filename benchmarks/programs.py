"""The measured programs: they use `levelip.client.socket`, or for the baseline the standard `socket`; no line differs.

What is received is compared whole, byte by byte, as it arrives; what is sent is compared by the peer, and a run ends
with its answer. A mismatch raises Mismatch and fails the benchmark.
"""

from __future__ import annotations

import selectors
import struct
import threading
import time
from types import ModuleType
from typing import Any

from benchmarks.pattern import Pattern
from benchmarks.peer import ANSWER, ECHO, ONCE, REQUEST, SINK, SOURCE

CALL = 65_536  # bytes of one call of a bulk run
MESSAGE = 64  # bytes of a ping-pong
_TIMEOUT_S = 60.0


class Mismatch(AssertionError):
    """What arrived is not what was sent."""


class Programs:
    """The measured side of one world. `socket` is the module under test; `host` the peer's address."""

    def __init__(self, socket: ModuleType, host: str, seed: int) -> None:
        self._socket = socket
        self._host = host
        self._pattern = Pattern(seed)
        self._buffer = memoryview(bytearray(CALL))
        self._held: list[Any] = []

    def _connect(self, port: int) -> Any:
        socket = self._socket
        connection = socket.create_connection((self._host, port), timeout=_TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def receive(self, offset: int, size: int) -> dict[str, float]:
        """Take `size` bytes of one connection in calls of 64 KB; from the request to the last byte compared."""
        with self._connect(SOURCE) as connection:
            start = time.perf_counter()
            connection.sendall(REQUEST.pack(offset, size))
            self._take(connection, offset, size)
            return {"seconds": time.perf_counter() - start}

    def _take(self, connection: Any, offset: int, size: int) -> None:
        buffer, matches, receive = self._buffer, self._pattern.matches, connection.recv_into
        taken = 0
        while taken < size:
            got = receive(buffer, min(CALL, size - taken))
            if not got:
                raise Mismatch(f"end of file after {taken} of {size} bytes")
            if not matches(offset + taken, buffer[:got]):
                raise Mismatch(f"wrong bytes between {taken} and {taken + got} of {size}")
            taken += got

    def send(self, offset: int, size: int, rate: int = 0) -> dict[str, float]:
        """Send `size` bytes in calls of 64 KB, no more than `rate` bytes/s where one is given; from the first call to
        the peer's word that all were right."""
        with self._connect(SINK) as connection:
            chunk, send = self._pattern.chunk, connection.sendall
            start = time.perf_counter()
            send(REQUEST.pack(offset, size))
            for at in range(0, size, CALL):
                if rate and (early := at / rate - (time.perf_counter() - start)) > 0:
                    time.sleep(early)
                send(chunk(offset + at, min(CALL, size - at)))
            taken, right = ANSWER.unpack(_exactly(connection, ANSWER.size))
            seconds = time.perf_counter() - start
        if taken != size or not right:
            raise Mismatch(f"the peer took {taken} of {size} bytes{'' if right else ', and not the right ones'}")
        return {"seconds": seconds}

    def pingpong(self, seconds: float, most: int) -> dict[str, Any]:
        """Messages of 64 bytes to and fro on one connection; the seconds of each round trip."""
        trips = []
        with self._connect(ECHO) as connection:
            clock = time.perf_counter
            first = last = clock()
            for number in range(most):
                message = _message(0, number)
                start = last
                connection.sendall(message)
                if _exactly(connection, MESSAGE) != message:
                    raise Mismatch(f"message {number} came back altered")
                last = clock()
                trips.append(last - start)
                if last - first >= seconds:
                    break
        return {"seconds": last - first, "trips": trips}

    def pingpong_many(self, connections: int, seconds: float, most: int) -> dict[str, float]:
        """The same on many connections at once, one message under way on each."""
        selector = selectors.DefaultSelector()
        opened = [self._connect(ECHO) for _ in range(connections)]
        try:
            sent = [0] * connections
            for index, connection in enumerate(opened):
                connection.setblocking(False)
                selector.register(connection, selectors.EVENT_READ, [index, b""])
            start = time.perf_counter()
            for index, connection in enumerate(opened):
                connection.sendall(_message(index, 0))
            done, under_way, until = 0, connections, start + seconds
            while under_way:
                ready = selector.select(_TIMEOUT_S)
                if not ready:
                    raise Mismatch("no answer any more")
                goes_on = time.perf_counter() < until and done < most
                for key, _ in ready:
                    state: list[Any] = key.data
                    readable: Any = key.fileobj
                    index = state[0]
                    data = state[1] + readable.recv(MESSAGE - len(state[1]))
                    if len(data) < MESSAGE:
                        state[1] = data
                        continue
                    state[1] = b""
                    if data != _message(index, sent[index]):
                        raise Mismatch(f"message {sent[index]} of connection {index} came back altered")
                    done += 1
                    if goes_on:
                        sent[index] += 1
                        readable.sendall(_message(index, sent[index]))
                    else:
                        under_way -= 1
            return {"seconds": time.perf_counter() - start, "trips": float(done)}
        finally:
            selector.close()
            for connection in opened:
                connection.close()

    def connects(self, at_once: int, seconds: float, most: int) -> dict[str, float]:
        """Connect, exchange one byte, close: again and again, by `at_once` threads."""
        socket, address = self._socket, (self._host, ONCE)
        counts = [0] * at_once
        failures: list[BaseException] = []
        until = time.perf_counter() + seconds

        def run(thread: int) -> None:
            try:
                while counts[thread] < most // at_once and time.perf_counter() < until:
                    with socket.socket() as connection:
                        connection.settimeout(_TIMEOUT_S)
                        connection.connect(address)
                        byte = bytes([counts[thread] & 0xFF])
                        connection.sendall(byte)
                        if connection.recv(1) != byte:
                            raise Mismatch("another byte came back")
                    counts[thread] += 1
            except BaseException as error:
                failures.append(error)

        start = time.perf_counter()
        if at_once == 1:
            run(0)
        else:
            threads = [threading.Thread(target=run, args=(number,)) for number in range(at_once)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        elapsed = time.perf_counter() - start
        if failures:
            raise failures[0]
        return {"seconds": elapsed, "connections": float(sum(counts))}

    def hold(self, connections: int) -> dict[str, float]:
        """Open connections and keep them."""
        start = time.perf_counter()
        self._held += [self._connect(SOURCE) for _ in range(connections)]
        return {"seconds": time.perf_counter() - start}

    def exchange(self, size: int) -> dict[str, float]:
        """Take `size` bytes on each connection that is held."""
        start = time.perf_counter()
        for number, connection in enumerate(self._held):
            connection.sendall(REQUEST.pack(number * size, size))
            self._take(connection, number * size, size)
        return {"seconds": time.perf_counter() - start}

    def release(self) -> dict[str, float]:
        """Close what is held."""
        start = time.perf_counter()
        for connection in self._held:
            connection.close()
        self._held.clear()
        return {"seconds": time.perf_counter() - start}


def _message(connection: int, number: int) -> bytes:
    return struct.pack("!II", connection, number) * (MESSAGE // 8)


def _exactly(connection: Any, size: int) -> bytes:
    data: bytes = connection.recv(size)
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise Mismatch(f"end of file after {len(data)} of {size} bytes")
        data += more
    return data
