"""Fields without a fixed place: the options of IPv4 and TCP, and what ICMP and IGMP have behind their first words."""

from __future__ import annotations

import struct
from collections.abc import Callable

from levelip.tracing.fieldtypes import Field, Found, Kind, fixed, found
from levelip.tracing.view import View
from levelip.wire import icmp, igmp, options
from levelip.wire.ipv4 import (
    OPTION_LOOSE_SOURCE_ROUTE,
    OPTION_RECORD_ROUTE,
    OPTION_ROUTER_ALERT,
    OPTION_STRICT_SOURCE_ROUTE,
)

_N, _F, _A, _B = Kind.NUMBER, Kind.FLAG, Kind.IPV4, Kind.BYTES
Find = Callable[[View], list[Found]]
Option = tuple[int, int, int]
"""Kind, offset in the view's data, length; of one without a length byte 1."""


def walk_options(data: bytes, at: int, end: int) -> list[Option]:
    """The options from `at` to `end`, as far as they can be told apart; what follows an END is padding."""
    rows: list[Option] = []
    end = min(end, len(data))
    while at < end:
        kind = data[at]
        if kind <= 1:
            rows.append((kind, at, 1))
            if kind == 0:
                break
            at += 1
            continue
        if at + 1 >= end:
            break
        length = data[at + 1]
        if length < 2 or at + length > end:
            break
        rows.append((kind, at, length))
        at += length
    return rows


def tcp_options(view: View) -> list[Option]:
    """The TCP options of a view."""
    if view.tcp_options is None:
        at, data = view.tcp, view.data
        rows: list[Option] = []
        if at >= 0 and len(data) >= at + 20:
            rows = walk_options(data, at + 20, at + (data[at + 12] >> 2 & 0x3C))
        view.tcp_options = rows
    return view.tcp_options


def ip_options(view: View) -> list[Option]:
    """The IPv4 options of a view."""
    at, data = view.ip, view.data
    if at < 0 or len(data) < at + 20:
        return []
    return walk_options(data, at + 20, at + (data[at] & 15) * 4)


def _area(layer: str) -> Find:
    """All bytes between a header's fixed part and its end."""

    def find(view: View) -> list[Found]:
        at, data = getattr(view, layer), view.data
        if at < 0 or len(data) < at + 20:
            return []
        length = (data[at + 12] >> 2 & 0x3C) if layer == "tcp" else (data[at] & 15) * 4
        area = data[at + 20 : at + length]
        return [(area, at + 20, len(area))] if area else []

    return find


def _value(kind: int, length: int, offset: int, size: int) -> Find:
    """A number in a TCP option that has the right length."""

    def find(view: View) -> list[Found]:
        return [
            (int.from_bytes(view.data[at + offset : at + offset + size], "big"), at + offset, size)
            for one, at, actual in tcp_options(view)
            if one == kind and actual == length
        ]

    return find


def _there(kind: int) -> Find:
    def find(view: View) -> list[Found]:
        return [(True, at, length) for one, at, length in tcp_options(view) if one == kind]

    return find


def _body(kind: int, exactly: int = 0) -> Find:
    """The bytes of a TCP option behind kind and length, where there are some, or so many."""

    def find(view: View) -> list[Found]:
        return [
            (view.data[at + 2 : at + length], at + 2, length - 2)
            for one, at, length in tcp_options(view)
            if one == kind and (length == exactly + 2 if exactly else length > 2)
        ]

    return find


def _edges(first: int) -> Find:
    def find(view: View) -> list[Found]:
        rows: list[Found] = []
        for kind, at, length in tcp_options(view):
            if kind == options.KIND_SACK and length % 8 == 2:
                for edge in range(at + 2 + first, at + length, 8):
                    rows.append((struct.unpack_from(">I", view.data, edge)[0], edge, 4))
        return rows

    return find


def _sack_count(view: View) -> list[Found]:
    return [((length - 2) // 8, at + 1, 1) for kind, at, length in tcp_options(view) if kind == options.KIND_SACK]


def _multiplier(view: View) -> list[Found]:
    return [(1 << min(value, 14), at, 1) for value, at, _ in _value(options.KIND_WSCALE, 3, 2, 1)(view)]


def _kinds(view: View) -> list[Found]:
    return [(kind, at, 1) for kind, at, _ in tcp_options(view)]


def _lengths(view: View) -> list[Found]:
    return [(length, at + 1, 1) for kind, at, length in tcp_options(view) if kind > 1]


_EXPERIMENTS = (253, 254)  # RFC 4727, RFC 6994
_KNOWN = frozenset({
    options.KIND_EOL, options.KIND_NOP, options.KIND_MSS, options.KIND_WSCALE, options.KIND_SACK_PERMITTED,
    options.KIND_SACK, options.KIND_TIMESTAMPS, options.KIND_MD5, options.KIND_AO, options.KIND_MPTCP,
    options.KIND_FAST_OPEN, *_EXPERIMENTS,
})  # fmt: skip


def _experiments(view: View) -> list[Found]:
    return [
        (view.data[at + 2] << 8 | view.data[at + 3], at + 2, 2)
        for kind, at, length in tcp_options(view)
        if kind in _EXPERIMENTS and length >= 4
    ]


def _cookies(view: View) -> list[Found]:
    """Of the option that RFC 7413 has, and of the experiment that it was before (A.5)."""
    rows: list[Found] = []
    for kind, at, length in tcp_options(view):
        skip = 2 if kind == options.KIND_FAST_OPEN else 0
        if kind in _EXPERIMENTS and view.data[at + 2 : at + 4] == b"\xf9\x89":
            skip = 4
        if skip and length > skip:
            rows.append((view.data[at + skip : at + length], at + skip, length - skip))
    return rows


def _unknown(view: View) -> list[Found]:
    return [
        (view.data[at + 2 : at + length], at + 2, length - 2)
        for kind, at, length in tcp_options(view)
        if kind not in _KNOWN and length > 2
    ]


TCP_OPTIONS = [
    found("tcp.options", _B, "all options as they stand", _area("tcp")),
    found("tcp.option_kind", _N, "kind of each option (IANA)", _kinds, many=True, bits=8),
    found("tcp.option_len", _N, "length of each option that says it", _lengths, many=True, bits=8),
    found("tcp.options.nop", _F, "no operation", _there(options.KIND_NOP), many=True),
    found("tcp.options.eol", _F, "end of the options", _there(options.KIND_EOL)),
    found("tcp.options.mss", _F, "maximum segment size is there", _there(options.KIND_MSS), many=True),
    found("tcp.options.mss_val", _N, "maximum segment size", _value(options.KIND_MSS, 4, 2, 2), many=True, bits=16),
    found("tcp.options.wscale", _F, "window scale is there", _there(options.KIND_WSCALE), many=True),
    found("tcp.options.wscale.shift", _N, "window scale", _value(options.KIND_WSCALE, 3, 2, 1), many=True, bits=8),
    found("tcp.options.wscale.multiplier", _N, "what the window is multiplied with", _multiplier, many=True),
    found("tcp.options.sack_perm", _F, "SACK permitted", _there(options.KIND_SACK_PERMITTED), many=True),
    found("tcp.options.sack", _F, "SACK is there", _there(options.KIND_SACK), many=True),
    found("tcp.options.sack.count", _N, "blocks of it", _sack_count, many=True),
    found("tcp.options.sack_le", _N, "left edge of each block", _edges(0), many=True, bits=32),
    found("tcp.options.sack_re", _N, "right edge: the number after the last byte", _edges(4), many=True, bits=32),
    found("tcp.options.timestamp", _F, "timestamps are there", _there(options.KIND_TIMESTAMPS), many=True),
    found("tcp.options.timestamp.tsval", _N, "timestamp", _value(options.KIND_TIMESTAMPS, 10, 2, 4), many=True,
          bits=32),
    found("tcp.options.timestamp.tsecr", _N, "timestamp echoed", _value(options.KIND_TIMESTAMPS, 10, 6, 4), many=True,
          bits=32),
    found("tcp.options.md5", _F, "MD5 signature is there (RFC 2385)", _there(options.KIND_MD5), many=True),
    found("tcp.options.md5.digest", _B, "MD5 signature", _body(options.KIND_MD5, 16), many=True),
    found("tcp.options.ao", _F, "TCP-AO is there (RFC 5925)", _there(options.KIND_AO), many=True),
    found("tcp.options.mptcp", _F, "Multipath TCP is there (RFC 8684)", _there(options.KIND_MPTCP), many=True),
    found("tcp.options.tfo", _F, "Fast Open is there (RFC 7413)", _there(options.KIND_FAST_OPEN), many=True),
    found("tcp.options.tfo.cookie", _B, "Fast Open's cookie", _cookies, many=True),
    found("tcp.options.experimental.exid", _N, "experiment (RFC 6994)", _experiments, many=True, bits=16),
    found("tcp.options.unknown.payload", _B, "data of an option that we do not know", _unknown, many=True),
]  # fmt: skip


# IPv4's


def _ip_kinds(view: View) -> list[Found]:
    return [(kind, at, 1) for kind, at, _ in ip_options(view)]


def _ip_lengths(view: View) -> list[Found]:
    return [(length, at + 1, 1) for kind, at, length in ip_options(view) if kind > 1]


def _ip_pointers(view: View) -> list[Found]:
    routes = (OPTION_RECORD_ROUTE, OPTION_LOOSE_SOURCE_ROUTE, OPTION_STRICT_SOURCE_ROUTE, 68)
    return [(view.data[at + 2], at + 2, 1) for kind, at, size in ip_options(view) if kind in routes and size >= 3]


def _ip_route(*kinds: int) -> Find:
    """Addresses of a route; of a record route those before its pointer: the others are not recorded yet."""

    def find(view: View) -> list[Found]:
        return [
            (view.data[hop : hop + 4], hop, 4)
            for kind, at, length in ip_options(view)
            if kind in kinds
            for hop in range(at + 3, at + length - 3, 4)
            if kind != OPTION_RECORD_ROUTE or hop + 4 < at + view.data[at + 2]
        ]

    return find


def _router_alert(view: View) -> list[Found]:
    return [
        (view.data[at + 2] << 8 | view.data[at + 3], at + 2, 2)
        for kind, at, length in ip_options(view)
        if kind == OPTION_ROUTER_ALERT and length == 4
    ]


_TIMESTAMP = 68  # RFC 791 3.1, internet timestamp


def _ip_stamp_byte(mask: int) -> Find:
    """Overflow (high four bits) or flag (low four) of a timestamp option."""

    def find(view: View) -> list[Found]:
        shift = 4 if mask == 0xF0 else 0
        return [
            ((view.data[at + 3] & mask) >> shift, at + 3, 1)
            for kind, at, length in ip_options(view)
            if kind == _TIMESTAMP and length >= 4
        ]

    return find


def _ip_stamps(view: View) -> list[Found]:
    """Timestamps, ms since midnight UT; those not yet recorded too."""
    rows: list[Found] = []
    for kind, at, length in ip_options(view):
        if kind == _TIMESTAMP and length >= 4:
            step = 8 if view.data[at + 3] & 0x0F else 4  # flag 1, 3: each behind an address
            rows += [
                (struct.unpack_from(">I", view.data, stamp)[0], stamp, 4)
                for stamp in range(at + step, at + length - 3, step)
            ]
    return rows


IP_OPTIONS = [
    found("ip.options", _B, "all options as they stand (ours)", _area("ip")),
    found("ip.opt.type", _N, "type of each option", _ip_kinds, many=True, bits=8),
    found("ip.opt.len", _N, "length of each option that says it", _ip_lengths, many=True, bits=8),
    found("ip.opt.ptr", _N, "pointer of a route or timestamp option", _ip_pointers, many=True, bits=8),
    found("ip.opt.ra", _N, "router alert (RFC 2113)", _router_alert, many=True, bits=16),
    found("ip.opt.overflow", _N, "hosts that had no room in a timestamp option", _ip_stamp_byte(0xF0), bits=4),
    found("ip.opt.flag", _N, "kind of a timestamp option", _ip_stamp_byte(0x0F), bits=4),
    found("ip.opt.time_stamp", _N, "its timestamps, ms of the day", _ip_stamps, many=True, bits=32),
    found("ip.rec_rt", _A, "recorded route", _ip_route(OPTION_RECORD_ROUTE), many=True),
    found("ip.src_rt", _A, "source route", _ip_route(OPTION_LOOSE_SOURCE_ROUTE, OPTION_STRICT_SOURCE_ROUTE), many=True),
]


# ICMP's and IGMP's: which words there are depends on the type


def _word(name: str, kind: Kind, layer: str, offset: int, size: int, title: str, types: frozenset[int]) -> Field:
    """A field of fixed position that only messages of some types have."""
    plain = fixed(name, kind, layer, offset, size, title)
    read = plain.get

    def get(view: View) -> object:
        at = getattr(view, layer)
        if at < 0:
            return read(view)
        return read(view) if view.data[at] in types else None

    return Field(name, kind, title, get, bits=plain.bits, inner=True, place=plain.place)


_QUERIES = frozenset({icmp.ECHO, icmp.ECHO_REPLY, icmp.TIMESTAMP, icmp.TIMESTAMP_REPLY, icmp.INFO_REQUEST,
                      icmp.INFO_REPLY, icmp.ADDRESS_MASK, icmp.ADDRESS_MASK_REPLY})  # fmt: skip
ICMP_BODY = [
    _word("icmp.ident", _N, "icmp", 4, 2, "identifier of a query", _QUERIES),
    _word("icmp.seq", _N, "icmp", 6, 2, "sequence number of a query", _QUERIES),
    _word("icmp.mtu", _N, "icmp", 6, 2, "MTU of the next hop (RFC 1191)", frozenset({icmp.DEST_UNREACH})),
    _word("icmp.redir_gw", _A, "icmp", 4, 4, "gateway of a redirect", frozenset({icmp.REDIRECT})),
    _word("icmp.pointer", _N, "icmp", 4, 1, "byte that is wrong", frozenset({icmp.PARAMETER_PROBLEM})),
]

_OLD = frozenset({igmp.QUERY, igmp.REPORT_V1, igmp.REPORT_V2, igmp.LEAVE})


def _is(view: View, type_: int, least: int) -> bool:
    return view.igmp >= 0 and len(view.data) >= view.igmp + least and view.data[view.igmp] == type_


def _groups(view: View) -> list[tuple[int, int]]:
    """(offset, sources) of each group record of a version 3 report, as far as they go."""
    if not _is(view, igmp.REPORT_V3, 8):
        return []
    rows = []
    at, data = view.igmp + 8, view.data
    for _ in range(data[view.igmp + 6] << 8 | data[view.igmp + 7]):
        if len(data) < at + 8:
            break
        sources = data[at + 2] << 8 | data[at + 3]
        rows.append((at, sources))
        at += 8 + 4 * sources + 4 * data[at + 1]
    return rows


def _maddr(view: View) -> list[Found]:
    at = view.igmp
    if at >= 0 and len(view.data) >= at + 8 and view.data[at] in _OLD:
        return [(view.data[at + 4 : at + 8], at + 4, 4)]
    return [(view.data[row + 4 : row + 8], row + 4, 4) for row, _ in _groups(view)]


def _saddr(view: View) -> list[Found]:
    runs = [(row + 8, count) for row, count in _groups(view)]
    if _is(view, igmp.QUERY, 12):
        runs.append((view.igmp + 12, view.data[view.igmp + 10] << 8 | view.data[view.igmp + 11]))
    return [
        (view.data[at : at + 4], at, 4)
        for start, count in runs
        for at in range(start, min(start + 4 * count, len(view.data) - 3), 4)
    ]


def _source_counts(view: View) -> list[Found]:
    rows: list[Found] = [(count, row + 2, 2) for row, count in _groups(view)]
    if _is(view, igmp.QUERY, 12):
        at = view.igmp + 10
        rows.append((view.data[at] << 8 | view.data[at + 1], at, 2))
    return rows


def _query_bits(mask: int, offset: int = 8) -> Find:
    """Of a version 3 query (RFC 3376 4.1)."""

    def find(view: View) -> list[Found]:
        if not _is(view, igmp.QUERY, 12):
            return []
        at = view.igmp + offset
        value = view.data[at] & mask
        return [(value != 0 if mask == 0x08 else value, at, 1)]

    return find


def _record_types(view: View) -> list[Found]:
    return [(view.data[row], row, 1) for row, _ in _groups(view)]


def _record_count(view: View) -> list[Found]:
    at = view.igmp + 6
    return [(view.data[at] << 8 | view.data[at + 1], at, 2)] if _is(view, igmp.REPORT_V3, 8) else []


def _version(view: View) -> list[Found]:
    at = view.igmp
    if at < 0 or len(view.data) < at + 8:
        return []
    kind = view.data[at]
    if kind == igmp.QUERY:  # RFC 3376 7.1
        number = 3 if view.end - at >= 12 else 2 if view.data[at + 1] else 1
    else:
        number = {igmp.REPORT_V1: 1, igmp.REPORT_V2: 2, igmp.LEAVE: 2, igmp.REPORT_V3: 3}.get(kind, 0)
    return [(number, at, 1)] if number else []


def _tags(view: View) -> list[int]:
    """Offsets of the control fields of IEEE 802.1Q tags, outermost first."""
    rows = []
    at, data = 12, view.data
    while view.eth >= 0 and data[at : at + 2] in (b"\x81\x00", b"\x88\xa8") and len(data) >= at + 6:
        rows.append(at + 2)
        at += 4
    return rows


def _tag(mask: int, offset: int = 0) -> Find:
    shift = (mask & -mask).bit_length() - 1

    def find(view: View) -> list[Found]:
        rows: list[Found] = []
        for tag in _tags(view):
            value = (int.from_bytes(view.data[tag + offset : tag + offset + 2], "big") & mask) >> shift
            rows.append((value != 0 if mask == 0x1000 else value, tag + offset, 2))
        return rows

    return find


VLAN = [
    found("vlan.priority", _N, "priority", _tag(0xE000), many=True, bits=3, inner=False),
    found("vlan.dei", _F, "drop eligible", _tag(0x1000), many=True, inner=False),
    found("vlan.id", _N, "number of the VLAN", _tag(0x0FFF), many=True, bits=12, inner=False),
    found("vlan.etype", _N, "EtherType behind the tag", _tag(0xFFFF, 2), many=True, bits=16, inner=False),
]
IGMP_BODY = [
    _word("igmp.max_resp", _N, "igmp", 1, 1, "max response code", _OLD),
    found("igmp.version", _N, "version, by type and length", _version),
    found("igmp.maddr", _A, "group; of a version 3 report each", _maddr, many=True),
    found("igmp.num_grp_recs", _N, "group records of a version 3 report", _record_count, bits=16),
    found("igmp.record_type", _N, "kind of each of them", _record_types, many=True, bits=8),
    found("igmp.num_src", _N, "source addresses of a query, or of each record", _source_counts, many=True, bits=16),
    found("igmp.s", _F, "suppress router-side processing", _query_bits(0x08)),
    found("igmp.qrv", _N, "robustness of the querier", _query_bits(0x07), bits=3),
    found("igmp.qqic", _N, "query interval code of the querier", _query_bits(0xFF, 9), bits=8),
    found("igmp.saddr", _A, "source addresses", _saddr, many=True),
]
