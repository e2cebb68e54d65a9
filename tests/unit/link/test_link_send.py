"""Packets from ip: addresses on the cable, what is left to the device, and what is dropped for which reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_host import (
    A_MAC,
    NET_BROADCAST,
    OUR_MAC,
    SECOND,
    TAP,
    TUN,
    US,
    A,
    B,
    Host,
    segment,
    whole,
)

from levelip.frames.core import ControlError
from levelip.frames.packet import Checksum, DeviceFrame, DeviceState, LinkState
from levelip.rpc.place import Payload, Place
from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST
from levelip.wire.checksum import pseudo_header_sum
from levelip.wire.ipv4 import Ipv4Header, Proto
from levelip.wire.tcp import ACK, CWR
from levelip.wire.udp import UdpHeader
from levelip.wire.vnet import GSO_ECN, GSO_TCPV4, NEEDS_CSUM, VnetHeader

TO_A = A_MAC + OUR_MAC + b"\x08\x00"
RING = "0123456789abcdef" * 2


def one(host: Host) -> DeviceFrame:
    (frame,) = host.out()
    assert isinstance(frame, DeviceFrame)
    return frame


@pytest.mark.parametrize(
    ("hop", "mac"),
    [
        (b"\xff" * 4, MAC_BROADCAST),
        (NET_BROADCAST, MAC_BROADCAST),
        (bytes((224, 0, 0, 1)), bytes.fromhex("01005e000001")),
        (bytes((239, 255, 1, 2)), bytes.fromhex("01005e7f0102")),  # the low 23 bits only (RFC 1112 6.4)
    ],
)
def test_group_addresses_need_no_arp(host: Host, hop: bytes, mac: bytes) -> None:
    """Broadcast and multicast next hops map to MAC addresses by themselves."""
    host.send(segment(US, hop), hop=hop)
    assert host.down() == [mac + OUR_MAC + b"\x08\x00" + segment(US, hop)]


@pytest.mark.parametrize("hop", [b"", bytes(4), bytes(16)])
def test_no_next_hop(hop: bytes) -> None:
    """Nothing that ARP could resolve."""
    host = Host()
    host.assert_dropped(reasons.NO_NEXT_HOP, host.send(segment(US, A), hop=hop))


def test_complete_packet_needs_no_virtio_header(host: Host) -> None:
    """A packet without a transport checksum to complete goes as it is, payload unread."""
    host.learn()
    place = Place(RING, 0, 9000, 0, 1000)
    cause = host.send(segment(US, A, length=1000), place)
    frame = one(host)
    assert (frame.head, frame.payload, frame.vnet) == (TO_A + segment(US, A, length=1000), place, b"")
    assert frame.causes == [cause]


def test_partial_checksum(host: Host) -> None:
    """PARTIAL: the folded sum of the pseudo-header in the field, and NEEDS_CSUM with its place (virtio 1.2 5.1.6.2)."""
    host.learn()
    host.send(segment(US, A, b"hello"), checksum=Checksum.PARTIAL)
    frame = one(host)
    vnet = VnetHeader.parse(frame.vnet)
    assert vnet == VnetHeader(flags=NEEDS_CSUM, csum_start=34, csum_offset=16)
    total = pseudo_header_sum(US, A, Proto.TCP, 25)
    plain = segment(US, A, b"hello")
    assert whole(frame) == TO_A + plain[:36] + total.to_bytes(2, "big") + plain[38:]


def test_partial_udp_checksum(host: Host) -> None:
    """UDP's checksum lies 6 bytes into its header."""
    host.learn()
    ip = Ipv4Header.build(US, A, proto=Proto.UDP, payload_length=12).serialize(fill_checksum=True)
    host.send(ip + UdpHeader(1, 2, 12).serialize(), b"data", checksum=Checksum.PARTIAL)
    frame = one(host)
    assert VnetHeader.parse(frame.vnet) == VnetHeader(flags=NEEDS_CSUM, csum_start=34, csum_offset=6)
    assert int.from_bytes(frame.head[40:42], "big") == pseudo_header_sum(US, A, Proto.UDP, 12)


@pytest.mark.parametrize(("flags", "ecn"), [(ACK, 0), (ACK | CWR, GSO_ECN)])
def test_super_segment(host: Host, flags: int, ecn: int) -> None:
    """More than gso_size of payload: a super-segment, which the device cuts. Its checksum is always left to it."""
    host.learn()
    place = Place(RING, 0, 1 << 20, 77, 60_000)
    host.send(segment(US, A, length=60_000, flags=flags), place, checksum=Checksum.PARTIAL, gso_size=1460)
    frame = one(host)
    assert frame.payload == place and len(frame.head) == 54
    assert VnetHeader.parse(frame.vnet) == VnetHeader(
        flags=NEEDS_CSUM, gso_type=GSO_TCPV4 | ecn, hdr_len=54, gso_size=1460, csum_start=34, csum_offset=16
    )
    assert host.core.counters["tx_packets"] == 42 and host.core.counters["tx_frames"] >= 1


def test_one_piece_is_no_super_segment(host: Host) -> None:
    """With no more payload than gso_size there is nothing to cut."""
    host.learn()
    host.send(segment(US, A, bytes(1460)), checksum=Checksum.PARTIAL, gso_size=1460)
    assert VnetHeader.parse(one(host).vnet).gso_type == 0


def test_verified_packet_gets_its_checksum_anew(host: Host) -> None:
    """What the device vouched for may never have had a checksum computed; going out it needs one."""
    host.learn()
    host.send(segment(US, A, b"hello"), checksum=Checksum.VERIFIED)
    assert VnetHeader.parse(one(host).vnet).needs_csum
    icmp = Ipv4Header.build(US, A, proto=Proto.ICMP, payload_length=8).serialize(fill_checksum=True) + bytes(8)
    host.send(icmp, checksum=Checksum.VERIFIED)
    assert one(host).vnet == b""


def test_tun_offload_counts_from_the_ip_header() -> None:
    """Without Ethernet everything in the virtio header lies 14 bytes earlier."""
    host = Host(TUN)
    host.send(segment(US, A, length=5000), Place(RING, 0, 9000, 0, 5000), checksum=Checksum.PARTIAL, gso_size=1460)
    vnet = VnetHeader.parse(one(host).vnet)
    assert (vnet.hdr_len, vnet.csum_start) == (40, 20)


@pytest.mark.parametrize(
    ("head", "payload", "gso_size"),
    [
        (b"", b"", 0),
        (b"\x45" + bytes(18), b"", 0),
        (segment(US, A)[:30], b"", 0),
        (segment(US, A)[:30], Place(RING, 0, 9000, 0, 5000), 0),
        (segment(US, A)[:38], Place(RING, 0, 9000, 0, 5000), 1460),
        (segment(US, A)[:20], Place(RING, 0, 9000, 0, 5000), 1460),
        (b"\x65" + segment(US, A)[1:], b"", 0),
        (b"\x44" + segment(US, A)[1:], b"", 0),
        (segment(US, A)[:6] + b"\x20\x00" + segment(US, A)[8:], b"", 0),  # a fragment
        (segment(US, A)[:9] + b"\x01" + segment(US, A)[10:], b"", 0),  # ICMP
        (segment(US, A)[:9] + b"\x11" + segment(US, A)[10:], bytes(2000), 1000),  # UDP is not cut
    ],
)
def test_impossible_offload(head: bytes, payload: Payload, gso_size: int) -> None:
    """A checksum or cut that no device could do is refused, not sent wrong."""
    host = Host()
    host.learn()
    frame = host.send(head, payload, checksum=Checksum.PARTIAL, gso_size=gso_size)
    host.assert_dropped(reasons.BAD_OFFLOAD, frame)


@pytest.mark.parametrize(
    ("payload", "gso_size", "fits"),
    [(1460, 0, True), (1461, 0, False), (5000, 1460, True), (5000, 1461, False), (1461, 1461, False)],
)
def test_mtu(payload: int, gso_size: int, fits: bool) -> None:
    """A packet, or a piece of one, longer than the MTU never reaches the device."""
    host = Host()
    host.learn()
    frame = host.send(segment(US, A, bytes(payload)), checksum=Checksum.PARTIAL, gso_size=gso_size)
    if fits:
        assert len(host.down()) == 1
    else:
        host.assert_dropped(reasons.OVER_DEVICE_MTU, frame)


def test_device_down() -> None:
    """While the device is down nothing goes out, and what waited is dropped."""
    host = Host()
    host.learn()
    waiting = host.send(segment(US, A))
    host.core.receive(DeviceState("lvl0", "tap", True, False, 1500, True, 65535), host.now)
    assert host.drops()[0][0] == "device_down" and waiting
    late = host.send(segment(US, A))
    assert host.drops() == [("device_down", late)]
    assert host.out() == [] and host.core.counters[reasons.DEVICE_DOWN.counter] == 2


def test_blocked_device_bounds_its_queue() -> None:
    """What a blocked device leaves waits, device_queue frames at most; the newest beyond are dropped."""
    host = Host(device_queue=3)
    host.learn()
    ids = [host.send(segment(US, A, ident=n)) for n in range(6)]
    (first,) = host.out(device=1)
    assert first.causes == [ids[0]]
    assert [reason for reason, _ in host.drops()] == ["device_queue"] * 2
    assert host.core.counters[reasons.DEVICE_QUEUE.counter] == 2
    assert [frame.causes[0] for frame in host.out()] == ids[1:4]


# news for ip


def test_ip_is_told_of_the_device(host: Host) -> None:
    """LinkState when ip comes up, and at each change; not while ip is away."""
    host.core.receive(TAP, host.now)
    assert host.told() == []
    host.ip_up()
    assert host.told() == [LinkState(1, "lvl0", "tap", True, 1500, 65535, True, OUR_MAC)]
    host.core.receive(DeviceState("lvl0", "tap", True, True, 1400, False, 0), host.now)
    assert host.told() == [LinkState(1, "lvl0", "tap", True, 1400, 0, False, OUR_MAC)]
    host.pass_time(SECOND)
    assert host.core.control(1, "device", {}, host.now) == {
        "name": "lvl0", "kind": "tap", "ethernet": True, "up": True, "mtu": 1400, "mac": "02:00:00:00:00:02",
        "addresses": ["10.0.0.2"], "checksum_offload": False, "gso_max": 0, "waiting": 0,
        "claim": "owned", "conflicts": 0,
    }  # fmt: skip


# control


def test_tunables_act_at_once(host: Host) -> None:
    """A tunable that is set holds from the next decision on."""
    host.core.set("arp_retries", 1, host.now)
    host.core.set("arp_retry_ms", 5, host.now)
    host.send(segment(US, B), hop=B)
    host.pass_time(5_000_000)
    assert host.state(B) == "failed"


def test_bad_commands(host: Host) -> None:
    """What cannot be done is said in words."""
    with pytest.raises(ControlError, match=r"link\.pool_slots cannot be changed"):
        host.core.set("pool_slots", 5, host.now)
    with pytest.raises(ControlError, match="no command 'fly'"):
        host.core.control(1, "fly", {}, host.now)
    with pytest.raises(ControlError, match="'x' is no IPv4 address"):
        host.core.control(1, "neigh.flush", {"address": "x"}, host.now)


def test_ethernet_needs_a_mac() -> None:
    """A core on Ethernet without an address is a mistake of ours."""
    host = Host()
    host.config.mac = b""
    with pytest.raises(ValueError, match="6 bytes"):
        type(host.core)(host.config, host.rng, 0)


_HEADS = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda data, at, byte: data[:at] + bytes((byte,)) + data[at + 1 :],
        st.just(segment(US, A, b"hello")),
        st.integers(0, 44),
        st.integers(0, 255),
    ),
)
_PAYLOADS = st.one_of(st.binary(max_size=80), st.builds(lambda n: Place(RING, 0, 9000, 0, n), st.integers(0, 9000)))


@settings(max_examples=300, deadline=None)
@given(_HEADS, _PAYLOADS, st.sampled_from(list(Checksum)), st.sampled_from([0, 1, 536, 1460, 65535]), st.booleans())
def test_no_packet_raises(head: bytes, payload: Payload, checksum: Checksum, gso_size: int, known: bool) -> None:
    """Whatever ip hands in (a tool may have altered it): it goes out or is counted, known neighbour or not."""
    host = Host(arp_retries=1)
    if known:
        host.learn()
    host.send(head, payload, checksum=checksum, gso_size=gso_size)
    host.pass_time(2 * SECOND)
    sent = [f for f in host.out() if isinstance(f, DeviceFrame) and f.head[12:14] == b"\x08\x00"]
    drops = sum(n for name, n in host.core.counters.items() if name.startswith("drop."))
    assert len(sent) + drops == 1
