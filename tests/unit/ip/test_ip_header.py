"""The fast header writer makes the same bytes as the plain one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layers.ip.header import HeaderWriter
from levelip.wire.ipv4 import Ipv4Header, header_checksum_ok

ADDRESSES = st.binary(min_size=4, max_size=4)
BYTES = st.integers(0, 255)
WRITER = HeaderWriter()


@pytest.mark.rfc("RFC 791 3.1-3")
@given(ADDRESSES, ADDRESSES, BYTES, BYTES, BYTES, st.integers(0, 7), st.integers(20, 65_535), st.integers(0, 65_535))
def test_same_as_the_plain_one(
    src: bytes, dst: bytes, proto: int, ttl: int, tos: int, flags: int, total: int, ident: int
) -> None:
    """RFC 791 3.1: whatever the fields are, also the second time with other lengths and idents."""
    for length, number in ((total, ident), (20, 0), (65_535, 65_535)):
        plain = Ipv4Header.build(
            src, dst, proto=proto, payload_length=length - 20, ident=number, ttl=ttl, tos=tos, flags=flags
        ).serialize(fill_checksum=True)
        written = WRITER.write(src, dst, proto, ttl, tos, flags, length, number)
        assert written == plain
        assert header_checksum_ok(written)


def test_memory_is_bounded() -> None:
    """Many destinations do not fill memory."""
    writer = HeaderWriter()
    for number in range(10_000):
        writer.write(bytes(4), number.to_bytes(4, "big"), 6, 64, 0, 2, 40, 0)
    assert len(writer._sums) <= 4096
