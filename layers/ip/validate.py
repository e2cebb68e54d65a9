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
from levelip.wire.ipoptions import bad_byte
from levelip.wire.ipv4 import (
    OPTION_LOOSE_SOURCE_ROUTE,
    OPTION_RECORD_ROUTE,
    OPTION_ROUTER_ALERT,
    OPTION_STRICT_SOURCE_ROUTE,
    OPTION_TIMESTAMP,
    Ipv4Header,
    Proto,
    header_checksum_ok,
    iter_options,
)

_LOCAL_GROUPS = b"\xe0\x00\x00"
"""224.0.0.0/24, which no router forwards (RFC 5771 4)."""
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
    OPTION_ROUTER_ALERT: "option.router_alert",
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
    """Options must be well formed (RFC 1122 3.2.2.5); beyond that we skip them (3.2.1.8), but for source routes.

    Any source route is refused, also one that ends here: RFC 1122 3.2.1.8 (c) would have it delivered, RFC 7126 4.3 and
    4.4 and Linux (accept_source_route = 0) discard it, since it makes a forged source address answerable.
    """
    counters: list[str] = []
    at = 20
    refused: int | None = None
    try:
        for option in iter_options(options):
            kind, data = option.kind, option.data
            if name := _OPTION_COUNTERS.get(kind):
                counters.append(name)
            bad = bad_byte(kind, data)
            if bad is not None:
                return OptionVerdict(reasons.IP_OPTION, at + bad, counters)
            if kind in (OPTION_LOOSE_SOURCE_ROUTE, OPTION_STRICT_SOURCE_ROUTE) and refused is None:
                refused = at
            at += len(data) + 2 if kind > 1 else 1
    except Malformed as error:
        return OptionVerdict(reasons.IP_OPTION, 20 + error.offset, counters)
    if refused is not None:
        return OptionVerdict(reasons.IP_SOURCE_ROUTED, refused, counters)
    return OptionVerdict(None, 0, counters)


def check_addresses(
    header: Ipv4Header, flags: int, own: frozenset[bytes], broadcasts: frozenset[bytes], groups: frozenset[bytes]
) -> Reason | None:
    """Whether source and destination may stand in a packet from outside, and it is for us; None: yes.

    `flags`: Packet.flags; `own`: our addresses; `broadcasts`: the directed broadcast addresses of our networks;
    `groups`: the multicast groups that we are in.
    """
    src = header.src
    dst = header.dst
    first = src[0]
    # RFC 1122 3.2.1.3: 0/8, 127/8, multicast, reserved (240/4) and broadcast addresses are never a source, but that a
    # switch without an address may ask for members as 0.0.0.0 (RFC 4541 2.1.1), as in Linux.
    if first in (0, 127) or first >= 224 or src in broadcasts:
        if any(src) or header.proto != Proto.IGMP or dst[:3] != _LOCAL_GROUPS:
            return reasons.MARTIAN_SOURCE
    if src in own:
        return reasons.OWN_SOURCE  # forged, or another host has our address; Linux: fib_validate_source
    if dst in own:
        if flags & BROADCAST:
            return reasons.LINK_BROADCAST  # RFC 1122 3.3.6: SHOULD silently discard
        return None
    if dst in groups or dst == LIMITED_BROADCAST or dst in broadcasts:
        return None
    if dst[0] == 127 or dst[0] == 0:
        return reasons.MARTIAN_DEST
    if is_multicast(dst):
        return reasons.MULTICAST_UNJOINED
    return reasons.NOT_FOR_US
