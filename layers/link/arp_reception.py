"""An ARP packet comes in: RFC 826, "Packet Reception", in its order."""

from __future__ import annotations

from layers.link import arp_packets, claims
from layers.link.context import Context
from layers.link.sending import carry_out
from levelip.tracing import reasons
from levelip.wire.addr import (
    MAC_ZERO,
    format_ipv4,
    format_mac,
    is_loopback,
    is_multicast,
    is_multicast_mac,
    is_unspecified,
)
from levelip.wire.arp import REPLY, REQUEST, ArpPacket
from levelip.wire.errors import Malformed
from levelip.wire.ethernet import ETHERNET_HEADER_LEN


def arp_arrives(ctx: Context, frame: int, data: bytes) -> None:
    """The Ethernet frame of this id and these bytes, whole."""
    ctx.counters["arp_received"] += 1
    try:
        arp = ArpPacket.parse(data, ETHERNET_HEADER_LEN)
    except Malformed as error:
        ctx.drop(reasons.ARP_MALFORMED, frame, detail=error.reason)
        return
    if arp.oper not in (REQUEST, REPLY):  # RFC 826 looks at it last; Linux and we never learn from others
        ctx.drop(reasons.ARP_BAD_OP, frame, detail=str(arp.oper))
        return
    sender, mac = arp.spa, arp.sha
    if mac == ctx.mac:
        ctx.drop(reasons.ARP_OWN, frame)
        return
    if sender in ctx.addresses:
        claims.conflict(ctx, arp, sender, frame)
        return
    probe = is_unspecified(sender)  # RFC 5227 2.1.1: "may I have it?"; there is nothing to learn from it
    if (
        is_multicast_mac(mac)
        or mac == MAC_ZERO
        or is_multicast(sender)
        or is_loopback(sender)
        or sender in ctx.broadcasts
        or (probe and arp.oper == REPLY)
    ):
        ctx.drop(reasons.ARP_BAD_SENDER, frame, detail=f"{format_ipv4(sender)} at {format_mac(mac)}")
        return
    ours = arp.tpa in ctx.addresses
    if not ctx.usable or arp.tpa in ctx.unclaimed:
        # nothing is ours yet, or not this address: we neither answer nor learn (RFC 5227 2.1)
        if probe and ours and arp.oper == REQUEST:  # RFC 5227 2.1.1: another host wants the address as well
            claims.conflict(ctx, arp, arp.tpa, frame)
        else:
            ctx.drop(reasons.ARP_NOT_FOR_US, frame)
        return
    answer = arp.oper == REPLY and ours and data[:6] == ctx.mac
    merged = None if probe else ctx.arp.merge(sender, mac, ctx.now, answer=answer)
    if merged is not None:
        carry_out(ctx, merged)
        neighbour = ctx.arp.find(sender)
        if neighbour is not None and neighbour.mac != mac:
            ctx.drop(reasons.ARP_CONTRADICTS, frame, detail=f"{format_ipv4(sender)} at {format_mac(mac)}")
    elif not ours:
        ctx.drop(reasons.ARP_NOT_FOR_US, frame)
        return
    elif arp.oper == REPLY:
        ctx.drop(reasons.ARP_UNSOLICITED, frame, detail=f"{format_ipv4(sender)} at {format_mac(mac)}")
        return
    elif not probe:
        carry_out(ctx, ctx.arp.add(sender, mac, ctx.now))
    if ours and arp.oper == REQUEST:
        arp_packets.reply(ctx, arp, frame)
