"""What a loop sleeps on: descriptors, ZeroMQ sockets by their edge-triggered ones, changes of the set."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from levelip.ipc.pipe import receive_parts
from levelip.ipc.poller import Poller, sure
from tests.waiting import until


@pytest.fixture
def sockets() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    """A PUSH and a PULL socket, connected."""
    context: zmq.Context[Any] = zmq.Context()
    pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    port = pull.bind_to_random_port("tcp://127.0.0.1")
    push.connect(f"tcp://127.0.0.1:{port}")
    yield push, pull
    context.destroy(linger=0)


def drained(pull: zmq.Socket[bytes]) -> list[bytes]:
    """Everything that has come."""
    got = []
    while (parts := receive_parts(pull)) is not None:
        got += parts
    return got


def test_each_message_to_a_drained_socket_wakes(sockets: tuple[zmq.Socket[bytes], zmq.Socket[bytes]]) -> None:
    """A socket that was received from to the end tells of the next message, a thousand times."""
    push, pull = sockets
    poller = Poller()
    poller.watch([(pull, "pull", False)])
    assert drained(pull) == []
    for number in range(1000):
        push.send(b"%d" % number)
        deadline = time.monotonic() + 60
        got: list[bytes] = []
        while not got:
            assert time.monotonic() < deadline, f"message {number} woke nobody"
            if "pull" in poller.wait(1000):
                got = drained(pull)
        assert got == [b"%d" % number]


def test_what_was_left_in_a_socket_is_told_by_asking(sockets: tuple[zmq.Socket[bytes], zmq.Socket[bytes]]) -> None:
    """After one of two messages was taken the descriptor may be silent; `sure` knows of the other."""
    push, pull = sockets
    push.send(b"1")
    push.send(b"2")
    assert pull.recv() == b"1"
    until(lambda: sure([(pull, "pull", False)]), "the second message is there", every=0.001)
    assert sure([(pull, "pull", False), (push, "push", True)]) == {"pull", "push"}
    assert drained(pull) == [b"2"]
    assert sure([(pull, "pull", False)]) == set()


def test_expecting_a_message_that_is_not_there_is_no_error(
    sockets: tuple[zmq.Socket[bytes], zmq.Socket[bytes]],
) -> None:
    """A socket's descriptor also wakes for a new connection."""
    assert receive_parts(sockets[1], expected=True) is None


def test_one_descriptor_for_input_and_output_wakes_its_owners_once() -> None:
    """A device with frames queued is watched both ways; a port that goes away is forgotten."""
    reader, writer = os.pipe()
    poller = Poller()
    poller.watch([(reader, "reader", False), (writer, "writer", True)])
    assert poller.wait(0) == {"writer"}
    os.write(writer, b"x")
    assert poller.wait(0) == {"reader", "writer"}
    poller.watch([(reader, "reader", False)])
    assert poller.wait(0) == {"reader"}
    os.close(writer)
    os.close(reader)
    again, other = os.pipe()  # the numbers are used again
    poller.watch([(again, "again", False)])
    assert poller.wait(0) == set()
    os.write(other, b"x")
    assert poller.wait(0) == {"again"}
    os.close(again)
    os.close(other)


def test_waiting_ends_in_time() -> None:
    """With nothing to wait for but time."""
    start = time.monotonic()
    assert Poller().wait(20) == set()
    assert time.monotonic() - start > 0.015
