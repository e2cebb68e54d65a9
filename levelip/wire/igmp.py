"""IGMP, versions 1 to 3 (RFC 1112 appendix I, RFC 2236 2, RFC 3376 4): who wants which multicast group."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from levelip.wire.addr import format_ipv4
from levelip.wire.buffer import Buffer
from levelip.wire.checksum import internet_checksum
from levelip.wire.errors import Malformed

IGMP_HEADER_LEN = 8
"""Bytes of a version 1 or 2 message, and of the fixed part of a version 3 report."""
QUERY_V3_LEN = 12
"""Bytes of a version 3 query without sources; a longer message than 8 bytes and shorter than this is none (7.1)."""

# Types (RFC 3376 4).
QUERY = 0x11
REPORT_V1 = 0x12
REPORT_V2 = 0x16
LEAVE = 0x17
REPORT_V3 = 0x22

# Kinds of group records (RFC 3376 4.2.12).
IS_INCLUDE = 1
IS_EXCLUDE = 2
TO_INCLUDE = 3
TO_EXCLUDE = 4
ALLOW_NEW = 5
BLOCK_OLD = 6

ALL_SYSTEMS = bytes((224, 0, 0, 1))
"""Every host is in it, always (RFC 1112 7.2, RFC 3376 5)."""
ALL_ROUTERS = bytes((224, 0, 0, 2))
"""Where version 2 leaves go (RFC 2236 3)."""
ALL_IGMPV3_ROUTERS = bytes((224, 0, 0, 22))
"""Where version 3 reports go (RFC 3376 4.2.14)."""

_RECORD_NAMES = {1: "is_in", 2: "is_ex", 3: "to_in", 4: "to_ex", 5: "allow", 6: "block"}  # as tcpdump
_HEADER = struct.Struct(">BBH4s")
_RECORD = struct.Struct(">BBH4s")


def decode_code(code: int) -> int:
    """The number in Max Resp Code or QQIC: itself below 128, else a float of 4 + 3 bits (RFC 3376 4.1.1, 4.1.7)."""
    if code < 128:
        return code
    return (code & 0x0F | 0x10) << ((code >> 4 & 0x07) + 3)


@dataclass(frozen=True, slots=True)
class IgmpMessage:
    """A query of any version, a version 1 or 2 report, or a leave.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     type      | max resp code |           checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                         group address                         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | resv  |S| QRV |     QQIC      |     number of sources (N)     |  version 3 queries only: `rest`
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                     source addresses ...                      |
    """

    type: int
    code: int
    group: bytes
    rest: bytes = b""
    checksum: int = 0

    @classmethod
    def query(
        cls, group: bytes = bytes(4), *, code: int = 100, robustness: int = 2, interval: int = 125,
        sources: tuple[bytes, ...] = (),
    ) -> IgmpMessage:  # fmt: skip
        """A version 3 query; `group` 0.0.0.0 makes it a general one."""
        rest = struct.pack(">BBH", robustness & 7, interval, len(sources)) + b"".join(sources)
        return cls(QUERY, code, group, rest)

    def serialize(self, *, fill_checksum: bool = False) -> bytes:
        """The bytes, with the checksum it holds or, on request, the right one. ValueError if a field does not fit."""
        if len(self.group) != 4:
            raise ValueError(f"a group has four bytes, not {len(self.group)}")
        try:
            data = _HEADER.pack(self.type, self.code, 0 if fill_checksum else self.checksum, self.group) + self.rest
        except struct.error as error:
            raise ValueError(f"igmp header: {error}") from error
        return _summed(data) if fill_checksum else data

    @property
    def checksum_ok(self) -> bool:
        return internet_checksum(self.serialize()) == 0

    @property
    def version(self) -> int:
        """Of a query, by its length and code (RFC 3376 7.1)."""
        if self.rest:
            return 3
        return 2 if self.code else 1

    @property
    def max_response_tenths(self) -> int:
        """Of a query, in tenths of a second: 10 s for version 1 (RFC 2236 4)."""
        if self.version == 1:
            return 100
        return decode_code(self.code) if self.version == 3 else self.code

    @property
    def robustness(self) -> int:
        """QRV of a version 3 query; 0: not said."""
        return self.rest[0] & 7 if self.rest else 0

    @property
    def interval_s(self) -> int:
        """Seconds between general queries, as a version 3 query says; 0: not said."""
        return decode_code(self.rest[1]) if self.rest else 0

    @property
    def sources(self) -> list[bytes]:
        """Of a group-and-source-specific query."""
        return [self.rest[at : at + 4] for at in range(4, len(self.rest) - 3, 4)]

    def __str__(self) -> str:
        if self.type == QUERY:
            text = f"igmp query v{self.version}"
            if self.version > 1 and self.max_response_tenths != 100:
                text += f" [max resp time {self.max_response_tenths / 10:g}s]"
            if any(self.group):
                text += f" [gaddr {format_ipv4(self.group)}{_braces(self.sources) if self.sources else ''}]"
            return text
        names = {REPORT_V1: "igmp v1 report", REPORT_V2: "igmp v2 report", LEAVE: "igmp leave"}
        name = names.get(self.type, f"igmp-{self.type:#x}")
        return f"{name} {format_ipv4(self.group)}"


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group in a version 3 report: what of it is wanted, from which sources."""

    kind: int
    group: bytes
    sources: tuple[bytes, ...] = ()
    aux: bytes = b""
    """Whole words that RFC 3376 gives no meaning (4.2.11)."""

    def serialize(self) -> bytes:
        if len(self.aux) & 3 or len(self.group) != 4 or any(len(source) != 4 for source in self.sources):
            raise ValueError(f"{self!r} does not fit")
        try:
            head = _RECORD.pack(self.kind, len(self.aux) // 4, len(self.sources), self.group)
        except struct.error as error:
            raise ValueError(f"igmp record: {error}") from error
        return head + b"".join(self.sources) + self.aux

    def __str__(self) -> str:
        kind = _RECORD_NAMES.get(self.kind, f"kind {self.kind}")
        return f"[gaddr {format_ipv4(self.group)} {kind}{_braces(self.sources)}]"


@dataclass(frozen=True, slots=True)
class IgmpReport:
    """A version 3 report.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  type = 0x22  |   reserved    |           checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           reserved            |  number of group records (M)  |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  record type  | aux data len  |     number of sources (N)     |
    |                       multicast address                       |
    |                     source addresses ...                      |
    |                      auxiliary data ...                       |   M times
    """

    records: tuple[GroupRecord, ...]
    checksum: int = 0
    reserved: bytes = bytes(3)
    """The second, fifth and sixth byte."""

    def serialize(self, *, fill_checksum: bool = False) -> bytes:
        """As IgmpMessage.serialize."""
        if len(self.reserved) != 3:
            raise ValueError("there are three reserved bytes")
        body = b"".join(record.serialize() for record in self.records)
        try:
            counts = struct.pack(">H", len(self.records))
            head = bytes((REPORT_V3, self.reserved[0])) + struct.pack(">H", 0 if fill_checksum else self.checksum)
        except struct.error as error:
            raise ValueError(f"igmp report: {error}") from error
        data = head + self.reserved[1:] + counts + body
        return _summed(data) if fill_checksum else data

    @property
    def checksum_ok(self) -> bool:
        return internet_checksum(self.serialize()) == 0

    def __str__(self) -> str:
        records = " ".join(str(record) for record in self.records)
        return f"igmp v3 report, {len(self.records)} group record(s){' ' if records else ''}{records}"


def parse_igmp(data: Buffer, offset: int = 0) -> IgmpMessage | IgmpReport:
    """The message from `offset` to the end of `data`.

    Malformed: `truncated`; `bad_query_length` (9 to 11 bytes, RFC 3376 7.1); `record_truncated`.
    """
    size = len(data) - offset
    if size < IGMP_HEADER_LEN:
        raise Malformed("igmp", "truncated", max(size, 0))
    type_, code, checksum, group = _HEADER.unpack_from(data, offset)
    if type_ != REPORT_V3:
        rest = bytes(data[offset + 8 :])
        if type_ == QUERY and rest:
            if len(rest) < QUERY_V3_LEN - IGMP_HEADER_LEN:
                raise Malformed("igmp", "bad_query_length", size)
            if len(rest) < 4 + 4 * (rest[2] << 8 | rest[3]):
                raise Malformed("igmp", "truncated", size)
        return IgmpMessage(type_, code, group, rest, checksum)
    records: list[GroupRecord] = []
    at = offset + IGMP_HEADER_LEN
    for _ in range(group[2] << 8 | group[3]):
        if len(data) < at + _RECORD.size:
            raise Malformed("igmp", "record_truncated", len(data) - offset)
        kind, aux_words, count, address = _RECORD.unpack_from(data, at)
        aux_at = at + _RECORD.size + 4 * count
        end = aux_at + 4 * aux_words
        if len(data) < end:
            raise Malformed("igmp", "record_truncated", len(data) - offset)
        sources = tuple(bytes(data[i : i + 4]) for i in range(at + _RECORD.size, aux_at, 4))
        records.append(GroupRecord(kind, address, sources, bytes(data[aux_at:end])))
        at = end
    return IgmpReport(tuple(records), checksum, bytes((code, group[0], group[1])))


def _summed(data: bytes) -> bytes:
    return data[:2] + internet_checksum(data).to_bytes(2, "big") + data[4:]


def _braces(sources: list[bytes] | tuple[bytes, ...]) -> str:
    return f" {{ {' '.join(format_ipv4(source) for source in sources)} }}" if sources else " { }"
