"""Lines of `lvlip trace --json` as records of the tap bus again. What a file holds is checked: it may be anybody's."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from levelip.frames.packet import Checksum, Process
from levelip.wire.addr import parse_address

_CODES = {code.name.lower(): int(code) for code in Process}
_HEX: Final = frozenset({"vnet", "next_hop", "peer"})
_ADDRESSES: Final = frozenset({"src", "dst", "address", "local_address", "remote_address", "reporter", "source"})
"""Fields that hold bytes; of an address four or sixteen, or none."""
_NUMBERS: Final = frozenset({
    "proto", "ttl", "sock", "offset", "at", "upto", "length", "port", "local_port", "remote_port", "iface", "flags",
    "listener",
})  # fmt: skip
"""Fields that readers count with."""
_EVENT_NUMBERS: Final = frozenset({"offset", "length", "seq", "ack", "sock", "iss", "irs"})
Ns = Annotated[int, Meta(ge=-(1 << 62), le=1 << 62)]
Size = Annotated[int, Meta(ge=0, lt=1 << 32)]
ProcessName = Literal["link", "ip", "tcp", "udp", "gateway"]
Seam = Literal["link", "link-ip", "ip-tcp", "ip-udp", "tcp-gateway", "udp-gateway", "gateway-client"]
_SEAMS: Final[dict[str, tuple[str, ...]]] = {
    "link": ("link", "link-ip"), "ip": ("link-ip", "ip-tcp", "ip-udp"), "tcp": ("ip-tcp", "tcp-gateway"),
    "udp": ("ip-udp", "udp-gateway"), "gateway": ("tcp-gateway", "udp-gateway", "gateway-client"),
}  # fmt: skip
Record = list[Any]


class _Notice(Struct):
    mono_ns: Ns
    notice: str


class _Event(Struct):
    stack_ns: Ns
    mono_ns: Ns
    process: ProcessName
    event: str
    conn: str
    data: dict[str, Any]
    frame: str | None = None
    reason: str | None = None


class _Frame(Struct):
    stack_ns: Ns
    mono_ns: Ns
    process: ProcessName
    seam: Seam
    direction: Literal["in", "out"]
    frame: str
    causes: list[str]
    type: str
    fields: dict[str, Any]
    head: str
    length: Size
    gso_size: Size
    checksum: Literal["none", "partial", "verified", "unverified"] = "none"
    payload: str = ""


class Line(Struct):
    """What every line has. `notice`: it is none of the stack, but of the tool that listened."""

    time: int
    mono: int
    notice: str = ""
    record: Record | None = None


def parse_frame_id(text: str) -> int:
    """ "tcp-3fa21-77" → the id. ValueError for another text."""
    parts = text.split("-")
    try:
        name, epoch, counter = parts
        code = _CODES.get(name)
        if code is None:
            code = int(name)
        number = int(counter)
        high = int(epoch, 16)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no frame id; one looks like tcp-3fa21-77") from None
    if not (0 <= code <= 7 and 0 <= high <= 0xFFFFF and 0 <= number < 1 << 40):
        raise ValueError(f"{text[:80]!r} is no frame id: a number in it is too large")
    return code << 60 | high << 40 | number


def read_line(text: bytes) -> Line:
    """ValueError for what is none (msgspec's DecodeError and ValidationError are such)."""
    try:
        data = msgspec.json.decode(text, type=dict[str, Any])
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    at = data.get("time", 0)
    at = at if isinstance(at, int) else 0
    if "notice" in data:
        notice = msgspec.convert(data, _Notice)
        return Line(at, notice.mono_ns, notice.notice)
    if "event" in data:
        event = msgspec.convert(data, _Event)
        return Line(at, event.mono_ns, record=_event(event))
    frame = msgspec.convert(data, _Frame)
    return Line(at, frame.mono_ns, record=_frame(frame))


def _event(line: _Event) -> Record:
    frame = parse_frame_id(line.frame) if line.frame else 0
    _check_numbers(line.data, _EVENT_NUMBERS)
    event = [line.stack_ns, line.event, line.reason or "", frame, line.conn, line.data]
    return [0, "e", line.process, line.mono_ns, event]


def _frame(line: _Frame) -> Record:
    if line.seam not in _SEAMS[line.process]:
        raise ValueError(f"{line.process} is at no seam {line.seam}")
    head, payload = bytes.fromhex(line.head), bytes.fromhex(line.payload)
    if line.length < len(head):
        raise ValueError(f"a length of {line.length} with a head of {len(head)} bytes")
    _check_numbers(line.fields, _NUMBERS)
    fields = dict(line.fields)
    for name in _HEX | _ADDRESSES:
        if isinstance(value := fields.get(name), str):
            fields[name] = _address(value) if name in _ADDRESSES else bytes.fromhex(value)
        elif value is not None:
            raise ValueError(f"{name} is bytes, not {value!r}")
    return [
        0, "f", line.process, line.seam, line.direction, line.stack_ns, line.mono_ns, parse_frame_id(line.frame),
        [parse_frame_id(cause) for cause in line.causes], line.type, fields, head, payload, line.length - len(head),
        int(Checksum[line.checksum.upper()]), line.gso_size,
    ]  # fmt: skip


def _address(text: str) -> bytes:
    """As hex, or as people read it."""
    packed = parse_address(text) if "." in text or ":" in text else bytes.fromhex(text)
    if len(packed) not in (0, 4, 16):
        raise ValueError(f"{text!r} is no address")
    return packed


def _check_numbers(data: dict[str, Any], names: frozenset[str]) -> None:
    for name in names & data.keys():
        if not isinstance(data[name], int):
            raise ValueError(f"{name} is a number, not {data[name]!r}")
