"""What a tcp core is made with: the [tcp] tunables and what the shell alone knows."""

from __future__ import annotations

from msgspec import Struct, field

from levelip.config import TcpConfig


class TcpCoreConfig(Struct, kw_only=True):
    """Plain values, so that a snapshot and this is all that a replay needs.

    `epoch` is the process's; socket ids of children derive from it. `own_region` names the shared memory in which
    connections of sessions without memory have their rings. The secrets key ISNs (RFC 6528) and ports (RFC 6056).
    `fixed_isn` gives every connection that ISN (packet scripts and tests near the wrap-around); -1: RFC 6528.
    Without `header_prediction` every segment takes the whole path of RFC 9293 3.10.7.4; what comes out is the same.
    """

    tcp: TcpConfig = field(default_factory=TcpConfig)
    epoch: int = 1
    own_region: str = "tcp"
    isn_secret: bytes = bytes(32)
    port_secret: bytes = bytes(32)
    fixed_isn: int = -1
    header_prediction: bool = True
