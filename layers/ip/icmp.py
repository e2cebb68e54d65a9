"""What ICMP asks of a host (RFC 792, RFC 1122 3.2.2): what a message calls for, when an error may be sent."""

from __future__ import annotations

from enum import Enum, auto

from msgspec import Struct

from levelip.rpc.place import Payload
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire import icmp
from levelip.wire.addr import is_multicast
from levelip.wire.errors import Malformed
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipoptions import echoed, visited
from levelip.wire.ipv4 import Ipv4Header, Proto

QUOTE_LIMIT = 576 - 20 - 8
"""Bytes quoted at most: the packet stays within 576 (RFC 1812 4.3.2.3); RFC 1122 3.2.2 asks for the header and 8."""
QUOTE_MIN = 8
"""Bytes of the transport header that every error quotes (RFC 792)."""
TIMESTAMP_DATA = 12
"""Bytes behind the header of a timestamp message: originate, receive, transmit (RFC 792)."""


class Action(Enum):
    """What a message that passed its checks calls for."""

    REPLY = auto()
    """Answer the echo request."""
    PING = auto()
    """An echo reply: some ping waits for it."""
    ERROR = auto()
    """Tell the transport that sent the quoted packet."""
    REDIRECT = auto()
    """Another gateway is nearer to the quoted packet's destination."""
    TIMESTAMP = auto()
    """Answer with our time."""


_BY_TYPE: dict[int, Action | Reason] = {
    icmp.ECHO: Action.REPLY,
    icmp.ECHO_REPLY: Action.PING,
    icmp.DEST_UNREACH: Action.ERROR,  # RFC 1122 3.2.2.1
    icmp.TIME_EXCEEDED: Action.ERROR,  # RFC 1122 3.2.2.4
    icmp.PARAMETER_PROBLEM: Action.ERROR,  # RFC 1122 3.2.2.5
    icmp.SOURCE_QUENCH: reasons.ICMP_SOURCE_QUENCH,  # RFC 6633 3
    icmp.REDIRECT: Action.REDIRECT,  # RFC 1122 3.2.2.2
    icmp.ROUTER_ADVERTISEMENT: reasons.ICMP_UNSUPPORTED,
    icmp.ROUTER_SOLICITATION: reasons.ICMP_UNSUPPORTED,
    icmp.TIMESTAMP: Action.TIMESTAMP,  # RFC 1122 3.2.2.8: MAY; Linux does
    icmp.TIMESTAMP_REPLY: reasons.ICMP_UNSUPPORTED,
    icmp.INFO_REQUEST: reasons.ICMP_UNSUPPORTED,  # RFC 1122 3.2.2.7: SHOULD NOT
    icmp.INFO_REPLY: reasons.ICMP_UNSUPPORTED,
    icmp.ADDRESS_MASK: reasons.ICMP_UNSUPPORTED,  # RFC 6918: deprecated
    icmp.ADDRESS_MASK_REPLY: reasons.ICMP_UNSUPPORTED,
}


def judge(message: IcmpMessage, *, group: bool, echo_reply: bool, echo_group: bool = False) -> Action | Reason:
    """What to do about `message`; `group`: it was sent to a broadcast or multicast address, and `echo_group`: echo
    requests there are answered all the same. The checksum is known to be right."""
    verdict = _BY_TYPE.get(message.type, reasons.ICMP_UNKNOWN_TYPE)  # RFC 1122 3.2.2: silently discarded
    if isinstance(verdict, Reason):
        return verdict
    if group and not (echo_group and verdict is Action.REPLY):
        # RFC 1122 3.2.2.6 leaves it to us whether to answer; Linux (icmp_echo_ignore_broadcasts) does not. Neither
        # errors nor echo replies are ever rightly broadcast, and 3.2.2.8 leaves timestamps to us, too.
        return reasons.ICMP_GROUP
    if verdict is Action.REPLY and not echo_reply:
        return reasons.ICMP_ECHO_OFF
    return verdict


class Quoted(Struct, frozen=True):
    """The packet that an ICMP error is about; `head` is the start of its transport segment, at least 8 bytes.

    `total_length` and `header_length`: as the quoted header says; 0 where there was none.
    """

    src: bytes
    dst: bytes
    proto: int
    head: bytes
    total_length: int = 0
    header_length: int = 0


def parse_quote(data: bytes) -> Quoted | None:
    """What an ICMP error (or link) quotes, or None if that is not an IPv4 header and 8 bytes.

    Its checksum and lengths are not checked: routers on the way have changed TTL and may have cut it.
    """
    if not data or data[0] >> 4 != 4:
        return None
    try:
        header = Ipv4Header.parse(data)
    except Malformed:
        return None
    if header.frag_offset:
        return None  # no transport header in there (RFC 1122 3.2.2)
    head = data[header.ihl * 4 :]
    if len(head) < QUOTE_MIN:
        return None
    return Quoted(header.src, header.dst, header.proto, head, header.total_length, header.length)


def may_report(header: Ipv4Header, *, group: bool, transport: bytes, broadcasts: frozenset[bytes]) -> bool:
    """Whether an ICMP error about the packet may be sent: the four cases of RFC 1122 3.2.2, and none about errors.

    `group`: sent to a broadcast or multicast address, of IP or of the link; `transport`: what follows the header.
    """
    if group or is_multicast(header.dst) or header.frag_offset:
        return False
    src = header.src
    if src[0] in (0, 127) or src[0] >= 224 or src in broadcasts:
        return False  # the source does not define a single host
    if header.proto == Proto.ICMP:
        # an unknown type may be an error too (RFC 1812 4.3.2.7 lists those known; Linux refuses likewise)
        return bool(transport) and transport[0] in (icmp.ECHO, icmp.ECHO_REPLY, icmp.TIMESTAMP, icmp.ADDRESS_MASK)
    return True


def quote(head: bytes, payload: Payload) -> bytes:
    """The start of a packet that an error about it carries. A payload in shared memory is left out: headers suffice."""
    if isinstance(payload, bytes):
        head += payload[:QUOTE_LIMIT]
    return head[:QUOTE_LIMIT]


def timestamp_reply(request: IcmpMessage, now: int) -> IcmpMessage:
    """The answer to a timestamp request that arrived at `now`, ns of stack time (RFC 792, RFC 1122 3.2.2.8)."""
    at = stack_milliseconds(now).to_bytes(4, "big")
    return IcmpMessage(icmp.TIMESTAMP_REPLY, 0, request.rest, request.payload[:4] + at + at)


def reflected_options(options: bytes, own: bytes, now: int) -> bytes:
    """The options of an echo reply: record route and timestamp of the request, ourselves added (RFC 1122 3.2.2.6).

    `own`: the address to add. The options are known to be well formed (validate.check_options); whole words result.
    """
    return echoed(visited(options, own, stack_milliseconds(now)))


def stack_milliseconds(now: int) -> int:
    """What a timestamp says: milliseconds of stack time with the highest bit set, "not with respect to midnight UT"
    (RFC 792, RFC 791 3.1), since a core has no wall clock. Linux has the time of day."""
    return now // 1_000_000 & 0x7FFF_FFFF | 0x8000_0000
