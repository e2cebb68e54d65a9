"""A frame as a tree of fields, each with the bytes that say it, for the page's two panes: dissection and hex.

Names are Wireshark's display-filter names, so that a field can be clicked into the filter. What is cut short or
malformed shows as far as it goes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from levelip.debug.tap import (
    CAUSES,
    CHECKSUM,
    DIRECTION,
    FIELDS,
    GSO,
    HEAD,
    ID,
    LENGTH,
    PAYLOAD,
    PROCESS,
    SEAM,
    STACK,
    Record,
)
from levelip.debug.tap import TYPE as TYPE_
from levelip.frames.packet import Checksum, format_frame_id
from levelip.tracing.dissect import looks_like_ip
from levelip.wire.addr import format_address
from levelip.wire.ethernet import ethertype_name
from levelip.wire.icmp import icmp_name
from levelip.wire.ipv4 import proto_name
from levelip.wire.tcp import flags_text

Field = dict[str, Any]
_Format = Callable[[bytes], str]


def _number(data: bytes) -> str:
    return str(int.from_bytes(data, "big"))


def _hexadecimal(data: bytes) -> str:
    return f"0x{data.hex()}"


def _mac(data: bytes) -> str:
    return data.hex(":")


def _ip_flags(data: bytes) -> str:
    bits = data[0] >> 5
    return "".join(name for bit, name in ((4, "R "), (2, "DF "), (1, "MF ")) if bits & bit).strip() or "none"


def _tcp_flags(data: bytes) -> str:
    return flags_text(int.from_bytes(data, "big") & 0x1FF)


_ETHERNET: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("eth.dst", "Destination", 0, 6, _mac),
    ("eth.src", "Source", 6, 6, _mac),
    ("eth.type", "Type", 12, 2, lambda d: f"{ethertype_name(int.from_bytes(d, 'big'))} (0x{d.hex()})"),
)
_ARP: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("arp.hw.type", "Hardware type", 0, 2, _number),
    ("arp.proto.type", "Protocol type", 2, 2, _hexadecimal),
    ("arp.opcode", "Opcode", 6, 2, lambda d: {1: "request (1)", 2: "reply (2)"}.get(d[1], _number(d))),
    ("arp.src.hw_mac", "Sender MAC", 8, 6, _mac),
    ("arp.src.proto_ipv4", "Sender IP", 14, 4, format_address),
    ("arp.dst.hw_mac", "Target MAC", 18, 6, _mac),
    ("arp.dst.proto_ipv4", "Target IP", 24, 4, format_address),
)
_IPV4: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("ip.version", "Version", 0, 1, lambda d: str(d[0] >> 4)),
    ("ip.hdr_len", "Header length", 0, 1, lambda d: f"{(d[0] & 15) * 4} bytes"),
    ("ip.dsfield.dscp", "DSCP", 1, 1, lambda d: str(d[0] >> 2)),
    ("ip.dsfield.ecn", "ECN", 1, 1, lambda d: ("Not-ECT", "ECT(1)", "ECT(0)", "CE")[d[0] & 3]),
    ("ip.len", "Total length", 2, 2, _number),
    ("ip.id", "Identification", 4, 2, _hexadecimal),
    ("ip.flags", "Flags", 6, 1, _ip_flags),
    ("ip.frag_offset", "Fragment offset", 6, 2, lambda d: str((int.from_bytes(d, "big") & 0x1FFF) * 8)),
    ("ip.ttl", "Time to live", 8, 1, _number),
    ("ip.proto", "Protocol", 9, 1, lambda d: f"{proto_name(d[0])} ({d[0]})"),
    ("ip.checksum", "Header checksum", 10, 2, _hexadecimal),
    ("ip.src", "Source", 12, 4, format_address),
    ("ip.dst", "Destination", 16, 4, format_address),
)
_TCP: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("tcp.srcport", "Source port", 0, 2, _number),
    ("tcp.dstport", "Destination port", 2, 2, _number),
    ("tcp.seq", "Sequence number", 4, 4, _number),
    ("tcp.ack", "Acknowledgment number", 8, 4, _number),
    ("tcp.hdr_len", "Header length", 12, 1, lambda d: f"{(d[0] >> 4) * 4} bytes"),
    ("tcp.flags", "Flags", 12, 2, _tcp_flags),
    ("tcp.window_size_value", "Window", 14, 2, _number),
    ("tcp.checksum", "Checksum", 16, 2, _hexadecimal),
    ("tcp.urgent_pointer", "Urgent pointer", 18, 2, _number),
)
_UDP: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("udp.srcport", "Source port", 0, 2, _number),
    ("udp.dstport", "Destination port", 2, 2, _number),
    ("udp.length", "Length", 4, 2, _number),
    ("udp.checksum", "Checksum", 6, 2, _hexadecimal),
)
_ICMP: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("icmp.type", "Type", 0, 1, _number),
    ("icmp.code", "Code", 1, 1, _number),
    ("icmp.checksum", "Checksum", 2, 2, _hexadecimal),
)
_IGMP: tuple[tuple[str, str, int, int, _Format], ...] = (
    ("igmp.type", "Type", 0, 1, _hexadecimal),
    ("igmp.checksum", "Checksum", 2, 2, _hexadecimal),
)


def dissect(record: Record) -> dict[str, Any]:
    """{"layers": [{"title", "at", "fields": [{"name", "label", "value", "at": [from, to] or None}]}], "bytes": hex,
    "length": of the whole frame}. `bytes` may be fewer than `length`: the publisher cut them."""
    data: bytes = record[HEAD] + record[PAYLOAD]
    layers = [_frame(record)]
    kind = record[TYPE_]
    if kind == "Segment":
        layers.append(_beside(record[FIELDS]))
        _transport(layers, data, 0, record[FIELDS]["proto"], len(record[HEAD]) + record[LENGTH])
    elif kind == "Packet":
        _ipv4(layers, data, 0)
    elif kind == "DeviceFrame":
        if looks_like_ip(data, len(record[HEAD]) + record[LENGTH]):
            _ipv4(layers, data, 0)
        else:
            _ethernet(layers, data)
    else:
        layers.append({"title": kind, "at": None, "fields": _plain_fields(record[FIELDS])})
    return {"layers": layers, "bytes": data.hex(), "length": len(record[HEAD]) + record[LENGTH]}


def _frame(record: Record) -> dict[str, Any]:
    def field(name: str, label: str, value: str) -> Field:
        return {"name": name, "label": label, "value": value, "at": None}

    fields = [
        field("seam", "Seam", record[SEAM]),
        field("", "Seen by", f"{record[PROCESS]}, {'coming in' if record[DIRECTION] == 'in' else 'going out'}"),
        field("frame.len", "Length", str(len(record[HEAD]) + record[LENGTH])),
    ]
    if record[ID]:
        fields.append(field("frame.id", "Frame id", format_frame_id(record[ID])))
    if record[CAUSES]:
        fields.append(field("", "Caused by", ", ".join(map(format_frame_id, record[CAUSES]))))
    if record[STACK]:
        fields.append(field("", "Stack time", f"{record[STACK] / 1e9:.9f} s"))
    if record[GSO]:
        pieces = -(-record[LENGTH] // record[GSO])
        fields.append(field("frame.gso_size", "Segmentation", f"{pieces} pieces of {record[GSO]}"))
    if record[CHECKSUM] in Checksum._value2member_map_ and record[CHECKSUM]:
        fields.append(field("frame.checksum", "Transport checksum", Checksum(record[CHECKSUM]).name.lower()))
    return {"title": "Frame", "at": None, "fields": fields}


def _beside(fields: dict[str, Any]) -> dict[str, Any]:
    """What ip and tcp tell each other beside a segment: there is no IP header between them."""
    shown: list[Field] = []
    for name, key, label in (
        ("ip.src", "src", "Source"), ("ip.dst", "dst", "Destination"), ("ip.proto", "proto", "Protocol"),
        ("ip.ttl", "ttl", "Time to live"), ("ip.tos", "tos", "Type of service"),
    ):  # fmt: skip
        value = fields.get(key)
        if value is None or value == b"":
            continue
        text = format_address(value) if isinstance(value, bytes) else str(value)
        shown.append({"name": name, "label": label, "value": text, "at": None})
    return {"title": "IP, beside the segment", "at": None, "fields": shown}


def _plain_fields(fields: dict[str, Any]) -> list[Field]:
    return [
        {"name": "", "label": str(name), "value": value.hex() if isinstance(value, bytes) else str(value), "at": None}
        for name, value in fields.items()
    ]


def _table(
    data: bytes, start: int, table: tuple[tuple[str, str, int, int, _Format], ...]
) -> list[Field]:
    fields = []
    for name, label, offset, size, shown in table:
        raw = data[start + offset : start + offset + size]
        if len(raw) == size:
            at = [start + offset, start + offset + size]
            fields.append({"name": name, "label": label, "value": shown(raw), "at": at})
    return fields


def _add(
    layers: list[dict[str, Any]], title: str, data: bytes, start: int, end: int, fields: list[Field]
) -> None:
    if start < len(data):
        layers.append({"title": title, "at": [start, min(end, len(data))], "fields": fields})


def _ethernet(layers: list[dict[str, Any]], data: bytes) -> None:
    _add(layers, "Ethernet", data, 0, 14, _table(data, 0, _ETHERNET))
    kind = data[12:14]
    if kind == b"\x08\x00":
        _ipv4(layers, data, 14)
    elif kind == b"\x08\x06":
        _add(layers, "Address Resolution Protocol", data, 14, 42, _table(data, 14, _ARP))
        _add(layers, "Padding", data, 42, len(data), [])
    else:
        _add(layers, "Data", data, 14, len(data), [])


def _ipv4(layers: list[dict[str, Any]], data: bytes, start: int) -> None:
    if len(data) <= start:
        return
    if data[start] >> 4 != 4:
        _add(layers, f"IP version {data[start] >> 4}", data, start, len(data), [])
        return
    length = max(20, (data[start] & 15) * 4)
    fields = _table(data, start, _IPV4)
    if length > 20:
        options = data[start + 20 : start + length]
        fields.append({"name": "ip.opt", "label": "Options", "value": options.hex(" "),
                       "at": [start + 20, start + length]})  # fmt: skip
    _add(layers, "Internet Protocol", data, start, start + length, fields)
    if len(data) < start + 20:
        return
    total = int.from_bytes(data[start + 2 : start + 4], "big")
    offset = int.from_bytes(data[start + 6 : start + 8], "big") & 0x1FFF
    if offset:
        _add(layers, "Fragment", data, start + length, len(data), [])
        return
    _transport(layers, data, start + length, data[start + 9], total - length)


def _transport(layers: list[dict[str, Any]], data: bytes, start: int, proto: int, length: int) -> None:
    if proto == 6:
        size = max(20, (data[start + 12] >> 4) * 4) if len(data) > start + 12 else 20
        fields = _table(data, start, _TCP) + _tcp_options(data, start + 20, min(start + size, len(data)))
        _add(layers, "Transmission Control Protocol", data, start, start + size, fields)
    elif proto == 17:
        size = 8
        _add(layers, "User Datagram Protocol", data, start, start + size, _table(data, start, _UDP))
    elif proto == 1:
        size = 8
        fields = _table(data, start, _ICMP)
        if len(data) >= start + 2:
            fields.insert(0, {"name": "", "label": "Message", "value": icmp_name(data[start], data[start + 1]),
                              "at": [start, start + 2]})  # fmt: skip
        _add(layers, "Internet Control Message Protocol", data, start, start + size, fields)
    elif proto == 2:
        size = 8
        _add(layers, "Internet Group Management Protocol", data, start, start + size, _table(data, start, _IGMP))
    else:
        size = 0
    left = max(0, length - size)
    _add(layers, f"Data, {left} bytes", data, start + size, start + max(size, length), [])


_OPTION_NAMES = {
    2: ("tcp.options.mss_val", "Maximum segment size"),
    3: ("tcp.options.wscale.shift", "Window scale"),
    4: ("tcp.options.sack_perm", "SACK permitted"),
    5: ("tcp.options.sack", "SACK"),
    8: ("tcp.options.timestamp", "Timestamps"),
}


def _tcp_options(data: bytes, at: int, end: int) -> list[Field]:
    """RFC 9293 3.1: kind, and for all but 0 and 1 a length that counts both bytes. Stops where that is broken."""
    fields: list[Field] = []
    while at < end:
        kind = data[at]
        if kind == 0:
            fields.append({"name": "", "label": "Option", "value": "end of list", "at": [at, end]})
            break
        if kind == 1:
            fields.append({"name": "", "label": "Option", "value": "no operation", "at": [at, at + 1]})
            at += 1
            continue
        size = data[at + 1] if at + 1 < end else 0
        if size < 2 or at + size > end:
            fields.append({"name": "", "label": "Option", "value": f"broken: kind {kind}, length {size}",
                           "at": [at, end]})  # fmt: skip
            break
        body = data[at + 2 : at + size]
        name, label = _OPTION_NAMES.get(kind, ("", f"Option {kind}"))
        fields.append({"name": name, "label": label, "value": _option(kind, body), "at": [at, at + size]})
        at += size
    return fields


def _option(kind: int, body: bytes) -> str:
    if kind == 2 and len(body) == 2:
        return _number(body)
    if kind == 3 and len(body) == 1:
        return f"{body[0]} (multiply by {1 << min(body[0], 14)})"
    if kind == 4:
        return "yes"
    if kind == 8 and len(body) == 8:
        value, echo = struct.unpack(">II", body)
        return f"value {value}, echo reply {echo}"
    if kind == 5 and len(body) % 8 == 0:
        edges = struct.unpack(f">{len(body) // 4}I", body)
        return ", ".join(f"{left}-{right}" for left, right in zip(edges[::2], edges[1::2], strict=True))
    return body.hex(" ")
