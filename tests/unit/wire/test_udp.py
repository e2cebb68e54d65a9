"""levelip.wire.udp"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.udp import UdpHeader

from .strategies import assert_truncations, only_malformed, u16

headers = st.builds(UdpHeader, src_port=u16, dst_port=u16, length=u16, checksum=u16)


@given(headers, st.binary(max_size=8))
def test_round_trip(header: UdpHeader, payload: bytes) -> None:
    """parse(serialize(x)) == x (RFC 768)."""
    data = header.serialize()
    assert len(data) == 8
    assert UdpHeader.parse(data + payload) == header
    assert UdpHeader.parse(memoryview(b"ip" + data), 2) == header


@given(headers)
def test_truncation(header: UdpHeader) -> None:
    """A header cut anywhere is Malformed."""
    assert_truncations(UdpHeader.parse, header.serialize())


@given(st.binary(max_size=16))
def test_garbage(data: bytes) -> None:
    """Any bytes give a header that serializes to them, or Malformed."""
    header = only_malformed(UdpHeader.parse, data)
    if header is not None:
        assert header.serialize() == data[:8]


def test_text_and_limits() -> None:
    """The text is tcpdump's; a value too large is refused."""
    assert str(UdpHeader(53, 4000, 20)) == "53 > 4000: UDP, length 12"
    with pytest.raises(ValueError, match="udp header"):
        UdpHeader(65536, 1, 8).serialize()
