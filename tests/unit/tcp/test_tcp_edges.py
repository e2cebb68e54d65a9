"""Where tcp decides between two things that lie close together: at a limit, at the same instant, with one of several
conditions alone."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tcp_host import (
    HOSTS,
    MS,
    MSS,
    THEIRS,
    Got,
    Host,
    connected,
    established,
    far,
    listening,
    syn_received,
    syn_sent,
    time_wait,
)
from test_tcp_rack import at, block, flight, info, sack

from layers.tcp import acknowledgment, loss, mtu_probe, path_mtu, scoreboard
from layers.tcp.acknowledgment import take_ack
from layers.tcp.config import TcpCoreConfig
from layers.tcp.congestion import replaced
from layers.tcp.congestion.base import AckSample
from layers.tcp.congestion.cubic import Cubic
from layers.tcp.congestion.hystart import HyStart
from layers.tcp.congestion.newreno import NewReno
from layers.tcp.core import TcpCore
from layers.tcp.ecn import Ecn
from layers.tcp.output import TO_IP_MOST
from layers.tcp.receive_space import ReceiveSpace
from layers.tcp.recovery.rack import Rack
from layers.tcp.recovery.state import CaState
from layers.tcp.routes import RouteTable
from layers.tcp.rto import Rto
from layers.tcp.scoreboard import News
from layers.tcp.send_space import SendSpace, Sent
from layers.tcp.timers import OFF, PERSIST, RETRANSMIT
from levelip.config import TcpConfig
from levelip.frames.packet import IcmpError, PathMtu, Route, Routes
from levelip.frames.seam import Bind, Close, Connect, Incoming, Listen, NeighbourUp, Result, SetOption, Taken, Urgent
from levelip.rpc.stream import Data, Eof, Reset
from levelip.wire.tcp import ACK, CWR

OPEN, DISORDER, RECOVERY, LOSS = CaState.OPEN, CaState.DISORDER, CaState.RECOVERY, CaState.LOSS
SECOND = 1000 * MS
BIG = 65_535


def sizes(c: Host) -> list[int]:
    found = [Got(c, segment).len for segment in c.segments]
    c.segments.clear()
    return found


def told(c: Host, kind: str) -> list[dict[str, Any]]:
    return [event.data for event in c.core.events() if event.kind == kind]


# queues toward ip


@pytest.mark.parametrize("room", [0, 1])
def test_the_queue_toward_ip_ends_exactly_at_its_length(room: int) -> None:
    """One more fits or not: ACKs, resets, cookies and TIME-WAIT's answers are lost there, and it is told of whom."""
    for begin, flags, fields, name in (
        (established, "A", {"seq": 90_000, "ack": 1}, "10.0.0.2:80>10.0.0.1:4711"),
        (listening, "A", {"seq": 1, "ack": 1}, ""),
        (lambda: listening(syncookies=2), "S", {"seq": 0}, ""),
        (time_wait, "A", {"seq": 90_000, "ack": 2}, ""),
    ):
        c = begin()
        c.core.interest = True
        ctx = c.core._ctx
        filler = c.segment("A", seq=0, ack=0)
        ctx.to_ip.extend([filler] * (TO_IP_MOST - room))
        segment = c.segment(flags, **fields)
        c.core.receive(segment, c.now)
        assert len(ctx.to_ip) == TO_IP_MOST
        drops = [event for event in c.core.events() if event.reason == "tcp_queue_full"]
        assert len(drops) == 1 - room
        assert all(event.conn == name and event.frame in (0, segment.id) for event in drops)
        ctx.to_ip.clear()


# ports


def test_a_port_in_time_wait_is_not_taken_for_a_new_connection() -> None:
    """Of two ports the other is, though it would be the first one's turn; with tcp_tw_reuse the same one (RFC 6191)."""
    for reuse in (0, 1):
        c = connected(port_first=40_000, port_last=40_000 if reuse else 40_001, tw_reuse=reuse)
        ports = [c.local_port]
        c.close()
        c.expect("FA", seq=1, ack=1)
        c.inject("FA", seq=1, ack=2)
        c.quiet()
        c.advance(2000)
        for sock in (61, 62):
            c.quiet()
            c.call(Connect(sock, "", THEIRS, 4711))
            assert c.segments, c.messages
            ports.append(int.from_bytes(c.segments[0].head[:2], "big"))
            c.call(Close(sock, True))
        assert len(set(ports)) == (1 if reuse else 2) and ports[1] == ports[2]


def test_children_hold_the_port_as_their_listener_did() -> None:
    """With its SO_REUSEADDR and SO_REUSEPORT, and without them."""
    for address, port, error in ((False, False, 98), (True, False, 0), (False, True, 0)):
        c = Host()
        c.call(Bind(1, 50, b"", 80, address, port))
        c.call(Listen(2, 50, "", 16))
        c.inject("S", seq=0)
        c.agreed_ts = c.expect("SA").options.timestamps is not None
        c.inject("A", seq=1, ack=1)
        c.call(Taken(50, c.find_message(Incoming).sock))
        c.call(Close(50))
        c.quiet()
        c.call(Bind(3, 70, b"", 80, not port, port))
        assert c.message(Result).errno == error


# gateway, routes, orphans


def test_another_gateway_ends_what_the_one_before_had() -> None:
    """Also what nobody had accepted: reset. Counted each time."""
    c = established()
    c.inject("S", seq=0, src_port=9)
    c.inject("A", seq=1, ack=1, src_port=9)
    c.quiet()
    c.call(NeighbourUp("gateway", 10))
    assert sum("R" in Got(c, segment).flags for segment in c.segments) == 2
    c.call(NeighbourUp("gateway", 11))
    assert c.core.counters["gateways_lost"] == 2


def test_new_routes_reach_every_connection() -> None:
    """One to where no route leads any more is no reason to stop."""
    c = Host(routes=False)
    c.core.receive(Routes([Route(bytes(4), 0, b"\x0a\0\0\2", 1500, 0)], [b"\x0a\0\0\2"]), c.now)
    for sock, remote in ((60, b"\x0b\0\0\1"), (61, THEIRS)):
        c.call(Connect(sock, "", remote, 4711))
    c.core.receive(Routes([Route(b"\x0a\0\0\0", 8, b"\x0a\0\0\2", 800, 0)], [b"\x0a\0\0\2"]), c.now)
    found = [c.core._ctx.sockets[sock] for sock in (60, 61)]
    assert [conn.pmtu for conn in found] == [1500, 800]
    assert [conn.advertised_mss for conn in found] == [1460, 1460], "the SYN has said so"


def test_half_of_the_orphans_are_allowed_where_icmp_spoke() -> None:
    """Of 3: one is not too many (Linux tcp_out_of_resources: a shift by one)."""
    c = far(max_orphans=3, tlp=False)
    c.write(bytes(100))
    c.close()
    c.icmp(3, 1, seq=1)
    c.quiet()
    c.advance(1000)
    assert c.segments and "R" not in Got(c, c.segments[0]).flags


def test_what_overflows_is_told_with_its_segment() -> None:
    """tcp.abort_on_overflow: the change of state names the ACK that came too much."""
    c = listening(abort_on_overflow=True, syncookies=0, ts=False)
    c.call(Listen(3, 50, "", 2))
    c.core.interest = True
    for flags, port in (("S", 1), ("A", 1), ("S", 2), ("S", 3), ("A", 2), ("S", 4), ("A", 3), ("A", 4)):
        c.inject(flags, seq=int(flags == "A"), ack=1 if flags == "A" else None, src_port=port)
    states = [event for event in c.core.events() if event.kind == "state"]
    assert states[-1].data["new"] == "CLOSED" and states[-1].frame == c.frame


# opening


def test_an_end_that_was_promised_before_the_opening_waits_for_its_bytes() -> None:
    """The stream ends at 10, of which nothing is known yet: no FIN."""
    c = syn_sent()
    c.call(Eof(60, 10))
    c.inject("SA", seq=0, ack=1)
    assert c.state == "ESTABLISHED"


def test_without_window_scaling_our_shift_is_none() -> None:
    """Also before the peer has said anything."""
    assert syn_sent(window_scaling=False, receive_buffer=RING).row()["info"]["rcv_wscale"] == 0  # type: ignore[index]
    assert syn_sent(receive_buffer=RING).row()["info"]["rcv_wscale"] == 1  # type: ignore[index]


RING = 65_536


def test_a_buffer_that_has_grown_stays_with_another_low_water_mark() -> None:
    """SO_RCVLOWAT asks for twice as much, and takes nothing away (Linux tcp_set_rcvlowat)."""
    c = established(receive_initial=16_384)
    _, conn = c.parts()
    conn.rx.buffer = 40_000
    c.call(SetOption(c.sock, "rcvlowat", 10_000))
    assert conn.rx.buffer == 40_000
    c.call(SetOption(c.sock, "rcvlowat", 25_000))
    assert conn.rx.buffer == 50_000


def test_keepalive_with_the_configured_idle_time() -> None:
    """Two hours unless the application says otherwise."""
    c = established(keepalive_idle_ms=7_200_000)
    c.call(SetOption(c.sock, "keepalive", 1))
    c.advance(7_199_999)
    c.expect_nothing()
    c.advance(1)
    c.expect("A", seq=0, ack=1)


def test_keepalive_of_what_was_accepted_with_the_option() -> None:
    """A listener's SO_KEEPALIVE alone: the configuration says how long."""
    c = Host(keepalive_idle_ms=5000)
    c.listen(options={"keepalive": 1})
    c.inject("S", seq=0)
    c.agreed_ts = c.expect("SA").options.timestamps is not None
    c.inject("A", seq=1, ack=1)
    c.advance(5000)
    c.expect("A", seq=0, ack=1)


def test_how_often_a_syn_goes_again() -> None:
    """TCP_SYNCNT before tcp.syn_retries; tcp.synack_retries, or TCP_DEFER_ACCEPT for whom that waits, for a SYN-ACK."""
    c = syn_sent(connect={"syncnt": 1}, syn_retries=3)
    c.advance(60_000)
    assert len(c.segments) == 1 and c.message(Reset)
    for deferred, wanted in ((False, 1), (True, 3)):
        c = Host(synack_retries=1)
        c.listen(options={"defer_accept": 3})
        c.inject("S", seq=0)
        c.agreed_ts = c.expect("SA").options.timestamps is not None
        if deferred:
            c.inject("A", seq=1, ack=1)
        c.advance(100_000)
        assert c.core.counters["rto_timeouts"] + (2 if deferred else 0) == wanted


# congestion windows


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


def test_super_segments_are_of_whole_packets() -> None:
    """5000 bytes hold three packets of 1448 with the largest headers, not 3.38."""
    c = far(gso_max=5000)
    c.write(bytes(10 * MSS))
    assert sizes(c) == [3 * MSS, 3 * MSS, 3 * MSS, MSS]


@pytest.mark.parametrize(("cwnd", "used", "left", "ssthresh"), [
    (10_000, 0, 10_000, 1000), (10_001, 10_000, 10_000, 7500), (20_000, 0, 15_000, 15_000),
    (20_000, 14_000, 17_000, 15_000), (20_000, 20_000, 20_000, 1000),
])  # fmt: skip
def test_a_window_that_was_used_in_part(cwnd: int, used: int, left: int, ssthresh: int) -> None:
    """Halfway to what was used, or to the initial window of ten; ssthresh keeps 3/4 only where something was taken."""
    window = NewReno(mss=1000, cwnd=cwnd, ssthresh=1000, initial=10)
    window.unused(used, 0)
    assert (window.cwnd, window.ssthresh) == (left, ssthresh)


# ECN


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


# loss recovery


@pytest.mark.parametrize(
    ("state", "una", "retransmits", "first", "frto"),
    [
        (OPEN, 0, 0, True, True),
        (DISORDER, 0, 0, True, True),
        (RECOVERY, 0, 0, False, False),
        (RECOVERY, 1, 0, True, False),  # all of the last reduction's is acknowledged
        (RECOVERY, 0, 1, False, True),
        (LOSS, 0, 0, True, False),
        (LOSS, 0, 1, False, True),
    ],
)
def test_a_timeout_reduces_once_for_the_same_data(
    state: CaState, una: int, retransmits: int, first: bool, frto: bool
) -> None:
    """RFC 5681 3.1; F-RTO not in a recovery that found a loss before (RFC 5682 2.1 step 1)."""
    c = far()
    ctx, conn = c.parts()
    c.write(bytes(8 * MSS))
    conn.recovery.state, conn.retransmits = state, retransmits
    conn.recovery.recover = conn.tx.snd_una if una else conn.tx.snd_nxt
    before = conn.congestion.ssthresh
    loss.enter_loss(ctx, conn, c.now)
    assert (conn.congestion.ssthresh != before) is first
    assert conn.recovery.frto is frto
    HOSTS.clear()  # a state made by hand is no state to restore


@pytest.mark.parametrize(
    ("what", "value"),
    [("", 0), ("state", DISORDER), ("state", RECOVERY), ("probe_end", 0), ("sacked", MSS), ("lost", MSS), ("wnd", MSS)],
)
def test_what_forbids_a_loss_probe(what: str, value: int) -> None:
    """Each alone: RFC 8985 7.3, and a window that shrank."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(2 * MSS))
    tx, recovery = conn.tx, conn.recovery
    if what == "state":
        recovery.state = CaState(value)
    elif what == "probe_end":
        recovery.probe_end = value
    elif what == "sacked":
        tx.sacked_bytes = value
    elif what == "lost":
        tx.lost_bytes = value
    elif what == "wnd":
        tx.snd_wnd = value
    assert loss.probe_possible(conn) is (what == "")
    HOSTS.clear()


def test_a_packet_that_was_overtaken_by_one_was_overtaken_by_one() -> None:
    """Also by less than a full one."""
    c = flight(2)
    ctx, conn = c.parts()
    ctx.interest = True
    conn.rack.fack = 100
    loss.overtaken(ctx, conn, 0, "sack")
    [event] = told(c, "reordering")
    assert event["packets"] == 1


def test_recovery_that_is_over_forgets_when_it_sent_again() -> None:
    """What an old echo is compared with is of this reduction, not of the last."""
    c = flight(10)
    sack(c, block(2, 5))
    c.advance(100)
    c.inject("A", seq=1, ack=at(11))
    recovery = c.tcb()["recovery"]
    assert (recovery["state"], recovery["resent_at"]) == (0, -1)


def test_dsacks_that_name_all_with_the_last_ack_bring_the_window_back_exactly() -> None:
    """RFC 3708: as it was before the reduction, no more."""
    c = flight(10)
    sack(c, block(2, 5))
    c.expect("A", seq=at(1), len=MSS)
    c.advance(50)
    before = 10 * MSS
    c.inject("A", seq=1, ack=at(11), sack=[(at(1), at(2))])
    assert c.core.counters["undone_dsack"] == 1
    assert c.tcb()["congestion"]["cwnd"] == before


def test_a_spurious_recovery_without_sack_loses_nothing() -> None:
    """RFC 4015 3: what a partial ACK had marked lost, and has not gone again, is in flight after all."""
    c = flight(12, sack=False)
    original = c.last_tsval
    for _ in range(3):
        c.inject("A", seq=1, ack=1)
    c.advance(10)
    c.last_tsval = max(Got(c, segment).options.timestamps[0] for segment in c.segments)  # type: ignore[index]
    c.quiet()
    c.inject("A", seq=1, ack=at(2), flush=False)
    assert c.parts()[1].tx.lost_bytes
    c.last_tsval = original
    c.inject("A", seq=1, ack=at(2) + 100, flush=False)
    assert c.core.counters["undone_timestamp"] == 1
    assert c.parts()[1].tx.lost_bytes == 0
    c.flush()


def test_a_probe_that_repaired_a_loss_reduces_in_disorder_too() -> None:
    """RFC 8985 7.4.2: nobody else will tell of that loss."""
    c = flight(3)
    ctx, conn = c.parts()
    conn.recovery.state = DISORDER
    conn.recovery.probe_again, conn.recovery.probe_end = True, 2 * MSS
    take_ack(ctx, conn, 3 * MSS, -1, (), 1, c.now, duplicate=False)
    assert c.core.counters["loss_probe_recoveries"] == 1
    assert conn.congestion.ssthresh < 1 << 30
    assert acknowledgment.DISORDER == DISORDER


def test_a_repeat_is_of_whole_packets_while_sack_blocks_take_room() -> None:
    """Three packets of 1448 are 4344 bytes; with a block of SACK a packet holds 1436, and three of these go."""
    c = far(gso_max=100 + 3 * MSS, tlp=False)
    ctx, conn = c.parts()
    c.write(bytes(3 * MSS))
    c.inject("A", seq=5000, ack=1, data=b"x")
    c.quiet()
    conn.congestion.cwnd = 1 << 20
    conn.tx.mark_lost(0)
    ctx.want_output(conn)
    c.flush()
    assert sizes(c) == [3 * (MSS - 12), 36]


def test_new_data_beside_a_hole_leaves_room_for_its_block() -> None:
    """RFC 6691 3: 12 bytes of SACK in each packet."""
    c = far()
    c.inject("A", seq=5000, ack=1, data=b"x")
    c.quiet()
    c.write(bytes(2 * MSS))
    assert sizes(c) == [MSS - 12, MSS - 12, 24]


def test_what_cwnd_leaves_of_a_packet_waits_whatever_the_window_was() -> None:
    """Half of the largest window would let it go, if that was what held it back."""
    c = far()
    _, conn = c.parts()
    conn.congestion.cwnd, conn.tx.max_wnd = MSS + 1000, 1000
    c.write(bytes(20_000))
    assert sizes(c) == [MSS]


# header prediction


def test_a_window_that_opens_with_data_lets_data_go() -> None:
    """Data in order, nothing new acknowledged, a larger window: what waited goes at once, not with the ACK."""
    c = far()
    _, conn = c.parts()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(1000))
    c.expect_nothing()
    conn.quick_acks, conn.last_data_received_at = 0, c.now  # its ACK may wait
    c.inject("A", seq=1, ack=1, data=bytes(MSS), win=100)
    assert sizes(c) == [1000]


def test_quick_acks_are_used_up_one_by_one() -> None:
    """Also where two full segments came and no delay was allowed anyway."""
    c = established()
    _, conn = c.parts()
    before = conn.quick_acks
    for number in (1, 3):
        c.inject("A", seq=at(number), ack=1, data=bytes(2 * MSS), gso=MSS)
    assert conn.quick_acks == before - 2


# the search for an MTU


def probing() -> tuple[Host, Any, Any]:
    """A probe of 1236 bytes may go: cwnd 20 packets of 1024, enough written."""
    c = far(mtu_probing=2, initial_window=20)
    ctx, conn = c.parts()
    conn.tx.snd_end = 30_000
    return c, ctx, conn


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("", 0), ("recovery.state", DISORDER), ("recovery.probe_end", 5), ("retransmits", 1), ("tx.lost_bytes", 1),
        ("rx.ranges", [1]), ("tx.snd_end", 5331), ("congestion.cwnd", 11 * 1024 - 1), ("tx.snd_wnd", 5331),
        ("mtu.high", 1000), ("mtu.probe_end", 5),
    ],
)  # fmt: skip
def test_what_forbids_a_probe_of_the_mtu(what: str, value: Any) -> None:
    """Each alone (Linux tcp_mtu_probe)."""
    c, ctx, conn = probing()
    *path, name = what.split(".") if what else ["mtu", "begun_at"]
    holder = conn
    for part in path:
        holder = getattr(holder, part)
    if what:
        setattr(holder, name, value)
    assert mtu_probe.probe_size(ctx, conn, c.now) == (1236 if not what else 0)
    HOSTS.clear()


def test_limits_of_a_probe_of_the_mtu() -> None:
    """Just enough: data behind it, cwnd in packets, cwnd in bytes beside what is in flight, the peer's window."""
    c, ctx, conn = probing()
    conn.tx.snd_end = conn.tx.snd_wnd = 5332
    conn.congestion.cwnd = 11 * 1024
    assert mtu_probe.probe_size(ctx, conn, c.now) == 1236
    c, ctx, conn = probing()
    conn.tx.record(10 * 1024, c.now, 1024)
    conn.congestion.cwnd = 10 * 1024 + 1236
    assert mtu_probe.probe_size(ctx, conn, c.now) == 1236
    conn.congestion.cwnd -= 1
    assert mtu_probe.probe_size(ctx, conn, c.now) == 0
    HOSTS.clear()


def test_a_probe_acknowledged_to_its_end_has_arrived() -> None:
    """Not a byte more is needed."""
    c = far(mtu_probing=2, initial_window=20)
    c.write(bytes(15_000))
    end = next(Got(c, segment) for segment in c.segments if Got(c, segment).len == 1236)
    c.advance(100)
    c.inject("A", seq=1, ack=(end.seq + 1236))
    c.write(bytes(10_000))
    assert c.core.counters["mtu_probes_arrived"] == 1


def test_the_loss_of_a_probe_is_told_as_such() -> None:
    """The event says what for recovery was entered: RFC 4821 7.5."""
    c = far(mtu_probing=2, initial_window=20)
    c.write(bytes(15_000))
    got = [Got(c, segment) for segment in c.segments]
    probe = next(one for one in got if one.len == 1236)
    c.advance(100)
    c.core.interest = True
    c.inject("A", seq=1, ack=probe.seq, sack=[(probe.seq + 1236, probe.seq + 1236 + 3 * 1024)])
    assert [event["why"] for event in told(c, "recovery") if event["new"] == "LOSS"] == ["mtu_probe"]
    assert info(c)["snd_ssthresh"] == 0x7FFF_FFFF


# what else is counted and told


def test_totals_count_every_connection() -> None:
    """Two are two."""
    c = established()
    c.inject("S", seq=0, src_port=9)
    c.inject("A", seq=1, ack=1, src_port=9)
    assert c.core.control(1, "totals", {}, c.now)["states"]["ESTABLISHED"] == 2


def test_a_snapshot_holds_bytes_as_bytes() -> None:
    """Addresses are what they are."""
    assert type(established().core.snapshot()["connections"][0]["local"]) is bytes


def test_icmp_that_is_not_believed_tells_of_what() -> None:
    """IP_PMTUDISC_DONT: the connection, and the MTU that was said."""
    c = far()
    c.call(SetOption(c.sock, "mtu_discover", 0))
    c.write(bytes(3000))
    c.core.interest = True
    c.icmp(3, 4, seq=1, mtu=900)
    [event] = [event for event in c.core.events() if event.kind == "drop"]
    assert (event.reason, event.conn, event.data) == ("tcp_icmp_stray", "10.0.0.2:80>10.0.0.1:4711", {"mtu": 900})
    assert event.frame == 1


def test_ip_is_told_how_long_a_path_mtu_holds() -> None:
    """As long as here; and it ends there though no route leads there any more."""
    c = far(mtu_expires_s=300)
    c.write(bytes(3000))
    head = c.local_port.to_bytes(2, "big") + c.peer_port.to_bytes(2, "big") + (c.isn + 1).to_bytes(4, "big")
    c.core.receive(IcmpError(1, [], 3, 4, 900, b"\x0a\0\0\xfe", b"\x0a\0\0\2", THEIRS, 6, head), c.now)
    assert [frame.ms for _, frame in c.core.outgoing({}) if isinstance(frame, PathMtu)] == [300_000]
    c.inject("A", seq=1, ack=3001)
    c.core.receive(Routes([], []), c.now)
    c.advance(301_000)
    assert c.parts()[1].pmtu == 900


def test_only_the_probe_itself_is_a_packet_larger_than_the_others() -> None:
    """A segment that begins where a probe did and ends elsewhere went out in packets of the usual size."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(MSS))
    headers = 20 + 20 + 12
    conn.tx.mss = 1000
    for start, end, size in ((0, MSS, MSS), (0, MSS + 1, 1000), (1, MSS, 1000)):
        conn.mtu.probe_start, conn.mtu.probe_end = start, end
        assert path_mtu._packet(conn, 0) == size + headers
    conn.mtu.probe_start, conn.mtu.probe_end = 0, MSS
    assert path_mtu._packet(conn, 100) == MSS - 100 + headers
    HOSTS.clear()


def test_the_oldest_path_is_forgotten_first() -> None:
    """What was told again is young; what is over makes room before all others."""
    table = RouteTable()
    for number in range(4095):
        table.learn(number.to_bytes(4, "big"), 1000, 99, 0)
    table.learn(bytes(4), 900, 99, 0)
    table.learn(b"new0", 1000, 99, 0)
    table.learn(b"new1", 900, 50, 0)
    assert bytes(4) in table.learned and (1).to_bytes(4, "big") not in table.learned and len(table.learned) == 4096
    table.learn(b"new2", 900, 99, 50)
    assert b"new1" not in table.learned and (2).to_bytes(4, "big") in table.learned and len(table.learned) == 4096


def test_a_backoff_taken_back_leaves_whole_nanoseconds() -> None:
    """Without a sample the RTO is halved."""
    rto = Rto(200 * MS, 60_000 * MS, 1000 * MS)
    rto.back_off()
    rto.revert()
    assert rto.rto == 1000 * MS and type(rto.rto) is int


# send space and scoreboard


def space(*, fin_at: int = -1, size: int = 10) -> SendSpace:
    """Established, nothing sent."""
    tx = SendSpace(1 << 16, snd_una=0, snd_nxt=0, snd_end=1000, snd_wnd=1 << 16, max_wnd=100)
    tx.mss, tx.fin_at = size, fin_at
    return tx


def test_a_fin_takes_no_room_and_what_ends_before_it_has_none() -> None:
    """Packets of 10: 21 bytes are three; 20 and the FIN two; of these split one each."""
    tx = space(fin_at=21)
    tx.record(21, 0, 10)
    assert tx.queue[0].packets == 3
    tx = space(fin_at=20)
    tx.record(21, 0, 10)
    tx.split(0, 10)
    assert [row.packets for row in tx.queue] == [1, 1]


def test_what_a_sack_block_ends_within() -> None:
    """Whole packets count, the edge is known to the byte; whoever has the last text has the FIN."""
    tx, rack, news = space(fin_at=25), Rack(), News(-1, -1, 0, 0)
    tx.record(20, 0, 10)
    tx.record(26, 0, 10)
    scoreboard.mark_sacked(tx, rack, 0, 15, news)
    assert (tx.sacked_bytes, rack.fack) == (10, 15)
    scoreboard.mark_sacked(tx, rack, 10, 25, news)
    assert tx.sacked_bytes == 26


def test_a_dsack_that_begins_too_far_back_is_none_of_ours() -> None:
    """However far it reaches: older than the largest window (Linux tcp_is_sackblock_valid)."""
    tx = space()
    tx.snd_una = tx.snd_nxt = 1000
    for left, known in ((890, True), (889, False)):
        news = News(-1, -1, 0, 0)
        scoreboard.judge_blocks(tx, ((tx.seq(left), tx.seq(990)),), 1000, news)
        assert (news.dsack is not None) is known


def test_a_nanosecond_before_it_is_lost() -> None:
    """RFC 8985 6.2 step 5: it still may come."""
    for now, lost, wait in ((129, 0, 1), (130, 10, 0)):
        tx, rack = space(), Rack(sent_at=50, end=20, rtt=100)
        tx.record(10, 10, 10)
        tx.record(20, 50, 10)
        tx.queue[1].sacked, tx.sacked_bytes, tx.sacked_packets = True, 10, 1
        assert scoreboard.detect(tx, rack, 20, now) == (lost, wait, False)


def test_data_is_acknowledged_before_its_fin() -> None:
    """An ACK of the last byte is none of the FIN."""
    c = established()
    c.write(bytes(10))
    c.shut()
    c.quiet()
    c.inject("A", seq=1, ack=11)
    assert c.state == "FIN_WAIT_1"
    c.inject("A", seq=1, ack=12)
    assert c.state == "FIN_WAIT_2"


# timers and marks


def test_uncorked_into_a_window_of_one_byte() -> None:
    """A window is a window: what waited for the cork waits for nothing else."""
    c = far(wscale=None)
    _, conn = c.parts()
    c.inject("A", seq=1, ack=1, win=1)
    conn.options.cork = 1
    conn.deadlines[PERSIST] = conn.scheduled[PERSIST] = c.now + SECOND
    c.core._ctx.timers.push(c.now + SECOND, PERSIST, c.sock)
    c.call(SetOption(c.sock, "cork", 0))
    assert conn.deadlines[PERSIST] == OFF


def test_no_syn_ack_again_without_retries() -> None:
    """tcp.synack_retries 0."""
    c = Host(synack_retries=0)
    c.listen()
    c.inject("S", seq=0)
    c.quiet()
    c.advance(1000)
    c.expect_nothing()
    assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == 1


def test_the_first_window_probe_begins_its_own_patience() -> None:
    """Whatever timed out before."""
    c = far()
    _, conn = c.parts()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(100))
    conn.first_timeout_at = c.now - 10 * SECOND
    due = conn.deadlines[PERSIST]
    c.advance((due - c.now) / MS)
    c.expect("A", seq=0, ack=1)
    assert conn.first_timeout_at == due


def test_where_the_urgent_pointer_begins_and_ends() -> None:
    """On the segment with the last urgent byte, also where that is its first; not on the one after."""
    c = far()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(3000))
    c.call(Urgent(c.sock, MSS + 1))
    c.quiet()
    c.inject("A", seq=1, ack=1, win=100)
    found = [(Got(c, segment).flags, int.from_bytes(segment.head[18:20], "big")) for segment in c.segments]
    assert found[:2] == [("AU", MSS + 1), ("AU", 1)]
    c = far()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(3000))
    c.call(Urgent(c.sock, MSS))
    c.quiet()
    c.inject("A", seq=1, ack=1, win=100)
    assert ["U" in Got(c, segment).flags for segment in c.segments][:2] == [True, False]


def test_an_echo_of_nothing_is_no_round_trip() -> None:
    """TSecr 0 of a peer that never saw a stamp: RFC 7323 3.2. Neither in recovery nor where something went again."""
    for segments in (10, 1):
        c = flight(segments, tlp=False)
        _, conn = c.parts()
        conn.ts_offset = 0
        c.advance(400)
        samples = conn.rto.samples
        c.last_tsval = 0
        c.inject("A", seq=1, ack=at(2))
        assert conn.rto.samples == samples
    c = flight(2)
    ctx, conn = c.parts()
    conn.ts_offset, conn.tx.queue[0].times, conn.tx.retrans_out = 0, 2, MSS
    samples = conn.rto.samples
    acknowledgment.new_ack(ctx, conn, MSS, 0, c.now)
    assert conn.rto.samples == samples


def test_a_dsack_of_something_else_is_none_of_the_probe() -> None:
    """RFC 8985 7.4.2 asks for the probe's own; and a repeat for nothing widens the reordering window (6.2 step 4)."""
    for again, right, mine in ((True, 500, False), (True, MSS, True), (False, MSS, False)):
        c = flight(2)
        ctx, conn = c.parts()
        conn.recovery.probe_again, conn.recovery.probe_end = again, MSS
        news = News(-1, -1, 0, c.now, dsack=(0, right))
        assert acknowledgment._dsack(ctx, conn, news, 0) is mine
        assert conn.rack.mult == (1 if mine else 2)
        HOSTS.clear()


def test_a_duplicate_ack_ends_frto_without_blocks_too() -> None:
    """RFC 5682 2.1 step 3 a: new data went out, and only that arrives."""
    c = flight(4)
    ctx, conn = c.parts()
    conn.recovery.state, conn.recovery.frto, conn.recovery.recover = LOSS, True, 3 * MSS
    take_ack(ctx, conn, 0, -1, (), 1, c.now, duplicate=True)
    assert not conn.recovery.frto
    HOSTS.clear()


def test_nothing_is_read_behind_the_ack_that_ends_it() -> None:
    """TCP_LINGER2 below 0: the ACK of our FIN is the end, whatever data it brings."""
    c = established()
    c.call(SetOption(c.sock, "linger2_ms", -1))
    c.close()
    c.quiet()
    c.inject("FPA", seq=1, ack=2, data=b"x")
    c.expect_nothing()
    assert c.state == "CLOSED"


def test_a_stage_begins_without_a_fraction() -> None:
    """Of a byte, left from the stage before."""
    cubic = Cubic(mss=1000, cwnd=10_000, fraction=0.5)
    cubic.reset_avoidance()
    assert cubic.fraction == 0.0
    cubic.fraction = 0.5
    cubic._begin(5)
    assert (cubic.fraction, cubic.epoch_at) == (0.0, 5)


def test_what_a_full_pipe_holds_back_is_told_at_once_later() -> None:
    """Three segments while the gateway has no room are one message."""
    c = established()
    for number in range(3):
        c.inject("PA", seq=1 + number, ack=1, data=b"x", flush=False)
        c.flush({"gateway": 0})
        assert not c.core._ctx.to_gateway
    c.flush()
    assert c.message(Data).payload.length == 3
    c.no_message()


def test_a_port_in_time_wait_outlives_the_gateway() -> None:
    """The record answers for it still."""
    c = time_wait()
    c.call(Close(50))
    c.call(NeighbourUp("gateway", 10))
    c.quiet()
    c.call(Bind(9, 99, b"", 80))
    assert c.message(Result).errno == 98


def test_a_cookie_offers_the_listeners_mss() -> None:
    """TCP_MAXSEG."""
    c = Host(syncookies=2)
    c.listen(options={"maxseg": 500})
    c.inject("S", seq=0)
    assert Got(c, c.segments[0]).options.mss == 500


def test_one_timeout_is_taken_back_once() -> None:
    """RFC 6069: a second word of the same hop finds no backoff."""
    c = far(tlp=False)
    c.write(bytes(100))
    c.advance(300)
    c.icmp(3, 0, seq=1)
    c.icmp(3, 0, seq=1)
    assert c.core.counters["backoffs_reverted"] == 1


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


def test_a_buffer_that_is_as_large_as_wanted_does_not_grow() -> None:
    """Twice what was taken and what the growth asks for: 2002 + 2 x 2."""
    for buffer, grew in ((2006, False), (2005, True)):
        rx = ReceiveSpace(1 << 16, buffer, mss=0, most=1 << 16, space=1000, turn_from=0, turn_end=1001, consumed=1001)
        assert rx.tune(10 * MS, 10 * MS) is grew
        assert rx.buffer == 2006


def test_an_ack_before_the_first_byte_completes_no_handshake() -> None:
    """In SYN-RECEIVED only a SYN may stand there."""
    c = syn_received()
    c.inject("A", seq=0, ack=1)
    assert c.state == "SYN_RECEIVED"


def test_uncorked_into_a_closed_window() -> None:
    """The probe is due when it was."""
    c = far()
    _, conn = c.parts()
    c.call(SetOption(c.sock, "cork", 1))
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(100))
    due = conn.deadlines[PERSIST]
    c.advance(50)
    c.call(SetOption(c.sock, "cork", 0))
    assert conn.deadlines[PERSIST] == due > 0


@pytest.mark.parametrize(("late", "counted"), [(0, 0), (1, 1)])
def test_a_peer_that_closed_its_window_and_fell_silent(late: int, counted: int) -> None:
    """Heard of within twice the longest RTO it lives, and repeats are probes (RFC 9293 SHLD-17); else they count."""
    c = far(tlp=False, rto_max_ms=1000)
    _, conn = c.parts()
    c.write(bytes(100))
    c.quiet()
    conn.tx.snd_wnd = 0
    due = conn.deadlines[RETRANSMIT]
    conn.last_received_at = due - 2000 * MS - late
    c.advance((due - c.now) / MS)
    assert conn.retransmits == counted


def test_when_the_search_for_an_mtu_is_over_and_begins_anew() -> None:
    """Steps of probe_threshold are tried still, smaller ones not; after probe_interval_s the path may be another."""
    c, ctx, conn = probing()
    ctx.tcp.probe_threshold = 8
    conn.mtu.low, conn.mtu.high = 1076, 1084
    assert mtu_probe.probe_size(ctx, conn, c.now) == 1080 - 52
    ctx.tcp.probe_threshold = 9
    conn.mtu.begun_at = c.now - ctx.tcp.probe_interval_s * SECOND + 1
    assert (mtu_probe.probe_size(ctx, conn, c.now), conn.mtu.high) == (0, 1084)
    assert (mtu_probe.probe_size(ctx, conn, c.now + 1), conn.mtu.high) == (0, 1500)
    conn.mtu.probe_end = 5
    mtu_probe.told(conn, 1200)
    assert (conn.mtu.high, conn.mtu.low, conn.mtu.probe_end) == (1200, 1076, -1)
    HOSTS.clear()


def test_a_path_that_was_learned_before_is_forgotten_before_any_data() -> None:
    """A connection that has sent nothing yet sends larger segments too."""
    c = listening()
    c.core._ctx.routes.learn(THEIRS, 900, c.now + SECOND, c.now)
    c.inject("S", seq=0)
    c.agreed_ts = c.expect("SA").options.timestamps is not None
    c.inject("A", seq=1, ack=1)
    c.sock = c.find_message(Incoming).sock
    assert info(c)["snd_mss"] == 900 - 52
    c.advance(1000)
    assert info(c)["snd_mss"] == MSS


def test_the_lowest_that_was_overtaken() -> None:
    """Of two the first, also where the stream begins."""
    rack, news = Rack(fack=100), News(-1, -1, 0, 9)
    for start in (0, 10):
        scoreboard._arrived(Sent(start, start + 10, 1, 10), rack, news)
    assert news.low == 0


@pytest.mark.parametrize(("now", "lost"), [(169, 10), (170, 20)])
def test_what_a_timeout_holds_to_be_lost(now: int, lost: int) -> None:
    """The head, and what was sent an RTT and the reordering window ago: 50 + 100 + 20 (RFC 8985 6.3)."""
    tx, rack = space(), Rack(rtt=100)
    tx.record(10, 10, 10)
    tx.record(20, 50, 10)
    scoreboard.lose_on_timeout(tx, rack, 20, now, sack=True)
    assert tx.lost_bytes == lost


def test_nodelay_pushes_only_what_waits_for_a_cork() -> None:
    """Silly windows are avoided all the same."""
    c = established()
    c.call(SetOption(c.sock, "nodelay", 1))
    assert not c.parts()[1].override


def test_nodelay_taken_back_lets_nothing_go() -> None:
    """What Nagle holds back goes by TCP_NODELAY alone, or by its end."""
    c = established()
    c.write(b"x")
    c.write(b"y")
    c.quiet()
    c.call(SetOption(c.sock, "nodelay", 0))
    c.expect_nothing()
    c.call(SetOption(c.sock, "nodelay", 1))
    c.expect("PA", len=1)


def test_a_repeat_found_lost_by_the_timer_begins_no_new_recovery() -> None:
    """It goes again within the one that runs (RFC 8985 6.2 step 5)."""
    c = flight(20)
    _, conn = c.parts()
    sack(c, block(2, 5))
    sack(c, block(2, 9))
    conn.rack.reordering_seen = True  # so that its window is a quarter of the RTT
    c.advance(100)
    sack(c, block(2, 9), block(11, 11))
    assert not c.core.counters["lost_retransmissions"]
    c.advance(30)
    assert c.core.counters["lost_retransmissions"] == c.core.counters["fast_retransmits"] == 1


def test_sizes_after_urgent_data_are_those_of_before() -> None:
    """Of a path of 1000 bytes."""
    c = far(mtu=1000, gso_max=BIG)
    c.write(bytes(100))
    c.call(Urgent(c.sock, 100))
    c.inject("A", seq=1, ack=101)
    c.write(bytes(5000))
    assert info(c)["snd_mss"] == 948
    c.quiet()
    c.inject("A", seq=1, ack=5101)
    c.write(bytes(5000))
    assert info(c)["snd_mss"] == 948 and max(sizes(c)) > 948


def test_a_mark_on_what_was_delivered_is_not_told() -> None:
    """It ends where RCV.NXT stands (Linux tcp_check_urg); a byte farther it is news."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=bytes(10))
    for pointer, news in ((5, 0), (6, 1)):
        c.quiet()
        segment = c.segment("PAU", seq=6, ack=1, data=bytes(10 + pointer))
        segment.head = segment.head[:18] + pointer.to_bytes(2, "big") + segment.head[20:]
        before = c.core.counters["urgent_in"]
        c.parts()[1].rx.rcv_nxt = 10
        c.call(segment)
        assert c.core.counters["urgent_in"] - before == news
    HOSTS.clear()


def test_what_was_accepted_waits_no_more() -> None:
    """In the connection's own figures too."""
    assert established().tcb()["untaken"] is False


def test_a_half_open_child_ends_by_any_other_error() -> None:
    """Time exceeded, parameter problem: Linux tcp_req_err; of unreachables by those of net and host alone."""
    for kind, code, left in ((11, 0, 1), (12, 0, 1), (3, 0, 1), (3, 1, 1), (3, 3, 2)):
        c = syn_received()
        c.icmp(kind, code, seq=0)
        assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == left


def test_a_probe_that_is_not_lost_alone() -> None:
    """RFC 4821 7.6.4: then congestion may be to blame, wherever in the stream it is."""
    for lost_bytes, alone in ((1236, True), (1237, False)):
        c, ctx, conn = probing()
        conn.tx.snd_una = conn.mtu.probe_start = 5000
        conn.mtu.probe_end, conn.mtu.probe_size, conn.tx.lost_bytes = 6236, 1288, lost_bytes
        assert mtu_probe.lost(ctx, conn) is alone
        assert (conn.mtu.high, conn.mtu.probe_end) == (1287 if alone else 1500, -1)
        HOSTS.clear()
        assert c.mss == 1460


def test_nagle_by_configuration() -> None:
    """tcp.nagle: a second small piece waits, or not."""
    for nagle, out in ((True, [1]), (False, [1, 1])):
        c = established(nagle=nagle)
        c.write(b"x")
        c.write(b"y")
        assert sizes(c) == out


def test_a_syn_acknowledges_nothing() -> None:
    """Its field is 0, as Linux's."""
    c = Host()
    c.connect()
    assert c.segments[0].head[8:12] == bytes(4)


def test_a_path_mtu_is_learned_though_the_memory_of_them_is_full() -> None:
    """One of them makes room."""
    c = far()
    learned = c.core._ctx.routes.learned
    learned.update({number.to_bytes(4, "big"): (1000, c.now + SECOND) for number in range(4096)})
    c.write(bytes(3000))
    c.icmp(3, 4, seq=1, mtu=900)
    assert len(c.core._ctx.routes.learned) == 4096 and THEIRS in c.core._ctx.routes.learned


def test_a_window_of_65_536_cannot_be_said() -> None:
    """Without scaling 32,768 cannot double, 32,767 can."""
    for adv, due in ((32_768, False), (32_767, True)):
        rx = ReceiveSpace(1 << 20, 1 << 20, rcv_nxt=0, rcv_adv=adv, mss=1000)
        assert rx.update_due() is due


def test_what_goes_again_adds_up() -> None:
    """Two are twenty bytes."""
    tx = space()
    for end in (10, 20, 30):
        tx.record(end, 0, 10)
    tx.lose_all()
    for index in (0, 1):
        tx.resend(index, 5, 10)
    assert (tx.retrans_out, tx.lost_bytes) == (20, 10)
    tx.count_again()
    assert (tx.retrans_out, tx.lost_bytes) == (20, 10)
    tx = space(fin_at=29)
    for end in (10, 30):
        tx.record(end, 0, 10)
    for index in (0, 1):  # probes: neither is lost
        tx.resend(index, 5, 10)
    assert (tx.retrans_out, tx.queue[1].packets) == (30, 2)
    tx.queue[1].sacked, tx.sacked_bytes, tx.sacked_packets = True, 20, 2
    tx.split(1, 20)
    assert [row.sacked for row in tx.queue] == [False, True, True]


def test_repeats_into_a_closed_window_reduce_once() -> None:
    """The first may be for a loss; the second is a window probe, which says nothing of congestion."""
    c = far(tlp=False)
    c.write(bytes(10 * MSS))
    c.inject("A", seq=1, ack=1, win=0)
    found = []
    for _ in range(3):
        due = c.parts()[1].deadlines[RETRANSMIT]
        c.advance((due - c.now) / MS)
        found.append(c.tcb()["congestion"]["ssthresh"])
    assert found == [5 * MSS] * 3


def test_a_mark_while_something_was_named_by_sack() -> None:
    """RFC 9937 6: RecoverFS is what was outstanding, without what the peer has."""
    c = flight(10, ecn=1)
    ctx, conn = c.parts()
    sack(c, block(3, 4))
    loss.enter_cwr(ctx, conn, c.now)
    assert conn.recovery.prr.recover_fs == conn.tx.snd_nxt - conn.tx.snd_una - 2 * MSS
    assert conn.recovery.undo_marker == -1, "nothing can take it back"


def test_small_acks_add_up() -> None:
    """Each lets CUBIC grow by less than a byte."""
    cubic = Cubic(mss=1000, cwnd=10_000, ssthresh=5000, w_max=100_000, epoch_at=0, origin=100_000, k=SECOND)
    for number in range(2000):
        cubic.avoid(1, AckSample(1, 0, 0, 10_000, True, MS, MS, MS, SECOND + number))
    assert cubic.cwnd > 10_000


def test_an_undo_after_a_larger_mss() -> None:
    """Two segments of what they are by now at least (RFC 5681 3.1 equation 4)."""
    window = NewReno(mss=3000, cwnd=3000, ssthresh=6000, undo_cwnd=5000, undo_ssthresh=2000)
    window.undo(0)
    assert (window.cwnd, window.ssthresh) == (5000, 6000)


def test_a_new_core_knows_what_time_it_is() -> None:
    """From the beginning."""
    assert TcpCore(TcpCoreConfig(), random.Random(1), 77).snapshot()["now"] == 77


def test_a_hard_error_ends_who_opens_at_the_same_time_as_the_peer() -> None:
    """No child of a listener: port unreachable is for a connect (RFC 1122 4.2.3.9)."""
    c = syn_sent(icmp_abort_connect=False)
    c.inject("S", seq=0)
    assert c.state == "SYN_RECEIVED"
    c.icmp(3, 3, seq=0)
    assert c.message(Reset).errno == 111


def test_what_was_taken_before_is_no_growth() -> None:
    """Half of the buffer in a round trip is what it was made for."""
    for consumed, grew in ((1000, False), (1001, True)):
        rx = ReceiveSpace(1 << 16, 2000, mss=1, most=1 << 16, turn_from=0, turn_end=1000, consumed=consumed)
        assert rx.tune(10 * MS, 10 * MS) is grew


def test_a_send_buffer_never_shrinks() -> None:
    """However small cwnd is."""
    tx = SendSpace(1000, buffer_most=4000)
    for cwnd, buffer in ((100, 1000), (600, 1200), (9000, 4000), (100, 4000), (9000, 4000)):
        tx.tune(cwnd)
        assert tx.buffer == buffer


def test_time_wait_ends_after_a_restore_too() -> None:
    """At the instant that was set before."""
    c = time_wait()
    c.core = type(c.core).restore(c.config, c.core.snapshot())
    c.advance(60_000)
    assert c.state == "CLOSED" and not c.core._ctx.timewaits


def test_a_loss_among_what_may_be_reordered_is_told_as_such() -> None:
    """By RACK, not by the number of duplicates: event and recovery say so."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(MSS))
    c.advance(50)
    c.write(bytes(MSS))
    c.advance(100)
    conn.rack.reordering_seen = True
    c.core.interest = True
    sack(c, block(2, 2))
    events = c.core.events()
    assert {event.data["why"] for event in events if event.kind in ("loss", "recovery")} == {"rack"}


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


def test_nagle_holds_no_full_segment_back() -> None:
    """Whatever small one is under way (RFC 9293 3.7.4)."""
    c = established()
    c.write(bytes(10))
    c.write(bytes(MSS - 1))
    assert sizes(c) == [10]
    c.write(bytes(1))
    assert sizes(c) == [MSS]


def test_fast_convergence_is_for_a_window_that_shrank() -> None:
    """RFC 9438 4.7: not for one that was reached again."""
    for w_max, wanted in ((10_000, 10_000), (10_001, 8500)):
        cubic = Cubic(mss=1000, cwnd=10_000, w_max=w_max)
        cubic.reduce(10_000)
        assert cubic.w_max == wanted


def test_room_toward_the_gateway_is_used() -> None:
    """Two messages into room for two."""
    c = Host()
    for number in range(3):
        c.core.receive(Bind(number, 50 + number, b"", 0), c.now)
    assert [len(c.core.outgoing({"gateway": 2})) for _ in range(2)] == [2, 1]


def test_a_header_that_comes_with_its_data_is_taken_apart() -> None:
    """Also one without options."""
    c = established(ts=False)
    segment = c.segment("PA", seq=1, ack=1, data=b"hello")
    segment.head, segment.payload = segment.head + segment.payload, b""
    c.call(segment)
    assert c.received(0, 5) == b"hello"


def test_figures_are_whole_numbers() -> None:
    """As in struct tcp_info."""
    c = flight(5)
    c.inject("A", seq=1, ack=at(3))
    assert all(type(value) is int for value in info(c).values())


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


def test_an_isn_of_zero_can_be_configured() -> None:
    """Whoever debugs may want it: only a negative one means RFC 6528."""
    assert established(isn=0).tcb()["tx"]["iss"] == 0


@pytest.mark.parametrize("room", [0, 1])
def test_a_path_mtu_is_told_where_there_is_room(room: int) -> None:
    """Else ip learns it by its own means."""
    c = far()
    c.write(bytes(3000))
    ctx = c.core._ctx
    ctx.to_ip.extend([c.segment("A", seq=0, ack=0)] * (TO_IP_MOST - room))
    head = c.local_port.to_bytes(2, "big") + c.peer_port.to_bytes(2, "big") + (c.isn + 1).to_bytes(4, "big")
    c.core.receive(IcmpError(1, [], 3, 4, 900, b"\x0a\0\0\xfe", b"\x0a\0\0\2", THEIRS, 6, head), c.now)
    assert len(ctx.to_ip) == TO_IP_MOST and isinstance(ctx.to_ip[-1], PathMtu) is bool(room)
    ctx.to_ip.clear()
