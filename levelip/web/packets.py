"""What was seen, frames and events, in one numbered row: the newest so many, each as compact bytes until it is shown.

A row is a record of the tap bus (docs/tracing.md), kept encoded (some 300 bytes), beside columns that filters and
graphs need at once: time, connection, kind. Text is made when a row is shown. Connections are numbered in the order of
their appearance; their name is "LOCAL:PORT>REMOTE:PORT", as events have it.
"""

from __future__ import annotations

import itertools
import re
import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import msgspec

from levelip.debug.tap import (
    DIRECTION,
    EVENT,
    FIELDS,
    GSO,
    HEAD,
    KIND,
    LENGTH,
    PAYLOAD,
    PROCESS,
    SEAM,
    SEAMS,
    STACK,
    TYPE,
    Notice,
    Record,
    goes_up,
)
from levelip.tracing.dissect import Describer, looks_like_ip
from levelip.tracing.events import Event
from levelip.tracing.formatting import sentence
from levelip.tracing.reasons import lookup
from levelip.wire.addr import format_address

KEEP = 150_000
"""Rows kept unless told otherwise; with 400 bytes each, some 60 MB."""
FRAME, EVENT_ROW, NOTICE = 0, 1, 2
UP, DOWN = 0, 16
"""Added to a frame's seam number in `kinds`."""
_TCP = 6
_NO_CONN = 0
_PORTS = struct.Struct(">HH")
_ENDS = re.compile(r"^(?:IP6?|ARP) (\S+) > (\S+?): ")
_SYN = 2

ConnKey = tuple[bytes, bytes, bytes]


class Packets:
    """The rows from `first` to `end` (exclusive), by numbers that never change."""

    def __init__(self, keep: int = KEEP) -> None:
        self.keep = keep
        self.first = 0
        self.times = array("q")  # stack ns, never falling; of a capture, ns since 1970
        self.conns = array("I")  # 0: none
        self.kinds = array("B")  # kind << 5 | way | seam number
        self._data: list[bytes] = []
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(list[Any]).decode
        self.names: list[str] = [""]  # connection number → name
        self._numbers: dict[str, int] = {"": _NO_CONN}
        self._by_key: dict[ConnKey, int] = {}
        self._describer = Describer()
        self._seen: set[tuple[int, int]] = set()
        self.frames = 0
        self.events = 0

    @property
    def end(self) -> int:
        """The number that the next row gets."""
        return self.first + len(self._data)

    def extend(self, records: Iterable[Record | Notice]) -> None:
        """Take records in the order of their times; beyond `keep` the oldest go, a tenth at a time."""
        for record in records:
            if isinstance(record, Notice):
                self._add(0, _NO_CONN, NOTICE << 5, [0, "n", record.text])
            elif record[KIND] == "e":
                self.events += 1
                self._add(record[EVENT][0], self.number(record[EVENT][4]), EVENT_ROW << 5, record)
            else:
                self.frames += 1
                self._frame(record)
        if len(self._data) > self.keep:
            gone = len(self._data) - self.keep + self.keep // 10
            del self._data[:gone], self.times[:gone], self.conns[:gone], self.kinds[:gone]
            self.first += gone

    def _add(self, when: int, conn: int, kind: int, record: Record) -> None:
        if self.times and when < self.times[-1]:
            when = self.times[-1]
        self.times.append(when)
        self.conns.append(conn)
        self.kinds.append(kind)
        self._data.append(self._encode(record))

    def _frame(self, record: Record) -> None:
        up = goes_up(record[PROCESS], record[SEAM], record[DIRECTION])
        seam = SEAMS.index(record[SEAM])
        conn = _NO_CONN
        found = connection_of(record, up)
        if found is not None:
            key, flags = found
            conn = self._by_key.get(key, 0)
            if not conn:
                conn = self._by_key[key] = self.number(connection_name(key))
            if flags & _SYN or (conn, seam) not in self._seen:
                self._seen.add((conn, seam))
                self._describe(record)  # from here its numbers count, in whichever order rows are shown later
        self._add(record[STACK], conn, FRAME << 5 | (UP if up else DOWN) | seam, record)

    def number(self, name: str) -> int:
        """The number of a connection; a new name gets the next."""
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.names)
            self.names.append(name)
        return number

    def known(self, name: str) -> int | None:
        """The number of a connection that has appeared."""
        return self._numbers.get(name)

    def record(self, n: int) -> Record:
        """A row's record; IndexError if it is gone or yet to come."""
        if not self.first <= n < self.end:
            raise IndexError(f"row {n} is not kept (there are {self.first} to {self.end - 1})")
        return self._decode(self._data[n - self.first])

    def time(self, n: int) -> int:
        """A row's time in ns."""
        return self.times[n - self.first]

    def at(self, when: int) -> int:
        """The first row at or after a time."""
        return self.first + bisect_left(self.times, when)

    def density(self, low: int, high: int, bins: int) -> list[int]:
        """How many rows there are in each of so many equal parts of a time."""
        edges = [bisect_left(self.times, low + (high - low) * i // bins) for i in range(bins + 1)]
        return [after - before for before, after in itertools.pairwise(edges)]

    def row(self, n: int, origin: int) -> list[Any]:
        """A row as the page shows it; seconds since `origin`.

        frame   [n, s, "f", seam, "up"|"down", source, destination, protocol, length, text, connection, flags]
        event   [n, s, "e", process, kind, connection, text, severity, rule]
        notice  [n, s, "n", text]
        """
        record = self.record(n)
        seconds = round((self.time(n) - origin) / 1e9, 9)
        if record[KIND] == "n":
            return [n, seconds, "n", record[2]]
        if record[KIND] == "e":
            event = msgspec.convert(record[EVENT], Event)
            reason = lookup(event.reason) if event.reason else None
            severity = reason.severity.value if reason else _SEVERITY.get(event.kind, "")
            rule = f"{reason.name}: {reason}" if reason else ""
            return [n, seconds, "e", record[PROCESS], event.kind, event.conn, sentence(event), severity, rule]
        up = not self.kinds[n - self.first] & DOWN
        text = self._describe(record)
        match = _ENDS.match(text)
        source, destination = match.groups() if match else ("", "")
        text = text[match.end() :] if match else text
        length = len(record[HEAD]) + record[LENGTH]
        conn = self.names[self.conns[n - self.first]]
        protocol = protocol_of(record)
        flags = text[7 : text.index("]")] if text.startswith("Flags [") else ""
        if flags:
            text = text[text.index("]") + 3 :]
        way = "up" if up else "down"
        return [n, seconds, "f", record[SEAM], way, source, destination, protocol, length, text, conn, flags]

    def _describe(self, record: Record) -> str:
        return self._describer.describe(
            record[SEAM], record[TYPE], record[FIELDS], record[HEAD], record[PAYLOAD], record[LENGTH], record[GSO]
        )


_SEVERITY = {
    "retransmit": "warning", "rto": "warning", "loss": "warning", "reset": "error", "state": "state",
    "dsack": "note", "undo": "note", "recovery": "warning", "reneged": "error", "conflict": "error",
}  # fmt: skip


def ip_part(record: Record) -> tuple[bytes, int]:
    """The bytes from the IP header on that a Packet or DeviceFrame holds, and the offset of it; else nothing."""
    head = record[HEAD]
    data = head + record[PAYLOAD] if len(head) < 94 and record[PAYLOAD] else head
    if record[TYPE] == "Packet":
        return data, 0
    if record[TYPE] == "DeviceFrame":
        if looks_like_ip(data, len(head) + record[LENGTH]):
            return data, 0
        if data[12:14] == b"\x08\x00":
            return data[14:], 14
    return b"", 0


def connection_of(record: Record, up: bool) -> tuple[ConnKey, int] | None:
    """(addresses and ports, ours first; TCP flags) of a frame of TCP; None for another."""
    if record[TYPE] == "Segment":
        fields = record[FIELDS]
        if fields["proto"] != _TCP:
            return None
        src, dst, tcp = fields["src"], fields["dst"], record[HEAD]
    else:
        data, _ = ip_part(record)
        if len(data) < 20 or data[0] >> 4 != 4 or data[9] != _TCP or (data[6] << 8 | data[7]) & 0x1FFF:
            return None
        src, dst, tcp = data[12:16], data[16:20], data[(data[0] & 15) * 4 :]
    if len(tcp) < 14:
        return None
    if up:
        return (dst, src, tcp[2:4] + tcp[0:2]), tcp[13]
    return (src, dst, tcp[0:4]), tcp[13]


def connection_name(key: ConnKey) -> str:
    """As events name it."""
    local, remote = _PORTS.unpack(key[2])
    return f"{format_address(key[0])}:{local}>{format_address(key[1])}:{remote}"


_PROTOCOLS = {1: "ICMP", 2: "IGMP", 6: "TCP", 17: "UDP"}


def protocol_of(record: Record) -> str:
    """The column "protocol": the innermost that is known, or the type of a message that is no packet."""
    if record[TYPE] == "Segment":
        return _PROTOCOLS.get(record[FIELDS]["proto"], f"IP {record[FIELDS]['proto']}")
    data, _ = ip_part(record)
    if len(data) >= 20 and data[0] >> 4 == 4:
        return _PROTOCOLS.get(data[9], f"IP {data[9]}")
    if record[TYPE] == "DeviceFrame":
        kind = record[HEAD][12:14]
        return {b"\x08\x06": "ARP", b"\x86\xdd": "IPv6"}.get(kind, f"0x{kind.hex()}")
    return str(record[TYPE])

