"""The whole state of the core as plain data, and back. Events are not part of it: they tell of the past."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from layers.link.arp import ArpCache, Neighbour
from layers.link.claim import Claim
from layers.link.config import LinkCoreConfig
from layers.link.context import Context, ToIp
from levelip.config import LinkConfig
from levelip.frames.core import load_rng, save_rng
from levelip.frames.packet import DeviceFrame, DeviceState, FrameIds

VERSION = 3


class LinkSnapshot(msgspec.Struct):
    """Fields as in Context."""

    version: int
    now: int
    link: LinkConfig
    device: DeviceState
    ids: FrameIds
    neighbours: list[Neighbour]
    ip_up: bool
    claim: Claim
    added: dict[bytes, Claim]
    up: list[ToIp]
    down: list[DeviceFrame]
    counters: dict[str, int]
    rng: list[Any]
    addresses: list[bytes]
    broadcasts: list[bytes]
    groups: list[bytes] | None


def take(ctx: Context) -> dict[str, Any]:
    """The state as dicts, lists, bytes, strings and numbers."""
    state = LinkSnapshot(
        version=VERSION,
        now=ctx.now,
        link=ctx.link,
        device=ctx.device,
        ids=ctx.ids,
        neighbours=ctx.arp.entries,
        ip_up=ctx.ip_up,
        claim=ctx.claim,
        added=ctx.added,
        up=[frame for _, frame in ctx.up],
        down=[frame for _, frame in ctx.down],
        counters=dict(sorted(ctx.counters.items())),
        rng=save_rng(ctx.rng),
        addresses=sorted(ctx.addresses),
        broadcasts=sorted(ctx.broadcasts),
        groups=ctx.groups,
    )
    plain: dict[str, Any] = msgspec.to_builtins(state, builtin_types=(bytes,))
    return plain


def restore(config: LinkCoreConfig, data: dict[str, Any]) -> Context:
    """A context with the same future as the one that `take` was given. ValueError for data of another version."""
    state = msgspec.convert(data, LinkSnapshot)
    if state.version != VERSION:
        raise ValueError(f"snapshot of version {state.version}, not {VERSION}")
    rng = random.Random()
    load_rng(rng, state.rng)
    ctx = Context(config, rng, state.now)
    ctx.link = state.link
    ctx.device = state.device
    ctx.ids = state.ids
    ctx.arp = ArpCache(state.link, rng, state.neighbours)
    ctx.ip_up = state.ip_up
    ctx.claim = state.claim
    ctx.added = state.added
    ctx.see_usable()
    ctx.up = [("ip", frame) for frame in state.up]
    ctx.down = [("device", frame) for frame in state.down]
    ctx.counters.update(state.counters)
    ctx.addresses, ctx.broadcasts = set(state.addresses), set(state.broadcasts)
    if state.groups is not None:
        ctx.use_groups(state.groups)
    return ctx
