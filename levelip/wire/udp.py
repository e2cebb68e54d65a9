"""The UDP header (RFC 768)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from levelip.wire.buffer import Buffer
from levelip.wire.errors import Malformed

UDP_HEADER_LEN = 8
"""Bytes."""

_HEADER = struct.Struct(">HHHH")


@dataclass(frozen=True, slots=True)
class UdpHeader:
    """A UDP header.

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |          source port          |       destination port        |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |            length             |           checksum            |
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

    `length` counts these 8 bytes and the payload; whether that is plausible is for the receiver to judge. A
    `checksum` of 0 says that there is none.
    """

    src_port: int
    dst_port: int
    length: int
    checksum: int = 0

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0) -> UdpHeader:
        """The header at `offset`. Malformed: `truncated`."""
        size = len(data) - offset
        if size < UDP_HEADER_LEN:
            raise Malformed("udp", "truncated", max(size, 0))
        return cls(*_HEADER.unpack_from(data, offset))

    def serialize(self) -> bytes:
        """The 8 bytes with the checksum it holds. ValueError if a field does not fit."""
        try:
            return _HEADER.pack(self.src_port, self.dst_port, self.length, self.checksum)
        except struct.error as error:
            raise ValueError(f"udp header: {error}") from error

    def __str__(self) -> str:
        return f"{self.src_port} > {self.dst_port}: UDP, length {self.length - UDP_HEADER_LEN}"
