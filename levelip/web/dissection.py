"""A frame as a tree of fields, each with the bytes that say it, for the page's two panes: dissection and hex.

Names are those of levelip.tracing.fields (Wireshark's display-filter names), so that a field can go into the filter.
"""

from __future__ import annotations

from typing import Any

from levelip.debug.tap import CAUSES, HEAD, LENGTH, PAYLOAD, Record
from levelip.frames.packet import format_frame_id
from levelip.tracing.fields import FIELDS, FieldValue, field_values
from levelip.tracing.fieldtypes import Kind
from levelip.tracing.view import View, record_view

_TITLES = {
    "frame": "Frame", "eth": "Ethernet", "arp": "Address Resolution Protocol", "ip": "Internet Protocol",
    "icmp": "Internet Control Message Protocol", "igmp": "Internet Group Management Protocol",
    "tcp": "Transmission Control Protocol", "udp": "User Datagram Protocol", "data": "Data",
}  # fmt: skip
_HEADERS = ("eth", "arp", "ip", "icmp", "igmp", "tcp", "udp")
_HIDDEN = frozenset({"tcp.payload", "udp.payload", "frame.pieces"})
"""What another line says already."""
_HEX = ("checksum", "eth.type", "ip.id", "arp.proto.type")
_SHOWN_BYTES = 32


def dissect(record: Record, way: str) -> dict[str, Any]:
    """{"layers": [{"title", "at", "fields": [{"name", "title", "value", "text", "at": [from, to] or None}]}], "bytes":
    hex, "length": of the whole frame}. `bytes` may be fewer than `length`: the publisher cut them. `way`: "up" or
    "down"."""
    found = record_view(record, way)
    groups: dict[tuple[bool, str], list[dict[str, Any]]] = {}
    for value in field_values(found):
        field = FIELDS[value.name]
        prefix = value.name.split(".")[0]
        prefix = "frame" if prefix in ("seam", "direction") else prefix
        group = groups.setdefault((value.quoted, prefix), [])
        if value.name in _HIDDEN or field.kind is Kind.PRESENCE or (field.kind is Kind.FLAG and not value.value):
            continue
        group.append(_line(value, field.title))
    if record[CAUSES] and (False, "frame") in groups:
        causes = ", ".join(map(format_frame_id, record[CAUSES]))
        groups[False, "frame"].append(
            {"name": "", "title": "the frames that led to it", "text": causes, "value": causes, "at": None}
        )
    layers = []
    for (quoted, prefix), fields in groups.items():
        title = _TITLES.get(prefix, prefix)
        layers.append(
            {
                "title": f"Quoted: {title}" if quoted else title,
                "at": None if quoted else _range(found, prefix),
                "fields": fields,
            }
        )
    data: bytes = record[HEAD] + record[PAYLOAD]
    return {"layers": layers, "bytes": data.hex(), "length": len(record[HEAD]) + record[LENGTH]}


def _line(value: FieldValue, title: str) -> dict[str, Any]:
    at = [value.offset, value.offset + value.length] if value.offset >= 0 else None
    return {
        "name": value.name,
        "title": title,
        "text": _text(value.name, value.value),
        "value": filter_value(value.value),
        "at": at,
    }


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (bytes, bytearray)):
        rest = f" … {len(value)} bytes" if len(value) > _SHOWN_BYTES else ""
        return value[:_SHOWN_BYTES].hex(" ") + rest
    if isinstance(value, int) and any(part in name for part in _HEX):
        return f"0x{value:04x}"
    return str(value)


def filter_value(value: Any) -> str:
    """A value as an expression writes it."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, (bytes, bytearray)):
        return value[:_SHOWN_BYTES].hex(":")
    if isinstance(value, str) and not value.replace(".", "").replace(":", "").isalnum():
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _range(found: View, prefix: str) -> list[int] | None:
    """Which bytes a header has: up to where the next one, or the payload, starts."""
    if prefix == "data":
        return [found.body, found.end] if 0 <= found.body < found.end else None
    if prefix not in _HEADERS:
        return None
    start: int = getattr(found, prefix)
    if start < 0:
        return None
    starts = [one for name in _HEADERS if (one := getattr(found, name)) > start]
    if found.body > start:
        starts.append(found.body)
    return [start, min(starts, default=len(found.data))]
