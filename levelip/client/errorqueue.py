"""The error queue of a datagram socket: recvmsg() with MSG_ERRQUEUE where IP_RECVERR is on (ip(7)).

The helper keeps it. What a program gets is Linux's: the bytes that the error quotes of the datagram, where that was
sent to as the address, and a struct sock_extended_err with the address of whoever sent the error as ancillary data.
"""

from __future__ import annotations

import socket as std
import struct
from typing import Any

from levelip.client.ancillary import IP_RECVERR
from levelip.client.datagramformat import DATAGRAM, Told

MSG_ERRQUEUE = 0x2000
SO_EE_ORIGIN_LOCAL, SO_EE_ORIGIN_ICMP = 1, 2  # linux/errqueue.h
_EXTENDED = struct.Struct("=IBBBxII")  # errno, origin, type, code, info (the MTU), data
_OFFENDER = struct.Struct("=H2x4s8x")  # struct sockaddr_in, port 0


class QueuedHeader(bytes):
    """An UP header whose address is where the datagram went to; `rows` is the ancillary data."""

    rows: list[tuple[int, int, bytes]]


def take(call: Any, views: list[Any]) -> tuple[int, int, QueuedHeader]:
    """The oldest error, its quoted bytes put into `views`: (bytes put there, msg_flags, header). BlockingIOError if
    there is none. `call` is the socket's way to its helper."""
    told = call("errqueue")
    rest = memoryview(told["payload"])
    size = 0
    for view in views:
        part = rest[: memoryview(view).nbytes]
        memoryview(view).cast("B")[: len(part)] = part
        rest, size = rest[len(part) :], size + len(part)
    return size, MSG_ERRQUEUE | (int(std.MSG_TRUNC) if rest else 0), describe(told)


def describe(told: dict[str, Any]) -> QueuedHeader:
    """What belongs to an error, which the helper has told."""
    local = told["icmp_type"] < 0
    origin = SO_EE_ORIGIN_LOCAL if local else SO_EE_ORIGIN_ICMP
    kind = 0 if local else told["icmp_type"]
    extended = _EXTENDED.pack(told["errno"], origin, kind, told["icmp_code"], told["mtu"], 0)
    offender = bytes(_OFFENDER.size) if local else _OFFENDER.pack(std.AF_INET, told["reporter"])
    header = QueuedHeader(Told(DATAGRAM, port=told["port"], address=told["address"]).pack())
    header.rows = [(std.IPPROTO_IP, IP_RECVERR, extended + offender)]
    return header
