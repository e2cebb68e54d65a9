"""tcpi_delivery_rate and tcpi_pacing_rate over a path of a known rate: the kernel's, and ours."""

from __future__ import annotations

import socket as std
import statistics
import time
from collections.abc import Iterator

import pytest

from gateway import info
from levelip.client import socket as levelip_socket
from tests.system import streams
from tests.system.impair import Impairment
from tests.system.paths import RIGHT, StackPath
from tests.system.streams import KernelServer, chunks, stream
from tests.waiting import until

SIZE = 3_000_000
LIMIT_S = 60.0
RATE = 20_000_000  # bits a second
PAYLOAD = RATE // 8 * 1448 // 1514  # bytes a second of TCP's payload in full frames with timestamps
RTT_MS = 20


def figures(sock: std.socket) -> dict[str, int]:
    """The struct tcp_info of whoever's socket this is."""
    return info.unpack(sock.getsockopt(std.IPPROTO_TCP, std.TCP_INFO, info.SIZE).ljust(info.SIZE, b"\0"))


def send(sock: std.socket) -> tuple[list[int], list[int], int]:
    """3 MB; from when one of them has arrived delivery rates and pacing rates in order of size, and bytes a second from
    the beginning on as the clock says: on a busy machine the path is slower."""
    began = time.monotonic()
    for chunk in chunks(stream(1, SIZE)):
        sock.sendall(chunk)
    found: list[tuple[float, dict[str, int]]] = []

    def arrived() -> bool:
        now = figures(sock)
        if now["bytes_acked"] > SIZE // 3:
            found.append((time.monotonic(), now))
        return now["bytes_acked"] > SIZE * 9 // 10

    until(arrived, "nine tenths are acknowledged")
    sock.shutdown(std.SHUT_WR)
    assert sock.recv(1) == b""
    rates, pacing = (sorted(row[name] for _, row in found) for name in ("delivery_rate", "pacing_rate"))
    ended, last = found[-1]
    return rates, pacing, int(last["bytes_acked"] / (ended - began))


def app_send(host: str, port: int) -> tuple[list[int], list[int], int]:
    """A program on the stack that sends."""
    with levelip_socket.create_connection((host, port), timeout=LIMIT_S) as sock:
        return send(sock)


@pytest.fixture
def path() -> Iterator[StackPath]:
    """20 Mbit/s and 10 ms each way."""
    with StackPath() as made:
        way = Impairment(rate_bps=RATE, delay_ms=RTT_MS / 2)
        made.impair(way, way)
        yield made


def test_both_ends_find_the_rate_of_the_path(path: StackPath) -> None:
    """The path delivers 2.39 MB/s of payload, whoever sends. Either would pace at 1.2 times or twice its window a round
    trip, which is about that: there is a queue of one more round trip. Of many samples some are slow, as the machine
    has a pause, and few fast, as what piled up meanwhile comes at once: they are not all slower than the whole took."""
    found = {}
    with KernelServer(path.right, RIGHT, streams.read_all) as server:
        found["ours"] = path.stack.submit(app_send, RIGHT, server.port).result(LIMIT_S)
    served = path.stack.submit(streams.app_serve, 8000, 1, 3, 0)
    with streams.kernel_connect(path.right, path.stack.address, 8000) as sock:
        found["kernel"] = send(sock)
    served.result(LIMIT_S)
    for rates, pacing, measured in found.values():
        least = min(PAYLOAD, measured) * 2 // 3
        assert least < rates[-1], found
        assert statistics.median_low(rates) < PAYLOAD * 4 // 3, found
        assert least < pacing[-1], found
        assert statistics.median_low(pacing) < PAYLOAD * 4, found
