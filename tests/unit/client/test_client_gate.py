"""How descriptors find their helper, and who is let in where a helper listens for those who were given one."""

from __future__ import annotations

import errno
import os
import select
import socket as std
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from levelip.client import control
from levelip.client.door import Door
from levelip.client.epolls import watches
from levelip.client.program import Visit, program_of

NOBODY = 65534


@pytest.fixture
def gate() -> Iterator[tuple[Door, Any, select.epoll]]:
    """A helper's door in this process: (door, what it calls, its epoll)."""
    ours, theirs = std.socketpair(std.AF_UNIX, std.SOCK_SEQPACKET)
    door, calls = Door(theirs), SimpleNamespace(pids=Counter(), leave=lambda pid: None)
    with ours, select.epoll() as epoll:
        door.open(calls, epoll)  # type: ignore[arg-type]
        yield door, calls, epoll
        for connection in door._connections.values():
            connection.channel.close()
        door.close()
        theirs.close()


def serve(door: Door, epoll: select.epoll) -> None:
    """One turn."""
    for fd, mask in epoll.poll(5):
        assert door.owns(fd)
        door.event(fd, mask)


def test_the_same_user_comes_in(gate: tuple[Door, Any, select.epoll]) -> None:
    """A connection by the helper's process id is one as those through the door."""
    door, calls, epoll = gate
    with std.socket(std.AF_UNIX, std.SOCK_SEQPACKET) as sock:
        sock.connect(control.address(os.getpid()))
        serve(door, epoll)
        assert calls.pids == {os.getpid(): 1}
        assert not door.over


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_does_not(gate: tuple[Door, Any, select.epoll]) -> None:
    """Whoever is neither root nor the helper's user is hung up on, whatever he was given."""
    door, calls, epoll = gate
    os.seteuid(NOBODY)
    try:
        mine = std.socket(std.AF_UNIX, std.SOCK_SEQPACKET)
        mine.connect(control.address(os.getpid()))
    finally:
        os.seteuid(0)
    with mine:
        mine.settimeout(5)
        serve(door, epoll)
        assert mine.recv(1) == b""
        assert not calls.pids


def test_whose_a_descriptor_is() -> None:
    """The kernel's sockets and pairs are nobody's; what is no socket raises; a helper that is not there is lost."""
    one, two = std.socketpair()
    with one, two, std.socket() as kernel:
        assert program_of(one.fileno()) is None
        assert program_of(kernel.fileno()) is None
    read, write = os.pipe()
    with pytest.raises(OSError) as caught:
        program_of(read)
    assert caught.value.errno == errno.ENOTSOCK
    os.close(read)
    os.close(write)
    with pytest.raises(ConnectionResetError):
        Visit(1)


def test_epoll_sets_that_watch_a_descriptor() -> None:
    """Are found with what they watch for and the program's own word, whatever number they have."""
    one, two = std.socketpair()
    with one, two, select.epoll() as first, select.epoll() as second, select.epoll() as other:
        first.register(one, select.EPOLLIN)
        second.register(one, select.EPOLLOUT | select.EPOLLET)
        other.register(two, select.EPOLLIN)
        found = {
            entry.epoll: (entry.events & (select.EPOLLIN | select.EPOLLOUT | select.EPOLLET), entry.data & 0xFFFF_FFFF)
            for entry in watches("self", one.fileno(), os.fstat(one.fileno()).st_ino)
        }
        assert found == {
            first.fileno(): (select.EPOLLIN, one.fileno()),
            second.fileno(): (select.EPOLLOUT | select.EPOLLET, one.fileno()),
        }
