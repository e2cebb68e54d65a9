"""ECN with the kernel: both agree, whoever asks, and every byte arrives."""

from __future__ import annotations

import socket as std

import pytest

from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, kernel_connect, stream

SIZE = 8_000_000
LIMIT_S = 60.0
ECN = 8  # TCPI_OPT_ECN, in the sixth byte of struct tcp_info

asking = pytest.mark.parametrize("_shared", [{"settings": {"tcp.ecn": 1}}], ids=["ecn"], indirect=True, scope="module")


@pytest.fixture
def host(shared_stack: Stack) -> Namespace:
    """The kernel's side; it asks for ECN too."""
    assert shared_stack.namespace is not None
    shared_stack.namespace.run(["sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_ecn"])
    return shared_stack.namespace


def figures(sock: std.socket) -> bytes:
    """struct tcp_info of the kernel."""
    return sock.getsockopt(std.IPPROTO_TCP, std.TCP_INFO, 256)


@asking
@pytest.mark.rfc("RFC 3168 6.1.1")
def test_we_ask_and_the_kernel_agrees(shared_stack: Stack, host: Namespace) -> None:
    """An upload of ours: the kernel's socket has ECN, and so has our connection."""
    seen = []

    def handle(sock: std.socket) -> None:
        seen.append(figures(sock)[5])
        streams.answers_digest(sock)

    before = shared_stack.counters("tcp").get("ecn_connections", 0)
    with KernelServer(host, shared_stack.host, handle) as server:
        got = shared_stack.submit(streams.app_upload, shared_stack.host, server.port, 1, SIZE)
        assert got.result(LIMIT_S) == digest(stream(1, SIZE))
    assert seen[0] & ECN
    assert shared_stack.counters("tcp")["ecn_connections"] == before + 1


@asking
@pytest.mark.rfc("RFC 3168 6.1.1")
def test_the_kernel_asks_and_we_agree(shared_stack: Stack, host: Namespace) -> None:
    """8 MB each way at once with a server of ours, marked ECT(0); the kernel's socket has ECN."""
    served = shared_stack.submit(streams.app_serve, 8000, 1, 3, SIZE)
    with kernel_connect(host, shared_stack.address, 8000) as sock:
        assert figures(sock)[5] & ECN
        assert streams.both_ways(sock, 4, SIZE) == digest(stream(3, SIZE))
    assert served.result(LIMIT_S) == [digest(stream(4, SIZE))]
