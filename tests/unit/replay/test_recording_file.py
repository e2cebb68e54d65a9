"""The file of a recording: whole, torn at every byte, damaged, foreign, large."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import msgspec
import pytest
from replay_bench import stop, transfer

from levelip.tracing.recordedcalls import TimerRan
from levelip.tracing.recording import (
    CALLS,
    END,
    HEAD,
    HEADER_LEN,
    MAGIC,
    SNAPSHOT,
    VERSION,
    End,
    Head,
    Recording,
    RecordingError,
    Snapshot,
    calls_block,
    file_start,
    make_block,
    struct_block,
)

encode = msgspec.msgpack.encode


def small(blocks: int = 3, calls: int = 3) -> tuple[list[bytes], bytes]:
    """The blocks of a small recording, and its file."""
    snapshot = Snapshot(state={"a": 1}, config=msgspec.Raw(encode({})))
    parts = [file_start(), struct_block(HEAD, Head(process="tcp")), struct_block(SNAPSHOT, snapshot)]
    for block in range(blocks):
        first = block * calls
        entries = [encode((2, 10 * number)) for number in range(first, first + calls)]
        parts.append(calls_block(entries, first=first, begin=10 * first, end=10 * (first + calls - 1)))
    parts.append(struct_block(END, End(reason="done"), first=blocks * calls))
    return parts, b"".join(parts)


def test_whole(tmp_path: Path) -> None:
    """Every call by its number and in order; times and snapshots are found."""
    path = tmp_path / "x.rec"
    path.write_bytes(small()[1])
    found = Recording(path)
    assert (found.first, found.stop, len(found), found.torn) == (0, 9, 9, "")
    assert [entry for _, entry in found.entries(0)] == [TimerRan(10 * number) for number in range(9)]
    assert found.entry(4) == TimerRan(40)
    assert list(found.entries(4, 6)) == [(4, TimerRan(40)), (5, TimerRan(50))]
    assert found.span == (0, 80)
    assert found.block_at(35) == 3
    assert found.end == End(reason="done")
    assert found.head.process == "tcp"


def test_torn_at_every_byte(tmp_path: Path) -> None:
    """What lies in whole blocks before the tear is there; before the first snapshot a sentence says that nothing is."""
    parts, data = small()
    path = tmp_path / "x.rec"
    ends = [sum(len(part) for part in parts[: count + 1]) for count in range(len(parts))]
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = sum(end <= length for end in ends)
        if whole < 3:
            with pytest.raises(RecordingError, match=r"torn before|no snapshot|no Level-IP recording"):
                Recording(path)
            continue
        found = Recording(path)
        calls = 3 * min(whole - 3, 3)
        assert [entry for _, entry in found.entries(0)] == [TimerRan(10 * number) for number in range(calls)]
        assert bool(found.torn) == (length not in ends), length
        found.close()


def test_any_byte_changed(tmp_path: Path) -> None:
    """A changed byte is noticed, or changes nothing that is read; never is there another exception."""
    _, data = small()
    path = tmp_path / "x.rec"
    good = [TimerRan(10 * number) for number in range(9)]
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            found = Recording(path)
            entries = [entry for _, entry in found.entries(found.first)]
            found.snapshot(found.snapshots[0])
        except RecordingError:
            continue
        assert entries == good[: len(entries)], at
        assert found.torn or len(entries) == 9, at


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "no Level-IP recording"),
        (b"hello, world", "no Level-IP recording"),
        (bytes.fromhex("0a0d0d0a") * 20, "no Level-IP recording"),
        (MAGIC + (VERSION + 1).to_bytes(2, "little"), f"format {VERSION + 1}"),
        (file_start(), "torn before"),
        (file_start() + struct_block(HEAD, Head(process="tcp")), "no snapshot"),
        (file_start() + make_block(HEAD, b"\xc1"), "makes no sense"),
    ],
)
def test_foreign(tmp_path: Path, data: bytes, text: str) -> None:
    """What is no recording, or one of another format, is refused in a sentence."""
    path = tmp_path / "x.rec"
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=text):
        Recording(path)


def test_a_gap(tmp_path: Path) -> None:
    """Calls behind a gap are not taken for those after it."""
    parts, _ = small()
    path = tmp_path / "x.rec"
    path.write_bytes(b"".join([*parts[:4], *parts[5:]]))
    found = Recording(path)
    assert "missing before call 6" in found.torn
    assert len(found) == 3


def test_private(tmp_path: Path) -> None:
    """It holds secrets: mode 0600, also where another file was there before; only an ordinary file is written over."""
    path = tmp_path / "x.rec"
    path.write_bytes(b"old" * 100_000)
    path.chmod(0o644)
    core, _, _ = transfer(None, size=1000)
    core.control(0, "record.start", {"file": str(path), "overwrite": True}, 0)
    found = stop(core, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not found.torn
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o644)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(Exception, match="not an ordinary file"):
        core.control(0, "record.start", {"file": str(fifo), "overwrite": True}, 0)
    os.close(reader)
    assert stat.S_IMODE(fifo.stat().st_mode) == 0o644


def test_ten_million_calls_open_in_seconds(tmp_path: Path) -> None:
    """Headers are read, bodies not; a call in the middle is one block's work."""
    path = tmp_path / "x.rec"
    a_block, calls = 5_000, 10_000_000
    entry = encode((2, 1 << 40))
    body = calls_block([entry] * a_block, first=0, begin=0, end=0)[HEADER_LEN:]
    snapshot = Snapshot(state={}, config=msgspec.Raw(encode({})))
    with path.open("wb") as file:
        file.write(file_start() + struct_block(HEAD, Head(process="tcp")) + struct_block(SNAPSHOT, snapshot))
        for first in range(0, calls, a_block):
            file.write(make_block(CALLS, body, first=first, calls=a_block))
    began = time.thread_time()
    found = Recording(path)
    assert len(found) == calls
    assert found.entry(7_654_321) == TimerRan(1 << 40)
    assert time.thread_time() - began < 3
    found.close()
