"""Hosts with link, ip and tcp cores and a tap, in virtual time; between them a cable on which addons may stand.

What a host's tap records is what `lvlip trace` would: frames in and out at each seam, and events. The addons of a
`Cable` stand in the network: at the device's seam, but beyond the tap, so that the tap sees only what they did.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from layers.ip.config import IpCoreConfig
from layers.ip.core import Core as IpCore
from layers.link.config import LinkCoreConfig
from layers.link.core import LinkCore
from layers.link.offload import finish
from layers.tcp.core import TcpCore
from levelip.config import IpConfig, LinkConfig, TcpConfig
from levelip.frames.packet import DeviceFrame, DeviceState, FrameIds, IcmpError, Process, Routes, Segment
from levelip.frames.seam import NeighbourUp
from levelip.ipc.addons import Addons
from levelip.ipc.faults import FaultGate, FaultSettings, Teller
from levelip.ipc.seampoint import SeamPoint
from levelip.ipc.tap import frame_record
from levelip.rpc.place import Place
from levelip.tracing.events import Event
from simulation.net import MS, Net
from tests.addonworld import AddonWorld
from tests.netsim.tcp_apps import TcpHost, small_config

A, B = b"\x0a\0\0\1", b"\x0a\0\0\2"
MACS = {A: b"\x02\0\0\0\0\x01", B: b"\x02\0\0\0\0\x02"}
_SEAM_OF = {("link", "device"): "link", ("link", "ip"): "link-ip", ("ip", "link"): "link-ip", ("ip", "tcp"): "ip-tcp",
            ("tcp", "ip"): "ip-tcp", ("tcp", "gateway"): "tcp-gateway"}  # fmt: skip
_TAKES = {("link", "up"): "link", ("link", "down"): "link", ("link-ip", "up"): "ip", ("link-ip", "down"): "link",
          ("ip-tcp", "up"): "tcp", ("ip-tcp", "down"): "ip"}  # fmt: skip
"""(seam, way) → the process at which faults and addons stand."""
_IP_TO_TCP = (Segment, Routes, IcmpError)


class Tapped:
    """A core whose frames and events are recorded."""

    def __init__(self, core: Any, process: str, host: WholeHost) -> None:
        self.core = core
        self._process = process
        self._host = host
        core.interest = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def receive(self, frame: Any, now: int) -> None:
        seam = self._arrives(frame)
        if seam:
            self._host.record(self._process, seam, "in", frame, now)
        self.core.receive(frame, now)

    def _arrives(self, frame: Any) -> str:
        if isinstance(frame, (NeighbourUp, DeviceState)):
            return ""
        match self._process:
            case "tcp":
                return "ip-tcp" if isinstance(frame, _IP_TO_TCP) else "tcp-gateway"
            case "ip":
                return "ip-tcp" if type(frame).__name__ in ("Segment", "PathMtu", "Doubt") else "link-ip"
        return "link" if isinstance(frame, DeviceFrame) else "link-ip"

    def outgoing(self, room: Any) -> list[tuple[str, Any]]:
        host = self._host
        out: list[tuple[str, Any]] = []
        for port, frame in self.core.outgoing(room):
            seam = _SEAM_OF.get((self._process, port))
            frames = [frame]
            if port == "device":
                frames = host.through("link", "down", frames, host.net.now)  # as the loop does it
            for one in frames:
                if seam is not None:
                    host.record(self._process, seam, "out", one, host.net.now)
                out.append((port, one))
        for event in [*host.tellers[self._process].take(), *self.core.events()]:
            plain = msgspec.to_builtins(event, builtin_types=(bytes,))
            host.records.append([0, "e", self._process, host.mono(), plain])
        return out


class WholeHost(TcpHost):
    """A TcpHost upon real ip and link cores. `records`: what its tap told; `points`: where stages stand inside."""

    def __init__(self, net: Net, name: str, address: bytes, config: TcpConfig, *, seed: int = 1, mtu: int = 1500,
                 gateway: str = "", ip: dict[str, Any] | None = None) -> None:  # fmt: skip
        self.records: list[list[Any]] = []
        self.points: dict[tuple[str, str], SeamPoint] = {}
        self.tellers = {process: Teller() for process in ("link", "ip", "tcp")}
        self._mono = 0
        self._addons: Addons | None = None
        super().__init__(net, name, address, config, seed=seed, mtu=mtu, core_type=self._tapped)
        now = net.now
        text = ".".join(map(str, address))
        ip_config = IpConfig(address=f"{text}/24", gateway=gateway, **(ip or {}))
        self.ip = Tapped(IpCore(IpCoreConfig(ip=ip_config, epoch=seed, mtu=mtu), random.Random(seed), now), "ip", self)
        device = DeviceState("tap0", "tap", True, True, mtu, True, 65_535)
        link = LinkCoreConfig(epoch=seed, device=device, link=LinkConfig(), mac=MACS[address], addresses=[address])
        self.link = Tapped(LinkCore(link, random.Random(seed), now), "link", self)
        self.cable: Callable[[DeviceFrame, int], None] = lambda _frame, _now: None
        self._goals: dict[tuple[str, str], Callable[[Any, int], None]] = {
            ("link", "up"): self.link.receive, ("link", "down"): self._leaves,
        }  # fmt: skip
        node = self.node
        node.add("ip", self.ip)
        node.add("link", self.link)
        node.wire("tcp", "ip", self._through("ip-tcp", "down", self.ip))
        node.wire("ip", "tcp", self._through("ip-tcp", "up", self.core))
        node.wire("ip", "link", self._through("link-ip", "down", self.link))
        node.wire("link", "ip", self._through("link-ip", "up", self.ip))
        node.wire("link", "device", self._to_cable)
        node.wire("ip", "control", lambda _answer, _now: None)
        self.ip.receive(NeighbourUp("tcp", 1), now)
        self.ip.receive(NeighbourUp("link", 1), now)
        self.link.receive(NeighbourUp("ip", 1), now)
        self.core.receive(NeighbourUp("ip", 1), now)
        node.flush(now)

    def _tapped(self, *args: Any) -> Tapped:
        return Tapped(TcpCore(*args), "tcp", self)

    def _through(self, seam: str, way: str, to: Any) -> Callable[[Any, int], None]:
        self._goals[seam, way] = to.receive

        def deliver(frame: Any, now: int) -> None:
            for one in self.through(seam, way, [frame], now):
                to.receive(one, now)

        return deliver

    def through(self, seam: str, way: str, frames: list[Any], now: int) -> list[Any]:
        """Frames past what stands there; what is kept goes on when it is due."""
        point = self.points.get((seam, way))
        if point is None:
            return frames
        passed = point.push(frames, now)
        if (at := point.next_timer()) is not None:
            self.net.later(max(at, now), lambda _, when: self._due(seam, way, when), None)
        return passed

    def _due(self, seam: str, way: str, now: int) -> None:
        for frame in self.points[seam, way].due(now):
            self._goals[seam, way](frame, now)
        self.node.flush(now)

    def _leaves(self, frame: Any, now: int) -> None:
        self.record("link", "link", "out", frame, now)
        self._to_cable(frame, now)

    def fault(self, seam: str, way: str, **settings: Any) -> FaultGate:
        """As `lvlip fault set` does it, one way."""
        process = _TAKES[seam, way]
        world: Any = World(self.net, process)
        teller = self.tellers[process]
        teller.interest = True
        gate = FaultGate(FaultSettings(seam, way, **settings), process, way, world, teller)  # type: ignore[arg-type]
        self.points.setdefault((seam, way), SeamPoint(seam, way)).put("fault", gate)
        return gate

    def addon(self, path: Path) -> None:
        """As `lvlip addon load --layer link` does it; what it does is told as the loop does it."""
        if self._addons is None:
            teller = self.tellers["link"]
            teller.interest = True
            sides = [("link", "up"), ("link", "down")]
            self._addons = Addons(World(self.net, "link", teller), sides, slow_ms=1e6)
            for side in sides:
                self.points.setdefault(side, SeamPoint(*side)).put("addon", self._addons.stage(*side))
        assert self._addons.load(str(path), {}, self.net.now) is not None

    def _to_cable(self, frame: DeviceFrame, now: int) -> None:
        self.cable(frame, now)

    def mono(self) -> int:
        """An instant for a record: virtual time, and a nanosecond more for each, so that their order is theirs."""
        self._mono = max(self._mono + 1, self.net.now)
        return self._mono

    def record(self, process: str, seam: str, direction: str, frame: Any, now: int) -> None:
        """What the tap would publish."""
        inner = getattr(frame, "payload", b"")
        data = b"" if isinstance(inner, Place) else inner[:128]
        record = frame_record(process, seam, direction, now, self.mono(), frame, data)
        self.records.append(msgspec.msgpack.decode(msgspec.msgpack.encode(record)))

    def arrive(self, frame: DeviceFrame, now: int) -> None:
        """From the cable."""
        for one in self.through("link", "up", [frame], now):
            self.link.receive(one, now)


class World(AddonWorld):
    """What is around addons in the network, or (`teller`) in a host, whose tap tells of what they do."""

    def __init__(self, net: Net, process: str, teller: Teller | None = None) -> None:
        super().__init__(process, _Memory(net))
        self._teller = teller

    @property
    def interest(self) -> bool:
        return self._teller is not None and self._teller.interest

    def publish(self, event: Event) -> None:
        super().publish(event)
        if self._teller is not None:
            self._teller.add(event)


class _Memory:
    def __init__(self, net: Net) -> None:
        self._net = net

    def read(self, place: Place) -> bytes:
        return self._net.memory.read(place)

    def free(self, place: Place) -> None:
        pass


class Cable:
    """Between two hosts: completes checksums and cuts super-segments, as a cable's packets are; then addons, as at the
    device of the first host ("up": toward it); then the delay. `rate`: bit/s."""

    def __init__(
        self, net: Net, one: WholeHost, two: WholeHost, *, delay: int = 5 * MS, rate: int = 100_000_000
    ) -> None:
        self.net = net
        self.delay = delay
        self.rate = rate
        self.world = World(net, "link")
        self.addons = Addons(self.world, [("link", "up"), ("link", "down")], slow_ms=1e6)
        self.ids = FrameIds(Process.DEVICE, 1)
        self._hosts = {"up": one, "down": two}
        self._free = {"up": 0, "down": 0}
        self.stages = {way: self.addons.stage("link", way) for way in ("up", "down")}
        one.cable = lambda frame, now: self._send(frame, "down", now)
        two.cable = lambda frame, now: self._send(frame, "up", now)

    def load(self, path: Path, **options: str) -> None:
        """An addon."""
        assert self.addons.load(str(path), options, self.net.now) is not None

    def _send(self, frame: DeviceFrame, way: str, now: int) -> None:
        payload = self.net.memory.read(frame.payload)
        pieces = finish(frame.vnet, frame.head, payload, 14)
        self._put([DeviceFrame(self.ids.next(), [], piece, b"", bytes(10)) for piece in pieces], way, now)

    def _put(self, frames: list[DeviceFrame], way: str, now: int) -> None:
        stage = self.stages[way]
        self._carry(stage.push(frames, now), way, now)
        for side, one in self.stages.items():  # an addon may have put something into the other way
            at = one.next_timer()
            if at is not None:
                self.net.later(max(at, now), lambda _, when, side=side: self._due(side, when), None)

    def _due(self, way: str, now: int) -> None:
        self._carry(self.stages[way].due(now), way, now)

    def _carry(self, frames: list[DeviceFrame], way: str, now: int) -> None:
        for frame in frames:
            bits = 8 * (len(frame.head) + len(frame.payload))
            self._free[way] = max(now, self._free[way]) + bits * 1_000_000_000 // self.rate
            if frame.causes:  # an addon made it: the device of the host knows nothing of that
                frame = msgspec.structs.replace(frame, id=self.ids.next(), causes=[])
            self.net.later(self._free[way] + self.delay, self._hosts[way].arrive, frame)


def network(
    *, a: TcpConfig | None = None, b: TcpConfig | None = None, seed: int = 1, **cable: Any
) -> tuple[Net, WholeHost, WholeHost, Cable]:
    """Two hosts, 10.0.0.1 (the one that is watched) and 10.0.0.2, and the cable."""
    net = Net()
    one = WholeHost(net, "a", A, a or small_config(), seed=seed)
    two = WholeHost(net, "b", B, b or small_config(), seed=seed + 1)
    return net, one, two, Cable(net, one, two, **cable)
