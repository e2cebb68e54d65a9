"""A listen() after a failed connect(), which needs another pair; our own process stands for the program."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.run.test_run_trap import World


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """No more than that can be opened."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    with Path(os.devnull).open("rb") as null:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 512), limits[1]))
            try:
                while True:
                    taken.append(os.dup(null.fileno()))
            except OSError as error:
                assert error.errno == errno.EMFILE
            for _ in range(count):
                os.close(taken.pop())
            yield
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


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


@pytest.mark.parametrize("left", range(12))
def test_a_listen_without_descriptors(world: World, monkeypatch: pytest.MonkeyPatch, left: int) -> None:
    """However few the helper has left: either the program has its old end still, and is told so, or a new one that is
    as the old one was, and that its epoll sets watch. The call that is made once more succeeds."""

    def replace(_id: int, fd: int, *, cloexec: bool, number: int) -> int:
        return os.dup2(fd, number, inheritable=not cloexec)

    monkeypatch.setattr(world.listener, "give", lambda _id, fd, **_: setattr(world.listener, "said", (os.dup(fd), 0)))
    world.gateway |= {"socket": {"sock": 8}, "listen": {"address": bytes(4), "port": 9}}
    world.call("socket", socket.AF_INET, socket.SOCK_STREAM, 0)
    world.settle()
    monkeypatch.setattr(world.listener, "give", replace)
    assert world.listener.said is not None
    with socket.socket(fileno=world.listener.said[0]) as theirs, select.epoll() as epoll:
        theirs.setblocking(False)
        pair = world.calls.pairs[os.fstat(theirs.fileno()).st_ino]
        before = pair.inode
        world.calls.connecting.attach(pair, theirs)
        world.calls.endings.part(pair)
        pair.failed = pair.told = True
        epoll.register(theirs, select.EPOLLHUP)
        with descriptors_left(left):
            world.call("listen", theirs.fileno(), 5)
            world.settle()
        now = os.fstat(theirs.fileno()).st_ino
        assert pair.inode == now and world.calls.pairs[now] is pair
        if now == before:
            assert world.listener.said == (0, errno.EMFILE) and not pair.listening and left < 10
            world.call("listen", theirs.fileno(), 5)
            world.settle()
        assert world.listener.said == (0, 0)
        assert pair.listening and pair.inode == os.fstat(theirs.fileno()).st_ino != before
        assert not os.get_blocking(theirs.fileno()) and not os.get_inheritable(theirs.fileno())
        assert epoll.poll(0) == [], "the old end has hung up, the new one has not"
        epoll.modify(theirs, select.EPOLLIN)
