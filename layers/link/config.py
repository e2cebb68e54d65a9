"""What the link core must be told: plain data, so that a snapshot or a recording needs nothing else."""

from __future__ import annotations

from msgspec import Struct, field

from levelip.config import LinkConfig
from levelip.frames.packet import DeviceState
from levelip.wire.addr import LIMITED_BROADCAST

TUNABLES = (
    "arp_reachable_ms",
    "arp_delay_ms",
    "arp_locktime_ms",
    "arp_retry_ms",
    "arp_retries",
    "arp_entries",
    "arp_queue",
    "acd_probes",
    "acd_probe_wait_ms",
    "acd_probe_min_ms",
    "acd_probe_max_ms",
    "acd_announce_wait_ms",
    "acd_announcements",
    "acd_announce_interval_ms",
    "acd_defend_interval_ms",
    "device_queue",
)
"""Keys of [link] that a running core takes; the others concern the shell."""


class LinkCoreConfig(Struct):
    """The core's configuration.

    `mac`: the stack's, 6 bytes; empty where the device has no Ethernet. `addresses`: the stack's own IPv4 addresses,
    for which ARP answers. `broadcasts`: next hops that mean every host on the link, besides 255.255.255.255.
    What the device can do comes with `device`, its first state.
    """

    epoch: int
    device: DeviceState
    link: LinkConfig
    mac: bytes = b""
    addresses: list[bytes] = []
    broadcasts: list[bytes] = field(default_factory=lambda: [LIMITED_BROADCAST])
    iface: int = 1
