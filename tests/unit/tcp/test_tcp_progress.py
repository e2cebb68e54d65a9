"""An acknowledgment of new data is told to ip now and then, for the neighbour on the way: RFC 4861 7.3.1."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, THEIRS, established

WRAP = pytest.mark.parametrize("isn", [{}, {"isn": 2**32 - 3}])


@WRAP
@pytest.mark.rfc("RFC 4861 7.3.1-2")
def test_at_most_once_in_five_seconds(isn: dict[str, Any]) -> None:
    """100 bytes a second, each acknowledged: none in the first 5 s of a connection, then each 5 s."""
    c = established(**isn)
    begun = c.now
    for second in range(16):
        c.write(bytes(100))
        c.advance(100)
        c.inject("A", seq=1, ack=1 + 100 * (second + 1))
        c.advance(900)
    assert [((at - begun) // MS // 1000, dst) for at, dst in c.progress] == [(5, THEIRS), (10, THEIRS), (15, THEIRS)]


def test_what_acknowledges_nothing_new_says_nothing(isn: int = 0) -> None:
    """Duplicates, window updates, and data of the peer: it may be that nothing of ours arrives."""
    c = established()
    c.advance(6000)
    c.inject("A", seq=1, ack=1, win=1000)
    c.inject("A", seq=1, ack=1, data=b"hello")
    c.write(bytes(100))
    c.inject("A", seq=6, ack=1)
    assert c.progress == []
    c.inject("A", seq=6, ack=101)
    assert [dst for _, dst in c.progress] == [THEIRS]


def test_also_in_recovery() -> None:
    """A hole is repaired, and the ACK that fills it is progress."""
    c = established()
    c.advance(6000)
    c.write(bytes(10_000))
    c.inject("A", seq=1, ack=1, sack=[(1449, 10_001)])
    assert c.progress == []
    c.inject("A", seq=1, ack=10_001)
    assert len(c.progress) == 1
