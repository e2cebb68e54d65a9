"""What the tests of this folder share: hypothesis strategies for headers, and a checksum too simple to be
wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from levelip.wire.errors import Malformed
from levelip.wire.ethernet import EthernetHeader, VlanTag
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.options import TcpOptions
from levelip.wire.tcp import TcpHeader

u4 = st.integers(0, 15)
u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
ipv4_address = st.binary(min_size=4, max_size=4)
mac = st.binary(min_size=6, max_size=6)
near_wrap = st.one_of(u32, st.integers(0xFFFFFFFF - 70_000, 0xFFFFFFFF))
whole_words = st.integers(0, 10).flatmap(lambda words: st.binary(min_size=words * 4, max_size=words * 4))


def naive_checksum(data: bytes) -> int:
    """RFC 1071 section 4.1, word by word with end-around carry."""
    if len(data) % 2:
        data += b"\0"
    total = 0
    for at in range(0, len(data), 2):
        total += data[at] << 8 | data[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def pseudo_header(src: bytes, dst: bytes, proto: int, length: int) -> bytes:
    """RFC 9293 3.1 for IPv4, RFC 8200 8.1 for IPv6, as bytes."""
    if len(src) == 4:
        return src + dst + bytes((0, proto)) + length.to_bytes(2, "big")
    return src + dst + length.to_bytes(4, "big") + bytes((0, 0, 0, proto))


ipv4_headers = st.builds(
    lambda options, **fields: Ipv4Header(ihl=5 + len(options) // 4, options=options, **fields),
    version=u4,
    dscp=st.integers(0, 63),
    ecn=st.integers(0, 3),
    total_length=u16,
    ident=u16,
    flags=st.integers(0, 7),
    frag_offset=st.integers(0, 0x1FFF),
    ttl=u8,
    proto=u8,
    checksum=u16,
    src=ipv4_address,
    dst=ipv4_address,
    options=whole_words,
)

tcp_headers = st.builds(
    TcpHeader,
    src_port=u16,
    dst_port=u16,
    seq=near_wrap,
    ack=near_wrap,
    reserved=st.integers(0, 7),
    flags=st.integers(0, 0x1FF),
    window=u16,
    checksum=u16,
    urgent=u16,
    options=whole_words,
)

vlan_tags = st.builds(VlanTag, tpid=st.sampled_from((0x8100, 0x88A8)), tci=u16)
ethernet_headers = st.builds(
    EthernetHeader,
    dst=mac,
    src=mac,
    ethertype=u16.filter(lambda value: value not in (0x8100, 0x88A8)),
    vlan=st.lists(vlan_tags, max_size=3).map(tuple),
)

_known_kinds = (0, 1, 2, 3, 4, 5, 8)
_unknown_option = st.tuples(u8.filter(lambda kind: kind not in _known_kinds), st.binary(max_size=10))


def _fits(options: TcpOptions) -> bool:
    try:
        options.serialize()
    except ValueError:
        return False
    return True


tcp_options = st.builds(
    TcpOptions,
    mss=st.none() | u16,
    wscale=st.none() | u8,
    sack_permitted=st.booleans(),
    sack=st.lists(st.tuples(near_wrap, near_wrap), max_size=4).map(tuple),
    timestamps=st.none() | st.tuples(u32, u32),
    unknown=st.lists(_unknown_option, max_size=2).map(tuple),
).filter(_fits)


def only_malformed(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """What `parse` makes of `data`, or None if it finds it malformed; any other exception fails the test."""
    try:
        return parse(data)
    except Malformed as malformed:
        assert malformed.reason.replace("_", "").islower()
        assert 0 <= malformed.offset <= len(data)
        return None


def assert_truncations(parse: Callable[[bytes], Any], whole: bytes) -> None:
    """Every proper prefix of `whole` raises Malformed, in bytes and in a view, and `whole` itself does not."""
    parse(whole)
    parse(memoryview(bytearray(whole)))  # type: ignore[arg-type]
    for size in range(len(whole)):
        for data in (whole[:size], memoryview(whole)[:size]):
            with pytest.raises(Malformed) as caught:
                parse(data)  # type: ignore[arg-type]
            assert "truncated" in caught.value.reason
            assert caught.value.offset == size
