"""All seam points of a process: which stand at which of its ports, and how a stage comes there and goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from levelip.frames.core import ControlError
from levelip.ipc.port import Port, way_of
from levelip.ipc.seampoint import SeamPoint, Stage


class PortWay(NamedTuple):
    """One way of one port. `points` are those of its direction, into the core or out of it, by port."""

    points: dict[str, SeamPoint]
    port: Port
    way: str


PassOn = Callable[[Port, list[Any], int], None]


class SeamPoints:
    """Of one process. `inbound` and `outbound` hold points by port, and only where something stands.

    `feed` gives frames to the core, `emit` sends them out of a port, `now` is stack time in ns.
    """

    def __init__(
        self, process: str, ports: Mapping[str, Port], *, feed: PassOn, emit: PassOn, now: Callable[[], int]
    ) -> None:
        self.inbound: dict[str, SeamPoint] = {}
        self.outbound: dict[str, SeamPoint] = {}
        self._process = process
        self._ports = ports
        self._feed = feed
        self._emit = emit
        self._now = now

    def ways(self, seam: str, direction: str) -> list[PortWay]:
        """Where a seam's stages stand in this process: at what it takes in; link, which alone sees the device, at
        what it sends out too. "up" is toward the applications. ControlError for any other direction."""
        if direction not in ("up", "down", "both"):
            raise ControlError("direction is up, down or both")
        found = [one for port in self._ports.values() if port.seam == seam for one in self._ways_of(port)]
        return [one for one in found if direction in (one.way, "both")]

    def _ways_of(self, port: Port) -> Iterable[PortWay]:
        yield PortWay(self.inbound, port, way_of(port.name, self._process))
        if port.name == "device":
            yield PortWay(self.outbound, port, "down")

    def stand(self, where: PortWay, name: str, stage: Stage) -> None:
        """Let a stage stand there, in the place of the one of this name; what that kept goes on at once."""
        points, port, way = where
        if port.name in points and points[port.name].get(name) is not None:
            self.remove(where, name)
        points.setdefault(port.name, SeamPoint(port.seam, way)).put(name, stage)

    def remove(self, where: PortWay, name: str) -> None:
        """Take a stage away; what it kept goes on at once."""
        points, port, _ = where
        now = self._now()
        point = points[port.name]
        waiting = point.take(name, now)
        if not point:
            del points[port.name]
        pass_on = self._feed if points is self.inbound else self._emit
        pass_on(port, waiting, now)

    def standing(self, name: str) -> list[PortWay]:
        """Where a stage of this name stands."""
        return [
            PortWay(points, self._ports[port], point.way)
            for points in (self.inbound, self.outbound)
            for port, point in points.items()
            if point.get(name) is not None
        ]
