"""Faults on a seam: seeded, counted, at wire size, and only on packets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from levelip.frames.core import ControlError
from levelip.frames.packet import Checksum, DeviceFrame, Packet, Routes, Segment
from levelip.ipc.faults import FaultGate, Faults, FaultSettings, Teller, split_frame
from levelip.ipc.runtime import Runtime
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import TcpHeader

SRC, DST = b"\x0a\0\0\2", b"\x0a\0\0\1"
MS = 1_000_000


def tcp_head(seq: int = 0xFFFF_FF00, flags: int = 0x18) -> bytes:
    return TcpHeader(src_port=1000, dst_port=80, seq=seq, ack=7, flags=flags, window=500).serialize()


def segment(payload: bytes, gso_size: int = 0) -> Segment:
    return Segment(5, [4], False, 9, 1, SRC, DST, 6, 64, 0, tcp_head(), payload, int(Checksum.PARTIAL), gso_size)


def packet(payload: bytes, gso_size: int = 0) -> Packet:
    head = tcp_head()
    ip = Ipv4Header(src=SRC, dst=DST, proto=6, ttl=64, total_length=20 + len(head) + len(payload)).serialize()
    return Packet(5, [4], False, 9, 1, ip + head, payload, int(Checksum.PARTIAL), gso_size, DST)


@pytest.fixture
def teller() -> Teller:
    made = Teller()
    made.interest = True
    return made


@pytest.fixture
def gate(runtime: Callable[..., Runtime], teller: Teller) -> Callable[..., FaultGate]:
    tcp = runtime("tcp")

    def make(**settings: object) -> FaultGate:
        return FaultGate(FaultSettings("ip-tcp", "up", **settings), "ip", "up", tcp, teller)  # type: ignore[arg-type]

    return make


def test_the_same_seed_loses_the_same_packets(gate: Callable[..., FaultGate]) -> None:
    """Two gates with one seed agree on every packet, another seed does not; the rate is as asked."""
    frames = [segment(i.to_bytes(2, "big")) for i in range(2000)]
    one, same, other = (gate(loss=0.1, seed=seed) for seed in (7, 7, 8))
    kept = [one.push([frame], 0) for frame in frames]
    assert kept == [same.push([frame], 0) for frame in frames]
    assert kept != [other.push([frame], 0) for frame in frames]
    assert one.counts["lost"] == sum(not got for got in kept)
    assert 140 <= one.counts["lost"] <= 260  # 200 expected, sigma 13.4


def test_loss_is_counted_in_wire_packets(gate: Callable[..., FaultGate]) -> None:
    """A super-segment meets the gate as its pieces: sequence numbers and PSH as on a cable (RFC 9293 3.4)."""
    data = bytes(range(256)) * 20
    passed = gate().push([segment(data, gso_size=1000)], 0)
    assert [len(frame.payload) for frame in passed] == [1000] * 5 + [120]
    assert b"".join(frame.payload for frame in passed) == data
    seqs = [TcpHeader.parse(frame.head).seq for frame in passed]
    assert seqs == [(0xFFFF_FF00 + 1000 * i) % 2**32 for i in range(6)]
    assert [bool(TcpHeader.parse(frame.head).flags & 8) for frame in passed] == [False] * 5 + [True]
    assert all(frame.gso_size == 0 for frame in passed)
    whole = gate(frames="whole").push([segment(data, gso_size=1000)], 0)
    assert [len(frame.payload) for frame in whole] == [len(data)]


def test_delay_jitter_and_reordering(gate: Callable[..., FaultGate]) -> None:
    """A delayed packet is due after its delay; one that is held back comes after a later one."""
    delayed = gate(delay_ns=20 * MS)
    assert delayed.push([segment(b"a")], 0) == []
    assert delayed.next_timer() == 20 * MS
    assert delayed.due(20 * MS - 1) == []
    assert [frame.payload for frame in delayed.due(20 * MS)] == [b"a"]
    mixed = gate(reorder=0.3, seed=3)
    out = [frame.payload for i in range(50) for frame in mixed.push([segment(bytes([i]))], i * MS)]
    out += [frame.payload for frame in mixed.due(10**12)]
    assert sorted(out) == [bytes([i]) for i in range(50)]
    assert out != sorted(out)
    assert mixed.counts["reordered"] > 0


def test_rate_spaces_packets_and_bounds_the_queue(gate: Callable[..., FaultGate]) -> None:
    """At 8 Mbit/s a packet of 1,000 bytes takes 1 ms; more than 1,000 that wait are dropped."""
    slow = gate(rate_bps=8_000_000)
    frames = [segment(b"x" * 980) for _ in range(3)]
    for frame in frames:
        assert slow.push([frame], 0) == []
    assert [slow.due(ms * MS) != [] for ms in (1, 2, 3)] == [True, True, True]
    slow.push([segment(b"x" * 980) for _ in range(1500)], 10 * MS)
    assert slow.counts["overflowed"] == 500


def test_duplicates_are_both_there(gate: Callable[..., FaultGate]) -> None:
    """dup=1 doubles every packet."""
    assert len(gate(dup=1.0).push([segment(b"a"), segment(b"b")], 0)) == 4


@pytest.mark.parametrize("make", [segment, packet])
def test_a_corrupted_packet_has_a_completed_checksum_that_no_longer_fits(
    gate: Callable[..., FaultGate], make: Callable[[bytes], Segment | Packet]
) -> None:
    """One bit is flipped after the checksum was completed, so that a receiver can notice; state UNVERIFIED."""
    clean = make(b"payload!")
    (bad,) = gate(corrupt=1.0).push([make(b"payload!")], 0)
    assert bad.checksum == Checksum.UNVERIFIED
    before, after = clean.head + clean.payload, bad.head + bad.payload
    flipped = sum((a ^ b).bit_count() for a, b in zip(before, after, strict=True))
    at = 36 if isinstance(clean, Packet) else 16
    filled = sum((a ^ b).bit_count() for a, b in zip(before[at : at + 2], after[at : at + 2], strict=True))
    assert flipped - filled in (0, 1)
    whole = after if isinstance(clean, Segment) else after[20:]
    ip_intact = isinstance(clean, Segment) or before[:20] == after[:20]
    if ip_intact:
        assert internet_checksum(whole, pseudo_header_sum(SRC, DST, 6, len(whole))) != 0


def test_what_is_no_packet_passes(gate: Callable[..., FaultGate]) -> None:
    """Routes are told whatever is set."""
    routes = Routes([], [])
    assert gate(loss=1.0).push([routes, segment(b"x")], 0) == [routes]


def test_what_is_lost_is_told_by_its_place_in_the_stream(gate: Callable[..., FaultGate], teller: Teller) -> None:
    """Of a super-segment each lost packet with its own number, under the frame's id; nothing while nobody listens."""
    assert gate(loss=1.0).push([segment(b"z" * 2500, gso_size=1000)], 7) == []
    lost = teller.take()
    assert [(event.at, event.kind, event.reason, event.frame) for event in lost] == [(7, "drop", "fault_loss", 5)] * 3
    assert [(event.data["seq"], event.data["length"]) for event in lost] == [
        (0xFFFF_FF00, 1000), (0xFFFF_FF00 + 1000 - 2**32, 1000), (0xFFFF_FF00 + 2000 - 2**32, 500),
    ]  # fmt: skip
    assert {event.conn for event in lost} == {"10.0.0.1:80>10.0.0.2:1000"}  # upward, the destination is ours
    assert lost[0].data | {"flags": "."} == lost[0].data  # PSH stands on the last piece alone
    assert not teller.take()
    teller.interest = False
    assert gate(loss=1.0).push([segment(b"x")], 8) == [] and not teller.take()


def test_what_else_is_told(gate: Callable[..., FaultGate], teller: Teller) -> None:
    """Repeated, damaged, kept back, delayed by how much, or too many for the rate."""
    gate(dup=1.0, corrupt=1.0).push([segment(b"x")], 0)
    gate(delay_ns=20 * MS).push([segment(b"x")], 0)
    gate(reorder=1.0).push([segment(b"x")], 0)
    assert [(event.data["what"], event.data.get("ns")) for event in teller.take()] == [
        ("dup", None), ("corrupt", None), ("delay", 20 * MS), ("reorder", 5 * MS),
    ]  # fmt: skip
    narrow = gate(rate_bps=8)
    narrow.push([segment(b"x")] * 1001, 0)
    told = teller.take()
    assert len(told) == 1001 and told[-1].reason == "fault_loss"
    assert told[-1].data["why"] == "1000 packets wait for the rate limit"


def test_at_the_device_the_frame_that_it_came_of_is_named(runtime: Callable[..., Runtime], teller: Teller) -> None:
    """What link lost on its way out nobody ever saw; what came in has the id that it would have had."""
    ethernet = b"\xaa" * 6 + b"\xbb" * 6 + b"\x08\x00"
    inner = packet(b"z")
    for way, causes, known in (("down", [4], 4), ("up", [], 9)):
        settings = FaultSettings("link", way, loss=1.0)  # type: ignore[arg-type]
        one = FaultGate(settings, "device", way, runtime(f"link-{way}"), teller)
        assert one.push([DeviceFrame(9, causes, ethernet + inner.head, inner.payload, bytes(10))], 0) == []
        (event,) = teller.take()
        assert event.frame == known and event.data["seam"] == "link" and event.data["way"] == way
    arp = ethernet[:12] + b"\x08\x06" + bytes(14) + SRC + bytes(6) + DST
    one.push([DeviceFrame(9, [], arp, b"", bytes(10))], 0)
    (event,) = teller.take()
    assert not event.conn and event.data["src"] == "10.0.0.2" and event.data["dst"] == "10.0.0.1"


def test_a_device_frame_is_split_with_complete_checksums() -> None:
    """Pieces of a super-frame from the device carry finished checksums and the flag that says so."""
    inner = packet(b"z" * 2500)
    ethernet = b"\xaa" * 6 + b"\xbb" * 6 + b"\x08\x00"
    vnet = bytes([1, 1]) + (14 + 40).to_bytes(2, "little") + (1000).to_bytes(2, "little") + b"\x22\0\x10\0"
    pieces = split_frame(DeviceFrame(1, [], ethernet + inner.head, inner.payload, vnet))
    assert [len(piece.payload) for piece in pieces] == [1000, 1000, 500]
    for piece in pieces:
        data = piece.head[34:] + piece.payload
        assert internet_checksum(data, pseudo_header_sum(SRC, DST, 6, len(data))) == 0
        assert piece.vnet[:2] == b"\x02\0"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"loss": 2.0}, "loss lies between 0 and 1"),
        ({"loss": "much"}, "Expected `float`"),
        ({"delay_ns": 3_600_000_000_001}, r"<= 3600000000000 .* `\$.delay_ns`"),
        ({"jitter_ns": -5}, r">= 0 .* `\$.jitter_ns`"),
        ({"rate_bps": -1}, r">= 0 .* `\$.rate_bps`"),
        ({"colour": 1}, "unknown field `colour`"),
        ({"seam": "tcp-gateway"}, "streams between processes lose nothing"),
    ],
)
def test_wrong_settings_are_refused(runtime: Callable[..., Runtime], settings: dict[str, object], text: str) -> None:
    """The error names the setting."""

    class _Port:
        name = "ip"
        seam = "ip-tcp"

    with pytest.raises(ControlError, match=text):
        Faults(runtime("tcp")).gate(_Port(), "up", {"seam": "ip-tcp", **settings})  # type: ignore[arg-type]
