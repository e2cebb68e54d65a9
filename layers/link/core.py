"""The link layer as a calculator: frames of the device to IP packets and back, ARP between.

In:  port "device": DeviceFrame, DeviceState; port "ip": Packet, Local, Confirmed, NeighbourUp, NeighbourDown.
Out: ("device", DeviceFrame), ("ip", Packet | LinkState | Unreachable).

Upward the link header goes, and padding behind the IP packet with it; whether the packet is any good is for ip to
judge (receiving.py). Downward the transport checksum and the cutting of super-packets are always left to the device by
a virtio header (sending.py); a device that cannot do it is helped by its port (offload.py). Payloads in shared memory
are passed on unread.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from layers.link import claims, news, snapshot
from layers.link.commands import command
from layers.link.config import TUNABLES, LinkCoreConfig
from layers.link.context import Context, ToIp
from layers.link.receiving import ethernet_arrives, raw_arrives
from layers.link.sending import carry_out, send
from levelip.frames.core import UNLIMITED, ControlError, Output, Room
from levelip.frames.packet import Confirmed, DeviceFrame, DeviceState, Local, Packet
from levelip.frames.seam import NeighbourDown, NeighbourUp
from levelip.tracing import reasons
from levelip.tracing.events import Event


class LinkCore:
    """See the module's text; the verbs are those of levelip.frames.core.Core."""

    def __init__(self, config: LinkCoreConfig, rng: random.Random, now: int) -> None:
        ctx = Context(config, rng, now)
        if ctx.device.up:
            claims.start(ctx)
        self._attach(ctx)

    def _attach(self, ctx: Context) -> None:
        self._ctx = ctx
        self.counters = ctx.counters
        self._handlers: dict[type, Callable[[Context, Any], None]] = {
            DeviceFrame: ethernet_arrives if ctx.ethernet else raw_arrives,
            Packet: send,
            Local: news.local,
            Confirmed: news.confirmed,
            DeviceState: news.device_changed,
            NeighbourUp: news.neighbour_up,
            NeighbourDown: news.neighbour_down,
        }

    @property
    def interest(self) -> bool:
        """Somebody listens to events."""
        return self._ctx.interest

    @interest.setter
    def interest(self, value: bool) -> None:
        self._ctx.interest = value

    # the verbs

    def receive(self, frame: Any, now: int) -> None:
        """Take one frame of either port."""
        ctx = self._ctx
        ctx.now = now
        handler = self._handlers.get(type(frame))
        if handler is None:
            raise TypeError(f"{type(frame).__name__} is no frame for link")
        handler(ctx, frame)

    def handle_timer(self, now: int) -> None:
        """Announce, ask again, give up."""
        ctx = self._ctx
        ctx.now = now
        claims.handle_timer(ctx)
        carry_out(ctx, ctx.arp.handle_timer(now))

    def next_timer(self) -> int | None:
        """The earliest of the claims' and the cache's deadlines, ns of stack time."""
        neighbours, addresses = self._ctx.arp.next_timer(), claims.next_timer(self._ctx)
        if neighbours is None or addresses is None:
            return addresses if neighbours is None else neighbours
        return min(neighbours, addresses)

    def outgoing(self, room: Room) -> Output:
        """Take what fits. Packets that ip has no room for are dropped: their slots in the pool cannot wait."""
        ctx = self._ctx
        if not ctx.up and not ctx.down:
            return []
        out: Output = self._take_up(room.get("ip", UNLIMITED)) if ctx.up else []
        if down := ctx.down:
            limit = room.get("device", UNLIMITED)
            if len(down) <= limit:
                out += down
                ctx.down = []
            else:
                out += down[:limit]
                rest = down[limit:]
                keep = ctx.link.device_queue
                for _, frame in rest[keep:]:  # the newest go, as from Linux's pfifo
                    ctx.drop(reasons.DEVICE_QUEUE, frame.id)
                ctx.down = rest[:keep]
        return out

    def _take_up(self, limit: int) -> list[tuple[str, ToIp]]:
        ctx = self._ctx
        up, ctx.up = ctx.up, []
        if len(up) <= limit:
            return up
        out, late = up[:limit], up[limit:]
        told = []
        for item in late:
            if type(item[1]) is Packet:
                ctx.drop(reasons.PIPE_FULL, item[1].id)
            else:
                told.append(item)
        ctx.up = told[-ctx.link.device_queue :]
        return out

    def events(self) -> list[Event]:
        """Take the events since the last call."""
        ctx = self._ctx
        events, ctx.event_list = ctx.event_list, []
        return events

    def control(self, _token: int, name: str, args: dict[str, Any], now: int) -> dict[str, Any]:
        """See commands.py."""
        self._ctx.now = now
        return command(self._ctx, name, args)

    def set(self, key: str, value: Any, now: int) -> None:
        """Change a tunable of [link]; what is trusted or asked already keeps its deadline."""
        if key not in TUNABLES:
            raise ControlError(f"link.{key} cannot be changed while link runs; these can: {', '.join(TUNABLES)}")
        self._ctx.now = now
        setattr(self._ctx.link, key, value)

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain data."""
        return snapshot.take(self._ctx)

    @classmethod
    def restore(cls, config: LinkCoreConfig, data: dict[str, Any]) -> LinkCore:
        """The core that `snapshot` was taken of. ValueError for data of another version."""
        core = cls.__new__(cls)
        core._attach(snapshot.restore(config, data))
        return core
