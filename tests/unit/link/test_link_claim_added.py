"""RFC 5227 for an address that is added while others are in use: it is claimed alone, and they go on meanwhile."""

from __future__ import annotations

import itertools

import pytest
from link_host import A_MAC, B_MAC, MS, OUR_MAC, SECOND, US, A, Host, segment

from layers.link.core import LinkCore
from levelip.frames.packet import DeviceFrame, DeviceState, Local
from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST
from levelip.wire.arp import ArpPacket

NEW = bytes((10, 0, 0, 9))
PROBE = ArpPacket.request(sha=OUR_MAC, spa=bytes(4), tpa=NEW)
ANNOUNCEMENT = ArpPacket.announcement(sha=OUR_MAC, spa=NEW)
ASKED = ArpPacket.request(sha=A_MAC, spa=A, tpa=NEW)


def added(**link: int) -> Host:
    """A host whose first address is ours, and which has just got another one."""
    host = Host(announced=False, **link)
    host.ip_up()
    host.pass_time(20 * SECOND)
    host.out()
    host.core.events()
    host.core.receive(Local([US, NEW], [bytes((10, 0, 0, 255))], []), host.now)
    return host


def watch(host: Host, ns: int) -> list[tuple[int, ArpPacket]]:
    """What goes out to all in that time, with ms from the beginning of it."""
    begun, seen = host.now, []
    for _ in range(ns // MS):
        host.pass_time(MS)
        for frame in host.out():
            if isinstance(frame, DeviceFrame):
                assert frame.head[:6] == MAC_BROADCAST
                seen.append(((host.now - begun) // MS, ArpPacket.parse(frame.head, 14)))
    return seen


def phases(host: Host) -> dict[str, str]:
    found: dict[str, str] = host.core.control(1, "device", {}, host.now).get("claims", {})
    return found


@pytest.mark.rfc("RFC 5227 2.3-1")
def test_without_probes_it_is_announced_twice() -> None:
    """As Linux: at once, and 2 s later."""
    host = added()
    assert host.arp_out() == [(MAC_BROADCAST, ANNOUNCEMENT)]
    assert [(at // 1000, arp) for at, arp in watch(host, 10 * SECOND)] == [(2, ANNOUNCEMENT)]
    assert phases(host) == {} and host.core.next_timer() is None


@pytest.mark.rfc("RFC 5227 2.1-1", "RFC 5227 2.1.1-3", "RFC 5227 2.3-1")
def test_it_is_probed_for_and_then_announced() -> None:
    """Three probes, 1 to 2 s apart, the first within 1 s; ANNOUNCE_WAIT (2 s) later two announcements."""
    host = added(acd_probes=3)
    assert phases(host) == {"10.0.0.9": "probing"}
    seen = watch(host, 20 * SECOND)
    assert [arp for _, arp in seen] == [PROBE] * 3 + [ANNOUNCEMENT] * 2
    times = [at for at, _ in seen]
    apart = [later - at for at, later in itertools.pairwise(times)]
    assert times[0] <= 1001 and all(1000 <= ms <= 2001 for ms in apart[:2])
    assert all(2000 <= ms <= 2001 for ms in apart[2:])
    assert phases(host) == {} and host.core.next_timer() is None


@pytest.mark.rfc("RFC 5227 2.1-1", "RFC 5227 2.5-1")
def test_it_is_not_used_before() -> None:
    """No ARP reply, and nothing leaves with it as its source; the first address goes on, and ip sees the link up."""
    host = added(acd_probes=3)
    host.assert_dropped(reasons.ARP_NOT_FOR_US, host.arp(ASKED))
    assert host.arp_out() == []
    host.confirm()
    host.assert_dropped(reasons.ARP_UNCLAIMED, host.send(segment(NEW, A)))
    host.send(segment(US, A))
    assert host.down() == [A_MAC + OUR_MAC + b"\x08\x00" + segment(US, A)] and host.told() == []
    host.arp(ArpPacket.request(sha=A_MAC, spa=A, tpa=US))
    assert [arp.spa for _, arp in host.arp_out()] == [US]
    host.pass_time(20 * SECOND)
    host.out()
    host.arp(ASKED)
    assert [arp.spa for _, arp in host.arp_out()] == [NEW]
    host.send(segment(NEW, A))
    assert len(host.down()) == 1


@pytest.mark.rfc("RFC 5227 2.1.1-4", "RFC 5227 2.1.1-5", "RFC 5227 2.1.1-7", "RFC 5227 2.1.1-8")
@pytest.mark.parametrize(
    "theirs", [ArpPacket.announcement(sha=B_MAC, spa=NEW), ArpPacket.request(sha=B_MAC, spa=bytes(4), tpa=NEW)]
)
def test_a_conflict_leaves_it_to_the_other(theirs: ArpPacket) -> None:
    """Somebody has it, or probes for it: it is left alone for a minute; the first address is not touched."""
    host = added(acd_probes=3)
    host.arp(theirs)
    assert host.core.counters["drop.arp_conflict"] == 1
    assert phases(host) == {"10.0.0.9": "conflict"} and host.told() == []
    kinds = [(event.kind, event.data.get("address")) for event in host.core.events() if event.kind != "drop"]
    assert kinds == [("conflict", "10.0.0.9"), ("claim", "10.0.0.9")]
    assert watch(host, 59 * SECOND) == []
    host.arp(ArpPacket.request(sha=A_MAC, spa=A, tpa=US))
    assert [arp.spa for _, arp in host.arp_out()] == [US]
    assert [arp for _, arp in watch(host, 20 * SECOND)] == [PROBE] * 3 + [ANNOUNCEMENT] * 2
    facts = host.core.control(1, "device", {}, host.now)
    assert facts["claim"] == "owned" and facts["conflicts"] == 0  # of the added one's claim, which is over


@pytest.mark.rfc("RFC 5227 2.4-1")
def test_once_ours_it_is_defended() -> None:
    """Announced against whoever says that he has it."""
    host = added(acd_probes=3)
    host.pass_time(20 * SECOND)
    host.out()
    host.arp(ArpPacket.announcement(sha=B_MAC, spa=NEW))
    assert host.core.counters["drop.arp_conflict"] == 1
    assert host.arp_out() == [(MAC_BROADCAST, ANNOUNCEMENT)]


def test_it_is_taken_away_again() -> None:
    """While it is probed for: no further word of it."""
    host = added(acd_probes=3)
    host.core.receive(Local([US], [bytes((10, 0, 0, 255))], []), host.now)
    assert watch(host, 20 * SECOND) == [] and phases(host) == {} and host.core.next_timer() is None
    host.confirm()
    host.send(segment(NEW, A))
    assert len(host.down()) == 1  # whose source it is, ip has seen to


def test_the_device_goes_and_comes() -> None:
    """All addresses are claimed together when it is back."""
    host = added(acd_probes=3)
    host.core.receive(DeviceState("lvl0", "tap", True, False, 1500, True, 65535), host.now)
    assert phases(host) == {} and host.core.next_timer() is None
    assert watch(host, 500 * MS) == []
    host.core.receive(DeviceState("lvl0", "tap", True, True, 1500, True, 65535), host.now)
    assert phases(host) == {}
    probes = {arp.tpa for _, arp in watch(host, 20 * SECOND) if arp.spa == bytes(4)}
    assert probes == {US, NEW}


def test_it_is_not_announced_with_the_others() -> None:
    """It comes between the two announcements of the first address: the second is of that one alone."""
    host = Host(announced=False, acd_probes=3)
    while not any(arp.spa == US for _, arp in watch(host, 10 * MS)):
        pass
    host.core.receive(Local([US, NEW], [bytes((10, 0, 0, 255))], []), host.now)
    said = [arp for _, arp in watch(host, 2100 * MS)]
    assert [arp for arp in said if arp.spa != bytes(4)] == [ArpPacket.announcement(sha=OUR_MAC, spa=US)]


@pytest.mark.parametrize("after", [0, 500 * MS, 3 * SECOND, 6 * SECOND])
def test_a_snapshot_in_between_has_the_same_future(after: int) -> None:
    """Probing, waiting, or between two announcements."""
    host = added(acd_probes=3)
    host.pass_time(after)
    host.out()
    twin = LinkCore.restore(host.config, host.core.snapshot())
    assert twin.snapshot() == host.core.snapshot() and twin.next_timer() == host.core.next_timer()
    for now in range(host.now, host.now + 20 * SECOND, 100 * MS):
        for core in (host.core, twin):
            core.handle_timer(now)
        assert [frame for _, frame in twin.outgoing({})] == [frame for _, frame in host.core.outgoing({})]
