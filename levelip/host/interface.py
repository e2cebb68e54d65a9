"""The host's side of the cable: the tun/tap interface, made, set up and removed through pyroute2."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from msgspec import Struct

from levelip.ipc.rundir import RunError
from levelip.wire.addr import format_mac

_IFF_UP = 1  # linux/if.h
_RT_TABLE_MAIN = 254  # linux/rtnetlink.h
_TUN_TYPES = {"tun": 1, "tap": 2}  # linux/if_tun.h IFF_TUN, IFF_TAP


class InterfaceError(RunError):
    """An interface cannot be made or changed; the text says what would help."""


class Facts(Struct):
    """What an interface is now."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    addresses: list[str]
    """With prefix length."""


@contextmanager
def _route(doing: str) -> Iterator[Any]:
    """A netlink socket; a refusal is told with the `ip` command that does the same by hand."""
    from pyroute2 import IPRoute, NetlinkError

    try:
        with IPRoute() as route:
            yield route
    except NetlinkError as error:
        raise InterfaceError(f"cannot {doing}: {os.strerror(error.code)}; run it as root") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise InterfaceError(f"cannot {doing}: {where}{error.strerror}; run it as root") from None


def facts(name: str) -> Facts | None:
    """The interface's state, or None if there is none of that name."""
    with _route(f"look at {name}") as route:
        found = route.link_lookup(ifname=name)
        if not found:
            return None
        link = route.get_links(found[0])[0]
        info = link.get_attr("IFLA_LINKINFO")
        kind = info.get_attr("IFLA_INFO_KIND") if info else ""
        if kind == "tun":  # so the kernel calls both; the type says which
            data = info.get_attr("IFLA_INFO_DATA")
            of_type = data.get_attr("IFLA_TUN_TYPE") if data else 0
            kind = next((name for name, number in _TUN_TYPES.items() if number == of_type), kind)
        addresses = [
            f"{address.get_attr('IFA_LOCAL') or address.get_attr('IFA_ADDRESS')}/{address['prefixlen']}"
            for address in route.get_addr(index=found[0], family=2)
        ]
        return Facts(
            found[0], name, kind or "", bool(link["flags"] & _IFF_UP), link.get_attr("IFLA_MTU"),
            link.get_attr("IFLA_ADDRESS") or "", addresses,
        )  # fmt: skip


def create(name: str, kind: Literal["tap", "tun"], *, mac: bytes, mtu: int, owner: int) -> None:
    """Make a persistent interface that `owner` (a uid) may open. `mac` empty: the kernel chooses."""
    with _route(f"make {kind} device {name}") as route:
        route.link("add", ifname=name, kind="tun", tun_type=_TUN_TYPES[kind], tun_owner=owner)
        changes: dict[str, Any] = {"index": route.link_lookup(ifname=name)[0], "mtu": mtu}
        if mac and kind == "tap":
            changes["address"] = format_mac(mac)
        route.link("set", **changes)


def remove(name: str) -> bool:
    """Delete the interface; False if there was none."""
    with _route(f"remove {name}") as route:
        found = route.link_lookup(ifname=name)
        if not found:
            return False
        route.link("del", index=found[0])
        return True


def set_up(name: str, up: bool) -> None:
    """Switch the interface on or off."""
    with _route(f"switch {name} {'on' if up else 'off'}") as route:
        for index in route.link_lookup(ifname=name):
            route.link("set", index=index, state="up" if up else "down")


def add_address(name: str, address: str) -> None:
    """Give the interface an address with prefix length."""
    interface = ipaddress.ip_interface(address)
    with _route(f"add {address} to {name}") as route:
        for index in route.link_lookup(ifname=name):
            route.addr("add", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen)


def remove_address(name: str, address: str) -> bool:
    """Take an address away; False if it is not there."""
    state = facts(name)
    if state is None or address not in state.addresses:
        return False
    interface = ipaddress.ip_interface(address)
    with _route(f"remove {address} from {name}") as route:
        route.addr("del", index=state.index, address=str(interface.ip), prefixlen=interface.network.prefixlen)
    return True


def names() -> list[str]:
    """All interfaces but lo."""
    with _route("list interfaces") as route:
        return sorted(name for link in route.get_links() if (name := link.get_attr("IFLA_IFNAME")) != "lo")


def addresses() -> list[tuple[str, str]]:
    """The IPv4 addresses of all interfaces but lo: (interface, address with prefix length)."""
    with _route("list addresses") as route:
        known = {link["index"]: link.get_attr("IFLA_IFNAME") for link in route.get_links()}
        return [
            (known[one["index"]], f"{one.get_attr('IFA_LOCAL') or one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}")
            for one in route.get_addr(family=2)
            if known.get(one["index"], "lo") != "lo"
        ]


def default_interface() -> str | None:
    """The interface of the host's default route, the first if there are several."""
    with _route("look up the default route") as route:
        for found in route.get_default_routes(family=2, table=_RT_TABLE_MAIN):
            index = found.get_attr("RTA_OIF")
            if index is not None:
                name: str = route.get_links(index)[0].get_attr("IFLA_IFNAME")
                return name
        return None
