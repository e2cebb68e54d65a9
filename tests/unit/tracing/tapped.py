"""tcp cores whose shell side is recorded as the tap bus would tell it: records as of docs/tracing.md."""

from __future__ import annotations

from typing import Any

from layers.tcp.core import TcpCore
from levelip.frames.packet import Segment

PACKET_FIELDS = ("ingress", "iface", "src", "dst", "proto", "ttl", "tos", "dont_fragment", "flags")


class TappedCore(TcpCore):
    """A TcpCore that keeps the records of its own process, in order; events as its shell would publish them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.interest = True
        self.records: list[list[Any]] = []
        self.now = args[2]

    def receive(self, frame: Any, now: int) -> None:
        self.now = now
        if isinstance(frame, Segment):
            self._frame(frame, "in")
        super().receive(frame, now)
        self._events()

    def handle_timer(self, now: int) -> None:
        self.now = now
        super().handle_timer(now)
        self._events()

    def outgoing(self, room: Any) -> Any:
        output = super().outgoing(room)
        self._events()
        for port, frame in output:
            if port == "ip" and isinstance(frame, Segment):
                self._frame(frame, "out")
        return output

    def _frame(self, frame: Segment, direction: str) -> None:
        fields = {name: getattr(frame, name) for name in PACKET_FIELDS}
        self.records.append(
            [len(self.records) + 1, "f", "tcp", "ip-tcp", direction, self.now, self.now, frame.id, list(frame.causes),
             "Segment", fields, bytes(frame.head), b"", len(frame.payload), frame.checksum, frame.gso_size]
        )  # fmt: skip

    def _events(self) -> None:
        for event in self.events():
            row = [event.at, event.kind, event.reason, event.frame, event.conn, event.data]
            self.records.append([len(self.records) + 1, "e", "tcp", event.at, row])
