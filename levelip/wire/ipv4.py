"""The IPv4 header (RFC 791), every bit of it, and its options."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from levelip.wire.addr import format_ipv4
from levelip.wire.buffer import Buffer
from levelip.wire.build import maker
from levelip.wire.checksum import internet_checksum
from levelip.wire.errors import Malformed

IPV4_HEADER_LEN = 20
"""Bytes without options (RFC 791 3.1)."""
IPV4_MAX_HEADER_LEN = 60
IPV4_MAX_TOTAL_LENGTH = 65535

FLAG_RESERVED = 4
FLAG_DF = 2
FLAG_MF = 1

ECN_NOT_ECT = 0
ECN_ECT1 = 1
ECN_ECT0 = 2
ECN_CE = 3
"""RFC 3168 5."""


class Proto:
    """Values of the protocol field (IANA, protocol numbers); plain integers: compared once a packet."""

    ICMP: Final = 1
    IGMP: Final = 2
    TCP: Final = 6
    UDP: Final = 17
    IPV6: Final = 41
    GRE: Final = 47
    ICMPV6: Final = 58
    SCTP: Final = 132


_PROTO_NAMES = {value: name for name, value in vars(Proto).items() if name.isupper()}
_HEADER = struct.Struct(">BBHHHBBH4s4s")

# Option types, with the copied bit (RFC 791 3.1, RFC 2113).
OPTION_END = 0
OPTION_NOP = 1
OPTION_RECORD_ROUTE = 7
OPTION_TIMESTAMP = 68
OPTION_SECURITY = 130
OPTION_LOOSE_SOURCE_ROUTE = 131
OPTION_CIPSO = 134
OPTION_STREAM_ID = 136
OPTION_STRICT_SOURCE_ROUTE = 137
OPTION_ROUTER_ALERT = 148


def proto_name(proto: int) -> str:
    """ "TCP", or "proto 99" for one we do not know."""
    return _PROTO_NAMES.get(proto, f"proto {proto}")


@dataclass(frozen=True, slots=True)
class Ipv4Option:
    """One option: its type byte, and what follows its length byte. END and NOP have neither."""

    kind: int
    data: bytes = b""

    @property
    def copied(self) -> bool:
        """Whether fragments carry it too."""
        return bool(self.kind & 0x80)

    def serialize(self) -> bytes:
        if self.kind in (OPTION_END, OPTION_NOP):
            return bytes((self.kind,))
        return bytes((self.kind, len(self.data) + 2)) + self.data


def iter_options(options: Buffer) -> Iterator[Ipv4Option]:
    """The options in their order, NOPs included, up to END, which is given too; what follows it is padding.

    Malformed, at the place in `options`: `option_truncated` (its length byte or its data are missing),
    `option_bad_length` (a length below 2). Those before it have been given by then.
    """
    at = 0
    size = len(options)
    while at < size:
        kind = options[at]
        if kind in (OPTION_NOP, OPTION_END):
            yield Ipv4Option(kind)
            if kind == OPTION_END:
                return
            at += 1
            continue
        if at + 1 >= size:
            raise Malformed("ipv4", "option_truncated", at)
        length = options[at + 1]
        if length < 2:
            raise Malformed("ipv4", "option_bad_length", at)
        if at + length > size:
            raise Malformed("ipv4", "option_truncated", at)
        yield Ipv4Option(kind, bytes(options[at + 2 : at + length]))
        at += length


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipv4Header:
    """An IPv4 header.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |version|  ihl  |    dscp   |ecn|          total length         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |             ident             |R|D|M|     fragment offset     |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |      ttl      |     proto     |        header checksum        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                         source address                        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                      destination address                      |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |            options, padded to whole words (0-40 bytes)        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

    `ihl` counts 4-byte words, `total_length` bytes with this header, `frag_offset` units of 8 bytes; `flags`
    has three bits, FLAG_RESERVED, FLAG_DF and FLAG_MF. All is kept as it came: whether the version is 4, the
    checksum right or the lengths plausible is for the ip layer to judge.
    """

    version: int = 4
    ihl: int = 5
    dscp: int = 0
    ecn: int = 0
    total_length: int
    ident: int = 0
    flags: int = 0
    frag_offset: int = 0
    ttl: int = 64
    proto: int
    checksum: int = 0
    src: bytes
    dst: bytes
    options: bytes = b""

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> Ipv4Header:
        """The header at `offset`, its options kept raw. Payload starts `header.length` bytes after `offset`.

        Malformed: `truncated`, `ihl_too_small` (below 5 words), `options_truncated` (`ihl` says more than
        there is).
        """
        size = len(data) - offset
        if size < 20:
            raise Malformed("ipv4", "truncated", max(size, 0))
        first, tos, total_length, ident, fragment, ttl, proto, checksum, src, dst = _HEADER.unpack_from(data, offset)
        ihl = first & 15
        if ihl == 5:
            options = b""
        else:
            if ihl < 5:
                raise Malformed("ipv4", "ihl_too_small", 0)
            if size < ihl * 4:
                raise Malformed("ipv4", "options_truncated", size)
            options = bytes(data[offset + 20 : offset + ihl * 4])
        return _make(
            first >> 4,
            ihl,
            tos >> 2,
            tos & 3,
            total_length,
            ident,
            fragment >> 13,
            fragment & 0x1FFF,
            ttl,
            proto,
            checksum,
            src,
            dst,
            options,
        )

    @classmethod
    def build(
        cls,
        src: bytes,
        dst: bytes,
        *,
        proto: int,
        payload_length: int,
        ident: int = 0,
        ttl: int = 64,
        tos: int = 0,
        flags: int = 0,
        frag_offset: int = 0,
        options: bytes = b"",
    ) -> Ipv4Header:
        """A header for `payload_length` bytes, its lengths filled in and `options` padded with END; checksum
        0.
        """
        if len(options) & 3:
            options += bytes(-len(options) & 3)
        length = 20 + len(options)
        return _make(
            4,
            length >> 2,
            tos >> 2,
            tos & 3,
            length + payload_length,
            ident,
            flags,
            frag_offset,
            ttl,
            proto,
            0,
            src,
            dst,
            options,
        )

    def serialize(self, *, fill_checksum: bool = False) -> bytes:
        """The bytes of the header, with the checksum it holds or, on request, the right one.

        ValueError if a field does not fit its bits. `ihl` is written as it is, even if it belies the options.
        """
        ihl, dscp, ecn, flags, frag_offset = self.ihl, self.dscp, self.ecn, self.flags, self.frag_offset
        if (
            ihl > 15
            or ecn > 3
            or flags > 7
            or frag_offset > 0x1FFF
            or dscp > 63
            or (ihl | ecn | flags | frag_offset) < 0
        ):
            raise ValueError(f"a field of {self!r} does not fit")
        if len(self.src) != 4 or len(self.dst) != 4:
            raise ValueError("an IPv4 address has four bytes")
        try:
            head = _HEADER.pack(
                self.version << 4 | ihl,
                dscp << 2 | ecn,
                self.total_length,
                self.ident,
                flags << 13 | frag_offset,
                self.ttl,
                self.proto,
                0 if fill_checksum else self.checksum,
                self.src,
                self.dst,
            )
        except struct.error as error:
            raise ValueError(f"ipv4 header: {error}") from error
        if self.options:
            head += self.options
        if fill_checksum:
            return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:]
        return head

    @property
    def tos(self) -> int:
        """The byte that DSCP and ECN share (type of service in RFC 791)."""
        return self.dscp << 2 | self.ecn

    @property
    def length(self) -> int:
        """Bytes of this header, by `ihl`."""
        return self.ihl * 4

    @property
    def dont_fragment(self) -> bool:
        return bool(self.flags & FLAG_DF)

    @property
    def more_fragments(self) -> bool:
        return bool(self.flags & FLAG_MF)

    @property
    def is_fragment(self) -> bool:
        """Whether this is one of several pieces (RFC 791 3.2): not at offset 0, or more to come."""
        return bool(self.frag_offset or self.flags & FLAG_MF)

    def iter_options(self) -> Iterator[Ipv4Option]:
        """The options one by one; see `iter_options` of this module."""
        return iter_options(self.options)

    def __str__(self) -> str:
        flags = "".join(sign for bit, sign in ((4, "R"), (2, "DF"), (1, "+")) if self.flags & bit) or "none"
        options = f", options {self.options.hex()}" if self.options else ""
        return (
            f"{format_ipv4(self.src)} > {format_ipv4(self.dst)} {proto_name(self.proto)}, "
            f"tos 0x{self.tos:x}, ttl {self.ttl}, id {self.ident}, offset {self.frag_offset * 8}, "
            f"flags [{flags}], length {self.total_length}{options}"
        )


_make = maker(Ipv4Header)


def header_checksum_ok(data: Buffer, offset: int = 0) -> bool:
    """Whether the IPv4 header at `offset`, which must be whole, sums up to what its checksum says (RFC 791
    3.1).
    """
    return internet_checksum(data[offset : offset + (data[offset] & 15) * 4]) == 0
