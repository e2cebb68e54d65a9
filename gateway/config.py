"""What the gateway's core is told at its start: plain values, so that a snapshot needs nothing else."""

from __future__ import annotations

from msgspec import Struct, field

from levelip.config import GatewayConfig, TcpConfig, UdpConfig


class GatewayCoreConfig(Struct, kw_only=True):
    """`memory_dir` is where clients make their files (empty: no shared memory); `owner` the stack's user; `device` the
    name of its one interface beside loopback."""

    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    tcp: TcpConfig = field(default_factory=TcpConfig)
    udp: UdpConfig = field(default_factory=UdpConfig)
    ttl: int = 64
    epoch: int
    owner: int = 0
    device: str = ""
    memory_dir: str = ""

    @property
    def memory_slot(self) -> int:
        """Bytes of the two rings of one socket."""
        return self.tcp.send_ring + self.tcp.receive_ring
