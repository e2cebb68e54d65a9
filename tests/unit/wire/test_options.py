"""levelip.wire.options"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.errors import Malformed
from levelip.wire.options import (
    TcpOptions,
    pack_sack,
    pack_timestamps,
    parse_options,
    parse_timestamps,
)

from .strategies import near_wrap, only_malformed, tcp_options, u32

TS = (0xC308A1BD, 0)

# The options of SYNs that Linux 6.18 sent on a link with MTU 1500, by what sysctl net.ipv4.tcp_* allowed.
LINUX_SYNS = [
    ("020405b40402080ac308a1bd000000000103030a", TcpOptions(mss=1460, sack_permitted=True, timestamps=TS, wscale=10)),
    ("020405b4010104020103030a", TcpOptions(mss=1460, sack_permitted=True, wscale=10)),
    ("020405b40101080ac308a1bd000000000103030a", TcpOptions(mss=1460, timestamps=TS, wscale=10)),
    ("020405b40103030a", TcpOptions(mss=1460, wscale=10)),
]


@pytest.mark.rfc("RFC 9293 MUST-4")
@pytest.mark.parametrize(("raw", "options"), LINUX_SYNS)
def test_syn_as_linux_lays_it_out(raw: str, options: TcpOptions) -> None:
    """Ours have byte for byte the order and padding that Linux' SYNs have, and theirs are read."""
    assert options.serialize().hex() == raw
    assert parse_options(bytes.fromhex(raw)) == options


def test_data_and_sack_as_linux_lays_them_out() -> None:
    """NOP NOP TS on data; NOP NOP TS, NOP NOP SACK on an ACK of out-of-order data; SACK alone without
    timestamps.
    """
    blocks = ((0xFFFFFFF0, 0x10), (0x100, 0x200), (0x300, 0x400))
    assert TcpOptions(timestamps=(1, 2)).serialize().hex() == "0101080a0000000100000002"
    assert TcpOptions(sack=blocks[:1]).serialize().hex() == "0101050afffffff000000010"
    both = TcpOptions(timestamps=(1, 2), sack=blocks)
    assert both.serialize() == pack_timestamps(1, 2) + pack_sack(blocks)
    assert len(both.serialize()) == 40


def test_text_is_tcpdumps() -> None:
    """Options print as tcpdump prints them, in their order on the wire."""
    raw = bytes.fromhex(LINUX_SYNS[0][0])
    assert str(parse_options(raw)) == "mss 1460,sackOK,TS val 3272122813 ecr 0,nop,wscale 10"
    raw = TcpOptions(sack=((1, 2), (5, 9))).serialize() + bytes.fromhex("fe04f989 1303ff 00")
    assert str(parse_options(raw)) == "nop,nop,sack 2 {1:2}{5:9},unknown-254 0xf989,md5 0xff,eol"


@given(tcp_options)
def test_round_trip(options: TcpOptions) -> None:
    """parse(serialize(x)) == x in whole words, and reading and writing again changes no byte."""
    raw = options.serialize()
    assert len(raw) % 4 == 0 and len(raw) <= 40
    again = parse_options(raw)
    assert again == options
    assert again == TcpOptions.parse(memoryview(raw))
    assert again.serialize() == raw
    str(options), str(again)


@given(tcp_options.filter(lambda options: len(options.serialize()) > 0), st.data())
def test_truncation(options: TcpOptions, data: st.DataObject) -> None:
    """Options cut within one are Malformed; read tolerantly they end there and say why."""
    raw = options.serialize()
    whole = parse_options(raw)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    tolerant = parse_options(cut, strict=False)
    if tolerant.fault is None:
        assert parse_options(cut).order == whole.order[: len(tolerant.order)]
    else:
        assert tolerant.fault == "option_truncated"
        with pytest.raises(Malformed, match="option_truncated"):
            parse_options(cut)


@given(st.binary(max_size=40))
def test_garbage(raw: bytes) -> None:
    """Any bytes give options or Malformed; tolerant reading never raises and agrees where nothing was wrong."""
    tolerant = parse_options(raw, strict=False)
    str(tolerant)
    strict = only_malformed(parse_options, raw)
    if strict is not None:
        assert strict == tolerant
        assert (strict.order, strict.fault) == (tolerant.order, None)


@given(st.binary(max_size=40))
def test_timestamps_path_agrees(raw: bytes) -> None:
    """Where the short way to the timestamps answers, the long one says the same."""
    for options in (raw, b"\x01\x01\x08\x0a" + raw[:8]):
        short = parse_timestamps(options)
        if short is not None:
            assert parse_options(options) == TcpOptions(timestamps=short)


@given(u32, u32)
def test_timestamps_round_trip(val: int, ecr: int) -> None:
    """The usual block is packed, read the short way and read the long way."""
    raw = pack_timestamps(val, ecr)
    assert len(raw) == 12
    assert parse_timestamps(raw) == parse_timestamps(memoryview(raw)) == (val, ecr)
    full = parse_options(raw)
    assert (full.timestamps, full.order) == ((val, ecr), (1, 1, 8))


@pytest.mark.parametrize("raw", ["", "0101080a00000001", "080a000000010000000201 01", "020405b40402010101010101"])
def test_timestamps_path_leaves_the_rest_alone(raw: str) -> None:
    """Any other layout is left to the long way."""
    assert parse_timestamps(bytes.fromhex(raw)) is None


@pytest.mark.rfc("RFC 2018 3-1")
@given(st.lists(st.tuples(near_wrap, near_wrap), min_size=1, max_size=4))
def test_sack_round_trip(blocks: list[tuple[int, int]]) -> None:
    """Blocks keep their order and edges (RFC 2018 3)."""
    assert parse_options(pack_sack(blocks)).sack == tuple(blocks)


@pytest.mark.rfc("RFC 9293 MUST-7")
@pytest.mark.parametrize(
    ("raw", "reason", "offset"),
    [
        ("02", "option_truncated", 0),
        ("010102", "option_truncated", 2),
        ("0200", "option_bad_length", 0),
        ("fe01", "option_bad_length", 0),
        ("020405", "option_truncated", 0),
        ("fe05f9", "option_truncated", 0),
        ("020305", "option_bad_length", 0),
        ("0104030000", "option_bad_length", 1),
        ("030400 00", "option_bad_length", 0),
        ("08080000000100000002", "option_bad_length", 0),
        ("0502", "option_bad_length", 0),
        ("0506 00000001", "option_bad_length", 0),
        ("050c 00000001 00000002 0000", "option_bad_length", 0),
        ("050e 00000001 00000002 00000003", "option_bad_length", 0),
    ],
)
def test_illegal_lengths(raw: str, reason: str, offset: int) -> None:
    """RFC 9293 MUST-7: an illegal length is seen, named and placed."""
    with pytest.raises(Malformed) as caught:
        parse_options(bytes.fromhex(raw))
    assert (caught.value.proto, caught.value.reason, caught.value.offset) == ("tcp", reason, offset)


@pytest.mark.rfc("RFC 9293 MUST-7")
def test_tolerant_as_linux() -> None:
    """A known kind of wrong length is passed over, a torn one ends the reading; what came before stands."""
    options = parse_options(bytes.fromhex("020305 0402 080a000000010000"), strict=False)
    assert options == TcpOptions(sack_permitted=True, unknown=((2, b"\x05"),))
    assert options.fault == "option_truncated"
    options = parse_options(bytes.fromhex("020405b4 0300 0402"), strict=False)
    assert options == TcpOptions(mss=1460)
    assert options.fault == "option_bad_length"


@pytest.mark.rfc("RFC 9293 MUST-6", "RFC 9293 MUST-68")
def test_unknown_are_skipped() -> None:
    """RFC 9293 MUST-6: an option we do not know is passed over by its length and kept."""
    options = parse_options(bytes.fromhex("fd06 0a0b0c0d 020405b4 fe02"))
    assert options == TcpOptions(mss=1460, unknown=((253, bytes.fromhex("0a0b0c0d")), (254, b"")))


@pytest.mark.rfc("RFC 9293 MUST-4")
def test_nothing_counts_behind_eol() -> None:
    """EOL ends the list (RFC 9293 3.1)."""
    options = parse_options(bytes.fromhex("020405b400040201"))
    assert options == TcpOptions(mss=1460)
    assert options.serialize().hex() == "020405b400000000"


def test_last_of_two_counts() -> None:
    """Of an option sent twice the last value holds, as in Linux."""
    assert parse_options(bytes.fromhex("020405b4020405dc")).mss == 1500


def test_peers_order_is_kept_until_changed() -> None:
    """Options read are written back in their order, after a change of values too; added ones mean Linux'
    order.
    """
    raw = bytes.fromhex("0101 0402 0303 07 01 080a0000000100000002 0204 05b4 0101")
    options = parse_options(raw)
    assert options.serialize() == raw
    assert dataclasses.replace(options, mss=1400).serialize().hex() == raw.hex().replace("05b4", "0578")
    without = dataclasses.replace(options, mss=None)
    assert without.serialize() == TcpOptions(sack_permitted=True, timestamps=(1, 2), wscale=7).serialize()


@pytest.mark.parametrize(
    "options",
    [
        TcpOptions(timestamps=(1, 2), sack=((1, 2),) * 4),
        TcpOptions(mss=65536),
        TcpOptions(mss=-1),
        TcpOptions(wscale=256),
        TcpOptions(timestamps=(1 << 32, 0)),
        TcpOptions(unknown=((254, bytes(39)),)),
        TcpOptions(unknown=((254, bytes(300)),)),
    ],
)
def test_what_does_not_fit_is_refused(options: TcpOptions) -> None:
    """More than 40 bytes, or a value too large, is our caller's mistake: ValueError."""
    with pytest.raises(ValueError):
        options.serialize()
