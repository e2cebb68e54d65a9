"""All of a core's state as plain data, for snapshots: what restore needs to have the same future."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import msgspec

from layers.ip.config import IpCoreConfig
from layers.ip.context import MILLISECOND, Context, Outgoing
from layers.ip.exceptions import PathException, PathExceptions
from layers.ip.gateways import DeadGateway, DeadGateways
from layers.ip.header import Idents
from layers.ip.limits import DestinationLimit, Target, TokenBucket
from layers.ip.membership import Memberships, MembershipState
from layers.ip.ping import Pings, Waiting
from layers.ip.reassembly import Partial, Reassembly
from levelip.config import IpConfig
from levelip.frames.core import load_rng, save_rng
from levelip.frames.packet import FrameIds, LinkState, Packet
from levelip.tracing.events import Event


class IpState(msgspec.Struct):
    """Fields as in Context. `ip`: the settings as they are now; addresses and routes change while running."""

    now: int
    rng: list[Any]
    ip: IpConfig
    frame_ids: FrameIds
    ident: int
    ident_secret: bytes
    idents: dict[int, int]
    link: LinkState | None
    bucket: TokenBucket
    limit: list[Target]
    pings: list[Waiting]
    exceptions: list[PathException]
    gateways: list[DeadGateway]
    members: MembershipState
    partials: list[Partial]
    counters: dict[str, int]
    queue: list[tuple[str, Outgoing]]
    events: list[Event]
    interest: bool


def save(ctx: Context) -> dict[str, Any]:
    """The whole state."""
    state = IpState(
        now=ctx.now,
        rng=save_rng(ctx.rng),
        ip=ctx.config.ip,
        frame_ids=ctx.ids,
        ident=ctx.ident,
        ident_secret=ctx.idents.secret,
        idents=dict(sorted(ctx.idents.used.items())),
        link=ctx.link,
        bucket=ctx.bucket,
        limit=ctx.limit.targets(),
        pings=ctx.pings.waiting(),
        exceptions=ctx.exceptions.entries(),
        gateways=ctx.gateways.entries(),
        members=ctx.members.state,
        partials=ctx.reassembly.partials(),
        counters=dict(sorted(ctx.counters.items())),
        queue=list(ctx.out),
        events=ctx.event_list,
        interest=ctx.interest,
    )
    data: dict[str, Any] = msgspec.to_builtins(state, builtin_types=(bytes,))
    return data


def load(config: IpCoreConfig, data: dict[str, Any]) -> Context:
    """The context that `save` was called for."""
    state = msgspec.convert(data, IpState)
    rng = random.Random()
    config = msgspec.structs.replace(config, ip=state.ip)
    ctx = Context(config, rng, state.now)
    load_rng(rng, state.rng)
    ip = state.ip
    ctx.ids = state.frame_ids
    ctx.ident = state.ident
    ctx.idents = Idents(state.ident_secret, state.idents)
    if state.link is not None:
        ctx.use_link(state.link)
    ctx.bucket = state.bucket
    ctx.limit = DestinationLimit(ip.icmp_ratelimit_ms * MILLISECOND, state.limit)
    ctx.pings = Pings(state.pings)
    ctx.exceptions = PathExceptions(state.exceptions)
    ctx.gateways = DeadGateways(state.gateways)
    ctx.members = Memberships(rng, ip.igmp_version, state.members)
    ctx.reassembly = Reassembly(
        memory=ip.fragment_memory,
        count=ip.fragments_per_datagram,
        time_ns=ip.fragment_time_ms * MILLISECOND,
        partials=state.partials,
    )
    ctx.counters.update(state.counters)
    ctx.out = deque(state.queue)
    ctx.queued = sum(isinstance(out, Packet) for _, out in state.queue)
    ctx.event_list = state.events
    ctx.interest = state.interest
    ctx.use_addresses()
    return ctx
