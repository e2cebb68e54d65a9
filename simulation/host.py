"""One host in virtual time: the gateway, tcp, udp and ip cores as they run in the processes, wired to each other.

Above the gateway a program speaks its RPC (program.py); below ip whoever made the host plays link: `send` hands a
packet in, and `on_packet` hears of each that goes out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from layers.ip.config import IpCoreConfig
from layers.ip.core import Core as IpCore
from layers.tcp.config import TcpCoreConfig
from layers.tcp.core import TcpCore
from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from levelip.config import GatewayConfig, IpConfig, TcpConfig, UdpConfig
from levelip.configfile import keys
from levelip.frames.core import DEFERRED
from levelip.frames.packet import BROADCAST, Checksum, LinkState, Packet
from levelip.frames.seam import Answer, ForClient, FromClient, NeighbourUp
from levelip.rpc.place import INLINE_LIMIT
from levelip.tracing.events import Event
from levelip.wire.ipv4 import Proto
from simulation.net import MS, Net

SECTIONS = ("ip", "tcp", "udp", "gateway")
CONNECTIONS = 64  # rings of a host's own region: bounds what one script can hold open
SETTLE = 2_000 * MS  # ns: so long after its start a gateway takes tcp's answers as final
MEMORY_DIR = "/simulated"


def setting(name: str, text: str) -> tuple[str, Any]:
    """("tcp.delayed_ack_ms", 0) of a setting's name and value as people write them. ValueError says what is wrong."""
    key = keys().get(name)
    if key is None or key.section not in SECTIONS:
        raise ValueError(f"there is no setting {name}; a script can set those of [ip], [tcp], [udp] and [gateway]")
    try:
        return name, key.parse(text)
    except ValueError as error:
        raise ValueError(f"{name} = {text}: {error}") from None


class Host:
    """The cores and their clock. `settings`: dotted name → value, checked by `setting`."""

    def __init__(
        self,
        *,
        address: str,
        gateway: str = "",
        mtu: int = 1500,
        gso_max: int = 65_535,
        settings: Mapping[str, Any] | None = None,
        fixed_isn: int = -1,
        seed: int = 1,
    ) -> None:
        sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
        for name, value in (settings or {}).items():
            section, _, key = name.partition(".")
            sections[section][key] = value
        sections["ip"] = {"address": address, "gateway": gateway, **sections["ip"]}
        sections["tcp"].setdefault("connections", CONNECTIONS)
        ip, tcp = IpConfig(**sections["ip"]), TcpConfig(**sections["tcp"])
        udp = UdpConfig(**sections["udp"])
        door = GatewayConfig(**sections["gateway"])
        self.net = Net()
        self.memory = self.net.memory
        self.on_packet: Callable[[Packet, int], None] = lambda _packet, _now: None
        self.on_answer: Callable[[dict[str, Any]], None] = lambda _data: None
        self.on_message: Callable[[Any], None] = lambda _message: None
        node = self.node = self.net.add("host")
        now = self.net.now
        self.ip = IpCore(
            IpCoreConfig(ip=ip, epoch=seed, mtu=mtu, transports={Proto.TCP: "tcp", Proto.UDP: "udp"}),
            random.Random(seed),
            now,
        )
        self.udp = UdpCore(UdpCoreConfig(udp=udp, epoch=seed + 3), random.Random(seed + 3), now)
        self.tcp = TcpCore(
            TcpCoreConfig(tcp=tcp, epoch=seed + 1, own_region="own", isn_secret=bytes([seed & 0xFF]) * 32,
                          port_secret=bytes([seed & 0xFF]) * 32, fixed_isn=fixed_isn),
            random.Random(seed + 1),
            now,
        )  # fmt: skip
        self.gateway = GatewayCore(
            GatewayCoreConfig(gateway=door, tcp=tcp, udp=udp, ttl=ip.ttl, epoch=seed + 2, memory_dir=MEMORY_DIR),
            random.Random(seed + 2),
            now,
        )
        self.cores: dict[str, Any] = {"ip": self.ip, "tcp": self.tcp, "udp": self.udp, "gateway": self.gateway}
        for name, core in self.cores.items():
            core.interest = True
            node.add(name, core)
        node.wire("ip", "link", self._to_link)
        node.wire("ip", "tcp", self.tcp.receive)
        node.wire("ip", "udp", self.udp.receive)
        node.wire("udp", "ip", self.ip.receive)
        node.wire("udp", "gateway", self.gateway.receive)
        node.wire("gateway", "udp", self.udp.receive)
        node.wire("ip", "control", self._answered)
        node.wire("tcp", "ip", self.ip.receive)
        node.wire("tcp", "gateway", self.gateway.receive)
        node.wire("gateway", "tcp", self.tcp.receive)
        node.wire("gateway", "client", self._to_client)
        self.link_state = LinkState(1, "tun0", "tun", True, mtu, gso_max, True)
        self.ip.receive(self.link_state, now)
        for core, neighbour in (
            (self.ip, "tcp"), (self.ip, "udp"), (self.tcp, "gateway"), (self.udp, "gateway"), (self.gateway, "tcp"),
            (self.gateway, "udp"),
        ):  # fmt: skip
            core.receive(NeighbourUp(neighbour, 1), now)
        node.flush(now)
        self.net.advance(now + SETTLE)

    @property
    def now(self) -> int:
        """Instant, ns."""
        return self.net.now

    def flush(self) -> None:
        """Until nobody has anything left to say."""
        self.node.flush(self.net.now)

    def send(self, data: bytes, *, header: int, gso_size: int = 0, flush: bool = True, broadcast: bool = False) -> None:
        """An IP packet from outside, whole; `header`: bytes of its IP and transport headers. Without `flush` nobody
        looks at it before the next one comes. `broadcast`: it came to all on the link."""
        # link puts whole TCP packets into the pool, and nothing else
        long = len(data) - header > INLINE_LIMIT and data[9] == Proto.TCP and not (data[6] & 0x3F or data[7])
        payload = self.memory.pool(data[header:]) if long else data[header:]
        checksum = Checksum.VERIFIED if long else Checksum.UNVERIFIED
        packet = Packet(0, [], False, self.now, 1, data[:header], payload, int(checksum), gso_size)
        packet.flags = BROADCAST if broadcast else 0
        self.ip.receive(packet, self.now)
        if flush:
            self.flush()

    def client(self, peer: bytes, message: Any) -> None:
        """A message of a client to the gateway, and all that follows from it at once."""
        self.gateway.receive(FromClient(peer, 0, 1, message), self.now)
        self.flush()

    def ask(self, name: str, args: dict[str, Any]) -> dict[str, Any] | None:
        """A command for ip, as `lvlip` would send it; None if the answer follows (`on_answer`). ControlError if it is
        refused."""
        said = self.ip.control(1, name, args, self.now)
        self.flush()
        return None if said is DEFERRED else said

    def _answered(self, frame: Any, _now: int) -> None:
        if isinstance(frame, Answer):
            self.on_answer(frame.data)

    def _to_link(self, frame: Any, now: int) -> None:
        """Packets; what else link is told (Local) concerns ARP."""
        if isinstance(frame, Packet):
            self.on_packet(frame, now)

    def _to_client(self, frame: Any, _now: int) -> None:
        if isinstance(frame, ForClient):
            self.on_message(frame.message)

    def change_link(self, *, mtu: int | None = None, gso_max: int | None = None) -> None:
        """The device is another than before."""
        changes = {"mtu": mtu, "gso_max": gso_max}
        self.link_state = msgspec.structs.replace(
            self.link_state, **{name: value for name, value in changes.items() if value is not None}
        )
        self.ip.receive(self.link_state, self.now)
        self.flush()

    def set(self, name: str, value: Any) -> None:
        """Change a setting at run time, in every core that knows it. ValueError if it needs a restart."""
        key = keys()[name]
        if not key.runtime:
            raise ValueError(f"{name} cannot be changed in a running stack; set it before the first event")
        self.cores[key.section].set(key.name, value, self.now)
        self.flush()

    def events(self) -> list[tuple[str, Event]]:
        """(layer, event) of what was decided since the last call."""
        found = [(name, event) for name, core in self.cores.items() for event in core.events()]
        return sorted(found, key=lambda pair: pair[1].at)
