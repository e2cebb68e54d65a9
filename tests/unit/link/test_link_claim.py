"""RFC 5227: probing for our address, announcing it, and what to do when another host has it."""

from __future__ import annotations

import pytest
from link_host import A_MAC, B_MAC, MS, NET_BROADCAST, OUR_MAC, SECOND, START, US, A, B, Host, segment

from layers.link.core import LinkCore
from levelip.frames.packet import DeviceState, LinkState
from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST
from levelip.wire.arp import REPLY, ArpPacket

NOBODY = bytes(4)
PROBE = ArpPacket.request(sha=OUR_MAC, spa=NOBODY, tpa=US)
ANNOUNCEMENT = ArpPacket.announcement(sha=OUR_MAC, spa=US)
THEIRS = ArpPacket.announcement(sha=B_MAC, spa=US)


def probing() -> Host:
    """A host that probes for its address, as RFC 5227 has it."""
    host = Host(announced=False, acd_probes=3)
    host.ip_up()
    assert [news.up for news in host.told()] == [False]
    return host


def claim(host: Host) -> str:
    phase: str = host.core.control(1, "device", {}, host.now)["claim"]
    return phase


def watch(host: Host, ns: int) -> list[tuple[int, ArpPacket | LinkState]]:
    """What goes out in that time: (ms since START, ARP packet to all, or news for ip)."""
    seen: list[tuple[int, ArpPacket | LinkState]] = []
    for _ in range(ns // MS):
        host.pass_time(MS)
        for frame in host.out():
            if isinstance(frame, LinkState):
                seen.append(((host.now - START) // MS, frame))
            else:
                assert frame.head[:6] == MAC_BROADCAST
                seen.append(((host.now - START) // MS, ArpPacket.parse(frame.head, 14)))
    return seen


# announcing


@pytest.mark.rfc("RFC 5227 2.3-1")
def test_announces_at_start() -> None:
    """Without probes, as Linux: at once, ANNOUNCE_NUM (2) announcements ANNOUNCE_INTERVAL (2 s) apart."""
    host = Host(announced=False)
    sent = []
    for _ in range(20):
        sent += [(host.now - START, dst, arp) for dst, arp in host.arp_out()]
        host.pass_time(500 * MS)
    assert sent == [(500 * MS, MAC_BROADCAST, ANNOUNCEMENT), (2000 * MS, MAC_BROADCAST, ANNOUNCEMENT)]
    assert host.core.next_timer() is None


def test_announces_and_distrusts_when_the_device_comes_up(host: Host) -> None:
    """After down and up the cable may lead elsewhere: announce again, and poll before trusting."""
    host.confirm()
    up = host.config.device
    down = DeviceState(up.name, up.kind, True, False, up.mtu, True, up.gso_max)
    host.core.receive(down, host.now)
    frame = host.send(segment(US, B), hop=B)
    assert host.drops() == [("device_down", frame)] and host.out() == []
    assert host.core.next_timer() is None
    host.core.receive(up, host.now)
    assert host.state() == "stale"
    host.pass_time(0)
    assert [arp.is_announcement for _, arp in host.arp_out()] == [True]


# probing


@pytest.mark.rfc(
    "RFC 5227 2.1-1", "RFC 5227 2.1-2", "RFC 5227 2.1.1-1", "RFC 5227 2.1.1-2", "RFC 5227 2.1.1-3", "RFC 5227 2.3-1",
)  # fmt: skip
def test_probes_then_announces_and_tells_ip() -> None:
    """Three probes with no sender: the first within PROBE_WAIT (1 s), each PROBE_MIN to PROBE_MAX (1 to 2 s) after the
    other; ANNOUNCE_WAIT (2 s) later the address is ours: ip is told that the link is up, and it is announced twice."""
    host = probing()
    seen = watch(host, 12 * SECOND)
    at = [when for when, _ in seen]
    assert [what for _, what in seen[:3]] == [PROBE] * 3
    assert at[0] <= 1001 and 1000 <= at[1] - at[0] <= 2001 and 1000 <= at[2] - at[1] <= 2001
    news = seen[3][1]
    assert isinstance(news, LinkState) and news.up
    assert [what for _, what in seen[4:]] == [ANNOUNCEMENT] * 2
    assert 2000 <= at[4] - at[2] <= 2001 and 2000 <= at[5] - at[4] <= 2001
    assert claim(host) == "owned" and host.core.next_timer() is None
    assert host.core.counters["arp_probes_sent"] == 3


@pytest.mark.rfc("RFC 5227 2.1-1", "RFC 5227 2.5-1")
def test_an_address_that_is_not_ours_yet_is_not_used() -> None:
    """While probing nothing is sent, asked, answered or learned."""
    host = probing()
    host.pass_time(1500 * MS)
    host.out()
    one, two = host.send(segment(US, A)), host.send(segment(US, NET_BROADCAST), hop=NET_BROADCAST)
    asked = host.arp(ArpPacket.request(sha=A_MAC, spa=A, tpa=US))
    assert host.drops() == [("arp_unclaimed", one), ("arp_unclaimed", two), ("arp_not_for_us", asked)]
    assert host.core.counters[reasons.ARP_UNCLAIMED.counter] == 2
    assert host.out() == [] and host.state() == ""


@pytest.mark.rfc("RFC 5227 2.1.1-4", "RFC 5227 2.1.1-5", "RFC 5227 2.1.1-7")
@pytest.mark.parametrize(
    "packet",
    [
        THEIRS,
        ArpPacket.request(sha=B_MAC, spa=US, tpa=A),
        ArpPacket(REPLY, B_MAC, US, OUR_MAC, NOBODY),  # the answer to our probe
        ArpPacket.request(sha=B_MAC, spa=NOBODY, tpa=US),  # another host probes for it
    ],
)
def test_a_conflict_while_probing_leaves_the_address_to_the_other(packet: ArpPacket) -> None:
    """Its owner, or another host that probes for it: the address is not used, and after RATE_LIMIT_INTERVAL (60 s) it
    is probed for again. We do not defend what is not ours."""
    host = probing()
    host.pass_time(1500 * MS)
    host.out()
    host.core.events()
    frame = host.arp(packet, dst=OUR_MAC if packet.oper == REPLY else MAC_BROADCAST)
    conflict = [event for event in host.core.events() if event.kind in ("conflict", "claim", "drop")]
    assert [(event.kind, event.reason, event.frame) for event in conflict] == [
        ("drop", "arp_conflict", frame),
        ("conflict", "", frame),
        ("claim", "", 0),
    ]
    assert conflict[1].data == {"address": "10.0.0.2", "mac": "02:00:00:00:00:03", "defended": False}
    assert claim(host) == "conflict" and host.out() == []
    again = watch(host, 59 * SECOND)
    assert again == []
    again = watch(host, 12 * SECOND)
    assert [what for _, what in again if isinstance(what, ArpPacket)] == [PROBE] * 3 + [ANNOUNCEMENT] * 2
    assert claim(host) == "owned"


@pytest.mark.rfc("RFC 5227 2.1.1-6")
def test_our_own_probe_come_back_is_no_conflict() -> None:
    """Its sender is our own MAC address: a bridge returned it."""
    host = probing()
    host.pass_time(1500 * MS)
    host.out()
    frame = host.arp(PROBE)
    assert host.drops() == [("arp_own", frame)] and claim(host) == "probing"


@pytest.mark.rfc("RFC 5227 2.1.1")
def test_the_device_going_down_ends_the_probing() -> None:
    """And it begins anew when the device is up again."""
    host = probing()
    host.pass_time(1500 * MS)
    host.out()
    up = host.config.device
    host.core.receive(DeviceState(up.name, up.kind, True, False, up.mtu, True, up.gso_max), host.now)
    assert host.core.next_timer() is None and claim(host) == "down"
    host.out()
    host.core.receive(up, host.now)
    assert claim(host) == "probing"
    sent = [what for _, what in watch(host, 8 * SECOND) if isinstance(what, ArpPacket)]
    assert sent[:4] == [PROBE] * 3 + [ANNOUNCEMENT]


@pytest.mark.parametrize("wait", [1500, 4500, 20_000])
def test_restored_claim_has_the_same_future(wait: int) -> None:
    """restore(snapshot()) while probing, announcing, and with a conflict seen."""
    host = probing()
    host.pass_time(wait * MS)
    if wait == 20_000:
        host.arp(THEIRS)
    twin = Host.__new__(Host)
    twin.core, twin.now, twin.ids = LinkCore.restore(host.config, host.core.snapshot()), host.now, host.ids
    told = []
    for one in (host, twin):
        seen = [one.core.next_timer(), *watch(one, 5 * SECOND)]
        one.arp(THEIRS)
        told.append((seen, watch(one, 15 * SECOND), one.core.snapshot()))
    assert told[0] == told[1]


# ongoing detection and defence


@pytest.mark.rfc("RFC 5227 2.4-1", "RFC 5227 2.4-2", "RFC 5227 2.4-4")
def test_defends_once_and_then_holds_still(host: Host) -> None:
    """Rule (c): the address is kept. A first conflict is answered by one announcement; one that comes less than
    DEFEND_INTERVAL (10 s) after the last *conflict* is not, so that two such hosts do not fill the net."""
    frame = host.arp(THEIRS)
    assert host.drops() == [("arp_conflict", frame)]
    assert host.arp_out() == [(MAC_BROADCAST, ANNOUNCEMENT)]
    host.pass_time(10 * SECOND - 1)
    host.arp(THEIRS)
    assert host.arp_out() == []
    host.pass_time(1)
    host.arp(THEIRS)
    assert host.arp_out() == []
    host.pass_time(10 * SECOND)
    host.arp(THEIRS)
    assert host.arp_out() == [(MAC_BROADCAST, ANNOUNCEMENT)]
    assert host.state(US) == "" and claim(host) == "owned"
    assert host.core.control(1, "device", {}, host.now)["conflicts"] == 4
    assert host.core.counters[reasons.ARP_CONFLICT.counter] == 4


@pytest.mark.rfc("RFC 5227 2.1.1-8", "RFC 5227 2.4-1", "RFC 5227 2.4-3")
def test_a_conflict_is_an_event(host: Host) -> None:
    """Who claims what, and whether we defended it, so that a person can be told."""
    frame = host.arp(THEIRS)
    (event,) = [event for event in host.core.events() if event.kind == "conflict"]
    assert event.frame == frame
    assert event.data == {"address": "10.0.0.2", "mac": "02:00:00:00:00:03", "defended": True}


@pytest.mark.rfc("RFC 5227 2.1.1", "RFC 5227 2.5-1")
def test_a_probe_for_our_address_is_answered(host: Host) -> None:
    """Another host asks whether the address is free: it is told at once that it is not, and that is no conflict."""
    host.arp(ArpPacket.request(sha=B_MAC, spa=NOBODY, tpa=US))
    assert host.arp_out() == [(B_MAC, ArpPacket(REPLY, OUR_MAC, US, B_MAC, NOBODY))]
    assert host.drops() == []


@pytest.mark.rfc("RFC 5227 2.4-2", "RFC 5227 2.4-4")
def test_a_storm_of_conflicts_costs_one_announcement(host: Host) -> None:
    """10,000 claims of our address in 10 s: counted, one defence, neighbours untouched."""
    host.confirm()
    for _ in range(10_000):
        host.pass_time(MS)
        host.arp(THEIRS)
    assert [arp for _, arp in host.arp_out()] == [ANNOUNCEMENT]
    assert host.core.counters[reasons.ARP_CONFLICT.counter] == 10_000
    assert host.state() == "reachable"
