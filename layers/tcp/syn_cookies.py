"""SYN cookies, RFC 4987 3.6: an ISN, and a timestamp, that hold all that a half-open connection would have to remember.

    ISN =  F(addresses, ports, 0) + IRS + count << 24 + (F(addresses, ports, count) + index of the MSS) mod 2^24

as Linux computes it (net/ipv4/syncookies.c, secure_tcp_syn_cookie), with our keyed hash as F. `count` is a clock of
64 seconds; a cookie is good in the period in which it was made and in the next. What the 3 bits of an MSS leave out
lies in the low six bits of our timestamp, which the peer echoes, if it has them; else there is no scaling and no SACK:

    | ... clock of 1 ms, rounded down to 64 | ECN 1 | SACK 1 | window scale 4 (15: none) |
"""

from __future__ import annotations

from layers.tcp.isn import connection_hash

SECOND = 1_000_000_000  # nanoseconds
PERIOD = 64 * SECOND  # RFC 4987 3.6: a counter that advances every 64 seconds (Linux: 60)
PERIODS = 2  # how many of them a cookie is good for (Linux MAX_SYNCOOKIE_AGE)
MSS_TABLE = (536, 1300, 1440, 1460)  # bytes: Linux msstab, the common values of 2012
NO_SCALE = 15  # a shift that RFC 7323 2.3 forbids
SACK_BIT, ECN_BIT = 0x10, 0x20
STAMP_BITS = 6

MASK = 0xFFFF_FFFF
LOW = 0xFF_FFFF


def make_cookie(secret: bytes, who: bytes, irs: int, mss: int, now: int) -> int:
    """The ISN for a peer `who` (its four-tuple, as connection_key gives it) whose SYN had `irs` and that MSS."""
    index = max(at for at, size in enumerate(MSS_TABLE) if not at or size <= mss)
    count = now // PERIOD
    varying = (_hash(secret, who, count + 1) + index) & LOW
    return (_hash(secret, who, 0) + irs + (count << 24) + varying) & MASK


def read_cookie(secret: bytes, who: bytes, irs: int, cookie: int, now: int) -> int:
    """The MSS that a cookie of ours holds; 0 if it is none, or too old."""
    rest = (cookie - _hash(secret, who, 0) - irs) & MASK
    count = now // PERIOD
    age = (count - (rest >> 24)) & 0xFF
    if age >= PERIODS or age > count:
        return 0
    index = (rest - _hash(secret, who, count - age + 1)) & LOW
    return MSS_TABLE[index] if index < len(MSS_TABLE) else 0


def make_stamp(ticks: int, *, scale: int | None, sack: bool, ecn: bool) -> int:
    """The latest value of the millisecond clock, no later than `ticks`, whose low bits say this of the peer's SYN."""
    bits = NO_SCALE if scale is None else scale
    bits |= (SACK_BIT if sack else 0) | (ECN_BIT if ecn else 0)
    stamp = ticks >> STAMP_BITS << STAMP_BITS | bits
    return stamp if stamp <= ticks else stamp - (1 << STAMP_BITS)


def read_stamp(stamp: int) -> tuple[int | None, bool, bool]:
    """Window scale (None: not offered), SACK, ECN."""
    scale = stamp & NO_SCALE
    return None if scale == NO_SCALE else scale, bool(stamp & SACK_BIT), bool(stamp & ECN_BIT)


def _hash(secret: bytes, who: bytes, count: int) -> int:
    return connection_hash(secret, b"cookie", who, count.to_bytes(8, "big"))
