"""The TCP header (RFC 9293 3.1), every bit of it; its options are read by `options`."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from levelip.wire.buffer import Buffer
from levelip.wire.build import maker
from levelip.wire.errors import Malformed
from levelip.wire.options import parse_options

TCP_HEADER_LEN = 20
"""Bytes without options."""
TCP_MAX_HEADER_LEN = 60

FIN = 0x001
SYN = 0x002
RST = 0x004
PSH = 0x008
ACK = 0x010
URG = 0x020
ECE = 0x040
CWR = 0x080
"""RFC 3168 6.1."""
AE = 0x100
"""Accurate ECN (RFC 9768); until then NS (RFC 3540)."""

_HEADER = struct.Struct(">HHIIHHHH")

# The letters of tcpdump (print-tcp.c), in its order.
_LETTERS = (
    (FIN, "F"),
    (SYN, "S"),
    (RST, "R"),
    (PSH, "P"),
    (ACK, "."),
    (URG, "U"),
    (ECE, "E"),
    (CWR, "W"),
    (AE, "e"),
)
_FLAG_TEXT = tuple("".join(letter for bit, letter in _LETTERS if flags & bit) or "none" for flags in range(512))
_FLAG_BITS = {letter: bit for bit, letter in _LETTERS}


def flags_text(flags: int) -> str:
    """The flags as tcpdump prints them: "S", "S.", "P.", "R"; "none" if there are none."""
    return _FLAG_TEXT[flags & 0x1FF]


def flags_from_text(text: str) -> int:
    """The flags that `flags_text` writes so, letters in any order. ValueError for an unknown letter."""
    if text == "none":
        return 0
    flags = 0
    for letter in text:
        if letter not in _FLAG_BITS:
            raise ValueError(f"{letter!r} is no TCP flag; known are {' '.join(_FLAG_BITS)}")
        flags |= _FLAG_BITS[letter]
    return flags


def pack_tcp(
    src_port: int,
    dst_port: int,
    *,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    options: bytes = b"",
    urgent: int = 0,
) -> bytes:
    """The bytes of a header with checksum 0, without making a `TcpHeader`; for what runs once a packet.

    `options` must be padded to whole words and at most 40 bytes, as `options.py` packs them; the rest is not
    checked but by struct.
    """
    head = _HEADER.pack(src_port, dst_port, seq, ack, (20 + len(options)) << 10 | flags, window, 0, urgent)
    return head + options if options else head


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpHeader:
    """A TCP header.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |          source port          |       destination port        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                        sequence number                        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |                     acknowledgment number                     |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    | data  |     |A|C|E|U|A|P|R|S|F|                               |
    |offset | res |E|W|C|R|C|S|S|Y|I|            window             |
    | words |     | |R|E|G|K|H|T|N|N|                               |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |           checksum            |        urgent pointer         |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |            options, padded to whole words (0-40 bytes)        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

    `flags` has nine bits, FIN to AE; `reserved` the three above them. `window` is as on the wire, not scaled.
    The data offset is the length of `options`, which are raw and padded.
    """

    src_port: int
    dst_port: int
    seq: int
    ack: int = 0
    reserved: int = 0
    flags: int
    window: int
    checksum: int = 0
    urgent: int = 0
    options: bytes = b""

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> TcpHeader:
        """The header at `offset`, its options kept raw. Payload starts `header.length` bytes after `offset`.

        Malformed: `truncated`, `data_offset_too_small` (below 5 words), `options_truncated` (it says more
        than there is).
        """
        size = len(data) - offset
        if size < 20:
            raise Malformed("tcp", "truncated", max(size, 0))
        src_port, dst_port, seq, ack, word, window, checksum, urgent = _HEADER.unpack_from(data, offset)
        length = word >> 10 & 0x3C
        if length == 20:
            options = b""
        else:
            if length < 20:
                raise Malformed("tcp", "data_offset_too_small", 12)
            if size < length:
                raise Malformed("tcp", "options_truncated", size)
            options = bytes(data[offset + 20 : offset + length])
        return _make(src_port, dst_port, seq, ack, word >> 9 & 7, word & 0x1FF, window, checksum, urgent, options)

    def serialize(self) -> bytes:
        """The bytes of the header with the checksum it holds. ValueError if a field does not fit its bits.

        A checksum covers the payload too: `segment.complete_tcp_checksum` fills it in.
        """
        options = self.options
        size = len(options)
        if size & 3 or size > 40:
            raise ValueError(f"{size} bytes of TCP options: not whole words, or above 40")
        if not (0 <= self.flags <= 0x1FF and 0 <= self.reserved <= 7):
            raise ValueError(f"flags 0x{self.flags:x} or reserved bits 0x{self.reserved:x} do not fit")
        word = (20 + size) << 10 | self.reserved << 9 | self.flags
        try:
            head = _HEADER.pack(
                self.src_port,
                self.dst_port,
                self.seq,
                self.ack,
                word,
                self.window,
                self.checksum,
                self.urgent,
            )
        except struct.error as error:
            raise ValueError(f"tcp header: {error}") from error
        return head + options if options else head

    @property
    def length(self) -> int:
        """Bytes of this header with its options."""
        return 20 + len(self.options)

    def __str__(self) -> str:
        parts = [f"{self.src_port} > {self.dst_port}: Flags [{flags_text(self.flags)}]", f"seq {self.seq}"]
        if self.flags & ACK:
            parts.append(f"ack {self.ack}")
        parts.append(f"win {self.window}")
        if self.flags & URG:
            parts.append(f"urg {self.urgent}")
        if self.options:
            parts.append(f"options [{parse_options(self.options, strict=False)}]")
        return ", ".join(parts)


_make = maker(TcpHeader)
