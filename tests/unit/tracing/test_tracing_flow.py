"""The flow model: what an onlooker and the stack's events tell of a connection, row by row, bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from levelip.frames.packet import FrameIds, Process
from levelip.tracing.flow import Flow, FlowModel
from levelip.tracing.flowrows import COLUMNS, NOTES, SERIES
from levelip.wire.options import TcpOptions, pack_sack
from levelip.wire.tcp import ACK, FIN, PSH, RST, SYN, pack_tcp
from tests.netsim.net import MS, Impairment
from tests.netsim.tcp_apps import TcpHost, pair, pattern
from tests.unit.tracing.tapped import TappedCore

US, THEM = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 1))
NAME = "10.0.0.2:80>10.0.0.1:4711"
ISN_US, ISN_THEM = 0xFFFF_FFFE, 0xFFFF_FF00  # both wrap within the tests


class Wire:
    """Segments of one connection as records of the tap bus, written with relative numbers."""

    def __init__(self, **how: Any) -> None:
        self.model = FlowModel(**how)
        self.ids = FrameIds(Process.TCP, 5)
        self.now = 0

    def segment(
        self, outward: bool, flags: int, seq: int, ack: int = 0, size: int = 0, *, window: int = 1000,
        options: bytes = b"", gso: int = 0, after: int = MS, process: str = "tcp", id_: int | None = None,
        isn: tuple[int, int] = (ISN_US, ISN_THEM),
    ) -> Flow | None:  # fmt: skip
        self.now += after
        ours, theirs = isn
        base, other = (ours, theirs) if outward else (theirs, ours)
        ports = (80, 4711) if outward else (4711, 80)
        head = pack_tcp(
            *ports, seq=(base + seq) & 0xFFFFFFFF, ack=(other + ack) & 0xFFFFFFFF if flags & ACK else 0, flags=flags,
            window=window, options=options,
        )  # fmt: skip
        fields = {"src": US if outward else THEM, "dst": THEM if outward else US, "proto": 6}
        direction = "out" if outward == (process == "tcp") else "in"
        number = self.ids.next() if id_ is None else id_
        way = [process, "ip-tcp", direction, self.now, self.now]
        return self.model.add([1, "f", *way, number, [], "Segment", fields, head, b"", size, 1, gso])

    def out(self, *args: Any, **how: Any) -> Flow | None:
        return self.segment(True, *args, **how)

    def into(self, *args: Any, **how: Any) -> Flow | None:
        return self.segment(False, *args, **how)

    def event(self, kind: str, conn: str = NAME, **data: Any) -> Flow | None:
        return self.model.add([1, "e", "tcp", self.now, [self.now, kind, data.pop("reason", ""), 0, conn, data]])

    def open(self, shift: int | None = 2, shift_us: int | None = 3) -> Flow:
        """The handshake; the peer's windows are scaled by `shift`."""
        self.into(SYN, 0, options=TcpOptions(mss=1460, wscale=shift, sack_permitted=True).serialize())
        self.out(SYN | ACK, 0, 1, options=TcpOptions(mss=1400, wscale=shift_us, sack_permitted=True).serialize())
        flow = self.into(ACK, 1, 1)
        assert flow is not None
        return flow


@pytest.fixture
def wire() -> Wire:
    return Wire()


def last(flow: Flow) -> Any:
    return flow.segments.rows[-1]


def test_numbers_count_from_the_syn_and_do_not_wrap(wire: Wire) -> None:
    """The first byte of data is 1 (as in Wireshark), on both sides, and 2^32 is no border."""
    flow = wire.open()
    wire.out(ACK | PSH, 1, 1, 500)
    wire.out(ACK, 501, 1, 500)
    wire.into(ACK, 1, 1001)
    assert [(row.way, row.seq, row.len, row.ack) for row in flow.segments.rows] == [
        ("in", 0, 0, None), ("out", 0, 0, 1), ("in", 1, 0, 1), ("out", 1, 500, 1), ("out", 501, 500, 1),
        ("in", 1, 0, 1001),
    ]  # fmt: skip
    assert [row.t for row in flow.segments.rows] == [0, MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS]
    assert (flow.out.mss, flow.into.mss, flow.out.shift, flow.into.shift) == (1400, 1460, 3, 2)


def test_windows_are_scaled_by_what_their_sender_offered_but_not_on_a_syn(wire: Wire) -> None:
    """RFC 7323 2.2, 2.3."""
    flow = wire.open()
    wire.out(ACK, 1, 1)
    assert [row.win for row in flow.segments.rows] == [1000, 1000, 4000, 8000]


@pytest.mark.parametrize(("theirs", "ours"), [(None, 7), (7, None)])
def test_one_side_that_does_not_scale_turns_it_off_for_both(wire: Wire, theirs: int | None, ours: int | None) -> None:
    """RFC 7323 2.2: both must offer."""
    flow = wire.open(theirs, ours)
    wire.out(ACK, 1, 1)
    assert {row.win for row in flow.segments.rows} == {1000}


def test_what_was_sent_before_is_a_retransmission_and_says_how_much(wire: Wire) -> None:
    flow = wire.open()
    wire.out(ACK, 1, 1, 1000)
    wire.out(ACK, 1001, 1, 1000)
    wire.out(ACK, 501, 1, 2000)
    assert (last(flow).notes, last(flow).again) == (["retransmission"], 1500)
    wire.into(ACK, 1, 2501)
    wire.out(ACK, 1, 1, 100)
    assert (last(flow).notes, last(flow).again) == (["spurious_retransmission"], 100)
    assert flow.out.repeated == 1600


def test_what_was_delivered_counts_each_byte_once(wire: Wire) -> None:
    """Neither repeats nor SYN and FIN; of a connection whose other side is not seen, what was sent."""
    flow = wire.open()
    wire.out(ACK, 1, 1, 1000)
    wire.out(ACK, 1, 1, 1000)
    wire.out(FIN | ACK, 1001, 1, 500)
    assert (flow.out.bytes, flow.out.delivered()) == (2500, 0)
    wire.into(ACK, 1, 1001)
    assert flow.out.delivered() == 1000
    wire.into(ACK, 1, 1502)
    assert (flow.out.delivered(), flow.into.delivered()) == (1500, 0)
    alone = Wire()
    alone.out(ACK, 5001, 1, 100)
    alone.out(ACK, 5001, 1, 100)
    flow = alone.out(FIN | ACK, 5101, 1, 100) or flow
    assert (flow.out.delivered(), flow.into.delivered()) == (200, 0)


def test_a_hole_filled_at_once_was_overtaken_and_one_filled_late_was_lost(wire: Wire) -> None:
    flow = wire.open()
    wire.into(ACK, 101, 1, 100)
    assert last(flow).notes == ["lost_segment"]
    wire.into(ACK, 1, 1, 100)
    assert (last(flow).notes, last(flow).again) == (["out_of_order"], 0)
    wire.into(ACK, 301, 1, 100)
    wire.into(ACK, 201, 1, 100, after=200 * MS)
    assert (last(flow).notes, last(flow).again) == (["retransmission"], 100)


def test_sack_blocks_count_from_the_syn_and_take_from_the_flight(wire: Wire) -> None:
    flow = wire.open()
    wire.out(ACK, 1, 1, 4000, gso=1000)
    assert (last(flow).gso, last(flow).out_flight, flow.out.packets) == (1000, 4000, 5)
    blocks = pack_sack([((ISN_US + 1001) & 0xFFFFFFFF, (ISN_US + 2001) & 0xFFFFFFFF)])
    wire.into(ACK, 1, 1, options=blocks)
    row = last(flow)
    assert (row.sack, row.dsack, row.notes, row.out_flight) == ([[1001, 2001]], None, ["duplicate_ack"], 3000)


def test_a_first_block_below_the_ack_or_within_the_second_is_a_dsack(wire: Wire) -> None:
    """RFC 2883 4."""
    flow = wire.open()
    wire.out(ACK, 1, 1, 4000, gso=1000)

    def block(left: int, right: int) -> tuple[int, int]:
        return (ISN_US + left) & 0xFFFFFFFF, (ISN_US + right) & 0xFFFFFFFF

    wire.into(ACK, 1, 1001, options=pack_sack([block(1, 1001)]))
    assert (last(flow).dsack, last(flow).sack, last(flow).notes) == ([1, 1001], [], ["dsack"])
    wire.into(ACK, 1, 1001, options=pack_sack([block(2001, 2501), block(2001, 3001)]))
    assert (last(flow).dsack, last(flow).sack) == ([2001, 2501], [[2001, 3001]])
    assert last(flow).out_flight == 2000


def test_zero_windows_their_probes_and_their_end_are_named(wire: Wire) -> None:
    """RFC 9293 3.8.6.1."""
    flow = wire.open()
    wire.out(ACK, 1, 1, 4000)
    assert last(flow).notes == ["window_full"]
    wire.into(ACK, 1, 4001, window=0)
    assert last(flow).notes == ["zero_window"]
    wire.out(ACK, 4000, 1)
    assert last(flow).notes == ["zero_window_probe"]
    wire.into(ACK, 1, 4001, window=500)
    assert last(flow).notes == ["window_update"]
    wire.out(ACK, 4000, 1)
    assert last(flow).notes == ["keep_alive"]
    assert {note for row in flow.segments.rows for note in row.notes} <= set(NOTES)


def test_a_round_trip_is_not_taken_from_what_was_sent_twice(wire: Wire) -> None:
    """Karn's algorithm, RFC 6298 3."""
    flow = wire.open()
    before = len(flow.rtts.rows)
    wire.out(ACK, 1, 1, 100)
    wire.into(ACK, 1, 101, after=30 * MS)
    assert [(row.way, row.rtt, row.why) for row in flow.rtts.rows[before:]] == [("out", 30 * MS, "ack")]
    wire.out(ACK, 101, 1, 100)
    wire.out(ACK, 101, 1, 100, after=200 * MS)
    wire.into(ACK, 1, 201, after=30 * MS)
    assert len(flow.rtts.rows) == before + 1


def test_a_segment_far_outside_of_the_window_moves_nothing(wire: Wire) -> None:
    """Somebody guesses: the graph shall not jump by 2 GB."""
    flow = wire.open()
    wire.out(ACK, 1, 1, 100)
    wire.into(ACK, 1 << 30, 50, 10)
    assert last(flow).notes == ["beyond_window"]
    assert (flow.into.nxt, last(flow).out_flight) == (1, 100)
    wire.into(RST, 1)
    assert (flow.into.nxt, last(flow).flags, last(flow).notes) == (1, "R", [])


@pytest.mark.parametrize("infer", [True, False])
def test_a_peer_with_an_older_connection_half_open(infer: bool) -> None:
    """Its ACK is answered by a RST, and the SYN is sent again (RFC 9293 3.5.1): what follows is a connection with both
    SYNs, whose windows are scaled."""
    wire, old = Wire(infer=infer), (7_000_000, 9_000_000)
    ours = TcpOptions(mss=1400, wscale=3).serialize()
    wire.out(SYN, 0, options=ours)
    wire.into(ACK, 5, 5, isn=old)
    wire.out(RST, 5, isn=old)
    wire.out(SYN, 0, options=ours, after=1000 * MS)
    wire.into(SYN | ACK, 0, 1, options=TcpOptions(mss=1460, wscale=2).serialize())
    wire.out(ACK, 1, 1)
    flow = wire.into(ACK, 1, 1, 10)
    assert flow is not None
    assert [(row.way, row.seq, row.ack, row.len, row.win) for row in flow.segments.rows] == [
        ("out", 0, None, 0, 1000), ("in", 0, 1, 0, 1000), ("out", 1, 1, 0, 8000), ("in", 1, 1, 10, 4000),
    ]  # fmt: skip


def test_a_frame_of_which_both_processes_tell_counts_once_and_one_that_comes_twice_counts_twice(wire: Wire) -> None:
    flow = wire.open()
    count = len(flow.segments.rows)
    wire.out(ACK, 1, 1, 100, id_=7)
    wire.out(ACK, 1, 1, 100, id_=7, process="ip")
    assert len(flow.segments.rows) == count + 1
    wire.into(ACK, 1, 101, id_=8)
    wire.into(ACK, 1, 101, id_=8)  # a fault at the seam doubles it
    assert len(flow.segments.rows) == count + 3


def test_events_become_windows_round_trips_states_and_decisions(wire: Wire) -> None:
    flow = wire.open()
    wire.event("state", old="SYN_RECEIVED", new="ESTABLISHED", input="SYN_ACKED")
    wire.event("cwnd", old=14600, new=7300, mss=1460, ssthresh=7300, flight=6000, why="rack")
    wire.event("undo", old=7300, new=14600, mss=1460, why="dsack")
    wire.event("rtt", rtt=10, srtt=11, rttvar=12, rto=13)
    wire.event("rto", rto=26, attempt=1, flight=5)
    wire.event("drop", reason="tcp_rst_outside")
    assert flow.state == "ESTABLISHED"
    assert [row[2:] for row in flow.windows.rows] == [(7300, 7300, 6000, "rack"), (14600, 7300, None, "undo dsack")]
    mine = [row[2:] for row in flow.rtts.rows if row.why != "ack"]
    assert mine == [("out", 10, 11, 12, 13, "rtt"), ("out", None, None, None, 26, "rto")]
    drop = flow.decisions.rows[-1]
    assert (drop.kind, drop.reason, drop.rule) == ("drop", "tcp_rst_outside", "RFC 9293 3.10.7.4, second step")
    assert [row.kind for row in flow.decisions.rows] == ["state", "cwnd", "undo", "rtt", "rto", "drop"]


def test_an_ssthresh_that_was_never_lowered_is_none(wire: Wire) -> None:
    flow = wire.open()
    wire.event("cwnd", old=10, new=20, ssthresh=1 << 31, why="ack")
    assert flow.windows.rows[-1].ssthresh is None


def test_events_about_no_connection_are_kept_apart(wire: Wire) -> None:
    assert wire.event("listen", conn="", sock=1, port=80, backlog=5) is None
    assert wire.event("listen", conn="nonsense", sock=1, port=80, backlog=5) is None
    assert [row.text for row in wire.model.others.rows] == ["listening on port 80, backlog 5 (sock 1)"] * 2


def test_since_gives_what_is_new_and_is_json(wire: Wire) -> None:
    flow = wire.open()
    news = flow.since()
    assert json.loads(json.dumps(news))["segments"][0][: len(COLUMNS["segments"])]
    again = flow.since(news["next"])
    assert all(not again[name] for name in SERIES)
    wire.out(ACK, 1, 1, 10)
    wire.event("cwnd", old=1, new=2, why="ack")
    newer = flow.since(news["next"])
    assert [len(newer[name]) for name in SERIES] == [1, 1, 0, 0, 1]
    json.dumps(flow.summary())


def test_the_same_ports_once_more_are_another_connection(wire: Wire) -> None:
    first = wire.open()
    wire.event("state", old="LAST_ACK", new="CLOSED", input="FIN_ACKED")
    wire.into(SYN, 0, isn=(5, 6))
    assert list(wire.model.flows) == [NAME, f"{NAME}#2"]
    second = wire.out(SYN | ACK, 0, 1, isn=(5, 6))
    assert second is not None and second is not first
    wire.event("state", old="CLOSED", new="SYN_RECEIVED", input="SYN")
    assert (first.state, second.state) == ("CLOSED", "SYN_RECEIVED")


def test_memory_is_bounded_and_what_is_left_out_is_counted() -> None:
    wire = Wire(rows=100, flows=3)
    flow = wire.open()
    for number in range(1000):
        wire.out(ACK, 1 + number, 1, 1)
    assert 100 <= len(flow.segments.rows) <= 125
    assert flow.since()["left_out"] == {"segments": 1003 - len(flow.segments.rows)}
    assert flow.summary()["left_out"] >= 878
    for port in range(5000, 5010):
        wire.model.segment(1, THEM, US, pack_tcp(port, 80, seq=1, ack=0, flags=SYN, window=1), 20)
    assert (len(wire.model.flows), wire.model.left_out) == (3, 8)
    assert wire.model._held == sum(one.held for one in wire.model.flows.values())
    small = FlowModel(total=50)
    for port in range(5000, 5100):
        small.segment(1, THEM, US, pack_tcp(port, 80, seq=1, ack=0, flags=SYN, window=1), 20)
    assert sum(one.held for one in small.flows.values()) <= 50


def test_what_is_no_tcp_header_is_passed_over() -> None:
    model = FlowModel()
    good = pack_tcp(1, 2, seq=1, ack=0, flags=SYN, window=1)
    assert model.segment(1, US, THEM, good[:19], 19) is None
    assert model.segment(1, US, THEM, good[:12] + b"\x10" + good[13:], 20) is None  # a data offset of 1
    assert model.segment(1, US, THEM, good[:12] + b"\xf0" + good[13:], 20) is None  # of 15, and no options
    assert not model.flows


def test_a_state_is_inferred_where_only_packets_are_known() -> None:
    """RFC 9293 3.3.2, as an onlooker beside the side that opened can follow it."""
    wire = Wire(infer=True)
    for_them = [("out", SYN, 0, 0), ("in", SYN | ACK, 0, 1), ("out", ACK, 1, 1), ("in", FIN | ACK, 1, 1),
                ("out", ACK, 1, 2), ("out", FIN | ACK, 1, 2), ("in", ACK, 2, 2)]  # fmt: skip
    for way, flags, seq, ack in for_them:
        flow = wire.segment(way == "out", flags, seq, ack)
    assert flow is not None
    assert [row.new for row in flow.states.rows] == ["SYN_SENT", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "CLOSED"]
    assert {row.input for row in flow.states.rows} == {"inferred"}


def test_a_connection_is_found_by_what_people_type(wire: Wire) -> None:
    flow = wire.open()
    for text in (NAME, "80", ":80", "10.0.0.1", "10.0.0.1:4711", "10.0.0.2:80", "10.0.0.1:4711 > 10.0.0.2:80"):
        assert wire.model.find(text) == [flow], text
    assert wire.model.find("81") == [] == wire.model.find("")


def test_windows_of_a_connection_that_was_joined_late_are_scaled_by_what_the_stack_says(wire: Wire) -> None:
    wire.model.know(NAME, out_wscale=3, in_wscale=2, state="ESTABLISHED")
    flow = wire.into(ACK, 1, 1)
    assert flow is not None
    assert (last(flow).win, flow.state) == (4000, "ESTABLISHED")


def transferred(seed: int) -> tuple[FlowModel, FlowModel, TcpHost, TcpHost]:
    """300 KB from 10.0.0.1 over a path that loses 3 % of the packets; the models of both ends."""
    lossy = Impairment(loss=0.03, delay=10 * MS)
    net, a, b, _, _ = pair(lossy, Impairment(delay=10 * MS), core_type=TappedCore, seed=seed)
    b.listen(80)
    a.connect(b.address, 80, pattern(1, 300_000), eof=True)
    assert net.run(lambda: bool(b.accepted) and b.accepted[0].eof, seconds=60)
    models = []
    for host in (a, b):
        model = FlowModel()
        for record in host.core.records:
            model.add(record)
        models.append(model)
    return models[0], models[1], a, b


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_a_lossy_transfer_the_model_counts_what_the_stack_counts(seed: int) -> None:
    """Both ends of one transfer, by what tcp itself says: retransmissions, bytes, flight, congestion window."""
    sent, received, a, b = transferred(seed)
    (flow,) = sent.flows.values()
    (conn,) = a.core._ctx.sockets.values()
    repeated = [row for row in flow.segments.rows if row.way == "out" and row.again]
    assert sum(row.again for row in repeated) == conn.tx.retransmitted > 0
    told = [row for row in flow.decisions.rows if row.kind == "retransmit"]
    assert len(repeated) == len(told)
    assert (flow.out.nxt - 1, flow.out.una - 1) == (conn.tx.snd_nxt, conn.tx.snd_una)
    assert flow.out.bytes == conn.tx.sent_bytes
    assert flow.out.delivered() == min(conn.tx.snd_una, 300_000) < flow.out.bytes
    assert flow.windows.rows[-1].cwnd == conn.congestion.cwnd
    assert flow.state == conn.state.name
    assert [row for row in flow.rtts.rows if row.why == "rtt"][-1].srtt == conn.rto.srtt
    (other,) = received.flows.values()
    (peer,) = b.core._ctx.sockets.values()
    assert (other.into.nxt, other.out.ack) == (300_002, 300_002)
    assert other.into.delivered() == 300_000
    assert other.state == peer.state.name
    assert [(row.cwnd, row.why) for row in other.windows.rows] == [(10 * 1448, "start")]
