"""Where tcp decides between two things that lie close together: ports, opening, SYN cookies, ends."""

from __future__ import annotations

from tcp_host import THEIRS, Got, Host, connected, established, far, syn_received, syn_sent, time_wait

from levelip.frames.seam import Bind, Close, Connect, Incoming, Listen, NeighbourUp, Result, SetOption, Taken
from levelip.rpc.stream import Eof, Reset

RING = 65_536


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


def test_half_of_the_orphans_are_allowed_where_icmp_spoke() -> None:
    """Of 3: one is not too many (Linux tcp_out_of_resources: a shift by one)."""
    c = far(max_orphans=3, tlp=False)
    c.write(bytes(100))
    c.close()
    c.icmp(3, 1, seq=1)
    c.quiet()
    c.advance(1000)
    assert c.segments and "R" not in Got(c, c.segments[0]).flags


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


def test_no_syn_ack_again_without_retries() -> None:
    """tcp.synack_retries 0."""
    c = Host(synack_retries=0)
    c.listen()
    c.inject("S", seq=0)
    c.quiet()
    c.advance(1000)
    c.expect_nothing()
    assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == 1


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


def test_an_ack_before_the_first_byte_completes_no_handshake() -> None:
    """In SYN-RECEIVED only a SYN may stand there."""
    c = syn_received()
    c.inject("A", seq=0, ack=1)
    assert c.state == "SYN_RECEIVED"


def test_what_was_accepted_waits_no_more() -> None:
    """In the connection's own figures too."""
    assert established().tcb()["untaken"] is False


def test_a_half_open_child_ends_by_any_other_error() -> None:
    """Time exceeded, parameter problem: Linux tcp_req_err; of unreachables by those of net and host alone."""
    for kind, code, left in ((11, 0, 1), (12, 0, 1), (3, 0, 1), (3, 1, 1), (3, 3, 2)):
        c = syn_received()
        c.icmp(kind, code, seq=0)
        assert len(c.core.control(1, "ss", {}, c.now)["sockets"]) == left


def test_a_syn_acknowledges_nothing() -> None:
    """Its field is 0, as Linux's."""
    c = Host()
    c.connect()
    assert c.segments[0].head[8:12] == bytes(4)


def test_a_hard_error_ends_who_opens_at_the_same_time_as_the_peer() -> None:
    """No child of a listener: port unreachable is for a connect (RFC 1122 4.2.3.9)."""
    c = syn_sent(icmp_abort_connect=False)
    c.inject("S", seq=0)
    assert c.state == "SYN_RECEIVED"
    c.icmp(3, 3, seq=0)
    assert c.message(Reset).errno == 111


def test_time_wait_ends_after_a_restore_too() -> None:
    """At the instant that was set before."""
    c = time_wait()
    c.core = type(c.core).restore(c.config, c.core.snapshot())
    c.advance(60_000)
    assert c.state == "CLOSED" and not c.core._ctx.timewaits


def test_an_isn_of_zero_can_be_configured() -> None:
    """Whoever debugs may want it: only a negative one means RFC 6528."""
    assert established(isn=0).tcb()["tx"]["iss"] == 0
