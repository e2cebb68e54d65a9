"""What RFC 768, RFC 1122 4.1 and RFC 8085 ask of a host's UDP, where no other test says it (tests/rfc)."""

from __future__ import annotations

import errno
import itertools
import random

import pytest

from layers.udp.config import UdpCoreConfig
from layers.udp.core import UdpCore
from layers.udp.endpoints import ANY
from levelip.frames.packet import BROADCAST, PROBE, Segment
from levelip.frames.seam import Bind, Datagram, OpenDatagram, SetOption
from levelip.wire.checksum import internet_checksum, pseudo_header_sum
from levelip.wire.udp import UdpHeader
from tests.unit.udp.udp_host import GROUP, LOOPBACK, OURS, ROUTES, THEIRS, UdpHost, datagram, icmp_error


@pytest.fixture
def host() -> UdpHost:
    return UdpHost()


def sent(host: UdpHost) -> Segment:
    (segment,) = [one for one in host.out("ip") if isinstance(one, Segment)]
    return segment


def how(host: UdpHost) -> tuple[int, int]:
    """TTL and TOS of what was sent."""
    segment = sent(host)
    return segment.ttl, segment.tos


@pytest.mark.rfc("RFC 768 fields-1")
def test_a_source_port_of_zero_is_none(host: UdpHost) -> None:
    """ "If not used, a value of zero is inserted": the datagram is taken, and the application sees port 0."""
    host.socket(1, port=53)
    host.feed(datagram(b"from nobody", 53, sport=0))
    (got,) = [one for one in host.out("gateway") if isinstance(one, Datagram)]
    assert (got.port, got.payload) == (0, b"from nobody")


@pytest.mark.rfc("RFC 768 checksum-1", "RFC 1122 4.1.3.4-1")
@pytest.mark.parametrize("size", [0, 1, 2, 3, 1471, 1472, 65_507])
def test_the_checksum_of_any_length(host: UdpHost, size: int) -> None:
    """Padded with a zero byte where the length is odd; what we send we also take."""
    host.socket(1, port=5000)
    payload = random.Random(size).randbytes(size)
    host.send(1, payload, THEIRS, 4000)
    out = sent(host)
    data = out.head + out.payload  # type: ignore[operator]
    assert UdpHeader.parse(data).length == 8 + size == len(data)
    assert internet_checksum(data + bytes(size % 2), pseudo_header_sum(OURS, THEIRS, 17, 8 + size)) == 0
    host.feed(datagram(payload, 5000))
    assert [one.payload for one in host.out("gateway") if isinstance(one, Datagram)] == [payload]


@pytest.mark.rfc("RFC 1122 4.1.3.4-2")
def test_any_bit_that_flips_is_seen(host: UdpHost) -> None:
    """In header, data and addresses; nobody hears of it, and nothing is answered."""
    host.socket(1, port=53)
    right = datagram(b"some data", 53)
    data = right.head + right.payload  # type: ignore[operator]
    for bit in range(len(data) * 8):
        wrong = bytearray(data)
        wrong[bit // 8] ^= 0x80 >> bit % 8
        if bytes(wrong[6:8]) == b"\0\0":
            continue  # that says that there is none
        damaged = datagram(b"some data", 53)
        damaged.head, damaged.payload = bytes(wrong[:8]), bytes(wrong[8:])
        host.feed(damaged)
    moved = datagram(b"some data", 53)
    moved.src = bytes((10, 0, 0, 9))
    host.feed(moved)
    assert [one for one in host.out("gateway") if isinstance(one, Datagram)] == []
    assert host.out("ip") == []


@pytest.mark.rfc("RFC 768 interface-1", "RFC 8085 5.1-2")
def test_a_receive_port_is_made(host: UdpHost) -> None:
    """bind(): the port that is named; with 0 one that is free, never 0 itself."""
    assert host.socket(1, port=53) == 53
    assert host.socket(2, address=OURS) >= 32_768
    host.feed(datagram(b"x", 0))
    assert [one for one in host.out("gateway") if isinstance(one, Datagram)] == []


@pytest.mark.rfc("RFC 768 interface-3", "RFC 1122 4.1.3.5-2")
def test_both_ends_are_the_applications_to_choose(host: UdpHost) -> None:
    """Port and address of ours by bind(), the address also for one datagram (IP_PKTINFO); the other end by sendto(). An
    address that is not ours is none to choose."""
    host.socket(1, port=5000, address=OURS)
    host.send(1, b"x", THEIRS, 4000)
    out = sent(host)
    header = UdpHeader.parse(out.head)
    assert (out.src, header.src_port, out.dst, header.dst_port) == (OURS, 5000, THEIRS, 4000)
    host.socket(2, port=5001)
    assert host.send(2, b"x", LOOPBACK, 4000, source=OURS).errno == 0
    assert sent(host).src == OURS
    assert host.send(2, b"x", THEIRS, 4000, source=THEIRS).errno == errno.EINVAL
    assert host.send(2, b"x", THEIRS, 4000, source=bytes(4)).errno == 0
    assert sent(host).src == OURS  # no source is given by 0.0.0.0
    assert host.call(Bind(1, 3, THEIRS, 1)).errno == errno.EBADF


@pytest.mark.rfc("RFC 1122 4.1.3.5-3", "RFC 1122 4.1.3.5-4")
def test_a_wildcard_takes_the_routes_source(host: UdpHost) -> None:
    """Each datagram has the address of the way that it goes; connect() fixes one and says which."""
    host.socket(1, port=5000)
    for dst, source in ((THEIRS, OURS), (LOOPBACK, LOOPBACK)):
        host.send(1, b"x", dst, 4000)
        assert sent(host).src == source
    assert host.connect(1, THEIRS, 4000).data == {"address": OURS, "port": 5000}


@pytest.mark.rfc("RFC 1122 4.1.3.6-2")
def test_a_group_is_no_source(host: UdpHost) -> None:
    """Who is bound to the address of a group, or a broadcast address (as Linux lets one), sends from one of ours."""
    for number, address in enumerate((GROUP, b"\x0a\0\0\xff", b"\xff\xff\xff\xff"), 1):
        host.socket(number, port=5000 + number, address=address)
        host.send(number, b"x", THEIRS, 4000)
        assert sent(host).src == OURS


def test_0_0_0_0_is_this_host(host: UdpHost) -> None:
    """As a destination it leads to the datagram's own source (IP_PKTINFO), else to the address that bind() chose, else
    to loopback (Linux ip_route_output_key)."""
    for number, (address, there) in enumerate(((ANY, LOOPBACK), (OURS, OURS), (GROUP, LOOPBACK)), 1):
        host.socket(number, port=5000 + number, address=address)
        host.send(number, b"x", ANY, 4000)
        assert sent(host).dst == there
        host.send(number, b"x", ANY, 4000, source=OURS)
        out = sent(host)
        assert (out.src, out.dst) == (OURS, OURS)


@pytest.mark.rfc("RFC 1122 4.1.4-1", "RFC 8085 3.1.7-1", "RFC 8085 3.1.8-1")
def test_ttl_and_type_of_service(host: UdpHost) -> None:
    """Of the socket (IP_TTL, IP_TOS) and of one datagram; DSCP and ECN field alike; 0 leaves the TTL to ip."""
    host.socket(1, port=5000)
    host.send(1, b"x", THEIRS, 4000)
    assert how(host) == (0, 0)
    for name, value in (("ttl", 9), ("tos", 0xB8 | 2)):
        host.feed(SetOption(1, name, value))
    host.send(1, b"x", THEIRS, 4000)
    assert how(host) == (9, 0xBA)
    host.send(1, b"x", THEIRS, 4000, ttl=1, tos=3)
    assert how(host) == (1, 3)


@pytest.mark.rfc("RFC 8085 3.2-3")
def test_a_probe_goes_beyond_what_is_believed(host: UdpHost) -> None:
    """IP_PMTUDISC_PROBE: DF set, the learned path MTU passed over, the device's not."""
    host.socket(1, port=5000, mtu_discover=3)
    host.feed(icmp_error(3, 4, port=5000, mtu=1000))
    host.out("ip")
    assert host.send(1, bytes(1472), THEIRS, 4000).errno == 0
    out = sent(host)
    assert out.dont_fragment and out.flags == PROBE, "ip passes its own knowledge over, too"
    assert host.send(1, bytes(1473), THEIRS, 4000).errno == errno.EMSGSIZE


@pytest.mark.rfc("RFC 8085 5.1-1", "RFC 8085 5.1-3")
def test_source_ports_are_random() -> None:
    """RFC 6056 3.3.1: another one for each socket and each start of the process, all over the range, and never 0."""
    chosen = []
    for seed in (1, 2):
        core = UdpCore(UdpCoreConfig(epoch=7), random.Random(seed), 0)
        core.receive(ROUTES, 0)
        for sock in range(100):
            core.receive(OpenDatagram(sock, 17), 1)
            core.receive(Bind(sock + 1, sock, b"", 0), 1)
        chosen.append([frame.data["port"] for _, frame in core.outgoing({}) if getattr(frame, "request", 0)])
    for ports in chosen:
        assert len(set(ports)) == 100 and min(ports) >= 32_768 and max(ports) <= 60_999
        steps = {later - earlier for earlier, later in itertools.pairwise(ports)}
        assert len(steps) > 90, "no pattern"
        assert max(ports) - min(ports) > 20_000
    assert len(set(chosen[0]) & set(chosen[1])) < 5


@pytest.mark.rfc("RFC 1122 4.1.3.1-1")
def test_no_error_for_a_group_or_broadcast_where_nobody_is(host: UdpHost) -> None:
    """Port unreachable is for what was sent to us alone (RFC 1122 3.2.2)."""
    host.feed(datagram(b"x", 9, dst=GROUP, flags=BROADCAST))
    assert host.out("ip") == []
