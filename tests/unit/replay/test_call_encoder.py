"""Entries made the quick way: the same as the general one makes, frames unharmed, verdicts kept."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from replay_bench import recorded, stop

from levelip.frames.packet import Checksum, DeviceFrame, Packet, Segment
from levelip.rpc.place import Place
from levelip.rpc.stream import Send
from levelip.tracing.callencoder import RECEIVED, flushed, mark_wrong, received_any, received_whole
from levelip.tracing.recordedcalls import CODES, DamagedFrame, decode_entries, decode_frame, encode_frame
from levelip.tracing.recording import READABLE, Recording, RecordingError, file_start
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from simulation.replay.player import Player

IP = bytes.fromhex("450005dc000040004006000a0a0000010a000002")
UDP = IP[:9] + b"\x11" + IP[10:]
TCP = bytes.fromhex("00500051000000010000000250100100") + bytes(4)
LONG = os.urandom(1448)
PLACE = Place("r", 0, 9000, 0, 9000)


def segment(payload: Any = LONG, checksum: int = 3, head: bytes = TCP, proto: int = 6, **more: Any) -> Segment:
    return Segment(1, [2], False, 0, 1, b"\x0a\0\0\1", b"\x0a\0\0\2", proto, 64, 0, head, payload, checksum, 0, **more)


FRAMES = [
    *(segment(payload, checksum, head, proto)
      for payload in (b"", b"x" * 100, LONG, PLACE) for checksum in (0, 1, 2, 3)
      for head in (TCP, TCP + bytes(400)) for proto in (6, 17)),
    segment(LONG, 1, dont_fragment=False),
    *(Packet(1, [], False, 0, 1, head, payload, 3, 0)
      for head in (IP + TCP, IP + LONG, UDP + LONG, b"", bytes(14)) for payload in (b"", LONG, PLACE)),
    *(DeviceFrame(1, [], head, payload)
      for head in (IP + TCP, IP + LONG, bytes(12) + b"\x08\0" + IP + LONG, bytes(12) + b"\x08\x06" + LONG, b"")
      for payload in (b"", LONG, PLACE)),
    Send(1, 0, 1448, LONG),
]  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_as_the_general_way(frame: Any) -> None:
    """What comes in and what goes out: the same entry, and the frame is as it was."""
    before = msgspec.msgpack.encode(frame)
    quick, slow, whole = RECEIVED[type(frame)](frame, 7), received_any(frame, 7), received_whole(frame, 7)
    ((port, code, raw, cuts),) = decode_entries(b"\x91" + flushed({}, [("p", frame)]))[0].out  # type: ignore[union-attr]
    assert msgspec.msgpack.encode(frame) == before
    mine, general, all_of_it = (decode_entries(b"\x91" + entry)[0] for entry in (quick, slow, whole))
    assert (mine.now, mine.code, mine.frame) == (general.now, general.code, general.frame)  # type: ignore[union-attr]
    if mine.cuts != general.cuts:  # type: ignore[union-attr]
        assert isinstance(frame, Segment)
    assert decode_frame(code, all_of_it.frame, []) == frame  # type: ignore[union-attr]
    assert (port, code, bytes(raw), cuts) == ("p", *encode_frame(frame))


@pytest.mark.parametrize("size", [300, 301, 1448, 9001])
@pytest.mark.parametrize("checksum", [Checksum.NONE, Checksum.UNVERIFIED])
def test_the_verdict_stays(size: int, checksum: int) -> None:
    """A segment that tcp has to verify is right in a replay, or wrong, as it was; no sum is taken for that."""
    frame = segment(os.urandom(size), int(checksum))
    entry = RECEIVED[Segment](frame, 7)
    for data, right in ((entry, True), (mark_wrong(entry), False)):
        made = decode_entries(b"\x91" + data)[0]
        back = decode_frame(made.code, made.frame, made.cuts)  # type: ignore[union-attr]
        assert len(back.payload) == size
        total = pseudo_header_sum(back.src, back.dst, 6, 20 + size)
        assert (internet_checksum(back.head + back.payload, total) == 0) == right
    short = RECEIVED[Segment](segment(b"x" * 90), 7)
    assert mark_wrong(short) == short
    with pytest.raises(DamagedFrame):
        decode_frame(CODES[Packet][0], msgspec.msgpack.encode(Packet(1, [], False, 0, 1, IP, LONG, 3, 0)),
                     [("payload", 2000, -1)])  # fmt: skip


def test_right_and_wrong_segments_are_replayed(tmp_path: Path) -> None:
    """tcp is given both kinds, cut and not; the replay counts the same drops."""
    from replay_bench import TcpCore

    from tests.netsim.net import Impairment
    from tests.netsim.tcp_apps import pair

    _, host, *_ = pair(Impairment())
    core = recorded(host.core, host.config)
    assert isinstance(host.core, TcpCore)
    path = tmp_path / "x.rec"
    core.control(0, "record.start", {"file": str(path)}, 0)
    for number in range(40):
        data = os.urandom((100, 1448)[number % 2])
        frame = segment(data)
        total = internet_checksum(TCP + data, pseudo_header_sum(frame.src, frame.dst, 6, 20 + len(data)))
        if number % 3:
            frame.head = TCP[:16] + total.to_bytes(2, "big") + TCP[18:]
        core.receive(frame, number)
        if number % 8 == 7:
            core.outgoing({})
            core.events()
    wrong = host.core.counters["drop.tcp_checksum"]
    assert wrong == 14
    player = Player(stop(core, path))
    assert player.check() is None
    assert player.core.counters["drop.tcp_checksum"] == wrong


def test_formats(tmp_path: Path) -> None:
    """Of format 1, which had sums, of 2, which had an entry a frame, of 3, without faults, of 4, which kept less of
    runs, and ours; no later one."""
    good = tmp_path / "x.rec"
    core = recorded(__import__("test_recorder").Toy(), {})
    core.control(0, "record.start", {"file": str(good)}, 0)
    data = (stop(core, good).close(), good.read_bytes())[1]
    for version in (*READABLE, READABLE[-1] + 1):
        good.write_bytes(file_start()[:8] + version.to_bytes(2, "little") + data[10:])
        if version in READABLE:
            Recording(good).close()
        else:
            with pytest.raises(RecordingError, match="format 6; this lvlip reads 1, 2, 3, 4 and 5"):
                Recording(good)
