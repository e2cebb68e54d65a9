"""Values of fields as people write them, to what stands in a packet."""

from __future__ import annotations

import ast
import re
from typing import Any

from levelip.tracing.fieldtypes import Field, Kind
from levelip.wire.addr import parse_ipv4, parse_mac

_TRUE = {"1": True, "true": True, "yes": True, "set": True, "0": False, "false": False, "no": False, "unset": False}
_SEPARATORS = re.compile(r"[\s:.-]+")
_LISTS = ("tcp.options.sack_le", "tcp.options.sack_re")


class EditError(ValueError):
    """A change that cannot be made: why, and of which field ("": of none in particular); `of_value`: it is the value
    that is wrong."""

    def __init__(self, message: str, field: str = "", *, of_value: bool = False) -> None:
        super().__init__(message)
        self.field = field
        self.of_value = of_value


_LONGEST_NUMBER = 200


def is_removal(field: Field, value: Any) -> bool:
    """Whether a value says that an option shall go: "del", or a flag of an option set to 0."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ("del", "delete"))


def parse_value(field: Field, value: Any) -> Any:
    """The value as the field has it: int, bool, packed address, bytes; a list of SACK edges. EditError else."""
    if field.name in _LISTS:
        return _edges(field, value)
    if field.kind is Kind.NUMBER:
        return _number(field, value)
    if field.kind is Kind.FLAG:
        return _flag(field, value)
    if field.kind is Kind.IPV4:
        return _packed(field, value, 4, parse_ipv4, "an IPv4 address, as 10.0.0.1")
    if field.kind is Kind.MAC:
        return _packed(field, value, 6, parse_mac, "a MAC address, as 02:00:00:00:00:01")
    if field.kind is Kind.BYTES:
        return parse_bytes(field.name, value)
    raise EditError(f"{field.name} cannot be set", field.name)


def _number(field: Field, value: Any) -> int:
    if isinstance(value, str):
        text = value.strip()
        try:
            value = int(text[:_LONGEST_NUMBER], 10 if text.isdigit() else 0)  # cut, it is too large all the same
        except ValueError:
            raise EditError(f"{field.name} is a number; {value!r} is none", field.name) from None
    if not isinstance(value, int) or isinstance(value, bool):
        raise EditError(f"{field.name} is a number; {value!r} is none", field.name)
    place = field.place
    if place is not None:
        most = ((1 << place.bits) - 1) * place.scale
        if value % place.scale:
            raise EditError(f"{field.name} counts in steps of {place.scale}", field.name)
    else:
        most = (1 << (field.bits or 32)) - 1
    if not 0 <= value <= most:
        raise EditError(f"{field.name} holds 0 to {most}, not {value}", field.name)
    return value


def _flag(field: Field, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    known = _TRUE.get(value.strip().lower()) if isinstance(value, str) else None
    if known is None:
        raise EditError(f"{field.name} is 0 or 1, not {value!r}", field.name)
    return known


def _packed(field: Field, value: Any, size: int, parse: Any, what: str) -> bytes:
    if isinstance(value, bytes) and len(value) == size:
        return value
    if isinstance(value, str):
        try:
            packed: bytes = parse(value.strip())
            return packed
        except ValueError:
            pass
    raise EditError(f"{field.name} is {what}, not {value!r}", field.name)


def parse_bytes(name: str, value: Any) -> bytes:
    """Bytes, a "quoted" text with Python's escapes, or hex digits, with 0x, colons or blanks if one likes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, str):
        text = value.strip()
        if text[:1] == '"':
            try:
                quoted = ast.literal_eval(text)
            except (ValueError, SyntaxError):
                raise EditError(f"{name}: a string that does not end, or a wrong escape: {text}", name) from None
            if isinstance(quoted, str):
                return quoted.encode("latin-1") if all(ord(one) < 256 for one in quoted) else quoted.encode()
        digits = _SEPARATORS.sub("", text.removeprefix("0x"))
        if re.fullmatch(r"(?:[0-9a-fA-F]{2})*", digits):
            return bytes.fromhex(digits)
    raise EditError(f'{name} is bytes: hex as 0d0a, or a "string", not {value!r}', name)


def _edges(field: Field, value: Any) -> list[int]:
    """One or more numbers: 5, [5, 9], "5,9"."""
    if isinstance(value, str):
        value = [part for part in re.split(r"[\s,]+", value.strip("[] ")) if part]
    if isinstance(value, int):
        value = [value]
    if not isinstance(value, list | tuple) or not value:
        raise EditError(f"{field.name} is one or more numbers, as 1000,3000", field.name)
    return [_number(field, one) for one in value]
