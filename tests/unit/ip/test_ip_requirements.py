"""What an RFC asks of a host's IP layer and no other test singles out: each by its row in tests/rfc."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ip_host import FAR, MS, OWN, PEER, SECOND, TCP_HEAD, Host, icmp_packet, link_state, packet, quote_of, segment
from test_ip_groups import GROUP, IS_EX, TO_EX, TO_IN, heard, join, query, records, settle, v2

from levelip.frames.packet import BROADCAST
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.checksum import internet_checksum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import ALL_SYSTEMS, QUERY, IgmpMessage
from levelip.wire.ipv4 import FLAG_DF, Ipv4Header

SECOND_ADDRESS = bytes((192, 0, 2, 2))
STREAM_ID = bytes((136, 4, 0, 9))


@pytest.mark.rfc("RFC 1122 3.2.1.7-1", "RFC 791 3.1-4", "RFC 1122 3.2.1.7-3")
@given(st.integers(0, 255))
def test_no_ttl_of_zero_is_sent(ttl: int) -> None:
    """0 stands for the default; every other value is the transport's own."""
    sent = Ipv4Header.parse(Host().sent(segment(ttl=ttl)).head).ttl
    assert sent == (ttl or 64)


@pytest.mark.rfc("RFC 1122 3.2.1.6-1", "RFC 1122 3.2.1.6-3")
def test_the_service_is_the_transports_and_stays_in_the_header() -> None:
    """The byte is as the transport gave it; nothing else of the packet depends on it, so link makes no difference."""
    plain, urgent = (Host().sent(segment(b"x", tos=tos)) for tos in (0, 0xE8))
    assert (plain.head[1], urgent.head[1]) == (0, 0xE8)
    assert plain.head[2:10] + plain.head[12:] == urgent.head[2:10] + urgent.head[12:]
    assert (plain.payload, plain.next_hop, plain.flags) == (urgent.payload, urgent.next_hop, urgent.flags)


@pytest.mark.rfc("RFC 1122 3.2.1.8b-1")
@given(st.binary(max_size=64), st.integers(0, 255))
def test_segments_go_without_ip_options(data: bytes, tos: int) -> None:
    """No stream identifier, nor any other."""
    assert Ipv4Header.parse(Host().sent(segment(data, tos=tos)).head).options == b""


@pytest.mark.rfc("RFC 1122 3.2.1.8b-2")
def test_a_stream_identifier_is_skipped(host: Host) -> None:
    """The segment behind it is delivered, and nobody is told."""
    got = host.delivered(packet(TCP_HEAD + b"x", options=STREAM_ID))
    assert (got.head + got.payload)[-1:] == b"x"  # type: ignore[operator]


@pytest.mark.rfc("RFC 1122 3.2.2-5", "RFC 4884 4-2")
def test_errors_have_plain_service_and_no_extension(host: Host) -> None:
    """TOS 0, whatever the packet had; the byte that RFC 4884 makes a length is zero."""
    header, error = host.replied(packet(proto=132, tos=0xE8))
    assert header.tos == 0 and error.type == icmp.DEST_UNREACH and error.rest == bytes(4)


@pytest.mark.rfc("RFC 4884 5-1")
def test_an_error_with_an_extension_is_taken(host: Host) -> None:
    """32 words of the datagram, padded with zeros, then the extension: the quote in front is all that counts."""
    quoted = quote_of()
    extension = b"\x20\0\0\0" + b"\0\x08\1\1" + bytes(4)
    error = IcmpMessage(icmp.TIME_EXCEEDED, 0, b"\0\x20\0\0", quoted.ljust(128, b"\0") + extension)
    told = host.told(icmp_packet(error, src=FAR))
    assert (told.icmp_type, told.dst) == (icmp.TIME_EXCEEDED, FAR) and told.head[:8] == TCP_HEAD[:8]


@pytest.mark.rfc("RFC 1122 3.2.2.8-4", "RFC 1122 3.2.2.8-5")
def test_timestamps_are_of_the_address_that_was_asked() -> None:
    """The reply comes from the second address if that was asked; a group gets none."""
    host = Host(addresses=["192.0.2.2/24"])
    asked = IcmpMessage(icmp.TIMESTAMP, 0, b"\0\1\0\2", b"\1\2\3\4" + bytes(8))
    header, _ = host.replied(icmp_packet(asked, dst=SECOND_ADDRESS))
    assert header.src == SECOND_ADDRESS
    host.dropped(icmp_packet(asked, dst=ALL_SYSTEMS, link_flags=BROADCAST), reasons.ICMP_GROUP)


@pytest.mark.rfc("RFC 1122 3.3.4.2-1", "RFC 1122 3.2.2.6-5")
def test_an_answer_comes_from_the_address_that_was_asked() -> None:
    """Though a route would have chosen the first one."""
    host = Host(addresses=["192.0.2.2/24"])
    asked = IcmpMessage.echo_request(ident=1, sequence=1, payload=b"x")
    header, _ = host.replied(icmp_packet(asked, dst=SECOND_ADDRESS))
    assert (header.src, header.dst) == (SECOND_ADDRESS, PEER)


@pytest.mark.rfc("RFC 1122 3.2.2.9-2", "RFC 1122 3.2.1.3-1", "RFC 1122 3.3.1.1-1")
@pytest.mark.parametrize(("length", "next_hop"), [(24, bytes((10, 0, 0, 20))), (28, PEER)])
def test_the_configured_mask_decides_what_is_near(length: int, next_hop: bytes) -> None:
    """10.0.0.20 is a neighbour of 10.0.0.2/24, and beyond the gateway of 10.0.0.2/28."""
    assert Host(address=f"10.0.0.2/{length}").sent(segment(dst=bytes((10, 0, 0, 20)))).next_hop == next_hop


@pytest.mark.rfc("RFC 6864 4.1-1", "RFC 6864 4.1-2")
@pytest.mark.parametrize("flags", [0, FLAG_DF])
def test_the_ident_tells_fragments_apart_and_nothing_else(host: Host, flags: int) -> None:
    """Two packets with one ident are two packets."""
    for text in (b"a", b"b"):
        got = host.delivered(packet(TCP_HEAD + text, ident=5, flags=flags))
        assert (got.head + got.payload)[-1:] == text  # type: ignore[operator]


@pytest.mark.rfc("RFC 3376 3-1")
def test_a_group_of_two_users_is_one_membership() -> None:
    """The configuration and a command: said once, and left only by the last."""
    host = Host(device=False, multicast_groups=["239.1.2.3"])
    assert records(heard(host.feed(link_state()))) == [(TO_EX, GROUP)]
    settle(host)
    assert join(host) == [] and settle(host) == []
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)
    assert heard(host.flush()) == [] and settle(host) == []
    assert host.delivered(packet(dst=GROUP, link_flags=BROADCAST))


@pytest.mark.rfc("RFC 3376 5.1-3")
def test_a_change_replaces_what_was_still_to_be_said(host: Host) -> None:
    """Left before the join was said again: the new state alone is repeated."""
    assert records(join(host)) == [(TO_EX, GROUP)]
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)
    assert records(heard(host.flush())) == [(TO_IN, GROUP)]
    assert records(settle(host)) == [(TO_IN, GROUP)]


@pytest.mark.rfc("RFC 3376 5.2-3")
def test_an_answer_that_comes_soon_enough_serves_a_later_query(host: Host) -> None:
    """Asked for an answer within 1 s, then within 10: one answer, within the second."""
    join(host)
    settle(host)
    start = host.now
    host.feed(query(IgmpMessage.query(code=10)))
    for _ in range(5):
        host.feed(query(IgmpMessage.query(code=100)))
    assert len(settle(host)) == 1 and host.now <= start + SECOND


@pytest.mark.rfc("RFC 3376 4.1.10-1")
def test_bytes_behind_a_query_count_in_its_checksum_alone(host: Host) -> None:
    """Eight more than a query has: taken as without them if the sum is right, and refused if it is not."""
    join(host)
    settle(host)
    data = IgmpMessage.query().serialize() + b"and more"
    data = data[:2] + internet_checksum(data).to_bytes(2, "big") + data[4:]
    fields = {"dst": ALL_SYSTEMS, "ttl": 1, "options": bytes((148, 4, 0, 0)), "link_flags": BROADCAST, "proto": 2}
    host.dropped(packet(data[:-1] + b"!", **fields), reasons.IGMP_CHECKSUM)
    host.feed(packet(data, **fields))
    assert len(settle(host)) == 1


@pytest.mark.rfc("RFC 2236 3-1", "RFC 2236 3-2")
def test_version_2_delays_each_group_by_chance_and_a_shorter_query_shortens_them(host: Host) -> None:
    """20 groups within 10 s, not at once; a query for 0.5 s makes the longer ones shorter."""
    host.feed(query(v2(QUERY, code=100)))
    for n in range(20):
        join(host, f"239.1.2.{n}")
    settle(host, 100)
    start = host.now
    host.feed(query(v2(QUERY, code=100)))
    due = []
    for _ in range(20):
        [_said] = settle(host, 1)
        due.append(host.now - start)
    assert due[-1] - due[0] > SECOND and due[-1] <= 10 * SECOND
    start = host.now
    host.feed(query(v2(QUERY, code=100)))
    host.feed(query(v2(QUERY, code=5)))
    assert len(settle(host, 20)) == 20 and host.now <= start + 500 * MS


@pytest.mark.rfc("RFC 1122 3.3.6-3")
def test_our_broadcast_address_ends_in_ones() -> None:
    """What is sent to it is a broadcast on the link; OWN is not its own source there."""
    out = Host().sent(segment(dst=bytes((10, 0, 0, 255)), flags=BROADCAST))
    assert out.next_hop == bytes((10, 0, 0, 255)) and out.flags == BROADCAST and out.head[12:16] == OWN


@pytest.mark.rfc("RFC 1122 3.2.2.6-10")
def test_a_timestamp_reply_has_the_routes_recorded(host: Host) -> None:
    """Record route comes back with ourselves added, as in an echo reply."""
    asked = IcmpMessage(icmp.TIMESTAMP, 0, b"\0\1\0\2", bytes(12))
    header, _ = host.replied(icmp_packet(asked, options=bytes.fromhex("070b04 00000000 00000000 00".replace(" ", ""))))
    assert header.options.hex() == "070b080a0000020000000000"


@pytest.mark.rfc("RFC 3376 4.1.12-1")
def test_a_query_to_our_own_address_is_answered(host: Host) -> None:
    """A tool that asks us alone gets the same answer."""
    join(host)
    settle(host)
    host.feed(query(dst=OWN, link_flags=0))
    assert records(settle(host)) == [(IS_EX, GROUP)]


@pytest.mark.rfc("RFC 3376 4.1.4-1", "RFC 3376 8.1-1")
def test_reserved_bits_and_a_robustness_of_zero(host: Host) -> None:
    """The bits say nothing; QRV 0 says nothing either: a join is still said twice."""
    data = bytearray(IgmpMessage.query(robustness=0).serialize())
    data[8] |= 0xF0
    data[2:4] = internet_checksum(bytes(data)).to_bytes(2, "big")
    join(host)
    settle(host)
    host.feed(packet(bytes(data), dst=ALL_SYSTEMS, ttl=1, options=bytes((148, 4, 0, 0)), link_flags=BROADCAST, proto=2))
    assert records(settle(host)) == [(IS_EX, GROUP)]
    assert len(join(host, "239.1.2.4")) + len(settle(host)) == 2


@pytest.mark.rfc("RFC 2236 4-2", "RFC 3376 7.2.1-2")
def test_version_1_is_spoken_for_as_long_as_its_querier_was_heard_of_late(host: Host) -> None:
    """400 s as RFC 2236 4 has it, or 2 x 125 + 10 s (RFC 3376 8.12), which is ours; then version 3 again."""
    join(host)
    settle(host)
    start = host.now
    host.feed(query(v2(QUERY), options=b""))
    settle(host)
    host.now = start + 260 * SECOND - 1
    assert host.core.control(1, "groups", {}, host.now)["version"] == 1
    assert host.core.control(1, "groups", {}, host.now + 1)["version"] == 3
