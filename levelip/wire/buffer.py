"""What the parsers read from: any flat run of bytes."""

from __future__ import annotations

from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes to read. A memoryview must be contiguous and of single bytes (format "B")."""
