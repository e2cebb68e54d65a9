"""Rows and views: what is kept, what is shown of it, and that positions never move."""

from __future__ import annotations

from levelip.debug.tap import Notice
from levelip.web.packets import Packets
from levelip.web.views import View, Wanted
from tests.unit.web.webrecords import ACK, MS, NAME, PSH, SYN, event, segment, transfer


def test_a_segment_as_the_page_shows_it() -> None:
    """Direction, ends, numbers relative to the handshake, flags apart, and its connection, our side first."""
    packets = Packets()
    packets.extend(transfer(1))
    row = packets.row(3, 1000 * MS)
    assert row == [3, 0.001, "f", "ip-tcp", "down", "10.0.0.2.80", "10.0.0.1.4711", "TCP", 120,
                   "seq 1:101, ack 1, win 1000, length 100", NAME, "P."]  # fmt: skip
    assert packets.row(2, 0)[4:7] == ["up", "10.0.0.1.4711", "10.0.0.2.80"]


def test_numbers_do_not_depend_on_what_was_looked_at_first() -> None:
    """Text is made late, in any order; sequence numbers count from the handshake all the same."""
    packets = Packets()
    packets.extend(transfer(50))
    late, early = packets.row(101, 0), packets.row(3, 0)
    assert late[9].startswith("seq 4901:5001") and early[9].startswith("seq 1:101")


def test_an_event_has_its_reason_and_rule() -> None:
    packets = Packets()
    packets.extend([event(MS, "drop", reason="tcp_checksum"), event(2 * MS, "state", old="LISTEN", new="SYN_RECEIVED")])
    _, _, kind, process, name, conn, text, severity, rule = packets.row(0, 0)
    assert (kind, process, name, conn) == ("e", "tcp", "drop", NAME)
    assert rule.startswith("tcp_checksum: ") and "RFC 9293" in rule and severity and "drop" in text
    assert packets.row(1, 0)[7] == "state"


def test_time_never_falls() -> None:
    """A record that came late of another process counts as of the moment before it, so that times can be searched."""
    packets = Packets()
    packets.extend([segment(5 * MS, "up"), segment(3 * MS, "down"), Notice(0, "tcp is gone"), segment(9 * MS, "up")])
    assert list(packets.times) == [5 * MS, 5 * MS, 5 * MS, 9 * MS]
    assert packets.at(6 * MS) == 3 and packets.at(0) == 0 and packets.at(99 * MS) == 4
    assert packets.row(2, 0)[2:] == ["n", "tcp is gone"]
    assert sum(packets.density(5 * MS, 9 * MS + 1, 10)) == 4


def test_the_oldest_go_and_numbers_stay() -> None:
    """No more than `keep` and a bit is kept; row n is row n for ever."""
    packets = Packets(keep=100)
    records = transfer(500)
    for i in range(0, len(records), 7):
        packets.extend(records[i : i + 7])
    assert packets.end == len(records) and 80 <= packets.end - packets.first <= 107
    last = packets.end - 1
    assert packets.row(last, 1000 * MS)[0] == last
    assert packets.time(last) == records[-1][5]
    try:
        packets.record(packets.first - 1)
        raise AssertionError("a row that is gone was shown")
    except IndexError as error:
        assert "not kept" in str(error)


def test_a_view_of_everything_is_the_rows() -> None:
    packets = Packets()
    view = View(packets, Wanted())
    packets.extend(transfer(10))
    assert view.scan() and (view.start, view.count, view.scanned) == (0, 23, 1.0)
    assert [row[0] for row in view.rows(20, 10)] == [20, 21, 22]


def test_a_filtered_view_grows_with_the_rows() -> None:
    """What passes is found as rows come; times and positions lead to one another."""
    packets = Packets()
    packets.extend(transfer(10))
    view = View(packets, Wanted(matches=lambda record, kind: bool(record[1] == "f" and record[13])))
    assert view.scan() and view.count == 10
    packets.extend(transfer(5, start=2000 * MS))
    assert view.scan() and view.count == 15
    assert all(row[11] == "P." for row in view.rows(0, 100))
    at = view.at(2000 * MS)
    assert at == 10 and view.rows(at, 1)[0][1] == 2.001


def test_a_filter_is_applied_a_slice_at_a_time() -> None:
    """A long search returns in between, says how far it is, and ends with the same result."""
    packets = Packets()
    packets.extend(transfer(3000))
    view = View(packets, Wanted(matches=lambda record, kind: True))
    rounds = 0
    while not view.scan(0.0005):
        rounds += 1
        assert 0 < view.scanned < 1
    assert rounds > 2 and view.count == packets.end


def test_positions_of_a_filtered_view_never_move() -> None:
    """When old rows go, what they were is left out at the front; position p is the same row as before."""
    packets = Packets(keep=100)
    view = View(packets, Wanted(matches=lambda record, kind: bool(record[1] == "f" and record[13])))
    packets.extend(transfer(45))
    view.scan()
    row = view.rows(40, 1)[0]
    packets.extend(transfer(20, start=3000 * MS))
    view.scan()
    assert view.start > 0 and view.rows(40, 1)[0] == row
    assert view.rows(0, 1) == view.rows(view.start, 1)[:0] or view.rows(0, 1)[0][0] >= packets.first


def test_by_connection_seam_and_kind() -> None:
    packets = Packets()
    packets.extend([*transfer(2), event(1005 * MS, "rtt", rtt=5), event(1006 * MS, "arp", conn="", address="10.0.0.1")])
    conn = packets.number(NAME)
    of_conn = View(packets, Wanted(conn=conn))
    events = View(packets, Wanted(frames=False))
    elsewhere = View(packets, Wanted(seams=frozenset({0}), events=False))
    for view in (of_conn, events, elsewhere):
        assert view.scan()
    assert (of_conn.count, events.count, elsewhere.count) == (8, 2, 0)


def test_ports_used_again_are_one_name() -> None:
    """A SYN gives relative numbers a new beginning."""
    packets = Packets()
    packets.extend(transfer(2))
    packets.extend(
        [
            segment(5000 * MS, "up", seq=70_000, flags=SYN),
            segment(5001 * MS, "down", seq=90_000, ack=70_001, flags=SYN | ACK),
            segment(5002 * MS, "down", seq=90_001, ack=70_001, flags=ACK | PSH, length=10),
        ]
    )
    assert len(packets.names) == 2
    assert packets.row(packets.end - 1, 0)[9].startswith("seq 1:11")


def test_garbage_in_a_head_is_a_row_all_the_same() -> None:
    """Whatever a record's bytes are, it is a row: without connection, but shown."""
    packets = Packets()
    for head in (b"", b"\x45", b"\x45" * 19, bytes(40), b"\xff" * 60):
        for kind in ("Packet", "DeviceFrame"):
            packets.extend([[0, "f", "link", "link", "in", MS, MS, 1, [], kind, {"vnet": b""}, head, b"", 5, 0, 0]])
    assert [packets.row(n, 0)[2] for n in range(packets.end)] == ["f"] * 10
