"""ICMP, IGMP and fragments at their edges: what an error quotes and where it comes from, what goes up and what is
counted, whom nobody may be sent to, and how long an answer to a router waits."""

from __future__ import annotations

from typing import Any

import pytest
from ip_host import (
    DIRECTED,
    FAR,
    MS,
    OWN,
    PEER,
    SECOND,
    Host,
    icmp_packet,
    packet,
    quote_of,
    segment,
)
from test_ip_edges import members, query
from test_ip_groups import heard

from layers.ip.membership import SOURCES_LIMIT
from layers.ip.reassembly import DATAGRAM_COST, FRAGMENT_COST
from levelip.frames.core import ControlError
from levelip.frames.packet import Checksum, Packet, Segment
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.addr import parse_ipv4
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import ALL_SYSTEMS, parse_igmp
from levelip.wire.ipv4 import FLAG_MF, Ipv4Header, Proto

GROUP = bytes((239, 1, 2, 3))
SECOND_ADDRESS = bytes((10, 0, 0, 3))
WITH_UDP = {6: "tcp", 17: "udp"}
BAD_OPTION = bytes((7, 3, 1, 0))
"""Record route whose pointer lies before its data."""


def fragments(data: bytes, at: int, **fields: Any) -> tuple[Packet, Packet]:
    """A datagram in two."""
    return packet(data[:at], flags=FLAG_MF, **fields), packet(data[at:], frag_offset=at // 8, **fields)


# errors that we send


def test_an_error_comes_from_the_address_that_was_asked() -> None:
    """Not from the one that we would choose ourselves."""
    host = Host(addresses=["10.0.0.3/24"])
    header, message = host.replied(packet(dst=SECOND_ADDRESS, proto=132))
    assert (header.src, message.type) == (SECOND_ADDRESS, icmp.DEST_UNREACH)


def test_an_error_quotes_what_travels_behind_the_head(host: Host) -> None:
    """As much as fits into 576 bytes, wherever it was cut into head and payload (RFC 1812 4.3.2.3)."""
    data = bytes(range(200))
    for frame in (
        packet(data, proto=132, head_size=28),
        packet(data, proto=132, options=BAD_OPTION, head_size=28),
    ):
        _, message = host.replied(frame)
        assert message.payload[message.payload[0] % 16 * 4 :] == data


@pytest.mark.parametrize("head_size", [24, 28, None])
def test_an_echo_request_with_bad_options_is_reported(host: Host, head_size: int | None) -> None:
    """It is no error itself, as its type says, be that in the head or behind it (RFC 1122 3.2.2)."""
    request = IcmpMessage.echo_request(ident=1, sequence=1, payload=bytes(8))
    _, message = host.replied(icmp_packet(request, options=BAD_OPTION, head_size=head_size))
    assert message.type == icmp.PARAMETER_PROBLEM


@pytest.mark.parametrize(("dst", "told"), [(OWN, 1), (DIRECTED, 0)])
def test_no_error_about_a_datagram_to_all_that_came_in_pieces(dst: bytes, told: int) -> None:
    """Neither that nobody takes it, nor that the rest did not come in time (RFC 1122 3.2.2)."""
    host = Host()
    first, last = fragments(bytes(16), 8, dst=dst, proto=132, ident=5)
    assert host.feed(first) == [] and len(host.feed(last)) == told
    host.feed(first)
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    assert len(host.flush()) == told
    assert host.core.counters["drop.fragment_timeout"] == 1
    assert host.core.counters.get("drop.icmp_error_not_allowed", 0) == 2 * (1 - told)


def test_what_came_too_late_is_quoted_whole(host: Host) -> None:
    """Fragment zero, up to the end of what an error bears."""
    data = bytes(range(64))
    host.feed(packet(data, flags=FLAG_MF, proto=132))
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    [(_, out)] = host.flush()
    assert out.head.endswith(data)


# ICMP in


def test_an_echo_reply_that_no_command_waits_for_is_for_a_socket() -> None:
    """Of udp, which has those of ICMP; nothing is dropped, and each is counted as delivered."""
    host = Host(transports=WITH_UDP)
    reply = IcmpMessage(icmp.ECHO_REPLY, 0, bytes(4), b"data")
    for count in (1, 2):
        [(port, up)] = host.feed(icmp_packet(reply, ttl=9, tos=8))
        assert port == "udp" and isinstance(up, Segment)
        assert (up.proto, up.src, up.dst, up.ttl, up.tos) == (Proto.ICMP, PEER, OWN, 9, 8)
        assert (up.iface, up.checksum, up.gso_size) == (0, Checksum.VERIFIED, 0)
        assert up.head + up.payload == reply.serialize(fill_checksum=True)
        assert host.core.counters["in.delivered"] == count
    assert not any(name.startswith("drop.") for name in host.core.counters)


def test_a_time_stamp_option_is_filled_in_when_the_time_is_asked_for(host: Host) -> None:
    """RFC 1122 3.2.2.8: a timestamp request's options are treated as an echo request's."""
    host.now = 5 * SECOND
    option = bytes((68, 8, 5, 0, 0, 0, 0, 0))
    header, message = host.replied(icmp_packet(IcmpMessage(icmp.TIMESTAMP, 0, bytes(4), bytes(12)), options=option))
    at = (0x8000_0000 | 5000).to_bytes(4, "big")
    assert header.options == bytes((68, 8, 9, 0)) + at and message.payload == bytes(4) + at + at


def frag_needed(body: bytes, total: int, dst: bytes) -> Packet:
    """From a router that does not tell its MTU; `total`: the length that its quote says the packet had."""
    quoted = bytearray(quote_of(dst=dst, body=body))
    quoted[2:4] = total.to_bytes(2, "big")
    return icmp_packet(IcmpMessage(icmp.DEST_UNREACH, icmp.FRAG_NEEDED, bytes(4), bytes(quoted)))


@pytest.mark.parametrize(("total", "mtu"), [(1500, 1492), (1520, 1492), (1492, 1006), (1493, 1492), (1026, 508)])
def test_a_routers_mtu_is_guessed_by_what_was_sent(total: int, mtu: int) -> None:
    """A total length beyond what we send has the header's length in it twice (RFC 1191 5)."""
    host = Host(mtu=1500 if total > 1026 else 1006)
    assert host.told(frag_needed(bytes(20), total, FAR)).mtu == mtu


def test_an_mtu_on_a_way_that_is_no_more(host: Host) -> None:
    """The route has gone since the packet was sent: the device's MTU is all that is known."""
    host = Host(gateway="")
    assert host.told(frag_needed(bytes(20), 1500, FAR)).mtu == 1492


@pytest.mark.parametrize(
    ("address", "gateway", "by"),
    [
        ("10.0.0.2/1", "10.0.0.1", (0, 1, 1, 1)), ("10.0.0.2/1", "10.0.0.1", (127, 1, 1, 1)),
        ("200.0.0.2/1", "200.0.0.1", (255, 1, 1, 1)), ("200.0.0.2/1", "200.0.0.1", (239, 1, 1, 1)),
    ],
)  # fmt: skip
def test_no_redirect_to_what_is_no_host(address: str, gateway: str, by: tuple[int, ...]) -> None:
    """However large the network is said to be, none of these is a gateway in it (RFC 1122 3.2.2.2)."""
    host = Host(address=address, gateway=gateway, accept_redirects=True, secure_redirects=False)
    own, router = parse_ipv4(address[:-2]), parse_ipv4(gateway)
    target = bytes((9, 9, 9, 9)) if own[0] == 200 else FAR
    for to, reason in ((bytes(by), reasons.ICMP_REDIRECT_TO), (own[:3] + b"\x09", None)):
        frame = icmp_packet(IcmpMessage(icmp.REDIRECT, 1, to, quote_of(src=own, dst=target)), src=router, dst=own)
        if reason is not None:
            host.dropped(frame, reason)
        else:
            host.feed(frame)
            assert host.core.counters["redirects"] == 1


def test_what_was_learned_is_told_in_whole_milliseconds() -> None:
    """A nanosecond of a redirect's time has gone, and so has its last millisecond."""
    host = Host(accept_redirects=True, secure_redirects=False, redirect_ms=5000)
    host.feed(icmp_packet(IcmpMessage(icmp.REDIRECT, 1, bytes((10, 0, 0, 9)), quote_of())))
    host.now += 1
    [row] = host.core.control(1, "route.cache", {}, host.now)["cache"]
    assert row == {"dst": "192.0.2.7", "via": "10.0.0.9", "redirect_expires_ms": 4999}


# upward


@pytest.mark.parametrize("trailer", [0, 6])
def test_what_is_behind_the_packet_in_memory_does_not_go_up(host: Host, trailer: int) -> None:
    """As Ethernet's padding behind a payload that is carried along (RFC 894)."""
    frame = packet(place=Place("pool", 0, 4096, 8, 100, 1))
    assert isinstance(frame.payload, Place)
    frame.payload = Place("pool", 0, 4096, 8, 100 + trailer, 1)
    assert host.delivered(frame).payload == Place("pool", 0, 4096, 8, 100, 1)


def test_every_packet_with_an_option_is_counted(host: Host) -> None:
    """Not only the first."""
    for count in (1, 2):
        host.delivered(packet(options=bytes((7, 7, 8, 1, 2, 3, 4, 0))))
        counted = {name: value for name, value in host.core.counters.items() if "option" in name}
        assert counted and set(counted.values()) == {count}, host.core.counters


def test_the_header_of_what_was_put_together_has_a_right_checksum() -> None:
    """Whoever is sent it back in an error may look."""
    host = Host(transports=WITH_UDP)
    first, last = fragments(bytes(16), 8, proto=17, ident=5)
    host.feed(first)
    [(_, up)] = host.feed(last)
    assert up.network == Ipv4Header.parse(up.network).serialize(fill_checksum=True)


def test_what_was_refused_and_gives_way_is_told_of_no_fragment() -> None:
    """The fragments of a refused datagram have gone long ago; of another the last that came is named."""
    host = Host(fragment_memory=2 * DATAGRAM_COST + FRAGMENT_COST + 1000)
    host.feed(packet(bytes(16), ident=1, flags=FLAG_MF, id=41))
    host.feed(packet(bytes(16), ident=1, flags=FLAG_MF, frag_offset=1, id=42))
    host.feed(packet(bytes(8), ident=2, flags=FLAG_MF, id=43))
    host.core.events()
    host.feed(packet(bytes(1400), ident=3, flags=FLAG_MF, id=44))
    told = [(event.data["ident"], event.frame) for event in host.core.events() if event.reason == "fragment_memory"]
    assert told == [(1, 0), (2, 43)]


# what commands say


def test_what_is_no_group_is_said_by_the_arguments_name(host: Host) -> None:
    """As the command calls it."""
    for name in ("group.join", "group.leave"):
        with pytest.raises(ControlError, match=r"^group = "):
            host.core.control(1, name, {"group": "10.0.0.1"}, host.now)


def test_pings_without_ident_do_not_share_one(host: Host) -> None:
    """Each has its own, so that an answer finds the one that asked."""
    idents = set()
    for token in range(4):
        host.ping(token=token)
        [(_, out)] = host.flush()
        idents.add(out.head[24:26])
    assert len(idents) == 4


def test_who_uses_a_group_is_told() -> None:
    """The configuration, by its name; a group's route is one of multicast."""
    host = Host(multicast_groups=["239.1.2.3"])
    groups = host.core.control(1, "groups", {}, host.now)["groups"]
    assert groups[1] == {"group": "239.1.2.3", "users": ["config"]}
    assert host.core.control(1, "route.get", {"dst": "239.1.2.3"}, host.now)["kind"] == "multicast"


# IGMP


def test_a_query_that_wants_its_answer_at_once_has_it_within_a_tenth() -> None:
    """A time of 0 counts as the least that can be said (RFC 3376 4.1.1: units of 100 ms)."""
    state, _ = members()
    state.join(GROUP, "control", 0)
    state.handle_timer(SECOND)
    state.heard(query(3, 0), ALL_SYSTEMS, 2 * SECOND)
    assert state.next_timer() == 2 * SECOND + 100 * MS


def test_the_answer_to_all_is_enough_for_one_group() -> None:
    """RFC 3376 5.2, rule 1: if it comes no later."""
    state, _ = members()
    state.join(GROUP, "control", 0)
    state.handle_timer(SECOND)
    state.heard(query(3, 100), ALL_SYSTEMS, 2 * SECOND)
    state.heard(query(3, 100, GROUP), GROUP, 2 * SECOND)
    assert len(state.handle_timer(12 * SECOND)) == 1


@pytest.mark.parametrize(("asked", "answered"), [(SOURCES_LIMIT, SOURCES_LIMIT), (SOURCES_LIMIT + 1, 0)])
def test_sources_of_one_query(asked: int, answered: int) -> None:
    """More than are remembered: for the group as a whole."""
    state, _ = members()
    state.join(GROUP, "control", 0)
    state.handle_timer(SECOND)
    sources = tuple(bytes((10, 1, 0, number)) for number in range(asked))
    state.heard(query(3, 100, GROUP, sources=sources), GROUP, 2 * SECOND)
    [say] = state.handle_timer(12 * SECOND)
    [record] = parse_igmp(say.data).records  # type: ignore[union-attr]
    assert len(record.sources) == answered


@pytest.mark.parametrize(("version", "wait"), [(2, 10 * SECOND), (3, SECOND)])
def test_joining_is_said_again_as_late_as_its_version_allows(version: int, wait: int) -> None:
    """RFC 2236 8.10: ten seconds; RFC 3376 8.11: one. The querier wants it said three times."""
    state, _ = members()
    state.heard(query(3, 10, robustness=3), ALL_SYSTEMS, 1)
    if version == 2:
        state.heard(query(2, 10), ALL_SYSTEMS, 1)
    state.join(GROUP, "control", 0)
    now = 0
    for _ in range(2):
        assert state.next_timer() == now + wait
        now += wait
        assert len(state.handle_timer(now)) == 1
    assert state.next_timer() is None


# what IGMP sends


def test_reports_are_from_our_first_address_whatever_groups_are_sent_from() -> None:
    """A route of groups may have another source."""
    host = Host(addresses=["10.0.0.3/24"], routes=["239.0.0.0/8 dev src 10.0.0.3", "224.0.0.0/4 dev src 10.0.0.3"])
    host.core.control(1, "group.join", {"group": "239.1.2.3"}, host.now)
    assert len(heard(host.flush())) == 1


def test_a_report_that_finds_the_queue_full(host: Host) -> None:
    """Nothing caused it, and so the event names no frame."""
    host = Host(queue=1)
    host.core.receive(segment(), host.now)
    host.core.control(1, "group.join", {"group": "239.1.2.3"}, host.now)
    [event] = [event for event in host.core.events() if event.kind == "drop"]
    assert (event.reason, event.frame) == ("ip_queue_full", 0)


@pytest.mark.parametrize(("mtu", "packets"), [(80, 1), (79, 2)])
def test_a_report_beyond_the_mtu_goes_in_fragments(mtu: int, packets: int) -> None:
    """Six groups in 56 bytes, behind 24 of header with router alert, which every fragment bears (RFC 2113 2.1)."""
    host = Host(mtu=mtu, multicast_groups=[f"239.1.2.{last}" for last in range(6)])
    host.now += 20 * SECOND
    host.core.handle_timer(host.now)
    host.now += 20 * SECOND
    host.core.handle_timer(host.now)
    host.flush()
    before = host.core.counters["out.bytes"]
    host.feed(packet(query(3, 10).serialize(fill_checksum=True), dst=ALL_SYSTEMS, proto=Proto.IGMP, ttl=1, tos=0xC0,
                     options=bytes((148, 4, 0, 0))))  # fmt: skip
    host.now += SECOND
    host.core.handle_timer(host.now)
    out = [frame for _, frame in host.flush()]
    headers = [Ipv4Header.parse(frame.head) for frame in out]
    assert len(out) == packets
    assert all(header.options == bytes((148, 4, 0, 0)) for header in headers)
    assert all(len(frame.head) + len(frame.payload) <= mtu for frame in out)
    assert [bool(header.flags & 2) for header in headers] == [packets == 1] * packets
    assert host.core.counters["out.bytes"] - before == sum(len(frame.head) + len(frame.payload) for frame in out)
    data = b"".join(frame.head[24:] + frame.payload for frame in out)
    assert len(parse_igmp(data).records) == 6  # type: ignore[union-attr]
