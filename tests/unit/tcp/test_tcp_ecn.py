"""ECN (RFC 3168 6.1): who agrees, what is marked, what is echoed, what is done about it. tos: 2 ECT(0), 3 CE.

Flags beside those of other tests: E is ECE, C is CWR."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Got, Host, connected, established, listening, syn_sent

from layers.tcp.core import TcpCore
from levelip.frames.seam import Connect, SetOption
from levelip.wire.tcp import CWR

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 250
ECT, CE = 2, 3


def server(**how: Any) -> Host:
    """ESTABLISHED by a listener, with ECN."""
    c = listening(**how)
    c.inject("SEC", seq=0)
    c.agreed_ts = c.expect("SAE", seq=0, ack=1).options.timestamps is not None
    c.sock = next(row["sock"] for row in c.core.control(1, "ss", {}, 0)["sockets"] if row["state"] != "LISTEN")
    c.inject("A", seq=1, ack=1)
    told = c.messages[-1]
    c.rings, c.limit = told.rings, told.limit
    return c.quiet()


def options(c: Host) -> int:
    """tcpi_options: 8 is ECN, 16 that a mark was seen."""
    return int(c.row()["info"]["options"])  # type: ignore[index]


# 6.1.1 the handshake


@pytest.mark.rfc("RFC 3168 6.1.1-3", "RFC 3168 6.1.1-5")
@pytest.mark.parametrize(("mode", "flags"), [(0, "S"), (1, "SEC"), (2, "S")])
def test_who_asks(mode: int, flags: str) -> None:
    """tcp.ecn as Linux's tcp_ecn: 0 never, 1 asks, 2 only answers. The SYN itself is not ECT."""
    c = Host(ecn=mode)
    c.connect()
    assert c.expect(flags).tos == 0


@pytest.mark.rfc("RFC 3168 6.1.1-1", "RFC 3168 6.1.1-3")
@pytest.mark.parametrize(("mode", "flags"), [(0, "SA"), (1, "SAE"), (2, "SAE")])
def test_who_answers(mode: int, flags: str) -> None:
    """An ECN-setup SYN-ACK has ECE and not CWR, and is not ECT."""
    c = listening(ecn=mode)
    c.inject("SEC", seq=0)
    assert c.expect(flags).tos == 0


@pytest.mark.rfc("RFC 3168 6.1.1-2")
@pytest.mark.parametrize(("syn", "tos"), [("S", 0), ("SE", 0), ("SC", 0), ("SEC", ECT), ("SEC", CE)])
def test_what_is_no_ecn_setup_syn(syn: str, tos: int) -> None:
    """One flag alone; or a SYN that is itself ECT, as of nobody who keeps to the RFC (Linux)."""
    c = listening()
    c.inject(syn, seq=0, tos=tos)
    c.expect("SA")


@pytest.mark.rfc("RFC 3168 6.1.1-4", "RFC 3168 6.1.1.1-1")
@pytest.mark.parametrize(("answer", "on"), [("SAE", True), ("SA", False), ("SAEC", False), ("SAC", False)])
def test_the_answer_decides(answer: str, on: bool) -> None:
    """ECE without CWR; a host that mirrors both reserved bits does not mean it."""
    c = syn_sent_ecn()
    c.inject(answer, seq=0, ack=1)
    assert bool(options(c) & 8) is on


@pytest.mark.rfc("RFC 3168 6.1.1-4")
def test_an_answer_to_no_question() -> None:
    """We did not ask: ECE on the SYN-ACK means nothing."""
    c = syn_sent()
    c.inject("SAE", seq=0, ack=1)
    assert not options(c) & 8


def syn_sent_ecn(**how: Any) -> Host:
    """SYN-SENT, having asked."""
    c = Host(ecn=1, **how)
    c.connect()
    c.learn_port()
    c.expect("SEC")
    return c


@pytest.mark.rfc("RFC 3168 6.1.1.1")
@pytest.mark.parametrize(("fallback", "flags"), [(True, "S"), (False, "SEC")])
def test_a_syn_sent_again(fallback: bool, flags: str) -> None:
    """It does not ask, unless tcp.ecn_fallback is off; an ECE in the answer to the one that did not means nothing."""
    c = syn_sent_ecn(ecn_fallback=fallback)
    c.advance(1001)
    c.expect(flags)
    c.inject("SAE", seq=0, ack=1)
    assert bool(options(c) & 8) is not fallback


@pytest.mark.rfc("RFC 3168 6.1.1")
def test_a_syn_ack_sent_again_still_agrees() -> None:
    """The peer has asked, whichever copy comes through."""
    c = listening()
    c.inject("SEC", seq=0)
    c.expect("SAE")
    c.advance(1001)
    c.expect("SAE")


@pytest.mark.rfc("RFC 3168 6.1.1-1")
@pytest.mark.parametrize(("syn", "answer", "on"), [("SEC", "SAE", True), ("S", "SA", False)])
def test_simultaneous_open(syn: str, answer: str, on: bool) -> None:
    """Both ask: both agree."""
    c = syn_sent_ecn()
    c.inject(syn, seq=0)
    c.expect(answer)
    c.agreed_ts = True
    c.inject("SAE" if on else "SA", seq=0, ack=1)
    assert bool(options(c) & 8) is on


# 6.1.2, 6.1.4 to 6.1.6: what is marked


@pytest.mark.rfc("RFC 3168 6.1.2", "RFC 3168 5-2", "RFC 3168 6.1.4-1", "RFC 3168 6.1.5-1")
def test_data_is_ect_and_nothing_else_is(isn: ISN) -> None:
    """New data: ECT(0). Pure ACKs, retransmissions and a lone FIN: not. The DSCP stays."""
    c = server(**isn)
    c.call(SetOption(c.sock, "tos", 0xB8))
    c.write(BYTES[:MSS])
    assert c.expect("PA", len=MSS).tos == 0xB8 | ECT
    c.advance(250)
    assert c.expect("PA", seq=1, len=MSS).tos == 0xB8
    c.inject("PA", seq=1, ack=1 + MSS, data=b"x")
    assert c.expect("A").tos == 0xB8
    c.shut()
    assert c.expect("FA").tos == 0xB8


@pytest.mark.rfc("RFC 3168 6.1.6-1")
def test_a_window_probe_is_not_ect() -> None:
    """Nor a keep-alive, which is made the same way."""
    c = server()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(b"x")
    c.quiet()
    c.advance(1000)
    assert c.expect("A", len=0).tos == 0


@pytest.mark.rfc("RFC 3168 6.1.1-4")
def test_without_agreement_nothing_is_marked() -> None:
    """tos as the application set it; a mark that comes all the same says nothing."""
    c = established()
    c.write(BYTES[:MSS])
    assert c.expect("PA").tos == 0
    c.inject("PA", seq=1, ack=1 + MSS, data=b"x", tos=CE)
    c.expect("A")
    assert not options(c) & 24


# 6.1.3: the receiver


@pytest.mark.rfc("RFC 3168 6.1.3-1", "RFC 3168 6.1.3-3", "RFC 3168 6.1.1-7")
def test_a_mark_is_echoed_until_cwr(isn: ISN) -> None:
    """ECE at once, and on all that follows, data too, until CWR comes; a marked packet with CWR starts it anew."""
    c = server(**isn)
    c.inject("A", seq=1, ack=1, data=b"a" * 100, tos=ECT)
    c.advance(50)
    c.expect("A", ack=101)
    c.inject("A", seq=101, ack=1, data=b"b" * 100, tos=CE)
    c.expect("AE", ack=201)
    assert c.core.counters["ecn_marks_in"] == 1 and options(c) & 16
    c.inject("A", seq=201, ack=1, data=b"c" * 100, tos=ECT)
    c.advance(50)
    c.expect("AE", ack=301)
    c.write(b"ours")
    c.expect("PAE", data=b"ours")
    c.inject("AC", seq=301, ack=5, data=b"d" * 100, tos=ECT)
    c.expect("A", ack=401)
    c.inject("AC", seq=401, ack=5, data=b"e" * 100, tos=CE)
    c.expect("AE", ack=501)


@pytest.mark.rfc("RFC 3168 6.1.3-2")
@pytest.mark.parametrize("marked", [0, 1])
def test_an_ack_for_two_says_that_one_was_marked(marked: int) -> None:
    """The first or the second of two segments that one flush acknowledges."""
    c = server()
    for number in range(2):
        segment = c.segment("A", seq=1 + 100 * number, ack=1, data=b"x" * 100, tos=CE if number == marked else ECT)
        c.core.receive(segment, c.now)
    c.flush()
    c.expect("AE", ack=201)
    c.expect_nothing()


@pytest.mark.rfc("RFC 3168 6.1.6-2")
def test_a_window_probe_has_no_cwr() -> None:
    """The window was reduced by an echo, and closed: the probe does not tell it; the next new data does."""
    c = server()
    c.write(BYTES[: 2 * MSS])
    c.quiet()
    c.inject("AE", seq=1, ack=1 + 2 * MSS, win=0)
    c.write(b"x")
    c.quiet()
    c.advance(1000)
    assert not c.expect("A", len=0).bits & CWR
    c.quiet()
    c.inject("A", seq=1, ack=1 + 2 * MSS, win=1000)
    assert c.expect("PAC", data=b"x").tos == ECT


@pytest.mark.rfc("RFC 3168 6.1.3")
def test_a_mark_out_of_order_is_echoed_too() -> None:
    """The duplicate ACK has ECE beside its SACK block."""
    c = server()
    c.inject("A", seq=101, ack=1, data=b"b" * 100, tos=CE)
    assert c.expect("AE", ack=1).sack == [(101, 201)]


@pytest.mark.rfc("RFC 3168 6.1.3", "RFC 3168 6.1.5-2")
def test_a_mark_below_the_window_says_nothing() -> None:
    """What was received before is not acceptable; only its repeat was marked."""
    c = server()
    c.inject("A", seq=1, ack=1, data=b"a" * 100, tos=ECT)
    c.advance(50)
    c.quiet()
    c.inject("A", seq=1, ack=1, data=b"a" * 100, tos=CE)
    c.expect("A", ack=101)


def test_a_marked_super_segment_counts_its_packets() -> None:
    """The kernel marks all of it or nothing."""
    c = server()
    c.inject("A", seq=1, ack=1, data=b"a" * 4000, gso=1000, tos=CE)
    c.expect("AE", ack=4001)
    assert c.core.counters["ecn_marks_in"] == 4


# 6.1.2: the sender


def bulk(segments: int = 10, **how: Any) -> Host:
    """Ten segments under way, ten more to come."""
    c = server(**how)
    c.write(BYTES[: 20 * MSS])
    for number in range(segments):
        c.expect("A", seq=1 + number * MSS, len=MSS)
    return c


@pytest.mark.rfc("RFC 3168 6.1.2-1", "RFC 3168 6.1.2-3", "RFC 3168 6.1.2-5", "RFC 3168 6.1.1-6", "RFC 3168 5-1")
def test_an_echo_halves_once_a_window(isn: ISN) -> None:
    """Ten in flight: ssthresh 5, and cwnd comes down to it within the round trip (RFC 9937), a new segment for two that
    are acknowledged. Nothing is sent again. The echoes of the same window do nothing more; the first new data has CWR,
    the others have not; an echo of what was sent after the reduction halves again: of 5 segments, 2.5."""
    c = bulk(**isn)
    c.inject("AE", seq=1, ack=1 + MSS)
    assert c.expect("AC", seq=1 + 10 * MSS).tos == ECT
    tcb = c.tcb()["congestion"]
    assert (tcb["cwnd"], tcb["ssthresh"]) == (10 * MSS, 5 * MSS)
    assert c.row()["info"]["ca_state"] == 2  # type: ignore[index]
    for acked in range(2, 11):
        c.inject("AE", seq=1, ack=1 + acked * MSS)
    tcb = c.tcb()["congestion"]
    assert (tcb["cwnd"], tcb["ssthresh"]) == (5 * MSS, 5 * MSS)
    assert [Got(c, segment).flags for segment in c.segments] == ["A"] * 4
    assert c.core.counters["ecn_reductions"] == 1
    c.inject("A", seq=1, ack=1 + 11 * MSS)
    assert c.row()["info"]["ca_state"] == 0  # type: ignore[index]
    c.inject("AE", seq=1, ack=1 + 12 * MSS)
    assert c.core.counters["ecn_reductions"] == 2
    assert c.tcb()["congestion"]["ssthresh"] == 5 * MSS // 2
    assert c.core.counters["retransmissions"] == 0


@pytest.mark.rfc("RFC 3168 6.1.2-1")
def test_an_echo_on_the_ack_that_ends_a_reduction_is_a_new_one() -> None:
    """Ten acknowledged, then five sent with the window of five; the first ACK of these has ECE: 2.5 (Linux
    tcp_fastretrans_alert: the end of CWR, step D, comes before ECE)."""
    c = bulk(10)
    for acked in (2, 10):
        c.inject("AE", seq=1, ack=1 + acked * MSS)
    c.quiet()
    assert c.row()["info"]["ca_state"] == 2  # type: ignore[index]
    c.inject("AE", seq=1, ack=1 + 12 * MSS)
    assert c.core.counters["ecn_reductions"] == 2
    assert c.tcb()["congestion"]["ssthresh"] < 5 * MSS
    assert c.row()["info"]["ca_state"] == 2  # type: ignore[index]


@pytest.mark.rfc("RFC 3168 6.1.2-2")
def test_no_growth_by_an_ack_with_echo() -> None:
    """Not even where it reduces nothing, as the window was reduced before: slow start after a timeout goes on with the
    next ACK."""
    c = bulk(tlp=False, frto=False, ts=False, mss=1448)
    c.advance(201)
    c.inject("AE", seq=1, ack=1 + MSS)
    assert c.tcb()["congestion"]["cwnd"] == MSS and c.core.counters["ecn_echoes_in"] == 1
    c.inject("A", seq=1, ack=1 + 2 * MSS)
    assert c.tcb()["congestion"]["cwnd"] == 2 * MSS


@pytest.mark.rfc("RFC 3168 6.1.2-4", "RFC 3168 6.1.2-5", "RFC 3168 6.1.2-6")
@pytest.mark.parametrize("how", ["loss", "timeout"])
def test_cwr_after_a_loss_too(how: str) -> None:
    """A window that was reduced for whatever reason: the next new data says so, the retransmission does not. Echoes of
    that window reduce nothing more."""
    c = bulk(tlp=False, frto=False, ts=False, mss=1448)
    if how == "timeout":
        c.advance(201)
    else:
        for edge in (2, 3, 4):
            c.inject("A", seq=1, ack=1, sack=[(1 + MSS, 1 + edge * MSS)])
    assert c.core.counters["retransmissions"] == 1 and not any(segment.head[13] & 0x80 for segment in c.segments)
    nxt = c.tcb()["tx"]["snd_nxt"]
    c.quiet()
    ssthresh = c.tcb()["congestion"]["ssthresh"]
    c.inject("AE", seq=1, ack=1 + 10 * MSS)
    assert c.tcb()["congestion"]["ssthresh"] == ssthresh and not c.core.counters["ecn_reductions"]
    c.inject("A", seq=1, ack=1 + nxt)
    got = [Got(c, segment) for segment in c.segments]
    assert [one.seq for one in got if "C" in one.flags] == [1 + nxt]


@pytest.mark.rfc("RFC 3168 6.1.2")
def test_a_super_segment_with_cwr_is_one_segment() -> None:
    """The device keeps CWR to its first packet (levelip.wire.segment.split_tcp; VIRTIO_NET_HDR_GSO_ECN)."""
    c = server(gso_max=65_535)
    c.write(BYTES[: 20 * MSS])
    c.expect("PA", len=10 * MSS)
    c.inject("AE", seq=1, ack=1 + 10 * MSS)
    got = c.expect("PAC", seq=1 + 10 * MSS, len=5 * MSS)
    assert got.gso == MSS and got.tos == ECT
    c.expect_nothing()


def test_nothing_in_flight_nothing_to_reduce() -> None:
    """An echo when all is acknowledged is late news."""
    c = server()
    c.inject("AE", seq=1, ack=1)
    assert not c.core.counters["ecn_reductions"]


# beside the common path


def test_marks_leave_the_common_path_and_nothing_else_does(isn: ISN) -> None:
    """With and without header prediction the same comes out, marks and echoes included."""
    runs = []
    for predict in (True, False):
        c = server(**isn)
        c.core._ctx.config.header_prediction = predict
        c.core._predict = predict
        c.write(BYTES[: 20 * MSS])
        for step, (flags, tos) in enumerate([("A", ECT), ("A", CE), ("AE", 0), ("AC", ECT), ("AE", CE), ("A", ECT)]):
            c.inject(flags, seq=1 + 100 * step, ack=1 + step * MSS, data=b"x" * 100, tos=tos)
        runs.append([(s.head, s.tos) for s in c.segments])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["cubic", "newreno"])
def test_snapshot(name: str) -> None:
    """What is owed, ECE and CWR, survives."""
    c = bulk(congestion=name)
    c.inject("AE", seq=1, ack=1 + 2 * MSS)
    c.inject("A", seq=1, ack=1 + 2 * MSS, data=b"x", tos=CE)
    data = c.core.snapshot()
    ecn = data["connections"][0]["ecn"]
    assert ecn["echo"] and ecn["until"] == 10 * MSS
    c.quiet()
    c.core = TcpCore.restore(c.config, data)
    assert c.core.snapshot() == data
    c.inject("A", seq=2, ack=1 + 9 * MSS)
    assert "E" in Got(c, c.segments[0]).flags


def test_connect_of_a_client_asks_by_the_setting_of_now() -> None:
    """tcp.ecn changes at run time, for connections to come."""
    c = Host(ecn=2)
    c.core.set("ecn", 1, c.now)
    c.call(Connect(61, "", b"\x0a\0\0\1", 99))
    c.expect("SEC")


@pytest.mark.rfc("RFC 9293 SHLD-8")
def test_an_active_open_with_ecn() -> None:
    """The whole way: asked, agreed, marked."""
    c = connected_ecn()
    c.write(b"hello")
    assert c.expect("PA").tos == ECT
    assert c.core.counters["ecn_connections"] == 1
    assert connected().core.counters["ecn_connections"] == 0


def connected_ecn() -> Host:
    """ESTABLISHED by an active open, with ECN."""
    c = syn_sent_ecn()
    c.inject("SAE", seq=0, ack=1)
    c.agreed_ts = True
    c.expect("A")
    told = c.messages[-1]
    c.rings, c.limit = told.rings, told.limit
    return c
