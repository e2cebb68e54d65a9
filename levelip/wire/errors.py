"""The one way in which bytes from the cable can be wrong: not of the shape that their format demands."""

from __future__ import annotations


class Malformed(ValueError):
    """Bytes that cannot be read as the header `proto` they should be; the sender's fault, never ours.

    `reason` is a short stable slug in snake_case (`truncated`, `ihl_too_small`, ...), fit for a counter's
    name. `offset` is the byte, counted from the start of the header, at which reading failed: for a
    truncation the number of bytes that there were.
    """

    proto: str
    reason: str
    offset: int

    def __init__(self, proto: str, reason: str, offset: int = 0) -> None:
        super().__init__(proto, reason, offset)
        self.proto = proto
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.proto}: {self.reason} at byte {self.offset}"
