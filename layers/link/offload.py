"""What is left to the device: checksums and the cutting of super-segments, told by virtio headers, or done here.

The core always leaves both to the device (`prepare`). A device that cannot is helped in software at the last moment,
by its port (`finish`), because only there are the bytes of a payload in shared memory to be read: as Linux does in
validate_xmit_skb with skb_checksum_help and skb_gso_segment.
"""

from __future__ import annotations

import struct

from levelip.rpc.place import Payload, Place
from levelip.wire.checksum import internet_checksum, word_sum
from levelip.wire.ipv4 import Proto
from levelip.wire.segment import header_length, split_tcp
from levelip.wire.tcp import CWR
from levelip.wire.vnet import (
    COMPLETE,
    DATA_VALID,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    NEEDS_CSUM,
    TCP_CSUM_OFFSET,
    UDP_CSUM_OFFSET,
    VNET_HEADER_LEN,
    VnetHeader,
)

_VNET = struct.Struct("=BBHHHH")  # flags, gso type, header length, gso size, csum start, csum offset
_KNOWN_GOOD = NEEDS_CSUM | DATA_VALID
_CSUM_OFFSETS = {Proto.TCP: TCP_CSUM_OFFSET, Proto.UDP: UDP_CSUM_OFFSET}
_TCP_FLAGS = 13  # offset in the TCP header of the byte with CWR to FIN (RFC 9293 3.1)


class Unfit(ValueError):
    """A packet whose checksum or cut cannot be left to a device; the text says why."""


def received(vnet: bytes) -> tuple[bool, int]:
    """(checksum vouched for, gso_size or 0) of a frame that came in with this virtio header, which may be empty.

    The kernel's own packets come with NEEDS_CSUM: their checksum was never computed, as nothing can have damaged
    them. Raises Unfit for a header that is cut short or names a kind of super-packet that we did not offer to take.
    """
    if not vnet or vnet == COMPLETE:
        return False, 0
    if len(vnet) < VNET_HEADER_LEN:
        raise Unfit(f"{len(vnet)} bytes of virtio header")
    flags, gso_type, _, gso_size, _, _ = _VNET.unpack_from(vnet)
    if gso_type == GSO_NONE:
        return bool(flags & _KNOWN_GOOD), 0
    if gso_type & ~GSO_ECN != GSO_TCPV4 or gso_size == 0:
        raise Unfit(f"gso type {gso_type}, size {gso_size}")
    return bool(flags & _KNOWN_GOOD), gso_size


def prepare(head: bytes, payload: Payload, gso_size: int, link_len: int) -> tuple[bytes, Payload, bytes]:
    """(head, payload, virtio header) of an IPv4 packet whose transport checksum is left to the device.

    `link_len`: bytes of link header that will be put before it. With `gso_size`, or what is shorter, the packet is no
    super-packet. The head returned holds at least the headers up to the checksum, where it now has the folded sum of
    the pseudo-header (Linux CHECKSUM_PARTIAL). Raises Unfit.
    """
    if len(head) < 40 and payload:
        if isinstance(payload, Place):
            raise Unfit("a payload in shared memory needs its headers in front")
        head, payload = head + payload, b""
    if len(head) < 28 or head[0] >> 4 != 4:
        raise Unfit("too short for a transport header, or not IPv4")
    ip_len = (head[0] & 15) * 4
    proto = head[9]
    offset = _CSUM_OFFSETS.get(proto)
    if offset is None:
        raise Unfit(f"no checksum to complete in protocol {proto}")
    at = ip_len + offset
    if ip_len < 20 or head[6] & 0x3F or head[7]:
        raise Unfit("a fragment, or a bad header length")
    if len(head) < at + 2:
        if isinstance(payload, Place):
            raise Unfit("a payload in shared memory needs its headers in front")
        head, payload = head + payload, b""
        if len(head) < at + 2:
            raise Unfit("cut off before its checksum")
    l4_len = len(head) - ip_len + len(payload)
    total = int.from_bytes(head[12:20], "big") + proto + l4_len
    sum16 = (total % 65535 or 65535).to_bytes(2, "big")

    gso_type = hdr_len = 0
    if gso_size:
        if proto != Proto.TCP or len(head) < ip_len + 20:
            raise Unfit("only TCP is cut")
        head_len = ip_len + (head[ip_len + 12] >> 2 & 0x3C)
        if len(head) + len(payload) - head_len <= gso_size:
            gso_size = 0
        else:
            hdr_len = link_len + head_len
            gso_type = GSO_TCPV4 | GSO_ECN if head[ip_len + _TCP_FLAGS] & CWR else GSO_TCPV4
    vnet = _VNET.pack(NEEDS_CSUM, gso_type, hdr_len, gso_size, link_len + ip_len, offset)
    return b"%b%b%b" % (head[:at], sum16, head[at + 2 :]), payload, vnet


def pieces(head: bytes, payload: Payload, gso_size: int) -> int:
    """How many packets on the cable this IPv4 packet makes."""
    if not gso_size or len(head) < 40:
        return 1
    ip_len = (head[0] & 15) * 4
    head_len = ip_len + (head[min(ip_len + 12, len(head) - 1)] >> 2 & 0x3C)
    return max(1, -(-(len(head) + len(payload) - head_len) // gso_size))


def finish(vnet: bytes, head: bytes, payload: bytes, link_len: int) -> list[bytes]:
    """The frames, complete, that a frame with this virtio header stands for. Raises Unfit."""
    if not vnet or vnet == COMPLETE:
        return [head + payload]
    try:
        header = VnetHeader.parse(vnet)
        if header.gso_kind == GSO_TCPV4:
            frame = head + payload
            ip_head_len = header_length(frame[link_len : link_len + 120])
            if ip_head_len is None:
                raise Unfit("not IPv4 TCP")
            cut = link_len + ip_head_len
            link_head = frame[:link_len]
            pieces = split_tcp(frame[link_len:cut], memoryview(frame)[cut:], header.gso_size)
            return [b"".join((link_head, piece_head, piece)) for piece_head, piece in pieces]
    except ValueError as error:  # Malformed is one
        raise Unfit(str(error)) from None
    if header.gso_kind != GSO_NONE:
        raise Unfit(f"gso type {header.gso_type}")
    if not header.needs_csum:
        return [head + payload]
    start, at = header.csum_start, header.csum_start + header.csum_offset
    if len(head) < at + 2 or (len(head) - start) & 1:
        head, payload = head + payload, b""
        if len(head) < at + 2:
            raise Unfit("cut off before its checksum")
    # The field holds the pseudo-header's sum, so the sum over everything from csum_start on is the whole.
    checksum = internet_checksum(payload, word_sum(memoryview(head)[start:]))
    if checksum == 0 and header.csum_offset == UDP_CSUM_OFFSET:
        checksum = 0xFFFF  # RFC 768: 0 says that there is none
    return [b"%b%b%b%b" % (head[:at], checksum.to_bytes(2, "big"), head[at + 2 :], payload)]
