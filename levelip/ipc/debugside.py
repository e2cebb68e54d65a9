"""What the debugger's part of a process sees of it: its loop, and each way of its ports at which frames can be held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from levelip.frames.core import Core
from levelip.ipc.debugstage import DebugStage
from levelip.ipc.port import Port, way_of
from levelip.ipc.runtime import Runtime
from levelip.ipc.seampoint import SeamPoint
from levelip.ipc.tap import Tap
from levelip.tracing.events import Event


class Host(Protocol):
    """What the debugger's part needs of the loop."""

    runtime: Runtime
    core: Core
    tap: Tap
    ports: dict[str, Port]
    inbound: dict[str, SeamPoint]
    outbound: dict[str, SeamPoint]
    watching: bool
    witness: list[tuple[Port, Any]] | None

    def feed(self, port: Port, frames: list[Any], now: int) -> None: ...
    def emit(self, port: Port, frames: list[Any], now: int) -> None: ...
    def flush(self, now: int) -> None: ...
    def tell(self, events: list[Event]) -> None: ...
    def did(self, event: Event) -> None: ...
    def tell_elsewhere(self, name: str, args: dict[str, Any]) -> None: ...


class Side:
    """One way of one port, where frames can be held: `into` the core, or out of the stack."""

    def __init__(self, host: Host, port: Port, *, into: bool) -> None:
        self.port = port
        self.into = into
        self.seam = port.seam
        self.way = way_of(port.name, host.runtime.name, into=into)
        self.name = f"{self.seam} {self.way}"
        self.points = host.inbound if into else host.outbound
        self.blank = SeamPoint(self.seam, self.way)

    @property
    def point(self) -> SeamPoint:
        """What stands there."""
        return self.points.get(self.port.name, self.blank)

    @property
    def stage(self) -> DebugStage | None:
        """The debugger's stage, where one stands."""
        stage = self.point.get("debug")
        return stage if isinstance(stage, DebugStage) else None


def sides_of(host: Host) -> Iterator[Side]:
    """All of a process: what its ports take in, and what goes out of the stack."""
    for port in host.ports.values():
        yield Side(host, port, into=True)
        if port.name in ("device", "client"):
            yield Side(host, port, into=False)
