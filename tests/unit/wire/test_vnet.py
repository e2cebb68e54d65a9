"""levelip.wire.vnet"""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire import vnet
from levelip.wire.vnet import VnetHeader

from .strategies import assert_truncations, only_malformed, u8, u16

headers = st.builds(VnetHeader, flags=u8, gso_type=u8, hdr_len=u16, gso_size=u16, csum_start=u16, csum_offset=u16)


@given(headers)
def test_round_trip(header: VnetHeader) -> None:
    """parse(serialize(x)) == x in 10 bytes, and every value has a text."""
    data = header.serialize()
    assert len(data) == vnet.VNET_HEADER_LEN
    assert VnetHeader.parse(data + b"frame") == header
    assert VnetHeader.parse(memoryview(b"xy" + data), 2) == header
    assert str(header).startswith("vnet ")


@given(headers)
def test_truncation(header: VnetHeader) -> None:
    """A header cut anywhere is Malformed."""
    assert_truncations(VnetHeader.parse, header.serialize())


@given(st.binary(max_size=16))
def test_garbage(data: bytes) -> None:
    """Any bytes give a header that serializes to them, or Malformed."""
    header = only_malformed(VnetHeader.parse, data)
    if header is not None:
        assert header.serialize() == data[:10]


def test_super_segment() -> None:
    """What Linux wants before a super-segment on a tap (linux/virtio_net.h): checksum and cuts are left to
    it.
    """
    header = VnetHeader.for_tcp(link_len=14, ip_len=20, head_len=52, gso_size=1448)
    assert header == VnetHeader(flags=1, gso_type=1, hdr_len=66, gso_size=1448, csum_start=34, csum_offset=16)
    if sys.byteorder == "little":
        assert header.serialize().hex() == "01014200a80522001000"
    assert header.needs_csum and not header.data_valid
    assert str(header) == "vnet csum at 34+16, gso tcpv4 1448 header 66"


def test_cwr_is_told() -> None:
    """A super-segment with CWR says GSO_ECN, so that only its first piece keeps the flag."""
    header = VnetHeader.for_tcp(link_len=0, ip_len=20, head_len=40, gso_size=1460, cwr=True)
    assert header.gso_type == vnet.GSO_TCPV4 | vnet.GSO_ECN
    assert header.gso_kind == vnet.GSO_TCPV4
    assert str(header) == "vnet csum at 20+16, gso tcpv4+ecn 1460 header 40"


def test_single_packet_and_complete_packet() -> None:
    """Without cutting only the checksum is left; all zero leaves nothing."""
    assert VnetHeader.for_tcp(link_len=14, ip_len=24, head_len=44) == VnetHeader(1, 0, 0, 0, 38, 16)
    assert VnetHeader.parse(vnet.COMPLETE) == VnetHeader()
    assert str(VnetHeader()) == "vnet complete"
    assert VnetHeader(flags=vnet.DATA_VALID).data_valid


def test_what_does_not_fit_is_refused() -> None:
    """A value too large for its field is our caller's mistake: ValueError."""
    with pytest.raises(ValueError, match="vnet header"):
        VnetHeader(gso_size=65536).serialize()
