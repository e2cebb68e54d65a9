"""Cutting a datagram that is larger than the path's MTU (RFC 791 3.2); what is in shared memory stays there."""

from __future__ import annotations

from collections.abc import Iterator

from levelip.rpc.place import Payload, Place, cut
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ipv4 import IPV4_HEADER_LEN, Proto, iter_options

_CHECKSUM_AT = {Proto.TCP: 16, Proto.UDP: 6}  # bytes into the segment (RFC 9293 3.1, RFC 768)


def copied_options(options: bytes) -> bytes:
    """Those options that every fragment carries: with the copied bit set (RFC 791 3.1), padded to whole words."""
    if not options:
        return b""
    kept = b"".join(option.serialize() for option in iter_options(options) if option.copied)
    return kept + bytes(-len(kept) & 3)


def split(head: bytes, payload: Payload, first: int, later: int) -> Iterator[tuple[int, bytes, Payload, bool]]:
    """(offset, head, payload, more) of each fragment; `first` and `later`: bytes of data that fit into them.

    Both are rounded down to units of 8 bytes, which is at least one for an MTU of 68 (RFC 791 3.1).
    """
    length = len(head) + len(payload)
    start = 0
    room = first & ~7
    while start < length:
        stop = min(start + room, length)
        into = max(0, start - len(head)), max(0, stop - len(head))
        yield start, head[start:stop], cut(payload, *into) if into[1] > into[0] else b"", stop < length
        start = stop
        room = later & ~7


def complete_checksum(src: bytes, dst: bytes, proto: int, head: bytes, payload: Payload) -> bytes | None:
    """`head` with the transport's checksum filled in, which a device cannot do for fragments (as skb_checksum_help).

    None where that cannot be: the payload lies in shared memory, which a core does not read, or the field is not there.
    """
    at = _CHECKSUM_AT.get(proto)
    if at is None or isinstance(payload, Place) or len(head) < at + 2:
        return None
    cleared = head[:at] + b"\0\0" + head[at + 2 :]
    data = cleared + payload
    total = internet_checksum(data, pseudo_header_sum(src, dst, proto, len(data)))
    if not total and proto == Proto.UDP:
        total = 0xFFFF  # RFC 768: 0 says that there is none
    return head[:at] + total.to_bytes(2, "big") + head[at + 2 :]


def header_room(mtu: int, options: bytes) -> int:
    """Bytes of data that fit into a packet of `mtu` bytes with these options."""
    return mtu - IPV4_HEADER_LEN - len(options)
