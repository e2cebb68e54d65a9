"""The file of a recording: blocks of calls of one core, with snapshots between, as a journal.

    "LVLIPREC" version u16, then blocks:

     0      4    5     6       8        12      16          24       28         36
     +------+----+-----+-------+--------+-------+-----------+--------+----------+---------+------
     | LVBK |kind| 0   | 0     | length | crc32 | first     | calls  | first    | last    | body
     |      |    |     |       | u32    | u32   | call u64  | u32    | now u64  | now u64 |
     +------+----+-----+-------+--------+-------+-----------+--------+----------+---------+------

Little-endian; the CRC is over the rest of the header and the body. The first block is HEAD; a SNAPSHOT is the state
before call `first`; CALLS holds `calls` entries (recordedcalls.py) from `first` on; CLOCK says what makes stack time
the time of day behind the instant `first now`, at which a hold ended; END says why it ended. To open a file its headers
are read and bodies skipped, so that it takes the time of one small read a block; bodies are read and verified when they
are asked for. A file that ends within a block was torn: what lies before is whole.
"""

from __future__ import annotations

import bisect
import os
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from levelip.tracing.events import Event
from levelip.tracing.recordedcalls import Entry, decode_entries

MAGIC: Final = b"LVLIPREC"
VERSION: Final = 5
READABLE: Final = (1, 2, 3, 4, 5)
"""2 says of a cut segment whether its checksum was right, where 1 had sums; 3 has runs of frames in one entry; 4 what
faults did, and less of each frame of a run; 5 the same 128 bytes of each payload, in runs and alone, in and out, and
when holds ended."""
KEEPS_ALIKE: Final = 5
"""The format since which all is cut alike; of a file before, one who compares has to ask the entry how much it has."""
HEAD, SNAPSHOT, CALLS, END, CLOCK = 1, 2, 3, 4, 5

_START: Final = struct.Struct("<8sH")
_FRONT: Final = struct.Struct("<4sBBHI")  # sync, kind, two that are zero, length
_CRC: Final = struct.Struct("<I")
_BACK: Final = struct.Struct("<QIQQ")  # first call, calls, first now, last now
_BACK_AT: Final = _FRONT.size + _CRC.size
HEADER_LEN: Final = _BACK_AT + _BACK.size
_SYNC: Final = b"LVBK"
_ARRAY: Final = struct.Struct(">BI")  # msgpack array 32
CALLS_FRONT: Final = HEADER_LEN + _ARRAY.size
"""Bytes of a block of calls before its first entry."""
_CACHED = 64  # decoded blocks that are kept
_MAX_BLOCK = 1 << 30  # bytes: more is a damaged header


class RecordingError(Exception):
    """The file cannot be read as a recording; the text says why and what is left."""


class Head(Struct, kw_only=True):
    """What all of the recording shares. `config` is the stack's whole configuration, plain; `wall_offset` is what makes
    stack time the time of day, ns, where no CLOCK says else; `whole`: payloads were not cut."""

    process: str
    stack: str = ""
    version: str = ""
    python: str = ""
    epoch: int = 0
    pid: int = 0
    wall_offset: int = 0
    whole: bool = False
    events: bool = False
    config: dict[str, Any] = {}


class Snapshot(Struct, kw_only=True):
    """The state of the core before a call. `config` is the core's own, secrets and all, encoded; events are made while
    `interest`, and `events` are those that had not been taken."""

    state: dict[str, Any]
    config: Raw
    interest: bool = False
    events: list[Event] = []


class Clock(Struct, kw_only=True):
    """What makes stack time the time of day, ns, from behind the instant of its block on, up to the next."""

    wall_offset: int


class End(Struct, kw_only=True):
    """Why it ended; `crash` is the traceback of what ended the process."""

    reason: str = ""
    crash: str = ""


def file_start(version: int = VERSION) -> bytes:
    """What a file begins with, before its HEAD. `version`: another than ours for entries of an older recording."""
    return _START.pack(MAGIC, version)


def make_block(kind: int, body: bytes, *, first: int = 0, calls: int = 0, begin: int = 0, end: int = 0) -> bytes:
    """One block. `begin` and `end`: stack time, ns, of its first and last call."""
    return b"".join((_header(kind, body, first, calls, begin, end), body))


def parse_header(data: bytes) -> tuple[int, int, int, tuple[int, int, int, int]] | None:
    """Of the HEADER_LEN bytes before a body: kind, length and CRC of the body, and first, calls, begin and end as
    make_block had them. None if this is no header."""
    sync, kind, _, _, length = _FRONT.unpack_from(data)
    if sync != _SYNC or length > _MAX_BLOCK:
        return None
    return kind, length, _CRC.unpack_from(data, _FRONT.size)[0], _BACK.unpack_from(data, _BACK_AT)


def _summed(header: bytes) -> bytes:
    """What the CRC is over, besides the body."""
    return header[: _FRONT.size] + header[_BACK_AT:]


def whole_block(data: bytes) -> bool:
    """Whether a block has the CRC that its header says."""
    crc: int = _CRC.unpack_from(data, _FRONT.size)[0]
    return zlib.crc32(memoryview(data)[HEADER_LEN:], zlib.crc32(_summed(data[:HEADER_LEN]))) == crc


def _header(kind: int, body: bytes, *figures: int) -> bytes:
    front, back = _FRONT.pack(_SYNC, kind, 0, 0, len(body)), _BACK.pack(*figures)
    return b"".join((front, _CRC.pack(zlib.crc32(body, zlib.crc32(front + back))), back))


@dataclass(frozen=True, slots=True)
class Calls:
    """A block of calls whose CRC is not taken yet: only what is written needs one."""

    body: bytes
    first: int
    calls: int
    begin: int
    end: int

    def __len__(self) -> int:
        return HEADER_LEN + len(self.body)

    def pieces(self) -> tuple[bytes, ...]:
        """As it is written; its body is not copied for that."""
        return _header(CALLS, self.body, self.first, self.calls, self.begin, self.end), self.body


def calls_front(count: int, length: int, *figures: int) -> bytes:
    """The CALLS_FRONT bytes before so many entries of so many bytes. `figures`: first, calls, begin and end. The CRC is
    0: a file has one (`Calls`)."""
    front = _FRONT.pack(_SYNC, CALLS, 0, 0, length + _ARRAY.size)
    return b"".join((front, bytes(_CRC.size), _BACK.pack(*figures), _ARRAY.pack(0xDD, count)))


def make_calls(entries: list[bytes], *, first: int, calls: int, begin: int, end: int) -> Calls:
    """A block of encoded entries, which are so many calls. They are copied into one body: it grows old and cold, while
    their memory, small and warm, is for the next ones."""
    return Calls(b"".join((_ARRAY.pack(0xDD, len(entries)), *entries)), first, calls, begin, end)


def calls_block(entries: list[bytes], *, first: int, begin: int, end: int) -> bytes:
    """A block of encoded entries, each of which is a call."""
    return b"".join(make_calls(entries, first=first, calls=len(entries), begin=begin, end=end).pieces())


def pieces(block: bytes | Calls) -> tuple[bytes, ...]:
    """A block as a file has it."""
    return (block,) if isinstance(block, bytes) else block.pieces()


def struct_block(kind: int, data: Struct, *, first: int = 0, now: int = 0) -> bytes:
    """A HEAD, SNAPSHOT, CLOCK or END."""
    return make_block(kind, msgspec.msgpack.encode(data), first=first, begin=now, end=now)


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies and what it is about."""

    kind: int
    offset: int  # of its body
    length: int
    crc: int
    header: bytes  # what the CRC is over, besides the body
    first: int
    calls: int
    begin: int
    end: int


class Recording:
    """An open file of format `version`. `torn` says what was left out at its end, or is empty."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises RecordingError for what is no recording, OSError for what cannot be read."""
        self.path = Path(path)
        self._file = self.path.open("rb", buffering=0)
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise
        self._cache: OrderedDict[int, list[Entry]] = OrderedDict()

    def _index(self) -> None:
        start = self._file.read(_START.size)
        if start[:8] != MAGIC[: len(start)] or not start:
            raise RecordingError(f"{self.path} is no Level-IP recording (lvlip record start or dump writes one)")
        if len(start) < _START.size:
            raise RecordingError(f"{self.path} was torn before anything was recorded in it")
        self.version: int = _START.unpack(start)[1]
        if self.version not in READABLE:
            known = f"{', '.join(map(str, READABLE[:-1]))} and {READABLE[-1]}"
            raise RecordingError(f"{self.path} is a recording of format {self.version}; this lvlip reads {known}")
        size = os.fstat(self._file.fileno()).st_size
        self.torn = ""
        self.snapshots: list[Block] = []
        self.blocks: list[Block] = []  # of calls
        self.end: End | None = None
        clocks: list[tuple[int, int]] = []
        head: Head | None = None
        at = _START.size
        while at < size:
            block = self._header(at, size)
            if block is None:
                break
            at = block.offset + block.length
            if block.kind == HEAD and head is None:
                head = self._decode(block, Head)
            elif block.kind == SNAPSHOT:
                self.snapshots.append(block)
            elif block.kind == CALLS:
                if self.blocks and block.first != self.blocks[-1].first + self.blocks[-1].calls:
                    self.torn = f"calls are missing before call {block.first}; what comes after is left out"
                    break
                self.blocks.append(block)
            elif block.kind == CLOCK:
                try:
                    clocks.append((block.begin, self._decode(block, Clock).wall_offset))
                except RecordingError as error:
                    self.torn = str(error)
            elif block.kind not in (HEAD, END):
                self.torn = f"damaged at byte {block.offset}: a block of unknown kind {block.kind}"
                break
            elif block.kind == END:
                try:
                    self.end = self._decode(block, End)
                except RecordingError as error:
                    self.torn = str(error)
        if head is None:
            raise RecordingError(f"{self.path} was torn before anything was recorded in it")
        if not self.snapshots:
            raise RecordingError(f"{self.path} holds no snapshot to begin at" + (f"; {self.torn}" if self.torn else ""))
        self.head: Head = head
        clocks.sort(key=lambda one: one[0])
        self._wall_offset = clocks.pop(0)[1] if clocks and not clocks[0][0] else head.wall_offset
        self._clocks = clocks  # behind which instant another counts
        begin = self.snapshots[0].first
        self.blocks = [block for block in self.blocks if block.first >= begin]
        if self.blocks and self.blocks[0].first != begin:
            self.torn = f"calls {begin} to {self.blocks[0].first - 1} are missing; what comes after is left out"
            self.blocks = []
        self.first = begin
        self.stop = self.blocks[-1].first + self.blocks[-1].calls if self.blocks else begin
        self.snapshots = [block for block in self.snapshots if block.first <= self.stop]
        self._firsts = [block.first for block in self.blocks]

    def _header(self, at: int, size: int) -> Block | None:
        """The block at an offset; None, and `torn` says why, if it is not whole."""
        data = os.pread(self._file.fileno(), HEADER_LEN, at)
        if len(data) < HEADER_LEN:
            self.torn = f"torn at byte {at}: {size - at} bytes of an unfinished block are left out"
            return None
        header = parse_header(data)
        if header is None:
            self.torn = f"damaged at byte {at}: what follows is no block and is left out"
            return None
        kind, length, crc, figures = header
        if at + HEADER_LEN + length > size:
            self.torn = f"torn at byte {at}: {size - at} of {HEADER_LEN + length} bytes of a block are left out"
            return None
        return Block(kind, at + HEADER_LEN, length, crc, _summed(data), *figures)

    def _body(self, block: Block) -> bytes:
        data = os.pread(self._file.fileno(), block.length, block.offset)
        if len(data) != block.length or zlib.crc32(data, zlib.crc32(block.header)) != block.crc:
            where = f"calls {block.first} to {block.first + block.calls - 1}" if block.calls else "a snapshot"
            raise RecordingError(f"{self.path}: damaged at byte {block.offset}: {where} cannot be read (wrong CRC)")
        return data

    def _decode(self, block: Block, kind: type[Any]) -> Any:
        try:
            return msgspec.msgpack.decode(self._body(block), type=kind)
        except (ValueError, RecursionError) as error:  # DecodeError and UnicodeDecodeError are ValueErrors
            raise RecordingError(f"{self.path}: the block at byte {block.offset} makes no sense: {error}") from None

    def __len__(self) -> int:
        """Calls that it holds."""
        return self.stop - self.first

    def entry(self, number: int) -> Entry:
        """One call by its number, in `first` ≤ number < `stop`. RecordingError if its block is damaged."""
        index = bisect.bisect_right(self._firsts, number) - 1
        return self._entries(index)[number - self._firsts[index]]

    def _entries(self, index: int) -> list[Entry]:
        found = self._cache.get(index)
        if found is None:
            block = self.blocks[index]
            try:
                found = decode_entries(self._body(block))
            except (ValueError, RecursionError) as error:  # DecodeError and UnicodeDecodeError are ValueErrors
                raise RecordingError(f"{self.path}: calls from {block.first} on make no sense: {error}") from None
            if len(found) != block.calls:
                raise RecordingError(f"{self.path}: a block says {block.calls} calls and holds {len(found)}")
            self._cache[index] = found
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return found

    def entries(self, begin: int, stop: int | None = None) -> Iterator[tuple[int, Entry]]:
        """(number, entry) from `begin` on, or from the first one that it holds."""
        begin = max(begin, self.first)
        stop = self.stop if stop is None else min(stop, self.stop)
        while begin < stop:
            index = bisect.bisect_right(self._firsts, begin) - 1
            first = self._firsts[index]
            for entry in self._entries(index)[begin - first : stop - first]:
                yield begin, entry
                begin += 1

    def snapshot_before(self, number: int) -> Block:
        """The last snapshot that is not after call `number`."""
        index = bisect.bisect_right([block.first for block in self.snapshots], number) - 1
        return self.snapshots[max(index, 0)]

    def snapshot(self, block: Block) -> Snapshot:
        """Its content. RecordingError if it is damaged."""
        found: Snapshot = self._decode(block, Snapshot)
        return found

    def block_at(self, now: int) -> int:
        """Number of the first call of the last block that begins at or before an instant."""
        index = bisect.bisect_right([block.begin for block in self.blocks], now) - 1
        return self._firsts[max(index, 0)] if self.blocks else self.first

    @property
    def span(self) -> tuple[int, int]:
        """First and last instant, ns of stack time."""
        if not self.blocks:
            return self.snapshots[0].begin, self.snapshots[0].end
        return self.blocks[0].begin, self.blocks[-1].end

    def wall_offset(self, now: int) -> int:
        """What makes an instant of stack time the time of day, ns since 1970: each hold adds its length."""
        index = bisect.bisect_left(self._clocks, now, key=lambda one: one[0])
        return self._clocks[index - 1][1] if index else self._wall_offset

    def instant_of(self, wall: int) -> int:
        """The first instant that is at, or behind, a time of day (ns since 1970): of one within a hold its end."""
        since, offset = -1, self._wall_offset
        for next_since, next_offset in self._clocks:
            if wall - offset <= next_since:
                break
            since, offset = next_since, next_offset
        return max(wall - offset, since + 1)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
