"""Frames made for a seam: from a packetdrill line, from fields, from packets of a capture.

    target = Target("ip-tcp", "up", connection=parse_connection("10.0.0.2:80>10.0.0.1:4711"))
    build_line(". 1:1001(1000) ack 1", target)
    build_fields({"tcp.flags.syn": 1, "tcp.window_size_value": 1000}, target)
    build_capture(Path("x.pcapng"), target, numbers=[3])

All bytes of such a frame are inline; its checksums are complete, right or (`[badsum]`) wrong, and it says UNVERIFIED.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from levelip.frames.packet import BROADCAST, Checksum, DeviceFrame, FrameIds, Packet, Process, Segment
from levelip.tracing.capturefile import CaptureError
from levelip.tracing.captures import CapturedPacket, ip_packet, read_capture
from levelip.tracing.edit import edit, resolve
from levelip.tracing.fields import FIELDS
from levelip.tracing.fieldvalues import EditError, parse_value
from levelip.tracing.packetline.builder import Builder, Ends, Injected
from levelip.tracing.packetline.read import PacketLineError, read_packet_line
from levelip.tracing.packetline.values import IcmpPacket, IgmpPacket, OtherPacket, ScriptError, TcpPacket, UdpPacket
from levelip.tracing.pcapng import LINKTYPE_ETHERNET
from levelip.wire.addr import MAC_BROADCAST, format_address, parse_ipv4
from levelip.wire.arp import ArpPacket
from levelip.wire.errors import Malformed
from levelip.wire.ethernet import EthernetHeader, EtherType
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import REPORT_V2, IgmpMessage
from levelip.wire.ipv4 import FLAG_DF, Ipv4Header, Proto
from levelip.wire.tcp import pack_tcp
from levelip.wire.udp import UDP_HEADER_LEN, UdpHeader
from levelip.wire.vnet import COMPLETE

PACKET_SEAMS = ("link", "link-ip", "ip-tcp", "ip-udp")
TTL = 64
"""Of packets that do not say theirs (RFC 1700; Linux)."""
WINDOW = 65_535
"""Of segments that do not say theirs."""


class BuildError(ValueError):
    """A packet that cannot be made, or not for this seam."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Whose packets are made: our end and the peer's, addresses packed. Sequence numbers in a line count from
    `local_isn` and `remote_isn` (0: they are written as on the wire)."""

    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    local_isn: int = 0
    remote_isn: int = 0

    @property
    def name(self) -> str:
        """As events name it."""
        return f"{format_address(self.local)}:{self.local_port}>{format_address(self.remote)}:{self.remote_port}"


def parse_connection(name: str, *, local_isn: int = 0, remote_isn: int = 0) -> Connection:
    """The connection that events name so: "10.0.0.2:80>10.0.0.1:4711", ours first. BuildError else."""
    ends: list[tuple[bytes, int]] = []
    for end in name.replace(" ", "").split(">"):
        address, _, port = end.rpartition(":")
        try:
            if not (port.isdecimal() and int(port) < 65_536):
                raise ValueError(f"{port!r} is no port")
            ends.append((parse_ipv4(address), int(port)))
        except ValueError as error:
            raise BuildError(f"a connection is written LOCAL:PORT>REMOTE:PORT, ours first: {error}") from None
    if len(ends) != 2:
        raise BuildError(f"a connection is written LOCAL:PORT>REMOTE:PORT, ours first; not {name!r}")
    return Connection(*ends[0], *ends[1], local_isn, remote_isn)


@dataclass(slots=True)
class Target:
    """Where frames are to go: the seam, "up" (toward the applications) or "down", and what stands around them there.

    `ethernet`: link frames start with an Ethernet header, from `mac` (our device's) and `peer_mac`. `next_hop`: of
    packets down to link; empty: their destination. `gso_size`: cut TCP payloads larger than this as super-segments
    (0: leave them whole). `ids` mints frame ids.
    """

    seam: str
    direction: str
    connection: Connection | None = None
    ethernet: bool = True
    mac: bytes = bytes(6)
    peer_mac: bytes = MAC_BROADCAST
    next_hop: bytes = b""
    iface: int = 0
    gso_size: int = 0
    now: int = 0
    ids: FrameIds | None = None

    def __post_init__(self) -> None:
        if self.seam not in PACKET_SEAMS:
            raise BuildError(f"packets cross {', '.join(PACKET_SEAMS)}, not {self.seam}")
        if self.direction not in ("up", "down"):
            raise BuildError(f"a direction is up or down, not {self.direction!r}")
        if self.ids is None:
            self.ids = FrameIds(Process.TOOL, 0)

    def next_id(self) -> int:
        assert self.ids is not None
        return self.ids.next()


Frame = DeviceFrame | Packet | Segment


def build_line(text: str, target: Target, *, quotes: bytes | None = None) -> Frame:
    """The frame that a packetdrill line says (docs/packet-scripts.md); its < or > may be left out.

    `quotes`: the IP packet that `[packet(N)]` of an ICMP error quotes. PacketLineError with the place, or BuildError.
    """
    spec, direction = read_packet_line(text)
    if direction and direction != target.direction:
        way = "<, toward the applications" if direction == "up" else ">, toward the network"
        at = len(text) - len(text.lstrip())
        raise PacketLineError(f"the line says {way}; the packet is to go {target.direction}", text, at)
    if spec.ip.ttl is None:
        spec = replace(spec, ip=replace(spec.ip, ttl=TTL))
    connection = target.connection
    needs_ports = isinstance(spec, TcpPacket | UdpPacket) and spec.ports is None
    needs_ends = spec.ip.src is None or spec.ip.dst is None
    if connection is None and (needs_ports or needs_ends):
        what = "ports (`1234 > 80` before the flags)" if needs_ports else "addresses (`[from A, to B]`)"
        raise PacketLineError(f"whose packet is it? Name the connection, or write its {what}", text, 0)
    up = target.direction == "up"
    one = connection or Connection(bytes(4), 0, bytes(4), 0)
    local, remote = (one.local, one.remote) if up else (one.remote, one.local)
    builder = Builder(local, remote, remote)
    ends = Ends(one.local_port, one.remote_port, one.local_isn, one.remote_isn)
    if not up:
        ends = Ends(one.remote_port, one.local_port, one.remote_isn, one.local_isn)
    try:
        return _from_ip(_made(spec, builder, ends, quotes), target, cut=not spec.ip.bad_sum)
    except ScriptError as error:
        raise PacketLineError(error.message, text, max(0, error.column - 1)) from None


def _made(spec: Any, builder: Builder, ends: Ends, quotes: bytes | None) -> Injected:
    if isinstance(spec, TcpPacket):
        return builder.tcp(spec if spec.win is not None else replace(spec, win=WINDOW), ends)
    if isinstance(spec, UdpPacket):
        return builder.udp(spec, ends)
    if isinstance(spec, IcmpPacket):
        return builder.icmp(spec, ends, quotes)
    if isinstance(spec, IgmpPacket):
        return builder.igmp(spec)
    assert isinstance(spec, OtherPacket)
    return builder.other(spec)


def build_fields(
    changes: Mapping[str, Any], target: Target, *, checksums: Literal["mend", "keep"] = "mend"
) -> Frame:
    """A frame with these fields, by the names that edit() takes; its protocol is that of the fields, or ip.proto.

    What is not said: addresses and ports are the connection's, TTL 64, window 65,535, no flags, no payload, ICMP an
    echo request, ARP a request. EditError names the field that is wrong, BuildError what is missing.
    """
    if not changes:
        raise BuildError("there are no fields to make a packet of")
    resolve(changes)  # a wrong one is told before what is missing
    layer = _layer(changes)
    if layer == "arp":
        return edit(_arp(target), changes, checksums=checksums)
    up, one = target.direction == "up", target.connection
    ports = ((one.remote_port, one.local_port) if up else (one.local_port, one.remote_port)) if one else (0, 0)
    source, target_address = _end(changes, "ip.src", one, up), _end(changes, "ip.dst", one, not up)
    if layer == "tcp":
        proto, body = int(Proto.TCP), pack_tcp(*ports, seq=0, ack=0, flags=0, window=WINDOW)
    elif layer == "udp":
        proto, body = int(Proto.UDP), UdpHeader(*ports, UDP_HEADER_LEN, 1).serialize()  # a checksum: to be made
    elif layer == "icmp":
        proto, body = int(Proto.ICMP), IcmpMessage.echo_request(ident=0, sequence=0).serialize(fill_checksum=True)
    elif layer == "igmp":
        proto, body = int(Proto.IGMP), IgmpMessage(REPORT_V2, 0, bytes(4)).serialize(fill_checksum=True)
    elif "ip.proto" in changes:
        proto, body = parse_value(FIELDS["ip.proto"], changes["ip.proto"]), b""
    else:
        raise BuildError("these fields do not say which protocol it is: name one of its fields, or ip.proto")
    flags = FLAG_DF if layer in ("tcp", "udp") else 0
    header = Ipv4Header.build(source, target_address, proto=proto, payload_length=len(body), ttl=TTL, flags=flags)
    data = header.serialize(fill_checksum=True) + body
    return edit(_from_ip(Injected(data, len(data)), target, cut=False), changes, checksums=checksums)


def build_capture(path: Path, target: Target, *, numbers: Collection[int] | None = None) -> Iterator[Frame]:
    """Frames of the packets of a pcap or pcapng file; `numbers`: only these, as Wireshark counts them, from 1.

    Without `numbers` packets that are no IPv4 are passed over (at link all Ethernet frames count). CaptureError for one
    that is asked for and is none, or was cut when it was captured, and for a file that is no capture.
    """
    missing = set(numbers) if numbers is not None else None
    made = 0
    for packet in read_capture(path):
        if missing is not None:
            if packet.number not in missing:
                continue
            missing.discard(packet.number)
        try:
            yield _from_capture(packet, target)
            made += 1
        except CaptureError:
            if numbers is not None:
                raise
        if missing is not None and not missing:
            return
    if missing:
        raise CaptureError(f"{path} has no packet {min(missing)}")
    if not made:
        raise CaptureError(f"there is no packet in {path} that could go to {target.seam}")


def _from_capture(packet: CapturedPacket, target: Target) -> Frame:
    if packet.cut:
        raise CaptureError(f"packet {packet.number} was cut to {len(packet.data)} of {packet.length} bytes")
    if target.seam == "link" and target.ethernet and packet.linktype == LINKTYPE_ETHERNET:
        return DeviceFrame(target.next_id(), [], packet.data, b"", COMPLETE, True)
    data = ip_packet(packet)
    if len(data) < 20:
        raise CaptureError(f"packet {packet.number} is no whole IPv4 packet")
    try:
        return _from_ip(Injected(data, len(data)), target)
    except BuildError as error:
        raise CaptureError(f"packet {packet.number}: {error}") from None


# an IP packet to the frame of a seam


def _from_ip(made: Injected, target: Target, *, cut: bool = True) -> Frame:
    """`cut`: as a super-segment, where its payload is larger than the target's gso_size."""
    data = made.data
    number = target.next_id()
    frame: Frame
    if target.seam == "link":
        prefix = _ethernet(target, EtherType.IPV4) if target.ethernet else b""
        if made.linkcast and prefix:
            prefix = MAC_BROADCAST + prefix[6:]
        head = prefix + data[: made.header]
        frame = DeviceFrame(number, [], head, data[made.header :], COMPLETE, True)
    elif target.seam == "link-ip":
        hop = (target.next_hop or data[16:20]) if target.direction == "down" else b""
        frame = Packet(
            number, [], True, target.now, target.iface, data[: made.header], data[made.header :],
            int(Checksum.UNVERIFIED), 0, hop, BROADCAST if made.linkcast else 0,
        )  # fmt: skip
    else:
        frame = _segment(made, target, number)
    size = made.gso_size or target.gso_size
    if cut and size and data[9] == Proto.TCP and len(frame.payload) > size:
        frame = edit(frame, {"frame.gso_size": size})
    return frame


def _segment(made: Injected, target: Target, number: int) -> Segment:
    try:
        header = Ipv4Header.parse(made.data)
    except Malformed as error:
        raise BuildError(f"between ip and tcp there are segments, and this is none: {error}") from None
    if header.version != 4 or header.is_fragment or not header.length <= header.total_length <= len(made.data):
        raise BuildError("between ip and tcp there are whole segments: this is a fragment, or its lengths lie")
    if header.proto not in (Proto.TCP, Proto.UDP):
        raise BuildError("between ip and tcp there are segments of TCP and UDP only; link-ip takes every packet")
    cut = max(header.length, made.header)
    return Segment(
        number, [], True, target.now, target.iface, header.src, header.dst, header.proto, header.ttl, header.tos,
        made.data[header.length : cut], made.data[cut : header.total_length], int(Checksum.UNVERIFIED), 0,
        header.dont_fragment, BROADCAST if made.linkcast else 0,
    )  # fmt: skip


def _ethernet(target: Target, kind: int) -> bytes:
    source, destination = (target.peer_mac, target.mac) if target.direction == "up" else (target.mac, target.peer_mac)
    return EthernetHeader(destination, source, kind).serialize()


# a packet by its fields


def _layer(changes: Mapping[str, Any]) -> str:
    layers = {name.removeprefix("-").partition(".")[0] for name in changes} & {"tcp", "udp", "icmp", "igmp", "arp"}
    if len(layers) > 1:
        raise BuildError(f"fields of {' and '.join(sorted(layers))} do not stand in one packet")
    return next(iter(layers), "")


def _end(changes: Mapping[str, Any], name: str, one: Connection | None, remote: bool) -> bytes:
    if name in changes:
        value: bytes = parse_value(FIELDS[name], changes[name])
        return value
    if one is None:
        raise BuildError(f"whose packet is it? Name the connection, or say {name}=ADDRESS")
    return one.remote if remote else one.local


def _arp(target: Target) -> DeviceFrame:
    if target.seam != "link" or not target.ethernet:
        raise BuildError("ARP is spoken at link, on Ethernet, only")
    one = target.connection
    up = target.direction == "up"
    ends = ((one.remote, one.local) if up else (one.local, one.remote)) if one else (bytes(4), bytes(4))
    request = ArpPacket.request(sha=target.peer_mac if up else target.mac, spa=ends[0], tpa=ends[1])
    return DeviceFrame(
        target.next_id(), [], _ethernet(target, EtherType.ARP) + request.serialize(), b"", COMPLETE, True
    )  # fmt: skip


__all__ = [
    "BuildError", "CaptureError", "Connection", "EditError", "PacketLineError", "Target", "build_capture",
    "build_fields", "build_line", "parse_connection",
]  # fmt: skip
