"""What stands on either side of a comparison: fields, values, and what is calculated from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from levelip.tracing.expressionparser import Node
from levelip.tracing.fieldtypes import Field, Get, Kind
from levelip.wire.addr import Prefix, format_ipv4, format_mac, parse_address

Run = Callable[[Any], bool]
"""A condition on a View or an EventView."""


def _nothing(_context: Any) -> list[Any]:
    return []


@dataclass(slots=True)
class Operand:
    """`values` gives all occurrences; `get` the one of a field that occurs once a packet (None: use `values`), `inner`:
    then once in each quoted packet, too. `constant`: it is `value`. `kind_name` tells networks from addresses."""

    kind: Kind
    name: str
    values: Callable[[Any], list[Any]] = _nothing
    get: Get | None = None
    inner: bool = False
    constant: bool = False
    value: Any = None
    field: Field | None = None
    kind_name: str = ""

    def __post_init__(self) -> None:
        if self.constant:
            value = self.value
            self.values = lambda _context: [value]

    def mapped(self, function: Callable[[Any], Any], kind: Kind | None = None) -> Operand:
        """A function of each value; where it gives None there is none."""
        kind = kind or self.kind
        if self.constant:
            return Operand(kind, self.name, constant=True, value=function(self.value))
        values = self.values

        def mapped(context: Any) -> list[Any]:
            return [result for result in map(function, values(context)) if result is not None]

        return Operand(kind, self.name, values=mapped)


def field_operand(field: Field) -> Operand:
    """A field."""
    get = None if field.many else field.get
    return Operand(field.kind, field.name, values=field.values, get=get, inner=field.inner, field=field)


def literal(node: Node) -> Operand:
    """A value that stands in the text."""
    kind = {"number": Kind.NUMBER, "text": Kind.TEXT, "octets": Kind.BYTES}.get(node.op, Kind.IPV4)
    name = "network" if node.op == "prefix" else ""
    return Operand(kind, "", constant=True, value=node.value, kind_name=name)


def describe(operand: Operand) -> str:
    """Its name in errors."""
    return operand.name or "this"


def presence(operand: Operand) -> Run:
    """An operand alone, as a condition: a flag, or a result, is not zero; a field is there."""
    if operand.constant:
        value = bool(operand.value)
        return lambda _context: value
    get, inner = operand.get, operand.inner
    if operand.kind is Kind.FLAG or (operand.field is None and operand.kind is Kind.NUMBER):
        if get is None:
            return lambda context: any(operand.values(context))

        def run(context: Any) -> bool:
            return bool(get(context)) or (inner and context.quoted is not None and run(context.quoted))

        return run
    if operand.kind is Kind.ANY:
        return lambda context: any(value is not False for value in operand.values(context))
    if get is None:
        return lambda context: bool(operand.values(context))

    def there(context: Any) -> bool:
        return get(context) is not None or (inner and context.quoted is not None and there(context.quoted))

    return there


def constant_for(constant: Operand, of: Operand) -> Any:
    """The constant as values of `of` are compared with it, of a network a test; ValueError says why there is none."""
    value, kind = constant.value, of.kind
    if constant.kind_name == "network":
        return _network(value, of)
    if kind is Kind.NUMBER and constant.kind is Kind.NUMBER:
        bits = of.field.bits if of.field is not None else 0
        if bits and not 0 <= value < 1 << bits:
            raise ValueError(f"{describe(of)} holds 0 to {(1 << bits) - 1}")
        return value
    if kind is Kind.FLAG:
        if isinstance(value, bool) or (constant.kind is Kind.NUMBER and value in (0, 1)):
            return bool(value)
        raise ValueError(f"{describe(of)} is a flag: 0 or 1, true or false")
    if kind is Kind.IPV4:
        if constant.kind is Kind.IPV4:
            return value
        raise ValueError(f"{describe(of)} is an IPv4 address, written as 10.0.0.1 or 10.0.0.0/8, without quotes")
    if kind is Kind.MAC:
        if constant.kind is Kind.BYTES and len(value) == 6:
            return value
        raise ValueError(f"{describe(of)} is a MAC address, six bytes as 02:00:00:00:00:01")
    if kind is Kind.BYTES:
        if constant.kind is Kind.BYTES:
            return value
        if constant.kind is Kind.TEXT:
            return value.encode()
        if constant.kind is Kind.NUMBER and isinstance(value, int) and 0 <= value < 256:
            return bytes([value])
        raise ValueError(f'{describe(of)} is bytes, written as 0d:0a, as a "string", or one byte as a number')
    if kind is Kind.TEXT:
        if constant.kind is Kind.TEXT:
            return value
        raise ValueError(f'{describe(of)} is text, written as a "string"')
    if kind is Kind.ANY:  # cores tell addresses as text
        if constant.kind is Kind.IPV4:
            return format_ipv4(value)
        return format_mac(value) if constant.kind is Kind.BYTES and len(value) == 6 else value
    if isinstance(value, bool):
        raise ValueError(f"{describe(of)} is {kind.value}, not a flag")
    raise ValueError(f"{describe(of)} is a {kind.value}, this is {constant.kind.value}")


def _network(prefix: Prefix, of: Operand) -> Callable[[Any], bool]:
    if of.kind is Kind.IPV4:
        mask = int.from_bytes(prefix.netmask, "big")
        network = int.from_bytes(prefix.network, "big")
        return lambda value: len(value) == 4 and int.from_bytes(value, "big") & mask == network
    if of.kind is not Kind.ANY:
        raise ValueError(f"{describe(of)} is {of.kind.value}, this is a network")

    def contains(value: Any) -> bool:
        try:
            return isinstance(value, str) and prefix.contains(parse_address(value))
        except ValueError:
            return False

    return contains
