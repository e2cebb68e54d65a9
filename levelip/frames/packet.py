"""Frames on the packet seams, link–ip and ip–tcp, and at the device. What each field means is in docs/frames.md."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

from msgspec import Meta, Struct

from levelip.rpc.place import Payload

Address = Annotated[bytes, Meta(min_length=4, max_length=16)]  # packed: 4 bytes IPv4, 16 bytes IPv6
NextHop = Annotated[bytes, Meta(max_length=16)]  # empty: none
Head = Annotated[bytes, Meta(max_length=65_600)]
U8 = Annotated[int, Meta(ge=0, le=255)]
U16 = Annotated[int, Meta(ge=0, le=65_535)]
U32 = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
IpOptions = Annotated[bytes, Meta(max_length=40)]
Instant = int  # nanoseconds of stack time
FrameId = int  # see FrameIds


class Process(IntEnum):
    """Process codes in frame ids."""

    LINK = 1
    IP = 2
    TCP = 3
    GATEWAY = 4
    UDP = 5
    DEVICE = 6  # link's device port: names what the device hands in
    TOOL = 7  # a debugger or test that injects


class FrameIds(Struct, array_like=True):
    """Mints frame ids: process code (3 bits), low 20 bits of the process's epoch, a counter (40 bits)."""

    process: int
    epoch: int
    counter: int = 0

    def next(self) -> FrameId:
        """A fresh id."""
        self.counter += 1
        return self.process << 60 | (self.epoch & 0xFFFFF) << 40 | self.counter & 0xFF_FFFF_FFFF


def format_frame_id(frame: FrameId) -> str:
    """As people read it: "tcp-3fa21-77"."""
    code = frame >> 60
    name = Process(code).name.lower() if code in Process._value2member_map_ else str(code)
    return f"{name}-{frame >> 40 & 0xFFFFF:05x}-{frame & 0xFF_FFFF_FFFF}"


class Checksum(IntEnum):
    """What is known of a packet's transport checksum."""

    NONE = 0  # there is none, or nobody looked
    PARTIAL = 1  # ours, not yet computed: link or the device completes it
    VERIFIED = 2  # the device vouches for it, or it was verified
    UNVERIFIED = 3  # the receiving layer has to verify it


BROADCAST = 1  # Packet.flags: arrived as link-level broadcast or multicast (RFC 1122 3.2.2, 3.3.6)
PROBE = 2  # Segment.flags, downward: go by the device's MTU, whatever is believed of the path's (IP_PMTUDISC_PROBE)


class Packet(Struct, array_like=True, tag=1):
    """link–ip, either way: one IP packet (or super-packet of `gso_size` pieces) is `head` + `payload`.

    Upward `next_hop` is empty; downward it is the neighbour's address that link resolves.
    """

    id: FrameId
    causes: list[FrameId]
    traced: bool
    ingress: Instant
    iface: int
    head: Head
    payload: Payload
    checksum: U8
    gso_size: U16
    next_hop: NextHop = b""
    flags: U16 = 0


class Segment(Struct, array_like=True, tag=2):
    """ip–transport, either way: one transport segment as on the wire is `head` + `payload`.

    Downward `src` may be left empty only where ip shall choose it. `ttl` 0 downward: the default. `network` is the IP
    header that it came with, for a transport whose refusal quotes it (`Refused`); else empty. `options`: of the IP
    header, in whole words; where they record the way, ip adds itself (RFC 1122 3.2.1.8), in both directions.
    """

    id: FrameId
    causes: list[FrameId]
    traced: bool
    ingress: Instant
    iface: int
    src: Address
    dst: Address
    proto: U8
    ttl: U8
    tos: U8
    head: Head
    payload: Payload
    checksum: U8
    gso_size: U16
    dont_fragment: bool = True
    flags: U16 = 0
    network: Head = b""
    options: IpOptions = b""


class LinkState(Struct, array_like=True, tag=3):
    """link → ip: what the device is and can do; sent when ip comes up and at each change."""

    iface: int
    name: str
    kind: str  # "tap", "tun", "wire"
    up: bool
    mtu: U32
    gso_max: U32  # largest packet, headers included, that link takes at once (0: no segmentation offload)
    checksum_offload: bool
    mac: bytes = b""


class Unreachable(Struct, array_like=True, tag=4):
    """link → ip: `next_hop` did not answer; `head` starts with the IP header and 8 bytes of the packet given up."""

    iface: int
    next_hop: Address
    head: Head
    causes: list[FrameId]


class Local(Struct, array_like=True, tag=9):
    """ip → link: the stack's own addresses (for ARP), what means every host on the link, and the groups joined.

    Sent when link comes up and at each change; replaces what was told before or configured.
    """

    addresses: list[Address]
    broadcasts: list[Address]
    groups: list[Address]


class PathMtu(Struct, array_like=True, tag=10):
    """transport → ip: packets to `dst` may have `mtu` bytes at most, as an ICMP error said that the
    transport found to be about a segment of its own in flight (RFC 5927 7.2).

    ip remembers it for `ms`, after which the transport, too, tries larger ones again; 0: for ip's own time.
    """

    dst: Address
    mtu: U32
    ms: U32 = 0


class Doubt(Struct, array_like=True, tag=11):
    """transport → ip: what goes to `dst` has long had no answer (R1 of RFC 9293 3.8.3): is the way there still good?"""

    dst: Address


class Refused(Struct, array_like=True, tag=14):
    """transport → ip: nobody takes this datagram; its sender hears so by ICMP if that is allowed (RFC 1122 3.2.2).

    `network` is the IP header that it came with, `head` its first bytes; `flags` as they came (BROADCAST: in silence).
    """

    id: FrameId
    icmp_type: U8
    icmp_code: U8
    network: Head
    head: Head
    flags: U16 = 0


class Groups(Struct, array_like=True, tag=15):
    """transport → ip: the multicast groups that its sockets are in; replaces what was told before."""

    groups: list[Address]


class Progress(Struct, array_like=True, tag=12):
    """transport → ip: `dst` has acknowledged new data, so what is sent there arrives (RFC 4861 7.3.1); now and then."""

    dst: Address


class Confirmed(Struct, array_like=True, tag=13):
    """ip → link: what goes by `next_hop` arrives, as a transport knows: the neighbour need not be asked for a while."""

    next_hop: NextHop


class Route(Struct, array_like=True):
    """One row of the table that ip shows to the transports. `errno`: what whoever sends there gets; 0: none."""

    prefix: Address
    length: U8
    source: Address
    mtu: U32
    gso_max: U32  # 0: send MTU-sized segments
    errno: U16 = 0


class InterfaceAddress(Struct, array_like=True):
    """One address of an interface; `broadcast` is empty where there is none."""

    address: Address
    length: U8
    broadcast: bytes


class Interface(Struct, array_like=True):
    """An interface as getifaddrs(3) shows it."""

    index: int
    name: str
    kind: str  # "loopback", "tap", "tun", "wire"
    up: bool
    mtu: U32
    mac: bytes
    addresses: list[InterfaceAddress]


class Way(Struct, array_like=True):
    """A route as a netlink dump shows it; `via` is empty for neighbours, `iface` 0 if it refuses."""

    prefix: Address
    length: U8
    kind: str
    via: bytes
    source: bytes
    metric: U32
    iface: int


class Routes(Struct, array_like=True, tag=5):
    """ip → transport: all routes, and the stack's own addresses; replaces what was told before. Interfaces and ways are
    for programs that ask for them."""

    routes: list[Route]
    addresses: list[bytes]
    interfaces: list[Interface] = []
    ways: list[Way] = []


class IcmpError(Struct, array_like=True, tag=6):
    """ip → transport: an ICMP error (or our own verdict of the same meaning) about a segment that we sent.

    `src` and `dst` are those of the segment, `head` the first bytes of it (at least 8), `mtu` that of RFC 1191 or 0.
    """

    id: FrameId
    causes: list[FrameId]
    icmp_type: U8
    icmp_code: U8
    mtu: U32
    reporter: Address
    src: Address
    dst: Address
    proto: U8
    head: Head


class DeviceFrame(Struct, array_like=True, tag=7):
    """link – device: one frame as on the wire is `head` + `payload`; `vnet` is its virtio header (or empty)."""

    id: FrameId
    causes: list[FrameId]
    head: Head
    payload: Payload
    vnet: Annotated[bytes, Meta(max_length=12)] = b""
    traced: bool = False


class DeviceState(Struct, array_like=True, tag=8):
    """device → link: what the device is and can do; at each change."""

    name: str
    kind: str  # "tap", "tun", "wire"
    ethernet: bool  # frames start with an Ethernet header; else with the IP header
    up: bool
    mtu: U32
    checksum_offload: bool  # finishes checksums itself; if not, link's device port does so in software
    gso_max: U32  # largest super-packet, IP header included, that may be handed over (0: none)


LinkToIp = Packet | LinkState | Unreachable
IpToLink = Packet | Local | Confirmed
IpToTransport = Segment | Routes | IcmpError
TransportToIp = Segment | PathMtu | Doubt | Progress | Refused | Groups
