"""The last close of sockets that have no hang-up, as inotify tells of it."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path
from typing import Any

from levelip.client.closes import Closes

QUEUE = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
"""Events that the kernel keeps for whoever is slow to read them."""


def overflow(closes: Closes[Any], directory: Path) -> None:
    """More is told than is kept: files that are closed in turn, as an event that repeats the last one is left out."""
    with (directory / "one").open("wb") as one, (directory / "two").open("wb") as two:
        numbers = [closes.watch(file.fileno(), None) for file in (one, two)]
        for index in range(QUEUE + 1):
            os.close(os.open((one, two)[index % 2].name, os.O_RDONLY))
        for number in numbers:
            closes._owners.pop(number or 0)  # not forgotten by the kernel, which would make room for an event


def test_the_last_close_is_told() -> None:
    """Once, whoever held the last duplicate, before the close returns; not of what was forgotten."""
    with select.epoll() as epoll:
        closes: Closes[str] = Closes(epoll)
        assert closes.fd < 0, "nothing is opened before it is needed"
        one, two, three = (socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, 5))
        numbers = [closes.watch(sock.fileno(), name) for sock, name in ((one, "one"), (two, "two"), (three, "three"))]
        assert len(set(numbers)) == 3 and None not in numbers
        copy = one.dup()
        one.close()
        assert epoll.poll(0) == [] and closes.take() == []
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        assert closes.take() == []
        copy.close()
        assert epoll.poll(0) == [(closes.fd, select.EPOLLIN)]
        assert closes.take() == ["one"] and closes.take() == []
        closes.forget(numbers[1])
        closes.forget(numbers[1])
        two.close()
        three.close()
        assert closes.take() == ["three"] and epoll.poll(0) == []
        closes.close()
        assert closes.fd == -1


def test_more_than_the_kernel_keeps(tmp_path: Path) -> None:
    """A close that finds the queue full is lost: all that are watched are named then, once."""
    with select.epoll() as epoll:
        closes: Closes[str] = Closes(epoll)
        one, two = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        closes.watch(one.fileno(), "one")
        closes.watch(two.fileno(), "two")
        overflow(closes, tmp_path)
        one.close()
        assert closes.take() == []
        assert closes.doubtful() == ["one", "two"] and closes.doubtful() == []
        two.close()
        assert closes.take() == ["two"] and closes.doubtful() == []
        closes.close()
