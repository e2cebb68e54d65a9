"""ARP (RFC 826): reception in its order, the cache's states, queues, retries, announcements."""

from __future__ import annotations

import dataclasses

import pytest
from link_host import A_MAC, B_MAC, NET_BROADCAST, OUR_MAC, SECOND, TUN, US, A, B, Host, segment

from levelip.frames.packet import Unreachable
from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST, MAC_ZERO
from levelip.wire.arp import REPLY, ArpPacket
from levelip.wire.ethernet import EtherType

NOBODY = bytes(4)
TO_A = A_MAC + OUR_MAC + b"\x08\x00"


def request(spa: bytes = A, sha: bytes = A_MAC, tpa: bytes = US) -> ArpPacket:
    return ArpPacket.request(sha=sha, spa=spa, tpa=tpa)


def reply(spa: bytes = A, sha: bytes = A_MAC, tpa: bytes = US, tha: bytes = OUR_MAC) -> ArpPacket:
    return ArpPacket(REPLY, sha, spa, tha, tpa)


# Packet Reception


@pytest.mark.rfc("RFC 5227 2.1.1", "RFC 826 reception-4", "RFC 826 reception-3", "RFC 5227 2.6-1", "RFC 5227 2.5-1")
def test_request_for_us_is_answered(host: Host) -> None:
    """A request for our address is answered to the sender alone, and the sender is learned (RFC 826)."""
    host.arp(request())
    assert host.arp_out() == [(A_MAC, reply(spa=US, sha=OUR_MAC, tpa=A, tha=A_MAC))]
    assert host.state() == "stale", "it says so itself; it did not answer us"
    host.send(segment(US, A))
    assert host.down() == [TO_A + segment(US, A)]


def test_probe_is_answered_and_teaches_nothing(host: Host) -> None:
    """A probe has no sender address: it is answered (RFC 5227 2.1.1), but there is nothing to learn."""
    host.arp(request(spa=NOBODY))
    assert [arp.tpa for _, arp in host.arp_out()] == [NOBODY]
    assert len(host.core.control(1, "neigh", {}, host.now)["neighbours"]) == 0


@pytest.mark.rfc("RFC 826 reception-3")
def test_request_for_another_teaches_nothing_new(host: Host) -> None:
    """Merge_flag false and not the target: not for us."""
    host.assert_dropped(reasons.ARP_NOT_FOR_US, host.arp(request(tpa=B)))
    assert host.state() == ""


@pytest.mark.rfc("RFC 826 reception-2", "RFC 826 reception-5")
@pytest.mark.parametrize("packet", [request(sha=B_MAC, tpa=B), reply(sha=B_MAC, tpa=B), request(sha=B_MAC)])
def test_known_sender_is_merged_first(host: Host, packet: ArpPacket) -> None:
    """The sender's pair is in the table and nobody uses it: its MAC address is updated, whoever is asked (RFC 826,
    Merge_flag)."""
    host.learn()
    host.pass_time(SECOND)
    host.arp(packet)
    host.out()
    assert host.drops() == []
    host.send(segment(US, A))
    assert host.down()[0][:6] == B_MAC


@pytest.mark.rfc("RFC 4861 7.2.5-1", "RFC 826 reception-6")
def test_unsolicited_reply_makes_no_entry(host: Host) -> None:
    """A reply that nobody asked for is not believed (as Linux's arp_accept=0)."""
    host.assert_dropped(reasons.ARP_UNSOLICITED, host.arp(reply(), dst=OUR_MAC))
    assert host.state() == ""


@pytest.mark.rfc("RFC 1122 2.3.2.1")
@pytest.mark.rfc("RFC 826 reception", "RFC 5227 2.3")
def test_announcement_updates_and_does_not_create(host: Host) -> None:
    """A gratuitous ARP renews an entry (RFC 5227 3), and makes none."""
    announcement = ArpPacket.announcement(sha=A_MAC, spa=A)
    host.assert_dropped(reasons.ARP_NOT_FOR_US, host.arp(announcement))
    host.learn(mac=B_MAC)
    host.pass_time(SECOND)
    host.arp(announcement)
    host.send(segment(US, A))
    assert host.down()[0][:6] == A_MAC


def test_request_by_unicast_is_answered(host: Host) -> None:
    """A unicast poll (RFC 1122 2.3.2.1 (2)) is a request like any other."""
    host.arp(request(), dst=OUR_MAC)
    assert len(host.arp_out()) == 1


@pytest.mark.rfc("RFC 826 reception-1")
@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"htype": 7}, "bad_htype"),
        ({"hlen": 8}, "bad_hlen"),
        ({"ptype": 0x86DD}, "bad_ptype"),
        ({"plen": 16}, "bad_plen"),
    ],
)
def test_malformed(host: Host, change: dict[str, int], detail: str) -> None:
    """Another hardware or protocol, in RFC 826's order of questions."""
    data = dataclasses.replace(request(), **change).serialize()  # type: ignore[arg-type]
    frame = host.ethernet(data, kind=EtherType.ARP)
    (event,) = host.core.events()
    assert (event.reason, event.frame, event.data) == ("arp_malformed", frame, {"detail": detail})
    assert host.core.counters[reasons.ARP_MALFORMED.counter] == 1


@pytest.mark.parametrize("size", range(28))
def test_truncated(size: int) -> None:
    """An ARP packet cut short anywhere."""
    host = Host()
    frame = host.ethernet(request().serialize()[:size], kind=EtherType.ARP)
    host.assert_dropped(reasons.ARP_MALFORMED, frame)


@pytest.mark.rfc("RFC 826 reception")
@pytest.mark.parametrize("oper", [0, 3, 8, 65535])
def test_other_operation(oper: int) -> None:
    """Neither request nor reply (RARP, InARP, ...)."""
    host = Host()
    host.learn()
    packet = dataclasses.replace(request(sha=B_MAC), oper=oper)
    host.assert_dropped(reasons.ARP_BAD_OP, host.arp(packet))
    host.send(segment(US, A))
    assert host.down()[0][:6] == A_MAC


@pytest.mark.rfc("RFC 1122 3.2.1.3")
@pytest.mark.parametrize(
    "packet",
    [
        request(sha=MAC_BROADCAST),
        request(sha=bytes.fromhex("01005e000001")),
        request(sha=MAC_ZERO),
        request(spa=bytes((224, 0, 0, 1))),
        request(spa=bytes((127, 0, 0, 1))),
        request(spa=NET_BROADCAST),
        request(spa=b"\xff" * 4),
        reply(spa=NOBODY),
    ],
)
def test_impossible_sender(packet: ArpPacket) -> None:
    """A sender that no host can be is neither learned nor answered (RFC 1122 3.2.1.3)."""
    host = Host()
    frame = host.ethernet(packet.serialize(), dst=OUR_MAC, kind=EtherType.ARP)
    host.assert_dropped(reasons.ARP_BAD_SENDER, frame)


def test_our_own_packet_come_back(host: Host) -> None:
    """A bridge may return what we broadcast."""
    packet = ArpPacket.announcement(sha=OUR_MAC, spa=US)
    host.assert_dropped(reasons.ARP_OWN, host.arp(packet))


# resolution


@pytest.mark.rfc(
    "RFC 4861 7.2.2-1", "RFC 4861 7.2.2-4", "RFC 1122 2.3.2.2", "RFC 826 reception", "RFC 826 generation-1",
    "RFC 826 generation-2",
)  # fmt: skip
def test_unknown_neighbour_is_asked_for(host: Host) -> None:
    """The packet waits, everybody is asked, and at the answer the packet goes."""
    host.send(segment(US, A))
    assert host.state() == "incomplete"
    assert host.arp_out() == [(MAC_BROADCAST, ArpPacket.request(sha=OUR_MAC, spa=US, tpa=A))]
    host.arp(reply(), dst=OUR_MAC)
    assert host.down() == [TO_A + segment(US, A)]
    assert host.state() == "reachable"
    assert host.core.next_timer() is None


@pytest.mark.rfc("RFC 4861 7.2.2-2")
def test_waiting_packets_keep_their_order(host: Host) -> None:
    """All that waited goes out in order, with the ids of their causes."""
    ids = [host.send(segment(US, A, ident=n)) for n in range(5)]
    assert len(host.arp_out()) == 1, "one question is enough"
    host.arp(reply())
    assert [frame.causes for frame in host.out()] == [[one] for one in ids]


def test_request_of_the_neighbour_answers_too(host: Host) -> None:
    """Any ARP packet of the neighbour tells where it is, its own question as well."""
    host.send(segment(US, A))
    host.out()
    host.arp(request())
    frames = host.down()
    assert TO_A + segment(US, A) in frames and len(frames) == 2


@pytest.mark.rfc("RFC 4861 7.2.2-2", "RFC 4861 7.2.2-3", "RFC 4861 7.2.2-6", "RFC 1122 2.3.2.1", "RFC 1122 2.4")
def test_asked_again_then_unreachable() -> None:
    """arp_retries questions arp_retry_ms apart; then each waiting packet is given up and ip told of each."""
    host = Host(arp_retries=3, arp_retry_ms=1000)
    first, second = host.send(segment(US, A, b"0123456789")), host.send(segment(US, A, ident=2))
    asked = []
    for _ in range(3):
        asked.append((host.now, len(host.arp_out())))
        assert host.core.next_timer() == host.now + SECOND
        host.pass_time(SECOND - 1)
        assert host.out() == []
        host.pass_time(1)
    assert [n for _, n in asked] == [1, 1, 1]
    assert host.drops() == [("arp_unanswered", first), ("arp_unanswered", second)]
    assert host.core.counters[reasons.ARP_UNANSWERED.counter] == 2
    assert host.told() == [
        Unreachable(1, A, segment(US, A, b"0123456789")[:28], [first]),
        Unreachable(1, A, segment(US, A, ident=2)[:28], [second]),
    ]
    assert host.state() == "failed" and host.core.next_timer() is None


def test_unreachable_quotes_bytes_wherever_they_are(host: Host) -> None:
    """IP header and 8 bytes are quoted even if head ends before them."""
    data = segment(US, A, b"0123456789")
    host.send(data[:10], data[10:])
    host.pass_time(10 * SECOND)
    assert [news.head for news in host.told() if isinstance(news, Unreachable)] == [data[:28]]


@pytest.mark.rfc("RFC 1122 2.3.2.2")
@pytest.mark.rfc("RFC 4861 7.3.3-5")
def test_failed_neighbour_is_asked_anew(host: Host) -> None:
    """A later packet starts over: the next hop may be back."""
    host.send(segment(US, A))
    host.pass_time(10 * SECOND)
    host.out()
    host.send(segment(US, A))
    assert len(host.arp_out()) == 1 and host.state() == "incomplete"
    host.arp(reply())
    assert len(host.down()) == 1


@pytest.mark.rfc("RFC 4861 7.2.2-5", "RFC 826 generation-2")
def test_queue_drops_the_oldest() -> None:
    """RFC 1122 2.3.2.2: keep at least the latest. A full queue drops its oldest, as Linux does."""
    host = Host(arp_queue=3)
    ids = [host.send(segment(US, A, ident=n)) for n in range(5)]
    assert host.drops() == [("arp_queue_full", ids[0]), ("arp_queue_full", ids[1])]
    assert host.core.counters[reasons.ARP_QUEUE_FULL.counter] == 2
    host.out()
    host.arp(reply())
    assert [frame.causes[0] for frame in host.out()] == ids[2:]


# ageing


def test_timers_due_together_fire_in_order() -> None:
    """Equal deadlines: by kind (announcement before cache), then by address."""
    host = Host(announced=False, arp_retry_ms=1)
    for last in (9, 5, 7):
        host.send(segment(US, A), hop=bytes((10, 0, 0, last)))
    host.out()
    host.now += SECOND
    host.core.handle_timer(host.now)
    assert [arp.tpa[3] for _, arp in host.arp_out()] == [2, 5, 7, 9]


def test_no_arp_without_ethernet() -> None:
    """A tun announces nothing and asks nobody."""
    host = Host(TUN, announced=False)
    assert host.core.next_timer() is None
    host.send(segment(US, A), hop=b"")
    assert host.down() == [segment(US, A)]


# looking and forgetting


def test_neigh_and_flush(host: Host) -> None:
    """`lvlip neigh` shows entries with ages; flush forgets answers, and leaves questions under way."""
    host.confirm()
    host.pass_time(3 * SECOND)
    host.send(segment(US, B), hop=B)
    host.out()
    rows = host.core.control(1, "neigh", {}, host.now)["neighbours"]
    assert rows == [
        {
            "address": "10.0.0.1", "mac": "02:00:00:00:00:01", "state": "reachable",
            "confirmed_ms": 3000, "updated_ms": 3000, "used_ms": 3000, "asked": 0, "queued": 0,
        },
        {
            "address": "10.0.0.3", "mac": "", "state": "incomplete",
            "confirmed_ms": -1, "updated_ms": -1, "used_ms": 0, "asked": 1, "queued": 1,
        },
    ]  # fmt: skip
    assert host.core.control(1, "neigh.flush", {"address": "10.0.0.9"}, host.now) == {"flushed": 0}
    assert host.core.control(1, "neigh.flush", {}, host.now) == {"flushed": 1}
    assert (host.state(A), host.state(B)) == ("", "incomplete")
    host.arp(reply(spa=B, sha=B_MAC))
    assert len(host.down()) == 1
    assert host.core.control(1, "neigh.flush", {"address": "10.0.0.3"}, host.now) == {"flushed": 1}


def test_flushed_poll_leaves_no_timer() -> None:
    """Forgetting a neighbour under poll forgets its timer."""
    host = Host(arp_delay_ms=0)
    host.learn()
    host.send(segment(US, A))
    host.pass_time(0)
    assert host.state() == "probe"
    host.core.control(1, "neigh.flush", {}, host.now)
    assert host.core.next_timer() is None
    host.pass_time(10 * SECOND)


def test_events_tell_of_every_change() -> None:
    """Each step of an entry is an event with both states."""
    host = Host(arp_reachable_ms=0, arp_retries=1)
    host.send(segment(US, A))
    host.arp(reply(), dst=OUR_MAC)
    host.send(segment(US, A))
    host.pass_time(10 * SECOND)
    steps = [(e.data["old"], e.data["new"], e.data["mac"]) for e in host.core.events() if e.kind == "arp"]
    assert steps == [
        ("", "incomplete", ""),
        ("incomplete", "reachable", "02:00:00:00:00:01"),
        ("stale", "delay", "02:00:00:00:00:01"),
        ("delay", "probe", "02:00:00:00:00:01"),
        ("probe", "failed", "02:00:00:00:00:01"),
    ]
