"""Where a payload lies: inline bytes, or a place in memory that processes share.

A packet's headers always travel inline. Its payload travels inline while it is short; a long one stays where it was
first written (a slot of the device pool, or the send or receive ring of a socket) and only its `Place` travels.
"""

from __future__ import annotations

from msgspec import Struct

INLINE_LIMIT = 2048  # bytes; a longer payload lies in shared memory or in a message part of its own
PART = ""  # a Place whose region is empty names the message part with the number `base`


class Place(Struct, array_like=True):
    """`length` bytes of the file `region`; byte i lies at `base + (start + i) % size`.

    It serves a slot of the device pool (`base` = the slot's offset in the file, `start` = offset in the slot) and a
    socket's ring (`start` = the absolute stream offset), so that a payload may wrap around the ring's end.
    Treat it as a value: never change one in place.
    """

    region: str
    base: int
    size: int
    start: int
    length: int
    generation: int = 0  # of a pool slot: counts its uses, so that a late reader notices that it was reclaimed

    def __len__(self) -> int:
        return self.length

    def slice(self, start: int, stop: int | None = None) -> Place:
        """The bytes from `start` up to `stop` (default: the end), both relative to this place, as Python slices."""
        start, stop, _ = slice(start, stop).indices(self.length)
        return Place(self.region, self.base, self.size, self.start + start, max(0, stop - start), self.generation)

    def spans(self) -> list[tuple[int, int]]:
        """(file offset, length) of the one or two contiguous runs that make up the place."""
        at = self.start % self.size
        first = min(self.length, self.size - at)
        if first == self.length:
            return [(self.base + at, first)]
        return [(self.base + at, first), (self.base, self.length - first)]


Payload = bytes | Place


def cut(payload: Payload, start: int, stop: int | None = None) -> Payload:
    """A part of a payload, wherever it lies."""
    if isinstance(payload, Place):
        return payload.slice(start, stop)
    return payload[start:stop]


class Rings(Struct, array_like=True):
    """The two rings of one connection, all in one region. Sizes in bytes."""

    region: str
    send_base: int
    send_size: int
    receive_base: int
    receive_size: int

    def send(self, offset: int, length: int) -> Place:
        """Where `length` bytes of the outgoing stream from `offset` lie."""
        return Place(self.region, self.send_base, self.send_size, offset, length)

    def receive(self, offset: int, length: int) -> Place:
        """Where `length` bytes of the incoming stream from `offset` lie."""
        return Place(self.region, self.receive_base, self.receive_size, offset, length)
