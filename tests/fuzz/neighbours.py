"""What the targets of single cores leave out: the words of neighbours, commands of people, IGMP that is right, and
connections whose options change while they carry data."""

from __future__ import annotations

import random
import struct
from typing import Any

from layers.ip.commands import COMMANDS
from layers.ip.config import IpCoreConfig
from layers.ip.core import Core as IpCore
from layers.link.config import LinkCoreConfig
from layers.link.core import LinkCore
from layers.tcp.connection import OPTION_RANGES
from levelip.config import IpConfig, LinkConfig
from levelip.frames.core import BAD_ARGUMENTS, ControlError
from levelip.frames.packet import (
    Confirmed,
    DeviceFrame,
    DeviceState,
    Doubt,
    Groups,
    LinkState,
    Local,
    Packet,
    PathMtu,
    Progress,
    Refused,
    Route,
    Routes,
    Unreachable,
)
from levelip.frames.seam import Connect, GetInfo, Listen, NeighbourDown, NeighbourUp, SetOption, StoreFailed
from levelip.rpc.place import Place
from levelip.wire.addr import format_ipv4
from levelip.wire.igmp import LEAVE, QUERY, REPORT_V1, REPORT_V2, REPORT_V3
from levelip.wire.ipoptions import to_send
from tests.fuzz.driven import (
    ADDRESSES,
    OPERATIONS,
    OUR_MAC,
    OURS,
    ROUTER,
    START,
    THEIR_MAC,
    Driven,
    checksummed,
    ip_packet,
)
from tests.fuzz.reader import Reader

ALL_SYSTEMS, GROUP, OTHER_GROUP = b"\xe0\0\0\1", b"\xef\1\2\3", b"\xef\1\2\4"
MULTICASTS = (ALL_SYSTEMS, GROUP, OTHER_GROUP, b"\xe0\0\0\x02", b"\xe0\0\0\x16", bytes(4))
ALERT = b"\x94\4\0\0"
ROUTES = (
    "0.0.0.0/0 via 10.0.0.254", "0.0.0.0/0 via 10.0.0.1 metric 5", "192.0.2.0/24 via 10.0.0.254 mtu 600",
    "198.51.100.0/24 prohibit", "10.9.0.0/16", "192.0.2.7/32 blackhole", "nonsense", "10.0.0.0/24 via 10.0.0.2",
)  # fmt: skip


def pick(reader: Reader, choices: tuple[Any, ...]) -> Any:
    """One of them."""
    return choices[reader.below(len(choices))]


def ask(driven: Driven, name: str, args: dict[str, Any]) -> None:
    """A command of `lvlip`, which may be refused; the loop tells whoever asked."""
    try:
        driven.core.control(driven.name(), name, args, driven.now)
    except (ControlError, *BAD_ARGUMENTS) as refused:
        assert str(refused)


# ip


def igmp(reader: Reader) -> bytes:
    """A message with its checksum, whole or not: queries of all versions, reports, leaves."""
    kind = pick(reader, (QUERY, QUERY, REPORT_V1, REPORT_V2, LEAVE, REPORT_V3, reader.number()))
    body = struct.pack(">BBH4s", kind, reader.number(), 0, pick(reader, MULTICASTS))
    if reader.below(2):
        sources = reader.below(4)
        body += struct.pack(">BBH", reader.number(), reader.number(), sources) + bytes(4 * sources)
    return checksummed(body[: len(body) - reader.below(3)] if reader.below(8) == 0 else body, 2)


def _igmp_packet(driven: Driven, reader: Reader) -> Packet:
    data, dst = igmp(reader), pick(reader, (ALL_SYSTEMS, GROUP, OTHER_GROUP))
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x46, 0xC0, 24 + len(data), 0, 0, 1 if reader.below(8) else 64, 2, 0, pick(reader, ADDRESSES),
        dst,
    )  # fmt: skip
    packet = checksummed(head + (ALERT if reader.below(8) else b"\1\1\1\0"), 10) + data
    return Packet(driven.name(), [], False, driven.now, 1, packet, b"", 3, 0, b"", reader.below(2))


def _ip_command(driven: Driven, reader: Reader) -> None:
    address = format_ipv4(pick(reader, ADDRESSES + MULTICASTS))
    length = reader.below(34)
    args: dict[str, Any] = {
        "group": format_ipv4(pick(reader, MULTICASTS)), "address": f"{address}/{length}" if length < 33 else address,
        "route": pick(reader, ROUTES), "dst": address, "size": reader.number(2), "ttl": reader.number(),
        "timeout_ms": reader.number(2), "dont_fragment": bool(reader.below(2)),
    }  # fmt: skip
    for _ in range(reader.below(2)):
        args.pop(pick(reader, tuple(args)))
    ask(driven, pick(reader, (*COMMANDS, "nonsense")), args)


def to_ip(reader: Reader, driven: Driven) -> Any:
    """What transports and link say to ip."""
    dst = pick(reader, ADDRESSES)
    match reader.below(8):
        case 0:
            return _igmp_packet(driven, reader)
        case 1:
            return Groups([pick(reader, MULTICASTS[:5]) for _ in range(reader.below(4))])
        case 2:
            header = ip_packet(reader, b"", proto=17, src=dst, dst=pick(reader, ADDRESSES))
            kind, code = reader.below(20), reader.below(16)
            return Refused(driven.name(), kind, code, header, reader.piece(), reader.below(2))
        case 3:
            return PathMtu(dst, reader.number(2), reader.number(3))
        case 4:
            return pick(reader, (Doubt, Progress))(dst)
        case 5:
            return Unreachable(1, dst, ip_packet(reader, reader.piece(), proto=reader.number()), [])
        case 6:
            name, epoch = pick(reader, ("tcp", "udp", "link")), reader.below(4)
            return NeighbourUp(name, epoch) if epoch else NeighbourDown(name)
        case _:
            up, mtu, gso_max = bool(reader.below(4)), reader.number(2), reader.number(2)
            return LinkState(1, "tap0", "tap", up, mtu, gso_max, True, OUR_MAC)


def ip_neighbours(data: bytes) -> None:
    """An ip core: groups, refusals, doubts and path MTUs of transports, commands, IGMP, neighbours that come and go."""
    config = IpCoreConfig(ip=IpConfig(), epoch=7, mtu=1500)
    driven = Driven(IpCore(config, random.Random(1), START), lambda state: IpCore.restore(config, state))
    driven.feed(LinkState(1, "tap0", "tap", True, 1500, 65_535, True, OUR_MAC))
    reader = Reader(data)
    for _ in range(OPERATIONS):
        if not reader:
            break
        match reader.below(8):
            case 0 | 1:
                _ip_command(driven, reader)
            case 2:
                driven.wait(reader)
            case 3:
                driven.flush(reader.below(4))
            case _:
                driven.feed(to_ip(reader, driven))
    driven.finish()


# link


def link_neighbours(data: bytes) -> None:
    """A link core that probes for its addresses (RFC 5227): what ip tells of them and of neighbours, ARP of all kinds,
    commands."""
    reader = Reader(data)
    settings = LinkConfig(acd_probes=reader.below(4), arp_entries=16, arp_queue=3)
    config = LinkCoreConfig(
        epoch=7, device=DeviceState("lvl0", "tap", True, True, 1500, True, 65_535), link=settings, mac=OUR_MAC,
        addresses=[OURS], broadcasts=[b"\xff" * 4, b"\x0a\0\0\xff"],
    )  # fmt: skip
    driven = Driven(LinkCore(config, random.Random(1), START), lambda state: LinkCore.restore(config, state))
    driven.feed(NeighbourUp("ip", 5))
    for _ in range(OPERATIONS):
        if not reader:
            break
        near = b"\x0a\0\0" + bytes([reader.number()])
        match reader.below(8):
            case 0 | 1:
                sender = (THEIR_MAC, OUR_MAC, b"\2\0\0\0\0\3", bytes(6))[reader.below(4)]
                arp = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1 + reader.below(2))
                body = arp + sender + pick(reader, (near, OURS, bytes(4))) + OUR_MAC + pick(reader, (OURS, near))
                to = OUR_MAC if reader.below(2) else b"\xff" * 6
                driven.feed(DeviceFrame(driven.name(), [], to + sender + b"\x08\x06" + body, b""))
            case 2:
                packet = ip_packet(reader, reader.piece(), proto=6, src=OURS, dst=near)
                driven.feed(Packet(driven.name(), [], False, START, 1, packet, b"", 2, 0, near))
            case 3:
                driven.feed(Confirmed(near))
            case 4:
                addresses = [OURS, *(b"\x0a\0\0" + reader.bytes(1).ljust(1, b"\3") for _ in range(reader.below(3)))]
                driven.feed(Local(addresses, [b"\x0a\0\0\xff"], [GROUP] if reader.below(2) else []))
            case 5:
                address = pick(reader, (format_ipv4(near), "nonsense", reader.number()))
                args = {"address": address} if reader.below(4) else {}
                ask(driven, pick(reader, ("neigh", "neigh.flush", "device", "nonsense")), args)
            case 6:
                driven.wait(reader)
            case _:
                driven.feed(DeviceState("lvl0", "tap", True, bool(reader.below(2)), 1500, True, 65_535))
                driven.flush(reader.below(4))
        assert len(driven.core.control(0, "neigh", {}, driven.now)["neighbours"]) <= settings.arp_entries
    driven.finish()


# tcp

OPTION_NAMES = (*OPTION_RANGES, "nonsense")
IP_OPTIONS = tuple(
    to_send(given, privileged=True) or b""
    for given in (b"", bytes.fromhex("07070400000000"), bytes.fromhex("4408050000000000"), b"\1" * 40)
)  # none, record route, timestamps, as long as can be


def from_gateway(reader: Reader, driven: Driven, sock: int) -> Any:
    """What a gateway says of options, and of sockets that are there or not."""
    value = pick(reader, (0, 1, -1, reader.number(), reader.number(2), reader.number(4), 1 << 31))
    options = {pick(reader, OPTION_NAMES): value for _ in range(reader.below(4))}
    match reader.below(8):
        case 0:
            return SetOption(sock, "ip_options", 0, pick(reader, IP_OPTIONS))
        case 1:
            return GetInfo(driven.name(), sock)
        case 2:
            return Connect(sock, "own", pick(reader, ADDRESSES), reader.number(2), options, pick(reader, IP_OPTIONS))
        case 3:
            return Listen(driven.name(), sock, "own", reader.number(), options)
        case 4:
            return StoreFailed(Place("own", reader.below(4) * 65_536, 65_536, 0, 1))
        case 5:
            return pick(reader, (NeighbourUp("gateway", 9 + reader.below(2)), NeighbourDown("gateway")))
        case _:
            return SetOption(sock, pick(reader, OPTION_NAMES), value)


def tcp_operation(reader: Reader, driven: Driven, sock: int) -> None:
    """An option, a command, or routes that refuse."""
    match reader.below(8):
        case 0:
            name = pick(reader, ("10.0.0.2:80>10.0.0.1:1000", "nonsense", reader.number()))
            args = {pick(reader, ("sock", "conn", "key")): pick(reader, (sock, name))}
            ask(driven, pick(reader, ("ss", "conn", "totals", "figures", "nonsense")), args)
        case 1:
            mtu, gso_max, refusal = reader.number(2), reader.number(2), pick(reader, (0, 0, 101, 113))
            via = Route(bytes(4), 0, OURS, mtu, gso_max, refusal)
            driven.feed(Routes([Route(b"\x0a\0\0\0", 24, OURS, 1500, 65_535), via], [OURS, ROUTER]))
        case _:
            driven.feed(from_gateway(reader, driven, sock))


def known(reader: Reader, children: list[int]) -> int:
    """A socket that is there: the one that connects, the listener, or one that was accepted; or none."""
    return pick(reader, (1, 3, *children[-2:], reader.below(6)))
