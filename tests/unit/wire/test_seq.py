"""levelip.wire.seq"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire.seq import (
    SeqNumber,
    seq_add,
    seq_diff,
    seq_ge,
    seq_gt,
    seq_in_window,
    seq_le,
    seq_lt,
    seq_max,
    seq_min,
)

from .strategies import near_wrap, u32

TOP = 0xFFFFFFFF
HALF = 1 << 31
steps = st.integers(1, HALF - 1)


@pytest.mark.parametrize(
    ("a", "b"),
    [(0, 1), (TOP, 0), (TOP - 9, 5), (0x7FFFFFFF, 0x80000000), (0, HALF - 1), (HALF, TOP), (TOP, HALF - 2)],
)
def test_before_and_after(a: int, b: int) -> None:
    """RFC 9293 3.4: b lies ahead of a, over the wrap too."""
    assert seq_lt(a, b) and seq_le(a, b) and seq_gt(b, a) and seq_ge(b, a)
    assert not (seq_lt(b, a) or seq_le(b, a) or seq_gt(a, b) or seq_ge(a, b))
    x, y = SeqNumber(a), SeqNumber(b)
    assert x < y and x <= y and y > x and y >= x
    assert not (y < x or y <= x or x > y or x >= y)


@given(near_wrap, steps)
def test_going_forward_is_after(a: int, n: int) -> None:
    """From any place, less than half the circle forward is after it and back again is where it was."""
    b = seq_add(a, n)
    assert seq_lt(a, b) and not seq_lt(b, a)
    assert seq_diff(b, a) == n and seq_diff(a, b) == -n
    assert seq_add(b, -n) == a
    assert seq_max(a, b) == seq_max(b, a) == b
    assert seq_min(a, b) == seq_min(b, a) == a


@given(u32)
def test_a_place_is_not_before_itself(a: int) -> None:
    """Equal places are <= and >=, not < or >."""
    assert seq_le(a, a) and seq_ge(a, a) and not seq_lt(a, a) and not seq_gt(a, a)
    assert SeqNumber(a) <= SeqNumber(a) and not SeqNumber(a) < SeqNumber(a)


@given(u32)
def test_opposite_place_is_before_and_after(a: int) -> None:
    """At exactly 2^31 both `<` and `>` hold, as Linux' before() and after() do."""
    b = seq_add(a, HALF)
    assert seq_lt(a, b) and seq_lt(b, a) and seq_le(a, b) and seq_ge(a, b)
    assert seq_diff(a, b) == -HALF


@given(near_wrap, near_wrap)
def test_type_agrees_with_functions(a: int, b: int) -> None:
    """SeqNumber decides as the plain functions do, against plain integers too."""
    x = SeqNumber(a)
    for y in (SeqNumber(b), b):
        assert (x < y) == seq_lt(a, b)
        assert (x <= y) == seq_le(a, b)
        assert (x > y) == seq_gt(a, b)
        assert (x >= y) == seq_ge(a, b)
        assert (x == y) == (a == b)
    assert SeqNumber(a) - SeqNumber(b) == seq_diff(a, b)


@given(near_wrap, st.integers(-HALF, HALF))
def test_adding_wraps_and_keeps_the_type(a: int, n: int) -> None:
    """A SeqNumber plus or minus a length is one again, within 32 bits."""
    for moved in (SeqNumber(a) + n, n + SeqNumber(a)):
        assert type(moved) is SeqNumber
        assert int(moved) == (a + n) % (1 << 32)
    assert type(SeqNumber(a) - n) is SeqNumber
    assert int(SeqNumber(a) - n) == (a - n) % (1 << 32)
    assert type(SeqNumber(a) - SeqNumber(0)) is int


def test_a_plain_integer_minus_a_number_is_a_distance() -> None:
    """An integer from a header minus a SeqNumber is how far it lies ahead, over the wrap too."""
    assert 3 - SeqNumber(TOP) == 4
    assert type(3 - SeqNumber(TOP)) is int


def test_number_wraps_when_made_and_prints_as_a_number() -> None:
    """Any integer is reduced to 32 bits; text is the number, repr says the type; it hashes as the integer."""
    assert SeqNumber(1 << 32) == 0
    assert SeqNumber(-1) == TOP
    assert str(SeqNumber(7)) == f"{SeqNumber(7)}" == "7"
    assert repr(SeqNumber(7)) == "SeqNumber(7)"
    assert hash(SeqNumber(7)) == hash(7)


@pytest.mark.parametrize(
    ("seq", "start", "size", "inside"),
    [
        (5, 5, 1, True),
        (6, 5, 1, False),
        (5, 5, 0, False),
        (4, 5, 100, False),
        (2, TOP - 1, 5, True),
        (3, TOP - 1, 5, False),
        (TOP, TOP - 1, 5, True),
        (TOP - 2, TOP - 1, 5, False),
    ],
)
def test_in_window(seq: int, start: int, size: int, inside: bool) -> None:
    """The window is [start, start + size), over the wrap too; an empty one holds nothing."""
    assert seq_in_window(seq, start, size) is inside
    assert SeqNumber(seq).in_window(start, size) is inside
    assert SeqNumber(seq).in_window(SeqNumber(start), size) is inside
