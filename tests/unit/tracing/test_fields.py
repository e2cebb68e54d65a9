"""Fields: every one read from frames of every seam as tshark reads them, of malformed packets as far as they go."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import (
    ARP_REQUEST,
    PACKETS,
    QUOTED,
    SYN_OPTIONS,
    TAGGED,
    A,
    B,
    device_frame,
    ethernet,
    icmp_error,
    ip,
    packet,
    record,
    segment,
    tcp,
)

from levelip.frames.packet import Checksum, LinkState, Unreachable
from levelip.rpc.place import Place
from levelip.tracing.fields import ALIASES, FIELDS, field_values, fields, fields_of_view, near
from levelip.tracing.fieldtypes import Field, Kind
from levelip.tracing.pcapng import LINKTYPE_ETHERNET, Interface, PcapngWriter
from levelip.tracing.view import record_view, view
from levelip.wire.tcp import ACK, PSH, SYN
from levelip.wire.vnet import VnetHeader

OURS = {"seam", "direction", "frame.type", "frame.id", "frame.causes", "frame.gso_size", "frame.pieces",
        "frame.checksum", "frame.ingress", "frame.next_hop", "ip.options", "tcp.options.mptcp"}  # fmt: skip
"""Names that Wireshark does not have (tcp.options.mptcp is there, under another name: mptcp)."""
tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


@tshark
def test_all_names_but_ours_are_wiresharks() -> None:
    known = set()
    answer = subprocess.run(["tshark", "-G", "fields"], capture_output=True, text=True, check=True, timeout=240)
    for line in answer.stdout.splitlines():
        known.add(line.split("\t")[2])
    assert {name for name in set(FIELDS) - known if not name.startswith("message.")} == OURS


def _normal(field: Field, text: str) -> Any:
    if field.kind is Kind.FLAG:
        return {"1": True, "0": False, "true": True, "false": False}.get(text.lower(), True)
    if field.kind is Kind.NUMBER:
        return int(text, 0)
    return text.replace(":", "").lower() if field.kind is Kind.BYTES else text


def _ours(field: Field, value: Any) -> Any:
    return value.hex() if field.kind is Kind.BYTES else value


# What tshark computes by other rules, or prints otherwise, is compared elsewhere in this file.
_OTHERWISE = OURS | {
    "ip.checksum.status", "tcp.checksum.status", "udp.checksum.status", "tcp.flags.str", "data", "data.len",
    "tcp.flags.res",
}  # fmt: skip


@tshark
def test_tshark_reads_the_same_values(tmp_path: Path) -> None:
    """Field by field, occurrence by occurrence, of Ethernet frames with each of our packets."""
    frames = {name: ethernet(data) for name, data in PACKETS.items()} | {"arp": ARP_REQUEST, "tagged": TAGGED}
    path = tmp_path / "all.pcapng"
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, [Interface("link", LINKTYPE_ETHERNET)])
        for number, data in enumerate(frames.values()):
            writer.packet(0, 10**18 + number, data, len(data))
    names = [
        name
        for name, field in FIELDS.items()
        if not (name in _OTHERWISE or name in ALIASES or name.startswith("message.") or field.kind is Kind.PRESENCE)
    ]
    command = ["tshark", "-r", str(path), "-o", "tcp.relative_sequence_numbers:FALSE", "-o", "ip.defragment:FALSE",
               "-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields", "-E", "separator=|", "-E", "aggregator=;",
               "-E", "occurrence=a"]  # fmt: skip
    for name in names:
        command += ["-e", name]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    compared: set[str] = set()
    wrong: list[tuple[str, str, list[Any], list[Any]]] = []
    for (title, data), line in zip(frames.items(), answer.stdout.splitlines(), strict=True):
        ours = view(device_frame(data))
        for name, texts in zip(names, line.split("|"), strict=True):
            field = FIELDS[name]
            theirs = [_normal(field, text) for text in texts.split(";")] if texts else []
            found = [_ours(field, field.show(value)) for value in field.values(ours)]
            compared |= {name} if theirs else set()
            if found != theirs:
                wrong.append((title, name, found, theirs))
    assert not wrong
    assert len(compared) >= 85, sorted(set(names) - compared)


def test_a_segment_has_what_it_knows_of_the_ip_header() -> None:
    """Between ip and tcp there are no IP headers; their fields come from the frame, and what it lacks is not there."""
    found = fields(segment(tcp(PSH | ACK, payload=b"hello"), dont_fragment=False), seam="ip-tcp", direction="up")
    assert found["ip.src"] == "10.0.0.1"
    assert found["ip.ttl"] == 64
    assert found["ip.flags.df"] is False
    assert (found["seam"], found["direction"], found["frame.type"]) == ("ip-tcp", "up", "Segment")
    assert "ip.id" not in found
    assert "eth.src" not in found
    assert found["tcp.payload"] == found["data"] == b"hello"
    assert found["tcp.checksum.status"] == "good"
    downward = segment(tcp())
    downward.src, downward.ttl = b"", 0
    assert not {"ip.src", "ip.ttl"} & set(fields(downward))  # ip has yet to choose them


@pytest.mark.parametrize("name", PACKETS)
def test_one_packet_has_the_same_fields_at_every_seam_and_in_a_record(name: str) -> None:
    """As a device frame with and without Ethernet, as a Packet cut at any place, and as records of each."""
    data = PACKETS[name]
    frames = [device_frame(ethernet(data)), device_frame(data), packet(data, cut=0), packet(data, cut=len(data))]
    frames += [packet(data), device_frame(data, cut=min(30, len(data)))]
    expected = {key: value for key, value in fields(frames[0]).items() if key[:3] not in ("eth", "fra")}
    for frame in frames:
        got = {key: value for key, value in fields(frame).items() if key[:3] not in ("eth", "fra")}
        assert got == expected
        from_record = fields_of_view(record_view(record(frame, "link-ip", "ip"), "up"))
        assert {key: value for key, value in from_record.items() if key in expected} == expected


def test_a_record_has_the_fields_of_its_frame() -> None:
    for frame in (segment(tcp(SYN, options=SYN_OPTIONS)), icmp_error(), packet(PACKETS["echo"], next_hop=B),
                  device_frame(TAGGED), Unreachable(1, A, QUOTED, [5])):  # fmt: skip
        assert fields_of_view(record_view(record(frame), "up")) == fields(frame, seam="ip-tcp", direction="up")


def test_lengths_are_of_the_whole_payload_also_where_a_record_is_cut() -> None:
    whole = segment(tcp(payload=b"x" * 5000), gso_size=1448)
    cut = fields_of_view(record_view(record(whole, limit=0), "up"))
    assert cut["tcp.len"] == 5000
    assert cut["frame.pieces"] == 4
    assert cut["tcp.nxtseq"] == 5100
    assert "tcp.payload" not in cut
    assert cut["tcp.checksum.status"] == "unverified"


def test_a_super_segment_tells_its_pieces() -> None:
    vnet = VnetHeader.for_tcp(link_len=0, ip_len=20, head_len=40, gso_size=1000).serialize()
    found = fields(device_frame(ip(tcp(payload=b"x" * 3001)), vnet=vnet))
    assert (found["frame.gso_size"], found["frame.pieces"], found["tcp.len"]) == (1000, 4, 3001)
    assert found["frame.checksum"] == found["tcp.checksum.status"] == "partial"
    assert fields(device_frame(ip(tcp(payload=b"x"))))["frame.pieces"] == 1


@pytest.mark.parametrize(
    ("vnet", "state"),
    [(b"", "unverified"), (bytes(10), "unverified"), (b"\2" + bytes(9), "verified"), (b"\1" + bytes(9), "partial")],
)
def test_the_virtio_header_says_what_is_known_of_the_checksum(vnet: bytes, state: str) -> None:
    assert fields(device_frame(PACKETS["data"], vnet=vnet))["frame.checksum"] == state
    assert fields(packet(PACKETS["data"], checksum=Checksum[state.upper()]))["frame.checksum"] == state


def test_a_payload_in_shared_memory_is_read_only_by_who_can() -> None:
    frame = segment(tcp(PSH | ACK, payload=b"hello"))
    frame.payload = Place("ring", 0, 100, 5, 5)
    assert fields(frame)["tcp.len"] == 5
    assert "data" not in fields(frame)
    assert fields(frame)["tcp.checksum.status"] == "unverified"
    found = fields(frame, read=lambda place: b"hello" if place.start == 5 else b"")
    assert found["data"] == b"hello"
    assert found["tcp.checksum.status"] == "good"


def test_wrong_checksums_are_seen() -> None:
    bad_ip, bad_tcp = bytearray(PACKETS["data"]), bytearray(PACKETS["data"])
    bad_ip[11] ^= 1
    bad_tcp[-1] ^= 1
    assert fields(packet(bytes(bad_ip)))["ip.checksum.status"] == "bad"
    assert fields(packet(bytes(bad_tcp)))["tcp.checksum.status"] == "bad"
    assert fields(packet(bytes(bad_tcp)))["ip.checksum.status"] == "good"
    assert fields(packet(PACKETS["udp"]))["udp.checksum.status"] == "good"


def test_a_checksum_that_the_device_vouches_for_is_good_though_unfinished() -> None:
    """A tap hands over the host's own packets with the pseudo header's sum in the field, which nobody completes."""
    for name, at in (("data", 36), ("udp", 26)):
        data = bytearray(PACKETS[name])
        data[at : at + 2] = b"\x12\x34"
        found = fields(packet(bytes(data), checksum=Checksum.VERIFIED))
        assert found[f"{'udp' if name == 'udp' else 'tcp'}.checksum.status"] == "good"
    data = bytearray(tcp(payload=b"x"))
    data[16:18] = b"\x12\x34"
    assert fields(segment(bytes(data), checksum=Checksum.VERIFIED))["tcp.checksum.status"] == "good"
    assert fields(segment(bytes(data), checksum=Checksum.UNVERIFIED))["tcp.checksum.status"] == "bad"


def test_an_icmp_error_has_the_fields_of_what_it_quotes() -> None:
    """Wireshark shows both packets' fields under the same names; so do we, the outer one's first."""
    found = fields(packet(PACKETS["frag needed"]))
    assert found["ip.src"] == ["10.0.0.1", "10.0.0.2"]
    assert found["ip.proto"] == [1, 6]
    assert (found["tcp.srcport"], found["tcp.dstport"], found["tcp.seq"]) == (80, 4711, 100)
    assert "tcp.ack" not in found  # eight bytes of the segment are quoted
    assert (found["icmp.type"], found["icmp.code"], found["icmp.mtu"]) == (3, 4, 1400)
    rows = field_values(view(packet(PACKETS["frag needed"])))
    assert [row.quoted for row in rows if row.name == "ip.ttl"] == [False, True]


def test_an_icmp_error_told_to_tcp_has_them_too() -> None:
    found = fields(icmp_error())
    assert found["ip.src"] == ["10.0.0.254", "10.0.0.2"]  # the router; the segment's source
    assert found["ip.dst"] == ["10.0.0.2", "10.0.0.1"]
    assert (found["icmp.type"], found["icmp.code"], found["icmp.mtu"]) == (3, 4, 1400)
    assert (found["tcp.srcport"], found["tcp.dstport"], found["tcp.seq"]) == (80, 4711, 100)
    assert "ip.ttl" not in found


def test_bytes_behind_the_ip_packet_are_no_part_of_it() -> None:
    """Ethernet pads to 60 bytes; a payload ends where the IP header says."""
    padded = ethernet(ip(tcp(PSH | ACK, payload=b"hi"))).ljust(60, b"\xee")
    found = fields(device_frame(padded))
    assert (found["tcp.len"], found["data"], found["frame.len"]) == (2, b"hi", 60)
    assert found["tcp.checksum.status"] == "good"


def test_options_of_a_wrong_length_are_no_values() -> None:
    """As in Linux they do not count; their kinds and lengths are seen."""
    found = fields(segment(tcp(options=bytes.fromhex("0203050101010101"))))
    assert found["tcp.option_kind"] == [2, 1, 1, 1, 1, 1]
    assert found["tcp.options.mss"] is True
    assert "tcp.options.mss_val" not in found
    torn = fields(segment(tcp(options=bytes.fromhex("0101020a"))))
    assert torn["tcp.option_kind"] == [1, 1]
    assert torn["tcp.options"] == bytes.fromhex("0101020a")


def test_an_option_that_comes_twice_is_there_twice() -> None:
    found = fields(segment(tcp(SYN, options=bytes.fromhex("020405b402040218"))))
    assert found["tcp.options.mss_val"] == [1460, 536]


def test_a_message_that_is_no_packet_has_its_type() -> None:
    state = LinkState(1, "lvl0", "tap", True, 1500, 0, True)
    assert fields(state, seam="link-ip", direction="up") == {
        "seam": "link-ip", "direction": "up", "frame.type": "LinkState", "message.checksum_offload": True,
        "message.gso_max": 0, "message.iface": 1, "message.kind": "tap", "message.mtu": 1500, "message.name": "lvl0",
        "message.up": True,
    }  # fmt: skip


def test_places_are_where_the_bytes_are() -> None:
    """What a tree beside a hex dump highlights holds the value itself."""
    data = TAGGED
    rows = {row.name: row for row in field_values(view(device_frame(data)))}
    assert data[rows["ip.src"].offset :][: rows["ip.src"].length] == A
    assert struct.unpack_from(">H", data, rows["tcp.dstport"].offset)[0] == 80
    assert data[rows["tcp.payload"].offset :][: rows["tcp.payload"].length] == rows["tcp.payload"].value
    assert rows["frame.len"].offset == -1
    for row in field_values(view(device_frame(ethernet(PACKETS["syn"])))):
        assert row.offset < 0 or row.offset + row.length <= len(ethernet(PACKETS["syn"]))


@given(st.sampled_from(sorted(PACKETS)), st.data())
def test_a_packet_cut_off_anywhere_has_the_fields_before(name: str, data: st.DataObject) -> None:
    """Each field that is there has the value that it has in the whole packet, unless a length ends with the cut."""
    whole = ethernet(PACKETS[name])
    size = data.draw(st.integers(0, len(whole)))
    full, cut = view(device_frame(whole)), view(device_frame(whole[:size]))
    fields_of_view(cut)
    for field in FIELDS.values():
        if field.place is None or getattr(cut, field.place.layer) != getattr(full, field.place.layer):
            continue
        value = field.get(cut)
        assert value is None or value == field.get(full), field.name


@given(st.binary(max_size=120), st.integers(0, 3))
def test_no_bytes_break_it(data: bytes, how: int) -> None:
    frame = [device_frame(data), packet(data, cut=len(data) // 2), device_frame(ethernet(data)),
             device_frame(ethernet(ip(data, 1)))][how]  # fmt: skip
    found = fields(frame, aliases=True)
    field_values(view(frame))
    assert found["frame.type"] == type(frame).__name__


@given(st.sampled_from(sorted(PACKETS)), st.binary(min_size=1, max_size=6), st.data())
def test_damaged_packets_do_not_break_it(name: str, noise: bytes, data: st.DataObject) -> None:
    whole = bytearray(PACKETS[name])
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + len(noise)] = noise
    fields(packet(bytes(whole), cut=0))
    fields(device_frame(ethernet(bytes(whole))), aliases=True)


def test_aliases_are_left_out_unless_asked_for() -> None:
    frame = packet(PACKETS["data"])
    assert not set(ALIASES) & set(fields(frame))
    found = fields(frame, aliases=True)
    assert found["ip.addr"] == ["10.0.0.1", "10.0.0.2"]
    assert found["tcp.port"] == [4711, 80]
    assert found["tcp.seq_raw"] == 100


def test_near_names_are_found() -> None:
    assert near("tcp.dstprt", list(FIELDS))[0] == "tcp.dstport"
    assert "tcp.flags.syn" in near("flags.syn", list(FIELDS))
    assert near("quite.otherwise", list(FIELDS)) == []
