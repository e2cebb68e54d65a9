"""Whole stories of a connection, compared with what tests/unit/tcp/stories says of them, line by line.

A story is all that can be seen from outside: segments, messages to the gateway, events, counters, the figures of
`lvlip ss`. Rules are checked one by one in the other files; here, that none of it changes unnoticed. Whoever changes
behaviour writes the stories anew, `LEVELIP_WRITE=1 pytest tests/unit/tcp/test_tcp_stories.py`, and reads the
difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from story import Story
from tcp_host import MSS, THEIRS

from levelip.frames.packet import Route, Routes
from levelip.frames.seam import (
    Bind,
    Close,
    Connect,
    GetInfo,
    Listen,
    NeighbourUp,
    SetOption,
    StoreFailed,
    Taken,
)
from levelip.rpc.stream import Consumed, Eof, Reset, Send, Urgent

STORIES = Path(__file__).with_name("stories")
TOLD: dict[str, Callable[[], Story]] = {}


def story(tell: Callable[[], Story]) -> Callable[[], Story]:
    """A function that tells one."""
    TOLD[tell.__name__] = tell
    return tell


# beginnings


def listening(*, backlog: int = 16, options: dict[str, int] | None = None, **how: Any) -> Story:
    s = Story(**how)
    s.does(Bind(1, 50, b"", 80))
    s.does(Listen(2, 50, "", backlog, options or {}))
    return s


def accepted(rtt: float = 40, **how: Any) -> Story:
    s = listening(**how)
    s.got("S", seq=0)
    s.waits(rtt)
    s.got("A", seq=1, ack=1)
    s.does(Taken(50, s.sock))
    return s


def connecting(options: dict[str, int] | None = None, **how: Any) -> Story:
    s = Story(**how)
    s.sock = 60
    s.tell("! connects")
    s.core.receive(Connect(60, "", THEIRS, 4711, options or {}), s.now)
    out = s.core.outgoing({})
    s.local_port = int.from_bytes(out[0][1].head[:2], "big")
    s.segments += [frame for port, frame in out if port == "ip"]
    s.note()
    return s


def connected(rtt: float = 40, options: dict[str, int] | None = None, **how: Any) -> Story:
    s = connecting(options, **how)
    s.waits(rtt)
    s.got("SA", seq=0, ack=1)
    return s


def at(segment: int) -> int:
    """Relative number of the first byte of the nth full segment (1, 2, …)."""
    return 1 + (segment - 1) * MSS


# from open to close


@story
def request_and_answer() -> Story:
    s = accepted()
    s.got("PA", seq=1, ack=1, data=b"q" * 100)
    s.does(Consumed(s.sock, 100))
    s.waits(10)
    s.says(3000)
    s.waits(40)
    s.got("A", seq=101, ack=3001)
    s.does(GetInfo(7, s.sock))
    s.does(Eof(s.sock, 3000))
    s.waits(40)
    s.got("A", seq=101, ack=3002)
    s.got("FA", seq=101, ack=3002)
    s.does(GetInfo(8, s.sock))
    s.waits(100)
    s.got("FA", seq=101, ack=3002)  # ours was lost: 2 MSL anew
    s.does(Close(s.sock))
    s.got("A", seq=50, ack=3002)
    s.got("S", seq=200_000)
    s.waits(61_000)
    return s


@story
def the_peer_closes_first() -> Story:
    s = connected(options={"nodelay": 1})
    s.got("FPA", seq=1, ack=1, data=b"bye")
    s.says(10)
    s.does(Close(s.sock))  # unread: reset
    s = _go_on(s, connected())
    s.got("FA", seq=1, ack=1)
    s.says(10)
    s.does(Eof(s.sock, 10))
    s.does(Close(s.sock))
    s.got("A", seq=2, ack=12)
    return s


def _go_on(before: Story, after: Story) -> Story:
    """One text of two."""
    after.lines = [*before.lines, "", *after.lines]
    return after


@story
def both_close_at_once() -> Story:
    s = accepted()
    s.does(Close(s.sock))
    s.got("FA", seq=1, ack=1)
    s.got("A", seq=2, ack=2)
    s.waits(60_000)
    return s


@story
def both_open_at_once() -> Story:
    s = connecting()
    s.got("S", seq=0)
    s.got("SA", seq=0, ack=1)
    s.got("A", seq=1, ack=1)
    s.says(10)
    s = _go_on(s, connecting(ecn=1))
    s.does(Eof(60, 0))
    s.got("S", seq=0)
    s.waits(1000)
    s.got("A", seq=1, ack=1)
    return s


@story
def nobody_answers() -> Story:
    s = connecting(syn_retries=2)
    s.waits(9000)
    s = _go_on(s, connecting({"user_timeout_ms": 2500}))
    s.waits(4000)
    s = _go_on(s, connecting(ecn=1))
    s.waits(1100)
    s.got("SA", seq=0, ack=1)  # the answer to either
    s.says(10)
    s.waits(3100)
    return s


@story
def refused() -> Story:
    s = connecting()
    s.got("SA", seq=0, ack=77)
    s.got("R", seq=0)
    s.got("A", seq=0, ack=1)
    s.got("SA", seq=0, ack=1, ts=5, options=None)
    s = _go_on(s, connecting())
    s.got("RA", seq=0, ack=1)
    s = _go_on(s, connecting())
    s.icmp(3, 1, seq=0)
    s = _go_on(s, connecting(icmp_abort_connect=False))
    s.icmp(3, 1, seq=0)
    s.icmp(11, 0, seq=0)
    s.icmp(12, 0, seq=9)
    s.icmp(3, 3, seq=0)
    return s


@story
def a_listener_with_little_room() -> Story:
    s = listening(backlog=1, syncookies=0)
    for port in (1, 2, 3):
        s.got("S", seq=0, src_port=port)
    s.got("A", seq=1, ack=1, src_port=1)
    s.got("S", seq=0, src_port=2)
    s.got("A", seq=1, ack=1, src_port=2)
    s.got("S", seq=0, src_port=3)
    s.got("A", seq=1, ack=1, src_port=3)
    s.got("PA", seq=1, ack=9, src_port=9, data=b"x")
    s.got("F", seq=1, src_port=9)
    s.got("R", seq=1, src_port=9)
    s.got("SF", seq=1, src_port=9)
    s.got("PA", seq=1, ack=9, dst_port=81, data=b"x")
    s.got("S", seq=1, dst_port=81)
    s.got("R", seq=1, dst_port=81)
    s.does(Taken(50, s.sock))
    s.does(Close(50))
    return s


@story
def cookies() -> Story:
    whole = Story()
    cases: tuple[dict[str, Any], ...] = (
        {}, {"ts": False}, {"ecn": 1, "mtu": 576}, {"sack": False, "wscale": None, "mss": None},
    )  # fmt: skip
    for how in cases:
        s = listening(syncookies=2, **how)
        s.got("SEC" if "ecn" in how else "S", seq=0)
        s.waits(5)
        s.isn = s.cookie
        s.got("A", seq=1, ack=2)
        s.got("A", seq=1, ack=1)
        s.says(2000)
        s.got("PA", seq=1, ack=1, data=b"q")
        whole = _go_on(whole, s)
    return whole


@story
def defer_accept() -> Story:
    s = listening(options={"defer_accept": 2})
    s.got("S", seq=0)
    s.got("A", seq=1, ack=1)
    s.waits(1500)
    s.got("PA", seq=1, ack=1, data=b"at last")
    s = _go_on(s, listening(options={"defer_accept": 1}))
    s.got("S", seq=0)
    s.got("A", seq=1, ack=1)
    s.waits(1200)
    s.got("A", seq=1, ack=1)
    s.got("S", seq=0, src_port=9)
    s.waits(70_000)
    return s


# what comes


@story
def out_of_order() -> Story:
    s = accepted()
    s.got("A", seq=at(2), ack=1, data=bytes(MSS))
    s.got("A", seq=at(4), ack=1, data=bytes(MSS))
    s.got("A", seq=at(3), ack=1, data=bytes(MSS))
    s.got("A", seq=at(3) + 100, ack=1, data=bytes(200))
    s.got("A", seq=at(1), ack=1, data=bytes(MSS + 10))
    s.got("A", seq=at(1), ack=1, data=bytes(MSS))
    s.got("FA", seq=at(6), ack=1, data=b"x")
    s.got("A", seq=at(7), ack=1, data=b"beyond its FIN")
    s.got("A", seq=at(5), ack=1, data=bytes(MSS))
    s.got("A", seq=at(5), ack=1, data=b"again")
    s.does(Consumed(s.sock, at(6)))
    s.does(Close(s.sock))
    s.got("A", seq=at(6) + 2, ack=2)
    return s


@story
def out_of_order_without_sack() -> Story:
    s = accepted(sack=False, ts=False)
    s.got("A", seq=at(2), ack=1, data=bytes(MSS))
    s.got("A", seq=at(1), ack=1, data=bytes(MSS))
    s.got("A", seq=at(1), ack=1, data=bytes(MSS))
    return s


@story
def what_is_not_acceptable() -> Story:
    s = accepted(wscale=0, receive_buffer=8192, receive_initial=8192)
    s.got("PA", seq=1, ack=1, data=b"0123456789")
    for flags, fields in (
        ("A", {"seq": 5, "ack": 1}), ("PA", {"seq": 1, "ack": 1, "data": b"01234"}), ("FA", {"seq": 5, "ack": 1}),
        ("PA", {"seq": 6, "ack": 1, "data": b"56789ab"}), ("A", {"seq": 20_000, "ack": 1}),
        ("PA", {"seq": 8100, "ack": 1, "data": bytes(400)}), ("A", {"seq": 13, "ack": 500}),
        ("A", {"seq": 13, "ack": 0}), ("S", {"seq": 13}), ("SA", {"seq": 13, "ack": 1}), ("R", {"seq": 14}),
        ("R", {"seq": 30_000}), ("P", {"seq": 13, "data": b"x"}), ("A", {"seq": 13, "ack": 1, "ts": 3}),
        ("A", {"seq": 13, "ack": 1, "no_ts": True}), ("U", {"seq": 13}), ("R", {"seq": 13}),
    ):  # fmt: skip
        s.got(flags, **fields)
        s.waits(30)
    s = _go_on(s, accepted())
    s.does(Eof(s.sock, 0))
    s.got("A", seq=1, ack=2)
    s.got("FA", seq=1, ack=2)
    s.got("RA", seq=1, ack=2)
    s.got("RA", seq=2, ack=2)
    return s


@story
def a_window_that_closes_and_opens() -> Story:
    s = accepted(receive_buffer=8192, receive_initial=8192)
    for number in range(8):
        s.got("PA", seq=1 + number * 1024, ack=1, data=bytes(1024))
    s.got("A", seq=8193, ack=1)
    s.got("PA", seq=8193, ack=1, data=b"x")
    s.says(10)
    s.got("PA", seq=8193, ack=11, data=b"x")
    s.does(Consumed(s.sock, 1024))
    s.does(Consumed(s.sock, 5000))
    s.does(Consumed(s.sock, 9000))
    s.does(Consumed(s.sock, 8192))
    s.does(SetOption(s.sock, "rcvbuf", 30_000))
    s.does(SetOption(s.sock, "window_clamp", 5000))
    s.does(SetOption(s.sock, "rcvlowat", 20_000))
    return s


@story
def the_receive_buffer_grows() -> Story:
    s = accepted(receive_initial=16_384)
    taken = 0
    for turn in range(6):
        for number in range(12):
            s.inject("A", seq=1 + taken + number * MSS, ack=1, data=bytes(MSS))
        taken += 12 * MSS
        s.does(Consumed(s.sock, taken))
        s.waits(40 if turn < 4 else 10)
    return s


@story
def delayed_acks() -> Story:
    s = accepted()
    for number in range(18):
        s.got("A", seq=at(number + 1), ack=1, data=bytes(MSS))
        s.waits(5)
    s.says(10)
    s.got("PA", seq=at(19), ack=11, data=b"q")
    s.waits(100)
    s.does(Consumed(s.sock, at(19)))
    s.does(SetOption(s.sock, "quickack", 0))
    s.got("PA", seq=at(19) + 1, ack=11, data=b"q")
    s.does(SetOption(s.sock, "quickack", 2))
    s.got("PA", seq=at(19) + 2, ack=11, data=b"q")
    s.does(SetOption(s.sock, "quickack", 1))
    s.got("PA", seq=at(19) + 3, ack=11, data=b"q")
    s.waits(2000)
    s.got("A", seq=at(19) + 4, ack=11, data=bytes(10 * MSS), gso=MSS)
    s.got("A", seq=at(29) + 4, ack=11, data=b"small")
    s.does(Consumed(s.sock, at(29) + 8))
    return s


@story
def marks_of_congestion() -> Story:
    whole = Story()
    for sack in (True, False):
        s = connected(ecn=1) if sack else listening(ecn=1, sack=False)
        if not sack:
            s.got("SEC", seq=0)
            s.waits(40)
            s.got("A", seq=1, ack=1)
        s.core._ctx.sockets[s.sock].ecn.on = True
        s.says(20 * MSS)
        s.waits(40)
        s.got("AE", seq=1, ack=at(3))
        s.got("AE", seq=1, ack=at(5))
        s.got("A", seq=1, ack=at(11))
        s.waits(40)
        s.got("AE", seq=1, ack=at(12))
        s.got("A", seq=1, ack=at(12))
        s.got("PA", seq=1, ack=at(12), data=b"x", tos=3)
        s.got("PA", seq=2, ack=at(12), data=b"x", tos=2)
        s.got("PAC", seq=3, ack=at(12), data=b"x", tos=2)
        s.got("AE", seq=4, ack=at(21))
        whole = _go_on(whole, s)
    return whole


@story
def urgent_both_ways() -> Story:
    s = accepted(gso_max=65_535)
    s.says(4000)
    s.does(Urgent(s.sock, 3001))
    s.says(4000)
    s.got("A", seq=1, ack=3001)
    s.does(Urgent(s.sock, 2000))
    s.got("A", seq=1, ack=8001)
    s.says(6000)
    segment = s.segment("PAU", seq=1, ack=8001, data=b"hurry")
    segment.head = segment.head[:18] + (0x8003).to_bytes(2, "big") + segment.head[20:]
    s.tell("< PAU")
    s.call(segment)
    s.does(Urgent(s.sock, 99_999))
    return s


# what is lost


@story
def fast_retransmit() -> Story:
    whole = Story()
    for gso in (0, 65_535):
        s = accepted(gso_max=gso)
        s.says(20 * MSS)
        s.waits(40)
        for last in (3, 4, 5):
            s.got("A", seq=1, ack=1, sack=[(at(2), at(last))])
        s.waits(3)
        s.got("A", seq=1, ack=1, sack=[(at(2), at(7))])
        s.got("A", seq=1, ack=1, sack=[(at(8), at(11)), (at(2), at(7))])
        s.waits(40)
        s.got("A", seq=1, ack=at(7), sack=[(at(8), at(13))])
        s.waits(20)
        s.got("A", seq=1, ack=at(7), sack=[(at(8), at(14))])  # the repeat of 7 is lost too
        s.waits(40)
        s.got("A", seq=1, ack=at(14))
        s.waits(40)
        s.got("A", seq=1, ack=at(21))
        whole = _go_on(whole, s)
    return whole


@story
def reordering_and_what_was_for_nothing() -> Story:
    s = accepted()
    s.says(20 * MSS)
    s.waits(40)
    original = s.last_tsval
    s.got("A", seq=1, ack=1, sack=[(at(3), at(6))])
    s.last_tsval = original
    s.got("A", seq=1, ack=at(2), sack=[(at(3), at(6))])
    s.waits(20)
    s.got("A", seq=1, ack=at(6))
    s.got("A", seq=1, ack=at(6), sack=[(at(1), at(3))])
    s.waits(40)
    s.got("A", seq=1, ack=at(11), sack=[(at(14), at(15))])
    s.waits(12)
    s.got("A", seq=1, ack=at(11), sack=[(at(14), at(16))])
    s.waits(40)
    s.got("A", seq=1, ack=at(16), sack=[(at(11), at(13))])
    s.got("A", seq=1, ack=at(17), sack=[(at(13), at(14))])
    s.waits(40)
    s.got("A", seq=1, ack=at(21))
    return s


@story
def without_sack() -> Story:
    whole = Story()
    for undo in (False, True):
        s = accepted(sack=False)
        s.says(24 * MSS)
        s.waits(40)
        original = s.last_tsval
        for _ in range(5):
            s.got("A", seq=1, ack=1)
            s.waits(1)
        s.last_tsval = original if undo else s.last_tsval
        s.got("A", seq=1, ack=at(3))
        s.waits(20)
        s.got("A", seq=1, ack=at(3))
        s.last_tsval = original if undo else s.last_tsval
        s.got("A", seq=1, ack=at(5))
        s.waits(40)
        s.got("A", seq=1, ack=at(14))
        s.waits(40)
        s.got("A", seq=1, ack=at(25))
        whole = _go_on(whole, s)
    return whole


@story
def timeouts() -> Story:
    whole = Story()
    for sack in (True, False):
        for tail in ("real", "spurious", "stamp", "all", "window"):
            s = accepted(sack=sack, tlp=False, gso_max=65_535 if tail == "real" else 0)
            s.says((10 if tail == "all" else 16) * MSS)
            original = s.last_tsval
            s.waits(300)
            if tail == "real":
                s.waits(700)
                s.got("A", seq=1, ack=at(2))
                s.got("A", seq=1, ack=at(2), sack=[(at(11), at(12))] if sack else None)
                s.waits(50)
                s.got("A", seq=1, ack=at(6))
                s.waits(50)
            elif tail == "spurious":
                s.got("A", seq=1, ack=at(2))
                s.got("A", seq=1, ack=at(4))
            elif tail == "stamp":
                s.last_tsval = original
                s.got("A", seq=1, ack=at(3))
            elif tail == "window":
                s.got("A", seq=1, ack=at(2), win=10)
                s.got("A", seq=1, ack=at(3), win=0)
            s.got("A", seq=1, ack=at(11))
            s.waits(40)
            s.got("A", seq=1, ack=at(17) if tail != "all" else at(11))
            whole = _go_on(whole, s)
    return whole


@story
def reneging_and_bad_blocks() -> Story:
    s = accepted()
    s.says(10 * MSS)
    s.waits(40)
    s.got("A", seq=1, ack=1, sack=[(at(12), at(13)), (at(4), at(2)), (at(2), at(3))])
    s.got("A", seq=1, ack=at(2), sack=[(at(3), at(4))])
    s.waits(20)
    s.got("A", seq=1, ack=at(2))
    s.waits(400)
    s.got("A", seq=1, ack=at(11))
    return s


@story
def loss_probes() -> Story:
    s = accepted()
    s.says(3 * MSS)
    s.waits(100)
    s.got("A", seq=1, ack=at(4), sack=[(at(3), at(4))])  # all had arrived
    s.says(3 * MSS)
    s.waits(100)
    s.got("A", seq=1, ack=at(4), sack=[(at(6), at(7))])
    s.waits(45)
    s.got("A", seq=1, ack=at(7))
    s.says(12 * MSS)
    s.waits(100)
    s.got("A", seq=1, ack=at(12))
    s.got("A", seq=1, ack=at(19))
    s.says(MSS)
    s.waits(300)
    s.got("A", seq=1, ack=at(20))
    s.got("A", seq=1, ack=at(20))
    s.says(2 * MSS + 500)
    s.waits(100)
    s.got("A", seq=1, ack=at(22) + 500)
    s.says(100)
    s.got("A", seq=1, ack=at(22) + 600)
    return s


@story
def the_path_takes_less() -> Story:
    s = accepted(gso_max=65_535)
    s.says(8 * MSS)
    s.icmp(3, 4, seq=at(1), mtu=1000)
    s.icmp(3, 4, seq=at(1), mtu=1000)
    s.icmp(3, 4, seq=at(1), mtu=400)
    s.icmp(3, 4, seq=at(1), mtu=0)
    s.icmp(3, 4, seq=90_000, mtu=600)
    s.icmp(4, 0, seq=at(1))
    s.waits(40)
    s.got("A", seq=1, ack=at(9))
    s.waits(700_000)
    s.says(100)
    s.tell("routes change")
    s.core.receive(Routes([Route(b"\x0a\0\0\0", 24, b"\x0a\0\0\2", 800, 0)], [b"\x0a\0\0\2"]), s.now)
    s.flush()
    s.says(3000)
    return s


@story
def the_mtu_is_searched() -> Story:
    s = accepted(mtu_probing=2, initial_window=20)
    s.says(30_000)
    s.waits(40)
    s.got("A", seq=1, ack=1 + 10_000)
    s.got("A", seq=1, ack=1 + 20_000)
    s.says(20_000)
    s.waits(40)
    s.got("A", seq=1, ack=1 + 30_000)
    s.waits(40)
    s.got("A", seq=1, ack=50_001)
    s.says(15_000)
    s = _go_on(s, accepted(mtu_probing=1, retries1=1, tlp=False))
    s.says(3000)
    s.waits(9000)
    s.got("A", seq=1, ack=3001)
    return s


@story
def icmp_takes_a_backoff_back() -> Story:
    s = accepted(tlp=False)
    s.says(3000)
    s.waits(1000)
    s.icmp(3, 0, seq=1)
    s.icmp(3, 1, seq=1449)
    s.icmp(3, 2, seq=1)
    s.icmp(3, 1, seq=1)
    s.waits(1000)
    s.icmp(11, 1, seq=1)
    s.got("A", seq=1, ack=3001)
    return s


@story
def given_up() -> Story:
    s = accepted(retries=2, rto_max_ms=1000)
    s.says(100)
    s.waits(5000)
    s = _go_on(s, accepted())
    s.does(SetOption(s.sock, "user_timeout_ms", 1000))
    s.says(100)
    s.waits(3000)
    s = _go_on(s, accepted(orphan_retries=1))
    s.says(100)
    s.does(Close(s.sock))
    s.icmp(3, 1, seq=1)
    s.waits(5000)
    s = _go_on(s, accepted(max_orphans=0))
    s.does(Close(s.sock))
    return s


# windows and small pieces


@story
def the_peers_window() -> Story:
    s = accepted(wscale=None)
    s.got("A", seq=1, ack=1, win=0)
    s.says(5000)
    s.waits(700)
    s.got("A", seq=1, ack=1, win=0)
    s.waits(700)
    s.does(Urgent(s.sock, 5000))
    s.waits(2000)
    s.got("A", seq=1, ack=1, win=1)
    s.waits(500)
    s.got("A", seq=1, ack=2, win=2000)
    s.got("A", seq=1, ack=1450, win=1000)
    s.got("A", seq=1, ack=2002, win=0)
    s.waits(1000)
    s.got("A", seq=1, ack=2002, win=5000)
    s.does(Eof(s.sock, 5000))
    s.got("A", seq=1, ack=5001, win=0)
    s.waits(1000)
    s.got("A", seq=1, ack=5001, win=10)
    return s


@story
def a_window_that_shrinks() -> Story:
    s = accepted(wscale=None, tlp=False)
    s.says(6000)
    s.got("A", seq=1, ack=1449, win=1000)
    s.got("PA", seq=1, ack=1449, data=b"x", win=1000)
    s.waits(300)
    s.got("A", seq=2, ack=1449, win=0)
    s.waits(1200)
    s.got("A", seq=2, ack=1449, win=9000)
    s.got("A", seq=2, ack=6001, win=9000)
    return s


@story
def small_pieces() -> Story:
    s = accepted()
    for size in (10, 20, 30, 1448, 100):
        s.says(size)
    s.got("A", seq=1, ack=11)
    s.got("A", seq=1, ack=1509)
    s.does(SetOption(s.sock, "cork", 1))
    s.says(10)
    s.got("A", seq=1, ack=1609)
    s.says(2000)
    s.waits(250)
    s.says(20)
    s.does(SetOption(s.sock, "nodelay", 1))
    s.says(30)
    s.does(SetOption(s.sock, "cork", 0))
    s.says(40)
    s.does(SetOption(s.sock, "maxseg", 500))
    s.does(SetOption(s.sock, "nothing", 1))
    s.says(5)
    s.does(Eof(s.sock, s.sent))
    return s


@story
def a_pause() -> Story:
    whole = Story()
    for congestion in ("newreno", "cubic"):
        s = accepted(congestion=congestion)
        s.says(20 * MSS)
        s.waits(40)
        s.got("A", seq=1, ack=at(11))
        s.waits(40)
        s.got("A", seq=1, ack=at(21))
        s.waits(1000)
        s.says(4 * MSS)
        s.got("A", seq=1, ack=at(25))
        whole = _go_on(whole, s)
    return whole


@story
def windows_that_grow() -> Story:
    whole = Story()
    for congestion in ("newreno", "cubic"):
        first = congestion == "newreno"
        s = accepted(congestion=congestion)
        s.says(44 * MSS)
        acked, rtt = 1, 40
        for turn in range(6):
            s.waits(rtt)
            rtt += 12 * (turn > 1)
            while acked < s.core._ctx.sockets[s.sock].tx.snd_nxt + 1 - MSS:
                acked += 2 * MSS
                s.got("A", seq=1, ack=min(acked, s.core._ctx.sockets[s.sock].tx.snd_nxt + 1))
                if s.core._ctx.sockets[s.sock].tx.snd_nxt >= 44 * MSS:
                    break
            if turn == 3:
                s.does(SetOption(s.sock, "congestion", 1 if first else 2))
            s.says(20 * MSS) if s.sent + 20 * MSS <= s.core._ctx.sockets[s.sock].tx.grant() else None
        whole = _go_on(whole, s)
    return whole


@story
def a_window_that_is_not_used() -> Story:
    whole = Story()
    for congestion in ("newreno", "cubic"):
        for after_idle in (True, False):
            s = accepted(congestion=congestion, slow_start_after_idle=after_idle)
            s.says(20 * MSS)
            s.waits(40)
            s.got("A", seq=1, ack=at(11))
            s.waits(40)
            s.got("A", seq=1, ack=at(21))
            acked = at(21)
            for pause, size in ((100, 8 * MSS), (150, MSS), (200, MSS), (40, 6 * MSS), (400, 10), (299_000, 10),
                                (1500, MSS), (100, 20)):  # fmt: skip
                s.waits(pause)
                s.says(size)
                acked += size
                s.waits(40)
                s.got("A", seq=1, ack=acked)
            whole = _go_on(whole, s)
    return whole


# long silences


@story
def keepalive() -> Story:
    s = accepted(options={"keepalive": 1, "keepidle_ms": 5000, "keepintvl_ms": 1000, "keepcnt": 2})
    s.waits(6500)
    s.got("A", seq=1, ack=1)
    s.waits(3000)
    s.does(SetOption(s.sock, "keepidle_ms", 1000))
    s.does(SetOption(s.sock, "keepintvl_ms", 500))
    s.says(10)
    s.waits(100)
    s.got("A", seq=1, ack=11)
    s.waits(5000)
    return s


@story
def half_closed() -> Story:
    s = accepted(fin_timeout_ms=5000)
    s.does(Close(s.sock))
    s.got("A", seq=1, ack=2)
    s.waits(6000)
    s = _go_on(s, accepted())
    s.does(SetOption(s.sock, "linger2_ms", 1000))
    s.does(Eof(s.sock, 0))
    s.got("A", seq=1, ack=2)
    s.does(Close(s.sock))
    s.got("PA", seq=1, ack=2, data=b"nobody reads this")
    s = _go_on(s, accepted())
    s.does(SetOption(s.sock, "linger2_ms", -1))
    s.does(Close(s.sock))
    s.got("A", seq=1, ack=2)
    s = _go_on(s, accepted())
    s.does(SetOption(s.sock, "linger2_ms", -1))
    s.does(Eof(s.sock, 0))
    s.got("A", seq=1, ack=2)
    s.does(Close(s.sock))
    return s


@story
def the_gateway_errs_and_dies() -> Story:
    s = accepted()
    for frame in (
        Send(s.sock, 10, 5), Send(s.sock, 0, 1 << 20), Consumed(s.sock, 5), Consumed(99, 5), Eof(99, 0), Send(99, 0, 1),
        Eof(s.sock, 10), Send(s.sock, 0, 20, bytes(20)), Send(s.sock, 0, 10, bytes(10)), Send(s.sock, 5, 10, bytes(10)),
        Connect(s.sock, "", THEIRS, 1), Connect(61, "", b"\xe0\0\0\1", 1), Connect(62, "", b"\x0b\0\0\1", 1),
        Listen(3, s.sock, "", 1), Bind(4, 63, b"\x0a\0\0\x09", 99), Bind(5, 64, b"", 80), Bind(6, 65, b"", 0),
        GetInfo(7, 50), GetInfo(8, 99), SetOption(99, "nodelay", 1), Taken(99, 99), Close(99), Reset(98, 0),
    ):  # fmt: skip
        s.does(frame)
    s.does(NeighbourUp("gateway", 10))
    s = _go_on(s, accepted())
    s.got("PA", seq=1, ack=1, data=b"x")
    s.does(StoreFailed(s.rings.receive(0, 1)))  # type: ignore[union-attr]
    s.does(Close(s.sock))
    return s


@story
def time_wait_gives_way() -> Story:
    s = connected(tw_reuse=1)
    s.does(Close(s.sock))
    s.got("FA", seq=1, ack=2)
    s.got("PA", seq=2, ack=2, data=b"x")
    s.got("S", seq=500_000)
    s.got("A", seq=2, ack=2, ts=1)
    s.waits(1500)
    s.does(Bind(1, 70, b"", s.local_port))
    s.does(Connect(70, "", THEIRS, 4711))
    s.got("R", seq=2)
    s.waits(60_000)
    return s


@pytest.mark.parametrize("name", TOLD)
def test_the_story_is_as_it_was(name: str) -> None:
    """Line by line."""
    told, text = TOLD[name]().lines, STORIES / f"{name}.txt"
    if os.environ.get("LEVELIP_WRITE"):
        text.write_text("\n".join(told) + "\n", encoding="utf-8")
    assert told == text.read_text(encoding="utf-8").splitlines()


def test_no_story_is_forgotten() -> None:
    """Each text has its story."""
    assert {path.stem for path in STORIES.glob("*.txt")} == set(TOLD)
