"""What a field is: its name, its type, how it is read from a view, and where its bits lie."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from levelip.tracing.view import View
from levelip.wire.addr import format_address, format_mac

Get = Callable[[Any], Any]
"""The value in a view, None: not there. Of a field that may occur several times in one packet, a sequence."""
Found = tuple[Any, int, int]
"""A value, and where it lies in the view's data: offset and length; -1, 0: it is not read from one place."""


class Kind(Enum):
    """Types of values, by what they can be compared with."""

    NUMBER = "number"
    FLAG = "flag"  # 0 or 1
    IPV4 = "IPv4 address"
    MAC = "MAC address"
    BYTES = "bytes"
    TEXT = "text"
    PRESENCE = "protocol"  # there, or not
    ANY = "any"  # data of events: what the value is decides


@dataclass(frozen=True, slots=True)
class Place:
    """Where a field of fixed position lies: `size` bytes at `offset` in the header `layer` (an attribute of View), of
    them the bits in `mask` (0: all), which count units of `scale`."""

    layer: str
    offset: int
    size: int
    mask: int = 0
    scale: int = 1

    @property
    def bits(self) -> int:
        return self.mask.bit_count() if self.mask else self.size * 8

    @property
    def shift(self) -> int:
        return (self.mask & -self.mask).bit_length() - 1 if self.mask else 0


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `get` reads it; `many`: `get` gives a sequence. `bits`: width of a number, 0: no bound.

    `of`: "frame" (packets), "event", or "both". `inner`: a quoted packet has it, too. `words`: the values that there
    are, for a text that is one of a list. `payload`: reading it takes the bytes of the payload. `alias`: the fields
    that it stands for together. `place`: None of what is computed. `find`: value and place of each occurrence, for
    fields without a fixed place.
    """

    name: str
    kind: Kind
    title: str
    get: Get
    many: bool = False
    bits: int = 0
    of: str = "frame"
    inner: bool = False
    words: Callable[[], Sequence[str]] | None = None
    payload: bool = False
    alias: tuple[str, ...] = ()
    place: Place | None = None
    find: Callable[[View], list[Found]] | None = None

    def words_now(self) -> Sequence[str]:
        """The values that there are, of a text that is one of a list; else none."""
        return self.words() if self.words is not None else ()

    def values(self, context: Any) -> list[Any]:
        """All occurrences, the packet's own first, then those of the packet that it quotes."""
        found: list[Any] = []
        while context is not None:
            value = self.get(context)
            if value is not None:
                if self.many:
                    found += value
                else:
                    found.append(value)
            context = context.quoted if self.inner else None
        return found

    def show(self, value: Any) -> Any:
        """A value as people write it: addresses as text, the rest as it is."""
        if isinstance(value, bytes):
            if self.kind is Kind.IPV4:
                return format_address(value) if len(value) in (4, 16) else value.hex()
            if self.kind is Kind.MAC:
                return format_mac(value)
        return value


_STRUCTS = {1: struct.Struct(">B"), 2: struct.Struct(">H"), 4: struct.Struct(">I")}


def reader(name: str, place: Place, kind: Kind) -> Get:
    """How a field of fixed position is read; where its layer has no bytes, what the frame holds of that name."""
    layer, offset, size = place.layer, place.offset, place.size

    def held(view: View) -> Any:
        known = view.held.get(name)
        return known(view.frame) if known is not None else None

    if kind in (Kind.IPV4, Kind.MAC, Kind.BYTES):

        def get_bytes(view: View) -> Any:
            at: int = getattr(view, layer)
            if at < 0:
                return held(view) if view.held else None
            at += offset
            value = view.data[at : at + size]
            return value if len(value) == size else None

        return get_bytes

    unpack = _STRUCTS[size].unpack_from
    if kind is Kind.FLAG:
        mask = place.mask

        def get_flag(view: View) -> Any:
            at: int = getattr(view, layer)
            if at < 0:
                return held(view) if view.held else None
            try:
                return unpack(view.data, at + offset)[0] & mask != 0
            except struct.error:
                return None

        return get_flag
    if not place.mask:

        def get_number(view: View) -> Any:
            at: int = getattr(view, layer)
            if at < 0:
                return held(view) if view.held else None
            try:
                return unpack(view.data, at + offset)[0]
            except struct.error:
                return None

        return get_number
    mask, shift, scale = place.mask, place.shift, place.scale

    def get_bits(view: View) -> Any:
        at: int = getattr(view, layer)
        if at < 0:
            return held(view) if view.held else None
        try:
            return ((unpack(view.data, at + offset)[0] & mask) >> shift) * scale
        except struct.error:
            return None

    return get_bits


def fixed(
    name: str, kind: Kind, layer: str, offset: int, size: int, title: str, *, mask: int = 0, scale: int = 1,
    inner: bool = True,
) -> Field:  # fmt: skip
    """A field of fixed position."""
    place = Place(layer, offset, size, mask, scale)
    bits = 1 if kind is Kind.FLAG else place.bits + scale.bit_length() - 1 if kind is Kind.NUMBER else 0
    return Field(name, kind, title, reader(name, place, kind), bits=bits, inner=inner, place=place)


def presence(name: str, layer: str, title: str, held: str = "") -> Field:
    """A protocol: whether the view has its header, or holds the field `held` of it."""

    def get(view: View) -> Any:
        return True if getattr(view, layer) >= 0 or (held and held in view.held) else None

    return Field(name, Kind.PRESENCE, title, get, inner=layer not in ("eth", "arp"))


def found(
    name: str, kind: Kind, title: str, find: Callable[[View], list[Found]], *, many: bool = False, bits: int = 0,
    inner: bool = True,
) -> Field:  # fmt: skip
    """A field that has to be looked for."""

    def get(view: View) -> Any:
        return next((value for value, _, _ in find(view)), None)

    def get_many(view: View) -> Any:
        return [value for value, _, _ in find(view)]

    return Field(name, kind, title, get_many if many else get, many=many, bits=bits, inner=inner, find=find)


def alias(name: str, fields: Sequence[Field], title: str) -> Field:
    """Source and destination in one: a comparison is true if it is of either."""
    gets = [one.get for one in fields]

    def get(view: View) -> Any:
        return [value for value in [one(view) for one in gets] if value is not None]

    first = fields[0]
    return Field(
        name, first.kind, title, get, many=True, bits=first.bits, inner=first.inner,
        alias=tuple(one.name for one in fields),
    )  # fmt: skip
