"""Sleeping until something has come, cheaply: poll(2) over descriptors, ZeroMQ's sockets by theirs.

zmq_poll asks every socket for its state before and after each sleep, which costs more than all else in a round. But
ZMQ_FD is edge-triggered: it tells of what comes after the socket was last found to be empty, and a send may eat that.
So whoever sleeps on a socket here drains it first and each time that it is ready, or asks it by `sure`.
"""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import Any

import zmq

from levelip.ipc.port import Pollable

_EVENTS = int(zmq.EVENTS)  # plain integers: zmq's enums cost more than the calls they are for
_POLLIN = int(zmq.POLLIN)
_POLLOUT = int(zmq.POLLOUT)

Wanted = list[tuple[Pollable, Any, bool]]  # source, its owner, whether it is output that is waited for


class Poller:
    """What a loop sleeps on. Stateless in the kernel, so that a descriptor may be closed and its number used again."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._masks: dict[int, int] = {}
        self._owners: dict[int, list[Any]] = {}

    def watch(self, wanted: Wanted) -> None:
        """Sleep on these from now on. Of a ZeroMQ socket any news wakes its owner, whatever it waits for."""
        masks: dict[int, int] = {}
        self._owners = {}
        for source, owner, output in wanted:
            if isinstance(source, int):
                fd, mask = source, select.POLLOUT if output else select.POLLIN
            else:
                fd, mask = int(source.getsockopt(zmq.FD)), select.POLLIN
            masks[fd] = masks.get(fd, 0) | mask
            self._owners.setdefault(fd, []).append(owner)
        for fd in self._masks:
            if fd not in masks:
                self._poll.unregister(fd)
        for fd, mask in masks.items():
            self._poll.register(fd, mask)
        self._masks = masks

    def wait(self, timeout_ms: int) -> set[Any]:
        """The owners of what is ready, at the latest after `timeout_ms`."""
        ready: set[Any] = set()
        for fd, _ in self._poll.poll(timeout_ms):
            ready.update(self._owners[fd])
        return ready


def sure(unsure: Iterable[tuple[zmq.Socket[Any], Any, bool]]) -> set[Any]:
    """The owners of those sockets that are ready in fact, for input or (True) for output."""
    return {
        owner for socket, owner, output in unsure if int(socket.get(_EVENTS)) & (_POLLOUT if output else _POLLIN)
    }
