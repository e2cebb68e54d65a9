"""The wire: two ports over AF_UNIX datagrams, without privileges."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from link_bench import HOST, STACK, Bench, wait_for
from link_tcp import SESSION

from layers.link.offload import prepare
from layers.link.tuntap import DeviceError
from layers.link.wire import WirePort
from levelip.frames.packet import DeviceFrame
from levelip.rpc.place import Place
from levelip.wire.ipv4 import Ipv4Header, Proto, header_checksum_ok
from levelip.wire.segment import complete_tcp_checksum
from levelip.wire.tcp import ACK, pack_tcp

ETH = b"\x02bbbbb\x02aaaaa\x08\x00"

Open = Callable[..., WirePort]


@pytest.fixture
def wire(bench: Bench) -> Open:
    """Opens wires in the test's directory, by name."""

    def make(name: str, peer: str = "", **options: Any) -> WirePort:
        port = WirePort(
            bench.stack / name,
            peer=str(bench.stack / peer) if peer else "",
            ethernet=options.pop("ethernet", True),
            mtu=1500,
            offload=options.pop("offload", True),
            memory=bench.memory,
            epoch=1,
            queue=options.pop("queue", 100),
            count=bench.count,
            log=logging.getLogger("link"),
            gate=lambda: bench.full,
        )
        bench.ports.append(port)
        return port

    return make


def frame(data: bytes) -> DeviceFrame:
    return DeviceFrame(1, [], data, b"")


def heads(frames: list[Any]) -> list[bytes]:
    return [one.head for one in frames]


def test_peer_is_learned_from_who_sent_last(wire: Open, bench: Bench) -> None:
    """Without a configured peer the wire answers whoever sent last; before that there is none."""
    a, b, c = wire("a"), wire("b", "a"), wire("c", "a")
    a.send([frame(b"to nobody")], 0)
    assert bench.counters == {"drop.wire_peer": 1}
    b.send([frame(b"from b")], 0)
    assert heads(a.receive(64, 0)) == [b"from b"]
    a.send([frame(b"to b")], 0)
    assert heads(b.receive(64, 0)) == [b"to b"]
    c.send([frame(b"from c")], 0)
    assert heads(a.receive(64, 0)) == [b"from c"]
    a.send([frame(b"to c")], 0)
    assert heads(c.receive(64, 0)) == [b"to c"]
    assert b.receive(64, 0) == []


def test_configured_peer_is_kept(wire: Open) -> None:
    """With a configured peer, who sends does not matter."""
    a, b, c = wire("a", "b"), wire("b", "a"), wire("c", "a")
    c.send([frame(b"from c")], 0)
    assert heads(a.receive(64, 0)) == [b"from c"]
    a.send([frame(b"to b")], 0)
    assert heads(b.receive(64, 0)) == [b"to b"]


def test_waits_while_the_peer_is_full(wire: Open) -> None:
    """A datagram queue holds some ten frames: the rest waits, room is 0, and poll tells when the peer has read."""
    a, b = wire("a", "b"), wire("b", "a")
    sent = [b"%d" % number for number in range(50)]
    a.send([frame(data) for data in sent], 0)
    assert a.room() == 0
    assert select.select([], a.writable(), [], 0)[1] == []  # it would be a busy loop otherwise
    got: list[bytes] = []
    for _ in range(50):
        got += heads(b.receive(64, 0))
        if len(got) == 50:
            break
        assert select.select([], a.writable(), [], 5)[1]
        a.receive(64, 0)
    assert got == sent
    assert a.room() > 0 and a.writable() == []


def test_queue_is_bounded(wire: Open, bench: Bench) -> None:
    """What finds the queue full is dropped and counted."""
    a = wire("a", "b", queue=5)
    wire("b")
    a.send([frame(b"x")] * 50, 0)
    assert 30 <= bench.counters["drop.device_queue"] <= 45


def test_peer_that_is_gone_is_counted(wire: Open, bench: Bench) -> None:
    """A peer that never was, or has ended, costs the frames and nothing else; it may come back."""
    a = wire("a", "b")
    a.send([frame(b"1")], 0)
    b = wire("b")
    a.send([frame(b"2")], 0)
    assert heads(b.receive(64, 0)) == [b"2"]
    b.close()
    a.send([frame(b"3")], 0)
    assert bench.counters == {"drop.wire_peer": 2}
    again = wire("b")
    a.send([frame(b"4")], 0)
    assert heads(again.receive(64, 0)) == [b"4"]


def test_full_peer_that_is_replaced(wire: Open, bench: Bench) -> None:
    """What waits for a peer goes to the process that takes its place."""
    a, b = wire("a", "b"), wire("b")
    a.send([frame(b"%d" % number) for number in range(30)], 0)
    waiting = 30 - len(heads(b.receive(64, 0)))
    b.close()
    again = wire("b")
    got: list[bytes] = []
    while len(got) < waiting:
        assert select.select([], a.writable(), [], 5)[1]
        a.receive(64, 0)
        got += heads(again.receive(64, 0))
    assert got == [b"%d" % number for number in range(30 - waiting, 30)]
    assert not bench.counters


def test_stale_file_is_replaced_and_a_live_one_is_not(wire: Open, bench: Bench) -> None:
    """The socket's file of a killed process is no obstacle; that of a live one is named."""
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    dead.bind(str(bench.stack / "a"))
    dead.close()
    wire("a")
    with pytest.raises(DeviceError, match="another process uses it"):
        wire("a")
    (bench.stack / "file").write_text("precious")
    with pytest.raises(DeviceError, match="another process uses it"):
        wire("file")
    assert (bench.stack / "file").read_text() == "precious"


def test_path_that_is_too_long(wire: Open) -> None:
    """A path beyond what a socket can have is refused in words."""
    with pytest.raises(DeviceError, match="107 are allowed"):
        wire("x" * 110)


def test_frames_leave_complete(wire: Open, bench: Bench) -> None:
    """There is no virtio header on a wire: a super-segment from shared memory leaves as packets with checksums."""
    a, b = wire("a", "b"), wire("b")
    data = os.urandom(4000)
    bench.session(SESSION, data)
    tcp = pack_tcp(1, 2, seq=7, ack=8, flags=ACK, window=9)
    ip = Ipv4Header.build(STACK, HOST, proto=Proto.TCP, payload_length=len(tcp) + len(data))
    head, payload, vnet = prepare(
        ip.serialize(fill_checksum=True) + tcp, Place(SESSION, 0, len(data), 0, len(data)), 1460, len(ETH)
    )
    a.send([DeviceFrame(1, [], ETH + head, payload, vnet)], 0)
    pieces = [one[14:] for one in heads(b.receive(64, 0))]
    assert [len(piece) for piece in pieces] == [1500, 1500, 1120]
    assert all(header_checksum_ok(piece) for piece in pieces)
    assert all(complete_tcp_checksum(piece[:40], piece[40:]) == piece[:40] for piece in pieces)
    assert b"".join(piece[40:] for piece in pieces) == data


def test_lost_memory_and_impossible_offload(wire: Open, bench: Bench) -> None:
    """A payload whose memory is gone, and a virtio header that does not fit its frame, are counted."""
    a = wire("a", "b")
    a.send([DeviceFrame(1, [], ETH, Place(SESSION, 0, 9000, 0, 5000))], 0)
    head, payload, vnet = prepare(
        Ipv4Header.build(STACK, HOST, proto=Proto.TCP, payload_length=20).serialize()
        + pack_tcp(1, 2, seq=7, ack=8, flags=ACK, window=9),
        b"",
        0,
        14,
    )
    a.send([DeviceFrame(1, [], (ETH + head)[:40], payload, vnet)], 0)
    assert bench.counters == {"drop.memory_lost": 1, "drop.bad_offload": 1}


def test_truncated_datagram_is_counted(wire: Open, bench: Bench) -> None:
    """A datagram longer than any frame is dropped."""
    a = wire("a")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as tool:
        tool.sendto(bytes(80_000), str(bench.stack / "a"))
        tool.sendto(b"fine", str(bench.stack / "a"))
    assert heads(a.receive(64, 0)) == [b"fine"]
    assert bench.counters == {"drop.wire_truncated": 1}


def test_gate_leaves_frames_in_the_queue(wire: Open, bench: Bench) -> None:
    """While ip takes nothing, the wire is neither polled nor read."""
    a, b = wire("a"), wire("b", "a")
    bench.full = True
    b.send([frame(b"1")], 0)
    assert a.readable() == [] and a.receive(64, 0) == []
    bench.full = False
    assert heads(wait_for(a, lambda _: True)) == [b"1"]


def test_close_removes_the_file(wire: Open, bench: Bench) -> None:
    """Nothing is left behind."""
    wire("a").close()
    assert not Path(bench.stack / "a").exists()


@pytest.mark.parametrize(("offload", "gso_max"), [(True, 65535), (False, 0)])
def test_state(wire: Open, offload: bool, gso_max: int) -> None:
    """A wire is always up; offload means super-segments, cut in software."""
    state = wire("a", offload=offload, ethernet=False).state
    assert (state.kind, state.up, state.ethernet, state.checksum_offload, state.gso_max) == (
        "wire", True, False, False, gso_max,
    )  # fmt: skip
