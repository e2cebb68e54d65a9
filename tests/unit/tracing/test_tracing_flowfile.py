"""Captures and traces become flow models: ours and others', whole, torn, and what is none."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pcapng import FileWriter
from pcapng.blocks import EnhancedPacket, InterfaceDescription, SectionHeader, SimplePacket

from levelip.cli.comments import Commenter
from levelip.cli.tracelines import JsonLines
from levelip.tracing.capturefile import CapturedPacket, CaptureError, CaptureFile
from levelip.tracing.events import Event
from levelip.tracing.flowfile import event_of_text, open_flows, tcp_of
from levelip.tracing.formatting import sentence
from levelip.tracing.pcapng import LINKTYPE_RAW, Interface, PcapngWriter
from levelip.wire.ipv4 import Ipv4Header
from levelip.wire.tcp import ACK, SYN, pack_tcp
from tests.netsim.net import MS, Impairment
from tests.netsim.tcp_apps import pair, pattern
from tests.unit.tracing.tapped import TappedCore

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
SECOND = 1_000_000_000
WHEN = 1_700_000_000 * SECOND + 123_456_000


def segment(size: int = 0, *, back: bool = False, flags: int = ACK, seq: int = 1) -> bytes:
    src, dst, ports = (B, A, (80, 4711)) if back else (A, B, (4711, 80))
    head = pack_tcp(*ports, seq=seq, ack=1 if flags & ACK else 0, flags=flags, window=100)
    ip = Ipv4Header.build(src, dst, proto=6, payload_length=20 + size).serialize(fill_checksum=True)
    return ip + head + bytes(size)


def pcap(packets: list[bytes], *, order: str = "<", magic: int = 0xA1B2C3D4, linktype: int = 101) -> bytes:
    out = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, 65_535, linktype)
    unit = 1000 if magic == 0xA1B2C3D4 else 1
    for number, data in enumerate(packets):
        fraction = (WHEN % SECOND) // unit + number
        out += struct.pack(f"{order}IIII", WHEN // SECOND, fraction, len(data), len(data)) + data
    return out


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


SLL = b"\0\0\0\1\0\6" + bytes(8) + b"\x08\0"
SLL2 = b"\x08\0\0\0" + bytes(16)
ETHERNET = bytes(12) + b"\x08\0"
VLAN = bytes(12) + b"\x81\0\0\7\x08\0"


def test_of_our_seams_one_with_tcp_is_read(tmp_path: Path) -> None:
    """A capture at link-ip and ip-udp has its segments at the former."""
    path = tmp_path / "x.pcapng"
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface(name, LINKTYPE_RAW) for name in ("link-ip", "ip-udp")])
        for number, data in enumerate([segment(flags=SYN, seq=0), segment(back=True, flags=SYN | ACK, seq=0)]):
            writer.packet(0, WHEN + number, data, len(data), direction=1 + number, comments=[])
    assert list(open_flows(path).model.flows) == ["10.0.0.2:80>10.0.0.1:4711"]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_of_either_byte_order_and_resolution_is_read(order: str, magic: int) -> None:
    capture = CaptureFile(io.BytesIO(pcap([b"abc", b"de"], order=order, magic=magic)))
    one, two = capture
    assert (one.when, one.data, one.length, one.linktype) == (WHEN, b"abc", 3, 101)
    assert two.when == WHEN + (1000 if magic == 0xA1B2C3D4 else 1)
    assert capture.damage == ""


@pytest.mark.parametrize(
    ("linktype", "before"),
    [(1, ETHERNET), (1, VLAN), (101, b""), (12, b""), (228, b""), (113, SLL), (276, SLL2), (0, bytes(4))],
)
def test_every_kind_of_link_that_tcpdump_writes_is_understood(tmp_path: Path, linktype: int, before: bytes) -> None:
    packets = [before + segment(flags=SYN, seq=0), before + segment(back=True, flags=SYN | ACK, seq=0),
               before + segment(100)]  # fmt: skip
    found = open_flows(write(tmp_path / "x.pcap", pcap(packets, linktype=linktype)))
    (flow,) = found.model.flows.values()
    assert flow.key == "10.0.0.1:4711>10.0.0.2:80"  # who sent the SYN is the local side
    assert [(row.way, row.flags, row.len, row.id) for row in flow.segments.rows] == [
        ("out", "S", 0, "1"), ("in", "S.", 0, "2"), ("out", ".", 100, "3"),
    ]  # fmt: skip
    assert [row.t for row in flow.segments.rows] == [0, 1000, 2000]
    assert [row.new for row in flow.states.rows] == ["SYN_SENT", "ESTABLISHED"]
    assert (found.kind, found.packets, found.others, found.damage) == ("pcap", 3, 0, "")


def test_ipv6_is_understood_and_fragments_udp_and_arp_are_others(tmp_path: Path) -> None:
    six = bytes([0x60, 0, 0, 0, 0, 25, 6, 64]) + bytes(15) + b"\1" + bytes(15) + b"\2" + segment(5)[20:]
    fragment = bytearray(segment(8))
    fragment[6] |= 0x20
    udp = bytearray(segment(8))
    udp[9] = 17
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    data = [bytes(12) + b"\x86\xdd" + six, ETHERNET + fragment, ETHERNET + udp, arp, b"x"]
    found = open_flows(write(tmp_path / "x.pcap", pcap(data, linktype=1)))
    (flow,) = found.model.flows.values()
    assert (flow.local, flow.segments.rows[0].len) == ((bytes(15) + b"\1", 4711), 5)
    assert (found.packets, found.others) == (5, 4)


def test_packets_that_were_cut_count_with_their_whole_length() -> None:
    whole = segment(1000)
    found = tcp_of(101, whole[:54], len(whole))
    assert found is not None
    assert found[3] == 1020


def library_file(order: str) -> bytes:
    out = io.BytesIO()
    section = SectionHeader(endianness=order)
    micro = section.new_member(InterfaceDescription, link_type=1, snaplen=0, options={"if_name": "eth0"})
    nano = section.new_member(
        InterfaceDescription, link_type=101, snaplen=0, options={"if_name": "ä", "if_tsresol": b"\x09"}
    )
    writer = FileWriter(out, section)
    for interface, when in ((micro, WHEN // 1000), (nano, WHEN)):
        block = section.new_member(
            EnhancedPacket, interface_id=interface.interface_id, timestamp_high=when >> 32,
            timestamp_low=when & 0xFFFFFFFF, packet_data=b"hello", packet_len=7,
            options={"opt_comment": ["one", "zwei"]},
        )  # fmt: skip
        block.options["epb_flags"] = 2
        writer.write_block(block)
    other = SectionHeader(endianness="<" if order == ">" else ">")
    other.new_member(InterfaceDescription, link_type=1, snaplen=0)
    FileWriter(out, other).write_block(other.new_member(SimplePacket, packet_len=3, packet_data=b"abc"))
    return out.getvalue()


@pytest.mark.parametrize("order", "<>")
def test_what_the_library_writes_is_read(order: str) -> None:
    capture = CaptureFile(io.BytesIO(library_file(order)))
    one, two, three = capture
    assert one == CapturedPacket(WHEN, 1, "eth0", b"hello", 7, 2, ["one", "zwei"])
    assert two == CapturedPacket(WHEN, 101, "ä", b"hello", 7, 2, ["one", "zwei"])
    assert three == CapturedPacket(0, 1, "0", b"abc", 3, 0, [])  # of another section, in the other byte order
    assert (capture.kind, capture.interfaces, capture.damage) == ("pcapng", ["eth0", "ä", "0"], "")


def test_gzip_is_unpacked() -> None:
    packed = gzip.compress(library_file("<"))
    assert len(list(CaptureFile(io.BytesIO(packed)))) == 3
    capture = CaptureFile(io.BytesIO(packed[:-20]))
    list(capture)
    assert "unpacked" in capture.damage


def borders(data: bytes) -> set[int]:
    """Where a block, or a packet of pcap, ends."""
    if data[:4] != b"\x0a\x0d\x0d\x0a":
        return {24, 24 + 16 + 3}
    found, at, order = set(), 0, "<"
    while at < len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if data[at + 8] == 0x4D else ">"
        at += struct.unpack_from(f"{order}I", data, at + 4)[0]
        found.add(at)
    return found


@pytest.mark.parametrize("data", [library_file("<"), library_file(">"), pcap([b"abc", b"defg"])])
def test_a_torn_file_gives_what_came_before_and_says_so(data: bytes) -> None:
    """At every byte."""
    whole = list(CaptureFile(io.BytesIO(data)))
    for end in range(24, len(data)):
        capture = CaptureFile(io.BytesIO(data[:end]))
        packets = list(capture)
        assert packets == whole[: len(packets)]
        assert len(packets) < len(whole)
        assert capture.damage or end in borders(data)  # a cut between blocks cannot be seen


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x0a\x0d\x0d\x0a", struct.pack("<I", 0xA1B2C3D4), b"\x1f\x8b"]))
def test_garbage_is_refused_or_ends_with_what_is_wrong(data: bytes, start: bytes) -> None:
    with contextlib.suppress(CaptureError):
        list(CaptureFile(io.BytesIO(start + data)))


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "the file is empty"), (b"ab", "less than four bytes"), (b"#!/bin/sh", "it starts with '#!/b'"),
     (b"\x7fELF....", "it starts with 0x7f454c46"), (b"{}\n", "no record of lvlip trace --json"),
     (b"\x1f\x8bxxxx", "gzip")],
)  # fmt: skip
def test_something_else_is_refused_with_what_it_looks_like(tmp_path: Path, data: bytes, said: str) -> None:
    with pytest.raises(CaptureError) as caught:
        open_flows(write(tmp_path / "x", data))
    assert said in str(caught.value)


EVENTS = [
    ("state", {"old": "SYN_SENT", "new": "ESTABLISHED", "input": "SYN_ACK"}),
    ("cwnd", {"old": 14_480, "new": 7_964, "mss": 1448, "ssthresh": 7240, "why": "rack"}),
    ("cwnd", {"old": None, "new": 14_480, "mss": 1448, "ssthresh": 1 << 31, "why": "start"}),
    ("undo", {"old": 7240, "new": 14_480, "mss": 1448, "why": "dsack"}),
    ("rtt", {"rtt": 412_000, "srtt": 20_000_000, "rttvar": 5_630_000, "rto": 215_000_000}),
    ("rtt", {"rtt": 20_000_000}),
    ("rto", {"rto": 1_500_000_000, "attempt": 1, "flight": 9000}),
    ("recovery", {"old": "OPEN", "new": "RECOVERY", "why": "RACK"}),
    ("loss", {"bytes": 1448, "why": "rack"}),
    ("retransmit", {"why": "fast", "offset": 1, "length": 1448}),
    ("reset", {"sent": True}),
]


@pytest.mark.parametrize(("kind", "data"), EVENTS)
def test_sentences_are_read_back(kind: str, data: dict[str, Any]) -> None:
    """As exact as they are written."""
    read = event_of_text(sentence(Event(0, kind, data=data)), 1448)
    assert read.kind == kind
    for name, value in read.data.items():
        if isinstance(value, int):
            expected = data[name]
            assert abs(value - expected) <= max(expected * 0.005, 1448 / 20), name
        elif value is None:
            assert data[name] >= 1 << 31
        elif kind == "state" or name in ("old", "new"):
            assert value == data[name]


@pytest.fixture(scope="module")
def records() -> list[list[Any]]:
    lossy = Impairment(loss=0.03, delay=10 * MS)
    net, a, b, _, _ = pair(lossy, Impairment(delay=10 * MS), core_type=TappedCore, seed=4)
    b.listen(80)
    a.connect(b.address, 80, pattern(1, 200_000), eof=True)
    assert net.run(lambda: bool(b.accepted) and b.accepted[0].eof, seconds=60)
    return list(a.core.records)


def model_rows(records: list[list[Any]]) -> Any:
    from levelip.tracing.flow import FlowModel

    model = FlowModel()
    for record in records:
        model.add(record)
    (flow,) = model.flows.values()
    return flow


def test_json_lines_of_a_trace_give_the_model_of_the_records(tmp_path: Path, records: list[list[Any]]) -> None:
    lines = JsonLines()
    text = "".join(lines.line(record) + "\n" for record in records)
    found = open_flows(write(tmp_path / "t.jsonl", text.encode()))
    (flow,) = found.model.flows.values()
    assert flow.since() == model_rows(records).since()
    assert (found.kind, found.damage) == ("trace", "")
    torn = open_flows(write(tmp_path / "torn.jsonl", text.encode()[:-30]))
    assert torn.damage == f"line {len(records)} is no record of lvlip trace --json"


def test_our_capture_gives_back_segments_states_windows_and_round_trips(
    tmp_path: Path, records: list[list[Any]]
) -> None:
    path = tmp_path / "x.pcapng"
    with path.open("wb") as stream:
        commenter = Commenter(stream, ["ip-tcp"], ethernet=False)
        commenter.take(records, captured=True)
        commenter.finish()
    found = open_flows(path)
    (flow,) = found.model.flows.values()
    told = model_rows(records)
    assert [row[2:10] for row in flow.segments.rows] == [row[2:10] for row in told.segments.rows]
    assert [row.notes for row in flow.segments.rows] == [row.notes for row in told.segments.rows]
    assert [row.new for row in flow.states.rows if row.input != "inferred"] == [row.new for row in told.states.rows]
    assert len(flow.windows.rows) == len(told.windows.rows) > 20
    for read, exact in zip(flow.windows.rows, told.windows.rows, strict=True):
        assert abs(read.cwnd - exact.cwnd) <= 1448 * 0.06
    assert sum(row.why == "rtt" for row in flow.rtts.rows) == sum(row.why == "rtt" for row in told.rtts.rows)
    assert json.dumps(flow.since())


def test_of_a_capture_of_several_seams_each_packet_counts_once(tmp_path: Path, records: list[list[Any]]) -> None:
    path = tmp_path / "x.pcapng"
    frames = [record for record in records if record[1] == "f"]
    doubled = []
    for record in frames:
        below = list(record)
        below[2:4] = ["ip", "link-ip"]
        below[7] += 1 << 30
        below[9] = "Packet"
        packet = Ipv4Header.build(record[10]["src"], record[10]["dst"], proto=6,
                                  payload_length=min(len(record[11]) + record[13], 65_000))  # fmt: skip
        below[11] = packet.serialize(fill_checksum=True) + record[11]
        doubled += [record, below]
    with path.open("wb") as stream:
        commenter = Commenter(stream, ["link-ip", "ip-tcp"], ethernet=False)
        commenter.take(doubled, captured=True)
        commenter.finish()
    (flow,) = open_flows(path).model.flows.values()
    assert len(flow.segments.rows) == len(frames)
