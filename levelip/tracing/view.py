"""A frame of any seam as its layers: where in its bytes each header starts, found once, so that a field is one look.

Nothing is dissected here but what tells where the next header is. A header that is cut off, or lies about its length,
is there as far as its bytes go. An ICMP error has the packet that it quotes as a view of its own.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any

from levelip.frames.packet import Checksum, DeviceFrame, IcmpError, Packet, Segment, Unreachable
from levelip.rpc.place import Place
from levelip.tracing.dissect import looks_like_ip
from levelip.wire.addr import format_address
from levelip.wire.ethernet import EtherType
from levelip.wire.icmp import ERROR_TYPES
from levelip.wire.ipv4 import Proto

Figures = Callable[[str], Mapping[str, Any]]
"""Figures of a connection, by its name as events have it ("10.0.0.2:80>10.0.0.1:4711"); empty: not known."""
Read = Callable[[Place], bytes]
"""The bytes of a payload in shared memory."""

_INLINE = 2048
"""Bytes of an inline payload that are looked at for headers: as much as travels inline."""
_ICMP_HEADER = 8
_KNOWN = (Proto.TCP, Proto.UDP, Proto.ICMP, Proto.IGMP)
_PORTS = struct.Struct(">HH")


class RecordFrame:
    """A record of the tap bus ("f") in the place of a frame: the same attributes, read by index (docs/tracing.md).

    Its payload may be cut; `payload_length` is what it was.
    """

    __slots__ = ("_fields", "causes", "checksum", "gso_size", "head", "id", "payload", "payload_length", "type_name")

    def __init__(self, record: list[Any]) -> None:
        self.id, self.causes, self.type_name, self._fields, self.head, self.payload = record[7:13]
        self.payload_length, self.checksum, self.gso_size = record[13:16]

    def __getattr__(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(name) from None


class View:
    """One frame, or one packet quoted in it. Offsets count in `data`, -1: no such header.

    `data`: the headers, and what of the payload lies inline. `size`: bytes of the frame, wherever they lie.
    `end`: where the IP packet, or the segment, ends (behind it: padding). `body`: where the payload starts.
    `held`: fields that the frame has as attributes instead of bytes, as a Segment its addresses.
    """

    frame: Any = None
    seam = ""
    direction = ""
    data = b""
    size = 0
    eth = arp = ip = icmp = igmp = tcp = udp = -1
    end = 0
    body = -1
    held: Mapping[str, Callable[[Any], Any]] = {}
    quoted: View | None = None
    figures: Figures | None = None
    read: Read | None = None
    tcp_options: list[tuple[int, int, int]] | None = None  # (kind, offset, length), cached

    def payload(self) -> bytes:
        """What the innermost protocol carries, as far as it is here; needs `read` where it lies in shared memory."""
        if self.body < 0:
            return b""
        if self.frame is None:
            return self.data[self.body : self.end]
        payload = self.frame.payload if hasattr(self.frame, "payload") else b""
        if isinstance(payload, Place):
            if self.read is None:
                return b""
            payload = self.read(payload)
        return bytes(self.frame.head + payload)[self.body : self.end]

    def identity(self) -> int:
        """Its frame id; 0: none."""
        return getattr(self.frame, "id", 0)

    def connection(self) -> str:
        """Whose packet this is, named as events name it, local side first; "" of what has no ports."""
        at = self.tcp if self.tcp >= 0 else self.udp
        ends = self.addresses()
        if at < 0 or ends is None or len(self.data) < at + 4:
            return ""
        sport, dport = _PORTS.unpack_from(self.data, at)
        source, target = f"{format_address(ends[0])}:{sport}", f"{format_address(ends[1])}:{dport}"
        return f"{target}>{source}" if self.direction == "up" else f"{source}>{target}"

    def addresses(self) -> tuple[bytes, bytes] | None:
        """Source and destination, packed."""
        if self.ip >= 0:
            data, at = self.data, self.ip
            return (data[at + 12 : at + 16], data[at + 16 : at + 20]) if len(data) >= at + 20 else None
        held = self.held
        if "ip.src" not in held:
            return None
        source, target = held["ip.src"](self.frame), held["ip.dst"](self.frame)
        return (source, target) if source and target else None


def view(
    frame: Any, seam: str = "", direction: str = "", *, figures: Figures | None = None, read: Read | None = None
) -> View:
    """The layers of a frame object, or of a RecordFrame. `direction`: "up" (toward the applications) or "down"."""
    made = View()
    made.frame = frame
    made.seam, made.direction = seam, direction
    if figures is not None:
        made.figures = figures
    if read is not None:
        made.read = read
    build = _BUILDERS.get(type(frame)) if type(frame) is not RecordFrame else _BY_NAME.get(frame.type_name)
    if build is not None:
        build(made, frame)
    return made


def record_view(
    record: list[Any], direction: str = "", *, figures: Figures | None = None
) -> View:
    """The layers of a tap record of a frame; its seam is in it. `direction`: "up" or "down"."""
    return view(RecordFrame(record), record[3], direction, figures=figures)


def _bytes_of(made: View, frame: Any) -> bytes:
    head: bytes = frame.head
    payload = frame.payload
    made.size = len(head) + (frame.payload_length if type(frame) is RecordFrame else len(payload))
    if payload and type(payload) is not Place:
        head = bytes(head + payload[:_INLINE])
    made.data = head
    made.end = made.size
    return head


def _packet(made: View, frame: Any) -> None:
    _ip(made, _bytes_of(made, frame), 0)


def _segment(made: View, frame: Any) -> None:
    data = _bytes_of(made, frame)
    made.held = SEGMENT
    _transport(made, data, frame.proto, 0)


def _device_frame(made: View, frame: Any) -> None:
    data = _bytes_of(made, frame)
    if looks_like_ip(data, made.size):
        _ip(made, data, 0)
    else:
        _ethernet(made, data)


def _unreachable(made: View, frame: Any) -> None:
    made.data = frame.head
    made.size = made.end = len(frame.head)
    _ip(made, frame.head, 0, cut=True)


def _icmp_error(made: View, frame: Any) -> None:
    made.held = ICMP_ERROR
    quoted = View()
    quoted.frame = frame
    quoted.held = QUOTED
    quoted.data = frame.head
    quoted.size = quoted.end = len(frame.head)
    _transport(quoted, frame.head, frame.proto, 0)
    quoted.body = -1
    made.quoted = quoted


def _ethernet(made: View, data: bytes) -> None:
    made.eth = 0
    at = 12
    kind = data[at] << 8 | data[at + 1] if len(data) >= 14 else -1
    while kind in (EtherType.VLAN, EtherType.QINQ) and len(data) >= at + 6:
        at += 4
        kind = data[at] << 8 | data[at + 1]
    at += 2
    if kind == EtherType.IPV4:
        _ip(made, data, at)
    elif kind == EtherType.ARP and len(data) > at:
        made.arp = at
    elif kind >= 0 and kind not in (EtherType.VLAN, EtherType.QINQ):
        made.body = at


def _ip(made: View, data: bytes, at: int, *, cut: bool = False) -> None:
    """`cut`: quoted, so that the packet was longer than what is here."""
    if len(data) <= at or data[at] >> 4 != 4:
        return
    made.ip = at
    if len(data) < at + 20:
        return
    length = (data[at] & 15) * 4
    total = data[at + 2] << 8 | data[at + 3]
    if total >= length and (cut or at + total <= made.size):
        made.end = at + total
        if len(data) > made.end:
            data = made.data = data[: made.end]
    if length < 20:
        return
    if data[at + 6] & 0x1F or data[at + 7]:
        made.body = at + length
    else:
        _transport(made, data, data[at + 9], at + length)


def _transport(made: View, data: bytes, proto: int, at: int) -> None:
    if proto not in _KNOWN:
        made.body = at if at <= made.end else -1
        return
    if len(data) <= at:
        return
    if proto == Proto.TCP:
        made.tcp = at
        if len(data) >= at + 20:
            length = data[at + 12] >> 2 & 0x3C
            if length >= 20 and at + length <= made.end:
                made.body = at + length
    elif proto == Proto.UDP:
        made.udp = at
        if made.end >= at + 8:
            made.body = at + 8
    elif proto == Proto.ICMP:
        made.icmp = at
        if made.end >= at + _ICMP_HEADER:
            made.body = at + _ICMP_HEADER
        if data[at] in ERROR_TYPES and len(data) > at + _ICMP_HEADER:
            quoted = View()
            quoted.data = data
            quoted.size = quoted.end = made.end
            _ip(quoted, data, at + _ICMP_HEADER, cut=True)
            quoted.body = -1
            made.quoted = quoted
    else:
        made.igmp = at


SEGMENT: dict[str, Callable[[Any], Any]] = {
    "ip.dsfield": lambda frame: frame.tos,
    "ip.dsfield.dscp": lambda frame: frame.tos >> 2,
    "ip.dsfield.ecn": lambda frame: frame.tos & 3,
    "ip.flags.df": lambda frame: frame.dont_fragment,
    "ip.ttl": lambda frame: frame.ttl or None,  # 0 downward: ip chooses
    "ip.proto": lambda frame: frame.proto,
    "ip.src": lambda frame: frame.src or None,  # empty downward: ip chooses
    "ip.dst": lambda frame: frame.dst,
}
"""What an ip-tcp segment has of the IP header, which ip takes off and puts on."""
ICMP_ERROR: dict[str, Callable[[Any], Any]] = {
    "ip.src": lambda frame: frame.reporter,
    "ip.dst": lambda frame: frame.src,
    "icmp.type": lambda frame: frame.icmp_type,
    "icmp.code": lambda frame: frame.icmp_code,
    "icmp.mtu": lambda frame: frame.mtu or None,
}
QUOTED: dict[str, Callable[[Any], Any]] = {
    "ip.proto": lambda frame: frame.proto,
    "ip.src": lambda frame: frame.src,
    "ip.dst": lambda frame: frame.dst,
}

_BUILDERS: dict[type, Callable[[View, Any], None]] = {
    Packet: _packet,
    Segment: _segment,
    DeviceFrame: _device_frame,
    Unreachable: _unreachable,
    IcmpError: _icmp_error,
}
_BY_NAME = {kind.__name__: build for kind, build in _BUILDERS.items()}


def gso_size(frame: Any) -> int:
    """Payload bytes of each piece that a super-segment stands for, or 0."""
    vnet = getattr(frame, "vnet", None)
    if vnet is not None:
        return int.from_bytes(vnet[4:6], sys.byteorder) if len(vnet) >= 10 and vnet[1] else 0
    return getattr(frame, "gso_size", 0) or 0


def checksum_state(frame: Any) -> int | None:
    """What is known of the transport checksum (frames.packet.Checksum); None of what has no such thing."""
    vnet = getattr(frame, "vnet", None)
    if vnet is not None:
        if not vnet:
            return Checksum.UNVERIFIED
        return Checksum.PARTIAL if vnet[0] & 1 else Checksum.VERIFIED if vnet[0] & 2 else Checksum.UNVERIFIED
    if isinstance(frame, RecordFrame) and frame.type_name not in ("Packet", "Segment"):
        return None
    return getattr(frame, "checksum", None)
