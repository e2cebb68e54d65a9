"""The payload of the bulk runs: bytes that depend on a seed and on their position, compared whole and cheaply.

The pattern repeats after a prime number of bytes, so that no error by a multiple of a segment, a ring or a pool slot
puts the right bytes in a wrong place. A chunk is compared in place by one memcmp (`bytes.startswith` with an offset).
"""

from __future__ import annotations

import random

PERIOD = 16_777_213  # bytes: the largest prime below 2^24
MAX_CHUNK = 1 << 20  # bytes that `chunk` and `matches` take at once


class Pattern:
    """An endless stream of bytes, made from `seed` alone; both ends of a run make their own."""

    def __init__(self, seed: int) -> None:
        once = random.Random(seed).randbytes(PERIOD)
        self._data = once + once[:MAX_CHUNK]
        self._view = memoryview(self._data)

    def chunk(self, offset: int, length: int) -> memoryview:
        """Bytes `offset` to `offset + length` of the stream, without a copy; at most MAX_CHUNK."""
        at = offset % PERIOD
        return self._view[at : at + length]

    def matches(self, offset: int, data: memoryview) -> bool:
        """Whether `data`, at most MAX_CHUNK bytes, is what the stream holds at `offset`."""
        return self._data.startswith(data, offset % PERIOD)
