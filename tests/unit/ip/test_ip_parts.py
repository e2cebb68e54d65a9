"""The parts of ip that only calculate, at their limits: options, errors, idents, headers, pings, path exceptions."""

from __future__ import annotations

import struct
from hashlib import blake2s

import pytest
from ip_host import FAR, LIMITED, MS, OWN, PEER, SECOND, TCP_HEAD

from layers.ip.exceptions import ENTRIES_LIMIT, PathExceptions, guess_mtu, plateau_below
from layers.ip.fragments import complete_checksum, copied_options, header_room, split
from layers.ip.header import HeaderWriter, Idents
from layers.ip.icmp import may_report, parse_quote, quote, reflected_options, timestamp_reply
from layers.ip.limits import BURST_PER_DESTINATION, DESTINATIONS_LIMIT, DestinationLimit, TokenBucket
from layers.ip.ping import Pings, Waiting, echo_data, error_text
from layers.ip.validate import check_options
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.checksum import internet_checksum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.ipv4 import FLAG_DF, Ipv4Header, Proto

OTHER = bytes((10, 0, 0, 9))


# options


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        ("07 02", 21),  # record route: no room for the pointer
        ("07 07 04 00000000", 0),
        ("07 07 03 00000000", 22),  # the pointer counts from 1 and is behind itself
        ("07 07 05 00000000", 22),  # four bytes from there do not fit
        ("07 07 07 00000000", 22),
        ("07 07 08 00000000", 0),  # full
        ("44 03 05", 21),  # timestamp: no room for overflow and flag
        ("44 08 05 00 00000000", 0),
        ("44 08 04 00 00000000", 22),
        ("44 08 06 00 00000000", 22),
        ("44 08 09 00 00000000", 0),
        ("44 08 05 01 00000000", 22),  # an address with it needs 8
        ("44 0c 05 01 00000000 00000000", 0),
        ("44 0c 06 03 00000000 00000000", 22),
        ("44 0c 05 02 00000000 00000000", 23),  # no such flag
        ("44 0c 0c 00 00000000 00000000", 22),
        ("44 0c 0d 00 00000000 00000000", 0),
        ("94 03 00", 21),  # router alert: two bytes of value
        ("94 04 00 00", 0),
        ("01 01 94 03 00", 23),  # behind two no-operations
        ("82 04 00 00 94 03 00", 25),  # behind an unknown one
        ("82 04 00 00 01 82 03 00 94 03 00", 29),
    ],
)
def test_where_an_option_is_bad(options: str, bad: int) -> None:
    """The byte of the header that a parameter problem points to (RFC 792), as Linux's ip_options_compile; 0: fine."""
    verdict = check_options(bytes.fromhex(options))
    assert verdict.pointer == bad and verdict.reason is (reasons.IP_OPTION if bad else None)


def test_source_routes_are_refused_after_all_else() -> None:
    """The first is pointed to; what is malformed behind it counts for more."""
    route, strict, bad = bytes.fromhex("83 07 04 00000000"), bytes.fromhex("89 07 04 00000000"), bytes.fromhex("940300")
    verdict = check_options(b"\1" + route + strict)
    assert (verdict.reason, verdict.pointer) == (reasons.IP_SOURCE_ROUTED, 21)
    assert verdict.counters == ["option.source_route", "option.source_route"]
    verdict = check_options(route + bad)
    assert (verdict.reason, verdict.pointer) == (reasons.IP_OPTION, 28)
    assert verdict.counters == ["option.source_route", "option.router_alert"]


def test_options_of_fragments() -> None:
    """Those with the copied bit, in whole words."""
    alert, route = bytes.fromhex("94040000"), bytes.fromhex("07070400000000")
    other = bytes.fromhex("860300")
    assert copied_options(b"") == b"" and copied_options(route) == b""
    assert copied_options(route + alert) == alert
    assert copied_options(alert + b"\1" + other + alert) == alert + other + alert + b"\0"


def test_options_of_an_echo_reply() -> None:
    """All of them, in order and in whole words; an overflow stops at 15; prescribed addresses have none."""
    route, stamp = bytes.fromhex("070704 00000000"), bytes.fromhex("44080500 00000000")
    both = reflected_options(route + stamp, OWN, 7 * MS)
    assert both.hex() == "070708" + OWN.hex() + "44080900" + "80000007" + "00"
    other = reflected_options(stamp + route, OWN, 7 * MS)
    assert other.hex() == "44080900" + "80000007" + "070708" + OWN.hex() + "00"
    short = bytes.fromhex("070604 000000")  # room for three bytes only
    assert reflected_options(short, OWN, 0) == short + bytes(2)
    for asked, answered in (
        ("44080901 00000001", "44080911 00000001"),
        ("440809e0 00000001", "440809f0 00000001"),
        ("440809f0 00000001", "440809f0 00000001"),
        ("44080903 00000001", "44080903 00000001"),
    ):
        assert reflected_options(bytes.fromhex(asked), OWN, 0) == bytes.fromhex(answered)


def test_a_timestamp_reply() -> None:
    """Type 14, code 0, ident and number as asked, their time and twice ours, the highest bit set."""
    request = IcmpMessage(icmp.TIMESTAMP, 0, b"\1\2\3\4", b"abcd" + bytes(8))
    reply = timestamp_reply(request, 2**31 * MS + 5 * MS)
    assert (reply.type, reply.code, reply.rest) == (14, 0, b"\1\2\3\4")
    assert reply.payload == b"abcd" + b"\x80\0\0\5" * 2


# who gets an error


def header(src: bytes = PEER, dst: bytes = OWN, proto: int = Proto.TCP, frag_offset: int = 0) -> Ipv4Header:
    return Ipv4Header.build(src, dst, proto=proto, payload_length=20, frag_offset=frag_offset)


@pytest.mark.parametrize(
    ("src", "allowed"),
    [
        (PEER, True), (bytes((0, 0, 0, 1)), False), (bytes((1, 0, 0, 1)), True), (bytes((126, 0, 0, 1)), True),
        (bytes((127, 0, 0, 1)), False), (bytes((128, 0, 0, 1)), True), (bytes((223, 0, 0, 1)), True),
        (bytes((224, 0, 0, 1)), False), (LIMITED, False), (bytes((10, 0, 0, 255)), False),
    ],
)  # fmt: skip
def test_a_source_that_is_a_single_host(src: bytes, allowed: bool) -> None:
    """RFC 1122 3.2.2: not 0/8, loopback, a group, a broadcast."""
    broadcasts = frozenset([bytes((10, 0, 0, 255))])
    assert may_report(header(src), group=False, transport=TCP_HEAD, broadcasts=broadcasts) is allowed


def test_what_no_error_is_about() -> None:
    """A group, by IP or by the link; a later fragment; an error, known or not."""
    none: frozenset[bytes] = frozenset()
    assert not may_report(header(), group=True, transport=TCP_HEAD, broadcasts=none)
    assert not may_report(header(dst=bytes((224, 0, 0, 1))), group=False, transport=TCP_HEAD, broadcasts=none)
    assert not may_report(header(frag_offset=1), group=False, transport=TCP_HEAD, broadcasts=none)
    asked = [kind for kind in range(256) if may_report(
        header(proto=Proto.ICMP), group=False, transport=bytes((kind,)), broadcasts=none)]  # fmt: skip
    assert asked == [0, 8, 13, 17]
    assert not may_report(header(proto=Proto.ICMP), group=False, transport=b"", broadcasts=none)
    assert may_report(header(proto=Proto.UDP), group=False, transport=b"", broadcasts=none)


def test_what_an_error_quotes() -> None:
    """The header and what follows, 548 bytes in all; nothing of what lies in shared memory."""
    assert quote(b"h" * 40, b"p" * 2000) == b"h" * 40 + b"p" * 508
    assert quote(b"h" * 40, b"p" * 508) == b"h" * 40 + b"p" * 508
    assert quote(b"h" * 548, b"p") == b"h" * 548 == quote(b"h" * 600, b"p")
    assert quote(b"h" * 547, b"pp") == b"h" * 547 + b"p"
    assert quote(b"h" * 40, Place("pool", 0, 100, 0, 50)) == b"h" * 40


def test_a_quote_needs_eight_bytes_behind_its_header() -> None:
    """And says what its header said."""
    whole = header().serialize() + TCP_HEAD[:8]
    found = parse_quote(whole)
    assert found is not None and parse_quote(whole[:-1]) is None
    assert (found.src, found.dst, found.proto, found.head) == (PEER, OWN, 6, TCP_HEAD[:8])
    assert (found.total_length, found.header_length) == (40, 20)
    assert parse_quote(b"") is None and parse_quote(b"\x60" + whole[1:]) is None


# headers and idents


def test_headers_like_the_plain_ones() -> None:
    """Also when the sum of all that varies is a multiple of 65,535, and from what is remembered."""
    writer = HeaderWriter()
    for _ in range(2):
        for total, ident in ((40, 1), (65_535, 65_535), (0, 0), (20, 0)):
            plain = struct.pack(">BBHHHBBH4s4s", 0x45, 8, total, ident, FLAG_DF << 13, 64, 6, 0, OWN, PEER)
            checksum = internet_checksum(plain)
            made = writer.write(OWN, PEER, 6, 64, 8, FLAG_DF, total, ident)
            assert made == plain[:10] + checksum.to_bytes(2, "big") + plain[12:]
            assert internet_checksum(made) == 0
    known = fold_complement(writer)
    made = writer.write(OWN, PEER, 6, 64, 8, FLAG_DF, known, 0)
    assert internet_checksum(made) in (0, 0xFFFF) and made[10:12] == b"\0\0"


def fold_complement(writer: HeaderWriter) -> int:
    """A total length with which the header sums up to 65,535, so that the checksum is 0."""
    empty = writer.write(OWN, PEER, 6, 64, 8, FLAG_DF, 0, 0)
    return int.from_bytes(empty[10:12], "big")


def test_idents_by_pair_of_hosts_and_protocol() -> None:
    """RFC 6864 4.2: they go up by one, around 65,536; a bucket and its beginning come from BLAKE2s with the secret."""
    idents = Idents(b"s" * 16)
    digest = blake2s(OWN + PEER + b"\6", key=b"s" * 16, digest_size=4).digest()
    bucket, start = int.from_bytes(digest[:2], "big") % 1024, int.from_bytes(digest[2:], "big")
    assert [idents.take(OWN, PEER, 6) for _ in range(3)] == [(start + step) % 65_536 for step in range(3)]
    assert idents.used == {bucket: (start + 3) % 65_536}
    idents.used[bucket] = 65_535
    assert [idents.take(OWN, PEER, 6) for _ in range(2)] == [65_535, 0]
    others = [idents.take(OWN, FAR, 6), idents.take(FAR, PEER, 6), idents.take(OWN, PEER, 17)]
    assert len(idents.used) == 4 and len(set(others)) == 3


# fragments


def test_pieces_of_a_datagram() -> None:
    """Whole units of 8 bytes but for the last; the first may hold less, as it has more options; head and payload."""
    pieces = list(split(b"h" * 20, b"p" * 50, 30, 39))
    assert [(start, len(head), len(rest), more) for start, head, rest, more in pieces] == [
        (0, 20, 4, True), (24, 0, 32, True), (56, 0, 14, False),
    ]  # fmt: skip
    assert b"".join(head + bytes(rest) for _, head, rest, _ in pieces) == b"h" * 20 + b"p" * 50  # type: ignore[arg-type]
    small = list(split(b"h" * 20, b"pp", 8, 8))
    assert [(start, head, rest, more) for start, head, rest, more in small] == [
        (0, b"h" * 8, b"", True), (8, b"h" * 8, b"", True), (16, b"h" * 4, b"pp", False),
    ]  # fmt: skip
    assert list(split(b"h" * 16, b"", 16, 16)) == [(0, b"h" * 16, b"", False)]
    assert header_room(1500, b"") == 1480 and header_room(68, bytes(40)) == 8


def test_checksums_that_no_device_can_complete() -> None:
    """TCP's at 16, UDP's at 6. The payload is in shared memory, the field is not there, nobody knows where: None."""
    done = complete_checksum(OWN, PEER, 6, TCP_HEAD, b"data")
    assert done is not None and done[:16] == TCP_HEAD[:16] and done[18:] == TCP_HEAD[18:]
    pseudo = OWN + PEER + struct.pack(">BBH", 0, 6, 24)
    assert internet_checksum(pseudo + done + b"data") == 0
    udp = complete_checksum(OWN, PEER, 17, bytes(8), b"")
    assert udp is not None and internet_checksum(OWN + PEER + struct.pack(">BBH", 0, 17, 8) + udp) == 0
    zero = 65_535 - sum(struct.unpack(">6H", OWN + PEER + struct.pack(">HH", 17, 8))) % 65_535
    head = struct.pack(">HHHH", zero, 0, 0, 0)
    full = complete_checksum(OWN, PEER, 17, head, b"")
    assert full is not None and full[6:8] == b"\xff\xff"  # RFC 768: 0 says that there is none
    assert complete_checksum(OWN, PEER, 6, TCP_HEAD[:17], b"") is None
    assert complete_checksum(OWN, PEER, 6, TCP_HEAD[:18], b"") is not None
    assert complete_checksum(OWN, PEER, 132, TCP_HEAD, b"") is None
    assert complete_checksum(OWN, PEER, 6, TCP_HEAD, Place("pool", 0, 100, 0, 4)) is None


# pings


def test_the_answer_to_a_failed_ping_is_whole() -> None:
    """Found by the quoted ident and number, each of two bytes, and by whom it was for."""
    pings = Pings([Waiting(9, 0x0102, 0x0304, FAR, 5, 0, SECOND)])
    quoted = IcmpMessage.echo_request(ident=0x0102, sequence=0x0304, payload=b"").serialize()
    wrong = [quoted[:at] + bytes((quoted[at] ^ 1,)) + quoted[at + 1 :] for at in (4, 5, 6, 7)]
    for start in wrong:
        assert pings.failed(start, FAR, icmp_type=3, code=4, mtu=1400, reporter=PEER) is None
    assert pings.failed(quoted, PEER, icmp_type=3, code=4, mtu=1400, reporter=PEER) is None
    assert pings.failed(quoted, FAR, icmp_type=3, code=4, mtu=1400, reporter=PEER) == (
        9,
        {"error": "Frag needed and DF set (mtu = 1400)", "from": "10.0.0.1", "type": 3, "code": 4, "mtu": 1400},
    )
    assert len(pings) == 0


def test_pings_that_are_given_up() -> None:
    """At their deadline, in its order, then by ident and number."""
    pings = Pings()
    assert pings.next_deadline() is None
    for ident, sequence, deadline in ((2, 1, 5), (1, 2, 5), (1, 1, 5), (9, 9, 4), (3, 3, 6)):
        pings.add(Waiting(0, ident, sequence, FAR, 0, 0, deadline))
    assert pings.next_deadline() == 4 and pings.expire(3) == []
    assert [(ping.ident, ping.sequence) for ping in pings.expire(5)] == [(9, 9), (1, 1), (1, 2), (2, 1)]
    assert [ping.ident for ping in pings.waiting()] == [3] and pings.next_deadline() == 6


def test_a_reply_with_other_data_is_told_so() -> None:
    """As ping does; the size counts the ICMP header."""
    pings = Pings([Waiting(9, 1, 2, FAR, 5, 100, SECOND), Waiting(8, 1, 3, FAR, 5, 100, SECOND)])
    right = IcmpMessage.echo_reply(IcmpMessage.echo_request(ident=1, sequence=2, payload=echo_data(5)))
    assert pings.reply(right, PEER, 61, 150) == (9, {"from": "10.0.0.1", "ttl": 61, "size": 13, "rtt_ns": 50})
    wrong = IcmpMessage.echo_reply(IcmpMessage.echo_request(ident=1, sequence=3, payload=b"what?!"))
    told = {"from": "10.0.0.1", "ttl": 61, "size": 14, "rtt_ns": 50, "wrong_data": True}
    assert pings.reply(wrong, PEER, 61, 150) == (8, told)
    assert pings.reply(wrong, PEER, 61, 150) is None
    assert [len(echo_data(size)) for size in (0, 1, 256, 257, 1000)] == [0, 1, 256, 257, 1000]
    assert echo_data(258) == bytes(range(256)) + b"\0\1"


@pytest.mark.parametrize(
    ("kind", "code", "text"),
    [
        (3, 0, "Destination Net Unreachable"), (3, 1, "Destination Host Unreachable"),
        (3, 2, "Destination Protocol Unreachable"), (3, 3, "Destination Port Unreachable"),
        (3, 4, "Frag needed and DF set (mtu = 77)"), (3, 13, "Packet filtered"),
        (3, 16, "Dest Unreachable, Bad Code: 16"), (11, 0, "Time to live exceeded"),
        (11, 1, "Frag reassembly time exceeded"), (11, 2, "Time exceeded, Bad Code: 2"), (12, 0, "Parameter problem"),
    ],
)  # fmt: skip
def test_errors_as_ping_prints_them(kind: int, code: int, text: str) -> None:
    """iputils, pr_icmph."""
    assert error_text(kind, code, 77) == text


# limits of errors, RFC 1812 4.3.2.8


def test_a_bucket_of_tokens() -> None:
    """Three at once, then two a second, counted to the nanosecond; a rate of 0 is none at all."""
    bucket = TokenBucket(2, 3, 0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(SECOND // 2 - 1) and bucket.take(SECOND // 2) and not bucket.take(SECOND // 2)
    assert not bucket.take(SECOND // 4)  # a clock that goes back gives nothing
    assert [bucket.take(60 * SECOND) for _ in range(4)] == [True, True, True, False]
    assert not TokenBucket(0, 3, 0).take(0)
    late = TokenBucket(2, 3, 0)
    assert [late.take(60 * SECOND) for _ in range(4)] == [True, True, True, False]


def test_a_destination_has_six_and_then_one_an_interval() -> None:
    """Linux inet_peer_xrlim_allow; each has its own; 0 is no limit; the one used longest ago is forgotten."""
    limit = DestinationLimit(10)
    assert [limit.take(FAR, 0) for _ in range(7)] == [True] * BURST_PER_DESTINATION + [False]
    assert limit.take(PEER, 0)
    assert not limit.take(FAR, 9) and limit.take(FAR, 19) and not limit.take(FAR, 19)
    assert [limit.take(FAR, 1000) for _ in range(7)] == [True] * 6 + [False]
    assert all(DestinationLimit(0).take(FAR, 0) for _ in range(100))
    for number in range(DESTINATIONS_LIMIT - 2):
        limit.take(number.to_bytes(4, "big"), 1000)
    assert len(limit.targets()) == DESTINATIONS_LIMIT
    limit.take(FAR, 1000)
    limit.take(OTHER, 1000)  # PEER was used longest ago
    assert len(limit.targets()) == DESTINATIONS_LIMIT
    assert PEER not in {target.dst for target in limit.targets()} and not limit.take(FAR, 1000)


# what is learned of destinations


def test_exceptions_end_one_by_one() -> None:
    """MTU and gateway of one destination have their own ends; when both are over it is forgotten."""
    known = PathExceptions()
    assert known.next_timer() is None and known.expire(99) == []
    assert known.lower_mtu(FAR, 1400, 10) == [FAR] and known.redirect(FAR, OTHER, 20) == [FAR]
    assert known.next_timer() == 10 and known.expire(9) == []
    assert known.expire(10) == [FAR] and known.next_timer() == 20
    entry = known.find(FAR)
    assert entry is not None and (entry.mtu, entry.gateway) == (0, OTHER)
    assert known.expire(20) == [FAR] and known.find(FAR) is None and known.next_timer() is None


def test_a_gateway_that_is_forgotten() -> None:
    """Only its own redirects; a path MTU of the same destination stays."""
    known = PathExceptions()
    known.redirect(FAR, OTHER, 20)
    known.redirect(PEER, OTHER, 30)
    known.redirect(OWN, PEER, 25)
    known.lower_mtu(PEER, 1400, 40)
    assert known.forget_gateway(OTHER) == [FAR, PEER] and known.next_timer() == 25
    assert known.find(FAR) is None
    entry = known.find(PEER)
    assert entry is not None and (entry.mtu, entry.gateway) == (1400, b"")
    assert known.forget_gateway(OTHER) == []
    assert known.forget_redirect(PEER) == [] == known.forget_redirect(FAR)
    assert known.forget_redirect(OWN) == [OWN] and known.find(OWN) is None and known.next_timer() == 40
    known.redirect(PEER, OTHER, 50)
    assert known.forget_redirect(PEER) == [PEER] and known.find(PEER) is not None
    assert known.clear() == [PEER] and known.next_timer() is None and known.entries() == []


def test_the_oldest_exception_makes_room() -> None:
    """1024; news about one makes it young again."""
    known = PathExceptions()
    for number in range(ENTRIES_LIMIT):
        known.lower_mtu(number.to_bytes(4, "big"), 1400, 10)
    assert known.redirect(bytes(4), OTHER, 10) == [bytes(4)]
    assert known.lower_mtu(FAR, 1400, 10) == [FAR, (1).to_bytes(4, "big")]
    assert len(known.entries()) == ENTRIES_LIMIT and known.find(bytes(4)) is not None


def test_likely_mtus() -> None:
    """RFC 1191 7.1: the next below; never less than 68. A quoted length with the header's added is recognised."""
    assert [plateau_below(mtu) for mtu in (65_535, 32_000, 1500, 1492)] == [32_000, 17_914, 1492, 1006]
    assert [plateau_below(mtu) for mtu in (69, 68, 1)] == [68, 68, 68]
    assert guess_mtu(1500, 20, 1500) == 1492
    assert guess_mtu(1512, 20, 1500) == 1006  # 1492 with 20 added
    assert guess_mtu(9000, 20, 1500) == 1492
    assert guess_mtu(1006, 20, 1500) == 508
