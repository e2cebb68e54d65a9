"""Conditions as closures: comparisons of what an operand gives with a constant, or with another operand."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from levelip.tracing.fieldtypes import Kind
from levelip.tracing.operands import Operand, Run

ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class Member:
    """Whether an address lies in a network."""

    __slots__ = ("_contains",)

    def __init__(self, contains: Callable[[Any], bool]) -> None:
        self._contains = contains

    def __call__(self, value: Any) -> bool:
        return self._contains(value)


class Equals:
    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __call__(self, value: Any) -> bool:
        return bool(value == self._value)


class Between:
    __slots__ = ("_high", "_low")

    def __init__(self, low: Any, high: Any) -> None:
        self._low, self._high = low, high

    def __call__(self, value: Any) -> bool:
        try:
            return bool(self._low <= value <= self._high)
        except TypeError:
            return False  # event data of another type


def joined(op: str, parts: Sequence[Run]) -> Run:
    if len(parts) == 2:
        one, two = parts
        if op == "and":
            return lambda context: one(context) and two(context)
        return lambda context: one(context) or two(context)
    if op == "and":
        return lambda context: all(part(context) for part in parts)
    return lambda context: any(part(context) for part in parts)


def equal(one: Operand, wanted: Any) -> Run:
    """`==` with a constant, what nearly every condition consists of."""
    get = one.get
    if get is None:
        return any_of(one, Equals(wanted))
    if not one.inner:
        return lambda context: get(context) == wanted

    def run(context: Any) -> bool:
        if get(context) == wanted:
            return True
        return context.quoted is not None and run(context.quoted)

    return run


def ordered(one: Operand, compare: Callable[[Any, Any], bool], wanted: Any) -> Run:
    if one.kind is not Kind.ANY:
        return any_of(one, lambda value: compare(value, wanted))

    def test(value: Any) -> bool:
        try:
            return compare(value, wanted)
        except TypeError:
            return False

    return any_of(one, test)


def any_of(one: Operand, test: Callable[[Any], bool]) -> Run:
    """Whether a value passes."""
    get, values = one.get, one.values
    if get is None:

        def run_many(context: Any) -> bool:
            for value in values(context):  # noqa: SIM110 - a generator costs as much again
                if test(value):
                    return True
            return False

        return run_many

    def run(context: Any) -> bool:
        value = get(context)
        if value is not None and test(value):
            return True
        return context.quoted is not None and one.inner and run(context.quoted)

    return run


def by_test(one: Operand, op: str, equal: Callable[[Any], bool]) -> Run:
    """The four equalities: == any, != all differ, ~= any differs, === all equal; false where there is no value."""
    values = one.values
    if op == "==":
        return any_of(one, equal)
    if op == "~=":
        return lambda context: any(not equal(value) for value in values(context))

    def run(context: Any) -> bool:
        found = values(context)
        return bool(found) and all(equal(value) is (op == "===") for value in found)

    return run


def pairs(one: Operand, two: Operand, op: str) -> Run:
    """Values of two fields."""
    compare: Callable[[Any, Any], Any] = ORDER.get(op, operator.eq if op in ("==", "===") else operator.ne)
    every = op in ("!=", "===")

    def test(a: Any, b: Any) -> bool:
        try:
            return bool(compare(a, b))
        except TypeError:
            return False

    def run(context: Any) -> bool:
        results = [test(a, b) for a in one.values(context) for b in two.values(context)]
        return all(results) and bool(results) if every else any(results)

    return run
