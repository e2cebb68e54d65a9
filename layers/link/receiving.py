"""Upward: a frame of the device loses its link header, and the padding behind the IP packet, and goes to ip."""

from __future__ import annotations

from layers.link.arp_reception import arp_arrives
from layers.link.context import TYPE_IPV4, Context
from layers.link.offload import Unfit, pieces, received
from levelip.frames.packet import BROADCAST, Checksum, DeviceFrame, Packet
from levelip.rpc.place import Payload, cut
from levelip.tracing import reasons
from levelip.wire.addr import MAC_BROADCAST, format_mac
from levelip.wire.ethernet import ETHERNET_HEADER_LEN, EtherType, ethertype_name
from levelip.wire.ipv4 import IPV4_HEADER_LEN

_TYPE_ARP = EtherType.ARP.to_bytes(2, "big")
_TYPES_VLAN = (EtherType.VLAN.to_bytes(2, "big"), EtherType.QINQ.to_bytes(2, "big"))
_VERIFIED, _UNVERIFIED = int(Checksum.VERIFIED), int(Checksum.UNVERIFIED)


def ethernet_arrives(ctx: Context, frame: DeviceFrame) -> None:
    """One Ethernet frame (RFC 894)."""
    head = frame.head
    payload = frame.payload
    if payload and type(payload) is bytes:
        head, payload = head + payload, b""
    ctx.counters["rx_frames"] += 1
    if len(head) < ETHERNET_HEADER_LEN:
        ctx.drop(reasons.RUNT, frame.id, detail=f"{len(head)} bytes")
        return
    flags = 0
    if head[:6] != ctx.mac:
        if not head[0] & 1:
            ctx.drop(reasons.WRONG_MAC, frame.id, detail=format_mac(head[:6]))
            return
        flags = BROADCAST
    kind = head[12:14]
    if kind == TYPE_IPV4:
        if flags and ctx.groups is not None and head[:6] != MAC_BROADCAST and head[:6] not in ctx.group_macs:
            ctx.drop(reasons.FOREIGN_GROUP, frame.id, detail=format_mac(head[:6]))  # RFC 1112 7.3
            return
        _ipv4_arrives(ctx, frame, head[14:], payload, flags)
    elif kind == _TYPE_ARP:
        arp_arrives(ctx, frame.id, head)
    elif kind in _TYPES_VLAN:
        ctx.drop(reasons.VLAN_TAG, frame.id)
    else:
        ctx.drop(reasons.FOREIGN_TYPE, frame.id, detail=ethertype_name(int.from_bytes(kind, "big")))


def raw_arrives(ctx: Context, frame: DeviceFrame) -> None:
    """One IP packet of a device without Ethernet."""
    head = frame.head
    payload = frame.payload
    if payload and type(payload) is bytes:
        head, payload = head + payload, b""
    ctx.counters["rx_frames"] += 1
    if not head:
        ctx.drop(reasons.RUNT, frame.id, detail="0 bytes")
    elif head[0] >> 4 != 4:
        ctx.drop(reasons.FOREIGN_TYPE, frame.id, detail=f"IP version {head[0] >> 4}")
    else:
        _ipv4_arrives(ctx, frame, head, payload, 0)


def _ipv4_arrives(ctx: Context, frame: DeviceFrame, head: bytes, payload: Payload, flags: int) -> None:
    """Hand an IPv4 packet up, without what lies behind it."""
    try:
        known_good, gso_size = received(frame.vnet)
    except Unfit as error:
        ctx.drop(reasons.BAD_VNET, frame.id, detail=str(error))
        return
    size = len(head) + len(payload)
    if len(head) < IPV4_HEADER_LEN:  # a payload that is not in `head` by now lies in shared memory, behind all headers
        ctx.drop(reasons.TORN_FRAME, frame.id, detail=f"{len(head)} bytes")
        return
    total = head[2] << 8 | head[3]
    if size != total and head[0] >> 4 == 4:
        if size < total:
            ctx.drop(reasons.TORN_FRAME, frame.id, detail=f"{size} of {total} bytes")
            return
        if total >= IPV4_HEADER_LEN:  # else nonsense, which ip names
            if payload and total >= len(head):
                payload = cut(payload, 0, total - len(head))
            else:
                head, payload = head[:total], b""
            size = total
    counters = ctx.counters
    counters["rx_bytes"] += size
    counters["rx_packets"] += pieces(head, payload, gso_size) if gso_size else 1
    ctx.up.append(
        (
            "ip",
            Packet(
                ctx.ids.next(),
                [frame.id],
                frame.traced,
                ctx.now,
                ctx.config.iface,
                head,
                payload,
                _VERIFIED if known_good else _UNVERIFIED,
                gso_size,
                b"",
                flags,
            ),
        )
    )
