"""What the device and ip tell beside packets, and what follows from it."""

from __future__ import annotations

from layers.link import claims
from layers.link.context import Context
from layers.link.sending import carry_out
from layers.link.telling import tell_link
from levelip.frames.packet import Confirmed, DeviceState, Local
from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.wire.addr import LIMITED_BROADCAST


def device_changed(ctx: Context, state: DeviceState) -> None:
    """The device as it is now."""
    if state.ethernet != ctx.ethernet:
        raise ValueError("a device does not change its kind")
    was_up, ctx.device = ctx.device.up, state
    if ctx.interest:
        data = {"name": state.name, "up": state.up, "mtu": state.mtu, "gso_max": state.gso_max}
        ctx.event_list.append(Event(ctx.now, "device", data=data))
    if state.up and not was_up:
        ctx.arp.expire()
        claims.start(ctx)
    elif was_up and not state.up:
        claims.stop(ctx)
        for _, frame in ctx.down:
            ctx.drop(reasons.DEVICE_DOWN, frame.id)
        ctx.down = []
    tell_link(ctx)


def local(ctx: Context, told: Local) -> None:
    """ip tells what is its own: addresses that ARP answers for, broadcasts, groups that pass the filter."""
    claims.use_addresses(ctx, told.addresses)
    ctx.broadcasts = {LIMITED_BROADCAST, *told.broadcasts}
    ctx.use_groups(told.groups)


def confirmed(ctx: Context, told: Confirmed) -> None:
    """A transport knows that what goes by this neighbour arrives (RFC 4861 7.3.1)."""
    carry_out(ctx, ctx.arp.confirm(told.next_hop, ctx.now))


def neighbour_up(ctx: Context, up: NeighbourUp) -> None:
    """A new ip has to hear how the link is."""
    if up.name == "ip":
        ctx.ip_up = True
        tell_link(ctx)


def neighbour_down(ctx: Context, down: NeighbourDown) -> None:
    """Without ip there is nobody to tell."""
    if down.name == "ip":
        ctx.ip_up = False
