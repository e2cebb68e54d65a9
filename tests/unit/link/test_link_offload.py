"""What the device would do, done in software: `finish` undoes what `prepare` left open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_host import A_MAC, OUR_MAC, US, A, segment

from layers.link.offload import Unfit, finish, pieces, prepare
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ipv4 import Ipv4Header, Proto
from levelip.wire.segment import complete_tcp_checksum, split_tcp
from levelip.wire.udp import UdpHeader
from levelip.wire.vnet import COMPLETE, GSO_TCPV4, GSO_UDP, NEEDS_CSUM, VnetHeader

ETH = A_MAC + OUR_MAC + b"\x08\x00"


@pytest.mark.rfc("RFC 9293 MUST-2")
@settings(deadline=None)
@given(st.binary(max_size=3000), st.sampled_from([b"", ETH]), st.integers(0, 3000))
def test_checksum_is_completed(payload: bytes, link: bytes, split: int) -> None:
    """The frame that leaves has the checksum that wire.segment computes, however head and payload are split."""
    packet = segment(US, A, payload)
    split = min(split, len(packet))
    head, rest, vnet = prepare(packet[:split], packet[split:], 0, len(link))
    assert isinstance(rest, bytes)
    assert finish(vnet, link + head, rest, len(link)) == [link + complete_tcp_checksum(packet[:40], payload) + payload]


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=101, max_size=5000), st.sampled_from([b"", ETH]), st.integers(100, 1460))
def test_super_segment_is_cut(payload: bytes, link: bytes, gso_size: int) -> None:
    """The frames that leave are those of wire.segment.split_tcp, each behind the link header."""
    packet = segment(US, A, payload)
    head, rest, vnet = prepare(packet[:40], payload, gso_size, len(link))
    assert isinstance(rest, bytes)
    expected = [link + one + bytes(part) for one, part in split_tcp(packet[:40], payload, gso_size)]
    assert finish(vnet, link + head, rest, len(link)) == expected
    assert pieces(packet[:40], payload, gso_size) == len(expected)


def test_complete_frame_is_left_alone() -> None:
    """No virtio header, or one that asks for nothing."""
    assert finish(b"", b"ab", b"cd", 14) == finish(COMPLETE, b"ab", b"cd", 14) == [b"abcd"]


def test_udp_checksum_of_zero_is_sent_as_ones() -> None:
    """0 in the field says that there is no checksum (RFC 768)."""
    ip = Ipv4Header.build(US, A, proto=Proto.UDP, payload_length=10).serialize(fill_checksum=True)
    udp = UdpHeader(1, 2, 10).serialize()
    bare = internet_checksum(udp + bytes(2), pseudo_header_sum(US, A, Proto.UDP, 10))
    data = bare.to_bytes(2, "big")  # so that the whole sums up to all ones
    head, rest, vnet = prepare(ip + udp, data, 0, 0)
    assert isinstance(rest, bytes)
    (frame,) = finish(vnet, head, rest, 0)
    assert frame[26:28] == b"\xff\xff"
    assert internet_checksum(frame[20:], pseudo_header_sum(US, A, Proto.UDP, 10)) == 0


@pytest.mark.parametrize(
    "vnet",
    [
        b"\x01\x02",
        VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_UDP, gso_size=100).serialize(),
        VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_TCPV4, gso_size=0).serialize(),
        VnetHeader(flags=NEEDS_CSUM, csum_start=50, csum_offset=16).serialize(),
    ],
)
def test_impossible_header_is_refused(vnet: bytes) -> None:
    """A virtio header that does not fit its frame (a tool may have made it)."""
    with pytest.raises(Unfit):
        finish(vnet, segment(US, A), b"", 0)


@settings(deadline=None)
@given(st.binary(max_size=12), st.binary(max_size=100), st.binary(max_size=100), st.sampled_from([0, 14]))
def test_finish_refuses_or_gives_frames(vnet: bytes, head: bytes, payload: bytes, link_len: int) -> None:
    """Whatever it is given: Unfit, or frames."""
    try:
        frames = finish(vnet, head, payload, link_len)
    except Unfit:
        return
    assert frames and all(isinstance(frame, bytes) for frame in frames)
