"""How connections open: RFC 9293 3.5, 3.10.7.2, 3.10.7.3."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import (
    OURS,
    PEER_PORT,
    PORT,
    THEIRS,
    Host,
    closed,
    connected,
    established,
    listening,
    syn_received,
    syn_sent,
)

from levelip.frames.packet import Checksum
from levelip.frames.seam import Close, Connect, Connected, Incoming, Released
from levelip.rpc.stream import Data, Eof, Reset, Send
from levelip.wire.options import TcpOptions

ISN = dict[str, Any]


@pytest.mark.rfc("RFC 9293 3.5", "RFC 7323 3.2-6")
def test_active_open(isn: ISN) -> None:
    """SYN out, SYN-ACK in, ACK out, and the gateway is told where the rings lie. RFC 9293 3.5 figure 6."""
    c = Host(**isn)
    c.connect()
    c.learn_port()
    syn = c.expect("S", seq=0, len=0, win=64_240, ports=(c.local_port, PEER_PORT), checksum=Checksum.PARTIAL)
    assert syn.options == TcpOptions(mss=1460, wscale=1, sack_permitted=True, timestamps=syn.options.timestamps)
    assert syn.options.timestamps is not None and syn.options.timestamps[1] == 0
    assert c.state == "SYN_SENT"
    c.inject("SA", seq=0, ack=1)
    c.expect("A", seq=1, ack=1)
    told = c.message(Connected, sock=60, local_address=OURS, remote_address=THEIRS, remote_port=PEER_PORT)
    assert told.local_port == c.local_port
    assert told.limit == 65_536
    assert told.rings.send_size == 65_536 and told.rings.receive_base == told.rings.send_base + 65_536
    assert c.state == "ESTABLISHED"
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 3.5")
def test_passive_open(isn: ISN) -> None:
    """SYN in, SYN-ACK out, ACK in; only then does the application hear of it. RFC 9293 3.10.7.2."""
    c = listening(**isn)
    c.inject("S", seq=0)
    answer = c.expect("SA", seq=0, ack=1, ports=(PORT, PEER_PORT))
    assert answer.options.mss == 1460 and answer.options.sack_permitted and answer.options.wscale == 1
    assert answer.options.timestamps is not None and answer.options.timestamps[1] == c.stamp
    c.no_message()
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    told = c.message(Incoming, listener=50, remote_address=THEIRS, remote_port=PEER_PORT, local_port=PORT)
    assert told.sock >> 62 == 1, "ids of tcp have bit 62 set"
    c.expect_nothing()


def test_data_with_the_last_ack_of_the_handshake(isn: ISN) -> None:
    """Text on the segment that completes the handshake is delivered. RFC 9293 3.10.7.4 fifth and seventh step."""
    c = syn_received(**isn)
    c.inject("PA", seq=1, ack=1, data=b"early")
    c.rings = c.message(Incoming).rings
    assert c.message(Data, offset=0).payload.length == 5
    assert c.received(0, 5) == b"early"
    c.expect("A", seq=1, ack=6)


def test_fin_with_the_last_ack_of_the_handshake(isn: ISN) -> None:
    """Even text and FIN may come with it."""
    c = syn_received(**isn)
    c.inject("FPA", seq=1, ack=1, data=b"all")
    c.message(Incoming)
    c.message(Data, offset=0)
    c.message(Eof, at=3)
    c.expect("A", seq=1, ack=5)
    assert c.state == "CLOSE_WAIT"


@pytest.mark.rfc("RFC 7323 2.3-1", "RFC 7323 2.3-2")
def test_window_scale_of_a_large_buffer() -> None:
    """The shift is the smallest with which the buffer can be announced: 1 MB needs 5 (1048576 >> 5 = 32768).

    65535 << 4 = 1048560 would fall 16 bytes short. The window of a SYN itself is not scaled. RFC 7323 2.2, 2.3.
    """
    c = Host(receive_ring=1 << 20, receive_buffer=1 << 20, receive_initial=1 << 20)
    c.connect()
    c.learn_port()
    assert c.expect("S", win=64_240).options.wscale == 5
    c.inject("SA", seq=0, ack=1)
    got = c.expect("A", seq=1, ack=1)
    assert got.win << 5 in range((1 << 20) - 64, (1 << 20) + 1)


@pytest.mark.rfc("RFC 9293 MUST-15", "RFC 7323 2.2-3", "RFC 7323 3.2-4", "RFC 2018 2-2")
def test_options_that_the_peer_lacks_are_off(isn: ISN) -> None:
    """Without them in its SYN we neither scale, stamp nor send SACK blocks, and its MSS is 536. RFC 9293 MUST-15."""
    c = syn_received(ts=False, sack=False, wscale=None, mss=None, **isn)
    answer_options = c.tcb()
    assert not answer_options["scaling"] and not answer_options["timestamps"] and not answer_options["sack"]
    c.inject("A", seq=1, ack=1, win=5000)
    told = c.message(Incoming)
    c.sock, c.rings = told.sock, told.rings
    c.write(b"x" * 1000)
    got = c.expect("A", seq=1, ack=1, len=536)
    assert got.options == TcpOptions()


@pytest.mark.rfc("RFC 7323 2.2-2", "RFC 7323 3.2-3")
def test_syn_ack_offers_only_what_the_syn_had() -> None:
    """RFC 7323 2.2, 3.2; RFC 2018 2."""
    c = listening(ts=False, sack=False, wscale=None)
    c.inject("S", seq=0)
    assert c.expect("SA").options == TcpOptions(mss=1460)


def test_nothing_is_offered_that_is_configured_off() -> None:
    """tcp.timestamps, window_scaling and sack."""
    c = Host(timestamps=False, window_scaling=False)
    c.core.set("sack", False, c.now)
    c.connect()
    assert c.expect("S").options == TcpOptions(mss=1460)


@pytest.mark.rfc("RFC 9293 MUST-10")
def test_simultaneous_open(isn: ISN) -> None:
    """Two SYNs cross, both answer SYN-ACK, both are ESTABLISHED. RFC 9293 3.5 figure 7."""
    c = syn_sent(**isn)
    c.inject("S", seq=0)
    assert c.state == "SYN_RECEIVED"
    c.expect("SA", seq=0, ack=1)
    c.agreed_ts = True
    c.inject("SA", seq=0, ack=1)
    assert c.state == "ESTABLISHED"
    c.message(Connected)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-10")
def test_simultaneous_open_completed_by_an_ack(isn: ISN) -> None:
    """The peer may answer our SYN-ACK with a plain ACK as well."""
    c = syn_sent(**isn)
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    assert c.state == "ESTABLISHED"


def test_refused(isn: ISN) -> None:
    """RST with an ACK of our SYN ends the attempt with ECONNREFUSED. RFC 9293 3.10.7.3 second step."""
    c = syn_sent(**isn)
    c.inject("RA", seq=0, ack=1)
    c.message(Reset, sock=60, errno=errno.ECONNREFUSED)
    assert c.row() is None
    c.expect_nothing()


def test_syn_sent_ignores_a_reset_without_ack(isn: ISN) -> None:
    """Anybody could have sent it. RFC 9293 3.10.7.3."""
    c = syn_sent(**isn)
    c.inject("R", seq=0)
    assert c.state == "SYN_SENT" and c.dropped("tcp_rst_outside") == 1


@pytest.mark.parametrize("ack", [0, 2, -5])
def test_syn_sent_resets_a_bad_acknowledgment(isn: ISN, ack: int) -> None:
    """An ACK of anything but our SYN: <SEQ=SEG.ACK><CTL=RST>, and the attempt goes on. RFC 9293 3.10.7.3 first step."""
    c = syn_sent(**isn)
    c.inject("A", seq=300, ack=ack)
    assert c.expect("R").raw_seq == (c.isn + ack) % 2**32
    assert c.state == "SYN_SENT" and c.dropped("tcp_ack_bad") == 1


@pytest.mark.rfc("RFC 9293 MUST-22", "RFC 1122 4.2.3.1-4", "RFC 6298 2.1-1", "RFC 6298 5.5-1")
def test_syn_is_retransmitted_with_backoff_and_given_up() -> None:
    """At 1, 3, 7, 15, 31, 63 s; after 6 repeats the next timeout, at 127 s, says ETIMEDOUT. RFC 6298 2.1, 5.5."""
    c = syn_sent()
    times = []
    start = c.now
    for _ in range(127_500 // 500):
        c.advance(500)
        while c.segments:
            c.expect("S", seq=0)
            times.append((c.now - start) // 1_000_000)
    assert times == [1000, 3000, 7000, 15_000, 31_000, 63_000]
    c.message(Reset, errno=errno.ETIMEDOUT)
    assert c.row() is None and c.core.next_timer() is None


def test_syncnt_limits_the_repeats() -> None:
    """TCP_SYNCNT 1: one repeat, and ETIMEDOUT at 3 s."""
    c = syn_sent(connect={"syncnt": 1})
    c.advance(2900)
    c.expect("S")
    c.expect_nothing()
    c.advance(200)
    c.message(Reset, errno=errno.ETIMEDOUT)


@pytest.mark.rfc("RFC 5681 3.1-5", "RFC 6298 5.7-1", "RFC 6928 2-2")
def test_initial_window_after_a_lost_syn(isn: ISN) -> None:
    """One segment instead of ten, and an RTO of 3 s while no RTT is known. RFC 5681 3.1, RFC 6298 5.7."""
    c = syn_sent(ts=False, **isn)
    c.advance(1000)
    c.expect("S", seq=0)
    c.inject("SA", seq=0, ack=1)
    c.expect("A")
    told = c.message(Connected)
    c.rings = told.rings
    c.write(b"x" * 5000)
    c.expect("A", seq=1, len=1460)
    c.expect_nothing()
    assert c.tcb()["rto"]["rto"] == 3_000_000_000


def test_syn_ack_is_retransmitted(isn: ISN) -> None:
    """After 1 s, and at once when the SYN comes again."""
    c = syn_received(**isn)
    c.advance(1000)
    c.expect("SA", seq=0, ack=1)
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    assert c.dropped("tcp_syn_again") == 1


def test_half_open_child_is_forgotten() -> None:
    """After synack_retries nothing is left of it, and nobody was told."""
    c = syn_received(synack_retries=2)
    c.advance(20_000)
    for _ in range(2):
        c.expect("SA")
    c.expect_nothing()
    c.no_message()
    assert c.row() is None
    assert c.core.control(1, "ss", {}, c.now)["sockets"][0]["half_open"] == 0


@pytest.mark.rfc("RFC 9293 MUST-11")
def test_reset_of_a_half_open_child(isn: ISN) -> None:
    """It goes back to LISTEN: the child is forgotten, nobody is told. RFC 9293 3.10.7.4 second step."""
    c = syn_received(**isn)
    c.inject("R", seq=1)
    assert c.row() is None
    c.no_message()
    c.inject("S", seq=0)
    c.expect("SA")


def test_the_window_of_a_syn_is_taken(isn: ISN) -> None:
    """SND.WND is there before the handshake is done (RFC 9293 3.10.7.4: SND.WL1 and SND.WL2 come with it)."""
    c = syn_received(win=12_345, **isn)
    tx = c.tcb()["tx"]
    assert (tx["snd_wnd"], tx["max_wnd"]) == (12_345, 12_345)


def test_syn_received_resets_a_wrong_ack(isn: ISN) -> None:
    """<SEQ=SEG.ACK><CTL=RST>; the connection stays. RFC 9293 3.10.7.4 fifth step."""
    c = syn_received(**isn)
    c.inject("A", seq=1, ack=77)
    c.expect("R", seq=77)
    assert c.state == "SYN_RECEIVED"


def test_close_while_opening(isn: ISN) -> None:
    """SYN-SENT is deleted without a word. RFC 9293 3.10.4."""
    c = syn_sent(**isn)
    c.close()
    c.message(Released, sock=60)
    assert c.row() is None
    c.expect_nothing()
    c.inject("SA", seq=0, ack=1)
    c.expect("R", seq=1)


def test_shutdown_during_simultaneous_open(isn: ISN) -> None:
    """The FIN waits until the connection is ESTABLISHED. RFC 9293 3.10.4 SYN-RECEIVED."""
    c = syn_sent(**isn)
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.call(Eof(60, 0))
    c.expect_nothing()
    c.inject("A", seq=1, ack=1)
    c.expect("FA", seq=1, ack=1)
    assert c.state == "FIN_WAIT_1"


def test_connect_without_route() -> None:
    """ENETUNREACH at once."""
    c = Host(routes=False)
    c.connect()
    c.message(Reset, errno=errno.ENETUNREACH)
    c.expect_nothing()


@pytest.mark.rfc("RFC 9293 MUST-46")
@pytest.mark.parametrize("address", [b"\xff\xff\xff\xff", b"\xe0\0\0\1"])
def test_connect_to_many(address: bytes) -> None:
    """TCP has no broadcast or multicast: ENETUNREACH. RFC 9293 3.9.2.3."""
    c = closed()
    c.call(Connect(60, "", address, 80))
    c.message(Reset, errno=errno.ENETUNREACH)


def test_connect_to_any_address_is_loopback() -> None:
    """0.0.0.0 means this host, as on Linux."""
    c = closed()
    c.call(Connect(60, "", bytes(4), 80))
    assert c.expect("S").dst == b"\x7f\0\0\1"


def test_connect_without_free_slot() -> None:
    """ENOBUFS when all ring slots are in use; a slot comes back when a connection is released."""
    c = Host(connections=1)
    c.connect(sock=60)
    c.quiet()
    c.call(Connect(61, "", THEIRS, PEER_PORT))
    c.message(Reset, sock=61, errno=errno.ENOBUFS)
    c.call(Close(60))
    c.quiet()
    c.call(Connect(62, "", THEIRS, PEER_PORT))
    c.expect("S")


def test_repeated_connect_changes_nothing() -> None:
    """The same id again: dropped with a reason."""
    c = syn_sent()
    c.call(Connect(60, "", THEIRS, PEER_PORT))
    c.expect_nothing()
    assert c.dropped("tcp_repeated_call") == 1


def test_send_before_the_connection_is_open() -> None:
    """Is dropped with a reason: there are no rings yet that the gateway could know of."""
    c = syn_sent()
    c.call(Send(60, 0, 5, b"hello"))
    assert c.dropped("tcp_not_connected") == 1


@pytest.mark.rfc("RFC 9293 MUST-14")
def test_maxseg_is_offered_and_kept() -> None:
    """TCP_MAXSEG 1000: our SYN offers it, and we send no more than it."""
    c = syn_sent(connect={"maxseg": 1000})
    c.inject("SA", seq=0, ack=1)
    c.expect("A")
    c.rings = c.message(Connected).rings
    c.write(b"x" * 3000)
    c.expect("A", len=988)


@pytest.mark.parametrize(("told", "used"), [(60, 60), (48, 48), (47, 48), (0, 48)])
def test_a_small_mss_of_the_peer_is_kept_to(told: int, used: int) -> None:
    """RFC 9293 3.7.1 (MUST-16), down to what leaves room for 40 bytes of options and 8 of data (Linux)."""
    c = established(ts=False, mss=told)
    c.write(b"m" * 2 * used)
    c.expect("A", seq=1, len=used)
    c.expect("PA", seq=1 + used, len=used)


@pytest.mark.rfc("RFC 9293 SHLD-6", "RFC 1122 3.3.2-4")
def test_small_mtu_bounds_the_mss() -> None:
    """MSS = MTU - 40. RFC 9293 3.7.1."""
    c = Host(mtu=600)
    c.connect()
    assert c.expect("S").options.mss == 560


def test_established_by_both_ways(isn: ISN) -> None:
    """The factories lead where they say."""
    assert established(**isn).state == "ESTABLISHED"
    assert connected(**isn).state == "ESTABLISHED"
