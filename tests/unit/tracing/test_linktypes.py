"""Where the IP packet begins in a captured one."""

from __future__ import annotations

import pytest

from levelip.tracing.capturefile import CaptureError
from levelip.tracing.captures import CapturedPacket, ip_packet
from levelip.tracing.linktypes import HEADER, ip_header, known
from levelip.wire.ipv4 import Ipv4Header

IP4 = Ipv4Header.build(bytes(4), bytes(4), proto=17, payload_length=0).serialize()
IP6 = b"\x60" + bytes(39)
MACS = bytes(12)


@pytest.mark.parametrize(
    ("linktype", "head", "ip", "at"),
    [
        (1, MACS + b"\x08\x00", IP4, 14),
        (1, MACS + b"\x86\xdd", IP6, 14),
        (1, MACS + b"\x81\x00\x00\x05\x88\xa8\x00\x07\x08\x00", IP4, 22),  # IEEE 802.1Q 9: tags
        (1, MACS + b"\x08\x06", IP4, None),
        (1, MACS[:11], b"", None),
        (1, MACS + b"\x08\x00", b"", None),
        *((kind, b"", IP4, 0) for kind in (12, 14, 101, 228, 229)),
        (101, b"", IP6, 0),
        (101, b"", b"\x50" + bytes(19), None),
        (101, b"", b"", None),
        (0, b"\2\0\0\0", IP4, 4),
        (108, b"\0\0\0\2", IP4, 4),
        (113, bytes(14) + b"\x08\x00", IP4, 16),
        (113, bytes(14) + b"\x08\x06", IP4, None),
        (276, b"\x08\x00" + bytes(18), IP4, 20),
        (276, b"\x88\xcc" + bytes(18), IP4, None),
        (105, b"", IP4, None),
    ],
)
def test_what_stands_before_it(linktype: int, head: bytes, ip: bytes, at: int | None) -> None:
    """None where there is none, whatever the bytes are."""
    assert ip_header(linktype, head + ip) == at
    packet = CapturedPacket(7, 0, linktype, head + ip, len(head + ip))
    if at is not None and ip is IP4:
        assert ip_packet(packet) == IP4
        return
    with pytest.raises(CaptureError, match="packet 7 is "):
        ip_packet(packet)


@pytest.mark.parametrize("linktype", [0, 1, 12, 101, 108, 113, 229, 276, 9999])
def test_every_cut(linktype: int) -> None:
    """A packet that ends anywhere is no error; one of IP is found as soon as its first byte is there."""
    whole = (MACS + b"\x08\x00" if linktype == 1 else bytes(HEADER.get(linktype, 0))) + IP4
    if linktype in (113, 276):
        at = {113: 14, 276: 0}[linktype]
        whole = whole[:at] + b"\x08\x00" + whole[at + 2 :]
    for end in range(len(whole)):
        found = ip_header(linktype, whole[:end])
        assert found is None or (known(linktype) and found < end)
