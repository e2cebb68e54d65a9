"""SYN cookies, RFC 4987: what they hold, when they are sent, how a connection comes of one; and what a flood costs."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from tcp_host import MS, OURS, Got, Host

from layers.tcp.isn import timestamp_offset
from layers.tcp.syn_cookies import MSS_TABLE, PERIOD, make_cookie, make_stamp, read_cookie, read_stamp
from levelip.frames.packet import Checksum, Segment
from levelip.frames.seam import Incoming, Listen, Taken
from levelip.rpc.stream import Consumed, Data
from levelip.wire.options import TcpOptions

ISN = dict[str, Any]
SECRET, WHO = b"s" * 32, b"four-tuple.."


# the format


@pytest.mark.rfc("RFC 4987 3.6")
@pytest.mark.parametrize(
    ("mss", "kept"), [(1460, 1460), (9000, 1460), (1459, 1440), (1300, 1300), (1299, 536), (88, 536)]
)
def test_the_largest_mss_of_the_table_that_fits(mss: int, kept: int) -> None:
    """A smaller one than asked for does no harm; 536 is what everybody must take."""
    assert read_cookie(SECRET, WHO, 77, make_cookie(SECRET, WHO, 77, mss, 0), 0) == kept
    assert kept in MSS_TABLE


@pytest.mark.rfc("RFC 4987 3.6-3")
def test_a_cookie_is_good_for_two_periods() -> None:
    """Made at 10 s in period 5, good to the end of period 6."""
    now = 5 * PERIOD + 10 * 1000 * MS
    cookie = make_cookie(SECRET, WHO, 1, 1460, now)
    assert read_cookie(SECRET, WHO, 1, cookie, now) == 1460
    assert read_cookie(SECRET, WHO, 1, cookie, 7 * PERIOD - 1) == 1460
    assert read_cookie(SECRET, WHO, 1, cookie, 7 * PERIOD) == 0
    assert read_cookie(SECRET, WHO, 1, cookie, 5 * PERIOD - 1) == 0  # and none of the future


@pytest.mark.rfc("RFC 4987 3.6-4")
def test_a_cookie_is_of_one_peer_and_one_syn() -> None:
    """Another secret, four-tuple or IRS: none. Of 4096 guesses none is right (each has a chance of 4 * 2 in 2^32)."""
    cookie = make_cookie(SECRET, WHO, 2**32 - 1, 1460, 0)
    assert read_cookie(SECRET, WHO, 2**32 - 1, cookie, 0) == 1460
    assert read_cookie(b"t" * 32, WHO, 2**32 - 1, cookie, 0) == 0
    assert read_cookie(SECRET, b"another", 2**32 - 1, cookie, 0) == 0
    assert read_cookie(SECRET, WHO, 1000, cookie, 0) == 0
    assert not any(read_cookie(SECRET, WHO, 5, guess << 20, 0) for guess in range(4096))


@pytest.mark.parametrize("scale", [None, 0, 7, 14])
@pytest.mark.parametrize("sack", [False, True])
@pytest.mark.parametrize("ecn", [False, True])
def test_a_stamp_holds_six_bits_and_is_never_of_the_future(scale: int | None, sack: bool, ecn: bool) -> None:
    """Linux cookie_init_timestamp: rounded down to 64 ticks, and 64 less where the bits would bring it ahead."""
    for ticks in range(1000, 1200):
        stamp = make_stamp(ticks, scale=scale, sack=sack, ecn=ecn)
        assert ticks - 64 < stamp <= ticks
        assert read_stamp(stamp) == (scale, sack, ecn)


# in LISTEN


def full(**how: Any) -> Host:
    """A listener with backlog 1 whose one half-open place is taken, by port 1."""
    c = Host(**how)
    c.listen(backlog=1)
    c.inject("S", seq=0, src_port=1)
    c.expect("SA")
    return c


def cookie_syn(c: Host, port: int, **fields: Any) -> Got:
    """A SYN from `port` that is answered with a cookie; `c.isn` is the cookie then."""
    c.agreed_ts = False
    c.inject("S", seq=0, src_port=port, **fields)
    c.isn = struct.unpack_from(">I", c.segments[0].head, 4)[0]
    got = c.expect("SA", seq=0, ack=1)
    c.agreed_ts = got.options.timestamps is not None
    return got


@pytest.mark.rfc("RFC 4987 3.6-1")
def test_a_full_backlog_is_answered_with_a_cookie_and_nothing_is_kept(isn: ISN) -> None:
    """The SYN-ACK looks like any other; of the SYN nothing is left."""
    c = full(**isn)
    before = len(c.core.control(1, "ss", {}, c.now)["sockets"])
    got = cookie_syn(c, 2)
    assert got.options.mss == 1460 and got.options.wscale == 1 and got.options.sack_permitted
    assert got.win == 65_160  # 45 segments of 1448, as any SYN-ACK
    assert got.options.timestamps is not None and got.options.timestamps[1] == c.stamp
    assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == before
    assert c.core.counters["syn_cookies_sent"] == 1 and c.core.next_timer() is not None
    c.advance(5_000)
    assert all(Got(c, segment).ports[1] == 1 for segment in c.segments)  # nothing is repeated but what is half open


def test_its_frame_is_as_that_of_any_other_syn_ack() -> None:
    """In all but number and cause: what ip is to do with it is the same."""
    plain = Host()
    plain.listen()
    plain.inject("S", seq=0, src_port=2)
    c = full()
    c.inject("S", seq=0, src_port=2)
    assert c.core.counters["syn_cookies_sent"] == 1
    names = [name for name in Segment.__struct_fields__ if name not in ("id", "causes", "head")]
    of_cookie, of_other = ([getattr(host.segments[0], name) for name in names] for host in (c, plain))
    assert of_cookie == of_other


@pytest.mark.rfc("RFC 9293 3.10.7.2", "RFC 4987 3.6-2")
def test_the_ack_brings_the_connection_back_with_all_its_options(isn: ISN) -> None:
    """MSS, scaling (the peer's 7), SACK and timestamps as if the SYN had been remembered; data rides on the ACK."""
    c = full(**isn)
    cookie_syn(c, 2)
    c.advance(30)
    c.quiet()
    c.win = 100
    c.inject("PA", seq=1, ack=1, data=b"hello", src_port=2)
    told = c.message(Incoming)
    c.sock, c.rings = told.sock, told.rings
    assert c.message(Data).offset == 0
    assert c.received(0, 5) == b"hello"
    tcb = c.tcb()
    assert tcb["peer_mss"] == 1460 and tcb["sack"] and tcb["timestamps"] and tcb["tx"]["shift"] == 7
    assert tcb["tx"]["snd_wnd"] == 100 << 7
    assert tcb["congestion"]["cwnd"] == 10 * 1448 and tcb["rto"]["srtt"] == 0  # nobody knows when the SYN-ACK went
    c.peer_port = 2
    c.expect("A", seq=1, ack=6)
    c.call(Consumed(c.sock, 5))
    c.call(Taken(50, c.sock))
    c.write(b"world")
    c.expect("PA", seq=1, ack=6, data=b"world")
    assert c.core.counters["syn_cookies_good"] == 1


@pytest.mark.parametrize("window_clamp", [0, 100_000])
@pytest.mark.parametrize("moderate", [True, False])
def test_a_cookie_offers_the_scale_that_the_connection_will_use(window_clamp: int, moderate: bool) -> None:
    """However large the receive buffer may grow: 4 MB (shift 7), 256 KB (3), 100,000 bytes (1)."""
    c = Host(receive_ring=1 << 22, receive_buffer=1 << 22, moderate_rcvbuf=moderate)
    c.listen(backlog=1, options={"window_clamp": window_clamp})
    c.inject("S", seq=0, src_port=1)
    c.expect("SA")
    got = cookie_syn(c, 2)
    c.inject("A", seq=1, ack=1, src_port=2)
    c.sock = c.message(Incoming).sock
    assert got.options.wscale == c.tcb()["rx"]["shift"] == (1 if window_clamp else 7 if moderate else 3)


@pytest.mark.rfc("RFC 4987 3.6-2")
def test_without_timestamps_the_mss_alone_is_kept(isn: ISN) -> None:
    """No scaling, no SACK: neither is offered in the SYN-ACK. Linux tcp_conn_request, tcp_clear_options."""
    c = full(ts=False, mss=1300, **isn)
    got = cookie_syn(c, 2)
    assert got.options == TcpOptions(mss=1460)
    c.inject("A", seq=1, ack=1, src_port=2, win=500)
    c.sock = c.message(Incoming).sock
    tcb = c.tcb()
    assert not tcb["scaling"] and not tcb["sack"] and not tcb["timestamps"]
    assert tcb["peer_mss"] == 1300 and tcb["tx"]["snd_wnd"] == 500 and tcb["rx"]["shift"] == 0


@pytest.mark.rfc("RFC 9293 3.10.7.2", "RFC 4987 3.6-3", "RFC 4987 3.6-4")
def test_what_is_no_cookie_is_answered_with_a_reset(isn: ISN) -> None:
    """A guess, one that is too old, and any ACK while no cookie can be under way."""
    c = full(**isn)
    c.inject("A", seq=1, ack=1, src_port=9)
    c.expect("R", seq=1)
    assert c.core.counters["syn_cookies_bad"] == 0  # not even looked at
    cookie_syn(c, 2)
    c.inject("A", seq=1, ack=2, src_port=2)
    c.expect("R", seq=2)
    assert c.core.counters["syn_cookies_bad"] == 1
    c.advance(150_000)
    c.quiet()
    c.inject("A", seq=1, ack=1, src_port=2)
    c.expect("R", seq=1)
    assert c.core.counters["syn_cookies_good"] == 0


def test_an_echo_that_claims_what_we_never_offered(isn: ISN) -> None:
    """SACK bit though tcp.sack is off: refused. Linux cookie_timestamp_decode."""
    c = full(sack=False, **isn)
    c.core.set("sack", False, c.now)
    cookie_syn(c, 2)
    offset = timestamp_offset(b"i" * 32, b"\x0a\0\0\2", b"\x0a\0\0\1")
    stamp = (c.last_tsval - offset) & 0xFFFFFFFF
    c.last_tsval = ((stamp & ~0x3F | 0x17) + offset) & 0xFFFFFFFF
    c.inject("A", seq=1, ack=1, src_port=2)
    c.expect("R", seq=1)
    assert c.core.counters["syn_cookies_bad"] == 1


def test_no_room_to_accept_keeps_nothing(isn: ISN) -> None:
    """The accept queue is full when the cookie comes back: the ACK counts as lost, and comes again with data."""
    c = full(**isn)
    cookie_syn(c, 2)
    first = c.isn
    c.call(Listen(3, 50, "", 0))
    c.quiet()
    cookie_syn(c, 3)
    c.inject("A", seq=1, ack=1, src_port=3)
    c.message(Incoming)  # backlog 0 lets one wait
    c.isn = first
    c.inject("A", seq=1, ack=1, src_port=2)
    c.no_message()
    c.expect_nothing()
    assert c.dropped("accept_queue_full") == 1
    assert [row["state"] for row in c.core.control(1, "ss", {}, c.now)["sockets"]].count("SYN_RECEIVED") == 1
    c.call(Listen(3, 50, "", 5))
    c.quiet()
    c.inject("PA", seq=1, ack=1, data=b"again", src_port=2)
    c.message(Incoming)


def test_abort_on_overflow(isn: ISN) -> None:
    """Linux tcp_abort_on_overflow: RST instead of patience."""
    c = Host(abort_on_overflow=True, **isn)
    c.listen(backlog=0)
    for port in (1, 2):
        c.agreed_ts = False
        c.call(Listen(3, 50, "", 5))
        c.inject("S", seq=0, src_port=port)
        c.expect("SA")
    c.call(Listen(3, 50, "", 0))
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1, src_port=1)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1, src_port=2)
    c.expect("RA", seq=1)
    assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == 2  # listener, and the one that waits


def test_always() -> None:
    """syncookies 2: a cookie for every SYN."""
    c = Host(syncookies=2, isn=-1)
    c.listen()
    cookie_syn(c, 1)
    c.inject("A", seq=1, ack=1, src_port=1)
    c.message(Incoming)
    assert c.core.counters["syn_cookies_good"] == 1


def test_without_cookies_max_syn_backlog_bounds() -> None:
    """syncookies 0, max_syn_backlog 8: the last quarter is for peers known to be real, so 6. Linux tcp_conn_request."""
    c = Host(syncookies=0, max_syn_backlog=8)
    c.listen(backlog=100)
    for port in range(1, 11):
        c.inject("S", seq=0, src_port=port)
    assert len(c.segments) == 6 and c.dropped("syn_queue_full") == 4


def test_a_half_open_connection_costs_no_ring() -> None:
    """Four slots, ten half-open connections; slots are taken by those that complete."""
    c = Host(connections=4)
    c.listen(backlog=20)
    for port in range(1, 11):
        c.inject("S", seq=0, src_port=port)
    assert len(c.segments) == 10
    c.agreed_ts = True
    for port in range(1, 6):
        c.inject("A", seq=1, ack=1, src_port=port)
    assert sum(type(message) is Incoming for message in c.messages) == 4
    assert c.dropped("tcp_no_slot") == 1


def test_a_snapshot_keeps_the_time_of_the_last_cookie() -> None:
    """The ACK is known after a restore as before."""
    c = full()
    cookie_syn(c, 2)
    c.core = type(c.core).restore(c.config, c.core.snapshot())
    c.inject("A", seq=1, ack=1, src_port=2)
    c.message(Incoming)


# a flood


@pytest.mark.rfc("RFC 4987 3.6", "RFC 9293 3.9.1.1")
def test_a_flood_of_100_000_syns() -> None:
    """From 100,000 port pairs in 10 s: the backlog costs less than 2 MB and the rest nothing, 128 are half open, a real
    client comes in with its options and its bytes, and an established connection goes on."""
    c = Host(connections=64)
    c.listen(backlog=128)
    c.inject("S", seq=0, src_port=7)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1, src_port=7)
    old = c.message(Incoming)
    c.call(Taken(50, old.sock))
    template = c.segment("S", seq=0, options=TcpOptions(mss=1460, wscale=7, sack_permitted=True, timestamps=(1, 0)))
    tail = template.head[2:]

    def flood(first: int, last: int) -> None:
        for number in range(first, last):
            source = b"\x0a\0\0" + bytes((3 + number // 50_000,))
            head = struct.pack(">H", 10_000 + number % 50_000) + tail
            segment = Segment(number, [], False, c.now, 0, source, OURS, 6, 64, 0, head, b"", int(Checksum.VERIFIED), 0)
            c.core.receive(segment, c.now)
            c.core.outgoing({})
            if number % 1000 == 999:
                c.now += 100 * MS
                c.core.handle_timer(c.now)

    tracemalloc.start()
    flood(0, 4000)
    filled = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    flood(4000, 96_000)
    tracemalloc.start()
    flood(96_000, 100_000)
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert filled < 2_000_000, f"{filled / 1024:.0f} KB"
    assert grown < 200_000, f"{grown / 1024:.0f} KB"
    listener = c.core.control(1, "ss", {}, c.now)["sockets"][0]
    assert listener["half_open"] == 128
    assert c.core.counters["syn_cookies_sent"] == 100_000 - 128
    c.quiet()
    cookie_syn(c, 4711)
    c.inject("PA", seq=1, ack=1, data=b"real", src_port=4711)
    told = c.message(Incoming)
    c.rings = told.rings
    assert c.message(Data).sock == told.sock and c.received(0, 4) == b"real"
    c.isn = 1000
    c.inject("PA", seq=1, ack=1, data=b"still", src_port=7)
    assert c.message(Data).sock == old.sock
