"""Whether a condition can be true at all where it is asked: of events of a kind, of packets at a seam.

A condition is followed with what is known beforehand there: the kind and so the data of an event, the seam and so the
headers of a packet. What is not known may be either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from levelip.tracing.eventfields import CONTEXT_FIELDS, EVENT_FIELDS, EVENTS
from levelip.tracing.expressionparser import COMPARISONS, Node
from levelip.tracing.fields import FIELDS
from levelip.tracing.fieldtypes import Field
from levelip.tracing.view import ICMP_ERROR, QUOTED, SEGMENT

_EITHER = (True, True)
_NEVER = (False, True)
"""(whether it may be true, whether it may be false)."""
_NO_LINK = frozenset({"eth", "vlan", "arp"})
_NOT_THERE = {
    "link-ip": _NO_LINK,
    "ip-tcp": _NO_LINK | {"igmp", "udp"},
    "ip-udp": _NO_LINK,  # of what an ICMP message quotes there may be TCP
}
"""Headers that no packet has at a seam."""
_SEGMENTS = ("ip-tcp", "ip-udp")
_OF_IP = frozenset({*SEGMENT, *ICMP_ERROR, *QUOTED})
"""What segments have of the IP header, which ip takes off and puts on."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where a condition is asked. `of`: "frame" or "event"; `known`: fields whose values are clear there; `lacks`:
    whether a field is never there."""

    of: str
    known: Mapping[str, str]
    lacks: Callable[[Field], bool]


def events_of(kind: str) -> Where:
    """The events of a kind; of one that no core emits it is not known what data they have."""
    data = EVENTS.get(kind)

    def lacks(field: Field) -> bool:
        if field.name == "reason":
            return kind != "drop"
        name = field.name.removeprefix("event.")
        return name != field.name and data is not None and name not in data

    return Where("event", {"event": kind}, lacks)


def packets_at(seam: str, way: str) -> Where:
    """The packets that pass a seam one way ("up", "down")."""
    missing = _NOT_THERE.get(seam, frozenset())

    def lacks(field: Field) -> bool:
        layer = field.name.partition(".")[0]
        if layer in missing or layer == "message":  # which no packet is
            return True
        if seam == "ip-udp" and layer == "tcp":
            return not field.inner
        return seam in _SEGMENTS and field.place is not None and field.place.layer == "ip" and field.name not in _OF_IP

    return Where("frame", {"seam": seam, "direction": way}, lacks)


def possible(tree: Node, domain: Callable[[Node], frozenset[str]], where: Where) -> bool:
    """Whether the condition may be true of anything there. `domain`: what a part can be true of ("frame", "event")."""
    return _outcomes(tree, domain, where)[0]


def _outcomes(node: Node, domain: Callable[[Node], frozenset[str]], where: Where) -> tuple[bool, bool]:
    if where.of not in domain(node):  # negated too
        return _NEVER
    if node.op in ("and", "or"):
        parts = [_outcomes(item, domain, where) for item in node.items]
        true, false = [one for one, _ in parts], [one for _, one in parts]
        return (all(true), any(false)) if node.op == "and" else (any(true), all(false))
    if node.op == "not":
        true_, false_ = _outcomes(node.items[0], domain, where)
        return false_, true_
    if node.op == "event":
        return _settled(where.known.get("event") == node.items[0].value)
    return _condition(node, where)


def _condition(node: Node, where: Where) -> tuple[bool, bool]:
    """A field alone, a comparison, a set."""
    if any(one.op == "call" and one.value == "count" for one in _walk(node)):
        return _EITHER  # of what is not there, too
    if node.op == "in" or node.op in COMPARISONS.values():
        subject, *others = node.items
        if _field(subject) is None and _field(others[0]) is not None:
            subject, others = others[0], [subject]
        if (value := where.known.get(str(subject.value))) is not None and subject.op == "name":
            return _compared(node.op, value, [one.value for one in others if one.op in ("name", "text")], len(others))
        words = field.words_now() if (field := _field(subject)) is not None else ()  # some are called as fields are
        operands = [subject, *(one for one in others if one.value not in words)]
    else:
        operands = [node]
    fields = [field for item in operands for one in _walk(item) if (field := _field(one)) is not None]
    return _NEVER if any(where.lacks(field) for field in fields) else _EITHER


def _compared(op: str, value: str, words: list[str], count: int) -> tuple[bool, bool]:
    """A comparison of a field whose value is clear with words, of which there are `count` with what is none."""
    if len(words) < count:
        return _EITHER
    if op in ("in", "==", "==="):
        return _settled(value in words)
    return _settled(value not in words) if op in ("!=", "~=") else _EITHER


def _settled(true: bool) -> tuple[bool, bool]:
    return true, not true


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for item in node.items:
        yield from _walk(item)


def _field(node: Node) -> Field | None:
    if node.op != "name":
        return None
    name = node.value
    return FIELDS.get(name) or EVENT_FIELDS.get(name) or CONTEXT_FIELDS.get(name)
