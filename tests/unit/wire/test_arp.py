"""levelip.wire.arp"""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from levelip.wire import arp
from levelip.wire.arp import ArpPacket
from levelip.wire.errors import Malformed

from .strategies import assert_truncations, ipv4_address, mac, only_malformed, u16

OURS = bytes.fromhex("0200000000a1")
THEIRS = bytes.fromhex("0200000000b1")
A = bytes((10, 0, 0, 1))
B = bytes((10, 0, 0, 2))

packets = st.builds(
    ArpPacket,
    oper=u16,
    sha=mac,
    spa=ipv4_address,
    tha=mac,
    tpa=ipv4_address,
    htype=st.sampled_from((arp.HTYPE_ETHERNET, arp.HTYPE_IEEE802)),
)


@given(packets, st.binary(max_size=18))
def test_round_trip(packet: ArpPacket, padding: bytes) -> None:
    """parse(serialize(x)) == x, with Ethernet's padding behind it."""
    data = packet.serialize()
    assert len(data) == 28
    assert ArpPacket.parse(data + padding) == packet
    assert ArpPacket.parse(b"eth" + data, 3) == packet


@given(packets)
def test_truncation(packet: ArpPacket) -> None:
    """A packet cut anywhere is Malformed."""
    assert_truncations(ArpPacket.parse, packet.serialize())


@given(st.binary(max_size=40))
def test_garbage(data: bytes) -> None:
    """Any bytes give a packet that serializes to them, or Malformed."""
    packet = only_malformed(ArpPacket.parse, data)
    if packet is not None:
        assert packet.serialize() == data[:28]


def test_request_on_the_wire() -> None:
    """RFC 826: the bytes of "who has 10.0.0.2, tell 10.0.0.1"."""
    packet = ArpPacket.request(sha=OURS, spa=A, tpa=B)
    assert packet.serialize().hex(" ", 2) == ("0001 0800 0604 0001 0200 0000 00a1 0a00 0001 0000 0000 0000 0a00 0002")
    assert str(packet) == "arp request who-has 10.0.0.2 tell 10.0.0.1"
    probe = ArpPacket.probe(sha=packet.sha, tpa=packet.tpa)
    assert (probe.oper, probe.spa, probe.tha) == (1, bytes(4), bytes(6))
    assert str(probe) == "arp probe who-has 10.0.0.2"


def test_reply_goes_back() -> None:
    """RFC 826: the answer swaps the sides and fills in our hardware address."""
    reply = ArpPacket.reply_to(ArpPacket.request(sha=THEIRS, spa=B, tpa=A), sha=OURS)
    assert reply == ArpPacket(arp.REPLY, OURS, A, THEIRS, B)
    assert str(reply) == "arp reply 10.0.0.1 is-at 02:00:00:00:00:a1"


def test_announcement() -> None:
    """RFC 5227 2.3: a request in which sender and target address are both ours."""
    packet = ArpPacket.announcement(sha=OURS, spa=A)
    assert (packet.oper, packet.spa, packet.tpa, packet.tha) == (arp.REQUEST, A, A, bytes(6))
    assert packet.is_announcement
    assert not ArpPacket.request(sha=OURS, spa=A, tpa=B).is_announcement
    assert str(packet) == "arp announcement 10.0.0.1 is-at 02:00:00:00:00:a1"


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(0, b"\0\x0f", "bad_htype"), (4, b"\x08", "bad_hlen"), (2, b"\x86\xdd", "bad_ptype"), (5, b"\x10", "bad_plen")],
)
def test_other_networks_are_named(at: int, value: bytes, reason: str) -> None:
    """Each of the four fields that must be Ethernet's or IPv4's has its reason, and the place is told."""
    data = bytearray(ArpPacket.request(sha=OURS, spa=A, tpa=B).serialize())
    data[at : at + len(value)] = value
    with pytest.raises(Malformed) as caught:
        ArpPacket.parse(data)
    assert (caught.value.proto, caught.value.reason, caught.value.offset) == ("arp", reason, at)


def test_unknown_operation_is_kept() -> None:
    """What an operation means is for the receiver; RARP's 3 is read as any."""
    packet = ArpPacket(3, OURS, A, THEIRS, B)
    assert ArpPacket.parse(packet.serialize()).oper == 3
    assert str(packet) == "arp operation 3 from 10.0.0.1"


@pytest.mark.parametrize("change", [{"sha": b""}, {"tha": bytes(5)}, {"spa": bytes(16)}, {"tpa": b""}, {"oper": 65536}])
def test_what_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """A field of the wrong size is our caller's mistake: ValueError."""
    packet = ArpPacket.request(sha=OURS, spa=A, tpa=B)
    with pytest.raises(ValueError):
        dataclasses.replace(packet, **change).serialize()  # type: ignore[arg-type]
