"""Which ACKs wait and which do not: Linux's quick ACKs. RFC 9293 3.8.6.3, RFC 5681 4.2."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Host, established

from layers.tcp.core import TcpCore
from levelip.frames.seam import SetOption

ISN = dict[str, Any]
MARKED = 3  # CE


def late(**how: Any) -> Host:
    """ESTABLISHED, past the quick ACKs of the start: 16 segments of 10 bytes came and were read."""
    c = established(**how)
    for number in range(16):
        c.inject("A", seq=1 + number * 10, ack=1, data=b"0123456789")
        c.expect("A", ack=11 + number * 10)
    c.consume(160)
    return c.quiet()


def quick(c: Host, seq: int, most: int = 40) -> int:
    """How many lone segments of 10 bytes from `seq` on are acknowledged at once, before one is not."""
    for number in range(most):
        c.inject("A", seq=seq + 10 * number, ack=1, data=b"0123456789")
        if not c.segments:
            return number
        c.expect("A", ack=seq + 10 * number + 10)
    return most


@pytest.mark.rfc("RFC 5681 4.2")
def test_after_a_silence_longer_than_the_rto(isn: ISN) -> None:
    """The peer begins anew with a small window: 16 quick ACKs. A silence of less than the RTO (1 s, no RTT is known of
    a handshake in no time but the floor of 200 ms) makes none."""
    c = late(**isn)
    c.advance(100)
    assert quick(c, 161) == 0
    c.advance(1100)
    c.quiet()
    assert quick(c, 171) == 16


@pytest.mark.rfc("RFC 5681 4.2")
def test_after_a_repeat(isn: ISN) -> None:
    """A segment that has come before says that an ACK was lost or came too late."""
    c = late(**isn)
    c.inject("A", seq=1, ack=1, data=b"0123456789")
    c.expect("A", ack=161)
    assert quick(c, 161) == 16


@pytest.mark.rfc("RFC 5681 4.2")
def test_after_a_hole_was_filled(isn: ISN) -> None:
    """The peer has reduced its window and grows it by our ACKs."""
    c = late(**isn)
    c.inject("A", seq=171, ack=1, data=b"0123456789")
    c.expect("A", ack=161)
    c.inject("A", seq=161, ack=1, data=b"0123456789")
    c.expect("A", ack=181)
    assert quick(c, 181) == 16


def test_no_more_than_half_a_window_of_them(isn: ISN) -> None:
    """With full segments in a window of 8192 bytes: 8192 / (2 · 1448) = 2."""
    c = established(receive_buffer=8192, **isn)
    seq = 1
    for _ in range(16):  # more than the 16 of the start: each is read
        c.inject("PA", seq=seq, ack=1, data=b"f" * MSS)
        seq += MSS
        c.consume(seq - 1)
    c.quiet()
    c.inject("A", seq=seq - MSS, ack=1, data=b"f" * MSS)
    c.quiet()
    assert c.tcb()["quick_acks"] == 2


@pytest.mark.rfc("RFC 3168 6.1.3")
def test_after_a_mark_of_congestion() -> None:
    """A segment with CE: its ACK goes at once, and two more (Linux __tcp_ecn_check_ce)."""
    c = Host(ecn=1)
    c.listen()
    c.inject("SEC", seq=0)
    c.expect("SAE")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    c.sock = next(row["sock"] for row in c.core.control(1, "ss", {}, 0)["sockets"] if row["state"] != "LISTEN")
    assert quick(c.quiet(), 1) == 16
    c.advance(50)
    c.quiet()
    c.inject("A", seq=171, ack=1, data=b"0123456789", tos=MARKED)
    c.expect("AE", ack=181)
    for number in range(2):
        c.inject("A", seq=181 + 10 * number, ack=1, data=b"0123456789", tos=2)
        c.expect("AE", ack=191 + 10 * number)
    c.inject("A", seq=201, ack=1, data=b"0123456789", tos=2)
    c.expect_nothing()


def test_what_was_read_to_its_end_is_acknowledged(isn: ISN) -> None:
    """A short segment is the last for now: once the application has read it, no ACK waits (Linux tcp_cleanup_rbuf)."""
    c = late(**isn)
    c.inject("A", seq=161, ack=1, data=b"the end")
    c.expect_nothing()
    c.consume(164)  # a part
    c.expect_nothing()
    c.consume(167)
    c.expect("A", ack=168)
    c.advance(100)
    c.expect_nothing()


def test_a_full_segment_counts_as_the_last_with_psh_alone(isn: ISN) -> None:
    """Without PSH more is to come, and the ACK waits for it, though all was read."""
    for flags, told in (("A", 0), ("PA", 1)):
        c = late(**isn)
        for number in range(2):  # so that the size of the peer's segments is known
            c.inject("A", seq=161 + number * MSS, ack=1, data=b"f" * MSS)
        c.consume(160 + 2 * MSS)
        c.quiet()
        c.inject(flags, seq=161 + 2 * MSS, ack=1, data=b"f" * MSS)
        c.expect_nothing()
        c.consume(160 + 3 * MSS)
        assert len(c.segments) == told


def test_where_data_goes_to_and_fro_the_answer_carries_it(isn: ISN) -> None:
    """An answer within the delay: from then on reading makes no ACK, unless the peer sent twice meanwhile."""
    c = late(**isn)
    c.inject("PA", seq=161, ack=1, data=b"ping")
    c.write(b"pong")
    c.expect("PA", ack=165)
    c.inject("PA", seq=165, ack=5, data=b"ping")
    c.consume(168)
    c.expect_nothing()
    c.inject("PA", seq=169, ack=5, data=b"ping")
    c.consume(172)
    c.expect("A", ack=173)


def test_an_answer_that_does_not_come_ends_the_waiting_for_it(isn: ISN) -> None:
    """The delay passed without one (Linux tcp_delack_timer): what is read is acknowledged again."""
    c = late(**isn)
    c.inject("PA", seq=161, ack=1, data=b"ping")
    c.write(b"pong")
    c.expect("PA", ack=165)
    c.inject("PA", seq=165, ack=5, data=b"ping")
    c.advance(40)
    c.expect("A", ack=169)
    c.inject("PA", seq=169, ack=5, data=b"ping")
    c.consume(172)
    c.expect("A", ack=173)


def test_quickack_off_stays_off_until_the_delay_was_waited_once(isn: ISN) -> None:
    """TCP_QUICKACK 0 is no lasting setting (tcp(7))."""
    c = established(**isn)
    c.call(SetOption(c.sock, "quickack", 0))
    c.inject("A", seq=1, ack=1, data=b"0123456789")
    c.expect_nothing()
    c.advance(40)
    c.expect("A", ack=11)
    assert quick(c, 11) == 16


def test_snapshot_in_the_delay(isn: ISN) -> None:
    """Another core goes on with what was known of the segment that waits."""
    c = late(**isn)
    c.inject("PA", seq=161, ack=1, data=b"the end")
    c.core = TcpCore.restore(c.config, c.core.snapshot())
    c.consume(167)
    c.expect("A", ack=168)
