"""recvmsg() with MSG_ERRQUEUE: the bytes that Linux gives (ip(7), linux/errqueue.h)."""

from __future__ import annotations

import errno
import socket as std
import struct
from typing import Any

import pytest

from levelip.client.datagramformat import told as read_header
from levelip.client.errorqueue import IP_RECVERR, MSG_ERRQUEUE, take

ROUTER, PEER = bytes([10, 0, 0, 254]), bytes([10, 0, 0, 1])


def told(**changes: Any) -> Any:
    """A helper's answer."""
    error = {
        "errno": errno.EHOSTUNREACH, "icmp_type": 3, "icmp_code": 1, "reporter": ROUTER, "address": PEER, "port": 53,
        "mtu": 0, "payload": b"what was sent", **changes,
    }  # fmt: skip
    return lambda op: error if op == "errqueue" else None


def test_what_an_icmp_error_says() -> None:
    """Errno, origin ICMP, type, code; the offender in a struct sockaddr_in; the destination as the address."""
    buffer = bytearray(20)
    size, flags, header = take(told(), [buffer])
    assert (size, bytes(buffer[:size]), flags) == (13, b"what was sent", MSG_ERRQUEUE)
    where = read_header(header)
    assert (where.address, where.port) == (PEER, 53)
    ((level, kind, value),) = header.rows
    assert (level, kind, len(value)) == (std.IPPROTO_IP, IP_RECVERR, 32)
    assert struct.unpack("=IBBBBII", value[:16]) == (errno.EHOSTUNREACH, 2, 3, 1, 0, 0, 0)
    assert value[16:] == struct.pack("=H", std.AF_INET) + bytes(2) + ROUTER + bytes(8)


def test_our_own_verdict() -> None:
    """Origin LOCAL, the MTU as its information, and nobody who sent it."""
    _, _, header = take(told(errno=errno.EMSGSIZE, icmp_type=-1, icmp_code=0, mtu=1400, payload=b""), [bytearray(9)])
    value = header.rows[0][2]
    assert struct.unpack("=IBBBBII", value[:16]) == (errno.EMSGSIZE, 1, 0, 0, 0, 1400, 0) and value[16:] == bytes(16)


@pytest.mark.parametrize(("sizes", "cut"), [((13,), False), ((4, 9), False), ((4, 8), True), ((0,), True), ((), True)])
def test_buffers(sizes: tuple[int, ...], cut: bool) -> None:
    """Several are filled one after the other; MSG_TRUNC where they hold not all of it."""
    views = [bytearray(size) for size in sizes]
    size, flags, _ = take(told(), views)
    assert b"".join(views) == b"what was sent"[: sum(sizes)] and size == min(sum(sizes), 13)
    assert bool(flags & std.MSG_TRUNC) is cut
