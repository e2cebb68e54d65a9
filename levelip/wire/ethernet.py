"""Ethernet II frames, and IEEE 802.1Q/802.1ad tags as far as to see that they are there."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from levelip.wire.addr import format_mac
from levelip.wire.buffer import Buffer
from levelip.wire.build import maker
from levelip.wire.errors import Malformed

ETHERNET_HEADER_LEN = 14
"""Bytes of an untagged header."""
ETHERNET_MIN_PAYLOAD = 46
"""Bytes to which a shorter payload is padded on a real cable (IEEE 802.3 3.2.7); a tap does not pad."""
MIN_ETHERTYPE = 0x0600
"""Below, the field is the length of an 802.3 frame (IEEE 802.3 3.2.6)."""


class EtherType:
    """Values of the type field (IANA, IEEE 802 numbers); plain integers: compared once a packet."""

    IPV4: Final = 0x0800
    ARP: Final = 0x0806
    VLAN: Final = 0x8100
    IPV6: Final = 0x86DD
    PPPOE_SESSION: Final = 0x8864
    QINQ: Final = 0x88A8
    LLDP: Final = 0x88CC


_NAMES = {value: name for name, value in vars(EtherType).items() if name.isupper()}
_HEADER = struct.Struct(">6s6sH")
_TAG = struct.Struct(">HH")


def ethertype_name(ethertype: int) -> str:
    """ "IPV4", or "0x88f7" for one we do not know."""
    return _NAMES.get(ethertype, f"0x{ethertype:04x}")


@dataclass(frozen=True, slots=True)
class VlanTag:
    """One tag: its protocol (0x8100 or 0x88A8), and its control field: priority 3 bits, DEI 1, VLAN id 12."""

    tpid: int
    tci: int

    @property
    def priority(self) -> int:
        return self.tci >> 13

    @property
    def drop_eligible(self) -> bool:
        return bool(self.tci & 0x1000)

    @property
    def vid(self) -> int:
        return self.tci & 0x0FFF

    def __str__(self) -> str:
        return f"vlan {self.vid}, p {self.priority}"


@dataclass(frozen=True, slots=True)
class EthernetHeader:
    """An Ethernet II header; with tags between source and type, outermost first, where a switch put some.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                     destination (6 bytes)                     |
    +                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                               |                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+        source (6 bytes)       +
    |                                                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    :   tag: 0x8100 or 0x88A8       : prio|D|       VLAN id         :  none, one or several
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           ethertype           |   payload ...
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    """

    dst: bytes
    src: bytes
    ethertype: int
    vlan: tuple[VlanTag, ...] = ()

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> EthernetHeader:
        """The header at `offset`. Malformed: `truncated` (a runt), `vlan_truncated`.

        `ethertype` is that behind the last tag. The payload starts `header.length` bytes after `offset`.
        """
        if len(data) - offset < 14:
            raise Malformed("ethernet", "truncated", max(len(data) - offset, 0))
        dst, src, ethertype = _HEADER.unpack_from(data, offset)
        if ethertype not in (0x8100, 0x88A8):
            return _make(dst, src, ethertype, ())
        tags: list[VlanTag] = []
        at = offset + 14
        while ethertype in (0x8100, 0x88A8):
            if len(data) - at < 4:
                raise Malformed("ethernet", "vlan_truncated", len(data) - offset)
            tci, inner = _TAG.unpack_from(data, at)
            tags.append(VlanTag(ethertype, tci))
            ethertype = inner
            at += 4
        return _make(dst, src, ethertype, tuple(tags))

    def serialize(self) -> bytes:
        """The bytes of the header. ValueError if a field does not fit."""
        if len(self.dst) != 6 or len(self.src) != 6:
            raise ValueError("a MAC address has six bytes")
        try:
            if not self.vlan:
                return _HEADER.pack(self.dst, self.src, self.ethertype)
            tags = b"".join(_TAG.pack(tag.tpid, tag.tci) for tag in self.vlan)
            return self.dst + self.src + tags + self.ethertype.to_bytes(2, "big")
        except (struct.error, OverflowError) as error:
            raise ValueError(f"ethernet header: {error}") from error

    @property
    def length(self) -> int:
        """Bytes of this header."""
        return 14 + 4 * len(self.vlan)

    @property
    def is_8023(self) -> bool:
        """Whether the type field is a length, so that an LLC header follows and not a protocol of ours."""
        return self.ethertype < MIN_ETHERTYPE

    def __str__(self) -> str:
        tags = "".join(f"{tag}, " for tag in self.vlan)
        kind = ethertype_name(self.ethertype)
        return f"{format_mac(self.src)} > {format_mac(self.dst)}, {tags}ethertype {kind}"


_make = maker(EthernetHeader)
