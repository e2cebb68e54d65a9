"""Text of an expression to a tree, every node with the place it came from. Types are expression.py's business.

Precedence, loosest first: or, and, not, comparisons and `in`, `+ -`, `* / %`, `&`, unary minus.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from levelip.wire.addr import Prefix, parse_ipv4


class ExpressionError(ValueError):
    """An expression that means nothing: why, and where. As text it shows the place with a caret under it."""

    def __init__(self, message: str, text: str, position: int, length: int = 1) -> None:
        super().__init__(message, text, position)
        self.message = message
        self.text = text
        self.position = position
        self.length = length

    def __str__(self) -> str:
        line_start = self.text.rfind("\n", 0, self.position) + 1
        line_end = self.text.find("\n", self.position)
        line = self.text[line_start : line_end if line_end >= 0 else None]
        carets = max(1, min(self.length, len(line) - (self.position - line_start)))
        line = line.replace("\t", " ")
        return f"{self.message}\n  {line}\n  {' ' * (self.position - line_start)}{'^' * carets}"


@dataclass(slots=True)
class Node:
    """`op`: "or", "and", "not", a comparison, "in", "contains", "matches", an arithmetic sign, "field", "word", "call",
    "slice", "event", or the type of a literal ("number", "text", "raw", "ipv4", "prefix", "octets"). `value`: name or
    literal. `start`, `end`: its place."""

    op: str
    start: int
    end: int
    value: Any = None
    items: list[Node] = field(default_factory=list)


COMPARISONS = {
    "==": "==", "eq": "==", "!=": "!=", "ne": "!=", "<": "<", "lt": "<", "<=": "<=", "le": "<=", ">": ">", "gt": ">",
    ">=": ">=", "ge": ">=", "~=": "~=", "any_ne": "~=", "===": "===", "all_eq": "===",
    "contains": "contains", "matches": "matches", "~": "matches",
}  # fmt: skip
FUNCTIONS = ("len", "count", "lower", "upper")
_SPELLED = {"&&": "and", "||": "or", "!": "not"}
_KEYWORDS = {"and", "or", "not", "in", *(word for word in COMPARISONS if word[0].isalpha())}
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<ipv4>\d{1,3}(?:\.\d{1,3}){3}(?:/\d{1,2})?(?!\w|\.\w))
    | (?P<octets>[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2})+(?![\w:]))
    | (?P<number>0[xX][0-9A-Fa-f]+|0[bB][01]+|0[oO][0-7]+|\d+\.\d+(?![.\w])|\d+)
    | (?P<text>[rR]?"(?:\\.|[^"\\])*")
    | (?P<name>(?:link-ip|ip-tcp|ip-udp|tcp-gateway|udp-gateway|gateway-client)(?![\w.])
      |[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)
    | (?P<sign>\.\.|===|==|!=|~=|<=|>=|&&|\|\||[<>!&+*/%(){},\[\]~-])
    """,
    re.VERBOSE,
)
_SLICE = re.compile(
    r"\[\s*(?:(-?\d{1,9})\s*:\s*(-?\d{1,9})|(-?\d{1,9})\s*-\s*(-?\d{1,9})|(-?\d{1,9})\s*:|:\s*(-?\d{1,9})|(-?\d{1,9}))\s*\]"
)
_MAX_DEPTH = 40
_LONGEST_NUMBER = 200  # characters


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # name, number, text, ipv4, octets, sign, slice, end
    text: str
    start: int
    end: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        if text[at] == "[":
            match = _SLICE.match(text, at)
            if match is None:
                known = "[start:length], [first-last], [start:], [:length] or [number]"
                raise ExpressionError(f"a slice is {known}", text, at)
            found.append(_Token("slice", match.group(), at, match.end()))
            at = match.end()
            continue
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] == '"':
                raise ExpressionError("this string does not end", text, at, len(text) - at)
            hint = {"=": "; equality is ==", "'": '; strings stand in "double" quotes'}.get(text[at], "")
            raise ExpressionError(f"{text[at]!r} means nothing here{hint}", text, at)
        kind = match.lastgroup or ""
        if kind != "space":
            word = match.group()
            following = text[match.end() : match.end() + 1]
            if kind == "number" and (following.isalnum() or following == "_"):
                end = match.end()
                while end < len(text) and (text[end].isalnum() or text[end] in "_."):
                    end += 1
                raise ExpressionError(f"{text[at:end]} is no number", text, at, end - at)
            if word in _SPELLED:
                kind, word = "name", _SPELLED[word]
            found.append(_Token(kind, word, at, match.end()))
        at = match.end()
    found.append(_Token("end", "", len(text), len(text)))
    return found


class Parser:
    """Reads one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        """The whole text as one expression."""
        if self._peek.kind == "end":
            raise self._error("an expression was expected; it is empty", self._peek)
        node = self._or()
        if self._peek.kind != "end":
            rest = self._peek
            hint = "; join conditions by and, or" if rest.kind in ("name", "number", "text", "ipv4", "octets") else ""
            raise self._error(f"{rest.text!r} was not expected here{hint}", rest)
        return node

    # tokens

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._at]

    def _next(self) -> _Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _is(self, *words: str) -> bool:
        token = self._peek
        return token.kind in ("name", "sign") and token.text in words

    def _expect(self, word: str, why: str) -> _Token:
        if not self._is(word):
            raise self._error(f"{word!r} was expected: {why}", self._peek)
        return self._next()

    def _error(self, message: str, token: _Token) -> ExpressionError:
        return ExpressionError(message, self._text, token.start, max(1, token.end - token.start))

    # levels

    def _or(self) -> Node:
        node = self._and()
        if not self._is("or"):
            return node
        items = [node]
        while self._is("or"):
            self._next()
            items.append(self._and())
        return Node("or", items[0].start, items[-1].end, items=items)

    def _and(self) -> Node:
        node = self._not()
        if not self._is("and"):
            return node
        items = [node]
        while self._is("and"):
            self._next()
            items.append(self._not())
        return Node("and", items[0].start, items[-1].end, items=items)

    def _not(self) -> Node:
        if self._is("not"):
            token = self._next()
            self._deeper(token)
            inner = self._not()
            self._depth -= 1
            return Node("not", token.start, inner.end, items=[inner])
        return self._comparison()

    def _comparison(self) -> Node:
        left = self._sum()
        negated = False
        if self._is("not") and self._tokens[self._at + 1].text == "in":
            self._next()
            negated = True
        if self._is("in"):
            self._next()
            node = self._set(left)
            return Node("not", node.start, node.end, items=[node]) if negated else node
        if self._peek.kind in ("name", "sign") and self._peek.text in COMPARISONS:
            sign = self._next()
            right = self._sum()
            if self._peek.kind in ("name", "sign") and self._peek.text in COMPARISONS:
                raise self._error("comparisons do not chain; join two by and", self._peek)
            return Node(COMPARISONS[sign.text], left.start, right.end, items=[left, right])
        return left

    def _set(self, left: Node) -> Node:
        self._expect("{", "a set is written {80, 443, 8000..8100}")
        items: list[Node] = []
        while not self._is("}"):
            first = self._sum()
            if self._is(".."):
                self._next()
                last = self._sum()
                first = Node("range", first.start, last.end, items=[first, last])
            items.append(first)
            if self._is(","):
                self._next()
            elif self._peek.kind == "end":
                raise self._error("'}' was expected: the set does not end", self._peek)
        end = self._next().end
        if not items:
            raise ExpressionError("an empty set holds nothing", self._text, left.end, end - left.end)
        return Node("in", left.start, end, items=[left, *items])

    def _sum(self) -> Node:
        return self._binary(("+", "-"), self._product)

    def _product(self) -> Node:
        return self._binary(("*", "/", "%"), self._bits)

    def _bits(self) -> Node:
        return self._binary(("&",), self._unary)

    def _binary(self, signs: Sequence[str], operand: Any) -> Node:
        node: Node = operand()
        while self._is(*signs):
            sign = self._next()
            right: Node = operand()
            node = Node(sign.text, node.start, right.end, items=[node, right])
        return node

    def _unary(self) -> Node:
        if self._is("-"):
            token = self._next()
            self._deeper(token)
            inner = self._unary()
            self._depth -= 1
            return Node("negative", token.start, inner.end, items=[inner])
        return self._primary()

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error("nested too deeply", token)

    def _primary(self) -> Node:
        token = self._next()
        if token.kind == "sign" and token.text == "(":
            self._deeper(token)
            node = self._or()
            self._depth -= 1
            self._expect(")", "the bracket does not end")
            return node
        if token.kind == "name" and token.text not in _KEYWORDS:
            return self._name(token)
        if token.kind == "number":
            if len(token.text) > _LONGEST_NUMBER:
                raise self._error("no field holds such a number", token)
            base = 10 if token.text.isdigit() else 0
            number = float(token.text) if "." in token.text else int(token.text, base)
            return Node("number", token.start, token.end, number)
        if token.kind == "text":
            return self._string(token)
        if token.kind == "ipv4":
            return self._address(token)
        if token.kind == "octets":
            return Node("octets", token.start, token.end, bytes.fromhex(re.sub("[:-]", "", token.text)))
        if token.kind == "end":
            raise self._error("a field or a value was expected; the expression ends here", token)
        raise self._error(f"a field or a value was expected, not {token.text!r}", token)

    def _name(self, token: _Token) -> Node:
        if token.text in FUNCTIONS and self._is("("):
            self._next()
            inner = self._sum()
            end = self._expect(")", f"{token.text} takes one field").end
            return Node("call", token.start, end, token.text, [inner])
        if token.text == "event" and self._peek.kind == "name" and self._peek.text not in _KEYWORDS:
            kind = self._next()
            return Node("event", token.start, kind.end, kind.text, [Node("word", kind.start, kind.end, kind.text)])
        node = Node("name", token.start, token.end, token.text)
        if self._peek.kind == "slice":
            cut = self._next()
            return Node("slice", token.start, cut.end, _slice(cut.text), [node])
        return node

    def _string(self, token: _Token) -> Node:
        if token.text[0] in "rR":
            return Node("text", token.start, token.end, token.text[2:-1])
        try:
            value = ast.literal_eval(token.text)
        except (ValueError, SyntaxError) as error:
            raise self._error(f"this string cannot be read: {str(error).partition(' (')[0]}", token) from None
        return Node("text", token.start, token.end, value)

    def _address(self, token: _Token) -> Node:
        address, slash, length = token.text.partition("/")
        try:
            packed = parse_ipv4(address)
            if not slash:
                return Node("ipv4", token.start, token.end, packed)
            bits = int(length)
            if bits > 32:
                raise ValueError(f"/{length} is more than 32 bits")
            mask = (0xFFFF_FFFF << (32 - bits)) & 0xFFFF_FFFF
            network = (int.from_bytes(packed, "big") & mask).to_bytes(4, "big")  # as Wireshark: host bits do not matter
            return Node("prefix", token.start, token.end, Prefix(network, bits))
        except ValueError as error:
            raise self._error(f"no address: {error}", token) from None


def _slice(text: str) -> slice:
    match = _SLICE.match(text)
    assert match is not None
    start, length, first, last, from_, up_to, single = (int(one) if one is not None else None for one in match.groups())
    if start is not None and length is not None:
        return slice(start, start + length if start + length or start >= 0 else None)
    if first is not None and last is not None:
        return slice(first, last + 1 or None)
    if from_ is not None:
        return slice(from_, None)
    if up_to is not None:
        return slice(0, up_to)
    assert single is not None
    return slice(single, single + 1 or None)
