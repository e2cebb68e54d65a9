"""The last close of sockets that have no hang-up, as inotify tells of it."""

from __future__ import annotations

import os
import select
import socket

from levelip.client.closes import Closes


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
