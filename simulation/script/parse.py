"""Text to `Script`: lark reads it by grammar.lark, and what the grammar cannot say is checked here, with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken
from lark.lark import PostLex

from levelip.tracing.packetline.read import TERMINALS, expected, packet_grammar
from levelip.tracing.packetline.segments import PacketReader
from levelip.tracing.packetline.trees import script_error
from simulation.script.absent import ENCAPSULATION, WORDS, Refused, sentence
from simulation.script.language import (
    PACKETS,
    Anything,
    Array,
    Assign,
    Code,
    Command,
    Either,
    Event,
    Expression,
    Function,
    Integer,
    Kind,
    Option,
    Script,
    ScriptError,
    Struct,
    SystemCall,
    Text,
    When,
    Word,
)

NS = 1_000_000_000
_NAMES = TERMINALS | {
    "NAME": "a system call", "FLOAT": "a number", "BACK_QUOTED": "a `command`", "CODE": "%{ code }%", "STAR": "*",
    "OPTION": "an --option", "NOTE": "a (note)", "ERRNO": "an errno", "STRING": "a string", "PLUS": "+", "EQUAL": "=",
    "LBRACE": "{", "RBRACE": "}", "VBAR": "|", "TILDE": "~",
}  # fmt: skip
_DEFINABLE = ("WORD", "NAME", "FLAGS")
_COOKIE = re.compile(r"(\bFO(?:EXP)?\s+)([A-Za-z]\w*)")
# what Linux's ksft_runner.sh defines
COOKIES = {"TFO_COOKIE": "3021b9d889017eeb", "TFO_COOKIE_ZERO": "b7c12350a90dc8f5"}
_OUTER = re.compile(r"[<>]\s*(ipv4|ipv6|gre|mpls|encap)\b")
_CLAUSE = re.compile(r"^\s*//\s*rfc:\s*(.+?)\s*$", re.MULTILINE)


@lru_cache(maxsize=1)
def _grammar() -> str:
    return (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8") + packet_grammar()


@lru_cache(maxsize=1)
def _plain() -> Lark:
    return Lark(_grammar(), parser="lalr", propagate_positions=True)


def _parser(defines: Mapping[str, str]) -> Lark:
    """With symbols, each word is looked up first: its value may be another word, a "string" or a `command`."""
    if not defines:
        return _plain()

    class Symbols(PostLex):
        """Between lexer and parser: of lark's own callbacks only the last one works where there are keywords."""

        always_accept = ()

        def process(self, stream: Iterator[Token]) -> Iterator[Token]:
            return (look_up(token) if token.type in _DEFINABLE else token for token in stream)

    def look_up(token: Token) -> Token:
        value = defines.get(str(token))
        if value is None:
            return token
        kind = {'"': "STRING", "`": "BACK_QUOTED"}.get(value[:1], token.type)
        if re.fullmatch(r"0x[0-9a-fA-F]+", value):
            kind = "HEX"
        elif re.fullmatch(r"-?\d+", value):
            kind = "INT"
        return Token.new_borrow_pos(kind, value, token)

    return Lark(_grammar(), parser="lalr", propagate_positions=True, postlex=Symbols())


def parse(source: str, path: str = "-", defines: Mapping[str, str] | None = None) -> Script:
    """A script; `defines` as -D NAME=VALUE gives them. Raises ScriptError."""
    symbols = {**(defines or {}), **_defined_in(source)}
    source = _COOKIE.sub(lambda found: found[1] + {**COOKIES, **symbols}.get(found[2], found[2]), source)
    try:
        tree = _parser(symbols).parse(source)
    except UnexpectedEOF as error:
        last = source.rstrip().count("\n") + 1
        raise ScriptError(f"the script ends where {_expected(error.expected)} should follow", last, 1) from None
    except UnexpectedToken as error:
        line, column = error.line, error.column
        if error.token.type == "$END":
            ends = source.rstrip()
            line, column = ends.count("\n") + 1, len(ends.rpartition("\n")[2]) + 1
            what = "the script ends here"
        else:
            what = f"{str(error.token)[:40]!r} does not fit here"
            found = re.match(r"\w+", source[error.token.start_pos or 0 :])
            word = found[0] if found else ""
            if outer := _OUTER.search(source.splitlines()[line - 1]):
                raise Refused(sentence(outer[1], ENCAPSULATION), line, outer.start(1) + 1) from None
            if word in WORDS:
                raise Refused(sentence(word, WORDS[word]), line, column) from None
        raise ScriptError(f"{what}; expected {_expected(error.accepts or error.expected)}", line, column) from None
    except UnexpectedCharacters as error:
        raise ScriptError(
            f"{error.char!r} does not fit here; expected "
            f"{_expected(error.allowed or set())}",
            error.line,
            error.column,
        ) from None
    except UnexpectedInput as error:  # nothing else is known to happen
        raise ScriptError(str(error), error.line, error.column) from None
    return _Reader(source).script(tree, path)


def clauses_of(source: str) -> tuple[str, ...]:
    """What the script's `// rfc:` lines name: "RFC 9293 MUST-10"."""
    return tuple(part.strip() for line in _CLAUSE.findall(source) for part in line.split(","))


def _defined_in(source: str) -> dict[str, str]:
    """Symbols of the script's own --define lines, which hold from its start."""
    found = {}
    for name, value in re.findall(r'^\s*--define=(\w+)=("[^"\n]*"|`[^`\n]*`|\S+)', source, re.MULTILINE):
        found[name] = value
    return found


def _expected(names: Any) -> str:
    return expected(names, _NAMES)


class _Reader(PacketReader):
    """Trees to values."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.lines = source.splitlines()

    def script(self, tree: Tree[Token], path: str) -> Script:
        options: list[Option] = []
        events: list[Event] = []
        for child in tree.children:
            if not isinstance(child, Tree):
                continue
            if child.data == "option":
                options.append(self.option(child))
            else:
                events.append(self.event(child))
        return Script(path, self.source, tuple(options), tuple(events), clauses_of(self.source))

    @staticmethod
    def option(tree: Tree[Token]) -> Option:
        token = tree.children[0]
        assert isinstance(token, Token)
        name, equals, value = str(token)[2:].partition("=")
        if value[:1] == '"' and value[-1:] == '"':
            value = value[1:-1]
        return Option(name, value if equals else None, token.line or 0, token.column or 0)

    def event(self, tree: Tree[Token]) -> Event:
        meta = tree.meta
        text = "\n".join(self.lines[meta.line - 1 : meta.end_line])
        if tree.data == "bare_command":
            return Event(None, Command(str(tree.children[0])[1:-1]), meta.line, meta.column, text)
        when_tree, action_tree = tree.children
        assert isinstance(when_tree, Tree)
        assert isinstance(action_tree, Tree)
        when = self.when(when_tree)
        action = getattr(self, str(action_tree.data))(action_tree)
        if when.kind not in (Kind.ABSOLUTE, Kind.RELATIVE):
            if not isinstance(action, PACKETS) or action.inbound:
                what = "*" if when.kind is Kind.ANY else "a range of times"
                raise script_error(when_tree, f"{what} is for packets that are expected (>)")
        return Event(when, action, meta.line, meta.column, text)

    @staticmethod
    def when(tree: Tree[Token]) -> When:
        kind = Kind(str(tree.data))
        if kind is Kind.ANY:
            return When(kind)
        times = [int(Decimal(str(token)) * NS) for token in tree.children]
        if min(times) < 0:
            raise script_error(tree, "a time cannot be negative")
        if len(times) == 2 and times[1] < times[0]:
            raise script_error(tree, "the range of times is backwards")
        return When(kind, times[0], times[-1])

    # calls, commands, code

    def call(self, tree: Tree[Token]) -> SystemCall:
        until = None
        children = list(tree.children)
        first = children[0]
        if isinstance(first, Tree) and first.data == "until":
            until = int(Decimal(str(first.children[-1])) * NS)
            children = children[1:]
        name, *rest = children
        arguments: list[Expression] = []
        result: Expression = Anything()
        error = ""
        for child in rest:
            if child is None:
                continue
            if isinstance(child, Token):
                error = str(child) if child.type == "ERRNO" else error
            elif child.data == "result":
                result = self.result(child)
            else:
                arguments.append(self.expression(child))
        return SystemCall(str(name), tuple(arguments), result, error, until)

    def result(self, tree: Tree[Token]) -> Expression:
        items: list[Expression] = []
        for token in tree.children:
            assert isinstance(token, Token)
            match token.type:
                case "INT" | "HEX":
                    items.append(_integer(token))
                case "ELLIPSIS":
                    items.append(Anything())
                case _:
                    items.append(Word(str(token)))
        return items[0] if len(items) == 1 else Either(tuple(items))

    def expression(self, tree: Any) -> Expression:
        children = [child for child in tree.children if child is not None]
        match tree.data:
            case "integer":
                return _integer(children[0])
            case "word":
                return Word(str(children[0]))
            case "anything":
                return Anything()
            case "string":
                strings = [child for child in children if child.type == "STRING"]
                data = b"".join(_unquoted(child) for child in strings)
                return Text(data, open=len(strings) < len(children))
            case "array":
                return Array(tuple(self.expression(child) for child in children))
            case "struct":
                return Struct(tuple(self.expression(child) for child in children))
            case "assignment":
                return Assign(self.expression(children[0]), self.expression(children[1]))
            case "alternatives":
                return Either(tuple(self.expression(child) for child in children))
            case "function":
                return Function(str(children[0]), tuple(self.expression(child) for child in children[1:]))
        raise script_error(tree, "a fraction does not fit here")

    @staticmethod
    def command(tree: Tree[Token]) -> Command:
        return Command(str(tree.children[0])[1:-1])

    @staticmethod
    def code(tree: Tree[Token]) -> Code:
        token = tree.children[0]
        assert isinstance(token, Token)
        return Code(str(token)[2:-2], token.line or 0)


def _integer(token: Token) -> Integer:
    """Decimal, as packetdrill reads it, also with zeros before it; or hexadecimal."""
    text = str(token)
    return Integer(int(text, 16 if token.type == "HEX" else 10))


def _unquoted(token: Token) -> bytes:
    """The bytes of a string with C's escapes."""
    text = str(token)[1:-1].encode("latin-1", "replace")
    try:
        return text.decode("unicode_escape").encode("latin-1", "replace")
    except UnicodeDecodeError as error:
        raise ScriptError(f"this string cannot be read: {error.reason}", token.line or 1, token.column or 1) from None
