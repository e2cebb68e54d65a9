"""Packets out of a capture file, numbered as Wireshark does, and the IPv4 packet in each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from levelip.tracing.capturefile import CaptureError, CaptureFile
from levelip.tracing.linktypes import ether_type, ip_header, known

_DIRECTIONS = ("", "up", "down")
"""Of a packet, by capturefile's number: inbound is toward the applications."""


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """A packet of a file. `number` counts from 1, as Wireshark does; `at` is ns since 1970; `length` what it had before
    it was cut to `data`; `interface` its name, where the file has one; `direction` "up" for inbound, "down" for
    outbound, "" where the file does not say."""

    number: int
    at: int
    linktype: int
    data: bytes
    length: int
    interface: str = ""
    direction: str = ""

    @property
    def cut(self) -> bool:
        return len(self.data) < self.length


def read_capture(path: Path) -> Iterator[CapturedPacket]:
    """The packets of a file, in its order; CaptureError where it cannot be read on, OSError where not at all."""
    with path.open("rb") as stream:
        yield from read_stream(stream, str(path))


def read_stream(stream: BinaryIO, name: str) -> Iterator[CapturedPacket]:
    """The same of a stream that can be rewound; `name` is for errors."""
    try:
        file = CaptureFile(stream)
    except CaptureError:
        raise CaptureError(f"{name} is no capture: it starts neither as pcapng nor as pcap") from None
    old = file.kind == "pcap"
    number = 0
    for number, packet in enumerate(file, 1):
        interface = "" if old else packet.interface
        way = _DIRECTIONS[packet.direction]
        yield CapturedPacket(number, packet.when, packet.linktype, packet.data, packet.length, interface, way)
    if not file.damage:
        return
    if not old:
        where = f"behind packet {number}" if number else "from its start"
        raise CaptureError(f"{name} cannot be read {where}: {file.damage}")
    if file.damage.startswith("it ends"):
        where = "its header" if not file.interfaces else f"packet {number + 1}"
        raise CaptureError(f"{name} ends within {where}")
    raise CaptureError(f"{name}: packet {number + 1}: {file.damage}; the file is damaged")


def ip_packet(packet: CapturedPacket) -> bytes:
    """Its IPv4 packet, without what stands before it; CaptureError if there is none."""
    data, kind = packet.data, packet.linktype
    at = ip_header(kind, data)
    if at is not None and data[at] >> 4 == 4:
        return data[at:]
    what = f"packet {packet.number}"
    if not known(kind):
        raise CaptureError(f"{what} is of link type {kind}, in which we find no IPv4 packets")
    said = ether_type(kind, data)
    raise CaptureError(f"{what} is no IPv4 packet" + (f": its EtherType is 0x{said.hex()}" if said else ""))
