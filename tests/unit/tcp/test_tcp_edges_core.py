"""Where tcp decides between two things that lie close together: queues, totals, snapshots and what is told."""

from __future__ import annotations

import random

import pytest
from tcp_host import established, listening, time_wait

from layers.tcp.config import TcpCoreConfig
from layers.tcp.core import TcpCore
from layers.tcp.output import TO_IP_MOST
from levelip.frames.seam import Listen
from levelip.rpc.stream import Data


@pytest.mark.parametrize("room", [0, 1])
def test_the_queue_toward_ip_ends_exactly_at_its_length(room: int) -> None:
    """One more fits or not: ACKs, resets, cookies and TIME-WAIT's answers are lost there, and it is told of whom."""
    for begin, flags, fields, name in (
        (established, "A", {"seq": 90_000, "ack": 1}, "10.0.0.2:80>10.0.0.1:4711"),
        (listening, "A", {"seq": 1, "ack": 1}, ""),
        (lambda: listening(syncookies=2), "S", {"seq": 0}, ""),
        (time_wait, "A", {"seq": 90_000, "ack": 2}, ""),
    ):
        c = begin()
        c.core.interest = True
        ctx = c.core._ctx
        filler = c.segment("A", seq=0, ack=0)
        ctx.to_ip.extend([filler] * (TO_IP_MOST - room))
        segment = c.segment(flags, **fields)
        c.core.receive(segment, c.now)
        assert len(ctx.to_ip) == TO_IP_MOST
        drops = [event for event in c.core.events() if event.reason == "tcp_queue_full"]
        assert len(drops) == 1 - room
        assert all(event.conn == name and event.frame in (0, segment.id) for event in drops)
        ctx.to_ip.clear()


def test_what_overflows_is_told_with_its_segment() -> None:
    """tcp.abort_on_overflow: the change of state names the ACK that came too much."""
    c = listening(abort_on_overflow=True, syncookies=0, ts=False)
    c.call(Listen(3, 50, "", 2))
    c.core.interest = True
    for flags, port in (("S", 1), ("A", 1), ("S", 2), ("S", 3), ("A", 2), ("S", 4), ("A", 3), ("A", 4)):
        c.inject(flags, seq=int(flags == "A"), ack=1 if flags == "A" else None, src_port=port)
    states = [event for event in c.core.events() if event.kind == "state"]
    assert states[-1].data["new"] == "CLOSED" and states[-1].frame == c.frame


def test_totals_count_every_connection() -> None:
    """Two are two."""
    c = established()
    c.inject("S", seq=0, src_port=9)
    c.inject("A", seq=1, ack=1, src_port=9)
    assert c.core.control(1, "totals", {}, c.now)["states"]["ESTABLISHED"] == 2


def test_a_snapshot_holds_bytes_as_bytes() -> None:
    """Addresses are what they are."""
    assert type(established().core.snapshot()["connections"][0]["local"]) is bytes


def test_what_a_full_pipe_holds_back_is_told_at_once_later() -> None:
    """Three segments while the gateway has no room are one message."""
    c = established()
    for number in range(3):
        c.inject("PA", seq=1 + number, ack=1, data=b"x", flush=False)
        c.flush({"gateway": 0})
        assert not c.core._ctx.to_gateway
    c.flush()
    assert c.message(Data).payload.length == 3
    c.no_message()


def test_a_new_core_knows_what_time_it_is() -> None:
    """From the beginning."""
    assert TcpCore(TcpCoreConfig(), random.Random(1), 77).snapshot()["now"] == 77


def test_a_header_that_comes_with_its_data_is_taken_apart() -> None:
    """Also one without options."""
    c = established(ts=False)
    segment = c.segment("PA", seq=1, ack=1, data=b"hello")
    segment.head, segment.payload = segment.head + segment.payload, b""
    c.call(segment)
    assert c.received(0, 5) == b"hello"
