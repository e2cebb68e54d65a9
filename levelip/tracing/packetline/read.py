"""One packet line to what it says. Errors show the place with a caret."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from levelip.tracing.packetline.segments import PacketReader
from levelip.tracing.packetline.values import PacketSpec, ScriptError

TERMINALS = {
    "WORD": "a word", "INT": "a number", "HEX": "a hex number", "DIRECTION": "< or >", "FLAGS": "TCP flags",
    "ELLIPSIS": "...", "ECN": "ect0, ect1, ect01, ce or noecn", "BLOB": "hex digits",
    "QUOTED_OTHER": "udp, raw or packet", "ADDRESS": "an IPv4 address", "$END": "the end", "COMMA": ",", "COLON": ":",
    "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "LESSTHAN": "<", "MORETHAN": ">",
}  # fmt: skip
"""Tokens as people call them."""
_START = "start: tcp_packet | icmp_packet | igmp_packet | other_packet | udp_packet | encapsulated\n"
_MAX_LINE = 4096


class PacketLineError(ScriptError):
    """A line that says no packet; as text it shows the place. `position` counts characters from 0."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(message, 1, position + 1)
        self.text = text
        self.position = position

    def __str__(self) -> str:
        return f"{self.message}\n  {self.text}\n  {' ' * self.position}^"


@lru_cache(maxsize=1)
def packet_grammar() -> str:
    """The rules and tokens of packet lines, for lark."""
    return (Path(__file__).parent / "packets.lark").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_START + packet_grammar(), parser="lalr", propagate_positions=True)


def expected(names: Any, known: dict[str, str] | None = None) -> str:
    """Tokens that would have fitted, for people."""
    words = sorted({(known or TERMINALS).get(name, name.lower()) for name in names})
    if not words:
        return "something else"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


class _LineReader(PacketReader):
    window_needed = False


def read_packet_line(text: str) -> tuple[PacketSpec, str]:
    """What a line says, and its direction: "up" (<, toward the applications), "down" (>), "" where it says none.

    `S 0:0(0) win 1000 <mss 1460>`, `< . 1:1001(1000) ack 1`, `icmp echo_request id 7`: docs/packet-scripts.md has the
    words. PacketLineError else.
    """
    line = text.replace("\n", " ").replace("\t", " ")
    if len(line) > _MAX_LINE:
        raise PacketLineError(f"a packet line has {_MAX_LINE} characters at most", line[:60], 0)
    bare = line.lstrip()
    direction = {"<": "up", ">": "down"}.get(bare[:1], "")
    before = len(line) - len(bare) + bool(direction)
    padded = "<" + line[before:]  # both ways are packets to be made

    def error(message: str, column: int) -> PacketLineError:
        at = max(0, column - 2) + before if column > 0 else before
        return PacketLineError(message, line, min(at, len(line)))

    try:
        tree: Any = _parser().parse(padded)
        return getattr(_LineReader(), str(tree.children[0].data))(tree.children[0]), direction
    except UnexpectedToken as wrong:
        if wrong.token.type == "$END":
            raise error(f"the packet ends here; expected {expected(wrong.expected)}", len(padded) + 1) from None
        what = f"{str(wrong.token)[:40]!r} does not fit here"
        raise error(f"{what}; expected {expected(wrong.accepts or wrong.expected)}", wrong.column) from None
    except UnexpectedCharacters as wrong:
        what = f"{wrong.char!r} does not fit here; expected {expected(wrong.allowed or set())}"
        raise error(what, wrong.column) from None
    except UnexpectedInput as wrong:
        raise error(str(wrong), wrong.column) from None
    except ScriptError as wrong:
        raise error(wrong.message, wrong.column) from None
