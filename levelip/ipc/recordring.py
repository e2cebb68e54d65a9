"""What a flight recorder keeps in memory: the newest blocks, in chapters that each begin with a snapshot."""

from __future__ import annotations

from collections import deque

from levelip.tracing.recording import Calls


class Ring:
    """The newest blocks, some `limit` bytes of them, from a snapshot on."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        # blocks, and their size in a list of one
        self._chapters: deque[tuple[list[bytes | Calls], list[int]]] = deque()

    def chapter(self, snapshot: bytes) -> None:
        """A new chapter begins; old ones go."""
        self._chapters.append(([snapshot], [len(snapshot)]))
        self.size += len(snapshot)
        self._evict()

    def add(self, block: Calls) -> None:
        """A block of the newest chapter."""
        blocks, size = self._chapters[-1]
        blocks.append(block)
        size[0] += len(block)
        self.size += len(block)
        self._evict()

    def _evict(self) -> None:
        while self.size > self.limit and len(self._chapters) > 1:
            self.size -= self._chapters.popleft()[1][0]

    @property
    def begin(self) -> int:
        """Stack time of the first call that is kept; 0 while there is none."""
        return next((one.begin for blocks, _ in self._chapters for one in blocks if isinstance(one, Calls)), 0)

    def blocks(self) -> list[bytes | Calls]:
        """All that is kept, in order."""
        return [block for blocks, _ in self._chapters for block in blocks]
