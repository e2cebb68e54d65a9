"""ARP for IPv4 over Ethernet (RFC 826), with announcements (RFC 5227)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from levelip.wire.addr import MAC_ZERO, format_ipv4, format_mac
from levelip.wire.buffer import Buffer
from levelip.wire.errors import Malformed

ARP_LEN = 28
"""Bytes of a packet for Ethernet and IPv4."""
HTYPE_ETHERNET = 1
HTYPE_IEEE802 = 6
"""Sent by some old hosts on Ethernet; taken as Ethernet, as Linux does (net/ipv4/arp.c, arp_process)."""
PTYPE_IPV4 = 0x0800

REQUEST = 1
REPLY = 2

_PACKET = struct.Struct(">HHBBH6s4s6s4s")
_FIXED = struct.Struct(">HHBBH")


@dataclass(frozen=True, slots=True)
class ArpPacket:
    """Who has an IPv4 address, or who says to have it.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |          hardware type        |         protocol type         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |      hlen     |      plen     |           operation           |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |               sender hardware address (6 bytes)               |
    +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                               |    sender protocol address    |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |          (4 bytes)            |                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
    |               target hardware address (6 bytes)               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |               target protocol address (4 bytes)               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    """

    oper: int
    sha: bytes
    spa: bytes
    tha: bytes
    tpa: bytes
    htype: int = HTYPE_ETHERNET
    ptype: int = PTYPE_IPV4
    hlen: int = 6
    plen: int = 4

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> ArpPacket:
        """The packet at `offset`; what follows its 28 bytes (Ethernet's padding) is ignored.

        Malformed: `truncated`, and by RFC 826 "Packet Reception" in its order `bad_htype`, `bad_hlen`,
        `bad_ptype`, `bad_plen`. An unknown operation is no malformation: it is kept for the receiver to
        judge.
        """
        size = len(data) - offset
        if size < 8:
            raise Malformed("arp", "truncated", max(size, 0))
        htype, ptype, hlen, plen, oper = _FIXED.unpack_from(data, offset)
        if htype not in (HTYPE_ETHERNET, HTYPE_IEEE802):
            raise Malformed("arp", "bad_htype", 0)
        if hlen != 6:
            raise Malformed("arp", "bad_hlen", 4)
        if ptype != PTYPE_IPV4:
            raise Malformed("arp", "bad_ptype", 2)
        if plen != 4:
            raise Malformed("arp", "bad_plen", 5)
        if size < ARP_LEN:
            raise Malformed("arp", "truncated", size)
        *_, sha, spa, tha, tpa = _PACKET.unpack_from(data, offset)
        return cls(oper, sha, spa, tha, tpa, htype, ptype, hlen, plen)

    def serialize(self) -> bytes:
        """The 28 bytes. ValueError if a field does not fit."""
        if not (len(self.sha) == len(self.tha) == 6 and len(self.spa) == len(self.tpa) == 4):
            raise ValueError("arp: a hardware address has 6 bytes, a protocol address 4")
        try:
            return _PACKET.pack(
                self.htype,
                self.ptype,
                self.hlen,
                self.plen,
                self.oper,
                self.sha,
                self.spa,
                self.tha,
                self.tpa,
            )
        except struct.error as error:
            raise ValueError(f"arp: {error}") from error

    @classmethod
    def request(cls, *, sha: bytes, spa: bytes, tpa: bytes) -> ArpPacket:
        """ "Who has `tpa`? Tell `spa`", to be broadcast."""
        return cls(REQUEST, sha, spa, MAC_ZERO, tpa)

    @classmethod
    def probe(cls, *, sha: bytes, tpa: bytes) -> ArpPacket:
        """ "Does anybody have `tpa`?", from nobody, to be broadcast (RFC 5227 2.1.1)."""
        return cls(REQUEST, sha, bytes(4), MAC_ZERO, tpa)

    @classmethod
    def announcement(cls, *, sha: bytes, spa: bytes) -> ArpPacket:
        """ "`spa` is at `sha`", unasked: a request for our own address, to be broadcast (RFC 5227 2.3)."""
        return cls(REQUEST, sha, spa, MAC_ZERO, spa)

    @classmethod
    def reply_to(cls, request: ArpPacket, *, sha: bytes) -> ArpPacket:
        """The answer of the owner of `request.tpa`, who is at `sha`; to be sent to `request.sha`."""
        return cls(REPLY, sha, request.tpa, request.sha, request.spa)

    @property
    def is_announcement(self) -> bool:
        """Whether sender and target are one address ("gratuitous ARP")."""
        return self.spa == self.tpa

    def __str__(self) -> str:
        if self.oper == REQUEST and self.is_announcement:
            return f"arp announcement {format_ipv4(self.spa)} is-at {format_mac(self.sha)}"
        if self.oper == REQUEST and not any(self.spa):
            return f"arp probe who-has {format_ipv4(self.tpa)}"
        if self.oper == REQUEST:
            return f"arp request who-has {format_ipv4(self.tpa)} tell {format_ipv4(self.spa)}"
        if self.oper == REPLY:
            return f"arp reply {format_ipv4(self.spa)} is-at {format_mac(self.sha)}"
        return f"arp operation {self.oper} from {format_ipv4(self.spa)}"
