"""Bytes of a frame's head to one line of text, in tcpdump's habit; made late, by the tool that shows it.

TCP over IPv4, nearly every packet, takes a short path that reads both headers at once; everything else goes through
the parsers of levelip.wire, and what they refuse is shown as `[bad ...]` with what could be read.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from levelip.wire import icmp
from levelip.wire.addr import format_address, format_ipv4
from levelip.wire.arp import ArpPacket
from levelip.wire.errors import Malformed
from levelip.wire.ethernet import EthernetHeader, EtherType, ethertype_name
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import parse_igmp
from levelip.wire.ipv4 import Ipv4Header, Proto, proto_name
from levelip.wire.options import parse_options
from levelip.wire.tcp import ACK, FIN, RST, SYN, URG, TcpHeader, flags_text
from levelip.wire.udp import UdpHeader

MAX_FLOWS = 65_536
"""Flows whose first sequence numbers are remembered, a seam; when there are more, all are forgotten."""
_IP_TCP = struct.Struct(">BxHxxHBBxx4s4sHHIIHHHH")  # an IPv4 header without options, and a TCP header
_TCP = struct.Struct(">HHIIHHHH")
_TIMESTAMPS = struct.Struct(">III")
_TIMESTAMPS_WORD = 0x0101080A  # NOP NOP TS 10 (RFC 7323 appendix A)
_FLAGS = [f"Flags [{flags_text(flags)}]" for flags in range(512)]


class _Flow:
    """One direction of a connection. The first sequence numbers lie in `base`, shared by both directions:
    [ours as the first packet's sender, theirs]; `forward` says whether this direction is that first packet's."""

    __slots__ = ("base", "forward", "text")

    def __init__(self, text: str, base: list[int], forward: bool) -> None:
        self.text = text
        self.base = base
        self.forward = forward


class Dissector:
    """Formats the packets of one seam; remembers, as tcpdump does, from where each connection's numbers count.

    A SYN-ACK, or the first segment seen of a connection, shows absolute numbers and becomes their origin; later ones
    are relative to it: the SYN is 0, and what is seen first of a connection in its middle 1, as Wireshark counts
    (tcpdump has 0 there, and acknowledges from 1 on). `absolute`: never relative (tcpdump -S). `verbose`: the IPv4
    header too (tcpdump -v).
    """

    def __init__(self, *, absolute: bool = False, verbose: bool = False) -> None:
        self._absolute = absolute
        self._verbose = verbose
        self._flows: dict[bytes, _Flow] = {}

    def ethernet(self, head: bytes, length: int) -> str:
        """A frame of `length` bytes that starts with `head`."""
        if head[12:14] == b"\x08\x00" and not self._verbose:
            return self.ipv4(head[14:], length - 14)
        try:
            header = EthernetHeader.parse(head)
        except Malformed as error:
            return f"[bad frame: {error}], length {length}"
        body, size = head[header.length :], length - header.length
        tags = "".join(f"{tag}, " for tag in header.vlan)
        if header.ethertype == EtherType.IPV4:
            return tags + self.ipv4(body, size)
        if header.ethertype == EtherType.ARP:
            try:
                return f"{tags}{_capital(str(ArpPacket.parse(body)))}, length {size}"
            except Malformed as error:
                return f"{tags}ARP [bad: {error}], length {size}"
        if header.is_8023:
            return f"{tags}802.3, length {length}"
        return (
            f"{header.src.hex(':')} > {header.dst.hex(':')}, {tags}{ethertype_name(header.ethertype)}, length {length}"
        )

    def ipv4(self, head: bytes, length: int, gso_size: int = 0) -> str:
        """An IP packet of `length` bytes that starts with `head`. What follows its total length is padding."""
        if (
            len(head) >= 40
            and head[0] == 0x45
            and head[9] == 6
            and not head[6] & 0x3F
            and not head[7]
            and not self._verbose
        ):
            _, total, _, _, _, src, dst, sport, dport, seq, ack, word, window, _, urgent = _IP_TCP.unpack_from(head)
            start = (word >> 10 & 0x3C) + 20
            if 40 <= start <= len(head) and start <= total <= length:
                options = head[40:start]
                return self._tcp(
                    src, dst, sport, dport, seq, ack, word, window, urgent, options, total - start, gso_size
                )
        try:
            header = Ipv4Header.parse(head)
        except Malformed as error:
            return f"IP [bad: {error}], length {length}"
        if header.version != 4:
            return f"IP version {header.version}, length {length}"
        verbose = ""
        if self._verbose:
            flags = "".join(sign for bit, sign in ((4, "R"), (2, "DF"), (1, "+")) if header.flags & bit) or "none"
            verbose = (
                f"(tos 0x{header.tos:x}, ttl {header.ttl}, id {header.ident}, offset {header.frag_offset * 8}, "
                f"flags [{flags}], proto {proto_name(header.proto)} ({header.proto}), length {header.total_length}) "
            )
        if header.total_length < header.length or header.total_length > length:
            return f"IP {verbose}[bad total length {header.total_length}, there are {length} bytes]"
        body = head[header.length : header.total_length]
        size = header.total_length - header.length
        if header.frag_offset:
            more = "+" if header.more_fragments else ""
            addresses = f"{format_ipv4(header.src)} > {format_ipv4(header.dst)}"
            return f"IP {verbose}{addresses}: {proto_name(header.proto)} fragment {header.frag_offset * 8}:{size}{more}"
        text = self.transport(header.src, header.dst, header.proto, body, size, gso_size)
        return f"IP {verbose}{text[3:]}" if verbose else text

    def transport(self, src: bytes, dst: bytes, proto: int, head: bytes, length: int, gso_size: int = 0) -> str:
        """A transport segment of `length` bytes that starts with `head`."""
        if proto == Proto.TCP:
            if len(head) >= 20:
                sport, dport, seq, ack, word, window, _, urgent = _TCP.unpack_from(head)
                start = word >> 10 & 0x3C
                if 20 <= start <= len(head) and start <= length:
                    return self._tcp(
                        src, dst, sport, dport, seq, ack, word, window, urgent, head[20:start], length - start, gso_size
                    )
            return f"{_pair(src, dst)}: TCP {_malformed(TcpHeader, head)}, length {length}"
        if proto == Proto.UDP:
            try:
                udp = UdpHeader.parse(head)
            except Malformed as error:
                return f"{_pair(src, dst)}: UDP [bad: {error}], length {length}"
            ends = f"{format_address(src)}.{udp.src_port} > {format_address(dst)}.{udp.dst_port}"
            return f"IP {ends}: UDP, length {length - 8}"
        if proto == Proto.ICMP:
            return f"{_pair(src, dst)}: {_icmp(head, length)}"
        if proto == Proto.IGMP:
            return f"{_pair(src, dst)}: {_igmp(head)}"
        return f"{_pair(src, dst)}: {proto_name(proto)}, length {length}"

    def _tcp(
        self,
        src: bytes,
        dst: bytes,
        sport: int,
        dport: int,
        seq: int,
        ack: int,
        word: int,
        window: int,
        urgent: int,
        options: bytes,
        length: int,
        gso_size: int,
    ) -> str:
        flags = word & 0x1FF
        key = b"%b%b%d.%d" % (src, dst, sport, dport)
        flow = self._flows.get(key)
        if flow is None:
            flow = self._new_flow(key, src, dst, sport, dport)
        if flags & ACK and not self._absolute:
            base = flow.base
            if not base or flags & SYN:
                base[:] = (seq if flags & SYN else (seq - 1) & 0xFFFFFFFF, (ack - 1) & 0xFFFFFFFF)
                if not flow.forward:
                    base.reverse()
            elif flow.forward:
                seq = (seq - base[0]) & 0xFFFFFFFF
                ack = (ack - base[1]) & 0xFFFFFFFF
            else:
                seq = (seq - base[1]) & 0xFFFFFFFF
                ack = (ack - base[0]) & 0xFFFFFFFF
        if length:
            text = f"{flow.text}{_FLAGS[flags]}, seq {seq}:{(seq + length) & 0xFFFFFFFF}, "
        elif flags & (SYN | FIN | RST):
            text = f"{flow.text}{_FLAGS[flags]}, seq {seq}, "
        else:
            text = f"{flow.text}{_FLAGS[flags]}, "
        text = f"{text}ack {ack}, win {window}" if flags & ACK else f"{text}win {window}"
        if flags & URG:
            text += f", urg {urgent}"
        if options:
            if len(options) == 12:
                first, val, ecr = _TIMESTAMPS.unpack(options)
                if first == _TIMESTAMPS_WORD:
                    options = b""
                    text += f", options [nop,nop,TS val {val} ecr {ecr}]"
            if options:
                text += f", options [{self._options(options, flow)}]"
        if gso_size and length > gso_size:
            return f"{text}, length {length} ({-(-length // gso_size)} x {gso_size})"
        return f"{text}, length {length}"

    def _options(self, raw: bytes, flow: _Flow) -> str:
        options = parse_options(raw, strict=False)
        text = str(options)
        if options.sack and flow.base and not self._absolute:  # SACK blocks count as the ACK does
            origin = flow.base[1] if flow.forward else flow.base[0]
            for left, right in options.sack:
                relative = f"{{{(left - origin) & 0xFFFFFFFF}:{(right - origin) & 0xFFFFFFFF}}}"
                text = text.replace(f"{{{left}:{right}}}", relative, 1)
        return text

    def _new_flow(self, key: bytes, src: bytes, dst: bytes, sport: int, dport: int) -> _Flow:
        if len(self._flows) >= MAX_FLOWS:
            self._flows.clear()
        back = self._flows.get(b"%b%b%d.%d" % (dst, src, dport, sport))
        text = f"{'IP' if len(src) == 4 else 'IP6'} {format_address(src)}.{sport} > {format_address(dst)}.{dport}: "
        flow = _Flow(text, back.base if back else [], not back.forward if back else True)
        self._flows[key] = flow
        return flow


def _capital(text: str) -> str:
    """tcpdump writes "ARP, Request who-has"; wire's text says "arp request who-has"."""
    _, kind, rest = text.split(" ", 2)
    return f"ARP, {kind.capitalize()} {rest}"


def _pair(src: bytes, dst: bytes) -> str:
    return f"{'IP' if len(src) == 4 else 'IP6'} {format_address(src)} > {format_address(dst)}"


def _malformed(kind: Any, head: bytes) -> str:
    try:
        kind.parse(head)
    except Malformed as error:
        return f"[bad: {error}]"
    return "[bad: header longer than the segment]"


def _icmp(head: bytes, length: int) -> str:
    try:
        message = IcmpMessage.parse(head)
    except Malformed as error:
        return f"ICMP [bad: {error}], length {length}"
    text = str(message)
    if message.is_error and len(message.payload) >= 28:
        about = _about(message.payload)
        if about:
            text = text.replace("ICMP ", f"ICMP {about} ", 1)
    return f"{text.rpartition(', length ')[0]}, length {length}"


def _igmp(head: bytes) -> str:
    try:
        return str(parse_igmp(head))
    except Malformed as error:
        return f"igmp [bad: {error}]"


def _about(original: bytes) -> str:
    """Which flow an ICMP error reports on: "10.0.0.2.80 > 10.0.0.1.4711 tcp"."""
    try:
        header = Ipv4Header.parse(original)
    except Malformed:
        return ""
    ports = original[header.length : header.length + 4]
    if header.proto not in (Proto.TCP, Proto.UDP) or len(ports) < 4 or header.frag_offset:
        return f"{format_ipv4(header.src)} > {format_ipv4(header.dst)} {proto_name(header.proto).lower()}:"
    sport, dport = struct.unpack(">HH", ports)
    return f"{format_ipv4(header.src)}.{sport} > {format_ipv4(header.dst)}.{dport} {proto_name(header.proto).lower()}:"


def looks_like_ip(head: bytes, length: int) -> bool:
    """Whether a device frame is raw IP and not Ethernet: version 4 and a total length that is the frame's.

    For tools that were not told the kind of the device.
    """
    if len(head) < 20:
        return False
    if head[0] >> 4 == 6:
        return len(head) >= 40 and 40 + (head[4] << 8 | head[5]) == length and head[12:14] != b"\x08\x06"
    return head[0] >> 4 == 4 and head[0] & 15 >= 5 and head[2] << 8 | head[3] == length


class Describer:
    """One line for a frame of any seam, as the tap bus gives it. Keeps a Dissector a seam."""

    def __init__(self, *, absolute: bool = False, verbose: bool = False) -> None:
        self._options: dict[str, bool] = {"absolute": absolute, "verbose": verbose}
        self._dissectors: dict[str, Dissector] = {}

    def describe(
        self,
        seam: str,
        frame_type: str,
        fields: Mapping[str, Any],
        head: bytes,
        payload: bytes,
        payload_length: int,
        gso_size: int,
    ) -> str:
        """The text. `payload` may be cut; `payload_length` is what it was."""
        dissector = self._dissectors.get(seam)
        if dissector is None:
            dissector = self._dissectors[seam] = Dissector(**self._options)
        length = len(head) + payload_length
        if payload and len(head) < 94:  # 14 + 20 + 60: headers may be split anywhere between the two
            head += payload[:128]
        if frame_type == "Packet":
            return dissector.ipv4(head, length, gso_size)
        if frame_type == "Segment":
            return dissector.transport(fields["src"], fields["dst"], fields["proto"], head, length, gso_size)
        if frame_type == "DeviceFrame":
            if looks_like_ip(head, length):
                return dissector.ipv4(head, length)
            return dissector.ethernet(head, length)
        return describe_message(frame_type, fields, payload_length)


def describe_message(kind: str, fields: Mapping[str, Any], payload_length: int = 0) -> str:
    """A message that is no packet: its kind, and its fields as name value, addresses and MACs readable."""
    parts = [f"{name} {_value(name, value)}" for name, value in fields.items() if name not in _INTERNAL]
    if payload_length:
        parts.append(f"payload {payload_length}")
    return f"{kind} {', '.join(parts)}" if parts else kind


_INTERNAL = frozenset({"id", "causes", "traced", "ingress", "head", "payload", "vnet"})
_ADDRESSES = frozenset(
    {
        "address",
        "local_address",
        "remote_address",
        "src",
        "dst",
        "next_hop",
        "reporter",
        "prefix",
        "source",
        "addresses",
        "broadcasts",
        "groups",
    }
)


def _value(name: str, value: Any) -> str:
    if isinstance(value, bytes):
        if name in _ADDRESSES and len(value) in (4, 16):
            return format_address(value)
        if name == "mac" and len(value) == 6:
            return value.hex(":")
        return f"0x{value[:16].hex()}{'…' if len(value) > 16 else ''}" if value else "-"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(name, item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} {_value(str(key), item)}' for key, item in value.items())}}}"
    if names := getattr(value, "__struct_fields__", ()):  # a part of a message, as a route
        return f"({', '.join(f'{one} {_value(one, getattr(value, one))}' for one in names)})"
    return str(value) if value != "" else "-"


def icmp_text(type_: int, code: int) -> str:
    """ "host unreachable" for an event that names type and code."""
    return icmp.icmp_name(type_, code)
