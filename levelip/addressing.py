"""What the [ip] section means: the stack's addresses, their networks and its static routes, read from text.

Shared by the ip layer, which acts on it, and by the host commands, which prepare the other side for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from levelip.config import IpConfig
from levelip.wire.addr import Prefix, format_ipv4, is_multicast, parse_interface, parse_ipv4, parse_prefix

ROUTE_FORMS = (
    'must be "PREFIX via GATEWAY" or "PREFIX dev", as "10.9.0.0/16 via 10.0.0.254", with "metric N" and "src ADDRESS" '
    'behind it if wanted; or "blackhole PREFIX", "unreachable PREFIX" or "prohibit PREFIX"'
)
METRIC_MAX = 0xFFFF_FFFF


class BadSetting(ValueError):
    """A key whose value cannot be used; `allowed` says what can."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        super().__init__(f"{key} = {value!r}: {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed


class Kind(StrEnum):
    """What a route means, named as `ip route show table all` does."""

    LOCAL = "local"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"
    UNICAST = "unicast"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"


REFUSING = (Kind.BLACKHOLE, Kind.UNREACHABLE, Kind.PROHIBIT)


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A configured route; without `gateway` (empty) the destinations are neighbours on the link.

    Of routes with the same prefix the one with the lowest `metric` is used. `source`: what to send from; empty: chosen.
    """

    prefix: Prefix
    gateway: bytes = b""
    metric: int = 0
    source: bytes = b""
    kind: Kind = Kind.UNICAST

    def __str__(self) -> str:
        """As `parse_route` reads it."""
        prefix = "default" if self.prefix.length == 0 else str(self.prefix)
        if self.kind is not Kind.UNICAST:
            text = f"{self.kind} {prefix}"
        else:
            text = f"{prefix} via {format_ipv4(self.gateway)}" if self.gateway else f"{prefix} dev"
        if self.metric:
            text += f" metric {self.metric}"
        return f"{text} src {format_ipv4(self.source)}" if self.source else text


@dataclass(frozen=True, slots=True)
class Interface:
    """One address of the stack, and the network that it is connected to by it."""

    address: bytes
    network: Prefix

    @property
    def broadcasts(self) -> tuple[bytes, ...]:
        """What means every host of that network: all ones and all zeros in the host part (RFC 1122 3.3.6)."""
        directed = self.network.broadcast
        return () if directed is None else (directed, self.network.network)

    def __str__(self) -> str:
        return f"{format_ipv4(self.address)}/{self.network.length}"


@dataclass(frozen=True, slots=True)
class Addressing:
    """The stack's first address and its network, the routes beyond (the default one included), further addresses."""

    address: bytes
    network: Prefix
    routes: tuple[StaticRoute, ...] = ()
    others: tuple[Interface, ...] = ()
    groups: tuple[bytes, ...] = ()
    """Multicast groups joined from the start."""

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """All addresses, the first one first."""
        return (Interface(self.address, self.network), *self.others)

    @property
    def addresses(self) -> tuple[bytes, ...]:
        return (self.address, *(other.address for other in self.others))

    @property
    def broadcasts(self) -> frozenset[bytes]:
        """The addresses that mean every host on the link, besides 255.255.255.255."""
        return frozenset(address for interface in self.interfaces for address in interface.broadcasts)

    def on_link(self, address: bytes) -> bool:
        """Whether a host of that address is reached without a gateway."""
        if any(interface.network.contains(address) for interface in self.interfaces):
            return True
        return any(
            not route.gateway and route.kind is Kind.UNICAST and route.prefix.contains(address) for route in self.routes
        )

    def source_for(self, neighbour: bytes) -> bytes:
        """The address to send from to or by way of `neighbour`: one in its network (RFC 1122 3.3.4.3)."""
        holding = [interface for interface in self.interfaces if interface.network.contains(neighbour)]
        if not holding:
            return self.address
        return max(holding, key=lambda interface: interface.network.length).address


def host_address(key: str, text: str) -> bytes:
    """An IPv4 address that a single host can have (RFC 1122 3.2.1.3). BadSetting for others."""
    try:
        address = parse_ipv4(text)
    except ValueError:
        raise BadSetting(key, text, "must be an IPv4 address, as 10.0.0.1") from None
    if address[0] in (0, 127) or is_multicast(address) or address == b"\xff\xff\xff\xff":
        raise BadSetting(key, text, "must be a single host's: not in 0/8, 127/8 or 224/4, and not 255.255.255.255")
    return address


def group_address(key: str, text: str) -> bytes:
    """An IPv4 multicast address. BadSetting for others."""
    try:
        address = parse_ipv4(text)
    except ValueError:
        address = b""
    if not address or not is_multicast(address):
        raise BadSetting(key, text, "must be an IPv4 multicast address, 224.0.0.0 to 239.255.255.255")
    return address


def parse_route(text: str, key: str = "ip.routes") -> StaticRoute:
    """The route that `text` describes (ROUTE_FORMS). BadSetting names `key`."""
    words = text.split()
    kind = Kind.UNICAST
    if words and words[0] in REFUSING:
        kind = Kind(words.pop(0))
    try:
        prefix = parse_prefix(words.pop(0))
    except (ValueError, IndexError) as error:
        raise BadSetting(key, text, f"{ROUTE_FORMS} ({error})") from None
    if len(prefix.network) != 4:
        raise BadSetting(key, text, "must be of IPv4")
    gateway = source = b""
    metric = 0
    reachable = kind is not Kind.UNICAST
    while words:
        match words:
            case ["via", value, *rest] if not reachable:
                gateway, reachable = host_address(key, value), True
            case ["dev", *rest] if not reachable:
                reachable = True
            case ["metric", value, *rest] if value.isdigit() and int(value) <= METRIC_MAX:
                metric = int(value)
            case ["src", value, *rest] if kind is Kind.UNICAST:
                source = host_address(key, value)
            case _:
                raise BadSetting(key, text, ROUTE_FORMS)
        words = rest
    if not reachable:
        raise BadSetting(key, text, ROUTE_FORMS)
    return StaticRoute(prefix, gateway, metric, source, kind)


def parse_interface_address(text: str, key: str = "ip.address") -> Interface:
    """An address of the stack with its prefix length. BadSetting names `key`."""
    try:
        address, network = parse_interface(text)
    except ValueError as error:
        raise BadSetting(key, text, f"must be an IPv4 address with prefix length, as 10.0.0.2/24 ({error})") from None
    if len(address) != 4:
        raise BadSetting(key, text, "must be of IPv4")
    host_address(key, format_ipv4(address))
    if network.broadcast is not None and address in (network.broadcast, network.network):
        raise BadSetting(key, text, f"must not be the first or the last address of {network}, which are no host's")
    return Interface(address, network)


def addressing(config: IpConfig) -> Addressing:
    """The meaning of `config`; raises BadSetting with the key, its value and what is allowed."""
    first = parse_interface_address(config.address)
    others = [parse_interface_address(text, "ip.addresses") for text in config.addresses]
    known = [first.address]
    for other in others:
        if other.address in known:
            raise BadSetting("ip.addresses", str(other), "must not be named twice")
        known.append(other.address)

    routes = [parse_route(text) for text in config.routes]
    if config.gateway:
        routes.append(StaticRoute(Prefix(bytes(4), 0), host_address("ip.gateway", config.gateway)))
    groups = tuple(dict.fromkeys(group_address("ip.multicast_groups", text) for text in config.multicast_groups))
    result = Addressing(first.address, first.network, tuple(routes), tuple(others), groups)
    for route in routes:
        if route.source and route.source not in known:
            raise BadSetting("ip.routes", str(route), "src must be one of our own addresses")
        if not route.gateway:
            continue
        key = "ip.gateway" if route.prefix.length == 0 and config.gateway else "ip.routes"
        if route.gateway in known:
            raise BadSetting(key, format_ipv4(route.gateway), "must not be our own address")
        if not result.on_link(route.gateway):
            allowed = f'must lie in {first.network}, or have a route "PREFIX dev" of its own'
            raise BadSetting(key, format_ipv4(route.gateway), allowed)
    return result
