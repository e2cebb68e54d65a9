"""ZeroMQ's protocol at the door: whole messages whatever the pieces they come in, and bounds while they arrive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.zmtp import GREETING, READY, Answer, Busy, Message, Overlong, Parser, Violation, encode

DEALER = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
BOUNDS = {"max_part": 5000, "max_parts": 8, "max_bytes": 20_000, "max_skipped": 50_000}


def parser(*, ready: bool = True) -> Parser:
    made = Parser(**BOUNDS)
    if ready:
        made.feed(GREETING + DEALER)
        assert items(made) == [READY]
        assert made.ready and not made.partial
    return made


def items(made: Parser) -> list[Any]:
    """All that it has to give."""
    found = []
    for _ in range(100_000):
        item = made.take()
        if item is None and not made.partial:
            return found
        if item is None:
            again = made.take()
            assert again is None
            return found
        if not isinstance(item, Busy):
            found.append(item)
    raise AssertionError("it never ends")


@given(
    st.lists(st.lists(st.binary(max_size=5000), min_size=1, max_size=4), max_size=5), st.lists(st.integers(1, 3000))
)
def test_messages_come_back_whole(messages: list[list[bytes]], cuts: list[int]) -> None:
    """What encode makes, parse gives back, however the bytes are cut."""
    made = parser(ready=False)
    wire = GREETING + DEALER + b"".join(b"".join(encode(parts)) for parts in messages)
    found: list[Any] = []
    for cut in [*cuts, len(wire)]:
        made.feed(wire[:cut])
        wire = wire[cut:]
        found += items(made)
    assert found == [READY, *messages]
    assert isinstance(found[0], Answer) and all(isinstance(item, Message) for item in found[1:])
    assert not made.partial and made.held == 0


@given(st.binary(max_size=300), st.booleans())
def test_garbage(data: bytes, ready: bool) -> None:
    """Any bytes are messages, or a Violation; nothing else is raised, and what is kept is bounded."""
    made = parser(ready=ready)
    made.feed(data)
    try:
        items(made)
    except Violation:
        return
    assert made.held <= len(data) + 64 * BOUNDS["max_parts"]


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "no greeting"),
        (b"\xff" + bytes(8) + b"\x00", "no greeting"),
        (b"\xff" + bytes(8) + b"\x7f\x01", "ZMTP 1, not 3"),
        (GREETING.replace(b"NULL", b"CURVE"), "mechanism b'CURVE'"),
        (GREETING + b"\x00\x01x", "a message before READY"),
        (GREETING + DEALER.replace(b"DEALER", b"XROUTE"), "not DEALER"),
        (GREETING + b"\x04\x06\x05ERROR", "instead of READY"),
        (GREETING + b"\x04\x0a\x05READY\x0bSock", "cut off"),
        (GREETING + DEALER + b"\x08\x00", "flags 0x8"),
        (GREETING + DEALER + b"\x05\x00", "flags 0x5"),
        (GREETING + DEALER + b"\x02" + (5001).to_bytes(8, "big"), "a part of 5001 bytes"),
        (GREETING + DEALER + b"\x02" + b"\xff" * 8, "a part of"),
        (GREETING + DEALER + b"\x06" + (4097).to_bytes(8, "big"), "a part of 4097 bytes"),
    ],
)
def test_violations(wire: bytes, why: str) -> None:
    """Whoever does not keep to the protocol is told apart at the first byte that shows it."""
    made = parser(ready=False)
    made.feed(wire)
    with pytest.raises(Violation, match=why):
        items(made)


def test_ping() -> None:
    """A PING of ZeroMQ's heartbeat is answered with its context; other commands are passed over."""
    made = parser()
    made.feed(b"\x04\x0a\x04PING\x00\x01abc" + b"\x04\x04\x03SUB" + b"\x00\x01x")
    assert items(made) == [b"\x04\x08\x04PONGabc", [b"x"]]


@pytest.mark.parametrize("part", [b"", b"x", b"x" * 4000])
def test_a_message_without_an_end(part: bytes) -> None:
    """One part after another: it is told once that the message is too long, nothing of it is kept, and in the end the
    connection is cut."""
    made = parser()
    wire = b"".join(encode([part, b"last"]))[: -len(b"last") - 2]  # with "more follows"
    found: list[Any] = []
    with pytest.raises(Violation, match="without an end"):
        for _ in range(2000):
            made.feed(wire)
            found += items(made)
            assert made.held <= BOUNDS["max_bytes"] + 64 * BOUNDS["max_parts"]
    assert [type(item) for item in found] == [Overlong]


def test_after_a_message_that_was_too_long() -> None:
    """Its rest is thrown away, and the next message is whole."""
    made = parser()
    made.feed(b"".join(encode([b"x"] * 20)) + b"".join(encode([b"next"])))
    assert [type(item) for item in items(made)] == [Overlong, Message]
    made.feed(b"".join(encode([b"again"])))
    assert items(made) == [[b"again"]]


def test_many_small_parts_are_looked_at_in_turns() -> None:
    """One feed of many parts does not keep the others waiting."""
    made = parser()
    made.feed(b"\x01\x00" * 5)
    made.feed(b"\x00\x00")
    assert isinstance(made.take(budget=3), Busy)
    assert isinstance(made.take(budget=3), Message)


def test_as_documented() -> None:
    """The bytes of docs/rpc.md, "Transport", are those of a DEALER."""
    text = re.sub(r"\s+", " ", (Path(__file__).parents[3] / "docs" / "rpc.md").read_text())
    found = re.search(r"the greeting `([^`]*)` .* send the command `([^`]*)`", text)
    assert found is not None
    assert _bytes(found[1]) == GREETING and _bytes(found[2]) == DEALER


def _bytes(text: str) -> bytes:
    """Hex, quoted text, and NN×count."""
    made = b""
    for word in text.split():
        octet, _, count = word.partition("×")
        made += word.strip('"').encode() if word.startswith('"') else bytes.fromhex(octet) * int(count or 1)
    return made
