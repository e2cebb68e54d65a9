"""What an RFC asks of TCP and no other test singles out: each by its row in tests/rfc.

RTTs are 0 (`established`, RTO 200 ms) or 100 ms (`far`: SRTT 100, RTTVAR 50, RTO 300 ms).
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from tcp_host import MSS, OURS, PORT, RING, THEIRS, Got, Host, connected, established, far, listening, syn_sent

from layers.tcp.isn import initial_sequence
from layers.tcp.rto import Rto
from layers.tcp.timers import RETRANSMIT
from levelip.frames.packet import Route, Routes
from levelip.frames.seam import Bind, Connect, Incoming, Reset
from levelip.wire.options import TcpOptions, parse_options
from levelip.wire.tcp import SYN
from tests.netsim.net import MS

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 256
WRAP = pytest.mark.parametrize("isn", [{}, {"isn": 2**32 - 3, "irs": 2**32 - 3}])


def drain(c: Host) -> list[Got]:
    """All segments that wait."""
    got = [Got(c, segment) for segment in c.segments]
    c.segments.clear()
    return got


# the header


@pytest.mark.rfc("RFC 9293 MUST-1")
def test_a_window_has_no_sign() -> None:
    """40,000 without scaling is a window of 40,000: 27 segments of 1460 go."""
    c = established(ts=False, wscale=None, initial_window=64, win=40_000)
    c.write(BYTES[:60_000])
    assert sum(got.len for got in drain(c)) == 27 * 1460


@pytest.mark.rfc("RFC 9293 REC-1", "RFC 7323 2.3-2")
def test_a_window_of_30_bits() -> None:
    """65,535 << 14, the largest that there is, is kept whole."""
    c = established(wscale=14)
    c.inject("A", seq=1, ack=1, win=65_535)
    assert c.tcb()["tx"]["snd_wnd"] == 65_535 << 14 == 1_073_725_440


@pytest.mark.rfc("RFC 7323 2.3-3")
def test_a_shift_above_14_is_14() -> None:
    """Not 15, which would overflow what sequence numbers can tell apart."""
    c = established(wscale=15)
    c.inject("A", seq=1, ack=1, win=1)
    assert c.tcb()["tx"]["snd_wnd"] == 1 << 14


@WRAP
@pytest.mark.rfc("RFC 9293 MUST-5")
@pytest.mark.parametrize(("flags", "data"), [("A", b""), ("PA", b"text"), ("FA", b""), ("UA", b"text")])
def test_options_count_in_any_segment(isn: ISN, flags: str, data: bytes) -> None:
    """The timestamp of each is the one that we echo."""
    c = established(**isn)
    c.inject(flags, seq=1, ack=1, data=data, ts=7777)
    c.quiet()
    c.write(b"x")
    stamps = c.expect("PA").options.timestamps
    assert stamps is not None and stamps[1] == 7777


@pytest.mark.rfc("RFC 9293 MUST-64")
@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_an_option_begins_at_any_byte(before: int) -> None:
    """NOPs before it or not."""
    read = parse_options(b"\1" * before + b"\2\4\5\xb4" + b"\3\3\7" + b"\0" * 8)
    assert (read.mss, read.wscale) == (1460, 7)


@pytest.mark.rfc("RFC 9293 MUST-69")
def test_behind_the_end_of_the_list_are_zeros() -> None:
    """What a peer ended with EOL is written with zeros to the whole word; ours need none, as NOPs align each option."""
    for raw in (b"\4\2\0\0", b"\3\3\7\0", b"\2\4\5\xb4\4\2\0\0"):
        assert parse_options(raw).serialize() == raw
    for some in (TcpOptions(mss=1460), TcpOptions(wscale=7), TcpOptions(sack_permitted=True, timestamps=(1, 2))):
        out = some.serialize()
        assert len(out) % 4 == 0 and 0 not in parse_options(out).order


@WRAP
@pytest.mark.rfc("RFC 9293 MUST-65", "RFC 7323 2.2-1", "RFC 2018 2-1")
def test_what_belongs_into_a_syn_is_in_no_other_segment(isn: ISN) -> None:
    """MSS, window scale, SACK-permitted: in the SYN; not in ACK, data, retransmission, FIN and RST."""
    c = syn_sent(**isn)
    c.inject("SA", seq=0, ack=1)
    c.call(Bind(1, 77, b"", 9))  # nothing that matters to the connection
    c.rings = next(told.rings for told in c.messages if hasattr(told, "rings"))
    c.agreed_ts = True
    c.write(b"x" * 3000)
    c.advance(2000)
    c.inject("PA", seq=1, ack=3001, data=b"y")
    c.shut()
    c.close(abort=True)
    seen = drain(c)
    assert {"A", "AP", "AF", "R"} <= {"".join(sorted(got.flags)).replace("AR", "R") for got in seen}
    for got in seen:
        options = got.options
        assert not got.bits & SYN
        assert options.mss is None and options.wscale is None and not options.sack_permitted


@WRAP
@pytest.mark.rfc("RFC 9293 SHLD-2")
def test_a_reset_may_have_text(isn: ISN) -> None:
    """A reason in words, say: the connection is reset, and the text is not delivered."""
    c = established(**isn)
    c.inject("RA", seq=1, ack=1, data=b"go away")
    assert c.state == "CLOSED" and c.messages[-1].__class__ is Reset


# opening


@pytest.mark.rfc("RFC 9293 SHLD-5", "RFC 9293 MAY-3")
@pytest.mark.parametrize("mtu", [576, 1500])
def test_the_mss_is_always_told(mtu: int) -> None:
    """Also where it is 536, in a SYN and in a SYN-ACK."""
    c = Host(mtu=mtu)
    c.connect()
    assert c.expect("S").options.mss == mtu - 40
    c = listening(mtu=mtu)
    c.inject("S", seq=0)
    assert c.expect("SA").options.mss == mtu - 40


@pytest.mark.rfc("RFC 1191 3.1-2", "RFC 9293 MUST-67")
def test_the_mss_told_is_what_we_take_whatever_the_path() -> None:
    """A path of 1000 bytes toward the peer was learned: a new connection still offers 1460, and sends 948."""
    c = far()
    c.write(b"x" * 3000)
    c.quiet()
    c.icmp(3, 4, seq=1, mtu=1000)
    c.quiet()
    c.inject("S", seq=0, src_port=4712)
    assert Got(c, c.segments.popleft()).options.mss == 1460


def two_networks() -> Host:
    """10.0.0.2 toward 10.0.0.0/24, 192.0.2.2 toward all else."""
    c = Host()
    other = b"\xc0\0\2\2"
    rows = [Route(b"\x0a\0\0\0", 24, OURS, 1500, 0), Route(bytes(4), 0, other, 1500, 0)]
    c.core.receive(Routes(rows, [OURS, other]), c.now)
    return c


@pytest.mark.rfc("RFC 9293 MUST-44", "RFC 9293 MUST-43")
@pytest.mark.parametrize(
    ("remote", "bound", "source"),
    [
        (THEIRS, b"", OURS),
        (b"\xcb\0\x71\1", b"", b"\xc0\0\2\2"),
        (THEIRS, b"\xc0\0\2\2", b"\xc0\0\2\2"),
    ],
)
def test_the_source_of_a_syn(remote: bytes, bound: bytes, source: bytes) -> None:
    """What ip says for that destination, unless the application has chosen."""
    c = two_networks()
    if bound:
        c.call(Bind(1, 60, bound, 5555))
    c.call(Connect(60, "", remote, 80, {}))
    assert c.segments[0].src == source


@pytest.mark.rfc("RFC 9293 MUST-45")
def test_the_source_stays_for_the_whole_connection() -> None:
    """Bound to the address that the route would not have chosen: SYN, ACK, data, data again, FIN."""
    c = two_networks()
    c.call(Bind(1, 60, b"\xc0\0\2\2", 5555))
    c.sock, c.local_port = 60, 5555
    c.call(Connect(60, "", THEIRS, 4711, {}))
    sources = {segment.src for segment in c.segments}
    c.quiet()
    answer = c.segment("SA", seq=0, ack=1)
    answer.dst = b"\xc0\0\2\2"
    c.core.receive(answer, c.now)
    c.flush()
    c.rings = next(told.rings for told in c.messages if hasattr(told, "rings"))
    c.write(b"x")
    c.advance(1000)
    c.shut()
    assert len(c.segments) > 4
    assert sources | {segment.src for segment in c.segments} == {b"\xc0\0\2\2"}


@WRAP
@pytest.mark.rfc("RFC 5681 3.1-4", "RFC 5681 3.1-7", "RFC 6928 2-1")
def test_the_handshake_leaves_the_window_alone(isn: ISN) -> None:
    """Ten segments after it, by either side; ssthresh is larger than any window can be."""
    for c in (established(**isn), connected(**isn)):
        window = c.tcb()["congestion"]
        assert (window["cwnd"], window["ssthresh"] > 65_535 << 14) == (10 * MSS, True)


@pytest.mark.rfc("RFC 6056 3.2-2")
def test_no_ephemeral_port_of_a_listener() -> None:
    """Two ports, one has a listener: connections take the other."""
    c = Host(port_first=5000, port_last=5001)
    c.listen(port=5000)
    for number in range(3):
        c.call(Connect(60 + number, "", bytes((10, 0, 0, 50 + number)), 80, {}))
    assert [int.from_bytes(segment.head[:2], "big") for segment in c.segments] == [5001] * 3


@pytest.mark.rfc("RFC 6528 3-3")
def test_the_isn_changes_in_half_of_its_bits() -> None:
    """One bit of the secret or of the peer's address changed: 16 of 32 bits on the average, as of a good hash."""
    rng = random.Random(5)
    flipped = []
    for _ in range(400):
        secret = rng.randbytes(32)
        peer = rng.randbytes(4)
        bit = rng.randrange(32)
        before = initial_sequence(secret, OURS, 80, peer, 1000, 0)
        if rng.random() < 0.5:
            peer = (int.from_bytes(peer, "big") ^ 1 << bit).to_bytes(4, "big")
        else:
            secret = (int.from_bytes(secret, "big") ^ 1 << bit).to_bytes(32, "big")
        flipped.append((before ^ initial_sequence(secret, OURS, 80, peer, 1000, 0)).bit_count())
    assert 15 < sum(flipped) / len(flipped) < 17


# timestamps and scaling where they do not belong


@WRAP
@pytest.mark.rfc("RFC 7323 2.2-4")
def test_a_window_scale_behind_the_syn_is_ignored(isn: ISN) -> None:
    """The shift of the handshake, 7, stays."""
    c = established(**isn)
    c.inject("A", seq=1, ack=1, win=10, options=TcpOptions(wscale=2, timestamps=(c.stamp, c.last_tsval)))
    assert c.tcb()["tx"]["snd_wnd"] == 10 << 7


@WRAP
@pytest.mark.rfc("RFC 7323 3.2-6", "RFC 7323 3.2-7")
def test_an_echo_without_ack_means_nothing(isn: ISN) -> None:
    """A SYN with TSecr opens as any other; our own has 0."""
    c = listening(**isn)
    c.inject("S", seq=0, options=TcpOptions(mss=1460, sack_permitted=True, timestamps=(100, 999_999)))
    stamps = c.expect("SA", seq=0, ack=1).options.timestamps
    assert stamps is not None and stamps[1] == 100
    c = Host(**isn)
    c.connect()
    assert c.expect("S").options.timestamps[1] == 0  # type: ignore[index]


@WRAP
@pytest.mark.rfc("RFC 7323 3.2-8", "RFC 7323 3.2-4")
def test_timestamps_that_nobody_agreed_on(isn: ISN) -> None:
    """They came all the same: the text is taken, even if they seem old, and the ACK has none."""
    c = established(ts=False, **isn)
    for number in range(2):
        stamps = TcpOptions(timestamps=(100 - number, 1))
        c.inject("PA", seq=1 + number, ack=1, data=b"x", options=stamps)
        assert c.expect("A", ack=2 + number).options.timestamps is None


@WRAP
@pytest.mark.rfc("RFC 7323 4.1-1")
def test_only_an_ack_that_moves_snd_una_is_measured(isn: ISN) -> None:
    """A duplicate that echoes a stamp of a second ago changes no estimate."""
    c = far(**isn)
    c.write(b"x" * MSS)
    first = c.expect("PA").options.timestamps
    assert first is not None
    c.advance(100)
    c.inject("A", seq=1, ack=1 + MSS)
    before = c.tcb()["rto"]
    c.advance(1000)
    c.write(b"y" * MSS)
    c.inject("A", seq=1, ack=1 + MSS, options=TcpOptions(timestamps=(c.stamp, first[0])))
    assert c.tcb()["rto"] == before


# what is held


@pytest.mark.rfc("RFC 2018 3-2", "RFC 2018 4-1", "RFC 2018 4-2", "RFC 2018 4-5", "RFC 2018 4-6")
@pytest.mark.parametrize("seed", range(8))
def test_blocks_are_the_whole_runs_that_are_held(seed: int) -> None:
    """30 pieces of 10 bytes in any order: an ACK each, with the run that the piece joined in front, and others, in
    every ACK that does not cover all; what was told stays until it is covered."""
    rng = random.Random(seed)
    c = established(isn=2**32 - 100, irs=2**32 - 100)
    order = list(range(30))
    rng.shuffle(order)
    have: set[int] = set()
    told: set[int] = set()
    for piece in order:
        c.inject("A", seq=1 + piece * 10, ack=1, data=b"x" * 10)
        have.add(piece)
        got = Got(c, c.segments.popleft())
        c.expect_nothing()
        covered = next(n for n in range(31) if n not in have)
        assert got.ack == 1 + covered * 10
        runs = {}
        for left, right in got.sack:
            pieces = set(range((left - 1) // 10, (right - 1) // 10))
            assert pieces <= have and min(pieces) - 1 not in have and max(pieces) + 1 not in have
            runs[left] = pieces
            told |= pieces
        assert bool(runs) == (max(have) >= covered)
        if piece > covered:
            assert piece in runs[got.sack[0][0]]
        assert told <= have


# the timer


@WRAP
@pytest.mark.rfc("RFC 6298 5.3-1")
def test_an_ack_of_new_data_starts_the_timer_anew(isn: ISN) -> None:
    """Two segments at 0; the first is acknowledged at 100 ms: the second goes again an RTO after that."""
    c = far(sack=False, **isn)
    c.write(b"x" * 2 * MSS)
    c.quiet()
    c.advance(100)
    c.inject("A", seq=1, ack=1 + MSS)
    rto = c.tcb()["rto"]["rto"] // MS
    c.advance(rto - 1)
    c.expect_nothing()
    c.advance(1)
    c.expect("PA", seq=1 + MSS)


@WRAP
@pytest.mark.rfc("RFC 6298 3-2")
@pytest.mark.parametrize("ts", [False, True])
def test_each_round_trip_is_measured(isn: ISN, ts: bool) -> None:
    """Ten flights, 100 to 190 ms: one sample more after each."""
    c = far(ts=ts, **isn)
    acked = 1
    for number in range(10):
        c.write(b"x" * MSS)
        c.quiet()
        c.advance(100 + 10 * number)
        acked += MSS
        before = c.tcb()["rto"]["samples"]
        c.inject("A", seq=1, ack=acked)
        assert c.tcb()["rto"]["samples"] == before + 1


@pytest.mark.rfc("RFC 6298 4-1")
def test_a_round_trip_without_variation() -> None:
    """After 100 equal samples RTTVAR is 0; the RTO stays above SRTT by more than the clock's tick of 1 ms."""
    rto = Rto(floor=2 * MS, ceiling=60_000 * MS, rto=1000 * MS)
    for _ in range(100):
        rto.sample(50 * MS, 0)
    assert rto.rttvar < 1000 and rto.rto == 52 * MS


# loss


def holes(c: Host, segments: int = 10) -> Host:
    """That many are out; then a round trip passes."""
    c.write(BYTES[: segments * MSS] if segments * MSS <= RING else BYTES)
    c.quiet()
    c.advance(100)
    return c


def seq_of(segment: int) -> int:
    """The sequence number of a segment, counted from 1."""
    return 1 + (segment - 1) * MSS


@WRAP
@pytest.mark.rfc("RFC 3042 2-1", "RFC 3042 2-2", "RFC 3042 2-4")
@pytest.mark.parametrize(("win", "goes"), [(65_535, 1), (10 * MSS // 128, 0)])
def test_limited_transmit(isn: ISN, win: int, goes: int) -> None:
    """Each of the first two duplicates lets one segment out, if the peer's window takes it; cwnd stays."""
    c = far(sack=False, win=win, **isn)
    c.win = win
    c.inject("A", seq=1, ack=1)
    holes(c, 20)
    before = c.tcb()["congestion"]["cwnd"]
    for _ in range(2):
        c.inject("A", seq=1, ack=1)
        assert len(drain(c)) == goes
    assert c.tcb()["congestion"]["cwnd"] == before


@WRAP
@pytest.mark.rfc("RFC 3042 2-5")
def test_a_duplicate_that_names_nothing_new_lets_nothing_out(isn: ISN) -> None:
    """With SACK agreed on: bare duplicates, or the same block again."""
    c = holes(far(**isn), 20)
    for _ in range(5):
        c.inject("A", seq=1, ack=1)
    c.expect_nothing()
    c.inject("A", seq=1, ack=1, sack=[(seq_of(2), seq_of(3))])
    assert len(drain(c)) == 1
    for _ in range(3):
        c.inject("A", seq=1, ack=1, sack=[(seq_of(2), seq_of(3))])
    c.expect_nothing()


@WRAP
@pytest.mark.rfc("RFC 5681 3.2-8", "RFC 5681 3.2-9")
def test_new_data_in_fast_recovery(isn: ISN) -> None:
    """cwnd 10, ssthresh 5 after the third duplicate, so cwnd 8; 12 are out (two by limited transmit). Five further
    duplicates make 13: one new segment with the fifth."""
    c = holes(far(sack=False, **isn), 30)
    for _ in range(2):
        c.inject("A", seq=1, ack=1)
    assert [got.seq for got in drain(c)] == [seq_of(11), seq_of(12)]
    c.inject("A", seq=1, ack=1)
    assert [got.seq for got in drain(c)] == [seq_of(1)]
    out = []
    for _ in range(5):
        c.inject("A", seq=1, ack=1)
        out.append([got.seq for got in drain(c)])
    assert out == [[], [], [], [], [seq_of(13)]]


@WRAP
@pytest.mark.rfc("RFC 6582 3.2-6")
def test_the_first_partial_acknowledgment_starts_the_timer_anew(isn: ISN) -> None:
    """At 100 + 50 ms it moves the deadline by an RTO from then on."""
    c = holes(far(sack=False, ts=False, mss=MSS, **isn), 20)
    for _ in range(3):
        c.inject("A", seq=1, ack=1)
    c.quiet()
    c.advance(50)
    before = c.tcb()["deadlines"][RETRANSMIT]
    c.inject("A", seq=1, ack=seq_of(4))
    c.expect("A", seq=seq_of(4))
    tcb = c.tcb()
    assert tcb["deadlines"][RETRANSMIT] == c.now + tcb["rto"]["rto"] > before


@WRAP
@pytest.mark.rfc("RFC 6675 4-3", "RFC 6675 6-1", "RFC 6675 5-4")
def test_holes_first_then_new_data_and_the_timer_from_the_heads_repeat(isn: ISN) -> None:
    """1 and 3 of ten are lost: 1, then 3, then 11."""
    c = holes(far(**isn), 30)
    c.inject("A", seq=1, ack=1, sack=[(seq_of(4), seq_of(7)), (seq_of(2), seq_of(3))])
    sent = [got.seq for got in drain(c)]
    assert sent[0] == 1
    tcb = c.tcb()
    assert tcb["deadlines"][RETRANSMIT] == c.now + tcb["rto"]["rto"]
    for last in range(8, 12):
        c.inject("A", seq=1, ack=1, sack=[(seq_of(4), seq_of(last)), (seq_of(2), seq_of(3))])
        sent += [got.seq for got in drain(c)]
    assert sent[:3] == [1, seq_of(3), seq_of(11)]


@WRAP
@pytest.mark.rfc("RFC 8985 6.3-1", "RFC 6298 5-1")
def test_what_was_sent_a_moment_before_the_timeout_is_not_lost(isn: ISN) -> None:
    """Two segments at 0, one at 250 ms; the RTO of 300 ms: the first goes again, the second is lost, the third is on
    its way, and goes again no sooner than an RTO after it was sent."""
    c = holes(far(tlp=False, **isn), 1)
    c.inject("A", seq=1, ack=seq_of(2))  # RACK has its first RTT, 100 ms
    c.write(BYTES[: 2 * MSS])
    c.advance(250)
    c.write(BYTES[:MSS])
    c.quiet()
    c.advance(51)
    assert [got.seq for got in drain(c)] == [seq_of(2)] and c.tcb()["tx"]["lost_bytes"] == MSS
    c.advance(100)
    c.inject("A", seq=1, ack=seq_of(3))
    assert seq_of(4) not in [got.seq for got in drain(c)]


@WRAP
@pytest.mark.rfc("RFC 6675 5.1-1", "RFC 5681 3.1-14")
def test_no_recovery_of_a_window_that_timed_out(isn: ISN) -> None:
    """In recovery the head's repeat is lost too: RTO, one segment, then two. That 9 and 10 arrive late is no reason for
    a recovery of that window, and reduces nothing; the loss of what was sent again since is one (as Linux)."""
    c = holes(far(ts=False, mss=MSS, **isn), 10)
    c.inject("A", seq=1, ack=1, sack=[(seq_of(2), seq_of(5))])
    c.quiet()
    c.advance(300)
    assert [got.seq for got in drain(c)] == [1]
    assert (c.core.counters["rto_timeouts"], c.core.counters["fast_retransmits"]) == (1, 1)
    before = c.tcb()["congestion"]["ssthresh"]
    c.advance(100)
    c.inject("A", seq=1, ack=seq_of(5))
    assert [got.seq for got in drain(c)] == [seq_of(5), seq_of(6)]
    c.advance(100)
    c.inject("A", seq=1, ack=seq_of(5), sack=[(seq_of(9), seq_of(11))])
    assert c.tcb()["congestion"]["ssthresh"] == before and c.core.counters["fast_retransmits"] == 1
    c.inject("A", seq=1, ack=seq_of(5), sack=[(seq_of(6), seq_of(7)), (seq_of(9), seq_of(11))])
    assert c.tcb()["congestion"]["ssthresh"] < before and c.core.counters["fast_retransmits"] == 2


@WRAP
@pytest.mark.rfc("RFC 9937 6.2-4", "RFC 9937 6.2-3")
@pytest.mark.parametrize(("ack", "named", "goes"), [(2, 18, 2), (1, 17, 1)])
def test_a_segment_more_only_where_it_is_safe(isn: ISN, ack: int, named: int, goes: int) -> None:
    """20 out, 18 to 20 named: 1 to 14 are lost, ssthresh is 10 and three under way again. The next ACK delivers one
    packet: one goes; and one more if it moved SND.UNA and told of no further loss."""
    c = holes(far(ts=False, mss=MSS, initial_window=20, **isn), 40)
    c.inject("A", seq=1, ack=1, sack=[(seq_of(18), seq_of(21))])
    assert len(drain(c)) == 3
    assert (c.tcb()["congestion"]["ssthresh"], c.tcb()["tx"]["lost_bytes"]) == (10 * MSS, 14 * MSS)
    c.inject("A", seq=1, ack=seq_of(ack), sack=[(seq_of(named), seq_of(21))])
    assert len(drain(c)) == goes


# ICMP


@WRAP
@pytest.mark.rfc("RFC 1191 6.4-2")
def test_a_flight_that_was_too_large_is_sent_again_once(isn: ISN) -> None:
    """Three packets were too large for 1000 bytes, and three routers' messages say so: one retransmission of each."""
    c = far(**isn)
    c.write(b"x" * 3 * MSS)
    c.quiet()
    for number in range(3):
        c.icmp(3, 4, seq=1 + number * MSS, mtu=1000)
    again = drain(c)
    assert sum(got.len for got in again) == 3 * MSS and len({got.seq for got in again}) == len(again)


# states of a port


@pytest.mark.rfc("RFC 9293 MUST-41")
def test_a_listener_comes_and_goes_beside_a_connection() -> None:
    """A passive open on the port of an open connection, and its end, change nothing of it."""
    c = established()
    c.call(Bind(3, 51, b"", PORT + 1))
    c.listen(sock=52, port=PORT + 2)
    c.inject("S", seq=0, src_port=4999, dst_port=PORT + 2)
    c.quiet()
    c.inject("PA", seq=1, ack=1, data=b"still here")
    c.expect("A", ack=11)
    assert c.received(0, 10) == b"still here" and not any(isinstance(told, Incoming) for told in c.messages)
