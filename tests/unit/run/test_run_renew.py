"""A listen() after a failed connect(), which needs another pair; our own process stands for the program."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.unit.run.test_run_trap import World


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_an_interrupted_listen_is_made_once_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal comes before the new pair is in its place: the program has its old end still, and the call that is
    restarted gets one more."""
    world.gateway |= {"socket": {"sock": 8}, "listen": {"address": bytes(4), "port": 9}}
    world.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    world.settle()
    assert world.listener.said is not None
    with socket.socket(fileno=world.listener.said[0]) as theirs:
        pair = world.calls.pairs[os.fstat(theirs.fileno()).st_ino]
        before = pair.inode
        world.calls.connecting.attach(pair, theirs)
        world.calls.endings.part(pair)
        pair.failed = pair.told = True

        monkeypatch.setattr(world.listener, "give", lambda *_, **__: None)
        world.call("listen", theirs.fileno(), 5)
        assert world.calls.pairs[before] is pair and not world.session.requests

        def replace(_id: int, fd: int, *, cloexec: bool, number: int) -> int:
            return os.dup2(fd, number, inheritable=not cloexec)

        monkeypatch.setattr(world.listener, "give", replace)
        world.call("listen", theirs.fileno(), 5)
        world.settle()
        assert world.listener.said == (0, 0)
        assert pair.listening and pair.inode == os.fstat(theirs.fileno()).st_ino != before
