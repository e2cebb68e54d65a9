"""The ip core: IPv4, ICMP and IGMP of one host with one device; a calculator without socket, clock or thread.

From link come Packet, LinkState and Unreachable, from the transports Segment, PathMtu, Doubt and Progress. To link go
Packet with its next hop, Local and Confirmed, to a transport Segment, IcmpError and Routes, each on the port named
after the neighbour. All state lies in `context`; nothing is kept of a packet beyond the flush after it came, but in the
queue toward link, and of fragments until the others have come.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from layers.ip import commands, state
from layers.ip import icmp as host_icmp
from layers.ip.config import IpCoreConfig
from layers.ip.context import LINK, MILLISECOND, Context, Outgoing
from layers.ip.limits import DestinationLimit, TokenBucket
from layers.ip.messages import icmp_arrives, lower_path_mtu, say
from layers.ip.receiving import fragments_overdue, receive
from layers.ip.sending import send, send_routes
from layers.ip.telling import tell
from layers.ip.transports import groups, refused
from levelip.addressing import BadSetting
from levelip.config import IpConfig
from levelip.frames.core import ControlError, Output, Room
from levelip.frames.packet import (
    Confirmed,
    Doubt,
    Groups,
    IcmpError,
    LinkState,
    Local,
    Packet,
    PathMtu,
    Progress,
    Refused,
    Routes,
    Segment,
    Unreachable,
)
from levelip.frames.seam import Answer, NeighbourDown, NeighbourUp
from levelip.tracing import reasons
from levelip.tracing.events import Event
from levelip.wire import icmp
from levelip.wire.ipv4 import Proto

Frame = (
    Packet | LinkState | Unreachable | Segment | PathMtu | Doubt | Progress | Refused | Groups
    | NeighbourUp | NeighbourDown
)  # fmt: skip
_NEEDS_RESTART = {
    "address": "ip.address cannot change while connections use it; set it in level-ip.toml and restart",
    "addresses": "ip.addresses change by `lvlip address add` and `del`",
    "multicast_groups": "groups change by `lvlip group join` and `leave`",
    "igmp_version": "ip.igmp_version needs a restart of ip",
}


class Core:
    """IPv4 and ICMP of one host with one device."""

    def __init__(self, config: IpCoreConfig, rng: random.Random, now: int) -> None:
        ctx = Context(config, rng, now)
        for group in ctx.meant.groups:
            ctx.members.join(group, "config", now)  # said as soon as link has told that the device is up
        self._attach(ctx)

    def _attach(self, ctx: Context) -> None:
        self._ctx = ctx
        self.counters = ctx.counters
        ctx.icmp_arrives = icmp_arrives
        self._handlers: dict[type, Callable[[Any, int], None]] = {
            Packet: partial(receive, ctx),
            Segment: partial(send, ctx),
            LinkState: self._link_state,
            Unreachable: self._unreachable,
            PathMtu: self._path_mtu,
            Doubt: self._doubt,
            Refused: partial(refused, ctx),
            Groups: partial(groups, ctx),
            Progress: self._progress,
            NeighbourUp: self._neighbour_up,
            NeighbourDown: self._neighbour_down,
        }

    # what the shell and tests see beside the verbs

    @property
    def config(self) -> IpCoreConfig:
        return self._ctx.config

    @property
    def interest(self) -> bool:
        """Somebody listens to events."""
        return self._ctx.interest

    @interest.setter
    def interest(self, value: bool) -> None:
        self._ctx.interest = value

    # --- the verbs

    def receive(self, frame: Frame, now: int) -> None:
        """Take one frame from a neighbour."""
        self._handlers[type(frame)](frame, now)

    def handle_timer(self, now: int) -> None:
        """Give up pings and fragments whose time is over, forget what was learned long ago, speak IGMP."""
        ctx = self._ctx
        ctx.now = now
        for ping in ctx.pings.expire(now):
            ctx.answer(ping.token, {"error": "timeout"})
        fragments_overdue(ctx)
        due = ctx.exceptions.next_timer()
        if due is not None and due <= now:
            changed = ctx.exceptions.expire(now)
            ctx.learned(changed)
            for dst in changed:
                ctx.emit("pmtu", 0, dst=dst, old=0, new=ctx.mtu)
        if ctx.gateways.expire(now):
            ctx.table.pass_over(ctx.gateways.passed_over())
        due = ctx.members.next_timer()
        if due is not None and due <= now:
            say(ctx, ctx.members.handle_timer(now))

    def next_timer(self) -> int | None:
        """The earliest of what handle_timer looks at."""
        ctx = self._ctx
        due = ctx.pings.next_deadline()
        for part in (ctx.reassembly, ctx.exceptions, ctx.gateways, ctx.members):
            at = part.next_timer()
            if at is not None and (due is None or at < due):
                due = at
        return due

    def outgoing(self, room: Room) -> Output:
        """Take what is to be sent. What is for link waits for room, and so do routes and answers; the rest is lost.

        A segment on its way up may lie in link's pool, whose slot is free again after this flush, so it cannot wait:
        it is dropped here, as in a receive queue that is full.
        """
        ctx = self._ctx
        out = ctx.out
        if not out:
            return []
        ctx.queued = 0
        if len(out) <= min(room.values(), default=len(out)):
            ctx.out = deque()
            return list(out)
        left = dict(room)
        taken: Output = []
        ctx.out = deque()
        for port, frame in out:
            space = left.get(port, 1)
            if space > 0:
                if port in left:
                    left[port] = space - 1
                taken.append((port, frame))
            elif isinstance(frame, Segment | IcmpError):
                ctx.drop(reasons.PIPE_FULL, frame.id, to=port)
            else:
                ctx.out.append((port, frame))
                ctx.queued += isinstance(frame, Packet)
        return taken

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        ctx = self._ctx
        events, ctx.event_list = ctx.event_list, []
        return events

    def set(self, key: str, value: Any, now: int) -> None:
        """Change ip.`key`; all but what addresses and groups are made of can change while running."""
        if key not in IpConfig.__struct_fields__:
            raise ControlError(f"ip.{key} is no setting; there are {', '.join(IpConfig.__struct_fields__)}")
        if key in _NEEDS_RESTART:
            raise ControlError(_NEEDS_RESTART[key])
        ctx = self._ctx
        before = ctx.config.ip
        ip = ctx.config.ip = msgspec.structs.replace(before, **{key: value})
        if key in ("gateway", "routes"):
            try:
                ctx.use_addresses()
            except BadSetting as error:
                ctx.config.ip = before
                raise ControlError(str(error)) from None
            send_routes(ctx)
        elif key in ("icmp_rate_per_s", "icmp_burst"):
            ctx.bucket = TokenBucket(ip.icmp_rate_per_s, ip.icmp_burst, now)
        elif key == "icmp_ratelimit_ms":
            ctx.limit = DestinationLimit(ip.icmp_ratelimit_ms * MILLISECOND)
        elif key.startswith("fragment"):
            ctx.reassembly.memory = ip.fragment_memory
            ctx.reassembly.count = ip.fragments_per_datagram
            ctx.reassembly.time_ns = ip.fragment_time_ms * MILLISECOND

    def control(self, token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """Carry out a command (commands.COMMANDS); ping is answered later."""
        self._ctx.now = now
        return commands.carry_out(self._ctx, token, name, args)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data."""
        return state.save(self._ctx)

    @classmethod
    def restore(cls, config: IpCoreConfig, data: dict[str, Any]) -> Core:
        """A core that goes on from `snapshot()`."""
        core = cls.__new__(cls)
        core._attach(state.load(config, data))
        return core

    # --- from link

    def _link_state(self, link: LinkState, now: int) -> None:
        """The device came, went or changed: the transports' routes change with it."""
        ctx = self._ctx
        ctx.now = now
        if link == ctx.link:
            return
        came_up = link.up and (ctx.link is None or not ctx.link.up)
        ctx.use_link(link)
        ctx.emit("link", 0, name=link.name, up=link.up, mtu=link.mtu, gso_max=link.gso_max)
        send_routes(ctx)
        if came_up:
            say(ctx, ctx.members.announce_all(now))

    def _unreachable(self, lost: Unreachable, now: int) -> None:
        """link got no answer from the next hop: host unreachable, as a router would say (RFC 1122 2.3.2.2).

        Whoever was redirected to it goes by the gateway again (RFC 1122 3.3.1.4); if it is a gateway of the table,
        another one for the same prefix goes before it for a while (3.3.1.5).
        """
        ctx = self._ctx
        ctx.now = now
        ctx.learned(ctx.exceptions.forget_gateway(lost.next_hop))
        if any(row.gateway == lost.next_hop for row in ctx.table.rows):
            ctx.gateways.failed(lost.next_hop, now + ctx.config.ip.gateway_retry_ms * MILLISECOND)
            ctx.table.pass_over(ctx.gateways.passed_over())
            ctx.emit("gateway", 0, gateway=lost.next_hop, retry_ms=ctx.config.ip.gateway_retry_ms)
        quoted = host_icmp.parse_quote(lost.head)
        if quoted is None:
            ctx.drop(reasons.ICMP_QUOTE, 0, next_hop=lost.next_hop)
            return
        own = ctx.meant.address
        tell(ctx, icmp.DEST_UNREACH, icmp.HOST_UNREACH, quoted, reporter=own, causes=lost.causes)

    # --- from transports

    def _path_mtu(self, frame: PathMtu, now: int) -> None:
        """A transport found that an ICMP error about its segment was genuine."""
        self._ctx.now = now
        lower_path_mtu(self._ctx, frame.dst, frame.mtu, 0, ms=frame.ms)

    def _doubt(self, frame: Doubt, now: int) -> None:
        """Advice from above (RFC 1122 3.3.1.4): a redirect that leads nowhere is no longer followed (Linux
        ipv4_negative_advice). Whether the gateway itself answers is link's to find out."""
        ctx = self._ctx
        ctx.now = now
        ctx.counters["doubts"] += 1
        ctx.learned(ctx.exceptions.forget_redirect(frame.dst))
        ctx.emit("doubt", 0, dst=frame.dst)

    def _progress(self, frame: Progress, now: int) -> None:
        """What a transport sends to `dst` arrives: link need not ask the next hop whether it is there (RFC 4861 7.3.1).
        A device without Ethernet has no neighbours to ask."""
        ctx = self._ctx
        ctx.now = now
        hop = ctx.table.lookup(frame.dst)
        if hop is None or hop.local or hop.group or hop.refused or ctx.link is None or not ctx.link.mac:
            return
        ctx.counters["neighbours_confirmed"] += 1
        ctx.out.append((LINK, Confirmed(hop.next_hop)))

    # --- neighbours

    def _neighbour_up(self, frame: NeighbourUp, now: int) -> None:
        ctx = self._ctx
        ctx.now = now
        if frame.name in ctx.transports.values():
            send_routes(ctx)
        elif frame.name == LINK:
            commands.tell_link(ctx)

    def _neighbour_down(self, frame: NeighbourDown, now: int) -> None:
        """What waits for a process that is gone is of no use to its successor: connections and routes are told anew.

        Routes stay while link is away: it is started again, and until then packets are lost as on a bad cable.
        """
        ctx = self._ctx
        ctx.now = now
        kept: deque[tuple[str, Outgoing]] = deque()
        for port, out in ctx.out:
            if port == frame.name:
                frame_id = 0 if isinstance(out, Routes | Answer | Local | Confirmed) else out.id
                ctx.drop(reasons.NEIGHBOUR_DOWN, frame_id, to=port)
            else:
                kept.append((port, out))
        ctx.out = kept
        ctx.queued = sum(isinstance(out, Packet) for _, out in kept)
        if frame.name == ctx.transports.get(Proto.UDP):
            groups(ctx, Groups([]), now)  # its sockets are gone, and so are their memberships
