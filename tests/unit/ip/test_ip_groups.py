"""Multicast: which groups are taken, and what IGMP says of them and when (RFC 3376, RFC 2236, RFC 1112)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ip_host import LOOPBACK, MS, OWN, PEER, SECOND, Host, icmp_packet, link_state, packet, segment

from layers.ip.membership import GROUPS_LIMIT
from levelip.frames.core import ControlError
from levelip.frames.packet import BROADCAST, Local, Packet
from levelip.frames.seam import NeighbourUp
from levelip.tracing import reasons
from levelip.wire.checksum import internet_checksum
from levelip.wire.icmp import IcmpMessage
from levelip.wire.igmp import (
    ALL_IGMPV3_ROUTERS,
    ALL_ROUTERS,
    ALL_SYSTEMS,
    LEAVE,
    QUERY,
    REPORT_V1,
    REPORT_V2,
    IgmpMessage,
    IgmpReport,
    parse_igmp,
)
from levelip.wire.ipv4 import Ipv4Header, Proto

GROUP = bytes((239, 1, 2, 3))
OTHER = bytes((239, 1, 2, 4))
ALERT = bytes((148, 4, 0, 0))
IS_IN, IS_EX, TO_IN, TO_EX = 1, 2, 3, 4

Said = tuple[bytes, IgmpMessage | IgmpReport]


def heard(out: list[tuple[str, Any]]) -> list[Said]:
    """The IGMP messages among what came out: TTL 1, router alert, right checksums, from our address."""
    said = []
    for port, frame in out:
        if port != "link" or not isinstance(frame, Packet):
            continue
        header = Ipv4Header.parse(frame.head)
        assert header.serialize(fill_checksum=True) == frame.head[: header.length]
        assert (header.proto, header.ttl, header.options, header.src) == (Proto.IGMP, 1, ALERT, OWN)
        assert frame.next_hop == header.dst and frame.flags == BROADCAST
        message = parse_igmp(frame.head[header.length :] + frame.payload)
        assert message.checksum_ok
        if isinstance(message, IgmpReport):
            assert header.tos == 0xC0  # RFC 3376 4
        said.append((header.dst, message))
    return said


def records(said: list[Said]) -> list[tuple[int, bytes]]:
    """Kind and group of all records, of reports to the routers of version 3."""
    assert all(dst == ALL_IGMPV3_ROUTERS for dst, _ in said)
    return [(each.kind, each.group) for _, report in said for each in report.records]  # type: ignore[union-attr]


def join(host: Host, group: str = "239.1.2.3") -> list[Said]:
    host.core.control(1, "group.join", {"group": group}, host.now)
    return heard(host.flush())


def settle(host: Host, steps: int = 20) -> list[Said]:
    """Let all timers fire, at most so many; what was said."""
    said: list[Said] = []
    for _ in range(steps):
        due = host.core.next_timer()
        if due is None:
            break
        host.now = max(host.now, due)
        host.core.handle_timer(host.now)
        said += heard(host.flush())
    return said


def query(message: IgmpMessage | None = None, **fields: Any) -> Packet:
    data = (message or IgmpMessage.query()).serialize(fill_checksum=True)
    known = {"dst": ALL_SYSTEMS, "proto": Proto.IGMP, "ttl": 1, "options": ALERT, "link_flags": BROADCAST}
    return packet(data, **{**known, **fields})


def v2(kind: int, group: bytes = bytes(4), code: int = 0) -> IgmpMessage:
    return IgmpMessage(kind, code, group)


@pytest.mark.rfc(
    "RFC 3376 4.2.12", "RFC 1112 7.2", "RFC 3376 4.2.13-1", "RFC 3376 5.1-1", "RFC 3376 5.1-2", "RFC 3376 4.2.14-1",
    "RFC 1122 3.3.7-2", "RFC 3376 4-1",
)  # fmt: skip
def test_joining(host: Host) -> None:
    """At once, and once more within a second: "change to exclude nothing". From then on the group is ours."""
    host.dropped(packet(dst=GROUP, link_flags=BROADCAST), reasons.MULTICAST_UNJOINED)
    assert records(join(host)) == [(TO_EX, GROUP)]
    assert host.delivered(packet(dst=GROUP, link_flags=BROADCAST)).flags == BROADCAST
    start = host.now
    assert records(settle(host)) == [(TO_EX, GROUP)] and start < host.now <= start + SECOND
    assert join(host) == [] and settle(host) == []
    assert host.core.control(1, "groups", {}, host.now) == {
        "groups": [{"group": "224.0.0.1", "users": ["always"]}, {"group": "239.1.2.3", "users": ["control"]}],
        "version": 3,
    }


@pytest.mark.rfc("RFC 3376 5.1-1", "RFC 3376 5.1-2")
def test_leaving(host: Host) -> None:
    """Leaving is said twice, too; the group is no longer ours."""
    join(host)
    settle(host)
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)
    assert records(heard(host.flush())) == [(TO_IN, GROUP)]
    assert records(settle(host)) == [(TO_IN, GROUP)]
    host.dropped(packet(dst=GROUP, link_flags=BROADCAST), reasons.MULTICAST_UNJOINED)
    with pytest.raises(ControlError, match="not joined"):
        host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)


@pytest.mark.rfc("RFC 3376 5", "RFC 1112 7.2", "RFC 1122 3.3.7-3", "RFC 3376 5.1-4", "RFC 2236 6-1")
def test_all_systems_is_always_ours(host: Host) -> None:
    """224.0.0.1 is taken without joining, and nothing is ever said of it."""
    assert host.delivered(packet(dst=ALL_SYSTEMS, link_flags=BROADCAST))
    assert join(host, "224.0.0.1") == []
    host.feed(query())
    assert settle(host) == []


def test_groups_of_the_configuration() -> None:
    """Joined from the start, and said when the device comes up, each time."""
    host = Host(device=False, multicast_groups=["239.1.2.3", "239.1.2.4", "239.1.2.3"])
    assert host.delivered(packet(dst=OTHER, link_flags=BROADCAST))
    assert records(heard(host.feed(link_state()))) == [(TO_EX, GROUP), (TO_EX, OTHER)]
    settle(host)
    assert heard(host.feed(link_state(mtu=1400))) == []
    host.feed(link_state(up=False))
    assert join(host, "239.9.9.9") == []  # nobody could hear it
    assert len(records(heard(host.feed(link_state())))) == 3
    with pytest.raises(ControlError, match="not joined by command"):
        host.core.control(1, "group.leave", {"group": "239.1.2.4"}, host.now)


@pytest.mark.rfc("RFC 1112 7.3")
def test_link_is_told(host: Host) -> None:
    """link's filter needs the groups: told when link comes up and at each change, the newest only."""
    [(_, told)] = host.feed(NeighbourUp("link", 3))
    assert told == Local([OWN], [bytes((10, 0, 0, 0)), bytes((10, 0, 0, 255)), b"\xff" * 4], [ALL_SYSTEMS])
    host.core.control(1, "group.join", {"group": "239.1.2.3"}, host.now)
    host.core.control(1, "group.join", {"group": "239.1.2.4"}, host.now)
    told = [frame.groups for _, frame in host.flush() if isinstance(frame, Local)]
    assert told == [[ALL_SYSTEMS, GROUP, OTHER]]


@pytest.mark.rfc("RFC 3376 5.2-1", "RFC 3376 5.2-2")
def test_general_queries_are_answered_once(host: Host) -> None:
    """All groups in one report, after a random while within the time that the query allows."""
    join(host)
    join(host, "239.1.2.4")
    settle(host)
    start = host.now
    host.feed(query(IgmpMessage.query(code=50)))
    host.feed(query(IgmpMessage.query(code=100)))  # RFC 3376 5.2, rule 1 or 2: the answer comes no later
    assert records(settle(host)) == [(IS_EX, GROUP), (IS_EX, OTHER)]
    assert start < host.now <= start + 10 * SECOND


@pytest.mark.rfc("RFC 3376 5.2-1")
def test_delays_differ() -> None:
    """The delay is random: of many queries the answers spread over the whole time."""
    host = Host()
    join(host)
    settle(host)
    waits = []
    for _ in range(60):
        start = host.now
        host.feed(query())
        settle(host)
        waits.append(host.now - start)
    assert min(waits) < 2 * SECOND and max(waits) > 8 * SECOND and max(waits) <= 10 * SECOND


@pytest.mark.rfc("RFC 3376 5.2-4", "RFC 3376 5.2-5")
def test_specific_queries(host: Host) -> None:
    """About a group: its state alone. About sources: those of them that are wanted, which are all. Others': nothing."""
    join(host)
    join(host, "239.1.2.4")
    settle(host)
    host.feed(query(IgmpMessage.query(GROUP, code=10), dst=GROUP))
    assert records(settle(host)) == [(IS_EX, GROUP)]
    sources = (PEER, bytes((10, 0, 0, 9)))
    host.feed(query(IgmpMessage.query(GROUP, code=10, sources=sources[:1]), dst=GROUP))
    host.feed(query(IgmpMessage.query(GROUP, code=10, sources=sources), dst=GROUP))  # rule 5: both together
    [(_, report)] = settle(host)
    assert isinstance(report, IgmpReport)
    assert [(r.kind, r.sources) for r in report.records] == [(IS_IN, sources)]
    host.feed(query(IgmpMessage.query(GROUP, code=10, sources=sources), dst=GROUP))
    host.feed(query(IgmpMessage.query(GROUP, code=10), dst=GROUP))  # rule 4: about the group as a whole
    assert records(settle(host)) == [(IS_EX, GROUP)]
    host.feed(query(IgmpMessage.query(bytes((239, 7, 7, 7)), code=10), dst=OWN, link_flags=0))
    assert settle(host) == []


@pytest.mark.rfc("RFC 3376 7.2.1-1", "RFC 3376 7.2.1-2", "RFC 3376 8.12-1", "RFC 2236 3-4", "RFC 2236 3-6")
def test_a_version_2_querier(host: Host) -> None:
    """Version 2 is spoken while its querier is there: reports to the group, leaves to all routers; 260 s later 3."""
    join(host)
    settle(host)
    start = host.now
    host.feed(query(v2(QUERY, code=100)))
    [(dst, message)] = settle(host)
    assert dst == GROUP and isinstance(message, IgmpMessage) and (message.type, message.group) == (REPORT_V2, GROUP)
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)
    [(dst, message)] = heard(host.flush())
    assert dst == ALL_ROUTERS and isinstance(message, IgmpMessage) and message.type == LEAVE and message.group == GROUP
    host.now = start + 260 * SECOND - 1  # 2 x 125 + 10 s (RFC 3376 8.12)
    assert host.core.control(1, "groups", {}, host.now)["version"] == 2
    host.now += 1
    assert records(join(host)) == [(TO_EX, GROUP)]


@pytest.mark.rfc("RFC 1112 I", "RFC 3376 7.2.1-1", "RFC 2236 4-1")
def test_a_version_1_querier(host: Host) -> None:
    """Version 1: reports of type 0x12, and nobody says that he leaves. It outweighs a version 2 querier."""
    join(host)
    settle(host)
    host.feed(query(v2(QUERY, code=100)))
    host.feed(query(v2(QUERY), options=b""))
    [(dst, message)] = settle(host)
    assert dst == GROUP and isinstance(message, IgmpMessage) and message.type == REPORT_V1
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)
    assert heard(host.flush()) == []


@pytest.mark.rfc("RFC 2236 3-3", "RFC 2236 3-6")
def test_reports_of_others_suppress_ours(host: Host) -> None:
    """Version 2: whoever hears another's report for the group in time says nothing, and later leaves in silence."""
    join(host)
    settle(host)
    host.feed(query(v2(QUERY, code=100)))
    host.feed(query(v2(REPORT_V2, GROUP), dst=GROUP))
    assert settle(host) == []
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)
    assert heard(host.flush()) == []


@pytest.mark.rfc("RFC 3376 5.2", "RFC 2236 3-5")
def test_version_2_joins_twice() -> None:
    """ip.igmp_version = 2: two reports, the second within ten seconds (RFC 2236 8.10); a specific query is answered."""
    host = Host(igmp_version=2)
    [(dst, first)] = join(host)
    start = host.now
    [(again, second)] = settle(host)
    assert dst == again == GROUP and first == second and isinstance(first, IgmpMessage) and first.type == REPORT_V2
    assert start < host.now <= start + 10 * SECOND
    join(host, "239.1.2.4")
    settle(host)
    host.feed(query(v2(QUERY, GROUP, code=10), dst=GROUP))
    assert [dst for dst, _ in settle(host)] == [GROUP]


@pytest.mark.rfc("RFC 3376 7.2.1-3")
def test_a_change_of_version_cancels_what_is_pending(host: Host) -> None:
    """RFC 3376 7.2.1: pending responses and repetitions are dropped when the version changes."""
    join(host)
    host.feed(query(IgmpMessage.query(code=100)))
    host.feed(query(v2(QUERY, bytes((239, 7, 7, 7)), code=10), dst=OWN, link_flags=0))
    assert settle(host) == []


@pytest.mark.rfc("RFC 3376 4.1.6-1")
def test_the_queriers_robustness_is_taken(host: Host) -> None:
    """QRV 4: a join is said four times."""
    host.feed(query(IgmpMessage.query(robustness=4)))
    assert len(join(host)) + len(settle(host)) == 4


@pytest.mark.rfc("RFC 3376 4.1.2-1", "RFC 3376 9.1-1", "RFC 3376 4-2", "RFC 2236 2-1", "RFC 2236 2-2")
def test_what_is_ignored(host: Host) -> None:
    """Damaged, unknown, from beyond the link, to the wrong group, or for routers only: each with its reason."""
    join(host)
    settle(host)
    good = IgmpMessage.query().serialize(fill_checksum=True)
    fields: dict[str, Any] = {"dst": ALL_SYSTEMS, "proto": Proto.IGMP, "ttl": 1, "options": ALERT}
    host.dropped(packet(good[:7], **fields), reasons.IGMP_MALFORMED)
    host.dropped(packet(good[:10], **fields), reasons.IGMP_MALFORMED)
    host.dropped(packet(good[:1] + b"\1" + good[2:], **fields), reasons.IGMP_CHECKSUM)
    host.dropped(query(options=b""), reasons.IGMP_NO_ALERT)
    host.dropped(query(ttl=2), reasons.IGMP_NO_ALERT)
    host.dropped(query(dst=GROUP), reasons.IGMP_BAD_QUERY)
    host.dropped(query(IgmpMessage.query(OTHER), dst=GROUP), reasons.IGMP_BAD_QUERY)
    host.dropped(query(v2(LEAVE, GROUP)), reasons.IGMP_REPORT)
    host.dropped(query(v2(REPORT_V2, GROUP), dst=GROUP), reasons.IGMP_REPORT)
    host.dropped(query(v2(0x99, GROUP)), reasons.IGMP_UNKNOWN_TYPE)
    report = IgmpReport(()).serialize(fill_checksum=True)
    host.dropped(packet(report, **fields), reasons.IGMP_REPORT)
    host.dropped(query(v2(QUERY, GROUP), dst=GROUP, options=b""), reasons.IGMP_BAD_QUERY)  # version 1 knows no such
    host.core.control(1, "group.leave", {"group": "239.1.2.3"}, host.now)


@pytest.mark.rfc("RFC 4541 2.1.1")
def test_a_switch_without_an_address_may_ask(host: Host) -> None:
    """A query from 0.0.0.0 to 224.0.0.1 is taken; nothing else from there is."""
    join(host)
    settle(host)
    host.feed(query(src=bytes(4)))
    assert records(settle(host)) == [(IS_EX, GROUP)]
    host.dropped(query(src=bytes(4), dst=GROUP), reasons.MARTIAN_SOURCE)
    host.dropped(packet(src=bytes(4), dst=ALL_SYSTEMS), reasons.MARTIAN_SOURCE)


@pytest.mark.rfc("RFC 1112 6.1", "RFC 1122 3.3.7-1", "RFC 1122 3.3.6-5")
def test_sending_to_groups() -> None:
    """No route is needed, nor joining; with SO_BROADCAST's flag it goes out on the link, whatever the gateway is."""
    host = Host(gateway="")
    out = host.sent(segment(dst=GROUP, flags=BROADCAST))
    assert out.next_hop == GROUP and out.flags == BROADCAST


@pytest.mark.rfc("RFC 1122 3.2.2-7")
def test_no_errors_about_multicast(host: Host) -> None:
    """Nobody is told that a group's packet found no taker."""
    assert host.dropped(packet(dst=ALL_SYSTEMS, proto=132, link_flags=BROADCAST), reasons.NO_PROTOCOL) == []


@pytest.mark.rfc("RFC 1122 3.2.2.6-4")
def test_echo_to_a_group() -> None:
    """Ignored unless ip.echo_ignore_broadcasts is false (as Linux); then answered from our own address."""
    request = IcmpMessage.echo_request(ident=1, sequence=1)
    for dst in (ALL_SYSTEMS, bytes((10, 0, 0, 255))):
        Host().dropped(icmp_packet(request, dst=dst, link_flags=BROADCAST), reasons.ICMP_GROUP)
        header, _ = Host(echo_ignore_broadcasts=False).replied(icmp_packet(request, dst=dst, link_flags=BROADCAST))
        assert (header.src, header.dst) == (OWN, PEER)


@given(data=st.binary(max_size=60), fixed=st.booleans(), dst=st.sampled_from([ALL_SYSTEMS, GROUP, OWN]))
def test_any_igmp_is_survived(data: bytes, fixed: bool, dst: bytes) -> None:
    """Whatever bytes come as IGMP, nothing raises; what follows of it ends, and nothing is kept of it."""
    host = Host(multicast_groups=["239.1.2.3"])
    settle(host)
    if fixed and len(data) >= 8:
        data = bytes((0x11, data[1], 0, 0)) + data[4:]
        data = data[:2] + internet_checksum(data).to_bytes(2, "big") + data[4:]
    host.feed(packet(data, dst=dst, proto=Proto.IGMP, ttl=1, options=ALERT))
    assert len(settle(host)) <= 1
    assert host.core.next_timer() is None


@pytest.mark.rfc("RFC 3376 4.2.16-1")
def test_limits(host: Host) -> None:
    """No more than 256 groups; a general query for so many is answered in several packets, each within 576 bytes."""
    for number in range(GROUPS_LIMIT):
        join(host, f"239.0.{number >> 8}.{number & 255}")
    with pytest.raises(ControlError, match="too many"):
        join(host, "239.9.9.9")
    with pytest.raises(ControlError, match="multicast"):
        join(host, "10.0.0.9")
    settle(host, 600)
    host.feed(query())
    said = settle(host)
    assert len(said) == 4 and len(records(said)) == GROUPS_LIMIT


@pytest.mark.rfc("RFC 3376 5.2")
def test_timers_survive_a_snapshot(host: Host) -> None:
    """A core restored between query and answer answers at the same instant."""
    join(host)
    settle(host)
    host.feed(query())
    due = host.core.next_timer()
    host.core = type(host.core).restore(host.core.config, host.core.snapshot())
    assert host.core.next_timer() == due and records(settle(host)) == [(IS_EX, GROUP)]


def test_igmp_is_not_looped_back(host: Host) -> None:
    """A segment of IGMP to ourselves has nobody to take it."""
    host.dropped(segment(proto=Proto.IGMP, dst=LOOPBACK, src=LOOPBACK), reasons.NO_PROTOCOL)
    host.now += MS
