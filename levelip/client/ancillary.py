"""Ancillary data of datagram sockets (ip(7), socket(7)): what goes with a datagram, what is told of one that came."""

from __future__ import annotations

import errno
import os
import socket as std
import struct
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from levelip.client.datagramformat import MAX_OPTIONS, Told

IP_RECVOPTS, IP_RETOPTS, IP_PKTINFO, IP_RECVERR, IP_RECVTTL, IP_RECVTOS = 6, 7, 8, 11, 12, 13
SO_TIMESTAMP, SO_TIMESTAMPNS, SO_RXQ_OVFL = 29, 35, 40
STAMPS = (SO_TIMESTAMP, SO_TIMESTAMPNS)
ASKED_FOR = frozenset(
    {(std.SOL_SOCKET, option) for option in (*STAMPS, SO_RXQ_OVFL)}
    | {(std.IPPROTO_IP, option) for option in (IP_RECVOPTS, IP_RETOPTS, IP_PKTINFO, IP_RECVERR, IP_RECVTTL, IP_RECVTOS)}
)
"""Options that have something told."""
_INT, _UNSIGNED, _TIME = struct.Struct("=i"), struct.Struct("=I"), struct.Struct("=qq")
_PKTINFO = struct.Struct("=i4s4s")
_IGNORED = ((std.SOL_SOCKET, std.SCM_RIGHTS), (std.SOL_SOCKET, std.SCM_CREDENTIALS))  # of AF_UNIX alone (Linux)
_END, _NOP, _RECORDS = 0, 1, (7, 68)  # types of IP options (RFC 791 3.1)
Row = tuple[int, int, bytes]  # level, type, data


class Wish(NamedTuple):
    """How one datagram is to go; without a wish as the socket's options say."""

    tos: int = -1
    ttl: int = -1
    source: bytes = b""
    ip_options: bytes | None = None

    @property
    def asks(self) -> bool:
        """Whether there is something in it that has to be answered."""
        return bool(self.source) or self.ip_options is not None


def check(control: Iterable[Row]) -> None:
    """What is of SOL_SOCKET must be known, even where nothing is carried: OSError(EINVAL) (sock_cmsg_send)."""
    for level, kind, _ in control:
        if level == std.SOL_SOCKET and (level, kind) not in _IGNORED:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def wish(control: list[Row]) -> Wish:
    """What ancillary data asks for: IP_TOS, IP_TTL, IP_PKTINFO, IP_RETOPTS; OSError(EINVAL) for any other of IP, of UDP
    and of SOL_SOCKET. That of other levels means nothing (ip_cmsg_send)."""
    check(control)
    asked = Wish()
    for level, kind, data in control:
        if level == std.IPPROTO_UDP:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if level != std.IPPROTO_IP:
            continue
        if kind == IP_PKTINFO and len(data) == _PKTINFO.size:
            asked = asked._replace(source=_PKTINFO.unpack(data)[1] if any(data[4:8]) else b"")
        elif kind == IP_RETOPTS:
            asked = asked._replace(ip_options=data[:MAX_OPTIONS])
        elif kind in (std.IP_TOS, std.IP_TTL) and len(data) in (1, _INT.size):
            number = data[0] if len(data) == 1 else _INT.unpack(data)[0]
            if not (1 if kind == std.IP_TTL else 0) <= number <= 255:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            asked = asked._replace(tos=number) if kind == std.IP_TOS else asked._replace(ttl=number)
        else:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return asked


def instead_of(level: int, option: int) -> list[tuple[int, int]]:
    """Options that are off once this one is set."""
    if level != std.SOL_SOCKET or option not in STAMPS:
        return []
    return [(level, other) for other in STAMPS if other != option]


def rows(told: Told, wants: Callable[[int, int], bool]) -> list[Row]:
    """What is told of a datagram where `wants` (level, option) says so, in the order of Linux (sock_recv_cmsgs, then
    ip_cmsg_recv_offset)."""
    found: list[Row] = []
    stamp = told.stamp or time.time_ns()  # what came before the option was set: now, as Linux has it
    if wants(std.SOL_SOCKET, SO_TIMESTAMP):
        seconds, rest = divmod(stamp, 1_000_000_000)
        found.append((std.SOL_SOCKET, SO_TIMESTAMP, _TIME.pack(seconds, rest // 1000)))
    if wants(std.SOL_SOCKET, SO_TIMESTAMPNS):
        found.append((std.SOL_SOCKET, SO_TIMESTAMPNS, _TIME.pack(*divmod(stamp, 1_000_000_000))))
    if told.drops and wants(std.SOL_SOCKET, SO_RXQ_OVFL):
        found.append((std.SOL_SOCKET, SO_RXQ_OVFL, _UNSIGNED.pack(told.drops)))
    if wants(std.IPPROTO_IP, IP_PKTINFO):
        found.append((std.IPPROTO_IP, IP_PKTINFO, _PKTINFO.pack(told.iface, _answers(told.local), told.local)))
    if wants(std.IPPROTO_IP, IP_RECVTTL):
        found.append((std.IPPROTO_IP, std.IP_TTL, _INT.pack(told.ttl)))
    if wants(std.IPPROTO_IP, IP_RECVTOS):
        found.append((std.IPPROTO_IP, std.IP_TOS, bytes([told.tos])))
    if told.options and wants(std.IPPROTO_IP, IP_RECVOPTS):
        found.append((std.IPPROTO_IP, IP_RECVOPTS, told.options))
    if told.options and wants(std.IPPROTO_IP, IP_RETOPTS):
        found.append((std.IPPROTO_IP, IP_RETOPTS, _for_answer(told.options)))
    return found


def _for_answer(options: bytes) -> bytes:
    """Those of the well-formed options that an answer should bear, record route and timestamps (ip_options_echo)."""
    kept, at = b"", 0
    while at < len(options) and options[at] != _END:
        length = 1 if options[at] == _NOP else options[at + 1]
        if options[at] in _RECORDS:
            kept += options[at : at + length]
        at += length
    return kept + bytes(-len(kept) & 3)


def _answers(local: bytes) -> bytes:
    """Where an answer would come from: the address that it was sent to, if that is one of ours."""
    return bytes(4) if local[0] >= 224 else local
