"""What a udp core is made with: the [udp] tunables and what the shell alone knows."""

from __future__ import annotations

from msgspec import Struct, field

from levelip.config import UdpConfig


class UdpCoreConfig(Struct, kw_only=True):
    """Plain values, so that a snapshot and this is all that a replay needs. `epoch` is the process's."""

    udp: UdpConfig = field(default_factory=UdpConfig)
    epoch: int = 1
