"""The state table, and every state against every kind of segment. RFC 9293 3.3.2, 3.10.7."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from tcp_host import STATES

from layers.tcp.states import TRANSITIONS, ImpossibleInput, Input, State, transition

ISN = dict[str, Any]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Input)))
def test_every_pair(state: State, event: Input) -> None:
    """A pair leads where the table says, or raises."""
    if (state, event) in TRANSITIONS:
        assert transition(state, event) == TRANSITIONS[state, event]
    else:
        with pytest.raises(ImpossibleInput):
            transition(state, event)


def test_every_state_can_be_reached_and_left() -> None:
    """No dead ends but CLOSED's own, no orphans."""
    reached = set(TRANSITIONS.values())
    left = {state for state, _ in TRANSITIONS}
    assert reached == set(State) and left == set(State)


def test_factories_lead_where_they_say(isn: ISN) -> None:
    """Each state's factory."""
    for name, factory in STATES.items():
        assert factory(**isn).state == name


# state → what comes out, and the state after, for an RST, SYN, FIN and ACK just at RCV.NXT
# "seq" is where RCV.NXT stands, "ack" where SND.NXT does, both relative.
NUMBERS = {
    "CLOSED": (0, 0), "LISTEN": (0, 0), "SYN_SENT": (0, 1), "SYN_RECEIVED": (1, 1), "ESTABLISHED": (1, 1),
    "FIN_WAIT_1": (1, 2), "FIN_WAIT_2": (1, 2), "CLOSE_WAIT": (2, 1), "CLOSING": (2, 2), "LAST_ACK": (2, 2),
    "TIME_WAIT": (2, 2),
}  # fmt: skip

WITH_TCB = [name for name in STATES if name not in ("CLOSED", "LISTEN", "SYN_SENT", "TIME_WAIT")]

MATRIX: dict[tuple[str, str], tuple[str, str]] = {
    # RST: RFC 9293 3.10.7.1-4 second step
    ("CLOSED", "R"): ("", "CLOSED"),
    ("LISTEN", "R"): ("", "LISTEN"),
    ("SYN_SENT", "R"): ("", "SYN_SENT"),
    ("SYN_RECEIVED", "R"): ("", "CLOSED"),
    ("ESTABLISHED", "R"): ("", "CLOSED"),
    ("FIN_WAIT_1", "R"): ("", "CLOSED"),
    ("FIN_WAIT_2", "R"): ("", "CLOSED"),
    ("CLOSE_WAIT", "R"): ("", "CLOSED"),
    ("CLOSING", "R"): ("", "CLOSED"),
    ("LAST_ACK", "R"): ("", "CLOSED"),
    ("TIME_WAIT", "R"): ("", "CLOSED"),
    # RST with ACK
    ("SYN_SENT", "RA"): ("", "CLOSED"),
    ("ESTABLISHED", "RA"): ("", "CLOSED"),
    # SYN: RST where nobody listens, challenge ACK where a connection is open (RFC 5961 4.2)
    ("CLOSED", "S"): ("AR", "CLOSED"),
    ("LISTEN", "S"): ("AS", "LISTEN"),
    ("SYN_SENT", "S"): ("AS", "SYN_RECEIVED"),
    ("SYN_RECEIVED", "S"): ("A", "SYN_RECEIVED"),
    ("ESTABLISHED", "S"): ("A", "ESTABLISHED"),
    ("FIN_WAIT_1", "S"): ("A", "FIN_WAIT_1"),
    ("FIN_WAIT_2", "S"): ("A", "FIN_WAIT_2"),
    ("CLOSE_WAIT", "S"): ("A", "CLOSE_WAIT"),
    ("CLOSING", "S"): ("A", "CLOSING"),
    ("LAST_ACK", "S"): ("A", "LAST_ACK"),
    ("TIME_WAIT", "S"): ("A", "TIME_WAIT"),  # the same timestamp and number: no new connection (RFC 6191)
    # SYN-ACK
    ("CLOSED", "SA"): ("R", "CLOSED"),
    ("LISTEN", "SA"): ("R", "LISTEN"),
    ("SYN_SENT", "SA"): ("A", "ESTABLISHED"),
    ("ESTABLISHED", "SA"): ("A", "ESTABLISHED"),
    # ACK: RFC 9293 3.10.7.4 fifth step
    ("CLOSED", "A"): ("R", "CLOSED"),
    ("LISTEN", "A"): ("R", "LISTEN"),
    ("SYN_SENT", "A"): ("", "SYN_SENT"),
    ("SYN_RECEIVED", "A"): ("", "ESTABLISHED"),
    ("ESTABLISHED", "A"): ("", "ESTABLISHED"),
    ("FIN_WAIT_1", "A"): ("", "FIN_WAIT_2"),
    ("FIN_WAIT_2", "A"): ("", "FIN_WAIT_2"),
    ("CLOSE_WAIT", "A"): ("", "CLOSE_WAIT"),
    ("CLOSING", "A"): ("", "TIME_WAIT"),
    ("LAST_ACK", "A"): ("", "CLOSED"),
    ("TIME_WAIT", "A"): ("", "TIME_WAIT"),
    # FIN: eighth step
    ("CLOSED", "FA"): ("R", "CLOSED"),
    ("LISTEN", "FA"): ("R", "LISTEN"),
    ("SYN_SENT", "FA"): ("", "SYN_SENT"),
    ("SYN_RECEIVED", "FA"): ("A", "CLOSE_WAIT"),
    ("ESTABLISHED", "FA"): ("A", "CLOSE_WAIT"),
    ("FIN_WAIT_1", "FA"): ("A", "TIME_WAIT"),
    ("FIN_WAIT_2", "FA"): ("A", "TIME_WAIT"),
    ("CLOSE_WAIT", "FA"): ("A", "CLOSE_WAIT"),
    ("CLOSING", "FA"): ("", "TIME_WAIT"),
    ("LAST_ACK", "FA"): ("", "CLOSED"),
    ("TIME_WAIT", "FA"): ("A", "TIME_WAIT"),
    # FIN without ACK
    ("LISTEN", "F"): ("", "LISTEN"),
    ("CLOSED", "F"): ("AR", "CLOSED"),
    ("ESTABLISHED", "F"): ("", "ESTABLISHED"),
}


@pytest.mark.parametrize(("state", "flags"), MATRIX, ids=str)
def test_matrix(isn: ISN, state: str, flags: str) -> None:
    """What a segment at RCV.NXT brings forth, and where it leads."""
    answer, after = MATRIX[state, flags]
    c = STATES[state](**isn).quiet()
    seq, ack = NUMBERS[state]
    c.inject(flags, seq=seq, ack=ack if "A" in flags else None)
    if answer:
        c.expect(answer)
    c.expect_nothing()
    assert c.state == after


@pytest.mark.rfc("RFC 5961 3.2-3")
@pytest.mark.parametrize("state", WITH_TCB)
@pytest.mark.parametrize("where", [5, 30_000])
def test_reset_inside_the_window_is_challenged(isn: ISN, state: str, where: int) -> None:
    """Only the exact number resets. RFC 5961 3.2."""
    c = STATES[state](**isn).quiet()
    c.inject("R", seq=NUMBERS[state][0] + where)
    assert c.state == state
    c.expect("A")
    assert c.dropped("tcp_rst_guessed") == 1


@pytest.mark.rfc("RFC 5961 3.2-1")
@pytest.mark.parametrize("state", WITH_TCB)
@pytest.mark.parametrize("where", [-1000, 1_000_000])
def test_reset_outside_the_window_is_ignored(isn: ISN, state: str, where: int) -> None:
    """Without an answer. RFC 9293 3.10.7.4 first step."""
    c = STATES[state](**isn).quiet()
    c.inject("R", seq=NUMBERS[state][0] + where)
    assert c.state == state
    c.expect_nothing()
    assert c.dropped("tcp_rst_outside") == 1


@pytest.mark.rfc("RFC 5961 5.2-1")
@pytest.mark.parametrize("state", ["ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "CLOSING", "LAST_ACK"])
def test_acknowledgment_of_what_was_not_sent(isn: ISN, state: str) -> None:
    """Is answered with an ACK and changes nothing. RFC 9293 3.10.7.4 fifth step."""
    c = STATES[state](**isn).quiet()
    seq, ack = NUMBERS[state]
    c.inject("A", seq=seq, ack=ack + 1000)
    c.expect("A")
    assert c.state == state and c.dropped("tcp_ack_unsent") == 1


@pytest.mark.rfc("RFC 5961 5.2-1")
@pytest.mark.parametrize("state", ["ESTABLISHED", "FIN_WAIT_1", "CLOSE_WAIT"])
def test_ancient_acknowledgment_is_challenged(isn: ISN, state: str) -> None:
    """Below SND.UNA - MAX.SND.WND. RFC 5961 5.2."""
    c = STATES[state](**isn).quiet()
    seq, _ = NUMBERS[state]
    c.inject("A", seq=seq, ack=-20_000_000)
    c.expect("A")
    assert c.state == state and c.dropped("tcp_ack_ancient") == 1
