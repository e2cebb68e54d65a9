"""What ip is told beside packets: how the link is, and which packet of its was given up."""

from __future__ import annotations

from layers.link.context import Context
from levelip.frames.packet import LinkState, Packet, Unreachable

_QUOTE = 8  # bytes of the transport header that an ICMP error names (RFC 792)
_MAX_QUOTE = 60 + _QUOTE  # behind the longest IPv4 header


def tell_link(ctx: Context) -> None:
    """The link's state, if there is an ip to hear of it."""
    if not ctx.ip_up:
        return
    device = ctx.device
    state = LinkState(
        ctx.config.iface,
        device.name,
        device.kind,
        ctx.usable,
        device.mtu,
        device.gso_max,
        device.checksum_offload,
        ctx.mac,
    )
    ctx.up.append(("ip", state))


def tell_unreachable(ctx: Context, packet: Packet) -> None:
    """A packet was given up (RFC 1122 2.4): the transport learns "host unreachable"."""
    ctx.up.append(("ip", Unreachable(ctx.config.iface, packet.next_hop, _quote(packet), [packet.id])))


def _quote(packet: Packet) -> bytes:
    """The IP header and 8 bytes of a packet, as far as they can be read."""
    head: bytes = packet.head
    if type(packet.payload) is bytes and len(head) < _MAX_QUOTE:
        head += packet.payload[: _MAX_QUOTE - len(head)]
    return head[: (head[0] & 15) * 4 + _QUOTE] if head else b""
