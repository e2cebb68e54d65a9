"""Whether an IPv4 packet that came from outside may be acted on: decided here, with a named verdict, acted on in core.

The checks run in the order of Linux's ip_rcv, so that a damaged packet is counted as such and not as whatever its
damaged fields seem to say.
"""

from __future__ import annotations

from levelip.frames.packet import BROADCAST
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire.addr import LIMITED_BROADCAST, is_multicast
from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import (
    OPTION_LOOSE_SOURCE_ROUTE,
    OPTION_RECORD_ROUTE,
    OPTION_STRICT_SOURCE_ROUTE,
    OPTION_TIMESTAMP,
    Ipv4Header,
    header_checksum_ok,
    iter_options,
)

_MALFORMED = {
    "truncated": reasons.IP_TRUNCATED,
    "options_truncated": reasons.IP_TRUNCATED,
    "ihl_too_small": reasons.IP_HEADER_LENGTH,
}
_OPTION_COUNTERS = {
    OPTION_RECORD_ROUTE: "option.record_route",
    OPTION_TIMESTAMP: "option.timestamp",
    OPTION_LOOSE_SOURCE_ROUTE: "option.source_route",
    OPTION_STRICT_SOURCE_ROUTE: "option.source_route",
}


def check_header(head: bytes, size: int) -> Ipv4Header | Reason:
    """The header at the start of `head`, or why it is none. `size`: bytes of the whole packet as it arrived."""
    if head and head[0] >> 4 != 4:
        return reasons.IP_VERSION  # RFC 1122 3.2.1.1: silently discarded
    try:
        header = Ipv4Header.parse(head)
    except Malformed as error:
        return _MALFORMED[error.reason]
    if not header_checksum_ok(head):
        return reasons.IP_CHECKSUM  # RFC 1122 3.2.1.2: MUST verify, silently discard
    if header.total_length < header.ihl * 4:
        return reasons.IP_TOTAL_LENGTH
    if header.total_length > size:
        return reasons.IP_TORN
    # A TTL of 0 or 1 is no reason to discard what is for us (RFC 1122 3.2.1.7), and nothing else is accepted.
    return header


class OptionVerdict:
    """What the options come to: `reason` to discard the packet, or None; `pointer` to the bad byte of the header."""

    __slots__ = ("counters", "pointer", "reason")

    def __init__(self, reason: Reason | None, pointer: int, counters: list[str]) -> None:
        self.reason = reason
        self.pointer = pointer
        self.counters = counters


def check_options(options: bytes) -> OptionVerdict:
    """Options must fit; beyond that we skip them (RFC 1122 3.2.1.8), but for source routes.

    A source route that has hops left names us as a router, which we are not (RFC 1122 3.3.5); one that ends here is
    counted and accepted.
    """
    counters: list[str] = []
    at = 20
    try:
        for option in iter_options(options):
            if name := _OPTION_COUNTERS.get(option.kind):
                counters.append(name)
            if option.kind in (OPTION_LOOSE_SOURCE_ROUTE, OPTION_STRICT_SOURCE_ROUTE):
                # RFC 791 3.1: the pointer counts from 1 at the type byte and passes the length once the route is empty
                if not option.data or option.data[0] < 4:
                    return OptionVerdict(reasons.IP_OPTION, at + 2, counters)
                if option.data[0] <= len(option.data) + 2:
                    return OptionVerdict(reasons.IP_SOURCE_ROUTED, at, counters)
            at += len(option.data) + 2 if option.kind > 1 else 1
    except Malformed as error:
        return OptionVerdict(reasons.IP_OPTION, 20 + error.offset, counters)
    return OptionVerdict(None, 0, counters)


def check_addresses(header: Ipv4Header, flags: int, own: bytes, broadcasts: frozenset[bytes]) -> Reason | None:
    """Whether source and destination may stand in a packet from outside, and it is for us; None: yes.

    `flags`: Packet.flags; `own`: our address; `broadcasts`: the directed broadcast addresses of our network.
    """
    src = header.src
    first = src[0]
    # RFC 1122 3.2.1.3: 0/8, 127/8, multicast and broadcast addresses are never a source. (0.0.0.0 may be one of a host
    # that asks for its address, which only a DHCP server would want.)
    if first in (0, 127) or 224 <= first < 240 or src == LIMITED_BROADCAST or src in broadcasts:
        return reasons.MARTIAN_SOURCE
    if src == own:
        return reasons.OWN_SOURCE  # forged, or another host has our address; Linux: fib_validate_source
    dst = header.dst
    if dst == own:
        if flags & BROADCAST:
            return reasons.LINK_BROADCAST  # RFC 1122 3.3.6: SHOULD silently discard
        return None
    if dst == LIMITED_BROADCAST or dst in broadcasts:
        return None
    if dst[0] == 127 or dst[0] == 0:
        return reasons.MARTIAN_DEST
    if is_multicast(dst):
        return reasons.MULTICAST_UNJOINED
    return reasons.NOT_FOR_US
