"""What a flight recorder keeps: the newest blocks, in chapters that each begin with a snapshot, in memory that may
outlive the process.

The memory is a mapping, of a file where one is given: of a process that is killed, or in which C code crashes, the file
stays, and `left` reads from it what was there, up to the last round of the loop that came to its end.

    0        index, twice: the one with the higher number counts, where both are whole
    256      "LVLIPFLT" version u16, recording's version u16, length of HEAD u32, crc32 u32
    512      HEAD, a block as in a file
    base     blocks, one behind the other; the oldest chapter begins at `start`. Where `wrap` is not 0 what goes on
             there goes on at base. At `open` is the block at work, whose front is not written yet: the entries begin
             CALLS_FRONT bytes behind, and the word behind the index says how many bytes and entries they are

Blocks are as in a file (levelip.tracing.recording), but those of calls have no CRC: only what is written needs one.
What the index and its word say lies there before they say so; the word is stored by one instruction. Chapters are
overwritten whole.
"""

from __future__ import annotations

import itertools
import mmap
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from levelip.tracing.recordedcalls import decode_entries
from levelip.tracing.recording import (
    CALLS,
    CALLS_FRONT,
    HEAD,
    HEADER_LEN,
    SNAPSHOT,
    VERSION,
    Calls,
    calls_front,
    parse_header,
    whole_block,
)

RING_VERSION: Final = 1
_MAGIC: Final = b"LVLIPFLT"
_INDEX: Final = struct.Struct("<5Q")
_CRC: Final = struct.Struct("<I")
_WORD: Final = struct.Struct("<II")  # bytes and entries of the block at work
_WORD_AT: Final = 64  # behind the beginning of its index
_SLOT: Final = 128  # bytes between the two
_FACTS: Final = struct.Struct("<8sHHI")
_FACTS_AT: Final = 2 * _SLOT
_HEAD_AT: Final = 512
_ARRAY_LEN: Final = CALLS_FRONT - HEADER_LEN
_JOINED: Final = 8  # entries beyond which to join them costs less than to copy each by itself
_GROWTH: Final = 1 << 20  # bytes of a file that are asked for at once


class DamagedRing(Exception):
    """What lies there is not what a flight recorder has left; the text says where."""


class _Index(NamedTuple):
    """Where things lie; `first` is the number of the first call of the block at work."""

    number: int  # of the index
    start: int  # 0: nothing is kept
    wrap: int
    open: int
    first: int


class Ring:
    """The newest blocks, `limit` bytes of memory, from a snapshot on.

    `head` is what a recording of it begins with. `path`: the file to map, which must not exist, on a tmpfs, mode 0600;
    raises OSError where there is none to be had. Its blocks are asked for before they are touched, since a tmpfs that
    is full would else end the process (SIGBUS); where it is, the ring stays as large as it is.
    """

    def __init__(self, limit: int, head: bytes = b"", path: Path | None = None) -> None:
        self.path = path
        self._base = -(-(_HEAD_AT + len(head)) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._size = max(limit, self._base + mmap.PAGESIZE)
        self._fd = -1
        if path is None:
            self._map = mmap.mmap(-1, self._size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._reserved = self._size
        else:
            self._map = self._open_file(path)
            self._reserved = self._base
        facts = _FACTS.pack(_MAGIC, RING_VERSION, VERSION, len(head))
        self._map[_FACTS_AT : _FACTS_AT + _FACTS.size + _CRC.size] = facts + _CRC.pack(zlib.crc32(facts))
        self._map[_HEAD_AT : _HEAD_AT + len(head)] = head
        self._chapters: deque[int] = deque()  # where they begin
        self._number = self._wrap = 0
        self._open = self._at = self._base
        self._word = 0  # where it lies
        self._until = 0  # what is added before here needs nobody's room
        # the block at work
        self._used = self._count = self._calls = self._first = 0
        self._begin = self._end = 0
        self._publish()

    def _open_file(self, path: Path) -> mmap.mmap:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.ftruncate(self._fd, self._size)
            os.posix_fallocate(self._fd, 0, self._base)
            return mmap.mmap(self._fd, self._size)
        except OSError:
            os.close(self._fd)
            path.unlink(missing_ok=True)
            raise

    @property
    def size(self) -> int:
        """Bytes of blocks that it holds."""
        if not self._chapters:
            return 0
        stop, start = self._at, self._chapters[0]
        return stop - self._base + self._wrap - start if self._wrap else stop - start

    @property
    def empty(self) -> bool:
        """Whether a chapter has to begin before anything can be kept."""
        return not self._chapters

    def chapter(self, snapshot: bytes, first: int) -> bool:
        """A chapter begins, the next call of which has number `first`; old ones go. False if there is no room even
        then: nothing is kept any more."""
        self.seal()
        if not self._make_room(len(snapshot), least=0):
            self._clear()
            return False
        self._map[self._open : self._open + len(snapshot)] = snapshot
        self._chapters.append(self._open)
        self._open += len(snapshot)
        self._begin_block(first)
        self._publish()
        return True

    def add(self, entries: list[bytes], size: int, calls: int, begin: int, end: int) -> None:
        """Entries of so many bytes, which are so many calls, between two instants of stack time (ns). Where there is no
        room for them beside their chapter's beginning, nothing is kept until the next one."""
        if self._at + CALLS_FRONT + size > self._until and not self._go_on(size):
            return
        memory, count = self._map, len(entries)
        at = self._at if self._used else self._at + CALLS_FRONT
        if count > _JOINED:
            memory[at : at + size] = b"".join(entries)
            at += size
        else:
            for entry in entries:
                stop = at + len(entry)
                memory[at:stop] = entry
                at = stop
        # without a call in between, where a signal's handler could raise
        if not self._used:
            self._begin = begin
        self._at = at
        self._used += size
        self._count += count
        self._calls += calls
        self._end = end
        memory[self._word : self._word + _WORD.size] = _WORD.pack(self._used, self._count)

    def _go_on(self, size: int) -> bool:
        """Room for entries where there was none, or was not asked for yet."""
        if not self._chapters:
            return False
        if self._fits(CALLS_FRONT + size):
            return True
        self.seal()
        if self._make_room(CALLS_FRONT + size, least=1):
            return True
        self._clear()
        return False

    def seal(self) -> None:
        """The block at work ends here."""
        if not self._used:
            return
        self._map[self._open : self._open + CALLS_FRONT] = calls_front(
            self._count, self._used, self._first, self._calls, self._begin, self._end
        )
        self._open = self._at
        self._begin_block(self._first + self._calls)
        self._publish()

    def blocks(self) -> Iterator[bytes | Calls]:
        """All that is kept, in order. What is not taken before the next change may be another."""
        yield from _walk(self._map, self._base, _Index(*self._figures()))
        if self._used:
            entries = self._map[self._open + CALLS_FRONT : self._at]
            yield Calls(_array(self._count) + entries, self._first, self._calls, self._begin, self._end)

    def close(self) -> None:
        """Nothing is kept any more, and nothing stays."""
        self._chapters.clear()
        self._map.close()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _figures(self) -> tuple[int, ...]:
        """Those of an _Index."""
        return self._number, self._chapters[0] if self._chapters else 0, self._wrap, self._open, self._first

    def _begin_block(self, first: int) -> None:
        """Another block is at work, at `_open`, whose first call has this number."""
        self._at, self._first = self._open, first
        self._used = self._count = self._calls = self._begin = self._end = 0

    def _publish(self) -> None:
        """From here on this is what is kept. No block is at work."""
        self._number += 1
        at = self._number % 2 * _SLOT
        self._word = at + _WORD_AT
        self._map[self._word : self._word + _WORD.size] = bytes(_WORD.size)
        data = _INDEX.pack(*self._figures())
        self._map[at : at + _INDEX.size + _CRC.size] = data + _CRC.pack(zlib.crc32(data))
        self._until = self._chapters[0] if self._wrap else self._reserved if self._chapters else 0

    def _fits(self, length: int) -> bool:
        """Whether so many bytes have room behind what there is, without that anything goes."""
        stop = self._at + length
        if self._wrap:
            return stop <= self._chapters[0]
        return stop <= self._size and (stop <= self._reserved or self._reserve(stop))

    def _reserve(self, stop: int) -> bool:
        upto = min(self._size, max(stop, self._reserved + _GROWTH))
        try:
            os.posix_fallocate(self._fd, self._reserved, upto - self._reserved)
        except OSError:  # it is full
            self._size = self._reserved
            return False
        self._reserved = upto
        if self._chapters:
            self._until = upto
        return True

    def _make_room(self, length: int, *, least: int) -> bool:
        """Room for so many bytes at `_open`, where no block is at work: chapters go, but `least` stay."""
        if self._fits(length):
            return True
        while not self._fits(length):
            if not self._chapters:
                return False
            if not self._wrap:
                self._wrap, self._open = self._open, self._base
            elif len(self._chapters) > least:
                gone = self._chapters.popleft()
                if not self._chapters or self._chapters[0] < gone:
                    self._wrap = 0
                if not self._chapters:
                    self._open = self._base
            else:
                return False
            self._at = self._open
        self._publish()  # not before: while it goes round without that anything has gone, `open` may be `start`
        return True

    def _clear(self) -> None:
        self._chapters.clear()
        self._wrap, self._open = 0, self._base
        self._begin_block(self._first + self._calls)
        self._publish()


def left(path: Path) -> tuple[bytes, Iterator[bytes | Calls]]:
    """What another process's ring held when it ended: the HEAD block, and the blocks, which may end with DamagedRing.
    DamagedRing or OSError if it cannot be read at all."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < _HEAD_AT:
            raise DamagedRing("it is too short")
        memory = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
    facts = memory[_FACTS_AT : _FACTS_AT + _FACTS.size]
    magic, version, recording, length = _FACTS.unpack(facts)
    crc = memory[_FACTS_AT + _FACTS.size : _FACTS_AT + _FACTS.size + _CRC.size]
    if magic != _MAGIC or crc != _CRC.pack(zlib.crc32(facts)):
        raise DamagedRing("it does not begin as a flight recorder's memory does")
    if (version, recording) != (RING_VERSION, VERSION):
        raise DamagedRing("it is another version's")
    head = memory[_HEAD_AT : _HEAD_AT + length]
    if len(head) < HEADER_LEN or not whole_block(head) or (parse_header(head) or (0,))[0] != HEAD:
        raise DamagedRing("its head is damaged")
    base = -(-(_HEAD_AT + length) // mmap.PAGESIZE) * mmap.PAGESIZE
    index, word = _newest(memory)
    if not index.start:
        raise DamagedRing("it holds nothing")
    return head, itertools.chain(_walk(memory, base, index), _at_work(memory, index, *word))


def _newest(memory: mmap.mmap) -> tuple[_Index, tuple[int, int]]:
    """The index that counts, and its word."""
    found: list[tuple[_Index, tuple[int, int]]] = []
    for at in (0, _SLOT):
        data, crc = memory[at : at + _INDEX.size], memory[at + _INDEX.size : at + _INDEX.size + _CRC.size]
        if crc == _CRC.pack(zlib.crc32(data)):
            found.append((_Index(*_INDEX.unpack(data)), _WORD.unpack_from(memory, at + _WORD_AT)))
    if not found:
        raise DamagedRing("its index is damaged")
    return max(found)


def _walk(memory: mmap.mmap, base: int, index: _Index) -> Iterator[bytes | Calls]:
    """The blocks from the oldest snapshot up to that at work. DamagedRing where what lies there is none."""
    at, wrap = index.start, index.wrap
    while at and at != index.open:
        if at == wrap:
            at, wrap = base, 0
            continue
        block = _block(memory, at, base, wrap or index.open)
        yield block
        at += len(block)


def _at_work(memory: mmap.mmap, index: _Index, size: int, count: int) -> Iterator[Calls]:
    """The block at work, of so many bytes and entries, of another process: what it is about is asked of them."""
    if not size:
        return
    at = index.open + CALLS_FRONT
    body = _array(count) + memory[at : at + size]
    try:
        entries = decode_entries(body)
    except (ValueError, RecursionError) as error:
        raise DamagedRing(f"the block at work, at byte {index.open}: {error}") from None
    times = [now for entry in entries if (now := getattr(entry, "now", None)) is not None]
    yield Calls(body, index.first, len(entries), min(times, default=0), max(times, default=0))


def _array(count: int) -> bytes:
    """What is before so many entries in the body of their block."""
    return calls_front(count, 0, 0, 0, 0, 0)[HEADER_LEN:]


def _block(memory: mmap.mmap, at: int, base: int, stop: int) -> bytes | Calls:
    """The block at a place, which ends before `stop`."""
    header = parse_header(memory[at : at + HEADER_LEN]) if base <= at <= min(stop, len(memory)) - HEADER_LEN else None
    if header is None:
        raise DamagedRing(f"there is no block at byte {at}")
    kind, length, _, figures = header
    data = memory[at : at + HEADER_LEN + length]
    if len(data) != HEADER_LEN + length or at + len(data) > stop:
        raise DamagedRing(f"the block at byte {at} lies outside of it")
    if kind == SNAPSHOT and whole_block(data):
        return data
    if kind != CALLS or length < _ARRAY_LEN:
        raise DamagedRing(f"the block at byte {at} is damaged")
    return Calls(data[HEADER_LEN:], *figures)
