"""Raw ICMP sockets, as busybox's ping opens one: on the stack each is an ICMP datagram socket, dressed as a raw one.

What is sent must be an echo request; its identifier, which the program has chosen, becomes the socket's with the first
one. What comes are the echo replies with it, behind an IP header, as raw(7) has them. Other ICMP messages do not come.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from levelip.client.datagrams import DatagramPair
from levelip.rpc.messages import DatagramIn
from levelip.run import target

if TYPE_CHECKING:
    from levelip.run.trapped import Trapped

SOL_RAW, ICMP_FILTER = 255, 1  # linux/icmp.h
CAP_NET_RAW = 13
ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_IP = struct.Struct("!BBHHHBBH4s4s")
_VERSION_AND_LENGTH = 0x45


def is_carried(call: Trapped, proto: int) -> bool:
    """Whether a raw socket can be had: of ICMP, by a thread that may have one on Linux, too."""
    return proto == socket.IPPROTO_ICMP and bool(target.capabilities(call.tid) >> CAP_NET_RAW & 1)


def with_header(message: DatagramIn) -> bytes:
    """What a raw socket reads of it. The checksum is 0, which programs do not look at."""
    payload = message.payload  # of 65,515 bytes at most
    if not isinstance(payload, bytes):
        return b""  # datagrams travel inline
    options = message.ip_options
    header = _IP.pack(
        _VERSION_AND_LENGTH + len(options) // 4, message.tos & 0xFF, (_IP.size + len(options) + len(payload)) & 0xFFFF,
        0, 0, message.ttl & 0xFF,
        socket.IPPROTO_ICMP, 0, message.address, message.local_address,
    )  # fmt: skip
    return header + options + payload


def identifier(pair: DatagramPair, payload: bytes) -> int | None:
    """What the socket is to be bound to before the payload is sent; None: it has a name, or that is no echo."""
    if pair.dress is None or pair.bound is not None or len(payload) < ECHO.size:
        return None
    return int(ECHO.unpack_from(payload)[3])


def only_listens(pair: DatagramPair) -> bool:
    """Whether it is a raw socket that has sent nothing, as busybox's traceroute has one beside that which sends."""
    return pair.dress is not None and pair.bound is None
