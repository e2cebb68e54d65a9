"""Which core a recording is of, how to bring it back to a snapshot, and at which seam each of its frames crosses."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from gateway.config import GatewayCoreConfig
from gateway.core import GatewayCore
from layers.ip.config import IpCoreConfig
from layers.ip.core import Core as IpCore
from layers.link.config import LinkCoreConfig
from layers.link.core import LinkCore
from layers.tcp.config import TcpCoreConfig
from layers.tcp.core import TcpCore
from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from levelip.configfile import ConfigError
from levelip.frames.packet import (
    DeviceFrame,
    DeviceState,
    Groups,
    IcmpError,
    LinkState,
    Packet,
    Refused,
    Routes,
    Segment,
    Unreachable,
)
from levelip.frames.seam import ClientLost, Datagram, Failed, FromClient, NeighbourDown, NeighbourUp, StoreFailed
from levelip.tracing.recording import RecordingError, Snapshot
from levelip.wire.ipv4 import Proto
from simulation.replay.trust import check_snapshot

CORES: Final[dict[str, tuple[Any, Any]]] = {
    "link": (LinkCoreConfig, LinkCore),
    "ip": (IpCoreConfig, IpCore),
    "tcp": (TcpCoreConfig, TcpCore),
    "udp": (UdpCoreConfig, UdpCore),
    "gateway": (GatewayCoreConfig, GatewayCore),
}
"""Process → what its core is made with, and the core."""

SEAMS: Final[dict[tuple[str, str], tuple[str, str]]] = {
    ("link", "device"): ("link", "down"),
    ("link", "ip"): ("link-ip", "up"),
    ("ip", "link"): ("link-ip", "down"),
    ("ip", "tcp"): ("ip-tcp", "up"),
    ("tcp", "ip"): ("ip-tcp", "down"),
    ("tcp", "gateway"): ("tcp-gateway", "up"),
    ("gateway", "tcp"): ("tcp-gateway", "down"),
    ("ip", "udp"): ("ip-udp", "up"),
    ("udp", "ip"): ("ip-udp", "down"),
    ("udp", "gateway"): ("udp-gateway", "up"),
    ("gateway", "udp"): ("udp-gateway", "down"),
    ("gateway", "client"): ("gateway-client", "up"),
}
"""(process, port that it puts out on) → seam, and the way of what it puts out."""
SHELL: Final = ("shell", "")
_OF_UDP: Final = (Refused, Groups, Datagram, Failed)
"""What only udp says; its answers (Result, Released) cannot be told from tcp's."""
_FROM_BELOW: Final[dict[str, tuple[str, tuple[type, ...]]]] = {
    "link": ("link", (DeviceFrame, DeviceState)),
    "ip": ("link-ip", (Packet, LinkState, Unreachable)),
    "tcp": ("ip-tcp", (Segment, Routes, IcmpError)),
    "udp": ("ip-udp", (Segment, Routes, IcmpError)),
    "gateway": ("tcp-gateway", ()),
}
_FROM_ABOVE: Final = {"link": "link-ip", "ip": "ip-tcp", "tcp": "tcp-gateway", "udp": "udp-gateway",
                      "gateway": "gateway-client"}  # fmt: skip


def restore(process: str, snapshot: Snapshot) -> Any:
    """The core that the snapshot was taken of. RecordingError if this Level-IP cannot."""
    kinds = CORES.get(process)
    if kinds is None:
        raise RecordingError(f"there is no core of a process {process!r}")
    try:
        config = msgspec.msgpack.decode(snapshot.config, type=kinds[0])
        check_snapshot(process, config, snapshot.state)
        core = kinds[1].restore(config, snapshot.state)
    except (RecordingError, ConfigError):
        raise
    except Exception as error:  # whatever a file may hold
        text = f"{type(error).__name__}: {error}"
        raise RecordingError(f"the snapshot does not fit this Level-IP's {process} core: {text}") from None
    core.interest = snapshot.interest
    return core


def where_in(process: str, frame: Any) -> tuple[str, str]:
    """(seam, way) of a frame that the core was given."""
    if isinstance(frame, (NeighbourUp, NeighbourDown, StoreFailed)):
        return SHELL
    if isinstance(frame, _OF_UDP) or (process == "ip" and isinstance(frame, Segment) and frame.proto == Proto.UDP):
        return ("udp-gateway", "up") if process == "gateway" else ("ip-udp", "down")
    seam, kinds = _FROM_BELOW[process]
    if process == "gateway":
        return ("gateway-client", "down") if isinstance(frame, (FromClient, ClientLost)) else (seam, "up")
    return (seam, "up") if isinstance(frame, kinds) else (_FROM_ABOVE[process], "down")


def where_out(process: str, port: str) -> tuple[str, str]:
    """(seam, way) of a frame that the core put out on a port."""
    return SEAMS.get((process, port), (port, ""))
