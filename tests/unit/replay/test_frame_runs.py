"""Frames that come or go together, in one entry: for readers the same as one by one, and frames unharmed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay_bench import recorded, stop
from test_call_encoder import IP, PLACE, TCP, UDP, segment
from test_recorder import Toy

from levelip.frames.packet import DeviceFrame, Packet, Segment
from levelip.frames.seam import Store
from levelip.rpc.codec import Codec
from levelip.rpc.place import Place
from levelip.rpc.stream import Consumed, Send
from levelip.tracing.callencoder import RECEIVED, Outlet, flushed, received_few, received_run, run_with_wrong
from levelip.tracing.framerun import SHORTEST
from levelip.tracing.recordedcalls import (
    WRONG,
    DamagedFrame,
    Flushed,
    Received,
    decode_entries,
    decode_frame,
    encode_frame,
)
from levelip.tracing.recording import Recording
from simulation.replay.compare import compared
from simulation.replay.player import Player

ETHERNET = bytes(12) + b"\x08\x00"
SIZES = (1448, 1448, 1448, 1448)


def data(size: int, seed: int = 0) -> bytes:
    return random.Random(f"{size}/{seed}").randbytes(size)


def segments(sizes: Any = SIZES, **more: Any) -> list[Any]:
    return [segment(data(size, number), **more) for number, size in enumerate(sizes)]


def packets(sizes: Any = SIZES, *, headers: bytes = IP + TCP, whole: bool = True) -> list[Any]:
    return [
        Packet(1 << 60 | number, [7], False, 10**12, 1, headers + data(size, number) if whole else headers,
               b"" if whole else data(size, number), 3, 0)
        for number, size in enumerate(sizes)
    ]  # fmt: skip


def device_frames(sizes: Any = SIZES, *, link: bytes = ETHERNET, headers: bytes = IP + TCP) -> list[Any]:
    return [DeviceFrame(1 << 60 | number, [], link + headers + data(size, number), b"", bytes(10))
            for number, size in enumerate(sizes)]  # fmt: skip


RUNS = {
    "segments": segments(),
    "segments of one field": [segment(b"", head=TCP + data(1448, number)) for number in range(20)],
    "verified segments": segments(checksum=2),
    "segments to be completed": segments(checksum=1),
    "segments that may be fragmented": segments(checksum=1, dont_fragment=False),
    "UDP": segments(proto=17),
    "ACKs": segments((0,) * 20),
    "one shorter": segments((1448, 1448, 1448, 900)),
    "as long in all by chance": segments((1447, 1449, 1448, 1448)),
    "one with a place": [*segments(), segment(PLACE)],
    "places": [segment(Place("r", 0, 9000, 5, 9000)) for _ in range(4)],
    "short, and one that is long": segments((10, 10, 10, 1448)),
    "of both protocols": [*segments(), *segments(proto=17)],
    "packets": packets(),
    "packets of two fields": packets(whole=False),
    "datagrams": packets(headers=UDP + TCP),
    "one datagram among them": [*packets(), *packets((1448,), headers=UDP + TCP)],
    "a fragment among them": [*packets(), *packets((1448,), headers=IP[:7] + b"\x09" + IP[8:] + TCP)],
    "other versions": packets(headers=b"\x65" + IP[1:] + TCP),
    "device frames": device_frames(),
    "of a tun device": device_frames(link=b""),
    "of another type": device_frames(link=bytes(12) + b"\x86\xdd"),
    "seventy": device_frames((1400,) * 70),
    "stores": [Store(Place("r", 0, 1 << 20, 10**5 + 1448 * number, 1448), data(1448, number)) for number in range(8)],
    "sends": [Send(5, 10**5 + 1448 * number, 1448, data(1448, number)) for number in range(8)],
    "no payloads": [Consumed(5, number) for number in range(5)],
    "a causes list that is longer": [*packets(), Packet(1, [1, 2, 3], False, 10**12, 1, IP, b"", 3, 0)],
}


def one_by_one(frames: list[Any]) -> list[Received]:
    return decode_entries(_array(RECEIVED[type(frame)](frame, 7) for frame in frames))  # type: ignore[return-value]


def _array(entries: Any) -> bytes:
    entries = list(entries)
    return b"\xdd" + len(entries).to_bytes(4, "big") + b"".join(entries)


@pytest.mark.parametrize("name", RUNS)
def test_in_one_entry_as_one_by_one(name: str) -> None:
    """What a reader gets is what it would get of each alone; the frames are as they were."""
    frames = RUNS[name]
    before = msgspec.msgpack.encode(frames)
    entry = received_run(frames, 7)
    out = decode_entries(_array([flushed({"p": 3}, [("p", frame) for frame in frames])]))[0]
    assert msgspec.msgpack.encode(frames) == before
    assert isinstance(out, Flushed) and out.room == {"p": 3}
    for (port, code, raw, cuts), frame in zip(out.out, frames, strict=True):
        assert port == "p"
        assert (code, bytes(raw), cuts) == encode_frame(frame)
        assert compared(code, bytes(raw), cuts, frame, whole=False) is not None
    if entry is None:
        return
    assert decode_entries(_array([entry])) == one_by_one(frames)


BULK = ("segments", "segments of one field", "packets", "packets of two fields", "device frames", "of a tun device",
        "seventy", "stores", "sends", "verified segments", "segments to be completed")  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_bulk_is_cut_without_a_look_at_each(name: str) -> None:
    """What bulk transfers are made of is one piece of bytes, of some hundred each; it would be slow otherwise."""
    entry = received_run(RUNS[name], 7)
    if name in BULK:
        assert entry is not None
        _, _, (_, _, frames, *_), wrong = msgspec.msgpack.decode(entry)
        assert isinstance(frames, bytes) and wrong == []
        assert len(entry) < 400 * len(RUNS[name])
    else:
        assert entry is None or not isinstance(msgspec.msgpack.decode(entry)[2][2], bytes)


def test_a_run_that_only_looks_alike() -> None:
    """The first frame says where the others' fields would be; bytes of a payload that imitate a frame do not pass."""
    frames = packets((1448,) * 4)
    raw = msgspec.msgpack.encode(frames[0])
    frames[1].payload, frames[1].head = raw, frames[1].head[: -len(raw) - 3 + 1]
    entry = received_run(frames, 7)
    assert entry is None or [decode_frame(call.code, call.frame, []) for call in decode_entries(_array([entry]))]  # type: ignore[union-attr]


def test_mixed_runs_keep_their_order() -> None:
    """Of several ports and types, in turn."""
    stores = RUNS["stores"]
    output: list[tuple[str, Any]] = [*(("memory", store) for store in stores), ("gateway", Consumed(5, 1)),
              *(("ip", ack) for ack in RUNS["ACKs"]), ("memory", stores[0]), ("ip", RUNS["UDP"][0])]  # fmt: skip
    (call,) = decode_entries(_array([flushed({}, output)]))
    assert isinstance(call, Flushed)
    for (port, code, raw, cuts), (given, frame) in zip(call.out, output, strict=True):
        assert port == given
        assert (code, bytes(raw), cuts) == encode_frame(frame)
    (whole,) = decode_entries(_array([flushed({}, output, whole=True)]))
    assert isinstance(whole, Flushed)
    assert [decode_frame(code, raw, cuts) for _, code, raw, cuts in whole.out] == [frame for _, frame in output]


def test_runs_are_parted_where_lengths_change(tmp_path: Path) -> None:
    """The last segment of each write is shorter: what lies between is bulk all the same, in order, in and out."""
    frames = [*packets((1448,) * 20), *packets((300,)), *packets((1448,) * SHORTEST), *packets((900,) * 9)]
    out = msgspec.msgpack.decode(flushed({}, [("p", frame) for frame in frames]))[2]
    assert [isinstance(run[2], bytes) for run in out] == [True, False, True, True]
    path = tmp_path / "x.rec"
    made = recorded(Toy(), {})
    made.control(0, "record.start", {"file": str(path)}, 0)
    made.receive_all(frames, 5)
    found = stop(made, path)
    block = msgspec.msgpack.decode(found._body(found.blocks[0]))
    assert [entry[0] for entry in block] == [8, 1, 8, 8]
    for (_, entry), frame in zip(found.entries(0), frames, strict=True):
        assert isinstance(entry, Received)
        back = decode_frame(entry.code, entry.frame, entry.cuts)
        assert (back.id, len(back.head), back.head[:40]) == (frame.id, len(frame.head), frame.head[:40])


def test_what_goes_out_by_pipes_is_encoded_once() -> None:
    """The pipe is given what was encoded for the recording, in its batches: the bytes that it would make, whole even if
    the recording cuts a frame in place; nothing if a payload lies elsewhere, or part of a port's frames are known."""
    outlet = Outlet(frozenset({"ip"}), 16)
    short = packets((300,))
    frames = [*packets((1448,) * 20), *short, *packets((1448,) * 20), *short]
    mine: Codec[Any] = Codec(Packet)

    def messages() -> list[list[bytes]]:
        return [mine.encode(frames[at : at + 16], 5, 6) for at in range(0, len(frames), 16)]

    before = messages()
    for _ in range(2):  # buffers are used again
        outlet.clear()
        entry = flushed({}, [("ip", frame) for frame in frames], outlet=outlet)
        taken = outlet.take("ip", len(frames))
        assert taken is not None and outlet.take("ip", len(frames)) is None
        assert [count for count, _ in taken] == [16, 16, 10]
        assert [mine.wrap(items, 5, 6) for _, items in taken] == before == messages()
        (call,) = decode_entries(_array([entry]))
        assert isinstance(call, Flushed) and len(call.out) == len(frames)
    for rows, count in (
        ([("ip", frame) for frame in segments((1448,) * 9)[:8]] + [("ip", segment(PLACE))], 9),
        ([("ip", frame) for frame in packets((1448,) * 9)] + [("ip", RUNS["ACKs"][0])], 10),
        ([("other", frame) for frame in frames], len(frames)),
        ([("ip", frame) for frame in packets((2100,) * 8, whole=False)], 8),
        ([("ip", frame) for frame in packets((1448,) * 16 * 17)], 16 * 17),
    ):
        outlet.clear()
        flushed({}, rows, outlet=outlet)
        assert outlet.take("ip", count) is None


LONG_PLACE = Place("pool-1", 0, 69_632, 66, 60_000, 7)
FEW = {
    "ACKs": segments((0,) * 3),
    "one": [segment(LONG_PLACE)],
    "places": [segment(LONG_PLACE) for _ in range(SHORTEST - 1)],
    "packets": [Packet(1, [2], False, 3, 1, IP + TCP, payload, 2, 1448) for payload in (LONG_PLACE, b"", b"x" * 100)],
}


@pytest.mark.parametrize("name", FEW)
def test_a_few_are_encoded_once_as_well(name: str) -> None:
    """Where none of them is cut: what the pipe is given is what it would make, and a reader sees each."""
    frames, outlet = FEW[name], Outlet(frozenset({"ip"}), 16, frozenset({"ip"}))
    mine: Codec[Any] = Codec(Packet | Segment)
    for _ in range(2):
        outlet.clear()
        entry = flushed({"ip": 9}, [("ip", frame) for frame in frames], outlet=outlet)
        ((count, items),) = outlet.take("ip", len(frames)) or []
        assert count == len(frames)
        assert [mine.wrap(items, 5, 6)] == [mine.encode(frames, 5, 6)]
        (call,) = decode_entries(_array([entry]))
        assert isinstance(call, Flushed) and call.room == {"ip": 9}
        assert [(port, decode_frame(code, raw, cuts)) for port, code, raw, cuts in call.out] == [
            ("ip", frame) for frame in frames
        ]


@pytest.mark.parametrize(
    ("frames", "outlet"),
    [
        (FEW["one"], Outlet(frozenset({"ip"}), 16)),
        (FEW["places"], Outlet(frozenset({"ip"}), 2, frozenset({"ip"}))),
        ([segment(Place("r", 0, 9000, 5, 500))], Outlet(frozenset({"ip"}), 16, frozenset({"ip"}))),
        (segments((1448, 0)), Outlet(frozenset({"ip"}), 16, frozenset({"ip"}))),
        ([segment(b"", head=TCP + data(1448, 1))], Outlet(frozenset({"ip"}), 16, frozenset({"ip"}))),
        ([*FEW["ACKs"][:1], *FEW["packets"][:1]], Outlet(frozenset({"ip"}), 16, frozenset({"ip"}))),
        ([Consumed(5, 1)], Outlet(frozenset({"ip"}), 16, frozenset({"ip"}))),
        (FEW["ACKs"], Outlet(frozenset({"tcp"}), 16, frozenset({"tcp"}))),
    ],
    ids=["memory that is not shared", "more than a message", "a short place", "one is cut", "its head is cut",
         "two kinds", "no packet", "no pipe"],
)  # fmt: skip
def test_a_few_that_the_pipe_has_to_encode(frames: list[Any], outlet: Outlet) -> None:
    """Nothing is known of what has to be read, copied or cut for one of the two; it is recorded all the same."""
    entry = flushed({}, [("ip", frame) for frame in frames], outlet=outlet)
    assert outlet.take("ip", len(frames)) is None
    (call,) = decode_entries(_array([entry]))
    assert isinstance(call, Flushed) and len(call.out) == len(frames)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("count", [1, 3])
def test_a_few_as_they_came(name: str, count: int) -> None:
    """As each alone, or not at all: of one type, and nothing cut."""
    frames = RUNS[name][-count:]
    entry = received_few(frames, 7, msgspec.Raw(msgspec.msgpack.encode(frames)))
    alone = one_by_one(frames)
    if entry is None:
        assert len({type(frame) for frame in frames}) > 1 or any(call.cuts or len(call.frame) > 150 for call in alone)
        return
    calls = decode_entries(_array([entry]))
    assert calls == alone
    assert not any(call.cuts for call in alone)


def test_a_few_whose_beginnings_are_looked_at() -> None:
    """Of the type that this process looks at none with a place."""
    raw = msgspec.Raw(msgspec.msgpack.encode(FEW["one"]))
    assert received_few(FEW["one"], 7, raw, seen=Segment) is None
    assert received_few(FEW["one"], 7, raw, seen=None) is not None


def test_what_pipes_may_have_ends_with_the_recording() -> None:
    """Else the frames of another flush might be sent as these."""
    core = Toy()
    made = recorded(core, {}, flight=1 << 20)
    made.outlet.ports = frozenset({"ip"})
    core.outgoing = lambda room: [("ip", frame) for frame in packets((1448,) * SHORTEST)]  # type: ignore[method-assign]
    made.outgoing({})
    assert made.outlet.made
    made._end_flight("test")
    assert not made.outlet.made
    made.outgoing({})
    assert made.outlet.take("ip", SHORTEST) is None


def test_verdicts_within_a_run() -> None:
    """The wrong ones are wrong in a replay, the others right; a verdict on a frame that is not there is refused."""
    entry = received_run(RUNS["segments of one field"], 7)
    assert entry is not None
    calls = decode_entries(_array([run_with_wrong(entry, [1, 19])]))
    assert [number for number, call in enumerate(calls) if call.cuts[0][2] == WRONG] == [1, 19]  # type: ignore[union-attr]
    with pytest.raises(DamagedFrame, match="frame 20 of 20"):
        decode_entries(_array([run_with_wrong(entry, [20])]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda run: run.__setitem__(4, 7), "pieces of 7"),
        (lambda run: run.__setitem__(5, run[4]), "pieces"),
        (lambda run: run.__setitem__(6, -1), "pieces"),
        (lambda run: run.__setitem__(2, run[2][:-1]), "pieces"),
        (lambda run: run.__setitem__(5, 0), "different layouts"),
        (lambda run: run.__setitem__(7, "id"), "cannot be"),
        (lambda run: run.__setitem__(8, -3), "cannot be"),
    ],
)
def test_a_damaged_run(change: Any, text: str) -> None:
    """Figures that fit no frame are an error with its words, nothing else."""
    kind, now, run, wrong = msgspec.msgpack.decode(received_run(RUNS["packets"], 7) or b"")
    change(run)
    with pytest.raises(DamagedFrame, match=text):
        for call in decode_entries(_array([msgspec.msgpack.encode([kind, now, run, wrong])])):
            assert isinstance(call, Received)
            decode_frame(call.code, call.frame, call.cuts)


def test_a_core_that_raises_within_a_run(tmp_path: Path) -> None:
    """What came behind is not in the recording: the core has never seen it. Verdicts of those before are kept."""
    core = Toy()
    given: list[Any] = []

    def receive(frame: Any, now: int) -> None:
        given.append(frame)
        if len(given) == 2:
            core.counters["drop.tcp_checksum"] = 1
        if len(given) == 7:
            raise ZeroDivisionError("oops")

    core.receive = receive  # type: ignore[method-assign]
    made = recorded(core, {}, flight=1 << 20)
    made.receive_all(RUNS["segments of one field"][:3], 5)
    with pytest.raises(ZeroDivisionError) as raised:
        made.receive_all(RUNS["segments of one field"], 6)
    path = made.crash(raised.value, tmp_path, 4)
    assert path is not None
    found = Recording(path)
    assert len(found) == 7 == made.control(0, "record.status", {}, 9)["calls"]
    calls = [entry for _, entry in found.entries(0)]
    assert [call.now for call in calls] == [5, 5, 5, 6, 6, 6, 6]  # type: ignore[union-attr]
    assert [call.cuts[0][2] == WRONG for call in calls] == [False, True, *[False] * 5]  # type: ignore[union-attr]


def test_a_transfer_in_batches(tmp_path: Path) -> None:
    """tcp is given right and wrong segments in batches, as a busy process is; the replay is the same, call by call."""
    from replay_bench import TcpCore

    from levelip.wire.checksum import internet_checksum, pseudo_header_sum
    from tests.netsim.net import Impairment
    from tests.netsim.tcp_apps import pair

    _, host, *_ = pair(Impairment())
    assert isinstance(host.core, TcpCore)
    path = tmp_path / "x.rec"
    core = recorded(host.core, host.config)
    core.control(0, "record.start", {"file": str(path)}, 0)
    number = 0
    for size in (1, 2, SHORTEST, 16, 17, 64):
        batch = []
        for _ in range(size):
            number += 1
            payload = os.urandom(1448)
            frame = segment(b"", head=TCP + payload)
            total = internet_checksum(frame.head, pseudo_header_sum(frame.src, frame.dst, 6, len(frame.head)))
            if number % 5:
                frame.head = TCP[:16] + total.to_bytes(2, "big") + TCP[18:] + payload
            batch.append(frame)
        core.receive_all(batch, number)
        core.outgoing({})
        core.events()
    wrong = host.core.counters["drop.tcp_checksum"]
    assert wrong == number // 5
    player = Player(stop(core, path))
    assert player.recording.stop >= number + 6
    assert player.check() is None
    assert player.core.counters["drop.tcp_checksum"] == wrong


def test_a_run_whole(tmp_path: Path) -> None:
    """`--whole`: nothing is cut."""
    path = tmp_path / "x.rec"
    made = recorded(Toy(), {})
    made.control(0, "record.start", {"file": str(path), "whole": True}, 0)
    given = packets((1448,) * SHORTEST)
    made.receive_all(given, 5)
    found = stop(made, path)
    frames = [decode_frame(entry.code, entry.frame, entry.cuts) for _, entry in found.entries(0)]  # type: ignore[union-attr]
    assert frames == given
    assert isinstance(frames[0], Packet) and not isinstance(frames[0], Segment)


@pytest.mark.parametrize(
    "frame", [packets()[0], device_frames()[0], segments()[0]], ids=["packet", "device", "segment"]
)
def test_less_of_what_came_in_than_of_what_went_out(frame: Any) -> None:
    """Up to format 4 a frame that came in a run and went out alone is zeros behind what the run kept, but for two bytes
    of its sum. What stayed of it, its length, and its other fields still have to be the same; in our format all of what
    is kept."""
    code, raw, cuts = encode_frame(frame)
    field = "payload" if frame.payload else "head"
    whole = getattr(frame, field)
    for kept in (126, 127):
        mine = {field: whole[:kept] + b"\x12\x34" + bytes(len(whole) - kept - 2)}
        shorter = msgspec.structs.replace(frame, **mine)
        assert compared(code, raw, cuts, shorter, whole=False, older=True) is not None
        assert compared(code, raw, cuts, shorter, whole=False) is None
    bare = whole[:126] + bytes(len(whole) - 126)
    for wrong in (bare[:40] + b"\x00\x00" + bare[42:], bare + b"\x00", bare[:-1] + b"\x01"):
        other = msgspec.structs.replace(frame, **{field: wrong})
        assert compared(code, raw, cuts, other, whole=False, older=True) is None
    other = msgspec.structs.replace(frame, **{field: bare}, id=frame.id + 1)
    assert compared(code, raw, cuts, other, whole=False, older=True) is None


def test_a_verdict_is_on_the_frame_that_it_is_about(tmp_path: Path) -> None:
    """One that comes alone behind a run with wrong checksums is not wrong for that."""
    core = Toy()

    def receive(frame: Any, now: int) -> None:
        core.counters["drop.tcp_checksum"] = core.counters.get("drop.tcp_checksum", 0) + (frame.ttl == 1)

    core.receive = receive  # type: ignore[method-assign]
    path = tmp_path / "x.rec"
    made = recorded(core, {})
    made.control(0, "record.start", {"file": str(path)}, 0)
    given = segments((1448,) * (SHORTEST + 4))
    for number in (1, SHORTEST - 1, SHORTEST + 2):
        given[number].ttl = 1
    for batch in (given[:SHORTEST], given[SHORTEST : SHORTEST + 2], given[SHORTEST + 2 :]):
        made.receive_all(batch, 5)
    calls = [entry for _, entry in stop(made, path).entries(0)]
    wrong = [number for number, call in enumerate(calls) if call.cuts[0][2] == WRONG]  # type: ignore[union-attr]
    assert wrong == [1, SHORTEST - 1, SHORTEST + 2]
