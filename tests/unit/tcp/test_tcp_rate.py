"""The delivery rate and the pacing rate of tcp_info: layers/tcp/rate.py, and what the send space tells it."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, MSS, Host, connected, far

from layers.tcp.core import TcpCore
from layers.tcp.rate import UNLIMITED, Rate, pacing_rate
from layers.tcp.send_space import SendSpace

SIZE = 10  # bytes of a packet, where the send space is alone


def space() -> SendSpace:
    """A send space whose SYN has arrived."""
    return SendSpace(
        buffer=1 << 20, mss=SIZE, snd_una=0, snd_nxt=0, snd_end=1 << 20, delivered=1, rate=Rate(sent=1)
    )  # fmt: skip


def send(tx: SendSpace, ms: int, packets: int = 1) -> None:
    """One entry of so many packets goes out."""
    tx.record(tx.snd_nxt + packets * SIZE, ms * MS, SIZE)


def ack(tx: SendSpace, ms: int, packets: int = 1, min_rtt: int = 1) -> tuple[int, float]:
    """The next packets are acknowledged. Packets of the sample that counts, and its ms."""
    tx.acknowledge(tx.snd_una + packets * SIZE, ms * MS)
    tx.rate.acked(tx.delivered, min_rtt, ms * MS)
    return tx.rate.packets, tx.rate.interval / MS


def info(c: Host) -> dict[str, Any]:
    """The figures of TCP_INFO."""
    row = c.row()
    assert row is not None
    return dict(row["info"])


def told(c: Host) -> tuple[int, int]:
    """tcpi_delivery_rate, in packets of MSS a second, and tcpi_delivery_rate_app_limited."""
    now = info(c)
    assert now["delivery_rate"] % MSS == 0
    return now["delivery_rate"] // MSS, now["app_limited"]


def test_steady_rate() -> None:
    """A packet each 10 ms, acknowledged 100 ms later. The first ACK: one packet in 100 ms, as nothing was in flight
    when it went; from the eleventh packet on, which went by the first ACK, ten in 100 ms: 1000 bytes/s."""
    tx = space()
    for ms in range(0, 100, 10):
        send(tx, ms)
    assert ack(tx, 100) == (1, 100)
    send(tx, 100)
    # the second packet went at 10 ms, when time counted from 0 on: two in 110 ms
    assert ack(tx, 110) == (2, 110)
    for ms in range(110, 1000, 10):
        send(tx, ms)
        found = ack(tx, ms + 10)
    assert found == (10, 100)
    assert tx.rate.per_second(SIZE) == 1000


def test_acks_in_a_bunch() -> None:
    """Two packets 90 ms apart, both ACKs at 190 ms: by the ACKs alone two packets had come in 90 ms, but it took 100 ms
    to send them."""
    tx = space()
    send(tx, 0)
    send(tx, 90)
    assert ack(tx, 100) == (1, 100)
    send(tx, 100)  # by the ACK: of what was sent at 0, which came at 100
    assert ack(tx, 190, 2) == (2, 100)


def test_after_idle() -> None:
    """Nothing is in flight for ten seconds: they are no part of the next sample."""
    tx = space()
    send(tx, 0)
    assert ack(tx, 100) == (1, 100)
    send(tx, 10_100, 3)
    assert ack(tx, 10_200, 3) == (3, 100)


def test_packets_of_a_super_segment() -> None:
    """Ten packets are one entry; four are acknowledged after 100 ms, the rest 40 ms later: four in 100, ten in 140."""
    tx = space()
    send(tx, 0, 10)
    assert ack(tx, 100, 4) == (4, 100)
    assert ack(tx, 140, 6) == (10, 140)
    assert tx.rate.sent == tx.delivered == 11


def test_a_part_of_a_packet_is_no_sample() -> None:
    """Half a packet is acknowledged: nothing has arrived whole, so time goes on."""
    tx = space()
    send(tx, 0)
    tx.acknowledge(5, 100 * MS)
    tx.rate.acked(tx.delivered, 1, 100 * MS)
    assert (tx.rate.packets, tx.rate.delivered) == (0, 1)
    tx.acknowledge(10, 120 * MS)
    tx.rate.acked(tx.delivered, 1, 120 * MS)
    assert (tx.rate.packets, tx.rate.interval) == (1, 120 * MS)


@pytest.mark.parametrize(("min_rtt", "taken"), [(100 * MS, 1), (100 * MS + 1, 0), (0, 0)])
def test_a_sample_of_less_than_the_smallest_rtt(min_rtt: int, taken: int) -> None:
    """Is of a packet that was sent again for nothing, and is not taken; nor is one before there is an RTT. What comes
    after it counts from this ACK on, all the same."""
    tx = space()
    send(tx, 0)
    send(tx, 1)
    assert ack(tx, 100, min_rtt=min_rtt)[0] == taken
    assert tx.rate.mark == (2, 100 * MS, 0, False)


def test_the_last_sent_tells() -> None:
    """A packet that was sent again is the newest of what one ACK tells of: 1 was sent at 0, 2 at 10, 1 again at 60 by
    the ACK of packet 0 at 50. All at 160: since that mark, two packets in 110 ms."""
    tx = space()
    send(tx, 0)
    send(tx, 0)
    send(tx, 10)
    assert ack(tx, 50) == (1, 50)
    tx.mark_lost(0)
    tx.resend(0, 60 * MS, SIZE)
    assert ack(tx, 160, 2) == (2, 110)
    assert tx.rate.first_at == 60 * MS


def test_of_one_instant_the_last_in_the_stream_tells() -> None:
    """Two sent again at once: RFC 8985 6.2's order."""
    rate = Rate()
    rate.arrived((5, 0, 0, False), 10, 30)
    rate.arrived((4, 0, 0, False), 10, 20)
    rate.arrived((3, 0, 0, False), 9, 40)
    rate.arrived(None, 11, 50)
    assert rate.newest == (5, 0, 0, False)
    rate.arrived((6, 0, 0, False), 10, 31)
    assert rate.newest == (6, 0, 0, False)


def test_in_pieces_of_another_size() -> None:
    """What goes again in smaller packets arrives in as many: the count of what is under way stays right."""
    tx = space()
    send(tx, 0, 4)
    tx.split(0, 15)  # two packets, of which the second is half one, and three
    assert tx.rate.sent == 6
    tx.lose_all()
    tx.resend(1, 5 * MS, 5)  # 25 bytes: five of 5
    assert tx.rate.sent == 8
    tx.acknowledge(40, 100 * MS)
    assert tx.delivered == 8


# what the connection makes of it


def test_app_limited() -> None:
    """RTT 100 ms. The application's first writes find nothing under way: what goes by them is its rate, of which the
    highest is told. Twenty segments, of which ten may go at once: the second ten are the network's, whatever came
    before."""
    c = far(100)
    assert told(c) == (0, 1)
    for number, (size, rate) in enumerate(((1, 10), (5, 50), (2, 50))):
        c.write(bytes(size * MSS))
        c.advance(100)
        c.inject("A", seq=1, ack=1 + c.sent)
        assert told(c) == (rate, 1), number
    c.advance(50)
    c.write(bytes(20 * MSS))
    start = c.sent - 20 * MSS
    c.advance(100)
    c.inject("A", seq=1, ack=1 + start + 10 * MSS)
    assert told(c) == (100, 1)
    c.advance(200)
    c.inject("A", seq=1, ack=1 + start + 20 * MSS)
    assert told(c) == (50, 0)  # ten segments in 200 ms


def test_the_bubble_ends() -> None:
    """Marked are a write while two segments are under way, and what follows until all three have arrived."""
    c = far(100)
    _, conn = c.parts()
    rate = conn.tx.rate
    c.write(bytes(2 * MSS))
    c.advance(50)
    c.write(bytes(MSS))
    assert rate.limited == 3  # SYN and two segments
    c.advance(50)
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    assert (rate.limited, rate.delivered) == (3, 3)
    c.advance(50)
    c.inject("A", seq=1, ack=1 + 3 * MSS)
    assert rate.limited == 0
    assert told(c) == (20, 1)  # of the first two; one in 100 ms is less


@pytest.mark.parametrize(("size", "cwnd", "limited"), [(MSS - 1, 10, True), (MSS, 10, False), (MSS - 1, 1, False)])
def test_when_the_application_is_the_limit(size: int, cwnd: int, limited: bool) -> None:
    """Less than a segment waits, and cwnd has room (Linux tcp_rate_check_app_limited)."""
    c = far(100, nagle=False)
    _, conn = c.parts()
    tx = conn.tx
    c.write(bytes(MSS))
    tx.rate.limited = 0
    tx.snd_end += size
    tx.write_due(cwnd * MSS)
    assert bool(tx.rate.limited) is limited
    tx.rate.limited = 0
    tx.mark_lost(0)
    tx.write_due(1 << 30)
    assert not tx.rate.limited  # what is lost waits


def block(first: int, last: int) -> tuple[int, int]:
    """A SACK block of segments, numbered from 1."""
    return 1 + (first - 1) * MSS, 1 + last * MSS


def test_sacked_once() -> None:
    """Ten segments at 0. SACK names 2 to 9 at 100 ms: eight in 100 ms. The first again at 100, by that ACK; what SACK
    named is no second sample when it is acknowledged: at 200 ms one in 100 ms, and the tenth, of which nothing was
    heard yet, is of an older mark."""
    c = far(100)
    c.write(bytes(10 * MSS))
    c.quiet()
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[block(2, 9)])
    assert told(c) == (80, 1)
    _, conn = c.parts()
    assert [(row.sacked, row.mark is None) for row in conn.tx.queue] == [(False, False), (True, True), (False, False)]
    c.expect("A", seq=1, len=MSS)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    assert told(c) == (20, 0)  # two arrived since: in 100 ms from the ACK that let the repeat go


def test_a_retransmission_has_a_mark_of_its_own() -> None:
    """The timer repeats the only segment, of which the ACK comes 100 ms later: one in 400 ms, since the mark is still
    that of the first time: nothing has arrived meanwhile."""
    c = far(100, tlp=False)
    c.write(bytes(MSS))
    c.advance(300)  # RTO: 100 + 4 × 50
    _, conn = c.parts()
    assert (conn.tx.queue[0].times, conn.tx.queue[0].mark) == (2, conn.tx.rate.mark)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + MSS)
    assert (conn.tx.rate.packets, conn.tx.rate.interval) == (1, 400 * MS)


def test_after_reneging_no_sample_is_taken() -> None:
    """What the peer acknowledges may have arrived before it threw it away. At 100 ms SACK names three of four, the
    first goes again and is acknowledged at once: one since SACK's ACK, in the 100 ms since what that told of was sent.
    Then the peer is silent about the three; at 211 ms it has all, which would be three in 111 ms. Once recovery is over
    samples count again."""
    c = far(100)
    c.write(bytes(4 * MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[block(2, 4)])
    assert told(c) == (30, 1)
    c.inject("A", seq=1, ack=1 + MSS)
    assert told(c) == (10, 0)
    c.advance(11)
    _, conn = c.parts()
    assert conn.tx.rate.reneged and not conn.tx.sacked_bytes
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 4 * MSS)
    assert told(c) == (10, 0)
    assert not conn.tx.rate.reneged
    c.write(bytes(MSS))
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 5 * MSS)
    assert told(c) == (10, 1)


def test_without_sack() -> None:
    """Three duplicates, a fast retransmit, and one ACK of all ten: by the mark of the repeat, as it was sent last."""
    c = far(100, sack=False)
    c.write(bytes(10 * MSS))
    c.advance(100)
    for _ in range(3):
        c.inject("A", seq=1, ack=1)
    c.advance(100)
    c.inject("A", seq=1, ack=1 + 10 * MSS)
    assert told(c) == (50, 1)  # ten in 200 ms: what duplicates told of counts when it is acknowledged


def test_a_syn_is_no_sample() -> None:
    """Of an active and a passive open; the rate of pacing is unlimited until there is a connection."""
    for c in (connected(), far(100)):
        assert info(c)["delivery_rate"] == 0 and info(c)["app_limited"] == 1 and info(c)["delivered"] == 1
        _, conn = c.parts()
        assert conn.tx.rate.mark is None
        conn.tx.snd_una = -1
        assert info(c)["pacing_rate"] == UNLIMITED
        conn.tx.snd_una = 0


@pytest.mark.parametrize(
    ("cwnd", "ssthresh", "out", "srtt", "rate"),
    [
        (10_000, 1 << 31, 0, 100 * MS, 200_000),  # 10 packets of 1000 bytes in 100 ms, twice
        (10_000, 20_002, 0, 100 * MS, 200_000),  # below half of ssthresh
        (10_000, 20_000, 0, 100 * MS, 120_000),  # not: 1.2 times
        (10_999, 5000, 12, 100 * MS, 144_000),  # more is out than cwnd allows now
        (500, 5000, 0, 100 * MS, 20_000),  # a packet at least
        (10_000, 1 << 31, 0, 0, 160_000_000_000),  # no RTT: as if it were 1/8 µs
    ],
)
def test_pacing_rate(cwnd: int, ssthresh: int, out: int, srtt: int, rate: int) -> None:
    """Linux tcp_update_pacing_rate."""
    assert pacing_rate(1000, cwnd, ssthresh, out, srtt) == rate


def test_pacing_rate_of_a_connection() -> None:
    """Ten segments in an RTT of 100 ms, twice."""
    assert info(far(100))["pacing_rate"] == 10 * MSS * 10 * 2


def test_a_snapshot_of_before() -> None:
    """A recording of before there was a delivery rate can be gone on with: what it does not say is as at the start."""
    c = far(100)
    c.write(bytes(3 * MSS))
    state = c.core.snapshot()
    restored = TcpCore.restore(c.config, state)
    assert restored.snapshot() == state
    [conn] = state["connections"]
    assert conn["tx"]["rate"]["sent"] == 4 and conn["tx"]["queue"][0]["mark"] is not None
    del conn["tx"]["rate"]
    for row in conn["tx"]["queue"]:
        del row["mark"]
    core = TcpCore.restore(c.config, state)
    core.receive(c.segment("A", seq=1, ack=1 + 3 * MSS), c.now + 100 * MS)
    [_, row] = core.control(1, "ss", {}, c.now)["sockets"]
    assert row["info"]["delivered"] == 4 and row["info"]["delivery_rate"] == 0


def test_the_first_write_of_a_connection_is_limited_by_the_application() -> None:
    """Only the SYN was sent by then: until more than it has arrived, by this ACK or a later one, the mark says so."""
    rate = Rate(sent=1, limited=1)
    rate.begin(100, 1)
    assert rate.mark == (1, 100, 100, True)
    rate = Rate(sent=1, limited=1)
    rate.acked(1, 1, 200)
    assert rate.mark == (1, 200, -1, True)
    rate.begin(300, 1)
    rate.acked(2, 1, 400)
    assert rate.mark is not None and not rate.mark[3]


def test_each_ack_has_a_newest_packet_of_its_own() -> None:
    """What was sent before the newest of the last ACK is the newest of this one, where it alone is told of."""
    rate = Rate()
    rate.begin(0, 0)
    mark = rate.mark
    rate.arrived(mark, 100, 20)
    rate.acked(1, 1, 200)
    rate.arrived(mark, 50, 10)
    assert rate.newest is mark and rate.newest_at == 50


def test_rates_are_whole_bytes_a_second() -> None:
    """What does not come out even is cut, as in C: 3 packets of 10 bytes in 7 ns; a window of 25 bytes is two packets
    of ten; half of an ssthresh of 11 is 5, which a cwnd of 5 is not below."""
    assert Rate(packets=3, interval=7).per_second(10) == 30_000_000_000 // 7
    assert pacing_rate(10, 25, 0, 0, 1000) == 20 * 120 * 1_000_000_000 // (100 * 1000)
    assert pacing_rate(1, 5, 11, 0, 7000) == 5 * 120 * 1_000_000_000 // (100 * 7000)
    assert isinstance(Rate(packets=3, interval=7).per_second(10), int)
    assert isinstance(pacing_rate(10, 25, 0, 0, 7000), int)
