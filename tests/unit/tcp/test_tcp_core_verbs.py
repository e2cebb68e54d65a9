"""The verbs of the core: snapshot and restore, control, settings, neighbours, events; and segments of any kind."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tcp_host import OURS, STATES, THEIRS, Host, established, listening, time_wait

from layers.tcp.core import TcpCore
from layers.tcp.ports import Binding
from levelip.frames.core import ControlError
from levelip.frames.packet import Checksum, Segment
from levelip.frames.seam import (
    Bind,
    Close,
    Connect,
    GetInfo,
    Listen,
    NeighbourDown,
    NeighbourUp,
    Result,
    SetOption,
    Taken,
)
from levelip.rpc.stream import Accepted, Consumed, Eof, Reset, Send, Urgent
from tests.netsim.net import MS, SECOND, Impairment
from tests.netsim.tcp_apps import pair, pattern

ISN = dict[str, Any]
BYTES = bytes(range(256)) * 100


def clone(c: Host) -> TcpCore:
    """The core, written down as msgpack and read back."""
    data = c.core.snapshot()
    plain = msgpack.unpackb(msgpack.packb(data), strict_map_key=False)
    return TcpCore.restore(c.config, plain)


@pytest.mark.parametrize("state", STATES)
def test_snapshot_of_each_state(isn: ISN, state: str) -> None:
    """What comes back writes down the same again, and answers the same segment with the same."""
    c = STATES[state](**isn)
    twin = clone(c)
    assert twin.snapshot() == c.core.snapshot()
    segment = c.segment("PA", seq=1, ack=1, data=b"x" * 100)
    for core in (c.core, twin):
        core.receive(segment, c.now)
        core.handle_timer(c.now + 500 * MS)
    assert twin.outgoing({}) == c.core.outgoing({})
    assert twin.next_timer() == c.core.next_timer()
    assert twin.snapshot() == c.core.snapshot()


def test_snapshot_with_everything_in_the_air(isn: ISN) -> None:
    """Unsent messages and segments, ranges, lost segments, TIME-WAIT, bound ports, events: all of it."""
    c = time_wait(**isn)
    c.core.interest = True
    c.call(Bind(9, 70, b"", 0))
    c.inject("S", seq=100, src_port=9, flush=False)
    c.connect(sock=61)
    c.core.receive(Connect(62, "other", THEIRS, 99), c.now)
    twin = clone(c)
    assert twin.snapshot() == c.core.snapshot()
    assert twin.events() == c.core.events()
    for core in (c.core, twin):
        core.handle_timer(c.now + 5 * SECOND)
    assert twin.outgoing({"ip": 1}) == c.core.outgoing({"ip": 1})
    assert twin.outgoing({}) == c.core.outgoing({})
    assert twin.snapshot() == c.core.snapshot()


class Swapping(TcpCore):
    """A core that becomes its own restored snapshot after every so many frames."""

    every = 7
    seen = 0

    def receive(self, frame: Any, now: int) -> None:
        super().receive(frame, now)
        self.seen += 1
        if self.seen % self.every == 0:
            data = msgpack.unpackb(msgpack.packb(self.snapshot()), strict_map_key=False)
            other = TcpCore.restore(self._ctx.config, data)
            self._attach(other._ctx)


def transcript(core_type: Any, seed: int) -> tuple[list[Any], bytes]:
    """A transfer over a bad link, and all that was told and carried."""
    how = Impairment(loss=0.05, duplicate=0.03, reorder=0.05, jitter=MS)
    net, a, b, to_b, _ = pair(how, seed=seed, core_type=core_type)
    to_b.log = []
    b.listen(80)
    b.reply = pattern(seed, 40_000)
    sock = a.connect(b.address, 80, pattern(seed + 1, 40_000), eof=True)
    assert net.run(lambda: sock.eof and bool(b.accepted) and b.accepted[0].eof, seconds=300)
    return [(s.id, s.head, s.causes) for s in to_b.log], bytes(sock.received)


def test_restored_in_mid_run_the_future_is_the_same() -> None:
    """A transfer over a lossy link, the core replaced by its restored snapshot every 7 frames: the same segments."""
    assert transcript(TcpCore, 5) == transcript(Swapping, 5)


def test_control_ss_and_conn() -> None:
    """Rows by Linux's names; a whole TCB; json can write both."""
    c = established()
    c.write(b"x" * 100)
    c.inject("PA", seq=1, ack=51, data=b"hello")
    rows = c.core.control(1, "ss", {}, c.now)["sockets"]
    json.dumps(rows)
    listener, conn = rows
    assert (listener["state"], listener["local_port"], listener["send_q"]) == ("LISTEN", 80, 16)
    assert (conn["state"], conn["recv_q"], conn["send_q"], conn["remote"]) == ("ESTABLISHED", 5, 50, "10.0.0.1")
    assert conn["info"]["snd_cwnd"] == 10 and conn["info"]["bytes_acked"] == 50 and "retransmit" in conn["timers"]
    whole = c.core.control(1, "conn", {"conn": conn["local"] + ":80>10.0.0.1:4711"}, c.now)
    assert c.core.control(1, "figures", {"conn": whole["name"]}, c.now) == whole["ss"]
    for name in ("", "10.0.0.2:80", "10.0.0.2:x>10.0.0.1:1", "10.0.0.2:99999>10.0.0.1:1", "10.0.0.2:81>10.0.0.1:1"):
        with pytest.raises(ControlError, match="figures: "):
            c.core.control(1, "figures", {"conn": name}, c.now)
    json.dumps(whole)
    assert whole["tcb"]["state"] == "ESTABLISHED" and whole["tcb"]["tx"]["snd_una"] == 50
    for name, args in (("nonsense", {}), ("conn", {}), ("conn", {"sock": 1})):
        with pytest.raises(ControlError):
            c.core.control(1, name, args, c.now)


def test_control_totals_counts_what_ss_lists() -> None:
    """By state, listeners and TIME-WAIT records included; and what waits."""
    c = established()
    totals = c.core.control(1, "totals", {}, c.now)
    assert {state: count for state, count in totals["states"].items() if count} == {"LISTEN": 1, "ESTABLISHED": 1}
    assert len(totals["states"]) == 11
    assert (totals["half_open"], totals["untaken"], totals["orphans"]) == (0, 0, 0)
    assert set(totals["waiting"]) == {"ip", "gateway"}
    c = time_wait()
    counts = c.core.control(1, "totals", {}, c.now)["states"]
    rows = c.core.control(1, "ss", {}, c.now)["sockets"]
    assert (counts["TIME_WAIT"], sum(counts.values())) == (1, len(rows))


def test_time_wait_is_listed() -> None:
    """With what is left of its 2 MSL."""
    c = time_wait()
    row = c.row()
    assert row is not None and row["timers"]["time_wait"] == 60_000 * MS


def test_get_info() -> None:
    """For a connection, a listener, and an id that is unknown."""
    c = established()
    c.call(GetInfo(1, c.sock))
    c.call(GetInfo(2, 50))
    c.call(GetInfo(3, 999))
    assert c.message(Result).data["snd_mss"] == 1448
    assert c.message(Result).data["state"] == 10
    assert c.message(Result).data["state"] == 7


def test_set() -> None:
    """Run-time tunables act at once; those that decide where memory lies do not change."""
    c = established()
    c.core.set("rto_min_ms", 500, c.now)
    c.write(b"x")
    c.inject("A", seq=1, ack=2)
    assert c.tcb()["rto"]["rto"] >= 500 * MS
    for key in ("send_ring", "connections", "nonsense"):
        with pytest.raises(ControlError):
            c.core.set(key, 1, c.now)


def test_sndbuf_bounds_the_credit() -> None:
    """SO_SNDBUF: credit already given is not taken back."""
    c = established()
    c.call(SetOption(c.sock, "sndbuf", 8192))
    c.write(b"x" * 5000)
    c.quiet()
    c.inject("A", seq=1, ack=5001)
    c.no_message()
    c.write(b"x" * 60_000)
    for ack in range(0, 65_001, 1448):
        c.inject("A", seq=1, ack=min(1 + ack, c.tcb()["tx"]["snd_nxt"] + 1))
    c.inject("A", seq=1, ack=c.tcb()["tx"]["snd_nxt"] + 1)
    c.inject("A", seq=1, ack=65_001)
    told = [message for message in c.messages if isinstance(message, Accepted)]
    assert told[-1].limit == 65_000 + 8192


def test_another_gateway_owns_nothing(isn: ISN) -> None:
    """NeighbourUp with a new epoch: connections are reset, listeners and ports are gone, nothing is told to it."""
    c = established(**isn)
    c.call(Bind(1, 70, b"", 7000))
    c.quiet()
    c.core.receive(NeighbourDown("gateway"), c.now)
    c.flush()
    c.expect_nothing()
    c.core.receive(NeighbourUp("gateway", 9), c.now)
    c.flush()
    c.expect_nothing()
    c.core.receive(NeighbourUp("gateway", 10), c.now)
    c.flush()
    c.expect("RA", seq=1)
    c.no_message()
    snapshot = c.core.snapshot()
    assert snapshot["connections"] == [] and snapshot["listeners"] == [] and snapshot["ports"]["bindings"] == {}


def test_other_neighbours_change_nothing() -> None:
    """ip may restart under us."""
    c = established()
    c.core.receive(NeighbourUp("ip", 1), c.now)
    c.core.receive(NeighbourDown("ip"), c.now)
    c.flush()
    c.expect_nothing()
    assert c.state == "ESTABLISHED"


def test_socket_ids_never_recur() -> None:
    """Bit 62, 30 bits of epoch, 32 bits of counter."""
    c = established()
    assert c.sock == 1 << 62 | 3 << 32 | 1


def test_events_tell_the_story() -> None:
    """Each with the frame that led to it and the connection's name."""
    c = listening()
    c.core.interest = True
    c.inject("S", seq=0)
    c.expect("SA")
    c.agreed_ts = True
    c.inject("A", seq=1, ack=1)
    states = [(e.data["old"], e.data["new"], e.frame, e.conn) for e in c.core.events() if e.kind == "state"]
    name = "10.0.0.2:80>10.0.0.1:4711"
    assert states == [("CLOSED", "SYN_RECEIVED", 1, name), ("SYN_RECEIVED", "ESTABLISHED", 2, name)]


def test_idle_connections_cost_nothing_at_a_flush() -> None:
    """outgoing() looks at those with something to send, not at all."""
    c = established()
    assert c.core.outgoing({}) == []
    snapshot = c.core.snapshot()
    assert snapshot["work"] == [] and snapshot["dirty"] == []


def test_restore_keeps_bindings_one_object() -> None:
    """A listener's flag is seen by conflicts after a restore too."""
    c = listening()
    twin = clone(c)
    twin.receive(Close(50), c.now)
    twin.outgoing({})
    assert not twin._ctx.ports.conflicts(1, Binding(bytes(4), 80))


# segments of any kind

FLAG_SETS = st.sampled_from(["", "S", "SA", "A", "FA", "PA", "R", "RA", "FPA", "F", "SF", "SR", "UPA", "FSRPAU"])
NEAR = st.one_of(st.integers(-5, 80_000), st.integers(0, 2**32 - 1))
STEP = st.one_of(
    st.tuples(
        st.just("segment"), FLAG_SETS, NEAR, NEAR, st.integers(0, 3000), st.integers(0, 65_535), st.booleans(),
        st.binary(max_size=12),
    ),
    st.tuples(st.just("advance"), st.integers(0, 70_000)),
    st.tuples(st.just("send"), st.integers(0, 70_000), st.integers(0, 70_000)),
    st.tuples(st.just("consume"), st.integers(0, 70_000)),
    st.tuples(st.just("urgent"), st.integers(0, 70_000)),
    st.tuples(st.sampled_from(["eof", "close", "abort", "taken"]),),
    st.tuples(st.just("icmp"), st.integers(0, 12), st.integers(0, 15), st.integers(-5, 5000),
              st.sampled_from([0, 67, 68, 296, 600, 1400, 1499, 65_535])),
    st.tuples(st.just("option"),
              st.sampled_from(["nodelay", "rcvbuf", "sndbuf", "maxseg", "keepalive", "user_timeout_ms"]),
              st.integers(-10, 100_000)),
)  # fmt: skip


def act(c: Host, step: tuple[Any, ...]) -> None:
    """One step of a fuzzed run."""
    match step:
        case ("segment", flags, seq, ack, size, window, plain, options):
            if plain:
                c.inject(flags, seq=seq, ack=ack, data=bytes(size), win=window)
            else:
                padded = options + bytes(-len(options) % 4)
                word = (20 + len(padded)) << 10 | random.Random(ack).randrange(512)
                head = struct.pack(
                    ">HHIIHHHH", c.peer_port, c.local_port, (c.irs + seq) % 2**32, (c.isn + ack) % 2**32, word, window,
                    0, size & 0xFFFF,
                )  # fmt: skip
                segment = Segment(1, [], False, c.now, 0, THEIRS, OURS, 6, 64, 0, head + padded, bytes(size),
                                  int(Checksum.VERIFIED), 0)  # fmt: skip
                c.core.receive(segment, c.now)
                c.flush()
        case ("advance", ms):
            c.advance(ms)
        case ("send", offset, length):
            c.call(Send(c.sock, offset, length))
        case ("consume", upto):
            c.call(Consumed(c.sock, upto))
        case ("urgent", upto):
            c.call(Urgent(c.sock, upto))
        case ("eof",):
            c.call(Eof(c.sock, c.sent))
        case ("close",):
            c.close()
        case ("abort",):
            c.call(Reset(c.sock, 0))
        case ("taken",):
            c.call(Taken(50, c.sock))
        case ("icmp", kind, code, seq, mtu):
            c.icmp(kind, code, seq=seq, mtu=mtu)
        case ("option", name, value):
            c.call(SetOption(c.sock, name, value))


@settings(max_examples=150, deadline=None)
@given(state=st.sampled_from(sorted(STATES)), steps=st.lists(STEP, max_size=25), wrap=st.booleans())
def test_any_sequence_of_events(state: str, steps: list[tuple[Any, ...]], wrap: bool) -> None:
    """Nothing raises, memory stays bounded, the ring is never written beyond what was granted, snapshots come back."""
    c = STATES[state](isn=2**32 - 3, irs=2**32 - 2) if wrap else STATES[state]()
    c.core.interest = True
    for step in steps:
        act(c, step)
        c.core.events()
        for conn in c.core.snapshot()["connections"]:
            rx, tx = conn["rx"], conn["tx"]
            assert len(rx["ranges"]) <= 512
            assert rx["rcv_acc"] <= rx["consumed"] + rx["ring"]
            assert rx["consumed"] <= max(rx["rcv_nxt"], 0)
            assert tx["snd_una"] <= tx["snd_nxt"]
            assert tx["snd_end"] <= max(tx["snd_una"], 0) + 65_536
            assert sum(row["end"] - row["start"] for row in tx["queue"]) == tx["snd_nxt"] - tx["snd_una"]
            lost = sum(row["end"] - row["start"] for row in tx["queue"] if row["lost"])
            assert lost == tx["lost_bytes"]
            assert conn["congestion"]["cwnd"] >= 1
    assert clone(c).snapshot() == c.core.snapshot()


@settings(max_examples=200, deadline=None)
@given(
    data=st.binary(max_size=80),
    split=st.integers(0, 80),
    checksum=st.integers(0, 3),
    state=st.sampled_from(["CLOSED", "ESTABLISHED"]),
)
def test_any_bytes(data: bytes, split: int, checksum: int, state: str) -> None:
    """Garbage in any split is dropped or answered, never raised."""
    c = STATES[state]()
    segment = Segment(1, [], False, c.now, 0, THEIRS, OURS, 6, 64, 0, data[:split], data[split:], checksum, 0)
    c.core.receive(segment, c.now)
    c.flush()


def test_listen_again() -> None:
    """Changes the backlog, and nothing else."""
    c = listening()
    c.call(Listen(3, 50, "", 2))
    assert c.message(Result).data["port"] == 80
    assert c.core.control(1, "ss", {}, c.now)["sockets"][0]["send_q"] == 2
