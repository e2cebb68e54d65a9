"""The bytes of one frame cut into link header, IP header, transport header and payload, to be changed and joined."""

from __future__ import annotations

from typing import Any

import msgspec

from levelip.frames.packet import Segment
from levelip.tracing.fieldtypes import Field, Place
from levelip.tracing.fieldvalues import EditError
from levelip.tracing.view import View, view
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ipv4 import IPV4_MAX_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH, Proto
from levelip.wire.segment import partial_tcp_checksum

_ETHERNET_MIN = 60
"""Bytes of the shortest Ethernet frame, without its check sequence (IEEE 802.3 3.2.7)."""
_CHECKSUMS = {"tcp": (16, 20), "udp": (6, 8), "icmp": (2, 8), "igmp": (2, 8)}
"""Where the checksum lies in the transport header, and how many bytes of that there must be."""
_PSEUDO = ("tcp", "udp")


class Layers:
    """`link`, `ip`, `transport`: headers as bytearrays, empty where there is none; `body`: the payload; `padding`: what
    lies behind the IP packet. `transport` of IGMP, and of what cannot be read further, is all there is. `view` is that
    of the frame as it came; `frame` that frame, or it with attributes changed."""

    def __init__(self, frame: Any, data: bytes) -> None:
        self.frame = msgspec.structs.replace(frame, head=data, payload=b"")
        self.view: View = view(self.frame)
        found = self.view
        self.layer = next((name for name in _CHECKSUMS if getattr(found, name) >= 0), "")
        start = next((at for at in (found.ip, found.arp) if at >= 0), 0)
        transport = getattr(found, self.layer) if self.layer else -1
        ends = [at for at in (transport, found.body) if at >= 0]
        head_end = min(ends) if ends else found.end
        if start == 0 and found.eth >= 0:
            start = found.body if found.body >= 0 else len(data)
        self.link = bytearray(data[:start])
        self.arp = bytearray(data[found.arp : found.end]) if found.arp >= 0 else bytearray()
        self.ip = bytearray(data[found.ip : head_end]) if found.ip >= 0 else bytearray()
        self.transport = bytearray(data[transport : found.body if found.body >= 0 else found.end]) if self.layer \
            else bytearray()
        self.body = bytes(data[found.body : found.end]) if found.body >= 0 else b""
        self.padding = bytes(data[found.end :])
        self._sizes = (len(self.ip), len(self.transport), len(self.body))

    @property
    def is_fragment(self) -> bool:
        return len(self.ip) >= 8 and bool(self.ip[6] & 0x3F or self.ip[7])

    # sizes

    def set_tcp_options(self, options: bytes) -> None:
        """Whole words of them."""
        self.transport[20:] = options

    def set_ip_options(self, options: bytes) -> None:
        """IPv4's, padded here with END."""
        if self.view.ip < 0 or len(self.ip) < 20:
            raise EditError("there is no IP header here that could have options", "ip.options")
        options += bytes(-len(options) & 3)
        if len(options) > IPV4_MAX_HEADER_LEN - 20:
            raise EditError(f"{len(options)} bytes of IP options; there is room for 40", "ip.options")
        self.ip[20:] = options

    def follow_lengths(self) -> None:
        """Lengths in the headers by what the sizes of the parts have become; those that lied before lie as much."""
        ip, transport, body = self._sizes
        grown = len(self.ip) + len(self.transport) + len(self.body) - ip - transport - body
        if len(self.ip) != ip:
            self.ip[0] = self.ip[0] & 0xF0 | len(self.ip) // 4
        if self.layer == "tcp" and len(self.transport) != transport:
            self.transport[12] = len(self.transport) // 4 << 4 | self.transport[12] & 0x0F
        if grown and self.layer == "udp" and len(self.transport) == 8:
            length = int.from_bytes(self.transport[4:6], "big") + len(self.body) - body
            self.transport[4:6] = _short(length, "udp.length")
        if grown and len(self.ip) >= 20:
            total = int.from_bytes(self.ip[2:4], "big") + grown
            if total > IPV4_MAX_TOTAL_LENGTH:
                raise EditError(f"{total} bytes are more than an IPv4 packet holds", "ip.len")
            self.ip[2:4] = _short(total, "ip.len")
        if grown and self.padding:
            size = len(self.link) + len(self.ip) + len(self.transport) + len(self.body)
            self.padding = bytes(max(0, _ETHERNET_MIN - size))

    # fields of fixed position

    def set_fixed(self, field: Field, value: Any) -> None:
        """Write a value where the field lies."""
        place = field.place
        assert place is not None
        part = self._part(place.layer)
        if part is None or getattr(self.view, place.layer) < 0:
            raise EditError(f"this packet has no {place.layer} header, so no {field.name}", field.name)
        if len(part) < place.offset + place.size:
            raise EditError(f"this packet ends before {field.name}", field.name)
        _write(part, place, value)
        if place.layer in ("icmp", "igmp") and field.get(view(self._whole_frame())) is None:
            raise EditError(f"{place.layer.upper()} messages of type {part[0]} have no {field.name}", field.name)

    def _part(self, layer: str) -> bytearray | None:
        if layer == "eth":
            return self.link
        if layer == "arp":
            return self.arp
        return self.ip if layer == "ip" else self.transport if layer == self.layer else None

    def _whole_frame(self) -> Any:
        head, payload = self.joined()
        return msgspec.structs.replace(self.frame, head=head + payload)

    # checksums

    def mend_ip(self) -> None:
        """The header checksum, made right."""
        if len(self.ip) >= 20:
            self.ip[10:12] = bytes(2)
            self.ip[10:12] = internet_checksum(self.ip).to_bytes(2, "big")

    def mend_transport(self, *, keep_none: bool = False) -> None:
        """The transport's checksum, made right; of a fragment it cannot be. `keep_none`: not where UDP has none."""
        at, least = _CHECKSUMS.get(self.layer, (0, 0))
        if not least or len(self.transport) < least or self.is_fragment:
            return
        if keep_none and self.layer == "udp" and not any(self.transport[at : at + 2]):
            return
        self.transport[at : at + 2] = bytes(2)
        data = bytes(self.transport) + self.body
        initial = 0
        if self.layer in _PSEUDO:
            initial = pseudo_header_sum(*self._addresses(), len(data))
        total = internet_checksum(data, initial)
        if self.layer == "udp" and total == 0:
            total = 0xFFFF  # RFC 768: 0 says that there is none
        self.transport[at : at + 2] = total.to_bytes(2, "big")

    def _addresses(self) -> tuple[bytes, bytes, int]:
        """Source, destination and protocol of the pseudo-header."""
        if isinstance(self.frame, Segment):
            if not self.frame.src:
                raise EditError("ip has yet to choose the source, so the checksum cannot be made: set ip.src")
            return self.frame.src, self.frame.dst, self.frame.proto
        return bytes(self.ip[12:16]), bytes(self.ip[16:20]), self.ip[9]

    def partial_head(self) -> bytes:
        """All headers, the TCP checksum left to the device."""
        head = bytes(self.ip + self.transport)
        return bytes(self.link) + partial_tcp_checksum(head, len(self.transport) + len(self.body))

    # back

    def joined(self) -> tuple[bytes, bytes]:
        """Headers; payload with the padding."""
        return bytes(self.link + self.arp + self.ip + self.transport), self.body + self.padding


def _write(part: bytearray, place: Place, value: Any) -> None:
    start, end = place.offset, place.offset + place.size
    if isinstance(value, bytes):
        part[start:end] = value
        return
    number = int(value) // place.scale
    if place.mask:
        old = int.from_bytes(part[start:end], "big")
        number = old & ~place.mask | number << place.shift & place.mask
    part[start:end] = number.to_bytes(place.size, "big")


def _short(value: int, name: str) -> bytes:
    if not 0 <= value <= 0xFFFF:
        raise EditError(f"{name} would be {value}, which 16 bits do not hold: set it", name)
    return value.to_bytes(2, "big")


PROTOCOLS = {"tcp": Proto.TCP, "udp": Proto.UDP, "icmp": Proto.ICMP, "igmp": Proto.IGMP}
"""IP's number of each transport that has fields."""
