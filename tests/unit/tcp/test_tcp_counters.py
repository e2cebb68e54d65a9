"""What tcp counts, scenario by scenario: each counter that moves, and by how much; no other does.

The counters of a core begin with 1000 here, so that one that is set instead of raised shows.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Host, established, far, fin_wait_2, syn_received, syn_sent

from levelip.frames.seam import SetOption
from levelip.rpc.stream import Urgent

BEFORE = 1000


def counting(c: Host) -> Host:
    """From now on: `counted` tells what is added."""
    c.quiet()
    c.core.counters.clear()
    c.core.counters.default_factory = lambda: BEFORE  # type: ignore[attr-defined]
    return c


def counted(c: Host) -> dict[str, int]:
    """Since the last look."""
    found = {name: value - BEFORE for name, value in c.core.counters.items()}
    c.core.counters.clear()
    c.segments.clear()
    return found


def test_opening() -> None:
    """Passive: SYN and ACK in, SYN-ACK out. Active: SYN and ACK out."""
    c = counting(Host())
    c.listen()
    c.inject("S", seq=0)
    c.agreed_ts = True
    c.expect("SA")
    c.inject("A", seq=1, ack=1)
    assert counted(c) == {"segments_in": 2, "segments_out": 1, "connections_established": 1}
    c = counting(Host())
    c.connect()
    c.learn_port()
    c.expect("S")
    c.inject("SA", seq=0, ack=1)
    assert counted(c) == {"active_opens": 1, "segments_in": 1, "segments_out": 2, "connections_established": 1}


@pytest.mark.parametrize("offload", [0, 65_535])
def test_data_out(offload: int) -> None:
    """3000 bytes are three packets, also as one super-segment."""
    c = counting(established(gso_max=offload))
    c.write(bytes(3000))
    c.inject("A", seq=1, ack=3001)
    assert counted(c) == {"segments_out": 3, "data_segments_out": 3, "bytes_out": 3000, "segments_in": 1}
    figures = c.tcb()
    assert (figures["segments_out"], figures["data_segments_out"]) == (1 + 3, 3)  # with the SYN-ACK


@pytest.mark.parametrize("predict", [True, False])
def test_data_in(predict: bool) -> None:
    """3000 bytes in one super-segment are three packets; by header prediction and, without timestamps, not by it."""
    c = counting(established(ts=predict))
    c.inject("PA", seq=1, ack=1, data=bytes(3000), gso=1448)
    assert counted(c) == {"segments_in": 3, "data_segments_in": 3, "bytes_in": 3000, "segments_out": 1}
    figures = c.tcb()
    assert (figures["segments_in"], figures["data_segments_in"]) == (2 + 3, 3)  # with SYN and ACK
    c.inject("PA", seq=1, ack=1, data=bytes(3000), gso=1448)  # again: below the window, named in a D-SACK
    assert counted(c) == {"segments_in": 3, "segments_out": 1, "dsacks_out": 1, "drop.tcp_below_window": 1}


def test_out_of_order() -> None:
    """3 bytes beyond a hole, once more, then what fills it: only then do they count as received."""
    c = counting(established())
    c.inject("PA", seq=11, ack=1, data=b"abc")
    beyond = {"segments_in": 1, "data_segments_in": 1, "out_of_order_in": 1, "segments_out": 1}
    assert counted(c) == beyond
    c.inject("PA", seq=11, ack=1, data=b"abc")
    assert counted(c) == {**beyond, "dsacks_out": 1}
    c.inject("PA", seq=1, ack=1, data=b"0123456789")
    assert counted(c) == {"segments_in": 1, "data_segments_in": 1, "bytes_in": 13, "segments_out": 1}


def test_resets() -> None:
    """One that comes, one that we send, one for nobody's segment."""
    c = counting(established())
    c.inject("R", seq=1)
    assert counted(c) == {"segments_in": 1, "resets_in": 1, "connections_aborted": 1}
    c = counting(established())
    c.close(abort=True)
    assert counted(c) == {"segments_out": 1, "resets_out": 1}
    c = counting(Host())
    c.inject("S", seq=0)
    assert counted(c) == {"segments_in": 1, "segments_out": 1, "resets_out": 1, "drop.tcp_no_connection": 1}
    c = counting(syn_sent())
    c.inject("RA", seq=0, ack=1)
    assert counted(c) == {"segments_in": 1, "resets_in": 1, "connections_aborted": 1}


def test_challenges_and_what_is_withheld() -> None:
    """RFC 5961 7: the first is answered; and of what lies outside the window one in 500 ms."""
    c = counting(established())
    c.inject("S", seq=1)
    answer = {"segments_in": 1, "segments_out": 1, "challenge_acks": 1, "drop.tcp_syn_inside": 1}
    assert counted(c) == answer
    c = counting(established())
    c.inject("A", seq=1_000_000, ack=1)
    assert counted(c) == {"segments_in": 1, "segments_out": 1, "drop.tcp_beyond_window": 1}
    c.inject("A", seq=1_000_000, ack=1)
    assert counted(c) == {"segments_in": 1, "answers_withheld": 1, "drop.tcp_beyond_window": 1}


def test_time_wait() -> None:
    """Entered once, and left without a word."""
    c = counting(fin_wait_2())
    c.inject("FA", seq=1, ack=2)
    assert counted(c) == {"segments_in": 1, "segments_out": 1, "time_waits": 1}
    c.advance(100_000)
    assert counted(c) == {}


def test_losses_found_by_time() -> None:
    """Ten segments, the probe after them, then two timeouts."""
    c = counting(far())
    c.write(bytes(10 * MSS))
    c.advance(1300)
    assert counted(c) == {
        "segments_out": 13, "data_segments_out": 13, "bytes_out": 13 * MSS, "retransmissions": 3, "loss_probes": 1,
        "rto_timeouts": 2,
    }  # fmt: skip


@pytest.mark.parametrize("sack", [True, False])
def test_losses_found_by_duplicates(sack: bool) -> None:
    """The third ends it: one segment goes again. Then an echo of the original undoes it."""
    c = counting(far(sack=sack))
    c.write(bytes(10 * MSS))
    c.advance(100)
    for blocks in (1, 2, 3):
        c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + (1 + blocks) * MSS)] if sack else None)
    named = {"lost_bytes": MSS} if sack else {}
    assert counted(c) == named | {
        "segments_out": 11, "data_segments_out": 11, "bytes_out": 11 * MSS, "segments_in": 3, "duplicate_acks_in": 3,
        "fast_retransmits": 1, "retransmissions": 1,
    }  # fmt: skip
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    assert counted(c) == {"segments_in": 1, "undone": 1, "undone_timestamp": 1}


def test_a_loss_that_the_probe_repaired() -> None:
    """RFC 8985 7.4.2."""
    c = counting(far())
    c.write(bytes(4 * MSS))
    c.advance(302)
    c.write(bytes(MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 5 * MSS)
    assert counted(c) == {
        "segments_out": 6, "data_segments_out": 6, "bytes_out": 6 * MSS, "segments_in": 1, "retransmissions": 1,
        "loss_probes": 1, "loss_probe_recoveries": 1,
    }  # fmt: skip


def test_what_sack_tells_else() -> None:
    """A duplicate that the peer names, reordering, and a peer that threw away what it had named."""
    c = counting(far())
    c.write(bytes(2 * MSS))
    counted(c)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + MSS, sack=[(1, 1 + MSS)])
    assert counted(c) == {"segments_in": 1, "dsacks_in": 1}
    c = counting(far())
    c.write(bytes(3 * MSS))
    counted(c)
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + 2 * MSS)])
    assert counted(c) == {"segments_in": 1, "duplicate_acks_in": 1}
    c.inject("A", seq=1, ack=1 + MSS)
    assert counted(c) == {"segments_in": 1, "reordering_seen": 1}
    c.advance(10)
    assert counted(c) == {
        "segments_out": 1, "data_segments_out": 1, "bytes_out": MSS, "retransmissions": 1, "rto_timeouts": 1,
        "sack_reneging": 1,
    }  # fmt: skip


def test_probes() -> None:
    """A closed window, and silence."""
    c = counting(far())
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(10))
    c.advance(400)
    assert counted(c) == {"segments_in": 1, "segments_out": 1, "probes_out": 1}
    c = counting(established())
    c.call(SetOption(c.sock, "keepalive", 1))
    c.call(SetOption(c.sock, "keepidle_ms", 10_000))
    c.advance(10_000)
    assert counted(c) == {"segments_out": 1, "probes_out": 1}


def test_icmp_errors() -> None:
    """A soft error; a smaller MTU, after which all goes again in packets of 948."""
    c = counting(established())
    c.write(bytes(10))
    counted(c)
    c.icmp(3, 1, seq=1)
    assert counted(c) == {"icmp_errors_in": 1}
    c = counting(established())
    c.write(bytes(MSS))
    counted(c)
    c.icmp(3, 4, seq=1, mtu=1000)
    assert counted(c) == {
        "path_mtu_lowered": 1, "segments_out": 2, "data_segments_out": 2, "bytes_out": MSS, "retransmissions": 2,
    }  # fmt: skip


def test_urgent() -> None:
    """Each way one."""
    c = counting(established())
    c.write(b"abc")
    counted(c)
    c.call(Urgent(c.sock, 3))
    found = counted(c)
    assert found["urgent_out"] == 1
    c.inject("UPA", seq=1, ack=1, data=b"abc")
    assert counted(c)["urgent_in"] == 1


def test_syn_cookies() -> None:
    """Sent when the queue is full; a good one makes a connection, a bad one a reset."""
    c = Host(syncookies=1)
    c.listen(backlog=1)
    c.inject("S", seq=0)
    counting(c)
    c.agreed_ts = True
    c.inject("S", seq=0, src_port=2)
    got = c.expect("SA")
    assert counted(c) == {"segments_in": 1, "segments_out": 1, "syn_cookies_sent": 1}
    c.inject("A", seq=1, ack=got.seq + 1, src_port=2)
    assert counted(c) == {"segments_in": 1, "syn_cookies_good": 1, "connections_established": 1}
    rows = c.core.control(1, "ss", {}, c.now)["sockets"]
    sock = next(row["sock"] for row in rows if row["state"] == "ESTABLISHED")
    assert c.core.control(1, "conn", {"sock": sock}, c.now)["tcb"]["segments_in"] == 2  # the SYN and this one
    c.inject("A", seq=1, ack=77, src_port=3)
    assert counted(c) == {
        "segments_in": 1, "segments_out": 1, "resets_out": 1, "syn_cookies_bad": 1, "drop.tcp_ack_to_listener": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("make", "times"), [(syn_received, 5), (syn_sent, 6)])
def test_a_peer_that_does_not_answer(make: Any, times: int) -> None:
    """tcp.synack_retries and tcp.syn_retries, then it is given up."""
    c = counting(make())
    c.advance(400_000)
    assert counted(c) == {
        "segments_out": times, "retransmissions": times, "rto_timeouts": times, "timeouts": 1, "connections_aborted": 1,
    }  # fmt: skip


def test_delayed_acks_and_window_updates() -> None:
    """An ACK that the timer sends; one that tells of room (RFC 9293 3.8.6.2.2)."""
    c = counting(established())
    c.call(SetOption(c.sock, "quickack", 0))
    c.inject("PA", seq=1, ack=1, data=b"abc")
    c.advance(500)
    assert counted(c) == {
        "segments_in": 1, "data_segments_in": 1, "bytes_in": 3, "segments_out": 1, "delayed_acks": 1,
    }  # fmt: skip
    c = counting(established())
    offset = 1
    while (room := c.tcb()["rx"]["rcv_acc"] - offset + 1) > 0:
        size = min(room, 1448)
        c.inject("A", seq=offset, ack=1, data=bytes(size))
        offset += size
    counted(c)
    c.consume(offset - 1)
    assert counted(c) == {"segments_out": 1, "window_updates_out": 1}


def test_a_port_that_is_reused() -> None:
    """A SYN with a later timestamp ends TIME-WAIT at once, RFC 6191."""
    c = fin_wait_2()
    c.inject("FA", seq=1, ack=2)
    c.expect("A")
    counting(c)
    c.stamp += 10_000
    c.inject("S", seq=100_000)
    assert counted(c) == {"segments_in": 1, "segments_out": 1, "time_wait_reused": 1}
