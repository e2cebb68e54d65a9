"""What goes out at a flush: within the room that there is, in the order in which it was decided, each once."""

from __future__ import annotations

import pytest
from tcp_host import MSS, connected, established, far, syn_sent, time_wait

from layers.tcp.congestion.cubic import cube_root
from levelip.frames.seam import GetInfo, NeighbourDown, NeighbourUp, SetOption
from levelip.rpc.stream import Accepted, Data, Eof, Reset, Send, Urgent


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 9])
def test_no_more_than_the_next_pipe_takes(room: int) -> None:
    """First what is queued already, an RST here, then three segments of a connection: `room` at each flush."""
    c = connected()
    c.core.receive(Send(c.sock, 0, 3 * MSS), c.now)
    c.core.receive(c.segment("S", seq=0, src_port=9, dst_port=9), c.now)
    sizes: list[int] = []
    for number in (1, 2):
        c.flush({"ip": room})
        sizes += [len(c.segments.popleft().payload) for _ in range(len(c.segments))]
        assert len(sizes) == min(number * room, 4)
    c.flush()
    sizes += [len(segment.payload) for segment in c.segments]
    assert sizes == [0, MSS, MSS, MSS]


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_no_more_than_the_gateway_takes(room: int) -> None:
    """Answers wait in their order; news of connections waits behind them."""
    c = connected()
    for number in range(2):
        c.core.receive(GetInfo(number, 99), c.now)
    c.core.receive(c.segment("PA", seq=1, ack=1, data=b"x"), c.now)
    told = []
    for _ in range(4):
        c.flush({"gateway": room})
        assert len(c.messages) <= room
        told += [type(c.messages.popleft()).__name__ for _ in range(len(c.messages))]
    c.flush()
    told += [type(message).__name__ for message in c.messages]
    assert told == ["Result", "Result", "Data"]


def test_what_is_to_be_told_waits_while_nobody_has_room() -> None:
    """Neither ip nor the gateway: nothing at all comes out, however often it is asked for."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"x", flush=False)
    assert [port for port, _ in c.core.outgoing({"ip": 0, "gateway": 0})] == ["memory"]
    assert c.core.outgoing({"ip": 0, "gateway": 0}) == []
    assert sorted(port for port, _ in c.core.outgoing({})) == ["gateway", "ip"]


def test_the_first_gateway_takes_nobodys_place() -> None:
    """None was lost."""
    assert established().core.counters.get("gateways_lost", 0) == 0


def test_a_connection_that_is_asked_twice_sends_once() -> None:
    """Two reasons to send between two flushes: one ACK."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"a", flush=False)
    c.inject("PA", seq=2, ack=1, data=b"b", flush=False)
    c.flush()
    c.expect("A", ack=3)
    c.expect_nothing()
    told = [c.message(Data) for _ in range(len(c.messages))]
    assert [(data.offset, data.payload.length) for data in told] == [(0, 2)]  # and told once


def test_the_gateway_comes_back() -> None:
    """Another neighbour is none of tcp's business; one that is gone may come back; a new one has nothing: RST."""
    c = established()
    c.core.receive(NeighbourUp("ip", 77), c.now)
    c.core.receive(NeighbourUp("gateway", 9), c.now)  # the one that was there
    c.core.receive(NeighbourDown("ip"), c.now)
    c.core.receive(NeighbourDown("gateway"), c.now)
    c.flush()
    c.expect_nothing()
    assert c.state == "ESTABLISHED"
    c.core.receive(NeighbourUp("gateway", 10), c.now)
    c.flush()
    c.expect("RA")
    assert c.state == "CLOSED" and c.core.counters["gateways_lost"] == 1


# options of a live connection


def test_uncorked_data_goes_though_a_probe_was_due() -> None:
    """The timer that held back the corked rest is off."""
    c = connected(connect={"cork": 1})
    c.write(b"abc")
    c.expect_nothing()
    c.call(SetOption(c.sock, "cork", 0))
    c.expect("PA", len=3)
    assert c.tcb()["deadlines"][1] == -1


def test_another_distance_of_keepalive_probes() -> None:
    """From now on, while they are under way; before the first it is only remembered."""
    c = connected(connect={"keepalive": 1, "keepidle_ms": 10_000, "keepintvl_ms": 5000, "keepcnt": 9})
    c.call(SetOption(c.sock, "keepintvl_ms", 4000))
    c.advance(9_999)
    c.expect_nothing()
    c.advance(1)
    c.expect("A", seq=0, len=0)
    c.advance(1000)
    c.call(SetOption(c.sock, "keepintvl_ms", 2000))
    c.advance(1999)
    c.expect_nothing()
    c.advance(1)
    c.expect("A", seq=0, len=0)


def test_a_larger_receive_buffer_is_told() -> None:
    """SO_RCVBUF while the window is small: an update, counted, caused by no frame."""
    c = established(receive_initial=4096)
    c.inject("A", seq=1, ack=1, data=bytes(1448))
    c.quiet()
    updates = c.core.counters["window_updates_out"]
    c.call(SetOption(c.sock, "rcvbuf", 65_536))
    got = c.expect("A", ack=1449)
    assert got.segment.causes == [] and c.core.counters["window_updates_out"] == updates + 1
    c.call(SetOption(c.sock, "rcvbuf", 65_536))
    c.expect_nothing()


def test_quickack_lets_a_waiting_ack_go() -> None:
    """TCP_QUICKACK with an ACK that waits: at once; without one nothing goes."""
    c = established()
    c.call(SetOption(c.sock, "quickack", 0))
    c.expect_nothing()
    c.inject("A", seq=1, ack=1, data=b"x")
    c.expect_nothing()
    c.call(SetOption(c.sock, "quickack", 1))
    c.expect("A", ack=2)
    c.call(SetOption(c.sock, "quickack", 1))
    c.expect_nothing()


# figures of a connection


def test_marks_and_echoes_are_counted_by_connection() -> None:
    """Each reduction and each echo, as in all."""
    c = far()
    _, conn = c.parts()
    conn.ecn.on = True
    for number in range(1, 4):
        c.write(bytes(2 * MSS))
        c.advance(100)
        c.inject("AE", seq=1, ack=1 + 2 * number * MSS)
        c.inject("A", seq=1, ack=1 + 2 * number * MSS)
    assert c.core.counters["ecn_reductions"] == conn.ecn.reductions
    assert c.core.counters["ecn_echoes_in"] == conn.ecn.echoes_in == 3


@pytest.mark.parametrize("ts", [True, False])
def test_segments_of_data_are_counted_by_connection(ts: bool) -> None:
    """In packets, whichever way they were taken, also those out of order."""
    c = established(ts=ts)
    c.inject("A", seq=1, ack=1, data=bytes(3000), gso=1448)
    c.inject("A", seq=4001, ack=1, data=bytes(3000), gso=1448)
    assert c.tcb()["data_segments_in"] == c.core.counters["data_segments_in"] == 6
    assert c.tcb()["rx"]["out_of_order"] == 1


def test_a_reset_says_to_whom() -> None:
    """Who connected hears that it was refused, once."""
    c = syn_sent()
    c.inject("RA", seq=0, ack=1)
    assert c.message(Reset).sock == 60
    c.no_message()


def test_what_was_taken_is_told_by_limit() -> None:
    """Everything acknowledged: the application may write as much again."""
    c = connected()
    c.write(bytes(1000))
    c.inject("A", seq=1, ack=1001)
    told = c.message(Accepted)
    assert (told.sock, told.upto, told.limit) == (60, 1000, 1000 + 65_536)


def test_cube_roots() -> None:
    """The largest integer whose cube is not above."""
    for value in [*range(1100), 10**27 - 1, 10**27, 2**90 - 1]:
        root = cube_root(value)
        assert root**3 <= value < (root + 1) ** 3




def test_the_end_of_the_stream_is_told_once() -> None:
    """Also when there is more to tell of the connection later."""
    c = connected()
    c.inject("FA", seq=1, ack=1)
    assert c.message(Eof).at == 0
    c.write(bytes(100))
    c.inject("A", seq=2, ack=101)
    assert type(c.messages[0]) is Accepted and len(c.messages) == 1


def test_duplicates_are_counted() -> None:
    """All of it had come before, though the segment reaches RCV.NXT: a FIN that was still to come is in it."""
    c = established()
    c.inject("A", seq=1, ack=1, data=b"abc")
    c.inject("A", seq=5, ack=1, data=b"e")
    c.quiet()
    before = c.core.counters["duplicate_segments_in"]
    c.inject("FA", seq=1, ack=1, data=b"abc")  # the FIN where a byte lies beyond: there is more
    assert c.core.counters["duplicate_segments_in"] == before + 1


def test_an_rst_in_time_wait_is_counted() -> None:
    """RFC 9293 3.10.7.4: with the exact number it ends the record."""
    c = time_wait(rfc1337=False)
    before = c.core.counters["resets_in"]
    c.inject("R", seq=2)
    assert c.core.counters["resets_in"] == before + 1 and c.state == "CLOSED"


def test_an_mtu_at_the_least_that_is_believed() -> None:
    """552 is believed, with DF as before; less is not, and packets of 552 may be cut (Linux ip_rt_min_pmtu). 68 is the
    least that a link may have; without a number the plateau below counts (RFC 1191 5)."""
    for mtu, pmtu, df in ((552, 552, True), (551, 552, False), (68, 552, False), (0, 1492, True)):
        c = established()
        c.write(bytes(MSS))
        c.icmp(3, 4, seq=1, mtu=mtu)
        tcb = c.tcb()
        assert (tcb["pmtu"], tcb["dont_fragment"]) == (pmtu, df)
    c = established(mtu=68)
    c.write(bytes(10))
    c.icmp(3, 4, seq=1, mtu=0)  # there is nothing below
    assert c.tcb()["pmtu"] == 68


def test_an_error_about_a_syn_is_about_a_packet_of_its_size() -> None:
    """40 bytes of options behind the headers: 80 in all. An MTU of 79 may have been too small for it, one of 80 not."""
    for mtu, fits in ((79, 0), (80, 1)):
        c = syn_sent()
        c.icmp(3, 4, seq=0, mtu=mtu)
        assert c.dropped("tcp_icmp_fits") == fits


def test_urgent_marks_at_their_limits() -> None:
    """What is acknowledged cannot become urgent; a mark no farther than the last says nothing new."""
    c = established()
    c.write(b"abcdef")
    c.inject("A", seq=1, ack=4)
    for upto, marks in ((3, 0), (4, 1), (4, 1), (5, 2)):
        c.call(Urgent(c.sock, upto))
        assert c.core.counters["urgent_out"] == marks
    c = established()
    for pointer, marks in ((2, 1), (2, 1), (3, 2), (1, 2)):
        segment = c.segment("UA", seq=1, ack=1)
        segment.head = segment.head[:18] + pointer.to_bytes(2, "big") + segment.head[20:]
        c.core.receive(segment, c.now)
        c.flush()
        assert c.core.counters["urgent_in"] == marks
    told = [message for message in c.messages if type(message) is Urgent]
    assert told == [Urgent(c.sock, 2), Urgent(c.sock, 3)]
