"""Packets out of a capture file: pcapng, which python-pcapng reads, and the older pcap, read here.

(tcpdump.org, pcap-savefile(5): a header of 24 bytes, then 16 bytes before each packet.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from levelip.tracing.pcapng import LINKTYPE_ETHERNET, LINKTYPE_RAW

LINKTYPE_NULL = 0
LINKTYPE_LINUX_SLL = 113
LINKTYPE_IPV4 = 228
LINKTYPE_LINUX_SLL2 = 276
_SLL = {LINKTYPE_LINUX_SLL: (16, 14), LINKTYPE_LINUX_SLL2: (20, 0)}
"""Linux's "cooked" headers: their length, and where the protocol lies."""
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000), b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1), b"\xa1\xb2\x3c\x4d": (">", 1),
}  # fmt: skip
"""First bytes of a pcap file: byte order, and ns of its smaller unit of time."""
_MAX_PACKET = 262_144
"""Bytes; what tcpdump takes at most (MAXIMUM_SNAPLEN). More says that this is no capture."""


class CaptureError(ValueError):
    """A file that is no capture, or ends in the middle of one."""


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
    magic = stream.read(4)
    stream.seek(0)
    if magic == _PCAPNG:
        yield from _read_pcapng(stream, name)
    elif magic in _MAGICS:
        yield from _read_pcap(stream, name, *_MAGICS[magic])
    else:
        raise CaptureError(f"{name} is no capture: it starts neither as pcapng nor as pcap")


def ip_packet(packet: CapturedPacket) -> bytes:
    """Its IPv4 packet, without what stands before it; CaptureError if there is none."""
    data, kind = packet.data, packet.linktype
    if kind == LINKTYPE_ETHERNET:
        at = 12
        while data[at : at + 2] in (b"\x81\x00", b"\x88\xa8"):
            at += 4
        if data[at : at + 2] == b"\x08\x00":
            return data[at + 2 :]
        raise CaptureError(f"packet {packet.number} is no IPv4 packet: its EtherType is 0x{data[at : at + 2].hex()}")
    if kind in _SLL:
        length, at = _SLL[kind]
        if data[at : at + 2] == b"\x08\x00":
            return data[length:]
    elif kind == LINKTYPE_NULL:
        if len(data) > 4 and data[4] >> 4 == 4:
            return data[4:]
    elif kind in (LINKTYPE_RAW, LINKTYPE_IPV4):
        if data[:1] and data[0] >> 4 == 4:
            return data
    else:
        raise CaptureError(f"packet {packet.number} is of link type {kind}, in which we find no IPv4 packets")
    raise CaptureError(f"packet {packet.number} is no IPv4 packet")


def _read_pcap(stream: BinaryIO, path: str, order: str, unit: int) -> Iterator[CapturedPacket]:
    header = stream.read(24)
    if len(header) < 24:
        raise CaptureError(f"{path} ends within its header")
    linktype = struct.unpack_from(order + "I", header, 20)[0] & 0x0FFF_FFFF  # above: length of the check sequence
    record = struct.Struct(order + "IIII")
    number = 0
    while True:
        head = stream.read(record.size)
        if not head:
            return
        number += 1
        if len(head) < record.size:
            raise CaptureError(f"{path} ends within packet {number}")
        seconds, fraction, size, length = record.unpack(head)
        if size > _MAX_PACKET:
            raise CaptureError(f"{path}: packet {number} would have {size} bytes; the file is damaged")
        data = stream.read(size)
        if len(data) < size:
            raise CaptureError(f"{path} ends within packet {number}")
        yield CapturedPacket(number, seconds * 1_000_000_000 + fraction * unit, linktype, data, length)


def _read_pcapng(stream: BinaryIO, path: str) -> Iterator[CapturedPacket]:
    from pcapng import FileScanner
    from pcapng.blocks import EnhancedPacket, SimplePacket

    number = 0
    blocks = iter(FileScanner(stream))
    while True:
        try:
            block = next(blocks)
            if not isinstance(block, EnhancedPacket | SimplePacket):
                continue
            number += 1
            packet = _packet(block, number)
        except StopIteration:
            return
        except Exception as error:  # the library raises whatever a damaged file leads it to
            where = f"behind packet {number}" if number else "from its start"
            raise CaptureError(f"{path} cannot be read {where}: {error or type(error).__name__}") from None
        yield packet


def _packet(block: Any, number: int) -> CapturedPacket:
    interface = block.interface
    at = 0
    if hasattr(block, "timestamp_high"):
        ticks = (block.timestamp_high << 32) + block.timestamp_low
        at = ticks * max(1, round(float(interface.timestamp_resolution) * 1e9))
    flags = block.options.get("epb_flags") if hasattr(block, "options") else None
    way = getattr(flags, "inout", flags)
    if isinstance(way, int):
        way = {1: "inbound", 2: "outbound"}.get(way & 3)
    direction = {"inbound": "up", "outbound": "down"}.get(str(way), "")
    data = bytes(block.packet_data)
    name = str(interface.options.get("if_name", ""))
    length = int(getattr(block, "packet_len", 0) or getattr(block, "original_len", 0) or len(data))
    return CapturedPacket(number, at, int(interface.link_type), data, length, name, direction)
