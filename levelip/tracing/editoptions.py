"""TCP options of one header changed, inserted and removed; the others stay as they are, in their order."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from levelip.tracing.fieldvalues import EditError
from levelip.tracing.optionfields import walk_options
from levelip.wire import options as wire

_WHOLE = "tcp.options"
_NUMBERS = {  # name: kind, offset in the option's data, size, size of all its data
    "tcp.options.mss_val": (wire.KIND_MSS, 0, 2, 2),
    "tcp.options.wscale.shift": (wire.KIND_WSCALE, 0, 1, 1),
    "tcp.options.timestamp.tsval": (wire.KIND_TIMESTAMPS, 0, 4, 8),
    "tcp.options.timestamp.tsecr": (wire.KIND_TIMESTAMPS, 4, 4, 8),
}
_DATA = {"tcp.options.md5.digest": wire.KIND_MD5, "tcp.options.tfo.cookie": wire.KIND_FAST_OPEN}
_SACK = {"tcp.options.sack_le": 0, "tcp.options.sack_re": 1}
_FLAGS = {
    "tcp.options.mss": wire.KIND_MSS,
    "tcp.options.wscale": wire.KIND_WSCALE,
    "tcp.options.sack_perm": wire.KIND_SACK_PERMITTED,
    "tcp.options.sack": wire.KIND_SACK,
    "tcp.options.timestamp": wire.KIND_TIMESTAMPS,
    "tcp.options.md5": wire.KIND_MD5,
    "tcp.options.ao": wire.KIND_AO,
    "tcp.options.mptcp": wire.KIND_MPTCP,
    "tcp.options.tfo": wire.KIND_FAST_OPEN,
}
_EMPTY = (wire.KIND_SACK_PERMITTED, wire.KIND_FAST_OPEN)
"""Options that may be there without data: a flag can insert them."""
OPTION_FIELDS = frozenset({_WHOLE, *_NUMBERS, *_DATA, *_SACK, *_FLAGS})
"""Names that this module changes."""

_Item = tuple[int, bytes]
_MAX_SACK_BLOCKS = 4


def edit_options(raw: bytes, changes: Mapping[str, Any]) -> bytes:
    """The options, padded to whole words, with `changes`: name → value, None: remove. EditError says what cannot be."""
    if _WHOLE in changes:
        if len(changes) > 1:
            raise EditError("the options are set as a whole and one by one: do either", _WHOLE)
        whole: bytes = changes[_WHOLE] or b""
        return _padded(whole)
    items = _read(raw)
    ended = (wire.KIND_EOL, b"") in items
    items = [item for item in items if item[0] != wire.KIND_EOL]
    for name, value in changes.items():
        if value is None or value is False:
            kind = _kind(name)
            items = [item for item in items if item[0] != kind]
        elif name in _NUMBERS:
            kind, at, size, length = _NUMBERS[name]
            items = _put(items, kind, length, at, value.to_bytes(size, "big"))
        elif name in _DATA:
            items = _replace(items, _DATA[name], value)
        elif name in _FLAGS and not any(item[0] == _FLAGS[name] for item in items):
            if _FLAGS[name] not in _EMPTY:
                raise EditError(f"{name} cannot be inserted without its value", name)
            items.append((_FLAGS[name], b""))
    if any(changes.get(name) is not None for name in _SACK):
        items = _sack(items, changes.get("tcp.options.sack_le"), changes.get("tcp.options.sack_re"))
    return _write(items, ended)


def _kind(name: str) -> int:
    if name in _NUMBERS:
        return _NUMBERS[name][0]
    if name in _SACK:
        return wire.KIND_SACK
    return _DATA[name] if name in _DATA else _FLAGS[name]


def _read(raw: bytes) -> list[_Item]:
    rows = walk_options(raw, 0, len(raw))
    read = rows[-1][1] + rows[-1][2] if rows else 0
    if read < len(raw) and not (rows and rows[-1][0] == wire.KIND_EOL):
        raise EditError(f"the options cannot be read from byte {read} on; set them as a whole: tcp.options=HEX", _WHOLE)
    return [(kind, raw[at + 2 : at + length]) for kind, at, length in rows]


def _put(items: list[_Item], kind: int, length: int, at: int, value: bytes) -> list[_Item]:
    """A number into every option of a kind that has the right length; where there is none, into a new one."""
    if not any(item[0] == kind and len(item[1]) == length for item in items):
        items = [item for item in items if item[0] != kind]  # one of a wrong length would count, too
        return [*items, (kind, bytes(at) + value + bytes(length - at - len(value)))]
    return [
        (one, data[:at] + value + data[at + len(value) :]) if one == kind and len(data) == length else (one, data)
        for one, data in items
    ]


def _replace(items: list[_Item], kind: int, data: bytes) -> list[_Item]:
    if any(item[0] == kind for item in items):
        return [(one, data if one == kind else old) for one, old in items]
    return [*items, (kind, data)]


def _sack(items: list[_Item], left: list[int] | None, right: list[int] | None) -> list[_Item]:
    blocks = [edge for kind, data in items if kind == wire.KIND_SACK and len(data) % 8 == 0
              for edge in struct.iter_unpack(">II", data)]  # fmt: skip
    lefts = left if left is not None else [block[0] for block in blocks]
    rights = right if right is not None else [block[1] for block in blocks]
    if len(lefts) != len(rights):
        raise EditError(
            f"{len(lefts)} left and {len(rights)} right edges make no SACK blocks: give as many of either",
            "tcp.options.sack_le" if left is not None else "tcp.options.sack_re",
        )
    if len(lefts) > _MAX_SACK_BLOCKS:
        raise EditError(f"there is room for {_MAX_SACK_BLOCKS} SACK blocks", "tcp.options.sack_le")
    data = b"".join(struct.pack(">II", *edges) for edges in zip(lefts, rights, strict=True))
    at = next((index for index, item in enumerate(items) if item[0] == wire.KIND_SACK), len(items))
    rest = [item for item in items if item[0] != wire.KIND_SACK]
    return [*rest[:at], (wire.KIND_SACK, data), *rest[at:]]


def _write(items: list[_Item], ended: bool) -> bytes:
    raw = b"".join(map(_bytes, items))
    nop = (wire.KIND_NOP, b"")
    if len(raw) > wire.MAX_OPTIONS_LEN or all(item == nop for item in items):  # alignment gives way
        raw = b"".join(_bytes(item) for item in items if item != nop)
    return _padded(raw, nop=not ended)


def _bytes(item: _Item) -> bytes:
    kind, data = item
    if kind <= wire.KIND_NOP:
        return bytes((kind,))
    if len(data) > wire.MAX_OPTIONS_LEN - 2:
        raise EditError(f"{len(data)} bytes of option {kind}; there is room for {wire.MAX_OPTIONS_LEN - 2}", _WHOLE)
    return bytes((kind, len(data) + 2)) + data


def _padded(raw: bytes, *, nop: bool = False) -> bytes:
    """To whole words: with END, or with NOP, behind which further options may stand."""
    if len(raw) > wire.MAX_OPTIONS_LEN:
        raise EditError(f"{len(raw)} bytes of TCP options; there is room for {wire.MAX_OPTIONS_LEN}", _WHOLE)
    return raw + (b"\x01" if nop else b"\0") * (-len(raw) & 3)
