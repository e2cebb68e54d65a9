"""Shared memory: rings, the device pool, and clients that take their file away."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.ipc.memory import SLOT, Memory, MemoryLost, Pool
from levelip.rpc.place import Place, Rings

SESSION = "0123456789abcdef" * 2
RING = 65_536


def descriptors_of(path: Path) -> int:
    """How many this process has of a file; others may come and go, as the collector of garbage goes through them."""
    found = 0
    for entry in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            found += str(entry.readlink()).startswith(str(path))
    return found


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    (tmp_path / "sessions").mkdir()
    made = Memory(tmp_path, tmp_path / "sessions")
    fd = os.open(tmp_path / "sessions" / SESSION, os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 4 * RING)
    os.close(fd)
    return made


def test_what_is_stored_is_read_across_the_rings_end(memory: Memory) -> None:
    """A place that wraps around its ring is written and read in two runs."""
    rings = Rings(SESSION, 0, RING, RING, RING)
    place = rings.receive(3 * RING - 100, 300)
    assert place.spans() == [(2 * RING - 100, 100), (RING, 200)]
    data = os.urandom(300)
    memory.store(place, data)
    assert memory.read(place) == data
    assert memory.read(place.slice(50, 250)) == data[50:250]
    assert b"".join(bytes(view) for view in memory.views(place)) == data


CUTS = st.tuples(st.integers(0, 5000), st.integers(0, 5000))


@given(start=st.integers(0, 1 << 40), length=st.integers(0, 4096), cut=CUTS)
def test_a_slice_of_a_place_is_a_slice_of_its_bytes(start: int, length: int, cut: tuple[int, int]) -> None:
    """Slicing a Place agrees with slicing the bytes it stands for, for any position in the ring."""
    size = 4096
    ring = bytes(i % 251 for i in range(size))

    def content(place: Place) -> bytes:
        return b"".join(ring[at - 7 : at - 7 + n] for at, n in place.spans())

    place = Place("r", 7, size, start, length)
    assert content(place.slice(*cut)) == content(place)[slice(*cut)]


def test_a_truncated_session_file_is_an_error_and_no_signal(memory: Memory, tmp_path: Path) -> None:
    """A client that truncates its file gets its own connection an error; the stack's process gets no SIGBUS."""
    rings = Rings(SESSION, 0, RING, RING, RING)
    views = memory.views(rings.send(0, 1000))
    os.truncate(tmp_path / "sessions" / SESSION, 0)
    with pytest.raises(MemoryLost):
        memory.read(rings.send(0, 1000))
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Bad address"):
        os.writev(writer, views)
    os.close(reader)
    os.close(writer)


def test_peek_finds_nothing_where_nothing_can_be(memory: Memory) -> None:
    """What a client calls its memory may lie where no file does: whoever peeks for a recording or a tap finds nothing,
    and raises nothing."""
    rings = Rings(SESSION, 0, RING, RING, RING)
    memory.store(rings.send(0, 300), bytes(range(100)) * 3)
    assert memory.peek(rings.send(0, 300), 128) == (bytes(range(100)) * 3)[:128]
    for base in (4 * RING, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        assert memory.peek(Place(SESSION, base, RING, 0, 300), 128) == b"", base
        assert memory.peek(Place(SESSION, base, RING, RING - 10, 300), 128) == b"", base


def test_peek_at_a_slot_that_is_used_again_meanwhile(tmp_path: Path) -> None:
    """Another packet that link put there while it was copied is nothing."""

    class Raced:
        """A view of the pool: as soon as something of it is taken, the slot has another packet."""

        def __init__(self, view: memoryview) -> None:
            self.view = view

        def __getitem__(self, where: slice) -> memoryview:
            found = self.view[where]
            memory.free(place)
            slot = pool.slot()
            assert slot is not None
            pool.place(slot[0], 0, 1000)
            return found

    memory = Memory(tmp_path, tmp_path)
    pool = Pool(memory, tmp_path, "pool-1", 1)
    slot = pool.slot()
    assert slot is not None
    place = pool.place(slot[0], 0, 1000)
    assert memory.peek(place, 128) == bytes(128)
    region = memory._regions["pool-1"]
    view = region.view
    region.view = Raced(view)  # type: ignore[assignment]
    assert memory.peek(place, 128) == b""
    region.view = view
    memory.close()


@pytest.mark.parametrize("name", ["", "../x", "0" * 31, "pool-zz", "own-", "g" * 32, "/etc/passwd"])
def test_a_region_outside_the_memory_directory_is_refused(memory: Memory, name: str) -> None:
    """Names that are not a session's or a pool's never reach the file system."""
    with pytest.raises(MemoryLost, match="no region"):
        memory.read(Place(name, 0, 10, 0, 10))


def test_a_missing_region_is_lost(memory: Memory) -> None:
    """A session that has ended: its places are lost."""
    with pytest.raises(MemoryLost):
        memory.read(Place("f" * 32, 0, 10, 0, 10))


def test_a_slot_goes_out_and_comes_back(memory: Memory, tmp_path: Path) -> None:
    """A leased slot is not offered again until somebody frees it; another process's Memory sees its bytes."""
    pool = Pool(memory, tmp_path, "pool-1", 2)
    other = Memory(tmp_path, tmp_path / "sessions")
    places = []
    for text in (b"first", b"second"):
        slot = pool.slot()
        assert slot is not None
        index, view = slot
        view[10 : 10 + len(text)] = text
        places.append(pool.place(index, 10, len(text)))
    assert pool.slot() is None
    assert [other.read(place) for place in places] == [b"first", b"second"]
    other.free(places[0])
    assert pool.slot() is not None
    assert other.read(places[1]) == b"second"


def test_the_slot_that_came_back_last_is_used_next(memory: Memory, tmp_path: Path) -> None:
    """A frame at a time needs one slot of the pool, which stays in the CPU's cache, and not all in turn."""
    pool = Pool(memory, tmp_path, "pool-1", 8)
    used = set()
    for _ in range(20):
        slot = pool.slot()
        assert slot is not None
        used.add(slot[0])
        memory.free(pool.place(slot[0], 0, 3000))
    assert len(used) <= 2
    pool.close()


def test_a_reused_slot_is_noticed_by_its_generation(memory: Memory, tmp_path: Path) -> None:
    """A late reader of a slot that was given back and used again gets MemoryLost, never the other frame's bytes."""
    pool = Pool(memory, tmp_path, "pool-1", 1)
    index, _ = pool.slot() or (0, memoryview(b""))
    old = pool.place(index, 0, 100)
    memory.free(old)
    index, _ = pool.slot() or (0, memoryview(b""))
    new = pool.place(index, 0, 100)
    assert not memory.check(old)
    assert memory.check(new)
    with pytest.raises(MemoryLost):
        memory.read(old)
    memory.free(old)  # a late free of the earlier use must not free the new one
    assert pool.slot() is None


@pytest.mark.parametrize(
    "place", [Place("pool-1", 5, SLOT, 0, 10, 0), Place("pool-1", 1 << 40, SLOT, 0, 10, 0), Place("pool-1", 0, 1, 0, 1)]
)
def test_a_place_that_is_no_slot_is_refused(memory: Memory, tmp_path: Path, place: Place) -> None:
    """A place in the pool that does not start a slot was not made by link."""
    Pool(memory, tmp_path, "pool-1", 2)
    assert not memory.check(place)


@pytest.mark.parametrize("base", [0, 5, 1 << 40, 4096 + 2 * SLOT])
def test_no_slot_is_given_back_by_a_place_that_is_none(memory: Memory, tmp_path: Path, base: int) -> None:
    """A frame of a peer's that goes no further has its slot given back: what it names may be no slot, or outside of the
    pool's table, and is nothing then."""
    pool = Pool(memory, tmp_path, "pool-1", 2)
    slot = pool.slot()
    assert slot is not None
    place = pool.place(slot[0], 0, 100)
    for generation in range(3):
        memory.free(Place("pool-1", base, SLOT, 0, 10, generation))
    assert memory.check(place) and place.base != base
    assert pool.slot() is not None and pool.slot() != slot  # it is still out
    pool.close()


@pytest.mark.parametrize(
    "place",
    [
        Place(SESSION, 4 * RING, RING, 0, 300),
        Place(SESSION, 3 * RING + 1, RING, 0, 300),
        Place(SESSION, 0, 1 << 62, 0, 1 << 62),
        Place(SESSION, (1 << 62) - RING, RING, 0, 300),
    ],
    ids=["behind", "over the end", "huge", "far"],
)
def test_a_place_beyond_its_file_is_lost(memory: Memory, place: Place) -> None:
    """Nothing of it is read, in part or whole: not even room for it is made."""
    with pytest.raises(MemoryLost):
        memory.read(place)
    with pytest.raises(MemoryLost):
        memory.views(place)
    assert memory.peek(place, 128) == b""


def test_a_file_that_is_gone_is_closed(memory: Memory, tmp_path: Path) -> None:
    """The sweep closes regions whose file was unlinked."""
    memory.read(Place(SESSION, 0, 10, 0, 10))
    path = tmp_path / "sessions" / SESSION
    assert descriptors_of(path) == 2  # the file, and the mapping's own duplicate
    path.unlink()
    memory.sweep(10**12)
    assert descriptors_of(path) == 0
