"""Every kind of event that tcp tells: provoked, with the time, the frame that led to it, and each of its figures.

Whoever draws a graph or reads `lvlip trace` relies on these. Drops are in test_tcp_drops.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, START, Host, connected, established, far, syn_received

from levelip.frames.seam import SetOption
from levelip.rpc.stream import Urgent
from tests.netsim.net import MS

CONN = "10.0.0.2:80>10.0.0.1:4711"
RTT = 100 * MS
ECT_0, CE = 2, 3  # of the IP header: RFC 3168 5


def heard(c: Host) -> Host:
    """From now on somebody listens."""
    c.quiet()
    c.core.interest = True
    return c


def told(c: Host, *kinds: str) -> list[tuple[Any, ...]]:
    """(ms, kind, frame, figures) of what was told of these kinds (none: all but `rtt`) since the last look."""
    c.segments.clear()
    found = []
    for event in c.core.events():
        assert event.reason == "" and event.conn in (CONN, "")
        assert (event.conn == "") == (event.kind in ("listen", "syn_cookie"))
        if event.kind in kinds or (not kinds and event.kind != "rtt"):
            found.append(((event.at - START) / MS, event.kind, event.frame, event.data))
    return found


def test_opening_and_closing() -> None:
    """A listener, then the states of a connection: frame 1 is the SYN, 2 the ACK, 3 a FIN; our own FIN has none."""
    c = heard(Host())
    c.listen()
    assert told(c) == [(0, "listen", 0, {"sock": 50, "port": 80, "backlog": 16})]
    c.inject("S", seq=0)
    c.agreed_ts = True
    c.advance(100)
    c.inject("A", seq=1, ack=1)
    assert told(c) == [
        (0, "state", 1, {"old": "CLOSED", "new": "SYN_RECEIVED", "input": "SYN"}),
        (100, "state", 2, {"old": "SYN_RECEIVED", "new": "ESTABLISHED", "input": "SYN_ACKED"}),
        (100, "cwnd", 2, {"old": None, "new": 10 * MSS, "mss": MSS, "ssthresh": 2**31, "flight": 0, "why": "start"}),
    ]
    c = heard(established())
    c.inject("FA", seq=1, ack=1)
    c.shut()
    c.inject("A", seq=2, ack=2)
    assert told(c) == [
        (0, "state", 3, {"old": "ESTABLISHED", "new": "CLOSE_WAIT", "input": "FIN"}),
        (0, "state", 0, {"old": "CLOSE_WAIT", "new": "LAST_ACK", "input": "CLOSE"}),
        (0, "state", 4, {"old": "LAST_ACK", "new": "CLOSED", "input": "FIN_ACKED"}),
    ]


def test_a_reset_that_comes_and_one_that_goes() -> None:
    """`sent` tells them apart."""
    c = heard(established())
    c.inject("R", seq=1)
    assert told(c) == [
        (0, "reset", 3, {"sent": False}),
        (0, "state", 3, {"old": "ESTABLISHED", "new": "CLOSED", "input": "ABORT"}),
    ]
    c = heard(established())
    c.close(abort=True)
    assert told(c) == [
        (0, "reset", 0, {"sent": True}),
        (0, "state", 0, {"old": "ESTABLISHED", "new": "CLOSED", "input": "ABORT"}),
    ]


def test_a_round_trip() -> None:
    """100 ms, as before: SRTT stays, RTTVAR falls from 50 by a quarter, RTO is SRTT + 200 ms."""
    for size in (MSS, 2 * MSS):  # all acknowledged, and a part
        c = heard(far())
        c.write(bytes(size))
        c.advance(100)
        c.inject("A", seq=1, ack=1 + MSS)
        figures = {"rtt": RTT, "srtt": RTT, "rttvar": 37_500_000, "rto": 300 * MS}
        assert told(c, "rtt") == [(200, "rtt", 3, figures)]


def test_a_segment_that_sack_shows_to_be_lost() -> None:
    """DISORDER with the first block (frame 3); with the third (5) the first segment is lost, ssthresh is half of ten
    segments, and PRR (RFC 9937) lets cwnd come down: 7 are in flight after the one that goes again."""
    c = heard(far())
    c.write(bytes(10 * MSS))
    c.advance(100)
    for blocks in (1, 2, 3):
        c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + (1 + blocks) * MSS)])
    window = {"old": 10 * MSS, "mss": MSS, "ssthresh": 5 * MSS, "why": "recovery"}
    assert told(c) == [
        (200, "recovery", 3, {"old": "OPEN", "new": "DISORDER", "why": "sack"}),
        (200, "loss", 5, {"why": "dupack", "bytes": MSS, "rtt": RTT}),
        (200, "recovery", 5, {"old": "DISORDER", "new": "RECOVERY", "why": "dupack"}),
        (200, "cwnd", 5, {**window, "new": 7 * MSS, "flight": 6 * MSS}),
        (200, "retransmit", 5, {"why": "fast", "offset": 0, "length": MSS, "attempt": 1}),
    ]


def test_three_duplicates_without_sack() -> None:
    """RFC 5681 3.2: ssthresh is five segments, cwnd three more; told once."""
    c = heard(far(sack=False))
    c.write(bytes(10 * MSS))
    c.advance(100)
    for _ in range(3):
        c.inject("A", seq=1, ack=1)
    window = {"old": 10 * MSS, "mss": MSS, "ssthresh": 5 * MSS, "why": "recovery"}
    assert told(c) == [
        (200, "recovery", 3, {"old": "OPEN", "new": "DISORDER", "why": "dupack"}),
        (200, "recovery", 5, {"old": "DISORDER", "new": "RECOVERY", "why": "dupack"}),
        (200, "loss", 5, {"why": "dupack", "bytes": MSS, "rtt": 0}),
        (200, "cwnd", 5, {**window, "new": 8 * MSS, "flight": 9 * MSS}),
        (200, "retransmit", 5, {"why": "fast", "offset": 0, "length": MSS, "attempt": 1}),
    ]
    # 100 ms later all is there, echoing what was sent before the retransmission: it was for nothing
    c.last_tsval -= 100
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    assert told(c, "undo", "recovery", "cwnd") == [
        (200, "undo", 6, {"why": "timestamp", "old": 8 * MSS, "new": 10 * MSS, "mss": MSS}),
        (200, "recovery", 6, {"old": "RECOVERY", "new": "OPEN", "why": "acknowledged"}),
        (200, "cwnd", 6, {"old": 8 * MSS, "new": 10 * MSS, "mss": MSS, "ssthresh": 2**31, "flight": 0, "why": "ack"}),
    ]


def test_timeouts() -> None:
    """The last segment probes 2 SRTT + 2 ms after 100 ms; the timer waits an RTO of 300 ms from there; then 600 more.
    All ten segments are lost, cwnd is one, ssthresh five."""
    c = heard(far())
    c.write(bytes(10 * MSS))
    c.advance(1200)
    lost = {"why": "rto", "offset": 0, "length": MSS}
    assert told(c) == [
        (302, "retransmit", 0, {"why": "tlp", "offset": 9 * MSS, "length": MSS, "attempt": 1}),
        (602, "recovery", 0, {"old": "OPEN", "new": "LOSS", "why": "rto"}),
        (602, "loss", 0, {"why": "rto", "bytes": 10 * MSS, "rtt": 0}),
        (602, "cwnd", 0, {"old": 10 * MSS, "new": MSS, "mss": MSS, "ssthresh": 5 * MSS, "flight": 0, "why": "rto"}),
        (602, "rto", 0, {"attempt": 1, "rto": 600 * MS, "flight": 10 * MSS}),
        (602, "retransmit", 0, {**lost, "attempt": 1}),
        (1202, "loss", 0, {"why": "rto", "bytes": MSS, "rtt": 0}),
        (1202, "rto", 0, {"attempt": 2, "rto": 1200 * MS, "flight": 10 * MSS}),
        (1202, "retransmit", 0, {**lost, "attempt": 2}),
    ]


def test_a_loss_that_the_probe_repaired() -> None:
    """RFC 8985 7.4.2: the probe sent the fourth segment again; a fifth went out, and all are acknowledged without a
    D-SACK. The window is halved once, from what is still in flight: to two segments, told once."""
    c = heard(far())
    c.write(bytes(4 * MSS))
    c.advance(302)
    c.write(bytes(MSS))
    assert told(c) == [(302, "retransmit", 0, {"why": "tlp", "offset": 3 * MSS, "length": MSS, "attempt": 1})]
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 5 * MSS)
    assert told(c) == [
        (502, "loss", 3, {"why": "tlp", "bytes": MSS, "rtt": RTT}),
        (502, "cwnd", 3, {"old": 10 * MSS, "new": 2 * MSS, "mss": MSS, "ssthresh": 2 * MSS, "flight": 0, "why": "tlp"}),
    ]


def test_a_duplicate_that_the_peer_names() -> None:
    """RFC 2883, in bytes of the stream."""
    c = heard(far())
    c.write(bytes(2 * MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1 + MSS, sack=[(1, 1 + MSS)])
    assert told(c) == [(200, "dsack", 3, {"left": 0, "right": MSS})]


def test_reordering() -> None:
    """The third segment is named before the second: it was overtaken by two; the first time that this is seen."""
    c = heard(far())
    c.write(bytes(4 * MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + 2 * MSS, 1 + 3 * MSS)])
    c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + 3 * MSS)])
    assert told(c, "reordering") == [(200, "reordering", 4, {"packets": 2, "first": True, "why": "sack"})]
    c.inject("A", seq=1, ack=1 + 3 * MSS)
    assert told(c, "reordering") == [(200, "reordering", 5, {"packets": 3, "first": False, "why": "sack"})]


def test_a_peer_that_threw_away_what_it_had_named() -> None:
    """RFC 2018 8: 10 ms after an ACK that stops short of what was named, the scoreboard is forgotten."""
    c = heard(far())
    c.write(bytes(3 * MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + 2 * MSS)])
    c.inject("A", seq=1, ack=1 + MSS)
    due = START + 210 * MS
    assert told(c, "timer") == [(200, "timer", 4, {"name": "reneging", "deadline": due})]
    c.advance(10)
    assert told(c) == [
        (210, "reneged", 0, {"una": MSS}),
        (210, "recovery", 0, {"old": "DISORDER", "new": "LOSS", "why": "rto"}),
        (210, "loss", 0, {"why": "rto", "bytes": 2 * MSS, "rtt": RTT}),
        (210, "cwnd", 0, {"old": 10 * MSS, "new": MSS, "mss": MSS, "ssthresh": 2 * MSS, "flight": 0, "why": "rto"}),
        (210, "rto", 0, {"attempt": 1, "rto": 600 * MS, "flight": 2 * MSS}),
        (210, "retransmit", 0, {"why": "rto", "offset": MSS, "length": MSS, "attempt": 1}),
    ]


def test_a_window_that_closes_and_opens() -> None:
    """Told when it reaches 0 and when it leaves it, in bytes (scale 7); a probe an RTO later, and at twice that."""
    c = heard(far())
    c.inject("A", seq=1, ack=1, win=500)
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"x" * 100)
    assert told(c) == [
        (100, "window", 4, {"old": 64_000, "new": 0}),
        (100, "timer", 0, {"name": "persist", "deadline": START + 400 * MS, "window": 0}),
    ]
    c.advance(1000)
    assert told(c) == [
        (400, "probe", 0, {"why": "window", "number": 1, "next": 600 * MS}),
        (1000, "probe", 0, {"why": "window", "number": 2, "next": 1200 * MS}),
    ]
    c.inject("A", seq=1, ack=1, win=1000)
    assert told(c) == [(1100, "window", 5, {"old": 0, "new": 128_000})]


def test_an_icmp_error() -> None:
    """Host unreachable, EHOSTUNREACH; then a smaller MTU: all goes again, in packets of 1000."""
    c = heard(far())
    c.write(bytes(2 * MSS))
    c.icmp(3, 1, seq=1)
    assert told(c) == [(100, "icmp", 1, {"type": 3, "code": 1, "errno": 113})]
    c.icmp(3, 4, seq=1, mtu=1000)
    again = {"why": "rto", "attempt": 1}
    assert told(c) == [
        (100, "pmtu", 1, {"why": "icmp", "old": 1500, "new": 1000}),
        (100, "recovery", 0, {"old": "OPEN", "new": "LOSS", "why": "pmtu"}),
        (100, "retransmit", 0, {**again, "offset": 0, "length": 948}),
        (100, "retransmit", 0, {**again, "offset": 948, "length": 500}),
        (100, "retransmit", 0, {**again, "offset": MSS, "length": 948}),
        (100, "retransmit", 0, {**again, "offset": MSS + 948, "length": 500}),
    ]


def test_what_icmp_told_expires() -> None:
    """RFC 1191 6.3: after ten minutes the route's MTU is tried again, by the next that is sent."""
    c = heard(far(mtu_expires_s=600))
    c.write(bytes(2 * MSS))
    c.icmp(3, 4, seq=1, mtu=1000)
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    told(c)
    c.advance(600_000)
    c.write(bytes(2 * MSS))
    assert told(c, "pmtu") == [(600_100, "pmtu", 0, {"why": "expired", "old": 1000, "new": 1500})]


def test_probes_of_a_larger_mtu() -> None:
    """RFC 4821: between 1076, which passes, and 1500 a packet of 1288 is tried; it arrives."""
    c = heard(far(mtu_probing=2, initial_window=20))
    c.write(bytes(20_000))
    assert told(c) == [(100, "mtu_probe", 0, {"size": 1288, "low": 1076, "high": 1500})]
    c.advance(100)
    c.inject("A", seq=1, ack=20_001)
    c.write(b"x")  # it is learned when the next is sent
    assert told(c, "pmtu") == [(200, "pmtu", 0, {"why": "probe", "old": 1076, "new": 1288})]


def test_urgent_both_ways() -> None:
    """Up to which byte of the stream; `sent` tells who."""
    c = heard(established())
    c.write(b"abc")
    c.call(Urgent(c.sock, 3))
    assert told(c) == [(0, "urgent", 0, {"upto": 3, "sent": True})]
    c = heard(established())
    segment = c.segment("UPA", seq=1, ack=1, data=b"abc")
    segment.head = segment.head[:18] + b"\0\3" + segment.head[20:]  # the urgent pointer
    c.core.receive(segment, c.now)
    assert told(c) == [(0, "urgent", 3, {"upto": 3, "sent": False})]


def test_keepalive_probes() -> None:
    """After 10 s of silence one a second."""
    c = connected(connect={"keepalive": 1, "keepidle_ms": 10_000, "keepintvl_ms": 1000, "keepcnt": 3})
    c.core.interest = True
    c.advance(11_500)
    events = [event for event in c.core.events() if event.kind == "probe"]
    assert [((event.at - START) // MS, event.frame, event.data) for event in events] == [
        (10_000, 0, {"why": "keepalive", "number": 1, "next": 1000 * MS}),
        (11_000, 0, {"why": "keepalive", "number": 2, "next": 1000 * MS}),
    ]
    assert all(event.conn == f"10.0.0.2:{c.local_port}>10.0.0.1:4711" for event in events)


def test_a_syn_cookie() -> None:
    """A backlog of one is full: the second SYN gets a cookie, and there is no connection to name."""
    c = Host(syncookies=1)
    c.listen(backlog=1)
    heard(c)
    c.inject("S", seq=0)
    c.inject("S", seq=0, src_port=2)
    assert told(c, "syn_cookie") == [(0, "syn_cookie", 2, {"port": 80, "half_open": 1})]


@pytest.mark.parametrize("size", [1, 3000])
def test_congestion_marks(size: int) -> None:
    """RFC 3168 6.1.3: echoed from a mark on until CWR; a super-segment counts in packets."""
    c = Host(ecn=1)
    c.listen()
    c.inject("SEC", seq=0)
    c.agreed_ts = True
    c.expect("SAE", seq=0)
    c.inject("A", seq=1, ack=1)
    heard(c)
    c.inject("A", seq=1, ack=1, data=bytes(size), gso=1448 if size > 1448 else 0, tos=CE)
    packets = 3 if size > 1448 else 1
    assert told(c) == [(0, "ecn", 3, {"echo": True, "packets": packets})]
    c.inject("AC", seq=1 + size, ack=1, data=b"x", tos=ECT_0)
    assert told(c) == [(0, "ecn", 4, {"echo": False, "packets": 1})]


def test_a_receive_buffer_that_grows() -> None:
    """17,376 bytes were taken in a round trip of 100 ms, and more than fits would have been: the buffer is all of the
    ring."""
    c = heard(far(receive_initial=16_384))
    offset = 1
    for _ in range(2):
        for _ in range(10):
            c.inject("A", seq=offset, ack=1, data=bytes(1448))
            offset += 1448
            c.consume(offset - 1)
        c.advance(100)
    assert told(c, "rcvbuf") == [(200, "rcvbuf", 0, {"size": 65_536, "most": 65_536, "rtt": RTT, "space": 17_376})]


def test_a_changed_option_is_no_event() -> None:
    """Only what tcp decides is told."""
    c = heard(established())
    c.call(SetOption(c.sock, "nodelay", 1))
    assert told(c) == []


def test_a_window_that_closes_with_what_is_usual() -> None:
    """The same by header prediction: an ACK of data that closes the window, and data that opens it."""
    c = heard(far())
    c.write(bytes(10))
    c.inject("A", seq=1, ack=11, win=0)
    assert told(c) == [(100, "window", 3, {"old": 65_535 << 7, "new": 0})]
    c.inject("PA", seq=1, ack=11, data=b"x", win=100)
    assert told(c) == [(100, "window", 4, {"old": 0, "new": 12_800})]
    c.inject("PA", seq=2, ack=11, data=b"x", win=200)  # neither from 0 nor to it
    assert told(c) == []


def test_a_probe_of_a_larger_mtu_that_is_lost() -> None:
    """Packets of 1288 do not pass: 1287 may. All behind the probe was named, so it is no congestion."""
    c = heard(far(mtu_probing=2, initial_window=20))
    c.write(bytes(20_000))
    end = c.tcb()["tx"]["snd_nxt"]
    told(c)
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + 1236, 1 + end)])
    assert told(c, "mtu_probe") == [(200, "mtu_probe", 0, {"size": 1288, "low": 1076, "high": 1287, "lost": True})]
    assert c.core.counters["mtu_probes_lost"] == 1


def test_a_black_hole() -> None:
    """tcp.mtu_probing 1: after as many timeouts as retries1 means, large packets are to blame: 1024 bytes of data."""
    c = heard(far(mtu_probing=1, tlp=False, retries1=1))
    c.write(bytes(3 * MSS))
    c.advance(2000)
    events = told(c, "pmtu")
    assert [event[1:] for event in events] == [("pmtu", 0, {"why": "black hole", "old": 1500, "new": 1076})]
    assert c.core.counters["mtu_black_holes"] == 1


def test_congestion_told_by_ecn() -> None:
    """RFC 3168 6.1.2: from OPEN to CWR, ssthresh half of what is under way; cwnd comes down by PRR."""
    c = Host(ecn=1)
    c.listen()
    c.inject("SEC", seq=0)
    c.agreed_ts = True
    c.expect("SAE", seq=0)
    c.advance(100)
    c.inject("A", seq=1, ack=1)
    c.sock = c.messages[-1].sock
    c.rings = c.messages[-1].rings
    c.write(bytes(20 * MSS))
    heard(c)
    c.advance(100)
    c.inject("AE", seq=1, ack=1 + 2 * MSS)
    assert told(c, "recovery", "loss") == [(200, "recovery", 3, {"old": "OPEN", "new": "CWR", "why": "ecn"})]
    assert c.tcb()["congestion"]["ssthresh"] == 5 * MSS
    c.inject("AE", seq=1, ack=1 + 10 * MSS)  # of the same window: once only
    assert told(c, "recovery") == [] and c.tcb()["congestion"]["ssthresh"] == 5 * MSS
    assert c.core.counters["ecn_echoes_in"] == 2 and c.core.counters["ecn_reductions"] == 1
    c.inject("A", seq=1, ack=1 + c.tcb()["tx"]["snd_nxt"])
    assert told(c, "recovery") == [(200, "recovery", 5, {"old": "CWR", "new": "OPEN", "why": "acknowledged"})]


def test_an_rtt_of_nothing_is_one() -> None:
    """The ACK of our SYN-ACK comes within the same ns."""
    c = heard(syn_received())
    c.inject("A", seq=1, ack=1)
    assert [(at, figures["rtt"]) for at, _, _, figures in told(c, "rtt")] == [(0, 0)]
