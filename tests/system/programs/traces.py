"""Follows a path as traceroute(8) does without privilege: `python traces.py TARGET HOPS ANSWERED` sends UDP probes with
a growing TTL, each by a connected socket with IP_RECVERR, and learns from POLLERR and the error queue what became of
them; beyond ANSWERED hops nothing is to come. A line each. Then as tracepath(8), which has one socket, connected to
nothing. Standard library only.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys

from semantics import error, mask

IP_RECVERR, MSG_ERRQUEUE, ERRORS = 11, 0x2000, 8
EXTENDED = struct.Struct("=IBBBBII")  # struct sock_extended_err, linux/errqueue.h
PORT = 33_434
PATIENCE_S, SILENCE_S = 60.0, 2.0  # for an answer that will come; for one that will not


def queued(sock: socket.socket) -> str:
    """The oldest error of the queue: errno, type and code of ICMP, who said so, about which destination."""
    data, rows, flags, about = sock.recvmsg(512, 512, MSG_ERRQUEUE)
    for level, kind, value in rows:
        if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR):
            code, origin, what, why, _, _, _ = EXTENDED.unpack_from(value)
            offender = socket.inet_ntoa(value[EXTENDED.size + 4 : EXTENDED.size + 8])
            return (
                f"{errno.errorcode[code]} {origin} {what}/{why} {offender} {about} {data!r} {flags & MSG_ERRQUEUE != 0}"
            )
    return "no reason"


def patience(ttl: int) -> float:
    return PATIENCE_S if ttl <= int(sys.argv[3]) else SILENCE_S


def probe(ttl: int, target: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        sock.connect((target, PORT + ttl))
        sock.setblocking(False)
        sock.send(b"probe")
        found = mask(sock, patience(ttl), select.POLLIN | ERRORS)
        if found != "ERR":
            return found
        return f"{queued(sock)}, {mask(sock, 0, select.POLLIN | ERRORS)}, {error(sock.recv, 1)}"


def path(hops: int, target: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        sock.setblocking(False)
        for ttl in range(1, hops + 1):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            sock.sendto(b"probe", (target, PORT + ttl))
            found = mask(sock, patience(ttl), select.POLLIN | ERRORS)
            print("path", ttl, queued(sock) if found == "ERR" else found, mask(sock, 0, ERRORS), flush=True)


for hop in range(1, int(sys.argv[2]) + 1):
    print(hop, probe(hop, sys.argv[1]), flush=True)
path(int(sys.argv[2]), sys.argv[1])
