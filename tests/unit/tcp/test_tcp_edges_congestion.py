"""Where tcp decides between two things that lie close together: congestion windows and ECN."""

from __future__ import annotations

import pytest
from tcp_host import HOSTS, MS, MSS, established, far
from test_tcp_rack import at, block, flight, info, sack

from layers.tcp import loss
from layers.tcp.congestion import chosen, replaced
from layers.tcp.congestion.base import AckSample
from layers.tcp.congestion.cubic import Cubic
from layers.tcp.congestion.hystart import HyStart
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.ecn import Ecn
from layers.tcp.recovery.state import CaState
from levelip.config import TcpConfig
from levelip.wire.tcp import ACK, CWR

SECOND = 1000 * MS


def test_no_growth_at_the_threshold_while_the_window_is_not_used() -> None:
    """At ssthresh it is congestion avoidance: only a window that held us back grows (RFC 7661 4.4)."""
    c = far()
    _, conn = c.parts()
    conn.congestion.cwnd = conn.congestion.ssthresh = 10 * MSS
    conn.congestion.bytes_acked = 9 * MSS  # type: ignore[attr-defined]
    c.write(bytes(8 * MSS))
    c.quiet()
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 8 * MSS)
    assert conn.congestion.cwnd == 10 * MSS


def test_a_strategy_that_takes_over_a_small_window() -> None:
    """Of one segment: that is what a restart after idle comes down to."""
    old = NewReno(mss=1000, cwnd=1000)
    assert replaced(old, TcpConfig(), 0, 0).initial == 1  # type: ignore[attr-defined]
    assert replaced(NewReno(mss=1000, cwnd=2999), TcpConfig(), 0, 0).initial == 2  # type: ignore[attr-defined]


def test_time_without_use_is_added_to_the_beginning_of_the_stage() -> None:
    """A stage that began at 5 s and stood still for 2 began at 7 s."""
    cubic = Cubic(mss=1000, cwnd=10_000, ssthresh=5000, epoch_at=5 * SECOND)
    sample = AckSample(1000, 0, 0, 10_000, False, MS, MS, MS, 6 * SECOND)
    cubic.acked(sample)
    sample.now, sample.limited = 8 * SECOND, True
    cubic.acked(sample)
    assert cubic.epoch_at == 7 * SECOND
    cubic.idle(3 * SECOND, 10 * SECOND, 11 * SECOND)
    assert cubic.epoch_at == 10 * SECOND


def test_an_eighth_of_a_round_trip_is_a_whole_number() -> None:
    """RFC 9406 4.2: 80.000001 ms, of which an eighth is 10 ms."""
    hystart = HyStart(last_min=80_000_001, current_min=90_000_001, samples=8)
    hystart._look_for_delay()
    assert hystart.baseline == 90_000_001


@pytest.mark.parametrize(("cwnd", "used", "left", "ssthresh"), [
    (10_000, 0, 10_000, 1000), (10_001, 10_000, 10_000, 7500), (20_000, 0, 15_000, 15_000),
    (20_000, 14_000, 17_000, 15_000), (20_000, 20_000, 20_000, 1000),
])  # fmt: skip
def test_a_window_that_was_used_in_part(cwnd: int, used: int, left: int, ssthresh: int) -> None:
    """Halfway to what was used, or to the initial window of ten; ssthresh keeps 3/4 only where something was taken."""
    window = NewReno(mss=1000, cwnd=cwnd, ssthresh=1000, initial=10)
    window.unused(used, 0)
    assert (window.cwnd, window.ssthresh) == (left, ssthresh)


def test_only_cwr_ends_the_echo() -> None:
    """Data without it does not."""
    ecn = Ecn(on=True, echo=True)
    assert not ecn.received(2, ACK, 1) and ecn.echo
    assert ecn.received(2, ACK | CWR, 1) and not ecn.echo


@pytest.mark.parametrize(("flags", "tos", "echo", "hurried"), [
    ("PA", 3, False, True), ("PA", 3, True, False), ("PAC", 3, True, False), ("PAC", 2, False, False),
    ("PAC", 2, True, False),
])  # fmt: skip
def test_the_first_mark_alone_makes_acks_quick(flags: str, tos: int, echo: bool, hurried: bool) -> None:
    """Linux tcp_enter_quickack_mode, at the change from no echo to echo."""
    c = established(ecn=1)
    _, conn = c.parts()
    conn.ecn.on, conn.ecn.echo = True, echo
    conn.quick_acks, conn.interactive = 0, True
    c.inject(flags, seq=1, ack=1, data=b"x", tos=tos)
    assert (not conn.interactive) is hurried


def test_an_echo_on_a_duplicate_ack_counts() -> None:
    """It acknowledges nothing new, and says that something was marked (RFC 3168 6.1.2)."""
    c = far(ecn=1)
    _, conn = c.parts()
    conn.ecn.on = True
    c.write(bytes(5 * MSS))
    c.inject("AE", seq=1, ack=1)
    assert conn.recovery.state == CaState.CWR and c.core.counters["ecn_reductions"] == 1


def test_a_stage_begins_without_a_fraction() -> None:
    """Of a byte, left from the stage before."""
    cubic = Cubic(mss=1000, cwnd=10_000, fraction=0.5)
    cubic.reset_avoidance()
    assert cubic.fraction == 0.0
    cubic.fraction = 0.5
    cubic._begin(5)
    assert (cubic.fraction, cubic.epoch_at) == (0.0, 5)


def test_just_half_of_the_window_is_not_its_use() -> None:
    """In slow start more than half is (Linux tcp_is_cwnd_limited)."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(5 * MSS))
    assert conn.cwnd_used == 5 * MSS
    c.write(bytes(10))
    assert conn.cwnd_used == 0
    c = far()
    _, conn = c.parts()
    conn.congestion.ssthresh = conn.congestion.cwnd  # congestion avoidance: nothing less than all
    c.write(bytes(8 * MSS))
    assert conn.cwnd_used == 8 * MSS


def test_a_mark_while_something_was_named_by_sack() -> None:
    """RFC 9937 6: RecoverFS is what was outstanding, without what the peer has."""
    c = flight(10, ecn=1)
    ctx, conn = c.parts()
    sack(c, block(3, 4))
    loss.enter_cwr(ctx, conn, c.now)
    assert conn.recovery.prr.recover_fs == conn.tx.snd_nxt - conn.tx.snd_una - 2 * MSS
    assert conn.recovery.undo_marker == -1, "nothing can take it back"


def test_an_undo_after_a_larger_mss() -> None:
    """Two segments of what they are by now at least (RFC 5681 3.1 equation 4)."""
    window = NewReno(mss=3000, cwnd=3000, ssthresh=6000, undo_cwnd=5000, undo_ssthresh=2000)
    window.undo(0)
    assert (window.cwnd, window.ssthresh) == (5000, 6000)


def test_no_growth_by_an_ack_with_an_old_echo() -> None:
    """RFC 3168 6.1.2, also where that mark has reduced the window before."""
    c = far(ecn=1)
    _, conn = c.parts()
    conn.ecn.on, conn.ecn.until = True, 1 << 40
    c.write(bytes(10 * MSS))
    before = conn.congestion.cwnd
    c.inject("AE", seq=1, ack=at(6))
    assert conn.congestion.cwnd == before
    c.write(bytes(5 * MSS))
    c.inject("A", seq=1, ack=at(11))
    assert conn.congestion.cwnd > before


def test_fast_convergence_is_for_a_window_that_shrank() -> None:
    """RFC 9438 4.7: not for one that was reached again."""
    for w_max, wanted in ((10_000, 10_000), (10_001, 8500)):
        cubic = Cubic(mss=1000, cwnd=10_000, w_max=w_max)
        cubic.reduce(10_000)
        assert cubic.w_max == wanted


def test_figures_are_whole_numbers() -> None:
    """As in struct tcp_info."""
    c = flight(5)
    c.inject("A", seq=1, ack=at(3))
    assert all(type(value) is int for value in info(c).values())


def test_a_point_of_the_curve_is_of_whole_bytes() -> None:
    """Before the plateau rounded down: half a second before K, C (K - t)^3 = 0.05 segments of 1000 bytes less; a
    nanosecond before it, a byte."""
    cubic = Cubic(mss=1000, origin=70_000, k=SECOND)
    for elapsed, bytes_ in ((SECOND // 2, 69_950), (SECOND - 1, 69_999), (SECOND, 70_000), (2 * SECOND, 70_400)):
        found = cubic._curve(elapsed)
        assert type(found) is int and found == bytes_


@pytest.mark.parametrize("name", ["cubic", "newreno"])
def test_who_asks_for_none_gets_the_configured_one(name: str) -> None:
    """TCP_CONGESTION was not set."""
    assert chosen(TcpConfig(congestion=name), 0).name == name


def test_a_second_mark_reduces_nothing_while_the_first_does() -> None:
    """Once a round trip; and what is undone says no CWR (Linux tcp_ecn_withdraw_cwr)."""
    c = far(ecn=1)
    ctx, conn = c.parts()
    c.write(bytes(10 * MSS))
    loss.enter_cwr(ctx, conn, c.now)
    before = conn.congestion.ssthresh
    conn.congestion.cwnd = 4 * MSS
    loss.enter_cwr(ctx, conn, c.now)
    assert conn.congestion.ssthresh == before
    conn.ecn.cwr = conn.recovery.frto = conn.recovery.frto_new = True
    loss.undo(ctx, conn, "dsack", c.now)
    assert not (conn.ecn.cwr or conn.recovery.frto or conn.recovery.frto_new)
    HOSTS.clear()
