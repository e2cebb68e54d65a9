"""A peer that shrinks its window below what is under way: RFC 9293 3.8.6, MUST-34.

What we send must end within the window that is left, or the peer drops it with its ACK. Linux as receiver shrinks its
window under memory pressure, and drops what ends beyond it since 6.17 (TcpExtBeyondWindow); two that send to each other
then stood still until their applications gave up.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Got, Host, established

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 60
LEFT = 1000
"""What is left of the window, bytes: less than a segment."""


def shrunk(window: int = LEFT, **how: Any) -> Host:
    """Five segments are under way when the peer shrinks its window."""
    c = established(wscale=None, **how)
    c.write(BYTES[: 5 * MSS])
    for number in range(5):
        c.expect("PA" if number == 4 else "A", seq=1 + number * MSS, len=MSS)
    c.inject("A", seq=1, ack=1, win=window)
    c.expect_nothing()
    return c


@pytest.mark.rfc("RFC 9293 MUST-34", "RFC 9293 3.10.7.4")
def test_an_ack_lies_within_the_window(isn: ISN) -> None:
    """SND.NXT is beyond: an ACK has the last sequence number that the peer takes, or it is not looked at."""
    c = shrunk(**isn)
    c.inject("PA", seq=1, ack=1, data=b"x" * 2 * MSS, win=LEFT)
    c.expect("A", seq=LEFT, ack=1 + 2 * MSS, len=0)  # 1 + LEFT is the first one beyond


@pytest.mark.rfc("RFC 9293 MUST-34")
def test_an_ack_at_a_closed_window(isn: ISN) -> None:
    """Nothing is left: only SND.UNA is acceptable."""
    c = shrunk(0, **isn)
    c.inject("PA", seq=1, ack=1, data=b"x" * 2 * MSS, win=0)
    c.expect("A", seq=1, ack=1 + 2 * MSS, len=0)


def test_an_ack_within_the_window_has_snd_nxt(isn: ISN) -> None:
    """RFC 9293 3.10.7.4: <SEQ=SND.NXT>, where the window goes as far, to the byte."""
    c = shrunk(5 * MSS, **isn)
    c.inject("PA", seq=1, ack=1, data=b"x" * 2 * MSS, win=5 * MSS)
    c.expect("A", seq=1 + 5 * MSS, ack=1 + 2 * MSS, len=0)


@pytest.mark.rfc("RFC 9293 SHLD-15", "RFC 9293 SHLD-16")
def test_a_retransmission_ends_with_the_window(isn: ISN) -> None:
    """Old data from SND.UNA to SND.UNA + SND.WND is sent again, and no byte beyond; as it opens, the rest."""
    c = shrunk(**isn)
    c.advance(300)
    c.expect("A", seq=1, data=BYTES[:LEFT])
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + LEFT, win=MSS)
    c.expect("A", seq=1 + LEFT, data=BYTES[LEFT:MSS])
    c.expect("A", seq=1 + MSS, data=BYTES[MSS : LEFT + MSS])
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-34")
def test_a_closed_window_gets_the_first_segment_again(isn: ISN) -> None:
    """The retransmission timer goes on with the first segment, so that the peer says when it opens (as Linux)."""
    c = shrunk(0, **isn)
    c.advance(300)
    c.expect("A", seq=1, data=BYTES[:MSS])
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-34")
def test_all_is_sent_once_the_window_opens(isn: ISN) -> None:
    """Nothing is lost by it: the stream ends as it was written."""
    c = shrunk(**isn)
    c.advance(300)
    got = bytearray()
    for _ in range(100):
        while c.segments:
            at = Got(c, c.segments.popleft())
            assert at.options.timestamps is not None
            c.last_tsval = at.options.timestamps[0]  # else its ACKs would be of the originals: RFC 3522
            if at.seq == 1 + len(got):
                got += at.data
        if len(got) == 5 * MSS:
            break
        c.inject("A", seq=1, ack=1 + len(got), win=LEFT)
        c.advance(3000)
    assert bytes(got) == BYTES[: 5 * MSS]
