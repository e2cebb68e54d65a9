"""Loss found by time: RACK (RFC 8985 6), its timer, and tail loss probes (RFC 8985 7); the window by PRR (RFC 9937).

The path has an RTT of 100 ms: SRTT 100, min RTT 100, RTO 300 ms; reo_wnd is 100 / 4 = 25 ms; PTO 2·100 + 2 = 202 ms.
`M` is a full segment; segment n holds the bytes from (n - 1) M on.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Host, far

from layers.tcp import timeouts
from layers.tcp.recovery.prr import Prr
from layers.tcp.recovery.rack import Rack
from layers.tcp.recovery.state import CaState
from layers.tcp.timers import LOSS_PROBE, REORDER, RETRANSMIT
from levelip.frames.seam import SetOption
from tests.netsim.net import MS

ISN = dict[str, Any]
M = MSS
BYTES = bytes(range(256)) * 600


def at(segment: int) -> int:
    """The relative sequence number at which a segment starts, counted from 1."""
    return 1 + (segment - 1) * M


def block(first: int, last: int) -> tuple[int, int]:
    """The SACK block of these segments."""
    return at(first), at(last + 1)


def flight(segments: int = 10, **how: Any) -> Host:
    """Ten at most are out (cwnd); then a round trip passes."""
    c = far(**how)
    c.write(BYTES[: segments * M])
    for number in range(min(segments, 10)):
        c.expect("PA" if number == segments - 1 else "A", seq=at(number + 1))
    c.expect_nothing()
    c.advance(100)
    return c


def sack(c: Host, *blocks: tuple[int, int], ack: int = 1) -> None:
    """An ACK of all below segment `ack` with blocks."""
    c.inject("A", seq=1, ack=at(ack), sack=list(blocks))


def info(c: Host) -> dict[str, Any]:
    """TCP_INFO."""
    row = c.row()
    assert row is not None
    return dict(row["info"])


# the calculators alone


@pytest.mark.rfc("RFC 8985 6.2-2")
def test_the_latest_that_arrived() -> None:
    """By time sent, then by its end; of something older, the round trip. Step 2."""
    r = Rack()
    assert r.update(100, 2000, 180) and (r.sent_at, r.end, r.rtt) == (100, 2000, 80)
    assert not r.update(90, 9000, 200) and not r.update(100, 1000, 200)
    assert (r.sent_at, r.end, r.rtt) == (100, 2000, 100)
    assert r.update(100, 3000, 190) and (r.end, r.rtt) == (3000, 90)


@pytest.mark.rfc("RFC 8985 6.2-5", "RFC 8985 6.2-6", "RFC 8985 6.2-7")
def test_reordering_window() -> None:
    """None with three named or in recovery, until reordering was seen; else mult times min RTT / 4, up to SRTT."""
    r = Rack()
    assert r.window(CaState.DISORDER, 2, 100, 120) == 25
    assert r.window(CaState.DISORDER, 3, 100, 120) == 0
    assert r.window(CaState.RECOVERY, 0, 100, 120) == 0 == r.window(CaState.LOSS, 0, 100, 120)
    r.overtaken(5)
    assert r.window(CaState.RECOVERY, 9, 100, 120) == 25 and r.reordering == 5
    r.mult = 3
    assert r.window(CaState.OPEN, 0, 100, 120) == 75
    r.mult = 9
    assert r.window(CaState.OPEN, 0, 100, 120) == 120


@pytest.mark.rfc("RFC 8985 6.2-8", "RFC 8985 6.2-9")
def test_dsacks_widen_the_window() -> None:
    """By a quarter of min RTT, once a round trip; after 16 recoveries without one it is narrow again. Step 4."""
    r = Rack()
    r.dsack(1000, 5000)
    r.dsack(2000, 6000)
    assert r.mult == 2
    r.dsack(5000, 9000)
    assert (r.mult, r.dsack_round) == (3, 9000)
    for _ in range(15):
        r.recovered()
    assert r.mult == 3
    r.recovered()
    assert r.mult == 1


@pytest.mark.rfc("RFC 9937 6.2-2", "RFC 9937 6.2-5")
def test_proportional_reduction() -> None:
    """RecoverFS 10, ssthresh 5, in thousands: one goes out at once, then one for every two that arrive."""
    p = Prr()
    p.start(10_000)
    assert p.window(1000, False, 9000, 5000, 1000) == 10_000  # ceil(1·5/10) = 500: less than the first, forced one
    p.out += 1000
    assert p.window(1000, False, 9000, 5000, 1000) == 9000  # 2·5/10 - 1 = 0
    assert p.window(1000, False, 8000, 5000, 1000) == 8500  # 3·5/10 - 1 = 0.5
    assert p.window(1000, False, 7000, 5000, 1000) == 8000  # 4·5/10 - 1 = 1


@pytest.mark.rfc("RFC 9937 6.2-3")
def test_bounds_below_ssthresh() -> None:
    """In flight 2 of ssthresh 5: as much as arrives; a segment more where SND.UNA moved and nothing new was lost."""
    p = Prr(delivered=6000, out=6000, recover_fs=10_000)
    assert p.window(1000, False, 2000, 5000, 1000) == 3000
    p.out += 1000
    assert p.window(1000, True, 2000, 5000, 1000) == 4000
    assert p.window(9000, True, 2000, 5000, 1000) == 5000  # never beyond ssthresh


# RACK in a connection


@pytest.mark.rfc(
    "RFC 9937 6", "RFC 8985 6.2-5", "RFC 6675 5-1", "RFC 6675 5-4", "RFC 6675 4-1", "RFC 3042 2-1", "RFC 2018 5-1",
)  # fmt: skip
def test_three_beyond_the_hole(isn: ISN) -> None:
    """The third that SACK names: lost at once. The first two let one new segment go each (they have left the pipe).

    cwnd 10: ssthresh 5. Out 12, named 3, lost 1: in flight 8, and PRR forces one: cwnd 9."""
    c = flight(20, **isn)
    sack(c, block(2, 2))
    c.expect("A", seq=at(11))
    sack(c, block(2, 3))
    c.expect("A", seq=at(12))
    c.expect_nothing()
    assert info(c)["ca_state"] == CaState.DISORDER
    sack(c, block(2, 4))
    c.expect("A", seq=at(1), len=M)
    c.expect_nothing()
    now = info(c)
    assert (now["snd_ssthresh"], now["snd_cwnd"], now["ca_state"]) == (5, 9, CaState.RECOVERY)
    assert (now["sacked"], now["lost"], now["retrans"], now["unacked"]) == (3, 1, 1, 12)
    assert c.core.counters["fast_retransmits"] == 1 and c.core.counters["lost_bytes"] == M


@pytest.mark.rfc(
    "RFC 9937 6.1-1", "RFC 9937 6.2-1", "RFC 9937 6.3-1", "RFC 9937 6.4-1", "RFC 9937 5-1", "RFC 6675 5-6",
    "RFC 6675 5-2", "RFC 6675 5-3", "RFC 6675 5-5", "RFC 5681 4.3-1", "RFC 5681 4.3-2", "RFC 2018 5.1-1",
)  # fmt: skip
def test_recovery_to_its_end(isn: ISN) -> None:
    """Ten out, the first lost. SACKs of 5 to 10: PRR sends one for two while more than 5 are in flight, later one for
    one. The ACK of all ends it: cwnd = ssthresh = 5."""
    c = flight(40, **isn)
    sack(c, block(2, 4))  # three at once: RecoverFS 10, delivered 3: ceil(15/10) = 1.5, no more than one segment goes
    c.expect("A", seq=at(1))
    c.expect_nothing()
    out = []
    for last in range(5, 11):
        sack(c, block(2, last))
        out.append(len(c.segments))
        c.segments.clear()
    # delivered 4, in flight 6: 4/2 - 1 out = 1; 5, 6: 5/2 - 2 = 0.5; 6, 5 = ssthresh: 0; then in flight 4: one for one
    assert out == [1, 0, 0, 1, 1, 1]
    c.inject("A", seq=1, ack=at(11))
    now = info(c)
    assert (now["ca_state"], now["snd_cwnd"], now["sacked"], now["lost"]) == (CaState.OPEN, 5, 0, 0)
    assert c.core.counters["retransmissions"] == 1 and not c.core.counters["rto_timeouts"]


@pytest.mark.rfc(
    "RFC 8985 6.2-11", "RFC 8985 6.2-6", "RFC 8985 6.2-1", "RFC 8985 6.2-10", "RFC 8985 4-2", "RFC 8985 6.1-1",
)  # fmt: skip
def test_the_reordering_timer(isn: ISN) -> None:
    """One segment named is no proof: after reo_wnd of 25 ms it is."""
    c = flight(**isn)
    sack(c, block(2, 2))
    c.advance(24)
    c.expect_nothing()
    assert "reorder" in c.row()["timers"]  # type: ignore[index]
    c.advance(2)
    c.expect("A", seq=at(1), len=M)
    c.expect_nothing()
    assert info(c)["ca_state"] == CaState.RECOVERY
    assert c.tcb()["deadlines"][REORDER] == -1


@pytest.mark.rfc("RFC 8985 6.2-4")
def test_reordering_is_learned(isn: ISN) -> None:
    """Segment 1 arrives after 2: from now on three named are no proof, only time is. Steps 3 and 4."""
    c = flight(**isn)
    sack(c, block(2, 2))
    c.inject("A", seq=1, ack=at(3))
    c.expect_nothing()
    now = info(c)
    assert (now["reord_seen"], now["ca_state"]) == (1, CaState.OPEN)
    sack(c, block(4, 7), ack=3)
    c.expect_nothing()
    c.advance(24)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=at(3), len=M)


@pytest.mark.rfc("RFC 8985 6.2-2", "RFC 8985 6.2-10")
def test_what_was_overtaken_tells_of_a_longer_round_trip(isn: ISN) -> None:
    """Segments 1 to 3 go at 0, 4 to 6 at 20 ms. 4 arrives at 120, after 100 ms: 1 to 3 have until 0 + 100 + 25. But 1
    arrives at 122: it took 122 ms, and so may 2 and 3, which have until 122 + 25 then."""
    c = far(**isn)
    c.write(BYTES[: 3 * M])
    c.advance(20)
    c.write(BYTES[: 3 * M])
    c.quiet()
    c.advance(100)
    sack(c, block(4, 4))
    c.advance(2)
    sack(c, block(4, 4), ack=2)
    rack = c.tcb()["rack"]
    assert (rack["rtt"], c.now - rack["sent_at"]) == (122 * MS, 102 * MS)
    c.advance(24)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=at(2), len=M)


@pytest.mark.rfc("RFC 8985 6.2-2")
@pytest.mark.parametrize(("later", "known"), [(0, False), (1, True)])
def test_the_round_trip_of_an_ordinary_ack(isn: ISN, later: int, known: bool) -> None:
    """It is RACK's, also where something sent later is known to have arrived."""
    c = flight(2, **isn)
    rack = c.parts()[1].rack
    sent_at = c.now - 100 * MS
    rack.sent_at, rack.end = sent_at + later, 7
    c.advance(5)
    c.inject("A", seq=1, ack=at(3))
    assert rack.rtt == 105 * MS
    assert (rack.sent_at, rack.end) == ((sent_at + 1, 7) if known else (sent_at, 2 * M))


@pytest.mark.rfc("RFC 8985 3.2", "RFC 8985 6.2-12", "RFC 8985 5.2-1")
def test_a_retransmission_lost_again(isn: ISN) -> None:
    """What was sent after it arrives: no timeout is needed to send it a third time."""
    c = flight(40, **isn)
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))  # at 100 ms; lost again
    c.advance(1)
    sack(c, block(2, 7))
    c.expect("A", seq=at(11))  # at 101 ms: in flight 4, ssthresh 5
    c.advance(100)
    sack(c, block(2, 7), block(11, 11))
    c.expect("A", seq=at(1), len=M)
    assert c.core.counters["lost_retransmissions"] == 1
    assert not c.core.counters["rto_timeouts"] and c.core.counters["fast_retransmits"] == 1


@pytest.mark.rfc("RFC 8985 6.2-2", "RFC 8985 6.2-5")
def test_a_repeat_behind_new_data_of_the_same_instant(isn: ISN) -> None:
    """Three SACKs come together: 11 and 12 go, and 1 again, all at one `now`. 11 and 12 arrive first, as they were sent
    first: that proves nothing of the repeat. But what goes behind it proves it lost."""
    c = flight(40, **isn)
    for last in (2, 3, 4):
        c.inject("A", seq=1, ack=1, sack=[block(2, last)], flush=False)
    c.flush()
    for segment in (11, 12, 1):
        c.expect("A", seq=at(segment), len=M)
    sack(c, block(2, 9))  # in flight 4, ssthresh 5
    c.expect("A", seq=at(13))
    c.advance(100)
    sack(c, block(2, 12))
    assert not c.core.counters["lost_retransmissions"]
    sack(c, block(2, 13))
    assert c.core.counters["lost_retransmissions"] == 1


@pytest.mark.rfc("RFC 8985 6.2-3")
def test_ambiguous_acks_are_no_clock(isn: ISN) -> None:
    """An ACK of a retransmission that echoes a stamp from before it, or comes within min RTT, does not move RACK."""
    c = flight(40, **isn)
    sent_at = c.tcb()["tx"]["queue"][0]["sent_at"]
    stamp = c.last_tsval
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))
    c.last_tsval = stamp
    c.advance(5)
    c.inject("A", seq=1, ack=at(5))
    assert c.tcb()["rack"]["sent_at"] == sent_at


@pytest.mark.rfc("RFC 2018 8-1", "RFC 6675 5.1-2")
def test_reneging(isn: ISN) -> None:
    """The ACK stops where the peer had named more: after 10 ms nothing of what it named counts, and all goes again."""
    c = flight(**isn)
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))
    c.inject("A", seq=1, ack=at(2))
    c.expect_nothing()
    c.advance(9)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=at(2), len=M)
    assert c.core.counters["sack_reneging"] == 1
    now = info(c)
    assert (now["sacked"], now["ca_state"]) == (0, CaState.LOSS)
    c.inject("A", seq=1, ack=at(11))
    assert info(c)["ca_state"] == CaState.OPEN


@pytest.mark.rfc(
    "RFC 5681 3.1", "RFC 6298 5.4", "RFC 2018 5-3", "RFC 2018 5.1-2", "RFC 6675 5.1-2",
)  # fmt: skip
def test_timeout_with_sack(isn: ISN) -> None:
    """What was named stays so; the head is lost, and all but what was sent just now. RTO 300 ms after the last ACK."""
    c = flight(tlp=False, **isn)
    sack(c, block(3, 3))
    c.expect_nothing()
    c.advance(20)
    c.write(BYTES[:M])  # segment 11, at 120 ms: in the place of the one named
    c.expect("PA", seq=at(11))
    c.advance(6)
    c.expect("A", seq=at(1))  # 126 ms: reo_wnd is over
    c.advance(200)
    c.expect_nothing()
    c.advance(101)  # the timer counts from the head's repeat
    c.expect("A", seq=at(1))
    now = info(c)
    assert (now["ca_state"], now["sacked"], now["retransmits"]) == (CaState.LOSS, 1, 1)
    c.inject("A", seq=1, ack=at(12))
    assert info(c)["ca_state"] == CaState.OPEN


@pytest.mark.rfc("RFC 2018 3")
def test_blocks_that_make_no_sense(isn: ISN) -> None:
    """Beyond SND.NXT, empty, from the end to the start, or across SND.UNA: counted, and nothing changes."""
    c = flight(**isn)
    for bad in [(at(12), at(14)), (at(3), at(3)), (at(4), at(3)), (at(1), at(3))]:
        before = c.dropped("tcp_sack_invalid")
        sack(c, bad)
        assert c.dropped("tcp_sack_invalid") == before + 1, bad
        assert info(c)["sacked"] == 0
    c.inject("A", seq=1, ack=at(3))
    sack(c, block(4, 4), block(1, 2), ack=3)  # an old block of an ACK that was overtaken says nothing
    assert c.dropped("tcp_sack_invalid") == 4 and info(c)["sacked"] == 1


def test_super_segments_are_split_where_it_matters(isn: ISN) -> None:
    """Of one segment of ten packets SACK names 3 to 5: the first two go again, alone; 6 to 10 stay one entry."""
    c = far(gso_max=65_535, **isn)
    c.write(BYTES[: 10 * M])
    c.expect("PA", len=10 * M)
    c.advance(100)
    sack(c, block(3, 5))
    c.expect("A", seq=at(1), len=M)
    rows = c.tcb()["tx"]["queue"]
    assert [(row["start"] // M, row["end"] // M, row["packets"]) for row in rows] == [
        (0, 1, 1), (1, 2, 1), (2, 5, 3), (5, 10, 5),
    ]  # fmt: skip
    assert [(row["lost"], row["sacked"]) for row in rows] == [
        (False, False), (True, False), (False, True), (False, False),
    ]  # fmt: skip


@pytest.mark.rfc("RFC 8985 6.2")
def test_half_a_super_segment_is_no_clock(isn: ISN) -> None:
    """An ACK of some packets of it: RACK's RTT stays that of the last segment acknowledged whole."""
    c = far(gso_max=65_535, **isn)
    c.write(BYTES[: 12 * M])
    c.expect("PA", len=10 * M)
    c.advance(100)
    c.inject("A", seq=1, ack=at(5))
    c.expect("PA", seq=at(11))
    assert c.tcb()["rack"]["sent_at"] == -1
    c.advance(10)
    c.inject("A", seq=1, ack=at(11))
    assert c.tcb()["rack"]["rtt"] == 110 * MS
    c.advance(50)
    c.inject("A", seq=1, ack=at(12))
    assert c.tcb()["rack"]["rtt"] == 110 * MS


def test_named_neighbours_are_one_entry(isn: ISN) -> None:
    """However many ACKs name them, one by one and in any order."""
    c = flight(**isn)
    for number in (9, 3, 7, 5, 8, 4, 6):
        sack(c, block(number, number))
    rows = c.tcb()["tx"]["queue"]
    assert [row["packets"] for row in rows if row["sacked"]] == [7]
    assert c.tcb()["tx"]["sacked_packets"] == 7


def test_a_partial_block_names_no_packet(isn: ISN) -> None:
    """Half a packet named is not named: entries never get smaller than packets."""
    c = flight(**isn)
    sack(c, (at(3) + 100, at(5) - 1))
    assert info(c)["sacked"] == 0
    sack(c, (at(3) + 100, at(5)))
    assert info(c)["sacked"] == 1 and len(c.tcb()["tx"]["queue"]) == 10


def test_a_fin_in_the_scoreboard(isn: ISN) -> None:
    """Text and FIN in one packet: whoever names its text has its FIN too."""
    c = far(**isn)
    c.write(BYTES[: 3 * M])
    c.shut()
    c.quiet()
    c.advance(100)
    sack(c, block(2, 3))
    assert info(c)["sacked"] == 2
    c.advance(26)
    c.expect("A", seq=at(1))
    c.expect_nothing()
    c.inject("A", seq=1, ack=at(4) + 1)
    assert c.state == "FIN_WAIT_2"


# tail loss probes


@pytest.mark.rfc("RFC 8985 7.2-1", "RFC 8985 7.2-2", "RFC 8985 7.3-1", "RFC 8985 7.3-3")
def test_tail_probe(isn: ISN) -> None:
    """No ACK for 202 ms: the last segment once more, before the RTO of 300 ms, which then counts from here."""
    c = far(**isn)
    c.write(BYTES[: 3 * M])
    c.quiet()
    c.advance(201)
    c.expect_nothing()
    c.advance(2)
    c.expect("PA", seq=at(3), len=M)
    c.advance(298)
    c.expect_nothing()
    c.advance(3)  # 202 + 300
    c.expect("A", seq=at(1))
    assert c.core.counters["loss_probes"] == 1 and c.core.counters["rto_timeouts"] == 1


@pytest.mark.rfc("RFC 8985 7.2-2", "RFC 8985 7.2-3")
def test_a_lone_segment_waits_for_a_delayed_ack(isn: ISN) -> None:
    """2·100 + 200 ms is beyond the RTO of 300, so the probe goes then, and the RTO fires 300 ms later."""
    c = far(**isn)
    c.write(b"x")
    c.quiet()
    c.advance(299)
    c.expect_nothing()
    c.advance(2)
    c.expect("PA", seq=1, data=b"x")
    assert info(c)["retransmits"] == 0 and c.core.counters["loss_probes"] == 1
    c.advance(300)
    c.expect("PA", seq=1, data=b"x")
    assert info(c)["retransmits"] == 1 and c.core.counters["loss_probes"] == 1


@pytest.mark.rfc("RFC 8985 7.3-1")
def test_a_probe_is_new_data_where_there_is_some(isn: ISN) -> None:
    """cwnd of ten is out: the eleventh goes, beyond cwnd."""
    c = far(**isn)
    c.write(BYTES[: 20 * M])
    c.quiet()
    c.advance(203)
    c.expect("A", seq=at(11), len=M)
    c.expect_nothing()
    assert not c.core.counters["retransmissions"]


@pytest.mark.rfc("RFC 8985 7.3")
def test_a_probe_is_the_last_packet_of_a_super_segment(isn: ISN) -> None:
    """Not all 14 KB of it."""
    c = far(gso_max=65_535, **isn)
    c.write(BYTES[: 10 * M])
    c.quiet()
    c.advance(203)
    c.expect("PA", seq=at(10), len=M, gso=0)
    c.expect_nothing()


@pytest.mark.rfc("RFC 8985 7.1")
def test_a_probe_wakes_recovery(isn: ISN) -> None:
    """The last two of four are lost. The probe's SACK shows the hole: repaired without a timeout."""
    c = far(**isn)
    c.write(BYTES[: 4 * M])
    c.quiet()
    c.advance(100)
    c.inject("A", seq=1, ack=at(3))
    c.advance(203)
    c.expect("PA", seq=at(4))
    c.advance(100)
    sack(c, block(4, 4), ack=3)
    c.expect("A", seq=at(3), len=M)
    c.advance(100)
    c.inject("A", seq=1, ack=at(5))
    assert info(c)["ca_state"] == CaState.OPEN
    assert not c.core.counters["rto_timeouts"]


@pytest.mark.rfc("RFC 8985 7.4", "RFC 8985 7.4.2-2", "RFC 8985 7.4.2-2")
def test_a_probe_that_repaired_a_loss(isn: ISN) -> None:
    """No D-SACK came with the ACK of the probe, and later data is acknowledged: the loss counts as any other.

    cwnd 10 grows no more than by what is acknowledged; ssthresh = max(flight / 2, 2) = 2 segments."""
    c = far(**isn)
    c.write(BYTES[: 2 * M])
    c.quiet()
    c.advance(100)
    c.inject("A", seq=1, ack=at(2))
    c.advance(401)
    c.expect("PA", seq=at(2))
    c.advance(100)
    c.inject("A", seq=1, ack=at(3))
    assert c.tcb()["recovery"]["probe_end"] == 2 * M
    c.write(b"more")
    c.expect("PA", data=b"more")
    c.advance(100)
    c.inject("A", seq=1, ack=at(3) + 4)
    assert c.core.counters["loss_probe_recoveries"] == 1
    assert (info(c)["snd_ssthresh"], info(c)["snd_cwnd"]) == (2, 2)
    assert c.tcb()["recovery"]["probe_end"] == -1


@pytest.mark.rfc("RFC 8985 7.4", "RFC 2883 4", "RFC 8985 7.4.2-2", "RFC 2883 5-1")
def test_a_probe_for_nothing(isn: ISN) -> None:
    """The peer has it twice, and says so: nothing was lost, nothing is reduced, and reo_wnd stays."""
    c = far(**isn)
    c.write(BYTES[: 2 * M])
    c.quiet()
    c.advance(203)
    c.expect("PA", seq=at(2))
    c.inject("A", seq=1, ack=at(3))
    sack(c, block(2, 2), ack=3)
    tcb = c.tcb()
    assert tcb["recovery"]["probe_end"] == -1 and tcb["rack"]["mult"] == 1
    assert info(c)["dsack_dups"] == 1 and info(c)["snd_cwnd"] >= 10
    c.write(b"more")
    c.inject("A", seq=1, ack=at(3) + 4)
    assert not c.core.counters["loss_probe_recoveries"]


@pytest.mark.rfc("RFC 8985 4-1", "RFC 8985 7.2-1")
@pytest.mark.parametrize("how", [{"sack": False}, {"tlp": False}])
def test_no_probe(how: dict[str, Any]) -> None:
    """Without the peer's SACK, or where it is switched off."""
    c = far(**how)
    c.write(BYTES[: 3 * M])
    c.quiet()
    assert c.tcb()["deadlines"][LOSS_PROBE] == -1 < c.tcb()["deadlines"][RETRANSMIT]
    c.advance(299)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=at(1))


@pytest.mark.rfc("RFC 8985 7.3", "RFC 9293 MUST-34")
def test_no_probe_beyond_a_window_that_shrank(isn: ISN) -> None:
    """The timer is not put off for a probe that cannot go: RTO at 300 ms, though the peer says something meanwhile."""
    c = far(wscale=None, **isn)
    c.write(BYTES[: 5 * M])
    c.quiet()
    c.inject("A", seq=1, ack=1, win=2 * M)
    c.advance(299)
    c.expect_nothing()
    c.advance(2)
    c.expect("A", seq=at(1), len=M)
    assert not c.core.counters["loss_probes"] and c.core.counters["rto_timeouts"] == 1


@pytest.mark.rfc("RFC 8985 7.3-2")
def test_one_probe_a_flight(isn: ISN) -> None:
    """While one is under way no other is armed; then the timer's turn."""
    c = far(**isn)
    c.write(BYTES[: 3 * M])
    c.quiet()
    c.advance(203)
    c.expect("PA", seq=at(3))
    assert c.tcb()["deadlines"][LOSS_PROBE] == -1
    assert c.tcb()["deadlines"][RETRANSMIT] == c.now - MS + 300 * MS


@pytest.mark.rfc("RFC 8985 7.3-4")
def test_no_probe_before_an_rtt_was_measured_since_the_last(isn: ISN) -> None:
    """Without timestamps the ACK of what the probe repeated measures nothing (Karn): the next flight's end waits for
    the retransmission timer. Its ACK measures, and a probe may go again."""
    c = far(ts=False, **isn)
    m = M + 12  # where the timestamps would be
    c.write(BYTES[: 2 * m])
    c.quiet()
    c.advance(203)
    c.expect("PA", seq=1 + m)
    c.inject("A", seq=1, ack=1 + 2 * m)
    c.inject("A", seq=1, ack=1 + 2 * m, sack=[(1 + m, 1 + 2 * m)])
    assert c.tcb()["recovery"]["probe_end"] == -1
    c.write(BYTES[: 2 * m])
    c.quiet()
    c.advance(299)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1 + 4 * m)
    c.write(BYTES[: 2 * m])
    c.quiet()
    c.advance(500)
    c.expect("PA", seq=1 + 5 * m)
    assert c.core.counters["loss_probes"] == 2 and not c.core.counters["rto_timeouts"]


@pytest.mark.rfc("RFC 8985 8-1")
@pytest.mark.parametrize("arrives", [False, True])
def test_the_retransmission_timer_waits_for_the_reordering_timer(isn: ISN, arrives: bool) -> None:
    """RTT 400, RTO 600, and after some D-SACKs a reo_wnd of SRTT: segment 1 may arrive until 0 + 400 + 400 ms. At 600
    there is no timeout; at 800 it is lost, if it did not arrive."""
    c = far(400, **isn)
    _, conn = c.parts()
    conn.rack.mult, conn.rto.rto = 8, 600 * MS
    c.write(BYTES[: 3 * M])
    c.quiet()
    c.advance(400)
    sack(c, block(2, 2))
    c.advance(399)
    c.expect_nothing()
    if arrives:
        c.inject("A", seq=1, ack=at(3))
        c.advance(2)
        c.expect_nothing()
    else:
        c.advance(2)
        c.expect("A", seq=at(1), len=M)
        assert info(c)["ca_state"] == CaState.RECOVERY
    assert not c.core.counters["rto_timeouts"]


@pytest.mark.rfc("RFC 8985 8-1")
@pytest.mark.parametrize(
    ("sent_before", "reorder", "waits", "retransmit", "then"),
    [
        (0, 50, True, 50, 50),  # RACK's time is to come
        (130, 0, True, 300, -1),  # it is now: lost, and the timer counts anew
        (110, 0, True, 15, 15),  # it was thought to be now, and is to come
        (130, -1, False, -1, -1),
    ],
)
def test_both_timers_at_an_instant(
    isn: ISN, sent_before: int, reorder: int, waits: bool, retransmit: int, then: int
) -> None:
    """RACK first. ms from now; -1: off. reo_wnd 25 ms, RTT 100 ms."""
    c = flight(3, **isn)
    sack(c, block(2, 2))
    ctx, conn = c.parts()
    now = c.now
    conn.tx.queue[0].sent_at = now - sent_before * MS
    conn.deadlines[RETRANSMIT] = -1
    conn.deadlines[REORDER] = now + reorder * MS
    if not waits:
        conn.tx.queue[0].sent_at = conn.rack.sent_at + 1  # sent after what has arrived: RACK knows nothing of it
        conn.deadlines[REORDER] = now
    assert timeouts._overtaken(ctx, conn, now) is waits
    assert conn.deadlines[RETRANSMIT] == (now + retransmit * MS if retransmit >= 0 else -1)
    assert conn.deadlines[REORDER] == (now + then * MS if then >= 0 else -1)


@pytest.mark.rfc("RFC 9293 3.8.3")
def test_a_probe_counts_for_the_users_patience(isn: ISN) -> None:
    """User timeout 1500 ms, a lone segment: the probe at 300 ms, timeouts at 600 and 1200; the end 1500 ms after it was
    sent first, not after the probe."""
    c = far(**isn)
    c.call(SetOption(c.sock, "user_timeout_ms", 1500))
    c.write(b"x")
    c.quiet()
    c.advance(1498)
    assert c.state == "ESTABLISHED"
    assert len(c.segments) == 3 and c.core.counters["loss_probes"] == 1
    c.advance(4)
    assert c.state == "CLOSED"
