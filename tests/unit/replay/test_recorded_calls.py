"""Frames as a recording holds them: every kind, cut and made as long again."""

from __future__ import annotations

import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_call_encoder import IP, segment

from levelip.frames import packet, seam
from levelip.frames.packet import Checksum, DeviceFrame, Packet
from levelip.frames.seam import ForClient, FromClient, Store
from levelip.rpc.place import Place
from levelip.rpc.stream import Data, Send
from levelip.tracing.recordedcalls import (
    CODES,
    FRAMES,
    KEEP,
    decode_frame,
    encode_frame,
    restore,
)
from levelip.wire.checksum import ones_sum

ETHERNET = bytes(12) + b"\x08\x00"
HEADERS = [bytes(12) + bytes([words << 4]) + bytes(4 * words - 13) for words in (5, 8, 15)]
"""Of TCP: without options, with timestamps, and of full length."""


def recorded(frame: Any) -> Any:
    """A frame as a replay has it."""
    before = msgspec.msgpack.encode(frame)
    code, clip = CODES[type(frame)]
    clipped = clip(frame, True) if clip is not None else None
    if clipped is None:
        return decode_frame(code, before, [])
    cuts, undo = clipped
    data = msgspec.msgpack.encode(frame)
    restore(undo)
    assert msgspec.msgpack.encode(frame) == before, "the frame is as it was"
    return decode_frame(code, data, cuts)


def test_every_frame_of_every_seam_has_a_code() -> None:
    """What a port may hand in or take, and what a shell and a core say to each other."""
    unions = (packet.LinkToIp, packet.IpToLink, packet.IpToTransport, packet.TransportToIp,
              seam.GatewayToTcp, seam.TcpToGateway,
              seam.GatewayToUdp, seam.UdpToGateway)  # fmt: skip
    kinds = {kind for union in unions for kind in typing.get_args(union)}
    kinds |= {packet.DeviceFrame, packet.DeviceState}
    shell = [getattr(seam, name) for name in dir(seam) if isinstance(getattr(seam, name), type)]
    shell = [kind for kind in shell if hasattr(kind, "__struct_config__")]
    kinds |= {kind for kind in shell if 60 <= (kind.__struct_config__.tag or 0) <= 79}
    assert kinds <= set(FRAMES), kinds - set(FRAMES)


def test_codes_are_part_of_the_format() -> None:
    """A code never changes its meaning: new frames go to the end."""
    names = [kind.__name__ for kind in FRAMES]
    assert names[:12] == [
        "Packet", "Segment", "LinkState", "Unreachable", "Local", "PathMtu", "Doubt", "Routes", "IcmpError",
        "DeviceFrame", "DeviceState", "Bind",
    ]  # fmt: skip
    assert names[34:40] == ["Send", "Accepted", "Data", "Consumed", "Eof", "Reset"]
    assert names[40:] == [
        "Progress", "Confirmed", "Refused", "Groups", "OpenDatagram", "Associate", "SendTo", "Took", "Member",
        "Datagram", "Failed",
    ]  # fmt: skip


@settings(deadline=None)
@given(st.binary(min_size=0, max_size=3000), st.sampled_from((1, 3)))
def test_length_and_sum_stay(data: bytes, checksum: int) -> None:
    """The payload of a TCP segment whose checksum is open is as long, and any part of it behind an even offset sums up
    the same (RFC 1071)."""
    back = recorded(segment(data, checksum, HEADERS[0])).payload
    assert len(back) == len(data)
    assert back[:KEEP] == data[:KEEP]
    for start in (0, 20, KEEP):
        assert ones_sum(back[start:]) % 65535 == ones_sum(data[start:]) % 65535


@pytest.mark.parametrize(
    "frame",
    [
        *(Packet(1, [], False, 0, 1, IP + tcp + b"\x01" * 1420, b"", int(Checksum.UNVERIFIED), 0) for tcp in HEADERS),
        *(Packet(1, [], False, 0, 1, IP + tcp, b"\x01" * 60_000, int(Checksum.VERIFIED), 1448) for tcp in HEADERS),
        Packet(1, [], False, 0, 1, IP, HEADERS[2] + b"\x01" * 1420, int(Checksum.UNVERIFIED), 0),
        *(DeviceFrame(1, [], ETHERNET + IP + tcp + b"\x01" * 1420, b"") for tcp in HEADERS),
        DeviceFrame(1, [], IP + HEADERS[1] + b"\x01" * 1420, b""),
        *(segment(b"", head=tcp + b"\x01" * 1420) for tcp in HEADERS),
        *(segment(b"\x01" * 1448, head=tcp) for tcp in HEADERS),
        segment(HEADERS[2] + b"\x01" * 1420, head=b""),
        Send(1, 0, 1000, b"\x01" * 1000),
        Data(1, 0, b"\x01" * 1000),
        Store(Place("r", 0, 4096, 0, 1000), b"\x01" * 1000),
        FromClient(b"p", 0, 1, Send(1, 0, 1000, b"\x01" * 1000)),
        ForClient(b"p", Data(1, 0, b"\x01" * 1000)),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_long_payloads_are_cut(frame: Any) -> None:
    """To 128 bytes behind the headers, wherever those end; what a replay has is as long as it was."""
    code, data, cuts = encode_frame(frame)
    assert len(cuts) == 1
    short = decode_frame(code, data, [])
    inner = getattr(short, "message", short)
    kept = getattr(inner, "head", b"") + inner.payload
    assert kept == kept[:-KEEP] + b"\x01" * KEEP and not kept[:-KEEP].endswith(b"\x01")
    back = recorded(frame)
    inner = getattr(back, "message", back)
    whole = getattr(inner, "head", b"") + inner.payload
    mine = getattr(frame, "message", frame)
    assert len(whole) == len(getattr(mine, "head", b"") + mine.payload)
    assert encode_frame(frame, whole=True)[2] == []


@pytest.mark.parametrize("proto", [1, 2, 17])
@pytest.mark.parametrize("fragment", [0, 0x2000, 0x00B9])
def test_what_ip_reads_stays_whole(proto: int, fragment: int) -> None:
    """ICMP, IGMP, UDP and fragments of anything: ip looks at their bytes."""
    head = bytearray(IP + b"\x01" * 1480)
    head[9], head[6:8] = proto, fragment.to_bytes(2, "big")
    frame = Packet(1, [], False, 0, 1, bytes(head), b"", 3, 0)
    assert recorded(frame) == frame
    head[9] = 6
    frame = Packet(1, [], False, 0, 1, bytes(head), b"", 3, 0)
    assert (recorded(frame) == frame) == bool(fragment)


def test_a_place_stays_a_place() -> None:
    """Its bytes are nobody's here."""
    place = Place("r", 0, 9000, 0, 9000)
    frame = segment(place, int(Checksum.VERIFIED))
    assert recorded(frame) == frame


def test_a_code_of_the_future() -> None:
    """Is refused in words."""
    with pytest.raises(ValueError, match="newer"):
        decode_frame(len(FRAMES) + 1, b"\x90", [])
