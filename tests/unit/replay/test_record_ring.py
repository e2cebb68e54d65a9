"""The flight recorder's ring against a model, and what another process reads from its memory, whole and damaged."""

from __future__ import annotations

import logging
import os
import random
import shutil
import stat
from collections import deque
from pathlib import Path

import msgspec
import pytest
from replay_bench import WALL, transfer

from levelip.ipc import recordkeep, recordring
from levelip.ipc.recordleft import LeftBehind, ring_path
from levelip.ipc.recordring import DamagedRing, Ring, left
from levelip.tracing.recording import HEAD, SNAPSHOT, Calls, Head, Recording, make_block, pieces, struct_block
from simulation.replay.player import Player

PAGE = 4096
LOG = logging.getLogger("test")


def entry(number: int, size: int) -> bytes:
    """A call at stack time `number`, of about so many bytes."""
    return msgspec.msgpack.encode((5, number, 0, "x" * size, {}, ""))


class Driven:
    """A ring, and a list of all that was ever put into it: (is a snapshot, number, bytes)."""

    def __init__(self, limit: int, path: Path | None = None, process: str = "tcp") -> None:
        head = Head(process=process, pid=7, epoch=9)
        self.ring = Ring(limit, struct_block(HEAD, head), path)
        self.calls = 0
        self.all: deque[bytes] = deque()

    def chapter(self, size: int) -> bool:
        block = make_block(SNAPSHOT, bytes(size), first=self.calls, begin=self.calls, end=self.calls)
        self.all.append(block)
        return self.ring.chapter(block, self.calls)

    def add(self, *sizes: int) -> None:
        entries = [entry(self.calls + place, size) for place, size in enumerate(sizes)]
        self.ring.add(entries, sum(map(len, entries)), len(entries), self.calls, self.calls + len(entries) - 1)
        self.calls += len(entries)
        self.all.extend(entries)


def content(blocks: list[bytes | Calls]) -> list[bytes]:
    """Snapshots and entries, with all figures of their blocks looked at."""
    found: list[bytes] = []
    for block in blocks:
        if isinstance(block, bytes):
            found.append(block)
            continue
        items = msgspec.msgpack.decode(block.body, type=list[msgspec.Raw])
        assert (len(items), block.first) == (block.calls, block.begin)
        assert block.end == block.first + block.calls - 1
        found += map(bytes, items)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_random_sizes_against_a_model(seed: int, tmp_path: Path) -> None:
    """What is kept is the end of all that was put, from a snapshot on, is no more than the limit, and is no less than
    the limit without what a chapter and two blocks take; another process reads the same at every instant."""
    rng = random.Random(seed)
    limit = rng.choice((64, 128, 300)) << 10
    path = tmp_path / "ring"
    driven = Driven(limit, path)
    ring = driven.ring
    largest = 0
    for step in range(1500):
        kind = rng.random()
        if ring.empty or kind < 0.01:
            assert driven.chapter(rng.randrange(1, limit // 10))
        elif kind < 0.1:
            ring.seal()
        else:
            driven.add(*(rng.randrange(rng.choice((20, 200, 3000))) for _ in range(rng.choice((1, 3, 20)))))
        assert ring.size <= limit
        if step % 15:
            continue
        kept = content(list(ring.blocks()))
        assert kept == list(driven.all)[len(driven.all) - len(kept) :]
        if kept:
            assert kept[0] in [one for one in driven.all if one[:4] == b"LVBK"]
            assert content(list(left(path)[1])) == kept
        largest = max(largest, ring.size)
        assert ring.size >= sum(map(len, kept))
    assert largest > limit // 2
    ring.close()
    assert not path.exists()


def test_killed_at_any_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the index changes, as the ring goes round and chapters go, what it says is whole: consecutive calls from
    a snapshot on, and nothing only where nothing was kept before or will be."""
    path = tmp_path / "ring"
    publish = Ring._publish
    seen = 0

    def look(ring: Ring) -> None:
        nonlocal seen
        publish(ring)
        if ring.empty:
            return
        kept = content(list(left(path)[1]))
        assert kept[0].startswith(b"LVBK")
        numbers = [msgspec.msgpack.decode(one)[1] for one in kept if not one.startswith(b"LVBK")]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        seen += 1

    monkeypatch.setattr(Ring, "_publish", look)
    rng = random.Random(5)
    driven = Driven(64 << 10, path)
    for _ in range(2000):
        if driven.ring.empty or rng.random() < 0.05:
            driven.chapter(rng.randrange(1, 9000))
        driven.add(*(rng.randrange(3000) for _ in range(rng.choice((1, 3)))))
    assert seen > 300
    driven.ring.close()


def test_a_snapshot_that_has_no_room() -> None:
    """Nothing is kept, and the ring works again with a smaller one."""
    driven = Driven(64 << 10)
    assert driven.chapter(100)
    driven.add(10)
    assert not driven.chapter(100 << 10)
    assert driven.ring.empty and not list(driven.ring.blocks()) and driven.ring.size == 0
    driven.add(10)
    assert driven.ring.empty
    assert driven.chapter(100)
    driven.add(10)
    assert len(content(list(driven.ring.blocks()))) == 2


def test_a_chapter_that_fills_it_alone() -> None:
    """What would overwrite its own chapter's beginning is refused: nothing is kept until the next snapshot."""
    driven = Driven(64 << 10)
    assert driven.chapter(100)
    while not driven.ring.empty:
        driven.add(1000)
    assert driven.calls > 50
    assert driven.chapter(100)


def test_its_file_is_secret_and_new(tmp_path: Path) -> None:
    """Mode 0600, never a file or link that is there."""
    path = tmp_path / "ring"
    driven = Driven(64 << 10, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        Driven(64 << 10, path)
    driven.ring.close()
    path.symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="exists"):
        Driven(64 << 10, path)
    assert not (tmp_path / "other").exists()


def test_a_full_tmpfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file cannot grow the ring stays as large as it is, and goes round there."""
    monkeypatch.setattr(recordring, "_GROWTH", 1 << 14)
    path = tmp_path / "ring"
    driven = Driven(1 << 20, path)
    driven.chapter(100)
    for _ in range(100):
        driven.add(1000)
    size = path.stat().st_blocks * 512
    assert size < 200 << 10

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(1000):
        if driven.ring.empty or not driven.calls % 20:
            driven.chapter(100)
        driven.add(1000)
    assert path.stat().st_blocks * 512 == size
    assert 30 < len(kept := content(list(left(path)[1]))) < 200
    assert kept == list(driven.all)[-len(kept) :]
    driven.ring.close()


def written(path: Path) -> bytes:
    """The memory of a ring that has gone round, with a block at work."""
    driven = Driven(64 << 10, path)
    for _ in range(150):
        if not driven.calls % 20:
            driven.chapter(1000)
        driven.add(1000)
        if not driven.calls % 5:
            driven.ring.seal()
    driven.add(10, 20)
    return path.read_bytes()


def save(memory: Path, directory: Path) -> list[Path]:
    """What the next process makes of what lies in `memory`."""
    behind = LeftBehind(memory, directory, "tcp", keep=4, log=LOG, wall_offset=lambda: WALL)
    behind.wait(60)
    assert not list(memory.iterdir())
    return sorted(directory.glob("*")) if directory.exists() else []


def test_what_is_left_becomes_a_recording(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the next process of that layer alone, with the pid and head of the dead one, which was killed, as it says."""
    memory = tmp_path / "memory"
    memory.mkdir()
    data = written(ring_path(memory, "tcp", 7, 9))
    other = ring_path(memory, "udp", 8, 9)
    other.write_bytes(data)
    LeftBehind(memory, tmp_path / "crash", "tcp", keep=4, log=LOG, wall_offset=lambda: WALL).wait(60)
    assert list(memory.iterdir()) == [other]
    (path,) = (tmp_path / "crash").iterdir()
    assert path.name.startswith("tcp-") and path.name.endswith("-7.rec")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"lvlip replay {path}" in caplog.text
    found = Recording(path)
    assert found.head.pid == 7 and found.head.wall_offset == WALL
    assert found.end is None and not found.torn
    assert found.stop == 152 and found.first > 0
    assert [one.now for _, one in found.entries(found.first)] == list(range(found.first, 152))  # type: ignore[union-attr]
    found.close()


def test_a_process_that_had_done_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It leaves no recording: those of a layer that is killed as it starts, again and again, would drive out others."""
    memory = tmp_path / "memory"
    memory.mkdir()
    Driven(64 << 10, ring_path(memory, "tcp", 7, 9)).chapter(100)
    assert not save(memory, tmp_path / "crash")
    assert "(pid 7) was killed before it did anything" in caplog.text


def test_a_recorded_core_that_is_killed(tmp_path: Path) -> None:
    """What it did up to the end of the last round is there, and of one that ends by itself nothing; without room in
    shared memory the ring is the process's own."""
    memory = tmp_path / "memory"
    memory.mkdir()
    for room, outlives in ((1, True), (1 << 40, False)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(recordkeep, "ROOM", room)
            core, _, _ = transfer(None, size=300_000, flight=1 << 20, memory=memory)
        status = core.control(0, "record.status", {}, 0)
        assert status["flight"]["outlives"] is outlives
        assert len(list(memory.iterdir())) == outlives
        if outlives:
            shutil.copytree(memory, tmp_path / "killed")
        core.close()
        core.forget()
        assert not list(memory.iterdir())
    (path,) = save(tmp_path / "killed", tmp_path / "crash")
    found = Recording(path)
    assert found.stop == status["calls"] and not found.torn
    player = Player(found)
    assert player.check() is None
    found.close()


def test_no_more_than_some_are_kept(tmp_path: Path) -> None:
    """However many lie there."""
    memory = tmp_path / "memory"
    memory.mkdir()
    data = written(tmp_path / "ring")
    for epoch in range(9):
        ring_path(memory, "tcp", 7 + epoch, epoch).write_bytes(data)
    (tmp_path / "crash").mkdir()
    for number in range(4):
        (tmp_path / "crash" / f"tcp-20200101-00000{number}-1.rec").touch()
    assert len(save(memory, tmp_path / "crash")) <= 4


def read_all(path: Path) -> list[bytes]:
    """A recording's calls up to where it is damaged, and its snapshots' bytes."""
    found = Recording(path)
    blocks = [found._body(block) for block in (*found.snapshots, *found.blocks)]
    found.close()
    return blocks


def test_every_byte_of_the_front_damaged(tmp_path: Path) -> None:
    """A flipped byte in the index, the word behind it, the facts or the head: refused, or what is read is whole and was
    there."""
    data = written(tmp_path / "ring")
    head = len(struct_block(HEAD, Head(process="tcp", pid=7, epoch=9)))
    _, blocks = left(tmp_path / "ring")
    right = {b"".join(pieces(block)) for block in blocks}
    path = tmp_path / "damaged"
    refused = 0
    for at in range(512 + head):
        for change in (0x01, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= change
            path.write_bytes(damaged)
            try:
                found = [b"".join(pieces(block)) for block in left(path)[1]]
            except DamagedRing:
                refused += 1
                continue
            assert len(found) >= len(right) - 2
            assert len(set(found) - right) <= 1, "the block at work alone may be another"
    assert refused >= 2 * (head + 16), "of the facts and the head each"


@pytest.mark.parametrize("seed", range(60))
def test_random_bytes(seed: int, tmp_path: Path) -> None:
    """Anything anywhere, cut anywhere: no harm but that it is not, or not wholly, read; nothing is left over."""
    rng = random.Random(seed)
    data = bytearray(written(tmp_path / "ring"))
    for _ in range(rng.choice((1, 10, 1000))):
        at = rng.randrange(rng.choice((PAGE, len(data))))
        data[at : at + rng.choice((1, 8, 100))] = rng.randbytes(rng.choice((1, 8, 100)))
    data = data[: rng.choice((len(data), rng.randrange(len(data))))]
    memory = tmp_path / "memory"
    memory.mkdir()
    ring_path(memory, "tcp", 7, 9).write_bytes(data)
    for path in save(memory, tmp_path / "crash"):
        assert read_all(path)


@pytest.mark.parametrize("data", [b"", b"\0" * 600, b"\xff" * 70_000, bytes(1 << 20)])
def test_what_is_no_ring(data: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is taken away, and the log says what was wrong."""
    memory = tmp_path / "memory"
    memory.mkdir()
    ring_path(memory, "tcp", 7, 9).write_bytes(data)
    assert not save(memory, tmp_path / "crash")
    assert "its flight recorder cannot be read" in caplog.text
