"""What the parts of one udp core share: sockets, routes, queues toward the neighbours, clock, counters, events."""

from __future__ import annotations

import random
from collections import defaultdict, deque
from typing import Any

from layers.udp.config import UdpCoreConfig
from layers.udp.endpoints import Endpoint, Endpoints
from layers.udp.path_mtu import PathMtus
from levelip.frames.packet import FrameIds, Groups, PathMtu, Process, Refused, Segment
from levelip.frames.routes import RouteLookup
from levelip.frames.seam import Datagram, Failed, Released, Result
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.wire.addr import format_address

ToIp = Segment | Refused | Groups | PathMtu
ToGateway = Result | Released | Datagram | Failed


class Context:
    """Plain attributes; the procedures of udp read and write them, `core` alone talks to the shell."""

    __slots__ = (
        "config", "counters", "endpoints", "event_list", "gateway_epoch", "ids", "interest", "looped", "now",
        "path_mtus", "rng", "routes", "to_gateway", "to_ip", "udp",
    )  # fmt: skip

    def __init__(self, config: UdpCoreConfig, rng: random.Random, now: int) -> None:
        self.config = config
        self.udp = config.udp
        self.rng = rng
        self.now = now
        self.interest = False
        self.counters: dict[str, int] = defaultdict(int)
        self.event_list: list[Event] = []
        self.ids = FrameIds(Process.UDP, config.epoch)
        self.endpoints = Endpoints()
        self.routes = RouteLookup()
        self.path_mtus = PathMtus()
        self.to_ip: deque[ToIp] = deque()
        self.to_gateway: deque[ToGateway] = deque()
        self.looped: deque[Segment] = deque()  # what we sent to groups that we are in; empty between frames
        self.gateway_epoch = 0

    def emit(
        self, kind: str, endpoint: Endpoint | None = None, *, reason: str = "", frame: int = 0, **data: Any
    ) -> None:
        """Tell of a decision when somebody listens. Addresses in `data` become text."""
        if self.interest:
            text = {key: _text(value) for key, value in data.items()}
            self.event_list.append(Event(self.now, kind, reason, frame, name(endpoint), text))

    def drop(self, reason: Reason, frame: int, endpoint: Endpoint | None = None, **data: Any) -> None:
        """Discard something: counted always, told when somebody listens."""
        self.counters[reason.counter] += 1
        self.emit("drop", endpoint, reason=reason.name, frame=frame, **data)


def name(endpoint: Endpoint | None) -> str:
    """As events name a socket: local side first; without the peer if it has none."""
    if endpoint is None:
        return ""
    local = f"{format_address(endpoint.address)}:{endpoint.port}"
    return f"{local}>{format_address(endpoint.peer)}:{endpoint.peer_port}" if endpoint.peer_port else local


def _text(value: Any) -> Any:
    return format_address(value) if isinstance(value, bytes) and len(value) in (4, 16) else value
