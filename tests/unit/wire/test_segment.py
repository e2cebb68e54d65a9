"""levelip.wire.segment"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from levelip.wire import ipv4, tcp
from levelip.wire.checksum import ones_sum
from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import Ipv4Header, header_checksum_ok
from levelip.wire.options import pack_timestamps
from levelip.wire.segment import complete_tcp_checksum, header_length, partial_tcp_checksum, split_tcp
from levelip.wire.tcp import TcpHeader

from .strategies import ipv4_address, naive_checksum, pseudo_header, tcp_headers, u16, whole_words

A = bytes((10, 0, 0, 1))
B = bytes((10, 0, 0, 2))
BASE = TcpHeader(src_port=4000, dst_port=80, seq=1, ack=2, flags=tcp.ACK, window=500)


def make_head(header: TcpHeader, size: int, *, ident: int = 7, options: bytes = b"", src: bytes = A) -> bytes:
    """IPv4 and TCP headers of a segment with `size` bytes of payload; lengths beyond IPv4's are left at
    65,535.
    """
    segment = header.serialize()
    ip = Ipv4Header.build(
        src, B, proto=6, payload_length=len(segment) + size, ident=ident, flags=ipv4.FLAG_DF, options=options
    )
    ip = dataclasses.replace(ip, total_length=min(ip.total_length, 65535))
    return ip.serialize(fill_checksum=True) + segment


def tcp_checksum_ok(head: bytes, payload: bytes) -> bool:
    """RFC 9293 3.1, by the naive sum."""
    at = (head[0] & 15) * 4
    segment = head[at:] + payload
    return naive_checksum(pseudo_header(head[12:16], head[16:20], 6, len(segment)) + segment) == 0


super_segments = st.tuples(
    tcp_headers,
    ipv4_address,
    whole_words,
    u16,
    st.integers(0, 400),
    st.integers(1, 150),
)


@settings(max_examples=200)
@given(super_segments, st.booleans())
def test_pieces_are_what_they_should_be(case: tuple[TcpHeader, bytes, bytes, int, int, int], complete: bool) -> None:
    """Each piece equals the segment that its place in the stream calls for, and together they are the whole."""
    header, src, options, ident, size, gso_size = case
    payload = bytes((i * 31 + 5) & 0xFF for i in range(size))
    head = make_head(header, size, ident=ident, options=options, src=src)
    before = Ipv4Header.parse(head)
    pieces = split_tcp(head, payload, gso_size, complete=complete)

    assert len(pieces) == max(1, -(-size // gso_size))
    assert b"".join(bytes(piece) for _, piece in pieces) == payload
    assert all(len(piece) == gso_size for _, piece in pieces[:-1])
    for number, (got, piece) in enumerate(pieces):
        start = number * gso_size
        flags, urgent = header.flags, header.urgent
        if number > 0:
            flags &= ~tcp.CWR
            if flags & tcp.URG:
                urgent = max(urgent - start, 0)
                if urgent == 0:
                    flags &= ~tcp.URG
        if number < len(pieces) - 1:
            flags &= ~(tcp.FIN | tcp.PSH)
        ip = Ipv4Header.parse(got)
        assert header_checksum_ok(got)
        assert ip == dataclasses.replace(
            before,
            total_length=len(got) + len(piece),
            ident=(ident + number) % 65536,
            checksum=ip.checksum,
        )
        segment = TcpHeader.parse(got, ip.length)
        assert ip.length + segment.length == len(got)
        assert segment == dataclasses.replace(
            header,
            seq=(header.seq + start) % (1 << 32),
            flags=flags,
            urgent=urgent,
            checksum=segment.checksum,
        )
        if complete:
            assert tcp_checksum_ok(got, bytes(piece))
            assert complete_tcp_checksum(got, piece) == got
        else:
            length = len(got) - ip.length + len(piece)
            assert segment.checksum == ones_sum(pseudo_header(src, B, 6, length))
            assert partial_tcp_checksum(got, length) == got


def test_sequence_wraps_between_pieces() -> None:
    """A super-segment just below 2^32 goes on at 0."""
    header = dataclasses.replace(BASE, seq=0xFFFFFFFF - 99)
    pieces = split_tcp(make_head(header, 300), bytes(300), 100)
    assert [TcpHeader.parse(head, 20).seq for head, _ in pieces] == [0xFFFFFF9C, 0, 100]


def test_ident_wraps() -> None:
    """The ident counts on modulo 2^16."""
    pieces = split_tcp(make_head(BASE, 30, ident=0xFFFF), bytes(30), 10)
    assert [Ipv4Header.parse(head).ident for head, _ in pieces] == [0xFFFF, 0, 1]


def test_urgent_pointer_counts_from_each_piece() -> None:
    """RFC 9293 3.1: it is relative to the segment's own sequence number; URG ends where the urgent data end."""
    header = dataclasses.replace(BASE, flags=tcp.ACK | tcp.URG, urgent=200)
    pieces = [TcpHeader.parse(head, 20) for head, _ in split_tcp(make_head(header, 300), bytes(300), 100)]
    assert [(piece.urgent, bool(piece.flags & tcp.URG)) for piece in pieces] == [
        (200, True),
        (100, True),
        (0, False),
    ]


def test_same_bytes_as_linux() -> None:
    """A super-segment written to a tap with offload left another one without, cut by Linux 6.18, as ours are
    cut.

    50 bytes at sequence number 2^32-16 in pieces of 20, with FIN, PSH, ECE, CWR and timestamps, ident 0xFFFE.
    """
    head = bytes.fromhex(
        "45000066fffe4000400626910a0000010a0000020fa00050fffffff00000004d80d901f4145b00000101080a0000000100000002"
    )
    payload = bytes((i * 7 + 3) & 255 for i in range(50))
    linux = [
        "45000048fffe4000400626af0a0000010a0000020fa00050fffffff00000004d80d001f4b8e50000"
        "0101080a0000000100000002030a11181f262d343b424950575e656c737a8188",
        "45000048ffff4000400626ae0a0000010a0000020fa00050000000040000004d805001f43dd60000"
        "0101080a00000001000000028f969da4abb2b9c0c7ced5dce3eaf1f8ff060d14",
        "4500003e00004000400626b80a0000010a0000020fa00050000000180000004d805901f43be50000"
        "0101080a00000001000000021b222930373e454c535a",
    ]
    assert [(head + bytes(piece)).hex() for head, piece in split_tcp(head, payload, 20)] == linux


def test_large_super_segment_in_views() -> None:
    """A payload in shared memory is cut into views of it, 44 pieces of 1,448 bytes, none copied."""
    payload = bytearray(i * 13 & 0xFF for i in range(44 * 1448))
    header = dataclasses.replace(BASE, seq=0xFFFF8000, options=pack_timestamps(1, 2))
    pieces = split_tcp(make_head(header, len(payload)), memoryview(payload), 1448)
    assert len(pieces) == 44
    assert all(isinstance(piece, memoryview) and piece.obj is payload for _, piece in pieces)
    assert all(tcp_checksum_ok(head, bytes(piece)) for head, piece in pieces)


def test_empty_and_small_are_one_packet() -> None:
    """What needs no cutting keeps all flags; its length and checksums are set."""
    header = dataclasses.replace(BASE, flags=tcp.FIN | tcp.PSH | tcp.ACK | tcp.CWR)
    for size in (0, 1, 100):
        ((head, piece),) = split_tcp(make_head(header, 9999), bytes(size), 100)
        assert TcpHeader.parse(head, 20).flags == header.flags
        assert Ipv4Header.parse(head).total_length == 40 + size == len(head) + len(piece)
        assert tcp_checksum_ok(head, bytes(piece))


def test_input_is_left_alone() -> None:
    """A head given as a bytearray is as it was, and the results do not share it."""
    head = bytearray(make_head(BASE, 30))
    before = bytes(head)
    pieces = split_tcp(head, bytes(30), 10)
    complete_tcp_checksum(head, b"x")
    partial_tcp_checksum(head, 21)
    assert head == before
    assert all(type(piece_head) is bytes for piece_head, _ in pieces)


@pytest.mark.parametrize("gso_size", [0, -1])
def test_impossible_gso_size(gso_size: int) -> None:
    """No pieces of nothing: our caller's mistake."""
    with pytest.raises(ValueError, match="gso_size"):
        split_tcp(make_head(BASE, 10), bytes(10), gso_size)


def test_piece_too_large_for_ipv4() -> None:
    """A piece must fit into an IPv4 total length of 65,535 bytes (RFC 791 3.1)."""
    split_tcp(make_head(BASE, 0), bytes(65495), 65535)
    with pytest.raises(ValueError, match="65536 bytes do not fit"):
        split_tcp(make_head(BASE, 0), bytes(65496), 65535)


@given(super_segments.filter(lambda case: case[4] < 300))
def test_checksums(case: tuple[TcpHeader, bytes, bytes, int, int, int]) -> None:
    """Completing gives a right checksum whatever stood there; partial is the folded pseudo-header's sum."""
    header, src, options, ident, size, _ = case
    payload = bytes(i & 0xFF for i in range(size))
    head = make_head(header, size, ident=ident, options=options, src=src)
    at = (head[0] & 15) * 4 + 16
    done = complete_tcp_checksum(head, payload)
    assert tcp_checksum_ok(done, payload)
    assert done[:at] + done[at + 2 :] == head[:at] + head[at + 2 :]
    assert complete_tcp_checksum(memoryview(head), memoryview(payload)) == done
    partial = partial_tcp_checksum(head, header.length + size)
    assert partial[:at] + partial[at + 2 :] == head[:at] + head[at + 2 :]
    # What the device does: sum from csum_start on, the field holding the partial sum, and store the complement.
    assert naive_checksum(partial[at - 16 :] + payload).to_bytes(2, "big") == done[at : at + 2]


@given(super_segments)
def test_header_length(case: tuple[TcpHeader, bytes, bytes, int, int, int]) -> None:
    """The split lies behind the TCP options, whatever follows; cut into the headers there is none."""
    header, src, options, ident, size, _ = case
    head = make_head(header, size, ident=ident, options=options, src=src)
    assert header_length(head + bytes(size)) == len(head)
    assert header_length(memoryview(head + bytes(size))) == len(head)
    assert header_length(head) == len(head)
    for cut in range(len(head)):
        assert header_length(head[:cut]) is None


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, 0x65),  # version 6
        (0, 0x44),  # header below 20 bytes
        (0, 0x4F),  # header that reaches beyond the packet
        (2, 0x00),  # total length within the headers (with the next byte 39)
        (6, 0x20),  # more fragments
        (6, 0x01),  # a fragment offset
        (7, 0x01),  # a fragment offset
        (9, 17),  # UDP
        (32, 0x40),  # data offset below 20 bytes
        (32, 0xF0),  # data offset beyond the packet
    ],
)
def test_no_header_split(at: int, value: int) -> None:
    """Anything but a whole, unfragmented IPv4 TCP packet has no split."""
    packet = bytearray(make_head(BASE, 0) + bytes(8))
    packet[2:4] = (39 if at == 2 else 48).to_bytes(2, "big")
    assert at == 2 or header_length(packet) == 40
    packet[at] = value
    assert header_length(packet) is None


@given(st.binary(max_size=80) | st.binary(min_size=79, max_size=79).map(lambda rest: b"\x45" + rest))
def test_header_length_of_garbage(data: bytes) -> None:
    """Any bytes give None or a length within them that both headers' own lengths add up to."""
    length = header_length(data)
    if length is not None:
        ip = Ipv4Header.parse(data)
        assert length == ip.length + TcpHeader.parse(data, ip.length).length <= len(data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda head: head[:39], "truncated"),
        (lambda head: b"", "truncated"),
        (lambda head: b"\x65" + head[1:], "not_ipv4_tcp"),
        (lambda head: b"\x44" + head[1:], "not_ipv4_tcp"),
        (lambda head: head[:9] + b"\x11" + head[10:], "not_ipv4_tcp"),
        (lambda head: head + b"x", "head_length"),
        (lambda head: b"\x4f" + head[1:], "head_length"),
        (lambda head: head[:32] + b"\x60" + head[33:], "head_length"),
    ],
)
def test_torn_heads(change: object, reason: str) -> None:
    """A head that is not just an IPv4 and a TCP header is Malformed, to all three."""
    head = change(make_head(BASE, 10))  # type: ignore[operator]
    for call in (
        lambda: split_tcp(head, bytes(10), 5),
        lambda: complete_tcp_checksum(head, bytes(10)),
        lambda: partial_tcp_checksum(head, 30),
    ):
        with pytest.raises(Malformed) as caught:
            call()
        assert (caught.value.proto, caught.value.reason) == ("segment", reason)


@given(st.binary(max_size=120), st.binary(max_size=40), st.integers(1, 50))
def test_garbage(head: bytes, payload: bytes, gso_size: int) -> None:
    """Any bytes as a head give packets or Malformed, nothing else."""
    for data in (head, b"\x45" + head[:8] + b"\x06" + head[8:]):
        try:
            split_tcp(data, payload, gso_size)
        except Malformed as malformed:
            assert malformed.reason in ("truncated", "not_ipv4_tcp", "head_length")
