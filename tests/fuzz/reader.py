"""Bytes as choices: what a fuzzer or hypothesis hands over, read as numbers and pieces. At the end all is zero."""

from __future__ import annotations

import builtins


class Reader:
    """Reads `data` once, from the front; never fails."""

    def __init__(self, data: builtins.bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, size: int) -> builtins.bytes:
        """The next `size` bytes, or as many as there are."""
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece

    def number(self, size: int = 1) -> int:
        """An unsigned number of `size` bytes."""
        return int.from_bytes(self.bytes(size), "big")

    def signed(self, size: int = 2) -> int:
        """A signed number of `size` bytes."""
        return int.from_bytes(self.bytes(size).ljust(size, b"\0"), "big", signed=True)

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        return self.number(1 if limit <= 256 else 2) % limit

    def piece(self, most: int = 255) -> builtins.bytes:
        """A length, and that many bytes."""
        return self.bytes(self.below(most + 1))
