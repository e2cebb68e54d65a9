"""Frames made from a line, from fields, from captures: right at every seam, and refused with the place."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import ARP_REQUEST, PACKETS, A, B, ethernet

from levelip.frames.packet import DeviceFrame, FrameIds, Packet, Process, Segment
from levelip.tracing.build import (
    BuildError,
    CaptureError,
    Connection,
    EditError,
    PacketLineError,
    Target,
    build_capture,
    build_fields,
    build_line,
    parse_connection,
)
from levelip.tracing.captures import ip_packet, read_capture, read_stream
from levelip.tracing.fields import fields
from levelip.tracing.packetline.read import read_packet_line
from levelip.tracing.pcapng import (
    INBOUND,
    LINKTYPE_ETHERNET,
    LINKTYPE_RAW,
    OUTBOUND,
    Interface,
    PcapngWriter,
)

CONNECTION = Connection(B, 80, A, 4711, local_isn=1000, remote_isn=2000)
WAYS = [(seam, direction) for seam in ("link", "link-ip", "ip-tcp") for direction in ("up", "down")]
TYPES = {"link": DeviceFrame, "link-ip": Packet, "ip-tcp": Segment}


def target(seam: str = "ip-tcp", direction: str = "up", **more: Any) -> Target:
    return Target(seam, direction, **{"connection": CONNECTION, **more})


def has(frame: Any, **expected: Any) -> None:
    """Its fields, written with _ for the dots; and its checksums are right."""
    found = fields(frame)
    assert {name: found.get(name.replace("__", ".")) for name in expected} == expected
    for status in ("ip.checksum.status", "tcp.checksum.status", "udp.checksum.status"):
        assert found.get(status, "good") == "good"
    assert found["frame.checksum"] == "unverified"


@pytest.mark.parametrize(("seam", "direction"), WAYS)
def test_a_line_at_every_seam_both_ways(seam: str, direction: str) -> None:
    """Upward it comes from the peer, downward from us; numbers count from each side's first."""
    up = direction == "up"
    ends = ("10.0.0.1", "10.0.0.2", 4711, 80) if up else ("10.0.0.2", "10.0.0.1", 80, 4711)
    seq, ack = (2001, 1501) if up else (1001, 2501)
    for sign in ("", "< " if up else "> "):
        line = f"{sign}. 1:1001(1000) ack 501 win 7 <nop,nop,TS val 5 ecr 6>"
        frame = build_line(line, target(seam, direction))
        assert type(frame) is TYPES[seam]
        has(frame, ip__src=ends[0], ip__dst=ends[1], tcp__srcport=ends[2], tcp__dstport=ends[3], tcp__seq=seq,
            tcp__ack=ack, tcp__len=1000, tcp__window_size_value=7, tcp__flags__str=".", ip__ttl=64)  # fmt: skip
        assert isinstance(frame.payload, bytes)


def test_the_packet_of_the_issue() -> None:
    frame = build_line("S 0:0(0) win 1000 <mss 1460>", target())
    has(frame, tcp__flags__str="S", tcp__seq=2000, tcp__ack=0, tcp__window_size_value=1000, tcp__options__mss_val=1460)
    assert isinstance(frame, Segment)
    assert (frame.src, frame.dst, frame.id >> 60, frame.traced) == (A, B, Process.TOOL, True)


def test_a_window_that_is_not_said_is_open() -> None:
    has(build_line(". 1:1(0) ack 1", target()), tcp__window_size_value=65_535)


def test_sack_blocks_count_as_the_receivers_numbers_do() -> None:
    has(build_line(". 1:1(0) ack 1 <sack 101:201>", target()), tcp__options__sack_le=1101, tcp__options__sack_re=1201)


def test_a_line_that_names_its_own_ends_needs_no_connection() -> None:
    frame = build_line("[from 192.0.2.1, to 192.0.2.2, ttl 3] 5 > 6 R 7:7(0)", target(connection=None))
    has(frame, ip__src="192.0.2.1", ip__dst="192.0.2.2", tcp__srcport=5, tcp__dstport=6, tcp__seq=7, ip__ttl=3)
    for line in ("S 0:0(0)", "[from 192.0.2.1, to 192.0.2.2] S 0:0(0)", "5 > 6 S 0:0(0)"):
        with pytest.raises(PacketLineError, match="whose packet is it"):
            build_line(line, target(connection=None))


def test_other_protocols() -> None:
    low = target("link-ip", "up")
    has(build_line("icmp echo_request id 7 seq 3", low), icmp__type=8, icmp__ident=7, icmp__seq=3)
    error = build_line("icmp unreachable frag_needed mtu 1400 [1:1001(1000)]", low)
    found = fields(error)
    assert (found["icmp.mtu"], found["tcp.seq"], found["tcp.srcport"]) == (1400, 1001, 80)
    has(build_line("igmp v2_report group 224.1.2.3", low), igmp__type=0x16, igmp__maddr="224.1.2.3")
    has(build_line("proto 47 0x0102", low), ip__proto=47, data=b"\1\2")
    has(build_line("[ttl 9, fill 0x41] udp (3)", low), udp__srcport=4711, udp__dstport=80, data=b"AAA", ip__ttl=9)
    for line in ("icmp echo_request", "proto 47 (5)"):
        with pytest.raises(BuildError, match="segments of TCP and UDP only"):
            build_line(line, target("ip-tcp"))
    quoting = build_line("icmp unreachable port_unreachable [packet(28)]", low, quotes=PACKETS["udp"])
    assert fields(quoting)["udp.dstport"] == 53


def test_a_packet_that_is_wrong_on_purpose() -> None:
    bad = fields(build_line("[badsum] . 1:3001(3000) ack 1", target("link-ip", "up", gso_size=1000)))
    assert bad["tcp.checksum.status"] == "bad"
    assert "frame.gso_size" not in bad  # its pieces would have right ones
    assert fields(build_line("[badipsum] . 1:2(1) ack 1", target("link-ip", "up")))["ip.checksum.status"] == "bad"
    piece = fields(build_line("[frag 0:24, mf] udp (100)", target("link-ip", "up")))
    assert (piece["ip.flags.mf"], piece["data.len"]) == (True, 16)
    with pytest.raises(BuildError, match="a fragment"):
        build_line("[frag 0:24, mf] . 1:1001(1000)", target())


def test_a_large_payload_becomes_a_super_segment() -> None:
    for seam, direction in WAYS:
        where = target(seam, direction, gso_size=1448)
        found = fields(build_line(". 1:3001(3000) ack 1", where))
        assert (found["frame.gso_size"], found["frame.pieces"]) == (1448, 3)
        assert "frame.gso_size" not in fields(build_line(". 1:1001(1000) ack 1", where))


def test_what_stands_around_it() -> None:
    mac, peer = bytes.fromhex("02000000000a"), bytes.fromhex("02000000000b")
    for direction, ends in (("up", (peer, mac)), ("down", (mac, peer))):
        frame = build_line("S 0:0(0)", target("link", direction, mac=mac, peer_mac=peer))
        assert (frame.head[6:12], frame.head[:6]) == ends
    tun = build_line("S 0:0(0)", target("link", "up", ethernet=False))
    assert tun.head[0] == 0x45
    down = build_line("S 0:0(0)", target("link-ip", "down"))
    assert isinstance(down, Packet)
    assert down.next_hop == A
    via = build_line("S 0:0(0)", target("link-ip", "down", next_hop=bytes((10, 0, 0, 254))))
    assert isinstance(via, Packet)
    assert via.next_hop == bytes((10, 0, 0, 254))
    up = build_line("S 0:0(0)", target("link-ip", "up"))
    assert isinstance(up, Packet)
    assert up.next_hop == b""
    cast = build_line("[linkcast] S 0:0(0)", target("link-ip", "up"))
    assert isinstance(cast, Packet)
    assert cast.flags == 1
    ids = FrameIds(Process.TOOL, 77)
    one = target(ids=ids)
    assert build_line("S 0:0(0)", one).id != build_line("S 0:0(0)", one).id


LINES = [
    ("", 0, "the packet ends here"),
    ("S", 1, "the packet ends here; expected a number"),
    ("S 0:0(0", 7, "expected )"),
    ("S 0:0(1) win 1", 2, "0 + 1 is not 0"),
    ("  S 0:0(0) wim 1", 11, "'wim' does not fit here"),
    ("X 0:0(0) win 1", 0, "no TCP flag"),
    ("< S 0:0(0) win 70000", 15, "does not fit into 16 bits"),
    ("< S 0:0(0) win 1 <mss 99999>", 18, "does not fit into 16 bits"),
    ("S 0:0(0) win 1 $", 15, "does not fit here"),
    ("S 0:0(0) <...>", 9, "<...> is for packets that are expected"),
    ("S 0:0(0) <md5 0>", 10, "no even number of hex digits"),
    ("> S 0:0(0)", 0, "the packet is to go up"),
    ("icmp nonsense", 5, "no ICMP type"),
    ("[ttl 300] S 0:0(0)", 5, "does not fit into 8 bits"),
    ("ipv6 S 0:0(0)", 5, "does not fit here"),
    ("S 0:0(0) <mss 1,mss 1,mss 1,mss 1,mss 1,mss 1,mss 1,mss 1,mss 1,mss 1,mss 1>", 0, "room for 40"),
]


@pytest.mark.parametrize(("text", "position", "message"), LINES, ids=[row[0][:20] for row in LINES])
def test_errors_in_a_line_show_the_place(text: str, position: int, message: str) -> None:
    with pytest.raises(PacketLineError) as caught:
        build_line(text, target())
    assert message in caught.value.message
    assert caught.value.position == position
    lines = str(caught.value).splitlines()
    assert lines[1] == f"  {text}"
    assert lines[2] == f"  {' ' * position}^"


@given(st.text(alphabet=st.sampled_from("S.FRP<>[]():0123456789 acktwinmsopudcmph,-\n\t"), max_size=40))
def test_no_line_breaks_it(text: str) -> None:
    try:
        fields(build_line(text, target("link-ip", "up")))
    except (PacketLineError, BuildError) as error:
        str(error)


def test_a_line_says_its_direction_itself() -> None:
    assert read_packet_line("< S 0:0(0)")[1] == "up"
    assert read_packet_line("  > S 0:0(0)")[1] == "down"
    assert read_packet_line("S 0:0(0)")[1] == ""


# from fields


@pytest.mark.parametrize(("seam", "direction"), WAYS)
def test_fields_at_every_seam_both_ways(seam: str, direction: str) -> None:
    ends = ("10.0.0.1", "10.0.0.2", 4711, 80) if direction == "up" else ("10.0.0.2", "10.0.0.1", 80, 4711)
    changes = {"tcp.flags.syn": "1", "tcp.options.mss_val": "536", "data": '"abc"', "ip.ttl": 3}
    frame = build_fields(changes, target(seam, direction))
    assert type(frame) is TYPES[seam]
    has(frame, ip__src=ends[0], ip__dst=ends[1], tcp__srcport=ends[2], tcp__dstport=ends[3], tcp__flags__str="S",
        tcp__options__mss_val=536, data=b"abc", ip__ttl=3, tcp__window_size_value=65_535)  # fmt: skip
    has(build_fields({"udp.dstport": 53, "data": "0102"}, target(seam, direction)), udp__dstport=53, data=b"\1\2",
        udp__length=10)  # fmt: skip


def test_fields_of_other_protocols() -> None:
    up = target("link-ip", "up")
    has(build_fields({"icmp.type": 3, "icmp.code": 4, "icmp.mtu": 576}, up), icmp__type=3, icmp__mtu=576)
    has(build_fields({"igmp.type": 0x17}, up), igmp__type=0x17)
    has(build_fields({"ip.proto": 47, "data": "01"}, up), ip__proto=47, data=b"\1")
    arp = build_fields({"arp.opcode": 2}, target("link", "up", mac=b"\2" * 6, peer_mac=b"\4" * 6))
    found = fields(arp)
    assert (found["arp.opcode"], found["arp.src.proto_ipv4"]) == (2, "10.0.0.1")
    assert found["arp.dst.proto_ipv4"] == "10.0.0.2"
    assert found["arp.src.hw_mac"] == "04:04:04:04:04:04"
    alone = build_fields({"ip.src": "1.1.1.1", "ip.dst": "2.2.2.2", "tcp.flags.reset": 1}, target(connection=None))
    has(alone, ip__src="1.1.1.1", ip__dst="2.2.2.2", tcp__srcport=0, tcp__flags__str="R")
    wrong = fields(build_fields({"tcp.checksum": 5}, target()))
    assert (wrong["tcp.checksum"], wrong["tcp.checksum.status"]) == (5, "bad")


@pytest.mark.parametrize(
    ("changes", "where", "error", "message"),
    [
        ({}, {}, BuildError, "no fields"),
        ({"ip.ttl": 3}, {}, BuildError, "which protocol"),
        ({"nonsense": 3}, {}, EditError, "no field 'nonsense'"),
        ({"tcp.sek": 3}, {"connection": None}, EditError, "did you mean tcp.seq"),
        ({"tcp.seq": 1, "udp.srcport": 1}, {}, BuildError, "tcp and udp do not stand in one packet"),
        ({"tcp.seq": 1}, {"connection": None}, BuildError, "ip.src=ADDRESS"),
        ({"tcp.seq": 1, "ip.src": "1.1.1.1"}, {"connection": None}, BuildError, "ip.dst=ADDRESS"),
        ({"arp.opcode": 1}, {"seam": "link-ip"}, BuildError, "at link, on Ethernet"),
        ({"arp.opcode": 1}, {"seam": "link", "ethernet": False}, BuildError, "at link, on Ethernet"),
        ({"icmp.type": 8}, {}, BuildError, "TCP and UDP only"),
        ({"tcp.sek": 1}, {}, EditError, "did you mean tcp.seq"),
        ({"tcp.seq": "x"}, {}, EditError, "'x' is none"),
        ({"ip.id": 1, "tcp.seq": 1}, {}, EditError, "ip takes off that header"),
        ({"ip.src": "x", "tcp.seq": 1}, {}, EditError, "an IPv4 address"),
    ],
)  # fmt: skip
def test_fields_that_make_no_packet(changes: dict[str, Any], where: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error) as caught:
        build_fields(changes, target(**where))
    assert message in str(caught.value)


def test_a_connection_by_its_name() -> None:
    made = parse_connection("10.0.0.2:80 > 10.0.0.1:4711", local_isn=5)
    assert made == Connection(B, 80, A, 4711, 5)
    assert made.name == "10.0.0.2:80>10.0.0.1:4711"
    for wrong in ("", "10.0.0.2:80", "10.0.0.2:80>x:1", "10.0.0.2>10.0.0.1", "1.1.1.1:1>1.1.1.1:1>1.1.1.1:1",
                  "1.1.1.1:99999>1.1.1.1:1"):  # fmt: skip
        with pytest.raises(BuildError, match="LOCAL:PORT>REMOTE:PORT"):
            parse_connection(wrong)


def test_a_target_that_is_none() -> None:
    for seam, direction in (("tcp-gateway", "up"), ("link", "sideways")):
        with pytest.raises(BuildError):
            Target(seam, direction)


# from captures

RAW = [PACKETS["syn"], PACKETS["echo"], PACKETS["data"]]


def pcapng(path: Path, packets: list[tuple[int, bytes]], *, length: int = 0, interfaces: int = 2) -> Path:
    """A file with two interfaces, Ethernet and raw IP; packets by the number of theirs."""
    names = [Interface("link", LINKTYPE_ETHERNET), Interface("link-ip", LINKTYPE_RAW)]
    with path.open("wb") as stream:
        writer = PcapngWriter(stream, names[:interfaces])
        for number, (interface, data) in enumerate(packets):
            way = (INBOUND, OUTBOUND)[number & 1]
            writer.packet(interface, 10**18 + number, data, length or len(data), direction=way)
    return path


def pcap(path: Path, packets: list[bytes], *, magic: int = 0xA1B2C3D4, order: str = "<", linktype: int = 1) -> Path:
    """The older format."""
    data = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65_535, linktype)
    for number, one in enumerate(packets):
        data += struct.pack(order + "IIII", 1_700_000_000, number, len(one), len(one)) + one
    path.write_bytes(data)
    return path


def test_packets_of_a_pcapng_file(tmp_path: Path) -> None:
    path = pcapng(tmp_path / "x.pcapng", [(0, ethernet(RAW[0])), (1, RAW[1]), (0, ARP_REQUEST), (0, ethernet(RAW[2]))])
    seen = list(read_capture(path))
    assert [(one.number, one.linktype, one.interface, one.direction) for one in seen] == [
        (1, 1, "link", "up"), (2, 101, "link-ip", "down"), (3, 1, "link", "up"), (4, 1, "link", "down"),
    ]  # fmt: skip
    assert seen[1].at == 10**18 + 1
    segments = list(build_capture(path, target(connection=None)))
    assert [fields(one)["tcp.flags.str"] for one in segments] == ["S", "P."]
    packets = list(build_capture(path, target("link-ip", "down", connection=None)))
    assert [one.head + one.payload for one in packets] == RAW
    at_link = list(build_capture(path, target("link", "up", connection=None), numbers=[3, 2]))
    assert [fields(one)["eth.type"] for one in at_link] == [0x0800, 0x0806]
    assert at_link[1].head == ARP_REQUEST


@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
@pytest.mark.parametrize("order", ["<", ">"])
def test_packets_of_a_pcap_file(tmp_path: Path, magic: int, order: str) -> None:
    path = pcap(tmp_path / "x.pcap", [ethernet(RAW[0]), ethernet(RAW[2])], magic=magic, order=order)
    seen = list(read_capture(path))
    assert [ip_packet(one) for one in seen] == [RAW[0], RAW[2]]
    assert seen[1].at - seen[0].at == (1000 if magic == 0xA1B2C3D4 else 1)


@pytest.mark.parametrize(
    ("linktype", "prefix"),
    [(101, b""), (228, b""), (0, b"\2\0\0\0"), (113, bytes(14) + b"\x08\0"), (276, b"\x08\0" + bytes(18)),
     (1, bytes(12) + b"\x81\0\0\5\x08\0")],
)  # fmt: skip
def test_link_types_that_hold_ip(tmp_path: Path, linktype: int, prefix: bytes) -> None:
    path = pcap(tmp_path / "x.pcap", [prefix + RAW[0]], linktype=linktype)
    assert [fields(one)["tcp.flags.str"] for one in build_capture(path, target())] == ["S"]


@pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is not installed")
def test_files_that_wiresharks_tools_write(tmp_path: Path) -> None:
    """editcap makes a pcap of our pcapng, and a pcapng of that."""
    ours = pcapng(tmp_path / "x.pcapng", [(0, ethernet(data)) for data in RAW], interfaces=1)
    for kind in ("pcap", "nsecpcap", "pcapng"):
        path = tmp_path / f"y.{kind}"
        subprocess.run(["editcap", "-F", kind, str(ours), str(path)], check=True, timeout=30)
        seen = list(read_capture(path))
        assert [ip_packet(one) for one in seen] == RAW
        assert abs(seen[0].at - 10**18) < 1000


def test_files_and_packets_that_are_none(tmp_path: Path) -> None:
    good = pcapng(tmp_path / "x.pcapng", [(0, ethernet(RAW[0])), (0, ARP_REQUEST)])
    old = pcap(tmp_path / "x.pcap", [ethernet(RAW[0])])
    cases: list[tuple[bytes, str]] = [
        (b"", "starts neither as pcapng nor as pcap"),
        (b"not a capture at all", "starts neither as pcapng nor as pcap"),
        (good.read_bytes()[:-10], "cannot be read behind packet 1"),
        (good.read_bytes()[:40], "cannot be read from its start"),
        (old.read_bytes()[:20], "ends within its header"),
        (old.read_bytes()[:30], "ends within packet 1"),
        (old.read_bytes()[:-1], "ends within packet 1"),
        (old.read_bytes()[:32] + b"\xff" * 8 + old.read_bytes()[40:], "the file is damaged"),
        (old.read_bytes()[:20] + b"\x99\0\0\0" + old.read_bytes()[24:], "no packet in"),
    ]
    for data, message in cases:
        path = tmp_path / "bad"
        path.write_bytes(data)
        with pytest.raises(CaptureError) as caught:
            list(build_capture(path, target()))
        assert message in str(caught.value), message
    with pytest.raises(FileNotFoundError):
        list(build_capture(tmp_path / "missing", target()))
    for numbers, message in (([2], "packet 2 is no IPv4 packet: its EtherType is 0x0806"), ([9], "has no packet 9")):
        with pytest.raises(CaptureError, match=message):
            list(build_capture(good, target(), numbers=numbers))
    cut = pcapng(tmp_path / "cut.pcapng", [(0, ethernet(RAW[2])[:60])], length=72)
    with pytest.raises(CaptureError, match="was cut to 60 of 72 bytes"):
        list(build_capture(cut, target(), numbers=[1]))
    icmp = pcapng(tmp_path / "icmp.pcapng", [(1, RAW[1])])
    with pytest.raises(CaptureError, match="packet 1: between ip and tcp"):
        list(build_capture(icmp, target(), numbers=[1]))


@given(st.binary(max_size=200), st.integers(0, 3))
def test_no_file_breaks_it(data: bytes, how: int) -> None:
    """Random bytes behind a right beginning: packets, or a CaptureError."""
    stream = io.BytesIO()
    PcapngWriter(stream, [Interface("link", LINKTYPE_ETHERNET)])
    start = [b"", b"\xd4\xc3\xb2\xa1", b"\n\r\r\n", stream.getvalue()][how]

    try:
        for one in read_stream(io.BytesIO(start + data), "memory"):
            try:
                ip_packet(one)
            except CaptureError:
                continue
    except CaptureError as error:
        assert "memory" in str(error)
