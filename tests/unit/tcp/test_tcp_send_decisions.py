"""How much goes out now, by hand: the peer's window, cwnd, Nagle and silly windows, with and without offload."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MS, MSS, Got, Host, far

from levelip.frames.seam import SetOption
from levelip.wire.tcp import ECE

BIG = 65_535


def sender(*, cwnd: int = 10 * MSS, win: int = BIG, most: int = BIG << 7, **how: Any) -> Host:
    """ESTABLISHED, cwnd in bytes, the peer's window field (scale 7), and the largest it ever offered in bytes."""
    c = far(**how)
    _, conn = c.parts()
    conn.congestion.cwnd = cwnd
    if win != BIG:
        c.inject("A", seq=1, ack=1, win=win)
    conn.tx.max_wnd = most
    c.quiet()
    return c


@pytest.mark.parametrize(
    ("write", "how", "out"),
    [
        (3000, {}, [MSS, MSS, 104]),
        (MSS, {}, [MSS]),
        (3000, {"win": 16}, [MSS]),  # of 2048 bytes the rest is a silly window: less than half of the largest
        (3000, {"win": 8, "most": 1024}, [1024]),  # half of the largest, or all of it, may go
        (3000, {"win": 8, "most": 2048}, [1024]),
        (3000, {"win": 8, "most": 2049}, []),
        (3000, {"win": 0}, []),
        (20_000, {}, [MSS] * 10),
        (20_000, {"cwnd": 3 * MSS + 724}, [MSS] * 3),  # a part of a segment waits while others are under way
        (20_000, {"cwnd": 1000}, [1000]),  # but not alone
        (1000, {"cwnd": 1000}, [1000]),
        (10_000, {"gso_max": BIG}, [10_000]),
        (10_000, {"gso_max": BIG, "cwnd": 3 * MSS}, [3 * MSS]),
        (10_000, {"gso_max": BIG, "cwnd": 3 * MSS + 724}, [3 * MSS]),
        (10_000, {"gso_max": 100 + 2 * MSS}, [2 * MSS, 2 * MSS, 2 * MSS, 10_000 - 6 * MSS]),
        (3000, {"gso_max": 99 + 2 * MSS}, [MSS, MSS, 104]),  # with the largest headers there are two would not fit
        (10_000, {"gso_max": BIG, "win": 40}, [3 * MSS]),  # 5120 bytes: whole segments
        (10_000, {"mtu": 576, "cwnd": 9990}, [524] * 19),  # the last 34 bytes that cwnd allows wait
    ],
)
def test_the_first_flight(write: int, how: dict[str, Any], out: list[int]) -> None:
    """Nothing is under way."""
    c = sender(**how)
    c.write(bytes(write))
    assert c.sizes() == out


@pytest.mark.parametrize(
    ("first", "then", "how", "out"),
    [
        (100, 100, {}, []),  # Nagle: one small segment under way
        (100, MSS - 1, {}, []),
        (100, MSS, {}, [MSS]),
        (100, 1500, {}, [MSS]),
        (MSS, 100, {}, [100]),  # Minshall: none small under way
        (100, 5000, {"gso_max": BIG}, [3 * MSS]),
        (MSS, 5000, {"gso_max": BIG}, [5000]),
    ],
)
def test_while_something_is_under_way(first: int, then: int, how: dict[str, Any], out: list[int]) -> None:
    """RFC 9293 3.7.4; what waited goes with the ACK."""
    c = sender(**how)
    c.write(bytes(first))
    assert c.sizes() == [first]
    c.write(bytes(then))
    assert c.sizes() == out
    c.advance(100)
    c.inject("A", seq=1, ack=1 + first + sum(out))
    assert c.sizes() == ([then - sum(out)] if then > sum(out) else [])


def test_cork_holds_what_is_small_for_200_ms() -> None:
    """Full segments go; the rest at that instant, not before, or with the FIN."""
    c = sender()
    c.call(SetOption(c.sock, "cork", 1))
    c.write(bytes(MSS + 10))
    assert c.sizes() == [MSS]
    c.inject("A", seq=1, ack=1 + MSS)
    c.advance(199.999)
    assert c.sizes() == []
    c.advance(0.001)
    assert c.sizes() == [10]
    c = sender()
    c.call(SetOption(c.sock, "cork", 1))
    c.write(bytes(10))
    c.shut()
    assert c.sizes() == [10]


def test_a_pause_brings_the_window_down() -> None:
    """RFC 5681 4.1: more than an RTO after the last was sent; after just one it is only known not to have been used
    (halfway down to the initial window). Why is told."""
    for pause, cwnd, why in (
        (299.999, 40, []), (300, 25, ["not used"]), (300.001, 20, ["idle"]), (600.001, 10, ["idle"]),
        (10_000, 10, ["idle"]),
    ):  # fmt: skip
        c = sender(cwnd=40 * MSS)
        c.write(bytes(MSS))
        c.inject("A", seq=1, ack=1 + MSS)
        _, conn = c.parts()
        conn.congestion.cwnd, conn.rto.rto = 40 * MSS, 300 * MS
        c.advance(pause)
        c.core.interest = True
        c.core.events()
        c.write(bytes(MSS))
        assert conn.congestion.cwnd == cwnd * MSS
        told = [event.data["why"] for event in c.core.events() if event.kind == "cwnd"]
        assert told == why


def test_a_fin_needs_room_in_the_window() -> None:
    """With the data if one byte more fits, else alone as soon as the window opens."""
    for win, out in ((8, [(1024, "PA")]), (9, [(1024, "PAF")])):
        c = sender(win=win, most=1024)
        c.call(SetOption(c.sock, "cork", 1))
        c.write(bytes(1024))
        c.shut()
        found = [Got(c, segment) for segment in c.segments]
        assert [(got.len, set(got.flags)) for got in found if got.len] == [(size, set(flags)) for size, flags in out]
    c = sender(win=0)
    c.shut()
    assert c.sizes() == []
    c.inject("A", seq=1, ack=1, win=1)
    assert [Got(c, segment).flags for segment in c.segments] == ["AF"]


def test_a_loss_probe_is_new_data_where_the_window_allows() -> None:
    """RFC 8985 7.3: beyond cwnd, never beyond the peer's window; then the last packet, of a super-segment its last."""
    c = sender(cwnd=2 * MSS)
    c.write(bytes(5 * MSS))
    assert c.sizes() == [MSS, MSS]
    c.advance(202)
    assert c.sizes() == [MSS] and c.core.counters["loss_probes"] == 1
    tcb = c.tcb()
    assert tcb["recovery"]["probe_end"] == 3 * MSS and not tcb["recovery"]["probe_again"]
    c = sender(win=23)  # 2944 bytes: two segments
    c.write(bytes(5 * MSS))
    c.segments.clear()
    c.advance(202)
    got = c.expect("A", seq=1 + MSS, len=MSS)
    assert got.gso == 0 and c.tcb()["recovery"]["probe_again"] and c.core.counters["loss_probes"] == 1
    c = sender(gso_max=BIG)
    c.write(bytes(4 * MSS - 48))
    assert c.sizes() == [4 * MSS - 48]
    c.advance(202)
    c.expect("PA", seq=1 + 3 * MSS, len=MSS - 48)
    assert [row["packets"] for row in c.tcb()["tx"]["queue"]] == [3, 1]
    assert c.tcb()["tx"]["retransmits"] == 1


# marks of congestion, RFC 3168


def marked(c: Host) -> None:
    _, conn = c.parts()
    conn.ecn.on = True


def test_echoes_of_what_was_never_sent_mean_nothing() -> None:
    """ECE on an ACK below or beyond what is under way is not counted."""
    c = sender()
    marked(c)
    c.write(bytes(2 * MSS))
    c.inject("AE", seq=1, ack=1 + 3 * MSS)
    assert c.core.counters["ecn_echoes_in"] == 0
    c.inject("AE", seq=1, ack=1 + MSS)
    c.inject("AE", seq=1, ack=1)  # older than SND.UNA
    assert c.core.counters["ecn_echoes_in"] == 1 and c.core.counters["ecn_reductions"] == 1


def test_a_mark_that_ends_the_reduction_before() -> None:
    """An ACK beyond what was out at the reduction says ECE: that is of the next window, and reduces again."""
    c = sender()
    marked(c)
    c.core.interest = True
    c.write(bytes(10 * MSS))
    c.advance(100)
    c.inject("AE", seq=1, ack=1 + MSS)
    assert c.tcb()["recovery"]["state"] == 2 and c.tcb()["recovery"]["recover"] == 10 * MSS
    c.inject("AE", seq=1, ack=1 + 10 * MSS)  # just what was out: old news
    assert c.core.counters["ecn_reductions"] == 1
    c.write(bytes(10 * MSS))
    c.core.events()
    c.advance(100)
    c.inject("AE", seq=1, ack=1 + 11 * MSS)
    assert c.core.counters["ecn_reductions"] == 2
    told = [(event.data["old"], event.data["new"], event.data["why"])
            for event in c.core.events() if event.kind == "recovery"]  # fmt: skip
    assert told == [("CWR", "OPEN", "acknowledged"), ("OPEN", "CWR", "ecn")]


def test_marks_on_what_is_received() -> None:
    """Only on data; the echo begins at once and hurries ACKs; a second mark is no news; no mark, no event."""
    c = sender()
    marked(c)
    c.core.interest = True
    c.core.events()
    for tos, flags, echo, news in ((2, "PA", 0, 0), (3, "PA", 1, 1), (3, "PA", 1, 0), (2, "PAC", 0, 1)):
        at = c.tcb()["rx"]["rcv_nxt"]
        c.inject(flags, seq=1 + at, ack=1, data=b"x", tos=tos)
        c.advance(50)
        got = c.expect("AE" if echo else "A", ack=2 + at)
        assert bool(got.bits & ECE) == bool(echo)
        assert len([event for event in c.core.events() if event.kind == "ecn"]) == news
    c.inject("A", seq=1 + c.tcb()["rx"]["rcv_nxt"], ack=1, tos=3)  # no data: no mark
    assert c.core.counters["ecn_marks_in"] == 2
