"""Which neighbour is believed, and for how long: RFC 4861's neighbour unreachability detection with ARP."""

from __future__ import annotations

import pytest
from link_host import A_MAC, B_MAC, MS, OUR_MAC, SECOND, US, A, Host, segment

from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST
from levelip.wire.arp import REPLY, ArpPacket

TO_A = A_MAC + OUR_MAC + b"\x08\x00"
MINUTE = 60 * SECOND


def reply(mac: bytes = A_MAC) -> ArpPacket:
    return ArpPacket(REPLY, mac, A, OUR_MAC, US)


def request(mac: bytes = A_MAC, tpa: bytes = US) -> ArpPacket:
    return ArpPacket.request(sha=mac, spa=A, tpa=tpa)


def sent_to(host: Host) -> bytes:
    """The MAC address that a packet for A goes to now."""
    host.out()
    host.send(segment(US, A))
    (frame,) = host.down()
    return frame[:6]


# what makes a neighbour reachable, and what does not


@pytest.mark.rfc("RFC 4861 7.2.5-2")
def test_an_answer_to_our_question_is_trusted(host: Host) -> None:
    """Incomplete, and a reply to us alone: reachable."""
    host.send(segment(US, A))
    host.arp(reply(), dst=OUR_MAC)
    assert host.state() == "reachable"
    assert TO_A + segment(US, A) in host.down()


@pytest.mark.rfc("RFC 4861 7.2.5-3")
@pytest.mark.parametrize(("packet", "dst"), [(request(), MAC_BROADCAST), (reply(), MAC_BROADCAST)])
def test_what_says_nothing_of_us_is_used_and_not_trusted(host: Host, packet: ArpPacket, dst: bytes) -> None:
    """A request and a reply to all end the question, but do not show that our packets arrive (as Linux arp_process):
    what waited goes, and after arp_delay_ms the neighbour is asked, alone."""
    host.send(segment(US, A))
    host.out()
    host.arp(packet, dst=dst)
    assert [frame for frame in host.down() if frame[12:14] == b"\x08\x00"] == [TO_A + segment(US, A)]
    assert host.state() == "delay"
    assert host.core.next_timer() == host.now + 5 * SECOND
    host.pass_time(5 * SECOND)
    assert host.arp_out() == [(A_MAC, ArpPacket.request(sha=OUR_MAC, spa=US, tpa=A))]


@pytest.mark.rfc("RFC 4861 7.3.1-1")
def test_an_answer_that_nobody_asked_for_confirms_nothing(host: Host) -> None:
    """Stale, and a reply with the MAC that we know: still stale, as it answers no question of ours."""
    host.learn()
    host.arp(reply(), dst=OUR_MAC)
    assert host.state() == "stale" and host.drops() == []


@pytest.mark.rfc(
    "RFC 4861 7.3.3-1", "RFC 4861 7.3.3-2", "RFC 4861 7.3.3-3", "RFC 4861 7.3.3-6", "RFC 1122 2.3.2.1",
    "RFC 1122 3.3.1.4-3", "RFC 1122 3.3.1.4-2", "RFC 1122 3.3.1.4-4", "RFC 1122 3.3.1.4-5",
)  # fmt: skip
def test_stale_delay_probe_reachable() -> None:
    """The time of an answer is over: used for arp_delay_ms without a question, then asked, alone; its answer makes it
    reachable again. With nothing to send it costs no timer."""
    host = Host()
    host.confirm()
    host.pass_time(45 * SECOND)  # 30 s on average, 15 s to 45 s
    assert host.state() == "stale" and host.core.next_timer() is None
    host.send(segment(US, A))
    assert host.down() == [TO_A + segment(US, A)] and host.state() == "delay"
    host.pass_time(5 * SECOND - 1)
    assert sent_to(host) == A_MAC and host.out() == []
    host.pass_time(1)
    assert host.state() == "probe"
    assert host.arp_out() == [(A_MAC, ArpPacket.request(sha=OUR_MAC, spa=US, tpa=A))]
    assert sent_to(host) == A_MAC
    host.pass_time(SECOND - 1)
    host.arp(reply(), dst=OUR_MAC)
    assert host.state() == "reachable" and host.core.next_timer() is None


@pytest.mark.rfc(
    "RFC 4861 7.3.3-4", "RFC 4861 7.3.3-5", "RFC 1122 2.3.2.1", "RFC 1122 3.3.1.4-1", "RFC 1122 3.3.1.4-2",
)  # fmt: skip
def test_a_neighbour_that_went_fails_and_all_are_asked() -> None:
    """arp_retries polls arp_retry_ms apart, then the MAC is forgotten; the next packet asks everybody."""
    host = Host(arp_retries=2, arp_retry_ms=500)
    host.learn()
    host.send(segment(US, A))
    host.out()
    host.pass_time(5 * SECOND)
    assert [dst for dst, _ in host.arp_out()] == [A_MAC]
    host.pass_time(500 * MS)
    assert [dst for dst, _ in host.arp_out()] == [A_MAC]
    host.pass_time(500 * MS)
    assert host.state() == "failed" and host.out() == []
    host.send(segment(US, A))
    assert [dst for dst, _ in host.arp_out()] == [MAC_BROADCAST] and host.state() == "incomplete"


@pytest.mark.rfc("RFC 4861 6.3.4")
def test_the_time_of_an_answer_is_random() -> None:
    """Half to one and a half of arp_reachable_ms: 15 to 45 s, and not always the same."""
    ends = []
    for _ in range(3):
        host = Host()
        host.rng.seed(len(ends))
        host.confirm()
        end = 0
        while host.state() == "reachable":
            host.pass_time(SECOND)
            end += 1
        ends.append(end)
    assert all(15 <= end <= 46 for end in ends) and len(set(ends)) > 1


# somebody claims a neighbour's address


@pytest.mark.rfc("RFC 4861 7.2.5-4")
@pytest.mark.parametrize(
    ("packet", "dst"),
    [
        (request(B_MAC), MAC_BROADCAST),
        (request(B_MAC, tpa=A), MAC_BROADCAST),  # an announcement
        (reply(B_MAC), OUR_MAC),
        (reply(B_MAC), MAC_BROADCAST),
    ],
)
@pytest.mark.parametrize("used", ["reachable", "expired", "delay"])
def test_a_forged_packet_does_not_take_a_neighbour_in_use(packet: ArpPacket, dst: bytes, used: str) -> None:
    """Another MAC for a neighbour that we send to: counted, the one we know is asked, alone, and packets still go to
    it; its answer ends the matter. RFC 826's merge would have sent a transfer's packets elsewhere."""
    host = Host()
    if used == "delay":
        host.learn()
        host.send(segment(US, A))
    else:
        host.confirm()
    host.pass_time(45 * SECOND if used == "expired" else 2 * SECOND)
    host.out()
    host.arp(packet, dst=dst)
    assert host.core.counters[reasons.ARP_CONTRADICTS.counter] == 1
    assert [name for name, _ in host.drops()] == ["arp_contradicts"]
    asked = [dst for dst, arp in host.arp_out() if arp.oper == 1]
    assert asked == [A_MAC] and host.state() == "probe"
    assert sent_to(host) == A_MAC
    host.arp(reply(B_MAC), dst=OUR_MAC)  # not from the MAC that was asked
    assert host.state() == "probe" and sent_to(host) == A_MAC
    host.arp(reply(), dst=OUR_MAC)
    assert host.state() == "reachable" and sent_to(host) == A_MAC


def test_a_neighbour_that_moved_is_found(host: Host) -> None:
    """The address is elsewhere now: after three polls, 3 s, it fails, and the next packet asks all."""
    host.confirm()
    host.pass_time(SECOND)
    host.arp(request(B_MAC, tpa=A))
    host.pass_time(3 * SECOND)
    assert host.state() == "failed"
    host.out()
    host.send(segment(US, A))
    assert [dst for dst, _ in host.arp_out()] == [MAC_BROADCAST]
    host.arp(reply(B_MAC), dst=OUR_MAC)
    assert sent_to(host) == B_MAC and host.state() == "reachable"


def test_a_storm_of_claims_asks_once_a_second(host: Host) -> None:
    """However often it is claimed, the neighbour is asked at most each arp_locktime_ms (Linux's name), and stays."""
    host.confirm()
    asked = 0
    for _ in range(10_000):  # a claim each ms for 10 s
        host.pass_time(MS)
        host.arp(request(B_MAC, tpa=A))
        for dst, arp in host.arp_out():
            assert (dst, arp.oper) == (A_MAC, 1)
            asked += 1
            host.arp(reply(), dst=OUR_MAC)
        if host.now % (100 * MS) == 0:
            host.send(segment(US, A))
            assert host.down()[0][:6] == A_MAC
    assert 9 <= asked <= 11
    assert host.core.counters[reasons.ARP_CONTRADICTS.counter] == 10_000


def test_the_first_of_two_answers_is_checked(host: Host) -> None:
    """A forged answer comes before the true one: the second contradicts it, so the first is polled after
    arp_locktime_ms, does not answer, and the question is put anew: 4 s, not the whole time of an answer."""
    host.send(segment(US, A))
    host.arp(reply(B_MAC), dst=OUR_MAC)
    host.pass_time(MS)
    host.arp(reply(), dst=OUR_MAC)
    assert host.state() == "delay" and sent_to(host) == B_MAC
    host.pass_time(SECOND - MS - 1)
    assert host.state() == "delay"
    host.pass_time(1)
    assert [dst for dst, _ in host.arp_out()] == [B_MAC]
    host.pass_time(3 * SECOND)
    assert host.state() == "failed"


@pytest.mark.rfc("RFC 826 reception-2")
def test_one_that_nobody_uses_is_updated(host: Host) -> None:
    """RFC 826's merge, where nothing is at stake: after arp_locktime_ms, and not trusted."""
    host.learn()
    host.pass_time(SECOND - 1)
    host.arp(request(B_MAC))
    host.out()
    assert host.core.counters[reasons.ARP_CONTRADICTS.counter] == 1, "the first word counts for a second"
    host.pass_time(1)
    host.arp(request(B_MAC))
    host.out()
    assert host.core.counters[reasons.ARP_CONTRADICTS.counter] == 1
    assert host.state() == "stale" and sent_to(host) == B_MAC
