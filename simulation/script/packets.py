"""Packets of a script and packets of the stack: made for injection, taken apart, compared.

A script counts from its own numbers. Each `Flow` (one pair of ports) knows how they map to those on the wire:

    our sequence numbers   wire = script + local_offset, learned from our SYN (sequence numbers, ACKs, SACK and ICMP)
    the peer's             as written
    our timestamps         the first one expected fixes the offset; those seen later are remembered one by one
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from levelip.frames.packet import Packet
from levelip.tracing.packetline.builder import Ends
from levelip.wire import options as wire
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import IgmpMessage, IgmpReport, parse_igmp
from levelip.wire.ipv4 import Ipv4Header, Proto, proto_name
from levelip.wire.segment import split_tcp
from levelip.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG, TcpHeader
from levelip.wire.udp import UDP_HEADER_LEN, UdpHeader
from simulation.script.internet import Row, compare_ip, ip_text
from simulation.script.language import TcpOption, TcpPacket, UdpPacket
from simulation.script.messages import other_text

MASK = 0xFFFF_FFFF
LETTERS = ((SYN, "S"), (FIN, "F"), (RST, "R"), (PSH, "P"), (URG, "U"), (ECE, "E"), (CWR, "W"), (AE, "A"), (ACK, "."))
"""In an order that packet lines can be read in: the dot is the last."""

_NUMBERS: dict[int, Callable[[bytes], bool]] = {
    wire.KIND_MSS: lambda body: len(body) == 2,
    wire.KIND_WSCALE: lambda body: len(body) == 1,
    wire.KIND_SACK: lambda body: len(body) > 0 and len(body) % 8 == 0,
    wire.KIND_TIMESTAMPS: lambda body: len(body) == 8,
}
"""Options that a script writes as numbers, and whether a body holds them."""


@dataclass(slots=True)
class Flow(Ends):
    """One connection, by its ports (ours, the peer's), and its numbers."""

    live_isn: int | None = None
    ts_script: int | None = None  # first timestamp that was expected, and what came
    ts_live: int = 0
    ts_map: dict[int, int] = field(default_factory=dict)  # script → wire
    ts_last: int = 0  # of the last segment that we sent

    def ts_to_script(self, live: int) -> int:
        """A timestamp of ours as the script counts them."""
        return live if self.ts_script is None else (live - self.ts_live + self.ts_script) & MASK

    def ts_to_wire(self, value: int) -> int:
        """What TSecr has to be for a script's value."""
        if value in self.ts_map:
            return self.ts_map[value]
        if self.ts_script is None:
            return self.ts_last  # none was expected with a number, so this can only mean the last one
        return (value - self.ts_script + self.ts_live) & MASK


@dataclass(slots=True)
class Captured:
    """A packet that the stack sent, as on the wire."""

    at: int
    data: bytes
    ip: Ipv4Header
    tcp: TcpHeader | None = None
    udp: UdpHeader | None = None
    icmp: IcmpMessage | None = None
    igmp: IgmpMessage | IgmpReport | None = None
    flow: Flow | None = None
    length: int = 0  # payload bytes
    seq: int = 0  # as the script counts
    joined: int = 1  # packets on the wire that it stands for

    @property
    def fragment(self) -> tuple[int, int] | None:
        """Which piece of its datagram it is, if not a whole one."""
        if not self.ip.is_fragment:
            return None
        start = self.ip.frag_offset * 8
        return start, start + len(self.data) - self.ip.ihl * 4


# from the stack


def wire_packets(packet: Packet, payload: bytes, *, whole: bool = False) -> list[bytes]:
    """The packets on the wire that a frame to link stands for, cut as a NIC would cut them (unless `whole`)."""
    if not whole and packet.gso_size and len(payload) > packet.gso_size:
        return [head + bytes(rest) for head, rest in split_tcp(packet.head, payload, packet.gso_size)]
    return [packet.head + payload]


def take_apart(data: bytes, at: int, flow_of: Callable[[int, int], Flow]) -> Captured:
    """A packet of ours; `flow_of` (our port, the peer's) finds its flow, which learns our ISN from a SYN."""
    ip = Ipv4Header.parse(data)
    found = Captured(at, data, ip)
    if ip.frag_offset:
        found.length = len(data) - ip.ihl * 4
    elif ip.proto == Proto.TCP:
        tcp = found.tcp = TcpHeader.parse(data, ip.ihl * 4)
        flow = found.flow = flow_of(tcp.src_port, tcp.dst_port)
        found.length = len(data) - ip.ihl * 4 - tcp.length
        if tcp.flags & SYN and flow.live_isn != tcp.seq:
            flow.live_isn = tcp.seq
            flow.local_offset = tcp.seq
        found.seq = (tcp.seq - flow.local_offset) & MASK
        stamps = wire.parse_options(tcp.options, strict=False).timestamps
        if stamps is not None:
            flow.ts_last = stamps[0]
    elif ip.proto == Proto.UDP:
        udp = found.udp = UdpHeader.parse(data[ip.ihl * 4 :])
        found.flow = flow_of(udp.src_port, udp.dst_port)
        found.length = udp.length - UDP_HEADER_LEN
    else:
        found.length = len(data) - ip.ihl * 4
        if ip.proto == Proto.ICMP:
            found.icmp = IcmpMessage.parse(data, ip.ihl * 4)
        elif ip.proto == Proto.IGMP:
            found.igmp = parse_igmp(data, ip.ihl * 4)
    return found


def join(first: Captured, second: Captured) -> Captured | None:
    """Two segments that follow one another, as the one that they could have been; None if they do not fit."""
    one, two = first.tcp, second.tcp
    if one is None or two is None or first.flow is not second.flow or first.fragment or second.fragment:
        return None
    steady = ~(PSH | FIN | CWR)
    same = (one.ack, one.window, one.flags & steady) == (two.ack, two.window, two.flags & steady)
    if not same or (one.seq + first.length) & MASK != two.seq or not second.length or one.flags & (FIN | SYN | RST):
        return None
    if one.options[:4] != two.options[:4]:
        return None
    flags = one.flags | two.flags & (PSH | FIN)
    joined = TcpHeader(
        src_port=one.src_port, dst_port=one.dst_port, seq=one.seq, ack=one.ack, flags=flags, window=one.window,
        urgent=one.urgent, options=one.options,
    )  # fmt: skip
    data = first.data + second.data[second.ip.ihl * 4 + two.length :]
    return Captured(
        first.at, data, first.ip, joined, flow=first.flow, length=first.length + second.length, seq=first.seq,
        joined=first.joined + 1,
    )  # fmt: skip


# texts, in the script's way


def flags_text(flags: int) -> str:
    """S. as packetdrill writes it."""
    return "".join(letter for bit, letter in LETTERS if flags & bit) or "-"


def seq_text(seq: int, length: int) -> str:
    return f"{seq}:{(seq + length) & MASK}({length})"


def option_text(option: TcpOption) -> str:
    """One option as a script has it."""
    numbers = option.numbers
    match option.kind:
        case wire.KIND_EOL:
            return "eol"
        case wire.KIND_NOP:
            return "nop"
        case kind if kind in _NUMBERS and not numbers:
            pass
        case wire.KIND_MSS:
            return f"mss {numbers[0]}"
        case wire.KIND_WSCALE:
            return f"wscale {numbers[0]}"
        case wire.KIND_SACK_PERMITTED:
            return "sackOK"
        case wire.KIND_SACK:
            pairs = zip(numbers[::2], numbers[1::2], strict=True)
            return "sack " + " ".join(f"{left}:{right}" for left, right in pairs)
        case wire.KIND_TIMESTAMPS:
            return f"TS val {numbers[0]} ecr {numbers[1]}"
        case wire.KIND_MD5:
            return f"md5 {option.data.hex()}"
        case wire.KIND_FAST_OPEN:
            return f"FO {option.data.hex()}".strip()
        case 254 if option.data[:2] == b"\xf9\x89":
            return f"FOEXP {option.data[2:].hex()}".strip()
    return f"option {option.kind} 0x{option.data.hex()}" if option.data else f"option {option.kind}"


def options_text(options: Sequence[TcpOption] | None) -> str:
    if options is None:
        return "<...>"
    return f"<{','.join(map(option_text, options))}>" if options else "none"


def read_options(raw: bytes, flow: Flow) -> tuple[TcpOption, ...]:
    """The options of a segment of ours, one by one and in the script's numbers."""
    found = []
    at = 0
    while at < len(raw):
        kind = raw[at]
        if kind <= wire.KIND_NOP:
            found.append(TcpOption(kind))
            at += 1
            if kind == wire.KIND_EOL:
                break
            continue
        if at + 1 == len(raw):
            break
        length = raw[at + 1]
        body = raw[at + 2 : at + length]
        at += max(length, 2)
        match kind:
            case _ if kind in _NUMBERS and not _NUMBERS[kind](body):
                found.append(TcpOption(kind, data=body))  # its numbers cannot be read
            case wire.KIND_MSS | wire.KIND_WSCALE:
                found.append(TcpOption(kind, (int.from_bytes(body, "big"),)))
            case wire.KIND_SACK:
                found.append(TcpOption(kind, struct.unpack(f">{len(body) // 4}I", body)))
            case wire.KIND_TIMESTAMPS:
                val, ecr = struct.unpack(">II", body)
                found.append(TcpOption(kind, (flow.ts_to_script(val), ecr)))
            case wire.KIND_SACK_PERMITTED:
                found.append(TcpOption(kind))
            case _:
                found.append(TcpOption(kind, data=body))
    return tuple(found)


def describe(packet: Captured) -> str:
    """A packet of ours as a script would expect it."""
    where = ip_text(packet.ip, packet.fragment)
    if packet.tcp is not None and packet.flow is not None:
        tcp = packet.tcp
        text = f"> {where}{flags_text(tcp.flags)} {seq_text(packet.seq, packet.length)}"
        if tcp.flags & ACK:
            text += f" ack {tcp.ack}"
        text += f" win {tcp.window}"
        if tcp.flags & URG:
            text += f" urg {tcp.urgent}"
        options = read_options(tcp.options, packet.flow)
        return f"{text} {options_text(options)}" if options else text
    if packet.udp is not None:
        return f"> {where}udp {packet.udp.src_port} > {packet.udp.dst_port} ({packet.length})"
    return f"> {where}{other_text(packet.ip, packet.icmp, packet.igmp, packet.length)}"


# comparison


def compare_tcp(spec: TcpPacket, got: Captured, *, tick_us: int, tolerance_us: float, push: bool = True) -> list[Row]:
    """Field by field; options and timestamps as packetdrill compares them. Without `push` PSH counts for
    nothing where there is data."""
    tcp, flow = got.tcp, got.flow
    rows = compare_ip(spec.ip, got.ip, got.fragment)
    if tcp is None or flow is None:
        kind = "icmp" if got.icmp is not None else proto_name(got.ip.proto).lower()
        if spec.ip.fragment is not None and got.fragment is not None and got.fragment[0]:
            return rows  # only the first fragment has a TCP header
        return [*rows, Row("protocol", "tcp", kind, True)]
    if spec.ports is not None:
        ports = (tcp.src_port, tcp.dst_port)
        rows.append(Row("ports", "{} > {}".format(*spec.ports), "{} > {}".format(*ports), ports != spec.ports))
    aside = 0 if push or not got.length else PSH
    differs = spec.flags & ~aside != tcp.flags & ~aside
    rows.append(Row("flags", flags_text(spec.flags), flags_text(tcp.flags), differs))
    if spec.ip.fragment is None:
        expected, came = seq_text(spec.seq, spec.length), seq_text(got.seq, got.length)
        rows.append(Row("seq", expected, came, expected != came))
    else:
        rows.append(Row("seq", str(spec.seq), str(got.seq), spec.seq != got.seq))
    if spec.flags & ACK or tcp.flags & ACK:
        came = str(tcp.ack) if tcp.flags & ACK else "none"
        expected = str(spec.ack or 0) if spec.flags & ACK else "none"
        rows.append(Row("ack", expected, came, expected != came))
    if spec.win is not None:
        rows.append(Row("win", str(spec.win), str(tcp.window), spec.win != tcp.window))
    else:
        rows.append(Row("win", "", str(tcp.window), False))
    if spec.urg is not None or tcp.urgent:
        rows.append(Row("urg", str(spec.urg or 0), str(tcp.urgent), (spec.urg or 0) != tcp.urgent))
    came_options = read_options(tcp.options, flow)
    differs = spec.options is not None and not _options_fit(spec.options, came_options, flow, tick_us, tolerance_us)
    rows.append(Row("options", options_text(spec.options), options_text(came_options), differs))
    return rows


def compare_udp(spec: UdpPacket, got: Captured) -> list[Row]:
    """Ports if the line has them, length, and whether the checksum is right."""
    rows = compare_ip(spec.ip, got.ip, got.fragment)
    udp = got.udp
    if udp is None:
        if spec.ip.fragment is not None and got.fragment is not None and got.fragment[0]:
            return rows  # only the first fragment has a UDP header
        return [*rows, Row("protocol", "udp", proto_name(got.ip.proto).lower(), True)]
    if spec.ports is not None:
        ports = (udp.src_port, udp.dst_port)
        rows.append(Row("ports", "{} > {}".format(*spec.ports), "{} > {}".format(*ports), ports != spec.ports))
    rows.append(Row("length", str(spec.length), str(got.length), spec.length != got.length))
    if udp.checksum and got.fragment is None:
        body = got.data[got.ip.ihl * 4 :]
        right = not internet_checksum(body, pseudo_header_sum(got.ip.src, got.ip.dst, Proto.UDP, len(body)))
        rows += [] if right else [Row("checksum", "right", "wrong", True)]
    return rows


def learn(spec: TcpPacket, got: Captured) -> None:
    """Remember what the script calls our numbers, from the segment that it expects here."""
    tcp, flow = got.tcp, got.flow
    if tcp is None or flow is None:
        return
    if spec.flags & tcp.flags & SYN and flow.live_isn == tcp.seq:
        flow.local_offset = (tcp.seq - spec.seq) & MASK
        got.seq = spec.seq
    stamps = wire.parse_options(tcp.options, strict=False).timestamps
    wanted = next((option for option in spec.options or () if option.kind == wire.KIND_TIMESTAMPS), None)
    if stamps is not None and wanted is not None:
        if flow.ts_script is None:
            flow.ts_script, flow.ts_live = wanted.numbers[0], stamps[0]
        flow.ts_map[wanted.numbers[0]] = stamps[0]


def _options_fit(
    expected: Sequence[TcpOption], came: Sequence[TcpOption], flow: Flow, tick_us: int, tolerance_us: float
) -> bool:
    if [option.kind for option in expected] != [option.kind for option in came]:
        return False
    for wanted, got in zip(expected, came, strict=True):
        if wanted.kind != wire.KIND_TIMESTAMPS:
            if wanted != got:
                return False
            continue
        if wanted.numbers[1] != got.numbers[1]:
            return False
        apart = (got.numbers[0] - wanted.numbers[0]) & MASK
        apart = min(apart, MASK + 1 - apart)
        if tick_us and apart * tick_us > tolerance_us:
            return False
    return True
