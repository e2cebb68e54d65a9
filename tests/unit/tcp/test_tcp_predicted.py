"""What header prediction takes itself and what it leaves to the long path: it is there for speed, so it must take what
is usual, and it must touch nothing of what it does not take."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from tcp_host import MSS, Host, established, far

from layers.tcp.connection import Connection
from layers.tcp.header_prediction import predicted
from levelip.wire.options import TcpOptions


def taken(c: Host, **fields: Any) -> bool:
    """Whether a segment is taken; if not, nothing has changed."""
    ctx, conn = c.parts()
    flags = fields.pop("flags", "A")
    segment = c.segment(flags, **fields)
    seq, ack = struct.unpack_from(">II", segment.head, 4)
    window = int.from_bytes(segment.head[14:16], "big")
    before = c.core.snapshot()
    done = predicted(ctx, conn, segment, seq, ack, window, segment.payload, c.now)
    if not done:
        assert c.core.snapshot() == before
    return done


def sending(**how: Any) -> Host:
    """Two segments are under way."""
    c = far(**how)
    c.write(bytes(2 * MSS))
    return c.quiet()


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 1, "ack": 1, "data": b"x"},
        {"seq": 1, "ack": 1 + MSS},
        {"seq": 1, "ack": 1 + 2 * MSS},
        {"seq": 1, "ack": 1 + MSS, "data": b"x"},
        {"seq": 1, "ack": 1, "data": b"x", "win": 100},
        {"seq": 1, "ack": 1, "data": b"x", "tos": 2},
    ],
)
def test_what_is_usual_is_taken(fields: dict[str, Any]) -> None:
    """Data in order, an ACK of something, both; whatever the window says; with a timestamp no older than the last."""
    assert taken(sending(), **fields)
    c = sending()
    assert taken(c, **fields, ts=c.stamp + 2**31 - 1)


def test_all_of_the_window_is_taken() -> None:
    """Up to its last byte, and not one more."""
    for more in (0, 1):
        c = established()
        room = c.tcb()["rx"]["rcv_acc"]
        assert taken(c, seq=1, ack=1, data=bytes(room + more)) is (more == 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"seq": 1, "ack": 1},  # a duplicate, or a window update
        {"seq": 2, "ack": 1, "data": b"x"},  # out of order
        {"seq": 0, "ack": 1, "data": b"x"},
        {"seq": 1, "ack": 0, "data": b"x"},  # an old ACK
        {"seq": 1, "ack": 2 + 2 * MSS, "data": b"x"},  # of what was not sent
        {"seq": 1, "ack": 1, "data": b"x", "ts": 199},  # older than the last, 200: PAWS
        {"seq": 1, "ack": 1, "data": b"x", "ts": 200 + 2**31},
    ],
)
def test_what_is_unusual_is_not(fields: dict[str, Any]) -> None:
    """The long path knows what to do."""
    assert not taken(sending(), **fields)


def holes(c: Host, conn: Connection) -> None:
    conn.rx.insert(5, 6)


def recovering(c: Host, conn: Connection) -> None:
    conn.recovery.state = type(conn.recovery.state)(1)


def probing(c: Host, conn: Connection) -> None:
    conn.recovery.probe_end = 0


def closing(c: Host, conn: Connection) -> None:
    conn.rx.fin_at = 0


def marking(c: Host, conn: Connection) -> None:
    conn.ecn.on = True


@pytest.mark.parametrize("how", [holes, recovering, probing, closing])
def test_a_connection_in_trouble_takes_the_long_path(how: Callable[[Host, Connection], None]) -> None:
    """Holes, a recovery, a loss probe under way, a FIN that waits."""
    c = sending()
    how(c, c.parts()[1])
    assert not taken(c, seq=1, ack=1, data=b"x")


def test_a_mark_takes_the_long_path_where_it_means_something() -> None:
    """CE, and only with ECN."""
    c = sending()
    assert taken(c, seq=1, ack=1, data=b"x", tos=3)
    c = sending()
    marking(c, c.parts()[1])
    assert not taken(c, seq=1, ack=1, data=b"x", tos=3) and taken(c, seq=1, ack=1, data=b"x", tos=2)


def test_other_options_take_the_long_path() -> None:
    """Timestamps alone, in their usual place."""
    c = sending(ts=False)
    options = TcpOptions(timestamps=(100, 100))
    assert not taken(c, seq=1, ack=1, data=b"x", options=options)
    c = sending()
    segment = c.segment("A", seq=1, ack=1, data=b"x")
    segment.head = segment.head[:20] + b"\x08\x0a" + segment.head[24:32] + b"\1\1"  # behind, not before
    ctx, conn = c.parts()
    seq, ack = struct.unpack_from(">II", segment.head, 4)
    assert not predicted(ctx, conn, segment, seq, ack, 65_535, segment.payload, c.now)


def test_a_connection_that_a_cookie_made_offers_what_its_syn_ack_did() -> None:
    """65,160 bytes, 45 segments of 1448: what the peer may send before it hears more."""
    c = Host(syncookies=1)
    c.listen(backlog=1)
    c.inject("S", seq=0)
    c.segments.clear()
    c.agreed_ts = True
    c.inject("S", seq=0, src_port=2)
    got = c.expect("SA")
    assert got.win == 65_160
    c.inject("A", seq=1, ack=got.seq + 1, src_port=2)
    rows = c.core.control(1, "ss", {}, c.now)["sockets"]
    c.sock = next(row["sock"] for row in rows if row["state"] == "ESTABLISHED")
    assert c.tcb()["rx"]["rcv_acc"] == c.tcb()["rx"]["rcv_adv"] == 65_160
