"""Initial sequence numbers (RFC 6528) and timestamp offsets: a clock plus a keyed hash of who talks to whom."""

from __future__ import annotations

from hashlib import blake2s

ISN_TICK = 4_000  # nanoseconds: RFC 9293 3.4.1, about every 4 µs
TS_TICK = 1_000_000  # nanoseconds: RFC 7323 5.4 wants 1 ms to 1 s; Linux 1 ms


def connection_hash(secret: bytes, *parts: bytes) -> int:
    """32 bits that nobody without `secret` can foretell: BLAKE2s in the place of RFC 6528's F()."""
    digest = blake2s(key=secret[:32], digest_size=4)
    for part in parts:
        digest.update(len(part).to_bytes(2, "big"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")


def initial_sequence(secret: bytes, local: bytes, local_port: int, remote: bytes, remote_port: int, now: int) -> int:
    """ISN = M + F(local address, local port, remote address, remote port, secret), RFC 6528 3."""
    ports = local_port.to_bytes(2, "big") + remote_port.to_bytes(2, "big")
    return (now // ISN_TICK + connection_hash(secret, b"isn", local, remote, ports)) & 0xFFFFFFFF


def timestamp_offset(secret: bytes, local: bytes, remote: bytes) -> int:
    """What is added to the millisecond clock in TSval: one value a pair of hosts.

    Not one a connection, so that timestamps go on rising from one connection to the next of the same four-tuple, on
    which reuse of TIME-WAIT rests (RFC 6191 2); and not zero, so that they do not tell our uptime (RFC 7323 7.1).
    """
    return connection_hash(secret, b"ts", local, remote)
