"""Where the ip layer decides between two things that lie close together: limits to the byte and the nanosecond, orders
of events, and what is told of each."""

from __future__ import annotations

import random
from typing import Any

import pytest
from ip_host import (
    DIRECTED,
    FAR,
    LOOPBACK,
    OWN,
    PEER,
    SECOND,
    TCP_HEAD,
    Host,
    icmp_packet,
    link_state,
    packet,
    quote_of,
    segment,
)
from test_ip_groups import heard

from layers.ip.fragments import split
from layers.ip.membership import SOURCES_LIMIT, Memberships
from layers.ip.routing import RoutingTable
from layers.ip.validate import check_options
from levelip.addressing import addressing
from levelip.config import IpConfig
from levelip.frames.core import ControlError
from levelip.frames.packet import BROADCAST, Doubt, Groups, Packet, PathMtu, Progress, Refused, Segment, Unreachable
from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import ALL_SYSTEMS, QUERY, REPORT_V2, IgmpMessage, parse_igmp
from levelip.wire.ipv4 import FLAG_MF, Ipv4Header, Proto

GROUP = bytes((239, 1, 2, 3))
OTHER = bytes((239, 1, 2, 4))
MAC = bytes.fromhex("020000000002")


# commands


def test_what_is_no_address_is_said_by_the_arguments_name(host: Host) -> None:
    """As the command calls it, not as the configuration does."""
    for name, key in (("address.add", "address"), ("address.del", "address"), ("route.add", "route")):
        with pytest.raises(ControlError, match=f"^{key}"):
            host.core.control(1, name, {key: "nonsense"}, host.now)


def test_routes_change_while_running() -> None:
    """ip.routes: the next packet goes by them, and the transports are told."""
    host = Host()
    host.core.set("routes", ["192.0.2.0/24 via 10.0.0.9"], host.now)
    assert [port for port, _ in host.flush()] == ["tcp"]
    assert host.sent(segment(dst=FAR)).next_hop == bytes((10, 0, 0, 9))


def test_a_refusing_route_has_no_next_hop() -> None:
    """lvlip route get shows none, and what is about to be confirmed is nobody."""
    host = Host(routes=["unreachable 192.0.2.0/24"])
    host.feed(link_state(kind="tap", mac=MAC))
    assert host.core.control(1, "route.get", {"dst": "192.0.2.7"}, host.now)["next_hop"] == ""
    assert host.feed(Progress(FAR)) == []
    assert host.feed(Progress(PEER)) and host.feed(Progress(PEER))
    assert host.core.counters["neighbours_confirmed"] == 2


# what is told


@pytest.mark.parametrize(
    "frame",
    [
        Progress(PEER), PathMtu(FAR, 1280), Doubt(FAR), Unreachable(1, PEER, quote_of(), []), packet(), segment(),
        link_state(mtu=1400), Groups([GROUP]), Refused(7, 3, 3, bytes(20), TCP_HEAD),
    ],
    ids=lambda frame: type(frame).__name__,
)  # fmt: skip
def test_every_frame_is_of_its_instant(host: Host, frame: Any) -> None:
    """What is dropped at the flush after it is dropped then; no event names a connection."""
    host.core.receive(packet(), host.now)
    host.now += SECOND
    host.core.receive(frame, host.now)
    host.flush(tcp=0)
    drops = [event for event in host.core.events() if event.reason == "pipe_full"]
    assert drops and {(event.at, event.conn) for event in drops} == {(host.now, "")}


def test_a_restored_core_goes_on_at_its_instant(host: Host) -> None:
    """What it discards before the next frame is discarded at the instant of the last."""
    host.now += 5 * SECOND
    host.core.receive(packet(), host.now)
    again = type(host.core).restore(host.core.config, host.core.snapshot())
    assert again.outgoing({"tcp": 0}) == []
    assert again.events()[-1].at == host.now
    assert isinstance(host.core.snapshot()["members"], dict) and type(host.core.snapshot()["ident_secret"]) is bytes


def test_an_address_of_ipv6_is_told_as_such(host: Host) -> None:
    """There is no way to it, and people read whereto."""
    host.feed(segment(dst=bytes.fromhex("20010db8000000000000000000000001"), src=b""))
    [event] = [event for event in host.core.events() if event.kind == "drop"]
    assert event.data["dst"] == "2001:db8::1"


@pytest.mark.parametrize("dont_fragment", [True, False])
def test_a_full_queue_tells_what_it_discards(dont_fragment: bool) -> None:
    """By number and addresses; `tells_the_truth` compares them."""
    host = Host(queue=1)
    host.core.receive(segment(id=1), host.now)
    host.core.receive(segment(id=2, dont_fragment=dont_fragment), host.now)
    [event] = [event for event in host.core.events() if event.kind == "drop"]
    assert (event.reason, event.frame) == (reasons.IP_QUEUE_FULL.name, 2)
    assert event.data == {"src": "10.0.0.2", "dst": "10.0.0.1"}


# path MTU and redirects


def test_a_transport_says_how_long_its_path_mtu_holds(host: Host) -> None:
    """The same again prolongs it and changes nothing else; never is it shortened; less lowers it."""
    host.feed(PathMtu(FAR, 1000, 5000))
    assert host.core.next_timer() == host.now + 5 * SECOND
    host.feed(PathMtu(FAR, 1000, 9000))
    assert host.core.next_timer() == host.now + 9 * SECOND
    host.feed(PathMtu(FAR, 1000, 7000))
    assert host.core.next_timer() == host.now + 9 * SECOND
    assert host.core.counters["path_mtu_lowered"] == 1
    host.feed(PathMtu(FAR, 900, 1000))
    assert host.core.counters["path_mtu_lowered"] == 2
    assert host.core.control(1, "route.get", {"dst": "192.0.2.7"}, host.now)["mtu"] == 900


@pytest.mark.parametrize("quoted", [bytes((192, 0, 2, 7)), OWN, LOOPBACK, DIRECTED, b"\xff" * 4, GROUP, PEER])
def test_no_redirect_for_what_the_gateway_is_not_on_the_way_to(quoted: bytes) -> None:
    """No route at all, ourselves, the network, groups, the gateway itself: RFC 1122 3.2.2.2."""
    host = Host(gateway="", accept_redirects=True, secure_redirects=False)
    message = IcmpMessage(icmp.REDIRECT, 1, bytes((10, 0, 0, 9)), quote_of(dst=quoted))
    host.dropped(icmp_packet(message), reasons.ICMP_REDIRECT_FROM)


# ICMP out


def test_the_rate_mask_is_of_types() -> None:
    """Only type 4 is limited here: destination unreachable, 3, goes out as often as need be (Linux icmp_ratemask)."""
    host = Host(icmp_ratemask=1 << 4, icmp_ratelimit_ms=1000)
    for _ in range(20):
        assert host.replied(packet(proto=132))[1].type == icmp.DEST_UNREACH
    host = Host(icmp_ratemask=1 << 3, icmp_ratelimit_ms=1000)
    assert sum(len(host.feed(packet(proto=132))) for _ in range(20)) == 6


def test_no_error_about_bad_options_in_a_broadcast(host: Host) -> None:
    """RFC 1122 3.2.2; one to our own address is answered."""
    options = bytes((7, 3, 1, 0))
    host.feed(packet(dst=DIRECTED, options=options))
    assert host.core.counters["drop.icmp_error_not_allowed"] == 1
    assert host.replied(packet(options=options))[1].type == icmp.PARAMETER_PROBLEM


@pytest.mark.parametrize(("dst", "flags", "told"), [(OWN, 0, 1), (OWN, BROADCAST, 0), (DIRECTED, 0, 0)])
def test_a_transport_that_refuses(dst: bytes, flags: int, told: int) -> None:
    """Its sender hears of it, but not of what was sent to all, by IP or by the link (RFC 1122 3.2.2)."""
    host = Host(transports={6: "tcp", 17: "udp"})
    header = Ipv4Header.build(PEER, dst, proto=Proto.UDP, payload_length=8).serialize(fill_checksum=True)
    out = host.feed(Refused(7, 3, 3, header, bytes(8), flags))
    assert len(out) == told


def test_an_error_about_another_protocol_is_no_answer_to_a_ping(host: Host) -> None:
    """Its first bytes may look like an echo request that waits."""
    host.ping("192.0.2.7", id=0x1234, seq=1)
    [(_, request)] = host.flush()
    message = IcmpMessage(icmp.DEST_UNREACH, icmp.HOST_UNREACH, bytes(4), quote_of(proto=132, body=request.head[20:28]))
    host.dropped(icmp_packet(message), reasons.ICMP_NO_TRANSPORT)


def test_a_ping_to_ourselves_has_the_ttl_that_we_send(host: Host) -> None:
    """It never goes through a header's bytes."""
    host.ping("127.0.0.1")
    [answer] = host.answers()
    assert answer.data["ttl"] == 64


# downward


def test_a_segment_without_source_to_all_is_from_our_address(host: Host) -> None:
    """By the route of the broadcast address."""
    [(_, out)] = host.feed(segment(src=b"", dst=b"\xff" * 4, flags=BROADCAST, proto=17))
    assert out.head[12:16] == OWN


def test_a_super_segment_that_is_cut_later_takes_an_ident_for_each_piece(host: Host) -> None:
    """Three without DF, so that none comes twice (RFC 6864 4.2)."""
    idents = []
    for payload in (bytes(2900), bytes(10)):
        out = host.sent(segment(payload, gso_size=1000 if len(payload) > 1000 else 0, dont_fragment=False))
        idents.append(int.from_bytes(out.head[4:6], "big"))
    assert (idents[1] - idents[0]) & 0xFFFF == 3


def test_a_fragment_that_is_all_header_has_no_payload_in_memory() -> None:
    """Head 60, room for 48 in the first: the payload in memory begins in the second."""
    place = Place("r", 0, 4096, 0, 100)
    pieces = list(split(bytes(60), place, 48, 48))
    assert pieces[0] == (0, bytes(48), b"", True)
    assert [len(head) + len(rest) for _, head, rest, _ in pieces] == [48, 48, 48, 16]


# routing


def test_a_gateway_that_is_dead_is_passed_over_for_its_own_prefix_only() -> None:
    """The gateway of another prefix is no way to this one (RFC 1122 3.3.1.5)."""
    config = IpConfig(address="10.0.0.2/24", gateway="10.0.0.1", routes=["10.9.0.0/16 via 10.0.0.9"])
    table = RoutingTable(addressing(config))
    table.pass_over(frozenset((PEER,)))
    hop = table.lookup(FAR)
    assert hop is not None and hop.next_hop == PEER
    table.override(FAR, b"", 0)  # nothing was known, and nothing is
    assert table.lookup(FAR) == hop


# upward: options, fragments


def test_where_in_the_options_something_is_wrong() -> None:
    """The pointer counts single bytes as one and all others by their length (RFC 1122 3.2.2.5)."""
    assert check_options(bytes((1, 2, 4, 0, 0, 7, 3, 1))).pointer == 20 + 5 + 2
    assert check_options(bytes((1, 1, 7, 3, 1))).pointer == 20 + 2 + 2


@pytest.mark.parametrize(("offset", "length", "reason"), [(65_512, 3, None), (65_512, 8, reasons.FRAGMENT_BEYOND)])
def test_the_longest_datagram(host: Host, offset: int, length: int, reason: Any) -> None:
    """20 bytes of header and 65,515 of data are what a total length can say (RFC 791 3.1)."""
    frame = packet(bytes(length), frag_offset=offset // 8)
    if reason is None:
        assert host.feed(frame) == [] and host.core.control(1, "fragments", {}, host.now)["datagrams"] == 1
    else:
        host.dropped(frame, reason)


def test_fragment_zeros_options_go_up_with_the_header() -> None:
    """For a transport that may refuse the datagram by ICMP, which quotes it."""
    host = Host(transports={6: "tcp", 17: "udp"})
    options = bytes((1, 1, 1, 1))
    host.feed(packet(bytes(8), proto=17, ident=5, flags=FLAG_MF, options=options))
    up = host.feed(packet(bytes(8), proto=17, ident=5, frag_offset=1))[0][1]
    assert len(up.network) == 24 and up.network[20:] == options
    quoted = Ipv4Header.parse(up.network)
    assert (quoted.total_length, quoted.ident, quoted.src, quoted.dst, quoted.proto) == (40, 5, PEER, OWN, 17)
    whole = host.feed(packet(bytes(8), proto=17, options=options))[0][1]
    assert len(whole.network) == 24 and whole.network[20:] == options


def test_each_datagram_that_waited_too_long_is_looked_at(host: Host) -> None:
    """One refused before and one without its beginning end in silence; the third is reported (RFC 1122 3.3.2)."""
    host.feed(packet(bytes(16), ident=1, flags=FLAG_MF))
    host.feed(packet(bytes(16), ident=1, flags=FLAG_MF, frag_offset=1))  # overlaps: refused
    host.feed(packet(bytes(8), ident=2, frag_offset=1))
    host.feed(packet(bytes(8), ident=3, flags=FLAG_MF))
    host.core.events()
    host.now += 30 * SECOND
    host.core.handle_timer(host.now)
    out = host.flush()
    assert len(out) == 1 and isinstance(out[0][1], Packet)
    assert [event.data["ident"] for event in host.core.events() if event.kind == "drop"] == [2, 3]


# groups


class Longest(random.Random):
    """Every delay is as long as it may be; `least`: as short."""

    least = False

    def randrange(self, start: int, *_: Any) -> int:  # type: ignore[override]
        return 0 if self.least else start - 1


def members(version: int = 3) -> tuple[Memberships, Longest]:
    rng = Longest()
    return Memberships(rng, version), rng


def query(version: int, tenths: int, group: bytes = bytes(4), **more: Any) -> IgmpMessage:
    return IgmpMessage.query(group, code=tenths, **more) if version == 3 else IgmpMessage(QUERY, tenths, group)


@pytest.mark.parametrize("robustness", [1, 2, 3])
def test_joining_and_leaving_are_said_as_often_as_the_querier_wants(robustness: int) -> None:
    """RFC 3376 5.1, 8.1: once at once, then after a while each, never later than a second after the one before."""
    state, _ = members()
    state.heard(query(3, 10, robustness=robustness), ALL_SYSTEMS, 1)
    for verb in (state.join, state.leave):
        now = 10 * SECOND
        said = len(verb(GROUP, "control", now) or [])
        while (due := state.next_timer()) is not None:
            assert due == now + SECOND
            now = due
            said += len(state.handle_timer(now))
        assert said == robustness


def test_an_answer_waits_as_long_as_was_asked_at_most() -> None:
    """RFC 3376 5.2: (0, Max Resp Time]; RFC 2236 3: a delay that runs is not set anew if it ends in time."""
    state, rng = members()
    state.join(GROUP, "control", 0)
    state.handle_timer(SECOND)
    state.heard(query(3, 100), ALL_SYSTEMS, 2 * SECOND)
    assert state.next_timer() == 12 * SECOND
    old, rng = members(2)
    old.join(GROUP, "control", 0)
    old.handle_timer(10 * SECOND)
    old.heard(query(2, 100), ALL_SYSTEMS, 20 * SECOND)
    assert old.next_timer() == 30 * SECOND
    rng.least = True
    old.heard(query(2, 100), ALL_SYSTEMS, 20 * SECOND)
    assert old.next_timer() == 30 * SECOND
    old.heard(query(2, 50), ALL_SYSTEMS, 20 * SECOND)
    assert old.next_timer() == 20 * SECOND + 1


@pytest.mark.parametrize(("more", "answered"), [(24, SOURCES_LIMIT), (25, 0)])
def test_sources_of_two_queries_are_answered_together(more: int, answered: int) -> None:
    """As many as are remembered; beyond that for the group as a whole (RFC 3376 5.2, rule 5)."""
    state, _ = members()
    state.join(GROUP, "control", 0)
    state.handle_timer(SECOND)
    sources = [bytes((10, 1, 0, number)) for number in range(40 + more)]
    state.heard(query(3, 100, GROUP, sources=tuple(sources[:40])), GROUP, 2 * SECOND)
    state.heard(query(3, 100, GROUP, sources=tuple(sources[40:])), GROUP, 2 * SECOND)
    [say] = state.handle_timer(12 * SECOND)
    [record] = parse_igmp(say.data).records  # type: ignore[union-attr]
    assert len(record.sources) == answered


def test_a_query_of_version_2_needs_router_alert_too(host: Host) -> None:
    """RFC 3376 9.1: from version 2 on."""
    data = query(2, 100).serialize(fill_checksum=True)
    host.dropped(packet(data, dst=ALL_SYSTEMS, proto=Proto.IGMP, ttl=1), reasons.IGMP_NO_ALERT)


def test_every_group_that_sockets_leave_is_left(host: Host) -> None:
    """Two at once: two say so."""
    host.feed(Groups([GROUP, OTHER]))
    assert len(heard(host.feed(Groups([])))) == 2


def test_a_segment_in_memory_is_as_long_as_its_place(host: Host) -> None:
    """Total length and ident count it without reading it."""
    out = host.sent(segment(Place("r", 0, 4096, 0, 1000)))
    assert int.from_bytes(out.head[2:4], "big") == 40 + 1000 and isinstance(out, Packet)
    assert isinstance(host.delivered(packet(place=Place("pool", 0, 4096, 0, 64, 1))), Segment)


def test_what_is_no_address_is_told_in_hex(host: Host) -> None:
    """A transport that errs is told of as it errs."""
    host.feed(segment(dst=bytes(5), src=b""))
    [event] = [event for event in host.core.events() if event.kind == "drop"]
    assert event.data["dst"] == "0000000000"


def test_settings_that_were_changed_are_in_a_snapshot() -> None:
    """Whatever the configuration says that a core is restored with."""
    host, before = Host(), Host().core.config
    host.core.set("ttl", 9, host.now)
    again = type(host.core).restore(before, host.core.snapshot())
    again.receive(segment(), host.now)
    [(_, out)] = again.outgoing({})
    assert out.head[8] == 9 and out.iface == 1


def test_what_a_transport_refuses_is_traced_no_further() -> None:
    """Its answer descends from a frame of the transport's, which nobody asked to trace."""
    host = Host(transports={6: "tcp", 17: "udp"})
    header = Ipv4Header.build(PEER, OWN, proto=Proto.UDP, payload_length=8).serialize(fill_checksum=True)
    [(_, out)] = host.feed(Refused(7, 3, 3, header, bytes(8)))
    assert (out.traced, out.causes) == (False, [7])


def test_more_groups_than_can_be_joined(host: Host) -> None:
    """Which one is told; of those that could all are said."""
    out = host.feed(Groups([bytes((239, 2, number >> 8, number & 255)) for number in range(257)]))
    assert len(heard(out)) == 256
    [event] = [event for event in host.core.events() if event.kind == "drop"]
    assert (event.reason, event.frame, event.data) == ("too_many_groups", 0, {"group": "239.2.1.0"})


def test_what_waited_for_a_process_that_is_gone_is_told_by_its_number(host: Host) -> None:
    """Routes have none."""
    host.core.receive(packet(), host.now)
    host.core.receive(NeighbourUp("tcp", 9), host.now)
    host.core.receive(NeighbourDown("tcp"), host.now)
    drops = [event for event in host.core.events() if event.kind == "drop"]
    assert [event.frame >> 60 for event in drops] == [2, 0] and drops[1].frame == 0


def test_whoever_else_reports_a_group_spares_us_doing_so() -> None:
    """RFC 2236 3: nothing is to be said any more."""
    state, _ = members(2)
    state.join(GROUP, "control", 0)
    state.heard(IgmpMessage(REPORT_V2, 0, GROUP), GROUP, SECOND)
    [group] = state.groups()
    assert (group.answer_at, group.repeat_at, group.repeats, group.reporter) == (0, 0, 0, False)


def test_a_path_mtu_that_a_ping_found_is_kept_as_configured(host: Host) -> None:
    """ip.mtu_expires_ms."""
    host.ping("192.0.2.7", id=0x1234, seq=1)
    [(_, request)] = host.flush()
    quoted = quote_of(proto=Proto.ICMP, body=request.head[20:28])
    host.feed(icmp_packet(IcmpMessage(icmp.DEST_UNREACH, icmp.FRAG_NEEDED, (1000).to_bytes(4, "big"), quoted)))
    [row] = host.core.control(1, "route.cache", {}, host.now)["cache"]
    assert (row["mtu"], row["mtu_expires_ms"]) == (1000, 600_000)


def test_a_datagram_is_traced_if_any_fragment_was(host: Host) -> None:
    """The first, not the last."""
    host.feed(packet(bytes(8), ident=5, flags=FLAG_MF))
    last = packet(bytes(12), ident=5, frag_offset=1)
    last.traced = False
    host.core.receive(last, host.now)
    [(_, up)] = host.flush()
    assert up.traced is True


def test_a_datagram_is_not_traced_if_no_fragment_was(host: Host) -> None:
    """Tracing is asked for at the packet, not given by us."""
    for piece in (packet(bytes(8), ident=5, flags=FLAG_MF), packet(bytes(12), ident=5, frag_offset=1)):
        piece.traced = False
        host.core.receive(piece, host.now)
    [(_, up)] = host.flush()
    assert up.traced is False


def test_a_head_may_be_all_header_before_a_payload_in_memory(host: Host) -> None:
    """Of 20 bytes or with options: the IP header is whole, and more ip does not look at."""
    for options in (b"", bytes((1, 1, 1, 1))):
        up = host.delivered(packet(b"", place=Place("r", 0, 4096, 0, 100), options=options))
        assert (up.head, up.payload) == (b"", Place("r", 0, 4096, 0, 100))


def test_the_way_of_a_group_is_a_route_of_its_own(host: Host) -> None:
    """lvlip route get: all of 224.0.0.0/4 is on the link, from our first address (RFC 1112 6.1)."""
    row = host.core.control(1, "route.get", {"dst": "239.1.1.1"}, host.now)
    assert (row["prefix"], row["kind"], row["source"]) == ("224.0.0.0/4", "multicast", "10.0.0.2")
    [(_, out)] = host.feed(segment(src=b"", dst=bytes((239, 1, 1, 1)), flags=BROADCAST, proto=17))
    assert out.head[12:16] == OWN


def test_a_restored_core_has_its_limits_of_errors(host: Host) -> None:
    """Six errors to one destination are as many after a restore, and the next comes a second later."""
    for _ in range(6):
        assert host.feed(packet(bytes(8), proto=99))
    assert host.feed(packet(bytes(8), proto=99)) == []
    host.core = type(host.core).restore(host.core.config, host.core.snapshot())
    host.now += SECOND - 1
    assert host.feed(packet(bytes(8), proto=99)) == []
    host.now += 1
    assert host.feed(packet(bytes(8), proto=99))
    assert host.feed(packet(bytes(8), proto=99)) == []


def test_a_restored_core_joins_groups_by_its_version() -> None:
    """ip.igmp_version; and repeats it after a random while."""
    host = Host(igmp_version=2)
    host.core = type(host.core).restore(host.core.config, host.core.snapshot())
    [(dst, message)] = heard(host.feed(Groups([GROUP])))
    assert (dst, message.type) == (GROUP, REPORT_V2)
    due = host.core.next_timer()
    assert due is not None and host.now < due <= host.now + 10 * SECOND


def test_a_restored_core_puts_fragments_together_within_its_limits() -> None:
    """fragments_per_datagram, fragment_memory and fragment_time_ms as before."""
    host = Host(fragments_per_datagram=2, fragment_memory=6000, fragment_time_ms=20_000)
    host.core = type(host.core).restore(host.core.config, host.core.snapshot())
    host.feed(packet(bytes(4000), ident=2, flags=FLAG_MF))
    host.dropped(packet(bytes(4000), ident=3, flags=FLAG_MF), reasons.FRAGMENT_MEMORY)
    for number in range(2):
        assert host.feed(packet(bytes(8), ident=1, flags=FLAG_MF, frag_offset=number)) == []
    assert host.core.next_timer() == host.now + 20 * SECOND
    host.dropped(packet(bytes(8), ident=1, flags=FLAG_MF, frag_offset=2), reasons.FRAGMENT_COUNT)


def test_an_address_in_a_network_that_is_known_hides_none_after_it() -> None:
    """The third address is on a network of its own."""
    host = Host(addresses=["10.0.0.3/24", "10.1.0.2/16"])
    out = host.sent(segment(src=bytes((10, 1, 0, 2)), dst=bytes((10, 1, 0, 9))))
    assert (out.next_hop, out.flags) == (bytes((10, 1, 0, 9)), 0)
