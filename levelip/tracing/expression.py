"""Conditions on frames and events, in the habit of Wireshark's display filters (docs/expressions.md).

    compile_expression("tcp.flags.syn and tcp.dstport == 80").matches_frame(frame, "ip-tcp", "up")
    compile_expression("event retransmit and conn.cwnd < 4").matches_event(event, figures)

Types, names, kinds of events and reasons are checked when it is compiled, into closures that take of a frame only the
fields that they need. A part that asks about packets is false of an event, and the other way round, negated too.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from levelip.tracing.conditions import ORDER, Between, Equals, Member, any_of, by_test, equal, joined, ordered, pairs
from levelip.tracing.eventfields import CONTEXT_FIELDS, EVENT_FIELDS, EventView
from levelip.tracing.events import Event
from levelip.tracing.expressionparser import COMPARISONS, ExpressionError, Node, Parser
from levelip.tracing.fields import FIELDS, near
from levelip.tracing.fieldtypes import Field, Kind
from levelip.tracing.operands import Operand, Run, constant_for, describe, field_operand, literal, presence
from levelip.tracing.patterns import MOST, Pattern, PatternError, compile_pattern
from levelip.tracing.possible import Where, possible
from levelip.tracing.view import Figures, Read, View, record_view, view

__all__ = ["ALL_FIELDS", "Expression", "ExpressionError", "compile_expression"]

ALL_FIELDS: dict[str, Field] = {**FIELDS, **EVENT_FIELDS, **CONTEXT_FIELDS}
"""Every name that an expression may use."""

_BOTH = frozenset({"frame", "event"})
_FLIPPED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_EQUALITIES = ("==", "!=", "~=", "===")
_MOST_PAIRS = 4096
"""Values that a calculation with fields that are there several times may have; beyond it has none. An IGMP report holds
366 addresses, a TCP header 40 options: four such fields added up would keep a layer busy for minutes."""
_HINTS = {
    "tcp.window_size": "a scaled window needs both SYNs; tcp.window_size_value is what the header holds",
    "tcp.stream": "connections are told apart by conn, or by addresses and ports",
    "tcp.analysis.retransmission": "what a layer decides is an event: event retransmit",
    "tcp.analysis.duplicate_ack": "what a layer decides is an event: event recovery, event loss",
    "frame.number": "frames have ids: frame.id",
    "frame.time": "there is frame.ingress, stack time in ns",
    "http": "what lies in the payload is not taken apart: tcp.payload contains \"GET\"",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition. `fields`: the names that it uses.

    `about_frames`, `about_events`: what it can be true of at all. `needs_payload`: it looks at payloads, so that
    matching a frame whose payload lies in shared memory takes `read`. `needs_figures`: it looks at conn.FIGURE.
    """

    text: str
    fields: tuple[str, ...]
    about_frames: bool
    about_events: bool
    needs_payload: bool
    needs_figures: bool
    _frame: Run
    _event: Run
    _possible: Callable[[Where], bool]

    def possible(self, where: Where) -> bool:
        """Whether it may be true of anything there (possible.py)."""
        return self._possible(where)

    def matches_frame(
        self, frame: Any, seam: str = "", direction: str = "", *, figures: Figures | None = None,
        read: Read | None = None,
    ) -> bool:  # fmt: skip
        """Whether it is true of a frame (DeviceFrame, Packet, Segment, IcmpError, ...; another message has but the
        fields frame.type, seam and direction). `direction`: "up" or "down"."""
        return self.about_frames and self._frame(view(frame, seam, direction, figures=figures, read=read))

    def matches_record(self, record: list[Any], direction: str = "", *, figures: Figures | None = None) -> bool:
        """The same of a frame's record of the tap bus, whose payload may be cut."""
        return self.about_frames and self._frame(record_view(record, direction, figures=figures))

    def matches_view(self, found: View) -> bool:
        """The same of a view, for who asks several expressions about one frame."""
        return self.about_frames and self._frame(found)

    def matches_event(self, event: Event, figures: Figures | None = None) -> bool:
        """Whether it is true of an event."""
        return self.about_events and self._event(EventView(event, figures))

    def __str__(self) -> str:
        return self.text


def compile_expression(text: str) -> Expression:
    """The condition that `text` says; ExpressionError, whose text shows the place, if it says none."""
    compiler = _Compiler(text)
    try:
        tree = Parser(text).parse()
        domain = compiler.domain(tree)
        frame = compiler.condition(tree, "frame") if "frame" in domain else _never
        event = compiler.condition(tree, "event") if "event" in domain else _never
    except RecursionError:
        raise ExpressionError("nested too deeply", text, 0, len(text)) from None
    used = [ALL_FIELDS[name] for name in compiler.used]
    return Expression(
        text, tuple(compiler.used), "frame" in domain, "event" in domain, any(one.payload for one in used),
        any(one.name.startswith("conn.") and one.name not in _NAMED for one in used), frame, event,
        lambda where: possible(tree, compiler.domain, where),
    )  # fmt: skip


_NAMED = ("conn.local", "conn.local_port", "conn.remote", "conn.remote_port")


def _never(_context: Any) -> bool:
    return False


class _Compiler:
    """Trees to closures."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.used: dict[str, None] = {}
        self._patterns: dict[int, Pattern] = {}  # by where they stand: a part is compiled for frames and for events

    def error(self, message: str, node: Node) -> ExpressionError:
        return ExpressionError(message, self._text, node.start, max(1, node.end - node.start))

    # what a part is about

    def domain(self, node: Node) -> frozenset[str]:
        """What the part can be true of; raises where that is nothing, as packets are no events."""
        if node.op == "event":
            self.used["event"] = None
            return frozenset({"event"})
        if node.op == "name":
            field = self._field(node)
            if field is None:
                return _BOTH
            self.used[field.name] = None
            return _BOTH if field.of == "both" else frozenset({field.of})
        items = node.items
        if node.op == "in" or node.op in COMPARISONS:  # `event == arp`: a word is no field
            items = [one for one in items if not self._is_constant(one, items[one is items[0]])]
        domains = [self.domain(item) for item in items]
        if node.op == "or":
            return frozenset().union(*domains)
        result = _BOTH
        for item, one in zip(items, domains, strict=True):
            if not result & one:
                raise self._clash(item, one)
            result &= one
        return result

    def _clash(self, node: Node, domain: frozenset[str]) -> ExpressionError:
        if "frame" in domain:
            hint = "conn.remote_port, conn.remote and the like are known of events, too"
            return self.error(f"this is about packets, what stands before it about events; {hint}", node)
        return self.error("this is about events, what stands before it about packets; join the two by or", node)

    def _field(self, node: Node) -> Field | None:
        return ALL_FIELDS.get(node.value)

    # conditions

    def condition(self, node: Node, of: str) -> Run:
        """The part as something true or false of frames, or of events."""
        if of not in self.domain(node):
            return _never
        match node.op:
            case "or" | "and":
                return joined(node.op, [self.condition(item, of) for item in node.items])
            case "not":
                inner = self.condition(node.items[0], of)
                return lambda context: not inner(context)
            case "event":
                kind = self._word(node.items[0], EVENT_FIELDS["event"])
                return lambda context: context.event.kind == kind
            case "in":
                return self._in(node)
            case "contains" | "matches":
                return self._search(node)
            case "==" | "!=" | "~=" | "===" | "<" | "<=" | ">" | ">=":
                return self._compare(node)
        operand = self.operand(node)
        if operand.constant and not isinstance(operand.value, bool):
            raise self.error("a value alone is no condition; compare it with a field", node)
        return presence(operand)

    def _compare(self, node: Node) -> Run:
        left, right, op = node.items[0], node.items[1], node.op
        if self._is_constant(left, right) and not self._is_constant(right, left):
            left, right, op = right, left, _FLIPPED.get(op, op)
        one = self.operand(left)
        if one.constant:
            raise self.error("two values are compared; one of them has to be a field", node)
        if one.kind is Kind.PRESENCE:
            raise self.error(f"{describe(one)} is a protocol: it is there or not, and has no value to compare", left)
        if self._is_constant(right, left):
            return self._with_constant(one, op, right)
        two = self.operand(right)
        kinds = {one.kind, two.kind} - {Kind.ANY}
        if len(kinds) > 1 and not kinds <= {Kind.NUMBER, Kind.FLAG}:
            raise self.error(f"{describe(one)} is {_a(one.kind)}, {describe(two)} {_a(two.kind)}", node)
        return pairs(one, two, op)

    def _with_constant(self, one: Operand, op: str, right: Node) -> Run:
        value = self._constant(right, one)
        if isinstance(value, Member):
            if op not in _EQUALITIES:
                raise self.error("a network can be compared by == and != only", right)
            return by_test(one, op, value)
        if op in ORDER:
            if one.kind is Kind.FLAG:
                raise self.error(f"{describe(one)} is 0 or 1; it has no order", right)
            return ordered(one, ORDER[op], value)
        return equal(one, value) if op == "==" else by_test(one, op, Equals(value))

    def _in(self, node: Node) -> Run:
        left = node.items[0]
        one = self.operand(left)
        if one.constant:
            raise self.error("what is looked for in a set has to be a field", left)
        if one.kind is Kind.PRESENCE:
            raise self.error(f"{describe(one)} is a protocol: it is there or not, and has no value to compare", left)
        plain: set[Any] = set()
        tests: list[Callable[[Any], bool]] = []
        for item in node.items[1:]:
            if item.op == "range":
                low, high = (self._constant(edge, one) for edge in item.items)
                if isinstance(low, Member) or isinstance(high, Member):
                    raise self.error("a range goes from one value to another, not from a network", item)
                try:
                    backwards = low > high
                except TypeError:
                    raise self.error("the two ends of this range are of different types", item) from None
                if backwards:
                    raise self.error("this range is backwards", item)
                tests.append(Between(low, high))
            else:
                value = self._constant(item, one)
                if isinstance(value, Member):
                    tests.append(value)
                else:
                    plain.add(value)
        if plain:
            tests.insert(0, plain.__contains__)
        return any_of(one, tests[0] if len(tests) == 1 else lambda value: any(test(value) for test in tests))

    def _search(self, node: Node) -> Run:
        left, right = node.items
        one = self.operand(left)
        if one.constant or one.kind not in (Kind.BYTES, Kind.TEXT, Kind.MAC, Kind.ANY):
            hint = "; its bytes are in tcp.payload, udp.payload, data" if one.kind is Kind.PRESENCE else ""
            raise self.error(f"{node.op} looks into text and bytes, not into {_a(one.kind)}{hint}", left)
        if node.op == "contains":
            if right.op not in ("text", "octets"):
                raise self.error('a "string" or bytes as 0d:0a are looked for', right)
            wanted: Any = right.value
            if one.kind in (Kind.BYTES, Kind.MAC):
                wanted = wanted.encode() if isinstance(wanted, str) else wanted
            elif isinstance(wanted, bytes):
                raise self.error(f'{describe(one)} is text; look for a "string"', right)
            return any_of(one, lambda value: isinstance(value, type(wanted)) and wanted in value)
        if right.op != "text":
            raise self.error('a regular expression is a "string"', right)
        return any_of(one, self._pattern(right).found_in)

    def _pattern(self, node: Node) -> Pattern:
        if node.start in self._patterns:
            return self._patterns[node.start]
        try:
            pattern = self._patterns[node.start] = compile_pattern(node.value)
        except PatternError as error:
            at = self._text.find(error.spot, node.start, node.end) if error.spot else -1
            spot = (at, len(error.spot)) if at >= 0 else (node.start, node.end - node.start)
            raise ExpressionError(f"no regular expression: {error}", self._text, *spot) from None
        size = sum(one.size for one in self._patterns.values())
        if size > MOST:
            more = "with those before it " if len(self._patterns) > 1 else ""
            raise self.error(
                f"this regular expression is {more}too large to be looked for in each packet: {size} steps a byte, "
                f"where {MOST} are the most; repeat less", node,
            )  # fmt: skip
        return pattern

    # operands

    def operand(self, node: Node) -> Operand:
        """The part as something that has values."""
        match node.op:
            case "name":
                return self._name(node)
            case "number" | "text" | "ipv4" | "prefix" | "octets":
                return literal(node)
            case "negative":
                inner = self._number(node.items[0])
                return inner.mapped(operator.neg)
            case "+" | "-" | "*" | "/" | "%" | "&":
                return self._arithmetic(node)
            case "call":
                return self._call(node)
            case "slice":
                return self._slice(node)
        raise self.error("a field or a value was expected here, not a condition", node)

    def _name(self, node: Node) -> Operand:
        if node.value in ("true", "false"):
            return Operand(Kind.FLAG, node.value, constant=True, value=node.value == "true")
        field = self._field(node)
        if field is None:
            raise self._unknown(node)
        return field_operand(field)

    def _unknown(self, node: Node) -> ExpressionError:
        name: str = node.value
        if name in EVENT_FIELDS["event"].words_now():
            return self.error(f"there is no field {name!r}; the kind of an event is asked by: event {name}", node)
        for start, hint in _HINTS.items():
            if name == start or name.startswith(f"{start}."):
                return self.error(f"there is no field {name!r}: {hint}", node)
        close = near(name, list(ALL_FIELDS))
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        if not close and "." not in name:
            hint = f'; text stands in quotes: "{name}"'
        return self.error(f"there is no field {name!r}{hint}", node)

    def _number(self, node: Node) -> Operand:
        operand = self.operand(node)
        if operand.kind not in (Kind.NUMBER, Kind.ANY):
            raise self.error(f"one can calculate with numbers, not with {_a(operand.kind)}", node)
        return operand

    def _arithmetic(self, node: Node) -> Operand:
        one, two = self._number(node.items[0]), self._number(node.items[1])
        if node.op in "/%" and two.constant and two.value == 0:
            raise self.error("division by zero", node.items[1])
        sign = _SIGNS[node.op]

        def calculate(a: Any, b: Any) -> Any:
            try:
                return sign(a, b)
            except (TypeError, ZeroDivisionError):
                return None  # event data of another type, or nothing to divide by: no value

        if one.constant and two.constant:
            value = calculate(one.value, two.value)
            if value is None:
                raise self.error("this cannot be calculated", node)
            return Operand(Kind.NUMBER, "", constant=True, value=value)

        def values(context: Any) -> list[Any]:
            left, right = one.values(context), two.values(context)
            if len(left) * len(right) > _MOST_PAIRS:
                return []
            return [value for a in left for b in right if (value := calculate(a, b)) is not None]

        return Operand(Kind.NUMBER, "this", values=values)

    def _call(self, node: Node) -> Operand:
        inner = self.operand(node.items[0])
        if inner.constant:
            raise self.error(f"{node.value} takes a field", node.items[0])
        if node.value == "count":
            return Operand(Kind.NUMBER, "count", values=lambda context: [len(inner.values(context))])
        kinds = (Kind.TEXT, Kind.ANY) if node.value != "len" else (Kind.TEXT, Kind.BYTES, Kind.MAC, Kind.ANY)
        if inner.kind not in kinds:
            raise self.error(f"{node.value} takes text{' or bytes' * (node.value == 'len')}, not {_a(inner.kind)}",
                             node.items[0])  # fmt: skip
        return inner.mapped(_FUNCTIONS[node.value], Kind.NUMBER if node.value == "len" else Kind.TEXT)

    def _slice(self, node: Node) -> Operand:
        inner = self.operand(node.items[0])
        if inner.kind not in (Kind.BYTES, Kind.TEXT, Kind.MAC, Kind.IPV4):
            raise self.error(f"one can slice text and bytes, not {_a(inner.kind)}", node)
        cut: slice = node.value
        return inner.mapped(lambda value: value[cut], Kind.TEXT if inner.kind is Kind.TEXT else Kind.BYTES)

    # constants

    def _is_constant(self, node: Node, other: Node) -> bool:
        """Whether it is a value: a literal, or a word that the field on the other side knows."""
        if node.op in ("number", "text", "ipv4", "prefix", "octets"):
            return True
        if node.op == "name":
            if node.value in ("true", "false"):
                return True
            against = self._field(other) if other.op == "name" else None
            if against is not None and against.kind is Kind.TEXT:
                known = against.words_now()
                return node.value in known if node.value in ALL_FIELDS else "." not in node.value
            return False
        if node.op == "-" and other.op == "name" and self._words(other):
            return True  # a word with a dash
        if node.op in _SIGNS or node.op == "negative":
            return all(self._is_constant(item, other) for item in node.items)
        return False

    def _words(self, node: Node) -> bool:
        """Whether it is a field whose values are words of a list."""
        field = self._field(node)
        return field is not None and field.words is not None

    def _constant(self, node: Node, of: Operand) -> Any:
        """The value, as `of` can be compared with it."""
        if node.op == "-" and of.field is not None and of.field.words is not None:
            return self._word(Node("word", node.start, node.end, self._text[node.start : node.end]), of.field)
        if node.op == "name" and of.kind is Kind.TEXT and node.value not in ("true", "false"):
            return self._word(node, of.field) if of.field is not None else node.value
        if node.op == "text" and of.kind is Kind.TEXT and of.field is not None and of.field.words is not None:
            return self._word(node, of.field)
        if node.op == "name" and node.value not in ("true", "false"):
            if self._field(node) is None:
                raise self._unknown(node)
            raise self.error("a value was expected here, not a field", node)
        operand = self.operand(node)
        try:
            value = constant_for(operand, of)
        except ValueError as error:
            raise self.error(str(error), node) from None
        return Member(value) if operand.kind_name == "network" else value

    def _word(self, node: Node, field: Field) -> str:
        """A word of the list of a field; of a reason the layer's name before it may be left out."""
        word: str = node.value
        if field.words is None:
            return word
        known = field.words_now()
        if word in known:
            return word
        if field.name == "reason":
            ends = [one for one in known if one.partition("_")[2] == word]
            if len(ends) == 1:
                return ends[0]
        close = near(word, known)
        what = {"event": "kind of event", "reason": "reason"}.get(field.name, f"value of {field.name}")
        hint = f"; there are {', '.join(known)}" if len(known) < 12 else ""
        if close:
            hint = f"; did you mean {' or '.join(close)}?"
        raise self.error(f"there is no {what} {word!r}{hint}", node)


_SIGNS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv, "%": operator.mod,
    "&": operator.and_,
}  # fmt: skip
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "len": lambda value: len(value) if isinstance(value, str | bytes) else None,
    "lower": lambda value: value.lower() if isinstance(value, str) else None,
    "upper": lambda value: value.upper() if isinstance(value, str) else None,
}


def _a(kind: Kind) -> str:
    return {Kind.NUMBER: "a number", Kind.FLAG: "a flag", Kind.IPV4: "an IPv4 address", Kind.MAC: "a MAC address",
            Kind.PRESENCE: "a protocol", Kind.ANY: "data of an event"}.get(kind, kind.value)  # fmt: skip
