"""ICMP, IGMP and other packets of a script: compared, written as a script has them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from levelip.wire.addr import format_ipv4
from levelip.wire.icmp import (
    IcmpMessage,
    icmp_name,
)
from levelip.wire.igmp import IgmpMessage, IgmpReport
from levelip.wire.ipv4 import Ipv4Header, proto_name
from simulation.script.internet import Row, compare_ip
from simulation.script.language import IcmpPacket, IgmpPacket, OtherPacket

if TYPE_CHECKING:
    from simulation.script.packets import Captured

MASK = 0xFFFF_FFFF
TIMESTAMPS = 12  # bytes behind the header of a timestamp message, RFC 792


# comparison, and text


def other_text(
    ip: Ipv4Header, icmp: IcmpMessage | None, igmp: IgmpMessage | IgmpReport | None, length: int
) -> str:
    """What a packet that is no segment says."""
    if icmp is not None:
        return f"icmp {icmp_name(icmp.type, icmp.code)}, length {length}"
    if igmp is not None:
        return f"{igmp} to {format_ipv4(ip.dst)}"
    return f"proto {ip.proto} ({length})"


def _protocol(expected: str, got: Captured) -> Row:
    came = "tcp" if got.tcp is not None else proto_name(got.ip.proto).lower()
    return Row("protocol", expected, came, True)


def _later_fragment(spec: IcmpPacket | IgmpPacket | OtherPacket, got: Captured) -> bool:
    """Only the first fragment has what stands behind the IP header."""
    return spec.ip.fragment is not None and got.fragment is not None and got.fragment[0] > 0


def compare_icmp(spec: IcmpPacket, got: Captured, injected: Sequence[bytes]) -> list[Row]:
    """Type, code, and what the line says besides. `injected`: packets that an error may quote, newest last."""
    rows = compare_ip(spec.ip, got.ip, got.fragment)
    message = got.icmp
    if message is None:
        return rows if _later_fragment(spec, got) else [*rows, _protocol("icmp", got)]
    expected, came = icmp_name(spec.type, spec.code), message.name
    rows.append(Row("icmp", expected, came, (spec.type, spec.code) != (message.type, message.code)))
    if not message.checksum_ok and got.fragment is None:
        rows.append(Row("checksum", "right", "wrong", True))
    for name, wanted, number in (
        ("mtu", spec.mtu, message.mtu),
        ("id", spec.echo_id, message.ident),
        ("seq", spec.echo_seq, message.sequence),
        ("ptr", spec.pointer, message.pointer),
        ("length", spec.words, message.rest[1]),
    ):
        if wanted is not None:
            rows.append(Row(name, str(wanted), str(number), wanted != number))
    if spec.size is not None and spec.ip.fragment is None:
        rows.append(Row("length", str(spec.size), str(got.length), spec.size != got.length))
    if spec.quoted is not None:
        seq, length = spec.quoted
        quoted = message.payload
        came_seq = struct.unpack_from(">I", quoted, 24)[0] if len(quoted) >= 28 else -1
        rows.append(Row("quoted", f"{seq}:{(seq + length) & MASK}({length})", f"seq {came_seq}", came_seq != seq))
    if spec.packet is not None:
        quoted, size = message.payload, spec.packet
        fits = len(quoted) == size and any(data[:size] == quoted for data in injected)
        known = any(data.startswith(quoted) for data in injected)
        came = f"{len(quoted)} bytes of {'a' if known else 'no'} packet that came"
        rows.append(Row("quoted", f"{size} bytes of a packet that came", came, not fits))
    if spec.raw is not None:
        rows.append(Row("quoted", spec.raw.hex(), message.payload.hex(), spec.raw != message.payload))
    return rows


def compare_igmp(spec: IgmpPacket, got: Captured) -> list[Row]:
    """All of the message."""
    rows = compare_ip(spec.ip, got.ip, got.fragment)
    if got.igmp is None:
        return [*rows, _protocol("igmp", got)]
    expected, came = str(spec.message), str(got.igmp)
    differs = spec.message.serialize(fill_checksum=True) != got.igmp.serialize()
    if differs and expected == came:
        expected = spec.message.serialize(fill_checksum=True).hex()
        came = got.igmp.serialize().hex()
    rows.append(Row("igmp", expected, came, differs))
    return rows


def compare_other(spec: OtherPacket, got: Captured) -> list[Row]:
    """Protocol, length, and the bytes if the line has them."""
    rows = compare_ip(spec.ip, got.ip, got.fragment)
    if got.ip.proto != spec.proto:
        return [*rows, _protocol(f"proto {spec.proto}", got)]
    payload = got.data[got.ip.ihl * 4 :]
    if spec.data is not None:
        rows.append(Row("payload", spec.data.hex(), payload.hex(), spec.data != payload))
    else:
        rows.append(Row("length", str(spec.length), str(len(payload)), spec.length != len(payload)))
    return rows
