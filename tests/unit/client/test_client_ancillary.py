"""Ancillary data of datagram sockets: what a program asks for, and what it is told (ip(7), socket(7))."""

from __future__ import annotations

import errno
import socket as std
import struct

import pytest

from levelip.client.ancillary import (
    IP_PKTINFO,
    IP_RECVOPTS,
    IP_RETOPTS,
    SO_RXQ_OVFL,
    SO_TIMESTAMP,
    SO_TIMESTAMPNS,
    Wish,
    check,
    instead_of,
    rows,
    wish,
)
from levelip.client.datagramformat import DATAGRAM, Told, told

IP, SOCKET = std.IPPROTO_IP, std.SOL_SOCKET
STAMP = 1_700_000_000_123_456_789


def test_a_header_says_all_of_it() -> None:
    """It is read as it was written, options of 0 to 40 bytes."""
    for options in (b"", b"\1" * 4, b"\1" * 40):
        one = Told(DATAGRAM, 255, 1, 65_535, b"\1\2\3\4", b"\5\6\7\x08", 1 << 31, 1 << 31, STAMP, options)
        assert told(one.pack()) == one


def test_what_is_told() -> None:
    """What was asked for alone, and of counters and options what there is."""
    one = Told(DATAGRAM, 4, 64, 53, bytes(4), b"\x0a\0\0\2", 1, 3, STAMP, bytes.fromhex("940400000107030400"))
    assert rows(one, lambda *_: False) == []
    everything = rows(one, lambda *_: True)
    assert [row[:2] for row in everything] == [
        (SOCKET, SO_TIMESTAMP), (SOCKET, SO_TIMESTAMPNS), (SOCKET, SO_RXQ_OVFL), (IP, IP_PKTINFO), (IP, std.IP_TTL),
        (IP, std.IP_TOS), (IP, IP_RECVOPTS), (IP, IP_RETOPTS),
    ]  # fmt: skip
    by_type = {row[:2]: row[2] for row in everything}
    assert by_type[SOCKET, SO_TIMESTAMP] == struct.pack("=qq", 1_700_000_000, 123_456)
    assert by_type[SOCKET, SO_TIMESTAMPNS] == struct.pack("=qq", 1_700_000_000, 123_456_789)
    assert by_type[SOCKET, SO_RXQ_OVFL] == struct.pack("=I", 3)
    assert by_type[IP, IP_RECVOPTS].hex() == "940400000107030400"
    assert by_type[IP, IP_RETOPTS].hex() == "07030400", "record route and timestamps go back"
    bare = rows(Told(DATAGRAM), lambda _, option: option in (SO_RXQ_OVFL, IP_RECVOPTS, IP_RETOPTS))
    assert bare == []


def test_what_is_asked_for() -> None:
    """TOS, TTL, source and options of one datagram; what is AF_UNIX's is passed over."""
    assert wish([]) == Wish() and not Wish().asks
    asked = wish([
        (SOCKET, std.SCM_RIGHTS, bytes(4)), (IP, std.IP_TOS, b"\4"), (IP, std.IP_TTL, struct.pack("=i", 9)),
        (IP, IP_PKTINFO, struct.pack("=i4s4s", 0, b"\x0a\0\0\2", bytes(4))), (IP, IP_RETOPTS, b"\1" * 44),
    ])  # fmt: skip
    assert asked == Wish(4, 9, b"\x0a\0\0\2", b"\1" * 40) and asked.asks
    assert wish([(IP, IP_RETOPTS, b"")]).asks, "none at all is a wish, too"


@pytest.mark.parametrize(
    "row",
    [
        (IP, std.IP_TTL, bytes(4)),
        (IP, std.IP_TOS, b"12"),
        (IP, IP_PKTINFO, b"1"),
        (IP, 99, b"1"),
        (SOCKET, 99, b""),
        (std.IPPROTO_UDP, 103, b""),
    ],
)
def test_what_cannot_be(row: tuple[int, int, bytes]) -> None:
    with pytest.raises(OSError) as caught:
        wish([row])
    assert caught.value.errno == errno.EINVAL


def test_other_levels_mean_nothing() -> None:
    """Linux passes over what is neither IP's, UDP's nor the socket's; on a stream over all that is not the socket's."""
    others = [(std.IPPROTO_TCP, 1, b""), (99, 1, b"1234")]
    assert wish(others) == Wish()
    check([*others, (IP, 99, b""), (std.IPPROTO_UDP, 103, b""), (SOCKET, std.SCM_RIGHTS, bytes(4))])
    with pytest.raises(OSError, match="Invalid argument"):
        check([(SOCKET, 99, b"")])


def test_options_that_exclude_each_other() -> None:
    assert instead_of(SOCKET, SO_TIMESTAMP) == [(SOCKET, SO_TIMESTAMPNS)]
    assert instead_of(IP, SO_TIMESTAMP) == instead_of(SOCKET, SO_RXQ_OVFL) == []
