"""What the ip core is told when it starts: the [ip] section and what other sections say that concerns it."""

from __future__ import annotations

from msgspec import Struct, field

from levelip.config import IpConfig
from levelip.wire.ipv4 import IPV4_MAX_TOTAL_LENGTH

LOOPBACK_MTU = IPV4_MAX_TOTAL_LENGTH
"""Bytes; Linux's lo has 65,536, which no IPv4 packet can use up."""
DEFAULT_TRANSPORTS = {6: "tcp"}
"""Protocol number (IANA) → the neighbour process that speaks it, where no other is configured."""


class IpCoreConfig(Struct, kw_only=True):
    """Plain data, so that a snapshot holds it and a replay needs nothing else."""

    ip: IpConfig
    epoch: int
    """This start's number; it goes into frame ids."""
    mtu: int = 1500
    """Bytes; [device] mtu, taken until link says what its device has."""
    transports: dict[int, str] = field(default_factory=lambda: dict(DEFAULT_TRANSPORTS))
