"""What a recording has of each payload: its first 128 bytes, in runs and alone, coming in and going out, and of one in
shared memory as it comes in."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay_bench import recorded, stop
from test_call_encoder import IP, segment
from test_recorder import Toy

from levelip.debug.recorded import records
from levelip.debug.tap import DIRECTION, HEAD, LENGTH, PAYLOAD, SEAM, Notice
from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.frames.seam import Store
from levelip.ipc.memory import Memory, Pool
from levelip.rpc.place import Place
from levelip.rpc.stream import Data, Send
from levelip.tracing.callencoder import RECEIVED, flushed, received_run
from levelip.tracing.framerun import SHORTEST
from levelip.tracing.recordedcalls import Flushed, Received, decode_entries, decode_frame
from simulation.replay.compare import Known, compared

KEPT = 128
OPTIONS = bytes.fromhex("470005dc000040004006000a0a0000010a0000020101010101010100")  # an IP header with eight bytes
ETHERNET = bytes(12) + b"\x08\x00"
WORDS = (5, 8, 15)  # of a TCP header: without options, with timestamps, and of full length
MTU, SUPER = 1448, 44 * 1448
VERIFIED = int(Checksum.VERIFIED)


def tcp(words: int) -> bytes:
    return bytes(12) + bytes([words << 4]) + bytes(4 * words - 13)


def data(size: int, number: int) -> bytes:
    return random.Random(f"{size}/{number}").randbytes(size)


def in_packet(head: bytes, payload: bytes) -> Packet:
    return Packet(9, [], False, 0, 1, head, payload, int(Checksum.UNVERIFIED), 0)


KINDS = {
    "segments of one field": lambda words, payload: segment(b"", head=tcp(words) + payload),
    "segments": lambda words, payload: segment(payload, head=tcp(words)),
    "segments whose header is in the payload": lambda words, payload: segment(tcp(words) + payload, head=b""),
    "verified segments": lambda words, payload: segment(payload, VERIFIED, tcp(words)),
    "packets of one field": lambda words, payload: in_packet(IP + tcp(words) + payload, b""),
    "packets": lambda words, payload: in_packet(IP + tcp(words), payload),
    "packets whose TCP header is in the payload": lambda words, payload: in_packet(IP, tcp(words) + payload),
    "packets with IP options": lambda words, payload: in_packet(OPTIONS + tcp(words), payload),
    "frames of a tap": lambda words, payload: DeviceFrame(9, [], ETHERNET + IP + tcp(words) + payload, b""),
    "frames of a tun": lambda words, payload: DeviceFrame(9, [], IP + tcp(words) + payload, b""),
    "frames of two fields": lambda words, payload: DeviceFrame(9, [], ETHERNET + IP + tcp(words), payload),
    "stores": lambda _, payload: Store(Place("r", 0, 1 << 20, 0, len(payload)), payload),
    "sends": lambda _, payload: Send(5, 0, len(payload), payload),
    "data": lambda _, payload: Data(5, 0, payload),
}


def kept(code: int, raw: bytes, size: int) -> bytes:
    """What an entry has of a payload, of which `size` bytes lie in front of it."""
    frame = decode_frame(code, raw, [])
    return bytes((getattr(frame, "head", b"") + frame.payload)[size:])


def in_front(kind: str, words: int) -> int:
    frame = KINDS[kind](words, b"")
    return len(getattr(frame, "head", b"") + frame.payload)


def rows_of(frames: list[Any]) -> list[tuple[int, bytes]]:
    """Code and bytes of each frame as it is recorded coming in, in a run if it can be, alone, and going out."""
    run = received_run(frames, 7)
    entries = [RECEIVED[type(frame)](frame, 7) for frame in frames]
    calls = decode_entries(b"\xdd" + len(entries).to_bytes(4, "big") + b"".join(entries))
    calls += decode_entries(b"\x91" + run) if run is not None else calls
    found = [(call.code, bytes(call.frame)) for call in calls if isinstance(call, Received)]
    (out,) = decode_entries(b"\x91" + flushed({}, [("p", frame) for frame in frames]))
    assert isinstance(out, Flushed)
    return found + [(code, bytes(raw)) for _, code, raw, _ in out.out]


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 129, 130, 131, 200, 300, MTU, SUPER])
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("kind", KINDS)
def test_128_bytes_or_all(kind: str, words: int, size: int) -> None:
    """Of MTU-sized frames and of super-segments: neither more nor less. (Of 129 or 130 bytes all stay.)"""
    payloads = [data(size, number) for number in range(20)]
    front = in_front(kind, words)
    rows = rows_of([KINDS[kind](words, payload) for payload in payloads])
    assert len(rows) == 60
    if size >= 300:  # in bulk they are cut all at once
        run = msgspec.msgpack.decode(received_run([KINDS[kind](words, payload) for payload in payloads], 7) or b"\xc0")
        assert isinstance(run[2][2], bytes)
    for (code, raw), payload in zip(rows, payloads * 3, strict=True):
        assert kept(code, raw, front) == (payload if size <= KEPT + 2 else payload[:KEPT])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("stores", "sends", "data")])
def test_headers_of_different_lengths(kind: str) -> None:
    """Packets of one length, of which some have a longer TCP header, as with SACK blocks: 128 bytes behind each."""
    lengths = [5, 5, 8, 5, 15, 5, 5, 8] * 2
    payloads = [data(MTU + 60 - 4 * words, number) for number, words in enumerate(lengths)]
    rows = rows_of([KINDS[kind](words, payload) for words, payload in zip(lengths, payloads, strict=True)])
    for (code, raw), words, payload in zip(rows, lengths * 3, payloads * 3, strict=True):
        assert kept(code, raw, in_front(kind, words)) == payload[:KEPT]


@pytest.mark.parametrize("size", [MTU, SUPER])
def test_a_bulk_run_of_a_process(tmp_path: Path, size: int) -> None:
    """From the file that a recorder has written, as tools read it; each batch is one entry."""
    core = Toy()
    frames = [KINDS["packets"](8, data(size, number)) for number in range(3 * SHORTEST)]
    core.outgoing = lambda room: [("tcp", frame) for frame in frames]  # type: ignore[method-assign]
    made = recorded(core, {})
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path)}, 0)
    made.receive_all(frames, 5)
    made.outgoing({"tcp": 100})
    assert len(made._entries) == 2
    found = stop(made, path)
    rows: list[tuple[int, bytes]] = []
    for _, entry in found.entries(0):
        if isinstance(entry, Received):
            rows.append((entry.code, bytes(entry.frame)))
        elif isinstance(entry, Flushed):
            rows += [(code, bytes(raw)) for _, code, raw, _ in entry.out]
    assert len(rows) == 2 * len(frames)
    for (code, raw), frame in zip(rows, frames * 2, strict=True):
        assert kept(code, raw, len(IP) + 32) == frame.payload[:KEPT]


@pytest.mark.parametrize("at", [0, 59, 60, 127])
@pytest.mark.parametrize("kind", KINDS)
def test_replay_compares_all_that_is_kept(kind: str, at: int) -> None:
    """A byte of it that differs is a difference, in a run and alone; what lies behind is known by its length."""
    words = 8
    frames = [KINDS[kind](words, data(MTU, number)) for number in range(SHORTEST)]
    for output in (frames, frames[:1]):
        (call,) = decode_entries(b"\x91" + flushed({}, [("p", frame) for frame in output]))
        assert isinstance(call, Flushed)
        for number, (_, code, raw, cuts) in enumerate(call.out):
            mine = data(MTU, number)
            other = bytearray(mine)
            other[at] ^= 1
            behind = mine[:KEPT] + bytes(MTU - KEPT)
            for payload, same in ((mine, True), (behind, True), (bytes(other), False), (mine[:-1], False)):
                frame = KINDS[kind](words, payload)
                if kind == "stores":
                    frame.place = output[number].place
                assert (compared(code, bytes(raw), cuts, frame, whole=False) is not None) == same


@pytest.mark.parametrize("shift", [1, 100, 127, 128, 129, 130, 500])
def test_a_part_of_what_came_in(shift: int) -> None:
    """Of a segment that overlaps what was there tcp stores the rest: the replay knows what is left of 128 bytes of it,
    and compares that. Where nothing is left, it says that only the length was compared."""
    whole = data(MTU, 1)
    cut = whole[:KEPT] + b"\x12\x34" + bytes(MTU - KEPT - 2)  # as a replay has it, with a sum
    place = Place("r", 0, 1 << 20, 0, MTU - shift)
    for output in ([Store(place, whole[shift:])] * SHORTEST, [Store(place, whole[shift:])]):
        (call,) = decode_entries(b"\x91" + flushed({}, [("memory", frame) for frame in output]))
        assert isinstance(call, Flushed)
        _, code, raw, cuts = call.out[0]
        known = compared(code, bytes(raw), cuts, Store(place, cut[shift:]), whole=False)
        assert known is (Known.PART if shift < KEPT else Known.LENGTH)
        if shift < KEPT:
            wrong = bytes([cut[shift] ^ 1]) + cut[shift + 1 :]
            assert compared(code, bytes(raw), cuts, Store(place, wrong), whole=False) is None


# payloads in shared memory, which no core reads


def super_frames(kind: type, memory: Memory, pool: Pool) -> list[Any]:
    """Eight of each kind, whose payloads lie in slots of the device pool."""
    frames: list[Any] = []
    for number in range(SHORTEST):
        slot = pool.slot()
        assert slot is not None
        payload = data(SUPER, number)
        slot[1][7 : 7 + SUPER] = payload
        place = pool.place(slot[0], 7, SUPER)
        assert memory.peek(place, KEPT) == payload[:KEPT]
        made: dict[type, Any] = {
            Segment: segment(place, VERIFIED, tcp(8)),
            DeviceFrame: DeviceFrame(9, [], ETHERNET + IP + tcp(8), place),
        }
        frames.append(made[kind])
    return frames


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("count", [1, SHORTEST])
@pytest.mark.parametrize(("process", "kind"), [("link", DeviceFrame), ("ip", Segment)])
def test_super_segments_in_shared_memory(process: str, kind: type, count: int, whole: bool, tmp_path: Path) -> None:
    """The first 128 bytes of what comes from the network or a program are in the recording, alone or among others; the
    core has its Place."""
    memory = Memory(tmp_path, tmp_path)
    pool = Pool(memory, tmp_path, "pool-1", SHORTEST)
    frames = super_frames(kind, memory, pool)[:count]
    core = Toy()
    made = recorded(core, {}, process=process, peek=memory.peek)
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path), "whole": whole}, 0)
    made.receive_all(frames, 5)
    memory.free(frames[0].payload)
    found = [entry for _, entry in stop(made, path).entries(0)]
    assert len(found) == count
    for number, (entry, frame) in enumerate(zip(found, frames, strict=True)):
        assert isinstance(entry, Received)
        assert decode_frame(entry.code, entry.frame, entry.cuts) == frame
        assert entry.seen == data(SUPER, number)[:KEPT]
    memory.close()


@pytest.mark.parametrize("head", [tcp(5), tcp(5) + bytes(300)], ids=["short", "long"])
@pytest.mark.parametrize("at", range(SHORTEST))
def test_one_in_shared_memory_among_others(at: int, head: bytes, tmp_path: Path) -> None:
    """Its beginning is in the recording wherever it stands, also where the others' encoding is as long as its own."""
    memory = Memory(tmp_path, tmp_path)
    pool = Pool(memory, tmp_path, "pool-1", 1)
    slot = pool.slot()
    assert slot is not None
    slot[1][7 : 7 + SUPER] = data(SUPER, 1)
    shared = segment(pool.place(slot[0], 7, SUPER), VERIFIED, head)
    short = next(
        made
        for made in (segment(bytes(size), VERIFIED, head) for size in range(100))
        if len(msgspec.msgpack.encode(made)) == len(msgspec.msgpack.encode(shared))
    )
    frames = [short] * SHORTEST
    frames[at] = shared
    made = recorded(Toy(), {}, process="ip", peek=memory.peek)
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path)}, 0)
    made.receive_all(frames, 5)
    found = [entry for _, entry in stop(made, path).entries(0)]
    assert [getattr(entry, "seen", b"") for entry in found] == [
        data(SUPER, 1)[:KEPT] if number == at else b"" for number in range(SHORTEST)
    ]
    memory.close()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("process", ["link", "tcp"])
def test_a_run_of_what_is_seen_elsewhere(process: str, whole: bool, tmp_path: Path) -> None:
    """ip has looked at the beginnings of segments that go out, link of what comes in: in other processes a batch with
    places stays one entry, as the looking is what it would be parted for."""
    made = recorded(Toy(), {}, process=process, peek=lambda place, most: pytest.fail("it looked"))
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path), "whole": whole}, 0)
    frames = [segment(Place("pool-1", 0, 1 << 17, 7, SUPER), VERIFIED, tcp(8)) for _ in range(SHORTEST)]
    made.receive_all(frames, 5)
    assert len(made._entries) == 1
    found = [entry for _, entry in stop(made, path).entries(0)]
    assert [
        decode_frame(entry.code, entry.frame, entry.cuts) for entry in found if isinstance(entry, Received)
    ] == frames


def test_what_is_gone_from_shared_memory(tmp_path: Path) -> None:
    """A client that took its memory away costs the bytes, nothing else."""
    made = recorded(Toy(), {}, process="ip", peek=Memory(tmp_path, tmp_path).peek)
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path)}, 0)
    frame = segment(Place("ab" * 16, 0, 1 << 20, 0, SUPER), head=tcp(8))
    made.receive_all([frame], 5)
    ((_, entry),) = stop(made, path).entries(0)
    assert isinstance(entry, Received) and entry.seen == b""
    assert decode_frame(entry.code, entry.frame, entry.cuts) == frame


@pytest.mark.parametrize("words", WORDS)
def test_tools_are_told_what_is_known_and_no_more(words: int, tmp_path: Path) -> None:
    """As records: headers, 128 bytes, and the length of what is missing, which is not made up."""
    made = recorded(Toy(), {}, process="ip")
    path = tmp_path / "x.rec"
    made.control(0, "record.start", {"file": str(path)}, 0)
    front = IP + tcp(words)
    made.receive_all([in_packet(front + data(MTU, 1), b""), in_packet(front, data(MTU, 2))], 5)
    found = [one for one in records([stop(made, path)]) if not isinstance(one, Notice)]
    assert [(one[HEAD], one[PAYLOAD], one[LENGTH]) for one in found] == [
        (front + data(MTU, 1)[:KEPT], b"", MTU - KEPT),
        (front, data(MTU, 2)[:KEPT], MTU),
    ]


def test_a_payload_in_shared_memory_on_its_way(tmp_path: Path) -> None:
    """What link saw come in is told of at each seam that it passes, up to tcp; what ip saw, at those below it. Of
    another place nothing is made up."""
    up, down, other = (Place("r", 0, 1 << 20, at, SUPER) for at in (0, SUPER, 2 * SUPER))
    front, known = IP + tcp(8), data(SUPER, 3)[:KEPT]
    output: dict[str, list[tuple[str, Any]]] = {
        "link": [("ip", in_packet(front, up)), ("device", DeviceFrame(9, [], ETHERNET + front, down))],
        "ip": [("tcp", segment(up, head=tcp(8))), ("link", in_packet(front, down))],
        "tcp": [("ip", segment(other, head=tcp(8)))],
    }
    made, files = {}, {}
    for process, frames in output.items():
        core = Toy()
        core.outgoing = lambda room, frames=frames: frames  # type: ignore[method-assign, misc]
        made[process] = recorded(core, {}, process=process, peek=lambda place, most: known[:most])
        files[process] = tmp_path / f"{process}.rec"
        made[process].control(0, "record.start", {"file": str(files[process])}, 0)
    made["link"].receive_all([DeviceFrame(9, [], ETHERNET + front, up)], 1)
    made["ip"].receive_all([in_packet(front, up)], 2)
    made["tcp"].receive_all([segment(up, head=tcp(8))], 3)
    made["ip"].receive_all([segment(down, head=tcp(8))], 4)
    made["link"].receive_all([in_packet(front, down)], 5)
    for one in made.values():
        one.handle_timer(6)
        one.outgoing({})
    found = records([stop(made[process], files[process]) for process in made])
    told = {(one[SEAM], one[DIRECTION], one[PAYLOAD] == known) for one in found if not isinstance(one, Notice)}
    assert told == {
        ("link", "in", True), ("link-ip", "in", True), ("ip-tcp", "in", True), ("ip-tcp", "out", False),
        ("link", "out", True),
    }  # fmt: skip
