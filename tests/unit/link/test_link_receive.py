"""Frames from the device: what goes up, and what is dropped for which reason."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from link_host import A_MAC, B_MAC, OUR_MAC, TUN, US, A, Host, segment, whole

from levelip.frames.packet import BROADCAST, Checksum, DeviceFrame, Local, Packet
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST
from levelip.wire.arp import ArpPacket
from levelip.wire.ethernet import EtherType
from levelip.wire.vnet import DATA_VALID, GSO_ECN, GSO_TCPV4, GSO_UDP, NEEDS_CSUM, VnetHeader


def test_packet_goes_up_without_ethernet(host: Host) -> None:
    """An IPv4 frame for our MAC address goes up as a packet that names its frame as the cause."""
    data = segment(A, US, b"hello")
    frame = host.ethernet(data)
    (packet,) = host.up()
    assert whole(packet) == data
    assert packet.causes == [frame] and packet.id != frame
    assert (packet.checksum, packet.gso_size, packet.next_hop, packet.flags) == (Checksum.UNVERIFIED, 0, b"", 0)
    assert (packet.ingress, packet.iface) == (host.now, 1)
    assert host.core.counters["rx_bytes"] == len(data) and host.core.counters["rx_packets"] == 1


def test_traced_bit_travels(host: Host) -> None:
    """A frame that is traced makes a packet that is traced."""
    host.frame(OUR_MAC + A_MAC + b"\x08\x00" + segment(A, US), traced=True)
    assert host.up()[0].traced


@pytest.mark.parametrize("split", [1, 14, 20, 34, 50, 54])
def test_any_split_of_bytes_is_the_same(host: Host, split: int) -> None:
    """Head and payload bytes may be split anywhere."""
    data = OUR_MAC + A_MAC + b"\x08\x00" + segment(A, US, b"hello")
    host.frame(data[:split], data[split:])
    (packet,) = host.up()
    assert whole(packet) == data[14:]


@pytest.mark.rfc("RFC 1122 3.3.6-6")
@pytest.mark.parametrize("dst", [MAC_BROADCAST, bytes.fromhex("01005e000001")])
def test_group_destination_is_flagged(host: Host, dst: bytes) -> None:
    """A link-level broadcast or multicast is taken, and ip is told (RFC 1122 3.3.6)."""
    host.ethernet(segment(A, US), dst=dst)
    assert host.up()[0].flags == BROADCAST


@pytest.mark.rfc("RFC 1112 6.4", "RFC 1112 7.3")
def test_groups_are_filtered_once_ip_has_told(host: Host) -> None:
    """RFC 1112 7.3: only groups that ip has joined go up; until it has told, all do. Broadcasts always do."""
    mac = b"\x01\x00\x5e\x01\x02\x03"
    host.ethernet(segment(A, US), dst=mac)
    assert len(host.up()) == 1
    host.core.receive(Local([US], [], [bytes((224, 0, 0, 1)), bytes((239, 129, 2, 3))]), host.now)
    host.core = type(host.core).restore(host.config, host.core.snapshot())
    host.core.interest = True
    for taken in (mac, b"\x01\x00\x5e\x00\x00\x01", MAC_BROADCAST):  # the 24th bit of the group is not in the MAC
        host.ethernet(segment(A, US), dst=taken)
        assert host.up()[0].flags == BROADCAST
    host.assert_dropped(reasons.FOREIGN_GROUP, host.ethernet(segment(A, US), dst=b"\x01\x00\x5e\x01\x02\x04"))


def test_addresses_follow_ip(host: Host) -> None:
    """ip tells which addresses are ours now: ARP answers for those, and no longer for others; `device` names them."""

    def named() -> object:
        return host.core.control(1, "device", {}, host.now)["addresses"]

    new = bytes((192, 0, 2, 2))
    host.core.receive(Local([US, new], [bytes((192, 0, 2, 255))], []), host.now)
    assert [(arp.spa, arp.tpa) for _, arp in host.arp_out()] == [(new, new)]  # announced (RFC 5227 2.3)
    host.arp(ArpPacket.request(sha=A_MAC, spa=A, tpa=new))
    assert [arp.spa for _, arp in host.arp_out()] == [new]
    assert named() == ["10.0.0.2", "192.0.2.2"]
    host.core.receive(Local([US], [], []), host.now)
    assert named() == ["10.0.0.2"]
    host.arp(ArpPacket.request(sha=A_MAC, spa=A, tpa=new))
    assert host.arp_out() == []


@pytest.mark.parametrize("padding", [1, 6, 1000])
def test_padding_is_trimmed(host: Host, padding: int) -> None:
    """What lies behind the IP packet is padding of the cable (RFC 894) and does not go up."""
    data = segment(A, US, b"hello")
    host.ethernet(data + bytes(padding))
    (packet,) = host.up()
    assert whole(packet) == data


def test_padding_behind_a_place_is_trimmed(host: Host) -> None:
    """A payload in the pool is trimmed, too, unread."""
    head = segment(A, US, length=5000)
    host.frame(OUR_MAC + A_MAC + b"\x08\x00" + head, Place("pool-1", 0, 69632, 54, 5010, 3))
    (packet,) = host.up()
    assert (packet.head, packet.payload) == (head, Place("pool-1", 0, 69632, 54, 5000, 3))


def test_place_goes_up_as_it_is(host: Host) -> None:
    """A header split by the device port is that of the packet once the Ethernet header is gone."""
    head = segment(A, US, length=60_000)
    place = Place("pool-1", 4096, 69632, 54, 60_000, 3)
    vnet = VnetHeader.for_tcp(link_len=14, ip_len=20, head_len=40, gso_size=1460).serialize()
    host.frame(OUR_MAC + A_MAC + b"\x08\x00" + head, place, vnet=vnet)
    (packet,) = host.up()
    assert (packet.head, packet.payload) == (head, place)
    assert (packet.checksum, packet.gso_size) == (Checksum.VERIFIED, 1460)
    assert host.core.counters["rx_packets"] == 42  # 60000 / 1460 = 41.1


@pytest.mark.parametrize(
    ("vnet", "checksum", "gso_size"),
    [
        (VnetHeader(), Checksum.UNVERIFIED, 0),
        (VnetHeader(flags=NEEDS_CSUM, csum_start=34, csum_offset=16), Checksum.VERIFIED, 0),
        (VnetHeader(flags=DATA_VALID), Checksum.VERIFIED, 0),
        (VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_TCPV4, gso_size=1448), Checksum.VERIFIED, 1448),
        (VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_TCPV4 | GSO_ECN, gso_size=1448), Checksum.VERIFIED, 1448),
    ],
)
def test_virtio_header_tells_of_checksum_and_size(
    host: Host, vnet: VnetHeader, checksum: Checksum, gso_size: int
) -> None:
    """NEEDS_CSUM and DATA_VALID both mean a checksum that need not be verified (virtio 1.2 5.1.6.4.2)."""
    host.frame(OUR_MAC + A_MAC + b"\x08\x00" + segment(A, US), vnet=vnet.serialize())
    (packet,) = host.up()
    assert (packet.checksum, packet.gso_size) == (checksum, gso_size)


# discards


@pytest.mark.parametrize("size", range(14))
def test_runt(size: int) -> None:
    """Shorter than an Ethernet header."""
    host = Host()
    host.assert_dropped(reasons.RUNT, host.frame((OUR_MAC + A_MAC + b"\x08\x00")[:size]))


@pytest.mark.parametrize("size", [0, 1, 19, 20, 39, 44])
def test_torn(size: int) -> None:
    """Fewer bytes than the IP header says, or than an IP header has."""
    host = Host()
    host.assert_dropped(reasons.TORN_FRAME, host.ethernet(segment(A, US, b"hello")[:size]))


def test_torn_place(host: Host) -> None:
    """A payload in the pool that is too short."""
    head = OUR_MAC + A_MAC + b"\x08\x00" + segment(A, US, length=5000)
    host.assert_dropped(reasons.TORN_FRAME, host.frame(head, Place("pool-1", 0, 69632, 54, 4999)))


def test_place_behind_an_incomplete_header(host: Host) -> None:
    """Headers never lie in shared memory; a frame that pretends so is refused."""
    frame = host.frame(OUR_MAC + A_MAC + b"\x08\x00\x45", Place("pool-1", 0, 69632, 15, 5000))
    host.assert_dropped(reasons.TORN_FRAME, frame)


def test_wrong_mac(host: Host) -> None:
    """For another station, as a bridge floods them."""
    host.assert_dropped(reasons.WRONG_MAC, host.ethernet(segment(A, US), dst=B_MAC))


@pytest.mark.parametrize("tag", [EtherType.VLAN, EtherType.QINQ])
def test_vlan(tag: int) -> None:
    """A tagged frame belongs to another network."""
    host = Host()
    host.assert_dropped(reasons.VLAN_TAG, host.ethernet(b"\x00\x05\x08\x00" + segment(A, US), kind=tag))


@pytest.mark.parametrize("kind", [EtherType.IPV6, EtherType.LLDP, 0x0026, 0xFFFF])
def test_foreign_ethertype(kind: int) -> None:
    """What is neither IPv4 nor ARP; an 802.3 length among it."""
    host = Host()
    host.assert_dropped(reasons.FOREIGN_TYPE, host.ethernet(bytes(60), kind=kind))


@pytest.mark.parametrize(
    "vnet",
    [
        b"\x01",
        VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_UDP, gso_size=1000).serialize(),
        VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_TCPV4, gso_size=0).serialize(),
    ],
)
def test_bad_virtio_header(vnet: bytes) -> None:
    """A virtio header cut short, of a kind that we did not offer to take, or without a size."""
    host = Host()
    frame = host.frame(OUR_MAC + A_MAC + b"\x08\x00" + segment(A, US), vnet=vnet)
    host.assert_dropped(reasons.BAD_VNET, frame)


def test_ip_judges_what_is_no_ipv4(host: Host) -> None:
    """An EtherType of IPv4 with another version inside goes up as it is: its verdict is ip's."""
    data = b"\x65" + segment(A, US, b"hello")[1:] + b"padding"
    host.ethernet(data)
    assert host.up()[0].head == data


def test_ip_judges_an_impossible_length(host: Host) -> None:
    """A total length below the header's goes up untrimmed."""
    data = segment(A, US, b"hello")
    data = data[:2] + b"\x00\x13" + data[4:]
    host.ethernet(data)
    assert host.up()[0].head == data


def test_no_room_above_is_a_drop() -> None:
    """A packet that ip has no room for cannot wait, as its slot in the pool cannot; news can."""
    host = Host()
    frames = [host.ethernet(segment(A, US)) for _ in range(3)]
    host.ip_up()
    out = host.core.outgoing({"ip": 2})
    assert [frame.causes for _, frame in out] == [[frames[0]], [frames[1]]]
    assert host.core.counters[reasons.PIPE_FULL.counter] == 1
    assert [type(frame).__name__ for frame in host.out()] == ["LinkState"]


def test_unknown_frame_is_our_fault(host: Host) -> None:
    """The shell hands in only what the core knows."""
    with pytest.raises(TypeError, match="int is no frame for link"):
        host.core.receive(5, host.now)


# tun


def test_tun_takes_bare_packets() -> None:
    """A device without Ethernet gives IP packets; there is no ARP."""
    host = Host(TUN)
    data = segment(A, US, b"hello")
    host.frame(data)
    (packet,) = host.up()
    assert (packet.head, packet.flags) == (data, 0)
    assert host.core.next_timer() is None


def test_tun_drops() -> None:
    """Nothing, another IP version, and a torn packet."""
    host = Host(TUN)
    frames = [host.frame(b""), host.frame(b"\x60" + bytes(39)), host.frame(segment(A, US)[:30])]
    assert host.drops() == [("runt", frames[0]), ("foreign_type", frames[1]), ("torn_frame", frames[2])]


# anything

_FRAMES = st.one_of(
    st.binary(max_size=120),
    st.builds(
        lambda dst, kind, rest: dst + A_MAC + kind + rest,
        st.sampled_from([OUR_MAC, MAC_BROADCAST, B_MAC]),
        st.sampled_from([b"\x08\x00", b"\x08\x06", b"\x81\x00", b"\x86\xdd"]),
        st.one_of(
            st.binary(max_size=80),
            st.builds(
                lambda data, at, byte: data[:at] + bytes((byte,)) + data[at + 1 :],
                st.sampled_from(
                    [
                        segment(A, US, b"hello"),
                        ArpPacket.request(sha=A_MAC, spa=A, tpa=US).serialize(),
                    ]
                ),
                st.integers(0, 44),
                st.integers(0, 255),
            ),
        ),
    ),
)
_VNETS = st.one_of(
    st.just(b""),
    st.binary(max_size=12),
    st.just(VnetHeader(flags=NEEDS_CSUM, gso_type=GSO_TCPV4, gso_size=10).serialize()),
)
_PLACES = st.builds(lambda n: Place("pool-1", 0, 69632, 0, n), st.integers(0, 69632))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(_FRAMES, st.one_of(st.just(b""), st.binary(max_size=60), _PLACES), _VNETS), max_size=8))
def test_no_frame_raises(frames: list[tuple[bytes, bytes | Place, bytes]]) -> None:
    """Whatever the device hands in: no exception, and every frame is accounted for."""
    for device in (None, TUN):
        host = Host(device) if device else Host()
        for data, payload, vnet in frames:
            host.frame(data, payload, vnet=vnet)
        packets = [frame for frame in host.out() if isinstance(frame, Packet)]
        counters = host.core.counters
        assert counters["rx_frames"] == len(frames)
        drops = sum(n for name, n in counters.items() if name.startswith("drop."))
        assert len(packets) + drops + counters["arp_received"] >= len(frames)
        for packet in packets:
            size = len(packet.head) + len(packet.payload)
            total = packet.head[2] << 8 | packet.head[3]
            assert size == total or total < 20 or packet.head[0] >> 4 != 4


def test_frame_ids_name_this_process(host: Host) -> None:
    """Ids never repeat and carry our process code and epoch."""
    host.ethernet(segment(A, US))
    host.ethernet(segment(A, US))
    ids = [packet.id for packet in host.up()]
    assert len(set(ids)) == 2 and all(one >> 60 == 1 and one >> 40 & 0xFFFFF == 7 for one in ids)


def test_nobody_listening_no_events() -> None:
    """Without interest there are counters and no events."""
    host = Host()
    host.core.interest = False
    host.core.receive(DeviceFrame(1, [], b"", b""), host.now)
    assert host.core.events() == [] and host.core.counters["drop.runt"] == 1
