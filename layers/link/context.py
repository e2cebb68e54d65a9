"""What the parts of one link core share: device, addresses, neighbours, queues both ways, clock, counters, events."""

from __future__ import annotations

import random
from collections import defaultdict

import msgspec

from layers.link.arp import ArpCache
from layers.link.claim import Claim
from layers.link.config import LinkCoreConfig
from levelip.frames.packet import DeviceFrame, FrameIds, LinkState, Packet, Process, Unreachable
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.wire.addr import LIMITED_BROADCAST
from levelip.wire.ethernet import EtherType

ToIp = Packet | LinkState | Unreachable
TYPE_IPV4 = EtherType.IPV4.to_bytes(2, "big")
_MULTICAST_PREFIX = b"\x01\x00\x5e"  # RFC 1112 6.4


class Context:
    """Plain attributes; the procedures of link read and write them, `core` alone talks to the shell."""

    __slots__ = (
        "added", "addresses", "arp", "broadcasts", "claim", "config", "counters", "device", "down", "ethernet",
        "event_list", "from_ipv4", "group_macs", "groups", "ids", "interest", "ip_up", "link", "mac", "now", "rng",
        "unclaimed", "up", "usable",
    )  # fmt: skip

    def __init__(self, config: LinkCoreConfig, rng: random.Random, now: int) -> None:
        if config.device.ethernet and len(config.mac) != 6:
            raise ValueError("an Ethernet device needs a MAC address of 6 bytes")
        self.config = config
        self.link = msgspec.structs.replace(config.link)  # the settings as they are now
        self.rng = rng
        self.now = now  # of the frame or command at work
        self.interest = False
        self.counters: dict[str, int] = defaultdict(int)
        self.event_list: list[Event] = []
        self.ids = FrameIds(Process.LINK, config.epoch)
        self.device = config.device
        self.ethernet = config.device.ethernet
        self.mac = config.mac
        self.from_ipv4 = config.mac + TYPE_IPV4  # the rest of an Ethernet header, behind the destination
        # what ip told, or the configuration: our addresses, and what of the rest concerns us
        self.ip_up = False
        self.addresses = set(config.addresses)
        self.broadcasts = {LIMITED_BROADCAST, *config.broadcasts}
        self.groups: list[bytes] | None = None  # joined; None: ip has not told, so all pass
        self.group_macs: set[bytes] = set()
        # parts
        self.arp = ArpCache(self.link, rng)
        self.claim = Claim()
        self.added: dict[bytes, Claim] = {}  # addresses that came while the device was up, until all is said of them
        # what the device and the claims come to
        self.usable = False  # the device is up, and our addresses are ours
        self.unclaimed: frozenset[bytes] = frozenset()  # those of `added` that are not ours yet
        # toward the neighbours
        self.up: list[tuple[str, ToIp]] = []
        self.down: list[tuple[str, DeviceFrame]] = []

    def use_groups(self, groups: list[bytes]) -> None:
        """Let no other groups pass from here on."""
        self.groups = groups
        self.group_macs = {group_mac(group) for group in groups if len(group) == 4}

    def see_usable(self) -> None:
        """The device or a claim has changed."""
        self.usable = self.device.up and self.claim.owned
        self.unclaimed = frozenset(address for address, claim in self.added.items() if not claim.owned)

    def drop(self, reason: Reason, frame: int, *, detail: str = "") -> None:
        """Discard something: counted always, told when somebody listens."""
        self.counters[reason.counter] += 1
        if self.interest:
            data = {"detail": detail} if detail else {}
            self.event_list.append(Event(self.now, "drop", reason.name, frame, data=data))

    def drop_unusable(self, frame: int) -> None:
        """Discard what cannot go out now: the device is down, or the address is not ours yet."""
        self.drop(reasons.DEVICE_DOWN if not self.device.up else reasons.ARP_UNCLAIMED, frame)


def group_mac(group: bytes) -> bytes:
    """The Ethernet address of an IPv4 multicast group: its low 23 bits (RFC 1112 6.4)."""
    return _MULTICAST_PREFIX + bytes((group[1] & 0x7F, group[2], group[3]))
