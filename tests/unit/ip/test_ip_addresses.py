"""Several addresses, several routes with metrics, and routes that refuse; also changed while the stack runs."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ip_host import DIRECTED, FAR, OWN, PEER, Host, packet, segment

from levelip.addressing import Addressing, BadSetting, Kind, addressing, parse_route
from levelip.config import IpConfig
from levelip.frames.core import ControlError
from levelip.frames.packet import BROADCAST, Local, Routes
from levelip.tracing import reasons
from levelip.wire import icmp
from levelip.wire.addr import Prefix, parse_ipv4
from levelip.wire.ipv4 import Ipv4Header

SECOND_ADDRESS = bytes((192, 0, 2, 2))
NEIGHBOUR = bytes((192, 0, 2, 7))


def command(host: Host, name: str, **args: str) -> dict[str, Any]:
    return host.core.control(1, name, args, host.now)


def two(**ip: Any) -> Host:
    return Host(**{"addresses": ["192.0.2.2/24", "10.0.0.5/24"], **ip})


def source_of(host: Host, dst: bytes) -> bytes:
    return Ipv4Header.parse(host.sent(segment(src=b"", dst=dst)).head).src


@pytest.mark.rfc("RFC 1122 3.1-3", "RFC 1122 3.3.4.2-2")
@pytest.mark.parametrize("dst", [OWN, SECOND_ADDRESS, bytes((10, 0, 0, 5))])
def test_all_are_ours(dst: bytes) -> None:
    """A packet to any of our addresses is delivered, and any may be a source."""
    host = two()
    assert host.delivered(packet(dst=dst)).dst == dst
    assert Ipv4Header.parse(host.sent(segment(src=dst)).head).src == dst
    host.dropped(packet(src=dst), reasons.OWN_SOURCE)


@pytest.mark.rfc("RFC 1122 3.2.1.3-5", "RFC 1122 3.3.6-4")
def test_broadcasts_of_all_networks() -> None:
    """The directed broadcasts of each network are for us, and never a source."""
    host = two()
    for dst in (DIRECTED, bytes((192, 0, 2, 255)), bytes((192, 0, 2, 0))):
        assert host.delivered(packet(dst=dst)).flags == BROADCAST
        host.dropped(packet(src=dst), reasons.MARTIAN_SOURCE)
    assert host.sent(segment(dst=bytes((192, 0, 2, 255)), flags=BROADCAST)).next_hop == bytes((192, 0, 2, 255))


@pytest.mark.rfc("RFC 1122 3.3.4.3")
def test_the_source_is_in_the_network_of_the_next_hop() -> None:
    """A neighbour hears the address of its own network; so does a gateway; without one of its own, the first."""
    host = two(routes=["198.51.100.0/24 via 192.0.2.9", "203.0.113.0/24 via 192.0.2.9 src 10.0.0.5"])
    assert source_of(host, NEIGHBOUR) == SECOND_ADDRESS
    assert source_of(host, PEER) == OWN  # of two in one network the first
    assert source_of(host, bytes((198, 51, 100, 1))) == SECOND_ADDRESS
    assert source_of(host, bytes((203, 0, 113, 1))) == bytes((10, 0, 0, 5))
    assert source_of(host, bytes((8, 8, 8, 8))) == OWN


@pytest.mark.rfc("RFC 1122 3.3.4.3")
def test_what_tcp_is_told() -> None:
    """All addresses, and a route for each network with its source."""
    told = two().routes()
    assert told.addresses == [OWN, SECOND_ADDRESS, bytes((10, 0, 0, 5)), bytes((127, 0, 0, 1))]
    networks = {(route.prefix, route.length): route.source for route in told.routes if route.length == 24}
    assert networks == {(bytes((10, 0, 0, 0)), 24): OWN, (bytes((192, 0, 2, 0)), 24): SECOND_ADDRESS}


def test_addresses_come_and_go_while_running(host: Host) -> None:
    """Added: link answers ARP for it, tcp may use it, packets are taken. Removed: none of that."""
    assert command(host, "address.add", address="192.0.2.2/24") == {"added": "192.0.2.2/24"}
    out = dict(host.flush())
    assert isinstance(out["link"], Local) and out["link"].addresses == [OWN, SECOND_ADDRESS]
    assert bytes((192, 0, 2, 255)) in out["link"].broadcasts
    assert isinstance(out["tcp"], Routes) and SECOND_ADDRESS in out["tcp"].addresses
    assert host.delivered(packet(dst=SECOND_ADDRESS))
    assert [row["address"] for row in command(host, "addresses")["addresses"]] == ["127.0.0.1", "10.0.0.2", "192.0.2.2"]
    assert command(host, "address.del", address="192.0.2.2") == {"deleted": "192.0.2.2"}
    out = dict(host.flush())
    assert out["link"].addresses == [OWN] and SECOND_ADDRESS not in out["tcp"].addresses
    host.dropped(packet(dst=SECOND_ADDRESS), reasons.NOT_FOR_US)


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        ("address.add", "10.0.0.2/24", "twice"),
        ("address.add", "224.0.0.1/24", "single host"),
        ("address.add", "x", "prefix length"),
        ("address.del", "10.0.0.2", "first address"),
        ("address.del", "10.0.0.9", "no address of this stack"),
        ("address.del", "x", "IPv4 address"),
    ],
)
def test_address_commands_that_fail(host: Host, name: str, text: str, match: str) -> None:
    """Nothing changes, and the text says why."""
    with pytest.raises(ControlError, match=match):
        command(host, name, address=text)
    assert host.flush() == []


def test_an_address_that_a_route_needs(host: Host) -> None:
    """An address whose network a gateway lies in cannot go before the route does."""
    command(host, "address.add", address="192.0.2.2/24")
    command(host, "route.add", route="198.51.100.0/24 via 192.0.2.9")
    with pytest.raises(ControlError, match=r"ip\.routes"):
        command(host, "address.del", address="192.0.2.2")
    command(host, "route.del", route="198.51.100.0/24")
    command(host, "address.del", address="192.0.2.2")


def test_changes_survive_a_snapshot(host: Host) -> None:
    """What was added while running is part of the state."""
    command(host, "address.add", address="192.0.2.2/24")
    command(host, "route.add", route="blackhole 203.0.113.0/24")
    again = type(host.core).restore(host.core.config, host.core.snapshot())
    assert again.control(1, "route", {}, 0) == host.core.control(1, "route", {}, 0)


# routes


@pytest.mark.rfc("RFC 1812 5.2.4.3", "RFC 1122 3.3.1.1", "RFC 1122 3.3.1.2-4")
def test_metrics() -> None:
    """Of routes with the same prefix the lowest metric counts, of equal ones the first; a longer prefix beats any."""
    host = Host(
        gateway="",
        routes=["default via 10.0.0.7 metric 20", "default via 10.0.0.8 metric 10", "default via 10.0.0.9 metric 10",
                "192.0.2.0/24 via 10.0.0.6 metric 99"],
    )  # fmt: skip
    assert command(host, "route.get", dst="8.8.8.8")["next_hop"] == "10.0.0.8"
    assert command(host, "route.get", dst="192.0.2.7")["next_hop"] == "10.0.0.6"
    command(host, "route.del", route="default via 10.0.0.8")
    assert command(host, "route.get", dst="8.8.8.8")["next_hop"] == "10.0.0.9"


@pytest.mark.rfc("RFC 1122 3.3.1.6-1", "RFC 1122 3.3.1.2-5")
def test_routes_come_and_go_while_running(host: Host) -> None:
    """`lvlip route add` and `del`: the next packet goes by them, and tcp is told."""
    command(host, "route.add", route="192.0.2.0/24 via 10.0.0.9 metric 5")
    [(port, told)] = host.flush()
    assert port == "tcp" and any(route.prefix == bytes((192, 0, 2, 0)) for route in told.routes)
    assert host.sent(segment(dst=FAR)).next_hop == bytes((10, 0, 0, 9))
    with pytest.raises(ControlError, match="metric 5 already"):
        command(host, "route.add", route="192.0.2.0/24 via 10.0.0.8 metric 5")
    command(host, "route.add", route="192.0.2.0/24 via 10.0.0.8")
    assert host.flush() and host.sent(segment(dst=FAR)).next_hop == bytes((10, 0, 0, 8))
    with pytest.raises(ControlError, match="which one"):
        command(host, "route.del", route="192.0.2.0/24")
    assert command(host, "route.del", route="192.0.2.0/24 via 10.0.0.8") == {"deleted": "192.0.2.0/24 via 10.0.0.8"}
    assert command(host, "route.del", route="192.0.2.0/24")["deleted"] == "192.0.2.0/24 via 10.0.0.9 metric 5"
    host.flush()
    assert host.sent(segment(dst=FAR)).next_hop == PEER
    assert command(host, "route.del", route="default") == {"deleted": "default via 10.0.0.1"}
    host.flush()
    host.dropped(segment(dst=FAR), reasons.NO_ROUTE, silent=False)
    with pytest.raises(ControlError, match="no such route"):
        command(host, "route.del", route="default")


@pytest.mark.parametrize(
    ("kind", "reason", "code", "number", "text"),
    [
        ("blackhole", reasons.ROUTE_BLACKHOLE, None, errno.EINVAL, "Invalid argument"),
        ("unreachable", reasons.ROUTE_UNREACHABLE, icmp.HOST_UNREACH, errno.EHOSTUNREACH, "No route to host"),
        ("prohibit", reasons.ROUTE_PROHIBIT, icmp.PKT_FILTERED, errno.EACCES, "Permission denied"),
    ],
)
def test_routes_that_refuse(
    host: Host, kind: str, reason: reasons.Reason, code: int | None, number: int, text: str
) -> None:
    """As Linux: tcp is told the errno for connect(); a segment is dropped, its sender told, but by blackhole."""
    command(host, "route.add", route=f"{kind} 192.0.2.0/24")
    [(_, told)] = host.flush()
    assert [route.errno for route in told.routes if route.prefix == bytes((192, 0, 2, 0))] == [number]
    out = host.dropped(segment(dst=FAR), reason, silent=False)
    assert [frame.icmp_code for _, frame in out] == ([] if code is None else [code])
    assert command(host, "route.get", dst="192.0.2.7")["error"] == text
    assert host.ping("192.0.2.7") == {"error": text, "local": True}
    assert host.sent(segment(dst=bytes((192, 0, 3, 1)))).next_hop == PEER


@pytest.mark.parametrize(
    "text",
    ["10.9.0.0/16 via 10.0.0.254", "default dev metric 7", "10.9.0.0/16 via 10.0.0.254 metric 5 src 10.0.0.2",
     "blackhole 10.9.0.0/16", "unreachable default metric 4294967295", "prohibit 10.9.1.1/32"],
)  # fmt: skip
def test_a_route_reads_what_it_writes(text: str) -> None:
    """The text of a route is read back as the same route."""
    assert str(parse_route(text)) == text and parse_route(str(parse_route(text))) == parse_route(text)


@pytest.mark.parametrize(
    "text",
    ["", "blackhole", "10.9.0.0/16 via", "10.9.0.0/16 metric 5", "10.9.0.0/16 dev metric x", "10.9.0.0/16 dev dev",
     "10.9.0.0/16 via 10.0.0.1 via 10.0.0.2", "blackhole 10.9.0.0/16 via 10.0.0.1", "10.9.0.0/16 dev metric 4294967296",
     "blackhole 10.9.0.0/16 src 10.0.0.2", "10.9.0.0/16 dev src 127.0.0.1"],
)  # fmt: skip
def test_routes_that_make_no_sense(text: str) -> None:
    """Each is refused with what is allowed."""
    with pytest.raises(BadSetting):
        parse_route(text)


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        ({"addresses": ["10.0.0.2/24"]}, "ip.addresses"),
        ({"addresses": ["192.0.2.2/24", "192.0.2.2/25"]}, "ip.addresses"),
        ({"addresses": ["nonsense"]}, "ip.addresses"),
        ({"routes": ["10.9.0.0/16 dev src 10.0.0.3"]}, "ip.routes"),
        ({"multicast_groups": ["10.0.0.1"]}, "ip.multicast_groups"),
        ({"multicast_groups": ["x"]}, "ip.multicast_groups"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], key: str) -> None:
    """A mistake in [ip] is told with its key."""
    with pytest.raises(BadSetting) as caught:
        addressing(IpConfig(**fields))
    assert caught.value.key == key


def test_addressing_of_two() -> None:
    """Further addresses have networks of their own, in which gateways may lie."""
    meant: Addressing = addressing(IpConfig(addresses=["192.0.2.2/24"], gateway="192.0.2.1"))
    assert meant.addresses == (OWN, SECOND_ADDRESS) and meant.source_for(parse_ipv4("192.0.2.1")) == SECOND_ADDRESS
    assert meant.routes[-1].kind is Kind.UNICAST and meant.routes[-1].prefix == Prefix(bytes(4), 0)
