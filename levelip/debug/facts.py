"""A record of the tap bus read once: which packet, on which seam and way, of which connection, with which headers.

What `journeys` and `why` work on. Reading never fails: headers that are torn leave their fields empty.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from levelip.debug.tap import (
    FIELDS,
    GSO,
    HEAD,
    LENGTH,
    PAYLOAD,
    PROCESS,
    SEAM,
    TYPE,
    Record,
    goes_up,
)
from levelip.frames.packet import format_frame_id
from levelip.tracing.dissect import Describer, looks_like_ip
from levelip.wire import icmp
from levelip.wire.addr import format_address, format_mac
from levelip.wire.arp import ArpPacket
from levelip.wire.errors import Malformed
from levelip.wire.icmp import IcmpMessage
from levelip.wire.options import TcpOptions, parse_options
from levelip.wire.tcp import ACK, FIN, RST, SYN, flags_text

TCP, UDP, ICMP = 6, 17, 1
BRINGS = ("Send", "Data")
"""Messages that bring bytes of a stream."""
MESSAGES = frozenset({
    "Connect", "Connected", "Incoming", "Send", "Data", "Consumed", "Eof", "Reset", "Close", "Request", "Reply",
})  # fmt: skip
"""Those that a packet leads to, or that lead to one."""
DATAGRAMS = frozenset({"SendDatagram", "SendTo", "Datagram", "DatagramIn", "TookDatagrams", "Failed", "DatagramError"})
"""The same of datagrams. Between udp and gateway they have frame ids; toward the client they have none."""
TALK = ("tcp-gateway", "udp-gateway", "gateway-client")
"""Seams at which messages pass, and no packets."""
_TCP = struct.Struct(">HHIIHHHH")
_NO_OPTIONS = TcpOptions()
_ETHERNET = 14


@dataclass(slots=True)
class Fact:
    """One frame at one seam. Addresses are text; `length`: bytes of transport payload (TCP) or behind the IP header.

    Of a message between tcp, gateway and client there are `sock` (0: no such message), and of a stream's `offset` and
    `length`: which bytes it brings or is about; an Eof's and a Consumed's `offset` is where they end. A datagram's
    `offset` is what its socket was charged so far (docs/rpc.md).
    `conn`: as events name it, "10.0.0.2:80>10.0.0.1:4711", our side first; empty where there are no ports.
    """

    record: Record = field(repr=False)
    process: str
    seam: str
    direction: str
    up: bool
    mono: int
    stack: int
    id: int
    causes: list[int]
    type: str
    src: str = ""
    dst: str = ""
    proto: int = -1
    ttl: int = 0
    ident: int = 0
    dont_fragment: bool = False
    ip_length: int = 0  # of each packet, without link header; of a super-packet the largest piece
    sport: int = 0
    dport: int = 0
    seq: int = 0
    ack: int = 0
    flags: int = -1
    window: int = 0
    length: int = 0
    options: TcpOptions = _NO_OPTIONS
    checksum: int = 0
    eth_src: str = ""
    eth_dst: str = ""
    arp: ArpPacket | None = None
    icmp: IcmpMessage | None = None
    conn: str = ""
    sock: int = 0
    offset: int = 0

    @property
    def name(self) -> str:
        """ "tcp-3fa21-77"; of a message, which has no id, "Data 0:1448 of socket 5"."""
        if self.id or not self.sock:
            return format_frame_id(self.id)
        op = self.record[FIELDS].get("op", "") if self.type == "Request" else ""
        what = op or self.type
        if self.type in BRINGS:
            what += f" {self.offset}:{self.end}"
        elif self.type in ("Consumed", "Eof"):
            what += f" {self.offset}"
        number = f"{'tcp-' if self.sock >> 62 else ''}{self.sock & 0xFFFF_FFFF}"  # the rest is the epoch
        return f"{what} of socket {number}"

    @property
    def end(self) -> int:
        """Where the bytes of a stream's message end."""
        return self.offset + self.length

    @property
    def is_tcp(self) -> bool:
        """Whether there is a whole TCP header."""
        return self.flags >= 0

    @property
    def syn(self) -> bool:
        return self.flags >= 0 and bool(self.flags & SYN)

    @property
    def fin(self) -> bool:
        return self.flags >= 0 and bool(self.flags & FIN)

    @property
    def rst(self) -> bool:
        return self.flags >= 0 and bool(self.flags & RST)

    @property
    def has_ack(self) -> bool:
        return self.flags >= 0 and bool(self.flags & ACK)

    @property
    def room(self) -> int:
        """Sequence numbers that it takes: data, SYN and FIN."""
        return self.length + self.syn + self.fin

    @property
    def letters(self) -> str:
        """tcpdump's flags."""
        return flags_text(self.flags) if self.flags >= 0 else ""

    def text(self) -> str:
        """tcpdump's line, absolute sequence numbers."""
        one = self.record
        return Describer(absolute=True).describe(
            one[SEAM], one[TYPE], one[FIELDS], one[HEAD], one[PAYLOAD], one[LENGTH], one[GSO]
        )


def fact(record: Record) -> Fact:
    """The facts of a frame's record."""
    process, seam, direction, stack, mono, id_, causes, type_ = record[PROCESS : TYPE + 1]
    one = Fact(
        record, process, seam, direction, goes_up(process, seam, direction), mono, stack, id_, list(causes), type_
    )
    head, length = record[HEAD], record[LENGTH]
    whole = head + record[PAYLOAD] if len(head) < 94 else head
    match type_:
        case "DeviceFrame":
            _device(one, whole, len(head) + length)
        case "Packet":
            _ip(one, whole, len(head) + length)
        case "Segment":
            fields = record[FIELDS]
            one.src, one.dst = _address(fields.get("src")), _address(fields.get("dst"))
            one.proto, one.ttl = fields.get("proto", -1), fields.get("ttl", 0)
            one.dont_fragment = bool(fields.get("dont_fragment", False))
            _transport(one, whole, len(head) + length, 20)
        case "IcmpError":
            _quoted(one, record[FIELDS], head)
        case _ if seam in TALK:
            _message(one, record[FIELDS], length)
    return one


def _message(one: Fact, fields: dict[str, Any], length: int) -> None:
    sock = fields.get("sock", 0)
    if one.type == "Reply":  # of accept
        data = fields.get("data")
        sock = data.get("sock", 0) if isinstance(data, dict) else 0
    offset = fields.get("offset", fields.get("at", fields.get("upto", 0)))
    length = fields.get("length", 0) if one.type == "Send" else length
    if one.type in MESSAGES | DATAGRAMS and all(isinstance(number, int) for number in (sock, offset, length)):
        one.sock, one.offset, one.length = sock, offset, length


@lru_cache(65_536)
def _text(address: bytes) -> str:
    return format_address(address)


def _address(value: Any) -> str:
    if isinstance(value, str):  # a trace that was read back
        value = bytes.fromhex(value)
    return _text(value) if isinstance(value, bytes) and len(value) in (4, 16) else ""


def _device(one: Fact, data: bytes, length: int) -> None:
    if looks_like_ip(data, length):
        _ip(one, data, length)
        return
    if len(data) < _ETHERNET:
        return
    one.eth_dst, one.eth_src = format_mac(data[:6]), format_mac(data[6:12])
    kind = data[12:14]
    if kind == b"\x08\x00":
        _ip(one, data[_ETHERNET:], length - _ETHERNET)
    elif kind == b"\x08\x06":
        try:
            one.arp = ArpPacket.parse(data[_ETHERNET:])
        except Malformed:
            return
        one.src, one.dst = format_address(one.arp.spa), format_address(one.arp.tpa)


def _ip(one: Fact, data: bytes, length: int) -> None:
    if len(data) < 20 or data[0] >> 4 != 4:
        return
    start = (data[0] & 15) * 4
    total, one.ident, offset = struct.unpack_from(">HHH", data, 2)
    one.ttl, one.proto = data[8], data[9]
    one.src, one.dst = _text(data[12:16]), _text(data[16:20])
    one.dont_fragment = bool(offset & 0x4000)
    if one.record[GSO] or total > length or not total:
        total = length
    if offset & 0x3FFF & ~0x2000:  # not the first fragment
        one.ip_length, one.length = total, total - start
        return
    _transport(one, data[start:], total - start, start)


def _transport(one: Fact, data: bytes, length: int, ip_header: int) -> None:
    gso = one.record[GSO]
    if not gso and one.type == "DeviceFrame":
        vnet = one.record[FIELDS].get("vnet", b"")
        vnet = bytes.fromhex(vnet) if isinstance(vnet, str) else vnet
        gso = int.from_bytes(vnet[4:6], "little") if len(vnet) >= 10 and vnet[1] else 0
    one.length, one.ip_length = length, ip_header + length
    if one.proto == TCP and len(data) >= 20:
        one.sport, one.dport, one.seq, one.ack, word, one.window, one.checksum, _ = _TCP.unpack_from(data)
        start = (word >> 12) * 4
        if not 20 <= start <= length:
            return
        one.flags, one.length = word & 0x1FF, length - start
        one.ip_length = ip_header + start + (min(gso, one.length) if gso else one.length)
        if start > 20 and len(data) >= start:
            one.options = parse_options(data[20:start], strict=False)
        one.conn = (
            f"{one.dst}:{one.dport}>{one.src}:{one.sport}" if one.up else f"{one.src}:{one.sport}>{one.dst}:{one.dport}"
        )
    elif one.proto == UDP and len(data) >= 4:
        one.sport, one.dport = struct.unpack_from(">HH", data)
    elif one.proto == ICMP:
        try:
            one.icmp = IcmpMessage.parse(data[:length])
        except Malformed:
            return
        if one.icmp.type in (icmp.DEST_UNREACH, icmp.TIME_EXCEEDED) and len(one.icmp.payload) >= 28:
            one.conn = _conn_of(one.icmp.payload, one.up)


def _conn_of(quoted: bytes, ours: bool) -> str:
    """The connection that an ICMP error quotes; an error that comes to us quotes what we sent."""
    start = (quoted[0] & 15) * 4
    if quoted[9] != TCP or len(quoted) < start + 4:
        return ""
    src, dst = format_address(quoted[12:16]), format_address(quoted[16:20])
    sport, dport = struct.unpack_from(">HH", quoted, start)
    return f"{src}:{sport}>{dst}:{dport}" if ours else f"{dst}:{dport}>{src}:{sport}"


def _quoted(one: Fact, fields: dict[str, Any], head: bytes) -> None:
    one.src, one.dst = _address(fields.get("src")), _address(fields.get("dst"))
    if fields.get("proto") == TCP and len(head) >= 4:
        sport, dport = struct.unpack_from(">HH", head)
        one.conn = f"{one.src}:{sport}>{one.dst}:{dport}"
