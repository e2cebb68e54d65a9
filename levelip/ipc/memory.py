"""Shared memory: the device pool and the sessions' files, as the layers' shells reach them.

A session's file belongs to a client, who may truncate it at any time. So a stack process never touches a mapping of
it: it copies with pread and pwrite, and gives mapped views to the kernel alone (writev answers EFAULT where Python
would get SIGBUS). The device pool is link's own and trusted.

    pool file:   state words, 8 bytes a slot: generation u32, owner u32 (0: free) | slots of SLOT bytes
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import time
from collections import deque
from pathlib import Path

from levelip.rpc.place import Place

SLOT = 69_632  # bytes: 65,535 of IP, a link header, up to the next page
_WORD = struct.Struct("=II")
_LEASE_NS = 10_000_000_000  # a slot that nobody gave back for so long was lost with a killed process or a dropped frame
_STACK_REGION = re.compile(r"(pool|own)-[0-9a-f]{1,16}")
_SESSION_REGION = re.compile(r"[0-9a-f]{32}")
_SWEEP_NS = 2_000_000_000


class MemoryLost(Exception):
    """The bytes of a Place are gone: its file vanished, shrank, or the slot was reclaimed."""


class _Region:
    """One opened file."""

    __slots__ = ("fd", "map", "pool", "size", "slots", "view")

    def __init__(self, path: Path, *, pool: bool) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.size = os.fstat(self.fd).st_size
        self.pool = pool
        prot = mmap.PROT_READ | mmap.PROT_WRITE if pool else mmap.PROT_READ
        try:
            self.map = mmap.mmap(self.fd, self.size, mmap.MAP_SHARED, prot)
        except (OSError, ValueError):
            os.close(self.fd)
            raise
        self.view = memoryview(self.map)
        self.slots = _slots_of(self.size) if pool else 0

    def close(self) -> bool:
        try:
            self.view.release()
            self.map.close()
        except BufferError:  # a view is still out; the next sweep tries again
            self.view = memoryview(self.map)
            return False
        os.close(self.fd)
        return True


def _header(slots: int) -> int:
    return -(-slots * _WORD.size // mmap.PAGESIZE) * mmap.PAGESIZE


def _slots_of(size: int) -> int:
    slots = size // SLOT
    while slots and _header(slots) + slots * SLOT > size:
        slots -= 1
    return slots


def _within(region: _Region, place: Place) -> None:
    """Raises MemoryLost unless all of the ring lies in the file: who reads less makes no room for the rest."""
    if place.base + place.size > region.size:
        raise MemoryLost(f"region {place.region} has no such place")


class Memory:
    """All regions that a process has met. Opened at first use, closed when their file is gone."""

    def __init__(self, stack: Path, sessions: Path) -> None:
        self._stack = stack
        self._sessions = sessions
        self._regions: dict[str, _Region] = {}
        self._sweep_at = 0

    def _region(self, name: str) -> _Region:
        region = self._regions.get(name)
        if region is None:
            if _SESSION_REGION.fullmatch(name):
                path, pool = self._sessions / name, False
            elif match := _STACK_REGION.fullmatch(name):
                path, pool = self._stack / name, match[1] == "pool"
            else:
                raise MemoryLost(f"no region {name!r}")
            try:
                region = self._regions[name] = _Region(path, pool=pool)
            except (OSError, ValueError) as error:
                raise MemoryLost(f"region {name}: {error}") from None
        return region

    def create_own(self, name: str, size: int) -> None:
        """Make a sparse file of the stack's own (tcp keeps rings of clients without shared memory there)."""
        fd = os.open(self._stack / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        os.close(fd)

    def remove_stale(self, kind: str, keep: str) -> None:
        """Remove the files of an earlier process of this kind ("pool" or "own")."""
        for path in self._stack.glob(f"{kind}-*"):
            if path.name != keep:
                path.unlink(missing_ok=True)

    def read(self, place: Place) -> bytes:
        """A copy of the bytes. Raises MemoryLost."""
        region = self._region(place.region)
        if region.pool:
            view = self._pool_view(region, place)
            data = bytes(view)
            self._check(region, place)
            return data
        _within(region, place)
        chunks = [os.pread(region.fd, length, offset) for offset, length in place.spans()]
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if len(data) != place.length:
            raise MemoryLost(f"region {place.region} was cut short")
        return data

    def peek(self, place: Place, most: int) -> bytes:
        """A copy of the first bytes, `most` of them; none if they are gone, or were never there."""
        try:
            region = self._region(place.region)
            if region.pool:
                at = place.base + place.start
                data = bytes(region.view[at : at + min(most, place.length)])
                self._check(region, place)  # a slot, and link has put no other packet there
                return data
            _within(region, place)
            at, most = place.start % place.size, min(most, place.length)
            if at + most <= place.size:
                return os.pread(region.fd, most, place.base + at)
            return self.read(place.slice(0, most))
        except (MemoryLost, OSError):  # the latter: a client's file, which it may cut short
            return b""

    def store(self, place: Place, payload: bytes | Place) -> None:
        """Copy the payload to the place. Raises MemoryLost or OSError (no space)."""
        target = self._region(place.region)
        data: bytes | memoryview
        source: _Region | None = None
        if isinstance(payload, Place):
            source = self._region(payload.region)
            data = self._pool_view(source, payload) if source.pool else self.read(payload)
        else:
            data = payload
        at = 0
        for offset, length in place.spans():
            while length:
                done = os.pwrite(target.fd, data[at : at + length], offset)
                at, offset, length = at + done, offset + done, length - done
        if source is not None and source.pool:
            assert isinstance(payload, Place)
            self._check(source, payload)

    def views(self, place: Place) -> list[memoryview]:
        """The bytes as views for os.writev alone. Raises MemoryLost."""
        region = self._region(place.region)
        if region.pool:
            return [self._pool_view(region, place)]
        _within(region, place)
        return [region.view[offset : offset + length] for offset, length in place.spans()]

    def check(self, place: Place) -> bool:
        """Whether the place still holds what its sender meant (a pool slot may have been reclaimed)."""
        try:
            region = self._region(place.region)
            if region.pool:
                self._check(region, place)
        except MemoryLost:
            return False
        return True

    def free(self, place: Place) -> None:
        """Give a slot of the device pool back; nothing for any other place."""
        region = self._regions.get(place.region)
        if region is None or not region.pool:
            return
        try:
            slot = self._slot(region, place)
        except MemoryLost:  # a neighbour names what is no slot
            return
        if _WORD.unpack_from(region.map, slot * 8)[0] == place.generation:
            struct.pack_into("=I", region.map, slot * 8 + 4, 0)

    def _slot(self, region: _Region, place: Place) -> int:
        slot, rest = divmod(place.base - _header(region.slots), SLOT)
        if rest or not 0 <= slot < region.slots or place.start + place.length > SLOT:
            raise MemoryLost("no such slot")
        return slot

    def _pool_view(self, region: _Region, place: Place) -> memoryview:
        self._check(region, place)
        at = place.base + place.start
        return region.view[at : at + place.length]

    def _check(self, region: _Region, place: Place) -> None:
        if _WORD.unpack_from(region.map, self._slot(region, place) * 8)[0] != place.generation:
            raise MemoryLost("slot reclaimed")

    def sweep(self, now: int) -> None:
        """Close the regions whose file is gone; cheap enough to be called in every loop."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + _SWEEP_NS
        for name, region in list(self._regions.items()):
            if os.fstat(region.fd).st_nlink == 0 and region.close():
                del self._regions[name]

    def close(self) -> None:
        """Close everything."""
        for region in self._regions.values():
            region.close()
        self._regions.clear()


class Pool:
    """link's side of the device pool: hands out slots to read frames into."""

    def __init__(self, memory: Memory, stack: Path, name: str, slots: int) -> None:
        self.name = name
        self._path = stack / name
        self._header = _header(slots)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, self._header + slots * SLOT)
        os.close(fd)
        memory.remove_stale("pool", name)
        region = memory._region(name)
        self._map, self._view = region.map, region.view
        self._words = region.view[: slots * 8].cast("Q")
        self._free: deque[int] = deque(range(slots))
        self._leased_at: dict[int, int] = {}

    def slot(self) -> tuple[int, memoryview] | None:
        """A free slot, (number, view), or None when all are in use. It stays free until `place` names it."""
        words, leased = self._words, self._leased_at
        if leased and not words[oldest := next(iter(leased))] >> 32:  # use it again while it is in the CPU's cache
            del leased[oldest]
            self._free.append(oldest)
        elif not self._free and not self._collect():
            return None
        index = self._free[-1]
        at = self._header + index * SLOT
        return index, self._view[at : at + SLOT]

    def place(self, index: int, start: int, length: int) -> Place:
        """Lease the slot that `slot` offered: its bytes `start` to `start + length` go out as a Place."""
        self._free.pop()
        generation = (_WORD.unpack_from(self._map, index * 8)[0] + 1) & 0xFFFF_FFFF
        _WORD.pack_into(self._map, index * 8, generation, 1)
        self._leased_at[index] = time.monotonic_ns()
        return Place(self.name, self._header + index * SLOT, SLOT, start, length, generation)

    def _collect(self) -> bool:
        """Take back what was freed, and leases that are too old."""
        words, leased = self._words, self._leased_at
        back = [index for index in leased if not words[index] >> 32]
        if not back:
            limit = time.monotonic_ns() - _LEASE_NS
            back = [index for index, since in leased.items() if since < limit]
            for index in back:  # a late reader sees the new generation
                generation = (_WORD.unpack_from(self._map, index * 8)[0] + 1) & 0xFFFF_FFFF
                _WORD.pack_into(self._map, index * 8, generation, 0)
        for index in back:
            del leased[index]
        self._free.extend(back)
        return bool(back)

    def close(self) -> None:
        """Remove the file."""
        self._words.release()
        self._path.unlink(missing_ok=True)
