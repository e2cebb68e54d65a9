"""Writing IPv4 headers fast: what repeats from packet to packet is summed once. And the idents that go into them."""

from __future__ import annotations

import struct
from hashlib import blake2s

from levelip.wire.checksum import fold

_HEADER = struct.Struct(">BBHHHBBH4s4s")  # RFC 791 3.1, without options
_CACHE_LIMIT = 4096
_BUCKETS = 1024


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


class Idents:
    """Idents of datagrams that may be fragmented, now or by a router: none comes twice between the same two hosts for
    the same protocol within 65,536 of them (RFC 6864 4.2).

    Counters in buckets that a secret hash chooses, as Linux's ip_idents, so that a host which gets our packets learns
    little of what others get. Packets with DF set take any number (4.1).
    """

    def __init__(self, secret: bytes, used: dict[int, int] | None = None) -> None:
        self.secret = secret
        self.used = used if used is not None else {}
        """Bucket → next ident."""

    def take(self, src: bytes, dst: bytes, proto: int) -> int:
        """The next one for a datagram between these two."""
        key = b"%b%b%c" % (src, dst, proto)
        digest = blake2s(key, key=self.secret, digest_size=4).digest()
        bucket = (digest[0] << 8 | digest[1]) % _BUCKETS
        ident = self.used.get(bucket)
        if ident is None:  # where it starts, nobody can tell either
            ident = digest[2] << 8 | digest[3]
        self.used[bucket] = (ident + 1) & 0xFFFF
        return ident
