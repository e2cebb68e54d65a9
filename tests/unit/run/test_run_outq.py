"""SIOCOUTQ and SIOCOUTQNSD of a TCP socket; our own process stands for the program."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from gateway import info
from levelip.client.pump import Pair
from levelip.run.syscalls import SIOCOUTQ, SIOCOUTQNSD
from tests.unit.run.test_run_trap import World

RESULT = struct.Struct("=i")


class Stream(World):
    """A connected TCP socket, `theirs`: of the 100 bytes that the helper took, tcp has what `figures` say."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway["socket"] = {"sock": 8}
        self.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
        self.settle()
        assert self.listener.said is not None
        self.theirs = socket.socket(fileno=self.listener.said[0])
        self.stream: Pair = self.calls.pairs[os.fstat(self.theirs.fileno()).st_ino]
        self.calls.connecting.attach(self.stream, self.theirs)
        self.stream.connected, self.stream.sent, self.stream.accepted = True, 100, 90
        self.code = 0

    def close(self) -> None:
        self.theirs.close()
        super().close()

    def left(self, request: int, **figures: Any) -> int:
        """What the program is told."""
        self.gateway["getsockopt"] = {"value": info.pack({"state": "ESTABLISHED", **figures})}
        where = self.put(bytes(RESULT.size))
        self.call("ioctl", self.theirs.fileno(), request, where)
        for op, _, done in self.session.requests:
            done(self.code, self.gateway[op], "")
        self.session.requests.clear()
        assert self.listener.said == (0, 0)
        return int(RESULT.unpack(self._kept[-1].raw[: RESULT.size])[0])


@pytest.fixture
def world() -> Iterator[Stream]:
    made = Stream()
    yield made
    made.close()


def test_what_lies_in_the_pair_counts(world: Stream) -> None:
    """So does what tcp holds: of SIOCOUTQ until it is acknowledged, of SIOCOUTQNSD until it is sent."""
    world.theirs.send(b"seven b")
    assert world.left(SIOCOUTQ, bytes_acked=80, notsent_bytes=5) == 27
    assert world.left(SIOCOUTQNSD, bytes_acked=80, notsent_bytes=5) == 12


@pytest.mark.parametrize(
    ("state", "unacked", "unsent"),
    [("ESTABLISHED", 1, 1), ("CLOSE_WAIT", 1, 1), ("FIN_WAIT1", 1, 0), ("CLOSING", 1, 0), ("LAST_ACK", 1, 0),
     ("FIN_WAIT2", 0, 0), ("CLOSE", 0, 0)],
)  # fmt: skip
def test_a_fin_counts(world: Stream, state: str, unacked: int, unsent: int) -> None:
    """Once the program has shut its side, as one byte; in which states of tcp it is not yet acknowledged, or sent."""
    world.stream.shut = 2
    assert world.left(SIOCOUTQ, state=state, bytes_acked=100) == unacked
    assert world.left(SIOCOUTQNSD, state=state, bytes_acked=100) == unsent


def test_without_tcp(world: Stream) -> None:
    """What it had not taken is told; of a connection that is over, nothing."""
    world.code = errno.ENETDOWN
    assert world.left(SIOCOUTQ) == 10
    world.stream.connected = False
    assert world.left(SIOCOUTQ) == 0


def test_a_listener_has_no_queue(world: Stream) -> None:
    """EINVAL, as on Linux."""
    world.stream.listening = True
    for request in (SIOCOUTQ, SIOCOUTQNSD):
        world.call("ioctl", world.theirs.fileno(), request, world.put(bytes(4)))
        assert world.listener.said == (0, errno.EINVAL)
