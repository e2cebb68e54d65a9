"""A reset is told once. Our own process stands for the program."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.unit.run.test_run_trap import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.mark.parametrize("fin", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_so_error_after_a_reset(world: World, native: bool, fin: bool) -> None:
    """By SO_ERROR, unless a read has failed with it, which no filter sees. Behind the peer's FIN it shows by SO_ERROR
    alone, and so no read can have told it."""
    world.gateway |= {"socket": {"sock": 8}}
    world.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    world.settle()
    assert world.listener.said is not None
    with socket.socket(fileno=world.listener.said[0]) as sock:
        pair = world.calls.pairs[os.fstat(sock.fileno()).st_ino]
        world.calls.connecting.attach(pair, sock)
        pair.connected = True
        if fin:
            world.calls._pump.eof(pair, 0)
        world.calls.endings.reset(pair, errno.ECONNRESET)
        world.calls.endings.sweep(0.0)
        if native and fin:
            assert sock.recv(1) == b""
        elif native:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        said = []
        for _ in range(2):
            value, room = world.put(bytes(4)), world.put(struct.pack("=i", 4))
            world.call("getsockopt", sock.fileno(), socket.SOL_SOCKET, socket.SO_ERROR, value, room)
            world.settle()
            assert world.listener.said == (0, 0)
            said += struct.unpack("=i", ctypes.string_at(value, 4))
        assert said == [0 if native and not fin else errno.ECONNRESET, 0]
