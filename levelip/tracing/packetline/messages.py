"""Lines of ICMP, IGMP and other protocols, from lark's trees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lark import Token, Tree

from levelip.tracing.packetline.trees import address, fits, hex_bytes, script_error
from levelip.tracing.packetline.values import IcmpPacket, IgmpPacket, IpInfo, OtherPacket
from levelip.wire import icmp as wire_icmp
from levelip.wire import igmp as wire_igmp
from levelip.wire.igmp import GroupRecord, IgmpMessage, IgmpReport

ICMP_TYPES = {
    "echo_reply": wire_icmp.ECHO_REPLY, "unreachable": wire_icmp.DEST_UNREACH,
    "source_quench": wire_icmp.SOURCE_QUENCH, "redirect": wire_icmp.REDIRECT, "echo_request": wire_icmp.ECHO,
    "time_exceeded": wire_icmp.TIME_EXCEEDED, "parameter_problem": wire_icmp.PARAMETER_PROBLEM,
    "timestamp_request": wire_icmp.TIMESTAMP, "timestamp_reply": wire_icmp.TIMESTAMP_REPLY,
    "information_request": wire_icmp.INFO_REQUEST, "information_reply": wire_icmp.INFO_REPLY,
    "address_mask_request": wire_icmp.ADDRESS_MASK, "address_mask_reply": wire_icmp.ADDRESS_MASK_REPLY,
}  # fmt: skip
ICMP_CODES = {
    wire_icmp.DEST_UNREACH: (
        "net_unreachable", "host_unreachable", "protocol_unreachable", "port_unreachable", "frag_needed",
        "source_route_failed", "net_unknown", "host_unknown", "source_host_isolated", "net_prohibited",
        "host_prohibited", "net_unreachable_for_tos", "host_unreachable_for_tos", "packet_filtered",
        "precedence_violation", "precedence_cutoff",
    ),
    wire_icmp.TIME_EXCEEDED: ("ttl_exceeded", "reassembly_time_exceeded"),
    wire_icmp.PARAMETER_PROBLEM: ("pointer", "option_missing", "bad_length"),
}  # fmt: skip
IGMP_NAMES = {
    "v1_query": wire_igmp.QUERY, "v2_query": wire_igmp.QUERY, "v3_query": wire_igmp.QUERY,
    "v1_report": wire_igmp.REPORT_V1, "v2_report": wire_igmp.REPORT_V2, "leave": wire_igmp.LEAVE,
    "v3_report": wire_igmp.REPORT_V3,
}  # fmt: skip
IGMP_RECORDS = {
    "is_in": wire_igmp.IS_INCLUDE, "is_ex": wire_igmp.IS_EXCLUDE, "to_in": wire_igmp.TO_INCLUDE,
    "to_ex": wire_igmp.TO_EXCLUDE, "allow": wire_igmp.ALLOW_NEW, "block": wire_igmp.BLOCK_OLD,
}  # fmt: skip
_BELONGS = {
    "mtu": ((wire_icmp.DEST_UNREACH,), "`unreachable frag_needed` alone (RFC 1191 4)"),
    "pointer": ((wire_icmp.PARAMETER_PROBLEM,), "parameter_problem"),
    "via": ((wire_icmp.REDIRECT,), "redirect"),
    "quoted_words": (
        (wire_icmp.DEST_UNREACH, wire_icmp.TIME_EXCEEDED, wire_icmp.PARAMETER_PROBLEM),
        "unreachable, time_exceeded and parameter_problem (RFC 4884 4)",
    ),
}


class MessageReader:
    """Trees of such lines to values."""

    def ip_info(self, tree: Tree[Token], *, inbound: bool) -> IpInfo:
        """The words in brackets: PacketReader reads them."""
        raise NotImplementedError

    def icmp_packet(self, tree: Tree[Token]) -> IcmpPacket:
        inbound = str(tree.children[0]) == "<"
        words = [child for child in tree.children[1:] if isinstance(child, Token)]
        kind = _number(words[0], "ICMP type", ICMP_TYPES)
        codes = {name: number for number, name in enumerate(ICMP_CODES.get(kind, ()))}
        code = _number(words[1], "ICMP code", codes) if len(words) > 1 else 0
        known: dict[str, Any] = {}
        for child in tree.children[1:]:
            if not isinstance(child, Tree):
                continue
            name = str(child.data)
            first = child.children[0]
            types, whose = _BELONGS.get(name, ((kind,), ""))
            if kind not in types or (name == "mtu" and code != wire_icmp.FRAG_NEEDED):
                raise script_error(child, f"{name.replace('quoted_words', 'length')} belongs to {whose}")
            match name:
                case "ip_info":
                    known["ip"] = self.ip_info(child, inbound=inbound)
                case "mtu" | "echo_id" | "echo_seq":
                    known[name] = fits(child, int(str(first)), 16)
                case "pointer":
                    known["pointer"] = fits(child, int(str(first)), 8)
                case "quoted_words":
                    known["words"] = fits(child, int(str(first)), 8)
                case "via":
                    known["via"] = address(first)
                case "extension":
                    known["extension"] = hex_bytes(child, str(first)[2:])
                case "quoted":
                    known |= self._quoted(child)
        return IcmpPacket(inbound, kind, code, **known)

    def _quoted(self, tree: Tree[Token]) -> dict[str, Any]:
        first = tree.children[0]
        if isinstance(first, Tree):
            return {"quoted": self.seq(first)}
        if first.type == "HEX":
            return {"raw": hex_bytes(first, str(first)[2:])}
        if str(first) == "udp":
            raise script_error(first, "a datagram is quoted as [packet(28)]")
        return {"packet" if str(first) == "packet" else "size": fits(tree, int(str(tree.children[1])), 16)}

    @staticmethod
    def seq(tree: Tree[Token]) -> tuple[int, int]:
        """First sequence number, and length."""
        start, end, length = (int(str(token)) for token in tree.children)
        if not (0 <= start <= 0xFFFF_FFFF and 0 <= end <= 0xFFFF_FFFF):
            raise script_error(tree, "a sequence number has 32 bits")
        if not 0 <= length <= 65_495:
            raise script_error(tree, "no IPv4 packet holds so much")
        if (start + length) & 0xFFFF_FFFF != end:
            raise script_error(tree, f"{start}:{end}({length}): {start} + {length} is not {end}")
        return start, length

    def igmp_packet(self, tree: Tree[Token]) -> IgmpPacket:
        inbound = str(tree.children[0]) == "<"
        info = IpInfo()
        word: Any = None
        numbers = {"igmp_max": 0, "igmp_qrv": 2, "igmp_qqic": 125}
        group, extra = bytes(4), b""
        sources: tuple[bytes, ...] = ()
        records: tuple[GroupRecord, ...] = ()
        given = set()
        for child in tree.children[1:]:
            if isinstance(child, Token):
                word = child
                continue
            name = str(child.data)
            given.add(name)
            match name:
                case "ip_info":
                    info = self.ip_info(child, inbound=inbound)
                case "igmp_max" | "igmp_qrv" | "igmp_qqic":
                    numbers[name] = fits(child, int(str(child.children[0])), 8)
                case "igmp_group":
                    group = address(child.children[0])
                case "igmp_sources":
                    sources = tuple(address(source) for source in child.children)
                case "igmp_extra":
                    extra = hex_bytes(child, str(child.children[0])[2:])
                case "records":
                    records = tuple(self._record(record) for record in child.children)
        kind = _number(word, "IGMP type", IGMP_NAMES)
        only_v3 = given & {"igmp_qrv", "igmp_qqic", "igmp_sources"}
        if (only_v3 and str(word) != "v3_query") or ("records" in given and kind != wire_igmp.REPORT_V3):
            raise script_error(word, f"qrv, qqic, sources belong to v3_query, <records> to v3_report; this is {word}")
        if kind == wire_igmp.REPORT_V3:
            return IgmpPacket(inbound, IgmpReport(records), info)
        message = IgmpMessage(kind, numbers["igmp_max"], group, extra)
        if str(word) == "v3_query":
            message = IgmpMessage.query(
                group, code=numbers["igmp_max"], robustness=numbers["igmp_qrv"], interval=numbers["igmp_qqic"],
                sources=sources,
            )  # fmt: skip
            message = IgmpMessage(message.type, message.code, group, message.rest + extra)
        return IgmpPacket(inbound, message, info)

    @staticmethod
    def _record(tree: Any) -> GroupRecord:
        kind, group, *sources = tree.children
        if str(kind) not in IGMP_RECORDS:
            raise script_error(kind, f"{str(kind)!r} is no kind of group record; there are {', '.join(IGMP_RECORDS)}")
        return GroupRecord(IGMP_RECORDS[str(kind)], address(group), tuple(address(source) for source in sources))

    def other_packet(self, tree: Tree[Token]) -> OtherPacket:
        inbound = str(tree.children[0]) == "<"
        infos = [child for child in tree.children if isinstance(child, Tree)]
        proto, what = [child for child in tree.children[1:] if isinstance(child, Token)]
        info = self.ip_info(infos[0], inbound=inbound) if infos else IpInfo()
        number = fits(proto, int(str(proto)), 8)
        if what.type == "HEX":
            data = hex_bytes(what, str(what)[2:])
            return OtherPacket(inbound, number, len(data), data, info)
        return OtherPacket(inbound, number, fits(what, int(str(what)), 16), None, info)


def _number(token: Token, what: str, names: Mapping[str, int]) -> int:
    """A number by its name, or as type_N, code_N."""
    text = str(token)
    prefix = what.split()[1]
    if text in names:
        return names[text]
    match = re.fullmatch(rf"{prefix}_(\d+)", text)
    if match is None or int(match[1]) > 255:
        known = ", ".join(names) or f"{prefix}_N"
        raise script_error(token, f"{text!r} is no {what}; there are {known}")
    return int(match[1])
