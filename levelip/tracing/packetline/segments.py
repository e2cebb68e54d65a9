"""Packet lines, from lark's trees: the words in brackets, segments, and (messages.py) ICMP, IGMP and the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lark import Token, Tree

from levelip.tracing.packetline.messages import MessageReader
from levelip.tracing.packetline.trees import address, fits, hex_bytes, script_error
from levelip.tracing.packetline.values import IpInfo, TcpOption, TcpPacket, UdpPacket
from levelip.wire import options as wire_options
from levelip.wire.ipv4 import OPTION_ROUTER_ALERT
from levelip.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG

FLAGS = {"F": FIN, "S": SYN, "R": RST, "P": PSH, ".": ACK, "U": URG, "E": ECE, "W": CWR, "A": AE}
KIND_EXPERIMENT = 254  # RFC 6994; packetdrill's FOEXP
FAST_OPEN_MAGIC = b"\xf9\x89"

ROUTER_ALERT = bytes((OPTION_ROUTER_ALERT, 4, 0, 0))  # RFC 2113 2.1
_FAULTS = {
    "bad_sum": "badsum", "bad_header_sum": "badipsum", "version": "version", "ihl": "ihl", "total": "total",
    "pad": "pad", "fill": "fill", "linkcast": "linkcast", "batch": "batch",
    "gso_size": "gso",
}  # fmt: skip


class PacketReader(MessageReader):
    """Trees of packet lines to values."""

    window_needed = True
    """Whether a segment to inject has to say its window."""

    def tcp_packet(self, tree: Tree[Token]) -> TcpPacket:
        inbound = str(tree.children[0]) == "<"
        known: dict[str, Any] = {"inbound": inbound}
        options_at: Any = tree
        for child in tree.children[1:]:
            assert isinstance(child, Tree)
            match child.data:
                case "ip_info":
                    known["ip"] = self.ip_info(child, inbound=inbound)
                case "ports":
                    known["ports"] = self.ports(child)
                case "flags":
                    known["flags"] = self.flags(child)
                case "seq":
                    known["seq"], known["length"] = self.seq(child)
                case "ack":
                    known["ack"] = self.number(child, 32)
                case "win" | "urg":
                    known[str(child.data)] = self.number(child, 16)
                case "any_options":
                    known["options"] = None
                    options_at = child
                case "options":
                    known["options"] = tuple(self.tcp_option(option) for option in child.children)
        packet = TcpPacket(**known)
        if inbound and packet.options is None:
            raise script_error(options_at, "<...> is for packets that are expected (>)")
        if inbound and packet.win is None and self.window_needed:
            raise script_error(tree, "an injected segment needs its window: win NUMBER")
        return packet

    @staticmethod
    def flags(tree: Tree[Token]) -> int:
        text = str(tree.children[0])
        if text == "-":
            return 0
        bits = 0
        for letter in text:
            if letter.isdigit():
                ace = int(letter)  # the three bits of AccECN, RFC 9768 3.1
                if ace > 7:
                    raise script_error(tree.children[0], f"{letter} does not fit into the three bits of ACE")
                bits |= (AE if ace & 4 else 0) | (CWR if ace & 2 else 0) | (ECE if ace & 1 else 0)
            elif letter not in FLAGS:
                raise script_error(tree.children[0], f"{letter!r} is no TCP flag; there are {' '.join(FLAGS)} and -")
            else:
                bits |= FLAGS[letter]
        return bits

    @staticmethod
    def number(tree: Tree[Token], bits: int) -> int:
        value = int(str(tree.children[0]))
        if not 0 <= value < 1 << bits:
            raise script_error(tree.children[0], f"{tree.data} {value} does not fit into {bits} bits")
        return value

    @staticmethod
    def ports(tree: Tree[Token]) -> tuple[int, int]:
        source, target = (int(str(token)) for token in tree.children)
        if not (0 <= source <= 65_535 and 0 <= target <= 65_535):
            raise script_error(tree, "a port is a number up to 65535")
        return source, target

    def ip_info(self, tree: Tree[Token], *, inbound: bool) -> IpInfo:
        info = IpInfo()
        for word in tree.children:
            assert isinstance(word, Tree)
            first = str(word.children[0]) if word.children else ""
            match word.data:
                case "ecn":
                    if first == "ect01" and inbound:
                        raise script_error(word, "[ect01] is for packets that are expected (>)")
                    info = replace(info, ecn=first)
                case "tos":
                    info = replace(info, tos=int(first, 16) & 0xFF)
                case "ttl":
                    info = replace(info, ttl=self.number(word, 8))
                case "flowlabel":
                    raise script_error(word, "flow labels are IPv6's, which the stack does not have yet")
                case "ip_id":
                    info = replace(info, ident=self.number(word, 16))
                case "fragment":
                    start, stop = (int(str(token)) for token in word.children)
                    if not 0 <= start < stop <= 65_535:
                        raise script_error(word, "frag START:END: bytes of the IP payload")
                    if start % 8:
                        raise script_error(word, "a fragment starts at a multiple of 8 bytes (RFC 791 3.1)")
                    info = replace(info, fragment=(start, stop))
                case "more_fragments":
                    info = replace(info, more_fragments=True)
                case "dont_fragment":
                    info = replace(info, dont_fragment=True)
                case "may_fragment":
                    info = replace(info, dont_fragment=False)
                case "from_address" | "to_address":
                    end = address(word.children[0])
                    info = replace(info, src=end) if word.data == "from_address" else replace(info, dst=end)
                case "ip_option" | "ip_nop" | "ip_eol" | "ip_alert":
                    info = replace(info, options=info.options + self.ip_option(word))
                    if len(info.options) > 40:
                        raise script_error(word, "there is room for 40 bytes of options (RFC 791 3.1)")
                case _ if not inbound:
                    raise script_error(word, f"[{_FAULTS[str(word.data)]}] is for packets that are injected (<)")
                case "bad_sum":
                    info = replace(info, bad_sum=True)
                case "bad_header_sum":
                    info = replace(info, bad_header_sum=True)
                case "version":
                    info = replace(info, version=self.number(word, 4))
                case "ihl":
                    info = replace(info, ihl=self.number(word, 4))
                case "total":
                    info = replace(info, total=self.number(word, 16))
                case "pad":
                    info = replace(info, pad=self.number(word, 16))
                case "fill":
                    info = replace(info, fill=int(first, 16) & 0xFF)
                case "linkcast":
                    info = replace(info, linkcast=True)
                case "gso_size":
                    info = replace(info, gso_size=self.number(word, 16))
                case "batch":
                    info = replace(info, batch=True)
        return info

    @staticmethod
    def ip_option(tree: Tree[Token]) -> bytes:
        if tree.data == "ip_nop":
            return b"\x01"
        if tree.data == "ip_eol":
            return b"\x00"
        if tree.data == "ip_alert":
            return ROUTER_ALERT
        kind, *data = (str(child) for child in tree.children)
        body = hex_bytes(tree, data[0][2:]) if data else b""
        return bytes((fits(tree, int(kind), 8), len(body) + 2)) + body

    @staticmethod
    def tcp_option(tree: Any) -> TcpOption:
        children = tree.children
        numbers = [int(str(child)) for child in children if isinstance(child, Token) and child.type == "INT"]
        blob = next((str(child) for child in children if isinstance(child, Token) and child.type != "INT"), "")
        match tree.data:
            case "nop":
                return TcpOption(wire_options.KIND_NOP)
            case "eol":
                return TcpOption(wire_options.KIND_EOL)
            case "sack_ok":
                return TcpOption(wire_options.KIND_SACK_PERMITTED)
            case "mss":
                return TcpOption(wire_options.KIND_MSS, (fits(tree, numbers[0], 16),))
            case "wscale":
                return TcpOption(wire_options.KIND_WSCALE, (fits(tree, numbers[0], 8),))
            case "timestamps":
                return TcpOption(wire_options.KIND_TIMESTAMPS, tuple(fits(tree, number, 32) for number in numbers))
            case "sack":
                edges = [fits(tree, int(str(edge)), 32) for block in children for edge in block.children]
                return TcpOption(wire_options.KIND_SACK, tuple(edges))
            case "other_option":
                kind = fits(tree, numbers[0], 8)
                return TcpOption(kind, data=hex_bytes(tree, blob[2:]))
            case "md5":
                return TcpOption(wire_options.KIND_MD5, data=hex_bytes(tree, blob))
            case "fast_open":
                return TcpOption(wire_options.KIND_FAST_OPEN, data=hex_bytes(tree, "".join(map(str, children))))
        return TcpOption(KIND_EXPERIMENT, data=FAST_OPEN_MAGIC + hex_bytes(tree, "".join(map(str, children))))

    def udp_packet(self, tree: Tree[Token]) -> UdpPacket:
        inbound = str(tree.children[0]) == "<"
        length = fits(tree, int(str(tree.children[-1])), 16)
        ports = next((self.ports(child) for child in tree.find_data("ports")), None)
        info = next((self.ip_info(child, inbound=inbound) for child in tree.find_data("ip_info")), IpInfo())
        return UdpPacket(inbound, length, ports, info)

    @staticmethod
    def encapsulated(tree: Tree[Token]) -> TcpPacket:
        raise script_error(tree, "packets inside of packets are not supported")
