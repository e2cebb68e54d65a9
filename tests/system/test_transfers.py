"""Whole files in every direction: our client and the kernel's server, the kernel's client and our server, our two."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.system import streams
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import KernelServer, digest, kernel_connect, stream

SIZE = 20_000_000
DEVICES = {
    "tap": {"device": "tap"},
    "tap-no-offload": {"device": "tap", "offload": False},
    "tun": {"device": "tun"},
    "tun-no-offload": {"device": "tun", "offload": False},
}
LIMIT_S = 60.0

each_device = pytest.mark.parametrize("_shared", DEVICES.values(), ids=DEVICES, indirect=True, scope="module")


@each_device
def test_our_client_downloads_from_the_kernel(shared_stack: Stack) -> None:
    """20 MB from a kernel server arrive whole, and the end of the stream is the peer's FIN."""
    stack = shared_stack
    with KernelServer(_host(stack), stack.host, streams.sends(1, SIZE)) as server:
        got = stack.submit(streams.app_download, stack.host, server.port)
        assert got.result(LIMIT_S) == digest(stream(1, SIZE))


@each_device
def test_our_client_uploads_to_the_kernel(shared_stack: Stack) -> None:
    """20 MB to a kernel server arrive whole, followed by a FIN, after which it still can answer."""
    stack = shared_stack
    with KernelServer(_host(stack), stack.host, streams.answers_digest) as server:
        got = stack.submit(streams.app_upload, stack.host, server.port, 2, SIZE)
        assert got.result(LIMIT_S) == digest(stream(2, SIZE))


@each_device
def test_our_server_both_ways_at_once(shared_stack: Stack) -> None:
    """A kernel client and our server send each other 20 MB on one connection at the same time."""
    stack = shared_stack
    served = stack.submit(streams.app_serve, 8000, 1, 3, SIZE)
    with kernel_connect(_host(stack), stack.address, 8000) as sock:
        assert streams.both_ways(sock, 4, SIZE) == digest(stream(3, SIZE))
    assert served.result(LIMIT_S) == [digest(stream(4, SIZE))]


def _host(stack: Stack) -> Namespace:
    assert stack.namespace is not None
    return stack.namespace


@pytest.mark.parametrize("carries", ["ethernet", "ip"])
def test_two_stacks_over_a_wire(make_stack: Callable[..., Stack], carries: str) -> None:
    """Without the kernel's TCP: a client on one stack, a server on another, a socket between them; both ways."""
    size = SIZE // 4
    there = make_stack(
        device="wire",
        name="there",
        address="10.0.0.2/24",
        host="10.0.0.1/24",
        settings={"device.wire_carries": carries},
    )
    wire = str(there.run_directory.path / "wire.sock")
    here = make_stack(
        device="wire",
        name="here",
        address="10.0.0.1/24",
        host="10.0.0.2/24",
        settings={"device.wire_peer": wire, "device.wire_carries": carries},
    )
    served = there.submit(streams.app_serve, 8000, 1, 5, size)
    there.wait_listening(8000)
    got = here.submit(streams.app_both_ways, there.address, 8000, 6, size)
    assert got.result(LIMIT_S) == digest(stream(5, size))
    assert served.result(LIMIT_S) == [digest(stream(6, size))]
