"""Packets made of what packet lines say: an IP header, and a segment, message or datagram in it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from levelip.tracing.packetline.values import (
    IcmpPacket,
    IgmpPacket,
    IpInfo,
    OtherPacket,
    ScriptError,
    TcpOption,
    TcpPacket,
    UdpPacket,
)
from levelip.wire import options as wire
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.icmp import (
    DEST_UNREACH,
    ECHO,
    ECHO_REPLY,
    FRAG_NEEDED,
    ICMP_HEADER_LEN,
    PARAMETER_PROBLEM,
    REDIRECT,
    TIMESTAMP,
    IcmpMessage,
)
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, IPV4_HEADER_LEN, Ipv4Header, Proto
from levelip.wire.segment import header_length
from levelip.wire.tcp import ACK, TcpHeader
from levelip.wire.udp import UDP_HEADER_LEN, UdpHeader

MASK = 0xFFFF_FFFF
ECN = {"noecn": 0, "ect1": 1, "ect0": 2, "ce": 3}
TIMESTAMPS = 12
"""Bytes behind the header of a timestamp message (RFC 792)."""


@dataclass(slots=True)
class Ends:
    """Whose packet it is: ports of the host that gets it and of the one that sends it, and from where each one's
    sequence numbers count: wire = as written + offset."""

    local_port: int
    remote_port: int
    local_offset: int = 0
    remote_offset: int = 0

    def ts_to_wire(self, value: int) -> int:
        """What TSecr has to be for a value as written."""
        return value


@dataclass(slots=True)
class Injected:
    """A packet to hand in. `header`: bytes of its headers. `linkcast`: it came as a broadcast of the link."""

    data: bytes
    header: int
    gso_size: int = 0
    linkcast: bool = False


def damaged(checksum: int, spec: IpInfo) -> int:
    """The checksum that goes out: with [badsum] a wrong one."""
    return checksum ^ 0x5555 if spec.bad_sum else checksum


class IpBuilder:
    """Packets from others to our host. `router`: who sends ICMP errors and queries for groups."""

    def __init__(self, local: bytes, remote: bytes, router: bytes) -> None:
        self.local = local
        self.remote = remote
        self.router = router
        self._ident = 0

    def ip(
        self, spec: IpInfo, proto: int, body: bytes, source: bytes, head: int, *, gso_size: int = 0
    ) -> Injected:
        """`body`, whose first `head` bytes are a header, behind an IP header from `source` (unless `spec` has one)."""
        self._ident = (self._ident + 1) & 0xFFFF
        flags = FLAG_DF if spec.dont_fragment or (spec.dont_fragment is None and spec.fragment is None) else 0
        offset = 0
        if spec.fragment is not None:
            start, end = spec.fragment
            if start >= len(body):
                raise ScriptError(f"the fragment begins at byte {start}, the packet has {len(body)}")
            flags |= FLAG_MF if end < len(body) or spec.more_fragments else 0
            body, offset = body[start:end], start // 8
            head = min(head, len(body)) if not start else 0
        tos = spec.tos if spec.tos is not None else ECN.get(spec.ecn or "", 0)
        header = Ipv4Header.build(
            spec.src or source, spec.dst or self.local, proto=proto, payload_length=len(body), tos=tos, flags=flags,
            frag_offset=offset, ttl=255 if spec.ttl is None else spec.ttl,
            ident=self._ident if spec.ident is None else spec.ident, options=spec.options,
        )  # fmt: skip
        header = replace(
            header,
            version=header.version if spec.version is None else spec.version,
            ihl=header.ihl if spec.ihl is None else spec.ihl,
            total_length=header.total_length if spec.total is None else spec.total,
        )
        packed = header.serialize()
        data = packed + body
        total = internet_checksum(data[: max(header.ihl * 4, len(packed) if spec.ihl is None else 20)])
        if spec.bad_header_sum:
            total ^= 0x5555
        data = data[:10] + total.to_bytes(2, "big") + data[12:] + bytes(spec.pad)
        plain = spec.version is None and spec.ihl is None
        length = (header_length(data) if plain else None) or len(packed) + head
        return Injected(data, min(length, len(data)), gso_size, spec.linkcast)


class MessageBuilder(IpBuilder):
    """Such packets from the remote host, and from the router."""

    def icmp(self, spec: IcmpPacket, flow: Ends | None, sent: bytes | None) -> Injected:
        """An ICMP message: an error from the router, or a question of the remote host.

        `sent`: the packet that the stack sent last, which `[packet(N)]` quotes.
        """
        payload = b""
        sender = self.remote
        rest = struct.pack(">HH", spec.echo_id or 0, spec.echo_seq or 0)
        if IcmpMessage(spec.type).is_error:
            sender = self.router
            rest = self._rest(spec)
            payload = self._quote(spec, flow, sent)
        elif spec.type in (ECHO, ECHO_REPLY) and spec.size is not None:
            payload = bytes([spec.ip.fill]) * (spec.size - ICMP_HEADER_LEN)
        elif spec.type == TIMESTAMP:
            payload = bytes(TIMESTAMPS)
        if spec.size is not None:
            room = max(spec.size - ICMP_HEADER_LEN, 0)
            payload = payload.ljust(room, b"\0")[:room]
        message = IcmpMessage(spec.type, spec.code, rest, payload + spec.extension).serialize(fill_checksum=True)
        if spec.size is not None:
            message = message[: spec.size + len(spec.extension)]
        message = message[:2] + damaged(int.from_bytes(message[2:4], "big"), spec.ip).to_bytes(2, "big") + message[4:]
        return self.ip(spec.ip, Proto.ICMP, message, sender, len(message))

    @staticmethod
    def _rest(spec: IcmpPacket) -> bytes:
        if spec.type == REDIRECT:
            return spec.via or bytes(4)
        rest = bytearray(4)
        if spec.type == PARAMETER_PROBLEM:
            rest[0] = spec.pointer or 0
        if (spec.type, spec.code) == (DEST_UNREACH, FRAG_NEEDED):
            rest[2:4] = (spec.mtu or 0).to_bytes(2, "big")
        if spec.words is not None:
            rest[1] = spec.words
        return bytes(rest)

    def _quote(self, spec: IcmpPacket, flow: Ends | None, sent: bytes | None) -> bytes:
        if spec.raw is not None:
            return spec.raw
        if spec.packet is not None:
            if sent is None:
                raise ScriptError("[packet(N)] quotes the packet that the stack sent last, but it has sent none")
            return sent[: spec.packet]
        if spec.size is not None:
            return b""
        if flow is None:
            raise ScriptError("this ICMP error quotes a segment, but there is no connection yet")
        seq, length = spec.quoted or (0, 0)
        head = struct.pack(">HHI", flow.local_port, flow.remote_port, (seq + flow.local_offset) & MASK)
        original = Ipv4Header.build(self.local, self.remote, proto=Proto.TCP, payload_length=20 + length)
        return original.serialize(fill_checksum=True) + head + bytes(12)

    def igmp(self, spec: IgmpPacket) -> Injected:
        """An IGMP message of the router."""
        data = spec.message.serialize(fill_checksum=True)
        data = data[:2] + damaged(int.from_bytes(data[2:4], "big"), spec.ip).to_bytes(2, "big") + data[4:]
        return self.ip(spec.ip, Proto.IGMP, data, self.router, len(data))

    def other(self, spec: OtherPacket) -> Injected:
        """A packet of any protocol, from the remote host."""
        data = spec.data if spec.data is not None else bytes([spec.ip.fill]) * spec.length
        return self.ip(spec.ip, spec.proto, data, self.remote, len(data))


class Builder(MessageBuilder):
    """Packets from the remote host to ours."""

    def tcp(self, spec: TcpPacket, flow: Ends, *, mss: int = 0) -> Injected:
        """A segment of the peer; the ports are the flow's, or the script's."""
        source, target = spec.ports or (flow.remote_port, flow.local_port)
        ack = ((spec.ack or 0) + flow.local_offset) & MASK if spec.flags & ACK else spec.ack or 0
        options = b"".join(self._option(option, flow, spec.flags) for option in spec.options or ())
        options += b"\0" * (-len(options) & 3)
        if len(options) > wire.MAX_OPTIONS_LEN:
            raise ScriptError(f"{len(options)} bytes of TCP options; there is room for 40")
        header = TcpHeader(
            src_port=source, dst_port=target, seq=(spec.seq + flow.remote_offset) & MASK, ack=ack, flags=spec.flags,
            window=spec.win or 0, urgent=spec.urg or 0, options=options,
        )  # fmt: skip
        head = header.serialize()
        payload = bytes([spec.ip.fill]) * spec.length
        ends = spec.ip.src or self.remote, spec.ip.dst or self.local
        total = internet_checksum(
            head[:16] + b"\0\0" + head[18:] + payload,
            pseudo_header_sum(*ends, Proto.TCP, len(head) + len(payload)),
        )
        segment = head[:16] + damaged(total, spec.ip).to_bytes(2, "big") + head[18:] + payload
        gso_size = spec.ip.gso_size
        if gso_size is None:
            gso_size = mss if mss and spec.length > mss else 0
        return self.ip(spec.ip, Proto.TCP, segment, self.remote, len(head), gso_size=gso_size)

    def udp(self, spec: UdpPacket, flow: Ends) -> Injected:
        """A datagram of the peer, all of `[fill]`, else of zeros."""
        source, target = spec.ports or (flow.remote_port, flow.local_port)
        size = UDP_HEADER_LEN + spec.length
        if size > 65_535 - IPV4_HEADER_LEN:
            raise ScriptError("no IPv4 packet holds so much")
        head = UdpHeader(source, target, size).serialize()
        payload = bytes([spec.ip.fill]) * spec.length
        ends = spec.ip.src or self.remote, spec.ip.dst or self.local
        total = internet_checksum(head + payload, pseudo_header_sum(*ends, Proto.UDP, size)) or 0xFFFF  # RFC 768
        data = head[:6] + damaged(total, spec.ip).to_bytes(2, "big") + payload
        return self.ip(spec.ip, Proto.UDP, data, self.remote, UDP_HEADER_LEN)

    @staticmethod
    def _option(option: TcpOption, flow: Ends, flags: int) -> bytes:
        kind, numbers = option.kind, option.numbers
        match kind:
            case wire.KIND_EOL | wire.KIND_NOP:
                return bytes([kind])
            case _ if not numbers:
                pass  # written as bytes, whatever the kind: `option 2 0x05` is an MSS of a wrong length
            case wire.KIND_MSS:
                return struct.pack(">BBH", kind, 4, *numbers)
            case wire.KIND_WSCALE:
                return struct.pack(">BBB", kind, 3, *numbers)
            case wire.KIND_SACK:
                edges = [(number + flow.local_offset) & MASK for number in numbers]
                return struct.pack(f">BB{len(edges)}I", kind, 2 + 4 * len(edges), *edges)
            case wire.KIND_TIMESTAMPS:
                val, ecr = numbers
                return struct.pack(">BBII", kind, 10, val, flow.ts_to_wire(ecr) if flags & ACK else ecr)
        return bytes([kind, 2 + len(option.data)]) + option.data
