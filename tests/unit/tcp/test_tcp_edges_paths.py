"""Where tcp decides between two things that lie close together: MTUs of paths, the search for one, routes, ICMP."""

from __future__ import annotations

from typing import Any

import pytest
from tcp_host import HOSTS, MS, MSS, THEIRS, Got, Host, far, listening
from test_tcp_rack import info

from layers.tcp import mtu_probe, path_mtu
from layers.tcp.output import TO_IP_MOST
from layers.tcp.recovery.state import CaState
from layers.tcp.routes import RouteTable
from levelip.frames.packet import IcmpError, PathMtu, Route, Routes
from levelip.frames.seam import Connect, Incoming, SetOption

DISORDER, LOSS = CaState.DISORDER, CaState.LOSS
SECOND = 1000 * MS


def probing() -> tuple[Host, Any, Any]:
    """A probe of 1236 bytes may go: cwnd 20 packets of 1024, enough written."""
    c = far(mtu_probing=2, initial_window=20)
    ctx, conn = c.parts()
    conn.tx.snd_end = 30_000
    return c, ctx, conn


def test_new_routes_reach_every_connection() -> None:
    """One to where no route leads any more is no reason to stop."""
    c = Host(routes=False)
    c.core.receive(Routes([Route(bytes(4), 0, b"\x0a\0\0\2", 1500, 0)], [b"\x0a\0\0\2"]), c.now)
    for sock, remote in ((60, b"\x0b\0\0\1"), (61, THEIRS)):
        c.call(Connect(sock, "", remote, 4711))
    c.core.receive(Routes([Route(b"\x0a\0\0\0", 8, b"\x0a\0\0\2", 800, 0)], [b"\x0a\0\0\2"]), c.now)
    found = [c.core._ctx.sockets[sock] for sock in (60, 61)]
    assert [conn.pmtu for conn in found] == [1500, 800]
    assert [conn.advertised_mss for conn in found] == [1460, 1460], "the SYN has said so"


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("", 0), ("recovery.state", DISORDER), ("recovery.probe_end", 5), ("retransmits", 1), ("tx.lost_bytes", 1),
        ("rx.ranges", [1]), ("tx.snd_end", 5331), ("congestion.cwnd", 11 * 1024 - 1), ("tx.snd_wnd", 5331),
        ("mtu.high", 1000), ("mtu.probe_end", 5),
    ],
)  # fmt: skip
def test_what_forbids_a_probe_of_the_mtu(what: str, value: Any) -> None:
    """Each alone (Linux tcp_mtu_probe)."""
    c, ctx, conn = probing()
    *path, name = what.split(".") if what else ["mtu", "begun_at"]
    holder = conn
    for part in path:
        holder = getattr(holder, part)
    if what:
        setattr(holder, name, value)
    assert mtu_probe.probe_size(ctx, conn, c.now) == (1236 if not what else 0)
    HOSTS.clear()


def test_limits_of_a_probe_of_the_mtu() -> None:
    """Just enough: data behind it, cwnd in packets, cwnd in bytes beside what is in flight, the peer's window."""
    c, ctx, conn = probing()
    conn.tx.snd_end = conn.tx.snd_wnd = 5332
    conn.congestion.cwnd = 11 * 1024
    assert mtu_probe.probe_size(ctx, conn, c.now) == 1236
    c, ctx, conn = probing()
    conn.tx.record(10 * 1024, c.now, 1024)
    conn.congestion.cwnd = 10 * 1024 + 1236
    assert mtu_probe.probe_size(ctx, conn, c.now) == 1236
    conn.congestion.cwnd -= 1
    assert mtu_probe.probe_size(ctx, conn, c.now) == 0
    HOSTS.clear()


def test_a_probe_acknowledged_to_its_end_has_arrived() -> None:
    """Not a byte more is needed."""
    c = far(mtu_probing=2, initial_window=20)
    c.write(bytes(15_000))
    end = next(Got(c, segment) for segment in c.segments if Got(c, segment).len == 1236)
    c.advance(100)
    c.inject("A", seq=1, ack=(end.seq + 1236))
    c.write(bytes(10_000))
    assert c.core.counters["mtu_probes_arrived"] == 1


def test_the_loss_of_a_probe_is_told_as_such() -> None:
    """The event says what for recovery was entered: RFC 4821 7.5."""
    c = far(mtu_probing=2, initial_window=20)
    c.write(bytes(15_000))
    got = [Got(c, segment) for segment in c.segments]
    probe = next(one for one in got if one.len == 1236)
    c.advance(100)
    c.core.interest = True
    c.inject("A", seq=1, ack=probe.seq, sack=[(probe.seq + 1236, probe.seq + 1236 + 3 * 1024)])
    assert [event["why"] for event in c.told("recovery") if event["new"] == "LOSS"] == ["mtu_probe"]
    assert info(c)["snd_ssthresh"] == 0x7FFF_FFFF


def test_icmp_that_is_not_believed_tells_of_what() -> None:
    """IP_PMTUDISC_DONT: the connection, and the MTU that was said."""
    c = far()
    c.call(SetOption(c.sock, "mtu_discover", 0))
    c.write(bytes(3000))
    c.core.interest = True
    c.icmp(3, 4, seq=1, mtu=900)
    [event] = [event for event in c.core.events() if event.kind == "drop"]
    assert (event.reason, event.conn, event.data) == ("tcp_icmp_stray", "10.0.0.2:80>10.0.0.1:4711", {"mtu": 900})
    assert event.frame == 1


def test_ip_is_told_how_long_a_path_mtu_holds() -> None:
    """As long as here; and it ends there though no route leads there any more."""
    c = far(mtu_expires_s=300)
    c.write(bytes(3000))
    head = c.local_port.to_bytes(2, "big") + c.peer_port.to_bytes(2, "big") + (c.isn + 1).to_bytes(4, "big")
    c.core.receive(IcmpError(1, [], 3, 4, 900, b"\x0a\0\0\xfe", b"\x0a\0\0\2", THEIRS, 6, head), c.now)
    assert [frame.ms for _, frame in c.core.outgoing({}) if isinstance(frame, PathMtu)] == [300_000]
    c.inject("A", seq=1, ack=3001)
    c.core.receive(Routes([], []), c.now)
    c.advance(301_000)
    assert c.parts()[1].pmtu == 900


def test_only_the_probe_itself_is_a_packet_larger_than_the_others() -> None:
    """A segment that begins where a probe did and ends elsewhere went out in packets of the usual size."""
    c = far()
    _, conn = c.parts()
    c.write(bytes(MSS))
    headers = 20 + 20 + 12
    conn.tx.mss = 1000
    for start, end, size in ((0, MSS, MSS), (0, MSS + 1, 1000), (1, MSS, 1000)):
        conn.mtu.probe_start, conn.mtu.probe_end = start, end
        assert path_mtu._packet(conn, 0) == size + headers
    conn.mtu.probe_start, conn.mtu.probe_end = 0, MSS
    assert path_mtu._packet(conn, 100) == MSS - 100 + headers
    HOSTS.clear()


def test_the_oldest_path_is_forgotten_first() -> None:
    """What was told again is young; what is over makes room before all others."""
    table = RouteTable()
    for number in range(4095):
        table.learn(number.to_bytes(4, "big"), 1000, 99, 0)
    table.learn(bytes(4), 900, 99, 0)
    table.learn(b"new0", 1000, 99, 0)
    table.learn(b"new1", 900, 50, 0)
    assert bytes(4) in table.learned and (1).to_bytes(4, "big") not in table.learned and len(table.learned) == 4096
    table.learn(b"new2", 900, 99, 50)
    assert b"new1" not in table.learned and (2).to_bytes(4, "big") in table.learned and len(table.learned) == 4096


def test_when_the_search_for_an_mtu_is_over_and_begins_anew() -> None:
    """Steps of probe_threshold are tried still, smaller ones not; after probe_interval_s the path may be another."""
    c, ctx, conn = probing()
    ctx.tcp.probe_threshold = 8
    conn.mtu.low, conn.mtu.high = 1076, 1084
    assert mtu_probe.probe_size(ctx, conn, c.now) == 1080 - 52
    ctx.tcp.probe_threshold = 9
    conn.mtu.begun_at = c.now - ctx.tcp.probe_interval_s * SECOND + 1
    assert (mtu_probe.probe_size(ctx, conn, c.now), conn.mtu.high) == (0, 1084)
    assert (mtu_probe.probe_size(ctx, conn, c.now + 1), conn.mtu.high) == (0, 1500)
    conn.mtu.probe_end = 5
    mtu_probe.told(conn, 1200)
    assert (conn.mtu.high, conn.mtu.low, conn.mtu.probe_end) == (1200, 1076, -1)
    HOSTS.clear()


def test_a_path_that_was_learned_before_is_forgotten_before_any_data() -> None:
    """A connection that has sent nothing yet sends larger segments too."""
    c = listening()
    c.core._ctx.routes.learn(THEIRS, 900, c.now + SECOND, c.now)
    c.inject("S", seq=0)
    c.agreed_ts = c.expect("SA").options.timestamps is not None
    c.inject("A", seq=1, ack=1)
    c.sock = c.find_message(Incoming).sock
    assert info(c)["snd_mss"] == 900 - 52
    c.advance(1000)
    assert info(c)["snd_mss"] == MSS


def test_a_path_mtu_is_learned_though_the_memory_of_them_is_full() -> None:
    """One of them makes room."""
    c = far()
    learned = c.core._ctx.routes.learned
    learned.update({number.to_bytes(4, "big"): (1000, c.now + SECOND) for number in range(4096)})
    c.write(bytes(3000))
    c.icmp(3, 4, seq=1, mtu=900)
    assert len(c.core._ctx.routes.learned) == 4096 and THEIRS in c.core._ctx.routes.learned


@pytest.mark.parametrize("room", [0, 1])
def test_a_path_mtu_is_told_where_there_is_room(room: int) -> None:
    """Else ip learns it by its own means."""
    c = far()
    c.write(bytes(3000))
    ctx = c.core._ctx
    ctx.to_ip.extend([c.segment("A", seq=0, ack=0)] * (TO_IP_MOST - room))
    head = c.local_port.to_bytes(2, "big") + c.peer_port.to_bytes(2, "big") + (c.isn + 1).to_bytes(4, "big")
    c.core.receive(IcmpError(1, [], 3, 4, 900, b"\x0a\0\0\xfe", b"\x0a\0\0\2", THEIRS, 6, head), c.now)
    assert len(ctx.to_ip) == TO_IP_MOST and isinstance(ctx.to_ip[-1], PathMtu) is bool(room)
    ctx.to_ip.clear()
