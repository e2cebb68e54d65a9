"""Numbers and names of interfaces: the stack's, which IP_PKTINFO and memberships of its sockets go by.

They are asked of the gateway each time (the call "interfaces" of docs/rpc.md). OSError(ENETDOWN) without a stack.
"""

from __future__ import annotations

import errno
import operator
import os

from levelip.client.program import PROGRAM

_UNSIGNED_LONG = 1 << 64


def if_nameindex() -> list[tuple[int, str]]:
    """(number, name) of each."""
    return [(row[0], row[1]) for row in PROGRAM.call("interfaces", 0)[0]["interfaces"]]


def if_nametoindex(name: str | bytes | os.PathLike[str], /) -> int:
    """The number of the interface with this name. OSError without an errno, as the standard library raises it."""
    wanted = os.fsdecode(name)
    if "\0" in wanted:
        raise ValueError("embedded null byte")
    for index, known in if_nameindex():
        if known == wanted:
            return index
    raise OSError("no interface with this name")


def if_indextoname(index: int, /) -> str:
    """The name of the interface with this number. OSError(ENXIO)."""
    try:
        number = operator.index(index)
    except TypeError:
        raise TypeError("an integer is required") from None
    if not 0 <= number < _UNSIGNED_LONG:
        raise OverflowError("can't convert to C unsigned long")
    for known, name in if_nameindex():
        if known == number:
            return name
    raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
