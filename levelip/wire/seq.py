"""TCP sequence numbers: 32 bits that wrap, compared by which lies ahead of the other (RFC 9293 3.4).

    a < b   means that b is reached from a by going forward less than half the circle:

             0
         .-------.            The circle has 2^32 places. From a the next 2^31 - 1 places are "after a",
       a/         \\           the 2^31 - 1 behind it are "before a". At exactly 2^31 both hold, as in
       (           ) b         Linux' before() and after(); windows of at most 2^30 (RFC 7323 2.3) keep
        \\         /            honest peers away from there.
         '-------'

The functions `seq_*` work on plain integers in 0..2^32-1 and are for the paths that run once a packet.
`SeqNumber` is the same as a type, for everything else.
"""

from __future__ import annotations

from typing import Any, overload

SEQ_MASK = 0xFFFFFFFF
_HALF = 0x80000000


def seq_lt(a: int, b: int) -> bool:
    """Whether `a` lies before `b`."""
    return (a - b) & 0xFFFFFFFF >= 0x80000000


def seq_le(a: int, b: int) -> bool:
    """Whether `a` lies before `b` or is `b`."""
    return (a - b - 1) & 0xFFFFFFFF >= 0x7FFFFFFF


def seq_gt(a: int, b: int) -> bool:
    """Whether `a` lies after `b`."""
    return (b - a) & 0xFFFFFFFF >= 0x80000000


def seq_ge(a: int, b: int) -> bool:
    """Whether `a` lies after `b` or is `b`."""
    return (b - a - 1) & 0xFFFFFFFF >= 0x7FFFFFFF


def seq_add(a: int, n: int) -> int:
    """The place `n` bytes after `a` (before it if negative)."""
    return (a + n) & 0xFFFFFFFF


def seq_diff(a: int, b: int) -> int:
    """How far `a` lies after `b`, in -2^31 .. 2^31-1: negative if it lies before."""
    return (((a - b) & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


def seq_in_window(seq: int, start: int, size: int) -> bool:
    """Whether `seq` is one of the `size` places from `start` on; never if the window is empty."""
    return (seq - start) & 0xFFFFFFFF < size


def seq_max(a: int, b: int) -> int:
    """Whichever lies further ahead."""
    return b if (a - b) & 0xFFFFFFFF >= 0x80000000 else a


def seq_min(a: int, b: int) -> int:
    """Whichever lies further behind."""
    return a if (a - b) & 0xFFFFFFFF >= 0x80000000 else b


class SeqNumber(int):
    """A sequence number whose comparison and arithmetic wrap.

    Adding or subtracting a plain integer gives another `SeqNumber`; the difference of two is a signed
    distance, a plain `int`. Equality and hash are the integer's. Because `<` is no total order over the whole
    circle, sorting is meaningful only among numbers within one window.
    """

    __slots__ = ()

    def __new__(cls, value: int = 0) -> SeqNumber:
        return int.__new__(cls, int(value) & 0xFFFFFFFF)

    def __lt__(self, other: int) -> bool:
        return (int(self) - int(other)) & SEQ_MASK >= _HALF

    def __le__(self, other: int) -> bool:
        return (int(self) - int(other) - 1) & SEQ_MASK >= _HALF - 1

    def __gt__(self, other: int) -> bool:
        return (int(other) - int(self)) & SEQ_MASK >= _HALF

    def __ge__(self, other: int) -> bool:
        return (int(other) - int(self) - 1) & SEQ_MASK >= _HALF - 1

    def __add__(self, n: int) -> SeqNumber:
        return SeqNumber(int(self) + int(n))

    __radd__ = __add__

    @overload
    def __sub__(self, other: SeqNumber) -> int: ...  # type: ignore[overload-overlap]
    @overload
    def __sub__(self, other: int) -> SeqNumber: ...
    def __sub__(self, other: int) -> int:
        if isinstance(other, SeqNumber):
            return seq_diff(int(self), int(other))
        return SeqNumber(int(self) - int(other))

    def __rsub__(self, other: int) -> Any:
        return seq_diff(int(other), int(self))

    def in_window(self, start: int, size: int) -> bool:
        """Whether this is one of the `size` places from `start` on; never if the window is empty."""
        return (int(self) - int(start)) & SEQ_MASK < size

    def __repr__(self) -> str:
        return f"SeqNumber({int(self)})"

    def __str__(self) -> str:
        return str(int(self))
