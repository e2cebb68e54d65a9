"""A loop's worth of host around a core that writes down what it is told: the debugger's part in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from levelip.frames.core import ControlError
from levelip.frames.packet import DeviceFrame, LinkToIp, Packet
from levelip.ipc.loop import Loop
from levelip.ipc.runtime import Runtime
from levelip.tracing.events import Event
from levelip.wire.addr import parse_address
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import TcpHeader


class FakePort:
    """A border: `coming` is what has come, `sent` what went out."""

    def __init__(self, name: str, seam: str) -> None:
        self.name = name
        self.seam = seam
        self.coming: list[Any] = []
        self.sent: list[Any] = []

    def readable(self) -> list[Any]:
        return []

    def writable(self) -> list[Any]:
        return []

    def receive(self, limit: int, now: int) -> list[Any]:
        taken, self.coming = self.coming[:limit], self.coming[limit:]
        return taken

    def room(self) -> int:
        return 1000

    def send(self, frames: list[Any], now: int) -> None:
        self.sent += frames

    def close(self) -> None:
        pass


class FakeCore:
    """Passes packets on to the other side. A packet with TTL 1 is dropped, and that is an event, as is each timer."""

    def __init__(self, *, other: dict[str, str]) -> None:
        self.interest = False
        self.counters: dict[str, int] = {}
        self.other = other
        self.fed: list[tuple[Any, int]] = []
        self.deadlines: list[int] = []
        self.told: list[Event] = []
        self.out: list[tuple[str, Any]] = []

    def receive(self, frame: Any, now: int) -> None:
        self.fed.append((frame, now))
        if isinstance(frame, Packet) and frame.head[8] == 1:
            if self.interest:
                self.told.append(Event(now, "drop", "ip_torn", frame.id))
            return
        self.out.append((self.other["up" if getattr(frame, "next_hop", b"") == b"" else "down"], frame))

    def handle_timer(self, now: int) -> None:
        self.deadlines = [at for at in self.deadlines if at > now]
        if self.interest:
            self.told.append(Event(now, "timer", data={"name": "test"}))

    def next_timer(self) -> int | None:
        return min(self.deadlines, default=None)

    def outgoing(self, room: Any) -> list[tuple[str, Any]]:
        out, self.out = self.out, []
        return out

    def events(self) -> list[Event]:
        told, self.told = self.told, []
        return told

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        raise ControlError(f"{name}: this core knows nothing")

    def set(self, key: str, value: Any, now: int) -> None:
        raise ControlError(f"{key}: this core knows nothing")

    def snapshot(self) -> dict[str, Any]:
        return {}


class Layer:
    """A process "ip" between link and tcp (or "link" between device and ip), without sockets to neighbours."""

    def __init__(self, make: Callable[..., Runtime], name: str = "ip") -> None:
        self.runtime = make(name)
        below, above = {"ip": ("link", "tcp"), "link": ("device", "ip")}[name]
        seams = {"ip": ("link-ip", "ip-tcp"), "link": ("link", "link-ip")}[name]
        self.below, self.above = FakePort(below, seams[0]), FakePort(above, seams[1])
        self.core = FakeCore(other={"up": above, "down": below})
        self.loop = Loop(self.runtime, self.core, [self.below, self.above])
        self.stopping = self.loop.stopping

    def round(self) -> None:
        """One round of the loop, in which every port is looked at."""
        self.loop._again |= set(self.loop.ports.values())
        self.loop._round()

    def ask(self, name: str, **args: Any) -> dict[str, Any]:
        """A control command."""
        return self.loop._command(0, name, args)

    def fed(self) -> list[int]:
        """Ids of what the core was given."""
        return [frame.id for frame, _ in self.core.fed]

    def held(self) -> list[tuple[str, int]]:
        """(name, frame id) of all that is held."""
        return [(row["held"], row["record"][7]) for row in self.ask("debug.held")["held"]]

    def close(self) -> None:
        self.loop._control.close()
        self.loop.tap.close()


def packet(number: int, *, ttl: int = 64, dport: int = 80, down: bool = False, payload: bytes = b"") -> Packet:
    """A SYN to a port, with data if it shall be; `number` is its frame id."""
    tcp = TcpHeader(src_port=1000, dst_port=dport, seq=1, ack=0, flags=2, window=100)
    src, dst = parse_address("10.0.0.1"), parse_address("10.0.0.2")
    ip = Ipv4Header(src=src, dst=dst, proto=6, ttl=ttl, total_length=40 + len(payload))
    head = ip.serialize() + tcp.serialize()
    return Packet(number, [], False, 0, 1, head, payload, 2, 0, b"\x0a\0\0\1" if down else b"")


def frame(number: int) -> DeviceFrame:
    """The same as a frame on a tun device."""
    return DeviceFrame(number, [], packet(number).head, b"")


def numbers(frames: Iterable[Any]) -> list[int]:
    return [one.id for one in frames]


__all__ = ["FakeCore", "FakePort", "Layer", "LinkToIp", "frame", "numbers", "packet"]
