"""The ARP packets that we send (RFC 826, RFC 5227): requests, replies, probes, announcements."""

from __future__ import annotations

from layers.link.arp import Ask
from layers.link.context import Context
from levelip.frames.packet import DeviceFrame
from levelip.tracing import reasons
from levelip.wire.addr import ANY, MAC_BROADCAST
from levelip.wire.arp import ArpPacket
from levelip.wire.ethernet import EthernetHeader, EtherType


def ask(ctx: Context, question: Ask) -> None:
    """Who has this address? Of everybody, or of the one who had it."""
    ctx.counters["arp_requests_sent"] += 1
    sender = ctx.config.addresses[0] if ctx.config.addresses else ANY
    request = ArpPacket.request(sha=ctx.mac, spa=sender, tpa=question.address)
    _send(ctx, request, question.mac or MAC_BROADCAST, [])


def reply(ctx: Context, request: ArpPacket, frame: int) -> None:
    """To whoever asked, in that frame, for an address of ours."""
    ctx.counters["arp_replies_sent"] += 1
    _send(ctx, ArpPacket.reply_to(request, sha=ctx.mac), request.sha, [frame])


def probe(ctx: Context, address: bytes) -> None:
    """Does anybody have the address that we want (RFC 5227 2.1.1)?"""
    ctx.counters["arp_probes_sent"] += 1
    _send(ctx, ArpPacket.probe(sha=ctx.mac, tpa=address), MAC_BROADCAST, [])


def announce(ctx: Context, address: bytes, causes: list[int]) -> None:
    """We have it (RFC 5227 2.3)."""
    ctx.counters["arp_announcements_sent"] += 1
    _send(ctx, ArpPacket.announcement(sha=ctx.mac, spa=address), MAC_BROADCAST, causes)


def _send(ctx: Context, arp: ArpPacket, dst: bytes, causes: list[int]) -> None:
    header = EthernetHeader(dst, ctx.mac, EtherType.ARP)
    frame = DeviceFrame(ctx.ids.next(), causes, header.serialize() + arp.serialize(), b"")
    if not ctx.device.up:
        ctx.drop(reasons.DEVICE_DOWN, frame.id)
        return
    ctx.counters["tx_frames"] += 1
    ctx.down.append(("device", frame))
