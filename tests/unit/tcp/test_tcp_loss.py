"""Loss and how it is repaired: RTO (RFC 6298), fast retransmit (RFC 5681 3.2), NewReno (RFC 6582), limited transmit."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import MSS, Host, established

from layers.tcp.congestion import STRATEGIES, NoStrategy, make
from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample, Strategy
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.core import TcpCore
from layers.tcp.recovery import newreno
from layers.tcp.recovery.state import CaState, Recovery
from layers.tcp.rto import MS, Rto
from levelip.frames.seam import SetOption
from levelip.rpc.stream import Reset

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 600


# the calculators alone


def rto() -> Rto:
    """Linux's floor of 200 ms, RFC 6298's first RTO of 1 s."""
    return Rto(floor=200 * MS, ceiling=120_000 * MS, rto=1000 * MS)


@pytest.mark.rfc("RFC 6298 2.2-1")
def test_first_sample() -> None:
    """SRTT = R, RTTVAR = R/2, RTO = SRTT + max(floor, 4 RTTVAR): 300 + max(200, 600) = 900 ms. RFC 6298 2.2."""
    r = rto()
    r.sample(300 * MS, 0)
    assert (r.srtt, r.rttvar, r.rto) == (300 * MS, 150 * MS, 900 * MS)


@pytest.mark.rfc("RFC 6298 2.3-1")
def test_second_sample() -> None:
    """R' = 380 after 300: RTTVAR = 3/4·150 + 1/4·80 = 132.5; SRTT = 7/8·300 + 1/8·380 = 310; RTO = 310 + 530 = 840 ms.

    RFC 6298 2.3: RTTVAR first, with the old SRTT."""
    r = rto()
    r.sample(300 * MS, 0)
    r.sample(380 * MS, 0)
    assert (r.srtt, r.rttvar, r.rto) == (310 * MS, 132_500_000, 840 * MS)


def test_floor_is_below_the_variance_term() -> None:
    """RTT 1 ms: 1 + max(200, 4·0.5) = 201 ms, so that a 200 ms delayed ACK does not meet it."""
    r = rto()
    r.sample(1 * MS, 0)
    assert r.rto == 201 * MS


@pytest.mark.rfc("RFC 6298 2.5-1", "RFC 6298 5.5-1")
def test_backoff_doubles_to_the_ceiling() -> None:
    """1, 2, 4, ... 64, 120, 120 s. RFC 6298 5.5."""
    r = rto()
    seen = []
    for _ in range(9):
        r.back_off()
        seen.append(r.rto // (1000 * MS))
    assert seen == [2, 4, 8, 16, 32, 64, 120, 120, 120]


def test_a_sample_ends_the_backoff() -> None:
    """RFC 6298 5.7 note: the next measurement computes the RTO anew."""
    r = rto()
    r.sample(100 * MS, 0)
    r.back_off()
    r.back_off()
    r.sample(100 * MS, 0)
    assert r.backoffs == 0 and r.rto == 100 * MS + 4 * 37_500_000 + 50 * MS  # 4·RTTVAR = 150 < floor 200
    assert r.rto == 300 * MS


def sample(acked: int, *, limited: bool = True) -> AckSample:
    """An ACK of `acked` bytes."""
    return AckSample(acked, acked, acked, acked, limited, -1, 0, 0, 0)


@pytest.mark.rfc("RFC 9293 MUST-19", "RFC 5681 3.1-1", "RFC 5681 3.1-10")
def test_slow_start_and_avoidance() -> None:
    """cwnd 10 → 20 by ten segments; above ssthresh one segment a window. RFC 5681 3.1."""
    cc = NewReno()
    cc.start(1000, 10, 0)
    assert (cc.cwnd, cc.ssthresh) == (10_000, INFINITE_SSTHRESH)
    cc.acked(sample(10_000))
    assert cc.cwnd == 20_000
    cc.ssthresh = 20_000
    cc.acked(sample(19_999))
    assert cc.cwnd == 20_000
    cc.acked(sample(1))
    assert cc.cwnd == 21_000


def test_slow_start_ends_at_ssthresh() -> None:
    """What an ACK takes beyond ssthresh counts for congestion avoidance."""
    cc = NewReno()
    cc.start(1000, 10, 0)
    cc.ssthresh = 12_000
    cc.acked(sample(5000))
    assert cc.cwnd == 12_000 and cc.bytes_acked == 3000


def test_one_ack_of_64_kb_in_slow_start() -> None:
    """It opens the window by all of it: no limit of two segments an ACK."""
    cc = NewReno()
    cc.start(1448, 44, 0)
    cc.acked(sample(44 * 1448))
    assert cc.cwnd == 88 * 1448


@pytest.mark.rfc("RFC 5681 3.1-8", "RFC 5681 3.2-10", "RFC 6582 3.2-2")
def test_halving() -> None:
    """Flight of 20 segments: ssthresh 10, cwnd left to recovery; on exit ssthresh. RFC 5681 3.2, RFC 6582 3.2."""
    cc = NewReno()
    cc.start(1000, 20, 0)
    cc.enter_recovery(20_000, 0)
    assert (cc.ssthresh, cc.cwnd) == (10_000, 20_000)
    cc.set_window(13_000)
    cc.exit_recovery(0)
    assert cc.cwnd == 10_000


@pytest.mark.rfc("RFC 5681 3.2-5")
def test_limited_transmit_does_not_count() -> None:
    """Flight of 22 over a cwnd of 20: ssthresh 10. RFC 5681 3.2 step 2. With ECN likewise."""
    for reduce in ("enter_recovery", "congestion_experienced"):
        cc = NewReno()
        cc.start(1000, 20, 0)
        getattr(cc, reduce)(22_000, 0)
        assert cc.ssthresh == 10_000


def test_undo() -> None:
    """Back to cwnd 20 and no ssthresh; a second undo changes nothing. RFC 4015 3.2."""
    cc = NewReno()
    cc.start(1000, 20, 0)
    cc.timeout(20_000, True, 0)
    cc.timeout(1000, False, 0)
    cc.undo(0)
    assert (cc.cwnd, cc.ssthresh) == (20_000, INFINITE_SSTHRESH)
    cc.set_window(5000)
    cc.undo(0)
    assert cc.cwnd == 5000


@pytest.mark.rfc("RFC 5681 3.2-6", "RFC 5681 3.2-7", "RFC 5681 3.2-8", "RFC 6582 3.2-4")
def test_newreno_window() -> None:
    """ssthresh 10: 13 first; from 14 a partial ACK of 3 leaves 12; at the end flight + 1, no more than ssthresh."""
    assert newreno.at_start(10_000, 1000) == 13_000
    assert newreno.after_partial(14_000, 3000, 1000) == 12_000
    assert newreno.after_partial(14_000, 400, 1000) == 13_600  # less than a segment: nothing is added back
    assert newreno.at_exit(10_000, 4000, 1000) == 5000
    assert newreno.at_exit(10_000, 40_000, 1000) == 10_000


@pytest.mark.rfc("RFC 5681 3.1-12", "RFC 5681 3.1-13", "RFC 5681 3.1-14")
def test_timeout_window() -> None:
    """cwnd one segment, ssthresh half of the flight, at least two; unchanged on the second timeout. RFC 5681 3.1."""
    cc = NewReno()
    cc.start(1000, 20, 0)
    cc.timeout(20_000, True, 0)
    assert (cc.cwnd, cc.ssthresh) == (1000, 10_000)
    cc.timeout(1000, False, 0)
    assert cc.ssthresh == 10_000
    cc.timeout(1000, True, 0)
    assert cc.ssthresh == 2000


@pytest.mark.rfc("RFC 5681 3.2-3", "RFC 6582 3.2-1", "RFC 6582 3.2-7")
def test_third_duplicate() -> None:
    """Three prove a loss; after a timeout those at or below `recover` prove nothing; in recovery nothing new."""
    r = Recovery(duplicates=2)
    assert not newreno.third_duplicate(r, 3000)
    r.duplicates = 3
    assert newreno.third_duplicate(r, 3000)
    r.recover = 9000
    assert not newreno.third_duplicate(r, 9000) and newreno.third_duplicate(r, 9001)
    r.state = CaState.LOSS
    assert not newreno.third_duplicate(r, 9001)


@pytest.mark.rfc("RFC 3042 2-3")
def test_allowance() -> None:
    """One segment for each of the first two duplicates, none from the third on."""
    assert [newreno.allowance(Recovery(duplicates=n), 1000) for n in range(4)] == [0, 1000, 2000, 0]
    assert newreno.allowance(Recovery(state=CaState.RECOVERY, duplicates=1), 1000) == 0


# traces


def bulk(segments: int = 10, **how: Any) -> Host:
    """ESTABLISHED with this many segments under way (cwnd is ten, so no more than that); without loss probes."""
    c = established(tlp=False, **how)
    c.write(BYTES[: segments * MSS])
    return c


@pytest.mark.rfc("RFC 6298 5.1-1", "RFC 6298 5.2-1", "RFC 6298 5.4-1", "RFC 5681 3.1-14")
def test_timeout(isn: ISN) -> None:
    """The first segment again after the RTO, alone; with the ACK of all, no more. RFC 6298 5.4, RFC 5681 3.1.

    RTT of the handshake 0: RTO = 0 + 200 ms."""
    c = bulk(**isn)
    c.quiet()
    c.advance(199)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=1, data=BYTES[:MSS])
    c.expect_nothing()
    info = c.row()["info"]  # type: ignore[index]
    assert (info["snd_cwnd"], info["snd_ssthresh"], info["retransmits"]) == (1, 5, 1)
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    c.advance(10_000)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-19", "RFC 6298 5.5-1", "RFC 6298 5.6-1")
def test_timeout_backs_off(isn: ISN) -> None:
    """200, 400, 800, 1600 ms apart: at 0.2, 0.6, 1.4, 3.0 s. RFC 6298 5.5."""
    c = bulk(1, mtu_probing=0, **isn)
    c.quiet()
    start, times = c.now, []
    for _ in range(320):
        c.advance(10)
        if c.segments:
            c.expect("PA", seq=1, len=MSS)
            times.append((c.now - start) // 100_000_000)
    assert times == [2, 6, 14, 30]


@pytest.mark.rfc("RFC 9293 MUST-19", "RFC 5681 3.1-14")
def test_slow_start_after_timeout(isn: ISN) -> None:
    """All under way counts as lost: one segment, then two, then four again. RFC 5681 3.1."""
    c = bulk(**isn)
    c.quiet()
    c.advance(201)
    c.expect("A", seq=1)
    c.inject("A", seq=1, ack=1 + MSS)
    c.expect("A", seq=1 + MSS)
    c.expect("A", seq=1 + 2 * MSS)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 3 * MSS)
    for number in range(3, 7):
        c.expect("A", seq=1 + number * MSS)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-18", "RFC 6298 3-1")
def test_karn(isn: ISN) -> None:
    """Without timestamps a segment sent twice gives no sample, and the doubled RTO stands. RFC 6298 3, 5.5.

    One timeout: 200 → 400 ms. The next segment, sent once, gives RTT 0 again: 200 ms."""
    c = bulk(1, ts=False, mss=1448, **isn)
    before = c.tcb()["rto"]["samples"]
    c.advance(250)
    c.inject("A", seq=1, ack=1 + MSS)
    assert c.tcb()["rto"]["samples"] == before
    assert c.tcb()["rto"]["rto"] // MS == 400
    c.write(b"x")
    c.inject("A", seq=1, ack=2 + MSS)
    assert c.tcb()["rto"]["samples"] == before + 1
    assert c.tcb()["rto"]["rto"] // MS == 200


@pytest.mark.rfc("RFC 6298 3-2")
def test_part_of_a_super_segment_gives_a_sample(isn: ISN) -> None:
    """Its first packets were sent once, at a known time: RFC 6298 3, Linux tcp_clean_rtx_queue. Less than a packet is
    none of them.

    After 150 ms, RTT of the handshake 0, RTTVAR 0: SRTT = 150 / 8, and not again for the bytes of half a packet."""
    c = bulk(ts=False, mss=MSS, gso_max=65_535, **isn)
    c.quiet()
    before = c.tcb()["rto"]["samples"]
    c.advance(150)
    c.inject("A", seq=1, ack=1 + 3 * MSS)
    assert c.tcb()["rto"]["samples"] == before + 1
    assert c.tcb()["rto"]["srtt"] == 150 * MS // 8
    c.inject("A", seq=1, ack=1 + 3 * MSS + MSS // 2)
    assert c.tcb()["rto"]["samples"] == before + 1


@pytest.mark.rfc("RFC 6298 3-1")
def test_rttm_by_timestamps(isn: ISN) -> None:
    """With timestamps it does: the echo names the transmission. RFC 7323 4.1.

    The repeat goes out at 200 ms and is acknowledged 30 ms later: sample 30 ms."""
    c = bulk(1, **isn)
    c.quiet()
    before = c.tcb()["rto"]["samples"]
    c.advance(201)
    c.expect("PA", seq=1)
    c.advance(30)
    c.inject("A", seq=1, ack=1 + MSS)
    tcb = c.tcb()["rto"]
    assert tcb["samples"] == before + 1
    assert tcb["srtt"] in range(30 * MS // 8, 32 * MS // 8)  # 0·7/8 + 30 or 31/8


@pytest.mark.rfc("RFC 6582 3.2", "RFC 5681 3.2-3", "RFC 5681 3.2-7", "RFC 3042 2-1")
def test_fast_retransmit_without_sack(isn: ISN) -> None:
    """The same by bare duplicates. ssthresh 5, cwnd 8, and one more for a fourth; 12 are out, so nothing new goes."""
    c = bulk(30, sack=False, **isn)
    c.quiet()
    c.inject("A", seq=1, ack=1)
    c.expect("A", seq=1 + 10 * MSS)
    c.inject("A", seq=1, ack=1)
    c.expect("A", seq=1 + 11 * MSS)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1)
    c.expect("A", seq=1, len=MSS)
    c.expect_nothing()
    info = c.row()["info"]  # type: ignore[index]
    assert (info["snd_ssthresh"], info["snd_cwnd"], info["ca_state"], info["sacked"]) == (5, 8, 3, 3)
    for _ in range(4):  # cwnd 12: as many as are out
        c.inject("A", seq=1, ack=1)
        c.expect_nothing()
    c.inject("A", seq=1, ack=1)
    c.expect("A", seq=1 + 12 * MSS)
    c.inject("A", seq=1, ack=1 + 4 * MSS)  # a partial ACK: 13 - 4 + 1 = 10; the next hole goes at once
    c.expect("A", seq=1 + 4 * MSS, len=MSS)
    c.expect("A", seq=1 + 13 * MSS)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 12 * MSS)  # all that was out when the loss was found: 2 in flight, so cwnd 3
    info = c.row()["info"]  # type: ignore[index]
    assert (info["snd_cwnd"], info["ca_state"]) == (3, 0)
    assert not c.core.counters["rto_timeouts"]


@pytest.mark.rfc("RFC 6582 3.2-3", "RFC 6582 3.2-5")
def test_recovery_with_a_partial_ack(isn: ISN) -> None:
    """Two holes: the partial ACK resends the second at once; the full ACK ends recovery. RFC 6582 3.2."""
    c = bulk(10, **isn)
    c.quiet()
    for edge in (3, 4, 5):
        c.inject("A", seq=1, ack=1, sack=[(1 + 2 * MSS, 1 + edge * MSS)])
    c.expect("A", seq=1, len=MSS)
    c.inject("A", seq=1, ack=1 + MSS, sack=[(1 + 2 * MSS, 1 + 10 * MSS)])
    c.expect("A", seq=1 + MSS, len=MSS)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    info = c.row()["info"]  # type: ignore[index]
    assert info["ca_state"] == 0
    assert c.core.counters["retransmissions"] == 2 and not c.core.counters["rto_timeouts"]


def test_only_the_lost_piece_of_a_super_segment_is_sent_again(isn: ISN) -> None:
    """One packet, not 64 KB."""
    c = established(gso_max=65_535, **isn)
    c.write(BYTES[: 10 * MSS])
    c.expect("PA", len=10 * MSS)
    for edge in (3, 4, 5):
        c.inject("A", seq=1, ack=1, sack=[(1 + 2 * MSS, 1 + edge * MSS)])
    c.expect("A", seq=1, len=MSS, gso=0)
    c.expect_nothing()


@pytest.mark.parametrize(
    ("changes", "counts"),
    [({}, True), ({"win": 500}, False), ({"data": b"x"}, False), ({"win": 500, "sack": [(1449, 2897)]}, True)],
)
def test_what_counts_as_a_duplicate(isn: ISN, changes: dict[str, Any], counts: bool) -> None:
    """No text, no change of window, or SACK blocks above SND.UNA. RFC 5681 2, RFC 6675 2."""
    c = bulk(**isn)
    c.inject("A", seq=1, ack=1, **changes)
    assert (c.core.counters["duplicate_acks_in"] == 1) is counts


def test_given_up_with_etimedout() -> None:
    """After `retries` repeats the next timeout ends it."""
    c = bulk(1, retries=2)
    c.quiet()
    c.advance(10_000)
    c.expect("PA")
    c.expect("PA")
    c.expect_nothing()
    assert c.find_message(Reset).errno == errno.ETIMEDOUT
    assert c.row() is None


def test_user_timeout() -> None:
    """TCP_USER_TIMEOUT 1000: given up once a further wait would pass it. Linux tcp_user_timeout."""
    c = bulk(1)
    c.call(SetOption(c.sock, "user_timeout_ms", 1000))
    c.quiet()
    c.advance(1500)
    assert c.find_message(Reset).errno == errno.ETIMEDOUT


def test_an_icmp_error_is_what_a_timeout_says() -> None:
    """Soft errors are remembered: EHOSTUNREACH in place of ETIMEDOUT. RFC 1122 4.2.3.9, RFC 5927 5.2."""
    c = bulk(1, retries=2)
    c.icmp(3, 1, seq=1)
    c.advance(10_000)
    assert c.find_message(Reset).errno == errno.EHOSTUNREACH


def test_a_lost_fin_is_sent_again(isn: ISN) -> None:
    """It takes a sequence number as text does."""
    c = established(**isn)
    c.shut()
    c.expect("FA", seq=1)
    c.advance(201)
    c.expect("FA", seq=1)
    c.inject("A", seq=1, ack=2)
    c.advance(5000)
    c.expect_nothing()
    assert c.state == "FIN_WAIT_2"


def test_text_and_fin_are_sent_again_together(isn: ISN) -> None:
    """As they were sent: two segments, both within the loss window of one full segment."""
    c = established(tlp=False, **isn)
    c.write(b"last")
    c.shut()
    c.quiet()
    c.advance(201)
    c.expect("PA", seq=1, data=b"last")
    c.expect("FA", seq=5)


def test_a_strategy_survives_a_snapshot() -> None:
    """Fields and name; the core goes on with the one it had."""
    c = bulk()
    c.inject("A", seq=1, ack=1 + 3 * MSS)
    data = c.core.snapshot()
    again = TcpCore.restore(c.config, data)
    assert again.snapshot() == data
    kept = data["connections"][0]["congestion"]
    assert kept["name"] == "newreno" and kept["cwnd"] == 13 * MSS


def test_strategies_by_name() -> None:
    """A fresh one each time; a name that is not in the table is the caller's fault."""
    assert make("newreno") == NewReno() and make("newreno") is not make("newreno")
    assert all(kind.name == name and isinstance(kind(), Strategy) for name, kind in STRATEGIES.items())
    with pytest.raises(NoStrategy):
        make("vegas")
