"""levelip.wire.tcp"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire import tcp
from levelip.wire.errors import Malformed
from levelip.wire.tcp import TcpHeader, flags_from_text, flags_text, pack_tcp

from .strategies import assert_truncations, near_wrap, only_malformed, tcp_headers, u16, whole_words


@given(tcp_headers, st.binary(max_size=8))
def test_round_trip(header: TcpHeader, payload: bytes) -> None:
    """parse(serialize(x)) == x, every bit of it, at any offset and from any kind of buffer."""
    data = header.serialize() + payload
    assert TcpHeader.parse(data) == header
    assert TcpHeader.parse(memoryview(data)) == header
    assert TcpHeader.parse(bytearray(b"xyz" + data), 3) == header
    assert data[header.length :] == payload


@given(tcp_headers)
def test_truncation(header: TcpHeader) -> None:
    """A header cut anywhere, in its options too, is Malformed."""
    assert_truncations(TcpHeader.parse, header.serialize())


@given(st.binary(max_size=70))
def test_garbage(data: bytes) -> None:
    """Any bytes give a header that serializes to them and has a text, or Malformed."""
    header = only_malformed(TcpHeader.parse, data)
    if header is not None:
        assert header.serialize() == data[: header.length]
        str(header)


@given(u16, u16, near_wrap, near_wrap, st.integers(0, 0x1FF), u16, u16, whole_words)
def test_pack_tcp_equals_serialize(
    src: int, dst: int, seq: int, ack: int, flags: int, window: int, urgent: int, options: bytes
) -> None:
    """The short way to a header's bytes gives what the long way gives."""
    header = TcpHeader(
        src_port=src, dst_port=dst, seq=seq, ack=ack, flags=flags, window=window, urgent=urgent, options=options
    )
    packed = pack_tcp(src, dst, seq=seq, ack=ack, flags=flags, window=window, urgent=urgent, options=options)
    assert packed == header.serialize()


def test_fields_of_a_known_segment() -> None:
    """The bits of each field are where RFC 9293 3.1, RFC 3168 6.1 and RFC 9768 put them."""
    data = bytes.fromhex("8a0000501968b5094000000167f2faf0aec71234020405b4")
    header = TcpHeader.parse(data)
    assert (header.src_port, header.dst_port) == (0x8A00, 80)
    assert (header.seq, header.ack) == (0x1968B509, 0x40000001)
    assert header.length == 24
    assert header.reserved == 0b011
    assert header.flags == tcp.AE | tcp.CWR | tcp.ECE | tcp.URG | tcp.ACK | tcp.SYN
    assert (header.window, header.checksum, header.urgent) == (0xFAF0, 0xAEC7, 0x1234)
    assert header.options == bytes.fromhex("020405b4")
    assert str(header) == (
        "35328 > 80: Flags [S.UEWe], seq 426292489, ack 1073741825, win 64240, urg 4660, options [mss 1460]"
    )


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "truncated", 0),
        (bytes(19), "truncated", 19),
        (bytes(12) + b"\x40" + bytes(20), "data_offset_too_small", 12),
        (bytes(12) + b"\x60" + bytes(10), "options_truncated", 23),
    ],
)
def test_malformed(data: bytes, reason: str, offset: int) -> None:
    """Each way of not being a header has its reason."""
    with pytest.raises(Malformed) as caught:
        TcpHeader.parse(data)
    assert (caught.value.proto, caught.value.reason, caught.value.offset) == ("tcp", reason, offset)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (tcp.SYN, "S"),
        (tcp.SYN | tcp.ACK, "S."),
        (tcp.FIN | tcp.ACK, "F."),
        (tcp.PSH | tcp.ACK, "P."),
        (tcp.ACK, "."),
        (tcp.RST, "R"),
        (tcp.RST | tcp.ACK, "R."),
        (tcp.SYN | tcp.ECE | tcp.CWR, "SEW"),
        (tcp.FIN | tcp.PSH | tcp.URG, "FPU"),
        (0, "none"),
    ],
)
def test_flags_text(flags: int, text: str) -> None:
    """Flags read as tcpdump prints them."""
    assert flags_text(flags) == text


@given(st.integers(0, 0x1FF))
def test_flags_round_trip(flags: int) -> None:
    """What `flags_text` writes `flags_from_text` reads, in any order of letters."""
    assert flags_from_text(flags_text(flags)) == flags
    if flags:
        assert flags_from_text(flags_text(flags)[::-1]) == flags


def test_unknown_flag_letter() -> None:
    """A letter that is no flag is refused, with those that are."""
    with pytest.raises(ValueError, match="'X' is no TCP flag; known are F S R P"):
        flags_from_text("SX")


def test_torn_options_still_print() -> None:
    """A header with options that cannot be read has a text, which says so."""
    header = TcpHeader(src_port=1, dst_port=2, seq=3, flags=tcp.RST, window=0, options=b"\x01\x01\x02\x04")
    assert str(header) == "1 > 2: Flags [R], seq 3, win 0, options [nop,nop,[option_truncated]]"


@pytest.mark.parametrize(
    "change",
    [
        {"src_port": 65536},
        {"seq": 1 << 32},
        {"seq": -1},
        {"flags": 0x200},
        {"flags": -1},
        {"reserved": 8},
        {"window": 65536},
        {"options": b"\x01"},
        {"options": bytes(44)},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """A value too large for its field never spills into the next one: ValueError."""
    header = TcpHeader(src_port=1, dst_port=2, seq=3, flags=tcp.SYN, window=5)
    with pytest.raises(ValueError):
        dataclasses.replace(header, **change).serialize()  # type: ignore[arg-type]
