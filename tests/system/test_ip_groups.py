"""Multicast and routers between the stack and the kernel: IGMP on the wire, TTL exceeded, path MTU, addresses."""

from __future__ import annotations

import socket as std
import struct
import time
from collections.abc import Callable

import pytest

from levelip.wire.igmp import ALL_IGMPV3_ROUTERS, ALL_SYSTEMS, IgmpMessage, IgmpReport, parse_igmp
from levelip.wire.ipv4 import Ipv4Header, Proto
from tests.system.harness import Stack
from tests.system.namespace import Namespace
from tests.system.streams import PATIENCE_S

GROUP = std.inet_aton("239.1.2.3")


def igmp_of(sniffer: std.socket, own: bytes) -> IgmpReport:
    """The next version 3 report that the stack sends."""
    deadline = time.monotonic() + PATIENCE_S + 10
    while time.monotonic() < deadline:
        frame = sniffer.recv(2000)
        if frame[12:14] != b"\x08\x00" or frame[23] != Proto.IGMP or frame[26:30] != own:
            continue
        header = Ipv4Header.parse(frame, 14)
        assert frame[:6] == b"\x01\x00\x5e\x00\x00\x16" and header.dst == ALL_IGMPV3_ROUTERS
        assert header.ttl == 1 and header.options == bytes((148, 4, 0, 0))
        message = parse_igmp(frame, 14 + header.length)
        assert isinstance(message, IgmpReport) and message.checksum_ok
        return message
    raise AssertionError("no report")


@pytest.mark.rfc("RFC 3376 5.1", "RFC 3376 5.2", "RFC 1112 6.4", "RFC 1112 7.3")
def test_reports_on_the_wire(stack: Stack, namespace: Namespace) -> None:
    """Joining, a general query's answer and leaving, as a packet socket sees them; and what the group gets arrives."""
    own = std.inet_aton(stack.address)
    with namespace.socket(std.AF_PACKET, std.SOCK_RAW, std.htons(0x0003)) as sniffer:
        sniffer.settimeout(PATIENCE_S + 10)
        stack.lvlip("group", "join", "239.1.2.3")
        for _ in range(2):  # at once, and again within a second
            assert [(r.kind, r.group) for r in igmp_of(sniffer, own).records] == [(4, GROUP)]
        assert "239.1.2.3 by lvlip group join" in stack.lvlip("group").stdout

        query = IgmpMessage.query(code=10).serialize(fill_checksum=True)
        header = Ipv4Header.build(
            std.inet_aton(stack.host), ALL_SYSTEMS, proto=Proto.IGMP, payload_length=len(query), ttl=1,
            options=bytes((148, 4, 0, 0)),
        )  # fmt: skip
        with namespace.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_RAW) as sender:
            sender.setsockopt(std.IPPROTO_IP, std.IP_MULTICAST_IF, std.inet_aton(stack.host))
            sender.sendto(header.serialize(fill_checksum=True) + query, ("224.0.0.1", 0))
            assert [(r.kind, r.group) for r in igmp_of(sniffer, own).records] == [(2, GROUP)]
        before = stack.counters("udp").get("drop.udp_no_port", 0)
        with namespace.socket(std.AF_INET, std.SOCK_DGRAM) as sender:
            sender.setsockopt(std.IPPROTO_IP, std.IP_MULTICAST_IF, std.inet_aton(stack.host))
            sender.sendto(b"to the group", ("239.1.2.3", 5000))
            sender.sendto(b"to another", ("239.1.2.4", 5000))
        stack.wait_until(lambda: stack.counters("udp").get("drop.udp_no_port", 0) == before + 1, "the group's datagram")
        stack.wait_until(lambda: stack.counters("link").get("drop.foreign_group", 0) >= 1, "the other is filtered")

        stack.lvlip("group", "leave", "239.1.2.3")
        assert [(r.kind, r.group) for r in igmp_of(sniffer, own).records] == [(3, GROUP)]


@pytest.fixture
def routed(make_namespace: Callable[..., Namespace], make_stack: Callable[..., Stack]) -> tuple[Stack, Namespace]:
    """A stack behind a router (its namespace) and a host behind that, 198.51.100.2; the second hop's MTU is 1300."""
    router, far = make_namespace(), make_namespace()
    stack = make_stack(router)
    router.connect(far, ("far0", "198.51.100.1/24"), ("far1", "198.51.100.2/24"))
    router.run(["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
    router.run(["ip", "link", "set", "far0", "mtu", "1300"])
    far.run(["ip", "link", "set", "far1", "mtu", "1300"])
    far.run(["ip", "route", "add", "default", "via", "198.51.100.1"])
    return stack, far


@pytest.mark.rfc("RFC 1122 3.2.2.4", "RFC 1191 3", "RFC 1122 3.2.2.1")
def test_through_a_router(routed: tuple[Stack, Namespace]) -> None:
    """Traceroute's way: the router says that the TTL was exceeded, the host beyond answers. A ping with DF that is too
    long for the second hop finds the path MTU, which `lvlip route` shows; without DF it comes through in fragments."""
    stack, _ = routed
    hop = stack.lvlip("ping", "-c", "1", "-t", "1", "198.51.100.2", check=False)
    assert f"From {stack.host} icmp_seq=1 Time to live exceeded" in hop.stdout
    assert "1 received" in stack.lvlip("ping", "-c", "1", "198.51.100.2").stdout
    big = stack.lvlip("ping", "-c", "1", "-s", "1400", "-M", "do", "198.51.100.2", check=False)
    assert "Frag needed and DF set (mtu = 1300)" in big.stdout
    assert stack.lvlip("route", "cache").stdout.startswith("198.51.100.2 mtu 1300 expires ")
    assert " mtu 1300, by default" in stack.lvlip("route", "198.51.100.2").stdout
    cut = stack.counters("ip").get("fragment.datagrams_cut", 0)
    assert "1 received" in stack.lvlip("ping", "-c", "1", "-s", "1400", "198.51.100.2").stdout
    assert stack.counters("ip")["fragment.datagrams_cut"] == cut + 1


def test_an_address_more(stack: Stack, namespace: Namespace) -> None:
    """Added while the stack runs, it answers ARP and echo; removed, it does not; routes refuse at once."""
    namespace.run(["ip", "address", "add", "192.0.2.1/24", "dev", _device(stack)])
    stack.lvlip("address", "add", "192.0.2.2/24")
    assert "192.0.2.2/24 brd 192.0.2.255" in stack.lvlip("address").stdout
    added = std.inet_aton("192.0.2.2")
    stack.wait_until(lambda: added in stack.snapshot("link")["addresses"], "link answers ARP for it")
    with namespace.socket(std.AF_INET, std.SOCK_RAW, std.IPPROTO_ICMP) as raw:
        raw.settimeout(PATIENCE_S)
        raw.sendto(struct.pack("!BBHHH", 8, 0, 0xF7FE, 0, 1), ("192.0.2.2", 0))
        _, (sender, _) = raw.recvfrom(2000)
        assert sender == "192.0.2.2"
    stack.lvlip("address", "del", "192.0.2.2")
    assert "192.0.2.2" not in stack.lvlip("address").stdout
    stack.lvlip("route", "add", "prohibit", "203.0.113.0/24")
    refused = stack.lvlip("ping", "-c", "1", "203.0.113.9", check=False)
    assert refused.returncode == 2 and "Permission denied" in refused.stderr
    assert "prohibit 203.0.113.0/24" in stack.lvlip("route").stdout


def _device(stack: Stack) -> str:
    return str(stack.ask("link", "device")["name"])


@pytest.mark.rfc("RFC 1122 3.2.2.2")
def test_a_redirect_of_the_kernel(routed: tuple[Stack, Namespace]) -> None:
    """The router knows that another host on our link is nearer, and says so: we go there from then on."""
    stack, _ = routed
    router = stack.namespace
    assert router is not None
    router.run(["sysctl", "-q", "-w", f"net.ipv4.conf.{_device(stack)}.send_redirects=1"])
    router.run(["ip", "route", "add", "192.0.2.0/24", "via", "10.0.0.77", "dev", _device(stack)])
    for _ in range(3):
        stack.lvlip("ping", "-c", "1", "-W", "0.3", "192.0.2.9", check=False)
    stack.wait_until(
        lambda: (
            "192.0.2.9 via 10.0.0.77" in stack.lvlip("route", "cache").stdout
            or stack.counters("ip").get("redirects", 0) > 0
        ),
        "the redirect",
    )
