"""Control commands of the ip layer: their arguments checked, and its table and addresses as plain data for people."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from layers.ip.routing import Kind, Row
from levelip.frames.core import ControlError
from levelip.frames.packet import LinkState
from levelip.wire.addr import Prefix, format_ipv4, parse_ipv4
from levelip.wire.icmp import ICMP_HEADER_LEN
from levelip.wire.ipv4 import IPV4_HEADER_LEN, IPV4_MAX_TOTAL_LENGTH

LOOPBACK_MTU = IPV4_MAX_TOTAL_LENGTH
"""Bytes; Linux's lo has 65,536, which no IPv4 packet can use up."""
PING_TIMEOUT_MS = 1000
"""How long a ping waits unless told otherwise."""
PING_SIZE = 56
"""Bytes of data unless told otherwise, as ping."""
PING_MAX = IPV4_MAX_TOTAL_LENGTH - IPV4_HEADER_LEN - ICMP_HEADER_LEN
MAX_TIMEOUT_MS = 3_600_000
COMMANDS = ("addresses", "ping", "route", "route.get")


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
        )


def describe_row(row: Row, link: LinkState | None, mtu: int) -> dict[str, Any]:
    """One route for `lvlip route`, with its device; `mtu`: the device's."""
    local = row.kind is Kind.LOCAL
    return {
        **row.describe(),
        "device": "lo" if local else link.name if link is not None else "",
        "mtu": LOOPBACK_MTU if local else mtu,
        "up": local or link is None or link.up,
    }


def describe_addresses(own: bytes, network: Prefix, link: LinkState | None, mtu: int) -> dict[str, Any]:
    """All addresses of the stack, as `ip address` shows them."""
    broadcast = network.broadcast
    return {
        "addresses": [
            {"address": "127.0.0.1", "prefix": 8, "broadcast": "", "device": "lo", "mtu": LOOPBACK_MTU, "up": True},
            {
                "address": format_ipv4(own),
                "prefix": network.length,
                "broadcast": format_ipv4(broadcast) if broadcast else "",
                "device": link.name if link is not None else "",
                "mtu": mtu,
                "up": link is not None and link.up,
            },
        ]
    }
