"""The calls of the gateway at their edges: what is repeated, comes too late or is about nothing; who holds a port; and
cookies that come back just in time, with just what was offered."""

from __future__ import annotations

import errno

import pytest
from tcp_host import OURS, PEER_PORT, THEIRS, Got, Host, connected, established, listening, syn_sent
from test_tcp_syn_cookies import cookie_syn, full

from layers.tcp.half_open import new_child
from layers.tcp.isn import timestamp_offset
from layers.tcp.syn_cookies import PERIOD, PERIODS
from levelip.frames.packet import Route, Routes
from levelip.frames.seam import Bind, Close, Connect, Incoming, Listen, Released, Result, StoreFailed, Taken
from levelip.rpc.stream import Consumed, Eof, Reset, Send
from levelip.wire.options import TcpOptions

RING = 65_536
LOOPBACK6 = bytes(15) + b"\x01"


def children(c: Host, *ports: int, ecn: bool = False) -> list[Incoming]:
    """Connections from these ports, as they are offered to the application."""
    found = []
    for port in ports:
        c.agreed_ts = False
        c.inject("SEC" if ecn else "S", seq=0, src_port=port)
        c.agreed_ts = c.expect("SAE" if ecn else "SA").options.timestamps is not None
        c.inject("A", seq=1, ack=1, src_port=port)
        found.append(c.find_message(Incoming))
    return found


# ports


def test_a_socket_may_bind_again_what_it_holds() -> None:
    """It is no conflict with itself, be the port named or chosen."""
    c = Host(port_first=40_000, port_last=40_000)
    for sock, port in ((50, 80), (51, 0)):
        for _ in range(2):
            c.call(Bind(1, sock, b"", port))
            assert c.message(Result).data == {"address": bytes(4), "port": port or 40_000}


def test_whoever_may_not_listen_does_not_listen() -> None:
    """SO_REUSEADDR let it be bound; when the first is gone, a third may bind beside it."""
    c = Host()
    c.listen(reuse=True)
    c.call(Bind(1, 51, b"", 80, True))
    assert c.message(Result).errno == errno.EADDRINUSE  # somebody listens
    c.call(Close(50))
    c = Host()
    for sock in (50, 51):
        c.call(Bind(1, sock, b"", 80, True))
    c.call(Listen(2, 50, "", 1))
    c.quiet()
    c.call(Listen(2, 51, "", 1))
    assert c.message(Result).errno == errno.EADDRINUSE
    c.call(Close(50))
    c.quiet()
    c.call(Bind(3, 52, b"", 80, True))
    assert c.message(Result).errno == 0


def test_a_bound_socket_that_is_closed_gives_its_port_back() -> None:
    """Unconnected; or reset by the peer with something unread, so that it was kept until now."""
    c = Host()
    c.call(Bind(1, 60, b"", 5000))
    c.call(Close(60))
    c.message(Result)
    c.message(Released)
    c.call(Bind(1, 61, b"", 5000))
    assert c.message(Result).errno == 0
    c.connect(sock=61)
    c.learn_port()
    c.expect("S")
    c.inject("SA", seq=0, ack=1)
    c.agreed_ts = True
    c.expect("A")
    c.inject("PA", seq=1, ack=1, data=b"unread")
    c.inject("R", seq=7)
    assert c.state == "CLOSED" and c.row() is not None
    c.quiet()
    c.call(Close(61))
    c.message(Released)
    c.call(Bind(1, 62, b"", 5000))
    assert c.message(Result).errno == 0


def test_two_listeners_of_one_port_end_one_by_one() -> None:
    """SO_REUSEPORT: the other goes on; after both the port is closed."""
    c = Host()
    for sock in (50, 51):
        c.call(Bind(1, sock, b"", 80, False, True))
        c.call(Listen(2, sock, "", 4))
    c.quiet()
    c.call(Close(50))
    c.inject("S", seq=0)
    c.expect("SA")
    c.call(Close(51))
    c.quiet()
    c.agreed_ts = False
    c.inject("S", seq=0, src_port=9)
    c.expect("RA", ack=1)
    c.call(Bind(1, 52, b"", 80))
    assert c.find_message(Result).errno == 0


# connect


@pytest.mark.parametrize(("to", "where"), [(bytes(4), b"\x7f\0\0\1"), (bytes(16), LOOPBACK6)])
def test_to_nowhere_is_to_ourselves(to: bytes, where: bytes) -> None:
    """0.0.0.0 and :: are the loopback address, as in Linux."""
    c = Host()
    rows = [Route(b"\x7f\0\0\0", 8, b"\x7f\0\0\1", 65_535, 0), Route(LOOPBACK6, 128, LOOPBACK6, 65_535, 0)]
    c.call(Routes(rows, [OURS]))
    c.call(Connect(60, "", to, 80))
    assert c.segments[0].dst == where


@pytest.mark.parametrize("to", [b"\xff" * 4, bytes((224, 0, 0, 1))])
def test_no_connection_to_many(to: bytes) -> None:
    """RFC 9293 3.9.2.3 (MUST-46): whatever the routes say."""
    c = Host()
    c.call(Routes([Route(bytes(4), 0, OURS, 1500, 0)], [OURS]))
    c.call(Connect(60, "", to, 80))
    assert c.message(Reset).errno == errno.ENETUNREACH and not c.segments


def test_no_room_for_one_more_is_told_of_no_frame() -> None:
    """ENOBUFS; an application asked, no segment."""
    c = syn_sent(connections=1)
    c.core.interest = True
    c.call(Connect(61, "", THEIRS, PEER_PORT))
    assert c.message(Reset).errno == errno.ENOBUFS
    assert [(event.reason, event.frame) for event in c.core.events() if event.kind == "drop"] == [("tcp_no_slot", 0)]


@pytest.mark.parametrize("last", [2**32 - 65_537, 2**32 - 65_538])
def test_what_takes_the_place_of_time_wait_begins_beyond_it(last: int) -> None:
    """65,537 beyond its last number (RFC 9293 3.6.1), be that 0; each is counted."""
    c = Host(port_first=40_000, port_last=40_000, tw_reuse=1, isn=-1)
    for count in range(3):
        c.sock, c.agreed_ts = 60 + count, False
        c.connect(sock=c.sock)
        assert c.core.counters.get("time_wait_reused", 0) == count
        c.learn_port()
        first = int.from_bytes(c.segments[0].head[4:8], "big")
        assert not count or first == (last + 65_537) & 0xFFFF_FFFF
        c.isn = first
        c.expect("S", seq=0)
        c.irs += 100_000
        c.inject("SA", seq=0, ack=1)
        c.agreed_ts = True
        c.close()
        c.inject("FA", seq=1, ack=2)
        assert c.state == "TIME_WAIT" or c.row() is None
        ctx = c.core._ctx
        [record] = ctx.timewaits.values()
        record.snd_nxt = last
        c.quiet()
        c.advance(2000)


@pytest.mark.parametrize("mtu", [1000, 576])
def test_a_syn_that_has_not_gone_yet_offers_what_the_new_route_can(mtu: int) -> None:
    """The routes changed while it waited."""
    c = Host()
    c.core.receive(Connect(60, "", THEIRS, PEER_PORT), c.now)
    c.routes(mtu)
    c.flush()
    assert Got(c, c.segments[0]).options.mss == mtu - 40


# the streams


def test_what_is_said_again_changes_nothing() -> None:
    """The last Send after the end was said; Consumed; the end itself, at whatever offset."""
    c = established(receive_initial=8192)
    c.write(b"hello")
    c.shut()
    c.quiet()
    for again in (Send(c.sock, 0, 5), Eof(c.sock, 5), Eof(c.sock, 9), Eof(c.sock, 2), Consumed(c.sock, 0)):
        before = c.core.snapshot()["connections"], dict(c.core.counters)
        c.call(again)
        assert (c.core.snapshot()["connections"], dict(c.core.counters)) == before, again
        c.expect_nothing()
        c.no_message()


def test_a_stream_that_ended_before_its_first_byte_ends_there() -> None:
    """An end that is said once more, further on, is not heard."""
    c = established()
    c.shut()
    c.quiet()
    c.call(Eof(c.sock, 5))
    c.no_message()
    assert c.dropped("tcp_send_gap") == 0 and c.tcb()["tx"]["eof"] == 0
    c.call(Send(c.sock, 0, 5))
    assert c.dropped("tcp_send_after_eof") == 1


def test_no_end_is_sent_of_what_is_closed() -> None:
    """The peer has reset it, and something is unread."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"unread")
    c.inject("R", seq=7)
    c.quiet()
    c.call(Eof(c.sock, 0))
    c.expect_nothing()
    assert c.state == "CLOSED" and c.tcb()["tx"]["eof"] == -1


@pytest.mark.parametrize(("unread", "abort", "told"), [(0, False, 0), (6, False, 1), (6, True, 0), (0, True, 0)])
def test_unread_bytes_are_told_of_if_they_are_why(unread: int, abort: bool, told: int) -> None:
    """RFC 2525 2.17: the reset of a close(); one that was wanted has another reason. Nor of a SYN that waits."""
    c = established()
    if unread:
        c.inject("PA", seq=1, ack=1, data=bytes(unread))
    c.close(abort=abort)
    assert c.dropped("tcp_unread") == told
    c = syn_sent()
    c.close()
    assert c.dropped("tcp_unread") == 0


def test_memory_that_is_lost_is_of_one_connection() -> None:
    """Its neighbour in the same region goes on, and a half-open one has no memory yet."""
    c = listening()
    first, second = children(c, 1, 2)
    c.agreed_ts = False
    c.inject("S", seq=0, src_port=3)
    c.quiet()
    c.call(StoreFailed(first.rings.send(0, 1)))
    assert c.find_message(Reset).sock == first.sock
    c.call(StoreFailed(first.rings.send(0, 1)))
    c.no_message()
    rows = {row["sock"]: row["state"] for row in c.core.control(1, "ss", {}, c.now)["sockets"]}
    assert rows[second.sock] == "ESTABLISHED" and "SYN_RECEIVED" in rows.values()
    assert c.dropped("tcp_memory_lost") == 1


# opening


@pytest.mark.parametrize(
    ("nagle", "option", "held"), [(False, -1, False), (True, -1, True), (False, 0, True), (True, 1, False)]
)
def test_small_segments_are_held_as_the_application_says(nagle: bool, option: int, held: bool) -> None:
    """TCP_NODELAY, and where it has not been set tcp.nagle."""
    c = connected(nagle=nagle, connect={"nodelay": option} if option >= 0 else {})
    c.write(b"a")
    c.write(b"b")
    assert c.sizes() == ([1] if held else [1, 1])


def test_buffers_of_no_size_are_as_small_as_may_be() -> None:
    """SO_SNDBUF and SO_RCVBUF of 0: 4096 bytes."""
    c = connected(connect={"sndbuf": 0, "rcvbuf": 0})
    assert (c.tcb()["tx"]["buffer"], c.tcb()["rx"]["buffer"]) == (4096, 4096)
    assert c.tcb()["tx"]["buffer_most"] == c.tcb()["rx"]["most"] == 4096


def test_what_overflows_is_counted_each_time() -> None:
    """By the listener that could not take it."""
    c = Host(ts=False)
    c.listen(backlog=4)
    for port in (1, 2, 3):
        c.inject("S", seq=0, src_port=port)
    c.inject("A", seq=1, ack=1, src_port=1)
    c.call(Listen(3, 50, "", 0))
    for port in (2, 3):
        c.inject("A", seq=1, ack=1, src_port=port)
    row = c.row(50)
    assert row is not None and row["overflows"] == 2


def test_every_connection_with_ecn_is_counted() -> None:
    """Two are two."""
    c = listening(ecn=1)
    children(c, 1, 2, ecn=True)
    assert c.core.counters["ecn_connections"] == 2


# cookies


def test_a_cookie_offers_only_what_is_configured() -> None:
    """No scaling with tcp.window_scaling off, and it is good all the same."""
    c = full(window_scaling=False)
    assert cookie_syn(c, 2).options.wscale is None
    c.inject("A", seq=1, ack=1, src_port=2)
    c.message(Incoming)
    assert c.core.counters["syn_cookies_good"] == 1


def test_a_scale_beyond_the_largest_is_the_largest() -> None:
    """RFC 7323 2.3: 15 counts as 14, also where a cookie keeps it."""
    c = full(wscale=15)
    cookie_syn(c, 2)
    c.inject("A", seq=1, ack=1, src_port=2)
    c.sock = c.message(Incoming).sock
    assert c.tcb()["tx"]["shift"] == 14 and c.tcb()["scaling"]


def test_the_window_of_a_cookie_fits_its_field() -> None:
    """65,535 at most: of whole segments of 1024 bytes 63, though 64 would fit into the buffer."""
    c = full(mtu=1076, receive_initial=RING)
    assert cookie_syn(c, 2).win == 63 * 1024


def test_a_cookie_is_looked_at_while_one_can_be_under_way() -> None:
    """Two periods after the last, to the nanosecond; beyond that none is even bad."""
    for late in (0, 1):
        c = full()
        cookie_syn(c, 2)
        c.now += PERIODS * PERIOD + late
        c.quiet()
        c.core.receive(c.segment("A", seq=1, ack=2, src_port=2), c.now)
        assert c.core.counters.get("syn_cookies_bad", 0) == 1 - late


def test_each_echo_of_what_was_not_offered_is_counted() -> None:
    """SACK, which is off."""
    c = full(sack=False)
    c.core.set("sack", False, c.now)
    for count in (1, 2):
        cookie_syn(c, 1 + count)
        offset = timestamp_offset(b"i" * 32, OURS, THEIRS)
        stamp = (c.last_tsval - offset) & 0xFFFF_FFFF
        c.last_tsval = ((stamp & ~0x3F | 0x17) + offset) & 0xFFFF_FFFF
        c.inject("A", seq=1, ack=1, src_port=1 + count)
        c.expect("R", seq=1)
        assert c.core.counters["syn_cookies_bad"] == count


def test_what_a_cookie_made_remembers_its_last_ack() -> None:
    """RFC 7323 4.3: TSval is taken of segments up to it alone; a byte beyond a hole is none."""
    c = full()
    cookie_syn(c, 2)
    c.inject("A", seq=1, ack=1, src_port=2)
    c.sock = c.message(Incoming).sock
    c.call(Taken(50, c.sock))
    before = c.tcb()["ts_recent"]
    c.inject("A", seq=2, ack=1, data=b"x", ts=c.stamp + 50, src_port=2)
    assert c.tcb()["ts_recent"] == before


def test_a_cookie_that_finds_no_room_is_told_with_its_segment() -> None:
    """The change of state back to CLOSED names the ACK."""
    c = full()
    cookie_syn(c, 2)
    first = c.isn
    c.call(Listen(3, 50, "", 0))
    c.quiet()
    cookie_syn(c, 3)
    c.inject("A", seq=1, ack=1, src_port=3)
    c.isn = first
    c.core.interest = True
    c.inject("A", seq=1, ack=1, src_port=2)
    states = [event for event in c.core.events() if event.kind == "state"]
    assert [(event.data["new"], event.frame) for event in states] == [("SYN_RECEIVED", c.frame), ("CLOSED", c.frame)]


def test_an_initial_sequence_number_of_0_is_one() -> None:
    """A cookie may be."""
    c = listening()
    ctx = c.core._ctx
    route = ctx.routes.lookup(THEIRS)
    assert route is not None
    segment = c.segment("A", seq=1, ack=1)
    child = new_child(ctx, ctx.listeners[50], segment, (80, 4711), 5000, 1000, TcpOptions(mss=1460), route, c.now, 0)
    assert child.tx.iss == 0
