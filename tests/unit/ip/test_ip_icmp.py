"""ICMP that comes in: echo requests, errors about what we sent, and all that is to be ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ip_host import DIRECTED, FAR, LIMITED, LOOPBACK, OWN, PEER, TCP_HEAD, Host, icmp_packet, packet, quote_of, segment

from layers.ip.icmp import may_report, parse_quote
from layers.ip.limits import DESTINATIONS_LIMIT, NANOSECONDS, DestinationLimit, TokenBucket
from levelip.frames.packet import Checksum
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.tracing.reasons import Reason
from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import Ipv4Header, Proto

ROUTER = bytes((203, 0, 113, 1))


def echo(size: int = 56) -> IcmpMessage:
    return IcmpMessage.echo_request(ident=0x1234, sequence=7, payload=bytes(i & 255 for i in range(size)))


@pytest.mark.rfc(
    "RFC 1122 3.1-1", "RFC 1122 3.2.2.6-1", "RFC 1122 3.2.2.6-5", "RFC 1122 3.2.2.6-6", "RFC 792 6-1", "RFC 792 6-2",
)  # fmt: skip
@pytest.mark.parametrize("size", [0, 1, 8, 56, 1472])
def test_echo_is_answered(host: Host, size: int) -> None:
    """RFC 1122 3.2.2.6: every host MUST answer, with all the data, from the address that was asked, with its TOS."""
    out = host.sent(icmp_packet(echo(size), tos=0x2C, ttl=3))
    header, reply = (Ipv4Header.parse(out.head), IcmpMessage.parse(out.head + out.payload, 20))  # type: ignore[operator]
    assert reply.type == icmp.ECHO_REPLY and reply.checksum_ok
    assert (reply.ident, reply.sequence, reply.payload) == (0x1234, 7, echo(size).payload)
    assert (header.src, header.dst, header.tos, header.ttl) == (OWN, PEER, 0x2C, 64)
    assert out.next_hop == PEER and out.causes == [77] and out.traced and out.ingress == 1234


@pytest.mark.parametrize("head_size", [20, 24, 28, 60])
def test_echo_however_it_is_split(host: Host, head_size: int) -> None:
    """Head and payload may part anywhere."""
    _, reply = host.replied(icmp_packet(echo(), head_size=head_size))
    assert reply.payload == echo().payload


def test_large_echo() -> None:
    """Requests of more than 2 KB, where the MTU allows them, come as bytes and are answered whole."""
    host = Host(mtu=9000)
    _, reply = host.replied(icmp_packet(echo(8000), head_size=54))
    assert reply.payload == echo(8000).payload


def test_echo_of_a_far_host_goes_to_the_gateway(host: Host) -> None:
    """The answer is routed like any packet."""
    assert host.sent(icmp_packet(echo(), src=FAR)).next_hop == PEER


@pytest.mark.rfc("RFC 791 3.1", "RFC 1122 3.2.2.6-8", "RFC 1122 3.2.1.8d-1", "RFC 1122 3.2.1.8e-1")
@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        # record route with room for two: we are the first, then the second, then there is no room
        ("070b04 00000000 00000000 00", "070b08 0a000002 00000000 00"),
        ("070b08 c0000201 00000000 00", "070b0c c0000201 0a000002 00"),
        ("070b0c c0000201 c0000202 00", "070b0c c0000201 c0000202 00"),
        # timestamps alone: 1,000 ms of stack time, not by UT; full: the overflow is counted
        ("44080500 00000000", "44080900 800003e8"),
        ("44080900 00000001", "44080910 00000001"),
        # addresses and timestamps
        ("440c0501 00000000 00000000", "440c0d01 0a000002 800003e8"),
        # prescribed addresses: ours, and somebody else's
        ("440c0503 0a000002 00000000", "440c0d03 0a000002 800003e8"),
        ("440c0503 c0000201 00000000", "440c0503 c0000201 00000000"),
        # what is for routers is not returned
        ("94040000", ""),
    ],
)
def test_echo_reply_reflects_options(host: Host, asked: str, answered: str) -> None:
    """RFC 1122 3.2.2.6: record route and timestamp come back in the reply, this host added."""
    header, reply = host.replied(icmp_packet(echo(), options=bytes.fromhex(asked)))
    assert header.options == bytes.fromhex(answered)
    assert reply.payload == echo().payload


def test_echo_turned_off() -> None:
    """ip.echo_reply = false: silence, counted."""
    Host(echo_reply=False).dropped(icmp_packet(echo()), reasons.ICMP_ECHO_OFF)


@pytest.mark.rfc("RFC 1122 3.2.2.6-3", "RFC 1122 3.2.2.8-3")
@pytest.mark.parametrize("dst", [LIMITED, DIRECTED])
@pytest.mark.parametrize(
    "message", [echo(), IcmpMessage.echo_reply(echo()), IcmpMessage.dest_unreachable(1, quote_of())]
)
def test_no_icmp_by_broadcast(host: Host, dst: bytes, message: IcmpMessage) -> None:
    """RFC 1122 3.2.2.6 lets us ignore broadcast requests, as Linux does; the others are never rightly broadcast."""
    host.dropped(icmp_packet(message, dst=dst, link_flags=1), reasons.ICMP_GROUP)


@pytest.mark.rfc("RFC 792 2-1")
def test_wrong_checksum(host: Host) -> None:
    """ICMP's checksum is verified whatever the device said, which knows of TCP and UDP only."""
    host.dropped(icmp_packet(echo(), spoil=True, checksum=Checksum.VERIFIED), reasons.ICMP_CHECKSUM)


@pytest.mark.parametrize("size", range(8))
def test_too_short(host: Host, size: int) -> None:
    """An ICMP header has 8 bytes."""
    host.dropped(packet(bytes(size), proto=Proto.ICMP), reasons.ICMP_TRUNCATED)


def test_in_shared_memory(host: Host) -> None:
    """link puts only TCP's payload into the pool; ICMP there would have to be read by the core, which must not."""
    host.dropped(packet(bytes(8), proto=Proto.ICMP, place=Place("pool", 0, 65_536, 0, 3000)), reasons.IP_NOT_INLINE)


@pytest.mark.rfc("RFC 1122 3.2.2-1", "RFC 1122 3.2.2.7-1", "RFC 1122 3.2.2.9-9")
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (IcmpMessage(icmp.SOURCE_QUENCH, 0, bytes(4), quote_of()), reasons.ICMP_SOURCE_QUENCH),  # RFC 6633 3
        (IcmpMessage(icmp.TIMESTAMP, 0, bytes(4), bytes(11)), reasons.ICMP_TRUNCATED),
        (IcmpMessage(icmp.TIMESTAMP_REPLY, 0, bytes(4), bytes(12)), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(icmp.INFO_REQUEST), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(icmp.INFO_REPLY), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(icmp.ADDRESS_MASK), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(icmp.ADDRESS_MASK_REPLY), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(icmp.ROUTER_ADVERTISEMENT), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(icmp.ROUTER_SOLICITATION), reasons.ICMP_UNSUPPORTED),
        (IcmpMessage(77), reasons.ICMP_UNKNOWN_TYPE),
        (IcmpMessage(255, 255), reasons.ICMP_UNKNOWN_TYPE),
        (IcmpMessage.echo_reply(echo()), reasons.ICMP_UNASKED),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else f"type{value.type}",
)
def test_ignored(host: Host, message: IcmpMessage, reason: Reason) -> None:
    """RFC 1122 3.2.2: unknown types are silently discarded, and so is what we need not act on; each is counted."""
    host.dropped(icmp_packet(message), reason)


ERRORS = [
    IcmpMessage.dest_unreachable(code, quote_of(), mtu=1280 if code == icmp.FRAG_NEEDED else 0) for code in range(17)
] + [
    IcmpMessage.time_exceeded(0, quote_of()),
    IcmpMessage.time_exceeded(1, quote_of()),
    IcmpMessage.parameter_problem(20, quote_of()),
]


@pytest.mark.rfc(
    "RFC 1122 3.2.2.1-2", "RFC 1122 3.2.2.4-1", "RFC 1122 3.2.2.5-2", "RFC 1122 3.2.2-4", "RFC 1122 3.4-5",
    "RFC 1122 3.4-6",
)  # fmt: skip
@pytest.mark.parametrize("message", ERRORS, ids=lambda m: f"{m.type}-{m.code}")
def test_errors_reach_the_transport(host: Host, message: IcmpMessage) -> None:
    """RFC 1122 3.2.2.1, .4, .5: unreachable, time exceeded and parameter problem MUST reach the transport."""
    error = host.told(icmp_packet(message, src=ROUTER))
    assert (error.icmp_type, error.icmp_code, error.reporter) == (message.type, message.code, ROUTER)
    assert (error.src, error.dst, error.proto, error.head) == (OWN, FAR, Proto.TCP, TCP_HEAD)
    assert error.mtu == (1280 if message.code == icmp.FRAG_NEEDED and message.type == icmp.DEST_UNREACH else 0)
    assert error.causes == [77]


@pytest.mark.rfc("RFC 792 formats", "RFC 792 2-2", "RFC 1122 3.4-6")
def test_error_with_just_eight_bytes(host: Host) -> None:
    """RFC 792 guarantees no more than 8 bytes of the segment: ports and sequence number."""
    error = host.told(icmp_packet(IcmpMessage.dest_unreachable(3, quote_of(body=TCP_HEAD[:8]))))
    assert error.head == TCP_HEAD[:8]


def test_quoted_header_may_have_options(host: Host) -> None:
    """The segment starts behind the quoted header's options."""
    quoted = Ipv4Header.build(OWN, FAR, proto=6, payload_length=20, options=bytes(8)).serialize() + TCP_HEAD
    assert host.told(icmp_packet(IcmpMessage.time_exceeded(0, quoted))).head == TCP_HEAD


def test_quoted_checksum_does_not_matter(host: Host) -> None:
    """Routers have changed the TTL and maybe not the checksum; the quote is still good."""
    quoted = bytearray(quote_of())
    quoted[8] = 1
    assert host.told(icmp_packet(IcmpMessage.time_exceeded(0, bytes(quoted))))


@pytest.mark.rfc("RFC 792 formats")
@pytest.mark.parametrize(
    "quoted", [b"", quote_of()[:27], b"\x65" + quote_of()[1:], b"\x44" + quote_of()[1:],
               quote_of()[:6] + b"\x00\x10" + quote_of()[8:], b"\x4f" + quote_of()[1:]],
)  # fmt: skip
def test_bad_quotes(host: Host, quoted: bytes) -> None:
    """Header and 8 bytes (RFC 792) of a first fragment are the least that says whom the error concerns."""
    host.dropped(icmp_packet(IcmpMessage.dest_unreachable(1, quoted)), reasons.ICMP_QUOTE)


@pytest.mark.rfc("RFC 5927 4.1")
def test_error_about_somebody_elses_packet(host: Host) -> None:
    """RFC 5927 4.1: what we did not send cannot have failed; a forger need know at least our address."""
    host.dropped(icmp_packet(IcmpMessage.dest_unreachable(1, quote_of(src=FAR))), reasons.ICMP_NOT_OURS)


@pytest.mark.parametrize("proto", [17, 99, Proto.ICMP])
def test_error_that_concerns_nobody(host: Host, proto: int) -> None:
    """About a protocol that no process speaks, or an echo request that no ping waits for."""
    body = IcmpMessage.echo_request(ident=1, sequence=1).serialize()
    host.dropped(
        icmp_packet(IcmpMessage.dest_unreachable(1, quote_of(proto=proto, body=body))), reasons.ICMP_NO_TRANSPORT
    )


@pytest.mark.rfc("RFC 1122 3.2.2-6", "RFC 792 1-2")
def test_no_error_about_an_error(host: Host) -> None:
    """RFC 1122 3.2.2: bad options on an ICMP error are not answered; on an echo request they are."""
    bad = bytes((7, 41, 4, 0))
    error = icmp_packet(IcmpMessage.dest_unreachable(1, quote_of()), options=bad)
    host.dropped(error, reasons.IP_OPTION)
    assert host.core.counters[reasons.ICMP_NOT_ALLOWED.counter] == 1
    _, answer = host.replied(icmp_packet(echo(), options=bad))
    assert answer.type == icmp.PARAMETER_PROBLEM


@pytest.mark.rfc("RFC 1122 3.2.2-9", "RFC 792 1-1")
def test_none_about_later_fragments() -> None:
    """RFC 1122 3.2.2: only about a first fragment; nor about ICMP that we cannot tell from an error."""
    nobody = frozenset[bytes]()
    later = Ipv4Header.build(PEER, OWN, proto=6, payload_length=8, frag_offset=1)
    assert not may_report(later, group=False, transport=TCP_HEAD, broadcasts=nobody)
    first = Ipv4Header.build(PEER, OWN, proto=6, payload_length=8, flags=1)
    assert may_report(first, group=False, transport=TCP_HEAD, broadcasts=nobody)
    ping = Ipv4Header.build(PEER, OWN, proto=1, payload_length=8)
    assert may_report(ping, group=False, transport=b"\x08", broadcasts=nobody)
    assert not may_report(ping, group=False, transport=b"\x4d", broadcasts=nobody)
    assert not may_report(ping, group=False, transport=b"", broadcasts=nobody)


def test_echo_through_loopback(host: Host) -> None:
    """A request to our own address, from whatever process, is answered without link."""
    data = echo().serialize(fill_checksum=True)
    out = host.feed(segment(head=data, proto=Proto.ICMP, dst=LOOPBACK, src=LOOPBACK, checksum=Checksum.NONE))
    assert out == []
    assert host.core.counters[reasons.ICMP_UNASKED.counter] == 1  # the reply came back, and nobody waited for it


@given(st.binary(max_size=120))
def test_quotes_are_whatever_comes(data: bytes) -> None:
    """Any bytes are a quote or None; a quote has 8 bytes at least."""
    quoted = parse_quote(data)
    assert quoted is None or len(quoted.head) >= 8


@given(
    rate=st.integers(0, 10_000),
    burst=st.integers(1, 100),
    gaps=st.lists(st.integers(0, 2 * NANOSECONDS), max_size=200),
)
def test_bucket_never_exceeds_its_rate(rate: int, burst: int, gaps: list[int]) -> None:
    """Over any stretch of time no more pass than burst + rate × time."""
    bucket = TokenBucket(rate, burst, 0)
    now = passed = 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now)
        assert passed <= burst + rate * now / NANOSECONDS
    assert rate or not passed


@pytest.mark.rfc("RFC 792 timestamp", "RFC 1122 3.2.2.8-1", "RFC 1122 3.2.2.8-2", "RFC 792 7-1", "RFC 792 7-2")
def test_timestamp_request(host: Host) -> None:
    """Answered with the sender's time and ours, in ms with the highest bit set: not since midnight UT (RFC 792)."""
    asked = IcmpMessage(icmp.TIMESTAMP, 0, b"\0\1\0\2", b"\1\2\3\4" + bytes(8))
    header, reply = host.replied(icmp_packet(asked, tos=0x10))
    assert (reply.type, reply.rest) == (icmp.TIMESTAMP_REPLY, b"\0\1\0\2")
    ours = (0x8000_0000 | 1000).to_bytes(4, "big")  # the host's clock stands at 1 s
    assert reply.payload == b"\1\2\3\4" + ours + ours
    assert (header.src, header.dst, header.tos) == (OWN, PEER, 0x10)
    host.dropped(icmp_packet(asked, dst=DIRECTED, link_flags=1), reasons.ICMP_GROUP)


@pytest.mark.rfc("RFC 1812 4.3.2.8-2", "RFC 1812 4.3.2.8-3")
def test_errors_to_one_host_are_limited() -> None:
    """Linux icmp_ratelimit: six at once to one host, then one a second; another host is not concerned."""
    host = Host(icmp_burst=1000)

    def answered(n: int, src: bytes = PEER) -> int:
        return sum(len(host.feed(packet(proto=132, src=src))) for _ in range(n))

    assert answered(10) == 6 and answered(10, FAR) == 6
    assert host.core.counters[reasons.ICMP_HOST_LIMITED.counter] == 8
    host.now += 999_999_999
    assert answered(3) == 0
    host.now += 1
    assert answered(3) == 1
    host.now += 60_000_000_000
    assert answered(10) == 6
    host.core.set("icmp_ratelimit_ms", 0, host.now)
    assert answered(100) == 100


@pytest.mark.rfc("RFC 1812 4.3.2.8-3")
def test_types_that_are_not_limited() -> None:
    """ip.icmp_ratemask says for which types the limits hold; echo replies never were among them."""
    host = Host(icmp_ratemask=1 << icmp.TIME_EXCEEDED, icmp_burst=1)
    assert sum(len(host.feed(packet(proto=132))) for _ in range(50)) == 50
    host = Host(icmp_burst=1)
    assert sum(len(host.feed(icmp_packet(echo()))) for _ in range(50)) == 50


def test_the_limit_remembers_a_bounded_number_of_hosts() -> None:
    """The one that was used longest ago is forgotten."""
    limit = DestinationLimit(1_000_000_000)
    for number in range(DESTINATIONS_LIMIT + 5):
        assert limit.take(number.to_bytes(4, "big"), 0)
    assert len(limit.targets()) == DESTINATIONS_LIMIT and limit.targets()[0].dst == (5).to_bytes(4, "big")
