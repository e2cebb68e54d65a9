"""What the [ip] section means: the stack's address, its network and its static routes, read from text.

Shared by the ip layer, which acts on it, and by the host commands, which prepare the other side for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from levelip.config import IpConfig
from levelip.wire.addr import Prefix, format_ipv4, is_multicast, parse_interface, parse_ipv4, parse_prefix


class BadSetting(ValueError):
    """A key whose value cannot be used; `allowed` says what can."""

    def __init__(self, key: str, value: str, allowed: str) -> None:
        super().__init__(f"{key} = {value!r}: {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A configured route; without `gateway` (empty) the destinations are neighbours on the link."""

    prefix: Prefix
    gateway: bytes = b""


@dataclass(frozen=True, slots=True)
class Addressing:
    """The stack's address, the network it is connected to, and the routes beyond, the default one included."""

    address: bytes
    network: Prefix
    routes: tuple[StaticRoute, ...] = ()

    @property
    def broadcasts(self) -> frozenset[bytes]:
        """The addresses that mean every host on the link: all ones and all zeros in the host part (RFC 1122 3.3.6)."""
        directed = self.network.broadcast
        return frozenset() if directed is None else frozenset((directed, self.network.network))

    def on_link(self, address: bytes) -> bool:
        """Whether a host of that address is reached without a gateway."""
        if self.network.contains(address):
            return True
        return any(not route.gateway and route.prefix.contains(address) for route in self.routes)


def _host_address(key: str, text: str) -> bytes:
    """An IPv4 address that a single host can have (RFC 1122 3.2.1.3)."""
    try:
        address = parse_ipv4(text)
    except ValueError:
        raise BadSetting(key, text, "must be an IPv4 address, as 10.0.0.1") from None
    if address[0] in (0, 127) or is_multicast(address) or address == b"\xff\xff\xff\xff":
        raise BadSetting(key, text, "must be a single host's: not in 0/8, 127/8 or 224/4, and not 255.255.255.255")
    return address


def _static_route(text: str) -> StaticRoute:
    words = text.split()
    allowed = 'must be "PREFIX via GATEWAY" or "PREFIX dev", as "10.9.0.0/16 via 10.0.0.254"'
    try:
        match words:
            case [prefix, "via", gateway]:
                route = StaticRoute(parse_prefix(prefix), _host_address("ip.routes", gateway))
            case [prefix, "dev"]:
                route = StaticRoute(parse_prefix(prefix))
            case _:
                raise BadSetting("ip.routes", text, allowed)
    except BadSetting:
        raise
    except ValueError as error:
        raise BadSetting("ip.routes", text, f"{allowed} ({error})") from None
    if len(route.prefix.network) != 4:
        raise BadSetting("ip.routes", text, "must be of IPv4")
    return route


def addressing(config: IpConfig) -> Addressing:
    """The meaning of `config`; raises BadSetting with the key, its value and what is allowed."""
    try:
        address, network = parse_interface(config.address)
    except ValueError as error:
        raise BadSetting(
            "ip.address", config.address, f"must be an IPv4 address with prefix length, as 10.0.0.2/24 ({error})"
        ) from None
    if len(address) != 4:
        raise BadSetting("ip.address", config.address, "must be of IPv4")
    _host_address("ip.address", format_ipv4(address))
    if network.broadcast is not None and address in (network.broadcast, network.network):
        raise BadSetting(
            "ip.address", config.address, f"must not be the first or the last address of {network}, which are no host's"
        )

    routes = [_static_route(text) for text in config.routes]
    if config.gateway:
        routes.append(StaticRoute(Prefix(bytes(4), 0), _host_address("ip.gateway", config.gateway)))
    result = Addressing(address, network, tuple(routes))
    for route in routes:
        if not route.gateway:
            continue
        key = "ip.gateway" if route.prefix.length == 0 and config.gateway else "ip.routes"
        if route.gateway == address:
            raise BadSetting(key, format_ipv4(route.gateway), "must not be our own address")
        if not result.on_link(route.gateway):
            allowed = f'must lie in {network}, or have a route "PREFIX dev" of its own'
            raise BadSetting(key, format_ipv4(route.gateway), allowed)
    return result
