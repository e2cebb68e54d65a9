"""What goes out at a flush: within the room that there is, in the order in which it was decided, each once."""

from __future__ import annotations

import pytest
from tcp_host import MSS, connected, established, far, syn_sent

from layers.tcp.congestion.cubic import cube_root
from levelip.frames.seam import GetInfo, NeighbourDown, NeighbourUp, SetOption
from levelip.rpc.stream import Accepted, Data, Reset, Send


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


