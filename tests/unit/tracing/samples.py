"""Packets of every kind that the stack knows, and the frames in which they cross its seams."""

from __future__ import annotations

import struct
from typing import Any

from levelip.frames.packet import DeviceFrame, IcmpError, Packet, Segment
from levelip.wire.arp import ArpPacket
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ethernet import EthernetHeader, VlanTag
from levelip.wire.icmp import FRAG_NEEDED, IcmpMessage
from levelip.wire.igmp import GroupRecord, IgmpMessage, IgmpReport
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, Ipv4Header
from levelip.wire.options import TcpOptions
from levelip.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, TcpHeader
from levelip.wire.udp import UdpHeader

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SYN_OPTIONS = TcpOptions(mss=1460, wscale=7, sack_permitted=True, timestamps=(1000, 0)).serialize()
SACK_OPTIONS = TcpOptions(timestamps=(7, 8), sack=((5000, 6000), (7000, 8000))).serialize()
RECORD_ROUTE = bytes((7, 11, 8)) + A + bytes(4) + b"\0"
STAMPS = bytes((68, 12, 9, 0)) + struct.pack(">II", 1234, 0)
ROUTER_ALERT = bytes((148, 4, 0, 0))


def tcp(
    flags: int = ACK, *, seq: int = 100, ack: int = 200, window: int = 502, options: bytes = b"", payload: bytes = b"",
    ports: tuple[int, int] = (4711, 80), urgent: int = 0, reserved: int = 0, ends: tuple[bytes, bytes] = (A, B),
) -> bytes:  # fmt: skip
    """A segment with its checksum, payload included."""
    head = TcpHeader(
        src_port=ports[0], dst_port=ports[1], seq=seq, ack=ack, flags=flags, window=window, urgent=urgent,
        options=options, reserved=reserved,
    ).serialize()  # fmt: skip
    total = internet_checksum(head + payload, pseudo_header_sum(*ends, 6, len(head) + len(payload)))
    return head[:16] + total.to_bytes(2, "big") + head[18:] + payload


def udp(payload: bytes = b"", ports: tuple[int, int] = (5353, 53)) -> bytes:
    head = UdpHeader(*ports, 8 + len(payload)).serialize()
    total = internet_checksum(head + payload, pseudo_header_sum(A, B, 17, len(head) + len(payload)))
    return head[:6] + (total or 0xFFFF).to_bytes(2, "big") + payload


def ip(body: bytes, proto: int = 6, *, ends: tuple[bytes, bytes] = (A, B), **more: Any) -> bytes:
    """An IPv4 packet."""
    header = Ipv4Header.build(*ends, proto=proto, payload_length=len(body), **{"flags": FLAG_DF, "ident": 7, **more})
    return header.serialize(fill_checksum=True) + body


def ethernet(packet: bytes, kind: int = 0x0800, vlan: tuple[VlanTag, ...] = ()) -> bytes:
    return EthernetHeader(MAC_B, MAC_A, kind, vlan).serialize() + packet


def icmp(message: IcmpMessage) -> bytes:
    return message.serialize(fill_checksum=True)


QUOTED = ip(tcp(PSH | ACK, payload=b"x" * 900, ports=(80, 4711), ends=(B, A)), ends=(B, A))[:28]
PACKETS: dict[str, bytes] = {
    "syn": ip(tcp(SYN, ack=0, options=SYN_OPTIONS)),
    "syn-ack": ip(tcp(SYN | ACK, options=SYN_OPTIONS, ports=(80, 4711))),
    "data": ip(tcp(PSH | ACK, payload=b"GET / HTTP/1.0\r\n\r\n"), tos=0x2A),
    "sack": ip(tcp(options=SACK_OPTIONS), ttl=1),
    "fin": ip(tcp(FIN | ACK, seq=0xFFFF_FFFF)),
    "rst": ip(tcp(RST)),
    "urgent": ip(tcp(URG | ACK, urgent=3, payload=b"abcdef")),
    "ecn": ip(tcp(AE | CWR | ECE | ACK, reserved=5), tos=3),
    "unknown options": ip(tcp(options=bytes.fromhex("4b040a0b fd060a0b0c0d 0101"))),
    "experiment": ip(tcp(options=bytes.fromhex("fe06f98901020101 4b040a0b"))),
    "fast open": ip(tcp(SYN, options=bytes.fromhex("220a0102030405060708") + b"\x01\x01")),
    "md5": ip(tcp(options=bytes([19, 18]) + bytes(range(16)) + b"\x01\x01")),
    "udp": ip(udp(b"question"), 17),
    "udp without checksum": ip(UdpHeader(5353, 53, 12).serialize() + b"data", 17),
    "echo": ip(icmp(IcmpMessage.echo_request(ident=77, sequence=5, payload=b"ping")), 1),
    "frag needed": ip(icmp(IcmpMessage.dest_unreachable(FRAG_NEEDED, QUOTED, mtu=1400)), 1),
    "redirect": ip(icmp(IcmpMessage.redirect(1, QUOTED, gateway=bytes((10, 0, 0, 9)))), 1),
    "parameter": ip(icmp(IcmpMessage.parameter_problem(20, QUOTED)), 1),
    "time exceeded": ip(icmp(IcmpMessage.time_exceeded(0, QUOTED)), 1),
    "igmp query": ip(IgmpMessage.query(bytes((224, 1, 2, 3)), sources=(A, B)).serialize(fill_checksum=True), 2,
                     options=ROUTER_ALERT, ttl=1),
    "igmp v2": ip(IgmpMessage(0x16, 0, bytes((224, 1, 2, 3))).serialize(fill_checksum=True), 2),
    "igmp v3": ip(IgmpReport((GroupRecord(4, bytes((224, 1, 2, 3))), GroupRecord(5, bytes((224, 1, 2, 4)), (A, B))))
                  .serialize(fill_checksum=True), 2),
    "first fragment": ip(udp(b"x" * 100)[:48], 17, flags=FLAG_MF),
    "last fragment": ip(b"y" * 60, 17, flags=0, frag_offset=6),
    "record route": ip(tcp(), options=RECORD_ROUTE),
    "timestamps": ip(tcp(), options=STAMPS),
    "other protocol": ip(b"\1\2\3\4", 47),
}  # fmt: skip
"""IPv4 packets, all well formed."""
ARP_REQUEST = ethernet(ArpPacket.request(sha=MAC_A, spa=A, tpa=B).serialize(), 0x0806)
TAGGED = ethernet(PACKETS["data"], vlan=(VlanTag(0x8100, 0x7005), VlanTag(0x8100, 0xA123)))


def headers(packet: bytes) -> int:
    """Where a header split would cut a TCP packet; else 0: all is inline."""
    if len(packet) < 40:
        return 0
    at = (packet[0] & 15) * 4
    return at + (packet[at + 12] >> 2) if packet[9] == 6 and not packet[6] & 0x3F and not packet[7] else 0


def device_frame(data: bytes, *, vnet: bytes = bytes(10), cut: int | None = None) -> DeviceFrame:
    cut = len(data) if cut is None else cut
    return DeviceFrame(6 << 60 | 5, [], data[:cut], data[cut:], vnet)


def packet(data: bytes, *, cut: int | None = None, checksum: int = 3, gso_size: int = 0, **more: Any) -> Packet:
    cut = headers(data) if cut is None else cut
    return Packet(1 << 60 | 5, [6 << 60 | 5], False, 9, 1, data[:cut], data[cut:], checksum, gso_size, **more)


def segment(
    data: bytes, *, checksum: int = 3, gso_size: int = 0, ends: tuple[bytes, bytes] = (A, B), proto: int = 6,
    **more: Any,
) -> Segment:  # fmt: skip
    cut = data[12] >> 2 if proto == 6 else 8
    return Segment(
        2 << 60 | 5, [1 << 60 | 5], False, 9, 1, *ends, proto, 64, 0, data[:cut], data[cut:], checksum, gso_size, **more
    )  # fmt: skip


def icmp_error() -> IcmpError:
    """Fragmentation needed, about a segment from B's port 80 to A."""
    return IcmpError(2 << 60 | 6, [], 3, 4, 1400, bytes((10, 0, 0, 254)), B, A, 6, QUOTED[20:])


def record(
    frame: Any, seam: str = "ip-tcp", process: str = "tcp", direction: str = "in", *, limit: int = 1 << 20
) -> list[Any]:
    """What the tap bus tells of a frame (levelip/ipc/tap.py), as a tool reads it."""
    import msgspec

    from levelip.ipc.tap import _FIELDS, _HEAD_FIELDS

    names = _FIELDS.get(type(frame)) or [name for name in frame.__struct_fields__ if name not in _HEAD_FIELDS]
    payload = getattr(frame, "payload", b"")
    row = [
        1, "f", process, seam, direction, 5, 6, getattr(frame, "id", 0), getattr(frame, "causes", []),
        type(frame).__name__, {name: getattr(frame, name) for name in names}, getattr(frame, "head", b""),
        payload[:limit], len(payload), getattr(frame, "checksum", 0), getattr(frame, "gso_size", 0),
    ]  # fmt: skip
    return msgspec.msgpack.decode(msgspec.msgpack.encode(row), type=list)
