"""What hosts do with the options of an IPv4 header (RFC 791 3.1, RFC 1122 3.2.1.8): judge them, put their own address
or time into them, and send back those that record the way."""

from __future__ import annotations

from levelip.wire.errors import Malformed
from levelip.wire.ipv4 import (
    OPTION_CIPSO,
    OPTION_END,
    OPTION_LOOSE_SOURCE_ROUTE,
    OPTION_NOP,
    OPTION_RECORD_ROUTE,
    OPTION_ROUTER_ALERT,
    OPTION_STRICT_SOURCE_ROUTE,
    OPTION_TIMESTAMP,
    Ipv4Option,
    iter_options,
)

MAX_OPTIONS = 40
"""Bytes: an IPv4 header has 60 at most, and 20 without options (RFC 791 3.1)."""
_TIMES_ONLY, _TIMES_AND_ADDRESSES, _PRESPECIFIED = 0, 1, 3  # flag of a timestamp option
_MOST_OVERFLOW = 15
_REFUSED = (OPTION_LOOSE_SOURCE_ROUTE, OPTION_STRICT_SOURCE_ROUTE, OPTION_CIPSO)
_COMMON = (OPTION_NOP, OPTION_END, OPTION_RECORD_ROUTE, OPTION_TIMESTAMP, OPTION_ROUTER_ALERT)


def bad_byte(kind: int, data: bytes) -> int | None:
    """Where in the option, counted from its type byte, a value is impossible; None: nowhere. As ip_options_compile."""
    size = len(data) + 2
    if kind in (OPTION_RECORD_ROUTE, OPTION_LOOSE_SOURCE_ROUTE, OPTION_STRICT_SOURCE_ROUTE):
        if size < 3:
            return 1
        # RFC 791 3.1: the pointer counts from 1 at the type byte and passes the length once the route is full
        if data[0] < 4 or (data[0] <= size and data[0] + 3 > size):
            return 2
    elif kind == OPTION_TIMESTAMP:
        if size < 4:
            return 1
        need = 4 if data[1] & 15 == _TIMES_ONLY else 8
        if data[1] & 15 not in (_TIMES_ONLY, _TIMES_AND_ADDRESSES, _PRESPECIFIED):
            return 3
        if data[0] < 5 or (data[0] <= size and data[0] + need - 1 > size):
            return 2
    elif kind == OPTION_ROUTER_ALERT and size < 4:
        return 1
    return None


def to_send(options: bytes, *, privileged: bool) -> bytes | None:
    """What a socket may have as its options (IP_OPTIONS of ip(7)), in whole words, the place of our own address or time
    empty; None: EINVAL.

    As net/ipv4/ip_options.c ip_options_get, but for source routes, which no socket may send here: they are refused on
    arrival, too (RFC 7126 4.3). Who is not `privileged` sends no kinds but the common ones.
    """
    if len(options) > MAX_OPTIONS:
        return None
    seen: set[int] = set()
    kept = b""
    try:
        for option in iter_options(options):
            kind, data = option.kind, option.data
            if kind in _REFUSED or not (privileged or kind in _COMMON) or bad_byte(kind, data) is not None:
                return None
            if kind in (OPTION_RECORD_ROUTE, OPTION_TIMESTAMP) and kind in seen:
                return None
            if kind == OPTION_TIMESTAMP and data[0] > len(data) + 2 and _overflown(data):
                return None
            seen.add(kind)
            kept += Ipv4Option(kind, _emptied(kind, data)).serialize()
    except Malformed:
        return None
    return _whole_words(kept, len(options))


def _overflown(data: bytes) -> bool:
    return data[1] & 15 != _PRESPECIFIED and data[1] >> 4 == _MOST_OVERFLOW


def _emptied(kind: int, data: bytes) -> bytes:
    """The place that sending fills in, zero: what getsockopt(2) shows (ip_options_undo)."""
    if kind == OPTION_RECORD_ROUTE:
        need = 4
    elif kind == OPTION_TIMESTAMP and data[1] & 15 != _PRESPECIFIED:
        need = 4 if data[1] & 15 == _TIMES_ONLY else 8
    else:
        return data
    where = data[0] - 3  # in `data`, which starts with the option's third byte
    return data if where + need > len(data) else data[:where] + bytes(need) + data[where + need :]


def visited(options: bytes, own: bytes, milliseconds: int) -> bytes:
    """The options as a host leaves them that sends the packet, or that it has reached: its address `own` and time in
    record route and timestamp (RFC 1122 3.2.1.8 d, e), the others as they were. They are well formed."""
    kept = b""
    for option in iter_options(options):
        if option.kind == OPTION_RECORD_ROUTE:
            option = Ipv4Option(option.kind, _recorded(option.data, own))
        elif option.kind == OPTION_TIMESTAMP:
            option = Ipv4Option(option.kind, _stamped(option.data, own, milliseconds))
        kept += option.serialize()
    return _whole_words(kept, len(options))


def echoed(options: bytes) -> bytes:
    """Those that go back with an answer: record route and timestamps (RFC 1122 3.2.2.6; Linux's ip_options_echo)."""
    back = (OPTION_RECORD_ROUTE, OPTION_TIMESTAMP)
    return _whole_words(b"".join(one.serialize() for one in iter_options(options) if one.kind in back))


def _whole_words(options: bytes, least: int = 0) -> bytes:
    size = max(len(options), least)
    return options.ljust(size + (-size & 3), b"\0")


def _recorded(data: bytes, own: bytes) -> bytes:
    """Pointer, then room for addresses; the pointer counts from the type byte, which is 1."""
    where = data[0] - 3  # in `data`, which starts with the third byte
    if where + 4 > len(data):
        return data
    return bytes((data[0] + 4,)) + data[1:where] + own + data[where + 4 :]


def _stamped(data: bytes, own: bytes, milliseconds: int) -> bytes:
    """Pointer, overflow and flag, then room for times, or addresses with times."""
    at, overflow, flag = data[0], data[1] >> 4, data[1] & 15
    need = 4 if flag == _TIMES_ONLY else 8
    where = at - 3  # in `data`, which starts with the third byte
    if where + need > len(data):
        if overflow < _MOST_OVERFLOW and flag != _PRESPECIFIED:
            data = data[:1] + bytes(((overflow + 1) << 4 | flag,)) + data[2:]
        return data
    if flag == _PRESPECIFIED and data[where : where + 4] != own:
        return data
    stamp = milliseconds.to_bytes(4, "big")
    entry = stamp if need == 4 else own + stamp
    return bytes((at + need,)) + data[1:where] + entry + data[where + need :]
