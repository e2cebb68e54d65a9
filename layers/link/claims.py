"""Our addresses (RFC 5227): claimed when the device comes up or ip adds one, announced, and defended against others.

What is to be done when is decided by a Claim: the interface's stands for all addresses that were there when the device
came up, and each that was added since has one of its own until all is said of it.
"""

from __future__ import annotations

from layers.link.arp_packets import announce, probe
from layers.link.claim import Claim
from layers.link.context import Context
from layers.link.telling import tell_link
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.wire.addr import format_ipv4, format_mac
from levelip.wire.arp import ArpPacket


def start(ctx: Context) -> None:
    """The device is up: find out whether our addresses are free, if so configured, and announce them."""
    old = ctx.claim.phase
    ctx.added.clear()  # this is for all
    if ctx.ethernet and ctx.addresses:
        ctx.claim.start(ctx.link, ctx.rng, ctx.now)
    else:
        ctx.claim.phase = "owned"
    ctx.see_usable()
    _told(ctx, old)


def stop(ctx: Context) -> None:
    """The device is down: nothing is claimed any more."""
    ctx.claim.stop()
    ctx.added.clear()
    ctx.see_usable()


def use_addresses(ctx: Context, addresses: list[bytes]) -> None:
    """Those that ip has now, in the place of those it had. RFC 5227 2.1: each new one is probed for, if so configured,
    and announced."""
    new = [address for address in addresses if address not in ctx.addresses]
    ctx.addresses = set(addresses)
    for gone in ctx.added.keys() - ctx.addresses:
        del ctx.added[gone]
    if ctx.ethernet and ctx.device.up and ctx.claim.phase != "down":
        for address in new:
            claim = ctx.added[address] = Claim()
            claim.start(ctx.link, ctx.rng, ctx.now)
            ctx.see_usable()
            if claim.owned and claim.left and ctx.usable:
                _step_added(ctx, address, claim)
    ctx.see_usable()


def next_timer(ctx: Context) -> int | None:
    """When a claim's next step is due, ns of stack time."""
    due = ctx.claim.next_timer()
    if not ctx.added:
        return due
    dues = [added.next_timer() for added in ctx.added.values()]
    return min((at for at in (due, *dues) if at is not None), default=None)


def handle_timer(ctx: Context) -> None:
    """Take the steps that are due."""
    due = ctx.claim.next_timer()
    if due is not None and due <= ctx.now:
        _step(ctx)
    for address, claim in sorted(ctx.added.items()):
        due = claim.next_timer()
        if due is not None and due <= ctx.now:
            _step_added(ctx, address, claim)


def conflict(ctx: Context, arp: ArpPacket, address: bytes, frame: int) -> None:
    """Another host has our address (RFC 5227 2.4), or wants it while we only probe for it (2.1.1)."""
    ctx.drop(reasons.ARP_CONFLICT, frame, detail=f"{format_ipv4(address)} at {format_mac(arp.sha)}")
    claim = ctx.added.get(address, ctx.claim)
    old = claim.phase
    defend = claim.contested(ctx.link, address, ctx.now)
    if ctx.interest:
        data = {"address": format_ipv4(address), "mac": format_mac(arp.sha), "defended": defend}
        ctx.event_list.append(Event(ctx.now, "conflict", frame=frame, data=data))
    if claim is ctx.claim:
        _changed(ctx, old)
    else:
        _changed_added(ctx, address, claim, old)
    if defend:
        announce(ctx, address, [frame])


def _step(ctx: Context) -> None:
    """Probe for the addresses that the interface's claim stands for, or announce them."""
    old = ctx.claim.phase
    send = ctx.claim.step(ctx.link, ctx.rng, ctx.now)
    for address in sorted(ctx.addresses - ctx.added.keys()) if send else ():
        if send == "announce":
            announce(ctx, address, [])
        else:
            probe(ctx, address)
    _changed(ctx, old)


def _step_added(ctx: Context, address: bytes, claim: Claim) -> None:
    """Probe for an address that was added, or announce it (RFC 5227 2.1, 2.3); the others go on meanwhile."""
    old = claim.phase
    send = claim.step(ctx.link, ctx.rng, ctx.now)
    if send == "announce":
        announce(ctx, address, [])
    elif send:
        probe(ctx, address)
    _changed_added(ctx, address, claim, old)


def _changed(ctx: Context, old: str) -> None:
    """Tell ip if our addresses became ours or no longer are, and whoever listens if the phase is not `old`."""
    was = ctx.usable
    ctx.see_usable()
    _told(ctx, old)
    if was != ctx.usable:
        tell_link(ctx)


def _changed_added(ctx: Context, address: bytes, claim: Claim, old: str) -> None:
    if claim.owned and not claim.left:
        del ctx.added[address]  # all is said: the interface's claim stands for it from here on
    ctx.see_usable()
    if ctx.interest and claim.phase != old:
        data = {"old": old, "new": claim.phase, "address": format_ipv4(address)}
        ctx.event_list.append(Event(ctx.now, "claim", data=data))


def _told(ctx: Context, old: str) -> None:
    if ctx.interest and ctx.claim.phase != old:
        ctx.event_list.append(Event(ctx.now, "claim", data={"old": old, "new": ctx.claim.phase}))
