"""What stands before the IP packet in a captured one, by link type (www.tcpdump.org/linktypes.html)."""

from __future__ import annotations

from typing import Final

ETHERNET: Final = 1
RAW: Final = frozenset({12, 14, 101, 228, 229})
"""LINKTYPE_RAW by several numbers, LINKTYPE_IPV4, LINKTYPE_IPV6: nothing stands before it."""
NULL, LOOP, SLL, SLL2 = 0, 108, 113, 276
HEADER: Final = {NULL: 4, LOOP: 4, SLL: 16, SLL2: 20}
"""Length of the header of BSD's loopback, and of Linux's "cooked" captures."""
_PROTOCOL: Final = {SLL: 14, SLL2: 0}
_VLAN: Final = (b"\x81\x00", b"\x88\xa8", b"\x91\x00")
_IP: Final = (b"\x08\x00", b"\x86\xdd")


def known(linktype: int) -> bool:
    """Whether IP packets can be found in it."""
    return linktype == ETHERNET or linktype in RAW or linktype in HEADER


def ether_type(linktype: int, data: bytes) -> bytes:
    """What the header says that the rest is, behind VLAN tags; empty where it says nothing."""
    if linktype == ETHERNET:
        return data[_behind_tags(data) :][:2]
    at = _PROTOCOL.get(linktype)
    return data[at : at + 2] if at is not None else b""


def ip_header(linktype: int, data: bytes) -> int | None:
    """Where the IP header begins, of version 4 or 6; None if there is none."""
    if not known(linktype):
        return None
    said = ether_type(linktype, data)
    if (linktype == ETHERNET or linktype in _PROTOCOL) and said not in _IP:
        return None
    at = _behind_tags(data) + 2 if linktype == ETHERNET else HEADER.get(linktype, 0)
    return at if data[at : at + 1] and data[at] >> 4 in (4, 6) else None


def _behind_tags(data: bytes) -> int:
    """Where the EtherType lies."""
    at = 12
    while data[at : at + 2] in _VLAN:
        at += 4
    return at
