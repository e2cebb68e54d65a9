"""Reads capture files: pcapng and pcap, of either byte order, also gzipped, ours and others'.

    with open(path, "rb") as stream:
        for packet in CaptureFile(stream):
            ...

Read here and not by python-pcapng, which takes 830 µs for a packet with a comment (this takes 7) [measured, CPython
3.11]; a test has it read what that library wrote. (draft-ietf-opsawg-pcapng: 3.1 block, 4.1 section, 4.2 interface, 4.3
enhanced packet, 4.4 simple packet; draft-ietf-opsawg-pcap: 4 file header, 5 packet record.)
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, cast

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
PACKET: Final = 2  # obsolete, but written by old tools
SIMPLE: Final = 3
ENHANCED: Final = 6
_BYTE_ORDER = 0x1A2B3C4D
_PCAP = {0xA1B2C3D4: 1_000, 0xA1B23C4D: 1}
"""Magic → ns of a unit of the fraction of a second."""
_GZIP = b"\x1f\x8b"
BEGINNINGS: Final = frozenset(
    (b"\x0a\x0d\x0d\x0a", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d")
)
"""Four bytes that pcapng files begin with, and pcap files of either order, in microseconds and nanoseconds."""
_MOST_BLOCK = 1 << 27
"""Bytes: a block longer than this is taken for damage (a packet of 64 KB with many comments has some hundred KB)."""
_OPT_COMMENT, _EPB_FLAGS, _IF_NAME, _IF_TSRESOL, _IF_TSOFFSET = 1, 2, 2, 9, 14
_SECOND = 1_000_000_000


class CaptureError(ValueError):
    """The file is no capture, or of a kind that is not read; the text says what it looks like."""


class CapturedPacket(NamedTuple):
    """One packet: `when` in ns since 1970 (0 where the file has no times), `length` what it was before it was cut to
    `data`, `direction` 0 unknown, 1 inbound, 2 outbound."""

    when: int
    linktype: int
    interface: str  # its name, or its number
    data: bytes
    length: int
    direction: int
    comments: list[str]


@dataclass(slots=True)
class _Interface:
    linktype: int
    snaplen: int
    name: str
    unit: int = 1_000_000  # units a second
    offset: int = 0  # seconds


class CaptureFile:
    """An iterator of packets. `interfaces` fills while reading; `damage` says afterwards what ended it early, if
    anything did: what came before is good. CaptureError at once for what is no capture."""

    def __init__(self, stream: BinaryIO) -> None:
        start = stream.read(4)
        if start[:2] == _GZIP:
            stream.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
            try:
                start = stream.read(4)
            except (OSError, EOFError) as error:
                raise CaptureError(f"a gzip file that cannot be unpacked: {error}") from None
        self._stream = stream
        self.interfaces: list[str] = []
        self.damage = ""
        self._packets: Iterator[CapturedPacket]
        if len(start) < 4:
            raise CaptureError("no capture: the file is empty" if not start else "no capture: less than four bytes")
        number = int.from_bytes(start, "little")
        if number == SECTION:
            self.kind = "pcapng"
            self._packets = self._pcapng()
            return
        for order in "<", ">":
            (magic,) = struct.unpack(f"{order}I", start)
            if magic in _PCAP:
                self.kind = "pcap"
                self._packets = self._pcap(order, _PCAP[magic])
                return
        raise CaptureError(f"no capture: it starts with {_looks_like(start)}, neither as pcapng nor as pcap does")

    def __iter__(self) -> Iterator[CapturedPacket]:
        try:
            yield from self._packets
        except (OSError, EOFError) as error:  # of gzip
            self.damage = f"it cannot be unpacked any further: {error}"

    def _exactly(self, size: int, what: str) -> bytes | None:
        data = self._stream.read(size)
        if len(data) == size:
            return data
        if data or what:
            self.damage = f"it ends within {what or 'a block'}"
        return None

    # pcap

    def _pcap(self, order: str, unit: int) -> Iterator[CapturedPacket]:
        head = self._exactly(20, "its header")
        if head is None:
            return
        _, _, _, _, snaplen, linktype = struct.unpack(f"{order}HHIIII", head)
        linktype &= 0xFFFF
        self.interfaces.append("0")
        record = struct.Struct(f"{order}IIII")
        while (head := self._exactly(16, "")) is not None:
            seconds, fraction, size, length = record.unpack(head)
            if size > max(snaplen, 1 << 18) or size > _MOST_BLOCK:
                self.damage = f"a packet is said to have {size} bytes"
                return
            data = self._exactly(size, "a packet")
            if data is None:
                return
            yield CapturedPacket(seconds * _SECOND + fraction * unit, linktype, "0", data, length, 0, [])

    # pcapng

    def _pcapng(self) -> Iterator[CapturedPacket]:
        interfaces: list[_Interface] = []
        order = "<"
        kind_raw: bytes | None = struct.pack("<I", SECTION)
        while kind_raw is not None:
            size_raw = self._exactly(4, "a block's length")
            if size_raw is None:
                return
            section = kind_raw == b"\x0a\x0d\x0d\x0a"
            extra = b""
            if section:  # its byte order tells how its length is written
                magic = self._exactly(4, "a section's header")
                if magic is None:
                    return
                extra = magic
                found = next((one for one in "<>" if struct.unpack(f"{one}I", magic)[0] == _BYTE_ORDER), None)
                if found is None:
                    self.damage = "a section has no byte order"
                    return
                order, interfaces = found, []
            kind, size = struct.unpack(f"{order}II", kind_raw + size_raw)
            if size < 12 or size % 4 or size > _MOST_BLOCK:
                self.damage = f"a block is said to have {size} bytes"
                return
            body = self._exactly(size - 8 - len(extra), "a block")
            if body is None:
                return
            if struct.unpack(f"{order}I", body[-4:])[0] != size:
                self.damage = "a block's two lengths differ"
                return
            body = extra + body[:-4]
            if kind == INTERFACE and len(body) >= 8:
                interfaces.append(_interface(order, body, len(interfaces)))
                if interfaces[-1].name not in self.interfaces:
                    self.interfaces.append(interfaces[-1].name)
            elif kind in (ENHANCED, PACKET, SIMPLE):
                packet = _packet(order, kind, body, interfaces)
                if packet is None:
                    self.damage = "a packet of an interface that was not described, or longer than its block"
                    return
                yield packet
            kind_raw = self._exactly(4, "")


def _interface(order: str, body: bytes, number: int) -> _Interface:
    linktype, _, snaplen = struct.unpack_from(f"{order}HHI", body)
    made = _Interface(linktype, snaplen, str(number))
    for code, value in _options(order, body, 8):
        if code == _IF_NAME:
            made.name = value.decode("utf-8", "replace")
        elif code == _IF_TSRESOL and value:
            exponent = value[0] & 0x7F
            if exponent <= 63:
                made.unit = 2**exponent if value[0] & 0x80 else 10**exponent
        elif code == _IF_TSOFFSET and len(value) == 8:
            (made.offset,) = struct.unpack(f"{order}q", value)
    return made


def _packet(order: str, kind: int, body: bytes, interfaces: list[_Interface]) -> CapturedPacket | None:
    if kind == SIMPLE:
        if len(body) < 4 or not interfaces:
            return None
        (length,) = struct.unpack_from(f"{order}I", body)
        one = interfaces[0]
        size = min(length, one.snaplen or length, len(body) - 4)
        return CapturedPacket(0, one.linktype, one.name, body[4 : 4 + size], length, 0, [])
    if len(body) < 20:
        return None
    if kind == ENHANCED:
        number, high, low, size, length = struct.unpack_from(f"{order}IIIII", body)
    else:
        number, _, high, low, size, length = struct.unpack_from(f"{order}HHIIII", body)
    if number >= len(interfaces) or 20 + size > len(body):
        return None
    one = interfaces[number]
    when = ((high << 32 | low) * _SECOND) // one.unit + one.offset * _SECOND
    comments: list[str] = []
    direction = 0
    at = 20 + (size + 3 & ~3)
    if at < len(body):
        for code, value in _options(order, body, at):
            if code == _OPT_COMMENT:
                comments.append(value.decode("utf-8", "replace"))
            elif code == _EPB_FLAGS and len(value) == 4:
                direction = struct.unpack(f"{order}I", value)[0] & 3
    return CapturedPacket(when, one.linktype, one.name, body[20 : 20 + size], length, direction % 3, comments)


def _options(order: str, body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """(code, value) up to opt_endofopt or the end."""
    while at + 4 <= len(body):
        code, size = struct.unpack_from(f"{order}HH", body, at)
        if not code or at + 4 + size > len(body):
            return
        yield code, body[at + 4 : at + 4 + size]
        at += 4 + (size + 3 & ~3)


def _looks_like(start: bytes) -> str:
    return repr(start.decode()) if start.isascii() and start.decode().isprintable() else f"0x{start.hex()}"
