"""The header before each packet of a tap opened with IFF_VNET_HDR (virtio 1.2, 5.1.6; linux/virtio_net.h).

It says what is still to be done with the packet: a checksum to complete, a super-segment to be cut. The
legacy form of 10 bytes, in the host's byte order, is what a tap uses unless told otherwise (TUNSETVNETHDRSZ,
TUNSETVNETLE).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from levelip.wire.buffer import Buffer
from levelip.wire.build import maker
from levelip.wire.errors import Malformed

VNET_HEADER_LEN = 10
"""Bytes of the legacy header."""

NEEDS_CSUM = 1
"""`flags`: the checksum from `csum_start` on is still to be stored at `csum_start + csum_offset`."""
DATA_VALID = 2
"""`flags`: the checksum was verified."""

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_UDP = 3
"""UDP fragmentation (UFO), obsolete."""
GSO_TCPV6 = 4
GSO_UDP_L4 = 5
GSO_ECN = 0x80
"""Added to a TCP type: CWR is set in the super-segment, to be kept in the first piece only."""

TCP_CSUM_OFFSET = 16
"""Bytes from the start of the TCP header to its checksum (RFC 9293 3.1)."""
UDP_CSUM_OFFSET = 6

_HEADER = struct.Struct("=BBHHHH")
_GSO_NAMES = {GSO_NONE: "none", GSO_TCPV4: "tcpv4", GSO_UDP: "ufo", GSO_TCPV6: "tcpv6", GSO_UDP_L4: "udp_l4"}


@dataclass(frozen=True, slots=True)
class VnetHeader:
    """struct virtio_net_hdr: what the sender leaves to the receiver. All zero says: the packet is complete.

    +-------+----------+---------------+---------------+---------------+---------------+
    | flags | gso type | header length |   gso size    |  csum start   |  csum offset  |
    | 1 byte|  1 byte  |    2 bytes    |    2 bytes    |    2 bytes    |    2 bytes    |
    +-------+----------+---------------+---------------+---------------+---------------+

    `hdr_len` counts all headers from Ethernet's (or IP's, on a tun) to the transport's; `gso_size` is the
    payload of each piece; `csum_start` counts from the start of the packet.
    """

    flags: int = 0
    gso_type: int = GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> VnetHeader:
        """The header at `offset`; the packet follows 10 bytes on. Malformed: `truncated`."""
        size = len(data) - offset
        if size < VNET_HEADER_LEN:
            raise Malformed("vnet", "truncated", max(size, 0))
        return _make(*_HEADER.unpack_from(data, offset))

    def serialize(self) -> bytes:
        """The 10 bytes. ValueError if a field does not fit."""
        try:
            return _HEADER.pack(
                self.flags, self.gso_type, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset
            )
        except struct.error as error:
            raise ValueError(f"vnet header: {error}") from error

    @classmethod
    def for_tcp(cls, *, link_len: int, ip_len: int, head_len: int, gso_size: int = 0, cwr: bool = False) -> VnetHeader:
        """The header for an IPv4 TCP packet with a partial checksum (`segment.partial_tcp_checksum`).

        `link_len`: bytes before the IP header (14 on a tap, 0 on a tun); `ip_len`: of the IP header;
        `head_len`: of IP and TCP headers; `gso_size`: 0 if the packet needs no cutting. `cwr`: the packet has
        the CWR flag.
        """
        gso_type = GSO_TCPV4 | (GSO_ECN if cwr else 0) if gso_size else GSO_NONE
        hdr_len = link_len + head_len if gso_size else 0
        return _make(NEEDS_CSUM, gso_type, hdr_len, gso_size, link_len + ip_len, TCP_CSUM_OFFSET)

    @property
    def needs_csum(self) -> bool:
        return bool(self.flags & NEEDS_CSUM)

    @property
    def data_valid(self) -> bool:
        return bool(self.flags & DATA_VALID)

    @property
    def gso_kind(self) -> int:
        """`gso_type` without GSO_ECN."""
        return self.gso_type & ~GSO_ECN

    def __str__(self) -> str:
        parts = []
        if self.needs_csum:
            parts.append(f"csum at {self.csum_start}+{self.csum_offset}")
        if self.data_valid:
            parts.append("csum valid")
        if self.gso_type:
            ecn = "+ecn" if self.gso_type & GSO_ECN else ""
            kind = _GSO_NAMES.get(self.gso_kind, str(self.gso_kind))
            parts.append(f"gso {kind}{ecn} {self.gso_size} header {self.hdr_len}")
        return "vnet " + (", ".join(parts) or "complete")


_make = maker(VnetHeader)

COMPLETE = bytes(VNET_HEADER_LEN)
"""The header of a packet that needs nothing done."""
