"""Records of the tap bus, made by hand for the web view's tests, and what else they share."""

from __future__ import annotations

import struct
from typing import Any

from levelip.web.layers import Layers

OURS, THEIRS = bytes([10, 0, 0, 2]), bytes([10, 0, 0, 1])
NAME = "10.0.0.2:80>10.0.0.1:4711"
MS = 1_000_000
SYN, ACK, PSH, FIN = 2, 16, 8, 1


def segment(
    at: int, way: str, *, seq: int = 0, ack: int = 0, flags: int = ACK, length: int = 0, window: int = 1000
) -> list[Any]:
    """A segment at ip-tcp as tcp tells of it, between our port 80 and their 4711; `at` in ns of stack time."""
    ports = (80, 4711) if way == "down" else (4711, 80)
    src, dst = (OURS, THEIRS) if way == "down" else (THEIRS, OURS)
    head = struct.pack(">HHIIHHHH", *ports, seq, ack, 0x5000 | flags, window, 0, 0)
    fields = {"traced": False, "ingress": at, "iface": 1, "src": src, "dst": dst, "proto": 6, "ttl": 64, "tos": 0,
              "dont_fragment": True, "flags": 0}  # fmt: skip
    direction = "out" if way == "down" else "in"
    return [0, "f", "tcp", "ip-tcp", direction, at, at + 5, at, [], "Segment", fields, head, b"", length, 2, 0]


def event(at: int, kind: str, *, conn: str = NAME, reason: str = "", **data: Any) -> list[Any]:
    """A decision of tcp."""
    return [0, "e", "tcp", at + 5, [at, kind, reason, 0, conn, data]]


def transfer(segments: int, *, start: int = 1000 * MS, gap: int = MS, size: int = 100) -> list[list[Any]]:
    """A handshake that the peer began, and so many segments from us, each acknowledged half a gap later."""
    records = [
        segment(start, "up", seq=999, flags=SYN),
        segment(start + 1, "down", seq=4999, ack=1000, flags=SYN | ACK),
        segment(start + 2, "up", seq=1000, ack=5000),
    ]
    for i in range(segments):
        at = start + (i + 1) * gap
        records.append(segment(at, "down", seq=5000 + i * size, ack=1000, flags=ACK | PSH, length=size))
        records.append(segment(at + gap // 2, "up", seq=1000, ack=5000 + (i + 1) * size))
    return records


def anew(layers: Layers) -> list[dict[str, Any]]:
    """The sockets, however long the last answer took: a slow one is not asked for again at once."""
    layers._ask_sockets_at = 0.0
    return layers.sockets()
