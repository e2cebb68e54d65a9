"""Echo requests of programs: SOCK_DGRAM with IPPROTO_ICMP, as Linux's net/ipv4/ping.c (`ping` without root).

A socket sends echo requests and nothing else. Its port is the identifier of all that it sends, and the replies with
that identifier are its own.
"""

from __future__ import annotations

import errno

from layers.udp.endpoints import Endpoint
from levelip.frames.packet import IcmpError, Segment
from levelip.wire import icmp
from levelip.wire.checksum import internet_checksum
from levelip.wire.ipv4 import IPV4_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH

MAX_REQUEST = IPV4_MAX_TOTAL_LENGTH - IPV4_HEADER_LEN
"""Bytes of the ICMP message, its header included."""


def check(payload: bytes) -> int:
    """What sendto(2) says of these bytes: 0, or an errno (ping_common_sendmsg)."""
    if len(payload) > MAX_REQUEST:
        return errno.EMSGSIZE
    if len(payload) < icmp.ICMP_HEADER_LEN or payload[0] != icmp.ECHO or payload[1]:
        return errno.EINVAL
    return 0


def request(one: Endpoint, payload: bytes) -> bytes:
    """The message on the wire: the program's, with the socket's identifier and a fresh checksum."""
    data = payload[:2] + bytes(2) + one.port.to_bytes(2, "big") + payload[6:]
    return data[:2] + internet_checksum(data).to_bytes(2, "big") + data[4:]


def identifier(segment: Segment) -> tuple[int, bytes]:
    """Of an echo reply as ip hands it up, and the whole message. ip has verified it."""
    data = segment.head + segment.payload if isinstance(segment.payload, bytes) else segment.head
    return int.from_bytes(data[4:6], "big"), data


def identifier_of_request(error: IcmpError) -> int:
    """Of the echo request that an error quotes; 0 if it quotes something else."""
    head = error.head
    return int.from_bytes(head[4:6], "big") if len(head) >= icmp.ICMP_HEADER_LEN and head[0] == icmp.ECHO else 0
