"""How connections end: FIN, RST, TIME-WAIT, orphans. RFC 9293 3.6, 3.10.4, 3.10.5, 3.10.7.4; RFC 2525, 6191."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import (
    Host,
    close_wait,
    closing,
    established,
    fin_wait_1,
    fin_wait_2,
    last_ack,
    listening,
    syn_received,
    time_wait,
)

from levelip.frames.seam import Close, Incoming, Released
from levelip.rpc.stream import Data, Eof, Reset, Send

ISN = dict[str, Any]


@pytest.mark.rfc("RFC 9293 MUST-13")
def test_we_close_first(isn: ISN) -> None:
    """FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, and after 2 MSL nothing. RFC 9293 3.6 figure 12."""
    c = established(**isn)
    c.close()
    c.expect("FA", seq=1, ack=1)
    assert c.state == "FIN_WAIT_1"
    c.inject("A", seq=1, ack=2)
    assert c.state == "FIN_WAIT_2"
    c.message(Released, sock=c.sock)
    c.inject("FA", seq=1, ack=2)
    c.expect("A", seq=2, ack=2)
    assert c.state == "TIME_WAIT"
    c.advance(59_999)
    assert c.state == "TIME_WAIT"
    c.advance(2)
    assert c.state == "CLOSED"
    c.no_message()


def test_the_peer_closes_first(isn: ISN) -> None:
    """CLOSE-WAIT, LAST-ACK, CLOSED; the application reads the end of file."""
    c = established(**isn)
    c.inject("FA", seq=1, ack=1)
    c.expect("A", seq=1, ack=2)
    c.message(Eof, at=0)
    assert c.state == "CLOSE_WAIT"
    c.close()
    c.expect("FA", seq=1, ack=2)
    assert c.state == "LAST_ACK"
    c.inject("A", seq=2, ack=2)
    assert c.row() is None
    c.message(Released)
    c.expect_nothing()


def test_both_close_at_once(isn: ISN) -> None:
    """FIN-WAIT-1, CLOSING, TIME-WAIT. RFC 9293 3.6 figure 13."""
    c = established(**isn)
    c.close()
    c.expect("FA", seq=1, ack=1)
    c.inject("FA", seq=1, ack=1)
    c.expect("A", seq=2, ack=2)
    assert c.state == "CLOSING"
    c.inject("A", seq=2, ack=2)
    assert c.state == "TIME_WAIT"
    c.message(Released)


def test_fin_that_acknowledges_ours(isn: ISN) -> None:
    """One segment does both: TIME-WAIT at once."""
    c = fin_wait_1(**isn)
    c.inject("FA", seq=1, ack=2)
    c.expect("A", seq=2, ack=2)
    assert c.state == "TIME_WAIT"


def test_text_is_delivered_before_the_end(isn: ISN) -> None:
    """All that was written goes out before the FIN, also after close(). RFC 9293 3.10.4."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"written before the end")
    c.close()
    c.expect_nothing()
    c.inject("A", seq=1, ack=1, win=1000)
    c.expect("FPA", seq=1, data=b"written before the end")
    c.no_message()
    c.inject("A", seq=1, ack=24)
    c.message(Released)


def test_released_waits_for_the_acknowledgment(isn: ISN) -> None:
    """SO_LINGER rests on it."""
    c = established(**isn)
    c.close()
    c.no_message()
    c.inject("A", seq=1, ack=2)
    c.message(Released)


@pytest.mark.rfc("RFC 9293 SHLD-3")
def test_unread_text_makes_a_reset(isn: ISN) -> None:
    """close() upon text that was not consumed. RFC 2525 2.17."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"unread")
    c.quiet()
    c.close()
    c.expect("RA", seq=1, ack=7)
    c.message(Released)
    assert c.row() is None and c.dropped("tcp_unread") == 1


def test_consumed_text_does_not(isn: ISN) -> None:
    """The same, but read."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"read")
    c.consume(4)
    c.quiet()
    c.close()
    c.expect("FA", seq=1, ack=5)


def test_abort(isn: ISN) -> None:
    """RST at once, whatever waits to be sent. RFC 9293 3.10.5."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"never mind")
    c.close(abort=True)
    c.expect("RA", seq=1, ack=1)
    c.message(Released)
    assert (c.row() is None and c.core.next_timer() is None) or c.core.handle_timer(c.now) is None
    c.inject("A", seq=1, ack=1)
    c.expect("R", seq=1)


def test_reset_of_the_gateway_is_an_abort(isn: ISN) -> None:
    """Reset(sock, 0) from the application's side."""
    c = established(**isn)
    c.call(Reset(c.sock, 0))
    c.expect("RA", seq=1)
    c.message(Released)


def test_lost_bytes_make_a_reset_never_a_fin(isn: ISN) -> None:
    """The application said that its stream ends at 10, and bytes below that never came: RST on close. DESIGN 8."""
    c = established(**isn)
    c.call(Eof(c.sock, 10))
    c.quiet()
    c.close()
    c.expect("RA", seq=1)


@pytest.mark.rfc("RFC 9293 MUST-12")
@pytest.mark.parametrize(
    ("factory", "error"),
    [
        (established, errno.ECONNRESET),
        (fin_wait_1, errno.ECONNRESET),
        (fin_wait_2, errno.ECONNRESET),
        (close_wait, errno.EPIPE),
        (closing, errno.ECONNRESET),
        (last_ack, errno.ECONNRESET),
    ],
)
def test_reset_by_the_peer(isn: ISN, factory: Any, error: int) -> None:
    """Told with Linux's errno; all is forgotten. RFC 9293 3.10.7.4 second step, Linux tcp_reset."""
    c = factory(**isn)
    c.inject("R", seq=c.tcb()["rx"]["rcv_nxt"] + 1)
    assert c.find_message(Reset).errno == error
    assert c.row() is None
    c.expect_nothing()


def test_unread_text_survives_a_reset(isn: ISN) -> None:
    """It is told before the reset and stays in the ring until the application closes; Linux lets one read it too."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"last words", flush=False)
    c.inject("R", seq=11)
    told = c.message(Data, offset=0)
    c.message(Reset, errno=errno.ECONNRESET)
    assert c.memory.read(told.payload) == b"last words"
    assert c.core.snapshot()["slots"]["regions"] != {}
    c.close()
    c.message(Released)
    assert c.core.snapshot()["slots"]["regions"] == {}


@pytest.mark.rfc("RFC 9293 SHLD-3")
def test_text_after_close_is_answered_with_a_reset(isn: ISN) -> None:
    """Nobody will read it. RFC 9293 3.10.4, RFC 2525 2.17."""
    c = established(**isn)
    c.close()
    c.expect("FA")
    c.inject("A", seq=1, ack=2)
    c.quiet()
    c.inject("PA", seq=1, ack=2, data=b"too late")
    c.expect("RA", seq=2)
    assert c.row() is None and c.dropped("tcp_data_after_close") == 1


@pytest.mark.rfc("RFC 9293 MAY-1")
def test_half_close(isn: ISN) -> None:
    """shutdown(SHUT_WR) leaves the other direction open for as long as it likes."""
    c = fin_wait_2(**isn)
    c.advance(600_000)
    c.inject("PA", seq=1, ack=2, data=b"hours later")
    c.message(Data, offset=0)
    c.expect("A", ack=12)
    assert c.state == "FIN_WAIT_2"


def test_an_orphan_does_not_wait_for_ever(isn: ISN) -> None:
    """close(), and the peer never closes: fin_timeout. Linux tcp_fin_timeout."""
    c = established(**isn)
    c.close()
    c.inject("A", seq=1, ack=2)
    assert c.state == "FIN_WAIT_2"
    c.advance(60_001)
    assert c.row() is None


def test_an_orphan_gives_up_earlier() -> None:
    """orphan_retries: it is Released, as nobody waits for an errno."""
    c = established(orphan_retries=2)
    c.write(b"x")
    c.close()
    c.quiet()
    c.advance(60_000)
    assert len(c.segments) == 5  # a probe (RFC 8985 7.3: the FIN), then text and FIN, twice
    c.message(Released)
    assert c.row() is None


def test_close_after_shutdown_in_fin_wait_2(isn: ISN) -> None:
    """All is acknowledged already: Released at once, and the orphan's timer runs."""
    c = fin_wait_2(**isn)
    c.close()
    c.message(Released)
    c.advance(60_001)
    assert c.row() is None


def test_close_in_time_wait(isn: ISN) -> None:
    """Released; the record stays, the rings are free."""
    c = time_wait(**isn)
    c.close()
    c.message(Released)
    assert c.state == "TIME_WAIT"
    assert c.core.snapshot()["slots"]["regions"] == {}


@pytest.mark.rfc("RFC 9293 MUST-13")
def test_time_wait_acknowledges_a_fin_again_and_starts_anew(isn: ISN) -> None:
    """The peer did not get our ACK. RFC 9293 3.10.7.4 eighth step."""
    c = time_wait(**isn)
    c.advance(50_000)
    c.inject("FA", seq=1, ack=2)
    c.expect("A", seq=2, ack=2)
    c.advance(50_000)
    assert c.state == "TIME_WAIT"
    c.advance(10_001)
    assert c.state == "CLOSED"


def test_time_wait_answers_old_text(isn: ISN) -> None:
    """An ACK, whatever it was."""
    c = time_wait(**isn)
    c.inject("A", seq=1, ack=2, data=b"old")
    c.expect("A", seq=2, ack=2)
    assert c.dropped("tcp_in_time_wait") == 1
    c.inject("A", seq=2, ack=2)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MAY-2", "RFC 9293 SHLD-4", "RFC 6191 2-1")
def test_time_wait_gives_way_to_a_new_syn(isn: ISN) -> None:
    """With a later timestamp. RFC 6191 2."""
    c = time_wait(**isn)
    c.advance(100)
    c.inject("S", seq=700)
    got = c.expect("SA", ack=701)
    assert got.raw_seq == c.isn
    assert c.core.counters["time_wait_reused"] == 1


@pytest.mark.rfc("RFC 9293 MAY-2", "RFC 6191 2-3", "RFC 6191 2-4")
def test_time_wait_without_timestamps_wants_a_higher_number(isn: ISN) -> None:
    """RFC 9293 3.6.1, RFC 6191 2; a lower one is answered as a repeat."""
    c = time_wait(ts=False, **isn)
    c.inject("S", seq=0)
    c.expect("A", seq=2, ack=2)
    c.inject("S", seq=90_000)
    c.expect("SA", ack=90_001)


def test_time_wait_does_not_give_way_where_nobody_listens(isn: ISN) -> None:
    """The SYN is acknowledged, as any segment."""
    c = time_wait(**isn)
    c.call(Close(50))
    c.advance(100)
    c.inject("S", seq=700)
    c.expect("A", seq=2, ack=2)


def test_time_wait_ends_by_an_exact_reset(isn: ISN) -> None:
    """Any other RST is ignored (RFC 1337, RFC 5961 3.2)."""
    c = time_wait(**isn)
    c.inject("R", seq=77)
    assert c.state == "TIME_WAIT"
    c.inject("R", seq=2)
    assert c.state == "CLOSED"
    c.expect_nothing()


def test_listener_close(isn: ISN) -> None:
    """Children that were not taken are reset, half-open ones forgotten; new SYNs meet nobody."""
    c = syn_received(**isn)
    c.call(Close(50))
    c.message(Released, sock=50)
    c.no_message()
    c.expect_nothing()
    assert c.row() is None
    c.inject("A", seq=1, ack=1)
    c.expect("R", seq=1)
    c = listening(**isn)
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    child = c.message(Incoming).sock
    c.call(Close(50))
    c.expect("RA", seq=1)
    assert c.row(child) is None


def test_close_is_idempotent() -> None:
    """Of an id that is unknown or already closing: Released, or nothing more."""
    c = Host()
    c.call(Close(99))
    c.message(Released, sock=99)
    c = established()
    c.close()
    c.quiet()
    c.close()
    c.expect_nothing()
    c.no_message()


def test_messages_for_a_closed_socket_are_dropped() -> None:
    """With a reason: the gateway may not know yet."""
    c = established()
    c.close()
    c.call(Send(c.sock, 0, 1, b"x"))
    c.call(Eof(99, 0))
    assert c.dropped("tcp_unknown_socket") == 2
