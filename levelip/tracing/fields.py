"""Every field of a frame by its name: Wireshark's display-filter names, and ours (frame.*, seam, direction).

    fields(frame)      all that a frame has, in packet order
    FIELDS             the table: name → Field
    near(name)         names close to a wrong one

A field may occur several times: an option, or the headers of a packet that an ICMP error quotes. Numbers are as on the
wire: sequence numbers absolute, windows not scaled, fragment offsets in units of 8 bytes; headers' lengths count bytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from levelip.frames.packet import Checksum, format_frame_id
from levelip.tracing.fieldtypes import Field, Kind, alias, fixed, presence
from levelip.tracing.messagefields import MESSAGE_FIELDS, MESSAGES, message_type
from levelip.tracing.optionfields import ICMP_BODY, IGMP_BODY, IP_OPTIONS, TCP_OPTIONS, VLAN
from levelip.tracing.view import Read, View, checksum_state, gso_size, view
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, flags_text

SEAMS = ("link", "link-ip", "ip-tcp", "ip-udp", "tcp-gateway", "udp-gateway", "gateway-client")
DIRECTIONS = ("up", "down")
_N, _F, _A, _M, _B, _T = Kind.NUMBER, Kind.FLAG, Kind.IPV4, Kind.MAC, Kind.BYTES, Kind.TEXT


# what is computed


def _frame_id(found: View) -> Any:
    number = getattr(found.frame, "id", 0)
    return format_frame_id(number) if number else None


def _causes(found: View) -> list[str]:
    return [format_frame_id(one) for one in getattr(found.frame, "causes", None) or ()]


def _checksum(found: View) -> str | None:
    state = checksum_state(found.frame)
    return Checksum(state).name.lower() if state is not None and state in Checksum._value2member_map_ else None


def _pieces(found: View) -> int | None:
    """Packets on the cable that it stands for."""
    if found.size == 0:
        return None
    size, length = gso_size(found.frame), _tcp_len(found)
    return max(1, -(-length // size)) if size and length else 1


def _next_hop(found: View) -> bytes | None:
    return getattr(found.frame, "next_hop", None) or None


def _tcp_len(found: View) -> int | None:
    return found.end - found.body if found.tcp >= 0 and found.body >= 0 else _quoted_tcp_len(found)


def _quoted_tcp_len(found: View) -> int | None:
    """Of a quoted segment, whose body is not looked at."""
    at = found.tcp
    if at < 0 or found.ip < 0 or len(found.data) < at + 13:
        return None
    length = found.end - at - (found.data[at + 12] >> 2 & 0x3C)
    return length if length >= 0 else None


def _tcp_nxtseq(found: View) -> int | None:
    length, at, data = _tcp_len(found), found.tcp, found.data
    if length is None or len(data) < at + 14:
        return None
    seq = int.from_bytes(data[at + 4 : at + 8], "big")
    return (seq + length + (data[at + 13] & SYN != 0) + (data[at + 13] & FIN != 0)) & 0xFFFF_FFFF


def _flags_str(found: View) -> str | None:
    at, data = found.tcp, found.data
    return flags_text((data[at + 12] & 1) << 8 | data[at + 13]) if at >= 0 and len(data) >= at + 14 else None


def _ip_checksum_status(found: View) -> str | None:
    at, data = found.ip, found.data
    if at < 0 or len(data) < at + 20 or len(data) < at + (data[at] & 15) * 4:
        return None
    return "good" if internet_checksum(data[at : at + (data[at] & 15) * 4]) == 0 else "bad"


def _transport_checksum_status(found: View, at: int, proto: int) -> str | None:
    """ "good", "bad", or what the frame says where it cannot be told (PARTIAL: nothing is there yet). VERIFIED is good:
    who vouches for it, as a tap for the host's own packets, leaves the field unfinished (virtio 5.1.6.3.2)."""
    if at < 0 or found.frame is None:
        return None
    state = checksum_state(found.frame)
    if state == Checksum.PARTIAL:
        return "partial"
    if state == Checksum.VERIFIED:
        return "good"
    ends, payload = found.addresses(), found.payload()
    if ends is None or found.body < 0 or len(payload) != found.end - found.body:
        return "unverified"
    data = bytes(found.data[at : found.body]) + payload
    return "good" if internet_checksum(data, pseudo_header_sum(*ends, proto, len(data))) == 0 else "bad"


def _payload_of(layer: str) -> Any:
    def get(found: View) -> bytes | None:
        return found.payload() or None if getattr(found, layer) >= 0 else None

    return get


def _any_payload(found: View) -> bytes | None:
    return found.payload() or None


def _data_len(found: View) -> int | None:
    return found.end - found.body if found.body >= 0 and found.end > found.body else None


def _attribute(name: str) -> Any:
    def get(found: View) -> Any:
        return getattr(found.frame, name, None)

    return get


# the table

_STATUS = ("good", "bad", "unverified", "partial")

_FRAME = [
    Field("seam", _T, "where it was seen", lambda v: v.seam or None, words=lambda: SEAMS),
    Field("direction", _T, "up: toward the applications; down: toward the network", lambda v: v.direction or None,
          words=lambda: DIRECTIONS),
    Field("frame.type", _T, "kind of message between the processes (docs/frames.md)", message_type,
          words=lambda: tuple(MESSAGES)),
    Field("frame.id", _T, "its id, as tcp-3fa21-77", _frame_id),
    Field("frame.causes", _T, "ids of the frames that led to it", _causes, many=True),
    Field("frame.len", _N, "bytes, payload included", lambda v: v.size or None),
    Field("frame.gso_size", _N, "payload bytes of each piece of a super-segment", lambda v: gso_size(v.frame) or None,
          bits=16),
    Field("frame.pieces", _N, "packets on the cable that it stands for", _pieces),
    Field("frame.checksum", _T, "what is known of the transport checksum", _checksum,
          words=lambda: [one.name.lower() for one in Checksum]),
    Field("frame.ingress", _N, "stack time at which it entered the stack, ns", _attribute("ingress")),
    Field("frame.next_hop", _A, "the neighbour to which it goes (link-ip, down)", _next_hop),
]  # fmt: skip

_ETH = [
    presence("eth", "eth", "Ethernet"),
    fixed("eth.dst", _M, "eth", 0, 6, "destination", inner=False),
    fixed("eth.src", _M, "eth", 6, 6, "source", inner=False),
    fixed("eth.type", _N, "eth", 12, 2, "EtherType; a tag's where there is one", inner=False),
    *VLAN,
]
_ARP = [
    presence("arp", "arp", "ARP"),
    fixed("arp.hw.type", _N, "arp", 0, 2, "hardware type, 1: Ethernet", inner=False),
    fixed("arp.proto.type", _N, "arp", 2, 2, "protocol type, 0x0800: IPv4", inner=False),
    fixed("arp.hw.size", _N, "arp", 4, 1, "bytes of a hardware address", inner=False),
    fixed("arp.proto.size", _N, "arp", 5, 1, "bytes of a protocol address", inner=False),
    fixed("arp.opcode", _N, "arp", 6, 2, "1: request, 2: reply", inner=False),
    fixed("arp.src.hw_mac", _M, "arp", 8, 6, "sender's MAC", inner=False),
    fixed("arp.src.proto_ipv4", _A, "arp", 14, 4, "sender's address", inner=False),
    fixed("arp.dst.hw_mac", _M, "arp", 18, 6, "target's MAC", inner=False),
    fixed("arp.dst.proto_ipv4", _A, "arp", 24, 4, "target's address", inner=False),
]
_IP = [
    presence("ip", "ip", "IPv4", held="ip.src"),
    fixed("ip.version", _N, "ip", 0, 1, "4", mask=0xF0),
    fixed("ip.hdr_len", _N, "ip", 0, 1, "bytes of the header", mask=0x0F, scale=4),
    fixed("ip.dsfield", _N, "ip", 1, 1, "DSCP and ECN together (TOS)"),
    fixed("ip.dsfield.dscp", _N, "ip", 1, 1, "DSCP (RFC 2474)", mask=0xFC),
    fixed("ip.dsfield.ecn", _N, "ip", 1, 1, "ECN: 0 not, 1 ECT(1), 2 ECT(0), 3 CE (RFC 3168)", mask=0x03),
    fixed("ip.len", _N, "ip", 2, 2, "total length"),
    fixed("ip.id", _N, "ip", 4, 2, "identification"),
    fixed("ip.flags", _N, "ip", 6, 1, "the three flags", mask=0xE0),
    fixed("ip.flags.rb", _F, "ip", 6, 1, "reserved bit", mask=0x80),
    fixed("ip.flags.df", _F, "ip", 6, 1, "don't fragment", mask=0x40),
    fixed("ip.flags.mf", _F, "ip", 6, 1, "more fragments", mask=0x20),
    fixed("ip.frag_offset", _N, "ip", 6, 2, "fragment offset, in units of 8 bytes", mask=0x1FFF),
    fixed("ip.ttl", _N, "ip", 8, 1, "time to live"),
    fixed("ip.proto", _N, "ip", 9, 1, "protocol: 1 ICMP, 2 IGMP, 6 TCP, 17 UDP"),
    fixed("ip.checksum", _N, "ip", 10, 2, "header checksum"),
    Field("ip.checksum.status", _T, "whether it is right", _ip_checksum_status, words=lambda: _STATUS[:2], inner=True),
    fixed("ip.src", _A, "ip", 12, 4, "source"),
    fixed("ip.dst", _A, "ip", 16, 4, "destination"),
    *IP_OPTIONS,
]
_ICMP = [
    presence("icmp", "icmp", "ICMP", held="icmp.type"),
    fixed("icmp.type", _N, "icmp", 0, 1, "type"),
    fixed("icmp.code", _N, "icmp", 1, 1, "code"),
    fixed("icmp.checksum", _N, "icmp", 2, 2, "checksum"),
    *ICMP_BODY,
]
_IGMP = [
    presence("igmp", "igmp", "IGMP"),
    fixed("igmp.type", _N, "igmp", 0, 1, "type"),
    fixed("igmp.checksum", _N, "igmp", 2, 2, "checksum"),
    *IGMP_BODY,
]


def _flag(name: str, bit: int, title: str) -> Field:
    return fixed(f"tcp.flags.{name}", _F, "tcp", 12, 2, title, mask=bit)


_TCP = [
    presence("tcp", "tcp", "TCP"),
    fixed("tcp.srcport", _N, "tcp", 0, 2, "source port"),
    fixed("tcp.dstport", _N, "tcp", 2, 2, "destination port"),
    fixed("tcp.seq", _N, "tcp", 4, 4, "sequence number, absolute (Wireshark's tcp.seq_raw)"),
    fixed("tcp.ack", _N, "tcp", 8, 4, "acknowledgment number, absolute (Wireshark's tcp.ack_raw)"),
    fixed("tcp.hdr_len", _N, "tcp", 12, 1, "bytes of the header", mask=0xF0, scale=4),
    fixed("tcp.flags", _N, "tcp", 12, 2, "all twelve bits", mask=0x0FFF),
    fixed("tcp.flags.res", _N, "tcp", 12, 1, "the three reserved bits", mask=0x0E),
    _flag("ae", AE, "accurate ECN (RFC 9768)"),
    _flag("cwr", CWR, "congestion window reduced"),
    _flag("ece", ECE, "ECN echo"),
    _flag("urg", URG, "urgent"),
    _flag("ack", ACK, "acknowledgment"),
    _flag("push", PSH, "push"),
    _flag("reset", RST, "reset"),
    _flag("syn", SYN, "synchronize"),
    _flag("fin", FIN, "no more data"),
    Field("tcp.flags.str", _T, "the flags as tcpdump writes them: S, S., P., F.", _flags_str, inner=True),
    fixed("tcp.window_size_value", _N, "tcp", 14, 2, "window, not scaled"),
    fixed("tcp.checksum", _N, "tcp", 16, 2, "checksum"),
    Field("tcp.checksum.status", _T, "whether it is right",
          lambda v: _transport_checksum_status(v, v.tcp, 6), words=lambda: _STATUS, payload=True),
    fixed("tcp.urgent_pointer", _N, "tcp", 18, 2, "urgent pointer"),
    Field("tcp.len", _N, "payload bytes; of a super-segment the whole", _tcp_len, inner=True),
    Field("tcp.nxtseq", _N, "the sequence number after it", _tcp_nxtseq, bits=32, inner=True),
    *TCP_OPTIONS,
    Field("tcp.payload", _B, "payload", _payload_of("tcp"), payload=True),
]  # fmt: skip
_UDP = [
    presence("udp", "udp", "UDP"),
    fixed("udp.srcport", _N, "udp", 0, 2, "source port"),
    fixed("udp.dstport", _N, "udp", 2, 2, "destination port"),
    fixed("udp.length", _N, "udp", 4, 2, "bytes with the header"),
    fixed("udp.checksum", _N, "udp", 6, 2, "checksum"),
    Field("udp.checksum.status", _T, "whether it is right",
          lambda v: _transport_checksum_status(v, v.udp, 17), words=lambda: _STATUS, payload=True),
    Field("udp.payload", _B, "payload", _payload_of("udp"), payload=True),
]  # fmt: skip
_DATA = [
    Field("data", _B, "what the innermost protocol carries", _any_payload, payload=True),
    Field("data.len", _N, "bytes of it", _data_len),
]

FIELDS: dict[str, Field] = {
    one.name: one for one in [*_FRAME, *_ETH, *_ARP, *_IP, *_ICMP, *_IGMP, *_TCP, *_UDP, *_DATA, *MESSAGE_FIELDS]
}
"""All fields of packets, in packet order; then those that stand for two."""
ALIASES: dict[str, Field] = {
    one.name: one
    for one in (
        alias("eth.addr", [FIELDS["eth.src"], FIELDS["eth.dst"]], "source or destination"),
        alias("ip.addr", [FIELDS["ip.src"], FIELDS["ip.dst"]], "source or destination"),
        alias("tcp.port", [FIELDS["tcp.srcport"], FIELDS["tcp.dstport"]], "source or destination port"),
        alias("udp.port", [FIELDS["udp.srcport"], FIELDS["udp.dstport"]], "source or destination port"),
        alias("tcp.seq_raw", [FIELDS["tcp.seq"]], "as tcp.seq"),
        alias("tcp.ack_raw", [FIELDS["tcp.ack"]], "as tcp.ack"),
        alias("data.data", [FIELDS["data"]], "as data"),
    )
}
FIELDS |= ALIASES


@dataclass(frozen=True, slots=True)
class FieldValue:
    """One occurrence. `offset` and `length` in bytes: where it lies in the frame (-1, 0: in no one place)."""

    name: str
    value: Any
    offset: int = -1
    length: int = 0
    quoted: bool = False


def fields(
    frame: Any, *, seam: str = "", direction: str = "", read: Read | None = None, aliases: bool = False
) -> dict[str, Any]:
    """Every field that a frame has, in packet order: numbers, bools, bytes, addresses as text; a list where it occurs
    several times. Without `read` a payload in shared memory is left out. `aliases`: ip.addr and the like too."""
    return fields_of_view(view(frame, seam, direction, read=read), aliases=aliases)


def fields_of_view(found: View, *, aliases: bool = False) -> dict[str, Any]:
    """The same of a view."""
    result: dict[str, Any] = {}
    for name, field in FIELDS.items():
        if field.alias and not aliases:
            continue
        values = [field.show(value) for value in field.values(found)]
        if values:
            result[name] = values[0] if len(values) == 1 else values
    return result


def field_values(found: View) -> list[FieldValue]:
    """Every occurrence of every field, with its place in the frame: what a tree beside a hex dump needs."""
    rows: list[FieldValue] = []
    one: View | None = found
    quoted = False
    while one is not None:
        for name, field in FIELDS.items():
            if field.alias or (quoted and not field.inner):
                continue
            if field.find is not None:
                rows += [FieldValue(name, field.show(value), at, size, quoted) for value, at, size in field.find(one)]
                continue
            value = field.get(one)
            if value is None:
                continue
            offset, length = -1, 0
            if field.place is not None and getattr(one, field.place.layer) >= 0:
                offset, length = getattr(one, field.place.layer) + field.place.offset, field.place.size
            elif field.payload and isinstance(value, bytes):
                offset, length = one.body, len(value)
            for single in value if field.many else [value]:
                rows.append(FieldValue(name, field.show(single), offset, length, quoted))
        one, quoted = one.quoted, True
    return rows


def near(name: str, names: Sequence[str]) -> list[str]:
    """Up to three of `names` that `name` may have been meant to be, best first."""
    by_lower = {one.lower(): one for one in names}
    lowered = name.lower()
    found = difflib.get_close_matches(lowered, list(by_lower), n=3, cutoff=0.6)
    if not found:  # a last part that exists: "flags.syn", "window_size"
        tail = lowered.rpartition(".")[2]
        found = [one for one in by_lower if tail and tail in one.rpartition(".")[2]][:3]
    return [by_lower[one] for one in found]
