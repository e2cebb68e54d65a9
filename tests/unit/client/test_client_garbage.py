"""A program that sends its helper nonsense is not answered; the helper and its other connections go on."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest

from levelip.client import control
from levelip.client.control import Call
from levelip.client.door import Door


@pytest.mark.parametrize(
    "garbage",
    [b"\x00", b"\xc1", b"\x94\x01\xa2\xff\xfe\x00\x80", b"\x91" * 5000, b"\x94\x01\xa1x"],
    ids=["number", "never used", "no utf-8", "deep", "cut off"],
)
def test_garbage_is_passed_over(garbage: bytes) -> None:
    """The call behind it is made."""
    program, helper = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    calls: list[Call] = []
    connection = SimpleNamespace(channel=helper, pid=1)
    door: Any = SimpleNamespace(
        _door=None,
        _connections={helper.fileno(): connection},
        _calls=SimpleNamespace(call=lambda _, call, fds: calls.append(call)),
    )
    with program, helper:
        program.send(garbage)
        program.send(control.encode(Call(7, "getsockname", 1, {})))
        helper.setblocking(False)
        Door.event(door, helper.fileno(), 1)
    assert [call.number for call in calls] == [7]
