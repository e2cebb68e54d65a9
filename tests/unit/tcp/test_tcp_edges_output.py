"""Where tcp decides between two things that lie close together: how much of a window goes, repeats, probes, timers."""

from __future__ import annotations

import errno

import pytest
from tcp_host import HOSTS, MS, MSS, PEER_PORT, THEIRS, Got, closed, far, time_wait
from test_tcp_rack import at, flight

from layers.tcp import output, timeouts
from layers.tcp.mtu_probe import headers
from layers.tcp.output import TO_IP_MOST, next_segment
from layers.tcp.timers import PERSIST
from levelip.frames.packet import Doubt
from levelip.frames.seam import Connect, SetOption, StoreFailed
from levelip.rpc.place import Place
from levelip.rpc.stream import Reset, Urgent

SECOND = 1000 * MS


# what of cwnd is used


@pytest.mark.parametrize(
    ("limited", "before", "flying", "after"),
    [
        (False, 3, 4, 4),  # the most in flight
        (False, 4, 4, 4),
        (False, 5, 4, 5),
        (True, 5, 4, 4),  # full: that counts
    ],
)
def test_the_most_in_flight_of_a_window(limited: bool, before: int, flying: int, after: int) -> None:
    """Wherever in the stream it is; until what was in flight then is acknowledged (Linux tcp_cwnd_validate)."""
    c = flight(8)
    c.inject("A", seq=1, ack=at(9 - flying))
    ctx, conn = c.parts()
    conn.cwnd_limited, conn.usage, conn.usage_end = False, before * MSS, conn.tx.snd_nxt + 1
    output._used(ctx, conn, limited, c.now)
    assert (conn.cwnd_limited, conn.usage) == (limited, after * MSS)
    assert conn.usage_end == conn.tx.snd_nxt + (after == before)
    HOSTS.clear()


def test_a_window_that_was_full_stays_so_until_its_end() -> None:
    """Less that goes meanwhile changes nothing, however much it is."""
    c = flight(8)
    ctx, conn = c.parts()
    conn.cwnd_limited, conn.usage, conn.usage_end = True, 9 * MSS, conn.tx.snd_nxt
    output._used(ctx, conn, False, c.now)
    assert conn.cwnd_limited and conn.usage == 9 * MSS
    HOSTS.clear()


@pytest.mark.parametrize(("waited", "cwnd"), [(-1, 40), (0, 25)])
def test_a_window_that_is_not_used_for_an_rto_comes_down(waited: int, cwnd: int) -> None:
    """Halfway to the 10 that were in flight at most, at the RTO and not before (RFC 2861 3.2)."""
    c = flight(8)
    ctx, conn = c.parts()
    conn.congestion.cwnd, conn.congestion.ssthresh = 40 * MSS, 40 * MSS
    conn.cwnd_limited, conn.cwnd_used = False, 10 * MSS
    conn.cwnd_full_at = c.now - conn.rto.rto - waited
    output._used(ctx, conn, False, c.now)
    assert conn.congestion.cwnd == cwnd * MSS
    HOSTS.clear()


@pytest.mark.parametrize(("segments", "full"), [(9, False), (10, True)])
def test_cwnd_is_used_where_all_of_it_is_in_flight(segments: int, full: bool) -> None:
    """Ten segments: that is all, though nothing waits; and also later in the stream."""
    c = far()
    c.write(bytes(MSS))
    c.inject("A", seq=1, ack=at(2))
    _, conn = c.parts()
    conn.congestion.cwnd = 10 * MSS
    conn.cwnd_limited, conn.usage_end = False, 0
    c.write(bytes(segments * MSS))
    assert conn.cwnd_limited is full


def test_what_nagle_holds_back_uses_no_window() -> None:
    """It would just fill cwnd, and is not sent."""
    c = far()
    _, conn = c.parts()
    conn.congestion.cwnd = conn.congestion.ssthresh = 2 * MSS
    c.write(bytes(MSS + 100))
    c.write(bytes(MSS - 100))
    assert conn.tx.snd_nxt == MSS + 100
    assert not conn.cwnd_limited


@pytest.mark.rfc("RFC 5681 4.1-1")
@pytest.mark.parametrize(("more", "cwnd"), [(0, 40), (1, 20)])
def test_a_pause_of_more_than_an_rto_brings_the_window_down(more: int, cwnd: int) -> None:
    """At the RTO all of it may go still; a nanosecond later half."""
    c = flight(8)
    c.inject("A", seq=1, ack=at(9))
    ctx, conn = c.parts()
    conn.congestion.cwnd = conn.congestion.ssthresh = 40 * MSS
    now = conn.last_data_sent_at + conn.rto.rto + more
    conn.tx.snd_end += MSS
    conn.cwnd_used, conn.cwnd_full_at = 9 * MSS, now
    segment = output._new(ctx, conn, now)
    assert segment is not None
    assert conn.congestion.cwnd == cwnd * MSS
    assert (conn.last_data_sent_at, conn.cwnd_full_at) == (now, now)
    HOSTS.clear()


@pytest.mark.parametrize(("more", "forgotten"), [(0, False), (1, True)])
def test_without_a_restart_a_window_is_kept_for_five_minutes(more: int, forgotten: bool) -> None:
    """RFC 7661 4.4.3: not at that instant; a nanosecond later half is gone, and the time counts anew."""
    c = flight(8, slow_start_after_idle=False)
    c.inject("A", seq=1, ack=at(9))
    ctx, conn = c.parts()
    conn.congestion.cwnd = conn.congestion.ssthresh = 40 * MSS
    now = conn.last_data_sent_at + 300 * SECOND + more
    conn.tx.snd_end += 40 * MSS
    since = conn.validation.valid_at = conn.last_data_sent_at
    assert output._new(ctx, conn, now) is not None
    assert conn.validation.valid_at == (now if forgotten else since)
    assert conn.congestion.cwnd == (20 if forgotten else 40) * MSS
    HOSTS.clear()


def test_a_pause_is_forgotten_though_nothing_can_go_after_it() -> None:
    """The window is closed then: the pause has reduced cwnd once, and not again when the window opens."""
    c = flight(8)
    c.inject("A", seq=1, ack=at(9))
    ctx, conn = c.parts()
    conn.congestion.cwnd = 40 * MSS
    conn.tx.snd_wnd, conn.tx.snd_end = 0, conn.tx.snd_end + MSS
    now = conn.last_data_sent_at + conn.rto.rto + 1
    assert output._new(ctx, conn, now) is None
    assert conn.last_data_sent_at == now and conn.cwnd_used == 0
    conn.last_data_sent_at = now - 100 * MS
    assert output._new(ctx, conn, now) is None
    assert conn.last_data_sent_at == now - 100 * MS, "no pause yet"
    HOSTS.clear()


@pytest.mark.parametrize(("told", "ms", "interactive"), [(1, 39, True), (1, 40, False), (0, 39, False)])
def test_an_answer_that_comes_soon_makes_a_dialogue(told: int, ms: int, interactive: bool) -> None:
    """Within the time that an ACK may wait for it (Linux tcp_event_data_sent): the next ones are worth waiting for."""
    c = far(delayed_ack_ms=40)
    _, conn = c.parts()
    if told:
        c.inject("PA", seq=1, ack=1, data=b"question")
    else:
        conn.last_data_received_at = c.now
    c.advance(ms)
    conn.interactive = False
    c.write(b"answer")
    assert conn.interactive is interactive


@pytest.mark.parametrize(("room", "goes"), [(3, False), (4, True), (5, True)])
def test_less_than_a_third_of_the_window_waits_for_more(room: int, goes: bool) -> None:
    """ACKs are on their way, and it is less than a millisecond's worth (Linux tcp_tso_should_defer). A third of 12
    segments and a byte are 4 of them."""
    c = far(gso_max=20 * MSS)
    ctx, conn = c.parts()
    cwnd = 12 * MSS + 1
    conn.congestion.cwnd = conn.congestion.ssthresh = cwnd
    c.write(bytes((12 - room) * MSS))
    conn.rto.srtt = 1
    conn.tx.snd_end += 30 * MSS
    segment = output._new(ctx, conn, c.now)
    assert (segment is not None) is goes
    assert segment is None or len(segment.payload) == room * MSS
    HOSTS.clear()


def test_a_cork_holds_back_what_follows_urgent_data() -> None:
    """Only what is urgent goes through it (Linux tcp_nagle_test); all of that is acknowledged."""
    c = far()
    c.write(b"urgent")
    c.call(Urgent(c.sock, 6))
    c.inject("A", seq=1, ack=7)
    c.call(SetOption(c.sock, "cork", 1))
    c.quiet()
    c.write(b"small")
    c.expect_nothing()


# repeats


@pytest.mark.parametrize(("packets", "fin", "whole"), [(2, True, True), (2, False, True), (3, True, False)])
def test_a_fin_takes_no_room_in_what_goes_again(packets: int, fin: bool, whole: bool) -> None:
    """Two packets at most go as one, with the FIN or without; of three the third goes by itself, the FIN with it."""
    c = far(gso_max=3 * MSS, tlp=False)
    c.write(bytes(packets * MSS))
    if fin:
        c.shut()
    ctx, conn = c.parts()
    tx = conn.tx
    tx.most = 2 * MSS
    row = tx.queue[0]
    for later in tx.queue[1:]:
        row.end, row.packets = later.end, row.packets + later.packets
    del tx.queue[1:]
    c.quiet()
    tx.mark_lost(0)
    ctx.want_output(conn)
    c.flush()
    got = [Got(c, segment) for segment in c.segments]
    assert got[0].len == 2 * MSS
    assert ("F" in got[0].flags) is (fin and whole)
    assert len(got) == (1 if whole else 2)


def test_a_segment_of_just_more_than_fits_is_cut() -> None:
    """A byte beyond two packets is no FIN: it goes by itself."""
    for end in (-1, 2 * MSS + 2, 2 * MSS + 1):
        c = far(gso_max=3 * MSS, tlp=False)
        c.write(bytes(3 * MSS))
        c.quiet()
        ctx, conn = c.parts()
        tx = conn.tx
        del tx.queue[1:]
        tx.most, tx.fin_at, tx.snd_end = 2 * MSS, end, tx.snd_end
        tx.queue[0].end = tx.snd_nxt = 2 * MSS + 1
        tx.mark_lost(0)
        segment = output._again(ctx, conn, c.now)
        assert segment is not None and len(segment.payload) == 2 * MSS
        HOSTS.clear()


# loss probes, RFC 8985 7.3


@pytest.mark.rfc("RFC 8985 7.3-1")
@pytest.mark.parametrize(("room", "new"), [(99, False), (100, True)])
def test_a_probe_of_new_data_needs_room_in_the_window(room: int, new: bool) -> None:
    """100 bytes wait, and the peer's window takes just these; else the last packet goes again."""
    c = far()
    c.write(bytes(2 * MSS))
    c.quiet()
    ctx, conn = c.parts()
    conn.tx.snd_end += 100
    conn.tx.snd_wnd = 2 * MSS + room
    segment = output._tail_probe(ctx, conn, c.now)
    assert segment is not None
    assert conn.recovery.probe_again is not new
    assert len(segment.payload) == (100 if new else MSS)
    HOSTS.clear()


@pytest.mark.rfc("RFC 9293 3.8.6")
@pytest.mark.parametrize("room", [100, 101])
def test_the_fin_behind_a_probe_needs_room_too(room: int) -> None:
    """It takes one in the sequence space."""
    c = far()
    c.write(bytes(2 * MSS))
    c.quiet()
    ctx, conn = c.parts()
    conn.tx.snd_end += 100
    conn.tx.fin_at = conn.tx.snd_end
    conn.tx.snd_wnd = 2 * MSS + room
    segment = output._tail_probe(ctx, conn, c.now)
    assert segment is not None
    assert conn.tx.snd_nxt == 2 * MSS + room
    assert ("F" in Got(c, segment).flags) is (room == 101)
    HOSTS.clear()


@pytest.mark.rfc("RFC 8985 7.3-1")
def test_a_probe_is_one_packet_of_a_super_segment() -> None:
    """The last of two, behind another super-segment."""
    c = far(gso_max=3 * MSS + 200)
    c.write(bytes(5 * MSS))
    assert c.sizes() == [3 * MSS, 2 * MSS]
    c.advance(290)
    assert c.core.counters["loss_probes"] == 1
    c.expect("PA", seq=at(5), len=MSS)


# the MTU's probe


def test_a_probe_of_the_mtu_is_one_packet() -> None:
    """Where it is in the stream changes nothing of its size, nor how it would be cut."""
    c = far(mtu_probing=2, initial_window=20)
    c.write(bytes(5000))
    c.inject("A", seq=1, ack=5001)
    c.quiet()
    ctx, conn = c.parts()
    conn.tx.snd_end = 30_000
    segment = output._mtu_probe(ctx, conn, 5000, 6236, c.now)
    row = conn.tx.queue[-1]
    assert (row.size, row.packets, segment.gso_size, len(segment.payload)) == (1236, 1, 0, 1236)
    HOSTS.clear()


def test_a_search_that_is_over_begins_anew() -> None:
    """After tcp.probe_interval_s, when there is something to send: the path may have changed (RFC 4821 7.4)."""
    c = far(mtu_probing=2, initial_window=20, probe_interval_s=60)
    ctx, conn = c.parts()
    conn.mtu.high = conn.mtu.low
    conn.tx.snd_end = 30_000
    begun = conn.mtu.begun_at
    assert next_segment(ctx, conn, begun + 60 * SECOND - 1) is not None
    assert conn.mtu.high == conn.mtu.low
    assert next_segment(ctx, conn, begun + 60 * SECOND) is not None
    assert (conn.mtu.high, conn.mtu.begun_at) == (1500, begun + 60 * SECOND)
    HOSTS.clear()


def test_a_probe_is_larger_than_what_arrives_already() -> None:
    """However near the search has come."""
    c = far(mtu_probing=2, initial_window=20, probe_threshold=0)
    ctx, conn = c.parts()
    conn.tx.snd_end = 30_000
    conn.mtu.low = conn.mtu.high = conn.tx.mss + headers(conn)
    segment = next_segment(ctx, conn, c.now)
    assert segment is not None and c.core.counters["mtu_probes"] == 0
    HOSTS.clear()


# what is not data


def test_a_reset_for_nobody_is_as_ip_sends_anything() -> None:
    """TTL and TOS are ip's: 0 leaves them to it."""
    c = closed()
    c.inject("A", seq=1, ack=1)
    got = c.expect("R", seq=1)
    assert (got.segment.ttl, got.segment.tos) == (0, 0)


@pytest.mark.rfc("RFC 9293 3.10.5")
@pytest.mark.parametrize("sent", [False, True])
def test_memory_lost_before_the_peer_has_answered(sent: bool) -> None:
    """In SYN-SENT no RST goes, be the SYN out or not: whatever answers it finds nobody, and has its own."""
    c = closed()
    c.sock = 60
    c.core.receive(Connect(60, "", THEIRS, PEER_PORT, {}), c.now)
    if sent:
        c.flush()
        c.learn_port()
        c.expect("S", seq=0)
    rings = c.parts()[1].rings
    c.call(StoreFailed(Place(rings.region, rings.receive_base, rings.receive_size, 0, 0)))
    c.expect_nothing()
    assert c.message(Reset, sock=60).errno == errno.ECONNRESET
    if sent:
        c.inject("SA", seq=0, ack=1)
        c.expect("R", seq=1)


def test_a_closed_window_hears_of_urgent_data_where_the_stream_is() -> None:
    """RFC 9293 MUST-66: from SND.UNA on, whatever was sent before; and where all of it has arrived, of none."""
    for urgent in (True, False):
        c = far()
        c.write(bytes(1000))
        if not urgent:
            c.call(Urgent(c.sock, 1000))
        c.inject("A", seq=1, ack=1001, win=0)
        c.write(bytes(10))
        if urgent:
            c.call(Urgent(c.sock, c.sent))
        c.quiet()
        c.advance(400)
        got = Got(c, c.segments[0])
        assert (got.seq, "U" in got.flags) == ((1001, True) if urgent else (1000, False))


# timers


def test_all_that_is_due_fires_at_once() -> None:
    """Though a TIME-WAIT that is over comes first."""
    c = time_wait()
    [record] = c.core._ctx.timewaits.values()
    c.now = record.deadline - 500 * MS
    c.connect(sock=61)
    c.quiet()
    c.now = record.deadline + 500 * MS
    c.core.handle_timer(c.now)
    assert not c.core._ctx.timewaits
    c.flush()
    c.expect("S")


@pytest.mark.parametrize("room", [1, 0])
def test_ip_is_not_asked_where_there_is_no_room(room: int) -> None:
    """R1 has passed, and the way is in doubt: that is a hint (RFC 9293 3.8.3 (b))."""
    c = far(retries1=0)
    c.write(b"x")
    ctx, conn = c.parts()
    c.advance(1000)
    c.quiet()
    assert conn.retransmits
    ctx.to_ip.extend([None] * (TO_IP_MOST - room))
    timeouts._retransmit(ctx, conn, c.now)
    asked = [frame for frame in ctx.to_ip if isinstance(frame, Doubt)]
    assert len(asked) == room
    ctx.to_ip.clear()
    HOSTS.clear()


def test_an_orphan_at_a_closed_window_is_one_of_too_many() -> None:
    """ICMP spoke of it, so that half as many are too many (Linux' shift): its probe's time is a reset's."""
    c = far(max_orphans=1)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"never")
    c.close()
    _, conn = c.parts()
    assert conn.orphan and conn.deadlines[PERSIST] > 0
    conn.soft_error = errno.EHOSTUNREACH
    c.quiet()
    c.advance(1000)
    c.expect("RA")
    assert c.dropped("tcp_too_many_orphans") == 1 and c.state == "CLOSED"


def test_a_probe_of_the_mtu_that_rack_finds_lost() -> None:
    """Its timer blames the size, as an ACK would (RFC 4821 7.5): nothing is reduced."""
    c = far(mtu_probing=2, initial_window=20)
    c.write(bytes(15_000))
    got = [Got(c, segment) for segment in c.segments]
    probe = next(one for one in got if one.len == 1236)
    c.quiet()
    c.advance(100)
    before = c.tcb()["congestion"]["cwnd"]
    c.inject("A", seq=1, ack=probe.seq, sack=[(probe.seq + 1236, probe.seq + 1236 + 1024)])
    assert c.tcb()["mtu"]["probe_end"] > 0
    c.advance(60)
    assert c.tcb()["mtu"]["probe_end"] == -1
    assert c.core.counters["fast_retransmits"] == 0
    assert c.tcb()["congestion"]["ssthresh"] >= before


def test_where_segments_shrink_no_more_there_is_no_black_hole() -> None:
    """At the floor nothing is told nor counted."""
    c = far(mtu_probing=2, base_mss=1024, mtu_probe_floor=1024, retries1=0)
    c.write(bytes(3000))
    c.advance(3000)
    assert c.core.counters["rto_timeouts"] >= 2
    assert c.core.counters["mtu_black_holes"] == 0
