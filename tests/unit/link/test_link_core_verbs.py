"""Snapshot and restore: the restored core has the same future."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from link_host import A_MAC, B_MAC, MS, OUR_MAC, SECOND, TUN, US, A, B, Host, segment

from layers.link.core import LinkCore
from levelip.frames.packet import Checksum
from levelip.rpc.place import Place
from levelip.wire.arp import ArpPacket


def busy() -> Host:
    """A core in the midst of everything: announcing, asking, polling, queues both ways."""
    host = Host(announced=False, arp_reachable_ms=2000, arp_delay_ms=1000, arp_queue=2, arp_entries=16)
    host.ip_up()
    host.pass_time(SECOND)
    host.confirm()
    host.pass_time(3 * SECOND)
    host.send(segment(US, A))  # it is stale: first a delay,
    host.pass_time(1000 * MS)  # then a poll
    for last in (20, 21, 22, 23):  # one too many questions
        host.send(segment(US, bytes((10, 0, 0, last))), hop=bytes((10, 0, 0, last)))
    for last in (30, 31):  # strangers
        host.learn(bytes((10, 0, 0, last)), B_MAC)
    host.confirm(bytes((10, 0, 0, 40)), B_MAC)
    host.pass_time(300 * MS)
    for number in range(3):  # a question, its queue overflown
        host.send(segment(US, B, ident=number), hop=B)
    host.send(segment(US, A, length=9000), Place("ring", 0, 1 << 20, 5, 9000), checksum=Checksum.PARTIAL, gso_size=1460)
    host.ethernet(segment(A, US, b"up"))
    host.core.outgoing({"ip": 0, "device": 1})
    host.ip_up()
    return host


def future(core: LinkCore, now: int) -> list[Any]:
    """All that a core does from here on, through answers, silence and the end of every timer."""
    core.interest = True
    told: list[Any] = [core.next_timer(), core.outgoing({"ip": 1, "device": 2})]
    host = Host.__new__(Host)
    host.core, host.now, host.ids = core, now, 900
    for step in range(12):
        host.pass_time(400 * MS)
        if step == 2:
            host.arp(ArpPacket(2, B_MAC, B, OUR_MAC, US))
        if step == 3:
            host.arp(ArpPacket.request(sha=B_MAC, spa=bytes((10, 0, 0, 40)), tpa=US))
            host.arp(ArpPacket.request(sha=A_MAC, spa=bytes((10, 0, 0, 40)), tpa=US))
        if step == 4:
            host.send(segment(US, A))
            host.send(segment(US, bytes((10, 0, 0, 77))), hop=bytes((10, 0, 0, 77)))
        told += [core.outgoing({}), core.events(), core.next_timer(), dict(core.counters)]
    told += [core.control(1, "neigh", {}, host.now), core.control(1, "device", {}, host.now), core.snapshot()]
    return told


def test_restored_core_has_the_same_future() -> None:
    """restore(snapshot()), through msgpack as a file or a tool has it."""
    host = busy()
    data = msgspec.msgpack.decode(msgspec.msgpack.encode(host.core.snapshot()))
    twin = LinkCore.restore(host.config, data)
    host.core.events()
    assert future(host.core, host.now) == future(twin, host.now)


def test_snapshot_is_deterministic_and_changes_nothing() -> None:
    """Two snapshots are equal, and so are those of two cores with the same past."""
    first, second = busy(), busy()
    assert first.core.snapshot() == first.core.snapshot() == second.core.snapshot()
    assert msgspec.msgpack.encode(first.core.snapshot()) == msgspec.msgpack.encode(second.core.snapshot())


def test_snapshot_keeps_tunables_and_randomness() -> None:
    """What was set at run time, and the state of the random numbers, are part of it."""
    host = Host(TUN)
    host.core.set("arp_queue", 7, host.now)
    host.rng.random()
    twin = LinkCore.restore(host.config, host.core.snapshot())
    assert twin.snapshot() == host.core.snapshot()
    host.rng.random()
    assert twin.snapshot() != host.core.snapshot()


def test_other_version_is_refused(host: Host) -> None:
    """A snapshot of another version is not guessed at."""
    data = host.core.snapshot()
    data["version"] = 99
    with pytest.raises(ValueError, match="version 99"):
        LinkCore.restore(host.config, data)


def test_next_timer_is_pure(host: Host) -> None:
    """Asking for the next timer changes nothing."""
    host.send(segment(US, A))
    before = host.core.snapshot()
    assert host.core.next_timer() == host.core.next_timer() == host.now + SECOND
    assert host.core.snapshot() == before


def test_same_seed_same_past() -> None:
    """Two cores with the same configuration, seed and frames do the same."""
    told = []
    for _ in range(2):
        host = Host()
        host.frame(OUR_MAC + A_MAC + b"\x08\x00" + segment(A, US))
        host.send(segment(US, B), hop=B)
        told.append((host.out(), host.core.events()))
    assert told[0] == told[1]
