"""What the parts of one ip core share: tables, the queue toward the neighbours, clock, counters, events."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

from layers.ip.config import IpCoreConfig
from layers.ip.exceptions import PathExceptions
from layers.ip.gateways import DeadGateways
from layers.ip.header import HeaderWriter, Idents
from layers.ip.limits import DestinationLimit, TokenBucket
from layers.ip.membership import Memberships
from layers.ip.ping import Pings
from layers.ip.reassembly import Reassembly
from layers.ip.routing import RoutingTable
from levelip.addressing import addressing
from levelip.frames.packet import Confirmed, FrameIds, IcmpError, LinkState, Local, Packet, Process, Routes, Segment
from levelip.frames.seam import Answer
from levelip.rpc.place import Payload
from levelip.tracing.events import Event
from levelip.tracing.reasons import Reason
from levelip.wire.addr import format_address
from levelip.wire.ipv4 import Ipv4Header, proto_name

MILLISECOND = 1_000_000
MIN_MTU = 68  # bytes: what every link carries (RFC 791 3.2); less is a mistake of whoever told us
LINK = "link"
CONTROL = "control"

Outgoing = Packet | Local | Confirmed | Segment | IcmpError | Routes | Answer


class Cause(NamedTuple):
    """What a message that we make ourselves descends from; `frame` 0: a command or a timer."""

    frame: int
    traced: bool
    ingress: int


class Datagram(NamedTuple):
    """A packet that was accepted: header, and the transport's bytes as head and payload."""

    header: Ipv4Header
    head: bytes
    payload: Payload
    cause: Cause
    group: bool
    """Sent to a broadcast or multicast address, of IP or of the link."""


class Context:
    """Plain attributes; the procedures of ip read and write them, `core` alone talks to the shell."""

    __slots__ = (
        "bucket", "config", "counters", "event_list", "exceptions", "gateways", "headers", "icmp_arrives", "ident",
        "idents", "ids", "interest", "limit", "link", "meant", "members", "mtu", "now", "out", "pings", "queued",
        "reassembly", "rng", "table", "transports",
    )  # fmt: skip

    def __init__(self, config: IpCoreConfig, rng: random.Random, now: int) -> None:
        ip = config.ip
        self.config = config
        self.rng = rng
        self.now = now  # of the frame or command at work
        self.interest = False
        self.counters: dict[str, int] = Counter()
        self.event_list: list[Event] = []
        self.ids = FrameIds(Process.IP, config.epoch)
        self.transports = config.transports
        # toward the neighbours
        self.out: deque[tuple[str, Outgoing]] = deque()
        self.queued = 0  # packets for link in out
        self.link: LinkState | None = None
        self.mtu = config.mtu  # the device's, bytes
        self.icmp_arrives: Callable[[Context, Datagram], None] = _nobody  # for what was looped back; set by the core
        # parts
        self.headers = HeaderWriter()
        self.ident = rng.getrandbits(16)  # of packets with DF
        self.idents = Idents(b"")  # the secret is chosen when it is first needed
        self.bucket = TokenBucket(ip.icmp_rate_per_s, ip.icmp_burst, now)
        self.limit = DestinationLimit(ip.icmp_ratelimit_ms * MILLISECOND)
        self.pings = Pings()
        self.exceptions = PathExceptions()
        self.gateways = DeadGateways()
        self.members = Memberships(rng, ip.igmp_version)
        self.reassembly = Reassembly(
            memory=ip.fragment_memory,
            count=ip.fragments_per_datagram,
            time_ns=ip.fragment_time_ms * MILLISECOND,
        )
        self.use_addresses()

    def use_link(self, link: LinkState) -> None:
        """The device as link tells of it."""
        self.link = link
        self.mtu = max(link.mtu, MIN_MTU)

    def use_addresses(self) -> None:
        """Derive from the configuration what is asked once a packet; raises BadSetting and changes nothing then."""
        self.meant = addressing(self.config.ip)
        self.table = RoutingTable(self.meant)
        for entry in self.exceptions.entries():
            self.table.override(entry.dst, entry.gateway, entry.mtu)
        self.table.pass_over(self.gateways.passed_over())

    def learned(self, changed: list[bytes]) -> None:
        """Something about these destinations changed in `exceptions`."""
        for dst in changed:
            entry = self.exceptions.find(dst)
            self.table.override(dst, entry.gateway if entry else b"", entry.mtu if entry else 0)

    def device_up(self) -> bool:
        """As long as link has not said anything (it starts at the same time as we) the device counts as up."""
        return self.link is None or self.link.up

    # bookkeeping

    def drop(self, reason: Reason, frame: int, **data: Any) -> None:
        """Discard something: counted always, told when somebody listens. Addresses in `data` become text."""
        self.counters[reason.counter] += 1
        if self.interest:
            self.event_list.append(Event(self.now, "drop", reason.name, frame, "", _text(data)))

    def emit(self, kind: str, frame: int, **data: Any) -> None:
        """Tell of a decision when somebody listens."""
        if self.interest:
            self.event_list.append(Event(self.now, kind, "", frame, "", _text(data)))

    def answer(self, token: int, data: dict[str, Any]) -> None:
        """The late answer to a command."""
        self.out.append((CONTROL, Answer(token, data)))


def proto_text(number: int) -> str | int:
    """For events: the protocol's name where it has a well-known one."""
    name = proto_name(number)
    return number if name.startswith("proto ") else name


def _text(data: dict[str, Any]) -> dict[str, Any]:
    return {key: _address_text(value) if isinstance(value, bytes) else value for key, value in data.items()}


def _address_text(address: bytes) -> str:
    """For events, which also tell of addresses that are none."""
    return format_address(address) if len(address) in (4, 16) else address.hex()


def _nobody(_ctx: Context, _datagram: Datagram) -> None:
    raise RuntimeError("the core has not said who takes ICMP")
