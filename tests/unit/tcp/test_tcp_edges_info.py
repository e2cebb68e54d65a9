"""What is told of connections, to the byte and the bit: TCP_INFO, ss, figures; and snapshots between two flushes."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import MSS, Host, established, far, listening, syn_sent

from layers.tcp.core import TcpCore
from levelip.frames.core import ControlError
from levelip.frames.packet import Checksum
from levelip.frames.seam import GetInfo, Result
from levelip.rpc.place import Place
from levelip.rpc.stream import Data


def info(c: Host) -> dict[str, Any]:
    """TCP_INFO as a program gets it."""
    c.messages.clear()
    c.call(GetInfo(9, c.sock))
    return dict(c.message(Result).data)


def test_figures_are_whole_numbers() -> None:
    """Of ms, µs, segments and bytes, whatever the instant: struct tcp_info has no fractions."""
    c = far(tlp=False)
    c.write(bytes(14_480))
    c.advance(1000)
    c.inject("PA", seq=1, ack=1, data=b"x")
    c.now += 1234 * 1000 + 567
    told = info(c)
    assert told["snd_ssthresh"] < 100 and told["last_data_recv"] == 1
    assert {name: value for name, value in told.items() if type(value) is not int} == {}


def test_the_bits_of_what_was_agreed() -> None:
    """Timestamps, SACK, scaling, ECN; and that a mark came, be it one."""
    c = listening(ecn=1)
    c.inject("SEC", seq=0)
    c.agreed_ts = c.expect("SAE").options.timestamps is not None
    c.inject("A", seq=1, ack=1)
    c.sock = next(row["sock"] for row in c.core.control(1, "ss", {}, 0)["sockets"] if row["state"] != "LISTEN")
    assert info(c)["options"] == 1 | 2 | 4 | 8
    c.inject("PA", seq=1, ack=1, data=b"x", tos=3)
    assert info(c)["options"] == 1 | 2 | 4 | 8 | 16
    assert info(established(sack=False, wscale=None, ts=False))["options"] == 0


def test_a_fin_is_no_byte() -> None:
    """Neither before it is acknowledged, nor after; nor the peer's."""
    c = established()
    c.write(bytes(10))
    c.inject("PA", seq=1, ack=11, data=bytes(20))
    c.shut()
    assert (info(c)["bytes_acked"], info(c)["bytes_received"]) == (10, 20)
    c.inject("A", seq=21, ack=12)
    assert (info(c)["bytes_acked"], info(c)["bytes_received"]) == (10, 20)
    c.inject("FA", seq=21, ack=12)
    assert (info(c)["bytes_acked"], info(c)["bytes_received"]) == (10, 20)


def test_a_fin_that_is_all_there_is_is_no_byte() -> None:
    """Its offset is 0."""
    c = established()
    c.shut()
    c.inject("A", seq=1, ack=2)
    assert c.state == "FIN_WAIT_2" and info(c)["bytes_acked"] == 0


def told_of_losses(c: Host) -> tuple[int, ...]:
    """tcpi_ca_state, tcpi_unacked, tcpi_sacked, tcpi_lost, tcpi_retrans."""
    told = info(c)
    return tuple(told[name] for name in ("ca_state", "unacked", "sacked", "lost", "retrans"))


def test_what_is_sacked_lost_and_sent_again() -> None:
    """In segments. While a loss is repaired what was sent again is lost, too (Linux tcpi_lost is lost_out)."""
    c = far(tlp=False)
    c.write(bytes(20 * MSS))
    assert told_of_losses(c) == (0, 10, 0, 0, 0)
    c.advance(100)
    c.inject("A", seq=1, ack=1, sack=[(1 + 3 * MSS, 1 + 8 * MSS)])  # 3 sent again, 5 sacked, 2 under way
    assert told_of_losses(c) == (3, 10, 5, 3, 3)
    c.advance(1000)  # the timer twice: cwnd 1, of which the first is sent again; the other four wait
    assert told_of_losses(c) == (4, 10, 5, 5, 1)
    assert info(c)["snd_cwnd"] == 1
    c.inject("A", seq=1, ack=1 + MSS)
    assert info(c)["lost"] + info(c)["sacked"] <= info(c)["unacked"]


def test_without_sack_duplicates_stand_for_what_was_sacked() -> None:
    """Linux tcp_add_reno_sack: each duplicate acknowledgment is a segment that has left the network."""
    c = far(tlp=False, sack=False)
    c.write(bytes(10 * MSS))
    c.advance(100)
    for count in (1, 2, 3):
        c.inject("A", seq=1, ack=1)
        assert info(c)["sacked"] == count
    assert told_of_losses(c) == (3, 10, 3, 1, 1)


def ages(c: Host) -> tuple[int, ...]:
    """tcpi_last_data_sent, tcpi_last_data_recv, tcpi_last_ack_recv; tcpi_ato."""
    told = info(c)
    return tuple(told[name] for name in ("last_data_sent", "last_data_recv", "last_ack_recv", "ato"))


def test_how_long_ago_something_came_and_went() -> None:
    """In ms: from the opening on where no data has been yet, and 0 before it (Linux tcp_get_info)."""
    c = syn_sent()
    c.advance(10)
    assert ages(c) == (0, 0, 0, 0)
    c = established(delayed_ack_ms=40)
    c.advance(100)
    assert ages(c) == (100, 100, 100, 0)
    c.write(b"x")
    c.advance(20)
    assert ages(c) == (20, 120, 120, 0)
    c.inject("PA", seq=1, ack=2, data=b"y")
    c.advance(3)
    assert ages(c) == (23, 3, 3, 40_000)


@pytest.mark.parametrize("ts", [False, True])
def test_the_mss_that_we_advertised_less_our_timestamps(ts: bool) -> None:
    """As Linux counts tcpi_advmss: 1460 of an Ethernet, 1448 with them."""
    assert info(established(ts=ts))["advmss"] == 1460 - 12 * ts


@pytest.mark.parametrize("written", [1, 100])
def test_what_waits_in_the_queue_from_the_first_byte_on(written: int) -> None:
    """The peer's window is closed: all is unsent, and nothing acknowledged."""
    c = established()
    c.inject("A", seq=1, ack=1, win=0)
    c.write(bytes(written))
    row = c.row()
    assert row is not None and (row["send_q"], row["info"]["notsent_bytes"]) == (written, written)


# commands


def test_ss_says_when() -> None:
    """Beside the sockets: what is left of timers is counted from it."""
    c = established()
    told = c.core.control(1, "ss", {}, c.now)
    assert set(told) == {"now", "sockets"} and told["now"] == c.now


def test_the_row_of_a_listener() -> None:
    """`lvlip ss`: as a connection's, with nothing on the other side."""
    c = listening()
    assert c.row() == {
        "sock": 50, "state": "LISTEN", "local": "0.0.0.0", "local_port": 80, "remote": "0.0.0.0", "remote_port": 0,
        "recv_q": 0, "send_q": 16, "half_open": 0, "overflows": 0, "timers": {}, "info": {},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["2001:db8::1:80>2001:db8::2:9", "10.0.0.2:80>10.0.0.1:9"])
def test_a_connection_that_is_not_there_has_a_name_all_the_same(name: str) -> None:
    """Of IPv6, too, as events say it: the last colon is before the port."""
    c = established()
    with pytest.raises(ControlError, match="there is no connection"):
        c.core.control(1, "figures", {"conn": name}, c.now)


# snapshots


def restored(c: Host) -> TcpCore:
    return TcpCore.restore(c.config, c.core.snapshot())


def test_a_snapshot_holds_who_waits_for_room() -> None:
    """ip had none for what was written, the gateway none for what came: both go on."""
    c = established()
    c.inject("PA", seq=1, ack=1, data=b"hello", flush=False)
    assert c.core.outgoing({"ip": 0, "gateway": 0})
    out = restored(c).outgoing({})
    assert [type(frame) for port, frame in out if port == "gateway"] == [Data]
    assert [port for port, _ in out].count("ip") == 1


# the header


@pytest.mark.parametrize("options", [0, 12])
def test_a_header_without_data_is_whole(options: int) -> None:
    """However it comes: in the head, or in what lies behind it."""
    for cut in (20 + options, 0, 10):
        c = established(ts=bool(options))
        segment = c.segment("A", seq=1, ack=1)
        assert len(segment.head) == 20 + options
        segment.head, segment.payload = segment.head[:cut], segment.head[cut:]
        c.call(segment)
        assert c.core.counters.get("drop.tcp_malformed", 0) == 0
        assert info(c)["segs_in"] == 3


@pytest.mark.parametrize("ts", [False, True])
@pytest.mark.parametrize("reserved", [0, 4])
def test_a_payload_in_memory_needs_a_whole_header_before_it(ts: bool, reserved: int) -> None:
    """Of 20 bytes or more; its reserved bits are nobody's business (RFC 9293 3.1)."""
    for cut in (0, 1):
        c = established(ts=ts)
        segment = c.segment("PA", seq=1, ack=1, data=bytes(100))
        head = segment.head[:12] + bytes((segment.head[12] | reserved,)) + segment.head[13:]
        segment.head = head[: len(head) - cut]
        segment.payload = Place("pool", 0, 4096, 0, 100)
        c.core.receive(segment, c.now)
        assert (c.dropped("tcp_malformed"), c.tcb()["rx"]["rcv_nxt"]) == (cut, 100 * (1 - cut))
        c.core.outgoing({})
    c = established(ts=ts)
    segment = c.segment("PA", seq=1, ack=1, data=bytes(100))
    head = segment.head[:12] + bytes((segment.head[12] | reserved,)) + segment.head[13:]
    segment.head, segment.payload = head[:12], head[12:] + b"hello"
    c.call(segment)
    assert c.received(0, 5) == b"hello"


def test_a_payload_in_memory_comes_with_its_checksum_verified() -> None:
    """A core cannot read it: what nobody has verified is discarded."""
    c = established()
    segment = c.segment("PA", seq=1, ack=1, data=bytes(100))
    segment.payload, segment.checksum = Place("pool", 0, 4096, 0, 100), Checksum.UNVERIFIED
    c.call(segment)
    assert c.dropped("tcp_checksum") == 1 and c.tcb()["rx"]["rcv_nxt"] == 0
