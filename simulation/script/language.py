"""What a packet script says, as plain values; parse.py makes them, run.py carries them out. Times are in ns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from levelip.wire.igmp import IgmpMessage, IgmpReport


class ScriptError(Exception):
    """The script itself is wrong, or asks for what there is not: said with the place. Exit status 2."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


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


# packets


@dataclass(frozen=True, slots=True)
class IpInfo:
    """What a line says of the IP header; None: nothing. `fragment`: this piece [start, end) of the IP payload.

    `batch`: the packet comes together with the next one, so that the stack answers neither before it has both.
    `options`: the bytes behind the fixed header, not padded yet; of an expected packet, all that there are. `version`,
    `ihl`, `total` and the bad checksums belie an injected packet; `pad`: bytes that follow it, as Ethernet's padding;
    `fill`: what its payload consists of; `linkcast`: it came as a broadcast of the link.
    """

    ecn: str | None = None
    tos: int | None = None
    ttl: int | None = None
    ident: int | None = None
    fragment: tuple[int, int] | None = None
    more_fragments: bool = False
    dont_fragment: bool | None = None
    batch: bool = False
    src: bytes | None = None
    dst: bytes | None = None
    options: bytes = b""
    bad_sum: bool = False
    bad_header_sum: bool = False
    version: int | None = None
    ihl: int | None = None
    total: int | None = None
    pad: int = 0
    fill: int = 0
    linkcast: bool = False


@dataclass(frozen=True, slots=True)
class TcpOption:
    """One option: its kind (IANA), and numbers or bytes as its kind needs."""

    kind: int
    numbers: tuple[int, ...] = ()
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class TcpPacket:
    """A segment to inject or to expect. `options` None: any (`<...>`)."""

    inbound: bool
    flags: int
    seq: int
    length: int
    ip: IpInfo = IpInfo()
    ports: tuple[int, int] | None = None
    ack: int | None = None
    win: int | None = None
    urg: int | None = None
    options: tuple[TcpOption, ...] | None = ()


@dataclass(frozen=True, slots=True)
class IcmpPacket:
    """An ICMP message. `size`: bytes of it in all, but for extensions.

    What an error is about: `quoted`, a segment (seq, length) of ours; `packet`, so many bytes of a packet that the
    other side sent; or `raw`, these bytes. `words`: the length attribute of RFC 4884 4; `extension`: what
    follows the quote.
    """

    inbound: bool
    type: int
    code: int
    ip: IpInfo = IpInfo()
    mtu: int | None = None
    echo_id: int | None = None
    echo_seq: int | None = None
    pointer: int | None = None
    via: bytes | None = None
    quoted: tuple[int, int] | None = None
    packet: int | None = None
    raw: bytes | None = None
    words: int | None = None
    extension: bytes = b""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class IgmpPacket:
    """An IGMP message (levelip.wire.igmp), of any version."""

    inbound: bool
    message: IgmpMessage | IgmpReport
    ip: IpInfo = IpInfo()


@dataclass(frozen=True, slots=True)
class OtherPacket:
    """A packet of another protocol: its payload given as bytes, or as so many of them."""

    inbound: bool
    proto: int
    length: int
    data: bytes | None = None
    ip: IpInfo = IpInfo()


@dataclass(frozen=True, slots=True)
class UdpPacket:
    """A UDP datagram: parsed, but the stack has no UDP yet."""

    inbound: bool
    length: int
    ports: tuple[int, int] | None = None


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


PACKETS = (TcpPacket, IcmpPacket, IgmpPacket, OtherPacket, UdpPacket)
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
