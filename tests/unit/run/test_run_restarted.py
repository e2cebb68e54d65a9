"""Calls that a signal interrupts: restarted, they go on; made anew on a descriptor that has ceased to block, they wait
no more. Our own process stands for the program."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator

import pytest

from tests.unit.run.test_run_trap import PEER, World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.fixture
def stream(world: World) -> Iterator[socket.socket]:
    """A new TCP socket."""
    world.gateway |= {"socket": {"sock": 8}, "listen": {"address": bytes(4), "port": 9}}
    world.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    world.settle()
    assert world.listener.said is not None
    with socket.socket(fileno=world.listener.said[0]) as sock:
        sock.setblocking(True)
        yield sock


WAITS = (-1, -1)


@pytest.mark.parametrize("blocks", [True, False])
def test_an_interrupted_connect(world: World, stream: socket.socket, blocks: bool) -> None:
    """The gateway is asked once more where the program asks again without waiting, by whatever registers."""
    args = (stream.fileno(), world.put(PEER), len(PEER))
    world.call("connect", *args)
    assert world.listener.said == WAITS
    stream.setblocking(blocks)
    world.call("connect", *args)
    requests = [op for op, _, _ in world.session.requests]
    assert requests == ["connect"] * (1 if blocks else 2)
    if not blocks:
        world.session.requests.pop()[2](errno.EALREADY, {}, "")
        assert world.listener.said == (0, errno.EALREADY)


@pytest.mark.parametrize("blocks", [True, False])
def test_an_interrupted_accept(world: World, stream: socket.socket, blocks: bool) -> None:
    """Likewise: EAGAIN."""
    world.call("listen", stream.fileno(), 5)
    world.settle()
    world.call("accept", stream.fileno(), 0, 0)
    assert world.listener.said == WAITS
    stream.setblocking(blocks)
    world.call("accept", stream.fileno(), 0, 0)
    assert world.listener.said == (WAITS if blocks else (0, errno.EAGAIN))


def test_the_time_of_an_interrupted_accept(world: World, stream: socket.socket) -> None:
    """It ends with that call: the thread's next accept goes on waiting, and gets the connection."""
    world.call("listen", stream.fileno(), 5)
    world.settle()
    pair = world.calls.pairs[os.fstat(stream.fileno()).st_ino]
    for number, seconds in enumerate((1.0, 1000.0)):
        pair.times[socket.SO_RCVTIMEO] = seconds
        world.call("accept", stream.fileno(), 0, 0, number)  # what is in that register means nothing
    world.trap.sweep(time.monotonic() + 10)
    world.calls.pending(pair, 1)
    assert [op for op, _, _ in world.session.requests] == ["accept"]
