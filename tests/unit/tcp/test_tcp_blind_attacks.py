"""What somebody who sees nothing of a connection may send: RFC 5961, and PAWS (RFC 7323 5) and RFC 1337 beside it."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import MS, PEER_PORT, STATES, THEIRS, Host, established, syn_sent, time_wait

from layers.tcp.acceptance import AckVerdict, judge_ack
from layers.tcp.timewait import TimeWait, TimeWaitVerdict, judge
from levelip.frames.seam import Bind, Close, Connect, Incoming, Result, Taken
from levelip.rpc.stream import Reset

ISN = dict[str, Any]
DAY = 86_400_000  # ms


# limits, RFC 5961 7


@pytest.mark.rfc("RFC 5961 7-1")
def test_a_socket_challenges_twice_a_second(isn: ISN) -> None:
    """invalid_ratelimit_ms 500: of 100 forged RSTs in a second two are answered, at 0 and at 500 ms."""
    c = established(**isn).quiet()
    for _ in range(100):
        c.inject("R", seq=5)
        c.advance(10)
    assert len(c.segments) == 2
    assert c.core.counters["answers_withheld"] == 98
    assert c.state == "ESTABLISHED"


@pytest.mark.rfc("RFC 5961 7-1")
def test_all_sockets_together_stay_within_a_budget_that_is_drawn_anew() -> None:
    """challenge_acks_per_s 4, no limit a socket: 2 + (0..3) a second, and not the same each second, so that nobody can
    tell by what is left whether somebody else was challenged."""
    c = established(challenge_acks_per_s=4, invalid_ratelimit_ms=0).quiet()
    seen = []
    for _ in range(40):
        for _ in range(10):
            c.inject("R", seq=5)
        seen.append(len(c.segments))
        c.quiet()
        c.advance(1000)
    assert set(seen) == {2, 3, 4, 5}
    assert c.core.counters["challenges_withheld"] == 400 - sum(seen)


@pytest.mark.rfc("RFC 5961 7")
def test_no_challenges_at_all_when_configured_so() -> None:
    """challenge_acks_per_s 0."""
    c = established(challenge_acks_per_s=0).quiet()
    c.inject("R", seq=5)
    c.expect_nothing()


@pytest.mark.rfc("RFC 5961 7")
def test_data_out_of_window_is_always_answered(isn: ISN) -> None:
    """It is a sender that lacks our ACK, not an ACK loop (Linux tcp_oow_rate_limited)."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"abc")
    c.quiet()
    for _ in range(3):
        c.inject("PA", seq=1, ack=1, data=b"abc")
    assert len(c.segments) == 3


@pytest.mark.rfc("RFC 5961 7")
def test_two_ends_out_of_step_do_not_answer_each_other_for_ever(isn: ISN) -> None:
    """Empty ACKs out of window: one answer in 500 ms."""
    c = established(**isn).quiet()
    for _ in range(50):
        c.inject("A", seq=-9, ack=1)
    assert len(c.segments) == 1


@pytest.mark.rfc("RFC 5961 7")
def test_time_wait_answers_within_the_same_limit(isn: ISN) -> None:
    """A record has a clock of its own."""
    c = time_wait(**isn).quiet()
    for _ in range(10):
        c.inject("A", seq=-5, ack=2, data=b"old")
    assert len(c.segments) == 1
    c.advance(500)
    c.inject("A", seq=-5, ack=2, data=b"old")
    assert len(c.segments) == 2


# acknowledgments, RFC 5961 5.2


@pytest.mark.rfc("RFC 9293 3.10.7.4", "RFC 5961 5.2-1")
def test_judge_ack() -> None:
    """SND.UNA 1000, SND.NXT 2000, largest window 300: 700 is the oldest that is only old."""
    judge = judge_ack
    assert judge(1000, 2000, 300, 2001) == AckVerdict.UNSENT
    assert judge(1000, 2000, 300, 2000) == AckVerdict.NEW
    assert judge(1000, 2000, 300, 1000) == AckVerdict.DUPLICATE
    assert judge(1000, 2000, 300, 700) == AckVerdict.OLD
    assert judge(1000, 2000, 300, 699) == AckVerdict.ANCIENT


@pytest.mark.rfc("RFC 5961 5.2")
def test_nothing_before_the_first_byte_can_be_acknowledged() -> None:
    """However large the window: offset -1 is our SYN, below it lies nothing."""
    assert judge_ack(10, 20, 65_535, 0) == AckVerdict.OLD
    assert judge_ack(10, 20, 65_535, -1) == AckVerdict.ANCIENT
    assert judge_ack(10, 20, 65_535, -500) == AckVerdict.ANCIENT


@pytest.mark.rfc("RFC 5961 5.2-1", "RFC 9293 MAY-12")
def test_forged_text_with_a_wild_acknowledgment_is_not_taken(isn: ISN) -> None:
    """In the window, but acknowledging what was never sent: one challenge, nothing is delivered."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1_000_000, data=b"evil")
    c.expect("A", ack=1)
    c.no_message()
    assert c.dropped("tcp_ack_unsent") == 1


@pytest.mark.rfc("RFC 5961 4.2-1", "RFC 5961 4.2-2")
def test_a_syn_in_the_window_is_challenged_and_changes_nothing(isn: ISN) -> None:
    """So is one outside, and one that is SYN-ACK."""
    c = established(**isn).quiet()
    for flags, where in (("S", 100), ("S", -100_000), ("SA", 1)):
        c.inject(flags, seq=where, ack=1 if "A" in flags else None)
        c.expect("A", seq=1, ack=1)
        c.advance(500)
    assert c.state == "ESTABLISHED"


@pytest.mark.rfc("RFC 5961 3.2", "RFC 9293 3.10.7.4")
@pytest.mark.parametrize("state", ["ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2", "CLOSE_WAIT", "LAST_ACK", "CLOSING"])
def test_the_peer_answers_a_challenge_with_the_exact_number(isn: ISN, state: str) -> None:
    """An honest peer that has forgotten us resets with what our challenge acknowledged."""
    c = STATES[state](**isn).quiet()
    here = c.tcb()["rx"]["rcv_nxt"] + 1
    c.inject("R", seq=here + 7)
    got = c.expect("A")
    assert got.ack == here and c.state == state
    c.inject("R", seq=here)
    assert c.state == "CLOSED"


# PAWS, RFC 7323 5


@pytest.mark.rfc("RFC 7323 5.3-1", "RFC 7323 5.3-2")
def test_paws_before_the_window(isn: ISN) -> None:
    """R1: an old duplicate of before the sequence numbers wrapped lies in the window, yet is not taken."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"now", ts=10_000)
    c.quiet()
    c.inject("PA", seq=4, ack=1, data=b"old", ts=9_999)
    c.expect("A", ack=4)
    assert c.dropped("tcp_paws") == 1 and c.received(0, 6) == b"now\0\0\0"


@pytest.mark.rfc("RFC 7323 5.3", "RFC 7323 4.3-1")
def test_only_what_begins_at_the_last_ack_or_before_sets_ts_recent(isn: ISN) -> None:
    """R3: SEG.SEQ =< Last.ACK.sent. What begins beyond, even in order, does not."""
    c = established(delayed_ack_ms=200, **isn)
    for _ in range(20):  # no quick ACKs any more
        c.inject("PA", seq=1 + c.tcb()["rx"]["rcv_nxt"], ack=1, data=b"x")
    c.advance(200)
    c.quiet()
    start = 1 + c.tcb()["rx"]["rcv_nxt"]
    c.inject("PA", seq=start, ack=1, data=b"first", ts=20_000)
    c.inject("PA", seq=start + 5, ack=1, data=b"second", ts=20_100)
    assert c.tcb()["ts_recent"] == 20_000
    c.advance(200)
    stamps = c.expect("A", ack=start + 11).options.timestamps
    assert stamps is not None and stamps[1] == 20_000


@pytest.mark.rfc("RFC 7323 5.5-1")
def test_after_24_days_any_timestamp_is_good_and_becomes_ts_recent(isn: ISN) -> None:
    """It must become so, though it looks smaller: else the next one would be judged by the one that says nothing."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"a", ts=1_000_000_000)
    c.quiet()
    c.advance(24 * DAY - 1000)
    c.inject("PA", seq=2, ack=1, data=b"b", ts=999_999_999)
    assert c.dropped("tcp_paws") == 1
    c.advance(2000)
    c.inject("PA", seq=2, ack=1, data=b"b", ts=999_999_999)
    assert c.tcb()["ts_recent"] == 999_999_999
    c.inject("PA", seq=3, ack=1, data=b"c", ts=999_999_998)
    assert c.dropped("tcp_paws") == 2


@pytest.mark.rfc("RFC 7323 5.2-1")
def test_a_reset_with_an_old_timestamp_counts_and_sets_nothing(isn: ISN) -> None:
    """PAWS is not for RST; neither is TS.Recent (an RST that is challenged here)."""
    c = established(**isn)
    c.inject("PA", seq=1, ack=1, data=b"new", ts=10_000)
    c.quiet()
    c.inject("R", seq=9, ts=90_000)
    assert c.tcb()["ts_recent"] == 10_000
    c.inject("R", seq=4, ts=1)
    assert c.state == "CLOSED"


@pytest.mark.rfc("RFC 7323 3.2-2")
def test_our_reset_carries_a_timestamp(isn: ISN) -> None:
    """SHOULD be sent in an RST."""
    c = established(**isn)
    c.close(abort=True)
    stamps = c.expect("RA", seq=1).options.timestamps
    assert stamps is not None and stamps[1] == c.stamp


@pytest.mark.rfc("RFC 7323 5.2")
def test_syn_sent_wants_an_echo_of_its_own(isn: ISN) -> None:
    """A SYN-ACK whose TSecr our SYN never had is of an older connection: RST, and we go on waiting."""
    c = syn_sent(**isn)
    c.last_tsval -= 1000
    c.inject("SA", seq=0, ack=1)
    c.expect("R", seq=1)
    assert c.state == "SYN_SENT" and c.dropped("tcp_paws_echo") == 1
    c.last_tsval += 1000
    c.inject("SA", seq=0, ack=1)
    c.expect("A", seq=1, ack=1)
    assert c.state == "ESTABLISHED"


@pytest.mark.rfc("RFC 7323 5.2")
def test_a_forged_reset_of_a_connect_fails_by_its_echo(isn: ISN) -> None:
    """RST-ACK with the right ACK but a TSecr of the future."""
    c = syn_sent(**isn)
    c.agreed_ts = True
    c.last_tsval += 10_000
    c.inject("RA", seq=0, ack=1)
    assert c.state == "SYN_SENT"
    c.expect_nothing()
    c.last_tsval -= 10_000
    c.inject("RA", seq=0, ack=1)
    c.find_message(Reset)


@pytest.mark.rfc("RFC 7323 5.2")
def test_an_echo_of_an_earlier_syn_is_good(isn: ISN) -> None:
    """The SYN went twice, the SYN-ACK answers the first."""
    c = syn_sent(**isn)
    first = c.last_tsval
    c.advance(1001)
    c.expect("S")
    c.last_tsval = first
    c.inject("SA", seq=0, ack=1)
    c.expect("A", seq=1, ack=1)


# TIME-WAIT: RFC 1337, 6191


@pytest.mark.rfc("RFC 1337 3-1")
def test_rfc1337_keeps_time_wait(isn: ISN) -> None:
    """Fix (1): RST is ignored in TIME-WAIT."""
    c = time_wait(rfc1337=True, **isn)
    c.inject("R", seq=2)
    assert c.state == "TIME_WAIT"
    c.expect_nothing()
    assert c.dropped("tcp_in_time_wait") == 1


@pytest.mark.rfc("RFC 1337 2", "RFC 5961 3.2")
def test_without_it_only_the_exact_number_ends_time_wait(isn: ISN) -> None:
    """As Linux by default. RFC 1337 2: the hazards begin with an ACK of ours that an old duplicate provokes; the RST
    that answers it has the number of our ACK."""
    c = time_wait(**isn)
    c.inject("R", seq=3)
    assert c.state == "TIME_WAIT"
    c.inject("R", seq=2, ts=1)
    assert c.state == "CLOSED"


@pytest.mark.rfc("RFC 6191 3", "RFC 9293 MAY-2", "RFC 9293 3.6.1")
def test_a_new_connection_over_time_wait_starts_beyond_the_old_one() -> None:
    """ISN = SND.NXT + 65,537, larger than any number that was used."""
    c = Host(isn=-1)
    c.listen()
    c.sock = 50
    c.inject("S", seq=0)
    iss = c.segments[0].head[4:8]
    c.isn = int.from_bytes(iss, "big")
    c.expect("SA", seq=0, ack=1)
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    told = c.message(Incoming)
    c.sock = told.sock
    c.call(Taken(50, told.sock))
    c.shut()
    c.expect("FA", seq=1)
    c.inject("FA", seq=1, ack=2)
    c.expect("A", seq=2, ack=2)
    assert c.state == "TIME_WAIT"
    c.advance(10)
    c.inject("S", seq=500)
    c.expect("SA", seq=2 + 65_537, ack=501)


@pytest.mark.rfc("RFC 6191 2", "RFC 7323 5.5")
def test_a_time_wait_of_24_days_knows_no_timestamp() -> None:
    """time_wait_ms can be set so long: TS.Recent expires there too, and the sequence number decides."""
    old = TimeWait(1, b"", 1, b"", 2, 100, 200, 0, True, 0, 5000, 0, 64, 0, 0)
    assert judge(old, 300, 1, syn=True, fin=False, rst=False, ack=False, value=4000) == TimeWaitVerdict.PAWS
    late = judge(old, 300, 1, syn=True, fin=False, rst=False, ack=False, value=4000, idle=25 * DAY * MS)
    assert late == TimeWaitVerdict.NEW_CONNECTION


@pytest.mark.rfc("RFC 6191 2", "RFC 9293 MAY-2")
@pytest.mark.parametrize(
    ("mode", "wait", "works"), [(1, 1001, True), (1, 900, False), (2, 1001, False), (0, 1001, False)]
)
def test_connect_over_time_wait(mode: int, wait: int, works: bool) -> None:
    """tw_reuse 1: after a second, and with timestamps; 2: on loopback only; 0: never. Linux tcp_twsk_unique.

    The ISN is 65,537 above the old SND.NXT, which is 2."""
    c = Host(tw_reuse=mode, isn=-1)
    c.call(Bind(1, 60, b"", 40_000, True))
    c.connect(sock=60)
    c.isn = int.from_bytes(c.segments[0].head[4:8], "big")
    c.learn_port()
    c.expect("S", seq=0)
    c.inject("SA", seq=0, ack=1)
    c.expect("A", seq=1, ack=1)
    c.agreed_ts = True
    c.shut()
    c.expect("FA", seq=1)
    c.inject("FA", seq=1, ack=2)
    c.expect("A", seq=2, ack=2)
    c.call(Close(60))
    c.advance(wait)
    c.quiet()
    c.call(Bind(2, 78, b"", 40_000, True))
    assert c.message(Result).errno == 0
    c.call(Connect(78, "", THEIRS, PEER_PORT))
    if works:
        c.expect("S", seq=2 + 65_537)
        assert c.core.counters["time_wait_reused"] == 1
    else:
        c.message(Reset, errno=errno.EADDRNOTAVAIL)
        c.expect_nothing()
