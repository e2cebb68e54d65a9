"""What comes from outside is judged before anything acts on it, each verdict with its own name."""

from __future__ import annotations

import pytest
from ip_host import DIRECTED, FAR, LIMITED, OWN, PEER, TCP_HEAD, Host, packet, read_icmp

from layers.ip.validate import check_header, check_options
from levelip.frames.packet import BROADCAST, Packet
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.checksum import internet_checksum
from levelip.wire.ipv4 import Ipv4Header, Proto

PLACE = Place("pool", 0, 65_536, 54, 9000)


def patched(at: int, value: bytes, *, sum_right: bool = True) -> Packet:
    """A packet whose header bytes from `at` are `value`; its checksum made right again."""
    made = packet()
    head = bytearray(made.head)
    head[at : at + len(value)] = value
    if sum_right:
        head[10:12] = bytes(2)
        head[10:12] = internet_checksum(bytes(head[: max((head[0] & 15) * 4, 20)])).to_bytes(2, "big")
    made.head = bytes(head)
    return made


@pytest.mark.rfc("RFC 791 3.1")
@pytest.mark.parametrize("size", [1, 10, 19])
def test_shorter_than_a_header(host: Host, size: int) -> None:
    """RFC 791 3.1: what ends within the 20 bytes is no IPv4 packet."""
    cut = packet()
    cut.head = cut.head[:size]
    host.dropped(cut, reasons.IP_TRUNCATED)


def test_nothing_at_all(host: Host) -> None:
    """An empty frame is counted, not fatal."""
    empty = packet()
    empty.head = b""
    host.dropped(empty, reasons.IP_TRUNCATED)


def test_options_cut_off(host: Host) -> None:
    """An IHL that reaches beyond the packet."""
    cut = packet(b"", options=bytes(40))
    cut.head = cut.head[:30]
    host.dropped(cut, reasons.IP_TRUNCATED)


@pytest.mark.rfc("RFC 1122 3.2.1.1-1", "RFC 791 3.1-1")
@pytest.mark.parametrize("version", [0, 5, 6, 15])
def test_other_versions(host: Host, version: int) -> None:
    """RFC 1122 3.2.1.1: a version other than 4 is silently discarded (IPv6 is common on a tun)."""
    host.dropped(patched(0, bytes((version << 4 | 5,))), reasons.IP_VERSION)


def test_ipv6_is_not_called_damaged(host: Host) -> None:
    """An IPv6 packet, whose traffic class stands where IPv4 has its IHL, is of another version and not malformed."""
    host.dropped(Packet(1, [], False, 0, 1, b"\x60" + bytes(47), b"", 0, 0), reasons.IP_VERSION)


@pytest.mark.rfc("RFC 791 3.1-1")
@pytest.mark.parametrize("ihl", [0, 1, 4])
def test_header_length_below_five_words(host: Host, ihl: int) -> None:
    """RFC 791 3.1: the minimum of IHL is 5."""
    host.dropped(patched(0, bytes((0x40 | ihl,))), reasons.IP_HEADER_LENGTH)


@pytest.mark.rfc("RFC 1122 3.2.1.2-1")
@pytest.mark.parametrize("at", [1, 2, 5, 8, 12, 19])
def test_every_byte_is_under_the_checksum(host: Host, at: int) -> None:
    """RFC 1122 3.2.1.2: a host MUST verify the header checksum, whatever the device says of the transport's."""
    made = packet()
    head = bytearray(made.head)
    head[at] ^= 0x10
    made.head = bytes(head)
    host.dropped(made, reasons.IP_CHECKSUM)


def test_total_length_below_the_header(host: Host) -> None:
    """A total length of 19 bytes cannot hold the header."""
    host.dropped(patched(2, (19).to_bytes(2, "big")), reasons.IP_TOTAL_LENGTH)


def test_torn_packet(host: Host) -> None:
    """Fewer bytes than the total length says: the tail was lost on the way."""
    torn = packet(TCP_HEAD + b"0123456789")
    torn.head = torn.head[:-1]
    host.dropped(torn, reasons.IP_TORN)


def test_torn_payload_in_shared_memory(host: Host) -> None:
    """The same where the payload lies in the pool."""
    torn = packet(place=PLACE)
    torn.payload = PLACE.slice(0, PLACE.length - 1)
    host.dropped(torn, reasons.IP_TORN)


@pytest.mark.rfc("RFC 1122 3.2.1.7-2")
@pytest.mark.parametrize("ttl", [0, 1])
def test_any_ttl_is_good_for_us(host: Host, ttl: int) -> None:
    """RFC 1122 3.2.1.7: a host must not discard a datagram just because its TTL is below 2."""
    assert host.delivered(packet(ttl=ttl)).ttl == ttl


@pytest.mark.rfc("RFC 1122 4.1.3.6-1")
@pytest.mark.rfc("RFC 9293 MUST-63", "RFC 1122 3.2.1.3-4")
@pytest.mark.parametrize(
    "src", [LIMITED, DIRECTED, bytes((10, 0, 0, 0)), bytes((224, 0, 0, 1)), bytes((239, 1, 2, 3)), bytes(4),
            bytes((0, 1, 2, 3)), bytes((127, 0, 0, 1)), bytes((127, 9, 9, 9)), bytes((240, 0, 0, 1))],
)  # fmt: skip
def test_martian_sources(host: Host, src: bytes) -> None:
    """RFC 1122 3.2.1.3: broadcast, multicast, reserved (240/4), 0/8 and 127/8 are no source."""
    host.dropped(packet(src=src), reasons.MARTIAN_SOURCE)


def test_our_own_address_from_outside(host: Host) -> None:
    """A packet that claims to come from us did not."""
    host.dropped(packet(src=OWN), reasons.OWN_SOURCE)


@pytest.mark.rfc("RFC 1122 3.2.1.3-3")
@pytest.mark.parametrize("dst", [bytes((127, 0, 0, 1)), bytes((127, 5, 5, 5)), bytes(4), bytes((0, 0, 0, 9))])
def test_martian_destinations(host: Host, dst: bytes) -> None:
    """RFC 1122 3.2.1.3 g: 127/8 MUST NOT appear outside a host; nor is 0/8 a destination."""
    host.dropped(packet(dst=dst), reasons.MARTIAN_DEST)


@pytest.mark.rfc("RFC 1122 3.2.1.3-3", "RFC 1122 3.2.2.2-1", "RFC 1122 3.1-8")
@pytest.mark.parametrize("dst", [FAR, PEER, bytes((10, 0, 0, 3)), bytes((10, 0, 1, 2))])
def test_not_forwarded(host: Host, dst: bytes) -> None:
    """RFC 1122 3.2.1.3: what is for somebody else is silently discarded; we are no router."""
    host.dropped(packet(dst=dst, src=bytes((10, 0, 0, 9))), reasons.NOT_FOR_US)


@pytest.mark.rfc("RFC 1112 7.2")
def test_multicast_group_not_joined(host: Host) -> None:
    """RFC 1112 7.2: a group that we have not joined."""
    host.dropped(packet(dst=bytes((224, 0, 0, 251)), proto=Proto.UDP), reasons.MULTICAST_UNJOINED)


@pytest.mark.rfc("RFC 1122 3.3.6-6")
def test_link_broadcast_with_a_single_address(host: Host) -> None:
    """RFC 1122 3.3.6: SHOULD discard a link-level broadcast whose IP destination is a single host."""
    host.dropped(packet(link_flags=BROADCAST), reasons.LINK_BROADCAST)


@pytest.mark.rfc("RFC 1122 3.3.6-4")
@pytest.mark.parametrize("dst", [LIMITED, DIRECTED, bytes((10, 0, 0, 0))])
def test_our_broadcasts_are_for_us(host: Host, dst: bytes) -> None:
    """RFC 1122 3.3.6: limited and directed broadcasts, all ones and the old all zeros, reach the transport as such."""
    assert host.delivered(packet(dst=dst, link_flags=BROADCAST)).flags == BROADCAST


def test_headers_in_shared_memory(host: Host) -> None:
    """A core reads no shared memory: a header there is a mistake of link, refused."""
    host.dropped(Packet(1, [], False, 0, 1, bytes(10), PLACE, 2, 0), reasons.IP_NOT_INLINE)


# options


@pytest.mark.rfc("RFC 9293 MUST-50", "RFC 1122 3.2.1.8-3", "RFC 791 3.1-6")
@pytest.mark.parametrize(
    "options",
    [
        bytes((7, 3, 4, 0)),  # record route without room
        bytes((1, 1, 1, 1)),
        bytes((148, 4, 0, 0)),  # router alert
        bytes((99, 6, 1, 2, 3, 4, 0, 0)),  # nobody knows it
    ],
)
def test_options_are_skipped(host: Host, options: bytes) -> None:
    """RFC 1122 3.2.1.8: options that we do not act on are ignored, the transport gets what follows them."""
    assert host.delivered(packet(options=options)).head == TCP_HEAD


@pytest.mark.rfc("RFC 1122 3.2.2.5-1", "RFC 792 5-1")
@pytest.mark.parametrize(
    ("options", "pointer"),
    [(bytes((7, 41, 4, 0)), 20), (bytes((1, 68, 1, 0)), 21), (bytes((1, 1, 1, 7)), 23), (bytes((131, 3, 1, 0)), 22),
     (bytes((137, 2, 0, 0)), 21), (bytes((7, 2, 0, 0)), 21), (bytes((7, 7, 5, 0, 0, 0, 0, 0)), 22),
     (bytes((68, 3, 5, 0)), 21), (bytes((68, 4, 4, 0)), 22), (bytes((68, 8, 5, 2, 0, 0, 0, 0)), 23),
     (bytes((68, 8, 5, 1, 0, 0, 0, 0)), 22), (bytes((148, 3, 0, 0)), 21)],
)  # fmt: skip
def test_bad_options_are_reported(host: Host, options: bytes, pointer: int) -> None:
    """RFC 1122 3.2.2.5: an option that does not fit brings a parameter problem that points at it."""
    [(port, out)] = host.dropped(packet(options=options), reasons.IP_OPTION, silent=False)
    assert port == "link"
    header, message = read_icmp(out)
    assert (message.type, message.code, message.pointer) == (icmp.PARAMETER_PROBLEM, 0, pointer)
    assert header.dst == PEER and message.payload[20 : 20 + len(options)] == options


@pytest.mark.parametrize("kind", [131, 137])
@pytest.mark.parametrize("pointer", [4, 8], ids=["goes on", "ends here"])
@pytest.mark.rfc("RFC 1122 3.3.5", "RFC 7126 4.3", "RFC 7126 4.4")
def test_source_routes_are_refused(host: Host, kind: int, pointer: int) -> None:
    """RFC 7126 4.3, 4.4: in silence, whether hops are left, which would have us forward (RFC 1122 3.3.5), or not."""
    host.dropped(packet(options=bytes((kind, 7, pointer, 10, 0, 0, 9, 0))), reasons.IP_SOURCE_ROUTED)
    assert host.core.counters["option.source_route"] == 1


def test_options_are_counted(host: Host) -> None:
    """Who records routes or asks for timestamps is seen in the counters."""
    host.feed(packet(options=bytes((7, 7, 4, 0, 0, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0, 0))))
    assert host.core.counters["option.record_route"] == 1
    assert host.core.counters["option.timestamp"] == 1


@pytest.mark.rfc("RFC 791 3.1-6")
def test_what_follows_the_end_of_options_is_padding() -> None:
    """RFC 791 3.1: END ends the list; bytes after it are not read as options."""
    assert check_options(bytes((0, 7, 200, 9))).reason is None


def test_header_comes_back_whole() -> None:
    """A header that passes is given as it is, options and reserved bit too."""
    data = Ipv4Header.build(PEER, OWN, proto=6, payload_length=3, flags=4, options=bytes((1, 1, 1, 0)))
    header = check_header(data.serialize(fill_checksum=True), 27)
    assert isinstance(header, Ipv4Header)
    assert (header.flags, header.options, header.total_length) == (4, bytes((1, 1, 1, 0)), 27)
