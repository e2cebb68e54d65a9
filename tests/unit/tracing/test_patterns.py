"""Regular expressions and calculations of an expression take bounded time, whatever they are and whatever comes."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.frames.packet import Segment
from levelip.tracing.expression import ExpressionError, compile_expression
from levelip.tracing.patterns import MOST, PatternError, compile_pattern

BOUND_S = 1.0
"""What 64 KiB may take on a busy machine."""
LARGEST = 65_535 - 40
HOSTILE = (
    "(a+)+$",
    "(a|a)*b$",
    "(a|aa)+$",
    "(.*)(.*)(.*)(.*)x$",
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "a[ab]{60}z",
    ".*.{150}x",
)


def segment(payload: bytes, options: bytes = b"") -> Segment:
    """80 bytes of header at most, then the payload."""
    head = bytes.fromhex("1f90005000000001000000020010ffff00000000") + options
    head = head[:12] + bytes([(len(head) // 4) << 4]) + head[13:]
    return Segment(
        id=1, causes=[], traced=False, ingress=0, iface=0, src=b"\n\0\0\1", dst=b"\n\0\0\2", proto=6, ttl=64, tos=0,
        head=head, payload=payload, checksum=0, gso_size=0,
    )  # fmt: skip


@pytest.mark.parametrize("pattern", HOSTILE)
def test_a_hostile_pattern_takes_bounded_time(pattern: str) -> None:
    """Those that are catastrophic for a backtracking engine, and the slowest for this one, on the largest packets."""
    expression = compile_expression(f'tcp.payload matches "{pattern}"')
    seeded = random.Random(1)
    for payload in (b"a" * (LARGEST - 1) + b"!", bytes(seeded.choice(b"ab") for _ in range(LARGEST - 1)) + b"!"):
        began = time.thread_time()
        assert not expression.matches_frame(segment(payload), "ip-tcp", "up")
        assert time.thread_time() - began < BOUND_S


def test_the_largest_pattern_there_may_be() -> None:
    """One just below the limit is taken, and is bounded; one above it is refused, with the spot and what to do."""
    assert MOST - 20 < compile_pattern("[ab]{380}c").size <= MOST
    expression = compile_expression('tcp.payload matches "[ab]{380}c"')
    began = time.thread_time()
    assert not expression.matches_frame(segment(b"ab" * (LARGEST // 2)), "ip-tcp", "up")
    assert time.thread_time() - began < BOUND_S
    with pytest.raises(ExpressionError, match=r"too large .* 1005 steps .* repeat less") as refused:
        compile_expression('tcp.payload matches "[ab]{1000}c"')
    assert refused.value.position == len("tcp.payload matches ")


def test_several_patterns_share_the_limit() -> None:
    """Two that are allowed alone are too much together; the second is pointed at."""
    with pytest.raises(ExpressionError, match="with those before it too large") as refused:
        compile_expression('data matches "[ab]{300}c" or data matches "[cd]{300}e"')
    assert refused.value.position == 42


def test_a_part_that_is_about_packets_and_events_counts_once() -> None:
    """conn.state is known of both, so that it is compiled twice."""
    compile_expression('conn.state matches "1{300}"')


@pytest.mark.parametrize(
    ("pattern", "spot", "said"),
    [
        ("ab(?<=a)c", "(?<=", "no look-around"),
        ("a(?=b)", "(?=", "no look-around"),
        (r"(a)\\1", r"\1", "no reference to a group"),
        ("a{1,2000}", "{1,2000}", "1000 repetitions at most"),
        ("a*+", "*+", "no possessive ones"),
        ("(a", "(a", "missing )"),
        ("[b-a]", "b-a", "invalid character class range"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_pointed_at(pattern: str, spot: str, said: str) -> None:
    """The message shows the spot in the expression as it was typed."""
    text = f'data matches "{pattern}"'
    with pytest.raises(ExpressionError, match="no regular expression: ") as refused:
        compile_expression(text)
    assert said in str(refused.value)
    assert refused.value.position == text.index(spot, len('data matches "'))


def test_case_does_not_matter_and_bytes_are_bytes() -> None:
    """Text and bytes; a byte that is no UTF-8 is one character."""
    assert compile_pattern("get").found_in("FORGET") and compile_pattern("get").found_in(b"FORGET")
    assert compile_pattern("^.$").found_in(b"\xff")
    assert compile_pattern("ä").found_in("Ä") and compile_pattern("ä").found_in("ä".encode())
    assert not compile_pattern("5").found_in(5)


@given(st.text(max_size=30), st.binary(max_size=60))
def test_any_text_is_a_pattern_or_an_error_of_ours(pattern: str, data: bytes) -> None:
    """Whatever is typed."""
    try:
        compiled = compile_pattern(pattern)
    except PatternError:
        return
    assert compiled.found_in(data) in (True, False)


def test_sums_of_fields_that_are_there_often_are_bounded() -> None:
    """40 options, six times: 4 * 10^9 sums, of which there are none instead; two times they are all there."""
    often = segment(b"", options=b"\1" * 40)
    for count, true in ((2, True), (6, False)):
        text = " + ".join(["tcp.option_kind"] * count) + f" == {count}"
        began = time.thread_time()
        assert compile_expression(text).matches_frame(often, "ip-tcp", "up") is true
        assert time.thread_time() - began < BOUND_S
