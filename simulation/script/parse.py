"""Text to `Script`: lark reads it by grammar.lark, and what the grammar cannot say is checked here, with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from levelip.wire import icmp as wire_icmp
from levelip.wire import options as wire_options
from levelip.wire.tcp import ACK, AE, CWR, ECE, FIN, PSH, RST, SYN, URG
from simulation.script.language import (
    Anything,
    Array,
    Assign,
    Code,
    Command,
    Either,
    Event,
    Expression,
    Function,
    IcmpPacket,
    Integer,
    IpInfo,
    Kind,
    Option,
    Script,
    ScriptError,
    Struct,
    SystemCall,
    TcpOption,
    TcpPacket,
    Text,
    UdpPacket,
    When,
    Word,
)

NS = 1_000_000_000
FLAGS = {"F": FIN, "S": SYN, "R": RST, "P": PSH, ".": ACK, "U": URG, "E": ECE, "W": CWR, "A": AE}
KIND_EXPERIMENT = 254  # RFC 6994; packetdrill's FOEXP
FAST_OPEN_MAGIC = b"\xf9\x89"

ICMP_TYPES = {
    "echo_reply": wire_icmp.ECHO_REPLY, "unreachable": wire_icmp.DEST_UNREACH,
    "source_quench": wire_icmp.SOURCE_QUENCH, "redirect": wire_icmp.REDIRECT, "echo_request": wire_icmp.ECHO,
    "time_exceeded": wire_icmp.TIME_EXCEEDED, "parameter_problem": wire_icmp.PARAMETER_PROBLEM,
    "timestamp_request": wire_icmp.TIMESTAMP, "timestamp_reply": wire_icmp.TIMESTAMP_REPLY,
    "information_request": wire_icmp.INFO_REQUEST, "information_reply": wire_icmp.INFO_REPLY,
    "address_mask_request": wire_icmp.ADDRESS_MASK, "address_mask_reply": wire_icmp.ADDRESS_MASK_REPLY,
}  # fmt: skip
ICMP_CODES = {
    wire_icmp.DEST_UNREACH: (
        "net_unreachable", "host_unreachable", "protocol_unreachable", "port_unreachable", "frag_needed",
        "source_route_failed", "net_unknown", "host_unknown", "source_host_isolated", "net_prohibited",
        "host_prohibited", "net_unreachable_for_tos", "host_unreachable_for_tos", "packet_filtered",
        "precedence_violation", "precedence_cutoff",
    ),
    wire_icmp.TIME_EXCEEDED: ("ttl_exceeded", "reassembly_time_exceeded"),
    wire_icmp.PARAMETER_PROBLEM: ("pointer", "option_missing", "bad_length"),
}  # fmt: skip

_NAMES = {
    "NAME": "a system call", "WORD": "a word", "INT": "a number", "FLOAT": "a number", "HEX": "a hex number",
    "DIRECTION": "< or >", "BACK_QUOTED": "a `command`", "CODE": "%{ code }%", "STAR": "*", "OPTION": "an --option",
    "FLAGS": "TCP flags", "NOTE": "a (note)", "ERRNO": "an errno", "ELLIPSIS": "...", "STRING": "a string",
    "ECN": "ect0, ect1, ect01, ce or noecn", "BLOB": "hex digits", "QUOTED_OTHER": "udp or raw", "$END": "the end",
    "PLUS": "+", "EQUAL": "=", "COMMA": ",", "COLON": ":", "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]",
    "LBRACE": "{", "RBRACE": "}", "LESSTHAN": "<", "MORETHAN": ">", "VBAR": "|", "TILDE": "~",
}  # fmt: skip
_DEFINABLE = ("WORD", "NAME", "FLAGS")
_CLAUSE = re.compile(r"^\s*//\s*rfc:\s*(.+?)\s*$", re.MULTILINE)


@lru_cache(maxsize=1)
def _grammar() -> str:
    return (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _plain() -> Lark:
    return Lark(_grammar(), parser="lalr", propagate_positions=True)


def _parser(defines: Mapping[str, str]) -> Lark:
    """With symbols, each word is looked up first: its value may be another word, a "string" or a `command`."""
    if not defines:
        return _plain()

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

    callbacks: Any = dict.fromkeys(_DEFINABLE, look_up)
    return Lark(_grammar(), parser="lalr", propagate_positions=True, lexer_callbacks=callbacks)


def parse(source: str, path: str = "-", defines: Mapping[str, str] | None = None) -> Script:
    """A script; `defines` as -D NAME=VALUE gives them. Raises ScriptError."""
    symbols = {**(defines or {}), **_defined_in(source)}
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


def _defined_in(source: str) -> dict[str, str]:
    """Symbols of the script's own --define lines, which hold from its start."""
    found = {}
    for name, value in re.findall(r'^\s*--define=(\w+)=("[^"\n]*"|`[^`\n]*`|\S+)', source, re.MULTILINE):
        found[name] = value
    return found


def _expected(names: Any) -> str:
    words = sorted({_NAMES.get(name, name.lower()) for name in names})
    if not words:
        return "something else"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _error(node: Any, message: str) -> ScriptError:
    """An error at a tree or token."""
    if isinstance(node, Token):
        return ScriptError(message, node.line or 0, node.column or 0)
    meta = node.meta
    return ScriptError(message, getattr(meta, "line", 0), getattr(meta, "column", 0))


class _Reader:
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
        clauses = [part.strip() for line in _CLAUSE.findall(self.source) for part in line.split(",")]
        return Script(path, self.source, tuple(options), tuple(events), tuple(clauses))

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
            if not isinstance(action, TcpPacket | IcmpPacket | UdpPacket) or action.inbound:
                what = "*" if when.kind is Kind.ANY else "a range of times"
                raise _error(when_tree, f"{what} is for packets that are expected (>)")
        return Event(when, action, meta.line, meta.column, text)

    @staticmethod
    def when(tree: Tree[Token]) -> When:
        kind = Kind(str(tree.data))
        if kind is Kind.ANY:
            return When(kind)
        times = [int(Decimal(str(token)) * NS) for token in tree.children]
        if min(times) < 0:
            raise _error(tree, "a time cannot be negative")
        if len(times) == 2 and times[1] < times[0]:
            raise _error(tree, "the range of times is backwards")
        return When(kind, times[0], times[-1])

    # packets

    def tcp_packet(self, tree: Tree[Token]) -> TcpPacket:
        inbound = str(tree.children[0]) == "<"
        known: dict[str, Any] = {"inbound": inbound}
        options_at: Any = tree
        for child in tree.children[1:]:
            assert isinstance(child, Tree)
            match child.data:
                case "ip_info":
                    known["ip"] = self.ip_info(child, inbound=inbound)
                case "ports":
                    known["ports"] = self.ports(child)
                case "flags":
                    known["flags"] = self.flags(child)
                case "seq":
                    known["seq"], known["length"] = self.seq(child)
                case "ack":
                    known["ack"] = self.number(child, 32)
                case "win" | "urg":
                    known[str(child.data)] = self.number(child, 16)
                case "any_options":
                    known["options"] = None
                    options_at = child
                case "options":
                    known["options"] = tuple(self.tcp_option(option) for option in child.children)
        packet = TcpPacket(**known)
        if inbound and packet.options is None:
            raise _error(options_at, "<...> is for packets that are expected (>)")
        if inbound and packet.win is None:
            raise _error(tree, "an injected segment needs its window: win NUMBER")
        return packet

    @staticmethod
    def flags(tree: Tree[Token]) -> int:
        text = str(tree.children[0])
        if text == "-":
            return 0
        bits = 0
        for letter in text:
            if letter.isdigit():
                ace = int(letter)  # the three bits of AccECN, RFC 9768 3.1
                if ace > 7:
                    raise _error(tree.children[0], f"{letter} does not fit into the three bits of ACE")
                bits |= (AE if ace & 4 else 0) | (CWR if ace & 2 else 0) | (ECE if ace & 1 else 0)
            elif letter not in FLAGS:
                raise _error(tree.children[0], f"{letter!r} is no TCP flag; there are {' '.join(FLAGS)} and -")
            else:
                bits |= FLAGS[letter]
        return bits

    @staticmethod
    def number(tree: Tree[Token], bits: int) -> int:
        value = int(str(tree.children[0]))
        if not 0 <= value < 1 << bits:
            raise _error(tree.children[0], f"{tree.data} {value} does not fit into {bits} bits")
        return value

    @staticmethod
    def ports(tree: Tree[Token]) -> tuple[int, int]:
        source, target = (int(str(token)) for token in tree.children)
        if not (0 <= source <= 65_535 and 0 <= target <= 65_535):
            raise _error(tree, "a port is a number up to 65535")
        return source, target

    @staticmethod
    def seq(tree: Tree[Token]) -> tuple[int, int]:
        start, end, length = (int(str(token)) for token in tree.children)
        if not (0 <= start <= 0xFFFF_FFFF and 0 <= end <= 0xFFFF_FFFF):
            raise _error(tree, "a sequence number has 32 bits")
        if not 0 <= length <= 65_495:
            raise _error(tree, "no IPv4 packet holds so much")
        if (start + length) & 0xFFFF_FFFF != end:
            raise _error(tree, f"{start}:{end}({length}): {start} + {length} is not {end}")
        return start, length

    def ip_info(self, tree: Tree[Token], *, inbound: bool) -> IpInfo:
        info = IpInfo()
        for word in tree.children:
            assert isinstance(word, Tree)
            first = str(word.children[0]) if word.children else ""
            match word.data:
                case "ecn":
                    if first == "ect01" and inbound:
                        raise _error(word, "[ect01] is for packets that are expected (>)")
                    info = replace(info, ecn=first)
                case "tos":
                    info = replace(info, tos=int(first, 16) & 0xFF)
                case "ttl":
                    info = replace(info, ttl=self.number(word, 8))
                case "flowlabel":
                    raise _error(word, "flow labels are IPv6's, which the stack does not have yet")
                case "ip_id":
                    info = replace(info, ident=self.number(word, 16))
                case "fragment":
                    start, end = (int(str(token)) for token in word.children)
                    if not 0 <= start < end <= 65_535:
                        raise _error(word, "frag START:END: bytes of the IP payload")
                    if start % 8:
                        raise _error(word, "a fragment starts at a multiple of 8 bytes (RFC 791 3.1)")
                    info = replace(info, fragment=(start, end))
                case "more_fragments":
                    info = replace(info, more_fragments=True)
                case "dont_fragment":
                    info = replace(info, dont_fragment=True)
                case "may_fragment":
                    info = replace(info, dont_fragment=False)
                case "batch":
                    if not inbound:
                        raise _error(word, "[batch] is for packets that are injected (<)")
                    info = replace(info, batch=True)
        return info

    @staticmethod
    def tcp_option(tree: Any) -> TcpOption:
        children = tree.children
        numbers = [int(str(child)) for child in children if isinstance(child, Token) and child.type == "INT"]
        blob = next((str(child) for child in children if isinstance(child, Token) and child.type != "INT"), "")
        match tree.data:
            case "nop":
                return TcpOption(wire_options.KIND_NOP)
            case "eol":
                return TcpOption(wire_options.KIND_EOL)
            case "sack_ok":
                return TcpOption(wire_options.KIND_SACK_PERMITTED)
            case "mss":
                return TcpOption(wire_options.KIND_MSS, (_fits(tree, numbers[0], 16),))
            case "wscale":
                return TcpOption(wire_options.KIND_WSCALE, (_fits(tree, numbers[0], 8),))
            case "timestamps":
                return TcpOption(wire_options.KIND_TIMESTAMPS, tuple(_fits(tree, number, 32) for number in numbers))
            case "sack":
                edges = [_fits(tree, int(str(edge)), 32) for block in children for edge in block.children]
                return TcpOption(wire_options.KIND_SACK, tuple(edges))
            case "other_option":
                kind = _fits(tree, numbers[0], 8)
                return TcpOption(kind, data=_hex(tree, blob[2:]))
            case "md5":
                return TcpOption(wire_options.KIND_MD5, data=_hex(tree, blob))
            case "fast_open":
                return TcpOption(wire_options.KIND_FAST_OPEN, data=_hex(tree, "".join(map(str, children))))
        return TcpOption(KIND_EXPERIMENT, data=FAST_OPEN_MAGIC + _hex(tree, "".join(map(str, children))))

    def icmp_packet(self, tree: Tree[Token]) -> IcmpPacket:
        inbound = str(tree.children[0]) == "<"
        words = [child for child in tree.children[1:] if isinstance(child, Token)]
        kind = _icmp_number(words[0], "type", ICMP_TYPES)
        codes = {name: number for number, name in enumerate(ICMP_CODES.get(kind, ()))}
        code = _icmp_number(words[1], "code", codes) if len(words) > 1 else 0
        known: dict[str, Any] = {}
        for child in tree.children[1:]:
            if not isinstance(child, Tree):
                continue
            match child.data:
                case "ip_info":
                    known["ip"] = self.ip_info(child, inbound=inbound)
                case "mtu":
                    if (kind, code) != (wire_icmp.DEST_UNREACH, wire_icmp.FRAG_NEEDED):
                        raise _error(child, "mtu belongs to `unreachable frag_needed` alone (RFC 1191 4)")
                    known["mtu"] = self.number(child, 16)
                case "echo_id":
                    known["echo_id"] = self.number(child, 16)
                case "quoted":
                    first = child.children[0]
                    if isinstance(first, Tree):
                        known["quoted"] = self.seq(first)
                    elif str(first) == "raw":
                        known["size"] = int(str(child.children[1]))
                    else:
                        raise _error(first, "the stack has no UDP yet")
        return IcmpPacket(inbound, kind, code, **known)

    def udp_packet(self, tree: Tree[Token]) -> UdpPacket:
        length = int(str(tree.children[-1]))
        ports = next((self.ports(child) for child in tree.find_data("ports")), None)
        return UdpPacket(str(tree.children[0]) == "<", length, ports)

    @staticmethod
    def encapsulated(tree: Tree[Token]) -> TcpPacket:
        raise _error(tree, "packets inside of packets are not supported")

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
                    items.append(Integer(int(str(token), 0)))
                case "ELLIPSIS":
                    items.append(Anything())
                case _:
                    items.append(Word(str(token)))
        return items[0] if len(items) == 1 else Either(tuple(items))

    def expression(self, tree: Any) -> Expression:
        children = [child for child in tree.children if child is not None]
        match tree.data:
            case "integer":
                return Integer(int(str(children[0]), 0))
            case "word":
                return Word(str(children[0]))
            case "anything":
                return Anything()
            case "string":
                strings = [child for child in children if child.type == "STRING"]
                data = b"".join(_unquoted(str(child)) for child in strings)
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
        raise _error(tree, "a fraction does not fit here")

    @staticmethod
    def command(tree: Tree[Token]) -> Command:
        return Command(str(tree.children[0])[1:-1])

    @staticmethod
    def code(tree: Tree[Token]) -> Code:
        token = tree.children[0]
        assert isinstance(token, Token)
        return Code(str(token)[2:-2], token.line or 0)


def _unquoted(text: str) -> bytes:
    """The bytes of a string with C's escapes."""
    return text[1:-1].encode("latin-1", "replace").decode("unicode_escape").encode("latin-1", "replace")


def _fits(tree: Any, value: int, bits: int) -> int:
    if not 0 <= value < 1 << bits:
        raise _error(tree, f"{value} does not fit into {bits} bits")
    return value


def _hex(tree: Any, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _error(tree, f"{text} is no even number of hex digits") from None


def _icmp_number(token: Token, prefix: str, names: Mapping[str, int]) -> int:
    """A number by its name, or as type_N, code_N."""
    text = str(token)
    if text in names:
        return names[text]
    match = re.fullmatch(rf"{prefix}_(\d+)", text)
    if match is None or int(match[1]) > 255:
        known = ", ".join(names) or f"{prefix}_N"
        raise _error(token, f"{text!r} is no ICMP {prefix}; there are {known}")
    return int(match[1])
