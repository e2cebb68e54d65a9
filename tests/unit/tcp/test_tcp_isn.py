"""Initial sequence numbers (RFC 6528) and timestamp offsets: what they depend on, and what not."""

from __future__ import annotations

from hashlib import blake2s

from layers.tcp.isn import connection_hash, initial_sequence, timestamp_offset

SECRET = bytes(range(32))
A, B, C = b"\x0a\0\0\1", b"\x0a\0\0\2", b"\x0a\0\0\3"


def test_the_hash_is_blake2s_of_each_part_with_its_length() -> None:
    """So that ("ab", "c") and ("a", "bc") differ; RFC 6528's F() with the secret as its key."""
    by_hand = blake2s(b"\0\2ab\0\1c", key=SECRET, digest_size=4).digest()
    assert connection_hash(SECRET, b"ab", b"c") == int.from_bytes(by_hand, "big")
    assert connection_hash(SECRET, b"ab", b"c") != connection_hash(SECRET, b"a", b"bc")
    assert connection_hash(SECRET + b"more", b"x") == connection_hash(SECRET, b"x")  # a key has 32 bytes
    assert connection_hash(bytes(32), b"x") != connection_hash(SECRET, b"x")


def test_an_isn_depends_on_all_four_and_on_the_secret() -> None:
    """Each alone changes it, also the high byte of a port, and who is who."""
    known = initial_sequence(SECRET, A, 80, B, 4711, 0)
    others = [
        initial_sequence(bytes(32), A, 80, B, 4711, 0),
        initial_sequence(SECRET, C, 80, B, 4711, 0),
        initial_sequence(SECRET, A, 80, C, 4711, 0),
        initial_sequence(SECRET, A, 81, B, 4711, 0),
        initial_sequence(SECRET, A, 80 + 256, B, 4711, 0),
        initial_sequence(SECRET, A, 80, B, 4712, 0),
        initial_sequence(SECRET, A, 80, B, 4711 + 256, 0),
        initial_sequence(SECRET, B, 80, A, 4711, 0),
        initial_sequence(SECRET, A, 4711, B, 80, 0),
    ]
    assert len({known, *others}) == 10
    assert all(0 <= isn < 2**32 for isn in others)


def test_an_isn_rises_with_the_clock() -> None:
    """By one each 4 µs (RFC 9293 3.4.1), around 2^32."""
    start = initial_sequence(SECRET, A, 80, B, 4711, 0)
    for ns, ticks in ((3999, 0), (4000, 1), (1_000_000_000, 250_000), (2**32 * 4000, 0), ((2**32 - 1) * 4000, -1)):
        assert initial_sequence(SECRET, A, 80, B, 4711, ns) == (start + ticks) % 2**32


def test_a_timestamp_offset_is_of_a_pair_of_hosts() -> None:
    """Of both addresses and the secret, and not the number from which the ISN comes."""
    offset = timestamp_offset(SECRET, A, B)
    others = {timestamp_offset(SECRET, A, C), timestamp_offset(SECRET, C, B), timestamp_offset(bytes(32), A, B)}
    assert len({offset, *others}) == 4
    assert offset == timestamp_offset(SECRET, A, B) and 0 <= offset < 2**32
    assert offset != connection_hash(SECRET, A, B)
