"""Bounds of the ARP cache: whatever strangers ask or make us ask, a transfer keeps its next hop."""

from __future__ import annotations

import pytest
from link_host import A_MAC, B_MAC, MS, OUR_MAC, SECOND, US, A, B, Host, segment

from levelip.tracing import reasons
from levelip.wire.arp import REPLY, ArpPacket

TO_A = A_MAC + OUR_MAC + b"\x08\x00"


def other(number: int) -> bytes:
    """An address of 10.1.0.0/16 and on."""
    return bytes((10, 1 + (number >> 16), number >> 8 & 255, number & 255))


def neighbours(host: Host) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = host.core.control(1, "neigh", {}, host.now)["neighbours"]
    return rows


@pytest.mark.rfc("RFC 826 reception")
def test_a_hundred_thousand_askers_leave_a_transfer_alone(host: Host) -> None:
    """Each of 100,000 hosts asks for us, one a ms, beside a transfer that sends a packet each 50 ms: strangers are
    never more than half of the cache, all are answered, and each packet of the transfer goes out at once. In these
    100 s its neighbour becomes stale and is polled, among all the others."""
    host.confirm()
    sent = polled = 0
    for number in range(100_000):
        host.pass_time(MS)
        host.arp(ArpPacket.request(sha=B_MAC, spa=other(number), tpa=US))
        if number % 50 == 0:
            host.send(segment(US, A))
        for _, frame in host.core.outgoing({}):
            if frame.head[12:14] == b"\x08\x00":
                assert frame.head[:6] == A_MAC
                sent += 1
            elif frame.head[20:22] == b"\x00\x01":
                assert frame.head[:6] == A_MAC, "asked alone, as its MAC is known"
                polled += 1
                host.arp(ArpPacket(REPLY, A_MAC, A, OUR_MAC, US), dst=OUR_MAC)
        if number % 1000 == 999:
            host.core.events()
            assert len(neighbours(host)) <= 513
    assert sent == 2000 and polled >= 1
    assert host.core.counters["arp_replies_sent"] == 100_000
    assert host.state() in ("reachable", "stale", "delay") and host.drops() == []


def test_questions_for_a_hundred_thousand_leave_a_transfer_alone(host: Host) -> None:
    """Packets to 100,000 next hops that do not exist, one a ms (answers to forged SYNs, say): at most a quarter of the
    cache are questions, the oldest make room, counted, and the transfer's neighbour stays and can be asked."""
    host.confirm()
    sent = 0
    for number in range(100_000):
        host.pass_time(MS)
        host.send(segment(US, other(number)), hop=other(number))
        if number % 50 == 0:
            host.send(segment(US, A))
        for port, frame in host.core.outgoing({}):
            if port == "ip":
                continue
            if frame.head[12:14] == b"\x08\x00":
                assert frame.head[:6] == A_MAC
                sent += 1
            elif frame.head[:6] == A_MAC:
                host.arp(ArpPacket(REPLY, A_MAC, A, OUR_MAC, US), dst=OUR_MAC)
        if number % 1000 == 999:
            assert len(neighbours(host)) <= 257
            assert {reason for reason, _ in host.drops()} <= {"arp_cache_full"}
    assert sent == 2000
    assert host.core.counters[reasons.ARP_CACHE_FULL.counter] == 100_000 - 256
    assert host.state() in ("reachable", "stale", "delay")


def test_a_new_neighbour_is_asked_in_the_midst_of_questions() -> None:
    """A quarter of the cache are questions without an answer: one more makes the oldest go, with its packets."""
    host = Host(arp_entries=8)
    first = host.send(segment(US, other(1)), hop=other(1))
    host.send(segment(US, other(2)), hop=other(2))
    host.send(segment(US, A))
    assert host.drops() == [("arp_cache_full", first)]
    host.arp(ArpPacket(REPLY, A_MAC, A, OUR_MAC, US), dst=OUR_MAC)
    assert TO_A + segment(US, A) in [frame.head for frame in host.out()]
    assert [row["state"] for row in neighbours(host)] == ["incomplete", "reachable"]


def test_what_failed_makes_room_before_what_is_asked() -> None:
    """Of the entries without a MAC those that failed go first: nobody waits for them."""
    host = Host(arp_entries=8)
    host.send(segment(US, other(1)), hop=other(1))
    host.pass_time(500 * MS)
    host.send(segment(US, other(2)), hop=other(2))
    host.pass_time(2500 * MS)
    assert [row["state"] for row in neighbours(host)] == ["incomplete", "failed"]
    host.core.events()
    host.send(segment(US, A))
    assert [row["address"] for row in neighbours(host)] == ["10.1.0.2", "10.0.0.1"]
    assert host.drops() == []


def test_strangers_make_room_for_strangers() -> None:
    """Half of the cache are hosts that asked for us: the oldest makes room for the next."""
    host = Host(arp_entries=4)
    for number in range(3):
        host.learn(other(number), B_MAC)
    assert [row["address"] for row in neighbours(host)] == ["10.1.0.1", "10.1.0.2"]


def test_strangers_make_room_for_what_we_ask() -> None:
    """A full cache: a stranger goes before a neighbour that we used, however long ago that was."""
    host = Host(arp_entries=2)
    host.confirm()
    host.learn(other(1), B_MAC)
    host.pass_time(3600 * SECOND)
    host.send(segment(US, B), hop=B)
    assert [row["address"] for row in neighbours(host)] == ["10.0.0.1", "10.0.0.3"]


def test_the_longest_unused_makes_room_once_idle() -> None:
    """Of neighbours that we used, the one longest unused goes, if that is a minute (Linux gc_stale_time) or more."""
    host = Host(arp_entries=2)
    host.confirm(B, B_MAC)
    host.pass_time(SECOND)
    host.confirm()
    host.pass_time(59 * SECOND - 1)
    packet = host.send(segment(US, other(1)), hop=other(1))
    assert host.drops() == [("arp_cache_full", packet)], "both are in use"
    host.pass_time(1)
    host.send(segment(US, other(1)), hop=other(1))
    assert [row["address"] for row in neighbours(host)] == ["10.0.0.1", "10.1.0.1"]


def test_neighbours_in_use_are_not_forgotten_for_strangers() -> None:
    """A cache full of neighbours in use: who asks for us is answered, and not kept."""
    host = Host(arp_entries=2)
    host.confirm()
    host.confirm(B, B_MAC)
    host.arp(ArpPacket.request(sha=B_MAC, spa=other(1), tpa=US))
    assert len(host.arp_out()) == 1
    assert [row["address"] for row in neighbours(host)] == ["10.0.0.1", "10.0.0.3"]
