"""The Internet checksum (RFC 1071), its pseudo-headers, and its incremental update (RFC 1624).

The one's complement sum of 16-bit words is the sum modulo 65535, because 2^16 leaves 1. So the whole buffer
is taken as one large number and reduced, which leaves the loop to C. Only zero needs care: one's complement
has two of them, and a sum of anything but zeros is 0xFFFF, never 0.

Measured on CPython 3.11 for 20 / 1,460 / 65,536 bytes, in µs: this way 0.3 / 3 / 85, as one number of any
size 0.3 / 3 / 130; `sum(memoryview.cast("I"))` 0.5 / 12 / 409; `sum(array("H"))` 0.6 / 15 / 591;
`sum(struct.unpack(">10H"))` 0.4 for 20 bytes.
"""

from __future__ import annotations

from levelip.wire.buffer import Buffer

_CHUNK = 2048
"""Bytes that are taken as one number; larger ones outgrow the first cache (measured: 512 to 8,192)."""


def word_sum(data: Buffer) -> int:
    """A number congruent to the sum of the big-endian 16-bit words of `data`, zero only if all of them are.

    An odd last byte counts as if a zero byte followed (RFC 1071 section 1).
    """
    size = len(data)
    if size <= _CHUNK:
        number = int.from_bytes(data, "big")
        return number << 8 if size & 1 else number
    whole = size - size % _CHUNK
    from_bytes = int.from_bytes
    number = sum([from_bytes(data[at : at + _CHUNK], "big") for at in range(0, whole, _CHUNK)])
    rest = from_bytes(data[whole:], "big")
    return number + (rest << 8 if size & 1 else rest)


def fold(total: int) -> int:
    """The 16-bit one's complement sum for `total`, a sum of words or of fields of several words."""
    return total % 65535 or (65535 if total else 0)


def ones_sum(data: Buffer, initial: int = 0) -> int:
    """The 16-bit one's complement sum of `data`, not complemented; 0 only if all is zero.

    `initial` is a sum so far, folded or not; what it covers must have had an even length.
    """
    total = word_sum(data) + initial
    return total % 65535 or (65535 if total else 0)


def internet_checksum(data: Buffer, initial: int = 0) -> int:
    """The checksum of `data` by RFC 1071, in host order, to be stored big-endian.

    `initial` is a sum so far (`pseudo_header_sum`, `ones_sum`), folded or not. Over a buffer whose checksum
    field is filled in rightly the result is 0.
    """
    total = word_sum(data) + initial
    if rest := total % 65535:
        return 65535 - rest
    return 0 if total else 65535


def pseudo_header_sum(src: bytes, dst: bytes, proto: int, length: int) -> int:
    """The folded sum of a TCP or UDP pseudo-header (RFC 9293 3.1; RFC 8200 8.1 for 16-byte addresses).

    `length` is that of the transport header and its payload, in bytes. The order of the fields does not
    matter to a sum, nor that IPv6 writes length and protocol in 32 bits, so both are the same computation.
    """
    size = len(src)
    if size != len(dst) or size not in (4, 16):
        raise ValueError(f"addresses of {size} and {len(dst)} bytes")
    total = int.from_bytes(src, "big") + int.from_bytes(dst, "big") + proto + length
    return total % 65535 or (65535 if total else 0)


def update_checksum(checksum: int, old: int, new: int) -> int:
    """`checksum` after a field of one or more whole, word-aligned 16-bit words changed from `old` to `new`.

    RFC 1624 equation 3, HC' = ~(~HC + ~m + m'), which unlike RFC 1141's never turns 0x0000 into 0xFFFF. Exact
    for any buffer that is not all zero afterwards, which no header is.
    """
    return 65535 - fold((65535 - checksum) + (65535 - fold(old)) + new)
