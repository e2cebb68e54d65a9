"""Control commands of the ip layer: arguments checked, tables as plain data for people, changes while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from layers.ip.config import LOOPBACK_MTU
from layers.ip.context import LINK, MILLISECOND, Cause, Context
from layers.ip.messages import path_mtu, say, send_icmp
from layers.ip.ping import Waiting, echo_data
from layers.ip.routing import Row
from layers.ip.sending import REFUSALS, send_routes
from levelip.addressing import BadSetting, Kind, group_address, host_address, parse_interface_address, parse_route
from levelip.config import IpConfig
from levelip.frames.core import DEFERRED, ControlError
from levelip.frames.packet import LinkState, Local
from levelip.wire.addr import LIMITED_BROADCAST, format_ipv4, is_multicast, parse_ipv4
from levelip.wire.icmp import ICMP_HEADER_LEN, IcmpMessage
from levelip.wire.ipv4 import IPV4_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH

PING_TIMEOUT_MS = 1000
"""How long a ping waits unless told otherwise."""
PING_SIZE = 56
"""Bytes of data unless told otherwise, as ping."""
PING_MAX = IPV4_MAX_TOTAL_LENGTH - IPV4_HEADER_LEN - ICMP_HEADER_LEN
MAX_TIMEOUT_MS = 3_600_000
USER = "control"
"""Who joined a group by command."""


def address_argument(args: dict[str, Any], key: str) -> bytes:
    """args[key] as an IPv4 address; ControlError if it is none."""
    try:
        return parse_ipv4(str(args[key]))
    except (KeyError, ValueError):
        raise ControlError(f"{key}: an IPv4 address is needed, not {args.get(key)!r}") from None


def number_argument(args: dict[str, Any], key: str, default: int, low: int, high: int) -> int:
    """args[key] as a number in low..high; ControlError if it is none."""
    value = args.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ControlError(f"{key}: a number in {low}..{high} is needed, not {value!r}")
    return value


class PingRequest(Struct):
    """The arguments of "ping". `ident` is None where the core shall choose it."""

    dst: bytes
    ident: int | None
    sequence: int
    size: int
    ttl: int
    timeout_ms: int
    dont_fragment: bool
    tos: int

    @classmethod
    def read(cls, args: dict[str, Any], *, ttl: int) -> PingRequest:
        """`ttl`: the default. Raises ControlError."""
        return cls(
            dst=address_argument(args, "dst"),
            ident=number_argument(args, "id", 0, 0, 0xFFFF) if "id" in args else None,
            sequence=number_argument(args, "seq", 1, 0, 0xFFFF),
            size=number_argument(args, "size", PING_SIZE, 0, PING_MAX),
            ttl=number_argument(args, "ttl", ttl, 1, 255),
            timeout_ms=number_argument(args, "timeout_ms", PING_TIMEOUT_MS, 1, MAX_TIMEOUT_MS),
            dont_fragment=bool(args.get("dont_fragment", False)),
            tos=number_argument(args, "tos", 0, 0, 255),
        )


def describe_row(row: Row, link: LinkState | None, mtu: int) -> dict[str, Any]:
    """One route for `lvlip route`, with its device; `mtu`: the device's."""
    local = row.kind is Kind.LOCAL
    device = "lo" if local else link.name if link is not None and row.kind not in REFUSALS else ""
    return {
        **row.describe(),
        "device": device,
        "mtu": LOOPBACK_MTU if local else mtu,
        "up": local or link is None or link.up,
    }


# what is shown


def _addresses(ctx: Context, _args: dict[str, Any]) -> dict[str, Any]:
    """All addresses of the stack, as `ip address` shows them."""
    link = ctx.link
    rows = [{"address": "127.0.0.1", "prefix": 8, "broadcast": "", "device": "lo", "mtu": LOOPBACK_MTU, "up": True}]
    for interface in ctx.meant.interfaces:
        broadcast = interface.network.broadcast
        rows.append(
            {
                "address": format_ipv4(interface.address),
                "prefix": interface.network.length,
                "broadcast": format_ipv4(broadcast) if broadcast else "",
                "device": link.name if link is not None else "",
                "mtu": ctx.mtu,
                "up": link is not None and link.up,
            }
        )
    return {"addresses": rows}


def _routes(ctx: Context, _args: dict[str, Any]) -> dict[str, Any]:
    return {"routes": [describe_row(row, ctx.link, ctx.mtu) for row in ctx.table.rows]}


def _route_get(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    dst = address_argument(args, "dst")
    hop = ctx.table.lookup(dst)
    if hop is None:
        return {"dst": format_ipv4(dst), "error": "Network is unreachable"}
    row = describe_row(hop.row, ctx.link, path_mtu(ctx, dst))
    answer = {
        **row,
        "dst": format_ipv4(dst),
        "next_hop": format_ipv4(hop.next_hop) if hop.next_hop else "",
        "group": hop.group,
    }
    if hop.refused:
        answer["error"] = _REFUSED[hop.row.kind]
    return answer


_REFUSED = {
    Kind.BLACKHOLE: "Invalid argument",
    Kind.UNREACHABLE: "No route to host",
    Kind.PROHIBIT: "Permission denied",
}  # strerror of REFUSALS


def _route_cache(ctx: Context, _args: dict[str, Any]) -> dict[str, Any]:
    """What was learned about single destinations: path MTUs and redirects, each with what is left of its time."""
    rows = []
    for entry in ctx.exceptions.entries():
        row: dict[str, Any] = {"dst": format_ipv4(entry.dst)}
        if entry.mtu:
            row |= {"mtu": entry.mtu, "mtu_expires_ms": max(0, entry.mtu_until - ctx.now) // MILLISECOND}
        if entry.gateway:
            left = max(0, entry.gateway_until - ctx.now) // MILLISECOND
            row |= {"via": format_ipv4(entry.gateway), "redirect_expires_ms": left}
        rows.append(row)
    return {"cache": rows}


def _groups(ctx: Context, _args: dict[str, Any]) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"group": "224.0.0.1", "users": ["always"]}]
    rows += [{"group": format_ipv4(group.address), "users": list(group.users)} for group in ctx.members.groups()]
    return {"groups": rows, "version": ctx.members.version(ctx.now)}


def _fragments(ctx: Context, _args: dict[str, Any]) -> dict[str, Any]:
    """What waits for further fragments: the sum, and the oldest hundred."""
    partials = ctx.reassembly.partials()
    rows = [
        {
            "src": format_ipv4(partial.key[0]),
            "dst": format_ipv4(partial.key[1]),
            "proto": partial.key[2],
            "ident": partial.key[3],
            "fragments": len(partial.pieces),
            "bytes": partial.have,
            "refused": partial.dead,
            "expires_ms": max(0, partial.deadline - ctx.now) // MILLISECOND,
        }
        for partial in partials[:100]
    ]
    return {"datagrams": len(partials), "memory": ctx.reassembly.used, "oldest": rows}


# what changes


def tell_link(ctx: Context) -> None:
    """Tell link what is ours; an older message that still waits is replaced."""
    for item in [item for item in ctx.out if isinstance(item[1], Local)]:
        ctx.out.remove(item)
    groups = sorted(ctx.members.accepted)
    broadcasts = sorted({LIMITED_BROADCAST, *ctx.meant.broadcasts})
    ctx.out.append((LINK, Local(list(ctx.meant.addresses), broadcasts, groups)))


def _change(ctx: Context, **fields: Any) -> None:
    """Use other addresses or routes from now on; ControlError if they do not fit together."""
    before = ctx.config.ip
    changed: IpConfig = msgspec.structs.replace(before, **fields)
    ctx.config.ip = changed
    try:
        ctx.use_addresses()
    except BadSetting as error:
        ctx.config.ip = before
        raise ControlError(str(error)) from None


def _route_add(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    ip = ctx.config.ip
    route = _checked(parse_route, str(args["route"]), "route")
    if any((known.prefix, known.metric) == (route.prefix, route.metric) for known in ctx.meant.routes):
        raise ControlError(f"{route}: there is a route to {route.prefix} with metric {route.metric} already")
    _change(ctx, routes=[*ip.routes, str(route)])
    send_routes(ctx)
    return {"added": str(route)}


def _route_del(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    """`route`: as it was added, or only the beginning, which must fit one route alone."""
    ip = ctx.config.ip
    wanted = str(args["route"])
    texts = [str(route) for route in ctx.meant.routes]
    found = [text for text in texts if text == wanted] or [
        text for text in texts if f"{text} ".startswith(f"{wanted} ")
    ]
    if len(found) != 1:
        what = "there is no such route" if not found else f"which one: {'; '.join(found)}"
        raise ControlError(f"{wanted}: {what}")
    kept = [text for text in ip.routes if str(parse_route(text)) != found[0]]
    if len(kept) < len(ip.routes):
        _change(ctx, routes=kept)
    else:
        _change(ctx, gateway="")
    send_routes(ctx)
    return {"deleted": found[0]}


def _route_flush(ctx: Context, _args: dict[str, Any]) -> dict[str, Any]:
    changed = ctx.exceptions.clear()
    ctx.learned(changed)
    return {"flushed": len(changed)}


def _address_add(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    interface = _checked(parse_interface_address, str(args["address"]), "address")
    _change(ctx, addresses=[*ctx.config.ip.addresses, str(interface)])
    send_routes(ctx)
    tell_link(ctx)
    return {"added": str(interface)}


def _address_del(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    text = str(args["address"]).partition("/")[0]
    address = _checked(host_address, text, "address", key_first=True)
    ip = ctx.config.ip
    if address == ctx.meant.address:
        raise ControlError("the first address (ip.address) cannot be removed while the stack runs")
    kept = [other for other in ip.addresses if parse_interface_address(other).address != address]
    if len(kept) == len(ip.addresses):
        raise ControlError(f"{text} is no address of this stack")
    _change(ctx, addresses=kept)
    send_routes(ctx)
    tell_link(ctx)
    return {"deleted": text}


def _group_join(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    group = _checked(group_address, str(args["group"]), "group", key_first=True)
    says = ctx.members.join(group, USER, ctx.now)
    if says is None:
        raise ControlError("too many groups are joined already")
    tell_link(ctx)
    say(ctx, says)
    return {"joined": format_ipv4(group)}


def _group_leave(ctx: Context, args: dict[str, Any]) -> dict[str, Any]:
    group = _checked(group_address, str(args["group"]), "group", key_first=True)
    says = ctx.members.leave(group, USER, ctx.now)
    if says is None:
        raise ControlError(f"{format_ipv4(group)} was not joined by command")
    tell_link(ctx)
    say(ctx, says)
    return {"left": format_ipv4(group)}


def _checked(parse: Callable[[str, str], Any], text: str, key: str, *, key_first: bool = False) -> Any:
    """`text` read by `parse`; ControlError for what it refuses."""
    try:
        return parse(key, text) if key_first else parse(text, key)
    except BadSetting as error:
        raise ControlError(str(error)) from None


def _ping(ctx: Context, token: int, args: dict[str, Any]) -> dict[str, Any]:
    """Send an echo request; its answer follows as an Answer frame, be it an error."""
    asked = PingRequest.read(args, ttl=ctx.config.ip.ttl)
    dst = asked.dst
    if dst == LIMITED_BROADCAST or dst in ctx.table.broadcasts or is_multicast(dst):
        raise ControlError(f"{format_ipv4(dst)} is a broadcast or multicast address; ping asks single hosts")
    hop = ctx.table.lookup(dst)
    if hop is None or not (hop.local or ctx.device_up()):
        return {"error": "Network is unreachable", "local": True}
    if hop.refused:
        return {"error": _REFUSED[hop.row.kind], "local": True}
    mtu = LOOPBACK_MTU if hop.local else path_mtu(ctx, dst)
    if asked.dont_fragment and IPV4_HEADER_LEN + ICMP_HEADER_LEN + asked.size > mtu:
        return {"error": f"message too long, mtu: {mtu}", "mtu": mtu, "local": True}
    ident = ctx.rng.getrandbits(16) if asked.ident is None else asked.ident
    deadline = ctx.now + asked.timeout_ms * MILLISECOND
    ctx.pings.add(Waiting(token, ident, asked.sequence, dst, asked.size, ctx.now, deadline))
    message = IcmpMessage.echo_request(ident=ident, sequence=asked.sequence, payload=echo_data(asked.size))
    cause = Cause(0, False, ctx.now)
    send_icmp(ctx, message, hop.source, dst, cause, ttl=asked.ttl, tos=asked.tos, dont_fragment=asked.dont_fragment)
    return DEFERRED


_COMMANDS: dict[str, Callable[[Context, dict[str, Any]], dict[str, Any]]] = {
    "address.add": _address_add,
    "address.del": _address_del,
    "addresses": _addresses,
    "fragments": _fragments,
    "group.join": _group_join,
    "group.leave": _group_leave,
    "groups": _groups,
    "route": _routes,
    "route.add": _route_add,
    "route.cache": _route_cache,
    "route.del": _route_del,
    "route.flush": _route_flush,
    "route.get": _route_get,
}
COMMANDS = tuple(sorted([*_COMMANDS, "ping"]))


def carry_out(ctx: Context, token: int, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """Carry out a command; ControlError for what cannot be done, KeyError for a missing argument."""
    if name == "ping":
        return _ping(ctx, token, args)
    command = _COMMANDS.get(name)
    if command is None:
        raise ControlError(f"ip knows no command {name!r}; there are {', '.join(COMMANDS)}")
    return command(ctx, args)
