"""Where tcp decides between two things that lie close together: what goes out when, windows, probes, urgent data."""

from __future__ import annotations

import pytest
from tcp_host import HOSTS, MS, MSS, Got, Host, established, far
from test_tcp_rack import at, info

from layers.tcp.congestion.base import AckSample
from layers.tcp.congestion.cubic import Cubic
from layers.tcp.receive_space import ReceiveSpace
from layers.tcp.send_space import SendSpace
from layers.tcp.timers import OFF, PERSIST, RETRANSMIT
from levelip.frames.seam import Bind, SetOption
from levelip.rpc.stream import Urgent

SECOND = 1000 * MS
BIG = 65_535


def space(*, fin_at: int = -1, size: int = 10) -> SendSpace:
    """Established, nothing sent."""
    tx = SendSpace(1 << 16, snd_una=0, snd_nxt=0, snd_end=1000, snd_wnd=1 << 16, max_wnd=100)
    tx.mss, tx.fin_at = size, fin_at
    return tx


def test_a_buffer_that_has_grown_stays_with_another_low_water_mark() -> None:
    """SO_RCVLOWAT asks for twice as much, and takes nothing away (Linux tcp_set_rcvlowat)."""
    c = established(receive_initial=16_384)
    _, conn = c.parts()
    conn.rx.buffer = 40_000
    c.call(SetOption(c.sock, "rcvlowat", 10_000))
    assert conn.rx.buffer == 40_000
    c.call(SetOption(c.sock, "rcvlowat", 25_000))
    assert conn.rx.buffer == 50_000


def test_super_segments_are_of_whole_packets() -> None:
    """5000 bytes hold three packets of 1448 with the largest headers, not 3.38."""
    c = far(gso_max=5000)
    c.write(bytes(10 * MSS))
    assert c.sizes() == [3 * MSS, 3 * MSS, 3 * MSS, MSS]


def test_a_repeat_is_of_whole_packets_while_sack_blocks_take_room() -> None:
    """Three packets of 1448 are 4344 bytes; with a block of SACK a packet holds 1436, and three of these go."""
    c = far(gso_max=100 + 3 * MSS, tlp=False)
    ctx, conn = c.parts()
    c.write(bytes(3 * MSS))
    c.inject("A", seq=5000, ack=1, data=b"x")
    c.quiet()
    conn.congestion.cwnd = 1 << 20
    conn.tx.mark_lost(0)
    ctx.want_output(conn)
    c.flush()
    assert c.sizes() == [3 * (MSS - 12), 36]


def test_new_data_beside_a_hole_leaves_room_for_its_block() -> None:
    """RFC 6691 3: 12 bytes of SACK in each packet."""
    c = far()
    c.inject("A", seq=5000, ack=1, data=b"x")
    c.quiet()
    c.write(bytes(2 * MSS))
    assert c.sizes() == [MSS - 12, MSS - 12, 24]


def test_what_cwnd_leaves_of_a_packet_waits_whatever_the_window_was() -> None:
    """Half of the largest window would let it go, if that was what held it back."""
    c = far()
    _, conn = c.parts()
    conn.congestion.cwnd, conn.tx.max_wnd = MSS + 1000, 1000
    c.write(bytes(20_000))
    assert c.sizes() == [MSS]


def test_a_window_that_opens_with_data_lets_data_go() -> None:
    """Data in order, nothing new acknowledged, a larger window: what waited goes at once, not with the ACK."""
    c = far()
    _, conn = c.parts()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(1000))
    c.expect_nothing()
    conn.quick_acks, conn.last_data_received_at = 0, c.now  # its ACK may wait
    c.inject("A", seq=1, ack=1, data=bytes(MSS), win=100)
    assert c.sizes() == [1000]


def test_quick_acks_are_used_up_one_by_one() -> None:
    """Also where two full segments came and no delay was allowed anyway."""
    c = established()
    _, conn = c.parts()
    before = conn.quick_acks
    for number in (1, 3):
        c.inject("A", seq=at(number), ack=1, data=bytes(2 * MSS), gso=MSS)
    assert conn.quick_acks == before - 2


def test_a_fin_takes_no_room_and_what_ends_before_it_has_none() -> None:
    """Packets of 10: 21 bytes are three; 20 and the FIN two; of these split one each."""
    tx = space(fin_at=21)
    tx.record(21, 0, 10)
    assert tx.queue[0].packets == 3
    tx = space(fin_at=20)
    tx.record(21, 0, 10)
    tx.split(0, 10)
    assert [row.packets for row in tx.queue] == [1, 1]


def test_data_is_acknowledged_before_its_fin() -> None:
    """An ACK of the last byte is none of the FIN."""
    c = established()
    c.write(bytes(10))
    c.shut()
    c.quiet()
    c.inject("A", seq=1, ack=11)
    assert c.state == "FIN_WAIT_1"
    c.inject("A", seq=1, ack=12)
    assert c.state == "FIN_WAIT_2"


def test_uncorked_into_a_window_of_one_byte() -> None:
    """A window is a window: what waited for the cork waits for nothing else."""
    c = far(wscale=None)
    _, conn = c.parts()
    c.inject("A", seq=1, ack=1, win=1)
    conn.options.cork = 1
    conn.deadlines[PERSIST] = conn.scheduled[PERSIST] = c.now + SECOND
    c.core._ctx.timers.push(c.now + SECOND, PERSIST, c.sock)
    c.call(SetOption(c.sock, "cork", 0))
    assert conn.deadlines[PERSIST] == OFF


def test_the_first_window_probe_begins_its_own_patience() -> None:
    """Whatever timed out before."""
    c = far()
    _, conn = c.parts()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(100))
    conn.first_timeout_at = c.now - 10 * SECOND
    due = conn.deadlines[PERSIST]
    c.advance((due - c.now) / MS)
    c.expect("A", seq=0, ack=1)
    assert conn.first_timeout_at == due


def test_where_the_urgent_pointer_begins_and_ends() -> None:
    """On the segment with the last urgent byte, also where that is its first; not on the one after."""
    c = far()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(3000))
    c.call(Urgent(c.sock, MSS + 1))
    c.quiet()
    c.inject("A", seq=1, ack=1, win=100)
    found = [(Got(c, segment).flags, int.from_bytes(segment.head[18:20], "big")) for segment in c.segments]
    assert found[:2] == [("AU", MSS + 1), ("AU", 1)]
    c = far()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(3000))
    c.call(Urgent(c.sock, MSS))
    c.quiet()
    c.inject("A", seq=1, ack=1, win=100)
    assert ["U" in Got(c, segment).flags for segment in c.segments][:2] == [True, False]


def test_nothing_is_read_behind_the_ack_that_ends_it() -> None:
    """TCP_LINGER2 below 0: the ACK of our FIN is the end, whatever data it brings."""
    c = established()
    c.call(SetOption(c.sock, "linger2_ms", -1))
    c.close()
    c.quiet()
    c.inject("FPA", seq=1, ack=2, data=b"x")
    c.expect_nothing()
    assert c.state == "CLOSED"


def test_a_buffer_that_is_as_large_as_wanted_does_not_grow() -> None:
    """Twice what was taken and what the growth asks for: 2002 + 2 x 2."""
    for buffer, grew in ((2006, False), (2005, True)):
        rx = ReceiveSpace(1 << 16, buffer, mss=0, most=1 << 16, space=1000, turn_from=0, turn_end=1001, consumed=1001)
        assert rx.tune(10 * MS, 10 * MS) is grew
        assert rx.buffer == 2006


def test_uncorked_into_a_closed_window() -> None:
    """The probe is due when it was."""
    c = far()
    _, conn = c.parts()
    c.call(SetOption(c.sock, "cork", 1))
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(100))
    due = conn.deadlines[PERSIST]
    c.advance(50)
    c.call(SetOption(c.sock, "cork", 0))
    assert conn.deadlines[PERSIST] == due > 0


@pytest.mark.parametrize(("late", "counted"), [(0, 0), (1, 1)])
def test_a_peer_that_closed_its_window_and_fell_silent(late: int, counted: int) -> None:
    """Heard of within twice the longest RTO it lives, and repeats are probes (RFC 9293 SHLD-17); else they count."""
    c = far(tlp=False, rto_max_ms=1000)
    _, conn = c.parts()
    c.write(bytes(100))
    c.quiet()
    conn.tx.snd_wnd = 0
    due = conn.deadlines[RETRANSMIT]
    conn.last_received_at = due - 2000 * MS - late
    c.advance((due - c.now) / MS)
    assert conn.retransmits == counted


def test_nodelay_pushes_only_what_waits_for_a_cork() -> None:
    """Silly windows are avoided all the same."""
    c = established()
    c.call(SetOption(c.sock, "nodelay", 1))
    assert not c.parts()[1].override


def test_nodelay_taken_back_lets_nothing_go() -> None:
    """What Nagle holds back goes by TCP_NODELAY alone, or by its end."""
    c = established()
    c.write(b"x")
    c.write(b"y")
    c.quiet()
    c.call(SetOption(c.sock, "nodelay", 0))
    c.expect_nothing()
    c.call(SetOption(c.sock, "nodelay", 1))
    c.expect("PA", len=1)


def test_sizes_after_urgent_data_are_those_of_before() -> None:
    """Of a path of 1000 bytes."""
    c = far(mtu=1000, gso_max=BIG)
    c.write(bytes(100))
    c.call(Urgent(c.sock, 100))
    c.inject("A", seq=1, ack=101)
    c.write(bytes(5000))
    assert info(c)["snd_mss"] == 948
    c.quiet()
    c.inject("A", seq=1, ack=5101)
    c.write(bytes(5000))
    assert info(c)["snd_mss"] == 948 and max(c.sizes()) > 948


def test_a_mark_on_what_was_delivered_is_not_told() -> None:
    """It ends where RCV.NXT stands (Linux tcp_check_urg); a byte farther it is news."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=bytes(10))
    for pointer, news in ((5, 0), (6, 1)):
        c.quiet()
        segment = c.segment("PAU", seq=6, ack=1, data=bytes(10 + pointer))
        segment.head = segment.head[:18] + pointer.to_bytes(2, "big") + segment.head[20:]
        before = c.core.counters["urgent_in"]
        c.parts()[1].rx.rcv_nxt = 10
        c.call(segment)
        assert c.core.counters["urgent_in"] - before == news
    HOSTS.clear()


def test_nagle_by_configuration() -> None:
    """tcp.nagle: a second small piece waits, or not."""
    for nagle, out in ((True, [1]), (False, [1, 1])):
        c = established(nagle=nagle)
        c.write(b"x")
        c.write(b"y")
        assert c.sizes() == out


def test_a_window_of_65_536_cannot_be_said() -> None:
    """Without scaling 32,768 cannot double, 32,767 can."""
    for adv, due in ((32_768, False), (32_767, True)):
        rx = ReceiveSpace(1 << 20, 1 << 20, rcv_nxt=0, rcv_adv=adv, mss=1000)
        assert rx.update_due() is due


def test_what_goes_again_adds_up() -> None:
    """Two are twenty bytes."""
    tx = space()
    for end in (10, 20, 30):
        tx.record(end, 0, 10)
    tx.lose_all()
    for index in (0, 1):
        tx.resend(index, 5, 10)
    assert (tx.retrans_out, tx.lost_bytes) == (20, 10)
    tx.count_again()
    assert (tx.retrans_out, tx.lost_bytes) == (20, 10)
    tx = space(fin_at=29)
    for end in (10, 30):
        tx.record(end, 0, 10)
    for index in (0, 1):  # probes: neither is lost
        tx.resend(index, 5, 10)
    assert (tx.retrans_out, tx.queue[1].packets) == (30, 2)
    tx.queue[1].sacked, tx.sacked_bytes, tx.sacked_packets = True, 20, 2
    tx.split(1, 20)
    assert [row.sacked for row in tx.queue] == [False, True, True]


def test_repeats_into_a_closed_window_reduce_once() -> None:
    """The first may be for a loss; the second is a window probe, which says nothing of congestion."""
    c = far(tlp=False)
    c.write(bytes(10 * MSS))
    c.inject("A", seq=1, ack=1, win=0)
    found = []
    for _ in range(3):
        due = c.parts()[1].deadlines[RETRANSMIT]
        c.advance((due - c.now) / MS)
        found.append(c.tcb()["congestion"]["ssthresh"])
    assert found == [5 * MSS] * 3


def test_small_acks_add_up() -> None:
    """Each lets CUBIC grow by less than a byte."""
    cubic = Cubic(mss=1000, cwnd=10_000, ssthresh=5000, w_max=100_000, epoch_at=0, origin=100_000, k=SECOND)
    for number in range(2000):
        cubic.avoid(1, AckSample(1, 0, 0, 10_000, True, MS, MS, MS, SECOND + number))
    assert cubic.cwnd > 10_000


def test_what_was_taken_before_is_no_growth() -> None:
    """Half of the buffer in a round trip is what it was made for."""
    for consumed, grew in ((1000, False), (1001, True)):
        rx = ReceiveSpace(1 << 16, 2000, mss=1, most=1 << 16, turn_from=0, turn_end=1000, consumed=consumed)
        assert rx.tune(10 * MS, 10 * MS) is grew


def test_a_send_buffer_never_shrinks() -> None:
    """However small cwnd is."""
    tx = SendSpace(1000, buffer_most=4000)
    for cwnd, buffer in ((100, 1000), (600, 1200), (9000, 4000), (100, 4000), (9000, 4000)):
        tx.tune(cwnd)
        assert tx.buffer == buffer


def test_nagle_holds_no_full_segment_back() -> None:
    """Whatever small one is under way (RFC 9293 3.7.4)."""
    c = established()
    c.write(bytes(10))
    c.write(bytes(MSS - 1))
    assert c.sizes() == [10]
    c.write(bytes(1))
    assert c.sizes() == [MSS]


def test_room_toward_the_gateway_is_used() -> None:
    """Two messages into room for two."""
    c = Host()
    for number in range(3):
        c.core.receive(Bind(number, 50 + number, b"", 0), c.now)
    assert [len(c.core.outgoing({"gateway": 2})) for _ in range(2)] == [2, 1]
