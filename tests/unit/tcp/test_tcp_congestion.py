"""What all strategies have in common, and how one is chosen: names, options, snapshots, idle times, bounds."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tcp_host import MSS, PEER_PORT, RING, THEIRS, Host, connected, established, listening

from layers.tcp.congestion import STRATEGIES, NoStrategy, find, label, make, replaced
from layers.tcp.congestion.base import INFINITE_SSTHRESH, AckSample, Strategy
from layers.tcp.congestion.cubic import Cubic
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.congestion.window import MAX_CWND, Window
from layers.tcp.core import TcpCore
from layers.tcp.recovery.state import CaState
from levelip.config import CONGESTIONS, TcpConfig
from levelip.frames.seam import Connect, Incoming, SetOption

ISN = dict[str, Any]
MS = 1_000_000
SECOND = 1_000_000_000
BYTES = bytes(RING)


def sample(acked: int, *, limited: bool = True, now: int = 0, rtt: int = 40 * MS, una: int = 0) -> AckSample:
    """An ACK of `acked` bytes."""
    return AckSample(acked, una, una, acked, limited, rtt, rtt, rtt, now)


# names


def test_the_names_on_the_seam_are_those_of_the_strategies() -> None:
    """levelip.config cannot import layers; both lists must say the same."""
    assert set(CONGESTIONS) == set(STRATEGIES)


def test_a_name_that_leads_nowhere_says_why() -> None:
    """Unknown; no such module; no such class; a class that is no strategy, or cannot be made; no class at all."""
    for name, word in (
        ("vegas", "cubic"),
        ("layers.tcp.nothing:X", "nothing"),
        ("layers.tcp.rto:X", "layers.tcp.rto has no X"),
        ("layers.tcp.timers:Timers", "lacks name, mss, cwnd"),
        ("layers.tcp.congestion.base:AckSample", "fails: TypeError"),
        ("math:pi", "pi in math is no class"),
        ("os:path", "path in os is no class"),
    ):
        with pytest.raises(NoStrategy, match=word):
            make(name)


def test_a_label_finds_its_class() -> None:
    """For those of the table by name, for others by place."""
    assert [label(kind()) for kind in (Cubic, NewReno)] == ["cubic", "newreno"]
    assert find(label(Other())) is Other


class Other(NewReno):
    """Somebody's own."""

    name = "other"


# chosen by socket


@pytest.mark.rfc("RFC 9293 MAY-18")
def test_the_configured_one_is_the_default() -> None:
    """CUBIC, unless configured otherwise."""
    assert TcpConfig().congestion == "cubic"
    assert established(congestion="cubic").row()["congestion"] == "cubic"  # type: ignore[index]
    assert established(congestion="newreno").row()["congestion"] == "newreno"  # type: ignore[index]


@pytest.mark.parametrize("name", CONGESTIONS)
def test_chosen_before_connect(name: str) -> None:
    """TCP_CONGESTION of the socket goes before tcp.congestion."""
    c = connected(connect={"congestion": CONGESTIONS.index(name) + 1}, congestion="newreno")
    assert c.row()["congestion"] == name  # type: ignore[index]


def test_inherited_from_the_listener() -> None:
    """A child has its listener's, even if that was set after listen()."""
    c = listening(congestion="newreno")
    c.call(SetOption(50, "congestion", 1))
    c.inject("S", seq=0)
    c.agreed_ts = c.expect("SA").options.timestamps is not None
    c.inject("A", seq=1, ack=1)
    c.sock = c.message(Incoming).sock
    assert c.row()["congestion"] == "cubic"  # type: ignore[index]


def test_changed_in_mid_connection(isn: ISN) -> None:
    """The new one goes on with the windows of the old one."""
    c = established(congestion="newreno", **isn)
    c.write(BYTES[: 10 * MSS])
    c.inject("A", seq=1, ack=1 + 4 * MSS)
    before = c.tcb()["congestion"]
    c.call(SetOption(c.sock, "congestion", 1))
    after = c.tcb()["congestion"]
    assert c.row()["congestion"] == "cubic"  # type: ignore[index]
    assert [after[n] for n in ("mss", "cwnd", "ssthresh")] == [before[n] for n in ("mss", "cwnd", "ssthresh")]
    assert before["cwnd"] == 14 * MSS
    c.call(SetOption(c.sock, "congestion", 0))
    assert c.row()["congestion"] == "newreno"  # type: ignore[index]


def test_replaced_keeps_ssthresh() -> None:
    """Congestion avoidance goes on as such."""
    old = NewReno()
    old.start(1000, 10, 0)
    old.timeout(10_000, True, 0)
    new = replaced(old, TcpConfig(), 1, 0)
    assert isinstance(new, Cubic) and (new.mss, new.cwnd, new.ssthresh) == (1000, 1000, 5000)


def test_hystart_can_be_off() -> None:
    """tcp.hystart."""
    for on in (True, False):
        assert established(hystart=on).tcb()["congestion"]["hystart"]["enabled"] is on


@pytest.mark.parametrize("name", [*CONGESTIONS, "tests.unit.tcp.strategy_of_a_test:Slow"])
def test_snapshot_in_mid_flight(name: str, isn: ISN) -> None:
    """restore(snapshot()) has the same future, whatever the strategy: same segments, same windows."""
    c = established(congestion=name, **isn)
    c.write(BYTES[: 20 * MSS])
    c.advance(40)
    c.inject("A", seq=1, ack=1 + 4 * MSS)
    for edge in (6, 7, 8):
        c.inject("A", seq=1, ack=1 + 4 * MSS, sack=[(1 + 5 * MSS, 1 + edge * MSS)])
    data = c.core.snapshot()
    again = TcpCore.restore(c.config, msgspec.msgpack.decode(msgspec.msgpack.encode(data)))
    assert again.snapshot() == data
    futures = []
    for core in (c.core, again):
        c.core = core
        c.quiet()
        c.stamp = 5000
        now, frame = c.now, c.frame
        for step in range(1, 6):
            c.advance(20)
            c.inject("A", seq=1, ack=1 + (8 + step) * MSS)
        c.now, c.frame = now, frame
        futures.append((list(c.segments), core.snapshot()["connections"][0]["congestion"]))
    assert futures[0] == futures[1] and futures[0][0]


# windows


@pytest.mark.rfc("RFC 6928 2-1")
@pytest.mark.parametrize("name", CONGESTIONS)
def test_initial_window(name: str) -> None:
    """Ten segments, and not the eleventh."""
    c = established(congestion=name)
    c.write(BYTES[: 20 * MSS])
    assert sum(len(c.memory.read(s.payload)) for s in c.segments) == 10 * MSS


@pytest.mark.rfc("RFC 5681 3.1-5", "RFC 6928 2-2")
@pytest.mark.parametrize("name", CONGESTIONS)
def test_initial_window_after_a_lost_syn(name: str) -> None:
    """One segment."""
    c = Host(congestion=name)
    c.sock = 60
    c.call(Connect(60, "", THEIRS, PEER_PORT))
    c.learn_port()
    c.advance(1001)
    c.inject("SA", seq=0, ack=1)
    assert c.tcb()["congestion"]["cwnd"] == MSS


@pytest.mark.rfc("RFC 3465 2.1-1", "RFC 5681 3.1-10", "RFC 5681 3.1-11")
def test_bytes_are_counted_not_acks() -> None:
    """cwnd 10 segments in congestion avoidance: ten ACKs of a segment, twenty of half a one, or one: one more."""
    for pieces in (1, 10, 20):
        cc = NewReno()
        cc.start(1000, 10, 0)
        cc.ssthresh = 10_000
        for _ in range(pieces):
            cc.acked(sample(10_000 // pieces))
        assert cc.cwnd == 11_000


def test_the_part_of_a_segment_that_a_halving_leaves_is_not_waited_for() -> None:
    """Of a window of 10.7 segments ten are ever under way: their acknowledgment is a round trip, and one more."""
    cc = NewReno()
    cc.start(1000, 10, 0)
    cc.ssthresh = cc.cwnd = 10_700
    cc.acked(sample(10_000))
    assert cc.cwnd == 11_700


@pytest.mark.rfc("RFC 3465 2.2-1")
@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_slow_start_by_bytes(kind: type[Window]) -> None:
    """Half-sized segments open the window by half as much; ACKs of 44 segments by all of it."""
    cc = kind()
    cc.start(1000, 10, 0)
    cc.acked(sample(500))
    assert cc.cwnd == 10_500
    cc.acked(sample(44_000))
    assert cc.cwnd == 54_500


@pytest.mark.rfc("RFC 7661 4.4-1")
@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_no_growth_while_the_window_is_not_used(kind: type[Window]) -> None:
    """The application sends little: slow start and avoidance leave cwnd alone."""
    cc = kind()
    cc.start(1000, 10, 0)
    cc.acked(sample(1000, limited=False))
    assert cc.cwnd == 10_000
    cc.ssthresh = 5000
    cc.acked(sample(100_000, limited=False))
    assert cc.cwnd == 10_000


@pytest.mark.rfc("RFC 5681 4.1-1")
@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_restart_after_idle(kind: type[Window]) -> None:
    """RTO 1 s, 80 segments: 40 after 1.5 s, 20 after 2.5 s, the initial ten after that; ssthresh 60."""
    for idle, left in ((1.5, 40), (2.5, 20), (3.5, 10), (100, 10)):
        cc = kind()
        cc.start(1000, 10, 0)
        cc.ssthresh = 30_000
        cc.set_window(80_000)
        cc.idle(int(idle * SECOND), SECOND, 0)
        assert (cc.cwnd, cc.ssthresh) == (left * 1000, 60_000)


@pytest.mark.rfc("RFC 5681 4.1-1", "RFC 6928 2-3")
def test_a_small_window_does_not_grow_by_idleness() -> None:
    """RW = min(IW, cwnd)."""
    cc = NewReno()
    cc.start(1000, 10, 0)
    cc.timeout(10_000, True, 0)
    cc.idle(10 * SECOND, SECOND, 0)
    assert cc.cwnd == 1000


@pytest.mark.rfc("RFC 5681 4.1", "RFC 7661 4.4.3-1", "RFC 7661 4.4.3-2")
@pytest.mark.parametrize(
    ("setting", "minutes", "left"), [(True, 1, 10), (False, 1, 40), (False, 6, 20), (False, 60, 10)]
)
def test_idle_by_configuration(setting: bool, minutes: int, left: int) -> None:
    """tcp.slow_start_after_idle: after an RTO, as Linux; else the window stays for 5 minutes and then halves.

    40 segments: 20 after 5 minutes, 10 (the initial window) after many."""
    c = established(slow_start_after_idle=setting)
    acked = 0
    for size in (10, 20):
        c.write(BYTES[: size * MSS])
        acked += size
        c.inject("A", seq=1, ack=1 + acked * MSS)
    assert c.tcb()["congestion"]["cwnd"] == 40 * MSS
    c.advance(minutes * 60_000)
    c.write(b"x")
    assert c.tcb()["congestion"]["cwnd"] == left * MSS


@pytest.mark.rfc("RFC 7661 4.3-1", "RFC 7661 4.4.3-2")
@pytest.mark.parametrize(
    ("setting", "seconds", "left"),
    [(True, 0.2, 40), (True, 0.4, 25), (True, 10, 10), (False, 200, 40), (False, 400, 20)],
)
def test_used_in_part_by_configuration(setting: bool, seconds: float, left: int) -> None:
    """A segment each 50 ms, never idle: each RTO the window comes halfway down to the initial one, 40, 25, 17, ...;
    with tcp.slow_start_after_idle = false it stays for 5 minutes and is halved then."""
    c = established(slow_start_after_idle=setting)
    acked = 0
    for size in (10, 20):
        c.write(BYTES[: size * MSS])
        acked += size * MSS
        c.inject("A", seq=1, ack=1 + acked)
    _, conn = c.parts()
    conn.rto.rto = 300 * MS
    for _ in range(int(seconds * 20)):
        c.advance(50)
        c.write(b"x")
        acked += 1
        c.inject("A", seq=1, ack=1 + acked)
    cwnd = c.tcb()["congestion"]["cwnd"]
    assert left * MSS <= cwnd < (left + 1) * MSS
    assert c.tcb()["congestion"]["ssthresh"] == (1 << 31)


@pytest.mark.rfc("RFC 5681 3.1-13", "RFC 5681 3.1-14")
@pytest.mark.parametrize("kind", [NewReno, Cubic])
def test_loss_window(kind: type[Window]) -> None:
    """One segment after a timeout, whatever the initial window; ssthresh stands on repeated timeouts."""
    cc = kind()
    cc.start(1000, 10, 0)
    cc.set_window(40_000)
    cc.timeout(40_000, True, 0)
    ssthresh = cc.ssthresh
    assert cc.cwnd == 1000 and ssthresh == {NewReno: 20_000, Cubic: 28_000}[kind]
    cc.timeout(1000, False, 0)
    assert (cc.cwnd, cc.ssthresh) == (1000, ssthresh)


# any course of events

EVENT = st.one_of(
    st.tuples(st.just("acked"), st.integers(1, 70_000), st.booleans(), st.integers(-1, 400)),
    st.tuples(st.just("recovery"), st.integers(0, 1 << 31)),
    st.tuples(st.just("window"), st.integers(0, 1 << 31)),
    st.tuples(st.just("exit")),
    st.tuples(st.just("mark"), st.integers(0, 1 << 31)),
    st.tuples(st.just("timeout"), st.integers(0, 1 << 31), st.booleans()),
    st.tuples(st.just("undo")),
    st.tuples(st.just("idle"), st.integers(1, 10**12), st.integers(10**6, 10**11)),
    st.tuples(st.just("mss"), st.integers(48, 65_483)),
)


def apply(cc: Strategy, event: tuple[Any, ...], now: int, una: int) -> None:
    """One event."""
    match event:
        case ("acked", size, limited, rtt):
            measured = rtt * MS if rtt >= 0 else -1
            cc.acked(AckSample(size, una, una + cc.cwnd, cc.cwnd, limited, measured, 40 * MS, MS, now))
        case ("recovery", flight):
            cc.enter_recovery(flight, now)
        case ("window", size):
            cc.set_window(size)
        case ("exit",):
            cc.exit_recovery(now)
        case ("mark", flight):
            cc.congestion_experienced(flight, now)
        case ("timeout", flight, first):
            cc.timeout(flight, first, now)
        case ("undo",):
            cc.undo(now)
        case ("idle", idle, rto):
            cc.idle(idle, rto, now)
        case ("mss", mss):
            cc.set_mss(mss)


@pytest.mark.parametrize("name", CONGESTIONS)
@given(events=st.lists(st.tuples(EVENT, st.integers(0, 10**11)), max_size=60))
def test_bounds(name: str, events: list[tuple[Any, int]]) -> None:
    """cwnd is never below a segment nor above what a window can be; ssthresh never below two segments.

    After every event the state survives a snapshot."""
    cc = make(name)
    cc.start(1448, 10, 0)
    now = una = 0
    for event, passed in events:
        now += passed
        una += 1448
        apply(cc, event, now, una)
        assert cc.mss <= cc.cwnd <= MAX_CWND, event
        assert 2 * cc.mss <= cc.ssthresh <= INFINITE_SSTHRESH, event
        data = msgspec.msgpack.decode(msgspec.msgpack.encode(msgspec.to_builtins(cc)))
        assert msgspec.convert(data, type(cc)) == cc


@pytest.mark.rfc("RFC 9438 4.9.2")
@pytest.mark.parametrize("name", CONGESTIONS)
@given(
    events=st.lists(st.tuples(EVENT, st.integers(0, 10**10)), max_size=30),
    flight=st.integers(0, 1 << 31),
    by_timeout=st.booleans(),
)
def test_undo_restores_exactly(name: str, events: list[tuple[Any, int]], flight: int, by_timeout: bool) -> None:
    """Whatever came before: a reduction and its undo leave everything as it was, but the memory of the undo itself."""
    cc = make(name)
    cc.start(1448, 10, 0)
    now = 0
    for event, passed in events:
        now += passed
        apply(cc, event, now, now // MS)
    before = {key: value for key, value in asdict(cc).items() if not key.startswith("undo")}  # type: ignore[call-overload]
    if by_timeout:
        cc.timeout(flight, True, now)
        cc.timeout(flight, False, now)
    else:
        cc.enter_recovery(flight, now)
        cc.set_window(min(cc.ssthresh, before["cwnd"]))
    cc.undo(now + SECOND)
    assert {key: value for key, value in asdict(cc).items() if not key.startswith("undo")} == before  # type: ignore[call-overload]


@pytest.mark.rfc("RFC 3465 2.2")
def test_acks_that_come_together_all_count() -> None:
    """Slow start doubles whether ACKs come one by one or five at once, with nothing sent between them."""
    c = established()
    c.write(BYTES[: 60 * MSS])
    for segment in (2, 4, 6, 8, 10):
        c.inject("A", seq=1, ack=1 + segment * MSS, flush=False)
    assert c.tcb()["congestion"]["cwnd"] == 20 * MSS
    c.flush()
    _, conn = c.parts()
    assert conn.tx.snd_nxt - conn.tx.snd_una == 20 * MSS


def test_what_earlier_acks_let_out_goes_before_a_loss_is_looked_at() -> None:
    """Ten segments are out. ACKs of four and SACKs that tell of a loss come together: the eight segments that the ACKs
    let out go first, and half of the 14 that are then under way is left, not of the six that were."""
    c = established()
    c.write(BYTES[: 60 * MSS])
    for segment in (2, 4):
        c.inject("A", seq=1, ack=1 + segment * MSS, flush=False)
    for segment in (6, 8, 10):
        blocks = [(1 + 5 * MSS, 1 + segment * MSS)]
        c.inject("A", seq=1, ack=1 + 4 * MSS, sack=blocks, flush=False)
    _, conn = c.parts()
    assert conn.recovery.state == CaState.RECOVERY
    assert conn.congestion.ssthresh == 7 * MSS
    assert conn.tx.snd_nxt >= 18 * MSS
