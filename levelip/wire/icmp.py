"""ICMP for IPv4 (RFC 792; next-hop MTU RFC 1191; further codes RFC 1122 3.2.2.1, RFC 1812 5.2.7.1)."""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from levelip.wire.addr import format_ipv4
from levelip.wire.buffer import Buffer
from levelip.wire.checksum import internet_checksum
from levelip.wire.errors import Malformed

ICMP_HEADER_LEN = 8
"""Bytes."""

# Types, named as in linux/icmp.h.
ECHO_REPLY = 0
DEST_UNREACH = 3
SOURCE_QUENCH = 4
REDIRECT = 5
ECHO = 8
ROUTER_ADVERTISEMENT = 9
ROUTER_SOLICITATION = 10
TIME_EXCEEDED = 11
PARAMETER_PROBLEM = 12
TIMESTAMP = 13
TIMESTAMP_REPLY = 14
INFO_REQUEST = 15
INFO_REPLY = 16
ADDRESS_MASK = 17
ADDRESS_MASK_REPLY = 18

# Codes of DEST_UNREACH.
NET_UNREACH = 0
HOST_UNREACH = 1
PROT_UNREACH = 2
PORT_UNREACH = 3
FRAG_NEEDED = 4
SR_FAILED = 5
NET_UNKNOWN = 6
HOST_UNKNOWN = 7
HOST_ISOLATED = 8
NET_ANO = 9
HOST_ANO = 10
NET_UNR_TOS = 11
HOST_UNR_TOS = 12
PKT_FILTERED = 13
PREC_VIOLATION = 14
PREC_CUTOFF = 15

# Codes of REDIRECT.
REDIR_NET = 0
REDIR_HOST = 1
REDIR_NETTOS = 2
REDIR_HOSTTOS = 3

# Codes of TIME_EXCEEDED.
EXC_TTL = 0
EXC_FRAGTIME = 1

# Codes of PARAMETER_PROBLEM (RFC 792, RFC 1108, RFC 1122 3.2.2.5).
PARAM_POINTER = 0
PARAM_OPTION_MISSING = 1
PARAM_BAD_LENGTH = 2

ERROR_TYPES = frozenset({DEST_UNREACH, SOURCE_QUENCH, REDIRECT, TIME_EXCEEDED, PARAMETER_PROBLEM})

_UNREACHABLE_ERRNO = {
    NET_UNREACH: errno.ENETUNREACH, PROT_UNREACH: errno.ENOPROTOOPT, PORT_UNREACH: errno.ECONNREFUSED,
    FRAG_NEEDED: errno.EMSGSIZE, SR_FAILED: errno.EOPNOTSUPP, NET_UNKNOWN: errno.ENETUNREACH,
    HOST_UNKNOWN: errno.EHOSTDOWN, HOST_ISOLATED: errno.ENONET, NET_ANO: errno.ENETUNREACH,
    NET_UNR_TOS: errno.ENETUNREACH,
}  # fmt: skip


def unreachable_errno(code: int) -> int:
    """What "destination unreachable" of this code is to a program, as Linux (net/ipv4/icmp.c, icmp_err_convert)."""
    return _UNREACHABLE_ERRNO.get(code, errno.EHOSTUNREACH)

"""Those that report on a datagram, which they carry, and are never answered by another (RFC 1122 3.2.2)."""

_TYPE_NAMES = {
    ECHO_REPLY: "echo reply",
    DEST_UNREACH: "destination unreachable",
    SOURCE_QUENCH: "source quench",
    REDIRECT: "redirect",
    ECHO: "echo request",
    ROUTER_ADVERTISEMENT: "router advertisement",
    ROUTER_SOLICITATION: "router solicitation",
    TIME_EXCEEDED: "time exceeded",
    PARAMETER_PROBLEM: "parameter problem",
    TIMESTAMP: "timestamp request",
    TIMESTAMP_REPLY: "timestamp reply",
    INFO_REQUEST: "information request",
    INFO_REPLY: "information reply",
    ADDRESS_MASK: "address mask request",
    ADDRESS_MASK_REPLY: "address mask reply",
}

_CODE_NAMES = {
    (DEST_UNREACH, NET_UNREACH): "network unreachable",
    (DEST_UNREACH, HOST_UNREACH): "host unreachable",
    (DEST_UNREACH, PROT_UNREACH): "protocol unreachable",
    (DEST_UNREACH, PORT_UNREACH): "port unreachable",
    (DEST_UNREACH, FRAG_NEEDED): "fragmentation needed",
    (DEST_UNREACH, SR_FAILED): "source route failed",
    (DEST_UNREACH, NET_UNKNOWN): "network unknown",
    (DEST_UNREACH, HOST_UNKNOWN): "host unknown",
    (DEST_UNREACH, HOST_ISOLATED): "source host isolated",
    (DEST_UNREACH, NET_ANO): "network prohibited",
    (DEST_UNREACH, HOST_ANO): "host prohibited",
    (DEST_UNREACH, NET_UNR_TOS): "network unreachable for this type of service",
    (DEST_UNREACH, HOST_UNR_TOS): "host unreachable for this type of service",
    (DEST_UNREACH, PKT_FILTERED): "packet filtered",
    (DEST_UNREACH, PREC_VIOLATION): "precedence violation",
    (DEST_UNREACH, PREC_CUTOFF): "precedence cutoff",
    (REDIRECT, REDIR_NET): "redirect for network",
    (REDIRECT, REDIR_HOST): "redirect for host",
    (REDIRECT, REDIR_NETTOS): "redirect for type of service and network",
    (REDIRECT, REDIR_HOSTTOS): "redirect for type of service and host",
    (TIME_EXCEEDED, EXC_TTL): "time to live exceeded",
    (TIME_EXCEEDED, EXC_FRAGTIME): "fragment reassembly time exceeded",
    (PARAMETER_PROBLEM, PARAM_POINTER): "parameter problem",
    (PARAMETER_PROBLEM, PARAM_OPTION_MISSING): "required option missing",
    (PARAMETER_PROBLEM, PARAM_BAD_LENGTH): "parameter problem, bad length",
}

_HEADER = struct.Struct(">BBH4s")
_TWO_SHORTS = struct.Struct(">HH")


def icmp_name(type_: int, code: int) -> str:
    """ "host unreachable"; "destination unreachable, code 77" or "type 99, code 0" for unknown ones."""
    if name := _CODE_NAMES.get((type_, code)):
        return name
    name = _TYPE_NAMES.get(type_, f"type {type_}")
    return name if code == 0 and type_ in _TYPE_NAMES else f"{name}, code {code}"


@dataclass(frozen=True, slots=True)
class IcmpMessage:
    """An ICMP message; what the four bytes `rest` mean depends on its type.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |     type      |     code      |           checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           ident               |           sequence            |  echo, timestamp
    |           unused              |         next-hop MTU          |  fragmentation needed (RFC 1191 4)
    |    pointer    |                   unused                      |  parameter problem
    |                        gateway address                        |  redirect
    |                            unused                             |  time exceeded, unreachable
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  payload: the echoed data, or the datagram that is reported on: its header and at least 8 bytes  ...

    The accessors `ident`, `sequence`, `mtu`, `pointer` and `gateway` read `rest` in their way, whatever the
    type is; asking is right only where the picture says so.
    """

    type: int
    code: int = 0
    rest: bytes = bytes(4)
    payload: bytes = b""
    checksum: int = 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> IcmpMessage:
        """The message from `offset` to the end of `data`. Malformed: `truncated`.

        Whether the checksum is right, the receiver asks `checksum_ok`; whether an error message holds enough
        of the datagram it is about, it sees when parsing that.
        """
        size = len(data) - offset
        if size < ICMP_HEADER_LEN:
            raise Malformed("icmp", "truncated", max(size, 0))
        type_, code, checksum, rest = _HEADER.unpack_from(data, offset)
        return cls(type_, code, rest, bytes(data[offset + 8 :]), checksum)

    def serialize(self, *, fill_checksum: bool = False) -> bytes:
        """Header and payload, with the checksum it holds or, on request, the right one.

        ValueError if a field does not fit.
        """
        if len(self.rest) != 4:
            raise ValueError(f"the rest of an ICMP header has four bytes, not {len(self.rest)}")
        try:
            data = _HEADER.pack(self.type, self.code, 0 if fill_checksum else self.checksum, self.rest) + self.payload
        except struct.error as error:
            raise ValueError(f"icmp header: {error}") from error
        if fill_checksum:
            return data[:2] + internet_checksum(data).to_bytes(2, "big") + data[4:]
        return data

    @property
    def checksum_ok(self) -> bool:
        """Whether `checksum` is that of the message."""
        return internet_checksum(self.serialize()) == 0

    @classmethod
    def echo_request(cls, *, ident: int, sequence: int, payload: bytes = b"") -> IcmpMessage:
        return cls(ECHO, 0, _TWO_SHORTS.pack(ident, sequence), payload)

    @classmethod
    def echo_reply(cls, request: IcmpMessage) -> IcmpMessage:
        """The answer to `request`: all of its data, ident and sequence returned (RFC 1122 3.2.2.6)."""
        return cls(ECHO_REPLY, 0, request.rest, request.payload)

    @classmethod
    def dest_unreachable(cls, code: int, original: bytes, *, mtu: int = 0) -> IcmpMessage:
        """`original`: the head of the datagram that could not go on; `mtu` (FRAG_NEEDED): of the next hop."""
        return cls(DEST_UNREACH, code, _TWO_SHORTS.pack(0, mtu), original)

    @classmethod
    def time_exceeded(cls, code: int, original: bytes) -> IcmpMessage:
        return cls(TIME_EXCEEDED, code, bytes(4), original)

    @classmethod
    def parameter_problem(cls, pointer: int, original: bytes, *, code: int = PARAM_POINTER) -> IcmpMessage:
        """`pointer`: the byte of `original` that is wrong."""
        return cls(PARAMETER_PROBLEM, code, bytes((pointer, 0, 0, 0)), original)

    @classmethod
    def redirect(cls, code: int, original: bytes, *, gateway: bytes) -> IcmpMessage:
        """`gateway`: where the datagram should rather go."""
        return cls(REDIRECT, code, gateway, original)

    @property
    def is_error(self) -> bool:
        """Whether this reports on a datagram, and so must never be answered by an error (RFC 1122 3.2.2)."""
        return self.type in ERROR_TYPES

    @property
    def ident(self) -> int:
        return self.rest[0] << 8 | self.rest[1]

    @property
    def sequence(self) -> int:
        return self.rest[2] << 8 | self.rest[3]

    @property
    def mtu(self) -> int:
        """Bytes; 0 from routers older than RFC 1191."""
        return self.rest[2] << 8 | self.rest[3]

    @property
    def pointer(self) -> int:
        return self.rest[0]

    @property
    def gateway(self) -> bytes:
        return self.rest

    @property
    def name(self) -> str:
        return icmp_name(self.type, self.code)

    def __str__(self) -> str:
        length = f", length {ICMP_HEADER_LEN + len(self.payload)}"
        if self.type in (ECHO, ECHO_REPLY):
            return f"ICMP {self.name}, id {self.ident}, seq {self.sequence}{length}"
        if self.type == DEST_UNREACH and self.code == FRAG_NEEDED:
            return f"ICMP {self.name} (mtu {self.mtu}){length}"
        if self.type == REDIRECT:
            return f"ICMP {self.name} to {format_ipv4(self.gateway)}{length}"
        if self.type == PARAMETER_PROBLEM and self.code == PARAM_POINTER:
            return f"ICMP {self.name} at byte {self.pointer}{length}"
        return f"ICMP {self.name}{length}"
