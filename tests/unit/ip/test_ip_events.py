"""What ip counts and tells, scenario by scenario: each counter that moves, each event with all its figures.

Counters begin with 1000 here, so that one that is set instead of raised shows.
"""

from __future__ import annotations

from typing import Any

import pytest
from ip_host import FAR, MS, OWN, PEER, SECOND, Host, icmp_packet, link_state, packet, quote_of, segment

from levelip.config import IpConfig
from levelip.frames.core import ControlError
from levelip.frames.packet import BROADCAST, Doubt, Packet, PathMtu, Unreachable
from levelip.frames.seam import NeighbourDown
from levelip.rpc.place import Place
from levelip.tracing import reasons
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import ALL_SYSTEMS, IgmpMessage
from levelip.wire.ipv4 import FLAG_MF, Proto

BEFORE = 1000
COUNTERS = (
    "doubts", "fragment.datagrams_cut", "fragment.in", "fragment.reassembled", "fragment.sent", "icmp.errors_sent",
    "icmp.in", "icmp.out", "icmp.to_transport", "igmp.in", "igmp.out", "in.bytes", "in.delivered", "in.packets",
    "loopback.bytes", "loopback.packets", "out.bytes", "out.packets", "path_mtu_lowered", "redirects",
)  # fmt: skip
OTHER = bytes((10, 0, 0, 9))
FARTEXT = "192.0.2.7"
ALERT = bytes((148, 4, 0, 0))


def counting(**how: Any) -> Host:
    """A host; from now on `counted` tells what is added."""
    host = Host(**how)
    host.core.counters.clear()
    host.core.counters.update(dict.fromkeys(COUNTERS, BEFORE))
    host.core.events()
    return host


def counted(host: Host) -> dict[str, int]:
    """Since the last look."""
    found = {
        name: value - (BEFORE if name in COUNTERS else 0)
        for name, value in host.core.counters.items()
        if name not in COUNTERS or value != BEFORE
    }
    host.core.counters.clear()
    host.core.counters.update(dict.fromkeys(COUNTERS, BEFORE))
    return found


def told(host: Host) -> list[tuple[Any, ...]]:
    """(kind, frame, figures) of the events since the last look, all of this instant."""
    events = host.core.events()
    assert all(event.at == host.now and event.reason == "" and event.conn == "" for event in events)
    return [(event.kind, event.frame, event.data) for event in events]


def test_packets_in_and_out() -> None:
    """Their lengths with the IP header. Nothing is told of what is usual."""
    host = counting()
    host.feed(packet())
    assert counted(host) == {"in.packets": 1, "in.bytes": 40, "in.delivered": 1}
    host.feed(segment(b"x" * 100))
    assert counted(host) == {"out.packets": 1, "out.bytes": 140}
    host.feed(segment(b"x" * 100, dst=OWN))
    assert counted(host) == {"loopback.packets": 1, "loopback.bytes": 140}
    assert told(host) == []


def test_a_packet_that_is_cut() -> None:
    """3020 bytes of payload are 1480, 1480 and 60."""
    host = counting()
    out = host.feed(segment(b"x" * 3000, dont_fragment=False))
    assert counted(host) == {
        "fragment.datagrams_cut": 1, "fragment.sent": 3, "out.packets": 3, "out.bytes": 3020 + 3 * 20,
    }  # fmt: skip
    ident = int.from_bytes(out[0][1].head[4:6], "big")
    assert told(host) == [("fragment", 99, {"dst": "10.0.0.1", "ident": ident, "pieces": 3, "mtu": 1500})]


@pytest.mark.parametrize("group", [False, True])
def test_a_datagram_put_together(group: bool) -> None:
    """Told with the frame that completed it."""
    host = counting()
    flags = BROADCAST if group else 0
    host.feed(packet(bytes(16), frag_offset=0, flags=FLAG_MF, ident=7, id=1, link_flags=flags))
    host.feed(packet(bytes(8), frag_offset=2, ident=7, id=2, link_flags=flags))
    expected = {"in.packets": 2, "in.bytes": 36 + 28, "fragment.in": 2, "fragment.reassembled": 1, "in.delivered": 1}
    if not group:
        assert counted(host) == expected
        figures = {"fragments": 2, "length": 24, "src": "10.0.0.1", "dst": "10.0.0.2", "ident": 7}
        assert told(host) == [("reassembled", 2, figures)]
    else:  # ours, in a frame for all: RFC 1122 3.3.6
        assert counted(host)["drop.link_broadcast"] == 2


def test_an_echo() -> None:
    """In, and the reply out."""
    host = counting()
    host.feed(icmp_packet(IcmpMessage.echo_request(ident=1, sequence=2, payload=b"abc")))
    assert counted(host) == {
        "in.packets": 1, "in.bytes": 31, "icmp.in": 1, "icmp.out": 1, "out.packets": 1, "out.bytes": 31,
    }  # fmt: skip
    assert told(host) == [("icmp", 77, {"name": "echo request", "src": "10.0.0.1", "dst": "10.0.0.2"})]


def test_an_error_for_a_transport_and_one_of_ours() -> None:
    """`dst` is whom our packet was for."""
    host = counting()
    host.feed(icmp_packet(IcmpMessage.dest_unreachable(1, quote_of())))
    assert counted(host) == {"in.packets": 1, "in.bytes": 20 + 8 + 40, "icmp.in": 1, "icmp.to_transport": 1}
    figures = {"name": "host unreachable", "src": "10.0.0.1", "dst": FARTEXT, "proto": "TCP"}
    assert told(host) == [("icmp", 77, figures)]
    host.feed(packet(proto=132))
    assert counted(host) == {
        "in.packets": 1, "in.bytes": 40, "drop.no_protocol": 1, "icmp.errors_sent": 1, "icmp.out": 1, "out.packets": 1,
        "out.bytes": 20 + 8 + 40,
    }  # fmt: skip


def test_what_is_learned_of_paths() -> None:
    """A redirect, a smaller MTU, its end, and a doubt."""
    host = counting()
    host.feed(icmp_packet(IcmpMessage.redirect(1, quote_of(), gateway=OTHER)))
    assert counted(host) == {"in.packets": 1, "in.bytes": 20 + 8 + 40, "icmp.in": 1, "redirects": 1}
    assert told(host) == [("redirect", 77, {"dst": FARTEXT, "old": "10.0.0.1", "new": "10.0.0.9"})]
    host.feed(Doubt(FAR))
    assert counted(host) == {"doubts": 1}
    assert told(host) == [("doubt", 0, {"dst": FARTEXT})]
    host.feed(PathMtu(FAR, 1280))
    assert counted(host) == {"path_mtu_lowered": 1}
    assert told(host) == [("pmtu", 0, {"dst": FARTEXT, "old": 1500, "new": 1280})]
    host.now += 600 * SECOND
    host.core.handle_timer(host.now)
    assert counted(host) == {}
    assert told(host) == [("pmtu", 0, {"dst": FARTEXT, "old": 0, "new": 1500})]


def test_a_gateway_that_does_not_answer() -> None:
    """Told where it is one of the table; the transport hears of its packet."""
    host = counting()
    host.feed(Unreachable(1, PEER, quote_of(), [5]))
    assert told(host) == [("gateway", 0, {"gateway": "10.0.0.1", "retry_ms": IpConfig().gateway_retry_ms})]
    assert counted(host) == {"icmp.to_transport": 1}
    host.feed(Unreachable(1, OTHER, quote_of(), [5]))
    assert told(host) == []


def test_the_device_and_the_routes() -> None:
    """A change of the device, and how many routes the transports know then; the same again is no news."""
    host = counting()
    host.feed(link_state(mtu=1400, gso_max=0))
    [link, route] = told(host)
    assert link == ("link", 0, {"name": "tap0", "up": True, "mtu": 1400, "gso_max": 0})
    assert (route[0], route[1]) == ("route", 0) and route[2] == {"routes": len(host.routes().routes)}
    host.core.events()
    host.feed(link_state(mtu=1400, gso_max=0))
    assert told(host) == [] and counted(host) == {}


def test_groups() -> None:
    """A query that comes, and the report that we send at once and once more."""
    host = counting()
    host.core.control(1, "group.join", {"group": "239.1.2.3"}, host.now)
    host.flush()
    found = counted(host)
    assert (found["igmp.out"], found["out.packets"]) == (1, 1)
    told(host)
    query = IgmpMessage.query()
    data = query.serialize(fill_checksum=True)
    host.feed(packet(data, dst=ALL_SYSTEMS, proto=Proto.IGMP, ttl=1, options=ALERT, link_flags=BROADCAST))
    assert counted(host) == {"in.packets": 1, "in.bytes": 24 + len(data), "igmp.in": 1, "option.router_alert": 1}
    assert told(host) == [("igmp", 77, {"name": str(query), "src": "10.0.0.1", "dst": "224.0.0.1"})]


def test_what_waited_for_a_neighbour_that_went() -> None:
    """Counted and told, with the frame that is lost, and for whom it was."""
    host = counting()
    host.core.receive(packet(), host.now)
    host.core.receive(NeighbourDown("tcp"), host.now)
    assert host.flush() == []
    [event] = host.core.events()
    assert (event.kind, event.reason, event.data) == ("drop", "neighbour_down", {"to": "tcp"})
    assert event.frame >> 60 == 2  # one of ip's own ids
    assert counted(host)["drop.neighbour_down"] == 1


# settings that change while it runs


def test_limits_of_icmp_errors_change_at_once() -> None:
    """icmp_ratelimit_ms: six errors to one host, then one in so long; icmp_burst, icmp_rate_per_s: all together."""
    host = counting(icmp_ratelimit_ms=1000, icmp_burst=100, icmp_rate_per_s=1)
    for _ in range(7):
        host.feed(packet(proto=132))
    assert counted(host)["drop.icmp_host_rate_limited"] == 1
    host.core.set("icmp_ratelimit_ms", 10, host.now)  # and with it all is forgotten
    for _ in range(6):
        host.feed(packet(proto=132))
    assert "drop.icmp_host_rate_limited" not in counted(host)
    host.now += 10 * MS
    host.feed(packet(proto=132))
    assert "drop.icmp_host_rate_limited" not in counted(host)
    host.feed(packet(proto=132))
    assert counted(host)["drop.icmp_host_rate_limited"] == 1
    host.core.set("icmp_ratelimit_ms", 0, host.now)
    for key in ("icmp_burst", "icmp_rate_per_s"):
        host.core.set(key, 2, host.now)
        for _ in range(3):
            host.feed(packet(proto=132))
        assert counted(host)["drop.icmp_rate_limited"] == 1  # a full bucket of two each time


def test_limits_of_reassembly_change_at_once() -> None:
    """How many fragments a datagram may have, how long it may take."""
    host = counting()
    host.core.set("fragments_per_datagram", 2, host.now)
    host.core.set("fragment_time_ms", 20_000, host.now)
    host.feed(packet(bytes(8), frag_offset=0, flags=FLAG_MF, ident=7))
    assert host.core.next_timer() == host.now + 20_000 * MS
    host.feed(packet(bytes(8), frag_offset=1, flags=FLAG_MF, ident=7))
    assert "drop.fragment_too_many" not in counted(host)
    host.feed(packet(bytes(8), frag_offset=2, flags=FLAG_MF, ident=7))
    assert counted(host)["drop.fragment_too_many"] == 1
    host.core.set("fragment_memory", 1, host.now)
    host.feed(packet(bytes(8), frag_offset=0, flags=FLAG_MF, ident=8))
    assert counted(host)["drop.fragment_memory"] >= 1


def test_a_setting_that_does_not_exist() -> None:
    """Refused in words, and nothing changes."""
    host = counting()
    with pytest.raises(ControlError, match="no setting"):
        host.core.set("colour", 1, host.now)
    assert counted(host) == {}


# the same at other places


def test_igmp_in_shared_memory() -> None:
    """Nobody reads it there."""
    host = counting()
    place = Place("pool", 0, 65_536, 54, 40)
    frame = packet(b"", place=place, dst=ALL_SYSTEMS, proto=Proto.IGMP, ttl=1, link_flags=BROADCAST)
    host.dropped(frame, reasons.IP_NOT_INLINE)
    host.feed(frame)
    [event] = host.core.events()
    assert event.data == {"src": "10.0.0.1", "dst": "224.0.0.1", "proto": "IGMP"}


def test_a_timestamp_request() -> None:
    """Told like an echo."""
    host = counting()
    host.feed(icmp_packet(IcmpMessage(13, 0, bytes(4), bytes(12))))
    assert told(host) == [("icmp", 77, {"name": "timestamp request", "src": "10.0.0.1", "dst": "10.0.0.2"})]


def test_errors_that_are_not_sent() -> None:
    """To one host too often, in all too often, to nobody who may get one: each names the packet."""
    host = counting(icmp_ratelimit_ms=1000, icmp_burst=7, icmp_rate_per_s=1)
    for _ in range(6):
        host.feed(packet(proto=132))
    host.core.events()
    for src, reason in ((PEER, "icmp_host_rate_limited"), (OTHER, ""), (bytes((10, 0, 0, 8)), "icmp_rate_limited")):
        host.feed(packet(proto=132, src=src))
        events = [event for event in host.core.events() if event.reason.startswith("icmp")]
        assert [event.reason for event in events] == ([reason] if reason else [])
        for event in events:
            assert event.frame == 77
            assert event.data == {"src": ".".join(map(str, src)), "dst": "10.0.0.2"}
    host.feed(packet(proto=132, dst=bytes((10, 0, 0, 255)), link_flags=BROADCAST))
    [event] = [event for event in host.core.events() if event.reason == "icmp_error_not_allowed"]
    assert (event.frame, event.data) == (77, {"src": "10.0.0.1", "dst": "10.0.0.255"})


def test_an_error_for_nobody() -> None:
    """About a protocol that no process takes, or a ping that nobody waits for; without a frame from link: 0."""
    host = counting()
    host.feed(icmp_packet(IcmpMessage.dest_unreachable(3, quote_of(proto=132))))
    [event] = [event for event in host.core.events() if event.reason == "icmp_no_transport"]
    assert event.frame == 77
    assert event.data == {"dst": FARTEXT, "proto": "SCTP", "error": "port unreachable"}
    host.feed(Unreachable(1, OTHER, quote_of(proto=254), []))
    [event] = [event for event in host.core.events() if event.reason == "icmp_no_transport"]
    assert event.frame == 0
    assert event.data == {"dst": FARTEXT, "proto": 254, "error": "host unreachable"}
    host.feed(Unreachable(1, OTHER, quote_of(proto=254), [5, 6]))
    [event] = [event for event in host.core.events() if event.reason == "icmp_no_transport"]
    assert event.frame == 5


def test_what_ip_says_of_itself() -> None:
    """A report of a group: caused by no frame, not traced, from now on, for all, with the TTL of the link alone."""
    host = counting()
    host.now += 5
    host.core.control(1, "group.join", {"group": "239.1.2.3"}, host.now)
    [out] = [frame for _, frame in host.flush() if isinstance(frame, Packet)]
    assert (out.causes, out.traced, out.ingress, out.flags) == ([], False, host.now, BROADCAST)
    assert (out.head[8], out.head[9], out.next_hop) == (1, 2, bytes((224, 0, 0, 22)))


def test_an_error_about_what_was_looped_back() -> None:
    """Nobody takes the protocol here: no error goes to 127.0.0.1, the drop names the segment."""
    host = counting()
    host.feed(segment(b"x", dst=OWN, proto=132))
    drops = [event for event in host.core.events() if event.kind == "drop"]
    assert (drops[0].reason, drops[0].frame) == ("no_protocol", 99)
    assert drops[0].data == {"src": "10.0.0.2", "dst": "10.0.0.2", "proto": "SCTP"}


def test_pipes_that_are_full() -> None:
    """What finds no room is dropped at the flush, and told for whom it was."""
    host = counting()
    host.core.receive(packet(), host.now)
    out = host.flush(tcp=0)
    drops = [event for event in host.core.events() if event.reason == "pipe_full"]
    assert out == [] and [event.data for event in drops] == [{"to": "tcp"}]
    assert counted(host)["drop.pipe_full"] == 1
