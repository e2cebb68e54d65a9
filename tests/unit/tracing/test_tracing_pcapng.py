"""Captures: python-pcapng and tshark read them, checksums are whole, comments and nanoseconds survive."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pcapng import FileScanner
from pcapng.blocks import EnhancedPacket, InterfaceDescription, SectionHeader

from levelip.frames.packet import Checksum
from levelip.tracing.pcapng import (
    INBOUND,
    LINKTYPE_ETHERNET,
    LINKTYPE_RAW,
    OUTBOUND,
    Interface,
    PcapngWriter,
    enhanced_packet,
    packet_bytes,
)
from levelip.wire.checksum import internet_checksum
from levelip.wire.ethernet import EthernetHeader, EtherType
from levelip.wire.ipv4 import Ipv4Header, header_checksum_ok
from levelip.wire.segment import partial_tcp_checksum
from levelip.wire.tcp import ACK, pack_tcp
from levelip.wire.vnet import VnetHeader

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
WHEN = 1_700_000_000_123_456_789
SEGMENT = {"src": A, "dst": B, "proto": 6, "ttl": 33, "tos": 4, "dont_fragment": True}
TCP = pack_tcp(4711, 80, seq=1, ack=2, flags=ACK, window=3)


def tcp_checksum_ok(packet: bytes) -> bool:
    pseudo = packet[12:20] + b"\0\6" + (len(packet) - 20).to_bytes(2, "big")
    return internet_checksum(pseudo + packet[20:]) == 0


def ip_packet(payload: bytes = b"") -> bytes:
    header = Ipv4Header.build(A, B, proto=6, payload_length=20 + len(payload)).serialize(fill_checksum=True)
    return header + TCP + payload


def capture() -> bytes:
    out = io.BytesIO()
    writer = PcapngWriter(out, [Interface("link", LINKTYPE_ETHERNET, "the device"), Interface("ip-tcp", LINKTYPE_RAW)])
    frame = EthernetHeader(b"\2" * 6, b"\4" * 6, EtherType.IPV4).serialize() + ip_packet(b"hello")
    first = packet_bytes("DeviceFrame", {}, frame, b"", 0, Checksum.PARTIAL, ethernet=True)
    assert first is not None
    writer.packet(0, WHEN, *first, direction=INBOUND, comments=["tcp: drop, below window, RFC 9293 3.10.7.4", "ä"])
    second = packet_bytes("Segment", SEGMENT, TCP, b"hello!", 6, Checksum.PARTIAL, ethernet=True)
    assert second is not None
    writer.packet(1, WHEN + 1, *second, direction=OUTBOUND)
    return out.getvalue()


def test_the_library_reads_what_was_written() -> None:
    blocks = list(FileScanner(io.BytesIO(capture())))
    section, link, ip_tcp, first, second = blocks
    assert isinstance(section, SectionHeader)
    assert isinstance(link, InterfaceDescription)
    assert (link.options["if_name"], link.link_type) == ("link", 1)
    assert link.options["if_description"] == "the device"
    assert (ip_tcp.options["if_name"], ip_tcp.link_type) == ("ip-tcp", 101)
    assert link.timestamp_resolution == 1e-9
    assert isinstance(first, EnhancedPacket)
    assert (first.timestamp_high << 32 | first.timestamp_low) == WHEN
    assert first.options.get_all("opt_comment") == ["tcp: drop, below window, RFC 9293 3.10.7.4", "ä"]
    assert first.options["epb_flags"].inout == "inbound"
    assert second.interface_id == 1
    assert "opt_comment" not in second.options


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_it_without_complaint(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture())
    fields = ["frame.interface_name", "frame.time_epoch", "ip.src", "tcp.len", "tcp.checksum.status", "frame.comment"]
    command = ["tshark", "-r", str(path), "-o", "tcp.check_checksum:TRUE", "-T", "fields", "-E", "separator=|"]
    done = subprocess.run(
        [*command, *[part for field in fields for part in ("-e", field)]],
        capture_output=True, text=True, check=True, timeout=240,
    )  # fmt: skip
    assert [line.split("|") for line in done.stdout.splitlines()] == [
        ["link", "1700000000.123456789", "10.0.0.1", "5", "1", "tcp: drop, below window, RFC 9293 3.10.7.4,ä"],
        ["ip-tcp", "1700000000.123456790", "10.0.0.1", "6", "1", ""],
    ]


@given(
    st.binary(min_size=1, max_size=100),
    st.integers(0, 2**63),
    st.sampled_from([0, INBOUND, OUTBOUND]),
    st.lists(st.text(), max_size=3),
)
def test_packets_are_laid_out_as_the_library_does(data: bytes, when: int, direction: int, comments: list[str]) -> None:
    section = SectionHeader(endianness="<")
    section.new_member(InterfaceDescription, link_type=101)
    options: dict[str, Any] = {}
    if comments:
        options["opt_comment"] = comments
    block = section.new_member(
        EnhancedPacket, interface_id=0, timestamp_high=when >> 32, timestamp_low=when & 0xFFFFFFFF,
        packet_data=data, packet_len=len(data) + 7, options=options,
    )  # fmt: skip
    if direction:
        block.options["epb_flags"] = direction
    out = io.BytesIO()
    block._write(out)
    assert enhanced_packet(0, when, data, len(data) + 7, direction=direction, comments=comments) == out.getvalue()


def test_a_comment_that_is_too_long_is_cut_between_characters() -> None:
    block = enhanced_packet(0, 0, b"x", 1, comments=["ä" * 40_000])
    assert len(block) < 65_600


def test_a_segment_gets_its_ip_header_back() -> None:
    found = packet_bytes("Segment", SEGMENT, TCP, b"hello", 5, Checksum.PARTIAL, ethernet=False)
    assert found is not None
    packet, length = found
    assert length == len(packet) == 45
    header = Ipv4Header.parse(packet)
    assert (header.src, header.dst, header.ttl, header.tos, header.total_length) == (A, B, 33, 4, 45)
    assert header.dont_fragment
    assert header_checksum_ok(packet)
    assert tcp_checksum_ok(packet)


def test_partial_and_vouched_for_checksums_are_completed_and_unverified_ones_are_not() -> None:
    head = partial_tcp_checksum(ip_packet(b"hello")[:40], 25)
    for state, good in ((Checksum.PARTIAL, True), (Checksum.VERIFIED, True), (Checksum.UNVERIFIED, False)):
        found = packet_bytes("Packet", {}, head, b"hello", 5, state, ethernet=True)
        assert found is not None
        assert tcp_checksum_ok(found[0]) is good


def test_a_device_frame_whose_virtio_header_asks_for_it_is_completed() -> None:
    """The kernel hands us what its own CHECKSUM_PARTIAL left open (include/uapi/linux/virtio_net.h)."""
    vnet = VnetHeader.for_tcp(link_len=0, ip_len=20, head_len=40).serialize()
    packet = partial_tcp_checksum(ip_packet(b"abc")[:40], 23)
    found = packet_bytes("DeviceFrame", {"vnet": vnet}, packet, b"abc", 3, Checksum.NONE, ethernet=False)
    assert found is not None
    assert tcp_checksum_ok(found[0])


def test_a_cut_payload_keeps_its_original_length_and_checksum() -> None:
    found = packet_bytes("Segment", SEGMENT, TCP, b"he", 1000, Checksum.PARTIAL, ethernet=False)
    assert found is not None
    packet, length = found
    assert (len(packet), length) == (42, 1040)
    assert packet[36:38] == b"\0\0"
    assert Ipv4Header.parse(packet).total_length == 1040


def test_a_super_segment_is_kept_whole_up_to_what_ip_can_say() -> None:
    found = packet_bytes("Segment", SEGMENT, TCP, bytes(65_495), 65_495, Checksum.PARTIAL, ethernet=False)
    assert found is not None
    assert Ipv4Header.parse(found[0]).total_length == 65_535
    assert tcp_checksum_ok(found[0])
    longer = packet_bytes("Segment", SEGMENT, TCP, bytes(70_000), 70_000, Checksum.PARTIAL, ethernet=False)
    assert longer is not None
    assert Ipv4Header.parse(longer[0]).total_length == 65_535


def test_ethernet_padding_and_other_protocols_stay_as_they_are() -> None:
    arp = EthernetHeader(b"\2" * 6, b"\4" * 6, EtherType.ARP).serialize() + bytes(28)
    assert packet_bytes("DeviceFrame", {}, arp, b"", 0, Checksum.VERIFIED, ethernet=True) == (arp, 42)
    frame = EthernetHeader(b"\2" * 6, b"\4" * 6, EtherType.IPV4).serialize() + ip_packet() + bytes(6)
    found = packet_bytes("DeviceFrame", {}, frame, b"", 0, Checksum.VERIFIED, ethernet=True)
    assert found is not None
    assert found[0][-6:] == bytes(6)
    assert tcp_checksum_ok(found[0][14:-6])


def test_a_message_that_is_no_packet_is_none() -> None:
    assert packet_bytes("Routes", {}, b"", b"", 0, 0, ethernet=True) is None


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 3), st.sampled_from(["Packet", "DeviceFrame"]))
def test_any_bytes_are_captured(head: bytes, payload: bytes, state: int, kind: str) -> None:
    found = packet_bytes(kind, {}, head, payload, len(payload), state, ethernet=True)
    assert found is not None
    assert len(found[0]) == found[1] == len(head) + len(payload)
