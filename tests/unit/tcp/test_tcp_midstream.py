"""Loss and recovery in the middle of a stream: nothing may depend on its beginning, where offsets are small.

20,000 bytes went out and 3000 came in before; the path has an RTT of 100 ms, SRTT 100, RTO 300.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, MSS, Got, Host, far

from levelip.frames.seam import SetOption
from levelip.rpc.stream import Urgent

OUT, IN = 20_000, 3000


def middle(**how: Any) -> Host:
    """ESTABLISHED, with a stream behind it; somebody listens."""
    c = far(initial_window=20, **how)
    c.write(bytes(OUT))
    c.advance(100)
    c.inject("A", seq=1, ack=1 + OUT)
    c.inject("PA", seq=1, ack=1 + OUT, data=bytes(IN))
    c.consume(IN)
    c.advance(1000)
    _, conn = c.parts()
    conn.congestion.cwnd, conn.cwnd_limited = 10 * MSS, False
    conn.rto.rttvar = 25 * MS
    assert (conn.rto.srtt, conn.rto.rto, conn.tx.snd_una) == (100 * MS, 300 * MS, OUT)
    c.quiet()
    c.core.interest = True
    c.core.events()
    return c


def ack(c: Host, ahead: int, *, sack: tuple[int, int] | None = None, flags: str = "A", **fields: Any) -> None:
    """An ACK of `ahead` bytes beyond what the scenario began with; SACK likewise."""
    blocks = [(1 + OUT + sack[0], 1 + OUT + sack[1])] if sack else None
    c.inject(flags, seq=1 + IN, ack=1 + OUT + ahead, sack=blocks, **fields)


def told(c: Host, *kinds: str) -> list[tuple[Any, ...]]:
    """(kind, figures) of what was told, offsets from OUT on."""
    while c.segments:  # what the peer sends next echoes the last of them
        stamps = Got(c, c.segments.popleft()).options.timestamps
        c.last_tsval = stamps[0] if stamps else 0
    found = []
    for event in c.core.events():
        if event.kind in kinds:
            data = {**event.data}
            for name in ("offset", "una", "left", "right"):
                if name in data:
                    data[name] -= OUT
            found.append((event.kind, data))
    return found


def test_a_timeout() -> None:
    """All five segments that are out are lost; ssthresh is half of them, and two at least."""
    c = middle(tlp=False)
    c.write(bytes(5 * MSS))
    c.advance(300)
    assert told(c, "rto", "loss", "cwnd", "retransmit") == [
        ("loss", {"why": "rto", "bytes": 5 * MSS, "rtt": 100 * MS}),
        ("cwnd", {"old": 10 * MSS, "new": MSS, "mss": MSS, "ssthresh": 5 * MSS // 2, "flight": 0, "why": "rto"}),
        ("rto", {"attempt": 1, "rto": 600 * MS, "flight": 5 * MSS}),
        ("retransmit", {"why": "rto", "offset": 0, "length": MSS, "attempt": 1}),
    ]
    recovery = c.tcb()["recovery"]
    assert (recovery["recover"], recovery["undo_marker"], recovery["undo_bytes"]) == (OUT + 5 * MSS, OUT, MSS)
    assert recovery["frto"]
    c.advance(600)  # once more: ssthresh stays
    assert told(c, "loss", "cwnd") == [("loss", {"why": "rto", "bytes": MSS, "rtt": 100 * MS})]
    assert c.tcb()["congestion"]["ssthresh"] == 5 * MSS // 2
    assert c.tcb()["recovery"]["undo_bytes"] == 2 * MSS


@pytest.mark.parametrize("sack", [True, False])
def test_a_loss_found_by_duplicates(sack: bool) -> None:
    """Six are out: ssthresh three. The recovery ends with all that was out when it began, not with a part of it."""
    c = middle(sack=sack)
    c.write(bytes(6 * MSS))
    c.advance(100)
    for blocks in (1, 2, 3):
        ack(c, 0, sack=(MSS, (1 + blocks) * MSS) if sack else None)
    cwnd = 3 * MSS if sack else 6 * MSS  # PRR: two are in flight, and one goes again; RFC 5681: ssthresh and three
    flight = 2 * MSS if sack else 5 * MSS  # without SACK nobody knows what has arrived
    assert told(c, "loss", "cwnd", "retransmit") == [
        ("loss", {"why": "dupack", "bytes": MSS, "rtt": 100 * MS if sack else 0}),
        ("cwnd", {"old": 10 * MSS, "new": cwnd, "mss": MSS, "ssthresh": 3 * MSS, "flight": flight, "why": "recovery"}),
        ("retransmit", {"why": "fast", "offset": 0, "length": MSS, "attempt": 1}),
    ]
    assert c.tcb()["recovery"]["recover"] == OUT + 6 * MSS
    c.advance(100)
    ack(c, 4 * MSS)
    assert c.tcb()["recovery"]["state"] == 3
    ack(c, 6 * MSS)
    tcb = c.tcb()
    assert (tcb["recovery"]["state"], tcb["congestion"]["ssthresh"]) == (0, 3 * MSS)
    assert tcb["congestion"]["cwnd"] <= 3 * MSS


def test_an_echo_of_congestion() -> None:
    """RFC 3168 6.1.2: six are out when it comes; once for all of them, and again beyond."""
    c = middle()
    _, conn = c.parts()
    conn.ecn.on = True
    c.write(bytes(6 * MSS))
    c.advance(100)
    ack(c, MSS, flags="AE")
    assert told(c, "recovery") == [("recovery", {"old": "OPEN", "new": "CWR", "why": "ecn"})]
    tcb = c.tcb()
    assert tcb["congestion"]["ssthresh"] == 3 * MSS and tcb["recovery"]["recover"] == OUT + 6 * MSS
    ack(c, 6 * MSS, flags="AE")
    assert c.tcb()["congestion"]["ssthresh"] == 3 * MSS and c.core.counters["ecn_reductions"] == 1
    ack(c, 6 * MSS, flags="A")
    c.write(bytes(4 * MSS))
    c.advance(100)
    ack(c, 7 * MSS, flags="AE")
    assert c.core.counters["ecn_reductions"] == 2


def test_a_loss_probe() -> None:
    """Two SRTTs and 2 ms after the last was sent; a lone segment waits 200 ms more for a delayed ACK. Where the probe
    repaired the loss, ssthresh is half of what was out: the five of before and the new one."""
    c = middle()
    c.write(bytes(5 * MSS))
    c.advance(201)
    assert told(c, "retransmit") == []
    c.advance(1)
    assert told(c, "retransmit") == [
        ("retransmit", {"why": "tlp", "offset": 4 * MSS, "length": MSS, "attempt": 1})
    ]
    c.write(bytes(MSS))
    c.advance(100)
    ack(c, 6 * MSS)
    assert told(c, "loss", "cwnd") == [
        ("loss", {"why": "tlp", "bytes": MSS, "rtt": 100 * MS}),
        ("cwnd", {"old": 10 * MSS, "new": 2 * MSS, "mss": MSS, "ssthresh": 2 * MSS, "flight": 0, "why": "tlp"}),
    ]
    lone = middle()
    lone.write(bytes(MSS))
    lone.advance(299)
    assert told(lone, "retransmit") == []
    lone.advance(1)  # 200 + 200 would be later than the RTO: at that
    assert told(lone, "retransmit") == [("retransmit", {"why": "tlp", "offset": 0, "length": MSS, "attempt": 1})]


def test_duplicates_named_and_reordering_seen() -> None:
    """Offsets of the stream; how far one was overtaken is in packets."""
    c = middle()
    c.write(bytes(6 * MSS))
    c.advance(100)
    ack(c, 0, sack=(4 * MSS, 5 * MSS))
    ack(c, 0, sack=(3 * MSS, 5 * MSS))
    assert told(c, "reordering") == [("reordering", {"packets": 2, "first": True, "why": "sack"})]
    ack(c, 6 * MSS)
    assert told(c, "reordering") == [("reordering", {"packets": 6, "first": False, "why": "sack"})]
    ack(c, 6 * MSS, sack=(2 * MSS, 3 * MSS))
    assert told(c, "dsack") == [("dsack", {"left": 2 * MSS, "right": 3 * MSS})]


def test_a_timeout_after_much_was_named() -> None:
    """Reordering was held to be far; three packets beyond a hole that the timer had to find say that it was not (Linux
    tcp_enter_loss)."""
    c = middle(tlp=False)
    _, conn = c.parts()
    conn.rack.reordering, conn.rack.reordering_seen = 50, True
    conn.rto.min_rtt = 100 * MS
    c.write(bytes(8 * MSS))
    c.advance(10)
    ack(c, 0, sack=(MSS, 3 * MSS))
    conn.deadlines[7] = -1  # RACK's own timer would be sooner
    c.advance(400)
    assert c.tcb()["rack"]["reordering"] == 50  # two only
    c = middle(tlp=False)
    _, conn = c.parts()
    conn.rack.reordering, conn.rack.reordering_seen = 50, True
    conn.rto.min_rtt = 100 * MS
    c.write(bytes(8 * MSS))
    c.advance(10)
    ack(c, 0, sack=(MSS, 4 * MSS))
    conn.deadlines[7] = -1
    c.advance(400)
    assert c.core.counters["rto_timeouts"] == 1 and c.tcb()["rack"]["reordering"] == 3


def test_a_peer_that_threw_away_what_it_named() -> None:
    """From the first byte that is not acknowledged on."""
    c = middle()
    c.write(bytes(4 * MSS))
    c.advance(100)
    ack(c, 0, sack=(MSS, 2 * MSS))
    ack(c, MSS)
    c.advance(10)
    assert told(c, "reneged", "loss") == [
        ("reneged", {"una": MSS}),
        ("loss", {"why": "rto", "bytes": 3 * MSS, "rtt": 100 * MS}),
    ]


def test_a_closed_window_and_its_probes() -> None:
    """An RTO later one, below what is acknowledged; the peer's answer that opens it lets the data go."""
    c = middle()
    ack(c, 0, win=0)
    c.write(bytes(500))
    c.expect_nothing()
    c.advance(300)
    c.expect("A", seq=OUT, ack=1 + IN, len=0)
    ack(c, 0, win=100)
    c.expect("PA", seq=1 + OUT, ack=1 + IN, len=500)


def test_an_urgent_mark() -> None:
    """The pointer counts from the segment's first byte to the one after the mark (RFC 6093 2.2): of the last 4 of 7
    bytes it is 4, of the first 3 it is 7; once the mark is acknowledged nothing is urgent any more."""
    c = middle()
    c.call(SetOption(c.sock, "nodelay", 1))
    c.write(b"abc")
    c.write(b"defg")
    assert [c.expect("PA").bits & 0x20 for _ in range(2)] == [0, 0]
    c.call(Urgent(c.sock, OUT + 7))
    c.segments.clear()
    c.advance(300)
    got = c.expect("PAU", seq=1 + OUT + 3, len=4)
    assert got.segment.head[18:20] == b"\0\4"
    c.advance(300)
    got = c.expect("AU", seq=1 + OUT, len=3)
    assert got.segment.head[18:20] == b"\0\7"
    ack(c, 7)
    c.segments.clear()
    c.write(b"h")
    assert c.expect("PA", seq=1 + OUT + 7).segment.head[18:20] == b"\0\0"


def test_the_path_takes_smaller_packets() -> None:
    """What is under way goes again in packets of 948, from the first byte that is not acknowledged on."""
    c = middle()
    c.write(bytes(2 * MSS))
    c.segments.clear()
    c.icmp(3, 4, seq=1 + OUT + MSS, mtu=1000)
    sizes = [(c.expect("A" if offset < 2396 else "PA", seq=1 + OUT + offset).len) for offset in (0, 948, 1448, 2396)]
    assert sizes == [948, 500, 948, 500]
    recovery = c.tcb()["recovery"]
    assert (recovery["state"], recovery["recover"], recovery["undo_marker"]) == (4, OUT + 2 * MSS, -1)
    c.icmp(3, 4, seq=OUT, mtu=700)  # of what was acknowledged
    assert c.dropped("tcp_icmp_not_in_flight") == 1


def test_what_comes_in_the_middle() -> None:
    """Holes, D-SACK blocks and windows count from where the stream is."""
    c = middle()
    c.inject("A", seq=1 + IN + 100, ack=1 + OUT, data=bytes(50))
    c.expect("A", ack=1 + IN, sack=[(1 + IN + 100, 1 + IN + 150)])
    c.inject("A", seq=1 + IN - 10, ack=1 + OUT, data=bytes(30))  # 10 of them again
    c.expect("A", ack=1 + IN + 20, sack=[(1 + IN - 10, 1 + IN), (1 + IN + 100, 1 + IN + 150)])
    c.inject("A", seq=1 + IN + 20, ack=1 + OUT, data=bytes(100))  # the last 20 again
    c.expect("A", ack=1 + IN + 150, sack=[(1 + IN + 100, 1 + IN + 120)])
    assert c.tcb()["rx"]["ranges"] == [] and c.core.counters["bytes_in"] == IN + 150
    c.inject("PFA", seq=1 + IN + 150, ack=1 + OUT, data=b"end")
    c.expect("A", ack=1 + IN + 154)
    assert c.state == "CLOSE_WAIT" and c.row()["recv_q"] == 153  # type: ignore[index]
