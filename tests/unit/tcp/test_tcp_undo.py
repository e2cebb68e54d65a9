"""Reductions for nothing are undone: Eifel by timestamps (RFC 3522, 4015), D-SACK (RFC 2883, 3708), F-RTO (RFC 5682).

RTT 100 ms, RTO 300 ms, as in test_tcp_rack; cwnd 10 at first.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Host
from test_tcp_rack import M, at, block, flight, info, sack

from layers.tcp.congestion.base import INFINITE_SSTHRESH
from layers.tcp.core import TcpCore
from layers.tcp.loss import enter_cwr
from layers.tcp.recovery.state import CaState, Recovery
from tests.netsim.net import Impairment
from tests.netsim.tcp_apps import pair, pattern

ISN = dict[str, Any]


def timed_out(segments: int = 20, **how: Any) -> Host:
    """Ten are out, no ACK came for 300 ms: the head went again (at 301 ms)."""
    c = flight(segments, tlp=False, **how)
    c.stamp_of_originals = c.last_tsval  # type: ignore[attr-defined]
    c.advance(201)
    c.expect("A", seq=at(1), len=M)
    c.expect_nothing()
    now = info(c)
    assert (now["ca_state"], now["snd_cwnd"], now["snd_ssthresh"]) == (CaState.LOSS, 1, 5)
    return c


def undone(c: Host, why: str) -> None:
    """Windows as before the reduction, by this proof."""
    assert c.core.counters["undone"] == c.core.counters[f"undone_{why}"] == 1
    assert c.tcb()["congestion"]["cwnd"] >= 10 * M
    assert c.tcb()["congestion"]["ssthresh"] == INFINITE_SSTHRESH


def test_a_window_that_an_undo_brought_back_does_not_grow_at_once() -> None:
    """Ten again, of which four are under way: that ACK found the window not full (RFC 7661 4.4; Linux looks at it
    after tcp_fastretrans_alert). And an ssthresh that was never lowered shows as Linux' TCP_INFINITE_SSTHRESH."""
    c = flight(4, tlp=False)
    original = c.last_tsval
    c.advance(201)
    c.expect("A", seq=at(1), len=M)
    c.last_tsval = original
    c.inject("A", seq=1, ack=at(2))
    undone(c, "timestamp")
    assert (info(c)["snd_cwnd"], info(c)["snd_ssthresh"]) == (10, 0x7FFF_FFFF)


# the calculator alone


def test_what_proves_it() -> None:
    """An echo from before the first repeat; or all that was repeated named twice."""
    r = Recovery()
    assert not r.delayed(5) and not r.all_twice()
    r.start_undo(1000, 0)
    assert not r.all_twice()  # nothing was repeated
    r.sent_again(500, 70)
    r.sent_again(500, 90)
    assert r.delayed(69) and not r.delayed(70) and not r.delayed(-1)
    r.undo_bytes -= 500
    assert not r.all_twice()
    r.undo_bytes -= 500
    assert r.all_twice()


# after a timeout


@pytest.mark.rfc("RFC 3522 3.2", "RFC 4015 3", "RFC 5682 3.1")
@pytest.mark.parametrize("peer", [{"sack": True}, {"sack": False}], ids=["sack", "no sack"])
def test_timestamps_undo_a_timeout(isn: ISN, peer: dict[str, Any]) -> None:
    """The ACK of the original arrives late and echoes its stamp: nothing more goes again, new data goes on."""
    c = timed_out(**peer, **isn)
    c.last_tsval = c.stamp_of_originals  # type: ignore[attr-defined]
    c.inject("A", seq=1, ack=at(2))
    undone(c, "timestamp")
    assert info(c)["ca_state"] == CaState.OPEN and info(c)["lost"] == 0
    c.expect("A", seq=at(11))  # cwnd 10 and what was acknowledged
    c.expect("A", seq=at(12))
    c.expect_nothing()
    assert c.core.counters["retransmissions"] == 1


@pytest.mark.rfc("RFC 4015 3", "RFC 5682 3.1-2")
def test_frto_with_sack(isn: ISN) -> None:
    """No timestamps. The first ACK lets two new segments go; the second is of one sent once: spurious."""
    c = timed_out(ts=False, mss=MSS, **isn)
    c.inject("A", seq=1, ack=at(2))
    c.expect("A", seq=at(11))
    c.expect("A", seq=at(12))
    c.expect_nothing()
    c.inject("A", seq=1, ack=at(3))
    undone(c, "frto")
    assert c.core.counters["spurious_rtos"] == 1
    assert info(c)["ca_state"] == CaState.OPEN
    assert c.core.counters["retransmissions"] == 1


@pytest.mark.rfc("RFC 5682 2.1-1", "RFC 5682 2.1-4", "RFC 5682 2.1-6")
def test_frto_without_sack(isn: ISN) -> None:
    """The same of bare ACKs."""
    c = timed_out(ts=False, sack=False, mss=MSS, **isn)
    c.inject("A", seq=1, ack=at(2))
    c.expect("A", seq=at(11))
    c.expect("A", seq=at(12))
    c.inject("A", seq=1, ack=at(3))
    undone(c, "frto")


@pytest.mark.rfc("RFC 5682 2.1-5", "RFC 5682 3.1-1")
@pytest.mark.parametrize("peer", [{"sack": True}, {"sack": False}], ids=["sack", "no sack"])
def test_a_real_timeout(isn: ISN, peer: dict[str, Any]) -> None:
    """Only the new data arrives: what was lost goes again, as ever, and nothing is undone."""
    c = timed_out(ts=False, mss=MSS, **peer, **isn)
    c.inject("A", seq=1, ack=at(2))
    c.expect("A", seq=at(11))
    c.expect("A", seq=at(12))
    c.expect_nothing()
    sack(c, *([block(11, 11)] if peer["sack"] else []), ack=2)
    c.expect("A", seq=at(2))
    assert info(c)["ca_state"] == CaState.LOSS and not c.core.counters["undone"]
    c.inject("A", seq=1, ack=at(13))
    assert info(c)["ca_state"] == CaState.OPEN and not c.core.counters["undone"]


@pytest.mark.rfc("RFC 5682 2.1-7")
def test_an_ack_of_everything_proves_nothing(isn: ISN) -> None:
    """Step 2a: the head alone may have been lost."""
    c = timed_out(10, ts=False, mss=MSS, **isn)
    c.inject("A", seq=1, ack=at(11))
    assert info(c)["ca_state"] == CaState.OPEN and not c.core.counters["undone"]


@pytest.mark.rfc("RFC 5682 2.1")
def test_frto_without_new_data(isn: ISN) -> None:
    """Nothing new to send: recovery as ever, at once."""
    c = timed_out(10, ts=False, mss=MSS, **isn)
    c.inject("A", seq=1, ack=at(2))
    c.expect("A", seq=at(2))
    c.expect("A", seq=at(3))
    c.expect_nothing()


def test_frto_can_be_switched_off() -> None:
    """tcp.frto = false: retransmissions first."""
    c = timed_out(ts=False, mss=MSS, frto=False)
    c.inject("A", seq=1, ack=at(2))
    c.expect("A", seq=at(2))


@pytest.mark.rfc("RFC 5681 3.1-13")
def test_a_second_timeout_reduces_once(isn: ISN) -> None:
    """ssthresh stays at 5; what is undone is the first state, cwnd 10."""
    c = timed_out(**isn)
    c.advance(601)
    c.expect("A", seq=at(1))
    assert info(c)["snd_ssthresh"] == 5
    c.last_tsval = c.stamp_of_originals  # type: ignore[attr-defined]
    c.inject("A", seq=1, ack=at(2))
    undone(c, "timestamp")


@pytest.mark.rfc("RFC 6298 3")
def test_what_waited_behind_a_hole_is_no_rtt(isn: ISN) -> None:
    """Without SACK: segments 2 to 10 lay at the peer while the head was repeated. Their wait is not the path's."""
    c = timed_out(10, ts=False, sack=False, mss=MSS, **isn)
    before = c.tcb()["rto"]
    c.advance(100)
    c.inject("A", seq=1, ack=at(11))
    after = c.tcb()["rto"]
    assert (after["samples"], after["srtt"]) == (before["samples"], before["srtt"])


# in recovery


@pytest.mark.rfc("RFC 2883 4", "RFC 3708 3")
def test_dsack_undoes_a_recovery(isn: ISN) -> None:
    """Reordering, not loss: the peer has segment 1 twice. No timestamps, so only that tells."""
    c = flight(20, ts=False, mss=MSS, **isn)
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))
    c.quiet()
    c.inject("A", seq=1, ack=at(11))
    assert info(c)["snd_cwnd"] == 5 and info(c)["ca_state"] == CaState.OPEN
    c.quiet()
    sack(c, block(1, 1), ack=11)
    undone(c, "dsack")
    assert c.tcb()["rack"]["mult"] == 2  # RFC 8985 6.2 step 4
    assert info(c)["dsack_dups"] == 1


@pytest.mark.rfc("RFC 2883 4")
def test_dsack_within_a_block(isn: ISN) -> None:
    """Above the cumulative ACK a D-SACK is the first block and lies within the second."""
    c = flight(20, ts=False, mss=MSS, **isn)
    sack(c, block(3, 3), block(2, 5))
    assert info(c)["dsack_dups"] == 1 and info(c)["sacked"] == 4


@pytest.mark.rfc("RFC 3708 3")
def test_one_of_two_proves_nothing(isn: ISN) -> None:
    """Two were repeated, one came twice: the other may have been lost."""
    c = flight(20, ts=False, mss=MSS, **isn)
    sack(c, block(3, 5))
    c.quiet()
    sack(c, block(3, 10))
    c.quiet()
    assert c.core.counters["retransmissions"] == 2
    c.inject("A", seq=1, ack=at(11))
    c.quiet()
    sack(c, block(1, 1), ack=11)
    assert not c.core.counters["undone"]


@pytest.mark.rfc("RFC 3522 3.2")
def test_timestamps_undo_a_recovery(isn: ISN) -> None:
    """The original of segment 1 arrives after three others: the ACK of all echoes its stamp."""
    c = flight(20, **isn)
    stamp = c.last_tsval
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))
    c.quiet()
    c.last_tsval = stamp
    c.inject("A", seq=1, ack=at(11))
    undone(c, "timestamp")
    assert info(c)["ca_state"] == CaState.OPEN


@pytest.mark.rfc("RFC 3522 3.2")
def test_an_echo_of_the_repeat_undoes_nothing(isn: ISN) -> None:
    """It was lost."""
    c = flight(20, **isn)
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))
    c.quiet()
    c.inject("A", seq=1, ack=at(11))
    assert not c.core.counters["undone"] and info(c)["snd_cwnd"] == 5


# other states


@pytest.mark.rfc("RFC 9937 6", "RFC 3168 6.1.2-1")
def test_congestion_window_reduced(isn: ISN) -> None:
    """Told of congestion, nothing lost: ssthresh 5; half of what arrives goes out, until all of that flight has."""
    c = flight(40, **isn)
    conn = next(iter(c.core._ctx.connections.values()))
    enter_cwr(c.core._ctx, conn, c.now)
    enter_cwr(c.core._ctx, conn, c.now)  # once a round trip
    assert info(c)["ca_state"] == CaState.CWR and info(c)["snd_ssthresh"] == 5
    out = []
    for last in range(2, 6):
        c.inject("A", seq=1, ack=at(last))
        out.append(len(c.segments))
        c.quiet()
    assert out == [1, 0, 0, 1]  # 0.5 (the first is forced), 1 - 1, 1.5 - 1, 2 - 1
    c.inject("A", seq=1, ack=at(11))
    c.quiet()
    assert info(c)["ca_state"] == CaState.CWR
    c.inject("A", seq=1, ack=at(12))
    assert info(c)["ca_state"] == CaState.OPEN and info(c)["snd_cwnd"] == 5
    assert not c.core.counters["retransmissions"]


@pytest.mark.rfc("RFC 3168 6.1.2-4")
def test_what_ecn_took_is_not_given_back(isn: ISN) -> None:
    """A loss within CWR reduces no second time, and a D-SACK for its repair undoes nothing."""
    c = flight(20, ts=False, mss=MSS, **isn)
    conn = next(iter(c.core._ctx.connections.values()))
    enter_cwr(c.core._ctx, conn, c.now)
    sack(c, block(2, 4))
    c.expect("A", seq=at(1))
    assert info(c)["ca_state"] == CaState.RECOVERY and info(c)["snd_ssthresh"] == 5
    c.quiet()
    c.inject("A", seq=1, ack=at(11))
    c.quiet()
    sack(c, block(1, 1), ack=11)
    assert not c.core.counters["undone"] and info(c)["snd_ssthresh"] == 5


@pytest.mark.rfc("RFC 1191 6.5")
def test_a_smaller_path_in_mid_flight(isn: ISN) -> None:
    """MTU 1000: 948 a packet. What the peer has not named goes again in such, cwnd and ssthresh stay."""
    c = flight(**isn)
    sack(c, block(2, 2))
    before = c.tcb()["congestion"]
    c.icmp(3, 4, seq=at(1), mtu=1000)
    sizes = [c.expect("A", seq=1).len]
    while c.segments:
        sizes.append(c.expect("PA" if c.segments[0].head[13] & 8 else "A").len)
    assert max(sizes) == 948 and sum(sizes) == 9 * M
    assert info(c)["ca_state"] == CaState.LOSS
    assert c.tcb()["congestion"]["ssthresh"] == before["ssthresh"]
    c.inject("A", seq=1, ack=at(11))
    assert info(c)["ca_state"] == CaState.OPEN
    assert not c.core.counters["fast_retransmits"] and not c.core.counters["undone"]


# told and kept


def test_events(isn: ISN) -> None:
    """Somebody who listens is told what was found lost and by what, the states, and why it was undone."""
    c = flight(20, ts=False, mss=MSS, **isn)
    c.core.interest = True
    sack(c, block(2, 2))
    sack(c, block(2, 4))
    c.inject("A", seq=1, ack=at(11))
    sack(c, block(1, 1), ack=11)
    told = [event for event in c.core.events() if event.kind in ("loss", "recovery", "undo", "dsack", "reordering")]
    assert [(event.kind, event.data.get("why")) for event in told] == [
        ("recovery", "sack"), ("loss", "dupack"), ("recovery", "dupack"), ("dsack", None), ("undo", "dsack"),
        ("recovery", "undo"),
    ]  # fmt: skip
    assert told[1].data["bytes"] == M


class Amnesiac(TcpCore):
    """A core that is written down and read back before every verb."""

    def _again(self) -> None:
        self._attach(TcpCore.restore(self._ctx.config, self.snapshot())._ctx)

    def receive(self, frame: Any, now: int) -> None:
        self._again()
        super().receive(frame, now)

    def handle_timer(self, now: int) -> None:
        self._again()
        super().handle_timer(now)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("isn", [-1, 2**32 - 9])
def test_the_same_future(seed: int, isn: int) -> None:
    """In every state of recovery: the packets are the same whether or not the core was restored before each of them."""
    wires = []
    for kind in (TcpCore, Amnesiac):
        how = Impairment(loss=0.08, reorder=0.08)
        net, a, b, to_b, to_a = pair(how, seed=seed, core_type=kind, fixed_isn=isn)
        to_b.log, to_a.log = [], []
        b.listen(80)
        sock = a.connect(b.address, 80, pattern(seed, 120_000), eof=True)
        assert net.run(lambda host=b: bool(host.accepted) and host.accepted[0].eof, seconds=100)  # type: ignore[misc]
        assert bytes(b.accepted[0].received) == sock.to_send
        wires.append([(s.head, s.gso_size) for link in (to_b, to_a) for s in link.log or []])
    assert wires[0] == wires[1]

