"""levelip.wire.ipv4"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire import ipv4
from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import Ipv4Header, Ipv4Option, header_checksum_ok, iter_options

from .strategies import assert_truncations, ipv4_address, ipv4_headers, naive_checksum, only_malformed, u8, u16

A = bytes((10, 0, 0, 1))
B = bytes((10, 0, 0, 2))


@given(ipv4_headers, st.binary(max_size=8))
def test_round_trip(header: Ipv4Header, payload: bytes) -> None:
    """parse(serialize(x)) == x, every bit of it, at any offset and from any kind of buffer."""
    data = header.serialize() + payload
    assert Ipv4Header.parse(data) == header
    assert Ipv4Header.parse(memoryview(data)) == header
    assert Ipv4Header.parse(bytearray(b"xyz" + data), 3) == header
    assert data[header.length :] == payload


@given(ipv4_headers)
def test_truncation(header: Ipv4Header) -> None:
    """A header cut anywhere, in its options too, is Malformed."""
    assert_truncations(Ipv4Header.parse, header.serialize())


@given(st.binary(max_size=70) | st.binary(min_size=19, max_size=69).map(lambda rest: b"\x4f" + rest))
def test_garbage(data: bytes) -> None:
    """Any bytes give a header that serializes to them, or Malformed."""
    header = only_malformed(Ipv4Header.parse, data)
    if header is not None:
        assert header.serialize() == data[: header.length]
        str(header)


@pytest.mark.rfc("RFC 791 3.1", "RFC 2474 3")
def test_fields_of_a_known_packet() -> None:
    """The bits of each field are where RFC 791 3.1 and RFC 2474, 3168 put them."""
    data = bytes.fromhex("45bb0073 1c46e123 4006 b861 c0a80001 c0a800c7")
    header = Ipv4Header.parse(data)
    assert (header.version, header.ihl, header.length) == (4, 5, 20)
    assert (header.dscp, header.ecn, header.tos) == (0x2E, ipv4.ECN_CE, 0xBB)
    assert (header.total_length, header.ident) == (0x73, 0x1C46)
    assert header.flags == ipv4.FLAG_RESERVED | ipv4.FLAG_DF | ipv4.FLAG_MF
    assert header.frag_offset == 0x123
    assert (header.ttl, header.proto, header.checksum) == (64, ipv4.Proto.TCP, 0xB861)
    assert (header.src, header.dst) == (bytes((192, 168, 0, 1)), bytes((192, 168, 0, 199)))
    assert str(header) == (
        "192.168.0.1 > 192.168.0.199 TCP, tos 0xbb, ttl 64, id 7238, offset 2328, flags [RDF+], length 115"
    )


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"", "truncated", 0),
        (b"\x45" + bytes(18), "truncated", 19),
        (b"\x44" + bytes(30), "ihl_too_small", 0),
        (b"\x46" + bytes(22), "options_truncated", 23),
    ],
)
def test_malformed(data: bytes, reason: str, offset: int) -> None:
    """Each way of not being a header has its reason."""
    with pytest.raises(Malformed) as caught:
        Ipv4Header.parse(data)
    assert (caught.value.proto, caught.value.reason, caught.value.offset) == ("ipv4", reason, offset)


def test_version_and_lengths_are_not_judged() -> None:
    """Another version, a wrong checksum or an impossible total length parse: the ip layer names those
    verdicts.
    """
    header = Ipv4Header.parse(bytes.fromhex("65000001 00000000 0000 ffff 00000000 00000000"))
    assert (header.version, header.total_length, header.checksum) == (6, 1, 0xFFFF)


@pytest.mark.rfc("RFC 791 3.1-3")
@given(ipv4_headers)
def test_fill_checksum(header: Ipv4Header) -> None:
    """On request the checksum is the header's own, whatever it held (RFC 791 3.1)."""
    data = header.serialize(fill_checksum=True)
    blank = dataclasses.replace(header, checksum=0).serialize()
    assert data[10:12] == naive_checksum(blank).to_bytes(2, "big")
    assert data[:10] + data[12:] == blank[:10] + blank[12:]
    assert header_checksum_ok(data)
    assert header_checksum_ok(b"eth" + data + b"payload", 3)
    wrong = bytearray(data)
    wrong[8] ^= 1
    assert not header_checksum_ok(wrong)


@pytest.mark.rfc("RFC 791 3.1-7")
@given(ipv4_address, ipv4_address, u8, st.integers(0, 1400), u16, u8, u8, st.binary(max_size=40))
def test_build(
    src: bytes, dst: bytes, proto: int, payload: int, ident: int, ttl: int, tos: int, options: bytes
) -> None:
    """`build` fills in the lengths and pads options to whole words with END (RFC 791 3.1)."""
    header = Ipv4Header.build(
        src, dst, proto=proto, payload_length=payload, ident=ident, ttl=ttl, tos=tos, options=options
    )
    assert Ipv4Header.parse(header.serialize()) == header
    assert header.total_length == header.length + payload
    assert header.length == len(header.serialize())
    assert header.options[: len(options)] == options and not any(header.options[len(options) :])
    assert (header.tos, header.version, header.checksum) == (tos, 4, 0)


@pytest.mark.rfc("RFC 791 3.2")
def test_fragments() -> None:
    """RFC 791 3.2: a datagram is whole if its offset is 0 and no more fragments follow."""
    whole = Ipv4Header.build(A, B, proto=6, payload_length=0, flags=ipv4.FLAG_DF)
    assert not whole.is_fragment and whole.dont_fragment and not whole.more_fragments
    assert dataclasses.replace(whole, flags=ipv4.FLAG_MF).is_fragment
    assert dataclasses.replace(whole, frag_offset=1).is_fragment


@pytest.mark.parametrize(
    "change",
    [
        {"version": 16},
        {"ihl": 16},
        {"dscp": 64},
        {"ecn": 4},
        {"flags": 8},
        {"frag_offset": 0x2000},
        {"frag_offset": -1},
        {"dscp": -1},
        {"total_length": 65536},
        {"ttl": 256},
        {"ident": -1},
        {"src": bytes(16)},
        {"dst": b""},
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """A value too large for its field never spills into the next one: ValueError."""
    header = Ipv4Header.build(A, B, proto=6, payload_length=0)
    with pytest.raises(ValueError):
        dataclasses.replace(header, **change).serialize()  # type: ignore[arg-type]


options_lists = st.lists(
    st.just(Ipv4Option(ipv4.OPTION_NOP)) | st.builds(Ipv4Option, st.integers(2, 255), st.binary(max_size=8)),
    max_size=6,
)


@given(options_lists)
def test_options_round_trip(options: list[Ipv4Option]) -> None:
    """Options come back one by one as they were laid out, NOPs too."""
    data = b"".join(option.serialize() for option in options)
    assert list(iter_options(data)) == options


@given(st.binary(max_size=40))
def test_option_garbage(data: bytes) -> None:
    """Any bytes give options or Malformed, and the walk ends."""
    only_malformed(lambda raw: list(iter_options(raw)), data)


@pytest.mark.rfc("RFC 791 3.1")
def test_end_ends_options() -> None:
    """What follows END is padding, whatever it is; a header's own iterator says the same (RFC 791 3.1)."""
    raw = bytes((ipv4.OPTION_NOP, ipv4.OPTION_ROUTER_ALERT, 4, 0, 0, ipv4.OPTION_END, 99, 0))
    header = Ipv4Header.build(A, B, proto=6, payload_length=0, options=raw)
    alert = Ipv4Option(ipv4.OPTION_ROUTER_ALERT, b"\0\0")
    assert list(header.iter_options()) == [Ipv4Option(1), alert, Ipv4Option(0)]
    assert alert.copied and not Ipv4Option(ipv4.OPTION_RECORD_ROUTE).copied


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        (b"\x01\x07", "option_truncated", 1),
        (b"\x07\x00", "option_bad_length", 0),
        (b"\x01\x01\x07\x01\x00", "option_bad_length", 2),
        (b"\x07\x07\x04\x00", "option_truncated", 0),
    ],
)
def test_torn_options(data: bytes, reason: str, offset: int) -> None:
    """A length that is missing, below 2 or beyond the header is named with its place."""
    with pytest.raises(Malformed) as caught:
        list(iter_options(data))
    assert (caught.value.proto, caught.value.reason, caught.value.offset) == ("ipv4", reason, offset)


def test_names() -> None:
    """Known protocols have names."""
    assert ipv4.proto_name(17) == "UDP"
    assert ipv4.proto_name(99) == "proto 99"
