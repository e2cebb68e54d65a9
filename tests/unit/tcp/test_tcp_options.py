"""Socket options that tcp acts on, set before and on live connections; compared with the kernel in tests/system."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from tcp_host import MSS, THEIRS, Host, connected, established, fin_wait_1, fin_wait_2, listening

from levelip.frames.seam import Bind, Connect, Incoming, Listen, Released, Result, SetOption
from levelip.rpc.stream import Reset

ISN = dict[str, Any]


def deferring(count: int, **isn: Any) -> Host:
    """A listener with TCP_DEFER_ACCEPT; the peer's SYN has come."""
    c = listening(ts=False, **isn)
    c.call(SetOption(50, "defer_accept", count))
    c.inject("S", seq=0)
    c.expect("SA", seq=0, ack=1)
    return c.quiet()


def test_defer_accept_hands_out_with_the_first_data(isn: ISN) -> None:
    """The ACK of the handshake is not enough; data is, and is delivered."""
    c = deferring(3, **isn)
    c.inject("A", seq=1, ack=1)
    c.no_message()
    c.expect_nothing()
    assert c.dropped("tcp_deferred") == 1
    c.inject("PA", seq=1, ack=1, data=b"hello")
    assert c.message(Incoming).listener == 50
    c.expect("A", ack=6)


def test_defer_accept_sends_no_syn_ack_again_before_its_last_period(isn: ISN) -> None:
    """Three SYN-ACKs are 1 + 2 + 4 s: the peer's ACK has come, so only the last one goes out again, 3 s after the SYN
    (Linux syn_ack_recalc); the ACK that answers it is handed out without data."""
    c = deferring(3, **isn)
    c.inject("A", seq=1, ack=1)
    c.advance(2_990)
    c.expect_nothing()
    c.advance(4_020)
    c.expect("SA", seq=0, ack=1)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1)
    assert c.message(Incoming).listener == 50


def test_defer_accept_without_any_ack_repeats_the_syn_ack(isn: ISN) -> None:
    """As always, after 1, 3 and 7 s."""
    c = deferring(3, **isn)
    c.advance(7_010)
    for _ in range(3):
        c.expect("SA", seq=0, ack=1)
    c.expect_nothing()


def test_defer_accept_longer_than_the_retries_of_a_syn_ack() -> None:
    """It is not given up before the application was offered it: 7 periods with 2 retries."""
    c = listening(ts=False, synack_retries=2)
    c.call(SetOption(50, "defer_accept", 7))
    c.inject("S", seq=0)
    c.inject("A", seq=1, ack=1)
    c.quiet()
    c.advance(128_000)
    c.expect("SA")
    c.inject("A", seq=1, ack=1)
    assert c.message(Incoming).listener == 50


def test_linger2_is_the_time_in_fin_wait_2(isn: ISN) -> None:
    """2 s instead of the configured 60."""
    c = fin_wait_2(**isn)
    c.call(SetOption(c.sock, "linger2_ms", 2_000))
    c.close()
    c.message(Released)
    c.advance(1_990)
    assert c.state == "FIN_WAIT_2"
    c.advance(20)
    assert c.state == "CLOSED"
    c.inject("FA", seq=1, ack=2)
    c.expect("R")


def test_negative_linger2_resets_at_close(isn: ISN) -> None:
    """In FIN-WAIT-2 close() sends RST (Linux tcp_close)."""
    c = fin_wait_2(**isn)
    c.call(SetOption(c.sock, "linger2_ms", -1))
    c.close()
    c.expect("RA", seq=2)
    assert c.state == "CLOSED"


def test_negative_linger2_forgets_an_orphan(isn: ISN) -> None:
    """Closed in FIN-WAIT-1: once the FIN is acknowledged it is gone, without RST (Linux tcp_rcv_state_process)."""
    c = fin_wait_1(**isn)
    c.call(SetOption(c.sock, "linger2_ms", -1))
    c.close()
    c.inject("A", seq=1, ack=2)
    c.expect_nothing()
    assert c.state == "CLOSED"
    c.message(Released)


def test_maxseg_counts_in_the_handshake_alone() -> None:
    """Our offer and the bound of the peer's; on a live connection it changes nothing (Linux)."""
    c = Host()
    c.connect(options={"maxseg": 700})
    c.learn_port()
    assert c.expect("S").options.mss == 700
    c.inject("SA", seq=0, ack=1)
    assert c.row()["info"]["snd_mss"] == 700 - 12  # type: ignore[index]
    c = established()
    c.call(SetOption(c.sock, "maxseg", 700))
    assert c.row()["info"]["snd_mss"] == MSS  # type: ignore[index]


@pytest.mark.rfc("RFC 1191 6.6-1")
@pytest.mark.parametrize(
    ("mode", "dont_fragment"), [(0, False), (1, True), (2, True), (3, True), (4, False), (5, False)]
)
def test_mtu_discover_sets_df(mode: int, dont_fragment: bool) -> None:
    """IP_PMTUDISC_DONT, _INTERFACE and _OMIT let packets be fragmented; live and from the SYN on."""
    c = connected(connect={"mtu_discover": mode})
    c.write(b"x")
    assert c.expect("PA").segment.dont_fragment is dont_fragment
    c.inject("A", seq=1, ack=2)
    c.call(SetOption(c.sock, "mtu_discover", 1))
    c.write(b"y")
    assert c.expect("PA").segment.dont_fragment


@pytest.mark.parametrize(("mode", "mss"), [(0, MSS), (1, 948), (2, 948), (3, MSS), (4, MSS)])
def test_mtu_discover_decides_who_is_believed(mode: int, mss: int) -> None:
    """Fragmentation needed, MTU 1000 (less 52 bytes): only WANT and DO believe it (Linux ip_sk_accept_pmtu)."""
    c = connected(connect={"mtu_discover": mode})
    c.write(bytes(2 * MSS))
    c.quiet()
    c.icmp(3, 4, seq=1, mtu=1000)
    assert c.row()["info"]["snd_mss"] == mss  # type: ignore[index]


def test_keepalive_times_change_on_a_live_connection(isn: ISN) -> None:
    """The idle time counts from the last segment; a shorter interval moves the next probe."""
    c = established(**isn)
    c.advance(5_000)
    c.call(SetOption(c.sock, "keepalive", 1))
    c.call(SetOption(c.sock, "keepidle_ms", 8_000))
    c.advance(2_990)
    c.expect_nothing()
    c.advance(20)
    c.expect("A", seq=0)
    c.call(SetOption(c.sock, "keepintvl_ms", 1_000))
    c.call(SetOption(c.sock, "keepcnt", 2))
    c.advance(1_010)
    c.expect("A", seq=0)
    c.advance(1_010)
    c.expect("RA")
    assert c.find_message(Reset).errno == errno.ETIMEDOUT


def test_keepidle_that_is_over_probes_at_once(isn: ISN) -> None:
    """Idle for 20 s, TCP_KEEPIDLE 10."""
    c = established(**isn)
    c.call(SetOption(c.sock, "keepalive", 1))
    c.advance(20_000)
    c.expect_nothing()
    c.call(SetOption(c.sock, "keepidle_ms", 10_000))
    c.advance(1)
    c.expect("A", seq=0)


def test_user_timeout_on_a_live_connection(isn: ISN) -> None:
    """Data under way for 2 s without an answer; RTO 200 ms: 200, 600, 1400 and then 3000 would be beyond 2000."""
    c = established(**isn)
    c.call(SetOption(c.sock, "user_timeout_ms", 2_000))
    c.write(b"x")
    c.advance(3_100)
    assert c.find_message(Reset).errno == errno.ETIMEDOUT


@pytest.mark.parametrize("name", ["reuse_address", "reuse_port"])
def test_reuse_after_bind(name: str) -> None:
    """SO_REUSEADDR and SO_REUSEPORT count for the port that the socket holds already, and can be taken back."""
    c = Host()
    flags = (name == "reuse_address", name == "reuse_port")
    c.call(Bind(1, 50, b"", 80))
    assert c.message(Result).errno == 0
    c.call(Bind(2, 51, b"", 80, *flags))
    assert c.message(Result).errno == errno.EADDRINUSE
    c.call(SetOption(50, name, 1))
    c.call(Bind(3, 51, b"", 80, *flags))
    assert c.message(Result).errno == 0
    c.call(SetOption(50, name, 0))
    c.call(Bind(4, 52, b"", 80, *flags))
    assert c.message(Result).errno == errno.EADDRINUSE


def test_children_inherit(isn: ISN) -> None:
    """What was set on the listener, before and after listen()."""
    c = Host(**isn)
    c.call(Bind(1, 50, b"", 80))
    c.call(Listen(2, 50, "", 8, {"cork": 1, "linger2_ms": -1, "ttl": 9}))
    c.call(SetOption(50, "window_clamp", 20_000))
    c.quiet()
    c.inject("S", seq=0)
    c.agreed_ts = c.expect("SA").options.timestamps is not None
    c.inject("A", seq=1, ack=1)
    c.sock = c.message(Incoming).sock
    options = c.tcb()["options"]
    assert (options["cork"], options["linger2_ms"], options["ttl"], options["window_clamp"]) == (1, -1, 9, 20_000)
    assert c.tcb()["rx"]["most"] == 20_000


def test_syncnt() -> None:
    """TCP_SYNCNT 1: the SYN and one more."""
    c = Host()
    c.call(Connect(60, "", THEIRS, 4711, {"syncnt": 1}))
    c.advance(10_000)
    assert len(c.segments) == 2
    assert c.find_message(Reset).errno == errno.ETIMEDOUT
