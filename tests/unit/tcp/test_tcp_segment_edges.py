"""SEGMENT ARRIVES at its edges: malformed options in every state, FINs where there is no room or not yet all, crossing
opens, and what is told and counted of each."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, STATES, Host, established, far, listening, syn_received, syn_sent

from levelip.frames.seam import Connected, Incoming
from levelip.rpc.stream import Data, Eof

BAD_OPTIONS = {
    "cut off": b"\x08\x0a\0\0",  # timestamps of 4 bytes
    "length 0": b"\x02\0\0\0",
    "length 1": b"\x03\1\0\0",
    "beyond": b"\1\1\1\x05",
    "sack of 7": b"\x05\x07\0\0\0\0\0\1",
}


def malformed(c: Host, flags: str, options: bytes, **fields: Any) -> None:
    """A segment with these bytes as its options."""
    segment = c.segment(flags, **fields)
    size = 20 + len(options)
    word = size << 10 | int.from_bytes(segment.head[12:14], "big") & 0x1FF
    segment.head = segment.head[:12] + word.to_bytes(2, "big") + segment.head[14:20] + options
    c.core.receive(segment, c.now)
    c.flush()


@pytest.mark.parametrize("options", BAD_OPTIONS.values(), ids=BAD_OPTIONS.keys())
@pytest.mark.parametrize("state", STATES)
def test_options_that_are_none(state: str, options: bytes) -> None:
    """RFC 9293 MUST-7: illegal lengths crash nothing, in any state, whatever the flags; we go on."""
    for flags in ("S", "A", "SA", "PA", "FA", "R", "RA", "FPUA"):
        c = STATES[state]()
        c.quiet()
        malformed(c, flags, options, seq=1, ack=1 if "A" in flags else None, data=b"x" if "P" in flags else b"")
        c.advance(10)
        other = c.core.control(1, "ss", {}, c.now)["sockets"]
        assert isinstance(other, list)


def test_a_syn_with_bad_options_is_a_syn_without() -> None:
    """What could be read before counts; the rest is as if it were not there."""
    c = listening()
    malformed(c, "S", b"\x02\x04\x02\x18\x08\x0a\0\0", seq=0)  # an MSS of 536, then half a timestamp
    got = c.expect("SA", seq=0, ack=1)
    assert got.options.timestamps is None and not got.options.sack_permitted


def full(c: Host) -> int:
    """Fill the receive window; the relative number of the next byte."""
    at = 1
    while size := min(c.tcb()["rx"]["rcv_acc"] - at + 1, MSS):
        c.inject("A", seq=at, ack=1, data=bytes(size))
        at += size
    c.quiet()
    return at


def test_a_fin_where_there_is_no_room() -> None:
    """It takes room in the sequence space: with a closed window it is not acceptable (RFC 9293 3.10.7.4), but answered;
    when there is room again it is taken."""
    c = established()
    at = full(c)
    c.inject("FA", seq=at, ack=1)
    c.expect("A", ack=at, win=0)
    assert c.state == "ESTABLISHED" and c.dropped("tcp_zero_window") == 1
    c.consume(at - 1)
    c.quiet()
    c.inject("FA", seq=at, ack=1)
    assert c.expect("A").ack == at + 1 and c.state == "CLOSE_WAIT"


def test_an_ack_at_a_closed_window_is_taken() -> None:
    """Special allowance for valid ACKs: what it acknowledges is, and the window that it opens is used."""
    c = established()
    c.write(bytes(100))
    c.inject("A", seq=1, ack=1, win=0)
    at = full(c)
    c.write(bytes(50))
    c.quiet()
    c.inject("PA", seq=at, ack=101, data=b"!", win=10)  # one byte too many
    tcb = c.tcb()
    assert tcb["tx"]["snd_una"] == 100 and tcb["tx"]["snd_wnd"] == 1280 and tcb["rx"]["rcv_nxt"] == at - 1
    assert sorted(len(segment.payload) for segment in c.segments) == [0, 50]


def test_a_fin_before_what_precedes_it() -> None:
    """It waits, and counts once; what comes up to it is taken whole, what lies beyond it is cut off."""
    c = established()
    c.inject("FA", seq=11, ack=1)
    c.expect("A", ack=1)
    c.inject("PA", seq=1, ack=1, data=b"0123456789")
    c.expect("A", ack=12)
    assert c.dropped("tcp_trimmed") == 0
    assert c.message(Data).payload.length == 10
    assert c.message(Eof).at == 10 and c.state == "CLOSE_WAIT"
    c = established()
    c.inject("FA", seq=6, ack=1)
    c.expect("A", ack=1)
    c.inject("PFA", seq=1, ack=1, data=b"0123456789")  # more than there is, it says now
    c.expect("A", ack=7)
    assert c.dropped("tcp_trimmed") == 1 and c.state == "CLOSE_WAIT"
    assert c.received(0, 5) == b"01234"


def test_data_behind_a_fin() -> None:
    """The peer has closed: it is ignored (RFC 9293 3.10.7.4); answered only if it lacks our ACK: its FIN again."""
    c = established()
    c.inject("PFA", seq=1, ack=1, data=b"end")
    c.quiet()
    c.inject("PA", seq=5, ack=1, data=b"more")
    c.expect_nothing()
    c.inject("FA", seq=5, ack=1)
    c.expect("A", ack=5)
    c.no_message()
    assert c.dropped("tcp_after_fin") == 2


def test_what_was_delivered_comes_again_with_more() -> None:
    """Only what is new is stored, where it belongs, and counted; the rest is named in a D-SACK."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"abcdef")
    c.quiet()
    c.inject("PA", seq=4, ack=1, data=b"defghi")
    got = c.expect("A", ack=10)
    assert got.sack == [(4, 7)] and c.received(0, 9) == b"abcdefghi"
    assert c.core.counters["bytes_in"] == 9
    data = c.message(Data)
    assert (data.offset, data.payload.length) == (6, 3)


def test_challenges_are_counted_by_connection() -> None:
    """As they are in all (RFC 5961 7)."""
    c = established(invalid_ratelimit_ms=0)
    for seq in (1, 2, 3):
        c.inject("S", seq=seq)
    assert c.tcb()["challenge_acks"] == c.core.counters["challenge_acks"] == 3


def test_duplicates_are_counted_by_connection() -> None:
    """And in all."""
    c = far()
    c.write(bytes(3 * MSS))
    for _ in range(2):
        c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + 2 * MSS)])
    assert c.tcb()["duplicate_acks_in"] == c.core.counters["duplicate_acks_in"] == 2


# opening


def heard(c: Host) -> Host:
    c.core.interest = True
    c.core.events()
    return c


def states(c: Host) -> list[tuple[int, str, str, str]]:
    """(frame, from, to, by what) of each change of state."""
    events = [event for event in c.core.events() if event.kind == "state"]
    return [(event.frame, event.data["old"], event.data["new"], event.data["input"]) for event in events]


def test_an_active_open_as_it_is_told() -> None:
    """The frame of the SYN-ACK led to it, or of the RST that refused it."""
    c = heard(syn_sent())
    c.inject("RA", seq=0, ack=1)
    assert [(event.kind, event.frame) for event in c.core.events()] == [("reset", c.frame), ("state", c.frame)]
    c = heard(syn_sent())
    c.inject("SA", seq=0, ack=1)
    assert states(c) == [(c.frame, "SYN_SENT", "ESTABLISHED", "SYN_ACK")]


def test_two_that_open_at_once() -> None:
    """RFC 9293 figure 7: SYN, SYN-ACK of both; the window of the SYN is not scaled, that of the SYN-ACK neither."""
    c = heard(syn_sent())
    c.inject("S", seq=0, win=1000)
    got = c.expect("SA", seq=0, ack=1)
    assert got.options.mss and c.state == "SYN_RECEIVED"
    c.agreed_ts = True
    assert c.tcb()["tx"]["snd_wnd"] == 1000
    syn = c.frame
    c.inject("SA", seq=0, ack=1, win=2000)
    told = c.message(Connected)
    assert told.sock == 60 and c.state == "ESTABLISHED"
    assert states(c) == [
        (syn, "SYN_SENT", "SYN_RECEIVED", "SYN"), (c.frame, "SYN_RECEIVED", "ESTABLISHED", "SYN_ACKED"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "ack", "answer", "reason"),
    [
        ("SA", 2, "R", "tcp_ack_bad"),  # of more than our SYN
        ("SA", 0, "R", "tcp_ack_bad"),  # of nothing
        ("A", 2, "R", "tcp_ack_bad"),
        ("RA", 2, "", "tcp_ack_bad"),  # never an RST for an RST
        ("R", None, "", "tcp_rst_outside"),  # RFC 9293 3.10.7.3: only with an acceptable ACK
        ("A", 1, "", "tcp_no_syn"),
        ("P", None, "", "tcp_no_syn"),
        ("FA", 1, "", "tcp_no_syn"),
    ],
)
def test_what_does_not_answer_our_syn(flags: str, ack: int | None, answer: str, reason: str) -> None:
    """RFC 9293 3.10.7.3: a reset with the number that was acknowledged, or silence; we go on waiting."""
    c = heard(syn_sent())
    c.inject(flags, seq=0, ack=ack)
    if answer:
        assert ack is not None
        c.expect(answer, seq=ack)
    c.expect_nothing()
    assert c.state == "SYN_SENT"
    [drop] = [event for event in c.core.events() if event.kind == "drop"]
    assert (drop.reason, drop.frame, bool(drop.conn)) == (reason, c.frame, True)


def test_data_in_a_syn_is_left_out() -> None:
    """Of ours as of theirs: the peer sends it again (RFC 9293 3.4 lets it be kept; Linux without TFO does not)."""
    c = heard(syn_sent())
    c.inject("SA", seq=0, ack=1, data=b"early")
    c.expect("A", seq=1, ack=1)
    assert c.dropped("tcp_syn_payload") == 1 and c.state == "ESTABLISHED"


@pytest.mark.parametrize("ack", [0, 2])
def test_what_does_not_complete_a_handshake(ack: int) -> None:
    """RFC 9293 3.10.7.4: an ACK of what was not sent, or of nothing: reset with its number; the connection waits."""
    c = heard(syn_received())
    c.inject("A", seq=1, ack=ack)
    c.expect("R", seq=ack)
    assert c.state == "SYN_RECEIVED" and c.dropped("tcp_ack_bad") == 1
    c.inject("A", seq=1, ack=1, win=500)
    assert c.message(Incoming).remote_port == 4711
    assert c.tcb()["tx"]["snd_wnd"] == 500 << 7
    assert states(c) == [(c.frame, "SYN_RECEIVED", "ESTABLISHED", "SYN_ACKED")]
