"""Capture files as a source of the web view."""

from __future__ import annotations

import asyncio
import io
import tempfile
from pathlib import Path

import pytest

from levelip.tracing.capturefile import CaptureError
from levelip.tracing.pcapng import LINKTYPE_ETHERNET, LINKTYPE_RAW, OUTBOUND, Interface, PcapngWriter
from levelip.web.capture import Capture
from levelip.wire.ipv4 import Ipv4Header
from tests.unit.web.webrecords import MS, NAME, segment

START = 1_700_000_000 * 10**9


def packet(way: str, flags: int, seq: int, ack: int, length: int = 0) -> bytes:
    """An IPv4 packet between our port 80 and their 4711."""
    record = segment(0, way, seq=seq, ack=ack, flags=flags)
    data: bytes = record[11] + bytes(length)
    fields = record[10]
    header = Ipv4Header.build(fields["src"], fields["dst"], proto=6, payload_length=len(data))
    return header.serialize(fill_checksum=True) + data


TRANSFER = [packet("up", 2, 999, 0), packet("down", 18, 4999, 1000), packet("up", 16, 1000, 5000),
            packet("down", 24, 5000, 1000, 100), packet("up", 16, 1000, 5100)]  # fmt: skip


def written(interfaces: list[Interface], packets: list[tuple[int, bytes, int, list[str]]]) -> io.BytesIO:
    stream = io.BytesIO()
    writer = PcapngWriter(stream, interfaces)
    for i, (interface, data, direction, comments) in enumerate(packets):
        writer.packet(interface, START + i * MS, data, len(data), direction=direction, comments=comments)
    stream.seek(0)
    return stream


def read(stream: io.BytesIO) -> Capture:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.pcapng"
        path.write_bytes(stream.getvalue())
        capture = Capture("file1", "x.pcapng", path)
        asyncio.run(capture.read())
    return capture


def test_somebody_elses_capture() -> None:
    """Packets are rows, counted from the first; the side that opened the connection counts as ours."""
    capture = read(written([Interface("eth0", LINKTYPE_RAW)], [(0, data, 0, []) for data in TRANSFER]))
    assert capture.packets.frames == 5
    (row,) = capture.connections()
    assert row["name"] == "10.0.0.1:4711>10.0.0.2:80" and row["state"] == "ESTABLISHED"
    shown = capture.packets.row(3, capture.origin)
    assert shown[1] == 0.003 and shown[5:8] == ["10.0.0.2.80", "10.0.0.1.4711", "TCP"] and shown[10] == row["name"]


def test_our_own_capture() -> None:
    """Seams are those of the interfaces; the segment counts once; comments are decisions, and say the states."""
    seams = [Interface(name, LINKTYPE_RAW) for name in ("link-ip", "ip-tcp")]
    comment = f"12:00:00.000001 tcp: LISTEN → SYN_RECEIVED, syn [{NAME.replace('>', ' > ')}]"
    packets = [(seam, data, OUTBOUND if data[12:16] == bytes([10, 0, 0, 2]) else 1, [comment] * (seam == 1 and i == 0))
               for i, data in enumerate(TRANSFER) for seam in (0, 1)]  # fmt: skip
    capture = read(written(seams, packets))
    assert capture.packets.frames == 10 and capture.packets.events == 1
    (row,) = capture.connections()
    assert row["name"] == NAME and row["acked"] == 100
    assert {capture.packets.row(n, 0)[3] for n in range(2)} == {"link-ip", "ip-tcp"}
    (event,) = [shown for n in range(11) if (shown := capture.packets.row(n, 0))[2] == "e"]
    assert event[3:7] == ["tcp", "state", NAME, "LISTEN → SYN_RECEIVED, syn"]
    flow = capture.flow(NAME)
    assert flow is not None and flow.states.rows[0].new == "SYN_RECEIVED"


def test_datagrams_of_our_own_capture() -> None:
    """The seam between ip and udp has an interface, too."""
    header = Ipv4Header.build(bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), proto=17, payload_length=8)
    datagram = header.serialize(fill_checksum=True) + bytes.fromhex("0035138800080000")
    seams = [Interface(name, LINKTYPE_RAW) for name in ("link-ip", "ip-udp")]
    capture = read(written(seams, [(seam, datagram, 1, []) for seam in (0, 1)]))
    rows = [capture.packets.row(n, 0) for n in range(2)]
    assert [row[3] for row in rows] == ["link-ip", "ip-udp"] and {row[7] for row in rows} == {"UDP"}


def test_ethernet() -> None:
    frame = bytes(6) + bytes(6) + b"\x08\x00" + TRANSFER[0]
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    capture = read(written([Interface("eth0", LINKTYPE_ETHERNET)], [(0, frame, 0, []), (0, arp, 0, [])]))
    assert [capture.packets.row(n, 0)[7] for n in range(2)] == ["TCP", "ARP"]


def test_what_is_no_capture_is_refused() -> None:
    with pytest.raises(CaptureError, match="no capture"):
        read(io.BytesIO(b"GIF89a"))
    with pytest.raises(CaptureError, match="no packets"):
        read(written([Interface("eth0", LINKTYPE_RAW)], []))


def test_a_torn_capture_shows_what_came_before() -> None:
    """And says that it was torn."""
    whole = written([Interface("eth0", LINKTYPE_RAW)], [(0, data, 0, []) for data in TRANSFER]).getvalue()
    capture = read(io.BytesIO(whole[:-10]))
    assert capture.packets.frames == 4 and capture.damage
    assert "ended early" in capture.packets.row(capture.packets.end - 1, 0)[3]
