"""Graphs and ladders of a connection: exact while small, never larger than their pixels, the edges always right."""

from __future__ import annotations

from levelip.tracing.flow import Flow, FlowModel
from levelip.web.graphs import AGAIN, DATA, EDGE, EXACT, graph
from levelip.web.ladder import Ladder
from tests.unit.web.webrecords import ACK, MS, NAME, PSH, event, segment, transfer


def followed(records: list[list[object]]) -> tuple[FlowModel, Flow]:
    model = FlowModel()
    for record in records:
        model.add(record)
    return model, model.flows[NAME]


def test_few_segments_are_sent_as_they_are() -> None:
    """Each segment, ACK and window of the range, and what was sent again by its own kind."""
    again = segment(1003 * MS + 7, "down", seq=5100, ack=1000, flags=ACK | PSH, length=100)
    records = [*transfer(3), again]
    _, flow = followed(records)
    data = graph(flow, "out", 0, 10**12, 800)
    assert data["exact"] and data["segments"] == 10
    assert [row[1:] for row in data["data"]] == [[0, 1, EDGE, 1], [1, 101, DATA, 1], [101, 201, DATA, 1],
                                                 [201, 301, DATA, 1], [101, 201, AGAIN, 1]]  # fmt: skip
    assert [row[1] for row in data["acks"]] == [1, 101, 201, 301]
    assert data["acks"][-1][2] == 301 + 1000, "the window's right edge"


def test_the_other_direction() -> None:
    _, flow = followed(transfer(3))
    data = graph(flow, "in", 0, 10**12, 800)
    assert [row[1:4] for row in data["data"]] == [[0, 1, EDGE]]
    assert not data["windows"], "the congestion window is ours"


def test_a_part_of_the_time() -> None:
    """Only what lies within the two instants."""
    _, flow = followed(transfer(100))
    data = graph(flow, "out", 10 * MS, 20 * MS, 800)
    assert [row[1] for row in data["data"]] == [901 + 100 * i for i in range(11)]


def test_many_segments_cost_no_more_than_pixels() -> None:
    """20,000 segments in 300 columns: some rows a column, and still the first and the last byte, ACK and extremes."""
    records = transfer(20_000, gap=100_000)
    again = segment(records[-1][5] + 5, "down", seq=5000 + 19_990 * 100, ack=1000, flags=ACK | PSH, length=100)
    _, flow = followed([*records, again])
    data = graph(flow, "out", 0, flow.last, 300)
    assert not data["exact"] and data["segments"] > EXACT
    assert len(data["data"]) < 700 and len(data["acks"]) < 320 and len(data["flight"]) < 640
    assert min(row[1] for row in data["data"]) == 0
    assert max(row[2] for row in data["data"]) == 20_000 * 100 + 1
    (sent_again,) = [row for row in data["data"] if row[3] == AGAIN]
    assert sent_again[1:3] == [1_999_001, 1_999_101], "what was sent again is not lost in it"
    assert data["acks"][-1][1] == 20_000 * 100 + 1
    assert sum(row[4] for row in data["data"] if row[3] == DATA) == 20_000
    assert max(row[1] for row in data["flight"]) == 100 and min(row[1] for row in data["flight"]) == 0


def test_windows_and_round_trips_by_the_stacks_own_account() -> None:
    """cwnd, ssthresh (None: never lowered), RTT and RTO as the events said; a timer that ran out is marked."""
    records = [*transfer(1), event(1010 * MS, "cwnd", new=14480, ssthresh=1 << 31, mss=1448),
               event(1011 * MS, "rtt", rtt=5 * MS, srtt=6 * MS, rttvar=MS, rto=200 * MS),
               event(1012 * MS, "rto", rto=400 * MS, attempt=1, flight=0),
               event(1013 * MS, "cwnd", new=1448, ssthresh=7240, mss=1448)]  # fmt: skip
    _, flow = followed(records)
    data = graph(flow, "out", 0, 10**12, 500)
    assert [row[1:3] for row in data["windows"]] == [[14480, None], [1448, 7240]]
    assert [row[1:] for row in data["rtts"]] == [[5 * MS, 6 * MS, 200 * MS, 0], [None, None, 400 * MS, 1]]


def test_a_ladder_has_all_in_order() -> None:
    """Segments, states and decisions by number; frequent decisions only where all are wanted; times find positions."""
    records = transfer(2)
    records.insert(1, event(1000 * MS, "state", old="LISTEN", new="SYN_RECEIVED", input="SYN"))
    records += [event(1004 * MS, "rtt", rtt=5), event(1005 * MS, "retransmit", why="rto", offset=0, length=100)]
    records += [event(1006 * MS, "fault", what="delay", ns=5 * MS), event(1007 * MS, "fault", what="dup")]
    model, flow = followed(records)
    origin = 500 * MS
    ladders = {wanted: Ladder(flow, model.start or 0, origin, wanted) for wanted in ("main", "all", "none")}
    for ladder in ladders.values():
        ladder.scan()
    kinds = [row[1] for row in ladders["main"].rows(0, 100)]
    assert kinds == ["seg", "state", *["seg"] * 6, "event", "event"]
    assert (ladders["all"].count, ladders["none"].count) == (12, 8)
    main = ladders["main"]
    assert main.rows(0, 1)[0][0] == 0.5 and main.rows(1, 1)[0][2:] == ["LISTEN", "SYN_RECEIVED", "SYN"]
    assert main.at(1001 * MS) == 4 and main.at(0) == 0 and main.at(10**13) == main.count


def test_a_ladder_grows() -> None:
    """What comes later is appended; positions stay."""
    model, flow = followed(transfer(2))
    ladder = Ladder(flow, model.start or 0, 0, "main")
    ladder.scan()
    before = ladder.rows(0, 100)
    for record in transfer(3, start=2000 * MS)[3:]:
        model.add(record)
    ladder.scan()
    assert ladder.rows(0, len(before)) == before and ladder.count == len(before) + 6
