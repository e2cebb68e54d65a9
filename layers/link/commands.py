"""The commands of link's control socket: neigh, neigh.flush, device."""

from __future__ import annotations

from typing import Any

from layers.link.context import Context
from layers.link.sending import carry_out
from levelip.frames.core import ControlError
from levelip.wire.addr import format_ipv4, format_mac, parse_ipv4


def command(ctx: Context, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """ "neigh" → {"neighbours": [...]}; "neigh.flush" (address) → {"flushed": n}; "device" → its facts. Any other, or a
    wrong address: ControlError."""
    match name:
        case "neigh":
            return {"neighbours": ctx.arp.show(ctx.now)}
        case "neigh.flush":
            steps = ctx.arp.flush(_address(args))
            carry_out(ctx, steps)
            return {"flushed": len(steps)}
        case "device":
            return _device(ctx)
    raise ControlError(f"link has no command {name!r}; it has neigh, neigh.flush, device")


def _address(args: dict[str, Any]) -> bytes | None:
    text = args.get("address")
    if text is None:
        return None
    try:
        return parse_ipv4(text)
    except (ValueError, TypeError):
        raise ControlError(f"address: {text!r} is no IPv4 address") from None


def _device(ctx: Context) -> dict[str, Any]:
    device, added = ctx.device, ctx.added
    facts: dict[str, Any] = {
        "name": device.name,
        "kind": device.kind,
        "ethernet": device.ethernet,
        "up": device.up,
        "mtu": device.mtu,
        "mac": format_mac(ctx.mac) if ctx.ethernet else "",
        "addresses": [format_ipv4(address) for address in sorted(ctx.addresses)],
        "checksum_offload": device.checksum_offload,
        "gso_max": device.gso_max,
        "waiting": len(ctx.down),
        "claim": ctx.claim.phase,
        "conflicts": ctx.claim.conflicts + sum(claim.conflicts for claim in added.values()),
    }
    if added:  # lately, and not all is said of them yet
        facts["claims"] = {format_ipv4(address): claim.phase for address, claim in sorted(added.items())}
    return facts
