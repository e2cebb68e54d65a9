"""Upward: what tcp gets of a packet from outside."""

from __future__ import annotations

import pytest
from ip_host import DIRECTED, EPOCH, OWN, PEER, TCP_HEAD, Host, packet, read_icmp

from levelip.frames.packet import Checksum, Process
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.ipv4 import FLAG_DF, Proto

PLACE = Place("pool", 65_536, 65_536, 54, 9000, 3)


@pytest.mark.rfc("RFC 1122 3.2.1.6-2", "RFC 1122 3.4-2")
def test_segment_tells_all_of_the_packet(host: Host) -> None:
    """Addresses, protocol, TTL, TOS, DF, checksum state, trace bit and ingress time pass; the frame is the cause."""
    got = host.delivered(
        packet(TCP_HEAD + b"hello", ttl=9, tos=0x2E, flags=0, gso_size=0, checksum=Checksum.UNVERIFIED)
    )
    assert (got.src, got.dst, got.proto, got.ttl, got.tos) == (PEER, OWN, Proto.TCP, 9, 0x2E)
    assert got.head + got.payload == TCP_HEAD + b"hello"  # type: ignore[operator]
    assert (got.checksum, got.traced, got.ingress, got.iface, got.flags) == (Checksum.UNVERIFIED, True, 1234, 1, 0)
    assert got.causes == [77]
    assert got.id >> 60 == Process.IP and got.id >> 40 & 0xFFFFF == EPOCH
    assert not got.dont_fragment


def test_dont_fragment_passes(host: Host) -> None:
    """The DF bit is told to the transport."""
    assert host.delivered(packet(flags=FLAG_DF)).dont_fragment


@pytest.mark.parametrize("head_size", range(46))
def test_any_split_of_inline_bytes(host: Host, head_size: int) -> None:
    """Head and payload may part anywhere while the payload is bytes: the segment is the same."""
    got = host.delivered(packet(TCP_HEAD + b"hello", head_size=head_size))
    assert isinstance(got.payload, bytes)
    assert got.head + got.payload == TCP_HEAD + b"hello"


def test_payload_in_the_pool_passes_untouched(host: Host) -> None:
    """A super-segment's payload stays where it is; the head holds exactly the TCP header (DESIGN 3)."""
    got = host.delivered(packet(place=PLACE, gso_size=1448))
    assert (got.head, got.payload, got.gso_size) == (TCP_HEAD, PLACE, 1448)


@pytest.mark.rfc("RFC 894 padding")
@pytest.mark.parametrize("trailer", [1, 6, 26])
def test_padding_is_cut_off(host: Host, trailer: int) -> None:
    """RFC 894: Ethernet pads short packets; what lies beyond the total length is not payload."""
    for head_size in (20, 40, 41, 46, 47):
        got = host.delivered(packet(TCP_HEAD + b"hello", trailer=b"\xaa" * trailer, head_size=head_size))
        assert got.head + got.payload == TCP_HEAD + b"hello"  # type: ignore[operator]


def test_padding_in_the_pool_is_cut_off(host: Host) -> None:
    """The same where the payload lies in shared memory."""
    made = packet(place=PLACE)
    made.payload = Place("pool", 65_536, 65_536, 54, 9004, 3)
    assert host.delivered(made).payload == PLACE


@pytest.mark.rfc("RFC 1122 3.1-9")
def test_counters_add_up(host: Host) -> None:
    """Packets, bytes and deliveries are counted whether or not somebody listens."""
    host.core.interest = False
    for _ in range(3):
        host.feed(packet(TCP_HEAD + b"hello"))
    host.feed(packet(TCP_HEAD, proto=99))
    counters = host.core.counters
    assert (counters["in.packets"], counters["in.bytes"], counters["in.delivered"]) == (4, 3 * 45 + 40, 3)
    assert host.core.events() == []


@pytest.mark.rfc(
    "RFC 1122 3.2.2.1-1", "RFC 1122 3.2.2-2", "RFC 1122 3.2.2-3", "RFC 792 3-1", "RFC 792 2-2", "RFC 1122 3.3.8-1",
    "RFC 4884 4-3", "RFC 1812 4.3.2.3-1",
)  # fmt: skip
def test_protocol_unreachable(host: Host) -> None:
    """RFC 1122 3.2.2.1: a protocol that nobody speaks is answered, quoting the header and what fits."""
    [(_, out)] = host.dropped(packet(b"x" * 600, proto=132, tos=0x10), reasons.NO_PROTOCOL, silent=False)
    header, message = read_icmp(out)
    assert (message.type, message.code) == (icmp.DEST_UNREACH, icmp.PROT_UNREACH)
    assert (header.src, header.dst, header.tos) == (OWN, PEER, 0)  # RFC 1122 3.2.2: TOS 0 in errors
    assert header.total_length == 576  # RFC 1812 4.3.2.3: as much as fits without exceeding 576
    assert message.payload[9] == 132 and message.payload[20:] == b"x" * 528
    assert out.causes == [77]


def test_protocol_unreachable_for_a_payload_in_the_pool() -> None:
    """Only the inline headers are quoted where the payload is out of reach."""
    host = Host(transports={})
    [(_, out)] = host.dropped(packet(place=PLACE), reasons.NO_PROTOCOL, silent=False)
    _, message = read_icmp(out)
    assert message.payload[20:] == TCP_HEAD


@pytest.mark.rfc("RFC 1122 3.2.2-7", "RFC 1122 3.2.2-8", "RFC 1122 3.2.2-10")
@pytest.mark.parametrize(
    "fields",
    [
        {"dst": b"\xff" * 4, "link_flags": 1},
        {"dst": bytes((10, 0, 0, 255))},
        {"link_flags": 1, "dst": DIRECTED},
    ],
)
def test_when_no_error_may_be_sent(host: Host, fields: dict[str, object]) -> None:
    """RFC 1122 3.2.2: never about a broadcast, nor to a source that is no single host."""
    assert host.dropped(packet(proto=132, **fields), reasons.NO_PROTOCOL) == []  # type: ignore[arg-type]
    assert host.core.counters[reasons.ICMP_NOT_ALLOWED.counter] == 1


@pytest.mark.rfc("RFC 1812 4.3.2.8-2", "RFC 1812 4.3.2.8-3")
def test_errors_are_rate_limited() -> None:
    """RFC 1812 4.3.2.8: a burst, then so many a second by stack time."""
    host = Host(icmp_burst=3, icmp_rate_per_s=2, icmp_ratelimit_ms=0)

    def answered(n: int) -> int:
        return sum(len(host.feed(packet(proto=132))) for _ in range(n))

    assert answered(10) == 3
    assert host.core.counters[reasons.ICMP_RATE_LIMITED.counter] == 7
    host.now += 499_999_999
    assert answered(1) == 0
    host.now += 1
    assert answered(2) == 1  # half a second at two a second
    host.now += 60_000_000_000
    assert answered(10) == 3  # no more than the burst is saved up


def test_rate_zero_sends_none() -> None:
    """icmp_rate_per_s = 0 turns errors off altogether."""
    host = Host(icmp_rate_per_s=0)
    assert host.feed(packet(proto=132)) == []
