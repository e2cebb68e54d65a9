"""levelip.wire.checksum"""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.checksum import (
    fold,
    internet_checksum,
    ones_sum,
    pseudo_header_sum,
    update_checksum,
    word_sum,
)

from .strategies import ipv4_address, naive_checksum, pseudo_header, u8, u16


def test_rfc_1071_example() -> None:
    """RFC 1071 section 3: the words 0001 f203 f4f5 f6f7 sum to ddf2, so the checksum is 220d."""
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert ones_sum(data) == 0xDDF2
    assert internet_checksum(data) == 0x220D


def test_ipv4_header_example() -> None:
    """A header whose checksum is known (0xB861); with it filled in the sum is all ones."""
    header = bytes.fromhex("45000073000040004011b861c0a80001c0a800c7")
    assert internet_checksum(header[:10] + b"\0\0" + header[12:]) == 0xB861
    assert internet_checksum(header) == 0
    assert ones_sum(header) == 0xFFFF


def test_both_zeros() -> None:
    """Nothing but zero bytes sums to 0 (checksum 0xFFFF); words that cancel out to 0xFFFF (checksum 0)."""
    assert internet_checksum(b"") == 0xFFFF
    assert internet_checksum(bytes(20)) == 0xFFFF
    assert internet_checksum(bytes(9001)) == 0xFFFF
    assert internet_checksum(b"\xff\xff") == 0
    assert internet_checksum(b"\xff\xff" * 5000) == 0
    assert internet_checksum(b"\xff\xfe\x00\x01") == 0
    assert (fold(0), fold(65535), fold(65536), fold(0x1FFFE)) == (0, 65535, 1, 65535)


@given(st.binary(max_size=300))
def test_equals_naive(data: bytes) -> None:
    """Any bytes, of odd length too, have the checksum that adding word by word gives."""
    assert internet_checksum(data) == naive_checksum(data)
    assert internet_checksum(memoryview(bytearray(data))) == naive_checksum(data)
    assert ones_sum(data) == naive_checksum(data) ^ 0xFFFF


@pytest.mark.parametrize("size", [2047, 2048, 2049, 2050, 4095, 4096, 4097, 9000, 65515, 65535])
def test_large_equals_naive(size: int) -> None:
    """So have buffers that are summed in chunks, around the chunks' borders."""
    data = random.Random(size).randbytes(size)
    assert internet_checksum(data) == naive_checksum(data)
    assert internet_checksum(memoryview(data)) == naive_checksum(data)


@given(st.binary(max_size=60).map(lambda b: b[: len(b) & ~1]), st.binary(max_size=61))
def test_sums_chain(head: bytes, tail: bytes) -> None:
    """The sum of an even-length head, folded or not, is a good `initial` for the rest (RFC 1071 section 1)."""
    whole = naive_checksum(head + tail)
    assert internet_checksum(tail, ones_sum(head)) == whole
    assert internet_checksum(tail, word_sum(head)) == whole
    assert ones_sum(tail, ones_sum(head)) == whole ^ 0xFFFF


@given(ipv4_address, ipv4_address, u8, u16)
def test_pseudo_header_ipv4(src: bytes, dst: bytes, proto: int, length: int) -> None:
    """RFC 9293 3.1: the sum is that of the 12 bytes."""
    assert pseudo_header_sum(src, dst, proto, length) == ones_sum(pseudo_header(src, dst, proto, length))


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16), u8, st.integers(0, 1 << 20))
def test_pseudo_header_ipv6(src: bytes, dst: bytes, proto: int, length: int) -> None:
    """RFC 8200 8.1: the sum is that of the 40 bytes."""
    assert pseudo_header_sum(src, dst, proto, length) == ones_sum(pseudo_header(src, dst, proto, length))


@pytest.mark.parametrize(("src", "dst"), [(b"", b""), (bytes(4), bytes(16)), (bytes(6), bytes(6))])
def test_pseudo_header_refuses_other_addresses(src: bytes, dst: bytes) -> None:
    """Addresses of mixed or unknown families are our caller's mistake."""
    with pytest.raises(ValueError, match="addresses of"):
        pseudo_header_sum(src, dst, 6, 20)


def test_rfc_1624_example() -> None:
    """RFC 1624 section 4: 5555 becomes 3285 under checksum DD2F; the new checksum is 0000, not FFFF."""
    assert update_checksum(0xDD2F, 0x5555, 0x3285) == 0x0000


@given(st.binary(min_size=20, max_size=20), st.integers(0, 9), u16)
def test_update_equals_recomputing(data: bytes, word: int, new: int) -> None:
    """RFC 1624: the checksum of a changed buffer follows from the change alone."""
    at = word * 2
    changed = data[:at] + new.to_bytes(2, "big") + data[at + 2 :]
    if any(changed):
        old = int.from_bytes(data[at : at + 2], "big")
        assert update_checksum(internet_checksum(data), old, new) == naive_checksum(changed)


@given(st.binary(min_size=20, max_size=20), ipv4_address)
def test_update_takes_wider_fields(data: bytes, new: bytes) -> None:
    """A field of several words, as an address is, may be given as one number."""
    changed = data[:12] + new + data[16:]
    if any(changed):
        old = int.from_bytes(data[12:16], "big")
        updated = update_checksum(internet_checksum(data), old, int.from_bytes(new, "big"))
        assert updated == naive_checksum(changed)
