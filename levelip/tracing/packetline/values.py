"""What a packet line says, as plain values; segments.py and messages.py make them, builder.py packets of them."""

from __future__ import annotations

from dataclasses import dataclass

from levelip.wire.igmp import IgmpMessage, IgmpReport


class ScriptError(Exception):
    """A packet line, or a script, is wrong or asks for what there is not. Line and column from 1 on; 0: not known."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class IpInfo:
    """What a line says of the IP header; None: nothing. `fragment`: this piece [start, end) of the IP payload.

    `batch`: the packet comes together with the next one, so that the stack answers neither before it has both.
    `options`: the bytes behind the fixed header, not padded yet; of an expected packet, all that there are. `version`,
    `ihl`, `total` and the bad checksums belie an injected packet; `pad`: bytes that follow it, as Ethernet's padding;
    `fill`: what its payload consists of; `linkcast`: it came as a broadcast of the link; `gso_size`: of
    a super-segment, the data of each of its packets (0: it is one packet).
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
    gso_size: int | None = None


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
    """A UDP datagram of zeros, or of what `fill` says."""

    inbound: bool
    length: int
    ports: tuple[int, int] | None = None
    ip: IpInfo = IpInfo()


PACKETS = (TcpPacket, IcmpPacket, IgmpPacket, OtherPacket, UdpPacket)
PacketSpec = TcpPacket | IcmpPacket | IgmpPacket | OtherPacket | UdpPacket
