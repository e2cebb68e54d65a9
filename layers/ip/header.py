"""Writing IPv4 headers fast: what repeats from packet to packet is summed once."""

from __future__ import annotations

import struct

from levelip.wire.checksum import fold

_HEADER = struct.Struct(">BBHHHBBH4s4s")  # RFC 791 3.1, without options
_CACHE_LIMIT = 4096


class HeaderWriter:
    """Headers of 20 bytes. Remembers only sums, so it is no state that a snapshot would have to hold."""

    def __init__(self) -> None:
        self._sums: dict[tuple[bytes, bytes, int, int, int, int], int] = {}

    def write(
        self, src: bytes, dst: bytes, proto: int, ttl: int, tos: int, flags: int, total_length: int, ident: int
    ) -> bytes:
        """The bytes of a header with its checksum, for a packet of `total_length` bytes; `flags` as in Ipv4Header."""
        key = (src, dst, proto, ttl, tos, flags)
        known = self._sums.get(key)
        if known is None:
            known = fold(int.from_bytes(_HEADER.pack(0x45, tos, 0, 0, flags << 13, ttl, proto, 0, src, dst), "big"))
            if len(self._sums) >= _CACHE_LIMIT:
                self._sums.clear()
            self._sums[key] = known
        checksum = 65535 - ((known + total_length + ident) % 65535 or 65535)
        return _HEADER.pack(0x45, tos, total_length, ident, flags << 13, ttl, proto, checksum, src, dst)
