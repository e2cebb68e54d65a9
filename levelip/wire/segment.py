"""IPv4 TCP packets as wholes: cut super-segments as a NIC would, complete checksums, find the headers' end.

A packet here is `head`, the IPv4 and TCP headers with their options and nothing else, and `payload`. All
functions leave what they are given alone and return new heads.
"""

from __future__ import annotations

import struct

from levelip.wire.buffer import Buffer
from levelip.wire.checksum import fold, word_sum
from levelip.wire.errors import Malformed
from levelip.wire.tcp import CWR, FIN, PSH, URG

_PROTO_TCP = 6
_SEQ = 4  # offsets in the TCP header (RFC 9293 3.1)
_OFFSET_FLAGS = 12
_CHECKSUM = 16
_URGENT = 18
_TWO_SHORTS = struct.Struct(">HH")
_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")


def header_length(packet: Buffer) -> int | None:
    """Bytes of the IPv4 and TCP headers at the start of `packet`, where a header split may cut.

    None unless it is plain IPv4 TCP: version 4, unfragmented, both headers whole and said to fit in the total
    length. `packet` may be longer than the total length (Ethernet's padding) or cut off anywhere behind the
    headers.
    """
    size = len(packet)
    if size < 40 or packet[9] != _PROTO_TCP:
        return None
    first = packet[0]
    if first >> 4 != 4 or packet[6] & 0x3F or packet[7]:  # MF or an offset
        return None
    ip_length = (first & 15) * 4
    if ip_length < 20 or size < ip_length + 20:
        return None
    tcp_length = packet[ip_length + 12] >> 2 & 0x3C
    length = ip_length + tcp_length
    if tcp_length < 20 or size < length or packet[2] << 8 | packet[3] < length:
        return None
    return length


def _ip_length(head: Buffer) -> int:
    """Bytes of the IPv4 header in `head`. Malformed if IPv4 and TCP headers are not what all of `head` is."""
    if len(head) < 40:
        raise Malformed("segment", "truncated", len(head))
    ip_length = (head[0] & 15) * 4
    if head[0] >> 4 != 4 or ip_length < 20 or head[9] != _PROTO_TCP:
        raise Malformed("segment", "not_ipv4_tcp", 0)
    if len(head) < ip_length + 20 or ip_length + (head[ip_length + 12] >> 2 & 0x3C) != len(head):
        raise Malformed("segment", "head_length", len(head))
    return ip_length


def partial_tcp_checksum(head: Buffer, l4_length: int) -> bytes:
    """`head` with the pseudo-header's folded sum in the TCP checksum field, for a device that completes it.

    That is what Linux expects under CHECKSUM_PARTIAL (include/linux/skbuff.h) and
    VIRTIO_NET_HDR_F_NEEDS_CSUM: the sum, not complemented. `l4_length`: bytes of TCP header and payload.
    Malformed as in `split_tcp`.
    """
    at = _ip_length(head) + _CHECKSUM
    total = int.from_bytes(head[12:20], "big") + _PROTO_TCP + l4_length
    return bytes(head[:at]) + (total % 65535 or 65535).to_bytes(2, "big") + bytes(head[at + 2 :])


def complete_tcp_checksum(head: Buffer, payload: Buffer) -> bytes:
    """`head` with the TCP checksum over pseudo-header, header and `payload` filled in.

    What stood in the field does not matter, and the length summed is that of what is given, not the IP
    header's. Malformed as in `split_tcp`.
    """
    ip_length = _ip_length(head)
    at = ip_length + _CHECKSUM
    total = (
        int.from_bytes(head[12:20], "big")
        + _PROTO_TCP
        + (len(head) - ip_length + len(payload))
        + int.from_bytes(head[ip_length:at], "big")
        + int.from_bytes(head[at + 2 :], "big")
        + word_sum(payload)
    )
    return bytes(head[:at]) + (65535 - (total % 65535 or 65535)).to_bytes(2, "big") + bytes(head[at + 2 :])


def split_tcp(head: Buffer, payload: Buffer, gso_size: int, *, complete: bool = True) -> list[tuple[bytes, Buffer]]:
    """The packets of at most `gso_size` bytes of payload that a super-segment stands for, in order.

    Each has its own total length, IP header checksum, ident (one more each; Linux inet_gso_segment) and
    sequence number; FIN and PSH are in the last only, CWR in the first only (Linux tcp_gso_segment). An
    urgent pointer counts from its own segment's sequence number (RFC 9293 3.1), so it shrinks along, and URG
    ends with the urgent data; Linux, which never has URG in a super-segment, leaves it. Everything else is as
    in `head`.

    `complete`: fill in the TCP checksum; else leave the pseudo-header's sum there, as `partial_tcp_checksum`
    does. Payload pieces are slices of `payload`, so views of a view. Without payload, or with no more than
    `gso_size`, there is one packet, its lengths and checksums set likewise.

    ValueError if `gso_size` is not positive or a packet would exceed 65,535 bytes. Malformed (`truncated`,
    `not_ipv4_tcp`, `head_length`) if `head` is not exactly an IPv4 header and a TCP header.
    """
    if gso_size <= 0:
        raise ValueError(f"gso_size {gso_size}")
    ip_length = _ip_length(head)
    size = len(payload)
    if len(head) + min(size, gso_size) > 65535:
        raise ValueError(f"{len(head) + min(size, gso_size)} bytes do not fit into one IPv4 packet")
    tcp_length = len(head) - ip_length

    # A template without what differs between pieces, and the sums of the parts that do not.
    template = bytearray(head)
    first_ident = template[4] << 8 | template[5]
    at_seq = ip_length + _SEQ
    at_word = ip_length + _OFFSET_FLAGS
    at_checksum = ip_length + _CHECKSUM
    at_urgent = ip_length + _URGENT
    (first_seq,) = _LONG.unpack_from(template, at_seq)
    (word,) = _SHORT.unpack_from(template, at_word)
    (urgent,) = _SHORT.unpack_from(template, at_urgent)
    template[2:6] = bytes(4)
    template[10:12] = bytes(2)
    template[at_seq : at_seq + 4] = bytes(4)
    template[at_word : at_word + 2] = bytes(2)
    template[at_checksum : at_checksum + 4] = bytes(4)
    ip_sum = fold(int.from_bytes(template[:ip_length], "big"))
    pseudo_sum = fold(int.from_bytes(template[12:20], "big") + _PROTO_TCP)
    tcp_sum = pseudo_sum + fold(int.from_bytes(template[ip_length:], "big"))

    pieces: list[tuple[bytes, Buffer]] = []
    for number, start in enumerate(range(0, max(size, 1), gso_size)):
        piece = payload[start : start + gso_size]
        l4_length = tcp_length + len(piece)
        total_length = ip_length + l4_length
        ident = (first_ident + number) & 0xFFFF
        seq = (first_seq + start) & 0xFFFFFFFF
        flags = word
        pointer = urgent
        if start:
            flags &= ~CWR
            if flags & URG:
                pointer = urgent - start
                if pointer <= 0:
                    pointer = 0
                    flags &= ~URG
        if start + gso_size < size:
            flags &= ~(FIN | PSH)
        if complete:
            total = tcp_sum + l4_length + seq + flags + pointer + word_sum(piece)
            checksum = 65535 - (total % 65535 or 65535)
        else:
            checksum = fold(pseudo_sum + l4_length)
        _TWO_SHORTS.pack_into(template, 2, total_length, ident)
        _SHORT.pack_into(template, 10, 65535 - fold(ip_sum + total_length + ident))
        _LONG.pack_into(template, at_seq, seq)
        _SHORT.pack_into(template, at_word, flags)
        _TWO_SHORTS.pack_into(template, at_checksum, checksum, pointer)
        pieces.append((bytes(template), piece))
    return pieces
