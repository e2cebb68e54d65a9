"""Which breakpoints are taken: those that may be met."""

from __future__ import annotations

import pytest

from levelip.debug.breaking import check_breakpoint
from levelip.debug.model import Misused
from levelip.ipc.breakpoints import DUE
from levelip.tracing.eventfields import EVENTS


@pytest.mark.parametrize(
    ("expression", "on", "at", "reason"),
    [
        ("event drop", "state", "", "it can be of drop"),
        ("event drop", DUE, "", "it can be of drop"),
        ("event in {drop, rto}", "state", "", "it can be of drop or rto"),
        ("not event state", "state", "", "is true of no state event"),
        ("event != state", "state", "", "is true of no state event"),
        ("event == arp", "rto", "", "it can be of arp"),
        ("reason == martian_source", "state", "", "it can be of drop"),
        ("event.input", "drop", "", "it can be of state"),
        ("event.input and conn.local_port == 80", "drop", "", "it can be of state"),
        ("event state and event drop", "", "", "each is of one kind"),
        ("event rto and event.srtt > 5", "", "", "each is of one kind"),
        ("tcp", "drop", "", "is about packets, which --on drop never sees"),
        ("tcp or conn.local_port == 80", "drop", "", "tcp is of packets, which --on drop never sees"),
        ("tcp or event drop", "", "", "event is of events"),
        ("event drop", "", "link", "at no seam"),
        ("", "drop", "link", "at no seam"),
        ("arp", "", "ip-tcp:up", "it can at link"),
        ("eth.addr == 02:00:00:00:00:01", "", "link-ip", "it can at link"),
        ("udp", "", "ip-tcp", "it can at link, link-ip or ip-udp"),
        ("ip.id == 7", "", "ip-tcp", "it can at link or link-ip"),
        ("seam == link", "", "ip-tcp", "it can at link"),
        ("link == seam", "", "ip-tcp", "it can at link"),
        ("seam in {link, link-ip} and tcp", "", "ip-tcp", "it can at link or link-ip"),
        ("direction == up", "", "link:down", "it can at link up, link-ip up, ip-tcp up or ip-udp up"),
        ("conn.cwnd < 4 and udp", "", "", "no packet at ip-tcp up"),
        ("message.port == 80", "", "", "no packet at any of"),
    ],
)
def test_a_breakpoint_that_can_never_be_met_is_refused(expression: str, on: str, at: str, reason: str) -> None:
    """With what it could be true of, where there is anything."""
    with pytest.raises(Misused) as refused:
        check_breakpoint(expression, on, at, 0)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("expression", "on", "at"),
    [
        ("event drop", "drop", ""),
        ("event == arp", "arp", ""),
        ("not event drop", "state", ""),
        ("event.old == event.new", "state", ""),
        ("event.deadline > 0", "", ""),
        ("event.deadline > 0", DUE, ""),
        ("conn.local_port == 80", "drop", ""),
        ("event drop or event rto", "rto", ""),
        ("not reason == martian_source", "state", ""),
        ("count(event.input) == 0", "drop", ""),
        ("not udp", "", "ip-tcp"),
        ("count(udp.port) == 0", "", "ip-tcp"),
        ("ip.ttl < 5 and ip.addr == 10.0.0.1", "", "ip-tcp:up"),
        ("icmp.type == 3", "", "ip-tcp"),
        ("tcp.dstport == 80", "", "ip-udp"),  # quoted in an ICMP message for a socket of ICMP's
        ("seam == link or tcp", "", "ip-tcp"),
        ("conn.cwnd < 4", "", ""),
        ("conn.remote_port == 80 and tcp.flags.syn", "", "link:down"),
    ],
)
def test_one_that_may_be_met_is_taken(expression: str, on: str, at: str) -> None:
    """Where it is not known beforehand whether it will."""
    assert check_breakpoint(expression, on, at, 0)[1] == bool(on or "event" in expression)


@pytest.mark.parametrize("kind", EVENTS)
def test_each_kind_of_event_may_be_met_by_its_name_and_data(kind: str) -> None:
    """And by no other kind's name."""
    check_breakpoint(f"event {kind}", kind, "", 0)
    for name in EVENTS[kind]:
        check_breakpoint(f"event.{name}", kind, "", 0)
    other = next(one for one in EVENTS if one != kind)
    with pytest.raises(Misused):
        check_breakpoint(f"event {other}", kind, "", 0)
