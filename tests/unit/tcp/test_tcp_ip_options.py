"""IP options of connections: in each segment, paid for by the MSS, and sent back to whoever opens one with some
(RFC 9293 3.9.2.1)."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, PEER_PORT, THEIRS, Host, established, far, listening, syn_sent

from layers.tcp.recovery.state import CaState
from levelip.frames.packet import Segment
from levelip.frames.seam import Connect, Connected, Incoming, SetOption, Taken

ISN = dict[str, Any]
ROUTE = bytes.fromhex("070b0400000000000000") + bytes(2)
CAME = bytes.fromhex("01070f0c0a0000010a0000020000000094040000")
BACK = bytes.fromhex("070f0c0a0000010a0000020000000000")


def taken(c: Host) -> list[Segment]:
    """The segments that went out since the last look."""
    found = list(c.segments)
    c.segments.clear()
    return found


def with_options(c: Host, options: bytes, flags: str, **fields: Any) -> None:
    """A segment of the peer whose IP header had these."""
    segment = c.segment(flags, **fields)
    segment.options = options
    c.core.receive(segment, c.now)
    c.flush()


@pytest.mark.rfc("RFC 9293 MAY-10", "RFC 9293 MAY-11")
def test_each_segment_of_an_active_open_has_them(isn: ISN) -> None:
    """The SYN first of all; data is as much shorter as they are long."""
    c = Host(**isn)
    c.sock = 60
    c.call(Connect(60, "", THEIRS, PEER_PORT, {}, ROUTE))
    c.learn_port()
    (syn,) = c.segments
    assert syn.options == ROUTE
    c.expect("S", seq=0)
    c.inject("SA", seq=0, ack=1)
    assert [one.options for one in taken(c)] == [ROUTE]
    c.agreed_ts = True
    told = c.message(Connected)
    c.rings, c.limit = told.rings, told.limit
    c.write(bytes(2 * MSS))
    assert [(one.options, len(one.payload)) for one in taken(c)] == [
        (ROUTE, MSS - 12), (ROUTE, MSS - 12), (ROUTE, 24)
    ]  # fmt: skip


def test_what_is_set_on_a_connection_goes_from_then_on(isn: ISN) -> None:
    """And is taken back as well: the MSS follows (Linux do_ip_setsockopt)."""
    c = established(**isn)
    for options, room in ((ROUTE, MSS - 12), (b"", MSS)):
        c.call(SetOption(c.sock, "ip_options", 0, options))
        c.write(bytes(MSS))
        sent = taken(c)
        assert {one.options for one in sent} == {options}
        assert len(sent[0].payload) == room
        c.inject("A", seq=1, ack=1 + c.sent)
        taken(c)


@pytest.mark.parametrize(("gso_max", "packets"), [(100 + 12 + 2 * (MSS - 12) - 1, 1), (100 + 12 + 2 * (MSS - 12), 2)])
def test_a_super_segment_leaves_room_for_them(gso_max: int, packets: int) -> None:
    """The device's limit is of all that goes into the packet: headers, their options, and data."""
    c = established(gso_max=gso_max)
    c.call(SetOption(c.sock, "ip_options", 0, ROUTE))
    c.write(bytes(4 * MSS))
    assert len(taken(c)[0].payload) == packets * (MSS - 12)


def test_at_the_least_mss_eight_bytes_are_left() -> None:
    """48 less 12 of timestamps and 40 of IP options are none: 8 all the same (Linux tcp_min_snd_mss)."""
    c = established(mss=1)
    c.call(SetOption(c.sock, "ip_options", 0, bytes((1,)) * 40))
    c.write(bytes(20))
    assert [len(one.payload) for one in taken(c)] == [8, 8, 4]


@pytest.mark.parametrize("came", ["94040000", "01010100", "07070400000000070704000000000000"])
def test_options_of_which_none_can_come_back(came: str, isn: ISN) -> None:
    """Those that record nothing, or a record route twice: the connection has none."""
    c = listening(**isn)
    with_options(c, bytes.fromhex(came), "S", seq=0)
    (answer,) = c.segments
    assert answer.options == b""
    c.expect("SA", seq=0, ack=1)


@pytest.mark.rfc("RFC 9293 MAY-10", "RFC 9293 MAY-11", "RFC 9293 MUST-50")
def test_a_record_route_comes_back(isn: ISN) -> None:
    """Of the SYN's options those that record the way, in the SYN-ACK and all after it; others are ignored. Its
    listener's own are for nobody."""
    c = listening(**isn)
    c.call(SetOption(50, "ip_options", 0, bytes.fromhex("94040000")))
    with_options(c, CAME, "S", seq=0)
    (answer,) = c.segments
    assert answer.options == BACK
    c.agreed_ts = True
    c.expect("SA", seq=0, ack=1)
    c.inject("A", seq=1, ack=1)
    told = c.message(Incoming)
    assert told.ip_options == BACK
    c.sock, c.rings, c.limit = told.sock, told.rings, told.limit
    c.call(Taken(50, told.sock))
    c.write(b"x")
    assert [one.options for one in taken(c)] == [BACK]


def test_without_options_there_are_none(isn: ISN) -> None:
    """Those of later segments of the peer are ignored."""
    c = established(**isn)
    with_options(c, CAME, "PA", seq=1, ack=1, data=b"x")
    c.write(b"x")
    assert {one.options for one in taken(c)} == {b""}


def test_a_cookie_brings_them_along(isn: ISN) -> None:
    """A SYN that is answered with a cookie leaves nothing behind: the ACK's own options count (cookie_v4_check)."""
    c = Host(**isn)
    c.listen(backlog=1)
    c.inject("S", seq=0, src_port=4712)
    taken(c)
    with_options(c, CAME, "S", seq=0)
    (answer,) = c.segments
    assert answer.options == BACK
    c.agreed_ts = True
    got = c.expect("SA", ack=1)
    c.isn = got.raw_seq
    with_options(c, CAME, "A", seq=1, ack=1)
    assert c.message(Incoming).ip_options == BACK


def test_what_is_set_while_it_opens_goes_with_the_next_segment(isn: ISN) -> None:
    """The SYN that is under way is not sent again for it; all after it has them."""
    c = syn_sent(**isn)
    c.call(SetOption(c.sock, "ip_options", 0, ROUTE))
    c.expect_nothing()
    c.no_message()
    c.inject("SA", seq=0, ack=1)
    assert [one.options for one in taken(c)] == [ROUTE]


def test_what_is_under_way_goes_again_in_smaller_segments(isn: ISN) -> None:
    """As where the path takes smaller packets only (Linux tcp_simple_retransmit): what was one segment is two, and cwnd
    stays (RFC 1191 6.5)."""
    c = far(**isn)
    c.write(bytes(2 * MSS))
    c.quiet()
    c.call(SetOption(c.sock, "ip_options", 0, ROUTE))
    assert [(one.options, len(one.payload)) for one in taken(c)] == [
        (ROUTE, MSS - 12), (ROUTE, 12), (ROUTE, MSS - 12), (ROUTE, 12)
    ]  # fmt: skip
    assert c.tcb()["recovery"]["state"] == CaState.LOSS
    assert c.tcb()["congestion"]["cwnd"] == 10 * MSS
