"""Where packets go, what [ip] may say, and what the transports are told of it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ip_host import FAR, LOOPBACK, OWN, PEER, Host, link_state

from layers.ip.routing import CACHE_LIMIT, RoutingTable
from levelip.addressing import Addressing, BadSetting, StaticRoute, addressing
from levelip.config import IpConfig
from levelip.configfile import ConfigError, load
from levelip.frames.core import ControlError
from levelip.frames.packet import InterfaceAddress, Local, Route, Routes
from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.wire.addr import Prefix, parse_ipv4


def next_hop(table: RoutingTable, dst: str) -> str | None:
    """The next hop as text; "lo" for ourselves."""
    hop = table.lookup(parse_ipv4(dst))
    if hop is None:
        return None
    return "lo" if hop.local else str(ipaddress.ip_address(hop.next_hop))


TABLE = RoutingTable(
    addressing(
        IpConfig(
            routes=[
                "10.9.0.0/16 via 10.0.0.3",
                "10.9.1.0/24 via 10.0.0.4",
                "10.9.1.7/32 via 10.0.0.5",
                "172.16.0.0/12 dev",
            ]
        )
    )
)


@pytest.mark.rfc("RFC 1812 5.2.4.3", "RFC 1122 3.2.1.3-1", "RFC 1122 3.3.1.1-1")
@pytest.mark.parametrize(
    ("dst", "hop"),
    [
        ("10.0.0.77", "10.0.0.77"),
        ("8.8.8.8", "10.0.0.1"),
        ("10.9.5.5", "10.0.0.3"),
        ("10.9.1.6", "10.0.0.4"),
        ("10.9.1.7", "10.0.0.5"),
        ("172.31.255.1", "172.31.255.1"),
        ("172.32.0.1", "10.0.0.1"),
        ("10.0.0.2", "lo"),
        ("127.0.0.1", "lo"),
        ("127.255.255.255", "lo"),
        ("10.0.0.255", "10.0.0.255"),
        ("255.255.255.255", "255.255.255.255"),
        ("224.0.0.5", "224.0.0.5"),
    ],
)
def test_longest_prefix(dst: str, hop: str) -> None:
    """RFC 1812 5.2.4.3: the longest prefix that holds the destination decides; groups are on the link."""
    assert next_hop(TABLE, dst) == hop


@pytest.mark.rfc("RFC 1122 3.3.1.1-2")
def test_without_a_default_gateway() -> None:
    """What no prefix holds has no route."""
    table = RoutingTable(addressing(IpConfig(gateway="")))
    assert next_hop(table, "8.8.8.8") is None
    assert next_hop(table, "224.0.0.5") == "224.0.0.5"  # a group needs no route (RFC 1112 6.1)
    assert next_hop(table, "10.0.0.9") == "10.0.0.9"


def test_cache_is_bounded() -> None:
    """Many destinations do not fill memory, and the answers stay right."""
    table = RoutingTable(addressing(IpConfig()))
    for number in range(CACHE_LIMIT + 50):
        dst = (0x0B00_0000 + number).to_bytes(4, "big")
        hop = table.lookup(dst)
        assert hop is not None and hop.next_hop == PEER
    assert len(table._cache) <= CACHE_LIMIT


routes_strategy = st.lists(st.tuples(st.integers(0, 0xFFFF_FFFF), st.integers(0, 32), st.integers(3, 250)), max_size=12)


@given(routes_strategy, st.integers(0x0100_0000, 0xDFFF_FFFF))
def test_agrees_with_a_search_through_all_networks(routes: list[tuple[int, int, int]], dst: int) -> None:
    """The table answers as a plain search with the standard library's ipaddress does."""
    static = []
    for network, length, gateway in routes:
        masked = network >> (32 - length) << (32 - length) if length else 0
        static.append(StaticRoute(Prefix(masked.to_bytes(4, "big"), length), bytes((10, 0, 0, gateway))))
    table = RoutingTable(Addressing(OWN, Prefix(bytes((10, 0, 0, 0)), 24), tuple(static)))
    address = ipaddress.ip_address(dst)
    if address in ipaddress.ip_network("10.0.0.0/24") or address.is_loopback:
        return
    holding = [route for route in static if address in ipaddress.ip_network(str(route.prefix))]
    best = max(holding, key=lambda route: route.prefix.length, default=None)
    hop = table.lookup(address.packed)
    assert (hop.next_hop if hop else None) == (best.gateway if best else None)


# configuration


@pytest.mark.rfc("RFC 1122 3.2.2.9-8")
@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"address": "10.0.0.2/33"}, "ip.address"),
        ({"address": "nonsense"}, "ip.address"),
        ({"address": "fd00::2/64"}, "ip.address"),
        ({"address": "127.0.0.1/8"}, "ip.address"),
        ({"address": "224.0.0.1/24"}, "ip.address"),
        ({"address": "10.0.0.255/24"}, "ip.address"),
        ({"address": "10.0.0.0/24"}, "ip.address"),
        ({"gateway": "10.0.1.1"}, "ip.gateway"),
        ({"gateway": "10.0.0.2"}, "ip.gateway"),
        ({"gateway": "x"}, "ip.gateway"),
        ({"gateway": "0.0.0.0"}, "ip.gateway"),
        ({"routes": ["10.9.0.0/16"]}, "ip.routes"),
        ({"routes": ["10.9.0.1/16 dev"]}, "ip.routes"),
        ({"routes": ["10.9.0.0/16 via 11.0.0.1"]}, "ip.routes"),
        ({"routes": ["10.9.0.0/16 over 10.0.0.1"]}, "ip.routes"),
        ({"routes": ["fd00::/8 dev"]}, "ip.routes"),
        ({"routes": ["10.9.0.0/16 via nobody"]}, "ip.routes"),
    ],
)
def test_mistakes_are_named(section: dict[str, object], key: str) -> None:
    """A mistake in [ip] is told with key, value and what is allowed."""
    with pytest.raises(BadSetting) as caught:
        addressing(IpConfig(**section))  # type: ignore[arg-type]
    assert caught.value.key == key and caught.value.allowed


@pytest.mark.rfc("RFC 3021 2.1")
def test_point_to_point() -> None:
    """A /32 reaches its gateway by a route of its own, and /31 has no broadcast addresses (RFC 3021)."""
    single = addressing(IpConfig(address="192.0.2.1/32", gateway="192.0.2.9", routes=["192.0.2.9 dev"]))
    table = RoutingTable(single)
    assert next_hop(table, "192.0.2.9") == "192.0.2.9"
    assert next_hop(table, "8.8.8.8") == "192.0.2.9"
    pair = addressing(IpConfig(address="192.0.2.1/31", gateway="192.0.2.0"))
    assert pair.broadcasts == frozenset()
    assert next_hop(RoutingTable(pair), "192.0.2.0") == "192.0.2.0"


# what tcp is told


def test_routes_for_tcp(host: Host) -> None:
    """tcp gets every route with source, MTU and offload, and our addresses, as soon as it is up."""
    told = host.routes()
    assert told.addresses == [OWN, LOOPBACK]
    assert told.routes == [
        Route(OWN, 32, OWN, 65_535, 0),
        Route(bytes((10, 0, 0, 0)), 24, OWN, 1500, 65_535),
        Route(bytes((127, 0, 0, 0)), 8, LOOPBACK, 65_535, 0),
        Route(bytes(4), 0, OWN, 1500, 65_535),
    ]


def test_interfaces_for_programs(host: Host) -> None:
    """With the routes comes what getifaddrs(3) and `ip route` show: the device and loopback with their addresses."""
    told = host.routes()
    device, loopback = told.interfaces
    assert device.up and device.mtu == 1500
    assert device.addresses == [InterfaceAddress(OWN, 24, bytes((10, 0, 0, 255)))]
    assert (loopback.name, loopback.kind) == ("lo", "loopback")
    assert loopback.addresses == [InterfaceAddress(LOOPBACK, 8, b"")]
    assert loopback.index != device.index
    ways = {(way.prefix, way.length, way.kind): (way.via, way.iface) for way in told.ways}
    assert ways[OWN, 32, "local"] == (b"", loopback.index)
    assert ways[bytes((10, 0, 0, 0)), 24, "unicast"] == (b"", device.index)
    assert ways[bytes(4), 0, "unicast"] == (PEER, device.index)
    [(_, told)] = host.feed(link_state(up=False))
    assert not told.interfaces[0].up and len(told.ways) == len(ways)


def test_routes_follow_the_device(host: Host) -> None:
    """Each change of the device is told: MTU, offload, down and up again; a repetition is not."""
    assert host.feed(link_state()) == []
    [(port, told)] = host.feed(link_state(mtu=1280, gso_max=0))
    assert port == "tcp" and told.routes[-1] == Route(bytes(4), 0, OWN, 1280, 0)
    [(_, told)] = host.feed(link_state(up=False))
    assert [route.prefix for route in told.routes] == [OWN, bytes((127, 0, 0, 0))]
    [(_, told)] = host.feed(link_state(up=True))
    assert len(told.routes) == 4


def test_routes_stay_while_link_restarts(host: Host) -> None:
    """A link that was killed comes back: until then packets are lost, but no connection is refused."""
    assert host.feed(NeighbourDown("link")) == []
    assert len(host.routes().routes) == 4


def test_before_link_speaks() -> None:
    """The processes start in any order: tcp is told of the device's routes at once, without offload."""
    host = Host(device=False, mtu=1400)
    assert host.routes().routes[-1] == Route(bytes(4), 0, OWN, 1400, 0)


def test_only_the_newest_routes_wait(host: Host) -> None:
    """Routes replace what was told before, so an older message need not be sent at all."""
    for mtu in (1300, 1200, 1100):
        host.core.receive(link_state(mtu=mtu), host.now)
    [(_, told)] = host.flush()
    assert isinstance(told, Routes) and told.routes[-1].mtu == 1100


def test_other_neighbours_get_none(host: Host) -> None:
    """link has no use for routes."""
    [(port, told)] = host.feed(NeighbourUp("link", 4))
    assert port == "link" and isinstance(told, Local)
    assert host.feed(NeighbourUp("udp", 4)) == []


# commands


def test_route_command(host: Host) -> None:
    """`lvlip route` shows the whole table, longest prefix first."""
    rows = host.core.control(1, "route", {}, host.now)["routes"]
    assert [row["prefix"] for row in rows] == [
        "10.0.0.2/32", "255.255.255.255/32", "10.0.0.0/32", "10.0.0.255/32", "10.0.0.0/24", "127.0.0.0/8", "default",
    ]  # fmt: skip
    assert rows[-1] == {
        "prefix": "default", "kind": "unicast", "via": "10.0.0.1", "source": "10.0.0.2", "device": "tap0",
        "mtu": 1500, "up": True, "metric": 0,
    }  # fmt: skip
    assert rows[0]["device"] == "lo"


def test_route_get_command(host: Host) -> None:
    """`lvlip route get` names the row, the next hop and the source for one destination."""
    answer = host.core.control(1, "route.get", {"dst": "8.8.8.8"}, host.now)
    assert (answer["next_hop"], answer["source"], answer["prefix"]) == ("10.0.0.1", "10.0.0.2", "default")
    assert host.core.control(1, "route.get", {"dst": "127.0.0.1"}, host.now)["device"] == "lo"
    assert Host(gateway="").core.control(1, "route.get", {"dst": "8.8.8.8"}, 0)["error"] == "Network is unreachable"
    with pytest.raises(ControlError, match="IPv4 address"):
        host.core.control(1, "route.get", {"dst": "::1"}, host.now)


def test_addresses_command(host: Host) -> None:
    """Our addresses with their devices."""
    lo, own = host.core.control(1, "addresses", {}, host.now)["addresses"]
    assert (lo["address"], own["address"], own["broadcast"], own["device"]) == (
        "127.0.0.1", "10.0.0.2", "10.0.0.255", "tap0",
    )  # fmt: skip


def test_unknown_command(host: Host) -> None:
    """A command that ip does not have is refused with those that it has."""
    with pytest.raises(ControlError, match=r"addresses, fragments, group.join, .*ping, route"):
        host.core.control(1, "fly", {}, host.now)


# settings at run time


def test_gateway_changes_while_running(host: Host) -> None:
    """`lvlip set ip.gateway=...` holds for the next packet, and tcp is told."""
    host.core.set("gateway", "10.0.0.9", host.now)
    [(port, told)] = host.flush()
    assert port == "tcp" and isinstance(told, Routes)
    assert host.core.control(1, "route.get", {"dst": "8.8.8.8"}, host.now)["next_hop"] == "10.0.0.9"


def test_a_mistake_changes_nothing(host: Host) -> None:
    """An impossible value is refused, and the old one stays."""
    with pytest.raises(ControlError, match=r"ip.gateway"):
        host.core.set("gateway", "172.16.0.1", host.now)
    assert host.flush() == []
    assert host.core.control(1, "route.get", {"dst": FARTEXT}, host.now)["next_hop"] == "10.0.0.1"
    with pytest.raises(ControlError, match="restart"):
        host.core.set("address", "10.0.0.7/24", host.now)
    with pytest.raises(ControlError, match="no setting"):
        host.core.set("colour", 3, host.now)


FARTEXT = ".".join(map(str, FAR))


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("ip.address=127.0.0.1/8", "ip.address"),
        ("ip.gateway=10.0.0.2", "ip.gateway"),
        ("ip.routes=192.0.2.0/24 via 203.0.113.1", "ip.routes"),
    ],
)
def test_mistakes_stop_before_anything_starts(setting: str, key: str) -> None:
    """What the core would refuse is refused when the configuration is read."""
    with pytest.raises(ConfigError, match=key):
        load(None, environ={}, settings=(setting,))


def test_a_gateway_beyond_the_network_with_a_route_of_its_own() -> None:
    """The configuration's rules allow what the core can use."""
    settings = ("ip.address=192.0.2.1/32", "ip.gateway=203.0.113.1", "ip.routes=203.0.113.1 dev")
    assert addressing(load(None, environ={}, settings=settings).ip).routes[-1].gateway == parse_ipv4("203.0.113.1")
