"""RFC 4861 7.3.1, upper-layer confirmation: a neighbour that tcp's segments are known to get by need not be asked."""

from __future__ import annotations

import pytest
from link_host import A_MAC, B_MAC, OUR_MAC, SECOND, START, TUN, US, A, B, Host, segment

from levelip.frames.packet import Confirmed
from levelip.wire.arp import ArpPacket


def confirmed(host: Host, address: bytes = A) -> None:
    host.core.receive(Confirmed(address), host.now)


@pytest.mark.rfc("RFC 4861 7.3.1-2", "RFC 1122 3.3.1.4-6")
def test_while_data_is_acknowledged_nobody_is_asked() -> None:
    """Five minutes of packets, and a word from above each 10 s: no ARP request; half a minute without: there is one."""
    host = Host()
    host.confirm()
    for second in range(300):
        host.send(segment(US, A))
        host.out()
        if second % 10 == 0:
            confirmed(host)
        host.pass_time(SECOND)
        assert host.arp_out() == [] and host.state() == "reachable"
    while host.state() != "probe":
        assert host.now < 400 * SECOND + START
        host.send(segment(US, A))
        host.out()
        host.pass_time(SECOND)
    assert host.arp_out() == [(A_MAC, ArpPacket.request(sha=OUR_MAC, spa=US, tpa=A))]


@pytest.mark.rfc("RFC 4861 7.3.3-3")
@pytest.mark.parametrize("state", ["delay", "probe"])
def test_a_question_is_answered_by_it(state: str) -> None:
    """About to be asked, or asked: reachable, and the timer is off."""
    host = Host()
    host.confirm()
    host.pass_time(45 * SECOND)
    host.send(segment(US, A))
    if state == "probe":
        host.pass_time(5 * SECOND)
    assert host.state() == state
    confirmed(host)
    assert host.state() == "reachable" and host.core.next_timer() is None
    assert [e.data["new"] for e in host.core.events() if e.kind == "arp"][-1] == "reachable"


def test_nobody_knows_it() -> None:
    """No entry, one without an answer, one that failed, one that we never sent to: nothing changes."""
    host = Host()
    confirmed(host, B)
    assert host.core.control(1, "neigh", {}, host.now) == {"neighbours": []}
    host.send(segment(US, A))
    confirmed(host)
    assert host.state() == "incomplete"
    host.pass_time(10 * SECOND)
    confirmed(host)
    assert host.state() == "failed"
    host.learn(B, B_MAC)
    confirmed(host, B)
    assert host.state(B) == "stale"


def test_it_settles_a_contradiction_for_the_one_we_know() -> None:
    """Another MAC is claimed, and the one we know is asked: data that arrives by it says enough."""
    host = Host()
    host.confirm()
    host.send(segment(US, A))
    host.pass_time(2 * SECOND)
    host.arp(ArpPacket.announcement(sha=B_MAC, spa=A))
    assert host.state() == "probe"
    confirmed(host)
    assert host.state() == "reachable"
    host.out()
    host.send(segment(US, A))
    assert host.down()[0][:6] == A_MAC


def test_a_tun_has_no_neighbours() -> None:
    host = Host(TUN)
    confirmed(host)
    assert host.core.control(1, "neigh", {}, host.now) == {"neighbours": []}
