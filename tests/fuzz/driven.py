"""A core with a clock, for the fuzz targets, and the packets that they make of bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgspec

from levelip.wire.checksum import internet_checksum
from tests.fuzz.reader import Reader

MS = 1_000_000
SECOND = 1000 * MS
START = 1_000 * SECOND
OURS, THEIRS, ROUTER = b"\x0a\0\0\2", b"\x0a\0\0\1", b"\x0a\0\0\xfe"
OUR_MAC, THEIR_MAC = b"\2\0\0\0\0\2", b"\2\0\0\0\0\1"
PORTS = ("ip", "link", "tcp", "gateway", "device")
OPERATIONS = 60
"""Most operations of one input: a longer one finds nothing that two do not."""
SNAPSHOT_MOST = 600_000
"""Bytes that a core's whole state may take after one input, packed: rings are not in it."""
ADDRESSES = (THEIRS, OURS, ROUTER, b"\x0a\0\0\xff", b"\xff" * 4, b"\xe0\0\0\1", b"\x7f\0\0\1", bytes(4), b"\xc0\0\2\1")


class Driven:
    """A core with a clock. Its output is thrown away but for what a target wants to see."""

    def __init__(self, core: Any, restore: Callable[[dict[str, Any]], Any]) -> None:
        self.core = core
        self.core.interest = True
        self.now = START
        self._restore = restore
        self.ident = 1

    def feed(self, frame: Any) -> None:
        """One frame, and nothing after it."""
        self.core.receive(frame, self.now)

    def flush(self, room: int = 1 << 30) -> list[tuple[str, Any]]:
        """What goes out where every pipe has that much room."""
        output: list[tuple[str, Any]] = self.core.outgoing(dict.fromkeys(PORTS, room))
        self.core.events()
        return output

    def pass_time(self, ns: int) -> None:
        """Timers fire as they are due; at most 50 of them, then the rest at once."""
        end = self.now + ns
        for _ in range(50):
            due = self.core.next_timer()
            if due is None or due > end:
                break
            self.now = max(self.now, due)
            self.core.handle_timer(self.now)
            self.flush()
        self.now = end
        self.core.handle_timer(self.now)

    def wait(self, reader: Reader) -> None:
        """From 1 ms to 2 hours."""
        self.pass_time(min(1 << reader.below(23), 7_200_000) * MS)

    def name(self) -> int:
        """A fresh frame id."""
        self.ident += 1
        return self.ident

    def finish(self) -> None:
        """The state is bounded, and a core restored from it is the same."""
        self.flush()
        state = self.core.snapshot()
        packed = msgspec.msgpack.encode(state)
        assert len(packed) <= SNAPSHOT_MOST, f"the state takes {len(packed)} bytes"
        again = msgspec.msgpack.encode(self._restore(state).snapshot())
        assert again == packed, "restore(snapshot()) is another state"


def checksummed(head: bytes, at: int) -> bytes:
    """`head` with its Internet checksum filled in at `at`, so that what follows it is looked at."""
    plain = head[:at] + b"\0\0" + head[at + 2 :]
    return plain[:at] + internet_checksum(plain).to_bytes(2, "big") + plain[at + 2 :]


def ip_packet(reader: Reader, payload: bytes, *, proto: int, src: bytes = THEIRS, dst: bytes = OURS) -> bytes:
    """An IPv4 packet with some fields drawn; most are right."""
    options = reader.piece(40) if reader.below(4) == 0 else b""
    options += bytes(-len(options) % 4)
    word = reader.number(2) if reader.below(4) == 0 else 0
    ident, ttl = reader.number(1), reader.below(4)
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45 + len(options) // 4, reader.number(), 20 + len(options) + len(payload), ident, word,
        64 if ttl else 1, proto, 0, src, dst,
    )  # fmt: skip
    return checksummed(head + options, 10) + payload
