"""What a packet script says, as plain values; parse.py makes them, run.py carries them out. Times are in ns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from levelip.tracing.packetline.values import (
    PACKETS,
    IcmpPacket,
    IgmpPacket,
    IpInfo,
    OtherPacket,
    ScriptError,
    TcpOption,
    TcpPacket,
    UdpPacket,
)

__all__ = ["PACKETS", "IcmpPacket", "IgmpPacket", "IpInfo", "OtherPacket", "ScriptError", "TcpOption", "TcpPacket",
           "UdpPacket"]  # fmt: skip


class Kind(Enum):
    """How an event's time is meant."""

    ABSOLUTE = "absolute"
    RELATIVE = "relative"
    ANY = "any_time"
    ABSOLUTE_RANGE = "absolute_range"
    RELATIVE_RANGE = "relative_range"


@dataclass(frozen=True, slots=True)
class When:
    """From the script's start, or from the event before; `end` is above `start` for ranges only."""

    kind: Kind
    start: int = 0
    end: int = 0

    @property
    def relative(self) -> bool:
        return self.kind in (Kind.RELATIVE, Kind.RELATIVE_RANGE)


# system calls


@dataclass(frozen=True, slots=True)
class Anything:
    """`...`"""


@dataclass(frozen=True, slots=True)
class Integer:
    value: int


@dataclass(frozen=True, slots=True)
class Word:
    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A string; with `open` more may follow it."""

    data: bytes
    open: bool = False


@dataclass(frozen=True, slots=True)
class Array:
    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Struct:
    items: tuple[Expression, ...]

    def fields(self) -> dict[str, Expression]:
        """Those with a name; `msg_iov(1)=[...]` counts as msg_iov."""
        found = {}
        for item in self.items:
            if isinstance(item, Assign):
                left = item.left
                if isinstance(left, Word | Function):
                    found[left.name] = item.right
        return found


@dataclass(frozen=True, slots=True)
class Assign:
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Either:
    """a|b|c"""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Function:
    """htons(8080), inet_addr("192.0.2.1")"""

    name: str
    arguments: tuple[Expression, ...]


Expression = Anything | Integer | Word | Text | Array | Struct | Assign | Either | Function


@dataclass(frozen=True, slots=True)
class SystemCall:
    """`until`: it blocks, and is to return then. `result` Anything: whatever."""

    name: str
    arguments: tuple[Expression, ...]
    result: Expression
    errno: str = ""
    until: int | None = None


# other events


@dataclass(frozen=True, slots=True)
class Command:
    """A line for a shell."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """Python between %{ and }%, and the line on which its text begins."""

    text: str
    line: int


Action = TcpPacket | IcmpPacket | IgmpPacket | OtherPacket | UdpPacket | SystemCall | Command | Code


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens, or is to happen. `text`: its lines as written."""

    when: When | None  # None: a command before or after everything
    action: Action
    line: int
    column: int
    text: str


@dataclass(frozen=True, slots=True)
class Option:
    """--name=value, or --name."""

    name: str
    value: str | None
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Script:
    """A whole one. `clauses`: what its `// rfc:` lines name, in order."""

    path: str
    source: str
    options: Sequence[Option]
    events: Sequence[Event]
    clauses: Sequence[str] = field(default_factory=tuple)

    def line(self, number: int) -> str:
        """A line of the source, from 1 on."""
        lines = self.source.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else ""
