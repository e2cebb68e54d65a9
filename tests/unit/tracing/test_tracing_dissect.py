"""Bytes to a line as tcpdump would print it; malformed ones are shown, never raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.tracing.dissect import Describer, Dissector, describe_message, looks_like_ip
from levelip.wire.arp import ArpPacket
from levelip.wire.ethernet import EthernetHeader, EtherType
from levelip.wire.icmp import HOST_UNREACH, IcmpMessage
from levelip.wire.ipv4 import FLAG_DF, FLAG_MF, Ipv4Header
from levelip.wire.options import TcpOptions, pack_sack, pack_timestamps
from levelip.wire.tcp import ACK, PSH, RST, SYN, URG, TcpHeader, pack_tcp
from levelip.wire.udp import UdpHeader

A, B = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
MAC_A, MAC_B = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")


def ip(payload: bytes, proto: int = 6, *, src: bytes = A, dst: bytes = B, **fields: int) -> bytes:
    return Ipv4Header.build(src, dst, proto=proto, payload_length=len(payload), **fields).serialize() + payload


def tcp(flags: int, seq: int, ack: int = 0, *, options: bytes = b"", back: bool = False, length: int = 0) -> bytes:
    ports = (80, 4711) if back else (4711, 80)
    return pack_tcp(*ports, seq=seq, ack=ack, flags=flags, window=502, options=options) + bytes(length)


def show(packet: bytes, dissector: Dissector | None = None) -> str:
    return (dissector or Dissector()).ipv4(packet, len(packet))


def test_syn_with_the_options_that_linux_sends() -> None:
    options = TcpOptions(mss=1460, sack_permitted=True, timestamps=(7, 0), wscale=7).serialize()
    assert show(ip(tcp(SYN, 1000, options=options))) == (
        "IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [S], seq 1000, win 502, "
        "options [mss 1460,sackOK,TS val 7 ecr 0,nop,wscale 7], length 0"
    )


def test_ip_options_and_fragments_do_not_take_the_short_path() -> None:
    segment = tcp(ACK, 5, 6)
    with_options = (
        Ipv4Header.build(A, B, proto=6, payload_length=len(segment), options=b"\x94\x04\0\0").serialize() + segment
    )
    assert show(with_options) == "IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [.], ack 6, win 502, length 0"
    assert show(ip(segment, flags=FLAG_MF)) == "IP 10.0.0.1.4711 > 10.0.0.2.80: Flags [.], ack 6, win 502, length 0"
    assert show(ip(segment, frag_offset=185)) == "IP 10.0.0.1 > 10.0.0.2: TCP fragment 1480:20"


def test_relative_numbers_wrap_with_the_sequence_space() -> None:
    dissector = Dissector()
    show(ip(tcp(SYN | ACK, 0xFFFFFFFF, 1, back=True), src=B, dst=A), dissector)
    assert show(ip(tcp(ACK | PSH, 1, 0, length=3)), dissector).endswith("seq 1:4, ack 1, win 502, length 3")


def test_a_connection_first_seen_in_its_middle_counts_from_there() -> None:
    """As if a SYN had stood right before: from 1, in both directions."""
    dissector = Dissector()
    first = show(ip(tcp(ACK, 1_000_000, 2_000_000, length=10)), dissector)
    assert first.endswith("seq 1000000:1000010, ack 2000000, win 502, length 10")
    assert show(ip(tcp(ACK, 1_000_010, 2_000_000, length=10)), dissector).endswith(
        "seq 11:21, ack 1, win 502, length 10"
    )
    back = ip(tcp(ACK, 2_000_000, 1_000_020, back=True), src=B, dst=A)
    assert show(back, dissector).endswith("Flags [.], ack 21, win 502, length 0")


def test_a_new_connection_on_the_same_ports_counts_anew() -> None:
    dissector = Dissector()
    show(ip(tcp(SYN | ACK, 100, 1, back=True), src=B, dst=A), dissector)
    show(ip(tcp(SYN | ACK, 9000, 501, back=True), src=B, dst=A), dissector)
    assert show(ip(tcp(ACK, 501, 9001)), dissector).endswith("ack 1, win 502, length 0")


def test_sack_blocks_are_relative_as_the_ack_is() -> None:
    dissector = Dissector()
    show(ip(tcp(SYN | ACK, 999, 5000, back=True), src=B, dst=A), dissector)
    ack = ip(tcp(ACK, 5000, 1000, options=pack_timestamps(1, 2) + pack_sack([(2448, 3896)])))
    assert show(ack, dissector).endswith("options [nop,nop,TS val 1 ecr 2,nop,nop,sack 1 {1449:2897}], length 0")


def test_rst_and_urgent() -> None:
    assert show(ip(tcp(RST, 77))).endswith("Flags [R], seq 77, win 502, length 0")
    urgent = pack_tcp(4711, 80, seq=1, ack=2, flags=ACK | URG, window=5, urgent=9)
    assert show(ip(urgent)).endswith("Flags [.U], ack 2, win 5, urg 9, length 0")


def test_a_super_segment_tells_its_pieces() -> None:
    head = tcp(ACK, 1, 1)
    text = Describer().describe("ip-tcp", "Segment", {"src": A, "dst": B, "proto": 6}, head, b"", 4344, 1448)
    assert text.endswith("length 4344 (3 x 1448)")


def test_headers_that_lie_partly_in_the_payload_are_found() -> None:
    packet = ip(tcp(SYN, 1))
    text = Describer().describe("link-ip", "Packet", {}, packet[:20], packet[20:], len(packet) - 20, 0)
    assert text.endswith("Flags [S], seq 1, win 502, length 0")


def test_verbose_shows_the_ip_header() -> None:
    assert Dissector(verbose=True).ipv4(ip(tcp(SYN, 1), flags=FLAG_DF, ident=9, ttl=3), 40) == (
        "IP (tos 0x0, ttl 3, id 9, offset 0, flags [DF], proto TCP (6), length 40) "
        "10.0.0.1.4711 > 10.0.0.2.80: Flags [S], seq 1, win 502, length 0"
    )


def test_ethernet_with_arp_padding_vlan_and_foreign_types() -> None:
    dissector = Dissector()
    arp = EthernetHeader(MAC_B, MAC_A, EtherType.ARP).serialize()
    request = arp + ArpPacket.request(sha=MAC_A, spa=A, tpa=B).serialize() + bytes(18)
    assert dissector.ethernet(request, len(request)) == "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 46"
    padded = EthernetHeader(MAC_B, MAC_A, EtherType.IPV4).serialize() + ip(tcp(RST, 7)) + bytes(6)
    assert dissector.ethernet(padded, len(padded)).endswith("Flags [R], seq 7, win 502, length 0")
    other = EthernetHeader(MAC_B, MAC_A, EtherType.IPV6).serialize() + bytes(40)
    assert dissector.ethernet(other, 54) == "02:00:00:00:00:01 > 02:00:00:00:00:02, IPV6, length 54"
    tagged = other[:12] + bytes.fromhex("81000007") + arp[12:] + request[14:]
    assert dissector.ethernet(tagged, len(tagged)).startswith("vlan 7, p 0, ARP, Request who-has 10.0.0.2")


def test_icmp_and_udp() -> None:
    echo = IcmpMessage.echo_request(ident=7, sequence=1, payload=bytes(56)).serialize()
    assert show(ip(echo, 1)) == "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 7, seq 1, length 64"
    error = IcmpMessage.dest_unreachable(HOST_UNREACH, ip(tcp(SYN, 1))[:28]).serialize()
    assert show(ip(error, 1)) == (
        "IP 10.0.0.1 > 10.0.0.2: ICMP 10.0.0.1.4711 > 10.0.0.2.80 tcp: host unreachable, length 36"
    )
    datagram = UdpHeader(53, 4000, 12).serialize() + bytes(4)
    assert show(ip(datagram, 17)) == "IP 10.0.0.1.53 > 10.0.0.2.4000: UDP, length 4"


@pytest.mark.parametrize(
    ("packet", "text"),
    [
        (b"\x45" + bytes(10), "IP [bad: ipv4: truncated at byte 11], length 11"),
        (ip(b"\0" * 8), "IP 10.0.0.1 > 10.0.0.2: TCP [bad: tcp: truncated at byte 8], length 8"),
        (
            ip(TcpHeader(src_port=1, dst_port=2, seq=1, flags=2, window=0).serialize()[:12] + b"\x10" + bytes(7)),
            "IP 10.0.0.1 > 10.0.0.2: TCP [bad: tcp: data_offset_too_small at byte 12], length 20",
        ),
        (ip(tcp(SYN, 1))[:30], "IP [bad total length 40, there are 30 bytes]"),
        (bytes([0x65]) + bytes(39), "IP version 6, length 40"),
        (ip(b"\x16\0\0", 2), "IP 10.0.0.1 > 10.0.0.2: igmp [bad: igmp: truncated at byte 3]"),
        (ip(b"\x16\0\0\0\xef\1\2\3", 2), "IP 10.0.0.1 > 10.0.0.2: igmp v2 report 239.1.2.3"),
        (ip(b"\x08\0\0", 1), "IP 10.0.0.1 > 10.0.0.2: ICMP [bad: icmp: truncated at byte 3], length 3"),
        (ip(b"\0\1\0\2", 17), "IP 10.0.0.1 > 10.0.0.2: UDP [bad: udp: truncated at byte 4], length 4"),
        (ip(b"abc", 99), "IP 10.0.0.1 > 10.0.0.2: proto 99, length 3"),
    ],
)
def test_what_cannot_be_read_is_shown_with_why(packet: bytes, text: str) -> None:
    assert show(packet) == text


def test_a_device_frame_is_told_apart_from_raw_ip() -> None:
    packet = ip(tcp(SYN, 1))
    assert looks_like_ip(packet, len(packet))
    frame = EthernetHeader(MAC_B, MAC_A, EtherType.IPV4).serialize() + packet
    assert not looks_like_ip(frame, len(frame))
    for data in (packet, frame):
        assert Describer().describe("link", "DeviceFrame", {}, data, b"", 0, 0).startswith("IP 10.0.0.1.4711 > ")


def test_messages_that_are_no_packets_are_name_and_value() -> None:
    fields = {"sock": 5, "address": A, "port": 80, "options": {"nodelay": 1}, "region": "", "data": b"\1\2"}
    assert describe_message("Connect", fields) == (
        "Connect sock 5, address 10.0.0.1, port 80, options {nodelay 1}, region -, data 0x0102"
    )
    assert describe_message("Data", {"sock": 5, "offset": 0}, 1000) == "Data sock 5, offset 0, payload 1000"


@given(st.binary(max_size=200), st.integers(0, 70_000), st.sampled_from(["Packet", "Segment", "DeviceFrame"]))
def test_any_bytes_give_a_line(data: bytes, length: int, kind: str) -> None:
    describer = Describer(verbose=len(data) % 2 == 0)
    text = describer.describe("link", kind, {"src": A, "dst": B, "proto": length % 20}, data, b"", length, 0)
    assert text
    assert "\n" not in text


@given(st.binary(min_size=20, max_size=60))
def test_any_tcp_header_behind_an_ip_header_gives_a_line(segment: bytes) -> None:
    assert show(ip(segment)).startswith("IP 10.0.0.1")
