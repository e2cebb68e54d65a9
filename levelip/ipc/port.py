"""What the loop knows of a border of a process: a pipe to a neighbour, the device, the applications' door."""

from __future__ import annotations

from typing import Any, Protocol

import zmq

from levelip.frames.core import UNLIMITED

__all__ = ["UNLIMITED", "Pollable", "Port", "way_of"]

Pollable = int | zmq.Socket[Any]
_HEIGHT = {"device": 0, "link": 1, "ip": 2, "tcp": 3, "udp": 3, "gateway": 4, "client": 5}


def way_of(neighbour: str, process: str, *, into: bool = True) -> str:
    """Which way frames go at the port that is named for a neighbour, `into` the process or out of it: "up" is toward
    the applications."""
    above = _HEIGHT.get(neighbour, 0) > _HEIGHT.get(process, 0)
    return "down" if above is into else "up"


class Port(Protocol):
    """One border. No method blocks; none raises for anything that arrives."""

    name: str  # the core's name for it: "link", "ip", "tcp", "udp", "gateway", "device", "client"
    seam: str  # the seam that it lies on: one of levelip.debug.tap.SEAMS

    def readable(self) -> list[Pollable]:
        """What to poll for input; empty while input is paused."""

    def writable(self) -> list[Pollable]:
        """What to poll for output, only while something waits for them."""

    def receive(self, limit: int, now: int) -> list[Any]:
        """Up to about `limit` frames that have come."""

    def room(self) -> int:
        """How many frames `send` takes now."""

    def send(self, frames: list[Any], now: int) -> None:
        """Send what can be sent; what cannot is dropped and counted by reason."""

    def close(self) -> None:
        """Close sockets and descriptors."""
