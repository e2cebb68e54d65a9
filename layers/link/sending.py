"""Downward: a packet of ip gets its link header, or waits until its next hop's MAC address is known.

The transport checksum and the cutting of super-packets are always left to the device, by a virtio header.
"""

from __future__ import annotations

from layers.link import arp_packets
from layers.link.arp import Ask, Changed, GiveUp, Overflow, Step, Transmit
from layers.link.context import Context, group_mac
from layers.link.offload import Unfit, pieces, prepare
from layers.link.telling import tell_unreachable
from levelip.frames.packet import Checksum, DeviceFrame, Packet
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.wire.addr import MAC_BROADCAST, format_ipv4, format_mac, is_multicast, is_unspecified

_VERIFIED, _PARTIAL = int(Checksum.VERIFIED), int(Checksum.PARTIAL)


def send(ctx: Context, packet: Packet) -> None:
    """One packet from ip, to its next hop."""
    if not ctx.ethernet:
        _transmit(ctx, packet, b"")
        return
    hop = packet.next_hop
    neighbour = ctx.arp.find(hop)
    if neighbour is not None and neighbour.fresh_until > ctx.now:
        neighbour.used = ctx.now
        _transmit(ctx, packet, neighbour.mac + ctx.from_ipv4)
    elif hop in ctx.broadcasts:
        _transmit(ctx, packet, MAC_BROADCAST + ctx.from_ipv4)
    elif len(hop) != 4 or is_unspecified(hop):
        ctx.drop(reasons.NO_NEXT_HOP, packet.id)
    elif is_multicast(hop):
        _transmit(ctx, packet, group_mac(hop) + ctx.from_ipv4)
    elif not ctx.usable:
        ctx.drop_unusable(packet.id)
    else:
        carry_out(ctx, ctx.arp.send(packet, ctx.now))


def carry_out(ctx: Context, steps: list[Step]) -> None:
    """What the ARP cache decided."""
    for step in steps:
        match step:
            case Transmit(packet, mac):
                _transmit(ctx, packet, mac + ctx.from_ipv4)
            case Ask():
                arp_packets.ask(ctx, step)
            case Changed():
                if ctx.interest:
                    data = {"address": format_ipv4(step.address), "mac": format_mac(step.mac)}
                    ctx.event_list.append(Event(ctx.now, "arp", data=data | {"old": step.old, "new": step.new}))
            case Overflow(packet, cache):
                ctx.drop(reasons.ARP_CACHE_FULL if cache else reasons.ARP_QUEUE_FULL, packet.id)
            case GiveUp(packet):
                ctx.drop(reasons.ARP_UNANSWERED, packet.id, detail=format_ipv4(packet.next_hop))
                tell_unreachable(ctx, packet)


def _transmit(ctx: Context, packet: Packet, link_head: bytes) -> None:
    """Put the link header before a packet and leave to the device what is the device's."""
    head: bytes = packet.head
    payload = packet.payload
    gso_size = packet.gso_size
    size = len(head) + len(payload)
    vnet = b""
    checksum = packet.checksum
    if gso_size or checksum in (_PARTIAL, _VERIFIED):
        # Also of a verified one: the device may have vouched for a checksum that was never computed.
        try:
            head, payload, vnet = prepare(head, payload, gso_size, len(link_head))
        except Unfit as error:
            if gso_size or checksum == _PARTIAL:
                ctx.drop(reasons.BAD_OFFLOAD, packet.id, detail=str(error))
                return
    mtu = ctx.device.mtu
    if size > mtu and not (gso_size and _longest_piece(head, gso_size) <= mtu):
        ctx.drop(reasons.OVER_DEVICE_MTU, packet.id, detail=f"{size} bytes")
        return
    if not ctx.usable or (ctx.unclaimed and head[12:16] in ctx.unclaimed):
        ctx.drop_unusable(packet.id)
        return
    frame = DeviceFrame(ctx.ids.next(), [packet.id], link_head + head, payload, vnet, packet.traced)
    counters = ctx.counters
    counters["tx_bytes"] += size
    counters["tx_packets"] += pieces(packet.head, packet.payload, gso_size) if gso_size else 1
    counters["tx_frames"] += 1
    ctx.down.append(("device", frame))


def _longest_piece(head: bytes, gso_size: int) -> int:
    """Bytes of each piece of a super-packet but the last, headers and all."""
    ip_len = (head[0] & 15) * 4
    return ip_len + (head[ip_len + 12] >> 2 & 0x3C) + gso_size
