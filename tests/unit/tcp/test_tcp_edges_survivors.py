"""What mutants showed to be untested: a bound reached exactly, a field that nobody had looked at, a choice between two
things that mostly come to the same."""

from __future__ import annotations

import pytest
from tcp_host import HOSTS, MS, MSS, PORT, THEIRS, Host, close_wait, closed, established, far, syn_sent
from test_tcp_mtu_probe import probing
from test_tcp_rack import at, flight
from test_tcp_shrunk_window import shrunk

from layers.tcp import acknowledgment, opening, output
from layers.tcp.calls import port_range
from layers.tcp.chronograph import BUSY, RWND, SNDBUF
from layers.tcp.output import TO_IP_MOST
from layers.tcp.recovery.state import CaState
from layers.tcp.scoreboard import News
from layers.tcp.timers import PERSIST
from levelip.frames.packet import Progress, Segment
from levelip.frames.seam import Listen, Result
from levelip.rpc.place import Place
from levelip.wire.options import TcpOptions
from levelip.wire.tcp import PSH

GSO = 65_536


def new(c: Host, waiting: int) -> Segment | None:
    """What `_new` makes of so many bytes more that wait."""
    ctx, conn = c.parts()
    conn.tx.snd_end += waiting
    HOSTS.clear()
    return output._new(ctx, conn, c.now)


def length(segment: Segment | None) -> int:
    """Of its payload."""
    assert segment is not None and isinstance(segment.payload, Place)
    return segment.payload.length


# SYN and SYN-ACK


def test_what_a_syn_says() -> None:
    """All that we can; nothing is acknowledged or echoed yet, and the window is of whole segments without timestamps.

    RFC 7323 2.2, 3.2.
    """
    c = Host()
    c.connect()
    c.learn_port()
    got = c.expect("S", seq=0)
    options = got.options
    assert (options.mss, options.wscale, options.sack_permitted) == (1460, 1, True)
    assert options.timestamps is not None and options.timestamps[1] == 0
    assert (got.raw_ack, got.win) == (0, 44 * 1460)


def test_what_the_syn_ack_of_a_simultaneous_open_says() -> None:
    """It echoes the peer's timestamp (RFC 7323 3.2), and its window is of segments with them."""
    c = syn_sent()
    c.inject("S", seq=0)
    got = c.expect("SA", seq=0, ack=1)
    assert got.options.timestamps is not None and got.options.timestamps[1] == c.stamp
    assert (got.options.wscale, got.options.sack_permitted, got.win) == (1, True, 45 * MSS)


def test_what_a_syn_without_ack_echoes_is_not_looked_at() -> None:
    """TSecr is valid only with ACK (RFC 7323 3.2)."""
    c = syn_sent()
    c.inject("S", seq=0, options=TcpOptions(mss=1460, timestamps=(100, 0x7654_3210)))
    assert c.state == "SYN_RECEIVED"


def test_a_syn_ack_with_text_completes_no_simultaneous_open() -> None:
    """It is a SYN in the window, and answered as one (RFC 5961 4.2)."""
    c = syn_sent()
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    c.agreed_ts = True
    c.inject("SA", seq=0, ack=1, data=b"x")
    assert c.state == "SYN_RECEIVED" and c.dropped("tcp_syn_inside") == 1


# calls


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (1500, 1800, (1500, 1800)),
        (999, 2001, (1000, 2000)),  # outside: as if not given
        (1000, 2000, (1000, 2000)),
        (0, 1200, (1000, 1200)),
    ],
)
def test_the_range_of_a_socket_within_that_of_the_stack(first: int, last: int, found: tuple[int, int]) -> None:
    """IP_LOCAL_PORT_RANGE: the first port in the lower half, the last in the upper."""
    c = closed(port_first=1000, port_last=2000)
    assert port_range(c.core._ctx, last << 16 | first) == found


def test_a_listener_that_was_not_bound_has_a_port_of_its_range() -> None:
    """Of this one there is only one."""
    c = closed()
    c.call(Listen(2, 50, "", 16, {"port_range": 40_000 << 16 | 40_000}))
    assert c.message(Result).data["port"] == 40_000


def test_the_region_of_a_listener() -> None:
    """That which it names, else the stack's own."""
    c = closed()
    ctx = c.core._ctx
    c.listen(sock=50)
    c.call(Listen(3, 51, "elsewhere", 16, {}))
    assert (ctx.listeners[50].region, ctx.listeners[51].region) == (ctx.config.own_region, "elsewhere")
    assert ctx.listeners[50].port == PORT


def test_a_receive_buffer_keeps_what_it_has_grown_to() -> None:
    """When another option is set (Linux changes sk_rcvbuf by SO_RCVBUF and SO_RCVLOWAT alone)."""
    c = established(receive_initial=8192)
    ctx, conn = c.parts()
    conn.rx.buffer = 20_000
    opening.set_receive_buffer(ctx, conn.rx, conn.options)
    assert conn.rx.buffer == 20_000


# segments


def test_a_segment_names_what_it_answers() -> None:
    """The frame that caused it; it bears no flags, and no header of ip."""
    c = established()
    c.inject("PA", seq=101, ack=1, data=b"x")
    segment = c.expect("A", seq=1, ack=1, sack=[(101, 102)]).segment
    assert (segment.causes, segment.flags, segment.network) == ([c.frame], 0, b"")


@pytest.mark.parametrize(("ip_options", "blocks"), [(0, 1), (8, 0), (20, 0)])
def test_sack_blocks_fit_in_the_smallest_packet(ip_options: int, blocks: int) -> None:
    """68 bytes: 28 for options of both headers, of which timestamps take 12 and SACK's own beginning 4."""
    c = far()
    _, conn = c.parts()
    conn.pmtu = 68
    conn.options.ip_options = bytes(ip_options)
    assert output._blocks(conn, bytes(12)) == blocks
    HOSTS.clear()


def test_a_segment_that_came_twice_is_named() -> None:
    """By a D-SACK block in the ACK that answers it (RFC 2883 4)."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=bytes(100))
    c.quiet()
    c.inject("PA", seq=1, ack=1, data=bytes(100))
    c.expect("A", seq=1, ack=101, sack=[(1, 101)])


def full() -> Host:
    """What the receive buffer takes has come, in two segments."""
    c = established(receive_buffer=4096)
    c.inject("PA", seq=1, ack=1, data=bytes(1448))
    c.inject("PA", seq=1449, ack=1, data=bytes(1448))
    assert c.parts()[1].rx.window() == 0
    return c.quiet()


def test_what_came_twice_is_named_at_a_closed_window_too() -> None:
    """Of a segment that begins in what has come and ends beyond the window (RFC 2883 4)."""
    c = full()
    c.inject("PA", seq=1449, ack=1, data=bytes(1458))
    c.expect("A", seq=1, ack=2897, sack=[(1449, 2897)])


def test_an_ack_after_the_peers_fin_is_no_text() -> None:
    """Nothing of it is dropped, and it is not answered."""
    c = close_wait()
    c.inject("A", seq=2, ack=1)
    c.expect_nothing()
    assert not [name for name in c.core.counters if name.startswith("drop.")]


def test_at_a_closed_window_acks_are_still_taken() -> None:
    """RFC 9293 3.10.7.4: "special allowance should be made to accept valid ACKs", though the text is not."""
    c = full()
    c.write(b"x" * 100)
    _, conn = c.parts()
    assert conn.tx.snd_una == 0
    c.inject("PA", seq=2897, ack=101, data=b"y")
    assert c.dropped("tcp_zero_window") == 1 and conn.tx.snd_una == 100


# acknowledgments


def test_blocks_of_an_ack_that_advances() -> None:
    """The first that tells of a hole is no duplicate (RFC 6675 2)."""
    c = flight(4)
    c.inject("A", seq=1, ack=at(2), sack=[(at(3), at(4))])
    assert c.parts()[1].tx.sacked_bytes == MSS


def test_an_ack_with_blocks_is_a_duplicate_whatever_its_window() -> None:
    """RFC 6675 2; by RFC 5681 2 one with another window is none."""
    c = flight(4)
    c.inject("A", seq=1, ack=1, sack=[(at(2), at(3))], win=300)
    assert c.parts()[1].duplicate_acks_in == 1


def test_recover_fs_counts_from_what_is_acknowledged() -> None:
    """Of eight segments two have arrived when a loss is found: six (RFC 9937 6)."""
    c = flight(8)
    c.inject("A", seq=1, ack=at(3))
    c.inject("A", seq=1, ack=at(3), sack=[(at(4), at(7))])
    recovery = c.parts()[1].recovery
    assert recovery.state == CaState.RECOVERY and recovery.prr.recover_fs == 6 * MSS


def test_no_more_goes_before_an_ack_than_there_is_room_for() -> None:
    """What waits for ip is bounded."""
    c = far()
    ctx, conn = c.parts()
    conn.tx.snd_end += MSS
    ctx.to_ip.extend([Progress(THEIRS)] * (TO_IP_MOST - len(ctx.to_ip)))
    acknowledgment._send_before(ctx, conn, c.now)
    assert len(ctx.to_ip) == TO_IP_MOST and conn.tx.snd_nxt == 0
    HOSTS.clear()


def test_where_nothing_was_measured_there_is_no_rtt() -> None:
    """A negative number."""
    c = far()
    ctx, conn = c.parts()
    assert acknowledgment._measure(ctx, conn, News(0, -1, 0, c.now), True, c.now) == -1


@pytest.mark.parametrize("unasked", [False, True])
def test_without_timestamps_what_was_sent_again_measures_nothing(unasked: bool) -> None:
    """Karn's rule (RFC 6298 3); a timestamp that was not agreed upon tells nothing either (RFC 7323 3.2)."""
    c = far(ts=False)
    _, conn = c.parts()
    conn.ts_offset = 0
    c.write(b"x" * 1000)
    c.advance(1000)
    before = conn.rto.srtt
    assert conn.tx.queue[0].times > 1
    stamps = (1, c.now // MS - 5) if unasked else None
    c.inject("A", seq=1, ack=1001, options=TcpOptions(timestamps=stamps))
    assert conn.tx.snd_una == 1000 and conn.rto.srtt == before
    HOSTS.clear()


# what goes, and what holds it back


def test_a_window_that_was_full_is_over_at_its_end() -> None:
    """At the very byte."""
    c = flight(8)
    ctx, conn = c.parts()
    conn.cwnd_limited, conn.usage, conn.usage_end = True, 9 * MSS, conn.tx.snd_una
    output._used(ctx, conn, False, c.now)
    assert (conn.cwnd_limited, conn.usage) == (False, 8 * MSS)
    HOSTS.clear()


def test_what_was_used_is_counted_anew_once_it_was_judged() -> None:
    """From nothing."""
    c = flight(8)
    ctx, conn = c.parts()
    conn.cwnd_used = 8 * MSS
    output._validate(ctx, conn, c.now)
    assert conn.cwnd_used == 0
    HOSTS.clear()


@pytest.mark.parametrize(("more", "cwnd"), [(0, 40), (1, 20)])
def test_a_window_that_is_used_in_part_is_kept_for_five_minutes(more: int, cwnd: int) -> None:
    """RFC 7661 4.4.3: not yet judged at that instant; a nanosecond later half is gone, and the time counts anew."""
    c = flight(8, slow_start_after_idle=False)
    ctx, conn = c.parts()
    conn.congestion.cwnd = conn.congestion.ssthresh = 40 * MSS
    conn.validation.defined = True  # and there is no sample of late
    since = conn.validation.valid_at = c.now - output.NOT_VALIDATED - more
    output._expire(ctx, conn, c.now)
    assert (conn.congestion.cwnd, conn.validation.valid_at) == (cwnd * MSS, c.now if more else since)
    HOSTS.clear()


def test_a_window_that_shrank_to_a_byte_takes_a_byte() -> None:
    """Of what is sent again (RFC 9293 MUST-34, SHLD-16)."""
    c = shrunk(1)
    c.advance(300)
    c.expect("A", seq=1, len=1)


@pytest.mark.rfc("RFC 9937 6.2-6")
def test_what_is_lost_is_not_in_flight() -> None:
    """After a timeout all of cwnd is there for what F-RTO sends (RFC 5682 3.1)."""
    c = flight(8)
    c.parts()[1].tx.lose_all()
    assert length(new(c, MSS)) == MSS


def test_cwnd_is_full_where_the_peers_window_is_no_smaller() -> None:
    """Both end at the same byte: Linux tcp_write_xmit asks for cwnd first."""
    c = far()
    _, conn = c.parts()
    conn.congestion.cwnd = conn.tx.snd_wnd = 3000
    conn.cwnd_limited = False
    new(c, 5 * MSS)
    assert conn.cwnd_limited


def test_a_long_path_is_not_waited_for() -> None:
    """Two segments more than a millisecond's worth go though they are less than a third of the window."""
    c = far(gso_max=GSO)
    c.write(bytes(8 * MSS))
    assert length(new(c, 20 * MSS)) == 2 * MSS


def test_a_window_as_small_as_cwnd_is_silly_still() -> None:
    """RFC 9293 MUST-38: it holds back, too, so that rule (3) is asked: less than half of the largest waits."""
    c = far()
    _, conn = c.parts()
    conn.congestion.cwnd = conn.tx.snd_wnd = 1000
    assert new(c, 5000) is None
    assert conn.deadlines[PERSIST] >= 0


def test_what_nagle_holds_back_is_not_held_back_by_the_window() -> None:
    """All of it fits, though less than cwnd lets go."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(100))
    conn.tx.snd_wnd = 2000
    assert new(c, 300) is None
    assert conn.chrono.kind == BUSY


def small_outstanding() -> Host:
    """A piece below MSS is out, so that Nagle holds back another."""
    c = far(gso_max=GSO)
    c.write(bytes(100))
    return c


@pytest.mark.parametrize("size", [500, MSS + 500])
def test_the_end_of_a_record_waits_for_nothing_behind_it(size: int) -> None:
    """MSG_EOR, and more behind it: it goes as it is, and is pushed."""
    c = small_outstanding()
    _, conn = c.parts()
    conn.tx.records = [conn.tx.snd_nxt + size]
    segment = new(c, 3000)
    assert length(segment) == size
    assert segment is not None and segment.head[13] & PSH


def test_the_peers_window_holds_back_no_more_once_something_goes() -> None:
    """The time counts as busy again."""
    c = far()
    _, conn = c.parts()
    conn.chrono.turn(RWND, c.now)
    assert length(new(c, MSS)) == MSS
    assert conn.chrono.kind == BUSY


@pytest.mark.parametrize(("segments", "beyond", "kind"), [(3, 0, SNDBUF), (3, 1, BUSY), (10, 0, BUSY)])
def test_the_send_buffer_holds_back_where_all_that_it_takes_is_out(segments: int, beyond: int, kind: int) -> None:
    """All that the application may write; but not where cwnd is full, too."""
    c = far()
    ctx, conn = c.parts()
    conn.chrono.turn(BUSY, c.now)
    conn.tx.limit = segments * MSS + beyond
    conn.tx.snd_end += segments * MSS
    HOSTS.clear()
    for _ in range(segments):
        assert output._new(ctx, conn, c.now) is not None
    assert conn.chrono.kind == kind


def test_a_probe_of_the_mtu_is_data() -> None:
    """A pause is counted from it."""
    c = probing()
    ctx, conn = c.parts()
    conn.last_data_sent_at = 0
    conn.tx.snd_end += 5000
    output._mtu_probe(ctx, conn, 0, 1236, c.now)
    assert conn.last_data_sent_at == c.now
    HOSTS.clear()


def test_a_tail_probe_of_one_new_byte() -> None:
    """There is one, and the window takes one (RFC 8985 7.3)."""
    c = flight(2)
    ctx, conn = c.parts()
    nxt = conn.tx.snd_nxt
    conn.tx.snd_end += 1
    conn.tx.snd_wnd = nxt + 1 - conn.tx.snd_una
    assert length(output._tail_probe(ctx, conn, c.now)) == 1
    assert conn.tx.snd_nxt == nxt + 1 and not conn.recovery.probe_again
    HOSTS.clear()
