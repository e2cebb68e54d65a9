"""How long TCP waits: R1, R2 (RFC 9293 3.8.3), the user timeout (RFC 5482) in all its places, and orphans."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, MSS, THEIRS, Host, established, fin_wait_1, syn_received, syn_sent

from layers.tcp.orphans import too_many
from layers.tcp.patience import clamped, doubted, exhausted, granted, model
from layers.tcp.states import State
from levelip.config import TcpConfig
from levelip.frames.seam import Close, Incoming, SetOption, Taken
from levelip.rpc.stream import Reset
from levelip.wire.options import TcpOptions

ISN = dict[str, Any]


def first_reset(c: Host, at_most_ms: int, step: int = 10) -> int:
    """Milliseconds until the application hears of the end."""
    start = c.now
    for _ in range(at_most_ms // step):
        c.advance(step)
        if any(type(message) is Reset for message in c.messages):
            return (c.now - start) // MS
    raise AssertionError("no end")


@pytest.mark.rfc("RFC 9293 3.8.3", "RFC 9293 SHLD-10", "RFC 9293 SHLD-11")
def test_the_model() -> None:
    """From 200 ms, doubling to 120 s: 1 + 2 + 4 + ... times 0.2. Nine doublings stay below 120 s (0.2 * 512 = 102.4).

    3 → 0.2 * 15 = 3 s; 8 → 0.2 * 511 = 102.2 s; 15 → 0.2 * 1023 + 6 * 120 = 924.6 s, as Linux documents."""
    tcp = TcpConfig()
    floor, ceiling = tcp.rto_min_ms, tcp.rto_max_ms
    assert model(tcp.retries1, floor, ceiling) == 3000
    assert model(8, floor, ceiling) == 102_200
    assert model(tcp.retries, floor, ceiling) == 924_600
    assert model(0, floor, ceiling) == 200
    assert tcp.retries1 >= 3 and model(tcp.retries, floor, ceiling) >= 100_000


@pytest.mark.rfc("RFC 9293 MUST-20", "RFC 9293 SHLD-11")
def test_r2_is_a_time(isn: ISN) -> None:
    """retries 5: 0.2 * 63 = 12.6 s, the sixth timeout at an RTO of 200 ms. With an RTO of 3 s (SYN lost, no timestamps:
    RFC 6298 5.7) timeouts come at 3, 9, 21 s, and the third is past 12.6 s: two repeats only."""
    c = established(tlp=False, retries=5, mtu_probing=0, **isn)
    c.write(b"x")
    c.quiet()
    assert 12_600 <= first_reset(c, 20_000) <= 12_700
    assert len(c.segments) == 5
    slow = syn_received(tlp=False, retries=5, ts=False, mtu_probing=0, **isn)
    slow.advance(1000)
    slow.expect("SA")
    slow.inject("A", seq=1, ack=1)
    told = slow.message(Incoming)
    slow.sock, slow.rings = told.sock, told.rings
    slow.call(Taken(50, told.sock))
    slow.write(b"x")
    slow.quiet()
    assert 21_000 <= first_reset(slow, 60_000) <= 21_020
    assert len(slow.segments) == 2


@pytest.mark.rfc("RFC 9293 MUST-22")
def test_a_syn_is_given_up_by_count(isn: ISN) -> None:
    """syn_retries 2: at 1, 3 s again, given up at 7 s."""
    c = syn_sent(syn_retries=2, **isn)
    assert 7000 <= first_reset(c, 10_000) <= 7010
    assert len(c.segments) == 2


# RFC 5482, the local side


@pytest.mark.rfc("RFC 9293 MUST-21", "RFC 5482 3-1")
def test_user_timeout_of_data_is_exact(isn: ISN) -> None:
    """1500 ms: timeouts at 0.2, 0.6, 1.4 s; the timer is shortened so that the end comes at 1.5 s, not at 3.0
    (Linux tcp_clamp_rto_to_user_timeout). It is longer than R2 as well, if asked for."""
    c = established(tlp=False, **isn)
    c.call(SetOption(c.sock, "user_timeout_ms", 1500))
    c.write(b"x")
    c.quiet()
    assert 1500 <= first_reset(c, 5000) <= 1510
    assert len(c.segments) == 3
    d = established(tlp=False, retries=1, **isn)
    d.call(SetOption(d.sock, "user_timeout_ms", 60_000))
    d.write(b"x")
    assert 60_000 <= first_reset(d, 70_000) <= 60_010


@pytest.mark.rfc("RFC 5482 3", "RFC 9293 3.8.6.1")
def test_user_timeout_of_window_probes(isn: ISN) -> None:
    """Without answers 2000 ms after the first probe (at 200 ms): 2.2 s. Answered, for ever (MUST-37)."""
    c = established(**isn)
    c.call(SetOption(c.sock, "user_timeout_ms", 2000))
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"x")
    c.quiet()
    took = first_reset(c, 10_000)
    assert 2190 <= took <= 2220


@pytest.mark.rfc("RFC 9293 MUST-37")
def test_answered_window_probes_go_on_for_ever(isn: ISN) -> None:
    """An hour of zero window with a peer that answers, though retries is 3. Probes at 0.2, 0.6, 1.4, ... s and in
    the end each 120 s: 0.2 * (2^10 - 1) = 204.6 s are the first ten, 28 more fit into the hour."""
    c = established(retries=3, **isn)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"x")
    probes = 0
    for _ in range(36_000):
        c.advance(100)
        if c.segments:
            c.expect("A", seq=0)
            probes += 1
            c.inject("A", seq=1, ack=1, win=0)
            c.expect_nothing()
    assert c.state == "ESTABLISHED" and probes == 38


@pytest.mark.rfc("RFC 9293 3.8.4", "RFC 5482 4.2-1", "RFC 5482 3-1")
def test_user_timeout_of_keep_alives(isn: ISN) -> None:
    """It replaces keepcnt: idle 1 s, interval 1 s, user timeout 4.5 s: probes at 1, 2, 3, 4 s; the end at 5 s."""
    c = established(**isn)
    for name, value in (("user_timeout_ms", 4500), ("keepidle_ms", 1000), ("keepintvl_ms", 1000), ("keepcnt", 2)):
        c.call(SetOption(c.sock, name, value))
    c.call(SetOption(c.sock, "keepalive", 1))
    c.quiet()
    assert 5000 <= first_reset(c, 10_000) <= 5010
    assert len(c.segments) == 5  # four probes and the RST


@pytest.mark.rfc("RFC 5482 3.1-3")
def test_the_option_of_the_peer_changes_nothing(isn: ISN) -> None:
    """UTO (kind 28) is for us to ignore where the application has not enabled it; it comes through unharmed."""
    c = established(ts=False, **isn)
    before = c.tcb()["options"]
    c.inject("PA", seq=1, ack=1, data=b"x", options=TcpOptions(unknown=((28, b"\x80\x3c"),)))
    assert c.received(0, 1) == b"x"
    assert c.tcb()["options"] == before


# orphans


@pytest.mark.rfc("RFC 9293 3.10.4")
def test_too_many_orphans_are_reset_when_they_close(isn: ISN) -> None:
    """max_orphans 1: the second is reset. One that ends makes room."""
    c = Host(max_orphans=1, **isn)
    c.listen()
    socks = []
    for port in (1, 2, 3):
        c.agreed_ts = False
        c.inject("S", seq=0, src_port=port)
        c.expect("SA")
        c.agreed_ts = True
        c.inject("A", seq=1, ack=1, src_port=port)
        socks.append(c.message(Incoming).sock)
        c.call(Taken(50, socks[-1]))
    c.call(Close(socks[0]))
    c.expect("FA")
    c.call(Close(socks[1]))
    c.expect("RA")
    assert c.dropped("tcp_too_many_orphans") == 1
    c.inject("R", seq=1, src_port=1)
    c.call(Close(socks[2]))
    c.expect("FA")


def test_an_orphan_that_waits_in_vain_makes_room_sooner(isn: ISN) -> None:
    """The limit was lowered while it is an orphan: its next timeout ends it, with RST."""
    c = fin_wait_1(tlp=False, **isn)
    c.close()
    c.core.set("max_orphans", 0, c.now)
    c.advance(201)
    c.expect("RA")
    assert c.state == "CLOSED" and c.dropped("tcp_too_many_orphans") == 1


@pytest.mark.rfc("RFC 9293 3.8.3")
def test_an_orphan_has_orphan_retries(isn: ISN) -> None:
    """orphan_retries 2: 0.2 * 7 = 1.4 s; the FIN goes three times in all."""
    c = established(tlp=False, orphan_retries=2, **isn)
    c.write(b"x" * MSS)
    c.close()
    c.quiet()
    c.advance(1300)
    assert c.state == "FIN_WAIT_1"
    c.advance(200)
    assert c.state == "CLOSED"
    assert len(c.segments) == 2


def test_orphans_are_counted_across_a_snapshot(isn: ISN) -> None:
    """The future is the same."""
    c = fin_wait_1(**isn)
    c.close()
    restored = type(c.core).restore(c.config, c.core.snapshot())
    assert restored.snapshot()["orphans"] == [c.sock]
    assert restored.snapshot() == c.core.snapshot()


@pytest.mark.rfc("RFC 9293 MUST-22", "RFC 4987 3.3")
def test_a_half_open_child_is_given_up_in_silence(isn: ISN) -> None:
    """synack_retries 2: the SYN-ACK again at 1 and 3 s; at 7 s the place in the backlog is free, and nobody is told."""
    c = syn_received(synack_retries=2, **isn)
    c.advance(6_990)
    assert len(c.segments) == 2 and c.state == "SYN_RECEIVED"
    c.advance(20)
    assert c.state == "CLOSED" and len(c.segments) == 2
    c.no_message()
    listener = c.core.control(1, "ss", {}, c.now)["sockets"][0]
    assert listener["half_open"] == 0


@pytest.mark.rfc("RFC 9293 MUST-20")
@pytest.mark.parametrize("isn", [{}, {"isn": 2**32 - 3}])
def test_from_r1_on_ip_is_asked_whether_the_way_is_good(isn: dict[str, int]) -> None:
    """retries1 3, so R1 is 0.2 x 15 = 3 s: timeouts at 0.2, 0.6, 1.4 s say nothing, those at 3.0 and 6.2 s do; an
    answer ends it. (Without SACK no loss probe takes the place of the first.)"""
    c = established(sack=False, **isn)
    c.write(b"x")
    c.advance(2990)
    assert not c.doubts
    c.advance(20)
    assert [doubt.dst for doubt in c.doubts] == [THEIRS]
    c.advance(3200)
    assert len(c.doubts) == 2
    c.inject("A", seq=1, ack=2)
    c.write(b"y")
    c.advance(1400)
    assert len(c.doubts) == 2


# at their limits


def test_r1_and_r2_are_reached_at_their_instant() -> None:
    """retries1 1: 0.2 + 0.4 s; retries 2: 0.2 + 0.4 + 0.8 s from when what is oldest was sent; no nanosecond earlier.
    Before a first timeout there is nothing to doubt."""
    c = established(retries=2, retries1=1)
    ctx, conn = c.parts()
    conn.first_timeout_at = 5
    for judge, limit in ((doubted, 600 * MS), (lambda *args: exhausted(*args, 2), 1400 * MS)):
        conn.retransmits = 0
        assert not judge(ctx, conn, 5 + limit)
        conn.retransmits = 1
        assert not judge(ctx, conn, 5 + limit - 1)
        assert judge(ctx, conn, 5 + limit)
    conn.options.user_timeout_ms = 7
    assert not exhausted(ctx, conn, 5 + 7 * MS - 1, 2) and exhausted(ctx, conn, 5 + 7 * MS, 2)


def test_what_is_granted() -> None:
    """A connection: tcp.retries. An orphan: orphan_retries, if that is less; none if ICMP spoke of it and its RTO has
    come to the ceiling, where nothing is alive any more (Linux tcp_orphan_retries)."""
    c = established(retries=9, orphan_retries=4)
    ctx, conn = c.parts()
    assert granted(ctx, conn) == 9
    conn.orphan = True
    assert granted(ctx, conn) == 4
    conn.soft_error = 113
    assert granted(ctx, conn) == 4
    conn.rto.rto = ctx.tcp.rto_max_ms * MS
    assert granted(ctx, conn) == 0
    conn.soft_error = 0
    assert granted(ctx, conn) == 4
    ctx.tcp.retries = 3
    assert granted(ctx, conn) == 3


def test_a_wait_that_the_user_timeout_cuts() -> None:
    """What is left of 1000 ms, a millisecond at least; without a user timeout, or before a first timeout, all of it."""
    c = established()
    _, conn = c.parts()
    conn.first_timeout_at = 0
    assert clamped(conn, 900 * MS, 400 * MS) == 400 * MS
    conn.options.user_timeout_ms = 1000
    assert clamped(conn, 500 * MS, 400 * MS) == 400 * MS
    assert clamped(conn, 900 * MS, 400 * MS) == 100 * MS
    assert clamped(conn, 2000 * MS, 400 * MS) == MS
    conn.first_timeout_at = -1
    assert clamped(conn, 900 * MS, 400 * MS) == 400 * MS


def test_orphans_of_which_icmp_spoke_go_first() -> None:
    """Half the limit holds for them: of two orphans under a limit of two, one with a soft error is one too many."""
    c = established(max_orphans=2)
    ctx, conn = c.parts()
    conn.orphan = True
    ctx.orphans.update({c.sock: True, 7: True})
    assert not too_many(ctx, conn, c.now) and conn.state == State.ESTABLISHED
    conn.soft_error = 113
    c.quiet()
    assert too_many(ctx, conn, c.now)
    c.flush()
    c.expect("RA", seq=1)
    assert conn.state == State.CLOSED and c.dropped("tcp_too_many_orphans") == 1
    alone = established(max_orphans=2)
    ctx, conn = alone.parts()
    conn.soft_error = 113
    assert not too_many(ctx, conn, alone.now)  # no orphan
